// Indexing, random numbers and optimizer steps.
#include <cmath>

#include "bindings/kernels.h"
#include "philox.h"

namespace tw {
namespace {

// --- indexing --
[[noreturn]] void refuse_index(const Call& c, const View& index, int64_t position, int64_t n, int dim) {
  fail<std::out_of_range>(c.op, ": index ", reinterpret_cast<const int64_t*>(index.data)[position],
                          " is out of range for dimension ", dim, " of size ", n, ", at position ", position);
}

const int64_t* indices(const View& v) { return reinterpret_cast<const int64_t*>(v.data); }

void must_add(const Call& c, const View& v) {
  TW_CHECK_TYPE(v.dtype != DType::kBool && !is_half(v.dtype), c.op, ": ", v.role,
                " must be float32, float64 or integer, in which sums are exact or float32, got ", name(v.dtype));
}

// The shape of `whole` with dimension `dim` replaced by the index's dimensions.
Dims taken(const Call& c, const View& whole, int dim, const View& index) {
  TW_CHECK(whole.ndim() > 0 && whole.ndim() - 1 + index.ndim() <= kMaxDims, c.op, ": ", whole.role,
           " must have a dimension, and the result at most ", kMaxDims, ", got ", str_of(whole.shape), " and index ",
           str_of(index.shape));
  Dims to(whole.shape.d, dim);
  for (int i = 0; i < index.ndim(); ++i) to.push(index.size(i));
  for (int i = dim + 1; i < whole.ndim(); ++i) to.push(whole.size(i));
  return to;
}

Arr run_take(Call& c, const Slot<TakeArgs>& slot, const View& x, const View& index, const View& out, const View& whole,
             int dim) {
  const Parts p(whole.shape, dim);
  auto* bad = c.temporary<int64_t>(1);
  *bad = -1;
  if (index.numel > 0 && p.outer * p.inner > 0)
    c.launch(slot, TakeArgs{x.data, indices(index), out.data, p.outer, p.n, p.inner, index.numel, 0, bad, x.dtype});
  if (*bad >= 0) refuse_index(c, index, *bad, p.n, dim);
  return {out.object.ptr()};
}

Arr take(Arr x_, Arr index_, Arr out_, int64_t dim) {
  Call c("take");
  const View& x = c.input("x", x_);
  const int d = c.dim(dim, x);
  const View& index = c.input("index", index_, kDense | kLabel);
  const View& out = c.output("out", out_, taken(c, x, d, index), x.dtype);
  return run_take(c, slots::take, x, index, out, x, d);
}

Arr take_backward(Arr dy_, Arr index_, Arr out_, int64_t dim) {
  Call c("take_backward");
  const View& out = c.output("out", out_);
  must_add(c, out);
  const int d = c.dim(dim, out);
  const View& index = c.input("index", index_, kDense | kLabel);
  const View& dy = c.input("dy", dy_, taken(c, out, d, index), out.dtype);
  return run_take(c, slots::take_backward, dy, index, out, out, d);
}

// `along` is the array that dim runs along whole; the other one has the index's shape.
Arr run_along(Call& c, const Slot<GatherArgs>& slot, const View& x, const View& index, const View& out,
              const View& along, int64_t dim, bool add) {
  const int d = c.dim(dim, along);
  Dims expected = along.shape;
  if (index.ndim() == along.ndim() && index.ndim() > 0) expected[d] = index.size(d);
  TW_CHECK(index.shape == expected, c.op, ": index must have ", along.role, "'s shape except along dim, got ",
           str_of(index.shape), " and ", str_of(along.shape));
  const Parts p(index.shape, d);
  const int64_t n = along.ndim() ? along.size(d) : 1;
  auto* bad = c.temporary<int64_t>(1);
  *bad = -1;
  if (index.numel > 0)
    c.launch(slot, GatherArgs{x.data, indices(index), out.data, p.outer, n, p.inner, p.n, bad, add, x.dtype});
  if (*bad >= 0) refuse_index(c, index, *bad, n, d);
  return {out.object.ptr()};
}

Arr gather(Arr x_, Arr index_, Arr out_, int64_t dim) {
  Call c("gather");
  const View& x = c.input("x", x_);
  const View& index = c.input("index", index_, kDense | kLabel);
  const View& out = c.output("out", out_, index.shape, x.dtype);
  return run_along(c, slots::gather, x, index, out, x, dim, false);
}

Arr scatter(Arr x_, Arr index_, Arr out_, int64_t dim, bool add) {
  Call c("scatter");
  const View& out = c.output("out", out_);
  if (add) must_add(c, out);
  const View& index = c.input("index", index_, kDense | kLabel);
  const View& x = c.input("x", x_, index.shape, out.dtype);
  return run_along(c, slots::scatter, x, index, out, out, dim, add);
}

// Several index arrays at once: `whole` is the indexed array, `dense` the result (index) or the values (index_put),
// whose shape has the index arrays' common dimensions where the first of them stands, or first of all when other
// dimensions lie between them, as in NumPy.
Arr run_index(Call& c, const Slot<IndexArgs>& slot, const View& whole, nb::sequence given, Arr dense_, bool add) {
  IndexArgs a{};
  const View* first = nullptr;
  int at = -1, last = -1, n = 0;
  bool indexed[kMaxDims] = {};
  for (nb::handle item : given) {
    TW_CHECK_INDEX(n < whole.ndim(), c.op, ": too many indices for shape ", str_of(whole.shape));
    if (!item.is_none()) {
      const View& index = c.input("indices", Arr{item.ptr()}, kDense | kLabel);
      if (first) c.must_have_shape(index, first->shape);
      else first = &index, at = n;
      a.index[a.indexed] = indices(index);
      a.sizes[a.indexed] = whole.size(n);
      a.strides[a.indexed++] = whole.strides[n];
      indexed[n] = true;
      last = n;
    }
    ++n;
  }
  TW_CHECK_INDEX(first, c.op, ": expects at least one index array");
  const int place = last - at + 1 == a.indexed ? at : 0;
  TW_CHECK(first->ndim() + whole.ndim() - a.indexed <= kMaxDims, c.op, ": at most ", kMaxDims, " dimensions, got ",
           first->ndim() + whole.ndim() - a.indexed);
  Dims shape;
  int slices = 0;
  for (int i = 0; i <= whole.ndim(); ++i) {
    if (slices == place && (i == whole.ndim() || !indexed[i] || place == 0) && shape.n == slices)
      for (int k = 0; k < first->ndim(); ++k) shape.push(first->size(k));
    if (i < whole.ndim() && !indexed[i]) {
      shape.push(whole.size(i));
      ++slices;
    }
  }
  const bool put = &slot == &slots::index_put;
  const View& dense = put ? c.input("values", dense_, shape, whole.dtype) : c.output("out", dense_, shape, whole.dtype);
  a.x = put ? dense.data : whole.data;
  a.y = put ? whole.data : dense.data;
  a.count = first->numel;
  a.dense_stride = first->ndim() ? dense.strides[place + first->ndim() - 1] : 0;
  for (int i = 0; i < whole.ndim(); ++i) {
    if (indexed[i]) continue;
    const int s = a.slice_ndim++;
    a.slice_shape[s] = whole.size(i);
    a.slice_strides[s] = whole.strides[i];
    a.dense_slice_strides[s] = dense.strides[s < place ? s : s + first->ndim()];
  }
  a.bad = c.temporary<int64_t>(1);
  *a.bad = -1;
  a.add = add;
  a.dtype = whole.dtype;
  if (dense.numel > 0) c.launch(slot, a);
  for (int i = 0, k = 0; *a.bad >= 0 && i < whole.ndim(); ++i) {
    if (!indexed[i]) continue;
    const int64_t value = a.index[k++][*a.bad];
    if (value < -whole.size(i) || value >= whole.size(i))
      fail<std::out_of_range>(c.op, ": index ", value, " is out of range for dimension ", i, " of size ", whole.size(i),
                              ", at position ", *a.bad);
  }
  return {put ? whole.object.ptr() : dense.object.ptr()};
}

Arr index(Arr x_, nb::sequence given, Arr out) {
  Call c("index");
  const View& x = c.input("x", x_, kAny);
  return run_index(c, slots::index, x, given, out, false);
}

Arr index_put(Arr values, nb::sequence given, Arr out_, bool add) {
  Call c("index_put");
  const View& out = c.output("out", out_, kAny);
  if (add) must_add(c, out);
  return run_index(c, slots::index_put, out, given, values, add);
}

// --- random numbers --
uint64_t draw(Call& c, const Slot<RandomArgs>& slot, Arr out_, int words, RandomArgs a, bool floats = true) {
  const View& out = c.output("out", out_, floats ? kDense | kFloat : kDense);
  a.y = out.data;
  a.dtype = out.dtype;
  a.n = out.numel;
  if (words == 0) words = philox_words_of(out.dtype);
  TW_CHECK_TYPE(&slot != &slots::randint || is_integer(out.dtype), c.op, ": out must have an integer dtype, got ",
                name(out.dtype));
  c.run(slot, a, out);
  return a.offset + philox_groups(words, out.numel);
}

uint64_t uniform(Arr out, double low, double high, uint64_t seed, uint64_t offset) {
  Call c("uniform");
  TW_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high,
           "uniform: bounds must be finite and in order, got ", low, " and ", high);
  return draw(c, slots::uniform, out, 0, {nullptr, {}, 0, seed, offset, low, high, 0, 0});
}

uint64_t normal(Arr out, double mean, double std, uint64_t seed, uint64_t offset) {
  Call c("normal");
  TW_CHECK(std >= 0, "normal: std must not be negative, got ", std);
  return draw(c, slots::normal, out, 0, {nullptr, {}, 0, seed, offset, mean, std, 0, 0});
}

uint64_t bernoulli(Arr out, double p, uint64_t seed, uint64_t offset) {
  Call c("bernoulli");
  TW_CHECK(p >= 0 && p <= 1, "bernoulli: p must be in [0, 1], got ", p);
  return draw(c, slots::bernoulli, out, 1, {nullptr, {}, 0, seed, offset, p, 0, 0, 0}, false);
}

uint64_t randint(Arr out, int64_t low, int64_t high, uint64_t seed, uint64_t offset) {
  Call c("randint");
  TW_CHECK(low < high, "randint: low must be below high, got ", low, " and ", high);
  return draw(c, slots::randint, out, 2, {nullptr, {}, 0, seed, offset, 0, 0, low, high}, false);
}

uint64_t dropout(Arr x_, Arr out_, Arr mask_, double p, uint64_t seed, uint64_t offset) {
  Call c("dropout");
  TW_CHECK(p >= 0 && p <= 1, "dropout: p must be in [0, 1], got ", p);
  const View& x = c.input("x", x_, kDense | kFloat);
  const View& out = c.output("out", out_, x);
  const View& mask = c.output("mask", mask_, x.shape, DType::kUInt8);
  c.run(slots::dropout, DropoutArgs{x.data, out.data, mask.data, x.dtype, x.numel, seed, offset, p}, out);
  return offset + philox_groups(1, x.numel);
}

// --- optimizer steps --
// The launch's list: params first; then each further list fits them one by one.
class Steps {
 public:
  Steps(Call& c, nb::sequence params) : c_(c) {
    for (nb::handle p : params) params_.push_back(&c.output("params", Arr{p.ptr()}, kDense | kFloat));
    tensors_ = c.temporary<OptimTensor>(count());
    for (size_t i = 0; i < params_.size(); ++i)
      tensors_[i] = {params_[i]->data, nullptr, nullptr, nullptr, nullptr, params_[i]->numel, params_[i]->dtype};
  }
  bool state(const char* role, nb::object list, void* OptimTensor::*field) {
    return !list.is_none() && read(role, list, [&](size_t i, const char* r, Arr a, DType t) {
      const DType dtype = is_half(t) ? DType::kFloat32 : t;
      tensors_[i].*field = c_.output(r, a, params_[i]->shape, dtype).data;
    });
  }
  void grads(nb::object list) {
    read("grads", list, [&](size_t i, const char* r, Arr a, DType t) {
      tensors_[i].grad = c_.input(r, a, params_[i]->shape, t).data;
    });
  }
  int64_t count() const { return static_cast<int64_t>(params_.size()); }
  const OptimTensor* list() const { return tensors_; }

