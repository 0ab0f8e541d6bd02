// The machine's limits, measured: multiply-adds a second and streams' bytes a second, on the pool's threads or a device.
//
// Each probe runs for about `seconds` in short runs and gives the best of them, since noise only ever slows a run. The
// clock stands outside the pool: a run ends when its last piece does, as it does for any kernel. On a device it covers
// the launch and the wait for its end as well, some hundredths of a run.
#include <algorithm>
#include <chrono>

#include "ops/common.h"
#include "parallel.h"
#include "tensor/cuda.h"

namespace tw {
namespace {

constexpr double kRun = 2e-3;  // seconds of one run: long beside waking a thread, short beside an interruption

// The most that work(repeats) does a second: `repeats` grows until, at the best rate so far, a run lasts kRun; runs
// follow until time is up, at least three.
template <class F> double best_rate(double seconds, F&& work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  double best = 0;
  for (int64_t repeats = 1, runs = 0; runs < 3 || since(start) < seconds;) {
    const auto t = Clock::now();
    const double done = work(repeats);
    best = std::max(best, done / std::max(since(t), 1e-9));
    const double wanted = kRun * best * static_cast<double>(repeats) / done;
    if (wanted > static_cast<double>(repeats)) {
      repeats = static_cast<int64_t>(std::min(wanted, 10.0 * static_cast<double>(repeats))) + 1;
    }
    if (wanted < 2.0 * static_cast<double>(repeats)) ++runs;
  }
  return best;
}

void finish(Device device) {
  if (device.type == DeviceType::kCuda) cuda::synchronize(device.index);
}
int64_t multiprocessors(Device device) {
  DeviceProperties p{};
  cuda::backend().properties(device.index, &p);
  return std::max(1, p.multi_processor_count);
}

double fma_peak(DType t, double seconds, Device device) {
  TW_CHECK_TYPE(t == DType::kFloat32 || t == DType::kFloat64, "fma_peak: must be float32 or float64, got ", name(t));
  // A thread that is interrupted leaves pieces to the others; a multiprocessor holds 8 of a device's at once.
  const bool host = device.type == DeviceType::kCpu;
  const int64_t pieces = host ? 4 * num_threads() : 16 * multiprocessors(device);
  Array y = Array::empty("fma_peak", {pieces * 64}, DType::kUInt8, device);
  Array operations = Array::empty("fma_peak", {1}, DType::kFloat64);
  return best_rate(seconds, [&](int64_t repeats) {
    launch(device, slots::fma_peak,
           FmaPeakArgs{y.raw(), operations.data<double>(), pieces, repeats * (host ? 1000 : 100), t});
    finish(device);
    return *operations.data<double>();
  });
}

// Bytes a second of a stream whose arrays hold `bytes` together. kind: "read", "copy" or "triad".
double stream(const std::string& kind, int64_t bytes, bool non_temporal, double seconds, Device device) {
  const int arrays = kind == "read" ? 1 : kind == "copy" ? 2 : kind == "triad" ? 3 : 0;
  TW_CHECK(arrays > 0, "stream: kind must be 'read', 'copy' or 'triad', got '", kind, "'");
  TW_CHECK(bytes >= 4096 && bytes <= int64_t{1} << 36, "stream: bytes must be in [4096, 2^36], got ", bytes);
  // In cache each thread passes over its own part again and again; a large set is cut finer, so that all end together.
  // A device's pieces are 64 KiB, so that there are many for each multiprocessor.
  const bool host = device.type == DeviceType::kCpu;
  const int64_t pieces = !host                        ? std::max<int64_t>(1, bytes >> 16)
                         : bytes >= int64_t{64} << 20 ? bytes >> 20
                                                      : num_threads();
  const int64_t n = std::max<int64_t>(64, bytes / arrays / 4 / pieces / 64 * 64);
  Array x[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t size = i < arrays ? pieces * n : pieces * 16;
    x[i] = full("stream", {size}, DType::kFloat32, device, Value{nullptr, Value::kFloat, 1.0, 1});
  }
  StreamArgs a{x[0].data<float>(), x[2].data<float>(), x[1].data<float>(), pieces, n, 1, non_temporal};
  const auto& slot = arrays == 1 ? slots::stream_read : arrays == 2 ? slots::stream_copy : slots::stream_triad;
  const double moved = 4.0 * arrays * static_cast<double>(pieces * n);
  const double rate = best_rate(seconds, [&](int64_t repeats) {
    a.repeats = repeats;
    launch(device, slot, a);
    finish(device);
    return moved * static_cast<double>(repeats);
  });
  // From ones a copy makes ones, a triad fours, and the read's partial sums add up to x (and to what else y held).
  const Array y = to_device(x[1], {});
  double total = 0;
  for (int64_t i = 0; i < y.numel(); ++i) total += y.data<float>()[i];
  const double expected = static_cast<double>(y.numel()) * (arrays == 3 ? 4.0 : 1.0);
  TW_CHECK_AS(std::runtime_error, arrays == 1 ? total >= static_cast<double>(pieces * n) : total == expected,
              "stream: a probe gave a wrong result, got ", total);
  return rate;
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("fma_peak", &fma_peak, py::arg("dtype"), py::arg("seconds") = 0.1, py::arg("device") = Device{});
  m.def("stream", &stream, py::arg("kind"), py::arg("bytes"), py::arg("non_temporal") = false,
        py::arg("seconds") = 0.05, py::arg("device") = Device{});
}

}  // namespace tw
