// The machine's limits as this level's code meets them: multiply-adds from registers, and streams through memory.
//
// fma_peak: acc = acc * b + c in kChains independent chains of one register each, no memory. One fused instruction is
// two operations; level scalar has no FMA and does them as two. float32 and float64; chains tend to c / (1 - b), far
// from overflow and subnormals. Twelve chains cover latency times throughput (4 to 5 cycles, 2 a cycle: 8 to 10) and
// leave registers for b and c on levels with 16. y holds the chains' sums, so that the compiler can drop none.
// stream_read: y = partial sums of x; stream_copy: y = x; stream_triad: y = x + 3 z (McCalpin's STREAM, 1995). float32;
// n a multiple of 64. Each piece is passed `repeats` times; the barrier between passes keeps the compiler from merging
// them. tests/test_benchmarks.py checks the values. The clock is the caller's (ops/machine.cpp).
#include "loops.h"
#include "vec.h"

namespace tw::TW_ISA {

constexpr int kChains = 12;

template <class T> static void fma_chains(const FmaPeakArgs& a) {
  using V = Vec<T>;
  *a.operations = 2.0 * kChains * V::kLanes * static_cast<double>(a.repeats) * static_cast<double>(a.pieces);
  parallel_for(a.pieces, [&](int64_t piece) {
    T b_value = T(0.75), c_value = T(0.5);
    asm volatile("" : "+m"(b_value), "+m"(c_value));  // constants that the compiler cannot fold
    const V b = b_value, c = c_value;
    V acc[kChains];
    for (int i = 0; i < kChains; ++i) acc[i] = V(T(i));
    for (int64_t r = 0; r < a.repeats; ++r) {
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) acc[i] = fma(acc[i], b, c);
    }
    for (int i = 1; i < kChains; ++i) acc[0] += acc[i];
    acc[0].store(reinterpret_cast<T*>(static_cast<char*>(a.y) + piece * 64));
  });
}

void fma_peak(const FmaPeakArgs& a) { a.dtype == DType::kFloat64 ? fma_chains<double>(a) : fma_chains<float>(a); }

using V = Vec<float>;
constexpr int kUnroll = 64 / V::kLanes;  // 256 bytes a turn

// body(piece's first element) for each pass over each piece.
template <class F> TW_INLINE void passes(const StreamArgs& a, F&& body) {
  parallel_for(a.pieces, [&](int64_t piece) {
    for (int64_t r = 0; r < a.repeats; ++r) {
      body(piece * a.n);
      asm volatile("" ::: "memory");
    }
    if (a.non_temporal) _mm_sfence();
  });
}

template <bool kNonTemporal, class F> TW_INLINE void write_pass(float* y, int64_t n, F&& value) {
  for (int64_t i = 0; i < n; i += 64) {
#pragma GCC unroll 16
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = i + u * V::kLanes;
      if constexpr (kNonTemporal) TW_MM(stream_ps)(y + at, value(at).v);
      else value(at).store(y + at);
    }
  }
}

template <class F> TW_INLINE void write_stream(const StreamArgs& a, F&& value) {
  passes(a, [&](int64_t first) {
    const auto at = [&](int64_t i) { return value(first + i); };
    a.non_temporal ? write_pass<true>(a.y + first, a.n, at) : write_pass<false>(a.y + first, a.n, at);
  });
}

void stream_copy(const StreamArgs& a) {
  write_stream(a, [&](int64_t i) { return V::load(a.x + i); });
}

void stream_triad(const StreamArgs& a) {
  write_stream(a, [&](int64_t i) { return fma(V(3.0f), V::load(a.z + i), V::load(a.x + i)); });
}

void stream_read(const StreamArgs& a) {
  passes(a, [&](int64_t first) {
    V acc[kUnroll];
    for (int u = 0; u < kUnroll; ++u) acc[u] = V(0.0f);
    for (int64_t i = 0; i < a.n; i += 64) {
#pragma GCC unroll 16
      for (int u = 0; u < kUnroll; ++u) acc[u] += V::load(a.x + first + i + u * V::kLanes);
    }
    for (int u = 1; u < kUnroll; ++u) acc[0] += acc[u];
    acc[0].store(a.y + first / a.n * 16);
  });
}

}  // namespace tw::TW_ISA
