// What attention and its backward share: operands of the batch, masks, dropout, and two ways to multiply blocks.
//
// A block of scores has rows and columns: queries and keys, or keys and queries where kKeys (backward's pass for dk and
// dv). Scores are in units of log2 e: the scale times log2 e multiplies the sums, and exponentials are 2^x.
//   halves  a warp has 16 rows and kN columns in mma fragments; a fragment of scores is, rounded, one of the operand of
//           the next product, so weights never leave the registers
//   tiles   float and double, and halves of more than 128 columns: 64 x 64 scores a block, 4 x 4 a thread
#pragma once
#include "kernels/cuda/gemm_end.cuh"
#include "philox.h"

namespace tw::cuda {

constexpr double kLog2E = 0x1.71547652b82fep+0;
template <class A> constexpr A kInfinity = A(__builtin_inf());

// The offset of the operand's item `number` of the batch.
TW_DEVICE int64_t item_start(const AttentionArgs& a, const BatchedRows& r, int64_t number) {
  int64_t at = 0;
  for (int d = a.batch_ndim - 1; d >= 0; --d) {
    at += number % a.batch[d] * r.batch[d];
    number /= a.batch[d];
  }
  return at;
}
template <class T> TW_DEVICE T* item_of(const AttentionArgs& a, const BatchedRows& r, int64_t number) {
  return static_cast<T*>(r.data) + item_start(a, r, number);
}
inline int64_t items_of(const AttentionArgs& a) {
  int64_t n = 1;
  for (int d = 0; d < a.batch_ndim; ++d) n *= a.batch[d];
  return n;
}
// Whether 16 bytes of halves can be moved from any row on.
inline bool rows_in_packs(const AttentionArgs& a, std::initializer_list<const BatchedRows*> operands) {
  bool yes = true;
  for (const BatchedRows* r : operands) {
    yes &= reinterpret_cast<uintptr_t>(r->data) % 16 == 0 && r->row % 8 == 0;
    for (int d = 0; d < a.batch_ndim; ++d) yes &= a.batch[d] == 1 || r->batch[d] % 8 == 0;
  }
  return yes;
}

// What attention_sm90.cu and attention_backward_sm90.cu take. By logical shape and values alone, so that layouts never
// change a bit; code for sm_90a runs nowhere else.
inline bool for_wgmma(const AttentionArgs& a) {
  return device_info().capability == 900 && (a.dtype == DType::kFloat16 || a.dtype == DType::kBFloat16) &&
         a.E == a.Ev && (a.E == 64 || a.E == 128) && a.L >= 128 && a.S >= 128 && !a.mask.data && a.dropout_p == 0 &&
         a.scale > 0;
}

// What the mask adds to the score of query i and key j.
template <class A> TW_DEVICE A mask_value(const AttentionArgs& a, int64_t start, int64_t i, int64_t j) {
  const int64_t at = start + i * a.mask.row + j * a.mask_col;
  if (a.mask_dtype == DType::kBool) return static_cast<const uint8_t*>(a.mask.data)[at] ? A(0) : -kInfinity<A>;
  const A v = a.mask_dtype == DType::kFloat32 ? A(static_cast<const float*>(a.mask.data)[at])
                                              : load_any<A>(a.mask.data, a.mask_dtype, at);
  return v * A(kLog2E);
}

// Bit k: dropout takes key 4 group + k of the row (batch and L as one).
TW_DEVICE unsigned dropped_of(const AttentionArgs& a, uint32_t threshold, int64_t row, int64_t group) {
  const uint64_t groups = uint64_t(ceil_div<int64_t>(a.S, 4));
  const PhiloxWords w = philox_words(a.seed, a.offset + uint64_t(row) * groups + uint64_t(group));
  unsigned bits = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) bits |= unsigned((w.w[k] >> kUniformShift) < threshold) << k;
  return bits;
}

// --- halves: 4 warps, tiles in rows of kE + 8 so that ldmatrix meets no bank twice --
constexpr int kWarpsThreads = 128;

// Rows [first, first + kRows) of the operand; zeros outside (rows, cols). `packs`: 16 bytes a copy.
template <int kRows, int kE, class T>
TW_DEVICE void fetch_rows(T* tile, const T* x, int64_t row, int64_t first, int64_t rows, int64_t cols, bool packs) {
  constexpr int kChunks = kE / 8;
  if (packs) {
#pragma unroll
    for (int i = 0; i < kRows * kChunks / kWarpsThreads; ++i) {
      const int at = int(threadIdx.x) + i * kWarpsThreads, r = at / kChunks, c = at % kChunks * 8;
      const int valid = first + r < rows && c < cols ? int(least<int64_t>(8, cols - c)) : 0;
      cp_async<16>(tile + r * (kE + 8) + c, x + (valid ? (first + r) * row + c : 0), 2 * valid);
    }
  } else {
#pragma unroll 1
    for (int at = threadIdx.x; at < kRows * kE; at += kWarpsThreads) {
      const int r = at / kE, c = at % kE;
      tile[r * (kE + 8) + c] = first + r < rows && c < cols ? x[(first + r) * row + c] : T{0};
    }
  }
}

