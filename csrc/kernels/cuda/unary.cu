// The unary rows of the elementwise list, each an instance of the walk (elementwise.cuh).
#include "kernels/cuda/elementwise.cuh"
#include "kernels/functors.h"

namespace tw::cuda {

#define TW_X(name, Functor, kind) \
  void name(const ElementwiseArgs& a) { elementwise<Functor, kind, 1>(a); }
TW_UNARY_LIST(TW_X)
#undef TW_X

}  // namespace tw::cuda
