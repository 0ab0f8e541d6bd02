#include "bindings/tape.h"

#include <structmember.h>

#include <atomic>
#include <memory>

namespace tw {

PyTypeObject* tensor_base = nullptr;

namespace {

thread_local bool grad_mode = true;
// The Python classes over the two bases, and inplace.refresh_view; set once by autograd.py.
PyTypeObject* tensor_class = nullptr;
PyTypeObject* node_class = nullptr;
PyObject* refresh_view = nullptr;
PyTypeObject* node_base = nullptr;
PyObject* empty_tuple = nullptr;
PyObject* on_record = nullptr;  // called with each new node and its results while autograd.detect_anomaly is on

// Result of an op: what its gradient must have.
struct Spec {
  Dims shape;
  DType dtype;
};
struct Saved {
  uint32_t version;  // of the storage when it was saved
  int32_t own;       // which of the op's own results it is, or -1
};

// Room for the first `kInline` without an allocation of its own.
template <class T, int kInline> struct Few {
  T inline_[kInline];
  std::unique_ptr<T[]> more;
  Py_ssize_t n = 0;
  void resize(Py_ssize_t count) {
    if (count > kInline) more = std::make_unique<T[]>(static_cast<size_t>(count));
    n = count;
  }
  T& operator[](Py_ssize_t i) { return more ? more[i] : inline_[i]; }
};

struct PyNode {
  PyObject_HEAD PyObject* rule;
  PyObject* edges;  // an input each: (node, slot) of the op that made it, (leaf, -1), or None
  PyObject* attrs;
  PyObject* needs;  // an input each: whether the walk under way wants its gradient
  PyObject* hooks;
  PyObject* saved;  // a tuple of Tensors, Arrays and None; None once freed
  PyObject* weakrefs;
  long long sequence;
  char foreign;  // whether the rule is a user's, who may keep the gradients that it returns
  Few<Spec, 1> outputs;
  Few<Saved, 4> marks;
};
PyNode& node(PyObject* o) { return *reinterpret_cast<PyNode*>(o); }

template <class F> void each_field(PyTensor& t, F f) {
  f(t.array), f(t.grad), f(t.node), f(t.base), f(t.hooks), f(t.dict);
}
template <class F> void each_field(PyNode& t, F f) {
  f(t.rule), f(t.edges), f(t.attrs), f(t.needs), f(t.hooks), f(t.saved);
}

template <class T> int traverse(PyObject* o, visitproc visit, void* arg) {
  int result = 0;
  each_field(*reinterpret_cast<T*>(o), [&](PyObject* p) {
    if (p && !result) result = visit(p, arg);
  });
  return result ? result : visit(reinterpret_cast<PyObject*>(Py_TYPE(o)), arg);
}
template <class T> int clear(PyObject* o) {
  each_field(*reinterpret_cast<T*>(o), [](PyObject*& p) { Py_CLEAR(p); });
  return 0;
}
template <class T> void dealloc(PyObject* o) {
  PyObject_GC_UnTrack(o);
  T& t = *reinterpret_cast<T*>(o);
  if (t.weakrefs) PyObject_ClearWeakRefs(o);
  clear<T>(o);
  if constexpr (std::is_same_v<T, PyNode>) t.outputs.more.reset(), t.marks.more.reset();
  PyTypeObject* type = Py_TYPE(o);
  type->tp_free(o);
  Py_DECREF(type);
}

// --- Tensor --
PyObject* tensor_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* o = type->tp_alloc(type, 0);
  if (!o) return nullptr;
  PyTensor& t = tensor(o);
  t.grad = t.node = t.base = t.hooks = Py_None;
  for (int i = 0; i < 4; ++i) Py_INCREF(Py_None);
  return o;
}

const Array* array_of(PyObject* o) {
  PyObject* a = tensor(o).array;
  if (a && is_array(a)) return &unwrap(a);
  PyErr_SetString(PyExc_AttributeError, "array: the tensor has not been initialised");
  return nullptr;
}

// Size: a shape as users have it, a tuple with numel(); its slices and sums are Sizes too.
PyTypeObject* size_type;
PyObject* as_size(PyObject* made) {  // of a new tuple
  if (!made || !PyTuple_CheckExact(made)) return made;
  PyObject* s = PyObject_CallOneArg(reinterpret_cast<PyObject*>(size_type), made);
  Py_DECREF(made);
  return s;
}
PyObject* size_subscript(PyObject* o, PyObject* key) {
  return as_size(PyTuple_Type.tp_as_mapping->mp_subscript(o, key));
}
PyObject* size_concat(PyObject* o, PyObject* other) {
  return as_size(PyTuple_Type.tp_as_sequence->sq_concat(o, other));
}
PyObject* size_numel(PyObject* o, PyObject*) {
  long long n = 1;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) n *= PyLong_AsLongLong(PyTuple_GET_ITEM(o, i));
  return PyErr_Occurred() ? nullptr : PyLong_FromLongLong(n);
}
PyMethodDef size_methods[] = {{"numel", size_numel, METH_NOARGS, "numel()\n--\n\nThe product of the sizes."},
                              {nullptr, nullptr, 0, nullptr}};
