// rnn: one layer of tanh, relu, LSTM or GRU cells over a whole sequence, in one or two directions; and its gradient.
//
//   RNN   h' = act(a)                         a = w_ih x + b_ih + w_hh h + b_hh, H values a gate
//   LSTM  c' = f c + i g,  h' = o tanh c'     i, f, o = sigmoid(a_i, a_f, a_o),  g = tanh(a_g)
//   GRU   h' = (1 - z) n + z h                r, z = sigmoid(a_r, a_z),  n = tanh(w_in x + b_in + r (w_hn h + b_hn))
//
// Shapes and dtypes: RnnArgs; arithmetic in the arrays' float32 or float64 (the op widens halves).
// Method: the input's side of all gates is one product over all steps (gemm); then, step by step, the state's side by
// rnn.h's panels with the cell applied to the sums in L1. Backward walks back with dh = dgates w_hh the same way, and
// leaves dx, dw_ih, dw_hh to products over all steps. Kept for backward: gates (LSTM, GRU), cells (LSTM) and y.
// Variable lengths: rows of a step are a prefix of the batch, so forward a state stays as its sequence ends, and in
// reverse it is the initial one until its sequence begins.
// Error bound: a step's is gemm's and a few ulp of the cell; measured by tests/op_table/rnn.py.
// Operations: 2 rows G H (I + H) forward, twice that backward; bytes of a step: G H H weights from the nearest cache.
// Sources: Hochreiter & Schmidhuber (1997); Gers et al. (2000); Cho et al. (2014), with the reset gate after the product.
#include "kernels/cpu/rnn.h"

