// New arrays: empty, full, arange, linspace; views by geometry; values back to Python.
#include <cmath>

#include "ops/common.h"

namespace tw {
namespace {

Array arange(Value start, Value end, Value step, std::optional<DType> dtype, std::optional<Device> device) {
  bool floats = start.kind == Value::kFloat || end.kind == Value::kFloat || step.kind == Value::kFloat;
  const DType t = dtype.value_or(floats ? default_dtype() : DType::kInt64);
  if (floats && t == DType::kInt64) {  // as in PyTorch: floats are cut to integers before they are counted with
    floats = false;
    for (Value* v : {&start, &end, &step}) {
      if (v->kind == Value::kFloat && std::abs(v->f) < 9e18) v->i = static_cast<int64_t>(v->f);
      v->f = v->kind == Value::kFloat && std::abs(v->f) < 9e18 ? static_cast<double>(v->i) : v->f;
    }
  }
  TW_CHECK(step.f != 0 && std::isfinite(start.f) && std::isfinite(end.f) && std::isfinite(step.f),
           "arange: bounds must be finite and step not 0, got ", start.f, ", ", end.f, ", ", step.f);
  const double count = floats ? std::ceil((end.f - start.f) / step.f)
                              : std::ceil(static_cast<double>(end.i - start.i) / static_cast<double>(step.i));
  TW_CHECK(count >= 0 && (end.f - start.f) * step.f >= 0, "arange: bounds must lie in the direction of step, got ",
           start.f, ", ", end.f, ", ", step.f);
  TW_CHECK_AS(std::overflow_error, count < 1e18, "arange: too many elements, got ", count);
  const Dims shape{static_cast<int64_t>(count)};
  Array y = Array::empty("arange", shape, floats ? DType::kFloat64 : DType::kInt64);
  for (int64_t i = 0; i < shape[0]; ++i) {
    if (floats) y.data<double>()[i] = start.f + static_cast<double>(i) * step.f;
    else y.data<int64_t>()[i] = start.i + i * step.i;
  }
  return to_device(cast(y, t), device.value_or(Device{}));
}

Array linspace(double start, double end, int64_t steps, DType t) {
  if (!is_float(t)) start = std::trunc(start), end = std::trunc(end);  // as PyTorch does
  Array y = Array::empty("linspace", {steps}, DType::kFloat64);
  const double step = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
  // From both ends, so that the last value is exactly `end`.
  for (int64_t i = 0; i < steps; ++i)
    y.data<double>()[i] = i < steps / 2 || steps == 1 ? start + static_cast<double>(i) * step
                                                      : end - static_cast<double>(steps - 1 - i) * step;
  return cast(y, t);
}

Array as_strided(const Array& a, const Dims& shape, const Dims& strides, int64_t offset) {
  TW_CHECK(shape.n == strides.n, "as_strided: shape and strides must have one length, got ", str_of(shape), " and ",
           str_of(strides));
  checked_numel("as_strided", shape);
  int64_t last = offset;
  bool empty = false;
  for (int i = 0; i < shape.n; ++i) {
    TW_CHECK(strides[i] >= 0, "as_strided: strides must not be negative, got ", str_of(strides));
    empty |= shape[i] == 0;
    int64_t reach;
    TW_CHECK(empty || (!__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) &&
                       !__builtin_add_overflow(last, reach, &last)),
             "as_strided: the view overflows int64");
  }
  // Borrowed memory is measured by its own extent, from element 0 of the storage.
  const auto room = static_cast<int64_t>(a.storage()->bytes / itemsize(a.dtype()));
  TW_CHECK(offset >= 0 && (empty || last < room), "as_strided: the view must lie in the storage of ", room,
           " elements, got one that reaches element ", last);
  return a.with_geometry(shape, strides, offset);
}

float to_float(float16 h) {
  // 2^112 scales a half's exponent, moved to float's place, to its value; it takes subnormals along.
  uint32_t bits = (h.bits & 0x7fffu) << 13;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  f *= 0x1p112f;
  if ((h.bits & 0x7c00u) == 0x7c00u) f = (h.bits & 0x3ffu) ? NAN : INFINITY;
  return h.bits & 0x8000u ? -f : f;
}
float to_float(bfloat16 h) {
  const uint32_t bits = static_cast<uint32_t>(h.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}

py::object item(const Array& a) {
  TW_CHECK(a.numel() == 1, "item: must have one element, got ", describe(a));
  const Array here = to_device(a, {});
  const void* p = here.raw();
  switch (a.dtype()) {
    case DType::kBool: return py::bool_(*static_cast<const bool*>(p));
    case DType::kUInt8: return py::int_(*static_cast<const uint8_t*>(p));
    case DType::kInt8: return py::int_(*static_cast<const int8_t*>(p));
    case DType::kInt16: return py::int_(*static_cast<const int16_t*>(p));
    case DType::kInt32: return py::int_(*static_cast<const int32_t*>(p));
    case DType::kInt64: return py::int_(*static_cast<const int64_t*>(p));
    case DType::kFloat16: return py::float_(to_float(*static_cast<const float16*>(p)));
    case DType::kBFloat16: return py::float_(to_float(*static_cast<const bfloat16*>(p)));
    case DType::kFloat32: return py::float_(*static_cast<const float*>(p));
    case DType::kFloat64: return py::float_(*static_cast<const double*>(p));
  }
  return py::none();
}

// The same bits as another dtype of one size.
Array bitcast(const Array& a, DType t) {
  TW_CHECK_TYPE(itemsize(a.dtype()) == itemsize(t), "view: dtypes must have one item size, got ", name(a.dtype()),
                " and ", name(t));
  return Array(a.storage(), t, a.shape(), a.strides(), a.offset());
}

// An alias with a version of its own: what `.data` gives, whose writes autograd does not see.
Array untracked(const Array& a) {
  Storage* base = a.storage().get();
  base->retain();
  Storage* s = Storage::borrow(
      base->data, base->bytes, base->device, base, [](void* p) { static_cast<Storage*>(p)->drop(); }, base->readonly);
  return Array(StorageRef::adopt(s), a.dtype(), a.shape(), a.strides(), a.offset());
}

}  // namespace

void bind_creation(py::module_& m) {
  using D = std::optional<Device>;
  def<[](const Dims& shape, DType t, D d) { return Array::empty("empty", shape, t, d.value_or(Device{})); }>(m,
                                                                                                             "empty");
  def<[](const Dims& shape, Value v, DType t, D d) { return full("full", shape, t, d.value_or(Device{}), v); }>(m,
                                                                                                                "full");
  def<&arange>(m, "arange");
  def<&linspace>(m, "linspace");
  def<&as_strided>(m, "as_strided");
  def<&untracked>(m, "untracked");
  def<&bitcast>(m, "bitcast");
  def<&item>(m, "item");
}

}  // namespace tw
