// Padding: y is x with each dimension grown by items before and after it, or (negative widths) cropped; any dtype.
//
// y[o] = x[map(o - before)] in each dimension: constant the fill value outside x, replicate the nearest end, reflect
// mirrored about the end items, circular repeated. The gradient of the last three sums dy over the items that showed
// x[i], dimension by dimension in the order own place, left, right: at most three a dimension (a run at the ends for
// replicate). Halves are summed in float32. Exact but for those sums: the op table's rows pad_*. That of constant is the
// forward with widths negated. Shapes come coalesced: `block` items beyond the last dimension move together.
// Method: a thread makes 16 bytes of y. Where these are neighbours in x as well they are read as one (16 bytes at once if
// x lies so), else item by item, with the outer dimensions found anew at a row's end alone. The gradient takes an item a
// thread; away from the ends each has one term, which the count of terms tells.
// Bytes: x and y once; the gradient's accesses are of an item each, neighbours beside neighbours.
#include "kernels/cuda/places.cuh"
#include "kernels/windows.h"

namespace tw::cuda {
namespace {

struct PadWalk {
  const void* x;
  void* y;
  int64_t total;                                                           // items of the result
  Splitter block, size[kMaxDims];                                          // of the result
  int64_t n[kMaxDims], out[kMaxDims], before[kMaxDims], stride[kMaxDims];  // stride: of the input, in items
  int last;                                                                // dimension
  PadMode mode;
};

// Where an item of y is found: its block's place in the last dimension and within, and x's row; null outside.
template <class W> struct Place {
  const W* row;
  int64_t o, k;
  TW_DEVICE void find(const PadWalk& w, int64_t i) {
    k = w.block.split(&i);
    o = w.size[w.last].split(&i);
    bool inside = true;
    int64_t offset = 0;
    for (int d = w.last - 1; d >= 0; --d) {
      const int64_t s = source(w.mode, w.size[d].split(&i) - w.before[d], w.n[d]);
      inside &= s >= 0 && s < w.n[d];
      offset += s * w.stride[d];
    }
    row = inside ? static_cast<const W*>(w.x) + offset : nullptr;
  }
};

// 16 bytes of items in two words: unlike an array's, their places may be variables without going through memory.
template <class W> struct Sixteen {
  static constexpr int kBits = 8 * int(sizeof(W));
  Vector<uint64_t, 2> half;
  TW_DEVICE void put(int j, W v) {
    const int at = j * kBits;
    if (at < 64) half[0] |= uint64_t(v) << at;
    else half[1] |= uint64_t(v) << (at - 64);
  }
  TW_DEVICE W get(int j) const { return W(half[j * kBits / 64] >> (j * kBits % 64)); }
};

template <class W>
__global__ void __launch_bounds__(kPlaceThreads) pad_kernel(const __grid_constant__ PadWalk w, W fill, bool aligned) {
  constexpr int kItems = kLanes<W>;
  const int64_t n = w.n[w.last], out = w.out[w.last], before = w.before[w.last], block = w.block.size;
  for (int64_t i = first_item() * kItems; i < w.total; i += item_step() * kItems) {
    const int count = int(least<int64_t>(kItems, w.total - i));
    Place<W> p;
    p.find(w, i);
    Sixteen<W> v{};
    const int64_t s = source(w.mode, p.o - before, n);
    const bool inside = p.row && s >= 0 && s < n;
    // What follows s in x follows it in y: to the end of x's row where s shows its own place, else of the block.
    const int64_t run = inside ? (s == p.o - before ? least(n - s, out - p.o) : 1) * block - p.k : 0;
    if (run >= kItems) {
      const W* from = p.row + s * block + p.k;
      if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        v.half = load_vector<2>(reinterpret_cast<const uint64_t*>(from));
      } else {
#pragma unroll
        for (int j = 0; j < kItems; ++j) v.put(j, from[j]);
      }
    } else {
#pragma unroll 1
      for (int j = 0; j < count; ++j) {
        const int64_t at = source(w.mode, p.o - before, n);
        v.put(j, p.row && at >= 0 && at < n ? p.row[at * block + p.k] : fill);
        if (++p.k < block) continue;
        p.k = 0;
        if (++p.o == out && j + 1 < count) p.find(w, i + j + 1);
      }
    }
    W* y = static_cast<W*>(w.y) + i;
    if (aligned && count == kItems) {
      store_vector(reinterpret_cast<uint64_t*>(y), v.half);
    } else {
#pragma unroll
      for (int j = 0; j < kItems; ++j)
        if (j < count) y[j] = v.get(j);
    }
  }
}

// x: dy (out..., block); y: dx (n..., block); size: n; stride: of dy. Each term of an item is one combination of places,
// the last dimension fastest.
template <class S>
__global__ void __launch_bounds__(kPlaceThreads) pad_backward_kernel(const __grid_constant__ PadWalk w) {
  using A = Accumulator<S>;
  const S* dy = static_cast<const S*>(w.x);
  for (int64_t i = first_item(); i < w.total; i += item_step()) {
    A total = 0;
    int64_t terms = 1;
    for (int64_t term = 0; term < terms; ++term) {
      int64_t rest = i, which = term, all = 1, offset = w.block.split(&rest);
      for (int d = w.last; d >= 0; --d) {
        const Shown shown(w.mode, w.size[d].split(&rest), w.n[d], w.before[d], w.out[d]);
        const int64_t count = shown.count();
        all *= count;
        int64_t k = 0;
        if (count > 1) {
          const int64_t q = which / count;
          k = which - q * count;
          which = q;
        }
        offset += shown.at(k) * w.stride[d];
      }
      terms = all;  // 0: a cropped item
      if (all > 0) total += convert<A>(dy[offset]);
    }
    static_cast<S*>(w.y)[i] = convert<S>(total);
  }
}

// from, to: the sizes of what is read and of what is written.
PadWalk walk_of(const PadArgs& a, const int64_t* from, const int64_t* to) {
  PadWalk w;
  w.x = a.x, w.y = a.y;
  w.mode = a.mode;
  w.last = a.ndim - 1;
  w.total = a.block;
  int64_t stride = a.block;
  for (int d = w.last; d >= 0; --d) {
    w.n[d] = a.n[d], w.out[d] = a.out[d], w.before[d] = a.before[d];
    w.stride[d] = stride;
    stride *= from[d];
    w.total *= to[d];
  }
  w.block = Splitter(a.block, w.total);
  for (int d = 0; d <= w.last; ++d) w.size[d] = Splitter(to[d], w.total);
  return w;
}

template <class W> void pad_items(const PadArgs& a) {
  const PadWalk w = walk_of(a, a.n, a.out);
  const Grid grid = grid_of(ceil_div<int64_t>(w.total, kLanes<W>));
  launch_kernel<pad_kernel<W>>(grid.blocks, grid.threads, 0, current_stream(), w, static_cast<W>(a.fill),
                               aligned(w.y, 16));
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
  visit_float(a.dtype, [&](auto tag) {
    const PadWalk w = walk_of(a, a.out, a.n);
    const Grid grid = grid_of(w.total);
    launch_kernel<pad_backward_kernel<typename decltype(tag)::type>>(grid.blocks, grid.threads, 0, current_stream(), w);
  });
}

}  // namespace tw::cuda
