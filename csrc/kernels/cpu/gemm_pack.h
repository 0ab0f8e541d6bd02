// Packing for products: panels of a matrix of any strides, laid out in the order in which the register tile reads them.
//
// Memory contiguous along the lanes is copied, memory contiguous along k is turned through registers: the first
// shuffle is the load, which puts 16-byte pieces of four (two) rows into one register, and the second works within
// 16-byte lanes. Measured on an AMD EPYC of family 25 (AVX-512), nanoseconds an element of a 14-row panel in L2: 0.64
// with 16-byte registers, TRANSPOSE_NS with whole ones. No prefetcher follows a column of a large matrix, so copies
// fetch kAhead rows ahead.
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

// Four rows of four at p0..p3, contiguous along k, become dst[0 : 4 step : step][0 : 4].
template <class T> TW_INLINE void transpose4(T* dst, int64_t step, const T* p0, const T* p1, const T* p2, const T* p3) {
  using Four = typename Pack<T, 4>::Type;
  using Memory = typename Pack<T, 4>::Unaligned;
  const Four r0 = *reinterpret_cast<const Memory*>(p0), r1 = *reinterpret_cast<const Memory*>(p1);
  const Four r2 = *reinterpret_cast<const Memory*>(p2), r3 = *reinterpret_cast<const Memory*>(p3);
  const Four a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
  const Four c = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
  *reinterpret_cast<Memory*>(dst) = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  *reinterpret_cast<Memory*>(dst + step) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  *reinterpret_cast<Memory*>(dst + 2 * step) = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  *reinterpret_cast<Memory*>(dst + 3 * step) = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// The 16 bytes at p[0] + k, p[stride] + k, ... as one register.
template <class T, int N> TW_INLINE typename Pack<T, N>::Type join_pieces(const T* const* p, int stride, int64_t k) {
  constexpr int Q = 16 / sizeof(T);
  if constexpr (N == Q) {
    return *reinterpret_cast<const typename Pack<T, N>::Unaligned*>(p[0] + k);
  } else {
    const auto low = join_pieces<T, N / 2>(p, stride, k);
    const auto high = join_pieces<T, N / 2>(p + N / 2 / Q * stride, stride, k);
    if constexpr (N == 4) return __builtin_shufflevector(low, high, 0, 1, 2, 3);
    else if constexpr (N == 8) return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
    else return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
}

// dst[k * step + r] = p[r][k] for the kLanes rows p and k < count.
template <class T> TW_INLINE void transpose_lanes(T* dst, int64_t step, const T* const* p, int64_t count) {
  constexpr int L = Vec<T>::kLanes, Q = 16 / sizeof(T), kRows = L / Q;  // a register holds a piece of kRows rows
  using V = typename Vec<T>::Native;
  // Of each 16-byte lane: the first halves of a and b, and the second halves; elements in turn, or pairs of them.
  typename Mask<T>::Native low, high, low_pairs, high_pairs;
  for (int i = 0; i < L; ++i) {
    const int lane = i / Q * Q, at = i % Q;
    low[i] = lane + at / 2 + at % 2 * L;
    high[i] = low[i] + Q / 2;
    low_pairs[i] = lane + at % (Q / 2 > 0 ? Q / 2 : 1) + (at >= Q / 2 ? L : 0);
    high_pairs[i] = low_pairs[i] + Q / 2;
  }
  int64_t k = 0;
  for (; k + Q <= count; k += Q, dst += Q * step) {
    V r[Q];
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) r[q] = join_pieces<T, L>(p + q, Q, k);
    if constexpr (Q == 4) {
      const V a = __builtin_shuffle(r[0], r[1], low), b = __builtin_shuffle(r[2], r[3], low);
      const V c = __builtin_shuffle(r[0], r[1], high), d = __builtin_shuffle(r[2], r[3], high);
      Vec<T>(__builtin_shuffle(a, b, low_pairs)).store(dst);
      Vec<T>(__builtin_shuffle(a, b, high_pairs)).store(dst + step);
      Vec<T>(__builtin_shuffle(c, d, low_pairs)).store(dst + 2 * step);
      Vec<T>(__builtin_shuffle(c, d, high_pairs)).store(dst + 3 * step);
    } else {
      Vec<T>(__builtin_shuffle(r[0], r[1], low)).store(dst);
      Vec<T>(__builtin_shuffle(r[0], r[1], high)).store(dst + step);
    }
  }
  static_assert(kRows * Q == L);
  for (; k < count; ++k, dst += step)
    for (int i = 0; i < L; ++i) dst[i] = p[i][k];
}

// dst[k * step + i] = src[i * lane + k * depth] for i < n, k < count; lanes up to a multiple of `whole` are filled too,
// with zeros or copies of the last row. step is a multiple of whole and of the vector's length.
template <class T, class S>
void pack_strided(T* dst, int step, const S* src, int64_t lane, int64_t depth, int n, int64_t count, int) {
  constexpr int L = Vec<T>::kLanes;
  constexpr int64_t kAhead = 16;
  if (lane == 1 || n == 1) {
    constexpr int kLine = 64 / sizeof(S);
    for (int64_t k = 0; k < count; ++k, dst += step, src += depth) {
      for (int i = 0; i < n; i += kLine) __builtin_prefetch(src + kAhead * depth + i);
      int i = 0;
      for (; i + L <= n; i += L) load_as<T>(src + i).store(dst + i);
      if (i < n) load_as<T>(src + i, n - i).store(dst + i);
    }
    return;
  }
  // A run of k at a time for all lanes, so that what is written stays in L1 until its lines are full.
  constexpr int kRun = 64;
  T run[L][kRun];
  for (int64_t k0 = 0; k0 < count; k0 += kRun) {
    const int64_t length = least(kRun, count - k0);
    for (int i = 0; i < n; i += L) {
      const T* p[L];
      for (int q = 0; q < L; ++q) {
        if (i + q >= n) {
          p[q] = p[q - 1];
          continue;
        }
        const S* row = src + (i + q) * lane + k0 * depth;
        if (kSame<T, S> && depth == 1) {
          p[q] = reinterpret_cast<const T*>(row);
          continue;
        }
        S strided[kRun];
        if (depth != 1) {
          for (int64_t k = 0; k < length; ++k) strided[k] = row[k * depth];
          row = strided;
        }
        convert(run[q], row, length);
        p[q] = run[q];
      }
      transpose_lanes(dst + k0 * step + i, step, p, length);
    }
  }
}

// Lanes 0, 2, 4, ... of the 2 L - 1 elements from p.
template <class T> TW_INLINE Vec<T> load_even(const T* p) {
  constexpr int L = Vec<T>::kLanes;
  using Index = typename Mask<T>::Native;
  Index index;
  for (int i = 0; i < L; ++i) index[i] = 2 * i < L ? 2 * i : 2 * i + 1;  // the second load begins one element early
  return __builtin_shuffle(Vec<T>::load(p).v, Vec<T>::load(p + L - 1).v, index);
}

}  // namespace tw::TW_ISA