 private:
  template <class F> bool read(const char* role, nb::object list, F&& each) {
    const size_t n = nb::len(list);
    TW_CHECK(n == params_.size(), c_.op, ": there must be one of ", role, " a parameter, got ", n, " for ",
             params_.size());
    size_t i = 0;
    for (nb::handle a : list) {
      each(i, role, Arr{a.ptr()}, params_[i]->dtype);
      ++i;
    }
    return true;
  }

  Call& c_;
  std::vector<const View*> params_;
  OptimTensor* tensors_;
};

void sgd_step(nb::sequence params, nb::object grads, nb::object momentum_buffers, double lr, double momentum,
              double dampening, double weight_decay, bool nesterov, bool maximize, bool first) {
  Call c("sgd_step");
  Steps s(c, params);
  s.grads(grads);
  const bool buffers = s.state("momentum_buffers", momentum_buffers, &OptimTensor::state0);
  TW_CHECK(buffers || momentum == 0, "sgd_step: momentum needs momentum_buffers, got momentum ", momentum);
  if (s.count())
    c.launch(slots::sgd_step,
             SgdArgs{s.list(), s.count(), lr, momentum, dampening, weight_decay, nesterov, maximize, first});
}

void adam_step(const char* op, nb::sequence params, nb::object grads, nb::object exp_avgs, nb::object exp_avg_sqs,
               int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
               nb::object max_exp_avg_sqs, bool maximize, bool decoupled) {
  Call c(op);
  TW_CHECK(step >= 1, op, ": step must be >= 1, got ", step);
  Steps s(c, params);
  s.grads(grads);
  s.state("exp_avgs", exp_avgs, &OptimTensor::state0);
  s.state("exp_avg_sqs", exp_avg_sqs, &OptimTensor::state1);
  const bool largest = s.state("max_exp_avg_sqs", max_exp_avg_sqs, &OptimTensor::state2);
  if (s.count())
    c.launch(slots::adam_step,
             AdamArgs{s.list(), s.count(), step, lr, beta1, beta2, eps, weight_decay, decoupled, largest, maximize});
}

}  // namespace

