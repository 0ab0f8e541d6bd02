// Sums and other folds over rows and columns: what reduce, softmax, cross_entropy, layer_norm and batch_norm share.
//
// Order of a fold, the same for any number of threads and any memory layout:
//   rows     kUnroll vectors run down the row for 16 steps each and are folded into one; these block results meet in
//            a binary tree (a counter of carries, so that no buffer is needed); the lanes are folded last.
//   columns  vectors lie along the columns; 8 rows are folded as a tree in registers, and the groups of 8 meet in the
//            same binary tree, kept in one buffer a level.
// Error of a float32 sum of n values: at most (16 + log2 n) * 2^-24 * sum |x| (measured by the op table's row `sum`).
// Method: pairwise summation (Higham, Accuracy and Stability of Numerical Algorithms, 4.2); moments of blocks are
// joined as in Chan, Golub and LeVeque, Updating Formulae (1979), equation 2.1.
#pragma once
#include "kernels/cpu/transpose.h"

namespace tw::TW_ISA {

template <class T> struct Tag {
  using type = T;
};

// Calls f(Tag<S>()) for the storage type S. A bool is a byte of 0 or 1, and is read as one.
template <class F> TW_INLINE void visit_float(DType t, const F& f) {
  switch (t) {
    case DType::kFloat16: return f(Tag<float16>());
    case DType::kBFloat16: return f(Tag<bfloat16>());
    case DType::kFloat32: return f(Tag<float>());
    default: return f(Tag<double>());
  }
}
template <class F> TW_INLINE void visit_any(DType t, const F& f) {
  switch (t) {
    case DType::kBool:
    case DType::kUInt8: return f(Tag<uint8_t>());
    case DType::kInt8: return f(Tag<int8_t>());
    case DType::kInt16: return f(Tag<int16_t>());
    case DType::kInt32: return f(Tag<int32_t>());
    case DType::kInt64: return f(Tag<int64_t>());
    default: return visit_float(t, f);
  }
}

// What a storage type is computed in.
template <class S> struct FloatOf {
  using type = float;
};
template <> struct FloatOf<double> {
  using type = double;
};

TW_INLINE int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

// Elements of one piece of parallel work, and of the longest row that one piece folds alone.
constexpr int64_t kPieceElements = 1 << 16;

// The folds. Each works on registers, on halves of registers and on numbers alike.
struct SumFold {
  template <class A> static constexpr A kIdentity = A(0);
  template <class V> TW_INLINE V operator()(V a, V b) const { return a + b; }
};

template <class A> constexpr A kLowest = A(1) << (8 * sizeof(A) - 1);
template <> constexpr float kLowest<float> = -__builtin_inff();
template <> constexpr double kLowest<double> = -__builtin_inf();
struct MaxFold {  // a NaN anywhere gives NaN
  template <class A> static constexpr A kIdentity = kLowest<A>;
  template <class A> TW_INLINE Vec<A> operator()(Vec<A> a, Vec<A> b) const { return maximum(a, b); }
  template <class V> TW_INLINE V operator()(V a, V b) const { return (a > b) | (a != a) ? a : b; }
  // a, met later, replaces the extremum b.
  template <class V> static TW_INLINE auto beats(V a, V b) { return (a > b) | ((a != a) & (b == b)); }
};

// K vectors that are folded side by side.
template <class A, int K> struct Vecs {
  using Element = A;
  static constexpr int kCount = K;
  Vec<A> v[K];
};
template <class A> TW_INLINE Vecs<A, 1> as_vecs(Vec<A> x) { return {{x}}; }
template <class A, int K> TW_INLINE Vecs<A, K> as_vecs(Vecs<A, K> x) { return x; }

template <class Fold, class A, int K> TW_INLINE Vecs<A, K> fold(Vecs<A, K> a, Vecs<A, K> b) {
  for (int k = 0; k < K; ++k) a.v[k] = Fold()(a.v[k], b.v[k]);
  return a;
}
// Lanes from n on become the fold's identity.
template <class Fold, class A, int K> TW_INLINE Vecs<A, K> first_lanes(Vecs<A, K> x, int n) {
  const auto keep = Mask<A>::iota() < Mask<A>(typename IntOf<A>::type(n));
  for (int k = 0; k < K; ++k) x.v[k] = select(keep, x.v[k], Vec<A>(Fold::template kIdentity<A>));
  return x;
}

// out[k] = fold over i in [0, n) of term(i), where term(i) gives the vector (or Vecs) that starts at element i and
// term(i, count) its first `count` lanes.
template <class Fold, class Term> TW_INLINE auto fold_row(int64_t n, const Term& term) {
  using Item = decltype(as_vecs(term(int64_t())));
  using A = typename Item::Element;
  constexpr int K = Item::kCount, kLanes = Vec<A>::kLanes, kUnroll = K == 1 ? 4 : 2, kStep = kUnroll * kLanes;
  constexpr int64_t kBlock = 16 * kStep;
  Item level[56];
  int top = 0;
  for (int64_t start = 0, block = 0; start < n || block == 0; start += kBlock, ++block) {
    const int64_t end = least(n, start + kBlock);
    Item acc[kUnroll];
    for (int u = 0; u < kUnroll; ++u)
      for (int k = 0; k < K; ++k) acc[u].v[k] = Vec<A>(Fold::template kIdentity<A>);
    int64_t i = start;
    for (; i + kStep <= end; i += kStep)
      for (int u = 0; u < kUnroll; ++u) acc[u] = fold<Fold>(acc[u], as_vecs(term(i + u * kLanes)));
    for (; i + kLanes <= end; i += kLanes) acc[0] = fold<Fold>(acc[0], as_vecs(term(i)));
    if (i < end) acc[0] = fold<Fold>(acc[0], first_lanes<Fold>(as_vecs(term(i, int(end - i))), int(end - i)));
    for (int half = kUnroll / 2; half > 0; half /= 2)
      for (int u = 0; u < half; ++u) acc[u] = fold<Fold>(acc[u], acc[u + half]);
    for (int64_t carry = block; carry & 1; carry >>= 1) acc[0] = fold<Fold>(level[--top], acc[0]);
    level[top++] = acc[0];
  }
  Item x = level[--top];
  while (top > 0) x = fold<Fold>(level[--top], x);
  struct {
    A v[K];
  } out;
  for (int k = 0; k < K; ++k) out.v[k] = reduce_lanes<A, kLanes>(x.v[k].v, Fold());
  return out;
}

template <class Term> TW_INLINE auto sum_row(int64_t n, const Term& term) { return fold_row<SumFold>(n, term); }

// body(i) for each whole vector of a row, body(i, count) for the rest.
template <class A, class Body> TW_INLINE void for_row(int64_t n, const Body& body) {
  constexpr int kLanes = Vec<A>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i);
  if (i < n) body(i, int(n - i));
}

