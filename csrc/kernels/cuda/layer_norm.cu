// Layer, group, instance and RMS norm, and their gradients: norms of the rows of contiguous (rows, cols), as
// kernels/cpu/layer_norm.cpp, whose formulas, arithmetic types and error bounds hold here; measured by the op table's
// rows `layer_norm`, `rms_norm`, `group_norm` and `instance_norm`.
//
// Forward: a row is read once and stays in the registers of its threads (8 lanes, a warp or a block, up to 32 values
// each) through the mean, the squared deviations and the store. Rows past 16384 (float64: 8192): cells, a join, a walk.
// Backward, a parameter a column (run < kMinRun) and rows of up to 8192 (float64: 4096): blocks take a part of the
// images each; x and dy of a row stay in registers between the row's two sums and dx, the sums for dw and db of a
// thread's columns from row to row. A part ends as one row of cells; a second launch joins them. Longer rows and
// longer runs: two sums a cell, from which a row's shift and slope and the parameters' gradients are joined, and a
// walk writes dx. Bytes: x + y forward, x + dy + dx backward; for the long ones x, and x + dy, once more. A part of
// kParts = 396 (three blocks for each of 132 multiprocessors) adds 16 bytes a column, in L2: 4 % of a batch of 16384
// rows of halves.
#include "kernels/cuda/norm.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128, kBackwardThreads = 256;
constexpr int64_t kParts = 396;

template <int kGroup> constexpr int kBlock = kGroup < kThreads ? kThreads : kGroup;

template <class A, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>) layer_norm_rows(LayerNormArgs a, bool aligned, bool params_aligned) {
  constexpr int kStep = kGroup * kPack<A>, kWarps = kBlock<kGroup> / 32;
  TW_SHARED(shared, A[2 * kWarps]);
  const int64_t wanted = blockIdx.x * int64_t{kBlock<kGroup> / kGroup} + threadIdx.x / kGroup;
  const int64_t row = least(wanted, a.rows - 1), head = row * a.cols % kPack<A>, end = head + a.cols;
  const int first = threadIdx.x % kGroup * kPack<A>;
  const auto place = [&](int p) { return span<A>(row * a.cols - head, head, end, first + p * kStep); };
  const auto columns = [&](int p) { return span<A>(-head, head, end, first + p * kStep); };
  const A n = A(a.cols);

  A v[P][kPack<A>], mean = 0, m2 = 0;  // the row: (P, kGroup, kPack)
  load_packs<A, P>(v, a.x, a.dtype, aligned, A(0), place);
  if (!a.rms) {
#pragma unroll
    for (int p = 0; p < P; ++p) mean += fold(v[p], SumOp());
    mean = reduce_group<SumOp, kGroup>(mean, shared) / n;
  }
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const Span s = columns(p);
    A square[kPack<A>];
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) {
      v[p][j] -= mean;
      square[j] = s.has(j) ? v[p][j] * v[p][j] : A(0);
    }
    m2 += fold(square, SumOp());
  }
  m2 = reduce_group<SumOp, kGroup>(m2, shared + kWarps);
  const A rstd = A(1) / sqrt(m2 / n + A(a.eps));
  if (wanted >= a.rows) return;
  if (first == 0) {
    static_cast<A*>(a.mean)[row] = mean;
    static_cast<A*>(a.rstd)[row] = rstd;
  }
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) v[p][j] *= rstd;
  const int64_t base = row % a.groups * (a.cols / a.run);
  const bool whole = params_aligned && head == 0;
  A q[P][kPack<A>];
  if (a.w) {
    load_params<A, P>(q, a.w, a.param_dtype, whole, base, a.run, columns);
#pragma unroll
    for (int p = 0; p < P; ++p)
#pragma unroll
      for (int j = 0; j < kPack<A>; ++j) v[p][j] *= q[p][j];
  }
  if (a.b) {
    load_params<A, P>(q, a.b, a.param_dtype, whole, base, a.run, columns);
#pragma unroll
    for (int p = 0; p < P; ++p)
#pragma unroll
      for (int j = 0; j < kPack<A>; ++j) v[p][j] += q[p][j];
  }
  store_packs<A, P>(v, a.y, a.dtype, aligned, place);
}

