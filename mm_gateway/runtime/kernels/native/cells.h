// Keys and values as the cache holds them: fp32, fp16, or bytes with a scale for each 32 of a head, which stand after the head's bytes. Whatever
// was no number when it was written is none when it is read.
#pragma once
#include <algorithm>

#include "float_kernels.h"
#include "vectors.h"

namespace {

constexpr int64_t SCALED = 32;
template <Cells cells>
constexpr int64_t CELL_BYTES = cells == CELLS_FP32 ? 4 : cells == CELLS_FP16 ? 2 : 1;

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

// Numbers `at` to `at` + WIDTH of a head of `dim`.
template <Cells cells>
inline Floats read(const char* head, int64_t dim, int64_t at) {
    if constexpr (cells == CELLS_FP32) return load(reinterpret_cast<const float*>(head) + at);
    if constexpr (cells == CELLS_INT8) {
        float scale;
        std::memcpy(&scale, head + dim + at / SCALED * sizeof(float), sizeof scale);
        return load(reinterpret_cast<const int8_t*>(head) + at) * scale;
    }
    return load(reinterpret_cast<const uint16_t*>(head) + at);
}

// x [dim] into a head of the cache.
void narrow(const float* x, int64_t dim, Cells cells, char* to) {
    switch (cells) {
        case CELLS_FP32: std::memcpy(to, x, dim * sizeof(float)); break;
        case CELLS_FP16: narrow_to_fp16(x, dim, reinterpret_cast<uint16_t*>(to)); break;
        case CELLS_INT8: narrow_to_bytes(x, dim, reinterpret_cast<int8_t*>(to)); break;
    }
}

// The same head of positions that are `stride` bytes apart. While they are read, those `ahead` bytes on are fetched.
struct Heads {
    const char* first;
    int64_t stride, dim, ahead;

    const char* operator[](int64_t position) const { return first + position * stride; }

    void fetch(int64_t position, int64_t bytes) const {
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((*this)[position] + at + ahead, 0, 2);
    }
};

// x [count][dim]
template <Cells cells>
void widen(const Heads& heads, int64_t count, float* x) {
    for (int64_t i = 0; i < count; i++, x += heads.dim) {
        heads.fetch(i, heads.dim * CELL_BYTES<cells>);
        for (int64_t at = 0; at < heads.dim; at += WIDTH) store(x + at, read<cells>(heads[i], heads.dim, at));
    }
}

// x [panel of 16 positions][dim][position: 16], which a product takes as its weights; the last position stands for those that the last panel lacks.
template <Cells cells>
void widen_across(const Heads& heads, int64_t count, float* x) {
    for (int64_t first = 0; first < count; first += WIDTH) {
        for (int64_t i = first; i < std::min(first + WIDTH, count); i++) heads.fetch(i, heads.dim * CELL_BYTES<cells>);
        float* to = x + first / PANEL * PANEL * heads.dim + first % PANEL;
        for (int64_t at = 0; at < heads.dim; at += WIDTH) {
            Floats rows[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) rows[i] = read<cells>(heads[std::min(first + i, count - 1)], heads.dim, at);
            transpose(rows);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) store(to + (at + i) * PANEL, rows[i]);
        }
    }
}

}  // namespace