// Writes results of whole rows, past the caches if whole registers are aligned.
template <class S, class A> TW_INLINE bool streams(const S* y, int64_t n, int64_t cols) {
  return sizeof(S) == sizeof(A) && n * int64_t(sizeof(S)) >= kStreamBytes && cols % Vec<A>::kLanes == 0 &&
         reinterpret_cast<int64_t>(y) % TW_VEC_BYTES == 0;
}
template <class S, class A, class... N> TW_INLINE void put_result(S* p, Vec<A> v, bool stream, N... n) {
  if constexpr (sizeof...(N) == 0 && sizeof(S) == sizeof(A))
    if (stream) return stream_register(reinterpret_cast<char*>(p), v.v);
  store_as(p, v, n...);
}
// ---- rows short enough for registers: V vectors, of which the last holds `tail` values ----

constexpr int kRegisters = TW_VEC_BYTES == 64 ? 8 : 4;
template <class A> TW_INLINE int registers_of(int64_t n) {
  return int(least(kRegisters + 1, ceil_div(n, Vec<A>::kLanes)));
}

// Lanes past the tail become 0.
template <class S, class A, int V> TW_INLINE void load_row(const S* p, int tail, Vec<A> (&v)[V]) {
  for (int i = 0; i < V - 1; ++i) v[i] = load_as<A>(p + i * Vec<A>::kLanes);
  v[V - 1] = load_as<A>(p + (V - 1) * Vec<A>::kLanes, tail);
}
template <class S, class A, int V> TW_INLINE void store_row(S* p, int tail, const Vec<A> (&v)[V]) {
  for (int i = 0; i < V - 1; ++i) store_as(p + i * Vec<A>::kLanes, v[i]);
  store_as(p + (V - 1) * Vec<A>::kLanes, v[V - 1], tail);
}
template <class Fold, class A, int V> TW_INLINE A fold_vectors(const Vec<A> (&v)[V]) {
  Vec<A> t[V];
  for (int i = 0; i < V; ++i) t[i] = v[i];
  for (int n = V; n > 1; n = (n + 1) / 2)
    for (int i = 0; i < n / 2; ++i) t[i] = Fold()(t[i], t[i + (n + 1) / 2]);
  return reduce_lanes<A, Vec<A>::kLanes>(t[0].v, Fold());
}
template <class A, int V> TW_INLINE A sum_vectors(const Vec<A> (&v)[V]) { return fold_vectors<SumFold>(v); }

