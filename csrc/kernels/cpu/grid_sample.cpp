// grid_sample: y[n, c, o] = sum over taps of w(grid[n, o]) x[n, c, at(grid[n, o])], two or three spatial dimensions,
// and the gradients by x and by the grid. float32, float64, and float16/bfloat16 through float32.
//
// Taps (kernels/sampling.h) are those of the nearest item, linear (2 an axis) or cubic (4) interpolation, under padding
// by zeros, the border or reflection. Sums in the compute type, tap by tap; dgrid channel by channel; dx in the order of
// the places, plane by plane, so that no two threads meet and the order is fixed. Error: coordinates round once to
// n ulp of an item, the rest at most (taps + 8) ulp of the terms' size; measured by the op table's rows.
// Method: a lane has a place; its taps are found once for all channels and then gathered (by the gather instruction
// from AVX2 on). dx: a piece has an image and a few channels, whose planes the lanes scatter into one after another.
// Bytes: grid, x and y once where neighbouring places lie close together; a gather of L lanes costs about L loads, so
// that this is bound by loads: taps C loads a place.
#include "kernels/cpu/rows.h"
#include "kernels/sampling.h"

namespace tw::TW_ISA {
namespace {

constexpr int64_t kPiece = 1 << 14;  // taps that a piece reads
constexpr int64_t kPlanes = 4;       // channels that share the search for taps in a gradient by x

// x at each lane's item, 0 where it is negative.
template <class T, class S> TW_INLINE Vec<T> gathered(const S* x, Mask<T> at) {
#if TW_VEC_BYTES == 64
  if constexpr (kSame<S, float>)
    return (typename Vec<T>::Native)_mm512_mask_i32gather_ps(
        _mm512_setzero_ps(), _mm512_cmpge_epi32_mask((__m512i)at.v, _mm512_setzero_si512()), (__m512i)at.v, x, 4);
  if constexpr (kSame<S, double>)
    return (typename Vec<T>::Native)_mm512_mask_i64gather_pd(
        _mm512_setzero_pd(), _mm512_cmpge_epi64_mask((__m512i)at.v, _mm512_setzero_si512()), (__m512i)at.v, x, 8);
#elif TW_VEC_BYTES == 32
  if constexpr (kSame<S, float>)
    return (typename Vec<T>::Native)_mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, (__m256i)at.v,
                                                             (__m256)(at >= Mask<T>(0)).v, 4);
  if constexpr (kSame<S, double>)
    return (typename Vec<T>::Native)_mm256_mask_i64gather_pd(_mm256_setzero_pd(), x, (__m256i)at.v,
                                                             (__m256d)(at >= Mask<T>(0)).v, 8);
#endif
  S lanes[Vec<T>::kLanes];
  for (int l = 0; l < Vec<T>::kLanes; ++l) lanes[l] = at[l] >= 0 ? x[at[l]] : S{};
  return load_as<T>(static_cast<const S*>(lanes));
}

// body(taps, n, o, count) for the vectors begin .. end of places, counted through the images.
template <class T, class S, int K0, int K, class Body>
TW_INLINE void for_places(const GridSampleArgs& a, int64_t begin, int64_t end, bool gradients, const Body& body) {
  constexpr int kLanes = Vec<T>::kLanes;
  const int64_t vectors = ceil_div(a.out, kLanes);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t n = i / vectors, o = i % vectors * kLanes, count = least(kLanes, a.out - o);
    T given[3 * kLanes], axis[3][kLanes];
    convert(given, static_cast<const S*>(a.grid) + (n * a.out + o) * a.nd, count * a.nd);
    for (int d = 0; d < 3; ++d)
      for (int l = 0; l < kLanes; ++l) axis[d][l] = d < a.nd && l < count ? given[l * a.nd + d] : T(0);
    const Vec<T> g[3] = {Vec<T>::load(axis[0]), Vec<T>::load(axis[1]), Vec<T>::load(axis[2])};
    body(grid_taps<K0, K>(g, a, gradients), n, o, int(count));
  }
}

