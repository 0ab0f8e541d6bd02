// Gradients of attention. With p = softmax, z = dropout's mask / (1 - p_drop), D = sum over columns of dy y:
//
//   dv = (p z)^T dy      ds = p (z (dy v^T) - D)      dq = scale ds k      dk = scale ds^T q
//
// p is computed again from q, k and the row's saved log2 of its sum (+inf where a row sees no key: p and ds are 0), and
// dropout's mask again from its counters, so nothing of size (L, S) exists but one block.
// Method: FlashAttention's backward (Dao et al. 2022, arXiv:2205.14135, algorithm 4) with queries in the vector lanes
// (attention.h): for each block of keys, over all blocks of queries, s = k q^T and v dy^T, then dq^T += k^T ds,
// dv += p dy, dk += ds q. A task is one item of the batch, or a run of its keys where there are few items; such runs
// each keep a dq of their own, which are added in order, so the bits depend on sizes alone.
// Halves are computed in float32 throughout and rounded once at the end. Error: as the forward's, measured by the op
// table's row `attention`.
// Operations: 5 products of 2 E (or 2 Ev) and one exponential for each pair of query and key.
#include "kernels/cpu/attention.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kMinRun = 2;  // blocks of keys a task takes at least

// For a strip: s becomes p z (1 - p_drop), and g = v dy^T becomes ds; pitch values a row of each.
template <class T, bool kDrop>
__attribute__((noinline)) void weights(const AttentionArgs& a, int64_t number, int64_t i0, int64_t j0, int64_t kb, T* s,
                                       T* g, int64_t pitch, const T* lse, const T* D) {
  constexpr int64_t L = Vec<T>::kLanes;
  const Vec<T> factor = T(1 / (1 - a.dropout_p));
  for (int64_t v = 0; v < least(kStripOf<T>, a.L - i0); v += L) {
    const Vec<T> total = Vec<T>::load(lse + v), d = Vec<T>::load(D + v);
    if constexpr (!kDrop) {
      for (int64_t j = 0; j < kb; ++j) {
        T *at = s + j * pitch + v, *to = g + j * pitch + v;
        const Vec<T> p = exp2(Vec<T>::load(at) - total);
        p.store(at);
        (p * (Vec<T>::load(to) - d)).store(to);
      }
    } else {
      const DropoutRows<T> rows(a, number * a.L + i0 + v);
      for (int64_t j = 0; j < kb; j += 4) {
        Mask<T> dropped[4];
        rows.draw(a.seed, j0 + j, dropped);
        for (int64_t i = 0; i < least(4, kb - j); ++i) {
          T *at = s + (j + i) * pitch + v, *to = g + (j + i) * pitch + v;
          const Vec<T> p = exp2(Vec<T>::load(at) - total);
          select(dropped[i], Vec<T>(0), p).store(at);
          (p * (select(dropped[i], Vec<T>(0), Vec<T>::load(to) * factor) - d)).store(to);
        }
      }
    }
  }
}

template <class T, class S> void store_rows(S* y, int64_t row, int64_t count, int64_t cols, const T* x, int64_t pitch, T factor) {
  for (int64_t r = 0; r < count; ++r)
    for_row<T>(cols, [&](int64_t c, auto... n) {
      store_as(y + r * row + c, Vec<T>::load(x + r * pitch + c, n...) * Vec<T>(factor), n...);
    });
}

