// Array: a strided view of a storage. Knows shapes, strides and views; knows no op and no gradient.
#pragma once
#include "tensor/dims.h"
#include "tensor/dtype.h"
#include "tensor/storage.h"

namespace tw {

class Array {
 public:
  Array() = default;
  Array(StorageRef storage, DType dtype, const Dims& shape, const Dims& strides, int64_t offset);

  static Array empty(const char* op, const Dims& shape, DType dtype, Device device = {});

  const Dims& shape() const { return shape_; }
  const Dims& strides() const { return strides_; }  // in elements
  int ndim() const { return shape_.n; }
  int64_t size(int i) const { return shape_.d[i]; }
  int64_t numel() const { return numel_; }
  int64_t offset() const { return offset_; }  // in elements
  DType dtype() const { return dtype_; }
  Device device() const { return storage_->device; }
  const StorageRef& storage() const { return storage_; }
  bool defined() const { return storage_.get() != nullptr; }
  bool is_contiguous() const { return contiguous_; }
  // The address of the first element. The one door to memory: a recording plan (dispatch.h) keeps what passes it alive.
  void* raw() const;
  template <class T> T* data() const { return static_cast<T*>(raw()); }

  // Views: no copy.
  Array with_geometry(const Dims& shape, const Dims& strides, int64_t offset) const;
  Array expand(const char* op, const Dims& shape) const;
  Array permute(const char* op, const Dims& order) const;
  Array transpose(const char* op, int64_t a, int64_t b) const;
  Array slice(const char* op, int64_t dim, int64_t start, int64_t stop, int64_t step) const;  // bounds as Python's
  Array select(const char* op, int64_t dim, int64_t index) const;
  Array unsqueeze(const char* op, int64_t dim) const;
  // A view of another shape where strides allow; otherwise false. One size may be -1.
  bool try_view(const char* op, Dims shape, Array* out) const;

  uint32_t version() const { return storage_->version; }
  void bump_version() { ++storage_->version; }

 private:
  StorageRef storage_;
  DType dtype_ = DType::kFloat32;
  bool contiguous_ = true;
  int64_t offset_ = 0;
  int64_t numel_ = 0;
  Dims shape_, strides_;
};

std::string describe(const Array& a);  // "float32 (2, 3)"

}  // namespace tw