// The warp's `count` rows of a tile, to rows from `first` on.
template <int kE, class T>
TW_DEVICE void store_rows(T* y, int64_t row, int64_t first, int64_t rows, int64_t cols, const T* tile, int count,
                          bool packs) {
  const int chunks = int(ceil_div<int64_t>(cols, 8));
#pragma unroll 1
  for (int at = threadIdx.x % 32; at < count * chunks; at += 32) {
    const int r = at / chunks, c = at % chunks * 8;
    if (first + r >= rows) break;
    T* to = y + (first + r) * row + c;
    const T* from = tile + r * (kE + 8) + c;
    if (packs && c + 8 <= cols) store_vector(to, load_vector<8>(from));
    else
      for (int j = 0; j < 8 && c + j < cols; ++j) to[j] = from[j];
  }
}

// A 16 x 16 fragment of rows and k, and pairs of 16 x 8 ones: of a tile whose rows are n, and of one whose rows are k.
template <class T> TW_DEVICE void fragment_rows(uint32_t (&r)[4], const T* tile, int pitch) {
  const int lane = threadIdx.x % 32;
  ldmatrix<4>(r, tile + lane % 16 * pitch + lane / 16 * 8);
}
template <class T> TW_DEVICE void fragments_along(uint32_t (&r)[4], const T* tile, int pitch) {
  const int lane = threadIdx.x % 32;
  ldmatrix<4>(r, tile + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
}
template <class T> TW_DEVICE void fragments_across(uint32_t (&r)[4], const T* tile, int pitch) {
  const int lane = threadIdx.x % 32;
  ldmatrix<4, true>(r, tile + lane % 16 * pitch + lane / 16 * 8);
}
template <class T>
TW_DEVICE void mma_pair(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
  mma_16x8x16<T>(d0, a, b0);
  mma_16x8x16<T>(d1, a, b1);
}

// s (16 M rows, 8 N columns) += x w^T over kE columns of the tiles x (16 M rows) and w (8 N rows).
template <int kE, class T, int M, int N> TW_DEVICE void multiply_along(float (&s)[M][N][4], const T* x, const T* w) {
  constexpr int kPitch = kE + 8;
#pragma unroll
  for (int k = 0; k < kE; k += 16) {
    uint32_t fx[M][4];
#pragma unroll
    for (int i = 0; i < M; ++i) fragment_rows(fx[i], x + 16 * i * kPitch + k, kPitch);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t fw[4];
      fragments_along(fw, w + 8 * n * kPitch + k, kPitch);
#pragma unroll
      for (int i = 0; i < M; ++i) mma_pair<T>(s[i][n], s[i][n + 1], fx[i], fw);
    }
  }
}
// acc (16 M rows, kE columns) += p w, p of 16 M rows and 16 K columns as fragments, w a tile of 16 K rows.
template <int kE, class T, int M, int K>
TW_DEVICE void multiply_across(float (&acc)[M][kE / 8][4], const uint32_t (&p)[M][K][4], const T* w) {
  constexpr int kPitch = kE + 8;
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int n = 0; n < kE / 8; n += 2) {
      uint32_t fw[4];
      fragments_across(fw, w + 16 * k * kPitch + 8 * n, kPitch);
#pragma unroll
      for (int i = 0; i < M; ++i) mma_pair<T>(acc[i][n], acc[i][n + 1], p[i][k], fw);
    }
}
// Sums of 16 x 8 N, rounded, as the next product's operand.
template <class T, int N> TW_DEVICE void to_fragments(uint32_t (&p)[N / 2][4], const float (&s)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    p[n / 2][n % 2 * 2] = round_pair<T>(s[n][0], s[n][1]);
    p[n / 2][n % 2 * 2 + 1] = round_pair<T>(s[n][2], s[n][3]);
  }
}
// Sums of 16 x 8 N times a factor for each of the thread's two rows, rounded, into a tile.
template <class T, int N> TW_DEVICE void to_tile(T* tile, const float (&s)[N][4], float factor0, float factor1) {
  const int lane = threadIdx.x % 32;
  uint32_t* at = reinterpret_cast<uint32_t*>(tile + lane / 4 * (8 * N + 8)) + lane % 4;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    at[4 * n] = round_pair<T>(s[n][0] * factor0, s[n][1] * factor0);
    at[4 * n + 8 * (4 * N + 4)] = round_pair<T>(s[n][2] * factor1, s[n][3] * factor1);
  }
}

