// The core of every product: C (M x N) = A (M x K) B (K x N), written once for matrices and convolutions.
//
// Types: T is float (float16, bfloat16 and float32 operands), double, or int64_t (bool and all integers, wrapping).
// Method: the five loops of BLIS (Goto & van de Geijn 2008; Van Zee & van de Geijn 2015) round one register tile. Threads
// share one packed block of B (kc x cols, about what L2 holds); each takes panels of A's rows, packs one (into L1), and
// runs the tile along the block. While they do, the next block of B is packed as further pieces of the same job. Small
// and thin products are cut into tasks that pack for themselves.
// Every element of C is one chain of fused multiply-adds over a block of K, blocks added in order, so its bits depend
// on M, N, K and the batch size alone: not on threads, strides, or the tile it falls in. K is split over tasks only
// where C is too small to share out; the parts are added by a fixed tree.
// Error: |C - AB| <= gamma(min(K, kc) + K / kc) |A||B|, measured by the rows of tests/op_table/products.py.
// Of the FMA peak on two cores of an EPYC (family 25 model 17), float32: 128 0.75, 256 0.86 to 0.95, 512 0.87 to 0.92,
// 1024 and 2048 0.86, 1024 TN 0.85. Short of their figures: from 1024 up (the tile runs at 0.97, packing is the rest);
// M or N of 5 to 32 with K, N = 2048 (8: 0.6, or 0.35 where B must be turned; 32: 0.55): few rows pay for packing B,
// and three panels reading B in place were no faster; M = N = 64, K = 32768 0.75; batches of 64 cubed 0.65. float64:
// 0.81 to 0.85 of its peak, 1.2 times PyTorch, so twice is out of reach.
// A Problem gives, for product number p of the batch, a functor with
//   pack_a(T* dst, i, rows, k, count)     dst[kk * kStepA + ii] = A[i + ii, k + kk]
//   pack_b(T* dst, j, cols, k, count)     dst[kk * kNr + jj] = B[k + kk, j + jj], any finite values up to whole vectors
//   direct_b(j, k, &step)                 B's own memory where that already looks packed, else null; where N is
//                                         whole panels, for all of them or none
//   store(i, j, cols, const T* sums)      takes the finished sums of C[i, j : j + cols]
// and may have
//   direct_a(i, k, &row, &col)            A's own memory at (i, k) and its strides, or null
//   direct_c(i, j, rows, cols, &c_row)    where C[i : i + rows, j : j + cols] may hold unfinished sums, or null
//   multiply(...)                         run_tile's work with an instruction of its own, on packed panels
//   finishes()                            whether store() has anything to do for those (sums: C itself)
#pragma once
#include "kernels/cpu/gemm_end.h"
#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tile.h"

