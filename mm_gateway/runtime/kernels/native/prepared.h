// Weights of a block, made ready once for all rows that they are multiplied with: unsigned bytes, and scales of fp32.
//
// Everything here and in products.h is written once over the registers of an instruction set. A Set names its types and a few operations:
//
//   OUTPUTS, VECTORS   outputs of a register, and registers of a tile's outputs: a tile is a panel or more, or VECTORS * OUTPUTS / PANEL
//   ROWS<bits>         the most rows of a tile: as many as its sums fill the registers
//   Few                a Set that is better for few rows, or itself
//   Floats             OUTPUTS fp32
//   Bytes              4 bytes for each output; low, high: their halves; bits: from a bit on, moved to bit 4 and masked
//   Weights<bits>      what `prepared` makes of bytes: of 4 to 6 bits unsigned as they are, of 8 bits int8
//   Sums               of a block's products, int32 or as exact; ZERO is what counts as zero in them, and SHIFT what `prepared` adds to int8
//   Running<bits>      such sums while products are added, in a form that is good for NARROW<bits> groups of inputs: begun, add_products, ended
//   Scales             what `scaled` multiplies Sums by
#pragma once
#include "block_linear.h"

namespace {

// Of few rows a block stays in registers from its bytes to its products, which calls would prevent.
#define FUSED inline __attribute__((always_inline))

constexpr bool has_minimum(int bits) { return bits == 4 || bits == 5; }
constexpr int64_t more_bytes(int bits) { return bits < 8 ? (bits - 4) * 4 * PANEL : 0; }  // of a block
constexpr int64_t quant_bytes(int bits) { return bits == 8 ? BLOCK * PANEL : BLOCK * PANEL / 2; }

template <class Set, int BITS>
struct Prepared {
    typename Set::template Weights<BITS> weights[GROUPS][Set::VECTORS];
    typename Set::Scales scales[Set::VECTORS];
    typename Set::Floats minimums[Set::VECTORS];
    typename Set::Scales fine[BITS == 6 ? 2 : 0][Set::VECTORS];  // integers, of the halves of the block
};

// Weights of a group, for the outputs from `first` of a panel on; the second four groups of a block are in the high halves of the bytes.
template <class Set, int BITS>
FUSED typename Set::Bytes bytes_of(const uint8_t* quants, const uint8_t* more, int group, int first) {
    if constexpr (BITS == 8) return Set::load(quants + 4 * (PANEL * group + first));
    const bool second = group >= GROUPS / 2;
    typename Set::Bytes four = Set::load(quants + 4 * (PANEL * (group % (GROUPS / 2)) + first));
    four = second ? Set::high(four) : Set::low(four);
    if (BITS == 5) four = Set::either(four, Set::bits(Set::load(more + 4 * first), group, 0x10));
    if (BITS == 6) four = Set::either(four, Set::bits(Set::load(more + 4 * (second ? PANEL : 0) + 4 * first), 2 * (group % (GROUPS / 2)), 0x30));
    return four;
}

// One block of the first `vectors` registers of a tile that begins with `panel`.
template <class Set, int BITS, bool IS_FINE>
FUSED void prepare(const Layer& layer, int64_t panel, int vectors, int64_t block, Prepared<Set, BITS>& to) {
    const int64_t blocks = blocks_of(layer), shared = IS_FINE ? blocks / FINE : blocks;
    constexpr int EACH = PANEL / Set::OUTPUTS;  // registers of a panel
    for (int v = 0; v < vectors; v++) {
        const int64_t at = (panel + v / EACH) * blocks + block, scale_at = (panel + v / EACH) * shared + (IS_FINE ? block / FINE : block);
        const int first = v % EACH * Set::OUTPUTS;
        const uint8_t *quants = layer.quants + at * quant_bytes(BITS), *more = layer.more + at * more_bytes(BITS);
#pragma GCC unroll 8
        for (int group = 0; group < GROUPS; group++)
            to.weights[group][v] = Set::template prepared<BITS>(bytes_of<Set, BITS>(quants, more, group, first));
        typename Set::Floats scale = Set::load_fp16(layer.scales + scale_at * PANEL + first);
        if constexpr (has_minimum(BITS)) {
            to.minimums[v] = Set::load_fp16(layer.minimums + scale_at * PANEL + first);
            if (IS_FINE) {
                scale = Set::times(scale, Set::load_unsigned(layer.fine_scales + at * PANEL + first));
                to.minimums[v] = Set::times(to.minimums[v], Set::load_unsigned(layer.fine_minimums + at * PANEL + first));
            }
        }
        if constexpr (BITS == 6) {
            for (int half = 0; half < 2; half++)
                to.fine[half][v] = Set::scales(Set::load_signed(layer.fine_scales + (2 * at + half) * PANEL + first));
        }
        to.scales[v] = Set::scales(scale);
    }
}

}  // namespace
