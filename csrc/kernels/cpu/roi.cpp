// roi_align, roi_pool and their gradients: boxes (image, x1, y1, x2, y2) of images (N, C, H, W), each cut into oh x ow
// bins. float32, float64, and float16/bfloat16 through float32; boxes in the compute type.
//
// roi_align: the mean over a bin's samples, linear in the four items round each (He et al., Mask R-CNN, 2017).
// roi_pool: the maximum over a bin's items, NaN if there is one, 0 where there is none (Girshick, Fast R-CNN, 2015),
// and its position, the first of equals. Conventions are torchvision's (kernels/sampling.h). A box of no image is
// found first, and then nothing is written.
// Method: samples lie on a grid, so that weights are products: the rows that a bin's samples touch are folded into one
// row by vectors, then its columns are summed; the gradient spreads the columns and then the rows. Pooling likewise.
// Gradients go plane by plane, box by box, so sums have a fixed order. Sums in the compute type; error at most (rows +
// columns + 4) ulp of the terms' size, measured by the op table's rows; roi_pool is exact.
// Bytes: the boxes' parts of x, and y, once; dx twice.
#include "kernels/cpu/rows.h"
#include "kernels/sampling.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kChannels = 32;  // of a piece: they share a box's tables

// What the samples of one axis of a box read, bin after bin: two items each, but for those outside.
template <class T> struct Samples {
  struct Tap {
    int64_t at;
    T w;
  };
  int64_t* first;  // (bins + 1): of each bin's taps among those below
  Tap* all;
  int64_t low, high;  // the items that they touch; none: low == high

  Samples(const BoxAxis<T>& axis, int64_t bins, int slot) : low(axis.n), high(0) {
    constexpr int kLanes = Vec<T>::kLanes;
    int64_t samples = 0;
    for (int64_t b = 0; b < bins; ++b) samples += greatest(0, axis.last(b) - axis.first(b));
    first = static_cast<int64_t*>(scratch(slot, size_t(bins + 1) * 8 + size_t(2 * samples) * sizeof(Tap)));
    all = reinterpret_cast<Tap*>(first + bins + 1);
    int64_t n = 0;
    for (int64_t b = 0; b < bins; ++b) {
      first[b] = n;
      for (int64_t s = axis.first(b); s < axis.last(b); s += kLanes) {
        T lanes[kLanes];
        for (int l = 0; l < kLanes; ++l) lanes[l] = axis.start + (T(s + l) + T(0.5)) * axis.step;
        const AxisTaps<Vec<T>, 2> taps = box_taps(Vec<T>::load(lanes), axis.n);
        for (int l = 0; l < least(kLanes, axis.last(b) - s); ++l)
          for (int side = 0; side < 2; ++side) {
            const int64_t at = taps.at[side][l];
            if (at < 0) continue;
            all[n++] = {at, taps.w[side][l]};
            low = least(low, at);
            high = greatest(high, at + 1);
          }
      }
    }
    first[bins] = n;
    if (high == 0) low = 0;
  }
  // body(item, weight) for each tap of bin b.
  template <class Body> TW_INLINE void taps(int64_t b, const Body& body) const {
    for (int64_t i = first[b]; i < first[b + 1]; ++i) body(all[i].at, all[i].w);
  }
};

template <class T> struct Box {
  const BoxAxis<T> y_axis, x_axis;
  const Samples<T> y, x;
  const T count;
  T* row;  // of items x.low .. x.high

  Box(const RoiArgs& a, int64_t k)
      : y_axis(a, k, 0),
        x_axis(a, k, 1),
        y(y_axis, a.oh, 1),
        x(x_axis, a.ow, 2),
        count(T(greatest(1, y_axis.samples * x_axis.samples))),
        row(static_cast<T*>(scratch(3, size_t(a.W) * sizeof(T))) - x.low) {}
};

template <class T> bool boxes_have_images(const RoiArgs& a) {
  *a.bad = -1;
  for (int64_t k = 0; k < a.K && *a.bad < 0; ++k)
    if (image_of<T>(a, k) < 0 || image_of<T>(a, k) >= a.N) *a.bad = k;
  return *a.bad < 0;
}

