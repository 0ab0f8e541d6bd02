// Runs a launch: clusters of blocks one after another in a seeded random order, the threads of a cluster as fibers that
// run until they wait, the next one drawn at random. So threads of a warp are in step only where a primitive makes them.
//
// Divergent barriers, collectives that not all lanes reach, and deadlocks are found here; memory in check.cpp.
#include "kernels/simt/runtime.h"
#include "kernels/simt/memory.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>

#include "kernels/simt/switch.h"

namespace tw::simt {

Cluster cluster;

namespace {

constexpr size_t kStack = 128 << 10, kPage = 4096;
void* main_sp;
#if defined(__SANITIZE_ADDRESS__)
void* main_fake_stack;
const void* main_stack;
size_t main_stack_bytes;
#endif

// The stacks of all fibers, one after the other; the lowest page of each faults.
char* stacks_begin = nullptr;
size_t stacks_count = 0;

void reserve_stacks(size_t n) {
  if (n <= stacks_count) return;
  if (stacks_begin) munmap(stacks_begin, stacks_count * kStack);
  void* p = mmap(nullptr, n * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  stacks_begin = static_cast<char*>(p);
  stacks_count = n;
  for (size_t i = 0; i < n; ++i) mprotect(stacks_begin + i * kStack, kPage, PROT_NONE);
}

void switch_to(Fiber* from, Fiber* to) {
  cluster.current = to;
  if (to) {
    threadIdx = to->thread_index;
    blockIdx = cluster.blocks[static_cast<size_t>(to->block)].index;
  }
#if defined(__SANITIZE_ADDRESS__)
  void** fake = from ? (from->done ? nullptr : &from->fake_stack) : &main_fake_stack;
  __sanitizer_start_switch_fiber(fake, to ? to->stack : main_stack, to ? kStack - kPage : main_stack_bytes);
#endif
  tw_simt_switch(from ? &from->sp : &main_sp, to ? to->sp : main_sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from ? from->fake_stack : main_fake_stack, nullptr, nullptr);
#endif
}

Fiber* next_fiber() {
  auto& ready = cluster.ready;
  while (ready.empty())
    if (!land_some_async()) return nullptr;
  const size_t i = cluster.random.below(static_cast<uint32_t>(ready.size()));
  Fiber* f = &cluster.fibers[static_cast<size_t>(ready[i])];
  ready[i] = ready.back();
  ready.pop_back();
  return f;
}

std::string at(Site s) {
  const char* slash = std::strrchr(s.file, '/');
  return std::string(slash ? slash + 1 : s.file) + ":" + std::to_string(s.line);
}

// Lets others run, and comes back when woken.
void leave() {
  Fiber* self = cluster.current;
  Fiber* next = next_fiber();
  if (next != self) switch_to(self, next);
}

Block& block_of(const Fiber* f) { return cluster.blocks[static_cast<size_t>(f->block)]; }

void thread_ends(Fiber* f) {
  copy_async_wait(-1);
  hopper_thread_ends();
  f->done = true;
  --cluster.alive;
  Block& b = block_of(f);
  ++b.exited;
  for (const Barrier& barrier : b.barriers)
    if (barrier.arrived && barrier.expected > b.live - b.exited)
      finding(true, "divergent barrier", "this thread has returned, but %d threads wait at %s for %d", barrier.arrived,
              at(barrier.site).c_str(), barrier.expected);
  for (const Collective& c : b.warps[static_cast<size_t>(f->thread / 32)])
    if (c.mask >> f->lane() & 1)
      finding(true, "absent lane", "lane %d has returned, but %s at %s names it in its mask 0x%08x", f->lane(), c.name,
              at(c.site).c_str(), c.mask);
}

void fiber_entry() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!main_stack) main_stack = bottom, main_stack_bytes = bytes;
#endif
  cluster.shape->run(cluster.shape->args);
  Fiber* self = cluster.current;
  thread_ends(self);
  switch_to(self, next_fiber());
  std::abort();
}

void report_deadlock() {
  std::string text;
  int kinds = 0;
  std::vector<const Fiber*> seen;
  for (const Fiber& f : cluster.fibers) {
    if (f.done) continue;
    bool known = false;
    for (const Fiber* s : seen) known |= s->waits == f.waits && s->site.line == f.site.line && s->block == f.block;
    if (known || ++kinds > 4) continue;
    seen.push_back(&f);
    text += (text.empty() ? "" : "; ") + std::string("thread ") + std::to_string(f.thread) + " of block " +
            std::to_string(f.block) + " at " + f.waits + " (" + at(f.site) + ")";
  }
  finding(true, "divergent barrier", "nobody can go on: %s", text.c_str());
}

void run_cluster(const dim3& first) {
  const LaunchShape& s = *cluster.shape;
  const int threads = cluster.threads;
  const size_t blocks = cluster.blocks.size();
  cluster.alive = threads * static_cast<int>(blocks);
  cluster.ready.clear();
  for (size_t b = 0; b < blocks; ++b) {
    Block& block = cluster.blocks[b];
    char* shared = block.shared;
    block = Block();
    block.shared = shared;
    const auto rank = static_cast<unsigned>(b);
    block.index = {first.x + rank % s.cluster.x, first.y + rank / s.cluster.x % s.cluster.y,
                   first.z + rank / s.cluster.x / s.cluster.y};
    block.live = threads;
    block.warps.resize(static_cast<size_t>(threads + 31) / 32);
    block.shared_used = s.shared_bytes + kGuard;
    block.variables.push_back({"dynamic shared memory", 0, s.shared_bytes});
    unpoison(block.shared, kSharedBytes);
    std::memset(block.shared, 0xff, block.shared_used);  // a NaN of every float type
    poison(block.shared + s.shared_bytes, kGuard);
    for (int t = 0; t < threads; ++t) {
      const size_t i = b * static_cast<size_t>(threads) + static_cast<size_t>(t);
      Fiber& f = cluster.fibers[i];
      f.index = static_cast<int>(i);
      f.thread = t;
      f.block = static_cast<int>(b);
      const auto u = static_cast<unsigned>(t);
      f.thread_index = {u % s.block.x, u / s.block.x % s.block.y, u / s.block.x / s.block.y};
      f.done = false;
      f.waits = nullptr;
      f.copies.clear();
      f.stack = stacks_begin + i * kStack + kPage;
      f.fake_stack = nullptr;
      f.sp = make_fiber(f.stack, kStack - kPage, fiber_entry);
      cluster.ready.push_back(f.index);
    }
  }
  begin_cluster(cluster.alive, static_cast<int>(blocks));
  hopper_begin_cluster();
  switch_to(nullptr, next_fiber());
  if (cluster.failed) return;
  if (cluster.alive) report_deadlock();
  cluster.current = nullptr;
  for (const Block& b : cluster.blocks) {
    unpoison(b.shared, kSharedBytes);
    for (const SharedVariable& v : b.variables)
      for (size_t i = 0; i < kGuard; ++i)
        if (static_cast<unsigned char>(b.shared[v.end + i]) != 0xff)
          return finding(true, "out of bounds", "block (%u,%u,%u) wrote %zu bytes past the end of %s", b.index.x,
                         b.index.y, b.index.z, i, v.name);
  }
}

// A launch that cannot be made is an error, as on a GPU.
bool valid(const LaunchShape& s) {
  const uint64_t threads = uint64_t{s.block.x} * s.block.y * s.block.z;
  const uint64_t size = uint64_t{s.cluster.x} * s.cluster.y * s.cluster.z;
  const bool fits = threads > 0 && threads <= 1024 && size > 0 && size <= 16 && s.grid.x > 0 && s.grid.y > 0 &&
                    s.grid.z > 0 && s.grid.y <= 65535 && s.grid.z <= 65535 && s.grid.x % s.cluster.x == 0 &&
                    s.grid.y % s.cluster.y == 0 && s.grid.z % s.cluster.z == 0 && s.shared_bytes <= kSharedLimit;
  if (!fits)
    finding(true, "launch", "grid (%u,%u,%u), block (%u,%u,%u), cluster (%u,%u,%u), %zu bytes of shared memory",
            s.grid.x, s.grid.y, s.grid.z, s.block.x, s.block.y, s.block.z, s.cluster.x, s.cluster.y, s.cluster.z,
            s.shared_bytes);
  return fits;
}

}  // namespace

