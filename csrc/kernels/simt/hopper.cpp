// mbarriers, the copy engine (TMA), wgmma and cluster barriers. What works in the background lands at once or as late as
// it can, as the seed will have it: bulk loads when nobody can run without them, stores and products at their waits.
#include "kernels/cuda/hopper.cuh"

#include <cstring>

#include "kernels/simt/runtime.h"

namespace tw::simt {
namespace {

struct Bar {  // the 8 bytes in shared memory
  uint16_t count, pending;
  int32_t tx_phase;  // bytes still to come, times 2, plus the phase's parity
};
struct BarState {
  Clock clock;
  std::vector<Fiber*> waiting;
};
struct Bulk {  // one box between global and shared memory
  TensorMapData map;
  int at[5];
  uint16_t by[3];  // im2col's offsets
  char* shared;
  bool load;
  int agent;
  std::vector<uint64_t*> bars;  // of each block that gets the box
  std::vector<char*> destinations;
};
struct Product {
  WgmmaOp op;
  float a[2][16];  // this thread's two rows, when they came in registers
};

std::unordered_map<uint64_t*, BarState> bars;
std::vector<Bulk> in_flight;                         // loads that have not landed
std::vector<std::vector<std::vector<Bulk>>> stores;  // of each thread: groups, the last one open
std::vector<std::vector<std::vector<Product>>> products;
struct {
  int arrived = 0;
  unsigned phase = 0;
  Clock clock;
  std::vector<Fiber*> waiting;
} cluster_barrier;
std::vector<unsigned> cluster_phase;  // that each thread arrived in

size_t self() { return static_cast<size_t>(cluster.current->index); }
Block& my_block() { return cluster.blocks[static_cast<size_t>(cluster.current->block)]; }

BarState& state_of(uint64_t* bar, const char* what) {
  const auto it = bars.find(bar);
  if (it == bars.end())
    finding(true, "mbarrier", "%s of %s, which was not initialised", what, address_name(bar).c_str());
  return it->second;
}

void settle(uint64_t* bar, BarState& s) {
  auto* b = reinterpret_cast<Bar*>(bar);
  if (b->pending || b->tx_phase >> 1) return;
  b->tx_phase ^= 1;
  b->pending = b->count;
  for (Fiber* f : s.waiting) wake(f);
  s.waiting.clear();
}

// The swizzle exchanges 16-byte chunks by address bits: chunk bits 4.. ^= row bits 7...
size_t swizzled(size_t offset, int swizzle) {
  const size_t mask = swizzle == 128 ? 7 : swizzle == 64 ? 3 : swizzle == 32 ? 1 : 0;
  return offset ^ ((offset >> 7 & mask) << 4);
}

char* block_base(const void* p) {
  for (const Block& b : cluster.blocks)
    if (p >= b.shared && p < b.shared + kSharedBytes) return b.shared;
  finding(true, "out of bounds", "%s is not in shared memory", address_name(p).c_str());
  return nullptr;
}

// The same for a map of pixels: from c.at on through the box between the corners, each read c.by further.
template <class F> void for_pixels(const Bulk& c, const F& f) {
  const TensorMapData& m = c.map;
  const auto item = static_cast<size_t>(m.item);
  int64_t at[4];
  for (int d = 0; d < m.ndim - 1; ++d) at[d] = c.at[d + 1];
  for (uint32_t r = 0; r < m.box[1]; ++r) {
    char* p = m.data;
    bool inside = true;
    for (int d = 0; d < m.ndim - 1; ++d) {
      const int64_t i = at[d] + (d < m.ndim - 2 ? c.by[d] : 0);
      inside &= i >= 0 && i < static_cast<int64_t>(m.size[d + 1]);
      p += i * static_cast<int64_t>(m.stride[d + 1]);
    }
    for (uint32_t i = 0; i < m.box[0]; ++i) {
      const int64_t x = c.at[0] + static_cast<int64_t>(i);
      const bool there = inside && x >= 0 && x < static_cast<int64_t>(m.size[0]);
      f((r * m.box[0] + i) * item, there ? p + x * m.item : nullptr);
    }
    int d = 0;
    for (; d < m.ndim - 2; ++d) {
      at[d] += m.step[d];
      if (at[d] <= static_cast<int64_t>(m.size[d + 1]) - 1 + m.upper[d]) break;
      at[d] = m.lower[d];
    }
    at[m.ndim - 2] += d == m.ndim - 2;
  }
}

// f(bytes of the box before this row, global address or null outside the tensor, bytes) for each row of the box.
template <class F> void for_rows(const Bulk& c, const F& f) {
  const TensorMapData& m = c.map;
  if (m.im2col) return for_pixels(c, f);
  size_t rows = 1;
  for (int d = 1; d < m.ndim; ++d) rows *= m.box[d];
  const size_t item = static_cast<size_t>(m.item);
  for (size_t r = 0; r < rows; ++r) {
    char* p = m.data;
    bool inside = true;
    size_t rest = r;
    for (int d = 1; d < m.ndim; ++d) {
      const int64_t i = c.at[d] + static_cast<int64_t>(rest % m.box[d]);
      rest /= m.box[d];
      inside &= i >= 0 && i < static_cast<int64_t>(m.size[d]);
      p += i * static_cast<int64_t>(m.stride[d]);
    }
    for (uint32_t i = 0; i < m.box[0]; ++i) {
      const int64_t x = c.at[0] + static_cast<int64_t>(i);
      const bool there = inside && x >= 0 && x < static_cast<int64_t>(m.size[0]);
      f((r * m.box[0] + i) * item, there ? p + x * m.item : nullptr);
    }
  }
}

uint32_t round_item(const char* p) {
  float v;
  std::memcpy(&v, p, 4);
  return cuda::round_to_tf32(v);
}

void land(const Bulk& c) {
  const auto item = static_cast<size_t>(c.map.item);
  const size_t places = c.load ? c.destinations.size() : 1;
  size_t bytes = item;
  for (int d = 0; d < (c.map.im2col ? 2 : c.map.ndim); ++d) bytes *= c.map.box[d];
  for (size_t i = 0; i < places; ++i) {
    char* const shared = c.load ? c.destinations[i] : c.shared;
    char* const base = block_base(shared);
    if (kChecked) touch_as(c.agent, shared, bytes, c.load, false);
    for_rows(c, [&](size_t offset, char* global) {
      char* at = base + swizzled(static_cast<size_t>(shared - base) + offset, c.map.swizzle);
      if (kChecked && global) touch_as(c.agent, global, item, !c.load, false);
      if (!c.load && global) std::memcpy(global, at, item);
      else if (c.load && global && c.map.tf32) *reinterpret_cast<uint32_t*>(at) = round_item(global);
      else if (c.load && global) std::memcpy(at, global, item);
      else if (c.load) std::memset(at, 0, item);
    });
    if (!c.load) continue;
    BarState& s = state_of(c.bars[i], "a copy's arrival");
    reinterpret_cast<Bar*>(c.bars[i])->tx_phase -= static_cast<int32_t>(bytes) * 2;
    clock_release(c.agent, &s.clock);
    settle(c.bars[i], s);
  }
}

// The engine of this block goes on from what this thread has seen.
int agent_after_me() {
  const int agent = static_cast<int>(cluster.fibers.size()) + cluster.current->block;
  Clock c;
  clock_release(cluster.current->index, &c);
  clock_acquire(agent, c);
  return agent;
}

void check_box(const TensorMapData& m, const void* shared) {
  const char* base = block_base(shared);
  const auto at = static_cast<size_t>(static_cast<const char*>(shared) - base);
  if (at % 128 != 0) finding(true, "misaligned", "a bulk copy's %s", address_name(shared).c_str());
  if (m.swizzle && m.box[0] * static_cast<uint32_t>(m.item) > static_cast<uint32_t>(m.swizzle))
    finding(true, "tensor map", "rows of %u bytes are longer than the swizzle's %d",
            m.box[0] * static_cast<uint32_t>(m.item), m.swizzle);
}

float value_at(uint64_t descriptor, bool across, int line, int k, const WgmmaOp& op) {
  const size_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
               stride = (descriptor >> 32 & 0x3fff) << 4;
  const int mode = static_cast<int>(descriptor >> 62), swizzle = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 0;
  const auto l = static_cast<size_t>(line), s = static_cast<size_t>(k), item = static_cast<size_t>(op.item);
  size_t at;
  if (!across) {
    const size_t chunk = 16 / item;
    at = swizzle ? start + l / 8 * stride + l % 8 * static_cast<size_t>(swizzle) + s * item
                 : start + l / 8 * stride + s / chunk * leading + l % 8 * 16 + s % chunk * item;
  } else {
    const auto row = static_cast<size_t>(swizzle) / 2;  // items of a row along the lines
    at = swizzle ? start + l / row * leading + s / 8 * stride + s % 8 * row * 2 + l % row * 2
                 : start + l / 8 * stride + s / 8 * leading + s % 8 * 16 + l % 8 * 2;
  }
  const char* p = my_block().shared + swizzled(at, swizzle);
  if ((across ? l : s) * item % 16 == 0) touch(p, 16, false);
  uint32_t bits = 0;
  std::memcpy(&bits, p, item);
  return op.read(bits);
}

void multiply(const Product& p) {
  const WgmmaOp& op = p.op;
  const Fiber& f = *cluster.current;
  const int warp = f.thread / 32 % 4, g = f.lane() / 4, t = f.lane() % 4, K = 32 / op.item;
  float a[2][16];
  for (int r = 0; r < 2; ++r)
    for (int k = 0; k < K; ++k)
      a[r][k] = op.a_in_registers ? p.a[r][k] : value_at(op.a, op.a_across, 16 * warp + g + 8 * r, k, op);
  for (int j = 0; j < op.n / 8; ++j)
    for (int i = 0; i < 2; ++i) {
      float b[16];
      for (int k = 0; k < K; ++k) b[k] = value_at(op.b, op.b_across, 8 * j + 2 * t + i, k, op);
      for (int r = 0; r < 2; ++r) {
        float& d = op.acc[4 * j + 2 * r + i];
        double sum = op.keep ? d : 0;
        for (int k = 0; k < K; ++k) sum += double{a[r][k]} * b[k];
        d = static_cast<float>(sum);
      }
    }
}

}  // namespace

void hopper_begin_cluster() {
  bars.clear();
  in_flight.clear();
  stores.assign(cluster.fibers.size(), {});
  products.assign(cluster.fibers.size(), {});
  cluster_barrier = {};
  cluster_phase.assign(cluster.fibers.size(), 0);
}
void hopper_thread_ends() {
  tma_store_wait(-1, false);
  if (!products[self()].empty() && !products[self()].front().empty())
    finding(true, "wgmma", "this thread returns with products that it did not wait for");
}
bool land_some_async() {
  if (in_flight.empty()) return false;
  const size_t i = cluster.random.below(static_cast<uint32_t>(in_flight.size()));
  const Bulk c = in_flight[i];
  in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(i));
  land(c);
  return true;
}

