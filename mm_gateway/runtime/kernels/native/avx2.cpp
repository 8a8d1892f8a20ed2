// AVX2, compiled a second time for AVX-VNNI, which has vpdpbusd for 32 bytes. A panel is two registers: its first and last 8 outputs.
#if defined(__x86_64__)
#include <immintrin.h>

#include <limits>

#include "few_bits.h"

namespace {

inline __m256i load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline __m256 load_fp16(const uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }

inline __m256i broadcast_group(const int8_t* quants, int group) {
    int32_t four;
    std::memcpy(&four, quants + 4 * group, 4);
    return _mm256_set1_epi32(four);
}

#if defined(__AVXVNNI__)
// The unsigned operand is weight + 128; starting at -128 * sum of the activations takes that off again.
struct Dot8 {
    static __m256i start(int32_t offset) { return _mm256_set1_epi32(offset); }
    static __m256i prepare(__m256i weight) { return _mm256_xor_si256(weight, _mm256_set1_epi8(static_cast<char>(0x80))); }
    static __m256i add(__m256i sum, __m256i prepared, __m256i, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, prepared, x); }
};

struct Dot4 {
    static __m256i add(__m256i sum, __m256i weight, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, weight, x); }
    static __m256i finish(__m256i sum) { return sum; }
};
#else
// vpmaddubsw wants one unsigned operand: |weight|, with its sign moved to the activation. 2 * 128 * 127 fits 16 bits.
struct Dot8 {
    static __m256i start(int32_t) { return _mm256_setzero_si256(); }
    static __m256i prepare(__m256i weight) { return _mm256_abs_epi8(weight); }
    static __m256i add(__m256i sum, __m256i prepared, __m256i weight, __m256i x) {
        const __m256i pairs = _mm256_maddubs_epi16(prepared, _mm256_sign_epi8(x, weight));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
};

// A whole block stays within 16 bits: 8 * 2 * 15 * 127 = 30,480.
struct Dot4 {
    static __m256i add(__m256i sum, __m256i weight, __m256i x) { return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weight, x)); }
    static __m256i finish(__m256i sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
};
#endif

// What both tiles end a block with: total += dot * scale of the weights * scale of the activations.
inline __m256 add_scaled(__m256 total, __m256i dot, float x_scale, __m256 scale) {
    return _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale), _mm256_set1_ps(x_scale), total);
}

struct Tile8 {
    static constexpr int ROWS = 4;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL);
        const uint16_t* scales = layer.scales + panel * blocks * PANEL;
        __m256 total[R][2];
        for (int r = 0; r < R; r++) total[r][0] = total[r][1] = _mm256_setzero_ps();
        for (int64_t block = 0; block < blocks; block++, scales += PANEL) {
            __m256i dot[R][2];
            for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = Dot8::start(x[r * blocks + block].offset);
#pragma GCC unroll 1
            for (int group = 0; group < GROUPS; group++, quants += 64) {
                const __m256i first = load(quants), second = load(quants + 32);
                const __m256i prepared_first = Dot8::prepare(first), prepared_second = Dot8::prepare(second);
                for (int r = 0; r < R; r++) {
                    const __m256i four = broadcast_group(x[r * blocks + block].quants, group);
                    dot[r][0] = Dot8::add(dot[r][0], prepared_first, first, four);
                    dot[r][1] = Dot8::add(dot[r][1], prepared_second, second, four);
                }
            }
            for (int half = 0; half < 2; half++) {
                const __m256 scale = load_fp16(scales + 8 * half);
                for (int r = 0; r < R; r++) total[r][half] = add_scaled(total[r][half], dot[r][half], x[r * blocks + block].scale, scale);
            }
        }
        for (int r = 0; r < R; r++)
            for (int half = 0; half < 2; half++) _mm256_storeu_ps(values[r] + 8 * half, total[r][half]);
    }
};

