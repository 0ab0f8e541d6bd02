// Each matrix instruction, and the copy engine, against plain sums: tests/test_simt.py compares.
#include "kernels/cuda/hopper.cuh"
#include "kernels/simt/memory.h"
#include "kernels/simt/runtime.h"

using namespace tw::cuda;

struct Pixels {  // (x, y, z) of a map of pixels
  int size[3], lower[3], upper[3], step[3], by[3], out[3];
};

// c (16, 8) = a (16, 16) b (16, 8) through ldmatrix: a as rows, or across K; b across K or along it.
template <class T, bool kAcross> __global__ void mma_16(const T* a, const T* b, float* c) {
  TW_SHARED(sa, T[16 * 16]);
  TW_SHARED(sb, T[16 * 16]);
  const int lane = int(threadIdx.x), in = lane % 8, matrix = lane / 8;
  for (int i = lane; i < 256; i += 32) sa[i] = a[i];
  for (int i = lane; i < 128; i += 32) sb[i] = b[i];
  __syncwarp();
  uint32_t fa[4], fb[2];
  float d[4] = {};
  if (kAcross) {  // a is (K, 16) and b is (K, 8)
    ldmatrix<4, true>(fa, &sa[(in + matrix / 2 * 8) * 16 + matrix % 2 * 8]);
    ldmatrix<2, true>(fb, &sb[(in + matrix % 2 * 8) * 8]);
  } else {  // a is (16, K) and b is (8, K)
    ldmatrix<4>(fa, &sa[(in + matrix % 2 * 8) * 16 + matrix / 2 * 8]);
    ldmatrix<2>(fb, &sb[in * 16 + matrix % 2 * 8]);
  }
  mma_16x8x16<T>(d, fa, fb);
  for (int r = 0; r < 4; ++r) c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = d[r];
}

// c (16, 8) = a (16, 8) b (8, 8), tf32.
__global__ void mma_8(const float* a, const float* b, float* c) {
  const int lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
  const uint32_t fa[4] = {round_to_tf32(a[g * 8 + t]), round_to_tf32(a[(g + 8) * 8 + t]),
                          round_to_tf32(a[g * 8 + t + 4]), round_to_tf32(a[(g + 8) * 8 + t + 4])};
  const uint32_t fb[2] = {round_to_tf32(b[t * 8 + g]), round_to_tf32(b[(t + 4) * 8 + g])};
  float d[4] = {};
  mma_16x8x8_tf32(d, fa, fb);
  for (int r = 0; r < 4; ++r) c[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = d[r];
}

// c (64, 64) = a (64, K) b (K, 64), K 64 or, of float as TF32, 32: both tiles come by TMA, 128 bytes a row, swizzled;
// four steps of wgmma. a along K in shared memory or in registers; b along K, or across it.
template <class T, bool kRegisters, bool kAcross>
__global__ void wgmma_64(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, const T* a,
                         float* c) {
  constexpr int K = 128 / int(sizeof(T)), kStep = K / 4, kTile = 64 * K;
  T* const tiles = dynamic_shared<T>();  // a (64, K), b (64, K)
  TW_SHARED(bar, uint64_t[1]);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_expect(bar, 2 * 64 * 128);
    tma_load(tiles, map_a, bar, {0, 0});
    tma_load(tiles + kTile, map_b, bar, {0, 0});
  }
  mbarrier_wait(bar, 0);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  float acc[32] = {};
  wgmma_fence();
  for (int k = 0; k < K; k += kStep) {
    const uint64_t db = kAcross ? wgmma_descriptor(tiles + kTile + k * 64, 8192, 1024, 128)
                                : wgmma_descriptor(tiles + kTile + k, 16, 1024, 128);
    if constexpr (kRegisters) {
      uint32_t r[4];
      for (int i = 0; i < 4; ++i) {
        const T* p = a + (16 * warp + g + i % 2 * 8) * K + k + i / 2 * (kStep / 2);
        if constexpr (sizeof(T) == 4) r[i] = round_to_tf32(p[t]);
        else r[i] = p[2 * t].bits | uint32_t(p[2 * t + 1].bits) << 16;
      }
      wgmma<T, 64, kAcross>(acc, r, db, true);
    } else {
      wgmma<T, 64, false, kAcross>(acc, wgmma_descriptor(tiles + k, 16, 1024, 128), db, k > 0);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < 32; ++i) c[(16 * warp + g + i / 2 % 2 * 8) * 64 + i / 4 * 8 + 2 * t + i % 2] = acc[i];
}

// y = x, box by box through shared memory, with a swizzle; every block of a cluster gets the first one's box.
__global__ void tma_copy(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to) {
  float* const tile = dynamic_shared<float>();
  TW_SHARED(bar, uint64_t[1]);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    mbarrier_init_fence();
    mbarrier_expect(bar, 8 * 16 * 4);
  }
  cluster_arrive();
  cluster_wait();
  const int y = int(blockIdx.x / 2) * 8, x = int(blockIdx.y) * 16;
  if (threadIdx.x == 0 && cluster_rank() == 0) tma_load(tile, from, bar, {x, y}, 3);
  mbarrier_wait(bar, 0);
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(to, tile, {x, y + int(cluster_rank()) * 40});
    tma_store_commit();
    tma_store_wait<0, false>();
  }
  cluster_arrive();
  cluster_wait();
}