PyType_Slot size_slots[] = {{Py_mp_subscript, reinterpret_cast<void*>(size_subscript)},
                            {Py_sq_concat, reinterpret_cast<void*>(size_concat)},
                            {Py_tp_methods, size_methods},
                            {Py_tp_doc, const_cast<char*>("A shape: a tuple of sizes with `numel()`.")},
                            {0, nullptr}};
PyType_Spec size_spec = {"tilewright.Size", 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, size_slots};

PyObject* tensor_shape(PyObject* o, void*) {
  const Array* a = array_of(o);
  if (!a) return nullptr;
  const Dims& d = a->shape();
  PyObject* s = size_type->tp_alloc(size_type, d.n);
  if (s)
    for (int i = 0; i < d.n; ++i) PyTuple_SET_ITEM(s, i, PyLong_FromLongLong(d[i]));
  return s;
}
PyObject* tensor_dtype(PyObject* o, void*) {
  const Array* a = array_of(o);
  return a ? dtype_object(a->dtype()) : nullptr;
}
PyObject* tensor_ndim(PyObject* o, void*) {
  const Array* a = array_of(o);
  return a ? PyLong_FromLong(a->ndim()) : nullptr;
}

PyMemberDef tensor_members[] = {{"array", T_OBJECT_EX, offsetof(PyTensor, array), 0, nullptr},
                                {"grad", T_OBJECT_EX, offsetof(PyTensor, grad), 0, nullptr},
                                {"node", T_OBJECT_EX, offsetof(PyTensor, node), 0, nullptr},
                                {"_base", T_OBJECT_EX, offsetof(PyTensor, base), 0, nullptr},
                                {"_hooks", T_OBJECT_EX, offsetof(PyTensor, hooks), 0, nullptr},
                                {"slot", T_PYSSIZET, offsetof(PyTensor, slot), 0, nullptr},
                                {"_view_version", T_UINT, offsetof(PyTensor, view_version), 0, nullptr},
                                {"requires_grad", T_BOOL, offsetof(PyTensor, requires_grad), 0, nullptr},
                                {"__dictoffset__", T_PYSSIZET, offsetof(PyTensor, dict), READONLY, nullptr},
                                {"__weaklistoffset__", T_PYSSIZET, offsetof(PyTensor, weakrefs), READONLY, nullptr},
                                {nullptr, 0, 0, 0, nullptr}};