namespace tw::TW_ISA {

// A part of C: columns j0 .. j1 and depth k .. k + count of the product, `first` and `last` along K. Where its sums
// stay until they are finished: in C itself where the product allows it (direct_c), else at `sums`, else (a K of one
// block) in a tile that is finished at once.
template <class T> struct Block {
  int64_t j0, j1, k, count;
  bool first, last;
  const T* b;    // its panels of kNr columns, packed
  int64_t near;  // whole panels of B whose rows are at most so far apart are read where they are
  T* sums;       // of row i0 and column j0
  int64_t sums_row, i0;
  bool unfinished;  // the sums are a part of K, added up elsewhere
};

// Operands are read where they are when packing would not pay: rows that close (bytes) share pages and leave no set of
// L1 crowded.
constexpr int64_t kNear = 1024;

template <class T, class Product>
TW_INLINE const T* near_b(const Product& p, const Block<T>& s, int64_t j, int64_t* step) {
  const T* b = s.j1 - j >= kNr<T> ? p.direct_b(j, s.k, step) : nullptr;
  return b && *step <= s.near ? b : nullptr;
}

// Rows i .. i + m of a block. `own` has room for a packed panel of A and a tile.
template <class T, class Product> void run_panel(const Product& p, const Block<T>& s, int64_t i, int m, T* own) {
  constexpr int64_t kNr = TW_ISA::kNr<T>;
  T* one_tile = own + s.count * kStepA<T>;
  const T* a = nullptr;
  int64_t a_row = 1, a_step = kStepA<T>;
  if constexpr (requires { p.direct_a(i, s.k, &a_row, &a_step); }) {
    a = p.direct_a(i, s.k, &a_row, &a_step);
    const bool columns = a_row == 1 && a_step * int64_t(sizeof(T)) <= kNear, rows = a_step == 1 && s.j1 - s.j0 <= kNr;
    if (!columns && !rows) a = nullptr;
    if (columns) a_row = 1;
  }
  if (!a) {
    p.pack_a(own, i, m, s.k, s.count);
    a = own;
    a_row = 1;
    a_step = kStepA<T>;
  }
  for (int64_t j = s.j0; j < s.j1; j += kNr) {
    const int n = int(least(kNr, s.j1 - j));
    int64_t b_step = kNr, c_row = kNr;
    const T* b = near_b(p, s, j, &b_step);
    if (!b) b = s.b + (j - s.j0) * s.count, b_step = kNr;
    T* c = nullptr;
    bool finish = s.last && !s.unfinished;
    if constexpr (requires { p.direct_c(i, j, m, n, &c_row); }) {
      if (!s.unfinished) c = p.direct_c(i, j, m, n, &c_row);
      if (c && !p.finishes()) finish = false;
    }
    if (!c && s.sums) {
      c = s.sums + (i - s.i0) * s.sums_row + (j - s.j0);
      c_row = s.sums_row;
    } else if (!c) {
      c = one_tile;
      c_row = kNr;
    }
    if constexpr (requires { p.multiply(m, n, s.count, a, b, c, c_row, true); })
      p.multiply(m, n, s.count, a, b, c, c_row, !s.first);
    else if (a_row == 1) run_tile<T>(m, n, s.count, a, a_step, b, b_step, c, c_row, !s.first);
    else run_tile_in_place<T>(m, n, s.count, a, a_row, b, b_step, c, c_row, !s.first);
    if (finish)
      for (int r = 0; r < m; ++r) p.store(i + r, j, n, c + r * c_row);
  }
}

// Room for a packed panel of A and one tile, of the calling thread.
template <class T> T* panel_scratch(int64_t count) {
  return static_cast<T*>(scratch(0, sizeof(T) * (count * kStepA<T> + kMr<T> * kNr<T>)));
}

// The blocks of K: as many as kc asks for, of one length but for the last.
template <class T> int64_t block_depth(int64_t K) { return round_up(ceil_div(K, ceil_div(K, blocks<T>().kc)), 4); }

// One task: C[i0 : i1, j0 : j1] over k0 <= k < k1. With `sums` null the product is finished and stored; otherwise the
// sums stay in sums (row stride sums_row), for a product whose K is split.
template <class T, class Product>
void gemm_piece(const Product& p, int64_t i0, int64_t i1, int64_t j0, int64_t j1, int64_t k0, int64_t k1, T* sums,
                int64_t sums_row) {
  constexpr int kMr = TW_ISA::kMr<T>, kNr = TW_ISA::kNr<T>;
  const int64_t kc = block_depth<T>(k1 - k0), panels = ceil_div(i1 - i0, kMr), cols = round_up(j1 - j0, kNr);
  const int64_t tile_at = kc * kStepA<T> + kMr * kNr;
  T* a = static_cast<T*>(scratch(0, sizeof(T) * (tile_at + kc * cols)));
  Block<T> s{j0,    j1,       0,           0,
             false, false,    a + tile_at, panels <= 2 ? int64_t(1) << 40 : kNear / int64_t(sizeof(T)),
             sums,  sums_row, i0,          sums != nullptr};
  if (!sums && kc < k1 - k0) {
    s.sums = static_cast<T*>(scratch(1, sizeof(T) * (i1 - i0) * cols));
    s.sums_row = cols;
  }
  for (s.k = k0; s.k < k1; s.k += kc) {
    s.count = least(kc, k1 - s.k);
    s.first = s.k == k0;
    s.last = s.k + kc >= k1;
    int64_t step;
    for (int64_t j = j0; j < j1; j += kNr) {
      if (near_b(p, s, j, &step)) continue;
      p.pack_b(a + tile_at + (j - j0) * s.count, j, int(least(kNr, j1 - j)), s.k, s.count);
    }
    for (int64_t t = 0; t < panels; ++t) {
      const int64_t i = i0 + (i1 - i0) * t / panels, next = i0 + (i1 - i0) * (t + 1) / panels;
      run_panel(p, s, i, int(next - i), a);
    }
  }
}

// A large product on all threads: block by block of columns and of K, the panels of A's rows are the pieces.
template <class T, class Product> void gemm_shared(const Product& p, int64_t M, int64_t N, int64_t K) {
  constexpr int64_t kMr = TW_ISA::kMr<T>, kNr = TW_ISA::kNr<T>, kPiece = int64_t(1) << 19;
  const int64_t kc = block_depth<T>(K), k_blocks = ceil_div(K, kc), col_blocks = ceil_div(N, blocks<T>().cols);
  const int64_t cols = round_up(ceil_div(N, col_blocks), kNr), number = k_blocks * ceil_div(N, cols);
  int64_t panels = ceil_div(M, kMr);
  panels = round_up(panels, panels < 24 ? 2 : 4);  // so that two or four threads have the same work
  T* packed = static_cast<T*>(scratch(4, sizeof(T) * 2 * kc * cols));
  T* sums = k_blocks > 1 ? static_cast<T*>(scratch(2, sizeof(T) * M * cols)) : nullptr;
  const auto block = [&](int64_t number) {
    const int64_t j0 = number / k_blocks * cols, k = number % k_blocks * kc;
    return Block<T>{j0,
                    least(N, j0 + cols),
                    k,
                    least(kc, K - k),
                    k == 0,
                    k + kc >= K,
                    packed + number % 2 * kc * cols,
                    kNear / int64_t(sizeof(T)),
                    sums,
                    cols,
                    0,
                    false};
  };
  int64_t step;
  const bool in_place = N % kNr == 0 && near_b(p, block(0), 0, &step);
  for (int64_t now = in_place ? 0 : -1; now < number; ++now) {
    const Block<T> s = block(most(now, 0)), next = block(now + 1);
    const int64_t to_pack = now + 1 < number && !in_place ? ceil_div(next.j1 - next.j0, kNr) : 0;
    const int64_t together = most(1, kPiece / (kMr * (s.j1 - s.j0) * s.count));
    parallel_for(to_pack + (now < 0 ? 0 : ceil_div(panels, together)), [&](int64_t piece) {
      if (piece < to_pack) {
        const int64_t j = next.j0 + piece * kNr;
        int64_t b_step;
        if (near_b(p, next, j, &b_step)) return;
        return p.pack_b(const_cast<T*>(next.b) + piece * kNr * next.count, j, int(least(kNr, next.j1 - j)), next.k,
                        next.count);
      }
      const int64_t first = (piece - to_pack) * together;
      T* a = panel_scratch<T>(s.count);
      for (int64_t t = first; t < least(panels, first + together); ++t)
        run_panel(p, s, M * t / panels, int(M * (t + 1) / panels - M * t / panels), a);
    });
  }
}

// How a batch of products is cut into tasks; by sizes alone.
struct GemmPlan {
  int64_t rows, cols;  // of a task
  int64_t row_groups, col_groups;
  int64_t splits, split;  // parts of K, and their length
  int64_t together;       // whole products in one task
  bool shared;            // each product is spread over all threads
};
template <class T> GemmPlan plan_gemm(int64_t batch, int64_t M, int64_t N, int64_t K) {
  constexpr Blocks t = blocks<T>();
  constexpr int64_t kNr = TW_ISA::kNr<T>;
  // A task of 2^20 multiply-adds takes some 20 us, far above the cost of handing it out; 16 tasks share well among a
  // few threads, and more would pack more. Beyond that, tasks have the size that the caches ask for. Tried: 2^18 makes
  // 64 x 128 x 128 alone take 13 us, not 22, but the training step of a small MLP 180, not 156: its worker has parked
  // between products, or takes operands that the other core's cache holds, and each part packs for itself.
  constexpr int64_t kTask = int64_t(1) << 20, kTasks = 16, kMinSplit = 512, kMaxSplits = 32, kShared = 2 * kTask;
  GemmPlan p{M, N, ceil_div(M, t.rows), ceil_div(N, t.cols), 1, K, 1, false};
  const int64_t work = most(1, M * N * K / kTask * batch + M * N * K % kTask * batch / kTask);
  p.shared = M >= 4 * t.mr && N >= 4 * kNr && M * N * K >= kShared;
  if (p.shared) return p;
  const int64_t want = least(kTasks, work);
  while (batch * p.row_groups * p.col_groups < want) {
    const int64_t rows = ceil_div(M, p.row_groups), cols = ceil_div(N, p.col_groups);
    const bool by_rows = rows >= 4 * t.mr, by_cols = cols >= 4 * kNr;
    if (by_rows && (rows >= cols || !by_cols)) p.row_groups *= 2;
    else if (by_cols) p.col_groups *= 2;
    else break;
  }
  const int64_t tasks = batch * p.row_groups * p.col_groups;
  if (tasks * 2 <= want) p.splits = most(1, least(least(ceil_div(want, tasks), kMaxSplits), K / kMinSplit));
  p.split = round_up(ceil_div(K, p.splits), 4);
  p.splits = ceil_div(K, p.split);
  p.rows = round_up(ceil_div(M, p.row_groups), t.mr);
  p.row_groups = ceil_div(M, p.rows);
  p.cols = round_up(ceil_div(N, p.col_groups), kNr);
  p.col_groups = ceil_div(N, p.cols);
  if (batch > want && p.row_groups * p.col_groups == 1) p.together = ceil_div(batch, most(want, least(batch, 64)));
  return p;
}

template <class T, class Problem>
void gemm_core(const Problem& problem, int64_t batch, int64_t M, int64_t N, int64_t K) {
  if (batch == 0 || M == 0 || N == 0) return;
  if (K == 0) {
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    const T zeros[kNr] = {};
    for (int64_t i = 0; i < batch * M; ++i)
      for (int64_t j = 0; j < N; j += kNr) problem.product(i / M).store(i % M, j, int(least(kNr, N - j)), zeros);
    return;
  }
  const GemmPlan g = plan_gemm<T>(batch, M, N, K);
  if (g.shared) {
    for (int64_t i = 0; i < batch; ++i) gemm_shared<T>(problem.product(i), M, N, K);
    return;
  }
  const int64_t groups = g.row_groups * g.col_groups, tasks = groups * g.splits;
  if (g.together > 1 && g.splits == 1) {
    parallel_ranges(batch, g.together, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        gemm_piece<T>(problem.product(i), 0, M, 0, N, 0, K, static_cast<T*>(nullptr), 0);
    });
    return;
  }
  const int64_t sums_row = round_up(N, kNr<T>), part = M * sums_row;
  T* sums = g.splits > 1 ? static_cast<T*>(scratch(2, sizeof(T) * batch * g.splits * part)) : nullptr;
  parallel_for(batch * tasks, [&](int64_t task) {
    const int64_t number = task / tasks, rest = task % tasks, s = rest / groups, tile_index = rest % groups;
    const int64_t i = tile_index % g.row_groups * g.rows, j = tile_index / g.row_groups * g.cols;
    T* own = sums ? sums + (number * g.splits + s) * part + i * sums_row + j : nullptr;
    gemm_piece<T>(problem.product(number), i, least(M, i + g.rows), j, least(N, j + g.cols), s * g.split,
                  least(K, (s + 1) * g.split), own, sums_row);
  });
  if (!sums) return;
  // Part s takes part s + h for h = 1, 2, 4, ...: a fixed tree.
  parallel_for(batch * ceil_div(M, 8), [&](int64_t task) {
    const int64_t number = task / ceil_div(M, 8), first = task % ceil_div(M, 8) * 8;
    const auto product = problem.product(number);
    for (int64_t i = first; i < least(M, first + 8); ++i) {
      T* row = sums + number * g.splits * part + i * sums_row;
      for (int64_t h = 1; h < g.splits; h *= 2)
        for (int64_t s = 0; s + h < g.splits; s += 2 * h)
          for (int64_t j = 0; j < sums_row; j += Vec<T>::kLanes)
            (Vec<T>::load(row + s * part + j) + Vec<T>::load(row + (s + h) * part + j)).store(row + s * part + j);
      for (int64_t j = 0; j < N; j += kNr<T>) product.store(i, j, int(least(kNr<T>, N - j)), row + j);
    }
  });
}

}  // namespace tw::TW_ISA
