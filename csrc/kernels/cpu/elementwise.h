// The walk that every elementwise kernel shares: broadcasting, strides and dtypes are handled here once, so an op is
// only a function over short contiguous blocks of its compute dtype.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/functors.h"

namespace tw::TW_ISA {

struct Block {
  const void* in[3];
  void* out;
  double p0, p1;
};
// One block of n elements. The same code runs for full vectors and for the tail (partial loads and stores), so an
// element's bits do not depend on where in a block it stands.
using BlockFn = void (*)(const Block&, int64_t n);

// What a block function reads and writes; operands of other dtypes are converted on the way.
struct Signature {
  DType in[3];
  DType out;
};

// Null fn: copy in[0] to out (signature in[0] == out).
void walk(const ElementwiseArgs& a, BlockFn fn, const Signature& types);

// Masks are stored as bools: one byte a lane, 0 or 1.
template <class T> TW_INLINE void store_result(bool* out, Vec<T> mask, int64_t n) {
  if (n >= Vec<T>::kLanes) store_as(out, mask);
  else store_as(out, mask, static_cast<int>(n));
}
template <class T> TW_INLINE void store_result(T* out, Vec<T> y, int64_t n) {
  if (n >= Vec<T>::kLanes) y.store(out);
  else y.store(out, static_cast<int>(n));
}

template <class T> TW_INLINE Vec<T> load_upto(const T* p, int64_t n) {
  return n >= Vec<T>::kLanes ? Vec<T>::load(p) : Vec<T>::load(p, static_cast<int>(n));
}

template <class T, bool kToBool> struct ResultType {
  using type = T;
};
template <class T> struct ResultType<T, true> {
  using type = bool;
};

// kInputs 1, 2 or 3; F is a functor of kernels/functors.h.
template <class F, class T, int kInputs, bool kToBool> void block(const Block& b, int64_t n) {
  using Out = typename ResultType<T, kToBool>::type;
  constexpr int64_t kStep = Vec<T>::kLanes;
  const T* x0 = static_cast<const T*>(b.in[0]);
  const T* x1 = static_cast<const T*>(b.in[1]);
  const T* x2 = static_cast<const T*>(b.in[2]);
  Out* y = static_cast<Out*>(b.out);
  const Vec<T> p0(static_cast<T>(b.p0)), p1(static_cast<T>(b.p1));
  const F f;
  for (int64_t i = 0; i < n; i += kStep) {
    const int64_t left = n - i;
    if constexpr (kInputs == 1) store_result(y + i, f(load_upto(x0 + i, left), p0, p1), left);
    else if constexpr (kInputs == 2)
      store_result(y + i, f(load_upto(x0 + i, left), load_upto(x1 + i, left), p0, p1), left);
    else
      store_result(y + i, f(load_upto(x0 + i, left), load_upto(x1 + i, left), load_upto(x2 + i, left), p0, p1), left);
  }
}

// The kinds of the elementwise list: which compute dtypes an op has, and whether its result is bool.
struct F {
  static constexpr bool floats = true, ints = false, to_bool = false;
};
struct N {
  static constexpr bool floats = true, ints = true, to_bool = false;
};
struct I {
  static constexpr bool floats = false, ints = true, to_bool = false;
};
struct FB {
  static constexpr bool floats = true, ints = false, to_bool = true;
};
struct NB {
  static constexpr bool floats = true, ints = true, to_bool = true;
};

template <class Functor, class Kind, int kInputs> void elementwise(const ElementwiseArgs& a) {
  constexpr bool b = Kind::to_bool;
  const DType t = a.compute, out = b ? DType::kBool : t;
  const Signature types{{t, t, t}, out};
  if constexpr (Kind::floats) {
    if (t == DType::kFloat32) return walk(a, &block<Functor, float, kInputs, b>, types);
    if (t == DType::kFloat64) return walk(a, &block<Functor, double, kInputs, b>, types);
  }
  if constexpr (Kind::ints) {
    if (t == DType::kInt32) return walk(a, &block<Functor, int32_t, kInputs, b>, types);
    if (t == DType::kInt64) return walk(a, &block<Functor, int64_t, kInputs, b>, types);
  }
}

}  // namespace tw::TW_ISA
