// Matrix products, convolution, pooling, interpolation, pads, attention and recurrent layers.
#include <cmath>

#include "bindings/kernels.h"

namespace tw {
namespace {

template <size_t n>
int choice(const char* op, const char* role, std::string_view given, const char* const (&names)[n]) {
  std::string all;
  for (size_t i = 0; i < n; ++i) {
    if (given == names[i]) return static_cast<int>(i);
    all += str(i == 0 ? "" : i + 1 < n ? ", " : " or ", names[i]);
  }
  fail<std::invalid_argument>(op, ": ", role, " must be ", all, ", got '", given, "'");
}

void open_products_only(nb::module_& m) {
  const auto x = "x"_a, w = "w"_a, dy = "dy"_a, out = "out"_a;
  const auto bias = none("bias");
  open(m, "gemm", args("a"_a, "b"_a, out, bias, "activation"_a = "none", "alpha"_a = 1.0, "beta"_a = 0.0),
       R"(out = activation(alpha * a @ b + beta * out + bias), for one product or a batch.
a: (..., M, K) and b: (..., K, N), of one dtype and any strides, so a transposed view costs nothing; batch sizes
broadcast. out: (..., M, N) with contiguous columns, of their dtype, or float32 for float16 and bfloat16. bias: (N,).
activation: none, relu, gelu, gelu_tanh, sigmoid, tanh or silu. Halves and float32 accumulate in float32, float64 in
float64, integers in int64. beta 0 does not read out.
>>> a, c = np.array([[1, 2], [3, 4]], np.float32), np.ones((2, 2), np.float32)
>>> kernels.gemm(a, a.T, out=c, alpha=1, beta=1).tolist()
[[6.0, 12.0], [12.0, 26.0]]
)",
       [](Call& c, In a, In b, StridedOut out, OptIn bias, const std::string& activation, double alpha, double beta) {
         static constexpr const char* kNames[] = {"none", "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu"};
         const auto f = static_cast<Activation>(choice(c.op, "activation", activation, kNames));
         const bool wide = is_half(a->dtype()) && out->dtype() == DType::kFloat32;
         product(c.op, a, b, bias, wide ? out->dtype() : a->dtype(), f, alpha, beta);
       });

  struct Allowed {  // this thread's convolutions to go by Winograd's method, for one call
    explicit Allowed(bool on) { may_use_winograd = on; }
    ~Allowed() { may_use_winograd = true; }
  };
  const auto spatial = [](const Call& c, const Array& x) {
    TW_CHECK(x.ndim() >= 3 && x.ndim() <= 5, c.op, ": arrays must be (N, C, ...) with 1 to 3 spatial dimensions, got ",
             str_of(x.shape()));
    return x.ndim() - 2;
  };
  using S = const Sizes&;
  const auto stride = "stride"_a = 1, padding = "padding"_a = 0, dilation = "dilation"_a = 1, groups = "groups"_a = 1;
  const auto winograd = "winograd"_a = true;
  open(m, "conv", args(x, w, out, bias, stride, padding, dilation, groups, winograd),
       R"(out = x correlated with w, plus bias (O,), in one, two or three spatial dimensions.
x: floats (N, C, n...); w: (O, C / groups, k...); out: (N, O, m...), each m = (n + 2 padding - dilation (k - 1) - 1) //
stride + 1. stride, padding, dilation: an int or one a dimension. winograd: whether 3x3 filters may take fewer
multiplications, which round differently (set_winograd(False) forbids it as well). One dtype; all contiguous.
>>> x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32)
>>> kernels.conv(x, w, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[4.0, 4.0], [4.0, 4.0]]]]
)",
       [spatial](Call& c, In x, In w, Out, OptIn bias, S stride, S padding, S dilation, int64_t groups, bool winograd) {
         const Allowed allowed(winograd);
         conv(spatial(c, x), x, w, bias, stride, padding, dilation, groups);
       });
  open(m, "conv_backward_x", args(dy, w, out, bias, stride, padding, dilation, groups, winograd),
       R"(out = the gradient of conv by x, from dy (N, O, m...), plus bias (C,): a transposed convolution of dy.
The rest as in conv.
>>> dy, w = np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 2, 2), np.float32)
>>> kernels.conv_backward_x(dy, w, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[1.0, 1.0], [1.0, 1.0]]]]
)",
       [spatial](Call& c, In dy, In w, Out out, OptIn bias, S stride, S padding, S dilation, int64_t groups,
                 bool winograd) {
         const Allowed allowed(winograd);
         conv_backward_x(spatial(c, dy), dy, w, bias, out->shape(), stride, padding, dilation, groups);
       });
  open(m, "conv_backward_w", args(dy, x, out, stride, padding, dilation, groups, winograd),
       R"(out = the gradient of conv by w, from dy (N, O, m...); the rest as in conv.
>>> dy, x = np.ones((1, 1, 2, 2), np.float32), np.ones((1, 1, 3, 3), np.float32)
>>> kernels.conv_backward_w(dy, x, out=np.empty((1, 1, 2, 2), np.float32)).tolist()
[[[[4.0, 4.0], [4.0, 4.0]]]]
)",
       [spatial](Call& c, In dy, In x, Out out, S stride, S padding, S dilation, int64_t groups, bool winograd) {
         const Allowed allowed(winograd);
         conv_backward_w(spatial(c, dy), dy, x, out->shape(), stride, padding, dilation, groups);
       });
}

