// gemm: c = act(alpha * a @ b + beta * c + bias) over a batch, operands of any strides.
//
// Shapes: a (..., M, K), b (..., K, N), c (..., M, N) with contiguous columns; bias (N) or (M). Accumulates in float32
// for float16, bfloat16 and float32, in float64 for float64, and wraps in int64 for integers and bool. K == 0 gives
// act(beta * c + bias). beta == 0 does not read c. Error: |K| 2^-24 of the sum of magnitudes, then one rounding to c's
// dtype; tests/op_table/products.py measures it.
//
// float32 with `tf32`: operands rounded to 10 bits of fraction, 2^-11 each, so that 2^-10 of the sum of magnitudes is
// added; tests/test_hopper.py::test_tf32_products measures it.
//
// Halves, TF32: tiles of 128 x 128 x 64 bytes through the tensor cores (mma.sync), 8 warps of 64 x 32, three stages of
// cp.async: gemm_tile.cuh. An operand of other strides, or not aligned to 16 bytes, is read item by item into the same
// tile: layout never changes a bit.
// Others: tiles in shared memory and kPer x kPer sums a thread, the next tile's values in registers meanwhile.
// Few tiles over a long K: slices (gemm_end.cuh), some 256 blocks of at least 16 steps of tiles each (plain: 8). s of
// them take 1 / s of the time, and 8 s bytes a sum to write and read in a second launch.
// Intensity: 128 x 128 x 32 halves are 16 KiB for 1 MFLOP, 64 FLOP a byte of L2; TF32 half of that, at half the rate;
// 62 KiB of shared memory, so that three blocks share an SM of sm_80 (164 KiB: two) at 128 registers a thread. Not yet
// timed on a GPU.
#include "kernels/cuda/gemm_tile.cuh"

