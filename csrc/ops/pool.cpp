// max_pool2d, avg_pool2d and adaptive_avg_pool2d over (N, C, H, W) or (C, H, W): shapes, checks, launches, bindings.
#include <algorithm>

#include "bindings/bind.h"
#include "dispatch.h"
#include "ops/common.h"

namespace tw {
namespace {

struct Pair {
  int64_t h, w;
};
std::string str_of(const Pair& p) { return str("(", p.h, ", ", p.w, ")"); }

Pair pair_of(const char* op, const char* what, const Dims& d, int64_t least) {
  TW_CHECK(d.n == 1 || d.n == 2, op, ": ", what, " must be an int or a pair, got ", tw::str_of(d));
  const Pair p{d[0], d[d.n - 1]};
  TW_CHECK(p.h >= least && p.w >= least, op, ": ", what, " must be at least ", least, ", got ", str_of(p));
  return p;
}

void check_input(const char* op, const Array& x) {
  TW_CHECK(x.ndim() == 3 || x.ndim() == 4, op, ": input must be (N, C, H, W) or (C, H, W), got ",
           tw::str_of(x.shape()));
  TW_CHECK_TYPE(is_float(x.dtype()), op, ": input must be floating point, got ", name(x.dtype()));
}

// x and y of one launch; the planes are the dimensions before the last two.
Pool2dArgs planes_of(const Array& image, const Array& pooled) {
  Pool2dArgs a{};
  const int n = image.ndim();
  a.H = image.size(n - 2);
  a.W = image.size(n - 1);
  a.oh = pooled.size(n - 2);
  a.ow = pooled.size(n - 1);
  a.planes = 1;
  for (int d = 0; d < n - 2; ++d) a.planes *= image.size(d);
  a.dtype = image.dtype();
  return a;
}

Array with_plane(const char* op, const Array& x, int64_t h, int64_t w, DType dtype) {
  Dims shape = x.shape();
  shape[shape.n - 2] = h;
  shape[shape.n - 1] = w;
  return Array::empty(op, shape, dtype, x.device());
}

struct Window {
  Pair k, stride, pad, dilation;

  Window(const char* op, const Dims& kernel, const std::optional<Dims>& strides, const Dims& padding,
         const Dims& dilations)
      : k(pair_of(op, "kernel_size", kernel, 1)),
        stride(strides && strides->n ? pair_of(op, "stride", *strides, 1) : k),
        pad(pair_of(op, "padding", padding, 0)),
        dilation(pair_of(op, "dilation", dilations, 1)) {
    TW_CHECK(2 * pad.h <= k.h && 2 * pad.w <= k.w, op, ": padding must be at most half the kernel size, got ",
             str_of(pad), " for kernel ", str_of(k));
  }

