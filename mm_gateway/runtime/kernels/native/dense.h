// Products with weights of 16 or 32 bits; arithmetic is fp32. A panel is 16 outputs, as in block_linear.h, and lies as [input][output: 16],
// so that one row of activations reads it as one stream and a tile of several rows loads each weight once.
//
// The tile keeps rows x 16 sums in registers while it passes over the inputs (K. Goto, R. van de Geijn, Anatomy of High-Performance Matrix
// Multiplication, https://doi.org/10.1145/1356052.1356053). Every sum is taken in the order of the inputs within segments of DEPTH, and then
// over the segments, whatever the tile: a row's result depends neither on the rows beside it nor on the number of threads, and its error
// grows with the length of a segment (N. Higham, The Accuracy of Floating Point Summation, https://doi.org/10.1137/0914050).
//
// While a tile computes, it has the weights that are wanted next brought into the second-level cache: a tile that waits for memory computes
// nothing, and the processor's own prefetching ends with each page.
#pragma once
#include <algorithm>

#include "float_kernels.h"
#include "vectors.h"

namespace {

constexpr int VECTORS = PANEL / WIDTH;  // registers of one panel's outputs
constexpr int MOST_SUMS = REGISTERS == 32 ? 24 : 12;
constexpr int TILE_ROWS = std::min(12, MOST_SUMS / VECTORS);
// Panels that a tile of many rows takes at once, so that its sums fill the registers.
constexpr int TOGETHER = MOST_SUMS / (TILE_ROWS * VECTORS);
// Inputs whose weights of these panels stay in the nearest cache while many rows pass by: 24 kB.
constexpr int64_t DEPTH = 384 / TOGETHER;
// Inputs by which few rows fetch weights ahead, and numbers of rows that do: fewer read as many panels at once as keep memory busy.
constexpr int64_t AHEAD = 64;
template <class Weight>
constexpr int64_t AHEAD_FROM = sizeof(Weight) != sizeof(float) ? 2 : REGISTERS == 32 ? 6 : 4;
// Rows from which on weights of 16 bits are widened once for all of them, rather than by each tile.
constexpr int64_t WIDEN_FROM = 8 * TILE_ROWS;

// What a tile computes: c [rows][16 of each panel] = start + a [rows][depth] * b [depth][16]; with `resume` it is added to c's own values.
template <class Weight>
struct Product {
    const float* a;
    int64_t a_stride;  // between rows
    const Weight* b;
    int64_t b_stride, panel_stride;  // between inputs, between panels
    int64_t depth;
    float* c;
    int64_t c_stride;
    const float* start;  // [16 of each panel] or null: zeros
    bool resume;
    int64_t ahead;  // how far from a weight that is read is one to fetch ahead; 0: none
};

// Inputs `from` to `to`.
template <int R, int P, class Weight>
void run_segment(const Product<Weight>& product, int64_t from, int64_t to) {
    Floats sums[R][P][VECTORS] = {};
    const Weight* b = product.b + from * product.b_stride;
    for (int64_t k = from; k < to; k++, b += product.b_stride) {
        Floats weights[P][VECTORS];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            __builtin_prefetch(b + p * product.panel_stride + product.ahead, 0, 2);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) weights[p][v] = load(b + p * product.panel_stride + WIDTH * v);
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const Floats x = all(product.a[r * product.a_stride + k]);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sums[r][p][v] = multiply_add(weights[p][v], x, sums[r][p][v]);
        }
    }
    const bool first = from == 0 && !product.resume;
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++)
            for (int v = 0; v < VECTORS; v++) {
                const int at = PANEL * p + WIDTH * v;
                float* c = product.c + r * product.c_stride + at;
                if (!first) sums[r][p][v] = load(c) + sums[r][p][v];
                else if (product.start != nullptr) sums[r][p][v] = load(product.start + at) + sums[r][p][v];
                store(c, sums[r][p][v]);
            }
}

template <int R, int P, class Weight>
void run_tile(const Product<Weight>& product) {
    for (int64_t from = 0; from < product.depth; from += DEPTH) run_segment<R, P>(product, from, std::min(from + DEPTH, product.depth));
}

// Panels that few rows take at once, so that there are enough sums under way to hide the time of one.
template <int R>
constexpr int panels_at_once() {
    return std::max(1, std::min(4, MOST_SUMS / (R * VECTORS)));
}

// A tile of R rows and at most P panels; returns how many.
template <int R, int P, class Weight>
int64_t run_panels(const Product<Weight>& product, int64_t panels) {
    if constexpr (P > 1)
        if (panels < P) return run_panels<R, P - 1>(product, panels);
    run_tile<R, P>(product);
    return P;
}

