// Pooling over windows of (planes, D, H, W), one to three of them of size 1: maximum and average, plain and adaptive,
// forward and backward. float32, float64, and float16/bfloat16 through float32.
//
// max: y = max of the window's items inside the plane, NaN if any is; indices = position in the plane: the first maximum
// (the last NaN) in row order. avg: y = sum(window) / divisor, columns one after another. Adaptive windows are uneven.
// Error: max exact; avg at most (items + 1) ulp of the mean magnitude (op table: max_pool*, avg_pool*, adaptive_*).
// Backward gathers: an item of dx sums over the windows that could hold it, in the order of the outputs, dy where they
// chose the item (max) or its share of each (avg), so nothing is written twice and no atomics are needed.
// Method: a thread takes one place of kPlanes planes, so that place, windows and divisors, which take divisions, are
// found once for all of them, and each step of a window reads kPlanes items side by side in flight.
// Bytes: x and y once, indices; backward dy, indices and dx once. Neighbours read neighbours, and what windows share
// comes from the caches. 2x2 windows of float32 move 20 bytes an output, 130 of a thread's instructions on an H100-class
// GPU at its bandwidth; they take some 20 of loads, comparisons and loop, and a quarter of 150 for the place.
#include "kernels/cuda/places.cuh"
#include "kernels/windows.h"

namespace tw::cuda {
namespace {

constexpr int kPlanes = 4;

struct PoolWalk {
  PoolArgs a;
  Splitter place[3];   // of the plane whose places the threads take
  Splitter stride[3];  // backward
  int64_t items;       // places times groups of planes
  int64_t x_size, y_size;
};

template <class A> TW_DEVICE A row_divisor(const PoolArgs& a, int64_t d, int64_t h) {
  return a.divisor != 0 ? A(a.divisor) : A(count(a, 0, d) * count(a, 1, h));
}
// The outputs whose windows reach over item i: those of a dilated window may step over it.
TW_DEVICE Steps holders(const PoolWalk& w, int axis, int64_t i) {
  const PoolArgs& a = w.a;
  const int64_t n = a.in[axis], out = a.out[axis], reach = (a.k[axis] - 1) * a.dilation[axis] + 1;
  if (n == 1 && out == 1) return {0, 1, 1};
  if (a.adaptive) return {i * out / n, ceil_div((i + 1) * out, n), 1};
  const int64_t at = i + a.pad[axis];
  int64_t first = at - reach, last = at;
  w.stride[axis].split(&last);
  if (first >= 0) w.stride[axis].split(&first);
  return {first < 0 ? 0 : first + 1, least(out, last + 1), 1};
}

// A thread's place, in kPlanes planes from `first` on.
struct Place {
  int64_t d, h, w, first;
  TW_DEVICE Place(const PoolWalk& walk, int64_t item) {
    w = walk.place[2].split(&item);
    h = walk.place[1].split(&item);
    d = walk.place[0].split(&item);
    first = item * kPlanes;
  }
};
// Planes of `size` items from `first` on; beyond the last, that one again.
template <class S>
TW_DEVICE void planes_of(const S* (&planes)[kPlanes], const void* data, int64_t size, int64_t first, int64_t count) {
#pragma unroll
  for (int p = 0; p < kPlanes; ++p) planes[p] = static_cast<const S*>(data) + least(first + p, count - 1) * size;
}
template <class S, class A>
TW_DEVICE void store_planes(S* y, int64_t size, const A (&v)[kPlanes], int64_t first, int64_t count) {
#pragma unroll
  for (int p = 0; p < kPlanes; ++p)
    if (first + p < count) y[(first + p) * size] = convert<S>(v[p]);
}

template <class S> __global__ void __launch_bounds__(kPlaceThreads) max_kernel(const __grid_constant__ PoolWalk w) {
  using A = Accumulator<S>;
  const PoolArgs& a = w.a;
  for (int64_t item = first_item(); item < w.items; item += item_step()) {
    const Place o(w, item);
    const Steps d = window(a, 0, o.d), h = window(a, 1, o.h), c = window(a, 2, o.w);
    const S* x[kPlanes];
    planes_of(x, a.x, w.x_size, o.first, a.planes);
    A best[kPlanes];
    int at[kPlanes];  // a plane has at most 2^30 items
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) {
      best[p] = -A(__builtin_inf());
      at[p] = int((d.begin * a.in[1] + h.begin) * a.in[2] + c.begin);
    }
    for (int64_t i = d.begin; i < d.end; i += d.step)
      for (int64_t j = h.begin; j < h.end; j += h.step) {
        const int64_t row = (i * a.in[1] + j) * a.in[2];
        for (int64_t here = row + c.begin; here < row + c.end; here += c.step) {
#pragma unroll
          for (int p = 0; p < kPlanes; ++p) {
            const A v = convert<A>(x[p][here]);
            if (v > best[p] || v != v) best[p] = v, at[p] = int(here);
          }
        }
      }
    const int64_t y = (o.d * a.out[1] + o.h) * a.out[2] + o.w;
    store_planes(static_cast<S*>(a.y) + y, w.y_size, best, o.first, a.planes);
    if (!a.indices) continue;
    if (a.index_dtype == DType::kInt32)
      store_planes(static_cast<int32_t*>(a.indices) + y, w.y_size, at, o.first, a.planes);
    else store_planes(static_cast<int64_t*>(a.indices) + y, w.y_size, at, o.first, a.planes);
  }
}

template <class S> __global__ void __launch_bounds__(kPlaceThreads) max_backward(const __grid_constant__ PoolWalk w) {
  using A = Accumulator<S>;
  const PoolArgs& a = w.a;
  const bool narrow = a.index_dtype == DType::kInt32;
  for (int64_t item = first_item(); item < w.items; item += item_step()) {
    const Place i(w, item);
    const Steps d = holders(w, 0, i.d), h = holders(w, 1, i.h), c = holders(w, 2, i.w);
    const int64_t at = (i.d * a.in[1] + i.h) * a.in[2] + i.w;
    int64_t plane[kPlanes];
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) plane[p] = least(i.first + p, a.planes - 1) * w.y_size;
    A total[kPlanes] = {};
    for (int64_t od = d.begin; od < d.end; ++od)
      for (int64_t oh = h.begin; oh < h.end; ++oh)
#pragma unroll 1
        for (int64_t ow = c.begin; ow < c.end; ++ow) {
          const int64_t o = (od * a.out[1] + oh) * a.out[2] + ow;
#pragma unroll
          for (int p = 0; p < kPlanes; ++p) {
            const int64_t k = plane[p] + o, chosen = narrow ? static_cast<const int32_t*>(a.indices)[k]
                                                            : static_cast<const int64_t*>(a.indices)[k];
            const A g = convert<A>(static_cast<const S*>(a.x)[k]);
            if (chosen == at) total[p] += g;
          }
        }
    store_planes(static_cast<S*>(a.y) + at, w.x_size, total, i.first, a.planes);
  }
}