// Floats of a warp's room for the mask of 16 x 8 N scores.
template <int N> constexpr int kMaskRoom = 16 * (8 * N + 8);

// Adds the mask to the scores of 16 rows from r0 and 8 N columns from c0, and hides what is outside or not yet seen.
// Rows of keys past the last one are left as they are: nobody stores what comes of them.
template <bool kKeys, int N>
TW_DEVICE void mask_scores(const AttentionArgs& a, int64_t start, int64_t r0, int64_t c0, float* room,
                           float (&s)[N][4]) {
  constexpr int kCols = 8 * N, kPitch = kCols + 8;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4 * 2;
  if (a.mask.data) {
    __syncwarp();  // the room is no longer read
#pragma unroll 4
    for (int i = lane; i < 16 * kCols; i += 32) {
      const int r = kKeys ? i % 16 : i / kCols, c = kKeys ? i / 16 : i % kCols;
      const int64_t query = kKeys ? c0 + c : r0 + r, key = kKeys ? r0 + r : c0 + c;
      room[r * kPitch + c] = query < a.L && key < a.S ? mask_value<float>(a, start, query, key) : 0.0f;
    }
    __syncwarp();
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) s[n][r] += room[(g + r / 2 * 8) * kPitch + 8 * n + t + r % 2];
  }
  const bool tail = !kKeys && c0 + kCols > a.S, diagonal = a.causal && (kKeys ? r0 + 15 > c0 : c0 + kCols - 1 > r0);
  if (!tail && !diagonal) return;
  // In a row, keys below `end` take part; in a column of keys' rows, queries from the key on.
  const int end = int(least<int64_t>(kCols, a.S - c0));
  const int ahead = int(greatest<int64_t>(-kCols, least<int64_t>(kCols + 16, r0 - c0)));  // of the rows
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int row = g + r / 2 * 8 + ahead, col = 8 * n + t + r % 2;
      const bool hidden = (!kKeys && col >= end) || (a.causal && (kKeys ? row > col : col > row));
      if (hidden) s[n][r] = -kInfinity<float>;
    }
}

// Bit 4 n + r is set where dropout takes the thread's score s[n][r].
template <bool kKeys, int N>
TW_DEVICE uint32_t dropped_scores(const AttentionArgs& a, int64_t number, int64_t r0, int64_t c0) {
  static_assert(N <= 8);
  const uint32_t threshold = bernoulli_threshold(a.dropout_p);
  const int lane = threadIdx.x % 32, g = lane / 4;
  uint32_t bits = 0;
#pragma unroll 1
  for (int n = 0; n < N; ++n) {
    unsigned own;
    if constexpr (kKeys) {
      // Lanes of four neighbouring keys draw for their two queries and two rows of keys, one counter each.
      const int i = g % 4;
      const int64_t query = number * a.L + c0 + 8 * n + lane % 4 * 2 + i % 2;
      unsigned all = dropped_of(a, threshold, query, (r0 + g / 4 * 4 + i / 2 * 8) / 4) << 4 * i;
      all |= __shfl_xor_sync(kFullMask, all, 4);
      all |= __shfl_xor_sync(kFullMask, all, 8);
      all >>= i;
      own = (all & 1) | (all >> 3 & 2) | (all >> 6 & 4) | (all >> 9 & 8);
    } else {
      // Two lanes share four neighbouring keys: each draws for one of their two rows.
      const int odd = lane % 2;
      const int64_t query = number * a.L + r0 + g + 8 * odd;
      const unsigned mine = dropped_of(a, threshold, query, (c0 + 8 * n) / 4 + lane % 4 / 2);
      const unsigned other = __shfl_xor_sync(kFullMask, mine, 1);
      own = ((odd ? other : mine) >> 2 * odd & 3) | ((odd ? mine : other) >> 2 * odd & 3) << 2;
    }
    bits |= own << 4 * n;
  }
  return bits;
}

// --- tiles: 256 threads, each with rows 4 ty ... and columns 4 tx ... of 64 x 64 sums --
// A step of k reads 8 values of shared memory for 16 multiply-adds. Masks, dropout and two sets of sums take some 165
// registers (float64: 250), so an SM has one block; held to 128, for two, it would spill.
constexpr int kTile = 64, kTileStep = 16, kTileThreads = 256;
template <class A> constexpr int kTilePitch = kTile + 16 / int(sizeof(A));
// Two operands' slices of kTileStep, and a block of weights.
template <class A> constexpr size_t kTileBytes = sizeof(A) * size_t((2 * kTileStep + kTile) * kTilePitch<A>);

