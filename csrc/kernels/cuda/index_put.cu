// Indexing that writes: take_backward (sums of rows by index), scatter along a dimension, index_put (several index
// arrays at once).
//
//   take_backward  y[o, index[i], :] += x[o, i, :]              y (outer, n, inner)
//   scatter        y[o, index[o, i, k], k] (+)= x[o, i, k]      the same
//   index_put      y[index0[i], index1[i], ..., :] (+)= x[i, :] y of any strides
//
// Adding forms take float32, float64 and integers, in the array's own type, which wraps; what overwrites moves as bits
// of any dtype, and the last position wins. A launch with a bad index leaves y as it was: a first one checks all of them
// (a verdict a block) and writes keys, the place that each position goes to; the others end at a bad verdict.
// Equal keys are taken in the order of positions: few positions are walked by a thread a column. Else the keys are
// sorted (radix.cu; a stable sort keeps the order), and the thread of the first position of a run of equal keys adds
// them up. A run is summed in pieces of kPiece positions, whose sums are added in order, so that a long run is not one
// thread's. No float atomics: the same bits in every run. Error of n additions to one place: (kPiece + n / kPiece) 2^-24
// of the sum of magnitudes (test_cuda_index.py).
// Bytes: x once, y twice, about 100 an index for the sort. Words of 16 bytes where both sides allow.
#include "kernels/cuda/index.cuh"

namespace tw::cuda {
namespace {

constexpr int64_t kPiece = 256;
constexpr int64_t kFewRows = 64, kFewItems = 256, kManyColumns = 1 << 16;  // when walking beats sorting
constexpr unsigned kMostVerdicts = kThreads;

// --- keys: where each position goes --
// Written by at most kMostVerdicts blocks, each of which tells whether all of its indices are good.
struct Keys {
  void* data;
  int* bad;  // (verdicts)
  unsigned verdicts;
  bool wide;  // 64-bit keys
  TW_DEVICE int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : int64_t(static_cast<const uint32_t*>(data)[i]);
  }
  TW_DEVICE bool refused() const { return __syncthreads_or(threadIdx.x < verdicts && bad[threadIdx.x]); }
};

struct ScatterPlaces {
  const int64_t* index;
  int64_t n, inner, rows;  // rows: count * inner
  Faults faults;
  template <int N> TW_DEVICE void add_to(int64_t (&at)[N], const int64_t (&i)[N], bool (&good)[N]) const {
#pragma unroll
    for (int u = 0; u < N; ++u) at[u] = good[u] ? index[i[u]] : 0;
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (!good[u]) continue;
      if (at[u] < 0 || at[u] >= n) {
        faults.report(at[u], 0, n, i[u]);
        good[u] = false;
        continue;
      }
      const int64_t k = inner == 1 ? 0 : i[u] - divide(i[u], inner) * inner;
      at[u] = (divide(i[u], rows) * n + at[u]) * inner + k;
    }
  }
};

template <class Places>
__global__ void __launch_bounds__(kThreads)
    write_keys(const __grid_constant__ Places places, Keys keys, int64_t items) {
  const int64_t step = int64_t(gridDim.x) * kThreads;
  bool bad = false;
  for (int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x; first < items; first += kAhead * step) {
    int64_t at[kAhead] = {}, i[kAhead];
    bool good[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      i[u] = first + u * step;
      good[u] = i[u] < items;
    }
    places.add_to(at, i, good);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (i[u] >= items) continue;
      bad |= !good[u];
      if (keys.wide) static_cast<int64_t*>(keys.data)[i[u]] = good[u] ? at[u] : 0;
      else static_cast<uint32_t*>(keys.data)[i[u]] = good[u] ? uint32_t(at[u]) : 0u;
    }
  }
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) keys.bad[blockIdx.x] = bad;
}

// --- into an array --
// Position i and column c: y[keys[i] * to_key + to(c)] (+)= x[i * from_position + from(c)]. Where `own`, each column has
// keys of its own: those of its items in x, and they are whole offsets.
struct Put {
  const void* x;
  void* y;
  int64_t count, from_position, to_key;
  Shape columns;
  bool own, add, positions_inside;  // positions_inside: of neighbouring threads, that is, not columns
  Keys keys;
};

