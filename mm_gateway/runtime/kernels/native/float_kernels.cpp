// Compiled once for each instruction set.
#include "float_kernels.h"

#include "attention.h"
#include "cells.h"
#include "dense.h"
#include "elementwise.h"

#if defined(__AVX512F__)
#define KERNELS avx512_floats
#elif defined(__AVX2__)
#define KERNELS avx2_floats
#else
#define KERNELS portable_floats
#endif

const FloatKernels KERNELS = {nullptr, multiply, attend, normalize, add, gate, rotate, narrow};