// One tile of `rows` <= R rows, on as many of `panels` panels as it takes; returns how many.
template <int R, class Weight>
int64_t run_rows(const Product<Weight>& product, int64_t rows, int64_t panels) {
    if constexpr (R > 1)
        if (rows < R) return run_rows<R - 1>(product, rows, panels);
    return run_panels<R, panels_at_once<R>()>(product, panels);
}

// All rows and panels of a product, in tiles of about the same number of rows.
template <class Weight>
void run_product(Product<Weight> product, int64_t rows, int64_t panels) {
    const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t first = rows * tile / tiles, count = rows * (tile + 1) / tiles - first;
        for (int64_t panel = 0; panel < panels;) {
            Product<Weight> part = product;
            part.a += first * product.a_stride;
            part.b += panel * product.panel_stride;
            part.c += first * product.c_stride + panel * PANEL;
            if (part.start != nullptr) part.start += panel * PANEL;
            if (tile > 0) part.ahead = 0;  // the first tile has done it
            panel += run_rows<TILE_ROWS>(part, count, panels - panel);
        }
    }
}

template <class Weight>
void multiply_panels(const Layer& layer, const Weight* weights, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const int64_t panel_size = layer.inputs * PANEL;
    if (rows <= TILE_ROWS) {
        const float* start = layer.bias != nullptr ? layer.bias + first * PANEL : nullptr;
        const int64_t ahead = rows < AHEAD_FROM<Weight> ? 0 : AHEAD * PANEL;
        run_product<Weight>({x, layer.inputs, weights + first * panel_size, PANEL, panel_size, layer.inputs, y, y_stride, start, false, ahead}, rows,
                            last - first);
        return;
    }
    for (int64_t panel = first; panel < last; panel += TOGETHER) {
        const int64_t panels = std::min<int64_t>(TOGETHER, last - panel);
        const float* start = layer.bias != nullptr ? layer.bias + panel * PANEL : nullptr;
        float* c = y + (panel - first) * PANEL;
        for (int64_t from = 0; from < layer.inputs; from += DEPTH) {
            const int64_t depth = std::min(DEPTH, layer.inputs - from);
            const Weight* block = weights + panel * panel_size + from * PANEL;
            const int64_t next = from + DEPTH < layer.inputs ? DEPTH * PANEL : TOGETHER * panel_size - from * PANEL;  // block, from this one
            if (sizeof(Weight) == sizeof(float) || rows < WIDEN_FROM) {
                run_product<Weight>({x + from, layer.inputs, block, PANEL, panel_size, depth, c, y_stride, start, from > 0, next}, rows, panels);
            } else {
                alignas(64) float wide[TOGETHER][DEPTH * PANEL];
                for (int64_t p = 0; p < panels; p++)
                    for (int64_t i = 0; i < depth * PANEL; i += WIDTH) store(wide[p] + i, load(block + p * panel_size + i));
                run_product<float>({x + from, layer.inputs, wide[0], PANEL, DEPTH * PANEL, depth, c, y_stride, start, from > 0, 0}, rows, panels);
            }
        }
    }
}

template <class Weight>
void multiply_numbers(const Layer& layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const Weight* weights = reinterpret_cast<const Weight*>(layer.quants);
    const int64_t whole = std::min(last, layer.outputs / PANEL);  // panels that y has room for
    if (first < whole) multiply_panels(layer, weights, x, y + first * PANEL, y_stride, rows, first, whole);
    if (last == whole || last <= first) return;
    // The last panel has fewer outputs than 16.
    constexpr int64_t AT_ONCE = 64;
    float rest[AT_ONCE * PANEL];
    const int64_t count = layer.outputs - whole * PANEL;
    for (int64_t row = 0; row < rows; row += AT_ONCE) {
        const int64_t here = std::min(AT_ONCE, rows - row);
        multiply_panels(layer, weights, x + row * layer.inputs, rest, PANEL, here, whole, last);
        for (int64_t r = 0; r < here; r++) std::memcpy(y + (row + r) * y_stride + whole * PANEL, rest + r * PANEL, count * sizeof(float));
    }
}

void multiply(const Layer& layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    if (layer.kind == FP16) multiply_numbers<uint16_t>(layer, x, y, y_stride, rows, first, last);
    else multiply_numbers<float>(layer, x, y, y_stride, rows, first, last);
}

}  // namespace
