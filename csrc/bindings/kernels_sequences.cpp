// Attention, recurrent layers and padding.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <optional>

#include "bindings/kernels.h"

namespace tw {
namespace {

// --- attention --
// The rows of a (..., rows, columns) operand, its leading dimensions broadcast to the batch.
BatchedRows rows_of(const Call& c, const View& v, const Dims& batch, bool columns_any = false) {
  const int lead = v.ndim() - 2;
  TW_CHECK(columns_any || v.size(lead + 1) <= 1 || v.strides[lead + 1] == 1, c.op, ": ", v.role,
           "'s columns must be contiguous, got strides ", str_of(v.strides));
  BatchedRows r{};
  r.data = v.data;
  r.row = v.size(lead) == 1 ? 0 : v.strides[lead];
  for (int b = batch.n - 1, d = lead - 1; b >= 0; --b, --d) r.batch[b] = d < 0 || v.size(d) == 1 ? 0 : v.strides[d];
  return r;
}

struct Attention {
  Call& c;
  Dims batch, y_shape, lse_shape;
  AttentionArgs a{};

  Attention(Call& c, Arr q_, Arr k_, Arr v_, Arr mask_, std::optional<double> scale, bool causal, double dropout_p,
            uint64_t seed, uint64_t offset)
      : c(c) {
    const View& q = c.input("q", q_, kFloat);
    const View& k = c.input("k", k_, kFloat);
    const View& v = c.input("v", v_, kFloat);
    const bool ranks = q.ndim() >= 2 && k.ndim() >= 2 && v.ndim() >= 2;
    TW_CHECK(ranks && q.size(q.ndim() - 1) == k.size(k.ndim() - 1) && k.size(k.ndim() - 2) == v.size(v.ndim() - 2),
             c.op, ": q, k and v must be (..., L, E), (..., S, E) and (..., S, Ev), got ", str_of(q.shape), ", ",
             str_of(k.shape), ", ", str_of(v.shape));
    c.must_have_dtype(k, q.dtype);
    c.must_have_dtype(v, q.dtype);
    TW_CHECK(dropout_p >= 0 && dropout_p <= 1, c.op, ": dropout_p must be in [0, 1], got ", dropout_p);
    const auto leading = [](const View& x) { return Dims(x.shape.d, x.ndim() - 2); };
    batch = broadcast_shapes(c.op, broadcast_shapes(c.op, leading(q), leading(k)), leading(v));
    a.L = q.size(q.ndim() - 2);
    a.E = q.size(q.ndim() - 1);
    a.S = k.size(k.ndim() - 2);
    a.Ev = v.size(v.ndim() - 1);
    TW_CHECK(a.S > 0, c.op, ": there must be at least one key, got ", str_of(k.shape));
    a.batch_ndim = batch.n;
    for (int i = 0; i < batch.n; ++i) a.batch[i] = batch[i];
    lse_shape = with(a.L);
    y_shape = with(a.L, a.Ev);
    a.q = rows_of(c, q, batch);
    a.k = rows_of(c, k, batch);
    a.v = rows_of(c, v, batch);
    if (mask_.given()) {
      const View& mask = c.input("mask", mask_, kAny);
      TW_CHECK_TYPE(mask.dtype == DType::kBool || mask.dtype == DType::kFloat32 || mask.dtype == q.dtype, c.op,
                    ": mask must be bool, float32 or of q's dtype, got ", name(mask.dtype));
      const Dims wanted = with(a.L, a.S);
      TW_CHECK(mask.ndim() >= 2 && mask.ndim() <= wanted.n && broadcast_shapes(c.op, mask.shape, wanted) == wanted,
               c.op, ": mask must have at least 2 dimensions and broadcast to ", str_of(wanted), ", got ",
               str_of(mask.shape));
      a.mask = rows_of(c, mask, batch, true);
      a.mask_col = mask.size(mask.ndim() - 1) == 1 ? 0 : mask.strides[mask.ndim() - 1];
      a.mask_dtype = mask.dtype;
    }
    a.dtype = q.dtype;
    a.scale = scale.value_or(1 / std::sqrt(static_cast<double>(a.E)));
    a.dropout_p = dropout_p;
    a.causal = causal;
    a.seed = seed;
    a.offset = offset;
  }