namespace tw::TW_ISA {

void gemm(const GemmArgs& g);

namespace {

// A row of one step: where its values lie. previous: h (forward: of this step's start; backward: the kept copy).
template <class T> struct Row {
  T* gates;
  T* y;
  T* h;  // forward: the new state; backward: dh to carry on, beside what comes through the gates
  T* c;  // forward: the state; backward: dc
  T* cells;
  const T* previous;
  const T* previous_cell;  // backward; null: zeros
  const T* bias;           // GRU: b_hn or null
  const T* dy;             // or null: zeros
  T* dgates;
  int64_t H;
  bool keep;
};

// A cell has kGates gates of which kUnits vectors of hidden values fill a tile, and keeps kSlots values. forward() takes
// the state's side of the gates, backward() what the later step sends back, for n hidden values from j on. In dgates,
// the state's side of the gates begins at slot 0 and the input's side at kInput; both run over kGates slots.
template <bool kRelu> struct Plain {
  static constexpr int kGates = 1, kUnits = 4, kSlots = 1, kInput = 0;
  template <class T, class... N> static TW_INLINE void forward(const Row<T>& r, int64_t j, const Vec<T>* s, N... n) {
    const Vec<T> a = Vec<T>::load(r.gates + j, n...) + s[0], zero = T(0);
    Vec<T> h;
    if constexpr (kRelu) h = select(a < zero, zero, a);
    else h = tanh(a);
    h.store(r.y + j, n...);
    h.store(r.h + j, n...);
  }
  template <class T, class... N> static TW_INLINE void backward(const Row<T>& r, int64_t j, Vec<T> dh, N... n) {
    const Vec<T> y = Vec<T>::load(r.y + j, n...), zero = T(0);
    if constexpr (kRelu) dh = select(y > zero, dh, zero);
    else dh = dh * (Vec<T>(T(1)) - y * y);
    dh.store(r.dgates + j, n...);
    zero.store(r.h + j, n...);
  }
};

struct Lstm {
  static constexpr int kGates = 4, kUnits = 1, kSlots = 4, kInput = 0;
  template <class T, class... N> static TW_INLINE void forward(const Row<T>& r, int64_t j, const Vec<T>* s, N... n) {
    T* const at = r.gates + j;
    const Vec<T> i = sigmoid(Vec<T>::load(at, n...) + s[0]);
    const Vec<T> f = sigmoid(Vec<T>::load(at + r.H, n...) + s[1]);
    const Vec<T> g = tanh(Vec<T>::load(at + 2 * r.H, n...) + s[2]);
    const Vec<T> o = sigmoid(Vec<T>::load(at + 3 * r.H, n...) + s[3]);
    const Vec<T> c = fma(f, Vec<T>::load(r.c + j, n...), i * g), h = o * tanh(c);
    c.store(r.c + j, n...);
    h.store(r.h + j, n...);
    h.store(r.y + j, n...);
    if (!r.keep) return;
    c.store(r.cells + j, n...);
    i.store(at, n...);
    f.store(at + r.H, n...);
    g.store(at + 2 * r.H, n...);
    o.store(at + 3 * r.H, n...);
  }
  template <class T, class... N> static TW_INLINE void backward(const Row<T>& r, int64_t j, Vec<T> dh, N... n) {
    const T* const at = r.gates + j;
    const Vec<T> i = Vec<T>::load(at, n...), f = Vec<T>::load(at + r.H, n...), one = T(1), zero = T(0);
    const Vec<T> g = Vec<T>::load(at + 2 * r.H, n...), o = Vec<T>::load(at + 3 * r.H, n...);
    const Vec<T> tc = tanh(Vec<T>::load(r.cells + j, n...));
    const Vec<T> before = r.previous_cell ? Vec<T>::load(r.previous_cell + j, n...) : zero;
    const Vec<T> dc = fma(dh * o, one - tc * tc, Vec<T>::load(r.c + j, n...));
    T* const to = r.dgates + j;
    (dc * g * (i * (one - i))).store(to, n...);
    (dc * before * (f * (one - f))).store(to + r.H, n...);
    (dc * i * (one - g * g)).store(to + 2 * r.H, n...);
    (dh * tc * (o * (one - o))).store(to + 3 * r.H, n...);
    (dc * f).store(r.c + j, n...);
    zero.store(r.h + j, n...);
  }
};

struct Gru {
  static constexpr int kGates = 3, kUnits = 1, kSlots = 4, kInput = 1;
  template <class T, class... N> static TW_INLINE void forward(const Row<T>& r, int64_t j, const Vec<T>* s, N... n) {
    T* const at = r.gates + j;
    const Vec<T> reset = sigmoid(Vec<T>::load(at, n...) + s[0]), one = T(1);
    const Vec<T> z = sigmoid(Vec<T>::load(at + r.H, n...) + s[1]);
    const Vec<T> hidden = r.bias ? s[2] + Vec<T>::load(r.bias + j, n...) : s[2];
    const Vec<T> m = tanh(fma(reset, hidden, Vec<T>::load(at + 2 * r.H, n...)));
    const Vec<T> h = fma(one - z, m, z * Vec<T>::load(r.previous + j, n...));
    h.store(r.h + j, n...);
    h.store(r.y + j, n...);
    if (!r.keep) return;
    reset.store(at, n...);
    z.store(at + r.H, n...);
    m.store(at + 2 * r.H, n...);
    hidden.store(at + 3 * r.H, n...);
  }
  // Slots of dgates: the state's side of n, r, z, and the input's side of n.
  template <class T, class... N> static TW_INLINE void backward(const Row<T>& r, int64_t j, Vec<T> dh, N... n) {
    const T* const at = r.gates + j;
    const Vec<T> reset = Vec<T>::load(at, n...), z = Vec<T>::load(at + r.H, n...), one = T(1);
    const Vec<T> m = Vec<T>::load(at + 2 * r.H, n...), hidden = Vec<T>::load(at + 3 * r.H, n...);
    const Vec<T> dm = dh * (one - z) * (one - m * m);
    T* const to = r.dgates + j;
    (dm * reset).store(to, n...);
    (dm * hidden * (reset * (one - reset))).store(to + r.H, n...);
    (dh * (Vec<T>::load(r.previous + j, n...) - m) * (z * (one - z))).store(to + 2 * r.H, n...);
    dm.store(to + 3 * r.H, n...);
    (dh * z).store(r.h + j, n...);
  }
};

// One layer's geometry. Step s of direction d is time t(d, s), of active(d, s) rows that begin at row start[t].
template <class T, class C> struct Layer {
  static constexpr int L = Vec<T>::kLanes;
  const RnnArgs& a;
  int64_t H, DH, DS;
  int64_t state_row;  // of the padded states, whose rows so fall into different sets of the caches
  // Parts of a.work:
  T *states, *panels;  // (D, 2, B, state_row); the packed weights
  int64_t* start;      // (T)
  T* slots;            // (kSlots H): forward's bias, backward's sums of columns

  explicit Layer(const RnnArgs& args) : a(args), H(args.H) {
    DH = a.D * H;
    DS = DH * C::kSlots;
    state_row = round_up(H, 16) + 16;
    states = static_cast<T*>(a.work);
    panels = states + a.D * 2 * a.B * state_row;
    start = reinterpret_cast<int64_t*>(panels + a.D * C::kGates * round_up(H * round_up(H, L), 16));
    slots = reinterpret_cast<T*>(start + round_up(a.T + 1, 8));
    start[0] = 0;
    for (int64_t t = 0; t < a.T; ++t) start[t + 1] = start[t] + batch(t);
  }
  int64_t batch(int64_t t) const { return a.batch_sizes ? a.batch_sizes[t] : a.B; }
  int64_t t_of(int64_t d, int64_t s) const { return d ? a.T - 1 - s : s; }
  int64_t active(int64_t d, int64_t s) const { return s >= 0 && s < a.T ? batch(t_of(d, s)) : 0; }
  // The row in which batch item n stood a step before step s of direction d, or -1 at its first.
  int64_t row_before(int64_t d, int64_t s, int64_t n) const {
    return s > 0 && n < active(d, s - 1) ? start[t_of(d, s - 1)] + n : -1;
  }
  T* state(int64_t d, int64_t parity, int64_t n) const { return states + ((d * 2 + parity) * a.B + n) * state_row; }
  Panels<T> panels_of(int64_t d, int64_t K, int gates, int units) const {
    return {panels + d * K * gates * round_up(H, L), K, H, gates, units};
  }
  const T* initial(const void* p, int64_t d, int64_t n) const {
    return p ? static_cast<const T*>(p) + (d * a.B + n) * H : nullptr;
  }
};

template <class T, class P> TW_INLINE T* moved(P* p, int64_t n) { return p ? static_cast<T*>(p) + n : nullptr; }

template <class T> void copy_row(T* to, const T* from, int64_t n) {
  if (from) __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  else __builtin_memset(to, 0, static_cast<size_t>(n) * sizeof(T));
}

// c (M x N) = or += a b, over whole sequences.
template <class T>
void product(int64_t M, int64_t N, int64_t K, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t b_row,
             T* c, int64_t c_row, const T* bias = nullptr, bool add = false) {
  GemmArgs g{};
  g.a = a, g.b = b, g.c = c, g.bias = bias;
  g.M = M, g.N = N, g.K = K;
  g.a_row = a_row, g.a_col = a_col, g.b_row = b_row, g.b_col = 1, g.c_row = c_row;
  g.dtype = g.c_dtype = dtype_of<T>;
  g.alpha = 1, g.beta = add;
  gemm(g);
}

template <class T, class C> void run_forward(const RnnArgs& a) {
  const Layer<T, C> layer(a);
  T* bias = layer.slots;
  constexpr int L = Vec<T>::kLanes, G = C::kGates;
  const int64_t H = a.H, B = a.B;
  const bool plain = C::kSlots == 1;  // whose products go where y comes to lie
  T* gates = static_cast<T*>(plain ? a.y : a.gates);

  for (int64_t d = 0; d < a.D; ++d) {
    const T *bi = static_cast<const T*>(a.b_ih[d]), *bh = static_cast<const T*>(a.b_hh[d]);
    if (bi)  // GRU: the state's bias of n stands inside the product with r
      for (int64_t i = 0; i < G * H; ++i) bias[i] = C::kInput && i >= 2 * H ? bi[i] : bi[i] + bh[i];
    // PyTorch's weights are (G H, I): b[k, j] = w[j I + k].
    GemmArgs g{};
    g.a = a.x, g.b = a.w_ih[d], g.c = gates + d * C::kSlots * H, g.bias = bi ? bias : nullptr;
    g.M = a.rows, g.N = G * H, g.K = a.I;
    g.a_row = a.I, g.a_col = 1, g.b_row = 1, g.b_col = a.I, g.c_row = layer.DS;
    g.dtype = g.c_dtype = dtype_of<T>;
    g.alpha = 1;
    gemm(g);
  }

  const int64_t blocks = layer.panels_of(0, H, G, C::kUnits).count();
  parallel_for(a.D * blocks, [&](int64_t i) {
    layer.panels_of(i / blocks, H, G, C::kUnits).pack(static_cast<const T*>(a.w_hh[i / blocks]), H, 1, i % blocks);
  });
  for (int64_t i = 0; i < a.D * B; ++i) {
    for (int64_t parity = 0; parity < 2; ++parity)
      copy_row(layer.state(i / B, parity, i % B), layer.initial(a.h0, i / B, i % B), H);
    if (a.cn) copy_row(static_cast<T*>(a.cn) + i * H, layer.initial(a.c0, i / B, i % B), H);
  }

  const StepPlan plan(a.D, B, blocks, G * H * H);
  walk_steps(plan.lanes, plan.pieces, a.T, [&](int64_t lane, int64_t s, int64_t piece) {
    const int64_t d = lane / plan.groups, group = lane % plan.groups, t = layer.t_of(d, s);
    const int64_t last = least(B * (group + 1) / plan.groups, layer.batch(t));
    const Panels<T> panels = layer.panels_of(d, H, G, C::kUnits);
    T* sums = static_cast<T*>(scratch(1, sizeof(T) * kRowsOnce * 4 * L));
    const T* b_hh = static_cast<const T*>(a.b_hh[d]);
    for (int64_t n0 = B * group / plan.groups; n0 < last; n0 += kRowsOnce) {
      const int64_t rows = least(kRowsOnce, last - n0);
      for (int64_t block = blocks * piece / plan.pieces; block < blocks * (piece + 1) / plan.pieces; ++block) {
        step_product(panels, block, rows, static_cast<const T*>(layer.state(d, s & 1, n0)), layer.state_row, sums);
        const int64_t begin = panels.begin(block), end = begin + panels.cols(block), step = panels.vectors(block) * L;
        for (int64_t n = n0; n < n0 + rows; ++n) {
          const int64_t row = layer.start[t] + n;
          Row<T> r{};
          r.gates = gates + row * layer.DS + d * C::kSlots * H;
          r.y = static_cast<T*>(a.y) + row * layer.DH + d * H;
          r.h = layer.state(d, ~s & 1, n);
          r.previous = layer.state(d, s & 1, n);
          r.c = moved<T>(a.cn, (d * B + n) * H);
          r.cells = moved<T>(a.cells, row * layer.DH + d * H);
          r.keep = a.keep;
          r.bias = b_hh ? b_hh + 2 * H : nullptr;
          r.H = H;
          const T* from = sums + (n - n0) * step;
          each_vector<T>(begin, end, [&](int64_t j, auto... count) {
            Vec<T> sum[G];
            for (int g = 0; g < G; ++g) sum[g] = Vec<T>::load(from + (j - begin) + g * L);
            C::forward(r, j, sum, count...);
          });
        }
      }
    }
  });

  // A row's last step left its state in one of the two: forward by its length, in reverse by the longest.
  for (int64_t d = 0; d < a.D; ++d)
    for (int64_t n = 0, length = a.T; n < B; ++n) {
      while (!d && length > 0 && layer.batch(length - 1) <= n) --length;
      copy_row(static_cast<T*>(a.hn) + (d * B + n) * H, layer.state(d, length & 1, n), H);
    }
}

template <class T, class C> void run_backward(const RnnArgs& a) {
  const Layer<T, C> layer(a);
  constexpr int L = Vec<T>::kLanes, G = C::kGates, S = C::kSlots;
  constexpr int kUnits = 4;
  const int64_t H = a.H, B = a.B, K = G * H;
  const bool plain = S == 1;
  T *gates = static_cast<T*>(plain ? a.y : a.gates), *dgates = static_cast<T*>(a.dgates);
  T *cells = static_cast<T*>(a.cells), *previous = static_cast<T*>(a.previous);

  parallel_ranges(a.D * a.T, most(1, (1 << 15) / (B * H)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t d = i / a.T, s = i % a.T, t = layer.t_of(d, s);
      for (int64_t n = 0; n < layer.batch(t); ++n) {
        const int64_t before = layer.row_before(d, s, n);
        copy_row(previous + (layer.start[t] + n) * layer.DH + d * H,
                 before < 0 ? layer.initial(a.h0, d, n) : static_cast<const T*>(a.y) + before * layer.DH + d * H, H);
      }
    }
  });
  const int64_t blocks = layer.panels_of(0, K, 1, kUnits).count();
  parallel_for(a.D * blocks, [&](int64_t i) {
    const int64_t d = i / blocks, block = i % blocks;
    Panels<T> p = layer.panels_of(d, K, 1, kUnits);
    const T* w = static_cast<const T*>(a.w_hh[d]);
    const int step = p.vectors(block) * L, cols = int(p.cols(block));
    const int64_t turned = C::kInput ? H : 0;  // GRU: dgates begin with n, the last gate of the weights
    T* to = p.panel(block);
    if (turned) pack_strided(to, step, w + 2 * H * H + p.begin(block), 1, H, cols, turned, L);
    pack_strided(to + turned * step, step, w + p.begin(block), 1, H, cols, K - turned, L);
  });
  for (int64_t i = 0; i < a.D * B; ++i) {
    copy_row(static_cast<T*>(a.dh0) + i * H, layer.initial(a.dhn, i / B, i % B), H);
    if (a.dc0) copy_row(static_cast<T*>(a.dc0) + i * H, layer.initial(a.dcn, i / B, i % B), H);
  }

