// A block of memory with an owner, a reference count and a version. Views share their base's storage, and so its
// version: autograd compares the version it saved with the one it finds, and refuses a gradient that would be wrong.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "tensor/device.h"

namespace tw {

class Storage {
 public:
  // Memory of the device's caching allocator, for an op that an error would name.
  static Storage* allocate(size_t bytes, Device device, const char* op);
  // Somebody else's memory (NumPy, DLPack, another storage); release(owner) is called once, when the last user goes.
  static Storage* borrow(void* data, size_t bytes, Device device, void* owner, void (*release)(void*), bool readonly);

  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void drop() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }
  int64_t refs() const { return refs_.load(std::memory_order_relaxed); }

  void* data;
  size_t bytes;
  Device device;
  bool readonly = false;
  bool pinned = false;
  uint32_t version = 0;

 private:
  Storage(void* d, size_t n, Device dev, void* owner, void (*release)(void*))
      : data(d), bytes(n), device(dev), owner_(owner), release_(release) {}
  void destroy();
  std::atomic<int64_t> refs_{1};
  void* owner_;
  void (*release_)(void*);  // null: the caching allocator's
};

class StorageRef {
 public:
  StorageRef() = default;
  static StorageRef adopt(Storage* s) {
    StorageRef r;
    r.s_ = s;
    return r;
  }
  explicit StorageRef(Storage* s) : s_(s) {
    if (s_) s_->retain();
  }
  StorageRef(const StorageRef& o) : s_(o.s_) {
    if (s_) s_->retain();
  }
  StorageRef(StorageRef&& o) noexcept : s_(std::exchange(o.s_, nullptr)) {}
  StorageRef& operator=(StorageRef o) noexcept {
    std::swap(s_, o.s_);
    return *this;
  }
  ~StorageRef() {
    if (s_) s_->drop();
  }
  Storage* operator->() const { return s_; }
  Storage* get() const { return s_; }

 private:
  Storage* s_ = nullptr;
};

}  // namespace tw
