// matmul, linear and addmm: batches are broadcast and operands transposed by strides alone; one launch each.
#include "ops/common.h"

namespace tw {
namespace {

bool allow_tf32 = false;  // in float32 products on CUDA; the CPU's are always float32

void check_dtypes(const char* op, const Array& a, const Array& b) {
  TW_CHECK_TYPE(a.dtype() == b.dtype(), op, ": dtypes must match, got ", name(a.dtype()), " and ", name(b.dtype()));
}

// c = act(alpha * a @ b + beta * c + bias) for a (..., M, K), b (..., K, N), c (batch..., M, N) of contiguous columns.
void gemm(const Array& a, const Array& b, const Array* bias, const Array& c, double alpha = 1, double beta = 0,
          Activation activation = Activation::kNone) {
  if (c.numel() == 0) return;
  GemmArgs g{};
  g.a = a.raw();
  g.b = b.raw();
  g.c = c.raw();
  g.bias = bias ? bias->raw() : nullptr;
  const int na = a.ndim(), nb = b.ndim(), nc = c.ndim();
  g.M = a.size(na - 2);
  g.K = a.size(na - 1);
  g.N = b.size(nb - 1);
  g.a_row = a.strides()[na - 2];
  g.a_col = a.strides()[na - 1];
  g.b_row = b.strides()[nb - 2];
  g.b_col = b.strides()[nb - 1];
  g.c_row = c.strides()[nc - 2];
  g.batch_ndim = nc - 2;
  for (int d = nc - 3; d >= 0; --d) {
    const int da = d - nc + na, db = d - nc + nb;
    g.batch[d] = c.size(d);
    g.a_batch[d] = da >= 0 && a.size(da) != 1 ? a.strides()[da] : 0;
    g.b_batch[d] = db >= 0 && b.size(db) != 1 ? b.strides()[db] : 0;
    g.c_batch[d] = c.strides()[d];
  }
  g.dtype = a.dtype();
  g.c_dtype = c.dtype();
  g.alpha = alpha;
  g.beta = beta;
  g.tf32 = allow_tf32 && g.dtype == DType::kFloat32;
  g.activation = activation;
  launch(c.device(), slots::gemm, g);
}

// (..., n) as (rows, n): a view where the strides allow it.
Array as_rows(const char* op, const Array& x) {
  const int64_t n = x.size(x.ndim() - 1);
  int64_t rows = 1;
  for (int d = 0; d + 1 < x.ndim(); ++d) rows *= x.size(d);
  Array view;
  if (x.ndim() == 2) return x;
  if (x.try_view(op, {rows, n}, &view)) return view;
  return contiguous(x).with_geometry({rows, n}, contiguous_strides({rows, n}), 0);
}

Array reshaped(const Array& contiguous_array, const Dims& shape) {
  return contiguous_array.with_geometry(shape, contiguous_strides(shape), contiguous_array.offset());
}

// The shape of a @ b for matrices with batch dimensions.
Dims product_shape(const char* op, const Array& a, const Array& b) {
  Dims shape = broadcast_shapes(op, Dims(a.shape().d, a.ndim() - 2), Dims(b.shape().d, b.ndim() - 2));
  TW_CHECK(shape.n + 2 <= kMaxDims, op, ": at most ", kMaxDims, " dimensions, got ", str_of(a.shape()), " @ ",
           str_of(b.shape()));
  shape.push(a.size(a.ndim() - 2));
  shape.push(b.size(b.ndim() - 1));
  return shape;
}

// PyTorch's rules: 1-d operands are a row and a column that the result drops again; others are batches of matrices.
// transpose_a and transpose_b swap the last two dimensions of an operand that has them.
Array matmul(const Array& a, const Array& b, bool transpose_a, bool transpose_b) {
  const char* op = "matmul";
  TW_CHECK(a.ndim() > 0 && b.ndim() > 0, op, ": operands must not be 0-d, got ", str_of(a.shape()), " @ ",
           str_of(b.shape()));
  check_dtypes(op, a, b);
  const bool row = a.ndim() == 1, column = b.ndim() == 1;
  Array left = row ? a.unsqueeze(op, 0) : transpose_a ? a.transpose(op, -1, -2) : a;
  Array right = column ? b.unsqueeze(op, 1) : transpose_b ? b.transpose(op, -1, -2) : b;
  TW_CHECK(left.size(left.ndim() - 1) == right.size(right.ndim() - 2), op, ": inner sizes must match, got ",
           str_of(row ? a.shape() : left.shape()), " @ ", str_of(column ? b.shape() : right.shape()));
  for (int d = 1; d <= left.ndim() - 2 && d <= right.ndim() - 2; ++d) {
    const int64_t p = left.size(left.ndim() - 2 - d), q = right.size(right.ndim() - 2 - d);
    TW_CHECK(p == q || p == 1 || q == 1, op, ": batch sizes must match or be 1, got ", str_of(left.shape()), " @ ",
             str_of(right.shape()));
  }
  const Dims full = product_shape(op, left, right);
  Array c = Array::empty(op, full, a.dtype(), a.device());
  if (right.ndim() == 2 && left.ndim() > 2) {  // a batch against one matrix is one taller product
    const Array rows = as_rows(op, left);
    gemm(rows, right, nullptr, reshaped(c, {rows.size(0), right.size(1)}));
  } else {
    gemm(left, right, nullptr, c);
  }
  if (!row && !column) return c;
  Dims shape(full.d, full.n - 2);
  if (!row) shape.push(full[full.n - 2]);
  if (!column) shape.push(full[full.n - 1]);
  return reshaped(c, shape);
}

// y = act(x w^T + b): x (..., in), w (out, in), b (out)
Array linear(const Array& x, const Array& w, const std::optional<Array>& b, int activation) {
  const char* op = "linear";
  TW_CHECK(x.ndim() > 0 && w.ndim() == 2, op, ": input must be (..., in) and weight (out, in), got ", str_of(x.shape()),
           " and ", str_of(w.shape()));
  check_dtypes(op, x, w);
  TW_CHECK(x.size(x.ndim() - 1) == w.size(1), op, ": the input's last size must be the weight's, got input ",
           str_of(x.shape()), " and weight ", str_of(w.shape()));
  std::optional<Array> bias;
  if (b) {
    check_dtypes(op, x, *b);
    TW_CHECK(b->ndim() == 1 && b->size(0) == w.size(0), op, ": bias must be (", w.size(0), ",) for weight ",
             str_of(w.shape()), ", got ", str_of(b->shape()));
    bias = contiguous(*b);
  }
  TW_CHECK_TYPE(activation == 0 || is_float(x.dtype()), op, ": an activation needs floating point, got ",
                name(x.dtype()));
  TW_CHECK(activation >= 0 && activation <= static_cast<int>(Activation::kSilu), op, ": no such activation, got ",
           activation);
  Dims shape = x.shape();
  shape[shape.n - 1] = w.size(0);
  Array y = Array::empty(op, shape, x.dtype(), x.device());
  const Array rows = as_rows(op, x);
  gemm(rows, w.transpose(op, 0, 1), bias ? &*bias : nullptr, reshaped(y, {rows.size(0), w.size(0)}), 1, 0,
       static_cast<Activation>(activation));
  return y;
}

}  // namespace

Array product(const char* op, const Array& a, const Array& b, const OptionalArray& bias, DType dtype,
              Activation activation, double alpha, double beta) {
  const int na = a.ndim();
  TW_CHECK(na >= 2 && b.ndim() >= 2, op, ": a and b must be (..., M, K) and (..., K, N), got ", str_of(a.shape()),
           " @ ", str_of(b.shape()));
  check_dtypes(op, a, b);
  const int64_t M = a.size(na - 2), K = a.size(na - 1), N = b.size(b.ndim() - 1);
  TW_CHECK(K == b.size(b.ndim() - 2), op, ": inner sizes must match, got ", str_of(a.shape()), " @ ",
           str_of(b.shape()));
  TW_CHECK(!bias || (bias->shape() == Dims{N} && bias->dtype() == a.dtype() && bias->is_contiguous()), op,
           ": bias must be (", N, ",), contiguous and of a's dtype, got ", bias ? describe(*bias) : "");
  TW_CHECK_TYPE(activation == Activation::kNone || is_float(a.dtype()), op,
                ": an activation needs floating point, got ", name(a.dtype()));
  const Array c = result(op, product_shape(op, a, b), dtype, a.device());
  TW_CHECK((N <= 1 || c.strides()[c.ndim() - 1] == 1) && (M <= 1 || c.strides()[c.ndim() - 2] >= N), op,
           ": the output's columns must be contiguous, got strides ", str_of(c.strides()));
  Array rows, to;  // a batch against one matrix is one taller product, where the strides allow it
  const bool taller = na > 2 && b.ndim() == 2 && a.try_view(op, {-1, K}, &rows) && c.try_view(op, {-1, N}, &to);
  gemm(taller ? rows : a, b, bias ? &*bias : nullptr, taller ? to : c, alpha, beta, activation);
  return c;
}

namespace {

// dw (out, in) = dy^T x, summed over all that comes before the last dimension.
Array linear_backward_w(const Array& dy, const Array& x) {
  const char* op = "linear";
  const Array rows = as_rows(op, x), d = as_rows(op, dy);
  Array dw = Array::empty(op, {d.size(1), rows.size(1)}, x.dtype(), x.device());
  gemm(d.transpose(op, 0, 1), rows, nullptr, dw);
  return dw;
}

// beta * input + alpha * a @ b; input is broadcast to the product's shape. beta == 0 ignores input's values.
Array addmm(const char* op, const Array& input, const Array& a, const Array& b, double beta, double alpha) {
  check_dtypes(op, a, b);
  check_dtypes(op, input, a);
  TW_CHECK(a.size(a.ndim() - 1) == b.size(b.ndim() - 2), op, ": inner sizes must match, got ", str_of(a.shape()), " @ ",
           str_of(b.shape()));
  const Dims shape = product_shape(op, a, b);
  Array c = Array::empty(op, shape, a.dtype(), a.device());
  const Array start = input.expand(op, shape);
  if (beta != 0) copy_into(op, c, start);
  gemm(a, b, nullptr, c, alpha, beta);
  return c;
}

}  // namespace

void bind_matmul(py::module_& m) {
  m.def("matmul_tf32", [] { return allow_tf32; });
  m.def("set_matmul_tf32", [](bool on) { allow_tf32 = on; });
  def<&matmul>(m, "matmul");
  def<&linear>(m, "linear");
  def<&linear_backward_w>(m, "linear_backward_w");
  m.def("addmm", [](const Array& input, const Array& a, const Array& b, double beta, double alpha) {
    return addmm("addmm", input, a, b, beta, alpha);
  });
  m.def("baddbmm", [](const Array& input, const Array& a, const Array& b, double beta, double alpha) {
    return addmm("baddbmm", input, a, b, beta, alpha);
  });
}

}  // namespace tw
