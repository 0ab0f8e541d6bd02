// Vec<T>: one register of T (float, double, int32_t, int64_t) on the compiler's vector extensions, and the loops every
// kernel needs round it: partial loads and stores, loads and stores that change the type, convert().
//
// The build gives TW_ISA (scalar, avx2, avx512) and TW_VEC_BYTES (16, 32, 64). Everything is forced inline or lives in
// tw::TW_ISA, because a weak symbol shared between levels would run one level's instructions on another's machine.
// Intrinsics appear only where GCC does not find the instruction itself. The scalar level has SSE2 alone: rounding
// works by the 2^23 (2^52) trick and float16 by integer arithmetic; both are exact over the whole range.
// Comparisons give Mask<T>, a Vec of integers as wide as T with lanes 0 or -1. min/max are the hardware's (the second
// operand when either is NaN); minimum/maximum are PyTorch's (NaN when either is NaN).
#pragma once
#pragma GCC diagnostic push  // GCC 12 takes _mm512_undefined() in its own header for a mistake
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "parallel.h"
#include "tensor/dtype.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // no Vec is ever passed through a real call

#if TW_VEC_BYTES == 64
#define TW_MM(op) _mm512_##op
#elif TW_VEC_BYTES == 32
#define TW_MM(op) _mm256_##op
#else
#define TW_MM(op) _mm_##op
#endif

namespace tw::TW_ISA {

template <class A, class B> constexpr bool kSame = false;
template <class A> constexpr bool kSame<A, A> = true;
template <class T> constexpr bool kIsFloat = kSame<T, float> || kSame<T, double>;
template <class T> constexpr bool kIsHalf = kSame<T, float16> || kSame<T, bfloat16>;

template <class T> struct IntOf {
  using type = T;
};
template <> struct IntOf<float> {
  using type = int32_t;
};
template <> struct IntOf<double> {
  using type = int64_t;
};
template <class T> struct UIntOf {
  using type = uint32_t;
};
template <> struct UIntOf<int64_t> {
  using type = uint64_t;
};

// N elements of S as a vector type, and the same readable at any address.
template <class S, int N> struct Pack {
  typedef S Type __attribute__((vector_size(N * sizeof(S))));
  typedef S Unaligned __attribute__((vector_size(N * sizeof(S)), aligned(1), may_alias));
};

template <class T> struct Vec {
  static constexpr int kLanes = TW_VEC_BYTES / sizeof(T);
  using Element = T;
  using Native = typename Pack<T, kLanes>::Type;
  using Mask = Vec<typename IntOf<T>::type>;
  Native v;

  Vec() = default;
  TW_INLINE Vec(T x) : v(x - Native{}) {}  // x - 0 rather than x + 0, which would lose the sign of -0
  TW_INLINE Vec(Native x) : v(x) {}
  TW_INLINE T operator[](int i) const { return v[i]; }

  static TW_INLINE Vec load(const T* p) {
    return Native(*reinterpret_cast<const typename Pack<T, kLanes>::Unaligned*>(p));
  }
  TW_INLINE void store(T* p) const { *reinterpret_cast<typename Pack<T, kLanes>::Unaligned*>(p) = v; }

  // Lanes 0, 1, 2, ...
  static TW_INLINE Vec iota() {
    Native x = {};
    for (int i = 0; i < kLanes; ++i) x[i] = T(i);
    return x;
  }

  // Touch only the first n lanes, 0 <= n <= kLanes; the others load as 0.
  static TW_INLINE Vec load(const T* p, int n) {
#if TW_VEC_BYTES == 64
    if constexpr (sizeof(T) == 4) return (Native)_mm512_maskz_loadu_epi32(__mmask16((1u << n) - 1), p);
    else return (Native)_mm512_maskz_loadu_epi64(__mmask8((1u << n) - 1), p);
#elif TW_VEC_BYTES == 32
    if constexpr (sizeof(T) == 4) return (Native)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), lanes_below(n));
    else return (Native)_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), lanes_below(n));
#else
    T buffer[kLanes] = {};
    for (int i = 0; i < kLanes; ++i)
      if (i < n) buffer[i] = p[i];
    return load(buffer);
