// pad and its backward: widths to the kernel's coalesced sizes.
#include <algorithm>
#include <cstring>

#include "bindings/bind.h"
#include "ops/common.h"

namespace tw {
namespace {

PadMode mode_of(const std::string& mode) {
  for (auto [name, value] : {std::pair{"constant", PadMode::kConstant}, std::pair{"reflect", PadMode::kReflect},
                             std::pair{"replicate", PadMode::kReplicate}, std::pair{"circular", PadMode::kCircular}})
    if (mode == name) return value;
  fail<std::invalid_argument>("pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got '", mode, "'");
}

// The sizes of a launch and the result's shape. widths: (before, after) of the last dimension first.
struct Layout {
  PadArgs args{};
  Dims shape;

  Layout(const Dims& x, const std::vector<int64_t>& widths, const std::string& mode) : shape(x) {
    args.mode = mode_of(mode);
    args.block = 1;
    TW_CHECK(widths.size() % 2 == 0 && static_cast<int>(widths.size() / 2) <= x.n,
             "pad: widths must come in pairs, at most one a dimension, got ", widths.size(), " for ", x.n,
             " dimensions");
    bool grows = false;  // whether the group being joined is one of dimensions that keep their sizes
    for (int d = 0; d < x.n; ++d) {
      const size_t k = 2 * static_cast<size_t>(x.n - 1 - d);
      const int64_t before = k < widths.size() ? widths[k] : 0, after = k < widths.size() ? widths[k + 1] : 0;
      shape[d] = grown(mode, d, x[d], before, after);
      if (before || after || args.ndim == 0 || grows) {
        args.before[args.ndim] = before;
        args.n[args.ndim] = x[d];
        args.out[args.ndim++] = shape[d];
      } else {
        args.n[args.ndim - 1] *= x[d];
        args.out[args.ndim - 1] *= x[d];
      }
      grows = before || after;
    }
    if (args.ndim > 1 && !grows) {
      --args.ndim;
      args.block = args.n[args.ndim];
    }
    if (args.ndim == 0) args.n[0] = args.out[0] = args.ndim = 1;
  }

  static int64_t grown(const std::string& mode, int d, int64_t n, int64_t before, int64_t after) {
    int64_t out;
    TW_CHECK_AS(std::overflow_error,
                !__builtin_add_overflow(n, before, &out) && !__builtin_add_overflow(out, after, &out),
                "pad: the size of dimension ", d, " overflows int64, got widths ", before, " and ", after);
    TW_CHECK(before >= -n && after >= -n && n + std::min<int64_t>(before, 0) + std::min<int64_t>(after, 0) >= 0,
             "pad: a crop must not take more than there is, got ", before, " and ", after, " for dimension ", d,
             " of size ", n);
    const int64_t most = mode == "reflect" ? n - 1 : mode == "circular" || n == 0 ? n : INT64_MAX;
    TW_CHECK(mode == "constant" || std::max<int64_t>({before, after, 0}) <= std::max<int64_t>(most, 0), "pad: ", mode,
             " widths must be at most ", most, " for a dimension of size ", n, ", got ", before, " and ", after);
    return out;
  }
};

}  // namespace

Array pad(const Array& input, const std::vector<int64_t>& widths, const std::string& mode, const Value& value) {
  Layout plan(input.shape(), widths, mode);
  const Array y = result("pad", plan.shape, input.dtype(), input.device());
  if (y.numel() == 0) return y;
  if (plan.args.mode == PadMode::kConstant) {
    const Device device = value.array ? value.array->device() : Device{};
    const Array item = to_device(full("pad", {}, input.dtype(), device, value), {});
    std::memcpy(&plan.args.fill, item.raw(), itemsize(input.dtype()));
  }
  const Array x = contiguous(input);
  plan.args.x = x.raw();
  plan.args.y = y.raw();
  plan.args.dtype = x.dtype();
  launch(x.device(), slots::pad, plan.args);
  return y;
}

Array pad_backward(const Array& grad, const Dims& shape, const std::vector<int64_t>& widths, const std::string& mode) {
  Layout plan(shape, widths, mode);
  TW_CHECK(grad.shape() == plan.shape, "pad_backward: the gradient must have shape ", str_of(plan.shape), ", got ",
           str_of(grad.shape()));
  if (plan.args.mode == PadMode::kConstant) {  // nothing was copied twice: crops what was added, fills what was cropped
    std::vector<int64_t> back;
    for (const int64_t w : widths) back.push_back(-w);
    return pad(grad, back, mode, Value{nullptr, Value::kInt});
  }
  const Array dy = contiguous(grad), dx = result("pad", shape, dy.dtype(), dy.device());
  if (dx.numel() == 0) return dx;
  plan.args.x = dy.raw();
  plan.args.y = dx.raw();
  plan.args.dtype = dy.dtype();
  launch(dy.device(), slots::pad_backward, plan.args);
  return dx;
}

void bind_pad(py::module_& m) {
  m.def("pad", &pad);
  m.def("pad_backward", &pad_backward);
}

}  // namespace tw
