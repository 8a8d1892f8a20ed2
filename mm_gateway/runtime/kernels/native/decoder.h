// The layers of a decoder, computed by one call a step. Mirrored by decoder_structs.py; the memory belongs to the caller.
//
// A layer: x += output(attention(rotated q, k, v of norm(x))); x += down(activation(gate(norm(x))) * up(norm(x))). What a family does otherwise
// is data: kinds and places of norms, biases, feed-forwards without a gate (GPT-2) or of experts (Mixtral), attention and feed-forward of the
// same x (GPT-NeoX), queries without rotation, windows, factors.
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
    Norm attention_norm, feed_forward_norm, after_attention_norm, after_feed_forward_norm;  // of [hidden]
    Norm query_norm, key_norm;                                    // of a head, or of all heads of a row
    char *keys, *values;                                          // [positions of the cache][kv_heads][head_bytes]
    int64_t window;                                               // as in Attention
    int64_t rotary;                                               // which of the step's tables; -1: nothing is rotated
    double scale, cap;                                            // of scores: see Attention
};

struct Decoder {
    int64_t layers, hidden, heads, kv_heads, head_dim, rotary_dim;
    Pairs pairs;
    Activation activation;
    int64_t gated;     // feed-forwards: activation(gate) * up, else activation(up), and gate_up is up alone
    int64_t parallel;  // the feed-forward's norm is of the x that the attention's is of
    int64_t grouped;   // a row of qkv has for each key head its queries, its key and its value; else all queries, all keys, all values
    double factor;     // of what is added to x
    Cells cells;
    int64_t head_bytes;  // of a head of keys, or of values, in the cache
    const DecoderLayer* layer;
    Norm last_norm;
};

// Rows of one sequence: positions start, start + 1, ... of it.
struct Segment {
    int64_t first_row, rows;
    int64_t start;
    int64_t cache_row;  // where its position 0 is in the cache
};

struct Step {
    int64_t rows;
    float* x;  // [rows][hidden]: embeddings; those of the wanted rows become the last hidden states
    const float *cosines[2], *sines[2];  // [rows][rotary_dim / 2]
    int64_t segments;
    const Segment* segment;
    int64_t wanted;
    const int64_t* wanted_row;  // [wanted], ascending: the last layer computes no others, but for their keys and values
    float* workspace;           // of decoder_workspace bytes
};
