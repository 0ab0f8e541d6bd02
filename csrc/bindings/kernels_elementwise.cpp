// The elementwise family over any strides and mixed dtypes: a function a row of kernels/elementwise_list.h, and copy
// and where.
#include "bindings/kernels.h"

namespace tw {
namespace {

enum class Kind : uint8_t { F, N, I, FB, NB };  // of elementwise_list.h

struct Row {
  const Slot<ElementwiseArgs>* slot;
  int inputs;
  Kind kind;
};
constexpr Row kRows[] = {
#define TW_X(name, functor, kind) {&slots::name, 1, &slots::name == &slots::clamp ? Kind::F : Kind::kind},
    TW_UNARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, functor, kind) {&slots::name, 2, Kind::kind},
        TW_BINARY_LIST(TW_X)
#undef TW_X
#define TW_X(name, functor, kind) {&slots::name, 3, Kind::kind},
            TW_TERNARY_LIST(TW_X)
#undef TW_X
};

// What a name alone does not say: the formula, and the names and defaults of p0 and p1.
struct Meaning {
  const char *name, *formula, *p0, *p1;
  double d0, d1;
};
constexpr double kInf = __builtin_inf();
constexpr Meaning kMeanings[] = {
    {"leaky_relu", "x if x > 0 else negative_slope * x", "negative_slope", nullptr, 0.01, 0},
    {"elu", "x if x > 0 else alpha * expm1(x)", "alpha", nullptr, 1, 0},
    {"softplus", "log1p(exp(beta * x)) / beta, or x where beta * x > threshold", "beta", "threshold", 1, 20},
    {"clamp", "minimum(maximum(x, min), max)", "min", "max", -kInf, kInf},
    {"silu", "x * sigmoid(x)", nullptr, nullptr, 0, 0},
    {"selu", "1.0507... * (x if x > 0 else 1.6732... * expm1(x))", nullptr, nullptr, 0, 0},
    {"celu", "x if x > 0 else alpha * expm1(x / alpha)", "alpha", nullptr, 1, 0},
    {"mish", "x * tanh(log1p(exp(x)))", nullptr, nullptr, 0, 0},
    {"hardswish", "x * hardsigmoid(x)", nullptr, nullptr, 0, 0},
    {"hardsigmoid", "minimum(maximum(x / 6 + 1 / 2, 0), 1)", nullptr, nullptr, 0, 0},
    {"softsign", "x / (1 + abs(x))", nullptr, nullptr, 0, 0},
    {"tanhshrink", "x - tanh(x)", nullptr, nullptr, 0, 0},
    {"logsigmoid", "log(sigmoid(x))", nullptr, nullptr, 0, 0},
    {"hardshrink", "x where abs(x) > lambd, else 0", "lambd", nullptr, 0.5, 0},
    {"softshrink", "x moved towards 0 by lambd, and 0 where it would pass it", "lambd", nullptr, 0.5, 0},
    {"threshold", "x where x > threshold, else value", "threshold", "value", 0, 0},
    {"gelu", "x * (1 + erf(x / sqrt(2))) / 2", nullptr, nullptr, 0, 0},
    {"gelu_tanh", "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2", nullptr, nullptr, 0, 0},
    {"lerp", "a + c * (b - a)", nullptr, nullptr, 0, 0},
    {"addcmul", "a + value * b * c", "value", nullptr, 1, 0},
    {"addcdiv", "a + value * b / c", "value", nullptr, 1, 0},
    {"relu_backward", "a where the result b of relu is positive, else 0", nullptr, nullptr, 0, 0},
    {"sigmoid_backward", "a * b * (1 - b), with sigmoid's result b", nullptr, nullptr, 0, 0},
    {"tanh_backward", "a * (1 - b^2), with tanh's result b", nullptr, nullptr, 0, 0},
    {"leaky_relu_backward", "a * (1 if b > 0 else negative_slope), at the input b", "negative_slope", nullptr, 0.01, 0},
    {"elu_backward", "a * (1 if b > 0 else b + alpha), with elu's result b", "alpha", nullptr, 1, 0},
    {"gelu_backward", "a times the derivative of gelu at b", nullptr, nullptr, 0, 0},
    {"gelu_tanh_backward", "a times the derivative of gelu_tanh at b", nullptr, nullptr, 0, 0},
    {"silu_backward", "a times the derivative of silu at b", nullptr, nullptr, 0, 0},
    {"selu_backward", "a times the derivative of selu, from its result b", nullptr, nullptr, 0, 0},
    {"celu_backward", "a * (1 if b > 0 else exp(b / alpha)), at the input b", "alpha", nullptr, 1, 0},
    {"mish_backward", "a times the derivative of mish at b", nullptr, nullptr, 0, 0},
    {"hardswish_backward", "a times the derivative of hardswish at b", nullptr, nullptr, 0, 0},
    {"hardsigmoid_backward", "a / 6 where -3 < b < 3, else 0", nullptr, nullptr, 0, 0},
    {"softsign_backward", "a / (1 + abs(b))^2", nullptr, nullptr, 0, 0},
    {"tanhshrink_backward", "a * tanh(b)^2", nullptr, nullptr, 0, 0},
    {"logsigmoid_backward", "a * sigmoid(-b)", nullptr, nullptr, 0, 0},
    {"shrink_backward", "a where abs(b) > lambd, else 0", "lambd", nullptr, 0.5, 0},
    {"threshold_backward", "a where b > threshold, else 0", "threshold", nullptr, 0, 0},
    {"inside_backward", "a where min < b < max, else 0: the gradient of hardtanh", "min", "max", -kInf, kInf},
    {"softplus_backward", "a times the derivative of softplus at b", "beta", "threshold", 1, 20},
};

struct Number {
  bool is = false;
  DType dtype;
  double f;
  int64_t i;
};

Number number_of(const char* op, PyObject* o) {
  if (PyFloat_Check(o)) {
    const double f = PyFloat_AS_DOUBLE(o);
    return {true, DType::kFloat32, f, f >= -0x1p63 && f < 0x1p63 ? static_cast<int64_t>(f) : 0};
  }
  if (!PyLong_Check(o)) return {};
  int overflow = 0;
  const int64_t i = PyLong_AsLongLongAndOverflow(o, &overflow);
  TW_CHECK_AS(std::overflow_error, !overflow, op, ": a number must fit int64");
  return {true, PyBool_Check(o) ? DType::kBool : DType::kInt64, static_cast<double>(i), i};
}

// One operand over the launch's shape, which v's broadcasts to.
void set_operand(Operand* o, const View& v, const Dims& shape) {
  const auto size = static_cast<int64_t>(itemsize(v.dtype));
  const int lead = shape.n - v.ndim();
  o->data = v.data;
  o->dtype = v.dtype;
  for (int i = 0; i < shape.n; ++i)
    o->strides[i] = i < lead || (v.size(i - lead) == 1 && shape[i] != 1) ? 0 : v.strides[i - lead] * size;
}

// The operands: arrays, and at most one number, whose dtype counts only where its category is the highest.
struct Operands {
  Call& c;
  const View* view[3] = {};
  Number number;
  Dims shape;
  DType type = DType::kBool;

