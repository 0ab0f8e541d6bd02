// A matrix times one to four vectors, bound by reading the matrix once: Y (M x R) = A (M x K) X (K x R).
//
// Order of the sums, the same for every layout of A: K is cut into chunks of kChunk; in a chunk, lane l of a vector
// sums k = l, l + lanes, l + 2 lanes, ...; sum() adds the lanes by its tree; chunks are added in order.
// Rows contiguous along k: kRows of them at a time from end to end, lanes along k (a chunk of each in turn starts the
// prefetchers anew at every page: 1.6 ms against 1.4 for 64 MB). Contiguous along A's rows: each lane of the order has
// its own sums for a strip of rows, in L1.
// Error: gamma(kChunk / lanes + lanes + K / kChunk) |A||X|, measured by tests/op_table/products.py.
// Bytes: A once, X once a piece. What a strip reads next is fetched ahead: a stride hides it from the prefetchers.
// Below 0.85 of the stream on an EPYC of family 25 model 17: strips (R = 1 0.75, more 0.5 to 0.7), bound by moves of
// the lanes' sums. Tried there, no faster: memory's rows in plain order, strips of 256 to 2048, 8 rows at a time,
// fetching two or three lanes ahead; sums in registers with a pass for each lane read at half the rate.
#pragma once
#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"

