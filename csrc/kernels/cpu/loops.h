// What the CPU kernels share besides vectors: the parallel loop and the choice of a type by dtype.
#pragma once
#include "kernel_table.h"
#include "parallel.h"

namespace tw::TW_ISA {

// body(piece) for each piece in [0, pieces), over the pool's threads. The number of pieces must depend on sizes alone.
template <class F> TW_INLINE void parallel_for(int64_t pieces, F&& body) {
  if (pieces == 1) return body(int64_t{0});
  using Body = __typeof__(body);
  parallel_run(
      pieces, [](void* f, int64_t piece) { (*static_cast<Body*>(f))(piece); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

TW_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
TW_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// n items in pieces of `grain`: body(begin, end).
template <class F> TW_INLINE void parallel_ranges(int64_t n, int64_t grain, F&& body) {
  parallel_for(ceil_div(n, grain), [&](int64_t piece) { body(piece * grain, least(n, (piece + 1) * grain)); });
}

}  // namespace tw::TW_ISA