// Rows group, group + groups, ... of a part of the images, kGroup threads each; a.run < kMinRun. Columns are a thread's
// own whatever the row, so packs are cut from the row.
template <class A, int kGroup, int P>
__global__ void __launch_bounds__(greatest(kBackwardThreads, kGroup))
    layer_norm_backward_rows(LayerNormArgs a, int64_t part_rows, bool aligned, bool params_aligned, A* cells) {
  constexpr int kBlockThreads = greatest(kBackwardThreads, kGroup), kGroups = kBlockThreads / kGroup,
                kStep = kGroup * kPack<A>, kWarps = kBlockThreads / 32;
  constexpr int kShare = kGroups == 1 ? 1 : 2 * P * kStep;
  TW_SHARED(shared, A[2][2 * kWarps]);
  TW_SHARED(sums, A[kGroups][kShare]);
  const int64_t part = blockIdx.x / a.groups, g = blockIdx.x - part * a.groups, n = a.cols;
  const int group = threadIdx.x / kGroup, first = threadIdx.x % kGroup * kPack<A>;
  const int64_t begin = part * part_rows;
  const int images = int(least(part_rows, a.rows / a.groups - begin));
  const auto columns = [&](int p) { return span<A>(0, 0, n, first + p * kStep); };
  A w[P][kPack<A>], w_sum[P][kPack<A>] = {}, b_sum[P][kPack<A>] = {};
  if (a.w) load_params<A, P>(w, a.w, a.param_dtype, params_aligned, g * (n / a.run), a.run, columns);
  for (int i = 0, turn = 0; i < images; i += kGroups, turn ^= 1) {
    const bool there = i + group < images;
    const int64_t row = (begin + (there ? i + group : 0)) * a.groups + g;
    const auto place = [&](int p) { return span<A>(row * n, 0, there ? n : 0, first + p * kStep); };
    A both[2][P][kPack<A>], s0 = 0, s1 = 0;
    load_tensors<A, 2, P>(both, {a.x, a.dy}, a.dtype, aligned, A(0), place);
    auto &d = both[0], &dy = both[1];
    const A mean = there ? static_cast<const A*>(a.mean)[row] : A(0);
    const A rstd = there ? static_cast<const A*>(a.rstd)[row] : A(0);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      A product[kPack<A>];
#pragma unroll
      for (int j = 0; j < kPack<A>; ++j) {
        d[p][j] = (d[p][j] - mean) * rstd;
        w_sum[p][j] = fma(dy[p][j], d[p][j], w_sum[p][j]);
        b_sum[p][j] += dy[p][j];
        if (a.w) dy[p][j] *= w[p][j];
        product[j] = dy[p][j] * d[p][j];  // 0 past the row's end, for dy is
      }
      s0 += fold(dy[p], SumOp());
      s1 += fold(product, SumOp());
    }
    if (!a.y) continue;
#pragma unroll
    for (int step = least(kGroup, 32) / 2; step > 0; step /= 2) {
      s0 += __shfl_xor_sync(kFullMask, s0, step);
      s1 += __shfl_xor_sync(kFullMask, s1, step);
    }
    if constexpr (kGroup > 32) {
      constexpr int kOwn = kGroup / 32;
      A* const slots = shared[turn];
      const int warp = threadIdx.x / 32;
      if (threadIdx.x % 32 == 0) slots[2 * warp] = s0, slots[2 * warp + 1] = s1;
      __syncthreads();
      s0 = s1 = 0;
      for (int k = 0; k < kOwn; ++k) s0 += slots[2 * (group * kOwn + k)], s1 += slots[2 * (group * kOwn + k) + 1];
    }
    const A shift = a.rms ? A(0) : s0 / A(n), slope = s1 / A(n);
#pragma unroll
    for (int p = 0; p < P; ++p)
#pragma unroll
      for (int j = 0; j < kPack<A>; ++j) d[p][j] = rstd * ((dy[p][j] - shift) - d[p][j] * slope);
    store_packs<A, P>(d, a.y, a.dtype, aligned, place);
  }
  if (!cells) return;
  A* const out = cells + 2 * (part * a.groups + g) * n;
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) {
      const int c = 2 * (first + p * kStep + j);
      if constexpr (kGroups > 1) sums[group][c] = b_sum[p][j], sums[group][c + 1] = w_sum[p][j];
      else if (c < 2 * n) out[c] = b_sum[p][j], out[c + 1] = w_sum[p][j];
    }
  if constexpr (kGroups > 1) {
    __syncthreads();
    for (int c = threadIdx.x; c < 2 * n; c += kBlockThreads) {
      A total = sums[0][c];
      for (int k = 1; k < kGroups; ++k) total += sums[k][c];
      out[c] = total;
    }
  }
}

