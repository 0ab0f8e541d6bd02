// The emulated device's heap: every block stands between guard bytes, is filled with NaN when it is handed out, and is
// known by its exact extent, so that an access outside all of them is seen.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/simt/memory.h"
#include "kernels/simt/runtime.h"

namespace tw::simt {
namespace {

constexpr size_t kHeapGuard = 512;  // before and behind a block; also the alignment, as a GPU's
constexpr unsigned char kGuardByte = 0xA5;

std::vector<std::unique_ptr<Region>>& regions() {  // by address; never destroyed, since arrays outlive statics
  static auto* r = new std::vector<std::unique_ptr<Region>>;
  return *r;
}
Region* recent[16];  // what find_region met, by page

size_t shadow_bytes(const Region& r) { return (r.capacity + 3) / 4 * 32; }

void unpoison_all(const Region& r) { unpoison(r.begin - kHeapGuard, r.capacity + 2 * kHeapGuard); }
void poison_guards(const Region& r) {
  poison(r.begin - kHeapGuard, kHeapGuard);
  poison(r.end, static_cast<size_t>(r.begin + r.capacity + kHeapGuard - r.end));
}

}  // namespace

void* heap_allocate(size_t bytes) {
  void* p = nullptr;
  const size_t capacity = (bytes + 15) & ~size_t{15};
  if (capacity > (size_t{1} << 40) || posix_memalign(&p, kHeapGuard, capacity + 2 * kHeapGuard) != 0) return nullptr;
  auto r = std::make_unique<Region>();
  r->begin = static_cast<char*>(p) + kHeapGuard;
  r->capacity = capacity;
  r->requested = bytes;
  r->shadow = nullptr;
  Region* region = r.get();
  auto& all = regions();
  all.insert(std::upper_bound(all.begin(), all.end(), r, [](auto& a, auto& b) { return a->begin < b->begin; }),
             std::move(r));
  heap_extent(region->begin, bytes, "");
  return region->begin;
}

void heap_extent(void* block, size_t bytes, const char* name) {
  Region* r = find_region(block);
  if (!r) return;
  r->end = r->begin + bytes;
  r->live = name != nullptr;
  std::snprintf(r->name, sizeof r->name, "%s", name ? name : r->name);
  if (!r->live) return poison(r->begin, r->capacity);
  unpoison_all(*r);
  std::memset(r->begin, 0xff, bytes);
  heap_extent_guards(*r);
}

bool guards_intact(const Region& r) {
  const auto is_guard = [](char c) { return static_cast<unsigned char>(c) == kGuardByte; };
  if (!r.live) return true;
  unpoison_all(r);
  const bool intact = std::all_of(r.begin - kHeapGuard, r.begin, is_guard) &&
                      std::all_of(r.end, r.begin + r.capacity + kHeapGuard, is_guard);
  poison_guards(r);
  return intact;
}

void heap_release(void* block) {
  auto& all = regions();
  for (size_t i = 0; i < all.size(); ++i) {
    Region& r = *all[i];
    if (r.begin != block) continue;
    if (!guards_intact(r))
      finding(false, "out of bounds", "guard bytes of %s overwritten", address_name(block).c_str());
    if (r.shadow) munmap(r.shadow, shadow_bytes(r));
    unpoison_all(r);
    ::free(r.begin - kHeapGuard);
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    std::fill(std::begin(recent), std::end(recent), nullptr);
    return;
  }
}

Region* find_region(const void* p) {
  const auto* c = static_cast<const char*>(p);
  const auto holds = [&](const Region& r) {
    return c >= r.begin - kHeapGuard && c < r.begin + r.capacity + kHeapGuard;
  };
  Region*& hint = recent[reinterpret_cast<uintptr_t>(p) >> 12 & 15];
  if (hint && holds(*hint)) return hint;
  auto& all = regions();
  auto it = std::upper_bound(all.begin(), all.end(), c,
                             [](const char* a, const auto& r) { return a < r->begin - kHeapGuard; });
  if (it == all.begin() || !holds(**--it)) return nullptr;
  return hint = it->get();
}

uint64_t* shadow_of(Region& r) {
  if (!r.shadow) {
    void* p =
        mmap(nullptr, shadow_bytes(r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) std::abort();
    r.shadow = static_cast<uint64_t*>(p);
  }
  return r.shadow;
}

std::string address_name(const void* p) {
  char text[160];
  for (const Block& b : cluster.blocks)
    if (b.shared && p >= b.shared && p < b.shared + kSharedBytes) {
      const auto at = static_cast<size_t>(static_cast<const char*>(p) - b.shared);
      const SharedVariable* best = nullptr;
      for (const SharedVariable& v : b.variables)
        if (at >= v.begin && (at < v.end || !best || v.end > best->end)) best = &v;
      std::snprintf(text, sizeof text, "%s + %zu (of %zu bytes, shared memory of block %zu of the cluster)",
                    best ? best->name : "shared memory", best ? at - best->begin : at,
                    best ? best->end - best->begin : 0, static_cast<size_t>(&b - cluster.blocks.data()));
      return text;
    }
  const Region* r = find_region(p);
  if (!r) {
    std::snprintf(text, sizeof text, "%p, which is no device memory", p);
    return text;
  }
  const auto offset = static_cast<long long>(static_cast<const char*>(p) - r->begin);
  // Which of the kernel's arguments points there.
  int argument = -1;
  size_t words = cluster.shape ? cluster.shape->args_bytes / 8 : 0;
  for (size_t i = 0; i < words && argument < 0; ++i) {
    const char* word;
    std::memcpy(&word, static_cast<const char*>(cluster.shape->args) + 8 * i, 8);
    if (word >= r->begin && word < r->begin + r->capacity) argument = static_cast<int>(8 * i);
  }
  std::snprintf(text, sizeof text, "byte %lld of a %sblock of %zu bytes%s%s", offset, r->live ? "" : "freed ",
                static_cast<size_t>(r->end - r->begin), r->name[0] ? " made by " : "", r->name);
  std::string s = text;
  if (argument >= 0) s += ", to which byte " + std::to_string(argument) + " of the kernel's arguments points";
  return s;
}

// The guards of every block that the kernel's arguments point into.
void check_guards(const void* args, size_t bytes) {
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const void* word;
    std::memcpy(&word, static_cast<const char*>(args) + i, 8);
    Region* r = find_region(word);
    if (!r || guards_intact(*r)) continue;
    finding(false, "out of bounds", "guard bytes around %s were overwritten", address_name(word).c_str());
    heap_extent_guards(*r);
  }
}
void heap_extent_guards(Region& r) {
  unpoison_all(r);
  std::memset(r.begin - kHeapGuard, kGuardByte, kHeapGuard);
  std::memset(r.end, kGuardByte, static_cast<size_t>(r.begin + r.capacity + kHeapGuard - r.end));
  poison_guards(r);
}

}  // namespace tw::simt
