// Scalar maths for threads, under the names that kernels/functors.h asks for. The elementary functions are the CUDA
// library's in their accurate forms (no -use_fast_math: at most 2 ulp in float32, CUDA C++ Programming Guide's table of
// errors) and the C library's in the emulator; both meet the op table's tolerances.
#pragma once
#include "kernels/cuda/device.cuh"

namespace tw::cuda {

template <class T> TW_DEVICE T select(bool m, T a, T b) { return m ? a : b; }
TW_DEVICE bool any(bool m) { return m; }
template <class T> TW_DEVICE T abs(T x) {
  if constexpr (std::is_same_v<T, float>) return ::fabsf(x);
  else if constexpr (std::is_same_v<T, double>) return ::fabs(x);
  else return x < T(0) ? T(0) - x : x;
}
// NaN wins; of two zeros, maximum gives the positive one and minimum the negative one.
template <class T> TW_DEVICE T maximum(T a, T b) { return a != a || a > b ? a : b; }
template <class T> TW_DEVICE T minimum(T a, T b) { return a != a || a < b ? a : b; }

#define TW_MATH(name)                                    \
  TW_DEVICE float name(float x) { return ::name##f(x); } \
  TW_DEVICE double name(double x) { return ::name(x); }
#define TW_MATH2(name)                                               \
  TW_DEVICE float name(float a, float b) { return ::name##f(a, b); } \
  TW_DEVICE double name(double a, double b) { return ::name(a, b); }
// clang-format off
TW_MATH(sqrt) TW_MATH(exp) TW_MATH(exp2) TW_MATH(expm1) TW_MATH(log) TW_MATH(log2) TW_MATH(log10) TW_MATH(log1p)
TW_MATH(sin) TW_MATH(cos) TW_MATH(tan) TW_MATH(asin) TW_MATH(acos) TW_MATH(atan) TW_MATH(sinh) TW_MATH(cosh)
TW_MATH(tanh) TW_MATH(erf) TW_MATH(floor) TW_MATH(ceil) TW_MATH(trunc)
TW_MATH2(fmod) TW_MATH2(atan2) TW_MATH2(pow) TW_MATH2(copysign)
#undef TW_MATH
#undef TW_MATH2
    // clang-format on
    TW_DEVICE float fma(float a, float b, float c) {
  return ::fmaf(a, b, c);
}
TW_DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }
TW_DEVICE float round(float x) { return ::rintf(x); }  // half to even
TW_DEVICE double round(double x) { return ::rint(x); }
template <class T> TW_DEVICE T sigmoid(T x) {
  const T e = exp(-abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// --- sums and maxima of a warp or a block: fixed trees, so the same bits in every run --
struct SumOp {
  template <class T> TW_DEVICE T operator()(T a, T b) const { return a + b; }
  template <class T> static constexpr T kIdentity = T(0);
};
struct MaxOp {  // NaN wins
  template <class T> TW_DEVICE T operator()(T a, T b) const { return maximum(a, b); }
  template <class T> static constexpr T kIdentity = -T(__builtin_inf());
};

template <class Op, class T> TW_DEVICE T reduce_warp(T v, Op op = Op()) {
  for (int step = 16; step > 0; step /= 2) v = op(v, __shfl_xor_sync(kFullMask, v, step));
  return v;
}
// For blocks of kThreads threads; everybody gets the result. `shared` holds one value a warp and may be used again
// after the next __syncthreads().
template <class Op, int kThreads, class T> TW_DEVICE T reduce_block(T v, T* shared, Op op = Op()) {
  constexpr int kWarps = kThreads / 32;
  v = reduce_warp<Op>(v, op);
  if constexpr (kWarps == 1) return v;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  v = shared[0];
  for (int i = 1; i < kWarps; ++i) v = op(v, shared[i]);
  return v;
}

}  // namespace tw::cuda
