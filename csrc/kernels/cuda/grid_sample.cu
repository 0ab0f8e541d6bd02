// grid_sample: y[n, c, o] = sum over taps of w(grid[n, o]) x[n, c, at(grid[n, o])], two or three spatial dimensions,
// and the gradients by x and by the grid. float32, float16 and bfloat16 in float32, float64 in float64.
//
// Taps as on the CPU (kernels/sampling.h): nearest and linear 2 an axis, cubic 4. Error: as kernels/cpu/grid_sample.cpp,
// measured by the op table's rows; dx is rounded once (sampling.cuh).
// Method: forward and dx are sampling.cuh's walk; dgrid is a sum over the channels in a thread, in their order.
// Bytes: grid, x and y once where neighbouring places lie together (then the caches serve the taps), 16 loads in flight
// a thread; a place costs about 60 operations and each of its channels 2 taps. Float32, linear, C channels: 8 C + 8
// bytes a place against 60 + 8 C operations, so from C = 4 on memory bounds it on an H100-class GPU (20 operations a
// byte); random places read a sector of 32 bytes a tap instead.
#include "kernels/cuda/sampling.cuh"

namespace tw::cuda {
namespace {

template <class T, int K0, int K> struct GridSource {
  using A = T;
  static constexpr int kTaps = K0 * K * K, kDims = K0 == 1 ? 2 : 3;
  GridSampleArgs a;
  const void* x;
  void* y;
  int64_t C, plane, rows, outputs;
  DType dtype;

  GridSource(const GridSampleArgs& args, const void* from, void* to)
      : a(args),
        x(from),
        y(to),
        C(a.C),
        plane(a.in[0] * a.in[1] * a.in[2]),
        rows(a.N),
        outputs(a.out),
        dtype(a.dtype) {}

  struct Point {
    int64_t image;
    Taps<A, K0, K> taps;
    static constexpr A count = 1;
    template <class Body> TW_DEVICE void samples(const Body& body) const { body(taps); }
  };
  TW_DEVICE Point point(int64_t n, int64_t o, bool gradients = false) const {
    A g[3] = {};
#pragma unroll
    for (int d = 0; d < kDims; ++d) g[d] = load_value<A>(a.grid, (n * outputs + o) * kDims + d, dtype);
    return {n, grid_taps<K0, K>(g, a, gradients)};
  }
};

template <class Source>
__global__ void __launch_bounds__(kSampleThreads) grid_gradient(const __grid_constant__ Source s) {
  using A = typename Source::A;
  const int64_t item = int64_t(blockIdx.x) * kSampleThreads + threadIdx.x;
  if (item >= s.rows * s.outputs) return;
  const int64_t n = item / s.outputs, o = item - n * s.outputs;
  const auto point = s.point(n, o, true);
  A sums[Source::kDims] = {};
  const int64_t channels = s.a.mode == SampleMode::kNearest ? 0 : s.C;
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t plane = n * s.C + c;
    decltype(load_bits<A>(s.x, 0, s.dtype)) bits[Source::kTaps];
#pragma unroll
    for (int t = 0; t < Source::kTaps; ++t)
      bits[t] = point.taps.at[t] < 0 ? 0 : load_bits<A>(s.x, plane * s.plane + point.taps.at[t], s.dtype);
    const A g = load_value<A>(s.a.dy, plane * s.outputs + o, s.dtype);
#pragma unroll
    for (int t = 0; t < Source::kTaps; ++t) {
      const A v = g * value_of(bits[t], s.dtype);
#pragma unroll
      for (int d = 0; d < Source::kDims; ++d) sums[d] = fma(point.taps.d[d][t], v, sums[d]);
    }
  }
#pragma unroll
  for (int d = 0; d < Source::kDims; ++d) store_value(s.a.dgrid, item * Source::kDims + d, sums[d], s.dtype);
}

template <class A, int K0, int K> void run_as(const GridSampleArgs& a, bool backward) {
  using Source = GridSource<A, K0, K>;
  if (!backward) return launch_sample(Source(a, a.x, a.y));
  if (a.dx) launch_sample_backward(Source(a, a.dy, a.dx), a.N * a.C, double(a.out) * Source::kTaps);
  if (a.dgrid)
    launch_kernel<grid_gradient<Source>>(static_cast<unsigned>(ceil_div<int64_t>(a.N * a.out, kSampleThreads)),
                                         kSampleThreads, 0, current_stream(), Source(a, a.x, a.dgrid));
}
template <class A> void run(const GridSampleArgs& a, bool backward) {
  if (a.nd == 3) return run_as<A, 2, 2>(a, backward);
  if (a.mode == SampleMode::kCubic) return run_as<A, 1, 4>(a, backward);
  run_as<A, 1, 2>(a, backward);
}
void visit(const GridSampleArgs& a, bool backward) {
  if (a.dtype == DType::kFloat64) run<double>(a, backward);
  else run<float>(a, backward);
}

}  // namespace

void grid_sample(const GridSampleArgs& a) { visit(a, false); }
void grid_sample_backward(const GridSampleArgs& a) { visit(a, true); }

}  // namespace tw::cuda
