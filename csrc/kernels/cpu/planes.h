// Planes computed without a matrix product (depthwise.cpp, conv_few.cpp): padded, and sorted by the stride.
#pragma once
#include "kernels/cpu/conv_image.h"

namespace tw::TW_ISA {

template <class T> constexpr int64_t kSlack = 4 * Vec<T>::kLanes;  // that loads may reach behind a plane
constexpr int64_t kPiece = 1 << 16;                                // multiply-adds worth handing to another thread

// A plane padded and sorted: sorted rows of `width` elements, `part` elements for each pair of remainders.
struct Sorted {
  int64_t height, width, part, steps[2];

  // For a plane in which taps reach up to row `rows` and column `cols`, stepping by steps.
  Sorted(int64_t rows, int64_t cols, int64_t step_y, int64_t step_x)
      : height(ceil_div(rows, step_y)), width(ceil_div(cols, step_x)), part(height * width), steps{step_y, step_x} {}

  int64_t at(int64_t y, int64_t x) const {  // of a padded plane's element
    return (y % steps[0] * steps[1] + x % steps[1]) * part + y / steps[0] * width + x / steps[1];
  }
  int64_t size() const { return part * steps[0] * steps[1]; }

  // Copies x (rows x cols) to row `top` and column `left` on; the rest stays as it is.
  template <class T, class S>
  void fill(T* plane, const S* x, int64_t rows, int64_t cols, int64_t top, int64_t left) const {
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t i = 0; i < least(steps[1], cols); ++i) {
        const int64_t n = ceil_div(cols - i, steps[1]);
        copy_line(plane + at(top + y, left + i), x + y * cols + i, steps[1], n, n);
      }
  }
};

template <class T> void clear(T* p, int64_t n) {
  for (int64_t i = 0; i < n; i += Vec<T>::kLanes) Vec<T>(T(0)).store(p + i);
}

// One tap of a correlation: its weight's number and where it begins in the plane.
struct Tap {
  int64_t weight, at;
};

// Sums, rows `width` apart, to y with steps y_row and y_col.
template <class T, class S>
void store_rows(S* y, int64_t rows, int64_t cols, int64_t y_row, int64_t y_col, const T* sums, int64_t width) {
  constexpr int L = Vec<T>::kLanes;
  for (int64_t r = 0; r < rows; ++r) {
    S* to = y + r * y_row;
    const T* from = sums + r * width;
    if (y_col == 1) {
      int64_t i = 0;
      for (; i + L <= cols; i += L) store_as(to + i, Vec<T>::load(from + i));
      if (i < cols) store_as(to + i, Vec<T>::load(from + i), int(cols - i));
    } else if constexpr (kSame<T, S>) {
      for (int64_t i = 0; i < cols; ++i) to[i * y_col] = from[i];
    } else {
      for (int64_t i = 0; i < cols; ++i) convert(to + i * y_col, from + i, 1);
    }
  }
}

}  // namespace tw::TW_ISA
