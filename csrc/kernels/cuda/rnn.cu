// rnn: one layer of tanh, relu, LSTM or GRU cells over a whole sequence, in one or two directions; and its gradient.
//
//   RNN   h' = act(a)                         a = w_ih x + b_ih + w_hh h + b_hh, H values a gate
//   LSTM  c' = f c + i g,  h' = o tanh c'     i, f, o = sigmoid(a_i, a_f, a_o),  g = tanh(a_g)
//   GRU   h' = (1 - z) n + z h                r, z = sigmoid(a_r, a_z),  n = tanh(w_in x + b_in + r (w_hn h + b_hn))
//
// Shapes and dtypes: RnnArgs, float32 or float64; batch_sizes is host memory, which the walk over the steps reads before
// it launches, so nothing waits for the device. Method: the input's side of all gates is one product over all steps
// (gemm); then a launch a step, both directions in one, that multiplies the state with its part of the weights and
// finishes the cells. Backward walks back with dh = dgates w_hh, from weights turned once, and leaves dx, dw_ih and dw_hh
// to products, the biases to a sum over all steps. State is never copied: a step reads h from y, c from cn.
// Error bound: a step's is its product's and a few ulp of the cell; measured by tests/op_table/rnn.py.
// A step's product: 32 rows of the batch by 32 lines of weights a block (8 values of four gates, or 32 values), in four
// groups of 64 threads that each take every fourth slice of K with 4 x 4 sums a thread, slices coming to registers while
// the one before is multiplied. For small batches reading the weights is all: 4 G H H bytes a step from L2, by G H / 32
// blocks; where those are few, K is cut as well and the last block to come adds the parts in order (at most 8 parts of at
// least 256 and 128 blocks: more would not find an SM). At a batch of 32 a weight is read once for 32 multiply-adds.
// A launch a step costs some microseconds where the step's own work is less; a persistent kernel would save them, but its
// blocks must wait for each other, which cannot be proven by emulation. Not yet timed on a GPU.
// Sources: Hochreiter & Schmidhuber (1997); Gers et al. (2000); Cho et al. (2014), with the reset after the product.
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {

void gemm(const GemmArgs& g);
void sum(const ReduceArgs& a);

namespace {

constexpr int kThreads = 256, kGroups = 4, kGroupThreads = kThreads / kGroups, kRows = 32, kLines = 32, kStep = 16;
template <class T> constexpr int kPitch = 32 + 16 / int(sizeof(T));

// kTanh stands for both plain cells. Gates' slots: RnnArgs; of dgates, the state's side of the gates begins at slot 0
// and the input's side at kInput.
template <Cell kCell> struct Shape {
  static constexpr int kGates = kCell == Cell::kLstm ? 4 : kCell == Cell::kGru ? 3 : 1;
  static constexpr int kSlots = kGates == 1 ? 1 : 4, kInput = kCell == Cell::kGru ? 1 : 0;
};

// A step of one direction: the first rows of the step, of the one before and of the one after in the direction's order,
// and how many rows each has (0 where there is none).
struct Side {
  int64_t row, before, after, now, earlier, later;
};
struct Step {
  Side side[2];
};

struct Walk {
  const RnnArgs& a;
  Step step{};

  explicit Walk(const RnnArgs& args) : a(args) {}
  int64_t batch(int64_t t) const { return t < 0 || t >= a.T ? 0 : a.batch_sizes ? a.batch_sizes[t] : a.B; }
  void place(int d, int64_t s, int64_t row) {
    const int64_t t = d ? a.T - 1 - s : s, ahead = d ? -1 : 1, now = batch(t);
    const int64_t earlier = s > 0 ? batch(t - ahead) : 0, later = s < a.T - 1 ? batch(t + ahead) : 0;
    step.side[d] = {row, d ? row + now : row - earlier, d ? row - later : row + now, now, earlier, later};
  }
  void first() { place(0, 0, 0), place(1, 0, a.rows - batch(a.T - 1)); }
  void last() { place(0, a.T - 1, a.rows - batch(a.T - 1)), place(1, a.T - 1, 0); }
  void forward(int64_t s) {
    for (int d = 0; d < 2; ++d) place(d, s, step.side[d].after);
  }
  void backward(int64_t s) {
    for (int d = 0; d < 2; ++d) place(d, s, step.side[d].before);
  }
  int64_t rows(bool back) const {
    int64_t n = 0;
    for (int d = 0; d < a.D; ++d)
      n = greatest(n, back ? greatest(step.side[d].now, step.side[d].later) : step.side[d].now);
    return n;
  }
};

template <class T> TW_DEVICE const T* item(const void* p, int64_t i) { return static_cast<const T*>(p) + i; }
template <class T> TW_DEVICE T* item(void* p, int64_t i) { return static_cast<T*>(p) + i; }
template <class T> TW_DEVICE T value(const void* p, int64_t i) { return p ? *item<T>(p, i) : T(0); }
// h before the step, of batch item n.
template <class T> TW_DEVICE const T* state_before(const RnnArgs& a, const Side& side, int d, int64_t n) {
  if (n < side.earlier) return item<T>(static_cast<const void*>(a.y), ((side.before + n) * a.D + d) * a.H);
  return a.h0 ? item<T>(a.h0, (d * a.B + n) * a.H) : nullptr;
}

// Finishes value j of batch item n from the state's side of its gates.
template <class T, Cell kCell>
TW_DEVICE void forward_cell(const RnnArgs& a, const Side& side, int d, int64_t n, int64_t j, const T (&s)[4]) {
  const int64_t H = a.H, at = ((side.row + n) * a.D + d) * H + j, state = (d * a.B + n) * H + j;
  T* const gates = kCell == Cell::kTanh ? item<T>(a.y, at) : item<T>(a.gates, (at - j) * Shape<kCell>::kSlots + j);
  T h;
  if constexpr (kCell == Cell::kTanh) {
    const T v = gates[0] + s[0];
    h = a.cell == Cell::kTanh ? tanh(v) : v < T(0) ? T(0) : v;
  } else if constexpr (kCell == Cell::kLstm) {
    const T i = sigmoid(gates[0] + s[0]), f = sigmoid(gates[H] + s[1]), g = tanh(gates[2 * H] + s[2]);
    const T o = sigmoid(gates[3 * H] + s[3]);
    const T c = fma(f, n < side.earlier ? *item<T>(a.cn, state) : value<T>(a.c0, state), i * g);
    h = o * tanh(c);
    *item<T>(a.cn, state) = c;
    if (a.keep) {
      *item<T>(a.cells, at) = c;
      gates[0] = i, gates[H] = f, gates[2 * H] = g, gates[3 * H] = o;
    }
  } else {
    const T* const before = state_before<T>(a, side, d, n);
    const T r = sigmoid(gates[0] + s[0]), z = sigmoid(gates[H] + s[1]);
    const T hidden = s[2] + value<T>(a.b_hh[d], 2 * H + j), m = tanh(fma(r, hidden, gates[2 * H]));
    h = fma(T(1) - z, m, z * (before ? before[j] : T(0)));
    if (a.keep) gates[0] = r, gates[H] = z, gates[2 * H] = m, gates[3 * H] = hidden;
  }
  *item<T>(a.y, at) = h;
  if (n >= side.later) *item<T>(a.hn, state) = h;
}

// The gates' gradients of value j of batch item n; `sent` is what the later step sends back through its gates. What it
// sends past them (GRU) lies in dh0, and dc in dc0.
template <class T, Cell kCell>
TW_DEVICE void backward_cell(const RnnArgs& a, const Side& side, int d, int64_t n, int64_t j, T sent) {
  const int64_t H = a.H, state = (d * a.B + n) * H + j;
  const bool ends = n >= side.later;  // the sequence's last step
  T carried = T(0);
  if (ends) carried = value<T>(a.dhn, state);
  else if (kCell == Cell::kGru) carried = *item<T>(a.dh0, state);
  if (n >= side.now) {  // it began at the later step
    *item<T>(a.dh0, state) = carried + sent;
    return;
  }
  const int64_t at = ((side.row + n) * a.D + d) * H + j, slots = (at - j) * Shape<kCell>::kSlots + j;
  const T* const before = state_before<T>(a, side, d, n);
  const T h = before ? before[j] : T(0), one = T(1), dh = carried + value<T>(a.dy, at) + sent;
  *item<T>(a.previous, at) = h;
  T* const to = item<T>(a.dgates, slots);
  if constexpr (kCell == Cell::kTanh) {
    const T y = *item<T>(a.y, at);
    to[0] = a.cell == Cell::kTanh ? dh * (one - y * y) : y > T(0) ? dh : T(0);
  } else if constexpr (kCell == Cell::kLstm) {
    const T* const gates = item<T>(a.gates, slots);
    const T i = gates[0], f = gates[H], g = gates[2 * H], o = gates[3 * H], tc = tanh(*item<T>(a.cells, at));
    const T c = n < side.earlier ? *item<T>(a.cells, ((side.before + n) * a.D + d) * H + j) : value<T>(a.c0, state);
    const T dc = fma(dh * o, one - tc * tc, ends ? value<T>(a.dcn, state) : *item<T>(a.dc0, state));
    to[0] = dc * g * (i * (one - i));
    to[H] = dc * c * (f * (one - f));
    to[2 * H] = dc * i * (one - g * g);
    to[3 * H] = dh * tc * (o * (one - o));
    *item<T>(a.dc0, state) = dc * f;
  } else {
    const T* const gates = item<T>(a.gates, slots);
    const T r = gates[0], z = gates[H], m = gates[2 * H], hidden = gates[3 * H];
    const T dm = dh * (one - z) * (one - m * m);
    to[0] = dm * r;
    to[H] = dm * hidden * (r * (one - r));
    to[2 * H] = dh * (h - m) * (z * (one - z));
    to[3 * H] = dm;
    *item<T>(a.dh0, state) = dh * z;
  }
}

template <class T, Cell kCell, bool kBackward> struct Product {
  static constexpr int kGates = Shape<kCell>::kGates;
  static constexpr int kPer = kBackward || kGates == 1 ? 1 : 4;  // lines a hidden value
  static constexpr int kUnits = kLines / kPer;
  static int64_t depth(int64_t H) { return kBackward ? kGates * H : H; }
  static int64_t tiles(const RnnArgs& a) {
    return a.D * ceil_div<int64_t>(a.B, kRows) * ceil_div<int64_t>(a.H, kUnits);
  }
  static int64_t splits(const RnnArgs& a) {
    return greatest<int64_t>(1, least<int64_t>(8, least(depth(a.H) / 256, 128 / tiles(a))));
  }
};

// One step of all directions: blockIdx is the block of hidden values, of rows, and direction and part of K.
template <class T, Cell kCell, bool kBackward>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 2 : 1)
    rnn_step(const __grid_constant__ RnnArgs a, const __grid_constant__ Step step, const T* turned, T* parts,
             unsigned* counters, int splits, bool aligned) {
  using P = Product<T, kCell, kBackward>;
  constexpr int kLine = kStep / kLanes<T>, kPacks = kRows * kLine / kGroupThreads;  // of a line's slice; a thread's
  static_assert(kRows == kLines && kRows * kLines * kGroups <= kGroups * 2 * kStep * kPitch<T>);
  TW_SHARED(shared, T[kGroups * 2 * kStep * kPitch<T>]);
  const int d = int(blockIdx.z) / splits, split = int(blockIdx.z) % splits;
  const Side& side = step.side[d];
  const int64_t n0 = int64_t(blockIdx.y) * kRows, u0 = int64_t(blockIdx.x) * P::kUnits, H = a.H;
  const int64_t K = kBackward ? P::kGates * H : H, sending = kBackward ? side.later : side.now;
  if (n0 >= greatest(side.now, kBackward ? side.later : 0)) return;
  // Without a state before, or a step after, there is nothing to multiply.
  const bool multiply = kBackward ? n0 < side.later : n0 < side.earlier || a.h0;
  if (!multiply && split > 0) return;

  const int group = threadIdx.x / kGroupThreads, thread = threadIdx.x % kGroupThreads;
  T* const tile_x = shared + group * 2 * kStep * kPitch<T>;  // (kStep, kPitch), each
  T* const tile_w = tile_x + kStep * kPitch<T>;
  const int rows4 = thread / 8 * 4, lines4 = thread % 8 * 4;
  T acc[4][4] = {};
  if (multiply) {
    const T *x[kPacks], *w[kPacks];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int line = (thread + i * kGroupThreads) / kLine;
      const int64_t n = n0 + line, unit = u0 + line / P::kPer, gate = line % P::kPer;
      x[i] = w[i] = nullptr;
      if (n < sending)
        x[i] = kBackward ? item<T>(static_cast<const void*>(a.dgates),
                                   ((side.after + n) * a.D + d) * H * Shape<kCell>::kSlots)
                         : state_before<T>(a, side, d, n);
      if (unit < H && gate < P::kGates)
        w[i] = kBackward ? turned + (d * H + unit) * K : item<T>(a.w_hh[d], (gate * H + unit) * K);
    }
    const int64_t slices = ceil_div<int64_t>(K, kStep), per = ceil_div<int64_t>(slices, splits);
    const int64_t begin = split * per, end = least(slices, begin + per);
    T next_x[kPacks][kLanes<T>], next_w[kPacks][kLanes<T>];
    const auto load = [&](int64_t slice) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int64_t k = slice * kStep + thread % kLine * kLanes<T>;
#pragma unroll
        for (int j = 0; j < kLanes<T>; ++j) next_x[i][j] = next_w[i][j] = T(0);
        if (slice < end && x[i]) load_pack<T>(next_x[i], x[i], k, K, aligned, T(0));
        if (slice < end && w[i]) load_pack<T>(next_w[i], w[i], k, K, aligned, T(0));
      }
    };
    load(begin + group);
    for (int64_t first = begin; first < end; first += kGroups) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int line = (thread + i * kGroupThreads) / kLine;
