// Plain C++ for any processor, in loops over 16 outputs that compilers turn into vector instructions.
#include <cmath>

#include "tiles.h"

namespace {

// fp16 -> fp32: the exponent is moved to where fp32 has it, by a multiplication that gets subnormal numbers right too.
inline float from_fp16(uint16_t half) {
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    return half & 0x8000 ? -value : value;
}

// A block's weights as fp32 [input][output]: products of such integers and their sums stay below 2^24, where fp32 is exact, and every
// processor multiplies fp32 in vectors. Bytes are taken out of 32-bit words, since 16 words are a vector operation and 64 bytes are not.
template <int BITS>
void unpack(const uint8_t* quants, float (&weights)[BLOCK][PANEL]) {
    for (int at = 0; at < GROUPS * BITS / 8; at++) {
        uint32_t words[PANEL];
        std::memcpy(words, quants + at * sizeof words, sizeof words);
        for (int k = 0; k < 4; k++) {
            for (int i = 0; i < PANEL; i++) {
                const uint32_t top = words[i] << (24 - 8 * k);  // the byte of input k, in a little-endian word, at its upper end
                if (BITS == 8) {
                    weights[4 * at + k][i] = static_cast<float>(static_cast<int32_t>(top) >> 24);
                } else {
                    weights[4 * at + k][i] = static_cast<float>(static_cast<int32_t>(top >> 24 & 0x0F));
                    weights[4 * (at + GROUPS / 2) + k][i] = static_cast<float>(static_cast<int32_t>(top >> 28));
                }
            }
        }
    }
}

template <int BITS>
struct Tile {
    static constexpr int ROWS = 8;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        constexpr int BYTES = BLOCK * PANEL * BITS / 8;
        std::memset(values, 0, sizeof values);
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t at = panel * blocks + block;
            float weights[BLOCK][PANEL], scales[PANEL], minimums[PANEL];
            unpack<BITS>(layer.quants + at * BYTES, weights);
            for (int i = 0; i < PANEL; i++) {
                scales[i] = from_fp16(layer.scales[at * PANEL + i]);
                minimums[i] = BITS == 4 ? from_fp16(layer.minimums[at * PANEL + i]) : 0.0f;
            }
            for (int r = 0; r < R; r++) {
                const Activations& from = x[r * blocks + block];
                float dot[PANEL] = {};
                for (int k = 0; k < BLOCK; k++) {
                    const float activation = from.quants[k];
                    for (int i = 0; i < PANEL; i++) dot[i] += weights[k][i] * activation;
                }
                for (int i = 0; i < PANEL; i++) {
                    values[r][i] += dot[i] * scales[i] * from.scale;
                    if (BITS == 4) values[r][i] += from.sum * minimums[i];
                }
            }
        }
    }
};

int32_t quantize_block(const float* x, Activations& out) {
    float largest = 0.0f;
    bool number = true;
    for (int i = 0; i < BLOCK; i++) {
        const float magnitude = std::fabs(x[i]);
        largest = magnitude > largest ? magnitude : largest;
        number = number && x[i] == x[i];
    }
    int32_t sum = 0;
    out.scale = number ? (largest > SMALLEST ? largest / 127.0f : 0.0f) : NAN;
    if (!(number && largest > SMALLEST && std::isfinite(largest))) {
        std::memset(out.quants, 0, BLOCK);
        return 0;
    }
    const float inverse = 127.0f / largest;
    for (int i = 0; i < BLOCK; i++) {
        out.quants[i] = static_cast<int8_t>(std::lrintf(x[i] * inverse));
        sum += out.quants[i];
    }
    return sum;
}

}  // namespace

const Kernels portable_kernels = {"portable", quantize_rows<quantize_block>, multiply_any<Tile<8>, Tile<4>>};
