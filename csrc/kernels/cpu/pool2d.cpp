// Pooling over windows of (planes, H, W): maximum, average and adaptive average, forward and backward.
//
// float32, float64, and float16/bfloat16 through a float32 copy of the plane. max: y = max of the window's valid
// items, NaN if any is; indices = position in the H*W plane, the first maximum (the last NaN) of the window in row
// order. avg: y = sum(window) / divisor. adaptive: output i covers input rows floor(i*H/oh) .. ceil((i+1)*H/oh) - 1.
// Sums run in the compute type, row by row of the window; a whole plane's by kLanes running sums, begun anew every
// kRun items, then a fixed tree. Error: at most (window items + 1) ulp of the mean magnitude, which the op table's rows
// measure; max is exact.
// Backward writes dx whole; planes are independent and each is filled in the order of the outputs, so repeated
// positions add in a fixed order. Method: one pass over an output row for each window item, so that the loop that runs
// along the row vectorises for any stride; 2x2 stride 2 has its own loop. Bytes: x and y once, plus indices.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // items of x a piece reads: enough to be worth waking a thread

TW_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// What an output row or column sees of one window item: outputs [begin, end), the first of which reads `first`.
struct Reach {
  int64_t begin, end, first;
};
TW_INLINE Reach reach(int64_t item, int64_t size, int64_t out, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t at = item * dilation - pad;  // where output 0 reads
  const int64_t begin = at < 0 ? ceil_div(-at, stride) : 0;
  const int64_t end = at < size ? least(out, (size - 1 - at) / stride + 1) : 0;
  return {begin, most(begin, end), at + begin * stride};
}

// body(x plane, y plane, indices plane) in T for each plane; halves go through float copies of both.
template <class T, class S, class F> void for_planes(const Pool2dArgs& a, int64_t x_size, int64_t y_size, F&& body) {
  const int64_t grain = most(1, kPiece / most(x_size, y_size));
  const S* x = static_cast<const S*>(a.x);
  S* y = static_cast<S*>(a.y);
  int64_t* indices = static_cast<int64_t*>(a.indices);
  const int64_t index_size = a.oh * a.ow;
  parallel_ranges(a.planes, grain, [&](int64_t begin, int64_t end) {
    T* staged = nullptr;
    if constexpr (!kSame<T, S>) staged = static_cast<T*>(scratch(0, static_cast<size_t>(x_size + y_size) * sizeof(T)));
    for (int64_t p = begin; p < end; ++p) {
      int64_t* at = indices ? indices + p * index_size : nullptr;
      if constexpr (kSame<T, S>) {
        body(x + p * x_size, y + p * y_size, at);
      } else {
        convert(staged, x + p * x_size, x_size);
        body(static_cast<const T*>(staged), staged + x_size, at);
        convert(y + p * y_size, static_cast<const T*>(staged + x_size), y_size);
      }
    }
  });
}

template <class Op> void by_dtype(const Pool2dArgs& a, Op op) {
  switch (a.dtype) {
    case DType::kFloat32: return op.template run<float, float>(a);
    case DType::kFloat64: return op.template run<double, double>(a);
    case DType::kFloat16: return op.template run<float, float16>(a);
    case DType::kBFloat16: return op.template run<float, bfloat16>(a);
    default: return;
  }
}

// --- maximum --
template <class T> using Position = typename IntOf<T>::type;  // as wide as T, so that a row's loop is one vector width

template <class T> TW_INLINE bool beats(T v, T best) { return v > best || v != v; }

// 2x2, stride 2, no padding: the whole row in one pass.
template <class T, bool kIndices>
void max_row_2x2(const T* __restrict x0, const T* __restrict x1, T* __restrict y, Position<T>* __restrict at,
                 Position<T> first, Position<T> W, int64_t ow) {
  for (int64_t o = 0; o < ow; ++o) {
    const T a = x0[2 * o], b = x0[2 * o + 1], c = x1[2 * o], d = x1[2 * o + 1];
    T best = a;
    Position<T> where = 0;
    where = beats(b, best) ? 1 : where;
    best = beats(b, best) ? b : best;
    where = beats(c, best) ? W : where;
    best = beats(c, best) ? c : best;
    where = beats(d, best) ? W + 1 : where;
    best = beats(d, best) ? d : best;
    y[o] = best;
    if constexpr (kIndices) at[o] = first + Position<T>(2 * o) + where;
  }
}

template <class T, bool kIndices>
TW_INLINE void max_row_step(const T* __restrict x, int64_t stride, T* __restrict y, Position<T>* __restrict at,
                            Position<T> first, int64_t n) {
  for (int64_t o = 0; o < n; ++o) {
    const T v = x[o * stride], best = y[o];
    const bool take = beats(v, best);
    y[o] = take ? v : best;
    if constexpr (kIndices) at[o] = take ? first + Position<T>(o * stride) : at[o];
  }
}

