// Single numbers between 16 bits and fp32, for any processor.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

// The exponent is moved to where fp32 has it, by a multiplication that gets subnormal numbers right too; what is no number stays none.
inline float from_fp16(uint16_t half) {
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    if ((half & 0x7C00) == 0x7C00) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        bits |= 0x7F800000;
        std::memcpy(&value, &bits, 4);
    }
    return half & 0x8000 ? -value : value;
}

// bf16 is the upper half of fp32.
inline float from_bf16(uint16_t half) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Nearest, of two equally near ones the even one. For numbers within fp16's range.
inline uint16_t to_fp16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits < 0x38800000) {  // below 2^-14: a step is 2^-24, which adding 0.5 rounds to, since fp32's step there is the same
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3F000000));
    }
    bits += 0x0FFF + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | (bits - 0x38000000) >> 13);
}

}  // namespace
