// Pooling over windows of (planes, D, H, W), one to three of them of size 1: maximum and average, plain and adaptive,
// forward and backward. float32, float64, and float16/bfloat16 through float32 registers and rows.
//
// max: y = max of the window's items inside the plane, NaN if any is; indices = position in the plane: the first
// maximum (the last NaN) of the window in row order. avg: y = sum(window) / divisor. Adaptive windows are uneven.
// Method: the rows of a window are folded into one row of the plane's width, whole vectors along the row; then its
// columns are folded from that row (in L1, with margins that hold the fold's identity) at stride 1 or 2 by vectors,
// else item by item. So a column tie between rows is decided first, and the second fold compares positions.
// Sums: rows in order, then columns in order; error at most (window items + 1) ulp of the mean magnitude, which the op
// table's rows measure; max is exact.
// Backward writes dx whole. avg: gathers the rows of dy whose windows hold a row of dx, then its columns, by vectors.
// max: where windows neither meet nor leave gaps two columns wide, each item asks its one window whether it was chosen;
// else dy is added at the indices, plane by plane in the order of the outputs, so sums have a fixed order.
// Bytes: x and y once, plus indices (int32 when only the gradient reads them). On two cores whose copies run at 37 to
// 51 GB/s, 2x2 and 3x3 windows of float32 planes of 56 and 112 columns reach 28 to 34 GB/s forward and 20 to 25 with
// the backward; short rows, whose last vector is part empty, cost the rest. Uneven adaptive windows fold their columns
// one by one and reach 5 to 20 GB/s.
#include "kernels/cpu/rows.h"
#include "kernels/windows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // items of the plane that a piece reads: enough to be worth waking a thread

// The outputs whose windows (of step 1) hold item i.
TW_INLINE Steps holders(const PoolArgs& a, int axis, int64_t i) {
  const int64_t n = a.in[axis], out = a.out[axis];
  if (n == 1 && out == 1) return {0, 1, 1};
  if (a.adaptive) return {i * out / n, ceil_div((i + 1) * out, n), 1};
  const int64_t at = i + a.pad[axis], s = a.stride[axis];
  return {at < a.k[axis] ? 0 : (at - a.k[axis]) / s + 1, least(out, at / s + 1), 1};
}

template <class T> using Position = typename IntOf<T>::type;  // as wide as T
constexpr int64_t kNowhere = 1 << 30;                         // the margins' position: behind every item of a plane

// Every kStride-th lane from p on. kStride lanes times the vector's length must be readable.
template <int kStride, class T> TW_INLINE Vec<T> load_every(const T* p) {
  constexpr int kLanes = Vec<T>::kLanes;
  if constexpr (kStride == 1) {
    return Vec<T>::load(p);
  } else {
    typename Mask<T>::Native even = {};
    for (int l = 0; l < kLanes; ++l) even[l] = Position<T>(2 * l);
    return (typename Vec<T>::Native)__builtin_shuffle(Vec<T>::load(p).v, Vec<T>::load(p + kLanes).v, even);
  }
}

// Writes even[0], odd[0], even[1], odd[1], ...: the first n items.
template <class S, class T> TW_INLINE void store_interleaved(S* p, Vec<T> even, Vec<T> odd, int64_t n) {
  constexpr int kLanes = Vec<T>::kLanes;
  typename Mask<T>::Native low = {}, high = {};
  for (int l = 0; l < kLanes; ++l) {
    low[l] = Position<T>(l / 2 + l % 2 * kLanes);
    high[l] = Position<T>(low[l] + kLanes / 2);
  }
  const Vec<T> a = (typename Vec<T>::Native)__builtin_shuffle(even.v, odd.v, low);
  const Vec<T> b = (typename Vec<T>::Native)__builtin_shuffle(even.v, odd.v, high);
  if (n >= 2 * kLanes) {
    store_as(p, a);
    return store_as(p + kLanes, b);
  }
  store_as(p, a, int(least(n, kLanes)));
  if (n > kLanes) store_as(p + kLanes, b, int(n - kLanes));
}

