// What the recurrent cells share: the product of a step, and the teams of threads that walk the steps.
//
// A step multiplies the state of some rows (a, up to 1024 long) with a recurrent matrix that stays the same for all
// steps, so the matrix is packed once into panels: one for each block of `units` vectors of hidden values, which holds
// for each k the block's columns of all gates side by side. One panel gives all that a cell needs for its hidden values,
// so the gates are finished while the tile's sums are in L1. Each sum is one chain of multiply-adds over kDepth k,
// chains added in order, whatever rows and threads share the work.
#pragma once
#include "kernels/cpu/gemm.h"

namespace tw::TW_ISA {

// Rows of the register tile of V vectors: their accumulators, V vectors of b and one broadcast of a fill the registers.
template <int V> constexpr int kStepRows = TW_VEC_BYTES == 64   ? (V == 4 ? 6 : V == 3 ? 9 : 14)
                                           : TW_VEC_BYTES == 32 ? (V == 4 ? 2 : V == 3 ? 4 : 6)
                                                                : (V == 4 ? 2 : V == 3 ? 3 : 4);
constexpr int64_t kDepth = 512;    // a panel's block of k: 128 KB of float32, kept in L2 while the rows pass over it
constexpr int64_t kRowsOnce = 64;  // rows whose sums are in cache at once

template <class T> struct Panels {
  static constexpr int L = Vec<T>::kLanes;
  T* data;
  int64_t K, H;
  int gates, units;

  int64_t width() const { return units * L; }
  int64_t count() const { return ceil_div(H, width()); }
  int64_t begin(int64_t block) const { return block * width(); }
  int64_t cols(int64_t block) const { return least(width(), H - begin(block)); }
  int vectors(int64_t block) const { return gates * int(ceil_div(cols(block), L)); }
  T* panel(int64_t block) const { return data + begin(block) * K * gates; }

  // Column j of gate g at row k is w[(g H + j) row + k col].
  void pack(const T* w, int64_t row, int64_t col, int64_t block) const {
    const int step = vectors(block) * L, per_gate = step / gates;
    for (int g = 0; g < gates; ++g)
      pack_strided(panel(block) + g * per_gate, step, w + (g * H + begin(block)) * row, row, col, int(cols(block)), K,
                   L);
  }
};

// c (R x V vectors) = or += a (R x count) b (count x V vectors)
template <class T, int V, int R>
__attribute__((noinline)) void step_tile(int64_t count, const T* a, int64_t a_row, const T* b, T* c, bool add) {
  constexpr int L = Vec<T>::kLanes;
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  for (int64_t k = 0; k < count; ++k) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> ai(a[i * a_row + k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
    }
    b += V * L;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* p = c + (i * V + v) * L;
      (add ? Vec<T>::load(p) + acc[i][v] : acc[i][v]).store(p);
    }
}
template <class T, int V, int R = kStepRows<V>>
TW_INLINE void step_tiles(int rows, int64_t count, const T* a, int64_t a_row, const T* b, T* c, bool add) {
  if (R == 1 || rows == R) return step_tile<T, V, R>(count, a, a_row, b, c, add);
  if constexpr (R > 1) step_tiles<T, V, R - 1>(rows, count, a, a_row, b, c, add);
}

// sums (rows x V vectors) = a (rows x K) panel (K x V vectors)
template <class T, int V>
void step_product(int64_t rows, int64_t K, const T* a, int64_t a_row, const T* panel, T* sums) {
  constexpr int64_t step = V * Vec<T>::kLanes;
  const int64_t tiles = ceil_div(rows, kStepRows<V>), depth = ceil_div(K, ceil_div(K, kDepth));
  for (int64_t k = 0; k < K; k += depth)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t i = rows * t / tiles, end = rows * (t + 1) / tiles;
      step_tiles<T, V>(int(end - i), least(depth, K - k), a + i * a_row + k, a_row, panel + k * step, sums + i * step,
                       k > 0);
    }
}
template <class T>
void step_product(const Panels<T>& p, int64_t block, int64_t rows, const T* a, int64_t a_row, T* sums) {
  switch (p.vectors(block)) {
    case 1: return step_product<T, 1>(rows, p.K, a, a_row, p.panel(block), sums);
    case 2: return step_product<T, 2>(rows, p.K, a, a_row, p.panel(block), sums);
    case 3: return step_product<T, 3>(rows, p.K, a, a_row, p.panel(block), sums);
    default: return step_product<T, 4>(rows, p.K, a, a_row, p.panel(block), sums);
  }
}

// f(j) for each whole vector of [begin, end), f(j, count) for the rest.
template <class T, class F> TW_INLINE void each_vector(int64_t begin, int64_t end, const F& f) {
  constexpr int L = Vec<T>::kLanes;
  int64_t j = begin;
  for (; j + L <= end; j += L) f(j);
  if (j < end) f(j, int(end - j));
}

// How the steps are shared out. A lane is some rows of one direction: it walks its steps alone, waiting for nobody.
// Where there are too few rows for that, the pieces of a lane, some columns of every step each, meet after every step.
// The number of threads may decide here: neither cut changes how any sum is made.
struct StepPlan {
  int64_t groups, lanes, pieces;
  StepPlan(int64_t D, int64_t B, int64_t blocks, int64_t weights) {
    // A lane of fewer rows would be bound by reading the weights; a piece of fewer weights by the meeting (0.2 us).
    constexpr int64_t kLaneRows = 8, kPieceWeights = 1 << 14;
    const int64_t threads = num_threads();
    groups = most(1, least(ceil_div(threads, D), B / kLaneRows));
    lanes = D * groups;
    pieces = most(1, least(ceil_div(threads, lanes), least(blocks, weights / kPieceWeights)));
  }
};

// work(lane, step, piece) for all; a step of a lane begins when all pieces of the one before are done. Threads take the
// pieces, each first those it had before, whose weights are in its cache. One thread alone gets everything done too:
// a thread waits only for pieces that others have begun.
template <class F> void walk_steps(int64_t lanes, int64_t pieces, int64_t steps, const F& work) {
  if (pieces == 1) {
    return parallel_for(lanes, [&](int64_t lane) {
      for (int64_t s = 0; s < steps; ++s) work(lane, s, int64_t{0});
    });
  }
  const int64_t stride = round_up(pieces + 1, 16);  // a lane's counters: pieces done, and each piece's steps taken
  int64_t* counters = static_cast<int64_t*>(scratch(3, static_cast<size_t>(lanes * stride) * sizeof(int64_t)));
  for (int64_t i = 0; i < lanes * stride; ++i) counters[i] = 0;
  parallel_for(lanes * pieces, [&](int64_t i) {
    const int64_t lane = i % lanes, first = i / lanes;
    int64_t *done = counters + lane * stride, *taken = done + 1;
    for (int64_t s = 0; s < steps; ++s) {
      for (int64_t n = 0; __atomic_load_n(done, __ATOMIC_ACQUIRE) < s * pieces; ++n) wait_a_little(n);
      for (int64_t q = 0; q < pieces; ++q) {
        const int64_t piece = (first + q) % pieces;
        int64_t expected = s;
        if (!__atomic_compare_exchange_n(taken + piece, &expected, s + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
          continue;
        work(lane, s, piece);
        __atomic_fetch_add(done, 1, __ATOMIC_RELEASE);
      }
    }
  });
}

}  // namespace tw::TW_ISA
