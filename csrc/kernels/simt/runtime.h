// The emulator's own state: fibers, the blocks of one cluster, and what the checks know. Not for kernels.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/simt/simt.h"

namespace tw::simt {

// xorshift64*: the seeded order of blocks and threads.
struct Random {
  uint64_t s = 1;
  uint32_t next() {
    s ^= s >> 12, s ^= s << 25, s ^= s >> 27;
    return static_cast<uint32_t>((s * 0x2545F4914F6CDD1Dull) >> 32);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{next()} * n) >> 32); }
};

struct AsyncCopy {
  void* dst;
  const void* src;
  int bytes, valid;
};

struct Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  int index = 0;               // in the cluster
  int thread = 0, block = 0;   // in the block, and the block in the cluster
  uint3 thread_index;
  bool done = false;
  const char* waits = nullptr;  // for what, while it does
  Site site{"", 0};
  int result = 0;                              // of a voting barrier
  std::vector<std::vector<AsyncCopy>> copies;  // cp.async: committed groups, then the open one
  std::vector<void (*)(void*)> unused;
  int lane() const { return thread & 31; }
};

struct Barrier {
  int arrived = 0, expected = 0, sum = 0;
  bool all = true;
  Vote vote = Vote::kNone;
  Site site{"", 0};
  std::vector<Fiber*> waiting;
};

struct Collective {
  const char* name = nullptr;
  unsigned mask = 0, arrived = 0;
  Site site{"", 0};
  const void* in[32];
  void* out[32];
  Fiber* fiber[32];
};

struct SharedVariable {
  const char* name;
  size_t begin, end;
};

constexpr size_t kSharedBytes = 256 << 10;  // of a block's arena; the limit that a GPU sets is lower
constexpr size_t kSharedLimit = 227 << 10, kStaticLimit = 48 << 10, kGuard = 256;

struct Block {
  uint3 index;
  int live = 0, exited = 0;
  Barrier barriers[16];
  std::vector<std::vector<Collective>> warps;  // pending collectives of each warp
  char* shared = nullptr;
  size_t shared_used = 0, static_bytes = 0;
  std::vector<SharedVariable> variables;
  std::unordered_map<const void*, size_t> by_key;
};

// The cluster that runs now: all its threads are alive together.
struct Cluster {
  const LaunchShape* shape = nullptr;
  Random random;
  uint64_t seed = 0;
  std::vector<Fiber> fibers;
  std::vector<Block> blocks;
  std::vector<int> ready;  // fibers that can run
  Fiber* current = nullptr;
  int alive = 0, threads = 0;  // threads: of a block
  bool failed = false;
};
extern Cluster cluster;

void wait(const char* what, Site site);  // until somebody wakes this fiber
void wake(Fiber* f);
void yield();
bool land_some_async();  // hopper.cpp: lets one bulk copy arrive that somebody may be waiting for
void hopper_begin_cluster();
void hopper_thread_ends();

// --- check.cpp --
uint64_t seed_from_environment();
std::string take_findings();
void begin_launch();
void begin_cluster(int threads, int agents);
void end_launch();
// Happens-before: entities are the cluster's threads, then its agents (the engines that copy in the background).
using Clock = std::vector<uint32_t>;
void clocks_meet(Fiber* const* fibers, int count);  // a barrier of these threads
void clock_release(int entity, Clock* to);          // what the entity did so far is published in *to
void clock_acquire(int entity, const Clock& from);
void clock_after_all_blocks(int entity);
void touch_as(int entity, const void* p, size_t bytes, bool write, bool atomic);

// --- memory.cpp: the device's heap --
struct Region {  // of device memory: one live block, or one that was freed
  char *begin, *end;
  size_t capacity, requested;
  bool live;
  char name[32];
  uint64_t* shadow;
};
Region* find_region(const void* p);  // whose guards or bytes hold p
bool guards_intact(const Region& r);
std::string address_name(const void* p);

}  // namespace tw::simt
