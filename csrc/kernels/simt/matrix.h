// cp.async, ldmatrix and mma.sync for the host compiler, with the fragment layouts of the PTX ISA manual (9.7.14):
// g = lane / 4, t = lane % 4.
//
//   ldmatrix     lane 8 j + r gives the address of row r of matrix j (8 values of 16 bits); register j of a lane holds
//                (g, 2t), (g, 2t + 1) of matrix j, or (2t, g), (2t + 1, g) when transposed
//   m16n8k16     a0 (g, 2t..) a1 (g + 8, 2t..) a2 (g, 2t + 8..) a3 (g + 8, 2t + 8..)   b0 (2t.., g) b1 (2t + 8.., g)
//   m16n8k8      a0 (g, t) a1 (g + 8, t) a2 (g, t + 4) a3 (g + 8, t + 4)               b0 (t, g) b1 (t + 4, g)
//   d            d0, d1 (g, 2t..) d2, d3 (g + 8, 2t..)
#pragma once
#include "kernels/simt/simt.h"

namespace tw::cuda {

template <int kBytes> void cp_async(void* shared, const void* global, int valid = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if (reinterpret_cast<uintptr_t>(shared) % kBytes || (valid && reinterpret_cast<uintptr_t>(global) % kBytes))
    simt::finding(true, "misaligned", "cp_async of %d bytes from %p to %p", kBytes, global, shared);
  simt::copy_async(shared, global, kBytes, valid);
}
inline void cp_async_commit() { simt::copy_async_commit(); }
template <int kLeft> void cp_async_wait() { simt::copy_async_wait(kLeft); }
inline bool last_block(unsigned* counter, unsigned total) { return simt::last_block(counter, total); }

// The two halves of a register, and a float of each half type.
inline uint32_t pack_halves(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }
template <class T> float half_of(uint32_t r, int i) { return widen(T{static_cast<uint16_t>(r >> (16 * i))}); }

template <int kCount, bool kTranspose = false>
void ldmatrix(uint32_t (&r)[kCount], const void* row, simt::Site at = simt::Site::here()) {
  static_assert(kCount == 2 || kCount == 4);
  if (simt::lane() < 8 * kCount) simt::touch(row, 16, false);
  simt::collective(
      kTranspose ? "ldmatrix.trans" : "ldmatrix", ~0u, row, r,
      [](unsigned, const void* const* rows, void* const* out, const void*) {
        for (int lane = 0; lane < 32; ++lane)
          for (int j = 0; j < kCount; ++j) {
            uint16_t v[2];
            for (int i = 0; i < 2; ++i) {
              const int g = lane / 4, t = 2 * (lane % 4) + i;
              v[i] = static_cast<const uint16_t*>(rows[8 * j + (kTranspose ? t : g)])[kTranspose ? g : t];
            }
            static_cast<uint32_t*>(out[lane])[j] = pack_halves(v[0], v[1]);
          }
      },
      nullptr, at);
}

struct MmaOperands {
  uint32_t a[4], b[2];
};
// value(a or b register, index in the matrix) as float; K 16 (two values a register) or 8 (one).
template <int K, class Value> void mma_of(const void* const* in, void* const* out, const Value& value) {
  constexpr int kPer = K / 8;  // values a register
  float a[16][K], b[K][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* x = static_cast<const MmaOperands*>(in[lane]);
    const int g = lane / 4, t = kPer * (lane % 4);
    for (int i = 0; i < kPer; ++i) {
      for (int r = 0; r < 4; ++r) a[g + 8 * (r & 1)][t + i + (K / 2) * (r >> 1)] = value(x->a[r], i);
      for (int r = 0; r < 2; ++r) b[t + i + (K / 2) * r][g] = value(x->b[r], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto* d = static_cast<float*>(out[lane]);
    for (int r = 0; r < 4; ++r) {
      const int m = lane / 4 + 8 * (r >> 1), n = 2 * (lane % 4) + (r & 1);
      double sum = d[r];
      for (int k = 0; k < K; ++k) sum += double{a[m][k]} * b[k][n];
      d[r] = static_cast<float>(sum);
    }
  }
}
template <class T>
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], simt::Site at = simt::Site::here()) {
  const MmaOperands in{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  simt::collective(
      "mma", ~0u, &in, d,
      [](unsigned, const void* const* x, void* const* y, const void*) {
        mma_of<16>(x, y, [](uint32_t r, int i) { return half_of<T>(r, i); });
      },
      nullptr, at);
}
inline void mma_16x8x8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            simt::Site at = simt::Site::here()) {
  const MmaOperands in{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  simt::collective(
      "mma", ~0u, &in, d,
      [](unsigned, const void* const* x, void* const* y, const void*) {
        mma_of<8>(x, y, [](uint32_t r, int) { return __uint_as_float(r & ~0x1fffu); });
      },
      nullptr, at);
}
inline uint32_t round_to_tf32(float v) { return v != v ? 0x7fffe000u : (__float_as_uint(v) + 0x1000u) & ~0x1fffu; }

}  // namespace tw::cuda
