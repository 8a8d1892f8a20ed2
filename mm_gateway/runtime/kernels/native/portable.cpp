// For any processor, in the vector types of GCC and Clang (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html).
#include <cmath>

#include "few_bits.h"
#include "fp16.h"

namespace {

// Four numbers are what every processor with vectors has; a panel is four of these.
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Integers __attribute__((vector_size(16)));
constexpr int VECTORS = PANEL / 4;

inline Floats as_floats(Integers values) { return __builtin_convertvector(values, Floats); }

// A block's weights as fp32 [input][output]: products of such integers and their sums stay below 2^24, where fp32 is exact, and every
// processor multiplies fp32 in vectors. Input k of a group is byte k of a little-endian word.
template <int BITS>
void unpack(const uint8_t* quants, Floats (&weights)[BLOCK][VECTORS]) {
    for (int at = 0; at < GROUPS * BITS / 8; at++) {
        for (int v = 0; v < VECTORS; v++) {
            Integers words;
            std::memcpy(&words, quants + 64 * at + 16 * v, sizeof words);
            for (int k = 0; k < 4; k++) {
                if (BITS == 8) {
                    weights[4 * at + k][v] = as_floats(words << (24 - 8 * k) >> 24);
                } else {
                    weights[4 * at + k][v] = as_floats(words >> (8 * k) & 0x0F);
                    weights[4 * (at + GROUPS / 2) + k][v] = as_floats(words >> (8 * k + 4) & 0x0F);
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
        Floats total[R][VECTORS] = {};
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t at = panel * blocks + block;
            Floats weights[BLOCK][VECTORS], scales[VECTORS], minimums[VECTORS];
            unpack<BITS>(layer.quants + at * BYTES, weights);
            for (int i = 0; i < PANEL; i++) {
                scales[i / 4][i % 4] = from_fp16(layer.scales[at * PANEL + i]);
                minimums[i / 4][i % 4] = BITS == 4 ? from_fp16(layer.minimums[at * PANEL + i]) : 0.0f;
            }
            for (int r = 0; r < R; r++) {
                const Activations& from = x[r * blocks + block];
                Floats dot[VECTORS] = {};
                for (int k = 0; k < BLOCK; k++) {
                    const float activation = from.quants[k];
                    for (int v = 0; v < VECTORS; v++) dot[v] += weights[k][v] * activation;
                }
                for (int v = 0; v < VECTORS; v++) {
                    total[r][v] += dot[v] * scales[v] * from.scale;
                    if (BITS == 4) total[r][v] += minimums[v] * from.sum;
                }
            }
        }
        std::memcpy(values, total, sizeof values);
    }
};

struct Portable {
    static constexpr int OUTPUTS = 4, ROWS_OF_4 = 2, ROWS_OF_MORE = 2, ROWS_OF_6 = 2;
    using Floats = ::Floats;
    using Bytes = Integers;
    struct Weights {
        Floats input[4];
    };
    using Four = const int8_t*;
    using Sums = Floats;

    static Bytes load(const uint8_t* from) {
        Bytes four;
        std::memcpy(&four, from, sizeof four);
        return four;
    }
    static Bytes low(Bytes four) { return four & 0x0F0F0F0F; }
    static Bytes high(Bytes four) { return four >> 4 & 0x0F0F0F0F; }
    static Bytes bits(Bytes four, int from, int mask) {
        const int32_t each = mask * 0x01010101;
        return (from < 4 ? four << (4 - from) : four >> (from - 4)) & each;
    }
    static Bytes either(Bytes a, Bytes b) { return a | b; }
    static Weights prepared(Bytes four) {
        Weights weights;
        for (int k = 0; k < 4; k++) weights.input[k] = as_floats(four >> (8 * k) & 0xFF);
        return weights;
    }
    static Four broadcast(const int8_t* four) { return four; }
    static Sums sums(int32_t value) { return all(static_cast<float>(value)); }
    static Sums add_products(Sums sums, const Weights& weights, Four four) {
        for (int k = 0; k < 4; k++) sums += weights.input[k] * static_cast<float>(four[k]);
        return sums;
    }
    static Sums widened(Sums sums) { return sums; }
    static Sums add(Sums a, Sums b) { return a + b; }
    static Floats to_floats(Sums sums) { return sums; }
    template <class T>
    static Sums load_integers(const T* from) {
        return Sums{static_cast<float>(from[0]), static_cast<float>(from[1]), static_cast<float>(from[2]), static_cast<float>(from[3])};
    }
    static Sums load_unsigned(const uint8_t* from) { return load_integers(from); }
    static Sums load_signed(const uint8_t* from) { return load_integers(reinterpret_cast<const int8_t*>(from)); }

    static Floats zeros() { return Floats{}; }
    static Floats all(float value) { return Floats{value, value, value, value}; }
    // As from_fp16.
    static Floats load_fp16(const uint16_t* from) {
        const Integers halves = {from[0], from[1], from[2], from[3]};
        const Integers magnitude = (halves & 0x7FFF) << 13;
        Floats value;
        std::memcpy(&value, &magnitude, sizeof value);
        value *= 0x1p112f;
        Integers bits;
        std::memcpy(&bits, &value, sizeof bits);
        bits |= (halves & 0x8000) << 16;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    static Floats times(Floats a, Floats b) { return a * b; }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
    static void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }
};

template <int BITS, bool IS_FINE>
using Few = FewBits<Portable, BITS, IS_FINE>;

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

const Kernels portable_kernels = {
    "portable",
    quantize_rows<quantize_block>,
    multiply_any<Tile<8>, Tile<4>, Few, SixBits<Portable>>,
};
