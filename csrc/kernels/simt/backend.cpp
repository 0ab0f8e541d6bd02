// The emulator as the engine's "cuda" device: its own heap, copies and launches that are done when they return.
#include "tensor/backend.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/device.cuh"
#include "kernels/simt/memory.h"
#include "kernels/simt/runtime.h"

namespace tw {
namespace cuda {
extern const KernelTable kernel_table;
const BackendHost* backend_host;
Stream current_stream() { return nullptr; }
namespace {
bool refused = false;
}
void refuse_launches() { refused = true; }
bool launches_refused() { return refused; }
Fault* fault_record() {
  static Fault* f = [] {
    void* made = simt::heap_allocate(sizeof(Fault));
    std::memset(made, 0, sizeof(Fault));
    return static_cast<Fault*>(made);
  }();
  return f;
}
const DeviceInfo& device_info() {
  static const DeviceInfo info = {kEmulatedMultiprocessors, 900, 227 << 10};
  return info;
}
}  // namespace cuda

namespace {

using Time = std::chrono::steady_clock::time_point;
// TILEWRIGHT_SIMT_DEVICES (1), and TILEWRIGHT_SIMT_MEMORY in MiB (8192), which they share.
int64_t setting(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoll(text) : otherwise;
}
const int64_t kMemory = setting("TILEWRIGHT_SIMT_MEMORY", 8192) << 20;
int64_t used = 0;

bool yes() { return true; }

const Backend kBackend = {
    .table_bytes = sizeof(KernelTable),
    .why_not = []() -> const char* { return nullptr; },
    .table = &cuda::kernel_table,
    .device_count = [] { return static_cast<int>(setting("TILEWRIGHT_SIMT_DEVICES", 1)); },
    .properties =
        [](int, DeviceProperties* p) {
          *p = {};
          std::snprintf(p->name, sizeof p->name, "tilewright emulator%s", simt::kChecked ? ", checked" : "");
          p->major = 9, p->minor = 0;
          p->multi_processor_count = cuda::kEmulatedMultiprocessors;
          p->max_threads_per_multi_processor = 2048;
          p->warp_size = 32;
          p->total_memory = kMemory;
          p->L2_cache_size = 1 << 20;
          p->shared_memory_per_block_optin = p->shared_memory_per_multiprocessor = 227 << 10;
          return true;
        },
    .memory_info =
        [](int, int64_t* free, int64_t* total) {
          *total = kMemory;
          *free = kMemory - used;
          return true;
        },
    .set_device = [](int) { return true; },
    .set_stream = [](StreamHandle) {},
    .take_error = []() -> const char* {
      static std::string text;
      cuda::refused = false;
      text = simt::take_findings();
      return text.empty() ? nullptr : text.c_str();
    },
    .fault = cuda::fault_record,
    .allocate = [](size_t bytes) -> void* {
      if (static_cast<int64_t>(bytes) > kMemory - used) return nullptr;
      void* p = simt::heap_allocate(bytes);
      if (p) used += static_cast<int64_t>(bytes);
      return p;
    },
    .release =
        [](void* p) {
          if (const simt::Region* r = simt::find_region(p)) used -= static_cast<int64_t>(r->requested);
          simt::heap_release(p);
        },
    .extent = simt::heap_extent,
    .allocate_host = [](size_t bytes) -> void* { return std::malloc(bytes); },
    .release_host = [](void* p) { std::free(p); },
    .copy =
        [](void* dst, const void* src, size_t bytes, CopyKind, StreamHandle) {
          std::memmove(dst, src, bytes);
          return true;
        },
    .stream_create =
        [](int, StreamHandle* s) {
          *s = new char;
          return true;
        },
    .stream_destroy = [](StreamHandle s) { delete static_cast<char*>(s); },
    .stream_synchronize = [](StreamHandle) { return true; },
    .stream_query = [](StreamHandle) { return true; },
    .stream_wait = [](StreamHandle, EventHandle) { return true; },
    .event_create =
        [](bool, EventHandle* e) {
          *e = new Time;
          return true;
        },
    .event_destroy = [](EventHandle e) { delete static_cast<Time*>(e); },
    .event_record =
        [](EventHandle e, StreamHandle) {
          *static_cast<Time*>(e) = std::chrono::steady_clock::now();
          return true;
        },
    .event_query = [](EventHandle) { return true; },
    .event_synchronize = [](EventHandle) { return true; },
    .event_elapsed =
        [](EventHandle from, EventHandle to, float* ms) {
          *ms = std::chrono::duration<float, std::milli>(*static_cast<Time*>(to) - *static_cast<Time*>(from)).count();
          return true;
        },
    .device_synchronize = yes,
};

}  // namespace
}  // namespace tw

extern "C" __attribute__((visibility("default"))) const tw::Backend* tilewright_backend_1(const tw::BackendHost* host) {
  tw::cuda::backend_host = host;
  return &tw::kBackend;
}
