// Cross-entropy of logits and class labels, and its gradient: p = softmax(x) of a row, t its label, u = smoothing.
//
//   loss = -(1 - u) w[t] log p[t] - (u / classes) sum_c w[c] log p[c]
//   dx_c = g ((1 - u) w[t] (p_c - [c = t]) + (u / classes) (W p_c - w[c])),  W = sum_c w[c]
//
// as kernels/cpu/cross_entropy.cpp, whose arithmetic types, statistics and error bounds hold here; the op table's row
// `cross_entropy` measures them. A bad label is reported, its row's loss and gradient are NaN, and nothing is read by
// it. Forward: 8 lanes, a warp or a block a row, once through it with a running maximum (Milakov, Gimelshein, 2018) a
// thread; what fits one round of packs stays in registers for the smoothed sum, longer rows are read again for that
// alone. The rows' losses and weights are summed a group after another, then by a tree, and blocks by a second launch:
// an order that follows from the shape. Backward needs no sums, and walks the tensor from pack to pack whatever the
// rows are. e^d is taken as 2^(d log2 e), d <= 0: an error of |d| 2^-24 of a term e^d, which moves the logarithm by at
// most (max x - min x) 2^-24 and a gradient by 2^-25 g.
// Bytes: x forward, x + dx backward. About 9 and 14 instructions an item of 2 bytes in halves: just below what an
// H100-class GPU issues (132 * 4 warps a cycle) while that much comes in. P = 4: 64 bytes in flight a thread.
#include "kernels/cuda/packs.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128, kFinishThreads = 256;
constexpr int64_t kMostBlocks = 8192;  // whose sums the second launch adds: 64 KiB

template <int kGroup> constexpr int kBlock = kGroup < kThreads ? kThreads : kGroup;

template <class A> TW_DEVICE A power(A d) {
  if constexpr (std::is_same_v<A, float>) return exp2(d * 1.44269504f);
  else return exp(d);
}
struct Larger {  // a NaN shows in the sum
  TW_DEVICE float operator()(float a, float b) const { return ::fmaxf(a, b); }
  TW_DEVICE double operator()(double a, double b) const { return ::fmax(a, b); }
};

struct Report {  // the strings are the host's
  Fault* record;
  const char *op, *rule;
};

template <class A> TW_DEVICE void put_value(const CrossEntropyArgs& a, A loss, A weight) {
  static_cast<A*>(a.stats)[2 * a.rows] = weight;
  if (a.value) *static_cast<A*>(a.value) = a.reduction == Reduction::kMean ? loss / weight : loss;
}

