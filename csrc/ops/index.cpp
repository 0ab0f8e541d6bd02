// Indexing: basic keys (views), rows by index, gather and scatter, index arrays and masks.
#include <algorithm>
#include <string>

#include "bindings/bind.h"
#include "dispatch.h"
#include "ops/common.h"

namespace tw {
namespace {

// --- basic keys: ints, slices, None, Ellipsis --
// An int is what has __index__ and no length: Python's and NumPy's integers, but neither arrays nor tensors.
bool read_int(PyObject* item, int64_t* value) {
  if (PyBool_Check(item) || !PyIndex_Check(item)) return false;
  if (!PyLong_Check(item)) {
    const PyTypeObject* t = Py_TYPE(item);
    if ((t->tp_as_sequence && t->tp_as_sequence->sq_length) || (t->tp_as_mapping && t->tp_as_mapping->mp_length))
      return false;
  }
  *value = PyNumber_AsSsize_t(item, PyExc_IndexError);
  if (*value == -1 && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();  // numpy.bool_ has an __index__ that refuses
    return false;
  }
  return true;
}

// The view that a basic key names, or false when the key holds a list, array, tensor or bool.
bool basic_view(const Array& x, PyObject* key, Array* out) {
  const bool tuple = PyTuple_Check(key);
  const Py_ssize_t n = tuple ? PyTuple_GET_SIZE(key) : 1;
  const auto item_at = [&](Py_ssize_t i) { return tuple ? PyTuple_GET_ITEM(key, i) : key; };
  int64_t ints[kMaxDims] = {};  // of the items in turn
  int used = 0, ellipses = 0, ints_read = 0;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = item_at(i);
    if (item == Py_None) continue;
    if (item == Py_Ellipsis) {
      ++ellipses;
      continue;
    }
    ++used;
    if (PySlice_Check(item)) continue;
    int64_t value;
    if (!read_int(item, &value)) return false;
    if (ints_read < kMaxDims) ints[ints_read++] = value;
  }
  TW_CHECK_INDEX(ellipses <= 1, "index: at most one ellipsis, got ", ellipses);
  TW_CHECK_INDEX(used <= x.ndim(), "index: too many indices for shape ", str_of(x.shape()), ", got ", used);

  Dims shape, strides;
  int64_t offset = x.offset();
  int d = 0;
  ints_read = 0;
  const auto push = [&](int64_t size, int64_t stride) {
    TW_CHECK_INDEX(shape.n < kMaxDims, "index: at most ", kMaxDims, " dimensions, got more from shape ",
                   str_of(x.shape()));
    shape.push(size);
    strides.push(stride);
  };
  const auto keep = [&](int until) {
    for (; d < until; ++d) push(x.size(d), x.strides()[d]);
  };
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = item_at(i);
    if (item == Py_None) {
      push(1, d < x.ndim() ? x.size(d) * x.strides()[d] : 1);
    } else if (item == Py_Ellipsis) {
      keep(d + x.ndim() - used);
    } else if (PySlice_Check(item)) {
      Py_ssize_t start, stop, step;
      if (PySlice_Unpack(item, &start, &stop, &step) < 0) throw py::error_already_set();
      TW_CHECK(step > 0, "index: slice step must be positive, got ", step);
      const Py_ssize_t size = PySlice_AdjustIndices(x.size(d), &start, &stop, step);
      if (size) offset += start * x.strides()[d];
      push(size, x.strides()[d] * step);
      ++d;
    } else {
      const int64_t at = ints[ints_read++], size = x.size(d);
      TW_CHECK_INDEX(at >= -size && at < size, "index: index ", at, " is out of range for dimension ", d, " of size ",
                     size);
      offset += (at < 0 ? at + size : at) * x.strides()[d];
      ++d;
    }
  }
  keep(x.ndim());
  *out = x.with_geometry(shape, strides, offset);
  return true;
}

std::optional<Array> index_basic(const Array& x, py::handle key) {
  Array y;
  if (!basic_view(x, key.ptr(), &y)) return std::nullopt;
  return y;
}

