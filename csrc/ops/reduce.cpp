// Reductions over any set of dimensions: runs of adjacent reduced dimensions, from the innermost outwards, one launch a
// run. The shape alone decides the path: the input is made contiguous first, so its layout never changes a bit.
#include <algorithm>

#include "ops/common.h"

namespace tw {
namespace {

using ReduceSlot = Slot<ReduceArgs>;

struct Folding {
  bool reduced[kMaxDims] = {};
  Dims shape;         // of the result
  int64_t count = 1;  // values folded into each result
};

// No dims, or an empty tuple, mean all of them, as in PyTorch.
Folding plan(const char* op, const Array& x, const std::optional<Dims>& dims, bool keepdim) {
  Folding r;
  const bool all = !dims || dims->n == 0;
  for (int i = 0; !all && i < dims->n; ++i) {
    const int d = wrap_dim(op, (*dims)[i], x.ndim());
    TW_CHECK(!r.reduced[d], op, ": dims must name each dimension once, got ", str_of(*dims), " for shape ",
             str_of(x.shape()));
    r.reduced[d] = true;
  }
  for (int i = 0; i < x.ndim(); ++i) {
    r.reduced[i] |= all;
    if (r.reduced[i]) r.count *= x.size(i);
    if (!r.reduced[i] || keepdim) r.shape.push(r.reduced[i] ? 1 : x.size(i));
  }
  return r;
}

void launch_reduce(const ReduceSlot& slot, const Array& x, const Array& y, int64_t outer, int64_t n, int64_t inner,
                   double scale) {
  ReduceArgs a;
  a.x = x.raw();
  a.y = y.raw();
  a.outer = outer;
  a.n = n;
  a.inner = inner;
  a.x_dtype = x.dtype();
  a.y_dtype = y.dtype();
  a.scale = scale;
  launch(x.device(), slot, a);
}

// The shape with sizes of 1 dropped and neighbours of one kind joined.
struct Groups {
  int n = 0;
  int64_t size[kMaxDims];
  bool reduced[kMaxDims];
  void push(int64_t s, bool r) {
    if (s == 1) return;
    if (n > 0 && reduced[n - 1] == r) {
      size[n - 1] *= s;
      return;
    }
    size[n] = s;
    reduced[n++] = r;
  }
  int64_t product(int begin, int end) const {
    int64_t p = 1;
    for (int i = begin; i < end; ++i) p *= size[i];
    return p;
  }
};

// Folds x run by run into y; results between two launches have dtype `between`. Neither array is empty.
void run(const char* op, const ReduceSlot& slot, const Array& input, const Folding& r, DType between, const Array& y,
         double scale) {
  Groups g;
  Array x = contiguous(input);
  for (int i = 0; i < x.ndim(); ++i) g.push(x.size(i), r.reduced[i]);
  for (;;) {
    int at = g.n - 1;
    while (at >= 0 && !g.reduced[at]) --at;
    if (at < 0) return launch_reduce(slot, x, y, g.product(0, g.n), 1, 1, scale);  // every reduced size is 1
    const int64_t outer = g.product(0, at), inner = g.product(at + 1, g.n), n = g.size[at];
    if (at < 2) return launch_reduce(slot, x, y, outer, n, inner, scale);  // groups alternate: nothing left to fold
    Array part = Array::empty(op, {outer * inner}, between, x.device());
    launch_reduce(slot, x, part, outer, n, inner, 1);
    Groups rest;
    for (int i = 0; i < g.n; ++i)
      if (i != at) rest.push(g.size[i], g.reduced[i]);
    g = rest;
    x = part;
  }
}

Array reduce(const char* op, const ReduceSlot& slot, const Array& x, const std::optional<Dims>& dims, bool keepdim,
             DType y_dtype, DType between, const Value& of_nothing) {
  const Folding r = plan(op, x, dims, keepdim);
  Array y = result(op, r.shape, y_dtype, x.device());
  if (r.count == 0) fill(op, y, of_nothing);
  else if (y.numel() > 0) run(op, slot, x, r, between, y, 1);
  return y;
}

Value number(double v) {
  Value n;
  n.kind = Value::kFloat;
  n.f = v;
  n.i = v == v ? static_cast<int64_t>(v) : 0;
  return n;
}

DType accumulator(DType t) { return is_half(t) ? DType::kFloat32 : is_float(t) ? t : DType::kInt64; }

// The input of a sum in another dtype: cast first, unless the accumulator is as good, or the caller wants no copies.
Array prepared(const Array& x, DType to) {
  const bool same_kind = is_float(to) == is_float(x.dtype());
  return same_kind && (accumulator(x.dtype()) >= accumulator(to) || recipient) ? x : cast(x, to);
}

Array sum_like(const char* op, const ReduceSlot& slot, const Array& input, const std::optional<Dims>& dims,
               bool keepdim, std::optional<DType> dtype, double of_nothing) {
  const DType y_dtype = dtype.value_or(is_float(input.dtype()) ? input.dtype() : DType::kInt64);
  Array x = prepared(input, y_dtype);
  if (&slot == &slots::prod && !is_float(x.dtype())) x = cast(x, DType::kInt64);  // the kernel takes no others
  return reduce(op, slot, x, dims, keepdim, y_dtype, accumulator(x.dtype()), number(of_nothing));
}

Array extremum(const char* op, const ReduceSlot& slot, const Array& x, const std::optional<Dims>& dims, bool keepdim) {
  const Folding r = plan(op, x, dims, keepdim);
  TW_CHECK(r.count > 0, op, ": cannot reduce a dimension of size 0, got shape ", str_of(x.shape()));
  Array y = result(op, r.shape, x.dtype(), x.device());
  if (y.numel() > 0) run(op, slot, x, r, x.dtype(), y, 1);
  return y;
}

Array arg_extremum(const char* op, const ReduceSlot& slot, const Array& x, std::optional<int64_t> dim, bool keepdim) {
  std::optional<Dims> dims;
  if (dim) dims = Dims{*dim};
  const Folding r = plan(op, x, dims, keepdim);
  TW_CHECK(r.count > 0, op, ": cannot reduce a dimension of size 0, got shape ", str_of(x.shape()));
  Array y = result(op, r.shape, DType::kInt64, x.device());
  if (y.numel() > 0) run(op, slot, x, r, DType::kInt64, y, 1);  // one dimension or all: a single run
  return y;
}

}  // namespace

Array sum(const Array& x, const std::optional<Dims>& dims, bool keepdim, std::optional<DType> dtype) {
  return sum_like("sum", slots::sum, x, dims, keepdim, dtype, 0);
}

Array mean(const Array& input, const std::optional<Dims>& dims, bool keepdim, std::optional<DType> dtype) {
  const DType y_dtype = dtype.value_or(input.dtype());
  TW_CHECK_TYPE(is_float(y_dtype), "mean: must have a floating-point dtype, got ", name(y_dtype),
                "; pass dtype= to choose one");
  const Array x = prepared(input, y_dtype);
  const Folding r = plan("mean", x, dims, keepdim);
  Array y = result("mean", r.shape, y_dtype, x.device());
  if (r.count == 0) fill("mean", y, number(__builtin_nan("")));
  else if (y.numel() > 0) run("mean", slots::sum, x, r, accumulator(x.dtype()), y, 1 / static_cast<double>(r.count));
  return y;
}

Array prod(const Array& x, const OptionalDims& dims, bool keepdim, OptionalDType dtype) {
  return sum_like("prod", slots::prod, x, dims, keepdim, dtype, 1);
}
Array amax(const Array& x, const OptionalDims& dims, bool keepdim) {
  return extremum("amax", slots::amax, x, dims, keepdim);
}
Array amin(const Array& x, const OptionalDims& dims, bool keepdim) {
  return extremum("amin", slots::amin, x, dims, keepdim);
}
Array any(const Array& x, const OptionalDims& dims, bool keepdim) {
  return reduce("any", slots::any, x, dims, keepdim, DType::kBool, DType::kBool, number(0));
}
Array all(const Array& x, const OptionalDims& dims, bool keepdim) {
  return reduce("all", slots::all, x, dims, keepdim, DType::kBool, DType::kBool, number(1));
}
Array argmax(const Array& x, std::optional<int64_t> dim, bool keepdim) {
  return arg_extremum("argmax", slots::argmax, x, dim, keepdim);
}
Array argmin(const Array& x, std::optional<int64_t> dim, bool keepdim) {
  return arg_extremum("argmin", slots::argmin, x, dim, keepdim);
}

// In x's dtype, or in the one it is accumulated in when `wide`.
Array var(const Array& input, const std::optional<Dims>& dims, double correction, bool keepdim, bool wide) {
  TW_CHECK_TYPE(is_float(input.dtype()), "var: must have a floating-point dtype, got ", name(input.dtype()));
  const Folding r = plan("var", input, dims, keepdim);
  const DType y_dtype = wide ? accumulator(input.dtype()) : input.dtype();
  Array y = result("var", r.shape, y_dtype, input.device());
  if (r.count == 0) fill("var", y, number(__builtin_nan("")));
  if (r.count == 0 || y.numel() == 0) return y;
  // One run, or the reduced dimensions moved together at the end: squared deviations of parts do not add up.
  Groups g;
  int runs = 0;
  for (int i = 0; i < input.ndim(); ++i) g.push(input.size(i), r.reduced[i]);
  for (int i = 0; i < g.n; ++i) runs += g.reduced[i];
  Array x = input;
  Folding moved = r;
  if (runs > 1) {
    Dims order;
    for (const bool last : {false, true})
      for (int i = 0; i < x.ndim(); ++i) {
        if (r.reduced[i] != last) continue;
        moved.reduced[order.n] = last;
        order.push(i);
      }
    x = x.permute("var", order);
  }
  run("var", slots::var, x, moved, x.dtype(), y, 1 / std::max(0.0, static_cast<double>(r.count) - correction));
  return y;
}

// Undoes broadcasting: sums x over the dimensions in which `shape` is 1 or missing.
Array sum_to(const Array& x, const Dims& shape) {
  if (x.shape() == shape) return x;
  const int lead = x.ndim() - shape.n;
  bool fits = lead >= 0;
  Dims dims;
  for (int i = 0; fits && i < x.ndim(); ++i) {
    const bool folded = i < lead || (shape[i - lead] == 1 && x.size(i) != 1);
    fits = folded || shape[i - lead] == x.size(i);
    if (folded) dims.push(i);
  }
  TW_CHECK(fits, "sum_to_size: the shape must broadcast to the tensor's, got ", str_of(shape), " for ",
           str_of(x.shape()));
  const Array y = dims.n ? sum_like("sum_to_size", slots::sum, x, dims, true, x.dtype(), 0) : x;
  Array view;
  contiguous(y).try_view("sum_to_size", shape, &view);
  return view;
}

void bind_reduce(py::module_& m) {
  def<&sum>(m, "sum");
  def<&mean>(m, "mean");
  m.def("prod", &prod);
  m.def("amax", &amax);
  m.def("amin", &amin);
  m.def("any", &any);
  m.def("all", &all);
  m.def("argmax", &argmax);
  m.def("argmin", &argmin);
  m.def("var", &var, py::arg(), py::arg(), py::arg(), py::arg(), py::arg() = false);
  def<&sum_to>(m, "sum_to");
}

}  // namespace tw
