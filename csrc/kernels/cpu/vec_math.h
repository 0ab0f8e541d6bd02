// Elementary functions of Vec<float> and Vec<double>, the same formulas at every ISA level.
//
// Specials follow C's Annex F: NaN stays NaN, infinities and signed zeros are exact, subnormals are neither flushed on
// the way in nor on the way out. No function branches on its input, but for sin, cos and tan of huge arguments and
// fmod of huge quotients; those lanes, and pow in double, go to the C library.
//
// Largest error measured, in ulp: float without and with fma, then double without and with (the avx2 and avx512 levels
// agree). float: every 97th bit pattern and 6,000 neighbours of each of 34 thresholds, against the C library in double;
// double: 10^6 arguments, uniform, log-uniform and random bits, against libquadmath; atan2, pow: 10^6 pairs.
//   exp      0.96 0.98  0.97 1.00     |  tanh     1.40 1.42  2.45 2.67
//   exp2     1.21 0.94  1.14 0.88     |  sigmoid  1.88 1.88  1.83 1.83
//   expm1    1.50 1.40  2.04 2.01     |  erf      1.17 1.09  1.21 1.07
//   log      0.89 0.85  0.80 0.80     |  sinh     1.62 1.62  1.59 1.59
//   log2     1.79 1.57  1.45 1.35     |  cosh     1.39 1.41  1.34 1.34
//   log10    1.87 1.87  1.72 1.72     |  asin     2.35 2.35  2.24 2.24
//   log1p    0.91 0.91  0.81 0.81     |  acos     2.20 2.20  2.03 1.90
//   sin      1.55 1.55  1.54 1.54     |  atan     1.48 1.34  1.71 1.56
//   cos      1.55 1.55  1.54 1.54     |  atan2    1.54 1.51  1.68 1.56
//   tan      3.64 3.51  3.43 3.26     |  pow      0.51 0.51  (C library)
//
// Polynomials: minimax by Remez exchange in 45-digit arithmetic on the reduced interval, weighted for the relative
// error of the result, then rounded coefficient by coefficient; the leading terms (1 + r, x, 1 - z/2, ...) are exact
// and outside the polynomial. Reduction of exp, sin and cos: Cody & Waite, Software Manual for the Elementary Functions
// (1980); log through s = f / (2 + f) and the grouping f - (f^2/2 - ...): Tang, ACM TOMS 16 (1990).
#pragma once
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

template <class T> constexpr T kInf = T(__builtin_inf());
template <class T> constexpr T kNaN = T(__builtin_nan(""));
template <class T> constexpr int kFractionBits = sizeof(T) == 4 ? 23 : 52;
template <class T> constexpr int kExponentBias = sizeof(T) == 4 ? 127 : 1023;
// The value for float, the value for double.
template <class T> constexpr T pick(float f, double d) { return sizeof(T) == 4 ? T(f) : T(d); }

// c0 + c1 x + c2 x^2 + ... by Horner's rule; the coefficients are exact in T.
template <class T> TW_INLINE Vec<T> poly(Vec<T>, double c0) { return T(c0); }
template <class T, class... C> TW_INLINE Vec<T> poly(Vec<T> x, double c0, C... c) {
  return fma(poly(x, c...), x, Vec<T>(T(c0)));
}

// The integer nearest to x, ties to even, as a float and as an integer, for |x| < 2^22 (2^51).
template <class T> struct Nearest {
  Vec<T> value;
  Mask<T> integer;
};
template <class T> constexpr T kShifter = pick<T>(0x1.8p23f, 0x1.8p52);
template <class T> TW_INLINE Nearest<T> nearest(Vec<T> x) {
  const Vec<T> shifter = kShifter<T>, shifted = x + shifter;
  return {shifted - shifter, bits(shifted) - bits(shifter)};
}

