// gemm: c = act(alpha * a @ b + beta * c + bias) over a batch, operands of any strides.
//
// Shapes: a (..., M, K), b (..., K, N), c (..., M, N) with contiguous columns; bias (N) or (M). Accumulates in float32
// for float16, bfloat16 and float32, in float64 for
// float64, and wraps in int64 for integers and bool. K == 0 gives act(beta * c + bias). beta == 0 does not read c.
// Error: |K| 2^-24 of the sum of magnitudes, then one rounding to c's dtype; tests/op_table/products.py measures it.
//
// Halves: tiles of 128 x 128 x 32 through the tensor cores (mma.sync m16n8k16), 8 warps of 64 x 32, three stages of
// cp.async. A tile lies in shared memory as it does in memory, along K or across it, in rows padded by 16 bytes, so
// that ldmatrix (transposed where it lies across) meets no bank twice. An operand of other strides, or not aligned to
// 16 bytes, is read item by item into the same tile: layout never changes a bit.
// Others: tiles in shared memory and kPer x kPer sums a thread, the next tile's values in registers meanwhile.
// Intensity: 128 x 128 x 32 reads 16 KiB for 1 MFLOP, 64 FLOP a byte of L2; 62 KiB of shared memory, so that three
// blocks share an SM of sm_80 (164 KiB: two) at 128 registers a thread. Not yet timed on a GPU.
#include "kernels/cuda/gemm_end.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kBlockM = 128, kBlockN = 128, kBlockK = 32, kStages = 3, kPad = 8;
constexpr int kTileItems = 128 * (kBlockK + kPad);  // of either form; across K it is 32 * (128 + 8), which is less
static_assert(kBlockK * (128 + kPad) <= kTileItems && kBlockM == 128 && kBlockN == 128);
constexpr int kSumsRow = 36;  // floats, of a warp's sums on their way out
static_assert(8 * 16 * kSumsRow * 4 <= kStages * 2 * kTileItems * 2);
constexpr size_t kSharedBytes = size_t{kStages} * 2 * kTileItems * 2;

// How an operand's tile of 128 lines (rows of a, columns of b) by 32 steps of K lies in memory and in shared memory.
enum class Lie { kAlong, kAcross, kAny };  // contiguous along K; across K; neither (in shared memory as kAlong)

template <class T> struct Lines {
  const T* data;
  int64_t line, step;  // strides of lines and of K
  int64_t lines, K;
};

// Brings the tile that begins at line `line0` and step k0 into `tile`.
template <Lie kLie, class T> TW_DEVICE void fetch(T* tile, const Lines<T>& x, int64_t line0, int64_t k0) {
  if constexpr (kLie == Lie::kAny) {
    for (int i = threadIdx.x; i < 128 * kBlockK; i += kThreads) {
      const int line = i / kBlockK, k = i % kBlockK;
      const bool inside = line0 + line < x.lines && k0 + k < x.K;
      tile[line * (kBlockK + kPad) + k] = inside ? x.data[(line0 + line) * x.line + (k0 + k) * x.step] : T{0};
    }
  } else {
    constexpr bool kAlongK = kLie == Lie::kAlong;
    constexpr int kRow = kAlongK ? kBlockK : 128, kChunks = kRow / 8;  // of 8 items, 16 bytes
#pragma unroll
    for (int i = 0; i < 128 * kBlockK / 8 / kThreads; ++i) {
      const int chunk = int(threadIdx.x) + i * kThreads, row = chunk / kChunks, at = chunk % kChunks * 8;
      const int64_t outer = (kAlongK ? line0 : k0) + row, inner = (kAlongK ? k0 : line0) + at;
      const int64_t outers = kAlongK ? x.lines : x.K, inners = kAlongK ? x.K : x.lines;
      const int valid = outer < outers ? int(greatest<int64_t>(0, least<int64_t>(8, inners - inner))) : 0;
      const T* from = x.data + (valid ? outer * (kAlongK ? x.line : x.step) + inner : 0);
      cp_async<16>(tile + row * (kRow + kPad) + at, from, 2 * valid);
    }
  }
}

// The 16 x 16 block of lines and K at (line, k) of a tile, as an mma operand: registers (0, 0), (8, 0), (0, 8), (8, 8)
// of lines and K.
template <Lie kLie, class T> TW_DEVICE void fragment(uint32_t (&r)[4], const T* tile, int line, int k) {
  const int lane = threadIdx.x % 32, matrix = lane / 8, in = lane % 8;
  if constexpr (kLie == Lie::kAcross)
    ldmatrix<4, true>(r, tile + (k + in + matrix / 2 * 8) * (128 + kPad) + line + matrix % 2 * 8);
  else ldmatrix<4>(r, tile + (line + in + matrix % 2 * 8) * (kBlockK + kPad) + k + matrix / 2 * 8);
}

