// Layer, group, instance and RMS norm, and their gradients: norms of the rows of contiguous (rows, cols) with affine
// parameters. `run` columns share a parameter, and row r begins with parameter (r % groups) * (cols / run): layer norm
// has run 1 and one group; group norm has rows (image, group) and run = the positions of a channel; instance norm is
// group norm with a channel a group. For RMS norm mean = 0. With xhat = (x - mean) rstd:
//
//   y  = xhat w + b,  mean = sum(x) / cols,  rstd = 1 / sqrt(sum((x - mean)^2) / cols + eps)
//   dx = rstd (g - sum(g) / cols - xhat sum(g xhat) / cols),  g = dy w  (RMS norm: without sum(g))
//   dw = sum of dy xhat,  db = sum of dy, over rows and runs
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; w and b may have another dtype than x and
// may be missing. The variance takes two passes over a row that stays in cache, so that a large mean does not cancel.
// Error: at most 2 * 2^-23 (|xhat w| + |w| + |b|) (1 + |mean| rstd); measured by the op table's row `layer_norm`.
// Method: short rows stay in registers; long ones are cut into pieces whose moments are joined, so that threads share
// one row. Runs shorter than kMinRun are spelled out as a parameter a column. dw and db: where run is 1, parts of at
// least 8 rows, each summed down its columns while it is still in cache from dx (short rows: in registers), then a tree
// over the parts; adding each row to sums in memory as dx is written took 1.5 times as long, for rows of 4 KB collide in
// the cache. Else two sums a run, which dx needs as well.
// Formulas: Ba, Kiros and Hinton, Layer Normalization (2016), equations 3 and 4; Wu and He, Group Normalization (2018);
// Zhang and Sennrich, Root Mean Square Layer Normalization (2019); and their derivatives.
// Bytes: x + y forward; x + dy + dx backward.
// Of the limit, float32, AVX-512, two cores: 16384 x 1024 0.7, past the caches (0.6 through them); 2048 x 1024, in L3,
// 0.4: three passes over a row in L1 take as long as its way from and to L3, and fetching the next row and result
// meanwhile won nothing measurable. Group norm backward of 7 x 7 images (runs of 49) stays at PyTorch's speed: two sums
// a run of three registers; a parameter a column (kMinRun 64) was no faster.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14, kMinRun = 32;

// One call's operands, parameters in the accumulation type.
template <class S, class A> struct Norm {
  const LayerNormArgs& a;
  const S* x;
  A *mean, *rstd;
  const A *w, *b;             // null: 1 and 0
  int64_t cols, run, params;  // params: of a row

  // The parameters lie in scratch memory of slot 0, with `extra` values behind them.
  Norm(const LayerNormArgs& args, int64_t extra, A** room) : a(args) {
    x = static_cast<const S*>(a.x);
    mean = static_cast<A*>(a.mean);
    rstd = static_cast<A*>(a.rstd);
    cols = a.cols;
    run = a.run;
    const bool spell_out = run > 1 && run < kMinRun;
    const int64_t given = a.groups * (cols / run), wide = spell_out ? a.groups * cols : 0;
    A* buffer = static_cast<A*>(scratch(0, size_t(2 * (given + wide) + extra) * sizeof(A)));
    w = converted<A>(a.w, a.param_dtype, given, buffer);
    b = converted<A>(a.b, a.param_dtype, given, buffer + given);
    *room = buffer + 2 * given;
    if (spell_out) {
      for (const A** p : {&w, &b}) {
        if (*p)
          for (int64_t k = 0; k < given; ++k)
            for (int64_t i = 0; i < run; ++i) (*room)[k * run + i] = (*p)[k];
        if (*p) *p = *room;
        *room += wide;
      }
      run = 1;
    }
    params = cols / run;
  }
  TW_INLINE const A* of_row(const A* p, int64_t row) const { return p ? p + row % a.groups * params : nullptr; }
  TW_INLINE A rstd_of(double m2) const { return A(1 / __builtin_sqrt(m2 / double(cols) + a.eps)); }

  // f(first column, columns, parameter) for each part of columns [begin, end) of a row that has one parameter (or, with
  // run 1, for all of them).
  template <class F> TW_INLINE void for_runs(int64_t begin, int64_t end, const F& f) const {
    if (run == 1) return f(begin, end - begin, begin);
    for (int64_t c = begin; c < end;) {
      const int64_t k = c / run, stop = least(end, (k + 1) * run);
      f(c, stop - c, k);
      c = stop;
    }
  }

  TW_INLINE Moments moments(int64_t row, int64_t begin, int64_t end) const {
    const S* from = x + row * cols + begin;
    if (!a.rms) return row_moments<A>(from, end - begin);
    const A m2 = sum_row(end - begin, [&](int64_t i, auto... c) {
                   const Vec<A> v = load_as<A>(from + i, c...);
                   return v * v;
                 }).v[0];
    return {double(end - begin), 0, double(m2)};
  }
  TW_INLINE void put_statistics(int64_t row, const Moments& s) const {
    mean[row] = A(s.mean);
    rstd[row] = rstd_of(s.m2);
  }

  void normalize(S* y, int64_t row, int64_t begin, int64_t end) const {
    const Vec<A> m = mean[row], r = rstd[row];
    const S* from = x + row * cols;
    S* to = y + row * cols;
    const A *wr = of_row(w, row), *br = of_row(b, row);
    const bool stream = streams<S, A>(y, a.rows * cols, run == 1 ? cols : run);
    for_runs(begin, end, [&](int64_t first, int64_t count, int64_t k) {
      const bool each = run == 1;
      const Vec<A> w1 = wr && !each ? wr[k] : A(1), b1 = br && !each ? br[k] : A(0);
      for_row<A>(count, [&](int64_t i, auto... n) {
        const int64_t c = first + i;
        Vec<A> v = (load_as<A>(from + c, n...) - m) * r;
        if (wr) v *= each ? Vec<A>::load(wr + c, n...) : w1;
        if (br) v += each ? Vec<A>::load(br + c, n...) : b1;
        put_result(to + c, v, stream, n...);
      });
    });
    end_stream(stream);
  }
};

