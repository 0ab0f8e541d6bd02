// Interpolation of (planes, D, H, W), one to three of them of size 1, by separable weights: nearest, linear and cubic of
// any sizes. float32, float64, and float16/bfloat16 through float32.
//
// y[o0, o1, o2] = sum over taps of weight0[t0, o0] weight1[t1, o1] weight2[t2, o2] x[index0[t0, o0], ...]. The tables
// come from csrc/ops/interpolate.cpp, in device memory; those of the transpose make the gradient a gather too, in a fixed
// order. A tap of weight 0 is not there: it reads nothing that could be NaN. Sums in the CPU kernel's order: over the
// rows of each column first, then over columns; error at most (taps + 4) ulp of the terms' size (op table: interpolate).
// Method: a thread takes one place of kPlanes planes, so that the tables are read, and the place found, once for all of
// them; with at most 4 taps along a row their indices and weights stay in registers, and the columns' sums beside them.
// Bytes: x and y once (x's neighbours come from the caches); kPlanes * taps reads in flight a thread, each of an item,
// neighbours beside neighbours. Doubling a float32 image moves 5 bytes an output, 40 of a thread's instructions on an
// H100-class GPU at its bandwidth: bilinear's 4 taps take about as many.
#include "kernels/cuda/places.cuh"

namespace tw::cuda {
namespace {

constexpr int kPlanes = 4;

struct InterpolateWalk {
  InterpolateArgs a;
  Splitter width, height, depth;
  int64_t items;  // places of y's plane times groups of planes
};

// kTaps: along a row, or 0 for any number.
template <class S, int kTaps>
__global__ void __launch_bounds__(kPlaceThreads) interpolate_kernel(const __grid_constant__ InterpolateWalk w) {
  using A = Accumulator<S>;
  const InterpolateArgs& a = w.a;
  constexpr int kColumns = kTaps ? kTaps : 1;
  const int64_t from_size = a.in[0] * a.in[1] * a.in[2], to_size = a.out[0] * a.out[1] * a.out[2];
  const A* weight[3];
#pragma unroll
  for (int d = 0; d < 3; ++d) weight[d] = static_cast<const A*>(a.weight[d]);
  for (int64_t item = first_item(); item < w.items; item += item_step()) {
    int64_t group = item;
    const int64_t o2 = w.width.split(&group), o1 = w.height.split(&group), o0 = w.depth.split(&group);
    const int64_t first = group * kPlanes;
    const S* x[kPlanes];
#pragma unroll
    for (int p = 0; p < kPlanes; ++p)
      x[p] = static_cast<const S*>(a.x) + least<int64_t>(first + p, a.planes - 1) * from_size;

    A sum[kPlanes] = {};
    for (int64_t t = 0; t < a.taps[2]; t += kColumns) {  // once where kTaps
      int64_t column[kColumns];
      A share[kColumns], acc[kColumns][kPlanes] = {};
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        column[k] = a.index[2][(t + k) * a.out[2] + o2];
        share[k] = weight[2][(t + k) * a.out[2] + o2];
      }
      bool fresh = true;
      for (int64_t t0 = 0; t0 < a.taps[0]; ++t0)
#pragma unroll 1
        for (int64_t t1 = 0; t1 < a.taps[1]; ++t1) {
          const A row_share = weight[0][t0 * a.out[0] + o0] * weight[1][t1 * a.out[1] + o1];
          if (row_share == A(0)) continue;
          const int64_t row =
              (int64_t(a.index[0][t0 * a.out[0] + o0]) * a.in[1] + a.index[1][t1 * a.out[1] + o1]) * a.in[2];
#pragma unroll
          for (int k = 0; k < kColumns; ++k)
#pragma unroll
            for (int p = 0; p < kPlanes; ++p) {
              const A v = convert<A>(x[p][row + column[k]]);
              acc[k][p] = fresh ? row_share * v : fma(row_share, v, acc[k][p]);
            }
          fresh = false;
        }
#pragma unroll
      for (int k = 0; k < kColumns; ++k)
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
          const A term = share[k] == A(0) ? A(0) : share[k] * acc[k][p];
          sum[p] = t + k == 0 ? term : sum[p] + term;  // one tap keeps the sign of a zero
        }
    }
    S* y = static_cast<S*>(a.y) + first * to_size + (o0 * a.out[1] + o1) * a.out[2] + o2;
#pragma unroll
    for (int p = 0; p < kPlanes; ++p)
      if (first + p < a.planes) y[p * to_size] = convert<S>(sum[p]);
  }
}

template <class S, int kTaps> void launch_taps(const InterpolateWalk& w) {
  const Grid grid = grid_of(w.items);
  launch_kernel<interpolate_kernel<S, kTaps>>(grid.blocks, grid.threads, 0, current_stream(), w);
}

}  // namespace

void interpolate(const InterpolateArgs& a) {
  InterpolateWalk w;
  w.a = a;
  w.items = a.out[0] * a.out[1] * a.out[2] * ceil_div<int64_t>(a.planes, kPlanes);
  w.width = Splitter(a.out[2], w.items);
  w.height = Splitter(a.out[1], w.items);
  w.depth = Splitter(a.out[0], w.items);
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    switch (a.taps[2]) {
      case 1: return launch_taps<S, 1>(w);
      case 2: return launch_taps<S, 2>(w);
      case 4: return launch_taps<S, 4>(w);
      default: return launch_taps<S, 0>(w);
    }
  });
}

}  // namespace tw::cuda