// --- what cells become --
template <class A> struct RowStatistics {
  using Sums = MomentSums;
  A *mean, *rstd;
  double eps;
  TW_DEVICE void add(Sums& s, A m, A m2, int64_t, int64_t, int64_t, int64_t n) const {
    s.join({double(n), double(m), double(m2)});
  }
  TW_DEVICE void end(const Sums& s, int64_t row) const {
    mean[row] = A(s.mean);
    rstd[row] = A(1 / sqrt(s.m2 / s.n + eps));
  }
};
template <class A> struct RowSlopes {
  using Sums = GradientSums;
  LayerNormArgs a;
  A* slopes;
  int64_t pieces;  // of a run whose cell is not yet multiplied by w; 0: they are
  TW_DEVICE void add(Sums& s, A g, A gx, int64_t row, int64_t, int64_t q, int64_t) const {
    double w = 1;
    if (pieces && a.w)
      w = double(load_item<A>(a.w, a.param_dtype, row % a.groups * (a.cols / a.run) + divide(q, pieces)));
    s.join({w * double(g), w * double(gx)});
  }
  TW_DEVICE void end(const Sums& s, int64_t row) const {
    const double r = double(static_cast<const A*>(a.rstd)[row]), n = double(a.cols);
    slopes[2 * row] = a.rms ? A(0) : A(s.g / n);
    slopes[2 * row + 1] = A(s.gx / n * r * r);
  }
};
template <class A> struct ParameterGradients {
  using Sums = GradientSums;
  LayerNormArgs a;
  bool scale;  // cells are not yet multiplied by rstd
  TW_DEVICE void add(Sums& s, A g, A gx, int64_t p, int64_t o, int64_t, int64_t) const {
    const double r = scale ? double(static_cast<const A*>(a.rstd)[o * a.groups + divide(p, a.cols / a.run)]) : 1;
    s.join({double(g), double(gx) * r});
  }
  TW_DEVICE void end(const Sums& s, int64_t p) const {
    if (a.dw) store_item(a.dw, a.param_dtype, p, A(s.gx));
    if (a.db) store_item(a.db, a.param_dtype, p, A(s.g));
  }
};

NormView view_of(const LayerNormArgs& a) {
  const int64_t K = a.cols / a.run;
  return {a.x,          a.dy,  a.y,      a.w, a.b,     a.mean,        a.rstd, nullptr, a.rows / a.groups,
          a.groups * K, a.run, a.groups, K,   a.dtype, a.param_dtype, a.rms};
}
NormView rows_as_runs(const LayerNormArgs& a) {
  NormView v = view_of(a);
  v.outer = a.rows, v.params = v.stat_step = v.per_stat = 1, v.run = a.cols;
  return v;
}

template <class A, int kGroup, int P> void forward_rows(const LayerNormArgs& a) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.rows, kBlock<kGroup> / kGroup));
  launch_kernel<layer_norm_rows<A, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, all_aligned({a.x, a.y}),
                                               a.cols % kPack<A> == 0 && all_aligned({a.w, a.b}));
}

template <class A, int kGroup, int P> void backward_rows(const LayerNormArgs& a) {
  constexpr int kBlockThreads = greatest(kBackwardThreads, kGroup);
  const int64_t images = a.rows / a.groups, K = a.cols / a.run, groups = kBlockThreads / kGroup;
  const int64_t part_rows = greatest(ceil_div(images, ceil_div(kParts, a.groups)), 2 * groups);
  const int64_t parts = ceil_div(images, part_rows), width = a.groups * a.cols;
  const bool affine = a.dw || a.db, aligned = a.cols % kPack<A> == 0;
  const Workspace cells(affine ? static_cast<size_t>(2 * parts * width) * sizeof(A) : 0);
  launch_kernel<layer_norm_backward_rows<A, kGroup, P>>(
      static_cast<unsigned>(parts * a.groups), kBlockThreads, 0, current_stream(), a, part_rows,
      aligned && all_aligned({a.x, a.dy, a.y}), aligned && all_aligned({a.w}), cells.as<A>());
  if (affine)
    join<A>(cells.as<A>(), CellGrid{a.groups * K, parts, width, a.run, images, part_rows, false},
            ParameterGradients<A>{a, false});
}

