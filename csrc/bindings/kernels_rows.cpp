// Reductions, softmax, cross-entropy and normalization.
#include <cstring>

#include "bindings/kernels.h"

namespace tw {
namespace {

// --- reductions --
// Contiguous x over neighbouring dimensions, in one launch; out has x's shape without them, or with sizes of 1.
Parts fold(const Call& c, const View& x, const View& out, const Sizes& dims) {
  bool reduced[kMaxDims] = {};
  int first = x.ndim(), last = -1;
  for (int i = 0; i < (dims.n < 0 ? x.ndim() : dims.n); ++i) {
    const int d = dims.n < 0 ? i : c.dim(dims[i], x);
    TW_CHECK(!reduced[d], c.op, ": dim must name each dimension once, got ", str_of(dims));
    reduced[d] = true;
    first = d < first ? d : first;
    last = d > last ? d : last;
  }
  Parts p(x.shape, x.ndim());  // all of it, until cut
  p.n = p.outer;
  p.outer = 1;
  Dims without, with = x.shape;
  if (x.ndim() > 0) {
    TW_CHECK(last >= 0, c.op, ": dim must name a dimension, got ()");
    p.n = 1;
    for (int i = 0; i < x.ndim(); ++i) {
      TW_CHECK(reduced[i] == (i >= first && i <= last), c.op, ": dims must be neighbours, got ", str_of(dims),
               " for shape ", str_of(x.shape));
      (i < first ? p.outer : i > last ? p.inner : p.n) *= x.size(i);
      if (reduced[i]) with[i] = 1;
      else without.push(x.size(i));
    }
  }
  TW_CHECK(p.n > 0, c.op, ": cannot reduce a dimension of size 0, got shape ", str_of(x.shape));
  TW_CHECK(out.shape == without || out.shape == with, c.op, ": out must have shape ", str_of(without), " or ",
           str_of(with), ", got ", str_of(out.shape));
  return p;
}

enum class Result : uint8_t { kSum, kSame, kBool, kIndex, kFloat };

Arr reduce(const char* op, const Slot<ReduceArgs>& slot, Result result, Arr x_, Arr out_, const Sizes& dims,
           bool divide, double correction) {
  Call c(op);
  const View& x = c.input("x", x_, result == Result::kFloat ? kDense | kFloat : kDense);
  const View& out = c.output("out", out_);
  const Parts p = fold(c, x, out, dims);
  if (result == Result::kSame) c.must_have_dtype(out, x.dtype);
  else if (result == Result::kBool) c.must_have_dtype(out, DType::kBool);
  else if (result == Result::kIndex || !is_float(x.dtype)) c.must_have_dtype(out, DType::kInt64);
  else TW_CHECK_TYPE(is_float(out.dtype), op, ": out must have a floating-point dtype, got ", name(out.dtype));
  const double left = static_cast<double>(p.n) - correction;
  const ReduceArgs a{x.data,  out.data, p.outer,   p.n,
                     p.inner, x.dtype,  out.dtype, divide ? 1 / (left > 0 ? left : 0) : 1};
  return c.run(slot, a, out);
}

// --- softmax --
Arr softmax(const char* op, Arr x_, Arr out_, int64_t dim, bool log) {
  Call c(op);
  const View& x = c.input("x", x_, kDense | kFloat);
  const View& out = c.output("out", out_, x, kDense | kInPlace);
  const Parts p(x.shape, c.dim(dim, x));
  return c.run(slots::softmax, SoftmaxArgs{x.data, nullptr, out.data, p.outer, p.n, p.inner, x.dtype, log}, out);
}

Arr softmax_backward(const char* op, Arr y_, Arr dy_, Arr out_, int64_t dim, bool log) {
  Call c(op);
  const View& y = c.input("y", y_, kDense | kFloat);
  const View& dy = c.input("dy", dy_, y);
  const View& out = c.output("out", out_, y);
  const Parts p(y.shape, c.dim(dim, y));
  return c.run(slots::softmax_backward, SoftmaxArgs{y.data, dy.data, out.data, p.outer, p.n, p.inner, y.dtype, log},
               out);
}

// --- cross-entropy --
CrossEntropyArgs cross_entropy_args(Call& c, const View& x, Arr target_, Arr weight, int64_t ignore_index,
                                    std::string_view reduction, double smoothing) {
  TW_CHECK(x.ndim() == 2, c.op, ": x must be (rows, classes), got ", str_of(x.shape));
  TW_CHECK(x.size(1) > 0 || x.size(0) == 0, c.op, ": there must be at least one class, got ", str_of(x.shape));
  TW_CHECK(smoothing >= 0 && smoothing <= 1, c.op, ": label_smoothing must be in [0, 1], got ", smoothing);
  CrossEntropyArgs a{};
  const View& target = c.input("target", target_, {x.size(0)}, DType::kInt64);
  if (weight.given()) a.weight = c.input("weight", weight, {x.size(1)}, accumulator(x.dtype)).data;
  a.x = x.data;
  a.target = reinterpret_cast<const int64_t*>(target.data);
  a.rows = x.size(0);
  a.classes = x.size(1);
  a.ignore_index = ignore_index;
  a.smoothing = smoothing;
  a.dtype = x.dtype;
  if (reduction == "none") a.reduction = Reduction::kNone;
  else if (reduction == "mean") a.reduction = Reduction::kMean;
  else if (reduction == "sum") a.reduction = Reduction::kSum;
  else fail<std::invalid_argument>(c.op, ": reduction must be 'none', 'mean' or 'sum', got '", reduction, "'");
  return a;
}

Dims loss_shape(const CrossEntropyArgs& a) { return a.reduction == Reduction::kNone ? Dims{a.rows} : Dims{}; }

Arr cross_entropy(Arr x_, Arr target, Arr out_, Arr weight, Arr stats, int64_t ignore_index, const char* reduction,
                  double smoothing) {
  Call c("cross_entropy");
  const View& x = c.input("x", x_, kDense | kFloat);
  CrossEntropyArgs a = cross_entropy_args(c, x, target, weight, ignore_index, reduction, smoothing);
  const DType acc = accumulator(x.dtype);
  const View& out = c.output("out", out_, loss_shape(a), acc);
  const auto size = static_cast<int64_t>(itemsize(acc));
  a.stats = stats.given() ? c.output("stats", stats, {2 * a.rows + 1}, acc).data : c.temporary((2 * a.rows + 1) * size);
  a.loss = a.reduction == Reduction::kNone ? out.data : c.temporary(a.rows * size);
  a.value = a.reduction == Reduction::kNone ? nullptr : out.data;
  a.bad = c.temporary<int64_t>(1);
  c.run(slots::cross_entropy, a, out);
  TW_CHECK_INDEX(out.numel == 0 || *a.bad < 0, "cross_entropy: labels must be in [0, ", a.classes, ") or ignore_index ",
                 ignore_index, ", got ", a.target[*a.bad], " at ", *a.bad);
  return out_;
}

Arr cross_entropy_backward(Arr dloss, Arr x_, Arr target, Arr stats, Arr out_, Arr weight, int64_t ignore_index,
                           const char* reduction, double smoothing) {
  Call c("cross_entropy_backward");
  const View& x = c.input("x", x_, kDense | kFloat);
  CrossEntropyArgs a = cross_entropy_args(c, x, target, weight, ignore_index, reduction, smoothing);
  const DType acc = accumulator(x.dtype);
  a.dloss = c.input("dloss", dloss, loss_shape(a), acc).data;
  a.stats = c.input("stats", stats, {2 * a.rows + 1}, acc).data;
  for (int64_t i = 0; i < a.rows; ++i)  // the kernel takes them as forward found them
    TW_CHECK_INDEX((a.target[i] >= 0 && a.target[i] < a.classes) || a.target[i] == ignore_index, c.op,
                   ": labels must be in [0, ", a.classes, ") or ignore_index ", ignore_index, ", got ", a.target[i],
                   " at ", i);
  const View& out = c.output("out", out_, x);
  a.dx = out.data;
  return c.run(slots::cross_entropy_backward, a, out);
}

// --- normalization --
// A parameter of x's dtype, or float32 beside a half; all of a call have the same.
struct Parameters {
  Call& c;
  const View& x;
  Dims shape;
  const View* first = nullptr;