#pragma unroll
        for (int j = 0; j < kLanes<T>; ++j) {
          const int k = thread % kLine * kLanes<T> + j;
          tile_x[k * kPitch<T> + line] = next_x[i][j];
          tile_w[k * kPitch<T> + line] = next_w[i][j];
        }
      }
      __syncthreads();
      load(first + kGroups + group);
      if (n0 + thread / 32 * 16 < sending) {  // of the warp's rows
#pragma unroll
        for (int k = 0; k < kStep; ++k) {
          T u[4], v[4];
#pragma unroll
          for (int i = 0; i < 4; i += kLanes<T>) {
            const auto pu = load_vector<kLanes<T>>(tile_x + k * kPitch<T> + rows4 + i);
            const auto pv = load_vector<kLanes<T>>(tile_w + k * kPitch<T> + lines4 + i);
#pragma unroll
            for (int j = 0; j < kLanes<T>; ++j) u[i + j] = pu[j], v[i + j] = pv[j];
          }
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) acc[i][j] = fma(u[i], v[j], acc[i][j]);
        }
      }
      __syncthreads();
    }
  }
  // The groups' sums are added in shared memory, and the parts of K in global memory by the block that comes last.
  T* const sums = shared + group * kRows * kLines;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[(rows4 + i) * kLines + lines4 + j] = acc[i][j];
  __syncthreads();
  constexpr int kAll = kRows * kLines;
  for (int i = threadIdx.x; i < kAll; i += kThreads)
    shared[i] = (shared[i] + shared[i + kAll]) + (shared[i + 2 * kAll] + shared[i + 3 * kAll]);
  if (multiply && splits > 1) {
    const int64_t tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x, tiles = int64_t(gridDim.x) * gridDim.y;
    T* const part = parts + (int64_t(d) * splits * tiles + tile) * kAll;
    for (int i = threadIdx.x; i < kAll; i += kThreads) part[split * tiles * kAll + i] = shared[i];
    if (!last_block(counters + d * tiles + tile, static_cast<unsigned>(splits))) return;
    for (int i = threadIdx.x; i < kAll; i += kThreads) {
      T sum = part[i];
      for (int64_t p = 1; p < splits; ++p) sum += part[p * tiles * kAll + i];
      shared[i] = sum;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * P::kUnits; i += kThreads) {
    const int64_t n = n0 + i / P::kUnits, j = u0 + i % P::kUnits;
    if (j >= H) continue;
    const T* const from = shared + i / P::kUnits * kLines + i % P::kUnits * P::kPer;
    if constexpr (kBackward) {
      if (n < greatest(side.now, side.later))
        backward_cell<T, kCell>(a, side, d, n, j, n < side.later ? from[0] : T(0));
    } else if (n < side.now) {
      T s[4] = {};
#pragma unroll
      for (int g = 0; g < P::kPer; ++g) s[g] = from[g];
      forward_cell<T, kCell>(a, side, d, n, j, s);
    }
  }
}

