// Random arrays (philox.h): the caller passes the generator's seed and offset, and advances it by what is returned.
#include <algorithm>
#include <cmath>

#include "ops/common.h"
#include "philox.h"

namespace tw {
namespace {

// Fills a row-major array in place, or a fresh one that is then copied into an array of other strides, so that the
// numbers depend on the element's index alone. Returns the counters used.
uint64_t draw(const char* op, const Slot<RandomArgs>& slot, Array& y, RandomArgs args, int words) {
  check_writable(op, y);
  if (y.numel() == 0) return 0;
  Array target = y.is_contiguous() ? y : Array::empty(op, y.shape(), y.dtype(), y.device());
  args.y = target.raw();
  args.dtype = y.dtype();
  args.n = y.numel();
  launch(y.device(), slot, args);
  if (y.is_contiguous()) y.bump_version();
  else copy_into(op, y, target);
  return philox_groups(words, y.numel());
}

RandomArgs args_of(uint64_t seed, uint64_t offset) {
  RandomArgs a{};
  a.seed = seed;
  a.offset = offset;
  return a;
}

void check_float(const char* op, const Array& y) {
  TW_CHECK_TYPE(is_float(y.dtype()), op, ": dtype must be a floating-point one, got ", name(y.dtype()));
}

}  // namespace

uint64_t uniform_(Array& y, double low, double high, uint64_t seed, uint64_t offset) {
  check_float("uniform_", y);
  TW_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high,
           "uniform_: bounds must be finite and in order, got ", low, " and ", high);
  RandomArgs a = args_of(seed, offset);
  a.a = low;
  a.b = high;
  return draw("uniform_", slots::uniform, y, a, philox_words_of(y.dtype()));
}

uint64_t normal_(Array& y, double mean, double std, uint64_t seed, uint64_t offset) {
  check_float("normal_", y);
  TW_CHECK(std >= 0, "normal_: std must not be negative, got ", std);
  RandomArgs a = args_of(seed, offset);
  a.a = mean;
  a.b = std;
  return draw("normal_", slots::normal, y, a, philox_words_of(y.dtype()));
}

uint64_t bernoulli_(Array& y, double p, uint64_t seed, uint64_t offset) {
  TW_CHECK(p >= 0 && p <= 1, "bernoulli_: p must be in [0, 1], got ", p);
  RandomArgs a = args_of(seed, offset);
  a.a = p;
  return draw("bernoulli_", slots::bernoulli, y, a, 1);
}

uint64_t randint_(Array& y, int64_t low, int64_t high, uint64_t seed, uint64_t offset) {
  TW_CHECK(low < high, "randint: low must be below high, got ", low, " and ", high);
  Array target = is_integer(y.dtype()) ? y : Array::empty("randint", y.shape(), DType::kInt64, y.device());
  RandomArgs a = args_of(seed, offset);
  a.low = low;
  a.high = high;
  const uint64_t used = draw("randint", slots::randint, target, a, 2);
  if (!is_integer(y.dtype())) copy_into("randint", y, target);
  return used;
}

std::tuple<Array, Array, uint64_t> dropout(const Array& x, double p, uint64_t seed, uint64_t offset) {
  check_float("dropout", x);
  TW_CHECK(p >= 0 && p <= 1, "dropout: p must be in [0, 1], got ", p);
  const Array dense = contiguous(x);
  Array y = result("dropout", x.shape(), x.dtype(), x.device());
  Array mask = result("dropout", x.shape(), DType::kUInt8, x.device(), "mask");
  if (x.numel()) {
    const DropoutArgs a{dense.raw(), y.raw(), mask.raw(), x.dtype(), x.numel(), seed, offset, p};
    launch(x.device(), slots::dropout, a);
  }
  return {y, mask, philox_groups(1, x.numel())};
}

namespace {

// A permutation of 0 .. n-1 by sorting: the i-th key is 64 random bits, ties (2^-64 a pair) go by index.
py::tuple randperm(int64_t n, uint64_t seed, uint64_t offset) {
  TW_CHECK(n >= 0, "randperm: n must not be negative, got ", n);
  Array y = Array::empty("randperm", {n}, DType::kInt64);
  std::vector<std::pair<uint64_t, int64_t>> keys(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i += 2) {
    const PhiloxWords w = philox_words(seed, offset + static_cast<uint64_t>(i) / 2);
    for (int64_t k = 0; k < 2 && i + k < n; ++k)
      keys[static_cast<size_t>(i + k)] = {w.w[2 * k] | uint64_t{w.w[2 * k + 1]} << 32, i + k};
  }
  std::sort(keys.begin(), keys.end());
  for (int64_t i = 0; i < n; ++i) y.data<int64_t>()[i] = keys[static_cast<size_t>(i)].second;
  return py::make_tuple(y, philox_groups(2, n));
}

}  // namespace

void bind_random(py::module_& m) {
  m.def("uniform_", &uniform_);
  m.def("normal_", &normal_);
  m.def("bernoulli_", &bernoulli_);
  m.def("randint_", &randint_);
  m.def("dropout", &dropout);
  m.def("randperm", &randperm);
}

}  // namespace tw
