// Philox 4x32-10, the counter-based generator behind every random op, and the rules that turn its words into numbers.
// CPU kernels, CUDA kernels and tests all take them from here, so that a seed means the same numbers everywhere.
//
// A draw has a 64-bit seed (the key) and a 64-bit offset. Counter c = offset + group holds four words of 32 bits; its
// upper 64 bits are a stream number, 0 unless said otherwise. Element i of a draw reads
//   one word (float16, bfloat16, float32; bernoulli, dropout): word i % 4 of counter offset + i / 4
//   two words (float64, randint): words 2 * (i % 2) and the next one of counter offset + i / 2, low word first
// and the next draw's offset is offset + philox_groups(words, n). The counter wraps round after 2^64 groups.
//   uniform    24 bits * 2^-24, or 53 bits * 2^-53 for float64: in [0, 1), every step equally likely
//   normal     Box-Muller on the uniforms u, v of elements 2j, 2j + 1: they become sqrt(-2 ln(1 - u)) times cos(2 pi v)
//              and sin(2 pi v); so |z| <= 5.77 (float64: 8.57)
//   bernoulli  uniform < p, exactly, for the 24-bit uniform and p in float64
//   randint    low + floor(bits * (high - low) / 2^64): each value's probability is off by less than 2^-64, so by less
//              than 2^-32 of itself for ranges up to 2^32
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011; multiply-shift: Lemire,
// "Fast Random Integer Generation in an Interval", ACM TOMACS 29 (2019), without its rejection step.
#pragma once
#include "tensor/dtype.h"

namespace tw {

// Arithmetic on words: a word times a constant, whose low half goes on as a word, and the product's high half. The CPU
// kernels overload both functions for a vector of 64-bit lanes with a word in each low half; the upper halves may hold
// anything, since no step reads them.
struct WordProduct {
  uint32_t low, high;
  TW_INLINE operator uint32_t() const { return low; }
};
TW_INLINE WordProduct multiply_words(uint32_t a, uint32_t m) {
#ifdef __CUDA_ARCH__
  return {a * m, __umulhi(a, m)};
#else
  return {a * m, uint32_t(uint64_t{a} * m >> 32)};
#endif
}
TW_INLINE uint32_t high_word(WordProduct a) { return a.high; }

// Ten rounds: w holds the counter on entry and the random words on return (in the lanes' low halves).
template <class Lanes> TW_INLINE void philox(uint64_t seed, Lanes (&w)[4]) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto a = multiply_words(w[0], 0xD2511F53u), b = multiply_words(w[2], 0xCD9E8D57u);
    const Lanes w0 = high_word(b) ^ w[1] ^ Lanes(key0), w2 = high_word(a) ^ w[3] ^ Lanes(key1);
    w[0] = w0, w[1] = Lanes(b), w[2] = w2, w[3] = Lanes(a);
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
}

struct PhiloxWords {
  uint32_t w[4];
};

TW_INLINE PhiloxWords philox_words(uint64_t seed, uint64_t counter, uint64_t stream = 0) {
  PhiloxWords words{{uint32_t(counter), uint32_t(counter >> 32), uint32_t(stream), uint32_t(stream >> 32)}};
  philox(seed, words.w);
  return words;
}

// Counters that a draw of n elements uses up, at 1 or 2 words an element.
TW_INLINE uint64_t philox_groups(int words, int64_t n) { return (uint64_t(n) * words + 3) / 4; }
// Words an element for uniform and normal; bernoulli and dropout take 1 and randint takes 2 whatever the dtype.
TW_INLINE int philox_words_of(DType dtype) { return dtype == DType::kFloat64 ? 2 : 1; }

constexpr int kUniformShift = 8;     // 32 - 24
constexpr int kUniformShift64 = 11;  // 64 - 53
TW_INLINE float uniform_of(uint32_t word) { return float(word >> kUniformShift) * 0x1p-24f; }
TW_INLINE double uniform_of(uint64_t words) { return double(words >> kUniformShift64) * 0x1p-53; }

// word >> kUniformShift < bernoulli_threshold(p) if and only if uniform_of(word) < p.
TW_INLINE uint32_t bernoulli_threshold(double p) {
  const double scaled = p * 0x1p24;  // exact
  if (!(scaled > 0)) return 0;
  if (scaled >= 0x1p24) return 1u << 24;
  const uint32_t floor = uint32_t(scaled);
  return floor + (floor < scaled);
}

TW_INLINE uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  return uint64_t((Wide{a} * b) >> 64);
#endif
}
// low < high; their distance may exceed the largest int64.
TW_INLINE int64_t randint_of(uint64_t words, int64_t low, int64_t high) {
  return int64_t(uint64_t(low) + multiply_high(words, uint64_t(high) - uint64_t(low)));
}

}  // namespace tw
