// Gradients of attention. With p = softmax, z = dropout's mask / (1 - p_drop), D = sum over columns of dy y:
//
//   dv = (p z)^T dy      ds = p (z (dy v^T) - D)      dq = scale ds k      dk = scale ds^T q
//
// p is computed again from q, k and the row's saved log2 of its sum (+inf where a row sees no key: p and ds are 0), and
// dropout's mask again from its counters, so nothing of size (L, S) exists but one block.
// Method: FlashAttention-2's backward (Dao 2023, arXiv:2307.08691) with no atomics: a launch for D, one whose blocks
// own queries and walk over the keys for dq, one whose blocks own keys and walk over the queries for dk and dv. The
// last two are one kernel: x are the operands of the rows that stay, w those of the rows that come, s = x0 w0^T, dp =
// x1 w1^T, then sum0 += ds w0 and, where the rows are keys, sum1 += p w1. Every item of the batch has a gradient of its
// own; the op sums those of broadcast operands.
// Halves: scores, p and ds in float32, p and ds rounded to the half as operands of the last products, sums in float32
// rounded once. Else all in the accumulator. Error: as the forward's; measured by the op table's row `attention`.
// Operations: dq takes 2 (2 E + Ev) flop a pair of query and key, dk and dv 4 (E + Ev): 7 products against the 5 of one
// pass that adds dq by atomics, which would not be deterministic. Bytes: as the forward's, for each block of 64.
// Tiles of halves: a warp has 16 rows; 64 columns a step for E <= 64, 32 for 128, so that two sums of kE columns and
// two blocks of scores fit 255 registers. 55 and 69 KiB of shared memory. attention_backward_sm90.cu takes what
// it can on Hopper. Not yet timed on a GPU.
#include "kernels/cuda/attention.cuh"

