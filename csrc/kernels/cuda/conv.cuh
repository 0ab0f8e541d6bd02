// Convolutions as products whose second operand is gathered from images, (N, C, D, H, W), that are never unfolded.
//
// For a group, a result position j = (n, jz, jy, jx) and a term k = (tap, channel), channels fastest:
//   y  (O, j)    = w  (O, k) @ x  at (k, j)     a position reads coordinate j stride + tap dilation - pad
//   dx (C, j)    = w' (C, k) @ dy at (k, j)     a phase of pixels at a time, y = phase + j stride: within one, each tap
//                                               meets every pixel or none, and reads j + base + i step
//   dw (O, k)    = dy (O, j) @ x  at (k, j)^T
// so that a pass is: for each dimension taps i < count, which read the coordinate j * pitch + base + i * step.
// One and two dimensions are three with leading sizes of 1. Phases have as many positions each; those past the result's
// end are not stored. The tensor cores' products take positions in pairs, rows of odd length being one longer. Positions of a
// launch are below 2^31: longer results go in parts of images, or of their depth.
#pragma once
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm_tile.cuh"

namespace tw::cuda {

struct PassAxis {
  int in, results;  // sizes of what is read and of the result
  int kernel, stride, pad, dilation;
  int phases, tap_step;  // tap_step: taps of one phase lie so many apart
  int pitch;             // between the coordinates of neighbouring j, before the taps
};

struct Pass {
  const char* x;     // what is gathered, (N, groups * channels, in...)
  char* y;           // (N, groups * rows, results...); dw: dy, which is only read
  const void* w;     // (O, C / groups, taps)
  const void* bias;  // (groups * rows) or null
  PassAxis axis[3];
  Divisor steps[3];        // positions j of this launch in each dimension
  int cols;                // as steps[2], which may be one more
  Divisor channels_of;     // divides by `channels`
  int64_t image, channel;  // of x, in items
  int64_t y_image, y_channel;
  uint32_t positions;          // of this launch: its images times steps
  int first_z;                 // what the launch's jz begins with
  int groups, rows, channels;  // of a group: rows of the result, channels gathered
  int phases;
  int K_room;  // items of a panel's row
  bool backward;
  bool tensor;  // by the tensor cores: halves, and float32 as TF32
  DType dtype;

