// Reductions over the middle dimension of contiguous (outer, n, inner) -> (outer, inner), n >= 1.
//
//   sum, prod        any dtype (prod: floats, int64); y = scale * fold. Halves and float32 accumulate in float32,
//                    float64 in float64, bool and integers in int64 (which wraps)
//   amax, amin       any dtype; a NaN anywhere gives NaN
//   any, all         any dtype -> bool; NaN counts as true
//   argmax, argmin   any dtype -> int64; the first of equal values; the first NaN, if there is one
//   var              floats; y = scale * sum of squared deviations, by two passes over blocks that stay in cache, the
//                    blocks joined in float64
//
// inner == 1 runs vectors down the rows (up to 8 registers: as many rows as a register has lanes fold their lanes
// together; below half a register, and for positions and var up to 32 elements, rows are transposed first), inner > 1
// along the inner dimension; rows.h gives the order of the sums and their error bound. A long n is cut into pieces by its
// size alone, whose results are folded by the same tree. A small inner is widened: n rows of `inner` values are folded
// as n / k rows of k * inner, and the k parts folded last.
// amin is amax of opposites, all is "none is 0", truths of floats are read as integers: fewer instances to compile.
// Bytes: x once (var: twice, the second time from cache) + y.
// Of the limit, float32, AVX-512, two cores: 4096 x 4096 rows and all 0.95, columns 0.7 to 0.85 (8 rows of 16 KiB at a
// time; of 2 KiB 0.65 to 0.75; prefetching the next 8 changed nothing; a bare sum of 8 rows reaches 0.95); 1024 x 1024
// sums along rows 0.8, columns 0.65, maxima 0.65 and 0.5 (a NaN costs two instructions a register); rows of 16: 0.4,
// bound by shuffles. Transposed input is copied first: rows and columns are summed in different orders.
#include "kernels/cpu/rows.h"
#include "kernels/cpu/transpose.h"

