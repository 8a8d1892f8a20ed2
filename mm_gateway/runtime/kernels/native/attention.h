// Attention over a cache, a block of keys at a time, with the softmax kept up to date from block to block: M. Milakov, N. Gimelshein, Online
// normalizer calculation for softmax, https://arxiv.org/abs/1805.02867; T. Dao et al., FlashAttention, https://arxiv.org/abs/2205.14135.
// A block is two small products, queries with keys and probabilities with values, in the tiles of dense.h.
#pragma once
#include "dense.h"

namespace {

constexpr int64_t KEYS = 64;  // of one block
// Queries that are worth turning a block of keys on its side for.
constexpr int64_t MANY_QUERIES = 8;

// scores [query][KEYS] of few queries: products along the dimension, of WIDTH keys at once.
void score_few(const float* queries, int64_t count, const float* keys, int64_t stride, int64_t keys_here, int64_t dim, float* scores) {
    for (int64_t key = 0; key < keys_here; key += WIDTH) {
        const float* rows[WIDTH];
        for (int64_t i = 0; i < WIDTH; i++) rows[i] = keys + std::min(key + i, keys_here - 1) * stride;
        for (int64_t query = 0; query < count; query++) {
            Floats sums[WIDTH] = {};
            for (int64_t at = 0; at < dim; at += WIDTH) {
                const Floats q = load(queries + query * dim + at);
#pragma GCC unroll 16
                for (int i = 0; i < WIDTH; i++) sums[i] = multiply_add(load(rows[i] + at), q, sums[i]);
            }
            store(scores + query * KEYS + key, sums_of(sums));
        }
    }
}

// The same of many: the block of keys becomes [dim][KEYS], panels as weights are.
void score_many(const float* queries, int64_t count, const float* keys, int64_t stride, int64_t keys_here, int64_t dim, float* scores) {
    alignas(64) float turned[MOST_HEAD_DIM * KEYS];
    const int64_t panels = (keys_here + PANEL - 1) / PANEL;
    for (int64_t key = 0; key < panels * PANEL; key++)
        for (int64_t at = 0; at < dim; at++) turned[at * KEYS + key] = key < keys_here ? keys[key * stride + at] : 0.0f;
    run_product<float>({queries, dim, turned, KEYS, PANEL, dim, scores, KEYS, nullptr, false}, count, panels);
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
    Softmax softmax[MOST_QUERIES];
    const int64_t dim = a.head_dim, count = a.rows * a.group, end = a.position + a.rows;
    for (int64_t row = 0; row < a.rows; row++)
        for (int64_t i = 0; i < a.group * dim; i++) queries[row * a.group * dim + i] = a.queries[row * a.query_stride + i] * a.scale;
    std::memset(sums, 0, count * dim * sizeof(float));
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, a.position - a.window + 1) : 0;
    for (int64_t first = begin; first < end; first += KEYS) {
        const int64_t here = std::min(KEYS, end - first);
        const float *keys = a.keys + first * a.kv_stride, *values = a.values + first * a.kv_stride;
        (count < MANY_QUERIES ? score_few : score_many)(queries, count, keys, a.kv_stride, here, dim, scores);
        for (int64_t query = 0; query < count; query++) {
            const int64_t own = a.position + query / a.group - first;
            const int64_t from = a.window > 0 ? std::max<int64_t>(0, own - a.window + 1) : 0, to = std::min(here, own + 1);
            if (from < to) softmax[query].update(scores + query * KEYS, from, to, sums + query * dim, dim);
            else std::memset(scores + query * KEYS, 0, KEYS * sizeof(float));
        }
        run_product<float>({scores, KEYS, values, a.kv_stride, PANEL, here, sums, dim, nullptr, true}, count, dim / PANEL);
    }
    for (int64_t query = 0; query < count; query++) {
        float* out = a.out + query / a.group * a.out_stride + query % a.group * dim;
        const float inverse = 1.0f / softmax[query].total;
        for (int64_t at = 0; at < dim; at += WIDTH) store(out + at, load(sums + query * dim + at) * inverse);
    }
}

}  // namespace