// The biases of the input's product, (D, G H): GRU's state bias of n stands inside the product with r.
template <class T, Cell kCell>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 2 : 1)
    rnn_bias(const __grid_constant__ RnnArgs a, T* bias, unsigned* counters, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, all = Shape<kCell>::kGates * a.H;
  if (i < count) counters[i] = 0;
  const int64_t d = i / all, k = i % all;
  if (d >= a.D || !a.b_ih[d]) return;
  const T own = *item<T>(a.b_ih[d], k);
  bias[i] = kCell == Cell::kGru && k >= 2 * a.H ? own : own + *item<T>(a.b_hh[d], k);
}

// turned (D, H, K): w_hh with the gates in the order of dgates' slots along K, 32 x 32 at a time.
template <class T, Cell kCell>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 2 : 1)
    rnn_turn(const __grid_constant__ RnnArgs a, T* turned, unsigned* counters, int64_t count) {
  TW_SHARED(tile, T[32][33]);
  const int64_t H = a.H, K = Shape<kCell>::kGates * H, d = blockIdx.z;
  const int64_t k0 = int64_t(blockIdx.x) * 32, u0 = int64_t(blockIdx.y) * 32;
  const int x = threadIdx.x % 32, y = threadIdx.x / 32;
  if (blockIdx.x == 0 && blockIdx.y == 0 && d == 0)
    for (int64_t i = threadIdx.x; i < count; i += kThreads) counters[i] = 0;
  for (int r = y; r < 32; r += kThreads / 32) {
    const int64_t k = k0 + r, u = u0 + x, from = kCell != Cell::kGru ? k : k < H ? k + 2 * H : k - H;
    if (k < K && u < H) tile[r][x] = *item<T>(a.w_hh[d], from * H + u);
  }
  __syncthreads();
  for (int r = y; r < 32; r += kThreads / 32)
    if (u0 + r < H && k0 + x < K) turned[(d * H + u0 + r) * K + k0 + x] = tile[x][r];
}