template <class A> struct Operand {
  const char* data;  // of the item
  int64_t row, rows, cols;
  DType dtype;
  TW_DEVICE A at(int64_t r, int64_t c) const {
    return r < rows && c < cols ? load_any<A>(data, dtype, r * row + c) : A(0);
  }
};
template <class A>
TW_DEVICE Operand<A> operand_of(const AttentionArgs& a, const BatchedRows& r, int64_t number, int64_t rows,
                                int64_t cols) {
  const int bytes = sizeof(A) == 8 ? 8 : a.dtype == DType::kFloat32 ? 4 : 2;
  return {static_cast<const char*>(r.data) + bytes * item_start(a, r, number), r.row, rows, cols, a.dtype};
}

template <class A> TW_DEVICE void load_four(A (&v)[4], const A* p) {
  constexpr int kAtOnce = 16 / sizeof(A);
#pragma unroll
  for (int i = 0; i < 4; i += kAtOnce) {
    const auto pack = load_vector<kAtOnce>(p + i);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) v[i + j] = pack[j];
  }
}
// sum += outer products of lines that lie k after k.
template <class A> TW_DEVICE void multiply_lines(A (&sum)[4][4], const A* x, const A* w) {
#pragma unroll
  for (int k = 0; k < kTileStep; ++k) {
    A u[4], v[4];
    load_four(u, x + k * kTilePitch<A> + threadIdx.x / 16 * 4);
    load_four(v, w + k * kTilePitch<A> + threadIdx.x % 16 * 4);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = fma(u[i], v[j], sum[i][j]);
  }
}
// sum += x w^T over all columns, for 64 rows of x from x0 and of w from w0.
template <class A>
TW_DEVICE void tile_along(A (&sum)[4][4], const Operand<A>& x, int64_t x0, const Operand<A>& w, int64_t w0, A* room) {
  A *tile_x = room, *tile_w = room + kTileStep * kTilePitch<A>;
  const bool active = x0 + threadIdx.x / 32 * 8 < x.rows;  // a whole warp
  for (int64_t k0 = 0; k0 < x.cols; k0 += kTileStep) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile * kTileStep / kTileThreads; ++i) {
      const int at = int(threadIdx.x) + i * kTileThreads, line = at / kTileStep, k = at % kTileStep;
      tile_x[k * kTilePitch<A> + line] = x.at(x0 + line, k0 + k);
      tile_w[k * kTilePitch<A> + line] = w.at(w0 + line, k0 + k);
    }
    __syncthreads();
    if (active) multiply_lines(sum, tile_x, tile_w);
  }
}
// acc += p w for 64 rows of w from w0 and 64 columns from c0; p, behind the slices, has its columns as rows.
template <class A>
TW_DEVICE void tile_across(A (&acc)[4][4], const Operand<A>& w, int64_t w0, int64_t c0, A* room, bool active) {
  const A* p = room + 2 * kTileStep * kTilePitch<A>;
  for (int k0 = 0; k0 < kTile && w0 + k0 < w.rows; k0 += kTileStep) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile * kTileStep / kTileThreads; ++i) {
      const int at = int(threadIdx.x) + i * kTileThreads, k = at / kTile, c = at % kTile;
      room[k * kTilePitch<A> + c] = w.at(w0 + k0 + k, c0 + c);
    }
    __syncthreads();
    if (active) multiply_lines(acc, p + k0 * kTilePitch<A>, room);
  }
}
// The thread's weights into p.
template <class A> TW_DEVICE void put_weights(A* room, const A (&s)[4][4]) {
  constexpr int kAtOnce = 16 / sizeof(A);
  A* to = room + (2 * kTileStep + threadIdx.x % 16 * 4) * kTilePitch<A> + threadIdx.x / 16 * 4;
  __syncthreads();  // p is no longer read
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int i = 0; i < 4; i += kAtOnce) {
      Vector<A, kAtOnce> pack;
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) pack[e] = s[i + e][j];
      store_vector(to + j * kTilePitch<A> + i, pack);
    }
}
// The thread's sums times a factor, to rows from r0 and columns from c0.
template <class A>
TW_DEVICE void store_tile(const AttentionArgs& a, const BatchedRows& y, int64_t number, int64_t r0, int64_t rows,
                          int64_t c0, int64_t cols, const A (&sum)[4][4], const A (&factor)[4]) {
  const int64_t start = item_start(a, y, number), row = r0 + threadIdx.x / 16 * 4, col = c0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (row + i < rows && col + j < cols)
        store_any<A>(y.data, a.dtype, start + (row + i) * y.row + col + j, sum[i][j] * factor[i]);
}

// The score of query i and key j, from the sum of its product.
template <class A>
TW_DEVICE A finish_score(const AttentionArgs& a, int64_t mask_start, int64_t i, int64_t j, A factor, A sum) {
  if (i >= a.L || j >= a.S || (a.causal && j > i)) return -kInfinity<A>;
  const A s = sum * factor;
  return a.mask.data ? s + mask_value<A>(a, mask_start, i, j) : s;
}

}  // namespace tw::cuda