template <class T, bool kIndices> void max_plane(const Pool2dArgs& a, const T* x, T* y, int64_t* indices) {
  const bool plain = a.kh == 2 && a.kw == 2 && a.stride_h == 2 && a.stride_w == 2 && a.pad_h == 0 && a.pad_w == 0 &&
                     a.dilation_h == 1 && a.dilation_w == 1 && 2 * a.oh <= a.H && 2 * a.ow <= a.W;
  auto* at = kIndices ? static_cast<Position<T>*>(scratch(1, static_cast<size_t>(a.ow) * sizeof(T))) : nullptr;
  for (int64_t h = 0; h < a.oh; ++h) {
    T* row = y + h * a.ow;
    if (plain) {
      const T* x0 = x + 2 * h * a.W;
      max_row_2x2<T, kIndices>(x0, x0 + a.W, row, at, Position<T>(2 * h * a.W), Position<T>(a.W), a.ow);
    } else {
      // -infinity at the window's first valid position: what a window of nothing else answers.
      int64_t top = h * a.stride_h - a.pad_h;
      if (top < 0) top += ceil_div(-top, a.dilation_h) * a.dilation_h;
      for (int64_t o = 0; o < a.ow; ++o) {
        row[o] = -T(__builtin_inff());
        if constexpr (kIndices) {
          int64_t left = o * a.stride_w - a.pad_w;
          if (left < 0) left += ceil_div(-left, a.dilation_w) * a.dilation_w;
          at[o] = Position<T>(top * a.W + left);
        }
      }
      for (int64_t i = 0; i < a.kh; ++i) {
        const int64_t r = h * a.stride_h - a.pad_h + i * a.dilation_h;
        if (r < 0 || r >= a.H) continue;
        for (int64_t j = 0; j < a.kw; ++j) {
          const Reach c = reach(j, a.W, a.ow, a.stride_w, a.pad_w, a.dilation_w);
          const int64_t first = r * a.W + c.first, n = c.end - c.begin;
          auto* to = kIndices ? at + c.begin : nullptr;
          // A stride the compiler knows turns strided reads into shuffles.
          if (a.stride_w == 1) max_row_step<T, kIndices>(x + first, 1, row + c.begin, to, Position<T>(first), n);
          else if (a.stride_w == 2) max_row_step<T, kIndices>(x + first, 2, row + c.begin, to, Position<T>(first), n);
          else max_row_step<T, kIndices>(x + first, a.stride_w, row + c.begin, to, Position<T>(first), n);
        }
      }
    }
    if constexpr (kIndices)
      for (int64_t o = 0; o < a.ow; ++o) indices[h * a.ow + o] = at[o];
  }
}

struct Max {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.H * a.W, a.oh * a.ow, [&](const T* x, T* y, int64_t* indices) {
      if (indices) max_plane<T, true>(a, x, y, indices);
      else max_plane<T, false>(a, x, y, nullptr);
    });
  }
};

template <class T> TW_INLINE void clear(T* p, int64_t n) { __builtin_memset(p, 0, static_cast<size_t>(n) * sizeof(T)); }

struct MaxBackward {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.oh * a.ow, a.H * a.W, [&](const T* dy, T* dx, int64_t* indices) {
      clear(dx, a.H * a.W);
      for (int64_t o = 0; o < a.oh * a.ow; ++o) dx[indices[o]] += dy[o];
    });
  }
};

// --- average --
// The divisor of each output is that of its row part times that of its column part, except for the override.
TW_INLINE int64_t covered(const Pool2dArgs& a, int64_t o, int64_t size, int64_t k, int64_t stride, int64_t pad) {
  const int64_t begin = o * stride - pad, end = least(begin + k, size + pad);
  return a.count_include_pad ? end - begin : least(end, size) - most(begin, 0);
}

template <class T> void column_counts(const Pool2dArgs& a, T* counts) {
  for (int64_t o = 0; o < a.ow; ++o)
    counts[o] = a.divisor != 0 ? T(1) : T(covered(a, o, a.W, a.kw, a.stride_w, a.pad_w));
}
template <class T> TW_INLINE T row_count(const Pool2dArgs& a, int64_t h) {
  return a.divisor != 0 ? T(a.divisor) : T(covered(a, h, a.H, a.kh, a.stride_h, a.pad_h));
}

template <class T> TW_INLINE void add_strided(const T* __restrict x, int64_t stride, T* __restrict y, int64_t n) {
  for (int64_t o = 0; o < n; ++o) y[o] += x[o * stride];
}
template <class T> TW_INLINE void spread_strided(const T* __restrict x, int64_t stride, T* __restrict y, int64_t n) {
  for (int64_t o = 0; o < n; ++o) y[o * stride] += x[o];
}

// body(rows of the window that exist, window column's reach): the walk that forward and backward share.
template <class F> TW_INLINE void for_window(const Pool2dArgs& a, int64_t h, F&& body) {
  const int64_t top = h * a.stride_h - a.pad_h;
  for (int64_t r = most(top, 0); r < least(top + a.kh, a.H); ++r)
    for (int64_t j = 0; j < a.kw; ++j) body(r, reach(j, a.W, a.ow, a.stride_w, a.pad_w, 1));
}

