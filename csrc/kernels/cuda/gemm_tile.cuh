// The tiles that products and convolutions are made of: how an operand's tile comes into shared memory, and what the
// threads of a block do with two of them. gemm.cu and conv.cu bring operands of their own shapes.
//
// Tensor cores: 8 warps with 64 x 32 sums each, tiles of 64 bytes along K: 32 steps of halves in mma.sync m16n8k16, or
// 16 of float as TF32 in m16n8k8. A tile lies in shared memory as it does in memory, along K or across it, in rows
// padded by 8 items across K and 16 bytes along it, so that ldmatrix (transposed where halves lie across) and single
// loads (floats across: banks 8 k + line) meet no bank twice. float is rounded on its way into registers, cvt.rna: 24
// roundings for 16 mma. Others: 16 x 16 threads with kPer x kPer sums each, 16 steps of K a tile.
#pragma once
#include "kernels/cuda/gemm_end.cuh"

namespace tw::cuda {

constexpr int kTileThreads = 256, kTileStages = 3;
constexpr int kSumsRow = 36;                       // floats, of a warp's sums on their way out
constexpr int kSumsBytes = 8 * 16 * kSumsRow * 4;  // of all warps
constexpr int kPlainStep = 16;                     // steps of K
template <class T> constexpr int kTileK = 64 / int(sizeof(T));
template <class T> constexpr int kMmaK = kTileK<T> / 2;
template <class T> constexpr int kTileChunk = kTileK<T> / 4;  // 16 bytes

// How an operand's tile of kLines lines (rows of a, columns of b) by kTileK steps of K lies in memory and in shared
// memory.
enum class Lie { kAlong, kAcross, kAny };  // contiguous along K; across K; neither (in shared memory as kAlong)

template <class T, Lie kLie, int kLines>
constexpr int kTileRow = kLie == Lie::kAcross ? kLines + 8 : kTileK<T> + kTileChunk<T>;
template <class T, Lie kLie, int kLines>
constexpr int kTileItems = kTileRow<T, kLie, kLines> * (kLie == Lie::kAcross ? kTileK<T> : kLines);

template <class T> struct Lines {
  const T* data;
  int64_t line, step;  // strides of lines and of K
  int64_t lines, K;
};

// Brings the tile that begins at line `line0` and step k0 into `tile`.
template <Lie kLie, int kLines = 128, class T>
TW_DEVICE void fetch(T* tile, const Lines<T>& x, int64_t line0, int64_t k0) {
  constexpr int kRow = kTileRow<T, kLie, kLines>, kK = kTileK<T>, kItems = kTileChunk<T>;
  if constexpr (kLie == Lie::kAny) {
    for (int i = threadIdx.x; i < kLines * kK; i += kTileThreads) {
      const int line = i / kK, k = i % kK;
      const bool inside = line0 + line < x.lines && k0 + k < x.K;
      tile[line * kRow + k] = inside ? x.data[(line0 + line) * x.line + (k0 + k) * x.step] : T{0};
    }
  } else {
    constexpr bool kAlongK = kLie == Lie::kAlong;
    constexpr int kChunks = (kAlongK ? kK : kLines) / kItems;  // of a row: 16 bytes
#pragma unroll
    for (int i = 0; i < kLines * kK / kItems / kTileThreads; ++i) {
      const int chunk = int(threadIdx.x) + i * kTileThreads, row = chunk / kChunks, at = chunk % kChunks * kItems;
      const int64_t outer = (kAlongK ? line0 : k0) + row, inner = (kAlongK ? k0 : line0) + at;
      const int64_t outers = kAlongK ? x.lines : x.K, inners = kAlongK ? x.K : x.lines;
      const int valid = outer < outers ? int(greatest<int64_t>(0, least<int64_t>(kItems, inners - inner))) : 0;
      const T* from = x.data + (valid ? outer * (kAlongK ? x.line : x.step) + inner : 0);
      cp_async<16>(tile + row * kRow + at, from, int(sizeof(T)) * valid);
    }
  }
}

// The block of 16 lines by kMmaK steps at (line, k) of a tile, as an mma operand: registers of lines and K (0, 0),
// (8, 0), (0, kMmaK / 2), (8, kMmaK / 2).
template <Lie kLie, int kLines, class T> TW_DEVICE void fragment(uint32_t (&r)[4], const T* tile, int line, int k) {
  constexpr int kRow = kTileRow<T, kLie, kLines>;
  const int lane = threadIdx.x % 32, matrix = lane / 8, in = lane % 8;
  if constexpr (kLie != Lie::kAcross)
    ldmatrix<4>(r, tile + (line + in + matrix % 2 * 8) * kRow + k + matrix / 2 * kTileChunk<T>);
  else if constexpr (sizeof(T) == 2)
    ldmatrix<4, true>(r, tile + (k + in + matrix / 2 * 8) * kRow + line + matrix % 2 * 8);
  else
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = __float_as_uint(tile[(k + lane % 4 + i / 2 * 4) * kRow + line + lane / 4 + i % 2 * 8]);
  if constexpr (sizeof(T) == 4)
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = round_to_tf32(__uint_as_float(r[i]));
}

// A warp's sums (64, 32) += a (64, kMmaK) b (kMmaK, 32), from line m of tile a, line n of tile b and step k of both.
template <Lie kLieA, int kLinesA, Lie kLieB, int kLinesB, class T>
TW_DEVICE void multiply(float (&acc)[4][4][4], const T* a, const T* b, int m, int n, int k) {
  uint32_t fa[2][4], fb[2][4];  // rows of a one ahead of the sums: all four would cost registers that others need
#pragma unroll
  for (int j = 0; j < 2; ++j) fragment<kLieB, kLinesB>(fb[j], b, n + 16 * j, k);
  fragment<kLieA, kLinesA>(fa[0], a, m, k);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < 3) fragment<kLieA, kLinesA>(fa[(i + 1) % 2], a, m + 16 * (i + 1), k);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t pair[2] = {fb[j / 2][j % 2], fb[j / 2][j % 2 + 2]};
      if constexpr (sizeof(T) == 4) mma_16x8x8_tf32(acc[i][j], fa[i % 2], pair);
      else mma_16x8x16<T>(acc[i][j], fa[i % 2], pair);
    }
  }
}

