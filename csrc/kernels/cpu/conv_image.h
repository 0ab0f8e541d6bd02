// An image as the convolutions read it: panels of a product packed straight from (C, D, H, W), which is never unfolded.
//
// Zeros stand where a tap falls into the padding. Shared by conv.cpp and winograd.cpp.
#pragma once
#include "kernels/cpu/gemm.h"

namespace tw::TW_ISA {

// dst[i] = src[i * step] for i < n. May write zeros behind them, up to dst[room].
template <class T, class S> TW_INLINE void copy_line(T* dst, const S* src, int64_t step, int64_t n, int64_t room) {
  constexpr int L = Vec<T>::kLanes;
  int64_t i = 0;
  if (step == 1) {
    for (; i + L <= n; i += L) load_as<T>(src + i).store(dst + i);
    if (i == n) return;
    const Vec<T> rest = load_as<T>(src + i, int(n - i));
    if (i + L <= room) rest.store(dst + i);
    else rest.store(dst + i, int(n - i));
    return;
  }
  if constexpr (kSame<T, S>)
    if (step == 2)
      for (; i + L <= n; i += L) load_even(src + 2 * i).store(dst + i);
  for (; i < n; ++i) {
    if constexpr (kSame<T, S>) dst[i] = src[i * step];
    else convert(dst + i, src + i * step, 1);
  }
}
template <class T> TW_INLINE void zero_line(T* dst, int64_t n, int64_t room) {
  constexpr int L = Vec<T>::kLanes;
  const Vec<T> zero(T(0));
  int64_t i = 0;
  for (; i < n && i + L <= room; i += L) zero.store(dst + i);
  if (i < n) zero.store(dst + i, int(n - i));
}

// The values that the taps (c, q, r, s) see from the positions (n, oz, oy, ox): channel c at plane
// oz * step_z + tap_z[q], row oy * step_y + tap_y[r], column ox * step_x + tap_x[s], or 0 outside the image.
template <class S> struct Image {
  const S* data;  // the group's first channel of image 0
  int64_t image;  // elements between images
  int64_t D, H, W;
  int64_t planes, rows, cols;  // of positions in one image
  int64_t step_z, step_y, step_x;
  const int64_t *tap_z, *tap_y, *tap_x;
  int64_t kd, kh, kw;

  struct Run {
    int64_t data, oz, oy, ox, length;
  };  // positions in one row; data: offset of their image

  TW_INLINE int64_t positions() const { return planes * rows * cols; }
  // The run that begins at position p and has at most `room` positions.
  TW_INLINE Run run(int64_t p, int64_t room) const {
    const int64_t row = p / cols, plane = row / rows, n = plane / planes, ox = p - row * cols;
    return {n * image, plane - n * planes, row - plane * rows, ox, least(cols - ox, room)};
  }
  // The row of channel c that tap (q, r) sees from a run, null where it lies outside.
  TW_INLINE const S* seen_row(const Run& u, int64_t c, int64_t q, int64_t r) const {
    const int64_t z = u.oz * step_z + tap_z[q], y = u.oy * step_y + tap_y[r];
    return z >= 0 && z < D && y >= 0 && y < H ? data + u.data + ((c * D + z) * H + y) * W : nullptr;
  }
  // Which i of a run whose first column is x (of tap s) lie in the image: lo <= i < hi.
  TW_INLINE void clip(int64_t x, int64_t length, int64_t* lo, int64_t* hi) const {
    *lo = x >= 0 ? 0 : step_x == 1 ? -x : ceil_div(-x, step_x);
    *hi = x >= W ? 0 : least(length, step_x == 1 ? W - x : ceil_div(W - x, step_x));
  }
  // One tap's view of a run, `row` being its row of the image (null: outside).
  template <class T> TW_INLINE void line(T* to, const S* row, int64_t x, int64_t length, int64_t room) const {
    int64_t lo, hi;
    clip(x, length, &lo, &hi);
    if (!row || lo >= hi) return zero_line(to, length, room);
    if (lo > 0 || hi < length) zero_line(to, length, room);
    copy_line(to + lo, row + x + lo * step_x, step_x, hi - lo, room - lo);
  }

  // Positions along the lanes: dst[kk * kNr + jj] = value of tap k + kk at position j + jj. Runs are taken from left to
  // right, since one may write past its end into the next.
  template <class T> void pack_positions(T* dst, int64_t j, int n, int64_t k, int64_t count) const {
    constexpr int L = Vec<T>::kLanes;
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    int64_t leftmost = 0, rightmost = 0;
    for (int64_t s = 0; s < kw; ++s) {
      leftmost = s == 0 ? tap_x[s] : least(leftmost, tap_x[s]);
      rightmost = s == 0 ? tap_x[s] : most(rightmost, tap_x[s]);
    }
    for (int64_t done = 0; done < n;) {
      const Run run = this->run(j + done, n - done);
      const int64_t room = kNr - done, x = run.ox * step_x, lines = kd * kh;
      const bool inside = x + leftmost >= 0 && x + (run.length - 1) * step_x + rightmost < W;
      for (int64_t at = 0; at < lines; ++at) {
        const S* row = seen_row(run, 0, at / kh, at % kh);
        // The rows of taps (c, at, 0 : kw) that meet k .. k + count.
        const int64_t c0 = (k / kw - at + lines - 1) / lines;
        const int64_t c1 = ceil_div(ceil_div(k + count, kw) - at, lines);
        if (row) row += c0 * D * H * W;
        for (int64_t c = c0; c < c1; ++c) {
          const int64_t first = (c * lines + at) * kw - k, s0 = first < 0 ? -first : 0, s1 = least(kw, count - first);
          T* to = dst + first * kNr + done;
          if (row && inside && step_x == 1 && run.length == kNr) {
            for (int64_t s = s0; s < s1; ++s)
#pragma GCC unroll 4
              for (int i = 0; i < kNr; i += L) load_as<T>(row + x + tap_x[s] + i).store(to + s * kNr + i);
          } else if (row && inside) {
            for (int64_t s = s0; s < s1; ++s) copy_line(to + s * kNr, row + x + tap_x[s], step_x, run.length, room);
          } else if (!row) {
            for (int64_t s = s0; s < s1; ++s) zero_line(to + s * kNr, run.length, room);
          } else {
            for (int64_t s = s0; s < s1; ++s) line(to + s * kNr, row, x + tap_x[s], run.length, room);
          }
          if (row) row += D * H * W;
        }
      }
      done += run.length;
    }
    if (n % L)
      for (int64_t kk = 0; kk < count; ++kk) zero_line(dst + kk * kNr + n, round_up(n, L) - n, kNr - n);
  }

  // Taps along the lanes: dst[kk * kNr + jj] = value of tap j + jj at position k + kk. A part of k at a time for all
  // lanes, so that what is written stays in L1 until its lines are full.
  template <class T> void pack_taps(T* dst, int64_t j, int n, int64_t k, int64_t count) const {
    constexpr int L = Vec<T>::kLanes, kPart = 64;
    constexpr int64_t kNr = TW_ISA::kNr<T>;
    const int64_t taps = kd * kh * kw;
    Run runs[kPart];
    T columns[4][kPart];
    for (int64_t k0 = 0; k0 < count; k0 += kPart, dst += kPart * kNr) {
      const int64_t length = least(kPart, count - k0);
      int lines = 0;
      for (int64_t done = 0; done < length; done += runs[lines++].length)
        runs[lines] = run(k + k0 + done, length - done);
      for (int64_t i = 0; i < round_up(n, L); i += 4) {
        for (int q = 0; q < 4; ++q) {
          const int64_t lane = least(j + i + q, j + n - 1), c = lane / taps, at = lane % taps / kw, s = lane % kw;
          T* to = columns[q];
          int64_t room = kPart;
          for (int i_run = 0; i_run < lines; ++i_run) {
            const Run& u = runs[i_run];
            line(to, seen_row(u, c, at / kh, at % kh), u.ox * step_x + tap_x[s], u.length, room);
            to += u.length;
            room -= u.length;
          }
        }
        T* to = dst + i;
        int64_t kk = 0;
        for (; kk + 4 <= length; kk += 4)
          transpose4(to + kk * kNr, kNr, columns[0] + kk, columns[1] + kk, columns[2] + kk, columns[3] + kk);
        for (; kk < length; ++kk)
          for (int q = 0; q < 4; ++q) to[kk * kNr + q] = columns[q][kk];
      }
    }
  }
};

}  // namespace tw::TW_ISA