// sums (D, slots, H) of dgates' columns, to the biases' gradients.
template <class T, Cell kCell>
__global__ void __launch_bounds__(kThreads) rnn_bias_backward(const __grid_constant__ RnnArgs a, const T* sums) {
  const int64_t H = a.H, all = Shape<kCell>::kGates * H, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.D * all) return;
  const int64_t d = i / all, k = i % all, state = kCell != Cell::kGru ? k : k < 2 * H ? k + H : k - 2 * H;
  const T* const own = sums + d * Shape<kCell>::kSlots * H;
  if (a.db_ih[d]) *item<T>(a.db_ih[d], k) = own[k + Shape<kCell>::kInput * H];
  if (a.db_hh[d]) *item<T>(a.db_hh[d], k) = own[state];
}

// c (M, N) = or += a b, over whole sequences.
template <class T>
void product(const RnnArgs& r, int64_t M, int64_t N, int64_t K, const T* a, int64_t a_row, int64_t a_col, const void* b,
             int64_t b_row, int64_t b_col, void* c, int64_t c_row, const T* bias = nullptr, bool add = false) {
  GemmArgs g{};
  g.a = a, g.b = b, g.c = c, g.bias = bias;
  g.M = M, g.N = N, g.K = K;
  g.a_row = a_row, g.a_col = a_col, g.b_row = b_row, g.b_col = b_col, g.c_row = c_row;
  g.dtype = g.c_dtype = r.dtype;
  g.alpha = 1, g.beta = add;
  gemm(g);
}

