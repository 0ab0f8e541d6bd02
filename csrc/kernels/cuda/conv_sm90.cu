// conv, conv_backward_x and conv_backward_w of halves on Hopper, and the first two of float32 where TF32 is allowed:
// conv.cuh's products through wgmma, one to three dimensions as one kernel. Shapes, formulas, phases: conv.cuh. Sums are float32, the bias is added before the one
// rounding; dw's are cut into slices of positions, as many as the shape says, and added in their order. Error: K 2^-24
// of the sum of magnitudes and one rounding, K = taps * channels, for dw positions; measured by
// tests/test_hopper_conv.py. Layouts never change a bit.
//
// Taken: groups == 1, 32 channels and rows or more, 128 positions or more, at most 8 phases, pads, steps and filters
// within the copy engine's limits (hopper.cuh). Filters of one tap with aligned rows of pixels are gemm's before that;
// first layers of few channels, groups and all else conv.cu's. TF32 (rounded as channels are put last; a step is 32
// channels, with the clocks and bytes below for half the FLOP) needs both operands along K, so that its dw, whose
// operands lie across it, is conv_backward_w.cu's: x and dy would have to be turned for each tap.
//
// Method: implicit GEMM, M = rows (O, or C for dx), N = positions, so that neighbours in y are neighbours in a thread's
// sums, and K = (tap, channel). Images are first copied to channels last, weights to panels (channels_last.cuh). Then
// TMA's im2col mode brings 64 positions by 128 bytes of channels of one tap in one load, over rows, images and strides,
// with zeros outside: no im2col and no padding is ever written, and no position of a tile is lost on an edge. For dw
// both operands are loaded with 64 positions as K: dy's rows and x's (tap, channel), both across K. dx of strides:
// phase by phase, with maps of their own; strides of one-tap filters are left out in the copy.
//   bytes a copy costs      x is read once, as it must be, and written to and read from L2: a launch takes as many
//                           images as stay there (32 MiB), and as fill its last wave
//   the other way           producer warps that gather from NCHW, as conv.cu's: 2 bytes a lane, 64 channels by 256
//                           positions a step are 512 loads, 512 stores and their addresses, some 3000 instructions
//                           where a step's wgmma last 1024 clocks of 4 schedulers: 0.75 of all issue slots, each tap
//                           anew; the copy is some 12 instructions for 32 x 2 values, once for all taps and rows.
//                           Tiled boxes from NCHW need rows of 16 bytes (W % 8 == 0) and waste edges at W = 28, 14, 7
//   a block's tile          128 rows x 256 positions, or x 128 where that fills the last wave better; 64 x 256 where
//                           there are 64 rows; two warpgroups multiply (wgmma m64n256k16 or m64n128k16), a warp of a
//                           third keeps 4 to 6 stages full, a lane a chunk of 64 lines by 128 bytes
//   a cluster's             two tiles side by side, whose common operand is sent to both by multicast: positions where
//                           an even number of tiles holds the rows, else rows; for dw also none, but two slices
//   shared memory           192 to 200 KiB of stages + 18 KiB for the results on their way out: one block
//   a step, 128 x 256 x 64  4.2 MFLOP, 1024 clocks at 4096 FLOP a clock; 32 KiB from L2 (40 with common rows), 128
//                           FLOP a byte, 32 (40) bytes a clock; from shared memory 80 of 128 bytes a clock
//   128 x 128, 64 x 256     512 clocks for 24 or 36 KiB: 48 and 72 bytes a clock of L2, which then is the limit; at 40
//                           bytes a clock 0.85 and 0.55 of the peak. (64 rows use a position's 128 bytes for 64 sums:
//                           no tile of im2col helps, only pixels kept between taps would)
//   results                 16 x 64 sums a warp at a time, rounded, through shared memory to stores of 16 bytes along
//                           pixels, 4 where images have 2 n pixels, else 2: 300 clocks per 64 positions
//   expected                of the tensor peak, by these clocks and 14 bytes a clock and multiprocessor from memory, on
//                           132; in brackets without the copy. y: ResNet-50's 3x3, 256 images: 64 channels 0.39
//                           (0.49), 128 0.75 (0.93), 256 0.85 (0.96), 512 0.79 (0.83); its 1x1 at 14 x 14 from 256
//                           0.63 (0.77), to 256 0.42 (0.80), at 7 x 7 0.77 and 0.56, where x and y bound it: 1 / C +
//                           1 / O bytes a FLOP. VGG-16's, 64 images: 0.39, 0.75, 0.85, 0.92. dw, with two copies and
//                           4 bytes a slice's sum written and read: 0.25, 0.41, 0.60, 0.60. Not yet timed on a GPU.
// Sources: the PTX ISA manual, "im2col mode" and 9.7.14; the driver's manual on cuTensorMapEncodeIm2col; CUTLASS's
// convolutions on Hopper use the same mode.
#include "kernels/cuda/channels_last.cuh"
#include "kernels/cuda/conv.cuh"
#include "kernels/cuda/hopper.cuh"

