// The slots of kernel_table.h that have a CUDA kernel; the others run on the CPU's table (dispatch.cpp). One line a
// family, in the order of TW_OWN_KERNELS.
#pragma once
#include "kernel_table.h"

// clang-format off
#define TW_CUDA_OWN_KERNELS(X)                                                                                \
  X(copy, ElementwiseArgs) X(where, ElementwiseArgs)                                                          \
  X(sum, ReduceArgs) X(prod, ReduceArgs) X(amax, ReduceArgs) X(amin, ReduceArgs) X(any, ReduceArgs)           \
  X(all, ReduceArgs) X(gemm, GemmArgs) X(softmax, SoftmaxArgs) X(softmax_backward, SoftmaxArgs)               \
  X(grid_sample, GridSampleArgs) X(grid_sample_backward, GridSampleArgs)                                      \
  X(roi_align, RoiArgs) X(roi_align_backward, RoiArgs)                                                        \
  X(roi_pool, RoiArgs) X(roi_pool_backward, RoiArgs) X(nms, NmsArgs)
#define TW_CUDA_KERNELS                                                                                       \
  TW_UNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_BINARY_LIST(TW_ELEMENTWISE_KERNEL)                                  \
  TW_TERNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_CUDA_OWN_KERNELS(X)
// clang-format on
