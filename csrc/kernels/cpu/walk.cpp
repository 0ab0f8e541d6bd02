// The walk over elementwise operands; and the kernels that need nothing else: copy (with casts) and where.
//
// The linear index range is cut into pieces for the threads and these into chunks that fit the first-level cache. An
// operand that is contiguous and of the right dtype is read (or written) in place; any other is gathered into a buffer
// and converted there, so that every op's arithmetic runs on contiguous vectors and gives the same bits for any layout.
// Bytes: each operand once, plus cache traffic for staged ones.
#include "kernels/cpu/elementwise.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 15;  // elements a thread takes at a time; smaller work stays on the caller's thread
constexpr int64_t kChunk = 512;      // 4 KiB of doubles: four operands, raw and converted, stay in 32 KiB of cache
constexpr int64_t kShortRow = 64;    // rows shorter than this are gathered several to a chunk

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

template <class W> TW_INLINE void gather_words(char* dst, const char* src, int64_t stride, int64_t n) {
  W* d = reinterpret_cast<W*>(dst);
  if (stride == 0) {
    W w;
    __builtin_memcpy(&w, src, sizeof w);
    for (int64_t i = 0; i < n; ++i) d[i] = w;
  } else {
    for (int64_t i = 0; i < n; ++i) __builtin_memcpy(d + i, src + i * stride, sizeof(W));
  }
}
template <class W> TW_INLINE void scatter_words(char* dst, const char* src, int64_t stride, int64_t n) {
  const W* s = reinterpret_cast<const W*>(src);
  for (int64_t i = 0; i < n; ++i) __builtin_memcpy(dst + i * stride, s + i, sizeof(W));
}

void gather(char* dst, const char* src, int64_t stride, int64_t n, int64_t size) {
  if (stride == size) {
    __builtin_memcpy(dst, src, static_cast<size_t>(n * size));
    return;
  }
  switch (size) {
    case 1: return gather_words<uint8_t>(dst, src, stride, n);
    case 2: return gather_words<uint16_t>(dst, src, stride, n);
    case 4: return gather_words<uint32_t>(dst, src, stride, n);
    default: return gather_words<uint64_t>(dst, src, stride, n);
  }
}
void scatter(char* dst, const char* src, int64_t stride, int64_t n, int64_t size) {
  if (stride == size) {
    __builtin_memcpy(dst, src, static_cast<size_t>(n * size));
    return;
  }
  switch (size) {
    case 1: return scatter_words<uint8_t>(dst, src, stride, n);
    case 2: return scatter_words<uint16_t>(dst, src, stride, n);
    case 4: return scatter_words<uint32_t>(dst, src, stride, n);
    default: return scatter_words<uint64_t>(dst, src, stride, n);
  }
}

// What is fixed about one operand for the whole walk.
struct Track {
  char* data;
  const int64_t* strides;
  int64_t size;       // of an item in memory
  ConvertFn convert;  // memory <-> the block function's dtype; null when they are the same
  bool constant;      // a scalar, converted into the buffer once
  bool flat;          // contiguous over the whole shape: linear index * size is its address
};

struct Shape {
  const int64_t* d;
  int n;
};

// Where the linear index `i` of operand `t` lies.
char* locate(const Track& t, const Shape& s, int64_t i) {
  char* p = t.data;
  for (int k = s.n - 1; k >= 0; --k) {
    p += i % s.d[k] * t.strides[k];
    i /= s.d[k];
  }
  return p;
}

// Copies `n` items from the linear index `i` on between operand memory and a dense buffer, row by row.
template <bool kGather> void transfer(const Track& t, const Shape& s, int64_t i, int64_t n, char* dense) {
  const int64_t row = s.d[s.n - 1], stride = t.strides[s.n - 1];
  while (n > 0) {
    const int64_t run = least(row - i % row, n);
    char* p = locate(t, s, i);
    if constexpr (kGather) gather(dense, p, stride, run, t.size);
    else scatter(p, dense, stride, run, t.size);
    dense += run * t.size;
    i += run;
    n -= run;
  }
}

struct alignas(64) Buffers {
  char raw[kChunk * 8];       // gathered, in the memory's dtype
  char ready[4][kChunk * 8];  // in the block function's dtype
};

struct Walk {
  Shape shape;
  Track in[3], out;
  int inputs;
  BlockFn fn;
  int64_t ready_size;  // of the output's item in the block function's dtype
  double p0, p1;
  bool rows;  // chunks stay within rows

  bool in_place(const Track& t) const { return !t.convert && (t.flat || (rows && t.strides[shape.n - 1] == t.size)); }

  // The operand's n items from linear index i on, dense and converted.
  const void* fetch(const Track& t, char* ready, char* raw, int64_t i, int64_t n) const {
    if (t.constant) return ready;
    if (in_place(t)) return t.flat ? t.data + i * t.size : locate(t, shape, i);
    if (t.flat) {
      t.convert(ready, t.data + i * t.size, n);
      return ready;
    }
    if (!t.convert) {
      transfer<true>(t, shape, i, n, ready);
      return ready;
    }
    transfer<true>(t, shape, i, n, raw);
    t.convert(ready, raw, n);
    return ready;
  }

