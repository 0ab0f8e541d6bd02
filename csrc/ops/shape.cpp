// Shapes: views (no copy), and the joins and pads that do copy.
#include <algorithm>

#include "bindings/bind.h"
#include "ops/common.h"

namespace tw {
namespace {

Array view(const Array& x, const Dims& shape) {
  Array y;
  TW_CHECK(x.try_view("view", shape, &y), "view: shape ", str_of(x.shape()), " with strides ", str_of(x.strides()),
           " cannot become ", str_of(shape), " without a copy; use .reshape(...)");
  return y;
}

// A view where strides allow, else a copy. The flag says which.
std::pair<Array, bool> reshape(const Array& x, const Dims& shape) {
  Array y;
  if (x.try_view("reshape", shape, &y)) return {y, true};
  clone(x).try_view("reshape", shape, &y);
  return {y, false};
}

std::pair<Array, bool> flatten(const Array& x, int64_t start, int64_t end) {
  const int first = wrap_dim("flatten", start, x.ndim()), last = wrap_dim("flatten", end, x.ndim());
  TW_CHECK(first <= last, "flatten: start_dim must not come after end_dim, got ", start, " and ", end);
  Dims shape;
  int64_t joined = 1;
  for (int i = 0; i < std::max(x.ndim(), 1); ++i) {
    const int64_t n = x.ndim() ? x.size(i) : 1;
    if (i >= first && i <= last) joined *= n;
    if (i == last) shape.push(joined);
    if (i < first || i > last) shape.push(n);
  }
  return reshape(x, shape);
}

// Without dims: drops every size of 1; else those of the named dims that are 1.
Array squeeze(const Array& x, const std::optional<Dims>& dims) {
  bool drop[kMaxDims] = {};
  for (int i = 0; i < x.ndim(); ++i) drop[i] = !dims && x.size(i) == 1;
  if (dims)
    for (int i = 0; i < dims->n; ++i) {
      const int d = wrap_dim("squeeze", (*dims)[i], x.ndim());
      if (x.ndim() && x.size(d) == 1) drop[d] = true;
    }
  Dims shape, strides;
  for (int i = 0; i < x.ndim(); ++i) {
    if (drop[i]) continue;
    shape.push(x.size(i));
    strides.push(x.strides()[i]);
  }
  return x.with_geometry(shape, strides, x.offset());
}

Array narrow(const Array& x, int64_t dim, int64_t start, int64_t length) {
  const int d = wrap_dim("narrow", dim, x.ndim());
  TW_CHECK_INDEX(x.ndim() > 0, "narrow: input must have a dimension, got a 0-d array");
  const int64_t n = x.size(d), begin = start < 0 ? start + n : start;
  TW_CHECK_INDEX(begin >= 0 && begin <= n && length >= 0 && length <= n - begin,
                 "narrow: start and length must lie in dimension ", d, " of size ", n, ", got start ", start,
                 " and length ", length);
  return x.slice("narrow", d, begin, begin + length, 1);
}

Array diagonal(const Array& x, int64_t offset, int64_t dim1, int64_t dim2) {
  const int a = wrap_dim("diagonal", dim1, x.ndim()), b = wrap_dim("diagonal", dim2, x.ndim());
  TW_CHECK(x.ndim() >= 2 && a != b, "diagonal: needs two different dimensions, got ", dim1, " and ", dim2, " of ",
           str_of(x.shape()));
  const int64_t above = std::max<int64_t>(offset, 0), below = std::max<int64_t>(-offset, 0);
  const int64_t length = std::max<int64_t>(0, std::min(x.size(a) - below, x.size(b) - above));
  Dims shape, strides;
  for (int i = 0; i < x.ndim(); ++i) {
    if (i == a || i == b) continue;
    shape.push(x.size(i));
    strides.push(x.strides()[i]);
  }
  shape.push(length);
  strides.push(x.strides()[a] + x.strides()[b]);
  return x.with_geometry(shape, strides, x.offset() + (length ? below * x.strides()[a] + above * x.strides()[b] : 0));
}

Array diagonal_backward(const Array& dy, const Dims& shape, int64_t offset, int64_t dim1, int64_t dim2) {
  const Array dx = zeros("diagonal", shape, dy.dtype(), dy.device());
  Array part = diagonal(dx, offset, dim1, dim2);
  copy_into("diagonal", part, dy);
  return dx;
}

// Windows of `size`, every `step`: a view with one more dimension at the end.
Array unfold(const Array& x, int64_t dim, int64_t size, int64_t step) {
  const int d = wrap_dim("unfold", dim, x.ndim());
  TW_CHECK(x.ndim() > 0 && x.ndim() < kMaxDims, "unfold: input must have 1 to ", kMaxDims - 1, " dimensions, got ",
           x.ndim());
  TW_CHECK(size >= 0 && size <= x.size(d), "unfold: size must be in [0, ", x.size(d), "], got ", size);
  TW_CHECK(step > 0, "unfold: step must be positive, got ", step);
  Dims shape = x.shape(), strides = x.strides();
  shape[d] = (x.size(d) - size) / step + 1;
  strides[d] *= step;
  shape.push(size);
  strides.push(x.strides()[d]);
  return x.with_geometry(shape, strides, x.offset());
}

Array flip(const Array& x, const Dims& dims) {
  Dims strides = x.strides();
  int64_t offset = x.offset();
  bool seen[kMaxDims] = {};
  for (int i = 0; i < dims.n; ++i) {
    const int d = wrap_dim("flip", dims[i], x.ndim());
    TW_CHECK(!seen[d], "flip: dims must name each dimension once, got ", str_of(dims));
    seen[d] = true;
    if (x.ndim() == 0 || x.size(d) == 0) continue;
    offset += (x.size(d) - 1) * strides[d];
    strides[d] = -strides[d];
  }
  return clone(x.with_geometry(x.shape(), strides, offset));
}

// --- joins --
// A 1-d array of size 0 beside others is skipped, as in PyTorch, whose old empty tensor it was.
bool is_placeholder(const Array& a) { return a.ndim() == 1 && a.size(0) == 0; }

Array join(const char* op, const std::vector<Array>& parts, int64_t dim) {
  TW_CHECK(!parts.empty(), op, ": expects at least one tensor, got none");
  const Array* model = &parts[0];
  for (const Array& p : parts) {
    TW_CHECK(p.ndim() > 0, op, ": tensors must have a dimension, got a 0-d one");
    if (is_placeholder(*model)) model = &p;
  }
  const int d = wrap_dim(op, dim, model->ndim());
  DType t = parts[0].dtype();
  Dims shape = model->shape();
  shape[d] = 0;
  for (const Array& p : parts) {
    t = promote(t, p.dtype());
    if (is_placeholder(p)) continue;
    bool fits = p.ndim() == shape.n;
    for (int i = 0; fits && i < shape.n; ++i) fits = i == d || p.size(i) == shape[i];
    TW_CHECK(fits, op, ": sizes must match except in dimension ", d, ", got ", str_of(model->shape()), " and ",
             str_of(p.shape()));
    TW_CHECK_AS(std::overflow_error, !__builtin_add_overflow(shape[d], p.size(d), &shape[d]), op,
                ": the size of dimension ", d, " overflows int64, got ", str_of(p.shape()), " and others");
  }
  const Array y = Array::empty(op, shape, t, model->device());
  int64_t at = 0;
  for (const Array& p : parts) {
    if (is_placeholder(p)) continue;
    Array part = y.slice(op, d, at, at + p.size(d), 1);
    copy_into(op, part, p);
    at += p.size(d);
  }
  return y;
}

Array cat(const std::vector<Array>& parts, int64_t dim) { return join("cat", parts, dim); }

Array stack(const std::vector<Array>& parts, int64_t dim) {
  TW_CHECK(!parts.empty(), "stack: expects at least one tensor, got none");
  const int d = wrap_dim("stack", dim, parts[0].ndim() + 1);
  std::vector<Array> rows;
  for (const Array& p : parts) {
    TW_CHECK(p.shape() == parts[0].shape(), "stack: shapes must be equal, got ", str_of(parts[0].shape()), " and ",
             str_of(p.shape()));
    rows.push_back(p.unsqueeze("stack", d));
  }
  return join("stack", rows, d);
}

}  // namespace

void bind_shape(py::module_& m) {
  m.def("view", &view);
  m.def("reshape", &reshape);
  m.def("flatten", &flatten);
  m.def("squeeze", &squeeze);
  m.def("unsqueeze", [](const Array& x, int64_t dim) { return x.unsqueeze("unsqueeze", dim); });
  m.def("expand", [](const Array& x, const Dims& shape) {
    const Array y = x.expand("expand", shape);
    checked_numel("expand", y.shape());
    return y;
  });
  m.def("permute", [](const Array& x, const Dims& dims) { return x.permute("permute", dims); });
  m.def("transpose", [](const Array& x, int64_t a, int64_t b) { return x.transpose("transpose", a, b); });
  m.def("select", [](const Array& x, int64_t dim, int64_t i) { return x.select("select", dim, i); });
  m.def("narrow", &narrow);
  m.def("diagonal", &diagonal);
  m.def("diagonal_backward", &diagonal_backward);
  m.def("unfold", &unfold);
  m.def("flip", &flip);
  m.def("cat", &cat);
  m.def("stack", &stack);
}

}  // namespace tw