void mbarrier_init(uint64_t* bar, uint32_t count) {
  block_base(bar);
  touch(bar, 8, true);
  *reinterpret_cast<Bar*>(bar) = {static_cast<uint16_t>(count), static_cast<uint16_t>(count), 0};
  bars[bar] = {};
}
void mbarrier_arrive(uint64_t* bar, uint32_t arrivals, uint32_t expect_bytes) {
  BarState& s = state_of(bar, "an arrival");
  auto* b = reinterpret_cast<Bar*>(bar);
  if (b->pending < arrivals)
    finding(true, "mbarrier", "more than %u arrivals in one phase of %s", b->count, address_name(bar).c_str());
  clock_release(cluster.current->index, &s.clock);
  b->tx_phase += static_cast<int32_t>(expect_bytes) * 2;
  b->pending = static_cast<uint16_t>(b->pending - arrivals);
  settle(bar, s);
  if (cluster.random.below(4) == 0) yield();
}
void mbarrier_wait(uint64_t* bar, uint32_t parity, Site site) {
  BarState& s = state_of(bar, "a wait");
  while ((reinterpret_cast<Bar*>(bar)->tx_phase & 1) == static_cast<int32_t>(parity)) {
    s.waiting.push_back(cluster.current);
    wait("a mbarrier", site);
  }
  clock_acquire(cluster.current->index, s.clock);
}

