// What comes before a convolution by conv_sm90.cu: images (N, C, pixels) with their channels last, a pixel's in a row of
// whole 16 bytes, and weights as panels, (rows, taps, channels) likewise. S is as wide as the dtype; float is rounded
// to TF32, to nearest. One read and one write; images go through tiles of 64 pixels by 128 bytes of channels in shared
// memory: lanes along pixels read two of them at once where images are even, 64 bytes a thread in flight, and a warp
// writes 4 whole lines of 128 bytes.
#pragma once
#include "kernels/cuda/elementwise.cuh"

namespace tw::cuda {
namespace {

struct Images {  // (N, C, in) in memory; those of `size` pixels that lie `step` apart are copied to (N, size, room)
  const void* from;
  void* to;
  int C, room, in[3], step[3];
  Divisor size[3];
  Divisor tiles, slabs;  // of 64 pixels of an image; of 32 words of channels
  int pixels;            // of an image
  bool pairs;            // pixels 2 i and 2 i + 1 lie together and aligned
};
constexpr int kCopyThreads = 128;

TW_DEVICE uint16_t rounded(uint16_t v) { return v; }
TW_DEVICE float rounded(float v) { return __uint_as_float(round_to_tf32(v)); }
inline int room_of(int channels, int item) { return ceil_div(channels * item, 16) * 16 / item; }

template <class S> __global__ void __launch_bounds__(kCopyThreads) to_channels_last(const __grid_constant__ Images f) {
  constexpr int kPer = 4 / sizeof(S);  // channels a word
  TW_SHARED(tile, Vector<S, kPer>[64][33]);
  const uint32_t line = f.tiles.quotient(blockIdx.x), image = f.slabs.quotient(line);
  const int first = int(blockIdx.x - line * f.tiles.divisor) * 64;
  const int c0 = int(line - image * f.slabs.divisor) * 32 * kPer;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t channel = int64_t(f.in[0]) * f.in[1] * f.in[2];
  const S* const from = static_cast<const S*>(f.from) + int64_t(image) * f.C * channel;
  int64_t at[2];  // the lane's pixels, or -1
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int pixel = first + (f.pairs ? 2 * lane + i : lane + 32 * i);
    const uint32_t row = f.size[2].quotient(uint32_t(pixel)), z = f.size[1].quotient(row);
    const int y = int(row - z * f.size[1].divisor), x = pixel - int(row * f.size[2].divisor);
    at[i] =
        pixel < f.pixels ? (int64_t(z) * f.step[0] * f.in[1] + y * f.step[1]) * f.in[2] + int64_t(x) * f.step[2] : -1;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int word = warp * 8 + i;
    Vector<S, kPer> v[2] = {};
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const int c = c0 + word * kPer + k;
      const S* const p = from + c * channel;
      Vector<S, 2> both = {};
      if (c >= f.C) continue;
      if (f.pairs) {
        if (at[0] >= 0) both = load_vector<2>(p + at[0]);
      } else {
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (at[h] >= 0) both[h] = p[at[h]];
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) v[h][k] = rounded(both[h]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) store_vector(&tile[f.pairs ? 2 * lane + h : lane + 32 * h][word][0], v[h]);
  }
  __syncthreads();
  const int c = c0 + int(threadIdx.x) % 8 * 4 * kPer;
  if (c >= f.room) return;
#pragma unroll
  for (int i = 0; i < 64; i += kCopyThreads / 8) {
    const int pixel = i + int(threadIdx.x) / 8;
    if (first + pixel >= f.pixels) continue;
    Vector<S, 4 * kPer> v;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const auto word = load_vector<kPer>(&tile[pixel][threadIdx.x % 8 * 4 + w][0]);
#pragma unroll
      for (int k = 0; k < kPer; ++k) v[w * kPer + k] = word[k];
    }
    store_vector(static_cast<S*>(f.to) + (int64_t(image) * f.pixels + first + pixel) * f.room + c, v);
  }
}

// to (rows, taps, room): w is (rows, channels, taps), or (channels, rows, taps) where `turned`.
template <class S>
__global__ void __launch_bounds__(kCopyThreads)
    to_panels(const void* w, void* to, int rows, int channels, int taps, int room, bool turned) {
  const int row = int(blockIdx.x);
  for (int c = threadIdx.x; c < channels; c += kCopyThreads) {
    const S* from = static_cast<const S*>(w) + (turned ? int64_t(c) * rows + row : int64_t(row) * channels + c) * taps;
    S* panel = static_cast<S*>(to) + int64_t(row) * taps * room + c;
    for (int tap = 0; tap < taps; ++tap) panel[int64_t(tap) * room] = rounded(from[tap]);
  }
}

template <class S>
void copy_images(const char* from, void* to, int64_t N, int C, const int* in, const int* size, const int* step) {
  Images f{};
  f.from = from;
  f.to = to;
  f.C = C;
  f.room = room_of(C, sizeof(S));
  f.pixels = size[0] * size[1] * size[2];
  f.pairs = aligned(from, 2 * sizeof(S)) && f.pixels % 2 == 0;
  for (int d = 0; d < 3; ++d) {
    f.in[d] = in[d], f.step[d] = step[d];
    f.size[d] = Divisor(static_cast<uint32_t>(size[d]));
    f.pairs &= in[d] == size[d];
  }
  f.tiles = Divisor(static_cast<uint32_t>(ceil_div(f.pixels, 64)));
  f.slabs = Divisor(static_cast<uint32_t>(ceil_div(C, 128 / int(sizeof(S)))));
  launch_kernel<to_channels_last<S>>(static_cast<unsigned>(N * f.slabs.divisor * f.tiles.divisor), kCopyThreads, 0,
                                     current_stream(), f);
}

}  // namespace
}  // namespace tw::cuda
