// bfloat16 products on the AVX512-BF16 instruction: float32 sums of pairs of bfloat16 products, twice the multiply-adds.
//
// vdpbf16ps adds a[2q + 1] b[2q + 1] and then a[2q] b[2q] to a float32 lane, each by a fused multiply-add rounded to
// nearest; it takes subnormal inputs as 0 and flushes subnormal sums. So the error bound is gemm.h's plus K 2^-126
// (|A| + |B| + 1), and measured by tests/op_table/products.py beside the bound of float32 arithmetic.
// Method: a pair along K is one 32-bit word, and packed panels of words have the layout of float panels of half the
// depth, so that gemm.h runs as it is; only the tile's instruction differs. An odd K ends with a 0.
// 1024 cubed: 0.9 to 1.06 times the speed of oneDNN.
// Compiled for level avx512 with the one instruction added, and chosen at run time by its own CPUID bit.
#pragma once
#include "kernels/cpu/gemm.h"

#if TW_VEC_BYTES == 64
namespace tw::TW_ISA {

TW_INLINE bool has_bf16() { return __builtin_cpu_supports("avx512bf16"); }

// gemm_tile.h's tile, of pairs.
template <int R, int V>
__attribute__((noinline, target("avx512bf16"))) void tile_pairs(int cols, int64_t count, const float* a, const float* b,
                                                                float* c, int64_t c_row, bool add) {
  constexpr int L = Vec<float>::kLanes;
  __m512 acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) acc[i][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < count; ++k) {
    __m512bh bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = (__m512bh)_mm512_loadu_ps(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const __m512bh ai = (__m512bh)_mm512_set1_ps(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = _mm512_dpbf16_ps(acc[i][v], ai, bv[v]);
    }
    a += kStepA<float>;
    b += kNr<float>;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* p = c + i * c_row + v * L;
      const int n = v < V - 1 ? L : cols - (V - 1) * L;
      const Vec<float> x((Vec<float>::Native)acc[i][v]);
      (add ? Vec<float>::load(p, n) + x : x).store(p, n);
    }
}
template <int V, int R = kMr<float>>
TW_INLINE void run_rows_of_pairs(int rows, int cols, int64_t count, const float* a, const float* b, float* c,
                                 int64_t c_row, bool add) {
  if (R == 1 || rows == R) return tile_pairs<R, V>(cols, count, a, b, c, c_row, add);
  if constexpr (R > 1) run_rows_of_pairs<V, R - 1>(rows, cols, count, a, b, c, c_row, add);
}

// dst[q * step + i] = src[i * lane + (2 q, 2 q + 1) * depth] as one word, for i < n and 2 q < count.
inline void pack_pairs(float* dst, int step, const bfloat16* src, int64_t lane, int64_t depth, int n, int64_t count) {
  constexpr int L = Vec<float>::kLanes;
  using Words = Vec<int32_t>;
  const auto bits_of = [](const bfloat16* p, int i, int n) {
    const auto* words = reinterpret_cast<const uint16_t*>(p) + i;
    return n - i >= L ? load_as<int32_t>(words) : load_as<int32_t>(words, n - i);
  };
  if (lane == 1 || n == 1) {
    for (int64_t k = 0; k < count; k += 2, dst += step, src += 2 * depth) {
      for (int i = 0; i < n; i += L) {
        __builtin_prefetch(src + 16 * depth + i);
        __builtin_prefetch(src + 17 * depth + i);
        const Words low = bits_of(src, i, n), high = k + 1 < count ? bits_of(src + depth, i, n) : Words(0);
        from_bits(low | (high << 16)).store(dst + i);
      }
    }
    return;
  }
  constexpr int kRun = 128;  // elements of a row at a time
  alignas(64) bfloat16 run[L][kRun];
  for (int64_t k0 = 0; k0 < count; k0 += kRun, dst += kRun / 2 * step) {
    const int64_t length = least(kRun, count - k0);
    const bool copies = depth != 1 || length % 2;
    for (int i = 0; i < n; i += L) {
      const float* p[L];
      for (int q = 0; q < L; ++q) {
        if (i + q >= n) {
          p[q] = p[q - 1];
          continue;
        }
        const bfloat16* row = src + (i + q) * lane + k0 * depth;
        if (copies) {
          for (int64_t k = 0; k < length; ++k) run[q][k] = row[k * depth];
          if (length % 2) run[q][length] = bfloat16{0};
          row = run[q];
        }
        p[q] = reinterpret_cast<const float*>(row);
      }
      transpose_lanes(dst + i, step, p, ceil_div(length, 2));
    }
  }
}

// One product of a batch, its K counted in pairs.
struct PairsProduct {
  const bfloat16 *a, *b;
  int64_t a_row, a_col, b_row, b_col, c_row, c_start, K;
  Epilogue<float> end;

  TW_INLINE void pack_a(float* dst, int64_t i, int rows, int64_t k, int64_t count) const {
    pack_pairs(dst, kStepA<float>, a + i * a_row + 2 * k * a_col, a_row, a_col, rows, least(2 * count, K - 2 * k));
  }
  TW_INLINE void pack_b(float* dst, int64_t j, int cols, int64_t k, int64_t count) const {
    pack_pairs(dst, kNr<float>, b + 2 * k * b_row + j * b_col, b_col, b_row, cols, least(2 * count, K - 2 * k));
  }
  TW_INLINE const float* direct_b(int64_t, int64_t, int64_t*) const { return nullptr; }
  TW_INLINE void store(int64_t i, int64_t j, int64_t cols, const float* sums) const {
    end.row(c_start + i * c_row + j, end.bias_rows ? i : j, cols, sums);
  }
  static TW_INLINE void multiply(int rows, int cols, int64_t count, const float* a, const float* b, float* c,
                                 int64_t c_row, bool add) {
    if (cols > Vec<float>::kLanes) run_rows_of_pairs<2>(rows, cols, count, a, b, c, c_row, add);
    else run_rows_of_pairs<1>(rows, cols, count, a, b, c, c_row, add);
  }
};

}  // namespace tw::TW_ISA
#endif
