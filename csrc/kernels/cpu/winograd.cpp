// Convolution with 3x3 filters of stride 1, its dx and its dw, by Winograd's minimal filtering.
//
// Shapes as in conv.cpp, filters of several planes too (a plane is one more channel), float32, float16 and bfloat16,
// all computed in float32.
// Formula: F(2x2, 3x3), Y = A^T [(G w G^T) . (B^T x B)] A for tiles of 2x2 results from 4x4 pixels: 16 multiplications
// in place of 36. dx is the same with turned filters; dw is F(3x3, 2x2), whose tiles of 4x4 pixels are those of the
// forward pass, with tiles of 2x2 gradients as filters. Each of the 16 places of a tile is one matrix product over
// channels (dw: over tiles), run on the register tile of gemm.h.
// Error: the transforms add 4 terms a direction and the sums have a ninth of the direct ones' length, so that the error
// is 0.6 to 1.0 of a plain float32 evaluation's in order (rms, 16 to 256 channels). Measured by tests/op_table/conv.py
// against twice a float32 evaluation. F(4x4, 3x3) has 4 to 5 times that error, so it is not here.
// Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"; Winograd 1980.
// Work: panels of kNr tiles are tasks that transform their pixels (into L2) and go through all filters; where there are
// few, pixels are transformed first and (panel, part of the filters) are the tasks. Filters are taken in parts whose
// transforms stay under kMaxFilters. For dw, channels lie along the lanes, so that pixels are turned before they are
// transformed, a quarter of the work of turning them afterwards.
#include "kernels/cpu/winograd.h"

namespace tw::TW_ISA {
namespace {

using V = Vec<float>;
constexpr int L = V::kLanes, kPlaces = 16, kLanesB = kNr<float>, kLanesA = kStepA<float>;
constexpr int64_t kMaxFilters = 20 << 20, kMaxChunk = 6 << 20;  // bytes
static_assert(kLanesB == 2 * L && kLanesA % L == 0);

// B^T d of four values, in place.
TW_INLINE void pixels_1d(V& a, V& b, V& c, V& d) {
  const V t0 = a - c, t1 = b + c, t2 = c - b, t3 = b - d;
  a = t0, b = t1, c = t2, d = t3;
}
TW_INLINE void pixels_2d(V (&d)[4][4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) pixels_1d(d[i][0], d[i][1], d[i][2], d[i][3]);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) pixels_1d(d[0][j], d[1][j], d[2][j], d[3][j]);
}

// The even and the odd ones of 2 L elements.
TW_INLINE V even_of(V a, V b) {
  typename Mask<float>::Native index;
  for (int i = 0; i < L; ++i) index[i] = 2 * i;
  return __builtin_shuffle(a.v, b.v, index);
}
TW_INLINE V odd_of(V a, V b) {
  typename Mask<float>::Native index;
  for (int i = 0; i < L; ++i) index[i] = 2 * i + 1;
  return __builtin_shuffle(a.v, b.v, index);
}

// One group's convolution: y (O channels) from x (C channels).
template <class S> struct Layer {
  Image<S> tiles;  // as 4x4 windows, two pixels apart
  const S* w;
  int64_t C, O, w_out,
      w_in;            // channels c of x are (channel, plane of the filter); w's strides by channel of y and of x
  bool turned;         // the filters are read backwards
  int64_t rows, cols;  // of y
  Epilogue<float> end;
  int64_t first_row, out_start, out_image;

  int64_t panels() const { return ceil_div(O, kMr<float>); }
  int64_t panel_rows() const { return ceil_div(O, panels()); }

  // From one place to the next. The odd row keeps the 16 places of one value out of each other's sets of L1.
  int64_t filters_step(int64_t panels) const { return (panels * C + 1) * kLanesA; }
  int64_t pixels_step() const { return (C + 1) * kLanesB; }

  // Filters o0 .. o0 + n as panels of A for each place: u[place][panel * C + c][lane].
  void filters(float* u, int64_t o0, int64_t n) const {
    constexpr int64_t kTogether = 8;
    const int64_t height = panel_rows(), count = ceil_div(n, height), parts = ceil_div(C, kTogether);
    parallel_ranges(count * parts, 8, [&](int64_t begin, int64_t end) {
      alignas(64) float g[kTogether * 9 * kLanesA];
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t panel = piece / parts, c0 = piece % parts * kTogether, cs = least(kTogether, C - c0);
        const int64_t o = o0 + panel * height;
        const int m = int(least(height, o0 + n - o));
        const S* from = w + o * w_out;
        if (w_in == 9 * tiles.kd) pack_strided(g, kLanesA, from + c0 * 9, w_out, 1, m, cs * 9, 4);
        else
          for (int64_t c = 0; c < cs; ++c)
            pack_strided(g + c * 9 * kLanesA, kLanesA, from + (c0 + c) / tiles.kd * w_in + (c0 + c) % tiles.kd * 9,
                         w_out, 1, m, 9, 4);
        for (int64_t c = 0; c < cs; ++c)
          for (int v = 0; v < kLanesA; v += L) {
            V t[4][3];
            const V half(0.5f);
            for (int s = 0; s < 3; ++s) {
              V f[3];
              for (int r = 0; r < 3; ++r) {
                const int tap = turned ? 8 - (r * 3 + s) : r * 3 + s;
                f[r] = V::load(g + (c * 9 + tap) * kLanesA + v);
              }
              const V ends = f[0] + f[2];
              t[0][s] = f[0], t[1][s] = (ends + f[1]) * half, t[2][s] = (ends - f[1]) * half, t[3][s] = f[2];
            }
            float* to = u + (panel * C + c0 + c) * kLanesA + v;
            const int64_t step = filters_step(count);
            for (int i = 0; i < 4; ++i) {
              const V ends = t[i][0] + t[i][2];
              t[i][0].store(to + (i * 4) * step);
              ((ends + t[i][1]) * half).store(to + (i * 4 + 1) * step);
              ((ends - t[i][1]) * half).store(to + (i * 4 + 2) * step);
              t[i][2].store(to + (i * 4 + 3) * step);
            }
          }
      }
    });
  }

