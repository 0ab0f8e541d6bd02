// conv2d and its gradients over (N, C, H, W) or (C, H, W): shapes, checks, launches, bindings.
#include "ops/common.h"

namespace tw {
namespace {

struct Pair {
  int64_t h, w;
};

Pair pair_of(const char* op, const char* what, const Dims& d, int64_t least) {
  TW_CHECK(d.n == 1 || d.n == 2, op, ": ", what, " must be an int or a pair, got ", str_of(d));
  const Pair p{d[0], d[d.n - 1]};
  TW_CHECK(p.h >= least && p.w >= least, op, ": ", what, " must be at least ", least, ", got (", p.h, ", ", p.w, ")");
  return p;
}

// Padding: one number, (h, w), or (top, bottom, left, right).
struct Geometry {
  Pair stride, before, after, dilation;
  int64_t groups;

  Geometry(const char* op, const Dims& strides, const Dims& padding, const Dims& dilations, int64_t groups)
      : stride(pair_of(op, "stride", strides, 1)), dilation(pair_of(op, "dilation", dilations, 1)), groups(groups) {
    if (padding.n == 4) {
      before = pair_of(op, "padding", {padding[0], padding[2]}, 0);
      after = pair_of(op, "padding", {padding[1], padding[3]}, 0);
    } else {
      before = after = pair_of(op, "padding", padding, 0);
    }
    TW_CHECK(groups >= 1, op, ": groups must be at least 1, got ", groups);
  }
};

Dims batched(const char* op, const char* what, const Dims& shape) {
  TW_CHECK(shape.n == 3 || shape.n == 4, op, ": ", what, " must be (N, C, H, W) or (C, H, W), got ", str_of(shape));
  return shape.n == 4 ? shape : Dims{1, shape[0], shape[1], shape[2]};
}

// Sizes and geometry of one launch, all checked; oh and ow follow from them.
Conv2dArgs arguments(const char* op, const Dims& x_shape, const Dims& w, const Geometry& g, DType dtype) {
  const Dims x = batched(op, "input", x_shape);
  TW_CHECK(w.n == 4, op, ": weight must be (O, C / groups, kh, kw), got ", str_of(w));
  TW_CHECK_TYPE(is_float(dtype), op, ": needs floating point, got ", name(dtype));
  TW_CHECK(x[1] % g.groups == 0 && w[0] % g.groups == 0, op, ": groups must divide the channels, got ", x[1],
           " channels in and ", w[0], " out for ", g.groups, " groups");
  TW_CHECK(w[1] * g.groups == x[1], op, ": weight ", str_of(w), " with ", g.groups, " groups must take input of ",
           w[1] * g.groups, " channels, got ", x[1], " in ", str_of(x_shape));
  TW_CHECK(w[2] >= 1 && w[3] >= 1, op, ": the kernel must not be empty, got weight ", str_of(w));
  Conv2dArgs a{};
  a.N = x[0];
  a.C = x[1];
  a.H = x[2];
  a.W = x[3];
  a.O = w[0];
  a.kh = w[2];
  a.kw = w[3];
  a.stride_h = g.stride.h;
  a.stride_w = g.stride.w;
  a.pad_h = g.before.h;
  a.pad_w = g.before.w;
  a.dilation_h = g.dilation.h;
  a.dilation_w = g.dilation.w;
  a.groups = g.groups;
  a.dtype = dtype;
  const int64_t height = a.H + g.before.h + g.after.h, width = a.W + g.before.w + g.after.w;
  const int64_t span_h = a.dilation_h * (a.kh - 1) + 1, span_w = a.dilation_w * (a.kw - 1) + 1;
  TW_CHECK(span_h <= height && span_w <= width, op, ": kernel (", span_h, ", ", span_w, ") must fit the padded input (",
           height, ", ", width, ")");
  a.oh = (height - span_h) / a.stride_h + 1;
  a.ow = (width - span_w) / a.stride_w + 1;
  return a;
}

void check_dtypes(const char* op, const Array& a, const Array& b) {
  TW_CHECK_TYPE(a.dtype() == b.dtype(), op, ": dtypes must match, got ", name(a.dtype()), " and ", name(b.dtype()));
}

Dims output_shape(const Conv2dArgs& a, int ndim) {
  return ndim == 4 ? Dims{a.N, a.O, a.oh, a.ow} : Dims{a.O, a.oh, a.ow};
}

Array conv2d(const Array& x, const Array& w, const std::optional<Array>& b, const Dims& stride, const Dims& padding,
             const Dims& dilation, int64_t groups) {
  const char* op = "conv2d";
  check_dtypes(op, x, w);
  Conv2dArgs a = arguments(op, x.shape(), w.shape(), Geometry(op, stride, padding, dilation, groups), x.dtype());
  std::optional<Array> bias;
  if (b) {
    check_dtypes(op, x, *b);
    TW_CHECK(b->ndim() == 1 && b->size(0) == a.O, op, ": bias must be (", a.O, ",), got ", str_of(b->shape()));
    bias = contiguous(*b);
    a.b = bias->raw();
  }
  Array y = Array::empty(op, output_shape(a, x.ndim()), x.dtype(), x.device());
  if (y.numel() == 0) return y;
  const Array image = contiguous(x), kernel = contiguous(w);
  a.x = image.raw();
  a.w = kernel.raw();
  a.y = y.raw();
  launch(x.device(), slots::conv2d, a);
  return y;
}

Array conv2d_backward_x(const Array& dy, const Array& w, const Dims& x_shape, const Dims& stride, const Dims& padding,
                        const Dims& dilation, int64_t groups) {
  const char* op = "conv2d_backward_x";
  check_dtypes(op, dy, w);
  Conv2dArgs a = arguments(op, x_shape, w.shape(), Geometry(op, stride, padding, dilation, groups), dy.dtype());
  TW_CHECK(dy.shape() == output_shape(a, x_shape.n), op, ": dy must be ", str_of(output_shape(a, x_shape.n)), ", got ",
           str_of(dy.shape()));
  Array dx = Array::empty(op, x_shape, dy.dtype(), dy.device());
  if (dx.numel() == 0) return dx;
  const Array d = contiguous(dy), kernel = contiguous(w);
  a.dy = d.raw();
  a.w = kernel.raw();
  a.y = dx.raw();
  launch(dy.device(), slots::conv2d_backward_x, a);
  return dx;
}

Array conv2d_backward_w(const Array& dy, const Array& x, const Dims& w_shape, const Dims& stride, const Dims& padding,
                        const Dims& dilation, int64_t groups) {
  const char* op = "conv2d_backward_w";
  check_dtypes(op, dy, x);
  Conv2dArgs a = arguments(op, x.shape(), w_shape, Geometry(op, stride, padding, dilation, groups), dy.dtype());
  TW_CHECK(dy.shape() == output_shape(a, x.ndim()), op, ": dy must be ", str_of(output_shape(a, x.ndim())), ", got ",
           str_of(dy.shape()));
  Array dw = Array::empty(op, w_shape, dy.dtype(), dy.device());
  if (dw.numel() == 0) return dw;
  const Array d = contiguous(dy), image = contiguous(x);
  a.dy = d.raw();
  a.x = image.raw();
  a.y = dw.raw();
  launch(dy.device(), slots::conv2d_backward_w, a);
  return dw;
}

}  // namespace

void bind_conv(py::module_& m) {
  m.def("conv2d", &conv2d);
  m.def("conv2d_backward_x", &conv2d_backward_x);
  m.def("conv2d_backward_w", &conv2d_backward_w);
}

}  // namespace tw
