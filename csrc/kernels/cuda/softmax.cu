// softmax and log_softmax over the middle dimension of contiguous (outer, n, inner), and their gradients.
//
//   softmax       y = e / sum(e), e = exp(x - max x)        dx = y (dy - sum(dy y))
//   log_softmax   y = (x - max x) - log(sum(e))             dx = dy - exp(y) sum(dy)
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; a half is rounded once, at the store. A
// row with a NaN, with +inf, or of -inf alone gives NaN. Error: as kernels/cpu/softmax.cpp, with the CUDA library's exp
// (2 ulp) and log (1 ulp); measured by the op table's rows `softmax` and `log_softmax`.
// Method: a row is read once and stays in the registers of its threads, a warp or a block of them, between the maximum,
// the sum and the store. Rows too long for that are read twice: one pass keeps a running maximum and the sum scaled to
// it (Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018). inner > 1 goes that way too, a thread a
// column, so that neighbours read neighbours.
// Bytes: x + y forward, y + dy + dx backward, and a second x for the long rows. 16 bytes an access, P of them in flight
// a thread. Registers hold at most 32 values a thread; no local memory.
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128;  // of a block that has a row a warp

template <int kGroup> constexpr int kBlock = kGroup < kThreads ? kThreads : kGroup;

// The group's result in each of its threads: a warp's, or the whole block's. `turn` tells calls apart.
template <class Op, int kGroup, class A> TW_DEVICE A reduce_group(A v, A* shared, int turn) {
  if constexpr (kGroup == 32) return reduce_warp<Op>(v);
  else return reduce_block<Op, kGroup>(v, shared + turn * (kGroup / 32));
}

template <class S, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>) softmax_rows(SoftmaxArgs a, bool aligned) {
  using A = Accumulator<S>;
  TW_SHARED(partial, A[2 * kGroup / 32]);
  const int64_t row = int64_t(blockIdx.x) * (kBlock<kGroup> / kGroup) + threadIdx.x / kGroup;
  if (row >= a.outer) return;  // a whole group
  const S* x = static_cast<const S*>(a.x) + row * a.n;
  S* y = static_cast<S*>(a.y) + row * a.n;
  const int first = int(threadIdx.x % kGroup) * kLanes<S>;
  constexpr int kStep = kGroup * kLanes<S>;

  A v[P][kLanes<S>];  // the row: (P, kGroup, kLanes)
  A top = MaxOp::kIdentity<A>;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    load_pack<A>(v[p], x, first + p * kStep, a.n, aligned, MaxOp::kIdentity<A>);
    top = maximum(top, fold(v[p], MaxOp()));
  }
  top = reduce_group<MaxOp, kGroup>(top, partial, 0);

  A total = 0;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    A e[kLanes<S>];
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) {
      const bool inside = first + p * kStep + j < a.n;
      v[p][j] -= top;
      e[j] = inside ? exp(v[p][j]) : A(0);
      if (!a.log) v[p][j] = e[j];
    }
    total += fold(e, SumOp());
  }
  total = reduce_group<SumOp, kGroup>(total, partial, 1);

  const A end = a.log ? log(total) : A(1) / total;
#pragma unroll
  for (int p = 0; p < P; ++p) {
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) v[p][j] = a.log ? v[p][j] - end : v[p][j] * end;
    store_pack(v[p], y, first + p * kStep, a.n, aligned);
  }
}

// a.x is the forward's y, a.y is dx.
template <class S, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>) softmax_backward_rows(SoftmaxArgs a, bool aligned) {
  using A = Accumulator<S>;
  TW_SHARED(partial, A[kGroup / 32]);
  const int64_t row = int64_t(blockIdx.x) * (kBlock<kGroup> / kGroup) + threadIdx.x / kGroup;
  if (row >= a.outer) return;
  const S *y = static_cast<const S*>(a.x) + row * a.n, *dy = static_cast<const S*>(a.dy) + row * a.n;
  S* dx = static_cast<S*>(a.y) + row * a.n;
  const int first = int(threadIdx.x % kGroup) * kLanes<S>;
  constexpr int kStep = kGroup * kLanes<S>;

  A v[P][kLanes<S>], g[P][kLanes<S>], total = 0;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    load_pack<A>(v[p], y, first + p * kStep, a.n, aligned, A(0));
    load_pack<A>(g[p], dy, first + p * kStep, a.n, aligned, A(0));
    A term[kLanes<S>];
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) term[j] = a.log ? g[p][j] : v[p][j] * g[p][j];
    total += fold(term, SumOp());
  }
  total = reduce_group<SumOp, kGroup>(total, partial, 0);
#pragma unroll
  for (int p = 0; p < P; ++p) {
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) v[p][j] = a.log ? g[p][j] - exp(v[p][j]) * total : v[p][j] * (g[p][j] - total);
    store_pack(v[p], dx, first + p * kStep, a.n, aligned);
  }
}

