// conv_backward_w: dw (O, C / groups, taps) = sum over positions j of dy (O, j) @ x at (term, j)^T, as conv.cuh has it.
//
// dtypes and accumulation as conv.cu; K is the number of positions. Error: pieces of K are added in order, each of them
// as gemm.cu; measured by tests/op_table/conv.py.
// Method: K is cut into pieces by size alone, so that there are some 512 tiles of work, and none of more than 16,384
// positions while dw is small; a piece's sums, (O, (tap, channel)), go to a workspace, (pieces, O, terms), and a second
// launch adds them in order of pieces. Both operands' tiles lie along K: a thread has two positions of the next tile
// and walks over its terms of x there, half of them before each half of the tile's mma, to store them behind it; dy
// comes by cp.async where its rows are aligned to 16 bytes, else as x. Tiles (rows, terms, positions) of halves and
// TF32: 128 x 128 x 64 bytes, 64 x 256 for at most 64 rows; others 128 or 64 square x 16. Groups of few rows:
// conv_direct.cu.
// Intensity: as conv.cu. The workspace is written and read once: some 512 tiles of 64 KiB for a large dw, 256 MiB at
// most. Not yet timed on a GPU.
#include "kernels/cuda/conv.cuh"

namespace tw::cuda {
namespace {

// The tile of a block: x counts (piece, rows, terms), z groups.
struct PieceAt {
  uint32_t begin, end;  // of the piece's positions
  int m0, q0, group;
  // Where the sums of the group's first row go.
  TW_DEVICE int64_t out(const Pass& f, uint32_t length, int terms) const {
    return (int64_t(begin / length) * f.groups + group) * f.rows * terms;
  }
};
template <int kBlockM, int kBlockN>
TW_DEVICE PieceAt piece_at(const Pass& f, int terms, uint32_t length, int first_group) {
  const uint32_t tiles_m = ceil_div(f.rows, kBlockM), tiles_q = ceil_div(terms, kBlockN);
  const uint32_t line = blockIdx.x / tiles_q, piece = line / tiles_m, begin = piece * length;
  const int group = first_group + int(blockIdx.z);
  return {begin, begin + least(length, f.positions - begin), int(line - piece * tiles_m) * kBlockM,
          int(blockIdx.x - line * tiles_q) * kBlockN, group};
}

// The values of neighbouring rows of dy at kPixels positions.
template <class T, int kPixels, int kItems>
TW_DEVICE void take_dy(Vector<T, kPixels> (&v)[kItems], const Pass& f, const PieceAt& t, int row, uint32_t position) {
  const T* dy = reinterpret_cast<const T*>(f.y);
  int pixels = 0;  // that exist
  if (position < t.end) {
    const Spot s = spot_of(f, position);
    pixels = least(kPixels, f.cols - s.x);
    dy += dy_place(f, s) + (int64_t(t.group) * f.rows + row) * f.y_channel;
  }
#pragma unroll
  for (int i = 0; i < kItems; ++i)
#pragma unroll
    for (int p = 0; p < kPixels; ++p) v[i][p] = p < pixels && row + i < f.rows ? dy[i * f.y_channel + p] : T{};
}

template <class T, int kWarpsM> struct TensorTile {
  static constexpr int kBlockM = 64 * kWarpsM, kBlockN = 256 / kWarpsM;
  static constexpr int kItemsA = kTileItems<T, Lie::kAlong, kBlockM>, kItemsB = kTileItems<T, Lie::kAlong, kBlockN>;
  static constexpr size_t kSharedBytes = 2 * (kItemsA + kItemsB) * sizeof(T);
  static_assert(kSumsBytes <= kSharedBytes);
};

// `aligned`: rows of dy are (f.y_channel and the launch's pixels of an image in eights), so that cp.async
// brings them.
template <class T, int kWarpsM>
__global__ void __launch_bounds__(kTileThreads, 2)
    backward_w_tensor(const __grid_constant__ Pass f, float* partial, uint32_t length, int first_group, bool aligned) {
  using Tile = TensorTile<T, kWarpsM>;
  constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kRow = kTileRow<T, Lie::kAlong, kBlockM>;
  constexpr int kBlocksN = 2 / kWarpsM;  // half of a warp's lines of x are so many blocks of 8; of dy kWarpsM
  constexpr int kPairs = kTileK<T> / 2, kPer = kTileK<T> / 8;
  TW_SHARED(firsts, Term[kTileThreads / kPairs]);
  TW_SHARED(taps, Taps[3]);
  TW_SHARED(t, PieceAt);  // in shared memory, as registers are short
  set_taps(taps, f, 0);
  if (threadIdx.x == 0) t = piece_at<kBlockM, kBlockN>(f, count_terms(taps, f), length, first_group);
  __syncthreads();
  const int steps = int(ceil_div<uint32_t>(t.end - t.begin, kTileK<T>));
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_m = warp % kWarpsM * 64, warp_n = warp / kWarpsM * 32;
  const bool busy = t.m0 + warp_m < f.rows && t.q0 + warp_n < count_terms(taps, f);
  // A thread has two positions and kPer of 8 lines: the two halves of a warp then store to different banks.
  const int pixel = lane % kPairs * 2, line = lane / kPairs * kPer;
  const int group = int(threadIdx.x) / kPairs;  // of threads with the same terms
  TW_SHARED(walks, Walks);
  Terms<T, 2> terms(walks);
  terms.skip(f, taps, t.q0 + warp * 16 * kBlocksN + line);
  if (threadIdx.x % kPairs == 0) firsts[group] = terms.term();
  __syncthreads();

  const auto tile_a = [&](int step) { return dynamic_shared<T>() + step % 2 * (Tile::kItemsA + Tile::kItemsB); };
  const auto tile_b = [&](int step) { return tile_a(step) + Tile::kItemsA; };
  const auto bring_dy = [&](int step) {  // 16 bytes of each 64th row
    const int row = int(threadIdx.x) / 4, column = int(threadIdx.x) % 4 * kTileChunk<T>;
    const uint32_t position = t.begin + uint32_t(step) * kTileK<T> + column;
    const T* dy = reinterpret_cast<const T*>(f.y) + (int64_t(t.group) * f.rows + t.m0) * f.y_channel;
    if (position < t.end) dy += dy_place(f, spot_of(f, position));
#pragma unroll
    for (int i = 0; i < kBlockM; i += 64) {
      const bool inside = position < t.end && t.m0 + row + i < f.rows;
      cp_async<16>(tile_a(step) + (row + i) * kRow + column, inside ? dy + (row + i) * f.y_channel : dy,
                   inside ? 16 : 0);
    }
  };
  Vector<T, 2> next_a[kPer], next_b[kBlocksN][kPer];
  const auto take = [&](int step, int half) {
    const uint32_t position = t.begin + uint32_t(step) * kTileK<T> + pixel;
    if (aligned && half == 0) bring_dy(step);
    if (!aligned && half < kWarpsM) take_dy(next_a, f, t, t.m0 + (warp * kWarpsM + half) * 8 + line, position);
    if (half == 0) {
      terms.move(f, taps, t.group, position, t.end);
      terms.go_to(f, taps, firsts[group]);
    }
#pragma unroll
    for (int b = 0; b < kBlocksN; ++b) {
      terms.take(next_b[b], f, taps);
      terms.skip(f, taps, 8 - kPer);
    }
  };
  const auto put = [&](T* tile, int block, const Vector<T, 2>(&v)[kPer]) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) store_vector(tile + (block * 8 + line + i) * kRow + pixel, v[i]);
  };
  const auto put_all = [&](int step, int half) {
    if (!aligned && half < kWarpsM) put(tile_a(step), warp * kWarpsM + half, next_a);
#pragma unroll
    for (int b = 0; b < kBlocksN; ++b) put(tile_b(step), (warp * 2 + half) * kBlocksN + b, next_b[b]);
  };

