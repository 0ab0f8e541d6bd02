// conv2d and its gradients by input and by weight, NCHW, any stride, padding, dilation and groups.
//
// x (N, C, H, W), w (O, C / groups, kh, kw), y and dy (N, O, oh, ow); float16, bfloat16, float32 (all accumulate in
// float32) and float64. For each group, with positions p = (n, oy, ox) folded into one long dimension:
//   y  (O, p)        = w (O, (c, r, s))          @ x at ((c, r, s), p)
//   dw (O, (c, r, s)) = dy (O, p)                @ x at (p, (c, r, s)),   K = N * oh * ow split by size
//   dx (C, p)        = w^T (C, (o, r, s))        @ dy at ((o, r, s), p)
// Method: implicit GEMM on the core of gemm.h. The image is never unfolded: panels are packed straight from it, zeros
// where a tap falls into the padding. For dx with a stride, pixels are taken by phase (y mod stride, x mod stride):
// within one phase each tap meets either every pixel or none, so that no multiplication is by an inserted zero.
// One channel a group (depthwise): depthwise.cpp. Error bound: gemm.h's. Measured by tests/op_table/products.py.
#include "kernels/cpu/gemm.h"

namespace tw::TW_ISA {

template <class T, class S> void depthwise(const Conv2dArgs& a);
template <class T, class S> void depthwise_backward_x(const Conv2dArgs& a);
template <class T, class S> void depthwise_backward_w(const Conv2dArgs& a);

namespace {

// dst[i] = src[i * step] for i < n. May write zeros behind them, up to dst[room].
template <class T, class S> TW_INLINE void copy_line(T* dst, const S* src, int64_t step, int64_t n, int64_t room) {
  constexpr int L = Vec<T>::kLanes;
  int64_t i = 0;
  if (step == 1) {
    for (; i + L <= n; i += L) load_as<T>(src + i).store(dst + i);
    if (i == n) return;
    const Vec<T> rest = load_as<T>(src + i, int(n - i));
    if (i + L <= room) rest.store(dst + i);
    else rest.store(dst + i, int(n - i));
    return;
  }
  if constexpr (kSame<T, S>)
    if (step == 2)
      for (; i + L <= n; i += L) load_even(src + 2 * i).store(dst + i);
  for (; i < n; ++i) {
    if constexpr (kSame<T, S>) dst[i] = src[i * step];
    else convert(dst + i, src + i * step, 1);
  }
}
template <class T> TW_INLINE void zero_line(T* dst, int64_t n, int64_t room) {
  constexpr int L = Vec<T>::kLanes;
  const Vec<T> zero(T(0));
  int64_t i = 0;
  for (; i < n && i + L <= room; i += L) zero.store(dst + i);
  if (i < n) zero.store(dst + i, int(n - i));
}

// The values that the taps (c, r, s) see from the positions (n, oy, ox): channel c at row oy * step_y + tap_y[r],
// column ox * step_x + tap_x[s], or 0 outside the image.
template <class S> struct Image {
  const S* data;        // the group's first channel of image 0
  int64_t image, H, W;  // elements between images
  int64_t rows, cols;   // of positions in one image
  int64_t step_y, step_x;
  const int64_t *tap_y, *tap_x;
  int64_t kh, kw;

  struct Run {
    int64_t data, oy, ox, length;
  };  // positions in one row; data: offset of their image

  // The run that begins at position p and has at most `room` positions.
  TW_INLINE Run run(int64_t p, int64_t room) const {
    const int64_t row = p / cols, n = row / rows, ox = p - row * cols;
    return {n * image, row - n * rows, ox, least(cols - ox, room)};
  }
  // Which i of a run whose first column is x (of tap s) lie in the image: lo <= i < hi.
  TW_INLINE void clip(int64_t x, int64_t length, int64_t* lo, int64_t* hi) const {
    *lo = x >= 0 ? 0 : step_x == 1 ? -x : ceil_div(-x, step_x);
    *hi = x >= W ? 0 : least(length, step_x == 1 ? W - x : ceil_div(W - x, step_x));
  }
  // One tap's view of a run, `row` being its row of the image (null: outside).
  template <class T> TW_INLINE void line(T* to, const S* row, int64_t x, int64_t length, int64_t room) const {
    int64_t lo, hi;
    clip(x, length, &lo, &hi);
    if (!row || lo >= hi) return zero_line(to, length, room);
    if (lo > 0 || hi < length) zero_line(to, length, room);
    copy_line(to + lo, row + x + lo * step_x, step_x, hi - lo, room - lo);
  }

  // Positions along the lanes: dst[kk * kNr + jj] = value of tap k + kk at position j + jj. Runs are taken from left to
  // right, since one may write past its end into the next.
  template <class T> void pack_positions(T* dst, int64_t j, int n, int64_t k, int64_t count) const {
    constexpr int L = Vec<T>::kLanes;
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    int64_t leftmost = 0, rightmost = 0;
    for (int64_t s = 0; s < kw; ++s) {
      leftmost = s == 0 ? tap_x[s] : least(leftmost, tap_x[s]);
      rightmost = s == 0 ? tap_x[s] : most(rightmost, tap_x[s]);
    }
    for (int64_t done = 0; done < n;) {
      const Run run = this->run(j + done, n - done);
      const int64_t room = kNr - done, x = run.ox * step_x;
      const bool inside = x + leftmost >= 0 && x + (run.length - 1) * step_x + rightmost < W;
      for (int64_t r = 0; r < kh; ++r) {
        const int64_t y = run.oy * step_y + tap_y[r];
        const bool seen = y >= 0 && y < H;
        // The rows of taps (c, r, 0 : kw) that meet k .. k + count.
        const int64_t c0 = (k / kw - r + kh - 1) / kh, c1 = ceil_div(ceil_div(k + count, kw) - r, kh);
        for (int64_t c = c0; c < c1; ++c) {
          const int64_t first = (c * kh + r) * kw - k, s0 = first < 0 ? -first : 0, s1 = least(kw, count - first);
          const S* row = data + run.data + (c * H + y) * W;
          T* to = dst + first * kNr + done;
          if (seen && inside && step_x == 1 && run.length == kNr) {
            for (int64_t s = s0; s < s1; ++s)
#pragma GCC unroll 4
              for (int i = 0; i < kNr; i += L) load_as<T>(row + x + tap_x[s] + i).store(to + s * kNr + i);
          } else if (seen && inside) {
            for (int64_t s = s0; s < s1; ++s) copy_line(to + s * kNr, row + x + tap_x[s], step_x, run.length, room);
          } else if (!seen) {
            for (int64_t s = s0; s < s1; ++s) zero_line(to + s * kNr, run.length, room);
          } else {
            for (int64_t s = s0; s < s1; ++s) line(to + s * kNr, row, x + tap_x[s], run.length, room);
          }
        }
      }
      done += run.length;
    }
    if (n % L)
      for (int64_t kk = 0; kk < count; ++kk) zero_line(dst + kk * kNr + n, round_up(n, L) - n, kNr - n);
  }

  // Taps along the lanes: dst[kk * kNr + jj] = value of tap j + jj at position k + kk. A part of k at a time for all
  // lanes, so that what is written stays in L1 until its lines are full.
  template <class T> void pack_taps(T* dst, int64_t j, int n, int64_t k, int64_t count) const {
    constexpr int L = Vec<T>::kLanes, kPart = 64;
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    const int64_t taps = kh * kw;
    Run runs[kPart];
    T columns[4][kPart];
    for (int64_t k0 = 0; k0 < count; k0 += kPart, dst += kPart * kNr) {
      const int64_t length = least(kPart, count - k0);
      int lines = 0;
      for (int64_t done = 0; done < length; done += runs[lines++].length)
        runs[lines] = run(k + k0 + done, length - done);
      for (int64_t i = 0; i < round_up(n, L); i += 4) {
        for (int q = 0; q < 4; ++q) {
          const int64_t lane = least(j + i + q, j + n - 1), c = lane / taps, r = lane % taps / kw, s = lane % kw;
          T* to = columns[q];
          int64_t room = kPart;
          for (int at = 0; at < lines; ++at) {
            const Run& u = runs[at];
            const int64_t y = u.oy * step_y + tap_y[r];
            const S* row = y >= 0 && y < H ? data + u.data + (c * H + y) * W : nullptr;
            line(to, row, u.ox * step_x + tap_x[s], u.length, room);
            to += u.length;
            room -= u.length;
          }
        }
        T* to = dst + i;
        int64_t kk = 0;
        for (; kk + 4 <= length; kk += 4)
          transpose4(to + kk * kNr, kNr, columns[0] + kk, columns[1] + kk, columns[2] + kk, columns[3] + kk);
        for (; kk < length; ++kk)
          for (int q = 0; q < 4; ++q) to[kk * kNr + q] = columns[q][kk];
      }
    }
  }
};

// y = w @ x, and dx = w^T @ dy one phase at a time: the results' positions lie out_y and out_x apart.
template <class T, class S> struct PositionsProduct {
  const S* w;  // (M, K)
  int64_t K;
  Image<S> image;
  Epilogue<T> end;
  int64_t first_row;  // of this group, for the bias
  int64_t out_start, out_image, out_plane, out_y, out_x;

  TW_INLINE void pack_a(T* dst, int64_t i, int rows, int64_t k, int64_t count) const {
    pack_strided(dst, kStepA<T>, w + i * K + k, K, 1, rows, count, 4);
  }
  TW_INLINE void pack_b(T* dst, int64_t j, int cols, int64_t k, int64_t count) const {
    image.pack_positions(dst, j, cols, k, count);
  }
  TW_INLINE const T* direct_b(int64_t, int64_t, int64_t*) const { return nullptr; }
  TW_INLINE void store(int64_t i, int64_t j, int64_t cols, const T* sums) const {
    const int64_t per_image = image.rows * image.cols, plane = out_start + i * out_plane;
    if (out_x == 1 && out_y == image.cols) {
      while (cols > 0) {
        const int64_t n = j / per_image, p = j - n * per_image, length = least(cols, per_image - p);
        end.row(plane + n * out_image + p, first_row + i, length, sums);
        j += length;
        cols -= length;
        sums += length;
      }
      return;
    }
    while (cols > 0) {
      const int64_t row = j / image.cols, n = row / image.rows, ox = j - row * image.cols;
      const int64_t at = plane + n * out_image + (row - n * image.rows) * out_y + ox * out_x;
      const int64_t length = least(cols, image.cols - ox);
      if (out_x == 1) end.row(at, first_row + i, length, sums);
      else
        for (int64_t q = 0; q < length; ++q) end.row(at + q * out_x, first_row + i, 1, sums + q);
      j += length;
      cols -= length;
      sums += length;
    }
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

// x as conv2d sees it. A 1x1 kernel that reads every pixel once sees each plane as one long row.
template <class S> Image<S> input_image(const Conv2dArgs& a, int64_t* taps) {
  Image<S> image{static_cast<const S*>(a.x),
                 a.C * a.H * a.W,
                 a.H,
                 a.W,
                 a.oh,
                 a.ow,
                 a.stride_h,
                 a.stride_w,
                 taps,
                 taps + a.kh,
                 a.kh,
                 a.kw};
  for (int64_t r = 0; r < a.kh; ++r) taps[r] = r * a.dilation_h - a.pad_h;
  for (int64_t s = 0; s < a.kw; ++s) taps[a.kh + s] = s * a.dilation_w - a.pad_w;
  const bool pointwise = a.kh == 1 && a.kw == 1 && a.stride_h == 1 && a.stride_w == 1 && a.pad_h == 0 && a.pad_w == 0;
  if (pointwise) {
    image.W = image.cols = a.H * a.W;
    image.H = image.rows = 1;
  }
  return image;
}

bool is_depthwise(const Conv2dArgs& a) { return a.groups == a.C && a.groups == a.O && a.groups > 1; }

template <class T, class S> void forward(const Conv2dArgs& a) {
  if (is_depthwise(a)) return depthwise<T, S>(a);
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, K = Cg * a.kh * a.kw, P = a.oh * a.ow;
  auto* taps = static_cast<int64_t*>(scratch(3, sizeof(int64_t) * (a.kh + a.kw)));
  const Image<S> image = input_image<S>(a, taps);
  const PositionsProduct<T, S> first{
      static_cast<const S*>(a.w), K, image, epilogue<T>(a.y, a.b, a.dtype), 0, 0, a.O * P, P, image.cols, 1};
  run_groups<T>(
      first,
      [=](PositionsProduct<T, S>& p, int64_t g) {
        p.w += g * Og * K;
        p.image.data += g * Cg * a.H * a.W;
        p.first_row = g * Og;
        p.out_start = g * Og * P;
      },
      a.groups, Og, a.N * P, K);
}

template <class T, class S> void backward_w(const Conv2dArgs& a) {
  if (is_depthwise(a)) return depthwise_backward_w<T, S>(a);
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, taps_of_row = Cg * a.kh * a.kw, P = a.oh * a.ow;
  auto* taps = static_cast<int64_t*>(scratch(3, sizeof(int64_t) * (a.kh + a.kw)));
  const TapsProduct<T, S> first{static_cast<const S*>(a.dy),        a.O * P, P,          input_image<S>(a, taps),
                                epilogue<T>(a.y, nullptr, a.dtype), 0,       taps_of_row};
  run_groups<T>(
      first,
      [=](TapsProduct<T, S>& p, int64_t g) {
        p.dy += g * Og * P;
        p.image.data += g * Cg * a.H * a.W;
        p.out_start = g * Og * taps_of_row;
      },
      a.groups, Og, taps_of_row, a.N * P);
}

// The taps that pixels y = phase, phase + stride, ... meet: dy's row for the first of them goes to offsets, the tap's
// number to which. Returns how many.
int64_t phase_taps(int64_t phase, int64_t taps, int64_t stride, int64_t pad, int64_t dilation, int64_t* offsets,
                   int64_t* which) {
  int64_t n = 0;
  for (int64_t r = 0; r < taps; ++r) {
    const int64_t at = phase + pad - r * dilation;
    if (at % stride) continue;
    offsets[n] = at / stride;
    which[n++] = r;
  }
  return n;
}

template <class T, class S> void backward_x(const Conv2dArgs& a) {
  if (is_depthwise(a)) return depthwise_backward_x<T, S>(a);
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, taps = a.kh * a.kw, HW = a.H * a.W, P = a.oh * a.ow;
  auto* offsets = static_cast<int64_t*>(scratch(3, sizeof(int64_t) * 2 * (a.kh + a.kw) + sizeof(S) * a.O * Cg * taps));
  int64_t *offsets_x = offsets + a.kh, *which_y = offsets_x + a.kw, *which_x = which_y + a.kh;
  S* wt = reinterpret_cast<S*>(which_x + a.kw);
  const S* w = static_cast<const S*>(a.w);
  for (int64_t py = 0; py < least(a.stride_h, a.H); ++py) {
    const int64_t kh = phase_taps(py, a.kh, a.stride_h, a.pad_h, a.dilation_h, offsets, which_y);
    for (int64_t px = 0; px < least(a.stride_w, a.W); ++px) {
      const int64_t kw = phase_taps(px, a.kw, a.stride_w, a.pad_w, a.dilation_w, offsets_x, which_x);
      const int64_t K = Og * kh * kw;
      for (int64_t g = 0; g < a.groups; ++g)  // (groups, Og, Cg, kh, kw) -> (groups, Cg, Og, taps of this phase)
        for (int64_t c = 0; c < Cg; ++c)
          for (int64_t o = 0; o < Og; ++o) {
            S* to = wt + ((g * Cg + c) * Og + o) * kh * kw;
            const S* from = w + ((g * Og + o) * Cg + c) * taps;
            for (int64_t r = 0; r < kh; ++r)
              for (int64_t s = 0; s < kw; ++s) to[r * kw + s] = from[which_y[r] * a.kw + which_x[s]];
          }
      Image<S> image{static_cast<const S*>(a.dy),
                     a.O * P,
                     a.oh,
                     a.ow,
                     ceil_div(a.H - py, a.stride_h),
                     ceil_div(a.W - px, a.stride_w),
                     1,
                     1,
                     offsets,
                     offsets_x,
                     kh,
                     kw};
      int64_t out_y = a.stride_h * a.W;
      const bool pointwise = taps == 1 && a.stride_h == 1 && a.stride_w == 1 && a.pad_h == 0 && a.pad_w == 0;
      if (pointwise) {
        image.W = image.cols = out_y = HW;
        image.H = image.rows = 1;
      }
      const PositionsProduct<T, S> first{
          wt, K, image, epilogue<T>(a.y, nullptr, a.dtype), 0, py * a.W + px, a.C * HW, HW, out_y, a.stride_w};
      run_groups<T>(
          first,
          [=](PositionsProduct<T, S>& p, int64_t g) {
            p.w += g * Cg * K;
            p.image.data += g * Og * P;
            p.out_start += g * Cg * HW;
          },
          a.groups, Cg, a.N * image.rows * image.cols, K);
    }
  }
}

}  // namespace

#define TW_CONV(name, function)                                   \
  void name(const Conv2dArgs& a) {                                \
    switch (a.dtype) {                                            \
      case DType::kFloat16: return function<float, float16>(a);   \
      case DType::kBFloat16: return function<float, bfloat16>(a); \
      case DType::kFloat64: return function<double, double>(a);   \
      default: return function<float, float>(a);                  \
    }                                                             \
  }
TW_CONV(conv2d, forward)
TW_CONV(conv2d_backward_x, backward_x)
TW_CONV(conv2d_backward_w, backward_w)

}  // namespace tw::TW_ISA
