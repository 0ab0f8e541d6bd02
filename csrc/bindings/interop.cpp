// Other people's arrays, in and out, without a copy: the buffer protocol (NumPy) and DLPack.
//
// The DLPack structs below follow the layout of its specification (dmlc/dlpack, ABI version 1.1).
#include "bindings/bind.h"
#include "tensor/cuda.h"

namespace tw {

// --- DLPack's ABI --
struct DLDevice {
  int32_t device_type;
  int32_t device_id;
};
struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null for contiguous
  uint64_t byte_offset;
};
namespace {

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  struct {
    uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;  // bit 0: read-only
  DLTensor dl_tensor;
};
constexpr int32_t kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3;
constexpr uint8_t kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6;
constexpr uint64_t kReadOnly = 1;

constexpr DLDataType kDLTypes[kNumDTypes] = {{kDLBool, 8, 1},   {kDLUInt, 8, 1},  {kDLInt, 8, 1},    {kDLInt, 16, 1},
                                             {kDLInt, 32, 1},   {kDLInt, 64, 1},  {kDLFloat, 16, 1}, {kDLBfloat, 16, 1},
                                             {kDLFloat, 32, 1}, {kDLFloat, 64, 1}};

template <class Managed> struct Export {
  Managed managed{};
  Array array;  // holds the storage until the consumer calls the deleter
  int64_t shape[kMaxDims], strides[kMaxDims];
};

template <class Managed> Managed* export_array(const Array& a) {
  auto* e = new Export<Managed>;
  e->array = a;
  for (int i = 0; i < a.ndim(); ++i) {
    e->shape[i] = a.size(i);
    e->strides[i] = a.strides()[i];
  }
  const DLDevice device =
      a.device().type == DeviceType::kCpu ? DLDevice{kDLCPU, 0} : DLDevice{kDLCUDA, a.device().index};
  e->managed.dl_tensor = {a.raw(), device, a.ndim(), kDLTypes[static_cast<int>(a.dtype())], e->shape, e->strides, 0};
  e->managed.manager_ctx = e;
  e->managed.deleter = [](Managed* m) { delete static_cast<Export<Managed>*>(m->manager_ctx); };
  return &e->managed;
}

constexpr const char* kName = "dltensor";
constexpr const char* kNameVersioned = "dltensor_versioned";

// A capsule that nobody consumed frees what it holds; a consumed one has been renamed.
template <class Managed> void free_unconsumed(PyObject* capsule) {
  const char* n = std::is_same_v<Managed, DLManagedTensor> ? kName : kNameVersioned;
  if (!PyCapsule_IsValid(capsule, n)) return;
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, n));
  if (m->deleter) m->deleter(m);
}

py::object to_dlpack(const Array& a, bool versioned) {
  PyObject* capsule;
  if (versioned) {
    auto* m = export_array<DLManagedTensorVersioned>(a);
    m->version = {1, 1};
    m->flags = a.storage()->readonly ? kReadOnly : 0;
    capsule = PyCapsule_New(m, kNameVersioned, &free_unconsumed<DLManagedTensorVersioned>);
  } else {
    TW_CHECK_AS(std::runtime_error, !a.storage()->readonly,
                "__dlpack__: a read-only array needs a consumer that knows DLPack 1.0");
    capsule = PyCapsule_New(export_array<DLManagedTensor>(a), kName, &free_unconsumed<DLManagedTensor>);
  }
  if (!capsule) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

Array import_tensor(const char* op, const char* what, const DLTensor& t, void* owner, void (*release)(void*),
                    bool readonly) {
  const bool gpu = t.device.device_type == kDLCUDA && t.device.device_id < cuda::device_count();
  TW_CHECK_AS(std::runtime_error, gpu || t.device.device_type == kDLCPU || t.device.device_type == kDLCUDAHost, op,
              ": ", what, " must be on cpu, got ", t.device.device_type == kDLCUDA ? "cuda" : "another device");
  const Device device = gpu ? Device{DeviceType::kCuda, static_cast<int8_t>(t.device.device_id)} : Device{};
  TW_CHECK(t.ndim >= 0 && t.ndim <= kMaxDims, op, ": ", what, " must have at most ", kMaxDims, " dimensions, got ",
           t.ndim);
  int found = -1;
  for (int i = 0; i < kNumDTypes; ++i)
    if (kDLTypes[i].code == t.dtype.code && kDLTypes[i].bits == t.dtype.bits && t.dtype.lanes == 1) found = i;
  TW_CHECK_TYPE(found >= 0, op, ": ", what, " has a dtype that no kernel takes, got code ", int{t.dtype.code}, " with ",
                int{t.dtype.bits}, " bits and ", t.dtype.lanes, " lanes");
  const Dims shape(t.shape, t.ndim);
  const int64_t n = checked_numel(op, shape);
  const Dims strides = t.strides ? Dims(t.strides, t.ndim) : contiguous_strides(shape);
  for (int i = 0; i < t.ndim; ++i)
    TW_CHECK(strides[i] >= 0 || shape[i] <= 1, op, ": ", what, "'s strides must not be negative, got ",
             str_of(strides));
  const auto dtype = static_cast<DType>(found);
  char* data = static_cast<char*>(t.data) + t.byte_offset;
  return Array(StorageRef::adopt(
                   Storage::borrow(data, static_cast<size_t>(n) * itemsize(dtype), device, owner, release, readonly)),
               dtype, shape, strides, 0);
}

namespace {

template <class Managed> Array consume(PyObject* capsule, const char* n, const char* used, bool readonly) {
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, n));
  // Ownership passes only once the array stands: after a refusal the capsule still frees itself.
  Array a = import_tensor(
      "from_dlpack", "the array", m->dl_tensor, m,
      [](void* p) {
        auto* t = static_cast<Managed*>(p);
        if (!t->deleter) return;
        // NumPy's deleter, for one, needs the interpreter lock; the last view may go on any thread.
        PyGILState_STATE gil = PyGILState_Ensure();
        t->deleter(t);
        PyGILState_Release(gil);
      },
      readonly);
  PyCapsule_SetName(capsule, used);
  return a;
}