// y (blocks, 16 pixels, 8 channels): runs of pixels from the first on, each `by` further, `out` of them an image.
template <int kDims>
__global__ void copy_pixels_kernel(const __grid_constant__ TensorMap map, const __grid_constant__ Pixels p, float* y) {
  float* const tile = dynamic_shared<float>();
  TW_SHARED(bar, uint64_t[1]);
  if (threadIdx.x == 0) {
    mbarrier_init(bar, 1);
    mbarrier_init_fence();
    mbarrier_expect(bar, 16 * 8 * 4);
    const int first = int(blockIdx.x) * 16, row = first / p.out[0], plane = row / p.out[1], n = plane / p.out[2];
    int at[kDims] = {0, p.lower[0] + first % p.out[0] * p.step[0], p.lower[1] + row % p.out[1] * p.step[1]};
    uint16_t by[kDims - 2] = {uint16_t(p.by[0]), uint16_t(p.by[1])};
    if constexpr (kDims == 5) at[3] = p.lower[2] + plane % p.out[2] * p.step[2], by[2] = uint16_t(p.by[2]);
    at[kDims - 1] = n;
    tma_load_pixels(tile, map, bar, at, by);
  }
  __syncthreads();
  mbarrier_wait(bar, 0);
  for (int i = int(threadIdx.x); i < 128; i += 32) y[blockIdx.x * 128 + i] = tile[i];
}

namespace {

template <class T> struct Copy {  // host values as device memory
  T* data;
  size_t bytes;
  Copy(const void* from, size_t n) : bytes(n * sizeof(T)) {
    data = static_cast<T*>(tw::simt::heap_allocate(bytes));
    tw::simt::heap_extent(data, bytes, "the test");
    if (from) __builtin_memcpy(data, from, bytes);
  }
  ~Copy() { tw::simt::heap_release(data); }
};

// Kinds 2 to 5 of `product`.
template <class T> void wide_products(int kind, const void* a, const void* b, float* c) {
  constexpr int K = 128 / int(sizeof(T));
  Copy<T> da(a, 64 * K), db(b, 64 * K);
  Copy<float> dc(nullptr, 4096);
  const int64_t sizes[2] = {K, 64}, strides[1] = {128};
  const int box[2] = {K, 64};
  TensorMap ma, mb;
  make_tensor_map(&ma, da.data, sizeof(T), 2, sizes, strides, box, 128, sizeof(T) == 4);
  make_tensor_map(&mb, db.data, sizeof(T), 2, sizes, strides, box, 128, sizeof(T) == 4);
  const auto go = [&](auto registers, auto across) {
    launch_kernel<wgmma_64<T, decltype(registers)::value, decltype(across)::value>>(1, 128, 16384, nullptr, ma, mb,
                                                                                    da.data, dc.data);
  };
  constexpr std::false_type kNo{};
  constexpr std::true_type kYes{};
  if (kind == 2) go(kNo, kNo);
  if (kind == 4) go(kYes, kNo);
  if constexpr (sizeof(T) == 2) {
    if (kind == 3) go(kNo, kYes);
    if (kind == 5) go(kYes, kYes);
  }
  __builtin_memcpy(c, dc.data, dc.bytes);
}
template <class T> void half_products(int kind, const void* a, const void* b, float* c) {
  if (kind >= 2) return wide_products<T>(kind, a, b, c);
  Copy<T> da(a, 256), db(b, 128);
  Copy<float> dc(nullptr, 128);
  if (kind == 0) launch_kernel<mma_16<T, false>>(1, 32, 0, nullptr, da.data, db.data, dc.data);
  else launch_kernel<mma_16<T, true>>(1, 32, 0, nullptr, da.data, db.data, dc.data);
  __builtin_memcpy(c, dc.data, dc.bytes);
}

}  // namespace

