// Device -> table, and the only place where a launch happens.
#pragma once
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel_table.h"

namespace tw {

// A slot by name: slots::softmax is {"softmax", &KernelTable::softmax}.
template <class Args> struct Slot {
  const char* name;
  void (*KernelTable::*member)(const Args&);
};
namespace slots {
#define X(name, Args) inline constexpr Slot<Args> name{#name, &KernelTable::name};
TW_ALL_KERNELS
#undef X
}  // namespace slots

// The table of a device. CPU: the best level this machine has, or TILEWRIGHT_CPU's, chosen at the first call.
const KernelTable& table(Device device);
const char* cpu_capability();           // "avx512"
std::vector<const char*> cpu_levels();  // levels built and supported here, best first
std::vector<const char*> kernel_names();
std::string which(const std::string& kernel, Device device);  // "cpu_avx512"

// A recorded sequence of launches over fixed memory: replayed from C++, with no Python at all.
class Plan {
 public:
  void replay(int64_t times) const;
  size_t size() const { return steps_.size(); }
  void keep(const StorageRef& s);
  std::vector<std::string> names() const {
    std::vector<std::string> v;
    for (const Step& s : steps_) v.push_back(s.name);
    return v;
  }
  template <class Args> void add(const char* name, void (*kernel)(const Args&), const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>);
    add(name, &call_kernel<Args>, reinterpret_cast<void (*)()>(kernel), &args, sizeof(Args));
  }
  void add(const char* name, void (*call)(void (*kernel)(), const void* args), void (*kernel)(), const void* args,
           size_t bytes) {
    auto copy = std::make_unique<char[]>(bytes);
    __builtin_memcpy(copy.get(), args, bytes);
    steps_.push_back({name, call, kernel, std::move(copy)});
  }
  template <class Args> static void call_kernel(void (*kernel)(), const void* args) {
    reinterpret_cast<void (*)(const Args&)>(kernel)(*static_cast<const Args*>(args));
  }

 private:
  struct Step {
    const char* name;
    void (*call)(void (*kernel)(), const void* args);
    void (*kernel)();
    std::unique_ptr<char[]> args;
  };
  std::vector<Step> steps_;
  std::vector<StorageRef> kept_;
};

// The plan being recorded by this thread, if any. A recorded launch runs as well, so code that reads values works.
extern thread_local Plan* recording_plan;
inline bool recording() { return recording_plan != nullptr; }
void keep_while_recording(const StorageRef& s);

void set_warning(void (*warn)(const std::string& text));  // takes what a user should hear once
[[noreturn]] void fail_no_kernel(const char* name, Device device);

// Sets the device for the launch; a slot without a kernel runs on the CPU over copies of the device memory that its
// arguments point into, with one warning an op. Raises what the launch has to report.
void launch_cuda(Device device, const char* name, void (*kernel)(), void (*cpu)(),
                 void (*call)(void (*kernel)(), const void* args), void* args, size_t bytes, void* list,
                 size_t list_bytes);
// Arguments that point to a list of further pointers in host memory name it by overloading these.
template <class Args> std::pair<void*, size_t> pointer_list(const Args& args) {
  if constexpr (requires { args.tensors; })
    return {const_cast<OptimTensor*>(args.tensors), static_cast<size_t>(args.count) * sizeof(OptimTensor)};
  else return {nullptr, 0};
}

template <class Args> void launch(Device device, const Slot<Args>& slot, const Args& args) {
  if (__builtin_expect(device.type == DeviceType::kCuda, 0)) {
    Args copy = args;
    const auto [list, bytes] = pointer_list(args);
    return launch_cuda(device, slot.name, reinterpret_cast<void (*)()>(table(device).*slot.member),
                       reinterpret_cast<void (*)()>(table({}).*slot.member), &Plan::call_kernel<Args>, &copy,
                       sizeof(Args), list, bytes);
  }
  auto kernel = table(device).*slot.member;
  if (__builtin_expect(!kernel, 0)) fail_no_kernel(slot.name, device);
  if (__builtin_expect(recording(), 0)) recording_plan->add(slot.name, kernel, args);
  kernel(args);
}

}  // namespace tw
