// Depthwise convolution (groups == C == O) in one and two dimensions, and its gradients: one filter a plane.
//
// Shapes and dtypes as in conv.cpp, with w (C, 1, kh, kw). Each sum has only kh * kw terms (for dw: N * oh * ow), too
// few for a matrix product, so planes are computed directly. Method: the plane is copied into scratch with its padding,
// in the type of the arithmetic, its rows and columns sorted by their remainder by the stride. Then each tap of all
// positions is one run of memory, and vectors go over the plane as if it were one long row: what they compute at the
// padding's places is dropped (dw: masked), and a 7 x 7 plane fills its vectors as well as a large one. dx takes its
// pixels by phase, as in conv.cpp. dw keeps one vector of sums a tap, added up over the images in order.
// Accumulates in float32, or float64 for float64. Error: gamma(kh * kw), for dw gamma(oh * ow / lanes + N). Measured by
// tests/op_table/conv.py.
#include "kernels/cpu/planes.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kStrip = 2048;  // positions whose sums stay in L1 until they are stored

// y[oy * y_row + ox * y_col] = bias + sum over taps of w * plane, for rows x cols positions, `width` apart in the plane.
template <class T, class S>
void correlate(S* y, int64_t rows, int64_t cols, int64_t y_row, int64_t y_col, const T* plane, int64_t width,
               const T* w, const Tap* taps, int64_t count, T bias, T* sums) {
  constexpr int L = Vec<T>::kLanes, kTogether = 4;
  const int64_t rows_of_strip = most(1, kStrip / width);
  for (int64_t row = 0; row < rows; row += rows_of_strip) {
    const int64_t here = least(rows_of_strip, rows - row), length = (here - 1) * width + cols;
    for (int64_t p = 0; p < length; p += kTogether * L) {
      Vec<T> acc[kTogether];
      for (int q = 0; q < kTogether; ++q) acc[q] = Vec<T>(bias);
      for (int64_t t = 0; t < count; ++t) {
        const Vec<T> weight(w[taps[t].weight]);
        const T* from = plane + taps[t].at + row * width + p;
#pragma GCC unroll 4
        for (int q = 0; q < kTogether; ++q) acc[q] = fma(weight, Vec<T>::load(from + q * L), acc[q]);
      }
      for (int q = 0; q < kTogether; ++q) acc[q].store(sums + p + q * L);
    }
    store_rows(y + row * y_row, here, cols, y_row, y_col, sums, width);
  }
}

template <class T> int64_t strip_room(int64_t width) { return most(kStrip, width) + kSlack<T>; }

// The padded plane that the forward pass reads: as far as the last position's last tap, at least round the image.
Sorted padded_input(const ConvArgs& a) {
  int64_t size[2];
  for (int d = 0; d < 2; ++d)
    size[d] = most(a.size[d + 1] + a.pad[d + 1],
                   (a.out[d + 1] - 1) * a.stride[d + 1] + (a.kernel[d + 1] - 1) * a.dilation[d + 1] + 1);
  return Sorted(size[0], size[1], a.stride[1], a.stride[2]);
}
void input_taps(const ConvArgs& a, const Sorted& plane, Tap* taps) {
  for (int64_t r = 0; r < a.kernel[1]; ++r)
    for (int64_t s = 0; s < a.kernel[2]; ++s)
      taps[r * a.kernel[2] + s] = {r * a.kernel[2] + s, plane.at(r * a.dilation[1], s * a.dilation[2])};
}

}  // namespace