namespace tw::TW_ISA {
namespace {

struct ProdFold {
  template <class A> static constexpr A kIdentity = A(1);
  template <class V> TW_INLINE V operator()(V a, V b) const { return a * b; }
};
struct AnyFold {
  template <class A> static constexpr A kIdentity = A(0);
  template <class V> TW_INLINE V operator()(V a, V b) const { return a | b; }
};
// What a fold does to values as it reads them, so that one instance serves amax and amin, or any and all.
struct Mode {
  bool flip;          // extremes: values are read as their opposites (-x, or ~x); truths: whether they are 0
  int64_t mask = -1;  // truths: the bits that count (not a float's sign)
};

// How elements become the accumulator's lanes.
struct SumTraits {
  template <class S> struct Acc {
    using type = int64_t;
  };
  template <class S, class A, class... N> static TW_INLINE Vec<A> load(const Mode&, const S* p, N... n) {
    return load_as<A>(p, n...);
  }
};
template <> struct SumTraits::Acc<float16> {
  using type = float;
};
template <> struct SumTraits::Acc<bfloat16> {
  using type = float;
};
template <> struct SumTraits::Acc<float> {
  using type = float;
};
template <> struct SumTraits::Acc<double> {
  using type = double;
};

template <class A> TW_INLINE Vec<A> flipped(const Mode& m, Vec<A> x) {
  const Mask<A> all = typename IntOf<A>::type(m.flip ? kIsFloat<A> ? kSignBit<A> : -1 : 0);
  if constexpr (kIsFloat<A>) return from_bits(bits(x) ^ all);
  else return x ^ all;
}

struct ExtremumTraits {
  template <class S> struct Acc {
    using type = int32_t;
  };
  template <class S, class A, class... N> static TW_INLINE Vec<A> load(const Mode& m, const S* p, N... n) {
    return flipped(m, load_as<A>(p, n...));
  }
};
template <> struct ExtremumTraits::Acc<int64_t> {
  using type = int64_t;
};
template <> struct ExtremumTraits::Acc<float16> {
  using type = float;
};
template <> struct ExtremumTraits::Acc<bfloat16> {
  using type = float;
};
template <> struct ExtremumTraits::Acc<float> {
  using type = float;
};
template <> struct ExtremumTraits::Acc<double> {
  using type = double;
};

struct TruthTraits {  // lanes of 0 or -1; floats come as integers of their width
  template <class S> struct Acc {
    using type = int32_t;
  };
  template <class S, class A, class... N> static TW_INLINE Vec<A> load(const Mode& m, const S* p, N... n) {
    return ((load_as<A>(p, n...) & Vec<A>(A(m.mask))) != Vec<A>(0)) ^ Vec<A>(A(m.flip ? -1 : 0));
  }
};
template <> struct TruthTraits::Acc<int64_t> {
  using type = int64_t;
};

// The inner loops, one of each a fold and storage type. What drives them is compiled once an accumulator type, and
// calls them through pointers: inlined into it, they made the library several times larger.
template <class A> using FoldRow = A (*)(const Mode& m, const void* x, int64_t n);
template <class A>
using FoldStrip = void (*)(const Mode& m, const void* x, int64_t rows, int64_t stride, int64_t width, A* y);

template <class Fold, class Traits, class S, class A> A row_of(const Mode& m, const void* x, int64_t n) {
  return fold_row<Fold>(
             n,
             [&](int64_t i, auto... c) { return Traits::template load<S, A>(m, static_cast<const S*>(x) + i, c...); })
      .v[0];
}

// Lane l: what the lanes of row[first + l step] fold to, for kCount rows; their halves meet, as in reduce_lanes, but two
// rows' at a time, in alternating lanes.
template <class Fold, int kCount, class A> TW_INLINE Vec<A> fold_lanes(const Vec<A>* row, int first = 0, int step = 1) {
  if constexpr (kCount == 1) {
    return row[first];
  } else {
    constexpr int kLanes = Vec<A>::kLanes;
    const Vec<A> a = fold_lanes<Fold, kCount / 2>(row, first, 2 * step);
    const Vec<A> b = fold_lanes<Fold, kCount / 2>(row, first + step, 2 * step);
    typename Mask<A>::Native low = {};
    for (int l = 0; l < kLanes; ++l) low[l] = typename IntOf<A>::type(l / 2 + l % 2 * kLanes);
    const Vec<A> x = (typename Vec<A>::Native)__builtin_shuffle(a.v, b.v, low);
    return Fold()(x, Vec<A>((typename Vec<A>::Native)__builtin_shuffle(a.v, b.v, low + kLanes / 2)));
  }
}

// Rows of half a register to kFewRegisters: what fold_row sets up, or a transposition, would take longer.
constexpr int64_t kFewRegisters = 8;
template <class A> using FoldFew = void (*)(const Mode& m, const void* x, int64_t rows, int64_t n, A* y);
template <class Fold, class Traits, class S, class A>
void few_of(const Mode& m, const void* x, int64_t rows, int64_t n, A* y) {
  constexpr int kLanes = Vec<A>::kLanes;
  Vec<A> acc[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    const S* p = static_cast<const S*>(x) + least(r, rows - 1) * n;
    const auto part = [&](int64_t i) {
      if (n - i >= kLanes) return Traits::template load<S, A>(m, p + i);
      return first_lanes<Fold>(as_vecs(Traits::template load<S, A>(m, p + i, int(n - i))), int(n - i)).v[0];
    };
    acc[r] = part(0);
    for (int64_t i = kLanes; i < n; i += kLanes) acc[r] = Fold()(acc[r], part(i));
  }
  const Vec<A> all = fold_lanes<Fold, kLanes>(static_cast<const Vec<A>*>(acc));
  if (rows >= kLanes) all.store(y);
  else all.store(y, int(rows));
}
template <class Fold, class Traits, class S, class A>
void strip_of(const Mode& m, const void* x, int64_t rows, int64_t stride, int64_t width, A* y) {
  A* out[1] = {y};
  fold_columns<Fold, A, 1>(
      rows, width, 1,
      [&](int64_t r, int64_t c, auto... n) {
        return Traits::template load<S, A>(m, static_cast<const S*>(x) + r * stride + c, n...);
      },
      out);
}

// y[at + i] = scale * v[i] in y's dtype, flipped values turned back.
template <class A>
__attribute__((noinline)) void write_results(const ReduceArgs& a, const Mode& m, int64_t at, A* v, int64_t n) {
  if (m.flip)
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (kIsFloat<A>) v[i] = -v[i];
      else v[i] = ~v[i];
    }
  if constexpr (kIsFloat<A>) {
    if (a.scale != 1)
      for (int64_t i = 0; i < n; ++i) v[i] = A(double(v[i]) * a.scale);
  }
  if (a.y_dtype == DType::kBool) convert(static_cast<bool*>(a.y) + at, const_cast<const A*>(v), n);
  else store_converted(a.y, a.y_dtype, at, const_cast<const A*>(v), n);
}

TW_INLINE const void* element(const ReduceArgs& a, int64_t i) {
  return static_cast<const char*>(a.x) + i * int64_t(itemsize(a.x_dtype));
}

constexpr int64_t kResults = 64;  // results gathered before they are written

template <class A> void reduce_rows(const ReduceArgs& a, const Mode& m, FoldRow<A> row, FoldRow<A> row_of_parts) {
  const int64_t n = a.n, parts = ceil_div(n, kPieceElements);
  A* partial = nullptr;
  if (parts > 1) {
    partial = static_cast<A*>(scratch(0, size_t(a.outer * parts) * sizeof(A)));
    parallel_for(a.outer * parts, [&](int64_t i) {
      const int64_t start = i % parts * kPieceElements;
      partial[i] = row(m, element(a, i / parts * n + start), least(kPieceElements, n - start));
    });
  }
  parallel_ranges(a.outer, greatest(1, kPieceElements / least(n, kPieceElements)), [&](int64_t begin, int64_t end) {
    A result[kResults];
    for (int64_t o = begin; o < end; o += kResults) {
      const int64_t count = least(kResults, end - o);
      for (int64_t i = 0; i < count; ++i)
        result[i] = partial ? row_of_parts(m, partial + (o + i) * parts, parts) : row(m, element(a, (o + i) * n), n);
      write_results(a, m, o, result, count);
    }
  });
}

template <class Fold, class A>
void reduce_columns(const ReduceArgs& a, const Mode& m, FoldStrip<A> strip, FoldStrip<A> strip_of_parts) {
  constexpr int64_t kWide = 64;
  const int64_t inner = a.inner;
  const int64_t widen = inner >= kWide ? 1 : least(a.n, kWide / inner);
  const int64_t width = widen * inner, rows = a.n / widen, rest = (a.n - rows * widen) * inner;  // of one outer
  const int64_t part = greatest(128, kPieceElements / least(width, kStrip)), parts = ceil_div(rows, part);
  // As wide as leaves enough pieces: longer runs of a row are what prefetchers follow.
  const int64_t wide = (a.outer * parts >= 8 ? 8 : 1) * kStrip, strips = ceil_div(width, wide);
  A* partial = nullptr;
  if (parts > 1) {  // (outer, parts, width)
    partial = static_cast<A*>(scratch(0, size_t(a.outer * parts * width) * sizeof(A)));
    parallel_for(a.outer * parts * strips, [&](int64_t i) {
      const int64_t c = i % strips * wide, p = i / strips % parts, o = i / strips / parts;
      strip(m, element(a, (o * a.n + p * part * widen) * inner + c), least(part, rows - p * part), width,
            least(wide, width - c), partial + (o * parts + p) * width + c);
    });
  }
  const int64_t work = least(kPieceElements, partial ? parts * width : a.n * inner);
  const int64_t grain = greatest(1, kPieceElements / greatest(1, work / strips));
  parallel_ranges(a.outer * strips, grain, [&](int64_t begin, int64_t end) {
    A* result = static_cast<A*>(scratch(2, size_t(2 * wide) * sizeof(A)));
    A* tail = result + wide;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t o = i / strips, c = i % strips * wide, count = least(wide, width - c);
      if (partial) strip_of_parts(m, partial + o * parts * width + c, parts, width, count, result);
      else strip(m, element(a, o * a.n * inner + c), rows, width, count, result);
      if (rest > 0) {  // a single strip, widened: the rows left over count as the first of its parts
        strip(m, element(a, (o * a.n + rows * widen) * inner), 1, width, rest, tail);
        for (int64_t k = 0; k < rest; ++k) result[k] = Fold()(result[k], tail[k]);
      }
      for (int64_t k = widen; k > 1; k = (k + 1) / 2) {  // the second half of the parts into the first
        const int64_t half = (k + 1) / 2 * inner;
        for (int64_t j = half; j < k * inner; ++j) result[j - half] = Fold()(result[j - half], result[j]);
      }
      write_results(a, m, o * inner + c, result, least(count, inner));
    }
  });
}

