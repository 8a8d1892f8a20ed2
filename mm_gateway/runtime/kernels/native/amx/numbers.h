// Products of weights of 16 and 32 bits by the tiles of AMX. Arithmetic is fp32: numbers are split into parts of bf16 (parts.h), whose products
// are exact, and sums are fp32: terms.h.
//
// Every sum is taken in the order of the inputs within segments, and then over the segments, whatever the rows: as in dense.h. A segment's
// weights of PANELS panels are split once, while the first 32 rows pass by, and stay in the second-level cache for the others. Few rows are
// computed without tiles, with the same results: few_rows.h.
#pragma once
#include <algorithm>
#include <type_traits>

#include "../float_kernels.h"
#include "configuration.h"
#include "few_rows.h"

namespace {

constexpr int TILE_ROWS = 16;
constexpr int PANELS = 2;
constexpr int64_t FEW = 1;  // rows that are quicker without tiles

// Adds to the sums the products of 32 inputs: activations of up to 16 rows at `x` and `second`, `stride` bytes apart, with weights of WIDTH panels.
// Instructions of other kinds keep up with those of tiles where they stand between them: between(AT) does its share after each term.
template <class Set, int PARTS, int HEIGHT, int WIDTH, class Between, int AT = 0>
inline __attribute__((always_inline)) void add_terms(const char* x, const char* second, int64_t stride, const char* (&weights)[PANELS], const Between& between) {
    if constexpr (AT < COUNT<PARTS>) {
        constexpr Term TERM = TERMS<PARTS>[AT], BEFORE = TERMS<PARTS>[AT > 0 ? AT - 1 : 0];
        if constexpr (AT == 0 || TERM.x != BEFORE.x) {
            Set::template load<4>(x + 64 * TERM.x, stride);
            if constexpr (HEIGHT == 2) Set::template load<5>(second + 64 * TERM.x, stride);
        }
        if constexpr (AT == 0 || TERM.weight != BEFORE.weight) {
            Set::template load<6>(weights[0] + TERM.weight * TILE_BYTES, 64);
            if constexpr (WIDTH == 2) Set::template load<7>(weights[1] + TERM.weight * TILE_BYTES, 64);
        }
        Set::template multiply_pairs<0, 4, 6>();
        if constexpr (WIDTH == 2) Set::template multiply_pairs<1, 4, 7>();
        if constexpr (HEIGHT == 2) Set::template multiply_pairs<2, 5, 6>();
        if constexpr (HEIGHT == 2 && WIDTH == 2) Set::template multiply_pairs<3, 5, 7>();
        between(std::integral_constant<int, AT>());
        add_terms<Set, PARTS, HEIGHT, WIDTH, Between, AT + 1>(x, second, stride, weights, between);
    }
}

using Sums = float[2][PANELS][TILE_ROWS][PANEL];

template <class Set, int HEIGHT, int WIDTH>
void clear() {
    Set::template zero<0>();
    if constexpr (WIDTH == 2) Set::template zero<1>();
    if constexpr (HEIGHT == 2) Set::template zero<2>();
    if constexpr (HEIGHT == 2 && WIDTH == 2) Set::template zero<3>();
}

template <class Set, int HEIGHT, int WIDTH>
void store(Sums& sums) {
    Set::template store<0>(sums[0][0], 4 * PANEL);
    if constexpr (WIDTH == 2) Set::template store<1>(sums[0][1], 4 * PANEL);
    if constexpr (HEIGHT == 2) Set::template store<2>(sums[1][0], 4 * PANEL);
    if constexpr (HEIGHT == 2 && WIDTH == 2) Set::template store<3>(sums[1][1], 4 * PANEL);
}

// y += a segment's sums, for `rows` rows; the first segment's are added to the bias. The last panel may have fewer outputs than 16.
inline void add_sums(const Layer& layer, const Sums& sums, float* y, int64_t y_stride, int64_t rows, int64_t panel, int panels, bool is_first) {
    for (int p = 0; p < panels; p++) {
        const int64_t first = (panel + p) * PANEL, left = layer.outputs - first;
        const auto outputs = static_cast<__mmask16>(left < PANEL ? (1 << left) - 1 : 0xFFFF);
        const __m512 bias = layer.bias != nullptr ? _mm512_loadu_ps(layer.bias + first) : _mm512_setzero_ps();
        for (int64_t r = 0; r < rows; r++) {
            float* to = y + r * y_stride + first;
            const __m512 before = is_first ? bias : _mm512_maskz_loadu_ps(outputs, to);
            _mm512_mask_storeu_ps(to, outputs, _mm512_add_ps(before, _mm512_load_ps(sums[r / TILE_ROWS][p][r % TILE_ROWS])));
        }
    }
}

// A layer's products: weights of one type, and the rows that pass by them.
template <class Set, class Weight>
class Product {
public:
    Product(const Layer& layer, const char* x, float* y, int64_t y_stride, int64_t rows)
        : layer(layer), x(x), y(y), x_stride(split_bytes(layer.inputs)), y_stride(y_stride), rows(rows), groups((rows + GROUP - 1) / GROUP),
          panel_size((layer.inputs + HELD<Weight> - 1) / HELD<Weight> * PANEL), tiles((layer.inputs + TILE_INPUTS - 1) / TILE_INPUTS), segments(segments_of(tiles)) {}