namespace tw::cuda {

void attention_backward_sm90(const AttentionArgs& a);

namespace {

constexpr int kRows = 64;  // of a block: queries or keys that stay
template <int kE> constexpr int kColsOf = kE <= 64 ? 64 : 32;
// Two operands of the rows, two stages of two operands of the columns with lse and D of their queries.
template <int kE> constexpr size_t kSharedBytes = size_t{2 * kRows + 4 * kColsOf<kE>} * (kE + 8) * 2 + 16 * kColsOf<kE>;

// D (items, L), a warp a row.
template <class A>
__global__ void __launch_bounds__(128) attention_delta(const __grid_constant__ AttentionArgs a, int64_t rows, A* D) {
  const int64_t row = int64_t(blockIdx.x) * 4 + threadIdx.x / 32;
  if (row >= rows) return;
  const int64_t number = row / a.L, i = row % a.L;
  const int64_t dy = item_start(a, a.dy, number) + i * a.dy.row, y = item_start(a, a.y, number) + i * a.y.row;
  A sum = 0;
#pragma unroll 4
  for (int64_t c = threadIdx.x % 32; c < a.Ev; c += 32)
    sum = fma(load_any<A>(a.dy.data, a.dtype, dy + c), load_any<A>(a.y.data, a.dtype, y + c), sum);
  sum = reduce_warp<SumOp>(sum);
  if (threadIdx.x % 32 == 0) D[row] = sum;
}

// The columns that rows from `first` on meet.
template <bool kKeys> TW_DEVICE void range_of(const AttentionArgs& a, int64_t first, int64_t* begin, int64_t* end) {
  *begin = kKeys && a.causal ? first : 0;
  *end = kKeys ? a.L : a.causal ? least(a.S, least(a.L, first + kRows)) : a.S;
}

template <class T, int kE, bool kKeys>
__global__ void __launch_bounds__(kWarpsThreads, 2)
    attention_backward_halves(const __grid_constant__ AttentionArgs a, unsigned blocks, const float* D, bool packs,
                              bool packs_out) {
  constexpr int kCols = kColsOf<kE>, N = kCols / 8, kPitch = kE + 8;
  T* const tile_x0 = dynamic_shared<T>();  // (kRows, kPitch)
  T* const tile_x1 = tile_x0 + kRows * kPitch;
  T* const tiles = tile_x1 + kRows * kPitch;                                  // (2 stages, 2, kCols, kPitch)
  float* const stats = reinterpret_cast<float*>(tiles + 4 * kCols * kPitch);  // (2 stages, lse and D, kCols)
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4 * 2;
  float* const room = stats + 4 * kCols + warp * kMaskRoom<N>;
  const unsigned items = gridDim.x / blocks;
  const int64_t number = a.causal ? blockIdx.x % items : blockIdx.x / blocks;
  int64_t block = a.causal ? blockIdx.x / items : blockIdx.x % blocks;
  if (a.causal && !kKeys) block = blocks - 1 - block;  // the longest first
  const BatchedRows &bx0 = kKeys ? a.k : a.q, &bx1 = kKeys ? a.v : a.dy;
  const BatchedRows &bw0 = kKeys ? a.q : a.k, &bw1 = kKeys ? a.dy : a.v;
  const int64_t rows = kKeys ? a.S : a.L, cols = kKeys ? a.L : a.S;
  const T *w0 = item_of<const T>(a, bw0, number), *w1 = item_of<const T>(a, bw1, number);
  const int64_t mask_start = a.mask.data ? item_start(a, a.mask, number) : 0;
  const int64_t first = block * kRows, own = first + 16 * warp;
  int64_t begin, end;
  range_of<kKeys>(a, first, &begin, &end);
  const int steps = end > begin ? int(ceil_div<int64_t>(end - begin, kCols)) : 0;
  const float* const lse = static_cast<const float*>(a.lse) + number * a.L;
  const float* const delta = D + number * a.L;
  const auto tile_w = [&](int step) { return tiles + step % 2 * 2 * kCols * kPitch; };
  const auto load = [&](int step) {
    if (step < steps) {
      const int64_t from = begin + int64_t(step) * kCols;
      fetch_rows<kCols, kE>(tile_w(step), w0, bw0.row, from, cols, a.E, packs);
      fetch_rows<kCols, kE>(tile_w(step) + kCols * kPitch, w1, bw1.row, from, cols, a.Ev, packs);
      if (kKeys && threadIdx.x < kCols) {
        const int64_t i = from + threadIdx.x;
        float* const to = stats + step % 2 * 2 * kCols + threadIdx.x;
        to[0] = i < a.L ? lse[i] : kInfinity<float>;
        to[kCols] = i < a.L ? delta[i] : 0.0f;
      }
    }
    cp_async_commit();
  };
  const float factor = float(a.scale * kLog2E), keep = float(1 / (1 - a.dropout_p));
  float own_lse[2], own_delta[2];  // of queries that stay
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t i = own + g + 8 * h;
    own_lse[h] = !kKeys && i < a.L ? lse[i] : kInfinity<float>;
    own_delta[h] = !kKeys && i < a.L ? delta[i] : 0.0f;
  }

