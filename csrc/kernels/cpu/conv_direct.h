// Convolution without panels of pixels (conv_direct.cpp).
#pragma once
#include "kernel_table.h"

namespace tw::TW_ISA {

// y, or dx with `backward`. False, and nothing done, where the shape does not suit.
template <class T, class S> bool conv_direct(const ConvArgs& a, bool backward);
template <class T, class S> bool conv_direct_backward_w(const ConvArgs& a);

}  // namespace tw::TW_ISA
