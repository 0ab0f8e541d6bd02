// nms: from the best box on, each box that has not gone stays and removes the later ones of its group that it overlaps
// by more than the threshold: intersection / union > threshold. float32, float64, halves through float32.
//
// A union of 0 gives NaN, which removes nothing. Each comparison is torchvision's arithmetic in the compute type.
// Method: boxes are copied in order, coordinate by coordinate. A block of kBlock boxes settles its own; then those of
// it that stay are held against all later boxes, a lane a box, by all threads.
// Operations: about 14 a pair of a box that stays and a later one; the copies stay in cache.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kBlock = 64, kPiece = 1 << 14;  // boxes of a block; pairs of a piece

template <class T> struct Boxes {
  using I = typename IntOf<T>::type;
  T* side[4];  // x1, y1, x2, y2
  T* area;
  I *low, *high;  // the group's bits
  I* gone;        // 0 or -1

  // Whether box i removes the boxes that begin at j: 0 or -1.
  template <class... N> TW_INLINE Mask<T> removes(int64_t i, int64_t j, T threshold, N... n) const {
    using V = Vec<T>;
    const V x = min(V::load(side[2] + j, n...), V(side[2][i])) - max(V::load(side[0] + j, n...), V(side[0][i]));
    const V y = min(V::load(side[3] + j, n...), V(side[3][i])) - max(V::load(side[1] + j, n...), V(side[1][i]));
    const V both = max(x, V(0)) * max(y, V(0));
    const V all = V(area[i]) + V::load(area + j, n...) - both;
    return (both / all > V(threshold)) & (Mask<T>::load(low + j, n...) == Mask<T>(low[i])) &
           (Mask<T>::load(high + j, n...) == Mask<T>(high[i]));
  }
};

template <class T, class S> void run(const NmsArgs& a) {
  using I = typename IntOf<T>::type;
  Boxes<T> b;
  T* memory = static_cast<T*>(scratch(0, size_t(8 * a.n) * sizeof(T)));
  for (int d = 0; d < 4; ++d) b.side[d] = memory + d * a.n;
  b.area = memory + 4 * a.n;
  b.low = reinterpret_cast<I*>(memory + 5 * a.n);
  b.high = b.low + a.n;
  b.gone = b.high + a.n;
  for (int64_t i = 0; i < a.n; ++i) {
    T box[4];
    convert(box, static_cast<const S*>(a.boxes) + 4 * a.order[i], 4);
    for (int d = 0; d < 4; ++d) b.side[d][i] = box[d];
    b.area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    const int64_t group = a.groups ? a.groups[a.order[i]] : 0;
    b.low[i] = I(group);
    b.high[i] = I(group >> 32);
    b.gone[i] = 0;
  }
  const T threshold = T(a.threshold);
  int64_t count = 0;
  for (int64_t begin = 0; begin < a.n; begin += kBlock) {
    const int64_t end = least(a.n, begin + kBlock);
    int64_t stay[kBlock], staying = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (b.gone[i]) continue;
      a.keep[count++] = a.order[i];
      stay[staying++] = i;
      for_row<T>(end - i - 1, [&](int64_t j, auto... n) {
        j += i + 1;
        (Mask<T>::load(b.gone + j, n...) | b.removes(i, j, threshold, n...)).store(b.gone + j, n...);
      });
    }
    if (!staying) continue;
    parallel_ranges(a.n - end, kPiece / staying, [&](int64_t from, int64_t to) {
      for_row<T>(to - from, [&](int64_t j, auto... n) {
        j += end + from;
        Mask<T> gone = Mask<T>::load(b.gone + j, n...);
        for (int64_t s = 0; s < staying; ++s) gone = gone | b.removes(stay[s], j, threshold, n...);
        gone.store(b.gone + j, n...);
      });
    });
  }
  *a.count = count;
  for (; count < a.n; ++count) a.keep[count] = -1;
}

}  // namespace

void nms(const NmsArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    run<typename FloatOf<S>::type, S>(a);
  });
}

}  // namespace tw::TW_ISA