template <class T, Lie kLieA, Lie kLieB>
__global__ void __launch_bounds__(kThreads, 2) gemm_halves(const __grid_constant__ GemmArgs g, int64_t first_product) {
  T* const tiles = dynamic_shared<T>();
  const int64_t tiles_n = ceil_div<int64_t>(g.N, kBlockN);
  const int64_t m0 = blockIdx.x / tiles_n * kBlockM, n0 = blockIdx.x % tiles_n * kBlockN;
  const Start s = start_of(g, first_product + blockIdx.z);
  const Lines<T> a{static_cast<const T*>(g.a) + s.a, g.a_row, g.a_col, g.M, g.K};
  const Lines<T> b{static_cast<const T*>(g.b) + s.b, g.b_col, g.b_row, g.N, g.K};
  const int warp = threadIdx.x / 32, warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
  const int steps = int(ceil_div<int64_t>(g.K, kBlockK));
  const auto tile_a = [&](int stage) { return tiles + stage % kStages * 2 * kTileItems; };
  const auto tile_b = [&](int stage) { return tile_a(stage) + kTileItems; };
  const auto load = [&](int step) {
    if (step < steps) {
      fetch<kLieA>(tile_a(step), a, m0, int64_t(step) * kBlockK);
      fetch<kLieB>(tile_b(step), b, n0, int64_t(step) * kBlockK);
    }
    cp_async_commit();
  };

  float acc[4][4][4] = {};  // (16 rows, 8 columns, fragment)
  for (int i = 0; i < kStages - 1; ++i) load(i);
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // everybody's part of the tile is there, and the oldest tile is no longer read
    load(step + kStages - 1);
#pragma unroll
    for (int k = 0; k < kBlockK; k += 16) {
      uint32_t fa[4][4], fb[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) fragment<kLieA>(fa[i], tile_a(step), warp_m + 16 * i, k);
#pragma unroll
      for (int j = 0; j < 2; ++j) fragment<kLieB>(fb[j], tile_b(step), warp_n + 16 * j, k);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t pair[2] = {fb[j / 2][j % 2], fb[j / 2][j % 2 + 2]};
          mma_16x8x16<T>(acc[i][j], fa[i], pair);
        }
    }
  }
  cp_async_wait<0>();
  __syncthreads();  // the tiles become each warp's own 16 x 32 sums, from which lanes store neighbours
  const int lane = threadIdx.x % 32;
  float* const sums = dynamic_shared<float>() + warp * 16 * kSumsRow;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) sums[(lane / 4 + r / 2 * 8) * kSumsRow + 8 * j + lane % 4 * 2 + r % 2] = acc[i][j][r];
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < 16; ++r)
      finish(g, s.c, m0 + warp_m + 16 * i + r, n0 + warp_n + lane, sums[r * kSumsRow + lane]);
    __syncwarp();
  }
}

// A square tile of 16 kPer, 16 x 16 threads, each with kPer x kPer sums, 16 apart in rows and columns.
template <class S, class A, int kPer>
__global__ void __launch_bounds__(kThreads) gemm_plain(const __grid_constant__ GemmArgs g, int64_t first_product) {
  constexpr int kTile = 16 * kPer, kStep = 16;
  TW_SHARED(tile_a, A[kStep][kTile + 1]);
  TW_SHARED(tile_b, A[kStep][kTile + 1]);
  const int64_t tiles_n = ceil_div<int64_t>(g.N, kTile);
  const int64_t m0 = blockIdx.x / tiles_n * kTile, n0 = blockIdx.x % tiles_n * kTile;
  const Start s = start_of(g, first_product + blockIdx.z);
  const S *a = static_cast<const S*>(g.a) + s.a, *b = static_cast<const S*>(g.b) + s.b;
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
  // Threads run along whichever dimension is contiguous in memory.
  const bool a_along = g.a_col == 1, b_along = g.b_row == 1;
  A next_a[kPer], next_b[kPer], acc[kPer][kPer] = {};
  const auto place = [&](bool along, int i, int* line, int* k) {
    const int at = int(threadIdx.x) + i * kThreads;
    *line = along ? at / kStep : at % kTile;
    *k = along ? at % kStep : at / kTile;
  };
  const auto load = [&](int64_t k0) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      int line, k;
      place(a_along, i, &line, &k);
      next_a[i] = m0 + line < g.M && k0 + k < g.K ? convert<A>(a[(m0 + line) * g.a_row + (k0 + k) * g.a_col]) : A(0);
      place(b_along, i, &line, &k);
      next_b[i] = n0 + line < g.N && k0 + k < g.K ? convert<A>(b[(n0 + line) * g.b_col + (k0 + k) * g.b_row]) : A(0);
    }
  };
  load(0);
  for (int64_t k0 = 0; k0 < g.K; k0 += kStep) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      int line, k;
      place(a_along, i, &line, &k);
      tile_a[k][line] = next_a[i];
      place(b_along, i, &line, &k);
      tile_b[k][line] = next_b[i];
    }
    __syncthreads();
    load(k0 + kStep);