// x 2^n for a normal x, |n| < 2^10 (2^13): with one rounding, so subnormal results come out right.
template <class T> TW_INLINE Vec<T> scale(Vec<T> x, Nearest<T> n) {
#if TW_VEC_BYTES == 64
  if constexpr (kSame<T, float>) return _mm512_scalef_ps(x.v, n.value.v);
  else return _mm512_scalef_pd(x.v, n.value.v);
#else
  const Mask<T> half = n.integer >> 1, bias = typename Mask<T>::Element(kExponentBias<T>);
  return x * from_bits((half + bias) << kFractionBits<T>) * from_bits((n.integer - half + bias) << kFractionBits<T>);
#endif
}
// 2^n where that is a normal number. As a factor, not as a sum in the exponent's bits, it lets NaN through.
template <class T> TW_INLINE Vec<T> power_of_two(Mask<T> n) {
  return from_bits((n + Mask<T>(typename Mask<T>::Element(kExponentBias<T>))) << kFractionBits<T>);
}

// ---- exponentials ----

// x = n ln 2 + r with |r| <= (ln 2) / 2. n times the first part of ln 2 is exact.
template <class T> struct ExpParts {
  Nearest<T> n;
  Vec<T> r;
};
template <class T> TW_INLINE ExpParts<T> exp_reduce(Vec<T> x) {
  const Nearest<T> n = nearest(x * Vec<T>(T(0x1.71547652b82fep+0)));
  Vec<T> r = fma(n.value, Vec<T>(pick<T>(-0x1.62e4p-1f, -0x1.62e42fefa3p-1)), x);
  r = fma(n.value, Vec<T>(pick<T>(-0x1.7f7d1cp-20f, -0x1.3de6af278ece6p-42)), r);
  return {n, r};
}
// e^r - 1 for |r| <= (ln 2) / 2.
template <class T> TW_INLINE Vec<T> expm1_poly(Vec<T> r) {
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(r, 0x1.fffffcp-2, 0x1.55549p-3, 0x1.5558f6p-5, 0x1.123a48p-7, 0x1.6a217cp-10);
  } else {
    q = poly(r, 0x1.000000000000ap-1, 0x1.55555555554fap-3, 0x1.55555555507d9p-5, 0x1.1111111127b2cp-7,
             0x1.6c16c1844e654p-10, 0x1.a01a012ac53dcp-13, 0x1.a01999a79a61ap-16, 0x1.71df23ee7bb93p-19,
             0x1.28add2454d111p-22, 0x1.ad825863c997p-26);
  }
  return fma(r * r, q, r);
}
template <class T> TW_INLINE Vec<T> clamp_keep_nan(Vec<T> x, T lo, T hi) { return max(Vec<T>(lo), min(Vec<T>(hi), x)); }

