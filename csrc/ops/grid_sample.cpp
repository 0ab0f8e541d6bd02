// grid_sample: checks, launches, bindings.
#include "bindings/bind.h"
#include "ops/common.h"

namespace tw {
namespace {

GridSampleArgs prepare(const char* op, const Array& x, const Array& grid, const std::string& mode,
                       const std::string& padding_mode, bool align_corners) {
  GridSampleArgs a{};
  a.nd = x.ndim() - 2;
  TW_CHECK((a.nd == 2 || a.nd == 3) && grid.ndim() == x.ndim(), op,
           ": input must be (N, C, H, W) and grid (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3), got ",
           str_of(x.shape()), " and ", str_of(grid.shape()));
  TW_CHECK(grid.size(0) == x.size(0) && grid.size(a.nd + 1) == a.nd, op, ": grid must have input's first size and ",
           a.nd, " coordinates, got ", str_of(grid.shape()), " for ", str_of(x.shape()));
  TW_CHECK_TYPE(is_float(x.dtype()) && grid.dtype() == x.dtype(), op,
                ": input and grid must have one floating-point dtype, got ", name(x.dtype()), " and ",
                name(grid.dtype()));
  a.N = x.size(0), a.C = x.size(1), a.out = 1;
  a.in[0] = 1;
  int64_t plane = 1;
  for (int i = 0; i < a.nd; ++i) {
    const int64_t n = a.in[3 - a.nd + i] = x.size(2 + i);
    a.out *= grid.size(1 + i);
    TW_CHECK(n > 0 && n < (INT64_C(1) << 31) / plane, op, ": a plane must have 1 to 2^31 - 1 items, got ",
             str_of(x.shape()));
    plane *= n;
  }
  TW_CHECK(mode == "bilinear" || mode == "nearest" || mode == "bicubic", op,
           ": mode must be 'bilinear', 'nearest' or 'bicubic', got '", mode, "'");
  TW_CHECK(mode != "bicubic" || a.nd == 2, op, ": bicubic takes 4 dimensions, got ", str_of(x.shape()));
  TW_CHECK(padding_mode == "zeros" || padding_mode == "border" || padding_mode == "reflection", op,
           ": padding_mode must be 'zeros', 'border' or 'reflection', got '", padding_mode, "'");
  a.mode = mode == "bilinear" ? SampleMode::kLinear : mode == "nearest" ? SampleMode::kNearest : SampleMode::kCubic;
  a.pad = padding_mode == "zeros"    ? SamplePad::kZeros
          : padding_mode == "border" ? SamplePad::kBorder
                                     : SamplePad::kReflection;
  a.align_corners = align_corners;
  a.dtype = x.dtype();
  return a;
}

Dims sampled(const Array& x, const Array& grid) {
  Dims shape = x.shape();
  for (int i = 2; i < shape.n; ++i) shape[i] = grid.size(i - 1);
  return shape;
}

}  // namespace

Array grid_sample(const Array& input, const Array& places, const std::string& mode, const std::string& padding_mode,
                  bool align_corners) {
  const char* op = "grid_sample";
  GridSampleArgs a = prepare(op, input, places, mode, padding_mode, align_corners);
  const Array x = contiguous(input), grid = contiguous(places);
  const Array y = result(op, sampled(x, grid), x.dtype(), x.device());
  a.x = x.raw();
  a.grid = grid.raw();
  a.y = y.raw();
  if (y.numel()) launch(x.device(), slots::grid_sample, a);
  return y;
}

std::pair<OptionalArray, OptionalArray> grid_sample_backward(const Array& grad, const Array& input, const Array& places,
                                                             const std::string& mode, const std::string& padding_mode,
                                                             bool align_corners, bool want_x, bool want_grid) {
  const char* op = "grid_sample_backward";
  GridSampleArgs a = prepare(op, input, places, mode, padding_mode, align_corners);
  check_is(op, "dy", grad, sampled(input, places), input.dtype());
  const Array x = contiguous(input), grid = contiguous(places), dy = contiguous(grad);
  OptionalArray dx, dgrid;
  if (want_x) dx = result(op, x.shape(), x.dtype(), x.device(), "dx");
  if (want_grid) dgrid = result(op, grid.shape(), x.dtype(), x.device(), "dgrid");
  a.x = x.raw();
  a.grid = grid.raw();
  a.dy = dy.raw();
  a.dx = dx && dx->numel() ? dx->raw() : nullptr;
  a.dgrid = dgrid && dgrid->numel() ? dgrid->raw() : nullptr;
  if (a.dx || a.dgrid) launch(x.device(), slots::grid_sample_backward, a);
  return {dx, dgrid};
}

void bind_grid_sample(py::module_& m) {
  def<&grid_sample>(m, "grid_sample");
  def<&grid_sample_backward>(m, "grid_sample_backward");
}

}  // namespace tw
