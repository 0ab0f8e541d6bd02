// Random numbers: uniform, normal, bernoulli, randint, and dropout with its mask.
// y is contiguous; uniform, normal and dropout take all floats, bernoulli any dtype, randint the integers. Halves are
// computed in float32 and rounded. The rules that turn (seed, offset, element) into a number stand in philox.h.
// uniform: a + u * (b - a) in y's type, product and sum rounded apart, then held below b, which rounding could reach
// (a half's a and b are rounded to it first). dropout: x * (mask / (1 - p)), mask by float32 uniforms for every dtype,
// so a NaN stays one; p = 1 multiplies by 0.
// Everything but normal has the same bits at every ISA level and for any number of threads; normal differs between
// levels by the rounding of log and of fused products, 2.4e-7 at most in float32. Its error against the formula in long
// double is below 2.5e-7 |z| (float32, |z| >= 1e-3) and 7e-16 |z| (float64). The angle is reduced in turns: exactly.
// Bound by arithmetic, not by memory: 16 million uniforms at 0.25 of a store's limit, normals at 0.12, dropout at 0.3.
// One step of philox_lanes.h gives two registers of words in memory order.
#include "kernels/cpu/philox_lanes.h"

#include "kernel_table.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec_math.h"

namespace tw::TW_ISA {

namespace {

constexpr int64_t kGrain = 16384;  // elements a piece: 64 KiB of float32, some 10 us of uniform

// Words of the counters from `counter` on, one a lane. Even lanes hold the first half of them and odd lanes the second,
// because that is the order in which unpack_low and unpack_high, each within 128 bits, give them back.
TW_INLINE void draw(uint64_t seed, uint64_t counter, Lanes (&w)[4]) {
  const Lanes lane = Lanes::iota(), c = Lanes(int64_t(counter)) + ((lane & 1) * (Lanes::kLanes / 2) + (lane >> 1));
  w[0] = c, w[1] = high_word(c), w[2] = Lanes(0), w[3] = Lanes(0);
  philox(seed, w);
}
template <class T> TW_INLINE Vec<T> as(Lanes x) { return (typename Vec<T>::Native)x.v; }
template <class T> TW_INLINE Vec<T> unpack_low(Vec<T> a, Vec<T> b) {
  if constexpr (sizeof(T) == 4) return (typename Vec<T>::Native)TW_MM(unpacklo_epi32)((Register)a.v, (Register)b.v);
  else return (typename Vec<T>::Native)TW_MM(unpacklo_epi64)((Register)a.v, (Register)b.v);
}
template <class T> TW_INLINE Vec<T> unpack_high(Vec<T> a, Vec<T> b) {
  if constexpr (sizeof(T) == 4) return (typename Vec<T>::Native)TW_MM(unpackhi_epi32)((Register)a.v, (Register)b.v);
  else return (typename Vec<T>::Native)TW_MM(unpackhi_epi64)((Register)a.v, (Register)b.v);
}

template <class T, class S> TW_INLINE void put(S* y, Vec<T> x, int64_t room) {
  if (room >= Vec<T>::kLanes) store_as(y, x);
  else if (room > 0) store_as(y, x, int(room));
}

// y[i] for i in [begin, end), begin a multiple of a step: make(words, first, second) turns one step's words into its
// two registers of T. An element uses sizeof(T) bytes of words.
template <class T, class S, class Make>
TW_INLINE void fill(S* y, int64_t begin, int64_t end, uint64_t seed, uint64_t offset, const Make& make) {
  constexpr int64_t kLanes = Vec<T>::kLanes;
  for (int64_t i = begin; i < end; i += 2 * kLanes, y += 2 * kLanes) {
    Lanes w[4];
    draw(seed, offset + uint64_t(i) * sizeof(T) / 16, w);
    Vec<T> first, second;
    make(w, first, second);
    put(y, first, end - i);
    put(y + kLanes, second, end - i - kLanes);
  }
}

// The words in memory order, as one or two to an element.
template <class I> TW_INLINE void in_order(const Lanes (&w)[4], Vec<I>& first, Vec<I>& second) {
  const Lanes a = join(w[0], w[1]), b = join(w[2], w[3]);
  first = as<I>(unpack_low(a, b)), second = as<I>(unpack_high(a, b));
}

// An integer below 2^24 (2^53) as a fraction of it; exact.
TW_INLINE Vec<float> fraction(Vec<int32_t> k) { return to_float(k) * Vec<float>(0x1p-24f); }
TW_INLINE Vec<double> fraction(Vec<int64_t> k) {  // the two halves as mantissas of 2^52 + half
  const Lanes one = bits(Vec<double>(0x1p52));
  const Vec<double> low = from_bits((k & 0xffffffff) | one) - Vec<double>(0x1p52);
  const Vec<double> high = from_bits(high_word(k) | one) - Vec<double>(0x1p52);
  return high * Vec<double>(0x1p-21) + low * Vec<double>(0x1p-53);
}
template <class T> constexpr int kBits = sizeof(T) == 4 ? 32 - kUniformShift : 64 - kUniformShift64;
template <class T> TW_INLINE Mask<T> uniform_bits(Mask<T> words) {
  return shift_right_logical(words, 8 * int(sizeof(T)) - kBits<T>);
}

// Keeps the compiler from fusing a product with the sum that takes it.
template <class T> TW_INLINE Vec<T> rounded(Vec<T> x) {
  asm("" : "+v"(x.v));
  return x;
}

// The number just below x, among those of S.
template <class S> TW_INLINE S below(S x) {
  constexpr uint64_t kSign = uint64_t{1} << (8 * sizeof(S) - 1);
  uint64_t b = 0;
  __builtin_memcpy(&b, &x, sizeof(S));
  b = (b & ~kSign) == 0 ? kSign + 1 : b & kSign ? b + 1 : b - 1;
  __builtin_memcpy(&x, &b, sizeof(S));
  return x;
}

template <class T, class S> void fill_uniform(const RandomArgs& args) {
  S stored[3];
  const double ends[2] = {args.a, args.b};
  convert(stored, ends, 2);
  stored[2] = below(stored[1]);
  T v[3];
  convert(v, stored, 3);
  const Vec<T> a = v[0], span = T(v[1] - v[0]), limit = v[2] > v[0] ? v[2] : v[0];
  const auto scaled = [&](Mask<T> words) { return min(a + rounded(fraction(uniform_bits<T>(words)) * span), limit); };
  parallel_ranges(args.n, kGrain, [&](int64_t begin, int64_t end) {
    fill<T>(static_cast<S*>(args.y) + begin, begin, end, args.seed, args.offset,
            [&](const Lanes(&w)[4], Vec<T>& first, Vec<T>& second) {
              Mask<T> u, v;
              in_order(w, u, v);
              first = scaled(u), second = scaled(v);
            });
  });
}

// cos and sin of 2 pi k / 2^kBits.
template <class T> TW_INLINE void cos_sin_turn(Mask<T> k, Vec<T>& cosine, Vec<T>& sine) {
  using I = Mask<T>;
  using Int = typename I::Element;
  constexpr int kQuarter = kBits<T> - 2;
  const I shifted = k + I(Int{1} << (kQuarter - 1)), quarter = shift_right_logical(shifted, kQuarter);
  const Vec<T> turns = fraction(shifted & I((Int{1} << kQuarter) - 1)) - Vec<T>(T(0.125));
  const Vec<T> angle = turns * Vec<T>(T(6.283185307179586)), c = cos_poly(angle), s = sin_poly(angle);
  // A quarter turn further, (cos, sin) become (-sin, cos).
  const I odd = I(0) - (quarter & I(1));
  constexpr int kToSign = 8 * int(sizeof(T)) - 2;
  cosine = from_bits(bits(select(odd, s, c)) ^ (((quarter + I(1)) & I(2)) << kToSign));
  sine = from_bits(bits(select(odd, c, s)) ^ ((quarter & I(2)) << kToSign));
}

template <class T, class S> void fill_normal(const RandomArgs& args) {
  const Vec<T> mean = T(args.a), deviation = T(args.b);
  parallel_ranges(args.n, kGrain, [&](int64_t begin, int64_t end) {
    fill<T>(static_cast<S*>(args.y) + begin, begin, end, args.seed, args.offset,
            [&](const Lanes(&w)[4], Vec<T>& first, Vec<T>& second) {
              constexpr bool kOneWord = sizeof(T) == 4;  // then a counter makes two pairs, else one
              const Mask<T> u = as<typename Mask<T>::Element>(kOneWord ? join(w[0], w[2]) : join(w[0], w[1]));
              const Mask<T> v = as<typename Mask<T>::Element>(kOneWord ? join(w[1], w[3]) : join(w[2], w[3]));
              const Vec<T> r = deviation * sqrt(Vec<T>(-2) * log(Vec<T>(1) - fraction(uniform_bits<T>(u))));
              Vec<T> cosine, sine;
              cos_sin_turn<T>(uniform_bits<T>(v), cosine, sine);
              cosine = fma(r, cosine, mean), sine = fma(r, sine, mean);
              first = unpack_low(cosine, sine), second = unpack_high(cosine, sine);
            });
  });
}

// mask[i] = (uniform < p) != flipped, as bytes 0 and 1, for i in [begin, end).
TW_INLINE void bernoulli_bytes(uint8_t* mask, int64_t begin, int64_t end, uint64_t seed, uint64_t offset, double p,
                               bool flipped) {
  const Vec<int32_t> threshold = int32_t(bernoulli_threshold(p)), flip = int32_t(flipped);
  const auto chosen = [&](Vec<int32_t> words) {
    return ((uniform_bits<float>(words) < threshold) & Vec<int32_t>(1)) ^ flip;
  };
  fill<int32_t>(mask, begin, end, seed, offset, [&](const Lanes(&w)[4], Vec<int32_t>& first, Vec<int32_t>& second) {
    Vec<int32_t> a, b;
    in_order(w, a, b);
    first = chosen(a), second = chosen(b);
  });
}

template <class S> void fill_bernoulli(const RandomArgs& args) {
  parallel_ranges(args.n, kGrain, [&](int64_t begin, int64_t end) {
    uint8_t mask[kGrain];
    bernoulli_bytes(mask, begin, end, args.seed, args.offset, args.a, false);
    convert(static_cast<S*>(args.y) + begin, static_cast<const uint8_t*>(mask), end - begin);
  });
}

template <class S> void fill_randint(const RandomArgs& args) {
  parallel_ranges(args.n, kGrain / 4, [&](int64_t begin, int64_t end) {
    int64_t words[kGrain / 4];
    fill<int64_t>(words, begin, end, args.seed, args.offset,
                  [&](const Lanes(&w)[4], Lanes& first, Lanes& second) { in_order(w, first, second); });
    S* y = static_cast<S*>(args.y) + begin;
    for (int64_t i = 0; i < end - begin; ++i) y[i] = S(tw::randint_of(uint64_t(words[i]), args.low, args.high));
  });
}

template <class T, class S> void fill_dropout(const DropoutArgs& args) {
  const Vec<T> scale = T(args.p < 1 ? 1 / (1 - args.p) : 0);
  parallel_ranges(args.n, kGrain, [&](int64_t begin, int64_t end) {
    uint8_t* mask = static_cast<uint8_t*>(args.mask);
    bernoulli_bytes(mask + begin, begin, end, args.seed, args.offset, args.p, true);
    const S* x = static_cast<const S*>(args.x);
    S* y = static_cast<S*>(args.y);
    constexpr int64_t kLanes = Vec<T>::kLanes;
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store_as(y + i, load_as<T>(x + i) * (load_as<T>(mask + i) * scale));
    const int rest = int(end - i);
    if (rest) store_as(y + i, load_as<T>(x + i, rest) * (load_as<T>(mask + i, rest) * scale), rest);
  });
}

}  // namespace

// The ops have checked the dtype: no slot is called with another.
#define TW_FLOATS(f)                                        \
  switch (args.dtype) {                                     \
    case DType::kFloat16: return f<float, float16>(args);   \
    case DType::kBFloat16: return f<float, bfloat16>(args); \
    case DType::kFloat32: return f<float, float>(args);     \
    default: return f<double, double>(args);                \
  }

void uniform(const RandomArgs& args) { TW_FLOATS(fill_uniform) }
void normal(const RandomArgs& args) { TW_FLOATS(fill_normal) }
void dropout(const DropoutArgs& args) { TW_FLOATS(fill_dropout) }

void bernoulli(const RandomArgs& args) {
  switch (args.dtype) {
#define TW_X(T, e, name) \
  case DType::e: return fill_bernoulli<T>(args);
    TW_DTYPES(TW_X)
#undef TW_X
  }
}

void randint(const RandomArgs& args) {
  switch (args.dtype) {
    case DType::kUInt8: return fill_randint<uint8_t>(args);
    case DType::kInt8: return fill_randint<int8_t>(args);
    case DType::kInt16: return fill_randint<int16_t>(args);
    case DType::kInt32: return fill_randint<int32_t>(args);
    default: return fill_randint<int64_t>(args);
  }
}

}  // namespace tw::TW_ISA