namespace tw::cuda {
namespace {

constexpr int kBlockM = 128, kBlockN = 128;
template <class T>
constexpr int kOperandItems = greatest(kTileItems<T, Lie::kAlong, 128>, kTileItems<T, Lie::kAcross, 128>);
template <class T> constexpr size_t kSharedBytes = kTileStages * 2 * kOperandItems<T> * sizeof(T);

// T float: its values as TF32.
template <class T, Lie kLieA, Lie kLieB>
__global__ void __launch_bounds__(kTileThreads, 2)
    gemm_tensor(const __grid_constant__ GemmArgs g, const __grid_constant__ Slices slices, int64_t first_product) {
  static_assert(kSumsBytes <= kSharedBytes<T>);
  T* const tiles = dynamic_shared<T>();
  const int64_t tiles_n = ceil_div<int64_t>(g.N, kBlockN);
  const int64_t m0 = blockIdx.x / tiles_n * kBlockM, n0 = blockIdx.x % tiles_n * kBlockN;
  const Start s = start_of(g, first_product + blockIdx.z, slices, int(blockIdx.y));
  const Lines<T> a{static_cast<const T*>(g.a) + s.a, g.a_row, g.a_col, g.M, g.K};
  const Lines<T> b{static_cast<const T*>(g.b) + s.b, g.b_col, g.b_row, g.N, g.K};
  const int warp = threadIdx.x / 32, warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;
  // Slices begin at whole tiles, so that only K's own end is looked at below.
  const int begin = int(blockIdx.y * (slices.length / kTileK<T>)),
            end = int(ceil_div<int64_t>(least(g.K, (blockIdx.y + 1) * slices.length), kTileK<T>));
  const auto tile_a = [&](int stage) { return tiles + stage % kTileStages * 2 * kOperandItems<T>; };
  const auto tile_b = [&](int stage) { return tile_a(stage) + kOperandItems<T>; };
  const auto load = [&](int step) {
    if (step < end) {
      fetch<kLieA>(tile_a(step), a, m0, int64_t(step) * kTileK<T>);
      fetch<kLieB>(tile_b(step), b, n0, int64_t(step) * kTileK<T>);
    }
    cp_async_commit();
  };

  [[maybe_unused]] constexpr int kUnroll = sizeof(T) == 4 && kLieA == kLieB ? 1 : 2;  // what there are registers for
  float acc[4][4][4] = {};                                                            // (16 rows, 8 columns, fragment)
  for (int i = 0; i < kTileStages - 1; ++i) load(begin + i);
  for (int step = begin; step < end; ++step) {
    cp_async_wait<kTileStages - 2>();
    __syncthreads();  // everybody's part of the tile is there, and the oldest tile is no longer read
    load(step + kTileStages - 1);
#pragma unroll kUnroll
    for (int k = 0; k < kTileK<T>; k += kMmaK<T>)
      multiply<kLieA, 128, kLieB, 128>(acc, tile_a(step), tile_b(step), warp_m, warp_n, k);
  }
  cp_async_wait<0>();
  __syncthreads();  // the tiles become each warp's own 16 x 32 sums
  each_sum(acc, dynamic_shared<float>(),
           [&](int row, float sum) { finish(g, s.c, m0 + warp_m + row, n0 + warp_n + threadIdx.x % 32, sum); });
}

template <class S, class A, int kPer>
__global__ void __launch_bounds__(kTileThreads)
    gemm_plain(const __grid_constant__ GemmArgs g, const __grid_constant__ Slices slices, int64_t first_product) {
  constexpr int kTile = 16 * kPer;
  const int64_t tiles_n = ceil_div<int64_t>(g.N, kTile);
  const int64_t m0 = blockIdx.x / tiles_n * kTile, n0 = blockIdx.x % tiles_n * kTile;
  const Start s = start_of(g, first_product + blockIdx.z, slices, int(blockIdx.y));
  const S *a = static_cast<const S*>(g.a) + s.a, *b = static_cast<const S*>(g.b) + s.b;
  // Threads run along whichever dimension is contiguous in memory.
  const bool a_along = g.a_col == 1, b_along = g.b_row == 1;
  A next_a[kPer], next_b[kPer];
  const auto place = [&](bool along, int i, int* line, int* k) {
    const int at = int(threadIdx.x) + i * kTileThreads;
    *line = along ? at / kPlainStep : at % kTile;
    *k = along ? at % kPlainStep : at / kTile;
  };
  const int64_t begin = blockIdx.y * slices.length;
  const auto load = [&](int64_t k0) {
    k0 += begin;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      int line, k;
      place(a_along, i, &line, &k);
      next_a[i] = m0 + line < g.M && k0 + k < g.K ? convert<A>(a[(m0 + line) * g.a_row + (k0 + k) * g.a_col]) : A(0);
      place(b_along, i, &line, &k);
      next_b[i] = n0 + line < g.N && k0 + k < g.K ? convert<A>(b[(n0 + line) * g.b_col + (k0 + k) * g.b_row]) : A(0);
    }
  };
  const auto put = [&](auto& tile_a, auto& tile_b) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      int line, k;
      place(a_along, i, &line, &k);
      tile_a[k][line] = next_a[i];
      place(b_along, i, &line, &k);
      tile_b[k][line] = next_b[i];
    }
  };
  plain_tile<A, kPer>(least(slices.length, g.K - begin), load, put,
                      [&](int row, int col, A sum) { finish(g, s.c, m0 + row, n0 + col, sum); });
}

int64_t batch_count(const GemmArgs& g) {
  int64_t n = 1;
  for (int i = 0; i < g.batch_ndim; ++i) n *= g.batch[i];
  return n;
}

constexpr int kAddThreads = 256;

__global__ void __launch_bounds__(kAddThreads)
    add_kernel(const __grid_constant__ GemmArgs g, const float* sums, const __grid_constant__ Slices slices) {
  for (int64_t i = int64_t(blockIdx.x) * kAddThreads + threadIdx.x; i < slices.items;
       i += int64_t(gridDim.x) * kAddThreads) {
    float sum = sums[i];
#pragma unroll 8
    for (int s = 1; s < slices.count; ++s) sum += sums[s * slices.items + i];
    const int64_t row = divide(i, g.N), number = divide(row, g.M);
    finish(g, start_of(g, number).c, row - number * g.M, i - row * g.N, sum);
  }
}

