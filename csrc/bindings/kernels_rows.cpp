// Reductions, softmax, cross-entropy, normalization, scans and orders, indexing, random numbers and optimizer steps.
#include <cstring>

#include "bindings/kernels.h"
#include "philox.h"

namespace tw {
namespace {

// op(x, dims, keepdim, dtype of the result) as functions; `out` says whether reduced dimensions stay, with size 1.
void open_reductions(nb::module_& m) {
  const auto define = [&m](const char* op, const char* dtype, const char* says, auto reduce) {
    const auto body = [reduce](Call&, In x, Out out, const Sizes& dim) {
      reduce(x, dim, out->ndim() == x->ndim(), is_float(x->dtype()) ? OptionalDType(out->dtype()) : OptionalDType());
    };
    const std::string doc = str("out = ", says, R"(.
x: contiguous. dim: one dimension, several, or None for all (argmax and argmin: one or None); out: x's shape without
them, or with sizes of 1.
>>> x = np.ones((2, 3), np.float32)
>>> y = np.empty(2, np.)",
                                dtype, ")\n>>> kernels.", op, "(x, out=y, dim=1) is y\nTrue\n");
    open(m, op, args("x"_a, "out"_a, "dim"_a = nb::none()), doc.c_str(), body);
  };
  using D = const Sizes&;
  using T = OptionalDType;
  define("sum", "float32", "the sum; float16 and bfloat16 add in float32. out: any float for floats, int64 otherwise",
         [](const Array& x, D d, bool keep, T t) { sum(x, d.or_none(), keep, t); });
  define("mean", "float32", "the sum over the count; out: any float",
         [](const Array& x, D d, bool keep, T t) { mean(x, d.or_none(), keep, t); });
  define("prod", "float32", "the product; out: any float for floats, int64 otherwise",
         [](const Array& x, D d, bool keep, T t) { prod(x, d.or_none(), keep, t); });
  define("amax", "float32", "the largest, NaN where there is one; out: x's dtype",
         [](const Array& x, D d, bool keep, T) { amax(x, d.or_none(), keep); });
  define("amin", "float32", "the smallest, NaN where there is one; out: x's dtype",
         [](const Array& x, D d, bool keep, T) { amin(x, d.or_none(), keep); });
  define("any", "bool", "whether one is not zero; out: bool",
         [](const Array& x, D d, bool keep, T) { any(x, d.or_none(), keep); });
  define("all", "bool", "whether none is zero; out: bool",
         [](const Array& x, D d, bool keep, T) { all(x, d.or_none(), keep); });
  const auto only = [](D d) {
    TW_CHECK(d.n <= 1, "argmax: dim must be one dimension or None, got ", str_of(d));
    return d.n < 0 ? std::optional<int64_t>() : d[0];
  };
  define("argmax", "int64", "the position of the largest, the first of equals; out: int64",
         [only](const Array& x, D d, bool keep, T) { argmax(x, only(d), keep); });
  define("argmin", "int64", "the position of the smallest, the first of equals; out: int64",
         [only](const Array& x, D d, bool keep, T) { argmin(x, only(d), keep); });
  open(m, "var", args("x"_a, "out"_a, "dim"_a = nb::none(), "correction"_a = 1.0),
       R"(out = the sum of squared deviations from the mean, over the count less `correction`.
x: floats, contiguous. dim: one dimension, several, or None for all. out: x's dtype, or float32 for halves, of x's shape
without them, or with sizes of 1.
>>> x = np.array([[1, 2, 3], [5, 5, 5]], np.float32)
>>> kernels.var(x, out=np.empty(2, np.float32), dim=1).tolist()
[1.0, 0.0]
)",
       [](Call&, In x, Out out, const Sizes& dim, double correction) {
         var(x, dim.or_none(), correction, out->ndim() == x->ndim(), out->dtype() != x->dtype());
       });
}

// The sizes that a layer norm or RMS norm goes over: the last one where none are given.
Dims normalized(const Array& x, const Sizes& shape) {
  return shape.n >= 0 ? Dims(shape) : x.ndim() ? Dims{x.size(x.ndim() - 1)} : Dims{};
}

void open_norms(nb::module_& m) {
  using InPlaceOut = Arg<kOutput | kInPlace>;
  const auto x = "x"_a, y = "y"_a, dy = "dy"_a, out = "out"_a, target = "target"_a;
  const auto weight = none("weight"), bias = none("bias"), dw = none("dw"), db = none("db"), mean_out = none("mean"),
             rstd_out = none("rstd");
  const auto dim = "dim"_a = -1, eps = "eps"_a = 1e-5;
  const auto shape = "normalized_shape"_a = nb::none();
  const auto mean = "mean"_a, rstd = "rstd"_a, groups = "num_groups"_a;
  open(m, "softmax", args(x, out, dim), R"(out = exp(x) / sum(exp(x)) along dim.
x: floats, contiguous, any shape. out: as x; it may be x itself.
>>> x = np.zeros((2, 4), np.float32)
>>> kernels.softmax(x, out=x).tolist()
[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
)",
       [](Call&, In x, InPlaceOut, int64_t dim) { softmax(x, dim); });
  open(m, "log_softmax", args(x, out, dim), R"(out = x - log(sum(exp(x))) along dim.
x: floats, contiguous, any shape. out: as x; it may be x itself.
>>> x = np.zeros((1, 1), np.float32)
>>> kernels.log_softmax(x, out=x).tolist()
[[0.0]]
)",
       [](Call&, In x, InPlaceOut, int64_t dim) { log_softmax(x, dim); });
  open(m, "softmax_backward", args(y, dy, out, dim),
       R"(out = y * (dy - sum(dy * y)) along dim, the gradient of softmax at its result y.
y, dy and out: one shape and float dtype, contiguous.
>>> y, dy = np.array([0.5, 0.5], np.float32), np.array([1, 0], np.float32)
>>> kernels.softmax_backward(y, dy, out=np.empty_like(y)).tolist()
[0.25, -0.25]
)",
       [](Call&, In y, In dy, Out, int64_t dim) { softmax_backward(y, dy, dim); });
  open(m, "log_softmax_backward", args(y, dy, out, dim),
       R"(out = dy - exp(y) * sum(dy) along dim, the gradient of log_softmax at its result y.
y, dy and out: one shape and float dtype, contiguous.
>>> y, dy = np.zeros(1, np.float32), np.ones(1, np.float32)
>>> kernels.log_softmax_backward(y, dy, out=np.empty_like(y)).tolist()
[0.0]
)",
       [](Call&, In y, In dy, Out, int64_t dim) { log_softmax_backward(y, dy, dim); });
  const auto ignored = "ignore_index"_a = -100, reduction = "reduction"_a = "mean",
             smoothing = "label_smoothing"_a = 0.0;
  open(m, "cross_entropy", args(x, target, out, weight, none("stats"), ignored, reduction, smoothing),
       R"(out = the cross-entropy of logits x (rows, classes) and int64 labels (rows,): -log_softmax(x)[label].
reduction: "mean", "sum" (out is 0-d) or "none" (out is (rows,)). out, weight (classes,) and stats (2 rows + 1,), which
is written for cross_entropy_backward, are float64 for float64 x, else float32. All contiguous.
>>> x, target = np.zeros((2, 2), np.float32), np.array([0, 1])
>>> round(float(kernels.cross_entropy(x, target, out=np.empty((), np.float32))), 4)
0.6931
)",
       [](Call&, In x, In target, Out, OptIn weight, OptOut, int64_t ignored, const std::string& reduction,
          double smoothing) { cross_entropy(x, target, weight, ignored, reduction, smoothing); });
  open(m, "cross_entropy_backward", args("dloss"_a, x, target, "stats"_a, out, weight, ignored, reduction, smoothing),
       R"(out = the gradient of cross_entropy by x, from that of its result, dloss.
stats: as cross_entropy wrote it. out: as x. The rest as in cross_entropy.
>>> x, target, stats = np.zeros((1, 2), np.float32), np.array([0]), np.empty(3, np.float32)
>>> loss = kernels.cross_entropy(x, target, out=np.empty((), np.float32), stats=stats)
>>> kernels.cross_entropy_backward(np.ones((), np.float32), x, target, stats, out=np.empty_like(x)).tolist()
[[-0.5, 0.5]]
)",
       [](Call& c, In dloss, In x, Dense target, In stats, Out, OptIn weight, int64_t ignored,
          const std::string& reduction, double smoothing) {
         check_is(c.op, "target", target, {x->ndim() ? x->size(0) : 0}, DType::kInt64);
         const int64_t* labels = target->data<int64_t>();
         for (int64_t i = 0; i < target->numel(); ++i)  // the kernel takes them as forward found them
           TW_CHECK_INDEX((labels[i] >= 0 && labels[i] < x->size(1)) || labels[i] == ignored, c.op,
                          ": labels must be in [0, ", x->size(1), ") or ignore_index ", ignored, ", got ", labels[i],
                          " at ", i);
         cross_entropy_backward(dloss, x, target, weight, stats, ignored, reduction, smoothing);
       });
  open(m, "layer_norm", args(x, out, weight, bias, mean_out, rstd_out, eps, shape),
       R"(out = (x - mean) * rstd * weight + bias over the last dimensions, rstd = 1 / sqrt(variance + eps).
x, out: floats. weight, bias: normalized_shape (x's last dimension where None), of x's dtype, or float32 beside a half.
mean, rstd: (rows,), written, float64 for float64 x, else float32. All contiguous. Ba et al., arXiv:1607.06450.
>>> x = np.array([[1, 3]], np.float32)
>>> kernels.layer_norm(x, out=np.empty_like(x), eps=0).tolist()
[[-1.0, 1.0]]
)",
       [](Call&, In x, Out, OptIn w, OptIn b, OptOut, OptOut, double eps, const Sizes& shape) {
         layer_norm(x, normalized(x, shape), w, b, eps, false);
       });
  open(m, "layer_norm_backward", args(dy, x, mean, rstd, out, weight, dw, db, shape),
       R"(out = the gradient of layer_norm by x; dw and db, where given, those of weight and bias.
dy, x and out: one shape and dtype. mean, rstd: as layer_norm wrote them. dw, db: as weight. All contiguous.
>>> x, mean, rstd = np.array([[1.0, 3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.layer_norm_backward(np.ones((1, 2)), x, mean, rstd, out=np.empty_like(x)).tolist()
[[0.0, 0.0]]
)",
       [](Call&, In dy, In x, In mean, In rstd, Out, OptIn w, OptOut dw, OptOut db, const Sizes& shape) {
         layer_norm_backward(dy, x, normalized(x, shape), w, mean, rstd, false, true, !!dw, !!db);
       });
  open(m, "rms_norm", args(x, out, weight, rstd_out, eps, shape),
       R"(out = x * rstd * weight over the last dimensions, rstd = 1 / sqrt(mean of x^2 + eps).
The arguments are layer_norm's. Zhang & Sennrich, arXiv:1910.07467.
>>> x = np.array([[3, 4]], np.float32)
>>> (kernels.rms_norm(x, out=np.empty_like(x), eps=0) * 12.5**0.5).round(4).tolist()
[[3.0, 4.0]]
)",
       [](Call&, In x, Out, OptIn w, OptOut, double eps, const Sizes& shape) {
         layer_norm(x, normalized(x, shape), w, {}, eps, true);
       });
  open(m, "rms_norm_backward", args(dy, x, rstd, out, weight, dw, shape),
       R"(out = the gradient of rms_norm by x; dw, where given, that of weight.
dy, x and out: one shape and dtype. rstd: as rms_norm wrote it. dw: as weight. All contiguous.
>>> x = np.array([[2.0]])
>>> kernels.rms_norm_backward(np.ones((1, 1)), x, np.array([0.5]), out=np.empty_like(x)).tolist()
[[0.0]]
)",
       [](Call& c, In dy, In x, In rstd, Out, OptIn w, OptOut dw, const Sizes& shape) {
         const Array zero = Array::empty(c.op, rstd->shape(), rstd->dtype());  // the kernel reads the mean
         std::memset(zero.raw(), 0, static_cast<size_t>(zero.numel()) * itemsize(zero.dtype()));
         layer_norm_backward(dy, x, normalized(x, shape), w, zero, rstd, true, true, !!dw, false);
       });
  open(m, "group_norm", args(x, out, groups, weight, bias, mean_out, rstd_out, eps),
       R"(out = (x - mean) * rstd * weight + bias, over each of num_groups groups of channels of an item.
x, out: floats (N, C, ...). weight, bias: (C,), of x's dtype, or float32 beside a half. mean, rstd: (N num_groups,),
written, float64 for float64 x, else float32. All contiguous. num_groups C: instance norm. Wu & He, arXiv:1803.08494.
>>> x = np.array([[1, 3, 5, 5]], np.float32)
>>> kernels.group_norm(x, out=np.empty_like(x), num_groups=2, eps=1e-30).tolist()
[[-1.0, 1.0, 0.0, 0.0]]
)",
       [](Call& c, In x, Out, int64_t groups, OptIn w, OptIn b, OptOut, OptOut, double eps) {
         group_norm(c.op, x, groups, w, b, eps);
       });
  open(m, "group_norm_backward", args(dy, x, mean, rstd, out, groups, weight, dw, db),
       R"(out = the gradient of group_norm by x; dw and db, where given, those of weight and bias.
dy, x and out: one shape and dtype. mean, rstd: as group_norm wrote them. dw, db: as weight. All contiguous.
>>> x, mean, rstd = np.array([[1.0, 3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.group_norm_backward(np.ones((1, 2)), x, mean, rstd, out=np.empty_like(x), num_groups=1).tolist()
[[0.0, 0.0]]
)",
       [](Call&, In dy, In x, In mean, In rstd, Out, int64_t groups, OptIn w, OptOut dw, OptOut db) {
         group_norm_backward(dy, x, groups, w, mean, rstd, true, !!dw, !!db);
       });
  open(m, "batch_norm",
       args(x, out, weight, bias, none("running_mean"), none("running_var"), mean_out, rstd_out, "training"_a = false,
            "momentum"_a = 0.1, eps),
       R"(out = (x - mean) * rstd * weight + bias a channel: by the batch in training, else by the running statistics.
x: floats (N, C, ...). weight, bias, running_mean, running_var: (C,), of x's dtype or float32 beside a half; in training
the running ones, where given, are updated. mean, rstd: (C,), written, float64 for float64 x, else float32. All
contiguous.
>>> x = np.array([[1], [3]], np.float32)
>>> kernels.batch_norm(x, out=np.empty_like(x), training=True, eps=0).tolist()
[[-1.0], [1.0]]
)",
       [](Call&, In x, Out, OptIn w, OptIn b, OptIn running_mean, OptIn running_var, OptOut, OptOut, bool training,
          double momentum, double eps) { batch_norm(x, w, b, running_mean, running_var, training, momentum, eps); });
  open(m, "batch_norm_backward", args(dy, x, mean, rstd, out, weight, dw, db, "training"_a = true),
       R"(out = the gradient of batch_norm by x; dw and db, where given, those of weight and bias.
dy, x and out: one shape and dtype. mean, rstd: as batch_norm wrote them. dw, db: as weight. All contiguous.
>>> x, mean, rstd = np.array([[1.0], [3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.batch_norm_backward(np.ones((2, 1)), x, mean, rstd, out=np.empty_like(x)).tolist()
[[0.0], [0.0]]
)",
       [](Call&, In dy, In x, In mean, In rstd, Out, OptIn w, OptOut dw, OptOut db, bool training) {
         const OptionalDType parameters = w    ? w->dtype()
                                          : dw ? dw->dtype()
                                          : db ? OptionalDType(db->dtype())
                                               : OptionalDType();
         batch_norm_backward(dy, x, w, mean, rstd, training, parameters, true, !!dw, !!db);
       });
}

void open_orders(nb::module_& m) {
  const auto x = "x"_a, out = "out"_a;
  const auto indices = none("indices");
  open(m, "scan", args(x, out, "dim"_a = -1, "op"_a = "sum", "reverse"_a = false, indices),
       R"(out[i] = x[0] (op) ... (op) x[i] along dim, for op sum, prod, max, min or logsumexp.
x: any dtype, floats for logsumexp. out: x's shape and dtype, but int64 for sums and products of integers and bool;
halves add in float32. reverse: sums from i to the end. indices (int64), where given: the positions of max and min, of
equals the last. All contiguous.
>>> x = np.array([[1, 2, 3]], np.float32)
>>> kernels.scan(x, out=np.empty_like(x)).tolist()
[[1.0, 3.0, 6.0]]
)",
       [](Call& c, In x, Out, int64_t dim, const std::string& op, bool reverse, OptOut indices) {
         TW_CHECK(op == "sum" || op == "prod" || op == "max" || op == "min" || op == "logsumexp", c.op,
                  ": op must be sum, prod, max, min or logsumexp, got '", op, "'");
         TW_CHECK(!reverse || op == "sum", "scan: only a sum goes in reverse, got op '", op, "'");
         TW_CHECK(op == "max" || op == "min" || !indices, "scan: only max and min have indices, got op '", op, "'");
         scan(c.op, x, dim, {}, op, reverse);
       });
  open(m, "sort", args(x, out, indices, "descending"_a = false),
       R"(out = x's rows (its last dimension) in order; NaN is the largest value, and equals keep their order.
x, out: any one dtype and shape. indices (int64), where given: where the values stood. All contiguous.
>>> x, at = np.array([3, 1, 2], np.float32), np.empty(3, np.int64)
>>> kernels.sort(x, out=np.empty_like(x), indices=at).tolist(), at.tolist()
([1.0, 2.0, 3.0], [1, 2, 0])
)",
       [](Call& c, Dense x, Out, OptOut, bool descending) { sort(c.op, x, x->ndim() - 1, descending); });
  open(m, "topk", args(x, out, indices, "largest"_a = true),
       R"(out (..., k) = the k largest, or smallest, of x's rows (its last dimension), in order.
x, out: any one dtype. indices (int64), where given: where the values stood. NaN is the largest value; of equals the
first come first. All contiguous.
>>> kernels.topk(np.array([3.0, 1.0, 2.0]), out=np.empty(2)).tolist()
[3.0, 2.0]
)",
       [](Call&, Dense x, Out out, OptOut, bool largest) {
         topk(x, out->ndim() ? out->size(out->ndim() - 1) : 1, -1, largest);
       });
  open(m, "kth", args(x, out, "k"_a = 1, indices, "order"_a = "kth"),
       R"(out = the k-th smallest, k from 1, of x's rows (its last dimension), or their lower median.
order: kth; median, NaN where there is one; or nanmedian, of what is not NaN; medians do not read k. x, out: any one
dtype; out: x's shape without the last dimension, or with a size of 1. indices (int64), where given: where the values
stand. All contiguous.
>>> x = np.array([[3.0, 1.0, 2.0, 4.0]])
>>> kernels.kth(x, out=np.empty(1), k=3).tolist(), kernels.kth(x, out=np.empty(1), order="median").tolist()
([3.0], [2.0])
)",
       [](Call& c, Dense x, Out out, int64_t k, OptOut indices, const std::string& order) {
         TW_CHECK(order == "kth" || order == "median" || order == "nanmedian", c.op,
                  ": order must be kth, median or nanmedian, got '", order, "'");
         for (Given* g : {out.given, indices.given})  // the op keeps the dimension
           if (g && g->array.ndim() + 1 == x->ndim()) g->array = g->array.unsqueeze(c.op, -1);
         kth(order == "kth" ? "kthvalue" : order, x, k, -1, true);
       });
}

