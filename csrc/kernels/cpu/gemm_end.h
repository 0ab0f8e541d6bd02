// The end of a product, written once for matrices and convolutions: c = act(alpha * sums + beta * c + bias), converted
// to c's dtype. In the order of the formula: the product is rounded to T before beta * c is added by one fma.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/functors.h"

namespace tw::TW_ISA {

#define TW_INTEGERS(X) X(bool, kBool) X(uint8_t, kUInt8) X(int8_t, kInt8) X(int16_t, kInt16) X(int32_t, kInt32)

// n elements, from number i on, of memory whose dtype is one of those computed in T.
template <class T> TW_INLINE Vec<T> load_any(const void* p, DType dtype, int64_t i, int n) {
  if constexpr (kSame<T, float>) {
    if (dtype == DType::kFloat16) return load_as<T>(static_cast<const float16*>(p) + i, n);
    if (dtype == DType::kBFloat16) return load_as<T>(static_cast<const bfloat16*>(p) + i, n);
  } else if constexpr (kSame<T, int64_t>) {
#define TW_X(S, e) \
  if (dtype == DType::e) return load_as<T>(static_cast<const S*>(p) + i, n);
    TW_INTEGERS(TW_X)
#undef TW_X
  }
  return Vec<T>::load(static_cast<const T*>(p) + i, n);
}
template <class T> TW_INLINE void store_any(void* p, DType dtype, int64_t i, Vec<T> x, int n) {
  if constexpr (kSame<T, float>) {
    if (dtype == DType::kFloat16) return store_as(static_cast<float16*>(p) + i, x, n);
    if (dtype == DType::kBFloat16) return store_as(static_cast<bfloat16*>(p) + i, x, n);
  } else if constexpr (kSame<T, int64_t>) {
#define TW_X(S, e) \
  if (dtype == DType::e) return store_as(static_cast<S*>(p) + i, x, n);
    TW_INTEGERS(TW_X)
#undef TW_X
  }
  x.store(static_cast<T*>(p) + i, n);
}

template <class T> struct Epilogue {
  void* c;
  const void* bias;  // null: none
  DType c_dtype, bias_dtype;
  bool bias_rows;  // one bias for the whole row, or one for each column
  Activation activation;
  double alpha, beta;

  TW_INLINE bool plain() const {
    return alpha == 1 && beta == 0 && activation == Activation::kNone && c_dtype == dtype_of<T>;
  }
  // n sums for c[at : at + n]; bias_at is the number of the row's bias, or of its first column's.
  TW_INLINE void row(int64_t at, int64_t bias_at, int64_t n, const T* sums) const {
    if (!plain()) return finish(at, bias_at, n, sums);
    T* to = static_cast<T*>(c) + at;
    const T* b = static_cast<const T*>(bias);
    if (!bias) {
      each(n, [&](int64_t j, auto... part) { Vec<T>::load(sums + j, part...).store(to + j, part...); });
    } else if (bias_rows) {
      const Vec<T> all(b[bias_at]);
      each(n, [&](int64_t j, auto... part) { (Vec<T>::load(sums + j, part...) + all).store(to + j, part...); });
    } else {
      b += bias_at;
      each(n, [&](int64_t j, auto... part) {
        (Vec<T>::load(sums + j, part...) + Vec<T>::load(b + j, part...)).store(to + j, part...);
      });
    }
  }

 private:
  // f(j) for each whole vector, f(j, count) for the rest.
  template <class F> static TW_INLINE void each(int64_t n, const F& f) {
    constexpr int L = Vec<T>::kLanes;
    int64_t j = 0;
    for (; j + L <= n; j += L) f(j);
    if (j < n) f(j, int(n - j));
  }
  __attribute__((noinline)) void finish(int64_t at, int64_t bias_at, int64_t n, const T* sums) const {
    constexpr int L = Vec<T>::kLanes;
    const Vec<T> row_bias(bias && bias_rows ? load_any<T>(bias, bias_dtype, bias_at, 1)[0] : T(0));
    for (int64_t j = 0; j < n; j += L) {
      const int count = int(least(L, n - j));
      Vec<T> x = Vec<T>::load(sums + j, count);
      if (alpha != 1) x = x * Vec<T>(T(alpha));
      if (beta != 0) x = fma(Vec<T>(T(beta)), load_any<T>(c, c_dtype, at + j, count), x);
      if (bias) x = x + (bias_rows ? row_bias : load_any<T>(bias, bias_dtype, bias_at + j, count));
      if (activation != Activation::kNone) x = activate(activation, x);
      store_any(c, c_dtype, at + j, x, count);
    }
  }
};

}  // namespace tw::TW_ISA