  const StepPlan plan(a.D, B, blocks, K * H);
  walk_steps(plan.lanes, plan.pieces, a.T + (a.dh0_wanted ? 1 : 0), [&](int64_t lane, int64_t i, int64_t piece) {
    const int64_t d = lane / plan.groups, group = lane % plan.groups, s = a.T - 1 - i, t = layer.t_of(d, s);
    // Rows below `later` get dh from the step after this one; rows below `now` are in this step. The others of the
    // later step began there: what they get is their dh0.
    const int64_t later = layer.active(d, s + 1), now = layer.active(d, s);
    const int64_t first = B * group / plan.groups, last = least(B * (group + 1) / plan.groups, most(later, now));
    const Panels<T> panels = layer.panels_of(d, K, 1, kUnits);
    T* sums = static_cast<T*>(scratch(1, sizeof(T) * kRowsOnce * kUnits * L));
    for (int64_t n0 = first; n0 < last; n0 += kRowsOnce) {
      const int64_t end_row = least(n0 + kRowsOnce, last), sent = most(0, least(end_row, later) - n0);
      for (int64_t block = blocks * piece / plan.pieces; block < blocks * (piece + 1) / plan.pieces; ++block) {
        const int64_t begin = panels.begin(block), end = begin + panels.cols(block), step = panels.vectors(block) * L;
        if (sent > 0)
          step_product(panels, block, sent,
                       static_cast<const T*>(dgates) + (layer.start[layer.t_of(d, s + 1)] + n0) * layer.DS + d * S * H,
                       layer.DS, sums);
        for (int64_t n = n0; n < end_row; ++n) {
          const T* from = n - n0 < sent ? sums + (n - n0) * step : nullptr;
          Row<T> r{};
          r.h = static_cast<T*>(a.dh0) + (d * B + n) * H;
          if (n >= now) {
            each_vector<T>(begin, end, [&](int64_t j, auto... count) {
              (Vec<T>::load(r.h + j, count...) + Vec<T>::load(from + j - begin, count...)).store(r.h + j, count...);
            });
            continue;
          }
          const int64_t row = layer.start[t] + n, before = layer.row_before(d, s, n), at = row * layer.DH + d * H;
          r.gates = gates + row * layer.DS + d * S * H;
          r.dgates = dgates + row * layer.DS + d * S * H;
          r.y = static_cast<T*>(a.y) + at;
          r.c = moved<T>(a.dc0, (d * B + n) * H);
          r.cells = moved<T>(cells, at);
          r.previous = previous + at;
          r.previous_cell = before < 0 ? layer.initial(a.c0, d, n) : moved<T>(cells, before * layer.DH + d * H);
          r.dy = moved<const T>(a.dy, at);
          r.H = H;
          each_vector<T>(begin, end, [&](int64_t j, auto... count) {
            Vec<T> dh = Vec<T>::load(r.h + j, count...);
            if (r.dy) dh += Vec<T>::load(r.dy + j, count...);
            if (from) dh += Vec<T>::load(from + j - begin, count...);
            C::backward(r, j, dh, count...);
          });
        }
      }
    }
  });

