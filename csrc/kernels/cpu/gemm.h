// The core of every product: C (M x N) = A (M x K) B (K x N), written once for matrices and convolutions.
//
// Types: T is float (float16, bfloat16 and float32 operands), double, or int64_t (bool and all integers, wrapping).
// Method: the five loops of BLIS (Goto & van de Geijn 2008; Van Zee & van de Geijn 2015) round one register tile.
// A piece of C (rows x cols) is one task: for each block of K it packs its block of B (kept in L2) and, panel by panel,
// its rows of A (kept in L1), and runs the tile over them. Each task packs for itself, which costs about
// 1 / rows + 1 / cols element copies a multiply-add, and needs no barrier between packing and computing.
// Every element of C is one chain of fused multiply-adds over a block of K, blocks added in order, so its bits depend
// on M, N, K and the batch size alone: not on threads, strides, or the tile it falls in. K is split over tasks only
// where C is too small to share out; the parts are added by a fixed tree.
// Error: |C - AB| <= gamma(min(K, kc) + K / kc) |A||B|, measured by the rows of tests/op_table/products.py.
// A Problem gives, for product number p of the batch, a functor with
//   pack_a(T* dst, i, rows, k, count)     dst[kk * kStepA + ii] = A[i + ii, k + kk]
//   pack_b(T* dst, j, cols, k, count)     dst[kk * kNr + jj] = B[k + kk, j + jj], any finite values up to whole vectors
//   direct_b(j, k, &step)                 B's own memory where that already looks packed, else null
//   store(i, j, cols, const T* sums)      takes the finished sums of C[i, j : j + cols]
#pragma once
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/functors.h"

namespace tw::TW_ISA {

TW_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
TW_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// THE table of block sizes. The register tile is mr rows of `vectors` vectors: mr * vectors accumulators, `vectors`
// of B and one broadcast of A fill the registers (32 at avx512, 16 below; scalar has no FMA and needs one more for the
// product, so its tile is smaller). kc: a panel of A (mr x kc) takes at most 24 KB, half of the smallest L1, and a
// block of B (kc x cols) at most 768 KB, inside 1 MB of L2.
struct Blocks {
  int mr, vectors, kc, rows, cols;
};
template <class T> constexpr Blocks blocks() {
  constexpr int kc = sizeof(T) == 4 ? 384 : 192;
#if TW_VEC_BYTES == 64
  return {14, 2, kc, 504, 512};
#elif TW_VEC_BYTES == 32
  return {6, 2, kc, 504, 512};
#else
  return {4, 2, kc, 504, 512};
#endif
}
template <class T> constexpr int kMr = blocks<T>().mr;
template <class T> constexpr int kNr = blocks<T>().vectors * Vec<T>::kLanes;
template <class T> constexpr int kStepA = (kMr<T> + 3) / 4 * 4;  // panels of A are packed four rows at a time

// c (R x V vectors) = or += sum over k of a[k, 0 : R] (outer) b[k, 0 : V vectors]
template <class T, int R, int V>
__attribute__((noinline)) void tile(int64_t count, const T* a, const T* b, int64_t b_step, T* c, int64_t c_row,
                                    bool add) {
  constexpr int L = Vec<T>::kLanes;
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  for (int64_t k = 0; k < count; ++k) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> ai(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
    }
    a += kStepA<T>;
    b += b_step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* p = c + i * c_row + v * L;
      (add ? Vec<T>::load(p) + acc[i][v] : acc[i][v]).store(p);
    }
}

template <class T, int V, int R = kMr<T>>
TW_INLINE void run_rows(int rows, int64_t count, const T* a, const T* b, int64_t b_step, T* c, int64_t c_row,
                        bool add) {
  if (R == 1 || rows == R) return tile<T, R, V>(count, a, b, b_step, c, c_row, add);
  if constexpr (R > 1) run_rows<T, V, R - 1>(rows, count, a, b, b_step, c, c_row, add);
}
template <class T>
void run_tile(int rows, int cols, int64_t count, const T* a, const T* b, int64_t b_step, T* c, int64_t c_row,
              bool add) {
  static_assert(kNr<T> == 2 * Vec<T>::kLanes);
  if (cols > Vec<T>::kLanes) run_rows<T, 2>(rows, count, a, b, b_step, c, c_row, add);
  else run_rows<T, 1>(rows, count, a, b, b_step, c, c_row, add);
}