// Sums over a window of x, or over the windows of dy that hold an item, each with its share.
template <class S, bool kBackward>
__global__ void __launch_bounds__(kPlaceThreads) avg_kernel(const __grid_constant__ PoolWalk w) {
  using A = Accumulator<S>;
  const PoolArgs& a = w.a;
  const int64_t *from = kBackward ? a.out : a.in, *to = kBackward ? a.in : a.out;
  const auto reach = [&](int axis, int64_t o) { return kBackward ? holders(w, axis, o) : window(a, axis, o); };
  for (int64_t item = first_item(); item < w.items; item += item_step()) {
    const Place o(w, item);
    const Steps d = reach(0, o.d), h = reach(1, o.h), c = reach(2, o.w);
    const S* x[kPlanes];
    planes_of(x, a.x, kBackward ? w.y_size : w.x_size, o.first, a.planes);
    A total[kPlanes] = {};
    for (int64_t l = c.begin; l < c.end; ++l) {
      A column[kPlanes] = {};
      for (int64_t i = d.begin; i < d.end; ++i)
        for (int64_t j = h.begin; j < h.end; ++j) {
          const int64_t here = (i * from[1] + j) * from[2] + l;
          const A share = kBackward ? A(1) / row_divisor<A>(a, i, j) : A(1);
#pragma unroll
          for (int p = 0; p < kPlanes; ++p) column[p] += convert<A>(x[p][here]) * share;
        }
      const A share = kBackward ? A(1) / A(count(a, 2, l)) : A(1);
#pragma unroll
      for (int p = 0; p < kPlanes; ++p) total[p] += column[p] * share;
    }
    if constexpr (!kBackward) {
      const A divisor = row_divisor<A>(a, o.d, o.h) * A(count(a, 2, o.w));
#pragma unroll
      for (int p = 0; p < kPlanes; ++p) total[p] = total[p] / divisor;
    }
    store_planes(static_cast<S*>(a.y) + (o.d * to[1] + o.h) * to[2] + o.w, kBackward ? w.x_size : w.y_size, total,
                 o.first, a.planes);
  }
}

// The walk over the places of the output's planes, or of the input's.
PoolWalk walk_of(const PoolArgs& a, bool backward) {
  PoolWalk w;
  w.a = a;
  w.x_size = a.in[0] * a.in[1] * a.in[2];
  w.y_size = a.out[0] * a.out[1] * a.out[2];
  w.items = (backward ? w.x_size : w.y_size) * ceil_div<int64_t>(a.planes, kPlanes);
  for (int d = 0; d < 3; ++d) {
    w.place[d] = Splitter(backward ? a.in[d] : a.out[d], w.items);
    const int64_t stride = greatest<int64_t>(a.stride[d], 1);  // uneven windows have none
    w.stride[d] = Splitter(stride, greatest(stride, a.in[d] + a.pad[d]));
  }
  return w;
}

}  // namespace

#define TW_POOL(slot, backward, ...)                                                 \
  void slot(const PoolArgs& a) {                                                     \
    const PoolWalk w = walk_of(a, backward);                                         \
    const Grid grid = grid_of(w.items);                                              \
    visit_float(a.dtype, [&](auto tag) {                                             \
      using S = typename decltype(tag)::type;                                        \
      launch_kernel<__VA_ARGS__>(grid.blocks, grid.threads, 0, current_stream(), w); \
    });                                                                              \
  }
TW_POOL(max_pool, false, max_kernel<S>)
TW_POOL(max_pool_backward, true, max_backward<S>)
TW_POOL(avg_pool, false, avg_kernel<S, false>)
TW_POOL(avg_pool_backward, true, avg_kernel<S, true>)
#undef TW_POOL

}  // namespace tw::cuda
