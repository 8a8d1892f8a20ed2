// From numbers to blocks of 32: 8 bits with a scale, 4 bits with a scale and a minimum, both fp16.
#include <cmath>

#include "fp16.h"
#include "kernels.h"

namespace {

// A block is eight of these, which every processor with vectors has.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIntegers __attribute__((vector_size(16)));
constexpr int PARTS = BLOCK / 4;

struct Block {
    Four part[PARTS];
};

inline Four all(float value) { return Four{value, value, value, value}; }
inline Four smaller(Four a, Four b) { return a < b ? a : b; }
inline Four larger(Four a, Four b) { return a > b ? a : b; }

// Adding and taking away 3 * 2^22 leaves no bits for a fraction.
inline Four rounded(Four x) { return x + 12582912.0f - 12582912.0f; }

template <class Each>
inline float sum_of(Each each) {
    Four total = each(0);
    for (int i = 1; i < PARTS; i++) total += each(i);
    return (total[0] + total[2]) + (total[1] + total[3]);
}
inline float sum_of(const Block& x) {
    return sum_of([&](int i) { return x.part[i]; });
}
inline float product_of(const Block& x, const Block& y) {
    return sum_of([&](int i) { return x.part[i] * y.part[i]; });
}

void range_of(const Block& x, float& least, float& most) {
    Four low = x.part[0], high = x.part[0];
    for (int i = 1; i < PARTS; i++) low = smaller(low, x.part[i]), high = larger(high, x.part[i]);
    least = std::fmin(std::fmin(low[0], low[1]), std::fmin(low[2], low[3]));
    most = std::fmax(std::fmax(high[0], high[1]), std::fmax(high[2], high[3]));
}

// The nearest quants of (x - minimum) * inverse.
inline Block quants_of(const Block& x, float minimum, float inverse, float least, float most) {
    Block quants;
    for (int i = 0; i < PARTS; i++) quants.part[i] = larger(smaller(rounded((x.part[i] - minimum) * inverse), all(most)), all(least));
    return quants;
}

template <class T>
void store(const Block& quants, T* to) {
    for (int i = 0; i < PARTS; i++) {
        const FourIntegers integers = __builtin_convertvector(quants.part[i], FourIntegers);
        for (int j = 0; j < 4; j++) to[4 * i + j] = static_cast<T>(integers[j]);
    }
}

void quantize_8bit(const Block& x, int8_t* quants, uint16_t* scale) {
    float least, most;
    range_of(x, least, most);
    *scale = to_fp16(std::fmax(most, -least) / 127.0f);
    const float held = from_fp16(*scale);
    store(quants_of(x, 0.0f, held > 0 ? 1.0f / held : 0.0f, -127.0f, 127.0f), quants);
}

// The line through (quant, x) by least squares. The variance of x that it explains, times 32, is what is to be largest.
struct Line {
    float slope, minimum, explained;
};

inline Line fitted(const Block& quants, const Block& centred, float mean) {
    const float average = sum_of(quants) / BLOCK;
    const float variance = product_of(quants, quants) - BLOCK * average * average;
    const float slope = product_of(quants, centred) / std::fmax(variance, 1e-30f);
    return {slope, mean - slope * average, slope * slope * variance};
}

// A block's range is divided into so many steps, and the number that fits best is taken: above 15 the extremes are cut off
// (a search as in llama.cpp's make_qkx2_quants). From there on quants and line are fitted to each other in turn.
constexpr float STEPS[] = {13.5f, 14.25f, 15.0f, 15.75f, 16.5f, 17.5f};
constexpr int TURNS = 3;

void quantize_4bit(const Block& x, uint8_t* quants, uint16_t* scale, uint16_t* minimum) {
    float least, most;
    range_of(x, least, most);
    const float mean = sum_of(x) / BLOCK, spread = std::fmax(most - least, 1e-30f);
    Block centred;
    for (int i = 0; i < PARTS; i++) centred.part[i] = x.part[i] - mean;
    Line best = {0.0f, mean, 0.0f};
    for (const float steps : STEPS) {
        const Line line = fitted(quants_of(x, least, steps / spread, 0.0f, 15.0f), centred, mean);
        if (line.explained > best.explained) best = line;
    }
    for (int turn = 0; turn < TURNS && best.slope > 0; turn++) {
        const Line line = fitted(quants_of(x, best.minimum, 1.0f / best.slope, 0.0f, 15.0f), centred, mean);
        if (!(line.explained > best.explained)) break;
        best = line;
    }
    *scale = to_fp16(best.slope), *minimum = to_fp16(best.minimum);
    const float held = from_fp16(*scale);
    store(quants_of(x, from_fp16(*minimum), held > 0 ? 1.0f / held : 0.0f, 0.0f, 15.0f), quants);
}

}  // namespace

// weight [rows][inputs] -> quants [rows][blocks][32], scales and, for 4 bits, minimums [rows][blocks] fp16. Computed by the caller alone.
EXPORT void block_linear_quantize(int bits, const float* weight, int64_t rows, int64_t inputs, uint8_t* quants, uint16_t* scales, uint16_t* minimums) {
    for (int64_t row = 0; row < rows; row++, weight += inputs) {
        for (int64_t at = 0; at < inputs; at += BLOCK, quants += BLOCK, scales++) {
            Block block = {};
            std::memcpy(&block, weight + at, 4 * (inputs - at < BLOCK ? inputs - at : BLOCK));
            if (bits == 8) quantize_8bit(block, reinterpret_cast<int8_t*>(quants), scales);
            else quantize_4bit(block, quants, scales, minimums++);
        }
    }
}