PyGetSetDef tensor_getset[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                               {"shape", tensor_shape, nullptr, "sizes, a Size", nullptr},
                               {"dtype", tensor_dtype, nullptr, nullptr, nullptr},
                               {"ndim", tensor_ndim, nullptr, nullptr, nullptr},
                               {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot tensor_slots[] = {{Py_tp_new, reinterpret_cast<void*>(tensor_new)},
                              {Py_tp_dealloc, reinterpret_cast<void*>(dealloc<PyTensor>)},
                              {Py_tp_traverse, reinterpret_cast<void*>(traverse<PyTensor>)},
                              {Py_tp_clear, reinterpret_cast<void*>(clear<PyTensor>)},
                              {Py_tp_members, tensor_members},
                              {Py_tp_getset, tensor_getset},
                              {0, nullptr}};
PyType_Spec tensor_spec = {"tilewright._engine.TensorBase", sizeof(PyTensor), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, tensor_slots};

// --- Node --
// Fills a fresh node; `outputs` are Arrays.
bool fill_node(PyNode& t, PyObject* rule, PyObject* const* inputs, Py_ssize_t n, PyObject* saved, PyObject* attrs,
               PyObject* const* outputs, Py_ssize_t num_outputs) {
  static std::atomic<long long> count{0};
  t.sequence = count.fetch_add(1, std::memory_order_relaxed);
  t.rule = Py_NewRef(rule);
  t.attrs = Py_NewRef(attrs);
  if (!(t.edges = PyList_New(n)) || !(t.needs = PyTuple_New(n))) return false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* edge = Py_NewRef(Py_None);
    const bool wanted = is_tensor(inputs[i]) && tensor(inputs[i]).requires_grad;
    if (wanted) {
      const PyTensor& x = tensor(inputs[i]);
      const bool leaf = x.node == Py_None;
      Py_DECREF(edge);
      edge = PyTuple_New(2);
      if (!edge) return false;
      PyTuple_SET_ITEM(edge, 0, Py_NewRef(leaf ? inputs[i] : x.node));
      PyTuple_SET_ITEM(edge, 1, PyLong_FromSsize_t(leaf ? -1 : x.slot));
    }
    PyList_SET_ITEM(t.edges, i, edge);
    PyTuple_SET_ITEM(t.needs, i, PyBool_FromLong(wanted));
  }
  if (!(t.saved = PySequence_Tuple(saved))) return false;
  t.marks.resize(PyTuple_GET_SIZE(t.saved));
  for (Py_ssize_t i = 0; i < t.marks.n; ++i) {
    PyObject* s = PyTuple_GET_ITEM(t.saved, i);
    t.marks[i] = {0, -1};
    if (s == Py_None) continue;
    PyObject* a = is_tensor(s) ? tensor(s).array : s;
    if (!a || !is_array(a)) {
      PyErr_Format(PyExc_TypeError, "Node: saved values are Tensors, arrays or None, got %s", Py_TYPE(s)->tp_name);
      return false;
    }
    t.marks[i].version = unwrap(a).version();
  }
  t.outputs.resize(num_outputs);
  for (Py_ssize_t i = 0; i < num_outputs; ++i) t.outputs[i] = {unwrap(outputs[i]).shape(), unwrap(outputs[i]).dtype()};
  if (!on_record) return true;
  const auto results = py::reinterpret_steal<py::object>(PyTuple_New(num_outputs));
  if (!results) return false;
  for (Py_ssize_t i = 0; i < num_outputs; ++i) PyTuple_SET_ITEM(results.ptr(), i, Py_NewRef(outputs[i]));
  const auto told = py::reinterpret_steal<py::object>(
      PyObject_CallFunctionObjArgs(on_record, reinterpret_cast<PyObject*>(&t), results.ptr(), nullptr));
  return static_cast<bool>(told);
}

PyObject* node_alloc(PyTypeObject* type) {
  PyObject* o = type->tp_alloc(type, 0);
  if (!o) return nullptr;
  PyNode& t = node(o);
  new (&t.outputs) decltype(t.outputs);
  new (&t.marks) decltype(t.marks);
  t.hooks = Py_NewRef(Py_None);
  return o;
}

// Node(rule, inputs, saved, attrs, outputs)
PyObject* node_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *rule, *inputs, *saved, *attrs, *outputs;
  if (!PyArg_ParseTuple(args, "OOOOO", &rule, &inputs, &saved, &attrs, &outputs)) return nullptr;
  const auto in = py::reinterpret_steal<py::object>(PySequence_Tuple(inputs));
  const auto out = py::reinterpret_steal<py::object>(PySequence_Tuple(outputs));
  if (!in || !out) return nullptr;
  const Py_ssize_t num_outputs = PyTuple_GET_SIZE(out.ptr());
  for (Py_ssize_t i = 0; i < num_outputs; ++i) {
    if (is_array(PyTuple_GET_ITEM(out.ptr(), i))) continue;
    PyErr_SetString(PyExc_TypeError, "Node: outputs must be arrays");
    return nullptr;
  }
  PyObject* o = node_alloc(type);
  if (o && !fill_node(node(o), rule, &PyTuple_GET_ITEM(in.ptr(), 0), PyTuple_GET_SIZE(in.ptr()), saved, attrs,
                      &PyTuple_GET_ITEM(out.ptr(), 0), num_outputs)) {
    Py_CLEAR(o);
  }
  return o;
}

