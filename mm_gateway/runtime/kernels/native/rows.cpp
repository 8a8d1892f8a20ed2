// Single outputs' weights as numbers, for embeddings that are the output layer's weights.
#include <algorithm>

#include "block_linear.h"
#include "fp16.h"

namespace {

// Quants, as they are stored, of a block and an output: -128..127 for Q8, otherwise without a sign.
void read_quants(const Layer& layer, int64_t block, int64_t lane, int32_t (&quants)[BLOCK]) {
    if (layer.kind == Q8) {
        const uint8_t* from = layer.quants + block * BLOCK * PANEL + 4 * lane;
        for (int i = 0; i < BLOCK; i++) quants[i] = static_cast<int8_t>(from[4 * PANEL * (i / 4) + i % 4]);
        return;
    }
    const uint8_t* from = layer.quants + block * (BLOCK * PANEL / 2) + 4 * lane;
    for (int i = 0; i < BLOCK / 2; i++) {
        const uint8_t two = from[4 * PANEL * (i / 4) + i % 4];
        quants[i] = two & 0x0F;
        quants[i + BLOCK / 2] = two >> 4;
    }
    const bool five = layer.kind == Q5 || layer.kind == Q5F;
    if (five || layer.kind == Q6F) {
        const uint8_t* more = layer.more + block * (five ? 4 * PANEL : 8 * PANEL) + 4 * lane;
        for (int i = 0; i < BLOCK; i++) {
            const int group = i / 4;
            quants[i] |= five ? (more[i % 4] >> group & 1) << 4 : (more[4 * PANEL * (group / 4) + i % 4] >> 2 * (group % 4) & 3) << 4;
        }
    }
}

}  // namespace

void read_row(const Layer& layer, int64_t output, float* y) {
    const int64_t panel = output / PANEL, lane = output % PANEL, inputs = layer.inputs, blocks = blocks_of(layer);
    if (of_numbers(layer)) {
        const int64_t first = panel * inputs * PANEL + lane;
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(layer.quants);
        const float* floats = reinterpret_cast<const float*>(layer.quants);
        const uint16_t* pairs = halves + 2 * (panel * pairs_of(layer) * PANEL + lane);
        for (int64_t i = 0; i < inputs; i++) {
            if (layer.kind == BF16) y[i] = from_bf16(pairs[i / 2 * 2 * PANEL + i % 2]);
            else y[i] = layer.kind == FP16 ? from_fp16(halves[first + i * PANEL]) : floats[first + i * PANEL];
        }
        return;
    }
    const float row_scale = layer.row_scales == nullptr ? 1.0f : layer.row_scales[output];
    const bool fine = layer.kind == Q4F || layer.kind == Q5F || layer.kind == Q6F;
    for (int64_t number = 0; number < blocks; number++) {
        const int64_t block = panel * blocks + number;
        const int64_t at = (fine ? block / FINE : block) * PANEL + lane;
        int32_t quants[BLOCK];
        read_quants(layer, block, lane, quants);
        float scales[2] = {from_fp16(layer.scales[at])}, minimum = layer.minimums == nullptr ? 0.0f : from_fp16(layer.minimums[at]);
        scales[1] = scales[0];
        if (layer.kind == Q6F) {
            for (int half = 0; half < 2; half++) scales[half] *= static_cast<int8_t>(layer.fine_scales[(2 * block + half) * PANEL + lane]);
            for (int32_t& quant : quants) quant -= 32;
        } else if (fine) {
            scales[0] = scales[1] = scales[0] * layer.fine_scales[block * PANEL + lane];
            minimum *= layer.fine_minimums[block * PANEL + lane];
        }
        const int64_t count = std::min<int64_t>(BLOCK, inputs - number * BLOCK);
        for (int64_t i = 0; i < count; i++) y[number * BLOCK + i] = (scales[i / (BLOCK / 2)] * quants[i] + minimum) * row_scale;
    }
}