// kind 0: mma along K; 1: across; 2 to 5: wgmma (a in shared memory or registers, b along or across). TF32: 6: mma; 7, 8:
// wgmma, a in shared memory or registers.
extern "C" __attribute__((visibility("default"))) const char* product(int kind, bool bf16, const void* a, const void* b,
                                                                      float* c) {
  static std::string text;
  if (kind == 6) {
    Copy<float> da(a, 128), db(b, 64), dc(nullptr, 128);
    launch_kernel<mma_8>(1, 32, 0, nullptr, da.data, db.data, dc.data);
    __builtin_memcpy(c, dc.data, dc.bytes);
  } else if (kind > 6) {
    wide_products<float>(kind == 7 ? 2 : 4, a, b, c);
  } else if (bf16) {
    half_products<tw::bfloat16>(kind, a, b, c);
  } else {
    half_products<tw::float16>(kind, a, b, c);
  }
  text = tw::simt::take_findings();
  return text.c_str();
}

// x (20, 36) into rows 0 to 19 and 40 to 59 of y (60, 36), both by the copy engine.
extern "C" __attribute__((visibility("default"))) const char* copy_boxes(const float* x, float* y, int swizzle) {
  static std::string text;
  Copy<float> dx(x, 720), dy(y, 2160);
  const int64_t sizes[2] = {36, 20}, all[2] = {36, 60}, strides[1] = {144};
  const int box[2] = {16, 8};
  TensorMap from, to;
  make_tensor_map(&from, dx.data, 4, 2, sizes, strides, box, swizzle);
  make_tensor_map(&to, dy.data, 4, 2, all, strides, box, swizzle);
  launch_cluster<tma_copy>(dim3(6, 3), 32, dim3(2, 1), 1024, nullptr, from, to);
  __builtin_memcpy(y, dy.data, dy.bytes);
  text = tw::simt::take_findings();
  return text.c_str();
}

// Columns of images x (n, size, 8 channels), as a convolution's tap reads them; of 4 dimensions where z is of size 1.
extern "C" __attribute__((visibility("default"))) const char* copy_pixels(const float* x, float* y, int n, int ndim,
                                                                          const Pixels* p, int blocks) {
  static std::string text;
  const int64_t rows = int64_t{p->size[0]} * p->size[1], all = rows * p->size[2];
  Copy<float> dx(x, static_cast<size_t>(n * all * 8)), dy(nullptr, static_cast<size_t>(blocks) * 128);
  const int64_t deep[5] = {8, p->size[0], p->size[1], p->size[2], n}, flat[4] = {8, p->size[0], p->size[1], n};
  const int64_t strides[4] = {32, 32 * p->size[0], 32 * rows, 32 * all};
  TensorMap map;
  make_pixel_map(&map, dx.data, 4, ndim, ndim == 5 ? deep : flat, strides, p->lower, p->upper, p->step, 8, 16, 0);
  if (ndim == 5) launch_kernel<copy_pixels_kernel<5>>(unsigned(blocks), 32, 512, nullptr, map, *p, dy.data);
  else launch_kernel<copy_pixels_kernel<4>>(unsigned(blocks), 32, 512, nullptr, map, *p, dy.data);
  __builtin_memcpy(y, dy.data, dy.bytes);
  text = tw::simt::take_findings();
  return text.c_str();
}
