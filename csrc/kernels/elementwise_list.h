// The elementwise ops: every table, binding and test of the family is generated from these lists by the preprocessor.
// Macros only. X(name, Functor, kinds), with the functor in kernels/functors.h and kinds one of
//   F   floats; the op layer promotes integers and bool to float32 first
//   N   floats and integers (bool as the op layer sees fit)
//   I   integers and bool
//   FB, NB   the same, with bool results
// p0 and p1 in a remark are the op's parameters. On bool, bitwise_not is logical_not: the op layer maps it.
#pragma once

// clang-format off
#define TW_UNARY_LIST(X)                                                                                          \
  X(neg, Neg, N) X(abs, Abs, N) X(sign, Sign, N) X(square, Square, N) X(reciprocal, Reciprocal, F)                \
  X(sqrt, Sqrt, F) X(rsqrt, Rsqrt, F) X(exp, Exp, F) X(exp2, Exp2, F) X(expm1, Expm1, F) X(log, Log, F)           \
  X(log2, Log2, F) X(log10, Log10, F) X(log1p, Log1p, F) X(sin, Sin, F) X(cos, Cos, F) X(tan, Tan, F)             \
  X(asin, Asin, F) X(acos, Acos, F) X(atan, Atan, F) X(sinh, Sinh, F) X(cosh, Cosh, F) X(tanh, Tanh, F)           \
  X(sigmoid, Sigmoid, F) X(erf, Erf, F) X(floor, Floor, N) X(ceil, Ceil, N) X(trunc, Trunc, N) X(round, Round, N) \
  X(relu, Relu, N)                                                                                                \
  X(leaky_relu, LeakyRelu, F) /* p0 slope */                                                                      \
  X(elu, Elu, F)              /* p0 alpha */                                                                      \
  X(softplus, Softplus, F)    /* p0 beta, p1 threshold */                                                         \
  X(silu, Silu, F) X(gelu, Gelu, F) X(gelu_tanh, GeluTanh, F)                                                     \
  X(selu, Selu, F) X(celu, Celu, F) /* p0 alpha */                                                                \
  X(mish, Mish, F) X(hardswish, Hardswish, F) X(hardsigmoid, Hardsigmoid, F) X(softsign, Softsign, F)             \
  X(tanhshrink, Tanhshrink, F) X(logsigmoid, Logsigmoid, F)                                                       \
  X(hardshrink, Hardshrink, F) X(softshrink, Softshrink, F) /* p0 lambda */                                       \
  X(threshold, Threshold, F) /* p0 threshold, p1 value */                                                         \
  X(clamp, Clamp, N) /* p0 lowest, p1 highest */                                                                  \
  X(bitwise_not, BitwiseNot, I) X(logical_not, LogicalNot, NB)                                                    \
  X(isnan, IsNan, FB) X(isinf, IsInf, FB) X(isfinite, IsFinite, FB)
// clang-format on

// clang-format off
#define TW_BINARY_LIST(X)                                                                                         \
  X(add, Add, N) X(sub, Sub, N) X(mul, Mul, N) X(div, Div, F) X(floor_divide, FloorDivide, N)                     \
  X(remainder, Remainder, N) X(fmod, Fmod, N) X(pow, Pow, N) X(maximum, Maximum, N) X(minimum, Minimum, N)        \
  X(atan2, Atan2, F) X(bitwise_and, BitwiseAnd, I) X(bitwise_or, BitwiseOr, I) X(bitwise_xor, BitwiseXor, I)      \
  X(bitwise_left_shift, BitwiseLeftShift, I) X(bitwise_right_shift, BitwiseRightShift, I)                         \
  X(eq, Eq, NB) X(ne, Ne, NB) X(lt, Lt, NB) X(le, Le, NB) X(gt, Gt, NB) X(ge, Ge, NB)                             \
  X(logical_and, LogicalAnd, NB) X(logical_or, LogicalOr, NB) X(logical_xor, LogicalXor, NB)                      \
  /* gradients: a is dy, b is the forward's result y or input x */                                                \
  X(relu_backward, ReluBackward, F)            /* y */                                                            \
  X(leaky_relu_backward, LeakyReluBackward, F) /* x; p0 slope */                                                  \
  X(sigmoid_backward, SigmoidBackward, F)      /* y */                                                            \
  X(tanh_backward, TanhBackward, F)            /* y */                                                            \
  X(gelu_backward, GeluBackward, F)            /* x */                                                            \
  X(gelu_tanh_backward, GeluTanhBackward, F)   /* x */                                                            \
  X(elu_backward, EluBackward, F)              /* y; p0 alpha */                                                  \
  X(silu_backward, SiluBackward, F)            /* x */                                                            \
  X(softplus_backward, SoftplusBackward, F)    /* x; p0 beta, p1 threshold */                                     \
  X(selu_backward, SeluBackward, F)            /* y */                                                            \
  X(celu_backward, CeluBackward, F)            /* x; p0 alpha */                                                  \
  X(mish_backward, MishBackward, F) X(hardswish_backward, HardswishBackward, F)               /* x */             \
  X(hardsigmoid_backward, HardsigmoidBackward, F) X(softsign_backward, SoftsignBackward, F)   /* x */             \
  X(tanhshrink_backward, TanhshrinkBackward, F) X(logsigmoid_backward, LogsigmoidBackward, F) /* x */             \
  X(shrink_backward, ShrinkBackward, F)       /* x; p0 lambda */                                                  \
  X(threshold_backward, ThresholdBackward, F) /* x; p0 threshold */                                               \
  X(inside_backward, InsideBackward, F)       /* x; where p0 < x < p1 */
// clang-format on

// clang-format off
#define TW_TERNARY_LIST(X)                                                                                        \
  X(lerp, Lerp, F)       /* a + c (b - a) */                                                                      \
  X(addcmul, Addcmul, N) /* a + p0 b c */                                                                         \
  X(addcdiv, Addcdiv, F) /* a + p0 b / c */
// clang-format on