  // Tiles j .. j + n, channels c0 .. c1, as one panel of B for each place: b[place][c][lane]. Lanes behind a run of
  // tiles in one row are written by the next run.
  void pixels(float* b, int64_t j, int n, int64_t c0, int64_t c1) const {
    for (int at = 0; at < n;) {
      const auto run = tiles.run(j + at, least(L, n - at));
      const int64_t x = run.ox * 2 + tiles.tap_x[0];
      Part part[4];  // of a row, from columns x, x + L, x + 2 and x + 2 + L on
      for (int i = 0; i < 4; ++i) part[i] = Part(x + i / 2 * 2 + i % 2 * L, tiles.W);
      const int room = int(least(L, kLanesB - at));
      for (int64_t q = 0; q < tiles.kd; ++q) {
        const S* row[4];
        for (int i = 0; i < 4; ++i) {
          row[i] = tiles.seen_row(run, 0, q, i);
          if (row[i]) row[i] += x;
        }
        for (int64_t c = ceil_div(c0 - q, tiles.kd) * tiles.kd + q; c < c1; c += tiles.kd) {
          V d[4][4];
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            if (row[i]) {
              const S* p = row[i] + c / tiles.kd * tiles.D * tiles.H * tiles.W;
              const V v0 = part[0].load(p), v1 = part[1].load(p + L);
              const V v2 = part[2].load(p + 2), v3 = part[3].load(p + 2 + L);
              d[i][0] = even_of(v0, v1), d[i][1] = odd_of(v0, v1), d[i][2] = even_of(v2, v3), d[i][3] = odd_of(v2, v3);
            } else {
              d[i][0] = d[i][1] = d[i][2] = d[i][3] = V(0.0f);
            }
          }
          pixels_2d(d);
          float* to = b + c * kLanesB + at;
          if (room == L) {
#pragma GCC unroll 16
            for (int p = 0; p < kPlaces; ++p) d[p / 4][p % 4].store(to + p * pixels_step());
          } else {
            for (int p = 0; p < kPlaces; ++p) d[p / 4][p % 4].store(to + p * pixels_step(), room);
          }
        }
      }
      at += int(run.length);
    }
  }

  // y's channels o .. o + count panels, of `n` channels, at the tiles of one panel; u: of the filters from o0 on.
  void multiply(const float* u, int64_t u_panels, int64_t panel, int64_t count, int64_t o0, int64_t n, const float* b,
                int64_t j, int tiles_here) const {
    const int64_t height = panel_rows(), o = panel * height, outs = least(n - o, count * height);
    float* m = static_cast<float*>(scratch(0, sizeof(float) * kPlaces * (outs + 1) * kLanesB));
    for (int64_t p = 0; p < kPlaces; ++p)
      for (int64_t q = 0; q < count; ++q)
        run_tile<float>(int(least(height, outs - q * height)), tiles_here, C,
                        u + p * filters_step(u_panels) + (panel + q) * C * kLanesA, kLanesA, b + p * pixels_step(),
                        kLanesB, m + (p * (outs + 1) + q * height) * kLanesB, kLanesB, false);
    for (int64_t i = 0; i < outs; ++i) results(m + i * kLanesB, (outs + 1) * kLanesB, o0 + o + i, j, tiles_here);
  }

  // A^T m A of one channel's tiles, stored.
  void results(const float* m, int64_t place, int64_t o, int64_t j, int n) const {
    alignas(64) float lines[2][2 * kLanesB];
    typename Mask<float>::Native low, high;
    for (int i = 0; i < L; ++i) {
      low[i] = i / 2 + i % 2 * L;
      high[i] = low[i] + L / 2;
    }
    for (int v = 0; v < n; v += L) {
      V t[2][4];
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        const V m0 = V::load(m + s * place + v), m1 = V::load(m + (4 + s) * place + v);
        const V m2 = V::load(m + (8 + s) * place + v), m3 = V::load(m + (12 + s) * place + v);
        t[0][s] = m0 + m1 + m2;
        t[1][s] = m1 - m2 - m3;
      }
      for (int r = 0; r < 2; ++r) {
        const V even = t[r][0] + t[r][1] + t[r][2], odd = t[r][1] - t[r][2] - t[r][3];
        V(__builtin_shuffle(even.v, odd.v, low)).store(lines[r] + 2 * v);
        V(__builtin_shuffle(even.v, odd.v, high)).store(lines[r] + 2 * v + L);
      }
    }
    for (int done = 0; done < n;) {
      const int64_t row = (j + done) / tiles.cols, plane = row / tiles.rows, tx = j + done - row * tiles.cols;
      const int64_t y = 2 * (row - plane * tiles.rows), x = 2 * tx, run = least(tiles.cols - tx, n - done);
      const int64_t image = plane / tiles.planes, z = plane - image * tiles.planes;
      const int64_t at = out_start + image * out_image + ((o * tiles.planes + z) * rows + y) * cols + x;
      const int64_t length = least(2 * run, cols - x);
      end.row(at, first_row + o, length, lines[0] + 2 * done);
      if (y + 1 < rows) end.row(at + cols, first_row + o, length, lines[1] + 2 * done);
      done += int(run);
    }
  }

  void run(int64_t N) const {
    const int64_t count = N * tiles.positions(), blocks = ceil_div(count, kLanesB), height = panel_rows();
    const int64_t part = height * ceil_div(panels(), ceil_div(kPlaces * panels() * C * kLanesA * 4, kMaxFilters));
    constexpr int64_t kFewBlocks = 16;
    float* all = blocks < kFewBlocks ? static_cast<float*>(scratch(2, sizeof(float) * blocks * kPlaces * pixels_step()))
                                     : nullptr;
    if (all) {
      constexpr int64_t kTogether = 16;
      const int64_t parts = ceil_div(C, kTogether);
      parallel_for(blocks * parts, [&](int64_t piece) {
        const int64_t block = piece / parts, c = piece % parts * kTogether, j = block * kLanesB;
        pixels(all + block * kPlaces * pixels_step(), j, int(least(kLanesB, count - j)), c, least(C, c + kTogether));
      });
    }
    for (int64_t o = 0; o < O; o += part) {
      const int64_t n = least(part, O - o), here = ceil_div(n, height);
      float* u = static_cast<float*>(scratch(1, sizeof(float) * kPlaces * filters_step(here)));
      filters(u, o, n);
      const int64_t pieces = all ? least(here, ceil_div(kFewBlocks, blocks)) : 1, together = ceil_div(here, pieces);
      parallel_for(blocks * ceil_div(here, together), [&](int64_t piece) {
        const int64_t block = piece % blocks, panel = piece / blocks * together, j = block * kLanesB;
        const int tiles_here = int(least(kLanesB, count - j));
        const float* b = all + block * kPlaces * pixels_step();
        if (!all) {
          float* own = static_cast<float*>(scratch(3, sizeof(float) * kPlaces * pixels_step()));
          pixels(own, j, tiles_here, 0, C);
          b = own;
        }
        multiply(u, here, panel, least(together, here - panel), o, n, b, j, tiles_here);
      });
    }
  }
};