  Operands(Call& c, std::initializer_list<const char*> names, const Arr* x)
      : c(c), inputs(static_cast<int>(names.size())) {
    const char* const* const roles = names.begin();
    bool any = false;
    for (int k = 0; k < inputs; ++k) {
      if (const Number n = number_of(c.op, x[k].o); n.is) {
        TW_CHECK_TYPE(!number.is, c.op, ": at most one operand may be a number");
        number = n;
        continue;
      }
      const View& v = *(view[k] = &c.input(roles[k], x[k], kAny));
      shape = !any ? v.shape : v.shape == shape ? shape : broadcast_shapes(c.op, shape, v.shape);
      type = any ? promote(type, v.dtype) : v.dtype;
      any = true;
    }
    TW_CHECK_TYPE(any, c.op, ": expects at least one array, got only numbers");
  }

  Arr run(const Slot<ElementwiseArgs>& slot, const View& out, DType compute, double p0, double p1) {
    TW_CHECK(out.shape == shape, c.op, ": out must have the operands' common shape, got ", str_of(out.shape), " and ",
             str_of(shape));
    ElementwiseArgs a;
    a.inputs = inputs;
    a.compute = compute;
    a.p0 = p0;
    a.p1 = p1;
    set_operand(&a.out, out, shape);
    for (int k = 0; k < inputs; ++k) {
      if (view[k]) {
        set_operand(&a.in[k], *view[k], shape);
        continue;
      }
      a.in[k].data = nullptr;
      a.in[k].dtype = compute;
      for (int i = 0; i < shape.n; ++i) a.in[k].strides[i] = 0;
      a.scalar_float = number.f;
      a.scalar_int = number.i;
    }
    api->simplify(&a, shape);
    return c.run(slot, a, out);
  }

