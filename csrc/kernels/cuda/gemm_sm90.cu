// gemm of halves, and of float32 as TF32, on Hopper: c = act(alpha * a @ b + beta * c + bias) over a batch, what
// gemm.cu's opening says, through wgmma. Any strides: an operand that the copy engine cannot take (not 16-byte steps
// along one contiguous dimension) is first copied, so layout never changes a bit. Error: K 2^-24 of the sum of
// magnitudes and one rounding; TF32: 2^-10 of it more if the copy engine rounds operands to nearest, as the emulator's
// does (the manuals only say that it converts; by truncation it would be 2^-9). Measured by
// tests/test_hopper.py::test_hopper_product and ::test_tf32_on_hopper.
//
// A cluster of two blocks computes 256 x 256 of c, a block 128 x 256, each of its two consumer warpgroups 64 x 256 in
// 128 registers a thread (wgmma m64n256k16). One thread of a third warpgroup, which gives its registers away (40, the
// consumers have 232), keeps a ring of kStages tiles full through TMA: a (128 x 128 bytes of K) for its own block and
// half of b (256 lines), which goes to both. Tiles lie as in memory, in rows of 128 bytes under the 128-byte swizzle,
// so all four transpositions of halves differ in boxes and descriptors alone. The grid is persistent; kRaster rows of
// clusters go through the columns together, so that the 66 clusters of 132 multiprocessors share panels of about 8 x 8
// tiles in L2.
//
//   a step of K = 64     2 * 128 * 256 * 64 = 4.2 MFLOP, 1024 cycles at a multiprocessor's 4096 FLOP a cycle
//   from L2              16 KiB of a + 16 KiB of b: 128 FLOP a byte, 32 bytes a cycle a multiprocessor
//   from shared memory   10 KiB a wgmma of 128 cycles: 80 of 128 bytes a cycle
//   shared memory        4 stages * 48 KiB + 20 KiB for the sums on their way out = 212 KiB: one block
//   epilogue E           64 x 256 sums a warpgroup, 8 a pack, about 1400 instructions a warp, two warps a scheduler:
//                        2800 cycles, through which the ring fills again
//   expected             of the tensor peak at the clock held: T / (66 ceil(T / 66)) * 16 K / (16 K + E), T clusters'
//                        tiles: 0.95 at 8192^3 (T = 1024), 0.93 at 4096^3, 0.97 at 16384^3. Not yet timed on a GPU.
// TF32: half the steps of K in the same bytes and the same cycles, so all figures a step hold, and 32 K takes the place
// of 16 K: 0.96, 0.95 and 0.98 of half the peak. wgmma reads both tiles along K alone, so one that lies across is put
// on the side of a, transposing c where it is b, and goes through registers: 4 loads a wgmma, each over 2 of its banks,
// 32 cycles of shared memory beside b's 64 of 128, behind the other warpgroup's products. Where both lie across, the
// smaller is copied first: 8 bytes an item, 4 peak / (N bandwidth) of the product's time for N x N.
// Few tiles: slices along K (gemm_end.cuh), as many as make waves * (16 K / slices + E) + 210 T slices least, 210
// cycles for the sums of a tile to L2 and back, at some 2500 bytes a cycle; waves of 66 on whatever device, for the
// same bits.
// Two consumers with a tile of 64 x 256 each in turn ("ping-pong") would hide E, at most 4 % at K = 4096, but each
// reads all of b: 64 + 128 lines for 512 cycles of products, 48 bytes a cycle from L2 instead of 32: not taken.
// Method: CUTLASS's description of warp specialisation on Hopper ("cooperative"), and the PTX ISA manual, 9.7.14.
#include <optional>

#include "kernels/cuda/gemm_end.cuh"
#include "kernels/cuda/hopper.cuh"

