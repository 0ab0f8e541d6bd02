// The module tilewright._kernels: each kernel as a function over anybody's arrays (DLPack or the buffer protocol).
//
// A function takes its arrays through a Call, which checks them and words every refusal, fills its kernel's struct, and
// runs it:
//
//   Arr softmax(Arr x_, Arr out, int64_t dim) {
//     Call c("softmax");
//     const View& x = c.input("x", x_, kFloat | kDense);
//     const View& y = c.output("out", out, x, kInPlace);   // x's shape and dtype; may be x itself
//     ...
//     return c.run(slots::softmax, args, y);               // overlap, launch, versions
//   }
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <vector>

#include "bindings/table_api.h"
#include "check.h"

namespace nb = nanobind;

namespace tw {

extern const TableApi* api;

struct Arr {  // an argument or result that is an array
  PyObject* o = nullptr;
  bool given() const { return o && o != Py_None; }
};
struct Sizes : Dims {};  // an argument that is an int, a tuple of them, or None (n is -1)

// What a function asks of an array.
enum Rule : unsigned {
  kAny = 0,
  kDense = 1,    // row-major and without gaps
  kFloat = 2,    // a floating-point dtype
  kLabel = 4,    // int64
  kInPlace = 8,  // an output that may be the very same view as an input
};

struct View {
  const char* role;  // "x", "out"
  char* data;
  DType dtype;
  Device device;
  bool readonly, dense, written = false, in_place = false;
  int64_t numel, bytes;  // bytes: from the first element to past the last
  Dims shape, strides;   // strides in elements
  nb::object object;     // the argument
  nb::object ours;       // its _engine.Array, where it is tilewright's
  nb::ndarray<nb::ro> imported;

  int ndim() const { return shape.n; }
  int64_t size(int i) const { return shape.d[i]; }
};

struct Parts {  // a shape cut at one dimension
  int64_t outer = 1, n = 1, inner = 1;
  Parts(const Dims& shape, int dim) {
    for (int i = 0; i < shape.n; ++i) (i < dim ? outer : i == dim ? n : inner) *= shape[i];
  }
};

class Call {
 public:
  explicit Call(const char* op) : op(op) {}
  const char* const op;

  // The views stand still: pointers to them hold for the whole call.
  const View& input(const char* role, Arr a, unsigned rules = kDense) { return add(role, a, rules, false); }
  const View& output(const char* role, Arr a, unsigned rules = kDense) { return add(role, a, rules, true); }
  // With another one's shape and dtype.
  const View& input(const char* role, Arr a, const View& like, unsigned rules = kDense) {
    return matching(add(role, a, rules, false), like);
  }
  const View& output(const char* role, Arr a, const View& like, unsigned rules = kDense) {
    return matching(add(role, a, rules, true), like);
  }
  // Of one shape and dtype; `rule` says the shape in the message, such as "(C,)".
  const View& input(const char* role, Arr a, const Dims& shape, DType dtype, unsigned rules = kDense) {
    return fitting(add(role, a, rules, false), shape, dtype);
  }
  const View& output(const char* role, Arr a, const Dims& shape, DType dtype, unsigned rules = kDense) {
    return fitting(add(role, a, rules, true), shape, dtype);
  }

  int dim(int64_t d, const View& v) const { return wrap_dim(op, d, v.ndim()); }
  void must_have_shape(const View& v, const Dims& shape) const;
  void must_have_dtype(const View& v, DType dtype) const;

  // Memory for a kernel's side results that the caller did not ask for; a plan being recorded keeps it.
  void* temporary(int64_t bytes);
  template <class T> T* temporary(int64_t n) { return static_cast<T*>(temporary(n * int64_t(sizeof(T)))); }

  // Launches unless the result is empty, and gives the result back. Throws what is wrong with the arrays together.
  template <class Args> Arr run(const Slot<Args>& slot, const Args& args, const View& result) {
    if (result.numel > 0) launch(slot, args);
    return Arr{result.object.ptr()};
  }
  template <class Args> void launch(const Slot<Args>& slot, const Args& args) {
    const KernelTable* table = prepare();
    auto kernel = table->*slot.member;
    TW_CHECK_AS(NotImplemented, kernel, op, ": no kernel on ", table->name);
    if (api->recording()) {
      keep();
      api->record(slot.name, &Plan::call_kernel<Args>, reinterpret_cast<void (*)()>(kernel), &args, sizeof(Args));
    }
    if (work_ < kReleaseAt) {
      kernel(args);
    } else {
      nb::gil_scoped_release released;
      kernel(args);
    }
    for (int i = 0; i < used_; ++i)
      if (at(i).written && at(i).ours.is_valid()) api->written(at(i).ours.ptr());
  }

 private:
  // Bytes from which the interpreter lock is released: some ten microseconds of work, where giving it away and taking
  // it back costs a tenth of one, and the wait for a thread that holds it then may cost far more.
  static constexpr int64_t kReleaseAt = 256 << 10;

  const View& add(const char* role, Arr a, unsigned rules, bool written);
  const View& matching(const View& v, const View& like) const;
  const View& fitting(const View& v, const Dims& shape, DType dtype) const;
  const KernelTable* prepare();  // the last checks
  void keep();

  static constexpr int kFew = 12;  // on the stack; lists of arrays go on from there
  View few_[kFew];
  std::vector<std::unique_ptr<View>> more_;
  int used_ = 0;
  View& at(int i) { return i < kFew ? few_[i] : *more_[static_cast<size_t>(i - kFew)]; }
  std::vector<std::unique_ptr<char[]>> temporaries_;
  int64_t work_ = 0;
};

inline void* data(const View* v) { return v ? v->data : nullptr; }
inline DType accumulator(DType t) { return t == DType::kFloat64 ? t : DType::kFloat32; }  // of a float's sums

void bind_elementwise(nb::module_& m);
void bind_rows(nb::module_& m);
void bind_products(nb::module_& m);
void bind_sequences(nb::module_& m);
void bind_data(nb::module_& m);
void bind_orders(nb::module_& m);

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
  static handle from_cpp(const tw::Sizes& s, rv_policy, cleanup_list*) noexcept;
};

}  // namespace nanobind::detail
