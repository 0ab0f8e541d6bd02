// Indexing: take (rows by index: embedding, index_select), its sum back, gather and scatter along a dimension, and
// index / index_put (several index arrays at once).
//
// Copies move items of 1, 2, 4 or 8 bytes whatever their dtype; adding forms take float32, float64 and integers, and
// add in the order of the indices, in the array's own type, so equal indices sum to the same bits for any number of
// threads. Error of n additions to one place: n * eps / 2 of the sum of magnitudes (test_indexing.py). Negative indices
// count from the end in index, index_put and, where asked, take. All indices are checked before anything is added to or
// overwritten (gather and index, whose results are fresh: piece by piece); *bad: the first bad one's position, or -1.
// Method: reads are cut by output rows. Sums of rows are sorted by counting, then each thread owns output rows and
// columns and walks its row's list; scatter cuts only the dimensions beside the indexed one, but for a long list into a
// short array, whose parts have sums of their own.
// Bytes: take and gather read and write each output item once, plus 8 an index.
#include "kernels/cpu/loops.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // items a piece moves

TW_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
TW_INLINE int64_t wrap(int64_t i, int64_t n) { return i < 0 ? i + n : i; }

// Whether the indices begin .. end lie in [low, n); if not, *bad becomes the first outside, unless it is smaller.
TW_INLINE bool inside(const int64_t* index, int64_t begin, int64_t end, int64_t low, int64_t n, int64_t* bad) {
  uint64_t outside = 0;
  for (int64_t i = begin; i < end; ++i) outside |= uint64_t(index[i] < low) | uint64_t(index[i] >= n);
  if (!outside) return true;
  int64_t at = begin;
  while (index[at] >= low && index[at] < n) ++at;
  int64_t seen = __atomic_load_n(bad, __ATOMIC_RELAXED);
  while ((seen < 0 || at < seen) &&
         !__atomic_compare_exchange_n(bad, &seen, at, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return false;
}
void find_bad(const int64_t* index, int64_t count, int64_t low, int64_t n, int64_t* bad) {
  parallel_ranges(count, kPiece, [&](int64_t begin, int64_t end) { inside(index, begin, end, low, n, bad); });
}
bool all_inside(const int64_t* index, int64_t count, int64_t low, int64_t n, int64_t* bad) {
  *bad = -1;
  find_bad(index, count, low, n, bad);
  return *bad < 0;
}

// op.run<W>(args): W an unsigned integer of the dtype's size.
template <class Args, class Op> void by_size(const Args& a, Op op) {
  switch (itemsize(a.dtype)) {
    case 1: return op.template run<uint8_t>(a);
    case 2: return op.template run<uint16_t>(a);
    case 4: return op.template run<uint32_t>(a);
    default: return op.template run<uint64_t>(a);
  }
}
// op.run<T>(args) for the types that add. Integers add as unsigned ones, which wrap without undefined behaviour.
template <class Args, class Op> void by_number(const Args& a, Op op) {
  if (a.dtype == DType::kFloat32) return op.template run<float>(a);
  if (a.dtype == DType::kFloat64) return op.template run<double>(a);
  if (is_integer(a.dtype)) by_size(a, op);
}

template <class T, bool kAdd> TW_INLINE void put(T* to, T v) { *to = kAdd ? T(*to + v) : v; }

// --- rows --
struct Take {
  template <class W> void run(const TakeArgs& a) const {
    const W* x = static_cast<const W*>(a.x);
    W* y = static_cast<W*>(a.y);
    parallel_ranges(a.outer * a.count, most(1, kPiece / a.inner), [&](int64_t begin, int64_t end) {
      int64_t o = begin / a.count, i = begin % a.count;
      for (int64_t row = begin; row < end; ++row) {
        const W* from = x + (o * a.n + wrap(a.index[i], a.n)) * a.inner;
        if (a.inner == 1) y[row] = *from;
        else __builtin_memcpy(y + row * a.inner, from, static_cast<size_t>(a.inner) * sizeof(W));
        if (++i == a.count) {
          i = 0;
          ++o;
        }
      }
    });
  }
};

struct TakeBackward {
  static constexpr int64_t kColumns = 256;  // of a piece
  static constexpr int64_t kShortRow = 8;   // sorting costs more than it brings below this

  template <class T> void run(const TakeArgs& a) const {
    if (a.inner < kShortRow) short_rows<T>(a);
    else sorted_rows<T>(a);
  }

  template <class T> static void short_rows(const TakeArgs& a) {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    const int64_t work = most(1, a.count * a.inner);
    parallel_ranges(a.outer, most(1, kPiece / work), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t i = 0; i < a.count; ++i) {
          T* to = y + (o * a.n + wrap(a.index[i], a.n)) * a.inner;
          const T* from = x + (o * a.count + i) * a.inner;
          for (int64_t k = 0; k < a.inner; ++k) to[k] = T(to[k] + from[k]);
        }
    });
  }

  template <class T> static void sorted_rows(const TakeArgs& a) {
    // order: the positions 0..count, by the row they add to and, within a row, ascending; starts[r]: row r's first.
    int64_t* starts = static_cast<int64_t*>(scratch(0, static_cast<size_t>(a.n + 1 + a.count) * sizeof(int64_t)));
    int64_t* order = starts + a.n + 1;
    for (int64_t r = 0; r <= a.n; ++r) starts[r] = 0;
    for (int64_t i = 0; i < a.count; ++i) ++starts[wrap(a.index[i], a.n) + 1];
    for (int64_t r = 0; r < a.n; ++r) starts[r + 1] += starts[r];
    for (int64_t i = 0; i < a.count; ++i) order[starts[wrap(a.index[i], a.n)]++] = i;
    for (int64_t r = a.n; r > 0; --r) starts[r] = starts[r - 1];
    starts[0] = 0;

    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    const int64_t column_blocks = ceil_div(a.inner, kColumns);
    const int64_t row_blocks = least(a.n, most(1, a.count * a.inner / column_blocks / kPiece));
    parallel_for(a.outer * row_blocks * column_blocks, [&](int64_t piece) {
      const int64_t c = piece % column_blocks, b = piece / column_blocks % row_blocks;
      const int64_t o = piece / column_blocks / row_blocks;
      const int64_t k = c * kColumns, columns = least(kColumns, a.inner - k);
      for (int64_t r = b * a.n / row_blocks; r < (b + 1) * a.n / row_blocks; ++r) {
        T* __restrict to = y + (o * a.n + r) * a.inner + k;
        for (int64_t s = starts[r]; s < starts[r + 1]; ++s) {
          const T* __restrict from = x + (o * a.count + order[s]) * a.inner + k;
          for (int64_t j = 0; j < columns; ++j) to[j] = T(to[j] + from[j]);
        }
      }
    });
  }
};

