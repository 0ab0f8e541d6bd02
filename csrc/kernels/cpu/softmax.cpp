// softmax and log_softmax over the middle dimension of contiguous (outer, n, inner), and their gradients.
//
//   softmax       y = e / sum(e), e = exp(x - max x)        dx = y (dy - sum(dy y))
//   log_softmax   y = (x - max x) - log(sum(e))             dx = dy - exp(y) sum(dy)
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; a half is rounded once, at the store. A
// row with a NaN, with +inf, or of -inf alone gives NaN.
// Error: softmax at most (4 + |x - max x|) 2^-23 of y (exp of a rounded difference, a pairwise sum, a reciprocal, a
// product), log_softmax at most 4 * 2^-23 (|y| + log n); measured by the op table's rows `softmax` and `log_softmax`.
// Method: three passes over a row that stays in L1 or L2 (maximum; exp and sum; scale): a row's exponentials are kept
// in y itself, or for halves in a float32 buffer. inner > 1 runs the same passes, vectors along inner. Rows of up to
// kRegisters vectors never leave the registers: against blocks of them transposed, a lane a row, the same at 32 columns
// forward, 1.4 times as fast at 64, and twice as fast backward.
// Bytes: x + y forward, y + dy + dx backward. In cache the bound is arithmetic: an exponential is some 16 operations, 13
// cycles a register on a machine that splits 512-bit ones, against 4 of loads and stores; from memory it is the bytes.
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vec_math.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;  // elements; an exponential costs several loads

template <class S, class A> void softmax_row(const S* x, S* y, A* e, int64_t n, bool log_space) {
  const Vec<A> m = fold_row<MaxFold>(n, [&](int64_t i, auto... c) { return load_as<A>(x + i, c...); }).v[0];
  if (log_space) {
    const Vec<A> total = sum_row(n, [&](int64_t i, auto... c) { return exp(load_as<A>(x + i, c...) - m); }).v[0];
    const Vec<A> shift = log(total);
    for_row<A>(n, [&](int64_t i, auto... c) { store_as(y + i, (load_as<A>(x + i, c...) - m) - shift, c...); });
    return;
  }
  const Vec<A> total = sum_row(n, [&](int64_t i, auto... c) {
                         const Vec<A> v = exp(load_as<A>(x + i, c...) - m);
                         v.store(e + i, c...);
                         return v;
                       }).v[0];
  const Vec<A> scale = Vec<A>(1) / total;
  for_row<A>(n, [&](int64_t i, auto... c) { store_as(y + i, Vec<A>::load(e + i, c...) * scale, c...); });
}

template <class S, class A> void softmax_backward_row(const S* y, const S* dy, S* dx, int64_t n, bool log_space) {
  if (log_space) {
    const Vec<A> total = sum_row(n, [&](int64_t i, auto... c) { return load_as<A>(dy + i, c...); }).v[0];
    return for_row<A>(n, [&](int64_t i, auto... c) {
      store_as(dx + i, load_as<A>(dy + i, c...) - exp(load_as<A>(y + i, c...)) * total, c...);
    });
  }
  const Vec<A> total =
      sum_row(n, [&](int64_t i, auto... c) { return load_as<A>(y + i, c...) * load_as<A>(dy + i, c...); }).v[0];
  for_row<A>(n, [&](int64_t i, auto... c) {
    store_as(dx + i, load_as<A>(y + i, c...) * (load_as<A>(dy + i, c...) - total), c...);
  });
}

// The sum over r in [0, n) of term(r), a vector: runs of 16 in one register, the runs' sums in a tree.
template <class A, class Term> TW_INLINE Vec<A> sum_down(int64_t n, const Term& term) {
  Vec<A> level[60];
  int top = 0;
  for (int64_t r = 0, run = 0; r < n; ++run) {
    Vec<A> acc = term(r);
    const int64_t end = least(n, r + 16);
    for (++r; r < end; ++r) acc += term(r);
    for (int64_t carry = run; carry & 1; carry >>= 1) acc = level[--top] + acc;
    level[top++] = acc;
  }
  Vec<A> x = level[--top];
  while (top > 0) x = level[--top] + x;
  return x;
}

// One register of columns; e holds n registers.
template <class S, class A, class... N>
TW_INLINE void softmax_columns(const S* x, S* y, Vec<A>* e, int64_t n, int64_t inner, bool log_space, N... lanes) {
  Vec<A> m = e[0] = load_as<A>(x, lanes...);
  for (int64_t r = 1; r < n; ++r) m = maximum(m, e[r] = load_as<A>(x + r * inner, lanes...));
  if (log_space) {
    const Vec<A> shift = log(sum_down<A>(n, [&](int64_t r) { return exp(e[r] -= m); }));
    for (int64_t r = 0; r < n; ++r) store_as(y + r * inner, e[r] - shift, lanes...);
  } else {
    const Vec<A> scale = Vec<A>(1) / sum_down<A>(n, [&](int64_t r) { return e[r] = exp(e[r] - m); });
    for (int64_t r = 0; r < n; ++r) store_as(y + r * inner, e[r] * scale, lanes...);
  }
}