namespace tw::cuda {

namespace {

constexpr int kBlockM = 128, kBlockN = 256, kStages = 4, kRaster = 8, kWave = 66;
template <class T> constexpr int kBlockK = 128 / int(sizeof(T));  // and lines in a row of a tile that lies across
constexpr int kConsumers = 256, kThreads = kConsumers + 128;
constexpr unsigned kChunk = 64 * 128;  // bytes of 64 lines of a tile
constexpr unsigned kTileA = kBlockM / 64 * kChunk, kTileB = kBlockN / 64 * kChunk, kStage = kTileA + kTileB;
constexpr int kSumsRow = 40, kTurnedRow = 20;  // floats, of 32 or 16: two rows of four threads meet no bank twice
constexpr unsigned kSums = 16 * kSumsRow * 4;  // bytes a warp
constexpr size_t kSharedBytes = kStages * kStage + kConsumers / 32 * kSums + 2 * kStages * sizeof(uint64_t);
constexpr unsigned kReleases = 2 * kConsumers / 32;  // of a stage: by each consumer warp of both blocks

struct Schedule {
  int tiles_m, tiles_n, count;  // of 256 x 256, and in all
  int slices;
  int batch0;                // the batch is (batch1, batch0)
  int a_step[2], b_step[2];  // 0 where the operand is broadcast
  bool c_aligned, bias_aligned;
};
struct Tile {
  int m, n, slice, number;  // in tiles; of the batch
};
TW_DEVICE Tile tile_at(const Schedule& s, int i) {
  const int each = s.tiles_m * s.tiles_n, product = i / each, rest = i % each;
  const int band = rest / (kRaster * s.tiles_n), in = rest % (kRaster * s.tiles_n);
  const int rows = least(kRaster, s.tiles_m - band * kRaster);
  return {band * kRaster + in % rows, in / rows, product % s.slices, product / s.slices};
}

// 128 lines from `line` on and the steps of a tile from k on.
template <class T, bool kAcross>
TW_DEVICE void load_lines(unsigned char* tile, const TensorMap& map, uint64_t* full, int line, int k, int b0, int b1,
                          uint16_t blocks) {
  constexpr int kBox = kBlockK<T>;
  if constexpr (kAcross) {
#pragma unroll
    for (int i = 0; i < 128; i += kBox) tma_load(tile + i * 128, map, full, {line + i, k, b0, b1}, blocks);
  } else {
    tma_load(tile, map, full, {k, line, b0, b1}, blocks);
  }
}

// The side of a has the tile's rows: c's, or, turned, its columns. T float: b along K.
template <class T, bool kAcrossA, bool kAcrossB, bool kTurned>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_sm90_kernel(const __grid_constant__ GemmArgs g, const __grid_constant__ Schedule schedule,
                     const __grid_constant__ Slices slices, const __grid_constant__ TensorMap map_a,
                     const __grid_constant__ TensorMap map_b) {
  constexpr int kK = kBlockK<T>, kProducts = 4;  // wgmmas of a step
  constexpr bool kRegisters = sizeof(T) == 4 && kAcrossA;
  unsigned char* const shared = dynamic_shared<unsigned char>();
  float* const all_sums = reinterpret_cast<float*>(shared + kStages * kStage);
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + kStages * kStage + kConsumers / 32 * kSums);
  uint64_t* const empty = full + kStages;
  const unsigned rank = cluster_rank();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, clusters = gridDim.x / 2;
  const auto steps_of = [&](int slice) {
    return int(ceil_div<int64_t>(least(slices.length, g.K - slice * slices.length), kK));
  };
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(full + i, 1);
      mbarrier_init(empty + i, kReleases);
    }
    mbarrier_init_fence();
  }
  cluster_arrive();
  cluster_wait();

  Turn<kStages> turn;
  if (warp >= kConsumers / 32) {  // the producer
    lower_registers<40>();
    if (threadIdx.x == kConsumers) {
      prefetch_map(map_a);
      prefetch_map(map_b);
      for (int i = blockIdx.x / 2; i < schedule.count; i += clusters) {
        const Tile t = tile_at(schedule, i);
        const int b0 = t.number % schedule.batch0, b1 = t.number / schedule.batch0;
        const int m = (2 * t.m + int(rank)) * kBlockM, n = t.n * kBlockN + int(rank) * (kBlockN / 2);
        const int k0 = int(t.slice * slices.length), steps = steps_of(t.slice);
        for (int k = 0; k < steps; ++k, turn.next()) {
          mbarrier_wait(empty + turn.slot, turn.phase ^ 1);
          mbarrier_expect(full + turn.slot, kStage);
          unsigned char* const tile = shared + turn.slot * kStage;
          load_lines<T, kAcrossA>(tile, map_a, full + turn.slot, m, k0 + k * kK, b0 * schedule.a_step[0],
                                  b1 * schedule.a_step[1], 0);
          load_lines<T, kAcrossB>(tile + kTileA + rank * (kTileB / 2), map_b, full + turn.slot, n, k0 + k * kK,
                                  b0 * schedule.b_step[0], b1 * schedule.b_step[1], 3);
        }
      }
    }
    __syncwarp();
  } else {
    raise_registers<232>();
    const int group = warp / 4;
    // Rows of 128 bytes, 8 to a group of 1024; the steps of a wgmma are 32 bytes along a row, or 16 rows.
    const uint64_t first_a = wgmma_descriptor(shared + group * kChunk, kChunk, 1024, 128);
    const uint64_t first_b = wgmma_descriptor(shared + kTileA, kChunk, 1024, 128);
    constexpr unsigned kNextA = (kAcrossA ? 16 * 128 : 32) / 16, kNextB = (kAcrossB ? 16 * 128 : 32) / 16;
    // Row k of 32 lines, of this warp's 16 from (lane / 4, lane % 4) on, in floats.
    const float* const across =
        reinterpret_cast<const float*>(shared + group * kChunk + warp % 4 / 2 * (kChunk / 2)) + lane % 4 * 32;
    const int column = (16 * (warp % 2) + lane / 4) ^ lane % 4 << 2;
    float* const sums = all_sums + warp * (kSums / 4);
    const auto release = [&](int slot) {  // each lane has waited for its products
      __syncwarp();
      if (lane < 2) mbarrier_arrive_at(empty + slot, lane);
    };
    for (int i = blockIdx.x / 2; i < schedule.count; i += clusters) {
      const Tile t = tile_at(schedule, i);
      const int steps = steps_of(t.slice);
      float acc[kBlockN / 2];
#pragma unroll
      for (int j = 0; j < kBlockN / 2; ++j) acc[j] = 0;
      int before = 0;
      for (int k = 0; k < steps; ++k) {
        mbarrier_wait(full + turn.slot, turn.phase);
        const uint64_t a = first_a + turn.slot * (kStage / 16), b = first_b + turn.slot * (kStage / 16);
        if constexpr (kRegisters) {
          uint32_t r[kProducts][4];
#pragma unroll
          for (int j = 0; j < kProducts; ++j)
#pragma unroll
            for (int q = 0; q < 4; ++q)  // rows + 8 (q & 1), steps + 4 (q >> 1): a swizzled row's other half
              r[j][q] = __float_as_uint(
                  across[turn.slot * (kStage / 4) + (8 * j + q / 2 * 4) * 32 + (column ^ (q % 2 * 8 | q / 2 * 16))]);
          wgmma_hold(acc);
          wgmma_fence();
#pragma unroll
          for (int j = 0; j < kProducts; ++j) wgmma<T, kBlockN>(acc, r[j], b + j * kNextB, true);
        } else {
          wgmma_hold(acc);
          wgmma_fence();
#pragma unroll
          for (int j = 0; j < kProducts; ++j)
            wgmma<T, kBlockN, kAcrossA, kAcrossB>(acc, a + j * kNextA, b + j * kNextB, true);
        }
        wgmma_commit();
        wgmma_hold(acc);
        if constexpr (kRegisters) {
          wgmma_wait<0>();
          wgmma_hold(acc);
          release(turn.slot);
        } else {
          wgmma_wait<1>();
          if (k > 0) release(before);
        }
        before = turn.slot;
        turn.next();
      }
      if constexpr (!kRegisters) {
        wgmma_wait<0>();
        wgmma_hold(acc);
        release(before);
      }

      const int64_t m = (2 * t.m + int64_t(rank)) * kBlockM + 64 * group + 16 * (warp % 4);
      const int64_t n = int64_t(t.n) * kBlockN, start = start_of(g, t.number, slices, t.slice).c;
#pragma unroll 1
      for (int slice = 0; slice < kBlockN / 32; ++slice) {  // 16 x 32 sums of a warp, then packs of 8 neighbours
#pragma unroll
        for (int q = 0; q < kBlockN / 32; ++q) {
          if (q != slice) continue;
#pragma unroll
          for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const int row = lane / 4 + 8 * r, col = 8 * j + lane % 4 * 2;
              const float x = acc[16 * q + 4 * j + 2 * r], y = acc[16 * q + 4 * j + 2 * r + 1];
              if constexpr (kTurned) sums[col * kTurnedRow + row] = x, sums[(col + 1) * kTurnedRow + row] = y;
              else store_vector(sums + row * kSumsRow + col, Vector<float, 2>{{x, y}});
            }
        }
        __syncwarp();
#pragma unroll 1
        for (int pack = lane; pack < 64; pack += 32) {  // of 8 sums: half a column, or a quarter of a row
          const int line = pack / (kTurned ? 2 : 4), at = pack % (kTurned ? 2 : 4) * 8;
          finish_pack(g, start, kTurned ? n + 32 * slice + line : m + line, kTurned ? m + at : n + 32 * slice + at,
                      sums + line * (kTurned ? kTurnedRow : kSumsRow) + at, schedule.c_aligned, schedule.bias_aligned);
        }
        __syncwarp();
      }
    }
  }
  cluster_arrive();  // nobody leaves while the other block may still write here
  cluster_wait();
}

