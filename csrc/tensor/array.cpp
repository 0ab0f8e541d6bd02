#include "tensor/array.h"

#include <algorithm>

#include "check.h"
#include "dispatch.h"

namespace tw {

std::string describe(const Array& a) { return std::string(name(a.dtype())) + " " + str_of(a.shape()); }

Array::Array(StorageRef storage, DType dtype, const Dims& shape, const Dims& strides, int64_t offset)
    : storage_(std::move(storage)), dtype_(dtype), offset_(offset), shape_(shape), strides_(strides) {
  int64_t step = 1;
  for (int i = shape.n - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != step) contiguous_ = false;
    step *= shape[i];
  }
  numel_ = step;
  if (step == 0) contiguous_ = true;
}

Array Array::empty(const char* op, const Dims& shape, DType dtype, Device device) {
  const int64_t n = checked_numel(op, shape);
  Array a;
  a.storage_ = StorageRef::adopt(Storage::allocate(static_cast<size_t>(n) * itemsize(dtype), device, op));
  a.dtype_ = dtype;
  a.numel_ = n;
  a.shape_ = shape;
  a.strides_ = contiguous_strides(shape);
  return a;
}

void* Array::raw() const {
  if (__builtin_expect(recording(), 0)) keep_while_recording(storage_);
  return static_cast<char*>(storage_->data) + offset_ * static_cast<int64_t>(itemsize(dtype_));
}

Array Array::with_geometry(const Dims& shape, const Dims& strides, int64_t offset) const {
  return Array(storage_, dtype_, shape, strides, offset);
}

Array Array::expand(const char* op, const Dims& shape) const {
  const int lead = shape.n - ndim();
  TW_CHECK(lead >= 0, op, ": cannot expand to fewer dimensions, got ", str_of(shape_), " -> ", str_of(shape));
  Dims to = shape, strides;
  strides.n = shape.n;
  for (int i = 0; i < shape.n; ++i) {
    const int64_t have = i < lead ? 1 : shape_[i - lead];
    if (to[i] == -1 && i >= lead) to[i] = have;
    TW_CHECK(to[i] >= 0 && (have == to[i] || have == 1), op, ": sizes must match or be 1, got ", str_of(shape_), " -> ",
             str_of(shape));
    strides[i] = i < lead || (have == 1 && to[i] != 1) ? 0 : strides_[i - lead];
  }
  checked_numel(op, to);
  return with_geometry(to, strides, offset_);
}

Array Array::permute(const char* op, const Dims& order) const {
  TW_CHECK(order.n == ndim(), op, ": dims must name each of ", ndim(), " dimensions once, got ", str_of(order));
  Dims shape, strides;
  bool seen[kMaxDims] = {};
  for (int i = 0; i < order.n; ++i) {
    const int d = wrap_dim(op, order[i], ndim());
    TW_CHECK(!seen[d], op, ": dims must name each dimension once, got ", str_of(order));
    seen[d] = true;
    shape.push(shape_[d]);
    strides.push(strides_[d]);
  }
  return with_geometry(shape, strides, offset_);
}

Array Array::transpose(const char* op, int64_t a, int64_t b) const {
  const int i = wrap_dim(op, a, ndim()), j = wrap_dim(op, b, ndim());
  if (ndim() == 0) return *this;
  Dims shape = shape_, strides = strides_;
  std::swap(shape[i], shape[j]);
  std::swap(strides[i], strides[j]);
  return with_geometry(shape, strides, offset_);
}

Array Array::slice(const char* op, int64_t dim, int64_t start, int64_t stop, int64_t step) const {
  TW_CHECK_INDEX(ndim() > 0, op, ": a 0-d array cannot be sliced");
  TW_CHECK(step > 0, op, ": slice step must be positive, got ", step);
  const int d = wrap_dim(op, dim, ndim());
  const int64_t n = shape_[d];
  if (start < 0) start += n;
  if (stop < 0) stop += n;
  start = std::clamp<int64_t>(start, 0, n);
  stop = std::clamp<int64_t>(stop, start, n);
  Dims shape = shape_, strides = strides_;
  shape[d] = (stop - start + step - 1) / step;
  strides[d] *= step;
  return with_geometry(shape, strides, offset_ + (shape[d] ? start * strides_[d] : 0));
}

Array Array::select(const char* op, int64_t dim, int64_t index) const {
  TW_CHECK_INDEX(ndim() > 0, op, ": a 0-d array cannot be indexed with an int");
  const int d = wrap_dim(op, dim, ndim());
  const int64_t n = shape_[d];
  TW_CHECK_INDEX(index >= -n && index < n, op, ": index ", index, " is out of range for dimension ", d, " of size ", n);
  Dims shape, strides;
  for (int i = 0; i < ndim(); ++i) {
    if (i == d) continue;
    shape.push(shape_[i]);
    strides.push(strides_[i]);
  }
  return with_geometry(shape, strides, offset_ + (index < 0 ? index + n : index) * strides_[d]);
}

Array Array::unsqueeze(const char* op, int64_t dim) const {
  TW_CHECK(ndim() < kMaxDims, op, ": at most ", kMaxDims, " dimensions, got ", ndim() + 1);
  const int d = wrap_dim(op, dim, ndim() + 1);
  Dims shape, strides;
  for (int i = 0; i <= ndim(); ++i) {
    if (i == d) {
      shape.push(1);
      strides.push(i < ndim() ? strides_[i] * std::max<int64_t>(shape_[i], 1) : 1);
    }
    if (i < ndim()) {
      shape.push(shape_[i]);
      strides.push(strides_[i]);
    }
  }
  return with_geometry(shape, strides, offset_);
}

bool Array::try_view(const char* op, Dims to, Array* out) const {
  int wildcard = -1;
  int64_t known = 1;
  for (int i = 0; i < to.n; ++i) {
    if (to[i] == -1) {
      TW_CHECK(wildcard < 0, op, ": only one size may be -1, got ", str_of(to));
      wildcard = i;
    } else {
      TW_CHECK(to[i] >= 0, op, ": sizes must not be negative, got ", str_of(to));
      TW_CHECK_AS(std::overflow_error, !__builtin_mul_overflow(known, to[i], &known), op,
                  ": the number of elements overflows int64, got shape ", str_of(to));
    }
  }
  if (wildcard >= 0) {
    TW_CHECK(known > 0 && numel_ % known == 0, op, ": ", str_of(shape_), " (", numel_,
             " elements) cannot take the shape ", str_of(to));
    to[wildcard] = numel_ / known;
  } else {
    TW_CHECK(known == numel_, op, ": ", str_of(shape_), " (", numel_, " elements) cannot take the shape ", str_of(to));
  }
  if (contiguous_) {
    *out = with_geometry(to, contiguous_strides(to), offset_);
    return true;
  }
  // Walk both shapes from the inside: each run of old dimensions that is one memory block may be cut anew.
  Dims strides;
  strides.n = to.n;
  int j = to.n - 1;
  for (int i = ndim() - 1; i >= 0;) {
    int64_t run = shape_[i];
    const int64_t step = strides_[i];
    int k = i - 1;
    while (k >= 0 && (shape_[k] == 1 || strides_[k] == step * run)) run *= shape_[k--];
    int64_t filled = 1;
    while (j >= 0 && (filled < run || to[j] == 1)) {
      strides[j] = step * filled;
      filled *= to[j--];
    }
    if (filled != run) return false;
    i = k;
  }
  for (; j >= 0; --j) strides[j] = 1;
  *out = with_geometry(to, strides, offset_);
  return true;
}

}  // namespace tw
