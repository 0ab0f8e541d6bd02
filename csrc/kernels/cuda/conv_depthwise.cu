// Depthwise convolutions of 3x3, 5x5 and 7x7 filters with neighbouring taps, y, dx and dw: each channel's plane by
// itself, through tiles of pixels in shared memory. Called by conv_direct.cu and conv_backward_w.cu.
//
// float16, bfloat16, float32; arithmetic in float32. Other filters, strides, dtypes: conv_direct.cu.
// Method: a block brings tiles with their margins, zero outside the plane, as float32: one of 32 x 32 results, or 16 of
// 8 x 8 where planes are small (they may belong to several planes). A thread has 8 neighbouring results of a column: for
// each column of the filter it reads 8 + k - 1 pixels and adds 8 k products. dx is the same with the filter turned
// round. For dw it holds 8 values of dy and k * k sums, over a piece of its channel's tiles; then a fixed tree over the
// block, and conv_backward_w.cu adds up the pieces. Sums: one chain over the taps; dw over 8 rows and the piece's tiles.
// Error: conv.cu's. Margins are read from L2: (1 + (k - 1) / 32)^2 or (1 + (k - 1) / 8)^2 of x.
// Bytes: x + y (dw: x + dy). Instructions a result, 3x3: 14 for the taps, some 15 for its part of the tile, 4 to store:
// about memory's limit, as an SM issues 128 lanes' a clock and gets 16 to 20 bytes; 7x7 45 to 70, above it.
// Shared memory: 5 to 14 KiB; rows of tiles and planes begin at other banks. Not yet timed on a GPU.
#include "kernels/cuda/conv.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128, kRows = 8;  // results of a thread

template <int K, int T> struct Tile {
  static constexpr int kThreadsOf = T * T / kRows, kCount = kThreads / kThreadsOf;  // tiles of a block
  static constexpr int kSide = T + K - 1, kPixels = kSide * kSide;
  static constexpr int kStride = (kPixels + 23) / 32 * 32 + 8;  // from tile to tile: four of a warp's in other banks
};

struct Tiles {
  uint32_t across, of_plane;  // tiles side by side; in a plane
  uint32_t count;             // of all planes
};

// A tile: where its plane begins in x and in y, its first result, and what its patch begins with.
struct Where {
  int64_t x, y;
  int row, col, top, left;
  uint32_t channel;
  bool exists;
};
TW_DEVICE Where where(const Pass& f, const Tiles& t, int T, uint32_t plane, uint32_t tile, bool exists) {
  Where w;
  w.x = plane * f.channel;
  w.y = plane * f.y_channel;
  w.row = int(tile / t.across) * T;
  w.col = int(tile % t.across) * T;
  w.top = w.row + (f.backward ? f.axis[1].pad - f.axis[1].kernel + 1 : -f.axis[1].pad);
  w.left = w.col + (f.backward ? f.axis[2].pad - f.axis[2].kernel + 1 : -f.axis[2].pad);
  w.channel = plane % uint32_t(f.groups);
  w.exists = exists;
  return w;
}

template <int K, int T> TW_DEVICE void bring(float* patches, const Pass& f, const Where* tiles) {
  using P = Tile<K, T>;
  const int H = f.axis[1].in, W = f.axis[2].in;
#pragma unroll 4
  for (int i = threadIdx.x; i < P::kCount * P::kPixels; i += kThreads) {
    const int number = i / P::kPixels, pixel = i % P::kPixels;
    const Where& w = tiles[number];
    const int y = w.top + pixel / P::kSide, x = w.left + pixel % P::kSide;
    const bool inside = w.exists && unsigned(y) < unsigned(H) && unsigned(x) < unsigned(W);
    patches[number * P::kStride + pixel] = inside ? load_any<float>(f.x, f.dtype, w.x + int64_t(y) * W + x) : 0.0f;
  }
}

