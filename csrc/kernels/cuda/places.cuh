// Where an item lies in a shape, found from its number in row order, and the grids of kernels that give a thread an item:
// what pooling, padding, interpolation, random numbers and the optimizers share.
#pragma once
#include "kernels/cuda/elementwise.cuh"

namespace tw::cuda {

// Takes numbers in [0, total] apart by a fixed size: by a multiplication where all of them stay below 2^31.
struct Splitter {
  int64_t size;
  Divisor divisor;
  bool wide;
  Splitter() = default;
  Splitter(int64_t n, int64_t total)
      : size(n), divisor(total > INT32_MAX ? 1 : static_cast<uint32_t>(n)), wide(total > INT32_MAX) {}
  // The remainder; *i becomes the quotient.
  TW_DEVICE int64_t split(int64_t* i) const {
    if (wide) {
      const int64_t n = *i;
      *i = n / size;
      return n - *i * size;
    }
    const auto n = static_cast<uint32_t>(*i), q = divisor.quotient(n);
    *i = q;
    return n - q * divisor.divisor;
  }
};

// A thread an item, in blocks of at most kPlaceThreads; little work takes small blocks, much of it `waves` blocks a
// multiprocessor, whose threads go on from item to item.
constexpr int kPlaceThreads = 256;
struct Grid {
  unsigned blocks, threads;
};
inline Grid grid_of(int64_t items, int waves = 16) {
  const auto threads = static_cast<unsigned>(least<int64_t>(kPlaceThreads, ceil_div<int64_t>(items, 32) * 32));
  return {persistent_blocks(ceil_div<int64_t>(items, threads), waves), threads};
}
TW_DEVICE int64_t first_item() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
TW_DEVICE int64_t item_step() { return int64_t(gridDim.x) * blockDim.x; }

// N neighbours, of which `count` exist, in accesses of up to 16 bytes where `whole`: aligned, and all there.
template <int N, class S, class A> TW_DEVICE void load_run(A (&v)[N], const S* p, int count, bool whole) {
  constexpr int kAccess = least(N, kLanes<S>);
  if (whole) {
#pragma unroll
    for (int i = 0; i < N; i += kAccess) {
      const auto pack = load_vector<kAccess>(p + i);
#pragma unroll
      for (int j = 0; j < kAccess; ++j) v[i + j] = convert<A>(pack[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = i < count ? convert<A>(p[i]) : A(0);
  }
}
template <int N, class S, class A> TW_DEVICE void store_run(S* p, const A (&v)[N], int count, bool whole) {
  constexpr int kAccess = least(N, kLanes<S>);
  if (whole) {
#pragma unroll
    for (int i = 0; i < N; i += kAccess) {
      Vector<S, kAccess> pack;
#pragma unroll
      for (int j = 0; j < kAccess; ++j) pack[j] = convert<S>(v[i + j]);
      store_vector(p + i, pack);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < count) p[i] = convert<S>(v[i]);
  }
}

}  // namespace tw::cuda
