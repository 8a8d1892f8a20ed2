// The registers of AVX-512, with the products of VNNI: vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds them in fours to 16 int32.
#pragma once
#include <immintrin.h>

#include "tiles.h"

namespace {

struct Avx512 {
    using Few = Avx512;
    static constexpr int OUTPUTS = 16, VECTORS = 2;
    template <int BITS>
    static constexpr int ROWS = 12;
    template <int BITS>
    static constexpr int NARROW = GROUPS;
    using Floats = __m512;
    using Bytes = __m512i;
    template <int BITS>
    using Weights = __m512i;
    using Four = __m512i;
    using Sums = __m512i;
    template <int BITS>
    using Running = __m512i;

    // Sums begin at the bits of the fp32 3 * 2^22, whose last place counts ones: read as fp32 they are that number more than they stand for,
    // and value * scale + base is their product with a scale, rounded once, since base = -3 * 2^22 * scale is exact.
    static constexpr int32_t ZERO = 0x4B400000;
    static constexpr int32_t SHIFT = 128;  // of the unsigned operand of vpdpbusd where weights are signed
    struct Scales {
        __m512 value, base;
    };
    static Scales scales(__m512 value) { return {value, _mm512_mul_ps(value, _mm512_set1_ps(-12582912.0f))}; }
    static Floats value(const Scales& scales) { return scales.value; }
    static Floats scaled(Sums sums, const Scales& by) { return _mm512_fmadd_ps(_mm512_castsi512_ps(sums), by.value, by.base); }
    static Floats to_floats(Sums sums) { return _mm512_sub_ps(_mm512_castsi512_ps(sums), _mm512_set1_ps(12582912.0f)); }

    static Bytes load(const uint8_t* from) { return _mm512_loadu_si512(from); }
    static Bytes low(Bytes four) { return _mm512_and_si512(four, _mm512_set1_epi8(0x0F)); }
    static Bytes high(Bytes four) { return low(_mm512_srli_epi16(four, 4)); }
    static Bytes bits(Bytes four, int from, int mask) {
        const Bytes moved = from < 4 ? _mm512_slli_epi16(four, 4 - from) : _mm512_srli_epi16(four, from - 4);
        return _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(mask)));
    }
    static Bytes either(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
    template <int BITS>
    static Bytes prepared(Bytes four) {
        return BITS == 8 ? _mm512_xor_si512(four, _mm512_set1_epi8(static_cast<char>(0x80))) : four;
    }

    static Four broadcast(const int8_t* four) {
        int32_t word;
        std::memcpy(&word, four, 4);
        return _mm512_set1_epi32(word);
    }
    static Sums sums(int32_t value) { return _mm512_set1_epi32(value); }
    template <int BITS>
    static Sums begun(Sums sums) {
        return sums;
    }
    template <int BITS>
    static Sums add_products(Sums sums, Bytes weights, Four four) {
        return _mm512_dpbusd_epi32(sums, weights, four);
    }
    template <int BITS>
    static Sums ended(Sums running, Sums) {
        return running;
    }

    static Floats all(float value) { return _mm512_set1_ps(value); }
    static Floats load_floats(const float* from) { return _mm512_load_ps(from); }
    static Floats load_fp16(const uint16_t* from) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
    static Floats load_unsigned(const uint8_t* from) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    static Floats load_signed(const uint8_t* from) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    static Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static void store(float* to, Floats values) { _mm512_store_ps(to, values); }
};

}  // namespace
