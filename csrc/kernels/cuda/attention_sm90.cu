// Attention of halves on sm_90a: head sizes 64 and 128, causal or not, without mask and dropout (attention.cu's).
//
// Semantics, arithmetic and errors are attention.cu's. Method: FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608):
// one thread of a warpgroup of its own brings tiles by TMA; two warpgroups have 64 queries each, and q k^T of a block
// of keys runs in the tensor cores while the softmax of the block before is computed and its p v waits behind it.
// Tiles: 128 queries, blocks of 128 keys, two stages: 80 KiB of shared memory for E = 64, 160 for 128. A thread of the
// multiplying warpgroups holds 64 scores, 32 or 64 sums and 32 registers of weights.
// Operations: 4 E flop and one exponential a pair of query and key. An SM does 4096 flop of wgmma and 16 exponentials a
// clock, so a pair takes E / 1024 clocks of one and 1 / 16 of the other: at E = 64 they are equal, and only their
// overlap lets the tensor cores near their peak; at E = 128 products are twice as long. Bytes: k and v from L2 once for
// 128 queries, E / 32 a pair, 128 flop a byte. Not yet timed on a GPU.
#include "kernels/cuda/attention_sm90.cuh"

namespace tw::cuda {

void attention_sm90(const AttentionArgs& a);

namespace {

constexpr int kRows = 128, kThreads = 384, kPanel = kRows * 64;  // a panel: 128 rows of 64 columns, swizzled
template <int kE> constexpr size_t kSharedBytes = size_t{5} * (kE / 64) * kPanel * 2;
enum Bar { kFullQ, kFullK, kFullV = kFullK + 2, kEmptyK = kFullV + 2, kEmptyV = kEmptyK + 2, kBars = kEmptyV + 2 };

struct Operands {
  Panels q, k, v;
};

template <class T, int kE>
__global__ void __launch_bounds__(kThreads, 1)
    attention_wgmma(const __grid_constant__ AttentionArgs a, const __grid_constant__ Operands from, unsigned blocks,
                    bool pairs) {
  constexpr int kTileItems = kE / 64 * kPanel;
  T* const tile_q = dynamic_shared<T>();
  T* const tiles = tile_q + kTileItems;  // (2 stages, k and v)
  TW_SHARED(bars, uint64_t[kBars]);
  const unsigned items = gridDim.x / blocks;
  const int64_t number = a.causal ? blockIdx.x % items : blockIdx.x / blocks;
  const int64_t first = (a.causal ? blocks - 1 - blockIdx.x / items : blockIdx.x % blocks) * int64_t{kRows};
  const int64_t seen = a.causal ? least(a.S, least(a.L, first + kRows)) : a.S;
  const int steps = int(ceil_div<int64_t>(seen, kRows));
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    const int warps = first + 64 < a.L ? 8 : 4;  // that multiply
    for (int i = 0; i < kBars; ++i) mbarrier_init(bars + i, i < kEmptyK ? 1 : warps);
    mbarrier_init_fence();
  }
  __syncthreads();

  if (group == 0) {
    lower_registers<24>();
    if (threadIdx.x > 0) return;
    load_panels<kE, kRows, kRows>(tile_q, from.q, bars + kFullQ, number, first);
    for (int step = 0; step < steps; ++step) {
      const int stage = step % 2, parity = step / 2 % 2;
      T* const tile_k = tiles + 2 * stage * kTileItems;
      if (step > 1) mbarrier_wait(bars + kEmptyK + stage, parity ^ 1);
      load_panels<kE, kRows, kRows>(tile_k, from.k, bars + kFullK + stage, number, int64_t(step) * kRows);
      if (step > 1) mbarrier_wait(bars + kEmptyV + stage, parity ^ 1);
      load_panels<kE, kRows, kRows>(tile_k + kTileItems, from.v, bars + kFullV + stage, number, int64_t(step) * kRows);
    }
    return;
  }
  raise_registers<240>();
  const int64_t own = first + 64 * (group - 1), row = own + 16 * warp + lane / 4;  // the thread's: row and row + 8
  if (own >= a.L) return;
  const float factor = float(a.scale * kLog2E);
  float s[64], sums[kE / 2] = {}, base[2] = {-kInfinity<float>, -kInfinity<float>}, total[2] = {}, shrink[2];
  uint32_t p[8][4];

