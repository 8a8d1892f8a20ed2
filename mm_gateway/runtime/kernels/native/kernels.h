// What the entry points share: which kernels are in use.
#pragma once
#include "block_linear.h"
#include "float_kernels.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

const Kernels& block_kernels();
const FloatKernels& float_kernels();
const FloatKernels& float_kernels(const Layer&);  // for products with its weights
