// What _engine lends to _kernels through a capsule: one set of kernels, one thread pool, one plan being recorded.
//
// The two modules are built together but linked apart, each with a C++ runtime of its own; so plain functions that do
// not throw pass between them, and no C++ object that one makes and the other frees.
#pragma once
#include "dispatch.h"

namespace tw {

struct ArrayView {  // of an _engine.Array or a Tensor; the shapes stay inside it
  void* object;     // the _engine.Array
  void* data;
  const Dims *shape, *strides;
  int64_t numel;
  DType dtype;
  Device device;
  bool readonly, contiguous, requires_grad;
};

struct TableApi {
  uint64_t table_bytes;                                     // sizeof(KernelTable): both sides know the same slots
  const KernelTable* (*table)(Device device);               // null: none for that device
  void (*simplify)(ElementwiseArgs* a, const Dims& shape);  // an elementwise launch over `shape`, in its plainest form
  bool (*view)(void* object, ArrayView* view);              // false: the Python object is neither
  void (*written)(void* object);                            // raises an _engine.Array's version
  bool (*recording)();                                      // a plan, by this thread
  void (*record)(const char* name, void (*call)(void (*kernel)(), const void* args), void (*kernel)(), const void* args,
                 size_t bytes);
  void (*keep)(void* owner, void (*release)(void* owner));  // until the plan being recorded goes
};
constexpr const char* kTableApi = "tilewright._engine.table_api_1";  // raised with every change of these structs

}  // namespace tw
