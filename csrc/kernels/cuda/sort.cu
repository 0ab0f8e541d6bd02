// Orders along rows of contiguous (rows, n): sort, the k extremes, the k-th smallest. Any dtype, values and positions.
//
// NaN is the largest value, -0 equals 0, and equals keep their order (descending ones too), so that an order is unique:
// the CPU's. Values become unsigned keys (radix.cuh) of as many bytes as they have.
// Method, by the row's length alone:
//   n <= 128      each item counts the items before it: n comparisons with keys in shared memory, several rows a block
//   n <= 4096     a block a row, a radix sort in shared memory (sort_tile)
//   longer        sort: radix.cu's, then the values are fetched by position.  The k extremes, k <= 4096 and at most
//                 half the row, and the k-th: radix selection from the highest digit (Alabi et al., "Fast k-selection
//                 algorithms for graphics processing units", JEA 2012): a launch a digit counts it in the items that
//                 share the digits found so far, and the row's last block names the digit of the k-th; then the items
//                 that come before the k-th are collected in order, and sorted by a block. Other k: the whole sort.
// Bytes an item of 32 bits: 16 where one launch does it; 4 a digit and 4 more for a selection (20); a long sort 4
// + 84 + 20, of which 8 at random places.
#include "kernels/cuda/radix.cuh"

namespace tw::cuda {
namespace {

constexpr int64_t kShortRow = 128;
constexpr int64_t kGroupItems = int64_t{1} << 27;  // long rows are sorted so many items at a time, for memory's sake

// Rows to be ordered, and where the result goes.
template <class K> struct Orders {
  const void* x;
  void* values;
  int64_t* indices;
  const uint32_t* list;        // (rows, n) positions in x's rows, in their order; null: all of the row
  int64_t rows, n, length, k;  // n items of rows of `length`
  KeyRule<K> rule;
  bool one;  // the item of rank k, or the k first
  Order order;

  TW_DEVICE int64_t position(int64_t row, int64_t i) const { return list ? list[row * n + i] : i; }
  TW_DEVICE K key(int64_t row, int64_t i) const {
    return rule(raw_at<K>(x, row * length + position(row, i), rule.size));
  }
  TW_DEVICE bool counts_nans() const { return one && rule.floats && order != Order::kKth; }
  TW_DEVICE int64_t chosen(int64_t nans) const {  // a row's NaNs come last in it
    if (order == Order::kMedian && nans) return length - nans;
    if (order == Order::kNanMedian) return nans < length ? (length - nans - 1) / 2 : 0;
    return k;
  }
  TW_DEVICE void put(int64_t row, int64_t to, int64_t at) const {
    set_raw<K>(values, to, raw_at<K>(x, row * length + at, rule.size), rule.size);
    indices[to] = at;
  }
  // Item i of the row has come to `rank`; `only`: which rank is wanted, of one.
  TW_DEVICE void put_ranked(int64_t row, int64_t rank, int64_t i, int64_t only) const {
    if (one) {
      if (rank == only) put(row, row, position(row, i));
    } else if (rank < k) {
      put(row, row * k + rank, position(row, i));
    }
  }
};

template <class K> __global__ void __launch_bounds__(kRadixThreads) sort_short(const __grid_constant__ Orders<K> o) {
  TW_SHARED(keys, K[kRadixThreads]);
  const int n = int(o.n), per = kRadixThreads / n, i = int(threadIdx.x) % n;
  const int64_t row = int64_t(blockIdx.x) * per + int(threadIdx.x) / n;
  const bool mine = int(threadIdx.x) < per * n && row < o.rows;
  const K key = mine ? o.key(row, i) : K(0);
  keys[threadIdx.x] = key;
  __syncthreads();
  if (!mine) return;
  const K* r = keys + (int(threadIdx.x) - i);
  int rank = 0, nans = 0;
#pragma unroll 4
  for (int j = 0; j < n; ++j) {
    rank += j < i ? r[j] <= key : r[j] < key;
    nans += o.rule.is_nan(r[j]);
  }
  o.put_ranked(row, rank, i, o.chosen(nans));
}

template <class K, int kItems>
__global__ void __launch_bounds__(kRadixThreads) sort_row(const __grid_constant__ Orders<K> o) {
  TW_SHARED(s, TileShared);
  K* keys = dynamic_shared<K>();
  auto* ats = reinterpret_cast<uint32_t*>(keys + kRadixThreads * kItems);
  const int64_t row = blockIdx.x;
  K key[kItems];
  uint32_t at[kItems];
  uint32_t nans = 0;
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    at[j] = uint32_t(tile_item<kItems>(j));
    key[j] = at[j] < o.n ? o.key(row, at[j]) : ~K(0);
    nans += at[j] < o.n && o.rule.is_nan(key[j]);
  }
  if (o.counts_nans()) nans = reduce_block<SumOp, kRadixThreads>(nans, s.sums);
  sort_tile(key, at, uint32_t(o.n), o.key(row, 0), o.rule.size, s, keys, ats);
  const int64_t only = o.chosen(nans);
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const int i = tile_item<kItems>(j);
    if (i < o.n) o.put_ranked(row, i, at[j], only);
  }
}

