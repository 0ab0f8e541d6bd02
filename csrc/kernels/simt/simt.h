// CUDA C++ for the host compiler: the keywords, built-in variables and intrinsics that the sources of kernels/cuda use
// under CUDA's own names, with threads as fibers (runtime.cpp) and every finding checked there. What is PTX on a GPU
// has its emulated twin in matrix.h and hopper.h. docs/kernels/cuda.md says what is emulated and what is not.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "tensor/dtype.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
#define TW_VECTOR_TYPES(T, name)                     \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; }; \
  struct alignas(16) name##4 { T x, y, z, w; };
TW_VECTOR_TYPES(float, float)
TW_VECTOR_TYPES(int, int)
TW_VECTOR_TYPES(unsigned, uint)
#undef TW_VECTOR_TYPES

// Set at every switch to another thread.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace tw::simt {

#ifdef TW_SIMT_CHECKED
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

// Where a primitive was called, for the findings' texts: a default argument of everything that waits.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct LaunchShape {
  const char* kernel;  // its name
  void (*run)(const void* args);
  const void* args;
  size_t args_bytes;
  dim3 grid, block, cluster;
  size_t shared_bytes;
};
void launch(const LaunchShape& shape);

// Something that looks wrong. `fatal` ends the launch, since going on would crash or hang.
void finding(bool fatal, const char* kind, const char* format, ...) __attribute__((format(printf, 3, 4)));

// --- primitives that wait --
enum class Vote { kNone, kCount, kAnd, kOr };
int barrier(int id, int threads, Vote vote, int predicate, Site site);  // threads 0: the whole block
// All lanes of the mask meet; the last one runs combine(mask, in, out, extra), which reads and writes for all of them.
using Combine = void (*)(unsigned mask, const void* const* in, void* const* out, const void* extra);
void collective(const char* name, unsigned mask, const void* in, void* out, Combine combine, const void* extra,
                Site site);
void sync_warp(unsigned mask, Site site);

// --- memory --
// What instrumented code does by itself; the primitives call it for the memory that they touch.
void touch(const void* p, size_t bytes, bool write, bool atomic = false);
void atomic_point();  // before an atomic: sometimes lets other threads go first
// One variable in the block's shared memory, by an address that names it.
void* shared_variable(const void* key, const char* name, size_t bytes, size_t align);
void* dynamic_shared_bytes();
void copy_async(void* dst, const void* src, int bytes, int valid);
void copy_async_commit();
void copy_async_wait(int groups_left);
bool last_block(unsigned* counter, unsigned total);
int lane();

}  // namespace tw::simt

