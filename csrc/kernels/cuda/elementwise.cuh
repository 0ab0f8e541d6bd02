// The walk that every elementwise kernel shares: y[i] = f(x0[i], x1[i], x2[i]) over one shape, any strides and dtypes.
//
// A thread takes packs of kItems neighbours along the innermost dimension: 8 (float64: 4) where every operand is contiguous there
// (or broadcast) and aligned, read and written in accesses of 16 bytes; else 1. The place of a pack in the outer
// dimensions comes from multiplications (Divisor). Both forms compute an item by the same code, so layout never shows.
// Memory dtypes: each compute dtype reads and writes its own few in registers (float: halves too; int32: the narrow
// integers and bool); an operand of another one is copied to the compute dtype first.
// Bytes: each operand once. 8 items a thread keep at least 32 bytes of each operand in flight a thread.
#pragma once
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {

constexpr int kElementwiseThreads = 256, kElementwiseItems = 8;
// Eight of float64's longer functions side by side would not fit the registers.
template <class T> constexpr int kItemsOf = std::is_same_v<T, double> ? 4 : kElementwiseItems;

// Quotient and remainder by a fixed divisor, of numbers below 2^31: Granlund and Montgomery, "Division by Invariant
// Integers using Multiplication", PLDI 1994.
struct Divisor {
  uint32_t divisor, magic, shift;
  Divisor() = default;
  explicit Divisor(uint32_t d) : divisor(d), shift(0) {
    while ((uint64_t{1} << shift) < d) ++shift;
    magic = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
  }
  TW_DEVICE uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>(((uint64_t{n} * magic >> 32) + n) >> shift);
  }
};

struct Walk {
  char* data[4];  // the inputs', then the output's; null: the scalar
  DType dtype[4];
  int64_t strides[4][kMaxDims];  // bytes; the innermost first
  Divisor size[kMaxDims];        // of the inner dimensions but the last, in packs along the innermost
  int ndim;
  uint32_t packs;
  int64_t inner;  // items along the innermost dimension, when the last pack may be short
};

template <int kOperands> TW_DEVICE void locate(const Walk& w, uint32_t pack, int items, int64_t* offset) {
  for (int k = 0; k < kOperands; ++k) offset[k] = 0;
  for (int d = 0; d < w.ndim; ++d) {
    const uint32_t q = d + 1 < w.ndim ? w.size[d].quotient(pack) : 0;
    const int64_t at = int64_t(pack - q * (d + 1 < w.ndim ? w.size[d].divisor : 0)) * (d == 0 ? items : 1);
    for (int k = 0; k < kOperands; ++k) offset[k] += at * w.strides[k][d];
    pack = q;
  }
}

