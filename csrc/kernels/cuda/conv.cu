// conv and conv_backward_x (a transposed convolution is the latter, with a bias), NC(D)(H)W, any stride, padding,
// dilation and groups; and what both share with conv_backward_w.cu.
//
// Shapes, formulas and phases: conv.cuh. float16, bfloat16 and float32 accumulate in float32, float64 in float64, and
// the bias is added before the one rounding. Error: gemm.cu's, |K| 2^-24 of the sum of magnitudes, and 2^-10 with TF32,
// K = taps times channels of a group; measured by tests/op_table/conv.py and
// tests/test_hopper.py::test_tf32_convolutions.
// Method: implicit GEMM. Weights are first copied to panels, K (tap, channel) contiguous and rows aligned to 16 bytes:
// cp.async brings them three tiles ahead. The images' tile is K by pixels, as they lie, since pixels are contiguous: a
// thread has two pixels and walks over the terms, channels fastest, so that bounds are looked at once a tap; its values
// for the next tile are loaded before the tensor cores start and stored behind them. (Neighbouring pixels of an odd tap
// begin at odd items, from which cp.async cannot copy.) ldmatrix turns the tile. Tiles (rows, pixels, bytes of K): 128
// x 128 x 64, or 64 x 256 x 64 where a group has at most 64 rows; others 128 x 128 or 64 x 64 by 16 steps.
// Filters of one tap with whole rows of pixels are gemm's, batched, with no panels; so is dx where y is one pixel.
// Groups of few rows: conv_direct.cu. Halves on Hopper: conv_sm90.cu, where it takes the shape.
// Intensity: a tile of 1 MFLOP reads 8 KiB of weights and 8 KiB of pixels, from L1 and L2 but for the first time. In
// clocks of an SM's shared memory and L1, 128 bytes each: 384 for ldmatrix, 128 for loads of pixels (2 bytes a lane),
// 64 each to store both tiles; gemm.cu has 512 in all, so that 0.8 of its rate is the limit. An image's own bytes: (C
// HW + O P) / (2 C O P taps) a FLOP, below 1 / 150 from 64 channels and 3x3 on, so that memory is no limit. Not yet
// timed on a GPU.
#include "kernels/cuda/conv.cuh"

