// Products of prepared weights with quantized activations, for all instruction sets. Everything here has internal linkage: each file that
// includes it is compiled for another instruction set, and the linker must not take one's copy for another's.
//
// A tile is some rows by the outputs of VECTORS registers: its sums fill the registers while it passes over a block, and its totals stay in
// memory, the nearest there is. Where there are several tiles of rows, some blocks are prepared for all of them before they are multiplied
// (packing, as in K. Goto, R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, https://doi.org/10.1145/1356052.1356053).
// Blocks are added in their order whatever the tile, so a row's result does not depend on the rows beside it.
#pragma once
#include <algorithm>
#include <cstring>

#include "prepared.h"

namespace {

// Blocks that are prepared at once for many rows: they and a tile's activations stay in the nearest cache.
constexpr int64_t AT_ONCE = 8;
// The most rows that use a block as they prepare it: most of its time goes by with waiting for memory.
template <class Set, int BITS>
constexpr int FEW_ROWS = std::min(6, Set::template ROWS<BITS>);
// Blocks by which quants are fetched ahead. A tile that waits for memory computes nothing, and the processor's own prefetching ends with each page.
constexpr int64_t AHEAD = 8;

// R rows of activations by a few pointers, from each of which a processor addresses three rows: with a pointer for each row, the compiler
// would run out of registers.
template <int R>
class Rows {
public:
    Rows(const Activations* x, int64_t blocks) : stride(blocks * static_cast<int64_t>(sizeof(Activations))) {
#pragma GCC unroll 6
        for (int i = 0; i < (R + 2) / 3; i++) {
            base[i] = reinterpret_cast<const char*>(x) + 3 * i * stride;
            asm("" : "+r"(base[i]));
        }
    }
    // To the next block.
    FUSED void advance() {
#pragma GCC unroll 6
        for (const char*& from : base) from += sizeof(Activations);
    }
    const Activations& operator[](int r) const { return *reinterpret_cast<const Activations*>(base[r / 3] + r % 3 * stride); }

private:
    const char* base[(R + 2) / 3];
    int64_t stride;
};

// Adds to sums [R][V] the products of groups `FROM` to `TO` of a block.
template <class Set, int BITS, int FROM, int TO, int R, int V>
FUSED void add_groups(typename Set::Sums (&sums)[R][V], const Prepared<Set, BITS>& block, const Rows<R>& x) {
    constexpr int STEP = std::min(TO - FROM, Set::template NARROW<BITS>);
    for (int start = FROM; start < TO; start += STEP) {
        typename Set::template Running<BITS> running[R][V];
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) running[r][v] = Set::template begun<BITS>(sums[r][v]);
#pragma GCC unroll 8
        for (int group = start; group < start + STEP; group++) {
            typename Set::template Weights<BITS> weights[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) weights[v] = block.weights[group][v];
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const typename Set::Four four = Set::broadcast(x[r].quants + 4 * group);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) running[r][v] = Set::template add_products<BITS>(running[r][v], weights[v], four);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] = Set::template ended<BITS>(running[r][v], sums[r][v]);
    }
}

// What a block's products are, in units of the activations' scales: scaled [R][V].
template <class Set, int BITS, int R, int V>
FUSED void multiply_block(const Prepared<Set, BITS>& block, const Rows<R>& x, typename Set::Floats (&scaled)[R][V]) {
    typename Set::Sums sums[R][V];
    const auto start = [&](int half) {
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = Set::sums(has_minimum(BITS) ? Set::ZERO : x[r].starts[half]);
    };
    start(0);
    if constexpr (BITS != 6) {
        add_groups<Set, BITS, 0, GROUPS>(sums, block, x);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) scaled[r][v] = Set::scaled(sums[r][v], block.scales[v]);
    } else {
        // The halves have scales of their own, integers: what they give stays exact, below 2 * 128 * 16 * 32 * 127 < 2^24.
        add_groups<Set, BITS, 0, GROUPS / 2>(sums, block, x);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) scaled[r][v] = Set::scaled(sums[r][v], block.fine[0][v]);
        start(1);
        add_groups<Set, BITS, GROUPS / 2, GROUPS>(sums, block, x);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) {
                const auto both = Set::multiply_add(Set::to_floats(sums[r][v]), Set::value(block.fine[1][v]), scaled[r][v]);
                scaled[r][v] = Set::times(both, Set::value(block.scales[v]));
            }
    }
}

// totals [R][VECTORS * OUTPUTS], of which the first V * OUTPUTS count, += what a block gives.
template <class Set, int BITS, int R, int V>
FUSED void add_block(const Prepared<Set, BITS>& block, const Rows<R>& x, float* totals) {
    typename Set::Floats scaled[R][V];
    multiply_block<Set, BITS>(block, x, scaled);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            float* total = totals + (r * Set::VECTORS + v) * Set::OUTPUTS;
            auto sum = Set::multiply_add(scaled[r][v], Set::all(x[r].scale), Set::load_floats(total));
            if constexpr (has_minimum(BITS)) sum = Set::multiply_add(Set::all(x[r].sum), block.minimums[v], sum);
            Set::store(total, sum);
        }
}

// Brings quants of a block, in V registers' outputs, into the nearest cache. Addresses behind the last are harmless.
template <class Set, int BITS, int V>
FUSED void fetch(const uint8_t* quants, int64_t blocks) {
    for (int p = 0; p < V * Set::OUTPUTS / PANEL; p++)
        for (int at = 0; at < quant_bytes(BITS); at += 64) __builtin_prefetch(quants + p * blocks * quant_bytes(BITS) + at);
}

// For many rows: what `count` prepared blocks give a tile; `next` are quants to fetch meanwhile, or null. Between blocks the compiler is not to
// know what memory holds: it would keep totals in registers that sums want.
template <class Set, int BITS, int R, int V>
void add_blocks(const Prepared<Set, BITS>* prepared, int64_t count, const Activations* x, int64_t blocks, float* totals, const uint8_t* next) {
    for (int64_t block = 0; block < count; block++) {
        asm volatile("" ::: "memory");
        if (next != nullptr) fetch<Set, BITS, V>(next + block * quant_bytes(BITS), blocks);
        add_block<Set, BITS, R, V>(prepared[block], Rows<R>(x + block, blocks), totals);
    }
}

// For few rows: what all blocks give them.
template <class Set, int BITS, bool IS_FINE, int R, int V>
void add_all(const Layer& layer, int64_t panel, const Activations* x, float* totals) {
    const int64_t blocks = blocks_of(layer);
    const uint8_t* next = layer.quants + (panel * blocks + AHEAD) * quant_bytes(BITS);
    for (int64_t block = 0; block < blocks; block++) {
        asm volatile("" ::: "memory");
        Prepared<Set, BITS> prepared;
        fetch<Set, BITS, V>(next + block * quant_bytes(BITS), blocks);
        prepare<Set, BITS, IS_FINE>(layer, panel, V, block, prepared);
        add_block<Set, BITS, R, V>(prepared, Rows<R>(x + block, blocks), totals);
    }
}

// The functions above for so many rows, at most R.
template <class Set, int BITS, int V, int R = Set::template ROWS<BITS>>
auto adding_blocks(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return adding_blocks<Set, BITS, V, R - 1>(rows);
    return add_blocks<Set, BITS, R, V>;
}

template <class Set, int BITS, bool IS_FINE, int V, int R = FEW_ROWS<Set, BITS>>
auto adding_all(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return adding_all<Set, BITS, IS_FINE, V, R - 1>(rows);
    return add_all<Set, BITS, IS_FINE, R, V>;
}

}  // namespace
