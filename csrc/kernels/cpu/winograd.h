// Winograd's convolutions of (k x) 3x3 filters with stride 1 (winograd.cpp), and where they are worth their transforms.
#pragma once
#include "kernels/cpu/conv_image.h"

namespace tw::TW_ISA {

template <class S> void winograd(const ConvArgs& a);
template <class S> void winograd_backward_x(const ConvArgs& a);
template <class S> void winograd_backward_w(const ConvArgs& a);

constexpr int64_t kMostDeep = 8;  // planes of a filter

// A tile costs C O multiplications of vectors against 2.25 C O directly (more where tiles reach over the edge), and its
// transforms some 8 C + 6 O. Fewer tiles than kFewTiles do not pay for the filters' transform: 512 channels of 7 x 7 at
// batch 1 run at 110 GFLOP/s that way and at 150 directly, of 14 x 14 at about the same.
constexpr int64_t kFewTiles = 40;
inline bool worth_winograd(const ConvArgs& a) {
  if (!a.winograd || a.dtype == DType::kFloat64) return false;
  for (int d = 1; d < 3; ++d)
    if (a.kernel[d] != 3 || a.stride[d] != 1 || a.dilation[d] != 1) return false;
  if (a.stride[0] != 1 || a.kernel[0] > kMostDeep) return false;
  const int64_t C = a.C / a.groups * a.kernel[0], O = a.O / a.groups;
  const double direct = 0.5625 * double(a.out[1] * a.out[2]) / double(ceil_div(a.out[1], 2) * ceil_div(a.out[2], 2));
  const int64_t tiles = a.N * a.out[0] * ceil_div(a.out[1], 2) * ceil_div(a.out[2], 2);
  return tiles >= kFewTiles && a.C / a.groups >= 16 && O >= 16 &&
         double(C * O + 8 * C + 6 * O) < 0.85 * direct * double(C * O);
}

}  // namespace tw::TW_ISA