  Dims with(int64_t rows, int64_t cols = -1) const {
    Dims d = batch;
    TW_CHECK(d.n + 2 <= kMaxDims, c.op, ": at most ", kMaxDims, " dimensions, got a batch of ", str_of(batch));
    d.push(rows);
    if (cols >= 0) d.push(cols);
    return d;
  }
  const View& rows(const char* role, Arr x, const Dims& shape, bool written, BatchedRows* r) {
    const View& v = written ? c.output(role, x, shape, a.dtype, kAny) : c.input(role, x, shape, a.dtype, kAny);
    *r = rows_of(c, v, batch);
    return v;
  }
};

Arr attention(Arr q, Arr k, Arr v, Arr out_, Arr mask, Arr lse, std::optional<double> scale, bool causal,
              double dropout_p, uint64_t seed, uint64_t offset) {
  Call c("attention");
  Attention t(c, q, k, v, mask, scale, causal, dropout_p, seed, offset);
  const View& out = t.rows("out", out_, t.y_shape, true, &t.a.y);
  const DType acc = accumulator(t.a.dtype);
  int64_t rows = 1;
  for (int i = 0; i < t.lse_shape.n; ++i) rows *= t.lse_shape[i];
  t.a.lse = lse.given() ? c.output("lse", lse, t.lse_shape, acc).data
                        : c.temporary(rows * static_cast<int64_t>(itemsize(acc)));
  return c.run(slots::attention, t.a, out);
}

void attention_backward(Arr dy, Arr q, Arr k, Arr v, Arr y, Arr lse, Arr dq, Arr dk, Arr dv, Arr mask,
                        std::optional<double> scale, bool causal, double dropout_p, uint64_t seed, uint64_t offset) {
  Call c("attention_backward");
  Attention t(c, q, k, v, mask, scale, causal, dropout_p, seed, offset);
  AttentionArgs& a = t.a;
  const View& from = t.rows("y", y, t.y_shape, false, &a.y);
  t.rows("dy", dy, t.y_shape, false, &a.dy);
  a.lse = c.input("lse", lse, t.lse_shape, accumulator(a.dtype)).data;
  if (dq.given()) t.rows("dq", dq, t.with(a.L, a.E), true, &a.dq);
  if (dk.given()) t.rows("dk", dk, t.with(a.S, a.E), true, &a.dk);
  if (dv.given()) t.rows("dv", dv, t.with(a.S, a.Ev), true, &a.dv);
  TW_CHECK(from.numel > 0 && a.E > 0, c.op, ": arrays must not be empty, got y ", str_of(from.shape));
  c.launch(slots::attention_backward, a);
}

// --- recurrent layers --
struct Layer {
  Call& c;
  RnnArgs a{};
  int64_t gates, kept;  // gates a cell has, and how many rows of its values backward reads

