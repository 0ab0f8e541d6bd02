// y = f(x), elementwise: every row of TW_UNARY_LIST. Formulas: kernels/functors.h; accuracy: kernels/cpu/vec_math.h.
#include "kernels/cpu/elementwise.h"

namespace tw::TW_ISA {

#define TW_X(name, Functor, Kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, Kind, 1>(a); }
TW_UNARY_LIST(TW_X)
#undef TW_X

}  // namespace tw::TW_ISA
