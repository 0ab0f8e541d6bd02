// The capsule that _kernels takes its kernels from (table_api.h).
#include "bindings/table_api.h"

#include "bindings/tape.h"
#include "ops/common.h"

namespace tw {
namespace {

const KernelTable* table_or_null(Device device) {
  try {
    return &table(device);
  } catch (...) { return nullptr; }
}

bool view(void* object, ArrayView* v) {
  auto* o = static_cast<PyObject*>(object);
  const bool tracked = is_tensor(o) && tensor(o).requires_grad;
  if (is_tensor(o)) o = tensor(o).array;
  if (!o || !is_array(o)) return false;
  const Array& a = unwrap(o);
  *v = {o,
        static_cast<char*>(a.storage()->data) + a.offset() * static_cast<int64_t>(itemsize(a.dtype())),
        &a.shape(),
        &a.strides(),
        a.numel(),
        a.dtype(),
        a.device(),
        a.storage()->readonly,
        a.is_contiguous(),
        tracked};
  return true;
}

void record(const char* name, void (*call)(void (*kernel)(), const void* args), void (*kernel)(), const void* args,
            size_t bytes) {
  recording_plan->add(name, call, kernel, args, bytes);
}

void keep(void* owner, void (*release)(void* owner)) {
  recording_plan->keep(StorageRef::adopt(Storage::borrow(nullptr, 0, {}, owner, release, false)));
}

constexpr TableApi kApi = {sizeof(KernelTable),
                           table_or_null,
                           simplify,
                           view,
                           [](void* object) { unwrap(static_cast<PyObject*>(object)).bump_version(); },
                           [] { return recording(); },
                           record,
                           keep};

}  // namespace

void bind_table_api(py::module_& m) { m.attr("_table_api") = py::capsule(&kApi, kTableApi); }

}  // namespace tw
