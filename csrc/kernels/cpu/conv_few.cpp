// Convolution with few results a pixel: y with few output channels, and dx with few input channels (first layers).
//
// Shapes and dtypes as in conv.cpp, ungrouped, of stride 1 in depth: there each plane of the filters reads one plane
// more. A matrix product with so few rows costs more for its panels than for its multiplications, so nothing is packed:
// a strip of all planes is copied with its padding, sorted by the stride (planes.h), after which every tap of all
// positions is one run of memory, and the register tile is kRows channels by kVectors vectors of positions. dx takes
// its pixels by phase, as in conv.cpp. Accumulates in float32, or float64 for float64, one chain of multiply-adds over
// channels and taps. Measured by tests/op_table/conv.py.
#include "kernels/cpu/conv_few.h"

#include "kernels/cpu/planes.h"

namespace tw::TW_ISA {
namespace {

constexpr int kRows = 4, kVectors = TW_VEC_BYTES == 64 ? 4 : 2;
constexpr int64_t kPhases = 64, kTaps = 1024, kDeep = 16, kStripBytes = 256 << 10, kStripLength = 4096;

// R channels' sums over all planes and taps, for `length` positions; w[(t * planes + c) * w_step].
template <int R, class T>
void sums_of(T* sums, int64_t sums_row, int64_t length, const T* x, int64_t plane, int64_t planes, const int64_t* taps,
             int64_t count, const T* w, int64_t w_step, const T* bias) {
  constexpr int L = Vec<T>::kLanes;
  for (int64_t p = 0; p < length; p += kVectors * L) {
    Vec<T> acc[R][kVectors];
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < kVectors; ++q) acc[r][q] = Vec<T>(bias[r]);
    const T* weight = w;
    for (int64_t t = 0; t < count; ++t) {
      const T* from = x + taps[t] + p;
      for (int64_t c = 0; c < planes; ++c, from += plane, weight += w_step) {
        Vec<T> b[kVectors];
#pragma GCC unroll 4
        for (int q = 0; q < kVectors; ++q) b[q] = Vec<T>::load(from + q * L);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const Vec<T> a(weight[r]);
#pragma GCC unroll 4
          for (int q = 0; q < kVectors; ++q) acc[r][q] = fma(a, b[q], acc[r][q]);
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < kVectors; ++q) acc[r][q].store(sums + r * sums_row + p + q * L);
  }
}
template <int R, class T, class... Rest> void run_sums(int64_t rows, const Rest&... rest) {
  if (rows == R) return sums_of<R, T>(rest...);
  if constexpr (R > 1) run_sums<R - 1, T>(rows, rest...);
}

// One pass: `planes` planes in (channels times the filters' depth), `results` planes out; in each phase, every position
// meets the same taps.
struct Phase {
  int64_t rows, cols, out;  // positions; where the first one's result lies
  int64_t first, count;     // of its taps
};
struct Pass {
  int64_t N, planes, results, height, width;        // of the planes read
  int64_t top, left, padded_width, steps[2];        // padding before, and the whole padded width
  int64_t reach;                                    // rows that the taps of one position span
  int64_t out_height, out_width, out_row, out_col;  // of the planes written; steps between a phase's results
  int64_t phases, taps;
  Phase phase[kPhases];
  int64_t tap_y[kTaps], tap_x[kTaps], weight[kTaps];  // in the padded plane; the number in w (results, planes, ...)
  int64_t w_result, w_channel, w_deep;
  int64_t depth, out_depth, deep, tap_z[kDeep];  // of the planes read and written; the filters' planes, deep
};

template <class T, class S> void run(const Pass& f, const void* in, const void* w, const void* bias, void* out) {
  constexpr int L = Vec<T>::kLanes;
  const int64_t columns = ceil_div(f.padded_width, f.steps[1]);
  const int64_t by_memory = kStripBytes / int64_t(sizeof(T)) / (f.planes * f.padded_width * f.steps[0]);
  int64_t rows = 0;  // of positions, at most
  for (int64_t i = 0; i < f.phases; ++i) rows = most(rows, f.phase[i].rows);
  const int64_t strip =
      most(1, least(least(rows, 16), least(kStripLength / columns, by_memory - f.reach / f.steps[0])));
  const Sorted plane((strip - 1) * f.steps[0] + f.reach, f.padded_width, f.steps[0], f.steps[1]);
  const int64_t plane_room = round_up(plane.size(), L) + L, strips = ceil_div(rows, strip);
  // Weights in the order in which they are used, for kRows channels at a time.
  const int64_t groups = ceil_div(f.results, kRows), used = f.taps * f.planes * kRows;
  T* weights = static_cast<T*>(scratch(3, sizeof(T) * groups * (used + kRows)));
  T* biases = weights + groups * used;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t m = least(g * kRows + r, f.results - 1);
      biases[g * kRows + r] = T(0);
      if (bias) convert(biases + g * kRows + r, static_cast<const S*>(bias) + m, 1);
      for (int64_t t = 0; t < f.taps; ++t)
        for (int64_t c = 0; c < f.planes; ++c)
          convert(weights + g * used + (t * f.planes + c) * kRows + r,
                  static_cast<const S*>(w) + m * f.w_result + c / f.deep * f.w_channel + c % f.deep * f.w_deep +
                      f.weight[t],
                  1);
    }
  parallel_for(f.N * f.out_depth * strips, [&](int64_t piece) {
    const int64_t row = piece % strips * strip, n = piece / strips / f.out_depth, z = piece / strips % f.out_depth;
    const int64_t sums_row = strip * plane.width + kVectors * L, all = f.planes * plane_room + kSlack<T>;
    T* x = static_cast<T*>(scratch(0, sizeof(T) * (all + kRows * sums_row) + sizeof(int64_t) * f.taps));
    T* sums = x + all;
    auto* taps = reinterpret_cast<int64_t*>(sums + kRows * sums_row);
    for (int64_t i = 0; i < all; i += L) Vec<T>(T(0)).store(x + i);
    const int64_t y0 = most(0, row * f.steps[0] - f.top);
    const int64_t y1 = least(f.height, row * f.steps[0] - f.top + (strip - 1) * f.steps[0] + f.reach);
    for (int64_t c = 0; y0 < y1 && c < f.planes; ++c) {
      const int64_t at = z + f.tap_z[c % f.deep];
      if (at < 0 || at >= f.depth) continue;
      const int64_t image = (n * (f.planes / f.deep) + c / f.deep) * f.depth + at;
      plane.fill(x + c * plane_room, static_cast<const S*>(in) + (image * f.height + y0) * f.width, y1 - y0, f.width,
                 y0 + f.top - row * f.steps[0], f.left);
    }
    for (int64_t t = 0; t < f.taps; ++t) taps[t] = plane.at(f.tap_y[t], f.tap_x[t]);
    for (int64_t i = 0; i < f.phases; ++i) {
      const Phase& phase = f.phase[i];
      const int64_t here = least(strip, phase.rows - row);
      if (here <= 0) continue;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t m = g * kRows, count = least(kRows, f.results - m);
        run_sums<kRows, T>(count, sums, sums_row, (here - 1) * plane.width + phase.cols, static_cast<const T*>(x),
                           plane_room, f.planes, static_cast<const int64_t*>(taps + phase.first), phase.count,
                           static_cast<const T*>(weights + g * used + phase.first * f.planes * kRows), int64_t(kRows),
                           static_cast<const T*>(biases + m));
        for (int64_t r = 0; r < count; ++r)
          store_rows(static_cast<S*>(out) + ((n * f.results + m + r) * f.out_depth + z) * f.out_height * f.out_width +
                         phase.out + row * f.out_row,
                     here, phase.cols, f.out_row, f.out_col, static_cast<const T*>(sums + r * sums_row), plane.width);
      }
    }
  });
}

}  // namespace

