// Cross-entropy of logits and class labels, and its gradient. p = softmax(x) of a row, t its label, u = smoothing:
//
//   loss = -(1 - u) w[t] log p[t] - (u / classes) sum_c w[c] log p[c]
//   dx_c = g ((1 - u) w[t] (p_c - [c = t]) + (u / classes) (W p_c - w[c])),  W = sum_c w[c]
//
// g is the incoming gradient of the row's loss; for the mean, divided by the sum of w[t] over the rows. Rows labelled
// ignore_index have loss, weight and gradient 0; the mean over no row is 0 / 0 = NaN. A label that is neither a class
// nor ignore_index is reported in *bad before anything is written.
// float16, bfloat16 and float32 are computed in float32, float64 in float64. log p = (x - max) - log sum exp(x - max)
// from the two numbers kept for each row, never through their sum, which would lose digits when logits are large.
// Error: loss at most 2^-23 (|loss| + max x - min x), dx at most 2 * 2^-23 g; measured by the op table's row
// `cross_entropy`.
// Bytes: x forward; x + dx backward.
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vec_math.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;

// One row's loss, its two statistics and its weight.
template <class S, class A>
TW_INLINE void loss_row(const CrossEntropyArgs& a, const S* x, int64_t t, const A* w, A* stats, A* loss, A* weight) {
  const int64_t n = a.classes;
  const A m = fold_row<MaxFold>(n, [&](int64_t i, auto... c) { return load_as<A>(x + i, c...); }).v[0];
  const A total = sum_row(n, [&](int64_t i, auto... c) { return exp(load_as<A>(x + i, c...) - Vec<A>(m)); }).v[0];
  const A log_total = log(Vec<A>(total))[0];
  stats[0] = m;
  stats[1] = log_total;
  *weight = t == a.ignore_index ? A(0) : w ? w[t] : A(1);
  if (t == a.ignore_index) {
    *loss = A(0);
    return;
  }
  const A picked = *weight * (log_total - (load_as<A>(x + t, 1)[0] - m));
  if (a.smoothing == 0) {
    *loss = picked;
    return;
  }
  const A all = sum_row(n, [&](int64_t i, auto... c) {
                  const Vec<A> v = Vec<A>(log_total) - (load_as<A>(x + i, c...) - Vec<A>(m));
                  return w ? v * Vec<A>::load(w + i, c...) : v;
                }).v[0];
  *loss = A(1 - a.smoothing) * picked + A(a.smoothing / double(n)) * all;
}

// The same without smoothing, for rows that stay in registers; the logarithms of kLanes rows are taken together.
template <class S, class A, int V>
__attribute__((noinline)) void loss_short(const CrossEntropyArgs& a, int64_t begin, int64_t end, const A* w, A* stats,
                                          A* loss, A* weight) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  const int64_t n = a.classes;
  const int tail = int(n - (V - 1) * kLanes);
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t rows = least(kLanes, end - first);
    A totals[kLanes] = {}, logs[kLanes];
    for (int64_t r = 0; r < rows; ++r) {
      Vec<A> v[V];
      load_row(static_cast<const S*>(a.x) + (first + r) * n, tail, v);
      v[V - 1] = first_lanes<MaxFold>(as_vecs(v[V - 1]), tail).v[0];
      const A m = stats[2 * (first + r)] = fold_vectors<MaxFold>(v);
      for (int i = 0; i < V; ++i) v[i] = exp(v[i] - Vec<A>(m));
      v[V - 1] = first_lanes<SumFold>(as_vecs(v[V - 1]), tail).v[0];
      totals[r] = sum_vectors(v);
    }
    log(Vec<A>::load(totals)).store(logs);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = first + r, t = a.target[i];
      stats[2 * i + 1] = logs[r];
      weight[i] = t == a.ignore_index ? A(0) : w ? w[t] : A(1);
      const S* x = static_cast<const S*>(a.x) + i * n;
      loss[i] = t == a.ignore_index ? A(0) : weight[i] * (logs[r] - (load_as<A>(x + t, 1)[0] - stats[2 * i]));
    }
  }
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& a) {
  *a.bad = -1;
  for (int64_t i = 0; i < a.rows; ++i) {
    const int64_t t = a.target[i];
    if (t != a.ignore_index && (t < 0 || t >= a.classes)) {
      *a.bad = i;
      return;
    }
  }
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* x = static_cast<const S*>(a.x);
    const A* w = static_cast<const A*>(a.weight);
    A *loss = static_cast<A*>(a.loss), *stats = static_cast<A*>(a.stats), *value = static_cast<A*>(a.value);
    A* weights = static_cast<A*>(scratch(0, size_t(a.rows) * sizeof(A)));
    const int registers = a.smoothing == 0 ? registers_of<A>(a.classes) : kRegisters + 1;
    parallel_ranges(a.rows, greatest(1, kPiece / a.classes), [&](int64_t begin, int64_t end) {
      if (registers <= kRegisters)
        return visit_count(
            registers, [&](auto v) { loss_short<S, A, decltype(v)::value>(a, begin, end, w, stats, loss, weights); });
      for (int64_t i = begin; i < end; ++i)
        loss_row<S, A>(a, x + i * a.classes, a.target[i], w, stats + 2 * i, loss + i, weights + i);
    });
    const auto sums = sum_row(a.rows, [&](int64_t i, auto... c) {
      return Vecs<A, 2>{{Vec<A>::load(loss + i, c...), Vec<A>::load(weights + i, c...)}};
    });
    stats[2 * a.rows] = sums.v[1];
    if (value) *value = a.reduction == Reduction::kMean ? sums.v[0] / sums.v[1] : sums.v[0];
  });
}

void cross_entropy_backward(const CrossEntropyArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* x = static_cast<const S*>(a.x);
    S* dx = static_cast<S*>(a.dx);
    const A *w = static_cast<const A*>(a.weight), *dloss = static_cast<const A*>(a.dloss);
    const A* stats = static_cast<const A*>(a.stats);
    const int64_t n = a.classes;
    const A even = A(a.smoothing / double(n));  // the share of every class
    const A weight_sum =
        w && even != 0 ? sum_row(n, [&](int64_t i, auto... c) { return Vec<A>::load(w + i, c...); }).v[0] : A(n);
    parallel_ranges(a.rows, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = a.target[i];
        S* to = dx + i * n;
        if (t == a.ignore_index) {
          __builtin_memset(to, 0, size_t(n) * sizeof(S));
          continue;
        }
        const S* from = x + i * n;
        A g = dloss[a.reduction == Reduction::kNone ? i : 0];
        if (a.reduction == Reduction::kMean) g /= stats[2 * a.rows];
        const Vec<A> own = g * A(1 - a.smoothing) * (w ? w[t] : A(1)), spread = g * even;
        const Vec<A> m = stats[2 * i], log_total = stats[2 * i + 1];
        for_row<A>(n, [&](int64_t c, auto... k) {
          const Vec<A> p = exp((load_as<A>(from + c, k...) - m) - log_total);
          Vec<A> v = p;
          if (t >= c && t < c + Vec<A>::kLanes)
            v -= select(Mask<A>::iota() == Mask<A>(typename IntOf<A>::type(t - c)), Vec<A>(1), Vec<A>(0));
          v *= own;
          if (even != 0) v += spread * (p * Vec<A>(weight_sum) - (w ? Vec<A>::load(w + c, k...) : Vec<A>(1)));
          store_as(to + c, v, k...);
        });
      }
    });
  });
}

}  // namespace tw::TW_ISA
