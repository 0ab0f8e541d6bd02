// Convolutions of one, two and three dimensions, their gradients, and transposed convolutions: shapes, checks, launches,
// bindings. The missing leading dimensions of the kernel's three are 1.
#include <cstdlib>

#include "ops/common.h"

namespace tw {
namespace {

// Whether 3x3 filters may go by Winograd's method; TILEWRIGHT_WINOGRAD=0 starts with no.
bool use_winograd = [] {
  const char* set = std::getenv("TILEWRIGHT_WINOGRAD");
  return !(set && std::string(set) == "0");
}();

bool allow_tf32 = false;  // as matmul.cpp's

// The name of the function that a caller used, from the number of spatial dimensions.
std::string name_of(const char* prefix, int64_t nd, const char* suffix = "") { return str(prefix, nd, "d", suffix); }

// One number for all dimensions, or one each.
void fill(const std::string& op, const char* what, const Dims& d, int64_t nd, int64_t least, int64_t* to) {
  TW_CHECK(d.n == 1 || d.n == nd, op, ": ", what, " must be one number or ", nd, ", got ", str_of(d));
  for (int64_t i = 0; i < nd; ++i) {
    to[3 - nd + i] = d[d.n == 1 ? 0 : i];
    TW_CHECK(to[3 - nd + i] >= least, op, ": ", what, " must be at least ", least, ", got ", str_of(d));
  }
}

Dims batched(const std::string& op, const char* what, const Dims& shape, int64_t nd) {
  static const char* const kSizes[] = {"L", "H, W", "D, H, W"};
  TW_CHECK(shape.n == nd + 1 || shape.n == nd + 2, op, ": ", what, " must be (N, C, ", kSizes[nd - 1], ") or (C, ",
           kSizes[nd - 1], "), got ", str_of(shape));
  if (shape.n == nd + 2) return shape;
  Dims d{1};
  for (int i = 0; i < shape.n; ++i) d.d[d.n++] = shape[i];
  return d;
}

// Sizes and geometry of one launch, all checked; the output's sizes follow from them. padding: one number, one each, or
// (before, after) for each dimension, after perhaps negative.
ConvArgs arguments(const std::string& op, int64_t nd, const Dims& x_shape, const Dims& w, const Dims& stride,
                   const Dims& padding, const Dims& dilation, int64_t groups, const Array& like) {
  static const char* const kSizes[] = {"k", "kh, kw", "kd, kh, kw"};
  TW_CHECK_TYPE(is_float(like.dtype()), op, ": needs floating point, got ", name(like.dtype()));
  TW_CHECK(w.n == nd + 2, op, ": weight must be (O, C / groups, ", kSizes[nd - 1], "), got ", str_of(w));
  TW_CHECK(groups >= 1, op, ": groups must be at least 1, got ", groups);
  const Dims x = batched(op, "input", x_shape, nd);
  TW_CHECK(x[1] % groups == 0 && w[0] % groups == 0, op, ": groups must divide the channels, got ", x[1],
           " channels in and ", w[0], " out for ", groups, " groups");
  TW_CHECK(w[1] * groups == x[1], op, ": weight ", str_of(w), " with ", groups, " groups must take input of ",
           w[1] * groups, " channels, got ", x[1], " in ", str_of(x_shape));
  ConvArgs a{};
  for (int d = 0; d < 3; ++d) a.size[d] = a.out[d] = a.kernel[d] = a.stride[d] = a.dilation[d] = 1;
  int64_t after[3] = {};
  fill(op, "stride", stride, nd, 1, a.stride);
  fill(op, "dilation", dilation, nd, 1, a.dilation);
  if (padding.n == 2 * nd) {
    for (int64_t i = 0; i < nd; ++i) {
      a.pad[3 - nd + i] = padding[2 * i];
      after[3 - nd + i] = padding[2 * i + 1];
    }
  } else {
    fill(op, "padding", padding, nd, 0, a.pad);
    for (int d = 0; d < 3; ++d) after[d] = a.pad[d];
  }
  a.N = x[0];
  a.C = x[1];
  a.O = w[0];
  a.groups = groups;
  a.winograd = use_winograd && may_use_winograd && like.device().type == DeviceType::kCpu;  // others have none
  a.dtype = like.dtype();
  a.tf32 = allow_tf32 && a.dtype == DType::kFloat32;
  for (int64_t i = 0; i < nd; ++i) {
    const int64_t d = 3 - nd + i;
    a.size[d] = x[2 + i];
    a.kernel[d] = w[2 + i];
    TW_CHECK(a.kernel[d] >= 1, op, ": the kernel must not be empty, got weight ", str_of(w));
    const int64_t span = a.dilation[d] * (a.kernel[d] - 1) + 1, room = a.size[d] + a.pad[d] + after[d];
    TW_CHECK(span <= room, op, ": kernel must fit the padded input, got ", span, " pixels (dilation included) for ",
             room, " in dimension ", i - nd);
    a.out[d] = (room - span) / a.stride[d] + 1;
  }
  return a;
}

void check_dtypes(const std::string& op, const Array& a, const Array& b) {
  TW_CHECK_TYPE(a.dtype() == b.dtype(), op, ": dtypes must match, got ", name(a.dtype()), " and ", name(b.dtype()));
}

// (N, O, sizes), or (O, sizes) as the input has a batch or not.
Dims output_shape(const ConvArgs& a, int64_t nd, int ndim) {
  Dims d;
  if (ndim == nd + 2) d.d[d.n++] = a.N;
  d.d[d.n++] = a.O;
  for (int64_t i = 3 - nd; i < 3; ++i) d.d[d.n++] = a.out[i];
  return d;
}

std::optional<Array> bias_of(const std::string& op, const std::optional<Array>& b, const Array& x, int64_t channels) {
  if (!b) return {};
  check_dtypes(op, x, *b);
  TW_CHECK(b->ndim() == 1 && b->size(0) == channels, op, ": bias must be (", channels, ",), got ", str_of(b->shape()));
  return contiguous(*b);
}

// A dilated 3x3 filter sees images of their own: the pixels whose row and column leave one remainder by the dilation.
// Taken apart (dy dx images from one) they are Winograd's. Whether that is so; then `a` is told of those images.
struct Dilated {
  int64_t dy = 1, dx = 1;

