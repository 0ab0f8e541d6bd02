// Elementwise ops: promotion, broadcasting and the launch shape, once for every row of the elementwise list.
#include <algorithm>

#include "ops/common.h"

namespace tw {
namespace {

DType g_default_dtype = DType::kFloat32;

DType dtype_of_value(const Value& v) {
  switch (v.kind) {
    case Value::kArray: return v.array->dtype();
    case Value::kBool: return DType::kBool;
    case Value::kInt: return DType::kInt64;
    default: return g_default_dtype;
  }
}

struct Extent {
  const char *begin, *end;
};
Extent extent(const Array& a) {
  const char* p = static_cast<const char*>(a.raw());
  if (a.numel() == 0) return {p, p};
  int64_t last = 0;
  for (int i = 0; i < a.ndim(); ++i) last += (a.size(i) - 1) * a.strides()[i];
  return {p, p + (last + 1) * static_cast<int64_t>(itemsize(a.dtype()))};
}

bool same_view(const Array& a, const Array& b) {
  if (a.raw() != b.raw() || a.dtype() != b.dtype() || !(a.shape() == b.shape())) return false;
  for (int i = 0; i < a.ndim(); ++i)
    if (a.size(i) != 1 && a.strides()[i] != b.strides()[i]) return false;
  return true;
}

bool overlaps(const Array& in, const Array& out) {
  const Extent p = extent(in), q = extent(out);
  return p.begin < q.end && q.begin < p.end && !same_view(in, out);
}

void set_operand(Operand* o, const Array& a, const Dims& shape) {
  o->data = a.raw();
  o->dtype = a.dtype();
  const auto size = static_cast<int64_t>(itemsize(a.dtype()));
  const int lead = shape.n - a.ndim();
  for (int i = 0; i < shape.n; ++i)
    o->strides[i] = i < lead || (a.size(i - lead) == 1 && shape[i] != 1) ? 0 : a.strides()[i - lead] * size;
}

}  // namespace

void simplify(ElementwiseArgs* a, const Dims& shape) {
  Operand* ops[4] = {&a->out, &a->in[0], &a->in[1], &a->in[2]};
  const int count = a->inputs + 1;
  int order[kMaxDims], n = 0;
  for (int i = 0; i < shape.n; ++i)
    if (shape[i] != 1) order[n++] = i;
  std::stable_sort(order, order + n, [&](int i, int j) { return a->out.strides[i] > a->out.strides[j]; });
  int64_t sizes[kMaxDims], strides[4][kMaxDims];
  for (int i = 0; i < n; ++i) {
    sizes[i] = shape[order[i]];
    for (int k = 0; k < count; ++k) strides[k][i] = ops[k]->strides[order[i]];
  }
  int m = 0;
  for (int i = 0; i < n; ++i) {
    bool join = m > 0;
    for (int k = 0; k < count && join; ++k) join = ops[k]->strides[m - 1] == strides[k][i] * sizes[i];
    const int at = join ? m - 1 : m++;
    a->shape[at] = join ? a->shape[at] * sizes[i] : sizes[i];
    for (int k = 0; k < count; ++k) ops[k]->strides[at] = strides[k][i];
  }
  if (m == 0) {
    a->shape[0] = 1;
    for (int k = 0; k < count; ++k) ops[k]->strides[0] = static_cast<int64_t>(itemsize(ops[k]->dtype));
    m = 1;
  }
  a->ndim = m;
}

namespace {

void launch_elementwise(const Slot<ElementwiseArgs>& slot, const Array& out, Value* x, int inputs, DType compute,
                        double p0, double p1) {
  if (out.numel() == 0) return;
  ElementwiseArgs a;
  a.inputs = inputs;
  a.compute = compute;
  a.p0 = p0;
  a.p1 = p1;
  set_operand(&a.out, out, out.shape());
  Array copies[3];
  for (int k = 0; k < inputs; ++k) {
    if (x[k].array) {
      if (overlaps(*x[k].array, out)) {
        copies[k] = clone(*x[k].array);
        x[k].array = &copies[k];
      }
      set_operand(&a.in[k], *x[k].array, out.shape());
    } else {
      a.in[k].data = nullptr;
      a.in[k].dtype = compute;
      for (int i = 0; i < out.ndim(); ++i) a.in[k].strides[i] = 0;
      a.scalar_float = x[k].f;
      a.scalar_int = x[k].i;
    }
  }
  simplify(&a, out.shape());
  launch(out.device(), slot, a);
}

// The result's layout is that of the first operand of its shape, as in PyTorch: so both are walked as one run. Of equal
// strides the outer dimension comes first; an operand with expanded or reversed dimensions gives row-major order.
Array empty_like(const char* op, const Dims& shape, DType t, Device device, const Value* x, int inputs) {
  Array y = Array::empty(op, shape, t, device);
  const Array* like = nullptr;
  for (int k = 0; k < inputs && !like; ++k)
    if (x[k].array && x[k].array->shape() == shape) like = x[k].array;
  if (!like || like->is_contiguous()) return y;
  int order[kMaxDims], n = 0;
  for (int i = 0; i < shape.n; ++i) {
    if (shape[i] == 1) continue;
    if (like->strides()[i] <= 0) return y;
    int at = n++;
    for (; at > 0 && like->strides()[order[at - 1]] < like->strides()[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  Dims strides = y.strides();
  for (int64_t step = 1; n > 0; step *= shape[order[n]]) strides[order[--n]] = step;
  return y.with_geometry(shape, strides, 0);
}

}  // namespace

constinit thread_local Recipient* recipient = nullptr;

DType default_dtype() { return g_default_dtype; }
void set_default_dtype(DType t) {
  TW_CHECK_TYPE(is_float(t), "set_default_dtype: must be a floating-point dtype, got ", name(t));
  g_default_dtype = t;
}

DType result_type(const Value* values, int n) {
  // ranks: 0 arrays with dimensions, 1 arrays without, 2 numbers
  bool have[3] = {};
  DType types[3] = {};
  for (int k = 0; k < n; ++k) {
    const int rank = values[k].kind != Value::kArray ? 2 : values[k].array->ndim() ? 0 : 1;
    const DType t = dtype_of_value(values[k]);
    types[rank] = have[rank] ? promote(types[rank], t) : t;
    have[rank] = true;
  }
  bool any = false;
  DType result = DType::kBool;
  for (int rank = 0; rank < 3; ++rank) {
    if (!have[rank]) continue;
    if (!any || category(types[rank]) > category(result)) result = types[rank];
    any = true;
  }
  return result;
}

void check_writable(const char* op, const Array& out) {
  TW_CHECK(!out.storage()->readonly, op, ": the output's memory is read-only");
  for (int i = 0; i < out.ndim(); ++i)
    TW_CHECK(out.size(i) <= 1 || out.strides()[i] != 0 || out.numel() == 0, op,
             ": cannot write into an expanded array, whose elements share memory, got shape ", str_of(out.shape()),
             " with strides ", str_of(out.strides()), "; clone it first");
}

void check_is(const char* op, const char* what, const Array& a, const Dims& shape, DType t) {
  TW_CHECK(a.shape() == shape, op, ": ", what, " must have shape ", str_of(shape), ", got ", str_of(a.shape()));
  TW_CHECK_TYPE(a.dtype() == t, op, ": ", what, " must be ", name(t), ", got ", name(a.dtype()));
}

// 0-d arrays come to the others' device.
static Array elementwise_on_one_device(const ElementwiseOp& op, Value* x, int inputs, Array* out, double p0,
                                       double p1) {
  Array moved[3];
  const Array* most = out;
  for (int k = 0; k < inputs; ++k)
    if (x[k].array && (!most || (!out && x[k].array->ndim() > most->ndim()))) most = x[k].array;
  for (int k = 0; k < inputs; ++k) {
    if (!x[k].array || x[k].array->device() == most->device()) continue;
    TW_CHECK_AS(std::runtime_error, x[k].array->ndim() == 0, op.slot.name, ": tensors must be on one device, got ",
                str_of(most->device()), " and ", str_of(x[k].array->device()));
    moved[k] = to_device(*x[k].array, most->device());
    x[k].array = &moved[k];
  }
  return elementwise(op, x, inputs, out, p0, p1);
}

Array elementwise(const ElementwiseOp& op, Value* x, int inputs, Array* out, double p0, double p1) {
  const char* name = op.slot.name;
  DType type = result_type(x, inputs);
  if (op.floats_only && !is_float(type)) type = g_default_dtype;
  TW_CHECK_TYPE(!op.integers_only || !is_float(type), name, ": dtype must be an integer or bool, got ", tw::name(type));
  Device device;
  Dims shape;
  bool first = true, mixed = false;
  for (int k = 0; k < inputs; ++k) {
    if (!x[k].array) {
      TW_CHECK_AS(std::overflow_error,
                  x[k].kind != Value::kInt || compute_dtype(type) != DType::kInt32 ||
                      (x[k].i >= INT32_MIN && x[k].i <= INT32_MAX),
                  name, ": the number must fit ", tw::name(type), ", got ", x[k].i);
      continue;
    }
    if (first) {
      shape = x[k].array->shape();
      device = x[k].array->device();
    } else {
      if (!(shape == x[k].array->shape())) shape = broadcast_shapes(name, shape, x[k].array->shape());
      mixed |= !(device == x[k].array->device());
    }
    first = false;
  }
  TW_CHECK_TYPE(!first, name, ": expects at least one array, got only numbers");
  if (__builtin_expect(mixed || (out && !(out->device() == device)), 0))
    return elementwise_on_one_device(op, x, inputs, out, p0, p1);
  const DType result = op.to_bool ? DType::kBool : type;
  Array y;
  if (out) {
    y = *out;
    check_writable(name, y);
    TW_CHECK_TYPE(category(result) <= category(y.dtype()), name, ": a result of dtype ", tw::name(result),
                  " cannot be stored in an output of dtype ", tw::name(y.dtype()));
    TW_CHECK(shape == y.shape(), name, ": the output's shape must be the result's, got ", str_of(y.shape()), " for ",
             str_of(shape));
    y.bump_version();
  } else {
    y = empty_like(name, shape, result, device, x, inputs);
  }
  launch_elementwise(op.slot, y, x, inputs, compute_dtype(type), p0, p1);
  return y;
}

void copy_into(const char* op, Array& dst, const Array& src) {
  check_writable(op, dst);
  const Array from = to_device(src, dst.device()).expand(op, dst.shape());
  Value v;
  v.array = const_cast<Array*>(&from);
  dst.bump_version();
  launch_elementwise(slots::copy, dst, &v, 1, dst.dtype(), 0, 0);
}

Array cast(const Array& a, DType t) {
  if (a.dtype() == t) return a;
  if (recipient) recipient->refuse_copy(a, t);
  Array y = Array::empty("to", a.shape(), t, a.device());
  Value v;
  v.array = const_cast<Array*>(&a);
  launch_elementwise(slots::copy, y, &v, 1, t, 0, 0);
  return y;
}

Array clone(const Array& a) {
  if (recipient) recipient->refuse_copy(a, a.dtype());
  Array y = Array::empty("clone", a.shape(), a.dtype(), a.device());
  Value v;
  v.array = const_cast<Array*>(&a);
  launch_elementwise(slots::copy, y, &v, 1, a.dtype(), 0, 0);
  return y;
}

Array contiguous(const Array& a) { return a.is_contiguous() ? a : clone(a); }

void fill(const char* op, Array& a, const Value& value) {
  if (value.array) return copy_into(op, a, *value.array);
  check_writable(op, a);
  Value v = value;
  a.bump_version();
  launch_elementwise(slots::copy, a, &v, 1, a.dtype(), 0, 0);
}

Array full(const char* op, const Dims& shape, DType t, Device device, const Value& value) {
  Array y = Array::empty(op, shape, t, device);
  Value v = value;
  launch_elementwise(slots::copy, y, &v, 1, t, 0, 0);
  return y;
}

Array zeros(const char* op, const Dims& shape, DType t, Device device) {
  return full(op, shape, t, device, Value{nullptr, Value::kInt});
}

namespace {

struct F {
  static constexpr bool floats_only = true, integers_only = false, to_bool = false;
};
struct N {
  static constexpr bool floats_only = false, integers_only = false, to_bool = false;
};
struct I {
  static constexpr bool floats_only = false, integers_only = true, to_bool = false;
};
struct FB {
  static constexpr bool floats_only = true, integers_only = false, to_bool = true;
};
struct NB {
  static constexpr bool floats_only = false, integers_only = false, to_bool = true;
};

template <class Kind> ElementwiseOp op_of(const Slot<ElementwiseArgs>& slot) {
  return {slot, Kind::floats_only, Kind::integers_only, Kind::to_bool};
}

}  // namespace

Array where(const Array& c, Value a, Value b, const OptionalArray& out) {
  TW_CHECK_TYPE(c.dtype() == DType::kBool, "where: the condition must be bool, got ", describe(c));
  Value both[2] = {a, b};
  const DType t = result_type(both, 2);
  Array parts[2];
  Dims shape = c.shape();
  for (int k = 0; k < 2; ++k) {
    // `where` moves bits, so its operands have the result's dtype already; two numbers may meet, hence 0-d arrays.
    parts[k] =
        both[k].array ? cast(to_device(*both[k].array, c.device()), t) : full("where", {}, t, c.device(), both[k]);
    shape = broadcast_shapes("where", shape, parts[k].shape());
  }
  Value x[3];
  x[0].array = const_cast<Array*>(&c);
  x[1].array = &parts[0];
  x[2].array = &parts[1];
  Array y = out ? *out : empty_like("where", shape, t, c.device(), x, 3);
  if (out) {
    check_writable("where", y);
    TW_CHECK_TYPE(y.dtype() == t, "where: the output's dtype must be ", tw::name(t), ", got ", describe(y));
    TW_CHECK(shape == y.shape(), "where: the output's shape must be the result's, got ", str_of(y.shape()), " for ",
             str_of(shape));
    y.bump_version();
  }
  launch_elementwise(slots::where, y, x, 3, t, 0, 0);
  return y;
}

namespace {

const ElementwiseRow rows[] = {
#define TW_X(name, functor, Kind) {op_of<Kind>(slots::name), 1},
    TW_UNARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, functor, Kind) {op_of<Kind>(slots::name), 2},
        TW_BINARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, functor, Kind) {op_of<Kind>(slots::name), 3},
            TW_TERNARY_LIST(TW_X)
#undef TW_X
};

}  // namespace

std::span<const ElementwiseRow> elementwise_rows() { return rows; }
const ElementwiseRow* elementwise_row(std::string_view name) {
  for (const ElementwiseRow& row : rows)
    if (name == row.op.slot.name) return &row;
  return nullptr;
}

void bind_elementwise(py::module_& m) {
  def<&where>(m, "where");
  def<[](const Array& a, DType t) {
    Value v;
    v.array = const_cast<Array*>(&a);
    if (a.dtype() == t || a.is_contiguous()) return cast(a, t);
    Array y = empty_like("to", a.shape(), t, a.device(), &v, 1);
    launch_elementwise(slots::copy, y, &v, 1, t, 0, 0);
    return y;
  }>(m, "cast");
  def<&clone>(m, "clone");
  def<&contiguous>(m, "contiguous");
  def<[](Array& dst, const Array& src) { copy_into("copy_", dst, src); }, true>(m, "copy_into");
  def<[](Array& a, Value v) { fill("fill_", a, v); }>(m, "fill");
  m.def("promote_types", &promote);
  m.def("result_type", [](Value a, Value b) {
    Value both[2] = {a, b};
    return result_type(both, 2);
  });
  m.def("set_default_dtype", &set_default_dtype);
  m.def("get_default_dtype", &default_dtype);
}

}  // namespace tw