  const T one = T(1);
  T* column_sums = layer.slots;
  for (int64_t d = 0; d < a.D; ++d) {
    const T *own = dgates + d * S * H, *input = own + C::kInput * H;
    if (a.dx)
      product(a.rows, a.I, K, input, layer.DS, 1, static_cast<const T*>(a.w_ih[d]), a.I, static_cast<T*>(a.dx), a.I,
              static_cast<const T*>(nullptr), d > 0);
    if (a.dw_ih[d])
      product(K, a.I, a.rows, input, 1, layer.DS, static_cast<const T*>(a.x), a.I, static_cast<T*>(a.dw_ih[d]), a.I);
    if (T* dw = static_cast<T*>(a.dw_hh[d])) {
      const int64_t turned = C::kInput ? H : 0;
      const T* h = previous + d * H;
      if (turned) product(H, H, a.rows, own, 1, layer.DS, h, layer.DH, dw + 2 * H * H, H);
      product(K - turned, H, a.rows, own + turned, 1, layer.DS, h, layer.DH, dw, H);
    }
    if (!a.db_ih[d] && !a.db_hh[d]) continue;
    product(1, S * H, a.rows, &one, 0, 0, own, layer.DS, column_sums, S * H);
    if (T* db = static_cast<T*>(a.db_ih[d])) copy_row(db, column_sums + C::kInput * H, K);
    if (T* db = static_cast<T*>(a.db_hh[d])) {
      if (C::kInput) copy_row(db, column_sums + H, 2 * H), copy_row(db + 2 * H, column_sums, H);
      else copy_row(db, column_sums, K);
    }
  }
}

template <class F> void by_cell(const RnnArgs& a, const F& f) {
  const auto with = [&](auto cell) {
    if (a.dtype == DType::kFloat64) f(double(), cell);
    else f(float(), cell);
  };
  switch (a.cell) {
    case Cell::kTanh: return with(Plain<false>());
    case Cell::kRelu: return with(Plain<true>());
    case Cell::kLstm: return with(Lstm());
    case Cell::kGru: return with(Gru());
  }
}

}  // namespace

void rnn(const RnnArgs& a) {
  by_cell(a, [&](auto type, auto cell) { run_forward<decltype(type), decltype(cell)>(a); });
}
void rnn_backward(const RnnArgs& a) {
  by_cell(a, [&](auto type, auto cell) { run_backward<decltype(type), decltype(cell)>(a); });
}

}  // namespace tw::TW_ISA