void* map_shared(void* p, unsigned rank) {
  if (rank >= cluster.blocks.size())
    finding(true, "out of bounds", "block %u of a cluster of %zu", rank, cluster.blocks.size());
  return cluster.blocks[rank].shared + (static_cast<char*>(p) - block_base(p));
}
unsigned cluster_rank() { return static_cast<unsigned>(cluster.current->block); }
unsigned cluster_size() { return static_cast<unsigned>(cluster.blocks.size()); }
void cluster_arrive() {
  auto& b = cluster_barrier;
  cluster_phase[self()] = b.phase;
  clock_release(cluster.current->index, &b.clock);
  if (++b.arrived < static_cast<int>(cluster.fibers.size())) return;
  b.arrived = 0;
  ++b.phase;
  for (Fiber* f : b.waiting) wake(f);
  b.waiting.clear();
}
void cluster_wait(Site site) {
  auto& b = cluster_barrier;
  while (b.phase == cluster_phase[self()]) {
    b.waiting.push_back(cluster.current);
    wait("the cluster's barrier", site);
  }
  clock_acquire(cluster.current->index, b.clock);
}

void tma_load(void* dst, const TensorMapData& map, uint64_t* bar, const int* at, const uint16_t* by, uint16_t blocks) {
  check_box(map, dst);
  Bulk c{map, {}, {}, static_cast<char*>(dst), true, agent_after_me(), {}, {}};
  std::memcpy(c.at, at, sizeof(int) * static_cast<size_t>(map.ndim));
  if (map.im2col != (by != nullptr)) finding(true, "tensor map", "a map of pixels is not one of boxes");
  for (int d = 0; by && d < map.ndim - 2; ++d) {
    c.by[d] = by[d];
    if (at[d + 1] < map.lower[d] || at[d + 1] > static_cast<int64_t>(map.size[d + 1]) - 1 + map.upper[d])
      finding(true, "tensor map", "pixels begin at %d in dimension %d, outside the box between the corners", at[d + 1],
              d + 1);
    if (by[d] >> (map.ndim == 3 ? 16 : map.ndim == 4 ? 8 : 5))
      finding(true, "tensor map", "an offset of %d in %d dimensions", by[d], map.ndim);
  }
  if (!blocks) c.bars = {bar}, c.destinations = {c.shared};
  for (unsigned r = 0; r < cluster.blocks.size(); ++r)
    if (blocks >> r & 1) {
      c.bars.push_back(static_cast<uint64_t*>(map_shared(bar, r)));
      c.destinations.push_back(static_cast<char*>(map_shared(dst, r)));
    }
  for (uint64_t* b : c.bars) state_of(b, "a bulk copy to");
  if (cluster.random.below(2)) land(c);
  else in_flight.push_back(c);
}
void tma_store(const TensorMapData& map, const void* src, const int* at) {
  check_box(map, src);
  Bulk c{map, {}, {}, static_cast<char*>(const_cast<void*>(src)), false, agent_after_me(), {}, {}};
  std::memcpy(c.at, at, sizeof(int) * static_cast<size_t>(map.ndim));
  auto& groups = stores[self()];
  if (groups.empty()) groups.emplace_back();
  if (cluster.random.below(2)) land(c);
  else groups.back().push_back(c);
}
void tma_store_commit() {
  auto& groups = stores[self()];
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
void tma_store_wait(int groups_left, bool) {
  auto& groups = stores[self()];
  while (!groups.empty() && (groups_left < 0 || groups.size() > static_cast<size_t>(groups_left) + 1)) {
    for (const Bulk& c : groups.front()) land(c);
    groups.erase(groups.begin());
  }
  Clock c;  // what the engine has done is done for this thread as well
  clock_release(static_cast<int>(cluster.fibers.size()) + cluster.current->block, &c);
  clock_acquire(cluster.current->index, c);
}
void fence_async() {}

uint64_t descriptor(const void* p, unsigned leading, unsigned stride, int swizzle) {
  const auto at = static_cast<uint64_t>(static_cast<const char*>(p) - block_base(p));
  if (at % 16) finding(true, "misaligned", "a descriptor's %s", address_name(p).c_str());
  const uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
  return (at >> 4 & 0x3fff) | uint64_t{leading >> 4 & 0x3fff} << 16 | uint64_t{stride >> 4 & 0x3fff} << 32 | mode << 62;
}

void wgmma(const WgmmaOp& op, Site site) {
  Product p{op, {}};
  // The warp issues it together; rows in registers are spread over four lanes.
  collective(
      "wgmma", ~0u, &p, &p,
      [](unsigned, const void* const* in, void* const* out, const void*) {
        for (int lane = 0; lane < 32; ++lane)
          for (int r = 0; r < 2; ++r)
            for (int k = 0; k < 16; ++k) {
              const bool half = static_cast<const Product*>(in[lane])->op.item == 2;
              if (!half && k >= 8) break;
              const auto* from = static_cast<const Product*>(in[lane / 4 * 4 + (half ? k % 8 / 2 : k % 4)]);
              const uint32_t bits = from->op.a_registers[r + k / (half ? 8 : 4) * 2] >> (half ? k % 2 * 16 : 0);
              static_cast<Product*>(out[lane])->a[r][k] = from->op.read(bits);
            }
      },
      nullptr, site);
  auto& groups = products[self()];
  if (groups.empty()) groups.emplace_back();
  const bool behind = groups.size() > 1 || !groups.front().empty();
  if (!behind && cluster.random.below(2)) multiply(p);
  else groups.back().push_back(p);
}
void wgmma_commit() {
  auto& groups = products[self()];
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}
void wgmma_wait(int groups_left) {
  auto& groups = products[self()];
  while (groups.size() > static_cast<size_t>(groups_left) + 1) {
    for (const Product& p : groups.front()) multiply(p);
    groups.erase(groups.begin());
  }
}

}  // namespace tw::simt

