// This build's table: the emulator's or a GPU's.
#include "kernels/cuda/kernels.h"

namespace tw::cuda {

#define X(name, Args) void name(const Args&);
TW_CUDA_KERNELS
#undef X

namespace {
KernelTable filled() {
  KernelTable t{};
#ifdef __CUDACC__
  t.name = "cuda";
#else
  t.name = "cuda_simt";
#endif
#define X(name, Args) t.name = &name;
  TW_CUDA_KERNELS
#undef X
  return t;
}
}  // namespace

extern const KernelTable kernel_table;
const KernelTable kernel_table = filled();

}  // namespace tw::cuda