  static int64_t out(const char* op, int64_t size, int64_t k, int64_t stride, int64_t pad, int64_t dilation,
                     bool ceil_mode) {
    // In ceil_mode a window may stick out at the end, so that even one larger than the input has an output.
    const int64_t span = dilation * (k - 1) + 1, room = size + 2 * pad - span + (ceil_mode ? stride - 1 : 0);
    TW_CHECK(size > 0 && room >= 0, op, ": the window must fit the padded input, got size ", size, " with padding ",
             pad, " for a window of ", span);
    int64_t n = room / stride + 1;
    if (ceil_mode && (n - 1) * stride >= size + pad) --n;  // the last window must begin inside the input or left of it
    for (int64_t o : {int64_t{0}, n - 1}) {
      // First position of the window at or right of 0; with dilation it may step over a small input.
      int64_t at = o * stride - pad;
      if (at < 0) at += (-at + dilation - 1) / dilation * dilation;
      TW_CHECK(at < size && at <= o * stride - pad + span - 1, op, ": each window must meet the input, got size ", size,
               ", kernel ", k, ", padding ", pad, ", dilation ", dilation);
    }
    return n;
  }
  Pair out(const char* op, const Array& x, bool ceil_mode) const {
    const int n = x.ndim();
    return {out(op, x.size(n - 2), k.h, stride.h, pad.h, dilation.h, ceil_mode),
            out(op, x.size(n - 1), k.w, stride.w, pad.w, dilation.w, ceil_mode)};
  }
  void fill(Pool2dArgs* a) const {
    a->kh = k.h;
    a->kw = k.w;
    a->stride_h = stride.h;
    a->stride_w = stride.w;
    a->pad_h = pad.h;
    a->pad_w = pad.w;
    a->dilation_h = dilation.h;
    a->dilation_w = dilation.w;
  }
};

std::pair<Array, Array> max_pool2d(const Array& input, const Dims& kernel, const std::optional<Dims>& stride,
                                   const Dims& padding, const Dims& dilation, bool ceil_mode, bool want_indices) {
  check_input("max_pool2d", input);
  const Window window("max_pool2d", kernel, stride, padding, dilation);
  const Pair out = window.out("max_pool2d", input, ceil_mode);
  const Array x = contiguous(input);
  TW_CHECK(x.size(x.ndim() - 1) * x.size(x.ndim() - 2) <= INT32_MAX, "max_pool2d: a plane may have at most ", INT32_MAX,
           " items, got ", tw::str_of(x.shape()));
  const Array y = with_plane("max_pool2d", x, out.h, out.w, x.dtype());
  const Array indices = want_indices ? with_plane("max_pool2d", x, out.h, out.w, DType::kInt64) : Array();
  if (y.numel()) {
    Pool2dArgs a = planes_of(x, y);
    window.fill(&a);
    a.x = x.raw();
    a.y = y.raw();
    a.indices = want_indices ? indices.raw() : nullptr;
    launch(x.device(), slots::max_pool2d, a);
  }
  return {y, indices};
}

Array max_pool2d_backward(const Array& grad, const Array& positions, int64_t H, int64_t W) {
  const Array dy = contiguous(grad), indices = contiguous(positions);
  const Array dx = with_plane("max_pool2d_backward", dy, H, W, dy.dtype());
  if (dx.numel()) {
    Pool2dArgs a = planes_of(dx, dy);
    a.x = dy.raw();
    a.y = dx.raw();
    a.indices = indices.raw();
    launch(dy.device(), slots::max_pool2d_backward, a);
  }
  return dx;
}

Array avg_pool2d(const Array& input, const Dims& kernel, const std::optional<Dims>& stride, const Dims& padding,
                 bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor) {
  check_input("avg_pool2d", input);
  const Window window("avg_pool2d", kernel, stride, padding, Dims{1});
  TW_CHECK(!divisor || *divisor != 0, "avg_pool2d: divisor_override must not be zero, got 0");
  const Pair out = window.out("avg_pool2d", input, ceil_mode);
  const Array x = contiguous(input), y = with_plane("avg_pool2d", x, out.h, out.w, x.dtype());
  if (y.numel()) {
    Pool2dArgs a = planes_of(x, y);
    window.fill(&a);
    a.x = x.raw();
    a.y = y.raw();
    a.divisor = static_cast<double>(divisor.value_or(0));
    a.count_include_pad = count_include_pad;
    launch(x.device(), slots::avg_pool2d, a);
  }
  return y;
}

Array avg_pool2d_backward(const Array& grad, int64_t H, int64_t W, const Dims& kernel,
                          const std::optional<Dims>& stride, const Dims& padding, bool count_include_pad,
                          std::optional<int64_t> divisor) {
  const Window window("avg_pool2d", kernel, stride, padding, Dims{1});
  const Array dy = contiguous(grad), dx = with_plane("avg_pool2d_backward", dy, H, W, dy.dtype());
  if (dx.numel()) {
    Pool2dArgs a = planes_of(dx, dy);
    window.fill(&a);
    a.x = dy.raw();
    a.y = dx.raw();
    a.divisor = static_cast<double>(divisor.value_or(0));
    a.count_include_pad = count_include_pad;
    launch(dy.device(), slots::avg_pool2d_backward, a);
  }
  return dx;
}

Array adaptive_avg_pool2d(const Array& input, int64_t oh, int64_t ow) {
  const char* op = "adaptive_avg_pool2d";
  check_input(op, input);
  const Array x = contiguous(input);
  const int n = x.ndim();
  TW_CHECK(oh >= 0 && ow >= 0, op, ": output_size must not be negative, got ", str_of(Pair{oh, ow}));
  TW_CHECK(x.size(n - 2) > 0 && x.size(n - 1) > 0, op, ": the input's planes must not be empty, got ",
           tw::str_of(x.shape()));
  const Array y = with_plane(op, x, oh, ow, x.dtype());
  if (y.numel()) {
    Pool2dArgs a = planes_of(x, y);
    a.x = x.raw();
    a.y = y.raw();
    launch(x.device(), slots::adaptive_avg_pool2d, a);
  }
  return y;
}

Array adaptive_avg_pool2d_backward(const Array& grad, int64_t H, int64_t W) {
  const Array dy = contiguous(grad), dx = with_plane("adaptive_avg_pool2d_backward", dy, H, W, dy.dtype());
  if (dx.numel()) {
    Pool2dArgs a = planes_of(dx, dy);
    a.x = dy.raw();
    a.y = dx.raw();
    launch(dy.device(), slots::adaptive_avg_pool2d_backward, a);
  }
  return dx;
}

}  // namespace

void bind_pool(py::module_& m) {
  m.def("max_pool2d", &max_pool2d);
  m.def("max_pool2d_backward", &max_pool2d_backward);
  m.def("avg_pool2d", &avg_pool2d);
  m.def("avg_pool2d_backward", &avg_pool2d_backward);
  m.def("adaptive_avg_pool2d", &adaptive_avg_pool2d);
  m.def("adaptive_avg_pool2d_backward", &adaptive_avg_pool2d_backward);
}

}  // namespace tw
