// Padding: y is x with each dimension grown by items before and after it, or (negative widths) cropped; any dtype.
//
// y[o] = x[map(o - before)] in each dimension. constant: the fill value outside x. replicate: the nearest end. reflect:
// mirrored about the end items. circular: x repeated. The backward of the last three sums dy over the items that showed
// x[i]: at most three a dimension (a run at the ends for replicate), in the order of the dimensions' lists, so sums
// have a fixed order; halves are summed in float32. That of constant is the forward with widths negated.
// Exact but for the backward's sums, of which the op table's rows pad_* measure the error. Bytes: x and y once.
// Shapes come coalesced: the last dimension is the innermost padded one, and `block` items in it move together. A row
// is copied by vector moves that overlap at its end, because a call to memcpy costs as much as a short row's copy.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec.h"
#include "kernels/windows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;  // items of y a piece writes

template <int kBytes> struct Chunk {
  typedef uint8_t Type __attribute__((vector_size(kBytes), aligned(1), may_alias));
};
template <int kBytes> TW_INLINE void move(char* to, const char* from) {
  using C = typename Chunk<kBytes>::Type;
  *reinterpret_cast<C*>(to) = *reinterpret_cast<const C*>(from);
}
// n bytes by moves of kBytes, the last of which may overlap the one before.
template <int kBytes> TW_INLINE void move_run(char* to, const char* from, int64_t n) {
  for (int64_t i = 0; i + kBytes < n; i += kBytes) move<kBytes>(to + i, from + i);
  move<kBytes>(to + n - kBytes, from + n - kBytes);
}
TW_INLINE void copy_bytes(void* dst, const void* src, int64_t n) {
  char* to = static_cast<char*>(dst);
  const char* from = static_cast<const char*>(src);
  if (n >= TW_VEC_BYTES) return move_run<TW_VEC_BYTES>(to, from, n);
  if (n >= 16) return move_run<16>(to, from, n);
  if (n >= 8) return move_run<8>(to, from, n);
  if (n >= 4) return move_run<4>(to, from, n);
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

// Coordinates over the outer dimensions of a shape, row by row.
struct Rows {
  int64_t at[kMaxDims];
  TW_INLINE void seek(const int64_t* shape, int dims, int64_t row) {
    for (int d = dims - 1; d >= 0; --d) {
      at[d] = row % shape[d];
      row /= shape[d];
    }
  }
  TW_INLINE void next(const int64_t* shape, int dims) {
    for (int d = dims - 1; d >= 0; --d) {
      if (++at[d] < shape[d]) return;
      at[d] = 0;
    }
  }
};

TW_INLINE int64_t product(const int64_t* shape, int dims) {
  int64_t p = 1;
  for (int d = 0; d < dims; ++d) p *= shape[d];
  return p;
}

template <class W> TW_INLINE void fill_items(W* y, W value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = value;
}

// Items [begin, end) of one row of y. from: x's row, or null where an outer dimension is outside.
template <class W>
TW_INLINE void pad_row(const PadArgs& a, W* __restrict y, const W* __restrict from, int64_t begin, int64_t end) {
  const int64_t n = a.n[a.ndim - 1], before = a.before[a.ndim - 1], block = a.block;
  const W fill = W(a.fill);
  if (!from) return fill_items(y + begin * block, fill, (end - begin) * block);
  const int64_t first = least(end, before > begin ? before : begin);  // x's own items are y's [first, last)
  int64_t last = least(end, before + n);
  last = last < first ? first : last;
  auto edge = [&](int64_t lo, int64_t hi) __attribute__((always_inline)) {
    if (a.mode == PadMode::kConstant) return fill_items(y + lo * block, fill, (hi - lo) * block);
    for (int64_t o = lo; o < hi; ++o) {
      const W* item = from + source(a.mode, o - before, n) * block;
      if (block == 1) y[o] = *item;
      else copy_bytes(y + o * block, item, block * int64_t(sizeof(W)));
    }
  };
  edge(begin, first);
  copy_bytes(y + first * block, from + (first - before) * block, (last - first) * block * int64_t(sizeof(W)));
  edge(last, end);
}

template <class W> void pad_items(const PadArgs& a) {
  const int outer = a.ndim - 1;
  const int64_t row = a.out[outer], rows = product(a.out, outer), n = a.n[outer];
  const int64_t part = least(row, kPiece / a.block + 1), parts = ceil_div(row, part);
  parallel_ranges(rows * parts, kPiece / (part * a.block) + 1, [&](int64_t begin, int64_t end) {
    Rows at;
    at.seek(a.out, outer, begin / parts);
    for (int64_t i = begin, p = begin % parts; i < end; ++i) {
      int64_t from = 0;
      bool inside = true;
      for (int d = 0; d < outer; ++d) {
        const int64_t s = source(a.mode, at.at[d] - a.before[d], a.n[d]);
        inside &= s >= 0 && s < a.n[d];
        from = from * a.n[d] + s;
      }
      const W* x = static_cast<const W*>(a.x) + from * n * a.block;
      pad_row(a, static_cast<W*>(a.y) + i / parts * row * a.block, inside ? x : nullptr, p * part,
              least(row, (p + 1) * part));
      if (++p < parts) continue;
      p = 0;
      at.next(a.out, outer);
    }
  });
}

template <class T, class S> void pad_gradient(const PadArgs& a) {
  const int outer = a.ndim - 1;
  const int64_t n = a.n[outer], out = a.out[outer], before = a.before[outer], block = a.block;
  const int64_t rows = product(a.n, outer);
  const int64_t own_begin = before < 0 ? -before : 0;  // x's items that y shows at their own place
  int64_t own_end = least(n, out - before);
  own_end = own_end < own_begin ? own_begin : own_end;
  parallel_ranges(rows, kPiece / (n * block) + 1, [&](int64_t first, int64_t last) {
    T* sums = nullptr;
    T* staged = nullptr;
    if constexpr (!kSame<T, S>) {
      sums = static_cast<T*>(scratch(0, size_t((n + out) * block) * sizeof(T)));
      staged = sums + n * block;
    }
    Rows at;
    at.seek(a.n, outer, first);
    for (int64_t r = first; r < last; ++r, at.next(a.n, outer)) {
      S* dx = static_cast<S*>(a.y) + r * n * block;
      if constexpr (kSame<T, S>) sums = dx;
      bool fresh = true;
      auto add_row = [&](const S* row) {
        const T* dy;
        if constexpr (kSame<T, S>) {
          dy = row;
        } else {
          convert(staged, row, out * block);
          dy = staged;
        }
        if (fresh) {
          fill_items(sums, T(0), own_begin * block);
          copy_bytes(sums + own_begin * block, dy + (own_begin + before) * block,
                     (own_end - own_begin) * block * int64_t(sizeof(T)));
          fill_items(sums + own_end * block, T(0), (n - own_end) * block);
        } else {
          const T* own = dy + before * block;
          for (int64_t i = own_begin * block; i < own_end * block; ++i) sums[i] += own[i];
        }
        fresh = false;
        auto edge = [&](int64_t lo, int64_t hi) {
          for (int64_t o = lo; o < hi; ++o) {
            T* to = sums + source(a.mode, o - before, n) * block;
            for (int64_t k = 0; k < block; ++k) to[k] += dy[o * block + k];
          }
        };
        edge(0, least(out, before));
        edge(before + n > 0 ? before + n : 0, out);
      };
      // Every combination of one item a dimension, the last dimension fastest.
      auto combine = [&](auto&& self, int d, int64_t row) -> void {
        if (d == outer) return add_row(static_cast<const S*>(a.x) + row * out * block);
        const Shown s(a.mode, at.at[d], a.n[d], a.before[d], a.out[d]);
        for (int k = 0; k < 3; ++k)
          for (int64_t o = s.begin[k]; o < s.end[k]; ++o) self(self, d + 1, row * a.out[d] + o);
      };
      combine(combine, 0, 0);
      if (fresh) fill_items(sums, T(0), n * block);
      if constexpr (!kSame<T, S>) convert(dx, static_cast<const T*>(sums), n * block);
    }
  });
}

}  // namespace

void pad(const PadArgs& a) {
  switch (itemsize(a.dtype)) {
    case 1: return pad_items<uint8_t>(a);
    case 2: return pad_items<uint16_t>(a);
    case 4: return pad_items<uint32_t>(a);
    default: return pad_items<uint64_t>(a);
  }
}

void pad_backward(const PadArgs& a) {
  switch (a.dtype) {
    case DType::kFloat32: return pad_gradient<float, float>(a);
    case DType::kFloat64: return pad_gradient<double, double>(a);
    case DType::kFloat16: return pad_gradient<float, float16>(a);
    case DType::kBFloat16: return pad_gradient<float, bfloat16>(a);
    default: return;
  }
}

}  // namespace tw::TW_ISA
