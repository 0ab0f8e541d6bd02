// Convolutions and their gradients where a group has few rows (depthwise ones, few output channels): a product's tiles
// would stay empty. Called by conv.cu and conv_backward_w.cu, whose shapes, dtypes and errors these are.
//
// y and dx: a thread has kRows neighbouring results of a column (1 where images have one row), and adds channel by
// channel and tap by tap; a warp's threads lie along the rows, so that accesses are whole lines, and what results share
// comes from L1. A block has several small planes or a part of a large one. dx goes by phases, as in conv.cuh.
// dw: a block has 16 terms of one row of dw and a piece of positions; a thread adds up its positions, 128 apart, for
// all terms in registers, then a fixed tree over the block.
// Bytes: x + y, beyond that L1's. A tap costs some 6 instructions a result (dw: 12), so that instructions, not memory,
// are the limit from 9 taps on; depthwise filters of stride 1 therefore have conv_depthwise.cu. Not yet timed on a GPU.
#include "kernels/cuda/conv.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 128;

// Planes (n, channel, jz) of results of one phase, and the items of a plane: kRows results of one column.
struct Planes {
  Divisor items, cols;  // of a plane; of its columns
  Divisor depth, channels, rows;
  uint32_t count, planes_a_block, blocks_a_plane, blocks;
};

template <class S, int kRows>
__global__ void __launch_bounds__(kThreads, 6)
    direct_kernel(const __grid_constant__ Pass f, const __grid_constant__ Planes p) {
  using A = Accumulator<S>;
  TW_SHARED(taps, Taps[3]);
  const uint32_t number = blockIdx.x / p.blocks, block = blockIdx.x - number * p.blocks;
  set_taps(taps, f, int(number));
  const uint32_t several = block / p.blocks_a_plane,
                 local = (block - several * p.blocks_a_plane) * kThreads + threadIdx.x;
  const uint32_t in_block = p.items.quotient(local), item = local - in_block * p.items.divisor;
  const uint32_t plane = several * p.planes_a_block + in_block;
  if (in_block >= p.planes_a_block || plane >= p.count) return;
  const uint32_t strip = p.cols.quotient(item), both = p.depth.quotient(plane), n = p.channels.quotient(both);
  const int jx = int(item - strip * p.cols.divisor), jy = int(strip) * kRows, jz = int(plane - both * p.depth.divisor);
  const uint32_t channel = both - n * p.channels.divisor, group = p.rows.quotient(channel);

  const int64_t filter = int64_t(f.axis[0].kernel) * f.axis[1].kernel * f.axis[2].kernel;
  const int64_t w_channel = f.backward ? f.rows * filter : filter;
  const S* w = static_cast<const S*>(f.w);
  w += f.backward ? (int64_t(group) * f.channels * f.rows + (channel - group * f.rows)) * filter
                  : int64_t(channel) * f.channels * filter;
  const S* x = reinterpret_cast<const S*>(f.x) + n * f.image + int64_t(group) * f.channels * f.channel;
  const int z0 = jz * f.axis[0].pitch + taps[0].base, y0 = jy * f.axis[1].pitch + taps[1].base,
            x0 = jx * f.axis[2].pitch + taps[2].base;
  const int H = f.axis[1].in, W = f.axis[2].in;
  const int64_t next_row = int64_t(f.axis[1].pitch) * W;

  A acc[kRows] = {};
  for (int c = 0; c < f.channels; ++c, x += f.channel, w += w_channel)
    for (int iz = 0; iz < taps[0].count; ++iz) {
      const int z = z0 + iz * taps[0].step;
      if (unsigned(z) >= unsigned(f.axis[0].in)) continue;
      for (int iy = 0; iy < taps[1].count; ++iy) {
        const int y = y0 + iy * taps[1].step;
        bool inside[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) inside[r] = unsigned(y + r * f.axis[1].pitch) < unsigned(H);
        const int64_t line = (int64_t(z) * H + y) * W;
        const S* weights =
            w +
            ((taps[0].r + iz * taps[0].r_step) * int64_t(f.axis[1].kernel) + taps[1].r + iy * taps[1].r_step) *
                f.axis[2].kernel +
            taps[2].r;
        for (int ix = 0; ix < taps[2].count; ++ix) {
          const int column = x0 + ix * taps[2].step;
          if (unsigned(column) >= unsigned(W)) continue;
          const A weight = convert<A>(weights[ix * taps[2].r_step]);
#pragma unroll
          for (int r = 0; r < kRows; ++r)
            if (inside[r]) acc[r] = fma(weight, convert<A>(x[line + r * next_row + column]), acc[r]);
        }
      }
    }

  int phase[3];
  phase_of(f, int(number), phase);
  const int z = phase[0] + jz * f.axis[0].phases, column = phase[2] + jx * f.axis[2].phases;
  if (z >= f.axis[0].results || column >= f.axis[2].results) return;
  const A bias = f.bias ? convert<A>(static_cast<const S*>(f.bias)[channel]) : A(0);
  S* y = reinterpret_cast<S*>(f.y) + n * f.y_image + channel * f.y_channel + column;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = phase[1] + (jy + r) * f.axis[1].phases;
    if (row < f.axis[1].results)
      y[(int64_t(z) * f.axis[1].results + row) * f.axis[2].results] = convert<S>(f.bias ? acc[r] + bias : acc[r]);
  }
}