  Layer(Call& c, std::string_view cell, Arr x_, const nb::tuple& weights, Arr h0, Arr c0, Arr batch_sizes) : c(c) {
    constexpr std::string_view kCells[] = {"rnn_tanh", "rnn_relu", "lstm", "gru"};
    int kind = 0;
    while (kind < 4 && cell != kCells[kind]) ++kind;
    TW_CHECK(kind < 4, c.op, ": cell must be rnn_tanh, rnn_relu, lstm or gru, got '", cell, "'");
    a.cell = static_cast<Cell>(kind);
    gates = a.cell == Cell::kLstm ? 4 : a.cell == Cell::kGru ? 3 : 1;
    kept = kind >= 2 ? 4 : 0;
    const View& x = c.input("x", x_, kDense | kFloat);
    TW_CHECK_TYPE(!is_half(x.dtype), c.op, ": x must be float32 or float64, got ", name(x.dtype));
    a.dtype = x.dtype;
    const bool packed = batch_sizes.given();
    TW_CHECK(x.ndim() == (packed ? 2 : 3), c.op, ": x must be ", packed ? "(rows, I)" : "(T, B, I)", ", got ",
             str_of(x.shape));
    a.x = x.data;
    a.I = x.size(x.ndim() - 1);
    if (packed) {
      const View& sizes = c.input("batch_sizes", batch_sizes, kDense | kLabel);
      a.batch_sizes = reinterpret_cast<const int64_t*>(sizes.data);
      a.T = sizes.numel;
      a.B = a.T ? a.batch_sizes[0] : 0;
      for (int64_t t = 0; t < a.T; ++t) {
        TW_CHECK(a.batch_sizes[t] > 0 && (t == 0 || a.batch_sizes[t] <= a.batch_sizes[t - 1]), c.op,
                 ": batch_sizes must be > 0 and not grow with time, got ", a.batch_sizes[t], " at ", t);
        a.rows += a.batch_sizes[t];
      }
      TW_CHECK(a.rows == x.size(0), c.op, ": batch_sizes must sum to x's rows, got ", a.rows, " for ", str_of(x.shape));
    } else {
      a.T = x.size(0);
      a.B = x.size(1);
      a.rows = a.T * a.B;
    }
    TW_CHECK(a.rows > 0, c.op, ": there must be at least one step and one sequence, got ", str_of(x.shape));
    const size_t n = nb::len(weights);
    TW_CHECK(n == 4 || n == 8, c.op, ": must have 4 weights a direction, got ", n);
    a.D = static_cast<int>(n / 4);
    for (int d = 0; d < a.D; ++d) {
      const auto weight = [&](int i) { return Arr{nb::handle(weights[static_cast<size_t>(4 * d + i)]).ptr()}; };
      const View& w_hh = c.input("weight_hh", weight(1));
      TW_CHECK(w_hh.ndim() == 2 && w_hh.size(1) > 0, c.op, ": weight_hh must be (gates * H, H), got ",
               str_of(w_hh.shape));
      if (d == 0) a.H = w_hh.size(1);
      c.must_have_shape(w_hh, {gates * a.H, a.H});
      c.must_have_dtype(w_hh, a.dtype);
      a.w_hh[d] = w_hh.data;
      a.w_ih[d] = c.input("weight_ih", weight(0), {gates * a.H, a.I}, a.dtype).data;
      TW_CHECK(weight(2).given() == weight(3).given(), c.op, ": a direction must have both biases or none");
      a.b_ih[d] = optional("bias_ih", weight(2), {gates * a.H});
      a.b_hh[d] = optional("bias_hh", weight(3), {gates * a.H});
    }
    a.h0 = optional("h0", h0, state());
    if (a.cell == Cell::kLstm) a.c0 = optional("c0", c0, state());
    const int64_t size = rnn_work_size(a.D, a.T, a.B, a.H, gates);
    a.work = c.temporary(size * static_cast<int64_t>(itemsize(a.dtype)));
  }