unsigned grid_of(int64_t n, int64_t per) { return static_cast<unsigned>(ceil_div(n, per)); }

template <class T, Cell kCell, bool kBackward>
void launch_step(const RnnArgs& a, const Walk& walk, const T* turned, T* parts, unsigned* counters) {
  using P = Product<T, kCell, kBackward>;
  const int64_t rows = walk.rows(kBackward), splits = P::splits(a);
  bool aligned = a.H % kLanes<T> == 0;
  for (const void* p : std::initializer_list<const void*>{a.h0, kBackward ? a.dgates : a.y, a.w_hh[0], a.w_hh[1]})
    aligned &= reinterpret_cast<uintptr_t>(p) % 16 == 0;
  const dim3 grid(grid_of(a.H, P::kUnits), grid_of(rows, kRows), static_cast<unsigned>(a.D * splits));
  launch_kernel<rnn_step<T, kCell, kBackward>>(grid, kThreads, 0, current_stream(), a, walk.step, turned, parts,
                                               counters, static_cast<int>(splits), aligned);
}

template <class T, Cell kCell> void run_forward(const RnnArgs& a) {
  using P = Product<T, kCell, false>;
  const int64_t H = a.H, all = Shape<kCell>::kGates * H, columns = a.D * Shape<kCell>::kSlots * H;
  const int64_t splits = P::splits(a), counts = splits > 1 ? P::tiles(a) : 0;
  const Workspace bias(static_cast<size_t>(a.D * all) * sizeof(T)), counters(static_cast<size_t>(counts) * 4);
  const Workspace parts(static_cast<size_t>(counts * splits * kRows * kLines) * sizeof(T));
  if (a.b_ih[0] || a.b_ih[1] || counts > 0)
    launch_kernel<rnn_bias<T, kCell>>(grid_of(greatest(a.D * all, counts), kThreads), kThreads, 0, current_stream(), a,
                                      bias.as<T>(), counters.as<unsigned>(), counts);
  for (int d = 0; d < a.D; ++d)  // PyTorch's weights are (G H, I): b[k, j] = w[j I + k]
    product<T>(a, a.rows, all, a.I, static_cast<const T*>(a.x), a.I, 1, a.w_ih[d], 1, a.I,
               static_cast<T*>(kCell == Cell::kTanh ? a.y : a.gates) + d * Shape<kCell>::kSlots * H, columns,
               a.b_ih[d] ? bias.as<T>() + d * all : nullptr);
  Walk walk(a);
  for (int64_t s = 0; s < a.T; ++s) {
    if (s == 0) walk.first();
    else walk.forward(s);
    launch_step<T, kCell, false>(a, walk, nullptr, parts.as<T>(), counters.as<unsigned>());
  }
}

