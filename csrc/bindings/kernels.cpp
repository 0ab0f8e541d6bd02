// The module tilewright._kernels: arrays in, what every function checks, and the module itself.
#include "bindings/kernels.h"

#include <algorithm>

namespace tw {

const TableApi* api = nullptr;

namespace {

PyObject* requires_grad_word = nullptr;

std::string device_text(Device d) {
  return d.type == DeviceType::kCpu ? std::string("cpu") : str("cuda:", int{d.index});
}

std::string described(const View& v) { return str("shape ", str_of(v.shape), " with strides ", str_of(v.strides)); }

// Why an object is no array that can be used; what its own exporter says where it says anything.
[[noreturn]] void refuse(const char* op, const char* role, PyObject* o, bool written) {
  if (nb::ndarray<nb::ro> any; written && nb::try_cast(nb::handle(o), any, false))
    fail<std::invalid_argument>(op, ": ", role, "'s memory is read-only, so it cannot be an output");
  if (PyObject_HasAttrString(o, "__dlpack__")) {
    const nb::object capsule = nb::steal(PyObject_CallMethod(o, "__dlpack__", nullptr));
    if (!capsule.is_valid()) {
      nb::python_error why;
      fail<TypeError>(op, ": ", role, " must be an array that DLPack can share, got ", Py_TYPE(o)->tp_name, ": ",
                      nb::str(why.value()).c_str());
    }
  }
  fail<TypeError>(op, ": ", role, " must be an array, got ", Py_TYPE(o)->tp_name);
}

void refuse_tracked(const char* op, const char* role, bool requires_grad) {
  TW_CHECK_AS(std::runtime_error, !requires_grad, op, ": ", role,
              " requires grad, and kernels record nothing; pass .detach()");
}

bool is_jax(PyObject* o) {
  nb::object module = nb::getattr(nb::handle(Py_TYPE(o)), "__module__", nb::none());
  return nb::isinstance<nb::str>(module) && std::string_view(nb::borrow<nb::str>(module).c_str()).starts_with("jax");
}

// DLPack's exchange API (1.2), by which PyTorch describes a tensor without a capsule, at a tenth of its cost.
struct ExchangeApi {
  struct {
    uint32_t major, minor;
  } version;
  void* unused[4];
  int (*describe)(void* object, nb::dlpack::dltensor* out);  // borrowed
};

decltype(ExchangeApi::describe) exchange_of(PyTypeObject* type) {
  static PyTypeObject* known = nullptr;  // the last type asked for; a process rarely mixes many
  static decltype(ExchangeApi::describe) describe = nullptr;
  if (type == known) return describe;
  known = type;
  describe = nullptr;
  const nb::object capsule =
      nb::getattr(nb::handle(reinterpret_cast<PyObject*>(type)), "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* e = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return describe = e->version.major == 1 ? e->describe : nullptr;
}

nb::dlpack::dltensor tensor_of(const char* op, PyObject* o, bool written, View* v) {
  nb::dlpack::dltensor t;
  if (const auto describe = exchange_of(Py_TYPE(o))) {
    const nb::object tracked = nb::getattr(nb::handle(o), requires_grad_word, nb::bool_(false));
    refuse_tracked(op, v->role, tracked.is(nb::bool_(true)));
    if (describe(o, &t) == 0) return t;
    PyErr_Clear();
    refuse(op, v->role, o, written);
  }
  if (written) {
    nb::ndarray<> writable;
    if (!nb::try_cast(nb::handle(o), writable, false)) refuse(op, v->role, o, true);
    TW_CHECK(!is_jax(o), op, ": ", v->role, " must be writable, got a JAX array, which is immutable");
    v->imported = nb::ndarray<nb::ro>(writable);
  } else if (!nb::try_cast(nb::handle(o), v->imported, false)) {
    refuse(op, v->role, o, false);
  }
  const auto& a = v->imported;
  return {a.data_handle(), {a.device_type(), a.device_id()},    static_cast<int32_t>(a.ndim()),
          a.dtype(),       const_cast<int64_t*>(a.shape_ptr()), const_cast<int64_t*>(a.stride_ptr()),
          a.byte_offset()};
}

void read_foreign(const char* op, PyObject* o, bool written, View* v) {
  const nb::dlpack::dltensor t = tensor_of(op, o, written, v);
  TW_CHECK(t.ndim <= kMaxDims, op, ": ", v->role, " must have at most ", kMaxDims, " dimensions, got ", t.ndim);
  using Code = nb::dlpack::dtype_code;
  static constexpr struct {
    Code code;
    uint8_t bits;
  } kTypes[kNumDTypes] = {{Code::Bool, 8}, {Code::UInt, 8},   {Code::Int, 8},     {Code::Int, 16},   {Code::Int, 32},
                          {Code::Int, 64}, {Code::Float, 16}, {Code::Bfloat, 16}, {Code::Float, 32}, {Code::Float, 64}};
  int found = -1;
  for (int i = 0; i < kNumDTypes; ++i)
    if (static_cast<uint8_t>(kTypes[i].code) == t.dtype.code && kTypes[i].bits == t.dtype.bits) found = i;
  TW_CHECK_TYPE(found >= 0 && t.dtype.lanes == 1, op, ": ", v->role, " has a dtype that no kernel takes, got code ",
                int{t.dtype.code}, " with ", int{t.dtype.bits}, " bits (DLPack)");
  v->dtype = static_cast<DType>(found);
  const int where = t.device.device_type;
  const bool cuda = where == nb::device::cuda::value;
  TW_CHECK_AS(std::runtime_error, where == nb::device::cpu::value || where == nb::device::cuda_host::value || cuda, op,
              ": ", v->role, " must be on cpu or cuda, got DLPack device type ", where);
  v->device = cuda ? Device{DeviceType::kCuda, static_cast<int8_t>(t.device.device_id)} : Device{};
  v->readonly = false;
  v->data = static_cast<char*>(t.data) + t.byte_offset;
  v->shape = Dims(t.shape, t.ndim);
  v->strides = t.strides ? Dims(t.strides, t.ndim) : contiguous_strides(v->shape);
  v->dense = true;
  v->numel = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    if (v->shape[i] != 1 && v->strides[i] != v->numel) v->dense = false;
    v->numel *= v->shape[i];
  }
  if (v->numel == 0) v->dense = true;
  TW_CHECK(reinterpret_cast<uintptr_t>(v->data) % itemsize(v->dtype) == 0, op, ": ", v->role,
           "'s memory must be aligned to its item size; copy the array first");
}

bool same_view(const View& a, const View& b) {
  if (a.data != b.data || a.dtype != b.dtype || !(a.shape == b.shape)) return false;
  for (int i = 0; i < a.ndim(); ++i)
    if (a.size(i) != 1 && a.strides[i] != b.strides[i]) return false;
  return true;
}

}  // namespace

const View& Call::add(const char* role, Arr a, unsigned rules, bool written) {
  if (used_ >= kFew) more_.push_back(std::make_unique<View>());
  View& v = at(used_++);
  v.role = role;
  v.written = written;
  v.in_place = rules & kInPlace;
  v.object = nb::borrow(a.o);
  if (ArrayView own; api->view(a.o, &own)) {
    refuse_tracked(op, role, own.requires_grad);
    v.ours = nb::borrow(static_cast<PyObject*>(own.object));
    v.data = static_cast<char*>(own.data);
    v.shape = *own.shape;
    v.strides = *own.strides;
    v.numel = own.numel;
    v.dtype = own.dtype;
    v.device = own.device;
    v.readonly = own.readonly;
    v.dense = own.contiguous;
  } else {
    read_foreign(op, a.o, written, &v);
  }
  const auto size = static_cast<int64_t>(itemsize(v.dtype));
  int64_t last = 0;
  for (int i = 0; i < v.ndim(); ++i) {
    TW_CHECK(v.strides[i] >= 0 || v.size(i) <= 1, op, ": ", role, "'s strides must not be negative, got ",
             described(v));
    last += (v.size(i) - 1) * v.strides[i];
  }
  v.bytes = v.numel ? (last + 1) * size : 0;
  work_ += v.numel * size;
  TW_CHECK(!(rules & kDense) || v.dense, op, ": ", role, " must be contiguous (row-major), got ", described(v));
  TW_CHECK_TYPE(!(rules & kFloat) || is_float(v.dtype), op, ": ", role, " must have a floating-point dtype, got ",
                name(v.dtype));
  if (rules & kLabel) must_have_dtype(v, DType::kInt64);
  if (written) {
    TW_CHECK(!v.readonly, op, ": ", role, "'s memory is read-only, so it cannot be an output");
    for (int i = 0; i < v.ndim(); ++i)
      TW_CHECK(v.size(i) <= 1 || v.strides[i] != 0, op, ": ", role, "'s elements share memory, got ", described(v));
  }
  return v;
}

void Call::must_have_shape(const View& v, const Dims& shape) const {
  TW_CHECK(v.shape == shape, op, ": ", v.role, " must have shape ", str_of(shape), ", got ", str_of(v.shape));
}

void Call::must_have_dtype(const View& v, DType dtype) const {
  TW_CHECK_TYPE(v.dtype == dtype, op, ": ", v.role, " must be ", name(dtype), ", got ", name(v.dtype));
}

const View& Call::matching(const View& v, const View& like) const {
  TW_CHECK(v.shape == like.shape, op, ": ", v.role, " must have ", like.role, "'s shape, got ", str_of(v.shape),
           " and ", str_of(like.shape));
  TW_CHECK_TYPE(v.dtype == like.dtype, op, ": ", v.role, " must have ", like.role, "'s dtype, got ", name(v.dtype),
                " and ", name(like.dtype));
  return v;
}

const View& Call::fitting(const View& v, const Dims& shape, DType dtype) const {
  must_have_shape(v, shape);
  must_have_dtype(v, dtype);
  return v;
}

void* Call::temporary(int64_t bytes) {
  temporaries_.push_back(std::make_unique<char[]>(static_cast<size_t>(std::max<int64_t>(bytes, 1))));
  return temporaries_.back().get();
}

const KernelTable* Call::prepare() {
  const View& first = few_[0];
  for (int i = 1; i < used_; ++i)
    TW_CHECK_AS(std::runtime_error, at(i).device == first.device, op, ": arrays must be on one device, got ",
                at(i).role, " on ", device_text(at(i).device), " and ", first.role, " on ", device_text(first.device));
  const auto refuse = [this](const View& out, const View& v) {
    TW_CHECK(out.in_place && same_view(out, v), op, ": ", out.role, "'s memory must not overlap ", v.role, "'s",
             out.in_place ? ", unless both are the same view" : "");
  };
  if (more_.empty()) {
    for (int i = 0; i < used_; ++i) {
      const View& out = at(i);
      for (int k = 0; out.written && k < used_; ++k) {
        const View& v = at(k);
        if (k == i || (v.written && k < i)) continue;
        if (out.data < v.data + v.bytes && v.data < out.data + out.bytes) refuse(out, v);
      }
    }
  } else {  // in the order of their addresses only neighbours can be the first to meet
    std::vector<View*> order;
    for (int i = 0; i < used_; ++i)
      if (at(i).bytes) order.push_back(&at(i));
    std::sort(order.begin(), order.end(), [](const View* a, const View* b) { return a->data < b->data; });
    const View *furthest = nullptr,
               *written = nullptr;  // of those so far: the one that ends last, of all and of outputs
    for (View* v : order) {
      const View* met = v->written ? furthest : written;
      if (met && met->data + met->bytes > v->data) v->written ? refuse(*v, *met) : refuse(*met, *v);
      if (!furthest || v->data + v->bytes > furthest->data + furthest->bytes) furthest = v;
      if (v->written && (!written || v->data + v->bytes > written->data + written->bytes)) written = v;
    }
  }
  const KernelTable* table = api->table(first.device);
  TW_CHECK_AS(NotImplemented, table, op, ": no kernel on ", device_text(first.device), " in this build");
  return table;
}

void Call::keep() {
  const auto forget = [](void* o) {
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF(static_cast<PyObject*>(o));
    PyGILState_Release(gil);
  };
  for (int i = 0; i < used_; ++i)
    for (PyObject* o : {at(i).object.ptr(), at(i).ours.ptr()})
      if (o) api->keep(Py_NewRef(o), forget);
  for (auto& t : temporaries_) api->keep(t.release(), [](void* p) { delete[] static_cast<char*>(p); });
}

}  // namespace tw

