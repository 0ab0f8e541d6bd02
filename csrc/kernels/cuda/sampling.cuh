// What samplers share: each row (an image, or a box of one) has `outputs` results a channel, and a result is the mean
// of samples, each a weighted sum of a few items of a plane. A thread has one result's place and walks its samples once
// for kSide channels, so that their loads are in flight together and neighbours write neighbours; blockIdx.y counts
// runs of channels.
//
// The gradient by the planes adds terms that meet in any order. Integers commute, so the sums are integers: one pass
// over the terms leaves each item's largest |term| (atomicMax of its bits), a second one adds every term in units of
// 2^-lead of that one's binade (atomicAdd of 64 bits), where `lead` leaves room for all terms that may meet; then each
// sum is rounded once. Same bits in every run, no sorting, and no worse for many terms at one item. The error is a
// half unit a term, at most 2^-30 of the largest for 2^31 terms. Method: the pre-rounded sums of Demmel and Nguyen,
// "Fast Reproducible Floating-Point Summation" (2013), with an integer an item in place of their bins.
// An item that an infinity or NaN meets gets their sum.
// Bytes of the gradient: dy twice, 12 an item of dx cleared and read again, dx once, and two atomics a term.
#pragma once
#include <cstring>

#include "kernels/cuda/math.cuh"

namespace tw::cuda {
TW_DEVICE int to_int(float x) { return int(x); }
TW_DEVICE int to_int(double x) { return int(x); }
}  // namespace tw::cuda
#include "kernels/sampling.h"

namespace tw::cuda {

constexpr int kSampleThreads = 128, kSampleBlocks = 3;  // of a multiprocessor: each thread may have 168 registers
constexpr int64_t kChannelRun = 16;                     // of a thread

// Values of a dtype that is computed in A, by a switch in registers: the loads of several items stay side by side.
template <class A> TW_DEVICE auto load_bits(const void* p, int64_t i, DType t) {
  if constexpr (std::is_same_v<A, double>) return static_cast<const double*>(p)[i];
  else
    return t == DType::kFloat32 ? __float_as_uint(static_cast<const float*>(p)[i])
                                : unsigned{static_cast<const float16*>(p)[i].bits};
}
TW_DEVICE double value_of(double v, DType) { return v; }
TW_DEVICE float value_of(unsigned bits, DType t) {
  if (t == DType::kFloat32) return __uint_as_float(bits);
  const auto half = static_cast<uint16_t>(bits);
  return t == DType::kFloat16 ? widen(float16{half}) : widen(bfloat16{half});
}
template <class A> TW_DEVICE A load_value(const void* p, int64_t i, DType t) {
  return value_of(load_bits<A>(p, i, t), t);
}
template <class A> TW_DEVICE void store_value(void* p, int64_t i, A v, DType t) {
  if constexpr (std::is_same_v<A, double>) static_cast<double*>(p)[i] = v;
  else if (t == DType::kFloat32) static_cast<float*>(p)[i] = v;
  else if (t == DType::kFloat16) static_cast<float16*>(p)[i] = round_to<float16>(v);
  else static_cast<bfloat16*>(p)[i] = round_to<bfloat16>(v);
}

// --- sums whose order does not matter --
template <class A> struct ExactSums {
  unsigned* top;  // of each item: the upper 32 bits of its largest |term|
  unsigned long long* sum;
  int lead;

  static constexpr int kMantissa = sizeof(A) == 4 ? 23 : 52, kTop = sizeof(A) == 4 ? 23 : 20;
  static constexpr int kBias = sizeof(A) == 4 ? 127 : 1023, kSpecial = 2 * kBias + 1;  // exponent of inf and NaN

  TW_DEVICE static unsigned long long bits(float v) { return __float_as_uint(v) & 0x7fffffffu; }
  TW_DEVICE static unsigned long long bits(double v) {
    unsigned long long b;
    memcpy(&b, &v, 8);
    return b & ~(1ull << 63);
  }

  TW_DEVICE void add(int64_t at, A term, bool second) const {
    const unsigned long long b = bits(term);
    if (b == 0) return;
    if (!second) {
      atomicMax(&top[at], static_cast<unsigned>(b >> (kMantissa - kTop)));
      return;
    }
    const int binade = int(top[at] >> kTop), exponent = int(b >> kMantissa);
    if (binade == kSpecial) {
      atomicOr(&sum[at], exponent < kSpecial ? 0ull : term > 0 ? 1ull : term < 0 ? 2ull : 3ull);
      return;
    }
    const unsigned long long fraction = b & ((1ull << kMantissa) - 1);
    const unsigned long long size = exponent ? fraction | 1ull << kMantissa : fraction;
    const int shift = lead - kMantissa - (greatest(binade, 1) - greatest(exponent, 1));
    const unsigned long long units = shift >= 0    ? size << shift
                                     : shift > -63 ? (size + (1ull << (-shift - 1))) >> -shift
                                                   : 0ull;
    if (units) atomicAdd(&sum[at], term < 0 ? 0ull - units : units);
  }
  TW_DEVICE A value(int64_t at) const {
    const int binade = int(top[at] >> kTop);
    const unsigned long long s = sum[at];
    if (binade == kSpecial) {
      const A infinity = A(__builtin_inf());
      return s == 1 ? infinity : s == 2 ? -infinity : infinity - infinity;
    }
    return A(::ldexp(double(static_cast<long long>(s)), greatest(binade, 1) - kBias - lead));
  }
};

template <class A> __global__ void __launch_bounds__(256) clear_sums(ExactSums<A> sums, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < n; i += int64_t(gridDim.x) * 256) {
    sums.top[i] = 0;
    sums.sum[i] = 0;
  }
}
template <class A> __global__ void __launch_bounds__(256) store_sums(ExactSums<A> sums, int64_t n, void* y, DType t) {
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < n; i += int64_t(gridDim.x) * 256)
    store_value(y, i, sums.value(i), t);
}

