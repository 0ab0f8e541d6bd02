#include "tensor/storage.h"

#include "tensor/allocator.h"
#include "tensor/cuda.h"

namespace tw {

const char* name(DeviceType t) { return t == DeviceType::kCpu ? "cpu" : "cuda"; }

Storage* Storage::allocate(size_t bytes, Device device, const char* op) {
  void* data = !bytes                            ? nullptr
               : device.type == DeviceType::kCpu ? cpu_allocator::allocate(bytes)
                                                 : cuda::allocate(bytes, device.index, op);
  return new Storage(data, bytes, device, nullptr, nullptr);
}

Storage* Storage::borrow(void* data, size_t bytes, Device device, void* owner, void (*release)(void*), bool readonly) {
  auto* s = new Storage(data, bytes, device, owner, release);
  s->readonly = readonly;
  return s;
}

void Storage::destroy() {
  if (release_) release_(owner_);
  else if (device.type == DeviceType::kCpu) cpu_allocator::release(data, bytes);
  else cuda::release(data);
  delete this;
}

}  // namespace tw