  DType dtype() const { return first ? first->dtype : x.dtype; }
  void* add(const char* role, Arr a, bool written = false) {
    if (!a.given()) return nullptr;
    const View& p = written ? c.output(role, a) : c.input(role, a);
    c.must_have_shape(p, shape);
    TW_CHECK_TYPE(p.dtype == x.dtype || (is_half(x.dtype) && p.dtype == DType::kFloat32), c.op, ": ", role,
                  " must have x's dtype (or float32 beside a half), got ", name(p.dtype), " and ", name(x.dtype));
    if (first) c.must_have_dtype(p, first->dtype);
    else first = &p;
    return p.data;
  }
};

// mean and rstd: of the accumulation dtype; where the caller wants none, the kernel still writes them.
void* statistic(Call& c, const char* role, Arr a, int64_t n, DType dtype) {
  const DType acc = accumulator(dtype);
  return a.given() ? c.output(role, a, {n}, acc).data : c.temporary(n * static_cast<int64_t>(itemsize(acc)));
}

// Layer norm and RMS norm of the last dimensions, whose sizes are `shape`; or group norm of (N, C, ...).
struct RowNorm {
  const char* op;
  bool rms;
  Sizes shape{};
  int64_t groups = 0;  // not 0: group norm

  LayerNormArgs args(Call& c, const View& x, Parameters* p) const {
    LayerNormArgs a{};
    a.x = x.data;
    a.rows = a.cols = a.groups = a.run = 1;
    a.dtype = x.dtype;
    a.rms = rms;
    if (groups) {
      TW_CHECK(x.ndim() >= 2, op, ": x must be (N, C, ...), got ", str_of(x.shape));
      TW_CHECK(x.size(1) % groups == 0, op, ": the channels must be a multiple of num_groups, got ", x.size(1), " and ",
               groups);
      p->shape = {x.size(1)};
      for (int i = 2; i < x.ndim(); ++i) a.run *= x.size(i);
      a.rows = x.size(0) * groups;
      a.cols = x.size(1) / groups * a.run;
      a.groups = groups;
      return a;
    }
    p->shape = shape;
    if (shape.n < 0) p->shape = x.ndim() ? Dims{x.size(x.ndim() - 1)} : Dims{};
    const int lead = x.ndim() - p->shape.n;
    bool fits = lead >= 0 && p->shape.n > 0;
    for (int i = 0; fits && i < p->shape.n; ++i) fits = x.size(lead + i) == p->shape[i];
    TW_CHECK(fits, c.op, ": x's last sizes must be normalized_shape ", str_of(p->shape), ", got ", str_of(x.shape));
    for (int i = 0; i < x.ndim(); ++i) (i < lead ? a.rows : a.cols) *= x.size(i);
    return a;
  }

