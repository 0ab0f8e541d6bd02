// Gradients of attention of halves on sm_90a, for what attention_sm90.cu takes: dv = p^T dy, ds = p (dy v^T - D),
// dq = scale ds k, dk = scale ds^T q, where p = 2^(score - lse) and D = sum over columns of dy y.
//
// Semantics are attention_backward.cu's. Scores, p, ds and sums are float32; p and ds are rounded to the half as
// operands of the last products. Error, with u half an ulp of the half: u (sum of |p dy|, of |scale ds k|), u of the
// result, and what float32 does to scores; measured term by term by tests/test_hopper.py::test_hopper_attention.
// Method: FlashAttention-2's recurrences (Dao 2023, arXiv:2307.08691) in FlashAttention-3's manner (Shah et al. 2024,
// arXiv:2407.08608): one thread brings tiles by TMA into a ring, two warpgroups multiply, and products of one step run
// behind the exponentials of the next. Bits must not depend on the order of blocks. A pair of query and key then takes,
// in clocks of one multiprocessor (4096 flop of wgmma, some 14 bytes of memory) for E = 128:
//   seven products: dk and dv by blocks that own keys, dq by blocks that own queries. 14 E / 4096: 0.44
//   five, a dq of each block of keys in memory, added later in order. 10 E / 4096: 0.31, but 8 E / 128 bytes: 0.55
//   five, blocks add to dq in turn. 0.31 and the wait for one's turn, which takes up to 38 percent of
//   FlashAttention-3's speed (Qiang et al. 2026, arXiv:2601.21824); seven for five take 29
// so seven it is, which need neither float32 copies of dq nor blocks that wait for blocks.
// Tiles: 128 rows that stay, 64 a warpgroup, and 64 that come a step, four stages: 98 KiB of shared memory for E = 64,
// 194 for 128. The rows' operands are held in registers, so that a product reads 64 bytes of shared memory a clock, of
// 128 that there are; not so for dk and dv of E = 128, whose sums take 128 registers: 96 bytes a clock, no room for
// the step before, and only the other warpgroup's products run behind the exponentials. Of a thread's 240 registers,
// sums + scores + operands: E = 64 keys 64 + 64 + 64, queries 32 + 64 + 48; E = 128 keys 128 + 64 + 32, queries
// 64 + 64 + 80.
// Operations: 8 E flop a pair for dk and dv, 6 E for dq, and an exponential (16 a clock) each. Products take E / 512
// and E / 683 clocks a pair, the exponential 1 / 16, 5 more instructions 1 / 26. Bytes: two operands from L2 for 128
// rows, E / 32 a pair: 256 and 192 flop a byte, 16 and 21 bytes a clock.
// Expected: 14 E / 4096 clocks a pair and multiprocessor if the tensor cores never wait, 5 / 7 of their peak by the
// usual count of five products; the first tiles' arrival and the way out (some 2500 clocks a block), barriers and steps
// cut by causal leave perhaps 0.7 of that, half the peak by five. Not yet timed on a GPU.
#include "kernels/cuda/attention_sm90.cuh"

