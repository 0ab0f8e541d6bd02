// A matrix times one to four vectors, bound by reading the matrix once: Y (M x R) = A (M x K) X (K x R).
//
// Order of the sums, the same for every layout of A: K is cut into chunks of kChunk; in a chunk, lane l of a vector
// sums k = l, l + lanes, l + 2 lanes, ...; sum() adds the lanes by its tree; chunks are added in order.
// Rows contiguous along k: kRows of them at a time, lanes along k. Columns contiguous along the rows: lane l of the
// order is a pass of its own over rows k = l, l + lanes, ... of memory, with sums for a strip of A's rows in registers.
// Error: gamma(kChunk / lanes + lanes + K / kChunk) |A||X|, measured by tests/op_table/products.py.
// Bytes: A once, X once a piece. What is read next is fetched ahead: a stride hides it from the prefetchers.
#pragma once
#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"

namespace tw::TW_ISA {

constexpr int kMostThin = 4;  // with 5, sums and operands no longer fit the registers of AVX2
constexpr int64_t kChunk = 1024;
// Vectors of a strip: sums for R columns of X fill most of the registers.
template <int R> constexpr int kStripVectors = (TW_VEC_BYTES == 64 ? 2 : 1) * (R == 1 ? 8 : R == 2 ? 4 : 3);

// n rows of A, contiguous along k; x[r] begins at x + r * kChunk; y has R values a row.
template <int kRows, int R, class T, class S>
TW_INLINE void dot_rows(const S* a, int64_t a_row, const T* x, int64_t count, T* y, bool add) {
  constexpr int L = Vec<T>::kLanes, kLine = 64 / sizeof(S);
  Vec<T> acc[kRows][R];
  for (int i = 0; i < kRows; ++i)
    for (int r = 0; r < R; ++r) acc[i][r] = Vec<T>(T(0));
  int64_t k = 0;
  for (; k + L <= count; k += L) {
    Vec<T> xk[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) xk[r] = Vec<T>::load(x + r * kChunk + k);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      if (k % kLine == 0) __builtin_prefetch(a + (i + kRows) * a_row + k);
      const Vec<T> ai = load_as<T>(a + i * a_row + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[i][r] = fma(ai, xk[r], acc[i][r]);
    }
  }
  if (k < count) {
    const int n = int(count - k);
    for (int i = 0; i < kRows; ++i) {
      const Vec<T> ai = load_as<T>(a + i * a_row + k, n);
      for (int r = 0; r < R; ++r) acc[i][r] = fma(ai, Vec<T>::load(x + r * kChunk + k, n), acc[i][r]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int r = 0; r < R; ++r) y[i * R + r] = add ? y[i * R + r] + sum(acc[i][r]) : sum(acc[i][r]);
}

// V vectors of A's rows (the last of them `last` lanes), contiguous along the rows.
template <int V, int R, class T, class S>
TW_INLINE void dot_columns(const S* a, int64_t a_col, int last, const T* x, int64_t count, T* y, bool add) {
  constexpr int L = Vec<T>::kLanes, kLine = 64 / sizeof(S), kAhead = 4;
  Vec<T> lanes[L][R][V];
  for (int l = 0; l < L; ++l) {
    Vec<T> acc[R][V];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] = Vec<T>(T(0));
    for (int64_t k = l; k < count; k += L) {
      const S* at = a + k * a_col;
      for (int v = 0; v < V * L; v += kLine) __builtin_prefetch(at + kAhead * L * a_col + v);
      Vec<T> xk[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) xk[r] = Vec<T>(x[r * kChunk + k]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        const Vec<T> av = V == 1 && last < L ? load_as<T>(at, last) : load_as<T>(at + v * L);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r][v] = fma(av, xk[r], acc[r][v]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) lanes[l][r][v] = acc[r][v];
  }
  for (int h = L / 2; h > 0; h /= 2)
    for (int l = 0; l < h; ++l)
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) lanes[l][r][v] = lanes[l][r][v] + lanes[l + h][r][v];
  for (int v = 0; v < V; ++v)
    for (int i = 0; i < (V == 1 ? last : L); ++i)
      for (int r = 0; r < R; ++r) {
        T* to = y + (v * L + i) * R + r;
        *to = add ? *to + lanes[0][r][v][i] : lanes[0][r][v][i];
      }
}

// One chunk of `rows` rows: y (rows x R) = or += A X.
template <int R, class T, class S>
__attribute__((noinline)) void dot_chunk(const S* a, int64_t a_row, int64_t a_col, int64_t rows, const S* x,
                                         int64_t x_row, int64_t x_col, int64_t count, T* y, bool add) {
  constexpr int L = Vec<T>::kLanes, kRows = TW_VEC_BYTES == 64 ? 4 : R == 1 ? 4 : 2;
  T xs[R * kChunk];
  for (int r = 0; r < R; ++r)
    pack_strided(xs + r * kChunk, 1, x + r * x_col, int64_t(1), x_row, 1, count, 1);
  int64_t i = 0;
  if (a_col == 1) {
    for (; i + kRows <= rows; i += kRows)
      dot_rows<kRows, R>(a + i * a_row, a_row, static_cast<const T*>(xs), count, y + i * R, add);
    for (; i < rows; ++i) dot_rows<1, R>(a + i * a_row, a_row, static_cast<const T*>(xs), count, y + i * R, add);
    return;
  }
  if (a_row == 1) {
    constexpr int V = kStripVectors<R>;
    for (; i + V * L <= rows; i += V * L)
      dot_columns<V, R>(a + i, a_col, L, static_cast<const T*>(xs), count, y + i * R, add);
    for (; i < rows; i += L)
      dot_columns<1, R>(a + i, a_col, int(least(L, rows - i)), static_cast<const T*>(xs), count, y + i * R, add);
    return;
  }
  for (; i < rows; ++i) {
    S strided[kChunk];
    for (int64_t k = 0; k < count; ++k) strided[k] = a[i * a_row + k * a_col];
    dot_rows<1, R>(static_cast<const S*>(strided), 0, static_cast<const T*>(xs), count, y + i * R, add);
  }
}

// Y = A X for each product of a batch. operands(p, &a, &x) gives A's and X's first elements of product p;
// store(p, i, n, y) takes n finished rows of Y from row i on, R values each. Pieces are rows by chunks of K where there
// are too few rows to share out.
template <int R, class T, class S, class Operands, class Store>
void thin_product(int64_t batch, int64_t M, int64_t K, int64_t a_row, int64_t a_col, int64_t x_row, int64_t x_col,
                  const Operands& operands, const Store& store) {
  constexpr int64_t kPiece = int64_t(1) << 17, kStrip = kStripVectors<R> * Vec<T>::kLanes;
  const int64_t chunks = ceil_div(K, kChunk), rows = least(M, round_up(most(1, kPiece / K), kStrip));
  const int64_t groups = ceil_div(M, rows);
  const bool split = batch * groups < 8 && chunks > 1;
  T* sums = split ? static_cast<T*>(scratch(2, sizeof(T) * batch * chunks * M * R)) : nullptr;
  const int64_t parts = split ? chunks : 1;
  parallel_for(batch * groups * parts, [&](int64_t piece) {
    const int64_t number = piece / (groups * parts), part = piece % parts, i = piece / parts % groups * rows;
    const int64_t n = least(rows, M - i);
    const S *a, *x;
    operands(number, &a, &x);
    T* y = split ? sums + ((number * chunks + part) * M + i) * R : static_cast<T*>(scratch(0, sizeof(T) * n * R));
    for (int64_t c = part; c < (split ? part + 1 : chunks); ++c) {
      const int64_t k = c * kChunk;
      dot_chunk<R, T>(a + i * a_row + k * a_col, a_row, a_col, n, x + k * x_row, x_row, x_col, least(kChunk, K - k), y,
                      !split && c > 0);
    }
    if (!split) store(number, i, n, y);
  });
  if (!split) return;
  for (int64_t number = 0; number < batch; ++number) {
    T* y = sums + number * chunks * M * R;
    for (int64_t c = 1; c < chunks; ++c)
      for (int64_t i = 0; i < M * R; ++i) y[i] += y[c * M * R + i];
    store(number, 0, M, y);
  }
}

}  // namespace tw::TW_ISA