// The saved values as Tensors. Whatever is wrong with one is said by Node._refuse(position).
PyObject* node_saved(PyObject* o, void*) {
  PyNode& t = node(o);
  if (!t.saved || t.saved == Py_None) return PyObject_CallMethod(o, "_refuse", "i", -1);
  PyObject* values = PyList_New(t.marks.n);
  for (Py_ssize_t i = 0; values && i < t.marks.n; ++i) {
    PyObject* s = PyTuple_GET_ITEM(t.saved, i);
    PyObject* value = Py_NewRef(s);
    if (s != Py_None) {
      const bool bare = is_array(s);
      const Array& a = unwrap(bare ? s : tensor(s).array);
      if (a.version() != t.marks[i].version) {
        Py_DECREF(value);
        Py_DECREF(values);
        return PyObject_CallMethod(o, "_refuse", "n", i);
      }
      if (bare) {
        value = wrap_tensor(value);
        if (value && grad_mode && t.marks[i].own >= 0) {
          PyTensor& own = tensor(value);
          own.requires_grad = 1;
          own.slot = t.marks[i].own;
          Py_SETREF(own.node, Py_NewRef(o));
        }
        if (!value) Py_CLEAR(values);
      }
    }
    if (values) PyList_SET_ITEM(values, i, value);
  }
  return values;
}

// mark_own(position, slot): a saved value is the op's own result, as it is now.
PyObject* node_mark_own(PyObject* o, PyObject* args) {
  PyNode& t = node(o);
  Py_ssize_t at, slot;
  if (!PyArg_ParseTuple(args, "nn", &at, &slot)) return nullptr;
  if (at < 0 || at >= t.marks.n || !is_array(PyTuple_GET_ITEM(t.saved, at))) {
    PyErr_SetString(PyExc_IndexError, "mark_own: no array was saved there");
    return nullptr;
  }
  t.marks[at] = {unwrap(PyTuple_GET_ITEM(t.saved, at)).version(), static_cast<int32_t>(slot)};
  Py_RETURN_NONE;
}

PyObject* node_outputs(PyObject* o, void*) {
  PyNode& t = node(o);
  PyObject* all = PyTuple_New(t.outputs.n);
  for (Py_ssize_t i = 0; all && i < t.outputs.n; ++i) {
    PyTuple_SET_ITEM(all, i, Py_BuildValue("(NN)", tuple_of(t.outputs[i].shape), dtype_object(t.outputs[i].dtype)));
  }
  return all;
}
PyObject* node_num_outputs(PyObject* o, void*) { return PyLong_FromSsize_t(node(o).outputs.n); }

// Newest first: what a heap of nodes gives out.
PyObject* node_compare(PyObject* a, PyObject* b, int op) {
  if (op != Py_LT || !PyType_IsSubtype(Py_TYPE(b), node_base)) Py_RETURN_NOTIMPLEMENTED;
  return PyBool_FromLong(node(a).sequence > node(b).sequence);
}
Py_hash_t node_hash(PyObject* o) { return static_cast<Py_hash_t>(reinterpret_cast<uintptr_t>(o) >> 4); }

PyMemberDef node_members[] = {{"rule", T_OBJECT_EX, offsetof(PyNode, rule), 0, nullptr},
                              {"edges", T_OBJECT_EX, offsetof(PyNode, edges), 0, nullptr},
                              {"attrs", T_OBJECT_EX, offsetof(PyNode, attrs), 0, nullptr},
                              {"needs", T_OBJECT_EX, offsetof(PyNode, needs), 0, nullptr},
                              {"hooks", T_OBJECT_EX, offsetof(PyNode, hooks), 0, nullptr},
                              {"_saved", T_OBJECT, offsetof(PyNode, saved), READONLY, nullptr},
                              {"foreign", T_BOOL, offsetof(PyNode, foreign), 0, nullptr},
                              {"sequence", T_LONGLONG, offsetof(PyNode, sequence), READONLY, nullptr},
                              {"__weaklistoffset__", T_PYSSIZET, offsetof(PyNode, weakrefs), READONLY, nullptr},
                              {nullptr, 0, 0, 0, nullptr}};
