// Products of Q8 and Q4 by the tiles of AMX, 16 rows of activations at a time: "Intel Advanced Matrix Extensions" in Intel's Software
// Developer's Manual, volume 1, and its Optimization Reference Manual.
//
// A tile product is 16 rows x 32 inputs (signed bytes) times 32 inputs x 16 outputs: a block of a panel as it lies in memory, 8 rows of 64
// bytes. The sums of a block are exact in int32; they are stored, scaled, and added up in fp32 in the order of products.h, each operation
// rounded once, as there. So results are bit for bit the same, and a row may be computed by either.
//
// One tile product stands for 128 of vpdpbusd; what limits is scaling its 256 sums, and bringing operands near. Totals of 16 rows stay in
// registers while DEPTH blocks pass; these blocks of PANELS panels stay in the nearest cache for up to TILES tiles of rows, and the rows'
// activations for all PANELS. STEP tiles of sums are computed while those before them are scaled.
//
// Set is what reaches the instructions (amx.cpp), or another that does the same:
//
//   configure(Configuration), release()                 the thread's shapes of tiles; nothing is left behind
//   zero<T>(), load<T>(from, stride), store<T>(to, stride)
//   multiply<C, A, B, IS_SIGNED>()                      C += A * B: A of signed bytes, B of signed or unsigned ones
#pragma once
#include <immintrin.h>

#include "../block_linear.h"

namespace {

constexpr int ROWS = 16;   // of activations in a tile
constexpr int LEAST = 8;   // rows that are worth a tile
constexpr int STEP = 4;    // blocks
constexpr int DEPTH = 16;  // blocks
constexpr int TILES = 8;
constexpr int PANELS = 2;

// Tiles 0..3 hold sums, 4 and 5 activations, 6 and 7 weights. The operand of ldtilecfg.
struct Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {4 * PANEL, 4 * PANEL, 4 * PANEL, 4 * PANEL, BLOCK, BLOCK, 4 * PANEL, 4 * PANEL};
    uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, GROUPS, GROUPS};
};
static_assert(sizeof(Configuration) == 64, "as ldtilecfg reads it");

using Block = uint8_t[BLOCK * PANEL];
using Sums = int32_t[STEP][ROWS][PANEL];
using Totals = float[ROWS][PANEL];

// The quants of a block of Q4, 4 bits each, as bytes.
inline void unpack(const uint8_t* quants, Block& block) {
    const __m512i low = _mm512_set1_epi8(0x0F);
    for (int group = 0; group < GROUPS / 2; group++) {
        const __m512i both = _mm512_loadu_si512(quants + 64 * group);
        _mm512_storeu_si512(block + 64 * group, _mm512_and_si512(both, low));
        _mm512_storeu_si512(block + 64 * (group + GROUPS / 2), _mm512_and_si512(_mm512_srli_epi16(both, 4), low));
    }
}

// Sums of up to STEP blocks from `x` [16 rows][blocks] and `weights` on.
template <class Set, bool IS_SIGNED, int AT = 0>
inline void sum_products(const Activations* x, int64_t blocks, const Block* weights, int64_t count, Sums& sums) {
    if constexpr (AT < STEP) {
        if (AT == count) return;
        Set::template zero<AT>();
        Set::template load<4 + AT % 2>(x[AT].quants, blocks * static_cast<int64_t>(sizeof(Activations)));
        Set::template load<6 + AT % 2>(weights[AT], 4 * PANEL);
        Set::template multiply<AT, 4 + AT % 2, 6 + AT % 2, IS_SIGNED>();
        Set::template store<AT>(sums[AT], 4 * PANEL);
        sum_products<Set, IS_SIGNED, AT + 1>(x, blocks, weights, count, sums);
    }
}

inline __m512 load_fp16(const uint16_t* from) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }

// Adds `depth` blocks of 16 rows to their totals; minimums: null for Q8.
template <class Set, bool IS_SIGNED>
inline void add_blocks(const Activations* x, int64_t blocks, const Block* weights, const uint16_t* scales, const uint16_t* minimums, int64_t depth,
                       Totals& totals) {
    alignas(64) Sums sums[2];
    __m512 total[ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) total[r] = _mm512_load_ps(totals[r]);
    sum_products<Set, IS_SIGNED>(x, blocks, weights, depth < STEP ? depth : STEP, sums[0]);
    for (int64_t first = 0, turn = 0; first < depth; first += STEP, turn ^= 1) {
        const int64_t left = depth - first, count = left < STEP ? left : STEP, then = left - count;
        if (then > 0)
            sum_products<Set, IS_SIGNED>(x + first + STEP, blocks, weights + first + STEP, then < STEP ? then : STEP, sums[turn ^ 1]);
        for (int64_t at = 0; at < count; at++) {
            const int64_t block = first + at;
            const __m512 scale = load_fp16(scales + block * PANEL);
            const __m512 minimum = IS_SIGNED ? _mm512_setzero_ps() : load_fp16(minimums + block * PANEL);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++) {
                const Activations& from = x[r * blocks + block];
                const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[turn][at][r])), scale);
                total[r] = _mm512_fmadd_ps(scaled, _mm512_set1_ps(from.scale), total[r]);
                if (!IS_SIGNED) total[r] = _mm512_fmadd_ps(_mm512_set1_ps(from.sum), minimum, total[r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) _mm512_store_ps(totals[r], total[r]);
}