#pragma unroll
    for (int k = 0; k < kStep; ++k) {
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
  for (int i = 0; i < kPer; ++i) {  // 16 rows at a time, through shared memory, so that the epilogue is one loop
#pragma unroll
    for (int j = 0; j < kPer; ++j) tile_a[row][col + 16 * j] = acc[i][j];
    __syncthreads();
#pragma unroll 1
    for (int at = threadIdx.x; at < 16 * kTile; at += kThreads)
      finish(g, s.c, m0 + 16 * i + at / kTile, n0 + at % kTile, tile_a[at / kTile][at % kTile]);
    __syncthreads();
  }
}

int64_t batch_count(const GemmArgs& g) {
  int64_t n = 1;
  for (int i = 0; i < g.batch_ndim; ++i) n *= g.batch[i];
  return n;
}

template <auto Kernel> void launch_tiles(const GemmArgs& g, int64_t tile, size_t shared_bytes) {
  constexpr int64_t kMost = 65535;  // of a grid's z
  const auto tiles = static_cast<unsigned>(ceil_div(g.M, tile) * ceil_div(g.N, tile));
  const int64_t batch = batch_count(g);
  for (int64_t first = 0; first < batch; first += kMost)
    launch_kernel<Kernel>(dim3(tiles, 1, static_cast<unsigned>(least(kMost, batch - first))), kThreads, shared_bytes,
                          current_stream(), g, first);
}

// An operand that cp.async can bring: one stride of 1, all else in steps of 16 bytes.
Lie lie_of(const void* data, int64_t line, int64_t step, const int64_t* batch, int ndim) {
  bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  for (int d = 0; d < ndim; ++d) aligned &= batch[d] % 8 == 0;
  if (aligned && step == 1 && line % 8 == 0) return Lie::kAlong;
  if (aligned && line == 1 && step % 8 == 0) return Lie::kAcross;
  return Lie::kAny;
}

template <class T> void halves(const GemmArgs& g) {
  if (device_info().capability == 900 && gemm_sm90(g)) return;  // code for sm_90a runs nowhere else
  const Lie a = lie_of(g.a, g.a_row, g.a_col, g.a_batch, g.batch_ndim);
  const Lie b = lie_of(g.b, g.b_col, g.b_row, g.b_batch, g.batch_ndim);
  if (a == Lie::kAny || b == Lie::kAny)
    return launch_tiles<gemm_halves<T, Lie::kAny, Lie::kAny>>(g, kBlockM, kSharedBytes);
  if (a == Lie::kAlong && b == Lie::kAlong)
    return launch_tiles<gemm_halves<T, Lie::kAlong, Lie::kAlong>>(g, kBlockM, kSharedBytes);
  if (a == Lie::kAlong) return launch_tiles<gemm_halves<T, Lie::kAlong, Lie::kAcross>>(g, kBlockM, kSharedBytes);
  if (b == Lie::kAlong) return launch_tiles<gemm_halves<T, Lie::kAcross, Lie::kAlong>>(g, kBlockM, kSharedBytes);
  launch_tiles<gemm_halves<T, Lie::kAcross, Lie::kAcross>>(g, kBlockM, kSharedBytes);
}

}  // namespace

void gemm(const GemmArgs& g) {
  if (g.M == 0 || g.N == 0 || batch_count(g) == 0) return;
  switch (g.dtype) {
    case DType::kFloat16: return halves<float16>(g);
    case DType::kBFloat16: return halves<bfloat16>(g);
    case DType::kFloat32:
      if (g.M > 64 && g.N > 64) return launch_tiles<gemm_plain<float, float, 8>>(g, 128, 0);
      return launch_tiles<gemm_plain<float, float, 4>>(g, 64, 0);
    case DType::kFloat64: return launch_tiles<gemm_plain<double, double, 4>>(g, 64, 0);
    case DType::kBool: return launch_tiles<gemm_plain<bool, int64_t, 4>>(g, 64, 0);
    case DType::kUInt8: return launch_tiles<gemm_plain<uint8_t, int64_t, 4>>(g, 64, 0);
    case DType::kInt8: return launch_tiles<gemm_plain<int8_t, int64_t, 4>>(g, 64, 0);
    case DType::kInt16: return launch_tiles<gemm_plain<int16_t, int64_t, 4>>(g, 64, 0);
    case DType::kInt32: return launch_tiles<gemm_plain<int32_t, int64_t, 4>>(g, 64, 0);
    case DType::kInt64: return launch_tiles<gemm_plain<int64_t, int64_t, 4>>(g, 64, 0);
  }
}

}  // namespace tw::cuda
