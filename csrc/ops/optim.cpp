// Optimizer steps: checks the lists, lays tensors of other strides out contiguously, and launches once for all.
#include <algorithm>

#include "ops/common.h"

namespace tw {
namespace {

// A list argument: its arrays must fit the parameters one by one.
struct ArrayList {
  const char* op;
  const char* name;
  const ArrayRefs& arrays;

  bool given() const { return !arrays.empty(); }

  void check(const ArrayList& params, bool states) const {
    TW_CHECK(arrays.size() == params.arrays.size(), op, ": there must be one of ", name, " a parameter, got ",
             arrays.size(), " for ", params.arrays.size());
    for (size_t i = 0; i < arrays.size(); ++i) {
      const Array &a = *arrays[i], &p = *params.arrays[i];
      TW_CHECK(a.shape() == p.shape(), op, ": ", name, " must have the parameter's shape, got ", str_of(a.shape()),
               " for ", str_of(p.shape()));
      const DType dtype = states && is_half(p.dtype()) ? DType::kFloat32 : p.dtype();
      TW_CHECK_TYPE(a.dtype() == dtype, op, ": ", name, " must be ", tw::name(dtype), " for ", tw::name(p.dtype()),
                    " parameters, got ", tw::name(a.dtype()));
      if (states) check_writable(op, a);
    }
  }
};

// The launch's list, and what has to be copied back afterwards.
class Step {
 public:
  explicit Step(const ArrayList& params, bool written = true) : op_(params.op), count_(params.arrays.size()) {
    for (const Array* p : params.arrays) {
      TW_CHECK_TYPE(is_float(p->dtype()), op_, ": ", params.name, " must be floating-point, got ", name(p->dtype()));
      TW_CHECK_AS(std::runtime_error, p->device() == params.arrays[0]->device(), op_, ": ", params.name,
                  " must be on one device, got ", name(params.arrays[0]->device().type), " and ",
                  name(p->device().type));
      if (written) check_writable(op_, *p);
    }
    // In an array of bytes, because that is what a recorded plan can keep alive.
    table_ = Array::empty(op_, {static_cast<int64_t>(count_ * sizeof(OptimTensor))}, DType::kUInt8);
    for (size_t i = 0; i < count_; ++i) {
      const Array& p = *params.arrays[i];
      tensors()[i] = OptimTensor{nullptr, nullptr, nullptr, nullptr, nullptr, p.numel(), p.dtype()};
    }
  }

  void read(const ArrayList& list, const void* OptimTensor::*field) {
    for (size_t i = 0; i < count_; ++i) {
      const Array& a = *list.arrays[i];
      tensors()[i].*field = a.is_contiguous() ? a.raw() : kept_.emplace_back(clone(a)).raw();
    }
  }
  void write(const ArrayList& list, void* OptimTensor::*field) {
    changed_.reserve(changed_.size() + list.arrays.size());
    for (size_t i = 0; i < list.arrays.size(); ++i) {
      Array& a = *list.arrays[i];
      if (a.is_contiguous()) {
        tensors()[i].*field = a.raw();
        changed_.push_back(&a);
      } else {
        back_.push_back({&a, clone(a)});
        tensors()[i].*field = back_.back().second.raw();
      }
    }
  }
  const OptimTensor* list() const { return static_cast<const OptimTensor*>(table_.raw()); }
  int64_t count() const { return static_cast<int64_t>(count_); }

  void finish() {
    for (Array* a : changed_) a->bump_version();
    for (auto& [a, values] : back_) copy_into(op_, *a, values);
  }

 private:
  OptimTensor* tensors() { return static_cast<OptimTensor*>(table_.raw()); }