  float sum0[1][kE / 8][4] = {}, sum1[1][kE / 8][4] = {};
  fetch_rows<kRows, kE>(tile_x0, item_of<const T>(a, bx0, number), bx0.row, first, rows, a.E, packs);
  fetch_rows<kRows, kE>(tile_x1, item_of<const T>(a, bx1, number), bx1.row, first, rows, a.Ev, packs);
  load(0);
  for (int step = 0; step < steps; ++step) {
    const int64_t c0 = begin + int64_t(step) * kCols;
    cp_async_wait<0>();
    __syncthreads();  // the block of columns is there, and nobody reads the one before
    load(step + 1);
    if (own >= rows || (a.causal && (kKeys ? c0 + kCols - 1 < own : c0 > own + 15))) continue;

    float s[1][N][4] = {}, dp[1][N][4] = {};
    multiply_along<kE>(s, tile_x0 + 16 * warp * kPitch, tile_w(step));
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) s[0][n][r] *= factor;
    mask_scores<kKeys>(a, mask_start, own, c0, room, s[0]);
    multiply_along<kE>(dp, tile_x1 + 16 * warp * kPitch, tile_w(step) + kCols * kPitch);
    const uint32_t dropped = a.dropout_p > 0 ? dropped_scores<kKeys, N>(a, number, own, c0) : 0;
    const float* const of_cols = stats + step % 2 * 2 * kCols;
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int c = 8 * n + t + r % 2;
        const float l = kKeys ? of_cols[c] : own_lse[r / 2], d = kKeys ? of_cols[kCols + c] : own_delta[r / 2];
        const bool gone = dropped >> (4 * n + r) & 1;
        const float p = exp2_flush(s[0][n][r] - l);
        s[0][n][r] = gone ? 0.0f : p;
        dp[0][n][r] = p * ((gone ? 0.0f : dp[0][n][r] * keep) - d);
      }
    uint32_t weights[1][N / 2][4];
    if (kKeys && a.dv.data) {
      to_fragments<T>(weights[0], s[0]);
      multiply_across<kE>(sum1, weights, tile_w(step) + kCols * kPitch);
    }
    to_fragments<T>(weights[0], dp[0]);
    multiply_across<kE>(sum0, weights, tile_w(step));
  }
  cp_async_wait<0>();
  __syncthreads();  // rows that nobody multiplied have come as well
  if (own >= rows) return;
  // The warp's rows of both operands have done their work.
  const BatchedRows& dx0 = kKeys ? a.dk : a.dq;
  T *const out0 = tile_x0 + 16 * warp * kPitch, *const out1 = tile_x1 + 16 * warp * kPitch;
  to_tile(out0, sum0[0], float(a.scale), float(a.scale));
  if (kKeys) to_tile(out1, sum1[0], keep, keep);
  __syncwarp();
  if (dx0.data) store_rows<kE>(item_of<T>(a, dx0, number), dx0.row, own, rows, a.E, out0, 16, packs_out);
  if (kKeys && a.dv.data) store_rows<kE>(item_of<T>(a, a.dv, number), a.dv.row, own, rows, a.Ev, out1, 16, packs_out);
}

// blockIdx.y takes 64 columns of the gradients.
template <class A, bool kKeys>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_backward_tiles(const __grid_constant__ AttentionArgs a, unsigned blocks, const A* D) {
  A* const room = dynamic_shared<A>();
  const int64_t number = blockIdx.x / blocks, first = int64_t(blockIdx.x % blocks) * kTile;
  const int64_t mask_start = a.mask.data ? item_start(a, a.mask, number) : 0;
  const Operand<A> q = operand_of<A>(a, a.q, number, a.L, a.E), k = operand_of<A>(a, a.k, number, a.S, a.E);
  const Operand<A> dy = operand_of<A>(a, a.dy, number, a.L, a.Ev), v = operand_of<A>(a, a.v, number, a.S, a.Ev);
  const Operand<A>&x0 = kKeys ? k : q, &x1 = kKeys ? v : dy, &w0 = kKeys ? q : k, &w1 = kKeys ? dy : v;
  const int64_t c0 = int64_t(blockIdx.y) * kTile, row = first + threadIdx.x / 16 * 4;
  const A* const lse = static_cast<const A*>(a.lse) + number * a.L;
  const A* const delta = D + number * a.L;
  const bool active = first + threadIdx.x / 32 * 8 < x0.rows;
  const uint32_t threshold = bernoulli_threshold(a.dropout_p);
  const A factor = A(a.scale * kLog2E), keep = A(1 / (1 - a.dropout_p));
  int64_t begin, end;
  range_of<kKeys>(a, first, &begin, &end);
  A sum0[4][4] = {}, sum1[4][4] = {};
  for (int64_t from = begin; from < end; from += kTile) {
    const int64_t col = from + threadIdx.x % 16 * 4;
    A s[4][4] = {}, dp[4][4] = {};
    tile_along(s, x0, first, w0, from, room);
    tile_along(dp, x1, first, w1, from, room);
    if (active) {
      unsigned dropped = 0;  // four keys of each of four queries, which are rows or columns
      if (a.dropout_p > 0) {
#pragma unroll 1
        for (int i = 0; i < 4; ++i)
          dropped |= dropped_of(a, threshold, number * a.L + (kKeys ? col : row) + i, (kKeys ? row : col) / 4) << 4 * i;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t query = kKeys ? col + j : row + i, key = kKeys ? row + i : col + j;
          const A l = query < a.L ? lse[query] : kInfinity<A>, d = query < a.L ? delta[query] : A(0);
          const A p = exp2(finish_score(a, mask_start, query, key, factor, s[i][j]) - l);
          const bool gone = dropped >> (kKeys ? 4 * j + i : 4 * i + j) & 1;
          s[i][j] = gone ? A(0) : p;
          dp[i][j] = p * ((gone ? A(0) : dp[i][j] * keep) - d);
        }
    }
    if (kKeys && a.dv.data) {
      put_weights(room, s);
      tile_across(sum1, w1, from, c0, room, active);
    }
    put_weights(room, dp);
    tile_across(sum0, w0, from, c0, room, active);
  }
  const BatchedRows& dx0 = kKeys ? a.dk : a.dq;
  const A scale = A(a.scale), scales[4] = {scale, scale, scale, scale}, keeps[4] = {keep, keep, keep, keep};
  if (dx0.data) store_tile(a, dx0, number, first, x0.rows, c0, a.E, sum0, scales);
  if (kKeys && a.dv.data) store_tile(a, a.dv, number, first, a.S, c0, a.Ev, sum1, keeps);
}

