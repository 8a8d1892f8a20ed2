// Products of few rows without tiles, which keep memory waiting. Every operation is one of the tiles', so that the results are the same bit
// for bit: of 32 inputs the even and the odd ones are added up, each from zero and in their order, and both together to the sum ("TDPBF16PS",
// Intel's Software Developer's Manual, volume 2).
#pragma once
#include <algorithm>
#include <vector>

#include "../float_kernels.h"
#include "parts.h"
#include "terms.h"

namespace {

// Weights of a tile's pair of inputs `at`, as their parts.
template <int PARTS, class Weight>
inline __attribute__((always_inline)) void split_pair(const Weight* weights, int64_t count, int at, __m512 (&first)[PARTS], __m512 (&second)[PARTS]) {
    if constexpr (std::is_same_v<Weight, Pair>) {
        first[0] = load(weights + at * PANEL, 0), second[0] = load(weights + at * PANEL, 1);
    } else {
        split(load(weights + 2 * at * PANEL), first);
        split(2 * at + 1 < count ? load(weights + (2 * at + 1) * PANEL) : _mm512_setzero_ps(), second);
    }
}

template <class Weight>
class FewRows {
public:
    FewRows(const Layer& layer, const char* parts, float* y, int64_t y_stride, int64_t rows)
        : layer(layer), y(y), y_stride(y_stride), rows(rows), tiles((layer.inputs + TILE_INPUTS - 1) / TILE_INPUTS), x(widened(layer, parts, rows)) {}

    void operator()(int64_t first, int64_t last) const {
        for (int64_t panel = first; panel < last;) {
            const int64_t here = std::min<int64_t>(TOGETHER, last - panel);
            for (int64_t row = 0; row < rows; row++) run_panels(panel, here, row);
            panel += here;
        }
    }

private:
    static constexpr int PARTS = PARTS_OF<Weight>, TERMS_ADDED = COUNT<PARTS>;
    static constexpr int64_t TILE_SIZE = TILE_INPUTS / HELD<Weight> * PANEL;
    static constexpr int TOGETHER = PARTS == 1 ? 4 : 2;  // panels, so that enough sums and lines of memory are under way
    static constexpr int64_t AHEAD = 4096 / (TILE_SIZE * sizeof(Weight));  // tiles by which weights are fetched ahead

    // Activations' parts as fp32: [row][tile][part][32].
    static const float* widened(const Layer& layer, const char* parts, int64_t rows) {
        thread_local std::vector<float> kept;
        const int64_t pieces = (layer.inputs + TILE_INPUTS - 1) / TILE_INPUTS * SPLIT, size = pieces * TILE_INPUTS;
        if (static_cast<int64_t>(kept.size()) < rows * size) kept.resize(rows * size);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t at = 0; at < 2 * pieces; at++) {
                const char* from = parts + row * split_bytes(layer.inputs) + at * 32;
                const __m512i wide = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
                _mm512_storeu_si512(kept.data() + row * size + at * 16, _mm512_slli_epi32(wide, 16));
            }
        return kept.data();
    }

    template <int P = TOGETHER>
    void run_panels(int64_t panel, int64_t panels, int64_t row) const {
        if constexpr (P > 1)
            if (panels < P) return run_panels<P - 1>(panel, panels, row);
        const int64_t first = panel * PANEL, panel_size = (layer.inputs + HELD<Weight> - 1) / HELD<Weight> * PANEL;
        const auto* weights = reinterpret_cast<const Weight*>(layer.quants) + panel * panel_size;
        const float* from = x + row * tiles * SPLIT * TILE_INPUTS;
        __m512 total[P], sum[P];
        for (int p = 0; p < P; p++) total[p] = layer.bias != nullptr ? _mm512_loadu_ps(layer.bias + first + p * PANEL) : _mm512_setzero_ps();
        for (int64_t segment = 0, segments = segments_of(tiles), tile = 0; segment < segments; segment++) {
            for (int p = 0; p < P; p++) sum[p] = _mm512_setzero_ps();
            for (const int64_t end = first_tile(tiles, segment + 1); tile < end; tile++, weights += TILE_SIZE, from += SPLIT * TILE_INPUTS) {
                // Behind a panel lies the next one, which is read at the same time: then those after it are fetched.
                const int64_t ahead = AHEAD * TILE_SIZE + (tile + AHEAD >= tiles ? (P - 1) * panel_size : 0);
                add_tile<P>(weights, panel_size, ahead, std::min<int64_t>(TILE_INPUTS, layer.inputs - tile * TILE_INPUTS), from, sum);
            }
            for (int p = 0; p < P; p++) total[p] = _mm512_add_ps(total[p], sum[p]);
        }
        for (int p = 0; p < P; p++) {
            const int64_t left = layer.outputs - first - p * PANEL;
            const auto outputs = static_cast<__mmask16>(left < PANEL ? (1 << left) - 1 : 0xFFFF);
            _mm512_mask_storeu_ps(y + row * y_stride + first + p * PANEL, outputs, total[p]);
        }
    }

    template <int P>
    static inline __attribute__((always_inline)) void add_tile(const Weight* weights, int64_t panel_size, int64_t ahead, int64_t count, const float* from,
                                                               __m512 (&sum)[P]) {
        __m512 even[P][TERMS_ADDED], odd[P][TERMS_ADDED];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 6
            for (int term = 0; term < TERMS_ADDED; term++) even[p][term] = odd[p][term] = _mm512_setzero_ps();
        const auto add = [&](int at) __attribute__((always_inline)) {
            constexpr int64_t OF_PAIR = TILE_SIZE / 16, OF_LINE = 64 / sizeof(Weight);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
#pragma GCC unroll 2
                for (int64_t line = 0; line < OF_PAIR; line += OF_LINE) __builtin_prefetch(weights + p * panel_size + at * OF_PAIR + line + ahead, 0, 2);
                __m512 first[PARTS], second[PARTS];
                split_pair<PARTS>(weights + p * panel_size, count, at, first, second);
#pragma GCC unroll 6
                for (int term = 0; term < TERMS_ADDED; term++) {
                    const float* of_part = from + TERMS<PARTS>[term].x * TILE_INPUTS + 2 * at;
                    even[p][term] = _mm512_fmadd_ps(_mm512_set1_ps(of_part[0]), first[TERMS<PARTS>[term].weight], even[p][term]);
                    odd[p][term] = _mm512_fmadd_ps(_mm512_set1_ps(of_part[1]), second[TERMS<PARTS>[term].weight], odd[p][term]);
                }
            }
        };
        // Inputs that are not there would add nothing.
        if (count == TILE_INPUTS) {
#pragma GCC unroll 2
            for (int at = 0; at < TILE_INPUTS / 2; at++) add(at);
        } else {
            for (int at = 0; 2 * at < count; at++) add(at);
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 6
            for (int term = 0; term < TERMS_ADDED; term++) sum[p] = _mm512_add_ps(sum[p], _mm512_add_ps(even[p][term], odd[p][term]));
    }

    const Layer& layer;
    float* y;
    const int64_t y_stride, rows, tiles;
    const float* x;
};

}  // namespace