// x (D x H x W) as 4x4 windows for planes x rows x cols results; the offsets of the windows' planes, rows and columns.
template <class S>
Image<S> windows(const S* x, int64_t image, const int64_t* size, const int64_t* out, int64_t kd, const int64_t* tap_z,
                 const int64_t* tap_y, const int64_t* tap_x) {
  return {x,     image, size[0], size[1], size[2], out[0], ceil_div(out[1], 2), ceil_div(out[2], 2), 1, 2, 2,
          tap_z, tap_y, tap_x,   kd,      4,       4};
}

// dw of one group, F(3x3, 2x2): for each place, M (O x C) += dy' (O x tiles) x' (tiles x C), by chunks of tile rows.
template <class S> struct WeightGradient {
  const S *x, *dy;
  int64_t C, O, kd, D, H, W, od, oh, ow;
  const int64_t *pad, *dilation;
  int64_t x_image, dy_image;
  Epilogue<float> end;
  int64_t out_start;  // of this group in dw (O, C, kd, 3, 3)

  // n channels from `plane` on (a plane has `size` pixels), the pixels (y, x0 .. x0 + count) of a rows x cols plane, as
  // to[pixel][lane]; zeros outside.
  TW_INLINE void line(float* to, int lanes, const S* plane, int64_t size, int n, int64_t rows, int64_t cols, int64_t y,
                      int64_t x0, int64_t count) const {
    const int64_t lo = y < 0 || y >= rows ? count : least(count, most(0, -x0)), hi = most(lo, least(count, cols - x0));
    for (int64_t i = 0; i < lo * lanes; i += L) V(0.0f).store(to + i);
    if (hi > lo) pack_strided(to + lo * lanes, lanes, plane + y * cols + x0 + lo, size, 1, n, hi - lo, L);
    for (int64_t i = hi * lanes; i < count * lanes; i += L) V(0.0f).store(to + i);
  }

  // Row `row` of tiles as plane q of the filters sees it, channels c0 .. c0 + n: b[place * step + tile][lane].
  void pixels(float* b, int64_t step, int64_t row, int64_t q, int64_t c0, int n) const {
    constexpr int64_t kRun = 16;
    alignas(64) float lines[4][(2 * kRun + 2) * kLanesB];
    const int64_t tile_rows = ceil_div(oh, 2), tile_cols = ceil_div(ow, 2), image = row / tile_rows;
    const int64_t z = image % od + q * dilation[0] - pad[0], size = D * H * W;
    const int64_t y = z < 0 || z >= D ? -4 : 2 * (row - image * tile_rows) - pad[1];  // all four rows outside
    const S* plane = x + image / od * x_image + c0 * size + z * H * W;
    for (int64_t t0 = 0; t0 < tile_cols; t0 += kRun) {
      const int64_t run = least(kRun, tile_cols - t0);
      for (int i = 0; i < 4; ++i) line(lines[i], kLanesB, plane, size, n, H, W, y + i, 2 * t0 - pad[2], 2 * run + 2);
      for (int64_t t = 0; t < run; ++t)
        for (int v = 0; v < n; v += L) {
          V d[4][4];
#pragma GCC unroll 16
          for (int p = 0; p < kPlaces; ++p) d[p / 4][p % 4] = V::load(lines[p / 4] + (2 * t + p % 4) * kLanesB + v);
          pixels_2d(d);
#pragma GCC unroll 16
          for (int p = 0; p < kPlaces; ++p) d[p / 4][p % 4].store(b + (p * step + t0 + t) * kLanesB + v);
        }
    }
  }
  // The same for tiles of dy: a[place * step + tile][lane].
  void gradients(float* a, int64_t step, int64_t row, int64_t o0, int n) const {
    constexpr int64_t kRun = 16;
    alignas(64) float lines[2][2 * kRun * kLanesA];
    const int64_t tile_rows = ceil_div(oh, 2), tile_cols = ceil_div(ow, 2), image = row / tile_rows;
    const int64_t y = 2 * (row - image * tile_rows);
    const S* plane = dy + image / od * dy_image + (o0 * od + image % od) * oh * ow;
    const V half(0.5f);
    for (int64_t t0 = 0; t0 < tile_cols; t0 += kRun) {
      const int64_t run = least(kRun, tile_cols - t0);
      for (int i = 0; i < 2; ++i) line(lines[i], kLanesA, plane, od * oh * ow, n, oh, ow, y + i, 2 * t0, 2 * run);
      for (int64_t t = 0; t < run; ++t)
        for (int v = 0; v < kLanesA; v += L) {
          V g[4][2];
          for (int s = 0; s < 2; ++s) {
            g[0][s] = V::load(lines[0] + (2 * t + s) * kLanesA + v);
            g[3][s] = V::load(lines[1] + (2 * t + s) * kLanesA + v);
            g[1][s] = (g[0][s] + g[3][s]) * half;
            g[2][s] = (g[0][s] - g[3][s]) * half;
          }
          float* to = a + (t0 + t) * kLanesA + v;
          for (int i = 0; i < 4; ++i) {
            g[i][0].store(to + i * 4 * step * kLanesA);
            ((g[i][0] + g[i][1]) * half).store(to + (i * 4 + 1) * step * kLanesA);
            ((g[i][0] - g[i][1]) * half).store(to + (i * 4 + 2) * step * kLanesA);
            g[i][1].store(to + (i * 4 + 3) * step * kLanesA);
          }
        }
    }
  }

  // A^T m A, 3x3 of 4x4, of L channels c from m on; stored in dw's row.
  void results(const float* m, int64_t place, int64_t o, int64_t q, int64_t c, int n) const {
    alignas(64) float taps[9][L], row[9 * L];
    V t[3][4];
    for (int s = 0; s < 4; ++s) {
      const V m0 = V::load(m + s * place), m1 = V::load(m + (4 + s) * place), m2 = V::load(m + (8 + s) * place);
      t[0][s] = m0 + m1 + m2;
      t[1][s] = m1 - m2;
      t[2][s] = m1 + m2 - V::load(m + (12 + s) * place);
    }
    for (int r = 0; r < 3; ++r) {
      (t[r][0] + t[r][1] + t[r][2]).store(taps[r * 3]);
      (t[r][1] - t[r][2]).store(taps[r * 3 + 1]);
      (t[r][1] + t[r][2] - t[r][3]).store(taps[r * 3 + 2]);
    }
    for (int i = 0; i < n; ++i)
      for (int tap = 0; tap < 9; ++tap) row[i * 9 + tap] = taps[tap][i];
    if (kd == 1) return end.row(out_start + (o * C + c) * 9, 0, n * 9, row);
    for (int i = 0; i < n; ++i) end.row(out_start + ((o * C + c + i) * kd + q) * 9, 0, 9, row + i * 9);
  }

  // Output channels o0 .. o0 + n.
  void run(int64_t N, int64_t o0, int64_t n) const {
    const int64_t tile_cols = ceil_div(ow, 2), rows = N * od * ceil_div(oh, 2), panels = ceil_div(C, kLanesB);
    const int64_t a_panels = ceil_div(n, kMr<float>), height = ceil_div(n, a_panels), b_panels = kd * panels;
    const int64_t width = b_panels * kLanesB, bytes = kPlaces * 4 * (a_panels * kLanesA + width);
    const int64_t wanted = most(32, least(384, kMaxChunk / bytes)), together = most(1, wanted / tile_cols);
    const int64_t place = n * width + kLanesB, step = together * tile_cols | 1;  // tiles of one chunk
    float* m = static_cast<float*>(scratch(1, sizeof(float) * kPlaces * place));
    float* a = static_cast<float*>(scratch(2, size_t(bytes * step)));
    float* b = a + kPlaces * a_panels * step * kLanesA;
    for (int64_t row = 0; row < rows; row += together) {
      const int64_t here = least(together, rows - row);
      parallel_for(here * (a_panels + b_panels), [&](int64_t piece) {
        const int64_t r = piece / (a_panels + b_panels), at = piece % (a_panels + b_panels);
        if (at < a_panels)
          return gradients(a + (kPlaces * at * step + r * tile_cols) * kLanesA, step, row + r, o0 + at * height,
                           int(least(height, n - at * height)));
        const int64_t q = (at - a_panels) / panels, c = (at - a_panels) % panels * kLanesB;
        pixels(b + (kPlaces * (at - a_panels) * step + r * tile_cols) * kLanesB, step, row + r, q, c,
               int(least(kLanesB, C - c)));
      });
      const int64_t groups = ceil_div(a_panels, 8);
      parallel_for(kPlaces * groups, [&](int64_t piece) {
        const int64_t p = piece / groups, first = piece % groups * 8;
        for (int64_t q = 0; q < b_panels; ++q)
          for (int64_t i = first; i < least(a_panels, first + 8); ++i)
            run_tile<float>(int(least(height, n - i * height)), int(least(kLanesB, C - q % panels * kLanesB)),
                            here * tile_cols, a + (kPlaces * i + p) * step * kLanesA, kLanesA,
                            b + (kPlaces * q + p) * step * kLanesB, kLanesB,
                            m + p * place + i * height * width + q * kLanesB, width, row > 0);
      });
    }
    parallel_ranges(n, ceil_div(512, C), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t q = 0; q < kd; ++q)
          for (int64_t c = 0; c < C; c += L)
            results(m + o * width + q * panels * kLanesB + c, place, o0 + o, q, c, int(least(L, C - c)));
    });
  }
};