template <class T, int kE, bool kKeys> void launch_halves(const AttentionArgs& a, const float* D) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(kKeys ? a.S : a.L, kRows));
  bool packs_out = true;
  for (const BatchedRows* r : {&a.dq, &a.dk, &a.dv}) packs_out &= !r->data || rows_in_packs(a, {r});
  const size_t room = a.mask.data ? size_t{4} * kMaskRoom<kColsOf<kE> / 8> * sizeof(float) : 0;
  launch_kernel<attention_backward_halves<T, kE, kKeys>>(static_cast<unsigned>(blocks * items_of(a)), kWarpsThreads,
                                                         kSharedBytes<kE> + room, current_stream(), a, blocks, D,
                                                         rows_in_packs(a, {&a.q, &a.k, &a.v, &a.dy}), packs_out);
}
template <class A, bool kKeys> void launch_tiles(const AttentionArgs& a, const A* D) {
  static_assert(kRows == kTile);
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(kKeys ? a.S : a.L, kRows));
  const int64_t cols = kKeys ? greatest(a.E, a.Ev) : a.E;
  const dim3 grid(static_cast<unsigned>(blocks * items_of(a)), static_cast<unsigned>(ceil_div<int64_t>(cols, kTile)));
  launch_kernel<attention_backward_tiles<A, kKeys>>(grid, kTileThreads, kTileBytes<A>, current_stream(), a, blocks, D);
}

template <class A, class F> void both(const AttentionArgs& a, const F& pass) {
  const int64_t rows = items_of(a) * a.L;
  const Workspace D(static_cast<size_t>(rows) * sizeof(A));
  launch_kernel<attention_delta<A>>(static_cast<unsigned>(ceil_div<int64_t>(rows, 4)), 128, 0, current_stream(), a,
                                    rows, D.template as<A>());
  if (a.dq.data) pass(std::false_type(), D.template as<A>());
  if (a.dk.data || a.dv.data) pass(std::true_type(), D.template as<A>());
}
template <class T> void halves(const AttentionArgs& a) {
  both<float>(a, [&](auto keys, const float* D) {
    if (a.E <= 64 && a.Ev <= 64) launch_halves<T, 64, decltype(keys)::value>(a, D);
    else launch_halves<T, 128, decltype(keys)::value>(a, D);
  });
}
template <class A> void tiles(const AttentionArgs& a) {
  both<A>(a, [&](auto keys, const A* D) { launch_tiles<A, decltype(keys)::value>(a, D); });
}

}  // namespace

void attention_backward(const AttentionArgs& a) {
  const bool small = a.E <= 128 && a.Ev <= 128;
  if (a.dtype == DType::kFloat64) return tiles<double>(a);
  if (for_wgmma(a)) return attention_backward_sm90(a);
  if (a.dtype == DType::kFloat16 && small) return halves<float16>(a);
  if (a.dtype == DType::kBFloat16 && small) return halves<bfloat16>(a);
  tiles<float>(a);
}

}  // namespace tw::cuda