#endif
  }
  TW_INLINE void store(T* p, int n) const {
#if TW_VEC_BYTES == 64
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(p, __mmask16((1u << n) - 1), (__m512i)v);
    else _mm512_mask_storeu_epi64(p, __mmask8((1u << n) - 1), (__m512i)v);
#elif TW_VEC_BYTES == 32
    if constexpr (sizeof(T) == 4) _mm256_maskstore_epi32(reinterpret_cast<int*>(p), lanes_below(n), (__m256i)v);
    else _mm256_maskstore_epi64(reinterpret_cast<long long*>(p), lanes_below(n), (__m256i)v);
#else
    for (int i = 0; i < kLanes; ++i)
      if (i < n) p[i] = v[i];
#endif
  }

  friend TW_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend TW_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend TW_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend TW_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }  // integers: b == 0 traps, as in scalar code
  friend TW_INLINE Vec operator-(Vec a) { return -a.v; }
  TW_INLINE Vec& operator+=(Vec b) {
    v += b.v;
    return *this;
  }
  TW_INLINE Vec& operator-=(Vec b) {
    v -= b.v;
    return *this;
  }
  TW_INLINE Vec& operator*=(Vec b) {
    v *= b.v;
    return *this;
  }
  TW_INLINE Vec& operator/=(Vec b) {
    v /= b.v;
    return *this;
  }

  // Integers only.
  friend TW_INLINE Vec operator&(Vec a, Vec b) { return a.v & b.v; }
  friend TW_INLINE Vec operator|(Vec a, Vec b) { return a.v | b.v; }
  friend TW_INLINE Vec operator^(Vec a, Vec b) { return a.v ^ b.v; }
  friend TW_INLINE Vec operator~(Vec a) { return ~a.v; }
  friend TW_INLINE Vec operator<<(Vec a, Vec b) { return a.v << b.v; }  // 0 <= b < the width of T
  friend TW_INLINE Vec operator>>(Vec a, Vec b) { return a.v >> b.v; }  // arithmetic
  friend TW_INLINE Vec operator<<(Vec a, int b) { return a.v << b; }
  friend TW_INLINE Vec operator>>(Vec a, int b) { return a.v >> b; }

  friend TW_INLINE Mask operator==(Vec a, Vec b) { return (typename Mask::Native)(a.v == b.v); }
  friend TW_INLINE Mask operator!=(Vec a, Vec b) { return (typename Mask::Native)(a.v != b.v); }
  friend TW_INLINE Mask operator<(Vec a, Vec b) { return (typename Mask::Native)(a.v < b.v); }
  friend TW_INLINE Mask operator<=(Vec a, Vec b) { return (typename Mask::Native)(a.v <= b.v); }
  friend TW_INLINE Mask operator>(Vec a, Vec b) { return (typename Mask::Native)(a.v > b.v); }
  friend TW_INLINE Mask operator>=(Vec a, Vec b) { return (typename Mask::Native)(a.v >= b.v); }

  friend TW_INLINE Vec select(Mask m, Vec a, Vec b) { return m.v ? a.v : b.v; }  // m ? a : b, lane by lane

  friend TW_INLINE Vec min(Vec a, Vec b) {
    if constexpr (kSame<T, float>) return (Native)TW_MM(min_ps)(a.v, b.v);
    else if constexpr (kSame<T, double>) return (Native)TW_MM(min_pd)(a.v, b.v);
    else return a.v < b.v ? a.v : b.v;
  }
  friend TW_INLINE Vec max(Vec a, Vec b) {
    if constexpr (kSame<T, float>) return (Native)TW_MM(max_ps)(a.v, b.v);
    else if constexpr (kSame<T, double>) return (Native)TW_MM(max_pd)(a.v, b.v);
    else return a.v > b.v ? a.v : b.v;
  }
  friend TW_INLINE Vec minimum(Vec a, Vec b) {
    if constexpr (kIsFloat<T>) return select(a != a, a, min(a, b));
    else return min(a, b);
  }
  friend TW_INLINE Vec maximum(Vec a, Vec b) {
    if constexpr (kIsFloat<T>) return select(a != a, a, max(a, b));
    else return max(a, b);
  }

  // a * b + c, rounded once where the level has FMA.
  friend TW_INLINE Vec fma(Vec a, Vec b, Vec c) {
#ifdef __FMA__
    if constexpr (kSame<T, float>) return (Native)TW_MM(fmadd_ps)(a.v, b.v, c.v);
    else if constexpr (kSame<T, double>) return (Native)TW_MM(fmadd_pd)(a.v, b.v, c.v);
    else
#endif
      return a.v * b.v + c.v;
  }