// --- operands, as lines (rows of a, columns of b) and steps of K --
struct Side {
  const void* data;
  int64_t lines, line, step;  // strides in elements
  int64_t batch[kMaxDims];
  bool across() const { return step != 1; }
};

bool loadable(const GemmArgs& g, const Side& s) {
  const int64_t chunk = 16 / static_cast<int64_t>(itemsize(g.dtype));
  bool yes = reinterpret_cast<uintptr_t>(s.data) % 16 == 0;
  for (int d = 0; d < g.batch_ndim; ++d) yes &= s.batch[d] % chunk == 0;
  return yes &&
         ((s.step == 1 && s.line % chunk == 0 && s.line > 0) || (s.line == 1 && s.step % chunk == 0 && s.step > 0));
}

// A copy that is contiguous along K, in rows of whole 16 bytes; with `expand`, broadcast dimensions are written out.
void pack(const GemmArgs& g, Side* s, bool expand, std::optional<Workspace>* room) {
  const auto item = static_cast<int64_t>(itemsize(g.dtype));
  const int64_t row = ceil_div<int64_t>(g.K, 8) * 8;
  ElementwiseArgs e{};
  Side to{nullptr, s->lines, row, 1, {}};
  int64_t items = s->lines * row;
  e.ndim = g.batch_ndim + 2;
  for (int d = g.batch_ndim - 1; d >= 0; --d) {
    const bool one = s->batch[d] == 0 && !expand;
    e.shape[d] = one ? 1 : g.batch[d];
    e.in[0].strides[d] = item * s->batch[d];
    to.batch[d] = one ? 0 : items;
    e.out.strides[d] = item * items;
    items *= e.shape[d];
  }
  const int d = g.batch_ndim;
  e.shape[d] = s->lines, e.in[0].strides[d] = item * s->line, e.out.strides[d] = item * row;
  e.shape[d + 1] = g.K, e.in[0].strides[d + 1] = item * s->step, e.out.strides[d + 1] = item;
  room->emplace(static_cast<size_t>(items * item));
  to.data = (*room)->as<void>();
  e.inputs = 1;
  e.compute = e.out.dtype = e.in[0].dtype = g.dtype;
  e.in[0].data = const_cast<void*>(s->data);
  e.out.data = const_cast<void*>(to.data);
  copy(e);
  *s = to;
}