namespace tw::cuda {

void attention_backward_sm90(const AttentionArgs& a);

namespace {

constexpr int kRows = 128, kCols = 64, kStages = 4, kThreads = 384;
constexpr int kStats = 2 * kCols;  // floats a stage: lse, then D of its queries
template <int kE> constexpr size_t kSharedBytes = size_t{2} * (kRows + kStages * kCols) * kE * 2 + kStages * kStats * 4;
enum Bar { kFullX, kFull, kEmpty = kFull + kStages, kBars = kEmpty + kStages };

struct Operands {
  Panels q, k, v, dy;
  TensorMap stats;
};

// stats (items, 2, rows): lse and D of each query; rows is a multiple of kRows, +inf and 0 past the last query.
template <class T, int kE>
__global__ void __launch_bounds__(128)
    attention_stats(const __grid_constant__ AttentionArgs a, unsigned blocks, float* stats, bool packs) {
  constexpr int kThreadsOfRow = kE / 8;
  const int64_t number = blockIdx.x / blocks, rows = int64_t(blocks) * kRows;
  const T *y = item_of<const T>(a, a.y, number), *dy = item_of<const T>(a, a.dy, number);
  const float* const lse = static_cast<const float*>(a.lse) + number * a.L;
  float* const to = stats + 2 * number * rows;
  const int c = threadIdx.x % kThreadsOfRow * 8;
#pragma unroll 4
  for (int r = threadIdx.x / kThreadsOfRow; r < kRows; r += 128 / kThreadsOfRow) {
    const int64_t i = int64_t(blockIdx.x % blocks) * kRows + r;
    float u[8] = {}, w[8] = {}, sum = 0;
    if (i < a.L) {
      load_pack(u, y + i * a.y.row, c, kE, packs, 0.0f);
      load_pack(w, dy + i * a.dy.row, c, kE, packs, 0.0f);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) sum = fma(u[j], w[j], sum);
#pragma unroll
    for (int step = kThreadsOfRow / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kFullMask, sum, step);
    if (c == 0) to[i] = i < a.L ? lse[i] : kInfinity<float>, to[rows + i] = sum;
  }
}

// Rows of x0 and x1 stay, those of w0 and w1 come: q, dy, k, v for dq, and k, v, q, dy for dk and dv (kKeys).
template <class T, int kE, bool kKeys>
__global__ void __launch_bounds__(kThreads, 1)
    attention_backward_wgmma(const __grid_constant__ AttentionArgs a, const __grid_constant__ Operands from,
                             unsigned blocks, const float* stats, int64_t padded, bool pairs) {
  constexpr int kTileX = kRows * kE, kTileW = kCols * kE;
  constexpr bool kHold = !kKeys || kE == 64;  // registers for x0 and x1, and for operands of the step before
  T* const tile_x = dynamic_shared<T>();      // (x0 and x1)
  T* const tiles = tile_x + 2 * kTileX;       // (kStages, w0 and w1)
  float* const of_cols = reinterpret_cast<float*>(tiles + 2 * kStages * kTileW);
  TW_SHARED(bars, uint64_t[kBars]);
  const unsigned items = gridDim.x / blocks;
  const int64_t number = a.causal ? blockIdx.x % items : blockIdx.x / blocks;
  int64_t block = a.causal ? blockIdx.x / items : blockIdx.x % blocks;
  if (a.causal && !kKeys) block = blocks - 1 - block;  // the longest first
  const int64_t rows = kKeys ? a.S : a.L, first = block * kRows, begin = kKeys && a.causal ? first : 0;
  const int64_t end = kKeys ? a.L : a.causal ? least(a.S, least(a.L, first + kRows)) : a.S;
  const int steps = end > begin ? int(ceil_div<int64_t>(end - begin, kCols)) : 0;
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    mbarrier_init(bars + kFullX, 2);
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(bars + kFull + i, kKeys ? 3 : 2);
      mbarrier_init(bars + kEmpty + i, first + 64 < rows ? 8 : 4);  // warps that multiply
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  if (group == 0) {
    lower_registers<24>();
    if (threadIdx.x > 0) return;
    load_panels<kE, kRows, 64>(tile_x, kKeys ? from.k : from.q, bars + kFullX, number, first);
    load_panels<kE, kRows, 64>(tile_x + kTileX, kKeys ? from.v : from.dy, bars + kFullX, number, first);
    for (int step = 0; step < steps; ++step) {
      const int stage = step % kStages;
      const int64_t at = begin + int64_t(step) * kCols;
      uint64_t* const full = bars + kFull + stage;
      T* const tile = tiles + 2 * stage * kTileW;
      if (step >= kStages) mbarrier_wait(bars + kEmpty + stage, (step / kStages - 1) % 2);
      load_panels<kE, kCols, 64>(tile, kKeys ? from.q : from.k, full, number, at);
      if (kKeys) {
        mbarrier_expect(full, kStats * 4);
        tma_load(of_cols + stage * kStats, from.stats, full, {int(at), int(2 * number)});
      }
      load_panels<kE, kCols, 64>(tile + kTileW, kKeys ? from.dy : from.v, full, number, at);
    }
    return;
  }
  raise_registers<240>();
  const int64_t own = first + 64 * (group - 1), row = own + 16 * warp + lane / 4;  // the thread's: row and row + 8
  if (own >= rows) return;
  // A block of columns that causal hides from all 64 rows is the first, or the last.
  const int start = kKeys && a.causal ? least(steps, group - 1) : 0;
  const int stop = !kKeys && a.causal ? int(least<int64_t>(steps, own / kCols + 1)) : steps;
  const float factor = float(a.scale * kLog2E);
  float s[kCols / 2], dp[kCols / 2], sum0[kE / 2] = {}, own_lse[2], own_delta[2];
  [[maybe_unused]] float sum1[kE / 2] = {};
  uint32_t ds[kCols / 16][4];
  [[maybe_unused]] uint32_t p[kCols / 16][4], x[2][kE / 16][4];

  const auto scores = [&](float(&d)[kCols / 2], const uint32_t(&held)[kE / 16][4], int which, int step) {
    const T* const at = tile_x + which * kTileX + (group - 1) * 64 * 64;
    const T* const w = tiles + (step % kStages * 2 + which) * kTileW;
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kE / 16; ++i) {
      const uint64_t b = wgmma_descriptor(w + i / 4 * kCols * 64 + i % 4 * 16, 16, 1024, 128);
      if constexpr (kHold) wgmma<T, kCols>(d, held[i], b, i > 0);
      else wgmma<T, kCols>(d, wgmma_descriptor(at + i / 4 * kRows * 64 + i % 4 * 16, 16, 1024, 128), b, i > 0);
    }
    wgmma_commit();
  };
  const auto arrived = [&](int step) { mbarrier_wait(bars + kFull + step % kStages, step / kStages % 2); };
  const auto multiply_x = [&](int step) {  // s = x0 w0^T and dp = x1 w1^T, behind the scenes
    arrived(step);
    scores(s, x[0], 0, step);
    scores(dp, x[1], 1, step);
  };
  const auto add = [&](float(&sum)[kE / 2], const uint32_t(&f)[kCols / 16][4], int which, int step) {  // sum += f w
    const T* const w = tiles + (step % kStages * 2 + which) * kTileW;
#pragma unroll
    for (int i = 0; i < kCols / 16; ++i)
      wgmma<T, kE, true>(sum, f[i], wgmma_descriptor(w + i * 16 * 64, 2 * kCols * 64, 1024, 128), true);
  };
  const auto release = [&](int step) {
    __syncwarp();
    if (lane == 0) mbarrier_arrive(bars + kEmpty + step % kStages);
  };
  const auto hide = [&](int64_t c0) {  // what is past the last key or not yet seen
    if (kKeys ? !a.causal || c0 > own : c0 + kCols <= a.S && (!a.causal || c0 + kCols - 1 <= own)) return;
    int edge[2];
#pragma unroll
    for (int h = 0; h < 2; ++h)
      edge[h] =
          kKeys ? int(row + 8 * h - c0) : int(least<int64_t>(kCols, least(a.S, a.causal ? row + 8 * h + 1 : a.S) - c0));
#pragma unroll
    for (int i = 0; i < kCols / 2; ++i) {
      const int c = i / 4 * 8 + lane % 4 * 2 + i % 2;
      if (kKeys ? c < edge[i / 2 % 2] : c >= edge[i / 2 % 2]) s[i] = -kInfinity<float>;
    }
  };
  const auto weigh = [&](int step) {  // s becomes p
    wgmma_hold(s);
    hide(begin + int64_t(step) * kCols);
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      Vector<float, 2> l{};
      if constexpr (kKeys) l = load_vector<2>(of_cols + step % kStages * kStats + 8 * j + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < 4; ++r)
        s[4 * j + r] = exp2_flush(fma(s[4 * j + r], factor, -(kKeys ? l[r % 2] : own_lse[r / 2])));
    }
  };
  const auto derive = [&](int step) {  // dp becomes ds
    wgmma_hold(dp);
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
      Vector<float, 2> d{};
      if constexpr (kKeys) d = load_vector<2>(of_cols + step % kStages * kStats + kCols + 8 * j + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < 4; ++r)
        dp[4 * j + r] = s[4 * j + r] * (dp[4 * j + r] - (kKeys ? d[r % 2] : own_delta[r / 2]));
    }
  };
  const auto round = [&](uint32_t(&f)[kCols / 16][4], const float(&from)[kCols / 2]) {
#pragma unroll
    for (int i = 0; i < kCols / 8 * 2; ++i) f[i / 4][i % 4] = round_pair<T>(from[2 * i], from[2 * i + 1]);
  };

  if constexpr (!kKeys) {
    const float* const of_row = stats + 2 * number * padded + row;
#pragma unroll
    for (int h = 0; h < 2; ++h) own_lse[h] = of_row[8 * h], own_delta[h] = of_row[padded + 8 * h];
  }
  mbarrier_wait(bars + kFullX, 0);
  if constexpr (kHold) {
    const int r = 64 * (group - 1) + 16 * warp + lane % 16;
#pragma unroll
    for (int which = 0; which < 2; ++which)
#pragma unroll
      for (int i = 0; i < kE / 16; ++i)
        ldmatrix<4>(x[which][i],
                    tile_x + which * kTileX + i / 4 * kRows * 64 + r * 64 + ((i % 4 * 2 + lane / 16) ^ r % 8) * 8);
  }
  for (int step = 0; step < start; ++step) {  // waited for: a barrier's parity tells two phases apart, not three
    arrived(step);
    release(step);
  }
  if constexpr (kHold) {  // what a step adds runs behind the exponentials of the next
    const auto settle = [&](int step) {
      wgmma_wait<2>();
      weigh(step);
      wgmma_wait<1>();
      derive(step);
      wgmma_wait<0>();
      if (step > start) release(step - 1);
      if constexpr (kKeys) round(p, s);
      round(ds, dp);
    };
    const auto multiply_w = [&](int step) {
      wgmma_fence();
      if constexpr (kKeys) add(sum1, p, 1, step);
      add(sum0, ds, 0, step);
      wgmma_commit();
    };
    if (start < stop) {
      multiply_x(start);
      wgmma_commit();  // of nothing, so that settle() has its three groups
      settle(start);
      for (int step = start + 1; step < stop; ++step) {
        multiply_x(step);
        multiply_w(step - 1);
        settle(step);
      }
      multiply_w(stop - 1);
    }
  } else {
    for (int step = start; step < stop; ++step) {
      multiply_x(step);
      wgmma_wait<1>();
      weigh(step);
      round(p, s);
      wgmma_fence();
      add(sum1, p, 1, step);
      wgmma_commit();
      wgmma_wait<1>();
      derive(step);
      round(ds, dp);
      wgmma_fence();
      add(sum0, ds, 0, step);
      wgmma_commit();
      wgmma_wait<0>();
      release(step);
    }
  }
  wgmma_wait<0>();
  wgmma_hold(sum0);
  if constexpr (kKeys) wgmma_hold(sum1);
  const BatchedRows& dx0 = kKeys ? a.dk : a.dq;
  const float scale = float(a.scale);
  if (dx0.data) store_sums(item_of<T>(a, dx0, number), dx0.row, row, rows, sum0, scale, scale, pairs);
  if constexpr (kKeys)
    if (a.dv.data) store_sums(item_of<T>(a, a.dv, number), a.dv.row, row, rows, sum1, 1.0f, 1.0f, pairs);
}