#if TW_VEC_BYTES == 32
 private:
  static TW_INLINE __m256i lanes_below(int n) { return (__m256i)(Mask::iota() < Mask(n)).v; }
#endif
};

template <class T> using Mask = typename Vec<T>::Mask;

// Bits of a float as the integer of its width, and back.
template <class T> TW_INLINE Mask<T> bits(Vec<T> x) { return (typename Mask<T>::Native)x.v; }
TW_INLINE Vec<float> from_bits(Vec<int32_t> x) { return (Vec<float>::Native)x.v; }
TW_INLINE Vec<double> from_bits(Vec<int64_t> x) { return (Vec<double>::Native)x.v; }

// Float to the integer of its width, rounding to zero; out of range and NaN give the lowest integer. And back.
TW_INLINE Vec<int32_t> to_int(Vec<float> x) { return (Vec<int32_t>::Native)TW_MM(cvttps_epi32)(x.v); }
TW_INLINE Vec<int64_t> to_int(Vec<double> x) { return __builtin_convertvector(x.v, Vec<int64_t>::Native); }
TW_INLINE Vec<float> to_float(Vec<int32_t> x) { return __builtin_convertvector(x.v, Vec<float>::Native); }
TW_INLINE Vec<double> to_float(Vec<int64_t> x) { return __builtin_convertvector(x.v, Vec<double>::Native); }

// The lower and the upper half of the lanes as double, and two such halves back as float.
#if TW_VEC_BYTES == 64
TW_INLINE Vec<double> low_half(Vec<float> x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x.v)); }
TW_INLINE Vec<double> high_half(Vec<float> x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1)); }
TW_INLINE Vec<float> join_halves(Vec<double> lo, Vec<double> hi) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lo.v)), _mm512_cvtpd_ps(hi.v), 1);
}
#elif TW_VEC_BYTES == 32
TW_INLINE Vec<double> low_half(Vec<float> x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x.v)); }
TW_INLINE Vec<double> high_half(Vec<float> x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1)); }
TW_INLINE Vec<float> join_halves(Vec<double> lo, Vec<double> hi) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(lo.v)), _mm256_cvtpd_ps(hi.v), 1);
}
#else
TW_INLINE Vec<double> low_half(Vec<float> x) { return _mm_cvtps_pd(x.v); }
TW_INLINE Vec<double> high_half(Vec<float> x) { return _mm_cvtps_pd(_mm_movehl_ps(x.v, x.v)); }
TW_INLINE Vec<float> join_halves(Vec<double> lo, Vec<double> hi) {
  return _mm_movelh_ps(_mm_cvtpd_ps(lo.v), _mm_cvtpd_ps(hi.v));
}
#endif

template <class T> TW_INLINE Vec<T> shift_right_logical(Vec<T> x, int n) {
  using Unsigned = typename Pack<typename UIntOf<T>::type, Vec<T>::kLanes>::Type;
  return (typename Vec<T>::Native)((Unsigned)x.v >> n);
}

TW_INLINE bool any(Vec<int32_t> m) {
#if TW_VEC_BYTES == 64
  return _mm512_movepi32_mask((__m512i)m.v) != 0;
#elif TW_VEC_BYTES == 32
  return _mm256_movemask_ps((__m256)m.v) != 0;
#else
  return _mm_movemask_ps((__m128)m.v) != 0;
#endif
}
TW_INLINE bool any(Vec<int64_t> m) {
#if TW_VEC_BYTES == 64
  return _mm512_movepi64_mask((__m512i)m.v) != 0;
#elif TW_VEC_BYTES == 32
  return _mm256_movemask_pd((__m256d)m.v) != 0;
#else
  return _mm_movemask_pd((__m128d)m.v) != 0;
#endif
}

template <class T> constexpr typename IntOf<T>::type kSignBit = typename IntOf<T>::type(1) << (8 * sizeof(T) - 1);

