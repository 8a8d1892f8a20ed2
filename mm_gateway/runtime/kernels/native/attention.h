// Attention over a cache, a block of keys at a time, with the softmax kept up to date from block to block: M. Milakov, N. Gimelshein, Online
// normalizer calculation for softmax, https://arxiv.org/abs/1805.02867; T. Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135.
// A block's keys and values are widened once for all queries, the keys across, and then are the weights of two small products, of queries with
// keys and of probabilities with values, in the tiles of dense.h; what no query of a tile sees is left out. Blocks begin at multiples of KEYS, so
// that a row is attended in the same order whatever rows are computed beside it. A block's values are fetched while its keys are read, and the
// next block's keys while its values are.
#pragma once
#include <type_traits>

#include "cells.h"
#include "dense.h"

namespace {

constexpr int64_t KEYS = 64;  // of one block

// Scores kept within the cap: Gemma Team, Gemma 2, https://arxiv.org/abs/2408.00118. tanh(x) = 1 - 2 / (1 + e^2x).
void soften(float* scores, int64_t count, float cap) {
    for (int64_t i = 0; i < count; i += WIDTH)
        store(scores + i, cap - all(2.0f * cap) / (all(1.0f) + exponential(load(scores + i) * (2.0f / cap))));
}

// What a query knows after the blocks so far. Its probabilities are relative to e^reference: any number near the largest score will do, so it
// stays until a score is so much larger, which is seldom, and only then what was added up is brought to the new one.
struct Softmax {
    static constexpr float SLACK = 8.0f;
    float reference = -INFINITY;
    Floats total{};

    // Turns a block's scores [from, to) into probabilities, the others of its KEYS into zeros, and brings `sums` [dim] to the reference.
    void update(float* scores, int64_t from, int64_t to, float* sums, int64_t dim) {
        const bool masked = from > 0 || to < KEYS;
        if (masked) mask(scores, from, to, -INFINITY);
        Floats most = all(-INFINITY);
        for (int64_t i = 0; i < KEYS; i += WIDTH) most = larger(most, load(scores + i));
        if (any_above(most, all(reference + SLACK))) {
            const float now = largest_of(most);
            const Floats shrink = exponential(all(reference - now));
            total *= shrink;
            for (int64_t at = 0; at < dim; at += WIDTH) store(sums + at, load(sums + at) * shrink);
            reference = now;
        }
        for (int64_t i = 0; i < KEYS; i += WIDTH) store(scores + i, exponential(load(scores + i) - reference));
        if (masked) mask(scores, from, to, 0.0f);
        for (int64_t i = 0; i < KEYS; i += WIDTH) total += load(scores + i);
    }

