// interpolate: which input items an output item is made of, and with what weights, one axis at a time.
//
// Coordinates as in PyTorch (aten/src/ATen/native/UpSample.h): x(o) = o (n - 1) / (out - 1) with align_corners, else
// (o + 1/2) s - 1/2 with s = n / out, or 1 / scale_factor where one was given. Linear clamps x to 0; cubic is Keys's
// convolution with a = -0.75 over clamped items (Keys, Cubic convolution interpolation, 1981, equation 15). Weights are
// made in long double. nearest takes floor(o s), nearest-exact floor((o + 1/2) s), s in float32, as PyTorch does.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bindings/bind.h"
#include "ops/common.h"
#include "tensor/cuda.h"

namespace tw {
namespace {

using Real = long double;
struct Tap {
  int64_t index;
  Real weight;
};
using Taps = std::vector<std::vector<Tap>>;  // of each output item

int64_t nearest(const std::string& mode, int64_t o, int64_t n, int64_t out, double factor) {
  const float scale = factor > 0 ? static_cast<float>(1 / factor) : static_cast<float>(n) / static_cast<float>(out);
  if (mode == "nearest-exact")
    return std::min(static_cast<int64_t>(std::floor(static_cast<float>((static_cast<double>(o) + 0.5) * scale))),
                    n - 1);
  if (n == out) return o;
  if (out == 2 * n) return o / 2;
  return std::min(static_cast<int64_t>(std::floor(static_cast<float>(o) * scale)), n - 1);
}

Taps taps_of(const std::string& mode, int64_t n, int64_t out, bool align_corners, double factor) {
  Taps taps(static_cast<size_t>(out));
  for (int64_t o = 0; o < out; ++o) {
    auto& t = taps[static_cast<size_t>(o)];
    if (mode == "nearest" || mode == "nearest-exact") {
      t.push_back({nearest(mode, o, n, out, factor), 1});
      continue;
    }
    const Real at = static_cast<Real>(o),
               scale = factor > 0 ? 1 / static_cast<Real>(factor) : static_cast<Real>(n) / out;
    Real x = (at + Real(0.5)) * scale - Real(0.5);
    if (align_corners) x = out > 1 ? at * (n - 1) / (out - 1) : 0;
    if (mode == "linear") {
      x = std::max(x, Real(0));
      const int64_t low = std::min(static_cast<int64_t>(x), n - 1);
      const Real part = std::min(x - low, Real(1));
      t.push_back({low, 1 - part});
      t.push_back({std::min(low + 1, n - 1), part});
    } else {
      constexpr Real a = -0.75;
      const Real low = std::floor(x), part = x - low;
      for (int k = -1; k <= 2; ++k) {
        const Real d = std::abs(part - k);
        const Real w = d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
        t.push_back({std::clamp(static_cast<int64_t>(low) + k, int64_t{0}, n - 1), w});
      }
    }
  }
  return taps;
}

Taps transposed(const Taps& taps, int64_t n) {
  Taps t(static_cast<size_t>(n));
  for (size_t o = 0; o < taps.size(); ++o)
    for (const Tap& tap : taps[o]) {
      auto& to = t[static_cast<size_t>(tap.index)];
      if (!to.empty() && to.back().index == static_cast<int64_t>(o)) to.back().weight += tap.weight;
      else if (tap.weight != 0) to.push_back({static_cast<int64_t>(o), tap.weight});
    }
  return t;
}

// The tables of one axis as arrays, which a recorded plan keeps alive.
template <class T> void fill(const Taps& taps, int64_t count, const Array& index, const Array& weight) {
  const size_t out = taps.size();
  for (size_t o = 0; o < out; ++o)
    for (size_t k = 0; k < static_cast<size_t>(count); ++k) {
      const bool there = k < taps[o].size();
      const int64_t beside =
          taps[o].empty() ? 0 : taps[o].back().index;  // near the others, so that one load serves all
      index.data<int32_t>()[k * out + o] = static_cast<int32_t>(there ? taps[o][k].index : beside);
      weight.data<T>()[k * out + o] = there ? static_cast<T>(taps[o][k].weight) : T(0);
    }
}

// The tables of a launch moved to its device, in one block, so that one copy takes them all.
Array tables_on(const char* op, Device device, InterpolateArgs* a) {
  const size_t item = a->dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  size_t count[3], all = 0;
  for (int i = 0; i < 3; ++i) all += count[i] = static_cast<size_t>(a->taps[i] * a->out[i]);
  const Array here = Array::empty(op, {static_cast<int64_t>(all * (item + sizeof(int32_t)))}, DType::kUInt8);
  const Array there = Array::empty(op, here.shape(), DType::kUInt8, device);
  size_t weights = 0, indices = all * item;
  for (int i = 0; i < 3; ++i) {
    std::memcpy(here.data<char>() + weights, a->weight[i], count[i] * item);
    std::memcpy(here.data<char>() + indices, a->index[i], count[i] * sizeof(int32_t));
    a->weight[i] = there.data<char>() + weights;
    a->index[i] = reinterpret_cast<const int32_t*>(there.data<char>() + indices);
    weights += count[i] * item;
    indices += count[i] * sizeof(int32_t);
  }
  cuda::copy(there.raw(), device, here.raw(), {}, static_cast<size_t>(here.numel()));
  return there;
}

}  // namespace

Array interpolate_by(const Array& input, const std::vector<TapTable>& tables) {
  const char* op = "interpolate";
  TW_CHECK_TYPE(is_float(input.dtype()), op, ": input must be floating point, got ", name(input.dtype()));
  const int nd = static_cast<int>(tables.size()), lead = input.ndim() - nd;
  const DType acc = input.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  InterpolateArgs a{};
  a.planes = 1;
  Dims shape = input.shape();
  for (int i = 0; i < lead; ++i) a.planes *= shape[i];
  const TapTable one{Array::empty(op, {1, 1}, DType::kInt32), Array::empty(op, {1, 1}, acc)};  // of a missing axis
  *one.first.data<int32_t>() = 0;
  if (acc == DType::kFloat64) *one.second.data<double>() = 1;
  else *one.second.data<float>() = 1;
  for (int i = 0; i < 3; ++i) {
    const int axis = i - (3 - nd);
    const auto& [index, weight] = axis < 0 ? one : tables[static_cast<size_t>(axis)];
    a.in[i] = axis < 0 ? 1 : shape[lead + axis];
    a.out[i] = index.size(1);
    if (axis >= 0) shape[lead + axis] = a.out[i];
    a.taps[i] = static_cast<int>(index.size(0));
    a.index[i] = index.data<int32_t>();
    a.weight[i] = weight.raw();
  }
  const Array x = contiguous(input), y = result(op, shape, x.dtype(), x.device());
  a.x = x.raw();
  a.y = y.raw();
  a.dtype = x.dtype();
  if (y.numel() == 0) return y;
  const bool host = x.device().type == DeviceType::kCpu;
  const Array moved = host ? Array() : tables_on(op, x.device(), &a);
  launch(x.device(), slots::interpolate, a);
  return y;
}

namespace {

// factors: an axis's scale_factor, or 0 to take the sizes' ratio. backward: x is dy, and `sizes` dx's.
Array interpolate(const Array& input, int nd, const std::string& mode, const Dims& sizes,
                  const std::vector<double>& factors, bool align_corners, bool backward) {
  const char* op = "interpolate";
  const DType acc = input.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  std::vector<TapTable> tables;
  for (int axis = 0; axis < nd; ++axis) {
    const int64_t in = input.size(input.ndim() - nd + axis), to = sizes[axis];
    TW_CHECK(in > 0 && to > 0, op, ": sizes must be positive, got ", str_of(input.shape()), " to ", str_of(sizes));
    TW_CHECK(std::max(in, to) <= INT32_MAX, op, ": a size may be at most ", INT32_MAX, ", got ", str_of(sizes));
    const int64_t n = backward ? to : in, out = backward ? in : to;
    Taps taps = taps_of(mode, n, out, align_corners, factors[static_cast<size_t>(axis)]);
    if (backward) taps = transposed(taps, n);
    int64_t count = 1;
    for (const auto& t : taps) count = std::max(count, static_cast<int64_t>(t.size()));
    const Array index = Array::empty(op, {count, to}, DType::kInt32), weight = Array::empty(op, {count, to}, acc);
    if (acc == DType::kFloat64) fill<double>(taps, count, index, weight);
    else fill<float>(taps, count, index, weight);
    tables.push_back({index, weight});
  }
  return interpolate_by(input, tables);
}

}  // namespace

void bind_interpolate(py::module_& m) { m.def("interpolate", &interpolate); }

}  // namespace tw
