// The machine's limits as kernels meet them: multiply-adds from registers, and streams through memory. A block a piece.
//
// fma_peak: acc = acc * b + c in kChains independent chains a thread, no memory: kChains cover the latency of 4 clocks
// even where a scheduler has one warp. Chains tend to c / (1 - b); y holds their mean sums, so that none is dropped.
// stream_read: y = partial sums of x; stream_copy: y = x; stream_triad: y = x + 3 z (McCalpin's STREAM, 1995); float32,
// n a multiple of 64, 16 bytes an access, kUnroll of them in flight a thread. Each of the `repeats` passes is a launch.
// The clock is the caller's (ops/machine.cpp); non_temporal is for caches that a GPU's stores do not fill anyway.
#include "kernels/cuda/rows.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256, kChains = 8, kUnroll = 4;

template <class T> __global__ void __launch_bounds__(kThreads) fma_chains(T* y, int64_t repeats, T b, T c) {
  TW_SHARED(partial, T[kThreads / 32]);
  T acc[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) acc[i] = T(i);
  for (int64_t r = 0; r < repeats; ++r) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) acc[i] = fma(acc[i], b, c);
  }
  const T total = reduce_block<SumOp, kThreads>(fold(acc, SumOp()), partial);
  constexpr int kWritten = 64 / int(sizeof(T));
  if (threadIdx.x < kWritten) y[blockIdx.x * kWritten + threadIdx.x] = total / T(kThreads);
}
template <class T> void launch_chains(const FmaPeakArgs& a) {
  launch_kernel<fma_chains<T>>(static_cast<unsigned>(a.pieces), kThreads, 0, current_stream(), static_cast<T*>(a.y),
                               a.repeats, T(0.75), T(0.5));
}

enum class Pass { kRead, kCopy, kTriad };

template <Pass kKind> __global__ void __launch_bounds__(kThreads) stream_kernel(StreamArgs a) {
  constexpr int kLane = 4;
  TW_SHARED(sums, float[kThreads]);
  const float *x = a.x + blockIdx.x * a.n, *z = a.z + blockIdx.x * a.n;
  float *y = a.y + blockIdx.x * a.n, acc[kLane] = {};
  for (int64_t first = int(threadIdx.x) * kLane; first < a.n; first += kUnroll * kThreads * kLane) {
    Vector<float, kLane> v[kUnroll], w[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = first + u * kThreads * kLane;
      if (i >= a.n) continue;
      v[u] = load_vector<kLane>(x + i);
      if constexpr (kKind == Pass::kTriad) w[u] = load_vector<kLane>(z + i);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = first + u * kThreads * kLane;
      if (i >= a.n) continue;
#pragma unroll
      for (int j = 0; j < kLane; ++j) {
        if constexpr (kKind == Pass::kRead) acc[j] += v[u][j];
        if constexpr (kKind == Pass::kTriad) v[u][j] = fma(3.0f, w[u][j], v[u][j]);
      }
      if constexpr (kKind != Pass::kRead) store_vector(y + i, v[u]);
    }
  }
  if constexpr (kKind == Pass::kRead) {
    sums[threadIdx.x] = fold(acc, SumOp());
    __syncthreads();
    if (threadIdx.x >= 16) return;
    float total = 0;
    for (int i = 0; i < kThreads; i += 16) total += sums[i + int(threadIdx.x)];
    a.y[blockIdx.x * 16 + threadIdx.x] = total;
  }
}
template <Pass kKind> void launch_stream(const StreamArgs& a) {
  for (int64_t r = 0; r < a.repeats; ++r)
    launch_kernel<stream_kernel<kKind>>(static_cast<unsigned>(a.pieces), kThreads, 0, current_stream(), a);
}

}  // namespace

void fma_peak(const FmaPeakArgs& a) {
  *a.operations = 2.0 * kChains * kThreads * static_cast<double>(a.repeats) * static_cast<double>(a.pieces);
  a.dtype == DType::kFloat64 ? launch_chains<double>(a) : launch_chains<float>(a);
}
void stream_read(const StreamArgs& a) { launch_stream<Pass::kRead>(a); }
void stream_copy(const StreamArgs& a) { launch_stream<Pass::kCopy>(a); }
void stream_triad(const StreamArgs& a) { launch_stream<Pass::kTriad>(a); }

}  // namespace tw::cuda
