// The module tilewright._kernels: each kernel as a function over anybody's arrays (DLPack or the buffer protocol).
//
// A function is a row: its name, its arguments, its help, and a body that calls the op. The body's parameters say what
// each argument is; outputs reach the op by their names, through the Recipient of ops/functions.h:
//
//   open(m, "dropout", args("x"_a, "out"_a, "mask"_a, "p"_a = 0.5), "out = x * mask / (1 - p) ...",
//        [](Call&, In x, Out, Out, double p) { dropout(x, p, 0, 0); });
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>

#include "ops/common.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace tw {

struct Arr {  // an argument or result that is an array
  PyObject* o = nullptr;
};
struct Sizes : Dims {  // an argument that is an int, a tuple of them, or None (n is -1)
  OptionalDims or_none() const { return n < 0 ? OptionalDims() : OptionalDims(*this); }
};

enum Rule : unsigned {
  kOutput = 1,
  kStrided = 2,   // an output of any strides; inputs that an op would have to copy are refused when it says so
  kInPlace = 4,   // an output that may be the very same view as an input
  kOptional = 8,  // None: of outputs that the op always makes, memory of ours
  kDense = 16,    // an input that is row-major
};

struct Given {
  const char* role;  // "x", "out"
  unsigned rules;
  PyObject* object;
  Array array;
  const char *begin, *end;  // the bytes that it may touch
  bool taken = false;       // by the op
  nb::ndarray<nb::ro> imported;
};

template <unsigned rules> struct Arg {
  Given* given = nullptr;
  explicit operator bool() const { return given; }
  Array* operator->() const { return &given->array; }
  operator Array&() const
    requires(!(rules & kOptional))
  {
    given->taken = true;
    return given->array;
  }
  operator OptionalArray() const
    requires((rules & kOptional) != 0)
  {
    return given ? OptionalArray(given->array) : OptionalArray();
  }
};
using In = Arg<0>;
using Dense = Arg<kDense>;
using OptIn = Arg<kOptional>;
using Out = Arg<kOutput>;
using OptOut = Arg<kOutput | kOptional>;
using StridedOut = Arg<kOutput | kStrided>;

template <unsigned rules> struct ArgList {  // a sequence of arrays, or None in their places; None is an empty one
  std::vector<Given*> items;
  operator Arrays() const {
    Arrays a;
    for (const Given* g : items) a.push_back(g ? OptionalArray(g->array) : OptionalArray());
    return a;
  }
  operator ArrayRefs() const {
    ArrayRefs a;
    for (Given* g : items) {
      TW_CHECK_TYPE(g, "all: the list must hold arrays, got None");
      g->taken = true;
      a.push_back(&g->array);
    }
    return a;
  }
};
using InList = ArgList<0>;
using OutList = ArgList<kOutput>;

class Call final : public Recipient {
 public:
  explicit Call(const char* op) : op(op) { running = op; }
  ~Call();
  Call(const Call&) = delete;
  const char* const op;
  static thread_local const char* running;  // for messages: the function that was called last

  Given* add(const char* role, PyObject* o, unsigned rules);  // it stands still for the whole call
  Value operand(const char* role, PyObject* o);               // a number or an array

  // Runs the op once it is known that the arrays go together; the interpreter is free for others meanwhile.
  template <class F> auto run(F&& body) {
    check();
    struct Scope {
      explicit Scope(Call* c) { recipient = c; }
      ~Scope() { recipient = nullptr; }
    } scope(this);
    std::optional<nb::gil_scoped_release> released;
    if (bytes_ >= kReleaseAt) released.emplace();
    return body();
  }
  void finish();  // what was written is newer now, and everything that was given for a result was
  Arr out() const;

  bool take(const char* role, const Dims& shape, DType t, Array* a) override;
  void refuse_copy(const Array& a, DType t) override;

 private:
  // Bytes from which the interpreter lock is released: some ten microseconds of work, where giving it away and taking
  // it back costs a tenth of one, and the wait for a thread that holds it then may cost far more.
  static constexpr int64_t kReleaseAt = 256 << 10;

