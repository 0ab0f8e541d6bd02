// Scans along the middle of contiguous (outer, n, inner): cumulative sum, product, maximum, minimum, log-sum-exp.
//
// y[o, i, k] = x[o, 0, k] (op) ... (op) x[o, i, k], or from i to the end (reverse). Any dtype; sums and products of
// integers in int64, of halves in float32. Maximum and minimum also give where the extreme was last met (PyTorch's
// choice among equals), and a NaN stays from where it is met on. log-sum-exp keeps the largest x and the sum of
// exp(x - largest), as in Milakov and Gimelshein, Online normalizer calculation for softmax (2018).
// Method of sums and products: columns by vectors of adjacent columns, a strip a piece, kBlockRows at a time;
// rows in registers by log2(lanes) shifted additions, the prefix of the vectors before in double. A row longer than
// kPart is cut into parts: their totals first, then their scans. Error of a float32 sum: along rows at most
// (log2 lanes + 2) * 2^-24 * sum |x|, and 16 + log2 kPart of them where parts meet; along columns (kBlockRows + n /
// kBlockRows); the op table's row cumsum measures it. Bytes: x and y once; x twice in rows longer than kPart.
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vec_math.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPart = 1 << 15;
constexpr int64_t kBlockRows = 64;  // rows that a column's prefix takes before it is added to those of before

struct Sum {
  template <class A> static constexpr A kIdentity = A(0);
  template <class V> TW_INLINE V operator()(V a, V b) const { return a + b; }
};
struct Product {
  template <class A> static constexpr A kIdentity = A(1);
  template <class V> TW_INLINE V operator()(V a, V b) const { return a * b; }
};

template <class Op, class A> TW_INLINE A identity_of() { return Op::template kIdentity<A>; }

template <class S> struct ScanOf {
  using type = int64_t;
};
template <> struct ScanOf<float> {
  using type = float;
};
template <> struct ScanOf<double> {
  using type = double;
};
template <> struct ScanOf<float16> {
  using type = float;
};
template <> struct ScanOf<bfloat16> {
  using type = float;
};

// Lane l takes lane l - by (or l + by), the identity where there is none.
template <int kBy, bool kReverse, class A> TW_INLINE Vec<A> shifted(Vec<A> x, A identity) {
  constexpr int kLanes = Vec<A>::kLanes;
  typename Mask<A>::Native from = {};
  for (int l = 0; l < kLanes; ++l) {
    const int at = kReverse ? l + kBy : l - kBy;
    from[l] = typename IntOf<A>::type(at >= 0 && at < kLanes ? at : kLanes);
  }
  return (typename Vec<A>::Native)__builtin_shuffle(x.v, Vec<A>(identity).v, from);
}
template <class Op, bool kReverse, int kBy = 1, class A> TW_INLINE Vec<A> scan_lanes(Vec<A> x) {
  if constexpr (kBy < Vec<A>::kLanes) {
    const Vec<A> moved = shifted<kBy, kReverse>(x, identity_of<Op, A>());
    return scan_lanes<Op, kReverse, 2 * kBy>(Op()(moved, x));
  } else {
    return x;
  }
}

// What a row's prefix is kept in: a float one in double, so that its error does not grow along the row.
template <class A> struct CarryOf {
  using type = A;
};
template <> struct CarryOf<float> {
  using type = double;
};

template <class Op, bool kReverse, class A, class C, class S, class D>
TW_INLINE void scan_row(const S* x, D* y, int64_t n, C carry) {
  constexpr int kLanes = Vec<A>::kLanes;
  const int64_t vectors = n / kLanes, rest = n % kLanes;
  auto vector = [&](int64_t i, auto... count) __attribute__((always_inline)) {
    Vec<A> v = load_as<A>(x + i, count...);
    if constexpr (sizeof...(count) > 0)
      v = select(Mask<A>::iota() < Mask<A>(typename IntOf<A>::type(rest)), v, Vec<A>(identity_of<Op, A>()));
    v = scan_lanes<Op, kReverse>(v);
    store_as(y + i, Op()(Vec<A>(A(carry)), v), count...);
    carry = Op()(carry, C(v[kReverse ? 0 : kLanes - 1]));
  };
  if constexpr (kReverse) {
    if (rest) vector(vectors * kLanes, int(rest));
    for (int64_t i = vectors - 1; i >= 0; --i) vector(i * kLanes);
  } else {
    for (int64_t i = 0; i < vectors; ++i) vector(i * kLanes);
    if (rest) vector(vectors * kLanes, int(rest));
  }
}