template <class T, class S> void attention_backward_of(const AttentionArgs& a) {
  constexpr int64_t kStrip = kStripOf<T>, kWidth = 2 * kStrip;  // queries a block
  const int64_t items = items_of(a), strips = ceil_div(a.L, kStrip), rows = strips * kStrip;
  const int64_t key_blocks = ceil_div(a.S, kKeys);
  const int64_t wanted = greatest(1, least(ceil_div(16, items), key_blocks / kMinRun));
  const int64_t run = ceil_div(key_blocks, wanted), runs = ceil_div(key_blocks, run);
  const int64_t E = round_to(a.E, Vec<T>::kLanes), Ev = round_to(a.Ev, Vec<T>::kLanes);  // of rows that are copies
  const T factor = T(a.scale * 0x1.71547652b82fep+0), scale = T(a.scale), keep = T(1 / (1 - a.dropout_p));
  const int64_t part = rows * a.E;  // of dq, transposed strips
  T* parts = runs > 1 && a.dq.data ? static_cast<T*>(scratch(3, sizeof(T) * size_t(items * runs * part))) : nullptr;
  parallel_for(items * runs, [&](int64_t task) {
    const int64_t number = task / runs, first = task % runs * run * kKeys, last = least(a.S, first + run * kKeys);
    const S *q = item_of<const S>(a, a.q, number), *k = item_of<const S>(a, a.k, number);
    const S *v = item_of<const S>(a, a.v, number), *y = item_of<const S>(a, a.y, number);
    const S* dy = item_of<const S>(a, a.dy, number);
    T* q_t = static_cast<T*>(scratch(0, sizeof(T) * size_t(rows * (a.E + a.Ev + 2) + 2 * kKeys * kWidth + kKeys * (E + Ev) +
                                                           kStrip * greatest(a.E, a.Ev) + (parts ? 0 : part))));
    T* dy_t = q_t + rows * a.E;
    T* lse = dy_t + rows * a.Ev;
    T* D = lse + rows;
    T* s = D + rows;
    T* g = s + kKeys * kWidth;
    T* dk = g + kKeys * kWidth;
    T* dv = dk + kKeys * E;
    T* room = dv + kKeys * Ev;
    T* dq_t = parts ? parts + task * part : room + kStrip * greatest(a.E, a.Ev);
    T* copies = static_cast<T*>(scratch(1, sizeof(T) * size_t((a.L + kKeys) * (E + Ev))));
    const Matrix<T> q_rows = as_matrix(q, a.q.row, 0, a.L, a.E, copies, E, true);
    const Matrix<T> dy_rows = as_matrix(dy, a.dy.row, 0, a.L, a.Ev, copies + a.L * E, Ev, true);
    T* k_block = copies + a.L * (E + Ev);
    for (int64_t i = 0; i < strips; ++i) {
      transpose_strip(q_t + i * kStrip * a.E, q, a.q.row, i * kStrip, a.L, a.E, factor, room);
      transpose_strip(dy_t + i * kStrip * a.Ev, dy, a.dy.row, i * kStrip, a.L, a.Ev, T(1), room);
    }
    const T* saved = static_cast<const T*>(a.lse) + number * a.L;
    for (int64_t i = 0; i < rows; ++i) {
      lse[i] = i < a.L ? saved[i] : kInf<T>;
      D[i] = T(0);
      if (i < a.L)
        D[i] = sum_row(a.Ev, [&](int64_t c, auto... n) {
                 return load_as<T>(dy + i * a.dy.row + c, n...) * load_as<T>(y + i * a.y.row + c, n...);
               }).v[0];
    }
    if (a.dq.data)
      for (int64_t i = 0; i < part; ++i) dq_t[i] = T(0);
    for (int64_t j = first; j < last; j += kKeys) {
      const int64_t block = least(kKeys, last - j);
      const Matrix<T> kj = as_matrix(k, a.k.row, j, block, a.E, k_block, E, false);
      const Matrix<T> vj = as_matrix(v, a.v.row, j, block, a.Ev, k_block + kKeys * E, Ev, false);
      for (int64_t i = 0; i < block * (E + Ev); ++i) (i < block * E ? dk[i] : dv[i - block * E]) = T(0);
      for (int64_t i0 = 0; i0 < a.L; i0 += kWidth) {
        if (keys_seen<T>(a, i0 + kStrip) <= j) continue;
        const int64_t queries = least(kWidth, a.L - i0);
        for (int64_t i = 0; i < queries; i += kStrip) {
          const int64_t at = i0 + i, kb = greatest(0, least(block, keys_seen<T>(a, at) - j));
          T *sp = s + i, *gp = g + i;
          for (int64_t r = kb; r < block; ++r)
            for (int64_t c = 0; c < kStrip; ++c) sp[r * kWidth + c] = gp[r * kWidth + c] = T(0);
          if (kb == 0) continue;
          scores(a, number, at, j, kb, kj, q_t + at * a.E, sp, kWidth);
          product<T, true>(kb, least(kStrip, a.L - at), a.Ev, vj.data, vj.row, dy_t + at * a.Ev, kStrip, gp, kWidth,
                           false);
          if (a.dropout_p > 0) weights<T, true>(a, number, at, j, kb, sp, gp, kWidth, lse + at, D + at);
          else weights<T, false>(a, number, at, j, kb, sp, gp, kWidth, lse + at, D + at);
          if (a.dq.data)
            product<T, false>(a.E, least(kStrip, a.L - at), kb, kj.data, kj.row, gp, kWidth, dq_t + at * a.E, kStrip,
                              true);
        }
        if (a.dv.data)
          product<T, true>(block, Ev, queries, s, kWidth, dy_rows.data + i0 * dy_rows.row, dy_rows.row, dv, Ev, true);
        if (a.dk.data)
          product<T, true>(block, E, queries, g, kWidth, q_rows.data + i0 * q_rows.row, q_rows.row, dk, E, true);
      }
      if (a.dk.data) store_rows(item_of<S>(a, a.dk, number) + j * a.dk.row, a.dk.row, block, a.E, dk, E, scale);
      if (a.dv.data) store_rows(item_of<S>(a, a.dv, number) + j * a.dv.row, a.dv.row, block, a.Ev, dv, Ev, keep);
    }
    if (parts || !a.dq.data) return;
    for (int64_t i = 0; i < kStrip; ++i) lse[i] = scale;
    for (int64_t i = 0; i < strips; ++i)
      store_strip(item_of<S>(a, a.dq, number), a.dq.row, i * kStrip, a.L, a.E, dq_t + i * kStrip * a.E, lse, room);
  });
  if (!parts) return;
  parallel_for(items * strips, [&](int64_t task) {
    const int64_t number = task / strips, i = task % strips, size = kStrip * a.E;
    T* total = parts + number * runs * part + i * size;
    for (int64_t r = 1; r < runs; ++r)
      for (int64_t c = 0; c < size; c += Vec<T>::kLanes)
        (Vec<T>::load(total + c) + Vec<T>::load(total + r * part + c)).store(total + c);
    T* room = static_cast<T*>(scratch(0, sizeof(T) * size_t(size + kStrip)));
    for (int64_t c = 0; c < kStrip; ++c) room[size + c] = scale;
    store_strip(item_of<S>(a, a.dq, number), a.dq.row, i * kStrip, a.L, a.E, static_cast<const T*>(total), room + size,
                room);
  });
}

}  // namespace

void attention_backward(const AttentionArgs& a) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    attention_backward_of<typename FloatOf<S>::type, S>(a);
  });
}

}  // namespace tw::TW_ISA
