// Stable radix sorts of unsigned keys with their positions, and the keys that order as values do. radix.cu has the
// launches; sort.cu and index.cu include this.
//
// A digit is 8 bits. A tile is a block's kRadixThreads * kItems items in registers: item j of lane l of warp w is item
// (w kItems + j) 32 + l, so that loads are coalesced and equal digits are met in order. rank_tile finds each item's slot
// in the tile's stable order by one digit: lanes with the same digit find each other by votes, the first of them adds
// their number to its warp's count of the digit, and a scan over digits and warps makes slots of it (Merrill and
// Grimshaw, "High Performance and Scalable Radix Sorting", PPL 2011). Counts are integers: atomics on them leave one
// result.
#pragma once
#include "kernels/cuda/math.cuh"

namespace tw::cuda {

constexpr int kRadixThreads = 256, kRadixWarps = kRadixThreads / 32, kBins = 256;
constexpr int kTileItems = 16, kTile = kRadixThreads * kTileItems;  // 4096 items in 48 KiB of 64-bit keys and positions

template <class K> TW_DEVICE unsigned digit_of(K key, int d) { return unsigned(key >> (8 * d)) & 255u; }

// The sum of the values of the threads before this one in a block of kRadixThreads.
TW_DEVICE uint32_t exclusive_sum(uint32_t v, uint32_t* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t sum = v;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t below = __shfl_up_sync(kFullMask, sum, step);
    if (lane >= step) sum += below;
  }
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  sum -= v;
  for (int w = 0; w < warp; ++w) sum += shared[w];
  return sum;
}

struct TileShared {
  uint32_t counts[kRadixWarps][kBins];
  uint32_t sums[kRadixWarps];
};
template <int kItems> TW_DEVICE int tile_item(int j) {
  return (int(threadIdx.x / 32) * kItems + j) * 32 + int(threadIdx.x % 32);
}

// slot[j] of each item; thread t learns the first slot of digit t and how many items have it. Needs a barrier between
// its end and the next call.
template <class K, int kItems>
TW_DEVICE void rank_tile(const K (&key)[kItems], int d, TileShared& s, uint32_t (&slot)[kItems], uint32_t* first,
                         uint32_t* many) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int w = 0; w < kRadixWarps; ++w) s.counts[w][threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const unsigned peers = match_digit(digit_of(key[j], d));
    const int leader = __ffs(int(peers)) - 1;
    uint32_t before = 0;
    if (lane == leader) before = atomicAdd(&s.counts[warp][digit_of(key[j], d)], uint32_t(__popc(peers)));
    slot[j] = __shfl_sync(kFullMask, before, leader) + uint32_t(__popc(peers & ((1u << lane) - 1)));
  }
  __syncthreads();
  uint32_t count[kRadixWarps], total = 0;
#pragma unroll
  for (int w = 0; w < kRadixWarps; ++w) total += count[w] = s.counts[w][threadIdx.x];
  uint32_t at = exclusive_sum(total, s.sums);
  *first = at;
  *many = total;
#pragma unroll
  for (int w = 0; w < kRadixWarps; ++w) {
    s.counts[w][threadIdx.x] = at;
    at += count[w];
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kItems; ++j) slot[j] += s.counts[warp][digit_of(key[j], d)];
}

// Sorts the n items of a tile; at[j] is an item's position, and those from n on (past the end, all bits of the key
// set) stay behind the others. Digits that all items share with `reference`, one of the keys, cost a barrier only.
// keys and ats: room for the tile in shared memory.
template <class K, int kItems>
TW_DEVICE void sort_tile(K (&key)[kItems], uint32_t (&at)[kItems], uint32_t n, K reference, int digits, TileShared& s,
                         K* keys, uint32_t* ats) {
  for (int d = 0; d < digits; ++d) {
    bool differs = false;
#pragma unroll
    for (int j = 0; j < kItems; ++j) differs |= at[j] < n && digit_of(key[j], d) != digit_of(reference, d);
    if (!__syncthreads_or(differs)) continue;
    uint32_t slot[kItems], first, many;
    rank_tile(key, d, s, slot, &first, &many);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      keys[slot[j]] = key[j];
      ats[slot[j]] = at[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      key[j] = keys[tile_item<kItems>(j)];
      at[j] = ats[tile_item<kItems>(j)];
    }
  }
}
template <class K, int kItems> constexpr size_t kTileBytes = kRadixThreads * kItems * (sizeof(K) + sizeof(uint32_t));

