// The element types, their sizes and their names. Included by kernels, so nothing here may be emitted as a shared
// symbol: functions are forced inline (a weak symbol compiled with AVX-512 flags could be linked into every level).
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__  // kernels for threads take these too
#define TW_INLINE __host__ __device__ __forceinline__
#else
#define TW_INLINE inline __attribute__((always_inline))
#endif

namespace tw {

// The order is that of promotion inside a category; kBool < integers < floats.
enum class DType : uint8_t { kBool, kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64 };
constexpr int kNumDTypes = 10;

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};

// X(C++ type, enumerator, Python name)
// clang-format off
#define TW_DTYPES(X)                                                                                        \
  X(bool, kBool, "bool") X(uint8_t, kUInt8, "uint8") X(int8_t, kInt8, "int8") X(int16_t, kInt16, "int16")   \
  X(int32_t, kInt32, "int32") X(int64_t, kInt64, "int64") X(::tw::float16, kFloat16, "float16")             \
  X(::tw::bfloat16, kBFloat16, "bfloat16") X(float, kFloat32, "float32") X(double, kFloat64, "float64")
// clang-format on

TW_INLINE size_t itemsize(DType t) {
  switch (t) {
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8: return 1;
    case DType::kInt16:
    case DType::kFloat16:
    case DType::kBFloat16: return 2;
    case DType::kInt32:
    case DType::kFloat32: return 4;
    default: return 8;
  }
}
TW_INLINE bool is_float(DType t) { return t >= DType::kFloat16; }
TW_INLINE bool is_half(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }
TW_INLINE bool is_integer(DType t) { return t > DType::kBool && t < DType::kFloat16; }
TW_INLINE int category(DType t) { return t == DType::kBool ? 0 : is_float(t) ? 2 : 1; }
// Elementwise arithmetic happens in one of four dtypes; the walk converts others on their way in and out.
TW_INLINE DType compute_dtype(DType t) {
  if (is_half(t)) return DType::kFloat32;
  if (is_float(t) || t == DType::kInt64) return t;
  return DType::kInt32;
}

template <class T> struct DTypeOf;
#define TW_X(T, e, name)                     \
  template <> struct DTypeOf<T> {            \
    static constexpr DType value = DType::e; \
  };
TW_DTYPES(TW_X)
#undef TW_X
template <class T> constexpr DType dtype_of = DTypeOf<T>::value;

const char* name(DType t);  // "float32"
// PyTorch's promotion of two dtypes of equal standing (both tensors with dimensions).
DType promote(DType a, DType b);

}  // namespace tw
