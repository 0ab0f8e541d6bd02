#include "tensor/storage.h"

#include "tensor/allocator.h"

namespace tw {

const char* name(DeviceType t) { return t == DeviceType::kCpu ? "cpu" : "cuda"; }

Storage* Storage::allocate(size_t bytes, Device device) {
  return new Storage(bytes ? cpu_allocator::allocate(bytes) : nullptr, bytes, device, nullptr, nullptr);
}

Storage* Storage::borrow(void* data, size_t bytes, Device device, void* owner, void (*release)(void*), bool readonly) {
  auto* s = new Storage(data, bytes, device, owner, release);
  s->readonly = readonly;
  return s;
}

void Storage::destroy() {
  if (release_) release_(owner_);
  else cpu_allocator::release(data, bytes);
  delete this;
}

}  // namespace tw
