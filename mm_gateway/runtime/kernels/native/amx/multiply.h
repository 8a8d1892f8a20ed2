// Products by the tiles of AMX, 16 rows of activations at a time: "Intel Advanced Matrix Extensions" in Intel's Software Developer's
// Manual, volume 1, and its Optimization Reference Manual.
//
// A tile product is 16 rows x 32 inputs times 32 inputs x 16 outputs, all signed bytes: a block of a panel as it lies in memory, or as it is
// unpacked. The sums of a block are exact in int32; they are stored, scaled, and added up in fp32 in the order of products.h, each operation
// rounded once, as there. So results are bit for bit the same, and a row may be computed by either.
//
// One tile product stands for 128 of vpdpbusd; what takes the time is storing its 256 sums, scaling them, and bringing operands near. Sums
// begin at ZERO, so that none need be converted, and pass through little memory: two tiles are under way while those before them are scaled
// into totals, which stay in registers for AT_ONCE blocks.
#pragma once
#include "../avx512.h"
#include "configuration.h"

namespace {

constexpr int TALL = 16;   // rows of a tile
constexpr int LEAST = 13;  // rows for each tile, on an average, that are worth it

// Tiles 0 and 1 hold sums, 2 and 3 activations, 4 and 5 weights.
inline Configuration shapes_of_blocks() {
    Configuration shapes;
    shapes.shape(0, TALL, TALL, 4 * PANEL), shapes.shape(2, TALL, TALL, BLOCK), shapes.shape(4, GROUPS, GROUPS, 4 * PANEL);
    return shapes;
}

// Weights as tiles want them: signed.
struct Tiles : Avx512 {
    template <int BITS>
    static Bytes prepared(Bytes four) { return four; }
};
constexpr int WIDTH = Tiles::VECTORS * Tiles::OUTPUTS;  // of totals

// What some prepared blocks give 16 rows.
template <class Instructions, int BITS>
class Product {
public:
    // next: quants to fetch meanwhile, of the first panel, or null.
    Product(const Prepared<Tiles, BITS>* prepared, int64_t count, const Activations* x, int64_t blocks, const uint8_t* next)
        : prepared(prepared), count(count), x(x), blocks(blocks), next(next) {}

    // Adds to totals [16][WIDTH] those of V panels.
    template <int V>
    void add(float* totals) const {
        begin(0);
        add_panel<0, V>(totals);
        if constexpr (V > 1) add_panel<1, V>(totals);
    }

private:
    template <int C>
    FUSED void multiply(const __m512i& weights, const Activations& from) const {
        alignas(64) static constexpr int32_t START[PANEL] = {Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO,
                                                             Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO,
                                                             Tiles::ZERO, Tiles::ZERO, Tiles::ZERO, Tiles::ZERO};
        Instructions::template load<2 + C>(from.quants, blocks * static_cast<int64_t>(sizeof(Activations)));
        Instructions::template load<4 + C>(&weights, sizeof prepared->weights[0]);
        Instructions::template load<C>(START, 0);
        Instructions::template multiply<C, 2 + C, 4 + C>();
    }

    // Of a panel, what comes AHEAD of a block; behind the last one that is harmless.
    FUSED void fetch_next(int v, int64_t block) const {
        if (next != nullptr) fetch<Tiles, BITS, 1>(next + (v * blocks + block) * quant_bytes(BITS), blocks);
    }

    // The first two blocks of a panel.
    FUSED void begin(int v) const {
        multiply<0>(prepared[0].weights[0][v], x[0]);
        if (count > 1) multiply<1>(prepared[1].weights[0][v], x[1]);
    }

    // Of panel AT, which was begun; begins the next one of V.
    template <int AT, int V>
    __attribute__((noinline)) void add_panel(float* totals) const {
        __m512i sums[2][TALL];
        __m512 total[TALL];
#pragma GCC unroll 16
        for (int r = 0; r < TALL; r++) total[r] = Tiles::load_floats(totals + r * WIDTH + AT * Tiles::OUTPUTS);
        Rows<TALL> rows(x, blocks);
        int64_t block = 0;
        for (; block + 2 < count; block += 2) {
            fetch_next(AT, block);
            Instructions::template store<0>(sums[0], 4 * PANEL);
            multiply<0>(prepared[block + 2].weights[0][AT], (&rows[0])[2]);
            scale<AT>(prepared[block], rows, sums[0], total);
            rows.advance();
            fetch_next(AT, block + 1);
            Instructions::template store<1>(sums[1], 4 * PANEL);
            if (block + 3 < count) multiply<1>(prepared[block + 3].weights[0][AT], (&rows[0])[2]);
            scale<AT>(prepared[block + 1], rows, sums[1], total);
            rows.advance();
        }
        fetch_next(AT, block);
        fetch_next(AT, block + 1);
        Instructions::template store<0>(sums[0], 4 * PANEL);
        if (block + 1 < count) Instructions::template store<1>(sums[1], 4 * PANEL);
        if (AT + 1 < V) begin(AT + 1);
        scale<AT>(prepared[block], rows, sums[0], total);
        rows.advance();
        if (block + 1 < count) scale<AT>(prepared[block + 1], rows, sums[1], total);
#pragma GCC unroll 16
        for (int r = 0; r < TALL; r++) Tiles::store(totals + r * WIDTH + AT * Tiles::OUTPUTS, total[r]);
    }