// Rows of at most kShortRow: a block of them is transposed, and folded as columns, a lane a row.
constexpr int64_t kShortRow = 32;
template <class S, class A> void reduce_short_rows(const ReduceArgs& a, const Mode& m, FoldStrip<A> strip) {
  parallel_ranges(a.outer, kPieceElements / kShortRow, [&](int64_t begin, int64_t end) {
    alignas(64) S turned[kShortRow * kResults];
    A result[kResults];
    for (int64_t o = begin; o < end; o += kResults) {
      const int64_t count = least(kResults, end - o);
      transpose_rows(turned, static_cast<const S*>(a.x) + o * a.n, count, a.n);
      strip(m, turned, a.n, count, count, result);
      write_results(a, m, o, result, count);
    }
  });
}

template <class A> void reduce_few(const ReduceArgs& a, const Mode& m, FoldFew<A> few) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  parallel_ranges(a.outer, greatest(kResults, kPieceElements / a.n / kResults * kResults),
                  [&](int64_t begin, int64_t end) {
                    A result[kResults];
                    for (int64_t o = begin; o < end; o += kResults) {
                      const int64_t count = least(kResults, end - o);
                      for (int64_t i = 0; i < count; i += kLanes)
                        few(m, element(a, (o + i) * a.n), least(kLanes, count - i), a.n, result + i);
                      write_results(a, m, o, result, count);
                    }
                  });
}

