// Reductions over the middle dimension of contiguous (outer, n, inner) -> (outer, inner), n >= 1.
//
//   sum, prod    any dtype (prod: floats, int64); y = scale * fold. Halves and float32 accumulate in float32, float64 in
//                float64, bool and integers in int64 (which wraps)
//   amax, amin   any dtype; a NaN anywhere gives NaN
//   any, all     any dtype -> bool; NaN counts as true
//
// inner == 1: a warp or a block a row, 16 bytes an access (rows.cuh). inner > 1: 32 columns of a block's threads lie
// side by side, its 8 rows of threads take every 8th row. A long n is cut into pieces of kPiece by its size alone; their
// results, (outer, pieces, inner) of the accumulator, are reduced by a second launch. Sums are in fixed order: a
// thread's own items one after another, then trees; error at most (n / 2048 + 40) 2^-24 of the sum of magnitudes.
// Bytes: x once, and kPiece times fewer partial results.
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kColumns = 32;
constexpr int64_t kPiece = 16384;

template <class S, class A> struct Sums {
  using Acc = A;
  static constexpr A kIdentity = A(0);
  TW_DEVICE A operator()(A a, A b) const { return a + b; }
};
template <class S, class A> struct Products {
  using Acc = A;
  static constexpr A kIdentity = A(1);
  TW_DEVICE A operator()(A a, A b) const { return a * b; }
};
// Extremes of the narrow integers are found in int32.
template <class S>
using ExtremeAcc = std::conditional_t<std::is_integral_v<S> && sizeof(S) < 4, int32_t, Accumulator<S>>;
template <class A> constexpr A extreme(bool lowest) {
  if constexpr (std::is_floating_point_v<A>) return lowest ? -A(__builtin_inf()) : A(__builtin_inf());
  else return lowest ? A(uint64_t{1} << (8 * sizeof(A) - 1)) : A(~(uint64_t{1} << (8 * sizeof(A) - 1)));
}
template <class S> struct Largest {
  using Acc = ExtremeAcc<S>;
  static constexpr Acc kIdentity = extreme<Acc>(true);
  TW_DEVICE Acc operator()(Acc a, Acc b) const { return maximum(a, b); }
};
template <class S> struct Smallest {
  using Acc = ExtremeAcc<S>;
  static constexpr Acc kIdentity = extreme<Acc>(false);
  TW_DEVICE Acc operator()(Acc a, Acc b) const { return minimum(a, b); }
};
struct Any {
  using Acc = bool;
  static constexpr bool kIdentity = false;
  TW_DEVICE bool operator()(bool a, bool b) const { return a || b; }
};
struct All {
  using Acc = bool;
  static constexpr bool kIdentity = true;
  TW_DEVICE bool operator()(bool a, bool b) const { return a && b; }
};

// One of `rows` = outer * pieces rows of at most kPiece values; partial results go out as they are.
template <class A> TW_DEVICE void put(void* y, DType t, int64_t i, A v, double scale, bool last) {
  if (!last) {
    static_cast<A*>(y)[i] = v;
    return;
  }
  if constexpr (std::is_floating_point_v<A>) v *= A(scale);
  switch (t) {
#define TW_X(D, e, name) \
  case DType::e: static_cast<D*>(y)[i] = convert<D>(v); break;
    TW_DTYPES(TW_X)
#undef TW_X
  }
}

template <class Op, class S, int kGroup>
__global__ void __launch_bounds__(kThreads) reduce_rows(ReduceArgs a, uint32_t pieces, bool aligned) {
  using A = typename Op::Acc;
  TW_SHARED(partial, A[kThreads / 32]);
  const uint32_t row = blockIdx.x * (kThreads / kGroup) + threadIdx.x / kGroup;  // below 2^32, as the grid is
  if (row >= a.outer * pieces) return;
  const int64_t begin = int64_t(row % pieces) * kPiece, n = least(kPiece, a.n - begin);
  const S* x = static_cast<const S*>(a.x) + int64_t(row / pieces) * a.n + begin;
  const Op op;
  A acc[kLanes<S>];
  for (int j = 0; j < kLanes<S>; ++j) acc[j] = Op::kIdentity;
  for (int64_t i = int64_t(threadIdx.x % kGroup) * kLanes<S>; i < n; i += kGroup * kLanes<S>) {
    A v[kLanes<S>];
    load_pack<A>(v, x, i, n, aligned, Op::kIdentity);
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) acc[j] = op(acc[j], v[j]);
  }
  A v = fold(acc, op);
  if constexpr (kGroup == 32) v = reduce_warp<Op>(v, op);
  else v = reduce_block<Op, kThreads>(v, partial, op);
  if (threadIdx.x % kGroup == 0) put(a.y, a.y_dtype, row, v, a.scale, pieces == 1);
}

