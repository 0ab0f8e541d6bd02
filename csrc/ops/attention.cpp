// Attention over (..., L, E), (..., S, E), (..., S, Ev): leading dimensions broadcast, keys' heads may serve groups.
#include "ops/common.h"
#include "philox.h"

namespace tw {
namespace {

constexpr const char* kOp = "scaled_dot_product_attention";

// An array whose columns are contiguous: itself, or a copy.
Array with_columns(const Array& a) {
  const int n = a.ndim();
  return a.size(n - 1) == 1 || a.strides()[n - 1] == 1 ? a : contiguous(a);
}

// A new array; where `like` keeps its heads inside the rows (batch, row, head, column), so does the result, so that the
// reshape which follows or precedes attention in a layer is a view.
Array laid_out_as(const Array& like, const Dims& shape, const char* role) {
  const int n = shape.n;
  const bool swapped = n >= 3 && like.ndim() == n && like.strides()[n - 3] < like.strides()[n - 2];
  if (!swapped || recipient) return result(kOp, shape, like.dtype(), like.device(), role);
  Dims inner = shape;
  inner[n - 3] = shape[n - 2];
  inner[n - 2] = shape[n - 3];
  return Array::empty(kOp, inner, like.dtype(), like.device()).transpose(kOp, n - 3, n - 2);
}

struct Attention {
  Array q, k, v, mask;
  Dims batch;  // leading dimensions, the group of a key's head among them
  Dims y_shape;
  int64_t group = 0;  // size of that group dimension, or 0 when there is none
  AttentionArgs args;