  Pass(const ConvArgs& a, bool backward);
  int64_t depth() const { return ceil_div(axis[0].results, axis[0].phases); }
  int64_t plane() const { return int64_t{steps[1].divisor} * steps[2].divisor; }
  int64_t taps() const { return int64_t{axis[0].kernel} * axis[1].kernel * axis[2].kernel; }
  int64_t terms() const { return taps() * channels; }
};

// run(pass) for parts of the N images, each of few enough positions.
template <class F> void for_parts(const Pass& f, int64_t N, const F& run) {
  constexpr int64_t kMost = (int64_t{1} << 31) - (1 << 16);
  const int64_t depth = f.depth(), deep = greatest<int64_t>(1, least(depth, kMost / f.plane()));
  const int64_t images = deep < depth ? 1 : greatest<int64_t>(1, least(N, kMost / (deep * f.plane())));
  const auto item = static_cast<int64_t>(itemsize(f.dtype));
  for (int64_t n = 0; n < N; n += images)
    for (int64_t z = 0; z < depth; z += deep) {
      Pass part = f;
      part.x += n * f.image * item;
      part.y += n * f.y_image * item;
      part.first_z = static_cast<int>(z);
      part.steps[0] = Divisor(static_cast<uint32_t>(least(deep, depth - z)));
      part.positions = static_cast<uint32_t>(least(images, N - n) * part.steps[0].divisor * f.plane());
      run(part);
    }
}

// The taps of one dimension that one phase meets; tap i is the filter's r + i * r_step.
struct Taps {
  int count, base, step, r, r_step;
};
__host__ TW_DEVICE Taps taps_of(const PassAxis& x, bool backward, int phase) {
  if (!backward) return {x.kernel, -x.pad, x.dilation, 0, 1};
  const int most = least(x.tap_step, x.kernel);
  int r = 0;
  while (r < most && (phase + x.pad - r * x.dilation) % x.stride != 0) ++r;
  if (r == most) return {0, 0, 0, 0, 1};
  return {ceil_div(x.kernel - r, x.tap_step), (phase + x.pad - r * x.dilation) / x.stride,
          -int(int64_t{x.tap_step} * x.dilation / x.stride), r, x.tap_step};
}
TW_DEVICE void phase_of(const Pass& f, int number, int (&phase)[3]) {
  phase[2] = number % f.axis[2].phases;
  number /= f.axis[2].phases;
  phase[1] = number % f.axis[1].phases;
  phase[0] = number / f.axis[1].phases;
}
TW_DEVICE int count_terms(const Taps* taps, const Pass& f) {
  return taps[0].count * taps[1].count * taps[2].count * f.channels;
}
// Puts a phase's taps into shared memory; returns how many terms they have.
TW_DEVICE int set_taps(Taps* taps, const Pass& f, int number) {
  if (threadIdx.x == 0) {
    int phase[3];
    phase_of(f, number, phase);
#pragma unroll
    for (int d = 0; d < 3; ++d) taps[d] = taps_of(f.axis[d], f.backward, phase[d]);
    if (taps[1].count * taps[2].count == 0) taps[0].count = 0;
  }
  __syncthreads();
  return count_terms(taps, f);
}

struct Spot {
  uint32_t n;
  int z, y, x;
};
TW_DEVICE Spot spot_of(const Pass& f, uint32_t position) {
  const uint32_t row = f.steps[2].quotient(position), plane = f.steps[1].quotient(row), n = f.steps[0].quotient(plane);
  return {n, int(plane - n * f.steps[0].divisor) + f.first_z, int(row - plane * f.steps[1].divisor),
          int(position - row * f.steps[2].divisor)};
}
// Where a position's result lies in channel 0, or -1: past the end of the launch or, in a short phase, of the result.
TW_DEVICE int64_t result_place(const Pass& f, int number, uint32_t position) {
  if (position >= f.positions) return -1;
  int phase[3];
  phase_of(f, number, phase);
  const Spot s = spot_of(f, position);
  const int z = phase[0] + s.z * f.axis[0].phases, y = phase[1] + s.y * f.axis[1].phases,
            x = phase[2] + s.x * f.axis[2].phases;
  if (z >= f.axis[0].results || y >= f.axis[1].results || x >= f.axis[2].results) return -1;
  return s.n * f.y_image + (int64_t(z) * f.axis[1].results + y) * f.axis[2].results + x;
}

// Where dy of a position lies in channel 0: a forward pass's result.
TW_DEVICE int64_t dy_place(const Pass& f, const Spot& s) {
  return s.n * f.y_image + (int64_t(s.z) * f.axis[1].results + s.y) * f.axis[2].results + s.x;
}

// Walks over a group's terms k at kPixels neighbouring positions of one row. Lanes side by side stand at the same term,
// so a step costs an addition and a comparison, and only the next tap, once for all channels, costs its bounds. What
// only that reads is in shared memory, as registers are short: each thread has its own.
struct Walks {
  const void* image[kTileThreads];                           // the group's first channel of the positions' image
  int z[kTileThreads], y[kTileThreads], x[kTileThreads];     // the coordinates that tap 0 reads, for the first position
  int iz[kTileThreads], iy[kTileThreads], ix[kTileThreads];  // the tap
};
struct Term {
  int iz, iy, ix, c;
};
template <class S, int kPixels = 1> struct Terms {
  Walks& walk;
  const S* at;           // the current term's item, for the first position
  int c;                 // its channel
  bool inside[kPixels];  // at the current tap

  TW_DEVICE explicit Terms(Walks& w) : walk(w) {  // at the first term of no position
    const int i = threadIdx.x;
    walk.image[i] = nullptr;
    walk.z[i] = INT32_MIN / 2;  // outside with any tap
    walk.y[i] = walk.x[i] = walk.iz[i] = walk.iy[i] = walk.ix[i] = 0;
    at = nullptr;
    c = 0;
    for (bool& b : inside) b = false;
  }
  TW_DEVICE Term term() const { return {walk.iz[threadIdx.x], walk.iy[threadIdx.x], walk.ix[threadIdx.x], c}; }
  // To positions; call go_to() next. `end` bounds the positions.
  TW_DEVICE void move(const Pass& f, const Taps* t, int group, uint32_t position, uint32_t end) {
    const int i = threadIdx.x;
    if (position >= end) {
      walk.z[i] = INT32_MIN / 2;
      return;
    }
    const Spot s = spot_of(f, position);
    walk.image[i] = reinterpret_cast<const S*>(f.x) + s.n * f.image + int64_t(group) * f.channels * f.channel;
    walk.z[i] = s.z * f.axis[0].pitch + t[0].base;
    walk.y[i] = s.y * f.axis[1].pitch + t[1].base;
    walk.x[i] = s.x * f.axis[2].pitch + t[2].base;
  }
  TW_DEVICE void go_to(const Pass& f, const Taps* t, Term to) {
    const int i = threadIdx.x;
    walk.iz[i] = to.iz, walk.iy[i] = to.iy, walk.ix[i] = to.ix;
    c = to.c;
    seek(f, t, to.iz, to.iy, to.ix);
  }
  TW_DEVICE void seek(const Pass& f, const Taps* t, int iz, int iy, int ix) {
    const int i = threadIdx.x, x = walk.x[i];
    const int tz = walk.z[i] + iz * t[0].step, ty = walk.y[i] + iy * t[1].step, tx = x + ix * t[2].step;
    const bool row = iz < t[0].count && unsigned(tz) < unsigned(f.axis[0].in) && unsigned(ty) < unsigned(f.axis[1].in);
    const int pitch = f.axis[2].pitch, end = f.cols * pitch + t[2].base;  // of x: a pair may reach over its row
#pragma unroll
    for (int p = 0; p < kPixels; ++p)
      inside[p] = row && (p == 0 || x + p * pitch < end) && unsigned(tx + p * pitch) < unsigned(f.axis[2].in);
    at = static_cast<const S*>(walk.image[i]) + c * f.channel + (int64_t(tz) * f.axis[1].in + ty) * f.axis[2].in + tx;
  }
  TW_DEVICE void skip(const Pass& f, const Taps* t, int n) {
    c += n;
    at += n * f.channel;
    if (c < f.channels) return;
    Term to = term();
    do {
      c -= f.channels;
      if (++to.ix == t[2].count) {
        to.ix = 0;
        if (++to.iy == t[1].count) to.iy = 0, ++to.iz;
      }
    } while (c >= f.channels);
    to.c = c;
    go_to(f, t, to);
  }
  template <int kCount> TW_DEVICE void take(Vector<S, kPixels> (&v)[kCount], const Pass& f, const Taps* t) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int p = 0; p < kPixels; ++p) v[i][p] = inside[p] ? at[p * f.axis[2].pitch] : S{};
      skip(f, t, 1);
    }
  }
};