template <class T, int P> TW_DEVICE Vector<T, P> plus(Vector<T, P> a, const Vector<T, P>& b) {
#pragma unroll
  for (int j = 0; j < P; ++j) a[j] = T(a[j] + b[j]);
  return a;
}

// Item w of a grid of `positions` x columns.
TW_DEVICE int64_t split(const Put& p, int64_t w, int64_t positions, int64_t* column) {
  const int64_t inside = p.positions_inside ? positions : p.columns.items, q = divide(w, inside), r = w - q * inside;
  *column = p.positions_inside ? q : r;
  return p.positions_inside ? r : q;
}

// Each thread walks `span` positions of a column: all of them, or one where no two keys are equal.
template <class T, int P>
__global__ void __launch_bounds__(kThreads, 3) walk(const __grid_constant__ Put p, int64_t span) {
  if (p.keys.refused()) return;
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  const int64_t spans = span == 1 ? p.count : 1, work = spans * p.columns.items;
  for (int64_t w = int64_t(blockIdx.x) * kThreads + threadIdx.x; w < work; w += int64_t(gridDim.x) * kThreads) {
    int64_t column, from = 0, to = 0;
    const int64_t begin = split(p, w, spans, &column) * span, end = begin + span;
    p.columns.locate(column, &from, &to);
    for (int64_t i = begin; i < end; i += kAhead) {
      Vector<T, P> v[kAhead];
      int64_t at[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (i + u >= end) break;
        const int64_t source = (i + u) * p.from_position + from;
        at[u] = p.own ? p.keys[source] : p.keys[i + u] * p.to_key + to;
        v[u] = load_vector<P>(x + source);
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (i + u >= end) break;
        store_vector(y + at[u], p.add ? plus(load_vector<P>(y + at[u]), v[u]) : v[u]);
      }
    }
  }
}

// Sorted keys of either width, and their positions.
struct Runs {
  const void *keys0, *keys1;
  const uint32_t *at0, *at1, *varies;
  bool wide;
  template <class K>
  explicit Runs(const Pairs<K>& p)
      : keys0(p.keys0), keys1(p.keys1), at0(p.at0), at1(p.at1), varies(p.varies), wide(sizeof(K) == 8) {}
};
// As one thread sees them.
struct RunView {
  const void* keys;
  const uint32_t* at;  // null: in order from the beginning
  bool wide;
  TW_DEVICE explicit RunView(const Runs& r) : wide(r.wide) {
    const int moves = __popc(*r.varies);
    keys = moves & 1 ? r.keys1 : r.keys0;
    at = moves == 0 ? nullptr : moves & 1 ? r.at1 : r.at0;
  }
  TW_DEVICE int64_t key(int64_t s) const {
    return wide ? static_cast<const int64_t*>(keys)[s] : int64_t(static_cast<const uint32_t*>(keys)[s]);
  }
  TW_DEVICE int64_t position(int64_t s) const { return at ? int64_t(at[s]) : s; }
};

// sum += value(s) for the s from begin on whose slot s * stride has the key; whether all up to end have.
template <class T, int P, class Value>
TW_DEVICE bool add_run(Vector<T, P>& sum, int64_t begin, int64_t end, int64_t stride, int64_t key, const RunView& runs,
                       const Value& value) {
  for (int64_t s = begin; s < end; s += kAhead) {
    Vector<T, P> v[kAhead];
    bool same[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      same[u] = s + u < end && runs.key((s + u) * stride) == key;
      if (same[u]) v[u] = value(s + u);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (same[u]) sum = plus(sum, v[u]);
      else if (s + u < end) return false;
    }
  }
  return true;
}

