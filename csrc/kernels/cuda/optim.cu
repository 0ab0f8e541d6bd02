// Over a whole list of tensors, kTensors a launch: sgd_step, adam_step and rule_step; grad_norm, the p-norm of all gradients, and
// grad_scale, their product with a number in device memory, which tells whether one is not finite.
//
// The rules, dtypes and roundings are those of kernels/cpu/optim.cpp (formulas and sources there), expression by
// expression, so that a step on the device has the bits of one on a CPU with FMA. Elements are independent; the norm sums
// 32 elements a thread in the arithmetic type, the rest in float64, by trees that the list's sizes fix.
// The list is host memory: kTensors of its rows travel in a launch's parameters (5 KiB of the 32 that CUDA 12.1 allows).
// Each tensor is cut into chunks of kChunk elements, numbered through; a block takes chunks in turn and finds the tensor
// of each by bisection. The memory dtype is a branch that a block takes as one.
// Bytes an element: sgd 12 in float32 (20 with momentum), adam 28 (amsgrad 36), in one pass; with 4 elements an access
// adam has 64 bytes in flight a thread; grad_norm 4, grad_scale 8. Operations: 12 to 20, and for adam a root and a
// division of IEEE rounding, some 40 instructions; for 28 bytes at an H100-class GPU's bandwidth, 185 instructions would be free.
#include "kernels/cuda/places.cuh"
#include "kernels/optim_rules.h"

namespace tw::cuda {
namespace {

constexpr int kTensors = 96, kThreads = 256;
constexpr int64_t kChunk = 8192;  // 8 accesses of 16 bytes a thread: half parameters and float32 states alike

struct TensorList {
  void* param[kTensors];
  const void* grad[kTensors];
  void* state0[kTensors];
  void* state1[kTensors];
  void* state2[kTensors];
  int64_t n[kTensors];
  uint32_t first[kTensors + 1];  // its first chunk's number; last the number of all
  DType dtype[kTensors];
  bool aligned[kTensors];
  int count;
  uint32_t before;  // chunks of the list's earlier launches
};
static_assert(sizeof(TensorList) <= 6 << 10);

// A rule for elements, over a chunk.
template <class S, class Rule>
TW_DEVICE void run_chunk(const TensorList& list, int t, int64_t begin, uint32_t, const Rule& rule) {
  using T = Accumulator<S>;
  constexpr int kItems = 16 / int(sizeof(T));
  S* p = static_cast<S*>(list.param[t]);
  const S* grad = static_cast<const S*>(list.grad[t]);
  T* states[3] = {static_cast<T*>(list.state0[t]), static_cast<T*>(list.state1[t]), static_cast<T*>(list.state2[t])};
  const int64_t end = least(list.n[t], begin + kChunk);
  for (int64_t i = begin + int(threadIdx.x) * kItems; i < end; i += kThreads * kItems) {
    const int count = int(least<int64_t>(kItems, end - i));
    const bool whole = list.aligned[t] && count == kItems;
    T x[kItems], g[kItems], s[Rule::kStates][kItems] = {};
    load_run<kItems>(x, p + i, count, whole);
    load_run<kItems>(g, grad + i, count, whole);
#pragma unroll
    for (int k = 0; k < Rule::kStates; ++k)
      if (rule.reads(k) && states[k]) load_run<kItems>(s[k], states[k] + i, count, whole);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      T here[Rule::kStates];
#pragma unroll
      for (int k = 0; k < Rule::kStates; ++k) here[k] = s[k][j];
      x[j] = rule(x[j], g[j], here, states[0] != nullptr);
#pragma unroll
      for (int k = 0; k < Rule::kStates; ++k) s[k][j] = here[k];
    }
    store_run<kItems>(p + i, x, count, whole);
#pragma unroll
    for (int k = 0; k < Rule::kStates; ++k)
      if (states[k]) store_run<kItems>(states[k] + i, s[k], count, whole);
  }
}

struct Sgd {
  static constexpr int kStates = 1;  // the momentum buffer
  double lr, momentum, fresh, decay;
  bool nesterov, maximize, first;
  TW_DEVICE bool reads(int) const { return !first; }
  template <class T> TW_DEVICE T operator()(T x, T g, T (&s)[1], bool with_buffer) const {
    if (maximize) g = -g;
    if (decay != 0) g = fma(T(decay), x, g);
    if (with_buffer) {
      const T v = first ? g : fma(T(momentum), s[0], T(fresh) * g);
      s[0] = v;
      g = nesterov ? fma(T(momentum), v, g) : v;
    }
    return x - T(lr) * g;
  }
};

struct Adam {
  static constexpr int kStates = 3;  // mean, square, the largest square
  double fresh1, beta2, fresh2, eps, decay, keep, rate;
  bool decoupled, amsgrad, maximize;
  TW_DEVICE bool reads(int) const { return true; }
  template <class T> TW_DEVICE T operator()(T x, T g, T (&s)[3], bool) const {
    if (maximize) g = -g;
    if (decay != 0) {
      if (decoupled) x *= T(keep);
      else g = fma(T(decay), x, g);
    }
    s[0] = fma(T(fresh1), g - s[0], s[0]);
    s[1] = fma(T(fresh2) * g, g, T(beta2) * s[1]);
    if (amsgrad) s[2] = maximum(s[2], s[1]);
    return x - T(rate) * s[0] / (sqrt(amsgrad ? s[2] : s[1]) + T(eps));
  }
};

struct Ruled {
  static constexpr int kStates = 3;
  double c[kRuleNumbers], decay, keep;
  OptimRule rule;
  bool maximize, has[3];
  TW_DEVICE bool reads(int) const { return true; }
  template <class T> TW_DEVICE T operator()(T x, T g, T (&s)[3], bool) const {
    if (maximize) g = -g;
    if (decay != 0) g = fma(T(decay), x, g);
    if (keep != 1) x *= T(keep);
    T numbers[kRuleNumbers];
#pragma unroll
    for (int k = 0; k < kRuleNumbers; ++k) numbers[k] = T(c[k]);
    apply_rule(rule, x, g, s, has, numbers);
    return x;
  }
};

struct Norm {
  double p;
  double* partial;  // one a chunk
};
template <class S>
TW_DEVICE void run_chunk(const TensorList& list, int t, int64_t begin, uint32_t number, const Norm& rule) {
  using T = Accumulator<S>;
  constexpr int kItems = 16 / int(sizeof(T));
  TW_SHARED(shared, double[kThreads / 32]);
  const S* grad = static_cast<const S*>(list.grad[t]);
  const bool largest = rule.p == __builtin_inf(), plain = rule.p == 1 || rule.p == 2;
  const int64_t end = least(list.n[t], begin + kChunk);
  T acc[kItems] = {};
  for (int64_t i = begin + int(threadIdx.x) * kItems; i < end; i += kThreads * kItems) {
    const int count = int(least<int64_t>(kItems, end - i));
    T x[kItems];  // 0 past the end
    load_run<kItems>(x, grad + i, count, list.aligned[t] && count == kItems);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      x[j] = abs(x[j]);
      if (largest) acc[j] = maximum(acc[j], x[j]);
      else acc[j] = fma(rule.p == 2 ? x[j] : T(1), plain ? x[j] : pow(x[j], T(rule.p)), acc[j]);
    }
  }
  const double total = largest ? reduce_block<MaxOp, kThreads>(double(fold(acc, MaxOp())), shared)
                               : reduce_block<SumOp, kThreads>(double(fold(acc, SumOp())), shared);
  if (threadIdx.x == 0) rule.partial[number] = total;
  __syncthreads();
}

