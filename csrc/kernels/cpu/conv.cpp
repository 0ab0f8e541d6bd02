// conv and its gradients by input and by weight, NC(D)(H)W, any stride, padding, dilation and groups.
//
// x (N, C, D, H, W), w (O, C / groups, kd, kh, kw), y and dy (N, O, od, oh, ow); float16, bfloat16, float32 (all
// accumulate in float32) and float64. One and two dimensions are three with leading sizes of 1. A transposed
// convolution is backward_x, with a bias. For a group, with positions p = (n, oz, oy, ox) folded into one dimension:
//   y  (O, p)           = w (O, (c, q, r, s))    @ x at ((c, q, r, s), p)
//   dw (O, (c, q, r, s)) = dy (O, p)             @ x at (p, (c, q, r, s)),   K = N * od * oh * ow split by size
//   dx (C, p)           = w^T (C, (o, q, r, s))  @ dy at ((o, q, r, s), p)
// Method: implicit GEMM on the core of gemm.h, panels packed straight from the image (conv_image.h). For dx with a
// stride, pixels are taken by phase (y mod stride, x mod stride, ...): within one phase each tap meets either every
// pixel or none, so that no multiplication is by an inserted zero.
// That is the way of filters of one tap, of results of few pixels or few channels a group, and of the rest of what the
// others refuse. One channel a group (depthwise): depthwise.cpp; few results a pixel: conv_few.cpp; 3x3 filters with
// many channels: winograd.cpp (dilated ones too, taken apart by ops/conv.cpp); everything else: conv_direct.cpp. Error
// bound: gemm.h's. Measured by tests/op_table/conv.py. What still misses 1x PyTorch (AMD EPYC, family 25 model 17, two
// threads): dx of 1-D filters with one channel in and 128 out, stride 5 (0.65 to 0.9: M = 1, each phase a thin product
// over strided results; conv_few keeps whole rows, and 128 rows of 16,000 samples do not fit its strip); 1x1 of 1024 ->
// 512 channels on 14 x 14 at batch 16 (0.97, both at 175 to 180 of 236 GFLOP/s).
#include "kernels/cpu/conv_direct.h"
#include "kernels/cpu/conv_few.h"
#include "kernels/cpu/winograd.h"

