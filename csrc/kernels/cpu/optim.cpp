// Optimizer steps over a whole list of tensors, one launch each: sgd_step, adam_step; and what clips gradients or takes
// a loss's scale from them: grad_norm, the p-norm of all values, and grad_scale, their product with a number.
// Contiguous tensors of any sizes; param and grad float32, float64, float16 or bfloat16, the states float32 (or
// float64 with it). Arithmetic in the states' type; a half parameter is rounded once a step, to nearest.
// sgd:  g = grad + weight_decay p;  v = momentum v + (1 - dampening) g (v = g when first);  p -= lr v
//       (without momentum lr g, with nesterov lr (g + momentum v)).                       Sutskever et al., ICML 2013
// adam: m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
//       p -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps), c = sqrt(1 - beta2^t) in both parts of the
//       fraction: c m / (sqrt(v) + c eps), one division where root and division bind a list that fits the caches
//       amsgrad puts the largest v so far in v's place; decoupled decay is p *= 1 - lr weight_decay, before the step.
//       Kingma & Ba, arXiv:1412.6980; Reddi et al., arXiv:1904.09237; Loshchilov & Hutter, arXiv:1711.05101
// maximize turns the gradient's sign first. weight_decay 0 does not read p into g, so that 0 * inf makes no NaN.
// grad_norm sums a block of 1024 in lanes of the arithmetic type and blocks in double, in an order that the list's sizes
// fix; grad_scale with a factor of 1 moves nothing.
// Error: a few roundings of the arithmetic type an element and step; test_steps_follow_the_formula in test_optim.py.
// Elements are independent, so every cut of the list gives the same bits. Bound by memory: sgd moves 12 to 20 bytes an
// element in float32, adam 28 (amsgrad 36), in one pass where op by op there would be about ten.
// Of the limit: 10 and 100 million parameters 0.9 to 1.0; 300 tensors of 1000 in L3 1.2 (sgd) to 0.55 (adam, whose root
// and division take 26 cycles a register there); Python's lists then take twice the kernel's time.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/optim_rules.h"

namespace tw::TW_ISA {
namespace {

// Elements a piece, 896 KiB of adam's four arrays: at 16384 a list of 26 thousand woke a worker that came too late.
constexpr int64_t kGrain = 32768;

template <class S> struct ArithmeticOf {
  using type = float;
};
template <> struct ArithmeticOf<double> {
  using type = double;
};

template <class T, class S> TW_INLINE Vec<T> get(const S* p, int n) {
  return n == Vec<T>::kLanes ? load_as<T>(p) : load_as<T>(p, n);
}
template <class T, class S> TW_INLINE void put(S* p, Vec<T> x, int n) {
  if (n == Vec<T>::kLanes) store_as(p, x);
  else store_as(p, x, n);
}

int64_t elements(const OptimTensor* tensors, int64_t count) {
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += tensors[i].n;
  return total;
}

// Calls rule.run<S>(tensor, begin, end) for the parts of the list that make up each piece of kGrain elements; a rule
// with partial results gets the piece's number as well.
template <class Rule> TW_INLINE void over_list(const OptimTensor* tensors, int64_t count, const Rule& rule) {
  parallel_ranges(elements(tensors, count), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0, start = 0; i < count && start < end; start += tensors[i].n, ++i) {
      const OptimTensor& t = tensors[i];
      const int64_t from = begin > start ? begin - start : 0, to = least(t.n, end - start);
      if (from >= to) continue;
      const int64_t piece = begin / kGrain;
      switch (t.dtype) {
        case DType::kFloat32: rule.template run<float>(t, from, to, piece); break;
        case DType::kFloat64: rule.template run<double>(t, from, to, piece); break;
        case DType::kFloat16: rule.template run<float16>(t, from, to, piece); break;
        default: rule.template run<bfloat16>(t, from, to, piece); break;
      }
    }
  });
}

struct Sgd {
  const SgdArgs& a;

