// The walk over elementwise operands; and the kernels that need nothing else: copy (with casts) and where.
//
// Two dimensions of the shape are walked in tiles, the others around them: the innermost gives a tile's columns, and
// its rows run along the next one, or along the dimension in which an operand lies contiguous when it is transposed,
// so that each cache line of that operand is used whole. An operand whose rows are contiguous and of the right dtype is
// read (or written) in place; any other is gathered into a buffer and converted there, so that every op's arithmetic
// runs on contiguous vectors and gives the same bits for any layout.
// Bytes: each operand once, plus cache traffic for staged ones.
// Measured, float32, AVX-512, two cores of a 2-core EPYC guest, of the limit: 1 MB add, relu, where 0.83 to 0.93 (its
// pieces find their cache again, parallel.cpp); 64 MB 0.75 to 0.9, through a buffer of 2 KiB past the caches (in a bare
// loop that stores past them itself no faster: 46 GB/s).
// Turned copies: 4096 x 4096 20 to 25 GB/s, half of the limit, for each row lies in another DRAM page (34 in a bare
// loop; through a buffer 11 to 20, without prefetching 22, in strips of other widths 25 and less); 512 x 512 62 to 72
// GB/s, a third. An op that turns one of two operands adds a pass through its buffer: 0.4 and 0.33. gelu and its like
// stay at 0.1 to 0.4, bound by their arithmetic.
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/transpose.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // elements a thread takes at a time; smaller work stays on the caller's thread
constexpr int64_t kChunk = 1024;     // of a staged tile: the buffers of 4-byte operands stay in half of 32 KiB of cache
constexpr int64_t kStreamChunk = 512;  // ... whose result goes past the caches: add of 64 MB 46 GB/s, at 1024 40
constexpr int64_t kTurned = 4096;  // of a tile with a transposed operand: 64 rows of 64, 256 bytes of float32 at a time
constexpr int64_t kShortRow = 64;  // shorter rows must lie dense, one after the other, to be read in place

using ConvertFn = void (*)(void* dst, const void* src, int64_t n);

template <class D, class S> void convert_block(void* dst, const void* src, int64_t n) {
  convert(static_cast<D*>(dst), static_cast<const S*>(src), n);
}
template <class D> ConvertFn convert_from(DType s) {
  switch (s) {
#define TW_X(S, e, name) \
  case DType::e: return &convert_block<D, S>;
    TW_DTYPES(TW_X)
#undef TW_X
  }
  return nullptr;
}
ConvertFn converter(DType d, DType s) {
  if (d == s) return nullptr;
  switch (d) {
#define TW_X(D, e, name) \
  case DType::e: return convert_from<D>(s);
    TW_DTYPES(TW_X)
#undef TW_X
  }
  return nullptr;
}

// One row: `n` items, `stride` bytes apart in memory and dense in the buffer.
template <class W> TW_INLINE void gather_row(char* dst, const char* src, int64_t stride, int64_t n) {
  constexpr int kLanes = 16 / sizeof(W);
  using V = typename Pack<W, kLanes>::Unaligned;
  W* d = reinterpret_cast<W*>(dst);
  int64_t i = 0;
  if (stride == sizeof(W)) {
    __builtin_memcpy(dst, src, static_cast<size_t>(n) * sizeof(W));
  } else if (stride == 0) {
    W w;
    __builtin_memcpy(&w, src, sizeof w);
    for (; i < n; ++i) d[i] = w;
  } else {
    if (stride == -int64_t(sizeof(W))) {  // a flip
      typename Pack<W, kLanes>::Type reversed = {};
      for (int k = 0; k < kLanes; ++k) reversed[k] = W(kLanes - 1 - k);
      for (; i + kLanes <= n; i += kLanes) {
        const typename Pack<W, kLanes>::Type v = *reinterpret_cast<const V*>(src + (i + kLanes - 1) * stride);
        *reinterpret_cast<V*>(d + i) = __builtin_shuffle(v, reversed);
      }
    }
    for (; i < n; ++i) __builtin_memcpy(d + i, src + i * stride, sizeof(W));
  }
}

