// Attention: y = dropout(softmax(scale q k^T + mask)) v, blocks of the (L, S) scores at a time and never all of them.
//
// float16 and bfloat16 of up to 128 columns go through the tensor cores, with scores, maxima and sums in float32; the
// weights 2^(s - m) are rounded to the half before they meet v. float32 and float64, and halves of more columns, are
// computed in their accumulator throughout. A query that sees no key gives 0 and lse +inf. Keys that `causal` hides
// from a whole block of queries are not visited. Dropout's bits are the CPU's.
// Error: a score's is 2^-24 (E + 4) max |q| |k| scale; the weights' rounding adds at most half an ulp of the half at
// the largest |v|; measured by the op table's rows `attention` and `attention_mask`.
// Method: FlashAttention-2 (Dao 2023, arXiv:2307.08691): queries stay, blocks of keys come by cp.async while the block
// before is multiplied, and the running maximum and sum (Milakov and Gimelshein 2018, arXiv:1805.02867) belong to four
// neighbouring lanes.
// Operations: 2 (E + Ev) flop and one exponential for each pair of query and key, which at E = Ev = 64 take 1 / 8 clock
// of an SM's 2048 flop of mma.sync (sm_80) and 1 / 16 of its 16 exponentials. Bytes: k and v come from L2 once for 128
// queries, 4 (E + Ev) / 256 a pair, 128 flop a byte. attention_sm90.cu takes what it can on Hopper.
// Tiles: a warp has 32 queries, so that each fragment of k and v, which ldmatrix reads, serves two mma of rows: 1.25
// clocks of shared memory for 2 of mma. 64 keys a step for E <= 64, 32 for 128, keep scores and sums within 255
// registers, two blocks of 128 threads an SM: 54 or 68 KiB of shared memory each. q is read again from there every
// step: to hold it would cost 32 or 64 registers and save a third of the score's reads. Not yet timed on a GPU.
#include "kernels/cuda/attention.cuh"