// The batch in as few dimensions as both operands allow, the innermost first.
struct Batch {
  int n = 0;
  int64_t size[kMaxDims] = {1, 1}, a[kMaxDims] = {}, b[kMaxDims] = {};
  Batch(const GemmArgs& g, const Side& x, const Side& y) {
    for (int d = g.batch_ndim - 1; d >= 0; --d) {
      if (g.batch[d] == 1) continue;
      const int i = n - 1;
      if (n > 0 && x.batch[d] == a[i] * size[i] && y.batch[d] == b[i] * size[i]) {
        size[i] *= g.batch[d];
        continue;
      }
      size[n] = g.batch[d], a[n] = x.batch[d], b[n] = y.batch[d];
      ++n;
    }
  }
};

bool map_of(TensorMap* map, const GemmArgs& g, const Side& s, const Batch& batch, const int64_t* steps) {
  const bool across = s.across();
  const auto item = static_cast<int>(itemsize(g.dtype));
  const int64_t sizes[4] = {across ? s.lines : g.K, across ? g.K : s.lines, steps[0] ? batch.size[0] : 1,
                            steps[1] ? batch.size[1] : 1};
  const int64_t strides[3] = {item * (across ? s.step : s.line), steps[0] ? item * steps[0] : 16,
                              steps[1] ? item * steps[1] : 16};
  const int box[4] = {128 / item, across ? 128 / item : 128, 1, 1};
  return make_tensor_map(map, s.data, item, 4, sizes, strides, box, 128, item == 4);
}

// As many slices along K as the opening comment's sum has them; their sums take 66 MiB at most.
int64_t slices_of(int64_t tiles, int64_t K, int item) {
  int64_t best = 1, least_cost = INT64_MAX;
  for (int64_t s = 1; s == 1 || (s <= 16 && s * tiles <= 4 * kWave && K / s >= 512); ++s) {
    const int64_t waves = ceil_div<int64_t>(tiles * s, kWave), sums = s > 1 ? 210 * s * tiles + 5000 : 0;
    const int64_t cost = waves * (8 * item * K / s + 2800) + sums;
    if (cost < least_cost) least_cost = cost, best = s;
  }
  return best;
}