// Row (block * each + i) * groups + group, i < each.
template <class A, int kGroup, int P>
__global__ void __launch_bounds__(kBlock<kGroup>, 512 / kBlock<kGroup>)
    cross_entropy_rows(CrossEntropyArgs a, bool aligned, int64_t each, A* partial, Report report) {
  constexpr int kGroups = kBlock<kGroup> / kGroup, kStep = kGroup * kPack<A>, kWarps = kBlock<kGroup> / 32;
  constexpr A kNone = MaxOp::kIdentity<A>;
  TW_SHARED(shared, A[5 * kWarps]);
  const A* const w = static_cast<const A*>(a.weight);
  A *const stats = static_cast<A*>(a.stats), *const losses = static_cast<A*>(a.loss);
  const bool leader = threadIdx.x % kGroup == 0;
  const int first = int(threadIdx.x % kGroup) * kPack<A>;
  A loss_sum = 0, weight_sum = 0;
  for (int64_t i = 0; i < each; ++i) {
    const int64_t wanted = (blockIdx.x * each + i) * kGroups + threadIdx.x / kGroup;
    const int64_t row = least(wanted, a.rows - 1);  // so that all lanes go on
    const bool there = wanted < a.rows;
    const int64_t head = row * a.classes % kPack<A>, end = head + a.classes, origin = row * a.classes - head;
    const int64_t t = a.target[row];
    const bool ignored = t == a.ignore_index, bad = !ignored && (t < 0 || t >= a.classes);
    A picked = 0, weight = 0;
    if (leader && !ignored && !bad) {
      picked = load_item<A>(a.x, a.dtype, row * a.classes + t);
      weight = w ? w[t] : A(1);
    }
    A v[P][kPack<A>], top = kNone, total = 0;  // total: of e^(x - top)
    for (int64_t c = first; c - first < end; c += P * kStep) {
      const auto place = [&](int p) { return span<A>(origin, head, end, c + p * kStep); };
      load_packs<A, P>(v, a.x, a.dtype, aligned, kNone, place);
      A high = top;
#pragma unroll
      for (int p = 0; p < P; ++p) high = Larger()(high, fold(v[p], Larger()));
      const A from = high == kNone ? A(0) : high;
      A sum = 0;
#pragma unroll
      for (int p = 0; p < P; ++p) {
        if (c + p * kStep >= end) break;
        A e[kPack<A>];
#pragma unroll
        for (int j = 0; j < kPack<A>; ++j) e[j] = power(v[p][j] - from);
        sum += fold(e, SumOp());
      }
      total = total * power(top - from) + sum;
      top = high;
    }
    const A high = reduce_group<MaxOp, kGroup>(top, shared);
    total = reduce_group<SumOp, kGroup>(total * power(top - (high == kNone ? A(0) : high)), shared + kWarps);
    const A log_total = high == kNone ? high - high : log(total);  // of -inf alone: NaN
    A loss = weight * (log_total - (picked - high));
    if (a.smoothing != 0) {
      A all = 0;
      for (int64_t c = first; c - first < end; c += P * kStep) {
        const auto place = [&](int p) { return span<A>(origin, head, end, c + p * kStep); };
        if (end > P * kStep) load_packs<A, P>(v, a.x, a.dtype, aligned, kNone, place);
#pragma unroll
        for (int p = 0; p < P; ++p) {
          const Span s = place(p);
          A term[kPack<A>];
#pragma unroll
          for (int j = 0; j < kPack<A>; ++j) {
            term[j] = 0;
            if (!s.has(j)) continue;
            term[j] = log_total - (v[p][j] - high);
            if (w) term[j] *= w[c + p * kStep + j - head];
          }
          all += fold(term, SumOp());
        }
      }
      all = reduce_group<SumOp, kGroup>(all, shared + 2 * kWarps);
      loss = A(1 - a.smoothing) * loss + A(a.smoothing / double(a.classes)) * all;
    }
    if (!leader || !there) continue;
    if (bad) {
      report_fault(report.record, report.op, report.rule, t, 0, a.classes, row);
      loss = A(__builtin_nan(""));
    }
    if (ignored) loss = 0;
    losses[row] = loss;
    stats[2 * row] = high;
    stats[2 * row + 1] = log_total;
    loss_sum += loss;
    weight_sum += weight;
  }
  loss_sum = reduce_group<SumOp, kBlock<kGroup>>(loss_sum, shared + 3 * kWarps);
  weight_sum = reduce_group<SumOp, kBlock<kGroup>>(weight_sum, shared + 4 * kWarps);
  if (threadIdx.x > 0) return;
  if (gridDim.x == 1) return put_value(a, loss_sum, weight_sum);
  partial[2 * blockIdx.x] = loss_sum;
  partial[2 * blockIdx.x + 1] = weight_sum;
}

template <class A>
__global__ void __launch_bounds__(kFinishThreads)
    cross_entropy_finish(CrossEntropyArgs a, const A* partial, int count) {
  TW_SHARED(shared, A[2 * kFinishThreads / 32]);
  A loss = 0, weight = 0;
  for (int i = threadIdx.x; i < count; i += kFinishThreads) {
    loss += partial[2 * i];
    weight += partial[2 * i + 1];
  }
  loss = reduce_block<SumOp, kFinishThreads>(loss, shared);
  weight = reduce_block<SumOp, kFinishThreads>(weight, shared + kFinishThreads / 32);
  if (threadIdx.x == 0) put_value(a, loss, weight);
}

template <class A, int kGroup, int P> void launch_rows(const CrossEntropyArgs& a) {
  constexpr int64_t kGroups = kBlock<kGroup> / kGroup;
  const int64_t each = greatest<int64_t>(1, ceil_div(a.rows, kGroups * kMostBlocks));
  const auto blocks = static_cast<unsigned>(ceil_div(a.rows, kGroups * each));
  const Workspace partial(blocks > 1 ? 2 * blocks * sizeof(A) : 0);
  const Report report{fault_record(), "cross_entropy", "labels must be"};
  if (blocks > 0)
    launch_kernel<cross_entropy_rows<A, kGroup, P>>(blocks, kBlock<kGroup>, 0, current_stream(), a, all_aligned({a.x}),
                                                    each, partial.as<A>(), report);
  if (blocks != 1 && a.value)
    launch_kernel<cross_entropy_finish<A>>(1, kFinishThreads, 0, current_stream(), a,
                                           static_cast<const A*>(partial.as<A>()), int(blocks));
}