// body(k, c, x's plane, y's) for each box and channel; begin(k) before a box's first channel.
template <class T, class S, class Begin, class Body>
void for_boxes(const RoiArgs& a, const Begin& begin, const Body& body) {
  if (!boxes_have_images<T>(a)) return;
  const int64_t groups = ceil_div(a.C, kChannels);
  parallel_for(a.K * groups, [&](int64_t piece) {
    const int64_t k = piece / groups, from = piece % groups * kChannels;
    const auto box = begin(k);
    for (int64_t c = from; c < least(a.C, from + kChannels); ++c)
      body(box, k, c, static_cast<const S*>(a.x) + (image_of<T>(a, k) * a.C + c) * a.H * a.W,
           static_cast<S*>(a.y) + (k * a.C + c) * a.oh * a.ow);
  });
}

// body(begin(k), k, c, dy's plane, sums of dx's plane) likewise, an image and its boxes in order by one thread.
template <class T, class S, class Begin, class Body>
void for_planes(const RoiArgs& a, const Begin& begin, const Body& body) {
  if (!boxes_have_images<T>(a)) return;
  const int64_t groups = ceil_div(a.C, kChannels), plane = a.H * a.W;
  parallel_for(a.N * groups, [&](int64_t piece) {
    const int64_t n = piece / groups, from = piece % groups * kChannels, planes = least(kChannels, a.C - from);
    S* dx = static_cast<S*>(a.y) + (n * a.C + from) * plane;
    T* sums;
    if constexpr (kSame<T, S>) sums = dx;
    else sums = static_cast<T*>(scratch(0, size_t(planes * plane) * sizeof(T)));
    for (int64_t i = 0; i < planes * plane; ++i) sums[i] = 0;
    for (int64_t k = 0; k < a.K; ++k) {
      if (image_of<T>(a, k) != n) continue;
      const auto box = begin(k);
      for (int64_t c = 0; c < planes; ++c)
        body(box, k, from + c, static_cast<const S*>(a.x) + (k * a.C + from + c) * a.oh * a.ow, sums + c * plane);
    }
    if constexpr (!kSame<T, S>) convert(dx, static_cast<const T*>(sums), planes * plane);
  });
}

// Values from and to memory, a few at a time.
template <class T, class S> TW_INLINE void store_one(S* p, T v) {
  if constexpr (kSame<T, S>) *p = v;
  else store_as(p, Vec<T>(v), 1);
}
template <class T, class S> TW_INLINE T load_one(const S* p) {
  if constexpr (kSame<T, S>) return *p;
  else return load_as<T>(p, 1)[0];
}

template <class T, class S> void align(const RoiArgs& a) {
  for_boxes<T, S>(
      a, [&](int64_t k) { return Box<T>(a, k); },
      [&](const Box<T>& box, int64_t, int64_t, const S* x, S* y) {
        const int64_t low = box.x.low, width = box.x.high - low;
        T* row = box.row + low;
        for (int64_t i = 0; i < a.oh; ++i) {
          for (int64_t c = 0; c < width; ++c) row[c] = 0;
          box.y.taps(i, [&](int64_t r, T w) {
            for_row<T>(width, [&](int64_t c, auto... n) {
              fma(Vec<T>(w), load_as<T>(x + r * a.W + low + c, n...), Vec<T>::load(row + c, n...)).store(row + c, n...);
            });
          });
          for (int64_t j = 0; j < a.ow; ++j) {
            T sum = 0;
            box.x.taps(j, [&](int64_t c, T w) { sum += w * box.row[c]; });
            store_one(y + i * a.ow + j, sum / box.count);
          }
        }
      });
}

