// Numbers as exact sums of bf16, so that tiles of bf16 multiply them in fp32: x = x1 + x2 + x3, 8 bits each, for fp32's 24; two parts hold the
// 11 bits of fp16. See G. Henry, P. T. P. Tang, A. Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
// Computations, https://arxiv.org/abs/1904.06376. A part is at most 2^-8 of the one before. What is no number has a last part that is none; so
// have numbers beyond 3.39e38, whose nearest bf16 is infinite. Tiles take parts below 2^-126 as zeros.
#pragma once
#include <immintrin.h>

#include <type_traits>

#include "../vectors.h"
#include "../block_linear.h"

namespace {

constexpr int TILE_INPUTS = 32;               // of bf16 in a row of 64 bytes
constexpr int TILE_BYTES = 64 * PANEL;        // 16 pairs of inputs x 16 outputs, or 16 rows of activations
constexpr int SPLIT = 3;                      // parts of an activation

inline __m512i bits_of(__m512 x) { return _mm512_castps_si512(x); }

// The nearest bf16, of two equally near ones the larger.
inline __m512 nearest_bf16(__m512 x) {
    const __m512i rounded = _mm512_add_epi32(bits_of(x), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

// x as its parts, each in the upper halves of fp32.
template <int PARTS>
inline void split(__m512 x, __m512 (&parts)[PARTS]) {
#pragma GCC unroll 3
    for (int part = 0; part + 1 < PARTS; part++) {
        parts[part] = nearest_bf16(x);
        x = _mm512_sub_ps(x, parts[part]);
    }
    parts[PARTS - 1] = x;
}

// A row of a tile of weights: 16 outputs' numbers of two inputs after one another.
inline __m512i pair(__m512 first, __m512 second) {
    constexpr int EITHER_AND = 0xF8;  // a | (b & c)
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(bits_of(first), 16), bits_of(second), _mm512_set1_epi32(static_cast<int>(0xFFFF0000)), EITHER_AND);
}

// 32 numbers after one another.
inline __m512i in_order(__m512 first, __m512 second) {
    alignas(64) static constexpr uint16_t UPPER[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                       33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    return _mm512_permutex2var_epi16(bits_of(first), _mm512_load_si512(UPPER), bits_of(second));
}

// `count` <= 32 activations as parts [part][32] of bf16, filled up by zeros.
inline void split_activations(const float* x, int64_t count, char* to) {
    const uint32_t mask = count >= TILE_INPUTS ? ~0u : (1u << count) - 1;
    __m512 first[SPLIT], second[SPLIT];
    split(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x), first);
    split(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16), second);
#pragma GCC unroll 3
    for (int part = 0; part < SPLIT; part++) _mm512_store_si512(to + 64 * part, in_order(first[part], second[part]));
}

// Parts of a weight.
template <class Weight>
constexpr int PARTS_OF = std::is_same_v<Weight, float> ? 3 : std::is_same_v<Weight, Pair> ? 1 : 2;

// Pairs `from` to `to` of the 16 of a tile's inputs: weights, as they lie in a panel, as [part][pair of inputs: 16][16][2] of bf16. Beyond `count`
// inputs there are zeros.
template <class Weight>
inline __attribute__((always_inline)) void split_weights(const Weight* weights, int64_t count, int from, int to, char* tiles) {
    constexpr int PARTS = PARTS_OF<Weight>;
    const bool is_whole = count >= TILE_INPUTS;
#pragma GCC unroll 16
    for (int at = from; at < to; at++) {
        const bool has_first = is_whole || 2 * at < count, has_second = is_whole || 2 * at + 1 < count;
        if constexpr (std::is_same_v<Weight, Pair>) {
            _mm512_store_si512(tiles + 64 * at, has_first ? _mm512_loadu_si512(weights + at * PANEL) : _mm512_setzero_si512());
        } else {
            __m512 first[PARTS], second[PARTS];
            split(has_first ? load(weights + 2 * at * PANEL) : _mm512_setzero_ps(), first);
            split(has_second ? load(weights + (2 * at + 1) * PANEL) : _mm512_setzero_ps(), second);
#pragma GCC unroll 3
            for (int part = 0; part < PARTS; part++) _mm512_store_si512(tiles + part * TILE_BYTES + 64 * at, pair(first[part], second[part]));
        }
    }
}

}  // namespace