  float acc[4][4][4] = {};
  for (int half = 0; half < 2; ++half) {
    take(0, half);
    put_all(0, half);
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();  // the tile is there, and the other one is no longer read
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (step + 1 < steps) take(step + 1, half);
      if (busy)
        multiply<Lie::kAlong, kBlockM, Lie::kAlong, kBlockN>(acc, tile_a(step), tile_b(step), warp_m, warp_n,
                                                             kMmaK<T> * half);
      if (step + 1 < steps) put_all(step + 1, half);
    }
  }
  __syncthreads();
  if (!busy) return;
  const int count = count_terms(taps, f);
  float* to = partial + t.out(f, length, count);
  const int q = t.q0 + warp_n + lane, m0 = t.m0 + warp_m;
  each_sum(acc, dynamic_shared<float>(), [&](int row, float sum) {
    if (m0 + row < f.rows && q < count) to[int64_t(m0 + row) * count + q] = sum;
  });
}

template <class T, int kPer>
__global__ void __launch_bounds__(kTileThreads)
    backward_w_plain(const __grid_constant__ Pass f, T* partial, uint32_t length, int first_group) {
  constexpr int kTile = 16 * kPer;
  TW_SHARED(taps, Taps[3]);
  const int count = set_taps(taps, f, 0);
  const PieceAt t = piece_at<kTile, kTile>(f, count, length, first_group);
  const int k = threadIdx.x % kPlainStep, line = int(threadIdx.x) / kPlainStep * kPer;
  TW_SHARED(walks, Walks);
  Terms<T> terms(walks);
  terms.skip(f, taps, t.q0 + line);
  const Term first = terms.term();
  Vector<T, 1> next_a[kPer], next_b[kPer];
  const auto load = [&](int64_t k0) {
    const uint32_t position = t.begin + uint32_t(k0) + k;
    take_dy(next_a, f, t, t.m0 + line, position);
    terms.move(f, taps, t.group, position, t.end);
    terms.go_to(f, taps, first);
    terms.take(next_b, f, taps);
  };
  const auto put = [&](auto& tile_a, auto& tile_b) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) tile_a[k][line + i] = next_a[i][0], tile_b[k][line + i] = next_b[i][0];
  };
  T* to = partial + t.out(f, length, count);
  plain_tile<T, kPer>(t.end - t.begin, load, put, [&](int row, int col, T sum) {
    const int m = t.m0 + row, q = t.q0 + col;
    if (m < f.rows && q < count) to[int64_t(m) * count + q] = sum;
  });
}