// y (n values of dtype t) = the sums of at most `terms` terms an item that launch(sums, second) adds, twice.
template <class A, class Launch> void sum_exactly(void* y, int64_t n, DType t, double terms, const Launch& launch) {
  const auto count = static_cast<size_t>(n);
  const Workspace memory(count * 12);
  ExactSums<A> sums;
  sums.sum = memory.as<unsigned long long>();
  if (!sums.sum) return;
  sums.top = reinterpret_cast<unsigned*>(sums.sum + count);
  sums.lead = 62;
  for (double room = 1; room < terms && sums.lead > 24; room *= 2) --sums.lead;
  const unsigned blocks = persistent_blocks(ceil_div<int64_t>(n, 256), 8);
  launch_kernel<clear_sums<A>>(blocks, 256, 0, current_stream(), sums, n);
  launch(sums, false);
  launch(sums, true);
  launch_kernel<store_sums<A>>(blocks, 256, 0, current_stream(), sums, n, y, t);
}

// --- the walk --
// A Source has A; kTaps; C, plane, outputs, rows, dtype; x and y, the planes' and the results' memory; and
// point(row, o) -> { image, count, samples(body(taps)) }, an image below 0 being none.
template <class Source> struct Walker {
  static constexpr int kAtOnce = 64 / int(sizeof(typename Source::A));  // loads in flight that the registers hold
  static constexpr int kSide = Source::kTaps >= kAtOnce ? 1 : kAtOnce / Source::kTaps;

  // body(point, the first of kSide channels, how many there are, row, o) for each of this thread's.
  template <class Body> TW_DEVICE static void run(const Source& s, int64_t channels, const Body& body) {
    const int64_t item = int64_t(blockIdx.x) * kSampleThreads + threadIdx.x;
    if (item >= s.rows * s.outputs) return;
    const int64_t row = item / s.outputs, o = item - row * s.outputs;
    const auto point = s.point(row, o);
    if (point.image < 0) return;
    const int64_t end = least<int64_t>(s.C, (blockIdx.y + 1) * channels);
    for (int64_t c = blockIdx.y * channels; c < end; c += kSide)
      body(point, c, int(least<int64_t>(kSide, end - c)), row, o);
  }
};