 private:
  int inputs;
};

Arr elementwise(const Row& row, const Arr* x, Arr out_, double p0, double p1) {
  Call c(row.slot->name);
  Operands in = row.inputs == 1   ? Operands(c, {"x"}, x)
                : row.inputs == 2 ? Operands(c, {"a", "b"}, x)
                                  : Operands(c, {"a", "b", "c"}, x);
  DType type = in.type;
  if (in.number.is && category(in.number.dtype) > category(type)) type = in.number.dtype;
  if ((row.kind == Kind::F || row.kind == Kind::FB) && !is_float(type)) type = DType::kFloat32;
  TW_CHECK_TYPE(row.kind != Kind::I || !is_float(type), c.op, ": dtype must be an integer or bool, got ", name(type));
  const DType compute = compute_dtype(type);
  TW_CHECK_AS(std::overflow_error,
              !in.number.is || compute != DType::kInt32 || (in.number.i >= INT32_MIN && in.number.i <= INT32_MAX), c.op,
              ": the number must fit ", name(type), ", got ", in.number.i);
  const View& out = c.output("out", out_, kInPlace);
  const DType result = row.kind == Kind::FB || row.kind == Kind::NB ? DType::kBool : type;
  TW_CHECK_TYPE(category(result) <= category(out.dtype), c.op, ": a result of dtype ", name(result),
                " cannot be stored in out of dtype ", name(out.dtype));
  // On bool, the kernel bitwise_not would flip all eight bits.
  const bool flip = row.slot == &slots::bitwise_not && type == DType::kBool;
  return in.run(flip ? slots::logical_not : *row.slot, out, compute, p0, p1);
}

Arr copy(Arr x, Arr out_) {
  Call c("copy");
  if (const Number n = number_of(c.op, x.o); n.is) {
    const View& out = c.output("out", out_, kAny);
    ElementwiseArgs a{};
    a.inputs = 1;
    a.compute = out.dtype;
    a.in[0].dtype = out.dtype;
    a.scalar_float = n.f;
    a.scalar_int = n.i;
    set_operand(&a.out, out, out.shape);
    api->simplify(&a, out.shape);
    return c.run(slots::copy, a, out);
  }
  Operands in(c, {"x"}, &x);
  const View& out = c.output("out", out_, kAny);
  if (!(in.shape == out.shape) && broadcast_shapes(c.op, in.shape, out.shape) == out.shape) in.shape = out.shape;
  return in.run(slots::copy, out, out.dtype, 0, 0);
}

Arr where(Arr condition, Arr a, Arr b, Arr out_) {
  Call c("where");
  const Arr x[3] = {condition, a, b};
  Operands in(c, {"condition", "a", "b"}, x);
  TW_CHECK_TYPE(in.view[0] && in.view[0]->dtype == DType::kBool, "where: the condition must be a bool array");
  const View& out = c.output("out", out_, kInPlace);
  for (const View* v : {in.view[1], in.view[2]})
    TW_CHECK_TYPE(!v || v->dtype == out.dtype, "where: ", v->role, " must have out's dtype, got ", name(v->dtype),
                  " and ", name(out.dtype));
  return in.run(slots::where, out, out.dtype, 0, 0);
}

std::string document(const Row& row, const Meaning* meaning) {
  const char* const slot = row.slot->name;
  static const char* const kArguments[] = {"x", "a, b", "a, b, c"};
  const std::string formula = meaning ? meaning->formula : str(slot, "(", kArguments[row.inputs - 1], ")");
  const bool integers = row.kind == Kind::I;
  const char* const dtype = integers ? "int32" : "float32";
  const bool to_bool = row.kind == Kind::FB || row.kind == Kind::NB;
  std::string call;
  for (int k = 0; k < row.inputs; ++k) call += "x, ";
  const char* const dtypes = integers                                      ? "integers and bool"
                             : row.kind == Kind::F || row.kind == Kind::FB ? "floats (integers count as float32)"
                                                                           : "any dtype";
  return str("out = ", formula, ", element by element.\n\n", "Operands: ", dtypes,
             row.inputs > 1 ? ", of shapes that broadcast; one may be a number" : "", ". out: their common shape, ",
             to_bool ? "any dtype" : "a dtype of the result's category or a higher one",
             "; it may be an operand itself.\nAny strides that are not negative.\n\n"
             "Raises: ValueError: shapes, overlapping or read-only memory. TypeError: dtypes.\n\n"
             ">>> x = np.ones((2, 3), np.",
             dtype, ")\n>>> y = np.empty((2, 3), np.", to_bool ? "bool" : dtype, ")\n>>> kernels.", slot, "(", call,
             "out=y) is y\nTrue\n");
}

template <class F, class... Args> void define(nb::module_& m, const Row& row, F&& f, const Args&... args) {
  const Meaning* meaning = nullptr;
  for (const Meaning& k : kMeanings)
    if (std::string_view(k.name) == row.slot->name) meaning = &k;
  const std::string doc = document(row, meaning);
  const char* const name = row.slot->name;
  if (meaning && meaning->p1) {
    m.def(
        name, [f](decltype(args, Arr())... x, Arr out, double p0, double p1) { return f({x...}, out, p0, p1); },
        doc.c_str(), args..., nb::arg("out"), nb::arg(meaning->p0) = meaning->d0, nb::arg(meaning->p1) = meaning->d1);
  } else if (meaning && meaning->p0) {
    m.def(
        name, [f](decltype(args, Arr())... x, Arr out, double p0) { return f({x...}, out, p0, 0); }, doc.c_str(),
        args..., nb::arg("out"), nb::arg(meaning->p0) = meaning->d0);
  } else {
    m.def(
        name, [f](decltype(args, Arr())... x, Arr out) { return f({x...}, out, 0, 0); }, doc.c_str(), args...,
        nb::arg("out"));
  }
}

}  // namespace

