// Contiguous values of a dtype that is known at run time only, so that one kernel serves an arithmetic type: float for
// halves and float32, double for float64. A thread takes packs of kPack = 32 bytes of arithmetic in accesses of 16
// bytes.
//
// Packs are cut from the whole tensor, as if it began at a multiple of 32 bytes: a row that begins inside a pack
// shares it with the row before (its `head`), so that rows of any length come in whole accesses but for their two
// ends. Which thread gets which item follows from shapes alone: where the tensor does not begin at a multiple of 16
// bytes (`aligned` false), the same items come one by one.
#pragma once
#include "kernels/cuda/elementwise.cuh"

namespace tw::cuda {

template <class A> constexpr int kPack = 32 / int(sizeof(A));
template <class A> constexpr DType kDTypeOf = std::is_same_v<A, double> ? DType::kFloat64 : DType::kFloat32;

// f(Tag of the type in memory).
template <class A, class F> TW_DEVICE void visit_stored(DType t, const F& f) {
  if constexpr (std::is_same_v<A, double>) f(Tag<double>());
  else if (t == DType::kFloat32) f(Tag<float>());
  else if (t == DType::kFloat16) f(Tag<float16>());
  else f(Tag<bfloat16>());
}
// f(A()), A the arithmetic type of a dtype in memory.
template <class F> void visit_arithmetic(DType t, const F& f) {
  if (t == DType::kFloat64) f(double());
  else f(float());
}

// a / b of numbers that are not negative, by the shorter division where it does.
TW_DEVICE int64_t divide(int64_t a, int64_t b) { return (a | b) >> 31 ? a / b : int64_t(uint32_t(a) / uint32_t(b)); }

template <class A> TW_DEVICE A load_item(const void* p, DType t, int64_t i) {
  A v;
  visit_stored<A>(t, [&](auto tag) { v = convert<A>(static_cast<const typename decltype(tag)::type*>(p)[i]); });
  return v;
}
template <class A> TW_DEVICE void store_item(void* p, DType t, int64_t i, A v) {
  visit_stored<A>(t, [&](auto tag) {
    using S = typename decltype(tag)::type;
    static_cast<S*>(p)[i] = convert<S>(v);
  });
}

// A pack that begins at item `at` of a tensor; its items lo ... hi - 1 are there.
struct Span {
  int64_t at;
  int lo, hi;
  TW_DEVICE bool has(int j) const { return j >= lo && j < hi; }
};
// Pack `i` items behind `origin`, of which items begin ... end - 1 (from origin) are there.
template <class A> TW_DEVICE Span span(int64_t origin, int64_t begin, int64_t end, int64_t i) {
  return {origin + i, int(greatest<int64_t>(begin - i, 0)), int(least<int64_t>(end - i, kPack<A>))};
}

// P packs of each of T tensors, all in flight together: v[t][p] is at place(p), a Span; `fill` for what is not there.
template <class A, int T, int P, class Place>
TW_DEVICE void load_tensors(A (&v)[T][P][kPack<A>], const void* const (&data)[T], DType dtype, bool aligned, A fill,
                            const Place& place) {
  visit_stored<A>(dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    constexpr int kWide = kLanes<S> < kPack<A> ? kLanes<S> : kPack<A>;
    Vector<S, kWide> raw[T][P][kPack<A> / kWide];
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const Span s = place(p);
      if (aligned && s.lo == 0 && s.hi == kPack<A>) {
#pragma unroll
        for (int t = 0; t < T; ++t)
#pragma unroll
          for (int k = 0; k < kPack<A> / kWide; ++k)
            raw[t][p][k] = load_vector<kWide>(static_cast<const S*>(data[t]) + s.at + k * kWide);
      } else {
#pragma unroll
        for (int t = 0; t < T; ++t)
#pragma unroll
          for (int j = 0; j < kPack<A>; ++j)
            raw[t][p][j / kWide][j % kWide] = s.has(j) ? static_cast<const S*>(data[t])[s.at + j] : convert<S>(fill);
      }
    }
#pragma unroll
    for (int t = 0; t < T; ++t)
#pragma unroll
      for (int p = 0; p < P; ++p)
#pragma unroll
        for (int j = 0; j < kPack<A>; ++j) v[t][p][j] = convert<A>(raw[t][p][j / kWide][j % kWide]);
  });
}
template <class A, int P, class Place>
TW_DEVICE void load_packs(A (&v)[P][kPack<A>], const void* data, DType dtype, bool aligned, A fill,
                          const Place& place) {
  load_tensors<A, 1, P>(reinterpret_cast<A(&)[1][P][kPack<A>]>(v), {data}, dtype, aligned, fill, place);
}
template <class A, int P, class Place>
TW_DEVICE void store_packs(const A (&v)[P][kPack<A>], void* data, DType t, bool aligned, const Place& place) {
  visit_stored<A>(t, [&](auto tag) {
    using S = typename decltype(tag)::type;
    constexpr int kWide = kLanes<S> < kPack<A> ? kLanes<S> : kPack<A>;
    S* const y = static_cast<S*>(data);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const Span s = place(p);
      if (aligned && s.lo == 0 && s.hi == kPack<A>) {
#pragma unroll
        for (int k = 0; k < kPack<A> / kWide; ++k) {
          Vector<S, kWide> raw;
#pragma unroll
          for (int j = 0; j < kWide; ++j) raw[j] = convert<S>(v[p][k * kWide + j]);
          store_vector(y + s.at + k * kWide, raw);
        }
      } else {
#pragma unroll
        for (int j = 0; j < kPack<A>; ++j)
          if (s.has(j)) y[s.at + j] = convert<S>(v[p][j]);
      }
    }
  });
}
inline bool all_aligned(std::initializer_list<const void*> data) {
  for (const void* p : data)
    if (reinterpret_cast<uintptr_t>(p) % 16) return false;
  return true;
}

// The result of kGroup neighbouring threads, in each of them: part of a warp, or warps that share the block's barriers
// with others. `shared` holds a value for each warp of the block; a second call needs room of its own, a third may take
// the first one's.
template <class Op, int kGroup, class A> TW_DEVICE A reduce_group(A v, A* shared) {
  const Op op;
#pragma unroll
  for (int step = least(kGroup, 32) / 2; step > 0; step /= 2) v = op(v, __shfl_xor_sync(kFullMask, v, step));
  if constexpr (kGroup > 32) {
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) shared[warp] = v;
    __syncthreads();
    shared += warp / (kGroup / 32) * (kGroup / 32);
    v = shared[0];
    for (int i = 1; i < kGroup / 32; ++i) v = op(v, shared[i]);
  }
  return v;
}

}  // namespace tw::cuda