// Calls f(Count<V>()) for the number of registers that a row takes, at most kRegisters.
template <int V> struct Count {
  static constexpr int value = V;
};
template <int V = 1, class F> TW_INLINE void visit_count(int64_t registers, const F& f) {
  if (V == kRegisters || registers == V) return f(Count<V>());
  if constexpr (V < kRegisters) visit_count<V + 1>(registers, f);
}

// The widest strip of columns that fold_columns takes.
constexpr int64_t kStrip = 512;

// out[k][c] = fold over r in [0, rows) of term(r, c), for c in [0, width), width <= kStrip. rows >= 1. Uses scratch
// memory of `slot`.
template <class Fold, class A, int K, class Term>
TW_INLINE void fold_columns(int64_t rows, int64_t width, int slot, const Term& term, A* const (&out)[K]) {
  constexpr int kLanes = Vec<A>::kLanes, kGroup = 8;
  using Item = Vecs<A, K>;
  const int64_t groups = ceil_div(rows, kGroup);
  const int64_t vectors = ceil_div(width, kLanes);
  const int depth = 65 - __builtin_clzll(uint64_t(groups));
  Item* level = static_cast<Item*>(scratch(slot, size_t(depth * vectors) * sizeof(Item)));
  int top = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * kGroup;
    const int count = int(least(kGroup, rows - first));
    const int carries = __builtin_ctzll(~uint64_t(g));
    const bool last = g == groups - 1;
    const int merges = last ? top : carries;  // the last group folds all that is left
    auto column = [&](int64_t j, auto... n) __attribute__((always_inline)) {
      const int64_t c = j * kLanes;
      Item x;
      if (count == kGroup) {
        Item t[kGroup];
        for (int r = 0; r < kGroup; ++r) t[r] = as_vecs(term(first + r, c, n...));
        for (int half = kGroup / 2; half > 0; half /= 2)
          for (int r = 0; r < half; ++r) t[r] = fold<Fold>(t[r], t[r + half]);
        x = t[0];
      } else {
        x = as_vecs(term(first, c, n...));
        for (int r = 1; r < count; ++r) x = fold<Fold>(x, as_vecs(term(first + r, c, n...)));
      }
      for (int m = 1; m <= merges; ++m) x = fold<Fold>(level[(top - m) * vectors + j], x);
      if (!last) {
        level[(top - merges) * vectors + j] = x;
      } else {
        for (int k = 0; k < K; ++k) x.v[k].store(out[k] + c, n...);
      }
    };
    const int64_t full = width / kLanes;
    for (int64_t j = 0; j < full; ++j) column(j);
    if (full < vectors) column(full, int(width - full * kLanes));
    top += 1 - merges;
  }
}

// Values of dtype t as A, and back, starting at element `at`. converted() gives the values themselves where they are A
// already, and null for null.
template <class A> __attribute__((noinline)) void load_converted(A* dst, const void* src, DType t, int64_t n) {
  if (src) visit_float(t, [&](auto tag) { convert(dst, static_cast<const typename decltype(tag)::type*>(src), n); });
}
template <class A>
__attribute__((noinline)) void store_converted(void* dst, DType t, int64_t at, const A* src, int64_t n) {
  visit_any(t, [&](auto tag) { convert(static_cast<typename decltype(tag)::type*>(dst) + at, src, n); });
}
template <class A> TW_INLINE const A* converted(const void* src, DType t, int64_t n, A* buffer) {
  if (!src || t == dtype_of<A>) return static_cast<const A*>(src);
  load_converted(buffer, src, t, n);
  return buffer;
}