template <class Source>
__global__ void __launch_bounds__(kSampleThreads, kSampleBlocks)
    sample(const __grid_constant__ Source s, int64_t channels) {
  using A = typename Source::A;
  constexpr int kSide = Walker<Source>::kSide;
  Walker<Source>::run(s, channels, [&](const auto& point, int64_t c, int count, int64_t row, int64_t o) {
    A sums[kSide] = {};
    point.samples([&](const auto& taps) {
      decltype(load_bits<A>(s.x, 0, s.dtype)) bits[kSide][Source::kTaps];
#pragma unroll
      for (int k = 0; k < kSide; ++k)
#pragma unroll
        for (int t = 0; t < Source::kTaps; ++t) {
          const int64_t plane = point.image * s.C + c + (k < count ? k : 0);
          bits[k][t] = taps.at[t] < 0 ? 0 : load_bits<A>(s.x, plane * s.plane + taps.at[t], s.dtype);
        }
#pragma unroll
      for (int k = 0; k < kSide; ++k)
#pragma unroll
        for (int t = 0; t < Source::kTaps; ++t) sums[k] = fma(taps.w[t], value_of(bits[k][t], s.dtype), sums[k]);
    });
#pragma unroll
    for (int k = 0; k < kSide; ++k)
      if (k < count) store_value(s.y, (row * s.C + c + k) * s.outputs + o, sums[k] / point.count, s.dtype);
  });
}

// s.x is dy, in the results' places.
template <class Source>
__global__ void __launch_bounds__(kSampleThreads, kSampleBlocks)
    sample_backward(const __grid_constant__ Source s, int64_t channels, ExactSums<typename Source::A> sums,
                    bool second) {
  using A = typename Source::A;
  constexpr int kSide = Walker<Source>::kSide;
  Walker<Source>::run(s, channels, [&](const auto& point, int64_t c, int count, int64_t row, int64_t o) {
    A g[kSide];
#pragma unroll
    for (int k = 0; k < kSide; ++k)
      g[k] = load_value<A>(s.x, (row * s.C + c + (k < count ? k : 0)) * s.outputs + o, s.dtype) / point.count;
    point.samples([&](const auto& taps) {
#pragma unroll
      for (int k = 0; k < kSide; ++k)
#pragma unroll
        for (int t = 0; t < Source::kTaps; ++t)
          if (k < count && taps.at[t] >= 0)
            sums.add((point.image * s.C + c + k) * s.plane + taps.at[t], taps.w[t] * g[k], second);
    });
  });
}

// The grid of a source, and how many channels a thread has.
template <class Source> dim3 sample_grid(const Source& s, int64_t* channels) {
  *channels = greatest<int64_t>(kChannelRun, ceil_div<int64_t>(s.C, 65535));
  return dim3(static_cast<unsigned>(ceil_div<int64_t>(s.rows * s.outputs, kSampleThreads)),
              static_cast<unsigned>(ceil_div<int64_t>(s.C, *channels)));
}
template <class Source> void launch_sample(const Source& s) {
  int64_t channels;
  const dim3 grid = sample_grid(s, &channels);
  launch_kernel<sample<Source>>(grid, kSampleThreads, 0, current_stream(), s, channels);
}
// dx: planes in all; terms: how many may meet at an item.
template <class Source> void launch_sample_backward(const Source& s, int64_t planes, double terms) {
  int64_t channels;
  const dim3 grid = sample_grid(s, &channels);
  sum_exactly<typename Source::A>(s.y, planes * s.plane, s.dtype, terms, [&](const auto& sums, bool second) {
    if (s.rows * s.outputs > 0)
      launch_kernel<sample_backward<Source>>(grid, kSampleThreads, 0, current_stream(), s, channels, sums, second);
  });
}

}  // namespace tw::cuda
