// The emulated device's heap, as its backend hands it out.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace tw::simt {

// In AddressSanitizer's build: a kernel may not touch these bytes, or may again. Nothing in others.
#if defined(__SANITIZE_ADDRESS__)
inline void poison(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void unpoison(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

struct Region;
void* heap_allocate(size_t bytes);  // null: out of memory
void heap_release(void* block);
// The block now holds so many bytes for somebody of that name: filled with NaN, guards right behind. Null: freed.
void heap_extent(void* block, size_t bytes, const char* name);
void heap_extent_guards(Region& r);
uint64_t* shadow_of(Region& r);
void check_guards(const void* args, size_t bytes);

}  // namespace tw::simt