namespace tw::cuda {
namespace {

int64_t volume(const int64_t* sizes) { return sizes[0] * sizes[1] * sizes[2]; }

// Filters of one tap that meet each pixel once.
bool is_pointwise(const ConvArgs& a) {
  for (int d = 0; d < 3; ++d)
    if (a.kernel[d] != 1 || a.stride[d] != 1 || a.pad[d] != 0 || a.out[d] != a.size[d]) return false;
  return true;
}

}  // namespace

Pass::Pass(const ConvArgs& a, bool back) {
  constexpr int64_t kMost = 1 << 30;  // a stride or dilation beyond every image is as good as this one
  backward = back;
  dtype = a.dtype;
  tensor = itemsize(dtype) == 2 || a.tf32;
  groups = static_cast<int>(a.groups);
  rows = static_cast<int>((back ? a.C : a.O) / a.groups);
  channels = static_cast<int>((back ? a.O : a.C) / a.groups);
  x = static_cast<const char*>(back ? a.dy : a.x);
  y = static_cast<char*>(a.y);
  w = a.w;
  bias = a.b;
  first_z = 0;
  positions = 0;
  phases = 1;
  channel = y_channel = 1;
  const bool flat = is_pointwise(a);  // an image is one long row
  int64_t taps_of_phase = 1;
  for (int d = 0; d < 3; ++d) {
    PassAxis& p = axis[d];
    const int64_t size = flat ? (d < 2 ? 1 : volume(a.size)) : a.size[d], out = flat ? size : a.out[d];
    p.in = static_cast<int>(back ? out : size);
    p.results = static_cast<int>(back ? size : out);
    p.kernel = static_cast<int>(a.kernel[d]);
    p.stride = static_cast<int>(least(a.stride[d], kMost));
    p.pad = static_cast<int>(a.pad[d]);
    p.dilation = static_cast<int>(least(a.dilation[d], kMost));
    p.phases = back ? least(p.stride, p.results) : 1;
    p.pitch = back ? 1 : p.stride;
    int divisor = p.stride, rest = p.dilation;  // the greatest common one
    while (rest) {
      const int next = divisor % rest;
      divisor = rest;
      rest = next;
    }
    p.tap_step = back ? p.stride / divisor : 1;
    phases *= p.phases;
    channel *= p.in;
    y_channel *= p.results;
    taps_of_phase *= ceil_div(p.kernel, p.tap_step);
    cols = ceil_div(p.results, p.phases);
    const bool pairs = d == 2 && tensor && !few_rows(*this);
    steps[d] = Divisor(static_cast<uint32_t>(pairs ? ceil_div(cols, 2) * 2 : cols));
  }
  image = groups * channels * channel;
  y_image = groups * rows * y_channel;
  K_room = static_cast<int>(ceil_div<int64_t>(taps_of_phase * channels, 8) * 8);
  if (channels == 0) channels = 1, axis[0].kernel = 0;  // no terms
  channels_of = Divisor(static_cast<uint32_t>(channels));
}

namespace {

constexpr int kPackThreads = 128;

// Panels (phases, groups, rows, K_room) of the weights: a block a row. S is as wide as the dtype.
template <class S> __global__ void __launch_bounds__(kPackThreads) pack_weights(const __grid_constant__ Pass f, S* to) {
  TW_SHARED(taps, Taps[3]);
  const int row = int(blockIdx.x), m = row % f.rows, group = row / f.rows % f.groups;
  const int K = set_taps(taps, f, row / f.rows / f.groups);
  const int64_t filter = int64_t(f.axis[0].kernel) * f.axis[1].kernel * f.axis[2].kernel;
  const int64_t start =
      (f.backward ? int64_t(group) * f.channels * f.rows + m : (int64_t(group) * f.rows + m) * f.channels) * filter;
  const S* w = static_cast<const S*>(f.w) + start;
  to += int64_t(row) * f.K_room;
  for (int k = threadIdx.x; k < K; k += kPackThreads) {
    const int tap = int(f.channels_of.quotient(uint32_t(k))), c = k - tap * f.channels;
    const int line = tap / taps[2].count, ix = tap - line * taps[2].count, iz = line / taps[1].count,
              iy = line - iz * taps[1].count;
    const int rz = taps[0].r + iz * taps[0].r_step, ry = taps[1].r + iy * taps[1].r_step,
              rx = taps[2].r + ix * taps[2].r_step;
    const int64_t at = (int64_t(rz) * f.axis[1].kernel + ry) * f.axis[2].kernel + rx;
    to[k] = w[at + c * filter * (f.backward ? f.rows : 1)];
  }
}

// The tile of a block: x counts (phase, rows, positions), z groups.
struct TileAt {
  int phase, group, m0;
  uint32_t n0;
};
template <int kBlockM, int kBlockN> TW_DEVICE TileAt tile_at(const Pass& f, int first_group) {
  const uint32_t tiles_m = ceil_div(f.rows, kBlockM), tiles_n = ceil_div<uint32_t>(f.positions, kBlockN);
  const uint32_t line = blockIdx.x / tiles_n, phase = line / tiles_m;
  return {int(phase), first_group + int(blockIdx.z), int(line - phase * tiles_m) * kBlockM,
          (blockIdx.x - line * tiles_n) * kBlockN};
}
// The first row of a group in its phase's panels.
template <class T> TW_DEVICE const T* panel_of(const Pass& f, const T* panels, const TileAt& t) {
  return panels + (int64_t(t.phase) * f.groups + t.group) * f.rows * f.K_room;
}

template <class T, int kWarpsM> struct TensorTile {
  static constexpr int kBlockM = 64 * kWarpsM, kBlockN = 256 / kWarpsM;
  static constexpr int kItems = kBlockN * kMmaK<T> / 512;  // of kMmaK steps of K, that a thread with two pixels brings
  static constexpr int kItemsA = kTileItems<T, Lie::kAlong, kBlockM>, kItemsB = kTileItems<T, Lie::kAcross, kBlockN>;
  static constexpr size_t kSharedBytes = kTileStages * (kItemsA + kItemsB) * sizeof(T);
  static_assert(kSumsBytes <= kSharedBytes);
};

template <class T, int kWarpsM>
__global__ void __launch_bounds__(kTileThreads, 2)
    conv_tensor(const __grid_constant__ Pass f, const T* panels, int first_group) {
  using Tile = TensorTile<T, kWarpsM>;
  constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kItems = Tile::kItems;
  constexpr int kRow = kTileRow<T, Lie::kAcross, kBlockN>;
  TW_SHARED(taps, Taps[3]);
  const TileAt t = tile_at<kBlockM, kBlockN>(f, first_group);
  const int K = set_taps(taps, f, t.phase), steps = ceil_div(K, kTileK<T>);
  const Lines<T> a{panel_of(f, panels, t), f.K_room, 1, f.rows, K};
  const int warp = threadIdx.x / 32, warp_m = warp % kWarpsM * 64, warp_n = warp / kWarpsM * 32;
  const bool busy = t.m0 + warp_m < f.rows && t.n0 + warp_n < f.positions;
  const int pixel = int(threadIdx.x) % (kBlockN / 2) * 2, first_item = int(threadIdx.x) / (kBlockN / 2) * kItems;
  TW_SHARED(walks, Walks);
  Terms<T, 2> terms(walks);
  terms.move(f, taps, t.group, t.n0 + pixel, f.positions);
  terms.go_to(f, taps, {});
  terms.skip(f, taps, first_item);

  const auto tile_a = [&](int step) {
    return dynamic_shared<T>() + step % kTileStages * (Tile::kItemsA + Tile::kItemsB);
  };
  const auto tile_b = [&](int step) { return tile_a(step) + Tile::kItemsA; };
  const auto load_a = [&](int step) {
    if (step < steps) fetch<Lie::kAlong, kBlockM>(tile_a(step), a, t.m0, int64_t(step) * kTileK<T>);
    cp_async_commit();
  };
  Vector<T, 2> next[kItems];  // the thread's part of kMmaK steps of the tile of pixels
  const auto take = [&] {
    terms.take(next, f, taps);
    terms.skip(f, taps, kMmaK<T> - kItems);
  };
  const auto put = [&](int step, int k) {
    T* to = tile_b(step) + (k + first_item) * kRow + pixel;
#pragma unroll
    for (int i = 0; i < kItems; ++i) store_vector(to + i * kRow, next[i]);
  };

  float acc[4][4][4] = {};  // (16 rows, 8 columns, fragment)
  load_a(0);
  load_a(1);
  for (int k = 0; k < kTileK<T> && steps > 0; k += kMmaK<T>) {
    take();
    put(0, k);
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<1>();
    __syncthreads();  // everybody's part of the tile is there, and the oldest tile is no longer read
    load_a(step + 2);
#pragma unroll
    for (int k = 0; k < kTileK<T>; k += kMmaK<T>) {
      if (step + 1 < steps) take();
      if (busy)
        multiply<Lie::kAlong, kBlockM, Lie::kAcross, kBlockN>(acc, tile_a(step), tile_b(step), warp_m, warp_n, k);
      if (step + 1 < steps) put(step + 1, k);
    }
  }
  cp_async_wait<0>();
  __syncthreads();  // the tiles become each warp's own sums
  if (!busy) return;
  const int64_t place = result_place(f, t.phase, t.n0 + warp_n + threadIdx.x % 32);
  const int m0 = t.m0 + warp_m;
  T* y = reinterpret_cast<T*>(f.y) + place + (int64_t(t.group) * f.rows + m0) * f.y_channel;
  const T* bias = f.bias ? static_cast<const T*>(f.bias) + t.group * f.rows + m0 : nullptr;
  each_sum(acc, dynamic_shared<float>(), [&](int row, float sum) {
    if (place < 0 || m0 + row >= f.rows) return;
    y[row * f.y_channel] = convert<T>(bias ? sum + widen(bias[row]) : sum);
  });
}

template <class T, int kPer>
__global__ void __launch_bounds__(kTileThreads)
    conv_plain(const __grid_constant__ Pass f, const T* panels, int first_group) {
  constexpr int kTile = 16 * kPer;
  TW_SHARED(taps, Taps[3]);
  const TileAt t = tile_at<kTile, kTile>(f, first_group);
  const int K = set_taps(taps, f, t.phase);
  const T* panel = panel_of(f, panels, t);
  const int pixel = int(threadIdx.x) % kTile, first_item = int(threadIdx.x) / kTile * kPer;
  const int line = int(threadIdx.x) / kPlainStep, k_of_line = int(threadIdx.x) % kPlainStep;
  TW_SHARED(walks, Walks);
  Terms<T> terms(walks);
  terms.move(f, taps, t.group, t.n0 + pixel, f.positions);
  terms.go_to(f, taps, {});
  terms.skip(f, taps, first_item);
  T next_a[kPer];
  Vector<T, 1> next_b[kPer];
  const auto load = [&](int64_t k0) {
    const int64_t k = k0 + k_of_line;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int m = t.m0 + line + 16 * i;
      next_a[i] = m < f.rows && k < K ? panel[int64_t(m) * f.K_room + k] : T(0);
    }
    terms.take(next_b, f, taps);
    terms.skip(f, taps, kPlainStep - kPer);
  };
  const auto put = [&](auto& tile_a, auto& tile_b) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) tile_a[k_of_line][line + 16 * i] = next_a[i];
#pragma unroll
    for (int i = 0; i < kPer; ++i) tile_b[first_item + i][pixel] = next_b[i][0];
  };
  const int64_t place = result_place(f, t.phase, t.n0 + pixel);
  T* y = reinterpret_cast<T*>(f.y) + int64_t(t.group) * f.rows * f.y_channel + place;
  const T* bias = f.bias ? static_cast<const T*>(f.bias) + t.group * f.rows : nullptr;
  plain_tile<T, kPer>(K, load, put, [&](int row, int, T sum) {
    const int m = t.m0 + row;
    if (place >= 0 && m < f.rows) y[m * f.y_channel] = bias ? sum + bias[m] : sum;
  });
}