    // Puts a value in the place of scores outside of [from, to).
    static void mask(float* scores, int64_t from, int64_t to, float value) {
        Integers lane;
        for (int i = 0; i < WIDTH; i++) lane[i] = i;
        for (int64_t i = 0; i < KEYS; i += WIDTH) {
            const Integers at = lane + static_cast<int32_t>(i);
            store(scores + i, (at >= static_cast<int32_t>(from)) & (at < static_cast<int32_t>(to)) ? load(scores + i) : all(value));
        }
    }
};

// sums [rows][dim] += probabilities [rows][KEYS] * values [seen][dim], `stride` bytes apart; those `ahead` bytes on are fetched.
template <class Weight>
void add_values(const float* probabilities, const char* values, int64_t stride, int64_t ahead, int64_t seen, float* sums, int64_t rows, int64_t dim) {
    const Weight* weights = reinterpret_cast<const Weight*>(values);
    const int64_t size = sizeof(Weight);
    run_product<Weight>({probabilities, KEYS, weights, stride / size, PANEL, seen, sums, dim, nullptr, true, ahead / size}, rows, dim / PANEL);
}

template <Cells cells>
void attend_cells(const Attention& a) {
    alignas(64) float queries[MOST_QUERIES * MOST_HEAD_DIM], sums[MOST_QUERIES * MOST_HEAD_DIM], scores[TILE_ROWS * KEYS];
    alignas(64) float wide_keys[KEYS * MOST_HEAD_DIM], wide_values[KEYS * MOST_HEAD_DIM];
    Softmax softmax[MOST_QUERIES];
    int64_t positions[MOST_QUERIES];
    const int64_t dim = a.head_dim, count = a.rows * a.group, end = a.position + a.rows;
    for (int64_t row = 0; row < a.rows; row++) {
        for (int64_t i = 0; i < a.group * dim; i++) queries[row * a.group * dim + i] = a.queries[row * a.query_stride + i] * a.scale;
        std::fill_n(positions + row * a.group, a.group, a.position + row);
    }
    std::memset(sums, 0, count * dim * sizeof(float));
    using Stored = std::conditional_t<cells == CELLS_FP32, float, uint16_t>;
    const bool in_place = cells == CELLS_FP32 || (cells == CELLS_FP16 && count <= TILE_ROWS);  // values that are read once need no copy
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, a.position - a.window + 1) / KEYS * KEYS : 0;
    for (int64_t first = begin; first < end; first += KEYS) {
        const int64_t here = std::min(KEYS, end - first);
        const char *keys = a.keys + first * a.kv_stride, *values = a.values + first * a.kv_stride;
        widen_across<cells>({keys, a.kv_stride, dim, values - keys}, here, wide_keys);
        const char* next = first + KEYS < end ? keys + KEYS * a.kv_stride : values;
        if (!in_place) widen<cells>({values, a.kv_stride, dim, next - values}, here, wide_values);
        const int64_t live = std::max<int64_t>(0, first - a.position) * a.group;  // queries before it see nothing of this block
        const int64_t tiles = (count - live + TILE_ROWS - 1) / TILE_ROWS;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t query = live + (count - live) * tile / tiles, rows = live + (count - live) * (tile + 1) / tiles - query;
            const auto own = [&](int64_t row) { return positions[query + row] - first; };
            const int64_t seen = std::min(here, own(rows - 1) + 1), panels = (seen + PANEL - 1) / PANEL;
            run_product<float>({queries + query * dim, dim, wide_keys, PANEL, dim * PANEL, dim, scores, KEYS, nullptr, false, 0}, rows, panels);
            for (int64_t row = 0; row < rows; row++) {
                float* of_row = scores + row * KEYS;
                const int64_t from = a.window > 0 ? std::max<int64_t>(0, own(row) - a.window + 1) : 0, to = std::min(seen, own(row) + 1);
                if (a.cap > 0.0f) soften(of_row, panels * PANEL, a.cap);
                if (from < to) softmax[query + row].update(of_row, from, to, sums + (query + row) * dim, dim);
                else std::memset(of_row, 0, KEYS * sizeof(float));
            }
            float* to = sums + query * dim;
            if (in_place) add_values<Stored>(scores, values, a.kv_stride, tile == 0 ? next - values : 0, seen, to, rows, dim);
            else add_values<float>(scores, reinterpret_cast<const char*>(wide_values), dim * sizeof(float), 0, seen, to, rows, dim);
        }
    }
    // What is no number counts in a tile even with a probability of 0: rows before it, or out of whose window it is, are computed by themselves.
    for (int64_t row = 0; row < a.rows; row++) {
        float* out = a.out + row * a.out_stride;
        Floats none{};
        for (int64_t query = row * a.group; query < (row + 1) * a.group; query++) {
            const float inverse = 1.0f / sum_of(softmax[query].total);
            for (int64_t at = 0; at < dim; at += WIDTH, out += WIDTH) {
                const Floats value = load(sums + query * dim + at) * inverse;
                none += value * 0.0f;
                store(out, value);
            }
        }
        if (a.rows > 1 && std::isnan(sum_of(none)))
            attend_cells<cells>({1, a.group, dim, a.queries + row * a.query_stride, a.query_stride, a.keys, a.values, a.kv_stride, a.cells, a.position + row,
                                 a.window, a.scale, a.cap, a.out + row * a.out_stride, a.out_stride});
    }
}

void attend(const Attention& a) {
    switch (a.cells) {
        case CELLS_FP32: return attend_cells<CELLS_FP32>(a);
        case CELLS_FP16: return attend_cells<CELLS_FP16>(a);
        case CELLS_INT8: return attend_cells<CELLS_INT8>(a);
    }
}

}  // namespace
