// argmax and argmin over the middle dimension of contiguous (outer, n, inner) -> int64 (outer, inner), n >= 1: the first
// of equal values; the first NaN, if there is one. Any dtype; the narrow integers are compared in int32, halves in
// float32. Exact: the op table's rows `argmax` and `argmin`.
//
// argmin looks for the largest opposite (-x, or ~x of an integer, which has no overflow). A candidate is a value and its
// place; of two equal ones the one met earlier wins, so any order of joining gives the same result.
// inner == 1: a warp or a block a row, 16 bytes an access. inner > 1: 32 of the outer * inner columns lie side by side in
// a block, its 8 rows of threads take every 8th row. A long n is cut into pieces of kPiece by its size alone; their
// candidates, (pieces, results), are joined by a second launch.
// Bytes: x once, so n sizeof(x) / bandwidth; two comparisons and three selections an item are below a tenth of what an
// H100-class GPU can do meanwhile. kPiece leaves 64 float32 items a thread, and candidates that are 1/1000 of x.
#include "kernels/cuda/places.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kColumns = 32;
constexpr int kPiece = 16384;

template <class S> using ArgOf = std::conditional_t<std::is_integral_v<S> && sizeof(S) < 4, int32_t, Accumulator<S>>;

template <class A> TW_DEVICE A lowest() {
  if constexpr (std::is_floating_point_v<A>) return -A(__builtin_inf());
  else return A(uint64_t{1} << (8 * sizeof(A) - 1));
}
template <class A> TW_DEVICE A turned(A v, bool flip) {
  if constexpr (std::is_floating_point_v<A>) return flip ? -v : v;
  else return flip ? ~v : v;
}
template <class A> TW_DEVICE bool beats(A a, A b) { return a > b || (a != a && b == b); }

template <class A> struct Candidate {
  A value;
  int64_t at;
};
template <class A> TW_DEVICE void join(Candidate<A>& a, const Candidate<A>& b) {
  if (beats(b.value, a.value) || (!beats(a.value, b.value) && b.at < a.at)) a = b;
}
// Of `group` threads: 1, a warp or the whole block; thread 0 of the group has the result.
template <class A> TW_DEVICE Candidate<A> join_group(Candidate<A> c, int group, Candidate<A>* shared) {
  if (group == 1) return c;
  for (int step = 16; step > 0; step /= 2)
    join(c, {__shfl_xor_sync(kFullMask, c.value, step), __shfl_xor_sync(kFullMask, c.at, step)});
  if (group == 32) return c;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = c;
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < kThreads / 32; ++i) join(c, shared[i]);
  return c;
}

// Row `piece * outer + o`: that piece of x's row o. values: null where the piece is the whole row.
template <class S>
__global__ void __launch_bounds__(kThreads)
    pick_rows(ReduceArgs a, int64_t pieces, int group, bool flip, bool aligned, ArgOf<S>* values, int64_t* places) {
  using A = ArgOf<S>;
  TW_SHARED(shared, Candidate<A>[kThreads / 32]);
  const int64_t row = int64_t(blockIdx.x) * (kThreads / group) + int(threadIdx.x) / group;
  if (row >= a.outer * pieces) return;  // a whole group
  const int64_t piece = pieces == 1 ? 0 : row / a.outer, o = row - piece * a.outer;
  const int n = int(least<int64_t>(kPiece, a.n - piece * kPiece));
  const S* x = static_cast<const S*>(a.x) + o * a.n + piece * kPiece;
  const A fill = turned(lowest<A>(), flip);

  const int first = int(threadIdx.x) % group * kLanes<S>;
  A best = lowest<A>();
  int at = first;  // also where all of a thread's items are the lowest value
  for (int i = first; i < n; i += group * kLanes<S>) {
    A v[kLanes<S>];
    load_pack<A>(v, x, i, n, aligned, fill);
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) {
      const A u = turned(v[j], flip);
      if (beats(u, best)) best = u, at = i + j;
    }
  }
  const Candidate<A> c = join_group<A>({best, piece * kPiece + at}, group, shared);
  if (int(threadIdx.x) % group) return;
  if (values) values[row] = c.value;
  places[row] = c.at;
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    pick_columns(ReduceArgs a, const __grid_constant__ Splitter inner, int64_t tiles, int64_t blocks, bool flip,
                 ArgOf<S>* values, int64_t* places) {
  using A = ArgOf<S>;
  constexpr int kRows = kThreads / kColumns;
  TW_SHARED(shared, Candidate<A>[kRows][kColumns]);
  const int column = int(threadIdx.x) % kColumns, part = int(threadIdx.x) / kColumns;
  const int64_t results = a.outer * a.inner;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t piece = block / tiles, result = (block - piece * tiles) * kColumns + column;
    const int n = int(least<int64_t>(kPiece, a.n - piece * kPiece));
    A best = lowest<A>();
    int at = part;
    if (result < results) {
      int64_t o = result;
      const int64_t c = inner.split(&o);
      const S* x = static_cast<const S*>(a.x) + (o * a.n + piece * kPiece) * a.inner + c;
      for (int r = part; r < n; r += kRows) {
        const A u = turned(convert<A>(x[r * a.inner]), flip);
        if (beats(u, best)) best = u, at = r;
      }
    }
    shared[part][column] = {best, piece * kPiece + at};
    __syncthreads();
    if (part == 0 && result < results) {
      Candidate<A> all = shared[0][column];
      for (int r = 1; r < kRows; ++r) join(all, shared[r][column]);
      if (values) values[piece * results + result] = all.value;
      places[piece * results + result] = all.at;
    }
    __syncthreads();
  }
}

