// Samples of images at places and in boxes, and the overlaps of boxes.
#include "bindings/kernels.h"

namespace tw {
namespace {

// Dimension d of (K, C, oh, ow), or what the op refuses. It leaves the output to be taken.
int64_t bins(const Out& out, int d) { return out->ndim() == 4 ? out->size(d) : 0; }

// For what a kernel reads or writes wherever values point.
template <class T> void check_range(const char* op, const char* what, const Array& a, int64_t low, int64_t high) {
  for (int64_t i = 0; i < a.numel(); ++i)
    TW_CHECK_INDEX(a.data<T>()[i] >= low && a.data<T>()[i] < high, op, ": ", what, " must be in [", low, ", ", high,
                   "), got ", a.data<T>()[i]);
}

}  // namespace

void open_samplers(nb::module_& m) {
  using Text = const std::string&;
  const auto x = "x"_a, dy = "dy"_a, out = "out"_a, grid = "grid"_a, boxes = "boxes"_a;
  const auto mode = "mode"_a = "bilinear", padding = "padding_mode"_a = "zeros", corners = "align_corners"_a = false;
  open(m, "grid_sample", args(x, grid, out, mode, padding, corners),
       R"(out[n, c, o] = x[n, c] at the place grid[n, o] in [-1, 1], the last dimension's coordinate first.
x: floats (N, C, H, W), grid (N, h, w, 2), out (N, C, h, w); or (N, C, D, H, W), (N, d, h, w, 3) and (N, C, d, h, w).
mode: bilinear, nearest or bicubic. padding_mode: zeros, border or reflection. One dtype; contiguous.
>>> x, grid = np.array([[[[0.0, 4.0]]]]), np.array([[[[0.5, 0.0]]]])
>>> kernels.grid_sample(x, grid, out=np.empty((1, 1, 1, 1)), align_corners=True).tolist()
[[[[3.0]]]]
)",
       [](Call&, In x, In grid, Out, Text mode, Text padding, bool corners) {
         grid_sample(x, grid, mode, padding, corners);
       });
  open(m, "grid_sample_backward", args(dy, x, grid, none("dx"), none("dgrid"), mode, padding, corners),
       R"(dx and dgrid, where given, = the gradients of grid_sample by x and grid, from dy, that of its result.
dx: as x, dgrid: as grid; the rest as in grid_sample.
>>> x, grid, dx = np.array([[[[0.0, 4.0]]]]), np.array([[[[0.5, 0.0]]]]), np.empty((1, 1, 1, 2))
>>> kernels.grid_sample_backward(np.ones((1, 1, 1, 1)), x, grid, dx=dx, align_corners=True)
>>> dx.tolist()
[[[[0.25, 0.75]]]]
)",
       [](Call&, In dy, In x, In grid, OptOut dx, OptOut dgrid, Text mode, Text padding, bool corners) {
         grid_sample_backward(dy, x, grid, mode, padding, corners, !!dx, !!dgrid);
       });
  const auto scale = "spatial_scale"_a = 1.0, ratio = "sampling_ratio"_a = -1, aligned = "aligned"_a = false;
  open(m, "roi_align", args(x, boxes, out, scale, ratio, aligned),
       R"(out (K, C, oh, ow) = the means of samples in the bins of boxes (K, 5) of x's images.
x: floats (N, C, H, W). boxes: (image, x1, y1, x2, y2), scaled by spatial_scale, of float64 for float64 x, else float32.
sampling_ratio: samples an axis of a bin; below 1: as many as it has items. aligned: coordinates move by -1/2, and boxes
may be smaller than 1. He et al., arXiv:1703.06870. Contiguous.
>>> x, boxes = np.arange(16.0).reshape(1, 1, 4, 4), np.array([[0.0, 0.0, 0.0, 2.0, 2.0]])
>>> kernels.roi_align(x, boxes, out=np.empty((1, 1, 1, 1)), sampling_ratio=1).tolist()
[[[[5.0]]]]
)",
       [](Call&, In x, In boxes, Out out, double scale, int64_t ratio, bool aligned) {
         roi_align(x, boxes, bins(out, 2), bins(out, 3), scale, ratio, aligned);
       });
  open(m, "roi_align_backward", args(dy, boxes, out, scale, ratio, aligned),
       R"(out (N, C, H, W) = the gradient of roi_align by x, from dy (K, C, oh, ow); the rest as there.
>>> boxes = np.array([[0.0, 0.0, 0.0, 2.0, 2.0]])
>>> kernels.roi_align_backward(np.ones((1, 1, 1, 1)), boxes, out=np.empty((1, 1, 2, 2)), sampling_ratio=1).tolist()
[[[[0.0, 0.0], [0.0, 1.0]]]]
)",
       [](Call&, In dy, In boxes, Out out, double scale, int64_t ratio, bool aligned) {
         roi_align_backward(dy, boxes, out->shape(), scale, ratio, aligned);
       });
  open(m, "roi_pool", args(x, boxes, out, scale, none("indices")),
       R"(out (K, C, oh, ow) = the maxima of the bins of boxes (K, 5) of x's images, 0 for a bin of no items.
x, boxes: as in roi_align; corners are rounded to items. indices (int32, as out), where given: where the maxima stand in
their planes, -1 for none. Girshick, arXiv:1504.08083. Contiguous.
>>> x, boxes = np.arange(16.0).reshape(1, 1, 4, 4), np.array([[0.0, 0.0, 0.0, 3.0, 1.0]])
>>> kernels.roi_pool(x, boxes, out=np.empty((1, 1, 1, 2))).tolist()
[[[[5.0, 7.0]]]]
)",
       [](Call&, In x, In boxes, Out out, double scale, OptOut indices) {
         roi_pool(x, boxes, bins(out, 2), bins(out, 3), scale, !!indices);
       });
  open(m, "roi_pool_backward", args(dy, boxes, "indices"_a, out),
       R"(out (N, C, H, W) = dy's values (K, C, oh, ow) added where indices, from roi_pool, say in the boxes' images.
>>> boxes, at = np.zeros((1, 5)), np.full((1, 1, 1, 1), 3, np.int32)
>>> kernels.roi_pool_backward(np.ones((1, 1, 1, 1)), boxes, at, out=np.empty((1, 1, 2, 2))).tolist()
[[[[0.0, 0.0], [0.0, 1.0]]]]
)",
       [](Call& c, In dy, In boxes, Dense indices, Out out) {
         check_is(c.op, "indices", indices, dy->shape(), DType::kInt32);
         TW_CHECK(out->ndim() == 4, c.op, ": out must be (N, C, H, W), got ", str_of(out->shape()));
         check_range<int32_t>(c.op, "indices", indices, -1, out->size(2) * out->size(3));
         roi_pool_backward(dy, boxes, indices, out->shape());
       });
  open(m, "nms", args(boxes, "order"_a, out, "count"_a, "iou_threshold"_a = 0.5, none("groups")),
       R"(out = the boxes that stay, in the given order, and then -1; count (1,) = how many stay.
From the first on, each box that stays removes the later ones whose intersection over union with it is above
iou_threshold. boxes: floats (n, 4), x1, y1, x2, y2. order: int64 (n,), the boxes from the best on. groups: int64 (n,):
boxes of different groups do not meet. out: int64 (n,). Contiguous.
>>> boxes, out, count = np.array([[0.0, 0, 4, 4], [0, 0, 4, 5], [5, 5, 6, 6]]), np.empty(3, int), np.empty(1, int)
>>> kernels.nms(boxes, np.array([1, 2, 0]), out, count).tolist(), count.tolist()
([1, 2, -1], [2])
)",
       [](Call& c, In boxes, Dense order, Out, Out, double threshold, OptIn groups) {
         check_is(c.op, "order", order, {boxes->ndim() ? boxes->size(0) : 0}, DType::kInt64);
         check_range<int64_t>(c.op, "order", order, 0, order->numel());
         nms(boxes, order, groups, threshold);
       });
}

}  // namespace tw