template <int K, int T> __global__ void __launch_bounds__(kThreads) depthwise(const __grid_constant__ Pass f, Tiles t) {
  using P = Tile<K, T>;
  TW_SHARED(tiles, Where[P::kCount]);
  TW_SHARED(patches, float[P::kCount * P::kStride]);
  TW_SHARED(filters, float[P::kCount][K * K]);
  if (threadIdx.x < P::kCount) {
    const uint32_t i = blockIdx.x * P::kCount + threadIdx.x, plane = i / t.of_plane;
    tiles[threadIdx.x] = where(f, t, T, plane, i - plane * t.of_plane, i < t.count);
  }
  __syncthreads();
  bring<K, T>(patches, f, tiles);
  for (int i = threadIdx.x; i < P::kCount * K * K; i += kThreads) {
    const int tap = i % (K * K);
    filters[i / (K * K)][f.backward ? K * K - 1 - tap : tap] =
        load_any<float>(f.w, f.dtype, int64_t(tiles[i / (K * K)].channel) * K * K + tap);
  }
  __syncthreads();

  const int number = int(threadIdx.x) / P::kThreadsOf, in_tile = int(threadIdx.x) % P::kThreadsOf;
  const int row = in_tile / T * kRows, col = in_tile % T;
  const float* patch = patches + number * P::kStride + row * P::kSide + col;
  const float* filter = filters[number];
  float acc[kRows] = {};
#pragma unroll
  for (int s = 0; s < K; ++s) {
    float v[kRows + K - 1];
#pragma unroll
    for (int i = 0; i < kRows + K - 1; ++i) v[i] = patch[i * P::kSide + s];
#pragma unroll
    for (int r = 0; r < K; ++r) {
      const float w = filter[r * K + s];
#pragma unroll
      for (int i = 0; i < kRows; ++i) acc[i] = fma(w, v[i + r], acc[i]);
    }
  }
  const Where& w = tiles[number];
  const int H = f.axis[1].results, W = f.axis[2].results, y = w.row + row, x = w.col + col;
  if (!w.exists || x >= W) return;
  const float bias = f.bias ? load_any<float>(f.bias, f.dtype, w.channel) : 0.0f;
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (y + i < H) store_any(f.y, f.dtype, w.y + int64_t(y + i) * W + x, f.bias ? acc[i] + bias : acc[i]);
}

// A block has one channel and `length` of its tiles, counted over all images; f.y is dy.
template <int K, int T>
__global__ void __launch_bounds__(kThreads)
    depthwise_backward_w(const __grid_constant__ Pass f, Tiles t, float* partial, uint32_t length) {
  using P = Tile<K, T>;
  TW_SHARED(tiles, Where[P::kCount]);
  TW_SHARED(patches, float[P::kCount * P::kStride]);
  TW_SHARED(sums, float[kThreads / 32][K * K]);
  const uint32_t channel = blockIdx.x % uint32_t(f.groups), piece = blockIdx.x / uint32_t(f.groups);
  const uint32_t all = t.count / uint32_t(f.groups), end = least(all, (piece + 1) * length);
  const int number = int(threadIdx.x) / P::kThreadsOf, in_tile = int(threadIdx.x) % P::kThreadsOf;
  const int row = in_tile / T * kRows, col = in_tile % T;
  const float* patch = patches + number * P::kStride + row * P::kSide + col;
  const int H = f.axis[1].results, W = f.axis[2].results;

  float acc[K][K] = {};
  for (uint32_t begin = piece * length; begin < end; begin += P::kCount) {
    if (threadIdx.x < P::kCount) {
      const uint32_t i = begin + threadIdx.x, n = i / t.of_plane;
      tiles[threadIdx.x] = where(f, t, T, n * uint32_t(f.groups) + channel, i - n * t.of_plane, i < end);
    }
    __syncthreads();
    const Where& w = tiles[number];
    const int y = w.row + row, x = w.col + col;
    float dy[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      dy[i] = w.exists && x < W && y + i < H ? load_any<float>(f.y, f.dtype, w.y + int64_t(y + i) * W + x) : 0.0f;
    bring<K, T>(patches, f, tiles);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < K; ++s) {
      float v[kRows + K - 1];
#pragma unroll
      for (int i = 0; i < kRows + K - 1; ++i) v[i] = patch[i * P::kSide + s];
#pragma unroll
      for (int r = 0; r < K; ++r)
#pragma unroll
        for (int i = 0; i < kRows; ++i) acc[r][s] = fma(dy[i], v[i + r], acc[r][s]);
    }
    __syncthreads();  // the tiles are no longer read
  }
#pragma unroll
  for (int r = 0; r < K; ++r)
#pragma unroll
    for (int s = 0; s < K; ++s) {
      const float sum = reduce_warp<SumOp>(acc[r][s]);
      if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][r * K + s] = sum;
    }
  __syncthreads();
  for (int i = threadIdx.x; i < K * K; i += kThreads) {
    float sum = sums[0][i];
    for (int warp = 1; warp < kThreads / 32; ++warp) sum += sums[warp][i];
    partial[int64_t(blockIdx.x) * K * K + i] = sum;
  }
}

