// The caching CPU allocator: blocks are 64-byte aligned, kept in size classes when freed, and given out again without
// a system call, because a fresh page costs more than most kernels (a page fault and 4 KiB of zeros each).
#pragma once
#include <cstddef>
#include <cstdint>

namespace tw {

struct MemoryStats {
  int64_t allocated_bytes = 0;  // in live arrays, rounded to their size classes
  int64_t peak_allocated_bytes = 0;
  int64_t reserved_bytes = 0;  // allocated + cached
  int64_t allocations = 0;     // since the start
  int64_t cache_hits = 0;      // of those, served from the cache
};

namespace cpu_allocator {
void* allocate(size_t bytes);            // throws OutOfMemory (a std::bad_alloc) naming the size
void release(void* data, size_t bytes);  // bytes: what was asked for
void empty_cache();
MemoryStats stats();
void reset_peak();
}  // namespace cpu_allocator

}  // namespace tw