  template <class S> TW_INLINE void run(const OptimTensor& t, int64_t begin, int64_t end, int64_t) const {
    using T = typename ArithmeticOf<S>::type;
    using V = Vec<T>;
    S* p = static_cast<S*>(t.param);
    const S* grad = static_cast<const S*>(t.grad);
    T* buffer = static_cast<T*>(t.state0);
    const V lr = T(a.lr), momentum = T(a.momentum), fresh = T(1 - a.dampening), decay = T(a.weight_decay);
    for (int64_t i = begin; i < end; i += V::kLanes) {
      const int n = int(least(V::kLanes, end - i));
      const V x = get<T>(p + i, n);
      V g = get<T>(grad + i, n);
      if (a.maximize) g = -g;
      if (a.weight_decay != 0) g = fma(decay, x, g);
      if (buffer) {
        const V v = a.first ? g : fma(momentum, get<T>(buffer + i, n), fresh * g);
        put(buffer + i, v, n);
        g = a.nesterov ? fma(momentum, v, g) : v;
      }
      put(p + i, x - lr * g, n);
    }
  }
};

struct Adam {
  const AdamArgs& a;
  double step_size, root_correction;

  template <class S> TW_INLINE void run(const OptimTensor& t, int64_t begin, int64_t end, int64_t) const {
    using T = typename ArithmeticOf<S>::type;
    using V = Vec<T>;
    S* p = static_cast<S*>(t.param);
    const S* grad = static_cast<const S*>(t.grad);
    T* mean = static_cast<T*>(t.state0);
    T* square = static_cast<T*>(t.state1);
    T* largest = static_cast<T*>(t.state2);
    const V fresh1 = T(1 - a.beta1), beta2 = T(a.beta2), fresh2 = T(1 - a.beta2), eps = T(a.eps * root_correction);
    const V decay = T(a.weight_decay), keep = T(1 - a.lr * a.weight_decay), rate = T(step_size * root_correction);
    for (int64_t i = begin; i < end; i += V::kLanes) {
      const int n = int(least(V::kLanes, end - i));
      V x = get<T>(p + i, n), g = get<T>(grad + i, n);
      if (a.maximize) g = -g;
      if (a.weight_decay != 0) {
        if (a.decoupled) x *= keep;
        else g = fma(decay, x, g);
      }
      const V m0 = get<T>(mean + i, n), m = fma(fresh1, g - m0, m0);
      V v = fma(fresh2 * g, g, beta2 * get<T>(square + i, n));
      put(mean + i, m, n);
      put(square + i, v, n);
      if (a.amsgrad) {
        v = maximum(get<T>(largest + i, n), v);
        put(largest + i, v, n);
      }
      put(p + i, x - rate * m / (sqrt(v) + eps), n);
    }
  }
};

struct Ruled {
  const RuleArgs& a;

  template <class S> TW_INLINE void run(const OptimTensor& t, int64_t begin, int64_t end, int64_t) const {
    using T = typename ArithmeticOf<S>::type;
    using V = Vec<T>;
    S* p = static_cast<S*>(t.param);
    const S* grad = static_cast<const S*>(t.grad);
    T* states[3] = {static_cast<T*>(t.state0), static_cast<T*>(t.state1), static_cast<T*>(t.state2)};
    const bool has[3] = {states[0] != nullptr, states[1] != nullptr, states[2] != nullptr};
    V c[kRuleNumbers];
    for (int k = 0; k < kRuleNumbers; ++k) c[k] = T(a.c[k]);
    for (int64_t i = begin; i < end; i += V::kLanes) {
      const int n = int(least(V::kLanes, end - i));
      V x = get<T>(p + i, n), g = get<T>(grad + i, n), s[3] = {T(0), T(0), T(0)};
      if (a.maximize) g = -g;
      if (a.weight_decay != 0) g = fma(V(T(a.weight_decay)), x, g);
      if (a.keep != 1) x *= V(T(a.keep));
      for (int k = 0; k < 3; ++k)
        if (has[k]) s[k] = get<T>(states[k] + i, n);
      apply_rule(a.rule, x, g, s, has, c);
      for (int k = 0; k < 3; ++k)
        if (has[k]) put(states[k] + i, s[k], n);
      put(p + i, x, n);
    }
  }
};

