// Matrix products, convolution, pooling and interpolation.
#include "bindings/kernels.h"

namespace tw {
namespace {

// --- products --
Activation activation_of(const Call& c, std::string_view name) {
  constexpr std::string_view kNames[] = {"none", "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<Activation>(i);
  fail<std::invalid_argument>(c.op, ": activation must be none, relu, gelu, gelu_tanh, sigmoid, tanh or silu, got '",
                              name, "'");
}

// Whether the dimensions before the last can be seen as one.
bool joins(const View& v) {
  for (int d = 0; d + 2 < v.ndim(); ++d)
    if (v.size(d) != 1 && v.strides[d] != v.strides[d + 1] * v.size(d + 1)) return false;
  return true;
}

Arr gemm(Arr a_, Arr b_, Arr out_, Arr bias, const char* activation, double alpha, double beta) {
  Call c("gemm");
  const View& a = c.input("a", a_, kAny);
  const View& b = c.input("b", b_, kAny);
  const int na = a.ndim(), nb = b.ndim();
  TW_CHECK(na >= 2 && nb >= 2, "gemm: a and b must be (..., M, K) and (..., K, N), got ", str_of(a.shape), " @ ",
           str_of(b.shape));
  c.must_have_dtype(b, a.dtype);
  GemmArgs g{};
  g.M = a.size(na - 2);
  g.K = a.size(na - 1);
  g.N = b.size(nb - 1);
  TW_CHECK(b.size(nb - 2) == g.K, "gemm: inner sizes must match, got ", str_of(a.shape), " @ ", str_of(b.shape));
  Dims shape = broadcast_shapes("gemm", Dims(a.shape.d, na - 2), Dims(b.shape.d, nb - 2));
  TW_CHECK(shape.n + 2 <= kMaxDims, "gemm: at most ", kMaxDims, " dimensions, got ", str_of(a.shape), " @ ",
           str_of(b.shape));
  shape.push(g.M);
  shape.push(g.N);
  const View& out = c.output("out", out_, kAny);
  c.must_have_shape(out, shape);
  TW_CHECK_TYPE(out.dtype == a.dtype || (is_half(a.dtype) && out.dtype == DType::kFloat32),
                "gemm: out must have a's dtype (or float32 for halves), got ", name(out.dtype), " and ", name(a.dtype));
  const int nc = shape.n;
  g.c_row = out.strides[nc - 2];
  TW_CHECK((g.N <= 1 || out.strides[nc - 1] == 1) && (g.M <= 1 || g.c_row >= g.N),
           "gemm: out's columns must be contiguous, got strides ", str_of(out.strides));
  g.a = a.data;
  g.b = b.data;
  g.c = out.data;
  if (bias.given()) g.bias = c.input("bias", bias, {g.N}, a.dtype).data;
  g.a_row = a.strides[na - 2];
  g.a_col = a.strides[na - 1];
  g.b_row = b.strides[nb - 2];
  g.b_col = b.strides[nb - 1];
  if (nb == 2 && na > 2 && joins(a) && joins(out)) {  // a batch against one matrix is one taller product
    for (int d = 0; d + 2 < na; ++d) g.M *= a.size(d);
  } else {
    g.batch_ndim = nc - 2;
    for (int d = 0; d < g.batch_ndim; ++d) {
      const int da = d - nc + na, db = d - nc + nb;
      g.batch[d] = shape[d];
      g.a_batch[d] = da >= 0 && a.size(da) != 1 ? a.strides[da] : 0;
      g.b_batch[d] = db >= 0 && b.size(db) != 1 ? b.strides[db] : 0;
      g.c_batch[d] = out.strides[d];
    }
  }
  g.dtype = a.dtype;
  g.c_dtype = out.dtype;
  g.alpha = alpha;
  g.beta = beta;
  g.activation = activation_of(c, activation);
  TW_CHECK_TYPE(g.activation == Activation::kNone || is_float(a.dtype),
                "gemm: an activation needs floating point, got ", name(a.dtype));
  return c.run(slots::gemm, g, out);
}

// --- convolution, pooling and interpolation over (N, C, spatial...) --
// Sizes as the kernels have them: three, of which missing leading ones are `missing`.
void spread(const Dims& d, int64_t missing, int64_t* to) {
  for (int i = 0; i < 3; ++i) to[i] = i < 3 - d.n ? missing : d[i - (3 - d.n)];
}

struct Window {
  int n;  // spatial dimensions
  Dims size, out, kernel, stride, pad, dilation;

  Window(const Call& c, const View& x, const View& y) : n(x.ndim() - 2) {
    TW_CHECK(n >= 1 && n <= 3 && y.ndim() == x.ndim(), c.op, ": ", x.role, " and ", y.role,
             " must be (N, C, ...) with 1 to 3 spatial dimensions, got ", str_of(x.shape), " and ", str_of(y.shape));
    TW_CHECK_TYPE(x.dtype == y.dtype, c.op, ": ", y.role, " must have ", x.role, "'s dtype, got ", name(y.dtype),
                  " and ", name(x.dtype));
    TW_CHECK(x.size(0) == y.size(0), c.op, ": ", y.role, " must have ", x.role, "'s batch size, got ", str_of(y.shape),
             " and ", str_of(x.shape));
    size = Dims(x.shape.d + 2, n);
    out = Dims(y.shape.d + 2, n);
  }

  void must_share_channels(const Call& c, const View& x, const View& y) const {
    TW_CHECK(x.size(1) == y.size(1), c.op, ": ", y.role, " must have ", x.role, "'s channels, got ", str_of(y.shape),
             " and ", str_of(x.shape));
  }

  // A number for all spatial dimensions, or one each.
  Dims each(const Call& c, const char* what, const Sizes& s, int64_t least) const {
    TW_CHECK(s.n == 1 || s.n == n, c.op, ": ", what, " must be an int or one for each of ", n, " dimensions, got ",
             str_of(s));
    Dims d;
    for (int i = 0; i < n; ++i) {
      d.push(s[s.n == 1 ? 0 : i]);
      TW_CHECK(d[i] >= least, c.op, ": ", what, " must be at least ", least, ", got ", str_of(s));
    }
    return d;
  }
  void read(const Call& c, const Sizes& strides, const Sizes& padding, const Sizes& dilations) {
    stride = strides.n < 0 ? kernel : each(c, "stride", strides, 1);
    pad = each(c, "padding", padding, 0);
    dilation = each(c, "dilation", dilations, 1);
  }

  // The outputs along dimension i; `ceil` lets the last window stick out.
  int64_t outputs(const Call& c, int i, bool ceil) const {
    const int64_t span = dilation[i] * (kernel[i] - 1) + 1, room = size[i] + 2 * pad[i] - span;
    TW_CHECK(room >= 0, c.op, ": the kernel must fit the padded input, got size ", size[i], " with padding ", pad[i],
             " for a kernel that spans ", span);
    const int64_t m = room / stride[i] + 1;
    return ceil && room % stride[i] && m * stride[i] < size[i] + pad[i] ? m + 1 : m;
  }
  void must_give(const Call& c, const View& y, bool or_ceil) const {
    Dims expected(y.shape.d, 2), most = expected;
    for (int i = 0; i < n; ++i) {
      expected.push(outputs(c, i, false));
      most.push(outputs(c, i, or_ceil));
    }
    for (int i = 0; i < n; ++i)
      TW_CHECK(out[i] == expected[i + 2] || out[i] == most[i + 2], c.op, ": ", y.role, " must have shape ",
               str_of(expected), or_ceil && !(most == expected) ? ", or up to " + str_of(most) : std::string(),
               ", got ", str_of(y.shape));
  }
};

// x, w and y of one convolution, in whichever role each of them comes.
ConvArgs conv_args(const Call& c, const View& x, const View& w, const View& y, const Sizes& stride,
                   const Sizes& padding, const Sizes& dilation, int64_t groups, bool winograd) {
  Window g(c, x, y);
  TW_CHECK_TYPE(w.dtype == x.dtype, c.op, ": ", w.role, " must have ", x.role, "'s dtype, got ", name(w.dtype), " and ",
                name(x.dtype));
  TW_CHECK(groups >= 1, c.op, ": groups must be at least 1, got ", groups);
  TW_CHECK(w.ndim() == x.ndim() && w.size(1) * groups == x.size(1) && w.size(0) == y.size(1) && w.size(0) % groups == 0,
           c.op, ": ", w.role, " must be (O, C / groups, ...) for ", x.role, " (N, C, ...) and ", y.role,
           " (N, O, ...), got ", str_of(w.shape), " with ", groups, " groups for ", str_of(x.shape), " and ",
           str_of(y.shape));
  g.kernel = Dims(w.shape.d + 2, g.n);
  for (int i = 0; i < g.n; ++i)
    TW_CHECK(g.kernel[i] >= 1, c.op, ": the kernel must not be empty, got ", str_of(w.shape));
  g.read(c, stride, padding, dilation);
  g.must_give(c, y, false);
  ConvArgs a{};
  a.N = x.size(0);
  a.C = x.size(1);
  a.O = w.size(0);
  spread(g.size, 1, a.size);
  spread(g.out, 1, a.out);
  spread(g.kernel, 1, a.kernel);
  spread(g.stride, 1, a.stride);
  spread(g.pad, 0, a.pad);
  spread(g.dilation, 1, a.dilation);
  a.groups = groups;
  a.winograd = winograd;
  a.dtype = x.dtype;
  return a;
}

Arr conv(Arr x_, Arr w_, Arr out_, Arr bias, const Sizes& stride, const Sizes& padding, const Sizes& dilation,
         int64_t groups, bool winograd) {
  Call c("conv");
  const View& x = c.input("x", x_, kDense | kFloat);
  const View& w = c.input("w", w_);
  const View& out = c.output("out", out_);
  ConvArgs a = conv_args(c, x, w, out, stride, padding, dilation, groups, winograd);
  if (bias.given()) a.b = c.input("bias", bias, {w.size(0)}, x.dtype).data;
  a.x = x.data;
  a.w = w.data;
  a.y = out.data;
  return c.run(slots::conv, a, out);
}

Arr conv_backward_x(Arr dy_, Arr w_, Arr out_, Arr bias, const Sizes& stride, const Sizes& padding,
                    const Sizes& dilation, int64_t groups, bool winograd) {
  Call c("conv_backward_x");
  const View& dy = c.input("dy", dy_, kDense | kFloat);
  const View& w = c.input("w", w_);
  const View& out = c.output("out", out_);
  ConvArgs a = conv_args(c, out, w, dy, stride, padding, dilation, groups, winograd);
  if (bias.given()) a.b = c.input("bias", bias, {out.size(1)}, dy.dtype).data;
  a.dy = dy.data;
  a.w = w.data;
  a.y = out.data;
  return c.run(slots::conv_backward_x, a, out);
}

Arr conv_backward_w(Arr dy_, Arr x_, Arr out_, const Sizes& stride, const Sizes& padding, const Sizes& dilation,
                    int64_t groups, bool winograd) {
  Call c("conv_backward_w");
  const View& dy = c.input("dy", dy_, kDense | kFloat);
  const View& x = c.input("x", x_);
  const View& out = c.output("out", out_);
  ConvArgs a = conv_args(c, x, out, dy, stride, padding, dilation, groups, winograd);
  a.dy = dy.data;
  a.x = x.data;
  a.y = out.data;
  return c.run(slots::conv_backward_w, a, out);
}

constexpr bool kForward = false, kBackward = true;

bool all_are(const Sizes& s, int64_t value) {
  for (int i = 0; i < s.n; ++i)
    if (s[i] != value) return false;
  return true;
}

// A pool from x, or its gradient from dy: the kernel's x is what is read and its y what is written. `image` is the
// larger side, x or dx, and `pooled` the smaller.
struct Pooling {
  Call c;
  const View &from, &out, &image, &pooled;
  Window g;
  PoolArgs a{};

  Pooling(const char* op, bool backward, Arr from_, Arr out_, const Sizes& kernel, const Sizes& stride,
          const Sizes& padding, const Sizes& dilation)
      : c(op),
        from(c.input(backward ? "dy" : "x", from_, kDense | kFloat)),
        out(c.output("out", out_)),
        image(backward ? out : from),
        pooled(backward ? from : out),
        g(c, image, pooled) {
    g.must_share_channels(c, image, pooled);
    a.x = from.data;
    a.y = out.data;
    a.planes = image.size(0) * image.size(1);
    a.dtype = image.dtype;
    spread(g.size, 1, a.in);
    spread(g.out, 1, a.out);
    if (kernel.n < 0) {
      TW_CHECK(stride.n < 0 && all_are(padding, 0) && all_are(dilation, 1), op,
               ": without a kernel_size (adaptive) there is no stride, padding or dilation, got ", str_of(stride), ", ",
               str_of(padding), " and ", str_of(dilation));
      adaptive_windows();
    } else {
      plain_windows(kernel, stride, padding, dilation);
    }
    spread(g.kernel, 1, a.k);
    spread(g.stride, 1, a.stride);
    spread(g.pad, 0, a.pad);
    spread(g.dilation, 1, a.dilation);
  }

  void adaptive_windows() {  // even ones are plain
    for (int i = 0; i < g.n; ++i) {
      TW_CHECK(g.size[i] > 0, c.op, ": planes must not be empty, got ", str_of(image.shape));
      a.adaptive |= g.out[i] == 0 || g.size[i] % g.out[i] != 0;
      g.kernel.push(g.out[i] ? g.size[i] / g.out[i] : 1);
      g.pad.push(0);
      g.dilation.push(1);
    }
    g.stride = g.kernel;
  }

  void plain_windows(const Sizes& kernel, const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
    g.kernel = g.each(c, "kernel_size", kernel, 1);
    g.read(c, stride, padding, dilation);
    for (int i = 0; i < g.n; ++i)
      TW_CHECK(2 * g.pad[i] <= g.kernel[i], c.op, ": padding must be at most half the kernel size, got ", str_of(g.pad),
               " for kernel ", str_of(g.kernel));
    g.must_give(c, pooled, true);
    for (int i = 0; i < g.n; ++i) {
      for (const int64_t o : {int64_t{0}, g.out[i] - 1}) {
        // The window's first position at or right of 0; with dilation it may step over a small input.
        const int64_t begin = o * g.stride[i] - g.pad[i], d = g.dilation[i];
        const int64_t at = begin < 0 ? begin + (d - 1 - begin) / d * d : begin;
        TW_CHECK(at < g.size[i] && at <= begin + d * (g.kernel[i] - 1), c.op,
                 ": each window must meet the input, got size ", g.size[i], ", kernel ", g.kernel[i], ", padding ",
                 g.pad[i], ", dilation ", d);
      }
    }
  }

  int64_t plane() const { return a.in[0] * a.in[1] * a.in[2]; }
  void set_indices(const View& indices) {
    TW_CHECK_TYPE(indices.dtype == DType::kInt32 || indices.dtype == DType::kInt64, c.op,
                  ": indices must be int32 or int64, got ", name(indices.dtype));
    c.must_have_shape(indices, pooled.shape);
    TW_CHECK(plane() <= 1 << 30, c.op, ": a plane may have at most ", 1 << 30, " items, got ", str_of(image.shape));
    a.indices = indices.data;
    a.index_dtype = indices.dtype;
  }
};

Arr max_pool(Arr x, Arr out, const Sizes& kernel, const Sizes& stride, const Sizes& padding, const Sizes& dilation,
             Arr indices) {
  Pooling p("max_pool", kForward, x, out, kernel, stride, padding, dilation);
  if (indices.given()) p.set_indices(p.c.output("indices", indices));
  return p.c.run(slots::max_pool, p.a, p.out);
}

// For what a kernel reads or writes wherever integers point.
template <class T> void must_point_into(const Call& c, const View& v, int64_t n) {
  const T* at = reinterpret_cast<const T*>(v.data);
  T least = 0, most = 0;
  for (int64_t i = 0; i < v.numel; ++i) {
    least = at[i] < least ? at[i] : least;
    most = at[i] > most ? at[i] : most;
  }
  TW_CHECK_INDEX(v.numel == 0 || (least >= 0 && most < n), c.op, ": ", v.role, " must be in [0, ", n, "), got ",
                 least < 0 ? least : most);
}

Arr max_pool_backward(Arr dy, Arr indices_, Arr out, const Sizes& kernel, const Sizes& stride, const Sizes& padding,
                      const Sizes& dilation) {
  Pooling p("max_pool_backward", kBackward, dy, out, kernel, stride, padding, dilation);
  const View& indices = p.c.input("indices", indices_);
  p.set_indices(indices);
  if (indices.dtype == DType::kInt32) must_point_into<int32_t>(p.c, indices, p.plane());
  else must_point_into<int64_t>(p.c, indices, p.plane());
  return p.c.run(slots::max_pool_backward, p.a, p.out);
}

Arr avg_pool(const char* op, const Slot<PoolArgs>& slot, bool backward, Arr from, Arr out, const Sizes& kernel,
             const Sizes& stride, const Sizes& padding, bool count_include_pad, double divisor) {
  Sizes one;
  one.push(1);
  Pooling p(op, backward, from, out, kernel, stride, padding, one);
  p.a.divisor = divisor;
  p.a.count_include_pad = count_include_pad;
  return p.c.run(slot, p.a, p.out);
}

Arr interpolate(Arr x_, Arr out_, nb::sequence indices, nb::sequence weights) {
  Call c("interpolate");
  const View& x = c.input("x", x_, kDense | kFloat);
  const View& out = c.output("out", out_);
  const Window g(c, x, out);
  g.must_share_channels(c, x, out);
  const auto n = static_cast<size_t>(g.n);
  TW_CHECK(nb::len(indices) == n && nb::len(weights) == n, "interpolate: indices and weights must hold ", n,
           " arrays each, one a spatial dimension, got ", nb::len(indices), " and ", nb::len(weights));
  InterpolateArgs a{};
  a.x = x.data;
  a.y = out.data;
  a.planes = x.size(0) * x.size(1);
  a.dtype = x.dtype;
  spread(g.size, 1, a.in);
  spread(g.out, 1, a.out);
  for (int i = 0; i < 3; ++i) {
    if (const int d = i - (3 - g.n); d >= 0) {
      const nb::object at = indices[d], weight = weights[d];
      const View& index = c.input("indices", Arr{at.ptr()});
      c.must_have_dtype(index, DType::kInt32);
      TW_CHECK(index.ndim() == 2 && index.size(0) > 0 && index.size(1) == g.out[d],
               "interpolate: indices must be (taps, out's size), got ", str_of(index.shape), " for out ",
               str_of(out.shape));
      must_point_into<int32_t>(c, index, g.size[d]);
      a.taps[i] = index.size(0);
      a.index[i] = reinterpret_cast<const int32_t*>(index.data);
      a.weight[i] = c.input("weights", Arr{weight.ptr()}, index.shape, accumulator(x.dtype)).data;
    } else {  // one item of weight 1
      auto* index = c.temporary<int32_t>(1);
      *index = 0;
      void* weight = c.temporary(sizeof(double));
      if (x.dtype == DType::kFloat64) *static_cast<double*>(weight) = 1;
      else *static_cast<float*>(weight) = 1;
      a.taps[i] = 1;
      a.index[i] = index;
      a.weight[i] = weight;
    }
  }
  return c.run(slots::interpolate, a, out);
}

}  // namespace

void bind_products(nb::module_& m) {
  const auto x = nb::arg("x"), out = nb::arg("out"), dy = nb::arg("dy"), w = nb::arg("w");
  const auto stride = nb::arg("stride"), padding = nb::arg("padding"), dilation = nb::arg("dilation");
  m.def("gemm", &gemm, nb::arg("a"), nb::arg("b"), out, nb::arg("bias").none() = nb::none(),
        nb::arg("activation") = "none", nb::arg("alpha") = 1.0, nb::arg("beta") = 0.0,
        R"(out = activation(alpha * a @ b + beta * out + bias), for one product or a batch.

a: (..., M, K) and b: (..., K, N), of one dtype and any strides, so a transposed view costs nothing; batch sizes
broadcast. out: (..., M, N) with contiguous columns, of their dtype, or float32 for float16 and bfloat16. bias: (N,).
activation: none, relu, gelu, gelu_tanh, sigmoid, tanh or silu. Halves and float32 accumulate in float32, float64 in
float64, integers in int64. beta 0 does not read out.

Raises: ValueError: shapes, layout, overlapping or read-only memory, activation. TypeError: dtypes.

>>> a, c = np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 2), np.float32)
>>> kernels.gemm(a, a.T, out=c, alpha=1, beta=1).tolist()
[[6.0, 12.0], [12.0, 26.0]]
)");
  m.def("conv", &conv, x, w, out, nb::arg("bias").none() = nb::none(), stride = 1, padding = 0, dilation = 1,
        nb::arg("groups") = 1, nb::arg("winograd") = true,
        R"(out = x correlated with w, plus bias (O,), in one, two or three spatial dimensions.

x: floats (N, C, n...); w: (O, C / groups, k...); out: (N, O, m...), each m = (n + 2 padding - dilation (k - 1) - 1) //
stride + 1. stride, padding, dilation: an int or one a dimension. winograd: whether 3x3 filters may take fewer
multiplications, which round differently. One dtype; all contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32)
>>> kernels.conv(x, w, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[4.0, 4.0], [4.0, 4.0]]]]
)");
  m.def("conv_backward_x", &conv_backward_x, dy, w, out, nb::arg("bias").none() = nb::none(), stride = 1, padding = 0,
        dilation = 1, nb::arg("groups") = 1, nb::arg("winograd") = true,
        R"(out = the gradient of conv by x, from dy (N, O, m...), plus bias (C,): a transposed convolution of dy.

The rest as in conv.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> dy, w = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 2, 2), np.float32)
>>> kernels.conv_backward_x(dy, w, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[1.0, 1.0], [1.0, 1.0]]]]
)");
  m.def("conv_backward_w", &conv_backward_w, dy, x, out, stride = 1, padding = 0, dilation = 1, nb::arg("groups") = 1,
        nb::arg("winograd") = true,
        R"(out = the gradient of conv by w, from dy (N, O, m...); the rest as in conv.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> dy, x = np.ones((1, 1, 2, 2), np.float32), np.ones((1, 1, 3, 3), np.float32)
>>> kernels.conv_backward_w(dy, x, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[4.0, 4.0], [4.0, 4.0]]]]
)");
  const auto kernel_size = nb::arg("kernel_size").none();
  m.def("max_pool", &max_pool, x, out, kernel_size, stride = nb::none(), padding = 0, dilation = 1,
        nb::arg("indices").none() = nb::none(),
        R"(out = the largest value of each window of x; indices, where given, its position in x's plane.

x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...), each m rounded down or up (ceil_mode).
kernel_size, stride, padding, dilation: an int or one a dimension; stride: kernel_size where None. kernel_size None:
adaptive, window o of a dimension is floor(o n / m) to ceil((o + 1) n / m) - 1. Padding counts as -inf. indices: int32
or int64, of out's shape. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
>>> kernels.max_pool(x, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[5.0, 7.0], [13.0, 15.0]]]]
>>> kernels.max_pool(x, out=np.empty((1, 1, 1, 3), np.float32), kernel_size=None).tolist()
[[[[13.0, 14.0, 15.0]]]]
)");
  m.def("max_pool_backward", &max_pool_backward, dy, nb::arg("indices"), out, kernel_size, stride = nb::none(),
        padding = 0, dilation = 1,
        R"(out (N, C, n...) = dy's values added where indices, from max_pool, say; 0 elsewhere.

The windows must be those that max_pool was given; the rest as there.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: an index outside the
plane.

>>> dy, indices = np.ones((1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1), 3)
>>> kernels.max_pool_backward(dy, indices, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[0.0, 0.0], [0.0, 1.0]]]]
)");
  const auto define_avg = [&](const char* op, const Slot<PoolArgs>& slot, bool backward, const char* doc) {
    m.def(
        op,
        [op, &slot, backward](Arr from, Arr out, const Sizes& kernel, const Sizes& stride, const Sizes& padding,
                              bool count_include_pad, double divisor) {
          return avg_pool(op, slot, backward, from, out, kernel, stride, padding, count_include_pad, divisor);
        },
        backward ? dy : x, out, kernel_size, stride = nb::none(), padding = 0, nb::arg("count_include_pad") = true,
        nb::arg("divisor_override") = 0.0, doc);
  };
  define_avg("avg_pool", slots::avg_pool, kForward, R"(out = the mean of each window of x.

x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...), each m rounded down or up (ceil_mode).
Windows as in max_pool, adaptive ones (kernel_size None) too. count_include_pad: padding counts as zeros.
divisor_override: divides the sums instead, where not 0. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
>>> kernels.avg_pool(x, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[2.5, 4.5], [10.5, 12.5]]]]
>>> kernels.avg_pool(x, out=np.empty((1, 1, 1, 1), np.float32), kernel_size=None).tolist()
[[[[7.5]]]]
)");
  define_avg("avg_pool_backward", slots::avg_pool_backward, kBackward,
             R"(out (N, C, n...) = the gradient of avg_pool by x, from dy (N, C, m...); the rest as in avg_pool.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> dy = np.ones((1, 1, 1, 1), np.float32)
>>> kernels.avg_pool_backward(dy, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[0.25, 0.25], [0.25, 0.25]]]]
)");
  m.def("interpolate", &interpolate, x, out, nb::arg("indices"), nb::arg("weights"),
        R"(out[..., o] = the sum over t of weights[t, o] * x[..., indices[t, o]], along each spatial dimension.

x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...). indices, weights: one array (taps, m) for
each of them: int32, each in [0, n); float64 for float64 x, else float32. What a weight of 0 points at is not read. Any
separable interpolation, and with the transposed tables its gradient. One dtype for x and out; all contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: an index out of
range.

>>> x = np.array([[[1, 3]]], np.float32)
>>> at, weights = np.array([[0, 0, 1], [0, 1, 1]], np.int32), np.full((2, 3), 0.5, np.float32)
>>> kernels.interpolate(x, out=np.empty((1, 1, 3), np.float32), indices=[at], weights=[weights]).tolist()
[[[1.0, 2.0, 3.0]]]
)");
}

}  // namespace tw