// The gradient of a view by key: dy in its place among zeros.
Array index_basic_backward(const Array& dy, const Dims& shape, py::handle key) {
  Array dx = zeros("index", shape, dy.dtype(), dy.device()), region;
  TW_CHECK_TYPE(basic_view(dx, key.ptr(), &region), "index: the key must be basic");
  copy_into("index", region, dy);
  return dx;
}

// --- index arrays --
[[noreturn]] void fail_index(const char* op, int64_t value, int64_t n, const char* what, int64_t position) {
  fail<std::out_of_range>(op, ": index ", value, " is out of range for ", n, " ", what, ", at position ", position);
}

// `a` for an op on `x`: it must be on x's device, or be a number, which is moved there.
Array beside(const char* op, const Array& x, const Array& a) {
  TW_CHECK_AS(std::runtime_error, a.device() == x.device() || a.ndim() == 0, op,
              ": tensors must be on one device, got ", str_of(x.device()), " and ", str_of(a.device()));
  return to_device(a, x.device());
}

Array index_array(const char* op, const Array& x, const Array& given) {
  const Array index = beside(op, x, given);
  TW_CHECK_TYPE(is_integer(index.dtype()), op, ": indices must be integers, got ", describe(index));
  return contiguous(cast(index, DType::kInt64));
}

struct Parts {
  int64_t outer = 1, n = 1, inner = 1;
};
Parts parts_of(const Dims& shape, int dim) {
  Parts p;
  for (int i = 0; i < shape.n; ++i) (i < dim ? p.outer : i == dim ? p.n : p.inner) *= shape[i];
  return p;
}
Dims replace_dim(const Dims& shape, int dim, const Dims& by) {
  TW_CHECK(shape.n - 1 + by.n <= kMaxDims, "index: at most ", kMaxDims, " dimensions, got ", shape.n - 1 + by.n);
  Dims to(shape.d, dim);
  for (int i = 0; i < by.n; ++i) to.push(by[i]);
  for (int i = dim + 1; i < shape.n; ++i) to.push(shape[i]);
  return to;
}

void launch_take(const char* op, const Slot<TakeArgs>& slot, const Array& x, const Array& index, const Array& y,
                 const Parts& p) {
  if (index.numel() == 0 || p.outer * p.inner == 0) return;
  BadIndex bad(op, x.device());
  launch(x.device(), slot,
         TakeArgs{x.raw(), index.data<int64_t>(), y.raw(), p.outer, p.n, p.inner, index.numel(), 0, bad.pointer(),
                  bad.op(), y.dtype()});
  if (bad.position() >= 0)
    fail_index(op, value_at(index, bad.position()), p.n, p.n == 1 ? "row" : "rows", bad.position());
}

}  // namespace

// y = x with dimension `dim` replaced by the index's dimensions.
Array take(const std::string& op, const Array& input, int64_t dim, const Array& positions) {
  TW_CHECK(input.ndim() > 0, op, ": input must have a dimension, got ", describe(input));
  const int d = wrap_dim(op.c_str(), dim, input.ndim());
  const Array x = contiguous(input), index = index_array(op.c_str(), input, positions);
  const Array y = result(op.c_str(), replace_dim(x.shape(), d, index.shape()), x.dtype(), x.device());
  launch_take(op.c_str(), slots::take, x, index, y, parts_of(x.shape(), d));
  return y;
}

namespace {

DType sum_dtype(const char* op, DType t) {
  TW_CHECK_TYPE(t != DType::kBool, op, ": sums need a number dtype, got bool");
  return is_half(t) ? DType::kFloat32 : t;
}

// The sum of dy's rows by index, as an array with size n along dim. `dim` is not negative here.
Array take_backward(const std::string& op, const Array& grad, int dim, const Array& positions, int64_t n) {
  const Array dy = contiguous(cast(grad, sum_dtype(op.c_str(), grad.dtype())));
  const Array index = index_array(op.c_str(), dy, positions);
  Dims shape(dy.shape().d, dim);
  shape.push(n);
  for (int i = dim + index.ndim(); i < dy.ndim(); ++i) shape.push(dy.size(i));
  const Array dx = zeros(op.c_str(), shape, dy.dtype(), dy.device());
  launch_take(op.c_str(), slots::take_backward, dy, index, dx, parts_of(shape, dim));
  return cast(dx, grad.dtype());
}

}  // namespace

