// Scans and orders along one dimension.
#include "bindings/kernels.h"

namespace tw {
namespace {

// Where a kernel says which items it chose: written always, so into memory of ours where the caller wants none.
int64_t* positions(Call& c, Arr indices, const View& out) {
  return indices.given() ? reinterpret_cast<int64_t*>(c.output("indices", indices, out.shape, DType::kInt64).data)
                         : c.temporary<int64_t>(out.numel);
}

template <class Enum, size_t n>
Enum choice(const Call& c, const char* role, std::string_view given, const char* const (&names)[n]) {
  std::string all;
  for (size_t i = 0; i < n; ++i) {
    if (given == names[i]) return static_cast<Enum>(i);
    all += str(i == 0 ? "" : i + 1 < n ? ", " : " or ", names[i]);
  }
  fail<std::invalid_argument>(c.op, ": ", role, " must be ", all, ", got '", given, "'");
}

Arr scan(Arr x_, Arr out_, int64_t dim, const char* op, bool reverse, Arr indices) {
  Call c("scan");
  ScanArgs a{};
  a.op = choice<Scan>(c, "op", op, {"sum", "prod", "max", "min", "logsumexp"});
  const bool adds = a.op == Scan::kSum || a.op == Scan::kProd, picks = a.op == Scan::kMax || a.op == Scan::kMin;
  TW_CHECK(!reverse || a.op == Scan::kSum, "scan: only a sum goes in reverse, got op '", op, "'");
  TW_CHECK(picks || !indices.given(), "scan: only max and min have indices, got op '", op, "'");
  const View& x = c.input("x", x_, a.op == Scan::kLogSumExp ? kDense | kFloat : kDense);
  const View& out = c.output("out", out_);
  c.must_have_shape(out, x.shape);
  c.must_have_dtype(out, adds && !is_float(x.dtype) ? DType::kInt64 : x.dtype);
  const Parts p(x.shape, c.dim(dim, x));
  a.x = x.data;
  a.y = out.data;
  if (picks) a.indices = positions(c, indices, out);
  a.outer = p.outer;
  a.n = p.n;
  a.inner = p.inner;
  a.x_dtype = x.dtype;
  a.y_dtype = out.dtype;
  a.reverse = reverse;
  return c.run(slots::scan, a, out);
}

// The rows of x, which are its last dimension.
SortArgs rows_of(const Call& c, const View& x) {
  SortArgs a{};
  a.x = x.data;
  a.n = x.ndim() ? x.size(x.ndim() - 1) : 1;
  a.rows = a.n ? x.numel / a.n : 0;
  a.dtype = x.dtype;
  TW_CHECK(a.n < INT64_C(1) << 31, c.op, ": a row may have at most 2^31 - 1 items, got ", a.n);
  return a;
}

Arr run_order(Call& c, const Slot<SortArgs>& slot, SortArgs a, const View& out, Arr indices) {
  a.values = out.data;
  a.indices = positions(c, indices, out);
  return c.run(slot, a, out);
}

Arr sort(Arr x_, Arr out_, Arr indices, bool descending) {
  Call c("sort");
  const View& x = c.input("x", x_);
  const View& out = c.output("out", out_, x);
  SortArgs a = rows_of(c, x);
  a.descending = descending;
  return run_order(c, slots::sort, a, out, indices);
}

Arr topk(Arr x_, Arr out_, Arr indices, bool largest) {
  Call c("topk");
  const View& x = c.input("x", x_);
  const View& out = c.output("out", out_);
  SortArgs a = rows_of(c, x);
  a.descending = largest;
  Dims shape = x.shape;
  if (x.ndim() > 0 && out.ndim() == x.ndim()) shape[x.ndim() - 1] = out.size(x.ndim() - 1);
  c.must_have_shape(out, shape);
  c.must_have_dtype(out, x.dtype);
  a.k = x.ndim() ? shape[x.ndim() - 1] : 1;
  TW_CHECK(a.k <= a.n, "topk: k, out's last size, must be in [0, ", a.n, "], the size of the rows, got ", a.k);
  return run_order(c, slots::topk, a, out, indices);
}

Arr kth(Arr x_, Arr out_, int64_t k, Arr indices, const char* order) {
  Call c("kth");
  const View& x = c.input("x", x_);
  const View& out = c.output("out", out_);
  SortArgs a = rows_of(c, x);
  a.order = choice<Order>(c, "order", order, {"kth", "median", "nanmedian"});
  TW_CHECK(a.n > 0, "kth: cannot reduce a dimension of size 0, got shape ", str_of(x.shape));
  TW_CHECK(a.order != Order::kKth || (k >= 1 && k <= a.n), "kth: k must be in [1, ", a.n, "], got ", k);
  a.k = a.order == Order::kKth ? k - 1 : (a.n - 1) / 2;
  Dims shape(x.shape.d, x.ndim() ? x.ndim() - 1 : 0);
  if (x.ndim() > 0 && out.ndim() == x.ndim()) shape.push(1);
  c.must_have_shape(out, shape);
  c.must_have_dtype(out, x.dtype);
  return run_order(c, slots::kth, a, out, indices);
}

}  // namespace

void bind_orders(nb::module_& m) {
  const auto x = nb::arg("x"), out = nb::arg("out");
  const auto indices = nb::arg("indices").none() = nb::none();
  m.def("scan", &scan, x, out, nb::arg("dim") = -1, nb::arg("op") = "sum", nb::arg("reverse") = false, indices,
        R"(out[i] = x[0] (op) ... (op) x[i] along dim, for op sum, prod, max, min or logsumexp.

x: any dtype, floats for logsumexp. out: x's shape and dtype, but int64 for sums and products of integers and bool;
halves add in float32. reverse: sums from i to the end. indices (int64), where given: the positions of max and min, of
equals the last. All contiguous.

Raises: ValueError: op, shapes, layout, overlapping or read-only memory. TypeError: dtypes. IndexError: dim.

>>> x = np.array([[1, 2, 3]], np.float32)
>>> kernels.scan(x, out=np.empty_like(x)).tolist()
[[1.0, 3.0, 6.0]]
)");
  m.def("sort", &sort, x, out, indices, nb::arg("descending") = false,
        R"(out = x's rows (its last dimension) in order; NaN is the largest value, and equals keep their order.

x, out: any one dtype and shape. indices (int64), where given: where the values stood. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x, at = np.array([3, 1, 2], np.float32), np.empty(3, np.int64)
>>> kernels.sort(x, out=np.empty_like(x), indices=at).tolist(), at.tolist()
([1.0, 2.0, 3.0], [1, 2, 0])
)");
  m.def("topk", &topk, x, out, indices, nb::arg("largest") = true,
        R"(out (..., k) = the k largest, or smallest, of x's rows (its last dimension), in order.

x, out: any one dtype. indices (int64), where given: where the values stood. NaN is the largest value; of equals the
first come first. All contiguous.

Raises: ValueError: shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> kernels.topk(np.array([3.0, 1.0, 2.0]), out=np.empty(2)).tolist()
[3.0, 2.0]
)");
  m.def("kth", &kth, x, out, nb::arg("k") = 1, indices, nb::arg("order") = "kth",
        R"(out = the k-th smallest, k from 1, of x's rows (its last dimension), or their lower median.

order: kth; median, NaN where there is one; or nanmedian, of what is not NaN; medians do not read k. x, out: any one
dtype; out: x's shape without the last dimension, or with a size of 1. indices (int64), where given: where the values
stand. All contiguous.

Raises: ValueError: k, order, shapes, layout, overlapping or read-only memory. TypeError: dtypes.

>>> x = np.array([[3.0, 1.0, 2.0, 4.0]])
>>> kernels.kth(x, out=np.empty(1), k=3).tolist(), kernels.kth(x, out=np.empty(1), order="median").tolist()
([3.0], [2.0])
)");
}

}  // namespace tw
