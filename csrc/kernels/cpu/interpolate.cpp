// Interpolation of (planes, D, H, W), one to three of them of size 1, by separable weights: nearest, linear and cubic
// of any sizes. float32, float64, and float16/bfloat16 through float32.
//
// y[o0, o1, o2] = sum over taps of weight0[t0, o0] weight1[t1, o1] weight2[t2, o2] x[index0[t0, o0], ...]. The tables
// come from csrc/ops/interpolate.cpp; those of the transpose make the gradient a gather too, so that its sums have a
// fixed order and no output is written twice. A tap of weight 0 is not there: it reads nothing that could be NaN.
// Method: the rows that an output row needs are summed into one row of x's width by vectors along it; then the columns
// are picked from that row (in L1) by permutes of one or two vectors where the taps of a vector of outputs lie that
// close together, which any enlargement and reductions to a half do, else one by one. Sums in the compute type, at
// most the product of the taps' counts; error at most (taps + 4) ulp of the terms' size, measured by the op table.
// Bytes: x and y once.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // items that a piece reads and writes

// Where the columns of a vector of outputs lie for one tap: from `base` on, in how many vectors; 0: too far apart.
struct Reach {
  int32_t base, vectors;
};

template <class T> struct Columns {
  using Lane = typename IntOf<T>::type;
  T* row;           // x's width, and a vector more that permutes may load
  const T* weight;  // (taps, padded)
  Lane* offset;     // (taps, padded): from the reach's base
  Reach* reach;     // (taps, vectors of outputs)
  int64_t padded;   // outputs, whole vectors
};

template <class T> Columns<T> columns_of(const InterpolateArgs& a) {
  constexpr int kLanes = Vec<T>::kLanes;
  const int64_t out = a.out[2], vectors = ceil_div(out, kLanes), padded = vectors * kLanes, taps = a.taps[2];
  const int64_t width = a.in[2] + 2 * kLanes;
  T* memory = static_cast<T*>(
      scratch(0, size_t(width + 2 * taps * padded) * sizeof(T) + size_t(taps * vectors) * sizeof(Reach)));
  Columns<T> c;
  c.row = memory;
  T* weight = memory + width;
  c.weight = weight;
  c.offset = reinterpret_cast<typename Columns<T>::Lane*>(weight + taps * padded);
  c.reach = reinterpret_cast<Reach*>(c.offset + taps * padded);
  c.padded = padded;
  for (int64_t i = a.in[2]; i < width; ++i) memory[i] = 0;
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t v = 0; v < vectors; ++v) {
      const int32_t* index = a.index[2] + t * out + v * kLanes;
      const T* from = static_cast<const T*>(a.weight[2]) + t * out + v * kLanes;
      const int count = int(least(kLanes, out - v * kLanes));
      int32_t low = INT32_MAX, high = 0;
      for (int l = 0; l < count; ++l) {
        low = index[l] < low ? index[l] : low;
        high = index[l] > high ? index[l] : high;
      }
      const int32_t span = high - low;
      c.reach[t * vectors + v] = {low, span < kLanes ? 1 : span < 2 * kLanes ? 2 : 0};
      for (int l = 0; l < kLanes; ++l) {
        weight[t * padded + v * kLanes + l] = l < count ? from[l] : T(0);
        c.offset[t * padded + v * kLanes + l] = l < count ? index[l] - low : 0;
      }
    }
  return c;
}

// A vector of outputs o .. from the row.
template <class T> TW_INLINE Vec<T> pick(const InterpolateArgs& a, const Columns<T>& c, int64_t o) {
  constexpr int kLanes = Vec<T>::kLanes;
  using Native = typename Vec<T>::Native;
  Vec<T> sum = T(0);
  for (int64_t t = 0; t < a.taps[2]; ++t) {
    const Reach reach = c.reach[(t * c.padded + o) / kLanes];
    const auto offset = Vec<typename Columns<T>::Lane>::load(c.offset + t * c.padded + o);
    const T* from = c.row + reach.base;
    Vec<T> v;
    if (reach.vectors == 1) {
      v = Native(__builtin_shuffle(Vec<T>::load(from).v, offset.v));
    } else if (reach.vectors == 2) {
      v = Native(__builtin_shuffle(Vec<T>::load(from).v, Vec<T>::load(from + kLanes).v, offset.v));
    } else {
      T lanes[kLanes];
      for (int l = 0; l < kLanes; ++l) lanes[l] = from[offset[l]];
      v = Vec<T>::load(lanes);
    }
    const Vec<T> w = Vec<T>::load(c.weight + t * c.padded + o);
    const Vec<T> term = select(w == Vec<T>(0), Vec<T>(0), w * v);
    sum = t == 0 ? term : sum + term;  // one tap keeps the sign of a zero
  }
  return sum;
}

template <class T, class S> void interpolate_rows(const InterpolateArgs& a) {
  const int64_t W = a.in[2], out = a.out[2], rows = a.out[0] * a.out[1], plane_size = a.in[0] * a.in[1] * W;
  const T* w0 = static_cast<const T*>(a.weight[0]);
  const T* w1 = static_cast<const T*>(a.weight[1]);
  parallel_ranges(a.planes * rows, kPiece / (W + out) + 1, [&](int64_t begin, int64_t end) {
    const Columns<T> columns = columns_of<T>(a);
    int64_t plane = begin / rows, d = begin % rows / a.out[1], h = begin % a.out[1];
    for (int64_t r = begin; r < end; ++r) {
      const S* x = static_cast<const S*>(a.x) + plane * plane_size;
      bool fresh = true;
      for (int64_t i = 0; i < a.taps[0]; ++i)
        for (int64_t j = 0; j < a.taps[1]; ++j) {
          const T w = w0[i * a.out[0] + d] * w1[j * a.out[1] + h];
          if (w == 0) continue;
          const S* from = x + (a.index[0][i * a.out[0] + d] * a.in[1] + a.index[1][j * a.out[1] + h]) * W;
          if (fresh)
            for_row<T>(W, [&](int64_t c, auto... n) {
              (Vec<T>(w) * load_as<T>(from + c, n...)).store(columns.row + c, n...);
            });
          else
            for_row<T>(W, [&](int64_t c, auto... n) {
              fma(Vec<T>(w), load_as<T>(from + c, n...), Vec<T>::load(columns.row + c, n...))
                  .store(columns.row + c, n...);
            });
          fresh = false;
        }
      if (fresh)
        for (int64_t c = 0; c < W; ++c) columns.row[c] = 0;
      S* y = static_cast<S*>(a.y) + r * out;
      for_row<T>(out, [&](int64_t o, auto... n) { store_as(y + o, pick(a, columns, o), n...); });
      if (++h < a.out[1]) continue;
      h = 0;
      if (++d < a.out[0]) continue;
      d = 0;
      ++plane;
    }
  });
}

}  // namespace

void interpolate(const InterpolateArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    interpolate_rows<typename FloatOf<S>::type, S>(a);
  });
}

}  // namespace tw::TW_ISA
