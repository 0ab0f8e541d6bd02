// The thread pool, as kernels see it. Plain functions only: this header is compiled once per ISA level, and the
// template that wraps a lambda lives in kernels/cpu/loops.h, inside the level's namespace.
//
// Work is cut into pieces by size, never by thread count, so a result has the same bits for any number of threads.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tw {

// Runs body(context, i) once for each i in [0, pieces), on this thread and the pool's. Returns when all are done.
// Called from inside a body, it runs the pieces in order on the calling thread. A body must not throw.
void parallel_run(int64_t pieces, void (*body)(void* context, int64_t piece), void* context);

// For the n-th look (0, 1, ...) at what another thread is about to write: pauses, and later gives its CPU away.
void wait_a_little(int64_t n);

// Scratch memory of the calling thread: 64-byte aligned, uninitialised, valid until the same thread asks for the same
// slot again. A kernel that fills a buffer and then calls parallel_run, whose bodies take scratch too, uses another
// slot for it, since the calling thread runs bodies as well.
constexpr int kScratchSlots = 6;
void* scratch(int slot, size_t bytes);

int num_threads();
void set_num_threads(int n);  // n >= 1; the caller counts as one of them
int available_cores();        // by affinity and cgroup quota

}  // namespace tw