constexpr int kJoinThreads = 1024;
__global__ void __launch_bounds__(kJoinThreads) join_norm(const double* partial, int64_t chunks, double p, double* y) {
  TW_SHARED(shared, double[kJoinThreads / 32]);
  const bool largest = p == __builtin_inf();
  double v = 0;
  for (int64_t i = int(threadIdx.x); i < chunks; i += kJoinThreads)
    v = largest ? maximum(v, partial[i]) : v + partial[i];
  v = largest ? reduce_block<MaxOp, kJoinThreads>(v, shared) : reduce_block<SumOp, kJoinThreads>(v, shared);
  if (threadIdx.x == 0) *y = largest || p == 1 ? v : p == 2 ? sqrt(v) : pow(v, 1 / p);
}

struct Scale {
  const double* factor;
  float* infinite;
};
template <class S> TW_DEVICE void run_chunk(const TensorList& list, int t, int64_t begin, uint32_t, const Scale& rule) {
  using T = Accumulator<S>;
  constexpr int kItems = 16 / int(sizeof(T));
  const double factor = *rule.factor;
  if (factor == 1 && !rule.infinite) return;
  S* p = static_cast<S*>(list.param[t]);
  const int64_t end = least(list.n[t], begin + kChunk);
  bool wrong = false;
  for (int64_t i = begin + int(threadIdx.x) * kItems; i < end; i += kThreads * kItems) {
    const int count = int(least<int64_t>(kItems, end - i));
    const bool whole = list.aligned[t] && count == kItems;
    T x[kItems];
    load_run<kItems>(x, p + i, count, whole);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      x[j] *= T(factor);
      wrong |= j < count && x[j] - x[j] != T(0);
    }
    store_run<kItems>(p + i, x, count, whole);
  }
  if (rule.infinite && __syncthreads_or(wrong) && threadIdx.x == 0) atomicExch(rule.infinite, 1.0f);
}