// --- pooling and interpolation --
// The windows that lead from the image (x or dx) to the pooled side, whose sizes say whether the last one sticks out.
struct Pooling {
  const char* op;
  int nd;
  const Dims &image, &pooled;
  bool adaptive, ceil = false;
  Dims padding, dilation, expected, sizes;  // expected: of the pooled side; sizes: its spatial ones

  Pooling(const Call& c, const Dims& image, const Dims& pooled, const Sizes& kernel, const Sizes& stride,
          const Sizes& padding, const Sizes& dilation)
      : op(c.op),
        nd(image.n - 2),
        image(image),
        pooled(pooled),
        adaptive(kernel.n < 0),
        padding(padding),
        dilation(dilation),
        expected(image) {
    TW_CHECK(nd >= 1 && nd <= 3 && pooled.n == image.n, op,
             ": arrays must be (N, C, ...) with 1 to 3 spatial dimensions, ", "got ", str_of(image), " and ",
             str_of(pooled));
    sizes = Dims(pooled.d + 2, nd);
    if (adaptive) {
      bool plain = stride.n < 0;
      for (int i = 0; i < padding.n; ++i) plain &= padding[i] == 0;
      for (int i = 0; i < dilation.n; ++i) plain &= dilation[i] == 1;
      TW_CHECK(plain, op, ": without a kernel_size (adaptive) there is no stride, padding or dilation, got ",
               stride.n < 0 ? "None" : str_of(stride), ", ", str_of(padding), " and ", str_of(dilation));
      for (int i = 0; i < nd; ++i) expected[i + 2] = sizes[i];
      return;
    }
    const auto at = [this](const Dims& d, int i) { return d.n == 1 ? d[0] : i < d.n ? d[i] : 0; };
    const Dims& step = stride.n < 0 ? static_cast<const Dims&>(kernel) : stride;
    for (const bool up : {false, true}) {
      for (int i = 0; i < nd && !(expected == pooled); ++i) {
        const int64_t s = at(step, i), n = image[i + 2], p = at(padding, i);
        const int64_t room = n + 2 * p - at(dilation, i) * (at(kernel, i) - 1) - 1;
        if (s < 1 || room < 0) return;  // which the op refuses in its own words
        expected[i + 2] = room / s + 1 + (up && room % s && (room / s + 1) * s < n + p);
      }
      if (expected == pooled) return;
      ceil = !up;
    }
  }

  void must_lead_to(const char* role, const Array& dy, DType t) const { check_is(op, role, dy, expected, t); }

  // For what a kernel writes wherever indices point.
  template <class T> void must_point_into_plane(const Array& indices) const {
    int64_t plane = 1, least = 0, most = 0;
    for (int i = 0; i < nd; ++i) plane *= image[i + 2];
    for (int64_t i = 0; i < indices.numel(); ++i) {
      least = std::min<int64_t>(least, indices.data<T>()[i]);
      most = std::max<int64_t>(most, indices.data<T>()[i]);
    }
    TW_CHECK_INDEX(indices.numel() == 0 || (least >= 0 && most < plane), op, ": indices must be in [0, ", plane,
                   "), got ", least < 0 ? least : most);
  }
};

bool index_dtype(const Call& c, const Array& indices) {  // whether it is int64
  TW_CHECK_TYPE(indices.dtype() == DType::kInt32 || indices.dtype() == DType::kInt64, c.op,
                ": indices must be int32 or int64, got ", name(indices.dtype()));
  return indices.dtype() == DType::kInt64;
}

