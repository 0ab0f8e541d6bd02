// Kernels with one planted fault each, and clean ones: tests/test_simt.py runs them and reads the findings.
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/simt/memory.h"
#include "kernels/simt/runtime.h"

using namespace tw::cuda;

namespace tw::cuda {
bool launches_refused() { return false; }  // the backend's, which this library lacks
}  // namespace tw::cuda

// --- faults --
__global__ void write_past_end(float* x, int n) { x[threadIdx.x + n - 31] = 1; }  // the last thread's is x[n]
__global__ void read_past_end(const float* x, float* y, int n) { y[threadIdx.x] = x[threadIdx.x + n - 31]; }
__global__ void read_host_memory(const float* host, float* y) { y[threadIdx.x] = host[threadIdx.x]; }
__global__ void shared_past_end(float* y) {
  TW_SHARED(tile, float[32]);
  tile[threadIdx.x + 1] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
__global__ void misaligned(const char* x, float* y) {
  y[threadIdx.x] = *reinterpret_cast<const float*>(x + 4 * threadIdx.x + 2);
}
__global__ void misaligned_vector(const float* x, float* y) {
  const auto v = load_vector<4>(x + 1 + 4 * threadIdx.x);
  y[threadIdx.x] = v[0];
}
__global__ void uninitialised_shared(float* y) {
  TW_SHARED(tile, float[64]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 32];  // nobody wrote it: NaN
}
__global__ void divergent_barrier(float* y) {
  if (threadIdx.x < 32) __syncthreads();
  y[threadIdx.x] = 1;
}
__global__ void two_barriers(float* y) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  y[threadIdx.x] = 1;
}
__global__ void absent_lane(float* y) {
  if (threadIdx.x == 31) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, float(threadIdx.x), 1);
}
__global__ void lane_outside_mask(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, float(threadIdx.x), 20);
}
__global__ void race_in_shared(float* y) {
  TW_SHARED(tile, float[64]);
  tile[threadIdx.x] = float(threadIdx.x);
  y[threadIdx.x] = tile[63 - threadIdx.x];  // the barrier is missing
}
__global__ void race_after_read(float* y) {
  TW_SHARED(tile, float[64]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  const float v = tile[63 - threadIdx.x];
  tile[threadIdx.x] = v + 1;  // others have not read it yet
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
__global__ void race_in_warp(float* y) {
  TW_SHARED(tile, float[32]);
  tile[threadIdx.x] = 1;
  const float v = __shfl_xor_sync(0xffffffffu, 1.0f, 1);  // a shuffle orders no memory
  y[threadIdx.x] = v + tile[threadIdx.x ^ 1];
}
__global__ void race_of_blocks(float* y) { y[threadIdx.x] = float(blockIdx.x); }
__global__ void race_after_atomic(unsigned* counter, float* y) {
  if (threadIdx.x == 0) y[blockIdx.x] = 1;
  if (threadIdx.x == 0 && atomicAdd(counter, 1u) + 1 == gridDim.x)  // counts, but orders nothing
    for (unsigned i = 0; i < gridDim.x; ++i) y[i] += 1;
}
__global__ void early_use_of_copy(const float* x, float* y) {
  TW_SHARED(tile, float[128]);
  cp_async<16>(&tile[4 * threadIdx.x], x + 4 * threadIdx.x);
  cp_async_commit();
  y[threadIdx.x] = tile[4 * threadIdx.x];  // no wait: NaN when the copy is late
  cp_async_wait<0>();
}
__global__ void copy_without_barrier(const float* x, float* y) {
  TW_SHARED(tile, float[128]);
  cp_async<16>(&tile[4 * threadIdx.x], x + 4 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = tile[127 - threadIdx.x];  // of another thread's copy
}
__global__ void too_few_bytes(const __grid_constant__ TensorMap map, float* y) {
  float* const tile = dynamic_shared<float>();
  TW_SHARED(bar, uint64_t[1]);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_expect(bar, 8 * 32 * 4 + 16);  // 16 bytes more than will ever come
    tma_load(tile, map, bar, {0, 0});
  }
  mbarrier_wait(bar, 0);
  y[threadIdx.x] = tile[threadIdx.x];
}
__global__ void refill_too_early(const __grid_constant__ TensorMap map, float* y) {
  float* const tile = dynamic_shared<float>();
  TW_SHARED(bar, uint64_t[1]);
  if (threadIdx.x == 0) mbarrier_init(bar, 1);
  __syncthreads();
  float sum = 0;
  for (int step = 0; step < 2; ++step) {
    if (threadIdx.x == 0) {
      mbarrier_expect(bar, 8 * 32 * 4);
      tma_load(tile, map, bar, {0, 8 * step});  // the others may still read the first tile
    }
    mbarrier_wait(bar, step);
    sum += tile[threadIdx.x];
  }
  y[threadIdx.x] = sum;
}

// --- clean --
__global__ void clean_sum(const float* x, float* y, unsigned* counter, float* total, int n) {
  TW_SHARED(partial, float[8]);
  float v = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) v += x[i];
  v = reduce_block<SumOp, 256>(v, partial);
  if (threadIdx.x == 0) y[blockIdx.x] = v;
  if (!last_block(counter, gridDim.x)) return;
  v = threadIdx.x < gridDim.x ? y[threadIdx.x] : 0;
  v = reduce_block<SumOp, 256>(v, partial);
  if (threadIdx.x == 0) *total = v;
}
// Two halves of a warp exchange through shared memory by themselves; bytes and halves of one word have several owners.
__global__ void clean_parts(uint8_t* bytes, uint16_t* halves) {
  TW_SHARED(tile, int[64]);
  const unsigned half = threadIdx.x % 32 / 16, mask = 0xffffu << (16 * half);
  tile[threadIdx.x] = int(threadIdx.x);
  __syncwarp(mask);
  const int v = tile[threadIdx.x ^ 5];
  bytes[threadIdx.x] = uint8_t(v);
  halves[threadIdx.x] = uint16_t(__shfl_down_sync(mask, v, 1, 16));
}
// A producer warp fills two stages in turn, consumers give them back: TMA, full and empty barriers, a named barrier.
__global__ void clean_pipeline(const __grid_constant__ TensorMap map, float* y, int steps) {
  float* const tiles = dynamic_shared<float>();  // (2, 8, 32)
  TW_SHARED(full, uint64_t[2]);
  TW_SHARED(empty, uint64_t[2]);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) mbarrier_init(&full[i], 1), mbarrier_init(&empty[i], 64);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int s = 0; s < steps && threadIdx.x == 0; ++s) {
      mbarrier_wait(&empty[s % 2], (s / 2 & 1) ^ 1);
      mbarrier_expect(&full[s % 2], 8 * 32 * 4);
      tma_load(tiles + s % 2 * 256, map, &full[s % 2], {0, 8 * s});
    }
    return;
  }
  float sum = 0;
  for (int s = 0; s < steps; ++s) {
    mbarrier_wait(&full[s % 2], s / 2 & 1);
    for (int i = 0; i < 4; ++i) sum += tiles[s % 2 * 256 + (threadIdx.x - 32) + 64 * i];
    mbarrier_arrive(&empty[s % 2]);
  }
  named_barrier(1, 64);
  y[threadIdx.x - 32] = sum;
}
// Each block of a cluster of two reads its neighbour's shared memory.
__global__ void clean_cluster(float* y) {
  TW_SHARED(mine, float[32]);
  mine[threadIdx.x] = float(blockIdx.x * 32 + threadIdx.x);
  cluster_arrive();
  cluster_wait();
  y[blockIdx.x * 32 + threadIdx.x] = map_shared(&mine[0], cluster_rank() ^ 1)[threadIdx.x];
  cluster_arrive();
  cluster_wait();
}

