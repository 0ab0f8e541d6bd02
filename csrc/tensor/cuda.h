// The "cuda" devices of the engine: the backend, loaded when first asked for, the current device and stream of each
// thread, the caching allocator and copies. All of it works without the toolkit: what is CUDA is behind backend.h.
#pragma once
#include <stdexcept>
#include <string>

#include "tensor/allocator.h"
#include "tensor/backend.h"
#include "tensor/device.h"

namespace tw::cuda {

// tw.cuda.OutOfMemoryError
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Null where there is none: why_not() says why. TILEWRIGHT_CUDA=simt asks for the emulator, =off for none; default: the
// GPU's, if this build has it and the driver finds a device.
const Backend* backend_or_null();
const std::string& why_not();
const Backend& backend();  // fails where there is none
bool started();            // a backend is loaded: device memory may exist
int device_count();
void set_backend_folder(const std::string& folder);  // where _cuda and _simt lie
void check(const char* op);                          // raises what the backend has to report

// Per thread. `use` makes a device current in the backend and hands it the thread's stream there.
int current_device();
void set_device(int device);
StreamHandle current_stream(int device);
void set_current_stream(int device, StreamHandle s);
class DeviceGuard {  // the device of an op's tensors, while it launches
 public:
  explicit DeviceGuard(int device) : before_(current_device()) {
    if (device != before_) set_device(device);
  }
  ~DeviceGuard() {
    if (current_device() != before_) set_device(before_);
  }

 private:
  int before_;
};

// The caching allocator. A block belongs to the stream it was asked for on: freed, it is given at once to later work of
// that stream, which runs after all that used it; a block that other streams used as well (record_stream) waits for
// them. Sizes are in classes as the CPU's; out of memory, the cache is emptied and the request tried again.
void* allocate(size_t bytes, int device, const char* op);
void* allocate_pinned(size_t bytes, const char* op);  // of the host, page-locked; waits for the copies that use it
void release(void* block);
void record_stream(void* block, StreamHandle s);
void empty_cache();
MemoryStats memory_stats(int device);
void reset_peak(int device);
struct Extent {
  char* begin = nullptr;
  size_t bytes = 0;
  int device = 0;
};
bool find_block(const void* p, Extent* extent);  // the live block that holds an address

// In order of the current streams of the devices concerned. When it returns, host memory has been written and may be
// changed again; with non_blocking, and where that memory is pinned, only when the stream has come so far.
void copy(void* dst, Device to, const void* src, Device from, size_t bytes, bool non_blocking = false);
void synchronize(int device);

}  // namespace tw::cuda
