// tilewright.cuda's engine side: devices, memory, streams and events, and copies between devices.
#include "tensor/cuda.h"

#include <cstring>

#include "bindings/bind.h"
#include "dispatch.h"
#include "ops/common.h"

namespace tw {

py::dict dict_of(const MemoryStats& s);  // engine.cpp

namespace {

Array pinned_empty(const char* op, const Array& like) {
  const auto bytes = static_cast<size_t>(like.numel()) * itemsize(like.dtype());
  void* data = cuda::allocate_pinned(bytes ? bytes : 1, op);
  Storage* s = Storage::borrow(data, bytes, {}, data, &cuda::release, false);
  s->pinned = true;
  return Array(StorageRef::adopt(s), like.dtype(), like.shape(), contiguous_strides(like.shape()), 0);
}

}  // namespace

Array to_device(const Array& a, Device device, bool non_blocking) {
  if (a.device() == device) return a;
  const Array from = contiguous(a);
  Array y = non_blocking && device.type == DeviceType::kCpu ? pinned_empty("to", a)
                                                            : Array::empty("to", a.shape(), a.dtype(), device);
  cuda::copy(y.raw(), device, from.raw(), a.device(), static_cast<size_t>(a.numel()) * itemsize(a.dtype()),
             non_blocking);
  return y;
}

namespace {

using cuda::backend;
using Handle = uintptr_t;  // of a stream or event, as Python keeps it
StreamHandle stream_of(Handle h) { return reinterpret_cast<StreamHandle>(h); }

void ensure(bool ok, const char* op) {
  if (ok) return;
  const char* text = backend().take_error();
  fail<std::runtime_error>(op, ": ", text ? text : "the CUDA call failed");
}

Array pin_memory(const Array& a) {
  TW_CHECK(a.device().type == DeviceType::kCpu,
           "pin_memory: only memory of the CPU can be pinned, got a tensor on cuda");
  Array y = pinned_empty("pin_memory", a);
  copy_into("pin_memory", y, a);
  return y;
}

py::dict properties(int device) {
  DeviceProperties p;
  ensure(backend().properties(device, &p), "get_device_properties");
  py::dict d;
  d["name"] = p.name;
  d["major"] = p.major;
  d["minor"] = p.minor;
  d["multi_processor_count"] = p.multi_processor_count;
  d["max_threads_per_multi_processor"] = p.max_threads_per_multi_processor;
  d["warp_size"] = p.warp_size;
  d["total_memory"] = p.total_memory;
  d["L2_cache_size"] = p.L2_cache_size;
  d["shared_memory_per_block_optin"] = p.shared_memory_per_block_optin;
  d["shared_memory_per_multiprocessor"] = p.shared_memory_per_multiprocessor;
  return d;
}

}  // namespace

void bind_cuda(py::module_& m) {
  py::register_exception<cuda::OutOfMemory>(m, "OutOfMemoryError", PyExc_RuntimeError);
  set_warning([](const std::string& text) {
    if (PyErr_WarnEx(PyExc_UserWarning, text.c_str(), 1) < 0) throw py::error_already_set();
  });
  m.def("cuda_folder", &cuda::set_backend_folder);
  m.def("cuda_available", [] { return cuda::device_count() > 0; });
  m.def("cuda_why_not", [] { return cuda::backend_or_null() ? std::string() : cuda::why_not(); });
  m.def("cuda_device_count", &cuda::device_count);
  m.def("cuda_current_device", &cuda::current_device);
  m.def("cuda_set_device", &cuda::set_device);
  m.def("cuda_properties", &properties);
  m.def("cuda_memory_info", [](int device) {
    int64_t free = 0, total = 0;
    ensure(backend().memory_info(device, &free, &total), "mem_get_info");
    return std::pair(free, total);
  });
  m.def("cuda_memory_stats", [](int device) { return dict_of(cuda::memory_stats(device)); });
  m.def("cuda_reset_peak", &cuda::reset_peak);
  m.def("cuda_empty_cache", [] {
    if (cuda::started()) cuda::empty_cache();
  });
  m.def("cuda_synchronize", &cuda::synchronize, py::call_guard<py::gil_scoped_release>());
  m.def("cuda_current_stream", [](int device) { return reinterpret_cast<Handle>(cuda::current_stream(device)); });
  m.def("cuda_set_stream", [](int device, Handle s) { cuda::set_current_stream(device, stream_of(s)); });
  m.def("cuda_stream_create", [](int device, int priority) {
    const cuda::DeviceGuard guard(device);
    StreamHandle s = nullptr;
    ensure(backend().stream_create(priority, &s), "Stream");
    return reinterpret_cast<Handle>(s);
  });
  m.def("cuda_stream_destroy", [](Handle s) { backend().stream_destroy(stream_of(s)); });
  m.def("cuda_stream_synchronize", [](Handle s) {
    ensure(backend().stream_synchronize(stream_of(s)), "Stream.synchronize");
    cuda::check("Stream.synchronize");
  });
  m.def("cuda_stream_query", [](Handle s) { return backend().stream_query(stream_of(s)); });
  m.def("cuda_stream_wait", [](Handle s, Handle e) {
    ensure(backend().stream_wait(stream_of(s), reinterpret_cast<EventHandle>(e)), "Stream.wait_event");
  });
  m.def("cuda_event_create", [](bool timing) {
    EventHandle e = nullptr;
    ensure(backend().event_create(timing, &e), "Event");
    return reinterpret_cast<Handle>(e);
  });
  m.def("cuda_event_destroy", [](Handle e) { backend().event_destroy(reinterpret_cast<EventHandle>(e)); });
  m.def("cuda_event_record", [](Handle e, Handle s) {
    ensure(backend().event_record(reinterpret_cast<EventHandle>(e), stream_of(s)), "Event.record");
  });
  m.def("cuda_event_query", [](Handle e) { return backend().event_query(reinterpret_cast<EventHandle>(e)); });
  m.def("cuda_event_synchronize",
        [](Handle e) { ensure(backend().event_synchronize(reinterpret_cast<EventHandle>(e)), "Event.synchronize"); });
  m.def("cuda_event_elapsed", [](Handle from, Handle to) {
    float ms = 0;
    ensure(backend().event_elapsed(reinterpret_cast<EventHandle>(from), reinterpret_cast<EventHandle>(to), &ms),
           "Event.elapsed_time");
    return ms;
  });
  m.def("cuda_record_stream", [](const Array& a, Handle s) { cuda::record_stream(a.storage()->data, stream_of(s)); });
  m.def("pin_memory", &pin_memory);
  m.def("is_pinned", [](const Array& a) { return a.storage()->pinned; });
  m.def("to_device", &to_device, py::arg("a"), py::arg("device"), py::arg("non_blocking") = false);
}

}  // namespace tw