// How a row is cut for several threads.
struct Pieces {
  int64_t count, size;
  Pieces(int64_t cols, int64_t most) : count(ceil_div(cols, most)), size(ceil_div(ceil_div(cols, count), 64) * 64) {
    count = ceil_div(cols, size);
  }
  TW_INLINE int64_t stop(int64_t piece, int64_t cols) const { return least(cols, (piece + 1) * size); }
};

// ---- rows in registers ----

template <class S, class A, int V>
__attribute__((noinline)) void short_rows(const Norm<S, A>& t, S* y, int64_t begin, int64_t end) {
  const int tail = int(t.cols - (V - 1) * Vec<A>::kLanes);
  for (int64_t row = begin; row < end; ++row) {
    Vec<A> v[V], q[V];
    load_row(t.x + row * t.cols, tail, v);
    A m = 0, shift = 0;
    if (!t.a.rms) {
      m = sum_vectors(v) / A(t.cols);
      for (int i = 0; i < V; ++i) v[i] = v[i] - Vec<A>(m);
      v[V - 1] = first_lanes<SumFold>(as_vecs(v[V - 1]), tail).v[0];
      shift = sum_vectors(v) / A(t.cols);  // the rounding of m
    }
    for (int i = 0; i < V; ++i) q[i] = v[i] * v[i];
    const double m2 = double(sum_vectors(q)) - double(shift) * double(shift) * double(t.cols);
    const A r = t.rstd[row] = t.rstd_of(m2 < 0 ? 0 : m2);
    t.mean[row] = m + shift;
    const A *w = t.of_row(t.w, row), *b = t.of_row(t.b, row);
    const auto put = [&](int i, auto... n) {
      const int64_t c = i * Vec<A>::kLanes;
      Vec<A> z = (v[i] - Vec<A>(shift)) * Vec<A>(r);
      if (w) z *= Vec<A>::load(w + c, n...);
      if (b) z += Vec<A>::load(b + c, n...);
      store_as(y + row * t.cols + c, z, n...);
    };
    for (int i = 0; i < V - 1; ++i) put(i);
    put(V - 1, tail);
  }
}

// ---- backward ----