// Longer runs: a cell's two sums serve the row and the parameter.
template <class A> void backward_runs(const LayerNormArgs& a) {
  NormView v = view_of(a);
  const RowPieces pieces(a.run);
  const int64_t K = a.cols / a.run, row_cells = K * pieces.count;
  const Workspace cells(static_cast<size_t>(2 * a.rows * row_cells) * sizeof(A));
  const Workspace slopes(static_cast<size_t>(2 * a.rows) * sizeof(A));
  row_gradients(v, {}, cells.as<void>());
  if (a.dw || a.db)
    join<A>(cells.as<A>(), CellGrid{v.params, v.outer, v.params * pieces.count, pieces.count, a.run, pieces.size, true},
            ParameterGradients<A>{a, true});
  if (!a.y) return;
  join<A>(cells.as<A>(), CellGrid{a.rows, 1, 0, row_cells, a.run, pieces.size, true},
          RowSlopes<A>{a, slopes.as<A>(), pieces.count});
  v.slopes = slopes.as<void>();
  apply_norm(v, true);
}

// Long rows of short runs.
template <class A> void backward_columns(const LayerNormArgs& a) {
  NormView v = view_of(a);
  if (a.y) {
    const RowPieces pieces(a.cols);
    const Workspace cells(static_cast<size_t>(2 * a.rows * pieces.count) * sizeof(A));
    const Workspace slopes(static_cast<size_t>(2 * a.rows) * sizeof(A));
    row_gradients(rows_as_runs(a), {a.w, a.groups, v.per_stat, a.run, a.cols % kPack<A> == 0 && all_aligned({a.w})},
                  cells.as<void>());
    join<A>(cells.as<A>(), CellGrid{a.rows, 1, 0, pieces.count, a.cols, pieces.size, true},
            RowSlopes<A>{a, slopes.as<A>(), 0});
    v.slopes = slopes.as<void>();
    apply_norm(v, true);
  }
  if (!a.dw && !a.db) return;
  const int64_t width = v.params * v.run;
  const ColumnParts parts(v.outer, width, kPack<A>);
  const Workspace cells(static_cast<size_t>(2 * parts.count * width) * sizeof(A));
  column_gradients(v, cells.as<void>());
  join<A>(cells.as<A>(), CellGrid{v.params, parts.count, width, a.run, v.outer, parts.rows, false},
          ParameterGradients<A>{a, false});
}

}  // namespace

void layer_norm(const LayerNormArgs& a) {
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    const int64_t n = a.cols % kPack<A> ? a.cols + kPack<A> - 1 : a.cols;  // with the head
    if (n <= 8 * kPack<A>) return forward_rows<A, 8, 1>(a);
    if (n <= 32 * kPack<A>) return forward_rows<A, 32, 1>(a);
    if (n <= 128 * kPack<A>) return forward_rows<A, 32, 4>(a);
    if (n <= 256 * kPack<A>) return forward_rows<A, 256, 1>(a);
    if (n <= 512 * kPack<A>) return forward_rows<A, 256, 2>(a);
    if (n <= 1024 * kPack<A>) return forward_rows<A, 256, 4>(a);
    if (n <= 2048 * kPack<A>) return forward_rows<A, 1024, 2>(a);
    const RowPieces pieces(a.cols);
    const Workspace cells(static_cast<size_t>(2 * a.rows * pieces.count) * sizeof(A));
    row_moments(rows_as_runs(a), cells.as<void>());
    join<A>(cells.as<A>(), CellGrid{a.rows, 1, 0, pieces.count, a.cols, pieces.size, true},
            RowStatistics<A>{static_cast<A*>(a.mean), static_cast<A*>(a.rstd), a.eps});
    apply_norm(view_of(a), false);
  });
}

void layer_norm_backward(const LayerNormArgs& a) {
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    if (a.run >= kMinRun) return backward_runs<A>(a);
    if (a.cols <= 8 * kPack<A>) return backward_rows<A, 8, 1>(a);
    if (a.cols <= 32 * kPack<A>) return backward_rows<A, 32, 1>(a);
    if (a.cols <= 128 * kPack<A>) return backward_rows<A, 128, 1>(a);
    if (a.cols <= 256 * kPack<A>) return backward_rows<A, 256, 1>(a);
    if (a.cols <= 512 * kPack<A>) return backward_rows<A, 512, 1>(a);
    if (a.cols <= 1024 * kPack<A>) return backward_rows<A, 512, 2>(a);
    backward_columns<A>(a);
  });
}

}  // namespace tw::cuda
