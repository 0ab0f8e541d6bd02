// The slots of kernel_table.h that have a CUDA kernel; the others run on the CPU's table (dispatch.cpp). One line a
// family, in the order of TW_OWN_KERNELS.
#pragma once
#include "kernel_table.h"

// clang-format off
#define TW_CUDA_OWN_KERNELS(X)                                                                                \
  X(copy, ElementwiseArgs) X(where, ElementwiseArgs)                                                          \
  X(sum, ReduceArgs) X(prod, ReduceArgs) X(amax, ReduceArgs) X(amin, ReduceArgs) X(any, ReduceArgs)           \
  X(all, ReduceArgs) X(scan, ScanArgs) X(sort, SortArgs) X(topk, SortArgs) X(kth, SortArgs)                   \
  X(gemm, GemmArgs) X(softmax, SoftmaxArgs) X(softmax_backward, SoftmaxArgs)                                  \
  X(take, TakeArgs) X(take_backward, TakeArgs) X(gather, GatherArgs) X(scatter, GatherArgs)                   \
  X(index, IndexArgs) X(index_put, IndexArgs)
#define TW_CUDA_KERNELS                                                                                       \
  TW_UNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_BINARY_LIST(TW_ELEMENTWISE_KERNEL)                                  \
  TW_TERNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_CUDA_OWN_KERNELS(X)
// clang-format on
