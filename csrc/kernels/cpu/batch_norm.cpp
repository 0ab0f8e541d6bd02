// Batch norm of contiguous (N, C, S), channel by channel over the M = N S values of a channel, and its gradients.
//
//   y  = (x - mean) rstd w + b,  rstd = 1 / sqrt(var + eps)
//        training: mean and var = sum((x - mean)^2) / M of the batch, and
//        running = (1 - momentum) running + momentum (mean, var M / (M - 1)); else mean and var are the running ones
//   dx = rstd w (dy - sum(dy) / M - (x - mean) rstd^2 sum(dy (x - mean)) / M); without the two sums in evaluation
//   dw = rstd sum(dy (x - mean)),  db = sum(dy)
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; w, b and the running statistics share a
// dtype of their own. Each cell of values that stays in cache gives its mean and squared deviations in two passes, and
// the cells of a channel are joined in float64, so that a large mean does not cancel.
// Error: at most 2 * 2^-23 (|xhat w| + |w| + |b|) (1 + |mean| rstd), xhat = (x - mean) rstd; measured by the op table's
// rows `batch_norm_train` and `batch_norm_eval`.
// Cells: with S >= kMinRun, the S values of one image and channel; below that, (N, C S) is summed down its columns.
// Formulas: Ioffe and Szegedy, Batch Normalization (2015), algorithm 1 and section 3.
// Bytes: 2 x + y forward in training, x + y in evaluation; 2 (x + dy) + dx backward.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kMinRun = 32;

// How a batch falls into cells: `parts` layers of C * run cells.
struct Cells {
  int64_t parts, run, width, rows;  // rows: of (N, width) in one part; width = C * run
  bool columns;
  explicit Cells(const BatchNormArgs& a) {
    columns = a.S < kMinRun;
    run = columns ? a.S : 1;
    width = a.C * run;
    rows = columns ? column_moments_rows(width) : 1;
    parts = ceil_div(a.N, rows);
  }
};

// visit_row(cell, first element) when cells are runs of S values; visit_strip(cell, part, first column, columns) when
// they are columns. In parallel.
template <class Row, class Strip>
TW_INLINE void for_cells(const BatchNormArgs& a, const Cells& k, const Row& visit_row, const Strip& visit_strip) {
  if (!k.columns)
    return parallel_ranges(a.N * a.C, greatest(1, kPieceElements / a.S), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) visit_row(i, i * a.S);
    });
  const int64_t strips = ceil_div(k.width, kStrip);
  parallel_for(k.parts * strips, [&](int64_t i) {
    const int64_t p = i / strips, c = i % strips * kStrip;
    visit_strip(p * k.width + c, p, c, least(kStrip, k.width - c));
  });
}

// The channel's cells, one after another.
template <class Visit> TW_INLINE void for_channel(const Cells& k, int64_t channel, const Visit& visit) {
  for (int64_t p = 0; p < k.parts; ++p)
    for (int64_t j = 0; j < k.run; ++j) visit(p * k.width + channel * k.run + j);
}

// term(at, coefficients, lanes...) over the whole batch, where the coefficients of a channel are kSets vectors. `table`
// holds kSets arrays of C values each, and room for kSets arrays of C * run behind them.
template <class A, int kSets, class Term>
TW_INLINE void apply(const BatchNormArgs& a, const Cells& k, A* table, const Term& term) {
  if (!k.columns)
    return parallel_ranges(a.N * a.C, greatest(1, kPieceElements / 2 / a.S), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Vecs<A, kSets> q;
        for (int s = 0; s < kSets; ++s) q.v[s] = Vec<A>(table[s * a.C + i % a.C]);
        for_row<A>(a.S, [&](int64_t c, auto... n) { term(i * a.S + c, q, n...); });
      }
    });
  A* wide = table;
  if (k.run > 1) {
    wide = table + kSets * a.C;
    for (int64_t j = 0; j < kSets * k.width; ++j) wide[j] = table[j / k.run];
  }
  parallel_ranges(a.N, greatest(1, kPieceElements / 2 / k.width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for_row<A>(k.width, [&](int64_t c, auto... n) {
        Vecs<A, kSets> q;
        for (int s = 0; s < kSets; ++s) q.v[s] = Vec<A>::load(wide + s * k.width + c, n...);
        term(i * k.width + c, q, n...);
      });
  });
}