// In place: x[.., index, ..] += src along dim, in the order of the index.
void index_add_(Array& x, int64_t dim, const Array& positions, const Array& source) {
  const char* op = "index_add_";
  check_writable(op, x);
  const int d = wrap_dim(op, dim, x.ndim());
  TW_CHECK(x.ndim() > 0 && positions.ndim() <= 1, op, ": index must be 1-d and input have a dimension, got index ",
           str_of(positions.shape()), " for ", str_of(x.shape()));
  Dims expected = x.shape();
  expected[d] = positions.numel();
  TW_CHECK(source.shape() == expected, op, ": source must have input's shape, with one row an index, got ",
           str_of(source.shape()), " for ", str_of(expected));
  const DType t = sum_dtype(op, x.dtype());
  Array src = contiguous(cast(beside(op, x, source), t));
  const Array index = index_array(op, x, positions);
  const bool direct = x.is_contiguous() && x.dtype() == t;
  if (src.storage().get() == x.storage().get()) src = clone(src);
  const Array y = direct ? x : x.dtype() == t ? clone(x) : cast(x, t);
  launch_take(op, slots::take_backward, src, index, y, parts_of(y.shape(), d));
  if (direct) x.bump_version();
  else copy_into(op, x, y);
}

namespace {

// --- along one dimension --
// The part of `a` that an index of that shape covers: sizes other than dim's may be smaller in the index.
Array covered(const char* op, const char* what, const Array& a, const Dims& index, int skip) {
  TW_CHECK(a.ndim() == index.n, op, ": index and ", what, " must have the same number of dimensions, got ",
           str_of(index), " and ", str_of(a.shape()));
  Dims shape = a.shape();
  for (int i = 0; i < index.n; ++i) {
    if (i == skip) continue;
    TW_CHECK(index[i] <= a.size(i), op, ": index must not be larger than ", what,
             skip >= 0 ? " outside the dimension" : "", ", got ", str_of(index), " and ", str_of(a.shape()));
    shape[i] = index[i];
  }
  return a.with_geometry(shape, a.strides(), a.offset());
}

void launch_along(const char* op, const Slot<GatherArgs>& slot, const Array& x, const Array& index, const Array& y,
                  int64_t n, int dim, bool add) {
  if (index.numel() == 0) return;
  const Parts p = parts_of(index.shape(), dim);
  BadIndex bad(op, x.device());
  launch(x.device(), slot,
         GatherArgs{x.raw(), index.data<int64_t>(), y.raw(), p.outer, n, p.inner, p.n, bad.pointer(), bad.op(), add,
                    y.dtype()});
  if (bad.position() >= 0) {
    const int64_t value = value_at(index, bad.position());
    fail<std::out_of_range>(op, ": index ", value, " is out of range for dimension ", dim, " of size ", n,
                            ", at position ", bad.position());
  }
}

Array row(const Array& a) { return a.ndim() ? a : a.with_geometry({1}, {1}, a.offset()); }

}  // namespace

Array gather(const std::string& op, const Array& input, int64_t dim, const Array& positions) {
  const int d = wrap_dim(op.c_str(), dim, input.ndim());
  const Array index = index_array(op.c_str(), input, positions), at = row(index);
  const Array y = result(op.c_str(), index.shape(), input.dtype(), input.device());
  if (y.numel() == 0) return y;
  const Array x = contiguous(covered(op.c_str(), "input", row(input), at.shape(), d));
  launch_along(op.c_str(), slots::gather, x, at, y, x.size(d), d, false);
  return y;
}

