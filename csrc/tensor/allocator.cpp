#include "tensor/allocator.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <bit>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace tw {
namespace {

constexpr size_t kMinBlock = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// Four classes an octave: at most 25 % of a block is unused, and a training loop's sizes find their blocks again.
constexpr int kSplitBits = 2;
constexpr int kClasses = 64 << kSplitBits;

struct OutOfMemory : std::bad_alloc {
  std::string message;
  explicit OutOfMemory(size_t bytes)
      : message("allocator: cannot allocate " + std::to_string(bytes) + " bytes on cpu") {}
  const char* what() const noexcept override { return message.c_str(); }
};

struct SizeClass {
  int index;
  size_t bytes;
};

SizeClass size_class(size_t bytes) {
  if (bytes <= kMinBlock) return {0, kMinBlock};
  const int top = std::bit_width(bytes - 1) - 1;  // 2^top < bytes <= 2^(top + 1)
  const size_t step = size_t{1} << (top - kSplitBits);
  const size_t sub = (bytes - 1 - (size_t{1} << top)) / step + 1;  // 1 .. 4
  return {(top << kSplitBits) + static_cast<int>(sub), (size_t{1} << top) + sub * step};
}

struct Cache {
  std::mutex mutex;
  std::vector<void*> free[kClasses];
  MemoryStats stats;
};

// Never destroyed: arrays may outlive every static (an interpreter frees them in any order at exit).
Cache& cache() {
  static Cache* c = new Cache;
  return *c;
}

void empty_locked(Cache& c) {
  for (auto& list : c.free) {
    for (void* p : list) ::free(p);
    list.clear();
  }
  c.stats.reserved_bytes = c.stats.allocated_bytes;
}

}  // namespace

void* cpu_allocator::allocate(size_t bytes) {
  if (bytes > (size_t{1} << 62)) throw OutOfMemory(bytes);
  const SizeClass k = size_class(bytes);
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  void* p = nullptr;
  if (auto& list = c.free[k.index]; !list.empty()) {
    p = list.back();
    list.pop_back();
    ++c.stats.cache_hits;
  } else {
    const bool huge = k.bytes >= 2 * kHugePage;
    for (int attempt = 0; attempt < 2 && !p; ++attempt) {
      if (posix_memalign(&p, huge ? kHugePage : kMinBlock, k.bytes) != 0) p = nullptr;
      if (!p) empty_locked(c);
    }
    if (!p) throw OutOfMemory(bytes);
    if (huge) madvise(p, k.bytes, MADV_HUGEPAGE);
    c.stats.reserved_bytes += static_cast<int64_t>(k.bytes);
  }
  ++c.stats.allocations;
  c.stats.allocated_bytes += static_cast<int64_t>(k.bytes);
  if (c.stats.allocated_bytes > c.stats.peak_allocated_bytes) c.stats.peak_allocated_bytes = c.stats.allocated_bytes;
  return p;
}

void cpu_allocator::release(void* data, size_t bytes) {
  if (!data) return;
  const SizeClass k = size_class(bytes);
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  c.free[k.index].push_back(data);
  c.stats.allocated_bytes -= static_cast<int64_t>(k.bytes);
}

void cpu_allocator::empty_cache() {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  empty_locked(c);
}

MemoryStats cpu_allocator::stats() {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  return c.stats;
}

void cpu_allocator::reset_peak() {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  c.stats.peak_allocated_bytes = c.stats.allocated_bytes;
}

}  // namespace tw
