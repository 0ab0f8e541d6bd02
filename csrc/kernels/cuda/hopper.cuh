// What only sm_90a has, for *_sm90.cu: mbarriers, the copy engine (TMA) with its tensor maps, products of a warpgroup
// (wgmma), clusters. The emulator's twin is kernels/simt/hopper.h. PTX is the PTX ISA manual's, sections 9.7.13 to 9.7.15.
//
//   mbarrier_init(bar, arrivals), mbarrier_init_fence()           once, by one thread; then a barrier of the block
//   mbarrier_expect(bar, bytes)                                   arrives, and the phase waits for so many bytes as well
//   mbarrier_arrive(bar), mbarrier_arrive_at(bar, rank)           rank: the barrier at the same place of that block
//   mbarrier_wait(bar, parity)                                    until the phase of that parity has completed
//   tma_load(dst, map, bar, {x, y}, blocks)                       one thread; blocks: a mask of the cluster, 0: this one
//   tma_load_pixels(dst, map, bar, {c, x, y, n}, {dx, dy}, blocks)   im2col: from (x, y, n) on, all read (dx, dy) further
//   tma_store(map, src, {x, y}), tma_store_commit(), tma_store_wait<N>()
//   fence_async()                          ordinary stores to shared memory, before the engine or wgmma reads them
//   wgmma_fence(); wgmma<T, N>(acc, a, b, keep) ...; wgmma_commit(); wgmma_wait<N>()
//   wgmma_hold(acc)                        before the fence and round the wait: keeps the compiler's hands off acc
//   acc[N / 2]: rows 16 warp + lane / 4 (+ 8), columns 8 j + lane % 4 * 2 (+ 1): acc[4 j + 2 (row + 8) + (column + 1)]
#pragma once
#include "kernels/cuda/device.cuh"

#ifndef __CUDACC__
#include "kernels/simt/hopper.h"
#else
#include <cuda.h>

namespace tw::cuda {

struct TensorMap {
  CUtensorMap map;
};

TW_DEVICE void mbarrier_init(uint64_t* bar, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}
TW_DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
TW_DEVICE void mbarrier_arrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
TW_DEVICE void mbarrier_expect(uint64_t* bar, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
               : "memory");
}
TW_DEVICE void mbarrier_arrive_at(uint64_t* bar, unsigned rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(bar)),
      "r"(rank)
      : "memory");
}
TW_DEVICE void mbarrier_wait(uint64_t* bar, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(shared_address(bar)),
      "r"(parity)
      : "memory");
}

TW_DEVICE unsigned cluster_rank() {
  unsigned r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
TW_DEVICE unsigned cluster_size() {
  unsigned n;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
TW_DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
TW_DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
template <class T> TW_DEVICE T* map_shared(T* p, unsigned rank) {
  uint64_t r;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(r) : "l"(reinterpret_cast<uint64_t>(p)), "r"(rank));
  return reinterpret_cast<T*>(r);
}
TW_DEVICE void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <int kRegisters> TW_DEVICE void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters> TW_DEVICE void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kDims>
TW_DEVICE void tma_load(void* dst, const TensorMap& map, uint64_t* bar, const int (&at)[kDims], uint16_t blocks = 0) {
  const unsigned d = shared_address(dst), b = shared_address(bar);
  static_assert(kDims >= 2 && kDims <= 4, "boxes of 2, 3 or 4 dimensions");
#define TW_LOAD(dims, mode, coordinates, offsets, ...)                                             \
  if (blocks)                                                                                      \
    asm volatile("cp.async.bulk.tensor." dims ".shared::cluster.global." mode                      \
                 ".mbarrier::complete_tx::bytes"                                                   \
                 ".multicast::cluster [%0], [%1, " coordinates "], [%2]" offsets ", %3;" ::"r"(d), \
                 "l"(&map.map), "r"(b), "h"(blocks), __VA_ARGS__                                   \
                 : "memory");                                                                      \
  else                                                                                             \
    asm volatile("cp.async.bulk.tensor." dims ".shared::cluster.global." mode                      \
                 ".mbarrier::complete_tx::bytes"                                                   \
                 " [%0], [%1, " coordinates "], [%2]" offsets ";" ::"r"(d),                        \
                 "l"(&map.map), "r"(b), "h"(blocks), __VA_ARGS__                                   \
                 : "memory");
  if constexpr (kDims == 2) {
    TW_LOAD("2d", "tile", "{%4, %5}", "", "r"(at[0]), "r"(at[1]))
  } else if constexpr (kDims == 3) {
    TW_LOAD("3d", "tile", "{%4, %5, %6}", "", "r"(at[0]), "r"(at[1]), "r"(at[2]))
  } else {
    TW_LOAD("4d", "tile", "{%4, %5, %6, %7}", "", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]))
  }
}
template <int kDims>
TW_DEVICE void tma_load_pixels(void* dst, const TensorMap& map, uint64_t* bar, const int (&at)[kDims],
                               const uint16_t (&by)[kDims - 2], uint16_t blocks = 0) {
  const unsigned d = shared_address(dst), b = shared_address(bar);
  static_assert(kDims == 4 || kDims == 5, "images or volumes");
  if constexpr (kDims == 4) {
    TW_LOAD("4d", "im2col", "{%4, %5, %6, %7}", ", {%8, %9}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
            "h"(by[0]), "h"(by[1]))
  } else {
    TW_LOAD("5d", "im2col", "{%4, %5, %6, %7, %8}", ", {%9, %10, %11}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
            "r"(at[4]), "h"(by[0]), "h"(by[1]), "h"(by[2]))
  }
#undef TW_LOAD
}
template <int kDims> TW_DEVICE void tma_store(const TensorMap& map, const void* src, const int (&at)[kDims]) {
  const unsigned s = shared_address(src);
  static_assert(kDims >= 2 && kDims <= 4, "boxes of 2, 3 or 4 dimensions");
#define TW_STORE(dims, coordinates, ...)                                                       \
  asm volatile("cp.async.bulk.tensor." dims ".global.shared::cta.bulk_group [%0, " coordinates \
               "], [%1];" ::"l"(&map.map),                                                     \
               "r"(s), __VA_ARGS__                                                             \
               : "memory");
  if constexpr (kDims == 2) {
    TW_STORE("2d", "{%2, %3}", "r"(at[0]), "r"(at[1]))
  } else if constexpr (kDims == 3) {
    TW_STORE("3d", "{%2, %3, %4}", "r"(at[0]), "r"(at[1]), "r"(at[2]))
  } else {
    TW_STORE("4d", "{%2, %3, %4, %5}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]))
  }
#undef TW_STORE
}
TW_DEVICE void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int kLeft, bool kReadOnly = true> TW_DEVICE void tma_store_wait() {
  if constexpr (kReadOnly) asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kLeft) : "memory");
  else asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kLeft) : "memory");
}
TW_DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
TW_DEVICE void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map.map) : "memory");
}