template <class Op, class S> __global__ void __launch_bounds__(kThreads) reduce_columns(ReduceArgs a, uint32_t pieces) {
  using A = typename Op::Acc;
  constexpr int kRows = kThreads / kColumns;
  TW_SHARED(partial, A[kRows][kColumns]);
  const uint32_t tiles = uint32_t(ceil_div<int64_t>(a.inner, kColumns)), row = blockIdx.x / tiles;
  const int column = threadIdx.x % kColumns, part = threadIdx.x / kColumns;
  const int64_t c = int64_t(blockIdx.x % tiles) * kColumns + column;
  const int64_t begin = int64_t(row % pieces) * kPiece, n = least(kPiece, a.n - begin);
  const S* x = static_cast<const S*>(a.x) + (int64_t(row / pieces) * a.n + begin) * a.inner + c;
  const Op op;
  A acc = Op::kIdentity;
  if (c < a.inner)
    for (int64_t r = part; r < n; r += kRows) acc = op(acc, convert<A>(x[r * a.inner]));
  partial[part][column] = acc;
  __syncthreads();
  if (part > 0 || c >= a.inner) return;
  A v[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) v[r] = partial[r][column];
  put(a.y, a.y_dtype, row * a.inner + c, fold(v, op), a.scale, pieces == 1);
}

// OpOf<S, A>: the fold of values S in memory; A is its accumulator, whose own fold joins the partial results.
template <class Op, class Again, class S> void reduce(const ReduceArgs& a) {
  using A = typename Op::Acc;
  const auto pieces = static_cast<uint32_t>(ceil_div(a.n, kPiece));
  const Workspace partial(pieces > 1 ? static_cast<size_t>(a.outer * pieces * a.inner) * sizeof(A) : 0);
  ReduceArgs first = a;
  if (pieces > 1) first.y = partial.as<void>();
  const int64_t rows = a.outer * pieces;
  if (a.inner > 1) {
    const auto blocks = static_cast<unsigned>(rows * ceil_div<int64_t>(a.inner, kColumns));
    launch_kernel<reduce_columns<Op, S>>(blocks, kThreads, 0, current_stream(), first, pieces);
  } else {
    const bool aligned = rows_aligned<S>(a.n, {a.x});
    if (a.n <= 1024)
      launch_kernel<reduce_rows<Op, S, 32>>(static_cast<unsigned>(ceil_div<int64_t>(rows, kThreads / 32)), kThreads, 0,
                                            current_stream(), first, pieces, aligned);
    else
      launch_kernel<reduce_rows<Op, S, kThreads>>(static_cast<unsigned>(rows), kThreads, 0, current_stream(), first,
                                                  pieces, aligned);
  }
  if (pieces == 1) return;
  ReduceArgs second = a;
  second.x = partial.as<void>();
  second.n = pieces;
  reduce<Again, Again, A>(second);
}

template <class S> using SumAcc = std::conditional_t<std::is_integral_v<S>, int64_t, Accumulator<S>>;

}  // namespace

#define TW_REDUCE(name)                    \
  void name(const ReduceArgs& a) {         \
    switch (a.x_dtype) { TW_DTYPES(TW_X) } \
  }
#define TW_X(S, e, n) \
  case DType::e: return reduce<Sums<S, SumAcc<S>>, Sums<SumAcc<S>, SumAcc<S>>, S>(a);
TW_REDUCE(sum)
#undef TW_X
#define TW_X(S, e, n) \
  case DType::e: return reduce<Largest<S>, Largest<ExtremeAcc<S>>, S>(a);
TW_REDUCE(amax)
#undef TW_X
#define TW_X(S, e, n) \
  case DType::e: return reduce<Smallest<S>, Smallest<ExtremeAcc<S>>, S>(a);
TW_REDUCE(amin)
#undef TW_X
#define TW_X(S, e, n) \
  case DType::e: return reduce<Any, Any, S>(a);
TW_REDUCE(any)
#undef TW_X
#define TW_X(S, e, n) \
  case DType::e: return reduce<All, All, S>(a);
TW_REDUCE(all)
#undef TW_X

void prod(const ReduceArgs& a) {
  if (a.x_dtype == DType::kInt64) return reduce<Products<int64_t, int64_t>, Products<int64_t, int64_t>, int64_t>(a);
  visit_float(a.x_dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = Accumulator<S>;
    reduce<Products<S, A>, Products<A, A>, S>(a);
  });
}

}  // namespace tw::cuda