  Dims state() const { return {a.D, a.B, a.H}; }
  Dims results() const { return a.batch_sizes ? Dims{a.rows, a.D * a.H} : Dims{a.T, a.B, a.D * a.H}; }
  const void* optional(const char* role, Arr x, const Dims& shape) {
    return x.given() ? c.input(role, x, shape, a.dtype).data : nullptr;
  }
  // An output that the kernel writes whether it is given or not.
  void* always(const char* role, Arr x, const Dims& shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; ++i) n *= shape[i];
    return x.given() ? c.output(role, x, shape, a.dtype).data
                     : c.temporary(n * static_cast<int64_t>(itemsize(a.dtype)));
  }
  void* wanted(const char* role, Arr x, const Dims& shape) {
    return x.given() ? c.output(role, x, shape, a.dtype).data : nullptr;
  }
};

Arr rnn(const char* cell, Arr x, nb::sequence weights, Arr out_, Arr h0, Arr c0, Arr hn, Arr cn, Arr gates, Arr cells,
        Arr batch_sizes) {
  Call c("rnn");
  Layer layer(c, cell, x, nb::tuple(weights), h0, c0, batch_sizes);
  RnnArgs& a = layer.a;
  const bool lstm = a.cell == Cell::kLstm;
  const View& out = c.output("out", out_, layer.results(), a.dtype);
  a.y = out.data;
  a.hn = layer.always("hn", hn, layer.state());
  if (lstm) a.cn = layer.always("cn", cn, layer.state());
  a.keep = gates.given() || layer.kept == 0;
  if (layer.kept) a.gates = layer.always("gates", gates, {a.rows, a.D * layer.kept * a.H});
  if (lstm) a.cells = layer.wanted("cells", cells, {a.rows, a.D * a.H});
  TW_CHECK(!lstm || gates.given() == cells.given(), "rnn: gates and cells of an LSTM must be given together");
  return c.run(slots::rnn, a, out);
}

void rnn_backward(const char* cell, Arr dy, Arr x, nb::sequence weights, Arr y, nb::sequence dweights, Arr dx, Arr dh0,
                  Arr dc0, Arr h0, Arr c0, Arr gates, Arr cells, Arr dhn, Arr dcn, Arr batch_sizes) {
  Call c("rnn_backward");
  Layer layer(c, cell, x, nb::tuple(weights), h0, c0, batch_sizes);
  RnnArgs& a = layer.a;
  const bool lstm = a.cell == Cell::kLstm;
  a.y = c.input("y", y, layer.results(), a.dtype).data;
  a.dy = layer.optional("dy", dy, layer.results());
  a.dhn = layer.optional("dhn", dhn, layer.state());
  if (lstm) a.dcn = layer.optional("dcn", dcn, layer.state());
  const int64_t width = layer.kept ? layer.kept : 1;
  if (layer.kept) a.gates = c.input("gates", gates, {a.rows, a.D * width * a.H}, a.dtype).data;
  if (lstm) a.cells = c.input("cells", cells, {a.rows, a.D * a.H}, a.dtype).data;
  const auto size = static_cast<int64_t>(itemsize(a.dtype));
  a.dgates = c.temporary(a.rows * a.D * width * a.H * size);
  a.previous = c.temporary(a.rows * a.D * a.H * size);
  const Dims x_shape = a.batch_sizes ? Dims{a.rows, a.I} : Dims{a.T, a.B, a.I};
  a.dx = layer.wanted("dx", dx, x_shape);
  a.dh0 = layer.always("dh0", dh0, layer.state());
  a.dh0_wanted = dh0.given();
  if (lstm) a.dc0 = layer.always("dc0", dc0, layer.state());
  const nb::tuple given(dweights);
  const size_t n = nb::len(given);
  TW_CHECK(n == 4 * static_cast<size_t>(a.D), c.op, ": must have one of dweights, or None, a weight, got ", n);
  const int64_t GH = layer.gates * a.H;
  for (int d = 0; d < a.D; ++d) {
    const auto gradient = [&](int i) { return Arr{nb::handle(given[static_cast<size_t>(4 * d + i)]).ptr()}; };
    a.dw_ih[d] = layer.wanted("dweights", gradient(0), {GH, a.I});
    a.dw_hh[d] = layer.wanted("dweights", gradient(1), {GH, a.H});
    if (!a.b_ih[d]) continue;
    a.db_ih[d] = layer.wanted("dweights", gradient(2), {GH});
    a.db_hh[d] = layer.wanted("dweights", gradient(3), {GH});
  }
  c.launch(slots::rnn_backward, a);
}

// --- pads --
PadArgs pad_args(const Call& c, const View& x, const View& y, const std::vector<int64_t>& widths,
                 std::string_view mode) {
  constexpr std::string_view kModes[] = {"constant", "reflect", "replicate", "circular"};
  int kind = 0;
  while (kind < 4 && mode != kModes[kind]) ++kind;
  TW_CHECK(kind < 4, c.op, ": mode must be constant, reflect, replicate or circular, got '", mode, "'");
  TW_CHECK(widths.size() % 2 == 0 && widths.size() / 2 <= static_cast<size_t>(x.ndim()), c.op,
           ": pad must hold pairs, at most one a dimension, got ", widths.size(), " numbers for ", x.ndim(),
           " dimensions");
  PadArgs a{};
  a.mode = static_cast<PadMode>(kind);
  a.block = 1;
  a.ndim = 1;
  a.n[0] = a.out[0] = 1;
  Dims shape = x.shape;
  for (int d = 0; d < x.ndim(); ++d) {
    const size_t k = 2 * static_cast<size_t>(x.ndim() - 1 - d);
    const int64_t before = k < widths.size() ? widths[k] : 0, after = k < widths.size() ? widths[k + 1] : 0;
    const int64_t n = x.size(d), most = a.mode == PadMode::kReflect    ? n - 1
                                        : a.mode == PadMode::kCircular ? n
                                                                       : INT64_MAX;
    TW_CHECK(before >= -n && after >= -n && n + (before < 0 ? before : 0) + (after < 0 ? after : 0) >= 0, c.op,
             ": a crop must not take more than there is, got ", before, " and ", after, " for dimension ", d,
             " of size ", n);
    TW_CHECK(
        a.mode == PadMode::kConstant || (before <= most && after <= most && (n > 0 || (before <= 0 && after <= 0))),
        c.op, ": ", mode, " widths must be at most ", n > 0 ? most : 0, " for a dimension of size ", n, ", got ",
        before, " and ", after);
    TW_CHECK_AS(std::overflow_error, !__builtin_add_overflow(n + before, after, &shape[d]), c.op,
                ": the size of dimension ", d, " overflows int64");
    a.ndim = d + 1;
    a.n[d] = n;
    a.out[d] = shape[d];
    a.before[d] = before;
  }
  while (a.ndim > 1 && a.before[a.ndim - 1] == 0 && a.out[a.ndim - 1] == a.n[a.ndim - 1]) a.block *= a.n[--a.ndim];
  TW_CHECK(y.shape == shape, c.op, ": ", y.role, " must have shape ", str_of(shape), ", got ", str_of(y.shape));
  TW_CHECK_TYPE(x.dtype == y.dtype, c.op, ": ", y.role, " must have ", x.role, "'s dtype, got ", name(y.dtype), " and ",
                name(x.dtype));
  a.dtype = x.dtype;
  return a;
}

Arr pad(Arr x_, Arr out_, const std::vector<int64_t>& widths, const char* mode, double value) {
  Call c("pad");
  const View& x = c.input("x", x_);
  const View& out = c.output("out", out_);
  PadArgs a = pad_args(c, x, out, widths, mode);
  ElementwiseArgs item{};  // the value's bits in x's dtype
  item.out = {&a.fill, {static_cast<int64_t>(itemsize(x.dtype))}, x.dtype};
  item.in[0].dtype = item.compute = x.dtype;
  item.shape[0] = item.ndim = item.inputs = 1;
  item.scalar_float = value;
  item.scalar_int = value >= -0x1p63 && value < 0x1p63 ? static_cast<int64_t>(value) : 0;
  if (const KernelTable* table = api->table({})) table->copy(item);
  a.x = x.data;
  a.y = out.data;
  return c.run(slots::pad, a, out);
}

Arr pad_backward(Arr dy_, Arr out_, const std::vector<int64_t>& widths, const char* mode) {
  Call c("pad_backward");
  const View& dy = c.input("dy", dy_, kDense | kFloat);
  const View& out = c.output("out", out_);
  PadArgs a = pad_args(c, out, dy, widths, mode);
  TW_CHECK(a.mode != PadMode::kConstant, "pad_backward: mode must be reflect, replicate or circular; the gradient of ",
           "constant is pad with the widths negated");
  a.x = dy.data;
  a.y = out.data;
  return c.run(slots::pad_backward, a, out);
}

}  // namespace

