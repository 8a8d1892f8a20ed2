// AMX: products of blocks by tiles of int8.
#if defined(__x86_64__) && defined(__linux__)
#include "instructions.h"
#include "multiply.h"
#include "trial.h"

namespace {

void quantize(const Layer& layer, const float* x, Activations* to, int64_t first, int64_t last) {
    avx512_vnni_kernels.quantize(layer, x, to, first, last);
}

void multiply(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_or_leave<Instructions>(avx512_vnni_kernels, layer, x, y, y_stride, rows, first, last);
}

}  // namespace

const Kernels amx_kernels = {"amx", quantize, multiply};
#endif
