// Layer and RMS norm over trailing dimensions, group and batch norm over (N, C, ...).
#include "ops/common.h"

namespace tw {
namespace {

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

struct RowNorm {
  Array x, w, b;
  LayerNormArgs args;
  Dims param_shape;
};

RowNorm prepare_rows(const char* op, const Array& x, const Dims& param_shape, const OptionalArray& w,
                     const OptionalArray& b) {
  TW_CHECK_TYPE(is_float(x.dtype()), op, ": must have a floating-point dtype, got ", describe(x));
  RowNorm n;
  std::optional<DType> dtype;
  n.x = contiguous(x);
  n.w = parameter(op, "weight", w, param_shape, x, &dtype);
  n.b = parameter(op, "bias", b, param_shape, x, &dtype);
  n.param_shape = param_shape;
  LayerNormArgs& a = n.args;
  a = {};
  a.x = n.x.raw();
  a.w = raw(n.w);
  a.b = raw(n.b);
  a.rows = a.cols = a.groups = a.run = 1;
  a.dtype = x.dtype();
  a.param_dtype = dtype.value_or(x.dtype());
  return n;
}

// Layer norm, or RMS norm, of the last dimensions, whose sizes are `shape`.
RowNorm prepare_layer_norm(const char* op, const Array& x, const Dims& shape, const OptionalArray& w,
                           const OptionalArray& b, bool rms) {
  const int lead = x.ndim() - shape.n;
  bool fits = shape.n > 0 && lead >= 0;
  for (int i = 0; fits && i < shape.n; ++i) fits = x.size(lead + i) == shape[i];
  TW_CHECK(fits, op, ": the input's last sizes must be normalized_shape ", str_of(shape), ", got ", str_of(x.shape()));
  RowNorm n = prepare_rows(op, x, shape, w, b);
  for (int i = 0; i < x.ndim(); ++i) (i < lead ? n.args.rows : n.args.cols) *= x.size(i);
  n.args.rms = rms;
  return n;
}

// Group norm of (N, C, ...).
RowNorm prepare_group_norm(const char* op, const Array& x, int64_t groups, const OptionalArray& w,
                           const OptionalArray& b) {
  TW_CHECK(x.ndim() >= 2, op, ": input must be (N, C, ...), got ", str_of(x.shape()));
  const int64_t C = x.size(1);
  TW_CHECK(groups > 0 && C % groups == 0, op, ": the channels must be a multiple of num_groups, got ", C, " and ",
           groups);
  RowNorm n = prepare_rows(op, x, {C}, w, b);
  for (int i = 2; i < x.ndim(); ++i) n.args.run *= x.size(i);
  n.args.rows = x.size(0) * groups;
  n.args.cols = C / groups * n.args.run;
  n.args.groups = groups;
  return n;
}

// (y, mean, rstd)
std::tuple<Array, Array, Array> forward(const char* op, RowNorm n, const Array& x, double eps) {
  LayerNormArgs& a = n.args;
  Array y = result(op, x.shape(), x.dtype(), x.device());
  Array mean = result(op, {a.rows}, accumulator(x), x.device(), "mean");
  Array rstd = result(op, {a.rows}, accumulator(x), x.device(), "rstd");
  if (y.numel() > 0) {
    a.y = y.raw();
    a.mean = mean.raw();
    a.rstd = rstd.raw();
    a.eps = eps;
    launch(x.device(), slots::layer_norm, a);
  }
  return {y, mean, rstd};
}

void check_saved(const char* op, const Array& x, const Array& dy, const Array& mean, const Array& rstd, int64_t n) {
  check_is(op, "dy", dy, x.shape(), x.dtype());
  check_is(op, "mean", mean, {n}, accumulator(x));
  check_is(op, "rstd", rstd, {n}, accumulator(x));
}

// Of an empty batch they are zeros, and nothing is left to do.
Gradients gradients(const char* op, const Array& x, const Dims& param_shape, DType param_dtype, bool want_x,
                    bool want_w, bool want_b) {
  const auto make = [&](const char* role, const Dims& shape, DType t) {
    Array d = result(op, shape, t, x.device(), role);
    if (x.numel() == 0) fill(op, d, Value{nullptr, Value::kInt});
    return d;
  };
  Gradients d;
  if (want_x) std::get<0>(d) = make("out", x.shape(), x.dtype());
  if (want_w) std::get<1>(d) = make("dw", param_shape, param_dtype);
  if (want_b) std::get<2>(d) = make("db", param_shape, param_dtype);
  return d;
}

Gradients backward(const char* op, RowNorm n, const Array& dy, const Array& x, const Array& mean, const Array& rstd,
                   bool want_x, bool want_w, bool want_b) {
  LayerNormArgs& a = n.args;
  auto [dx, dw, db] = gradients(op, x, n.param_shape, a.param_dtype, want_x, want_w, want_b);
  if (x.numel() == 0) return {dx, dw, db};
  const Array g = contiguous(dy);
  check_saved(op, x, dy, mean, rstd, a.rows);
  a.dy = g.raw();
  a.mean = mean.raw();
  a.rstd = rstd.raw();
  if (dx) a.y = dx->raw();
  if (dw) a.dw = dw->raw();
  if (db) a.db = db->raw();
  launch(x.device(), slots::layer_norm_backward, a);
  return {dx, dw, db};
}

const char* row_norm_name(bool rms) { return rms ? "rms_norm" : "layer_norm"; }

}  // namespace

std::tuple<Array, Array, Array> layer_norm(const Array& x, const Dims& shape, const OptionalArray& w,
                                           const OptionalArray& b, double eps, bool rms) {
  const char* op = row_norm_name(rms);
  return forward(op, prepare_layer_norm(op, x, shape, w, b, rms), x, eps);
}

Gradients layer_norm_backward(const Array& dy, const Array& x, const Dims& shape, const OptionalArray& w,
                              const Array& mean, const Array& rstd, bool rms, bool want_x, bool want_w, bool want_b) {
  const char* op = row_norm_name(rms);
  return backward(op, prepare_layer_norm(op, x, shape, w, {}, rms), dy, x, mean, rstd, want_x, want_w, want_b);
}

std::tuple<Array, Array, Array> group_norm(const std::string& op, const Array& x, int64_t groups,
                                           const OptionalArray& w, const OptionalArray& b, double eps) {
  return forward(op.c_str(), prepare_group_norm(op.c_str(), x, groups, w, b), x, eps);
}

Gradients group_norm_backward(const Array& dy, const Array& x, int64_t groups, const OptionalArray& w,
                              const Array& mean, const Array& rstd, bool want_x, bool want_w, bool want_b) {
  const char* op = "group_norm";
  return backward(op, prepare_group_norm(op, x, groups, w, {}), dy, x, mean, rstd, want_x, want_w, want_b);
}

namespace {

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

}  // namespace

// (y, mean, rstd); updates the running statistics in training.
std::tuple<Array, Array, Array> batch_norm(const Array& x, const OptionalArray& w, const OptionalArray& b,
                                           OptionalArray running_mean, OptionalArray running_var, bool training,
                                           double momentum, double eps) {
  BatchNorm n = prepare_batch_norm(x, w, b, running_mean, running_var, training);
  BatchNormArgs& a = n.args;
  TW_CHECK(training || (running_mean && running_var),
           "batch_norm: running_mean and running_var must be given in evaluation, got None");
  TW_CHECK(!training || a.C == 0 || a.N * a.S != 1,
           "batch_norm: must have more than 1 value per channel in training, got input ", str_of(x.shape()));
  Array y = result("batch_norm", x.shape(), x.dtype(), x.device());
  Array mean = result("batch_norm", {a.C}, accumulator(x), x.device(), "mean");
  Array rstd = result("batch_norm", {a.C}, accumulator(x), x.device(), "rstd");
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
  auto [dx, dw, db] = gradients("batch_norm", x, {a.C}, a.param_dtype, want_x, want_w, want_b);
  if (x.numel() == 0) return {dx, dw, db};
  const Array g = contiguous(dy);
  check_saved("batch_norm", x, dy, mean, rstd, a.C);
  a.dy = g.raw();
  a.mean = mean.raw();
  a.rstd = rstd.raw();
  if (dx) a.y = dx->raw();
  if (dw) a.dw = dw->raw();
  if (db) a.db = db->raw();
  launch(x.device(), slots::batch_norm_backward, a);
  return {dx, dw, db};
}

void bind_norm(py::module_& m) {
  m.def("layer_norm", &layer_norm);
  m.def("layer_norm_backward", &layer_norm_backward);
  m.def("group_norm", &group_norm);
  m.def("group_norm_backward", &group_norm_backward);
  m.def("batch_norm", &batch_norm);
  m.def("batch_norm_backward", &batch_norm_backward);
}

}  // namespace tw
