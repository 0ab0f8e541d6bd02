// Pooling over the last one, two or three dimensions of (N, C, ...) or (C, ...): shapes, checks, launches, bindings.
#include <algorithm>

#include "bindings/bind.h"
#include "dispatch.h"
#include "ops/common.h"

namespace tw {

Array mean(const Array& x, const std::optional<Dims>& dims, bool keepdim, std::optional<DType> dtype);  // reduce.cpp

namespace {

constexpr const char* kLayouts[] = {"(N, C, L) or (C, L)", "(N, C, H, W) or (C, H, W)",
                                    "(N, C, D, H, W) or (C, D, H, W)"};

// One launch over nd spatial dimensions, and the checks of its arguments.
struct Pooling {
  const char* op;
  int nd;
  PoolArgs a{};

  Pooling(const std::string& name, int dims) : op(name.c_str()), nd(dims) {
    for (int i = 0; i < 3; ++i) a.in[i] = a.out[i] = a.k[i] = a.stride[i] = a.dilation[i] = 1;
  }

  // One value for all dimensions or one each, into to[3 - nd ..].
  void spread(const char* what, const Dims& d, int64_t least, int64_t* to) const {
    TW_CHECK(d.n == 1 || d.n == nd, op, ": ", what, " must be an int or ", nd, " ints, got ", str_of(d));
    for (int i = 0; i < nd; ++i) {
      to[3 - nd + i] = d[d.n == 1 ? 0 : i];
      TW_CHECK(to[3 - nd + i] >= least, op, ": ", what, " must be at least ", least, ", got ", str_of(d));
    }
  }

  void input(const Array& x) {
    TW_CHECK(x.ndim() == nd + 1 || x.ndim() == nd + 2, op, ": input must be ", kLayouts[nd - 1], ", got ",
             str_of(x.shape()));
    TW_CHECK(x.ndim() == nd + 2 || x.size(0) > 0, op, ": an input without a batch must have channels, got ",
             str_of(x.shape()));
    TW_CHECK_TYPE(is_float(x.dtype()), op, ": input must be floating point, got ", name(x.dtype()));
    sizes(x.shape());
    a.dtype = x.dtype();
  }
  void sizes(const Dims& shape) {  // the whole shape of the input
    for (int i = 0; i < nd; ++i) a.in[3 - nd + i] = shape[shape.n - nd + i];
    a.planes = 1;
    for (int i = 0; i < shape.n - nd; ++i) a.planes *= shape[i];
  }

  void window(const Dims& kernel, const OptionalDims& stride, const Dims& padding, const Dims& dilation) {
    spread("kernel_size", kernel, 1, a.k);
    spread("stride", stride && stride->n ? *stride : kernel, 1, a.stride);
    spread("padding", padding, 0, a.pad);
    spread("dilation", dilation, 1, a.dilation);
    for (int i = 3 - nd; i < 3; ++i)
      TW_CHECK(2 * a.pad[i] <= a.k[i], op, ": padding must be at most half the kernel size, got ", str_of(padding),
               " for kernel ", str_of(kernel));
  }

  // Output sizes of plain windows. In ceil_mode a window may stick out at the end, so that even one larger than the
  // input has an output.
  void plain(bool ceil_mode) {
    for (int i = 3 - nd; i < 3; ++i) {
      const int64_t size = a.in[i], k = a.k[i], stride = a.stride[i], pad = a.pad[i], dilation = a.dilation[i];
      const int64_t span = dilation * (k - 1) + 1, room = size + 2 * pad - span + (ceil_mode ? stride - 1 : 0);
      TW_CHECK(size > 0 && room >= 0, op, ": the window must fit the padded input, got size ", size, " with padding ",
               pad, " for a window of ", span);
      int64_t n = room / stride + 1;
      if (ceil_mode && (n - 1) * stride >= size + pad) --n;  // the last one must begin inside the input or left of it
      for (int64_t o : {int64_t{0}, n - 1}) {
        // First position of the window at or right of 0; with dilation it may step over a small input.
        int64_t at = o * stride - pad;
        if (at < 0) at += (-at + dilation - 1) / dilation * dilation;
        TW_CHECK(at < size && at <= o * stride - pad + span - 1, op, ": each window must meet the input, got size ",
                 size, ", kernel ", k, ", padding ", pad, ", dilation ", dilation);
      }
      a.out[i] = n;
    }
  }

  // A grid of output_size windows; even ones are plain.
  void adaptive(const Dims& output_size) {
    spread("output_size", output_size, 0, a.out);
    for (int i = 3 - nd; i < 3; ++i) {
      TW_CHECK(a.in[i] > 0, op, ": the input's planes must not be empty, got size ", a.in[i]);
      a.adaptive |= a.out[i] == 0 || a.in[i] % a.out[i] != 0;
      a.k[i] = a.stride[i] = a.out[i] ? a.in[i] / a.out[i] : 1;
    }
  }

  Array made(const Array& like, const int64_t* spatial, DType dtype, const char* role) const {
    Dims shape = like.shape();
    for (int i = 0; i < nd; ++i) shape[shape.n - nd + i] = spatial[3 - nd + i];
    return result(op, shape, dtype, like.device(), role);
  }

