// softmax and log_softmax: any dimension, as (outer, n, inner) of a contiguous array.
#include "ops/common.h"

namespace tw {
namespace {

Array run(const char* op, const Slot<SoftmaxArgs>& slot, const Array& x, const Array* dy, int64_t dim, bool log) {
  TW_CHECK_TYPE(is_float(x.dtype()), op, ": must have a floating-point dtype, got ", describe(x));
  const int d = wrap_dim(op, dim, x.ndim());
  Array y = result(op, x.shape(), x.dtype(), x.device());
  if (y.numel() == 0) return y;
  const Array from = contiguous(x), grad = dy ? contiguous(*dy) : Array();
  SoftmaxArgs a;
  a.x = from.raw();
  a.dy = dy ? grad.raw() : nullptr;
  a.y = y.raw();
  a.outer = a.inner = a.n = 1;
  for (int i = 0; i < x.ndim(); ++i) (i < d ? a.outer : i == d ? a.n : a.inner) *= x.size(i);
  a.dtype = x.dtype();
  a.log = log;
  launch(x.device(), slot, a);
  return y;
}

}  // namespace

Array softmax(const Array& x, int64_t dim) { return run("softmax", slots::softmax, x, nullptr, dim, false); }

Array log_softmax(const Array& x, int64_t dim) { return run("log_softmax", slots::softmax, x, nullptr, dim, true); }

namespace {

// y is the forward's result.
Array backward(const char* op, const Array& y, const Array& dy, int64_t dim, bool log) {
  TW_CHECK(y.shape() == dy.shape() && y.dtype() == dy.dtype(), op, ": the gradient must be as the result, got ",
           describe(dy), " for ", describe(y));
  return run(op, slots::softmax_backward, y, &dy, dim, log);
}

}  // namespace

Array softmax_backward(const Array& y, const Array& dy, int64_t dim) {
  return backward("softmax_backward", y, dy, dim, false);
}

Array log_softmax_backward(const Array& y, const Array& dy, int64_t dim) {
  return backward("log_softmax_backward", y, dy, dim, true);
}

void bind_softmax(py::module_& m) {
  m.def("softmax", &softmax);
  m.def("log_softmax", &log_softmax);
  m.def("softmax_backward", &softmax_backward);
  m.def("log_softmax_backward", &log_softmax_backward);
}

}  // namespace tw
