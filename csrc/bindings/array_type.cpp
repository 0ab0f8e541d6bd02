// _engine.Array and _engine.dtype as plain CPython types; the buffer protocol gives NumPy its zero-copy view.
#include "bindings/bind.h"

namespace tw {

PyTypeObject* array_type = nullptr;

namespace {

// --- dtype --
struct PyDType {
  PyObject_HEAD DType value;
};
PyTypeObject* dtype_type = nullptr;
PyObject* dtype_singletons[kNumDTypes];

DType dtype_of_object(PyObject* o) { return reinterpret_cast<PyDType*>(o)->value; }

PyObject* dtype_repr(PyObject* o) { return PyUnicode_FromFormat("tilewright.%s", name(dtype_of_object(o))); }
PyObject* dtype_name(PyObject* o, void*) { return PyUnicode_FromString(name(dtype_of_object(o))); }
PyObject* dtype_itemsize(PyObject* o, void*) { return PyLong_FromSize_t(itemsize(dtype_of_object(o))); }
PyObject* dtype_is_float(PyObject* o, void*) { return PyBool_FromLong(is_float(dtype_of_object(o))); }
PyObject* dtype_is_signed(PyObject* o, void*) {
  const DType t = dtype_of_object(o);
  return PyBool_FromLong(t != DType::kBool && t != DType::kUInt8);
}
PyObject* dtype_reduce(PyObject* o, PyObject*) {
  py::object by_name = py::module_::import("tilewright._engine").attr("dtype_by_name");
  return Py_BuildValue("O(s)", by_name.ptr(), name(dtype_of_object(o)));
}
PyGetSetDef dtype_getset[] = {
    {"name", dtype_name, nullptr, "its name, such as 'float32'", nullptr},
    {"itemsize", dtype_itemsize, nullptr, "bytes an element", nullptr},
    {"is_floating_point", dtype_is_float, nullptr, "whether it is a floating-point type", nullptr},
    {"is_signed", dtype_is_signed, nullptr, "whether it holds negative values", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef dtype_methods[] = {{"__reduce__", dtype_reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyType_Slot dtype_slots[] = {{Py_tp_repr, reinterpret_cast<void*>(dtype_repr)},
                             {Py_tp_getset, dtype_getset},
                             {Py_tp_methods, dtype_methods},
                             {0, nullptr}};
PyType_Spec dtype_spec = {"tilewright._engine.dtype", sizeof(PyDType), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, dtype_slots};

// --- Array --
void array_dealloc(PyObject* o) {
  PyTypeObject* t = Py_TYPE(o);
  unwrap(o).~Array();
  t->tp_free(o);
  Py_DECREF(t);
}

PyObject* array_shape(PyObject* o, void*) { return tuple_of(unwrap(o).shape()); }
PyObject* array_strides(PyObject* o, void*) { return tuple_of(unwrap(o).strides()); }
PyObject* array_dtype(PyObject* o, void*) { return dtype_object(unwrap(o).dtype()); }
PyObject* array_ndim(PyObject* o, void*) { return PyLong_FromLong(unwrap(o).ndim()); }
PyObject* array_numel(PyObject* o, void*) { return PyLong_FromLongLong(unwrap(o).numel()); }
PyObject* array_offset(PyObject* o, void*) { return PyLong_FromLongLong(unwrap(o).offset()); }
PyObject* array_version(PyObject* o, void*) { return PyLong_FromLong(static_cast<long>(unwrap(o).version())); }
PyObject* array_contiguous(PyObject* o, void*) { return PyBool_FromLong(unwrap(o).is_contiguous()); }
PyObject* array_data_ptr(PyObject* o, void*) { return PyLong_FromVoidPtr(unwrap(o).raw()); }
PyObject* array_is_float(PyObject* o, void*) { return PyBool_FromLong(is_float(unwrap(o).dtype())); }
PyObject* array_storage(PyObject* o, void*) { return PyLong_FromVoidPtr(unwrap(o).storage().get()); }
PyObject* array_shared(PyObject* o, void*) {
  const Array& a = unwrap(o);
  const auto bytes = static_cast<size_t>(a.numel()) * itemsize(a.dtype());
  return PyBool_FromLong(a.storage()->refs() > 1 || a.storage()->bytes != bytes);
}
PyObject* array_device(PyObject* o, void*) { return py::cast(unwrap(o).device()).release().ptr(); }
PyObject* array_on_cpu(PyObject* o, void*) { return PyBool_FromLong(unwrap(o).device().type == DeviceType::kCpu); }
PyObject* array_readonly(PyObject* o, void*) { return PyBool_FromLong(unwrap(o).storage()->readonly); }

PyGetSetDef array_getset[] = {
    {"shape", array_shape, nullptr, "sizes, a tuple", nullptr},
    {"strides", array_strides, nullptr, "strides in elements, a tuple", nullptr},
    {"dtype", array_dtype, nullptr, nullptr, nullptr},
    {"ndim", array_ndim, nullptr, nullptr, nullptr},
    {"numel", array_numel, nullptr, "number of elements", nullptr},
    {"offset", array_offset, nullptr, "of the first element in its storage, in elements", nullptr},
    {"version", array_version, nullptr, "how often the storage was written in place", nullptr},
    {"is_contiguous", array_contiguous, nullptr, nullptr, nullptr},
    {"data_ptr", array_data_ptr, nullptr, "address of the first element", nullptr},
    {"is_float", array_is_float, nullptr, nullptr, nullptr},
    {"storage_id", array_storage, nullptr, "equal for arrays that share memory through views", nullptr},
    {"storage_shared", array_shared, nullptr,
     "whether other arrays, or more than this one's elements, hold the storage", nullptr},
    {"readonly", array_readonly, nullptr, nullptr, nullptr},
    {"device", array_device, nullptr, "where it lives", nullptr},
    {"on_cpu", array_on_cpu, nullptr, "whether that is the CPU", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

// struct-module format characters; bfloat16 has none, and Tensor.numpy() says so before it gets here.
const char* buffer_format(DType t) {
  switch (t) {
    case DType::kBool: return "?";
    case DType::kUInt8: return "B";
    case DType::kInt8: return "b";
    case DType::kInt16: return "h";
    case DType::kInt32: return "i";
    case DType::kInt64: return "l";
    case DType::kFloat16: return "e";
    case DType::kFloat32: return "f";
    case DType::kFloat64: return "d";
    default: return nullptr;
  }
}

int array_getbuffer(PyObject* o, Py_buffer* view, int flags) {
  const Array& a = unwrap(o);
  if (a.device().type != DeviceType::kCpu) {
    PyErr_SetString(PyExc_BufferError, "numpy: the tensor is on cuda; copy it with .cpu() first");
    return -1;
  }
  const char* format = buffer_format(a.dtype());
  if (!format) {
    PyErr_SetString(PyExc_BufferError, "numpy: the buffer protocol has no bfloat16; convert with .float() first");
    return -1;
  }
  if (a.storage()->readonly && (flags & PyBUF_WRITABLE)) {
    PyErr_SetString(PyExc_BufferError, "numpy: the array's memory is read-only");
    return -1;
  }
  if (!(flags & PyBUF_STRIDES) && !a.is_contiguous()) {
    PyErr_SetString(PyExc_BufferError, "numpy: the array is not contiguous and the consumer takes no strides");
    return -1;
  }
  const auto size = static_cast<Py_ssize_t>(itemsize(a.dtype()));
  auto* geometry = new Py_ssize_t[2 * kMaxDims];
  for (int i = 0; i < a.ndim(); ++i) {
    geometry[i] = a.size(i);
    geometry[kMaxDims + i] = a.strides()[i] * size;
  }
  view->buf = a.raw();
  view->obj = Py_NewRef(o);
  view->len = a.numel() * size;
  view->readonly = a.storage()->readonly;
  view->itemsize = size;
  view->format = const_cast<char*>(format);
  view->ndim = a.ndim();
  view->shape = geometry;
  view->strides = geometry + kMaxDims;
  view->suboffsets = nullptr;
  view->internal = geometry;
  return 0;
}
void array_releasebuffer(PyObject*, Py_buffer* view) { delete[] static_cast<Py_ssize_t*>(view->internal); }

PyType_Slot array_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(array_dealloc)},
                             {Py_tp_getset, array_getset},
                             {Py_bf_getbuffer, reinterpret_cast<void*>(array_getbuffer)},
                             {Py_bf_releasebuffer, reinterpret_cast<void*>(array_releasebuffer)},
                             {0, nullptr}};
PyType_Spec array_spec = {"tilewright._engine.Array", sizeof(PyArray), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, array_slots};

}  // namespace

PyObject* tuple_of(const Dims& d) {
  PyObject* t = PyTuple_New(d.n);
  if (t)
    for (int i = 0; i < d.n; ++i) PyTuple_SET_ITEM(t, i, PyLong_FromLongLong(d[i]));
  return t;
}

PyObject* wrap(Array&& a) {
  if (!a.defined()) return Py_NewRef(Py_None);
  PyObject* o = array_type->tp_alloc(array_type, 0);
  if (!o) throw py::error_already_set();
  new (&unwrap(o)) Array(std::move(a));
  return o;
}
PyObject* wrap(const Array& a) { return wrap(Array(a)); }

PyObject* dtype_object(DType t) { return Py_NewRef(dtype_singletons[static_cast<int>(t)]); }

bool dtype_from(PyObject* o, DType* t) {
  if (Py_TYPE(o) != dtype_type) return false;
  *t = dtype_of_object(o);
  return true;
}

void bind_array(py::module_& m) {
  dtype_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&dtype_spec));
  array_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&array_spec));
  if (!dtype_type || !array_type) throw py::error_already_set();
  for (int i = 0; i < kNumDTypes; ++i) {
    PyObject* o = dtype_type->tp_alloc(dtype_type, 0);
    reinterpret_cast<PyDType*>(o)->value = static_cast<DType>(i);
    dtype_singletons[i] = o;
    m.attr(name(static_cast<DType>(i))) = py::reinterpret_borrow<py::object>(o);
  }
  m.attr("dtype") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(dtype_type));
  m.attr("Array") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(array_type));
  m.def("dtype_by_name", [](const std::string& n) {
    for (int i = 0; i < kNumDTypes; ++i)
      if (n == name(static_cast<DType>(i))) return static_cast<DType>(i);
    fail<std::invalid_argument>("dtype: no such dtype, got '", n, "'");
  });
}

}  // namespace tw
