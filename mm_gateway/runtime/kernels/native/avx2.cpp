// AVX2, compiled a second time for AVX-VNNI, which has vpdpbusd for 32 bytes. A panel is two registers: its first and last 8 outputs.
#if defined(__x86_64__)
#include <immintrin.h>

#include <limits>
#include <type_traits>

#include "tiles.h"

namespace {

struct Registers {
    static constexpr int OUTPUTS = 8, VECTORS = 2;
    using Floats = __m256;
    using Bytes = __m256i;
    using Four = __m256i;
    using Sums = __m256i;

    static Bytes load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
    static Bytes low(Bytes four) { return _mm256_and_si256(four, _mm256_set1_epi8(0x0F)); }
    static Bytes high(Bytes four) { return low(_mm256_srli_epi16(four, 4)); }
    static Bytes bits(Bytes four, int from, int mask) {
        const Bytes moved = from < 4 ? _mm256_slli_epi16(four, 4 - from) : _mm256_srli_epi16(four, from - 4);
        return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(mask)));
    }
    static Bytes either(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }

    static Four broadcast(const int8_t* four) {
        int32_t word;
        std::memcpy(&word, four, 4);
        return _mm256_set1_epi32(word);
    }
    static Sums sums(int32_t value) { return _mm256_set1_epi32(value); }

    static Floats all(float value) { return _mm256_set1_ps(value); }
    static Floats load_floats(const float* from) { return _mm256_load_ps(from); }
    static Floats load_fp16(const uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
    static Floats load_unsigned(const uint8_t* from) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
    }
    static Floats load_signed(const uint8_t* from) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
    }
    static Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static void store(float* to, Floats values) { _mm256_store_ps(to, values); }
};

#if defined(__AVXVNNI__)
struct AvxVnni : Registers {
    using Few = AvxVnni;
    template <int BITS>
    static constexpr int ROWS = 6;
    template <int BITS>
    static constexpr int NARROW = GROUPS;
    template <int BITS>
    using Weights = __m256i;
    template <int BITS>
    using Running = __m256i;

    // As in avx512_vnni.cpp.
    static constexpr int32_t ZERO = 0x4B400000;
    static constexpr int32_t SHIFT = 128;
    struct Scales {
        __m256 value, base;
    };
    static Scales scales(__m256 value) { return {value, _mm256_mul_ps(value, _mm256_set1_ps(-12582912.0f))}; }
    static Floats value(const Scales& scales) { return scales.value; }
    static Floats scaled(Sums sums, const Scales& by) { return _mm256_fmadd_ps(_mm256_castsi256_ps(sums), by.value, by.base); }
    static Floats to_floats(Sums sums) { return _mm256_sub_ps(_mm256_castsi256_ps(sums), _mm256_set1_ps(12582912.0f)); }

    template <int BITS>
    static Bytes prepared(Bytes four) {
        return BITS == 8 ? _mm256_xor_si256(four, _mm256_set1_epi8(static_cast<char>(0x80))) : four;
    }
    template <int BITS>
    static Sums begun(Sums sums) {
        return sums;
    }
    template <int BITS>
    static Sums add_products(Sums sums, Bytes weights, Four four) {
        return _mm256_dpbusd_avx_epi32(sums, weights, four);
    }
    template <int BITS>
    static Sums ended(Sums running, Sums) {
        return running;
    }
};
using Set = AvxVnni;
#else
struct FewRows;

struct Avx2 : Registers {
    using Few = FewRows;
    template <int BITS>
    static constexpr int ROWS = BITS == 8 ? 3 : 5;
    // Groups whose sums stay within 16 bits: of each, two of 15, 31 or 63 * 127.
    template <int BITS>
    static constexpr int NARROW = BITS == 6 ? 2 : BITS == 5 ? 4 : 8;

    // vpmaddubsw adds products of an unsigned and a signed byte in twos, within 16 bits. A weight of 8 bits is two halves of 4, for that.
    struct Halves {
        __m256i low, high;
    };
    template <int BITS>
    using Weights = std::conditional_t<BITS == 8, Halves, __m256i>;
    template <int BITS>
    using Running = Weights<BITS>;

    static constexpr int32_t ZERO = 0;
    static constexpr int32_t SHIFT = 128;
    using Scales = __m256;
    static Scales scales(__m256 value) { return value; }
    static Floats value(Scales scales) { return scales; }
    static Floats scaled(Sums sums, Scales by) { return _mm256_mul_ps(_mm256_cvtepi32_ps(sums), by); }
    static Floats to_floats(Sums sums) { return _mm256_cvtepi32_ps(sums); }