// What is fixed about one operand for the whole walk. A null convert: memory has the block function's dtype.
struct Track {
  char* data;
  const int64_t* strides;
  int64_t step, stride;      // bytes from row to row and from column to column
  int64_t size, ready_size;  // of an item in memory and in the block function's dtype
  ConvertFn convert;
  bool constant;  // a scalar, converted into the buffer once
  bool in_place;
  bool stream;  // an output written past the caches
  bool lines;   // ... whose rows all begin alike in their cache lines: a turned copy writes whole ones

  bool dense(int64_t rows, int64_t cols) const { return stride == size && (rows == 1 || step == cols * size); }
  bool turned(int64_t rows) const { return step == size && stride != size && stride != 0 && rows * size >= 16; }
};

constexpr int64_t kAhead = 16;  // source rows that a turned tile prefetches where results go past the caches

template <class W>
void gather_words(const Track& t, char* dst, int64_t pitch, const char* src, int64_t rows, int64_t cols, bool stream,
                  int64_t ahead) {
  constexpr int64_t kSize = sizeof(W);
  if (t.step == 0 && rows > 8 && pitch == cols * kSize) {  // one row, doubled until it fills the tile
    gather_row<W>(dst, src, t.stride, cols);
    for (int64_t done = pitch; done < rows * pitch; done *= 2)
      __builtin_memcpy(dst + done, dst, static_cast<size_t>(least(done, rows * pitch - done)));
  } else if (t.turned(rows)) {
    if (stream) transpose<W, kSquare<W>, kSquare<W> == 64>(dst, pitch, src, t.stride, rows, cols, ahead);
    else transpose<W>(dst, pitch, src, t.stride, rows, cols, ahead);
  } else {
    for (int64_t r = 0; r < rows; ++r) gather_row<W>(dst + r * pitch, src + r * t.step, t.stride, cols);
  }
}
// Whole cache lines past the caches. Meanwhile the lines of the next tile's operands are fetched, which are read after
// it: without that memory would only be read between two tiles' writes.
TW_INLINE void stream_bytes(char* dst, const char* src, int64_t n, const char* const* next, int count) {
  constexpr int64_t kLine = 64;
  const int64_t head = least(n, -reinterpret_cast<int64_t>(dst) & (kLine - 1));
  __builtin_memcpy(dst, src, static_cast<size_t>(head));
  int64_t i = head;
  typedef long long Word __attribute__((vector_size(TW_VEC_BYTES), aligned(1), may_alias));
  for (; i + kLine <= n; i += kLine) {
    for (int k = 0; k < count; ++k) __builtin_prefetch(next[k] + i);
    for (int64_t k = i; k < i + kLine; k += TW_VEC_BYTES)
      stream_register(dst + k, *reinterpret_cast<const Word*>(src + k));
  }
  __builtin_memcpy(dst + i, src + i, static_cast<size_t>(n - i));
}

template <class W>
void scatter_words(const Track& t, char* dst, const char* src, int64_t rows, int64_t cols, const char* const* next,
                   int count) {
  for (int64_t r = 0; r < rows; ++r, dst += t.step, src += cols * int64_t(sizeof(W))) {
    if (t.stream) stream_bytes(dst, src, cols * int64_t(sizeof(W)), next, rows == 1 ? count : 0);
    else if (t.stride == sizeof(W)) __builtin_memcpy(dst, src, static_cast<size_t>(cols) * sizeof(W));
    else
      for (int64_t c = 0; c < cols; ++c) __builtin_memcpy(dst + c * t.stride, src + c * int64_t(sizeof(W)), sizeof(W));
  }
}

// A tile from operand memory into rows `pitch` bytes apart (`stream`: a turned one, past the caches), and back.
void gather(const Track& t, char* dst, int64_t pitch, const char* src, int64_t rows, int64_t cols, bool stream,
            int64_t ahead) {
  switch (t.size) {
    case 1: return gather_words<uint8_t>(t, dst, pitch, src, rows, cols, stream, ahead);
    case 2: return gather_words<uint16_t>(t, dst, pitch, src, rows, cols, stream, ahead);
    case 4: return gather_words<uint32_t>(t, dst, pitch, src, rows, cols, stream, ahead);
    default: return gather_words<uint64_t>(t, dst, pitch, src, rows, cols, stream, ahead);
  }
}
void scatter(const Track& t, char* dst, const char* src, int64_t rows, int64_t cols, const char* const* next,
             int count) {
  switch (t.size) {
    case 1: return scatter_words<uint8_t>(t, dst, src, rows, cols, next, count);
    case 2: return scatter_words<uint16_t>(t, dst, src, rows, cols, next, count);
    case 4: return scatter_words<uint32_t>(t, dst, src, rows, cols, next, count);
    default: return scatter_words<uint64_t>(t, dst, src, rows, cols, next, count);
  }
}