void open_pools(nb::module_& m) {
  using S = const Sizes&;
  const auto x = "x"_a, dy = "dy"_a, out = "out"_a;
  const auto kernel_size = "kernel_size"_a.none();
  const auto stride = none("stride"), indices = none("indices");
  const auto padding = "padding"_a = 0, dilation = "dilation"_a = 1;
  open(m, "max_pool", args(x, out, kernel_size, stride, padding, dilation, indices),
       R"(out = the largest value of each window of x; indices, where given, its position in x's plane.
x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...), each m rounded down or up (ceil_mode).
kernel_size, stride, padding, dilation: an int or one a dimension; stride: kernel_size where None. kernel_size None:
adaptive, window o of a dimension is floor(o n / m) to ceil((o + 1) n / m) - 1. Padding counts as -inf. indices: int32
or int64, of out's shape. All contiguous.
>>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
>>> kernels.max_pool(x, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[5.0, 7.0], [13.0, 15.0]]]]
>>> kernels.max_pool(x, out=np.empty((1, 1, 1, 3), np.float32), kernel_size=None).tolist()
[[[[13.0, 14.0, 15.0]]]]
)",
       [](Call& c, In x, Out out, S kernel, S stride, S padding, S dilation, OptOut indices) {
         const Pooling p(c, x->shape(), out->shape(), kernel, stride, padding, dilation);
         const int kind = !indices ? 0 : index_dtype(c, *indices.operator->()) ? 8 : 4;
         if (p.adaptive) adaptive_max_pool(c.op, p.nd, x, p.sizes, kind);
         else max_pool(c.op, p.nd, x, kernel, stride.or_none(), padding, dilation, p.ceil, kind);
       });
  open(m, "max_pool_backward", args(dy, "indices"_a, out, kernel_size, stride, padding, dilation),
       R"(out (N, C, n...) = dy's values added where indices, from max_pool, say; 0 elsewhere.
The windows must be those that max_pool was given; the rest as there.
>>> dy, indices = np.ones((1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1), 3)
>>> kernels.max_pool_backward(dy, indices, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[0.0, 0.0], [0.0, 1.0]]]]
)",
       [](Call& c, In dy, Dense indices, Out out, S kernel, S stride, S padding, S dilation) {
         const Pooling p(c, out->shape(), dy->shape(), kernel, stride, padding, dilation);
         p.must_lead_to("dy", dy, out->dtype());
         p.must_lead_to("indices", indices, indices->dtype());
         if (index_dtype(c, indices)) p.must_point_into_plane<int64_t>(indices);
         else p.must_point_into_plane<int32_t>(indices);
         max_pool_backward(c.op, p.nd, dy, indices, out->shape(),
                           p.adaptive ? std::optional<Window>() : Window{kernel, stride.or_none(), padding, dilation});
       });
  const auto count = "count_include_pad"_a = true, override = "divisor_override"_a = 0;
  const auto divisor = [](int64_t d) { return d ? std::optional<int64_t>(d) : std::nullopt; };
  open(m, "avg_pool", args(x, out, kernel_size, stride, padding, count, override),
       R"(out = the mean of each window of x.
x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...), each m rounded down or up (ceil_mode).
Windows as in max_pool, adaptive ones (kernel_size None) too. count_include_pad: padding counts as zeros.
divisor_override: divides the sums instead, where not 0. All contiguous.
>>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
>>> kernels.avg_pool(x, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[2.5, 4.5], [10.5, 12.5]]]]
>>> kernels.avg_pool(x, out=np.empty((1, 1, 1, 1), np.float32), kernel_size=None).tolist()
[[[[7.5]]]]
)",
       [divisor](Call& c, In x, Out out, S kernel, S stride, S padding, bool count, int64_t d) {
         const Pooling p(c, x->shape(), out->shape(), kernel, stride, padding, {{1}});
         if (p.adaptive) adaptive_avg_pool(c.op, p.nd, x, p.sizes);
         else avg_pool(c.op, p.nd, x, kernel, stride.or_none(), padding, p.ceil, count, divisor(d));
       });
  open(m, "avg_pool_backward", args(dy, out, kernel_size, stride, padding, count, override),
       R"(out (N, C, n...) = the gradient of avg_pool by x, from dy (N, C, m...); the rest as in avg_pool.
>>> dy = np.ones((1, 1, 1, 1), np.float32)
>>> kernels.avg_pool_backward(dy, out=np.empty((1, 1, 2, 2), np.float32), kernel_size=2).tolist()
[[[[0.25, 0.25], [0.25, 0.25]]]]
)",
       [divisor](Call& c, In dy, Out out, S kernel, S stride, S padding, bool count, int64_t d) {
         const Pooling p(c, out->shape(), dy->shape(), kernel, stride, padding, {{1}});
         p.must_lead_to("dy", dy, out->dtype());
         if (p.adaptive) adaptive_avg_pool_backward(c.op, p.nd, dy, out->shape());
         else
           avg_pool_backward(c.op, p.nd, dy, out->shape(), kernel, stride.or_none(), padding, p.ceil, count,
                             divisor(d));
       });
  open(m, "interpolate", args(x, out, "indices"_a, "weights"_a),
       R"(out[..., o] = the sum over t of weights[t, o] * x[..., indices[t, o]], along each spatial dimension.
x: floats (N, C, n...) of one to three spatial dimensions; out: (N, C, m...). indices, weights: one array (taps, m) for
each of them: int32, each in [0, n); float64 for float64 x, else float32. What a weight of 0 points at is not read. Any
separable interpolation, and with the transposed tables its gradient. One dtype for x and out; all contiguous.
>>> x = np.array([[[1, 3]]], np.float32)
>>> at, weights = np.array([[0, 0, 1], [0, 1, 1]], np.int32), np.full((2, 3), 0.5, np.float32)
>>> kernels.interpolate(x, out=np.empty((1, 1, 3), np.float32), indices=[at], weights=[weights]).tolist()
[[[1.0, 2.0, 3.0]]]
)",
       [](Call& c, In x, Out out, const InList& indices, const InList& weights) {
         const int nd = x->ndim() - 2;
         const auto n = static_cast<size_t>(nd);
         TW_CHECK(nd >= 1 && nd <= 3 && out->ndim() == x->ndim(), c.op, ": x and out must be (N, C, ...) with 1 to 3 ",
                  "spatial dimensions, got ", str_of(x->shape()), " and ", str_of(out->shape()));
         TW_CHECK(indices.items.size() == n && weights.items.size() == n, c.op, ": indices and weights must hold ", n,
                  " arrays each, one a spatial dimension, got ", indices.items.size(), " and ", weights.items.size());
         const DType acc = x->dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
         std::vector<TapTable> tables;
         for (int i = 0; i < nd; ++i) {
           const Given *index = indices.items[static_cast<size_t>(i)], *weight = weights.items[static_cast<size_t>(i)];
           TW_CHECK_TYPE(index && weight, c.op, ": indices and weights must hold arrays, got None");
           const Array& at = index->array;
           const int64_t size = x->size(i + 2);
           TW_CHECK(at.ndim() == 2 && at.size(0) > 0 && at.size(1) == out->size(i + 2), c.op,
                    ": indices must be (taps, out's size), got ", str_of(at.shape()), " for out ",
                    str_of(out->shape()));
           check_is(c.op, "indices", at, at.shape(), DType::kInt32);
           check_is(c.op, "weights", weight->array, at.shape(), acc);
           tables.push_back({contiguous(at), contiguous(weight->array)});
           for (int64_t k = 0; k < at.numel(); ++k)
             TW_CHECK_INDEX(at.data<int32_t>()[k] >= 0 && at.data<int32_t>()[k] < size, c.op,
                            ": indices must be in [0, ", size, "), got ", at.data<int32_t>()[k]);
         }
         interpolate_by(x, tables);
       });
  open(m, "pad", args(x, out, "pad"_a, "mode"_a = "constant", "value"_a = 0.0),
       R"(out = x with borders: pad holds (before, after) of the last dimension, then of the one before it, and so on.
mode: constant (value, a number), reflect, replicate or circular. Negative widths crop. Any dtype; contiguous.
>>> x = np.array([1, 2, 3], np.float32)
>>> kernels.pad(x, out=np.empty(5, np.float32), pad=(1, 1), mode="reflect").tolist()
[2.0, 1.0, 2.0, 3.0, 2.0]
)",
       [](Call&, In x, Out, const std::vector<int64_t>& widths, const std::string& mode, Value value) {
         pad(x, widths, mode, value);
       });
  open(m, "pad_backward", args(dy, out, "pad"_a, "mode"_a),
       R"(out = the gradient of pad by x: dy's values summed into the places that they were copied from.
dy: floats, of pad's out; out: of its x. Contiguous.
>>> kernels.pad_backward(np.ones(4), out=np.empty(2), pad=(1, 1), mode="replicate").tolist()
[2.0, 2.0]
)",
       [](Call&, In dy, Out out, const std::vector<int64_t>& widths, const std::string& mode) {
         pad_backward(dy, out->shape(), widths, mode);
       });
}

