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
// Bytes: x + y forward, y + dy + dx backward, and a second x for the long rows. Packs of 32 bytes of arithmetic, cut from
// the whole tensor so that rows of any length move 16 bytes an access (packs.cuh), P of them in flight a thread.
// Registers hold at most 32 values a thread; no local memory.
#include "kernels/cuda/packs.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128;  // of a block that has a row a warp

template <int kGroup> constexpr int kBlock = kGroup < kThreads ? kThreads : kGroup;

// A group's row, and its packs: a thread's number p begins p * kGroup packs behind its first.
template <class A, int kGroup> struct Row {
  int64_t number, origin;
  int head, end, first;  // of the packs' items, from origin
  TW_DEVICE explicit Row(const SoftmaxArgs& a) {
    number = int64_t(blockIdx.x) * (kBlock<kGroup> / kGroup) + threadIdx.x / kGroup;
    head = int(number * a.n % kPack<A>);
    origin = number * a.n - head;
    end = head + int(a.n);
    first = int(threadIdx.x % kGroup) * kPack<A>;
  }
  TW_DEVICE Span operator()(int p) const { return span<A>(origin, head, end, first + p * kGroup * kPack<A>); }
};

template <class A, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>) softmax_rows(SoftmaxArgs a, bool aligned) {
  TW_SHARED(partial, A[2 * kGroup / 32]);
  const Row<A, kGroup> row(a);
  if (row.number >= a.outer) return;  // a whole group
  A v[P][kPack<A>];
  load_packs<A, P>(v, a.x, a.dtype, aligned, MaxOp::kIdentity<A>, row);
  A top = MaxOp::kIdentity<A>;
#pragma unroll
  for (int p = 0; p < P; ++p) top = maximum(top, fold(v[p], MaxOp()));
  top = reduce_group<MaxOp, kGroup>(top, partial);

  A total = 0;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    A e[kPack<A>];
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) {
      v[p][j] -= top;
      e[j] = row(p).has(j) ? exp(v[p][j]) : A(0);
      if (!a.log) v[p][j] = e[j];
    }
    total += fold(e, SumOp());
  }
  total = reduce_group<SumOp, kGroup>(total, partial + kGroup / 32);

  const A end = a.log ? log(total) : A(1) / total;
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) v[p][j] = a.log ? v[p][j] - end : v[p][j] * end;
  store_packs<A, P>(v, a.y, a.dtype, aligned, row);
}

// a.x is the forward's y, a.y is dx.
template <class A, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>) softmax_backward_rows(SoftmaxArgs a, bool aligned) {
  TW_SHARED(partial, A[kGroup / 32]);
  const Row<A, kGroup> row(a);
  if (row.number >= a.outer) return;
  A both[2][P][kPack<A>], total = 0;
  load_tensors<A, 2, P>(both, {a.x, a.dy}, a.dtype, aligned, A(0), row);
  auto &v = both[0], &g = both[1];
#pragma unroll
  for (int p = 0; p < P; ++p) {
    A term[kPack<A>];
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) term[j] = a.log ? g[p][j] : v[p][j] * g[p][j];
    total += fold(term, SumOp());
  }
  total = reduce_group<SumOp, kGroup>(total, partial);
#pragma unroll
  for (int p = 0; p < P; ++p)
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) v[p][j] = a.log ? g[p][j] - exp(v[p][j]) * total : v[p][j] * (g[p][j] - total);
  store_packs<A, P>(v, a.y, a.dtype, aligned, row);
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
    if constexpr (kGroup > 1) total = reduce_group<SumOp, kGroup>(total, partial);
    for (int64_t i = first; i < a.n; i += kGroup) {
      const A g = convert<A>(dy[i * a.inner]), v = convert<A>(x[i * a.inner]);
      y[i * a.inner] = convert<S>(a.log ? g - exp(v) * total : v * (g - total));
    }
    return;
  }
  Running<A> r;
  for (int64_t i = first; i < a.n; i += kGroup) r.join(convert<A>(x[i * a.inner]), A(1));
  if constexpr (kGroup > 1) {
    const A top = reduce_group<MaxOp, kGroup>(r.top, partial);
    const A mine = r.top == MaxOp::kIdentity<A> ? A(0) : r.total * exp(r.top - top);
    r.total = reduce_group<SumOp, kGroup>(mine, partial + kGroup / 32);
    r.top = top;
  }
  if (r.top == MaxOp::kIdentity<A>) r.total = r.top - r.top;  // of -inf alone: NaN
  const A end = a.log ? log(r.total) : A(1) / r.total;
  for (int64_t i = first; i < a.n; i += kGroup) {
    const A d = convert<A>(x[i * a.inner]) - r.top;
    y[i * a.inner] = convert<S>(a.log ? d - end : exp(d) * end);
  }
}

template <class A, int kGroup, int P> void launch_rows(const SoftmaxArgs& a, bool backward) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.outer, kBlock<kGroup> / kGroup));
  const bool aligned = all_aligned({a.x, a.y, backward ? a.dy : nullptr});
  if (backward)
    launch_kernel<softmax_backward_rows<A, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, aligned);
  else launch_kernel<softmax_rows<A, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, aligned);
}
// The long way: a block a row, or a thread a column.
template <int kGroup> void launch_twice(const SoftmaxArgs& a, bool backward) {
  visit_float(a.dtype, [&](auto tag) {
    const int64_t items = a.outer * a.inner;
    launch_kernel<softmax_twice<typename decltype(tag)::type, kGroup>>(
        static_cast<unsigned>(kGroup > 1 ? items : ceil_div<int64_t>(items, kThreads)), kGroup > 1 ? kGroup : kThreads,
        0, current_stream(), a, backward);
  });
}

void run(const SoftmaxArgs& a, bool backward) {
  if (a.inner > 1) return launch_twice<1>(a, backward);
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    const int64_t packs = ceil_div<int64_t>(a.n + kPack<A> - 1, kPack<A>);  // wherever a row begins
    if (packs <= 32) return launch_rows<A, 32, 1>(a, backward);
    if (packs <= 64) return launch_rows<A, 32, 2>(a, backward);
    if (packs <= 256) return launch_rows<A, 256, 1>(a, backward);
    if (packs <= 512) return launch_rows<A, 256, 2>(a, backward);
    if (packs <= 1024) return launch_rows<A, 512, 2>(a, backward);
    if (packs <= 2048) return launch_rows<A, 1024, 2>(a, backward);
    if constexpr (sizeof(A) == 4)
      if (packs <= 4096 && !backward)  // the gradient's two rows would not fit the registers
        return launch_kernel<softmax_rows<A, 1024, 4>>(static_cast<unsigned>(a.outer), 1024, 0, current_stream(), a,
                                                       all_aligned({a.x, a.y}));
    launch_twice<1024>(a, backward);
  });
}

}  // namespace

void softmax(const SoftmaxArgs& a) { run(a, false); }
void softmax_backward(const SoftmaxArgs& a) { run(a, true); }

}  // namespace tw::cuda