constexpr int kSumThreads = 128;

// dw from the pieces' sums, (pieces, O, (tap, channel)) to (O, channel, tap).
template <class A>
__global__ void __launch_bounds__(kSumThreads)
    add_pieces(const __grid_constant__ Pass f, const A* partial, int64_t pieces, void* dw) {
  const int64_t terms = int64_t(f.axis[0].kernel) * f.axis[1].kernel * f.axis[2].kernel * f.channels;
  const int64_t size = int64_t(f.groups) * f.rows * terms;
  for (int64_t i = int64_t(blockIdx.x) * kSumThreads + threadIdx.x; i < size; i += int64_t(gridDim.x) * kSumThreads) {
    A sum = 0;
    for (int64_t p = 0; p < pieces; ++p) sum += partial[p * size + i];
    const int64_t row = i / terms, q = i - row * terms, tap = q / f.channels, c = q - tap * f.channels;
    store_any(dw, f.dtype, row * terms + c * (terms / f.channels) + tap, sum);
  }
}

template <class A> void launch_add(const Pass& f, const A* partial, int64_t pieces, void* dw) {
  const int64_t size = int64_t{f.groups} * f.rows * f.terms();
  launch_kernel<add_pieces<A>>(persistent_blocks(ceil_div<int64_t>(size, kSumThreads), 16), kSumThreads, 0,
                               current_stream(), f, partial, pieces, dw);
}

