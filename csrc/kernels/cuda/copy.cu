// copy: y = x in y's dtype (casts, fills, strided copies); where: y = c ? a : b, bits moved as they are.
//
// Any strides and dtypes; conversions as kernels/cpu/vec.h's (device.cuh). The walk is elementwise.cuh's.
// Bytes: each operand once. A transposed operand is read in single items, 32 bytes for each one: a path through tiles
// in shared memory is not written.
#include "kernels/cuda/elementwise.cuh"

namespace tw::cuda {

bool make_walk(const ElementwiseArgs& a, Walk* w, int most) {
  const Operand* operands[4] = {&a.in[0], &a.in[1], &a.in[2], &a.out};
  operands[a.inputs] = &a.out;
  const int last = a.ndim - 1;
  bool packed = a.ndim == 1 || a.shape[last] % most == 0;
  for (int k = 0; k <= a.inputs; ++k) {
    const Operand& o = *operands[k];
    const auto size = static_cast<int64_t>(itemsize(o.dtype)), access = least<int64_t>(16, most * size);
    w->data[k] = static_cast<char*>(o.data);
    w->dtype[k] = o.dtype;
    for (int d = 0; d <= last; ++d) w->strides[k][last - d] = o.strides[d];
    if (!o.data || (k < a.inputs && o.strides[last] == 0)) continue;
    packed &= o.strides[last] == size && reinterpret_cast<intptr_t>(o.data) % access == 0;
    for (int d = 0; d < last; ++d) packed &= o.strides[d] % access == 0;
  }
  const int items = packed ? most : 1;
  int64_t packs = 1;
  for (int d = 0; d <= last; ++d) {
    const int64_t n = d == 0 ? ceil_div<int64_t>(a.shape[last], items) : a.shape[last - d];
    w->size[d] = Divisor(static_cast<uint32_t>(n));
    packs *= n;
  }
  w->ndim = a.ndim;
  w->packs = static_cast<uint32_t>(packs);
  w->inner = a.ndim == 1 ? a.shape[0] : packs * items;
  return packed;
}

bool cut_large(const ElementwiseArgs& a, void (*launch)(const ElementwiseArgs&)) {
  int64_t n = 1;
  int widest = 0;
  for (int d = 0; d < a.ndim; ++d) {
    n *= a.shape[d];
    if (a.shape[d] > a.shape[widest]) widest = d;
  }
  if (n <= int64_t{1} << 30) return false;
  ElementwiseArgs half = a;
  half.shape[widest] = a.shape[widest] / 2 / kElementwiseItems * kElementwiseItems;
  if (half.shape[widest] == 0) half.shape[widest] = a.shape[widest] / 2;
  launch(half);
  const auto skip = [&](Operand* o) {
    if (o->data) o->data = static_cast<char*>(o->data) + half.shape[widest] * o->strides[widest];
  };
  ElementwiseArgs rest = a;
  rest.shape[widest] -= half.shape[widest];
  skip(&rest.out);
  for (int k = 0; k < a.inputs; ++k) skip(&rest.in[k]);
  launch(rest);
  return true;
}

namespace {

// D in memory from any dtype in memory, or from a scalar.
template <class D, int kItems>
__global__ void __launch_bounds__(kElementwiseThreads)
    cast_kernel(const __grid_constant__ Walk w, double real, int64_t integer) {
  const uint32_t step = gridDim.x * kElementwiseThreads;
  for (uint32_t i = blockIdx.x * kElementwiseThreads + threadIdx.x; i < w.packs; i += step) {
    int64_t offset[2];
    locate<2>(w, i, kItems, offset);
    const int count = kItems == 1 ? 1 : int(least<int64_t>(kItems, w.inner - int64_t(i) * kItems));
    D y[kItems];
    const char* x = w.data[0] + offset[0];
    const int64_t stride = w.strides[0][0];
    if (!w.data[0]) {
      D scalar;
      if constexpr (std::is_integral_v<D>) scalar = convert<D>(integer);
      else scalar = convert<D>(real);
      for (int j = 0; j < kItems; ++j) y[j] = scalar;
    } else {
      switch (w.dtype[0]) {
#define TW_X(S, e, name) \
  case DType::e: load_items<S>(y, x, stride, count); break;
        TW_DTYPES(TW_X)
#undef TW_X
      }
    }
    store_items<D>(w.data[1] + offset[1], y, count);
  }
}

// Bits of a word's size, moved as they are.
template <class W, int kItems>
__global__ void __launch_bounds__(kElementwiseThreads) where_kernel(const __grid_constant__ Walk w) {
  const uint32_t step = gridDim.x * kElementwiseThreads;
  for (uint32_t i = blockIdx.x * kElementwiseThreads + threadIdx.x; i < w.packs; i += step) {
    int64_t offset[4];
    locate<4>(w, i, kItems, offset);
    const int count = kItems == 1 ? 1 : int(least<int64_t>(kItems, w.inner - int64_t(i) * kItems));
    uint8_t c[kItems];
    W a[kItems], b[kItems];
    load_items<uint8_t>(c, w.data[0] + offset[0], w.strides[0][0], count);
    load_items<W>(a, w.data[1] + offset[1], w.strides[1][0], count);
    load_items<W>(b, w.data[2] + offset[2], w.strides[2][0], count);
    for (int j = 0; j < kItems; ++j) a[j] = c[j] ? a[j] : b[j];
    store_items<W>(w.data[3] + offset[3], a, count);
  }
}

unsigned blocks_of(const Walk& w) { return persistent_blocks(ceil_div<int64_t>(w.packs, kElementwiseThreads), 16); }

template <class D> void cast_to(const ElementwiseArgs& a) {
  Walk w;
  const bool packed = make_walk(a, &w);
  if (packed)
    launch_kernel<cast_kernel<D, kElementwiseItems>>(blocks_of(w), kElementwiseThreads, 0, current_stream(), w,
                                                     a.scalar_float, a.scalar_int);
  else
    launch_kernel<cast_kernel<D, 1>>(blocks_of(w), kElementwiseThreads, 0, current_stream(), w, a.scalar_float,
                                     a.scalar_int);
}

template <class W> void where_of(const ElementwiseArgs& a) {
  Walk w;
  if (make_walk(a, &w))
    launch_kernel<where_kernel<W, kElementwiseItems>>(blocks_of(w), kElementwiseThreads, 0, current_stream(), w);
  else launch_kernel<where_kernel<W, 1>>(blocks_of(w), kElementwiseThreads, 0, current_stream(), w);
}

}  // namespace

void copy(const ElementwiseArgs& a) {
  if (cut_large(a, &copy)) return;
  switch (a.out.dtype) {
#define TW_X(D, e, name) \
  case DType::e: return cast_to<D>(a);
    TW_DTYPES(TW_X)
#undef TW_X
  }
}

void where(const ElementwiseArgs& a) {
  if (cut_large(a, &where)) return;
  switch (itemsize(a.out.dtype)) {
    case 1: return where_of<uint8_t>(a);
    case 2: return where_of<uint16_t>(a);
    case 4: return where_of<uint32_t>(a);
    default: return where_of<uint64_t>(a);
  }
}

}  // namespace tw::cuda
