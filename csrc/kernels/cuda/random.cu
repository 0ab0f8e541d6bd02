// Random numbers: uniform, normal, bernoulli, randint, and dropout with its mask; contiguous y.
//
// The numbers are the CPU's, bit for bit, for every grid: philox.h turns (seed, offset, element) into words and words
// into fractions, and what follows are the CPU kernels' expressions in their order (-fmad=false; fma where they have
// it). normal's logarithm, sine and cosine are the polynomials of kernels/cpu/vec_math.h as its levels with FMA compute
// them (the scalar level rounds otherwise), on the interval that Box-Muller needs. Dtypes, formulas and errors are those
// of kernels/cpu/random.cpp; tests/test_cuda.py holds the bits against the CPU's, test_op_table the distributions.
// A thread makes 16 bytes of y: whole counters of Philox, or for items of 8 bytes a counter. Bytes: y (dropout: x, y and
// a byte of mask). Operations: a counter is 40 products of words, low and high halves, and some 50 instructions more; at
// 64 products a clock and multiprocessor, 132 of them at 1.7 GHz make 1.4e12 words a second. An H100-class GPU's memory
// takes 3.35e12 bytes, 0.84e12 float32 uniforms: bound by the store, halves by arithmetic at 0.86 of it. Normals of
// float32 cost some 60 instructions a number more (no library calls, a root a pair): two to three times the store.
#include <cstring>

#include "kernels/cuda/places.cuh"
#include "philox.h"

