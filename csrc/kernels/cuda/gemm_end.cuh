// What a product's kernels do with their sums: c = act(alpha * sum + beta * c + bias), in the accumulator's type.
#pragma once
#include "kernels/cuda/packs.cuh"
#include "kernels/functors.h"

namespace tw::cuda {

// A value of a dtype known at run time, in arithmetic type A.
template <class A> TW_DEVICE A load_any(const void* p, DType t, int64_t i) {
  if constexpr (std::is_same_v<A, float>) {
    if (t == DType::kFloat16) return widen(static_cast<const float16*>(p)[i]);
    if (t == DType::kBFloat16) return widen(static_cast<const bfloat16*>(p)[i]);
  } else if constexpr (std::is_integral_v<A>) {
    switch (t) {
      case DType::kBool:
      case DType::kUInt8: return static_cast<const uint8_t*>(p)[i];
      case DType::kInt8: return static_cast<const int8_t*>(p)[i];
      case DType::kInt16: return static_cast<const int16_t*>(p)[i];
      case DType::kInt32: return static_cast<const int32_t*>(p)[i];
      default: break;
    }
  }
  return static_cast<const A*>(p)[i];
}
template <class A> TW_DEVICE void store_any(void* p, DType t, int64_t i, A v) {
  if constexpr (std::is_same_v<A, float>) {
    if (t == DType::kFloat16) static_cast<float16*>(p)[i] = round_to<float16>(v);
    else if (t == DType::kBFloat16) static_cast<bfloat16*>(p)[i] = round_to<bfloat16>(v);
    else static_cast<float*>(p)[i] = v;
  } else if constexpr (std::is_integral_v<A>) {
    switch (t) {
      case DType::kBool: static_cast<bool*>(p)[i] = v != 0; break;
      case DType::kUInt8:
      case DType::kInt8: static_cast<uint8_t*>(p)[i] = uint8_t(v); break;
      case DType::kInt16: static_cast<int16_t*>(p)[i] = int16_t(v); break;
      case DType::kInt32: static_cast<int32_t*>(p)[i] = int32_t(v); break;
      default: static_cast<A*>(p)[i] = v;
    }
  } else {
    static_cast<A*>(p)[i] = v;
  }
}

// The sum for row m and column n of the product whose c begins at item `start`.
template <class A> TW_DEVICE void finish(const GemmArgs& g, int64_t start, int64_t m, int64_t n, A x) {
  if (m >= g.M || n >= g.N) return;
  const int64_t at = start + m * g.c_row + n;
  if (g.alpha != 1) x = x * A(g.alpha);
  if (g.beta != 0) x = x + A(g.beta) * load_any<A>(g.c, g.c_dtype, at);
  if (g.bias) x = x + load_any<A>(g.bias, g.dtype, g.bias_rows ? m : n);
  store_any(g.c, g.c_dtype, at, activate(g.activation, x));
}

// The same for 8 neighbours from column n on, whose sums lie in shared memory, this thread's own; `aligned`: packs of
// 8 in memory begin at multiples of 16 bytes.
TW_DEVICE void finish_pack(const GemmArgs& g, int64_t start, int64_t m, int64_t n, float* sums, bool c_aligned,
                           bool bias_aligned) {
  constexpr int L = kPack<float>;
  const int count = m < g.M ? int(least<int64_t>(L, g.N - n)) : 0;
  if (count <= 0) return;
  const Span at{start + m * g.c_row + n, 0, count};
  float x[1][L], other[1][L];
#pragma unroll
  for (int j = 0; j < L; j += 4) {
    const auto four = load_vector<4>(sums + j);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[0][j + i] = g.alpha != 1 ? four[i] * float(g.alpha) : four[i];
  }
  if (g.beta != 0) {
    load_packs<float, 1>(other, g.c, g.c_dtype, c_aligned, 0.0f, [&](int) { return at; });
#pragma unroll
    for (int j = 0; j < L; ++j) x[0][j] = x[0][j] + float(g.beta) * other[0][j];
  }
  if (g.bias) {
    const float row = g.bias_rows ? load_item<float>(g.bias, g.dtype, m) : 0;
    if (!g.bias_rows)
      load_packs<float, 1>(other, g.bias, g.dtype, bias_aligned, 0.0f, [&](int) { return Span{n, 0, count}; });
#pragma unroll
    for (int j = 0; j < L; ++j) x[0][j] = x[0][j] + (g.bias_rows ? row : other[0][j]);
  }
  if (g.activation != Activation::kNone) {  // once in the code, for its size
#pragma unroll
    for (int j = 0; j < L; ++j) sums[j] = x[0][j];
#pragma unroll 1
    for (int j = 0; j < L; ++j) sums[j] = activate(g.activation, sums[j]);
#pragma unroll
    for (int j = 0; j < L; ++j) x[0][j] = sums[j];
  }
  store_packs<float, 1>(x, g.c, g.c_dtype, c_aligned, [&](int) { return at; });
}

// gemm_sm90.cu's product of halves or TF32; false where gemm.cu's serves the shape better.
bool gemm_sm90(const GemmArgs& g);

// A product whose tiles are too few to fill a device is cut along K: slice s sums its `length` steps from s * length on
// into float32 of its own, `items` behind the slice before, and add_slices adds them in order and ends the product. How
// many slices follows from the shape alone, so that a product has the same bits on every device that takes its path.
struct Slices {
  int count;
  int64_t length, items;
};
void add_slices(const GemmArgs& g, const float* sums, const Slices& slices);  // gemm.cu

// run(g, slices), with the sums of slices in place of g's result where there is more than one.
template <class F> void run_slices(const GemmArgs& g, int64_t count, const F& run) {
  constexpr int64_t kStep = 64;
  const int64_t length = greatest<int64_t>(1, ceil_div(ceil_div(g.K, count), kStep)) * kStep;
  Slices slices{static_cast<int>(ceil_div(g.K, length)), length, g.M * g.N};
  if (slices.count <= 1) return run(g, Slices{1, g.K, 0});
  GemmArgs part = g;
  for (int d = g.batch_ndim - 1; d >= 0; --d) part.c_batch[d] = slices.items, slices.items *= g.batch[d];
  const Workspace sums(static_cast<size_t>(slices.count * slices.items) * sizeof(float));
  part.c = sums.as<void>();
  part.c_row = g.N;
  part.c_dtype = DType::kFloat32;
  part.bias = nullptr;
  part.alpha = 1, part.beta = 0;
  part.activation = Activation::kNone;
  run(part, slices);
  add_slices(g, sums.as<float>(), slices);
}

// Where the operands of the batch's product `number` begin, and a slice's sums.
struct Start {
  int64_t a = 0, b = 0, c = 0;
};
TW_DEVICE Start start_of(const GemmArgs& g, int64_t number, const Slices& slices = {}, int slice = 0) {
  Start s;
  s.c = slice * slices.items;
  for (int d = g.batch_ndim - 1; d >= 0; --d) {
    const int64_t at = number % g.batch[d];
    number /= g.batch[d];
    s.a += at * g.a_batch[d];
    s.b += at * g.b_batch[d];
    s.c += at * g.c_batch[d];
  }
  return s;
}

}  // namespace tw::cuda
