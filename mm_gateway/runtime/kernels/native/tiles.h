// The loops over panels and rows that all instruction sets share, as products.h.
#pragma once
#include "products.h"

namespace {

// Rows pass in chunks whose activations stay in the second-level cache, and so many that preparing blocks for them pays.
constexpr int64_t CHUNK_BYTES = 1 << 18, LEAST_ROWS = 48, MOST_ROWS = 192;

// A panel's results of one row; the last panel may have fewer outputs than 16.
inline void store_row(const Layer& layer, const float* totals, float* y, int64_t panel) {
    const int64_t first = panel * PANEL;
    float values[PANEL];
    std::memcpy(values, totals, sizeof values);
    if (layer.row_scales != nullptr)
        for (int i = 0; i < PANEL; i++) values[i] *= layer.row_scales[first + i];
    if (layer.bias != nullptr)
        for (int i = 0; i < PANEL; i++) values[i] += layer.bias[first + i];
    if (layer.outputs - first >= PANEL) std::memcpy(y + first, values, sizeof values);
    else std::memcpy(y + first, values, (layer.outputs - first) * sizeof(float));
}

// V registers' outputs, from `panel` on, of at most MOST_ROWS rows.
template <class Set, int BITS, bool IS_FINE, int V>
void multiply_panels(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t panel) {
    constexpr int WIDTH = Set::VECTORS * Set::OUTPUTS, PANELS = V * Set::OUTPUTS / PANEL;
    const int64_t blocks = blocks_of(layer);
    alignas(64) float totals[MOST_ROWS * WIDTH];
    std::memset(totals, 0, rows * WIDTH * sizeof(float));
    const auto store = [&](int64_t from, int64_t to) {
        for (int64_t r = from; r < to; r++)
            for (int p = 0; p < PANELS; p++) store_row(layer, totals + r * WIDTH + p * PANEL, y + r * y_stride, panel + p);
    };
    if (rows <= FEW_ROWS<typename Set::Few, BITS>) {
        adding_all<typename Set::Few, BITS, IS_FINE, V>(rows)(layer, panel, x, totals);
        return store(0, rows);
    }
    Prepared<Set, BITS> prepared[AT_ONCE];
    const int64_t tiles = (rows + Set::template ROWS<BITS> - 1) / Set::template ROWS<BITS>, parts = (blocks + AT_ONCE - 1) / AT_ONCE;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t block = blocks * part / parts, count = blocks * (part + 1) / parts - block;
        for (int64_t i = 0; i < count; i++) prepare<Set, BITS, IS_FINE>(layer, panel, V, block + i, prepared[i]);
        const uint8_t* next = layer.quants + (panel * blocks + block + AHEAD) * quant_bytes(BITS);
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t from = rows * tile / tiles, to = rows * (tile + 1) / tiles;
            if (part == parts - 1) {  // y is fetched while the last blocks are multiplied
                for (int64_t r = from; r < to; r++)
                    for (int p = 0; p < PANELS; p++) __builtin_prefetch(y + r * y_stride + (panel + p) * PANEL, 1);
            }
            const auto add = adding_blocks<Set, BITS, V>(to - from);
            add(prepared, count, x + from * blocks + block, blocks, totals + from * WIDTH, tile == 0 ? next : nullptr);
            if (part == parts - 1) store(from, to);
        }
    }
}

template <class Set, int BITS, bool IS_FINE>
void multiply_blocks(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    constexpr int ONE = PANEL / Set::OUTPUTS, PANELS = Set::VECTORS / ONE;
    const int64_t blocks = blocks_of(layer);
    const int64_t most = std::clamp<int64_t>(CHUNK_BYTES / (blocks * sizeof(Activations)), LEAST_ROWS, MOST_ROWS);
    const int64_t chunks = (rows + most - 1) / most;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t from = rows * chunk / chunks, to = rows * (chunk + 1) / chunks;
        for (int64_t panel = first; panel < last; panel += PANELS) {
            const auto multiply = last - panel >= PANELS ? multiply_panels<Set, BITS, IS_FINE, Set::VECTORS> : multiply_panels<Set, BITS, IS_FINE, ONE>;
            multiply(layer, x + from * blocks, y + from * y_stride, y_stride, to - from, panel);
        }
    }
}

template <class Set>
void multiply_any(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    switch (layer.kind) {
        case Q8: return multiply_blocks<Set, 8, false>(layer, x, y, y_stride, rows, first, last);
        case Q4: return multiply_blocks<Set, 4, false>(layer, x, y, y_stride, rows, first, last);
        case Q5: return multiply_blocks<Set, 5, false>(layer, x, y, y_stride, rows, first, last);
        case Q4F: return multiply_blocks<Set, 4, true>(layer, x, y, y_stride, rows, first, last);
        case Q5F: return multiply_blocks<Set, 5, true>(layer, x, y, y_stride, rows, first, last);
        case Q6F: return multiply_blocks<Set, 6, true>(layer, x, y, y_stride, rows, first, last);
    }
}

// `quantize_block` turns 32 numbers into quants and a scale, and returns the sum of the quants.
template <class Set, int32_t (*quantize_block)(const float* x, Activations& out)>
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
            to.sum = to.scale * static_cast<float>(sum);
            to.starts[0] = Set::ZERO - Set::SHIFT * sum;
            if (layer.kind == Q6F) {
                int32_t half = 0;
                for (int i = 0; i < BLOCK / 2; i++) half += to.quants[i];
                to.starts[0] = Set::ZERO - 32 * half;
                to.starts[1] = Set::ZERO - 32 * (sum - half);
            }
        }
    }
}

// Below this a block counts as zeros: 127 / largest must stay finite.
constexpr float SMALLEST = 1e-35f;

}  // namespace
