// Built with no ISA flags: it runs before the level is known.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#include "check.h"
#include "cpu_levels.h"

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
  if (device.type != DeviceType::kCpu)
    fail<std::runtime_error>("cuda: this build of tilewright has no CUDA kernels; use device='cpu'");
  return *level().table;
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

std::string which(const std::string& kernel, Device device) {
  const KernelTable& t = table(device);
#define X(n, Args) \
  if (kernel == #n) return t.n ? t.name : "none";
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

void Plan::replay(int64_t times) const {
  for (int64_t t = 0; t < times; ++t)
    for (const Step& s : steps_) s.call(s.kernel, s.args.get());
}

}  // namespace tw