// e^x 2^k, overflowing only where that does.
template <class T> TW_INLINE Vec<T> exp_scaled(Vec<T> x, int k) {
  ExpParts<T> p = exp_reduce(clamp_keep_nan(x, pick<T>(-104, -746), pick<T>(90, 711)));
  p.n.value += Vec<T>(T(k));
  p.n.integer += Mask<T>(k);
  return scale(Vec<T>(T(1)) + expm1_poly(p.r), p.n);
}
// e^x where that is a normal number: no care for the ends.
template <class T> TW_INLINE Vec<T> exp_normal(Vec<T> x) {
  const ExpParts<T> p = exp_reduce(x);
  return (Vec<T>(T(1)) + expm1_poly(p.r)) * power_of_two<T>(p.n.integer);
}
template <class T> TW_INLINE Vec<T> exp(Vec<T> x) {
  const ExpParts<T> p = exp_reduce(clamp_keep_nan(x, pick<T>(-104, -746), pick<T>(89, 710)));
  return scale(Vec<T>(T(1)) + expm1_poly(p.r), p.n);
}
template <class T> TW_INLINE Vec<T> exp2(Vec<T> x) {
  const Vec<T> clamped = clamp_keep_nan(x, pick<T>(-151, -1076), pick<T>(129, 1025));
  const Nearest<T> n = nearest(clamped);
  const Vec<T> r = clamped - n.value;
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(r, 0x1.62e43p-1, 0x1.ebfbdcp-3, 0x1.c6aee8p-5, 0x1.3b2d5p-7, 0x1.5f3e4ap-10, 0x1.41f9b4p-13);
  } else {
    q = poly(r, 0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a0cfp-5, 0x1.3b2ab6fba4e22p-7,
             0x1.5d87fe78a26bep-10, 0x1.430912f883e4bp-13, 0x1.ffcbfc74da3e5p-17, 0x1.62c021e21f7b2p-20,
             0x1.b524dd4aebb9ap-24, 0x1.e4d06d76d7587p-28, 0x1.ea0160a95910ep-32, 0x1.c2cd632ff2fe4p-36);
  }
  return scale(fma(r, q, Vec<T>(T(1))), n);
}
// 2^n (e^r - 1) + (2^n - 1), halved so that 2^n may be one power beyond the largest number.
template <class T> TW_INLINE Vec<T> expm1(Vec<T> x) {
  const Vec<T> half = T(0.5);
  const ExpParts<T> p = exp_reduce(clamp_keep_nan(x, pick<T>(-20, -45), pick<T>(88.73f, 709.8)));
  const Vec<T> e = expm1_poly(p.r), s = power_of_two<T>(p.n.integer - Mask<T>(1));
  const Vec<T> y = select(p.n.integer == Mask<T>(0), e, Vec<T>(T(2)) * fma(s, e, s - half));
  return select(abs(x) < Vec<T>(pick<T>(0x1p-25f, 0x1p-54)), x, y);
}
// 1 / (1 + e^-x), from e = e^-|x| so that small results keep their digits. What rounding takes from d = 1 + e goes back
// in as a factor 1 - lost / d, for which a line through 1 / d is near enough.
template <class T> TW_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> one = T(1), e = exp(-abs(x)), d = one + e, lost = e - (d - one);
  const Vec<T> y = select(x < Vec<T>(T(0)), e, one) / d;
  return y - y * (lost * (Vec<T>(T(0.957)) - Vec<T>(T(0.457)) * e));
}

// ---- logarithms ----

