// Where a sample between the items of a plane takes its values: written once for CPU vectors (V = Vec<T>, a sample a
// lane) and CUDA threads (V = float, double). Functions on V are asked for as in functors.h, and to_int.
//
// A place along one axis is made of K items: one or two (nearest, linear) or four (cubic), each with a weight and, for
// the gradient, the weight's derivative. An item that is not there is -1. NaN lies nowhere under zeros, else at item 0.
// Sources: PyTorch's ATen/native/GridSampler.h (conventions); Keys, Cubic convolution interpolation for digital image
// processing, 1981, equation 15 with a = -0.75; torchvision's ops/roi_align and roi_pool (conventions).
#pragma once
#include "kernel_table.h"

#ifdef __CUDACC__
#define TW_UNROLL _Pragma("unroll")
#else
#define TW_UNROLL
#endif

namespace tw::TW_ISA {

template <class V, int K> struct AxisTaps {
  using I = decltype(to_int(V(0)));
  I at[K];
  V w[K], d[K];
};

// A coordinate in items, and its derivative by what it came from.
template <class V> struct Place {
  V x, slope;
};

template <class V> TW_INLINE Place<V> padded(Place<V> p, SamplePad pad, bool align_corners, V n) {
  if (pad == SamplePad::kZeros) return p;
  const V last = n - V(1);
  if (pad == SamplePad::kReflection) {  // at the outer items' centres, or at their outer edges
    const V low = align_corners ? V(0) : V(-0.5f), span = align_corners ? last : n, period = span + span;
    const V from = abs(p.x - low), rest = from - trunc(from / period) * period;
    const V back = select(rest > span, V(-1), V(1));
    p.slope = p.slope * select(p.x < low, -back, back);
    p.x = low + select(rest > span, period - rest, rest);
  }
  const auto above = p.x > V(0);
  p.slope = select(above & (p.x < last), p.slope, V(0));
  p.x = select(above, minimum(p.x, last), V(0));
  return p;
}

// A whole coordinate as the item's number, -1 outside [0, n).
template <class V> TW_INLINE auto item_at(V x, V n) {
  const auto inside = (x >= V(0)) & (x < n);
  const auto i = to_int(select(inside, x, V(0)));
  return select(inside, i, decltype(i)(-1));
}

// Keys's kernel at distance d in [0, 1) and [1, 2), and its derivative.
template <class V> TW_INLINE V cubic_near(V d) { return (V(1.25f) * d - V(2.25f)) * d * d + V(1); }
template <class V> TW_INLINE V cubic_near_slope(V d) { return (V(3.75f) * d - V(4.5f)) * d; }
template <class V> TW_INLINE V cubic_far(V d) { return ((V(-0.75f) * d + V(3.75f)) * d - V(6)) * d + V(3); }
template <class V> TW_INLINE V cubic_far_slope(V d) { return (V(-2.25f) * d + V(7.5f)) * d - V(6); }

// The items at g in [-1, 1] of an axis of `size` items.
template <int K, class V> TW_INLINE AxisTaps<V, K> axis_taps(V g, int64_t size, const GridSampleArgs& a) {
  const V n = V(double(size)), half = V(0.5f);
  const Place<V> plain = a.align_corners ? Place<V>{(g + V(1)) * half * (n - V(1)), (n - V(1)) * half}
                                         : Place<V>{((g + V(1)) * n - V(1)) * half, n * half};
  using I = typename AxisTaps<V, K>::I;
  AxisTaps<V, K> t;
  if constexpr (K == 4) {
    const V low = floor(plain.x), u = plain.x - low, v = V(1) - u;
    for (int k = 0; k < K; ++k)
      t.at[k] = item_at(padded(Place<V>{low + V(float(k - 1)), V(0)}, a.pad, a.align_corners, n).x, n);
    t.w[0] = cubic_far(u + V(1)), t.w[1] = cubic_near(u), t.w[2] = cubic_near(v), t.w[3] = cubic_far(v + V(1));
    t.d[0] = cubic_far_slope(u + V(1)) * plain.slope, t.d[1] = cubic_near_slope(u) * plain.slope;
    t.d[2] = -cubic_near_slope(v) * plain.slope, t.d[3] = -cubic_far_slope(v + V(1)) * plain.slope;
  } else {
    static_assert(K == 2);
    const Place<V> p = padded(plain, a.pad, a.align_corners, n);
    const bool nearest = a.mode == SampleMode::kNearest;
    const V low = nearest ? round(p.x) : floor(p.x), u = nearest ? V(0) : p.x - low;
    t.at[0] = item_at(low, n);
    t.at[1] = nearest ? I(-1) : item_at(low + V(1), n);
    t.w[0] = V(1) - u, t.w[1] = u;
    t.d[0] = nearest ? V(0) : -p.slope, t.d[1] = nearest ? V(0) : p.slope;
  }
  return t;
}

// All items of a sample: (K0, K, K), those of the first axis outermost. K0 1: the first axis has one item.
template <class V, int K0, int K> struct Taps {
  using I = typename AxisTaps<V, K>::I;
  static constexpr int kCount = K0 * K * K;
  I at[kCount];
  V w[kCount];     // 0 for an item that is not there
  V d[3][kCount];  // by each axis of the grid, in its order; unset unless asked for
};

template <class V, int K0, int K>
TW_INLINE Taps<V, K0, K> joined(const AxisTaps<V, K0>& z, const AxisTaps<V, K>& y, const AxisTaps<V, K>& x, int64_t H,
                                int64_t W, bool gradients) {
  using I = typename AxisTaps<V, K>::I;
  Taps<V, K0, K> t;
  int k = 0;
  TW_UNROLL
  for (int i = 0; i < K0; ++i) TW_UNROLL
  for (int j = 0; j < K; ++j) TW_UNROLL
  for (int l = 0; l < K; ++l, ++k) {
    const auto none = (z.at[i] | y.at[j] | x.at[l]) < I(0);
    t.at[k] = select(none, I(-1), (z.at[i] * I(int(H)) + y.at[j]) * I(int(W)) + x.at[l]);
    t.w[k] = select(none, V(0), z.w[i] * y.w[j] * x.w[l]);
    if (!gradients) continue;
    t.d[0][k] = select(none, V(0), z.w[i] * y.w[j] * x.d[l]);
    t.d[1][k] = select(none, V(0), z.w[i] * y.d[j] * x.w[l]);
    t.d[2][k] = select(none, V(0), z.d[i] * y.w[j] * x.w[l]);
  }
  return t;
}

template <class V> TW_INLINE AxisTaps<V, 1> one_item() {
  AxisTaps<V, 1> t;
  t.at[0] = typename AxisTaps<V, 1>::I(0);
  t.w[0] = V(1), t.d[0] = V(0);
  return t;
}

// g: coordinates in the grid's order.
template <int K0, int K, class V>
TW_INLINE Taps<V, K0, K> grid_taps(const V (&g)[3], const GridSampleArgs& a, bool gradients) {
  const AxisTaps<V, K> y = axis_taps<K>(g[1], a.in[1], a), x = axis_taps<K>(g[0], a.in[2], a);
  if constexpr (K0 == 1) return joined<V, 1, K>(one_item<V>(), y, x, a.in[1], a.in[2], gradients);
  else return joined<V, K0, K>(axis_taps<K0>(g[2], a.in[0], a), y, x, a.in[1], a.in[2], gradients);
}

// --- boxes --
// Of any value, what an int can hold; of NaN the lowest.
template <class T> TW_INLINE int64_t whole(T v) {
  return int64_t(v > T(-0x1p30) ? (v < T(0x1p30) ? v : T(0x1p30)) : T(-0x1p30));
}
template <class T> TW_INLINE int64_t floor_of(T v) {
  const int64_t i = whole(v);
  return T(i) > v ? i - 1 : i;
}
template <class T> TW_INLINE int64_t ceil_of(T v) { return -floor_of(-v); }
template <class T> TW_INLINE int64_t round_of(T v) {  // half away from zero
  const T size = v < 0 ? -v : v;
  const int64_t i = whole(size), up = size - T(i) >= T(0.5) ? i + 1 : i;
  return v < 0 ? -up : up;
}

// The image of box k, or what is none.
template <class T> TW_INLINE int64_t image_of(const RoiArgs& a, int64_t k) {
  return whole(static_cast<const T*>(a.boxes)[5 * k]);
}

// One axis (0: y, 1: x) of a box for roi_align: sample s of all its bins' lies at start + (s + 1/2) step.
template <class T> struct BoxAxis {
  T start, step;
  int64_t samples;  // a bin
  int64_t n;        // items of the axis

  TW_INLINE BoxAxis(const RoiArgs& a, int64_t k, int axis) : n(axis == 0 ? a.H : a.W) {
    const T* box = static_cast<const T*>(a.boxes) + 5 * k + (axis == 0 ? 2 : 1);
    const T scale = T(a.scale), offset = a.aligned ? T(0.5) : T(0);
    start = box[0] * scale - offset;
    T size = box[2] * scale - offset - start;
    if (!a.aligned && !(size > 1)) size = 1;
    const T bin = size / T(axis == 0 ? a.oh : a.ow);
    samples = a.sampling_ratio > 0 ? a.sampling_ratio : bin > 0 ? ceil_of(bin) : 0;
    step = samples > 0 ? bin / T(samples) : T(0);
  }
  // The samples of a bin, without most of those that lie outside: a wild box has more than could be counted.
  TW_INLINE int64_t first(int64_t bin) const {
    const int64_t s = bin * samples, least = step > 0 ? floor_of((T(-1) - start) / step - T(0.5)) : s;
    return s > least ? s : least;
  }
  TW_INLINE int64_t last(int64_t bin) const {
    const int64_t s = (bin + 1) * samples, most = step > 0 ? ceil_of((T(n) - start) / step + T(0.5)) : s;
    return s < most ? s : most;
  }
};

// The two items at coordinate p of an axis of `size` items, held at the last ones up to a distance of 1.
template <class V> TW_INLINE AxisTaps<V, 2> box_taps(V p, int64_t size) {
  const V n = V(double(size)), last = n - V(1);
  const auto inside = (p >= V(-1)) & (p <= n);
  const V x = maximum(p, V(0)), low = minimum(floor(x), last), high = minimum(low + V(1), last);
  AxisTaps<V, 2> t;
  t.at[0] = item_at(select(inside, low, V(-1)), n);
  t.at[1] = item_at(select(inside, high, V(-1)), n);
  t.w[1] = select(low < last, x - low, V(0));
  t.w[0] = V(1) - t.w[1];
  return t;
}

// What bin o of a box pools along an axis for roi_pool: items begin .. end - 1. In whole numbers, so that no bin loses
// or gains an item by the rounding of a quotient.
struct BoxBin {
  int64_t begin, end;
};
template <class T> TW_INLINE BoxBin box_bin(const RoiArgs& a, int64_t k, int axis, int64_t o) {
  const T* box = static_cast<const T*>(a.boxes) + 5 * k + (axis == 0 ? 2 : 1);
  const int64_t n = axis == 0 ? a.H : a.W, bins = axis == 0 ? a.oh : a.ow;
  const int64_t first = round_of(box[0] * T(a.scale)), last = round_of(box[2] * T(a.scale));
  const int64_t size = last < first ? 1 : last - first + 1;
  const int64_t begin = first + o * size / bins, end = first + ((o + 1) * size + bins - 1) / bins;
  return {begin < 0 ? 0 : begin < n ? begin : n, end < 0 ? 0 : end < n ? end : n};
}

}  // namespace tw::TW_ISA
