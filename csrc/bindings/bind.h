// What every binding needs: the casters between Python objects and Array, Dims, DType and scalar-or-array operands.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <vector>

#include "check.h"
#include "tensor/array.h"

namespace py = pybind11;

namespace tw {

// One row a file of csrc/ops: void bind_<name>(py::module_&).
// clang-format off
#define TW_BINDINGS(X)                                                                                      \
  X(array) X(tape) X(op) X(interop) X(runtime) X(creation) X(elementwise) X(reduce) X(matmul) X(conv)        \
  X(pool) X(softmax) X(loss) X(norm) X(index) X(shape) X(random) X(optim) X(machine) X(attention) X(rnn)     \
  X(pad) X(interpolate) X(sort) X(cuda) X(grid_sample) X(vision)
// clang-format on
#define TW_X(name) void bind_##name(py::module_& m);
TW_BINDINGS(TW_X)
#undef TW_X

// _engine.Array is a plain CPython type that holds an Array inside the object (array_type.cpp): a result costs one
// small allocation, where a registered pybind11 class costs an instance, a holder and a hash-map entry.
struct PyArray {
  PyObject_HEAD Array array;
};
extern PyTypeObject* array_type;
inline bool is_array(PyObject* o) { return Py_TYPE(o) == array_type; }
inline Array& unwrap(PyObject* o) { return reinterpret_cast<PyArray*>(o)->array; }
PyObject* wrap(const Array& a);
PyObject* wrap(Array&& a);
PyObject* tuple_of(const Dims& d);  // new reference

PyObject* dtype_object(DType t);         // new reference to the singleton tw.float32 ...
bool dtype_from(PyObject* o, DType* t);  // false when o is not a dtype

// An argument that is an Array or a Python number (NumPy scalars included).
struct Value {
  Array* array = nullptr;
  enum Kind { kArray, kBool, kInt, kFloat } kind = kArray;
  double f = 0;
  int64_t i = 0;
};

using ArrayRefs = std::vector<Array*>;

// Memory that a DLPack tensor describes; a refusal names `op`, and the array as `what`. The owner: as Storage::borrow's.
struct DLTensor;
Array import_tensor(const char* op, const char* what, const DLTensor& t, void* owner, void (*release)(void*),
                    bool readonly);

// The result of f, or null with its C++ exception set as Python's: for functions that pybind11 does not call.
template <class F> PyObject* guarded(F&& f) {
  try {
    return f();
  } catch (py::error_already_set& error) { error.restore(); } catch (...) {
    py::detail::try_translate_exceptions();
  }
  return nullptr;
}

}  // namespace tw

namespace pybind11::detail {

template <> struct type_caster<tw::Array> {
  static constexpr auto name = const_name("Array");
  template <class T> using cast_op_type = tw::Array&;
  bool load(handle h, bool) {
    if (!tw::is_array(h.ptr())) return false;
    value = &tw::unwrap(h.ptr());
    return true;
  }
  static handle cast(const tw::Array& a, return_value_policy, handle) { return tw::wrap(a); }
  static handle cast(tw::Array&& a, return_value_policy, handle) { return tw::wrap(std::move(a)); }
  operator tw::Array&() { return *value; }
  tw::Array* value = nullptr;
};

template <> struct type_caster<tw::Dims> {
  PYBIND11_TYPE_CASTER(tw::Dims, const_name("tuple[int, ...]"));
  bool load(handle h, bool) {
    PyObject* o = h.ptr();
    if (!PyTuple_Check(o) && !PyList_Check(o)) {
      if (!PyIndex_Check(o)) return false;
      value.n = 1;
      value.d[0] = PyNumber_AsSsize_t(o, PyExc_OverflowError);
      if (PyErr_Occurred()) throw error_already_set();
      return true;
    }
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(o);
    if (n > tw::kMaxDims) throw std::invalid_argument(tw::str("shape: at most ", tw::kMaxDims, " dimensions, got ", n));
    value.n = static_cast<int>(n);
    for (Py_ssize_t k = 0; k < n; ++k) {
      PyObject* item = PySequence_Fast_GET_ITEM(o, k);
      if (!PyIndex_Check(item)) return false;
      value.d[k] = PyNumber_AsSsize_t(item, PyExc_OverflowError);
      if (value.d[k] == -1 && PyErr_Occurred()) throw error_already_set();
    }
    return true;
  }
  static handle cast(const tw::Dims& d, return_value_policy, handle) {
    PyObject* t = PyTuple_New(d.n);
    for (int k = 0; k < d.n; ++k) PyTuple_SET_ITEM(t, k, PyLong_FromLongLong(d[k]));
    return t;
  }
};

template <> struct type_caster<tw::DType> {
  PYBIND11_TYPE_CASTER(tw::DType, const_name("dtype"));
  bool load(handle h, bool) { return tw::dtype_from(h.ptr(), &value); }
  static handle cast(tw::DType t, return_value_policy, handle) { return tw::dtype_object(t); }
};

template <> struct type_caster<tw::Value> {
  PYBIND11_TYPE_CASTER(tw::Value, const_name("Array | float"));
  bool load(handle h, bool) {
    PyObject* o = h.ptr();
    if (tw::is_array(o)) {
      value.array = &tw::unwrap(o);
      value.kind = tw::Value::kArray;
    } else if (PyBool_Check(o)) {
      value.kind = tw::Value::kBool;
      value.f = static_cast<double>(value.i = o == Py_True);
    } else if (PyFloat_Check(o)) {
      value.kind = tw::Value::kFloat;
      value.f = PyFloat_AS_DOUBLE(o);
    } else if (PyIndex_Check(o)) {
      value.kind = tw::Value::kInt;
      value.i = PyNumber_AsSsize_t(o, PyExc_OverflowError);
      if (value.i == -1 && PyErr_Occurred()) throw error_already_set();
      value.f = static_cast<double>(value.i);
    } else if (Py_TYPE(o)->tp_as_number && Py_TYPE(o)->tp_as_number->nb_float) {
      value.kind = tw::Value::kFloat;
      value.f = PyFloat_AsDouble(o);
      if (value.f == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
      }
    } else {
      return false;
    }
    if (value.kind == tw::Value::kFloat)
      value.i = value.f >= -9.2e18 && value.f <= 9.2e18 ? static_cast<int64_t>(value.f) : 0;
    return true;
  }
  static handle cast(const tw::Value&, return_value_policy, handle) { return none().release(); }
};

}  // namespace pybind11::detail