// In place: x[.., index, ..] (+)= src along dim.
void scatter_(const std::string& name, Array& target, int64_t dim, const Array& positions, const Array& source,
              bool add) {
  const char* op = name.c_str();
  const Array given = beside(op, target, source);
  const int d = wrap_dim(op, dim, target.ndim());
  check_writable(op, target);
  const Array index = row(index_array(op, target, positions));
  if (index.numel() == 0) return target.bump_version();
  Array part = covered(op, "input", row(target), index.shape(), d);
  const DType t = add ? sum_dtype(op, target.dtype()) : target.dtype();
  const Array src = contiguous(
      cast(given.ndim() == 0 ? given.expand(op, index.shape()) : covered(op, "src", row(given), index.shape(), -1), t));
  const bool direct = part.is_contiguous() && part.dtype() == t && src.storage().get() != part.storage().get();
  const Array y = direct ? part : part.dtype() == t ? clone(part) : contiguous(cast(part, t));
  launch_along(op, slots::scatter, src, index, y, y.size(d), d, add);
  if (direct) target.bump_version();
  else copy_into(op, part, y);
}

namespace {

Array scatter(const std::string& op, const Array& x, int64_t dim, const Array& index, const Array& src, bool add) {
  Array y = clone(x);
  scatter_(op, y, dim, index, src, add);
  return y;
}

// --- several index arrays and masks --
// The positions of the true elements, one int64 array a dimension.
std::vector<Array> nonzero_columns(const Array& given) {
  const Array x = to_device(given, {});
  const Array mask = contiguous(cast(x, DType::kBool));
  const bool* m = mask.data<bool>();
  const int64_t n = mask.numel(), count = std::count(m, m + n, true);
  std::vector<Array> columns;
  int64_t* out[kMaxDims];
  for (int d = 0; d < x.ndim(); ++d) {
    columns.push_back(Array::empty("nonzero", {count}, DType::kInt64));
    out[d] = columns[static_cast<size_t>(d)].data<int64_t>();
  }
  const auto there = [&] {
    for (Array& c : columns) c = to_device(c, given.device());
    return columns;
  };
  if (count == 0 || x.ndim() == 0) return there();
  // Row by row: the hits are packed without a branch, which random masks would mispredict half the time.
  const int last = x.ndim() - 1;
  const int64_t row = x.size(last);
  std::vector<int64_t> hits(static_cast<size_t>(row));
  int64_t at[kMaxDims] = {};
  for (int64_t k = 0; k < count; m += row) {
    int64_t found = 0;
    for (int64_t j = 0; j < row; ++j) {
      hits[static_cast<size_t>(found)] = j;
      found += m[j];
    }
    for (int d = 0; d < last; ++d) std::fill_n(out[d] + k, found, at[d]);
    std::copy_n(hits.data(), found, out[last] + k);
    k += found;
    for (int d = last - 1; d >= 0 && ++at[d] == x.size(d); --d) at[d] = 0;
  }
  return there();
}

Array nonzero(const Array& given) {
  const Array x = to_device(given, {});
  const std::vector<Array> columns = nonzero_columns(x);
  const bool scalar = x.ndim() == 0;
  int64_t count = scalar ? *cast(x, DType::kBool).data<bool>() : columns[0].numel();
  const Array y = Array::empty("nonzero", {count, x.ndim()}, DType::kInt64);
  for (int d = 0; d < x.ndim(); ++d)
    for (int64_t i = 0; i < count; ++i)
      y.data<int64_t>()[i * x.ndim() + d] = columns[static_cast<size_t>(d)].data<int64_t>()[i];
  return to_device(y, given.device());
}

// What x[i0, :, i1, ...] selects. Index dimensions stand where the indices stood, or first when these are apart.
struct Selection {
  Array indices[kMaxDims];  // by dimension of x; undefined for a whole one
  Dims index_shape, shape;  // of the indices, of the result
  int first = -1, indexed = 0, place = 0;
  bool unique = false;