// A maximum and the sum of exp(x - maximum), joined as more is read; an empty one has the maximum -inf.
template <class A> struct Running {
  A top = MaxOp::kIdentity<A>, total = 0;
  TW_DEVICE void join(A other_top, A other_total) {
    const A high = maximum(top, other_top);
    if (high == MaxOp::kIdentity<A>) return;
    total = total * exp(top - high) + other_total * exp(other_top - high);
    top = high;
  }
};

// One long row a block (kGroup threads, inner == 1), or one column a thread (kGroup == 1).
template <class S, int kGroup>
__global__ void __launch_bounds__(kGroup == 1 ? kThreads : kGroup) softmax_twice(SoftmaxArgs a, bool backward) {
  using A = Accumulator<S>;
  TW_SHARED(partial, A[2 * (kGroup + 31) / 32]);
  const int64_t item = kGroup == 1 ? int64_t(blockIdx.x) * kThreads + threadIdx.x : blockIdx.x;
  if (item >= a.outer * a.inner) return;
  const int64_t start = item / a.inner * a.n * a.inner + item % a.inner;
  const S *x = static_cast<const S*>(a.x) + start, *dy = static_cast<const S*>(a.dy) + start;
  S* y = static_cast<S*>(a.y) + start;
  const int64_t first = kGroup == 1 ? 0 : threadIdx.x;

  if (backward) {
    A total = 0;
    for (int64_t i = first; i < a.n; i += kGroup) {
      const A g = convert<A>(dy[i * a.inner]);
      total += a.log ? g : g * convert<A>(x[i * a.inner]);
    }
    if constexpr (kGroup > 1) total = reduce_group<SumOp, kGroup>(total, partial, 0);
    for (int64_t i = first; i < a.n; i += kGroup) {
      const A g = convert<A>(dy[i * a.inner]), v = convert<A>(x[i * a.inner]);
      y[i * a.inner] = convert<S>(a.log ? g - exp(v) * total : v * (g - total));
    }
    return;
  }
  Running<A> r;
  for (int64_t i = first; i < a.n; i += kGroup) r.join(convert<A>(x[i * a.inner]), A(1));
  if constexpr (kGroup > 1) {
    const A top = reduce_group<MaxOp, kGroup>(r.top, partial, 0);
    const A mine = r.top == MaxOp::kIdentity<A> ? A(0) : r.total * exp(r.top - top);
    r.total = reduce_group<SumOp, kGroup>(mine, partial, 1);
    r.top = top;
  }
  if (r.top == MaxOp::kIdentity<A>) r.total = r.top - r.top;  // of -inf alone: NaN
  const A end = a.log ? log(r.total) : A(1) / r.total;
  for (int64_t i = first; i < a.n; i += kGroup) {
    const A d = convert<A>(x[i * a.inner]) - r.top;
    y[i * a.inner] = convert<S>(a.log ? d - end : exp(d) * end);
  }
}

template <class S, int kGroup, int P> void launch_rows(const SoftmaxArgs& a, bool backward) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.outer, kBlock<kGroup> / kGroup));
  const bool aligned = rows_aligned<S>(a.n, {a.x, a.dy, a.y});
  if (backward)
    launch_kernel<softmax_backward_rows<S, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, aligned);
  else launch_kernel<softmax_rows<S, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, aligned);
}

void run(const SoftmaxArgs& a, bool backward) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    const int64_t packs = ceil_div<int64_t>(a.n, kLanes<S>);
    if (a.inner > 1) {
      const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.outer * a.inner, kThreads));
      return launch_kernel<softmax_twice<S, 1>>(blocks, kThreads, 0, current_stream(), a, backward);
    }
    if (packs <= 32) return launch_rows<S, 32, 1>(a, backward);
    if (packs <= 64) return launch_rows<S, 32, 2>(a, backward);
    if (packs <= 128) return launch_rows<S, 32, 4>(a, backward);
    if (packs <= 512) return launch_rows<S, 256, 2>(a, backward);
    if (packs <= 1024) return launch_rows<S, 256, 4>(a, backward);
    if (packs <= 2048) return launch_rows<S, 1024, 2>(a, backward);
    if (packs <= 4096 && !backward) {  // the gradient's two rows would not fit the registers
      const bool aligned = rows_aligned<S>(a.n, {a.x, a.y});
      return launch_kernel<softmax_rows<S, 1024, 4>>(static_cast<unsigned>(a.outer), 1024, 0, current_stream(), a,
                                                     aligned);
    }
    launch_kernel<softmax_twice<S, 1024>>(static_cast<unsigned>(a.outer), 1024, 0, current_stream(), a, backward);
  });
}

}  // namespace

void softmax(const SoftmaxArgs& a) { run(a, false); }
void softmax_backward(const SoftmaxArgs& a) { run(a, true); }

}  // namespace tw::cuda
