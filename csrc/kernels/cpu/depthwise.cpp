// Depthwise convolution (groups == C == O) in one and two dimensions and its gradients: one filter a plane.
//
// Shapes and dtypes as in conv.cpp, with w (C, 1, kh, kw). Each sum has only kh * kw terms (for dw: N * oh * ow),
// too few for a matrix product, so planes are computed directly, vectors along a row. Method: the plane is first
// copied into scratch with its padding, in the type of the arithmetic; then every tap of every row is an unmasked
// run. dx with a stride spreads dy over the plane with zeros between, which makes it a plain correlation with the
// turned filter. dw keeps one vector of sums a tap and plane, added up over the images in order.
// Accumulates in float32, or float64 for float64. Error: gamma(kh * kw), for dw gamma(oh * ow / lanes + N). Measured by
// tests/op_table/conv.py.
#include "kernels/cpu/gemm.h"

namespace tw::TW_ISA {
namespace {

// Elements 0, step, 2 step, ... of p: n of them, and zeros or anything behind them. Planes have a vector of slack at
// their end, which a load may touch.
template <class T> TW_INLINE Vec<T> load_step(const T* p, int64_t step, int n) {
  if (step == 1) return Vec<T>::load(p, n);
  if (step == 2) return load_even(p);
  typename Vec<T>::Native v = {};
  for (int i = 0; i < Vec<T>::kLanes; ++i)
    if (i < n) v[i] = p[i * step];
  return v;
}

// A plane (height x width) with zeros round it and, for spread > 1, between its elements.
template <class T> struct Padded {
  T* data;
  int64_t width;

  template <class S>
  void fill(const S* x, int64_t rows, int64_t cols, int64_t height, int64_t top, int64_t left, int64_t spread_y,
            int64_t spread_x) {
    for (int64_t i = 0; i < height * width; ++i) data[i] = T(0);
    for (int64_t y = 0; y < rows; ++y) {
      T* to = data + (top + y * spread_y) * width + left;
      if (spread_x == 1) convert(to, x + y * cols, cols);
      else
        for (int64_t i = 0; i < cols; ++i) convert(to + i * spread_x, x + y * cols + i, 1);
    }
  }
};

// y (rows x cols) = bias + sum over taps of w * the plane
template <class T, class S>
void correlate(S* y, int64_t rows, int64_t cols, const Padded<T>& plane, const T* w, T bias, const ConvArgs& a,
               int64_t stride_h, int64_t stride_w) {
  constexpr int L = Vec<T>::kLanes;
  for (int64_t oy = 0; oy < rows; ++oy)
    for (int64_t ox = 0; ox < cols; ox += L) {
      const int n = int(least(L, cols - ox));
      Vec<T> acc(bias);
      for (int64_t r = 0; r < a.kernel[1]; ++r) {
        const T* from = plane.data + (oy * stride_h + r * a.dilation[1]) * plane.width + ox * stride_w;
        for (int64_t s = 0; s < a.kernel[2]; ++s)
          acc = fma(Vec<T>(w[r * a.kernel[2] + s]), load_step(from + s * a.dilation[2], stride_w, n), acc);
      }
      store_as(y + oy * cols + ox, acc, n);
    }
}

// The padded plane that the forward pass reads: it reaches as far as the last position's last tap, at least round the image.
int64_t padded(int64_t size, int64_t pad, int64_t positions, int64_t stride, int64_t taps, int64_t dilation) {
  return most(size + pad, (positions - 1) * stride + (taps - 1) * dilation + 1);
}

constexpr int64_t kPiece = 1 << 16;  // multiply-adds worth handing to another thread

}  // namespace

template <class T, class S> void depthwise(const ConvArgs& a) {
  const int64_t height = padded(a.size[1], a.pad[1], a.out[1], a.stride[1], a.kernel[1], a.dilation[1]);
  const int64_t width = padded(a.size[2], a.pad[2], a.out[2], a.stride[2], a.kernel[2], a.dilation[2]),
                taps = a.kernel[1] * a.kernel[2];
  parallel_ranges(a.N * a.C, ceil_div(kPiece, a.out[1] * a.out[2] * taps), [&](int64_t begin, int64_t end) {
    T* w = static_cast<T*>(scratch(0, sizeof(T) * (taps + height * width + 2 * Vec<T>::kLanes)));
    Padded<T> plane{w + taps, width};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % a.C;
      plane.fill(static_cast<const S*>(a.x) + i * a.size[1] * a.size[2], a.size[1], a.size[2], height, a.pad[1],
                 a.pad[2], 1, 1);
      convert(w, static_cast<const S*>(a.w) + c * taps, taps);
      T bias = T(0);
      if (a.b) convert(&bias, static_cast<const S*>(a.b) + c, 1);
      correlate(static_cast<S*>(a.y) + i * a.out[1] * a.out[2], a.out[1], a.out[2], plane, w, bias, a, a.stride[1],
                a.stride[2]);
    }
  });
}

