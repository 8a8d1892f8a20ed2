// Keys and values as the cache holds them: fp32, fp16, or bytes with a scale for each 32 of a head, which stand after the head's bytes. Whatever
// was no number when it was written is none when it is read.
#pragma once
#include <algorithm>

#include "float_kernels.h"
#include "vectors.h"

namespace {

constexpr int64_t SCALED = 32;

inline void narrow_to_fp16(const float* x, int64_t dim, uint16_t* to) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i < dim; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    for (int64_t i = 0; i < dim; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#else
    for (int64_t i = 0; i < dim; i++) {
        const float magnitude = std::fabs(x[i]);
        if (magnitude < 65520.0f) to[i] = to_fp16(x[i]);
        else to[i] = (x[i] < 0 ? 0x8000 : 0) | (std::isnan(x[i]) ? 0x7E00 : 0x7C00);
    }
#endif
}

inline void widen_from_fp16(const uint16_t* from, int64_t dim, float* x) {
#if defined(__AVX2__)
    for (int64_t i = 0; i < dim; i += WIDTH) store(x + i, load(from + i));
#else
    for (int64_t i = 0; i < dim; i++) {
        x[i] = from_fp16(from[i]);
        if ((from[i] & 0x7C00) == 0x7C00) x[i] = from[i] & 0x3FF ? NAN : from[i] & 0x8000 ? -INFINITY : INFINITY;
    }
#endif
}

inline void narrow_to_bytes(const float* x, int64_t dim, int8_t* to) {
    for (int64_t first = 0; first < dim; first += SCALED) {
        const int64_t last = std::min(first + SCALED, dim);
        float most = 0.0f, none = 0.0f;
        for (int64_t i = first; i < last; i++) {
            most = std::fmax(most, std::fabs(x[i]));
            none += x[i] * 0.0f;
        }
        const float inverse = most > 0.0f ? 127.0f / most : 0.0f, scale = most / 127.0f + none;
        for (int64_t i = first; i < last; i++) to[i] = none == 0.0f ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : 0;
        std::memcpy(to + dim + first / SCALED * sizeof(float), &scale, sizeof scale);
    }
}

inline void widen_from_bytes(const int8_t* from, int64_t dim, float* x) {
    for (int64_t first = 0; first < dim; first += SCALED) {
        float scale;
        std::memcpy(&scale, from + dim + first / SCALED * sizeof(float), sizeof scale);
        for (int64_t i = first; i < std::min(first + SCALED, dim); i += WIDTH) store(x + i, load(from + i) * scale);
    }
}

// x [dim] into a head of the cache.
void narrow(const float* x, int64_t dim, Cells cells, char* to) {
    switch (cells) {
        case CELLS_FP32: std::memcpy(to, x, dim * sizeof(float)); break;
        case CELLS_FP16: narrow_to_fp16(x, dim, reinterpret_cast<uint16_t*>(to)); break;
        case CELLS_INT8: narrow_to_bytes(x, dim, reinterpret_cast<int8_t*>(to)); break;
    }
}

// The same head of `count` positions, `stride` bytes apart, as [count][dim]; meanwhile those `ahead` bytes on are fetched.
void widen(const char* from, int64_t stride, int64_t count, int64_t dim, Cells cells, int64_t ahead, float* x) {
    for (int64_t i = 0; i < count; i++, from += stride, x += dim) {
        for (int64_t at = 0; at < (cells == CELLS_FP16 ? 2 * dim : dim); at += 64) __builtin_prefetch(from + at + ahead, 0, 2);
        if (cells == CELLS_FP16) widen_from_fp16(reinterpret_cast<const uint16_t*>(from), dim, x);
        else widen_from_bytes(reinterpret_cast<const int8_t*>(from), dim, x);
    }
}

}  // namespace
