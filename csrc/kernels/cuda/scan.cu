// Scans along the middle of contiguous (outer, n, inner): cumulative sum, product, maximum, minimum, log-sum-exp.
//
// y[o, i, k] = x[o, 0, k] (op) ... (op) x[o, i, k], or from i to the end (reverse: sums). Any dtype; sums and products of
// integers in int64, of halves in float32. Maximum and minimum also give where the extreme was last met, and a NaN stays
// from where it is met on: they compare the keys of radix.cuh, and of equal ones the later wins. log-sum-exp joins
// (largest, sum of exp(x - largest)) as in Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
// Method: rows longer than kShortRow, a warp or a block each: 8 items a thread one after another, the threads' totals by
// shifted additions, tile by tile. Other rows and columns (inner > 1), a thread each, neighbours side by side. Where
// that would leave the machine idle a row is cut into parts by its length and number: one launch for the parts' totals,
// a second that joins those of the parts before and scans. What joins warps, tiles and parts is kept in double for
// float32. Error of a float32 sum: at most 16 2^-24 sum |x| along rows, 66 along columns; the op table's row cumsum
// measures it. Bytes: x and y once, x twice with parts. 16 bytes an access where rows begin at multiples of 16.
#include "kernels/cuda/radix.cuh"
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kItems = 8;
constexpr int64_t kShortRow = 16, kWarpRow = 1024;
constexpr int64_t kMostParts = 1024, kRowPart = 16384, kColumnPart = 256;
constexpr int64_t kManyRows = 512, kManyColumns = 1 << 15;  // that fill the machine without parts

struct Part {  // of a launch
  int64_t items;
  uint32_t count;
  void* totals;        // (outer, count, inner), or null
  bool last, aligned;  // last: it writes y
};

TW_DEVICE int64_t place(const ScanArgs& a, int64_t i) { return a.reverse ? a.n - 1 - i : i; }

template <class A, class F> TW_DEVICE void visit_dtype(DType t, const F& f) {
  if constexpr (std::is_same_v<A, float>) {
    if (t == DType::kFloat32) f(Tag<float>());
    else if (t == DType::kFloat16) f(Tag<float16>());
    else f(Tag<bfloat16>());
  } else if constexpr (std::is_same_v<A, int64_t>) {
    if (t == DType::kInt64) f(Tag<int64_t>());
    else if (t == DType::kInt32) f(Tag<int32_t>());
    else if (t == DType::kInt16) f(Tag<int16_t>());
    else if (t == DType::kInt8) f(Tag<int8_t>());
    else if (t == DType::kBool) f(Tag<bool>());
    else f(Tag<uint8_t>());
  } else {
    f(Tag<A>());
  }
}

