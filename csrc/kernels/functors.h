// The scalar maths of the elementwise family (kernels/elementwise_list.h), written once for CPU vectors (V = Vec<T>)
// and CUDA threads (V = float, double, int32_t, int64_t).
//
// A unary functor is called (x, p0, p1), a binary one (a, b, p0, p1), a ternary one (a, b, c, p0, p1); p0 and p1 are
// the op's parameters, which most ignore. Comparisons give V's mask type (bool for a thread). Only operators and free
// functions are used, so a header for threads must declare, before this one, those that the rows below name: any(m),
// select(m, a, b), minimum, maximum, abs, copysign, sqrt, floor, ceil, trunc, round (half to even), fmod, sigmoid, pow
// and the other elementary functions.
// NaN: as PyTorch's. float16 and bfloat16 come as float; bool, int8, uint8 and int16 as int32_t, whose low bits remain.
// Integers: x / 0 and x % 0 are 0, since no check of the divisors comes before a launch and a kernel must not trap;
// the lowest integer over -1 wraps round to itself.
#pragma once
#include "kernel_table.h"
#include "kernels/elementwise_list.h"

namespace tw::TW_ISA {

template <class V> struct ScalarOf {
  using type = V;
};
template <class V>
  requires requires { typename V::Element; }
struct ScalarOf<V> {
  using type = typename V::Element;
};
template <class V> constexpr bool kIsInteger = typename ScalarOf<V>::type(1) / typename ScalarOf<V>::type(2) == 0;
template <class V> constexpr int kBits = 8 * int(sizeof(typename ScalarOf<V>::type));

#define TW_UNARY(Functor, ...)                                                                              \
  struct Functor {                                                                                          \
    template <class V> TW_INLINE auto operator()(V x, [[maybe_unused]] V p0, [[maybe_unused]] V p1) const { \
      __VA_ARGS__                                                                                           \
    }                                                                                                       \
  };
#define TW_BINARY(Functor, ...)                                                                                  \
  struct Functor {                                                                                               \
    template <class V> TW_INLINE auto operator()(V a, V b, [[maybe_unused]] V p0, [[maybe_unused]] V p1) const { \
      __VA_ARGS__                                                                                                \
    }                                                                                                            \
  };
#define TW_TERNARY(Functor, ...)                                                                                      \
  struct Functor {                                                                                                    \
    template <class V> TW_INLINE auto operator()(V a, V b, V c, [[maybe_unused]] V p0, [[maybe_unused]] V p1) const { \
      __VA_ARGS__                                                                                                     \
    }                                                                                                                 \
  };

// ---- unary ----

TW_UNARY(Neg, return -x;)
TW_UNARY(Abs, return abs(x);)
TW_UNARY(Sign, return select(x > V(0), V(1), select(x < V(0), V(-1), V(0)));)  // of NaN: 0
TW_UNARY(Square, return x * x;)
TW_UNARY(Reciprocal, return V(1) / x;)
TW_UNARY(Sqrt, return sqrt(x);)
TW_UNARY(Rsqrt, return V(1) / sqrt(x);)
TW_UNARY(Exp, return exp(x);)
TW_UNARY(Exp2, return exp2(x);)
TW_UNARY(Expm1, return expm1(x);)
TW_UNARY(Log, return log(x);)
TW_UNARY(Log2, return log2(x);)
TW_UNARY(Log10, return log10(x);)
TW_UNARY(Log1p, return log1p(x);)
TW_UNARY(Sin, return sin(x);)
TW_UNARY(Cos, return cos(x);)
TW_UNARY(Tan, return tan(x);)
TW_UNARY(Asin, return asin(x);)
TW_UNARY(Acos, return acos(x);)
TW_UNARY(Atan, return atan(x);)
TW_UNARY(Sinh, return sinh(x);)
TW_UNARY(Cosh, return cosh(x);)
TW_UNARY(Tanh, return tanh(x);)
TW_UNARY(Sigmoid, return sigmoid(x);)
TW_UNARY(Erf, return erf(x);)
TW_UNARY(Floor, if constexpr (kIsInteger<V>) return x; else return floor(x);)
TW_UNARY(Ceil, if constexpr (kIsInteger<V>) return x; else return ceil(x);)
TW_UNARY(Trunc, if constexpr (kIsInteger<V>) return x; else return trunc(x);)
TW_UNARY(Round, if constexpr (kIsInteger<V>) return x; else return round(x);)  // half to even

TW_UNARY(Relu, return select(x <= V(0), V(0), x);)  // of NaN: NaN
TW_UNARY(LeakyRelu, return select(x > V(0), x, x* p0);)
TW_UNARY(Elu, return select(x > V(0), x, p0* expm1(x));)
// max(z, 0) + log(1 + e^-|z|), z = beta x, which cannot overflow whatever the threshold.
TW_UNARY(Softplus, const V z = x * p0; return select(z > p1, x, (maximum(z, V(0)) + log1p(exp(-abs(z)))) / p0);)
TW_UNARY(Silu, return x * sigmoid(x);)
// Hendrycks & Gimpel 2016: x Phi(x), and its approximation 0.5 x (1 + tanh u), which is x sigmoid(2 u) without the
// cancellation where x is negative.
TW_UNARY(Gelu, return V(0.5) * x * (V(1) + erf(x * V(0.70710678118654752440)));)
TW_UNARY(GeluTanh, return x * sigmoid(V(2 * 0.79788456080286535588) * (x + V(0.044715) * x * x * x));)
// Klambauer et al. 2017's constants; Barron 2017; Misra 2019, with tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2), where
// e = e^x is held below the overflow of its square and the quotient is 1 long before that.
template <class V> TW_INLINE V selu_scale() { return V(1.0507009873554804934193349852946); }
template <class V> TW_INLINE V selu_scaled_alpha() { return V(1.0507009873554804934 * 1.6732632423543772848); }
template <class V> TW_INLINE V tanh_softplus(V x) {
  const V e = exp(minimum(x, V(20))), n = e * (e + V(2));
  return n / (n + V(2));
}
TW_UNARY(Selu, return select(x > V(0), selu_scale<V>() * x, selu_scaled_alpha<V>() * expm1(x));)
TW_UNARY(Celu, return select(x > V(0), x, p0* expm1(x / p0));)
TW_UNARY(Mish, return x * tanh_softplus(x);)
TW_UNARY(Hardsigmoid, return minimum(maximum(x / V(6) + V(0.5), V(0)), V(1));)
TW_UNARY(Hardswish, return x * minimum(maximum(x / V(6) + V(0.5), V(0)), V(1));)
TW_UNARY(Softsign, return x / (V(1) + abs(x));)
TW_UNARY(Tanhshrink, return x - tanh(x);)
TW_UNARY(Logsigmoid, return minimum(x, V(0)) - log1p(exp(-abs(x)));)
TW_UNARY(Hardshrink, return select(abs(x) <= p0, V(0), x);)  // of NaN: NaN
TW_UNARY(Softshrink, return select(x > p0, x - p0, select(x < -p0, x + p0, x* V(0)));)
TW_UNARY(Threshold, return select(x <= p0, p1, x);)
TW_UNARY(Clamp, return minimum(maximum(x, p0), p1);)  // the highest wins where it is below the lowest

TW_UNARY(BitwiseNot, return ~x;)
TW_UNARY(LogicalNot, return x == V(0);)
TW_UNARY(IsNan, return x != x;)
TW_UNARY(IsInf, return abs(x) == V(__builtin_inf());)
TW_UNARY(IsFinite, return abs(x) < V(__builtin_inf());)

// What a product ends with.
template <class V> TW_INLINE V activate(Activation activation, V x) {
  if constexpr (!kIsInteger<V>) switch (activation) {
      case Activation::kRelu: return Relu()(x, x, x);
      case Activation::kGelu: return Gelu()(x, x, x);
      case Activation::kGeluTanh: return GeluTanh()(x, x, x);
      case Activation::kSigmoid: return Sigmoid()(x, x, x);
      case Activation::kTanh: return Tanh()(x, x, x);
      case Activation::kSilu: return Silu()(x, x, x);
      case Activation::kNone: break;
    }
  return x;
}

// ---- binary ----

// Truncated quotient and remainder of integers, for any divisor.
template <class V> struct Division {
  V quotient, remainder;
};
template <class V> TW_INLINE Division<V> divide_integers(V a, V b) {
  const auto zero = b == V(0), minus_one = b == V(-1);
  const V safe = select(zero | minus_one, V(1), b), q = a / safe;
  const V remainder = select(zero, V(0), a - q * safe);
  return {select(zero, V(0), select(minus_one, V(0) - a, q)), remainder};
}
// Where the truncated remainder r and the divisor b differ in sign, flooring takes one more divisor away.
template <class V> TW_INLINE auto must_floor(V r, V b) { return (r != V(0)) & ((r < V(0)) != (b < V(0))); }

TW_BINARY(Add, return a + b;)
TW_BINARY(Sub, return a - b;)
TW_BINARY(Mul, return a * b;)
TW_BINARY(Div, return a / b;)
// Python's rule. Floats: (a - fmod(a, b)) / b is within rounding of an integer, which is then found.
TW_BINARY(
    FloorDivide,
    if constexpr (kIsInteger<V>) {
      const Division<V> d = divide_integers(a, b);
      return select(must_floor(d.remainder, b), d.quotient - V(1), d.quotient);
    } else {
      const V r = fmod(a, b), ratio = a / b;
      const V exact = (a - r) / b - select(must_floor(r, b), V(1), V(0));
      const V down = floor(exact), nearest_one = select(exact - down > V(0.5), down + V(1), down);
      return select(b == V(0), ratio, select(exact == V(0), copysign(V(0), ratio), nearest_one));
    })
TW_BINARY(
    Remainder,
    if constexpr (kIsInteger<V>) {
      const V r = divide_integers(a, b).remainder;
      return select(must_floor(r, b), r + b, r);
    } else {
      const V r = fmod(a, b);
      return select(must_floor(r, b), r + b, r);
    })
TW_BINARY(Fmod, if constexpr (kIsInteger<V>) return divide_integers(a, b).remainder; else return fmod(a, b);)
// Integers: by squaring, modulo 2^bits; a negative exponent gives 0 but for the bases 1 and -1.
TW_BINARY(
    Pow,
    if constexpr (kIsInteger<V>) {
      const auto negative = b < V(0), odd = (b & V(1)) != V(0);
      V result = V(1), base = a, left = select(negative, V(0), b);
      while (any(left != V(0))) {
        result = select((left & V(1)) != V(0), result * base, result);
        base = base * base;
        left = left >> 1;
      }
      const V inverse = select(a == V(1), V(1), select(a == V(-1), select(odd, V(-1), V(1)), V(0)));
      return select(negative, inverse, result);
    } else { return pow(a, b); })
TW_BINARY(Maximum, return maximum(a, b);)
TW_BINARY(Minimum, return minimum(a, b);)
TW_BINARY(Atan2, return atan2(a, b);)

TW_BINARY(BitwiseAnd, return a & b;)
TW_BINARY(BitwiseOr, return a | b;)
TW_BINARY(BitwiseXor, return a ^ b;)
// Counts outside [0, bits) shift everything out.
TW_BINARY(BitwiseLeftShift, const auto inside = (b >= V(0)) & (b < V(kBits<V>));
          return select(inside, a << select(inside, b, V(0)), V(0));)
TW_BINARY(BitwiseRightShift, const auto inside = (b >= V(0)) & (b < V(kBits<V>));
          return a >> select(inside, b, V(kBits<V> - 1));)

TW_BINARY(Eq, return a == b;)
TW_BINARY(Ne, return a != b;)
TW_BINARY(Lt, return a < b;)
TW_BINARY(Le, return a <= b;)
TW_BINARY(Gt, return a > b;)
TW_BINARY(Ge, return a >= b;)
TW_BINARY(LogicalAnd, return (a != V(0)) & (b != V(0));)
TW_BINARY(LogicalOr, return (a != V(0)) | (b != V(0));)
TW_BINARY(LogicalXor, return (a != V(0)) != (b != V(0));)

// sigmoid(x) and 1 - sigmoid(x), both to full relative accuracy.
template <class V> struct Logistic {
  V value, rest;
};
template <class V> TW_INLINE Logistic<V> logistic(V x) {
  const auto negative = x < V(0);
  const V e = exp(-abs(x)), larger = V(1) / (V(1) + e), smaller = e * larger;
  return {select(negative, smaller, larger), select(negative, larger, smaller)};
}

// Gradients: a = dy, b = y or x as the list says.
TW_BINARY(ReluBackward, return select(b <= V(0), V(0), a);)
TW_BINARY(LeakyReluBackward, return select(b > V(0), a, a* p0);)
TW_BINARY(SigmoidBackward, return a * (V(1) - b) * b;)
TW_BINARY(TanhBackward, return a * (V(1) - b * b);)
TW_BINARY(GeluBackward, const V cdf = V(0.5) * (V(1) + erf(b * V(0.70710678118654752440)));
          const V pdf = V(0.39894228040143267794) * exp(V(-0.5) * b * b); return a * (cdf + b * pdf);)
TW_BINARY(GeluTanhBackward, const V two_c = V(2 * 0.79788456080286535588), square = b * b;
          const Logistic<V> s = logistic(two_c * (b + V(0.044715) * b * square));
          const V slope = two_c * (V(1) + V(3 * 0.044715) * square);
          return a * (s.value + b * s.value * s.rest * slope);)
TW_BINARY(EluBackward, return select(b > V(0), a, a*(b + p0));)
TW_BINARY(SiluBackward, const Logistic<V> s = logistic(b); return a * s.value * (V(1) + b * s.rest);)
TW_BINARY(SeluBackward, return select(b > V(0), a* selu_scale<V>(), a*(b + selu_scaled_alpha<V>()));)
TW_BINARY(CeluBackward, return select(b > V(0), a, a* exp(b / p0));)
TW_BINARY(MishBackward, const V t = tanh_softplus(b); return a * (t + b * (V(1) - t * t) * sigmoid(b));)
TW_BINARY(HardswishBackward, return select(b <= V(-3), V(0), select(b < V(3), a*(b / V(3) + V(0.5)), a));)
TW_BINARY(HardsigmoidBackward, return select((b > V(-3)) & (b < V(3)), a / V(6), V(0));)
TW_BINARY(SoftsignBackward, const V d = V(1) + abs(b); return a / (d * d);)
TW_BINARY(TanhshrinkBackward, const V t = tanh(b); return a * t * t;)
TW_BINARY(LogsigmoidBackward, return a * sigmoid(-b);)
TW_BINARY(ShrinkBackward, return select(abs(b) <= p0, V(0), a);)
TW_BINARY(ThresholdBackward, return select(b <= p0, V(0), a);)
TW_BINARY(InsideBackward, return select((b > p0) & (b < p1), a, V(0));)
TW_BINARY(SoftplusBackward, const V z = b * p0; return select(z > p1, a, a* sigmoid(z));)

// ---- ternary ----

// From the nearer end, so that both ends are exact.
TW_TERNARY(Lerp, return select(abs(c) < V(0.5), a + c * (b - a), b - (b - a) * (V(1) - c));)
TW_TERNARY(Addcmul, return a + p0 * b * c;)
TW_TERNARY(Addcdiv, return a + p0 * b / c;)

#undef TW_UNARY
#undef TW_BINARY
#undef TW_TERNARY

}  // namespace tw::TW_ISA