// The best of each result's pieces, by a thread or a block.
template <class A>
__global__ void __launch_bounds__(kThreads)
    join_pieces(const A* values, const int64_t* places, int64_t pieces, int64_t results, int group, int64_t* y) {
  TW_SHARED(shared, Candidate<A>[kThreads / 32]);
  const int64_t result = int64_t(blockIdx.x) * (kThreads / group) + int(threadIdx.x) / group;
  if (result >= results) return;
  Candidate<A> c{lowest<A>(), INT64_MAX};
  for (int64_t i = int(threadIdx.x) % group * results + result; i < pieces * results; i += group * results)
    join(c, {values[i], places[i]});
  c = join_group(c, group, shared);
  if (int(threadIdx.x) % group == 0) y[result] = c.at;
}

template <class S> void pick(const ReduceArgs& a, bool flip) {
  using A = ArgOf<S>;
  const int64_t pieces = ceil_div<int64_t>(a.n, kPiece), results = a.outer * a.inner;
  const size_t cells = pieces > 1 ? static_cast<size_t>(pieces * results) : 0;
  const Workspace values(cells * sizeof(A)), places(cells * sizeof(int64_t));
  auto* y = static_cast<int64_t*>(a.y);
  A* const value = values.as<A>();
  int64_t* const place = pieces > 1 ? places.as<int64_t>() : y;
  if (a.inner > 1) {
    const int64_t tiles = ceil_div<int64_t>(results, kColumns), blocks = pieces * tiles;
    launch_kernel<pick_columns<S>>(static_cast<unsigned>(least<int64_t>(blocks, INT32_MAX)), kThreads, 0,
                                   current_stream(), a, Splitter(a.inner, results), tiles, blocks, flip, value, place);
  } else {
    const int group = a.n <= 1024 ? 32 : kThreads;
    const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(pieces * results, kThreads / group));
    launch_kernel<pick_rows<S>>(blocks, kThreads, 0, current_stream(), a, pieces, group, flip,
                                rows_aligned<S>(a.n, {a.x}), value, place);
  }
  if (pieces == 1) return;
  const int group = pieces > 64 ? kThreads : 1;
  launch_kernel<join_pieces<A>>(static_cast<unsigned>(ceil_div<int64_t>(results, kThreads / group)), kThreads, 0,
                                current_stream(), static_cast<const A*>(value), static_cast<const int64_t*>(place),
                                pieces, results, group, y);
}

void pick_any(const ReduceArgs& a, bool flip) {
  switch (a.x_dtype) {
    case DType::kBool:
    case DType::kUInt8: return pick<uint8_t>(a, flip);
    case DType::kInt8: return pick<int8_t>(a, flip);
    case DType::kInt16: return pick<int16_t>(a, flip);
    case DType::kInt32: return pick<int32_t>(a, flip);
    case DType::kInt64: return pick<int64_t>(a, flip);
    default: visit_float(a.x_dtype, [&](auto tag) { pick<typename decltype(tag)::type>(a, flip); });
  }
}

}  // namespace

void argmax(const ReduceArgs& a) { pick_any(a, false); }
void argmin(const ReduceArgs& a) { pick_any(a, true); }

}  // namespace tw::cuda
