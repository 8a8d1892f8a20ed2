// The kernels of native/amx/numbers.h on emulated tiles.
#include <cstdlib>

#include "amx/numbers.h"
#include "emulated_tiles.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void emulated_numbers(const Layer* layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    auto* parts = static_cast<char*>(std::aligned_alloc(64, rows * split_bytes(layer->inputs)));
    split_rows(*layer, x, parts, 0, rows);
    multiply_numbers<Emulated>(*layer, parts, y, y_stride, rows, first, last);
    std::free(parts);
    expect(!Emulated::configured, "a configuration was left behind");
}

EXPORT const char* first_fault() { return fault; }