  void check() const;
  Given& at(int i) const { return i < kFew ? const_cast<Room&>(few_[i]).given : *more_[static_cast<size_t>(i - kFew)]; }

  static constexpr int kFew = 10;  // on the stack; lists of arrays go on from there
  union Room {
    Room() {}
    ~Room() {}
    Given given;
  };
  Room few_[kFew];
  std::vector<std::unique_ptr<Given>> more_;
  int used_ = 0;
  int64_t bytes_ = 0;
  bool number_ = false;
};

inline auto none(const char* name) { return nb::arg(name) = nb::none(); }  // an argument that may be None, and is

// From what Python passes to what a body takes.
template <class T> struct Taken {
  using Raw = T;
  static T from(Call&, const char*, const T& v) { return v; }
};
template <> struct Taken<Value> {
  using Raw = Arr;
  static Value from(Call& c, const char* role, Arr a) { return c.operand(role, a.o); }
};
template <unsigned rules> struct Taken<Arg<rules>> {
  using Raw = Arr;
  static Arg<rules> from(Call& c, const char* role, Arr a) {
    return {(rules & kOptional) && a.o == Py_None ? nullptr : c.add(role, a.o, rules)};
  }
};
template <unsigned rules> struct Taken<ArgList<rules>> {
  using Raw = nb::object;
  static ArgList<rules> from(Call& c, const char* role, const nb::object& list) {
    ArgList<rules> made;
    if (list.is_none()) return made;
    for (nb::handle item : list) made.items.push_back(item.is_none() ? nullptr : c.add(role, item.ptr(), rules));
    return made;
  }
};

// In paragraphs: the first line, the rest, what every function raises, the example.
std::string help(const char* doc);

template <class F, class C, class R, class... P, class... A>
void open_as(nb::module_& m, const char* op, const std::tuple<A...>& args, const char* doc, F body,
             R (C::*)(Call&, P...) const) {
  static_assert(sizeof...(P) == sizeof...(A), "a parameter of the body for each argument");
  const auto roles = std::apply([](const A&... a) { return std::array<const char*, sizeof...(P)>{a.name_...}; }, args);
  const auto call = [op, body, roles](typename Taken<std::remove_cvref_t<P>>::Raw... raw) {
    Call c(op);
    const auto go = [&]<size_t... I>(std::index_sequence<I...>) {
      std::tuple<Call&, std::remove_cvref_t<P>...> given{c, Taken<std::remove_cvref_t<P>>::from(c, roles[I], raw)...};
      return c.run([&] { return std::apply(body, given); });
    };
    if constexpr (std::is_void_v<R>) {
      go(std::index_sequence_for<P...>{});
      c.finish();
      return c.out();
    } else {
      const auto made = go(std::index_sequence_for<P...>{});
      c.finish();
      return made;
    }
  };
  std::apply([&](const A&... a) { m.def(op, call, a..., help(doc).c_str()); }, args);
}
template <class... A> std::tuple<A...> args(const A&... a) { return {a...}; }
template <class F, class Args>
void open(nb::module_& m, const char* op, const Args& args, const char* doc, const F& body) {
  open_as(m, op, args, doc, body, &F::operator());
}

void open_elementwise(nb::module_& m);
void open_rows(nb::module_& m);
void open_products(nb::module_& m);
void open_samplers(nb::module_& m);

}  // namespace tw

namespace nanobind::detail {

template <> struct type_caster<tw::Arr> {
  NB_TYPE_CASTER(tw::Arr, const_name("Array"))
  bool from_python(handle src, uint32_t, cleanup_list*) noexcept {
    value.o = src.ptr();
    return true;
  }
  static handle from_cpp(tw::Arr a, rv_policy, cleanup_list*) noexcept { return handle(a.o).inc_ref(); }
};

template <> struct type_caster<tw::Sizes> {
  NB_TYPE_CASTER(tw::Sizes, const_name("int | tuple[int, ...]"))
  bool from_python(handle src, uint32_t, cleanup_list*) noexcept;
};

}  // namespace nanobind::detail