// x = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), for x > 0, subnormals included.
template <class T> struct LogParts {
  Vec<T> e, f;
};
template <class T> TW_INLINE LogParts<T> log_reduce(Vec<T> x) {
  using I = typename IntOf<T>::type;
  constexpr int kUp = kFractionBits<T> + 1;
  constexpr I kOne = I(kExponentBias<T>) << kFractionBits<T>;
  constexpr I kSqrtHalf = I(sizeof(T) == 4 ? 0x3f3504f3 : 0x3fe6a09e667f3bcd);
  const Mask<T> tiny = x < Vec<T>(pick<T>(0x1p-126f, 0x1p-1022));
  const Mask<T> b = bits(select(tiny, x * Vec<T>(T(int64_t(1) << kUp)), x));
  const Mask<T> biased = shift_right_logical(b + Mask<T>(kOne - kSqrtHalf), kFractionBits<T>);  // e + bias
  const Vec<T> f = from_bits(b - ((biased - Mask<T>(I(kExponentBias<T>))) << kFractionBits<T>)) - Vec<T>(T(1));
  // biased, placed in the fraction of 2^23 (2^52), is that much more than it
  const Vec<T> base = T(int64_t(1) << kFractionBits<T>), bias = T(kExponentBias<T>);
  const Vec<T> e = from_bits(biased | bits(base)) - select(tiny, base + bias + Vec<T>(T(kUp)), base + bias);
  return {e, f};
}
// f - log(1 + f) on the reduced interval.
template <class T> TW_INLINE Vec<T> log_defect(Vec<T> f) {
  const Vec<T> half_square = Vec<T>(T(0.5)) * f * f;
  if constexpr (kSame<T, float>) {
    const Vec<T> q = poly(f, 0x1.555554p-2, -0x1.000226p-2, 0x1.99a00ep-3, -0x1.547268p-3, 0x1.22d9a4p-3,
                          -0x1.0d8358p-3, 0x1.055dfp-3, -0x1.38c654p-4);
    return fma(-(f * f * f), q, half_square);
  } else {
    const Vec<T> s = f / (Vec<T>(2.0) + f), z = s * s;
    const Vec<T> r = z * poly(z, 0x1.5555555555593p-1, 0x1.999999997fc58p-2, 0x1.24924942078fp-2, 0x1.c71c51f4be3aap-3,
                              0x1.7466439e8f9d5p-3, 0x1.39a135307e8a1p-3, 0x1.2f0b1897d6f3bp-3);
    return half_square - s * (half_square + r);
  }
}
// y where x is positive and finite; otherwise what every logarithm gives there.
template <class T> TW_INLINE Vec<T> log_specials(Vec<T> x, Vec<T> y) {
  const Vec<T> zero = T(0), inf = kInf<T>;
  const Vec<T> special = select(x == zero, -inf, select(x < zero, Vec<T>(kNaN<T>), x));
  return select((x > zero) & (x < inf), y, special);
}
// e times the first part of ln 2 (log10 2) is exact.
template <class T> TW_INLINE Vec<T> log_join(Vec<T> e, Vec<T> f, Vec<T> defect) {
  const Vec<T> hi = pick<T>(0x1.62e4p-1f, 0x1.62e42fefa3p-1), lo = pick<T>(0x1.7f7d1cp-20f, 0x1.3de6af278ece6p-42);
  return fma(e, hi, f - (defect - e * lo));
}
template <class T> TW_INLINE Vec<T> log(Vec<T> x) {
  const LogParts<T> p = log_reduce(x);
  return log_specials(x, log_join(p.e, p.f, log_defect(p.f)));
}
template <class T> TW_INLINE Vec<T> log2(Vec<T> x) {
  const LogParts<T> p = log_reduce(x);
  // 1 / ln 2 in two parts; the second matters only where e is 0
  const Vec<T> hi = pick<T>(0x1.715476p+0f, 0x1.71547652b82fep+0), lo = pick<T>(0x1.4ae0cp-26f, 0x1.777d0ffda0d24p-56);
  const Vec<T> l = p.f - log_defect(p.f);
  return log_specials(x, p.e + fma(l, hi, l * lo));
}
template <class T> TW_INLINE Vec<T> log10(Vec<T> x) {
  const LogParts<T> p = log_reduce(x);
  const Vec<T> hi = pick<T>(0x1.344p-2f, 0x1.34413509f7p-2), lo = pick<T>(0x1.3509f8p-18f, 0x1.3fde623e2566bp-43);
  const Vec<T> l = (p.f - log_defect(p.f)) * Vec<T>(T(0x1.bcb7b1526e50ep-2));
  return log_specials(x, fma(p.e, hi, fma(p.e, lo, l)));
}
// log of u = 1 + x rounded, plus (what the rounding lost) / u.
template <class T> TW_INLINE Vec<T> log1p(Vec<T> x) {
  const Vec<T> one = T(1), u = one + x, back = u - one;
  const Vec<T> lost = (one - (u - back)) + (x - back);
  const LogParts<T> p = log_reduce(u);
  const Vec<T> y = log_specials(u, log_join(p.e, p.f, log_defect(p.f) - lost / u));
  return select(abs(x) < Vec<T>(pick<T>(0x1p-25f, 0x1p-54)), x, y);
}

// ---- sine, cosine, tangent ----