// A variable in shared memory: TW_SHARED(tile, float[32][33]).
#define TW_SHARED(name, ...)                                                                 \
  static const char tw_key_##name = 0;                                                       \
  auto& name = *static_cast<std::type_identity_t<__VA_ARGS__>*>(::tw::simt::shared_variable( \
      &tw_key_##name, #name, sizeof(std::type_identity_t<__VA_ARGS__>), alignof(std::type_identity_t<__VA_ARGS__>)))

// --- barriers, votes, shuffles: CUDA's names --
inline void __syncthreads(tw::simt::Site at = tw::simt::Site::here()) {
  tw::simt::barrier(0, 0, tw::simt::Vote::kNone, 0, at);
}
inline int __syncthreads_count(int p, tw::simt::Site at = tw::simt::Site::here()) {
  return tw::simt::barrier(0, 0, tw::simt::Vote::kCount, p, at);
}
inline int __syncthreads_and(int p, tw::simt::Site at = tw::simt::Site::here()) {
  return tw::simt::barrier(0, 0, tw::simt::Vote::kAnd, p, at);
}
inline int __syncthreads_or(int p, tw::simt::Site at = tw::simt::Site::here()) {
  return tw::simt::barrier(0, 0, tw::simt::Vote::kOr, p, at);
}
inline void __syncwarp(unsigned mask = ~0u, tw::simt::Site at = tw::simt::Site::here()) {
  tw::simt::sync_warp(mask, at);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline unsigned __ballot_sync(unsigned mask, int p, tw::simt::Site at = tw::simt::Site::here()) {
  unsigned result;
  tw::simt::collective(
      "ballot", mask, &p, &result,
      [](unsigned m, const void* const* in, void* const* out, const void*) {
        unsigned bits = 0;
        for (int i = 0; i < 32; ++i)
          if (m >> i & 1 && *static_cast<const int*>(in[i])) bits |= 1u << i;
        for (int i = 0; i < 32; ++i)
          if (m >> i & 1) *static_cast<unsigned*>(out[i]) = bits;
      },
      nullptr, at);
  return result;
}
inline int __any_sync(unsigned mask, int p, tw::simt::Site at = tw::simt::Site::here()) {
  return __ballot_sync(mask, p, at) != 0;
}
inline int __all_sync(unsigned mask, int p, tw::simt::Site at = tw::simt::Site::here()) {
  return __ballot_sync(mask, p, at) == mask;
}

namespace tw::simt {
// Every lane says which lane's value it wants; a lane outside the mask gives nothing that could be relied upon.
template <class T> struct Shuffled {
  T value;
  int from;
};
template <class T> T shuffle(const char* name, unsigned mask, T value, int from, Site at) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Shuffled<T> in{value, from};
  T out;
  collective(
      name, mask, &in, &out,
      [](unsigned m, const void* const* x, void* const* y, const void* op) {
        for (int i = 0; i < 32; ++i) {
          if (!(m >> i & 1)) continue;
          const int s = static_cast<const Shuffled<T>*>(x[i])->from;
          if (!(m >> s & 1))
            finding(true, "shuffle", "%s: lane %d reads lane %d, which mask 0x%08x does not name",
                    static_cast<const char*>(op), i, s, m);
          *static_cast<T*>(y[i]) = static_cast<const Shuffled<T>*>(x[s])->value;
        }
      },
      name, at);
  return out;
}
}  // namespace tw::simt

template <class T>
T __shfl_sync(unsigned mask, T v, int src, int width = 32, tw::simt::Site at = tw::simt::Site::here()) {
  return tw::simt::shuffle("__shfl_sync", mask, v, (tw::simt::lane() & ~(width - 1)) | (src & (width - 1)), at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, tw::simt::Site at = tw::simt::Site::here()) {
  const int l = tw::simt::lane(), s = l ^ bits;
  return tw::simt::shuffle("__shfl_xor_sync", mask, v, (s & ~(width - 1)) <= (l & ~(width - 1)) ? s : l, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, int by, int width = 32, tw::simt::Site at = tw::simt::Site::here()) {
  const int l = tw::simt::lane();
  return tw::simt::shuffle("__shfl_down_sync", mask, v, (l & (width - 1)) + by < width ? l + by : l, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, int by, int width = 32, tw::simt::Site at = tw::simt::Site::here()) {
  const int l = tw::simt::lane();
  return tw::simt::shuffle("__shfl_up_sync", mask, v, (l & (width - 1)) >= by ? l - by : l, at);
}

// --- atomics: threads change only where they wait, so a plain update is one --
#define TW_UNCHECKED __attribute__((no_sanitize("thread")))  // what it reads and writes is told to touch()
#define TW_ATOMIC(name, ...)                                                \
  template <class T> TW_UNCHECKED T name(T* p, std::type_identity_t<T> v) { \
    tw::simt::atomic_point();                                               \
    tw::simt::touch(p, sizeof(T), true, true);                              \
    const T old = *p;                                                       \
    *p = __VA_ARGS__;                                                       \
    return old;                                                             \
  }
TW_ATOMIC(atomicAdd, T(old + v))
TW_ATOMIC(atomicMax, old > v ? old : v)
TW_ATOMIC(atomicMin, old < v ? old : v)
TW_ATOMIC(atomicExch, v)
TW_ATOMIC(atomicOr, T(old | v))
TW_ATOMIC(atomicAnd, T(old& v))
#undef TW_ATOMIC
template <class T> TW_UNCHECKED T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  tw::simt::atomic_point();
  tw::simt::touch(p, sizeof(T), true, true);
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline float __int_as_float(int v) { return __builtin_bit_cast(float, v); }
inline int __float_as_int(float v) { return __builtin_bit_cast(int, v); }
inline unsigned __float_as_uint(float v) { return __builtin_bit_cast(unsigned, v); }
inline float __uint_as_float(unsigned v) { return __builtin_bit_cast(float, v); }
template <class T> T __ldg(const T* p) { return *p; }

namespace tw::cuda {

using Stream = void*;

bool launches_refused();  // device.cuh's refuse_launches

template <auto Kernel> struct Invoke;
template <class... P, void (*Kernel)(P...)> struct Invoke<Kernel> {
  // A kernel's parameters are a copy of their own for each thread, as on a GPU.
  static void run(const void* args) { std::apply(Kernel, *static_cast<const std::tuple<P...>*>(args)); }
  static const char* name() { return __PRETTY_FUNCTION__; }
  static void launch(dim3 grid, dim3 block, dim3 cluster, size_t shared_bytes, P... args) {
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied to the device");
    if (launches_refused()) return;
    const std::tuple<P...> all(args...);
    simt::launch({name(), &run, &all, sizeof(all), grid, block, cluster, shared_bytes});
  }
};

// kernel<<<grid, block, shared_bytes, stream>>>(args...), in clusters of `cluster` blocks.
template <auto Kernel, class... A>
void launch_cluster(dim3 grid, dim3 block, dim3 cluster, size_t shared_bytes, Stream, A... args) {
  Invoke<Kernel>::launch(grid, block, cluster, shared_bytes, args...);
}
template <auto Kernel, class... A> void launch_kernel(dim3 grid, dim3 block, size_t shared_bytes, Stream, A... args) {
  Invoke<Kernel>::launch(grid, block, dim3(), shared_bytes, args...);
}

template <class T> T* dynamic_shared() { return static_cast<T*>(simt::dynamic_shared_bytes()); }

}  // namespace tw::cuda

namespace tw::cuda {

inline unsigned match_digit(unsigned digit, simt::Site at = simt::Site::here()) {
  unsigned peers;
  simt::collective(
      "match_digit", ~0u, &digit, &peers,
      [](unsigned, const void* const* in, void* const* out, const void*) {
        unsigned lanes[256] = {};
        for (int i = 0; i < 32; ++i) lanes[*static_cast<const unsigned*>(in[i]) & 255] |= 1u << i;
        for (int i = 0; i < 32; ++i)
          *static_cast<unsigned*>(out[i]) = lanes[*static_cast<const unsigned*>(in[i]) & 255];
      },
      nullptr, at);
  return peers;
}

inline void touched(const void* p, size_t bytes, bool write) { simt::touch(p, bytes, write); }

inline float widen(bfloat16 h) { return __uint_as_float(unsigned{h.bits} << 16); }
inline float widen(float16 h) { return static_cast<float>(__builtin_bit_cast(_Float16, h.bits)); }
template <class H> H round_to(float v) {
  if constexpr (std::is_same_v<H, float16>) {
    return {__builtin_bit_cast(uint16_t, static_cast<_Float16>(v))};
  } else {
    const uint32_t bits = __builtin_bit_cast(uint32_t, v);
    if (v != v) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  }
}
template <class H> uint32_t round_pair(float low, float high) {
  return round_to<H>(low).bits | uint32_t{round_to<H>(high).bits} << 16;
}
inline float exp2_flush(float x) {
  const float y = ::exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

}  // namespace tw::cuda
