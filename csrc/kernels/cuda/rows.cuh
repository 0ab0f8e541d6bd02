// Rows of contiguous values, a group of threads a row: a warp, or a block. A thread takes packs of kLanes<S> = 16 bytes,
// kThreads packs apart; where a row does not begin at a multiple of 16 bytes the same items come one by one, so that
// alignment never changes which thread adds which values.
#pragma once
#include "kernels/cuda/math.cuh"

namespace tw::cuda {

template <class S> constexpr int kLanes = 16 / int(sizeof(S));
template <class T> struct Tag {
  using type = T;
};

// A pack of a row of n values that begins at item i; items past its end are `fill`.
template <class A, class S>
TW_DEVICE void load_pack(A (&v)[kLanes<S>], const S* row, int64_t i, int64_t n, bool aligned, A fill) {
  if (aligned && i + kLanes<S> <= n) {
    const auto pack = load_vector<kLanes<S>>(row + i);
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) v[j] = convert<A>(pack[j]);
  } else {
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) v[j] = i + j < n ? convert<A>(row[i + j]) : fill;
  }
}
template <class A, class S>
TW_DEVICE void store_pack(const A (&v)[kLanes<S>], S* row, int64_t i, int64_t n, bool aligned) {
  if (aligned && i + kLanes<S> <= n) {
    Vector<S, kLanes<S>> pack;
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j) pack[j] = convert<S>(v[j]);
    store_vector(row + i, pack);
  } else {
#pragma unroll
    for (int j = 0; j < kLanes<S>; ++j)
      if (i + j < n) row[i + j] = convert<S>(v[j]);
  }
}
template <class S> bool rows_aligned(int64_t n, std::initializer_list<const void*> rows) {
  bool yes = n % kLanes<S> == 0;
  for (const void* p : rows) yes &= reinterpret_cast<uintptr_t>(p) % 16 == 0;
  return yes;
}

// Neighbours in a tree: the same order whatever N.
template <class Op, int N, class T> TW_DEVICE T fold(const T (&v)[N], Op op) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    T half[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) half[i] = op(v[2 * i], v[2 * i + 1]);
    return fold<Op, N / 2>(half, op);
  }
}

// f(Tag<S>()) for a floating-point dtype in memory.
template <class F> void visit_float(DType t, const F& f) {
  switch (t) {
    case DType::kFloat16: return f(Tag<float16>());
    case DType::kBFloat16: return f(Tag<bfloat16>());
    case DType::kFloat32: return f(Tag<float>());
    default: return f(Tag<double>());
  }
}

}  // namespace tw::cuda
