// The layers of a Llama-shaped decoder, computed by one call a step. Mirrored by decoder.py; the memory belongs to the caller.
//
// A layer: x += output(attention(rotated q, k, v of norm(x))); x += down(activation(gate(norm(x))) * up(norm(x))). What a family adds is
// optional: biases, norms of queries and keys (Qwen3), norms after attention and feed-forward (Gemma), windows, mixtures of experts.
#pragma once
#include "float_kernels.h"

// Layers that read the same input; their outputs stand one after the other. More than one where they are stored in different kinds.
struct Projection {
    int64_t count;
    const Layer* layers[3];
};

// Feed-forwards of which each row takes a few. All experts have layers of the same shape.
struct Mixture {
    int64_t experts, chosen, inner;  // inner: width of an expert's feed-forward
    int64_t normalized;              // whether the weights of a row's experts add up to one
    const Layer* router;             // fp32, an output for each expert
    const Layer *const *gate_up, *const *down;  // [experts]
    const Projection* shared_gate;  // one output, whose sigmoid is the weight of the layer's own feed-forward; null where it has none
};

struct DecoderLayer {
    Projection qkv, output, gate_up, down;                        // the latter two without layers where the experts are all
    int64_t feed_forward;                                         // inputs of `down`
    const Mixture* mixture;                                       // or null
    const float *attention_norm, *feed_forward_norm;              // [hidden]
    const float *query_norm, *key_norm;                           // [head_dim] or null
    const float *after_attention_norm, *after_feed_forward_norm;  // [hidden] or null
    char *keys, *values;                                          // [positions of the cache][kv_heads][head_bytes]
    int64_t window;                                               // as in Attention
    int64_t rotary;                                               // which of the step's tables
    double scale;                                                 // of scores
};

struct Decoder {
    int64_t layers, hidden, heads, kv_heads, head_dim, rotary_dim;
    Activation activation;
    Cells cells;
    int64_t head_bytes;  // of a head of keys, or of values, in the cache
    double epsilon;
    const DecoderLayer* layer;
    const float* last_norm;
};

// Rows of one sequence: positions start, start + 1, ... of it.
struct Segment {
    int64_t first_row, rows;
    int64_t start;
    int64_t cache_row;  // where its position 0 is in the cache
};

struct Step {
    int64_t rows;
    float* x;  // [rows][hidden]: embeddings, which become the last hidden states
    const float *cosines[2], *sines[2];  // [rows][rotary_dim / 2]
    int64_t segments;
    const Segment* segment;
    float* workspace;  // of decoder_workspace bytes
};