namespace {

float* device(int n) {
  auto* p = static_cast<float*>(tw::simt::heap_allocate(sizeof(float) * static_cast<size_t>(n)));
  tw::simt::heap_extent(p, sizeof(float) * static_cast<size_t>(n), "the test");
  for (int i = 0; i < n; ++i) p[i] = float(i);
  return p;
}

}  // namespace

// The findings of a kernel, one a line; with "nan" or "wrong" added when the result shows a fault.
extern "C" __attribute__((visibility("default"))) const char* run(const char* name) {
  static std::string text;
  const std::string k = name;
  float *x = device(1024), *y = device(1024), *small = device(32);
  std::memset(y, 0, 4096);
  auto* counter = reinterpret_cast<unsigned*>(device(1));
  *counter = 0;
  const int64_t sizes[2] = {32, 32}, strides[1] = {128};
  const int box[2] = {32, 8};
  TensorMap map;
  make_tensor_map(&map, x, 4, 2, sizes, strides, box, 0);
  std::vector<float> want;
  if (k == "write_past_end") launch_kernel<write_past_end>(1, 32, 0, nullptr, small, 32);
  if (k == "read_past_end") launch_kernel<read_past_end>(1, 32, 0, nullptr, small, y, 32);
  if (k == "read_host_memory") launch_kernel<read_host_memory>(1, 32, 0, nullptr, new float[64], y);
  if (k == "shared_past_end") launch_kernel<shared_past_end>(1, 32, 0, nullptr, y);
  if (k == "misaligned") launch_kernel<misaligned>(1, 32, 0, nullptr, reinterpret_cast<char*>(x), y);
  if (k == "misaligned_vector") launch_kernel<misaligned_vector>(1, 32, 0, nullptr, x, y);
  if (k == "uninitialised_shared") launch_kernel<uninitialised_shared>(1, 32, 0, nullptr, y);
  if (k == "divergent_barrier") launch_kernel<divergent_barrier>(1, 64, 0, nullptr, y);
  if (k == "two_barriers") launch_kernel<two_barriers>(1, 64, 0, nullptr, y);
  if (k == "absent_lane") launch_kernel<absent_lane>(1, 32, 0, nullptr, y);
  if (k == "lane_outside_mask") launch_kernel<lane_outside_mask>(1, 32, 0, nullptr, y);
  if (k == "race_in_shared") launch_kernel<race_in_shared>(1, 64, 0, nullptr, y);
  if (k == "race_after_read") launch_kernel<race_after_read>(1, 64, 0, nullptr, y);
  if (k == "race_in_warp") launch_kernel<race_in_warp>(1, 32, 0, nullptr, y);
  if (k == "race_of_blocks") launch_kernel<race_of_blocks>(2, 32, 0, nullptr, y);
  if (k == "race_after_atomic") launch_kernel<race_after_atomic>(4, 32, 0, nullptr, counter, y);
  if (k == "early_use_of_copy") launch_kernel<early_use_of_copy>(1, 32, 0, nullptr, x, y);
  if (k == "copy_without_barrier") launch_kernel<copy_without_barrier>(1, 32, 0, nullptr, x, y);
  if (k == "too_few_bytes") launch_kernel<too_few_bytes>(1, 32, 1024, nullptr, map, y);
  if (k == "refill_too_early") launch_kernel<refill_too_early>(1, 64, 1024, nullptr, map, y);
  if (k == "too_much_shared") launch_kernel<race_of_blocks>(1, 32, 300 << 10, nullptr, y);
  if (k == "clean_sum") {
    launch_kernel<clean_sum>(3, 256, 0, nullptr, x, y, counter, small, 1000);
    want = {499500};
    std::memcpy(y, small, 4);
  }
  if (k == "clean_parts") {
    launch_kernel<clean_parts>(1, 64, 0, nullptr, reinterpret_cast<uint8_t*>(x), reinterpret_cast<uint16_t*>(y));
    const auto* b = reinterpret_cast<uint8_t*>(x);
    for (int i = 0; i < 64; ++i) y[i] = b[i], want.push_back(float(i ^ 5));
  }
  if (k == "clean_pipeline") {
    launch_kernel<clean_pipeline>(1, 96, 2048, nullptr, map, y, 4);
    for (int i = 0; i < 64; ++i) {
      want.push_back(0);
      for (int s = 0; s < 16; ++s) want.back() += float(i + 64 * s);
    }
  }
  if (k == "clean_cluster") {
    launch_cluster<clean_cluster>(4, 32, 2, 0, nullptr, y);
    for (int i = 0; i < 128; ++i) want.push_back(float(i ^ 32));
  }
  text = tw::simt::take_findings();
  bool nan = false, wrong = false;
  for (int i = 0; i < 64; ++i) nan |= y[i] != y[i];
  for (size_t i = 0; i < want.size(); ++i) wrong |= y[i] != want[i];
  if (nan) text += "\nnan";
  if (wrong) text += "\nwrong";
  for (void* p : {static_cast<void*>(x), static_cast<void*>(y), static_cast<void*>(small), static_cast<void*>(counter)})
    tw::simt::heap_release(p);
  return text.c_str();
}