// Mean and sum of squared deviations of `count` values, kept in double: one a block of thousands of values.
struct Moments {
  double count, mean, m2;
  TW_INLINE void join(const Moments& b) {
    if (b.count == 0) return;
    const double total = count + b.count, delta = b.mean - mean;
    mean += delta * (b.count / total);
    m2 += b.m2 + delta * delta * (count * (b.count / total));
    count = total;
  }
};

// Two passes over a row that stays in cache. The sum of deviations, 0 but for the rounding of the mean, corrects both.
template <class A, class S, int V> TW_INLINE Moments short_moments(const S* x, int64_t n) {
  const int tail = int(n - (V - 1) * Vec<A>::kLanes);
  Vec<A> v[V], q[V];
  load_row(x, tail, v);
  const A mean = sum_vectors(v) / A(n);
  for (int i = 0; i < V; ++i) v[i] = v[i] - Vec<A>(mean);
  v[V - 1] = first_lanes<SumFold>(as_vecs(v[V - 1]), tail).v[0];
  for (int i = 0; i < V; ++i) q[i] = v[i] * v[i];
  const double off = double(sum_vectors(v)), shift = off / double(n), m2 = double(sum_vectors(q)) - off * shift;
  return {double(n), double(mean) + shift, m2 < 0 ? 0 : m2};
}
template <class A, class S> __attribute__((noinline)) Moments row_moments(const S* x, int64_t n) {
  if (registers_of<A>(n) <= kRegisters) {
    Moments m;
    visit_count(registers_of<A>(n), [&](auto v) { m = short_moments<A, S, decltype(v)::value>(x, n); });
    return m;
  }
  const A mean = sum_row(n, [&](int64_t i, auto... c) { return load_as<A>(x + i, c...); }).v[0] / A(n);
  const auto d = sum_row(n, [&](int64_t i, auto... c) {
    const Vec<A> e = load_as<A>(x + i, c...) - Vec<A>(mean);
    return Vecs<A, 2>{{e, e * e}};
  });
  const double shift = double(d.v[0]) / double(n), m2 = double(d.v[1]) - double(d.v[0]) * shift;
  return {double(n), double(mean) + shift, m2 < 0 ? 0 : m2};
}

// Rows of a block whose moments column_moments takes: small enough to stay in cache for the second pass.
TW_INLINE int64_t column_moments_rows(int64_t width) { return greatest(128, kPieceElements / least(width, kStrip)); }

// The same for each of `width` <= kStrip columns of `rows` rows, `stride` elements apart. Uses scratch slots 1 and 2.
template <class A, class S>
__attribute__((noinline)) void column_moments(const S* x, int64_t rows, int64_t stride, int64_t width, Moments* out) {
  A* mean = static_cast<A*>(scratch(2, size_t(3 * kStrip) * sizeof(A)));
  A* sums[1] = {mean};
  fold_columns<SumFold, A, 1>(
      rows, width, 1, [&](int64_t r, int64_t c, auto... n) { return load_as<A>(x + r * stride + c, n...); }, sums);
  for (int64_t c = 0; c < width; ++c) mean[c] /= A(rows);
  A* d[2] = {mean + kStrip, mean + 2 * kStrip};
  fold_columns<SumFold, A, 2>(
      rows, width, 1,
      [&](int64_t r, int64_t c, auto... n) {
        const Vec<A> e = load_as<A>(x + r * stride + c, n...) - Vec<A>::load(mean + c, n...);
        return Vecs<A, 2>{{e, e * e}};
      },
      d);
  for (int64_t c = 0; c < width; ++c) {
    const double shift = double(d[0][c]) / double(rows), m2 = double(d[1][c]) - double(d[0][c]) * shift;
    out[c] = {double(rows), double(mean[c]) + shift, m2 < 0 ? 0 : m2};
  }
}

}  // namespace tw::TW_ISA
