// Philox (philox.h) on vectors: 64-bit lanes with a word in each low half, one counter a lane, so that a round is two
// widening products and no shuffle; Salmon et al., SC 2011.
#pragma once
#include "philox.h"

#include "kernels/cpu/vec.h"

namespace tw::TW_ISA {

using Lanes = Vec<int64_t>;
typedef long long Register __attribute__((vector_size(TW_VEC_BYTES), may_alias));

TW_INLINE Lanes multiply_words(Lanes a, uint32_t m) {
  return (Lanes::Native)TW_MM(mul_epu32)((Register)a.v, (Register)Lanes(m).v);
}
TW_INLINE Lanes high_word(Lanes a) { return shift_right_logical(a, 32); }
// Lane by lane: a's low word below, b's above.
TW_INLINE Lanes join(Lanes a, Lanes b) { return (a & 0xffffffff) | (b << 32); }

}  // namespace tw::TW_ISA