namespace tw::TW_ISA {

template <class T, class S> void depthwise(const ConvArgs& a);
template <class T, class S> void depthwise_backward_x(const ConvArgs& a);
template <class T, class S> void depthwise_backward_w(const ConvArgs& a);

namespace {

// y = w @ x, and dx = w^T @ dy one phase at a time: the results' positions lie out_z, out_y and out_x apart.
template <class T, class S> struct PositionsProduct {
  const S* w;           // (M, K): rows w_row apart, the elements of one row at w_at[k], or w_col apart
  const int64_t* w_at;  // or null
  int64_t w_row, w_col;
  Image<S> image;
  Epilogue<T> end;
  int64_t first_row;  // of this group, for the bias
  int64_t out_start, out_image, out_plane, out_z, out_y, out_x;
  bool pointwise;

  TW_INLINE void pack_a(T* dst, int64_t i, int rows, int64_t k, int64_t count) const {
    const S* from = w + i * w_row;
    if (!w_at) return pack_strided(dst, kStepA<T>, from + k * w_col, w_row, w_col, rows, count, 4);
    S lanes[kStepA<T>];
    for (int64_t kk = 0; kk < count; ++kk, dst += kStepA<T>) {
      const S* p = from + w_at[k + kk];
      for (int ii = 0; ii < kStepA<T>; ++ii, p += ii < rows ? w_row : 0) lanes[ii] = *p;
      convert(dst, static_cast<const S*>(lanes), kStepA<T>);
    }
  }
  TW_INLINE void pack_b(T* dst, int64_t j, int cols, int64_t k, int64_t count) const {
    image.pack_positions(dst, j, cols, k, count);
  }
  TW_INLINE const T* direct_a(int64_t i, int64_t k, int64_t* row, int64_t* col) const {
    *row = w_row;
    *col = w_col;
    return kSame<T, S> && !w_at ? reinterpret_cast<const T*>(w + i * w_row + k * w_col) : nullptr;
  }
  // Filters of one tap that meet every pixel read whole panels of one image where it is.
  TW_INLINE const T* direct_b(int64_t j, int64_t k, int64_t* step) const {
    const int64_t n = j / image.cols, p = j - n * image.cols;
    if (!kSame<T, S> || !pointwise || p + kNr < T >> image.cols) return nullptr;
    *step = image.cols;
    return reinterpret_cast<const T*>(image.data + n * image.image + k * image.cols + p);
  }
  // Unfinished sums may lie in y, where the columns are one run of it.
  TW_INLINE T* direct_c(int64_t i, int64_t j, int, int cols, int64_t* row) const {
    const int64_t run = dense() ? image.positions() : image.cols, at = j % run;
    if (out_x != 1 || at + cols > run || end.c_dtype != dtype_of<T>) return nullptr;
    *row = out_plane;
    return static_cast<T*>(end.c) + place(j / run) + i * out_plane + at;
  }
  TW_INLINE bool finishes() const { return end.bias != nullptr; }
  TW_INLINE void store(int64_t i, int64_t j, int64_t cols, const T* sums) const {
    const int64_t run = dense() ? image.positions() : image.cols;  // this many positions lie side by side
    while (cols > 0) {
      const int64_t row = j / run, at_x = j - row * run, length = least(cols, run - at_x);
      const int64_t at = place(row) + i * out_plane + at_x * out_x;
      if (out_x == 1) end.row(at, first_row + i, length, sums);
      else scatter(at, first_row + i, length, sums);
      j += length;
      cols -= length;
      sums += length;
    }
  }

 private:
  TW_INLINE bool dense() const {
    return out_x == 1 && out_y == image.cols && (image.planes == 1 || out_z == image.rows * image.cols);
  }
  // One row's sums to every out_x-th element.
  TW_INLINE void scatter(int64_t at, int64_t row, int64_t n, const T* sums) const {
    if constexpr (kSame<T, S>) {
      T *to = static_cast<T*>(end.c) + at, bias = end.bias ? static_cast<const T*>(end.bias)[row] : T(0);
      for (int64_t q = 0; q < n; ++q) to[q * out_x] = sums[q] + bias;
    } else {
      for (int64_t q = 0; q < n; ++q) end.row(at + q * out_x, row, 1, sums + q);
    }
  }
  // Where the run number `row` of channel 0 begins: an image, or one of its rows.
  TW_INLINE int64_t place(int64_t row) const {
    if (dense()) return out_start + row * out_image;
    const int64_t plane = row / image.rows, n = plane / image.planes;
    return out_start + n * out_image + (plane - n * image.planes) * out_z + (row - plane * image.rows) * out_y;
  }
};

// dw = dy @ x^T over positions.
template <class T, class S> struct TapsProduct {
  const S* dy;  // the group's first channel of image 0
  int64_t dy_image, positions;
  Image<S> image;
  Epilogue<T> end;
  int64_t out_start, out_row;

  TW_INLINE void pack_a(T* dst, int64_t i, int rows, int64_t k, int64_t count) const {
    for (int64_t done = 0; done < count;) {
      const int64_t n = (k + done) / positions, p = k + done - n * positions;
      const int64_t length = least(count - done, positions - p);
      pack_strided(dst + done * kStepA<T>, kStepA<T>, dy + n * dy_image + i * positions + p, positions, 1, rows, length,
                   4);
      done += length;
    }
  }
  TW_INLINE void pack_b(T* dst, int64_t j, int cols, int64_t k, int64_t count) const {
    image.pack_taps(dst, j, cols, k, count);
  }
  TW_INLINE const T* direct_b(int64_t, int64_t, int64_t*) const { return nullptr; }
  TW_INLINE T* direct_c(int64_t i, int64_t j, int, int, int64_t* row) const {
    *row = out_row;
    return end.c_dtype == dtype_of<T> ? static_cast<T*>(end.c) + out_start + i * out_row + j : nullptr;
  }
  TW_INLINE bool finishes() const { return false; }
  TW_INLINE void store(int64_t i, int64_t j, int64_t cols, const T* sums) const {
    end.row(out_start + i * out_row + j, 0, cols, sums);
  }
};

// product(g) = first, moved to group g by the problem's own steps.
template <class Product, class Move> struct Grouped {
  Product first;
  Move move;
  TW_INLINE Product product(int64_t group) const {
    Product p = first;
    move(p, group);
    return p;
  }
};
template <class T, class Product, class Move>
void run_groups(const Product& first, const Move& move, int64_t groups, int64_t M, int64_t N, int64_t K) {
  gemm_core<T>(Grouped<Product, Move>{first, move}, groups, M, N, K);
}

template <class T> Epilogue<T> epilogue(void* c, const void* bias, DType dtype) {
  return {c, bias, dtype, dtype, true, Activation::kNone, 1, 0};
}

int64_t volume(const int64_t* sizes) { return sizes[0] * sizes[1] * sizes[2]; }

// Every pixel is read once, by a filter of one tap: each image is one long row.
bool is_pointwise(const ConvArgs& a) {
  for (int d = 0; d < 3; ++d)
    if (a.kernel[d] != 1 || a.stride[d] != 1 || a.pad[d] != 0 || a.out[d] != a.size[d]) return false;
  return true;
}
// Filters of one tap read panels where they are. gemm.h asks once for all of them where panels are whole, so
// then none may reach over the end of an image.
template <class T> bool reads_in_place(const ConvArgs& a) {
  const int64_t size = volume(a.size);
  return is_pointwise(a) && (a.N == 1 || size % kNr<T> == 0 || a.N * size % kNr<T> != 0);
}
bool is_depthwise(const ConvArgs& a) {
  return a.groups == a.C && a.groups == a.O && a.groups > 1 && a.size[0] == 1 && a.out[0] == 1 && a.kernel[0] == 1 &&
         a.pad[0] == 0;
}

// x as the forward pass sees it; the taps go to memory for kd + kh + kw numbers.
template <class S> Image<S> input_image(const ConvArgs& a, int64_t* taps) {
  const int64_t* tap[3];
  for (int d = 0; d < 3; ++d) {
    tap[d] = taps;
    for (int64_t r = 0; r < a.kernel[d]; ++r) *taps++ = r * a.dilation[d] - a.pad[d];
  }
  const int64_t size = volume(a.size);
  Image<S> image{static_cast<const S*>(a.x),
                 a.C * size,
                 a.size[0],
                 a.size[1],
                 a.size[2],
                 a.out[0],
                 a.out[1],
                 a.out[2],
                 a.stride[0],
                 a.stride[1],
                 a.stride[2],
                 tap[0],
                 tap[1],
                 tap[2],
                 a.kernel[0],
                 a.kernel[1],
                 a.kernel[2]};
  if (is_pointwise(a)) {
    image.W = image.cols = size;
    image.D = image.H = image.planes = image.rows = 1;
  }
  return image;
}
int64_t* taps_scratch(const ConvArgs& a, int64_t more = 0) {
  const int64_t taps = a.kernel[0] + a.kernel[1] + a.kernel[2];
  return static_cast<int64_t*>(scratch(3, sizeof(int64_t) * (2 * taps + more)));
}

template <class T, class S> void forward(const ConvArgs& a) {
  if (is_depthwise(a)) return depthwise<T, S>(a);
  if (worth_few(a, a.O, a.C)) return conv_few<T, S>(a);
  if constexpr (kSame<T, float>)
    if (worth_winograd(a)) return winograd<S>(a);
  if (!is_pointwise(a) && conv_direct<T, S>(a, false)) return;
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, K = Cg * volume(a.kernel), P = volume(a.out);
  const Image<S> image = input_image<S>(a, taps_scratch(a));
  const PositionsProduct<T, S> first{static_cast<const S*>(a.w),
                                     nullptr,
                                     K,
                                     1,
                                     image,
                                     epilogue<T>(a.y, a.b, a.dtype),
                                     0,
                                     0,
                                     a.O * P,
                                     P,
                                     image.rows * image.cols,
                                     image.cols,
                                     1,
                                     reads_in_place<T>(a)};
  const int64_t x_step = Cg * volume(a.size);
  run_groups<T>(
      first,
      [=](PositionsProduct<T, S>& p, int64_t g) {
        p.w += g * Og * K;
        p.image.data += g * x_step;
        p.first_row = g * Og;
        p.out_start = g * Og * P;
      },
      a.groups, Og, a.N * P, K);
}

template <class T, class S> void backward_w(const ConvArgs& a) {
  if (is_depthwise(a)) return depthwise_backward_w<T, S>(a);
  const int64_t P = volume(a.out);
  if constexpr (kSame<T, float>)
    if (worth_winograd(a)) return winograd_backward_w<S>(a);
  constexpr int64_t kFewPositions = 512;  // below, reading and turning sums as large as dw costs more
  if (a.N * P >= kFewPositions && conv_direct_backward_w<T, S>(a)) return;
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, taps_of_row = Cg * volume(a.kernel);
  const TapsProduct<T, S> first{
      static_cast<const S*>(a.dy),        a.O * P, P,          input_image<S>(a, taps_scratch(a)),
      epilogue<T>(a.y, nullptr, a.dtype), 0,       taps_of_row};
  const int64_t x_step = Cg * volume(a.size);
  run_groups<T>(
      first,
      [=](TapsProduct<T, S>& p, int64_t g) {
        p.dy += g * Og * P;
        p.image.data += g * x_step;
        p.out_start = g * Og * taps_of_row;
      },
      a.groups, Og, taps_of_row, a.N * P);
}

// The taps that pixels y = phase, phase + stride, ... meet: dy's row for the first of them goes to offsets, the tap's
// number to which. Returns how many.
int64_t phase_taps(const ConvArgs& a, int d, int64_t phase, int64_t* offsets, int64_t* which) {
  int64_t n = 0;
  for (int64_t r = 0; r < a.kernel[d]; ++r) {
    const int64_t at = phase + a.pad[d] - r * a.dilation[d];
    if (at % a.stride[d]) continue;
    offsets[n] = at / a.stride[d];
    which[n++] = r;
  }
  return n;
}

// Whether y is one pixel that sees all of x once.
bool is_whole(const ConvArgs& a) {
  for (int d = 0; d < 3; ++d)
    if (a.kernel[d] != a.size[d] || a.pad[d] != 0 || a.out[d] != 1 || (a.dilation[d] != 1 && a.size[d] > 1))
      return false;
  return true;
}

template <class T, class S> void backward_x(const ConvArgs& a) {
  if (is_whole(a) && a.groups == 1 && !a.b && !is_pointwise(a)) {
    // dx (N, C taps) = dy (N, O) @ w (O, C taps): filters of one tap, with w as the image.
    ConvArgs f = a;
    f.x = a.w, f.w = a.dy;
    f.N = 1, f.C = a.O, f.O = a.N;
    for (int d = 0; d < 3; ++d) f.size[d] = f.out[d] = f.kernel[d] = f.stride[d] = f.dilation[d] = 1;
    f.size[2] = f.out[2] = a.C * volume(a.size);
    return forward<T, S>(f);
  }
  if (is_depthwise(a)) return depthwise_backward_x<T, S>(a);
  if (worth_few(a, a.C, a.O)) return conv_few_backward_x<T, S>(a);
  if constexpr (kSame<T, float>)
    if (worth_winograd(a)) return winograd_backward_x<S>(a);
  if (!is_pointwise(a) && conv_direct<T, S>(a, true)) return;
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, taps = volume(a.kernel), P = volume(a.out);
  const int64_t D = a.size[0], H = a.size[1], W = a.size[2], size = D * H * W;
  int64_t *tables = taps_scratch(a, Og * taps), *offsets[3], *which[3];
  for (int d = 0; d < 3; ++d) {
    offsets[d] = tables;
    which[d] = tables + a.kernel[d];
    tables += 2 * a.kernel[d];
  }
  const bool pointwise = is_pointwise(a);
  const int64_t phases = least(a.stride[0], D) * least(a.stride[1], H) * least(a.stride[2], W);
  // Phases that no tap meets are zeros, written at once unless there is a bias.
  bool untouched = false;
  for (int d = 0; d < 3; ++d)
    for (int64_t phase = 0; phase < least(a.stride[d], a.size[d]); ++phase)
      untouched |= phase_taps(a, d, phase, offsets[d], which[d]) == 0;
  untouched = untouched && !a.b;
  if (untouched) {
    constexpr int64_t kBytes = 1 << 18;
    const int64_t bytes = a.N * a.C * size * int64_t(sizeof(S));
    parallel_for(ceil_div(bytes, kBytes), [&](int64_t piece) {
      __builtin_memset(static_cast<char*>(a.y) + piece * kBytes, 0, size_t(least(kBytes, bytes - piece * kBytes)));
    });
  }
  for (int64_t i = 0; i < phases; ++i) {
    const int64_t px = i % least(a.stride[2], W), rest = i / least(a.stride[2], W);
    const int64_t phase[3] = {rest / least(a.stride[1], H), rest % least(a.stride[1], H), px};
    int64_t k[3];
    for (int d = 0; d < 3; ++d) k[d] = phase_taps(a, d, phase[d], offsets[d], which[d]);
    if (untouched && k[0] * k[1] * k[2] == 0) continue;
    int64_t K = 0;
    for (int64_t o = 0; o < Og; ++o)  // where w has the terms (o, q, r, s) of this phase
      for (int64_t q = 0; q < k[0]; ++q)
        for (int64_t r = 0; r < k[1]; ++r)
          for (int64_t s = 0; s < k[2]; ++s)
            tables[K++] = o * Cg * taps + (which[0][q] * a.kernel[1] + which[1][r]) * a.kernel[2] + which[2][s];
    Image<S> image{static_cast<const S*>(a.dy),
                   a.O * P,
                   a.out[0],
                   a.out[1],
                   a.out[2],
                   ceil_div(D - phase[0], a.stride[0]),
                   ceil_div(H - phase[1], a.stride[1]),
                   ceil_div(W - phase[2], a.stride[2]),
                   1,
                   1,
                   1,
                   offsets[0],
                   offsets[1],
                   offsets[2],
                   k[0],
                   k[1],
                   k[2]};
    if (pointwise) {
      image.W = image.cols = size;
      image.D = image.H = image.planes = image.rows = 1;
    }
    const PositionsProduct<T, S> first{static_cast<const S*>(a.w),
                                       taps == 1 ? nullptr : tables,
                                       taps,
                                       Cg * taps,
                                       image,
                                       epilogue<T>(a.y, a.b, a.dtype),
                                       0,
                                       (phase[0] * H + phase[1]) * W + phase[2],
                                       a.C * size,
                                       size,
                                       a.stride[0] * H * W,
                                       pointwise ? size : a.stride[1] * W,
                                       a.stride[2],
                                       reads_in_place<T>(a)};
    run_groups<T>(
        first,
        [=](PositionsProduct<T, S>& p, int64_t g) {
          p.w += g * Og * Cg * taps;
          p.image.data += g * Og * P;
          p.first_row = g * Cg;
          p.out_start += g * Cg * size;
        },
        a.groups, Cg, a.N * image.positions(), K);
  }
}

}  // namespace

#define TW_CONV(name, function)                                   \
  void name(const ConvArgs& a) {                                  \
    switch (a.dtype) {                                            \
      case DType::kFloat16: return function<float, float16>(a);   \
      case DType::kBFloat16: return function<float, bfloat16>(a); \
      case DType::kFloat64: return function<double, double>(a);   \
      default: return function<float, float>(a);                  \
    }                                                             \
  }
TW_CONV(conv, forward)
TW_CONV(conv_backward_x, backward_x)
TW_CONV(conv_backward_w, backward_w)

}  // namespace tw::TW_ISA