namespace tw::cuda {

void attention_sm90(const AttentionArgs& a);

namespace {

constexpr int kQueries = 128;
template <int kE> constexpr int kKeysOf = kE <= 64 ? 64 : 32;
template <int kE> constexpr size_t kSharedBytes = size_t{kQueries + 4 * kKeysOf<kE>} * (kE + 8) * 2;

template <class T, int kE>
__global__ void __launch_bounds__(kWarpsThreads, 2)
    attention_halves(const __grid_constant__ AttentionArgs a, unsigned blocks, bool packs, bool packs_out) {
  constexpr int kKeys = kKeysOf<kE>, N = kKeys / 8, kPitch = kE + 8;
  T* const tile_q = dynamic_shared<T>();        // (kQueries, kPitch)
  T* const tiles = tile_q + kQueries * kPitch;  // (2 stages, k and v, kKeys, kPitch)
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* const room = reinterpret_cast<float*>(tiles + 4 * kKeys * kPitch) + warp * kMaskRoom<N>;
  const unsigned items = gridDim.x / blocks;
  // causal: the longest first, all over the device; else blocks of one item side by side, who share its keys.
  const int64_t number = a.causal ? blockIdx.x % items : blockIdx.x / blocks;
  const int64_t block = a.causal ? blocks - 1 - blockIdx.x / items : blockIdx.x % blocks;
  const T *q = item_of<const T>(a, a.q, number), *k = item_of<const T>(a, a.k, number);
  const T* v = item_of<const T>(a, a.v, number);
  const int64_t mask_start = a.mask.data ? item_start(a, a.mask, number) : 0;
  const int64_t first = block * kQueries, own = first + 32 * warp;  // queries of the block, of the warp
  const int64_t seen = a.causal ? least(a.S, least(a.L, first + kQueries)) : a.S;
  const int steps = int(ceil_div<int64_t>(seen, kKeys));
  const auto tile_k = [&](int step) { return tiles + step % 2 * 2 * kKeys * kPitch; };
  const auto tile_v = [&](int step) { return tile_k(step) + kKeys * kPitch; };
  const auto load = [&](int step) {
    if (step < steps) {
      fetch_rows<kKeys, kE>(tile_k(step), k, a.k.row, int64_t(step) * kKeys, a.S, a.E, packs);
      fetch_rows<kKeys, kE>(tile_v(step), v, a.v.row, int64_t(step) * kKeys, a.S, a.Ev, packs);
    }
    cp_async_commit();
  };
  const float factor = float(a.scale * kLog2E);

  float acc[2][kE / 8][4] = {}, top[2][2], total[2][2] = {};  // of rows g and g + 8 of two tiles of 16
#pragma unroll
  for (int i = 0; i < 4; ++i) top[i / 2][i % 2] = -kInfinity<float>;
  fetch_rows<kQueries, kE>(tile_q, q, a.q.row, first, a.L, a.E, packs);
  load(0);
  for (int step = 0; step < steps; ++step) {
    const int64_t j0 = int64_t(step) * kKeys;
    cp_async_wait<0>();
    __syncthreads();  // the block of keys is there, and nobody reads the one before
    load(step + 1);
    if (own >= a.L || (a.causal && j0 > own + 31)) continue;

    float s[2][N][4] = {};
    multiply_along<kE>(s, tile_q + 32 * warp * kPitch, tile_k(step));
    uint32_t p[2][N / 2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int r = 0; r < 4; ++r) s[i][n][r] *= factor;
      mask_scores<false>(a, mask_start, own + 16 * i, j0, room, s[i]);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float high = top[i][h];
#pragma unroll
        for (int n = 0; n < N; ++n) high = ::fmaxf(high, ::fmaxf(s[i][n][2 * h], s[i][n][2 * h + 1]));
        high = ::fmaxf(high, __shfl_xor_sync(kFullMask, high, 1));
        high = ::fmaxf(high, __shfl_xor_sync(kFullMask, high, 2));
        const float base = high == -kInfinity<float> ? 0.0f : high;  // a query that has seen no key yet
        const float shrink = exp2_flush(top[i][h] - base);
        top[i][h] = high;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < N; ++n) {
          s[i][n][2 * h] = exp2_flush(s[i][n][2 * h] - base);
          s[i][n][2 * h + 1] = exp2_flush(s[i][n][2 * h + 1] - base);
          sum += s[i][n][2 * h] + s[i][n][2 * h + 1];
        }
        total[i][h] = fma(total[i][h], shrink, sum);
#pragma unroll
        for (int n = 0; n < kE / 8; ++n) acc[i][n][2 * h] *= shrink, acc[i][n][2 * h + 1] *= shrink;
      }
      if (a.dropout_p > 0) {
        const uint32_t dropped = dropped_scores<false, N>(a, number, own + 16 * i, j0);
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int r = 0; r < 4; ++r)
            if (dropped >> (4 * n + r) & 1) s[i][n][r] = 0;
      }
      to_fragments<T>(p[i], s[i]);
    }
    multiply_across<kE>(acc, p, tile_v(step));
  }
  cp_async_wait<0>();
  __syncwarp();
  if (own >= a.L) return;
  T* const out = tile_q + 32 * warp * kPitch;  // the warp's own queries have done their work
  const float keep = float(1 - a.dropout_p);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[i][h];
      sum += __shfl_xor_sync(kFullMask, sum, 1);
      sum += __shfl_xor_sync(kFullMask, sum, 2);
      const int64_t row = own + 16 * i + 8 * h + lane / 4;
      if (lane % 4 == 0 && row < a.L)
        static_cast<float*>(a.lse)[number * a.L + row] = sum == 0 ? kInfinity<float> : top[i][h] + log2(sum);
      inverse[h] = sum == 0 || keep == 0 ? 0.0f : 1.0f / (sum * keep);
    }
    to_tile(out + 16 * i * kPitch, acc[i], inverse[0], inverse[1]);
  }
  __syncwarp();
  store_rows<kE>(item_of<T>(a, a.y, number), a.y.row, own, a.L, a.Ev, out, 32, packs_out);
}

