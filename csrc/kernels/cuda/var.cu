// var: y = scale * (sum of squared deviations from the mean) over the middle dimension of contiguous (outer, n, inner).
//
// float16, bfloat16 and float32 in float32, float64 in float64; the pieces of a long n are joined in float64. NaN and
// infinities give NaN, as does one value with a correction of 1 (0 * inf). Error: that of sums of n terms by trees, which
// the op table's rows `var` and `std` measure.
// Method: a piece is read once and stays in registers for two passes: its mean, then the deviations and their squares,
// where the sum of deviations, 0 but for the rounding of the mean, corrects both. Pieces are joined by Chan, Golub and
// LeVeque, Updating Formulae (1979), equation 2.1. inner == 1: a warp a row of up to 4 packs of 16 bytes a lane, else a
// block a piece of 8 packs a thread. inner > 1: 32 of the outer * inner columns by 8 rows of threads, 32 items each.
// Bytes: x once; pieces leave 16 bytes for 8192 items of float32. 8 packs keep 128 bytes in flight a thread, more than
// an H100-class GPU needs (20 to 32 KiB a multiprocessor), at 32 registers (64 for halves and float64).
#include "kernels/cuda/places.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kColumns = 32, kRows = kThreads / kColumns, kEach = 32;

struct Moments {  // of a piece, whose count its number tells
  double mean, m2;
};
struct Joined {
  double count, mean, m2;
  TW_DEVICE void join(const Joined& b) {
    if (b.count == 0) return;
    const double total = count + b.count, delta = b.mean - mean;
    mean += delta * (b.count / total);
    m2 += b.m2 + delta * delta * (count * (b.count / total));
    count = total;
  }
};

TW_DEVICE void write(const ReduceArgs& a, int64_t i, double m2) {
  const double v = m2 * a.scale;
  switch (a.y_dtype) {
    case DType::kFloat16: static_cast<float16*>(a.y)[i] = convert<float16>(v); break;
    case DType::kBFloat16: static_cast<bfloat16*>(a.y)[i] = convert<bfloat16>(v); break;
    case DType::kFloat32: static_cast<float*>(a.y)[i] = float(v); break;
    default: static_cast<double*>(a.y)[i] = v;
  }
}
// What the two passes over n items give; `slip` is the sum of deviations.
template <class A>
TW_DEVICE void finish(const ReduceArgs& a, int64_t at, int n, A mean, A slip, A squares, Moments* partial) {
  const double shift = double(slip) / n, m2 = double(squares) - double(slip) * shift;
  const Moments m{double(mean) + shift, m2 < 0 ? 0 : m2};
  if (partial) partial[at] = m;
  else write(a, at, m.m2);
}
template <int kGroup, class A> TW_DEVICE A sum_group(A v, A* shared) {
  if constexpr (kGroup == 32) return reduce_warp<SumOp>(v);
  else return reduce_block<SumOp, kGroup>(v, shared);
}

template <class S, int kGroup, int P> constexpr int kRowPiece = kGroup * P * kLanes<S>;

template <class S, int kGroup, int P>
__global__ void __launch_bounds__(kThreads) var_rows(ReduceArgs a, int64_t pieces, bool aligned, Moments* partial) {
  using A = Accumulator<S>;
  constexpr int kPiece = kRowPiece<S, kGroup, P>, kStep = kGroup * kLanes<S>;
  TW_SHARED(shared, A[3][kThreads / 32]);
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= a.outer * pieces) return;  // a whole group
  const int64_t piece = pieces == 1 ? 0 : row / a.outer, o = row - piece * a.outer;
  const int n = int(least<int64_t>(kPiece, a.n - piece * kPiece)), first = int(threadIdx.x) % kGroup * kLanes<S>;
  const S* x = static_cast<const S*>(a.x) + o * a.n + piece * kPiece;

  A v[P][kLanes<S>], total = 0, slip = 0, squares = 0;  // the piece: (P, kGroup, kLanes)
#pragma unroll
  for (int p = 0; p < P; ++p) load_pack<A>(v[p], x, first + p * kStep, n, aligned, A(0));
#pragma unroll
  for (int p = 0; p < P; ++p) total += fold(v[p], SumOp());
  const A mean = sum_group<kGroup>(total, shared[0]) / A(n);
#pragma unroll
  for (int p = 0; p < P; ++p) {
    A square[kLanes<S>];
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) {
      v[p][j] = first + p * kStep + j < n ? v[p][j] - mean : A(0);
      square[j] = v[p][j] * v[p][j];
    }
    slip += fold(v[p], SumOp());
    squares += fold(square, SumOp());
  }
  slip = sum_group<kGroup>(slip, shared[1]);
  squares = sum_group<kGroup>(squares, shared[2]);
  if (threadIdx.x % kGroup == 0) finish(a, row, n, mean, slip, squares, partial);
}

constexpr int kColumnPiece = kRows * kEach;

