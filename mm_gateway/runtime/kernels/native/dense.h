// Products with weights of 16 or 32 bits; arithmetic is fp32. A panel is 16 outputs, as in block_linear.h, and lies as [input][output: 16],
// so that one row of activations reads it as one stream and a tile of several rows loads each weight once. Of bf16 two inputs lie together.
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
#include <type_traits>

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
// Tiles from which on the first leaves weights of 16 bits widened for the others; for one other it takes longer than widening them again.
constexpr int64_t WIDEN_FROM = 3;
// Inputs by which few rows fetch weights ahead.
constexpr int64_t AHEAD = 64;
// Many rows whose activations fill more than this of the second-level cache pass by DEPTH inputs of so many panels before the next inputs.
constexpr int64_t NEAR_BYTES = 1 << 20, PANELS_OF_FAR = 32;

// How a tile takes part in reading weights: it alone does; it is one of several, each of which fetches one panel of those that come next; it
// is the first of several, and leaves the weights that it widened for the others.
enum Reading { ALONE, ONE_OF_SEVERAL, FIRST_OF_SEVERAL };

// What a tile computes: c [rows][16 of each panel] = start + a [rows][depth] * b [depth][16]; with `resume` it is added to c's own values.
template <class Weight>
struct Product {
    const float* a;
    int64_t a_stride;  // between rows
    const Weight* b;
    int64_t b_stride, panel_stride;  // between inputs, or pairs of them, and between panels
    int64_t depth;  // inputs
    float* c;
    int64_t c_stride;
    const float* start;  // [16 of each panel] or null: zeros
    bool resume;
    int64_t ahead;  // how far from a weight that is read is the one to fetch; 0: none
    int64_t turn = depth;  // input from which on it is one of the panels that come next; an even one, or the last
    float* wide = nullptr;  // [panel][DEPTH][16], of FIRST_OF_SEVERAL
};

// Inputs `from` to `to`.
template <int R, int P, Reading READING, class Weight>
void run_segment(const Product<Weight>& product, int64_t from, int64_t to) {
    Floats sums[R][P][VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sums[r][p][v] = Floats{};
    const int64_t a_stride = product.a_stride, b_stride = product.b_stride, panel_stride = product.panel_stride;
    const Weight* b = product.b + from / HELD<Weight> * b_stride;
    float* wide = product.wide;
    // A pointer for three rows, and two inputs a round: additions of addresses would take the place of multiplications. Everything is inlined,
    // since sums stay in registers only so.
    constexpr int POINTERS = (R + 2) / 3, ROUND = 2;
    const float* a[POINTERS];
#pragma GCC unroll 4
    for (int i = 0; i < POINTERS; i++) a[i] = product.a + from + 3 * i * a_stride;
    int64_t ahead = product.ahead;
    const auto add = [&](int at) __attribute__((always_inline)) {
        Floats weights[P][VECTORS];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            if ((READING == ALONE || p == 0) && at % HELD<Weight> == 0) __builtin_prefetch(b + p * panel_stride + ahead, 0, 2);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                weights[p][v] = load(b + p * panel_stride + WIDTH * v, at % HELD<Weight>);
                if (READING == FIRST_OF_SEVERAL) store(wide + p * DEPTH * PANEL + WIDTH * v, weights[p][v]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const Floats x = all(a[r / 3][r % 3 * a_stride + at]);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sums[r][p][v] = multiply_add(weights[p][v], x, sums[r][p][v]);
        }
        if (at % HELD<Weight> == HELD<Weight> - 1) b += b_stride;
        if (READING == FIRST_OF_SEVERAL) wide += PANEL;
    };
    const auto next = [&](int count) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int i = 0; i < POINTERS; i++) a[i] += count;
    };
    int64_t k = from;
    for (const int64_t end : {std::min(to, product.turn), to}) {
        for (; k + ROUND <= end; k += ROUND) {
#pragma GCC unroll 4
            for (int at = 0; at < ROUND; at++) add(at);
            next(ROUND);
        }
        for (; k < end; k++) add(0), next(1);  // of pairs the first half of the last
        ahead = P * panel_stride - product.turn / HELD<Weight> * b_stride;
    }
    const bool first = from == 0 && !product.resume;
    const float* before = first ? product.start : product.c;
    const int64_t before_stride = first ? 0 : product.c_stride;
    const auto each = [&](auto work) __attribute__((always_inline)) {
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) work(sums[r][p][v], r, PANEL * p + WIDTH * v);
    };
    if (before != nullptr) each([&](Floats& sum, int r, int at) __attribute__((always_inline)) { sum = load(before + r * before_stride + at) + sum; });
    each([&](Floats& sum, int r, int at) __attribute__((always_inline)) { store(product.c + r * product.c_stride + at, sum); });
}

// Panels that few rows take at once, so that there are enough sums under way to hide the time of one.
template <int R, Reading READING>
constexpr int panels_at_once() {
    return READING != ALONE ? TOGETHER : std::max(1, std::min(4, MOST_SUMS / (R * VECTORS)));
}

// A tile of R rows and at most P panels; returns how many.
template <int R, int P, Reading READING, class Weight>
int64_t run_panels(const Product<Weight>& product, int64_t panels) {
    if constexpr (P > 1)
        if (panels < P) return run_panels<R, P - 1, READING>(product, panels);
    for (int64_t from = 0; from < product.depth; from += DEPTH) run_segment<R, P, READING>(product, from, std::min(from + DEPTH, product.depth));
    return P;
}