// First (`pieces`, where there is more than one) the sums of the pieces that go on with a run begun before them; then
// each run, by the thread of its first slot. What overwrites is written by that of its last one.
template <class T, int P>
__global__ void __launch_bounds__(kThreads)
    put_runs(const __grid_constant__ Put p, const __grid_constant__ Runs r, T* partial, bool pieces) {
  if (p.keys.refused()) return;
  const RunView runs(r);
  const T* x = static_cast<const T*>(p.x);
  const int64_t positions = pieces ? ceil_div(p.count, kPiece) : p.count, work = positions * p.columns.items;
  for (int64_t w = int64_t(blockIdx.x) * kThreads + threadIdx.x; w < work; w += int64_t(gridDim.x) * kThreads) {
    int64_t column, from = 0, to = 0;
    const int64_t begin = split(p, w, positions, &column) * (pieces ? kPiece : 1), key = runs.key(begin);
    const bool goes_on = begin > 0 && runs.key(begin - 1) == key;
    if (p.add ? goes_on != pieces : begin + 1 < p.count && runs.key(begin + 1) == key) continue;
    p.columns.locate(column, &from, &to);
    const auto item = [&](int64_t s) { return load_vector<P>(x + runs.position(s) * p.from_position + from); };
    const auto piece_sum = [&](int64_t piece) {
      return load_vector<P>(partial + (piece * p.columns.items + column) * P);
    };
    T* const place = static_cast<T*>(p.y) + key * p.to_key + to;
    if (!p.add) {
      store_vector(place, item(begin));
      continue;
    }
    const int64_t next = begin / kPiece + 1, end = least(p.count, next * kPiece);
    if (pieces) {
      Vector<T, P> sum = item(begin);
      add_run(sum, begin + 1, end, 1, key, runs, item);
      store_vector(partial + ((next - 1) * p.columns.items + column) * P, sum);
    } else {
      Vector<T, P> sum = plus(load_vector<P>(place), item(begin));
      if (add_run(sum, begin + 1, end, 1, key, runs, item))
        add_run(sum, next, ceil_div(p.count, kPiece), kPiece, key, runs, piece_sum);
      store_vector(place, sum);
    }
  }
}

template <class T, int P> void launch_put(const Put& p, int64_t span, const Runs* runs) {
  const Stream stream = current_stream();
  const auto blocks = [](int64_t work) { return persistent_blocks(ceil_div<int64_t>(work, kThreads), 16); };
  if (!runs)
    return launch_kernel<walk<T, P>>(blocks((span == 1 ? p.count : 1) * p.columns.items), kThreads, 0, stream, p, span);
  const int64_t pieces = p.add ? ceil_div(p.count, kPiece) : 1;
  const Workspace partial(pieces > 1 ? static_cast<size_t>(pieces * p.columns.items) * P * sizeof(T) : 0);
  if (pieces > 1)
    launch_kernel<put_runs<T, P>>(blocks(pieces * p.columns.items), kThreads, 0, stream, p, *runs, partial.as<T>(),
                                  true);
  launch_kernel<put_runs<T, P>>(blocks(p.count * p.columns.items), kThreads, 0, stream, p, *runs, partial.as<T>(),
                                false);
}
void launch_put(const Put& p, DType t, int word, int64_t span, const Runs* runs) {
  if (p.add && t == DType::kFloat32) return (word == 16 ? launch_put<float, 4> : launch_put<float, 1>)(p, span, runs);
  if (p.add && t == DType::kFloat64) return (word == 16 ? launch_put<double, 2> : launch_put<double, 1>)(p, span, runs);
  switch (word) {
    case 1: return launch_put<uint8_t, 1>(p, span, runs);
    case 2: return launch_put<uint16_t, 1>(p, span, runs);
    case 4: return launch_put<uint32_t, 1>(p, span, runs);
    case 8: return launch_put<uint64_t, 1>(p, span, runs);
    default: return launch_put<uint64_t, 2>(p, span, runs);
  }
}

// Keys below `range` for `items` positions, then what is put by them. Sorting takes fewer than 2^31 positions.
template <class Places>
void put(Put p, const Places& places, int64_t items, uint64_t range, DType t, int word, int64_t span, bool walks) {
  const unsigned blocks = least(kMostVerdicts, blocks_for(items));
  const bool wide = range > uint64_t{1} << 32;
  const Workspace memory(kMostVerdicts * sizeof(int) + (walks ? static_cast<size_t>(items) * (wide ? 8 : 4) : 0));
  p.keys = {memory.as<int>() + kMostVerdicts, memory.as<int>(), blocks, wide};
  const auto write = [&](void* keys) {
    p.keys.data = keys;
    launch_kernel<write_keys<Places>>(blocks, kThreads, 0, current_stream(), places, p.keys, items);
  };
  if (walks) {
    write(p.keys.data);
    return launch_put(p, t, word, span, nullptr);
  }
  int digits = 0;
  while (digits < 8 && (range - 1) >> (8 * digits)) ++digits;
  const auto sorted = [&](const auto& sort) {
    write(sort.pairs().keys0);
    sort.run(digits);
    const Runs runs(sort.pairs());
    launch_put(p, t, word, span, &runs);
  };
  if (wide) sorted(RadixSort<uint64_t>(1, items));
  else sorted(RadixSort<uint32_t>(1, items));
}