namespace tw::cuda {
namespace {

constexpr int kConsumers = 256, kThreads = kConsumers + 128, kMostPhases = 8;
constexpr unsigned kChunk = 64 * 128;  // bytes of 64 lines and 128 bytes of K, or 64 positions of 128 bytes of lines
template <class T> constexpr int kLine = 128 / int(sizeof(T));               // channels of 128 bytes
template <class T> constexpr int kSumsRow = kLine<T> + 16 / int(sizeof(T));  // 8 rows meet no bank twice
constexpr unsigned kSums = 16 * (128 + 16);                                  // bytes a warp
#ifdef __CUDACC__
constexpr int64_t kPartBytes = 32 << 20;  // of channels-last images that a launch reads: they stay in L2
constexpr int kClusters = 66;             // that dw's slices are to fill; shapes alone decide them
#else
constexpr int64_t kPartBytes = 48 << 10;  // the emulator's images are small, and their parts many
constexpr int kClusters = kEmulatedMultiprocessors / 2;
#endif

// A block's tile: 64 kChunksA rows and 64 kChunksB columns. Two warpgroups share its rows, or its columns where there
// is one chunk of rows.
template <int kChunksA, int kChunksB> struct Ring {
  static constexpr unsigned kStage = (kChunksA + kChunksB) * kChunk;
  static constexpr int kStages = (200 << 10) / kStage;
  static constexpr int kColumns = kChunksA * kChunksB * 32;  // of a warpgroup
  static constexpr size_t kSharedBytes =
      size_t{kStages} * kStage + kConsumers / 32 * kSums + 2 * kStages * sizeof(uint64_t);
};

// Dimensions are (z, y, x). A phase's position j reads, with tap i, lower + j * pitch + i * gap, and its result lies at
// start + j * result_step.
struct Phase {
  TensorMap x;
  Divisor steps[3];                                     // positions
  uint32_t positions;                                   // of all images
  int first;                                            // its first tile of the launch
  int lower[3], gap[3], count[3], tap[3], tap_step[3];  // tap: the filter's index of tap 0, and how it goes on
  int start[3];
};
// What the two blocks of a cluster have in common: rows (a), columns (b), or the place in dw, of whose slices each has
// its own.
enum class Shared { kA, kB, kPlace };
struct Job {
  Phase phase[kMostPhases];
  TensorMap a;  // panels of weights, (rows, taps, channels); for dw: dy, (pixels, O)
  const void* bias;
  void* y;  // for dw: its slices' sums, (slice, O, tap, channel)
  int64_t y_image, y_channel;
  int pitch[3], result_step[3], results[3], kernel[3];
  int phases, count;         // of phases; of tiles of a cluster
  int across_m, across_n;    // tiles of a cluster; across_n is for dw, whose slices follow each other
  int rows, channels, taps;  // taps of the whole filter
  int chunks;                // of 128 bytes of channels
  int length;                // for dw: steps of 64 positions of a slice
  int pack;                  // neighbouring results that one store can take
  bool volumes;              // maps of five dimensions
  Shared common;
};
struct Tile {
  int phase, m, n, slice;  // m and n in tiles of a block
};
template <bool kWeights> TW_DEVICE Tile tile_at(const Job& f, int i, int rank) {
  int phase = 0;
  if constexpr (!kWeights)
    while (phase + 1 < f.phases && i >= f.phase[phase + 1].first) ++phase;
  i -= f.phase[phase].first;
  int n = i / f.across_m, slice = 0;
  const int m = i - n * f.across_m;
  if constexpr (kWeights) slice = n / f.across_n, n -= slice * f.across_n;
  return {phase, f.common == Shared::kB ? 2 * m + rank : m, f.common == Shared::kA ? 2 * n + rank : n,
          f.common == Shared::kPlace ? 2 * slice + rank : slice};
}
template <bool kWeights> TW_DEVICE int steps_of(const Job& f, const Tile& t) {
  if constexpr (kWeights) return f.length;  // the last slice ends with zeros
  const Phase& p = f.phase[t.phase];
  return p.count[0] * p.count[1] * p.count[2] * f.chunks;
}

struct Place {  // of a position
  int image, j[3];
};
TW_DEVICE Place place_of(const Phase& p, uint32_t position) {
  const uint32_t row = p.steps[2].quotient(position), plane = p.steps[1].quotient(row),
                 image = p.steps[0].quotient(plane);
  return {int(image),
          {int(plane - image * p.steps[0].divisor), int(row - plane * p.steps[1].divisor),
           int(position - row * p.steps[2].divisor)}};
}

// A chunk of channels from c on of the 64 positions from `at` on, at the tap that lies `by` further.
TW_DEVICE void load_pixels(unsigned char* tile, const Job& f, const Phase& p, uint64_t* bar, int c, const Place& at,
                           int bz, int by, int bx, uint16_t blocks) {
  const int x = p.lower[2] + at.j[2] * f.pitch[2], y = p.lower[1] + at.j[1] * f.pitch[1],
            z = p.lower[0] + at.j[0] * f.pitch[0];
  if (f.volumes)
    tma_load_pixels(tile, p.x, bar, {c, x, y, z, at.image}, {uint16_t(bx), uint16_t(by), uint16_t(bz)}, blocks);
  else tma_load_pixels(tile, p.x, bar, {c, x, y, at.image}, {uint16_t(bx), uint16_t(by)}, blocks);
}

// 16 rows of kLine results, kPack neighbours a store.
template <int kPack, class T>
TW_DEVICE void store_results(const Job& f, const Phase& p, const T* sums, int m, uint32_t n, int lane) {
  constexpr int kLanes = least(32, kLine<T> / kPack);  // along a row
#pragma unroll
  for (int i = 0; i < kLine<T>; i += kLanes * kPack) {
    const int column = i + lane % kLanes * kPack;
    if (n + column >= p.positions) continue;
    const Place at = place_of(p, n + column);
    int64_t to = 0;
#pragma unroll
    for (int d = 0; d < 3; ++d) to = to * f.results[d] + p.start[d] + at.j[d] * f.result_step[d];
    T* const y = static_cast<T*>(f.y) + at.image * f.y_image + m * f.y_channel + to;
    const int rows = least(16, f.rows - m);
    for (int row = lane / kLanes; row < rows; row += 32 / kLanes)
      store_vector(y + row * f.y_channel, load_vector<kPack>(sums + row * kSumsRow<T> + column));
  }
}

template <class T, int kChunksA, int kChunksB, bool kWeights>
__global__ void __launch_bounds__(kThreads, 1) conv_wgmma(const __grid_constant__ Job f) {
  using R = Ring<kChunksA, kChunksB>;
  constexpr int kStages = R::kStages, kColumns = R::kColumns;
  unsigned char* const shared = dynamic_shared<unsigned char>();
  uint64_t* const full = reinterpret_cast<uint64_t*>(shared + kStages * R::kStage + kConsumers / 32 * kSums);
  uint64_t* const empty = full + kStages;
  const int rank = int(cluster_rank()), warp = threadIdx.x / 32, lane = threadIdx.x % 32, clusters = gridDim.x / 2;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(full + i, 1);
      mbarrier_init(empty + i, 2 * kConsumers / 32);
    }
    mbarrier_init_fence();
  }
  cluster_arrive();
  cluster_wait();