  const auto multiply_q = [&](int step) {  // s = q k^T, behind the scenes
    mbarrier_wait(bars + kFullK + step % 2, step / 2 % 2);
    const T *q = tile_q + 64 * 64 * (group - 1), *k = tiles + step % 2 * 2 * kTileItems;
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kE / 16; ++i) {
      const int at = i / 4 * kPanel + i % 4 * 16;
      wgmma<T, 128>(s, wgmma_descriptor(q + at, 16, 1024, 128), wgmma_descriptor(k + at, 16, 1024, 128), i > 0);
    }
    wgmma_commit();
  };
  const auto multiply_v = [&](int step) {  // sums += p v, behind the scenes
    mbarrier_wait(bars + kFullV + step % 2, step / 2 % 2);
    const T* v = tiles + (step % 2 * 2 + 1) * kTileItems;
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i)
      wgmma<T, kE, true>(sums, p[i], wgmma_descriptor(v + i * 16 * 64, 2 * kPanel, 1024, 128), true);
    wgmma_commit();
  };
  const auto release = [&](int bar) {  // each lane has waited for its products
    __syncwarp();
    if (lane == 0) mbarrier_arrive(bars + bar);
  };
  const auto softmax = [&](int step) {  // s becomes 2^(s - base), with a new base
    const int64_t j0 = int64_t(step) * kRows;
    wgmma_hold(s);
    if (j0 + kRows > a.S || (a.causal && j0 + kRows - 1 > own)) {
      const int64_t end = least(a.S, a.causal ? row + 1 : a.S), end8 = least(a.S, a.causal ? row + 9 : a.S);
      const int last[2] = {int(least<int64_t>(kRows, end - j0)), int(least<int64_t>(kRows, end8 - j0))};
#pragma unroll
      for (int i = 0; i < 64; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= last[i / 2 % 2]) s[i] = -kInfinity<float>;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float high = ::fmaxf(s[2 * h], s[2 * h + 1]);
#pragma unroll
      for (int j = 1; j < 16; ++j) high = ::fmaxf(high, ::fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
      high = ::fmaxf(high, __shfl_xor_sync(kFullMask, high, 1));
      high = ::fmaxf(high, __shfl_xor_sync(kFullMask, high, 2));
      const float now = ::fmaxf(base[h], high * factor), used = now == -kInfinity<float> ? 0.0f : now;
      shrink[h] = exp2_flush(base[h] - used);
      base[h] = now;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        float &x = s[4 * j + 2 * h], &y = s[4 * j + 2 * h + 1];
        x = exp2_flush(fma(x, factor, -used));
        y = exp2_flush(fma(y, factor, -used));
        sum += x + y;
      }
      total[h] = fma(total[h], shrink[h], sum);
    }
  };
  const auto round_weights = [&] {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r) p[i][r] = round_pair<T>(s[8 * i + 2 * r], s[8 * i + 2 * r + 1]);
  };

  mbarrier_wait(bars + kFullQ, 0);
  multiply_q(0);
  wgmma_wait<0>();
  release(kEmptyK);
  softmax(0);
  round_weights();
  for (int step = 1; step < steps; ++step) {
    multiply_q(step);
    multiply_v(step - 1);
    wgmma_wait<1>();
    release(kEmptyK + step % 2);
    softmax(step);
    wgmma_wait<0>();
    wgmma_hold(sums);
    release(kEmptyV + (step - 1) % 2);
#pragma unroll
    for (int i = 0; i < kE / 2; ++i) sums[i] *= shrink[i / 2 % 2];
    round_weights();
  }
  multiply_v(steps - 1);
  wgmma_wait<0>();
  wgmma_hold(sums);

  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = total[h];
    sum += __shfl_xor_sync(kFullMask, sum, 1);
    sum += __shfl_xor_sync(kFullMask, sum, 2);
    const int64_t i = row + 8 * h;
    if (lane % 4 == 0 && i < a.L)
      static_cast<float*>(a.lse)[number * a.L + i] = sum == 0 ? kInfinity<float> : base[h] + log2(sum);
    inverse[h] = sum == 0 ? 0.0f : 1.0f / sum;
  }
  store_sums(item_of<T>(a, a.y, number), a.y.row, row, a.L, sums, inverse[0], inverse[1], pairs);
}

template <class T, int kE> void run(const AttentionArgs& a) {
  Operands from;
  std::optional<Workspace> rooms[3];
  if (!make_panels(&from.q, a, a.q, a.L, kRows, &rooms[0]) || !make_panels(&from.k, a, a.k, a.S, kRows, &rooms[1]) ||
      !make_panels(&from.v, a, a.v, a.S, kRows, &rooms[2]))
    return;  // noted
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(a.L, kRows));
  launch_kernel<attention_wgmma<T, kE>>(static_cast<unsigned>(blocks * items_of(a)), kThreads, kSharedBytes<kE>,
                                        current_stream(), a, from, blocks, rows_in_packs(a, {&a.y}));
}

}  // namespace

void attention_sm90(const AttentionArgs& a) {
  if (a.dtype == DType::kFloat16) return a.E == 64 ? run<float16, 64>(a) : run<float16, 128>(a);
  a.E == 64 ? run<bfloat16, 64>(a) : run<bfloat16, 128>(a);
}

}  // namespace tw::cuda
