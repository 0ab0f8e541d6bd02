// Orders along rows of contiguous (rows, n): sort, the k extremes, the k-th smallest. Any dtype, values and positions.
//
// NaN is the largest value, -0 equals 0, and equals keep their order (descending ones too), so that an order is unique.
// Every value becomes an unsigned key that orders as it does (Herf, Radix Tricks, 2001: flip all bits of negative
// floats, the sign bit of others; descending flips all), with its position beside it.
// Method: rows to kNetwork items of 32-bit keys go through Batcher's odd-even merge network (Batcher, Sorting networks
// and their applications, 1968), one row a lane, key and position as one 64-bit number; other short rows by insertion;
// longer ones by a radix sort from the lowest digit, whose histograms come from one pass and which skips digits that
// all items share. The k extremes of a long row: vectors are compared with the k-th best so far, and the few items
// that pass wait in a buffer that is sorted when full; a row longer than kPart is cut into parts whose extremes meet.
// The k-th: a histogram of the keys' top digit names the bin that holds it, and the bin alone is sorted.
#include "kernels/cpu/rows.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 13, kPart = 1 << 16;
constexpr int kNetwork = 64, kInsertion = 24;

// --- keys --
template <class S> struct KeyOf {
  using type = uint32_t;
};
template <> struct KeyOf<double> {
  using type = uint64_t;
};
template <> struct KeyOf<int64_t> {
  using type = uint64_t;
};

TW_INLINE uint32_t key_of(uint8_t x) { return x; }
TW_INLINE uint32_t key_of(int8_t x) { return uint8_t(x) ^ 0x80u; }
TW_INLINE uint32_t key_of(int16_t x) { return uint16_t(x) ^ 0x8000u; }
TW_INLINE uint32_t key_of(int32_t x) { return uint32_t(x) ^ 0x80000000u; }
TW_INLINE uint64_t key_of(int64_t x) { return uint64_t(x) ^ (uint64_t(1) << 63); }
TW_INLINE uint32_t key_of(float x) {
  uint32_t b;
  x = x + 0.0f;  // -0 becomes 0
  __builtin_memcpy(&b, &x, 4);
  return x != x ? ~0u : b ^ (uint32_t(int32_t(b) >> 31) | 0x80000000u);
}
TW_INLINE uint64_t key_of(double x) {
  uint64_t b;
  x = x + 0.0;
  __builtin_memcpy(&b, &x, 8);
  return x != x ? ~uint64_t(0) : b ^ (uint64_t(int64_t(b) >> 63) | uint64_t(1) << 63);
}
// A half as the float of its value, found without arithmetic: subnormals order by their bits too.
TW_INLINE uint32_t half_key(uint16_t bits, uint16_t infinity) {
  const uint32_t magnitude = bits & 0x7fff;
  if (magnitude > infinity) return 0x1ffff;
  return bits >> 15 ? 0x8000 - magnitude : 0x8000 + magnitude;
}
TW_INLINE uint32_t key_of(float16 x) { return half_key(x.bits, 0x7c00); }
TW_INLINE uint32_t key_of(bfloat16 x) { return half_key(x.bits, 0x7f80); }

template <class K> struct Item {
  K key, at;
  TW_INLINE bool operator<(const Item& b) const { return key < b.key || (key == b.key && at < b.at); }
};

// --- sorts of items --
template <class K> TW_INLINE void insertion_sort(Item<K>* items, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const Item<K> x = items[i];
    int64_t j = i;
    for (; j > 0 && x < items[j - 1]; --j) items[j] = items[j - 1];
    items[j] = x;
  }
}

