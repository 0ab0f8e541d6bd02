// THE contract between ops and kernels: one slot a kernel, each taking one plain struct of pointers and sizes.
//
// A device is a KernelTable: cpu_scalar, cpu_avx2 and cpu_avx512 are instances. A struct is trivially copyable, so that
// a launch is data (dispatch.h can store it in a plan and replay it), and carries all that the kernel reads.
// To add a kernel: its struct here, one row in TW_KERNELS, and a function of that name in kernels/cpu.
#pragma once
#include <cstdint>

#include "kernels/elementwise_list.h"
#include "tensor/array.h"

namespace tw {

// --- elementwise: y[i] = f(x0[i], x1[i], x2[i]) over one broadcast shape --
struct Operand {
  void* data;                 // null: the value is args.scalar
  int64_t strides[kMaxDims];  // in bytes; 0 where broadcast
  DType dtype;
};

struct ElementwiseArgs {
  Operand out;
  Operand in[3];
  int64_t shape[kMaxDims];  // coalesced, last dimension innermost
  int ndim;
  int inputs;
  DType compute;        // of the arithmetic: bool (bytes), int32, int64, float32 or float64
  double scalar_float;  // the one scalar operand, as both, read in the compute dtype
  int64_t scalar_int;
  double p0, p1;  // the op's parameters (slope, bounds, ...)
};

// --- reductions over the middle dimension of contiguous (outer, n, inner) -> (outer, inner) --
struct ReduceArgs {
  const void* x;
  void* y;  // argmax, argmin: int64; others: y_dtype (any, all: bool)
  int64_t outer, n, inner;
  DType x_dtype, y_dtype;
  double scale;  // sum: y = scale * sum; var: y = scale * sum of squared deviations
};

// --- along the middle dimension of contiguous (outer, n, inner) --
enum class Scan : uint8_t { kSum, kProd, kMax, kMin, kLogSumExp };

struct ScanArgs {
  const void* x;
  void* y;
  int64_t* indices;  // kMax, kMin: where the extreme so far was last met
  int64_t outer, n, inner;
  DType x_dtype, y_dtype;
  Scan op;
  bool reverse;  // from the end to the front; kSum only
};

// --- orders along rows of contiguous (rows, n); NaN is the largest value, equals keep their order --
enum class Order : uint8_t { kKth, kMedian, kNanMedian };

struct SortArgs {
  const void* x;
  void* values;  // sort: (rows, n); topk: (rows, k); select: (rows)
  int64_t* indices;
  int64_t rows, n, k;  // select: the k-th smallest counts from 0
  DType dtype;
  bool descending, sorted;  // topk: the largest; whether in order
  Order order;              // select
};

// --- matrix product: c = act(alpha * a @ b + beta * c + bias), batched, any strides --
enum class Activation : uint8_t { kNone, kRelu, kGelu, kGeluTanh, kSigmoid, kTanh, kSilu };

struct GemmArgs {
  const void* a;
  const void* b;
  void* c;
  const void* bias;  // null, or one value a column (bias_rows false) or a row (true) of c
  int64_t M, N, K;
  int64_t a_row, a_col;  // strides in elements
  int64_t b_row, b_col;
  int64_t c_row;  // c's columns are contiguous
  int batch_ndim;
  int64_t batch[kMaxDims];  // batch sizes; strides 0 where broadcast
  int64_t a_batch[kMaxDims], b_batch[kMaxDims], c_batch[kMaxDims];
  DType dtype;  // of a and b and bias
  DType c_dtype;
  double alpha, beta;
  bool bias_rows;
  bool tf32;  // float32 products may round a and b to TF32 (10 bits of fraction); sums stay float32
  Activation activation;
};

// --- convolution and pooling, NCHW --
// One, two and three spatial dimensions alike: (depth, height, width), the missing leading ones of size 1.
struct ConvArgs {
  const void* x;   // (N, C, D, H, W)
  const void* w;   // (O, C / groups, kd, kh, kw)
  const void* b;   // a bias of the result's channels, or null: (O) forward, (C) backward_x
  const void* dy;  // (N, O, od, oh, ow), backward only
  void* y;         // forward: (N, O, od, oh, ow); backward: dx or dw
  int64_t N, C, O, groups;
  int64_t size[3], out[3];  // of x and of y
  int64_t kernel[3], stride[3], pad[3], dilation[3];
  bool winograd;  // 3x3 filters may take fewer multiplications
  bool tf32;      // as GemmArgs'
  DType dtype;
};

struct PoolArgs {  // 1-D and 2-D pooling are 3-D with leading sizes of 1
  const void* x;   // forward: (planes, in...); backward: dy (planes, out...)
  void* y;         // forward: (planes, out...); backward: dx (planes, in...), written whole
  void* indices;   // max: (planes, out...) of index_dtype, positions in the input's plane; null if not wanted
  int64_t planes, in[3], out[3], k[3], stride[3], pad[3], dilation[3];
  double divisor;  // avg: not 0 overrides the window's size
  bool count_include_pad;
  bool adaptive;  // window o is floor(o in / out) .. ceil((o + 1) in / out) - 1
  DType dtype, index_dtype;
};

// y[p, o0, o1, o2] = sum over taps t of weight0[t0, o0] weight1[t1, o1] weight2[t2, o2] x[p, index0[t0, o0], ...]:
// interpolation, and with transposed tables its gradient.
struct InterpolateArgs {
  const void* x;  // (planes, in...)
  void* y;        // (planes, out...)
  int64_t planes, in[3], out[3], taps[3];
  const int32_t* index[3];  // (taps, out)
  const void* weight[3];    // (taps, out) of float32, or float64 for float64 x; 0 for a tap that is not there
  DType dtype;
};

// --- pads --
enum class PadMode : uint8_t { kConstant, kReflect, kReplicate, kCircular };

// Sizes are coalesced; the last dimension is the innermost one that grows.
struct PadArgs {
  const void* x;  // forward: (n..., block); backward: dy (out..., block)
  void* y;        // forward: (out..., block); backward: dx (n..., block)
  int ndim;
  int64_t n[kMaxDims], out[kMaxDims], before[kMaxDims];  // negative: so many items are cropped
  int64_t block;                                         // contiguous items that move together
  PadMode mode;
  uint64_t fill;  // constant: the value's bits
  DType dtype;
};

// --- softmax and its kin --
// Over the middle dimension of contiguous (outer, n, inner).
struct SoftmaxArgs {
  const void* x;   // forward: x; backward: y (the forward's result)
  const void* dy;  // backward only
  void* y;         // forward: y; backward: dx
  int64_t outer, n, inner;
  DType dtype;
  bool log;
};

enum class Reduction : uint8_t { kNone, kMean, kSum };

// loss[i] = -(log softmax x)[i, target[i]], smoothed and weighted. "acc" is float32, or float64 for float64 x.
struct CrossEntropyArgs {
  const void* x;          // (rows, classes) logits
  const int64_t* target;  // (rows)
  const void* weight;     // (classes) of acc, or null
  void* loss;             // forward: (rows) of acc
  void* value;            // forward: one acc, the reduced loss; null when nothing is reduced
  void* stats;            // acc (2 rows + 1): a row's max x and log sum exp(x - max), and last the sum of the rows'
                          // weights; written forward, read backward
  const void* dloss;      // backward, acc: (rows) when nothing was reduced, else one value
  void* dx;               // backward: (rows, classes)
  int64_t* bad;           // forward: the first row whose label is no class and not ignored, else -1; then nothing
                          // else is written
  int64_t rows, classes, ignore_index;
  double smoothing;
  Reduction reduction;
  DType dtype;
};

// --- attention --
// Rows of a (batch..., rows, cols) operand; strides in elements (0 where broadcast), columns contiguous.
struct BatchedRows {
  void* data;
  int64_t row;
  int64_t batch[kMaxDims];
};

// y = dropout(softmax(scale q k^T + mask)) v for each item of the batch. "acc" is float32, or float64 for float64 x.
struct AttentionArgs {
  BatchedRows q, k, v;     // (L, E), (S, E), (S, Ev)
  BatchedRows mask;        // (L, S), columns mask_col apart; data null: none
  BatchedRows y, dy;       // (L, Ev): y written forward, read backward
  BatchedRows dq, dk, dv;  // backward: as q, k, v; data null: not wanted
  void* lse;               // acc (batch, L): log2 of the sum of 2^score, +inf for a row with no key; written forward
  int64_t L, S, E, Ev;
  int64_t mask_col;
  int batch_ndim;
  int64_t batch[kMaxDims];
  DType dtype, mask_dtype;  // mask: bool (true takes part), or a float dtype (added)
  double scale, dropout_p;
  uint64_t seed, offset;  // dropout: key j of row i (batch and L as one) is element i * round_up(S, 4) + j of the draw
  bool causal;            // row i sees keys 0 ... i
};

// --- normalization --
// Layer, group, instance and RMS norm: rows of contiguous values; `run` columns share a parameter, and row r begins with
// parameter (r % groups) * (cols / run).
struct LayerNormArgs {
  const void* x;   // (rows, cols)
  const void* w;   // (groups * cols / run) or null
  const void* b;   // as w
  const void* dy;  // backward
  void* y;         // forward: y; backward: dx (or null)
  void* mean;      // (rows) float32 (float64 for float64 x): written forward, read backward
  void* rstd;      // (rows)
  void* dw;        // backward, as w, or null
  void* db;        // backward, as w, or null
  int64_t rows, cols, groups, run;
  double eps;
  bool rms;           // no mean is taken away
  DType dtype;        // of x, y
  DType param_dtype;  // of w, b, dw, db
};

// Batch norm over (N, C, S): statistics per channel over N and S.
struct BatchNormArgs {
  const void* x;
  const void* w;       // (C) or null
  const void* b;       // (C) or null
  const void* dy;      // backward
  void* y;             // forward: y; backward: dx (or null)
  void* mean;          // (C) float32 (float64 for float64 x): written forward (the batch's in training, else the
  void* rstd;          // (C) running ones'), read backward
  void* running_mean;  // read in evaluation; updated in training when not null
  void* running_var;
  void* dw;  // backward, (C) or null
  void* db;
  int64_t N, C, S;
  double eps, momentum;
  bool training;
  DType dtype;        // of x, y
  DType param_dtype;  // of w, b, dw, db and the running statistics
};

// --- recurrent layers --
enum class Cell : uint8_t { kTanh, kRelu, kLstm, kGru };

// One layer over a whole sequence, in D directions. Rows are the steps' batches one after another: batch_sizes[t] rows
// a step, falling with t (variable lengths, longest first), or B each where it is null. PyTorch's gate order, weights.
struct RnnArgs {
  const void* x;                  // (rows, I)
  const int64_t* batch_sizes;     // (T) or null
  const void *h0, *c0;            // (D, B, H), null: zeros; c0, cn, dcn, dc0 and cells: LSTM only
  const void *w_ih[2], *w_hh[2];  // (G H, I) and (G H, H): G gates
  const void *b_ih[2], *b_hh[2];  // (G H) or null
  void* y;                        // (rows, D H)
  void *hn, *cn;                  // (D, B, H)
  void* gates;  // (rows, D, S, H): LSTM i f g o; GRU r z n and the hidden side of n; not RNN. What backward reads
  void* cells;  // (rows, D, H), or null where they are not kept
  void* work;   // rnn_work_size elements
  const void *dy, *dhn, *dcn;  // backward; null: zeros
  void* dgates;                // (rows, D, S, H)
  void* previous;              // (rows, D, H): h before each step
  void *dh0, *dc0;             // (D, B, H), written always
  void* dx;                    // null where not wanted, as the following
  void *dw_ih[2], *dw_hh[2], *db_ih[2], *db_hh[2];
  int64_t T, B, rows, I, H;
  int D;
  bool keep;  // forward: the gates and cells will be read
  bool dh0_wanted;
  Cell cell;
  DType dtype;  // float32 or float64, of all
};
// Two states of padded rows, the packed recurrent weights (columns rounded up to whole vectors), the steps' first rows
// (int64) and a value a gate.
constexpr int64_t rnn_work_size(int64_t D, int64_t T, int64_t B, int64_t H, int64_t G) {
  return D * (2 * B * (H + 32) + G * H * (H + 16)) + 2 * (T + 8) + 4 * H + 128;
}

// --- indexing --
// Rows of contiguous x (outer, n, inner) picked along the middle: y[o, i, :] = x[o, index[i], :]. Indices are checked
// by the kernel before anything is written: the first bad one's position goes to *bad (else -1). The kernels that add
// take float32, float64 and integers; the ops widen halves to float32 and convert the sums back.
struct TakeArgs {
  const void* x;         // take: source; take_backward (sums): dy (outer, count, inner)
  const int64_t* index;  // (count), each in [low, n)
  void* y;               // take: (outer, count, inner); take_backward: (outer, n, inner), added to
  int64_t outer, n, inner, count;
  int64_t low;  // 0, or -n where negative indices count from the end
  int64_t* bad;
  const char* op;  // its name for the device's report of a bad index, as below
  DType dtype;
};

// Element-wise along one dimension: gather y[o,i,k] = x[o,index[o,i,k],k]; scatter y[o,index[o,i,k],k] (+)= x[o,i,k].
struct GatherArgs {
  const void* x;
  const int64_t* index;  // contiguous (outer, count, inner), each in [0, n)
  void* y;
  int64_t outer, n, inner, count;  // n: size of the indexed dimension (x's for gather, y's for scatter)
  int64_t* bad;
  const char* op;
  bool add;  // scatter: add (in order of i, deterministic) or overwrite (last wins)
  DType dtype;
};

// Any strides, advanced indexing: the index arrays, broadcast to one shape of `count` items, select slices of an array.
struct IndexArgs {
  const void* x;                   // index: the array; index_put: the values
  void* y;                         // index: the result; index_put: the array
  const int64_t* index[kMaxDims];  // each contiguous (count)
  int64_t sizes[kMaxDims];         // of the indexed dimensions
  int64_t strides[kMaxDims];       // of the indexed dimensions in the array; all strides are in elements
  int indexed;
  int64_t count;
  int slice_ndim;                                          // the remaining dimensions
  int64_t slice_shape[kMaxDims], slice_strides[kMaxDims];  // in the array
  int64_t dense_stride, dense_slice_strides[kMaxDims];     // of the count and of the slices in result or values
  int64_t* bad;                                            // position in the count of the first bad index, else -1
  const char* op;
  bool add;
  bool unique;  // index_put: no two indices meet, so that threads may share the count
  DType dtype;
};

// --- sampling --
enum class SampleMode : uint8_t { kLinear, kNearest, kCubic };
enum class SamplePad : uint8_t { kZeros, kBorder, kReflection };

// y[n, c, o] = x[n, c] at the place grid[n, o], between its items. Two spatial dimensions are the last of three.
struct GridSampleArgs {
  const void* x;             // (N, C, in...)
  const void* grid;          // (N, out, nd): each in [-1, 1] over the size; the last dimension's comes first
  const void* dy;            // backward: (N, C, out)
  void* y;                   // forward: (N, C, out)
  void *dx, *dgrid;          // backward, as x and grid, written whole; null where not wanted
  int64_t N, C, in[3], out;  // out: places an item; a plane of x has less than 2^31 items
  int nd;                    // 2 or 3
  SampleMode mode;           // kCubic: nd 2
  SamplePad pad;
  bool align_corners;
  DType dtype;
};

// Boxes of images, each cut into oh x ow bins. "acc" is float32, or float64 for float64 x.
struct RoiArgs {
  const void* x;      // forward: (N, C, H, W); backward: dy (K, C, oh, ow)
  const void* boxes;  // acc (K, 5): image, x1, y1, x2, y2
  void* y;            // forward: (K, C, oh, ow); backward: dx (N, C, H, W), written whole
  int32_t* indices;   // roi_pool: (K, C, oh, ow), a maximum's position in its plane, or -1; null if not wanted
  int64_t N, C, H, W, K, oh, ow;  // a plane has less than 2^31 items
  double scale;                   // of the boxes' coordinates
  int64_t sampling_ratio;         // roi_align: samples an axis of a bin; below 1: as many as the bin has items
  bool aligned;                   // roi_align: coordinates are moved by half an item
  int64_t* bad;                   // the first box of no image, else -1; then nothing else is written
  const char* op;                 // as in TakeArgs
  DType dtype;
};

struct NmsArgs {
  const void* boxes;      // (n, 4): x1, y1, x2, y2
  const int64_t* order;   // (n): the boxes from the best on
  const int64_t* groups;  // (n), or null: boxes of different groups leave each other alone
  int64_t* keep;          // (n): the boxes that stay, in that order, and then -1
  int64_t* count;         // how many stay
  int64_t n;
  double threshold;  // a value of the boxes' dtype, or of float32 for halves
  DType dtype;
};

// --- random numbers (philox.h): contiguous y --
struct RandomArgs {
  void* y;
  DType dtype;
  int64_t n;
  uint64_t seed, offset;
  double a, b;        // uniform in [a, b); normal of mean a, deviation b; bernoulli of probability a
  int64_t low, high;  // randint in [low, high)
};

struct DropoutArgs {
  const void* x;
  void* y;     // x * mask / (1 - p)
  void* mask;  // uint8, written: uniform(i) >= p
  DType dtype;
  int64_t n;
  uint64_t seed, offset;
  double p;
};

// --- optimizer steps over a whole list of tensors --
struct OptimTensor {  // contiguous; state null where the rule has none
  void* param;
  const void* grad;
  void* state0;
  void* state1;
  void* state2;
  int64_t n;
  DType dtype;
};

struct SgdArgs {
  const OptimTensor* tensors;
  int64_t count;
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize, first;  // first: the momentum buffers are not yet filled
};

struct AdamArgs {
  const OptimTensor* tensors;
  int64_t count, step;
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled, amsgrad, maximize;
};

// The rules of kernels/optim_rules.h, where c's numbers are named.
enum class OptimRule : uint8_t { kAdagrad, kRmsprop, kAdadelta, kAdamax, kMoments, kRprop, kAsgd };
constexpr int kRuleNumbers = 8;

struct RuleArgs {
  const OptimTensor* tensors;
  int64_t count;
  double c[kRuleNumbers];
  double weight_decay;  // g += weight_decay p
  double keep;          // p *= keep first: decay apart from the gradient
  OptimRule rule;
  bool maximize;
};

// A list of gradients as one vector.
struct GradArgs {
  const OptimTensor* tensors;  // grad_norm reads grad, grad_scale changes param
  int64_t count;
  double p;         // grad_norm: of the norm; infinity: the largest magnitude
  double* value;    // grad_norm: written, (sum |g|^p)^(1/p); grad_scale: the factor, read
  float* infinite;  // grad_scale: null, or becomes 1 where a product is not finite
};

// --- the machine's own limits, which the benchmarks hold kernels against --
struct FmaPeakArgs {
  void* y;             // (pieces, 64 bytes): what the chains end in, so that none is dropped
  double* operations;  // written: how many multiplications and additions all pieces do
  int64_t pieces, repeats;
  DType dtype;  // float32 or float64
};

struct StreamArgs {
  const float* x;  // each array (pieces, n)
  const float* z;  // stream_triad only
  float* y;        // stream_read: (pieces, 16); stream_copy, stream_triad: (pieces, n)
  int64_t pieces, n, repeats;
  bool non_temporal;  // stores go past the caches
};

// --- the table --
#define TW_ELEMENTWISE_KERNEL(name, functor, kinds) X(name, ElementwiseArgs)

// clang-format off
#define TW_OWN_KERNELS(X)                                                                                    \
  X(copy, ElementwiseArgs) X(where, ElementwiseArgs)                                                         \
  X(sum, ReduceArgs) X(prod, ReduceArgs) X(amax, ReduceArgs) X(amin, ReduceArgs) X(any, ReduceArgs)          \
  X(all, ReduceArgs) X(argmax, ReduceArgs) X(argmin, ReduceArgs) X(var, ReduceArgs)                          \
  X(scan, ScanArgs) X(sort, SortArgs) X(topk, SortArgs) X(kth, SortArgs)                                     \
  X(gemm, GemmArgs)                                                                                          \
  X(conv, ConvArgs) X(conv_backward_x, ConvArgs) X(conv_backward_w, ConvArgs)                                \
  X(max_pool, PoolArgs) X(max_pool_backward, PoolArgs) X(avg_pool, PoolArgs) X(avg_pool_backward, PoolArgs)  \
  X(interpolate, InterpolateArgs) X(pad, PadArgs) X(pad_backward, PadArgs)                                   \
  X(softmax, SoftmaxArgs) X(softmax_backward, SoftmaxArgs)                                                   \
  X(cross_entropy, CrossEntropyArgs) X(cross_entropy_backward, CrossEntropyArgs)                             \
  X(attention, AttentionArgs) X(attention_backward, AttentionArgs)                                           \
  X(layer_norm, LayerNormArgs) X(layer_norm_backward, LayerNormArgs)                                         \
  X(batch_norm, BatchNormArgs) X(batch_norm_backward, BatchNormArgs)                                         \
  X(take, TakeArgs) X(take_backward, TakeArgs) X(gather, GatherArgs) X(scatter, GatherArgs)                  \
  X(rnn, RnnArgs) X(rnn_backward, RnnArgs)                                                                   \
  X(index, IndexArgs) X(index_put, IndexArgs)                                                                \
  X(uniform, RandomArgs) X(normal, RandomArgs) X(bernoulli, RandomArgs) X(randint, RandomArgs)               \
  X(dropout, DropoutArgs)                                                                                    \
  X(sgd_step, SgdArgs) X(adam_step, AdamArgs) X(rule_step, RuleArgs) X(grad_norm, GradArgs)                  \
  X(grad_scale, GradArgs)                                                                                    \
  X(grid_sample, GridSampleArgs) X(grid_sample_backward, GridSampleArgs)                                     \
  X(roi_align, RoiArgs) X(roi_align_backward, RoiArgs)                                                       \
  X(roi_pool, RoiArgs) X(roi_pool_backward, RoiArgs) X(nms, NmsArgs)                                         \
  X(fma_peak, FmaPeakArgs) X(stream_read, StreamArgs) X(stream_copy, StreamArgs) X(stream_triad, StreamArgs)
// clang-format on

// Every slot, elementwise ones included; X(name, Args) must be defined where this is used.
// clang-format off
#define TW_ALL_KERNELS                                                                                       \
  TW_UNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_BINARY_LIST(TW_ELEMENTWISE_KERNEL)                                 \
  TW_TERNARY_LIST(TW_ELEMENTWISE_KERNEL) TW_OWN_KERNELS(X)
// clang-format on

struct KernelTable {
  const char* name;
#define X(name, Args) void (*name)(const Args&) = nullptr;
  TW_ALL_KERNELS
#undef X
};

}  // namespace tw