bool nb::detail::type_caster<tw::Sizes>::from_python(handle src, uint32_t, cleanup_list*) noexcept {
  PyObject* o = src.ptr();
  const bool list = PyTuple_Check(o) || PyList_Check(o);
  const Py_ssize_t n = o == Py_None ? -1 : list ? PySequence_Fast_GET_SIZE(o) : 1;
  if (n > tw::kMaxDims) return false;
  value.n = static_cast<int>(n);
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = list ? PySequence_Fast_GET_ITEM(o, i) : o;
    value.d[i] = PyIndex_Check(item) ? PyNumber_AsSsize_t(item, PyExc_OverflowError) : -1;
    if (PyIndex_Check(item) && !(value.d[i] == -1 && PyErr_Occurred())) continue;
    PyErr_Clear();
    return false;
  }
  return true;
}

nb::handle nb::detail::type_caster<tw::Sizes>::from_cpp(const tw::Sizes& s, rv_policy, cleanup_list*) noexcept {
  if (s.n < 0) return nb::none().release();
  PyObject* t = PyTuple_New(s.n);
  for (int i = 0; t && i < s.n; ++i) PyTuple_SET_ITEM(t, i, PyLong_FromLongLong(s[i]));
  return t;
}

NB_MODULE(_kernels, m) {
  m.doc() = "Each kernel as a function over any DLPack array, into memory that the caller gives.";
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const tw::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const tw::NotImplemented& e) { PyErr_SetString(PyExc_NotImplementedError, e.what()); }
  });
  const nb::object capsule = nb::module_::import_("tilewright._engine").attr("_table_api");
  tw::api = static_cast<const tw::TableApi*>(PyCapsule_GetPointer(capsule.ptr(), tw::kTableApi));
  if (!tw::api || tw::api->table_bytes != sizeof(tw::KernelTable)) {
    PyErr_Clear();
    throw nb::import_error("tilewright._kernels and tilewright._engine come from different builds; install again");
  }
  tw::requires_grad_word = PyUnicode_InternFromString("requires_grad");
  tw::bind_elementwise(m);
  tw::bind_rows(m);
  tw::bind_products(m);
  tw::bind_sequences(m);
  tw::bind_data(m);
  tw::bind_orders(m);
}