  Turn<kStages> turn;
  if (warp >= kConsumers / 32) {  // the producer: a lane of one warp a chunk
    lower_registers<40>();
    const bool is_b = lane < kChunksB, shared_by_both = f.common == (is_b ? Shared::kB : Shared::kA);
    const int chunk = is_b ? lane : lane - kChunksB;
    const bool loads = lane < kChunksA + kChunksB && (!shared_by_both || chunk % 2 == rank);
    const uint16_t blocks = shared_by_both ? 3 : 0;
    for (int i = blockIdx.x / 2; warp == kConsumers / 32 && i < f.count; i += clusters) {
      const Tile t = tile_at<kWeights>(f, i, rank);
      const Phase& p = f.phase[t.phase];
      const auto bring = [&](const auto& load) {  // into the next slot
        mbarrier_wait(empty + turn.slot, turn.phase ^ 1);
        if (lane == 0) mbarrier_expect(full + turn.slot, R::kStage);
        __syncwarp();
        if (loads) load(shared + turn.slot * R::kStage + (is_b ? kChunksA + chunk : chunk) * kChunk, full + turn.slot);
        turn.next();
      };
      const int line = is_b ? t.n * kChunksB + chunk : (t.m * kChunksA + chunk) * 64;  // B: in chunks
      if constexpr (kWeights) {
        const int steps = steps_of<kWeights>(f, t), tap = line / f.chunks, c = (line - tap * f.chunks) * 64;
        const int row = tap / f.kernel[2], bx = tap - row * f.kernel[2], bz = row / f.kernel[1],
                  by = row - bz * f.kernel[1];
        const bool there = tap < f.taps;  // else zeros: no such channels
        for (int step = 0; step < steps; ++step)
          bring([&](unsigned char* tile, uint64_t* bar) {
            const int position = (t.slice * f.length + step) * 64;
            if (!is_b) return tma_load(tile, f.a, bar, {line, position}, blocks);
            load_pixels(tile, f, p, bar, there ? c : f.chunks * 64, place_of(p, position), there ? bz * p.gap[0] : 0,
                        there ? by * p.gap[1] : 0, there ? bx * p.gap[2] : 0, blocks);
          });
      } else {
        const Place at = place_of(p, is_b ? line * 64 : 0);
        for (int z = 0; z < p.count[0]; ++z)
          for (int y = 0; y < p.count[1]; ++y)
            for (int x = 0; x < p.count[2]; ++x) {
              const int tap =
                  ((p.tap[0] + z * p.tap_step[0]) * f.kernel[1] + p.tap[1] + y * p.tap_step[1]) * f.kernel[2] +
                  p.tap[2] + x * p.tap_step[2];
              for (int c = 0; c < f.chunks; ++c)
                bring([&](unsigned char* tile, uint64_t* bar) {
                  if (!is_b) return tma_load(tile, f.a, bar, {c * kLine<T>, tap, line}, blocks);
                  load_pixels(tile, f, p, bar, c * kLine<T>, at, z * p.gap[0], y * p.gap[1], x * p.gap[2], blocks);
                });
            }
      }
    }
  } else {
    raise_registers<232>();
    const int group = warp / 4, chunk_a = kChunksA == 2 ? group : 0, chunk_b = kChunksA == 2 ? 0 : group * kChunksB / 2;
    // Rows of 128 bytes, 8 to a group of 1024; a product's K is 32 bytes along a row, or 16 rows.
    const uint64_t first_a = wgmma_descriptor(shared + chunk_a * kChunk, kChunk, 1024, 128);
    const uint64_t first_b = wgmma_descriptor(shared + (kChunksA + chunk_b) * kChunk, kChunk, 1024, 128);
    constexpr unsigned kNext = (kWeights ? 16 * 128 : 32) / 16;
    const auto release = [&](int slot) {  // each lane has waited for its products
      __syncwarp();
      if (lane < 2) mbarrier_arrive_at(empty + slot, lane);
    };
    for (int i = blockIdx.x / 2; i < f.count; i += clusters) {
      const Tile t = tile_at<kWeights>(f, i, rank);
      const int steps = steps_of<kWeights>(f, t);
      float acc[kColumns / 2];
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) acc[j] = 0;
      int before = 0;
      for (int k = 0; k < steps; ++k) {
        mbarrier_wait(full + turn.slot, turn.phase);
        const uint64_t a = first_a + turn.slot * (R::kStage / 16), b = first_b + turn.slot * (R::kStage / 16);
        wgmma_hold(acc);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < 4; ++j) wgmma<T, kColumns, kWeights, kWeights>(acc, a + j * kNext, b + j * kNext, true);
        wgmma_commit();
        wgmma_hold(acc);
        wgmma_wait<1>();
        if (k > 0) release(before);
        before = turn.slot;
        turn.next();
      }
      wgmma_wait<0>();
      wgmma_hold(acc);
      if (steps > 0) release(before);