// --- what is scanned: E, join(earlier, later), load and store of one item at `at` in x and y, item i of its row --
// C is what joins warps, tiles and parts: of float double, so that an error does not grow along a row.
template <class A, bool kProduct> struct Fold {
  using E = A;
  using C = std::conditional_t<std::is_same_v<A, float>, double, A>;
  TW_DEVICE static E identity() { return E(kProduct); }
  template <class T> TW_DEVICE static T join(T a, T b) { return kProduct ? a * b : a + b; }
  template <class T, class F> TW_DEVICE static T each(T e, F f) { return f(e); }
  TW_DEVICE E load(const ScanArgs& a, int64_t at, int64_t) const {
    E e;
    visit_dtype<A>(a.x_dtype,
                   [&](auto tag) { e = convert<A>(static_cast<const typename decltype(tag)::type*>(a.x)[at]); });
    return e;
  }
  TW_DEVICE void store(const ScanArgs& a, int64_t at, int64_t, E e) const {
    if constexpr (std::is_same_v<A, int64_t>) static_cast<A*>(a.y)[at] = e;
    else
      visit_dtype<A>(a.y_dtype, [&](auto tag) {
        using S = typename decltype(tag)::type;
        static_cast<S*>(a.y)[at] = convert<S>(e);
      });
  }
  // kItems whole, aligned items from i on of the row at `row`.
  TW_DEVICE void load_items(E (&e)[kItems], const ScanArgs& a, int64_t row, int64_t i) const {
    visit_dtype<A>(a.x_dtype, [&](auto tag) {
      using S = typename decltype(tag)::type;
      constexpr int L = least(kItems, kLanes<S>);
      const S* x = static_cast<const S*>(a.x) + row + (a.reverse ? a.n - kItems - i : i);
      E v[kItems];
#pragma unroll
      for (int j = 0; j < kItems; j += L) {
        const auto pack = load_vector<L>(x + j);
#pragma unroll
        for (int l = 0; l < L; ++l) v[j + l] = convert<A>(pack[l]);
      }
#pragma unroll
      for (int j = 0; j < kItems; ++j) e[j] = a.reverse ? v[kItems - 1 - j] : v[j];
    });
  }
  template <class S> TW_DEVICE void store_as(const E (&e)[kItems], const ScanArgs& a, int64_t at) const {
    constexpr int L = least(kItems, kLanes<S>);
#pragma unroll
    for (int j = 0; j < kItems; j += L) {
      Vector<S, L> pack;
#pragma unroll
      for (int l = 0; l < L; ++l) pack[l] = convert<S>(a.reverse ? e[kItems - 1 - j - l] : e[j + l]);
      store_vector(static_cast<S*>(a.y) + at + j, pack);
    }
  }
  TW_DEVICE void store_items(const E (&e)[kItems], const ScanArgs& a, int64_t row, int64_t i) const {
    const int64_t at = row + (a.reverse ? a.n - kItems - i : i);
    if constexpr (std::is_same_v<A, int64_t>) store_as<A>(e, a, at);
    else visit_dtype<A>(a.y_dtype, [&](auto tag) { store_as<typename decltype(tag)::type>(e, a, at); });
  }
};

template <class K> struct Met {
  K key;
  int64_t at;  // in its row
};
template <class K> struct Extreme {
  using E = Met<K>;
  using C = E;
  KeyRule<K> rule;
  bool smallest;
  TW_DEVICE static E identity() { return {K(0), -1}; }
  TW_DEVICE static E join(E a, E b) { return a.key > b.key || (a.key == b.key && a.at > b.at) ? a : b; }
  template <class F> TW_DEVICE static E each(E e, F f) { return {f(e.key), f(e.at)}; }
  TW_DEVICE E load(const ScanArgs& a, int64_t at, int64_t i) const {
    const K key = rule(raw_at<K>(a.x, at, rule.size));
    return {smallest && !rule.is_nan(key) ? key ^ rule.mask : key, i};
  }
  TW_DEVICE void store(const ScanArgs& a, int64_t at, int64_t i, E e) const {
    set_raw<K>(a.y, at, raw_at<K>(a.x, at + (e.at - i) * a.inner, rule.size), rule.size);
    a.indices[at] = e.at;
  }
};

template <class A> struct LogSum {
  A top, sum;
};
template <class A> struct LogSumExp {
  using E = LogSum<A>;
  using C = E;
  TW_DEVICE static E identity() { return {MaxOp::kIdentity<A>, A(0)}; }
  TW_DEVICE static E join(E a, E b) {
    const A top = maximum(a.top, b.top);
    if (top == MaxOp::kIdentity<A>) return identity();
    return {top, a.sum * scale(a.top, top) + b.sum * scale(b.top, top)};
  }
  TW_DEVICE static A scale(A from, A to) { return from == to ? A(1) : exp(from - to); }  // equal infinities as well
  template <class F> TW_DEVICE static E each(E e, F f) { return {f(e.top), f(e.sum)}; }
  TW_DEVICE E load(const ScanArgs& a, int64_t at, int64_t) const {
    const A v = Fold<A, false>().load(a, at, 0);
    return {v, v == MaxOp::kIdentity<A> ? A(0) : A(1)};
  }
  TW_DEVICE void store(const ScanArgs& a, int64_t at, int64_t, E e) const {
    Fold<A, false>().store(a, at, 0, e.top == MaxOp::kIdentity<A> ? e.top : e.top + log(e.sum));
  }
};

// --- rows --
template <class Op, class E> TW_DEVICE E join_warp(E e) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const E other = Op::each(e, [&](auto v) { return __shfl_down_sync(kFullMask, v, step); });
    e = Op::join(e, other);
  }
  return e;  // in lane 0
}