// --- attention and recurrent layers --
void must_have_columns(const Call& c, const Given* g) {
  if (!g) return;
  const Array& a = g->array;
  TW_CHECK(a.ndim() == 0 || a.size(a.ndim() - 1) <= 1 || a.strides()[a.ndim() - 1] == 1, c.op, ": ", g->role,
           "'s columns must be contiguous, got strides ", str_of(a.strides()));
}

double scale_of(const Array& q, std::optional<double> scale) {
  return scale.value_or(q.ndim() ? 1 / std::sqrt(static_cast<double>(q.size(q.ndim() - 1))) : 1);
}

int cell_of(const Call& c, const std::string& cell) {
  static constexpr const char* kCells[] = {"rnn_tanh", "rnn_relu", "lstm", "gru"};
  return choice(c.op, "cell", cell, kCells);
}

void open_sequences(nb::module_& m) {
  using Rows = StridedOut;
  using OptRows = Arg<kOutput | kStrided | kOptional>;
  using U = uint64_t;
  const auto q = "q"_a, k = "k"_a, v = "v"_a;
  const auto scale = none("scale"), mask = none("mask");
  const auto causal = "causal"_a = false, dropout_p = "dropout_p"_a = 0.0, seed = "seed"_a = 0, offset = "offset"_a = 0;
  open(m, "attention", args(q, k, v, "out"_a, mask, none("lse"), scale, causal, dropout_p, seed, offset),
       R"(out = dropout(softmax(scale * q @ k^T + mask)) @ v, with no L x S matrix in memory.
q: (..., L, E), k: (..., S, E), v: (..., S, Ev), out: (..., L, Ev), one float dtype; rows anywhere, columns contiguous,
leading dimensions broadcast (a key's head serves a group as (B, heads, 1, S, E)). mask: bool (true takes part), float32
or q's dtype (added), broadcast to (..., L, S). lse: (..., L), written for attention_backward, float64 for float64 q,
else float32. scale: 1 / sqrt(E) where None. causal: row i sees keys 0 to i.

Dao et al., arXiv:2205.14135, for the blocks; Milakov & Gimelshein, arXiv:1805.02867, for the running softmax.
>>> q, k, v = np.zeros((1, 2), np.float32), np.ones((2, 2), np.float32), np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.attention(q, k, v, out=np.empty((1, 2), np.float32)).tolist()
[[2.0, 3.0]]
)",
       [](Call& c, In q, In k, In v, Rows out, OptIn mask, OptOut, std::optional<double> scale, bool causal, double p,
          U seed, U offset) {
         must_have_columns(c, out.given);
         attention(q, k, v, mask, p, causal, scale_of(q, scale), false, seed, offset);
       });
  open(m, "attention_backward",
       args("dy"_a, q, k, v, "y"_a, "lse"_a, none("dq"), none("dk"), none("dv"), mask, scale, causal, dropout_p, seed,
            offset),
       R"(The gradients of attention by q, k and v, written into dq, dk and dv, where given.
y, lse: as attention wrote them. dq, dk, dv: (batch..., rows, columns) over the whole broadcast batch; the sum over what
was broadcast is the caller's. The rest as in attention.
>>> q, k, v = np.zeros((1, 2)), np.ones((2, 2)), np.array([[1.0, 2.0], [3.0, 4.0]])
>>> y, lse, dv = np.empty((1, 2)), np.empty(1), np.empty((2, 2))
>>> _ = kernels.attention(q, k, v, out=y, lse=lse)
>>> kernels.attention_backward(np.ones((1, 2)), q, k, v, y, lse, dv=dv)
>>> dv.round(12).tolist()
[[0.5, 0.5], [0.5, 0.5]]
)",
       [](Call& c, In dy, In q, In k, In v, In y, In lse, OptRows dq, OptRows dk, OptRows dv, OptIn mask,
          std::optional<double> scale, bool causal, double p, U seed, U offset) {
         for (const Given* g : {dq.given, dk.given, dv.given}) must_have_columns(c, g);
         attention_backward(dy, q, k, v, mask, y, contiguous(lse), p, causal, scale_of(q, scale), false, seed, offset,
                            !!dq, !!dk, !!dv);
       });
  using Weights = ArgList<kOptional>;
  open(m, "rnn",
       args("cell"_a, "x"_a, "weights"_a, "out"_a, none("h0"), none("c0"), none("hn"), none("cn"), none("gates"),
            none("cells"), none("batch_sizes")),
       R"(One recurrent layer over whole sequences: cell is rnn_tanh, rnn_relu, lstm or gru, in PyTorch's equations.
x: (T, B, I), float32 or float64. weights: weight_ih (G H, I), weight_hh (G H, H), bias_ih and bias_hh (G H,) or None;
four more for the direction from the end (D = 2). G: 1, 1, 4, 3. out: (T, B, D H). h0, c0, hn, cn: (D, B, H). gates
(T B, 4 D H; lstm and gru) and cells (T B, D H; lstm): written for rnn_backward. batch_sizes: int64 (T,), not growing; x
and out are then (rows, ...), as in PyTorch's PackedSequence. All contiguous.

Elman 1990; Hochreiter & Schmidhuber 1997; Cho et al., arXiv:1406.1078.
>>> x, w = np.ones((2, 1, 1)), np.ones((1, 1))
>>> kernels.rnn("rnn_relu", x, [w, w, None, None], out=np.empty((2, 1, 1))).ravel().tolist()
[1.0, 2.0]
)",
       [](Call& c, const std::string& cell, In x, const Weights& weights, Out, OptIn h0, OptIn c0, OptOut, OptOut cn,
          OptOut gates, OptOut cells, OptIn batch_sizes) {
         const int kind = cell_of(c, cell);
         TW_CHECK((cell == "lstm" || (!cn && !cells)) && (kind >= 2 || !gates), c.op,
                  ": cn and cells are an LSTM's, gates also a GRU's, got cell '", cell, "'");
         TW_CHECK(cell != "lstm" || !gates == !cells, c.op, ": gates and cells of an LSTM must be given together");
         rnn(kind, x, batch_sizes, h0, c0, weights, gates || kind < 2);
       });
  open(m, "rnn_backward",
       args("cell"_a, "dy"_a.none(), "x"_a, "weights"_a, "y"_a, "dweights"_a, none("dx"), none("dh0"), none("dc0"),
            none("h0"), none("c0"), none("gates"), none("cells"), none("dhn"), none("dcn"), none("batch_sizes")),
       R"(The gradients of rnn, written into dweights (as weights, None where not wanted), dx, dh0 and dc0.
y, gates, cells: as rnn wrote them. dy, dhn, dcn: the gradients of out, hn and cn, None for zeros. The rest as in rnn.
>>> x, w, y, dw = np.ones((2, 1, 1)), np.ones((1, 1)), np.empty((2, 1, 1)), np.empty((1, 1))
>>> _ = kernels.rnn("rnn_relu", x, [w, w, None, None], out=y)
>>> kernels.rnn_backward("rnn_relu", np.ones_like(y), x, [w, w, None, None], y, [dw, None, None, None])
>>> dw.tolist()
[[3.0]]
)",
       [](Call& c, const std::string& cell, OptIn dy, In x, const Weights& weights, In y, const OutList& dweights,
          OptOut dx, OptOut dh0, OptOut dc0, OptIn h0, OptIn c0, OptIn gates, OptIn cells, OptIn dhn, OptIn dcn,
          OptIn batch_sizes) {
         TW_CHECK(dweights.items.size() == weights.items.size(), c.op,
                  ": must have one of dweights, or None, a weight, got ", dweights.items.size());
         TW_CHECK(cell == "lstm" || !dc0, c.op, ": dc0 is an LSTM's, got cell '", cell, "'");
         std::vector<bool> wanted{!!dx, !!dh0, !!dc0};
         for (const Given* d : dweights.items) wanted.push_back(d);
         rnn_backward(cell_of(c, cell), x, batch_sizes, h0, c0, weights, y, gates, cells, dy, dhn, dcn, wanted);
       });
}

}  // namespace

void open_products(nb::module_& m) {
  open_products_only(m);
  open_pools(m);
  open_sequences(m);
}

}  // namespace tw