template <class S, class A, class... N>
TW_INLINE void softmax_backward_columns(const S* y, const S* dy, S* dx, int64_t n, int64_t inner, bool log_space,
                                        N... lanes) {
  auto load = [&](const S* p, int64_t r) { return load_as<A>(p + r * inner, lanes...); };
  const Vec<A> total = sum_down<A>(n, [&](int64_t r) { return log_space ? load(dy, r) : load(y, r) * load(dy, r); });
  for (int64_t r = 0; r < n; ++r) {
    const Vec<A> g = load(dy, r), v = load(y, r);
    store_as(dx + r * inner, log_space ? g - exp(v) * total : v * (g - total), lanes...);
  }
}

// body(offset of the first element, lanes) for each register of columns.
template <class A, class Body> TW_INLINE void for_columns(const SoftmaxArgs& a, const Body& body) {
  constexpr int kLanes = Vec<A>::kLanes;
  const int64_t vectors = ceil_div(a.inner, kLanes);
  parallel_ranges(a.outer * vectors, greatest(1, kPiece / (a.n * kLanes)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % vectors * kLanes;
      body(i / vectors * a.n * a.inner + c, int(least(kLanes, a.inner - c)));
    }
  });
}

// Rows that stay in registers from load to store.
template <class S, class A, int V>
__attribute__((noinline)) void softmax_short(const S* x, S* y, int64_t rows, int64_t n, bool log_space) {
  const int tail = int(n - (V - 1) * Vec<A>::kLanes);
  for (int64_t o = 0; o < rows; ++o) {
    Vec<A> v[V], e[V];
    load_row(x + o * n, tail, v);
    v[V - 1] = first_lanes<MaxFold>(as_vecs(v[V - 1]), tail).v[0];
    const Vec<A> m = fold_vectors<MaxFold>(v);
    for (int i = 0; i < V; ++i) e[i] = exp(v[i] = v[i] - m);
    e[V - 1] = first_lanes<SumFold>(as_vecs(e[V - 1]), tail).v[0];
    const Vec<A> total = sum_vectors(e);
    const Vec<A> end = log_space ? log(total) : Vec<A>(1) / total;
    for (int i = 0; i < V; ++i) e[i] = log_space ? v[i] - end : e[i] * end;
    store_row(y + o * n, tail, e);
  }
}
template <class S, class A, int V>
__attribute__((noinline)) void softmax_backward_short(const S* y, const S* dy, S* dx, int64_t rows, int64_t n,
                                                      bool log_space) {
  const int tail = int(n - (V - 1) * Vec<A>::kLanes);
  for (int64_t o = 0; o < rows; ++o) {
    Vec<A> v[V], g[V], p[V];
    load_row(y + o * n, tail, v);
    load_row(dy + o * n, tail, g);
    for (int i = 0; i < V; ++i) p[i] = log_space ? g[i] : v[i] * g[i];
    const Vec<A> total = sum_vectors(p);
    for (int i = 0; i < V; ++i) p[i] = log_space ? g[i] - exp(v[i]) * total : v[i] * (g[i] - total);
    store_row(dx + o * n, tail, p);
  }
}

// Rows too long for one task: pieces of fixed size, joined in order. x and y (forward), y, dy and dx (backward) are
// read in the first pass for what the pieces add up to, and again in the second.
template <class A, class Sums, class Put> void long_rows(int64_t outer, int64_t n, const Sums& sums, const Put& put) {
  const int64_t pieces = ceil_div(n, kPieceElements), size = ceil_div(n, pieces);
  A* part = static_cast<A*>(scratch(3, size_t(2 * outer * pieces) * sizeof(A)));
  const auto each = [&](const auto& body) {
    parallel_for(outer * pieces, [&](int64_t i) {
      const int64_t first = i % pieces * size;
      body(i, i / pieces * n + first, least(size, n - first));
    });
  };
  each([&](int64_t i, int64_t at, int64_t count) { sums(part + 2 * i, at, count); });
  for (int64_t o = 0; o < outer; ++o) {
    A m = MaxFold::kIdentity<A>, total = 0;
    for (int64_t i = o * pieces; i < (o + 1) * pieces; ++i) m = MaxFold()(m, part[2 * i]);
    for (int64_t i = o * pieces; i < (o + 1) * pieces; ++i)
      total += part[2 * i + 1] * (part[2 * i] == m ? A(1) : exp(Vec<A>(part[2 * i] - m))[0]);
    for (int64_t i = o * pieces; i < (o + 1) * pieces; ++i) part[2 * i] = m, part[2 * i + 1] = total;
  }
  each([&](int64_t i, int64_t at, int64_t count) { put(part[2 * i], part[2 * i + 1], at, count); });
}

}  // namespace