Epilogue<float> stored(const ConvArgs& a, const void* bias) {
  return {a.y, bias, a.dtype, a.dtype, true, Activation::kNone, 1, 0};
}

// y from x, or dx from dy by the turned filters.
template <class S> void run_layer(const ConvArgs& a, bool backward) {
  const int64_t Cg = a.C / a.groups, Og = a.O / a.groups, C = backward ? Og : Cg, O = backward ? Cg : Og;
  const int64_t *size = backward ? a.out : a.size, *out = backward ? a.size : a.out, kd = a.kernel[0];
  const int64_t pixels = size[0] * size[1] * size[2], results = out[0] * out[1] * out[2];
  int64_t tap_z[kMostDeep], tap[2][4];
  for (int64_t q = 0; q < kd; ++q) tap_z[q] = backward ? a.pad[0] - q * a.dilation[0] : q * a.dilation[0] - a.pad[0];
  for (int d = 0; d < 2; ++d)
    for (int64_t r = 0; r < 4; ++r) tap[d][r] = backward ? r - 2 + a.pad[d + 1] : r - a.pad[d + 1];
  for (int64_t g = 0; g < a.groups; ++g) {
    const S* x = static_cast<const S*>(backward ? a.dy : a.x) + g * C * pixels;
    Layer<S>{windows(x, a.groups * C * pixels, size, out, kd, tap_z, tap[0], tap[1]),
             static_cast<const S*>(a.w) + g * Og * Cg * kd * 9,
             C * kd,
             O,
             (backward ? 1 : Cg) * kd * 9,
             (backward ? Cg : 1) * kd * 9,
             backward,
             out[1],
             out[2],
             stored(a, a.b),
             g * O,
             g * O * results,
             a.groups * O * results}
        .run(a.N);
  }
}

}  // namespace

