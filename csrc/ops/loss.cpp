// Cross-entropy of logits (C), (N, C) or (N, C, d...) and class labels: the classes go last, one row a label.
#include "ops/common.h"

namespace tw {
namespace {

DType accumulator(const Array& x) { return x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

// (N, C, d...) -> (N, d..., C)
Array classes_last(const Array& x) {
  if (x.ndim() <= 2) return contiguous(x);
  Dims order{0};
  for (int i = 2; i < x.ndim(); ++i) order.push(i);
  order.push(1);
  return contiguous(x.permute("cross_entropy", order));
}

std::string place(const Dims& shape, int64_t flat) {
  if (shape.n <= 1) return std::to_string(flat);
  Dims at = shape;
  for (int i = shape.n - 1; i >= 0; flat /= shape[i--]) at[i] = flat % shape[i];
  return str_of(at);
}

struct Prepared {
  Array x, target, weight;
  CrossEntropyArgs args;
};

Prepared prepare(const Array& x, const Array& target, const OptionalArray& weight, int64_t ignore_index,
                 const std::string& reduction, double smoothing) {
  TW_CHECK_TYPE(is_float(x.dtype()), "cross_entropy: logits must have a floating-point dtype, got ", describe(x));
  TW_CHECK(x.ndim() >= 1, "cross_entropy: logits must be (C), (N, C) or (N, C, d...), got ", describe(x));
  TW_CHECK_TYPE(is_integer(target.dtype()), "cross_entropy: labels must be integers, got ", describe(target));
  const int at = x.ndim() == 1 ? 0 : 1;
  Dims labels;
  for (int i = 0; i < x.ndim(); ++i)
    if (i != at) labels.push(x.size(i));
  TW_CHECK(target.shape() == labels, "cross_entropy: labels must have the logits' shape without the classes, got ",
           "logits ", str_of(x.shape()), " and labels ", str_of(target.shape()));
  TW_CHECK(smoothing >= 0 && smoothing <= 1, "cross_entropy: label_smoothing must be in [0, 1], got ", smoothing);
  const int64_t classes = x.size(at);
  Prepared p;
  p.x = classes_last(x);
  p.target = contiguous(cast(target, DType::kInt64));
  CrossEntropyArgs& a = p.args;
  a = {};
  if (weight) {
    TW_CHECK_TYPE(is_float(weight->dtype()), "cross_entropy: weight must have a floating-point dtype, got ",
                  describe(*weight));
    TW_CHECK(weight->shape() == Dims{classes}, "cross_entropy: weight must have one value a class, got ",
             str_of(weight->shape()), " for ", classes, " classes");
    p.weight = contiguous(cast(*weight, accumulator(x)));
    a.weight = p.weight.raw();
  }
  a.x = p.x.raw();
  a.target = static_cast<const int64_t*>(p.target.raw());
  a.rows = p.target.numel();
  a.classes = classes;
  a.ignore_index = ignore_index;
  a.smoothing = smoothing;
  a.dtype = x.dtype();
  if (reduction == "none") a.reduction = Reduction::kNone;
  else if (reduction == "mean") a.reduction = Reduction::kMean;
  else if (reduction == "sum") a.reduction = Reduction::kSum;
  else fail<std::invalid_argument>("cross_entropy: reduction must be 'none', 'mean' or 'sum', got '", reduction, "'");
  return p;
}

}  // namespace

// (loss, what the gradient needs besides the inputs)
std::pair<Array, Array> cross_entropy(const Array& x, const Array& target, const OptionalArray& weight,
                                      int64_t ignore_index, const std::string& reduction, double smoothing) {
  Prepared p = prepare(x, target, weight, ignore_index, reduction, smoothing);
  CrossEntropyArgs& a = p.args;
  const DType acc = accumulator(x);
  TW_CHECK(a.classes > 0 || a.rows == 0, "cross_entropy: there must be at least one class, got logits ",
           str_of(x.shape()));
  const bool each = a.reduction == Reduction::kNone;
  Array loss = each ? result("cross_entropy", target.shape(), acc, x.device())
                    : Array::empty("cross_entropy", target.shape(), acc, x.device());
  Array stats = result("cross_entropy", {2 * a.rows + 1}, acc, x.device(), "stats");
  Array bad = Array::empty("cross_entropy", {1}, DType::kInt64);
  Array value;
  a.loss = loss.raw();
  a.stats = stats.raw();
  a.bad = static_cast<int64_t*>(bad.raw());
  if (!each) {
    value = result("cross_entropy", {}, acc, x.device());
    a.value = value.raw();
  }
  launch(x.device(), slots::cross_entropy, a);
  const int64_t first_bad = *a.bad;
  TW_CHECK_INDEX(first_bad < 0, "cross_entropy: labels must be in [0, ", a.classes, ") or ignore_index ", ignore_index,
                 ", got ", value_at(p.target, first_bad), " at ", place(target.shape(), first_bad));
  if (each) value = loss;
  return {recipient ? value : cast(value, x.dtype()), stats};
}

Array cross_entropy_backward(const Array& dloss, const Array& x, const Array& target, const OptionalArray& weight,
                             const Array& stats, int64_t ignore_index, const std::string& reduction, double smoothing) {
  Prepared p = prepare(x, target, weight, ignore_index, reduction, smoothing);
  CrossEntropyArgs& a = p.args;
  const Array g = contiguous(cast(dloss, accumulator(x)));
  const bool each = a.reduction == Reduction::kNone;
  check_is("cross_entropy", "dloss", g, each ? target.shape() : Dims{}, accumulator(x));
  check_is("cross_entropy", "stats", stats, {2 * a.rows + 1}, accumulator(x));
  Array dx = result("cross_entropy", p.x.shape(), x.dtype(), x.device());
  if (dx.numel() > 0) {
    a.dloss = g.raw();
    a.stats = stats.raw();
    a.dx = dx.raw();
    launch(x.device(), slots::cross_entropy_backward, a);
  }
  if (x.ndim() <= 2) return dx;
  Dims order{0, x.ndim() - 1};
  for (int i = 1; i < x.ndim() - 1; ++i) order.push(i);
  return dx.permute("cross_entropy", order);
}

void bind_loss(py::module_& m) {
  def<&cross_entropy>(m, "cross_entropy");
  def<&cross_entropy_backward>(m, "cross_entropy_backward");
}

}  // namespace tw