// kItems values of dtype S as T; `count` < kItems of them exist at the end of a row.
template <class S, int kItems, class T>
TW_DEVICE void load_items(T (&x)[kItems], const char* p, int64_t stride, int count) {
  const S* s = reinterpret_cast<const S*>(p);
  if (kItems == 1 || stride == 0) {
    const T v = convert<T>(*s);
    for (int i = 0; i < kItems; ++i) x[i] = v;
  } else if (count == kItems) {
    constexpr int kLanes = kItems * int(sizeof(S)) <= 16 ? kItems : 16 / int(sizeof(S));
#pragma unroll
    for (int i = 0; i < kItems; i += kLanes) {
      const Vector<S, kLanes> v = load_vector<kLanes>(s + i);
      for (int j = 0; j < kLanes; ++j) x[i + j] = convert<T>(v[j]);
    }
  } else {
    for (int i = 0; i < kItems; ++i) x[i] = i < count ? convert<T>(s[i]) : T(0);
  }
}
template <class S, int kItems, class T> TW_DEVICE void store_items(char* p, const T (&y)[kItems], int count) {
  S* s = reinterpret_cast<S*>(p);
  if (kItems > 1 && count == kItems) {
    constexpr int kLanes = kItems * int(sizeof(S)) <= 16 ? kItems : 16 / int(sizeof(S));
#pragma unroll
    for (int i = 0; i < kItems; i += kLanes) {
      Vector<S, kLanes> v;
      for (int j = 0; j < kLanes; ++j) v[j] = convert<S>(y[i + j]);
      store_vector(s + i, v);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      if (i < count) s[i] = convert<S>(y[i]);
  }
}

// The memory dtypes that a compute dtype takes in registers: f(tag of the type in memory).
template <class T, class F> TW_DEVICE void visit_memory(DType t, const F& f) {
  if constexpr (std::is_same_v<T, float>) {
    if (t == DType::kFloat32) f(Tag<float>());
    else if (t == DType::kFloat16) f(Tag<float16>());
    else f(Tag<bfloat16>());
  } else if constexpr (std::is_same_v<T, int32_t>) {
    if (t == DType::kInt32) f(Tag<int32_t>());
    else if (t == DType::kInt16) f(Tag<int16_t>());
    else if (t == DType::kInt8) f(Tag<int8_t>());
    else if (t == DType::kBool) f(Tag<bool>());
    else f(Tag<uint8_t>());
  } else {
    f(Tag<T>());
  }
}
inline bool reads(DType compute, DType memory) {
  if (compute == DType::kFloat32) return memory == compute || is_half(memory);
  if (compute == DType::kInt32)
    return memory == DType::kBool || itemsize(memory) <= 2 ? !is_float(memory) : memory == compute;
  return memory == compute;
}

template <class F, class T, int kInputs, bool kToBool, int kItems>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(const __grid_constant__ Walk w, T scalar, T p0, T p1) {
  const F f;
  const uint32_t step = gridDim.x * kElementwiseThreads;
  for (uint32_t i = blockIdx.x * kElementwiseThreads + threadIdx.x; i < w.packs; i += step) {
    int64_t offset[kInputs + 1];
    locate<kInputs + 1>(w, i, kItems, offset);
    const int count = kItems == 1 ? 1 : int(least<int64_t>(kItems, w.inner - int64_t(i) * kItems));
    T x[kInputs][kItems];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) {
      if (!w.data[k]) {
        for (int j = 0; j < kItems; ++j) x[k][j] = scalar;
        continue;
      }
      visit_memory<T>(w.dtype[k], [&](auto tag) {
        load_items<typename decltype(tag)::type>(x[k], w.data[k] + offset[k], w.strides[k][0], count);
      });
    }
    using Y = std::conditional_t<kToBool, bool, T>;
    Y y[kItems];
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      if constexpr (kInputs == 1) y[j] = f(x[0][j], p0, p1);
      else if constexpr (kInputs == 2) y[j] = f(x[0][j], x[1][j], p0, p1);
      else y[j] = f(x[0][j], x[1][j], x[2][j], p0, p1);
    }
    char* const out = w.data[kInputs] + offset[kInputs];
    if constexpr (kToBool) store_items<bool>(out, y, count);
    else visit_memory<T>(w.dtype[kInputs], [&](auto tag) { store_items<typename decltype(tag)::type>(out, y, count); });
  }
}

// The walk over a launch's operands, in packs of `items` where that can be, else of one: false.
bool make_walk(const ElementwiseArgs& a, Walk* w, int items = kElementwiseItems);
// Launches of at most 2^30 items: a larger one is cut along its outermost dimension.
bool cut_large(const ElementwiseArgs& a, void (*launch)(const ElementwiseArgs&));
// An operand in the compute dtype: `temporary` holds a copy where memory has a dtype that is not read in registers.
void copy(const ElementwiseArgs& a);

