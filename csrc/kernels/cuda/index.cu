// Indexing that reads: take (rows by index: embedding, index_select), gather along a dimension, index (several index
// arrays at once).
//
//   take     y[o, i, :] = x[o, index[i], :]             x (outer, n, inner)
//   gather   y[o, i, k] = x[o, index[o, i, k], k]       the same
//   index    y[i, :] = x[index0[i], index1[i], ..., :]  x of any strides
//
// Items move as bits, in words of 1 to 16 bytes: as wide as sizes, strides and pointers of both sides allow. Negative
// indices count from the end in index and, where asked, take. The result of a bad index is not written.
// Bytes: each output item read and written once, and 8 an index. The innermost dimension of the result goes to
// neighbouring threads; 4 words in flight a thread, so that the 768 threads that a multiprocessor has at least (three
// blocks, as the launch bounds say) keep 12 to 48 KiB of words of 4 to 16 bytes on the way.
#include "kernels/cuda/index.cuh"

namespace tw::cuda {
namespace {

// --- copies out of an array --
struct Pick {
  const void* x;
  void* y;
  Selector selector;
  Shape shape;  // of the result; one dimension is the index arrays'
  int count_dim;
};

template <class W> __global__ void __launch_bounds__(kThreads, 3) pick_items(const __grid_constant__ Pick p) {
  const int64_t step = int64_t(gridDim.x) * kThreads, work = p.shape.items;
  for (int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x; first < work; first += kAhead * step) {
    int64_t from[kAhead] = {}, to[kAhead] = {}, i[kAhead] = {};
    bool good[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      good[u] = first + u * step < work;
      if (good[u]) i[u] = p.shape.locate(first + u * step, &from[u], &to[u], p.count_dim);
    }
    p.selector.add_to(from, i, good);
    Vector<W, 1> v[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (good[u]) v[u] = load_vector<1>(static_cast<const W*>(p.x) + from[u]);
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (good[u]) store_vector(static_cast<W*>(p.y) + to[u], v[u]);
  }
}

void pick(Pick& p, int itemsize) {
  Width width(itemsize, p.shape);
  width.fit(p.x, itemsize);
  width.fit(p.y, itemsize);
  for (int k = 0; k < p.selector.indexed; ++k) width.fit(p.selector.stride[k]);
  if (width.items > 1) {
    p.shape.size[0] /= width.items;
    p.shape.items /= width.items;
    for (int d = 1; d < p.shape.n; ++d) p.shape.from[d] /= width.items, p.shape.to[d] /= width.items;
    for (int k = 0; k < p.selector.indexed; ++k) p.selector.stride[k] /= width.items;
  }
  const unsigned blocks = blocks_for(p.shape.items);
  switch (width.items * itemsize) {
    case 1: return launch_kernel<pick_items<uint8_t>>(blocks, kThreads, 0, current_stream(), p);
    case 2: return launch_kernel<pick_items<uint16_t>>(blocks, kThreads, 0, current_stream(), p);
    case 4: return launch_kernel<pick_items<uint32_t>>(blocks, kThreads, 0, current_stream(), p);
    case 8: return launch_kernel<pick_items<uint64_t>>(blocks, kThreads, 0, current_stream(), p);
    default: return launch_kernel<pick_items<Vector<uint64_t, 2>>>(blocks, kThreads, 0, current_stream(), p);
  }
}

template <class W> __global__ void __launch_bounds__(kThreads) gather_items(GatherArgs a, Faults faults) {
  const int64_t step = int64_t(gridDim.x) * kThreads, rows = a.count * a.inner, work = a.outer * rows;
  for (int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x; first < work; first += kAhead * step) {
    int64_t at[kAhead];
    W v[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) at[u] = first + u * step < work ? a.index[first + u * step] : -1;
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int64_t i = first + u * step;
      if (i >= work) continue;
      if (at[u] < 0 || at[u] >= a.n) {
        faults.report(at[u], 0, a.n, i);
        at[u] = -1;
        continue;
      }
      const int64_t k = a.inner == 1 ? 0 : i - divide(i, a.inner) * a.inner;
      at[u] = (divide(i, rows) * a.n + at[u]) * a.inner + k;
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (at[u] >= 0) v[u] = static_cast<const W*>(a.x)[at[u]];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (at[u] >= 0) static_cast<W*>(a.y)[first + u * step] = v[u];
  }
}

}  // namespace

void take(const TakeArgs& a) {
  *a.bad = -1;
  Pick p{a.x, a.y, selector(a, a.inner), {}, 0};
  p.shape.push(a.inner, 1, 1);
  p.count_dim = p.shape.n;
  p.shape.push(a.count, 0, a.inner, true);
  p.shape.push(a.outer, a.n * a.inner, a.count * a.inner);
  pick(p, static_cast<int>(itemsize(a.dtype)));
}

void index(const IndexArgs& a) {
  *a.bad = -1;
  Pick p{a.x, a.y, selector(a), {}, 0};
  p.shape = slices(a, true, &p.count_dim);
  pick(p, static_cast<int>(itemsize(a.dtype)));
}

void gather(const GatherArgs& a) {
  *a.bad = -1;
  const Faults faults{fault_record(), a.op};
  const unsigned blocks = blocks_for(a.outer * a.count * a.inner);
  switch (itemsize(a.dtype)) {
    case 1: return launch_kernel<gather_items<uint8_t>>(blocks, kThreads, 0, current_stream(), a, faults);
    case 2: return launch_kernel<gather_items<uint16_t>>(blocks, kThreads, 0, current_stream(), a, faults);
    case 4: return launch_kernel<gather_items<uint32_t>>(blocks, kThreads, 0, current_stream(), a, faults);
    default: return launch_kernel<gather_items<uint64_t>>(blocks, kThreads, 0, current_stream(), a, faults);
  }
}

}  // namespace tw::cuda
