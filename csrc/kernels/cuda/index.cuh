// What index.cu and index_put.cu share: index arrays with their check, dimensions that two arrays share, and the words in
// which their items move. A bad index is reported to the device's record; its item is neither read nor written.
#pragma once
#include "kernels/cuda/radix.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kAhead = 4;  // kAhead: words in flight a thread

inline unsigned blocks_for(int64_t work) { return persistent_blocks(ceil_div<int64_t>(work, kThreads * kAhead), 8); }

struct Faults {
  Fault* record;
  const char* op;
  TW_DEVICE void report(int64_t value, int64_t low, int64_t high, int64_t position) const {
    report_fault(record, op, "index must be", value, low, high, position);
  }
};

// Index arrays, and how their items select a place.
struct Selector {
  const int64_t* index[kMaxDims];
  int64_t low[kMaxDims], size[kMaxDims], stride[kMaxDims];
  int indexed;
  Faults faults;
  // at[u] += the place of item i[u]; good[u]: whether it is wanted and, after that, exists.
  template <int N> TW_DEVICE void add_to(int64_t (&at)[N], const int64_t (&i)[N], bool (&good)[N]) const {
    for (int k = 0; k < indexed; ++k) {
      int64_t v[N];
#pragma unroll
      for (int u = 0; u < N; ++u) v[u] = good[u] ? index[k][i[u]] : 0;
#pragma unroll
      for (int u = 0; u < N; ++u) {
        if (good[u] && (v[u] < low[k] || v[u] >= size[k])) {
          faults.report(v[u], low[k], size[k], i[u]);
          good[u] = false;
        }
        at[u] += (v[u] < 0 ? v[u] + size[k] : v[u]) * stride[k];
      }
    }
  }
};
inline Selector selector(const TakeArgs& a, int64_t stride) {
  return {{a.index}, {a.low}, {a.n}, {stride}, 1, {fault_record(), a.op}};
}
inline Selector selector(const IndexArgs& a) {
  Selector s{};
  s.indexed = a.indexed;
  s.faults = {fault_record(), a.op};
  for (int k = 0; k < a.indexed; ++k) {
    s.index[k] = a.index[k];
    s.low[k] = -a.sizes[k];
    s.size[k] = a.sizes[k];
    s.stride[k] = a.strides[k];
  }
  return s;
}

// Dimensions that two arrays share, the innermost first; strides in words.
struct Shape {
  int n = 0;
  int64_t size[kMaxDims + 2], from[kMaxDims + 2], to[kMaxDims + 2];
  int64_t items = 1;
  bool joins = true;

  // The next dimension outwards, which is joined with the last one where both sides allow; `apart`: with none.
  void push(int64_t s, int64_t f, int64_t t, bool apart = false) {
    items *= s;
    if (s == 1 && !apart) return;
    if (joins && !apart && n && from[n - 1] * size[n - 1] == f && to[n - 1] * size[n - 1] == t) {
      size[n - 1] *= s;
      return;
    }
    size[n] = s;
    from[n] = f;
    to[n++] = t;
    joins = !apart;
  }
  // The offsets of item i, and its place along dimension `special`.
  TW_DEVICE int64_t locate(int64_t i, int64_t* f, int64_t* t, int special = -1) const {
    int64_t along = 0;
    for (int d = 0; d < n; ++d) {
      const int64_t q = d + 1 < n ? divide(i, size[d]) : 0, at = i - q * size[d];
      if (d == special) along = at;
      *f += at * from[d];
      *t += at * to[d];
      i = q;
    }
    return along;
  }
};

// Words of how many items (a power of 2, at most 16 bytes) both sides' pointers, sizes and strides allow.
struct Width {
  int items;
  Width(int itemsize, const Shape& s) : items(16 / itemsize) {
    if (s.n == 0 || s.from[0] != 1 || s.to[0] != 1) items = 1;
    else fit(s.size[0]);
    for (int d = 1; d < s.n; ++d) fit(s.from[d]), fit(s.to[d]);
  }
  void fit(int64_t multiple) {
    while (multiple % items) items /= 2;
  }
  void fit(const void* p, int itemsize) {
    while (reinterpret_cast<intptr_t>(p) % (items * itemsize)) items /= 2;
  }
};

// The dimensions of the slices, and with `count` that of the index arrays at its place in the dense side, sorted by its
// strides: from = the array's, to = the dense side's.
inline Shape slices(const IndexArgs& a, bool count, int* count_dim) {
  Shape s;
  bool placed = !count;
  for (int d = a.slice_ndim - 1; d >= -1; --d) {
    if (!placed && (d < 0 || a.dense_slice_strides[d] >= a.dense_stride) && (d < 0 || a.slice_shape[d] > 1)) {
      *count_dim = s.n;
      s.push(a.count, 0, a.dense_stride, true);
      placed = true;
    }
    if (d >= 0) s.push(a.slice_shape[d], a.slice_strides[d], a.dense_slice_strides[d]);
  }
  return s;
}

}  // namespace
}  // namespace tw::cuda