// What a launch of `kInputs` inputs does round its kernel: operands of other dtypes are copied in, results out.
// run(args with dtypes that the kernel reads).
template <class Run> void with_read_dtypes(const ElementwiseArgs& a, DType out, const Run& run) {
  ElementwiseArgs b = a;
  int64_t n = 1, contiguous[kMaxDims];
  for (int d = a.ndim - 1; d >= 0; --d) {
    contiguous[d] = n;
    n *= a.shape[d];
  }
  const auto temporary = [&](Operand* o, DType t, void* data) {
    o->data = data;
    o->dtype = t;
    for (int d = 0; d < a.ndim; ++d) o->strides[d] = contiguous[d] * static_cast<int64_t>(itemsize(t));
  };
  const auto foreign = [&](const Operand& o) { return o.data && !reads(a.compute, o.dtype); };
  const size_t bytes = static_cast<size_t>(n) * itemsize(a.compute);
  const Workspace x0(a.inputs > 0 && foreign(a.in[0]) ? bytes : 0), x1(a.inputs > 1 && foreign(a.in[1]) ? bytes : 0),
      x2(a.inputs > 2 && foreign(a.in[2]) ? bytes : 0);
  const bool other_out = out == DType::kBool ? a.out.dtype != out : !reads(a.compute, a.out.dtype);
  const Workspace y(other_out ? static_cast<size_t>(n) * itemsize(out) : 0);
  const Workspace* in[3] = {&x0, &x1, &x2};
  for (int k = 0; k < a.inputs; ++k) {
    if (!foreign(a.in[k])) continue;
    ElementwiseArgs c = a;
    c.inputs = 1;
    c.in[0] = a.in[k];
    temporary(&c.out, a.compute, in[k]->as<void>());
    copy(c);
    b.in[k] = c.out;
  }
  if (other_out) temporary(&b.out, out, y.as<void>());
  run(b);
  if (!other_out) return;
  ElementwiseArgs c = a;
  c.inputs = 1;
  c.in[0] = b.out;
  copy(c);
}

template <class F, class T, int kInputs, bool kToBool> void run_elementwise(const ElementwiseArgs& a) {
  if (cut_large(a, &run_elementwise<F, T, kInputs, kToBool>)) return;
  Walk w;
  const bool packed = make_walk(a, &w, kItemsOf<T>);
  const T scalar = std::is_integral_v<T> ? T(a.scalar_int) : T(a.scalar_float), p0 = T(a.p0), p1 = T(a.p1);
  const unsigned blocks = persistent_blocks(ceil_div<int64_t>(w.packs, kElementwiseThreads), 16);
  if (packed)
    launch_kernel<elementwise_kernel<F, T, kInputs, kToBool, kItemsOf<T>>>(blocks, kElementwiseThreads, 0,
                                                                           current_stream(), w, scalar, p0, p1);
  else
    launch_kernel<elementwise_kernel<F, T, kInputs, kToBool, 1>>(blocks, kElementwiseThreads, 0, current_stream(), w,
                                                                 scalar, p0, p1);
}

// The kinds of the elementwise list, as in kernels/cpu/elementwise.h.
template <bool kFloats, bool kInts, bool kBool> struct Kind {
  static constexpr bool floats = kFloats, ints = kInts, to_bool = kBool;
};
using F = Kind<true, false, false>;
using N = Kind<true, true, false>;
using I = Kind<false, true, false>;
using FB = Kind<true, false, true>;
using NB = Kind<true, true, true>;

template <class Functor, class K, int kInputs> void elementwise(const ElementwiseArgs& a) {
  constexpr bool b = K::to_bool;
  with_read_dtypes(a, b ? DType::kBool : a.compute, [](const ElementwiseArgs& c) {
    if constexpr (K::floats) {
      if (c.compute == DType::kFloat32) return run_elementwise<Functor, float, kInputs, b>(c);
      if (c.compute == DType::kFloat64) return run_elementwise<Functor, double, kInputs, b>(c);
    }
    if constexpr (K::ints) {
      if (c.compute == DType::kInt32) return run_elementwise<Functor, int32_t, kInputs, b>(c);
      if (c.compute == DType::kInt64) return run_elementwise<Functor, int64_t, kInputs, b>(c);
    }
  });
}

}  // namespace tw::cuda