template <class S> void winograd(const ConvArgs& a) { run_layer<S>(a, false); }
template <class S> void winograd_backward_x(const ConvArgs& a) { run_layer<S>(a, true); }

template <class S> void winograd_backward_w(const ConvArgs& a) {
  const int64_t C = a.C / a.groups, O = a.O / a.groups, kd = a.kernel[0];
  const int64_t size = a.size[0] * a.size[1] * a.size[2], P = a.out[0] * a.out[1] * a.out[2];
  const int64_t most_rows = most(kMr<float>, kMaxFilters / (kPlaces * 4 * kd * round_up(C, kLanesB)));
  const int64_t parts = ceil_div(O, most_rows), part = ceil_div(O, parts);
  for (int64_t g = 0; g < a.groups; ++g) {
    const WeightGradient<S> of{static_cast<const S*>(a.x) + g * C * size,
                               static_cast<const S*>(a.dy) + g * O * P,
                               C,
                               O,
                               kd,
                               a.size[0],
                               a.size[1],
                               a.size[2],
                               a.out[0],
                               a.out[1],
                               a.out[2],
                               a.pad,
                               a.dilation,
                               a.C * size,
                               a.O * P,
                               stored(a, nullptr),
                               g * O * C * kd * 9};
    for (int64_t o = 0; o < O; o += part) of.run(a.N, o, least(part, O - o));
  }
}

#define TW_X(S)                                          \
  template void winograd<S>(const ConvArgs&);            \
  template void winograd_backward_x<S>(const ConvArgs&); \
  template void winograd_backward_w<S>(const ConvArgs&);
TW_X(float16)
TW_X(bfloat16)
TW_X(float)
#undef TW_X

}  // namespace tw::TW_ISA
