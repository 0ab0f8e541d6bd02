// One layer of a recurrent net over a whole sequence, in one or two directions; and its gradient.
#include <algorithm>

#include "ops/common.h"

namespace tw {
namespace {

const char* op_name(Cell c) {
  switch (c) {
    case Cell::kTanh: return "rnn_tanh";
    case Cell::kRelu: return "rnn_relu";
    case Cell::kLstm: return "lstm";
    case Cell::kGru: return "gru";
  }
  return "";
}
int64_t gates_of(Cell c) { return c == Cell::kLstm ? 4 : c == Cell::kGru ? 3 : 1; }
int64_t slots_of(Cell c) { return c == Cell::kLstm || c == Cell::kGru ? 4 : 0; }

// A layer's arrays, checked, contiguous and in the kernel's dtype; it keeps them alive for the launch.
struct Layer {
  const char* op;
  DType dtype, compute;
  std::vector<Array> kept;
  RnnArgs args{};

  const void* operand(const Array& x) {
    kept.push_back(contiguous(cast(x, compute)));
    return kept.back().raw();
  }
  const void* operand(const char* what, const OptionalArray& x, const Dims& shape) {
    if (!x) return nullptr;
    TW_CHECK(x->shape() == shape, op, ": ", what, " must have shape ", str_of(shape), ", got ", str_of(x->shape()));
    TW_CHECK_TYPE(x->dtype() == dtype, op, ": ", what, " must have the input's dtype, got ", name(x->dtype()), " for ",
                  name(dtype));
    return operand(*x);
  }
  Array empty(const Dims& shape) { return Array::empty(op, shape, compute, kept[0].device()); }
  Array made(const char* role, const Dims& shape) { return result(op, shape, compute, kept[0].device(), role); }
  Dims state_shape() const { return {args.D, args.B, args.H}; }