template <auto Kernel, int kBlockM, int kBlockN, class T>
void launch_pass(const Pass& f, int64_t N, const T* panels, size_t shared_bytes) {
  constexpr int kMost = 65535;  // of a grid's z
  for_parts(f, N, [&](const Pass& part) {
    const auto blocks = static_cast<unsigned>(int64_t{f.phases} * ceil_div(f.rows, kBlockM) *
                                              ceil_div<int64_t>(part.positions, kBlockN));
    for (int group = 0; group < f.groups; group += kMost)
      launch_kernel<Kernel>(dim3(blocks, 1, static_cast<unsigned>(least(kMost, f.groups - group))), kTileThreads,
                            shared_bytes, current_stream(), part, panels, group);
  });
}

void run_pass(const Pass& f, int64_t N) {
  if (few_rows(f)) return conv_direct(f, N);
  const auto rows = static_cast<unsigned>(f.phases * f.groups * f.rows);
  const Workspace panels(size_t{rows} * static_cast<size_t>(f.K_room) * itemsize(f.dtype));
  const auto pack = [&](auto tag) {
    using S = typename decltype(tag)::type;
    if (f.K_room > 0) launch_kernel<pack_weights<S>>(rows, kPackThreads, 0, current_stream(), f, panels.as<S>());
  };
  const auto tensor = [&](auto tag) {
    using T = typename decltype(tag)::type;
    pack(Tag<std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>>());
    const T* const to = panels.as<const T>();
    if (f.rows > 64) launch_pass<conv_tensor<T, 2>, 128, 128>(f, N, to, TensorTile<T, 2>::kSharedBytes);
    else launch_pass<conv_tensor<T, 1>, 64, 256>(f, N, to, TensorTile<T, 1>::kSharedBytes);
  };
  switch (f.dtype) {
    case DType::kFloat16: return tensor(Tag<float16>());
    case DType::kBFloat16: return tensor(Tag<bfloat16>());
    case DType::kFloat64:
      pack(Tag<uint64_t>());
      return launch_pass<conv_plain<double, 4>, 64, 64>(f, N, panels.as<const double>(), 0);
    default:
      if (f.tensor) return tensor(Tag<float>());
      pack(Tag<uint32_t>());
      if (f.rows > 64 && N * f.depth() * f.plane() > 64)
        return launch_pass<conv_plain<float, 8>, 128, 128>(f, N, panels.as<const float>(), 0);
      return launch_pass<conv_plain<float, 4>, 64, 64>(f, N, panels.as<const float>(), 0);
  }
}