  const char* op_;
  size_t count_;
  Array table_;
  std::vector<Array> kept_;
  std::vector<Array*> changed_;
  std::vector<std::pair<Array*, Array>> back_;
};

}  // namespace

void sgd_step(const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& momentum_buffers, double lr,
              double momentum, double dampening, double weight_decay, bool nesterov, bool maximize, bool first) {
  const ArrayList p{"sgd_step", "params", params}, g{"sgd_step", "grads", grads},
      buffers{"sgd_step", "momentum_buffers", momentum_buffers};
  Step step(p);
  g.check(p, false);
  if (buffers.given()) buffers.check(p, true);
  if (!p.given()) return;
  step.write(p, &OptimTensor::param);
  step.read(g, &OptimTensor::grad);
  step.write(buffers, &OptimTensor::state0);
  const SgdArgs args{step.list(), step.count(), lr, momentum, dampening, weight_decay, nesterov, maximize, first};
  launch(p.arrays[0]->device(), slots::sgd_step, args);
  step.finish();
}

void adam_step(const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& exp_avgs, const ArrayRefs& exp_avg_sqs,
               const ArrayRefs& max_exp_avg_sqs, int64_t t, double lr, double beta1, double beta2, double eps,
               double weight_decay, bool decoupled, bool maximize) {
  const ArrayList p{"adam_step", "params", params}, g{"adam_step", "grads", grads},
      means{"adam_step", "exp_avgs", exp_avgs}, squares{"adam_step", "exp_avg_sqs", exp_avg_sqs},
      largest{"adam_step", "max_exp_avg_sqs", max_exp_avg_sqs};
  TW_CHECK(t >= 1, "adam_step: step must be >= 1, got ", t);
  Step step(p);
  g.check(p, false);
  means.check(p, true);
  squares.check(p, true);
  if (largest.given()) largest.check(p, true);
  if (!p.given()) return;
  step.write(p, &OptimTensor::param);
  step.read(g, &OptimTensor::grad);
  step.write(means, &OptimTensor::state0);
  step.write(squares, &OptimTensor::state1);
  step.write(largest, &OptimTensor::state2);
  const AdamArgs args{step.list(), step.count(),    t,       lr, beta1, beta2, eps, weight_decay,
                      decoupled,   largest.given(), maximize};
  launch(p.arrays[0]->device(), slots::adam_step, args);
  step.finish();
}

// A step of one of the rules of kernels/optim_rules.h; lists of states that the rule does not have are empty.
void rule_step(const std::string& rule, const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& state0,
               const ArrayRefs& state1, const ArrayRefs& state2, const std::vector<double>& numbers,
               double weight_decay, double keep, bool maximize) {
  static constexpr const char* kRules[] = {"adagrad", "rmsprop", "adadelta", "adamax", "moments", "rprop", "asgd"};
  const auto found = std::find(std::begin(kRules), std::end(kRules), rule);
  TW_CHECK(found != std::end(kRules), "rule_step: no such rule, got '", rule, "'");
  TW_CHECK(numbers.size() <= kRuleNumbers, "rule_step: at most ", kRuleNumbers, " numbers, got ", numbers.size());
  const ArrayList p{"rule_step", "params", params}, g{"rule_step", "grads", grads};
  const ArrayList states[3] = {
      {"rule_step", "state0", state0}, {"rule_step", "state1", state1}, {"rule_step", "state2", state2}};
  Step step(p);
  g.check(p, false);
  for (const ArrayList& s : states)
    if (s.given()) s.check(p, true);
  TW_CHECK(states[0].given() || !p.given(), "rule_step: every rule has state0, got none");
  if (!p.given()) return;
  step.write(p, &OptimTensor::param);
  step.read(g, &OptimTensor::grad);
  step.write(states[0], &OptimTensor::state0);
  step.write(states[1], &OptimTensor::state1);
  step.write(states[2], &OptimTensor::state2);
  RuleArgs args{step.list(), step.count(), {}, weight_decay, keep, static_cast<OptimRule>(found - kRules), maximize};
  std::copy(numbers.begin(), numbers.end(), args.c);
  launch(p.arrays[0]->device(), slots::rule_step, args);
  step.finish();
}

// (sum |g|^p)^(1/p) over all values of the list, a 0-d float64 array.
Array grad_norm(const ArrayRefs& grads, double p) {
  const ArrayList g{"grad_norm", "grads", grads};
  TW_CHECK(p > 0, "grad_norm: p must be > 0, got ", p);
  TW_CHECK(g.given(), "grad_norm: there must be at least one gradient, got none");
  Step step(g, false);
  step.read(g, &OptimTensor::grad);
  const Device device = grads[0]->device();
  Array value = result("grad_norm", {}, DType::kFloat64, device);
  launch(device, slots::grad_norm, GradArgs{step.list(), step.count(), p, value.data<double>(), nullptr});
  return value;
}

// Every g *= factor, a 0-d float64 array; `infinite`, a float32 one, becomes 1 where a product is not finite.
void grad_scale(const ArrayRefs& grads, const Array& factor, const OptionalArray& infinite) {
  const ArrayList g{"grad_scale", "grads", grads};
  check_is("grad_scale", "factor", factor, {}, DType::kFloat64);
  if (infinite) check_is("grad_scale", "infinite", *infinite, {}, DType::kFloat32);
  Step step(g);
  if (!g.given()) return;
  step.write(g, &OptimTensor::param);
  launch(grads[0]->device(), slots::grad_scale,
         GradArgs{step.list(), step.count(), 0, static_cast<double*>(factor.raw()),
                  infinite ? static_cast<float*>(infinite->raw()) : nullptr});
  if (infinite) Array(*infinite).bump_version();
  step.finish();
}

void bind_optim(py::module_& m) {
  m.def("rule_step", &rule_step);
  m.def("grad_norm", &grad_norm);
  m.def("grad_scale", &grad_scale, py::arg("grads"), py::arg("factor"), py::arg("infinite") = py::none());
  m.def("sgd_step", &sgd_step);
  m.def("adam_step", &adam_step);
}

}  // namespace tw