// Rows first, first + step, ... of registers; their sums for the parameters' gradients are written to dw and db.
template <class S, class A, int V>
__attribute__((noinline)) void short_rows_backward(const Norm<S, A>& t, const S* dy, S* dx, int64_t first,
                                                   int64_t count, A* dw, A* db) {
  const int tail = int(t.cols - (V - 1) * Vec<A>::kLanes);
  Vec<A> w_sum[V], b_sum[V], w[V];
  for (int i = 0; i < V; ++i) w_sum[i] = b_sum[i] = Vec<A>(0), w[i] = Vec<A>(1);
  if (t.w) load_row(t.of_row(t.w, first), tail, w);
  for (int64_t k = 0; k < count; ++k) {
    const int64_t row = first + k * t.a.groups;
    Vec<A> d[V], g[V], p[V];
    load_row(t.x + row * t.cols, tail, d);
    load_row(dy + row * t.cols, tail, g);
    const A r = t.rstd[row], n = A(t.cols);
    for (int i = 0; i < V; ++i) {
      d[i] = (d[i] - Vec<A>(t.mean[row])) * Vec<A>(r);
      w_sum[i] = fma(g[i], d[i], w_sum[i]);
      b_sum[i] = b_sum[i] + g[i];
      g[i] = g[i] * w[i];
      p[i] = g[i] * d[i];  // 0 past the tail, for g is
    }
    if (!dx) continue;
    const Vec<A> shift = t.a.rms ? A(0) : sum_vectors(g) / n, slope = sum_vectors(p) / n;
    for (int i = 0; i < V; ++i) p[i] = Vec<A>(r) * ((g[i] - shift) - d[i] * slope);
    store_row(dx + row * t.cols, tail, p);
  }
  if (!dw) return;
  store_row(dw, tail, w_sum);
  store_row(db, tail, b_sum);
}

// Sums of g = dy and of g (x - mean) over a part of a row, times one parameter each, or one for all where run > 1.
template <class S, class A>
TW_INLINE auto gradient_sums(const Norm<S, A>& t, const S* dy, int64_t row, int64_t first, int64_t count, const A* w) {
  const S *from = t.x + row * t.cols + first, *g = dy + row * t.cols + first;
  const Vec<A> m = t.mean[row];
  return sum_row(count, [&](int64_t i, auto... n) {
    Vec<A> v = load_as<A>(g + i, n...);
    if (w) v *= Vec<A>::load(w + first + i, n...);
    return Vecs<A, 2>{{v, v * (load_as<A>(from + i, n...) - m)}};
  });
}

// dx of columns [begin, end) of a row from its sums of g and of g (x - mean).
template <class S, class A>
void put_dx(const Norm<S, A>& t, const S* dy, S* dx, int64_t row, int64_t begin, int64_t end, double s0, double s1) {
  const double r = double(t.rstd[row]), n = double(t.cols);
  const Vec<A> shift = t.a.rms ? A(0) : A(s0 / n), slope = A(s1 / n * r * r), m = t.mean[row], scale = t.rstd[row];
  const S *from = t.x + row * t.cols, *g = dy + row * t.cols;
  S* to = dx + row * t.cols;
  const A* w = t.of_row(t.w, row);
  const bool stream = streams<S, A>(dx, t.a.rows * t.cols, t.run == 1 ? t.cols : t.run);
  t.for_runs(begin, end, [&](int64_t first, int64_t count, int64_t k) {
    const bool each = t.run == 1;
    const Vec<A> w1 = w && !each ? w[k] : A(1);
    for_row<A>(count, [&](int64_t i, auto... p) {
      const int64_t c = first + i;
      Vec<A> v = load_as<A>(g + c, p...);
      if (w) v *= each ? Vec<A>::load(w + c, p...) : w1;
      put_result(to + c, scale * ((v - shift) - (load_as<A>(from + c, p...) - m) * slope), stream, p...);
    });
  });
  end_stream(stream);
}

