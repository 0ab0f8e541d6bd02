// The thread pool behind parallel.h.
//
// One job runs at a time, owned by the thread that called parallel_run. The owner takes pieces from the front and the
// workers from the back until they meet, so a free thread takes what a late one would have done, and nobody waits for a
// thread that never woke up: the owner shuts the gate and waits only for the workers that had come in. Two ends rather
// than one, so that the next job over the same memory finds most of it in the cache of the core that had it before.
// A thread that finds the pool busy with somebody else's job runs its pieces itself.
//
// Idle workers spin for kWorkerSpin and then park on a futex. Measured on 2 cores of an EPYC 9004 guest: a job of empty
// pieces costs its caller 0.1 us while the worker spins and 1.8 us when it is parked (the caller never waits for a
// sleeper); a job that needs the worker takes 0.2 us and 23 us. Those 23 us are the guest's own: waking a thread on
// the other, halted core takes 18 to 23 us there without any pool.
//
// Two cores are at times as fast as one there (256 cubed in 150 or 300 us, for milliseconds on end). That is not a
// worker left out: counted in the slow spells, it took 230 of 460 pieces and neither thread waited for its CPU, so both
// ran at half speed. The likely cause, not provable from inside a guest, is a host that puts both CPUs on one core.
//
// The pool is never destroyed: at exit a worker may still be between two instructions of its loop, and the memory it
// looks at must outlive every static destructor. The kernel ends the parked threads with the process.
#include "parallel.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <thread>
#include <vector>

#include "check.h"

namespace tw {
namespace {

using std::chrono::steady_clock;
constexpr int kMaxThreads = 1024;
constexpr std::chrono::microseconds kWorkerSpin{25};  // what a wake can cost: so never dearer than twice the best
constexpr std::chrono::microseconds kOwnerSpin{50};   // about a piece's length: the last worker is nearly done
constexpr int kWakeFanout = 2;  // a thread wakes two, and they two each: the caller never pays for all the wakes

thread_local bool in_body = false;

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word, int threads) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// True as soon as done() is, false when `limit` has passed.
template <class F> bool spin_until(std::chrono::microseconds limit, F done) {
  if (done()) return true;
  if (limit.count() == 0) return false;
  const auto end = steady_clock::now() + limit;
  do {
    for (int i = 0; i < 16; ++i) {
      pause();
      if (done()) return true;
    }
  } while (steady_clock::now() < end);
  return false;
}

class Pool {
 public:
  std::mutex owner;  // held for the length of a job, and while the number of threads changes

  // With `owner` held, as for stop().
  void run(int threads, int64_t pieces, void (*body)(void*, int64_t), void* context) {
    if (!started_) start(threads);
    body_ = body, context_ = context, pieces_ = pieces;
    taken_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    // Total order between "epoch moves, then sleepers are read" here and "sleepers grows, then the kernel reads epoch"
    // in work(): either this thread sees the sleeper, or the sleeper sees the new epoch and stays awake.
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      keep_workers_off(sched_getcpu());
      futex_wake(epoch_, static_cast<int>(std::min<int64_t>(pieces - 1, kWakeFanout)));
    }
    take_pieces(false);
    uint32_t inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    if (inside == 0) return;
    const auto all_left = [this] { return gate_.load(std::memory_order_acquire) == 0; };
    if (spin_until(oversubscribed_ ? std::chrono::microseconds{0} : kOwnerSpin, all_left)) return;
    inside = gate_.fetch_or(kOwnerParked, std::memory_order_acq_rel) | kOwnerParked;
    while (inside != kOwnerParked) {
      futex_wait(gate_, inside);
      inside = gate_.load(std::memory_order_acquire);
    }
  }

