// roi_align, roi_pool and their gradients: boxes (image, x1, y1, x2, y2) of images (N, C, H, W), each cut into oh x ow
// bins. float32, float16 and bfloat16 in float32, float64 in float64; boxes in the compute type.
//
// roi_align: the mean over a bin's samples, linear in the four items round each. roi_pool: the maximum over a bin's
// items, NaN if there is one, 0 where there is none, and its position, the first of equals. Samples and bins as on the
// CPU (kernels/sampling.h); error as kernels/cpu/roi.cpp, measured by the op table's rows; gradients are rounded once.
// A box of no image is reported, and nothing is read or written for it.
// Method: sampling.cuh's walk, a thread a bin and a few channels; a bin's samples lie in neighbouring lines of a plane,
// which its bins' threads share in the caches. roi_pool: a thread a bin and channel.
// Bytes: the boxes' parts of x once from DRAM, y once; 4 loads and 8 operations a sample and channel from L1, which
// bounds it: with s samples a bin 16 s bytes a result, at 128 bytes a cycle and multiprocessor.
#include "kernels/cuda/sampling.cuh"

namespace tw::cuda {
namespace {

template <class T> TW_DEVICE int64_t checked_image(const RoiArgs& a, Fault* fault, int64_t k, bool report) {
  const int64_t image = image_of<T>(a, k);
  if (image >= 0 && image < a.N) return image;
  if (report) report_fault(fault, a.op, "index must be", image, 0, a.N, k);
  return -1;
}

template <class T> struct RoiSource {
  using A = T;
  static constexpr int kTaps = 4;
  RoiArgs a;
  const void* x;
  void* y;
  int64_t C, plane, rows, outputs;
  DType dtype;
  Fault* fault;

  explicit RoiSource(const RoiArgs& args)
      : a(args),
        x(a.x),
        y(a.y),
        C(a.C),
        plane(a.H * a.W),
        rows(a.K),
        outputs(a.oh * a.ow),
        dtype(a.dtype),
        fault(fault_record()) {}

  struct Point {
    int64_t image;
    A count;
    BoxAxis<A> y, x;
    int64_t i, j;  // of the bin

    template <class Body> TW_DEVICE void samples(const Body& body) const {
      for (int64_t r = y.first(i); r < y.last(i); ++r) {
        const AxisTaps<A, 2> row = box_taps(y.start + (A(r) + A(0.5)) * y.step, y.n);
        for (int64_t c = x.first(j); c < x.last(j); ++c)
          body(joined<A, 1, 2>(one_item<A>(), row, box_taps(x.start + (A(c) + A(0.5)) * x.step, x.n), y.n, x.n, false));
      }
    }
  };
  TW_DEVICE Point point(int64_t k, int64_t o) const {
    const BoxAxis<A> v(a, k, 0), u(a, k, 1);
    const int64_t image = checked_image<A>(a, fault, k, o == 0 && blockIdx.y == 0);
    return {image, A(greatest<int64_t>(1, v.samples * u.samples)), v, u, o / a.ow, o % a.ow};
  }
};

constexpr int kThreads = 256;

template <class A> __global__ void __launch_bounds__(kThreads) pool(RoiArgs a, Fault* fault) {
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.K * a.C * a.oh * a.ow) return;
  const int64_t j = item % a.ow, i = item / a.ow % a.oh, c = item / (a.ow * a.oh) % a.C, k = item / (a.ow * a.oh) / a.C;
  const int64_t image = checked_image<A>(a, fault, k, i == 0 && j == 0 && c == 0);
  if (image < 0) return;
  const BoxBin rows = box_bin<A>(a, k, 0, i), columns = box_bin<A>(a, k, 1, j);
  const int64_t plane = (image * a.C + c) * a.H * a.W;
  A best = 0;
  int32_t at = -1;
  for (int64_t h = rows.begin; h < rows.end; ++h)
    for (int64_t w = columns.begin; w < columns.end; ++w) {
      const A v = load_value<A>(a.x, plane + h * a.W + w, a.dtype);
      if (at >= 0 && !(v > best || (v != v && best == best))) continue;
      best = v;
      at = int32_t(h * a.W + w);
    }
  store_value(a.y, item, best, a.dtype);
  if (a.indices) a.indices[item] = at;
}

template <class A>
__global__ void __launch_bounds__(kThreads) pool_backward(RoiArgs a, Fault* fault, ExactSums<A> sums, bool second) {
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.K * a.C * a.oh * a.ow) return;
  const int64_t bins = a.oh * a.ow, c = item / bins % a.C, k = item / bins / a.C;
  const int64_t image = checked_image<A>(a, fault, k, item % bins == 0 && c == 0);
  const int32_t at = a.indices[item];
  if (image < 0 || at < 0) return;
  sums.add((image * a.C + c) * a.H * a.W + at, load_value<A>(a.x, item, a.dtype), second);
}

template <class F> void visit(const RoiArgs& a, const F& f) {
  *a.bad = -1;
  if (a.dtype == DType::kFloat64) f(double());
  else f(float());
}
unsigned blocks_of(const RoiArgs& a) {
  return static_cast<unsigned>(ceil_div<int64_t>(a.K * a.C * a.oh * a.ow, kThreads));
}

}  // namespace

void roi_align(const RoiArgs& a) {
  visit(a, [&](auto type) { launch_sample(RoiSource<decltype(type)>(a)); });
}
// Samples of one output lie half an item apart or more, unless their number was given.
void roi_align_backward(const RoiArgs& a) {
  const double axis = a.sampling_ratio > 0 ? double(a.sampling_ratio) : 4.0;
  visit(a, [&](auto type) {
    launch_sample_backward(RoiSource<decltype(type)>(a), a.N * a.C, double(a.K * a.oh * a.ow) * 4 * axis * axis);
  });
}
void roi_pool(const RoiArgs& a) {
  visit(a, [&](auto type) {
    launch_kernel<pool<decltype(type)>>(blocks_of(a), kThreads, 0, current_stream(), a, fault_record());
  });
}
void roi_pool_backward(const RoiArgs& a) {
  visit(a, [&](auto type) {
    using A = decltype(type);
    sum_exactly<A>(a.y, a.N * a.C * a.H * a.W, a.dtype, double(a.K * a.oh * a.ow), [&](const auto& sums, bool second) {
      if (blocks_of(a))
        launch_kernel<pool_backward<A>>(blocks_of(a), kThreads, 0, current_stream(), a, fault_record(), sums, second);
    });
  });
}

}  // namespace tw::cuda
