// Regions of interest and overlaps of boxes: roi_align, roi_pool, nms: checks, launches, bindings.
#include <cmath>

#include "bindings/bind.h"
#include "ops/common.h"

namespace tw {
namespace {

// One launch; `boxes` is a contiguous copy in the compute dtype where it is not that already.
struct Regions {
  const char* op;
  Array boxes;
  RoiArgs a{};

  Regions(const char* name_, const Array& given, const Dims& shape, DType t, int64_t oh, int64_t ow) : op(name_) {
    TW_CHECK(shape.n == 4, op, ": input must be (N, C, H, W), got ", str_of(shape));
    TW_CHECK_TYPE(is_float(t) && is_float(given.dtype()), op, ": input and boxes must be floating point, got ", name(t),
                  " and ", name(given.dtype()));
    TW_CHECK(given.ndim() == 2 && given.size(1) == 5, op, ": boxes must be (K, 5), got ", str_of(given.shape()));
    TW_CHECK(oh > 0 && ow > 0, op, ": output_size must be positive, got (", oh, ", ", ow, ")");
    a.N = shape[0], a.C = shape[1], a.H = shape[2], a.W = shape[3];
    TW_CHECK(a.H > 0 && a.W > 0 && a.H < (INT64_C(1) << 31) / a.W, op, ": a plane must have 1 to 2^31 - 1 items, got ",
             str_of(shape));
    boxes = contiguous(cast(given, t == DType::kFloat64 ? t : DType::kFloat32));
    a.boxes = boxes.raw();
    a.K = boxes.size(0), a.oh = oh, a.ow = ow;
    a.dtype = t;
  }
  Dims pooled() const { return {a.K, a.C, a.oh, a.ow}; }

  void run(const Slot<RoiArgs>& slot, const Array& x, const Array& y) {
    if (y.numel() == 0) return;
    BadIndex bad(op, x.device());
    a.x = x.raw();
    a.y = y.raw();
    a.bad = bad.pointer();
    a.op = bad.op();
    launch(x.device(), slot, a);
    if (bad.position() < 0) return;
    const Array first = to_device(boxes, {}).with_geometry({1}, {1}, 0);
    const double image = a.dtype == DType::kFloat64 ? first.data<double>()[5 * bad.position()]
                                                    : double{first.data<float>()[5 * bad.position()]};
    fail<std::out_of_range>(op, ": index must be in [0, ", a.N, "), got ", image, " at position ", bad.position());
  }
};

}  // namespace

Array roi_align(const Array& input, const Array& boxes, int64_t oh, int64_t ow, double scale, int64_t sampling_ratio,
                bool aligned) {
  Regions r("roi_align", boxes, input.shape(), input.dtype(), oh, ow);
  const Array x = contiguous(input), y = result(r.op, r.pooled(), x.dtype(), x.device());
  r.a.scale = scale;
  r.a.sampling_ratio = sampling_ratio;
  r.a.aligned = aligned;
  r.run(slots::roi_align, x, y);
  return y;
}

Array roi_align_backward(const Array& grad, const Array& boxes, const Dims& shape, double scale, int64_t sampling_ratio,
                         bool aligned) {
  const char* op = "roi_align_backward";
  TW_CHECK(grad.ndim() == 4, op, ": dy must be (K, C, oh, ow), got ", str_of(grad.shape()));
  Regions r(op, boxes, shape, grad.dtype(), grad.size(2), grad.size(3));
  check_is(op, "dy", grad, r.pooled(), grad.dtype());
  const Array dy = contiguous(grad), dx = result(op, shape, dy.dtype(), dy.device());
  r.a.scale = scale;
  r.a.sampling_ratio = sampling_ratio;
  r.a.aligned = aligned;
  r.run(slots::roi_align_backward, dy, dx);
  return dx;
}

std::pair<Array, OptionalArray> roi_pool(const Array& input, const Array& boxes, int64_t oh, int64_t ow, double scale,
                                         bool want_indices) {
  Regions r("roi_pool", boxes, input.shape(), input.dtype(), oh, ow);
  const Array x = contiguous(input), y = result(r.op, r.pooled(), x.dtype(), x.device());
  OptionalArray indices;
  if (want_indices) indices = result(r.op, r.pooled(), DType::kInt32, x.device(), "indices");
  r.a.scale = scale;
  r.a.indices = indices ? indices->data<int32_t>() : nullptr;
  r.run(slots::roi_pool, x, y);
  return {y, indices};
}

Array roi_pool_backward(const Array& grad, const Array& boxes, const Array& indices, const Dims& shape) {
  const char* op = "roi_pool_backward";
  TW_CHECK(grad.ndim() == 4, op, ": dy must be (K, C, oh, ow), got ", str_of(grad.shape()));
  Regions r(op, boxes, shape, grad.dtype(), grad.size(2), grad.size(3));
  check_is(op, "dy", grad, r.pooled(), grad.dtype());
  check_is(op, "indices", indices, r.pooled(), DType::kInt32);
  const Array dy = contiguous(grad), at = contiguous(indices), dx = result(op, shape, dy.dtype(), dy.device());
  r.a.indices = at.data<int32_t>();
  r.run(slots::roi_pool_backward, dy, dx);
  return dx;
}

std::pair<Array, Array> nms(const Array& given, const Array& order, const OptionalArray& groups, double iou_threshold) {
  const char* op = "nms";
  TW_CHECK(given.ndim() == 2 && given.size(1) == 4, op, ": boxes must be (n, 4), got ", str_of(given.shape()));
  TW_CHECK_TYPE(is_float(given.dtype()), op, ": boxes must be floating point, got ", name(given.dtype()));
  const Array boxes = contiguous(given), best = contiguous(order);
  NmsArgs a{};
  a.n = boxes.size(0);
  check_is(op, "order", best, {a.n}, DType::kInt64);
  Array group;
  if (groups) {
    check_is(op, "groups", *groups, {a.n}, DType::kInt64);
    group = contiguous(*groups);
    a.groups = group.data<int64_t>();
  }
  const Array keep = result(op, {a.n}, DType::kInt64, boxes.device());
  Array count = result(op, {1}, DType::kInt64, boxes.device(), "count");
  a.boxes = boxes.raw();
  a.order = best.data<int64_t>();
  a.keep = keep.data<int64_t>();
  a.count = count.data<int64_t>();
  Value zero;
  zero.kind = Value::kInt;
  // Above the threshold means above the largest value of the compute dtype that is not above it.
  a.threshold = iou_threshold;
  if (boxes.dtype() != DType::kFloat64) {
    const float near = static_cast<float>(iou_threshold);
    a.threshold = double{near} > iou_threshold ? std::nextafter(near, -HUGE_VALF) : near;
  }
  a.dtype = boxes.dtype();
  if (a.n) launch(boxes.device(), slots::nms, a);
  else fill(op, count, zero);
  return {keep, count};
}

void bind_vision(py::module_& m) {
  def<&roi_align>(m, "roi_align");
  def<&roi_align_backward>(m, "roi_align_backward");
  def<&roi_pool>(m, "roi_pool");
  def<&roi_pool_backward>(m, "roi_pool_backward");
  def<&nms>(m, "nms");
}

}  // namespace tw