// A product of this convolution's tensors; the caller fills in operands and sizes.
GemmArgs product(const ConvArgs& a) {
  GemmArgs g{};
  g.dtype = g.c_dtype = a.dtype;
  g.c = a.y;
  g.bias = a.b;
  g.alpha = 1;
  g.tf32 = a.tf32;
  g.bias_rows = true;
  g.activation = Activation::kNone;
  return g;
}

// Filters of one tap that meet each pixel once are gemm's, an image and group a product, where its tiles of columns are
// full and aligned for every image; images of few pixels are better joined by the pass.
bool run_pointwise(const ConvArgs& a, bool back) {
  if (!is_pointwise(a)) return false;
  const int64_t pixels = volume(a.out), rows = a.O / a.groups, channels = a.C / a.groups;
  const bool whole = pixels >= 128 && pixels * static_cast<int64_t>(itemsize(a.dtype)) % 16 == 0;
  if ((a.N > 1 && !whole) || (a.b && a.groups > 1)) return false;
  GemmArgs g = product(a);
  g.M = back ? channels : rows;
  g.K = back ? rows : channels;
  g.N = pixels;
  g.a = a.w;
  g.a_row = back ? 1 : channels;
  g.a_col = back ? channels : 1;
  g.b = back ? a.dy : a.x;
  g.b_row = g.c_row = pixels;
  g.b_col = 1;
  g.batch_ndim = 2;
  g.batch[0] = a.N, g.batch[1] = a.groups;
  g.a_batch[1] = rows * channels;
  g.b_batch[0] = g.K * a.groups * pixels, g.b_batch[1] = g.K * pixels;
  g.c_batch[0] = g.M * a.groups * pixels, g.c_batch[1] = g.M * pixels;
  gemm(g);
  return true;
}

