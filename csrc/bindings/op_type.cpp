// _engine.Op: a public op as Python calls it. It goes straight to the kernel and the tape where every operand is a
// floating-point Tensor (or a number among them) and nothing else is said, and calls the op's Python function, which
// knows all the cases, otherwise. With no kernel of its own it only names itself when a Tensor's place was taken by
// something else.
#include "bindings/tape.h"
#include "ops/common.h"

#include <structmember.h>

#include <algorithm>

namespace tw {
namespace {

// What the gradient rule reads.
enum class Saves { kNothing, kInputs, kOutput, kOthers, kDivisor };

struct PyOp {
  PyObject_HEAD vectorcallfunc call;
  PyObject* dict;
  PyObject* function;
  PyObject* rule;  // found when first needed, beside the function; None for an op without a gradient
  const ElementwiseRow* row;
  Saves saves;
  int numbers;  // whether the kernel may have a number in place of one of two Tensors
};
PyTypeObject* op_type = nullptr;
PyOp& op_of(PyObject* o) { return *reinterpret_cast<PyOp*>(o); }

bool needs_gradient(PyObject* o) {
  if (!is_tensor(o)) return false;
  PyObject* base = tensor(o).base;
  return tensor(o).requires_grad || (is_tensor(base) && tensor(base).requires_grad);
}

PyObject* rule_of(PyOp& op) {
  if (!op.rule) {
    const py::handle f(op.function);
    const std::string name = f.attr("__name__").cast<std::string>() + "_grad";
    py::object rule = f.attr("__globals__").attr("get")(name);
    op.rule = rule.release().ptr();
  }
  return op.rule;
}

PyObject* tensor_or_none(PyObject* o, bool keep) { return Py_NewRef(keep && is_tensor(o) ? o : Py_None); }

bool put_elementwise_on_tape(PyOp& op, PyObject* out, PyObject* const* args, int n) {
  PyObject *saved, *attrs = nullptr;
  if (op.saves == Saves::kNothing) saved = PyTuple_New(0);
  else if (op.saves == Saves::kOutput) saved = PyTuple_Pack(1, tensor(out).array);
  else if (n == 1) saved = PyTuple_Pack(1, args[0]);
  else {
    const bool others = op.saves == Saves::kOthers, divisor = op.saves == Saves::kDivisor;
    saved = Py_BuildValue("(NN)", tensor_or_none(args[0], !(others || divisor) || needs_gradient(args[1])),
                          tensor_or_none(args[1], !others || needs_gradient(args[0])));
    attrs = Py_BuildValue("(OO)", is_tensor(args[0]) ? Py_None : args[0], is_tensor(args[1]) ? Py_None : args[1]);
  }
  if (!attrs) attrs = PyTuple_New(0);
  const bool done = saved && attrs && put_on_tape(out, rule_of(op), args, n, saved, attrs);
  Py_XDECREF(saved);
  Py_XDECREF(attrs);
  return done;
}

// Whether the kernel can have the operands as they are.
bool direct(const PyOp& op, PyObject* const* args, int n, Value* x) {
  bool any = false;
  for (int i = 0; i < n; ++i) {
    PyObject* o = args[i];
    if (is_tensor(o)) {
      PyObject* a = tensor(o).array;
      if (!a || !is_array(a) || !is_float(unwrap(a).dtype())) return false;
      x[i].array = &unwrap(a);
      any = true;
    } else if (n > 1 && op.numbers && PyFloat_CheckExact(o)) {
      x[i].kind = Value::kFloat;
      x[i].f = PyFloat_AS_DOUBLE(o);
      x[i].i = x[i].f >= -9.2e18 && x[i].f <= 9.2e18 ? static_cast<int64_t>(x[i].f) : 0;
    } else {
      return false;
    }
  }
  return any;
}

// An AttributeError about an argument means that it stands in a Tensor's place.
void name_culprit(const PyOp& op, PyObject* const* args, Py_ssize_t n) {
  if (!PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_AttributeError)) return;
  py::error_already_set error;
  const py::object culprit = py::getattr(error.value(), "obj", py::none());
  bool given = false;
  for (Py_ssize_t i = 0; i < n; ++i) given |= args[i] == culprit.ptr();
  if (!given || is_tensor(culprit.ptr())) return error.restore();
  PyErr_Format(PyExc_TypeError, "%U: expects a Tensor, got %s",
               py::handle(op.function).attr("__name__").cast<py::str>().ptr(), Py_TYPE(culprit.ptr())->tp_name);
}

// Whether the one keyword is an `out` to write into, with nothing to record.
bool only_out(PyObject* names, PyObject* const* args, Py_ssize_t n) {
  if (PyTuple_GET_SIZE(names) != 1 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out") != 0)
    return false;
  PyObject* a = is_tensor(args[n]) ? tensor(args[n]).array : nullptr;
  const int must = a && is_array(a) && unwrap(a).numel() > 0 ? must_record(args, n + 1) : 1;
  if (must < 0) PyErr_Clear();  // the Python function will meet it again
  return must == 0;
}

PyObject* op_call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* names) {
  PyOp& op = op_of(self);
  const Py_ssize_t n = PyVectorcall_NARGS(nargsf);
  Value x[3];
  if (op.row && n == op.row->inputs && (!names || only_out(names, args, n)) &&
      direct(op, args, static_cast<int>(n), x)) {
    return guarded([&]() -> PyObject* {
      if (names) {
        elementwise(op.row->op, x, static_cast<int>(n), &unwrap(tensor(args[n]).array));
        return Py_NewRef(args[n]);
      }
      PyObject* out = wrap_tensor(wrap(elementwise(op.row->op, x, static_cast<int>(n), nullptr)));
      const int must = out && op.rule != Py_None ? must_record(args, n) : 0;
      if (must < 0 || (must && !put_elementwise_on_tape(op, out, args, static_cast<int>(n)))) Py_CLEAR(out);
      return out;
    });
  }
  PyObject* result = PyObject_Vectorcall(op.function, args, nargsf, names);
  if (!result) {
    guarded([&]() -> PyObject* {
      name_culprit(op, args, n + (names ? PyTuple_GET_SIZE(names) : 0));
      return nullptr;
    });
  }
  return result;
}

// Op(function, kernel=None, saves="", numbers=True)
PyObject* op_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* function;
  const char *kernel = nullptr, *saves = "";
  int numbers = 1;
  if (!PyArg_ParseTuple(args, "O|zsp", &function, &kernel, &saves, &numbers)) return nullptr;
  static const std::pair<std::string_view, Saves> kinds[] = {{"", Saves::kNothing},      {"none", Saves::kNothing},
                                                             {"inputs", Saves::kInputs}, {"output", Saves::kOutput},
                                                             {"others", Saves::kOthers}, {"divisor", Saves::kDivisor}};
  const ElementwiseRow* row = kernel ? elementwise_row(kernel) : nullptr;
  const auto* kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return k.first == saves; });
  if ((kernel && !row) || kind == std::end(kinds)) {
    return PyErr_Format(PyExc_ValueError, "Op: no such kernel or way to save, got %s and '%s'", kernel, saves);
  }
  PyObject* o = type->tp_alloc(type, 0);
  if (!o) return nullptr;
  PyOp& op = op_of(o);
  op.call = op_call;
  op.function = Py_NewRef(function);
  op.row = row;
  op.saves = kind->second;
  op.numbers = numbers;
  if (kind->first == "none") op.rule = Py_NewRef(Py_None);
  return o;
}

