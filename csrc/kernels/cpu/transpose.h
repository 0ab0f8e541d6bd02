// A small matrix turned through registers: the walk's tiles of transposed operands, and short rows laid down as columns.
//
// n rounds of interleaving the first half of 2^n registers with the second transpose them (each round is a perfect
// shuffle, which moves one bit of the column index into the row index). Items are moved as bits, 1 to 8 bytes each.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

// From this size on results go past the caches: they would not be there any more when somebody reads them, and a line
// that is written whole need not be read first.
constexpr int64_t kStreamBytes = int64_t{16} << 20;

// A register to aligned memory, past the caches; and at the end of such writes, so that other threads see them.
template <class V> TW_INLINE void stream_register(char* p, V v) {
#if defined(__x86_64__)
  typedef long long R __attribute__((vector_size(TW_VEC_BYTES), may_alias));
#if TW_VEC_BYTES == 64
  __builtin_ia32_movntdq512(reinterpret_cast<R*>(p), (R)v);
#elif TW_VEC_BYTES == 32
  __builtin_ia32_movntdq256(reinterpret_cast<R*>(p), (R)v);
#else
  __builtin_ia32_movntdq(reinterpret_cast<R*>(p), (R)v);
#endif
#else
  __builtin_memcpy(p, &v, sizeof v);
#endif
}
TW_INLINE void end_stream(bool streamed) {
#if defined(__x86_64__)
  if (streamed) __builtin_ia32_sfence();
#endif
}

// dst[r][c] = src[c][r] for r in [0, rows), c in [0, cols): source rows `stride` bytes apart, dst's `pitch`. Squares as
// wide as a register (at most 16 of them) first, what is left at the edges in squares of 16 bytes, then one by one.
// `ahead` source rows ahead are prefetched (0: none), at the end of the tile those of the tile below: no prefetcher
// follows such strides, and a whole tile ahead would meet in the same sets of the cache when the stride is a power of
// two. kStream: past the caches; squares of 64 bytes only, dst and pitch multiples of that.
template <class W> constexpr int kSquare = sizeof(W) * 16 < TW_VEC_BYTES ? int(sizeof(W)) * 16 : TW_VEC_BYTES;
template <class W, int kBytes = kSquare<W>, bool kStream = false>
void transpose(char* dst, int64_t pitch, const char* src, int64_t stride, int64_t rows, int64_t cols,
               int64_t ahead = 0) {
  constexpr int64_t kSize = sizeof(W);
  if constexpr (kBytes == kSize) {
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = 0; r < rows; ++r)
        __builtin_memcpy(dst + r * pitch + c * kSize, src + c * stride + r * kSize, kSize);
  } else {
    constexpr int N = kBytes / kSize;
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
        const bool line = ahead > 0 && r * kSize % 64 == 0;
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
          const char* p = src + (c + i) * stride + r * kSize;
          v[i] = *reinterpret_cast<const U*>(p);
          if (line)
            __builtin_prefetch(c + i + ahead < cols ? p + ahead * stride : p + (ahead - cols) * stride + rows * kSize);
        }
#pragma GCC unroll 4
        for (int n = 1; n < N; n *= 2) {
#pragma GCC unroll 8
          for (int i = 0; i < N / 2; ++i) {
            w[2 * i] = __builtin_shuffle(v[i], v[i + N / 2], low);
            w[2 * i + 1] = __builtin_shuffle(v[i], v[i + N / 2], high);
          }
#pragma GCC unroll 16
          for (int i = 0; i < N; ++i) v[i] = w[i];
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
          char* q = dst + (r + i) * pitch + c * kSize;
          if constexpr (kStream) stream_register(q, v[i]);
          else *reinterpret_cast<U*>(q) = v[i];
        }
      }
    constexpr int kNext = kBytes > 16 ? 16 : int(kSize);
    if (full_cols < cols)
      transpose<W, kNext>(dst + full_cols * kSize, pitch, src + full_cols * stride, stride, rows, cols - full_cols);
    if (full_rows < rows)
      transpose<W, kNext>(dst + full_rows * pitch, pitch, src + full_rows * kSize, stride, rows - full_rows, full_cols);
  }
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
  constexpr int64_t kSize = sizeof(S);
  transpose<typename WordOf<sizeof(S)>::type>(reinterpret_cast<char*>(dst), rows * kSize,
                                              reinterpret_cast<const char*>(src), cols * kSize, cols, rows);
}

}  // namespace tw::TW_ISA