void open_indexing(nb::module_& m) {
  const auto x = "x"_a, position = "index"_a, out = "out"_a, indices = "indices"_a, dim = "dim"_a;
  const auto zeroth = "dim"_a = 0;
  open(m, "take", args(x, position, out, zeroth),
       R"(out = x's rows along dim by index: x.shape with dimension dim replaced by index.shape.
x: any dtype. index: int64, each in [0, x.shape[dim]). All contiguous.
>>> x = np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.take(x, np.array([1, 1]), out=np.empty((2, 2), np.float32)).tolist()
[[3.0, 4.0], [3.0, 4.0]]
)",
       [](Call& c, In x, In index, Out, int64_t dim) { take(c.op, x, dim, index); });
  open(m, "take_backward", args("dy"_a, position, out, zeroth),
       R"(out += dy's rows, each added to the row of out along dim that index names, in the order of the index.
out: float32, float64 or integers. index: int64. dy: out.shape with dimension dim replaced by index.shape. All
contiguous.
>>> kernels.take_backward(np.ones((3, 1)), np.array([0, 2, 0]), out=np.zeros((3, 1))).tolist()
[[2.0], [0.0], [1.0]]
)",
       [](Call& c, Dense dy, Dense index, Out out, int64_t dim) {
         const int d = wrap_dim(c.op, dim, out->ndim());
         Dims shape(out->shape().d, d), rows = out->shape();
         TW_CHECK(out->ndim() > 0 && out->ndim() - 1 + index->ndim() <= kMaxDims, c.op,
                  ": out must have a dimension, and dy ", "at most ", kMaxDims, ", got ", str_of(out->shape()),
                  " and index ", str_of(index->shape()));
         for (int i = 0; i < index->ndim(); ++i) shape.push(index->size(i));
         for (int i = d + 1; i < out->ndim(); ++i) shape.push(out->size(i));
         check_is(c.op, "dy", dy, shape, out->dtype());
         rows[d] = index->numel();
         index_add_(out, d, index->with_geometry({rows[d]}, {1}, index->offset()),
                    dy->with_geometry(rows, contiguous_strides(rows), dy->offset()));
       });
  open(m, "gather", args(x, position, out, dim),
       R"(out[i, j] = x[index[i, j], j] for dim 0, and so on along any one dimension.
index: int64, of x's shape except along dim. out: index's shape, x's dtype. All contiguous.
>>> x = np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.gather(x, np.array([[1, 0]]), out=np.empty((1, 2), np.float32), dim=0).tolist()
[[3.0, 2.0]]
)",
       [](Call& c, In x, In index, Out, int64_t dim) { gather(c.op, x, dim, index); });
  open(m, "scatter", args(x, position, out, dim, "add"_a = false),
       R"(out[index[i, j], j] = x[i, j] for dim 0, and so on along any one dimension; the last of equal indices wins.
add: adds instead, in the order of the index; then float32, float64 or integers. index: int64, of out's shape except
along dim. x: index's shape, out's dtype. All contiguous.
>>> kernels.scatter(np.ones(3), np.array([0, 0, 1]), out=np.zeros(2), dim=0, add=True).tolist()
[2.0, 1.0]
)",
       [](Call& c, In x, In index, Out out, int64_t dim, bool add) {
         check_is(c.op, "x", x, index->shape(), out->dtype());
         scatter_(c.op, out, dim, index, x, add);
       });
  using Indices = ArgList<kOptional>;
  open(m, "index", args(x, indices, out),
       R"(out = x[indices], for a sequence of int64 arrays of one shape, and None for a whole dimension.
x: any strides. Negative indices count from the end. A bool array selects where it is true, over as many dimensions as
it has. out: contiguous, with NumPy's shape for x[indices].
>>> x = np.arange(6.0).reshape(2, 3)
>>> kernels.index(x, [np.array([1, 0]), np.array([-1, 0])], out=np.empty(2)).tolist()
[5.0, 0.0]
)",
       [](Call&, In x, const Indices& at, Out) { index(x, at); });
  open(m, "index_put", args("values"_a, indices, out, "accumulate"_a = false),
       R"(out[indices] = values, for a sequence of int64 arrays of one shape, and None for a whole dimension.
accumulate: adds instead, in the order of the indices; then float32, float64 or integers. out: any strides. values:
contiguous, with NumPy's shape for out[indices], or one value. Indices as in index; the last of equal ones wins.
>>> kernels.index_put(np.ones(2), [np.array([0, -1])], out=np.zeros(3)).tolist()
[1.0, 0.0, 1.0]
)",
       [](Call& c, In values, const Indices& at, StridedOut out, bool add) { index_put_(c.op, out, at, values, add); });
}