template <class T, class S> void align_backward(const RoiArgs& a) {
  for_planes<T, S>(
      a, [&](int64_t k) { return Box<T>(a, k); },
      [&](const Box<T>& box, int64_t, int64_t, const S* dy, T* dx) {
        const int64_t low = box.x.low, width = box.x.high - low;
        T* row = box.row + low;
        for (int64_t i = 0; i < a.oh; ++i) {
          for (int64_t c = 0; c < width; ++c) row[c] = 0;
          for (int64_t j = 0; j < a.ow; ++j) {
            const T g = load_one<T>(dy + i * a.ow + j) / box.count;
            box.x.taps(j, [&](int64_t c, T w) { box.row[c] += w * g; });
          }
          box.y.taps(i, [&](int64_t r, T w) {
            T* to = dx + r * a.W + low;
            for_row<T>(width, [&](int64_t c, auto... n) {
              fma(Vec<T>(w), Vec<T>::load(row + c, n...), Vec<T>::load(to + c, n...)).store(to + c, n...);
            });
          });
        }
      });
}

// v, which stands at `here`, goes before the best so far: it is larger, a first NaN, or an equal that stands before.
template <class V> TW_INLINE auto beats(V v, V best) { return (v > best) | ((v != v) & (best == best)); }

template <class T, class S> void pool(const RoiArgs& a) {
  using P = Mask<T>;
  using Position = typename IntOf<T>::type;
  for_boxes<T, S>(
      a, [](int64_t k) { return k; },
      [&](int64_t, int64_t k, int64_t channel, const S* x, S* y) {
        T* value = static_cast<T*>(scratch(1, size_t(2 * a.W) * sizeof(T)));
        auto* where = reinterpret_cast<Position*>(value + a.W);
        int32_t* indices = a.indices ? a.indices + (k * a.C + channel) * a.oh * a.ow : nullptr;
        const int64_t left = box_bin<T>(a, k, 1, 0).begin, right = box_bin<T>(a, k, 1, a.ow - 1).end;
        for (int64_t i = 0; i < a.oh; ++i) {
          const BoxBin rows = box_bin<T>(a, k, 0, i);
          for_row<T>(rows.begin < rows.end ? greatest(0, right - left) : 0, [&](int64_t c, auto... n) {
            const S* from = x + rows.begin * a.W + left + c;
            Vec<T> best = load_as<T>(from, n...);
            P at = P(Position(rows.begin * a.W));
            for (int64_t r = rows.begin + 1; r < rows.end; ++r) {
              const Vec<T> v = load_as<T>(from + (r - rows.begin) * a.W, n...);
              const auto take = beats(v, best);
              best = select(take, v, best);
              at = select(take, P(Position(r * a.W)), at);
            }
            best.store(value + left + c, n...);
            at.store(where + left + c, n...);
          });
          for (int64_t j = 0; j < a.ow; ++j) {
            const BoxBin columns = box_bin<T>(a, k, 1, j);
            const bool none = rows.begin >= rows.end || columns.begin >= columns.end;
            T best = none ? T(0) : value[columns.begin];
            int64_t at = none ? -1 : where[columns.begin] + columns.begin;
            for (int64_t c = columns.begin + 1; c < columns.end && !none; ++c) {
              const T v = value[c];
              const bool equal = v == best || (v != v && best != best);
              if (!beats(v, best) && !(equal && where[c] + c < at)) continue;
              best = v;
              at = where[c] + c;
            }
            store_one(y + i * a.ow + j, best);
            if (indices) indices[i * a.ow + j] = int32_t(at);
          }
        }
      });
}

template <class T, class S> void pool_backward(const RoiArgs& a) {
  for_planes<T, S>(
      a, [](int64_t k) { return k; },
      [&](int64_t, int64_t k, int64_t channel, const S* dy, T* dx) {
        const int32_t* indices = a.indices + (k * a.C + channel) * a.oh * a.ow;
        for (int64_t o = 0; o < a.oh * a.ow; ++o)
          if (indices[o] >= 0) dx[indices[o]] += load_one<T>(dy + o);
      });
}

}  // namespace

#define TW_ROI(slot, kernel)                   \
  void slot(const RoiArgs& a) {                \
    visit_float(a.dtype, [&](auto tag) {       \
      using S = typename decltype(tag)::type;  \
      kernel<typename FloatOf<S>::type, S>(a); \
    });                                        \
  }
TW_ROI(roi_align, align)
TW_ROI(roi_align_backward, align_backward)
TW_ROI(roi_pool, pool)
TW_ROI(roi_pool_backward, pool_backward)
#undef TW_ROI

}  // namespace tw::TW_ISA
