// The emulated device's heap, as its backend hands it out.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tw::simt {

struct Region;
void* heap_allocate(size_t bytes);  // null: out of memory
void heap_release(void* block);
// The block now holds so many bytes for somebody of that name: filled with NaN, guards right behind. Null: freed.
void heap_extent(void* block, size_t bytes, const char* name);
void heap_extent_guards(Region& r);
uint64_t* shadow_of(Region& r);
void check_guards(const void* args, size_t bytes);

}  // namespace tw::simt