// 64 queries a block; blockIdx.y takes 64 columns of y.
template <class A>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_tiles(const __grid_constant__ AttentionArgs a, unsigned blocks) {
  A* const room = dynamic_shared<A>();
  const int64_t number = blockIdx.x / blocks, first = int64_t(blockIdx.x % blocks) * kTile;
  const int64_t mask_start = a.mask.data ? item_start(a, a.mask, number) : 0;
  const Operand<A> q = operand_of<A>(a, a.q, number, a.L, a.E), k = operand_of<A>(a, a.k, number, a.S, a.E);
  const Operand<A> v = operand_of<A>(a, a.v, number, a.S, a.Ev);
  const int64_t c0 = int64_t(blockIdx.y) * kTile, row = first + threadIdx.x / 16 * 4;
  const int64_t seen = a.causal ? least(a.S, least(a.L, first + kTile)) : a.S;
  const bool active = first + threadIdx.x / 32 * 8 < a.L;
  const uint32_t threshold = bernoulli_threshold(a.dropout_p);
  const A factor = A(a.scale * kLog2E);
  A acc[4][4] = {}, top[4], total[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) top[i] = -kInfinity<A>;
  for (int64_t j0 = 0; j0 < seen; j0 += kTile) {
    const int64_t col = j0 + threadIdx.x % 16 * 4;
    A s[4][4] = {};
    tile_along(s, q, first, k, j0, room);
    if (active) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // the 16 threads of a row are half a warp
        A high = -kInfinity<A>, sum = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          s[i][j] = finish_score(a, mask_start, row + i, col + j, factor, s[i][j]);
          high = s[i][j] > high ? s[i][j] : high;
        }
        for (int step = 8; step > 0; step /= 2) {
          const A other = __shfl_xor_sync(kFullMask, high, step);
          high = other > high ? other : high;
        }
        high = top[i] > high ? top[i] : high;
        const A base = high == -kInfinity<A> ? A(0) : high, shrink = exp2(top[i] - base);
        top[i] = high;
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += s[i][j] = exp2(s[i][j] - base);
        total[i] = fma(total[i], shrink, sum);
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] *= shrink;
        if (a.dropout_p > 0) {
          const unsigned dropped = dropped_of(a, threshold, number * a.L + row + i, col / 4);
#pragma unroll
          for (int j = 0; j < 4; ++j)
            if (dropped >> j & 1) s[i][j] = 0;
        }
      }
    }
    put_weights(room, s);
    tile_across(acc, v, j0, c0, room, active);
  }
  if (!active) return;
  const A keep = A(1 - a.dropout_p);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    for (int step = 8; step > 0; step /= 2) total[i] += __shfl_xor_sync(kFullMask, total[i], step);
    if (blockIdx.y == 0 && threadIdx.x % 16 == 0 && row + i < a.L)
      static_cast<A*>(a.lse)[number * a.L + row + i] = total[i] == A(0) ? kInfinity<A> : top[i] + log2(total[i]);
    total[i] = total[i] == A(0) || keep == A(0) ? A(0) : A(1) / (total[i] * keep);
  }
  store_tile(a, a.y, number, first, a.L, c0, a.Ev, acc, total);
}

template <class T, int kE> void launch_halves(const AttentionArgs& a) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.L, kQueries));
  const bool packs = rows_in_packs(a, {&a.q, &a.k, &a.v}), packs_out = rows_in_packs(a, {&a.y});
  const size_t room = a.mask.data ? size_t{4} * kMaskRoom<kKeysOf<kE> / 8> * sizeof(float) : 0;
  launch_kernel<attention_halves<T, kE>>(static_cast<unsigned>(blocks * items_of(a)), kWarpsThreads,
                                         kSharedBytes<kE> + room, current_stream(), a, blocks, packs, packs_out);
}
template <class T> void halves(const AttentionArgs& a) {
  if (a.E <= 64 && a.Ev <= 64) launch_halves<T, 64>(a);
  else launch_halves<T, 128>(a);
}
template <class A> void tiles(const AttentionArgs& a) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.L, kTile));
  const dim3 grid(static_cast<unsigned>(blocks * items_of(a)), static_cast<unsigned>(ceil_div<int64_t>(a.Ev, kTile)));
  launch_kernel<attention_tiles<A>>(grid, kTileThreads, kTileBytes<A>, current_stream(), a, blocks);
}

}  // namespace

void attention(const AttentionArgs& a) {
  const bool small = a.E <= 128 && a.Ev <= 128;
  if (a.dtype == DType::kFloat64) return tiles<double>(a);
  if (for_wgmma(a)) return attention_sm90(a);
  if (a.dtype == DType::kFloat16 && small) return halves<float16>(a);
  if (a.dtype == DType::kBFloat16 && small) return halves<bfloat16>(a);
  tiles<float>(a);
}

}  // namespace tw::cuda