// x = n pi/2 + r, |r| a little over pi/4 at most, for |x| <= kTrigLimit. Every part of pi/2 but the last gives an exact
// product with n; float uses fma for that, and double arithmetic where there is none.
template <class T> constexpr T kTrigLimit = pick<T>(1e5f, 1e6);
template <class T> struct TrigParts {
  Mask<T> n;
  Vec<T> r;
};
template <class T> TW_INLINE TrigParts<T> trig_reduce(Vec<T> x) {
  const Vec<T> two_over_pi = T(0x1.45f306dc9c883p-1);
  const Nearest<T> n = nearest(x * two_over_pi);
  if constexpr (kSame<T, double>) {
    const Vec<T> w = n.value * Vec<T>(0x1.0b4611a6p-34);
    const Vec<T> first = fma(n.value, Vec<T>(-0x1.921fb544p+0), x), second = first - w;
    return {n.integer, second + ((first - second) - w - n.value * Vec<T>(0x1.3198a2e037073p-69))};
  } else {
#ifdef __FMA__
    Vec<T> r = fma(n.value, Vec<T>(-0x1.921fb4p+0f), x);
    r = fma(n.value, Vec<T>(-0x1.4442dp-24f), r);
    return {n.integer, fma(n.value, Vec<T>(-0x1.84698ap-48f), r)};
#else
    const Vec<double> hi = 0x1.921fb544p+0, lo = 0x1.0b4611a626331p-34;
    const Vec<double> n0 = low_half(n.value), n1 = high_half(n.value);
    return {n.integer, join_halves(low_half(x) - n0 * hi - n0 * lo, high_half(x) - n1 * hi - n1 * lo)};
#endif
  }
}
template <class T> TW_INLINE Vec<T> sin_poly(Vec<T> r) {
  const Vec<T> z = r * r;
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(z, -0x1.555546p-3, 0x1.110734p-7, -0x1.9941a2p-13);
  } else {
    q = poly(z, -0x1.5555555555548p-3, 0x1.111111110f79ep-7, -0x1.a01a019bf72bp-13, 0x1.71de356192a48p-19,
             -0x1.ae5e55670b2a2p-26, 0x1.5d8e403a1e3dcp-33);
  }
  return fma(r * z, q, r);
}
template <class T> TW_INLINE Vec<T> cos_poly(Vec<T> r) {
  const Vec<T> z = r * r;
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(z, 0x1.55554ap-5, -0x1.6c0c2ap-10, 0x1.99e914p-16);
  } else {
    q = poly(z, 0x1.555555555554bp-5, -0x1.6c16c16c14f48p-10, 0x1.a01a019c7d0cbp-16, -0x1.27e4f7e56a78dp-22,
             0x1.1ee9d3fda70f7p-29, -0x1.8fa2a31097ac6p-37);
  }
  return fma(z * z, q, fma(z, Vec<T>(T(-0.5)), Vec<T>(T(1))));
}
// Lanes beyond the limit are rare (positions and angles are not that large) and go to the C library one by one, in
// double, which serves float and double at every level alike.
struct LibSin {
  TW_INLINE double operator()(double x) const { return __builtin_sin(x); }
};
struct LibCos {
  TW_INLINE double operator()(double x) const { return __builtin_cos(x); }
};
struct LibTan {
  TW_INLINE double operator()(double x) const { return __builtin_tan(x); }
};
template <class T, class F> TW_INLINE Vec<T> trig_huge(Vec<T> x, Vec<T> y, F f) {
  if (any(abs(x) > Vec<T>(kTrigLimit<T>))) {
    for (int i = 0; i < Vec<T>::kLanes; ++i) {
      if (__builtin_fabs(double(x[i])) > double(kTrigLimit<T>)) y.v[i] = T(f(double(x[i])));
    }
  }
  return y;
}
// sin(r + n pi/2).
template <class T> TW_INLINE Vec<T> sin_quadrant(Vec<T> r, Mask<T> n) {
  const Mask<T> one = 1, odd = (n & one) == one;
  const Vec<T> y = select(odd, cos_poly(r), sin_poly(r));
  return from_bits(bits(y) ^ ((n >> 1) << (8 * int(sizeof(T)) - 1)));
}
template <class T> TW_INLINE Vec<T> sin(Vec<T> x) {
  const TrigParts<T> p = trig_reduce(x);
  const Vec<T> y = select(abs(x) < Vec<T>(pick<T>(0x1p-13f, 0x1p-27)), x, sin_quadrant(p.r, p.n));  // keeps -0
  return trig_huge(x, y, LibSin());
}
template <class T> TW_INLINE Vec<T> cos(Vec<T> x) {
  const TrigParts<T> p = trig_reduce(x);
  return trig_huge(x, sin_quadrant(p.r, p.n + Mask<T>(1)), LibCos());
}
template <class T> TW_INLINE Vec<T> tan(Vec<T> x) {
  const TrigParts<T> p = trig_reduce(x);
  const Mask<T> one = 1, odd = (p.n & one) == one;
  const Vec<T> s = sin_poly(p.r), c = cos_poly(p.r);
  const Vec<T> y = select(odd, -c, s) / select(odd, s, c);
  return trig_huge(x, select(abs(x) < Vec<T>(pick<T>(0x1p-13f, 0x1p-27)), x, y), LibTan());
}