  Arr forward(Arr x_, Arr out_, Arr weight, Arr bias, Arr mean, Arr rstd, double eps) const {
    Call c(op);
    const View& x = c.input("x", x_, kDense | kFloat);
    Parameters p{c, x, {}};
    LayerNormArgs a = args(c, x, &p);
    a.w = p.add("weight", weight);
    a.b = p.add("bias", bias);
    a.param_dtype = p.dtype();
    const View& out = c.output("out", out_, x);
    a.y = out.data;
    a.mean = statistic(c, "mean", mean, a.rows, x.dtype);
    a.rstd = statistic(c, "rstd", rstd, a.rows, x.dtype);
    a.eps = eps;
    return c.run(slots::layer_norm, a, out);
  }

  Arr backward(Arr dy, Arr x_, Arr mean, Arr rstd, Arr out_, Arr weight, Arr dw, Arr db) const {
    Call c(op);
    const View& x = c.input("x", x_, kDense | kFloat);
    Parameters p{c, x, {}};
    LayerNormArgs a = args(c, x, &p);
    TW_CHECK(x.numel > 0, op, ": x must not be empty, got ", str_of(x.shape));
    const DType acc = accumulator(x.dtype);
    const int64_t bytes = a.rows * static_cast<int64_t>(itemsize(acc));
    a.dy = c.input("dy", dy, x).data;
    // An RMS norm's mean is 0, and the kernel reads it.
    a.mean = rms ? std::memset(c.temporary(bytes), 0, static_cast<size_t>(bytes))
                 : c.input("mean", mean, {a.rows}, acc).data;
    a.rstd = c.input("rstd", rstd, {a.rows}, acc).data;
    a.w = p.add("weight", weight);
    const View& out = c.output("out", out_, x);
    a.y = out.data;
    a.dw = p.add("dw", dw, true);
    a.db = p.add("db", db, true);
    a.param_dtype = p.dtype();
    return c.run(slots::layer_norm_backward, a, out);
  }
};

BatchNormArgs batch_norm_args(Call& c, const View& x, Parameters* p) {
  TW_CHECK(x.ndim() >= 2, c.op, ": x must be (N, C, ...), got ", str_of(x.shape));
  p->shape = {x.size(1)};
  BatchNormArgs a{};
  a.x = x.data;
  a.N = x.size(0);
  a.C = x.size(1);
  a.S = 1;
  for (int i = 2; i < x.ndim(); ++i) a.S *= x.size(i);
  a.dtype = x.dtype;
  return a;
}

Arr batch_norm(Arr x_, Arr out_, Arr weight, Arr bias, Arr running_mean, Arr running_var, Arr mean, Arr rstd,
               bool training, double momentum, double eps) {
  Call c("batch_norm");
  const View& x = c.input("x", x_, kDense | kFloat);
  Parameters p{c, x, {}};
  BatchNormArgs a = batch_norm_args(c, x, &p);
  TW_CHECK(training || (running_mean.given() && running_var.given()),
           "batch_norm: running_mean and running_var must be given in evaluation, got None");
  TW_CHECK(!training || a.C == 0 || a.N * a.S > 1,
           "batch_norm: must have more than 1 value per channel in training, got input ", str_of(x.shape));
  a.w = p.add("weight", weight);
  a.b = p.add("bias", bias);
  a.running_mean = p.add("running_mean", running_mean, training);
  a.running_var = p.add("running_var", running_var, training);
  a.param_dtype = p.dtype();
  const View& out = c.output("out", out_, x);
  a.y = out.data;
  a.mean = statistic(c, "mean", mean, a.C, x.dtype);
  a.rstd = statistic(c, "rstd", rstd, a.C, x.dtype);
  a.training = training;
  a.momentum = momentum;
  a.eps = eps;
  return c.run(slots::batch_norm, a, out);
}

Arr batch_norm_backward(Arr dy, Arr x_, Arr mean, Arr rstd, Arr out_, Arr weight, Arr dw, Arr db, bool training) {
  Call c("batch_norm_backward");
  const View& x = c.input("x", x_, kDense | kFloat);
  Parameters p{c, x, {}};
  BatchNormArgs a = batch_norm_args(c, x, &p);
  TW_CHECK(x.numel > 0, c.op, ": x must not be empty, got ", str_of(x.shape));
  const DType acc = accumulator(x.dtype);
  a.dy = c.input("dy", dy, x).data;
  a.mean = c.input("mean", mean, {a.C}, acc).data;
  a.rstd = c.input("rstd", rstd, {a.C}, acc).data;
  a.w = p.add("weight", weight);
  const View& out = c.output("out", out_, x);
  a.y = out.data;
  a.dw = p.add("dw", dw, true);
  a.db = p.add("db", db, true);
  a.param_dtype = p.dtype();
  a.training = training;
  return c.run(slots::batch_norm_backward, a, out);
}

struct ReduceRow {
  const char *name, *says;
  const Slot<ReduceArgs>* slot;
  Result result;
  bool divide;
};
constexpr ReduceRow kReductions[] = {
    {"sum", "the sum; float16 and bfloat16 add in float32. out: any float for floats, int64 otherwise", &slots::sum,
     Result::kSum, false},
    {"mean", "the sum over the count; out: any float", &slots::sum, Result::kFloat, true},
    {"prod", "the product; out: any float for floats, int64 otherwise", &slots::prod, Result::kSum, false},
    {"amax", "the largest, NaN where there is one; out: x's dtype", &slots::amax, Result::kSame, false},
    {"amin", "the smallest, NaN where there is one; out: x's dtype", &slots::amin, Result::kSame, false},
    {"any", "whether one is not zero; out: bool", &slots::any, Result::kBool, false},
    {"all", "whether none is zero; out: bool", &slots::all, Result::kBool, false},
    {"argmax", "the position of the largest, the first of equals; out: int64", &slots::argmax, Result::kIndex, false},
    {"argmin", "the position of the smallest, the first of equals; out: int64", &slots::argmin, Result::kIndex, false},
};

}  // namespace

void bind_rows(nb::module_& m) {
  for (const ReduceRow& row : kReductions) {
    const char* const made = row.result == Result::kBool    ? "np.bool"
                             : row.result == Result::kIndex ? "np.int64"
                                                            : "np.float32";
    m.def(
        row.name,
        [&row](Arr x, Arr out, const Sizes& dim) {
          return reduce(row.name, *row.slot, row.result, x, out, dim, row.divide, 0);
        },
        nb::arg("x"), nb::arg("out"), nb::arg("dim") = nb::none(),
        str("out = ", row.says, R"(.

x: contiguous. dim: one dimension, neighbouring ones, or None for all; out: x's shape without them, or with sizes of 1.

Raises: ValueError: shapes, layout, a size of 0, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> x = np.ones((2, 3), np.float32)
>>> y = np.empty(2, )",
            made, ")\n>>> kernels.", row.name, "(x, out=y, dim=1) is y\nTrue\n")
            .c_str());
  }
  m.def(
      "var",
      [](Arr x, Arr out, const Sizes& dim, double correction) {
        return reduce("var", slots::var, Result::kFloat, x, out, dim, true, correction);
      },
      nb::arg("x"), nb::arg("out"), nb::arg("dim") = nb::none(), nb::arg("correction") = 1.0,
      R"(out = the sum of squared deviations from the mean, over the count less `correction`.

x: floats, contiguous. dim: one dimension, neighbouring ones, or None for all. out: any float, of x's shape without
them, or with sizes of 1.

Raises: ValueError: shapes, layout, a size of 0, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> x = np.array([[1, 2, 3], [5, 5, 5]], np.float32)
>>> kernels.var(x, out=np.empty(2, np.float32), dim=1).tolist()
[1.0, 0.0]
)");
  const auto define_softmax = [&m](const char* op, const char* back, bool log, const char* doc, const char* back_doc) {
    m.def(
        op, [=](Arr x, Arr out, int64_t dim) { return softmax(op, x, out, dim, log); }, nb::arg("x"), nb::arg("out"),
        nb::arg("dim") = -1, doc);
    m.def(
        back, [=](Arr y, Arr dy, Arr out, int64_t dim) { return softmax_backward(back, y, dy, out, dim, log); },
        nb::arg("y"), nb::arg("dy"), nb::arg("out"), nb::arg("dim") = -1, back_doc);
  };
  define_softmax("softmax", "softmax_backward", false, R"(out = exp(x) / sum(exp(x)) along dim.

x: floats, contiguous, any shape. out: as x; it may be x itself.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> x = np.zeros((2, 4), np.float32)
>>> kernels.softmax(x, out=x).tolist()
[[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
)",
                 R"(out = y * (dy - sum(dy * y)) along dim, the gradient of softmax at its result y.

y, dy and out: one shape and float dtype, contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> y, dy = np.array([0.5, 0.5], np.float32), np.array([1, 0], np.float32)
>>> kernels.softmax_backward(y, dy, out=np.empty_like(y)).tolist()
[0.25, -0.25]
)");
  define_softmax("log_softmax", "log_softmax_backward", true, R"(out = x - log(sum(exp(x))) along dim.

x: floats, contiguous, any shape. out: as x; it may be x itself.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> x = np.zeros((1, 1), np.float32)
>>> kernels.log_softmax(x, out=x).tolist()
[[0.0]]
)",
                 R"(out = dy - exp(y) * sum(dy) along dim, the gradient of log_softmax at its result y.

y, dy and out: one shape and float dtype, contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> y, dy = np.zeros(1, np.float32), np.ones(1, np.float32)
>>> kernels.log_softmax_backward(y, dy, out=np.empty_like(y)).tolist()
[0.0]
)");
  m.def("cross_entropy", &cross_entropy, nb::arg("x"), nb::arg("target"), nb::arg("out"),
        nb::arg("weight").none() = nb::none(), nb::arg("stats").none() = nb::none(), nb::arg("ignore_index") = -100,
        nb::arg("reduction") = "mean", nb::arg("label_smoothing") = 0.0,
        R"(out = the cross-entropy of logits x and labels: -log(softmax(x)[i, target[i]]), averaged, summed or by row.

x: floats (rows, classes). target: int64 (rows,). weight: (classes,). out: () after 'mean' and 'sum', (rows,) after
'none'. stats: (2 * rows + 1,), written for cross_entropy_backward. weight, out and stats are float64 for float64 x,
else float32. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory, reduction, label_smoothing. TypeError: dtypes.
IndexError: a label that is neither a class nor ignore_index; then out is not written.

>>> x, target = np.zeros((3, 4)), np.array([0, 1, 2])
>>> round(float(kernels.cross_entropy(x, target, out=np.empty(()))), 4)
1.3863
)");
  m.def("cross_entropy_backward", &cross_entropy_backward, nb::arg("dloss"), nb::arg("x"), nb::arg("target"),
        nb::arg("stats"), nb::arg("out"), nb::arg("weight").none() = nb::none(), nb::arg("ignore_index") = -100,
        nb::arg("reduction") = "mean", nb::arg("label_smoothing") = 0.0,
        R"(out = the gradient of cross_entropy by x: dloss (softmax(x) - onehot(target)), over the rows for 'mean'.

dloss: as cross_entropy's out. stats: as it wrote them. out: as x. The rest as there.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, target, stats = np.zeros((1, 2)), np.array([0]), np.empty(3)
>>> loss = kernels.cross_entropy(x, target, out=np.empty(()), stats=stats)
>>> kernels.cross_entropy_backward(np.ones(()), x, target, stats, out=np.empty((1, 2))).tolist()
[[-0.5, 0.5]]
)");
  const auto x = nb::arg("x"), out = nb::arg("out"), dy = nb::arg("dy"), mean = nb::arg("mean"), rstd = nb::arg("rstd");
  const auto normalized_shape = nb::arg("normalized_shape") = nb::none();
  const auto eps = nb::arg("eps") = 1e-5;
  const auto optional = [](const char* name) { return nb::arg(name).none() = nb::none(); };
  m.def(
      "layer_norm",
      [](Arr x, Arr out, Arr weight, Arr bias, Arr mean, Arr rstd, double eps, const Sizes& shape) {
        return RowNorm{"layer_norm", false, shape}.forward(x, out, weight, bias, mean, rstd, eps);
      },
      x, out, optional("weight"), optional("bias"), optional("mean"), optional("rstd"), eps, normalized_shape,
      R"(out = (x - mean) * rstd * weight + bias over the last dimensions; rstd = 1 / sqrt(var + eps).

x: floats (..., *normalized_shape), by default over its last dimension. weight, bias: normalized_shape, of x's dtype or
float32 beside a half. mean, rstd: written, one value a row, float64 for float64 x, else float32. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([[1, 3]], np.float32)
>>> kernels.layer_norm(x, out=np.empty_like(x), eps=0).tolist()
[[-1.0, 1.0]]
)");
  m.def(
      "layer_norm_backward",
      [](Arr dy, Arr x, Arr mean, Arr rstd, Arr out, Arr weight, Arr dw, Arr db, const Sizes& shape) {
        return RowNorm{"layer_norm_backward", false, shape}.backward(dy, x, mean, rstd, out, weight, dw, db);
      },
      dy, x, mean, rstd, out, optional("weight"), optional("dw"), optional("db"), normalized_shape,
      R"(out = the gradient of layer_norm by x; dw and db, where given, those of weight and bias.

dy, x and out: one shape and dtype. mean, rstd: as layer_norm wrote them. dw, db: as weight. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, mean, rstd = np.array([[1.0, 3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.layer_norm_backward(np.ones((1, 2)), x, mean, rstd, out=np.empty_like(x)).tolist()
[[0.0, 0.0]]
)");
  m.def(
      "rms_norm",
      [](Arr x, Arr out, Arr weight, Arr rstd, double eps, const Sizes& shape) {
        return RowNorm{"rms_norm", true, shape}.forward(x, out, weight, {}, {}, rstd, eps);
      },
      x, out, optional("weight"), optional("rstd"), eps, normalized_shape,
      R"(out = x * rstd * weight over the last dimensions; rstd = 1 / sqrt(mean(x^2) + eps).

The arguments are layer_norm's. Zhang & Sennrich, NeurIPS 2019.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([[2, -2]], np.float32)
>>> kernels.rms_norm(x, out=np.empty_like(x), eps=0).tolist()
[[1.0, -1.0]]
)");
  m.def(
      "rms_norm_backward",
      [](Arr dy, Arr x, Arr rstd, Arr out, Arr weight, Arr dw, const Sizes& shape) {
        return RowNorm{"rms_norm_backward", true, shape}.backward(dy, x, {}, rstd, out, weight, dw, {});
      },
      dy, x, rstd, out, optional("weight"), optional("dw"), normalized_shape,
      R"(out = the gradient of rms_norm by x; dw, where given, that of weight. The arguments are layer_norm_backward's.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, rstd = np.array([[2.0, -2.0]]), np.array([0.5])
>>> kernels.rms_norm_backward(np.array([[1.0, -1.0]]), x, rstd, out=np.empty_like(x)).tolist()
[[0.0, 0.0]]
)");
  m.def(
      "group_norm",
      [](Arr x, Arr out, int64_t groups, Arr weight, Arr bias, Arr mean, Arr rstd, double eps) {
        TW_CHECK(groups > 0, "group_norm: num_groups must be at least 1, got ", groups);
        return RowNorm{"group_norm", false, {}, groups}.forward(x, out, weight, bias, mean, rstd, eps);
      },
      x, out, nb::arg("num_groups"), optional("weight"), optional("bias"), optional("mean"), optional("rstd"), eps,
      R"(out = (x - mean) * rstd * weight + bias over each of num_groups groups of neighbouring channels of an item.

x: floats (N, C, ...), C a multiple of num_groups; with C groups it is instance norm. weight, bias: (C,), of x's dtype
or float32 beside a half. mean, rstd: (N * num_groups,), written, float64 for float64 x, else float32. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([[1, 3, 5, 9]], np.float32)
>>> kernels.group_norm(x, out=np.empty_like(x), num_groups=2, eps=0).tolist()
[[-1.0, 1.0, -1.0, 1.0]]
)");
  m.def(
      "group_norm_backward",
      [](Arr dy, Arr x, Arr mean, Arr rstd, Arr out, int64_t groups, Arr weight, Arr dw, Arr db) {
        TW_CHECK(groups > 0, "group_norm_backward: num_groups must be at least 1, got ", groups);
        return RowNorm{"group_norm_backward", false, {}, groups}.backward(dy, x, mean, rstd, out, weight, dw, db);
      },
      dy, x, mean, rstd, out, nb::arg("num_groups"), optional("weight"), optional("dw"), optional("db"),
      R"(out = the gradient of group_norm by x; dw and db, where given, those of weight and bias.

dy, x and out: one shape and dtype. mean, rstd: as group_norm wrote them. dw, db: as weight. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, mean, rstd = np.array([[1.0, 3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.group_norm_backward(np.ones((1, 2)), x, mean, rstd, out=np.empty_like(x), num_groups=1).tolist()
[[0.0, 0.0]]
)");
  m.def("batch_norm", &batch_norm, x, out, optional("weight"), optional("bias"), optional("running_mean"),
        optional("running_var"), optional("mean"), optional("rstd"), nb::arg("training") = false,
        nb::arg("momentum") = 0.1, eps,
        R"(out = (x - mean) * rstd * weight + bias a channel: by the batch in training, else by the running statistics.

x: floats (N, C, ...). weight, bias, running_mean, running_var: (C,), of x's dtype or float32 beside a half; in training
the running ones, where given, are updated. mean, rstd: (C,), written, float64 for float64 x, else float32. All
contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory, missing statistics. TypeError: dtypes.

>>> x = np.array([[1], [3]], np.float32)
>>> kernels.batch_norm(x, out=np.empty_like(x), training=True, eps=0).tolist()
[[-1.0], [1.0]]
)");
  m.def("batch_norm_backward", &batch_norm_backward, dy, x, mean, rstd, out, optional("weight"), optional("dw"),
        optional("db"), nb::arg("training") = true,
        R"(out = the gradient of batch_norm by x; dw and db, where given, those of weight and bias.

dy, x and out: one shape and dtype. mean, rstd: as batch_norm wrote them. dw, db: as weight. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, mean, rstd = np.array([[1.0], [3.0]]), np.array([2.0]), np.array([1.0])
>>> kernels.batch_norm_backward(np.ones((2, 1)), x, mean, rstd, out=np.empty_like(x)).tolist()
[[0.0], [0.0]]
)");
}

}  // namespace tw
