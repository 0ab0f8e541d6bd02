// From three loops to a product at the machine's limit, one idea a step; docs/kernels/matmul.md tells the story.
//
//   g++ -O3 -march=native -ffp-contract=fast -std=c++20 -pthread examples/matmul_steps.cpp -o steps && ./steps 1024
//
// C = A B, square, float32, row-major. Each step is checked against the first, then timed; the figures are GFLOP/s and
// the fraction of what the cores used could do on registers alone, measured first.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 14;  // 14 x 2 sums, 2 of B and 1 of A: 31 of 32 registers
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 6;   // 6 x 2 sums, 2 of B and 1 of A: 15 of 16
#else
constexpr int kBytes = 16, kRows = 4;
#endif
typedef float Vec __attribute__((vector_size(kBytes)));
typedef float Unaligned __attribute__((vector_size(kBytes), aligned(4)));
constexpr int kLanes = kBytes / 4, kCols = 2 * kLanes;

static Vec load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
static void store(float* p, Vec x) { *reinterpret_cast<Unaligned*>(p) = x; }

// Step 1: the definition.
static void three_loops(const float* a, const float* b, float* c, int n) {
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int k = 0; k < n; ++k) sum += a[i * n + k] * b[k * n + j];
      c[i * n + j] = sum;
    }
}

// Step 2: the same additions, with j innermost: memory is walked along its lines, and a vector of j fits a register.
static void rows_innermost(const float* a, const float* b, float* c, int n) {
  for (int i = 0; i < n; ++i) {
    float* row = c + i * n;
    std::fill(row, row + n, 0.f);
    for (int k = 0; k < n; ++k)
      for (int j = 0; j < n; ++j) row[j] += a[i * n + k] * b[k * n + j];
  }
}