  // x is (T, B, I), or (rows, I) with the batch sizes of its steps; weights: w_ih, w_hh, b_ih, b_hh of each direction.
  Layer(int cell, const Array& x, const OptionalArray& batch_sizes, const OptionalArray& h0, const OptionalArray& c0,
        const Arrays& weights) {
    TW_CHECK(cell >= 0 && cell <= 3, "rnn: no such cell, got ", cell);
    args.cell = static_cast<Cell>(cell);
    op = op_name(args.cell);
    dtype = x.dtype();
    compute = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
    TW_CHECK_TYPE(is_float(dtype), op, ": must have a floating-point dtype, got ", describe(x));
    TW_CHECK(x.ndim() == (batch_sizes ? 2 : 3), op, ": input must be ",
             batch_sizes ? "(rows, input_size) when packed" : "(time, batch, input_size)", ", got ", str_of(x.shape()));
    TW_CHECK(weights.size() == 4 || weights.size() == 8, op, ": must have 4 weights a direction, got ", weights.size());
    args.D = static_cast<int>(weights.size() / 4);
    TW_CHECK(weights[1] && weights[1]->ndim() == 2, op, ": weight_hh must be a matrix");
    args.I = x.size(x.ndim() - 1);
    args.H = weights[1]->size(1);
    TW_CHECK(args.H > 0, op, ": hidden_size must be > 0, got ", args.H);
    kept.push_back(contiguous(cast(x, compute)));
    args.x = kept[0].raw();
    if (batch_sizes) {
      TW_CHECK_TYPE(batch_sizes->dtype() == DType::kInt64 && batch_sizes->ndim() == 1, op,
                    ": batch_sizes must be int64 of 1 dimension, got ", describe(*batch_sizes));
      kept.push_back(contiguous(to_device(*batch_sizes, {})));
      const int64_t* sizes = kept.back().data<int64_t>();
      args.batch_sizes = sizes;
      args.T = batch_sizes->size(0);
      args.B = args.T ? sizes[0] : 0;
      for (int64_t t = 0; t < args.T; ++t) {
        TW_CHECK(sizes[t] > 0 && (t == 0 || sizes[t] <= sizes[t - 1]), op,
                 ": batch_sizes must be > 0 and not grow with time, got ", sizes[t], " at ", t);
        args.rows += sizes[t];
      }
      TW_CHECK(args.rows == x.size(0), op, ": batch_sizes must sum to the input's rows, got ", args.rows, " for ",
               str_of(x.shape()));
    } else {
      args.T = x.size(0);
      args.B = x.size(1);
      args.rows = args.T * args.B;
    }
    TW_CHECK(args.T > 0, op, ": the sequence must have at least one step, got ", str_of(x.shape()));
    const int64_t GH = gates_of(args.cell) * args.H;
    for (int d = 0; d < args.D; ++d) {
      const Arrays one(weights.begin() + 4 * d, weights.begin() + 4 * d + 4);
      TW_CHECK(one[0] && one[1] && one[2].has_value() == one[3].has_value(), op,
               ": a direction must have both weights, and both biases or none");
      args.w_ih[d] = operand("weight_ih", one[0], {GH, args.I});
      args.w_hh[d] = operand("weight_hh", one[1], {GH, args.H});
      args.b_ih[d] = operand("bias_ih", one[2], {GH});
      args.b_hh[d] = operand("bias_hh", one[3], {GH});
    }
    args.h0 = operand("h_0", h0, state_shape());
    args.c0 = operand("c_0", c0, state_shape());
    args.dtype = compute;
  }
  void take_work() {
    kept.push_back(empty({rnn_work_size(args.D, args.T, args.B, args.H, gates_of(args.cell))}));
    args.work = kept.back().raw();
  }
};

}  // namespace

// (y, hn, cn, gates, cells); cn of the LSTM, gates and cells where they are kept for backward.
std::tuple<Array, Array, OptionalArray, OptionalArray, OptionalArray> rnn(int cell, const Array& x,
                                                                          const OptionalArray& batch_sizes,
                                                                          const OptionalArray& h0,
                                                                          const OptionalArray& c0,
                                                                          const Arrays& weights, bool keep) {
  Layer layer(cell, x, batch_sizes, h0, c0, weights);
  RnnArgs& a = layer.args;
  const bool lstm = a.cell == Cell::kLstm;
  const int64_t slots = slots_of(a.cell);
  Dims shape = x.shape();
  shape[shape.n - 1] = a.D * a.H;
  Array y = layer.made("out", shape), hn = layer.made("hn", layer.state_shape());
  OptionalArray cn, gates, cells;
  if (lstm) cn = layer.made("cn", layer.state_shape());
  if (slots) gates = layer.made("gates", {a.rows, a.D * slots * a.H});
  if (lstm && keep) cells = layer.made("cells", {a.rows, a.D * a.H});
  a.keep = keep;
  if (a.B > 0) {
    layer.take_work();
    a.y = y.raw();
    a.hn = hn.raw();
    if (cn) a.cn = cn->raw();
    if (gates) a.gates = gates->raw();
    if (cells) a.cells = cells->raw();
    launch(x.device(), slots::rnn, a);
  }
  if (!keep) gates.reset();
  if (cn) cn = cast(*cn, layer.dtype);
  return {cast(y, layer.dtype), cast(hn, layer.dtype), cn, gates, cells};
}

// Gradients of (x, h0, c0, weights...), null where not wanted.
Arrays rnn_backward(int cell, const Array& x, const OptionalArray& batch_sizes, const OptionalArray& h0,
                    const OptionalArray& c0, const Arrays& weights, const Array& y, const OptionalArray& gates,
                    const OptionalArray& cells, const OptionalArray& dy, const OptionalArray& dhn,
                    const OptionalArray& dcn, const std::vector<bool>& wanted) {
  Layer layer(cell, x, batch_sizes, h0, c0, weights);
  RnnArgs& a = layer.args;
  TW_CHECK(wanted.size() == 3 + weights.size(), layer.op, ": must have a flag for each input, got ", wanted.size());
  Arrays grads(wanted.size());
  static const char* const kRoles[] = {"dx", "dh0", "dc0", "dweights"};
  const auto gradient = [&](size_t i, const Dims& shape, bool also = false) -> void* {
    if (!wanted[i] && !also) return nullptr;
    grads[i] = layer.made(kRoles[std::min<size_t>(i, 3)], shape);
    if (a.B == 0) fill(layer.op, *grads[i], Value{nullptr, Value::kInt});
    return grads[i]->raw();
  };
  a.dx = gradient(0, x.shape());
  a.dh0 = gradient(1, layer.state_shape(), true);
  a.dh0_wanted = wanted[1];
  a.dc0 = a.cell == Cell::kLstm ? gradient(2, layer.state_shape(), true) : nullptr;
  for (int d = 0; d < a.D; ++d) {
    a.dw_ih[d] = gradient(3 + 4 * d, weights[4 * d]->shape());
    a.dw_hh[d] = gradient(4 + 4 * d, weights[4 * d + 1]->shape());
    if (!a.b_ih[d]) continue;
    a.db_ih[d] = gradient(5 + 4 * d, weights[4 * d + 2]->shape());
    a.db_hh[d] = gradient(6 + 4 * d, weights[4 * d + 3]->shape());
  }
  if (a.B > 0) {
    layer.take_work();
    const int64_t slots = std::max<int64_t>(slots_of(a.cell), 1);
    const Array dgates = layer.empty({a.rows, a.D * slots * a.H}), previous = layer.empty({a.rows, a.D * a.H});
    Dims shape = x.shape();
    shape[shape.n - 1] = a.D * a.H;
    const auto saved = [&](const char* what, const OptionalArray& s, int64_t n) {
      TW_CHECK(s, layer.op, ": ", what, " must be as the forward pass left them, got None");
      check_is(layer.op, what, *s, {a.rows, a.D * n * a.H}, layer.compute);
      return s->raw();
    };
    a.dgates = dgates.raw();
    a.previous = previous.raw();
    a.y = const_cast<void*>(layer.operand("output", y, shape));
    if (slots_of(a.cell)) a.gates = saved("gates", gates, slots);
    if (a.cell == Cell::kLstm) a.cells = saved("cells", cells, 1);
    a.dy = layer.operand("gradient", dy, shape);
    a.dhn = layer.operand("gradient", dhn, layer.state_shape());
    a.dcn = layer.operand("gradient", dcn, layer.state_shape());
    launch(x.device(), slots::rnn_backward, a);
  }
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!wanted[i]) grads[i].reset();
    else if (grads[i]) grads[i] = cast(*grads[i], layer.dtype);
  }
  return grads;
}

void bind_rnn(py::module_& m) {
  m.def("rnn", &rnn);
  m.def("rnn_backward", &rnn_backward);
}

}  // namespace tw
