// AVX-512 VNNI: vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds them in fours to 16 int32.
#if defined(__x86_64__)
#include <immintrin.h>

#include <limits>

#include "tiles.h"

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

int32_t quantize_block(const float* x, Activations& out) {
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float inverse = largest > SMALLEST ? 127.0f / largest : 0.0f;
    out.scale = largest > SMALLEST ? largest / 127.0f : 0.0f;
    // Neither max nor the conversion to integers keeps a NaN.
    if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) out.scale = std::numeric_limits<float>::quiet_NaN();
    const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inverse)));
    const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants), _mm512_cvtsepi32_epi8(first));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants + 16), _mm512_cvtsepi32_epi8(second));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
}

}  // namespace

const Kernels avx512_vnni_kernels = {"avx512_vnni", quantize_rows<quantize_block>, multiply_any<Tile8, Tile4>};
#endif