  explicit Dilated(ConvArgs& a) {
    if (!a.winograd || a.dtype == DType::kFloat64 || a.kernel[0] != 1 || a.size[0] != 1 || a.out[0] != 1) return;
    if (a.dilation[1] * a.dilation[2] == 1 || a.C / a.groups < 16 || a.O / a.groups < 16) return;
    for (int d = 1; d < 3; ++d) {
      const int64_t step = a.dilation[d];
      if (a.kernel[d] != 3 || a.stride[d] != 1 || a.pad[d] % step || a.size[d] % step || a.out[d] % step) return;
    }
    dy = a.dilation[1], dx = a.dilation[2];
    a.N *= dy * dx;
    for (int d = 1; d < 3; ++d) {
      a.pad[d] /= a.dilation[d], a.size[d] /= a.dilation[d], a.out[d] /= a.dilation[d];
      a.dilation[d] = 1;
    }
  }
  bool apart() const { return dy * dx > 1; }
  // x (..., C, H, W) as (..., dy, dx, C, H / dy, W / dx), and back again.
  Array split(const Array& x) const {
    if (!apart()) return contiguous(x);
    const int n = x.ndim() - 3;
    Dims shape, step;
    if (n) shape.push(x.size(0)), step.push(x.strides()[0]);
    const int64_t c = x.strides()[n], h = x.strides()[n + 1], w = x.strides()[n + 2];
    for (int64_t v : {dy, dx, x.size(n), x.size(n + 1) / dy, x.size(n + 2) / dx}) shape.push(v);
    for (int64_t v : {h, w, c, h * dy, w * dx}) step.push(v);
    Array parts = Array::empty("conv", shape, x.dtype(), x.device());
    copy_into("conv", parts, x.with_geometry(shape, step, x.offset()));
    return parts;
  }
  void join(const Array& parts, Array& y) const {
    const int n = y.ndim() - 3;
    const int64_t H = y.size(n + 1) / dy, W = y.size(n + 2) / dx, plane = H * W, image = y.size(n) * plane;
    Dims shape, from, to;
    if (n) shape.push(y.size(0)), from.push(dy * dx * image), to.push(dy * dx * image);
    for (int64_t v : {y.size(n), H, dy, W, dx}) shape.push(v);
    for (int64_t v : {plane, W, dx * image, int64_t(1), image}) from.push(v);
    for (int64_t v : {dy * dx * plane, dy * dx * W, dx * W, dx, int64_t(1)}) to.push(v);
    Array whole = y.with_geometry(shape, to, y.offset());
    copy_into("conv", whole, parts.with_geometry(shape, from, 0));
  }
};

}  // namespace

thread_local bool may_use_winograd = true;

Array conv(int64_t nd, const Array& x, const Array& w, const std::optional<Array>& b, const Dims& stride,
           const Dims& padding, const Dims& dilation, int64_t groups) {
  const std::string op = name_of("conv", nd);
  check_dtypes(op, x, w);
  ConvArgs a = arguments(op, nd, x.shape(), w.shape(), stride, padding, dilation, groups, x);
  const std::optional<Array> bias = bias_of(op, b, x, a.O);
  Array y = result(op.c_str(), output_shape(a, nd, x.ndim()), x.dtype(), x.device());
  if (y.numel() == 0) return y;
  const Dilated parts(a);
  const Array image = parts.split(x), kernel = contiguous(w);
  const Array made = parts.apart() ? Array::empty(op.c_str(), y.shape(), y.dtype(), y.device()) : y;
  a.b = bias ? bias->raw() : nullptr;
  a.x = image.raw();
  a.w = kernel.raw();
  a.y = made.raw();
  launch(x.device(), slots::conv, a);
  if (parts.apart()) parts.join(made, y);
  return y;
}

namespace {

Array backward_x(const std::string& op, int64_t nd, const Array& dy, const Array& w, const std::optional<Array>& b,
                 const Dims& x_shape, const Dims& stride, const Dims& padding, const Dims& dilation, int64_t groups) {
  check_dtypes(op, dy, w);
  ConvArgs a = arguments(op, nd, x_shape, w.shape(), stride, padding, dilation, groups, dy);
  const Dims expected = output_shape(a, nd, x_shape.n);
  TW_CHECK(dy.shape() == expected, op, ": dy must be ", str_of(expected), ", got ", str_of(dy.shape()));
  const std::optional<Array> bias = bias_of(op, b, dy, a.C);
  Array dx = result(op.c_str(), x_shape, dy.dtype(), dy.device());
  if (dx.numel() == 0) return dx;
  const Dilated parts(a);
  const Array d = parts.split(dy), kernel = contiguous(w);
  const Array made = parts.apart() ? Array::empty(op.c_str(), dx.shape(), dx.dtype(), dx.device()) : dx;
  a.b = bias ? bias->raw() : nullptr;
  a.dy = d.raw();
  a.w = kernel.raw();
  a.y = made.raw();
  launch(dy.device(), slots::conv_backward_x, a);
  if (parts.apart()) parts.join(made, dx);
  return dx;
}

}  // namespace

Array conv_backward_x(int64_t nd, const Array& dy, const Array& w, const std::optional<Array>& b, const Dims& x_shape,
                      const Dims& stride, const Dims& padding, const Dims& dilation, int64_t groups) {
  return backward_x(name_of("conv", nd, "_backward_x"), nd, dy, w, b, x_shape, stride, padding, dilation, groups);
}

Array conv_backward_w(int64_t nd, const Array& dy, const Array& x, const Dims& w_shape, const Dims& stride,
                      const Dims& padding, const Dims& dilation, int64_t groups) {
  const std::string op = name_of("conv", nd, "_backward_w");
  check_dtypes(op, dy, x);
  ConvArgs a = arguments(op, nd, x.shape(), w_shape, stride, padding, dilation, groups, dy);
  const Dims expected = output_shape(a, nd, x.ndim());
  TW_CHECK(dy.shape() == expected, op, ": dy must be ", str_of(expected), ", got ", str_of(dy.shape()));
  Array dw = result(op.c_str(), w_shape, dy.dtype(), dy.device());
  if (dw.numel() == 0) return dw;
  const Dilated parts(a);
  const Array d = parts.split(dy), image = parts.split(x);
  a.dy = d.raw();
  a.x = image.raw();
  a.y = dw.raw();
  launch(dy.device(), slots::conv_backward_w, a);
  return dw;
}

namespace {

// backward_x under the name and with the words of a transposed convolution: its input is dy, its output x.
Array conv_transpose(int64_t nd, const Array& x, const Array& w, const std::optional<Array>& b, const Dims& stride,
                     const Dims& padding, const Dims& output_padding, const Dims& dilation, int64_t groups) {
  static const char* const kSizes[] = {"k", "kh, kw", "kd, kh, kw"};
  const std::string op = name_of("conv_transpose", nd);
  check_dtypes(op, x, w);
  TW_CHECK_TYPE(is_float(x.dtype()), op, ": needs floating point, got ", name(x.dtype()));
  const Dims shape = batched(op, "input", x.shape(), nd), k = w.shape();
  TW_CHECK(k.n == nd + 2, op, ": weight must be (C, O / groups, ", kSizes[nd - 1], "), got ", str_of(k));
  TW_CHECK(groups >= 1, op, ": groups must be at least 1, got ", groups);
  TW_CHECK(shape[1] == k[0], op, ": weight ", str_of(k), " must take input of ", k[0], " channels, got ", shape[1],
           " in ", str_of(x.shape()));
  TW_CHECK(k[0] % groups == 0, op, ": groups must divide the channels, got ", k[0], " for ", groups, " groups");
  ConvArgs a{};
  int64_t extra[3] = {};
  fill(op, "stride", stride, nd, 1, a.stride);
  fill(op, "padding", padding, nd, 0, a.pad);
  fill(op, "output_padding", output_padding, nd, 0, extra);
  fill(op, "dilation", dilation, nd, 1, a.dilation);
  Dims result, pads;
  if (x.ndim() == nd + 2) result.d[result.n++] = shape[0];
  result.d[result.n++] = k[1] * groups;
  for (int64_t i = 0; i < nd; ++i) {
    const int64_t d = 3 - nd + i, most = a.stride[d] > a.dilation[d] ? a.stride[d] : a.dilation[d];
    TW_CHECK(extra[d] < most, op, ": output_padding must be smaller than stride or dilation, got ", extra[d], " for ",
             a.stride[d], " and ", a.dilation[d]);
    TW_CHECK(k[2 + i] >= 1, op, ": the kernel must not be empty, got weight ", str_of(k));
    const int64_t size =
        (shape[2 + i] - 1) * a.stride[d] - 2 * a.pad[d] + a.dilation[d] * (k[2 + i] - 1) + extra[d] + 1;
    TW_CHECK(size >= 1, op, ": the output must not be empty, got size ", size, " in dimension ", i - nd, " from input ",
             str_of(x.shape()));
    result.d[result.n++] = size;
    pads.d[pads.n++] = a.pad[d];
    pads.d[pads.n++] = a.pad[d] - extra[d];
  }
  return backward_x(op, nd, x, w, b, result, stride, pads, dilation, groups);
}

}  // namespace

void bind_conv(py::module_& m) {
  m.def("conv", &conv);
  m.def("conv_backward_x", &conv_backward_x);
  m.def("conv_backward_w", &conv_backward_w);
  m.def("conv_transpose", &conv_transpose);
  m.def("conv_tf32", [] { return allow_tf32; });
  m.def("set_conv_tf32", [](bool on) { allow_tf32 = on; });
  m.def("winograd", [] { return use_winograd; });
  m.def("set_winograd", [](bool on) { use_winograd = on; });
}

}  // namespace tw
