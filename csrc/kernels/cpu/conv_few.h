// Convolutions with few results a pixel (conv_few.cpp).
#pragma once
#include "kernel_table.h"

namespace tw::TW_ISA {

// Whether `results` channels computed from `planes` are few enough.
bool worth_few(const ConvArgs& a, int64_t results, int64_t planes);
template <class T, class S> void conv_few(const ConvArgs& a);
template <class T, class S> void conv_few_backward_x(const ConvArgs& a);

}  // namespace tw::TW_ISA
