// What attention and its backward share: products that read their operands in place, and the block of scores.
//
// Everything is laid out with queries in the vector lanes: a strip of kStrip queries (two vectors) meets a block of kKeys
// keys as s[key][query] = k q^T. So softmax runs down the lanes with no shuffle, the rows of k, v and p can be broadcast
// from where they lie, and of all operands only q (and dy) are ever transposed, once a strip.
// Scores are in units of log2 e: the scale times log2 e goes into the transposed q, and exponentials are 2^x.
#pragma once
#include "kernels/cpu/philox_lanes.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vec_math.h"

namespace tw::TW_ISA {

TW_INLINE int64_t round_to(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// The tile: kTile rows of two vectors; 32 registers at avx512, 16 below (scalar needs one more, having no FMA).
// kKeys: a multiple of the tile and of 4 (one Philox counter), such that s stays in L1.
constexpr int kTile = TW_VEC_BYTES == 64 ? 14 : TW_VEC_BYTES == 32 ? 6 : 4;
constexpr int kKeys = TW_VEC_BYTES == 64 ? 112 : TW_VEC_BYTES == 32 ? 120 : 128;
template <class T> constexpr int kStripOf = 2 * Vec<T>::kLanes;

// c (R x V vectors) = or += sum over k of a(i, k) b[k * b_row : + V vectors], where a(i, k) lies at a[i * a_step + k]
// (kAlong: k runs along a's rows) or at a[k * a_step + i].
template <class T, int R, int V, bool kAlong>
__attribute__((noinline)) void broadcast_tile(int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_row,
                                              T* c, int64_t c_row, bool add) {
  constexpr int L = Vec<T>::kLanes;
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  if constexpr (kAlong) {
    // A pointer for every three rows: the address of each is then a pointer plus 0, 1 or 2 times the step, so that
    // all fit the general registers.
    constexpr int G = (R + 2) / 3;
    const char* p[G];
    const int64_t step = a_step * int64_t(sizeof(T));
    for (int g = 0; g < G; ++g) p[g] = reinterpret_cast<const char*>(a) + 3 * g * step;
    for (int64_t k = 0; k < count; ++k) {
      Vec<T> bv[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const Vec<T> ai(*reinterpret_cast<const T*>(p[i / 3] + i % 3 * step));
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
      }
#pragma GCC unroll 16
      for (int g = 0; g < G; ++g) p[g] += sizeof(T);
      b += b_row;
    }
  } else {
    for (int64_t k = 0; k < count; ++k) {
      Vec<T> bv[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + v * L);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const Vec<T> ai(a[i]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[i][v] = fma(ai, bv[v], acc[i][v]);
      }
      a += a_step;
      b += b_row;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      T* to = c + i * c_row + v * L;
      (add ? Vec<T>::load(to) + acc[i][v] : acc[i][v]).store(to);
    }
}

template <class T, int V, bool kAlong, int R = kTile>
TW_INLINE void broadcast_rows(int rows, int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_row, T* c,
                              int64_t c_row, bool add) {
  if (R == 1 || rows == R) return broadcast_tile<T, R, V, kAlong>(count, a, a_step, b, b_row, c, c_row, add);
  if constexpr (R > 1) broadcast_rows<T, V, kAlong, R - 1>(rows, count, a, a_step, b, b_row, c, c_row, add);
}

// C (M x N) = or += A (M x K) B (K x N), in place as above. B and C are read and written up to whole vectors.
template <class T, bool kAlong>
__attribute__((noinline)) void product(int64_t M, int64_t N, int64_t K, const T* a, int64_t a_step, const T* b,
                                       int64_t b_row, T* c, int64_t c_row, bool add) {
  constexpr int L = Vec<T>::kLanes;
  if (M == 0) return;
  const int64_t mr = ceil_div(M, ceil_div(M, kTile));
  for (int64_t j = 0; j < N; j += 2 * L)
    for (int64_t i = 0; i < M; i += mr) {
      const int rows = int(least(mr, M - i));
      const T* from = a + i * (kAlong ? a_step : 1);
      if (N - j > L) broadcast_rows<T, 2, kAlong>(rows, K, from, a_step, b + j, b_row, c + i * c_row + j, c_row, add);
      else broadcast_rows<T, 1, kAlong>(rows, K, from, a_step, b + j, b_row, c + i * c_row + j, c_row, add);
    }
}

// The operand's memory for item `number` of the batch.
template <class S> TW_INLINE S* item_of(const AttentionArgs& a, const BatchedRows& r, int64_t number) {
  int64_t at = 0;
  for (int d = a.batch_ndim - 1; d >= 0; --d) {
    at += number % a.batch[d] * r.batch[d];
    number /= a.batch[d];
  }
  return static_cast<S*>(r.data) + at;
}
TW_INLINE int64_t items_of(const AttentionArgs& a) {
  int64_t n = 1;
  for (int d = 0; d < a.batch_ndim; ++d) n *= a.batch[d];
  return n;
}

template <class T> struct Matrix {
  const T* data;
  int64_t row;
};
// Rows [first, first + count) of cols values as T: where they lie, or converted into `buffer`, whose rows are `pitch`
// apart and end in zeros. `whole`: the caller reads whole vectors.
template <class T, class S>
TW_INLINE Matrix<T> as_matrix(const S* x, int64_t row, int64_t first, int64_t count, int64_t cols, T* buffer,
                              int64_t pitch, bool whole) {
  if constexpr (kSame<T, S>)
    if (!whole || cols % Vec<T>::kLanes == 0) return {x + first * row, row};
  for (int64_t r = 0; r < count; ++r) {
    convert(buffer + r * pitch, x + (first + r) * row, cols);
    for (int64_t c = cols; c < pitch; ++c) buffer[r * pitch + c] = T(0);
  }
  return {buffer, pitch};
}

// dst[c][r] = factor * x[first + r][c] for a strip of queries; those past `rows` become 0. room: kStrip * cols values.
template <class T, class S>
__attribute__((noinline)) void transpose_strip(T* dst, const S* x, int64_t row, int64_t first, int64_t rows,
                                               int64_t cols, T factor, T* room) {
  constexpr int64_t kStrip = kStripOf<T>;
  const int64_t count = least(kStrip, rows - first);
  for (int64_t r = 0; r < kStrip; ++r) {
    T* to = room + r * cols;
    if (r >= count) {
      for (int64_t c = 0; c < cols; ++c) to[c] = T(0);
      continue;
    }
    const S* from = x + (first + r) * row;
    for_row<T>(cols, [&](int64_t c, auto... n) { (load_as<T>(from + c, n...) * Vec<T>(factor)).store(to + c, n...); });
  }
  transpose_rows(dst, static_cast<const T*>(room), kStrip, cols);
}

// y[first + r][c] = factor[r] * src[c][r] for the strip's queries.
template <class T, class S>
__attribute__((noinline)) void store_strip(S* y, int64_t row, int64_t first, int64_t rows, int64_t cols, const T* src,
                                           const T* factor, T* room) {
  constexpr int64_t kStrip = kStripOf<T>;
  transpose_rows(room, src, cols, kStrip);
  for (int64_t r = 0; r < least(kStrip, rows - first); ++r) {
    S* to = y + (first + r) * row;
    const T* from = room + r * cols;
    for_row<T>(cols, [&](int64_t c, auto... n) {
      store_as(to + c, Vec<T>::load(from + c, n...) * Vec<T>(factor[r]), n...);
    });
  }
}

// s += mask for kb keys from j0 and a strip of queries from i0.
template <class T, class S>
__attribute__((noinline)) void add_mask(const AttentionArgs& a, const S* mask, int64_t i0, int64_t j0, int64_t kb,
                                        T* s, int64_t s_row) {
  constexpr int64_t kStrip = kStripOf<T>, L = Vec<T>::kLanes;
  T rows[kStripOf<T> * kKeys], turned[kStripOf<T> * kKeys];
  const bool same = a.mask.row == 0;
  const auto value = [](Vec<T> m) {
    if constexpr (sizeof(S) == 1) return select(m == Vec<T>(0), Vec<T>(-kInf<T>), Vec<T>(0));
    else return m * Vec<T>(T(0x1.71547652b82fep+0));
  };
  for (int64_t r = 0; r < (same ? 1 : kStrip); ++r) {
    const S* from = mask + least(i0 + r, a.L - 1) * a.mask.row + j0 * a.mask_col;
    T* to = rows + r * kb;
    if (a.mask_col == 1) {
      for_row<T>(kb, [&](int64_t j, auto... n) { value(load_as<T>(from + j, n...)).store(to + j, n...); });
    } else {
      for (int64_t j = 0; j < kb; ++j) to[j] = value(load_as<T>(from + j * a.mask_col, 1))[0];
    }
  }
  if (!same) transpose_rows(turned, static_cast<const T*>(rows), kStrip, kb);
  for (int64_t j = 0; j < kb; ++j)
    for (int64_t v = 0; v < kStrip; v += L) {
      const Vec<T> m = same ? Vec<T>(rows[j]) : Vec<T>::load(turned + j * kStrip + v);
      (Vec<T>::load(s + j * s_row + v) + m).store(s + j * s_row + v);
    }
}

// How many keys the strip from query i0 sees.
template <class T> TW_INLINE int64_t keys_seen(const AttentionArgs& a, int64_t i0) {
  return a.causal ? least(a.S, least(a.L, i0 + kStripOf<T>)) : a.S;
}

// s[key][query] = masked scores of kb keys (k) from j0 and a strip of queries (q, transposed and scaled) from i0.
template <class T>
__attribute__((noinline)) void scores(const AttentionArgs& a, int64_t number, int64_t i0, int64_t j0, int64_t kb,
                                      Matrix<T> k, const T* q, T* s, int64_t s_row) {
  constexpr int64_t kStrip = kStripOf<T>, L = Vec<T>::kLanes;
  product<T, true>(kb, least(kStrip, a.L - i0), a.E, k.data, k.row, q, kStrip, s, s_row, false);
  if (a.mask.data) {
    if (a.mask_dtype == DType::kBool) add_mask(a, item_of<const uint8_t>(a, a.mask, number), i0, j0, kb, s, s_row);
    else
      visit_float(a.mask_dtype, [&](auto tag) {
        using M = typename decltype(tag)::type;
        if constexpr (!kIsHalf<M> || kSame<T, float>)
          add_mask(a, item_of<const M>(a, a.mask, number), i0, j0, kb, s, s_row);
      });
  }
  if (a.causal && j0 + kb > i0 + 1) {
    const Mask<T> lane = Mask<T>::iota();
    for (int64_t j = greatest(0, i0 + 1 - j0); j < kb; ++j)
      for (int64_t v = 0; v < kStrip; v += L) {
        T* at = s + j * s_row + v;
        const Mask<T> hidden = lane < Mask<T>(typename Mask<T>::Element(j0 + j - i0 - v));
        select(hidden, Vec<T>(-kInf<T>), Vec<T>::load(at)).store(at);
      }
  }
}

// Dropout's decisions for four keys from j0 (a multiple of 4) and the Vec<T>::kLanes queries from row (batch and L as
// one): dropped[key] has lanes of -1 where the weight goes.
template <class T> struct DropoutRows {
  Lanes even, odd;  // the counters' bases; of float's lanes, the even and the odd ones
  Mask<T> threshold;

  TW_INLINE DropoutRows(const AttentionArgs& a, int64_t row) {
    const int64_t groups = ceil_div(a.S, 4);
    const int step = sizeof(T) == 4 ? 2 : 1;
    for (int i = 0; i < Lanes::kLanes; ++i) {
      even.v[i] = int64_t(a.offset + uint64_t(row + step * i) * uint64_t(groups));
      odd.v[i] = int64_t(a.offset + uint64_t(row + step * i + 1) * uint64_t(groups));
    }
    threshold = Mask<T>(typename Mask<T>::Element(bernoulli_threshold(a.dropout_p)));
  }
  TW_INLINE void draw(uint64_t seed, int64_t j0, Mask<T> (&dropped)[4]) const {
    Lanes w[4] = {even + Lanes(j0 / 4), high_word(even + Lanes(j0 / 4)), Lanes(0), Lanes(0)};
    philox(seed, w);
    if constexpr (sizeof(T) == 4) {
      Lanes u[4] = {odd + Lanes(j0 / 4), high_word(odd + Lanes(j0 / 4)), Lanes(0), Lanes(0)};
      philox(seed, u);
      for (int i = 0; i < 4; ++i) {
        const Mask<T> words = (typename Mask<T>::Native)join(w[i], u[i]).v;
        dropped[i] = shift_right_logical(words, kUniformShift) < threshold;
      }
    } else {
      for (int i = 0; i < 4; ++i) dropped[i] = shift_right_logical(w[i] & 0xffffffff, kUniformShift) < threshold;
    }
  }
};

// p[key][query] = 0 where dropout says so.
template <class T>
__attribute__((noinline)) void drop(const AttentionArgs& a, int64_t number, int64_t i0, int64_t j0, int64_t kb, T* p,
                                    int64_t p_row) {
  constexpr int64_t L = Vec<T>::kLanes;
  for (int64_t v = 0; v < least(kStripOf<T>, a.L - i0); v += L) {
    const DropoutRows<T> rows(a, number * a.L + i0 + v);
    for (int64_t j = 0; j < kb; j += 4) {
      Mask<T> dropped[4];
      rows.draw(a.seed, j0 + j, dropped);
      for (int64_t i = 0; i < least(4, kb - j); ++i) {
        T* at = p + (j + i) * p_row + v;
        select(dropped[i], Vec<T>(0), Vec<T>::load(at)).store(at);
      }
    }
  }
}

}  // namespace tw::TW_ISA