namespace tw::TW_ISA {

constexpr int kMostThin = 4;                          // with 5, sums and operands no longer fit the registers of AVX2
constexpr int64_t kChunk = 1024, kLong = 8 * kChunk;  // X of so many k's is copied at a time: 128 KB at most
template <int R> constexpr int64_t kStrip = 512 / (R == 3 ? 4 : R);  // sums of a strip: 32 KB at avx512

// n rows of A, contiguous along k; x[r] begins at x + r * kChunk; y has R values a row.
template <int kRows, int R, class T, class S>
TW_INLINE void dot_rows(const S* a, int64_t a_row, const T* x, int64_t count, T* y, bool add) {
  constexpr int L = Vec<T>::kLanes;
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

// At most kStrip<R> of A's rows, contiguous along the rows: sums for each lane of the order are kept in cache, and
// kSteps rows of memory that meet the same lane are taken at a time, so that four bytes are read for one of sums moved.
// The first vector is short by `shift` where that puts all others on whole cache lines: column j's sums are at j in it
// and at j + shift behind it. 2.5 ms against 3 for 64 MB, 0.15 against 0.2 for 16 MB.
template <int R, class T, class S>
TW_INLINE void dot_columns(const S* a, int64_t a_col, int64_t width, const T* x, int64_t count, T* y, bool add) {
  constexpr int L = Vec<T>::kLanes, kSteps = 4;
  constexpr int64_t W = kStrip<R> + L;
  T lanes[L][R][W];
  const int64_t shift = a_col % L == 0 ? int64_t(reinterpret_cast<uintptr_t>(a) / sizeof(S) % L) : 0;
  const int64_t whole = round_up(width + shift, L);
  for (int l = 0; l < L; ++l)
    for (int r = 0; r < R; ++r)
      for (int64_t i = 0; i < whole; i += L) Vec<T>(T(0)).store(&lanes[l][r][i]);
  for (int64_t k0 = 0; k0 < count; k0 += kSteps * L)
    for (int l = 0; l < L && k0 + l < count; ++l) {
      const S* at = a + (k0 + l) * a_col;
      const int steps = int(least(kSteps, ceil_div(count - k0 - l, L)));
      for (int64_t i = 0; i < whole; i += L) {
        const int64_t j = most(0, i - shift);
        const int n = int(least(i + L - shift, width) - j);
        Vec<T> sums[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r] = Vec<T>::load(&lanes[l][r][i]);
        for (int q = 0; q < steps; ++q) {
          const S* p = at + q * L * a_col + j;
          __builtin_prefetch(p + a_col);  // the next lane's
          const Vec<T> av = n == L ? load_as<T>(p) : load_as<T>(p, n);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) sums[r] = fma(av, Vec<T>(x[r * kChunk + k0 + l + q * L]), sums[r]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r].store(&lanes[l][r][i]);
      }
    }
  for (int h = L / 2; h > 0; h /= 2)
    for (int l = 0; l < h; ++l)
      for (int r = 0; r < R; ++r)
        for (int64_t i = 0; i < whole; i += L)
          (Vec<T>::load(&lanes[l][r][i]) + Vec<T>::load(&lanes[l + h][r][i])).store(&lanes[l][r][i]);
  for (int64_t j = 0; j < width; ++j)
    for (int r = 0; r < R; ++r) {
      const T sum = lanes[0][r][j < L - shift ? j : j + shift];
      y[j * R + r] = add ? y[j * R + r] + sum : sum;
    }
}

// y (rows x R) = or += A X for `rows` rows and at most kLong k's.
template <int R, class T, class S>
__attribute__((noinline)) void dot_part(const S* a, int64_t a_row, int64_t a_col, int64_t rows, const S* x,
                                        int64_t x_row, int64_t x_col, int64_t count, T* y, bool add) {
  constexpr int kRows = TW_VEC_BYTES == 64 ? 4 : R == 1 ? 4 : 2;
  const int64_t padded = round_up(count, kChunk) + Vec<T>::kLanes;  // pack_strided writes whole vectors
  T* const xs = static_cast<T*>(scratch(3, sizeof(T) * R * padded));
  for (int64_t k = 0; k < count; k += kChunk)
    for (int r = 0; r < R; ++r)
      pack_strided(xs + R * k + r * kChunk, 1, x + r * x_col + k * x_row, int64_t(1), x_row, 1,
                   least(kChunk, count - k), 1);
  const bool columns = a_col != 1 && a_row == 1;
  for (int64_t i = 0, n; i < rows; i += n) {
    n = columns ? least(kStrip<R>, rows - i) : a_col == 1 && rows - i >= kRows ? kRows : 1;
    for (int64_t k = 0; k < count; k += kChunk) {
      const S* at = a + i * a_row + k * a_col;
      const T* const xk = xs + R * k;
      const int64_t length = least(kChunk, count - k);
      const bool more = add || k > 0;
      if (columns) {
        dot_columns<R>(at, a_col, n, xk, length, y + i * R, more);
      } else if (n == kRows) {
        dot_rows<kRows, R>(at, a_row, xk, length, y + i * R, more);
      } else {
        S strided[kChunk];
        if (a_col != 1) {
          for (int64_t q = 0; q < length; ++q) strided[q] = at[q * a_col];
          at = strided;
        }
        dot_rows<1, R>(at, 0, xk, length, y + i * R, more);
      }
    }
  }
}

// Y = A X for each product of a batch. operands(p, &a, &x) gives A's and X's first elements of product p;
// store(p, i, n, y) takes n finished rows of Y from row i on, R values each. Pieces are rows by chunks of K where there
// are too few rows to share out.
template <int R, class T, class S, class Operands, class Store>
void thin_product(int64_t batch, int64_t M, int64_t K, int64_t a_row, int64_t a_col, int64_t x_row, int64_t x_col,
                  const Operands& operands, const Store& store) {
  constexpr int64_t kPiece = int64_t(1) << 17;
  const int64_t chunks = ceil_div(K, kChunk), rows = least(M, round_up(most(1, kPiece / K), kStrip<R>));
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
    const int64_t begin = part * kChunk, end = split ? least(K, begin + kChunk) : K;
    for (int64_t k = begin; k < end; k += kLong)
      dot_part<R, T>(a + i * a_row + k * a_col, a_row, a_col, n, x + k * x_row, x_row, x_col, least(kLong, end - k), y,
                     k > begin);
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