struct alignas(64) Buffers {
  char raw[kTurned * 8];       // gathered, in the memory's dtype
  char ready[4][kTurned * 8];  // in the block function's dtype
};

struct Walk {
  int64_t tile_rows, tile_cols;  // at most
  Track track[4];                // the inputs, then the output
  int inputs;
  BlockFn fn;
  double p0, p1;

  void tile(Buffers& b, char* const* at, int64_t rows, int64_t cols) const {
    const Track& out = track[inputs];
    char* const to = at[inputs];
    Block block;
    block.p0 = p0;
    block.p1 = p1;
    int64_t step[4];
    bool whole = true;  // every operand is one dense run, or a buffer
    for (int k = 0; k < inputs; ++k) {
      const Track& t = track[k];
      block.in[k] = b.ready[k];
      step[k] = t.constant ? 0 : cols * t.ready_size;
      if (t.constant) continue;
      if (t.in_place) {
        block.in[k] = at[k];
        step[k] = t.step;
        whole &= t.dense(rows, cols);
      } else if (!fn && out.in_place && (!t.convert || out.dense(rows, cols))) {  // a copy needs no other buffer
        return fetch(t, to, out.step, b.raw, at[k], rows, cols);
      } else if (!fn && !t.convert && out.lines && t.turned(rows) && reinterpret_cast<int64_t>(to) % 64 == 0) {
        return gather(t, to, out.step, at[k], rows, cols, true, kAhead);
      } else {
        fetch(t, b.ready[k], cols * t.ready_size, b.raw, at[k], rows, cols);
      }
    }
    block.out = out.in_place ? to : b.ready[3];
    step[3] = out.in_place ? out.step : cols * out.ready_size;
    whole &= !out.in_place || out.dense(rows, cols);
    const int64_t runs = whole ? 1 : rows, n = whole ? rows * cols : cols;
    for (int64_t r = 0; r < runs; ++r) {
      if (fn) fn(block, n);
      else __builtin_memmove(block.out, block.in[0], static_cast<size_t>(n * out.ready_size));
      for (int k = 0; k < inputs; ++k) block.in[k] = static_cast<const char*>(block.in[k]) + step[k];
      block.out = static_cast<char*>(block.out) + step[3];
    }
    if (out.in_place) return;
    char* result = b.ready[3];
    if (out.convert) {
      result = out.dense(rows, cols) && !out.stream ? to : b.raw;
      out.convert(result, b.ready[3], rows * cols);
    }
    if (result == to) return;
    const char* next[3];
    int count = 0;
    for (int k = 0; k < inputs; ++k)
      if (track[k].stride == track[k].size && track[k].size == out.size) next[count++] = at[k] + cols * out.size;
    scatter(out, to, result, rows, cols, next, count);
  }

  // A tile in rows `pitch` bytes apart (dense ones where it is converted).
  void fetch(const Track& t, char* ready, int64_t pitch, char* raw, const char* from, int64_t rows,
             int64_t cols) const {
    const int64_t ahead = track[inputs].stream ? kAhead : 0;
    if (!t.convert) return gather(t, ready, pitch, from, rows, cols, false, ahead);
    if (!t.dense(rows, cols)) {
      gather(t, raw, cols * t.size, from, rows, cols, false, ahead);
      from = raw;
    }
    t.convert(ready, from, rows * cols);
  }

  void finish() const { end_stream(track[inputs].stream); }

  void fill_constants(Buffers& b) const {
    for (int k = 0; k < inputs; ++k)
      if (track[k].constant)
        fetch(track[k], b.ready[k], tile_rows * tile_cols * track[k].ready_size, b.raw, track[k].data, 1,
              tile_rows * tile_cols);
  }

  void block(Buffers& b, char* const* at, int64_t rows, int64_t cols) const {
    for (int64_t r = 0; r < rows; r += tile_rows)
      for (int64_t c = 0; c < cols; c += tile_cols) {
        char* p[4];
        for (int k = 0; k <= inputs; ++k) p[k] = at[k] + r * track[k].step + c * track[k].stride;
        tile(b, p, least(tile_rows, rows - r), least(tile_cols, cols - c));
      }
  }
};

