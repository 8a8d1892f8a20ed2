// The kernels of native/amx/multiply.h on emulated tiles, and trials of some that are bad.
#include <cstdlib>

#include "amx/multiply.h"
#include "amx/trial.h"
#include "emulated_tiles.h"

namespace {

void multiply(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_or_leave<Emulated>(avx512_vnni_kernels, layer, x, y, y_stride, rows, first, last);
    expect(!Emulated::configured, "a configuration was left behind");
}

void quantize(const Layer& layer, const float* x, Activations* to, int64_t first, int64_t last) {
    avx512_vnni_kernels.quantize(layer, x, to, first, last);
}

// What a trial may come upon.
template <int TIMES>
void multiply_known(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    for (int time = 0; time < TIMES; time++) avx512_vnni_kernels.multiply(layer, x, y, y_stride, rows, first, last);
}

void multiply_wrongly(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_known<1>(layer, x, y, y_stride, rows, first, last);
    y[(rows - 1) * y_stride + 1] += 1e-5f;
}

void crash(const Layer&, const Activations*, float*, int64_t, int64_t, int64_t, int64_t) { __builtin_trap(); }

const Kernels emulated_kernels = {"emulated", quantize, multiply}, slow_kernels = {"slow", quantize, multiply_known<3>},
              wrong_kernels = {"wrong", quantize, multiply_wrongly}, crashing_kernels = {"crashing", quantize, crash};

void multiply_numbers_wrongly(const Layer& layer, const void* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    avx512_floats.multiply(layer, x, y, y_stride, rows, first, last);
    y[(rows - 1) * y_stride + 1] += 0.01f;
}

void crash_by_numbers(const Layer&, const void*, float*, int64_t, int64_t, int64_t, int64_t) { __builtin_trap(); }

FloatKernels with_product(decltype(FloatKernels::multiply) multiply) {
    FloatKernels kernels = avx512_floats;
    kernels.multiply = multiply;
    return kernels;
}

void compute(const Kernels& kernels, const Layer& layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    auto* activations = static_cast<Activations*>(std::malloc(rows * blocks_of(layer) * sizeof(Activations)));
    kernels.quantize(layer, x, activations, 0, rows);
    kernels.multiply(layer, activations, y, y_stride, rows, first, last);
    std::free(activations);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void emulated(const Layer* layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    compute(emulated_kernels, *layer, x, y, y_stride, rows, first, last);
}

EXPORT void known(const Layer* layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    compute(avx512_vnni_kernels, *layer, x, y, y_stride, rows, first, last);
}

EXPORT const char* first_fault() { return fault; }

EXPORT void trial_of(int which, Trial* found) {
    const Kernels* kernels[] = {&slow_kernels, &wrong_kernels, &crashing_kernels};
    *found = try_kernels(*kernels[which], avx512_vnni_kernels);
}

EXPORT void trial_of_floats(int which, Trial* found) {
    const decltype(FloatKernels::multiply) products[] = {avx512_floats.multiply, multiply_numbers_wrongly, crash_by_numbers};
    *found = try_floats(with_product(products[which]), avx512_floats);
}
