// gemm: c = act(alpha * a @ b + beta * c + bias) over a batch, operands of any strides.
//
// Shapes: a (..., M, K), b (..., K, N), c (..., M, N) with contiguous columns; bias (N) or (M). Accumulates in
// float32 for float16, bfloat16 and float32, in float64 for float64, and wraps in int64 for integers and bool.
// K == 0 gives act(beta * c + bias). beta == 0 does not read c.
// Method: gemm.h; a matrix times a few vectors is bound by memory: gemm_thin.h.
// Error bounds: theirs, measured by tests/op_table/products.py.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_bf16.h"
#include "kernels/cpu/gemm_thin.h"

namespace tw::TW_ISA {
namespace {

int64_t batch_count(const GemmArgs& g) {
  int64_t n = 1;
  for (int i = 0; i < g.batch_ndim; ++i) n *= g.batch[i];
  return n;
}

// One product of the batch; S is the operands' type in memory.
template <class T, class S> struct StridedProduct {
  const S *a, *b;
  int64_t a_row, a_col, b_row, b_col, c_row, c_start;
  Epilogue<T> end;

  TW_INLINE void pack_a(T* dst, int64_t i, int rows, int64_t k, int64_t count) const {
    pack_strided(dst, kStepA<T>, a + i * a_row + k * a_col, a_row, a_col, rows, count, 4);
  }
  TW_INLINE void pack_b(T* dst, int64_t j, int cols, int64_t k, int64_t count) const {
    pack_strided(dst, kNr<T>, b + k * b_row + j * b_col, b_col, b_row, cols, count, Vec<T>::kLanes);
  }
  TW_INLINE const T* direct_b(int64_t j, int64_t k, int64_t* step) const {
    *step = b_row;
    return kSame<T, S> && b_col == 1 ? reinterpret_cast<const T*>(b + k * b_row + j) : nullptr;
  }
  TW_INLINE const T* direct_a(int64_t i, int64_t k, int64_t* row, int64_t* col) const {
    *row = a_row;
    *col = a_col;
    return kSame<T, S> ? reinterpret_cast<const T*>(a + i * a_row + k * a_col) : nullptr;
  }
  TW_INLINE T* direct_c(int64_t i, int64_t j, int, int, int64_t* row) const {
    *row = c_row;
    return end.c_dtype == dtype_of<T> && end.beta == 0 ? static_cast<T*>(end.c) + c_start + i * c_row + j : nullptr;
  }
  TW_INLINE bool finishes() const { return end.bias || !end.plain(); }
  TW_INLINE void store(int64_t i, int64_t j, int64_t cols, const T* sums) const {
    end.row(c_start + i * c_row + j, end.bias_rows ? i : j, cols, sums);
  }
};

template <class T, class S> struct StridedProblem {
  const GemmArgs& g;

  StridedProduct<T, S> product(int64_t number) const {
    int64_t a = 0, b = 0, c = 0;
    for (int d = g.batch_ndim - 1; d >= 0; --d) {
      const int64_t at = number % g.batch[d];
      number /= g.batch[d];
      a += at * g.a_batch[d];
      b += at * g.b_batch[d];
      c += at * g.c_batch[d];
    }
    return {static_cast<const S*>(g.a) + a,
            static_cast<const S*>(g.b) + b,
            g.a_row,
            g.a_col,
            g.b_row,
            g.b_col,
            g.c_row,
            c,
            {g.c, g.bias, g.c_dtype, g.dtype, g.bias_rows, g.activation, g.alpha, g.beta}};
  }
};

// At most kMostThin columns, or rows: of C^T = B^T A^T then.
template <class T, class S, int R> void thin(const StridedProblem<T, S>& problem, int64_t batch, bool swap) {
  const GemmArgs& g = problem.g;
  const auto operands = [&](int64_t number, const S** a, const S** x) {
    const auto p = problem.product(number);
    *a = swap ? p.b : p.a;
    *x = swap ? p.a : p.b;
  };
  const auto store = [&](int64_t number, int64_t i, int64_t n, const T* y) {
    const auto p = problem.product(number);
    if (R == 1 && !swap && p.c_row == 1 && !p.end.bias) return p.end.row(p.c_start + i, 0, n, y);
    if (!swap) {
      for (int64_t m = 0; m < n; ++m) p.store(i + m, 0, R, y + m * R);
      return;
    }
    constexpr int64_t kLine = 256;
    T line[kLine];
    for (int64_t j = 0; j < n; j += kLine)
      for (int r = 0; r < R; ++r) {
        const int64_t cols = least(kLine, n - j);
        for (int64_t q = 0; q < cols; ++q) line[q] = y[(j + q) * R + r];
        p.store(r, i + j, cols, line);
      }
  };
  if (swap) thin_product<R, T, S>(batch, g.N, g.K, g.b_col, g.b_row, g.a_col, g.a_row, operands, store);
  else thin_product<R, T, S>(batch, g.M, g.K, g.a_row, g.a_col, g.b_row, g.b_col, operands, store);
}

template <class T, class S, int R = kMostThin>
void thin_of(int64_t width, const StridedProblem<T, S>& problem, int64_t batch, bool swap) {
  if (R == 1 || width == R) return thin<T, S, R>(problem, batch, swap);
  if constexpr (R > 1) thin_of<T, S, R - 1>(width, problem, batch, swap);
}

#if TW_VEC_BYTES == 64
struct PairsProblem {
  const StridedProblem<float, bfloat16>& whole;
  PairsProduct product(int64_t number) const {
    const auto p = whole.product(number);
    return {p.a, p.b, p.a_row, p.a_col, p.b_row, p.b_col, p.c_row, p.c_start, whole.g.K, p.end};
  }
};
#endif

template <class T, class S> void gemm_of(const GemmArgs& g) {
  const StridedProblem<T, S> problem{g};
  const int64_t batch = batch_count(g);
  // Lanes along K want a long K; one row or column has no other way to fill a vector.
  const int64_t width = least(g.M, g.N);
  // Integers, six types of them, are not worth the code.
  if constexpr (!kSame<T, int64_t>)
    if (batch > 0 && g.K > 0 && (width == 1 || (width > 0 && width <= kMostThin && g.K >= 128)))
      return thin_of(width, problem, batch, g.N != width);
#if TW_VEC_BYTES == 64
  if constexpr (kSame<S, bfloat16>)
    if (g.K > 1 && has_bf16()) return gemm_core<float>(PairsProblem{problem}, batch, g.M, g.N, ceil_div(g.K, 2));
#endif
  gemm_core<T>(problem, batch, g.M, g.N, g.K);
}

}  // namespace

void gemm(const GemmArgs& g) {
  switch (g.dtype) {
    case DType::kBool: return gemm_of<int64_t, bool>(g);
    case DType::kUInt8: return gemm_of<int64_t, uint8_t>(g);
    case DType::kInt8: return gemm_of<int64_t, int8_t>(g);
    case DType::kInt16: return gemm_of<int64_t, int16_t>(g);
    case DType::kInt32: return gemm_of<int64_t, int32_t>(g);
    case DType::kInt64: return gemm_of<int64_t, int64_t>(g);
    case DType::kFloat16: return gemm_of<float, float16>(g);
    case DType::kBFloat16: return gemm_of<float, bfloat16>(g);
    case DType::kFloat32: return gemm_of<float, float>(g);
    case DType::kFloat64: return gemm_of<double, double>(g);
  }
}

}  // namespace tw::TW_ISA