// --- along one dimension --
struct Gather {
  template <class W> void run(const GatherArgs& a) const {
    const W* x = static_cast<const W*>(a.x);
    W* y = static_cast<W*>(a.y);
    *a.bad = -1;
    parallel_ranges(a.outer * a.count, most(1, kPiece / a.inner), [&](int64_t begin, int64_t end) {
      if (!inside(a.index, begin * a.inner, end * a.inner, 0, a.n, a.bad)) return;
      int64_t o = begin / a.count, i = begin % a.count;
      if (a.inner == 1) {
        for (int64_t row = begin; row < end; ++o, i = 0) {
          const W* from = x + o * a.n;
          const int64_t stop = least(end, row + a.count - i);
          for (; row < stop; ++row) y[row] = from[a.index[row]];
        }
        return;
      }
      for (int64_t row = begin; row < end; ++row) {
        const W* from = x + o * a.n * a.inner;
        const int64_t* index = a.index + row * a.inner;
        for (int64_t k = 0; k < a.inner; ++k) y[row * a.inner + k] = from[index[k] * a.inner + k];
        if (++i == a.count) {
          i = 0;
          ++o;
        }
      }
    });
  }
};

template <bool kAdd> struct Scatter {
  // A long list into a short array: each part of the list adds to an array of its own, and these are added in order.
  template <class T> static void add_parts(const GatherArgs& a) {
    constexpr int64_t kParts = 4;
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    T* sums = static_cast<T*>(scratch(0, static_cast<size_t>(kParts * a.n) * sizeof(T)));
    parallel_for(kParts, [&](int64_t part) {
      T* to = sums + part * a.n;
      for (int64_t k = 0; k < a.n; ++k) to[k] = 0;
      const int64_t end = a.count * (part + 1) / kParts;
      for (int64_t i = a.count * part / kParts; i < end; ++i) put<T, true>(to + a.index[i], x[i]);
    });
    for (int64_t part = 0; part < kParts; ++part)
      for (int64_t k = 0; k < a.n; ++k) y[k] = T(y[k] + sums[part * a.n + k]);
  }

  template <class T> void run(const GatherArgs& a) const {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    if (a.inner == 1) {
      if (kAdd && a.outer == 1 && a.count >= 2 * kPiece && a.count / 8 >= a.n) return add_parts<T>(a);
      parallel_ranges(a.outer, most(1, kPiece / a.count), [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
          const int64_t* index = a.index + o * a.count;
          for (int64_t i = 0; i < a.count; ++i) put<T, kAdd>(y + o * a.n + index[i], x[o * a.count + i]);
        }
      });
      return;
    }
    // Columns first: a block of them wide enough to fill a piece, then whole outer parts.
    const int64_t width = least(a.inner, most(64, kPiece / a.count));
    const int64_t blocks = ceil_div(a.inner, width);
    parallel_ranges(a.outer * blocks, most(1, kPiece / (a.count * width)), [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t o = piece / blocks, first = piece % blocks * width, last = least(first + width, a.inner);
        for (int64_t i = 0; i < a.count; ++i) {
          const int64_t row = (o * a.count + i) * a.inner;
          for (int64_t k = first; k < last; ++k)
            put<T, kAdd>(y + (o * a.n + a.index[row + k]) * a.inner + k, x[row + k]);
        }
      }
    });
  }
};

