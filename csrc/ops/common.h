// What the ops share: casts, copies, fills and the shapes of elementwise launches.
#pragma once
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "bindings/bind.h"
#include "dispatch.h"
#include "ops/functions.h"

namespace tw {

DType default_dtype();  // of Python floats: float32 unless set
void set_default_dtype(DType t);

Array to_device(const Array& a, Device device, bool non_blocking = false);  // itself, or a row-major copy there
Array contiguous(const Array& a);                                           // itself, or a row-major copy
Array cast(const Array& a, DType t);                           // itself, or a row-major copy in another dtype
Array clone(const Array& a);                                   // always a row-major copy
void copy_into(const char* op, Array& dst, const Array& src);  // broadcasts and casts; bumps dst's version
Array full(const char* op, const Dims& shape, DType t, Device device, const Value& value);
Array zeros(const char* op, const Dims& shape, DType t, Device device = {});
void fill(const char* op, Array& a, const Value& value);

// One value of a contiguous int64 array, wherever that lives.
inline int64_t value_at(const Array& a, int64_t i) {
  return *to_device(a.with_geometry({1}, {1}, a.offset() + i), {}).data<int64_t>();
}

// Where a kernel writes the position of a bad index. A recorded launch outlives this frame, so that it needs memory
// that the plan keeps. A CUDA kernel reports to the device's record instead (backend.h), with the op's name, which must
// outlive this frame too.
class BadIndex {
 public:
  BadIndex(const char* op, Device device) {
    static auto* names = new std::set<std::string>;
    if (device.type == DeviceType::kCuda) op_ = names->insert(op).first->c_str();
  }
  const char* op() const { return op_; }
  int64_t* pointer() {
    if (!recording()) return &here_;
    kept_ = Array::empty("index", {}, DType::kInt64);
    return kept_.data<int64_t>();
  }
  int64_t position() const { return kept_.defined() ? *kept_.data<int64_t>() : here_; }

 private:
  int64_t here_ = -1;
  const char* op_ = nullptr;
  Array kept_;
};

// PyTorch's result type of arrays and numbers: the highest category wins, and within it arrays with dimensions come
// before 0-d arrays, and these before Python numbers.
DType result_type(const Value* values, int n);

// Refuses outputs that cannot be written: read-only memory, or an expanded array whose elements share an address.
void check_writable(const char* op, const Array& out);

// Refuses an array of another shape or dtype.
void check_is(const char* op, const char* what, const Array& a, const Dims& shape, DType t);

// y = f(x...) over the common shape; into `out` when given (else a fresh array, laid out as the first input of that
// shape is). Inputs that overlap the output without being the same view are copied first, as in NumPy.
struct ElementwiseOp {
  const Slot<ElementwiseArgs>& slot;
  bool floats_only;  // integers are promoted to the default dtype
  bool integers_only;
  bool to_bool;
};
Array elementwise(const ElementwiseOp& op, Value* x, int inputs, Array* out, double p0 = 0, double p1 = 0);

// Drops sizes of 1, puts the output's largest strides outermost, and joins neighbours that are one memory block in
// every operand; most launches become one-dimensional here.
void simplify(ElementwiseArgs* a, const Dims& shape);

// The rows of the elementwise list that the bindings make functions of.
struct ElementwiseRow {
  ElementwiseOp op;
  int inputs;
};
std::span<const ElementwiseRow> elementwise_rows();
const ElementwiseRow* elementwise_row(std::string_view name);  // null: there is none of that name

}  // namespace tw
