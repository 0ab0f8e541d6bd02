// Layer norm of the rows of contiguous (rows, cols), and its gradients. xhat = (x - mean) rstd:
//
//   y  = xhat w + b,  mean = sum(x) / cols,  rstd = 1 / sqrt(sum((x - mean)^2) / cols + eps)
//   dx = rstd (g - sum(g) / cols - xhat sum(g xhat) / cols),  g = dy w
//   dw = sum over rows of dy xhat,  db = sum over rows of dy
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; w and b may have another dtype than x and
// may be missing. The variance takes two passes over a row that stays in cache, so that a large mean does not cancel.
// Error: at most 2 * 2^-23 (|xhat w| + |w| + |b|) (1 + |mean| rstd); measured by the op table's row `layer_norm`.
// dw and db: fixed pieces of rows, each summed down its columns while it is still in cache from dx; then the pieces.
// Formulas: Ba, Kiros and Hinton, Layer Normalization (2016), equations 3 and 4, and their derivatives.
// Bytes: x + y forward; x + dy + dx backward.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;

template <class S, class A>
TW_INLINE void backward_row(const S* x, const S* dy, const A* w, S* dx, A mean, A rstd, int64_t n) {
  auto g = [&](int64_t i, auto... c) {
    const Vec<A> v = load_as<A>(dy + i, c...);
    return w ? v * Vec<A>::load(w + i, c...) : v;
  };
  const auto s = sum_row(n, [&](int64_t i, auto... c) {
    const Vec<A> v = g(i, c...);
    return Vecs<A, 2>{{v, v * (load_as<A>(x + i, c...) - Vec<A>(mean))}};
  });
  // rstd (g - s0 / n - (x - mean) rstd^2 s1 / n)
  const Vec<A> shift = s.v[0] / A(n), slope = s.v[1] / A(n) * rstd * rstd, r = rstd, m = mean;
  for_row<A>(n, [&](int64_t i, auto... c) {
    const Vec<A> d = load_as<A>(x + i, c...) - m;
    store_as(dx + i, r * ((g(i, c...) - shift) - d * slope), c...);
  });
}

}  // namespace

void layer_norm(const LayerNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* x = static_cast<const S*>(a.x);
    S* y = static_cast<S*>(a.y);
    A *mean = static_cast<A*>(a.mean), *rstd = static_cast<A*>(a.rstd);
    const int64_t n = a.cols;
    A* buffer = static_cast<A*>(scratch(0, size_t(2 * n) * sizeof(A)));
    const A* w = converted<A>(a.w, a.param_dtype, n, buffer);
    const A* b = converted<A>(a.b, a.param_dtype, n, buffer + n);
    parallel_ranges(a.rows, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const S* from = x + i * n;
        const Moments s = row_moments<A>(from, n);
        mean[i] = A(s.mean);
        rstd[i] = A(1 / __builtin_sqrt(s.m2 / double(n) + a.eps));
        const Vec<A> m = mean[i], r = rstd[i];
        for_row<A>(n, [&](int64_t c, auto... k) {
          Vec<A> v = (load_as<A>(from + c, k...) - m) * r;
          if (w) v *= Vec<A>::load(w + c, k...);
          if (b) v += Vec<A>::load(b + c, k...);
          store_as(y + i * n + c, v, k...);
        });
      }
    });
  });
}

void layer_norm_backward(const LayerNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S *x = static_cast<const S*>(a.x), *dy = static_cast<const S*>(a.dy);
    S* dx = static_cast<S*>(a.y);
    const A *mean = static_cast<const A*>(a.mean), *rstd = static_cast<const A*>(a.rstd);
    const int64_t n = a.cols;
    const bool affine = a.dw || a.db;
    const int64_t part = greatest(32, kPieceElements / n), parts = ceil_div(a.rows, part);
    // w, then for each part the sums for dw and db
    A* buffer = static_cast<A*>(scratch(0, size_t(n + (affine ? 2 * parts * n : 0)) * sizeof(A)));
    const A* w = converted<A>(a.w, a.param_dtype, n, buffer);
    A* partial = buffer + n;
    parallel_for(parts, [&](int64_t p) {
      const int64_t begin = p * part, end = least(a.rows, begin + part);
      for (int64_t i = begin; dx && i < end; ++i)
        backward_row<S, A>(x + i * n, dy + i * n, w, dx + i * n, mean[i], rstd[i], n);
      for (int64_t c0 = 0; affine && c0 < n; c0 += kStrip) {
        A* out[2] = {partial + p * n + c0, partial + (parts + p) * n + c0};
        fold_columns<SumFold, A, 2>(
            end - begin, least(kStrip, n - c0), 1,
            [&](int64_t r, int64_t c, auto... k) {
              const int64_t i = begin + r, at = i * n + c0 + c;
              const Vec<A> g = load_as<A>(dy + at, k...);
              return Vecs<A, 2>{{g * ((load_as<A>(x + at, k...) - Vec<A>(mean[i])) * Vec<A>(rstd[i])), g}};
            },
            out);
      }
    });
    auto finish = [&](const A* from, void* to) {
      parallel_ranges(n, kStrip, [&](int64_t begin, int64_t end) {
        A* result = static_cast<A*>(scratch(2, size_t(kStrip) * sizeof(A)));
        A* out[1] = {result};
        fold_columns<SumFold, A, 1>(
            parts, end - begin, 1,
            [&](int64_t r, int64_t c, auto... k) { return Vec<A>::load(from + r * n + begin + c, k...); }, out);
        store_converted(to, a.param_dtype, begin, result, end - begin);
      });
    };
    if (a.dw) finish(partial, a.dw);
    if (a.db) finish(partial + parts * n, a.db);
  });
}

}  // namespace tw::TW_ISA