template <class T> TW_INLINE Vec<T> abs(Vec<T> x) {
  if constexpr (kIsFloat<T>) return from_bits(bits(x) & Mask<T>(~kSignBit<T>));
  else return select(x < Vec<T>(0), -x, x);
}
template <class T> TW_INLINE Vec<T> copysign(Vec<T> x, Vec<T> sign) {
  return from_bits((bits(x) & Mask<T>(~kSignBit<T>)) | (bits(sign) & Mask<T>(kSignBit<T>)));
}
TW_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>::Native)TW_MM(sqrt_ps)(x.v); }
TW_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>::Native)TW_MM(sqrt_pd)(x.v); }

#if TW_VEC_BYTES > 16
#if TW_VEC_BYTES == 64
#define TW_ROUND(suffix) TW_MM(roundscale_##suffix)
#else
#define TW_ROUND(suffix) TW_MM(round_##suffix)
#endif
#define TW_X(name, mode)                                                                                              \
  TW_INLINE Vec<float> name(Vec<float> x) { return (Vec<float>::Native)TW_ROUND(ps)(x.v, mode | _MM_FROUND_NO_EXC); } \
  TW_INLINE Vec<double> name(Vec<double> x) { return (Vec<double>::Native)TW_ROUND(pd)(x.v, mode | _MM_FROUND_NO_EXC); }
TW_X(round, _MM_FROUND_TO_NEAREST_INT)  // half to even
TW_X(floor, _MM_FROUND_TO_NEG_INF)
TW_X(ceil, _MM_FROUND_TO_POS_INF)
TW_X(trunc, _MM_FROUND_TO_ZERO)
#undef TW_X
#undef TW_ROUND
#else
// Adding and taking away 2^23 (2^52 for double) with x's sign leaves x rounded to an integer, half to even. From that
// size on, x is an integer already; NaN fails the comparison and passes through.
template <class T> TW_INLINE Vec<T> round(Vec<T> x) {
  const Vec<T> limit = T(sizeof(T) == 4 ? 0x1p23 : 0x1p52), shift = copysign(limit, x);
  return select(abs(x) < limit, copysign((x + shift) - shift, x), x);
}
template <class T> TW_INLINE Vec<T> floor(Vec<T> x) {
  const Vec<T> r = round(x);
  return select(r > x, r - Vec<T>(1), r);
}
template <class T> TW_INLINE Vec<T> ceil(Vec<T> x) {
  const Vec<T> r = round(x);
  return copysign(select(r < x, r + Vec<T>(1), r), x);
}
template <class T> TW_INLINE Vec<T> trunc(Vec<T> x) { return copysign(floor(abs(x)), x); }
#endif

// Horizontal reductions by a fixed tree: lane i with lane i + half, until one is left.
template <class T, int N, class Op> TW_INLINE T reduce_lanes(typename Pack<T, N>::Type v, Op op) {
  if constexpr (N == 2) {
    return op(v[0], v[1]);
  } else {
    using Half = typename Pack<T, N / 2>::Type;
    Half lo, hi;
    if constexpr (N == 16) {
      lo = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
      hi = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    } else if constexpr (N == 8) {
      lo = __builtin_shufflevector(v, v, 0, 1, 2, 3);
      hi = __builtin_shufflevector(v, v, 4, 5, 6, 7);
    } else {
      lo = __builtin_shufflevector(v, v, 0, 1);
      hi = __builtin_shufflevector(v, v, 2, 3);
    }
    return reduce_lanes<T, N / 2>(op(lo, hi), op);
  }
}
struct SumLanes {
  template <class V> TW_INLINE V operator()(V a, V b) const { return a + b; }
};
struct ProdLanes {
  template <class V> TW_INLINE V operator()(V a, V b) const { return a * b; }
};
struct MinLanes {
  template <class V> TW_INLINE V operator()(V a, V b) const { return a < b ? a : b; }
};
struct MaxLanes {
  template <class V> TW_INLINE V operator()(V a, V b) const { return a > b ? a : b; }
};
template <class T> TW_INLINE T sum(Vec<T> x) { return reduce_lanes<T, Vec<T>::kLanes>(x.v, SumLanes()); }
template <class T> TW_INLINE T prod(Vec<T> x) { return reduce_lanes<T, Vec<T>::kLanes>(x.v, ProdLanes()); }
template <class T> TW_INLINE T min(Vec<T> x) { return reduce_lanes<T, Vec<T>::kLanes>(x.v, MinLanes()); }
template <class T> TW_INLINE T max(Vec<T> x) { return reduce_lanes<T, Vec<T>::kLanes>(x.v, MaxLanes()); }

