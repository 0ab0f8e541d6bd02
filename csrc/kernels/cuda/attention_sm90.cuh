// What attention_sm90.cu and attention_backward_sm90.cu share: operands that the copy engine brings as panels, tiles of
// 64 columns (128 bytes, swizzled) one after the other, and the way of a warpgroup's sums to memory.
#pragma once
#include <optional>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/hopper.cuh"

namespace tw::cuda {

// Columns, rows, and two dimensions of the batch, of which item `number` is at number / after % size.
struct Panels {
  TensorMap map;
  int64_t after[2], size[2];
};

// kRows rows from `row` on in boxes of kBox; one arrival at the barrier.
template <int kE, int kRows, int kBox, class T>
TW_DEVICE void load_panels(T* tile, const Panels& p, uint64_t* bar, int64_t number, int64_t row) {
  const int at2 = int(number / p.after[0] % p.size[0]), at3 = int(number / p.after[1] % p.size[1]);
  mbarrier_expect(bar, kRows * kE * 2);
#pragma unroll
  for (int i = 0; i < kE / 64; ++i)
#pragma unroll
    for (int r = 0; r < kRows; r += kBox)
      tma_load(tile + (i * kRows + r) * 64, p.map, bar, {64 * i, int(row) + r, at2, at3});
}

// N / 2 sums of each of the thread's rows, `row` and row + 8, times a factor each; `pairs`: two halves an access.
template <class T, int N>
TW_DEVICE void store_sums(T* y, int64_t step, int64_t row, int64_t rows, const float (&sums)[N], float factor0,
                          float factor8, bool pairs) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (row + 8 * h >= rows) continue;
    const float factor = h ? factor8 : factor0;
    T* const to = y + (row + 8 * h) * step + threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      const uint32_t r = round_pair<T>(sums[4 * j + 2 * h] * factor, sums[4 * j + 2 * h + 1] * factor);
      const Vector<T, 2> pair{{T{uint16_t(r)}, T{uint16_t(r >> 16)}}};
      if (pairs) store_vector(to + 8 * j, pair);
      else to[8 * j] = pair[0], to[8 * j + 1] = pair[1];
    }
  }
}

// False where two dimensions of the batch with steps of 16 bytes are not enough.
inline bool map_panels(Panels* p, const AttentionArgs& a, const BatchedRows& r, int64_t rows, int64_t cols, int box) {
  int64_t sizes[4] = {cols, rows, 1, 1}, strides[3] = {2 * r.row, 16, 16}, after = 1;
  const int sides[4] = {64, box, 1, 1};
  *p = {{}, {1, 1}, {1, 1}};
  int n = 0;
  bool fits = reinterpret_cast<uintptr_t>(r.data) % 16 == 0 && (rows == 1 || (r.row > 0 && r.row % 8 == 0));
  if (rows == 1) strides[0] = 2 * cols;
  for (int d = a.batch_ndim - 1; d >= 0; after *= a.batch[d], --d) {
    if (a.batch[d] == 1 || r.batch[d] == 0) continue;
    const bool joins = n > 0 && p->after[n - 1] * p->size[n - 1] == after &&
                       strides[n] * sizes[n + 1] == 2 * r.batch[d];  // the dimension inside goes on
    if (joins) {
      sizes[n + 1] = p->size[n - 1] *= a.batch[d];
      continue;
    }
    if (n == 2) return false;
    fits &= r.batch[d] % 8 == 0;
    p->after[n] = after;
    sizes[n + 2] = p->size[n] = a.batch[d];
    strides[n + 1] = 2 * r.batch[d];
    ++n;
  }
  return fits && make_tensor_map(&p->map, r.data, 2, 4, sizes, strides, sides, 128);
}

// The operand in boxes of `box` rows; one that the copy engine cannot take is first copied.
inline bool make_panels(Panels* p, const AttentionArgs& a, const BatchedRows& r, int64_t rows, int box,
                        std::optional<Workspace>* room) {
  if (map_panels(p, a, r, rows, a.E, box)) return true;
  ElementwiseArgs e{};
  BatchedRows to{nullptr, a.E, {}};
  int64_t items = rows * a.E;
  const int n = a.batch_ndim;
  for (int d = n - 1; d >= 0; items *= a.batch[d], --d) {
    to.batch[d] = items;
    e.shape[d] = a.batch[d], e.in[0].strides[d] = 2 * r.batch[d], e.out.strides[d] = 2 * items;
  }
  e.shape[n] = rows, e.in[0].strides[n] = 2 * r.row, e.out.strides[n] = 2 * a.E;
  e.shape[n + 1] = a.E, e.in[0].strides[n + 1] = e.out.strides[n + 1] = 2;
  room->emplace(static_cast<size_t>(items) * 2);
  e.ndim = n + 2;
  e.inputs = 1;
  e.compute = e.out.dtype = e.in[0].dtype = a.dtype;
  e.in[0].data = r.data;
  e.out.data = to.data = (*room)->as<void>();
  copy(e);
  return map_panels(p, a, to, rows, a.E, box);
}

}  // namespace tw::cuda
