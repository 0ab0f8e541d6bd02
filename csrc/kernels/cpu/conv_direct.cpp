// Convolution, dx and dw of any stride and dilation in one to three dimensions, without panels of pixels.
//
// Shapes and dtypes as in conv.cpp. A strip of rows is copied once, with its padding and its columns and rows sorted by
// the stride, instead of once a tap; then every tap of neighbouring results is one run of memory. In the register tile
// results along a row are the rows of A, broadcast from there, and output channels are B's lanes: so any width of image
// fills the tile, weights are the only panels, and the tile is turned when it is stored. For dx, pixels are taken by
// phase, as in conv.cpp, and the phases of a row meet in one buffer before they are stored.
// Accumulates in float32, or float64 for float64: one chain of multiply-adds over a block of (c, q, r, s), blocks added
// in order. Measured by tests/op_table/conv.py.
// Where weights outnumber pixels (late layers at batch 1), pixels are sorted first and panels of weights are the tasks;
// elsewhere weights are packed first and strips are the tasks. For dw a tile's rows are taps and channels of x, read
// where they are, and dy is turned; below 512 positions its sums cost more than they save, and conv.cpp takes the
// product. Two threads of an AMD EPYC (family 25 model 17, peak 236 GFLOP/s) run 3x3x3, 5x5 and strided 3x3 at 180 to
// 220, against 115 to 150 with packed panels. There PyTorch is as near the peak, so that these shapes stay at 0.9 to
// 1.1 of it: 5x5 of 48 -> 128 channels (0.93 at batch 16), 4x4 of stride 2 transposed, 256 -> 128 on 8 x 8 (0.9), 2
// taps of 512 -> 512 (1.0). Tried: chains over a whole K (weights stream from L2, 140 where K is 2304), so that a chain
// ends after some 208 terms; results of 7 pixels a row alone in a tile (146 against 169 for two rows).
#include "kernels/cpu/conv_direct.h"

#include "kernels/cpu/conv_image.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kMaxTaps = 128, kMaxPhases = 16, kStripBytes = 384 << 10, kMostBytes = 4 << 20;

// One dimension: result j * phases + p reads the elements j * step + offset[i] by the taps which[i], for
// first[p] <= i < first[p + 1].
struct Axis {
  int64_t size, results, step, phases, low, reach;
  int64_t first[kMaxPhases + 1], offset[kMaxTaps], which[kMaxTaps];

  Axis(const ConvArgs& a, int d, bool backward)
      : size(backward ? a.out[d] : a.size[d]),
        results(backward ? a.size[d] : a.out[d]),
        step(backward ? 1 : a.stride[d]),
        phases(backward ? least(a.stride[d], a.size[d]) : 1) {
    int64_t n = 0, high = 0;
    low = 0;
    for (int64_t p = 0; p < phases; ++p) {
      first[p] = n;
      for (int64_t r = 0; r < a.kernel[d]; ++r) {
        const int64_t at = backward ? p + a.pad[d] - r * a.dilation[d] : r * a.dilation[d] - a.pad[d];
        if (backward && at % a.stride[d]) continue;
        offset[n] = backward ? at / a.stride[d] : at;
        low = n ? least(low, offset[n]) : offset[n];
        high = n ? most(high, offset[n]) : offset[n];
        which[n++] = r;
      }
    }
    first[phases] = n;
    reach = high - low + 1;
  }
  int64_t taps(int64_t p) const { return first[p + 1] - first[p]; }
  int64_t steps() const { return ceil_div(results, phases); }  // how many j there are
};

