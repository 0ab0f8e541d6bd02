// y = f(x0, x1) and y = f(x0, x1, x2), elementwise: every row of TW_BINARY_LIST and TW_TERNARY_LIST.
#include "kernels/cpu/elementwise.h"

namespace tw::TW_ISA {

#define TW_X(name, Functor, Kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, Kind, 2>(a); }
TW_BINARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, Functor, Kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, Kind, 3>(a); }
TW_TERNARY_LIST(TW_X)
#undef TW_X

}  // namespace tw::TW_ISA