    template <int AT>
    static FUSED void scale(const Prepared<Tiles, BITS>& by, const Rows<TALL>& rows, const __m512i (&sums)[TALL], __m512 (&total)[TALL]) {
#pragma GCC unroll 16
        for (int r = 0; r < TALL; r++) {
            total[r] = Tiles::multiply_add(Tiles::scaled(sums[r], by.scales[AT]), Tiles::all(rows[r].scale), total[r]);
            if constexpr (has_minimum(BITS)) total[r] = Tiles::multiply_add(Tiles::all(rows[r].sum), by.minimums[AT], total[r]);
        }
    }

    const Prepared<Tiles, BITS>* prepared;
    int64_t count;
    const Activations* x;
    int64_t blocks;
    const uint8_t* next;
};

// V panels of 16 to MOST_ROWS rows. Where the last tile is not full it begins earlier: some rows are computed twice, with the same results.
template <class Instructions, int BITS, bool IS_FINE, int V>
void multiply_panels_by_tiles(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t panel) {
    const int64_t blocks = blocks_of(layer), tiles = (rows + TALL - 1) / TALL, parts = (blocks + AT_ONCE - 1) / AT_ONCE;
    alignas(64) float totals[MOST_ROWS / TALL][TALL * WIDTH];
    std::memset(totals, 0, tiles * sizeof totals[0]);
    Prepared<Tiles, BITS> prepared[AT_ONCE];
    for (int64_t part = 0; part < parts; part++) {
        const int64_t block = blocks * part / parts, count = blocks * (part + 1) / parts - block;
        for (int64_t i = 0; i < count; i++) prepare<Tiles, BITS, IS_FINE>(layer, panel, V, block + i, prepared[i]);
        const int64_t ahead = block + AHEAD < blocks ? panel : panel + V - 1;  // behind the last block come the next V panels
        const uint8_t* next = layer.quants + (ahead * blocks + block + AHEAD) * quant_bytes(BITS);
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t from = std::min(tile * TALL, rows - TALL);
            if (part == parts - 1) {  // y is fetched while the last blocks are multiplied
                for (int r = 0; r < TALL; r++)
                    for (int p = 0; p < V; p++) __builtin_prefetch(y + (from + r) * y_stride + (panel + p) * PANEL, 1);
            }
            Product<Instructions, BITS>(prepared, count, x + from * blocks + block, blocks, tile == 0 ? next : nullptr).template add<V>(totals[tile]);
            if (part == parts - 1) {
                for (int r = 0; r < TALL; r++)
                    for (int p = 0; p < V; p++) store_row(layer, totals[tile] + r * WIDTH + p * PANEL, y + (from + r) * y_stride, panel + p);
            }
        }
    }
}

// As multiply_blocks of tiles.h, of at least 16 rows.
template <class Instructions, int BITS, bool IS_FINE>
void multiply_by_tiles(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    const int64_t blocks = blocks_of(layer), tiles = (rows + TALL - 1) / TALL;
    const int64_t most = std::clamp<int64_t>(CHUNK_BYTES / (blocks * sizeof(Activations)), LEAST_ROWS, MOST_ROWS) / TALL;
    const int64_t chunks = (tiles + most - 1) / most;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t from = tiles * chunk / chunks * TALL, to = std::min(tiles * (chunk + 1) / chunks * TALL, rows);
        const int64_t begin = std::min(from, to - TALL);
        for (int64_t panel = first; panel < last; panel += Tiles::VECTORS) {
            const auto multiply = last - panel > 1 ? multiply_panels_by_tiles<Instructions, BITS, IS_FINE, 2>
                                                   : multiply_panels_by_tiles<Instructions, BITS, IS_FINE, 1>;
            multiply(layer, x + begin * blocks, y + begin * y_stride, y_stride, to - begin, panel);
        }
    }
}

// As Kernels::multiply. `others` computes what tiles are not for: few rows, and blocks that have two scales.
template <class Instructions>
void multiply_or_leave(const Kernels& others, const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first,
                       int64_t last) {
    if (rows < TALL || rows < (rows + TALL - 1) / TALL * LEAST || layer.kind == Q6F)
        return others.multiply(layer, x, y, y_stride, rows, first, last);
    Instructions::configure(shapes_of_blocks());
    switch (layer.kind) {
        case Q8: multiply_by_tiles<Instructions, 8, false>(layer, x, y, y_stride, rows, first, last); break;
        case Q4: multiply_by_tiles<Instructions, 4, false>(layer, x, y, y_stride, rows, first, last); break;
        case Q5: multiply_by_tiles<Instructions, 5, false>(layer, x, y, y_stride, rows, first, last); break;
        case Q4F: multiply_by_tiles<Instructions, 4, true>(layer, x, y, y_stride, rows, first, last); break;
        case Q5F: multiply_by_tiles<Instructions, 5, true>(layer, x, y, y_stride, rows, first, last); break;
    }
    Instructions::release();
}

}  // namespace