template <class T, class A> void backward_w(const ConvArgs& a) {
  if (device_info().capability == 900 && conv_sm90_backward_w(a)) return;
  Pass f(a, false);
  f.y = static_cast<char*>(const_cast<void*>(a.dy));
  const bool tensor = f.tensor && sizeof(T) < 8, few = few_rows(f), tiled = is_tiled_depthwise(f);
  const int64_t O = a.O, terms = f.terms(), size = O * terms, positions = a.N * f.depth() * f.plane();
  const bool large = f.rows > 64 && (tensor || (sizeof(T) == 4 && terms > 64));
  const int64_t block_m = large ? 128 : 64, block_n = tensor ? 16384 / block_m : block_m;
  const int64_t tiles = few ? O * ceil_div<int64_t>(terms, kDirectTerms)
                            : f.groups * ceil_div<int64_t>(f.rows, block_m) * ceil_div(terms, block_n);
  const int64_t wanted = greatest(ceil_div<int64_t>(512, tiles), positions / 16384);
  const int64_t most = greatest<int64_t>(1, least(ceil_div<int64_t>(positions, 512), (int64_t{1} << 26) / size));
  const auto length = static_cast<uint32_t>(
      least<int64_t>(ceil_div(ceil_div(positions, least(wanted, most)), int64_t{32}) * 32, 1 << 30));
  int64_t pieces = tiled ? conv_depthwise_backward_w(f, a.N, nullptr) : 0, first = 0;
  if (!tiled) for_parts(f, a.N, [&](const Pass& part) { pieces += ceil_div(part.positions, length); });
  const Workspace partial(static_cast<size_t>(pieces * size) * sizeof(A));
  if (tiled) conv_depthwise_backward_w(f, a.N, partial.as<float>());
  else
    for_parts(f, a.N, [&](const Pass& part) {
      A* const to = partial.as<A>() + first * size;
      const uint32_t here = ceil_div(part.positions, length);
      first += here;
      if (few) return conv_direct_backward_w(part, to, length);
      constexpr int kMost = 65535;
      for (int group = 0; group < f.groups; group += kMost) {
        const int groups = least(kMost, f.groups - group);
        const dim3 grid(static_cast<unsigned>(here * (tiles / f.groups)), 1, static_cast<unsigned>(groups));
        const bool rows_aligned = f.y_channel % 8 == 0 && part.steps[0].divisor * f.plane() % 8 == 0 &&
                                  f.cols % 2 == 0 && aligned(part.y, 16);
        if constexpr (sizeof(T) < 8)
          if (tensor) {
            const auto go = [&](auto warps) {
              constexpr int kWarpsM = decltype(warps)::value;
              launch_kernel<backward_w_tensor<T, kWarpsM>>(grid, kTileThreads, TensorTile<T, kWarpsM>::kSharedBytes,
                                                           current_stream(), part, to, length, group, rows_aligned);
            };
            if (large) go(std::integral_constant<int, 2>());
            else go(std::integral_constant<int, 1>());
            continue;
          }
        if constexpr (sizeof(T) > 2) {
          if (large)
            launch_kernel<backward_w_plain<T, sizeof(T) == 4 ? 8 : 4>>(grid, kTileThreads, 0, current_stream(), part,
                                                                       to, length, group);
          else launch_kernel<backward_w_plain<T, 4>>(grid, kTileThreads, 0, current_stream(), part, to, length, group);
        }
      }
    });
  launch_add<A>(f, partial.as<const A>(), pieces, a.y);
}

}  // namespace

void conv_add_pieces(const Pass& f, const float* partial, int64_t pieces, void* dw) {
  launch_add(f, partial, pieces, dw);
}

void conv_backward_w(const ConvArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    backward_w<T, Accumulator<T>>(a);
  });
}

}  // namespace tw::cuda
