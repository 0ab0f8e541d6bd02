// What every kernel of kernels/cuda includes. CUDA C++ under CUDA's own names (threadIdx, __syncthreads,
// __shfl_xor_sync, atomicAdd, ...), and named wrappers for what is PTX, each with a twin in the emulator
// (kernels/simt), so that one source runs on a GPU and on any CPU. docs/kernels/cuda.md shows how to write with them.
//
//   launch_kernel<kernel>(grid, block, shared_bytes, stream, args...)      launch_cluster<kernel>(..., cluster, ...)
//   TW_SHARED(tile, float[32][33]);   T* dynamic_shared<T>()               shared memory
//   cp_async<16>(s, g, valid)  cp_async_commit()  cp_async_wait<N>()       copies behind the arithmetic
//   ldmatrix<4>(r, row)  mma_16x8x16<T>(d, a, b)  mma_16x8x8_tf32(d, a, b)   products of fragments
//   last_block(counter, total)                                             the block that comes last
//   mbarriers, tensor maps, TMA, wgmma, clusters                           hopper.cuh, for *_sm90.cu
#pragma once
#include "kernel_table.h"
#include "tensor/backend.h"

#ifdef __CUDACC__
#include "kernels/cuda/native.cuh"
#else
#include "kernels/simt/matrix.h"
#endif

#define TW_ISA cuda
#define TW_DEVICE __device__ __forceinline__

namespace tw::cuda {

constexpr unsigned kFullMask = 0xffffffffu;
constexpr int kEmulatedMultiprocessors = 4;

Stream current_stream();  // that this host thread launches on
struct DeviceInfo {
  int multiprocessors;
  int capability;    // 900 is 9.0
  int shared_bytes;  // the most that a block can have
};
const DeviceInfo& device_info();  // of the current device
extern const BackendHost* backend_host;

// Bad data, found by a kernel. fault_record() is the current device's, to be handed to the kernel; the first report
// stays until the engine has raised it as an IndexError, with op, rule, [low, high), value and position.
Fault* fault_record();
TW_DEVICE void report_fault(Fault* f, const char* op, const char* rule, int64_t value, int64_t low, int64_t high,
                            int64_t position) {
  if (atomicCAS(&f->claimed, 0u, 1u) != 0) return;
  f->op = op;
  f->rule = rule;
  f->value = value;
  f->low = low;
  f->high = high;
  f->position = position;
  __threadfence_system();
  *static_cast<volatile unsigned*>(&f->complete) = 1;
}

// Nothing more is launched until the engine asks for errors: an op that got no memory must not run into a null pointer.
void refuse_launches();

// Device memory for one op's launches, in stream order: freed memory is given to later launches of the stream only.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : data_(bytes ? backend_host->allocate(bytes) : nullptr) {
    if (bytes && !data_) refuse_launches();
  }
  ~Workspace() {
    if (data_) backend_host->release(data_);
  }
  Workspace(const Workspace&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  void* data_;
};

template <class T> __host__ __device__ constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }
template <class T> __host__ __device__ constexpr T least(T a, T b) { return a < b ? a : b; }
template <class T> __host__ __device__ constexpr T greatest(T a, T b) { return a > b ? a : b; }

// A grid that gives every multiprocessor `waves` blocks, or one block a piece of work where that is less.
inline unsigned persistent_blocks(int64_t pieces, int waves) {
  return static_cast<unsigned>(
      greatest<int64_t>(1, least<int64_t>(pieces, int64_t{waves} * device_info().multiprocessors)));
}

// --- values in memory and in registers --
template <class T, int N> struct alignas(sizeof(T) * N) Vector {
  T v[N];
  __device__ T& operator[](int i) { return v[i]; }
  __device__ const T& operator[](int i) const { return v[i]; }
};
// One access of N items, aligned to its size.
template <int N, class T> TW_DEVICE Vector<T, N> load_vector(const T* p) {
  touched(p, sizeof(T) * N, false);
  return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <int N, class T> TW_DEVICE void store_vector(T* p, const Vector<T, N>& v) {
  touched(p, sizeof(T) * N, true);
  *reinterpret_cast<Vector<T, N>*>(p) = v;
}
template <class T> bool aligned(const T* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// The type of arithmetic: float for halves, else T.
template <class T> struct AccumulatorOf {
  using type = T;
};
template <> struct AccumulatorOf<float16> {
  using type = float;
};
template <> struct AccumulatorOf<bfloat16> {
  using type = float;
};
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

// A value as arithmetic sees it: halves as float, everything else as it is.
template <class T> TW_DEVICE T widen(T v) { return v; }

// Between any two dtypes, as kernels/cpu/vec.h does: to bool != 0; floats to integers truncate, and what does not fit
// gives the lowest integer (its low bits for the narrow types); to a half from any type but float: through float.
template <class D, class S> TW_DEVICE D convert(S v) {
  if constexpr (std::is_same_v<D, S>) return v;
  else if constexpr (std::is_same_v<D, float16> || std::is_same_v<D, bfloat16>) return round_to<D>(float(widen(v)));
  else if constexpr (std::is_same_v<D, bool>) return widen(v) != 0;
  else if constexpr (std::is_integral_v<D> && !std::is_integral_v<S>) {
    using I = std::conditional_t<sizeof(D) == 8, int64_t, int32_t>;
    constexpr I kLowest = sizeof(I) == 8 ? I(int64_t{1} << 63) : I(INT32_MIN);
    const auto f = widen(v);
    return D(f >= -decltype(f)(kLowest) || !(f >= decltype(f)(kLowest)) ? kLowest : I(f));
  } else {
    return D(widen(v));
  }
}

}  // namespace tw::cuda