template <class T, class S, int K0, int K> struct Sampler {
  static constexpr int kTaps = K0 * K * K, kLanes = Vec<T>::kLanes;
  const GridSampleArgs& a;
  const int64_t plane = a.in[0] * a.in[1] * a.in[2], vectors = ceil_div(a.out, kLanes);

  template <class Body> void pieces(const Body& body) const {
    parallel_ranges(a.N * vectors, kPiece / greatest(1, kTaps * a.C * kLanes) + 1, body);
  }
  const S* x(int64_t n, int64_t c) const { return static_cast<const S*>(a.x) + (n * a.C + c) * plane; }
  const S* dy(int64_t n, int64_t c) const { return static_cast<const S*>(a.dy) + (n * a.C + c) * a.out; }

  void forward() const {
    pieces([&](int64_t begin, int64_t end) {
      for_places<T, S, K0, K>(a, begin, end, false, [&](const auto& taps, int64_t n, int64_t o, int count) {
        S* y = static_cast<S*>(a.y) + n * a.C * a.out + o;
        for (int64_t c = 0; c < a.C; ++c) {
          Vec<T> sum = taps.w[0] * gathered<T>(x(n, c), taps.at[0]);
          for (int t = 1; t < kTaps; ++t) sum = fma(taps.w[t], gathered<T>(x(n, c), taps.at[t]), sum);
          store_as(y + c * a.out, sum, count);
        }
      });
    });
  }

  void backward_grid() const {
    pieces([&](int64_t begin, int64_t end) {
      for_places<T, S, K0, K>(a, begin, end, true, [&](const auto& taps, int64_t n, int64_t o, int count) {
        Vec<T> sums[3] = {T(0), T(0), T(0)};
        for (int64_t c = 0; c < a.C && a.mode != SampleMode::kNearest; ++c) {
          const Vec<T> g = load_as<T>(dy(n, c) + o, count);
          for (int t = 0; t < kTaps; ++t) {
            const Vec<T> v = g * gathered<T>(x(n, c), taps.at[t]);
            for (int d = 0; d < (K0 == 1 ? 2 : 3); ++d) sums[d] = fma(taps.d[d][t], v, sums[d]);
          }
        }
        T mixed[3 * kLanes];
        for (int d = 0; d < a.nd; ++d)
          for (int l = 0; l < count; ++l) mixed[l * a.nd + d] = sums[d][l];
        convert(static_cast<S*>(a.dgrid) + (n * a.out + o) * a.nd, static_cast<const T*>(mixed), count * a.nd);
      });
    });
  }

  void backward_x() const {
    const int64_t groups = ceil_div(a.C, kPlanes);
    parallel_for(a.N * groups, [&](int64_t piece) {
      const int64_t n = piece / groups, first = piece % groups * kPlanes, planes = least(kPlanes, a.C - first);
      S* dx = static_cast<S*>(a.dx) + (n * a.C + first) * plane;
      T* sums;
      if constexpr (kSame<T, S>) sums = dx;
      else sums = static_cast<T*>(scratch(0, size_t(planes * plane) * sizeof(T)));
      for (int64_t i = 0; i < planes * plane; ++i) sums[i] = 0;
      for_places<T, S, K0, K>(a, n * vectors, (n + 1) * vectors, false,
                              [&](const auto& taps, int64_t, int64_t o, int count) {
                                for (int64_t c = 0; c < planes; ++c) {
                                  const Vec<T> g = load_as<T>(dy(n, first + c) + o, count);
                                  for (int t = 0; t < kTaps; ++t) {
                                    const Vec<T> term = taps.w[t] * g;
                                    for (int l = 0; l < count; ++l)
                                      if (taps.at[t][l] >= 0) sums[c * plane + taps.at[t][l]] += term[l];
                                  }
                                }
                              });
      if constexpr (!kSame<T, S>) convert(dx, static_cast<const T*>(sums), planes * plane);
    });
  }
};

template <class Run> void visit(const GridSampleArgs& a, const Run& run) {
  visit_float(a.dtype, [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = typename FloatOf<S>::type;
    if (a.nd == 3) run(Sampler<T, S, 2, 2>{a});
    else if (a.mode == SampleMode::kCubic) run(Sampler<T, S, 1, 4>{a});
    else run(Sampler<T, S, 1, 2>{a});
  });
}

}  // namespace

void grid_sample(const GridSampleArgs& a) {
  visit(a, [](const auto& s) { s.forward(); });
}
void grid_sample_backward(const GridSampleArgs& a) {
  visit(a, [&](const auto& s) {
    if (a.dx) s.backward_x();
    if (a.dgrid) s.backward_grid();
  });
}

}  // namespace tw::TW_ISA