// --- long rows, sorted whole --
template <class K>
__global__ void __launch_bounds__(kRadixThreads) fill_keys(const __grid_constant__ Orders<K> o, K* keys) {
  const int64_t items = o.rows * o.n, step = int64_t(gridDim.x) * kRadixThreads;
  for (int64_t i = int64_t(blockIdx.x) * kRadixThreads + threadIdx.x; i < items; i += 4 * step) {
    K raw[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) raw[u] = i + u * step < items ? raw_at<K>(o.x, i + u * step, o.rule.size) : K(0);
#pragma unroll
    for (int u = 0; u < 4; ++u)
      if (i + u * step < items) keys[i + u * step] = o.rule(raw[u]);
  }
}
template <class K>
__global__ void __launch_bounds__(kRadixThreads) put_sorted(const __grid_constant__ Orders<K> o, Pairs<K> p) {
  const int64_t items = o.rows * o.k;
  for (int64_t i = int64_t(blockIdx.x) * kRadixThreads + threadIdx.x; i < items;
       i += int64_t(gridDim.x) * kRadixThreads) {
    const int64_t row = divide(i, o.k);
    o.put(row, i, p.position(row, p.moves(row), i - row * o.k));
  }
}

// --- long rows, selected from --
template <class K> struct Select {
  K* prefix;              // (rows) the digits of the wanted key that are found
  uint64_t* found;        // (rows, chunks, warps) items below the wanted key << 32 | items equal to it
  uint32_t* rank;         // (rows) of the wanted item among those that share the digits found
  uint32_t* bins;         // (rows, 256); between launches zero, as the following
  uint32_t *nans, *done;  // (rows)
};

template <class K>
__global__ void __launch_bounds__(kRadixThreads)
    select_digit(const __grid_constant__ Orders<K> o, Select<K> s, Chunks c, int d) {
  constexpr int kCopies = 8;
  TW_SHARED(bins, uint32_t[kBins * kCopies]);
  TW_SHARED(sums, uint32_t[kRadixWarps]);
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count, bin = row * kBins + threadIdx.x;
  const bool first = d == o.rule.size - 1;
  const K prefix = first ? K(0) : s.prefix[row];
  for (int i = threadIdx.x; i < kBins * kCopies; i += kRadixThreads) bins[i] = 0;
  __syncthreads();
  uint32_t nans = 0;
  const int64_t end = least(c.n, (chunk + 1) * c.items);
  for (int64_t begin = chunk * c.items; begin < end; begin += kTile) {
    K raw[kTileItems];
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      const int64_t i = begin + j * kRadixThreads + threadIdx.x;
      raw[j] = i < end ? raw_at<K>(o.x, row * c.n + i, o.rule.size) : K(0);
    }
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      const K key = o.rule(raw[j]);
      if (begin + j * kRadixThreads + threadIdx.x >= end) break;
      if (!first && (key ^ prefix) >> (8 * d) >> 8) continue;
      nans += o.rule.is_nan(key);
      atomicAdd(&bins[digit_of(key, d) * kCopies + threadIdx.x % kCopies], 1u);
    }
  }
  __syncthreads();
  uint32_t total = 0;
#pragma unroll
  for (int i = 0; i < kCopies; ++i) total += bins[threadIdx.x * kCopies + i];
  if (total) atomicAdd(&s.bins[bin], total);
  if (first && nans) atomicAdd(&s.nans[row], nans);
  if (!last_block(&s.done[row], c.count)) return;

  total = s.bins[bin];
  s.bins[bin] = 0;
  const auto rank = first ? uint32_t(o.one ? o.chosen(s.nans[row]) : o.k - 1) : s.rank[row];
  const uint32_t before = exclusive_sum(total, sums);
  if (before > rank || rank - before >= total) return;  // but for one thread
  s.prefix[row] = prefix | K(threadIdx.x) << (8 * d);
  s.rank[row] = rank - before;
}