// --- values as keys --
// An unsigned key of as many bits as the value has, which orders as it does: the sign bit turned for signed integers;
// the middle plus or minus the magnitude's bits for floats, so that -0 equals 0, and all bits set for NaN. `flip` turns
// the order round, NaN included.
template <class K> struct KeyRule {
  K top, infinity, mask, flip;
  int size;
  bool floats;
  TW_DEVICE K operator()(K raw) const {
    if (!floats) return raw ^ top ^ flip;
    const K magnitude = raw & (top - 1);
    return (magnitude > infinity ? mask : raw & top ? top - magnitude : top + magnitude) ^ flip;
  }
  TW_DEVICE bool is_nan(K key) const { return floats && (key ^ flip) == mask; }
};
template <class K> KeyRule<K> key_rule(DType t, bool descending) {
  KeyRule<K> r;
  r.size = static_cast<int>(itemsize(t));
  r.floats = is_float(t);
  const K top = K(1) << (8 * r.size - 1);
  r.mask = top - 1 + top;
  r.top = t == DType::kBool || t == DType::kUInt8 ? K(0) : top;
  r.infinity = t == DType::kFloat16    ? K(0x7c00)
               : t == DType::kBFloat16 ? K(0x7f80)
               : t == DType::kFloat32  ? K(0x7f800000)
                                       : K(uint64_t{0x7ff} << 52);
  r.flip = descending ? r.mask : K(0);
  return r;
}

// Items of `size` bytes as bits: 8 of them in a 64-bit K, at most 4 in a 32-bit one.
template <class K> TW_DEVICE K raw_at(const void* x, int64_t i, int size) {
  if constexpr (sizeof(K) == 8) return static_cast<const uint64_t*>(x)[i];
  else if (size == 4) return static_cast<const uint32_t*>(x)[i];
  else if (size == 2) return static_cast<const uint16_t*>(x)[i];
  else return static_cast<const uint8_t*>(x)[i];
}
template <class K> TW_DEVICE void set_raw(void* y, int64_t i, K raw, int size) {
  if constexpr (sizeof(K) == 8) static_cast<uint64_t*>(y)[i] = raw;
  else if (size == 4) static_cast<uint32_t*>(y)[i] = raw;
  else if (size == 2) static_cast<uint16_t*>(y)[i] = uint16_t(raw);
  else static_cast<uint8_t*>(y)[i] = uint8_t(raw);
}

// Quotients of sizes, which nearly always fit 32 bits.
TW_DEVICE int64_t divide(int64_t a, int64_t b) {
  if ((uint64_t(a) | uint64_t(b)) >> 32) return a / b;
  return int64_t(uint32_t(a) / uint32_t(b));
}

// --- rows of any length: radix.cu --
// A row is cut into chunks of whole tiles, at most kMostChunks of them, by its length alone.
constexpr int kMostChunks = 512;
struct Chunks {
  int64_t n, items;  // of a row, of a chunk
  uint32_t count;
  explicit Chunks(int64_t row) : n(row), items(ceil_div(ceil_div<int64_t>(row, kTile), int64_t{kMostChunks}) * kTile) {
    count = static_cast<uint32_t>(ceil_div(n, items));
  }
};

// Where sorted pairs are. A pass goes from one buffer to the other, and those whose digit all keys of the row share are
// left out: `varies` has a bit for each other digit.
template <class K> struct Pairs {
  K *keys0, *keys1;
  uint32_t *at0, *at1;
  uint32_t* varies;  // (rows)
  int64_t n;
  TW_DEVICE int moves(int64_t row, int digits = 31) const { return __popc(varies[row] & ((1u << digits) - 1)); }
  TW_DEVICE const K* keys(int64_t row, int moves) const { return (moves & 1 ? keys1 : keys0) + row * n; }
  TW_DEVICE uint32_t position(int64_t row, int moves, int64_t slot) const {
    return moves == 0 ? uint32_t(slot) : (moves & 1 ? at1 : at0)[row * n + slot];
  }
};

// Sorts rows of n < 2^31 keys that the caller writes to pairs().keys0, by their low `digits` digits.
template <class K> class RadixSort {
 public:
  RadixSort(int64_t rows, int64_t n);
  const Pairs<K>& pairs() const { return pairs_; }
  void run(int digits) const;

 private:
  int64_t rows_;
  Chunks chunks_;
  Workspace memory_;
  Pairs<K> pairs_;
  uint32_t *counts_, *totals_;
};

void clear_words(uint32_t* p, int64_t n);  // in stream order

}  // namespace tw::cuda