// A parameter a column. A part is a number of images; its rows of one group are one task, or where these are few and
// long, pieces of their columns are. Its sums for dw and db begin at partial + (0 or parts + part) * width.
template <class S, class A>
void backward_columns(const Norm<S, A>& t, const S* dy, S* dx, A* partial, int64_t part, int64_t parts) {
  const LayerNormArgs& a = t.a;
  const int64_t n = t.cols, width = a.groups * n, images = a.rows / a.groups, units = parts * a.groups;
  const int vectors = registers_of<A>(n);
  const auto sums_at = [&](int64_t unit, int64_t which) {
    return partial ? partial + (which * parts + unit / a.groups) * width + unit % a.groups * n : nullptr;
  };
  const auto first_row = [&](int64_t unit) { return unit / a.groups * part * a.groups + unit % a.groups; };
  const auto rows_of = [&](int64_t unit) { return least(part, images - unit / a.groups * part); };
  const auto columns = [&](int64_t unit, int64_t begin, int64_t end, const auto& row_sums) {
    const int64_t first = first_row(unit), count = rows_of(unit);
    for (int64_t i = 0; dx && i < count; ++i) {
      double s[2] = {0, 0};
      row_sums(first + i * a.groups, s);
      put_dx(t, dy, dx, first + i * a.groups, begin, end, s[0], s[1]);
    }
    for (int64_t c = begin; partial && c < end; c += kStrip) {
      A* out[2] = {sums_at(unit, 0) + c, sums_at(unit, 1) + c};
      fold_columns<SumFold, A, 2>(
          count, least(kStrip, end - c), 1,
          [&](int64_t r, int64_t j, auto... k) {
            const int64_t row = first + r * a.groups, at = row * n + c + j;
            const Vec<A> v = load_as<A>(dy + at, k...);
            return Vecs<A, 2>{{v * ((load_as<A>(t.x + at, k...) - Vec<A>(t.mean[row])) * Vec<A>(t.rstd[row])), v}};
          },
          out);
    }
  };
  if (n > kPiece && units < 16) {
    const Pieces cut(n, kPiece);
    double* sums = static_cast<double*>(scratch(3, size_t(2 * a.rows * cut.count) * sizeof(double)));
    if (dx)
      parallel_for(a.rows * cut.count, [&](int64_t i) {
        const int64_t row = i / cut.count, first = i % cut.count * cut.size;
        const auto s = gradient_sums(t, dy, row, first, cut.stop(i % cut.count, n) - first, t.of_row(t.w, row));
        sums[2 * i] = double(s.v[0]), sums[2 * i + 1] = double(s.v[1]);
      });
    return parallel_for(units * cut.count, [&](int64_t i) {
      const int64_t piece = i % cut.count;
      columns(i / cut.count, piece * cut.size, cut.stop(piece, n), [&](int64_t row, double(&s)[2]) {
        for (int64_t j = row * cut.count; j < (row + 1) * cut.count; ++j) s[0] += sums[2 * j], s[1] += sums[2 * j + 1];
      });
    });
  }
  parallel_ranges(units, greatest(1, kPiece / (part * n)), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      if (vectors <= kRegisters)
        visit_count(vectors, [&](auto v) {
          short_rows_backward<S, A, decltype(v)::value>(t, dy, dx, first_row(unit), rows_of(unit), sums_at(unit, 0),
                                                        sums_at(unit, 1));
        });
      else
        columns(unit, 0, n, [&](int64_t row, double(&s)[2]) {
          const auto both = gradient_sums(t, dy, row, 0, n, t.of_row(t.w, row));
          s[0] = double(both.v[0]), s[1] = double(both.v[1]);
        });
    }
  });
}

// A parameter a run: two sums for each, from which both dx and the parameters' gradients come.
template <class S, class A> void backward_runs(const Norm<S, A>& t, const S* dy, S* dx, double* sums) {
  const LayerNormArgs& a = t.a;
  const int64_t K = t.params;
  const auto sum_run = [&](int64_t i) {
    const auto s = gradient_sums(t, dy, i / K, i % K * t.run, t.run, static_cast<const A*>(nullptr));
    sums[2 * i] = double(s.v[0]), sums[2 * i + 1] = double(s.v[1]);
  };
  const auto put = [&](int64_t row, int64_t first, int64_t last) {  // runs
    const A* w = t.of_row(t.w, row);
    double s0 = 0, s1 = 0;
    for (int64_t k = 0; k < K; ++k) {
      const double wk = w ? double(w[k]) : 1;
      s0 += wk * sums[2 * (row * K + k)], s1 += wk * sums[2 * (row * K + k) + 1];
    }
    put_dx(t, dy, dx, row, first * t.run, last * t.run, s0, s1);
  };
  if (t.cols > kPieceElements) {
    const int64_t grain = greatest(1, kPieceElements / t.run);
    parallel_ranges(a.rows * K, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum_run(i);
    });
    const int64_t pieces = ceil_div(K, grain);
    if (dx)
      parallel_for(a.rows * pieces,
                   [&](int64_t i) { put(i / pieces, i % pieces * grain, least(K, (i % pieces + 1) * grain)); });
    return;
  }
  parallel_ranges(a.rows, greatest(1, kPiece / t.cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t k = 0; k < K; ++k) sum_run(row * K + k);
      if (dx) put(row, 0, K);
    }
  });
}

}  // namespace

