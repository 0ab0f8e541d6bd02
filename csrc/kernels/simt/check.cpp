// What the emulator watches. In the checked build the kernels' objects are compiled with -fsanitize=thread, and the
// calls that the compiler puts before each load and store land here instead of in ThreadSanitizer's runtime:
//   bounds     every access lies in one live block of device memory, in a shared variable, or on the thread's own stack
//   alignment  to the access's size
//   races      two threads, the same bytes, one of them writing, and no order between the two: threads of two blocks
//              have none in one launch; threads of a block are ordered by what they wait for together
// Order is kept as vector clocks: each entity (thread or background engine) counts the times it met others, and knows a
// count of each other entity. An access leaves a stamp with its entity's count; a later one by somebody who knows a
// smaller count is unordered with it. Each word of 4 bytes keeps its 4 latest stamps, a bit for each of its bytes, so a
// race is missed only when four others came between. Method: Serebryany, Iskhodzhanov, "ThreadSanitizer", WBIA 2009.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "kernels/simt/memory.h"
#include "kernels/simt/runtime.h"

namespace tw::simt {

bool on_fiber_stack(const void* p);
void abandon();

namespace {

// --- findings --
std::mutex findings_mutex;
std::string findings;
int findings_count = 0;
constexpr int kMostFindings = 8;  // a launch
const void* access_pc = nullptr;

std::string kernel_name(const char* pretty) {  // "... [with P = ...; void (* Kernel)(P ...) = softmax<float>]"
  const char* begin = std::strstr(pretty, "Kernel)(");
  begin = begin ? std::strstr(begin, " = ") : nullptr;
  if (!begin) return pretty;
  begin += 3;
  const char* end = begin;
  for (int depth = 0; *end && !(depth == 0 && (*end == ';' || *end == ']')); ++end)
    depth += *end == '<' || *end == '(' ? 1 : *end == '>' || *end == ')' ? -1 : 0;
  std::string name(begin, end);
  for (const char* drop : {"tw::cuda::", "{anonymous}::"})
    for (size_t at; (at = name.find(drop)) != std::string::npos;) name.erase(at, std::strlen(drop));
  return name;
}

// --- the order of accesses --
int entities = 0;
uint32_t serial = 0, launch_serial = 0;  // of the cluster now, and of the launch's first
std::vector<uint32_t> times;             // of each entity
std::vector<Clock> known;                // what each entity knows of the others
std::vector<bool> after_all;             // whether it knows that all other blocks have done

// A stamp: cluster 24 bits | entity 14 | time 20 | bytes 4 | write 1 | atomic 1.
constexpr uint32_t kSerials = 1u << 24, kTimes = 1u << 20;
uint64_t stamp(int entity, unsigned bytes, bool write, bool atomic) {
  return uint64_t{serial % kSerials} << 40 | uint64_t(unsigned(entity)) << 26 |
         uint64_t{times[static_cast<size_t>(entity)] % kTimes} << 6 | bytes << 2 | unsigned{write} << 1 |
         unsigned{atomic};
}
bool ordered_before(uint64_t s, int entity, bool global) {
  const auto old = static_cast<uint32_t>(s >> 40);
  const int who = static_cast<int>(s >> 26 & 0x3fff);
  if (old == serial % kSerials)
    return who == entity || known[static_cast<size_t>(entity)][static_cast<size_t>(who)] >= (s >> 6 & (kTimes - 1));
  const bool same_launch = (old - launch_serial) % kSerials < (serial - launch_serial) % kSerials;
  return !global || !same_launch || after_all[static_cast<size_t>(entity)];
}

std::string entity_name(int entity) {
  const auto threads = static_cast<int>(cluster.fibers.size());
  if (entity >= threads) return "an asynchronous copy of block " + std::to_string(entity - threads);
  return "thread " + std::to_string(entity % cluster.threads) +
         (cluster.blocks.size() > 1 ? " of block " + std::to_string(entity / cluster.threads) + " of the cluster" : "");
}

void check_word(uint64_t* cell, const char* word, unsigned bytes, int entity, bool write, bool atomic, bool global) {
  const uint64_t mine = stamp(entity, bytes, write, atomic);
  int slot = -1;
  for (int i = 0; i < 4; ++i) {
    const uint64_t s = cell[i];
    if (s == mine) return;
    if (s == 0) {
      if (slot < 0) slot = i;
      continue;
    }
    if (ordered_before(s, entity, global)) {
      if (slot < 0 && ((s >> 2 & 15) & ~bytes) == 0 && (write || !(s & 2))) slot = i;
      continue;
    }
    if ((s >> 2 & bytes) && (write || (s & 2)) && !(atomic && (s & 1))) {
      const bool here = static_cast<uint32_t>(s >> 40) == serial % kSerials;
      finding(false, "race", "%s %s, which %s %s, with nothing between them: %s", entity_name(entity).c_str(),
              write ? "writes" : "reads",
              here ? entity_name(static_cast<int>(s >> 26 & 0x3fff)).c_str() : "a thread of another block",
              s & 2 ? "wrote" : "read", address_name(word).c_str());
      for (int k = 0; k < 4; ++k) cell[k] = 0;
      cell[0] = mine;
      return;
    }
  }
  cell[slot >= 0 ? slot : static_cast<int>(cluster.random.next() & 3)] = mine;
}

void check_words(uint64_t* shadow, const char* base, const char* p, size_t bytes, int entity, bool write, bool atomic,
                 bool global) {
  const auto begin = static_cast<size_t>(p - base), end = begin + bytes;
  for (size_t w = begin / 4; w * 4 < end; ++w) {
    unsigned mask = 0;
    for (size_t i = 0; i < 4; ++i) mask |= unsigned{w * 4 + i >= begin && w * 4 + i < end} << i;
    check_word(shadow + 4 * w, base + 4 * w, mask, entity, write, atomic, global);
  }
}

std::vector<std::vector<uint64_t>> shared_shadow;  // of each block of the cluster

// The module's own constants and tables, which kernels may read.
struct Image {
  uintptr_t begin = 0, end = 0;
  Image() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* out) {
          auto* image = static_cast<Image*>(out);
          const auto self = reinterpret_cast<uintptr_t>(&findings_mutex);
          uintptr_t lo = ~uintptr_t{0}, hi = 0;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
            lo = std::min<uintptr_t>(lo, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
            hi = std::max<uintptr_t>(hi, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz);
          }
          if (self < lo || self >= hi) return 0;
          image->begin = lo, image->end = hi;
          return 1;
        },
        this);
  }
};

}  // namespace

