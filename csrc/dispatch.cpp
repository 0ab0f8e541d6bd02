// Built with no ISA flags: it runs before the level is known.
#include "dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "check.h"
#include "cpu_levels.h"
#include "tensor/cuda.h"

namespace tw {

#define TW_X(level)                      \
  namespace level {                      \
  extern const KernelTable kernel_table; \
  }
TW_CPU_LEVELS(TW_X)
#undef TW_X

namespace {

// "scalar" is the wheel's baseline and always runs. The others ask for all that their compiler flags assume.
bool supported(const char* level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!std::strcmp(level, "avx2")) return __builtin_cpu_supports("x86-64-v3");
  if (!std::strcmp(level, "avx512")) return __builtin_cpu_supports("x86-64-v4");
#endif
  return !std::strcmp(level, "scalar");
}

struct Level {
  const char* name;
  const KernelTable* table;
};
constexpr Level kLevels[] = {  // from the plainest to the best
#define TW_X(level) {#level, &level::kernel_table},
    TW_CPU_LEVELS(TW_X)
#undef TW_X
};

std::string level_list() {
  std::string s;
  for (const char* n : cpu_levels()) s += (s.empty() ? "" : ", ") + std::string(n);
  return s;
}

const Level& choose() {
  const char* forced = std::getenv("TILEWRIGHT_CPU");
  if (forced && *forced) {
    for (const Level& l : kLevels)
      if (!std::strcmp(l.name, forced) && supported(l.name)) return l;
    fail<std::runtime_error>("TILEWRIGHT_CPU: must be a level that this build and machine have (", level_list(),
                             "), got '", forced, "'");
  }
  const Level* best = &kLevels[0];
  for (const Level& l : kLevels)
    if (supported(l.name)) best = &l;
  return *best;
}

const Level& level() {
  static const Level& l = choose();
  return l;
}

}  // namespace

std::vector<const char*> cpu_levels() {
  std::vector<const char*> v;
  for (const Level& l : kLevels)
    if (supported(l.name)) v.insert(v.begin(), l.name);
  return v;
}

const char* cpu_capability() { return level().name; }

const KernelTable& table(Device device) {
  return device.type == DeviceType::kCpu ? *level().table : *cuda::backend().table;
}

void fail_no_kernel(const char* name, Device device) {
  fail<NotImplemented>(name, ": no kernel on ", tw::name(device.type));
}

std::vector<const char*> kernel_names() {
  return {
#define X(name, Args) #name,
      TW_ALL_KERNELS
#undef X
  };
}

// TILEWRIGHT_CUDA_WITHOUT=softmax,pad: CUDA kernels to do without, to find out whether one of them is at fault.
static bool left_out(const std::string& kernel) {
  static const std::string names = [] {
    const char* given = std::getenv("TILEWRIGHT_CUDA_WITHOUT");
    return given ? "," + std::string(given) + "," : std::string();
  }();
  return !names.empty() && names.find("," + kernel + ",") != std::string::npos;
}

// An op without a CUDA kernel runs on the CPU's table.
std::string which(const std::string& kernel, Device device) {
  const KernelTable &t = table(device), &cpu = table({});
  const bool there = device.type == DeviceType::kCpu || !left_out(kernel);
#define X(n, Args) \
  if (kernel == #n) return t.n && there ? t.name : cpu.n ? cpu.name : "none";
  TW_ALL_KERNELS
#undef X
  fail<std::invalid_argument>("which: no such kernel, got '", kernel, "'");
}

thread_local Plan* recording_plan = nullptr;

void keep_while_recording(const StorageRef& s) { recording_plan->keep(s); }

void Plan::keep(const StorageRef& s) {
  for (const StorageRef& k : kept_)
    if (k.get() == s.get()) return;
  kept_.push_back(s);
}

namespace {

void (*g_warn)(const std::string& text) = nullptr;

// A block of device memory that a launch on the CPU reads or writes, in host memory twice: as the kernel leaves it and
// as it was, so that only what changed goes back.
struct Shadow {
  cuda::Extent on_device;
  std::vector<char> now, before;
};

// Replaces each word that is an address in live device memory by that of its shadow. A word that only looks like one
// (what was left in unused fields) costs a copy and changes nothing.
void shadow_pointers(void* words, size_t bytes, std::vector<std::unique_ptr<Shadow>>& shadows) {
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    char* word;
    std::memcpy(&word, static_cast<char*>(words) + i, 8);
    cuda::Extent e;
    if (!word || !cuda::find_block(word, &e)) continue;
    Shadow* shadow = nullptr;
    for (const auto& s : shadows)
      if (s->on_device.begin == e.begin) shadow = s.get();
    if (!shadow) {
      shadows.push_back(std::make_unique<Shadow>());
      shadow = shadows.back().get();
      shadow->on_device = e;
      shadow->now.resize(e.bytes + 64);
      const Device from{DeviceType::kCuda, static_cast<int8_t>(e.device)};
      cuda::copy(shadow->now.data(), {}, e.begin, from, e.bytes);
      shadow->before = shadow->now;
    }
    word = shadow->now.data() + (word - e.begin);
    std::memcpy(static_cast<char*>(words) + i, &word, 8);
  }
}

}  // namespace

void set_warning(void (*warn)(const std::string& text)) { g_warn = warn; }

void launch_cuda(Device device, const char* name, void (*kernel)(), void (*cpu)(),
                 void (*call)(void (*kernel)(), const void* args), void* args, size_t bytes, void* list,
                 size_t list_bytes) {
  const cuda::DeviceGuard guard(device.index);
  if (kernel && !left_out(name)) {
    if (recording()) recording_plan->add(name, call, kernel, args, bytes);
    call(kernel, args);
    return cuda::check(name);
  }
  if (!cpu) fail_no_kernel(name, device);
  if (recording()) fail<NotImplemented>("Plan: ", name, " has no CUDA kernel, and its fallback cannot be recorded");
  static std::vector<std::string>* warned = new std::vector<std::string>;
  if (std::find(warned->begin(), warned->end(), name) == warned->end()) {
    warned->push_back(name);
    if (g_warn) g_warn(str(name, ": there is no CUDA kernel, it runs on the CPU over copies"));
  }
  std::vector<std::unique_ptr<Shadow>> shadows;
  std::vector<char> kept(static_cast<char*>(list), static_cast<char*>(list) + list_bytes);
  shadow_pointers(args, bytes, shadows);
  shadow_pointers(list, list_bytes, shadows);
  call(cpu, args);
  if (list_bytes) std::memcpy(list, kept.data(), list_bytes);
  for (const auto& s : shadows)
    if (s->now != s->before) cuda::copy(s->on_device.begin, device, s->now.data(), {}, s->on_device.bytes);
}

void Plan::replay(int64_t times) const {
  for (int64_t t = 0; t < times; ++t)
    for (const Step& s : steps_) s.call(s.kernel, s.args.get());
}

}  // namespace tw