void layer_norm(const LayerNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    A* room;
    const Norm<S, A> t(a, 0, &room);
    S* y = static_cast<S*>(a.y);
    if (t.cols > kPieceElements) {
      const Pieces cut(t.cols, kPieceElements);
      Moments* part = static_cast<Moments*>(scratch(3, size_t(a.rows * cut.count) * sizeof(Moments)));
      parallel_for(a.rows * cut.count, [&](int64_t i) {
        const int64_t piece = i % cut.count;
        part[i] = t.moments(i / cut.count, piece * cut.size, cut.stop(piece, t.cols));
      });
      for (int64_t row = 0; row < a.rows; ++row) {
        Moments all{0, 0, 0};
        for (int64_t i = 0; i < cut.count; ++i) all.join(part[row * cut.count + i]);
        t.put_statistics(row, all);
      }
      return parallel_for(a.rows * cut.count, [&](int64_t i) {
        const int64_t piece = i % cut.count;
        t.normalize(y, i / cut.count, piece * cut.size, cut.stop(piece, t.cols));
      });
    }
    const int64_t vectors = ceil_div(t.cols, Vec<A>::kLanes);
    parallel_ranges(a.rows, greatest(1, kPiece / t.cols), [&](int64_t begin, int64_t end) {
      if (t.run == 1 && vectors <= kRegisters)
        return visit_count(vectors, [&](auto v) { short_rows<S, A, decltype(v)::value>(t, y, begin, end); });
      for (int64_t row = begin; row < end; ++row) {
        t.put_statistics(row, t.moments(row, 0, t.cols));
        t.normalize(y, row, 0, t.cols);
      }
    });
  });
}

void layer_norm_backward(const LayerNormArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* dy = static_cast<const S*>(a.dy);
    S* dx = static_cast<S*>(a.y);
    const bool affine = a.dw || a.db;
    const int64_t given = a.groups * (a.cols / a.run), images = a.rows / a.groups, width = a.groups * a.cols;
    // Parameters a column (spelled out or not): parts of images. Runs: two sums in double for each.
    const bool runs = a.run >= kMinRun;
    const int64_t part = registers_of<A>(a.cols) <= kRegisters ? 32 : greatest(8, kPieceElements / width);
    const int64_t parts = ceil_div(images, part);
    const int64_t doubles = 2 * a.rows * (a.cols / a.run) * int64_t(sizeof(double) / sizeof(A));
    A* room;
    const Norm<S, A> t(a, runs ? doubles + 16 : affine ? 2 * parts * width : 0, &room);
    if (runs) {
      double* sums = reinterpret_cast<double*>((reinterpret_cast<uintptr_t>(room) + 63) & ~uintptr_t(63));
      backward_runs(t, dy, dx, sums);
      A* total = static_cast<A*>(scratch(2, size_t(given) * sizeof(A)));
      for (int which = 0; which < 2; ++which) {
        if (!(which == 0 ? a.dw : a.db)) continue;
        for (int64_t c = 0; c < given; ++c) {
          double s = 0;
          for (int64_t i = 0; i < images; ++i) {
            const int64_t at = i * given + c;
            s += which == 0 ? sums[2 * at + 1] * double(t.rstd[at / t.params]) : sums[2 * at];
          }
          total[c] = A(s);
        }
        store_converted(which == 0 ? a.dw : a.db, a.param_dtype, 0, total, given);
      }
      return;
    }
    backward_columns(t, dy, dx, affine ? room : nullptr, part, parts);
    const auto finish = [&](const A* from, void* to) {
      A* wide = a.run > 1 ? static_cast<A*>(scratch(3, size_t(width) * sizeof(A))) : nullptr;
      parallel_ranges(width, kStrip, [&](int64_t begin, int64_t end) {
        A* result = wide ? wide + begin : static_cast<A*>(scratch(2, size_t(kStrip) * sizeof(A)));
        A* out[1] = {result};
        fold_columns<SumFold, A, 1>(
            parts, end - begin, 1,
            [&](int64_t r, int64_t c, auto... k) { return Vec<A>::load(from + r * width + begin + c, k...); }, out);
        if (!wide) store_converted(to, a.param_dtype, begin, result, end - begin);
      });
      if (!wide) return;
      for (int64_t c = 0; c < given; ++c) {
        A s = 0;
        for (int64_t i = 0; i < a.run; ++i) s += wide[c * a.run + i];
        wide[c] = s;
      }
      store_converted(to, a.param_dtype, 0, static_cast<const A*>(wide), given);
    };
    if (a.dw) finish(room, a.dw);
    if (a.db) finish(room + parts * width, a.db);
  });
}

}  // namespace tw::TW_ISA