PyGetSetDef node_getset[] = {
    {"saved", node_saved, nullptr,
     "The saved values as Tensors, in the order they were saved; RuntimeError if one was changed in place.", nullptr},
    {"outputs", node_outputs, nullptr, "(shape, dtype) of each result", nullptr},
    {"num_outputs", node_num_outputs, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyObject* node_free_saved(PyObject* o, PyObject*) {
  Py_XSETREF(node(o).saved, Py_NewRef(Py_None));
  Py_RETURN_NONE;
}
PyMethodDef node_methods[] = {{"mark_own", node_mark_own, METH_VARARGS, nullptr},
                              {"free_saved", node_free_saved, METH_NOARGS, nullptr},
                              {nullptr, nullptr, 0, nullptr}};
PyType_Slot node_slots[] = {{Py_tp_new, reinterpret_cast<void*>(node_new)},
                            {Py_tp_dealloc, reinterpret_cast<void*>(dealloc<PyNode>)},
                            {Py_tp_traverse, reinterpret_cast<void*>(traverse<PyNode>)},
                            {Py_tp_clear, reinterpret_cast<void*>(clear<PyNode>)},
                            {Py_tp_richcompare, reinterpret_cast<void*>(node_compare)},
                            {Py_tp_hash, reinterpret_cast<void*>(node_hash)},
                            {Py_tp_members, node_members},
                            {Py_tp_getset, node_getset},
                            {Py_tp_methods, node_methods},
                            {0, nullptr}};
PyType_Spec node_spec = {"tilewright._engine.NodeBase", sizeof(PyNode), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, node_slots};

// --- the flag --
PyObject* mode_grad(PyObject*, void*) { return PyBool_FromLong(grad_mode); }
int mode_set_grad(PyObject*, PyObject* value, void*) {
  const int on = value ? PyObject_IsTrue(value) : -1;
  if (on >= 0) grad_mode = on;
  return on < 0 ? -1 : 0;
}
PyGetSetDef mode_getset[] = {{"grad", mode_grad, mode_set_grad, "whether this thread records ops", nullptr},
                             {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot mode_slots[] = {{Py_tp_getset, mode_getset}, {0, nullptr}};
PyType_Spec mode_spec = {"tilewright._engine.Mode", sizeof(PyObject), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, mode_slots};

// --- functions --
bool refuse_array(const char* function, PyObject* o) {
  PyErr_Format(PyExc_TypeError, "%s: expects an array, got %s", function, Py_TYPE(o)->tp_name);
  return false;
}

PyObject* py_wrap(PyObject*, PyObject* array) {
  if (!is_array(array)) return refuse_array("wrap", array), nullptr;
  return wrap_tensor(Py_NewRef(array));
}

// record(rule, array, inputs, saved=(), attrs=(), view_of=None)
PyObject* py_record(PyObject*, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  PyObject* v[6] = {nullptr, nullptr, nullptr, empty_tuple, empty_tuple, Py_None};
  static const char* const known[6] = {"rule", "array", "inputs", "saved", "attrs", "view_of"};
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  bool ok = n <= 6;
  for (Py_ssize_t i = 0; ok && i < n; ++i) v[i] = args[i];
  for (Py_ssize_t i = 0; ok && i < named; ++i) {
    int k = 3;
    while (k < 6 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), known[k]) != 0) ++k;
    ok = k < 6;
    if (ok) v[k] = args[n + i];
  }
  if (!ok || !v[2]) {
    PyErr_SetString(PyExc_TypeError, "record: takes (rule, array, inputs, saved=(), attrs=(), view_of=None)");
    return nullptr;
  }
  if (!is_array(v[1])) return refuse_array("record", v[1]), nullptr;
  PyObject* out = wrap_tensor(Py_NewRef(v[1]));
  if (!out) return nullptr;
  if (v[5] != Py_None) {
    PyObject* of = v[5];
    Py_SETREF(tensor(out).base, Py_NewRef(tensor(of).base == Py_None ? of : tensor(of).base));
    tensor(out).view_version = unwrap(v[1]).version();
  }
  const auto inputs = py::reinterpret_steal<py::object>(PySequence_Fast(v[2], "record: inputs must be a sequence"));
  if (!inputs) return Py_DECREF(out), nullptr;
  PyObject* const* in = PySequence_Fast_ITEMS(inputs.ptr());
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(inputs.ptr());
  const int must = must_record(in, count);
  if (must < 0 || (must && is_float(unwrap(v[1]).dtype()) && !put_on_tape(out, v[0], in, count, v[3], v[4]))) {
    Py_CLEAR(out);
  }
  return out;
}

// fits(gradient, edge): whether a gradient has the shape and dtype of what the edge leads to.
PyObject* py_fits(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (n != 2 || !is_tensor(args[0]) || !is_array(tensor(args[0]).array) || !PyTuple_Check(args[1])) {
    PyErr_Format(PyExc_TypeError, "backward: a gradient must be a Tensor, got %s",
                 n ? Py_TYPE(args[0])->tp_name : "nothing");
    return nullptr;
  }
  const Array& g = unwrap(tensor(args[0]).array);
  PyObject* target = PyTuple_GET_ITEM(args[1], 0);
  const Py_ssize_t slot = PyLong_AsSsize_t(PyTuple_GET_ITEM(args[1], 1));
  if (slot < 0) {
    const Array& x = unwrap(tensor(target).array);
    return PyBool_FromLong(g.dtype() == x.dtype() && g.shape() == x.shape());
  }
  const Spec& s = node(target).outputs[slot];
  return PyBool_FromLong(g.dtype() == s.dtype && g.shape() == s.shape);
}

// set_tape(Tensor, Node, refresh_view)
PyObject* py_set_tape(PyObject*, PyObject* args) {
  PyObject *t, *n, *refresh;
  if (!PyArg_ParseTuple(args, "O!O!O", &PyType_Type, &t, &PyType_Type, &n, &refresh)) return nullptr;
  tensor_class = reinterpret_cast<PyTypeObject*>(Py_NewRef(t));
  node_class = reinterpret_cast<PyTypeObject*>(Py_NewRef(n));
  refresh_view = Py_NewRef(refresh);
  Py_RETURN_NONE;
}

// set_on_record(function or None)
PyObject* py_set_on_record(PyObject*, PyObject* function) {
  Py_XSETREF(on_record, function == Py_None ? nullptr : Py_NewRef(function));
  Py_RETURN_NONE;
}

PyMethodDef functions[] = {
    {"wrap", py_wrap, METH_O, "wrap(array)\n\nA Tensor over an engine array, with no history."},
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_record)), METH_FASTCALL | METH_KEYWORDS,
     nullptr},
    {"fits", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_fits)), METH_FASTCALL, nullptr},
    {"set_tape", py_set_tape, METH_VARARGS, nullptr},
    {"set_on_record", py_set_on_record, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool gradients_on() { return grad_mode; }

PyObject* wrap_tensor(PyObject* array) {
  if (!array) return nullptr;
  PyObject* o = tensor_new(tensor_class, nullptr, nullptr);
  if (o) tensor(o).array = array;
  else Py_DECREF(array);
  return o;
}

int must_record(PyObject* const* inputs, Py_ssize_t n) {
  bool maybe = false;
  for (Py_ssize_t i = 0; i < n && !maybe; ++i)
    maybe = is_tensor(inputs[i]) && (tensor(inputs[i]).requires_grad || tensor(inputs[i]).base != Py_None);
  if (!maybe || !grad_mode) return 0;
  bool needed = false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!is_tensor(inputs[i])) continue;
    const PyTensor& x = tensor(inputs[i]);
    // The base was changed in place, and may have come to need a gradient.
    if (x.base != Py_None && x.view_version != unwrap(x.array).version()) {
      PyObject* done = PyObject_CallOneArg(refresh_view, inputs[i]);
      if (!done) return -1;
      Py_DECREF(done);
    }
    needed |= x.requires_grad != 0;
  }
  return needed;
}

