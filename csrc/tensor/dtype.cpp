#include "tensor/dtype.h"

namespace tw {

const char* name(DType t) {
  switch (t) {
#define TW_X(T, e, n) \
  case DType::e: return n;
    TW_DTYPES(TW_X)
#undef TW_X
  }
  return "?";
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (a > b) {
    DType c = a;
    a = b;
    b = c;
  }  // a < b from here on
  if (is_half(a) && is_half(b)) return DType::kFloat32;               // float16 with bfloat16: neither holds the other
  if (a == DType::kUInt8 && b == DType::kInt8) return DType::kInt16;  // uint8 with int8: neither holds the other
  return b;
}

}  // namespace tw