    template <int BITS>
    static Weights<BITS> prepared(Bytes four) {
        if constexpr (BITS == 8) {
            const __m256i moved = _mm256_xor_si256(four, _mm256_set1_epi8(static_cast<char>(0x80)));
            return {low(moved), high(moved)};
        } else {
            return four;
        }
    }
    template <int BITS>
    static Running<BITS> begun(Sums) {
        if constexpr (BITS == 8) return {_mm256_setzero_si256(), _mm256_setzero_si256()};
        else return _mm256_setzero_si256();
    }
    template <int BITS>
    static Running<BITS> add_products(Running<BITS> sums, Weights<BITS> weights, Four four) {
        if constexpr (BITS == 8) return {add_products<4>(sums.low, weights.low, four), add_products<4>(sums.high, weights.high, four)};
        else {
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, four));
            asm("" : "+x"(sums));  // added at once: products that wait for others would want registers
            return sums;
        }
    }
    template <int BITS>
    static Sums ended(Running<BITS> running, Sums before) {
        if constexpr (BITS == 8) {
            const Sums low = _mm256_madd_epi16(running.low, _mm256_set1_epi16(1)), high = _mm256_madd_epi16(running.high, _mm256_set1_epi16(16));
            return _mm256_add_epi32(before, _mm256_add_epi32(low, high));
        } else {
            return _mm256_add_epi32(before, _mm256_madd_epi16(running, _mm256_set1_epi16(1)));
        }
    }
};

// Few rows take a weight of 8 bits as it stands: |weight| is the unsigned byte, and its sign goes to the activation; 2 * 128 * 127 fits 16 bits.
struct FewRows : Avx2 {
    template <int BITS>
    static constexpr int ROWS = BITS == 8 ? 4 : 5;
    template <int BITS>
    using Weights = __m256i;
    template <int BITS>
    using Running = __m256i;

    template <int BITS>
    static __m256i prepared(Bytes four) {
        return four;
    }
    template <int BITS>
    static __m256i begun(Sums) {
        return _mm256_setzero_si256();
    }
    template <int BITS>
    static __m256i add_products(__m256i sums, __m256i weights, Four four) {
        if (BITS != 8) return Avx2::add_products<BITS == 8 ? 4 : BITS>(sums, weights, four);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(four, weights));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        asm("" : "+x"(sums));
        return sums;
    }
    template <int BITS>
    static Sums ended(__m256i running, Sums before) {
        return BITS == 8 ? running : Avx2::ended<BITS == 8 ? 4 : BITS>(running, before);
    }
};
using Set = Avx2;
#endif

inline float largest_of(__m256 values) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

inline int32_t sum_of(__m256i values) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}

int32_t quantize_block(const float* x, Activations& out) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 values[4], largest = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        values[i] = _mm256_loadu_ps(x + 8 * i);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, values[i]));
    }
    const float most = largest_of(largest);
    const __m256 inverse = _mm256_set1_ps(most > SMALLEST ? 127.0f / most : 0.0f);
    out.scale = most > SMALLEST ? most / 127.0f : 0.0f;
    // Neither max nor the conversion to integers keeps a NaN.
    const __m256 unordered =
        _mm256_or_ps(_mm256_cmp_ps(values[0], values[1], _CMP_UNORD_Q), _mm256_cmp_ps(values[2], values[3], _CMP_UNORD_Q));
    if (_mm256_movemask_ps(unordered)) out.scale = std::numeric_limits<float>::quiet_NaN();
    __m256i integers[4];
    for (int i = 0; i < 4; i++) integers[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse));
    // Packing works within halves of 16 bytes; the permutation puts the fours back into their order.
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(integers[0], integers[1]), _mm256_packs_epi32(integers[2], integers[3]));
    const __m256i ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.quants), ordered);
    return sum_of(_mm256_add_epi32(_mm256_add_epi32(integers[0], integers[1]), _mm256_add_epi32(integers[2], integers[3])));
}

}  // namespace

#if defined(__AVXVNNI__)
const Kernels avx_vnni_kernels = {"avx_vnni", quantize_rows<Set, quantize_block>, multiply_any<Set>};
#else
const Kernels avx2_kernels = {"avx2", quantize_rows<Set, quantize_block>, multiply_any<Set>};
#endif
#endif