// A panel's totals of a row as its results; the last panel may have fewer outputs than 16.
inline void store_row(const Layer& layer, const float (&totals)[PANEL], float* y, int64_t panel) {
    const int64_t first = panel * PANEL, left = layer.outputs - first;
    const auto outputs = static_cast<__mmask16>(left < PANEL ? (1 << left) - 1 : 0xFFFF);
    __m512 values = _mm512_load_ps(totals);
    if (layer.row_scales != nullptr) values = _mm512_mul_ps(values, _mm512_maskz_loadu_ps(outputs, layer.row_scales + first));
    if (layer.bias != nullptr) values = _mm512_add_ps(values, _mm512_maskz_loadu_ps(outputs, layer.bias + first));
    _mm512_mask_storeu_ps(y + first, outputs, values);
}

// All rows, of which there are at least 16, by `tiles` tiles; where the last one is not full it begins earlier, and some rows are computed
// twice, with the same results.
template <class Set, bool IS_SIGNED>
void multiply_tiles(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t tiles, int64_t first, int64_t last) {
    const int64_t blocks = blocks_of(layer);
    const auto row_of = [&](int64_t tile) { return tile * ROWS + ROWS <= rows ? tile * ROWS : rows - ROWS; };
    for (int64_t panel = first; panel < last; panel += PANELS) {
        const int panels = last - panel < PANELS ? static_cast<int>(last - panel) : PANELS;
        for (int64_t tile = 0; tile < tiles; tile += TILES) {
            const int64_t end = tile + TILES < tiles ? tile + TILES : tiles;
            alignas(64) Totals totals[TILES][PANELS] = {};
            alignas(64) Block unpacked[PANELS][DEPTH];
            for (int64_t block = 0; block < blocks; block += DEPTH) {
                const int64_t depth = blocks - block < DEPTH ? blocks - block : DEPTH;
                const Block* weights[PANELS];
                for (int p = 0; p < panels; p++) {
                    const int64_t from = (panel + p) * blocks + block;
                    weights[p] = IS_SIGNED ? reinterpret_cast<const Block*>(layer.quants) + from : unpacked[p];
                    for (int64_t at = 0; !IS_SIGNED && at < depth; at++) unpack(layer.quants + (from + at) * (BLOCK * PANEL / 2), unpacked[p][at]);
                }
                for (int64_t t = tile; t < end; t++)
                    for (int p = 0; p < panels; p++) {
                        const int64_t from = ((panel + p) * blocks + block) * PANEL;
                        add_blocks<Set, IS_SIGNED>(x + row_of(t) * blocks + block, blocks, weights[p], layer.scales + from,
                                                   IS_SIGNED ? nullptr : layer.minimums + from, depth, totals[t - tile][p]);
                    }
            }
            for (int64_t t = tile; t < end; t++)
                for (int p = 0; p < panels; p++)
                    for (int r = 0; r < ROWS; r++) store_row(layer, totals[t - tile][p][r], y + (row_of(t) + r) * y_stride, panel + p);
        }
    }
}

// As Kernels::multiply. `others` computes what tiles are not for: few rows, and kinds whose scales lie within a block.
template <class Set>
void multiply_or_leave(const Kernels& others, const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first,
                       int64_t last) {
    const int64_t tiles = rows >= ROWS && (layer.kind == Q8 || layer.kind == Q4) ? (rows + ROWS - LEAST) / ROWS : 0;
    const int64_t done = tiles * ROWS < rows ? tiles * ROWS : rows;
    if (tiles > 0) {
        Set::configure(Configuration());
        if (layer.kind == Q8) multiply_tiles<Set, true>(layer, x, y, y_stride, done, tiles, first, last);
        else multiply_tiles<Set, false>(layer, x, y, y_stride, done, tiles, first, last);
        Set::release();
    }
    if (done < rows) others.multiply(layer, x + done * blocks_of(layer), y + done * y_stride, y_stride, rows - done, first, last);
}

}  // namespace