template <class T>
void run(const GemmArgs& g, const Slices& slices, const Side& a, const Side& b, const Schedule& s,
         const TensorMap& map_a, const TensorMap& map_b, bool turned) {
  const auto blocks = static_cast<unsigned>(2 * least(s.count, greatest(1, device_info().multiprocessors / 2)));
  const auto go = [&](auto across_a, auto across_b, auto turn) {
    launch_cluster<gemm_sm90_kernel<T, decltype(across_a)::value, decltype(across_b)::value, decltype(turn)::value>>(
        blocks, kThreads, 2, kSharedBytes, current_stream(), g, s, slices, map_a, map_b);
  };
  constexpr std::false_type kNo{};
  constexpr std::true_type kYes{};
  if constexpr (sizeof(T) == 4) {
    if (turned) go(kYes, kNo, kYes);
    else a.across() ? go(kYes, kNo, kNo) : go(kNo, kNo, kNo);
  } else {
    if (a.across()) b.across() ? go(kYes, kYes, kNo) : go(kYes, kNo, kNo);
    else b.across() ? go(kNo, kYes, kNo) : go(kNo, kNo, kNo);
  }
}

}  // namespace

bool gemm_sm90(const GemmArgs& g) {
  constexpr int64_t kMost = int64_t{1} << 31;
  const auto item = static_cast<int>(itemsize(g.dtype));
  int64_t products = 1;
  for (int d = 0; d < g.batch_ndim; ++d) products *= g.batch[d];
  const int64_t tiles = ceil_div<int64_t>(g.M, 2 * kBlockM) * ceil_div<int64_t>(g.N, kBlockN) * products;
  if (g.M >= kMost || g.N >= kMost || g.K >= kMost / 2 || tiles >= kMost / 16) return false;
  const int64_t count = slices_of(tiles, g.K, item);
  // Smaller tiles fill the device better where these would keep less than a third of it busy.
  if (g.M <= kBlockM || g.N <= kBlockN / 2 || g.K * item < 256 || 6 * tiles * count < device_info().multiprocessors)
    return false;

  Side a{g.a, g.M, g.a_row, g.a_col, {}}, b{g.b, g.N, g.b_col, g.b_row, {}};
  for (int d = 0; d < g.batch_ndim; ++d) a.batch[d] = g.a_batch[d], b.batch[d] = g.b_batch[d];
  std::optional<Workspace> room_a, room_b;
  const bool expand = Batch(g, a, b).n > 2;
  if (expand || !loadable(g, a)) pack(g, &a, expand, &room_a);
  if (expand || !loadable(g, b)) pack(g, &b, expand, &room_b);
  bool turned = false;  // a and b have changed places, b being the one that lies across
  if (item == 4 && b.across()) {
    if (a.across() && g.M < g.N) pack(g, &a, false, &room_a);
    else if (a.across()) pack(g, &b, false, &room_b);
    turned = b.across();
  }
  if (turned) {
    const Side other = a;
    a = b, b = other;
  }
  const Batch batch(g, a, b);
  TensorMap map_a, map_b;
  if (!map_of(&map_a, g, a, batch, batch.a) || !map_of(&map_b, g, b, batch, batch.b)) return true;  // noted
  run_slices(g, count, [&](const GemmArgs& part, const Slices& slices) {
    Schedule s{};
    s.tiles_m = int(ceil_div<int64_t>(a.lines, 2 * kBlockM)), s.tiles_n = int(ceil_div<int64_t>(b.lines, kBlockN));
    s.slices = slices.count;
    s.count = int(tiles * slices.count);
    s.batch0 = int(batch.size[0]);
    for (int d = 0; d < 2; ++d) s.a_step[d] = batch.a[d] != 0, s.b_step[d] = batch.b[d] != 0;
    s.c_aligned = reinterpret_cast<uintptr_t>(part.c) % 16 == 0 && part.c_row % 8 == 0 && slices.items % 8 == 0;
    for (int d = 0; d < g.batch_ndim; ++d) s.c_aligned &= part.c_batch[d] % 8 == 0;
    s.bias_aligned = reinterpret_cast<uintptr_t>(part.bias) % 16 == 0;
    if (g.dtype == DType::kFloat32) run<float>(part, slices, a, b, s, map_a, map_b, turned);
    else if (g.dtype == DType::kFloat16) run<float16>(part, slices, a, b, s, map_a, map_b, turned);
    else run<bfloat16>(part, slices, a, b, s, map_a, map_b, turned);
  });
  return true;
}

}  // namespace tw::cuda