// The register tile: R x kCols sums stay in registers for all of `count`; each element of A meets kCols of B, each of B
// meets R of A. a[k * a_col + i * a_row], b[k * b_row + j].
template <int R>
static void tile(int count, const float* a, int a_row, int a_col, const float* b, int b_row, float* c, int n, bool add) {
  Vec sums[R][2] = {};
  for (int k = 0; k < count; ++k) {
    const Vec b0 = load(b + k * b_row), b1 = load(b + k * b_row + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const float x = a[k * a_col + i * a_row];
      sums[i][0] += x * b0;
      sums[i][1] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < 2; ++v) {
      float* p = c + i * n + v * kLanes;
      store(p, add ? load(p) + sums[i][v] : sums[i][v]);
    }
}
template <int R = kRows>
static void any_tile(int rows, int count, const float* a, int a_row, int a_col, const float* b, int b_row, float* c,
                     int n, bool add) {
  if (rows == R) return tile<R>(count, a, a_row, a_col, b, b_row, c, n, add);
  if constexpr (R > 1) any_tile<R - 1>(rows, count, a, a_row, a_col, b, b_row, c, n, add);
}

// Step 3: tiles straight from the matrices.
static void register_tile(const float* a, const float* b, float* c, int n) {
  for (int j = 0; j < n; j += kCols)
    for (int i = 0; i < n; i += kRows)
      any_tile(std::min(kRows, n - i), n, a + i * n, n, 1, b + j, n, c + i * n + j, n, false);
}

// Step 4: K in blocks, and both operands copied into the order in which the tile reads them. A panel of A (kRows x kDepth)
// stays in L1 while a block of B (kDepth x kBlockCols) streams past from L2.
constexpr int kDepth = 384, kBlockCols = 1024;
static void pack_b(const float* b, int n, int count, float* to) {
  for (int k = 0; k < count; ++k)
    for (int v = 0; v < 2; ++v) store(to + k * kCols + v * kLanes, load(b + k * n + v * kLanes));
}
static void row_panel(const float* a, const float* packed, float* c, int n, int rows, int k, int count, int cols) {
  alignas(64) float panel[kDepth * kRows];
  for (int i = 0; i < rows; ++i)
    for (int d = 0; d < count; ++d) panel[d * kRows + i] = a[i * n + k + d];
  for (int j = 0; j < cols; j += kCols)
    any_tile(rows, count, panel, 1, kRows, packed + j * count, kCols, c + j, n, k > 0);
}

// What step 5 adds is here too: `threads` of them share the packed block and take panels off one counter.
static void packed(const float* a, const float* b, float* c, int n, int threads) {
  static std::vector<float> block(kDepth * kBlockCols);
  for (int j0 = 0; j0 < n; j0 += kBlockCols)
    for (int k = 0; k < n; k += kDepth) {
      const int cols = std::min(kBlockCols, n - j0), count = std::min(kDepth, n - k);
      const auto on_all = [&](int pieces, const std::function<void(int)>& work) {
        std::atomic<int> next{0};
        const auto run = [&] {
          for (int p; (p = next++) < pieces;) work(p);
        };
        std::vector<std::thread> others;
        for (int t = 1; t < threads; ++t) others.emplace_back(run);
        run();
        for (auto& t : others) t.join();
      };
      on_all(cols / kCols, [&](int p) { pack_b(b + k * n + j0 + p * kCols, n, count, &block[p * kCols * count]); });
      on_all((n + kRows - 1) / kRows, [&](int p) {
        const int i = p * kRows;
        row_panel(a + i * n, block.data(), c + i * n + j0, n, std::min(kRows, n - i), k, count, cols);
      });
    }
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
// Multiply-adds on registers alone: 12 independent chains hide their latency.
static double peak() {
  double best = 0;
  for (int turn = 0; turn < 10; ++turn) {
    Vec x[12] = {};
    float factor = 0.75f;
    asm volatile("" : "+m"(factor));
    const int turns = 2000000;
    const double start = now();
    for (int t = 0; t < turns; ++t)
#pragma GCC unroll 12
      for (int i = 0; i < 12; ++i) x[i] = x[i] * factor + 0.5f;
    best = std::max(best, 2.0 * 12 * kLanes * turns / (now() - start));
    for (int i = 1; i < 12; ++i) x[0] += x[i];
    asm volatile("" : : "m"(x[0]));
  }
  return best;
}

int main(int argc, char** argv) {
  const int n = argc > 1 ? std::atoi(argv[1]) : 1024;
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (n < kCols || n % kCols) return std::printf("n must be a multiple of %d, got %d\n", kCols, n), 2;
  std::vector<float> a(n * n), b(n * n), c(n * n), right(n * n);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& x : a) x = uniform(random);
  for (float& x : b) x = uniform(random);
  const double limit = peak();
  std::printf("one core's registers: %.0f GFLOP/s; n = %d\n", limit / 1e9, n);
  const auto measure = [&](const char* name, int used, const std::function<void()>& f) {
    double best = 1e9;
    const double start = now();
    do {
      const double at = now();
      f();
      best = std::min(best, now() - at);
    } while (now() - start < 1);
    if (right[0] == 0) right = c;
    double error = 0;
    for (int i = 0; i < n * n; ++i) error = std::max(error, std::fabs(double(c[i]) - right[i]));
    if (!(error < 1e-5 * n)) std::printf("WRONG by %g: ", error), std::exit(1);
    const double rate = 2.0 * n * n * n / best;
    std::printf("%-28s %8.1f GFLOP/s  %.3f of %d core%s\n", name, rate / 1e9, rate / limit / used, used,
                used > 1 ? "s" : "");
    std::fill(c.begin(), c.end(), NAN);
  };
  measure("1 three loops", 1, [&] { three_loops(a.data(), b.data(), c.data(), n); });
  measure("2 rows innermost", 1, [&] { rows_innermost(a.data(), b.data(), c.data(), n); });
  measure("3 register tile", 1, [&] { register_tile(a.data(), b.data(), c.data(), n); });
  measure("4 packed, in blocks", 1, [&] { packed(a.data(), b.data(), c.data(), n, 1); });
  measure("5 all cores", cores, [&] { packed(a.data(), b.data(), c.data(), n, cores); });
}