bool on_fiber_stack(const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - stacks_begin) < stacks_count * kStack;
}

// Ends the launch from inside a thread: its stack, and everybody's, is left as it is.
void abandon() {
  cluster.failed = true;
  if (Fiber* self = cluster.current) {
    self->done = true;
    switch_to(self, nullptr);
  }
}

void launch(const LaunchShape& shape) {
  static std::mutex mutex;  // one emulated device: launches of several host threads take turns
  std::lock_guard lock(mutex);
  begin_launch();
  cluster.shape = &shape;
  cluster.failed = false;
  if (valid(shape)) {
    cluster.seed = seed_from_environment();
    // The order depends on the seed and the kernel, not on what ran before, so that a finding can be had again.
    cluster.random.s = 0x9E3779B97F4A7C15ull * (cluster.seed + 1);
    for (const char* c = shape.kernel; *c; ++c) cluster.random.s = (cluster.random.s ^ uint64_t(*c)) * 0x100000001b3ull;
    cluster.random.s |= 1;
    const dim3 n(shape.grid.x / shape.cluster.x, shape.grid.y / shape.cluster.y, shape.grid.z / shape.cluster.z);
    const size_t size = size_t{shape.cluster.x} * shape.cluster.y * shape.cluster.z;
    cluster.threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
    reserve_stacks(size * static_cast<size_t>(cluster.threads));
    cluster.fibers.resize(size * static_cast<size_t>(cluster.threads));
    while (cluster.blocks.size() > size) {
      ::free(cluster.blocks.back().shared);
      cluster.blocks.pop_back();
    }
    while (cluster.blocks.size() < size) {
      cluster.blocks.emplace_back();
      void* p = nullptr;
      if (posix_memalign(&p, 1024, kSharedBytes) != 0) std::abort();
      cluster.blocks.back().shared = static_cast<char*>(p);
    }
    blockDim = shape.block;
    gridDim = shape.grid;
    const uint64_t count = uint64_t{n.x} * n.y * n.z;
    uint64_t step = count > 2 ? cluster.random.next() % count : 1, start = cluster.random.next() % count;
    while (std::gcd(step, count) != 1) ++step;
    for (uint64_t i = 0; i < count && !cluster.failed; ++i) {
      const uint64_t at = static_cast<uint64_t>((static_cast<unsigned __int128>(i) * step + start) % count);
      run_cluster(dim3(static_cast<unsigned>(at % n.x) * shape.cluster.x,
                       static_cast<unsigned>(at / n.x % n.y) * shape.cluster.y,
                       static_cast<unsigned>(at / n.x / n.y) * shape.cluster.z));
    }
  }
  cluster.current = nullptr;
  end_launch();
}