  Selection(const char* op, const Array& x, const Arrays& given) {
    int d = 0, masks = 0, arrays = 0;
    for (const OptionalArray& item : given) {
      if (!item) {
        ++d;
        continue;
      }
      // Keys in host memory may index an array on a device, as in PyTorch.
      const Array a = item->device().type == DeviceType::kCpu ? to_device(*item, x.device()) : beside(op, x, *item);
      ++arrays;
      if (a.dtype() == DType::kBool) {
        ++masks;
        TW_CHECK_INDEX(d + a.ndim() <= x.ndim(), op, ": too many indices for shape ", str_of(x.shape()));
        for (int k = 0; k < a.ndim(); ++k)
          TW_CHECK_INDEX(a.size(k) == x.size(d + k), op, ": a mask must match the shape that it selects from, got ",
                         str_of(a.shape()), " at dimension ", d, " of ", str_of(x.shape()));
        for (const Array& column : nonzero_columns(a)) add(op, d++, column);
      } else {
        TW_CHECK_INDEX(d < x.ndim(), op, ": too many indices for shape ", str_of(x.shape()));
        TW_CHECK_TYPE(is_integer(a.dtype()), op, ": indices must be integers or bool, got ", describe(a));
        add(op, d++, cast(a, DType::kInt64));
      }
    }
    TW_CHECK_INDEX(indexed > 0, op, ": expects at least one index array");
    unique = masks == 1 && arrays == 1;
    int last = 0;
    for (int i = 0; i < x.ndim(); ++i)
      if (indices[i].defined()) last = i;
    place = last - first + 1 == indexed ? first : 0;
    TW_CHECK(index_shape.n + x.ndim() - indexed <= kMaxDims, op, ": at most ", kMaxDims, " dimensions, got ",
             index_shape.n + x.ndim() - indexed);
    int slices = 0;
    for (int i = 0; i < x.ndim(); ++i) {
      if (indices[i].defined()) {
        indices[i] = contiguous(indices[i].expand(op, index_shape));
        continue;
      }
      if (slices++ == place) push_index_shape();
      shape.push(x.size(i));
    }
    if (slices <= place) push_index_shape();
  }

  int64_t count() const { return indices[first].numel(); }

  // x or part of it is the strided array; `dense` the strides of the result's shape.
  IndexArgs args(const Array& x, const Dims& dense) const {
    IndexArgs a{};
    a.count = count();
    a.dense_stride = index_shape.n ? dense[place + index_shape.n - 1] : 0;
    for (int i = 0; i < x.ndim(); ++i) {
      if (indices[i].defined()) {
        a.index[a.indexed] = indices[i].data<int64_t>();
        a.sizes[a.indexed] = x.size(i);
        a.strides[a.indexed++] = x.strides()[i];
      } else {
        const int s = a.slice_ndim++;
        a.slice_shape[s] = x.size(i);
        a.slice_strides[s] = x.strides()[i];
        a.dense_slice_strides[s] = dense[s < place ? s : s + index_shape.n];
      }
    }
    a.unique = unique;
    a.dtype = x.dtype();
    return a;
  }

  void check(const char* op, const Array& x, int64_t bad) const {
    if (bad < 0) return;
    for (int i = 0; i < x.ndim(); ++i) {
      if (!indices[i].defined()) continue;
      const int64_t value = value_at(indices[i], bad), n = x.size(i);
      if (value < -n || value >= n)
        fail<std::out_of_range>(op, ": index ", value, " is out of range for dimension ", i, " of size ", n,
                                ", at position ", bad);
    }
  }

 private:
  void add(const char* op, int d, const Array& index) {
    if (first < 0) {
      first = d;
      index_shape = index.shape();
    } else {
      index_shape = broadcast_shapes(op, index_shape, index.shape());
    }
    indices[d] = index;
    ++indexed;
  }
  void push_index_shape() {
    for (int i = 0; i < index_shape.n; ++i) shape.push(index_shape[i]);
  }
};

}  // namespace

