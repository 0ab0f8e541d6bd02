// The binary and ternary rows of the elementwise list, each an instance of the walk (elementwise.cuh).
#include "kernels/cuda/elementwise.cuh"
#include "kernels/functors.h"

namespace tw::cuda {

#define TW_X(name, Functor, kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, kind, 2>(a); }
TW_BINARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, Functor, kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, kind, 3>(a); }
TW_TERNARY_LIST(TW_X)
#undef TW_X

}  // namespace tw::cuda
