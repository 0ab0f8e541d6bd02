// What a Tensor and a Node of the tape hold, as plain CPython types, and the one function that records an op.
//
// Python subclasses both (tensor.py, autograd.py) and decides everything that is not done for every single op.
#pragma once
#include "bindings/bind.h"

namespace tw {

struct PyTensor {
  PyObject_HEAD
  PyObject* array;  // an _engine.Array
  PyObject* grad;   // a Tensor, or None
  PyObject* node;   // the op that made it, or None
  PyObject* base;   // of a view: the Tensor whose memory it shares, or None
  PyObject* hooks;  // of a leaf: a dict, or None
  PyObject* dict;   // a user's own attributes
  PyObject* weakrefs;
  Py_ssize_t slot;        // which of the node's results it is
  uint32_t view_version;  // of a view: the storage's version when its history was last taken from the base
  char requires_grad;
};
extern PyTypeObject* tensor_base;
inline bool is_tensor(PyObject* o) { return Py_TYPE(o) == tensor_base || PyType_IsSubtype(Py_TYPE(o), tensor_base); }
inline PyTensor& tensor(PyObject* o) { return *reinterpret_cast<PyTensor*>(o); }

bool gradients_on();  // whether ops are recorded in this thread

// A Tensor over an engine array, with no history. Takes the reference; null passes through.
PyObject* wrap_tensor(PyObject* array);

// 1 if an op with these inputs goes on the tape, 0 if not, -1 with an exception set. Views are brought up to date.
int must_record(PyObject* const* inputs, Py_ssize_t n);

// Puts an op on the tape, as what made `out`; false with an exception set.
bool put_on_tape(PyObject* out, PyObject* rule, PyObject* const* inputs, Py_ssize_t n, PyObject* saved, PyObject* attrs);

}  // namespace tw