int lane() { return cluster.current->lane(); }

void wait(const char* what, Site site) {
  cluster.current->waits = what;
  cluster.current->site = site;
  leave();
}
void wake(Fiber* f) {
  f->waits = nullptr;
  cluster.ready.push_back(f->index);
}
void yield() {
  wake(cluster.current);
  leave();
}
void atomic_point() {
  if (cluster.random.below(4) == 0) yield();
}

int barrier(int id, int threads, Vote vote, int predicate, Site site) {
  Fiber* self = cluster.current;
  Block& block = block_of(self);
  Barrier& b = block.barriers[id];
  const int expected = threads ? threads : block.live;
  if (b.arrived == 0) {
    b.vote = vote, b.site = site, b.expected = expected, b.sum = 0, b.all = true;
  } else if (b.vote != vote || b.expected != expected || (id == 0 && b.site.line != site.line)) {
    finding(true, "divergent barrier", "this thread came to barrier %d at %s, others are at %s", id, at(site).c_str(),
            at(b.site).c_str());
  }
  b.sum += predicate != 0;
  b.all &= predicate != 0;
  b.waiting.push_back(self);
  if (++b.arrived < b.expected) {
    if (b.expected > block.live - block.exited)
      finding(true, "divergent barrier", "this thread waits at %s for %d threads, but %d have returned",
              at(site).c_str(), b.expected, block.exited);
    wait("a barrier", site);
    return self->result;
  }
  clocks_meet(b.waiting.data(), b.arrived);
  const int result = vote == Vote::kCount ? b.sum : vote == Vote::kAnd ? b.all : b.sum > 0;
  b.arrived = 0;
  for (Fiber* f : b.waiting) {
    f->result = result;
    if (f != self) wake(f);
  }
  b.waiting.clear();
  yield();
  return result;
}