namespace pybind11::detail {

template <> struct type_caster<tw::ArrayRefs> {
  PYBIND11_TYPE_CASTER(tw::ArrayRefs, const_name("list[Array]"));
  bool load(handle h, bool) {
    if (!PyList_Check(h.ptr())) return false;
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(h.ptr()); ++k) {
      PyObject* item = PyList_GET_ITEM(h.ptr(), k);
      if (!tw::is_array(item)) return false;
      value.push_back(&tw::unwrap(item));
    }
    return true;
  }
};

}  // namespace pybind11::detail

namespace tw {

// The arrays of one call must be on one device. A 0-d array may be elsewhere: ops read it as a number.
std::string str_of(Device d);  // "cuda:0"
struct OneDevice {
  const char* op;
  const Array* first = nullptr;
  void add(const Array* a) {
    if (!a || !a->defined() || a->ndim() == 0) return;
    if (!first) first = a;
    TW_CHECK_AS(std::runtime_error, a->device() == first->device(), op, ": tensors must be on one device, got ",
                str_of(first->device()), " and ", str_of(a->device()));
  }
  template <class T> void add(py::detail::make_caster<T>& caster, std::type_identity<T>) {
    if constexpr (std::is_same_v<T, Array>) add(caster.value);
    else if constexpr (std::is_same_v<T, Value>) add(static_cast<Value&>(caster).array);
    else if constexpr (std::is_same_v<T, std::optional<Array>>) {
      const auto& a = static_cast<std::optional<Array>&>(caster);
      add(a ? &*a : nullptr);
    } else if constexpr (std::is_same_v<T, ArrayRefs>) {
      for (const Array* a : static_cast<ArrayRefs&>(caster)) add(a);
    }
  }
};

// def<&softmax>(m, "softmax") binds a function of positional arguments without pybind11's dispatcher, which costs more
// than most small kernels. Trailing arguments may be left out: optionals are then none, numbers 0 and flags false.
template <class R, class... A, size_t... I>
PyObject* call_bound(R (*f)(A...), const char* name, bool any_device, PyObject* const* args, Py_ssize_t n,
                     std::index_sequence<I...>) {
  std::tuple<py::detail::make_caster<A>...> casters;
  const auto load = [&]<class T>(auto& caster, size_t i, std::type_identity<T>) {
    PyObject* o = static_cast<Py_ssize_t>(i) < n ? args[i] : nullptr;
    if (!o) {
      if constexpr (std::is_same_v<T, bool>) o = Py_False;
      else if constexpr (std::is_arithmetic_v<T>) return caster.load(py::int_(0), true);
      else o = Py_None;
    }
    TW_CHECK_TYPE(caster.load(o, true), name, ": argument ", i + 1, " cannot be of type ", Py_TYPE(o)->tp_name);
    return true;
  };
  TW_CHECK_TYPE(n <= static_cast<Py_ssize_t>(sizeof...(A)), name, ": takes at most ", sizeof...(A), " arguments, got ",
                n);
  (load(std::get<I>(casters), I, std::type_identity<std::remove_cvref_t<A>>{}), ...);
  OneDevice devices{name};
  if (!any_device) (devices.add(std::get<I>(casters), std::type_identity<std::remove_cvref_t<A>>{}), ...);
  if constexpr (std::is_void_v<R>) {
    f(py::detail::cast_op<A>(std::move(std::get<I>(casters)))...);
    Py_RETURN_NONE;
  } else {
    return py::detail::make_caster<R>::cast(f(py::detail::cast_op<A>(std::move(std::get<I>(casters)))...),
                                            py::return_value_policy::move, {})
        .ptr();
  }
}

template <auto F, bool kAnyDevice = false> void def(py::module_& m, const char* name) {
  static const char* bound_name = name;
  static const auto call = [](PyObject*, PyObject* const* args, Py_ssize_t n) {
    return guarded([&] {
      return []<class R, class... A>(R (*f)(A...), PyObject* const* args, Py_ssize_t n) {
        return call_bound(f, bound_name, kAnyDevice, args, n, std::index_sequence_for<A...>{});
      }(+F, args, n);
    });
  };
  static PyMethodDef definitions[2] = {
      {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(static_cast<_PyCFunctionFast>(call))),
       METH_FASTCALL, nullptr},
      {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), definitions) != 0) throw py::error_already_set();
}

}  // namespace tw
