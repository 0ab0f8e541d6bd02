// What a "cuda" device is to the engine: a shared object loaded when it is first asked for, with a table of kernels and
// these plain functions. There are two: _cuda (nvcc's, over the CUDA runtime) and _simt (the emulator, which runs the
// same sources on the CPU). Each has a C++ runtime of its own, so nothing here throws: a function that fails returns
// false or null, and take_error says why.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tw {

struct KernelTable;
using StreamHandle = void*;  // null: the device's default stream
using EventHandle = void*;

struct DeviceProperties {
  char name[256];
  int major, minor, multi_processor_count, max_threads_per_multi_processor, warp_size;
  int64_t total_memory, L2_cache_size, shared_memory_per_block_optin, shared_memory_per_multiprocessor;
};

enum class CopyKind { kToDevice, kToHost, kOnDevice };

// What a backend may ask of the engine: stream-ordered memory of the caching allocator, on the current device and
// stream, for what a kernel needs besides its arguments. Null: out of memory.
struct BackendHost {
  void* (*allocate)(size_t bytes);
  void (*release)(void* block);
};

// What a kernel found wrong in its data (an index, a label), in host memory that the device writes; the first one only.
// The engine raises it when it next looks: after a launch, a copy to host memory, or synchronize().
struct Fault {
  unsigned claimed, complete;  // by a thread; then all of it is written
  const char* op;              // the engine's string
  const char* rule;            // "index must be", "labels must be"
  int64_t value, low, high, position;
};

struct Backend {
  uint64_t table_bytes;      // sizeof(KernelTable): both sides know the same slots
  const char* (*why_not)();  // null where the device can be used
  const KernelTable* table;
  int (*device_count)();
  bool (*properties)(int device, DeviceProperties* p);
  bool (*memory_info)(int device, int64_t* free, int64_t* total);
  bool (*set_device)(int device);      // for this thread, as the two below
  void (*set_stream)(StreamHandle s);  // that kernels are launched on
  const char* (*take_error)();         // the first error since it was last asked, or null
  Fault* (*fault)();                   // the current device's record
  void* (*allocate)(size_t bytes);     // on the current device
  void (*release)(void* block);
  void (*extent)(void* block, size_t bytes, const char* op);  // a block of the cache is handed out (op) or back (null)
  void* (*allocate_host)(size_t bytes);                       // pinned
  void (*release_host)(void* block);
  bool (*copy)(void* dst, const void* src, size_t bytes, CopyKind kind, StreamHandle s);  // in stream order
  bool (*stream_create)(int priority, StreamHandle* s);
  void (*stream_destroy)(StreamHandle s);
  bool (*stream_synchronize)(StreamHandle s);
  bool (*stream_query)(StreamHandle s);  // whether all its work is done
  bool (*stream_wait)(StreamHandle s, EventHandle e);
  bool (*event_create)(bool timing, EventHandle* e);
  void (*event_destroy)(EventHandle e);
  bool (*event_record)(EventHandle e, StreamHandle s);
  bool (*event_query)(EventHandle e);
  bool (*event_synchronize)(EventHandle e);
  bool (*event_elapsed)(EventHandle from, EventHandle to, float* ms);
  bool (*device_synchronize)();
};

using BackendEntry = const Backend* (*)(const BackendHost* host);
constexpr const char* kBackendEntry = "tilewright_backend_1";  // raised with every change of these structs

}  // namespace tw