// The warps of a chunk's block have equal parts of it, one after another.
TW_DEVICE int64_t warp_begin(const Chunks& c, int64_t chunk, int warp) {
  return least(c.n, chunk * c.items + warp * (c.items / kRadixWarps));
}

template <class K>
__global__ void __launch_bounds__(kRadixThreads)
    count_found(const __grid_constant__ Orders<K> o, Select<K> s, Chunks c) {
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count;
  const int warp = threadIdx.x / 32;
  const K wanted = s.prefix[row];
  const int64_t begin = warp_begin(c, chunk, warp), end = warp_begin(c, chunk, warp + 1);
  uint64_t found = 0;
  for (int64_t i = begin + threadIdx.x % 32; i < end; i += 8 * 32) {
    K raw[8];
#pragma unroll
    for (int u = 0; u < 8; ++u) raw[u] = i + 32 * u < end ? raw_at<K>(o.x, row * c.n + i + 32 * u, o.rule.size) : K(0);
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      const K key = o.rule(raw[u]);
      if (i + 32 * u < end) found += uint64_t(key < wanted) << 32 | uint64_t(key == wanted);
    }
  }
  found = reduce_warp<SumOp>(found);
  if (threadIdx.x % 32 == 0) s.found[int64_t(blockIdx.x) * kRadixWarps + warp] = found;
}

// The items before the wanted one go to list (rows, k): those below it, then its equals, each in order. Or the wanted
// one itself goes out.
template <class K>
__global__ void __launch_bounds__(kRadixThreads)
    collect(const __grid_constant__ Orders<K> o, Select<K> s, Chunks c, uint32_t* list) {
  TW_SHARED(sums, uint64_t[kRadixWarps]);
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint64_t* parts = s.found + row * c.count * kRadixWarps;
  uint64_t before = 0;
  for (int64_t i = threadIdx.x; i < chunk * kRadixWarps; i += kRadixThreads) before += parts[i];
  before = reduce_block<SumOp, kRadixThreads>(before, sums);
  parts += chunk * kRadixWarps;
  for (int w = 0; w < warp; ++w) before += parts[w];

  auto below = uint32_t(before >> 32), equal = uint32_t(before);
  const uint32_t rank = s.rank[row], all_below = uint32_t(o.k - 1) - rank;
  const bool has_below = parts[warp] >> 32, has_equal = uint32_t(parts[warp]) && equal <= rank;
  if (o.one ? !has_equal || rank - equal >= uint32_t(parts[warp]) : !has_below && !has_equal) return;  // whole warps
  const K wanted = s.prefix[row];
  const int64_t end = warp_begin(c, chunk, warp + 1);
  for (int64_t base = warp_begin(c, chunk, warp); base < end; base += 32) {
    const int64_t i = base + lane;
    const K key = i < end ? o.key(row, i) : ~K(0);
    const bool is_below = i < end && key < wanted, is_equal = i < end && key == wanted;
    const unsigned belows = __ballot_sync(kFullMask, is_below), equals = __ballot_sync(kFullMask, is_equal);
    const unsigned lanes_before = (1u << lane) - 1;
    const uint32_t turn = equal + uint32_t(__popc(equals & lanes_before));
    if (o.one) {
      if (is_equal && turn == rank) o.put(row, row, i);
    } else if (is_below) {
      list[row * o.k + below + __popc(belows & lanes_before)] = uint32_t(i);
    } else if (is_equal && turn <= rank) {
      list[row * o.k + all_below + turn] = uint32_t(i);
    }
    below += uint32_t(__popc(belows));
    equal += uint32_t(__popc(equals));
  }
}

