// Scans and orders along one dimension: cumsum and its kin, sort, topk, kthvalue, medians: checks, launches, bindings.
#include "bindings/bind.h"
#include "ops/common.h"

namespace tw {

// --- scans --
std::pair<Array, Array> scan(const std::string& name_, const Array& input, int64_t dim, std::optional<DType> dtype,
                             const std::string& kind, bool reverse) {
  const char* op = name_.c_str();
  const int d = wrap_dim(op, dim, input.ndim());
  ScanArgs a{};
  a.op = kind == "sum"    ? Scan::kSum
         : kind == "prod" ? Scan::kProd
         : kind == "max"  ? Scan::kMax
         : kind == "min"  ? Scan::kMin
                          : Scan::kLogSumExp;
  const bool adds = a.op == Scan::kSum || a.op == Scan::kProd, picks = a.op == Scan::kMax || a.op == Scan::kMin;
  TW_CHECK_TYPE(a.op != Scan::kLogSumExp || is_float(input.dtype()), op, ": must have a floating-point dtype, got ",
                name(input.dtype()));
  const DType wanted = dtype.value_or(adds && !is_float(input.dtype()) ? DType::kInt64 : input.dtype());
  // Cast first, but for what the kernel's own accumulator does as well.
  const bool kernel_casts = adds && !is_float(input.dtype()) && wanted == DType::kInt64;
  const Array x = contiguous(kernel_casts ? input : cast(input, wanted));
  const DType of_kernel = adds && !is_float(x.dtype()) ? DType::kInt64 : x.dtype();
  const Array y = result(op, x.shape(), of_kernel, x.device());
  const Array indices = picks ? result(op, x.shape(), DType::kInt64, x.device(), "indices") : Array();
  if (y.numel() > 0) {
    a.outer = a.inner = 1;
    a.n = x.ndim() ? x.size(d) : 1;
    for (int i = 0; i < d; ++i) a.outer *= x.size(i);
    for (int i = d + 1; i < x.ndim(); ++i) a.inner *= x.size(i);
    a.x = x.raw();
    a.y = y.raw();
    a.indices = picks ? indices.data<int64_t>() : nullptr;
    a.x_dtype = x.dtype();
    a.y_dtype = of_kernel;
    a.reverse = reverse;
    launch(x.device(), slots::scan, a);
  }
  return {cast(y, wanted), indices};
}

namespace {

// --- orders --
// The rows along `dim` as the last dimension of a contiguous array, and results put back.
struct Rows {
  const char* op;
  int d;
  Array x;
  SortArgs a{};

  Rows(const char* name_, const Array& input, int64_t dim) : op(name_), d(wrap_dim(name_, dim, input.ndim())) {
    x = contiguous(input.ndim() ? input.transpose(op, d, input.ndim() - 1) : input);
    a.n = x.ndim() ? x.size(x.ndim() - 1) : 1;
    a.rows = a.n ? x.numel() / a.n : 0;
    TW_CHECK(a.n < INT64_C(1) << 31, op, ": a row may have at most 2^31 - 1 items, got ", a.n);
    a.dtype = x.dtype();
  }

  std::pair<Array, Array> run(const Slot<SortArgs>& slot, int64_t length) {
    Dims shape = x.shape();
    if (shape.n) shape[shape.n - 1] = length;
    Array values = result(op, shape, x.dtype(), x.device());
    Array indices = result(op, shape, DType::kInt64, x.device(), "indices");
    if (values.numel()) {
      a.x = x.raw();
      a.values = values.raw();
      a.indices = indices.data<int64_t>();
      launch(x.device(), slot, a);
    }
    if (x.ndim() && d != x.ndim() - 1) {
      values = contiguous(values.transpose(op, d, x.ndim() - 1));
      indices = contiguous(indices.transpose(op, d, x.ndim() - 1));
    }
    return {values, indices};
  }
};

}  // namespace

std::pair<Array, Array> sort(const std::string& op, const Array& x, int64_t dim, bool descending) {
  Rows r(op.c_str(), x, dim);
  r.a.descending = descending;
  return r.run(slots::sort, r.a.n);
}

std::pair<Array, Array> topk(const Array& x, int64_t k, int64_t dim, bool largest) {
  Rows r("topk", x, dim);
  TW_CHECK(k >= 0 && k <= r.a.n, "topk: k must be in [0, ", r.a.n, "], the size of the dimension, got ", k);
  r.a.k = k;
  r.a.descending = largest;
  return r.run(slots::topk, k);
}

// kind: "kthvalue" (k counts from 1), "median" or "nanmedian".
std::pair<Array, Array> kth(const std::string& kind, const Array& x, int64_t k, int64_t dim, bool keepdim) {
  Rows r(kind.c_str(), x, dim);
  TW_CHECK(r.a.n > 0, kind, ": cannot reduce a dimension of size 0, got shape ", str_of(x.shape()));
  TW_CHECK(kind != "kthvalue" || (k >= 1 && k <= r.a.n), "kthvalue: k must be in [1, ", r.a.n, "], got ", k);
  r.a.k = kind == "kthvalue" ? k - 1 : (r.a.n - 1) / 2;
  r.a.order = kind == "kthvalue" ? Order::kKth : kind == "median" ? Order::kMedian : Order::kNanMedian;
  auto [values, indices] = r.run(slots::kth, 1);
  if (keepdim || x.ndim() == 0) return {values, indices};
  return {values.select(kind.c_str(), r.d, 0), indices.select(kind.c_str(), r.d, 0)};
}

void bind_sort(py::module_& m) {
  m.def("scan", &scan);
  m.def("sort", &sort);
  m.def("topk", &topk);
  m.def("kth", &kth);
}

}  // namespace tw
