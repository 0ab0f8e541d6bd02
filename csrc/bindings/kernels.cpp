// The module tilewright._kernels: arrays in, what every function checks, and the module itself. It lives in _engine's
// shared object, whose ops it calls, and is set up only when _kernels.py asks for it.
#include "bindings/kernels.h"

#include <algorithm>
#include <cstring>

#include "bindings/tape.h"

namespace tw {

thread_local const char* Call::running = "kernels";

namespace {

PyObject* requires_grad_word = nullptr;

// Why an object is no array that can be used; what its own exporter says where it says anything.
[[noreturn]] void refuse(const char* op, const Given& g) {
  if (nb::ndarray<nb::ro> any; (g.rules & kOutput) && nb::try_cast(nb::handle(g.object), any, false))
    fail<std::invalid_argument>(op, ": ", g.role, "'s memory is read-only, so it cannot be an output");
  if (PyObject_HasAttrString(g.object, "__dlpack__")) {
    const nb::object capsule = nb::steal(PyObject_CallMethod(g.object, "__dlpack__", nullptr));
    if (!capsule.is_valid()) {
      nb::python_error why;
      fail<TypeError>(op, ": ", g.role, " must be an array that DLPack can share, got ", Py_TYPE(g.object)->tp_name,
                      ": ", nb::str(why.value()).c_str());
    }
  }
  fail<TypeError>(op, ": ", g.role, " must be an array, got ", Py_TYPE(g.object)->tp_name);
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

nb::dlpack::dltensor describe_foreign(const char* op, Given* g) {
  nb::dlpack::dltensor t;
  if (const auto describe = exchange_of(Py_TYPE(g->object))) {
    const nb::object tracked = nb::getattr(nb::handle(g->object), requires_grad_word, nb::bool_(false));
    refuse_tracked(op, g->role, tracked.is(nb::bool_(true)));
    if (describe(g->object, &t) == 0) return t;
    PyErr_Clear();
    refuse(op, *g);
  }
  if (g->rules & kOutput) {
    nb::ndarray<> writable;
    if (!nb::try_cast(nb::handle(g->object), writable, false)) refuse(op, *g);
    TW_CHECK(!is_jax(g->object), op, ": ", g->role, " must be writable, got a JAX array, which is immutable");
    g->imported = nb::ndarray<nb::ro>(writable);
  } else if (!nb::try_cast(nb::handle(g->object), g->imported, false)) {
    refuse(op, *g);
  }
  const auto& a = g->imported;
  return {a.data_handle(), {a.device_type(), a.device_id()},    static_cast<int32_t>(a.ndim()),
          a.dtype(),       const_cast<int64_t*>(a.shape_ptr()), const_cast<int64_t*>(a.stride_ptr()),
          a.byte_offset()};
}

// What a recorded plan keeps of a foreign array; otherwise the caller holds it for longer than the call lasts.
struct Owner {
  nb::object object;
  nb::ndarray<nb::ro> imported;
};
void release_owner(void* o) {
  const nb::gil_scoped_acquire held;
  delete static_cast<Owner*>(o);
}

std::string described(const Array& a) {
  return str("shape ", str_of(a.shape()), " with strides ", str_of(a.strides()));
}

bool same_view(const Array& a, const Array& b) {
  if (a.dtype() != b.dtype() || !(a.shape() == b.shape())) return false;
  for (int i = 0; i < a.ndim(); ++i)
    if (a.size(i) != 1 && a.strides()[i] != b.strides()[i]) return false;
  return true;
}

// The words of an error, whose op goes by the function's name here.
void translate(const std::exception_ptr& p, void*) {
  const auto raise = [](PyObject* type, const std::exception& e) {
    const std::string_view words(e.what());
    const size_t colon = words.find(": ");
    PyErr_SetString(type, str(Call::running, colon > 60 ? ": " : "", words.substr(colon > 60 ? 0 : colon)).c_str());
  };
  try {
    std::rethrow_exception(p);
  } catch (const TypeError& e) { raise(PyExc_TypeError, e); } catch (const NotImplemented& e) {
    raise(PyExc_NotImplementedError, e);
  } catch (const std::invalid_argument& e) { raise(PyExc_ValueError, e); } catch (const std::out_of_range& e) {
    raise(PyExc_IndexError, e);
  } catch (const std::overflow_error& e) { raise(PyExc_OverflowError, e); }
}

}  // namespace

Given* Call::add(const char* role, PyObject* o, unsigned rules) {
  if (used_ < kFew) new (&few_[used_].given) Given;
  else more_.push_back(std::make_unique<Given>());
  Given& g = at(used_++);
  g.role = role;
  g.rules = rules;
  g.object = o;
  const bool ours = is_tensor(o) && tensor(o).array;
  if (ours) refuse_tracked(op, role, tensor(o).requires_grad);
  if (PyObject* a = ours ? tensor(o).array : o; is_array(a)) {
    g.array = unwrap(a);
  } else {
    const nb::dlpack::dltensor t = describe_foreign(op, &g);
    g.array = import_tensor(
        op, role, reinterpret_cast<const DLTensor&>(t), recording() ? new Owner{nb::borrow(o), g.imported} : nullptr,
        recording() ? release_owner : [](void*) {}, false);
    TW_CHECK((reinterpret_cast<uintptr_t>(t.data) + t.byte_offset) % itemsize(g.array.dtype()) == 0, op, ": ", role,
             "'s memory must be aligned to its item size; copy the array first");
  }
  const Array& a = g.array;
  const auto size = static_cast<int64_t>(itemsize(a.dtype()));
  int64_t last = 0;
  for (int i = 0; i < a.ndim(); ++i) last += (a.size(i) - 1) * a.strides()[i];
  g.begin = static_cast<const char*>(a.storage()->data) + a.offset() * size;
  g.end = a.numel() ? g.begin + (last + 1) * size : g.begin;
  bytes_ += a.numel() * size;
  TW_CHECK(a.is_contiguous() || (rules & kStrided) || !(rules & (kOutput | kDense)), op, ": ", role,
           " must be contiguous (row-major), got ", described(a));
  if (rules & kOutput) {
    TW_CHECK(!a.storage()->readonly, op, ": ", role, "'s memory is read-only, so it cannot be an output");
    for (int i = 0; i < a.ndim(); ++i)
      TW_CHECK(a.size(i) <= 1 || a.strides()[i] != 0 || a.numel() == 0, op, ": ", role,
               "'s elements share memory, got ", described(a));
  }
  return &g;
}

Call::~Call() {
  for (int i = 0; i < std::min(used_, kFew); ++i) few_[i].given.~Given();
}

Value Call::operand(const char* role, PyObject* o) {
  Value v;
  if (PyFloat_Check(o)) {
    v.kind = Value::kFloat;
    v.f = PyFloat_AS_DOUBLE(o);
    v.i = v.f >= -0x1p63 && v.f < 0x1p63 ? static_cast<int64_t>(v.f) : 0;
  } else if (PyLong_Check(o)) {
    int overflow = 0;
    v.kind = PyBool_Check(o) ? Value::kBool : Value::kInt;
    v.i = PyLong_AsLongLongAndOverflow(o, &overflow);
    v.f = static_cast<double>(v.i);
    TW_CHECK_AS(std::overflow_error, !overflow, op, ": a number must fit int64");
  } else {
    v.array = &add(role, o, kStrided)->array;
    return v;
  }
  TW_CHECK_TYPE(!number_, op, ": at most one operand may be a number");
  number_ = true;
  return v;
}

void Call::check() const {
  const Given& first = few_[0].given;
  for (int i = 1; i < used_; ++i)
    TW_CHECK_AS(std::runtime_error, at(i).array.device() == first.array.device(), op,
                ": arrays must be on one device, got ", at(i).role, " elsewhere than ", first.role);
  const auto refuse = [this](const Given& out, const Given& g) {
    TW_CHECK((out.rules & kInPlace) && out.begin == g.begin && same_view(out.array, g.array), op, ": ", out.role,
             "'s memory must not overlap ", g.role, "'s",
             out.rules & kInPlace ? ", unless both are the same view" : "");
  };
  if (more_.empty()) {
    for (int i = 0; i < used_; ++i) {
      const Given& out = at(i);
      for (int k = 0; (out.rules & kOutput) && k < used_; ++k) {
        const Given& g = at(k);
        if (k == i || ((g.rules & kOutput) && k < i)) continue;
        if (out.begin < g.end && g.begin < out.end) refuse(out, g);
      }
    }
    return;
  }
  std::vector<const Given*> order;  // of their addresses, in which only neighbours can be the first to meet
  for (int i = 0; i < used_; ++i)
    if (at(i).begin != at(i).end) order.push_back(&at(i));
  std::sort(order.begin(), order.end(), [](const Given* a, const Given* b) { return a->begin < b->begin; });
  const Given *furthest = nullptr, *written = nullptr;  // of those so far: what ends last, of all and of outputs
  for (const Given* g : order) {
    const bool output = g->rules & kOutput;
    const Given* met = output ? furthest : written;
    if (met && met->end > g->begin) output ? refuse(*g, *met) : refuse(*met, *g);
    if (!furthest || g->end > furthest->end) furthest = g;
    if (output && (!written || g->end > written->end)) written = g;
  }
}

bool Call::take(const char* role, const Dims& shape, DType t, Array* a) {
  for (int i = 0; i < used_; ++i) {
    Given& g = at(i);
    if (!(g.rules & kOutput) || g.taken || std::strcmp(g.role, role) != 0) continue;
    check_is(op, role, g.array, shape, t);
    g.taken = true;
    *a = g.array;
    return true;
  }
  return false;
}

void Call::refuse_copy(const Array& a, DType t) {
  for (int i = 0; i < used_; ++i) {
    const Given& g = at(i);
    if (g.array.storage().get() != a.storage().get()) continue;
    TW_CHECK_TYPE(a.dtype() == t, op, ": ", g.role, " must be ", name(t), ", got ", name(a.dtype()));
    fail<std::invalid_argument>(op, ": ", g.role, " must be contiguous (row-major), got ", described(a));
  }
}

void Call::finish() {
  for (int i = 0; i < used_; ++i) {
    Given& g = at(i);
    if (!(g.rules & kOutput)) continue;
    g.array.bump_version();
    TW_CHECK(g.taken || g.array.numel() == 0, op, ": ", g.role, " is no result of this call, so it cannot be given");
  }
}

Arr Call::out() const {
  for (int i = 0; i < used_; ++i)
    if (at(i).rules & kOutput && std::strcmp(at(i).role, "out") == 0) return {at(i).object};
  return {Py_None};
}

std::string help(const char* doc) {
  const std::string_view all(doc);
  const size_t line = all.find('\n') + 1, example = all.find(">>>");
  return str(
      all.substr(0, line), "\n", all.substr(line, example - line), example > line ? "\n" : "",
      "Raises: ValueError: values, shapes, layout, overlapping or read-only memory. TypeError: dtypes.\n"
      "IndexError: dims, or indices out of range. RuntimeError: devices. After an error nothing has been written.\n\n",
      all.substr(example));
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

NB_MODULE(_kernels, m) {
  m.doc() = "Each kernel as a function over any DLPack array, into memory that the caller gives.";
  nb::register_exception_translator(tw::translate);
  tw::requires_grad_word = PyUnicode_InternFromString("requires_grad");
  tw::open_elementwise(m);
  tw::open_rows(m);
  tw::open_products(m);
  tw::open_samplers(m);
}