template <class T, int kE> void run(const AttentionArgs& a) {
  const auto items = static_cast<unsigned>(items_of(a));
  const auto blocks_q = static_cast<unsigned>(ceil_div<int64_t>(a.L, kRows));
  const auto blocks_k = static_cast<unsigned>(ceil_div<int64_t>(a.S, kRows));
  const int64_t padded = int64_t{blocks_q} * kRows;
  const Workspace room(size_t{2} * items * static_cast<size_t>(padded) * sizeof(float));
  float* const stats = room.as<float>();
  launch_kernel<attention_stats<T, kE>>(items * blocks_q, 128, 0, current_stream(), a, blocks_q, stats,
                                        rows_in_packs(a, {&a.y, &a.dy}));
  Operands from;
  std::optional<Workspace> rooms[4];
  const int64_t sizes[2] = {padded, int64_t{2} * items}, strides[1] = {4 * padded};
  const int box[2] = {kCols, 2};
  if (!make_panels(&from.q, a, a.q, a.L, 64, &rooms[0]) || !make_panels(&from.k, a, a.k, a.S, 64, &rooms[1]) ||
      !make_panels(&from.v, a, a.v, a.S, 64, &rooms[2]) || !make_panels(&from.dy, a, a.dy, a.L, 64, &rooms[3]) ||
      !make_tensor_map(&from.stats, stats, 4, 2, sizes, strides, box, 0))
    return;  // noted
  bool pairs = true;
  for (const BatchedRows* r : {&a.dq, &a.dk, &a.dv}) pairs &= !r->data || rows_in_packs(a, {r});
  const auto pass = [&](auto keys, unsigned blocks) {
    launch_kernel<attention_backward_wgmma<T, kE, decltype(keys)::value>>(
        blocks * items, kThreads, kSharedBytes<kE>, current_stream(), a, from, blocks, stats, padded, pairs);
  };
  if (a.dk.data || a.dv.data) pass(std::true_type(), blocks_k);
  if (a.dq.data) pass(std::false_type(), blocks_q);
}

}  // namespace

void attention_backward_sm90(const AttentionArgs& a) {
  if (a.dtype == DType::kFloat16) return a.E == 64 ? run<float16, 64>(a) : run<float16, 128>(a);
  a.E == 64 ? run<bfloat16, 64>(a) : run<bfloat16, 128>(a);
}

}  // namespace tw::cuda