// Mean and rstd of each channel, and the running statistics' update.
template <class S, class A> void batch_statistics(const BatchNormArgs& a, const Cells& k, A* mean, A* rstd) {
  const S* x = static_cast<const S*>(a.x);
  Moments* cells = static_cast<Moments*>(scratch(0, size_t(k.parts * k.width) * sizeof(Moments)));
  for_cells(
      a, k, [&](int64_t cell, int64_t at) { cells[cell] = row_moments<A>(x + at, a.S); },
      [&](int64_t cell, int64_t p, int64_t c, int64_t width) {
        const int64_t rows = least(k.rows, a.N - p * k.rows);
        column_moments<A>(x + p * k.rows * k.width + c, rows, k.width, width, cells + cell);
      });
  A* running = static_cast<A*>(scratch(3, size_t(2 * a.C) * sizeof(A)));
  const double M = double(a.N * a.S);
  const A* old_mean = converted<A>(a.running_mean, a.param_dtype, a.C, running);
  const A* old_var = converted<A>(a.running_var, a.param_dtype, a.C, running + a.C);
  for (int64_t c = 0; c < a.C; ++c) {
    Moments all{0, 0, 0};
    for_channel(k, c, [&](int64_t cell) { all.join(cells[cell]); });
    mean[c] = A(all.mean);
    rstd[c] = A(1 / __builtin_sqrt(all.m2 / M + a.eps));
    if (old_mean) running[c] = A((1 - a.momentum) * double(old_mean[c]) + a.momentum * all.mean);
    if (old_var) running[a.C + c] = A((1 - a.momentum) * double(old_var[c]) + a.momentum * (all.m2 / (M - 1)));
  }
  if (a.running_mean) store_converted(a.running_mean, a.param_dtype, 0, running, a.C);
  if (a.running_var) store_converted(a.running_var, a.param_dtype, 0, running + a.C, a.C);
}

}  // namespace

void batch_norm(const BatchNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* x = static_cast<const S*>(a.x);
    S* y = static_cast<S*>(a.y);
    A *mean = static_cast<A*>(a.mean), *rstd = static_cast<A*>(a.rstd);
    const Cells k(a);
    if (a.training) {
      batch_statistics<S, A>(a, k, mean, rstd);
    } else {
      load_converted(mean, a.running_mean, a.param_dtype, a.C);
      load_converted(rstd, a.running_var, a.param_dtype, a.C);
      for (int64_t c = 0; c < a.C; ++c) rstd[c] = A(1 / __builtin_sqrt(double(rstd[c]) + a.eps));
    }
    // (x - mean) scale + b
    A* table = static_cast<A*>(scratch(0, size_t(3 * (a.C + k.width)) * sizeof(A)));
    load_converted(table + a.C, a.w, a.param_dtype, a.C);
    load_converted(table + 2 * a.C, a.b, a.param_dtype, a.C);
    for (int64_t c = 0; c < a.C; ++c) {
      table[c] = mean[c];
      table[a.C + c] = a.w ? table[a.C + c] * rstd[c] : rstd[c];
      if (!a.b) table[2 * a.C + c] = A(0);
    }
    apply<A, 3>(a, k, table, [&](int64_t at, const Vecs<A, 3>& q, auto... n) {
      store_as(y + at, fma(load_as<A>(x + at, n...) - q.v[0], q.v[1], q.v[2]), n...);
    });
  });
}