template <class T, class S> void depthwise_backward_x(const ConvArgs& a) {
  // dx[y, x] meets dy at (y + pad - r * dilation) / stride; with the filter turned, taps begin `reach - pad` above y.
  // Padding may exceed the filter's reach: then rows of dy lie above the first one that any pixel meets.
  const int64_t reach_h = (a.kernel[1] - 1) * a.dilation[1], reach_w = (a.kernel[2] - 1) * a.dilation[2],
                taps = a.kernel[1] * a.kernel[2];
  const int64_t skip_h = a.pad[1] > reach_h ? a.pad[1] - reach_h : 0,
                skip_w = a.pad[2] > reach_w ? a.pad[2] - reach_w : 0;
  const int64_t top = reach_h - a.pad[1] + skip_h, left = reach_w - a.pad[2] + skip_w;
  const int64_t height = most(skip_h + a.size[1] + reach_h, top + (a.out[1] - 1) * a.stride[1] + 1);
  const int64_t width = most(skip_w + a.size[2] + reach_w, left + (a.out[2] - 1) * a.stride[2] + 1);
  parallel_ranges(a.N * a.C, ceil_div(kPiece, a.size[1] * a.size[2] * taps), [&](int64_t begin, int64_t end) {
    T* w = static_cast<T*>(scratch(0, sizeof(T) * (2 * taps + height * width)));
    T* turned = w + taps;
    Padded<T> plane{turned + taps, width}, seen{plane.data + skip_h * width + skip_w, width};
    for (int64_t i = begin; i < end; ++i) {
      plane.fill(static_cast<const S*>(a.dy) + i * a.out[1] * a.out[2], a.out[1], a.out[2], height, top, left,
                 a.stride[1], a.stride[2]);
      convert(w, static_cast<const S*>(a.w) + i % a.C * taps, taps);
      for (int64_t t = 0; t < taps; ++t) turned[t] = w[taps - 1 - t];
      T bias = T(0);
      if (a.b) convert(&bias, static_cast<const S*>(a.b) + i % a.C, 1);
      correlate(static_cast<S*>(a.y) + i * a.size[1] * a.size[2], a.size[1], a.size[2], seen, turned, bias, a, 1, 1);
    }
  });
}

template <class T, class S> void depthwise_backward_w(const ConvArgs& a) {
  constexpr int L = Vec<T>::kLanes, kTogether = 4;  // as many sums at once hide the latency of an addition
  const int64_t height = padded(a.size[1], a.pad[1], a.out[1], a.stride[1], a.kernel[1], a.dilation[1]);
  const int64_t width = padded(a.size[2], a.pad[2], a.out[2], a.stride[2], a.kernel[2], a.dilation[2]),
                taps = a.kernel[1] * a.kernel[2], P = a.out[1] * a.out[2];
  parallel_for(a.C, [&](int64_t c) {
    T* sums = static_cast<T*>(scratch(0, sizeof(T) * (taps + height * width + 2 * L + P)));
    T* dy = sums + taps + height * width + 2 * L;
    Padded<T> plane{sums + taps, width};
    for (int64_t t = 0; t < taps; ++t) sums[t] = T(0);
    for (int64_t n = 0; n < a.N; ++n) {
      plane.fill(static_cast<const S*>(a.x) + (n * a.C + c) * a.size[1] * a.size[2], a.size[1], a.size[2], height,
                 a.pad[1], a.pad[2], 1, 1);
      convert(dy, static_cast<const S*>(a.dy) + (n * a.C + c) * P, P);
      for (int64_t t = 0; t < taps; t += kTogether) {
        const T* from[kTogether];
        Vec<T> acc[kTogether];
        for (int q = 0; q < kTogether; ++q) {
          const int64_t tap = least(t + q, taps - 1);
          from[q] = plane.data + tap / a.kernel[2] * a.dilation[1] * width + tap % a.kernel[2] * a.dilation[2];
          acc[q] = Vec<T>(T(0));
        }
        for (int64_t oy = 0; oy < a.out[1]; ++oy)
          for (int64_t ox = 0; ox < a.out[2]; ox += L) {
            const int m = int(least(L, a.out[2] - ox));
            const int64_t at = oy * a.stride[1] * width + ox * a.stride[2];
            const Vec<T> d = Vec<T>::load(dy + oy * a.out[2] + ox, m);
            const auto whole = Mask<T>::iota() < Mask<T>(m);
#pragma GCC unroll 4
            for (int q = 0; q < kTogether; ++q) {
              Vec<T> x = load_step(from[q] + at, a.stride[2], m);
              if (m < L) x = select(whole, x, Vec<T>(T(0)));  // an infinity behind them times 0 is not 0
              acc[q] = fma(d, x, acc[q]);
            }
          }
        for (int q = 0; q < kTogether && t + q < taps; ++q) sums[t + q] += sum(acc[q]);
      }
    }
    convert(static_cast<S*>(a.y) + c * taps, static_cast<const T*>(sums), taps);
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
