// Optimizer steps over a whole list of tensors: sgd_step and adam_step, kTensors tensors a launch.
//
// The rules, dtypes and roundings are those of kernels/cpu/optim.cpp (formulas and sources there), expression by
// expression, so that a step on the device has the bits of one on a CPU with FMA. Elements are independent.
// The list is host memory: kTensors of its rows travel in a launch's parameters (5 KiB of the 32 that CUDA 12.1 allows).
// Each tensor is cut into chunks of kChunk elements, numbered through; a block takes chunks in turn and finds the tensor
// of each by bisection. The memory dtype is a branch that a block takes as one.
// Bytes an element: sgd 12 in float32 (20 with momentum), adam 28 (amsgrad 36), in one pass; with 4 elements an access
// adam has 64 bytes in flight a thread. Operations: 12 to 20 and for adam a root and a division of IEEE rounding, some
// 40 instructions; for 28 bytes at an H100-class GPU's bandwidth, 185 instructions would be free.
#include "kernels/cuda/places.cuh"

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
};
static_assert(sizeof(TensorList) <= 6 << 10);

template <class S, class Rule>
TW_DEVICE void step_chunk(const TensorList& list, int t, int64_t begin, const Rule& rule) {
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

template <class Rule>
__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ TensorList list, const __grid_constant__ Rule rule) {
  for (uint32_t chunk = blockIdx.x; chunk < list.first[list.count]; chunk += gridDim.x) {
    int t = 0;
    for (int last = list.count; last - t > 1;) {  // first[t] <= chunk < first[last]
      const int middle = (t + last) / 2;
      if (list.first[middle] <= chunk) t = middle;
      else last = middle;
    }
    const int64_t begin = int64_t(chunk - list.first[t]) * kChunk;
    switch (list.dtype[t]) {
      case DType::kFloat32: step_chunk<float>(list, t, begin, rule); break;
      case DType::kFloat64: step_chunk<double>(list, t, begin, rule); break;
      case DType::kFloat16: step_chunk<float16>(list, t, begin, rule); break;
      default: step_chunk<bfloat16>(list, t, begin, rule); break;
    }
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

template <class Rule> void over_list(const OptimTensor* tensors, int64_t count, const Rule& rule) {
  TensorList list;
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
    launch_kernel<step_kernel<Rule>>(persistent_blocks(chunks, 16), kThreads, 0, current_stream(), list, rule);
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

}  // namespace tw::cuda
