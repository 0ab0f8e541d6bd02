#include "tensor/cuda.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "check.h"
#include "kernel_table.h"

namespace tw::cuda {
namespace {

std::string folder = ".";

struct Loaded {
  const Backend* backend = nullptr;
  std::string why;
  int devices = 0;
  pid_t process = 0;
};

thread_local std::string t_no_workspace;  // why a kernel got none

void* host_allocate(size_t bytes) {
  try {
    return allocate(bytes, current_device(), "workspace");
  } catch (const std::exception& e) {
    t_no_workspace = e.what();
    return nullptr;
  }
}
void host_release(void* block) { release(block); }
constexpr BackendHost kHost = {host_allocate, host_release};

Loaded load() {
  Loaded l;
  l.process = getpid();
  const char* asked = std::getenv("TILEWRIGHT_CUDA");
  const std::string want = asked && *asked ? asked : "auto";
  if (want == "off") {
    l.why = "TILEWRIGHT_CUDA=off";
    return l;
  }
  if (want != "auto" && want != "on" && want != "simt") {
    l.why = "TILEWRIGHT_CUDA must be on, off or simt, got '" + want + "'";
    return l;
  }
  const char* checks = std::getenv("TILEWRIGHT_SIMT_CHECKS");
  const bool checked = checks && *checks && *checks != '0';
  const std::string file = folder + (want != "simt" ? "/_cuda.so" : checked ? "/_simt_checked.so" : "/_simt.so");
  if (access(file.c_str(), R_OK) != 0) {
    l.why = want == "simt" ? "this build has no emulator (-DTILEWRIGHT_SIMT=ON makes one)"
                           : "this build of tilewright has no CUDA kernels";
    return l;
  }
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  auto* entry = library ? reinterpret_cast<BackendEntry>(dlsym(library, kBackendEntry)) : nullptr;
  if (!entry) {
    const char* error = dlerror();
    l.why = std::string("cannot load ") + file + ": " + (error ? error : "it has another version");
    return l;
  }
  const Backend* b = entry(&kHost);
  if (b->table_bytes != sizeof(KernelTable)) {
    l.why = file + " was built from other sources than the engine";
    return l;
  }
  if (const char* why = b->why_not()) {
    l.why = why;
    return l;
  }
  l.backend = b;
  l.devices = b->device_count();
  return l;
}

bool g_started = false;
Loaded& loaded() {
  static Loaded l = [] {
    Loaded made = load();
    g_started = made.backend != nullptr;
    return made;
  }();
  return l;
}

constexpr int kMaxDevices = 64;
constexpr int kPinned = kMaxDevices;  // in a Block's place of a device: pinned memory of the host
thread_local int t_device = 0;
thread_local StreamHandle t_streams[kMaxDevices] = {};

[[noreturn]] void fail_with(const char* op) {
  const char* text = backend().take_error();
  fail<std::runtime_error>(op, ": ", text ? text : "the CUDA call failed");
}

// --- the caching allocator --
struct Block {
  size_t bytes, asked;  // of its size class, and what was asked for
  int device;
  StreamHandle stream;                               // null for pinned memory
  std::vector<std::pair<int, StreamHandle>> others;  // a device and its stream that used it besides
};
struct Waiting {  // freed, but other streams may still use it
  void* data;
  Block block;
  std::vector<EventHandle> events;
};
struct Cache {
  std::mutex mutex;
  std::map<char*, Block> live;
  std::map<std::tuple<int, StreamHandle, size_t>, std::vector<void*>> free;
  std::vector<Waiting> waiting;
  MemoryStats stats[kMaxDevices + 1];
};
Cache& cache() {  // never destroyed, as the CPU's
  static Cache* c = new Cache;
  return *c;
}

// 512 bytes at least, then 8 classes an octave.
size_t class_bytes(size_t n) {
  size_t step = 512;
  while (n > 16 * step) step *= 2;
  return (n + step - 1) / step * step;
}

void put_back(Cache& c, void* data, const Block& b) { c.free[{b.device, b.stream, b.bytes}].push_back(data); }

void poll(Cache& c) {
  const Backend& d = backend();
  for (size_t i = 0; i < c.waiting.size();) {
    Waiting& w = c.waiting[i];
    while (!w.events.empty() && d.event_query(w.events.back())) {
      d.event_destroy(w.events.back());
      w.events.pop_back();
    }
    if (!w.events.empty()) {
      ++i;
      continue;
    }
    put_back(c, w.data, w.block);
    std::swap(w, c.waiting.back());
    c.waiting.pop_back();
  }
}

void empty_locked(Cache& c) {
  const Backend& d = backend();
  for (const Waiting& w : c.waiting)
    for (EventHandle e : w.events) d.event_synchronize(e);
  poll(c);
  for (auto& [key, blocks] : c.free)
    for (void* p : blocks) {
      std::get<0>(key) == kPinned ? d.release_host(p) : d.release(p);
      c.stats[std::get<0>(key)].reserved_bytes -= static_cast<int64_t>(std::get<2>(key));
    }
  c.free.clear();
}

}  // namespace

void set_backend_folder(const std::string& f) { folder = f; }
bool started() { return g_started; }

const Backend* backend_or_null() {
  const Loaded& l = loaded();
  TW_CHECK_AS(std::runtime_error, !l.backend || l.process == getpid(),
              "cuda: cannot be used in a process forked after CUDA was started; start workers with 'spawn'");
  return l.backend;
}
const std::string& why_not() { return loaded().why; }
const Backend& backend() {
  const Backend* b = backend_or_null();
  if (__builtin_expect(!b, 0)) fail<std::runtime_error>("cuda: not available: ", why_not(), "; use device='cpu'");
  return *b;
}
int device_count() { return backend_or_null() ? loaded().devices : 0; }

void check(const char* op) {
  if (__builtin_expect(!t_no_workspace.empty(), 0)) {
    backend().take_error();
    fail<OutOfMemory>(op, ": ", std::exchange(t_no_workspace, {}));
  }
  if (const char* text = backend().take_error()) fail<std::runtime_error>(op, ": ", text);
  Fault* f = backend().fault();
  if (__builtin_expect(__atomic_load_n(&f->complete, __ATOMIC_ACQUIRE), 0)) {
    const Fault seen = *f;
    f->complete = 0;
    __atomic_store_n(&f->claimed, 0, __ATOMIC_RELEASE);
    fail<std::out_of_range>(seen.op, ": ", seen.rule, " in [", seen.low, ", ", seen.high, "), got ", seen.value,
                            " at position ", seen.position);
  }
}

int current_device() { return t_device; }
void set_device(int device) {
  const Backend& b = backend();
  TW_CHECK(device >= 0 && device < loaded().devices, "cuda: device must be in [0, ", loaded().devices, "), got ",
           device);
  if (!b.set_device(device)) fail_with("set_device");
  t_device = device;
  b.set_stream(t_streams[device]);
}
StreamHandle current_stream(int device) { return t_streams[device]; }
void set_current_stream(int device, StreamHandle s) {
  t_streams[device] = s;
  if (device == t_device) backend().set_stream(s);
}

namespace {

// A block of a device, or with kPinned of pinned memory.
void* take(size_t bytes, int device, const char* op) {
  const Backend& d = backend();
  if (bytes == 0) return nullptr;
  const bool pinned = device == kPinned;
  const auto fresh = pinned ? d.allocate_host : d.allocate;
  Cache& c = cache();
  const DeviceGuard guard(pinned ? t_device : device);
  std::lock_guard lock(c.mutex);
  poll(c);
  MemoryStats& s = c.stats[device];
  const Block b{class_bytes(bytes), bytes, device, pinned ? nullptr : t_streams[device], {}};
  void* p = nullptr;
  if (const auto it = c.free.find({device, b.stream, b.bytes}); it != c.free.end() && !it->second.empty()) {
    p = it->second.back();
    it->second.pop_back();
    ++s.cache_hits;
  } else {
    p = fresh(b.bytes);
    if (!p) {
      d.take_error();
      empty_locked(c);
      p = fresh(b.bytes);
    }
    if (!p) {
      d.take_error();
      const double unit = 1 << 20, asked = static_cast<double>(bytes) / unit;
      const double in_tensors = static_cast<double>(s.allocated_bytes) / unit;
      if (pinned)
        fail<OutOfMemory>(op, ": cannot pin host memory, asked for ", asked, " MiB; ", in_tensors, " MiB are pinned");
      int64_t free = 0, total = 0;
      d.memory_info(device, &free, &total);
      fail<OutOfMemory>(op, ": out of memory on cuda:", device, ", asked for ", asked, " MiB of ",
                        static_cast<double>(total) / unit, " MiB; ", in_tensors, " MiB are in tensors, ",
                        static_cast<double>(s.reserved_bytes - s.allocated_bytes) / unit, " MiB cached, ",
                        static_cast<double>(free) / unit, " MiB free");
    }
    s.reserved_bytes += static_cast<int64_t>(b.bytes);
  }
  ++s.allocations;
  s.allocated_bytes += static_cast<int64_t>(b.bytes);
  if (s.allocated_bytes > s.peak_allocated_bytes) s.peak_allocated_bytes = s.allocated_bytes;
  c.live[static_cast<char*>(p)] = b;
  if (!pinned) d.extent(p, bytes, op);
  return p;
}

// The live block that holds an address, or end.
std::map<char*, Block>::iterator holding(Cache& c, const void* p) {
  auto* address = const_cast<char*>(static_cast<const char*>(p));
  auto it = c.live.upper_bound(address);
  if (it == c.live.begin()) return c.live.end();
  --it;
  return address < it->first + it->second.asked ? it : c.live.end();
}

// Whether the address lies in pinned memory; then that waits for what the stream does now before it is used again.
bool used_pinned(const void* p, int device) {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  const auto it = holding(c, p);
  if (it == c.live.end() || it->second.device != kPinned) return false;
  const std::pair user{device, t_streams[device]};
  auto& others = it->second.others;
  if (std::find(others.begin(), others.end(), user) == others.end()) others.push_back(user);
  return true;
}

// What `later` is given from now on waits for what `earlier` has been given.
void wait_for(int later, int earlier) {
  const Backend& d = backend();
  EventHandle e = nullptr;
  {
    const DeviceGuard guard(earlier);
    if (!d.event_create(false, &e) || !d.event_record(e, t_streams[earlier])) fail_with("copy");
  }
  const DeviceGuard guard(later);
  if (!d.stream_wait(t_streams[later], e)) fail_with("copy");
  d.event_destroy(e);
}

}  // namespace

void* allocate(size_t bytes, int device, const char* op) {
  backend();
  TW_CHECK(device < loaded().devices, op, ": no such device, got cuda:", device, " of ", loaded().devices);
  return take(bytes, device, op);
}
void* allocate_pinned(size_t bytes, const char* op) { return take(bytes, kPinned, op); }

void release(void* block) {
  if (!block || loaded().process != getpid()) return;
  const Backend& d = *loaded().backend;
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  const auto it = c.live.find(static_cast<char*>(block));
  if (it == c.live.end()) return;
  Block b = std::move(it->second);
  c.live.erase(it);
  c.stats[b.device].allocated_bytes -= static_cast<int64_t>(b.bytes);
  if (b.device != kPinned) d.extent(block, 0, nullptr);
  if (b.others.empty()) return put_back(c, block, b);
  Waiting w{block, b, {}};
  for (const auto& [device, s] : b.others) {
    const DeviceGuard guard(device);
    EventHandle e = nullptr;
    if (d.event_create(false, &e) && d.event_record(e, s)) w.events.push_back(e);
    else d.stream_synchronize(s);
  }
  c.waiting.push_back(std::move(w));
}

void record_stream(void* block, StreamHandle s) {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  const auto it = holding(c, block);
  if (it == c.live.end() || it->second.stream == s) return;
  Block& b = it->second;
  const std::pair user{b.device, s};
  if (std::find(b.others.begin(), b.others.end(), user) == b.others.end()) b.others.push_back(user);
}

void empty_cache() {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  empty_locked(c);
}

MemoryStats memory_stats(int device) {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  return c.stats[device];
}
void reset_peak(int device) {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  c.stats[device].peak_allocated_bytes = c.stats[device].allocated_bytes;
}

bool find_block(const void* p, Extent* extent) {
  Cache& c = cache();
  std::lock_guard lock(c.mutex);
  const auto it = holding(c, p);
  if (it == c.live.end() || it->second.device == kPinned) return false;
  *extent = {it->first, it->second.asked, it->second.device};
  return true;
}

void copy(void* dst, Device to, const void* src, Device from, size_t bytes, bool non_blocking) {
  if (bytes == 0) return;
  const Backend& d = backend();
  const bool to_host = to.type == DeviceType::kCpu, from_host = from.type == DeviceType::kCpu;
  const int device = to_host ? from.index : to.index;
  const bool across = !to_host && !from_host && from.index != to.index;
  if (across) wait_for(to.index, from.index);
  {
    const DeviceGuard guard(device);
    const CopyKind kind = to_host ? CopyKind::kToHost : from_host ? CopyKind::kToDevice : CopyKind::kOnDevice;
    if (!d.copy(dst, src, bytes, kind, t_streams[device])) fail_with("copy");
    // The driver has read pageable memory when it returns from a copy to the device, and has not yet read pinned memory.
    const bool pinned = to_host ? used_pinned(dst, device) : from_host && used_pinned(src, device);
    const bool wait = to_host ? !(pinned && non_blocking) : pinned && !non_blocking;
    if (wait && !d.stream_synchronize(t_streams[device])) fail_with("copy");
    if (wait) check("copy");
  }
  if (across) wait_for(from.index, to.index);  // before the source's memory is used for something else
}

void synchronize(int device) {
  const DeviceGuard guard(device);
  if (!backend().device_synchronize()) fail_with("synchronize");
  check("synchronize");
}

}  // namespace tw::cuda