// a + a z q(z), odd in a, with z = a^2: the shape of the next few.
template <class T> TW_INLINE Vec<T> atan_poly(Vec<T> a) {  // |a| <= 1
  const Vec<T> z = a * a;
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(z, -0x1.55553ep-2, 0x1.9991fep-3, -0x1.2421bcp-3, 0x1.c09a2p-4, -0x1.5834a2p-4, 0x1.dac96cp-5,
             -0x1.fecfaap-6, 0x1.65a428p-7, -0x1.d62be6p-10);
  } else {
    q = poly(z, -0x1.5555555555526p-2, 0x1.9999999995555p-3, -0x1.249249237e44ep-3, 0x1.c71c717f9a8bfp-4,
             -0x1.745d11ab4c6d4p-4, 0x1.3b1366799a58ap-4, -0x1.110e5037e004cp-4, 0x1.e1bb9c4c2404dp-5,
             -0x1.ae5e493f5ffa2p-5, 0x1.82da54c4b3721p-5, -0x1.59a2bea13bf3p-5, 0x1.2c2bf76489fe5p-5,
             -0x1.e9f2e2fc4b3b5p-6, 0x1.683474446a3e1p-6, -0x1.c780e7fee8138p-7, 0x1.d7a518e978d84p-8,
             -0x1.7a25f0142f242p-9, 0x1.b3e04eaa150a5p-11, -0x1.3f20674f432e9p-13, 0x1.bbcc20a460986p-17);
  }
  return fma(a * z, q, a);
}
// The angle of the point (x, y): octant by octant from the smaller coordinate over the larger.
template <class T> TW_INLINE Vec<T> atan2(Vec<T> y, Vec<T> x) {
  const Vec<T> zero = T(0), ax = abs(x), ay = abs(y), hi = max(ax, ay), lo = min(ax, ay);
  const Vec<T> ratio = select(hi == zero, zero, select(lo == Vec<T>(kInf<T>), Vec<T>(T(1)), lo / hi));
  const Vec<T> half_pi = T(0x1.921fb54442d18p+0), half_pi_lo = pick<T>(-0x1.777a5cp-25f, 0x1.1a62633145c07p-54);
  const Vec<T> first = atan_poly(ratio), upright = half_pi - (copysign(first, x) - half_pi_lo);
  const Vec<T> behind = (half_pi + half_pi) - (first - (half_pi_lo + half_pi_lo));
  const Vec<T> r = select(ay > ax, upright, select(bits(x) < Mask<T>(0), behind, first));
  return select((x != x) | (y != y), x + y, copysign(r, y));
}
template <class T> TW_INLINE Vec<T> atan(Vec<T> x) { return atan2(x, Vec<T>(T(1))); }
template <class T> TW_INLINE Vec<T> asin(Vec<T> x) {
  const Vec<T> one = T(1);
  return atan2(x, sqrt((one - x) * (one + x)));
}
template <class T> TW_INLINE Vec<T> acos(Vec<T> x) {
  const Vec<T> one = T(1);
  return atan2(sqrt((one - x) * (one + x)), x);
}

// ---- hyperbolic functions ----