// --- several index arrays --
// The slices' dimensions: sizes of one dropped, neighbours merged where both sides allow.
struct Slices {
  int n = 0;
  int64_t shape[kMaxDims + 1], from[kMaxDims + 1], to[kMaxDims + 1];
  int64_t items = 1;

  Slices(const IndexArgs& a, const int64_t* from_strides, const int64_t* to_strides) {
    for (int d = 0; d < a.slice_ndim; ++d) {
      const int64_t size = a.slice_shape[d];
      items *= size;
      if (size == 1) continue;
      if (n && from[n - 1] == from_strides[d] * size && to[n - 1] == to_strides[d] * size) shape[--n] *= size;
      else shape[n] = size;
      from[n] = from_strides[d];
      to[n++] = to_strides[d];
    }
  }
};

template <class T, bool kAdd> void move_row(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t n) {
  if (!kAdd && from_stride == 1 && to_stride == 1) {
    __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  } else if (from_stride == 1 && to_stride == 1) {
    for (int64_t i = 0; i < n; ++i) put<T, kAdd>(to + i, from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) put<T, kAdd>(to + i * to_stride, from[i * from_stride]);
  }
}

template <class T, bool kAdd> void move_slice(const T* from, T* to, const Slices& s) {
  if (s.n == 0) return put<T, kAdd>(to, *from);
  int64_t at[kMaxDims] = {};
  for (;;) {
    move_row<T, kAdd>(from, s.from[s.n - 1], to, s.to[s.n - 1], s.shape[s.n - 1]);
    int d = s.n - 2;
    for (; d >= 0; --d) {
      from += s.from[d];
      to += s.to[d];
      if (++at[d] < s.shape[d]) break;
      from -= s.from[d] * s.shape[d];
      to -= s.to[d] * s.shape[d];
      at[d] = 0;
    }
    if (d < 0) return;
  }
}