template <class Fold, class Traits, class S> void reduce_of(const ReduceArgs& a, const Mode& m = {}) {
  using A = typename Traits::template Acc<S>::type;
  constexpr int64_t kLanes = Vec<A>::kLanes;
  if (a.inner == 1 && a.n >= kLanes / 2 && a.n <= kFewRegisters * kLanes)
    reduce_few<A>(a, m, few_of<Fold, Traits, S, A>);
  else if (a.inner == 1 && a.n <= kShortRow) reduce_short_rows<S, A>(a, m, strip_of<Fold, Traits, S, A>);
  else if (a.inner == 1) reduce_rows<A>(a, m, row_of<Fold, Traits, S, A>, row_of<Fold, SumTraits, A, A>);
  else reduce_columns<Fold, A>(a, m, strip_of<Fold, Traits, S, A>, strip_of<Fold, SumTraits, A, A>);
}

void truth(const ReduceArgs& a, bool flip) {
  const int bits = 8 * int(itemsize(a.x_dtype));
  const Mode m{flip, is_float(a.x_dtype) ? (int64_t(1) << (bits - 1)) - 1 : -1};
  switch (bits) {
    case 8: return reduce_of<AnyFold, TruthTraits, uint8_t>(a, m);
    case 16: return reduce_of<AnyFold, TruthTraits, int16_t>(a, m);
    case 32: return reduce_of<AnyFold, TruthTraits, int32_t>(a, m);
    default: return reduce_of<AnyFold, TruthTraits, int64_t>(a, m);
  }
}

// The best value so far and where it was met.
template <class A> struct Pick {
  A value;
  int64_t at;
};

// Finds the best block first, and then the place in it.
template <class A> using PickRow = Pick<A> (*)(const Mode& m, const void* x, int64_t n);
template <class A>
using PickColumns = void (*)(const Mode& m, const void* x, int64_t n, int64_t inner, int lanes, Vec<A>* value,
                             Mask<A>* at);