template <class Op, bool kReverse, class A, class S, class D> void scan_of(const ScanArgs& a) {
  using C = typename CarryOf<A>::type;
  constexpr int kLanes = Vec<A>::kLanes;
  const A identity = identity_of<Op, A>();
  const S* x = static_cast<const S*>(a.x);
  D* y = static_cast<D*>(a.y);
  const int64_t n = a.n, inner = a.inner;
  if (inner == 1) {
    if (n < kLanes) {  // too short for a vector
      constexpr int64_t kBlock = 64, kBlockItems = kBlock * kLanes;
      return parallel_ranges(a.outer, kPart / n, [&](int64_t begin, int64_t end) {
        A row[kBlockItems];
        for (int64_t o = begin; o < end; o += kBlock) {
          const int64_t count = least(kBlock, end - o);
          convert(row, x + o * n, count * n);
          for (int64_t r = 0; r < count; ++r)
            for (int64_t i = 1; i < n; ++i) {
              A* at = row + r * n + (kReverse ? n - 1 - i : i);
              *at = Op()(at[kReverse ? 1 : -1], *at);
            }
          convert(y + o * n, static_cast<const A*>(row), count * n);
        }
      });
    }
    const int64_t parts = ceil_div(n, kPart);
    C* totals = static_cast<C*>(scratch(0, size_t(parts > 1 ? a.outer * parts : 0) * sizeof(C)));
    if (parts > 1) {
      parallel_for(a.outer * parts, [&](int64_t i) {
        const int64_t start = i % parts * kPart;
        const S* from = x + i / parts * n + start;
        totals[i] = fold_row<Op>(least(kPart, n - start), [&](int64_t k, auto... c) {
                      return load_as<A>(from + k, c...);
                    }).v[0];
      });
      for (int64_t o = 0; o < a.outer; ++o) {
        C carry = C(identity);
        for (int64_t k = 0; k < parts; ++k) {
          C& total = totals[o * parts + (kReverse ? parts - 1 - k : k)];
          const C next = Op()(carry, total);
          total = carry;
          carry = next;
        }
      }
    }
    return parallel_ranges(a.outer * parts, greatest(1, kPart / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t start = i % parts * kPart, at = i / parts * n + start;
        scan_row<Op, kReverse, A, C>(x + at, y + at, least(kPart, n - start), parts > 1 ? totals[i] : C(identity));
      }
    });
  }
  // Strips as wide as L1 lets a block's prefixes be: each row of one lies in another page.
  const int64_t strips = ceil_div(inner, kStrip);
  parallel_ranges(a.outer * strips, greatest(1, kPart / (n * least(inner, kStrip))), [&](int64_t begin, int64_t end) {
    A* base = static_cast<A*>(scratch(0, size_t(2 * kStrip) * sizeof(A)));  // of the blocks before
    A* carry = base + kStrip;                                               // of this block
    for (int64_t s = begin; s < end; ++s) {
      const int64_t c = s % strips * kStrip, first = s / strips * n * inner + c, width = least(kStrip, inner - c);
      for (int64_t k = 0; k < kStrip; ++k) base[k] = carry[k] = identity;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = first + (kReverse ? n - 1 - i : i) * inner;
        const bool last = i % kBlockRows == kBlockRows - 1;
        for_row<A>(
            width, [&](int64_t k, auto... lanes) __attribute__((always_inline)) {
              const Vec<A> sum = Op()(Vec<A>::load(carry + k), load_as<A>(x + row + k, lanes...));
              const Vec<A> all = Op()(Vec<A>::load(base + k), sum);
              store_as(y + row + k, all, lanes...);
              (last ? Vec<A>(identity) : sum).store(carry + k);
              if (last) all.store(base + k);
            });
      }
    }
  });
}

// body(first item of a column, step between its items) for each of the outer * inner columns.
template <class Body> TW_INLINE void for_columns(const ScanArgs& a, const Body& body) {
  parallel_ranges(a.outer * a.inner, greatest(1, kPart / a.n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / a.inner * a.n * a.inner + i % a.inner);
  });
}

template <class S> void extreme(const ScanArgs& a) {
  using A = typename ScanOf<S>::type;
  constexpr bool kWiden = kIsHalf<S>;
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  const bool largest = a.op == Scan::kMax;
  for_columns(a, [&](int64_t first) {
    A best = 0;
    int64_t met = first, where = 0;
    for (int64_t i = 0; i < a.n; ++i) {
      const int64_t at = first + i * a.inner;
      A v;
      if constexpr (kWiden) convert(&v, x + at, 1);
      else v = A(x[at]);
      if (i == 0 || v != v || (best == best && (largest ? v >= best : v <= best))) {
        best = v;
        met = at;
        where = i;
      }
      y[at] = x[met];
      a.indices[at] = where;
    }
  });
}

template <class S> void log_sum_exp(const ScanArgs& a) {
  using A = typename FloatOf<S>::type;
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  constexpr int kLanes = Vec<A>::kLanes;
  const int64_t strips = ceil_div(a.inner, kLanes);
  parallel_ranges(a.outer * strips, greatest(1, kPart / (a.n * 8)), [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t c = s % strips * kLanes, first = s / strips * a.n * a.inner + c;
      const int lanes = int(least(kLanes, a.inner - c));
      const Vec<A> lowest = A(-__builtin_inff());
      Vec<A> top = lowest, sum = A(0);
      for (int64_t i = 0; i < a.n; ++i) {
        const Vec<A> v = load_as<A>(x + first + i * a.inner, lanes);
        const Vec<A> next = maximum(top, v);
        const Vec<A> old = select(top == next, Vec<A>(1), exp(top - next));  // equal infinities have no difference
        sum = sum * old + select(v == next, Vec<A>(1), exp(v - next));
        sum = select(next == lowest, Vec<A>(0), sum);
        top = next;
        store_as(y + first + i * a.inner, select(next == lowest, lowest, top + log(sum)), lanes);
      }
    }
  });
}

}  // namespace

void scan(const ScanArgs& a) {
  visit_any(a.x_dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename ScanOf<S>::type;
    // A result has the accumulator's dtype or, of halves, x's own.
    auto run = [&](auto* y) {
      using D = __typeof__(*y);
      if (a.op == Scan::kProd) scan_of<Product, false, A, S, D>(a);
      else if (a.reverse) scan_of<Sum, true, A, S, D>(a);
      else scan_of<Sum, false, A, S, D>(a);
    };
    if (a.op == Scan::kMax || a.op == Scan::kMin) return extreme<S>(a);
    if (a.op == Scan::kLogSumExp) {
      if constexpr (kIsFloat<S> || kIsHalf<S>) log_sum_exp<S>(a);
      return;
    }
    if constexpr (kIsHalf<S>) run(static_cast<S*>(nullptr));
    else run(static_cast<A*>(nullptr));
  });
}

}  // namespace tw::TW_ISA