  // The operand's rows, its leading dimensions broadcast to the batch; heads: what its heads dimension is split by.
  BatchedRows rows(const Array& a, bool mask_rows = false) const {
    BatchedRows r{};
    r.data = a.raw();
    const int lead = a.ndim() - 2;
    r.row = mask_rows && a.size(lead) == 1 ? 0 : a.strides()[lead];
    // From the last batch dimension on; with groups the last two are (heads of k, group).
    int d = lead - 1;
    for (int b = batch.n - 1; b >= 0; --b) {
      if (group > 0 && b == batch.n - 1) {
        if (d < 0) continue;
        const int64_t heads = a.size(d), step = a.strides()[d];
        const bool own = heads == batch[b - 1] * group && heads != 1;  // a head of its own for each of the group
        r.batch[b] = own && group > 1 ? step : 0;
        r.batch[b - 1] = heads == 1 ? 0 : own ? step * group : step;
        --d;
        --b;
        continue;
      }
      r.batch[b] = d < 0 || a.size(d) == 1 ? 0 : a.strides()[d];
      --d;
    }
    return r;
  }
};

Dims leading(const Array& a) { return Dims(a.shape().d, a.ndim() - 2); }

Attention prepare(const Array& q, const Array& k, const Array& v, const OptionalArray& mask, double dropout_p,
                  bool causal, double scale, bool enable_gqa, uint64_t seed, uint64_t offset) {
  const auto shapes = [&] { return str(str_of(q.shape()), ", ", str_of(k.shape()), ", ", str_of(v.shape())); };
  TW_CHECK_TYPE(is_float(q.dtype()), kOp, ": query must have a floating-point dtype, got ", describe(q));
  TW_CHECK_TYPE(k.dtype() == q.dtype() && v.dtype() == q.dtype(), kOp,
                ": query, key and value must have one dtype, got ", name(q.dtype()), ", ", name(k.dtype()), ", ",
                name(v.dtype()));
  TW_CHECK(q.ndim() >= 2 && k.ndim() >= 2 && v.ndim() >= 2, kOp,
           ": query, key and value must have at least 2 dimensions, got ", shapes());
  TW_CHECK(q.ndim() < kMaxDims && k.ndim() < kMaxDims && v.ndim() < kMaxDims, kOp, ": at most ", kMaxDims - 1,
           " dimensions, got ", shapes());
  TW_CHECK(dropout_p >= 0 && dropout_p <= 1, kOp, ": dropout_p must be in [0, 1], got ", dropout_p);
  const int64_t E = q.size(q.ndim() - 1), S = k.size(k.ndim() - 2);
  TW_CHECK(k.size(k.ndim() - 1) == E, kOp, ": query and key must have the same last size, got ", shapes());
  TW_CHECK(v.size(v.ndim() - 2) == S, kOp, ": key and value must have as many rows, got ", shapes());
  Attention t;
  AttentionArgs& a = t.args;
  a = {};
  a.L = q.size(q.ndim() - 2);
  a.S = S;
  a.E = E;
  a.Ev = v.size(v.ndim() - 1);
  Dims heads = leading(q);  // the batch as query has it
  if (enable_gqa) {
    TW_CHECK(q.ndim() >= 3 && k.ndim() == q.ndim() && v.ndim() == q.ndim(), kOp,
             ": with enable_gqa query, key and value must have heads, got ", shapes());
    const int h = q.ndim() - 3;
    TW_CHECK(k.size(h) == v.size(h) && k.size(h) > 0 && q.size(h) % k.size(h) == 0, kOp,
             ": key's and value's number of heads must be one and divide query's, got ", shapes());
    t.group = q.size(h) / k.size(h);
    const Dims outer(q.shape().d, h);
    t.batch = broadcast_shapes(kOp, broadcast_shapes(kOp, outer, Dims(k.shape().d, h)), Dims(v.shape().d, h));
    heads = t.batch;
    heads.push(q.size(h));
    t.batch.push(k.size(h));
    t.batch.push(t.group);
  } else {
    t.batch = heads = broadcast_shapes(kOp, broadcast_shapes(kOp, heads, leading(k)), leading(v));
  }
  t.y_shape = heads;
  t.y_shape.push(a.L);
  t.y_shape.push(a.Ev);
  a.batch_ndim = t.batch.n;
  for (int i = 0; i < t.batch.n; ++i) a.batch[i] = t.batch[i];
  t.q = with_columns(q);
  t.k = with_columns(k);
  t.v = with_columns(v);
  a.q = t.rows(t.q);
  a.k = t.rows(t.k);
  a.v = t.rows(t.v);
  if (mask) {
    const DType d = mask->dtype();
    TW_CHECK_TYPE(d == DType::kBool || d == DType::kFloat32 || d == q.dtype(), kOp,
                  ": attn_mask must be bool, float32 or of query's dtype, got ", name(d), " for ", name(q.dtype()));
    Dims wanted = heads;
    wanted.push(a.L);
    wanted.push(S);
    TW_CHECK(mask->ndim() <= wanted.n && broadcast_shapes(kOp, mask->shape(), wanted) == wanted, kOp,
             ": attn_mask must broadcast to ", str_of(wanted), ", got ", str_of(mask->shape()));
    t.mask = *mask;
    while (t.mask.ndim() < 2) t.mask = t.mask.unsqueeze(kOp, 0);
    a.mask = t.rows(t.mask, true);
    a.mask_col = t.mask.size(t.mask.ndim() - 1) == 1 ? 0 : t.mask.strides()[t.mask.ndim() - 1];
    a.mask_dtype = d;
  }
  a.dtype = q.dtype();
  a.scale = scale;
  a.dropout_p = dropout_p;
  a.causal = causal;
  a.seed = seed;
  a.offset = offset;
  return t;
}

}  // namespace

// (y, lse, counters used by dropout)
std::tuple<Array, Array, uint64_t> attention(const Array& q, const Array& k, const Array& v, const OptionalArray& mask,
                                             double dropout_p, bool causal, double scale, bool enable_gqa,
                                             uint64_t seed, uint64_t offset) {
  Attention t = prepare(q, k, v, mask, dropout_p, causal, scale, enable_gqa, seed, offset);
  AttentionArgs& a = t.args;
  Dims rows(t.y_shape.d, t.y_shape.n - 1);
  Array y = laid_out_as(q, t.y_shape, "out");
  Array lse = result(kOp, rows, q.dtype() == DType::kFloat64 ? q.dtype() : DType::kFloat32, q.device(), "lse");
  if (y.numel() > 0 && a.S > 0) {
    a.y = t.rows(y);
    a.lse = lse.raw();
    launch(q.device(), slots::attention, a);
  } else {
    fill(kOp, y, Value{nullptr, Value::kInt});
  }
  const uint64_t used = dropout_p > 0 ? uint64_t(lse.numel()) * uint64_t((a.S + 3) / 4) : 0;
  return {y, lse, used};
}

// Gradients of shape (batch..., rows, columns), the batch as `t.batch`: the caller sums those that were broadcast.
Gradients attention_backward(const Array& dy, const Array& q, const Array& k, const Array& v, const OptionalArray& mask,
                             const Array& y, const Array& lse, double dropout_p, bool causal, double scale,
                             bool enable_gqa, uint64_t seed, uint64_t offset, bool want_q, bool want_k, bool want_v) {
  Attention t = prepare(q, k, v, mask, dropout_p, causal, scale, enable_gqa, seed, offset);
  AttentionArgs& a = t.args;
  check_is(kOp, "dy", dy, t.y_shape, q.dtype());
  check_is(kOp, "y", y, t.y_shape, q.dtype());
  check_is(kOp, "lse", lse, Dims(t.y_shape.d, t.y_shape.n - 1),
           q.dtype() == DType::kFloat64 ? q.dtype() : DType::kFloat32);
  const bool nothing = y.numel() == 0 || a.S == 0 || a.E == 0 || dropout_p == 1;
  OptionalArray dq, dk, dv;
  const auto gradient = [&](const char* role, OptionalArray& d, bool want, const Array& like, int64_t rows,
                            int64_t cols, bool grouped) {
    if (!want) return;
    Dims shape = grouped ? t.batch : leading(y);
    shape.push(rows);
    shape.push(cols);
    d = laid_out_as(like, shape, role);
    if (nothing) fill(kOp, *d, Value{nullptr, Value::kInt});
  };
  const bool grouped = enable_gqa && t.group > 1;
  gradient("dq", dq, want_q, q, a.L, a.E, false);
  gradient("dk", dk, want_k, k, a.S, a.E, grouped);
  gradient("dv", dv, want_v, v, a.S, a.Ev, grouped);
  if (nothing) return {dq, dk, dv};
  const Array g = with_columns(dy), from = with_columns(y);
  a.y = t.rows(from);
  a.dy = t.rows(g);
  const auto whole = [&](const Array& d) {  // a grouped gradient's own dimensions are the batch
    if (!grouped) return t.rows(d);
    BatchedRows r{};
    r.data = d.raw();
    r.row = d.strides()[t.batch.n];
    for (int i = 0; i < t.batch.n; ++i) r.batch[i] = d.strides()[i];
    return r;
  };
  if (dq) a.dq = t.rows(*dq);
  if (dk) a.dk = whole(*dk);
  if (dv) a.dv = whole(*dv);
  a.lse = lse.raw();
  launch(q.device(), slots::attention_backward, a);
  return {dq, dk, dv};
}

void bind_attention(py::module_& m) {
  m.def("attention", &attention);
  m.def("attention_backward", &attention_backward);
}

}  // namespace tw