namespace tw::cuda {
namespace {

// A rule makes the kEach items of a counter: rule(words, v).
template <class S, class Rule>
__global__ void __launch_bounds__(kPlaceThreads)
    random_kernel(S* y, int64_t n, uint64_t seed, uint64_t offset, bool aligned, const Rule rule) {
  constexpr int kEach = Rule::kEach, kItems = greatest(kEach, kLanes<S>);
  for (int64_t i = first_item() * kItems; i < n; i += item_step() * kItems) {
    S v[kItems];
#pragma unroll
    for (int c = 0; c < kItems / kEach; ++c) {
      const PhiloxWords words = philox_words(seed, offset + uint64_t(i / kEach + c));
      S part[kEach];
      rule(words.w, part);
#pragma unroll
      for (int k = 0; k < kEach; ++k) v[c * kEach + k] = part[k];
    }
    const int count = int(least<int64_t>(kItems, n - i));
    store_run<kItems>(y + i, v, count, aligned && count == kItems);
  }
}
template <class S, class Rule> void launch_random(const RandomArgs& a, const Rule& rule) {
  constexpr int kItems = greatest(Rule::kEach, kLanes<S>);
  const Grid grid = grid_of(ceil_div<int64_t>(a.n, kItems));
  S* y = static_cast<S*>(a.y);
  launch_kernel<random_kernel<S, Rule>>(grid.blocks, grid.threads, 0, current_stream(), y, a.n, a.seed, a.offset,
                                        aligned(y, 16), rule);
}

// A pair of words as one, low word first.
TW_DEVICE uint64_t both(const uint32_t (&w)[4], int k) { return w[2 * k] | uint64_t{w[2 * k + 1]} << 32; }

// The number just below x, among those of S.
template <class S> TW_DEVICE S below(S x) {
  constexpr uint64_t kSign = uint64_t{1} << (8 * sizeof(S) - 1);
  uint64_t b = 0;
  memcpy(&b, &x, sizeof(S));
  b = (b & ~kSign) == 0 ? kSign + 1 : b & kSign ? b + 1 : b - 1;
  memcpy(&x, &b, sizeof(S));
  return x;
}

template <class S> struct Uniform {
  using T = Accumulator<S>;
  static constexpr int kEach = std::is_same_v<T, double> ? 2 : 4;
  double a, b;
  TW_DEVICE void operator()(const uint32_t (&w)[4], S (&v)[kEach]) const {
    const S first = convert<S>(a), last = convert<S>(b);
    const T low = convert<T>(first), span = convert<T>(last) - low, most = convert<T>(below(last));
    const T limit = most > low ? most : low;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      T u;
      if constexpr (kEach == 2) u = uniform_of(both(w, k));
      else u = uniform_of(w[k]);
      const T x = low + u * span;
      v[k] = convert<S>(x < limit ? x : limit);
    }
  }
};

// The value for float, the value for double; and c0 + c1 x + c2 x^2 + ... by Horner's rule.
template <class T> constexpr T pick(float f, double d) { return sizeof(T) == 4 ? T(f) : T(d); }
template <class T> TW_DEVICE T poly(T, double c0) { return T(c0); }
template <class T, class... C> TW_DEVICE T poly(T x, double c0, C... c) { return fma(poly(x, c...), x, T(c0)); }

TW_DEVICE int32_t bits_of(float x) { return __float_as_int(x); }
TW_DEVICE float of_bits(int32_t b) { return __int_as_float(b); }
TW_DEVICE int64_t bits_of(double x) {
  int64_t b;
  memcpy(&b, &x, 8);
  return b;
}
TW_DEVICE double of_bits(int64_t b) {
  double x;
  memcpy(&x, &b, 8);
  return x;
}

// log x for normal x > 0: vec_math.h's log without its special cases.
template <class T> TW_DEVICE T log_positive(T x) {
  using I = decltype(bits_of(x));
  using U = std::make_unsigned_t<I>;
  constexpr int kFraction = sizeof(T) == 4 ? 23 : 52;
  constexpr I kBias = sizeof(T) == 4 ? 127 : 1023, kSqrtHalf = I(sizeof(T) == 4 ? 0x3f3504f3 : 0x3fe6a09e667f3bcd);
  const I b = bits_of(x), up = I(U(b + ((kBias << kFraction) - kSqrtHalf)) >> kFraction) - kBias;
  const T f = of_bits(b - I(U(up) << kFraction)) - T(1), e = T(up), half_square = T(0.5) * f * f;
  T defect;  // f - log(1 + f)
  if constexpr (sizeof(T) == 4) {
    defect = fma(-(f * f * f),
                 poly(f, 0x1.555554p-2, -0x1.000226p-2, 0x1.99a00ep-3, -0x1.547268p-3, 0x1.22d9a4p-3, -0x1.0d8358p-3,
                      0x1.055dfp-3, -0x1.38c654p-4),
                 half_square);
  } else {
    const T s = f / (T(2) + f), z = s * s;
    const T r = z * poly(z, 0x1.5555555555593p-1, 0x1.999999997fc58p-2, 0x1.24924942078fp-2, 0x1.c71c51f4be3aap-3,
                         0x1.7466439e8f9d5p-3, 0x1.39a135307e8a1p-3, 0x1.2f0b1897d6f3bp-3);
    defect = half_square - s * (half_square + r);
  }
  return fma(e, pick<T>(0x1.62e4p-1f, 0x1.62e42fefa3p-1),
             f - (defect - e * pick<T>(0x1.7f7d1cp-20f, 0x1.3de6af278ece6p-42)));
}

// cos and sin of 2 pi k / 2^24 (2^53).
template <class T, class K> TW_DEVICE void cos_sin_turn(K k, T* cosine, T* sine) {
  constexpr int kQuarter = (sizeof(T) == 4 ? 24 : 53) - 2;
  const K shifted = k + (K(1) << (kQuarter - 1)), quarter = shifted >> kQuarter,
          part = shifted & ((K(1) << kQuarter) - 1);
  const T turns = T(part) * pick<T>(0x1p-24f, 0x1p-53) - T(0.125);
  const T r = turns * T(6.283185307179586), z = r * r;
  T p, q;
  if constexpr (sizeof(T) == 4) {
    p = poly(z, -0x1.555546p-3, 0x1.110734p-7, -0x1.9941a2p-13);
    q = poly(z, 0x1.55554ap-5, -0x1.6c0c2ap-10, 0x1.99e914p-16);
  } else {
    p = poly(z, -0x1.5555555555548p-3, 0x1.111111110f79ep-7, -0x1.a01a019bf72bp-13, 0x1.71de356192a48p-19,
             -0x1.ae5e55670b2a2p-26, 0x1.5d8e403a1e3dcp-33);
    q = poly(z, 0x1.555555555554bp-5, -0x1.6c16c16c14f48p-10, 0x1.a01a019c7d0cbp-16, -0x1.27e4f7e56a78dp-22,
             0x1.1ee9d3fda70f7p-29, -0x1.8fa2a31097ac6p-37);
  }
  const T s = fma(r * z, p, r), c = fma(z * z, q, fma(z, T(-0.5), T(1)));
  const T x = quarter & 1 ? s : c, y = quarter & 1 ? c : s;  // a quarter further, (cos, sin) are (-sin, cos)
  *cosine = (quarter + 1) & 2 ? -x : x;
  *sine = quarter & 2 ? -y : y;
}

template <class S> struct Normal {
  using T = Accumulator<S>;
  static constexpr int kEach = std::is_same_v<T, double> ? 2 : 4;
  double mean, deviation;
  TW_DEVICE void operator()(const uint32_t (&w)[4], S (&v)[kEach]) const {
#pragma unroll
    for (int k = 0; k < kEach; k += 2) {
      T u, cosine, sine;
      if constexpr (kEach == 2) {
        u = uniform_of(both(w, 0));
        cos_sin_turn(both(w, 1) >> kUniformShift64, &cosine, &sine);
      } else {
        u = uniform_of(w[k]);
        cos_sin_turn(w[k + 1] >> kUniformShift, &cosine, &sine);
      }
      const T r = T(deviation) * sqrt(T(-2) * log_positive(T(1) - u));
      v[k] = convert<S>(fma(r, cosine, T(mean)));
      v[k + 1] = convert<S>(fma(r, sine, T(mean)));
    }
  }
};

// S: a word of the dtype's size, in which `one` is 1.
template <class S> struct Bernoulli {
  static constexpr int kEach = 4;
  uint32_t threshold;
  S one;
  TW_DEVICE void operator()(const uint32_t (&w)[4], S (&v)[kEach]) const {
#pragma unroll
    for (int k = 0; k < kEach; ++k) v[k] = w[k] >> kUniformShift < threshold ? one : S(0);
  }
};

template <class S> struct Integers {
  static constexpr int kEach = 2;
  int64_t low, high;
  TW_DEVICE void operator()(const uint32_t (&w)[4], S (&v)[kEach]) const {
#pragma unroll
    for (int k = 0; k < kEach; ++k) v[k] = S(randint_of(both(w, k), low, high));
  }
};

template <class S>
__global__ void __launch_bounds__(kPlaceThreads)
    dropout_kernel(const __grid_constant__ DropoutArgs a, uint32_t threshold, double scale, bool aligned) {
  using T = Accumulator<S>;
  constexpr int kItems = greatest(4, kLanes<S>);
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  uint8_t* mask = static_cast<uint8_t*>(a.mask);
  for (int64_t i = first_item() * kItems; i < a.n; i += item_step() * kItems) {
    const int count = int(least<int64_t>(kItems, a.n - i));
    const bool whole = aligned && count == kItems;
    T v[kItems];
    uint8_t keep[kItems];
    load_run<kItems>(v, x + i, count, whole);
#pragma unroll
    for (int c = 0; c < kItems / 4; ++c) {
      const PhiloxWords words = philox_words(a.seed, a.offset + uint64_t(i / 4 + c));
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        keep[4 * c + k] = words.w[k] >> kUniformShift >= threshold;
        v[4 * c + k] *= keep[4 * c + k] ? T(scale) : T(0);
      }
    }
    store_run<kItems>(y + i, v, count, whole);
    store_run<kItems>(mask + i, keep, count, whole);
  }
}