void open_random(nb::module_& m) {
  const auto out = "out"_a;
  const auto p = "p"_a = 0.5, seed = "seed"_a = 0, offset = "offset"_a = 0;
  using U = uint64_t;
  open(m, "uniform", args(out, "low"_a = 0.0, "high"_a = 1.0, seed, offset),
       R"(Fills out with uniform numbers in [low, high), and returns the offset of the next draw.
out: floats, contiguous. Philox 4x32-10 (Salmon et al., SC 2011): the same seed and offset give the same numbers on any
machine and any number of threads.
>>> x = np.empty(5, np.float32)
>>> kernels.uniform(x, seed=7, offset=10)
12
)",
       [](Call&, Out out, double low, double high, U seed, U offset) {
         return offset + uniform_(out, low, high, seed, offset);
       });
  open(m, "normal", args(out, "mean"_a = 0.0, "std"_a = 1.0, seed, offset),
       R"(Fills out with normal numbers (Box-Muller over Philox), and returns the offset of the next draw.
out: floats, contiguous.
>>> x = np.empty(4)
>>> kernels.normal(x, mean=3.0, std=0.0, seed=1)
2
>>> x.tolist()
[3.0, 3.0, 3.0, 3.0]
)",
       [](Call&, Out out, double mean, double std, U seed, U offset) {
         return offset + normal_(out, mean, std, seed, offset);
       });
  open(m, "bernoulli", args(out, p, seed, offset),
       R"(Fills out with ones of probability p, and zeros; returns the offset of the next draw.
out: any dtype, contiguous.
>>> x = np.empty(4, np.uint8)
>>> kernels.bernoulli(x, p=1.0)
1
>>> x.tolist()
[1, 1, 1, 1]
)",
       [](Call&, Out out, double p, U seed, U offset) { return offset + bernoulli_(out, p, seed, offset); });
  open(m, "randint", args(out, "low"_a, "high"_a, seed, offset),
       R"(Fills out with integers of [low, high), each equally likely, and returns the offset of the next draw.
out: integers, contiguous.
>>> x = np.empty(4, np.int64)
>>> kernels.randint(x, 5, 6)
2
>>> x.tolist()
[5, 5, 5, 5]
)",
       [](Call& c, Out out, int64_t low, int64_t high, U seed, U offset) {
         TW_CHECK_TYPE(is_integer(out->dtype()), c.op, ": out must have an integer dtype, got ", name(out->dtype()));
         return offset + randint_(out, low, high, seed, offset);
       });
  open(m, "dropout", args("x"_a, out, "mask"_a, p, seed, offset),
       R"(out = x * mask / (1 - p), with mask 0 of probability p and else 1; returns the offset of the next draw.
x, out: one shape and float dtype. mask: uint8 of x's shape, written. All contiguous.
>>> x = np.ones(8, np.float32)
>>> kernels.dropout(x, out=np.empty_like(x), mask=np.empty(8, np.uint8), p=0.25, seed=3)
2
)",
       [](Call&, In x, Out, Out, double p, U seed, U offset) {
         return offset + std::get<2>(dropout(x, p, seed, offset));
       });
}

