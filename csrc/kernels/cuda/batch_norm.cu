// Batch norm of contiguous (N, C, S), channel by channel, and its gradients, as kernels/cpu/batch_norm.cpp, whose
// formulas, arithmetic types and error bounds hold here; measured by the op table's rows `batch_norm_train` and
// `batch_norm_eval`.
// Three launches: cells, two numbers each (runs of S in pieces of 16384, or for S < kMinRun parts of the columns of
// (N, C S)); a warp a channel that joins its cells in float64 and writes the statistics, the running ones, dw, db and
// what dx needs; a walk that applies them. Evaluation needs no cells.
// Bytes: 2 x + y forward in training, x + y in evaluation; 2 (x + dy) + dx backward, of which the second reading comes
// from L2 where the tensor fits it; cells add 8 / min(S, 16384) of a float each.
#include "kernels/cuda/norm.cuh"

namespace tw::cuda {
namespace {

template <class A> struct ChannelStatistics {
  using Sums = MomentSums;
  BatchNormArgs a;
  TW_DEVICE void add(Sums& s, A m, A m2, int64_t, int64_t, int64_t, int64_t n) const {
    s.join({double(n), double(m), double(m2)});
  }
  TW_DEVICE void end(const Sums& s, int64_t c) const {
    double mean = s.mean, var = s.m2 / s.n;
    const auto move = [&](void* running, double to) {
      if (!running) return;
      const double old = double(load_item<A>(running, a.param_dtype, c));
      store_item(running, a.param_dtype, c, A((1 - a.momentum) * old + a.momentum * to));
    };
    if (a.training) {
      move(a.running_mean, mean);
      move(a.running_var, s.m2 / (s.n - 1));
    } else {
      mean = double(load_item<A>(a.running_mean, a.param_dtype, c));
      var = double(load_item<A>(a.running_var, a.param_dtype, c));
    }
    static_cast<A*>(a.mean)[c] = A(mean);
    static_cast<A*>(a.rstd)[c] = A(1 / sqrt(var + a.eps));
  }
};

template <class A> struct ChannelGradients {
  using Sums = GradientSums;
  BatchNormArgs a;
  A* slopes;  // null: dx is not wanted
  TW_DEVICE void add(Sums& s, A g, A gx, int64_t, int64_t, int64_t, int64_t) const { s.join({double(g), double(gx)}); }
  TW_DEVICE void end(const Sums& s, int64_t c) const {
    const double r = double(static_cast<const A*>(a.rstd)[c]);
    if (a.dw) store_item(a.dw, a.param_dtype, c, A(s.gx * r));
    if (a.db) store_item(a.db, a.param_dtype, c, A(s.g));
    if (!slopes) return;
    const double w = a.w ? double(load_item<A>(a.w, a.param_dtype, c)) : 1, M = double(a.N) * double(a.S);
    slopes[2 * c] = a.training ? A(w * s.g / M) : A(0);
    slopes[2 * c + 1] = a.training ? A(w * s.gx / M * r * r) : A(0);
  }
};

NormView view_of(const BatchNormArgs& a) {
  return {a.x, a.dy, a.y, a.w, a.b, a.mean, a.rstd, nullptr, a.N, a.C, a.S, 0, 1, a.dtype, a.param_dtype, false};
}

// rows(cells) or columns(cells) into a workspace, then finish a channel.
template <class A, class Finish, class Cells>
void join_channels(const BatchNormArgs& a, const Finish& finish, const Cells& make) {
  CellGrid g;
  int64_t cells;
  if (a.S >= kMinRun) {
    const RowPieces pieces(a.S);
    g = {a.C, a.N, a.C * pieces.count, pieces.count, a.S, pieces.size, true};
    cells = a.N * a.C * pieces.count;
  } else {
    const ColumnParts parts(a.N, a.C * a.S, kPack<A>);
    g = {a.C, parts.count, a.C * a.S, a.S, a.N, parts.rows, false};
    cells = parts.count * a.C * a.S;
  }
  const Workspace memory(static_cast<size_t>(2 * cells) * sizeof(A));
  make(memory.as<void>());
  join<A>(memory.as<A>(), g, finish);
}

}  // namespace

void batch_norm(const BatchNormArgs& a) {
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    const NormView v = view_of(a);
    const ChannelStatistics<A> finish{a};
    if (a.training)
      join_channels<A>(a, finish, [&](void* cells) {
        if (a.S >= kMinRun) row_moments(v, cells);
        else column_moments(v, cells);
      });
    else join<A>(nullptr, CellGrid{a.C, 0, 0, 1, 0, 1, false}, finish);
    apply_norm(v, false);
  });
}

void batch_norm_backward(const BatchNormArgs& a) {
  visit_arithmetic(a.dtype, [&](auto zero) {
    using A = decltype(zero);
    NormView v = view_of(a);
    const Workspace slopes(a.y ? static_cast<size_t>(2 * a.C) * sizeof(A) : 0);
    join_channels<A>(a, ChannelGradients<A>{a, slopes.as<A>()}, [&](void* cells) {
      if (a.S >= kMinRun) row_gradients(v, {}, cells);
      else column_gradients(v, cells);
    });
    v.slopes = slopes.as<void>();
    if (a.y) apply_norm(v, true);
  });
}

}  // namespace tw::cuda