// f(a word of the dtype's size).
template <class F> void visit_size(DType t, const F& f) {
  switch (itemsize(t)) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}
uint64_t one_of(DType t) {
  switch (t) {
    case DType::kFloat16: return 0x3c00;
    case DType::kBFloat16: return 0x3f80;
    case DType::kFloat32: return 0x3f800000;
    case DType::kFloat64: return 0x3ff0000000000000;
    default: return 1;
  }
}

}  // namespace

void uniform(const RandomArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    launch_random<S>(a, Uniform<S>{a.a, a.b});
  });
}
void normal(const RandomArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    launch_random<S>(a, Normal<S>{a.a, a.b});
  });
}
void bernoulli(const RandomArgs& a) {
  visit_size(a.dtype, [&](auto word) {
    using S = decltype(word);
    launch_random<S>(a, Bernoulli<S>{bernoulli_threshold(a.a), static_cast<S>(one_of(a.dtype))});
  });
}
void randint(const RandomArgs& a) {
  visit_size(a.dtype, [&](auto word) { launch_random<decltype(word)>(a, Integers<decltype(word)>{a.low, a.high}); });
}

void dropout(const DropoutArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    constexpr int kItems = greatest(4, kLanes<S>);
    const Grid grid = grid_of(ceil_div<int64_t>(a.n, kItems));
    const bool all_aligned = aligned(a.x, 16) && aligned(a.y, 16) && aligned(a.mask, 16);
    launch_kernel<dropout_kernel<S>>(grid.blocks, grid.threads, 0, current_stream(), a, bernoulli_threshold(a.p),
                                     a.p < 1 ? 1 / (1 - a.p) : 0.0, all_aligned);
  });
}

}  // namespace tw::cuda