// Chunk after chunk of a launch's list.
template <class Rule>
__global__ void __launch_bounds__(kThreads)
    list_kernel(const __grid_constant__ TensorList list, const __grid_constant__ Rule rule) {
  for (uint32_t chunk = blockIdx.x; chunk < list.first[list.count]; chunk += gridDim.x) {
    int t = 0;
    for (int last = list.count; last - t > 1;) {  // first[t] <= chunk < first[last]
      const int middle = (t + last) / 2;
      if (list.first[middle] <= chunk) t = middle;
      else last = middle;
    }
    const int64_t begin = int64_t(chunk - list.first[t]) * kChunk;
    switch (list.dtype[t]) {
      case DType::kFloat32: run_chunk<float>(list, t, begin, list.before + chunk, rule); break;
      case DType::kFloat64: run_chunk<double>(list, t, begin, list.before + chunk, rule); break;
      case DType::kFloat16: run_chunk<float16>(list, t, begin, list.before + chunk, rule); break;
      default: run_chunk<bfloat16>(list, t, begin, list.before + chunk, rule); break;
    }
  }
}

template <class Rule> void over_list(const OptimTensor* tensors, int64_t count, const Rule& rule) {
  TensorList list;
  list.before = 0;
  for (int64_t i = 0; i < count;) {
    int k = 0;
    uint32_t chunks = 0;
    for (; i < count && k < kTensors; ++i) {
      const OptimTensor& t = tensors[i];
      if (t.n == 0) continue;
      list.param[k] = t.param, list.grad[k] = t.grad;
      list.state0[k] = t.state0, list.state1[k] = t.state1, list.state2[k] = t.state2;
      list.n[k] = t.n;
      list.dtype[k] = t.dtype;
      list.aligned[k] = aligned(t.param, 16) && aligned(t.grad, 16) && aligned(t.state0, 16) && aligned(t.state1, 16) &&
                        aligned(t.state2, 16);
      list.first[k++] = chunks;
      chunks += static_cast<uint32_t>(ceil_div(t.n, kChunk));
    }
    if (k == 0) return;
    list.first[k] = chunks;
    list.count = k;
    launch_kernel<list_kernel<Rule>>(persistent_blocks(chunks, 16), kThreads, 0, current_stream(), list, rule);
    list.before += chunks;
  }
}

// base^n by squaring.
double power(double base, int64_t n) {
  double result = 1;
  for (; n; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

}  // namespace

void sgd_step(const SgdArgs& a) {
  over_list(a.tensors, a.count,
            Sgd{a.lr, a.momentum, 1 - a.dampening, a.weight_decay, a.nesterov, a.maximize, a.first});
}

void adam_step(const AdamArgs& a) {
  const double root = __builtin_sqrt(1 - power(a.beta2, a.step));
  over_list(a.tensors, a.count,
            Adam{1 - a.beta1, a.beta2, 1 - a.beta2, a.eps * root, a.weight_decay, 1 - a.lr * a.weight_decay,
                 a.lr / (1 - power(a.beta1, a.step)) * root, a.decoupled, a.amsgrad, a.maximize});
}

void rule_step(const RuleArgs& a) {
  Ruled rule{{}, a.weight_decay, a.keep, a.rule, a.maximize, {}};
  for (int64_t i = 0; i < a.count; ++i) {  // all have the same states
    const OptimTensor& t = a.tensors[i];
    rule.has[0] |= t.n && t.state0;
    rule.has[1] |= t.n && t.state1;
    rule.has[2] |= t.n && t.state2;
  }
  for (int k = 0; k < kRuleNumbers; ++k) rule.c[k] = a.c[k];
  over_list(a.tensors, a.count, rule);
}

void grad_norm(const GradArgs& a) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < a.count; ++i) chunks += ceil_div(a.tensors[i].n, kChunk);
  const Workspace partial(static_cast<size_t>(chunks) * sizeof(double));
  over_list(a.tensors, a.count, Norm{a.p, partial.as<double>()});
  launch_kernel<join_norm>(1, kJoinThreads, 0, current_stream(), static_cast<const double*>(partial.as<double>()),
                           chunks, a.p, a.value);
}

void grad_scale(const GradArgs& a) { over_list(a.tensors, a.count, Scale{a.value, a.infinite}); }

}  // namespace tw::cuda