// For G rows g of R results: c[g * c_group + i * c_row] = or += sum over k of x[g * x_group + at[k] + i] w[k, :]
template <class T, int G, int R, int V>
__attribute__((noinline)) void tile_of_rows(int64_t count, const T* x, int64_t x_group, const int32_t* at, const T* w,
                                            T* c, int64_t c_group, int64_t c_row, bool add) {
  constexpr int L = Vec<T>::kLanes, kAhead = 16;
  constexpr int64_t kNr = TW_ISA::kNr<T>;
  Vec<T> acc[G * R][V];
#pragma GCC unroll 16
  for (int i = 0; i < G * R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  for (int64_t k = 0; k < count; ++k, w += kNr) {
    const T* from = x + at[k];
    Vec<T> b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(w + kAhead * kNr + v * L);
      b[v] = Vec<T>::load(w + v * L);
    }
#pragma GCC unroll 16
    for (int i = 0; i < G * R; ++i) {
      const Vec<T> a(from[i / R * x_group + i % R]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = fma(a, b[v], acc[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < G * R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* p = c + i / R * c_group + i % R * c_row + v * L;
      (add ? Vec<T>::load(p) + acc[i][v] : acc[i][v]).store(p);
    }
}
template <class T, int G, int V, int R = kMr<T> / G, class... Rest>
TW_INLINE void run_rows_of(int cols, const Rest&... rest) {
  if (R == 1 || cols == R) return tile_of_rows<T, G, R, V>(rest...);
  if constexpr (R > 1) run_rows_of<T, G, V, R - 1>(cols, rest...);
}
template <class T, int V, class... Rest> TW_INLINE void run_groups_of(int rows, int cols, const Rest&... rest) {
  if (rows == 1) return run_rows_of<T, 1, V>(cols, rest...);
  if constexpr (kMr<T> >= 8)
    if (rows == 3) return run_rows_of<T, 3, V>(cols, rest...);
  run_rows_of<T, 2, V>(cols, rest...);
}
// Strips of positions, as the gradient by the weight sums over them: strip s has rows[s] rows of cols[s].
struct Positions {
  int64_t strips, strip, width, most;  // elements of x from strip to strip and from row to row; positions in a strip
  const int64_t *rows, *cols;
};
// c (R x V vectors) = or += sum over positions of x[i][position] (outer) dy[position, :]
template <class T, int R, int V>
__attribute__((noinline)) void tile_of_taps(const Positions& p, const T* const* x, const T* dy, T* c, bool add) {
  constexpr int L = Vec<T>::kLanes;
  constexpr int64_t kNr = TW_ISA::kNr<T>;
  const T* row[R];
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    row[i] = x[i];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>(T(0));
  }
  for (int64_t s = 0; s < p.strips; ++s) {
    const T* from = dy + s * p.most * kNr;
    for (int64_t y = 0; y < p.rows[s]; ++y) {
      const int64_t begin = s * p.strip + y * p.width;
      for (int64_t k = begin; k < begin + p.cols[s]; ++k, from += kNr) {
        Vec<T> b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) b[v] = Vec<T>::load(from + v * L);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const Vec<T> a(row[i][k]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[i][v] = fma(a, b[v], acc[i][v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* to = c + i * kNr + v * L;
      (add ? Vec<T>::load(to) + acc[i][v] : acc[i][v]).store(to);
    }
}
template <class T, int V, int R = kMr<T>, class... Rest> TW_INLINE void run_taps(int rows, const Rest&... rest) {
  if (R == 1 || rows == R) return tile_of_taps<T, R, V>(rest...);
  if constexpr (R > 1) run_taps<T, V, R - 1>(rows, rest...);
}

// As many rows of so few columns as fill the tile.
template <class T> TW_INLINE int64_t rows_of_tile(int64_t cols) {
  return kMr<T> >= 8 && cols <= kMr<T> / 3 ? 3 : cols <= kMr<T> / 2 ? 2 : 1;
}
// Terms in one chain of additions: the weights of one stay in L1.
inline int64_t chain(int64_t K) { return round_up(ceil_div(K, ceil_div(K, 208)), 4); }

template <class T, class S> struct Direct {
  static constexpr int L = Vec<T>::kLanes;
  static constexpr int64_t kNr = TW_ISA::kNr<T>;
  Axis z, y, x;
  int64_t N, C, M, groups, kernel[3], taps;  // C channels read and M written a group
  int64_t w_lane, w_channel;                 // w's steps by channel written and read
  const S *data, *w;
  Epilogue<T> end;
  int64_t height = 0, width = 0, room = 0;  // of a sorted plane
  int64_t h = 0, cols = 0, col_strips = 0;  // rows and columns of results in a strip (of one phase), strips in a row

  Direct(const ConvArgs& a, bool backward)
      : z(a, 0, backward),
        y(a, 1, backward),
        x(a, 2, backward),
        N(a.N),
        C((backward ? a.O : a.C) / a.groups),
        M((backward ? a.C : a.O) / a.groups),
        groups(a.groups),
        kernel{a.kernel[0], a.kernel[1], a.kernel[2]},
        taps(a.kernel[0] * a.kernel[1] * a.kernel[2]),
        w_lane(backward ? taps : C * taps),
        w_channel(backward ? M * taps : taps),
        data(static_cast<const S*>(backward ? a.dy : a.x)),
        w(static_cast<const S*>(a.w)),
        end{a.y, a.b, a.dtype, a.dtype, true, Activation::kNone, 1, 0} {}

  int64_t planes(int64_t pz) const { return C * z.taps(pz); }
  int64_t strips() const { return ceil_div(y.steps(), h) * col_strips; }  // of a plane
  int64_t strip_row(int64_t s) const { return s % strips() / col_strips * h; }
  int64_t strip_col(int64_t s) const { return s % col_strips * cols; }
  int64_t rows_of(int64_t s) const { return least(h, y.steps() - strip_row(s)); }
  int64_t cols_of(int64_t s) const { return least(cols, x.steps() - strip_col(s)); }
  void set_strip(int64_t rows) {
    h = rows;
    height = ceil_div((h - 1) * y.step + y.reach, y.step);
    width = ceil_div((cols - 1) * x.step + x.reach, x.step);
    room = round_up(height * width * y.step * x.step, L) + L;
  }
  // Columns of results in a strip: all of an image's, a part of a signal. False where taps lie too far apart for that.
  bool choose_columns() {
    constexpr int64_t kMostColumns = 448, kUnit = 4 * kMr<T>;
    cols = x.steps();
    if (x.results > kMostColumns) {
      const int64_t fit = kStripBytes / int64_t(sizeof(T)) / (C * kernel[0]) - x.reach;
      cols = least(kMostColumns / x.phases, fit) / kUnit * kUnit;
      if (cols <= 0 || cols * x.step < x.reach / 2) return false;
      cols = least(cols, x.steps());
    }
    col_strips = ceil_div(x.steps(), cols);
    return cols >= 4;
  }
  // Rows of results in a strip: enough to use each panel of weights a few times, few enough for L2 and for all threads.
  bool choose_strip() {
    const int64_t least_rows = ceil_div(4 * kMr<T>, cols);
    int64_t deep = 0;
    for (int64_t p = 0; p < z.phases; ++p) deep = most(deep, planes(p));
    set_strip(y.steps());
    for (int64_t n = 2; h > least_rows; ++n) {
      const bool enough = N * z.steps() * strips() >= 8;
      if (enough && deep * room * int64_t(sizeof(T)) <= kStripBytes) break;
      set_strip(ceil_div(y.steps(), n));
    }
    return deep * room * int64_t(sizeof(T)) <= 3 * kStripBytes;
  }

  // Where the phases' taps begin in the tables of offsets and weights, for pz: phases of y outside, of x inside.
  int64_t depth(int64_t pz, int64_t py, int64_t px) const { return planes(pz) * y.taps(py) * x.taps(px); }
  int64_t place(int64_t oy, int64_t ox) const {
    oy -= y.low, ox -= x.low;
    return (oy % y.step * x.step + ox % x.step) * height * width + oy / y.step * width + ox / x.step;
  }
  void offsets(int32_t* at, int64_t pz) const {
    for (int64_t py = 0; py < y.phases; ++py)
      for (int64_t px = 0; px < x.phases; ++px)
        for (int64_t plane = 0; plane < planes(pz); ++plane)
          for (int64_t r = y.first[py]; r < y.first[py + 1]; ++r)
            for (int64_t s = x.first[px]; s < x.first[px + 1]; ++s)
              *at++ = int32_t(plane * room + place(y.offset[r], x.offset[s]));
  }
  // The weights of channels m .. m + n for channels c0 .. c1, in the order of the offsets: to[term][lane].
  void pack(T* to, int64_t pz, int64_t group, int64_t m, int n, int64_t c0, int64_t c1) const {
    const S* from = w + group * M * C * taps + m * w_lane;
    if (w_channel == taps)
      return pack_strided(to + c0 * taps * kNr, int(kNr), from + c0 * taps, w_lane, 1, n, (c1 - c0) * taps, L);
    if (taps == 1)
      return pack_strided(to + c0 * kNr, int(kNr), from + c0 * w_channel, w_lane, w_channel, n, c1 - c0, L);
    alignas(64) T g[kMaxTaps * kNr];
    const int64_t vectors = ceil_div(n, L);
    for (int64_t c = c0; c < c1; ++c) {
      for (int64_t i = 0; i < n * taps; i += 64 / int64_t(sizeof(S)))
        __builtin_prefetch(from + (c + 2) * w_channel + i);
      pack_strided(g, int(kNr), from + c * w_channel, w_lane, 1, n, taps, L);
      T* phase = to;
      for (int64_t py = 0; py < y.phases; ++py)
        for (int64_t px = 0; px < x.phases; ++px) {
          T* p = phase + c * z.taps(pz) * y.taps(py) * x.taps(px) * kNr;
          for (int64_t q = z.first[pz]; q < z.first[pz + 1]; ++q)
            for (int64_t r = y.first[py]; r < y.first[py + 1]; ++r)
              for (int64_t s = x.first[px]; s < x.first[px + 1]; ++s, p += kNr) {
                const T* tap = g + ((z.which[q] * kernel[1] + y.which[r]) * kernel[2] + x.which[s]) * kNr;
                for (int64_t v = 0; v < vectors; ++v) Vec<T>::load(tap + v * L).store(p + v * L);
              }
          phase += depth(pz, py, px) * kNr;
        }
    }
  }
  // Channels c0 .. c1 of the pixels that strip s of phase pz reads, counted through planes (deep an image), images.
  void fill(T* to, int64_t group, int64_t pz, int64_t deep, int64_t s, int64_t c0, int64_t c1) const {
    const int64_t n = s / strips() / deep, jz = s / strips() % deep, j = strip_row(s), left = strip_col(s) * x.step;
    Image<S> line{};
    line.W = x.size;
    line.step_x = x.step;
    for (int64_t c = c0; c < c1; ++c)
      for (int64_t q = 0; q < z.taps(pz); ++q) {
        const int64_t at_z = jz * z.step + z.offset[z.first[pz] + q];
        const S* plane = data + (((n * groups + group) * C + c) * z.size + at_z) * y.size * x.size;
        T* part = to + (c * z.taps(pz) + q) * room;
        for (int64_t ry = 0; ry < y.step; ++ry)
          for (int64_t rx = 0; rx < x.step; ++rx, part += height * width) {
            if (ry >= y.reach || rx >= x.reach) continue;  // no tap reads these
            for (int64_t i = 0; i < height; ++i) {
              const int64_t at_y = (j + i) * y.step + ry + y.low;
              const bool inside = at_z >= 0 && at_z < z.size && at_y >= 0 && at_y < y.size;
              line.line(part + i * width, inside ? plane + at_y * x.size : nullptr, left + x.low + rx, width, width);
            }
          }
      }
  }
  // Channels m .. m + lanes of a strip's results from its planes and a panel of weights.
  void compute(const T* from, const int32_t* at, const T* weights, int64_t group, int64_t m, int lanes, int64_t pz,
               int64_t deep, int64_t s) const {
    const int64_t n = s / strips() / deep, jz = s / strips() % deep, j = strip_row(s), here = rows_of(s);
    const int64_t left = strip_col(s) * x.phases, W = least(x.results - left, cols * x.phases);
    const int64_t line = round_up(W, L) + L;
    T* sums = static_cast<T*>(scratch(0, sizeof(T) * kNr * (h * y.phases * W + line)));
    T* lines = sums + h * y.phases * W * kNr;
    for (int64_t py = 0; py < y.phases; ++py)
      for (int64_t px = 0; px < x.phases; ++px) {
        const int64_t K = depth(pz, py, px), cols = ceil_div(W - px, x.phases), parts = ceil_div(cols, kMr<T>);
        const int64_t kc = K ? chain(K) : 0, c_row = x.phases * kNr, c_group = y.phases * W * kNr;
        T* c = sums + (py * W + px) * kNr;
        for (int64_t i = 0; K == 0 && i < here * cols; ++i)
          zero_line(c + i / cols * c_group + i % cols * c_row, kNr, kNr);
        for (int64_t k = 0; k < K; k += kc)
          for (int64_t i = 0, rows; i < here; i += rows) {
            rows = least(rows_of_tile<T>(cols), here - i);
            for (int64_t t = 0; t < parts; ++t) {
              const int64_t i0 = cols * t / parts, i1 = cols * (t + 1) / parts, count = least(kc, K - k);
              const T *a = from + i * width + i0, *b = weights + k * kNr;
              T* to = c + i * c_group + i0 * c_row;
              if (lanes > L)
                run_groups_of<T, 2>(int(rows), int(i1 - i0), count, a, width, at + k, b, to, c_group, c_row, k > 0);
              else run_groups_of<T, 1>(int(rows), int(i1 - i0), count, a, width, at + k, b, to, c_group, c_row, k > 0);
            }
          }
        at += K;
        weights += K * kNr;
      }
    for (int64_t row = j * y.phases; row < least(y.results, (j + here) * y.phases); ++row) {
      const T* c = sums + (row - j * y.phases) * W * kNr;
      for (int64_t i = 0; i < W; i += L) {
        const T* p[L];
        for (int q = 0; q < L; ++q) p[q] = c + least(i + q, W - 1) * kNr;
        transpose_lanes(lines + i, line, p, round_up(lanes, L));
      }
      for (int o = 0; o < lanes; ++o) {
        const int64_t channel = group * M + m + o, plane = (n * groups * M + channel) * z.results + jz * z.phases + pz;
        end.row((plane * y.results + row) * x.results + left, channel, W, lines + o * line);
      }
    }
  }

  void run(int64_t group, int64_t pz) const {
    const int64_t panels = ceil_div(M, kNr), deep = ceil_div(z.results - pz, z.phases);
    const int64_t terms = planes(pz) * y.first[y.phases] * x.first[x.phases], strip = planes(pz) * room;
    const int64_t number = N * deep * strips();
    constexpr int64_t kTogether = 16;
    const int64_t parts = ceil_div(C, kTogether);
    auto* at = static_cast<int32_t*>(scratch(3, sizeof(int32_t) * (terms + 1)));
    offsets(at, pz);
    const auto lanes = [&](int64_t panel) { return int(least(kNr, M - panel * kNr)); };
    if (panels >= 4 && number * strip * int64_t(sizeof(T)) <= kMostBytes && terms * M > N * C * y.size * x.size) {
      T* sorted = static_cast<T*>(scratch(2, sizeof(T) * number * strip));
      parallel_for(number * parts, [&](int64_t piece) {
        const int64_t s = piece / parts, c = piece % parts * kTogether;
        fill(sorted + s * strip, group, pz, deep, s, c, least(C, c + kTogether));
      });
      return parallel_for(panels, [&](int64_t panel) {
        T* packed = static_cast<T*>(scratch(1, sizeof(T) * terms * kNr));
        pack(packed, pz, group, panel * kNr, lanes(panel), 0, C);
        for (int64_t s = 0; s < number; ++s)
          compute(sorted + s * strip, at, packed, group, panel * kNr, lanes(panel), pz, deep, s);
      });
    }
    T* packed = static_cast<T*>(scratch(2, sizeof(T) * panels * terms * kNr));
    parallel_for(panels * parts, [&](int64_t piece) {
      const int64_t panel = piece / parts, c = piece % parts * kTogether;
      pack(packed + panel * terms * kNr, pz, group, panel * kNr, lanes(panel), c, least(C, c + kTogether));
    });
    parallel_for(number, [&](int64_t s) {
      T* sorted = static_cast<T*>(scratch(1, sizeof(T) * strip));
      fill(sorted, group, pz, deep, s, 0, C);
      for (int64_t panel = 0; panel < panels; ++panel)
        compute(sorted, at, packed + panel * terms * kNr, group, panel * kNr, lanes(panel), pz, deep, s);
    });
  }

  // dw of one group. Chunks of strips: pixels are sorted and dy is turned, then each tile of dw takes the whole chunk.
  void run_weights(int64_t group, const S* dy) const {
    constexpr int64_t kTogether = 16, kChunk = 2 << 20, kTile = kMr<T>;
    const int64_t panels = ceil_div(M, kNr), number = N * z.results * strips();
    const int64_t strip = planes(0) * room, turned = h * cols * kNr, rows = C * taps;
    const int64_t chunk =
        least(number, most(ceil_div(256, h * cols), kChunk / (int64_t(sizeof(T)) * (strip + panels * turned))));
    const int64_t parts = ceil_div(C, kTogether), tiles = ceil_div(rows, kTile);
    auto* at = static_cast<int32_t*>(scratch(3, sizeof(int32_t) * rows + sizeof(int64_t) * (2 * chunk + 1)));
    auto* heights = reinterpret_cast<int64_t*>(at + rows + rows % 2);
    int64_t* widths = heights + chunk;
    offsets(at, 0);
    T* sums = static_cast<T*>(scratch(1, sizeof(T) * panels * rows * kNr));
    T* sorted = static_cast<T*>(scratch(2, sizeof(T) * chunk * (strip + panels * turned)));
    T* grads = sorted + chunk * strip;
    for (int64_t first = 0; first < number; first += chunk) {
      const int64_t here = least(chunk, number - first);
      for (int64_t s = 0; s < here; ++s) heights[s] = rows_of(first + s), widths[s] = cols_of(first + s);
      parallel_for(here * (parts + panels), [&](int64_t piece) {
        const int64_t s = piece / (parts + panels), part = piece % (parts + panels);
        if (part < parts) {
          const int64_t c = part * kTogether;
          return fill(sorted + s * strip, group, 0, z.results, first + s, c, least(C, c + kTogether));
        }
        const int64_t panel = part - parts, plane = z.results * y.results * x.results;
        const int64_t image = (first + s) / strips(), n = image / z.results, jz = image % z.results;
        const S* from = dy + ((n * groups + group) * M + panel * kNr) * plane +
                        (jz * y.results + strip_row(first + s)) * x.results + strip_col(first + s);
        const bool whole = widths[s] == x.results;  // the rows lie side by side
        for (int64_t i = 0; i < (whole ? 1 : heights[s]); ++i)
          pack_strided(grads + (panel * chunk + s) * turned + i * widths[s] * kNr, int(kNr), from + i * x.results,
                       plane, 1, int(least(kNr, M - panel * kNr)), (whole ? heights[s] : 1) * widths[s], L);
      });
      const Positions all{here, strip, width, h * cols, heights, widths};
      const int64_t together = most(1, (1 << 19) / (kTile * kNr * here * h * cols)), pieces = ceil_div(tiles, together);
      parallel_for(panels * pieces, [&](int64_t piece) {
        const int64_t panel = piece / pieces, t0 = piece % pieces * together;
        for (int64_t t = t0; t < least(tiles, t0 + together); ++t) {
          const int64_t i0 = rows * t / tiles, i1 = rows * (t + 1) / tiles;
          const T* from[kTile];
          for (int64_t i = i0; i < i1; ++i) from[i - i0] = sorted + at[i];
          const T* b = grads + panel * chunk * turned;
          T* c = sums + (panel * rows + i0) * kNr;
          if (M - panel * kNr > L)
            run_taps<T, 2>(int(i1 - i0), all, static_cast<const T* const*>(from), b, c, first > 0);
          else run_taps<T, 1>(int(i1 - i0), all, static_cast<const T* const*>(from), b, c, first > 0);
        }
      });
    }
    constexpr int64_t kLine = 128;
    const int64_t blocks = ceil_div(rows, kLine);
    parallel_ranges(panels * blocks, 4, [&](int64_t begin, int64_t end_piece) {
      alignas(64) T lines[kNr * (kLine + L)];
      for (int64_t piece = begin; piece < end_piece; ++piece) {
        const int64_t panel = piece / blocks, i0 = piece % blocks * kLine, n = least(kLine, rows - i0);
        const int lanes = int(least(kNr, M - panel * kNr));
        const T* c = sums + (panel * rows + i0) * kNr;
        for (int64_t i = 0; i < n; i += L) {
          const T* p[L];
          for (int q = 0; q < L; ++q) p[q] = c + least(i + q, n - 1) * kNr;
          transpose_lanes(lines + i, kLine + L, p, round_up(lanes, L));
        }
        for (int o = 0; o < lanes; ++o)
          end.row((group * M + panel * kNr + o) * rows + i0, 0, n, lines + o * (kLine + L));
      }
    });
  }
};

bool fits(const ConvArgs& a) {
  for (int d = 0; d < 3; ++d)
    if (a.stride[d] > kMaxPhases) return false;
  return a.kernel[0] * a.kernel[1] * a.kernel[2] <= kMaxTaps;
}

}  // namespace

template <class T, class S> bool conv_direct_backward_w(const ConvArgs& a) {
  if (!fits(a)) return false;
  Direct<T, S> of(a, false);
  of.end.bias = nullptr;
  if (!of.choose_columns()) return false;
  of.set_strip(least(of.y.steps(), ceil_div(256, of.cols)));
  if (of.planes(0) * of.room * int64_t(sizeof(T)) > kMostBytes) return false;
  for (int64_t group = 0; group < of.groups; ++group) of.run_weights(group, static_cast<const S*>(a.dy));
  return true;
}

template <class T, class S> bool conv_direct(const ConvArgs& a, bool backward) {
  const int64_t M = (backward ? a.C : a.O) / a.groups;
  if (!fits(a) || M < Vec<T>::kLanes) return false;
  Direct<T, S> of(a, backward);
  // A signal of one channel: 10 terms a result do not pay for turning it (30 GFLOP/s against 80 as a product).
  if (of.y.steps() == 1 && of.C * of.taps < 16) return false;
  if (!of.choose_columns() || !of.choose_strip()) return false;
  for (int64_t group = 0; group < of.groups; ++group)
    for (int64_t pz = 0; pz < of.z.phases; ++pz) of.run(group, pz);
  return true;
}

#define TW_X(T, S)                                        \
  template bool conv_direct<T, S>(const ConvArgs&, bool); \
  template bool conv_direct_backward_w<T, S>(const ConvArgs&);
TW_X(float, float16)
TW_X(float, bfloat16)
TW_X(float, float)
TW_X(double, double)
#undef TW_X

}  // namespace tw::TW_ISA