void bind_data(nb::module_& m) {
  const auto x = nb::arg("x"), index_ = nb::arg("index"), out = nb::arg("out");
  m.def("take", &take, x, index_, out, nb::arg("dim") = 0,
        R"(out = x's rows along dim by index: x.shape with dimension dim replaced by index.shape.

x: any dtype. index: int64, each in [0, x.shape[dim]). All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim, or an index out
of range, when out is not written.

>>> x = np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.take(x, np.array([1, 1]), out=np.empty((2, 2), np.float32)).tolist()
[[3.0, 4.0], [3.0, 4.0]]
)");
  m.def("take_backward", &take_backward, nb::arg("dy"), index_, out, nb::arg("dim") = 0,
        R"(out += dy's rows, each added to the row of out along dim that index names, in the order of the index.

out: float32, float64 or integers. index: int64. dy: out.shape with dimension dim replaced by index.shape. All
contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim, or an index out
of range, when out is not written.

>>> kernels.take_backward(np.ones((3, 1)), np.array([0, 2, 0]), out=np.zeros((3, 1))).tolist()
[[2.0], [0.0], [1.0]]
)");
  m.def("gather", &gather, x, index_, out, nb::arg("dim"),
        R"(out[i, j] = x[index[i, j], j] for dim 0, and so on along any one dimension.

index: int64, of x's shape except along dim. out: index's shape, x's dtype. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim, or an index out
of range, when out is not written.

>>> x = np.array([[1, 2], [3, 4]], np.float32)
>>> kernels.gather(x, np.array([[1, 0]]), out=np.empty((1, 2), np.float32), dim=0).tolist()
[[3.0, 2.0]]
)");
  m.def("scatter", &scatter, x, index_, out, nb::arg("dim"), nb::arg("add") = false,
        R"(out[index[i, j], j] = x[i, j] for dim 0, and so on along any one dimension; the last of equal indices wins.

add: adds instead, in the order of the index; then float32, float64 or integers. index: int64, of out's shape except
along dim. x: index's shape, out's dtype. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim, or an index out
of range, when out is not written.

>>> kernels.scatter(np.ones(3), np.array([0, 0, 1]), out=np.zeros(2), dim=0, add=True).tolist()
[2.0, 1.0]
)");
  m.def("index", &index, x, nb::arg("indices"), out,
        R"(out = x[indices], for a sequence of int64 arrays of one shape, and None for a whole dimension.

x: any strides. Negative indices count from the end. out: contiguous, with NumPy's shape for x[indices].

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: an index out of
range, when out is not written.

>>> x = np.arange(6.0).reshape(2, 3)
>>> kernels.index(x, [np.array([1, 0]), np.array([-1, 0])], out=np.empty(2)).tolist()
[5.0, 0.0]
)");
  m.def("index_put", &index_put, nb::arg("values"), nb::arg("indices"), out, nb::arg("accumulate") = false,
        R"(out[indices] = values, for a sequence of int64 arrays of one shape, and None for a whole dimension.

accumulate: adds instead, in the order of the indices; then float32, float64 or integers. out: any strides. values:
contiguous, with NumPy's shape for out[indices]. Negative indices count from the end; the last of equal ones wins.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: an index out of
range, when out is not written.

>>> kernels.index_put(np.ones(2), [np.array([0, -1])], out=np.zeros(3)).tolist()
[1.0, 0.0, 1.0]
)");
  const auto seed = nb::arg("seed"), offset = nb::arg("offset");
  m.def("uniform", &uniform, out, nb::arg("low") = 0.0, nb::arg("high") = 1.0, seed = uint64_t{0}, offset = uint64_t{0},
        R"(Fills out with uniform numbers in [low, high), and returns the offset of the next draw.

out: floats, contiguous. Philox 4x32-10 (Salmon et al., SC 2011): the same seed and offset give the same numbers on any
machine and any number of threads.

Raises: ValueError: bounds, layout, read-only memory. TypeError: dtype.

>>> x = np.empty(5, np.float32)
>>> kernels.uniform(x, seed=7, offset=10)
12
)");
  m.def("normal", &normal, out, nb::arg("mean") = 0.0, nb::arg("std") = 1.0, seed = uint64_t{0}, offset = uint64_t{0},
        R"(Fills out with normal numbers (Box-Muller over Philox), and returns the offset of the next draw.

out: floats, contiguous.

Raises: ValueError: a negative std, layout, read-only memory. TypeError: dtype.

>>> x = np.empty(4)
>>> kernels.normal(x, mean=3.0, std=0.0, seed=1)
2
>>> x.tolist()
[3.0, 3.0, 3.0, 3.0]
)");
  m.def("bernoulli", &bernoulli, out, nb::arg("p") = 0.5, seed = uint64_t{0}, offset = uint64_t{0},
        R"(Fills out with ones of probability p, and zeros; returns the offset of the next draw.

out: any dtype, contiguous.

Raises: ValueError: p, layout, read-only memory.

>>> x = np.empty(4, np.uint8)
>>> kernels.bernoulli(x, p=1.0)
1
>>> x.tolist()
[1, 1, 1, 1]
)");
  m.def("randint", &randint, out, nb::arg("low"), nb::arg("high"), seed = uint64_t{0}, offset = uint64_t{0},
        R"(Fills out with integers of [low, high), each equally likely, and returns the offset of the next draw.

out: integers, contiguous.

Raises: ValueError: bounds, layout, read-only memory. TypeError: dtype.

>>> x = np.empty(4, np.int64)
>>> kernels.randint(x, 5, 6)
2
>>> x.tolist()
[5, 5, 5, 5]
)");
  m.def("dropout", &dropout, x, out, nb::arg("mask"), nb::arg("p") = 0.5, seed = uint64_t{0}, offset = uint64_t{0},
        R"(out = x * mask / (1 - p), with mask 0 of probability p and else 1; returns the offset of the next draw.

x, out: one shape and float dtype. mask: uint8 of x's shape, written. All contiguous.

Raises: ValueError: p, shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.ones(8, np.float32)
>>> kernels.dropout(x, out=np.empty_like(x), mask=np.empty(8, np.uint8), p=0.25, seed=3)
2
)");
  const auto params = nb::arg("params"), grads = nb::arg("grads"), none = nb::arg("maximize");
  m.def("sgd_step", &sgd_step, params, grads, nb::arg("momentum_buffers") = nb::none(), nb::arg("lr") = 1e-3,
        nb::arg("momentum") = 0.0, nb::arg("dampening") = 0.0, nb::arg("weight_decay") = 0.0,
        nb::arg("nesterov") = false, none = false, nb::arg("first") = false,
        R"(One step of stochastic gradient descent over a whole list of parameters, in place, in one launch.

g = grad + weight_decay p;  v = momentum v + (1 - dampening) g, or g when first;  p -= lr v  (nesterov: lr (g + momentum
v)); without momentum p -= lr g. Sutskever et al., ICML 2013, in PyTorch's form.

params, grads, momentum_buffers: sequences of contiguous float arrays, a gradient and a buffer for each parameter, of
its shape and dtype; the buffers of float16 and bfloat16 parameters are float32.

Raises: ValueError: lengths, shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> p = np.ones(2)
>>> kernels.sgd_step([p], [np.array([1.0, 2.0])], lr=0.5)
>>> p.tolist()
[0.5, 0.0]
)");
  const auto define_adam = [&](const char* op, bool decoupled, double weight_decay, const char* doc) {
    m.def(
        op,
        [op, decoupled](nb::sequence params, nb::object grads, nb::object exp_avgs, nb::object exp_avg_sqs,
                        int64_t step, double lr, double beta1, double beta2, double eps, double weight_decay,
                        nb::object max_exp_avg_sqs, bool maximize) {
          adam_step(op, params, grads, exp_avgs, exp_avg_sqs, step, lr, beta1, beta2, eps, weight_decay,
                    max_exp_avg_sqs, maximize, decoupled);
        },
        params, grads, nb::arg("exp_avgs"), nb::arg("exp_avg_sqs"), nb::arg("step"), nb::arg("lr") = 1e-3,
        nb::arg("beta1") = 0.9, nb::arg("beta2") = 0.999, nb::arg("eps") = 1e-8, nb::arg("weight_decay") = weight_decay,
        nb::arg("max_exp_avg_sqs") = nb::none(), none = false, doc);
  };
  define_adam("adam_step", false, 0.0, R"(One step of Adam over a whole list of parameters, in place, in one launch.

g = grad + weight_decay p;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
p -= lr / (1 - beta1^step) m / (sqrt(v / (1 - beta2^step)) + eps). Kingma & Ba, arXiv:1412.6980.

params, grads, exp_avgs (m), exp_avg_sqs (v), max_exp_avg_sqs (amsgrad, the largest v): sequences of contiguous float
arrays, one each for a parameter, of its shape and dtype; the states of float16 and bfloat16 parameters are float32.

Raises: ValueError: lengths, shapes, layout, overlapping or read-only memory, step < 1. TypeError: dtypes.

>>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
>>> kernels.adam_step([p], [np.array([3.0])], [m], [v], step=1, lr=0.5, eps=0)
>>> p.tolist()
[0.5]
)");
  define_adam("adamw_step", true, 1e-2, R"(One step of AdamW over a whole list of parameters, in place, in one launch.

p *= 1 - lr weight_decay, then Adam's step (adam_step) without decay. Loshchilov & Hutter, arXiv:1711.05101.

The arguments are adam_step's.

Raises: ValueError: lengths, shapes, layout, overlapping or read-only memory, step < 1. TypeError: dtypes.

>>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
>>> kernels.adamw_step([p], [np.array([3.0])], [m], [v], step=1, lr=0.5, weight_decay=1, eps=0)
>>> p.tolist()
[0.0]
)");
}

}  // namespace tw
