// The GPU as the engine's "cuda" device: the CUDA runtime, linked statically, which finds the driver when first asked.
#include "tensor/backend.h"

#include <cstdio>
#include <cstring>

#include "kernels/cuda/hopper.cuh"

namespace tw {
namespace cuda {

extern const KernelTable kernel_table;
const BackendHost* backend_host;

namespace {
thread_local Stream t_stream = nullptr;
thread_local char t_error[256] = "";
thread_local bool t_refused = false;
}  // namespace

void refuse_launches() { t_refused = true; }
bool launches_refused() { return t_refused; }

void note_error(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  if (!t_error[0]) std::snprintf(t_error, sizeof t_error, "%s: %s", what, cudaGetErrorString(status));
  cudaGetLastError();  // a sticky one comes again with the next call
}

Stream current_stream() { return t_stream; }

namespace {
constexpr int kMaxDevices = 64;
}

Fault* fault_record() {
  static Fault* records[kMaxDevices] = {};
  int device = 0;
  cudaGetDevice(&device);
  Fault*& f = records[device % kMaxDevices];
  if (!f) {
    note_error(cudaHostAlloc(reinterpret_cast<void**>(&f), sizeof(Fault), cudaHostAllocPortable), "cudaHostAlloc");
    *f = {};
  }
  return f;
}

const DeviceInfo& device_info() {
  static DeviceInfo info[kMaxDevices];
  int device = 0;
  cudaGetDevice(&device);
  DeviceInfo& d = info[device % kMaxDevices];
  if (!d.multiprocessors) {
    int major = 0, minor = 0, count = 1;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    cudaDeviceGetAttribute(&d.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    d.capability = 100 * major + 10 * minor;
    d.multiprocessors = count;
  }
  return d;
}

namespace {

template <class Encode> Encode driver_function(const char* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  note_error(cudaGetDriverEntryPointByVersion(name, &entry, 12000, cudaEnableDefault, &found), name);
  return reinterpret_cast<Encode>(entry);
}
CUtensorMapDataType map_type(int item, bool tf32 = false) {
  return item == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
         : tf32    ? CU_TENSOR_MAP_DATA_TYPE_TFLOAT32
                   : CU_TENSOR_MAP_DATA_TYPE_UINT32;
}
CUtensorMapSwizzle map_swizzle(int bytes) {
  return bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
         : bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
         : bytes == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                       : CU_TENSOR_MAP_SWIZZLE_NONE;
}
bool made(CUresult status) {
  if (status != CUDA_SUCCESS) note_error(cudaErrorInvalidValue, "tensor map");
  return status == CUDA_SUCCESS;
}
struct MapSizes {
  cuuint64_t size[5], stride[5];
  MapSizes(int ndim, const int64_t* sizes, const int64_t* strides) {
    for (int d = 0; d < ndim; ++d) size[d] = static_cast<cuuint64_t>(sizes[d]);
    for (int d = 1; d < ndim; ++d) stride[d - 1] = static_cast<cuuint64_t>(strides[d - 1]);
  }
};

}  // namespace

bool make_tensor_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                     const int* box, int swizzle, bool tf32) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = driver_function<Encode>("cuTensorMapEncodeTiled");
  const MapSizes s(ndim, sizes, strides);
  cuuint32_t sides[5], ones[5] = {1, 1, 1, 1, 1};
  for (int d = 0; d < ndim; ++d) sides[d] = static_cast<cuuint32_t>(box[d]);
  return encode && made(encode(&map->map, map_type(item, tf32), static_cast<cuuint32_t>(ndim), const_cast<void*>(data),
                               s.size, s.stride, sides, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, map_swizzle(swizzle),
                               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

bool make_pixel_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                    const int* lower, const int* upper, const int* step, int channels, int pixels, int swizzle) {
  using Encode =
      CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                   const int*, const int*, cuuint32_t, cuuint32_t, const cuuint32_t*, CUtensorMapInterleave,
                   CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = driver_function<Encode>("cuTensorMapEncodeIm2col");
  const MapSizes s(ndim, sizes, strides);
  cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  for (int d = 0; d < ndim - 2; ++d) steps[d + 1] = static_cast<cuuint32_t>(step[d]);
  return encode &&
         made(encode(&map->map, map_type(item), static_cast<cuuint32_t>(ndim), const_cast<void*>(data), s.size,
                     s.stride, lower, upper, static_cast<cuuint32_t>(channels), static_cast<cuuint32_t>(pixels), steps,
                     CU_TENSOR_MAP_INTERLEAVE_NONE, map_swizzle(swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

}  // namespace cuda

namespace {

bool ok(cudaError_t status, const char* what) {
  cuda::note_error(status, what);
  return status == cudaSuccess;
}
cudaStream_t stream(StreamHandle s) { return static_cast<cudaStream_t>(s); }
cudaEvent_t event(EventHandle e) { return static_cast<cudaEvent_t>(e); }

// Done or not: neither is an error.
bool ready(cudaError_t status, const char* what) {
  if (status == cudaErrorNotReady) cudaGetLastError();
  else cuda::note_error(status, what);
  return status == cudaSuccess;
}

const char* why_not() {
  int driver = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "there is no NVIDIA driver";
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaErrorInsufficientDriver) {
    static char text[128];
    std::snprintf(text, sizeof text, "the driver knows CUDA %d.%d, this build needs %d.%d", driver / 1000,
                  driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    return text;
  }
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return devices ? nullptr : "there is no CUDA device";
}

const Backend kBackend = {
    .table_bytes = sizeof(KernelTable),
    .why_not = why_not,
    .table = &cuda::kernel_table,
    .device_count =
        [] {
          int n = 0;
          cudaGetDeviceCount(&n);
          return n;
        },
    .properties =
        [](int device, DeviceProperties* p) {
          cudaDeviceProp c;
          if (!ok(cudaGetDeviceProperties(&c, device), "cudaGetDeviceProperties")) return false;
          std::memcpy(p->name, c.name, sizeof p->name);
          p->major = c.major, p->minor = c.minor;
          p->multi_processor_count = c.multiProcessorCount;
          p->max_threads_per_multi_processor = c.maxThreadsPerMultiProcessor;
          p->warp_size = c.warpSize;
          p->total_memory = static_cast<int64_t>(c.totalGlobalMem);
          p->L2_cache_size = c.l2CacheSize;
          p->shared_memory_per_block_optin = static_cast<int64_t>(c.sharedMemPerBlockOptin);
          p->shared_memory_per_multiprocessor = static_cast<int64_t>(c.sharedMemPerMultiprocessor);
          return true;
        },
    .memory_info =
        [](int device, int64_t* free, int64_t* total) {
          int before = 0;
          size_t f = 0, t = 0;
          cudaGetDevice(&before);
          cudaSetDevice(device);
          const bool done = ok(cudaMemGetInfo(&f, &t), "cudaMemGetInfo");
          cudaSetDevice(before);
          *free = static_cast<int64_t>(f), *total = static_cast<int64_t>(t);
          return done;
        },
    .set_device = [](int device) { return ok(cudaSetDevice(device), "cudaSetDevice"); },
    .set_stream = [](StreamHandle s) { cuda::t_stream = s; },
    .take_error = []() -> const char* {
      static thread_local char text[sizeof cuda::t_error];
      cuda::t_refused = false;
      if (!cuda::t_error[0]) return nullptr;
      std::memcpy(text, cuda::t_error, sizeof text);
      cuda::t_error[0] = 0;
      return text;
    },
    .fault = cuda::fault_record,
    .allocate = [](size_t bytes) -> void* {
      void* p = nullptr;
      return ok(cudaMalloc(&p, bytes), "cudaMalloc") ? p : nullptr;
    },
    .release = [](void* p) { cudaFree(p); },
    .extent = [](void*, size_t, const char*) {},
    .allocate_host = [](size_t bytes) -> void* {
      void* p = nullptr;
      return ok(cudaMallocHost(&p, bytes), "cudaMallocHost") ? p : nullptr;
    },
    .release_host = [](void* p) { cudaFreeHost(p); },
    .copy =
        [](void* dst, const void* src, size_t bytes, CopyKind, StreamHandle s) {
          return ok(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream(s)), "cudaMemcpyAsync");
        },
    .stream_create =
        [](int priority, StreamHandle* s) {
          cudaStream_t made = nullptr;
          const bool done =
              ok(cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, priority), "cudaStreamCreate");
          *s = made;
          return done;
        },
    .stream_destroy = [](StreamHandle s) { cudaStreamDestroy(stream(s)); },
    .stream_synchronize = [](StreamHandle s) { return ok(cudaStreamSynchronize(stream(s)), "cudaStreamSynchronize"); },
    .stream_query = [](StreamHandle s) { return ready(cudaStreamQuery(stream(s)), "cudaStreamQuery"); },
    .stream_wait = [](StreamHandle s,
                      EventHandle e) { return ok(cudaStreamWaitEvent(stream(s), event(e)), "cudaStreamWaitEvent"); },
    .event_create =
        [](bool timing, EventHandle* e) {
          cudaEvent_t made = nullptr;
          const bool done = ok(cudaEventCreateWithFlags(&made, timing ? cudaEventDefault : cudaEventDisableTiming),
                               "cudaEventCreate");
          *e = made;
          return done;
        },
    .event_destroy = [](EventHandle e) { cudaEventDestroy(event(e)); },
    .event_record = [](EventHandle e,
                       StreamHandle s) { return ok(cudaEventRecord(event(e), stream(s)), "cudaEventRecord"); },
    .event_query = [](EventHandle e) { return ready(cudaEventQuery(event(e)), "cudaEventQuery"); },
    .event_synchronize = [](EventHandle e) { return ok(cudaEventSynchronize(event(e)), "cudaEventSynchronize"); },
    .event_elapsed =
        [](EventHandle from, EventHandle to, float* ms) {
          return ok(cudaEventElapsedTime(ms, event(from), event(to)), "cudaEventElapsedTime");
        },
    .device_synchronize = [] { return ok(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); },
};

}  // namespace
}  // namespace tw

extern "C" __attribute__((visibility("default"))) const tw::Backend* tilewright_backend_1(const tw::BackendHost* host) {
  tw::cuda::backend_host = host;
  return &tw::kBackend;
}