uint64_t seed_from_environment() {
  const char* s = std::getenv("TILEWRIGHT_SIMT_SEED");
  return s ? std::strtoull(s, nullptr, 10) : 0;
}

void finding(bool fatal, const char* kind, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  std::string s = std::string(kind) + ": ";
  if (cluster.shape) s += "kernel " + kernel_name(cluster.shape->kernel) + ", ";
  if (const Fiber* f = cluster.current) {
    const uint3 b = cluster.blocks[static_cast<size_t>(f->block)].index, t = f->thread_index;
    char where[96];
    std::snprintf(where, sizeof where, "block (%u,%u,%u), thread (%u,%u,%u), ", b.x, b.y, b.z, t.x, t.y, t.z);
    s += where;
  }
  s += "seed " + std::to_string(cluster.seed) + ": " + text;
  Dl_info info;
  if (access_pc && dladdr(access_pc, &info) && info.dli_fbase) {
    char where[64];
    std::snprintf(where, sizeof where, " (code at +0x%zx)",
                  static_cast<size_t>(static_cast<const char*>(access_pc) - static_cast<char*>(info.dli_fbase)));
    s += where;
  }
  {
    std::lock_guard lock(findings_mutex);
    if (findings_count++ < kMostFindings) findings += (findings.empty() ? "" : "\n") + s;
  }
  if (fatal) abandon();
}

std::string take_findings() {
  std::lock_guard lock(findings_mutex);
  std::string s;
  std::swap(s, findings);
  if (findings_count > kMostFindings) s += "\n... and " + std::to_string(findings_count - kMostFindings) + " more";
  findings_count = 0;
  return s;
}

void begin_launch() { launch_serial = serial + 1; }
void begin_cluster(int threads, int agents) {
  ++serial;
  if (!kChecked) return;
  entities = threads + agents;
  const auto n = static_cast<size_t>(entities);
  times.assign(n, 1);
  after_all.assign(n, false);
  known.resize(n);
  for (Clock& c : known) c.assign(n, 0);
  shared_shadow.resize(cluster.blocks.size());
  for (auto& s : shared_shadow) s.resize(kSharedBytes);
}
void end_launch() {
  check_guards(cluster.shape->args, cluster.shape->args_bytes);
  cluster.shape = nullptr;
}

void clock_release(int entity, Clock* to) {
  if (!kChecked) return;
  const auto e = static_cast<size_t>(entity);
  to->resize(known[e].size());
  for (size_t i = 0; i < to->size(); ++i) (*to)[i] = std::max((*to)[i], known[e][i]);
  (*to)[e] = std::max((*to)[e], times[e]);
  if (times[e] + 1 < kTimes) ++times[e];
}
void clock_acquire(int entity, const Clock& from) {
  if (!kChecked) return;
  Clock& k = known[static_cast<size_t>(entity)];
  for (size_t i = 0; i < from.size(); ++i) k[i] = std::max(k[i], from[i]);
}
void clocks_meet(Fiber* const* fibers, int count) {
  if (!kChecked) return;
  static Clock all;
  all.clear();
  for (int i = 0; i < count; ++i) clock_release(fibers[i]->index, &all);
  for (int i = 0; i < count; ++i) clock_acquire(fibers[i]->index, all);
}
void clock_after_all_blocks(int entity) {
  if (kChecked) after_all[static_cast<size_t>(entity)] = true;
}