// swizzle 0, 32, 64 or 128 bytes; leading and stride in bytes, as the manual's "matrix descriptor" means them.
TW_DEVICE uint64_t wgmma_descriptor(const void* p, unsigned leading, unsigned stride, int swizzle) {
  const uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
  return uint64_t(shared_address(p) >> 4 & 0x3fff) | uint64_t(leading >> 4 & 0x3fff) << 16 |
         uint64_t(stride >> 4 & 0x3fff) << 32 | mode << 62;
}
TW_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
TW_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft> TW_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// The compiler moves no use of the accumulators across this point.
template <int N> TW_DEVICE void wgmma_hold(float (&acc)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(acc[i])::"memory");
}

// The N / 2 accumulators of a thread, as an instruction's operands %0 ...
#define TW_ACC8(i)                                                                                        \
  "+f"(acc[i]), "+f"(acc[i + 1]), "+f"(acc[i + 2]), "+f"(acc[i + 3]), "+f"(acc[i + 4]), "+f"(acc[i + 5]), \
      "+f"(acc[i + 6]), "+f"(acc[i + 7])
#define TW_ACC32(i) TW_ACC8(i), TW_ACC8(i + 8), TW_ACC8(i + 16), TW_ACC8(i + 24)
#define TW_NAMES32                                                                                                 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define TW_NAMES64                                                                                        \
  TW_NAMES32                                                                                              \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56," \
  "%57,%58,%59,%60,%61,%62,%63"
#define TW_NAMES128                                                                                       \
  TW_NAMES64                                                                                              \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88," \
  "%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"   \
  "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
// Operands behind the accumulators: a (an address, or four registers), b, keep, and how a and b lie.
#define TW_WGMMA_SHARED(n, type, names, o0, o1, o2, o3, o4, o5, o6, ...)                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" n "k16.f32." type \
               "." type " {" names "}, " o0 ", " o1 ", p, 1, 1, " o3 ", " o4 ";\n}"                               \
               : __VA_ARGS__                                                                                      \
               : "l"(a), "l"(b), "r"(int(keep)), "n"(int(kAcrossA)), "n"(int(kAcrossB)))
#define TW_WGMMA_REGISTERS(n, type, names, o0, o1, o2, o3, o4, o5, o6, ...)                                       \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" n "k16.f32." type \
               "." type " {" names "}, {" o0 "," o1 "," o2 "," o3 "}, " o4 ", p, 1, 1, " o6 ";\n}"                \
               : __VA_ARGS__                                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(keep)), "n"(int(kAcrossB)))