// --- launches --
template <class K> void sort_in_blocks(const Orders<K>& o) {
  const Stream stream = current_stream();
  const auto rows = static_cast<unsigned>(o.rows);
  if (o.n <= kShortRow)
    launch_kernel<sort_short<K>>(static_cast<unsigned>(ceil_div<int64_t>(o.rows, kRadixThreads / o.n)), kRadixThreads,
                                 0, stream, o);
  else if (o.n <= kTile / 4)
    launch_kernel<sort_row<K, kTileItems / 4>>(rows, kRadixThreads, kTileBytes<K, kTileItems / 4>, stream, o);
  else launch_kernel<sort_row<K, kTileItems>>(rows, kRadixThreads, kTileBytes<K, kTileItems>, stream, o);
}

template <class K> void sort_long(const Orders<K>& o) {
  const RadixSort<K> sort(o.rows, o.n);
  const auto blocks = [](int64_t items) { return persistent_blocks(ceil_div<int64_t>(items, kRadixThreads), 16); };
  launch_kernel<fill_keys<K>>(blocks(o.rows * o.n), kRadixThreads, 0, current_stream(), o, sort.pairs().keys0);
  sort.run(o.rule.size);
  launch_kernel<put_sorted<K>>(blocks(o.rows * o.k), kRadixThreads, 0, current_stream(), o, sort.pairs());
}

template <class K> void select_rows(const Orders<K>& o) {
  const Chunks c(o.n);
  const int64_t words = o.rows * (kBins + 2), chunks = o.rows * c.count;
  const Workspace memory(static_cast<size_t>(o.rows) * sizeof(K) + static_cast<size_t>(chunks) * kRadixWarps * 8 +
                         static_cast<size_t>(o.rows + words + (o.one ? 0 : o.rows * o.k)) * 4);
  Select<K> s;
  s.found = memory.as<uint64_t>();
  s.prefix = reinterpret_cast<K*>(s.found + chunks * kRadixWarps);
  s.rank = reinterpret_cast<uint32_t*>(s.prefix + o.rows);
  s.bins = s.rank + o.rows;
  s.nans = s.bins + o.rows * kBins;
  s.done = s.nans + o.rows;
  uint32_t* list = s.done + o.rows;
  clear_words(s.bins, words);
  const auto blocks = static_cast<unsigned>(chunks);
  for (int d = o.rule.size - 1; d >= 0; --d)
    launch_kernel<select_digit<K>>(blocks, kRadixThreads, 0, current_stream(), o, s, c, d);
  launch_kernel<count_found<K>>(blocks, kRadixThreads, 0, current_stream(), o, s, c);
  launch_kernel<collect<K>>(blocks, kRadixThreads, 0, current_stream(), o, s, c, list);
  if (o.one) return;
  Orders<K> chosen = o;
  chosen.list = list;
  chosen.n = o.k;
  sort_in_blocks(chosen);
}

enum class Want { kAll, kFirst, kOne };

template <class K> void order_rows(const SortArgs& a, Want want) {
  const int64_t outputs = want == Want::kAll ? a.n : want == Want::kFirst ? a.k : 1;
  Orders<K> o{a.x,
              a.values,
              a.indices,
              nullptr,
              a.rows,
              a.n,
              a.n,
              want == Want::kOne ? a.k : outputs,
              key_rule<K>(a.dtype, want != Want::kOne && a.descending),
              want == Want::kOne,
              a.order};
  const bool in_blocks = a.n <= kTile, selects = want != Want::kAll && (o.one || (a.k <= kTile && 2 * a.k <= a.n));
  const int64_t group = in_blocks ? int64_t{1} << 30 : greatest<int64_t>(1, kGroupItems / a.n);
  const auto skip = [](auto* p, int64_t bytes) {
    return reinterpret_cast<decltype(p)>(reinterpret_cast<intptr_t>(p) + bytes);
  };
  for (int64_t first = 0; first < a.rows; first += group) {
    o.rows = least(group, a.rows - first);
    o.x = skip(a.x, first * a.n * o.rule.size);
    o.values = skip(a.values, first * outputs * o.rule.size);
    o.indices = a.indices + first * outputs;
    if (in_blocks) sort_in_blocks(o);
    else if (selects) select_rows(o);
    else sort_long(o);
  }
}

void order(const SortArgs& a, Want want) {
  if (itemsize(a.dtype) == 8) order_rows<uint64_t>(a, want);
  else order_rows<uint32_t>(a, want);
}

}  // namespace

void sort(const SortArgs& a) { order(a, Want::kAll); }
void topk(const SortArgs& a) { order(a, Want::kFirst); }
void kth(const SortArgs& a) { order(a, Want::kOne); }

}  // namespace tw::cuda