template <class T, Cell kCell> void run_backward(const RnnArgs& a) {
  using P = Product<T, kCell, true>;
  constexpr int S = Shape<kCell>::kSlots, kInput = Shape<kCell>::kInput;
  const int64_t H = a.H, K = Shape<kCell>::kGates * H, DH = a.D * H, DS = DH * S;
  const int64_t splits = P::splits(a), counts = splits > 1 ? P::tiles(a) : 0;
  const Workspace turned(static_cast<size_t>(DH * K) * sizeof(T)), counters(static_cast<size_t>(counts) * 4);
  const Workspace parts(static_cast<size_t>(counts * splits * kRows * kLines) * sizeof(T));
  launch_kernel<rnn_turn<T, kCell>>(dim3(grid_of(K, 32), grid_of(H, 32), static_cast<unsigned>(a.D)), kThreads, 0,
                                    current_stream(), a, turned.as<T>(), counters.as<unsigned>(), counts);
  Walk walk(a);
  for (int64_t s = a.T - 1; s >= (a.dh0_wanted ? -1 : 0); --s) {
    if (s == a.T - 1) walk.last();
    else walk.backward(s);
    launch_step<T, kCell, true>(a, walk, turned.as<T>(), parts.as<T>(), counters.as<unsigned>());
  }
  bool biases = false;
  for (int d = 0; d < a.D; ++d) {
    const T *own = static_cast<const T*>(a.dgates) + d * S * H, *input = own + kInput * H;
    const T* h = static_cast<const T*>(a.previous) + d * H;
    T* const dw = static_cast<T*>(a.dw_hh[d]);
    if (a.dx) product<T>(a, a.rows, a.I, K, input, DS, 1, a.w_ih[d], a.I, 1, a.dx, a.I, nullptr, d > 0);
    if (a.dw_ih[d]) product<T>(a, K, a.I, a.rows, input, 1, DS, a.x, a.I, 1, a.dw_ih[d], a.I);
    if (dw && kInput) product<T>(a, H, H, a.rows, own, 1, DS, h, DH, 1, dw + 2 * H * H, H);
    if (dw) product<T>(a, K - kInput * H, H, a.rows, own + kInput * H, 1, DS, h, DH, 1, dw, H);
    biases |= a.db_ih[d] || a.db_hh[d];
  }
  if (!biases) return;
  const Workspace sums(static_cast<size_t>(DS) * sizeof(T));
  sum({a.dgates, sums.as<T>(), 1, a.rows, DS, a.dtype, a.dtype, 1.0});
  launch_kernel<rnn_bias_backward<T, kCell>>(grid_of(a.D * K, kThreads), kThreads, 0, current_stream(), a,
                                             static_cast<const T*>(sums.as<T>()));
}

template <class F> void by_cell(const RnnArgs& a, const F& f) {
  const auto with = [&](auto cell) {
    if (a.dtype == DType::kFloat64) f(double(), cell);
    else f(float(), cell);
  };
  if (a.cell == Cell::kLstm) return with(std::integral_constant<Cell, Cell::kLstm>());
  if (a.cell == Cell::kGru) return with(std::integral_constant<Cell, Cell::kGru>());
  with(std::integral_constant<Cell, Cell::kTanh>());
}

}  // namespace

void rnn(const RnnArgs& a) {
  by_cell(a, [&](auto type, auto cell) { run_forward<decltype(type), decltype(cell)::value>(a); });
}
void rnn_backward(const RnnArgs& a) {
  by_cell(a, [&](auto type, auto cell) { run_backward<decltype(type), decltype(cell)::value>(a); });
}

}  // namespace tw::cuda