// ---- float16 and bfloat16: bit patterns in the low half of each 32-bit lane <-> float ----

TW_INLINE Vec<float> bfloat16_bits_to_float(Vec<int32_t> h) { return from_bits(h << 16); }
// To nearest, ties to even; a NaN stays a (quiet) NaN.
TW_INLINE Vec<int32_t> float_to_bfloat16_bits(Vec<float> x) {
  const Vec<int32_t> b = bits(x), high = shift_right_logical(b, 16);
  const Vec<int32_t> rounded = shift_right_logical(b + Vec<int32_t>(0x7fff) + (high & Vec<int32_t>(1)), 16);
  return select(x != x, high | Vec<int32_t>(0x40), rounded);
}
// Moves exponent and fraction into place, which leaves the value too small by 2^112; one exact product mends that,
// subnormals included. Infinity and NaN get the float's exponent of ones.
TW_INLINE Vec<float> float16_bits_to_float(Vec<int32_t> h) {
  const Vec<int32_t> magnitude = (h & Vec<int32_t>(0x7fff)) << 13, sign = (h & Vec<int32_t>(0x8000)) << 16;
  const Vec<float> finite = from_bits(magnitude) * Vec<float>(0x1p112f);
  const Vec<int32_t> special = magnitude | Vec<int32_t>(0x7f800000);
  return from_bits(sign | select(magnitude >= Vec<int32_t>(0x7c00 << 13), special, bits(finite)));
}
// Normal results: rounds at bit 13 in the integers, where a carry runs into the exponent as it should (65520 and
// above reach infinity). Below 2^-14: adding 0.5 puts the last bit of a float16 subnormal at the float's last bit.
TW_INLINE Vec<int32_t> float_to_float16_bits(Vec<float> x) {
  using I = Vec<int32_t>;
  const I b = bits(x), magnitude = b & I(0x7fffffff), sign = shift_right_logical(b, 16) & I(0x8000);
  const I normal = shift_right_logical(magnitude - I(112 << 23) + I(0xfff) + (shift_right_logical(b, 13) & I(1)), 13);
  const I subnormal = bits(from_bits(magnitude) + Vec<float>(0.5f)) - bits(Vec<float>(0.5f));
  const I nan = I(0x7e00) | (shift_right_logical(magnitude, 13) & I(0x1ff));
  I r = select(magnitude < I(113 << 23), subnormal, normal);
  r = select(magnitude >= I(0x477ff000), I(0x7c00), r);
  return sign | select(magnitude > I(0x7f800000), nan, r);
}

// ---- loads and stores that change the type: memory S, register T ----

// Integers of 8 or 16 bits <-> 32-bit lanes, where GCC 12 would go element by element.
template <class S> TW_INLINE Vec<int32_t> widen(const S* p) {
  constexpr bool kSigned = S(-1) < S(0);
#if TW_VEC_BYTES > 16
#if TW_VEC_BYTES == 64
  if constexpr (sizeof(S) == 2) {
    const __m256i s = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
#else
  if constexpr (sizeof(S) == 2) {
    const __m128i s = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
#endif
    return (Vec<int32_t>::Native)(kSigned ? TW_MM(cvtepi16_epi32)(s) : TW_MM(cvtepu16_epi32)(s));
  } else {
    const __m128i s = TW_VEC_BYTES == 64 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))
                                         : _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return (Vec<int32_t>::Native)(kSigned ? TW_MM(cvtepi8_epi32)(s) : TW_MM(cvtepu8_epi32)(s));
  }
#else
  // Each element goes to the top of its lane and is shifted down, with its sign or without.
  __m128i s;
  if constexpr (sizeof(S) == 2) {
    s = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  } else {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    s = _mm_cvtsi32_si128(four);
    s = _mm_unpacklo_epi8(s, s);
  }
  const Vec<int32_t> top = (Vec<int32_t>::Native)_mm_unpacklo_epi16(s, s);
  return kSigned ? top >> (32 - 8 * int(sizeof(S))) : shift_right_logical(top, 32 - 8 * int(sizeof(S)));