void bind_elementwise(nb::module_& m) {
  for (const Row& row : kRows) {
    const auto f = [&row](std::initializer_list<Arr> x, Arr out, double p0, double p1) {
      return elementwise(row, x.begin(), out, p0, p1);
    };
    if (row.inputs == 1) define(m, row, f, nb::arg("x"));
    if (row.inputs == 2) define(m, row, f, nb::arg("a"), nb::arg("b"));
    if (row.inputs == 3) define(m, row, f, nb::arg("a"), nb::arg("b"), nb::arg("c"));
  }
  m.def("copy", &copy, nb::arg("x"), nb::arg("out"),
        R"(out = x, converted to out's dtype; x is an array that broadcasts to out's shape, or a number that fills it.

Any dtypes and strides, so it also casts, transposes and gathers strided data. Floats become integers by truncation.

Raises: ValueError: shapes, overlapping or read-only memory.

>>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
>>> kernels.copy(x.T, out=np.empty((3, 2), np.int32)).tolist()
[[0, 3], [1, 4], [2, 5]]
)");
  m.def("where", &where, nb::arg("condition"), nb::arg("a"), nb::arg("b"), nb::arg("out"),
        R"(out = a where condition else b; the three broadcast to out's shape, and a or b may be a number.

condition: bool; a, b and out: one dtype, any. Any strides.

Raises: ValueError: shapes, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([-1, 2], np.float32)
>>> kernels.where(x > 0, x, 0, out=x).tolist()
[0.0, 2.0]
)");
}

}  // namespace tw
