// The slots of kernel_table.h that have a CUDA kernel; the others run on the CPU's table (dispatch.cpp). One line a
// family, in the order of TW_OWN_KERNELS.
#pragma once
#include "kernel_table.h"

// clang-format off
#define TW_CUDA_OWN_KERNELS(X)                                                                                \
  X(copy, ElementwiseArgs) X(where, ElementwiseArgs)                                                          \
  X(sum, ReduceArgs) X(prod, ReduceArgs) X(amax, ReduceArgs) X(amin, ReduceArgs) X(any, ReduceArgs)           \
  X(all, ReduceArgs) X(argmax, ReduceArgs) X(argmin, ReduceArgs) X(var, ReduceArgs)                           \
  X(gemm, GemmArgs)                                                                                           \
  X(max_pool, PoolArgs) X(max_pool_backward, PoolArgs) X(avg_pool, PoolArgs) X(avg_pool_backward, PoolArgs)   \
  X(interpolate, InterpolateArgs) X(pad, PadArgs) X(pad_backward, PadArgs)                                    \
  X(softmax, SoftmaxArgs) X(softmax_backward, SoftmaxArgs)                                                    \
  X(uniform, RandomArgs) X(normal, RandomArgs) X(bernoulli, RandomArgs) X(randint, RandomArgs)                \
  X(dropout, DropoutArgs)                                                                                     \
  X(sgd_step, SgdArgs) X(adam_step, AdamArgs) X(grad_norm, GradArgs) X(grad_scale, GradArgs)                  \
  X(fma_peak, FmaPeakArgs) X(stream_read, StreamArgs) X(stream_copy, StreamArgs) X(stream_triad, StreamArgs)
#define TW_CUDA_KERNELS                                                                                       \
  TW_UNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_BINARY_LIST(TW_ELEMENTWISE_KERNEL)                                  \
  TW_TERNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_CUDA_OWN_KERNELS(X)
// clang-format on