Array from_dlpack(const py::object& capsule) {
  PyObject* c = capsule.ptr();
  if (PyCapsule_IsValid(c, kNameVersioned)) {
    auto* m = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(c, kNameVersioned));
    TW_CHECK_AS(std::runtime_error, m->version.major == 1, "from_dlpack: version must be 1, got ", m->version.major);
    return consume<DLManagedTensorVersioned>(c, kNameVersioned, "used_dltensor_versioned", m->flags & kReadOnly);
  }
  TW_CHECK_TYPE(PyCapsule_IsValid(c, kName), "from_dlpack: expects an unused DLPack capsule");
  return consume<DLManagedTensor>(c, kName, "used_dltensor", false);
}

// --- the buffer protocol --
bool dtype_of_format(const char* f, Py_ssize_t size, DType* t) {
  if (*f == '@' || *f == '=' || *f == '<') ++f;
  if (!*f || f[1]) return false;
  switch (*f) {
    case '?': *t = DType::kBool; return true;
    case 'e': *t = DType::kFloat16; return true;
    case 'f': *t = DType::kFloat32; return true;
    case 'd': *t = DType::kFloat64; return size == 8;
    case 'B': *t = DType::kUInt8; return true;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
      *t = size == 1 ? DType::kInt8 : size == 2 ? DType::kInt16 : size == 4 ? DType::kInt32 : DType::kInt64;
      return true;
    default: return false;
  }
}

void release_buffer(void* p) {
  auto* view = static_cast<Py_buffer*>(p);
  PyGILState_STATE gil = PyGILState_Ensure();
  PyBuffer_Release(view);
  PyGILState_Release(gil);
  delete view;
}

// A view of any object with the buffer protocol. Geometry that strides of whole elements cannot express (and negative
// strides, which no kernel takes) is refused; the caller copies first.
Array from_buffer(const py::object& o) {
  auto* view = new Py_buffer;
  if (PyObject_GetBuffer(o.ptr(), view, PyBUF_RECORDS_RO) != 0) {
    delete view;
    throw py::error_already_set();
  }
  struct Guard {
    Py_buffer* v;
    ~Guard() {
      if (v) release_buffer(v);
    }
  } guard{view};
  DType dtype;
  TW_CHECK_TYPE(view->format && dtype_of_format(view->format, view->itemsize, &dtype),
                "from_numpy: no such dtype here, got format '", view->format ? view->format : "", "'");
  TW_CHECK(view->ndim <= kMaxDims, "from_numpy: at most ", kMaxDims, " dimensions, got ", view->ndim);
  Dims shape, strides;
  for (int i = 0; i < view->ndim; ++i) {
    shape.push(view->shape[i]);
    TW_CHECK(view->shape[i] <= 1 || (view->strides[i] >= 0 && view->strides[i] % view->itemsize == 0),
             "from_numpy: strides must be non-negative whole elements, got a stride of ", view->strides[i],
             " bytes; copy the array first (numpy.ascontiguousarray)");
    strides.push(view->shape[i] <= 1 ? 1 : view->strides[i] / view->itemsize);
  }
  TW_CHECK(reinterpret_cast<uintptr_t>(view->buf) % static_cast<uintptr_t>(view->itemsize) == 0,
           "from_numpy: the memory must be aligned to its item size; copy the array first (numpy.ascontiguousarray)");
  checked_numel("from_numpy", shape);
  const bool readonly = view->readonly;
  guard.v = nullptr;
  return Array(
      StorageRef::adopt(Storage::borrow(view->buf, static_cast<size_t>(view->len), {}, view, release_buffer, readonly)),
      dtype, shape, strides, 0);
}

}  // namespace

void bind_interop(py::module_& m) {
  m.def("to_dlpack", &to_dlpack);
  m.def("from_dlpack", &from_dlpack);
  m.def("from_buffer", &from_buffer);
}

}  // namespace tw