template <class Fold, class S, class A> Pick<A> pick_in_row(const Mode& mode, const void* source, int64_t n) {
  const S* x = static_cast<const S*>(source);
  constexpr int64_t kBlock = 2048, kLanes = Vec<A>::kLanes;
  Pick<A> best{A(0), -1};
  for (int64_t start = 0; start < n; start += kBlock) {
    const S* p = x + start;
    const A m = fold_row<Fold>(least(kBlock, n - start), [&](int64_t i, auto... c) {
                  return flipped(mode, load_as<A>(p + i, c...));
                }).v[0];
    if (best.at < 0 || Fold::beats(m, best.value)) best = {m, start};
  }
  const bool nan = best.value != best.value;
  for (int64_t i = best.at;; i += kLanes) {
    const int count = int(least(kLanes, n - i));
    const Vec<A> v = flipped(mode, count == kLanes ? load_as<A>(x + i) : load_as<A>(x + i, count));
    const auto hit = nan ? v != v : v == Vec<A>(best.value);
    if (!any(hit)) continue;
    for (int j = 0; j < kLanes; ++j)
      if (hit[j]) return {best.value, i + j};
  }
}

template <class Fold, class A> void pick_rows(const ReduceArgs& a, const Mode& m, PickRow<A> row) {
  int64_t* y = static_cast<int64_t*>(a.y);
  const int64_t n = a.n, parts = ceil_div(n, kPieceElements);
  if (parts == 1)
    return parallel_ranges(a.outer, greatest(1, kPieceElements / n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) y[o] = row(m, element(a, o * n), n).at;
    });
  Pick<A>* partial = static_cast<Pick<A>*>(scratch(0, size_t(a.outer * parts) * sizeof(Pick<A>)));
  parallel_for(a.outer * parts, [&](int64_t i) {
    const int64_t start = i % parts * kPieceElements;
    partial[i] = row(m, element(a, i / parts * n + start), least(kPieceElements, n - start));
    partial[i].at += start;
  });
  for (int64_t o = 0; o < a.outer; ++o) {
    Pick<A> best = partial[o * parts];
    for (int64_t p = 1; p < parts; ++p)
      if (Fold::beats(partial[o * parts + p].value, best.value)) best = partial[o * parts + p];
    y[o] = best.at;
  }
}

// Values and positions of one register of columns over rows [0, n); n stays below 2^31, so that positions fit lanes.
template <class Fold, class S, class A>
void pick_in_columns(const Mode& m, const void* source, int64_t n, int64_t inner, int lanes, Vec<A>* value,
                     Mask<A>* at) {
  using I = typename IntOf<A>::type;
  const S* x = static_cast<const S*>(source);
  auto walk = [&](auto... count) __attribute__((always_inline)) {
    Vec<A> best = flipped(m, load_as<A>(x, count...));
    Mask<A> place = Mask<A>(I(0));
    for (int64_t r = 1; r < n; ++r) {
      const Vec<A> v = flipped(m, load_as<A>(x + r * inner, count...));
      const Mask<A> better = Fold::beats(v, best);
      best = select(better, v, best);
      place = select(better, Mask<A>(I(r)), place);
    }
    *value = best;
    *at = place;
  };
  if (lanes == Vec<A>::kLanes) walk();
  else walk(lanes);
}

