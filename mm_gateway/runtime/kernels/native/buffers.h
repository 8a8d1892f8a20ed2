// What stands between the products of a step, as parts of one workspace, one after the other.
#pragma once
#include <algorithm>

#include "decoder.h"
#include "operands.h"

namespace {

// The largest that any layer needs, for one row.
struct Widths {
    int64_t feed_forward = 0, experts = 0, chosen = 0, inner = 0;

    explicit Widths(const Decoder& decoder) {
        for (int64_t index = 0; index < decoder.layers; index++) {
            const DecoderLayer& layer = decoder.layer[index];
            feed_forward = std::max(feed_forward, layer.feed_forward);
            if (layer.mixture == nullptr) continue;
            experts = std::max(experts, layer.mixture->experts);
            chosen = std::max(chosen, layer.mixture->chosen);
            inner = std::max(inner, layer.mixture->inner);
        }
    }
};

struct Buffers {
    float *normed, *qkv, *attended, *wide, *narrow, *delta;
    char* prepared;  // see operands.h
    // Of mixtures: [rows][experts]; [rows][chosen] each; [rows * chosen] each; [experts + 1]; [rows * chosen][hidden] each.
    float *scores, *weights;
    int32_t *chosen, *places, *row_of, *expert_of, *starts;
    float *gathered, *given;
    float* end;

    Buffers(const Decoder& d, int64_t rows, float* at) {
        const Widths most(d);
        const int64_t query = d.heads * d.head_dim, key = d.kv_heads * d.head_dim, assigned = std::max<int64_t>(1, most.chosen);
        const int64_t inner = std::max(most.feed_forward, most.chosen * most.inner);
        const int64_t inputs = std::max({d.hidden, query, most.feed_forward, most.inner});
        const auto take = [&](int64_t width) { float* here = at; at += rows * width; return here; };
        const auto integers = [&](int64_t width) { return reinterpret_cast<int32_t*>(take(width)); };
        normed = take(d.hidden);
        qkv = take(query + 2 * key);
        attended = take(query);
        wide = take(2 * inner);
        narrow = take(inner);
        delta = take(d.hidden);
        prepared = reinterpret_cast<char*>(take(assigned * Operands::most_bytes(inputs) / static_cast<int64_t>(sizeof(float))));
        scores = take(most.experts);
        weights = take(most.chosen);
        chosen = integers(most.chosen), places = integers(most.chosen), row_of = integers(most.chosen), expert_of = integers(most.chosen);
        gathered = take(most.chosen * d.hidden), given = take(most.chosen * d.hidden);
        starts = reinterpret_cast<int32_t*>(at);
        at += most.experts + 1;
        end = at;
    }
};

}  // namespace