struct Tile4 {
    static constexpr int ROWS = 4;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL / 2);
        const uint16_t* scales = layer.scales + panel * blocks * PANEL;
        const uint16_t* minimums = layer.minimums + panel * blocks * PANEL;
        const __m256i low = _mm256_set1_epi8(0x0F);
        __m256 total[R][2];
        for (int r = 0; r < R; r++) total[r][0] = total[r][1] = _mm256_setzero_ps();
        for (int64_t block = 0; block < blocks; block++, scales += PANEL, minimums += PANEL) {
            __m256i dot[R][2];
            for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
            for (int group = 0; group < GROUPS / 2; group++, quants += 64) {
                const __m256i first = load(quants), second = load(quants + 32);
                const __m256i low_first = _mm256_and_si256(first, low), low_second = _mm256_and_si256(second, low);
                for (int r = 0; r < R; r++) {
                    const __m256i four = broadcast_group(x[r * blocks + block].quants, group);
                    dot[r][0] = Dot4::add(dot[r][0], low_first, four);
                    dot[r][1] = Dot4::add(dot[r][1], low_second, four);
                }
                const __m256i high_first = _mm256_and_si256(_mm256_srli_epi16(first, 4), low);
                const __m256i high_second = _mm256_and_si256(_mm256_srli_epi16(second, 4), low);
                for (int r = 0; r < R; r++) {
                    const __m256i four = broadcast_group(x[r * blocks + block].quants, group + GROUPS / 2);
                    dot[r][0] = Dot4::add(dot[r][0], high_first, four);
                    dot[r][1] = Dot4::add(dot[r][1], high_second, four);
                }
            }
            for (int half = 0; half < 2; half++) {
                const __m256 scale = load_fp16(scales + 8 * half), minimum = load_fp16(minimums + 8 * half);
                for (int r = 0; r < R; r++) {
                    const Activations& from = x[r * blocks + block];
                    total[r][half] = add_scaled(total[r][half], Dot4::finish(dot[r][half]), from.scale, scale);
                    total[r][half] = _mm256_fmadd_ps(_mm256_set1_ps(from.sum), minimum, total[r][half]);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int half = 0; half < 2; half++) _mm256_storeu_ps(values[r] + 8 * half, total[r][half]);
    }
};

struct Avx2 {
    static constexpr int OUTPUTS = 8, ROWS_OF_4 = 4, ROWS_OF_MORE = 3, ROWS_OF_6 = 3;
    using Floats = __m256;
    using Bytes = __m256i;
    using Weights = __m256i;
    using Four = __m256i;
    using Sums = __m256i;

    static Bytes load(const uint8_t* from) { return ::load(from); }
    static Bytes low(Bytes four) { return _mm256_and_si256(four, _mm256_set1_epi8(0x0F)); }
    static Bytes high(Bytes four) { return low(_mm256_srli_epi16(four, 4)); }
    static Bytes bits(Bytes four, int from, int mask) {
        const Bytes moved = from < 4 ? _mm256_slli_epi16(four, 4 - from) : _mm256_srli_epi16(four, from - 4);
        return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(mask)));
    }
    static Bytes either(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
    static Weights prepared(Bytes four) { return four; }
    static Four broadcast(const int8_t* four) { return broadcast_group(four, 0); }
    static Sums sums(int32_t value) { return _mm256_set1_epi32(value); }
    static Sums add_products(Sums sums, Weights weights, Four four) { return Dot4::add(sums, weights, four); }
    static Sums widened(Sums sums) { return Dot4::finish(sums); }
    static Sums add(Sums a, Sums b) { return _mm256_add_epi32(a, b); }
    static Sums times(Sums a, Sums b) { return _mm256_mullo_epi32(a, b); }
    static Floats to_floats(Sums sums) { return _mm256_cvtepi32_ps(sums); }
    static Sums load_unsigned(const uint8_t* from) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))); }
    static Sums load_signed(const uint8_t* from) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))); }

    static Floats zeros() { return _mm256_setzero_ps(); }
    static Floats all(float value) { return _mm256_set1_ps(value); }
    static Floats load_fp16(const uint16_t* from) { return ::load_fp16(from); }
    static Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static void store(float* to, Floats values) { _mm256_storeu_ps(to, values); }
};

template <int BITS, bool IS_FINE>
using Few = FewBits<Avx2, BITS, IS_FINE>;

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
const Kernels avx_vnni_kernels = {
    "avx_vnni",
    quantize_rows<quantize_block>,
    multiply_any<Tile8, Tile4, Few, SixBits<Avx2>>,
};
#else
const Kernels avx2_kernels = {
    "avx2",
    quantize_rows<quantize_block>,
    multiply_any<Tile8, Tile4, Few, SixBits<Avx2>>,
};
#endif
#endif