#endif
}
template <class S> TW_INLINE void narrow(S* p, Vec<int32_t> x) {  // keeps the low bits
#if TW_VEC_BYTES == 64
  if constexpr (sizeof(S) == 2) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)x.v));
  else _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x.v));
#elif TW_VEC_BYTES == 32
  const __m256i s = (__m256i)(x & Vec<int32_t>(sizeof(S) == 2 ? 0xffff : 0xff)).v;
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  if constexpr (sizeof(S) == 2) _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
  else _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
#else
  if constexpr (sizeof(S) == 2) {
    const __m128i s = (__m128i)((x << 16) >> 16).v;
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(s, s));
  } else {
    const __m128i s = (__m128i)(x & Vec<int32_t>(255)).v, words = _mm_packs_epi32(s, s);
    const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    __builtin_memcpy(p, &four, 4);
  }
#endif
}

// Conversions of one register's worth. Float to a small integer goes through int32 and wraps, as PyTorch's does for
// values int32 can hold.
template <class T, class S> TW_INLINE Vec<T> load_as(const S* p) {
  constexpr int kLanes = Vec<T>::kLanes;
  if constexpr (kSame<T, S>) {
    return Vec<T>::load(p);
  } else if constexpr (kSame<S, bool>) {
    return load_as<T>(reinterpret_cast<const uint8_t*>(p));
  } else if constexpr (kIsHalf<S>) {
    static_assert(kSame<T, float>, "halves are computed in float");
#if defined(__F16C__) && TW_VEC_BYTES == 64
    if constexpr (kSame<S, float16>) {
      return (Vec<float>::Native)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
#elif defined(__F16C__) && TW_VEC_BYTES == 32
    if constexpr (kSame<S, float16>) {
      return (Vec<float>::Native)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
#endif
    const Vec<int32_t> h = load_as<int32_t>(reinterpret_cast<const uint16_t*>(p));
    if constexpr (kSame<S, float16>) return float16_bits_to_float(h);
    else return bfloat16_bits_to_float(h);
  } else if constexpr (sizeof(S) < 4 && kSame<T, int32_t>) {
    return widen(p);
  } else if constexpr (sizeof(S) < 4 && kSame<T, float>) {
    return to_float(widen(p));
  } else {
    using Small = typename Pack<S, kLanes>::Unaligned;
    const typename Pack<S, kLanes>::Type s = *reinterpret_cast<const Small*>(p);
    if constexpr (kIsFloat<T> && sizeof(S) < 4) {
      return __builtin_convertvector(__builtin_convertvector(s, typename Pack<int32_t, kLanes>::Type),
                                     typename Vec<T>::Native);
    } else {
      return __builtin_convertvector(s, typename Vec<T>::Native);
    }
  }
}
template <class T, class S> TW_INLINE void store_as(S* p, Vec<T> x) {
  constexpr int kLanes = Vec<T>::kLanes;
  if constexpr (kSame<T, S>) {
    x.store(p);
  } else if constexpr (kSame<S, bool>) {  // true where x != 0, so masks and numbers alike
    store_as(reinterpret_cast<uint8_t*>(p), (x != Vec<T>(0)) & Mask<T>(1));
  } else if constexpr (kIsHalf<S>) {
    static_assert(kSame<T, float>, "halves are computed in float");
#if defined(__F16C__) && TW_VEC_BYTES == 64
    if constexpr (kSame<S, float16>) {
      return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
    }
#elif defined(__F16C__) && TW_VEC_BYTES == 32
    if constexpr (kSame<S, float16>) {
      return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    Vec<int32_t> h;
    if constexpr (kSame<S, float16>) h = float_to_float16_bits(x);
    else h = float_to_bfloat16_bits(x);
    store_as(reinterpret_cast<uint16_t*>(p), h);
  } else if constexpr (sizeof(S) < 4 && kSame<T, int32_t>) {
    narrow(p, x);
  } else if constexpr (sizeof(S) < 4 && kSame<T, float>) {
    narrow(p, to_int(x));
  } else {
    using Small = typename Pack<S, kLanes>::Type;
    Small s;
    if constexpr (kIsFloat<T> && sizeof(S) < 4) {
      s = __builtin_convertvector(__builtin_convertvector(x.v, typename Pack<int32_t, kLanes>::Type), Small);
    } else {
      s = __builtin_convertvector(x.v, Small);
    }
    *reinterpret_cast<typename Pack<S, kLanes>::Unaligned*>(p) = s;
  }
}
// n elements, 0 <= n < 2 kMost, in pieces of kMost, kMost / 2, ..., 1.
template <int kMost, class S> TW_INLINE void copy_few(S* dst, const S* src, int n) {
  const int here = n & kMost;
  if (here) __builtin_memcpy(dst, src, kMost * sizeof(S));
  if constexpr (kMost > 1) copy_few<kMost / 2>(dst + here, src + here, n);
}
// The first n elements only, 0 <= n <= kLanes; the other lanes load as 0.
template <class T, class S> TW_INLINE Vec<T> load_as(const S* p, int n) {
  if constexpr (kSame<T, S>) {
    return Vec<T>::load(p, n);
  } else {
    S buffer[Vec<T>::kLanes] = {};
#if TW_VEC_BYTES == 64
    if constexpr (sizeof(S) == 2 && Vec<T>::kLanes == 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(buffer), _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p));
    else if constexpr (sizeof(S) == 1 && Vec<T>::kLanes == 16)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(buffer), _mm_maskz_loadu_epi8(__mmask16((1u << n) - 1), p));
    else
#endif
      copy_few<Vec<T>::kLanes>(static_cast<S*>(buffer), p, n);
    return load_as<T>(static_cast<const S*>(buffer));
  }
}
template <class T, class S> TW_INLINE void store_as(S* p, Vec<T> x, int n) {
  if constexpr (kSame<T, S>) {
    x.store(p, n);
  } else {
    S buffer[Vec<T>::kLanes];
    store_as(buffer, x);
#if TW_VEC_BYTES == 64
    if constexpr (sizeof(S) == 2 && Vec<T>::kLanes == 16)
      _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), _mm256_loadu_si256(reinterpret_cast<__m256i*>(buffer)));
    else if constexpr (sizeof(S) == 1 && Vec<T>::kLanes == 16)
      _mm_mask_storeu_epi8(p, __mmask16((1u << n) - 1), _mm_loadu_si128(reinterpret_cast<__m128i*>(buffer)));
    else
#endif
      copy_few<Vec<T>::kLanes>(p, static_cast<const S*>(buffer), n);
  }
}

