// A small matrix turned through registers: the walk's tiles of transposed operands, and short rows laid down as columns.
//
// n rounds of interleaving the first half of 2^n registers with the second transpose them (each round is a perfect
// shuffle, which moves one bit of the column index into the row index). Items are moved as bits, 1 to 8 bytes each.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

// dst[r][c] = src[c][r], where src's rows are `stride` bytes apart and dst is dense. n rounds of interleaving the first
// half of 2^n registers with the second transpose them.
constexpr int64_t kAhead = 8;  // source rows
template <class W> TW_INLINE void transpose(char* dst, const char* src, int64_t stride, int64_t rows, int64_t cols) {
  constexpr int N = 16 / sizeof(W);
  const int64_t pitch = cols * int64_t(sizeof(W));
  using V = typename Pack<W, N>::Type;
  using U = typename Pack<W, N>::Unaligned;
  V low = {}, high = {};
  for (int i = 0; i < N; ++i) {
    low[i] = W(i / 2 + i % 2 * N);
    high[i] = W(low[i] + N / 2);
  }
  const int64_t full_rows = rows / N * N, full_cols = cols / N * N;
  for (int64_t c = 0; c < full_cols; c += N)
    for (int64_t r = 0; r < full_rows; r += N) {
      V v[N], w[N];
      for (int i = 0; i < N; ++i) {
        const char* p = src + (c + i) * stride + r * int64_t(sizeof(W));
        v[i] = *reinterpret_cast<const U*>(p);
        // Some rows ahead, at the end of the tile those of the tile below: no prefetcher follows such strides, and a
        // whole tile ahead would meet in the same sets of the cache when the stride is a power of two.
        if (r * int64_t(sizeof(W)) % 64 == 0) {
          const int64_t next = c + i + kAhead;
          __builtin_prefetch(next < cols ? p + kAhead * stride
                                         : p + (kAhead - cols) * stride + rows * int64_t(sizeof(W)));
        }
      }
      for (int n = 1; n < N; n *= 2) {
        for (int i = 0; i < N / 2; ++i) {
          w[2 * i] = __builtin_shuffle(v[i], v[i + N / 2], low);
          w[2 * i + 1] = __builtin_shuffle(v[i], v[i + N / 2], high);
        }
        for (int i = 0; i < N; ++i) v[i] = w[i];
      }
      for (int i = 0; i < N; ++i) *reinterpret_cast<U*>(dst + (r + i) * pitch + c * int64_t(sizeof(W))) = v[i];
    }
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = c < full_cols ? full_rows : 0; r < rows; ++r)
      __builtin_memcpy(dst + r * pitch + c * int64_t(sizeof(W)), src + c * stride + r * int64_t(sizeof(W)), sizeof(W));
}

template <int kSize> struct WordOf {
  using type = uint64_t;
};
template <> struct WordOf<1> {
  using type = uint8_t;
};
template <> struct WordOf<2> {
  using type = uint16_t;
};
template <> struct WordOf<4> {
  using type = uint32_t;
};

// Dense (rows, cols) to dense (cols, rows).
template <class S> __attribute__((noinline)) void transpose_rows(S* dst, const S* src, int64_t rows, int64_t cols) {
  transpose<typename WordOf<sizeof(S)>::type>(reinterpret_cast<char*>(dst), reinterpret_cast<const char*>(src),
                                              cols * int64_t(sizeof(S)), cols, rows);
}

}  // namespace tw::TW_ISA