// The element offsets of the slices begin .. end in the array; false when an index is out of range.
bool slice_offsets(const IndexArgs& a, int64_t begin, int64_t end, int64_t* offsets) {
  bool good = true;
  for (int k = 0; k < a.indexed; ++k) good &= inside(a.index[k], begin, end, -a.sizes[k], a.sizes[k], a.bad);
  if (!good) return false;
  for (int64_t i = begin; i < end; ++i) offsets[i - begin] = wrap(a.index[0][i], a.sizes[0]) * a.strides[0];
  for (int k = 1; k < a.indexed; ++k)
    for (int64_t i = begin; i < end; ++i) offsets[i - begin] += wrap(a.index[k][i], a.sizes[k]) * a.strides[k];
  return true;
}

struct Index {
  template <class W> void run(const IndexArgs& a) const {
    constexpr int64_t kBlock = 512;
    const W* x = static_cast<const W*>(a.x);
    W* y = static_cast<W*>(a.y);
    const Slices s(a, a.slice_strides, a.dense_slice_strides);
    *a.bad = -1;
    parallel_ranges(a.count, most(1, kPiece / s.items), [&](int64_t begin, int64_t end) {
      int64_t offsets[kBlock];
      for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t n = least(kBlock, end - first);
        if (!slice_offsets(a, first, first + n, offsets)) return;
        W* to = y + first * a.dense_stride;
        if (s.n == 0 && a.dense_stride == 1)
          for (int64_t i = 0; i < n; ++i) to[i] = x[offsets[i]];
        else
          for (int64_t i = 0; i < n; ++i) move_slice<W, false>(x + offsets[i], to + i * a.dense_stride, s);
      }
    });
  }
};

template <bool kAdd> struct IndexPut {
  const int64_t* offsets;
  template <class T> void run(const IndexArgs& a) const {
    const T* x = static_cast<const T*>(a.x);
    T* y = static_cast<T*>(a.y);
    const Slices s(a, a.dense_slice_strides, a.slice_strides);
    const int64_t grain = a.unique ? most(1, kPiece / s.items) : a.count;
    parallel_ranges(a.count, grain, [&](int64_t begin, int64_t end) {
      if (s.n == 0) {
        for (int64_t i = begin; i < end; ++i) put<T, kAdd>(y + offsets[i], x[i * a.dense_stride]);
        return;
      }
      for (int64_t i = begin; i < end; ++i) move_slice<T, kAdd>(x + i * a.dense_stride, y + offsets[i], s);
    });
  }
};

}  // namespace

void take(const TakeArgs& a) {
  if (all_inside(a.index, a.count, a.low, a.n, a.bad)) by_size(a, Take());
}
void take_backward(const TakeArgs& a) {
  if (all_inside(a.index, a.count, a.low, a.n, a.bad)) by_number(a, TakeBackward());
}

void gather(const GatherArgs& a) { by_size(a, Gather()); }
void scatter(const GatherArgs& a) {
  if (!all_inside(a.index, a.outer * a.count * a.inner, 0, a.n, a.bad)) return;
  if (a.add) by_number(a, Scatter<true>());
  else by_size(a, Scatter<false>());
}

void index(const IndexArgs& a) { by_size(a, Index()); }
void index_put(const IndexArgs& a) {
  *a.bad = -1;
  int64_t* offsets = static_cast<int64_t*>(scratch(0, static_cast<size_t>(a.count) * sizeof(int64_t)));
  parallel_ranges(a.count, kPiece, [&](int64_t begin, int64_t end) { slice_offsets(a, begin, end, offsets + begin); });
  if (*a.bad >= 0) return;
  if (a.add) by_number(a, IndexPut<true>{offsets});
  else by_size(a, IndexPut<false>{offsets});
}

}  // namespace tw::TW_ISA