bool put_on_tape(PyObject* out, PyObject* rule, PyObject* const* inputs, Py_ssize_t n, PyObject* saved,
                 PyObject* attrs) {
  PyObject* o = node_alloc(node_class);
  if (!o) return false;
  PyTensor& y = tensor(out);
  PyNode& t = node(o);
  if (!fill_node(t, rule, inputs, n, saved, attrs, &y.array, 1)) return Py_DECREF(o), false;
  for (Py_ssize_t i = 0; i < t.marks.n; ++i)
    if (PyTuple_GET_ITEM(t.saved, i) == y.array) t.marks[i].own = 0;
  Py_SETREF(y.node, o);
  y.requires_grad = 1;
  return true;
}

void bind_tape(py::module_& m) {
  tensor_base = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&tensor_spec));
  node_base = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&node_spec));
  auto* tuple = reinterpret_cast<PyObject*>(&PyTuple_Type);
  size_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpecWithBases(&size_spec, tuple));
  auto* mode = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&mode_spec));
  empty_tuple = PyTuple_New(0);
  PyObject* the_mode = mode ? mode->tp_alloc(mode, 0) : nullptr;
  if (!tensor_base || !node_base || !size_type || !empty_tuple || !the_mode) throw py::error_already_set();
  m.attr("TensorBase") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(tensor_base));
  m.attr("Size") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(size_type));
  m.attr("NodeBase") = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(node_base));
  m.attr("mode") = py::reinterpret_steal<py::object>(the_mode);
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

}  // namespace tw
