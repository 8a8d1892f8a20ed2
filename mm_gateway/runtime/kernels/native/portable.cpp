// For any processor, in the vector types of GCC and Clang (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html).
#include <cmath>

#include "tiles.h"
#include "fp16.h"

namespace {

// Four numbers are what every processor with vectors has.
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Integers __attribute__((vector_size(16)));

inline Floats as_floats(Integers values) { return __builtin_convertvector(values, Floats); }

// Integers as fp32: products of such and their sums stay below 2^24, where fp32 is exact, and every processor multiplies fp32 in vectors.
struct Portable {
    using Few = Portable;
    static constexpr int OUTPUTS = 4, VECTORS = 4;
    template <int BITS>
    static constexpr int ROWS = 4;
    template <int BITS>
    static constexpr int NARROW = GROUPS;
    using Floats = ::Floats;
    using Bytes = Integers;
    template <int BITS>
    struct Weights {
        Floats input[4];
    };
    using Four = const int8_t*;
    using Sums = Floats;
    template <int BITS>
    using Running = Sums;

    static constexpr int32_t ZERO = 0, SHIFT = 0;
    using Scales = Floats;
    static Scales scales(Floats value) { return value; }
    static Floats value(Scales scales) { return scales; }
    static Floats scaled(Sums sums, Scales by) { return sums * by; }
    static Floats to_floats(Sums sums) { return sums; }

    // Input k of a group is byte k of a little-endian word.
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
    template <int BITS>
    static Weights<BITS> prepared(Bytes four) {
        Weights<BITS> weights;
        for (int k = 0; k < 4; k++) weights.input[k] = as_floats(BITS == 8 ? four << (24 - 8 * k) >> 24 : four >> (8 * k) & 0xFF);
        return weights;
    }
    static Four broadcast(const int8_t* four) { return four; }
    static Sums sums(int32_t value) { return all(static_cast<float>(value)); }
    template <int BITS>
    static Sums begun(Sums sums) {
        return sums;
    }
    template <int BITS>
    static Sums add_products(Sums sums, const Weights<BITS>& weights, Four four) {
        for (int k = 0; k < 4; k++) sums += weights.input[k] * static_cast<float>(four[k]);
        return sums;
    }
    template <int BITS>
    static Sums ended(Sums running, Sums) {
        return running;
    }

    template <class T>
    static Floats load_integers(const T* from) {
        return Floats{static_cast<float>(from[0]), static_cast<float>(from[1]), static_cast<float>(from[2]), static_cast<float>(from[3])};
    }
    static Floats load_unsigned(const uint8_t* from) { return load_integers(from); }
    static Floats load_signed(const uint8_t* from) { return load_integers(reinterpret_cast<const int8_t*>(from)); }
    static Floats all(float value) { return Floats{value, value, value, value}; }
    static Floats load_floats(const float* from) {
        Floats values;
        std::memcpy(&values, from, sizeof values);
        return values;
    }
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

const Kernels portable_kernels = {"portable", quantize_rows<Portable, quantize_block>, multiply_any<Portable>};
