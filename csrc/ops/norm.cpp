// Layer norm over trailing dimensions, and batch norm over (N, C, ...).
#include "ops/common.h"

namespace tw {
namespace {

using OptionalArray = std::optional<Array>;

DType accumulator(const Array& x) { return x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32; }

void* raw(const Array& a) { return a.defined() ? a.raw() : nullptr; }

// One of the parameters: of the wanted shape, and of the dtype that the first one set.
Array parameter(const char* op, const char* what, const OptionalArray& p, const Dims& shape, const Array& x,
                std::optional<DType>* dtype) {
  if (!p) return {};
  TW_CHECK(p->shape() == shape, op, ": ", what, " must have shape ", str_of(shape), ", got ", str_of(p->shape()),
           " for input ", str_of(x.shape()));
  TW_CHECK_TYPE(p->dtype() == x.dtype() || (is_half(x.dtype()) && p->dtype() == DType::kFloat32), op, ": ", what,
                " must have the input's dtype (or float32 beside a half), got ", name(p->dtype()), " for ",
                name(x.dtype()));
  TW_CHECK_TYPE(!*dtype || **dtype == p->dtype(), op, ": parameters must share one dtype, got ", name(p->dtype()),
                " for ", what, " beside ", name(dtype->value_or(DType::kFloat32)));
  *dtype = p->dtype();
  return contiguous(*p);
}

struct LayerNorm {
  Array x, w, b;
  LayerNormArgs args;
};

LayerNorm prepare_layer_norm(const Array& x, const Dims& shape, const OptionalArray& w, const OptionalArray& b) {
  TW_CHECK_TYPE(is_float(x.dtype()), "layer_norm: must have a floating-point dtype, got ", describe(x));
  const int lead = x.ndim() - shape.n;
  bool fits = shape.n > 0 && lead >= 0;
  for (int i = 0; fits && i < shape.n; ++i) fits = x.size(lead + i) == shape[i];
  TW_CHECK(fits, "layer_norm: the input's last sizes must be normalized_shape ", str_of(shape), ", got ",
           str_of(x.shape()));
  LayerNorm n;
  std::optional<DType> dtype;
  n.x = contiguous(x);
  n.w = parameter("layer_norm", "weight", w, shape, x, &dtype);
  n.b = parameter("layer_norm", "bias", b, shape, x, &dtype);
  LayerNormArgs& a = n.args;
  a = {};
  a.x = n.x.raw();
  a.w = raw(n.w);
  a.b = raw(n.b);
  a.rows = a.cols = 1;
  for (int i = 0; i < x.ndim(); ++i) (i < lead ? a.rows : a.cols) *= x.size(i);
  a.dtype = x.dtype();
  a.param_dtype = dtype.value_or(x.dtype());
  return n;
}

// (y, mean, rstd)
std::tuple<Array, Array, Array> layer_norm(const Array& x, const Dims& shape, const OptionalArray& w,
                                           const OptionalArray& b, double eps) {
  LayerNorm n = prepare_layer_norm(x, shape, w, b);
  LayerNormArgs& a = n.args;
  Array y = Array::empty("layer_norm", x.shape(), x.dtype(), x.device());
  Array mean = Array::empty("layer_norm", {a.rows}, accumulator(x), x.device());
  Array rstd = Array::empty("layer_norm", {a.rows}, accumulator(x), x.device());
  if (y.numel() > 0) {
    a.y = y.raw();
    a.mean = mean.raw();
    a.rstd = rstd.raw();
    a.eps = eps;
    launch(x.device(), slots::layer_norm, a);
  }
  return {y, mean, rstd};
}

using Gradients = std::tuple<OptionalArray, OptionalArray, OptionalArray>;

Gradients layer_norm_backward(const Array& dy, const Array& x, const Dims& shape, const OptionalArray& w,
                              const Array& mean, const Array& rstd, bool want_x, bool want_w, bool want_b) {
  LayerNorm n = prepare_layer_norm(x, shape, w, {});
  LayerNormArgs& a = n.args;
  OptionalArray dx, dw, db;
  if (x.numel() == 0) {
    if (want_x) dx = zeros("layer_norm", x.shape(), x.dtype(), x.device());
    if (want_w) dw = zeros("layer_norm", shape, a.param_dtype, x.device());
    if (want_b) db = zeros("layer_norm", shape, a.param_dtype, x.device());
    return {dx, dw, db};
  }
  const Array g = contiguous(dy);
  a.dy = g.raw();
  a.mean = mean.raw();
  a.rstd = rstd.raw();
  if (want_x) a.y = (dx = Array::empty("layer_norm", x.shape(), x.dtype(), x.device()))->raw();
  if (want_w) a.dw = (dw = Array::empty("layer_norm", shape, a.param_dtype, x.device()))->raw();
  if (want_b) a.db = (db = Array::empty("layer_norm", shape, a.param_dtype, x.device()))->raw();
  launch(x.device(), slots::layer_norm_backward, a);
  return {dx, dw, db};
}

struct BatchNorm {
  Array x, w, b, mean, var;  // all contiguous
  BatchNormArgs args;
};

BatchNorm prepare_batch_norm(const Array& x, const OptionalArray& w, const OptionalArray& b,
                             const OptionalArray& running_mean, const OptionalArray& running_var, bool training) {
  TW_CHECK_TYPE(is_float(x.dtype()), "batch_norm: must have a floating-point dtype, got ", describe(x));
  TW_CHECK(x.ndim() >= 2, "batch_norm: input must be (N, C, ...), got ", str_of(x.shape()));
  BatchNorm n;
  BatchNormArgs& a = n.args;
  a = {};
  a.N = x.size(0);
  a.C = x.size(1);
  a.S = 1;
  for (int i = 2; i < x.ndim(); ++i) a.S *= x.size(i);
  std::optional<DType> dtype;
  const Dims channels{a.C};
  n.x = contiguous(x);
  n.w = parameter("batch_norm", "weight", w, channels, x, &dtype);
  n.b = parameter("batch_norm", "bias", b, channels, x, &dtype);
  n.mean = parameter("batch_norm", "running_mean", running_mean, channels, x, &dtype);
  n.var = parameter("batch_norm", "running_var", running_var, channels, x, &dtype);
  for (const OptionalArray* r : {&running_mean, &running_var})
    if (training && *r) check_writable("batch_norm", **r);
  a.x = n.x.raw();
  a.w = raw(n.w);
  a.b = raw(n.b);
  a.running_mean = raw(n.mean);
  a.running_var = raw(n.var);
  a.training = training;
  a.dtype = x.dtype();
  a.param_dtype = dtype.value_or(x.dtype());
  return n;
}

// (y, mean, rstd); updates the running statistics in training.
std::tuple<Array, Array, Array> batch_norm(const Array& x, const OptionalArray& w, const OptionalArray& b,
                                           OptionalArray running_mean, OptionalArray running_var, bool training,
                                           double momentum, double eps) {
  BatchNorm n = prepare_batch_norm(x, w, b, running_mean, running_var, training);
  BatchNormArgs& a = n.args;
  TW_CHECK(training || (running_mean && running_var),
           "batch_norm: running_mean and running_var must be given in evaluation, got None");
  TW_CHECK(!training || a.C == 0 || a.N * a.S > 1,
           "batch_norm: must have more than 1 value per channel in training, got input ", str_of(x.shape()));
  Array y = Array::empty("batch_norm", x.shape(), x.dtype(), x.device());
  Array mean = Array::empty("batch_norm", {a.C}, accumulator(x), x.device());
  Array rstd = Array::empty("batch_norm", {a.C}, accumulator(x), x.device());
  if (y.numel() > 0) {
    a.y = y.raw();
    a.mean = mean.raw();
    a.rstd = rstd.raw();
    a.eps = eps;
    a.momentum = momentum;
    launch(x.device(), slots::batch_norm, a);
    auto update = [&](OptionalArray& running, const Array& updated) {
      if (!training || !running) return;
      if (running->is_contiguous()) running->bump_version();
      else copy_into("batch_norm", *running, updated);
    };
    update(running_mean, n.mean);
    update(running_var, n.var);
  }
  return {y, mean, rstd};
}

Gradients batch_norm_backward(const Array& dy, const Array& x, const OptionalArray& w, const Array& mean,
                              const Array& rstd, bool training, std::optional<DType> param_dtype, bool want_x,
                              bool want_w, bool want_b) {
  BatchNorm n = prepare_batch_norm(x, w, {}, {}, {}, training);
  BatchNormArgs& a = n.args;
  a.param_dtype = param_dtype.value_or(a.param_dtype);
  const Dims channels{a.C};
  OptionalArray dx, dw, db;
  if (x.numel() == 0) {
    if (want_x) dx = zeros("batch_norm", x.shape(), x.dtype(), x.device());
    if (want_w) dw = zeros("batch_norm", channels, a.param_dtype, x.device());
    if (want_b) db = zeros("batch_norm", channels, a.param_dtype, x.device());
    return {dx, dw, db};
  }
  const Array g = contiguous(dy);
  a.dy = g.raw();
  a.mean = mean.raw();
  a.rstd = rstd.raw();
  if (want_x) a.y = (dx = Array::empty("batch_norm", x.shape(), x.dtype(), x.device()))->raw();
  if (want_w) a.dw = (dw = Array::empty("batch_norm", channels, a.param_dtype, x.device()))->raw();
  if (want_b) a.db = (db = Array::empty("batch_norm", channels, a.param_dtype, x.device()))->raw();
  launch(x.device(), slots::batch_norm_backward, a);
  return {dx, dw, db};
}

}  // namespace

void bind_norm(py::module_& m) {
  m.def("layer_norm", &layer_norm);
  m.def("layer_norm_backward", &layer_norm_backward);
  m.def("batch_norm", &batch_norm);
  m.def("batch_norm_backward", &batch_norm_backward);
}

}  // namespace tw