template <class Fold, class A> void pick_columns(const ReduceArgs& a, const Mode& m, PickColumns<A> columns) {
  constexpr int kLanes = Vec<A>::kLanes;
  int64_t* y = static_cast<int64_t*>(a.y);
  const int64_t inner = a.inner, vectors = ceil_div(inner, kLanes);
  const int64_t part = greatest(128, kPieceElements / least(inner, kStrip)), parts = ceil_div(a.n, part);
  const int64_t strip = kStrip / kLanes, strips = ceil_div(vectors, strip);
  // Without parts the pieces write y themselves; with them, values and positions meet in scratch memory.
  const size_t cells = parts > 1 ? size_t(a.outer * parts * inner) : 0;
  Pick<A>* partial = static_cast<Pick<A>*>(scratch(0, cells * sizeof(Pick<A>)));
  const int64_t cost = least(part, a.n) * least(inner, kStrip);
  parallel_ranges(a.outer * parts * strips, greatest(1, kPieceElements / cost), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i % strips, p = i / strips % parts, o = i / strips / parts, row = p * part;
      const int64_t count = least(part, a.n - row);
      for (int64_t j = s * strip; j < least(vectors, (s + 1) * strip); ++j) {
        const int64_t c = j * kLanes;
        const int lanes = int(least(kLanes, inner - c));
        Vec<A> value;
        Mask<A> at;
        columns(m, element(a, (o * a.n + row) * inner + c), count, inner, lanes, &value, &at);
        for (int l = 0; l < lanes; ++l) {
          if (parts > 1) partial[(o * parts + p) * inner + c + l] = {value[l], row + at[l]};
          else y[o * inner + c + l] = at[l];
        }
      }
    }
  });
  for (int64_t o = 0; parts > 1 && o < a.outer; ++o) {
    Pick<A>* best = partial + o * parts * inner;
    for (int64_t p = 1; p < parts; ++p) {
      const Pick<A>* next = best + p * inner;
      for (int64_t c = 0; c < inner; ++c)
        if (Fold::beats(next[c].value, best[c].value)) best[c] = next[c];
    }
    for (int64_t c = 0; c < inner; ++c) y[o * inner + c] = best[c].at;
  }
}

template <class S, class A> void pick_short_rows(const ReduceArgs& a, const Mode& m, PickColumns<A> columns) {
  constexpr int kLanes = Vec<A>::kLanes;
  int64_t* y = static_cast<int64_t*>(a.y);
  parallel_ranges(a.outer, kPieceElements / kShortRow, [&](int64_t begin, int64_t end) {
    alignas(64) S turned[kShortRow * kResults];
    for (int64_t o = begin; o < end; o += kResults) {
      const int64_t count = least(kResults, end - o);
      transpose_rows(turned, static_cast<const S*>(a.x) + o * a.n, count, a.n);
      for (int64_t c = 0; c < count; c += kLanes) {
        const int lanes = int(least(kLanes, count - c));
        Vec<A> value;
        Mask<A> at;
        columns(m, turned + c, a.n, count, lanes, &value, &at);
        store_as(y + o + c, at, lanes);
      }
    }
  });
}

void pick(const ReduceArgs& a, bool flip) {
  const Mode m{flip};
  visit_any(a.x_dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = typename ExtremumTraits::Acc<S>::type;
    if (a.inner == 1 && a.n <= kShortRow) pick_short_rows<S, A>(a, m, pick_in_columns<MaxFold, S, A>);
    else if (a.inner == 1) pick_rows<MaxFold, A>(a, m, pick_in_row<MaxFold, S, A>);
    else pick_columns<MaxFold, A>(a, m, pick_in_columns<MaxFold, S, A>);
  });
}

// Rows of at most kShortRow, a lane a row.
template <class S, class A> void var_of_short_rows(const ReduceArgs& a) {
  constexpr int kLanes = Vec<A>::kLanes;
  parallel_ranges(a.outer, kPieceElements / kShortRow, [&](int64_t begin, int64_t end) {
    alignas(64) S turned[kShortRow * kResults];
    A result[kResults];
    for (int64_t o = begin; o < end; o += kResults) {
      const int64_t count = least(kResults, end - o);
      transpose_rows(turned, static_cast<const S*>(a.x) + o * a.n, count, a.n);
      for (int64_t c = 0; c < count; c += kLanes) {
        const int lanes = int(least(kLanes, count - c));
        const A n = A(a.n);
        Vec<A> sum = A(0), slip = A(0), m2 = A(0);
        for (int64_t i = 0; i < a.n; ++i) sum += load_as<A>(turned + i * count + c, lanes);
        const Vec<A> mean = sum / Vec<A>(n);
        for (int64_t i = 0; i < a.n; ++i) {
          const Vec<A> d = load_as<A>(turned + i * count + c, lanes) - mean;
          slip += d;
          m2 += d * d;
        }
        m2 = m2 - slip * (slip / Vec<A>(n));
        select(m2 < Vec<A>(0), Vec<A>(0), m2).store(result + c, lanes);
      }
      write_results(a, Mode{}, o, result, count);
    }
  });
}

