// The stable least-significant-digit radix sort of radix.cuh for rows of any length: 8 bits a pass, each pass three
// launches over (row, chunk): count the digits of each chunk; scan the counts over a digit's chunks; move, tile by tile,
// each item to its digit's place. A row of one tile is sorted by one block in one launch.
//
// Bytes an item and pass, 32-bit keys: 4 counted, 8 read and 8 written, so 4 passes of n items take at least 80 n /
// bandwidth. A tile's items are put in digit order in shared memory first: 4096 items of 256 digits go out in runs of 16
// (64 bytes of keys) on average. The counts of a chunk lie kMostChunks apart at most: a warp scans a digit's in 16 steps.
// One survey tells the digits that vary in a row; passes over others end at once (small integers in int64 take one or
// two passes, not eight). No wait of one block for another, so no forward progress between blocks is assumed.
#include "kernels/cuda/radix.cuh"

namespace tw::cuda {
namespace {

__global__ void __launch_bounds__(kRadixThreads) clear_kernel(uint32_t* p, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kRadixThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kRadixThreads)
    p[i] = 0;
}

template <class K> __global__ void __launch_bounds__(kRadixThreads) sort_rows_of_tile(Pairs<K> p, int digits) {
  TW_SHARED(s, TileShared);
  K* keys = dynamic_shared<K>();
  auto* ats = reinterpret_cast<uint32_t*>(keys + kTile);
  const int64_t row = blockIdx.x;
  K key[kTileItems];
  uint32_t at[kTileItems];
#pragma unroll
  for (int j = 0; j < kTileItems; ++j) {
    at[j] = uint32_t(tile_item<kTileItems>(j));
    key[j] = at[j] < p.n ? p.keys0[row * p.n + at[j]] : ~K(0);
  }
  const K reference = p.keys0[row * p.n];
  __syncthreads();
  sort_tile(key, at, uint32_t(p.n), reference, digits, s, keys, ats);
#pragma unroll
  for (int j = 0; j < kTileItems; ++j) {
    const int i = tile_item<kTileItems>(j);
    if (i >= p.n) continue;
    p.keys0[row * p.n + i] = key[j];
    p.at0[row * p.n + i] = at[j];
  }
  if (threadIdx.x == 0) p.varies[row] = 3;  // an even number of moves: all is in keys0 and at0
}

// Tells body(items of the tile, key[]) of the tiles of this block's chunk.
template <class K, class Body> TW_DEVICE void for_tiles(const K* keys, const Chunks& c, int64_t chunk, Body body) {
  const int64_t end = least(c.n, (chunk + 1) * c.items);
  for (int64_t begin = chunk * c.items; begin < end; begin += kTile) {
    K key[kTileItems];
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      const int64_t i = begin + tile_item<kTileItems>(j);
      key[j] = i < end ? keys[i] : ~K(0);
    }
    body(begin, int(least<int64_t>(kTile, end - begin)), key);
  }
}

template <class K> __global__ void __launch_bounds__(kRadixThreads) survey(Pairs<K> p, Chunks c, int digits) {
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count;
  const K* keys = p.keys0 + row * p.n;
  const K reference = keys[0];
  K differs = 0;
  for_tiles(keys, c, chunk, [&](int64_t, int items, const K(&key)[kTileItems]) {
#pragma unroll
    for (int j = 0; j < kTileItems; ++j)
      if (tile_item<kTileItems>(j) < items) differs |= key[j] ^ reference;
  });
  uint32_t bits = 0;
  for (int d = 0; d < digits; ++d) bits |= uint32_t(digit_of(differs, d) != 0) << d;
  for (int step = 16; step > 0; step /= 2) bits |= __shfl_xor_sync(kFullMask, bits, step);
  if (threadIdx.x % 32 == 0 && bits) atomicOr(&p.varies[row], bits);
}

// counts: (row, digit, chunk)
template <class K>
__global__ void __launch_bounds__(kRadixThreads) count_digits(Pairs<K> p, Chunks c, int d, uint32_t* counts) {
  constexpr int kCopies = 8;  // of a bin, in neighbouring banks: lanes with the same digit do not all wait in line
  TW_SHARED(bins, uint32_t[kBins * kCopies]);
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count;
  if (!(p.varies[row] >> d & 1)) return;
  for (int i = threadIdx.x; i < kBins * kCopies; i += kRadixThreads) bins[i] = 0;
  __syncthreads();
  for_tiles(p.keys(row, p.moves(row, d)), c, chunk, [&](int64_t, int items, const K(&key)[kTileItems]) {
#pragma unroll
    for (int j = 0; j < kTileItems; ++j)
      if (tile_item<kTileItems>(j) < items) atomicAdd(&bins[digit_of(key[j], d) * kCopies + threadIdx.x % kCopies], 1u);
  });
  __syncthreads();
  uint32_t total = 0;
#pragma unroll
  for (int i = 0; i < kCopies; ++i) total += bins[threadIdx.x * kCopies + i];
  counts[(row * kBins + threadIdx.x) * c.count + chunk] = total;
}