// One tile of `rows` <= R rows, on as many of `panels` panels as it takes; returns how many.
template <int R, Reading READING, class Weight>
int64_t run_rows(const Product<Weight>& product, int64_t rows, int64_t panels) {
    if constexpr (R > 1)
        if (rows < R) return run_rows<R - 1, READING>(product, rows, panels);
    return run_panels<R, panels_at_once<R, READING>(), READING>(product, panels);
}

// Tiles `first` to `last` of the `tiles` that share the rows about evenly, and all panels; ahead(tile) is how far it fetches.
template <Reading READING, class Weight, class Ahead>
void run_tiles(const Product<Weight>& product, int64_t rows, int64_t panels, int64_t first, int64_t last, int64_t tiles, Ahead ahead) {
    for (int64_t tile = first; tile < last; tile++) {
        const int64_t row = rows * tile / tiles, count = rows * (tile + 1) / tiles - row;
        for (int64_t panel = 0; panel < panels;) {
            Product<Weight> part = product;
            part.a += row * product.a_stride;
            part.b += panel * product.panel_stride;
            part.c += row * product.c_stride + panel * PANEL;
            if (part.start != nullptr) part.start += panel * PANEL;
            part.ahead = ahead(tile);
            panel += run_rows<TILE_ROWS, READING>(part, count, panels - panel);
        }
    }
}

inline int64_t tiles_of(int64_t rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }

// All rows and panels of a product; the first tile fetches ahead for all.
template <class Weight>
void run_product(const Product<Weight>& product, int64_t rows, int64_t panels) {
    const int64_t tiles = tiles_of(rows);
    run_tiles<ALONE>(product, rows, panels, 0, tiles, tiles, [&](int64_t tile) { return tile == 0 ? product.ahead : 0; });
}

// Rows of several tiles, and DEPTH inputs of at most TOGETHER panels; `next` is from one of their weights to the one that is wanted next.
template <class Weight>
void run_block(const Product<Weight>& product, int64_t rows, int64_t panels, int64_t next) {
    const int64_t tiles = tiles_of(rows);
    // From what a tile reads as `from` to the next weights of the panel that it fetches; how far apart does not matter, since nothing is read.
    const auto ahead = [&](const auto* from) {
        return [=](int64_t tile) {
            if (tile >= panels) return int64_t{0};
            const auto target = reinterpret_cast<intptr_t>(product.b + next + tile * product.panel_stride);
            return static_cast<int64_t>(target - reinterpret_cast<intptr_t>(from)) / static_cast<int64_t>(sizeof *from);
        };
    };
    constexpr bool IS_WIDE = std::is_same_v<Weight, float>;
    if (IS_WIDE || tiles < WIDEN_FROM)
        return run_tiles<ONE_OF_SEVERAL>(product, rows, panels, 0, tiles, tiles, ahead(product.b));
    if constexpr (!IS_WIDE) {
        alignas(64) float wide[TOGETHER * DEPTH * PANEL];
        Product<Weight> widening = product;
        widening.wide = wide;
        run_tiles<FIRST_OF_SEVERAL>(widening, rows, panels, 0, 1, tiles, ahead(product.b));
        const Product<float> widened{product.a, product.a_stride, wide,          PANEL,          DEPTH * PANEL, product.depth,
                                     product.c, product.c_stride, product.start, product.resume, 0};
        run_tiles<ONE_OF_SEVERAL>(widened, rows, panels, 1, tiles, tiles, ahead(wide));
    }
}

template <class Weight>
void multiply_panels(const Layer& layer, const Weight* weights, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    constexpr int64_t HERE = HELD<Weight>;
    const int64_t inputs = layer.inputs, panel_size = (inputs + HERE - 1) / HERE * PANEL;
    const auto start = [&](int64_t panel) { return layer.bias != nullptr ? layer.bias + panel * PANEL : nullptr; };
    if (rows <= TILE_ROWS) {
        const int64_t turn = std::max<int64_t>(0, inputs - AHEAD) / HERE * HERE, ahead = AHEAD / HERE * PANEL;
        run_product<Weight>({x, inputs, weights + first * panel_size, PANEL, panel_size, inputs, y, y_stride, start(first), false, ahead, turn},
                            rows, last - first);
        return;
    }
    const int64_t at_once = rows * inputs * static_cast<int64_t>(sizeof(float)) <= NEAR_BYTES ? TOGETHER : PANELS_OF_FAR;
    for (int64_t begin = first; begin < last; begin += at_once) {
        const int64_t end = std::min(begin + at_once, last);
        for (int64_t from = 0; from < inputs; from += DEPTH)
            for (int64_t panel = begin; panel < end; panel += TOGETHER) {
                int64_t next = TOGETHER * panel_size;  // of the next panels the same inputs; else the next inputs of the first, or the first of the next
                if (panel + TOGETHER >= end && from + DEPTH < inputs) next = (begin - panel) * panel_size + DEPTH / HERE * PANEL;
                else if (panel + TOGETHER >= end) next -= from / HERE * PANEL;
                run_block<Weight>({x + from, inputs, weights + panel * panel_size + from / HERE * PANEL, PANEL, panel_size, std::min(DEPTH, inputs - from),
                                   y + (panel - first) * PANEL, y_stride, start(panel), from > 0, 0},
                                  rows, std::min<int64_t>(TOGETHER, end - panel), next);
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

void multiply(const Layer& layer, const void* activations, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const float* x = static_cast<const float*>(activations);
    switch (layer.kind) {
        case FP16: return multiply_numbers<uint16_t>(layer, x, y, y_stride, rows, first, last);
        case BF16: return multiply_numbers<Pair>(layer, x, y, y_stride, rows, first, last);
        default: return multiply_numbers<float>(layer, x, y, y_stride, rows, first, last);
    }
}

}  // namespace