// dx where y is one pixel that sees all of x once: dx (N, C taps) = dy (N, O) @ w (O, C taps).
bool whole_backward_x(const ConvArgs& a) {
  if (a.groups != 1 || a.b) return false;
  for (int d = 0; d < 3; ++d)
    if (a.kernel[d] != a.size[d] || a.pad[d] != 0 || a.out[d] != 1 || (a.dilation[d] != 1 && a.size[d] > 1))
      return false;
  GemmArgs g = product(a);
  g.M = a.N;
  g.K = a.O;
  g.N = g.b_row = g.c_row = a.C * volume(a.size);
  g.a = a.dy;
  g.a_row = a.O;
  g.b = a.w;
  g.a_col = g.b_col = 1;
  gemm(g);
  return true;
}

// Code for sm_90a runs nowhere else.
bool run_hopper(const ConvArgs& a, bool back) { return device_info().capability == 900 && conv_sm90(a, back); }

}  // namespace

void conv(const ConvArgs& a) {
  const Pass f(a, false);
  if (!few_rows(f) && (run_pointwise(a, false) || run_hopper(a, false))) return;
  run_pass(f, a.N);
}

void conv_backward_x(const ConvArgs& a) {
  const Pass f(a, true);
  if (whole_backward_x(a) || (!few_rows(f) && (run_pointwise(a, true) || run_hopper(a, true)))) return;
  run_pass(f, a.N);
}

}  // namespace tw::cuda