template <class T, class S> void depthwise(const ConvArgs& a) {
  const Sorted plane = padded_input(a);
  const int64_t count = a.kernel[1] * a.kernel[2], size = a.size[1] * a.size[2], P = a.out[1] * a.out[2];
  Tap* taps = static_cast<Tap*>(scratch(3, sizeof(Tap) * count));
  input_taps(a, plane, taps);
  parallel_ranges(a.N * a.C, ceil_div(kPiece, P * count), [&](int64_t begin, int64_t end) {
    const int64_t room = round_up(plane.size() + kSlack<T>, Vec<T>::kLanes);
    T* x = static_cast<T*>(scratch(0, sizeof(T) * (room + strip_room<T>(plane.width) + count)));
    T *sums = x + room, *w = sums + strip_room<T>(plane.width);
    clear(x, room);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % a.C;
      plane.fill(x, static_cast<const S*>(a.x) + i * size, a.size[1], a.size[2], a.pad[1], a.pad[2]);
      convert(w, static_cast<const S*>(a.w) + c * count, count);
      T bias = T(0);
      if (a.b) convert(&bias, static_cast<const S*>(a.b) + c, 1);
      correlate(static_cast<S*>(a.y) + i * P, a.out[1], a.out[2], a.out[2], 1, x, plane.width, w, taps, count, bias,
                sums);
    }
  });
}

template <class T, class S> void depthwise_backward_x(const ConvArgs& a) {
  // The pixels phase, phase + stride, ... meet tap r at dy's row (phase + pad - r * dilation) / stride and those after
  // it, if that is a whole number. dy is padded as far as any tap of any phase reaches.
  const int64_t count = a.kernel[1] * a.kernel[2], size = a.size[1] * a.size[2], P = a.out[1] * a.out[2];
  int64_t before[2] = {}, reach[2];
  for (int d = 0; d < 2; ++d) {
    const int64_t n = a.size[d + 1], stride = a.stride[d + 1];
    reach[d] = a.out[d + 1];
    for (int64_t phase = 0; phase < least(stride, n); ++phase)
      for (int64_t r = 0; r < a.kernel[d + 1]; ++r) {
        const int64_t at = phase + a.pad[d + 1] - r * a.dilation[d + 1];
        if (at % stride) continue;
        before[d] = most(before[d], -at / stride);
        reach[d] = most(reach[d], at / stride + ceil_div(n - phase, stride));
      }
  }
  const Sorted plane(before[0] + reach[0], before[1] + reach[1], 1, 1);
  // The taps of each phase, and where the next one's begin.
  const int64_t phases_x = least(a.stride[2], a.size[2]), phases = least(a.stride[1], a.size[1]) * phases_x;
  Tap* taps = static_cast<Tap*>(scratch(3, sizeof(Tap) * count + sizeof(int64_t) * (phases + 1)));
  auto* first = reinterpret_cast<int64_t*>(taps + count);
  int64_t n = 0;
  for (int64_t phase = 0; phase < phases; ++phase) {
    first[phase] = n;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t y = phase / phases_x + a.pad[1] - t / a.kernel[2] * a.dilation[1];
      const int64_t x = phase % phases_x + a.pad[2] - t % a.kernel[2] * a.dilation[2];
      if (y % a.stride[1] == 0 && x % a.stride[2] == 0)
        taps[n++] = {t, plane.at(before[0] + y / a.stride[1], before[1] + x / a.stride[2])};
    }
  }
  first[phases] = n;
  parallel_ranges(a.N * a.C, ceil_div(kPiece, P * count), [&](int64_t begin, int64_t end) {
    const int64_t room = round_up(plane.size() + kSlack<T>, Vec<T>::kLanes);
    T* dy = static_cast<T*>(scratch(0, sizeof(T) * (room + strip_room<T>(plane.width) + count)));
    T *sums = dy + room, *w = sums + strip_room<T>(plane.width);
    clear(dy, room);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % a.C;
      plane.fill(dy, static_cast<const S*>(a.dy) + i * P, a.out[1], a.out[2], before[0], before[1]);
      convert(w, static_cast<const S*>(a.w) + c * count, count);
      T bias = T(0);
      if (a.b) convert(&bias, static_cast<const S*>(a.b) + c, 1);
      for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t py = phase / phases_x, px = phase % phases_x;
        correlate(static_cast<S*>(a.y) + i * size + py * a.size[2] + px, ceil_div(a.size[1] - py, a.stride[1]),
                  ceil_div(a.size[2] - px, a.stride[2]), a.stride[1] * a.size[2], a.stride[2], dy, plane.width, w,
                  taps + first[phase], first[phase + 1] - first[phase], bias, sums);
      }
    }
  });
}

