// Attention over a cache, a block of keys at a time, with the softmax kept up to date from block to block: M. Milakov, N. Gimelshein, Online
// normalizer calculation for softmax, https://arxiv.org/abs/1805.02867; T. Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135.
// A block is two small products, queries with keys and probabilities with values, the latter in the tiles of dense.h. Blocks begin at multiples
// of KEYS, so that a row is attended in the same order whatever rows are computed beside it. Narrower cells are widened a block at a time.
// A block's values are fetched while its keys are read, and the next block's keys while its values are (`ahead`, as in dense.h).
#pragma once
#include "cells.h"
#include "dense.h"

namespace {

constexpr int64_t KEYS = 64;  // of one block

// Scores of Q queries and WIDTH / Q keys, a register of partial sums each: what a score is does not depend on how many queries there are.
template <int Q>
void score_tile(const float* queries, int64_t dim, const float* const* keys, int64_t ahead, float* scores) {
    constexpr int K = WIDTH / Q;
    Floats sums[WIDTH] = {};
    for (int64_t at = 0; at < dim; at += WIDTH) {
        Floats query[Q];
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) query[q] = load(queries + q * dim + at);
#pragma GCC unroll 16
        for (int k = 0; k < K; k++) {
            __builtin_prefetch(keys[k] + at + ahead, 0, 2);
            const Floats key = load(keys[k] + at);
#pragma GCC unroll 4
            for (int q = 0; q < Q; q++) sums[q * K + k] = multiply_add(key, query[q], sums[q * K + k]);
        }
    }
    float found[WIDTH];
    store(found, sums_of(sums));
    for (int q = 0; q < Q; q++) std::memcpy(scores + q * KEYS, found + q * K, K * sizeof(float));
}

template <int Q>
void score_rows(const float* queries, int64_t dim, const float* const* keys, int64_t ahead, int64_t count, float* scores) {
    for (int64_t key = 0; key < count; key += WIDTH / Q) score_tile<Q>(queries, dim, keys + key, ahead, scores + key);
}

// scores [query][KEYS] of a block's `here` keys.
void score(const float* queries, int64_t count, const float* keys, int64_t stride, int64_t ahead, int64_t here, int64_t dim, float* scores) {
    constexpr int Q = WIDTH / 4;  // four keys at once
    const float* rows[KEYS];
    for (int64_t i = 0; i < KEYS; i++) rows[i] = keys + std::min(i, here - 1) * stride;
    int64_t query = 0;
    for (; query + Q <= count; query += Q) score_rows<Q>(queries + query * dim, dim, rows, ahead, here, scores + query * KEYS);
    for (; query < count; query++) score_rows<1>(queries + query * dim, dim, rows, ahead, here, scores + query * KEYS);
}

// Scores kept within the cap: Gemma Team, Gemma 2, https://arxiv.org/abs/2408.00118. tanh(x) = 1 - 2 / (1 + e^2x).
void soften(float* scores, float cap) {
    for (int64_t i = 0; i < KEYS; i += WIDTH)
        store(scores + i, cap - all(2.0f * cap) / (all(1.0f) + exponential(load(scores + i) * (2.0f / cap))));
}

// What a query knows after the blocks so far: its largest score, and sums relative to that.
struct Softmax {
    float largest = -INFINITY, total = 0.0f;

    // Turns scores [from, to) of the block into probabilities, the others into zeros, and brings `sums` [dim] to the new largest score.
    void update(float* scores, int64_t from, int64_t to, float* sums, int64_t dim) {
        for (int64_t i = 0; i < from; i++) scores[i] = -INFINITY;
        for (int64_t i = to; i < KEYS; i++) scores[i] = -INFINITY;
        Floats most = all(-INFINITY);
        for (int64_t i = 0; i < KEYS; i += WIDTH) most = larger(most, load(scores + i));
        const float now = std::fmax(largest, largest_of(most));
        const float shrink = std::exp(largest - now);
        Floats added{};
        for (int64_t i = 0; i < KEYS; i += WIDTH) {
            const Floats probability = exponential(load(scores + i) - now);
            store(scores + i, probability);
        }
        for (int64_t i = 0; i < from; i++) scores[i] = 0.0f;
        for (int64_t i = to; i < KEYS; i++) scores[i] = 0.0f;
        for (int64_t i = 0; i < KEYS; i += WIDTH) added += load(scores + i);
        total = total * shrink + sum_of(added);
        if (shrink != 1.0f)
            for (int64_t at = 0; at < dim; at += WIDTH) store(sums + at, load(sums + at) * shrink);
        largest = now;
    }
};

void attend(const Attention& a) {
    alignas(64) float queries[MOST_QUERIES * MOST_HEAD_DIM], sums[MOST_QUERIES * MOST_HEAD_DIM], scores[MOST_QUERIES * KEYS];
    alignas(64) float wide_keys[KEYS * MOST_HEAD_DIM], wide_values[KEYS * MOST_HEAD_DIM];
    Softmax softmax[MOST_QUERIES];
    const int64_t dim = a.head_dim, count = a.rows * a.group, end = a.position + a.rows;
    for (int64_t row = 0; row < a.rows; row++)
        for (int64_t i = 0; i < a.group * dim; i++) queries[row * a.group * dim + i] = a.queries[row * a.query_stride + i] * a.scale;
    std::memset(sums, 0, count * dim * sizeof(float));
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, a.position - a.window + 1) / KEYS * KEYS : 0;
    for (int64_t first = begin; first < end; first += KEYS) {
        const int64_t here = std::min(KEYS, end - first);
        const char *key_cells = a.keys + first * a.kv_stride, *value_cells = a.values + first * a.kv_stride;
        const char* next = first + KEYS < end ? key_cells + KEYS * a.kv_stride : value_cells;
        const float *keys = wide_keys, *values = wide_values;
        int64_t stride = dim, to_values = 0, to_keys = 0;
        if (a.cells == CELLS_FP32) {
            keys = reinterpret_cast<const float*>(key_cells), values = reinterpret_cast<const float*>(value_cells);
            stride = a.kv_stride / sizeof(float), to_values = values - keys, to_keys = reinterpret_cast<const float*>(next) - values;
        } else {
            widen(key_cells, a.kv_stride, here, dim, a.cells, value_cells - key_cells, wide_keys);
            widen(value_cells, a.kv_stride, here, dim, a.cells, next - value_cells, wide_values);
        }
        score(queries, count, keys, stride, to_values, here, dim, scores);
        for (int64_t query = 0; query < count; query++) {
            const int64_t own = a.position + query / a.group - first;
            const int64_t from = a.window > 0 ? std::max<int64_t>(0, own - a.window + 1) : 0, to = std::min(here, own + 1);
            if (a.cap > 0.0f) soften(scores + query * KEYS, a.cap);
            if (from < to) softmax[query].update(scores + query * KEYS, from, to, sums + query * dim, dim);
            else std::memset(scores + query * KEYS, 0, KEYS * sizeof(float));
        }
        run_product<float>({scores, KEYS, values, stride, PANEL, here, sums, dim, nullptr, true, to_keys}, count, dim / PANEL);
    }
    for (int64_t query = 0; query < count; query++) {
        float* out = a.out + query / a.group * a.out_stride + query % a.group * dim;
        const float inverse = 1.0f / softmax[query].total;
        for (int64_t at = 0; at < dim; at += WIDTH) store(out + at, load(sums + query * dim + at) * inverse);
    }
}

}  // namespace
