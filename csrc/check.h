// Errors: every message reads "op: rule, got values". The kinds map to Python's own exception classes.
#pragma once
#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace tw {

// std::invalid_argument -> ValueError, std::out_of_range -> IndexError, std::runtime_error -> RuntimeError,
// std::overflow_error -> OverflowError, std::bad_alloc -> MemoryError; these two have no standard counterpart.
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct NotImplemented : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Not through iostreams: their locale belongs to whichever C++ runtime the process loaded first.
template <class T> std::string text_of(const T& value) {
  if constexpr (std::is_floating_point_v<T>) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.15g", static_cast<double>(value));
    return digits;
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, char>) {
    return std::string(1, value);
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else {
    return std::string(value);
  }
}

template <class... Parts> std::string str(const Parts&... parts) { return (std::string() + ... + text_of(parts)); }

template <class E, class... Parts> [[noreturn]] __attribute__((noinline, cold)) void fail(const Parts&... parts) {
  throw E(str(parts...));
}

}  // namespace tw

// The message's parts are evaluated only on failure.
#define TW_CHECK_AS(E, cond, ...)                                 \
  do {                                                            \
    if (__builtin_expect(!(cond), 0)) ::tw::fail<E>(__VA_ARGS__); \
  } while (0)
#define TW_CHECK(cond, ...) TW_CHECK_AS(std::invalid_argument, cond, __VA_ARGS__)
#define TW_CHECK_TYPE(cond, ...) TW_CHECK_AS(::tw::TypeError, cond, __VA_ARGS__)
#define TW_CHECK_INDEX(cond, ...) TW_CHECK_AS(std::out_of_range, cond, __VA_ARGS__)