template <class S> void var_of(const ReduceArgs& a) {
  using A = typename FloatOf<S>::type;
  const S* x = static_cast<const S*>(a.x);
  auto write = [&](int64_t at, double m2) {
    const A v = A(m2 * a.scale);
    store_converted(a.y, a.y_dtype, at, &v, 1);
  };
  if (a.inner == 1 && a.n <= kShortRow) return var_of_short_rows<S, A>(a);
  if (a.inner == 1) {
    const int64_t n = a.n, parts = ceil_div(n, kPieceElements);
    Moments* partial = static_cast<Moments*>(scratch(0, size_t(parts > 1 ? a.outer * parts : 0) * sizeof(Moments)));
    if (parts > 1)
      parallel_for(a.outer * parts, [&](int64_t i) {
        const int64_t start = i % parts * kPieceElements;
        partial[i] = row_moments<A>(x + i / parts * n + start, least(kPieceElements, n - start));
      });
    return parallel_ranges(a.outer, greatest(1, kPieceElements / n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        Moments m = parts > 1 ? partial[o * parts] : row_moments<A>(x + o * n, n);
        for (int64_t p = 1; p < parts; ++p) m.join(partial[o * parts + p]);
        write(o, m.m2);
      }
    });
  }
  const int64_t inner = a.inner, strips = ceil_div(inner, kStrip);
  const int64_t part = column_moments_rows(inner), parts = ceil_div(a.n, part);
  Moments* cells = static_cast<Moments*>(scratch(0, size_t(a.outer * parts * inner) * sizeof(Moments)));
  const int64_t cost = least(part, a.n) * least(inner, kStrip);
  parallel_ranges(a.outer * parts * strips, greatest(1, kPieceElements / cost), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % strips * kStrip, p = i / strips % parts, o = i / strips / parts;
      column_moments<A>(x + (o * a.n + p * part) * inner + c, least(part, a.n - p * part), inner,
                        least(kStrip, inner - c), cells + (o * parts + p) * inner + c);
    }
  });
  parallel_ranges(a.outer * inner, greatest(1, kPieceElements / (8 * parts)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Moments* m = cells + i / inner * parts * inner + i % inner;
      Moments all = m[0];
      for (int64_t p = 1; p < parts; ++p) all.join(m[p * inner]);
      write(i, all.m2);
    }
  });
}

void amax_of(const ReduceArgs& a, bool flip) {
  visit_any(a.x_dtype,
            [&](auto tag) { reduce_of<MaxFold, ExtremumTraits, typename decltype(tag)::type>(a, Mode{flip}); });
}

}  // namespace

void sum(const ReduceArgs& a) {
  visit_any(a.x_dtype, [&](auto tag) { reduce_of<SumFold, SumTraits, typename decltype(tag)::type>(a); });
}
void prod(const ReduceArgs& a) {
  if (a.x_dtype == DType::kInt64) return reduce_of<ProdFold, SumTraits, int64_t>(a);
  visit_float(a.x_dtype, [&](auto tag) { reduce_of<ProdFold, SumTraits, typename decltype(tag)::type>(a); });
}
void amax(const ReduceArgs& a) { amax_of(a, false); }
void amin(const ReduceArgs& a) { amax_of(a, true); }
void any(const ReduceArgs& a) { truth(a, false); }
void all(const ReduceArgs& a) { truth(a, true); }
void argmax(const ReduceArgs& a) { pick(a, false); }
void argmin(const ReduceArgs& a) { pick(a, true); }
void var(const ReduceArgs& a) {
  visit_float(a.x_dtype, [&](auto tag) { var_of<typename decltype(tag)::type>(a); });
}

}  // namespace tw::TW_ISA
