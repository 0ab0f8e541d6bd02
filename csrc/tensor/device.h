#pragma once
#include <cstdint>

namespace tw {

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int8_t index = 0;
  friend bool operator==(Device a, Device b) { return a.type == b.type && a.index == b.index; }
};

const char* name(DeviceType t);

}  // namespace tw