template <class Op, int kGroup>
__global__ void __launch_bounds__(kThreads, 2)
    scan_rows(const __grid_constant__ ScanArgs a, const Op op, const Part part) {
  using E = typename Op::E;
  using C = typename Op::C;
  constexpr int kWarps = kGroup / 32;
  constexpr bool kVectors = requires(E(&e)[kItems]) { op.load_items(e, a, 0, 0); };
  TW_SHARED(shared, C[2][kThreads / 32]);
  const int64_t item = int64_t(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
  if (item >= a.outer * part.count) return;  // a whole group
  const int64_t row = item / part.count * a.n, begin = item % part.count * part.items;
  const int64_t end = least(a.n, begin + part.items);
  const int thread = threadIdx.x % kGroup, lane = threadIdx.x % 32, warp = thread / 32;
  const auto load = [&](E(&v)[kItems], int64_t i) {
    if constexpr (kVectors)
      if (part.aligned && i + kItems <= end) return op.load_items(v, a, row, i);
#pragma unroll
    for (int j = 0; j < kItems; ++j) v[j] = i + j < end ? op.load(a, row + place(a, i + j), i + j) : Op::identity();
  };
  // The group's values joined, in each of its threads; for a block.
  const auto join_block = [&](C e, int turn) {
    e = join_warp<Op>(e);
    if (lane == 0) shared[turn][warp] = e;
    __syncthreads();
    e = shared[turn][0];
    for (int w = 1; w < kWarps; ++w) e = Op::join(e, shared[turn][w]);
    return e;
  };

  C carry = Op::identity();
  if constexpr (kGroup == kThreads) {
    C* totals = static_cast<C*>(part.totals) + (item - item % part.count);
    if (!part.last) {
      for (int64_t i = begin + thread * kItems; i < end; i += kGroup * kItems) {
        E v[kItems];
        load(v, i);
#pragma unroll
        for (int j = 1; j < kItems; ++j) v[j] = Op::join(v[j - 1], v[j]);
        carry = Op::join(carry, C(v[kItems - 1]));
      }
      carry = join_block(carry, 0);
      if (thread == 0) totals[item % part.count] = carry;
      return;
    }
    if (part.count > 1) {
      for (int64_t p = thread; p < item % part.count; p += kGroup) carry = Op::join(carry, totals[p]);
      carry = join_block(carry, 1);
    }
  }
  int turn = 0;
  for (int64_t tile = begin; tile < end; tile += kGroup * kItems, turn ^= 1) {
    const int64_t i = tile + thread * kItems;
    E v[kItems];
    load(v, i);
#pragma unroll
    for (int j = 1; j < kItems; ++j) v[j] = Op::join(v[j - 1], v[j]);
    E sum = v[kItems - 1];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const E below = Op::each(sum, [&](auto x) { return __shfl_up_sync(kFullMask, x, step); });
      if (lane >= step) sum = Op::join(below, sum);
    }
    E before = Op::each(sum, [&](auto x) { return __shfl_up_sync(kFullMask, x, 1); });
    if (lane == 0) before = Op::identity();
    C warps = carry;  // all that comes before this warp
    if constexpr (kWarps == 1) {
      carry = Op::join(carry, C(Op::each(sum, [&](auto x) { return __shfl_sync(kFullMask, x, 31); })));
    } else {
      if (lane == 31) shared[turn][warp] = C(sum);
      __syncthreads();  // the other turn's values are read before the next one
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        if (w == warp) warps = carry;
        carry = Op::join(carry, shared[turn][w]);
      }
    }
    before = E(Op::join(warps, C(before)));
#pragma unroll
    for (int j = 0; j < kItems; ++j) v[j] = Op::join(before, v[j]);
    if constexpr (kVectors)
      if (part.aligned && i + kItems <= end) {
        op.store_items(v, a, row, i);
        continue;
      }
#pragma unroll
    for (int j = 0; j < kItems; ++j)
      if (i + j < end) op.store(a, row + place(a, i + j), i + j, v[j]);
  }
}

