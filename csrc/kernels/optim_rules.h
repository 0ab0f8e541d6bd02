// The rules of the optimizers beside SGD and Adam, written once for CPU vectors and CUDA threads.
//
// x is the parameter, g its gradient (sign turned and weight decay added already), s the states (`has`: which are
// there), c the step's numbers. sources: Duchi et al. 2011 (Adagrad); Hinton 2012, Graves 2013 (RMSprop); Zeiler 2012
// (Adadelta); Kingma & Ba 2014, section 7.1 (Adamax); Dozat 2016 (NAdam); Liu et al. 2019 (RAdam); Riedmiller & Braun
// 1993 (Rprop); Polyak & Juditsky 1992 (ASGD); each in PyTorch's form.
#pragma once
#include "kernel_table.h"

namespace tw::TW_ISA {

template <class V>
TW_INLINE void apply_rule(OptimRule rule, V& x, V g, V (&s)[3], const bool (&has)[3], const V (&c)[kRuleNumbers]) {
  switch (rule) {
    case OptimRule::kAdagrad:  // c: lr, eps
      s[0] = fma(g, g, s[0]);
      x -= c[0] * g / (sqrt(s[0]) + c[1]);
      break;
    case OptimRule::kRmsprop: {  // c: lr, eps, alpha, 1 - alpha, momentum; s1 of a centred one, s2 with momentum
      s[0] = fma(c[3] * g, g, c[2] * s[0]);
      V v = s[0];
      if (has[1]) {
        s[1] = fma(c[3], g - s[1], s[1]);
        v -= s[1] * s[1];
      }
      const V d = g / (sqrt(v) + c[1]);
      if (has[2]) s[2] = fma(c[4], s[2], d);
      x -= c[0] * (has[2] ? s[2] : d);
      break;
    }
    case OptimRule::kAdadelta: {  // c: lr, eps, rho, 1 - rho
      s[0] = fma(c[3] * g, g, c[2] * s[0]);
      const V d = sqrt(s[1] + c[1]) / sqrt(s[0] + c[1]) * g;
      s[1] = fma(c[3] * d, d, c[2] * s[1]);
      x -= c[0] * d;
      break;
    }
    case OptimRule::kAdamax:  // c: lr / (1 - beta1^t), eps, beta2, 1 - beta1
      s[0] = fma(c[3], g - s[0], s[0]);
      s[1] = maximum(c[2] * s[1], abs(g) + c[1]);
      x -= c[0] * s[0] / s[1];
      break;
    case OptimRule::
        kMoments:  // NAdam, RAdam. c: of g, eps, of m, 1 - beta1, beta2, 1 - beta2, 1 / root of v's correction,
                   // of m alone: x -= (c0 g + c2 m) / (c6 sqrt(v) + eps) + c7 m
      s[0] = fma(c[3], g - s[0], s[0]);
      s[1] = fma(c[5] * g, g, c[4] * s[1]);
      x -= fma(c[7], s[0], fma(c[0], g, c[2] * s[0]) / fma(c[6], sqrt(s[1]), c[1]));
      break;
    case OptimRule::kRprop: {  // c: eta-, eta+, least and largest step
      const V turn = g * s[0];
      s[1] = minimum(maximum(s[1] * select(turn > V(0), c[1], select(turn < V(0), c[0], V(1))), c[2]), c[3]);
      s[0] = select(turn < V(0), V(0), g);
      x -= select(s[0] > V(0), s[1], select(s[0] < V(0), -s[1], V(0)));
      break;
    }
    case OptimRule::kAsgd:  // c: eta, 1 - lambd eta, mu
      x = x * c[1] - c[0] * g;
      s[0] = select(c[2] == V(1), x, fma(c[2], x - s[0], s[0]));
      break;
  }
}

}  // namespace tw::TW_ISA