// A row of a plane with margins on both sides, wide enough for every vector that the second fold loads.
struct Margins {
  int64_t left, size;
  template <class T> static Margins of(const PoolArgs& a) {
    constexpr int64_t kLanes = Vec<T>::kLanes;
    if (a.adaptive) return {0, a.in[2]};
    const int64_t reads = (ceil_div(a.out[2], kLanes) + 1) * kLanes * a.stride[2] + (a.k[2] - 1) * a.dilation[2];
    return {a.pad[2], a.pad[2] + greatest(a.in[2], reads)};
  }
};

// The windows of a row's outputs, or the outputs that hold its items, in scratch memory: found once a piece, because
// they take divisions.
template <class Find> TW_INLINE const Steps* spans(int64_t n, const Find& find) {
  Steps* s = static_cast<Steps*>(scratch(2, size_t(n) * sizeof(Steps)));
  for (int64_t i = 0; i < n; ++i) s[i] = find(i);
  return s;
}

template <class T> TW_INLINE void fill_row(T* p, T value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// body(x's plane, output row's number in the plane (d, h), where the row's outputs begin) for each output row.
template <class S, class Setup, class Body>
void for_rows(const PoolArgs& a, const int64_t* rows, const Setup& setup, const Body& body) {
  const int64_t per_plane = rows[0] * rows[1];
  const int64_t cost = greatest(1, a.in[0] * a.in[1] * a.in[2] / per_plane);
  parallel_ranges(a.planes * per_plane, kPiece / cost + 1, [&](int64_t begin, int64_t end) {
    auto state = setup();
    int64_t plane = begin / per_plane, d = begin % per_plane / rows[1], h = begin % rows[1];
    for (int64_t r = begin; r < end; ++r) {
      body(state, plane, d, h, r);
      if (++h < rows[1]) continue;
      h = 0;
      if (++d < rows[0]) continue;
      d = 0;
      ++plane;
    }
  });
}

// --- maximum --
template <class T> struct MaxRow {
  T* value;            // the plane's width, with margins
  Position<T>* where;  // the first item of the row that a column's maximum stands in
  T* best;             // of the outputs, where they come item by item
  Position<T>* at;
  const Steps* windows;
};

// later: comes after b in row order. Whether a replaces b.
template <class V, class P> TW_INLINE auto replaces(V a, V b, P a_at, P b_at) {
  return (a > b) | ((a == b) & (a_at < b_at)) | ((a != a) & ((b == b) | (a_at > b_at)));
}

template <class T, bool kIndices, class S>
TW_INLINE void max_of_rows(const PoolArgs& a, const S* x, const Steps& d, const Steps& h, const MaxRow<T>& row) {
  using P = Vec<Position<T>>;
  for_row<T>(
      a.in[2], [&](int64_t c, auto... n) __attribute__((always_inline)) {
        Vec<T> best = T(-__builtin_inff());
        P where = Position<T>((d.begin * a.in[1] + h.begin) * a.in[2]);
        for (int64_t i = d.begin; i < d.end; i += d.step)
          for (int64_t j = h.begin; j < h.end; j += h.step) {
            const int64_t first = (i * a.in[1] + j) * a.in[2];
            const Vec<T> v = load_as<T>(x + first + c, n...);
            if constexpr (kIndices) {
              const auto take = (v > best) | (v != v);
              best = select(take, v, best);
              where = select(take, P(Position<T>(first)), where);
            } else {
              best = maximum(best, v);
            }
          }
        best.store(row.value + c, n...);
        if constexpr (kIndices) where.store(row.where + c, n...);
      });
}

template <int kStride, class T, bool kIndices, class S>
TW_INLINE void max_of_columns(const PoolArgs& a, const MaxRow<T>& row, S* y, int64_t out_row) {
  using P = Vec<Position<T>>;
  constexpr int kLanes = Vec<T>::kLanes;
  const P lanes = P::iota() * P(Position<T>(kStride));
  for_row<T>(
      a.out[2], [&](int64_t o, auto... n) __attribute__((always_inline)) {
        Vec<T> best = T(-__builtin_inff());
        P at = Position<T>(INT32_MAX);
        for (int64_t j = 0; j < a.k[2]; ++j) {
          const int64_t c = o * kStride - a.pad[2] + j * a.dilation[2];
          const Vec<T> v = load_every<kStride>(row.value + c);
          if constexpr (kIndices) {
            const P here = load_every<kStride>(row.where + c) + lanes + P(Position<T>(c));
            const auto take = replaces(v, best, here, at);
            best = select(take, v, best);
            at = select(take, here, at);
          } else {
            best = maximum(best, v);
          }
        }
        store_as(y + o, best, n...);
        if constexpr (kIndices) {
          if (a.index_dtype == DType::kInt32) store_as(static_cast<int32_t*>(a.indices) + out_row + o, at, n...);
          else store_as(static_cast<int64_t*>(a.indices) + out_row + o, at, n...);
        }
      });
  static_assert(kLanes > 1);
}

template <class T, bool kIndices, class S>
__attribute__((noinline)) void max_of_spans(const PoolArgs& a, const MaxRow<T>& row, S* y, int64_t out_row) {
  for (int64_t o = 0; o < a.out[2]; ++o) {
    const Steps s = row.windows[o];
    T best = -T(__builtin_inff());
    Position<T> at = INT32_MAX;
    for (int64_t c = s.begin; c < s.end; c += s.step) {
      const T v = row.value[c];
      if constexpr (kIndices) {
        const Position<T> here = row.where[c] + Position<T>(c);
        const bool take = replaces(v, best, here, at);
        best = take ? v : best;
        at = take ? here : at;
      } else {
        best = (v > best) | (v != v) ? v : best;
      }
    }
    row.best[o] = best;
    if constexpr (kIndices) row.at[o] = at;
  }
  convert(y, static_cast<const T*>(row.best), a.out[2]);
  if constexpr (kIndices) {
    const Position<T>* at = row.at;
    if (a.index_dtype == DType::kInt32) convert(static_cast<int32_t*>(a.indices) + out_row, at, a.out[2]);
    else convert(static_cast<int64_t*>(a.indices) + out_row, at, a.out[2]);
  }
}

template <class T, bool kIndices, class S> void max_rows(const PoolArgs& a) {
  const Margins m = Margins::of<T>(a);
  auto setup = [&] {
    T* memory = static_cast<T*>(scratch(0, size_t(2 * (m.size + a.out[2])) * sizeof(T)));
    auto* positions = reinterpret_cast<Position<T>*>(memory + m.size + a.out[2]);
    fill_row(memory, -T(__builtin_inff()), m.size);
    if (kIndices) fill_row(positions, Position<T>(kNowhere), m.size);
    return MaxRow<T>{memory + m.left, positions + m.left, memory + m.size, positions + m.size,
                     spans(a.out[2], [&](int64_t o) { return window(a, 2, o); })};
  };
  const int64_t plane_size = a.in[0] * a.in[1] * a.in[2];
  for_rows<S>(a, a.out, setup, [&](const MaxRow<T>& row, int64_t plane, int64_t d, int64_t h, int64_t r) {
    const S* x = static_cast<const S*>(a.x) + plane * plane_size;
    S* y = static_cast<S*>(a.y) + r * a.out[2];
    max_of_rows<T, kIndices>(a, x, window(a, 0, d), window(a, 1, h), row);
    if (a.adaptive || a.stride[2] > 2) max_of_spans<T, kIndices>(a, row, y, r * a.out[2]);
    else if (a.stride[2] == 1) max_of_columns<1, T, kIndices>(a, row, y, r * a.out[2]);
    else max_of_columns<2, T, kIndices>(a, row, y, r * a.out[2]);
  });
}

// Windows of two columns side by side: each item belongs to one window.
TW_INLINE bool are_pairs(const PoolArgs& a) {
  bool apart = !a.adaptive && a.k[2] == 2 && a.stride[2] == 2 && a.pad[2] == 0;
  for (int axis = 0; axis < 3; ++axis) apart &= a.stride[axis] >= a.k[axis] && a.dilation[axis] == 1;
  return apart;
}

template <class T, class S, class I> void max_pairs_gradient(const PoolArgs& a) {
  using P = Vec<Position<T>>;
  constexpr int kLanes = Vec<T>::kLanes;
  const int64_t W = a.in[2], ow = a.out[2], pairs = least(ow, W / 2);
  for_rows<S>(
      a, a.in, [] { return 0; },
      [&](int, int64_t plane, int64_t d, int64_t h, int64_t r) {
        S* dx = static_cast<S*>(a.y) + r * W;
        const Steps od = holders(a, 0, d), oh = holders(a, 1, h);
        int64_t done = 0;
        if (od.begin < od.end && oh.begin < oh.end) {
          const int64_t at = ((plane * a.out[0] + od.begin) * a.out[1] + oh.begin) * ow;
          const S* dy = static_cast<const S*>(a.x) + at;
          const I* chosen = static_cast<const I*>(a.indices) + at;
          const int64_t first = (d * a.in[1] + h) * W;
          for_row<T>(
              pairs, [&](int64_t o, auto... n) __attribute__((always_inline)) {
                const Vec<T> g = load_as<T>(dy + o, n...);
                const P which =
                    load_as<Position<T>>(chosen + o, n...) - P::iota() * P(2) - P(Position<T>(first + 2 * o));
                const Vec<T> zero = T(0);
                store_interleaved(dx + 2 * o, select(which == P(0), g, zero), select(which == P(1), g, zero),
                                  2 * least(kLanes, pairs - o));
              });
          done = 2 * pairs;
          if (ow > pairs) {  // ceil_mode: a last window of one column
            dx[W - 1] = chosen[pairs] == I(first + W - 1) ? dy[pairs] : S{};
            done = W;
          }
        }
        fill_row(dx + done, S{}, W - done);
      });
}

template <class T, class S, class I> void max_gradient(const PoolArgs& a) {
  if (are_pairs(a)) return max_pairs_gradient<T, S, I>(a);
  const int64_t x_size = a.in[0] * a.in[1] * a.in[2], y_size = a.out[0] * a.out[1] * a.out[2];
  parallel_ranges(a.planes, kPiece / greatest(x_size, y_size) + 1, [&](int64_t begin, int64_t end) {
    T* sums = nullptr;
    if constexpr (!kSame<T, S>) sums = static_cast<T*>(scratch(0, size_t(x_size) * sizeof(T)));
    for (int64_t p = begin; p < end; ++p) {
      S* dx = static_cast<S*>(a.y) + p * x_size;
      const S* dy = static_cast<const S*>(a.x) + p * y_size;
      const I* at = static_cast<const I*>(a.indices) + p * y_size;
      if constexpr (kSame<T, S>) {
        fill_row(dx, T(0), x_size);
        for (int64_t o = 0; o < y_size; ++o) dx[at[o]] += dy[o];
      } else {
        constexpr int64_t kBlock = 256;
        T block[kBlock];
        fill_row(sums, T(0), x_size);
        for (int64_t o = 0; o < y_size; o += kBlock) {
          const int64_t n = least(kBlock, y_size - o);
          convert(block, dy + o, n);
          for (int64_t i = 0; i < n; ++i) sums[at[o + i]] += block[i];
        }
        convert(dx, static_cast<const T*>(sums), x_size);
      }
    }
  });
}

// --- average --
template <class T> struct AvgRow {
  T* sums;               // the plane's width (forward) or the outputs' (backward), with margins
  T* counts;             // of each output column
  T* means;              // of the outputs, where they come item by item
  const Steps* columns;  // forward: the outputs' windows; backward: the items' holders
};

template <int kStride, class T, class S>
TW_INLINE void avg_of_columns(const PoolArgs& a, const AvgRow<T>& row, T rows, S* y) {
  for_row<T>(
      a.out[2], [&](int64_t o, auto... n) __attribute__((always_inline)) {
        Vec<T> sum = load_every<kStride>(row.sums + o * kStride - a.pad[2]);
        for (int64_t j = 1; j < a.k[2]; ++j) sum += load_every<kStride>(row.sums + o * kStride - a.pad[2] + j);
        store_as(y + o, sum / (Vec<T>(rows) * Vec<T>::load(row.counts + o)), n...);
      });
}

template <class T> TW_INLINE T row_divisor(const PoolArgs& a, int64_t d, int64_t h) {
  return a.divisor != 0 ? T(a.divisor) : T(count(a, 0, d) * count(a, 1, h));
}

// Scratch memory for `size` sums with `left` of margin, and for the outputs' counts and means.
template <class T> AvgRow<T> avg_memory(const PoolArgs& a, int64_t left, int64_t size) {
  const int64_t padded = a.out[2] + Vec<T>::kLanes;
  T* memory = static_cast<T*>(scratch(0, size_t(size + 2 * padded) * sizeof(T)));
  fill_row(memory, T(0), size);
  T* counts = memory + size;
  for (int64_t o = 0; o < padded; ++o) counts[o] = o < a.out[2] ? T(count(a, 2, o)) : T(1);
  return {memory + left, counts, counts + padded, nullptr};
}

// In lanes, so that a long window's error grows with a fraction of its length.
template <class T> TW_INLINE T sum_of_span(const T* x, int64_t n) {
  constexpr int kLanes = Vec<T>::kLanes;
  int64_t i = 0;
  Vec<T> lanes = T(0);
  for (; i + kLanes <= n; i += kLanes) lanes += Vec<T>::load(x + i);
  T rest = 0;
  for (; i < n; ++i) rest += x[i];
  return sum(lanes) + rest;
}

template <class T, class S> void avg_rows(const PoolArgs& a) {
  const Margins m = Margins::of<T>(a);
  const int64_t plane_size = a.in[0] * a.in[1] * a.in[2];
  auto setup = [&] {
    AvgRow<T> row = avg_memory<T>(a, m.left, m.size);
    row.columns = spans(a.out[2], [&](int64_t o) { return window(a, 2, o); });
    return row;
  };
  for_rows<S>(a, a.out, setup, [&](const AvgRow<T>& row, int64_t plane, int64_t d, int64_t h, int64_t r) {
    const S* x = static_cast<const S*>(a.x) + plane * plane_size;
    S* y = static_cast<S*>(a.y) + r * a.out[2];
    const Steps ds = window(a, 0, d), hs = window(a, 1, h);
    for_row<T>(
        a.in[2], [&](int64_t c, auto... n) __attribute__((always_inline)) {
          Vec<T> sum = T(0);
          for (int64_t i = ds.begin; i < ds.end; ++i)
            for (int64_t j = hs.begin; j < hs.end; ++j) sum += load_as<T>(x + (i * a.in[1] + j) * a.in[2] + c, n...);
          sum.store(row.sums + c, n...);
        });
    const T rows = row_divisor<T>(a, d, h);
    if (!a.adaptive && a.stride[2] == 1) return avg_of_columns<1>(a, row, rows, y);
    if (!a.adaptive && a.stride[2] == 2) return avg_of_columns<2>(a, row, rows, y);
    for (int64_t o = 0; o < a.out[2]; ++o) {
      const Steps s = row.columns[o];
      row.means[o] = sum_of_span(row.sums + s.begin, s.end - s.begin) / (rows * row.counts[o]);
    }
    convert(y, static_cast<const T*>(row.means), a.out[2]);
  });
}

// Columns of dx from the shares of the outputs: item phase + m * stride gets the shares of the outputs m + shift - i,
// i = 0 .. taps - 1, where the tap i is the window's item first + i * stride.
struct Phase {
  int64_t shift, taps;
};
TW_INLINE Phase phase_of(const PoolArgs& a, int64_t phase) {
  const int64_t s = a.stride[2], first = (phase + a.pad[2]) % s;
  return {(phase + a.pad[2]) / s, first < a.k[2] ? (a.k[2] - 1 - first) / s + 1 : 0};
}
template <class T> TW_INLINE Vec<T> shares_of(const T* shares, const Phase& p, int64_t m) {
  Vec<T> sum = T(0);
  for (int64_t i = p.taps - 1; i >= 0; --i) sum += Vec<T>::load(shares + m + p.shift - i);
  return sum;
}

template <class T, class S> void avg_gradient(const PoolArgs& a) {
  constexpr int kLanes = Vec<T>::kLanes;
  const int64_t W = a.in[2], ow = a.out[2], s = a.adaptive ? 1 : a.stride[2];
  const int64_t left = a.adaptive ? 0 : a.k[2] / s + 1;
  const int64_t size = left + greatest(ow, W / s) + a.pad[2] / s + 2 * kLanes + 2;
  const int64_t y_size = a.out[0] * a.out[1] * ow;
  struct Memory {
    AvgRow<T> row;
    T* dx;
  };
  auto setup = [&] {
    Memory memory{avg_memory<T>(a, left, size), static_cast<T*>(scratch(1, size_t(W + kLanes) * sizeof(T)))};
    for (int64_t o = 0; o < ow + kLanes; ++o) memory.row.counts[o] = 1 / memory.row.counts[o];
    memory.row.columns = spans(a.adaptive ? W : 0, [&](int64_t c) { return holders(a, 2, c); });
    return memory;
  };
  for_rows<S>(a, a.in, setup, [&](const Memory& memory, int64_t plane, int64_t d, int64_t h, int64_t r) {
    const AvgRow<T>& row = memory.row;
    const S* dy = static_cast<const S*>(a.x) + plane * y_size;
    S* dx = static_cast<S*>(a.y) + r * W;
    const Steps ds = holders(a, 0, d), hs = holders(a, 1, h);
    // One row of dy, as where windows do not meet, goes without the loops round it.
    const bool single = ds.end - ds.begin == 1 && hs.end - hs.begin == 1;
    const T share = single ? 1 / row_divisor<T>(a, ds.begin, hs.begin) : T(0);
    for_row<T>(
        ow, [&](int64_t o, auto... n) __attribute__((always_inline)) {
          Vec<T> sum = T(0);
          if (single) sum = load_as<T>(dy + (ds.begin * a.out[1] + hs.begin) * ow + o, n...) * Vec<T>(share);
          else
            for (int64_t i = ds.begin; i < ds.end; ++i)
              for (int64_t j = hs.begin; j < hs.end; ++j)
                sum += load_as<T>(dy + (i * a.out[1] + j) * ow + o, n...) * Vec<T>(1 / row_divisor<T>(a, i, j));
          (sum * Vec<T>::load(row.counts + o)).store(row.sums + o, n...);
        });
    if (a.adaptive) {
      for (int64_t c = 0; c < W; ++c) {
        const Steps os = row.columns[c];
        T sum = 0;
        for (int64_t o = os.begin; o < os.end; ++o) sum += row.sums[o];
        memory.dx[c] = sum;
      }
      return convert(dx, static_cast<const T*>(memory.dx), W);
    }
    if (s == 1) {
      const Phase p = phase_of(a, 0);
      return for_row<T>(W, [&](int64_t c, auto... n) { store_as(dx + c, shares_of(row.sums, p, c), n...); });
    }
    if (s == 2) {
      const Phase even = phase_of(a, 0), odd = phase_of(a, 1);
      for (int64_t m = 0; 2 * m < W; m += kLanes)
        store_interleaved(dx + 2 * m, shares_of(row.sums, even, m), shares_of(row.sums, odd, m), W - 2 * m);
      return;
    }
    for (int64_t phase = 0; phase < least(s, W); ++phase) {
      const Phase p = phase_of(a, phase);
      for (int64_t m = 0; phase + m * s < W; ++m) {
        T sum = 0;
        for (int64_t i = p.taps - 1; i >= 0; --i) sum += row.sums[m + p.shift - i];
        memory.dx[phase + m * s] = sum;
      }
    }
    convert(dx, static_cast<const T*>(memory.dx), W);
  });
}

}  // namespace

void max_pool(const PoolArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = typename FloatOf<S>::type;
    if (a.indices) max_rows<T, true, S>(a);
    else max_rows<T, false, S>(a);
  });
}
void max_pool_backward(const PoolArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (a.index_dtype == DType::kInt32) max_gradient<typename FloatOf<S>::type, S, int32_t>(a);
    else max_gradient<typename FloatOf<S>::type, S, int64_t>(a);
  });
}
void avg_pool(const PoolArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    avg_rows<typename FloatOf<S>::type, S>(a);
  });
}
void avg_pool_backward(const PoolArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    avg_gradient<typename FloatOf<S>::type, S>(a);
  });
}

}  // namespace tw::TW_ISA