void touch_as(int entity, const void* p, size_t bytes, bool write, bool atomic) {
  const auto* c = static_cast<const char*>(p);
  for (size_t i = 0; i < cluster.blocks.size(); ++i) {
    const Block& b = cluster.blocks[i];
    if (c < b.shared || c >= b.shared + kSharedBytes) continue;
    const auto at = static_cast<size_t>(c - b.shared);
    bool inside = false;
    for (const SharedVariable& v : b.variables) inside |= at >= v.begin && at + bytes <= v.end;
    if (!inside) return finding(true, "out of bounds", "%zu bytes at %s", bytes, address_name(p).c_str());
    return check_words(shared_shadow[i].data(), b.shared, c, bytes, entity, write, atomic, false);
  }
  Region* r = find_region(p);
  if (!r) {
    static const Image image;
    const auto a = reinterpret_cast<uintptr_t>(p);
    if (a >= image.begin && a < image.end && !write) return;
    const auto* args = static_cast<const char*>(cluster.shape->args);
    if (c >= args && c < args + cluster.shape->args_bytes) return;
  }
  if (!r || !r->live || c < r->begin || c + bytes > r->end)
    return finding(true, "out of bounds", "%s of %zu bytes at %s", write ? "a write" : "a read", bytes,
                   address_name(p).c_str());
  check_words(shadow_of(*r), r->begin, c, bytes, entity, write, atomic, true);
}

void touch(const void* p, size_t bytes, bool write, bool atomic) {
  if (reinterpret_cast<uintptr_t>(p) % (bytes & (~bytes + 1)) != 0 && bytes <= 16)
    finding(true, "misaligned", "%zu bytes at %s", bytes, address_name(p).c_str());
  if (kChecked && cluster.current) touch_as(cluster.current->index, p, bytes, write, atomic);
}

#ifdef TW_SIMT_CHECKED
namespace {
inline void access(const void* p, size_t bytes, bool write, bool aligned, const void* pc) {
  if (!cluster.current || on_fiber_stack(p)) return;
  access_pc = pc;
  if (aligned) touch(p, bytes, write, false);
  else touch_as(cluster.current->index, p, bytes, write, false);
  access_pc = nullptr;
}
}  // namespace
#endif

}  // namespace tw::simt

#ifdef TW_SIMT_CHECKED
// ThreadSanitizer's interface, as GCC calls it.
#define TW_TSAN extern "C"
#define TW_ACCESS(n)                                                                                                  \
  TW_TSAN void __tsan_read##n(void* p) { tw::simt::access(p, n, false, true, __builtin_return_address(0)); }          \
  TW_TSAN void __tsan_write##n(void* p) { tw::simt::access(p, n, true, true, __builtin_return_address(0)); }          \
  TW_TSAN void __tsan_unaligned_read##n(void* p) {                                                                    \
    tw::simt::access(p, n, false, false, __builtin_return_address(0));                                                \
  }                                                                                                                   \
  TW_TSAN void __tsan_unaligned_write##n(void* p) {                                                                   \
    tw::simt::access(p, n, true, false, __builtin_return_address(0));                                                 \
  }                                                                                                                   \
  TW_TSAN void __tsan_volatile_read##n(void* p) { tw::simt::access(p, n, false, true, __builtin_return_address(0)); } \
  TW_TSAN void __tsan_volatile_write##n(void* p) { tw::simt::access(p, n, true, true, __builtin_return_address(0)); }
TW_ACCESS(1)
TW_ACCESS(2)
TW_ACCESS(4)
TW_ACCESS(8)
TW_ACCESS(16)
TW_TSAN void __tsan_read_range(void* p, size_t n) {
  if (n) tw::simt::access(p, n, false, false, __builtin_return_address(0));
}
TW_TSAN void __tsan_write_range(void* p, size_t n) {
  if (n) tw::simt::access(p, n, true, false, __builtin_return_address(0));
}
TW_TSAN char __tsan_atomic8_load(const char* p, int) { return *p; }  // the guards of host functions' statics
TW_TSAN void __tsan_init() {}
TW_TSAN void __tsan_func_entry(void*) {}
TW_TSAN void __tsan_func_exit() {}
TW_TSAN void __tsan_vptr_update(void**, void*) {}
TW_TSAN void __tsan_vptr_read(void**) {}
#endif