// --- columns, and the shortest rows: a thread each --
template <class Op>
__global__ void __launch_bounds__(kThreads, 4)
    scan_columns(const __grid_constant__ ScanArgs a, const Op op, const Part part) {
  using E = typename Op::E;
  using C = typename Op::C;
  constexpr int kAhead = 4, kBlock = 64;
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.outer * part.count * a.inner) return;
  const int64_t line = divide(item, a.inner), column = item - line * a.inner, o = divide(line, part.count);
  const int64_t p = line - o * part.count, first = o * a.n * a.inner + column;
  const int64_t begin = p * part.items, end = least(a.n, begin + part.items);
  C* totals = static_cast<C*>(part.totals);
  C carry = Op::identity();
  if (part.last)
#pragma unroll 4
    for (int64_t q = 0; q < p; ++q) carry = Op::join(carry, totals[(o * part.count + q) * a.inner + column]);
  E base = E(carry), sum = Op::identity();  // of the blocks before, of this one
  for (int64_t i = begin; i < end; i += kAhead) {
    E v[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (i + u < end) v[u] = op.load(a, first + place(a, i + u) * a.inner, i + u);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (i + u >= end) break;
      sum = Op::join(sum, v[u]);
      if (part.last) op.store(a, first + place(a, i + u) * a.inner, i + u, Op::join(base, sum));
    }
    if ((i + kAhead - begin) % kBlock != 0) continue;  // so that a sum's error does not grow with n
    carry = Op::join(carry, C(sum));
    base = E(carry);
    sum = Op::identity();
  }
  if (!part.last) totals[item] = Op::join(carry, C(sum));
}

template <class Op> void run(const ScanArgs& a, const Op& op) {
  using C = typename Op::C;
  const bool rows = a.inner == 1 && a.n > kShortRow;
  const int64_t columns = a.outer * a.inner;
  Part part{a.n, 1, nullptr, true, false};
  if (rows && a.n > kRowPart && a.outer < kManyRows)
    part.items = greatest(kRowPart, ceil_div(ceil_div(a.n, kMostParts), kRowPart) * kRowPart);
  if (!rows && a.n > kColumnPart && columns < kManyColumns)
    part.items = greatest(kColumnPart, ceil_div(a.n, kColumnPart));
  part.count = static_cast<uint32_t>(ceil_div(a.n, part.items));
  part.aligned =
      a.n % kItems == 0 && aligned(static_cast<const char*>(a.x), 16) && aligned(static_cast<char*>(a.y), 16);
  const Workspace totals(part.count > 1 ? static_cast<size_t>(columns * part.count) * sizeof(C) : 0);
  part.totals = totals.as<void>();
  const int64_t items = columns * part.count;
  for (part.last = part.count == 1;; part.last = true) {
    if (!rows)
      launch_kernel<scan_columns<Op>>(static_cast<unsigned>(ceil_div<int64_t>(items, kThreads)), kThreads, 0,
                                      current_stream(), a, op, part);
    else if (a.n <= kWarpRow)
      launch_kernel<scan_rows<Op, 32>>(static_cast<unsigned>(ceil_div<int64_t>(items, kThreads / 32)), kThreads, 0,
                                       current_stream(), a, op, part);
    else
      launch_kernel<scan_rows<Op, kThreads>>(static_cast<unsigned>(items), kThreads, 0, current_stream(), a, op, part);
    if (part.last) return;
  }
}

template <class K> Extreme<K> extreme(const ScanArgs& a) { return {key_rule<K>(a.x_dtype, false), a.op == Scan::kMin}; }

template <class A> void run_numbers(const ScanArgs& a) {
  if constexpr (!std::is_same_v<A, int64_t>)
    if (a.op == Scan::kLogSumExp) return run(a, LogSumExp<A>());
  if (a.op == Scan::kProd) return run(a, Fold<A, true>());
  run(a, Fold<A, false>());
}

}  // namespace

void scan(const ScanArgs& a) {
  if (a.op == Scan::kMax || a.op == Scan::kMin) {
    if (itemsize(a.x_dtype) == 8) return run(a, extreme<uint64_t>(a));
    return run(a, extreme<uint32_t>(a));
  }
  if (!is_float(a.x_dtype)) return run_numbers<int64_t>(a);
  if (a.x_dtype == DType::kFloat64) return run_numbers<double>(a);
  run_numbers<float>(a);
}

}  // namespace tw::cuda