template <class T, class S> void conv_few(const ConvArgs& a) {
  Pass f{};
  f.N = a.N, f.deep = a.kernel[0], f.planes = a.C * f.deep, f.results = a.O;
  f.depth = a.size[0], f.height = a.size[1], f.width = a.size[2], f.out_depth = a.out[0];
  for (int64_t q = 0; q < f.deep; ++q) f.tap_z[q] = q * a.dilation[0] - a.pad[0];
  f.top = a.pad[1], f.left = a.pad[2];
  f.steps[0] = a.stride[1], f.steps[1] = a.stride[2];
  f.reach = (a.kernel[1] - 1) * a.dilation[1] + 1;
  f.padded_width = most(a.size[2] + a.pad[2], (a.out[2] - 1) * a.stride[2] + (a.kernel[2] - 1) * a.dilation[2] + 1);
  f.out_height = a.out[1], f.out_width = f.out_row = a.out[2], f.out_col = 1;
  f.taps = f.w_deep = a.kernel[1] * a.kernel[2];
  f.w_channel = f.deep * f.taps, f.w_result = a.C * f.w_channel;
  for (int64_t t = 0; t < f.taps; ++t) {
    f.tap_y[t] = t / a.kernel[2] * a.dilation[1];
    f.tap_x[t] = t % a.kernel[2] * a.dilation[2];
    f.weight[t] = t;
  }
  f.phases = 1;
  f.phase[0] = {a.out[1], a.out[2], 0, 0, f.taps};
  run<T, S>(f, a.x, a.w, a.b, a.y);
}