// The bytes of a word that moves (or is added) at once. Strides, p's and the selector's, become counts of the type that
// launch_put takes for it.
int choose_word(Put* p, Selector* s, DType t) {
  const int size = static_cast<int>(itemsize(t));
  Width width(size, p->columns);
  width.fit(p->from_position);
  width.fit(p->x, size);
  width.fit(p->y, size);
  if (p->to_key != 1) width.fit(p->to_key);
  else
    for (int k = 0; k < s->indexed; ++k) width.fit(s->stride[k]);  // keys are offsets
  if (p->add && (!is_float(t) || width.items * size < 16)) width.items = 1;
  const int word = width.items * size, unit = p->add ? size : least(word, 8);
  const auto scale = [&](int64_t* v) { *v = *v * size / unit; };
  Shape& c = p->columns;
  c.items /= width.items;
  if (width.items > 1) {
    c.size[0] /= width.items;
    c.from[0] = c.to[0] = word / unit;
    for (int d = 1; d < c.n; ++d) scale(&c.from[d]), scale(&c.to[d]);
    scale(&p->from_position);
    if (p->to_key != 1) scale(&p->to_key);
    else
      for (int k = 0; k < s->indexed; ++k) scale(&s->stride[k]);
  }
  p->positions_inside = c.n > 0 && c.to[0] != word / unit;
  return word;
}

}  // namespace

void take_backward(const TakeArgs& a) {
  *a.bad = -1;
  Put p{a.x, a.y, a.count, a.inner, a.inner, {}, false, true, false, {}};
  p.columns.push(a.inner, 1, 1);
  p.columns.push(a.outer, a.count * a.inner, a.n * a.inner);
  Selector s = selector(a, 1);
  const int word = choose_word(&p, &s, a.dtype);
  const bool walks = a.count <= kFewRows || a.count >= INT64_C(1) << 31;
  put(p, s, a.count, static_cast<uint64_t>(a.n), a.dtype, word, a.count, walks);
}

void scatter(const GatherArgs& a) {
  *a.bad = -1;
  const int64_t items = a.outer * a.count * a.inner, columns = a.outer * a.inner;
  const ScatterPlaces places{a.index, a.n, a.inner, a.count * a.inner, {fault_record(), a.op}};
  const bool walks = a.count <= kFewItems || columns >= kManyColumns || items >= INT64_C(1) << 31;
  Put p{a.x, a.y, walks ? a.count : items, walks ? a.inner : 1, 1, {}, walks, a.add, false, {}};
  if (walks) {
    p.columns.push(a.inner, 1, 1);
    p.columns.push(a.outer, a.count * a.inner, a.count * a.inner);
  }
  put(p, places, items, static_cast<uint64_t>(a.outer * a.n * a.inner), a.dtype, static_cast<int>(itemsize(a.dtype)),
      a.count, walks);
}

void index_put(const IndexArgs& a) {
  *a.bad = -1;
  int none;
  Put p{a.x, a.y, a.count, a.dense_stride, 1, slices(a, false, &none), false, a.add, false, {}};
  for (int d = 0; d < p.columns.n; ++d) {
    const int64_t array = p.columns.from[d];
    p.columns.from[d] = p.columns.to[d];
    p.columns.to[d] = array;
  }
  Selector s = selector(a);
  const int word = choose_word(&p, &s, a.dtype);
  uint64_t range = 1;
  bool backwards = false;
  for (int k = 0; k < s.indexed; ++k) {
    range += static_cast<uint64_t>((s.size[k] - 1) * s.stride[k]);
    backwards |= s.stride[k] < 0;
  }
  if (backwards) range = UINT64_MAX;
  const bool walks = a.unique || a.count <= kFewRows || a.count >= INT64_C(1) << 31;
  put(p, s, a.count, range, a.dtype, word, a.unique ? 1 : a.count, walks);
}

}  // namespace tw::cuda