// shortest: steps of K that are worth a slice; 0: none are.
template <auto Kernel> void launch_tiles(const GemmArgs& g, int64_t tile, size_t shared_bytes, int64_t shortest = 0) {
  constexpr int64_t kMost = 65535;  // of a grid's z
  const int64_t batch = batch_count(g), tiles = ceil_div(g.M, tile) * ceil_div(g.N, tile);
  const int64_t most = shortest && g.K >= 4 * shortest ? least(256 / tiles / batch, g.K / shortest) : 1;
  run_slices(g, greatest<int64_t>(1, most), [&](const GemmArgs& part, const Slices& slices) {
    for (int64_t first = 0; first < batch; first += kMost)
      launch_kernel<Kernel>(dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(slices.count),
                                 static_cast<unsigned>(least(kMost, batch - first))),
                            kTileThreads, shared_bytes, current_stream(), part, slices, first);
  });
}

// An operand that cp.async can bring: one stride of 1, all else in steps of 16 bytes, `chunk` items.
Lie lie_of(const void* data, int64_t line, int64_t step, const int64_t* batch, int ndim, int chunk) {
  bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  for (int d = 0; d < ndim; ++d) aligned &= batch[d] % chunk == 0;
  if (aligned && step == 1 && line % chunk == 0) return Lie::kAlong;
  if (aligned && line == 1 && step % chunk == 0) return Lie::kAcross;
  return Lie::kAny;
}

template <class T> void tensor(const GemmArgs& g) {
  if (device_info().capability == 900 && gemm_sm90(g)) return;  // code for sm_90a runs nowhere else
  const Lie a = lie_of(g.a, g.a_row, g.a_col, g.a_batch, g.batch_ndim, kTileChunk<T>);
  const Lie b = lie_of(g.b, g.b_col, g.b_row, g.b_batch, g.batch_ndim, kTileChunk<T>);
  const auto go = [&](auto lie_a, auto lie_b) {
    launch_tiles<gemm_tensor<T, decltype(lie_a)::value, decltype(lie_b)::value>>(g, kBlockM, kSharedBytes<T>,
                                                                                 16 * kTileK<T>);
  };
  constexpr std::integral_constant<Lie, Lie::kAlong> kAlong{};
  constexpr std::integral_constant<Lie, Lie::kAcross> kAcross{};
  constexpr std::integral_constant<Lie, Lie::kAny> kAny{};
  if (a == Lie::kAny || b == Lie::kAny) return go(kAny, kAny);
  if (a == Lie::kAlong) return b == Lie::kAlong ? go(kAlong, kAlong) : go(kAlong, kAcross);
  b == Lie::kAlong ? go(kAcross, kAlong) : go(kAcross, kAcross);
}

}  // namespace

void add_slices(const GemmArgs& g, const float* sums, const Slices& slices) {
  launch_kernel<add_kernel>(persistent_blocks(ceil_div<int64_t>(slices.items, kAddThreads), 8), kAddThreads, 0,
                            current_stream(), g, sums, slices);
}

void gemm(const GemmArgs& g) {
  if (g.M == 0 || g.N == 0 || batch_count(g) == 0) return;
  switch (g.dtype) {
    case DType::kFloat16: return tensor<float16>(g);
    case DType::kBFloat16: return tensor<bfloat16>(g);
    case DType::kFloat32:
      if (g.tf32) return tensor<float>(g);
      if (g.M > 64 && g.N > 64) return launch_tiles<gemm_plain<float, float, 8>>(g, 128, 0, 8 * kPlainStep);
      return launch_tiles<gemm_plain<float, float, 4>>(g, 64, 0, 8 * kPlainStep);
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