// ---- convert: n elements of any dtype to any other, between buffers that do not overlap ----
// To bool: != 0 (NaN is true). Float to integer truncates. To a half from any type but float: through float.
template <class D, class S> void convert(D* __restrict dst, const S* __restrict src, int64_t n) {
  if constexpr (kSame<D, S>) {
    __builtin_memcpy(dst, src, size_t(n) * sizeof(S));
  } else if constexpr (kIsHalf<S> && kSame<D, bool>) {
    for (int64_t i = 0; i < n; ++i) dst[i] = (src[i].bits & 0x7fff) != 0;
  } else if constexpr ((kIsHalf<S> && kSame<D, float>) || (kIsHalf<D> && kSame<S, float>)) {
    int64_t i = 0;
    for (; i + Vec<float>::kLanes <= n; i += Vec<float>::kLanes) store_as(dst + i, load_as<float>(src + i));
    if (i < n) store_as(dst + i, load_as<float>(src + i, int(n - i)), int(n - i));
  } else if constexpr (kIsHalf<S> || kIsHalf<D>) {
    constexpr int64_t kBlock = 256;
    float buffer[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t count = n - i < kBlock ? n - i : kBlock;
      convert(buffer, src + i, count);
      convert(dst + i, static_cast<const float*>(buffer), count);
    }
  } else if constexpr (kSame<D, bool>) {
    for (int64_t i = 0; i < n; ++i) dst[i] = src[i] != S(0);
  } else if constexpr (kIsFloat<S> && sizeof(D) < 4) {
    for (int64_t i = 0; i < n; ++i) dst[i] = D(int32_t(src[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) dst[i] = D(src[i]);
  }
}

}  // namespace tw::TW_ISA