void op_dealloc(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  Py_XDECREF(op_of(o).function);
  Py_XDECREF(op_of(o).rule);
  Py_XDECREF(op_of(o).dict);
  type->tp_free(o);
  Py_DECREF(type);
}
PyObject* op_get(PyObject* self, PyObject* object, PyObject*) {
  return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}
PyObject* op_repr(PyObject* o) { return PyUnicode_FromFormat("<op %R>", op_of(o).function); }
// A string: pickled by name, as functions are, and copied as itself.
PyObject* op_reduce(PyObject* o, PyObject*) { return PyObject_GetAttrString(o, "__qualname__"); }

PyMemberDef op_members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(PyOp, call), READONLY, nullptr},
                            {"__dictoffset__", T_PYSSIZET, offsetof(PyOp, dict), READONLY, nullptr},
                            {nullptr, 0, 0, 0, nullptr}};
PyGetSetDef op_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                           {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyMethodDef op_methods[] = {{"__reduce__", op_reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyType_Slot op_slots[] = {{Py_tp_new, reinterpret_cast<void*>(op_new)},
                          {Py_tp_dealloc, reinterpret_cast<void*>(op_dealloc)},
                          {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                          {Py_tp_descr_get, reinterpret_cast<void*>(op_get)},
                          {Py_tp_repr, reinterpret_cast<void*>(op_repr)},
                          {Py_tp_members, op_members},
                          {Py_tp_getset, op_getset},
                          {Py_tp_methods, op_methods},
                          {0, nullptr}};
PyType_Spec op_spec = {"tilewright._engine.Op", sizeof(PyOp), 0,
                       Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, op_slots};

// --- the engine's own elementwise functions: name(x..., p0=0, p1=0), and name_out(x..., out, p0=0, p1=0) --
PyObject* call_elementwise(const ElementwiseRow& row, bool into, PyObject* const* args, Py_ssize_t n) {
  const int inputs = row.inputs, first_parameter = inputs + into;
  TW_CHECK_TYPE(n >= first_parameter && n <= first_parameter + 2, row.op.slot.name, ": takes ", inputs, " operands",
                into ? ", an output" : "", " and up to 2 parameters, got ", n, " arguments");
  Value x[3];
  for (int i = 0; i < inputs; ++i) {
    py::detail::type_caster<Value> caster;
    TW_CHECK_TYPE(caster.load(args[i], true), row.op.slot.name, ": expects an array or a number, got ",
                  Py_TYPE(args[i])->tp_name);
    x[i] = static_cast<Value&>(caster);
  }
  TW_CHECK_TYPE(!into || is_array(args[inputs]), row.op.slot.name, ": the output must be an array, got ",
                Py_TYPE(args[into ? inputs : 0])->tp_name);
  double p[2] = {0, 0};
  for (Py_ssize_t i = first_parameter; i < n; ++i) {
    p[i - first_parameter] = PyFloat_AsDouble(args[i]);
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return wrap(elementwise(row.op, x, inputs, into ? &unwrap(args[inputs]) : nullptr, p[0], p[1]));
}
template <bool kInto> PyObject* elementwise_function(PyObject* self, PyObject* const* args, Py_ssize_t n) {
  const auto* row = static_cast<const ElementwiseRow*>(PyCapsule_GetPointer(self, nullptr));
  return guarded([&] { return call_elementwise(*row, kInto, args, n); });
}

void add_function(py::module_& m, const ElementwiseRow& row, const char* suffix, _PyCFunctionFast f) {
  // The module keeps its functions, and these their definitions, for as long as the process lives.
  auto* name = new std::string(std::string(row.op.slot.name) + suffix);
  auto* definition = new PyMethodDef{name->c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)),
                                     METH_FASTCALL, nullptr};
  const py::capsule self(static_cast<const void*>(&row));
  const auto made = py::reinterpret_steal<py::object>(PyCFunction_New(definition, self.ptr()));
  if (!made) throw py::error_already_set();
  m.attr(name->c_str()) = made;
}

}  // namespace

void bind_op(py::module_& m) {
  op_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&op_spec));
  if (!op_type) throw py::error_already_set();
  m.attr("Op") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(op_type));
  for (const ElementwiseRow& row : elementwise_rows()) {
    add_function(m, row, "", elementwise_function<false>);
    add_function(m, row, "_out", elementwise_function<true>);
  }
}

}  // namespace tw