// end(row, sum) for the 64 rows of a warp's sums, of which a lane gets its own of the 32 columns: neighbours then store
// neighbours. `sums` is kSumsBytes of shared memory, which nobody else may use any more.
template <class End> TW_DEVICE void each_sum(const float (&acc)[4][4][4], float* sums, const End& end) {
  const int lane = threadIdx.x % 32;
  sums += threadIdx.x / 32 * 16 * kSumsRow;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) sums[(lane / 4 + r / 2 * 8) * kSumsRow + 8 * j + lane % 4 * 2 + r % 2] = acc[i][j][r];
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < 16; ++r) end(16 * i + r, sums[r * kSumsRow + lane]);
    __syncwarp();
  }
}

// A square tile of 16 kPer, 16 x 16 threads, each with kPer x kPer sums, 16 apart in rows and columns. load(k0), called
// for each tile of K in turn and once behind the last, reads a thread's part of two tiles into registers, behind the
// arithmetic; put(tile_a, tile_b), both (kPlainStep, 16 kPer + 1), stores it; end(row, column, sum) takes the
// results, a thread always of column threadIdx.x % (16 kPer).
template <class A, int kPer, class Load, class Put, class End>
TW_DEVICE void plain_tile(int64_t K, const Load& load, const Put& put, const End& end) {
  constexpr int kTile = 16 * kPer;
  TW_SHARED(tile_a, A[kPlainStep][kTile + 1]);
  TW_SHARED(tile_b, A[kPlainStep][kTile + 1]);
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
  A acc[kPer][kPer] = {};
  load(0);
  for (int64_t k0 = 0; k0 < K; k0 += kPlainStep) {
    put(tile_a, tile_b);
    __syncthreads();
    load(k0 + kPlainStep);
#pragma unroll
    for (int k = 0; k < kPlainStep; ++k) {
      A x[kPer], y[kPer];
#pragma unroll
      for (int i = 0; i < kPer; ++i) x[i] = tile_a[k][row + 16 * i], y[i] = tile_b[k][col + 16 * i];
#pragma unroll
      for (int i = 0; i < kPer; ++i)
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          if constexpr (std::is_integral_v<A>) acc[i][j] += x[i] * y[j];
          else acc[i][j] = fma(x[i], y[j], acc[i][j]);
        }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {  // 16 rows at a time, through shared memory, so that the end is one loop
#pragma unroll
    for (int j = 0; j < kPer; ++j) tile_a[row][col + 16 * j] = acc[i][j];
    __syncthreads();
#pragma unroll 1
    for (int at = threadIdx.x; at < 16 * kTile; at += kTileThreads)
      end(16 * i + at / kTile, at % kTile, tile_a[at / kTile][at % kTile]);
    __syncthreads();
  }
}

}  // namespace tw::cuda