  // The next job starts workers anew, as many as are wanted then.
  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(epoch_, kMaxThreads);
    for (std::thread& t : workers_) t.join();
    workers_.clear();
    stopping_.store(false, std::memory_order_relaxed);
    started_ = false;
  }

 private:
  // gate_: whether workers may come in, whether the owner sleeps until they have left, and how many are inside.
  static constexpr uint32_t kOpen = 1u << 31, kOwnerParked = 1u << 30;

  void start(int threads) {
    started_ = true;
    kept_off_ = -1;
    if (sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) CPU_ZERO(&allowed_);
    workers_.reserve(threads - 1);
    oversubscribed_ = threads > available_cores();
    // Signals belong to the program's own threads; those that a fault raises stay, so that crash handlers see them.
    sigset_t all, before;
    sigfillset(&all);
    for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, s);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const uint32_t seen = epoch_.load(std::memory_order_relaxed);
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this, seen] { work(seen); });
    } catch (const std::exception&) {
      // The process may have no more threads (a pids limit): the work gets done with those there are.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // Takes the owner's CPU out of the workers' affinity. When all have slept, the scheduler may wake a worker on its
  // waker's own CPU though another is idle, and leave it queued there for a tick of some 4 ms: seen on a 2-core guest,
  // where a product after a 10 ms sleep took as long as on one thread. A system call only when the owner has moved.
  void keep_workers_off(int cpu) {
    if (cpu == kept_off_ || cpu < 0 || oversubscribed_) return;
    cpu_set_t others = allowed_;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) < static_cast<int>(workers_.size())) return;
    for (std::thread& t : workers_) pthread_setaffinity_np(t.native_handle(), sizeof others, &others);
    kept_off_ = cpu;
  }

  void work(uint32_t seen) {
    in_body = true;
    pthread_setname_np(pthread_self(), "tilewright");
    for (;;) {
      const auto called = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
      if (!spin_until(oversubscribed_ ? std::chrono::microseconds{0} : kWorkerSpin, called)) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        while (!called()) futex_wait(epoch_, seen);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      if (!enter()) continue;
      if (sleepers_.load(std::memory_order_relaxed) > 0 && taken(taken_.load(std::memory_order_relaxed)) < pieces_) {
        futex_wake(epoch_, kWakeFanout);
      }
      take_pieces(true);
      if (gate_.fetch_sub(1, std::memory_order_acq_rel) == (kOwnerParked | 1)) futex_wake(gate_, 1);
    }
  }

  // Nothing of a job may be read before this succeeds: a late worker would see half of the next one.
  bool enter() {
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while (gate & kOpen) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  // taken_: how many pieces are gone from the front, and in the upper half from the back.
  static constexpr uint64_t kBack = uint64_t{1} << 32;
  static int64_t taken(uint64_t t) { return static_cast<int64_t>(t % kBack + t / kBack); }

  void take_pieces(bool back) {
    for (;;) {
      const uint64_t t = taken_.fetch_add(back ? kBack : 1, std::memory_order_relaxed);
      if (taken(t) >= pieces_) return;
      body_(context_, static_cast<int64_t>(back ? static_cast<uint64_t>(pieces_) - 1 - t / kBack : t % kBack));
    }
  }

  // Owner's, or constant while workers exist.
  std::vector<std::thread> workers_;
  bool started_ = false;
  bool oversubscribed_ = false;
  cpu_set_t allowed_;  // the CPUs of the thread that started the workers
  int kept_off_ = -1;  // the CPU that the workers' affinity leaves out
  std::atomic<bool> stopping_{false};
  // One cache line each: idle workers poll the first, all threads of a job write the others.
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> sleepers_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t pieces_ = 0;
  alignas(64) std::atomic<uint64_t> taken_{0};
};

std::atomic<int> wanted_threads{0};  // 0: not asked for yet
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
  Pool* p = the_pool.load(std::memory_order_acquire);
  if (p) return *p;
  Pool* fresh = new Pool;
  if (the_pool.compare_exchange_strong(p, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *p;
}

// A fork copies only the calling thread: the child's copy of the pool has no workers and its lock may be held for
// ever, so the child forgets it (a leak of one small object) and makes its own when it needs one.
[[maybe_unused]] const int atfork_registered =
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr, std::memory_order_relaxed); });

void run_serially(int64_t pieces, void (*body)(void*, int64_t), void* context) {
  const bool outer = in_body;
  in_body = true;
  for (int64_t i = 0; i < pieces; ++i) body(context, i);
  in_body = outer;
}