void bind_sequences(nb::module_& m) {
  const auto none = [](const char* name) { return nb::arg(name).none() = nb::none(); };
  const auto scale = nb::arg("scale") = nb::none();
  const auto causal = nb::arg("causal") = false, dropout_p = nb::arg("dropout_p") = 0.0;
  const auto seed = nb::arg("seed") = uint64_t{0}, offset = nb::arg("offset") = uint64_t{0};
  m.def("attention", &attention, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"), none("mask"), none("lse"),
        scale, causal, dropout_p, seed, offset,
        R"(out = dropout(softmax(scale * q @ k^T + mask)) @ v, with no L x S matrix in memory.

q: (..., L, E), k: (..., S, E), v: (..., S, Ev), out: (..., L, Ev), one float dtype; rows anywhere, columns contiguous,
leading dimensions broadcast (a key's head serves a group as (B, heads, 1, S, E)). mask: bool (true takes part), float32
or q's dtype (added), broadcast to (..., L, S). lse: (..., L), written for attention_backward, float64 for float64 q,
else float32. scale: 1 / sqrt(E) where None. causal: row i sees keys 0 to i.

Raises: ValueError: shapes, layout, overlapping or read-only memory, dropout_p. TypeError: dtypes.
Dao et al., arXiv:2205.14135, for the blocks; Milakov & Gimelshein, arXiv:1805.02867, for the running softmax.

>>> q, k, v = np.zeros((1, 2), np.float32), np.ones((2, 2), np.float32), np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.attention(q, k, v, out=np.empty((1, 2), np.float32)).tolist()
[[2.0, 3.0]]
)");
  m.def("attention_backward", &attention_backward, nb::arg("dy"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
        nb::arg("y"), nb::arg("lse"), none("dq"), none("dk"), none("dv"), none("mask"), scale, causal, dropout_p, seed,
        offset,
        R"(The gradients of attention by q, k and v, written into dq, dk and dv, where given.

y, lse: as attention wrote them. dq, dk, dv: (batch..., rows, columns) over the whole broadcast batch; the sum over what
was broadcast is the caller's. The rest as in attention.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> q, k, v = np.zeros((1, 2)), np.ones((2, 2)), np.array([[1.0, 2.0], [3.0, 4.0]])
>>> y, lse, dv = np.empty((1, 2)), np.empty(1), np.empty((2, 2))
>>> _ = kernels.attention(q, k, v, out=y, lse=lse)
>>> kernels.attention_backward(np.ones((1, 2)), q, k, v, y, lse, dv=dv)
>>> dv.round(12).tolist()
[[0.5, 0.5], [0.5, 0.5]]
)");
  m.def("rnn", &rnn, nb::arg("cell"), nb::arg("x"), nb::arg("weights"), nb::arg("out"), none("h0"), none("c0"),
        none("hn"), none("cn"), none("gates"), none("cells"), none("batch_sizes"),
        R"(One recurrent layer over whole sequences: cell is rnn_tanh, rnn_relu, lstm or gru, in PyTorch's equations.

x: (T, B, I), float32 or float64. weights: weight_ih (G H, I), weight_hh (G H, H), bias_ih and bias_hh (G H,) or None;
four more for the direction from the end (D = 2). G: 1, 1, 4, 3. out: (T, B, D H). h0, c0, hn, cn: (D, B, H). gates
(T B, 4 D H; lstm and gru) and cells (T B, D H; lstm): written for rnn_backward. batch_sizes: int64 (T,), not growing; x
and out are then (rows, ...), as in PyTorch's PackedSequence. All contiguous.

Raises: ValueError: cell, shapes, layout, overlapping or read-only memory. TypeError: dtypes.
Elman 1990; Hochreiter & Schmidhuber 1997; Cho et al., arXiv:1406.1078.

>>> x, w = np.ones((2, 1, 1)), np.ones((1, 1))
>>> kernels.rnn("rnn_relu", x, [w, w, None, None], out=np.empty((2, 1, 1))).ravel().tolist()
[1.0, 2.0]
)");
  m.def("rnn_backward", &rnn_backward, nb::arg("cell"), nb::arg("dy").none(), nb::arg("x"), nb::arg("weights"),
        nb::arg("y"), nb::arg("dweights"), none("dx"), none("dh0"), none("dc0"), none("h0"), none("c0"), none("gates"),
        none("cells"), none("dhn"), none("dcn"), none("batch_sizes"),
        R"(The gradients of rnn, written into dweights (as weights, None where not wanted), dx, dh0 and dc0.

y, gates, cells: as rnn wrote them. dy, dhn, dcn: the gradients of out, hn and cn, None for zeros. The rest as in rnn.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, w, y, dw = np.ones((2, 1, 1)), np.ones((1, 1)), np.empty((2, 1, 1)), np.empty((1, 1))
>>> _ = kernels.rnn("rnn_relu", x, [w, w, None, None], out=y)
>>> kernels.rnn_backward("rnn_relu", np.ones_like(y), x, [w, w, None, None], y, [dw, None, None, None])
>>> dw.tolist()
[[3.0]]
)");
  m.def("pad", &pad, nb::arg("x"), nb::arg("out"), nb::arg("pad"), nb::arg("mode") = "constant", nb::arg("value") = 0.0,
        R"(out = x with borders: pad holds (before, after) of the last dimension, then of the one before it, and so on.

mode: constant (value), reflect, replicate or circular. Negative widths crop. Any dtype; contiguous.

Raises: ValueError: widths, mode, shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([1, 2, 3], np.float32)
>>> kernels.pad(x, out=np.empty(5, np.float32), pad=(1, 1), mode="reflect").tolist()
[2.0, 1.0, 2.0, 3.0, 2.0]
)");
  m.def("pad_backward", &pad_backward, nb::arg("dy"), nb::arg("out"), nb::arg("pad"), nb::arg("mode"),
        R"(out = the gradient of pad by x: dy's values summed into the places that they were copied from.

dy: floats, of pad's out; out: of its x. Contiguous. mode: not constant, whose gradient is pad with widths negated.

Raises: ValueError: widths, mode, shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> kernels.pad_backward(np.ones(4), out=np.empty(2), pad=(1, 1), mode="replicate").tolist()
[2.0, 2.0]
)");
}

}  // namespace tw
