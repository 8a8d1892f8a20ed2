// AVX-512 VNNI: vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds them in fours to 16 int32.
#if defined(__x86_64__)
#include <immintrin.h>

#include <limits>

#include "few_bits.h"

namespace {

inline __m512i load(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline __m512 load_fp16(const uint16_t* from) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }

inline __m512i broadcast_group(const int8_t* quants, int group) {
    int32_t four;
    std::memcpy(&four, quants + 4 * group, 4);
    return _mm512_set1_epi32(four);
}

struct Tile8 {
    static constexpr int ROWS = 8;

    // The unsigned operand is weight + 128; starting at -128 * sum of the activations takes that off again.
    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL);
        const uint16_t* scales = layer.scales + panel * blocks * PANEL;
        const __m512i bias = _mm512_set1_epi8(static_cast<char>(0x80));
        __m512 total[R];
        for (int r = 0; r < R; r++) total[r] = _mm512_setzero_ps();
        for (int64_t block = 0; block < blocks; block++, quants += BLOCK * PANEL, scales += PANEL) {
            __m512i dot[R];
            for (int r = 0; r < R; r++) dot[r] = _mm512_set1_epi32(x[r * blocks + block].offset);
#pragma GCC unroll 8
            for (int group = 0; group < GROUPS; group++) {
                const __m512i weight = _mm512_xor_si512(load(quants + 64 * group), bias);
                for (int r = 0; r < R; r++)
                    dot[r] = _mm512_dpbusd_epi32(dot[r], weight, broadcast_group(x[r * blocks + block].quants, group));
            }
            const __m512 scale = load_fp16(scales);
            for (int r = 0; r < R; r++) {
                const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r]), scale);
                total[r] = _mm512_fmadd_ps(scaled, _mm512_set1_ps(x[r * blocks + block].scale), total[r]);
            }
        }
        for (int r = 0; r < R; r++) _mm512_storeu_ps(values[r], total[r]);
    }
};

struct Tile4 {
    static constexpr int ROWS = 8;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL / 2);
        const uint16_t* scales = layer.scales + panel * blocks * PANEL;
        const uint16_t* minimums = layer.minimums + panel * blocks * PANEL;
        const __m512i low = _mm512_set1_epi8(0x0F);
        __m512 total[R];
        for (int r = 0; r < R; r++) total[r] = _mm512_setzero_ps();
        for (int64_t block = 0; block < blocks; block++, quants += BLOCK * PANEL / 2, scales += PANEL, minimums += PANEL) {
            __m512i dot[R];
            for (int r = 0; r < R; r++) dot[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int group = 0; group < GROUPS / 2; group++) {
                const __m512i both = load(quants + 64 * group);
                const __m512i first = _mm512_and_si512(both, low);
                const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
                for (int r = 0; r < R; r++) {
                    const int8_t* activations = x[r * blocks + block].quants;
                    dot[r] = _mm512_dpbusd_epi32(dot[r], first, broadcast_group(activations, group));
                    dot[r] = _mm512_dpbusd_epi32(dot[r], second, broadcast_group(activations, group + GROUPS / 2));
                }
            }
            const __m512 scale = load_fp16(scales), minimum = load_fp16(minimums);
            for (int r = 0; r < R; r++) {
                const Activations& from = x[r * blocks + block];
                const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r]), scale);
                total[r] = _mm512_fmadd_ps(scaled, _mm512_set1_ps(from.scale), total[r]);
                total[r] = _mm512_fmadd_ps(_mm512_set1_ps(from.sum), minimum, total[r]);
            }
        }
        for (int r = 0; r < R; r++) _mm512_storeu_ps(values[r], total[r]);
    }
};

struct Avx512 {
    static constexpr int OUTPUTS = 16, ROWS_OF_4 = 6, ROWS_OF_MORE = 6, ROWS_OF_6 = 6;
    using Floats = __m512;
    using Bytes = __m512i;
    using Weights = __m512i;
    using Four = __m512i;
    using Sums = __m512i;

    static Bytes load(const uint8_t* from) { return ::load(from); }
    static Bytes low(Bytes four) { return _mm512_and_si512(four, _mm512_set1_epi8(0x0F)); }
    static Bytes high(Bytes four) { return low(_mm512_srli_epi16(four, 4)); }
    static Bytes bits(Bytes four, int from, int mask) {
        const Bytes moved = from < 4 ? _mm512_slli_epi16(four, 4 - from) : _mm512_srli_epi16(four, from - 4);
        return _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(mask)));
    }
    static Bytes either(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
    static Weights prepared(Bytes four) { return four; }
    static Four broadcast(const int8_t* four) { return broadcast_group(four, 0); }
    static Sums sums(int32_t value) { return _mm512_set1_epi32(value); }
    static Sums add_products(Sums sums, Weights weights, Four four) { return _mm512_dpbusd_epi32(sums, weights, four); }
    static Sums widened(Sums sums) { return sums; }
    static Sums add(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
    static Sums times(Sums a, Sums b) { return _mm512_mullo_epi32(a, b); }
    static Floats to_floats(Sums sums) { return _mm512_cvtepi32_ps(sums); }
    static Sums load_unsigned(const uint8_t* from) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
    static Sums load_signed(const uint8_t* from) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }

    static Floats zeros() { return _mm512_setzero_ps(); }
    static Floats all(float value) { return _mm512_set1_ps(value); }
    static Floats load_fp16(const uint16_t* from) { return ::load_fp16(from); }
    static Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static void store(float* to, Floats values) { _mm512_storeu_ps(to, values); }
};

template <int BITS, bool IS_FINE>
using Few = FewBits<Avx512, BITS, IS_FINE>;

int32_t quantize_block(const float* x, Activations& out) {
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float inverse = largest > SMALLEST ? 127.0f / largest : 0.0f;
    out.scale = largest > SMALLEST ? largest / 127.0f : 0.0f;
    // Neither max nor the conversion to integers keeps a NaN.
    if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) out.scale = std::numeric_limits<float>::quiet_NaN();
    // What is infinite becomes the least integer, which bytes do not hold: the sum is to be of the bytes, so that every tile means the same.
    const __m512i least = _mm512_set1_epi32(-128);
    const __m512i first = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inverse))), least);
    const __m512i second = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inverse))), least);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants), _mm512_cvtsepi32_epi8(first));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants + 16), _mm512_cvtsepi32_epi8(second));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
}

}  // namespace

const Kernels avx512_vnni_kernels = {
    "avx512_vnni",
    quantize_rows<quantize_block>,
    multiply_any<Tile8, Tile4, Few, SixBits<Avx512>>,
};
#endif