// The CPU time per wall time that the process's control groups allow, +inf if no limit is found. `proc_cgroup` has a
// line "id:controllers:path" a hierarchy; every ancestor's limit holds. In a container the path may be the host's,
// while the mount shows the container's own group as the root, so directories that do not exist are passed over.
double cgroup_quota(const std::string& proc_cgroup, const std::string& mount) {
  double least = INFINITY;
  const auto allow = [&](double quota, double period) {
    if (quota > 0 && period > 0) least = std::min(least, quota / period);
  };
  std::ifstream groups(proc_cgroup);
  for (std::string line; std::getline(groups, line);) {
    const size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    const std::string controllers = "," + line.substr(a + 1, b - a - 1) + ",";
    const bool unified = controllers == ",,";
    if (!unified && controllers.find(",cpu,") == std::string::npos) continue;
    for (std::string path = line.substr(b + 1);; path.resize(path.rfind('/'))) {
      while (path.ends_with('/')) path.pop_back();
      double quota, period;
      if (unified) {  // "max 100000" when unlimited, which fails to read as a number
        for (const char* root : {"", "/unified"}) {
          if (std::ifstream(mount + root + path + "/cpu.max") >> quota >> period) allow(quota, period);
        }
      } else {  // quota -1 when unlimited
        for (const char* root : {"/cpu", "/cpu,cpuacct"}) {
          const std::string base = mount + root + path + "/cpu.cfs_";
          if ((std::ifstream(base + "quota_us") >> quota) && (std::ifstream(base + "period_us") >> period)) {
            allow(quota, period);
          }
        }
      }
      if (path.empty()) break;
    }
  }
  return least;
}

int default_threads() {
  const char* text = std::getenv("TILEWRIGHT_NUM_THREADS");
  if (!text || !*text) return std::min(available_cores(), kMaxThreads);
  char* end;
  const long n = std::strtol(text, &end, 10);
  TW_CHECK(*end == '\0' && n >= 1 && n <= kMaxThreads, "TILEWRIGHT_NUM_THREADS: must be a whole number from 1 to ",
           kMaxThreads, ", got '", text, "'");
  return static_cast<int>(n);
}

struct Scratch {
  void* data[kScratchSlots] = {};
  size_t bytes[kScratchSlots] = {};
  ~Scratch() {
    for (int i = 0; i < kScratchSlots; ++i) std::free(data[i]), data[i] = nullptr, bytes[i] = 0;
  }
};
thread_local Scratch thread_scratch;

}  // namespace

void parallel_run(int64_t pieces, void (*body)(void* context, int64_t piece), void* context) {
  if (pieces <= 1 || pieces > INT32_MAX || in_body || num_threads() == 1) return run_serially(pieces, body, context);
  Pool& p = pool();
  std::unique_lock lock(p.owner, std::try_to_lock);
  if (!lock) return run_serially(pieces, body, context);
  in_body = true;
  p.run(num_threads(), pieces, body, context);
  in_body = false;
}

void wait_a_little(int64_t n) {
  if (n < 4096) pause();
  else sched_yield();
}

void* scratch(int slot, size_t bytes) {
  Scratch& s = thread_scratch;
  if (bytes <= s.bytes[slot] && s.data[slot]) return s.data[slot];
  constexpr size_t kHugePage = size_t{2} << 20;
  const bool huge = bytes >= 2 * kHugePage;
  const size_t size = huge ? (bytes + kHugePage - 1) & ~(kHugePage - 1) : std::bit_ceil(std::max<size_t>(bytes, 64));
  std::free(s.data[slot]);
  s.bytes[slot] = 0;
  s.data[slot] = std::aligned_alloc(huge ? kHugePage : 64, size);
  if (!s.data[slot]) throw std::bad_alloc();
  s.bytes[slot] = size;
  if (huge) madvise(s.data[slot], size, MADV_HUGEPAGE);  // advice: where it is refused, small pages do
  return s.data[slot];
}

int num_threads() {
  int n = wanted_threads.load(std::memory_order_relaxed);
  if (n != 0) return n;
  const int fresh = default_threads();
  return wanted_threads.compare_exchange_strong(n, fresh, std::memory_order_relaxed) ? fresh : n;
}

void set_num_threads(int n) {
  TW_CHECK(n >= 1 && n <= kMaxThreads, "set_num_threads: n must be from 1 to ", kMaxThreads, ", got ", n);
  TW_CHECK_AS(std::runtime_error, !in_body, "set_num_threads: cannot be called from inside a parallel body, got ", n);
  Pool& p = pool();
  std::lock_guard lock(p.owner);
  if (wanted_threads.exchange(n, std::memory_order_relaxed) != n) p.stop();
}

int available_cores() {
  cpu_set_t sets[16];  // 16384 cores
  const bool known = sched_getaffinity(0, sizeof sets, sets) == 0;
  const int cores = known ? CPU_COUNT_S(sizeof sets, sets) : static_cast<int>(std::thread::hardware_concurrency());
  // Rounded up: with 1.5 cores' worth of time, two threads get half as much again done as one.
  const double quota = std::ceil(cgroup_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
  return std::max(1, quota < cores ? static_cast<int>(quota) : cores);
}

}  // namespace tw