// given: for each dimension of x from the first on, None (all of it), an integer array or a mask over one or more.
Array index(const Array& x, const Arrays& given) {
  const Selection s("index", x, given);
  const Array y = result("index", s.shape, x.dtype(), x.device());
  if (s.indexed == 1 && x.is_contiguous()) {  // rows: the plain copy is faster
    const Array& at = s.indices[s.first];
    const Parts p = parts_of(x.shape(), s.first);
    if (y.numel() == 0) return y;
    BadIndex bad("index", x.device());
    launch(x.device(), slots::take,
           TakeArgs{x.raw(), at.data<int64_t>(), y.raw(), p.outer, p.n, p.inner, at.numel(), -p.n, bad.pointer(),
                    bad.op(), x.dtype()});
    s.check("index", x, bad.position());
    return y;
  }
  if (y.numel() == 0) return y;
  BadIndex bad("index", x.device());
  IndexArgs a = s.args(x, y.strides());
  a.x = x.raw();
  a.y = y.raw();
  a.bad = bad.pointer();
  a.op = bad.op();
  launch(x.device(), slots::index, a);
  s.check("index", x, bad.position());
  return y;
}

// In place: x[given] = values, or += in the order of the indices.
void index_put_(const std::string& name, Array& x, const Arrays& given, const Array& source, bool accumulate) {
  const char* op = name.c_str();
  check_writable(op, x);
  const Selection s(op, x, given);
  const DType t = accumulate ? sum_dtype(op, x.dtype()) : x.dtype();
  Array values = cast(beside(op, x, source), t);
  while (values.ndim() > s.shape.n && values.size(0) == 1) values = values.select(op, 0, 0);  // as NumPy takes them
  TW_CHECK(values.ndim() <= s.shape.n, op, ": values must broadcast to the selection, got ", str_of(source.shape()),
           " for ", str_of(s.shape));
  const bool scalar = values.numel() == 1;
  values = values.expand(op, s.shape);
  if (values.numel() == 0) return x.bump_version();
  Dims strides = contiguous_strides(s.shape);
  if (scalar)
    for (int i = 0; i < strides.n; ++i) strides[i] = 0;
  if (!scalar) values = contiguous(values);
  if (values.storage().get() == x.storage().get()) values = clone(values);
  const bool direct = x.dtype() == t;
  const Array y = direct ? x : cast(x, t);
  BadIndex bad(op, x.device());
  if (accumulate && s.indexed == 1 && y.is_contiguous() && !scalar) {
    const Array& at = s.indices[s.first];
    const Parts p = parts_of(y.shape(), s.first);
    launch(y.device(), slots::take_backward,
           TakeArgs{values.raw(), at.data<int64_t>(), y.raw(), p.outer, p.n, p.inner, at.numel(), -p.n, bad.pointer(),
                    bad.op(), t});
  } else {
    IndexArgs a = s.args(y, strides);
    a.x = values.raw();
    a.y = y.raw();
    a.bad = bad.pointer();
    a.op = bad.op();
    a.add = accumulate;
    launch(y.device(), slots::index_put, a);
  }
  s.check(op, x, bad.position());
  if (direct) x.bump_version();
  else copy_into(op, x, y);
}

namespace {

// The gradient of index: dy summed into its places among zeros.
Array index_backward(const Array& dy, const Dims& shape, const Arrays& given) {
  Array dx = zeros("index", shape, dy.dtype(), dy.device());
  index_put_("index", dx, given, dy, true);
  return dx;
}

}  // namespace

void bind_index(py::module_& m) {
  m.def("index_basic", &index_basic);
  m.def("index_basic_backward", &index_basic_backward);
  m.def("take", &take);
  m.def("take_backward", &take_backward);
  m.def("index_add_", &index_add_);
  m.def("gather", &gather);
  m.def("scatter", &scatter);
  m.def("scatter_", &scatter_);
  m.def("nonzero", &nonzero);
  m.def("index", &index);
  m.def("index_put_", &index_put_);
  m.def("index_backward", &index_backward);
}

}  // namespace tw
