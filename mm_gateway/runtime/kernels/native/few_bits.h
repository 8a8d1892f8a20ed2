// Tiles that are written once over the registers of an instruction set. A Set names its types and the few operations below:
//
//   Floats     OUTPUTS fp32, one for each output of a part of a panel
//   Bytes      4 bytes for each of them; low, high: their halves; bits: from a bit on, moved to bit 4 and masked
//   Weights    what `prepared` makes of unsigned bytes, and Four, what `broadcast` makes of four activations, for add_products
//   Sums       of such products, exact; in a narrower form, good for NARROW groups, until they are `widened`
//   ROWS_…     rows of a tile
#pragma once
#include "tiles.h"

namespace {

// How many groups stay within 16 bits, where an instruction set adds products in such: two of 31 * 127, or of 63 * 127, a group.
template <int BITS>
constexpr int NARROW = BITS == 6 ? 2 : 4;

template <int BITS>
constexpr int MORE_BYTES = (BITS - 4) * 4 * PANEL;  // of a block

// Weights of a group; the second four groups of a block are in the high halves.
template <class Set, int BITS, bool SECOND>
inline typename Set::Weights weights_of(const uint8_t* quants, const uint8_t* more, int group, int part) {
    const int first = 4 * Set::OUTPUTS * part;
    typename Set::Bytes four = Set::load(quants + 4 * PANEL * group + first);
    four = SECOND ? Set::high(four) : Set::low(four);
    if (BITS == 5) four = Set::either(four, Set::bits(Set::load(more + first), SECOND ? group + 4 : group, 0x10));
    if (BITS == 6) four = Set::either(four, Set::bits(Set::load(more + (SECOND ? 4 * PANEL : 0) + first), 2 * group, 0x30));
    return Set::prepared(four);
}

// Sums of products of half a block are added to dot [rows][parts].
template <class Set, int BITS, bool SECOND, int R, int PARTS>
inline void add_half(typename Set::Sums (&dot)[R][PARTS], const uint8_t* quants, const uint8_t* more, const int8_t* (&x)[R]) {
    constexpr int STEP = NARROW<BITS>;
#pragma GCC unroll 1
    for (int start = 0; start < GROUPS / 2; start += STEP) {
        typename Set::Sums narrow[R][PARTS];
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) narrow[r][part] = Set::sums(0);
#pragma GCC unroll 1
        for (int group = start; group < start + STEP; group++) {
            typename Set::Weights weights[PARTS];
            for (int part = 0; part < PARTS; part++) weights[part] = weights_of<Set, BITS, SECOND>(quants, more, group, part);
            for (int r = 0; r < R; r++) {
                const typename Set::Four four = Set::broadcast(x[r] + 4 * group + (SECOND ? BLOCK / 2 : 0));
                for (int part = 0; part < PARTS; part++) narrow[r][part] = Set::add_products(narrow[r][part], weights[part], four);
            }
        }
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) dot[r][part] = Set::add(dot[r][part], Set::widened(narrow[r][part]));
    }
}

