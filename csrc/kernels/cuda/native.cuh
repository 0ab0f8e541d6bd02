// The wrappers of device.cuh for nvcc: inline PTX and the CUDA runtime. kernels/simt has the same names for the host
// compiler. PTX is quoted from the PTX ISA manual, section 9.7.
#pragma once
#include <cuda_runtime.h>

#include <tuple>
#include <type_traits>

#include "tensor/dtype.h"

namespace tw::cuda {

using Stream = void*;

void note_error(cudaError_t status, const char* what);  // backend.cu: kept until the engine asks
bool launches_refused();

template <auto Kernel> struct Invoke;
template <class... P, void (*Kernel)(P...)> struct Invoke<Kernel> {
  static void launch(dim3 grid, dim3 block, dim3 cluster, size_t shared_bytes, Stream stream, P... args) {
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied to the device");
    if (launches_refused()) return;
    const void* kernel = reinterpret_cast<const void*>(Kernel);
    if (shared_bytes > 48 << 10)
      note_error(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
                 "shared memory");
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster.x, attribute.val.clusterDim.y = cluster.y,
    attribute.val.clusterDim.z = cluster.z;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    config.numAttrs = cluster.x * cluster.y * cluster.z > 1;
    void* pointers[sizeof...(P) + 1] = {static_cast<void*>(&args)...};
    note_error(cudaLaunchKernelExC(&config, kernel, pointers), "launch");
  }
};
template <auto Kernel, class... A>
void launch_cluster(dim3 grid, dim3 block, dim3 cluster, size_t shared_bytes, Stream stream, A... args) {
  Invoke<Kernel>::launch(grid, block, cluster, shared_bytes, stream, args...);
}
template <auto Kernel, class... A>
void launch_kernel(dim3 grid, dim3 block, size_t shared_bytes, Stream stream, A... args) {
  Invoke<Kernel>::launch(grid, block, dim3(1), shared_bytes, stream, args...);
}

#define TW_SHARED(name, ...) __shared__ __align__(16)::std::type_identity_t<__VA_ARGS__> name

template <class T> __device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char tw_dynamic_shared[];
  return reinterpret_cast<T*>(tw_dynamic_shared);
}
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void touched(const void*, size_t, bool) {}  // the emulator checks the access here

__device__ __forceinline__ float widen(bfloat16 h) { return __uint_as_float(unsigned{h.bits} << 16); }
__device__ __forceinline__ float widen(float16 h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
  return f;
}
template <class H> __device__ __forceinline__ H round_to(float v) {
  H h;
  if constexpr (std::is_same_v<H, float16>) asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(v));
  else asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(v));
  return h;
}

// Two floats as the halves of a register, and 2^x to 2 ulp with results below 2^-126 as 0.
template <class H> __device__ __forceinline__ uint32_t round_pair(float low, float high) {
  uint32_t r;
  if constexpr (std::is_same_v<H, float16>) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ float exp2_flush(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// True in every thread of the block that comes here last of `total`: it may read what the others wrote before.
__device__ __forceinline__ bool last_block(unsigned* counter, unsigned total) {
  __threadfence();
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    last = atomicAdd(counter, 1u) + 1 == total;
    if (last) *counter = 0;
  }
  last = __syncthreads_or(last);
  if (last) __threadfence();
  return last;
}

// The lanes of the warp whose digit, below 256, is this one's. (match.any takes a step for each distinct value.)
__device__ __forceinline__ unsigned match_digit(unsigned digit) {
  unsigned peers = ~0u;
#pragma unroll
  for (int b = 0; b < 8; ++b) {
    const unsigned set = __ballot_sync(~0u, digit >> b & 1);
    peers &= digit >> b & 1 ? set : ~set;
  }
  return peers;
}

// --- asynchronous copies into shared memory: 4, 8 or 16 bytes, of which `valid` exist and the rest become 0 --
template <int kBytes> __device__ __forceinline__ void cp_async(void* shared, const void* global, int valid = kBytes) {
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(kBytes), "r"(valid)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft> __device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// --- fragments: matrix.h of the emulator draws their layouts --
template <int kCount, bool kTranspose = false>
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[kCount], const void* row) {
  const unsigned p = shared_address(row);
  if constexpr (kCount == 4 && !kTranspose)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(p)
                 : "memory");
  else if constexpr (kCount == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(p)
                 : "memory");
  else if constexpr (kCount == 2 && !kTranspose)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(p)
                 : "memory");
  else if constexpr (kCount == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(p)
                 : "memory");
  else static_assert(kCount == 4, "ldmatrix loads 2 or 4 matrices");
}

// d (16, 8) += a (16, 16) b (16, 8), T float16 or bfloat16.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, float16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d (16, 8) += a (16, 8) b (8, 8) of float32 bits, whose low 13 are not read.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ uint32_t round_to_tf32(float v) {  // to nearest, ties away from zero
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
}

}  // namespace tw::cuda