// A warp a (row, digit): its chunks' counts become the sums before them, totals their sum.
__global__ void __launch_bounds__(kRadixThreads)
    scan_counts(const uint32_t* varies, uint32_t chunks, int d, uint32_t* counts, uint32_t* totals) {
  const int64_t line = int64_t(blockIdx.x) * kRadixWarps + threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  if (!(varies[line / kBins] >> d & 1)) return;
  uint32_t before = 0;
  for (uint32_t i = lane; i < chunks + lane; i += 32) {
    const uint32_t v = i < chunks ? counts[line * chunks + i] : 0;
    uint32_t sum = v;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const uint32_t below = __shfl_up_sync(kFullMask, sum, step);
      if (lane >= uint32_t(step)) sum += below;
    }
    if (i < chunks) counts[line * chunks + i] = before + sum - v;
    before += __shfl_sync(kFullMask, sum, 31);
  }
  if (lane == 0) totals[line] = before;
}

template <class K>
__global__ void __launch_bounds__(kRadixThreads)
    move_items(Pairs<K> p, Chunks c, int d, const uint32_t* counts, const uint32_t* totals) {
  TW_SHARED(s, TileShared);
  TW_SHARED(shift, uint32_t[kBins]);  // from a slot of the tile to the place in the row, by digit
  K* keys = dynamic_shared<K>();
  auto* ats = reinterpret_cast<uint32_t*>(keys + kTile);
  const int64_t row = blockIdx.x / c.count, chunk = blockIdx.x % c.count, line = row * kBins + threadIdx.x;
  if (!(p.varies[row] >> d & 1)) return;
  const int moves = p.moves(row, d);
  K* const out_keys = (moves & 1 ? p.keys0 : p.keys1) + row * p.n;
  uint32_t* const out_at = (moves & 1 ? p.at0 : p.at1) + row * p.n;
  uint32_t place = exclusive_sum(totals[line], s.sums) + counts[line * c.count + chunk];
  for_tiles(p.keys(row, moves), c, chunk, [&](int64_t begin, int items, const K(&key)[kTileItems]) {
    uint32_t at[kTileItems], slot[kTileItems], first, many;
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      const int i = tile_item<kTileItems>(j);
      at[j] = i < items ? p.position(row, moves, begin + i) : 0;
    }
    rank_tile(key, d, s, slot, &first, &many);
    shift[threadIdx.x] = place - first;
    place += many;
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      keys[slot[j]] = key[j];
      ats[slot[j]] = at[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kTileItems; ++j) {
      const int i = j * kRadixThreads + int(threadIdx.x);
      if (i >= items) break;
      const K moved = keys[i];
      const uint32_t to = shift[digit_of(moved, d)] + uint32_t(i);
      out_keys[to] = moved;
      out_at[to] = ats[i];
    }
  });
}

}  // namespace

void clear_words(uint32_t* p, int64_t n) {
  launch_kernel<clear_kernel>(persistent_blocks(ceil_div<int64_t>(n, kRadixThreads), 4), kRadixThreads, 0,
                              current_stream(), p, n);
}

template <class K>
RadixSort<K>::RadixSort(int64_t rows, int64_t n)
    : rows_(rows),
      chunks_(n),
      memory_(static_cast<size_t>(rows * n) * 2 * (sizeof(K) + sizeof(uint32_t)) +
              static_cast<size_t>(rows * kBins * (chunks_.count + 1) + rows) * sizeof(uint32_t)) {
  const int64_t items = rows * n;
  pairs_.keys0 = memory_.as<K>();
  pairs_.keys1 = pairs_.keys0 + items;
  pairs_.at0 = reinterpret_cast<uint32_t*>(pairs_.keys1 + items);
  pairs_.at1 = pairs_.at0 + items;
  pairs_.varies = pairs_.at1 + items;
  counts_ = pairs_.varies + rows;
  totals_ = counts_ + rows * kBins * chunks_.count;
  pairs_.n = n;
}

template <class K> void RadixSort<K>::run(int digits) const {
  const Stream stream = current_stream();
  constexpr size_t kShared = kTileBytes<K, kTileItems>;
  if (chunks_.n <= kTile)
    return launch_kernel<sort_rows_of_tile<K>>(static_cast<unsigned>(rows_), kRadixThreads, kShared, stream, pairs_,
                                               digits);
  const auto blocks = static_cast<unsigned>(rows_ * chunks_.count);
  clear_words(pairs_.varies, rows_);
  launch_kernel<survey<K>>(blocks, kRadixThreads, 0, stream, pairs_, chunks_, digits);
  for (int d = 0; d < digits; ++d) {
    launch_kernel<count_digits<K>>(blocks, kRadixThreads, 0, stream, pairs_, chunks_, d, counts_);
    launch_kernel<scan_counts>(static_cast<unsigned>(rows_ * (kBins / kRadixWarps)), kRadixThreads, 0, stream,
                               static_cast<const uint32_t*>(pairs_.varies), chunks_.count, d, counts_, totals_);
    launch_kernel<move_items<K>>(blocks, kRadixThreads, kShared, stream, pairs_, chunks_, d,
                                 static_cast<const uint32_t*>(counts_), static_cast<const uint32_t*>(totals_));
  }
}

template class RadixSort<uint32_t>;
template class RadixSort<uint64_t>;

}  // namespace tw::cuda