template <class T, class S> void conv_few_backward_x(const ConvArgs& a) {
  Pass f{};
  f.N = a.N, f.deep = a.kernel[0], f.planes = a.O * f.deep, f.results = a.C;
  f.depth = a.out[0], f.height = a.out[1], f.width = a.out[2], f.out_depth = a.size[0];
  for (int64_t q = 0; q < f.deep; ++q) f.tap_z[q] = a.pad[0] - q * a.dilation[0];
  f.steps[0] = f.steps[1] = 1;
  f.out_height = a.size[1], f.out_width = a.size[2];
  f.out_row = a.stride[1] * a.size[2], f.out_col = a.stride[2];
  const int64_t taps = f.w_deep = a.kernel[1] * a.kernel[2];
  f.w_result = f.deep * taps, f.w_channel = a.C * f.w_result;
  // Pixel phase + j stride meets tap r at dy's row (phase + pad - r dilation) / stride + j, if that is whole.
  const int64_t phases_x = least(a.stride[2], a.size[2]);
  f.phases = least(a.stride[1], a.size[1]) * phases_x;
  f.padded_width = a.out[2];
  int64_t low_y = 0, high_y = 0;
  for (int64_t i = 0; i < f.phases; ++i) {
    const int64_t py = i / phases_x, px = i % phases_x;
    Phase& phase = f.phase[i];
    phase = {ceil_div(a.size[1] - py, a.stride[1]), ceil_div(a.size[2] - px, a.stride[2]), py * a.size[2] + px, f.taps,
             0};
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t y = py + a.pad[1] - t / a.kernel[2] * a.dilation[1];
      const int64_t x = px + a.pad[2] - t % a.kernel[2] * a.dilation[2];
      if (y % a.stride[1] || x % a.stride[2]) continue;
      f.tap_y[f.taps] = y / a.stride[1];
      f.tap_x[f.taps] = x / a.stride[2];
      low_y = least(low_y, f.tap_y[f.taps]);
      high_y = most(high_y, f.tap_y[f.taps]);
      f.left = most(f.left, -f.tap_x[f.taps]);
      f.padded_width = most(f.padded_width, f.tap_x[f.taps] + phase.cols);
      f.weight[f.taps++] = t;
    }
    phase.count = f.taps - phase.first;
  }
  f.top = -low_y;
  f.reach = high_y - low_y + 1;
  f.padded_width += f.left;
  for (int64_t t = 0; t < f.taps; ++t) f.tap_y[t] += f.top, f.tap_x[t] += f.left;
  run<T, S>(f, a.dy, a.w, a.b, a.y);
}

bool worth_few(const ConvArgs& a, int64_t results, int64_t planes) {
  return a.groups == 1 && results <= 2 * kRows && a.kernel[0] <= kDeep && a.stride[0] == 1 &&
         a.kernel[1] * a.kernel[2] > 1 && a.kernel[1] * a.kernel[2] <= kTaps && a.stride[1] * a.stride[2] <= kPhases &&
         planes * a.kernel[0] * (a.dilation[1] * a.kernel[1] + a.stride[1]) * (a.size[2] + a.out[2]) <= 1 << 19;
}

#define TW_X(T, S)                               \
  template void conv_few<T, S>(const ConvArgs&); \
  template void conv_few_backward_x<T, S>(const ConvArgs&);
TW_X(float, float16)
TW_X(float, bfloat16)
TW_X(float, float)
TW_X(double, double)
#undef TW_X

}  // namespace tw::TW_ISA