template <class T> TW_INLINE Vec<T> sinh(Vec<T> x) {
  const Vec<T> a = abs(x), z = a * a, h = exp_scaled(a, -1);
  Vec<T> q;
  if constexpr (kSame<T, float>) {
    q = poly(z, 0x1.555556p-3, 0x1.111134p-7, 0x1.9ffe96p-13, 0x1.7a1516p-19);
  } else {
    q = poly(z, 0x1.5555555555556p-3, 0x1.11111111110a6p-7, 0x1.a01a01a02894fp-13, 0x1.71de3a465f164p-19,
             0x1.ae646717d63aap-26, 0x1.611a576c1b115p-33, 0x1.b4c6f2c4bad7cp-41);
  }
  return copysign(select(a < Vec<T>(T(1)), fma(a * z, q, a), h - Vec<T>(T(0.25)) / h), x);
}
template <class T> TW_INLINE Vec<T> cosh(Vec<T> x) {
  const Vec<T> h = exp_scaled(abs(x), -1);
  return h + Vec<T>(T(0.25)) / h;
}
// With t = e^2a - 1: t / (t + 2), or 1 - 2 / (t + 2) where that is the larger part.
template <class T> TW_INLINE Vec<T> tanh(Vec<T> x) {
  const Vec<T> a = abs(x), two = T(2), zero = T(0), one = T(1);
  const Vec<T> capped = min(Vec<T>(T(20)), a);
  if constexpr (kSame<T, float>) {
    const Vec<T> z = a * a;
    const Vec<T> small =
        fma(a * z, poly(z, -0x1.55554ap-2, 0x1.110d28p-3, -0x1.b928dp-5, 0x1.593fd6p-6, -0x1.9b403ep-8), a);
    return copysign(select(a < Vec<T>(0.55f), small, one - two / (exp_normal(capped + capped) + one)), x);
  } else {
    const Vec<T> t = expm1(capped + capped);
    const Mask<T> large = t > two;
    return copysign(select(large, one, zero) + select(large, -two, t) / (t + two), x);
  }
}

// ---- error function ----

// x + x q(x^2) up to 0.92, beyond it 1 - e^p(|x|) with p = log erfc, until erf rounds to 1.
template <class T> TW_INLINE Vec<T> erf(Vec<T> x) {
  const Vec<T> a = abs(x), z = a * a, t = min(Vec<T>(pick<T>(3.93f, 5.95)), a);
  Vec<T> q, p;
  if constexpr (kSame<T, float>) {
    q = poly(z, 0x1.06eba8p-3, -0x1.812744p-2, 0x1.ce2e24p-4, -0x1.b810e6p-6, 0x1.54df0cp-8, -0x1.ab1014p-11,
             0x1.5f94cap-14);
    p = poly(t, 0x1.6e7cdcp-13, -0x1.2127eap+0, -0x1.4445f4p-1, -0x1.bb84bcp-4, 0x1.9b90b6p-6, -0x1.115e34p-8,
             0x1.c79c7ep-12, -0x1.61fa72p-16);
  } else {
    q = poly(z, 0x1.06eba8214db69p-3, -0x1.812746b0379e7p-2, 0x1.ce2f21a042bc1p-4, -0x1.b82ce31287e35p-6,
             0x1.565bcd0e3e68p-8, -0x1.c02db3f548234p-11, 0x1.f9a325367db34p-14, -0x1.f4d22b8d5ba78p-17,
             0x1.b9e32e862b40ap-20, -0x1.5f450531b7c6ep-23, 0x1.f97e9c1ac6c14p-27, -0x1.3ec4f0a3065b5p-30,
             0x1.188a5e656ebb7p-34);
    p = poly(t, -0x1.69c416240479cp-24, -0x1.20dd661873d3p+0, -0x1.45f397e2ae253p-1, -0x1.a4e78497917adp-4,
             0x1.38fcb7e12274ap-6, 0x1.ff3ebd9e95e1bp-13, -0x1.c4fb2d8f1a8c2p-10, 0x1.3d6b2e4820ad9p-11,
             -0x1.52c99fc69a2fep-16, -0x1.5fd43256f6d9p-14, 0x1.ab783eb29e44p-15, -0x1.37b667c39866bp-16,
             0x1.489aed599da98p-18, -0x1.05317fadd6ffp-20, 0x1.390e668ba7581p-23, -0x1.13b3d86949581p-26,
             0x1.519252c53aacp-30, -0x1.00ef7ebd19113p-34, 0x1.6e44b8748d17ap-40);
  }
  return copysign(select(a < Vec<T>(T(0.92)), fma(a, q, a), Vec<T>(T(1)) - exp_normal(p)), x);
}

// ---- power ----