template <class Set, int BITS, bool IS_FINE>
struct FewBits {
    static constexpr int ROWS = BITS == 4 ? Set::ROWS_OF_4 : Set::ROWS_OF_MORE;
    static constexpr int PARTS = PANEL / Set::OUTPUTS;
    using Floats = typename Set::Floats;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer), shared = IS_FINE ? blocks / FINE : blocks;
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL / 2);
        const uint8_t* more = layer.more + panel * blocks * MORE_BYTES<BITS>;
        const uint16_t* scales = layer.scales + panel * shared * PANEL;
        const uint16_t* minimums = layer.minimums + panel * shared * PANEL;
        const uint8_t* fine_scales = layer.fine_scales + panel * blocks * PANEL;
        const uint8_t* fine_minimums = layer.fine_minimums + panel * blocks * PANEL;
        Floats total[R][PARTS];
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) total[r][part] = Set::zeros();
        for (int64_t block = 0; block < blocks; block++, quants += BLOCK * PANEL / 2, more += MORE_BYTES<BITS>) {
            typename Set::Sums dot[R][PARTS];
            const int8_t* activations[R];
            for (int r = 0; r < R; r++) {
                activations[r] = x[r * blocks + block].quants;
                for (int part = 0; part < PARTS; part++) dot[r][part] = Set::sums(0);
            }
            add_half<Set, BITS, false>(dot, quants, more, activations);
            add_half<Set, BITS, true>(dot, quants, more, activations);
            const int64_t at = (IS_FINE ? block / FINE : block) * PANEL;
            for (int part = 0; part < PARTS; part++) {
                const int first = part * Set::OUTPUTS;
                Floats scale = Set::load_fp16(scales + at + first), minimum = Set::load_fp16(minimums + at + first);
                if (IS_FINE) {
                    scale = Set::times(scale, Set::to_floats(Set::load_unsigned(fine_scales + block * PANEL + first)));
                    minimum = Set::times(minimum, Set::to_floats(Set::load_unsigned(fine_minimums + block * PANEL + first)));
                }
                for (int r = 0; r < R; r++) {
                    const Activations& from = x[r * blocks + block];
                    const Floats scaled = Set::times(Set::to_floats(dot[r][part]), scale);
                    total[r][part] = Set::multiply_add(scaled, Set::all(from.scale), total[r][part]);
                    total[r][part] = Set::multiply_add(Set::all(from.sum), minimum, total[r][part]);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) Set::store(values[r] + part * Set::OUTPUTS, total[r][part]);
    }
};

// The two halves of a block have scales of their own, integers: what they give stays exact, below 2 * 128 * 16 * 32 * 127 < 2^24.
template <class Set>
struct SixBits {
    static constexpr int ROWS = Set::ROWS_OF_6;
    static constexpr int PARTS = PANEL / Set::OUTPUTS;
    using Floats = typename Set::Floats;
    using Sums = typename Set::Sums;

    template <int R>
    static void run(const Layer& layer, const Activations* x, int64_t panel, float (&values)[R][PANEL]) {
        const int64_t blocks = blocks_of(layer);
        const uint8_t* quants = layer.quants + panel * blocks * (BLOCK * PANEL / 2);
        const uint8_t* more = layer.more + panel * blocks * MORE_BYTES<6>;
        const uint16_t* scales = layer.scales + panel * (blocks / FINE) * PANEL;
        const uint8_t* fine_scales = layer.fine_scales + panel * blocks * 2 * PANEL;
        Floats total[R][PARTS];
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) total[r][part] = Set::zeros();
        for (int64_t block = 0; block < blocks; block++, quants += BLOCK * PANEL / 2, more += MORE_BYTES<6>, fine_scales += 2 * PANEL) {
            const int8_t* activations[R];
            Sums first[R][PARTS], second[R][PARTS];
            for (int r = 0; r < R; r++) {
                const Activations& from = x[r * blocks + block];
                activations[r] = from.quants;
                for (int part = 0; part < PARTS; part++) {
                    first[r][part] = Set::sums(-32 * from.first);
                    second[r][part] = Set::sums(from.offset / 4 + 32 * from.first);
                }
            }
            add_half<Set, 6, false>(first, quants, more, activations);
            add_half<Set, 6, true>(second, quants, more, activations);
            const uint16_t* shared = scales + block / FINE * PANEL;
            for (int part = 0; part < PARTS; part++) {
                const int at = part * Set::OUTPUTS;
                const Floats scale = Set::load_fp16(shared + at);
                const Sums of_first = Set::load_signed(fine_scales + at), of_second = Set::load_signed(fine_scales + PANEL + at);
                for (int r = 0; r < R; r++) {
                    const Sums both = Set::add(Set::times(first[r][part], of_first), Set::times(second[r][part], of_second));
                    const Floats scaled = Set::times(Set::to_floats(both), scale);
                    total[r][part] = Set::multiply_add(scaled, Set::all(x[r * blocks + block].scale), total[r][part]);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int part = 0; part < PARTS; part++) Set::store(values[r] + part * Set::OUTPUTS, total[r][part]);
    }
};

}  // namespace