// The dimension to tile with the innermost: one in which a transposed input lies contiguous, or else the next outer, or
// the longest when that gives tiles of a few elements.
int tiled_dimension(const ElementwiseArgs& a, bool* transposed) {
  const int last = a.ndim - 1;
  int found = last - 1;
  for (int k = 0; k < a.inputs && !*transposed; ++k) {
    int64_t best = __builtin_llabs(a.in[k].strides[last]);
    for (int d = 0; d < last; ++d) {
      const int64_t s = __builtin_llabs(a.in[k].strides[d]);
      if (s == 0 || s >= best) continue;
      best = s;
      found = d;
      *transposed = true;
    }
  }
  if (!*transposed && a.shape[found] * a.shape[last] < kShortRow)
    for (int d = 0; d < last; ++d)
      if (a.shape[d] > a.shape[found]) found = d;
  return found;
}

}  // namespace

void walk(const ElementwiseArgs& a, BlockFn fn, const Signature& types) {
  Walk w;
  w.inputs = a.inputs;
  w.fn = fn;
  w.p0 = a.p0;
  w.p1 = a.p1;
  const int last = a.ndim - 1;
  bool transposed = false;
  const int down = last > 0 ? tiled_dimension(a, &transposed) : -1;
  const int64_t cols = a.shape[last], rows = down < 0 ? 1 : a.shape[down];
  const bool short_rows = cols < kShortRow && down >= 0;
  bool staged = false;
  int64_t bytes = static_cast<int64_t>(itemsize(a.out.dtype));
  for (int k = 0; k <= last; ++k) bytes *= a.shape[k];
  const bool stream = bytes >= kStreamBytes && cols * static_cast<int64_t>(itemsize(a.out.dtype)) >= 128;
  const auto track = [&](const Operand& o, DType ready, bool is_output) {
    Track t;
    t.data = static_cast<char*>(o.data);
    t.strides = o.strides;
    t.step = down < 0 ? 0 : o.strides[down];
    t.stride = o.strides[last];
    t.size = static_cast<int64_t>(itemsize(o.dtype));
    t.ready_size = static_cast<int64_t>(itemsize(ready));
    t.convert = is_output ? converter(o.dtype, ready) : converter(ready, o.dtype);
    t.constant = !is_output;
    for (int k = 0; k <= last; ++k) t.constant &= o.strides[k] == 0;
    t.stream = is_output && stream && t.stride == t.size;
    t.lines = t.stream && !t.convert && TW_VEC_BYTES == 64 && t.size >= 4;
    for (int k = 0; k < last; ++k) t.lines &= o.strides[k] % 64 == 0;
    t.in_place = !t.convert && !t.stream && (short_rows ? t.dense(rows, cols) : t.stride == t.size);
    staged |= !t.in_place;
    return t;
  };
  // A Python number is passed by value, as both an integer and a float; it has the compute dtype already.
  alignas(8) char scalar[8];
  for (int k = 0; k < a.inputs; ++k) {
    w.track[k] = track(a.in[k], types.in[k], false);
    if (a.in[k].data) continue;
    const DType want = types.in[k];
    if (is_float(want))
      converter(want, DType::kFloat64) ? converter(want, DType::kFloat64)(scalar, &a.scalar_float, 1)
                                       : static_cast<void>(__builtin_memcpy(scalar, &a.scalar_float, 8));
    else
      converter(want, DType::kInt64) ? converter(want, DType::kInt64)(scalar, &a.scalar_int, 1)
                                     : static_cast<void>(__builtin_memcpy(scalar, &a.scalar_int, 8));
    w.track[k].data = scalar;
    w.track[k].size = w.track[k].ready_size;
    w.track[k].convert = nullptr;
  }
  w.track[w.inputs] = track(a.out, types.out, true);

  if (down < 0 && !staged && fn)  // most launches
    return parallel_ranges(cols, kPiece, [&](int64_t begin, int64_t end) {
      Block block;
      block.p0 = a.p0;
      block.p1 = a.p1;
      for (int k = 0; k < a.inputs; ++k) block.in[k] = w.track[k].data + begin * w.track[k].size;
      block.out = w.track[a.inputs].data + begin * w.track[a.inputs].size;
      fn(block, end - begin);
    });
  if (down < 0) {
    w.tile_rows = 1;
    w.tile_cols = least(cols, stream ? kStreamChunk : staged ? kChunk : kPiece);
    return parallel_ranges(cols, kPiece, [&](int64_t begin, int64_t end) {
      Buffers b;
      w.fill_constants(b);
      char* at[4];
      for (int k = 0; k <= w.inputs; ++k) at[k] = w.track[k].data + begin * w.track[k].stride;
      w.block(b, at, 1, end - begin);
      w.finish();
    });
  }
  // Blocks of kPiece elements, small ones several to a thread. With a transposed operand a block is one tile wide, so
  // that each tile reads on where the one above it left off.
  const int64_t chunk = transposed ? kTurned : stream ? kStreamChunk : kChunk;
  const int64_t block_cols = least(cols, transposed ? chunk / least(rows, 64) : kPiece);
  const int64_t block_rows = least(rows, kPiece / block_cols);
  w.tile_cols = staged ? least(block_cols, chunk) : block_cols;
  w.tile_rows = staged ? least(block_rows, chunk / w.tile_cols) : block_rows;
  int order[kMaxDims];  // the dimensions from the outermost on, the tiled ones last
  int64_t unit[kMaxDims], count[kMaxDims], blocks = 1;
  for (int k = 0, n = 0; k < last; ++k)
    if (k != down) order[n++] = k;
  order[last - 1] = down;
  order[last] = last;
  for (int d = 0; d <= last; ++d) {
    unit[d] = d == last ? block_cols : d == last - 1 ? block_rows : 1;
    count[d] = a.shape[order[d]] > unit[d] ? ceil_div(a.shape[order[d]], unit[d]) : 1;  // a division costs 3 ns
    blocks *= count[d];
  }
  parallel_ranges(blocks, kPiece / (block_rows * block_cols), [&](int64_t begin, int64_t end) {
    Buffers b;
    w.fill_constants(b);
    int64_t index[kMaxDims], rest = begin;
    char* at[4];
    const auto move = [&](int d, int64_t by) {
      for (int k = 0; k <= w.inputs; ++k) at[k] += by * unit[d] * w.track[k].strides[order[d]];
    };
    for (int k = 0; k <= w.inputs; ++k) at[k] = w.track[k].data;
    for (int d = last; d >= 0; --d) {
      index[d] = 0;
      if (rest == 0) continue;
      index[d] = rest % count[d];
      rest /= count[d];
      move(d, index[d]);
    }
    for (int64_t left = end - begin;;) {
      w.block(b, at, least(block_rows, rows - index[last - 1] * block_rows),
              least(block_cols, cols - index[last] * block_cols));
      if (--left == 0) return w.finish();
      for (int d = last;; --d) {
        move(d, 1);
        if (++index[d] < count[d]) break;
        move(d, -count[d]);
        index[d] = 0;
      }
    }
  });
}