      const int m = (t.m * kChunksA + chunk_a) * 64 + 16 * (warp % 4), first = t.n * kChunksB + chunk_b;
      if constexpr (kWeights) {
        float* const to = static_cast<float*>(f.y);
#pragma unroll
        for (int q = 0; q < kColumns / 64; ++q) {
          const int tap = (first + q) / f.chunks, c0 = (first + q - tap * f.chunks) * 64 + lane % 4 * 2;
          const int end = tap < f.taps ? f.channels : 0;
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int row = m + lane / 4 + 8 * r;
            if (row >= f.rows) continue;
            float* const line = to + ((int64_t(t.slice) * f.rows + row) * f.taps + tap) * f.channels;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
              const int c = c0 + 8 * j;
              const float sum0 = acc[32 * q + 4 * j + 2 * r], sum1 = acc[32 * q + 4 * j + 2 * r + 1];
              if (f.pack == 2) {
                if (c < end) store_vector(line + c, Vector<float, 2>{{sum0, sum1}});
              } else {
                if (c < end) line[c] = sum0;
                if (c + 1 < end) line[c + 1] = sum1;
              }
            }
          }
        }
      } else {
        T* const sums = reinterpret_cast<T*>(shared + kStages * R::kStage + warp * kSums);
        float bias[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int row = m + lane / 4 + 8 * r;
          bias[r] = f.bias && row < f.rows ? widen(static_cast<const T*>(f.bias)[row]) : 0.0f;
        }
        constexpr int kSlabs = kColumns / kLine<T>, kPairs = kLine<T> / 8;
#pragma unroll 1
        for (int slab = 0; slab < kSlabs; ++slab) {  // 16 x kLine sums of a warp
#pragma unroll
          for (int q = 0; q < kSlabs; ++q) {
            if (q != slab) continue;
#pragma unroll
            for (int j = 0; j < kPairs; ++j)
#pragma unroll
              for (int r = 0; r < 2; ++r) {
                const float s0 = acc[4 * (kPairs * q + j) + 2 * r] + bias[r],
                            s1 = acc[4 * (kPairs * q + j) + 2 * r + 1] + bias[r];
                T* const to = sums + (lane / 4 + 8 * r) * kSumsRow<T> + 8 * j + lane % 4 * 2;
                if constexpr (sizeof(T) == 4) store_vector(to, Vector<T, 2>{{s0, s1}});
                else store_vector(reinterpret_cast<uint32_t*>(to), Vector<uint32_t, 1>{{round_pair<T>(s0, s1)}});
              }
          }
          __syncwarp();
          const Phase& p = f.phase[t.phase];
          const uint32_t n = uint32_t(first) * 64 + slab * kLine<T>;
          if (f.pack > 2) store_results<16 / sizeof(T)>(f, p, sums, m, n, lane);
          else if (f.pack == 2) store_results<2>(f, p, sums, m, n, lane);
          else store_results<1>(f, p, sums, m, n, lane);
          __syncwarp();
        }
      }
    }
  }
  cluster_arrive();  // nobody leaves while the other block may still write here
  cluster_wait();
}