// One task: C[i0 : i1, j0 : j1] over k0 <= k < k1. With `sums` null the product is finished and stored; otherwise the
// sums stay in sums (row stride sums_row), for a product whose K is split.
template <class T, class Product>
void gemm_piece(const Product& p, int64_t i0, int64_t i1, int64_t j0, int64_t j1, int64_t k0, int64_t k1, T* sums,
                int64_t sums_row) {
  constexpr int kMr = TW_ISA::kMr<T>, kNr = TW_ISA::kNr<T>;
  const int64_t k_blocks = ceil_div(k1 - k0, blocks<T>().kc);
  const int64_t kc = round_up(ceil_div(k1 - k0, k_blocks), 4);
  const int64_t panels = ceil_div(i1 - i0, kMr), mr = ceil_div(i1 - i0, panels), cols = round_up(j1 - j0, kNr);
  T* a = static_cast<T*>(scratch(0, sizeof(T) * (kc * kStepA<T> + kMr * kNr + kc * cols)));
  T* one_tile = a + kc * kStepA<T>;
  T* b_block = one_tile + kMr * kNr;
  const bool finish = !sums, whole = k_blocks == 1;
  if (finish && !whole) {
    sums = static_cast<T*>(scratch(1, sizeof(T) * (i1 - i0) * cols));
    sums_row = cols;
  }
  const bool may_direct = panels <= 2;
  for (int64_t k = k0; k < k1; k += kc) {
    const int64_t count = least(kc, k1 - k);
    const bool first = k == k0, last = k + kc >= k1;
    int64_t step;
    for (int64_t j = j0; j < j1; j += kNr) {
      const int n = int(least(kNr, j1 - j));
      if (may_direct && n == kNr && p.direct_b(j, k, &step)) continue;
      p.pack_b(b_block + (j - j0) * kc, j, n, k, count);
    }
    for (int64_t i = i0; i < i1; i += mr) {
      const int m = int(least(mr, i1 - i));
      p.pack_a(a, i, m, k, count);
      for (int64_t j = j0; j < j1; j += kNr) {
        const int n = int(least(kNr, j1 - j));
        const T* b = may_direct && n == kNr ? p.direct_b(j, k, &step) : nullptr;
        if (!b) {
          b = b_block + (j - j0) * kc;
          step = kNr;
        }
        T* c = sums ? sums + (i - i0) * sums_row + (j - j0) : one_tile;
        const int64_t c_row = sums ? sums_row : kNr;
        run_tile<T>(m, n, count, a, b, step, c, c_row, !first);
        if (finish && last)
          for (int r = 0; r < m; ++r) p.store(i + r, j, n, c + r * c_row);
      }
    }
  }
}

// How a batch of products is cut into tasks; by sizes alone.
struct GemmPlan {
  int64_t rows, cols;  // of a task
  int64_t row_groups, col_groups;
  int64_t splits, split;  // parts of K, and their length
  int64_t together;       // whole products in one task
};
template <class T> GemmPlan plan_gemm(int64_t batch, int64_t M, int64_t N, int64_t K) {
  constexpr Blocks t = blocks<T>();
  constexpr int64_t kNr = TW_ISA::kNr<T>;
  // A task of 2^20 multiply-adds takes some 20 us, far above the cost of handing it out; 16 tasks share well among a
  // few threads, and more would pack more. Beyond that, tasks have the size that the caches ask for.
  constexpr int64_t kTask = int64_t(1) << 20, kTasks = 16, kMinSplit = 512, kMaxSplits = 32;
  GemmPlan p{M, N, ceil_div(M, t.rows), ceil_div(N, t.cols), 1, K, 1};
  const int64_t work = most(1, M * N * K / kTask * batch + M * N * K % kTask * batch / kTask);
  const int64_t want = least(kTasks, work);
  while (batch * p.row_groups * p.col_groups < want) {
    const int64_t rows = ceil_div(M, p.row_groups), cols = ceil_div(N, p.col_groups);
    const bool by_rows = rows >= 4 * t.mr, by_cols = cols >= 4 * kNr;
    if (by_rows && (rows >= cols || !by_cols)) p.row_groups *= 2;
    else if (by_cols) p.col_groups *= 2;
    else break;
  }
  const int64_t tasks = batch * p.row_groups * p.col_groups;
  if (tasks * 2 <= want) p.splits = most(1, least(least(ceil_div(want, tasks), kMaxSplits), K / kMinSplit));
  p.split = round_up(ceil_div(K, p.splits), 4);
  p.splits = ceil_div(K, p.split);
  p.rows = round_up(ceil_div(M, p.row_groups), t.mr);
  p.row_groups = ceil_div(M, p.rows);
  p.cols = round_up(ceil_div(N, p.col_groups), kNr);
  p.col_groups = ceil_div(N, p.cols);
  if (batch > want && p.row_groups * p.col_groups == 1) p.together = ceil_div(batch, most(want, least(batch, 64)));
  return p;
}

