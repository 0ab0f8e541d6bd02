// Which items meet along one dimension, for both devices' kernels: pooling windows, and what padding shows where. A
// header of CPU loops or of CUDA threads comes first, with least(), greatest() and ceil_div().
#pragma once
#include "kernel_table.h"

namespace tw::TW_ISA {

// Items begin, begin + step, ... below end of one axis.
struct Steps {
  int64_t begin, end, step;
};

// What output o of a pool sees along an axis, clipped to the plane.
TW_INLINE Steps window(const PoolArgs& a, int axis, int64_t o) {
  const int64_t n = a.in[axis], step = a.dilation[axis];
  if (a.adaptive) return {o * n / a.out[axis], ceil_div((o + 1) * n, a.out[axis]), 1};
  int64_t begin = o * a.stride[axis] - a.pad[axis];
  const int64_t end = least(n, begin + (a.k[axis] - 1) * step + 1);
  if (begin < 0) begin = step == 1 ? 0 : begin + ceil_div(-begin, step) * step;
  return {begin, end, step};
}
// The divisor of an output is the product of its axes' counts, except for the override.
TW_INLINE int64_t count(const PoolArgs& a, int axis, int64_t o) {
  if (a.divisor != 0) return 1;
  if (a.adaptive || !a.count_include_pad) {
    const Steps s = window(a, axis, o);
    return s.end - s.begin;
  }
  return least(a.k[axis], a.in[axis] + 2 * a.pad[axis] - o * a.stride[axis]);
}

// The item of x that item i of a padded y shows, counted from x's first; outside [0, n) only for constant.
TW_INLINE int64_t source(PadMode mode, int64_t i, int64_t n) {
  if (mode == PadMode::kConstant || (i >= 0 && i < n)) return i;
  if (mode == PadMode::kReplicate) return i < 0 ? 0 : n - 1;
  if (mode == PadMode::kReflect) return i < 0 ? -i : 2 * (n - 1) - i;
  return i < 0 ? i + n : i - n;
}
// The items of y that show item i of x, in at most three runs, of which some may be empty: its own place (replicate: to
// the end), and what the left and the right side repeat.
struct Shown {
  int64_t begin[3], end[3];
  TW_INLINE Shown(PadMode mode, int64_t i, int64_t n, int64_t before, int64_t out) {
    const int64_t own = i + before;
    const bool all = mode == PadMode::kReplicate, circular = mode == PadMode::kCircular;
    const int64_t left = all ? -1 : circular ? own - n : i > 0 ? before - i : -1;
    const int64_t right = all ? -1 : circular ? own + n : i < n - 1 ? before + 2 * (n - 1) - i : -1;
    set(0, all && i == 0 ? 0 : own, all && i == n - 1 ? out : own + 1, out);
    set(1, left, left + 1, out);
    set(2, right, right + 1, out);
  }
  TW_INLINE void set(int k, int64_t from, int64_t to, int64_t out) {
    begin[k] = from < 0 ? 0 : from;
    to = least(to, out);
    end[k] = to < begin[k] ? begin[k] : to;
  }
  TW_INLINE int64_t count() const { return end[0] - begin[0] + (end[1] - begin[1]) + (end[2] - begin[2]); }
  TW_INLINE int64_t at(int64_t k) const {
    for (int r = 0; r < 2; ++r) {
      if (k < end[r] - begin[r]) return begin[r] + k;
      k -= end[r] - begin[r];
    }
    return begin[2] + k;
  }
};

}  // namespace tw::TW_ISA