// --- what a convolution becomes --
struct Plan {
  Pass pass;
  Job job{};
  int in[3], step[3];  // the images in memory, and which of their pixels the taps can meet
  int size[3];         // those pixels
  int lower[kMostPhases][3], upper[kMostPhases][3];
  int64_t N;
  int item, room;  // bytes of an item; items of a pixel's channels, whose end is never read
  bool fits = false;

  Plan(const ConvArgs& a, bool back);
  int64_t image_bytes() const { return int64_t{size[0]} * size[1] * size[2] * room * item; }
  // The maps of n images in `x`; false where the driver refuses, which is noted.
  bool set_images(const void* x, int64_t n);
};

Plan::Plan(const ConvArgs& a, bool back)
    : pass(a, back), N(a.N), item(static_cast<int>(itemsize(a.dtype))), room(room_of(pass.channels, item)) {
  const Pass& f = pass;
  if (a.groups != 1 || !(item == 2 || (item == 4 && a.tf32)) || f.rows < 32 || f.channels < 32 ||
      f.phases > kMostPhases)
    return;
  if (N >= 1 << 30 || f.depth() * f.plane() >= 1 << 30 || N * f.depth() * f.plane() < 128) return;
  PassAxis axis[3];
  int64_t pixels = 1;
  for (int d = 0; d < 3; ++d) {
    PassAxis& x = axis[d] = f.axis[d];
    in[d] = x.in, step[d] = 1;
    if (!back && x.kernel == 1 && x.pad == 0 && x.stride > 1 &&
        (x.results - 1) * int64_t{x.stride} < x.in)  // the others are never met
      step[d] = x.stride, x.in = x.results, x.stride = x.pitch = 1;
    size[d] = x.in;
    pixels *= x.in;
    job.pitch[d] = x.pitch, job.result_step[d] = x.phases, job.results[d] = x.results, job.kernel[d] = x.kernel;
    if (x.pitch > 8) return;
  }
  if (pixels >= 1 << 30) return;
  job.volumes = size[0] != 1 || job.results[0] != 1 || job.kernel[0] != 1;
  const int corner = job.volumes ? 16 : 128;
  for (int number = 0; number < f.phases; ++number) {
    Phase& p = job.phase[number];
    const int digit[3] = {number / axis[2].phases / axis[1].phases, number / axis[2].phases % axis[1].phases,
                          number % axis[2].phases};
    for (int d = 0; d < 3; ++d) {
      const PassAxis& x = axis[d];
      const Taps t = taps_of(x, back, digit[d]);
      const int steps = ceil_div(x.results - digit[d], x.phases), last = t.step < 0 ? t.count - 1 : 0;
      p.steps[d] = Divisor(static_cast<uint32_t>(steps));
      p.start[d] = digit[d];
      p.count[d] = t.count;
      p.gap[d] = t.step < 0 ? -t.step : t.step;
      p.lower[d] = lower[number][d] = t.base + last * t.step;
      p.tap[d] = t.r + last * t.r_step;
      p.tap_step[d] = t.step < 0 ? -t.r_step : t.r_step;
      const int64_t up = p.lower[d] + int64_t{steps - 1} * x.pitch - (x.in - 1);
      upper[number][d] = static_cast<int>(up);
      if (t.count == 0 || (d == 0 && !job.volumes)) continue;
      if (p.lower[d] < -corner || p.lower[d] >= corner || up < -corner || up >= corner) return;
      if (int64_t{t.count - 1} * p.gap[d] >= 2 * corner) return;
    }
    if (p.count[0] * p.count[1] * p.count[2] == 0) p.count[0] = 0;
  }
  job.phases = f.phases;
  job.rows = f.rows, job.channels = f.channels;
  job.taps = static_cast<int>(f.taps());
  job.chunks = ceil_div(f.channels * item, 128);
  job.y_image = f.y_image, job.y_channel = f.y_channel;
  job.bias = f.bias;
  fits = true;
}

