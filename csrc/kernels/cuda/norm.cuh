// What layer_norm.cu and batch_norm.cu share: statistics from cells (pieces of rows, or of columns), and the
// elementwise walk that applies them. The kernels are in norm.cu; a call makes cells, joins them, applies the result.
//
// A tensor is seen as contiguous (outer, params, run): item i belongs to run q = i / run, whose parameter is q % params
// and whose statistic is q / params * stat_step + q % params / per_stat.
//   batch norm (N, C, S)                   params = C, run = S, stat_step = 0, per_stat = 1
//   layer, group norm (images, groups, K, run)   params = groups K, stat_step = groups, per_stat = K
// A cell keeps two numbers of arithmetic type A: mean and sum of squared deviations; or, for gradients, the sums of dy
// and of dy (x - mean). Cells are joined in float64, in an order that follows from the shape, so that a large mean does
// not cancel (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
#pragma once
#include "kernels/cuda/packs.cuh"

namespace tw::cuda {

constexpr int64_t kMinRun = 32;  // shorter runs are columns, one value of a table each

struct NormView {
  const void *x, *dy;                // dy: backward only
  void* y;                           // forward: y; backward: dx
  const void *w, *b;                 // (params) of param_dtype, or null
  const void *mean, *rstd, *slopes;  // of A; slopes (backward): pairs (shift, slope) of each statistic
  int64_t outer, params, run, stat_step, per_stat;
  DType dtype, param_dtype;
  bool rms;
};

// Cells of a launch, and which of them belong to output p < count: o * stride + p * inner + q, o < outer, q < inner.
struct CellGrid {
  int64_t count, outer, stride, inner;
  int64_t items, part;  // a cell has `part` of `items` values, the last one the rest
  bool part_is_inner;   // q counts the parts, else o
  TW_DEVICE int64_t size(int64_t o, int64_t q) const { return least(part, items - (part_is_inner ? q : o) * part); }
};

// How rows of n are cut, and how (outer, width) is.
struct RowPieces {
  int64_t size, count;
  explicit RowPieces(int64_t n) : size(least<int64_t>(n, 16384)), count(ceil_div(n, size)) {}
};
struct ColumnParts {
  int lanes;  // threads side by side, of 256; a pack of columns each
  int64_t rows, count, blocks;
  ColumnParts(int64_t outer, int64_t width, int pack);
};

// The runs' cells, (outer * params, pieces) pairs. With `weighted`, a row of dy is multiplied by w, whose item for
// column c of row r is r % w_rows * w_params + c / w_run.
struct RowWeights {
  const void* w;
  int64_t rows, params, run;
  bool aligned;  // packs of a row's columns
};
void row_moments(const NormView& v, void* cells);
void row_gradients(const NormView& v, const RowWeights& weights, void* cells);
// The columns' cells, (parts, params * run) pairs; gradients are multiplied by rstd where rows have their own.
void column_moments(const NormView& v, void* cells);
void column_gradients(const NormView& v, void* cells);
// y = (x - mean) rstd w + b, or dx = rstd (dy w - shift - (x - mean) slope).
void apply_norm(const NormView& v, bool backward);

// --- joining cells --
struct MomentSums {
  double n = 0, mean = 0, m2 = 0;
  TW_DEVICE void join(const MomentSums& o) {
    const double total = n + o.n;
    if (total == 0) return;
    const double d = o.mean - mean, share = o.n / total;
    mean += d * share;
    m2 += o.m2 + d * d * n * share;
    n = total;
  }
  TW_DEVICE MomentSums other(int step) const {
    return {__shfl_xor_sync(kFullMask, n, step), __shfl_xor_sync(kFullMask, mean, step),
            __shfl_xor_sync(kFullMask, m2, step)};
  }
};
struct GradientSums {
  double g = 0, gx = 0;
  TW_DEVICE void join(const GradientSums& o) { g += o.g, gx += o.gx; }
  TW_DEVICE GradientSums other(int step) const {
    return {__shfl_xor_sync(kFullMask, g, step), __shfl_xor_sync(kFullMask, gx, step)};
  }
};

// finish.add(sums, first, second, p, o, q, size) for each cell of output p, then finish.end(sums, p).
template <class A, class Finish, int kLanes>
__global__ void __launch_bounds__(128, 8) join_cells(const A* cells, CellGrid g, Finish finish) {
  const int64_t p = (blockIdx.x * int64_t{128} + threadIdx.x) / kLanes, count = p < g.count ? g.outer * g.inner : 0;
  typename Finish::Sums sums;
  for (int64_t i = threadIdx.x % kLanes; i < count; i += kLanes) {
    const int64_t o = divide(i, g.inner), q = i - o * g.inner, at = o * g.stride + p * g.inner + q;
    finish.add(sums, cells[2 * at], cells[2 * at + 1], p, o, q, g.size(o, q));
  }
  for (int step = kLanes / 2; step > 0; step /= 2) sums.join(sums.other(step));
  if (p < g.count && threadIdx.x % kLanes == 0) finish.end(sums, p);
}
template <class A, class Finish> void join(const void* cells, const CellGrid& g, const Finish& finish) {
  const int lanes = g.outer * g.inner > 4 ? 32 : 1;
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(g.count * lanes, 128));
  const A* c = static_cast<const A*>(cells);
  if (lanes == 1) launch_kernel<join_cells<A, Finish, 1>>(blocks, 128, 0, current_stream(), c, g, finish);
  else launch_kernel<join_cells<A, Finish, 32>>(blocks, 128, 0, current_stream(), c, g, finish);
}

// Parameters of a row's packs: item `base + c / run` for column c = place(p).at + j.
template <class A, int P, class Place>
TW_DEVICE void load_params(A (&v)[P][kPack<A>], const void* data, DType t, bool aligned, int64_t base, int64_t run,
                           const Place& place) {
  if (run == 1)
    return load_packs<A, P>(v, data, t, aligned, A(0), [&](int p) {
      const Span s = place(p);
      return Span{base + s.at, s.lo, s.hi};
    });
#pragma unroll
  for (int p = 0; p < P; ++p) {
    const Span s = place(p);
    const int64_t first = s.at + s.lo;
    int64_t k = s.hi > s.lo ? divide(first, run) : 0, rest = first - k * run;
    A value = s.hi > s.lo ? load_item<A>(data, t, base + k) : A(0);
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) {
      if (s.has(j) && rest == run) {
        value = load_item<A>(data, t, base + ++k);
        rest = 0;
      }
      v[p][j] = value;
      rest += s.has(j);
    }
  }
}

}  // namespace tw::cuda