template <class S, int kRows> void run_direct(const Pass& f, int64_t N) {
  const uint32_t rows = f.steps[1].divisor, cols = f.steps[2].divisor;
  const uint32_t items = ceil_div<uint32_t>(rows, kRows) * cols, channels = static_cast<uint32_t>(f.groups * f.rows);
  Planes p;
  p.items = Divisor(items);
  p.cols = f.steps[2];
  p.depth = f.steps[0];
  p.channels = Divisor(channels);
  p.rows = Divisor(static_cast<uint32_t>(f.rows));
  p.count = static_cast<uint32_t>(N * channels * f.depth());
  p.planes_a_block = greatest<uint32_t>(1, kThreads / items);
  p.blocks_a_plane = ceil_div<uint32_t>(items, kThreads);
  p.blocks = ceil_div(p.count, p.planes_a_block) * p.blocks_a_plane;
  launch_kernel<direct_kernel<S, kRows>>(static_cast<unsigned>(f.phases) * p.blocks, kThreads, 0, current_stream(), f,
                                         p);
}

// A term of dw: its tap's coordinates, and how far it lies from a position's first item.
struct DirectTerm {
  int64_t at;
  int z, y, x;
};

template <class S, class A>
__global__ void __launch_bounds__(kThreads)
    direct_backward_w(const __grid_constant__ Pass f, A* partial, uint32_t length) {
  constexpr int kTerms = kDirectTerms;
  TW_SHARED(taps, Taps[3]);
  TW_SHARED(terms, DirectTerm[kTerms]);
  TW_SHARED(sums, A[kThreads / 32][kTerms]);
  const int all_terms = set_taps(taps, f, 0);
  const uint32_t blocks = uint32_t(ceil_div(all_terms, kTerms)), O = uint32_t(f.groups * f.rows);
  const uint32_t line = blockIdx.x / blocks, piece = line / O, row = line - piece * O, group = row / f.rows;
  const int q0 = int(blockIdx.x - line * blocks) * kTerms, count = least(kTerms, all_terms - q0);
  const int H = f.axis[1].in, W = f.axis[2].in;
  if (int(threadIdx.x) < count) {
    const int q = q0 + int(threadIdx.x), tap = q / f.channels, c = q - tap * f.channels;
    const int rows = tap / taps[2].count, ix = tap - rows * taps[2].count, iz = rows / taps[1].count,
              iy = rows - iz * taps[1].count;
    const int z = iz * taps[0].step, y = iy * taps[1].step, x = ix * taps[2].step;
    terms[threadIdx.x] = {c * f.channel + (int64_t(z) * H + y) * W + x, z, y, x};
  }
  __syncthreads();

  A acc[kTerms] = {};
  const uint32_t begin = piece * length, end = begin + least(length, f.positions - begin);
  const S *dy = reinterpret_cast<const S*>(f.y) + int64_t(row) * f.y_channel,
          *x = reinterpret_cast<const S*>(f.x) + int64_t(group) * f.channels * f.channel;
  for (uint32_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const Spot s = spot_of(f, i);
    const A g = convert<A>(dy[dy_place(f, s)]);
    const int z0 = s.z * f.axis[0].pitch + taps[0].base, y0 = s.y * f.axis[1].pitch + taps[1].base,
              x0 = s.x * f.axis[2].pitch + taps[2].base;
    const int64_t at = s.n * f.image + (int64_t(z0) * H + y0) * W + x0;
#pragma unroll
    for (int t = 0; t < kTerms; ++t) {
      if (t >= count) break;
      const DirectTerm u = terms[t];
      if (unsigned(z0 + u.z) < unsigned(f.axis[0].in) && unsigned(y0 + u.y) < unsigned(H) &&
          unsigned(x0 + u.x) < unsigned(W))
        acc[t] = fma(g, convert<A>(x[at + u.at]), acc[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTerms; ++t) {
    const A sum = reduce_warp<SumOp>(acc[t]);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][t] = sum;
  }
  __syncthreads();
  const int t = threadIdx.x;
  if (t >= count) return;
  A sum = sums[0][t];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) sum += sums[i][t];
  partial[(int64_t(piece) * O + row) * all_terms + q0 + t] = sum;
}

}  // namespace

void conv_direct(const Pass& f, int64_t N) {
  if (is_tiled_depthwise(f)) return conv_depthwise(f, N);
  visit_float(f.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (f.steps[1].divisor > 1) run_direct<S, 4>(f, N);
    else run_direct<S, 1>(f, N);
  });
}

void conv_direct_backward_w(const Pass& f, void* partial, uint32_t length) {
  visit_float(f.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using A = Accumulator<S>;
    const auto blocks = static_cast<unsigned>(ceil_div(f.positions, length) * (f.groups * f.rows) *
                                              ceil_div<int64_t>(f.terms(), kDirectTerms));
    launch_kernel<direct_backward_w<S, A>>(blocks, kThreads, 0, current_stream(), f, static_cast<A*>(partial), length);
  });
}

}  // namespace tw::cuda
