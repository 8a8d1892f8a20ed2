// The loops over panels and rows that all instruction sets share. Everything here has internal linkage: each file that includes it is
// compiled for another instruction set, and the linker must not take one's copy for another's.
#pragma once
#include <cstring>

#include "block_linear.h"

namespace {

// A panel's results of one row; the last panel may have fewer outputs than 16.
inline void store_row(const Layer& layer, const float (&values)[PANEL], float* y, int64_t panel) {
    const int64_t first = panel * PANEL;
    const int64_t left = layer.outputs - first;
    const int count = left < PANEL ? static_cast<int>(left) : PANEL;
    float* out = y + first;
    for (int i = 0; i < count; i++) {
        const float value = layer.row_scales == nullptr ? values[i] : values[i] * layer.row_scales[first + i];
        out[i] = layer.bias == nullptr ? value : value + layer.bias[first + i];
    }
}

// Tile has ROWS, the most rows that its registers hold, and `run<R>(layer, x, panel, values)`: R rows of one panel, x pointing to the first.
template <class Tile, int R>
void run_tile(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t panel) {
    float values[R][PANEL];
    Tile::template run<R>(layer, x, panel, values);
    for (int r = 0; r < R; r++) store_row(layer, values[r], y + r * y_stride, panel);
}

template <class Tile, int R>
void run_rest(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t panel) {
    if constexpr (R > 0) {
        if (rows == R) run_tile<Tile, R>(layer, x, y, y_stride, panel);
        else run_rest<Tile, R - 1>(layer, x, y, y_stride, rows, panel);
    }
}

// A panel stays in the nearest cache while all rows pass by it.
template <class Tile>
void multiply_with(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const int64_t blocks = blocks_of(layer);
    for (int64_t panel = first; panel < last; panel++) {
        int64_t row = 0;
        for (; row + Tile::ROWS <= rows; row += Tile::ROWS)
            run_tile<Tile, Tile::ROWS>(layer, x + row * blocks, y + row * y_stride, y_stride, panel);
        run_rest<Tile, Tile::ROWS - 1>(layer, x + row * blocks, y + row * y_stride, y_stride, rows - row, panel);
    }
}

// An instruction set's tiles: Q8 and Q4, Few<bits, fine> for the other kinds of 4 and 5 bits, and Six.
template <class Tile8, class Tile4, template <int, bool> class Few, class Six>
void multiply_any(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    switch (layer.kind) {
        case Q8: return multiply_with<Tile8>(layer, x, y, y_stride, rows, first, last);
        case Q4: return multiply_with<Tile4>(layer, x, y, y_stride, rows, first, last);
        case Q5: return multiply_with<Few<5, false>>(layer, x, y, y_stride, rows, first, last);
        case Q4F: return multiply_with<Few<4, true>>(layer, x, y, y_stride, rows, first, last);
        case Q5F: return multiply_with<Few<5, true>>(layer, x, y, y_stride, rows, first, last);
        case Q6F: return multiply_with<Six>(layer, x, y, y_stride, rows, first, last);
    }
}

// `quantize_block` turns 32 numbers into quants and a scale, and returns the sum of the quants.
template <int32_t (*quantize_block)(const float* x, Activations& out)>
void quantize_rows(const Layer& layer, const float* x, Activations* out, int64_t first, int64_t last) {
    const int64_t blocks = blocks_of(layer);
    for (int64_t row = first; row < last; row++) {
        for (int64_t block = 0; block < blocks; block++) {
            const float* from = x + row * layer.inputs + block * BLOCK;
            const int64_t left = layer.inputs - block * BLOCK;
            float padded[BLOCK];
            if (left < BLOCK) {
                std::memset(padded, 0, sizeof padded);
                std::memcpy(padded, from, left * sizeof(float));
                from = padded;
            }
            Activations& to = out[row * blocks + block];
            const int32_t sum = quantize_block(from, to);
            to.offset = -128 * sum;
            to.sum = to.scale * static_cast<float>(sum);
            if (layer.kind == Q6F) {
                to.first = 0;
                for (int i = 0; i < BLOCK / 2; i++) to.first += to.quants[i];
            }
        }
    }
}

// Below this a block counts as zeros: 127 / largest must stay finite.
constexpr float SMALLEST = 1e-35f;

}  // namespace
