// Hopper's asynchronous machinery for the host compiler: mbarriers, tensor maps and TMA, wgmma, clusters. Layouts and
// descriptors are those of the PTX ISA manual (9.7.13 to 9.7.15) and of CUtensorMap, so that a wrong one shows here.
#pragma once
#include "kernels/simt/matrix.h"

namespace tw::simt {

// A mbarrier in shared memory, 8 bytes as on a GPU.
void mbarrier_init(uint64_t* bar, uint32_t count);
void mbarrier_arrive(uint64_t* bar, uint32_t arrivals, uint32_t expect_bytes);
void mbarrier_wait(uint64_t* bar, uint32_t parity, Site site);
void* map_shared(void* p, unsigned rank);
unsigned cluster_rank();
unsigned cluster_size();
void cluster_arrive();
void cluster_wait(Site site);
struct TensorMapData {
  char* data;
  uint64_t size[5], stride[5];  // innermost first; strides in bytes
  uint32_t box[5];
  int ndim, item, swizzle;  // swizzle: 0, 32, 64 or 128 bytes
  bool tf32;                // float32 that loads round
  // A map of pixels (im2col): box is (channels, pixels), the rest from W on.
  bool im2col;
  int lower[3], upper[3], step[3];
};
void tma_load(void* dst, const TensorMapData& map, uint64_t* bar, const int* at, const uint16_t* by, uint16_t blocks);
void tma_store(const TensorMapData& map, const void* src, const int* at);
void tma_store_commit();
void tma_store_wait(int groups_left, bool read_only);
void fence_async();
using ReadItem = float (*)(uint32_t bits);
struct WgmmaOp {
  float* acc;  // (N / 8, 4) of this thread
  uint64_t a, b;
  bool a_in_registers, keep, a_across, b_across;  // across: not contiguous along K
  uint32_t a_registers[4];
  int n, item;  // columns; bytes an item: 2, or 4 for tf32
  ReadItem read;
};
void wgmma(const WgmmaOp& op, Site site);
void wgmma_commit();
void wgmma_wait(int groups_left);
uint64_t descriptor(const void* p, unsigned leading, unsigned stride, int swizzle);

}  // namespace tw::simt

namespace tw::cuda {

inline void mbarrier_init(uint64_t* bar, uint32_t count) { simt::mbarrier_init(bar, count); }
inline void mbarrier_init_fence() {}  // makes initialised barriers seen by the cluster and the copy engine
inline void mbarrier_arrive(uint64_t* bar) { simt::mbarrier_arrive(bar, 1, 0); }
inline void mbarrier_expect(uint64_t* bar, uint32_t bytes) { simt::mbarrier_arrive(bar, 1, bytes); }
inline void mbarrier_arrive_at(uint64_t* bar, unsigned rank) {
  simt::mbarrier_arrive(static_cast<uint64_t*>(simt::map_shared(bar, rank)), 1, 0);
}
inline void mbarrier_wait(uint64_t* bar, uint32_t parity, simt::Site at = simt::Site::here()) {
  simt::mbarrier_wait(bar, parity, at);
}

inline unsigned cluster_rank() { return simt::cluster_rank(); }
inline unsigned cluster_size() { return simt::cluster_size(); }
inline void cluster_arrive() { simt::cluster_arrive(); }
inline void cluster_wait(simt::Site at = simt::Site::here()) { simt::cluster_wait(at); }
template <class T> T* map_shared(T* p, unsigned rank) { return static_cast<T*>(simt::map_shared(p, rank)); }
// The threads of a part of the block meet: bar.sync, id in 1 ... 15, threads a multiple of 32.
inline void named_barrier(int id, int threads, simt::Site at = simt::Site::here()) {
  simt::barrier(id, threads, simt::Vote::kNone, 0, at);
}
template <int kRegisters> void raise_registers() {}  // setmaxnreg
template <int kRegisters> void lower_registers() {}

struct alignas(64) TensorMap {
  simt::TensorMapData map;
};
template <int kDims>
void tma_load(void* dst, const TensorMap& map, uint64_t* bar, const int (&at)[kDims], uint16_t blocks = 0) {
  simt::tma_load(dst, map.map, bar, at, nullptr, blocks);
}
template <int kDims>
void tma_load_pixels(void* dst, const TensorMap& map, uint64_t* bar, const int (&at)[kDims],
                     const uint16_t (&by)[kDims - 2], uint16_t blocks = 0) {
  simt::tma_load(dst, map.map, bar, at, by, blocks);
}
template <int kDims> void tma_store(const TensorMap& map, const void* src, const int (&at)[kDims]) {
  simt::tma_store(map.map, src, at);
}
inline void tma_store_commit() { simt::tma_store_commit(); }
template <int kLeft, bool kReadOnly = true> void tma_store_wait() { simt::tma_store_wait(kLeft, kReadOnly); }
inline void fence_async() { simt::fence_async(); }
inline void prefetch_map(const TensorMap&) {}

template <class T> float read_wgmma(uint32_t bits) {
  if constexpr (sizeof(T) == 4) return __uint_as_float(bits & ~0x1fffu);
  else return widen(T{static_cast<uint16_t>(bits)});
}
inline uint64_t wgmma_descriptor(const void* p, unsigned leading, unsigned stride, int swizzle) {
  return simt::descriptor(p, leading, stride, swizzle);
}
inline void wgmma_fence() {}
inline void wgmma_commit() { simt::wgmma_commit(); }
template <int kLeft> void wgmma_wait() { simt::wgmma_wait(kLeft); }
template <int N> void wgmma_hold(float (&)[N]) {}
template <class T, int N, bool kAcrossA = false, bool kAcrossB = false>
void wgmma(float (&acc)[N / 2], uint64_t a, uint64_t b, bool keep, simt::Site at = simt::Site::here()) {
  simt::wgmma({acc, a, b, false, keep, kAcrossA, kAcrossB, {}, N, sizeof(T), &read_wgmma<T>}, at);
}
template <class T, int N, bool kAcrossB = false>
void wgmma(float (&acc)[N / 2], const uint32_t (&a)[4], uint64_t b, bool keep, simt::Site at = simt::Site::here()) {
  simt::wgmma({acc, 0, b, true, keep, false, kAcrossB, {a[0], a[1], a[2], a[3]}, N, sizeof(T), &read_wgmma<T>}, at);
}

}  // namespace tw::cuda