struct Avg {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.H * a.W, a.oh * a.ow, [&](const T* x, T* y, int64_t*) {
      T* counts = static_cast<T*>(scratch(1, static_cast<size_t>(a.ow) * sizeof(T)));
      column_counts(a, counts);
      for (int64_t h = 0; h < a.oh; ++h) {
        T* row = y + h * a.ow;
        clear(row, a.ow);
        for_window(a, h, [&](int64_t r, const Reach& c) {
          const T* from = x + r * a.W + c.first;
          if (a.stride_w == 1) add_strided(from, 1, row + c.begin, c.end - c.begin);
          else if (a.stride_w == 2) add_strided(from, 2, row + c.begin, c.end - c.begin);
          else add_strided(from, a.stride_w, row + c.begin, c.end - c.begin);
        });
        const T rows = row_count<T>(a, h);
        for (int64_t o = 0; o < a.ow; ++o) row[o] /= rows * counts[o];
      }
    });
  }
};

struct AvgBackward {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.oh * a.ow, a.H * a.W, [&](const T* dy, T* dx, int64_t*) {
      T* counts = static_cast<T*>(scratch(1, static_cast<size_t>(2 * a.ow) * sizeof(T)));
      T* share = counts + a.ow;
      column_counts(a, counts);
      clear(dx, a.H * a.W);
      for (int64_t h = 0; h < a.oh; ++h) {
        const T rows = row_count<T>(a, h);
        for (int64_t o = 0; o < a.ow; ++o) share[o] = dy[h * a.ow + o] / (rows * counts[o]);
        for_window(a, h, [&](int64_t r, const Reach& c) {
          T* to = dx + r * a.W + c.first;
          if (a.stride_w == 1) spread_strided(share + c.begin, 1, to, c.end - c.begin);
          else spread_strided(share + c.begin, a.stride_w, to, c.end - c.begin);
        });
      }
    });
  }
};

// --- adaptive average --
constexpr int64_t kLanes = 16, kRun = 1024;

// The sum of n contiguous items; the lanes are the same at every level, so is the result.
template <class T> T sum_run(const T* x, int64_t n) {
  T total = 0;
  while (n >= kLanes) {
    const int64_t run = least(n, kRun) / kLanes * kLanes;
    T lanes[kLanes] = {};
    for (int64_t i = 0; i < run; i += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) lanes[l] += x[i + l];
    for (int64_t half = kLanes / 2; half > 0; half /= 2)
      for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    total += lanes[0];
    x += run;
    n -= run;
  }
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

struct Span {
  int64_t begin, end;
};
TW_INLINE Span adaptive_span(int64_t o, int64_t size, int64_t out) {
  return {o * size / out, ceil_div((o + 1) * size, out)};
}

struct AdaptiveAvg {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.H * a.W, a.oh * a.ow, [&](const T* x, T* y, int64_t*) {
      for (int64_t h = 0; h < a.oh; ++h) {
        const Span rows = adaptive_span(h, a.H, a.oh);
        for (int64_t o = 0; o < a.ow; ++o) {
          const Span cols = adaptive_span(o, a.W, a.ow);
          const int64_t width = cols.end - cols.begin, height = rows.end - rows.begin;
          T sum = 0;
          if (width == a.W) sum = sum_run(x + rows.begin * a.W, height * width);
          else
            for (int64_t r = rows.begin; r < rows.end; ++r) sum += sum_run(x + r * a.W + cols.begin, width);
          y[h * a.ow + o] = sum / T(height * width);
        }
      }
    });
  }
};

struct AdaptiveAvgBackward {
  template <class T, class S> void run(const Pool2dArgs& a) const {
    for_planes<T, S>(a, a.oh * a.ow, a.H * a.W, [&](const T* dy, T* dx, int64_t*) {
      clear(dx, a.H * a.W);
      for (int64_t h = 0; h < a.oh; ++h) {
        const Span rows = adaptive_span(h, a.H, a.oh);
        for (int64_t o = 0; o < a.ow; ++o) {
          const Span cols = adaptive_span(o, a.W, a.ow);
          const T share = dy[h * a.ow + o] / T((rows.end - rows.begin) * (cols.end - cols.begin));
          for (int64_t r = rows.begin; r < rows.end; ++r)
            for (int64_t c = cols.begin; c < cols.end; ++c) dx[r * a.W + c] += share;
        }
      }
    });
  }
};

}  // namespace

void max_pool2d(const Pool2dArgs& a) { by_dtype(a, Max()); }
void max_pool2d_backward(const Pool2dArgs& a) { by_dtype(a, MaxBackward()); }
void avg_pool2d(const Pool2dArgs& a) { by_dtype(a, Avg()); }
void avg_pool2d_backward(const Pool2dArgs& a) { by_dtype(a, AvgBackward()); }
void adaptive_avg_pool2d(const Pool2dArgs& a) { by_dtype(a, AdaptiveAvg()); }
void adaptive_avg_pool2d_backward(const Pool2dArgs& a) { by_dtype(a, AdaptiveAvgBackward()); }

}  // namespace tw::TW_ISA