  void chunk(Buffers& b, int64_t i, int64_t n) const {
    Block block;
    block.p0 = p0;
    block.p1 = p1;
    for (int k = 0; k < inputs; ++k) block.in[k] = fetch(in[k], b.ready[k], b.raw, i, n);
    const bool direct = in_place(out);
    char* target = out.flat ? out.data + i * out.size : direct ? locate(out, shape, i) : nullptr;
    const void* result = block.in[0];
    if (fn) {
      block.out = direct ? target : b.ready[3];
      fn(block, n);
      result = block.out;
    } else if (direct) {
      __builtin_memmove(target, result, static_cast<size_t>(n * out.size));
    }
    if (direct) return;
    if (out.convert) {
      char* to = out.flat ? target : b.raw;
      out.convert(to, result, n);
      result = to;
    }
    if (!out.flat) transfer<false>(out, shape, i, n, static_cast<char*>(const_cast<void*>(result)));
  }

  void piece(int64_t begin, int64_t end) const {
    Buffers b;
    bool staged = !in_place(out);
    for (int k = 0; k < inputs; ++k) {
      staged |= !in_place(in[k]);
      if (in[k].constant) {
        const Track& t = in[k];
        if (t.convert) {
          gather(b.raw, t.data, 0, kChunk, t.size);
          t.convert(b.ready[k], b.raw, kChunk);
        } else gather(b.ready[k], t.data, 0, kChunk, t.size);
      }
    }
    const int64_t row = shape.d[shape.n - 1], most = staged ? kChunk : end - begin;
    for (int64_t i = begin; i < end;) {
      const int64_t n = least(least(end - i, most), rows && shape.n > 1 ? row - i % row : end - i);
      chunk(b, i, n);
      i += n;
    }
  }
};

}  // namespace

void walk(const ElementwiseArgs& a, BlockFn fn, const Signature& types) {
  Walk w;
  w.shape = {a.shape, a.ndim};
  w.inputs = a.inputs;
  w.fn = fn;
  w.p0 = a.p0;
  w.p1 = a.p1;
  w.rows = a.shape[a.ndim - 1] >= kShortRow || a.ndim == 1;
  int64_t total = 1;
  for (int k = 0; k < a.ndim; ++k) total *= a.shape[k];
  const auto track = [&](const Operand& o, DType want, bool to_memory) {
    Track t;
    t.data = static_cast<char*>(o.data);
    t.strides = o.strides;
    t.size = static_cast<int64_t>(itemsize(o.dtype));
    t.convert = to_memory ? converter(o.dtype, want) : converter(want, o.dtype);
    t.constant = true;
    t.flat = true;
    int64_t step = t.size;
    for (int k = a.ndim - 1; k >= 0; --k) {
      if (a.shape[k] == 1) continue;
      t.flat &= o.strides[k] == step;
      t.constant &= o.strides[k] == 0;
      step *= a.shape[k];
    }
    if (to_memory || total == 1) t.constant = false;
    return t;
  };
  // A Python number is passed by value, as both an integer and a float; it has the compute dtype already.
  alignas(8) char scalar[8];
  for (int k = 0; k < a.inputs; ++k) {
    w.in[k] = track(a.in[k], types.in[k], false);
    if (a.in[k].data) continue;
    const DType want = types.in[k];
    if (is_float(want))
      converter(want, DType::kFloat64) ? converter(want, DType::kFloat64)(scalar, &a.scalar_float, 1)
                                       : static_cast<void>(__builtin_memcpy(scalar, &a.scalar_float, 8));
    else
      converter(want, DType::kInt64) ? converter(want, DType::kInt64)(scalar, &a.scalar_int, 1)
                                     : static_cast<void>(__builtin_memcpy(scalar, &a.scalar_int, 8));
    w.in[k].data = scalar;
    w.in[k].size = static_cast<int64_t>(itemsize(want));
    w.in[k].convert = nullptr;
    w.in[k].constant = true;
  }
  w.out = track(a.out, types.out, true);
  parallel_ranges(total, kPiece, [&](int64_t begin, int64_t end) { w.piece(begin, end); });
}

void copy(const ElementwiseArgs& a) {
  const DType t = a.out.dtype;
  walk(a, nullptr, {{t, t, t}, t});
}

namespace {
template <class W> void where_block(const Block& b, int64_t n) {
  const bool* c = static_cast<const bool*>(b.in[0]);
  const W* x0 = static_cast<const W*>(b.in[1]);
  const W* x1 = static_cast<const W*>(b.in[2]);
  W* y = static_cast<W*>(b.out);
  for (int64_t i = 0; i < n; ++i) y[i] = c[i] ? x0[i] : x1[i];
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