template <class S>
__global__ void __launch_bounds__(kThreads)
    var_columns(ReduceArgs a, const __grid_constant__ Splitter inner, int64_t tiles, int64_t blocks, Moments* partial) {
  using A = Accumulator<S>;
  TW_SHARED(shared, A[3][kRows][kColumns]);
  const int column = int(threadIdx.x) % kColumns, part = int(threadIdx.x) / kColumns;
  const int64_t results = a.outer * a.inner;
  const auto sum_column = [&](int k) {
    A t[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) t[r] = shared[k][r][column];
    return fold(t, SumOp());
  };
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t piece = block / tiles, result = (block - piece * tiles) * kColumns + column;
    const int n = result < results ? int(least<int64_t>(kColumnPiece, a.n - piece * kColumnPiece)) : 0;
    int64_t o = result;
    const int64_t c = inner.split(&o);
    const S* x = static_cast<const S*>(a.x) + (o * a.n + piece * kColumnPiece + part) * a.inner + c;

    A v[kEach], square[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) v[k] = part + k * kRows < n ? convert<A>(x[k * kRows * a.inner]) : A(0);
    shared[0][part][column] = fold(v, SumOp());
    __syncthreads();
    const A mean = sum_column(0) / A(n);
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      v[k] = part + k * kRows < n ? v[k] - mean : A(0);
      square[k] = v[k] * v[k];
    }
    shared[1][part][column] = fold(v, SumOp());
    shared[2][part][column] = fold(square, SumOp());
    __syncthreads();
    if (part == 0 && n > 0) finish(a, piece * results + result, n, mean, sum_column(1), sum_column(2), partial);
    __syncthreads();
  }
}

// A result's pieces of `size` items, (pieces, results), joined by a thread or a block.
__global__ void __launch_bounds__(kThreads)
    join_moments(ReduceArgs a, const Moments* partial, int64_t pieces, int64_t results, int64_t size, int group) {
  TW_SHARED(shared, Joined[kThreads / 32]);
  const int64_t result = int64_t(blockIdx.x) * (kThreads / group) + int(threadIdx.x) / group;
  if (result >= results) return;
  Joined all{0, 0, 0};
  for (int64_t p = int(threadIdx.x) % group; p < pieces; p += group) {
    const Moments m = partial[p * results + result];
    all.join({double(least(size, a.n - p * size)), m.mean, m.m2});
  }
  if (group > 1) {
    for (int step = 16; step > 0; step /= 2)
      all.join({__shfl_down_sync(kFullMask, all.count, step), __shfl_down_sync(kFullMask, all.mean, step),
                __shfl_down_sync(kFullMask, all.m2, step)});
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = all;
    __syncthreads();
    for (int i = 1; threadIdx.x == 0 && i < kThreads / 32; ++i) all.join(shared[i]);
  }
  if (int(threadIdx.x) % group == 0) write(a, result, all.m2);
}

// launch(pieces, where their moments go).
template <class F> void in_pieces(const ReduceArgs& a, int64_t size, const F& launch) {
  const int64_t pieces = ceil_div(a.n, size), results = a.outer * a.inner;
  const Workspace partial(pieces > 1 ? static_cast<size_t>(pieces * results) * sizeof(Moments) : 0);
  launch(pieces, partial.as<Moments>());
  if (pieces == 1) return;
  const int group = pieces > 64 ? kThreads : 1;
  launch_kernel<join_moments>(static_cast<unsigned>(ceil_div<int64_t>(results, kThreads / group)), kThreads, 0,
                              current_stream(), a, static_cast<const Moments*>(partial.as<Moments>()), pieces, results,
                              size, group);
}

template <class S, int kGroup, int P> void launch_rows(const ReduceArgs& a) {
  in_pieces(a, kRowPiece<S, kGroup, P>, [&](int64_t pieces, Moments* partial) {
    const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.outer * pieces, kThreads / kGroup));
    launch_kernel<var_rows<S, kGroup, P>>(blocks, kThreads, 0, current_stream(), a, pieces, rows_aligned<S>(a.n, {a.x}),
                                          partial);
  });
}

}  // namespace

void var(const ReduceArgs& a) {
  visit_float(a.x_dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (a.inner == 1) {
      if (a.n <= kRowPiece<S, 32, 1>) return launch_rows<S, 32, 1>(a);
      if (a.n <= kRowPiece<S, 32, 4>) return launch_rows<S, 32, 4>(a);
      return launch_rows<S, kThreads, 8>(a);
    }
    in_pieces(a, kColumnPiece, [&](int64_t pieces, Moments* partial) {
      const int64_t results = a.outer * a.inner, tiles = ceil_div<int64_t>(results, kColumns), blocks = pieces * tiles;
      launch_kernel<var_columns<S>>(static_cast<unsigned>(least<int64_t>(blocks, INT32_MAX)), kThreads, 0,
                                    current_stream(), a, Splitter(a.inner, results), tiles, blocks, partial);
    });
  });
}

}  // namespace tw::cuda