void open_steps(nb::module_& m) {
  const auto params = "params"_a, grads = "grads"_a, out = "out"_a;
  const auto lr = "lr"_a = 1e-3, maximize = "maximize"_a = false;
  open(m, "sgd_step",
       args(params, grads, "momentum_buffers"_a = nb::none(), lr, "momentum"_a = 0.0, "dampening"_a = 0.0,
            "weight_decay"_a = 0.0, "nesterov"_a = false, maximize, "first"_a = false),
       R"(One step of stochastic gradient descent over a whole list of parameters, in place, in one launch.
g = grad + weight_decay p;  v = momentum v + (1 - dampening) g, or g when first;  p -= lr v  (nesterov: lr (g + momentum
v)); without momentum p -= lr g. Sutskever et al., ICML 2013, in PyTorch's form.

params, grads, momentum_buffers: sequences of contiguous float arrays, a gradient and a buffer for each parameter, of
its shape and dtype; the buffers of float16 and bfloat16 parameters are float32.
>>> p = np.ones(2)
>>> kernels.sgd_step([p], [np.array([1.0, 2.0])], lr=0.5)
>>> p.tolist()
[0.5, 0.0]
)",
       [](Call&, const OutList& p, const InList& g, const OutList& buffers, double lr, double momentum,
          double dampening, double weight_decay, bool nesterov, bool maximize, bool first) {
         TW_CHECK(!buffers.items.empty() || momentum == 0, "sgd_step: momentum needs momentum_buffers, got momentum ",
                  momentum);
         sgd_step(p, g, buffers, lr, momentum, dampening, weight_decay, nesterov, maximize, first);
       });
  open(
      m, "rule_step",
      args("rule"_a, params, grads, "numbers"_a, "state0"_a, "state1"_a = nb::none(), "state2"_a = nb::none(),
           "weight_decay"_a = 0.0, "keep"_a = 1.0, maximize),
      R"(One step of another rule over a whole list of parameters, in place, in one launch: "adagrad" (numbers lr, eps),
"rmsprop" (lr, eps, alpha, 1 - alpha, momentum), "adadelta" (lr, eps, rho, 1 - rho), "adamax" (lr / (1 - beta1^t), eps,
beta2, 1 - beta1), "moments" (NAdam, RAdam), "rprop" (eta-, eta+, least and largest step), "asgd" (eta, 1 - lambd eta,
mu); the formulas are in csrc/kernels/optim_rules.h. First p *= keep, and g += weight_decay p.

params, grads, state0, state1, state2: sequences of contiguous float arrays as adam_step's.
>>> p, s = np.ones(1), np.zeros(1)
>>> kernels.rule_step("adagrad", [p], [np.array([2.0])], [0.5, 0.0], [s])
>>> p.tolist(), s.tolist()
([0.5], [4.0])
)",
      [](Call&, const std::string& rule, const OutList& p, const InList& g, const std::vector<double>& numbers,
         const OutList& s0, const OutList& s1, const OutList& s2, double decay, double keep,
         bool maximize) { rule_step(rule, p, g, s0, s1, s2, numbers, decay, keep, maximize); });
  open(m, "grad_norm", args(grads, "p"_a = 2.0, out),
       R"(out = (sum |g|^p)^(1/p) over all values of a list of gradients; p infinity: the largest magnitude.

grads: a sequence of contiguous float arrays. out: float64 of shape ().
>>> kernels.grad_norm([np.array([3.0]), np.array([4.0])], out=np.empty(())).item()
5.0
)",
       [](Call&, const InList& g, double p, Out) { grad_norm(g, p); });
  open(
      m, "grad_scale", args(grads, "factor"_a, none("infinite")),
      R"(Every gradient of a list times a factor, in place, in one launch; `infinite` becomes 1 where one is not finite then.

grads: a sequence of contiguous float arrays. factor: float64 of shape (). infinite: float32 of shape (), or None.
>>> g = np.array([3.0, 4.0])
>>> kernels.grad_scale([g], np.array(0.5))
>>> g.tolist()
[1.5, 2.0]
)",
      [](Call&, const OutList& g, In factor, OptOut infinite) {
        if (infinite) infinite.given->taken = true;
        grad_scale(g, factor, infinite);
      });
  const auto define_adam = [&](const char* op, bool decoupled, double decay, const char* doc) {
    open(m, op,
         args(params, grads, "exp_avgs"_a, "exp_avg_sqs"_a, "step"_a, lr, "beta1"_a = 0.9, "beta2"_a = 0.999,
              "eps"_a = 1e-8, "weight_decay"_a = decay, "max_exp_avg_sqs"_a = nb::none(), maximize),
         doc,
         [decoupled](Call&, const OutList& p, const InList& g, const OutList& means, const OutList& squares,
                     int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                     const OutList& largest, bool maximize) {
           adam_step(p, g, means, squares, largest, step, lr, beta1, beta2, eps, weight_decay, decoupled, maximize);
         });
  };
  define_adam("adam_step", false, 0.0, R"(One step of Adam over a whole list of parameters, in place, in one launch.
g = grad + weight_decay p;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
p -= lr / (1 - beta1^step) m / (sqrt(v / (1 - beta2^step)) + eps). Kingma & Ba, arXiv:1412.6980.

params, grads, exp_avgs (m), exp_avg_sqs (v), max_exp_avg_sqs (amsgrad, the largest v): sequences of contiguous float
arrays, one each for a parameter, of its shape and dtype; the states of float16 and bfloat16 parameters are float32.
>>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
>>> kernels.adam_step([p], [np.array([3.0])], [m], [v], step=1, lr=0.5, eps=0)
>>> p.tolist()
[0.5]
)");
  define_adam("adamw_step", true, 1e-2, R"(One step of AdamW over a whole list of parameters, in place, in one launch.
p *= 1 - lr weight_decay, then Adam's step (adam_step) without decay. Loshchilov & Hutter, arXiv:1711.05101.

The arguments are adam_step's.
>>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
>>> kernels.adamw_step([p], [np.array([3.0])], [m], [v], step=1, lr=0.5, weight_decay=1, eps=0)
>>> p.tolist()
[0.0]
)");
}

}  // namespace

void open_rows(nb::module_& m) {
  open_reductions(m);
  open_norms(m);
  open_orders(m);
  open_indexing(m);
  open_random(m);
  open_steps(m);
}

}  // namespace tw