bool Plan::set_images(const void* x, int64_t n) {
  const int64_t pixel = int64_t{room} * item, row = pixel * size[2], plane = row * size[1];
  const int64_t flat[4] = {job.channels, size[2], size[1], n}, deep[5] = {job.channels, size[2], size[1], size[0], n};
  const int64_t strides[4] = {pixel, row, plane, plane * size[0]};
  for (int i = 0; i < job.phases; ++i) {
    Phase& p = job.phase[i];
    if (p.count[0] == 0) continue;
    const int low[3] = {lower[i][2], lower[i][1], lower[i][0]}, high[3] = {upper[i][2], upper[i][1], upper[i][0]};
    const int pitch[3] = {job.pitch[2], job.pitch[1], job.pitch[0]};
    if (!make_pixel_map(&p.x, x, item, job.volumes ? 5 : 4, job.volumes ? deep : flat, strides, low, high, pitch,
                        128 / item, 64, 128))
      return false;
  }
  return true;
}

// Images a launch: as many as L2 keeps, or somewhat fewer where clocks(images) then has fuller last waves.
template <class F> int64_t images_of_part(int64_t N, int64_t image_bytes, const F& clocks) {
  const int64_t parts = least(N, ceil_div(N * image_bytes, kPartBytes));
  int64_t best = INT64_MAX, images = 0;
  for (int64_t p = parts; p <= least(N, parts + 7); ++p) {
    const int64_t each = ceil_div(N, p), rest = N % each;
    const int64_t all = N / each * clocks(each) + (rest ? clocks(rest) : 0) + 4000 * p;
    if (all < best) best = all, images = each;
  }
  return images;
}

template <class T, int kChunksA, int kChunksB, bool kWeights> void launch_job(const Job& f) {
  using R = Ring<kChunksA, kChunksB>;
  const int clusters = least(f.count, greatest(1, device_info().multiprocessors / 2));
  launch_cluster<conv_wgmma<T, kChunksA, kChunksB, kWeights>>(static_cast<unsigned>(2 * clusters), kThreads, 2,
                                                              R::kSharedBytes, current_stream(), f);
}