template <class T, class S> void depthwise_backward_w(const ConvArgs& a) {
  constexpr int L = Vec<T>::kLanes, kTogether = 9;  // as many sums at once hide the latency of an addition
  const Sorted plane = padded_input(a);
  const int64_t count = a.kernel[1] * a.kernel[2], size = a.size[1] * a.size[2], P = a.out[1] * a.out[2];
  const int64_t length = (a.out[1] - 1) * plane.width + a.out[2], whole = round_up(length, L);
  const int64_t totals = round_up(count, kTogether);
  // All ones where the long row holds positions: what lies between them may be infinite, and times 0 is not 0.
  Tap* taps = static_cast<Tap*>(scratch(3, sizeof(Tap) * totals + sizeof(T) * (whole + L)));
  auto* mask = reinterpret_cast<typename Mask<T>::Native*>(
      (reinterpret_cast<uintptr_t>(taps + totals) + sizeof(Vec<T>) - 1) / sizeof(Vec<T>) * sizeof(Vec<T>));
  input_taps(a, plane, taps);
  for (int64_t t = count; t < totals; ++t) taps[t] = taps[count - 1];
  for (int64_t p = 0; p < whole; ++p) mask[p / L][p % L] = p < length && p % plane.width < a.out[2] ? -1 : 0;
  parallel_for(a.C, [&](int64_t c) {
    const int64_t room = round_up(plane.size() + kSlack<T>, L);
    T* x = static_cast<T*>(scratch(0, sizeof(T) * (room + whole + totals * (L + 1))));
    T *dy = x + room, *total = dy + whole, *sums = total + totals * L;
    clear(x, room + whole);
    clear(total, totals * L);
    for (int64_t n = 0; n < a.N; ++n) {
      plane.fill(x, static_cast<const S*>(a.x) + (n * a.C + c) * size, a.size[1], a.size[2], a.pad[1], a.pad[2]);
      for (int64_t oy = 0; oy < a.out[1]; ++oy)
        copy_line(dy + oy * plane.width, static_cast<const S*>(a.dy) + (n * a.C + c) * P + oy * a.out[2], 1, a.out[2],
                  a.out[2]);
      for (int64_t t = 0; t < count; t += kTogether) {
        const T* from[kTogether];
        Vec<T> acc[kTogether];
        for (int q = 0; q < kTogether; ++q) {
          from[q] = x + taps[t + q].at;
          acc[q] = Vec<T>(T(0));
        }
        for (int64_t p = 0; p < length; p += L) {
          const Vec<T> d = Vec<T>::load(dy + p), zero(T(0));
          const Mask<T> kept(mask[p / L]);
#pragma GCC unroll 9
          for (int q = 0; q < kTogether; ++q) acc[q] = fma(d, select(kept, Vec<T>::load(from[q] + p), zero), acc[q]);
        }
        for (int q = 0; q < kTogether; ++q) {
          T* to = total + (t + q) * L;
          (Vec<T>::load(to) + acc[q]).store(to);
        }
      }
    }
    for (int64_t t = 0; t < count; ++t) sums[t] = sum(Vec<T>::load(total + t * L));
    convert(static_cast<S*>(a.y) + c * count, static_cast<const T*>(sums), count);
  });
}

#define TW_X(T, S)                                           \
  template void depthwise<T, S>(const ConvArgs&);            \
  template void depthwise_backward_x<T, S>(const ConvArgs&); \
  template void depthwise_backward_w<T, S>(const ConvArgs&);
TW_X(float, float16)
TW_X(float, bfloat16)
TW_X(float, float)
TW_X(double, double)
#undef TW_X

}  // namespace tw::TW_ISA