template <class A> __global__ void __launch_bounds__(kFinishThreads) sum_weights(const A* w, int64_t n, A* total) {
  TW_SHARED(shared, A[kFinishThreads / 32]);
  A sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kFinishThreads) sum += w[i];
  sum = reduce_block<SumOp, kFinishThreads>(sum, shared);
  if (threadIdx.x == 0) *total = sum;
}

template <class A> struct RowGradient {
  A high, log_total, own, spread;
  int64_t label;
  TW_DEVICE void load(const CrossEntropyArgs& a, int64_t row) {
    const A *const stats = static_cast<const A*>(a.stats), *const w = static_cast<const A*>(a.weight);
    high = stats[2 * row];
    log_total = stats[2 * row + 1];
    label = a.target[row];
    own = spread = A(__builtin_nan(""));
    if (label < 0 || label >= a.classes) return;
    A g = static_cast<const A*>(a.dloss)[a.reduction == Reduction::kNone ? row : 0];
    if (a.reduction == Reduction::kMean) g /= stats[2 * a.rows];
    own = g * A(1 - a.smoothing) * (w ? w[label] : A(1));
    spread = g * A(a.smoothing / double(a.classes));
  }
};

// One pack a thread, across rows. Below 2^31 items, rows are found by multiplication.
template <class A>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_dx(CrossEntropyArgs a, bool aligned, Divisor classes, const A* weight_sum) {
  const int64_t total = a.rows * a.classes, i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kPack<A>;
  if (i >= total) return;
  const A* const w = static_cast<const A*>(a.weight);
  int64_t row = classes.divisor ? int64_t(classes.quotient(uint32_t(i))) : i / a.classes;
  int64_t c = i - row * a.classes;
  const auto place = [&](int) { return span<A>(0, 0, total, i); };
  A v[1][kPack<A>];
  load_packs<A, 1>(v, a.x, a.dtype, aligned, A(0), place);
  RowGradient<A> k;
  k.load(a, row);
  const A W = weight_sum ? *weight_sum : A(a.classes);
#pragma unroll
  for (int j = 0; j < kPack<A>; ++j) {
    if (c == a.classes && i + j < total) {
      k.load(a, ++row);
      c = 0;
    }
    const A p = power((v[0][j] - k.high) - k.log_total);
    A d = k.own * (p - (c == k.label ? A(1) : A(0)));
    if (a.smoothing != 0 && c < a.classes) d += k.spread * (p * W - (w ? w[c] : A(1)));
    v[0][j] = k.label == a.ignore_index ? A(0) : d;
    ++c;
  }
  store_packs<A, 1>(v, a.dx, a.dtype, aligned, place);
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& a) {
  *a.bad = -1;
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    const int64_t n = a.classes % kPack<A> ? a.classes + kPack<A> - 1 : a.classes;  // with the head
    if (n <= 8 * kPack<A>) return launch_rows<A, 8, 1>(a);
    if (n <= 32 * kPack<A>) return launch_rows<A, 32, 1>(a);
    if (n <= 128 * kPack<A>) return launch_rows<A, 32, 4>(a);
    launch_rows<A, 256, 4>(a);
  });
}

void cross_entropy_backward(const CrossEntropyArgs& a) {
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    const int64_t total = a.rows * a.classes;
    const bool sum = a.weight && a.smoothing != 0;
    const Workspace weight_sum(sum ? sizeof(A) : 0);
    if (sum)
      launch_kernel<sum_weights<A>>(1, kFinishThreads, 0, current_stream(), static_cast<const A*>(a.weight), a.classes,
                                    weight_sum.as<A>());
    Divisor classes{};
    if (total < int64_t{1} << 31) classes = Divisor(static_cast<uint32_t>(a.classes));
    const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(total, kThreads * kPack<A>));
    launch_kernel<cross_entropy_dx<A>>(blocks, kThreads, 0, current_stream(), a, all_aligned({a.x, a.dx}), classes,
                                       static_cast<const A*>(weight_sum.as<A>()));
  });
}

}  // namespace tw::cuda