// Stable by key; `spare` is as long as `items`. Returns where the result lies.
template <int kBits, class K> __attribute__((noinline)) Item<K>* radix_sort(Item<K>* items, Item<K>* spare, int64_t n) {
  constexpr int kDigits = (8 * int(sizeof(K)) + kBits - 1) / kBits;
  constexpr K kMask = (K(1) << kBits) - 1;
  uint32_t* counts = static_cast<uint32_t*>(scratch(3, size_t(kDigits << kBits) * sizeof(uint32_t)));
  __builtin_memset(counts, 0, size_t(kDigits << kBits) * sizeof(uint32_t));
  for (int64_t i = 0; i < n; ++i)
    for (int d = 0; d < kDigits; ++d) ++counts[(d << kBits) + int64_t((items[i].key >> (d * kBits)) & kMask)];
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* place = counts + (d << kBits);
    if (place[(items[0].key >> (d * kBits)) & kMask] == uint32_t(n)) continue;
    uint32_t sum = 0;
    for (int64_t b = 0; b <= int64_t(kMask); ++b) {
      const uint32_t c = place[b];
      place[b] = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; ++i) spare[place[(items[i].key >> (d * kBits)) & kMask]++] = items[i];
    Item<K>* t = items;
    items = spare;
    spare = t;
  }
  return items;
}
template <class K> TW_INLINE Item<K>* sort_items(Item<K>* items, Item<K>* spare, int64_t n) {
  if (n > kInsertion) return n < 1 << 13 ? radix_sort<8>(items, spare, n) : radix_sort<11>(items, spare, n);
  insertion_sort(items, n);
  return items;
}

template <class S, class K> TW_INLINE void fill_items(Item<K>* items, const S* x, int64_t n, bool descending) {
  const K flip = descending ? ~K(0) : 0;
  for (int64_t i = 0; i < n; ++i) items[i] = {K(key_of(x[i]) ^ flip), K(i)};
}
template <class S, class K>
TW_INLINE void write_items(const Item<K>* items, const S* x, int64_t n, S* values, int64_t* indices) {
  for (int64_t i = 0; i < n; ++i) {
    values[i] = x[items[i].at];
    indices[i] = int64_t(items[i].at);
  }
}

// Items of two rows' worth in the scratch memory of this thread.
template <class K> TW_INLINE Item<K>* item_memory(int slot, int64_t n) {
  return static_cast<Item<K>*>(scratch(slot, size_t(n) * sizeof(Item<K>)));
}

// --- sort --
// kLanes rows at once: lane l of items[i] is item i of row l.
template <class S> void sort_network(const SortArgs& a, int64_t first, int64_t rows, int64_t k) {
  using V = Vec<int64_t>;
  constexpr int kLanes = V::kLanes;
  const S* x = static_cast<const S*>(a.x) + first * a.n;
  const int n = int(a.n);
  const uint32_t flip = a.descending ? ~0u : 0;
  alignas(64) int64_t items[kNetwork * kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const S* row = x + least(l, rows - 1) * n;
    for (int i = 0; i < n; ++i)
      items[i * kLanes + l] = int64_t((uint64_t((uint32_t(key_of(row[i])) ^ flip) ^ 0x80000000u) << 32) | uint32_t(i));
  }
  // Comparators that reach past n would find only larger items there, so they are left out.
  for (int p = 1; p < n; p *= 2)
    for (int q = p; q >= 1; q /= 2)
      for (int j = q % p; j + q < n; j += 2 * q)
        for (int i = j; i < j + q && i + q < n; ++i) {
          if (i / (2 * p) != (i + q) / (2 * p)) continue;
          int64_t* lo = items + i * kLanes;
          int64_t* hi = lo + q * kLanes;
          const V u = V::load(lo), v = V::load(hi);
          min(u, v).store(lo);
          max(u, v).store(hi);
        }
  S* values = static_cast<S*>(a.values) + first * k;
  int64_t* indices = a.indices + first * k;
  for (int64_t l = 0; l < rows; ++l)
    for (int64_t i = 0; i < k; ++i) {
      const uint32_t at = uint32_t(items[i * kLanes + l]);
      values[l * k + i] = x[l * n + at];
      indices[l * k + i] = at;
    }
}

// Rows of at most kNetwork items, k of each written.
template <class S> void sort_short_rows(const SortArgs& a, int64_t k) {
  constexpr int64_t kLanes = Vec<int64_t>::kLanes;
  parallel_ranges(ceil_div(a.rows, kLanes), kPiece / (a.n * kLanes) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) sort_network<S>(a, b * kLanes, least(kLanes, a.rows - b * kLanes), k);
  });
}

