// The ops that tilewright.kernels calls, and how it has them write into the caller's memory.
//
// Whatever an op gives back, it takes from result(): fresh memory, or, while a Recipient stands, the array that was
// given for that role. Scratch comes from Array::empty. A Recipient also hears of copies that an op would have to make.
#pragma once
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bind.h"
#include "kernel_table.h"

namespace tw {

using OptionalArray = std::optional<Array>;
using Arrays = std::vector<OptionalArray>;
using Gradients = std::tuple<OptionalArray, OptionalArray, OptionalArray>;

struct Recipient {
  // The array given for `role`, refused unless of this shape and dtype; false: none was given.
  virtual bool take(const char* role, const Dims& shape, DType t, Array* a) = 0;
  // Refuses to copy an array of the caller's, as an op does that needs it row-major or of dtype t.
  virtual void refuse_copy(const Array& a, DType t) = 0;
};
extern constinit thread_local Recipient* recipient;

inline Array result(const char* op, const Dims& shape, DType t, Device device, const char* role = "out") {
  Array a;
  return recipient && recipient->take(role, shape, t, &a) ? a : Array::empty(op, shape, t, device);
}

Array softmax(const Array& x, int64_t dim);
Array log_softmax(const Array& x, int64_t dim);
Array softmax_backward(const Array& y, const Array& dy, int64_t dim);
Array log_softmax_backward(const Array& y, const Array& dy, int64_t dim);
std::pair<Array, Array> cross_entropy(const Array& x, const Array& target, const OptionalArray& weight,
                                      int64_t ignore_index, const std::string& reduction, double smoothing);
Array cross_entropy_backward(const Array& dloss, const Array& x, const Array& target, const OptionalArray& weight,
                             const Array& stats, int64_t ignore_index, const std::string& reduction, double smoothing);
std::tuple<Array, Array, Array> layer_norm(const Array& x, const Dims& shape, const OptionalArray& w,
                                           const OptionalArray& b, double eps, bool rms);
Gradients layer_norm_backward(const Array& dy, const Array& x, const Dims& shape, const OptionalArray& w,
                              const Array& mean, const Array& rstd, bool rms, bool want_x, bool want_w, bool want_b);
std::tuple<Array, Array, Array> group_norm(const std::string& op, const Array& x, int64_t groups,
                                           const OptionalArray& w, const OptionalArray& b, double eps);
Gradients group_norm_backward(const Array& dy, const Array& x, int64_t groups, const OptionalArray& w,
                              const Array& mean, const Array& rstd, bool want_x, bool want_w, bool want_b);
std::tuple<Array, Array, Array> batch_norm(const Array& x, const OptionalArray& w, const OptionalArray& b,
                                           OptionalArray running_mean, OptionalArray running_var, bool training,
                                           double momentum, double eps);
Gradients batch_norm_backward(const Array& dy, const Array& x, const OptionalArray& w, const Array& mean,
                              const Array& rstd, bool training, std::optional<DType> param_dtype, bool want_x,
                              bool want_w, bool want_b);

using OptionalDims = std::optional<Dims>;
using OptionalDType = std::optional<DType>;
Array sum(const Array& x, const OptionalDims& dims, bool keepdim, OptionalDType dtype);
Array mean(const Array& x, const OptionalDims& dims, bool keepdim, OptionalDType dtype);
Array prod(const Array& x, const OptionalDims& dims, bool keepdim, OptionalDType dtype);
Array amax(const Array& x, const OptionalDims& dims, bool keepdim);
Array amin(const Array& x, const OptionalDims& dims, bool keepdim);
Array any(const Array& x, const OptionalDims& dims, bool keepdim);
Array all(const Array& x, const OptionalDims& dims, bool keepdim);
Array argmax(const Array& x, std::optional<int64_t> dim, bool keepdim);
Array argmin(const Array& x, std::optional<int64_t> dim, bool keepdim);
Array var(const Array& x, const OptionalDims& dims, double correction, bool keepdim, bool wide);
std::pair<Array, Array> scan(const std::string& op, const Array& x, int64_t dim, OptionalDType dtype,
                             const std::string& kind, bool reverse);
std::pair<Array, Array> sort(const std::string& op, const Array& x, int64_t dim, bool descending);
std::pair<Array, Array> topk(const Array& x, int64_t k, int64_t dim, bool largest);
std::pair<Array, Array> kth(const std::string& kind, const Array& x, int64_t k, int64_t dim, bool keepdim);

// activation(alpha * a @ b + beta * out + bias), for one product or a batch, into what is given for "out".
Array product(const char* op, const Array& a, const Array& b, const OptionalArray& bias, DType dtype,
              Activation activation, double alpha, double beta);
Array conv(int64_t nd, const Array& x, const Array& w, const OptionalArray& b, const Dims& stride, const Dims& padding,
           const Dims& dilation, int64_t groups);
Array conv_backward_x(int64_t nd, const Array& dy, const Array& w, const OptionalArray& b, const Dims& x_shape,
                      const Dims& stride, const Dims& padding, const Dims& dilation, int64_t groups);
Array conv_backward_w(int64_t nd, const Array& dy, const Array& x, const Dims& w_shape, const Dims& stride,
                      const Dims& padding, const Dims& dilation, int64_t groups);
extern thread_local bool may_use_winograd;  // beside set_winograd's flag

using Window = std::tuple<Dims, OptionalDims, Dims, Dims>;  // kernel, stride, padding, dilation
std::pair<Array, Array> max_pool(const std::string& op, int nd, const Array& x, const Dims& kernel,
                                 const OptionalDims& stride, const Dims& padding, const Dims& dilation, bool ceil_mode,
                                 int indices);
std::pair<Array, Array> adaptive_max_pool(const std::string& op, int nd, const Array& x, const Dims& output_size,
                                          int indices);
Array max_pool_backward(const std::string& op, int nd, const Array& dy, const Array& positions, const Dims& shape,
                        const std::optional<Window>& window);
Array avg_pool(const std::string& op, int nd, const Array& x, const Dims& kernel, const OptionalDims& stride,
               const Dims& padding, bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor);
Array avg_pool_backward(const std::string& op, int nd, const Array& dy, const Dims& shape, const Dims& kernel,
                        const OptionalDims& stride, const Dims& padding, bool ceil_mode, bool count_include_pad,
                        std::optional<int64_t> divisor);
Array adaptive_avg_pool(const std::string& op, int nd, const Array& x, const Dims& output_size);
Array adaptive_avg_pool_backward(const std::string& op, int nd, const Array& dy, const Dims& shape);
// The items of each axis' results and their weights, (taps, size) of int32 and of the accumulator's dtype.
using TapTable = std::pair<Array, Array>;
Array interpolate_by(const Array& x, const std::vector<TapTable>& tables);
Array pad(const Array& x, const std::vector<int64_t>& widths, const std::string& mode, const Value& value);
Array pad_backward(const Array& dy, const Dims& shape, const std::vector<int64_t>& widths, const std::string& mode);

Array grid_sample(const Array& x, const Array& grid, const std::string& mode, const std::string& padding_mode,
                  bool align_corners);
// (dx, dgrid), each where wanted
std::pair<OptionalArray, OptionalArray> grid_sample_backward(const Array& dy, const Array& x, const Array& grid,
                                                             const std::string& mode, const std::string& padding_mode,
                                                             bool align_corners, bool want_x, bool want_grid);
Array roi_align(const Array& x, const Array& boxes, int64_t oh, int64_t ow, double scale, int64_t sampling_ratio,
                bool aligned);
Array roi_align_backward(const Array& dy, const Array& boxes, const Dims& shape, double scale, int64_t sampling_ratio,
                         bool aligned);
// (y, positions where wanted)
std::pair<Array, OptionalArray> roi_pool(const Array& x, const Array& boxes, int64_t oh, int64_t ow, double scale,
                                         bool want_indices);
Array roi_pool_backward(const Array& dy, const Array& boxes, const Array& indices, const Dims& shape);
// (the boxes that stay, in the given order, and then -1; how many)
std::pair<Array, Array> nms(const Array& boxes, const Array& order, const OptionalArray& groups, double iou_threshold);

// (y, lse, counters used by dropout)
std::tuple<Array, Array, uint64_t> attention(const Array& q, const Array& k, const Array& v, const OptionalArray& mask,
                                             double dropout_p, bool causal, double scale, bool enable_gqa,
                                             uint64_t seed, uint64_t offset);
Gradients attention_backward(const Array& dy, const Array& q, const Array& k, const Array& v, const OptionalArray& mask,
                             const Array& y, const Array& lse, double dropout_p, bool causal, double scale,
                             bool enable_gqa, uint64_t seed, uint64_t offset, bool want_q, bool want_k, bool want_v);
std::tuple<Array, Array, OptionalArray, OptionalArray, OptionalArray> rnn(int cell, const Array& x,
                                                                          const OptionalArray& batch_sizes,
                                                                          const OptionalArray& h0,
                                                                          const OptionalArray& c0,
                                                                          const Arrays& weights, bool keep);
Arrays rnn_backward(int cell, const Array& x, const OptionalArray& batch_sizes, const OptionalArray& h0,
                    const OptionalArray& c0, const Arrays& weights, const Array& y, const OptionalArray& gates,
                    const OptionalArray& cells, const OptionalArray& dy, const OptionalArray& dhn,
                    const OptionalArray& dcn, const std::vector<bool>& wanted);

Array take(const std::string& op, const Array& x, int64_t dim, const Array& index);
void index_add_(Array& x, int64_t dim, const Array& index, const Array& source);
Array gather(const std::string& op, const Array& x, int64_t dim, const Array& index);
void scatter_(const std::string& op, Array& x, int64_t dim, const Array& index, const Array& source, bool add);
Array index(const Array& x, const Arrays& given);
void index_put_(const std::string& op, Array& x, const Arrays& given, const Array& source, bool accumulate);
Array where(const Array& condition, Value a, Value b, const OptionalArray& out);

// These give back how many counters they used.
uint64_t uniform_(Array& y, double low, double high, uint64_t seed, uint64_t offset);
uint64_t normal_(Array& y, double mean, double std, uint64_t seed, uint64_t offset);
uint64_t bernoulli_(Array& y, double p, uint64_t seed, uint64_t offset);
uint64_t randint_(Array& y, int64_t low, int64_t high, uint64_t seed, uint64_t offset);
std::tuple<Array, Array, uint64_t> dropout(const Array& x, double p, uint64_t seed, uint64_t offset);

void sgd_step(const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& momentum_buffers, double lr,
              double momentum, double dampening, double weight_decay, bool nesterov, bool maximize, bool first);
void rule_step(const std::string& rule, const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& state0,
               const ArrayRefs& state1, const ArrayRefs& state2, const std::vector<double>& numbers,
               double weight_decay, double keep, bool maximize);
Array grad_norm(const ArrayRefs& grads, double p);
void grad_scale(const ArrayRefs& grads, const Array& factor, const OptionalArray& infinite);
void adam_step(const ArrayRefs& params, const ArrayRefs& grads, const ArrayRefs& exp_avgs, const ArrayRefs& exp_avg_sqs,
               const ArrayRefs& max_exp_avg_sqs, int64_t step, double lr, double beta1, double beta2, double eps,
               double weight_decay, bool decoupled, bool maximize);

}  // namespace tw
