#include "tensor/dims.h"

#include <algorithm>

#include "check.h"

namespace tw {

std::string str_of(const Dims& dims) {
  std::string s = "(";
  for (int i = 0; i < dims.n; ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + (dims.n == 1 ? ",)" : ")");
}

int64_t checked_numel(const char* op, const Dims& shape) {
  int64_t n = 1;
  bool overflow = false, zero = false;
  for (int i = 0; i < shape.n; ++i) {
    TW_CHECK(shape[i] >= 0, op, ": sizes must not be negative, got ", str_of(shape));
    zero |= shape[i] == 0;
    overflow |= __builtin_mul_overflow(n, shape[i], &n);
  }
  if (zero) return 0;
  // Room for the largest item size, so that byte counts and strides cannot overflow either.
  TW_CHECK_AS(std::overflow_error, !overflow && n <= INT64_MAX / 16, op,
              ": the number of elements overflows int64, got shape ", str_of(shape));
  return n;
}

Dims contiguous_strides(const Dims& shape) {
  Dims s;
  s.n = shape.n;
  int64_t step = 1;
  for (int i = shape.n - 1; i >= 0; --i) {
    s[i] = step;
    step *= std::max<int64_t>(shape[i], 1);
  }
  return s;
}

int wrap_dim(const char* op, int64_t dim, int ndim) {
  const int n = std::max(ndim, 1);  // a 0-d array takes dim 0 and -1, as in PyTorch
  TW_CHECK_INDEX(dim >= -n && dim < n, op, ": dim must be in [", -n, ", ", n - 1, "] for ", ndim, " dimensions, got ",
                 dim);
  return static_cast<int>(dim < 0 ? dim + n : dim);
}

Dims broadcast_shapes(const char* op, const Dims& a, const Dims& b) {
  Dims y;
  y.n = std::max(a.n, b.n);
  for (int i = 0; i < y.n; ++i) {
    const int64_t p = i < y.n - a.n ? 1 : a[i - (y.n - a.n)];
    const int64_t q = i < y.n - b.n ? 1 : b[i - (y.n - b.n)];
    TW_CHECK(p == q || p == 1 || q == 1, op, ": shapes must match or broadcast, got ", str_of(a), " and ", str_of(b));
    y[i] = p == 1 ? q : p;
  }
  return y;
}

}  // namespace tw