    void operator()(int64_t first, int64_t last) {
        if (rows == 0 || first >= last) return;
        const int64_t at_once = rows * x_stride <= NEAR_BYTES ? PANELS : PANELS_OF_FAR;
        Place now{first, std::min(first + at_once, last), first, 0}, next = now;
        split_tile(now, 0, 0);
        for (bool more = true; more; now = next) {
            more = advance(next, at_once, last);
            for (int64_t group = 0; group < groups; group++) {
                const bool is_high = rows - group * GROUP > TILE_ROWS, is_wide = now.end - now.panel >= PANELS;
                const Place* then = more ? &next : nullptr;
                if (is_high) is_wide ? run<2, 2>(now, then, group) : run<2, 1>(now, then, group);
                else is_wide ? run<1, 2>(now, then, group) : run<1, 1>(now, then, group);
            }
            turn = turn_after(first_tile(tiles, now.segment + 1) - first_tile(tiles, now.segment));
        }
        Set::release();
    }

private:
    static constexpr int PARTS = PARTS_OF<Weight>;
    static constexpr int64_t GROUP = 2 * TILE_ROWS, TILE_SIZE = TILE_INPUTS / HELD<Weight> * PANEL;
    // Many rows whose activations fill more than this of the second-level cache pass by a segment of so many panels before the next segment.
    static constexpr int64_t NEAR_BYTES = 1 << 20, PANELS_OF_FAR = 32;
    static constexpr int64_t AHEAD = 8192 / (TILE_SIZE * sizeof(Weight));  // tiles by which weights are fetched ahead: 8 KiB of a panel

    // A segment of the inputs of panel `panel` and the next; `begin` to `end` are the panels that all rows pass by before the next segment.
    struct Place {
        int64_t begin, end, panel, segment;
    };

    bool advance(Place& at, int64_t at_once, int64_t last) const {
        at.panel += PANELS;
        if (at.panel < at.end) return true;
        at.panel = at.begin, at.segment++;
        if (at.segment < segments) return true;
        at = {at.end, std::min(at.end + at_once, last), at.end, 0};
        return at.begin < last;
    }

    const Weight* weights_of(int64_t panel, int64_t tile) const {
        return reinterpret_cast<const Weight*>(layer.quants) + panel * panel_size + tile * TILE_SIZE;
    }

    // Where the weights of a segment's tile of inputs are split to. Those of the first are while the last of the segment before are in use; of
    // weights that one group of rows passes by no more than two tiles are kept.
    char* slot(int64_t tile, int its_turn, int panel) {
        return slots[groups == 1 ? (tile + its_turn) % 2 : tile > 0 ? tile : its_turn * DEPTH][panel];
    }

    // What `turn` becomes for the segment after one of `depth` tiles: the tile after its last is in another slot.
    int turn_after(int64_t depth) const { return groups == 1 ? static_cast<int>((turn + depth) % 2) : turn ^ 1; }

    void split_tile(const Place& at, int64_t tile, int its_turn) {
        const int64_t of_layer = first_tile(tiles, at.segment) + tile;
        for (int64_t p = 0; p < std::min<int64_t>(PANELS, at.end - at.panel); p++)
            split_weights(weights_of(at.panel + p, of_layer), layer.inputs - of_layer * TILE_INPUTS, 0, TILE_INPUTS / 2, slot(tile, its_turn, p));
    }

