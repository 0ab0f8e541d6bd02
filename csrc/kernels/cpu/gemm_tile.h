// The register tile of products and the table of block sizes.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

TW_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
TW_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// THE table of block sizes. The register tile is mr rows of `vectors` vectors: mr * vectors accumulators, `vectors`
// of B and one broadcast of A fill the registers (32 at avx512, 16 below; scalar has no FMA and needs one more for the
// product, so its tile is smaller). kc: a panel of A (mr x kc) takes at most 24 KB, which leaves room in the smallest
// L1. cols: a block of B that all threads share (kc x cols, 1.5 MB) streams from L2 and L3 at 128 bytes a 28
// multiply-adds; blocks of 512 columns fit L2 but pack A twice as often, and were 3 % slower at 2048 with A transposed
// (AMD EPYC, family 25 model 17); kc 256 or 512 with blocks of one size was up to 10 % slower there. rows: of a task
// that packs for itself.
struct Blocks {
  int mr, vectors, kc, rows, cols;
};
template <class T> constexpr Blocks blocks() {
  constexpr int kc = sizeof(T) == 4 ? 384 : 192;
#if TW_VEC_BYTES == 64
  return {14, 2, kc, 504, 1024};
#elif TW_VEC_BYTES == 32
  return {6, 2, kc, 504, 1024};
#else
  return {4, 2, kc, 504, 1024};
#endif
}
template <class T> constexpr int kMr = blocks<T>().mr;
template <class T> constexpr int kNr = blocks<T>().vectors * Vec<T>::kLanes;
template <class T> constexpr int kStepA = (kMr<T> + 3) / 4 * 4;  // in whole registers

// c (R x cols, at most V vectors) = or += sum over k of a[k, 0 : R] (outer) b[k, 0 : V vectors]
template <class T, int R, int V>
__attribute__((noinline)) void tile(int cols, int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_step,
                                    T* c, int64_t c_row, bool add) {
  constexpr int L = Vec<T>::kLanes, kAhead = 16;  // rows of B: no prefetcher follows those of a large matrix
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(c + i * c_row, 1);  // by the time the sums are done, their place has come
    if (V * L * sizeof(T) > 64) __builtin_prefetch(c + i * c_row + cols - 1, 1);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  }
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) __builtin_prefetch(b + kAhead * b_step + v * L);
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> ai(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
    }
    a += a_step;
    b += b_step;
  }
  if (cols == V * L) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        T* p = c + i * c_row + v * L;
        (add ? Vec<T>::load(p) + acc[i][v] : acc[i][v]).store(p);
      }
    return;
  }
  const int rest = cols - (V - 1) * L;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* p = c + i * c_row + v * L;
      const int n = v < V - 1 ? L : rest;
      (add ? Vec<T>::load(p, n) + acc[i][v] : acc[i][v]).store(p, n);
    }
}

template <class T, int V, int R = kMr<T>>
TW_INLINE void run_rows(int rows, int cols, int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_step, T* c,
                        int64_t c_row, bool add) {
  if (R == 1 || rows == R) return tile<T, R, V>(cols, count, a, a_step, b, b_step, c, c_row, add);
  if constexpr (R > 1) run_rows<T, V, R - 1>(rows, cols, count, a, a_step, b, b_step, c, c_row, add);
}
// c[0 : rows, 0 : cols] = or += A (count columns of `rows` elements, a_step apart) times B (count rows of at least `cols`
// elements, up to whole vectors, b_step apart).
template <class T>
void run_tile(int rows, int cols, int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_step, T* c,
              int64_t c_row, bool add) {
  static_assert(kNr<T> == 2 * Vec<T>::kLanes);
  if (cols > Vec<T>::kLanes) run_rows<T, 2>(rows, cols, count, a, a_step, b, b_step, c, c_row, add);
  else run_rows<T, 1>(rows, cols, count, a, a_step, b, b_step, c, c_row, add);
}

// The same for at most kMrInPlace rows of A that are contiguous along k and a_row apart: nothing is packed. As many as
// there are ways in the smallest L1, since rows of a power of two of elements all meet in one set.
constexpr int kMrInPlace = 7;
template <class T, int R, int V>
__attribute__((noinline)) void tile_in_place(int cols, int64_t count, const T* a, int64_t a_row, const T* b,
                                             int64_t b_step, T* c, int64_t c_row, bool add) {
  constexpr int L = Vec<T>::kLanes;
  Vec<T> acc[R][V];
  const T* row[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    row[i] = a + i * a_row;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  }
  for (int64_t k = 0; k < count; ++k) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> ai(row[i][k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
    }
    b += b_step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* p = c + i * c_row + v * L;
      const int n = v < V - 1 ? L : cols - (V - 1) * L;
      (add ? Vec<T>::load(p, n) + acc[i][v] : acc[i][v]).store(p, n);
    }
}

template <class T, int V, int R = kMrInPlace>
TW_INLINE void run_rows_in_place(int rows, int cols, int64_t count, const T* a, int64_t a_row, const T* b,
                                 int64_t b_step, T* c, int64_t c_row, bool add) {
  if (R == 1 || rows == R) return tile_in_place<T, R, V>(cols, count, a, a_row, b, b_step, c, c_row, add);
  if constexpr (R > 1) run_rows_in_place<T, V, R - 1>(rows, cols, count, a, a_row, b, b_step, c, c_row, add);
}
template <class T>
void run_tile_in_place(int rows, int cols, int64_t count, const T* a, int64_t a_row, const T* b, int64_t b_step, T* c,
                       int64_t c_row, bool add) {
  for (int i = 0; i < rows; i += kMrInPlace) {
    const int m = int(least(kMrInPlace, rows - i));
    if (cols > Vec<T>::kLanes)
      run_rows_in_place<T, 2>(m, cols, count, a + i * a_row, a_row, b, b_step, c + i * c_row, c_row, add);
    else run_rows_in_place<T, 1>(m, cols, count, a + i * a_row, a_row, b, b_step, c + i * c_row, c_row, add);
  }
}

}  // namespace tw::TW_ISA