// Lays n images out in tiles of so many chunks; the clocks of the longest chain of them. Narrow tiles fill the last
// wave better, but a step of theirs waits for L2.
int64_t set_tiles(Job* f, int chunks_a, int chunks_b, int64_t n) {
  const int tiles_m = ceil_div(f->rows, 64 * chunks_a);
  f->common = tiles_m % 2 ? Shared::kA : Shared::kB;
  f->across_m = tiles_m % 2 ? tiles_m : tiles_m / 2;
  f->count = 0;
  for (int i = 0; i < f->phases; ++i) {
    Phase& p = f->phase[i];
    p.positions = static_cast<uint32_t>(n * p.steps[0].divisor * p.steps[1].divisor * p.steps[2].divisor);
    p.first = f->count;
    const int64_t tiles = ceil_div<int64_t>(p.positions, 64 * chunks_b);
    f->count += f->across_m * static_cast<int>(tiles_m % 2 ? ceil_div<int64_t>(tiles, 2) : tiles);
  }
  const int64_t waves = ceil_div(f->count, greatest(1, device_info().multiprocessors / 2));
  const int step = chunks_a == 1 ? 900 : chunks_b == 2 ? 600 : 1024;
  return waves * (int64_t{f->taps} * f->chunks * step / f->phases + 300 * chunks_b);
}
// The better tiles for n images, which stay set; their clocks.
int64_t choose_tiles(Job* f, int64_t n, int* chunks_b) {
  *chunks_b = 4;
  if (f->rows <= 64) return set_tiles(f, 1, 4, n);
  const int64_t narrow = set_tiles(f, 2, 2, n), wide = set_tiles(f, 2, 4, n);
  return wide <= narrow ? wide : set_tiles(f, 2, *chunks_b = 2, n);
}

template <class T> void run_images(const ConvArgs& a, Plan& plan) {
  using S = std::conditional_t<sizeof(T) == 2, uint16_t, float>;
  const Pass& f = plan.pass;
  Job& job = plan.job;
  int chunks_b;
  const int64_t panel = int64_t{plan.room} * plan.item;
  const int64_t images =
      images_of_part(a.N, plan.image_bytes(), [&](int64_t n) { return choose_tiles(&job, n, &chunks_b); });
  const Workspace panels(static_cast<size_t>(panel * job.taps * f.rows)),
      pixels(static_cast<size_t>(images * plan.image_bytes()));
  launch_kernel<to_panels<S>>(static_cast<unsigned>(f.rows), kCopyThreads, 0, current_stream(), f.w, panels.as<void>(),
                              f.rows, f.channels, job.taps, plan.room, f.backward);
  const int64_t sizes[3] = {f.channels, job.taps, f.rows}, strides[2] = {panel, panel * job.taps};
  const int box[3] = {kLine<T>, 1, 64}, packs = 16 / plan.item;
  if (!make_tensor_map(&job.a, panels.as<void>(), plan.item, 3, sizes, strides, box, 128)) return;  // noted
  const auto packed = [&](int n) { return f.phases == 1 && f.y_channel % n == 0 && aligned(f.y, n * sizeof(T)); };
  job.pack = packed(packs) ? packs : packed(2) ? 2 : 1;
  for (int64_t n = 0; n < a.N; n += images) {
    const int64_t here = least(images, a.N - n);
    copy_images<S>(f.x + n * f.image * plan.item, pixels.as<void>(), here, f.channels, plan.in, plan.size, plan.step);
    if (!plan.set_images(pixels.as<void>(), here)) return;
    job.y = f.y + n * f.y_image * plan.item;
    choose_tiles(&job, here, &chunks_b);
    if (f.rows <= 64) launch_job<T, 1, 4, false>(job);
    else if (chunks_b == 4) launch_job<T, 2, 4, false>(job);
    else launch_job<T, 2, 2, false>(job);
  }
}

}  // namespace

bool conv_sm90(const ConvArgs& a, bool back) {
  Plan plan(a, back);
  if (!plan.fits) return false;
  if (a.dtype == DType::kFloat16) run_images<float16>(a, plan);
  else if (a.dtype == DType::kBFloat16) run_images<bfloat16>(a, plan);
  else run_images<float>(a, plan);
  return true;
}