    template <int HEIGHT, int WIDTH>
    void run(const Place& now, const Place* next, int64_t group) {
        const int64_t row = group * GROUP, count = std::min(GROUP, rows - row);
        const int64_t first = first_tile(tiles, now.segment), depth = first_tile(tiles, now.segment + 1) - first;
        const char* here = x + row * x_stride + first * 64 * SPLIT;
        configure(count);
        clear<Set, HEIGHT, WIDTH>();
        for (int64_t tile = 0; tile < depth; tile++, here += 64 * SPLIT) {
            const bool is_last = tile + 1 == depth;
            const char* weights[PANELS] = {slot(tile, turn, 0), slot(tile, turn, 1)};
            const char* then = is_last && group + 1 < groups ? x + (row + GROUP) * x_stride + first * 64 * SPLIT : here + 64 * SPLIT;
            const auto multiply = [&](const auto& between) __attribute__((always_inline)) {
                add_terms<Set, PARTS, HEIGHT, WIDTH>(here, here + TILE_ROWS * x_stride, x_stride, weights, [&](auto at) __attribute__((always_inline)) {
                    for (int64_t r = count * at / COUNT<PARTS>; r < count * (at + 1) / COUNT<PARTS>; r++)
                        for (int part = 0; part < SPLIT; part++) __builtin_prefetch(then + r * x_stride + 64 * part);
                    between(at);
                });
            };
            // The first group splits the weights that come next.
            const Place* const from = is_last ? next : &now;
            if (group > 0 || from == nullptr) {
                multiply([](auto) {});
                continue;
            }
            const int64_t coming = is_last ? 0 : tile + 1, of_layer = first_tile(tiles, from->segment) + coming;
            const int turn_then = is_last ? turn_after(depth) : turn;
            if ((of_layer + 1) * TILE_INPUTS > layer.inputs || from->end - from->panel < WIDTH || WIDTH < PANELS) {
                multiply([](auto) {});
                split_tile(*from, coming, turn_then);
                continue;
            }
            const Weight* source[PANELS] = {weights_of(from->panel, of_layer), weights_of(from->panel + 1, of_layer)};
            char* to[PANELS] = {slot(coming, turn_then, 0), slot(coming, turn_then, 1)};
            const int64_t ahead = AHEAD * TILE_SIZE + (of_layer + AHEAD >= tiles ? panel_size : 0);
            multiply([&](auto at) __attribute__((always_inline)) {
                constexpr int FIRST = 16 * at / COUNT<PARTS>, LAST = 16 * (at + 1) / COUNT<PARTS>;
                for (int p = 0; p < PANELS; p++) {
                    for (int64_t i = TILE_SIZE / 16 * FIRST; i < TILE_SIZE / 16 * LAST; i += 64 / sizeof(Weight)) __builtin_prefetch(source[p] + ahead + i, 0, 2);
                    split_weights(source[p], TILE_INPUTS, FIRST, LAST, to[p]);
                }
            });
        }
        store<Set, HEIGHT, WIDTH>(sums);
        add_sums(layer, sums, y + row * y_stride, y_stride, count, now.panel, WIDTH, now.segment == 0);
    }

    void configure(int64_t count) {
        if (count == shaped) return;
        const int64_t first = std::min<int64_t>(count, TILE_ROWS);
        Configuration shapes;  // tiles 0 to 3 hold sums, 4 and 5 activations, 6 and 7 weights
        shapes.shape(0, first, first, 4 * PANEL), shapes.shape(2, count - first, count - first, 4 * PANEL);
        shapes.shape(4, first, count - first, 2 * TILE_INPUTS), shapes.shape(6, TILE_INPUTS / 2, TILE_INPUTS / 2, 4 * PANEL);
        Set::configure(shapes);
        shaped = count;
    }

    const Layer& layer;
    const char* x;  // [rows][x_stride]
    float* y;
    const int64_t x_stride, y_stride, rows, groups, panel_size, tiles, segments;
    int64_t shaped = 0;  // rows of the present configuration
    int turn = 0;        // which of two slots the segment's first tile is in
    alignas(64) char slots[DEPTH + 1][PANELS][PARTS * TILE_BYTES];
    alignas(64) Sums sums;
};

// As FloatKernels::split.
inline void split_rows(const Layer& layer, const float* x, char* parts, int64_t first, int64_t last) {
    const int64_t inputs = layer.inputs;
    for (int64_t row = first; row < last; row++)
        for (int64_t input = 0; input < inputs; input += TILE_INPUTS)
            split_activations(x + row * inputs + input, inputs - input, parts + row * split_bytes(inputs) + input / TILE_INPUTS * 64 * SPLIT);
}

template <class Set, class Weight>
void multiply_rows(const Layer& layer, const char* parts, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    // Tiles take what is below 2^-126 as zeros, and so does all that stands for them or adds up what they give.
    constexpr unsigned SMALL_ARE_ZEROS = 0x8040;
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | SMALL_ARE_ZEROS);
    if (rows <= FEW) FewRows<Weight>(layer, parts, y, y_stride, rows)(first, last);
    else Product<Set, Weight>(layer, parts, y, y_stride, rows)(first, last);
    _mm_setcsr(before);
}

// As FloatKernels::multiply, of what split_rows wrote.
template <class Set>
void multiply_numbers(const Layer& layer, const void* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const auto* parts = static_cast<const char*>(x);
    switch (layer.kind) {
        case FP16: return multiply_rows<Set, uint16_t>(layer, parts, y, y_stride, rows, first, last);
        case BF16: return multiply_rows<Set, Pair>(layer, parts, y, y_stride, rows, first, last);
        default: return multiply_rows<Set, float>(layer, parts, y, y_stride, rows, first, last);
    }
}

}  // namespace