void copy(const ElementwiseArgs& a) {
  const DType t = a.out.dtype;
  walk(a, nullptr, {{t, t, t}, t});
}

namespace {
// Both values are read and a mask picks: no branch, so the loop runs on vectors. ivdep: y may be x0 or x1 itself.
template <class W> void where_block(const Block& b, int64_t n) {
  const uint8_t* c = static_cast<const uint8_t*>(b.in[0]);
  const W* x0 = static_cast<const W*>(b.in[1]);
  const W* x1 = static_cast<const W*>(b.in[2]);
  W* y = static_cast<W*>(b.out);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const W u = x0[i], v = x1[i];
    y[i] = W(v ^ ((u ^ v) & W(-W(c[i]))));
  }
}
}  // namespace

// y = c ? x0 : x1, bits moved as they are: NaN payloads and any dtype pass through.
void where(const ElementwiseArgs& a) {
  const DType t = a.out.dtype;
  const Signature types{{DType::kBool, t, t}, t};
  switch (itemsize(t)) {
    case 1: return walk(a, &where_block<uint8_t>, types);
    case 2: return walk(a, &where_block<uint16_t>, types);
    case 4: return walk(a, &where_block<uint32_t>, types);
    default: return walk(a, &where_block<uint64_t>, types);
  }
}

}  // namespace tw::TW_ISA
