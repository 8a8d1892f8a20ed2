// AMX: products of numbers by tiles of bf16.
#if defined(__x86_64__) && defined(__linux__)
#include "numbers.h"

#include "instructions.h"

const FloatKernels amx_floats = {split_rows,        multiply_numbers<Instructions>, avx512_floats.attend, avx512_floats.normalize,
                                 avx512_floats.add, avx512_floats.gate,             avx512_floats.rotate, avx512_floats.narrow};
#endif
