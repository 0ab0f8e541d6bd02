// Shapes and strides, and the rules on them that need no array.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

namespace tw {

constexpr int kMaxDims = 8;

struct Dims {
  int n = 0;
  int64_t d[kMaxDims];
  Dims() = default;
  Dims(std::initializer_list<int64_t> list) {
    for (int64_t v : list) d[n++] = v;
  }
  Dims(const int64_t* p, int count) : n(count) {
    for (int i = 0; i < count; ++i) d[i] = p[i];
  }
  int64_t& operator[](int i) { return d[i]; }
  int64_t operator[](int i) const { return d[i]; }
  void push(int64_t v) { d[n++] = v; }
  friend bool operator==(const Dims& a, const Dims& b) {
    if (a.n != b.n) return false;
    for (int i = 0; i < a.n; ++i)
      if (a.d[i] != b.d[i]) return false;
    return true;
  }
};
std::string str_of(const Dims& dims);                      // "(2, 3)", "(4,)", "()"
int64_t checked_numel(const char* op, const Dims& shape);  // refuses negative sizes and products past int64
Dims contiguous_strides(const Dims& shape);
int wrap_dim(const char* op, int64_t dim, int ndim);  // -1 -> ndim - 1; IndexError outside
// The common shape under NumPy's broadcasting; the message names both shapes.
Dims broadcast_shapes(const char* op, const Dims& a, const Dims& b);

}  // namespace tw
