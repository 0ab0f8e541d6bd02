// gemm: c = act(alpha * a @ b + beta * c + bias) over a batch, operands of any strides.
//
// Shapes: a (..., M, K), b (..., K, N), c (..., M, N) with contiguous columns; bias (N) or (M). Accumulates in
// float32 for float16, bfloat16 and float32, in float64 for float64, and wraps in int64 for integers and bool.
// K == 0 gives act(beta * c + bias). beta == 0 does not read c.
// Method: gemm.h; a matrix times a vector (M == 1 or N == 1) is bound by memory and has its own loops here.
// Error bound: gemm.h's; for a vector, gamma(kChunk / lanes + K / kChunk). Measured by tests/op_table/products.py.
#include "kernels/cpu/gemm.h"

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

// ---- matrix times vector --------------------------------------------------------------------------------------------
// y[i] = sum over k of a[i, k] x[k]: lane l of a vector sums k = l, l + L, l + 2L, ... of a chunk, and sum() adds the
// lanes by its tree. A matrix whose columns are contiguous holds the same L sums of each row in L rows of
// accumulators, so that both orientations give the same bits.
constexpr int64_t kChunk = 1024, kStrip = 256;

// R rows, contiguous along k.
template <int R, class T, class S> TW_INLINE void dot_rows(const S* a, int64_t a_row, const T* x, int64_t count, T* y) {
  constexpr int L = Vec<T>::kLanes;
  Vec<T> acc[R];
  for (int r = 0; r < R; ++r) acc[r] = Vec<T>(T(0));
  int64_t k = 0;
  for (; k + L <= count; k += L) {
    const Vec<T> xk = Vec<T>::load(x + k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r] = fma(load_as<T>(a + r * a_row + k), xk, acc[r]);
  }
  if (k < count) {
    const int n = int(count - k);
    const Vec<T> xk = Vec<T>::load(x + k, n);
    for (int r = 0; r < R; ++r) acc[r] = fma(load_as<T>(a + r * a_row + k, n), xk, acc[r]);
  }
  for (int r = 0; r < R; ++r) y[r] = sum(acc[r]);
}

// At most kStrip rows, contiguous along the rows.
template <class T, class S> void dot_columns(const S* a, int64_t a_col, int64_t rows, const T* x, int64_t count, T* y) {
  constexpr int L = Vec<T>::kLanes;
  const int64_t width = round_up(rows, L);
  T* acc = static_cast<T*>(scratch(1, sizeof(T) * L * kStrip));
  for (int64_t i = 0; i < L * width; ++i) acc[i] = T(0);
  for (int64_t k = 0; k < count; ++k) {
    const S* column = a + k * a_col;
    T* to = acc + k % L * width;
    const Vec<T> xk(x[k]);
    int64_t i = 0;
    for (; i + L <= rows; i += L) fma(load_as<T>(column + i), xk, Vec<T>::load(to + i)).store(to + i);
    if (i < rows) fma(load_as<T>(column + i, int(rows - i)), xk, Vec<T>::load(to + i)).store(to + i);
  }
  for (int h = L / 2; h > 0; h /= 2)
    for (int64_t i = 0; i < h * width; i += L)
      (Vec<T>::load(acc + i) + Vec<T>::load(acc + h * width + i)).store(acc + i);
  for (int64_t i = 0; i < rows; ++i) y[i] = acc[i];
}

template <class T, class S>
void dot_chunk(const S* a, int64_t a_row, int64_t a_col, int64_t rows, const S* x, int64_t x_step, int64_t count,
               T* y) {
  T xs[kChunk];
  const T* xp = xs;
  if (kSame<T, S> && x_step == 1) {
    xp = reinterpret_cast<const T*>(x);
  } else if (x_step == 1) {
    convert(xs, x, count);
  } else {
    S strided[kChunk];
    for (int64_t k = 0; k < count; ++k) strided[k] = x[k * x_step];
    convert(xs, static_cast<const S*>(strided), count);
  }
  if (a_row == 1 && a_col != 1) {
    for (int64_t i = 0; i < rows; i += kStrip) dot_columns(a + i, a_col, least(kStrip, rows - i), xp, count, y + i);
    return;
  }
  int64_t i = 0;
  if (a_col == 1) {
    for (; i + 4 <= rows; i += 4) dot_rows<4>(a + i * a_row, a_row, xp, count, y + i);
    for (; i < rows; ++i) dot_rows<1>(a + i * a_row, a_row, xp, count, y + i);
    return;
  }
  for (; i < rows; ++i) {
    S strided[kChunk];
    for (int64_t k = 0; k < count; ++k) strided[k] = a[i * a_row + k * a_col];
    dot_rows<1>(static_cast<const S*>(strided), 0, xp, count, y + i);
  }
}

// M x K times K; for M == 1 the caller has swapped the operands. y's elements lie y_step apart.
template <class T, class S> void gemv(const StridedProblem<T, S>& problem, int64_t batch, bool swap) {
  const GemmArgs& g = problem.g;
  const int64_t M = swap ? g.N : g.M, K = g.K;
  const int64_t a_row = swap ? g.b_col : g.a_row, a_col = swap ? g.b_row : g.a_col, x_step = swap ? g.a_col : g.b_row;
  const int64_t chunks = ceil_div(K, kChunk);
  const int64_t rows = least(M, round_up(most(1, kChunk * kStrip / least(K, kChunk)), kStrip));
  const int64_t groups = ceil_div(M, rows);
  T* sums = chunks > 1 ? static_cast<T*>(scratch(2, sizeof(T) * batch * chunks * M)) : nullptr;

  const auto store = [&](const StridedProduct<T, S>& p, int64_t i, int64_t n, const T* from) {
    if (swap) return p.store(0, i, n, from);
    if (p.c_row == 1 && (!p.end.bias || n == 1)) return p.end.row(p.c_start + i, 0, n, from);
    for (int64_t r = 0; r < n; ++r) p.store(i + r, 0, 1, from + r);
  };
  parallel_for(batch * groups * chunks, [&](int64_t task) {
    const int64_t number = task / (groups * chunks), chunk = task / groups % chunks, i = task % groups * rows;
    const int64_t n = least(rows, M - i), k = chunk * kChunk;
    const auto p = problem.product(number);
    const S *a = swap ? p.b : p.a, *x = swap ? p.a : p.b;
    T* y = sums ? sums + (number * chunks + chunk) * M + i : static_cast<T*>(scratch(0, sizeof(T) * n));
    dot_chunk(a + i * a_row + k * a_col, a_row, a_col, n, x + k * x_step, x_step, least(kChunk, K - k), y);
    if (!sums) store(p, i, n, y);
  });
  if (!sums) return;
  for (int64_t number = 0; number < batch; ++number) {
    T* y = sums + number * chunks * M;
    for (int64_t chunk = 1; chunk < chunks; ++chunk)
      for (int64_t i = 0; i < M; ++i) y[i] += y[chunk * M + i];
    store(problem.product(number), 0, M, y);
  }
}

template <class T, class S> void gemm_of(const GemmArgs& g) {
  const StridedProblem<T, S> problem{g};
  const int64_t batch = batch_count(g);
  if (batch > 0 && g.K > 0 && (g.N == 1 || g.M == 1) && g.M * g.N > 0) gemv(problem, batch, g.N != 1);
  else gemm_core<T>(problem, batch, g.M, g.N, g.K);
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