// conv_direct.cu: passes with few rows a group (depthwise ones above all), where a product's tiles would stay empty.
inline bool few_rows(const Pass& f) { return f.rows <= (itemsize(f.dtype) == 2 ? 4 : 8); }
void conv_direct(const Pass& f, int64_t N);
// partial (pieces, O, terms): what each piece of `length` positions of this launch gives dw.
void conv_direct_backward_w(const Pass& f, void* partial, uint32_t length);
constexpr int kDirectTerms = 16;  // of a block of conv_direct_backward_w

// conv_depthwise.cu: the most usual of them.
bool is_tiled_depthwise(const Pass& f);
void conv_depthwise(const Pass& f, int64_t N);
int64_t conv_depthwise_backward_w(const Pass& f, int64_t N, float* partial);  // its pieces; partial null: that alone

// conv_sm90.cu: halves on Hopper's tensor cores; false where a shape is better off here, or not for it.
bool conv_sm90(const ConvArgs& a, bool backward);
bool conv_sm90_backward_w(const ConvArgs& a);
// dw from the sums of its pieces, (pieces, O, (tap, channel)).
void conv_add_pieces(const Pass& f, const float* partial, int64_t pieces, void* dw);

void gemm(const GemmArgs& a);

}  // namespace tw::cuda