template <class S> void sort_rows(const SortArgs& a) {
  using K = typename KeyOf<S>::type;
  const int64_t n = a.n;
  if (sizeof(K) == 4 && n <= kNetwork) return sort_short_rows<S>(a, n);
  parallel_ranges(a.rows, kPiece / n + 1, [&](int64_t begin, int64_t end) {
    Item<K>* items = item_memory<K>(0, 2 * n);
    for (int64_t r = begin; r < end; ++r) {
      const S* x = static_cast<const S*>(a.x) + r * n;
      fill_items(items, x, n, a.descending);
      write_items(sort_items(items, items + n, n), x, n, static_cast<S*>(a.values) + r * n, a.indices + r * n);
    }
  });
}

// --- the k extremes --
// The k first items of x[0, n) in order, positions from `base` on, written to out. `buffer` holds 2 * size items.
template <class S, class K>
TW_INLINE void extremes(const S* x, int64_t base, int64_t n, int64_t k, bool descending, Item<K>* buffer, int64_t size,
                        Item<K>* out) {
  using T = typename FloatOf<S>::type;
  using A = __typeof__(*[] {
    if constexpr (kIsFloat<S> || kIsHalf<S>) return static_cast<T*>(nullptr);
    else if constexpr (sizeof(S) == 8) return static_cast<int64_t*>(nullptr);
    else return static_cast<int32_t*>(nullptr);
  }());
  constexpr int kLanes = Vec<A>::kLanes;
  const K flip = descending ? ~K(0) : 0;
  int64_t count = 0;
  Vec<A> bound = A(0);
  bool bounded = false;
  int64_t full = greatest(2 * k, 16);  // few items first, for an early bound
  auto settle = [&] {
    full = least(size, 2 * full);
    Item<K>* sorted = sort_items(buffer, buffer + size, count);
    count = least(count, k);
    if (sorted != buffer) __builtin_memcpy(buffer, sorted, size_t(count) * sizeof(Item<K>));
    if (count < k) return;
    A last;
    convert(&last, x + (int64_t(buffer[k - 1].at) - base), 1);
    bound = last;
    bounded = true;
  };
  auto take = [&](int64_t i) {
    buffer[count++] = {K(key_of(x[i]) ^ flip), K(base + i)};
    if (count >= full) settle();
  };
  int64_t i = 0;
  for (; !bounded && i < n; ++i) take(i);
  for (; i + kLanes <= n; i += kLanes) {
    const Vec<A> v = load_as<A>(x + i);
    // "Not beyond the bound" is true of NaN, which the sort then puts in its place.
    const Mask<A> inside = ~(descending ? v <= bound : v >= bound);
    if (!any(inside)) continue;
    alignas(64) typename IntOf<A>::type lanes[kLanes];
    inside.store(lanes);
    for (int l = 0; l < kLanes; ++l)
      if (lanes[l]) take(i + l);
  }
  for (; i < n; ++i) take(i);
  settle();
  __builtin_memcpy(out, buffer, size_t(k) * sizeof(Item<K>));
}