// |x|^y = 2^(y log2 |x|) in double, for halves of a float vector: log2 to 2^-44, then 2^r to 2^-34.
TW_INLINE Vec<double> pow_of_half(Vec<double> x, Vec<double> y) {
  const LogParts<double> p = log_reduce(x);
  const Vec<double> s = p.f / (Vec<double>(2.0) + p.f), z = s * s;
  const Vec<double> series = z * poly(z, 0x1.555555561e976p-1, 0x1.999996a83318ep-2, 0x1.2494127c552a1p-2,
                                      0x1.c62add57543c4p-3, 0x1.911928f32ea2dp-3);
  Vec<double> l = fma(fma(s, series, s + s), Vec<double>(0x1.71547652b82fep+0), p.e);
  l = select(x == Vec<double>(0.0), Vec<double>(-kInf<double>), l);
  l = select(x == Vec<double>(kInf<double>), x, l);
  const Vec<double> power = clamp_keep_nan(y * l, -160.0, 160.0);
  const Nearest<double> n = nearest(power);
  const Vec<double> r = power - n.value;
  const Vec<double> q = poly(r, 0x1.62e42ff0dec03p-1, 0x1.ebfbe07772cc8p-3, 0x1.c6b08ac74e54ep-5, 0x1.3b29f39efd726p-7,
                             0x1.5d8a7f83228dp-10, 0x1.445c89483fba3p-13, 0x1.fdeca26f68171p-17);
  return fma(r, q, Vec<double>(1.0)) * power_of_two<double>(n.integer);
}
TW_INLINE Vec<float> pow(Vec<float> x, Vec<float> y) {
  const Vec<float> a = abs(x), zero = 0.0f, one = 1.0f, inf = kInf<float>, half_y = y * Vec<float>(0.5f);
  Vec<float> r = join_halves(pow_of_half(low_half(a), low_half(y)), pow_of_half(high_half(a), high_half(y)));
  r = select((a == one) & (abs(y) == inf), one, r);
  const Mask<float> integer = trunc(y) == y, odd = integer & (trunc(half_y) != half_y);
  r = from_bits(bits(r) | (bits(x) & odd & Mask<float>(kSignBit<float>)));
  const Vec<float> nan = kNaN<float>;
  r = select((x < zero) & (x > -inf) & (integer == Mask<float>(0)), nan, r);
  r = select((x != x) | (y != y), nan, r);
  return select((y == zero) | (x == one), one, r);
}
// An ulp in double needs the logarithm to 64 bits and more, so this one asks the C library, lane by lane.
TW_INLINE Vec<double> pow(Vec<double> x, Vec<double> y) {
  Vec<double> r = x;
  for (int i = 0; i < Vec<double>::kLanes; ++i) r.v[i] = __builtin_pow(x[i], y[i]);
  return r;
}

// ---- remainder ----

// a - q b, q = trunc(a / b), exact as C's. Where every quotient is small, in registers: float's q < 2^28 times b is
// exact in double, where a / b cannot round up to an integer; for double, fma leaves an exact remainder, of the wrong
// sign where q came out one too large. Other lanes (and double without fma) ask the C library.
template <class T> TW_INLINE Vec<T> fmod(Vec<T> a, Vec<T> b) {
#ifdef __FMA__
  constexpr bool kRegisters = true;
#else
  constexpr bool kRegisters = kSame<T, float>;
#endif
  const Mask<T> small = (abs(a) < abs(b) * Vec<T>(T(0x1p28))) & (abs(b) < Vec<T>(kInf<T>));
  if (kRegisters && !any(small == Mask<T>(0))) {
    Vec<T> r;
    if constexpr (kSame<T, float>) {
      const Vec<double> a0 = low_half(a), a1 = high_half(a), b0 = low_half(b), b1 = high_half(b);
      r = join_halves(a0 - trunc(a0 / b0) * b0, a1 - trunc(a1 / b1) * b1);
    } else {
      r = fma(-trunc(a / b), b, a);
      r = select(r * copysign(Vec<T>(T(1)), a) < Vec<T>(T(0)), r + copysign(b, a), r);
    }
    return copysign(r, a);
  }
  Vec<T> r = a;
  for (int i = 0; i < Vec<T>::kLanes; ++i) {
    if constexpr (kSame<T, float>) r.v[i] = __builtin_fmodf(a[i], b[i]);
    else r.v[i] = __builtin_fmod(a[i], b[i]);
  }
  return r;
}

}  // namespace tw::TW_ISA