namespace tw::cuda {

bool make_tensor_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                     const int* box, int swizzle, bool tf32) {
  simt::TensorMapData& m = map->map;
  m = {const_cast<char*>(static_cast<const char*>(data)), {}, {}, {}, ndim, item, swizzle, tf32, false, {}, {}, {}};
  bool valid = reinterpret_cast<uintptr_t>(data) % 16 == 0 && box[0] * item % 16 == 0 && ndim >= 1 && ndim <= 5 &&
               (swizzle == 0 || box[0] * item <= swizzle);
  for (int d = 0; d < ndim; ++d) {
    m.size[d] = static_cast<uint64_t>(sizes[d]);
    m.stride[d] = static_cast<uint64_t>(d ? strides[d - 1] : item);
    m.box[d] = static_cast<uint32_t>(box[d]);
    valid &= sizes[d] > 0 && box[d] > 0 && box[d] <= 256 && (d == 0 || strides[d - 1] % 16 == 0);
  }
  if (!valid) simt::finding(false, "tensor map", "the copy engine cannot take this tensor or box");
  return valid;
}

bool make_pixel_map(TensorMap* map, const void* data, int item, int ndim, const int64_t* sizes, const int64_t* strides,
                    const int* lower, const int* upper, const int* step, int channels, int pixels, int swizzle) {
  simt::TensorMapData& m = map->map;
  m = {const_cast<char*>(static_cast<const char*>(data)), {}, {}, {}, ndim, item, swizzle, false, true, {}, {}, {}};
  m.box[0] = static_cast<uint32_t>(channels), m.box[1] = static_cast<uint32_t>(pixels);
  bool valid = reinterpret_cast<uintptr_t>(data) % 16 == 0 && channels * item % 16 == 0 && ndim >= 3 && ndim <= 5 &&
               channels <= 256 && pixels > 0 && pixels <= 1024 && (swizzle == 0 || channels * item <= swizzle);
  for (int d = 0; d < ndim; ++d) {
    m.size[d] = static_cast<uint64_t>(sizes[d]);
    m.stride[d] = static_cast<uint64_t>(d ? strides[d - 1] : item);
    valid &= sizes[d] > 0 && (d == 0 || strides[d - 1] % 16 == 0);
  }
  const int most = ndim == 3 ? 1 << 15 : ndim == 4 ? 128 : 16;
  for (int d = 0; d < ndim - 2; ++d) {
    m.lower[d] = lower[d], m.upper[d] = upper[d], m.step[d] = step[d];
    valid &= lower[d] >= -most && lower[d] < most && upper[d] >= -most && upper[d] < most;
    valid &= sizes[d + 1] - 1 + upper[d] >= lower[d] && step[d] >= 1 && step[d] <= 8;
  }
  if (!valid) simt::finding(false, "tensor map", "the copy engine cannot take these images or pixels");
  return valid;
}

}  // namespace tw::cuda