template <class T, class Problem>
void gemm_core(const Problem& problem, int64_t batch, int64_t M, int64_t N, int64_t K) {
  if (batch == 0 || M == 0 || N == 0) return;
  if (K == 0) {
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    const T zeros[kNr] = {};
    for (int64_t i = 0; i < batch * M; ++i)
      for (int64_t j = 0; j < N; j += kNr) problem.product(i / M).store(i % M, j, int(least(kNr, N - j)), zeros);
    return;
  }
  const GemmPlan g = plan_gemm<T>(batch, M, N, K);
  const int64_t groups = g.row_groups * g.col_groups, tasks = groups * g.splits;
  if (g.together > 1 && g.splits == 1) {
    parallel_ranges(batch, g.together, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        gemm_piece<T>(problem.product(i), 0, M, 0, N, 0, K, static_cast<T*>(nullptr), 0);
    });
    return;
  }
  const int64_t sums_row = round_up(N, kNr<T>), part = M * sums_row;
  T* sums = g.splits > 1 ? static_cast<T*>(scratch(2, sizeof(T) * batch * g.splits * part)) : nullptr;
  parallel_for(batch * tasks, [&](int64_t task) {
    const int64_t number = task / tasks, rest = task % tasks, s = rest / groups, tile_index = rest % groups;
    const int64_t i = tile_index % g.row_groups * g.rows, j = tile_index / g.row_groups * g.cols;
    T* own = sums ? sums + (number * g.splits + s) * part + i * sums_row + j : nullptr;
    gemm_piece<T>(problem.product(number), i, least(M, i + g.rows), j, least(N, j + g.cols), s * g.split,
                  least(K, (s + 1) * g.split), own, sums_row);
  });
  if (!sums) return;
  // Part s takes part s + h for h = 1, 2, 4, ...: a fixed tree.
  parallel_for(batch * ceil_div(M, 8), [&](int64_t task) {
    const int64_t number = task / ceil_div(M, 8), first = task % ceil_div(M, 8) * 8;
    const auto product = problem.product(number);
    for (int64_t i = first; i < least(M, first + 8); ++i) {
      T* row = sums + number * g.splits * part + i * sums_row;
      for (int64_t h = 1; h < g.splits; h *= 2)
        for (int64_t s = 0; s + h < g.splits; s += 2 * h)
          for (int64_t j = 0; j < sums_row; j += Vec<T>::kLanes)
            (Vec<T>::load(row + s * part + j) + Vec<T>::load(row + (s + h) * part + j)).store(row + s * part + j);
      for (int64_t j = 0; j < N; j += kNr<T>) product.store(i, j, int(least(kNr<T>, N - j)), row + j);
    }
  });
}

// ---- packing from strided memory ------------------------------------------------------------------------------------

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

// dst[k * step + i] = src[i * lane + k * depth] for i < n, k < count; lanes up to a multiple of `whole` are filled too,
// with zeros or copies of the last row. step is a multiple of whole and of the vector's length.
template <class T, class S>
void pack_strided(T* dst, int step, const S* src, int64_t lane, int64_t depth, int n, int64_t count, int whole) {
  constexpr int L = Vec<T>::kLanes;
  if (lane == 1 || n == 1) {
    for (int64_t k = 0; k < count; ++k, dst += step, src += depth) {
      int i = 0;
      for (; i + L <= n; i += L) load_as<T>(src + i).store(dst + i);
      if (i < n) load_as<T>(src + i, n - i).store(dst + i);
    }
    return;
  }
  // A run of k at a time for all lanes, so that what is written stays in L1 until its lines are full.
  constexpr int kRun = 64;
  T run[4][kRun];
  for (int64_t k0 = 0; k0 < count; k0 += kRun) {
    const int64_t length = least(kRun, count - k0);
    for (int i = 0; i < n || i % whole; i += 4) {
      const T* p[4];
      for (int q = 0; q < 4; ++q) {
        const S* row = src + least(i + q, n - 1) * lane + k0 * depth;
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
      T* to = dst + k0 * step + i;
      int64_t k = 0;
      for (; k + 4 <= length; k += 4) transpose4(to + k * step, step, p[0] + k, p[1] + k, p[2] + k, p[3] + k);
      for (; k < length; ++k)
        for (int q = 0; q < 4; ++q) to[k * step + q] = p[q][k];
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

// ---- the end of a product: c = act(alpha * sums + beta * c + bias), converted to c's dtype ----------------------

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

template <class T> TW_INLINE Vec<T> activate(Activation activation, Vec<T> x) {
  switch (activation) {
    case Activation::kRelu: return Relu()(x, x, x);
    case Activation::kGelu: return Gelu()(x, x, x);
    case Activation::kGeluTanh: return GeluTanh()(x, x, x);
    case Activation::kSigmoid: return Sigmoid()(x, x, x);
    case Activation::kTanh: return Tanh()(x, x, x);
    case Activation::kSilu: return Silu()(x, x, x);
    case Activation::kNone: break;
  }
  return x;
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
      if constexpr (kIsFloat<T>)
        if (activation != Activation::kNone) x = activate(activation, x);
      store_any(c, c_dtype, at + j, x, count);
    }
  }
};

}  // namespace tw::TW_ISA