template <class S> void topk_rows(const SortArgs& a) {
  using K = typename KeyOf<S>::type;
  const int64_t n = a.n, k = a.k;
  if (sizeof(K) == 4 && n <= kNetwork) return sort_short_rows<S>(a, k);
  if (4 * k >= n || n <= 2 * kNetwork) {  // so large a part that the whole row is sorted
    return parallel_ranges(a.rows, kPiece / n + 1, [&](int64_t begin, int64_t end) {
      Item<K>* items = item_memory<K>(0, 2 * n);
      for (int64_t r = begin; r < end; ++r) {
        const S* x = static_cast<const S*>(a.x) + r * n;
        fill_items(items, x, n, a.descending);
        write_items(sort_items(items, items + n, n), x, k, static_cast<S*>(a.values) + r * k, a.indices + r * k);
      }
    });
  }
  const int64_t size = greatest(4 * k, 128), part = greatest(kPart, 8 * k), parts = ceil_div(n, part);
  // Every part but the last has at least k items; the last one's shortage is filled from the part before it.
  const int64_t last = n - (parts - 1) * part, joined = parts > 1 && last < k ? parts - 1 : parts;
  Item<K>* best = item_memory<K>(1, a.rows * joined * k + 1);
  parallel_ranges(a.rows * joined, greatest(1, kPart / greatest(n, 1)), [&](int64_t begin, int64_t end) {
    Item<K>* buffer = item_memory<K>(0, 2 * size);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = i % joined, start = p * part, stop = p == joined - 1 ? n : start + part;
      extremes<S, K>(static_cast<const S*>(a.x) + i / joined * n + start, start, stop - start, k, a.descending, buffer,
                     size, best + i * k);
    }
  });
  parallel_ranges(a.rows, greatest(1, kPart / (joined * k)), [&](int64_t begin, int64_t end) {
    Item<K>* spare = item_memory<K>(2, joined * k);
    for (int64_t r = begin; r < end; ++r) {
      Item<K>* items = best + r * joined * k;
      if (joined > 1) items = sort_items(items, spare, joined * k);
      write_items(items, static_cast<const S*>(a.x) + r * n, k, static_cast<S*>(a.values) + r * k, a.indices + r * k);
    }
  });
}

// --- the k-th --
template <class S> void kth_rows(const SortArgs& a) {
  using K = typename KeyOf<S>::type;
  constexpr int kBits = 11, kShift = 8 * int(sizeof(K)) - kBits;
  constexpr int kSpread = kIsHalf<S> ? 15 : 8 * int(sizeof(K)) - 8 * int(sizeof(S));  // narrow keys: up to the top
  [[maybe_unused]] const K kNan = kIsFloat<S> ? ~K(0) : K(0x1ffff);
  const int64_t n = a.n;
  parallel_ranges(a.rows, kPiece / n + 1, [&](int64_t begin, int64_t end) {
    Item<K>* items = item_memory<K>(0, 2 * n);
    uint32_t* counts = static_cast<uint32_t*>(scratch(2, sizeof(uint32_t) << kBits));
    for (int64_t r = begin; r < end; ++r) {
      const S* x = static_cast<const S*>(a.x) + r * n;
      int64_t k = a.k, nan = -1, nans = 0;
      if constexpr (kIsFloat<S> || kIsHalf<S>)
        if (a.order != Order::kKth) {
          for (int64_t i = n - 1; i >= 0; --i)
            if (K(key_of(x[i])) == kNan) {
              nan = i;
              ++nans;
            }
          if (a.order == Order::kNanMedian && nans < n) {
            nan = -1;
            k = (n - nans - 1) / 2;
          }
        }
      int64_t at = nan;
      if (at < 0) {
        __builtin_memset(counts, 0, sizeof(uint32_t) << kBits);
        auto digit = [&](K key) __attribute__((always_inline)) { return K(key << kSpread) >> kShift; };
        for (int64_t i = 0; i < n; ++i) ++counts[digit(key_of(x[i]))];
        int64_t bin = 0, before = 0;
        while (before + counts[bin] <= k) before += counts[bin++];
        int64_t count = 0;
        for (int64_t i = 0; i < n; ++i) {
          const K key = key_of(x[i]);
          items[count] = {key, K(i)};
          count += digit(key) == K(bin);
        }
        at = int64_t(sort_items(items, items + n, count)[k - before].at);
      }
      static_cast<S*>(a.values)[r] = x[at];
      a.indices[r] = at;
    }
  });
}

}  // namespace

void sort(const SortArgs& a) {
  visit_any(a.dtype, [&](auto tag) { sort_rows<typename decltype(tag)::type>(a); });
}
void topk(const SortArgs& a) {
  visit_any(a.dtype, [&](auto tag) { topk_rows<typename decltype(tag)::type>(a); });
}
void kth(const SortArgs& a) {
  visit_any(a.dtype, [&](auto tag) { kth_rows<typename decltype(tag)::type>(a); });
}

}  // namespace tw::TW_ISA
