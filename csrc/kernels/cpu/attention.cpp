// Attention: y = dropout(softmax(scale q k^T + mask)) v, a row of the (L, S) scores at a time and never all of them.
//
// float16, bfloat16 and float32 are computed in float32, float64 in float64; a half is rounded once, at the store. A
// query that sees no key gives 0. Keys hidden by `causal` from a whole strip of queries are not visited.
// Method: FlashAttention's online softmax over blocks of keys (Dao et al. 2022, arXiv:2205.14135, algorithm 1; Milakov
// and Gimelshein 2018, arXiv:1805.02867), with queries in the vector lanes (attention.h): s = k q^T, p = 2^(s - m) down
// the lanes, y^T += v^T p. Saved for the backward: one number a row, m + log2 l. A task is a few strips of queries, so
// that a block of keys is read from L2 once for all of them.
// Error: 2^-24 (E + 4) max |q| |k| scale for a score, so the op table's row `attention` holds the result to twice a plain
// evaluation's error.
// Operations: 2 (E + Ev) multiply-adds and one exponential for each pair of query and key.
#include "kernels/cpu/attention.h"

namespace tw::TW_ISA {
namespace {

// A strip's running maximum m, sum l and result y^T, moved to a new block of scores; s becomes 2^(s - m).
template <class T, int V>
__attribute__((noinline)) void softmax_block(T* s, int64_t kb, T* m, T* l, T* y, int64_t cols) {
  constexpr int L = Vec<T>::kLanes;
  constexpr int kStrip = 2 * L;
  Vec<T> high[V], total[V], alpha[V];
  for (int v = 0; v < V; ++v) alpha[v] = high[v] = Vec<T>::load(m + v * L);
  for (int64_t j = 0; j < kb; ++j)
    for (int v = 0; v < V; ++v) high[v] = max(Vec<T>::load(s + j * kStrip + v * L), high[v]);
  Mask<T> moved = Mask<T>(0);
  for (int v = 0; v < V; ++v) {
    high[v].store(m + v * L);
    high[v] = select(high[v] == Vec<T>(-kInf<T>), Vec<T>(0), high[v]);  // a query that has seen no key yet
    alpha[v] = exp2(alpha[v] - high[v]);
    moved = moved | (alpha[v] != Vec<T>(1));
    total[v] = Vec<T>(0);
  }
  for (int64_t j = 0; j < kb; ++j)
    for (int v = 0; v < V; ++v) {
      T* at = s + j * kStrip + v * L;
      const Vec<T> p = exp2(Vec<T>::load(at) - high[v]);
      p.store(at);
      total[v] += p;
    }
  for (int v = 0; v < V; ++v) fma(Vec<T>::load(l + v * L), alpha[v], total[v]).store(l + v * L);
  if (!any(moved)) return;
  for (int64_t c = 0; c < cols; ++c)
    for (int v = 0; v < V; ++v) {
      T* at = y + c * kStrip + v * L;
      (Vec<T>::load(at) * alpha[v]).store(at);
    }
}

// Strips a task: as many as share a block of keys well, and fewer where the whole has too few of them.
template <class T> int64_t strips_of_task(int64_t items, int64_t L) {
  const int64_t strips = ceil_div(L, kStripOf<T>);
  int64_t n = 4;
  while (n > 1 && items * ceil_div(strips, n) < 16) n /= 2;
  return n;
}

template <class T, class S> void attention_of(const AttentionArgs& a) {
  constexpr int64_t kStrip = kStripOf<T>;
  const int64_t items = items_of(a), strips = strips_of_task<T>(items, a.L), width = strips * kStrip;
  const int64_t groups = ceil_div(a.L, width);
  const T factor = T(a.scale * 0x1.71547652b82fep+0);
  parallel_for(items * groups, [&](int64_t task) {
    const int64_t number = task % items, first = (groups - 1 - task / items) * width;  // causal: the longest first
    const S *q = item_of<const S>(a, a.q, number), *k = item_of<const S>(a, a.k, number);
    const S* v = item_of<const S>(a, a.v, number);
    const int64_t count = least(strips, ceil_div(a.L - first, kStrip));
    T* q_t = static_cast<T*>(scratch(0, sizeof(T) * size_t(strips * kStrip * (a.E + a.Ev + 2) + kStrip * kKeys +
                                                           kStrip * greatest(a.E, a.Ev))));
    T* y_t = q_t + width * a.E;
    T* m = y_t + width * a.Ev;
    T* l = m + width;
    T* s = l + width;
    T* room = s + kStrip * kKeys;
    T* k_block = nullptr;
    if (!kSame<T, S>) k_block = static_cast<T*>(scratch(1, sizeof(T) * size_t(kKeys * (a.E + a.Ev))));
    for (int64_t i = 0; i < count; ++i)
      transpose_strip(q_t + i * kStrip * a.E, q, a.q.row, first + i * kStrip, a.L, a.E, factor, room);
    for (int64_t i = 0; i < width; ++i) m[i] = -kInf<T>, l[i] = T(0);
    for (int64_t i = 0; i < width * a.Ev; ++i) y_t[i] = T(0);
    const int64_t seen = keys_seen<T>(a, first + (count - 1) * kStrip);
    for (int64_t j = 0; j < seen; j += kKeys) {
      const int64_t block = least(kKeys, seen - j);
      const Matrix<T> kj = as_matrix(k, a.k.row, j, block, a.E, k_block, a.E, false);
      const Matrix<T> vj = as_matrix(v, a.v.row, j, block, a.Ev, k_block + kKeys * a.E, a.Ev, false);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t i0 = first + i * kStrip, kb = least(block, keys_seen<T>(a, i0) - j);
        if (kb <= 0) continue;
        T* y = y_t + i * kStrip * a.Ev;
        scores(a, number, i0, j, kb, kj, q_t + i * kStrip * a.E, s, kStrip);
        if (a.L - i0 > kStrip / 2) softmax_block<T, 2>(s, kb, m + i * kStrip, l + i * kStrip, y, a.Ev);
        else softmax_block<T, 1>(s, kb, m + i * kStrip, l + i * kStrip, y, a.Ev);
        if (a.dropout_p > 0) drop(a, number, i0, j, kb, s, kStrip);
        product<T, false>(a.Ev, least(kStrip, a.L - i0), kb, vj.data, vj.row, s, kStrip, y, kStrip, true);
      }
    }
    T* lse = static_cast<T*>(a.lse) + number * a.L;
    const Vec<T> keep = T(1 - a.dropout_p);
    for (int64_t i = 0; i < width; i += Vec<T>::kLanes) {
      const Vec<T> sum = Vec<T>::load(l + i), all = Vec<T>::load(m + i) + log2(sum);
      const Mask<T> none = sum == Vec<T>(0);
      select(none, Vec<T>(kInf<T>), all).store(m + i);
      select(none | (keep == Vec<T>(0)), Vec<T>(0), Vec<T>(1) / (sum * keep)).store(l + i);
    }
    for (int64_t i = 0; i < least(width, a.L - first); ++i) lse[first + i] = m[i];
    S* y = item_of<S>(a, a.y, number);
    for (int64_t i = 0; i < count; ++i)
      store_strip(y, a.y.row, first + i * kStrip, a.L, a.Ev, y_t + i * kStrip * a.Ev, l + i * kStrip, room);
  });
}

}  // namespace

void attention(const AttentionArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    attention_of<typename FloatOf<S>::type, S>(a);
  });
}

}  // namespace tw::TW_ISA