#define TW_WGMMA_SHARED_TF32(n, type, names, o0, o1, o2, o3, o4, o5, o6, ...)                     \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" n \
               "k8.f32.tf32.tf32 {" names "}, " o0 ", " o1 ", p, 1, 1;\n}"                        \
               : __VA_ARGS__                                                                      \
               : "l"(a), "l"(b), "r"(int(keep)))
#define TW_WGMMA_REGISTERS_TF32(n, type, names, o0, o1, o2, o3, o4, o5, o6, ...)                  \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" n \
               "k8.f32.tf32.tf32 {" names "}, {" o0 "," o1 "," o2 "," o3 "}, " o4 ", p, 1, 1;\n}" \
               : __VA_ARGS__                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(keep)))
#define TW_WGMMA_SIZES(FORM, type)                                                                                    \
  if constexpr (N == 64) FORM("64", type, TW_NAMES32, "%32", "%33", "%34", "%35", "%36", "%37", "%38", TW_ACC32(0));  \
  else if constexpr (N == 128)                                                                                        \
    FORM("128", type, TW_NAMES64, "%64", "%65", "%66", "%67", "%68", "%69", "%70", TW_ACC32(0), TW_ACC32(32));        \
  else                                                                                                                \
    FORM("256", type, TW_NAMES128, "%128", "%129", "%130", "%131", "%132", "%133", "%134", TW_ACC32(0), TW_ACC32(32), \
         TW_ACC32(64), TW_ACC32(96));

// acc (64, N) = a (64, 16) b (16, N) + (keep ? acc : 0) for a warpgroup; T float16 or bfloat16, N 64, 128 or 256. T
// float: 8 steps of K of TF32, whose low 13 bits are not read, along K both; a in registers as m16n8k8's.
template <class T, int N, bool kAcrossA = false, bool kAcrossB = false>
TW_DEVICE void wgmma(float (&acc)[N / 2], uint64_t a, uint64_t b, bool keep) {
  static_assert(N == 64 || N == 128 || N == 256);
  if constexpr (std::is_same_v<T, float16>) {
    TW_WGMMA_SIZES(TW_WGMMA_SHARED, "f16")
  } else if constexpr (std::is_same_v<T, float>) {
    static_assert(!kAcrossA && !kAcrossB);
    TW_WGMMA_SIZES(TW_WGMMA_SHARED_TF32, "")
  } else {
    TW_WGMMA_SIZES(TW_WGMMA_SHARED, "bf16")
  }
}
template <class T, int N, bool kAcrossB = false>
TW_DEVICE void wgmma(float (&acc)[N / 2], const uint32_t (&a)[4], uint64_t b, bool keep) {
  static_assert(N == 64 || N == 128 || N == 256);
  if constexpr (std::is_same_v<T, float16>) {
    TW_WGMMA_SIZES(TW_WGMMA_REGISTERS, "f16")
  } else if constexpr (std::is_same_v<T, float>) {
    static_assert(!kAcrossB);
    TW_WGMMA_SIZES(TW_WGMMA_REGISTERS_TF32, "")
  } else {
    TW_WGMMA_SIZES(TW_WGMMA_REGISTERS, "bf16")
  }
}

}  // namespace tw::cuda
#endif

namespace tw::cuda {

// A place in a ring of buffers, and the parity of the barriers' phase there.
template <int kStages> struct Turn {
  int slot = 0;
  uint32_t phase = 0;
  TW_DEVICE void next() {
    if (++slot < kStages) return;
    slot = 0;
    phase ^= 1;
  }
};

// How a tensor in global memory is cut into boxes. Sizes innermost first; strides in bytes, of dimensions 1 ...;
// `item` bytes an element (2 or 4), halves told apart for nobody: the engine moves bits, but for `tf32`, float32 that
// loads round to TF32 (CUTLASS leaves operands to it, too; the emulator's ties go away from zero). Zeros outside.
// False, with the reason kept for the engine, where the hardware cannot: 16-byte alignment of data and strides, boxes of
// at most 256 a side, rows of the box no longer than the swizzle.
bool make_tensor_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                     const int* box, int swizzle, bool tf32 = false);

// The same of images for tma_load_pixels: sizes (C, W, H, N) or (C, W, H, D, N); a load takes `channels` of `pixels`
// pixels one after another, in steps of `step`, whose coordinates go from `lower` to size - 1 + `upper` in each
// dimension, row by row, image by image. Corners and steps from W on, as the offsets of a load: (the driver's manual
// names its corners D, H, W; that the array begins with W is CUTLASS's reading.) Corners are within 7 bits and a sign,
// offsets 8 bits; 4 and 5 bits in volumes.
bool make_pixel_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                    const int* lower, const int* upper, const int* step, int channels, int pixels, int swizzle);

}  // namespace tw::cuda