  Array run(const Slot<PoolArgs>& slot, const Array& input, const int64_t* spatial) {
    const Array x = contiguous(input), y = made(x, spatial, x.dtype(), "out");
    a.x = x.raw();
    a.y = y.raw();
    if (y.numel()) launch(x.device(), slot, a);
    return y;
  }

  // indices: 0 none, 4 for int32, 8 for int64.
  std::pair<Array, Array> maximum(const Array& x, int indices) {
    const int64_t plane = a.in[0] * a.in[1] * a.in[2];
    TW_CHECK(plane <= 1 << 30, op, ": a plane may have at most ", 1 << 30, " items, got ", str_of(x.shape()));
    Array at;
    if (indices) {
      a.index_dtype = indices == 4 ? DType::kInt32 : DType::kInt64;
      at = made(x, a.out, a.index_dtype, "indices");
      a.indices = at.raw();
    }
    return {run(slots::max_pool, x, a.out), at};
  }
};

}  // namespace

std::pair<Array, Array> max_pool(const std::string& op, int nd, const Array& x, const Dims& kernel,
                                 const OptionalDims& stride, const Dims& padding, const Dims& dilation, bool ceil_mode,
                                 int indices) {
  Pooling p(op, nd);
  p.input(x);
  p.window(kernel, stride, padding, dilation);
  p.plain(ceil_mode);
  return p.maximum(x, indices);
}

std::pair<Array, Array> adaptive_max_pool(const std::string& op, int nd, const Array& x, const Dims& output_size,
                                          int indices) {
  Pooling p(op, nd);
  p.input(x);
  p.adaptive(output_size);
  return p.maximum(x, indices);
}

// window: what the forward was given, which tells how windows meet; of adaptive pooling, the output's sizes are enough.
Array max_pool_backward(const std::string& op, int nd, const Array& dy, const Array& positions, const Dims& shape,
                        const std::optional<Window>& window) {
  Pooling p(op, nd);
  p.sizes(shape);
  for (int i = 0; i < nd; ++i) p.a.out[3 - nd + i] = dy.size(dy.ndim() - nd + i);
  if (window) std::apply([&](auto&... given) { p.window(given...); }, *window);
  else p.adaptive(Dims(p.a.out + 3 - nd, nd));
  const Array indices = contiguous(positions);
  p.a.dtype = dy.dtype();
  p.a.indices = indices.raw();
  p.a.index_dtype = indices.dtype();
  return p.run(slots::max_pool_backward, dy, p.a.in);
}

Array avg_pool(const std::string& op, int nd, const Array& x, const Dims& kernel, const OptionalDims& stride,
               const Dims& padding, bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor) {
  Pooling p(op, nd);
  p.input(x);
  p.window(kernel, stride, padding, Dims{1});
  p.plain(ceil_mode);
  TW_CHECK(!divisor || *divisor != 0, op, ": divisor_override must not be zero, got 0");
  p.a.divisor = static_cast<double>(divisor.value_or(0));
  p.a.count_include_pad = count_include_pad;
  return p.run(slots::avg_pool, x, p.a.out);
}

Array avg_pool_backward(const std::string& op, int nd, const Array& dy, const Dims& shape, const Dims& kernel,
                        const OptionalDims& stride, const Dims& padding, bool ceil_mode, bool count_include_pad,
                        std::optional<int64_t> divisor) {
  Pooling p(op, nd);
  p.sizes(shape);
  p.window(kernel, stride, padding, Dims{1});
  p.plain(ceil_mode);
  p.a.dtype = dy.dtype();
  p.a.divisor = static_cast<double>(divisor.value_or(0));
  p.a.count_include_pad = count_include_pad;
  return p.run(slots::avg_pool_backward, dy, p.a.in);
}

Array adaptive_avg_pool(const std::string& op, int nd, const Array& x, const Dims& output_size) {
  Pooling p(op, nd);
  p.input(x);
  p.adaptive(output_size);
  if (p.a.out[0] * p.a.out[1] * p.a.out[2] != 1) return p.run(slots::avg_pool, x, p.a.out);
  Dims planes;
  for (int i = 1; i <= nd; ++i) planes.push(-i);
  return mean(x, planes, true, std::nullopt);
}

Array adaptive_avg_pool_backward(const std::string& op, int nd, const Array& dy, const Dims& shape) {
  Pooling p(op, nd);
  p.sizes(shape);
  Dims out;
  for (int i = 0; i < nd; ++i) out.push(dy.size(dy.ndim() - nd + i));
  p.adaptive(out);
  p.a.dtype = dy.dtype();
  return p.run(slots::avg_pool_backward, dy, p.a.in);
}

void bind_pool(py::module_& m) {
  m.def("max_pool", &max_pool);
  m.def("max_pool_backward", &max_pool_backward);
  m.def("adaptive_max_pool", &adaptive_max_pool);
  m.def("avg_pool", &avg_pool);
  m.def("avg_pool_backward", &avg_pool_backward);
  m.def("adaptive_avg_pool", &adaptive_avg_pool);
  m.def("adaptive_avg_pool_backward", &adaptive_avg_pool_backward);
}

}  // namespace tw