struct Norm {
  double p;
  double* partial;  // one a piece

  template <class S> TW_INLINE void run(const OptimTensor& t, int64_t begin, int64_t end, int64_t piece) const {
    using T = typename ArithmeticOf<S>::type;
    using V = Vec<T>;
    const S* grad = static_cast<const S*>(t.grad);
    const bool largest = p == __builtin_inf();
    for (int64_t block = begin; block < end; block += 1024) {
      V acc = T(0);
      for (int64_t i = block, stop = least(end, block + 1024); i < stop; i += V::kLanes) {
        const V x = abs(get<T>(grad + i, int(least(V::kLanes, stop - i))));  // lanes past the end are 0
        acc = largest ? maximum(acc, x) : fma(p == 2 ? x : V(T(1)), p == 1 || p == 2 ? x : pow(x, V(T(p))), acc);
      }
      double& total = partial[piece];
      if (largest) {
        for (int i = 0; i < V::kLanes; ++i) total = double(acc[i]) > total || acc[i] != acc[i] ? double(acc[i]) : total;
      } else {
        total += double(sum(acc));
      }
    }
  }
};

struct Scale {
  double factor;
  float* infinite;

  template <class S> TW_INLINE void run(const OptimTensor& t, int64_t begin, int64_t end, int64_t) const {
    using T = typename ArithmeticOf<S>::type;
    using V = Vec<T>;
    S* p = static_cast<S*>(t.param);
    V wrong = T(0);
    for (int64_t i = begin; i < end; i += V::kLanes) {
      const int n = int(least(V::kLanes, end - i));
      const V y = get<T>(p + i, n) * V(T(factor));
      put(p + i, y, n);
      wrong = fma(y, V(T(0)), wrong);  // NaN where y is not finite
    }
    if (infinite && sum(wrong) != T(0))
      __atomic_store_n(reinterpret_cast<int*>(infinite), 0x3f800000, __ATOMIC_RELAXED);
  }
};

// base^n by squaring.
double power(double base, int64_t n) {
  double result = 1;
  for (; n; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

}  // namespace

void sgd_step(const SgdArgs& args) { over_list(args.tensors, args.count, Sgd{args}); }

void adam_step(const AdamArgs& args) {
  const double correction1 = 1 - power(args.beta1, args.step), correction2 = 1 - power(args.beta2, args.step);
  over_list(args.tensors, args.count, Adam{args, args.lr / correction1, __builtin_sqrt(correction2)});
}

void rule_step(const RuleArgs& args) { over_list(args.tensors, args.count, Ruled{args}); }

void grad_norm(const GradArgs& a) {
  const int64_t pieces = ceil_div(elements(a.tensors, a.count), kGrain);
  auto* partial = static_cast<double*>(scratch(0, static_cast<size_t>(pieces) * sizeof(double)));
  for (int64_t i = 0; i < pieces; ++i) partial[i] = 0;
  over_list(a.tensors, a.count, Norm{a.p, partial});
  double total = 0;
  for (int64_t i = 0; i < pieces; ++i)
    total = a.p != __builtin_inf()                           ? total + partial[i]
            : partial[i] > total || partial[i] != partial[i] ? partial[i]
                                                             : total;
  const bool whole = a.p == 1 || a.p == __builtin_inf();
  *a.value = whole ? total : a.p == 2 ? __builtin_sqrt(total) : __builtin_pow(total, 1 / a.p);
}

void grad_scale(const GradArgs& a) {
  if (*a.value != 1 || a.infinite) over_list(a.tensors, a.count, Scale{*a.value, a.infinite});
}

}  // namespace tw::TW_ISA