void batch_norm_backward(const BatchNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S *x = static_cast<const S*>(a.x), *dy = static_cast<const S*>(a.dy);
    S* dx = static_cast<S*>(a.y);
    const A *mean = static_cast<const A*>(a.mean), *rstd = static_cast<const A*>(a.rstd);
    const Cells k(a);
    A* table = static_cast<A*>(scratch(3, size_t(6 * (a.C + k.width)) * sizeof(A)));
    // Sums of dy and of dy (x - mean): two a cell, then two a channel, in float64.
    double* sums = static_cast<double*>(scratch(0, size_t(2 * (k.parts * k.width + a.C)) * sizeof(double)));
    double* channel_sums = sums + 2 * k.parts * k.width;
    for (int64_t j = 0; k.columns && j < k.width; ++j) table[j] = mean[j / k.run];
    for_cells(
        a, k,
        [&](int64_t cell, int64_t at) {
          const Vec<A> m = mean[cell % a.C];
          const auto s = sum_row(a.S, [&](int64_t i, auto... n) {
            const Vec<A> g = load_as<A>(dy + at + i, n...);
            return Vecs<A, 2>{{g, g * (load_as<A>(x + at + i, n...) - m)}};
          });
          sums[2 * cell] = double(s.v[0]);
          sums[2 * cell + 1] = double(s.v[1]);
        },
        [&](int64_t cell, int64_t p, int64_t c0, int64_t width) {
          A* result = static_cast<A*>(scratch(2, size_t(2 * kStrip) * sizeof(A)));
          A* out[2] = {result, result + kStrip};
          const int64_t first = p * k.rows * k.width + c0;
          fold_columns<SumFold, A, 2>(
              least(k.rows, a.N - p * k.rows), width, 1,
              [&](int64_t r, int64_t c, auto... n) {
                const int64_t at = first + r * k.width + c;
                const Vec<A> g = load_as<A>(dy + at, n...);
                return Vecs<A, 2>{{g, g * (load_as<A>(x + at, n...) - Vec<A>::load(table + c0 + c, n...))}};
              },
              out);
          for (int64_t c = 0; c < width; ++c) {
            sums[2 * (cell + c)] = double(result[c]);
            sums[2 * (cell + c) + 1] = double(result[kStrip + c]);
          }
        });
    for (int64_t c = 0; c < a.C; ++c) {
      double total = 0, product = 0;
      for_channel(k, c, [&](int64_t cell) {
        total += sums[2 * cell];
        product += sums[2 * cell + 1];
      });
      channel_sums[2 * c] = total;
      channel_sums[2 * c + 1] = product;
    }
    auto write = [&](void* to, const auto& value) {
      if (!to) return;
      for (int64_t c = 0; c < a.C; ++c) table[c] = A(value(c));
      store_converted(to, a.param_dtype, 0, table, a.C);
    };
    write(a.dw, [&](int64_t c) { return channel_sums[2 * c + 1] * double(rstd[c]); });
    write(a.db, [&](int64_t c) { return channel_sums[2 * c]; });
    if (!dx) return;
    // scale (dy - shift - (x - mean) slope)
    const double M = a.training ? double(a.N * a.S) : __builtin_inf();
    load_converted(table + a.C, a.w, a.param_dtype, a.C);
    for (int64_t c = 0; c < a.C; ++c) {
      const double r = double(rstd[c]);
      table[c] = mean[c];
      table[a.C + c] = a.w ? table[a.C + c] * rstd[c] : rstd[c];
      table[2 * a.C + c] = A(channel_sums[2 * c] / M);
      table[3 * a.C + c] = A(channel_sums[2 * c + 1] / M * r * r);
    }
    apply<A, 4>(a, k, table, [&](int64_t at, const Vecs<A, 4>& q, auto... n) {
      const Vec<A> d = load_as<A>(x + at, n...) - q.v[0];
      store_as(dx + at, q.v[1] * ((load_as<A>(dy + at, n...) - q.v[2]) - d * q.v[3]), n...);
    });
  });
}

}  // namespace tw::TW_ISA
