// The elementwise family over any strides and mixed dtypes: a function a row of kernels/elementwise_list.h, and copy
// and where.
#include "bindings/kernels.h"

namespace tw {
namespace {

// What a name alone does not say: the formula, and the names and defaults of p0 and p1.
struct Meaning {
  const char *name = nullptr, *formula = nullptr, *p0 = nullptr, *p1 = nullptr;
  double d0 = 0, d1 = 0;
};
constexpr double kInf = __builtin_inf();
constexpr Meaning kMeanings[] = {
    {"leaky_relu", "x if x > 0 else negative_slope * x", "negative_slope", nullptr, 0.01, 0},
    {"elu", "x if x > 0 else alpha * expm1(x)", "alpha", nullptr, 1, 0},
    {"softplus", "log1p(exp(beta * x)) / beta, or x where beta * x > threshold", "beta", "threshold", 1, 20},
    {"clamp", "minimum(maximum(x, min), max)", "min", "max", -kInf, kInf},
    {"silu", "x * sigmoid(x)"},
    {"selu", "1.0507... * (x if x > 0 else 1.6732... * expm1(x))"},
    {"celu", "x if x > 0 else alpha * expm1(x / alpha)", "alpha", nullptr, 1, 0},
    {"mish", "x * tanh(log1p(exp(x)))"},
    {"hardswish", "x * hardsigmoid(x)"},
    {"hardsigmoid", "minimum(maximum(x / 6 + 1 / 2, 0), 1)"},
    {"softsign", "x / (1 + abs(x))"},
    {"tanhshrink", "x - tanh(x)"},
    {"logsigmoid", "log(sigmoid(x))"},
    {"hardshrink", "x where abs(x) > lambd, else 0", "lambd", nullptr, 0.5, 0},
    {"softshrink", "x moved towards 0 by lambd, and 0 where it would pass it", "lambd", nullptr, 0.5, 0},
    {"threshold", "x where x > threshold, else value", "threshold", "value", 0, 0},
    {"gelu", "x * (1 + erf(x / sqrt(2))) / 2"},
    {"gelu_tanh", "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2"},
    {"lerp", "a + c * (b - a)"},
    {"addcmul", "a + value * b * c", "value", nullptr, 1, 0},
    {"addcdiv", "a + value * b / c", "value", nullptr, 1, 0},
    {"relu_backward", "a where the result b of relu is positive, else 0"},
    {"sigmoid_backward", "a * b * (1 - b), with sigmoid's result b"},
    {"tanh_backward", "a * (1 - b^2), with tanh's result b"},
    {"leaky_relu_backward", "a * (1 if b > 0 else negative_slope), at the input b", "negative_slope", nullptr, 0.01, 0},
    {"elu_backward", "a * (1 if b > 0 else b + alpha), with elu's result b", "alpha", nullptr, 1, 0},
    {"gelu_backward", "a times the derivative of gelu at b"},
    {"gelu_tanh_backward", "a times the derivative of gelu_tanh at b"},
    {"silu_backward", "a times the derivative of silu at b"},
    {"selu_backward", "a times the derivative of selu, from its result b"},
    {"celu_backward", "a * (1 if b > 0 else exp(b / alpha)), at the input b", "alpha", nullptr, 1, 0},
    {"mish_backward", "a times the derivative of mish at b"},
    {"hardswish_backward", "a times the derivative of hardswish at b"},
    {"hardsigmoid_backward", "a / 6 where -3 < b < 3, else 0"},
    {"softsign_backward", "a / (1 + abs(b))^2"},
    {"tanhshrink_backward", "a * tanh(b)^2"},
    {"logsigmoid_backward", "a * sigmoid(-b)"},
    {"shrink_backward", "a where abs(b) > lambd, else 0", "lambd", nullptr, 0.5, 0},
    {"threshold_backward", "a where b > threshold, else 0", "threshold", nullptr, 0, 0},
    {"inside_backward", "a where min < b < max, else 0: the gradient of hardtanh", "min", "max", -kInf, kInf},
    {"softplus_backward", "a times the derivative of softplus at b", "beta", "threshold", 1, 20},
};

std::string document(const ElementwiseRow& row, const Meaning& meaning) {
  const char* const slot = row.op.slot.name;
  static const char* const kArguments[] = {"x", "a, b", "a, b, c"};
  const std::string formula = meaning.formula ? meaning.formula : str(slot, "(", kArguments[row.inputs - 1], ")");
  const char* const dtype = row.op.integers_only ? "int32" : "float32";
  std::string call;
  for (int k = 0; k < row.inputs; ++k) call += "x, ";
  const char* const dtypes = row.op.integers_only ? "integers and bool"
                             : row.op.floats_only ? "floats (integers count as float32)"
                                                  : "any dtype";
  return str("out = ", formula, ", element by element.\nOperands: ", dtypes,
             row.inputs > 1 ? ", of shapes that broadcast; one may be a number" : "", ". out: their common shape, ",
             row.op.to_bool ? "any dtype" : "a dtype of the result's category or a higher one",
             "; it may be an operand itself.\nAny strides that are not negative.\n>>> x = np.ones((2, 3), np.", dtype,
             ")\n>>> y = np.empty((2, 3), np.", row.op.to_bool ? "bool" : dtype, ")\n>>> kernels.", slot, "(", call,
             "out=y) is y\nTrue\n");
}

using InPlaceOut = Arg<kOutput | kStrided | kInPlace>;

// A function of the operands `args`, and of the parameters that the row's meaning names.
template <class... Operands, class... A> void define(nb::module_& m, const ElementwiseRow& row, const A&... a) {
  Meaning meaning{};
  for (const Meaning& k : kMeanings)
    if (std::string_view(k.name) == row.op.slot.name) meaning = k;
  ElementwiseOp op = row.op;
  op.floats_only |= &op.slot == &slots::clamp;  // its bounds are floats
  const auto run = [op](Operands... x, InPlaceOut out, double p0, double p1) {
    Value in[] = {x...};
    // On bool, the kernel bitwise_not would flip all eight bits.
    const bool flip = &op.slot == &slots::bitwise_not && in[0].array && in[0].array->dtype() == DType::kBool;
    elementwise(flip ? ElementwiseOp{slots::logical_not, false, true, false} : op, in, sizeof...(x),
                &static_cast<Array&>(out), p0, p1);
  };
  const auto out = "out"_a;
  const std::string doc = document(row, meaning);
  const char* const name = op.slot.name;
  if (meaning.p1)
    open(m, name, args(a..., out, nb::arg(meaning.p0) = meaning.d0, nb::arg(meaning.p1) = meaning.d1), doc.c_str(),
         [run](Call&, Operands... x, InPlaceOut o, double p0, double p1) { run(x..., o, p0, p1); });
  else if (meaning.p0)
    open(m, name, args(a..., out, nb::arg(meaning.p0) = meaning.d0), doc.c_str(),
         [run](Call&, Operands... x, InPlaceOut o, double p0) { run(x..., o, p0, 0); });
  else open(m, name, args(a..., out), doc.c_str(), [run](Call&, Operands... x, InPlaceOut o) { run(x..., o, 0, 0); });
}

}  // namespace

void open_elementwise(nb::module_& m) {
  const auto x = "x"_a, a = "a"_a, b = "b"_a, c = "c"_a, out = "out"_a;
  for (const ElementwiseRow& row : elementwise_rows()) {
    if (row.inputs == 1) define<Value>(m, row, x);
    if (row.inputs == 2) define<Value, Value>(m, row, a, b);
    if (row.inputs == 3) define<Value, Value, Value>(m, row, a, b, c);
  }
  open(m, "copy", args(x, out),
       R"(out = x, converted to out's dtype; x is an array that broadcasts to out's shape, or a number that fills it.
Any dtypes and strides, so it also casts, transposes and gathers strided data. Floats become integers by truncation.
>>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
>>> kernels.copy(x.T, out=np.empty((3, 2), np.int32)).tolist()
[[0, 3], [1, 4], [2, 5]]
)",
       [](Call&, Value x, StridedOut out) { fill("copy", out, x); });
  open(m, "where", args("condition"_a, a, b, out),
       R"(out = a where condition else b; the three broadcast to out's shape, and a or b may be a number.
condition: bool; a, b and out: one dtype, any. Any strides.
>>> x = np.array([-1, 2], np.float32)
>>> kernels.where(x > 0, x, 0, out=x).tolist()
[0.0, 2.0]
)",
       [](Call&, In condition, Value a, Value b, InPlaceOut out) { where(condition, a, b, static_cast<Array&>(out)); });
}

}  // namespace tw