bool conv_sm90_backward_w(const ConvArgs& a) {
  if (itemsize(a.dtype) != 2) return false;  // wgmma takes TF32 along K alone
  Plan plan(a, false);
  if (!plan.fits) return false;
  const Pass& f = plan.pass;
  Job& job = plan.job;
  const int64_t dy_room = room_of(f.rows, 2), dy_bytes = f.y_channel * dy_room * 2, size = f.rows * f.terms();
  const int chunks_a = f.rows <= 64 ? 1 : 2, tiles_m = ceil_div(f.rows, 64 * chunks_a);
  job.pack = f.channels % 2 == 0 ? 2 : 1;
  const auto steps_of_images = [&](int64_t n) { return static_cast<int>(ceil_div<int64_t>(n * f.y_channel, 64)); };
  // Cuts a part's positions into slices; the clocks of the longest chain of tiles, and of the sums, 4 bytes each that
  // are written and read again at 14 bytes a clock and multiprocessor.
  const auto choose_slices = [&](int64_t n) {
    const int64_t steps = steps_of_images(n), room = (int64_t{1} << 26) / (size * ceil_div(a.N, n));
    const int64_t most = greatest<int64_t>(1, least(least<int64_t>(steps, 256), room));
    int64_t best = INT64_MAX;
    for (const Shared common : {Shared::kB, Shared::kA, Shared::kPlace}) {
      if ((common == Shared::kB) != (tiles_m % 2 == 0)) continue;
      const int across_m = common == Shared::kB ? tiles_m / 2 : tiles_m;
      const int across_n = ceil_div(job.taps * job.chunks, common == Shared::kA ? 8 : 4);
      const int64_t step = chunks_a == 1 ? 900 : common == Shared::kPlace ? 1200 : 1024;
      for (int64_t s = 1; s <= most; ++s) {
        const int64_t length = ceil_div(steps, s), together = common == Shared::kPlace ? ceil_div<int64_t>(s, 2) : s;
        const int64_t chain = ceil_div<int64_t>(across_m * across_n * together, kClusters);
        const int64_t clocks = chain * (length * step + 1500) + s * size * 8 / (14 * 2 * kClusters);
        if (clocks >= best) continue;
        best = clocks;
        job.length = static_cast<int>(length);
        job.common = common, job.across_m = across_m, job.across_n = across_n;
      }
    }
    return best;
  };
  const int64_t images = images_of_part(a.N, plan.image_bytes() + dy_bytes, choose_slices);
  choose_slices(images);
  const auto slices_of = [&](int64_t n) {
    const int slices = ceil_div(steps_of_images(n), job.length);
    return job.common == Shared::kPlace ? ceil_div(slices, 2) * 2 : slices;
  };
  int64_t pieces = 0, first = 0;
  for (int64_t n = 0; n < a.N; n += images) pieces += slices_of(least(images, a.N - n));
  const Workspace partial(static_cast<size_t>(pieces * size) * 4),
      pixels(static_cast<size_t>(images * plan.image_bytes())), gradients(static_cast<size_t>(images * dy_bytes));
  for (int64_t n = 0; n < a.N; n += images) {
    const int64_t here = least(images, a.N - n);
    const int ones[3] = {1, 1, 1}, box[2] = {64, 64};
    copy_images<uint16_t>(f.x + n * f.image * 2, pixels.as<void>(), here, f.channels, plan.in, plan.size, plan.step);
    copy_images<uint16_t>(static_cast<const char*>(a.dy) + n * f.y_image * 2, gradients.as<void>(), here, f.rows,
                          job.results, job.results, ones);
    const int64_t sizes[2] = {f.rows, here * f.y_channel}, strides[1] = {dy_room * 2};
    if (!plan.set_images(pixels.as<void>(), here) ||
        !make_tensor_map(&job.a, gradients.as<void>(), 2, 2, sizes, strides, box, 128))
      return true;  // noted
    job.y = partial.as<float>() + first * size;
    const int slices = slices_of(here);
    job.count = job.across_m * job.across_n * (job.common == Shared::kPlace ? slices / 2 : slices);
    first += slices;
    const auto go = [&](auto tag) {
      using T = typename decltype(tag)::type;
      chunks_a == 1 ? launch_job<T, 1, 4, true>(job) : launch_job<T, 2, 4, true>(job);
    };
    if (a.dtype == DType::kFloat16) go(Tag<float16>());
    else go(Tag<bfloat16>());
  }
  conv_add_pieces(f, partial.as<float>(), pieces, a.y);
  return true;
}

}  // namespace tw::cuda