void collective(const char* name, unsigned mask, const void* in, void* out, Combine combine, const void* extra,
                Site site) {
  Fiber* self = cluster.current;
  Block& block = block_of(self);
  const int warp = self->thread / 32, lane = self->lane();
  auto& pending = block.warps[static_cast<size_t>(warp)];
  if (!(mask >> lane & 1))
    finding(true, "absent lane", "%s at %s: mask 0x%08x does not name lane %d, which calls it", name, at(site).c_str(),
            mask, lane);
  Collective* mine = nullptr;
  for (Collective& c : pending) {
    if (c.mask == mask && c.name == name) mine = &c;
    else if (c.mask & mask)
      finding(true, "divergent warp",
              "lane %d came to %s at %s with mask 0x%08x, others are at %s (%s) with mask 0x%08x", lane, name,
              at(site).c_str(), mask, c.name, at(c.site).c_str(), c.mask);
  }
  if (!mine) {
    for (int i = 0; i < 32; ++i) {
      const int t = warp * 32 + i;
      if (!(mask >> i & 1)) continue;
      if (t >= block.live || cluster.fibers[static_cast<size_t>(self->block * block.live + t)].done)
        finding(true, "absent lane", "%s at %s: mask 0x%08x names lane %d, which %s", name, at(site).c_str(), mask, i,
                t >= block.live ? "the block does not have" : "has returned");
    }
    pending.emplace_back();
    mine = &pending.back();
    mine->name = name, mine->mask = mask, mine->site = site;
  }
  mine->in[lane] = in;
  mine->out[lane] = out;
  mine->fiber[lane] = self;
  mine->arrived |= 1u << lane;
  if (mine->arrived != mask) return wait(name, site);
  const Collective c = *mine;
  pending.erase(pending.begin() + (mine - pending.data()));
  if (combine) combine(mask, c.in, c.out, extra);
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && i != lane) wake(c.fiber[i]);
  if (!combine && kChecked) {  // __syncwarp orders memory; shuffles and votes do not
    Fiber* all[32];
    int n = 0;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) all[n++] = c.fiber[i];
    clocks_meet(all, n);
  }
  yield();
}

void sync_warp(unsigned mask, Site site) { collective("__syncwarp", mask, nullptr, nullptr, nullptr, nullptr, site); }

void* dynamic_shared_bytes() { return block_of(cluster.current).shared; }

void* shared_variable(const void* key, const char* name, size_t bytes, size_t align) {
  Block& b = block_of(cluster.current);
  if (const auto it = b.by_key.find(key); it != b.by_key.end()) return b.shared + it->second;
  const size_t begin = (b.shared_used + align - 1) / align * align;
  b.static_bytes += bytes;
  if (b.static_bytes > kStaticLimit || b.static_bytes + cluster.shape->shared_bytes > kSharedLimit ||
      begin + bytes + kGuard > kSharedBytes)
    finding(true, "launch", "%zu bytes of static and %zu of dynamic shared memory are more than a block can have",
            b.static_bytes, cluster.shape->shared_bytes);
  std::memset(b.shared + b.shared_used, 0xff, begin + bytes + kGuard - b.shared_used);
  b.shared_used = begin + bytes + kGuard;
  b.by_key[key] = begin;
  b.variables.push_back({name, begin, begin + bytes});
  poison(b.shared + begin + bytes, kGuard);
  return b.shared + begin;
}

namespace {
void land(const AsyncCopy& c) {
  touch(c.dst, static_cast<size_t>(c.bytes), true);
  std::memcpy(c.dst, c.src, static_cast<size_t>(c.valid));
  std::memset(static_cast<char*>(c.dst) + c.valid, 0, static_cast<size_t>(c.bytes - c.valid));
}
}  // namespace

// Lands here and now, or as late as a wait allows: each copy as the seed will have it.
void copy_async(void* dst, const void* src, int bytes, int valid) {
  Fiber* f = cluster.current;
  if (valid > 0) touch(src, static_cast<size_t>(valid), false);
  const AsyncCopy c{dst, src, bytes, valid};
  if (cluster.random.below(2)) return land(c);
  if (f->copies.empty()) f->copies.emplace_back();
  f->copies.back().push_back(c);
}
void copy_async_commit() {
  auto& groups = cluster.current->copies;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
void copy_async_wait(int groups_left) {
  auto& groups = cluster.current->copies;  // the last one is open
  const bool all = groups_left < 0;
  while (!groups.empty() && (all || groups.size() > static_cast<size_t>(groups_left) + 1)) {
    for (const AsyncCopy& c : groups.front()) land(c);
    groups.erase(groups.begin());
  }
}

// The pattern of a sum that the last block finishes: true in every thread of the block that comes last, which may then
// read what all others wrote.
bool last_block(unsigned* counter, unsigned total) {
  const Site site = Site::here();
  barrier(0, 0, Vote::kNone, 0, site);
  int last = 0;
  if (cluster.current->thread == 0) {
    touch(counter, sizeof *counter, true, true);
    last = ++*counter == total;
    if (last) *counter = 0;
  }
  last = barrier(0, 0, Vote::kOr, last, {site.file, site.line + 1});
  if (last) clock_after_all_blocks(cluster.current->index);
  return last;
}

}  // namespace tw::simt