int64_t tiles_of(const Pass& f, int T, int64_t N, Tiles* t) {
  t->across = static_cast<uint32_t>(ceil_div(f.axis[2].results, T));
  t->of_plane = t->across * static_cast<uint32_t>(ceil_div(f.axis[1].results, T));
  t->count = static_cast<uint32_t>(N * f.groups * t->of_plane);
  return t->count;
}

// run(filter's side, tile's side), as constants.
template <class F> void visit(const Pass& f, const F& run) {
  const auto sized = [&](auto k) {
    if (greatest(f.axis[1].results, f.axis[2].results) <= 16) run(k, std::integral_constant<int, 8>());
    else run(k, std::integral_constant<int, 32>());
  };
  if (f.axis[1].kernel == 3) sized(std::integral_constant<int, 3>());
  else if (f.axis[1].kernel == 5) sized(std::integral_constant<int, 5>());
  else sized(std::integral_constant<int, 7>());
}

}  // namespace

bool is_tiled_depthwise(const Pass& f) {
  const int k = f.axis[1].kernel;
  bool yes = f.rows == 1 && f.channels == 1 && f.dtype != DType::kFloat64 && f.axis[0].kernel == 1 &&
             f.axis[0].in == 1 && f.axis[0].results == 1 && f.axis[0].pad == 0 && (k == 3 || k == 5 || k == 7) &&
             f.axis[2].kernel == k;
  for (int d = 1; d < 3; ++d) yes &= f.axis[d].stride == 1 && f.axis[d].dilation == 1;
  return yes;
}

void conv_depthwise(const Pass& f, int64_t N) {
  visit(f, [&](auto k, auto side) {
    constexpr int K = decltype(k)::value, T = decltype(side)::value;
    Tiles t;
    const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(tiles_of(f, T, N, &t), Tile<K, T>::kCount));
    launch_kernel<depthwise<K, T>>(blocks, kThreads, 0, current_stream(), f, t);
  });
}

int64_t conv_depthwise_backward_w(const Pass& f, int64_t N, float* partial) {
  int64_t pieces = 0;
  visit(f, [&](auto k, auto side) {
    constexpr int K = decltype(k)::value, T = decltype(side)::value, kCount = Tile<K, T>::kCount;
    Tiles t;
    const int64_t of_channel = tiles_of(f, T, N, &t) / f.groups;
    // A block's last step, the tree over its threads, should be little of its work: 4 steps or more.
    const int64_t most = greatest<int64_t>(1, least(ceil_div<int64_t>(1024, f.groups), of_channel / (4 * kCount)));
    const int64_t length = ceil_div(ceil_div(of_channel, most), int64_t{kCount}) * kCount;
    pieces = N == 0 ? 0 : ceil_div(of_channel, length);
    if (partial && pieces > 0)
      launch_kernel<depthwise_backward_w<K, T>>(static_cast<unsigned>(pieces * f.groups), kThreads, 0, current_stream(),
                                                f, t, partial, static_cast<uint32_t>(length));
  });
  return pieces;
}

}  // namespace tw::cuda