void softmax(const SoftmaxArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S* x = static_cast<const S*>(a.x);
    S* y = static_cast<S*>(a.y);
    const int64_t n = a.n;
    if (a.inner > 1)
      return for_columns<A>(a, [&](int64_t at, int lanes) {
        Vec<A>* e = static_cast<Vec<A>*>(scratch(0, size_t(n) * sizeof(Vec<A>)));
        if (lanes == Vec<A>::kLanes) softmax_columns<S, A>(x + at, y + at, e, n, a.inner, a.log);
        else softmax_columns<S, A>(x + at, y + at, e, n, a.inner, a.log, lanes);
      });
    if (registers_of<A>(n) <= kRegisters)
      return parallel_ranges(a.outer, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
        visit_count(registers_of<A>(n), [&](auto v) {
          softmax_short<S, A, decltype(v)::value>(x + begin * n, y + begin * n, end - begin, n, a.log);
        });
      });
    if (n > kPieceElements)
      return long_rows<A>(
          a.outer, n,
          [&](A* part, int64_t at, int64_t count) {
            part[0] = fold_row<MaxFold>(count, [&](int64_t i, auto... c) { return load_as<A>(x + at + i, c...); }).v[0];
            const Vec<A> m = part[0] == -kInf<A> ? A(0) : part[0];  // a piece of -inf alone adds nothing
            part[1] = sum_row(count, [&](int64_t i, auto... c) { return exp(load_as<A>(x + at + i, c...) - m); }).v[0];
          },
          [&](A m, A total, int64_t at, int64_t count) {
            const Vec<A> high = m, end = a.log ? log(Vec<A>(total)) : Vec<A>(1) / Vec<A>(total);
            for_row<A>(count, [&](int64_t i, auto... c) {
              const Vec<A> d = load_as<A>(x + at + i, c...) - high;
              store_as(y + at + i, a.log ? d - end : exp(d) * end, c...);
            });
          });
    parallel_ranges(a.outer, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
      A* e = kSame<S, A> || a.log ? nullptr : static_cast<A*>(scratch(0, size_t(n) * sizeof(A)));
      for (int64_t o = begin; o < end; ++o)
        softmax_row<S, A>(x + o * n, y + o * n, e ? e : reinterpret_cast<A*>(y + o * n), n, a.log);
    });
  });
}

void softmax_backward(const SoftmaxArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename FloatOf<S>::type;
    const S *y = static_cast<const S*>(a.x), *dy = static_cast<const S*>(a.dy);
    S* dx = static_cast<S*>(a.y);
    const int64_t n = a.n;
    if (a.inner > 1)
      return for_columns<A>(a, [&](int64_t at, int lanes) {
        if (lanes == Vec<A>::kLanes) softmax_backward_columns<S, A>(y + at, dy + at, dx + at, n, a.inner, a.log);
        else softmax_backward_columns<S, A>(y + at, dy + at, dx + at, n, a.inner, a.log, lanes);
      });
    if (registers_of<A>(n) <= kRegisters)
      return parallel_ranges(a.outer, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
        visit_count(registers_of<A>(n), [&](auto v) {
          softmax_backward_short<S, A, decltype(v)::value>(y + begin * n, dy + begin * n, dx + begin * n, end - begin,
                                                           n, a.log);
        });
      });
    if (n > kPieceElements)
      return long_rows<A>(
          a.outer, n,
          [&](A* part, int64_t at, int64_t count) {
            part[0] = 0;
            part[1] = sum_row(count, [&](int64_t i, auto... c) {
                        const Vec<A> g = load_as<A>(dy + at + i, c...);
                        return a.log ? g : g * load_as<A>(y + at + i, c...);
                      }).v[0];
          },
          [&](A, A total, int64_t at, int64_t count) {
            for_row<A>(count, [&](int64_t i, auto... c) {
              const Vec<A> g = load_as<A>(dy + at + i, c...), v = load_as<A>(y + at + i, c...);
              store_as(dx + at + i, a.log ? g - exp(v) * Vec<A>(total) : v * (g - Vec<A>(total)), c...);
            });
          });
    parallel_ranges(a.outer, greatest(1, kPiece / n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) softmax_backward_row<S, A>(y + o * n, dy + o * n, dx + o * n, n, a.log);
    });
  });
}

}  // namespace tw::TW_ISA
