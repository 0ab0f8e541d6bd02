// This build's table: the emulator's or a GPU's. Every slot has a CUDA kernel; one without would run on the CPU's table
// (dispatch.cpp), if its line were left out here.
#include "kernel_table.h"

namespace tw::cuda {

#define X(name, Args) void name(const Args&);
TW_ALL_KERNELS
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
  TW_ALL_KERNELS
#undef X
  return t;
}
}  // namespace

extern const KernelTable kernel_table;
const KernelTable kernel_table = filled();

}  // namespace tw::cuda
