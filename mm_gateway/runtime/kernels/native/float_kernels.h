// What is computed in fp32, written once in vectors.h and compiled for each instruction set: products with weights of 16 and 32 bits, and what
// stands between the products of a decoder layer.
#pragma once
#include "block_linear.h"

// y = x W^T + bias. Mirrored by library.py. The memory belongs to the caller.
struct Dense {
    int64_t outputs, inputs;
    const void* weights;   // [panel][input][output: 16]; outputs beyond the last are zeros up to a whole panel
    int64_t weight_bytes;  // 4: fp32, 2: fp16
    const float* bias;     // [panels * 16] or null
};

// Query heads that share a key head, for `rows` positions after one another.
struct Attention {
    int64_t rows, group, head_dim;
    const float* queries;  // [rows][group][head_dim], query_stride between rows
    int64_t query_stride;
    const float *keys, *values;  // of position 0 of the sequence; kv_stride between positions
    int64_t kv_stride;
    int64_t position;  // of the first row
    int64_t window;    // positions that a row sees, itself included; 0: all before it
    float scale;
    float* out;  // [rows][group][head_dim], out_stride between rows
    int64_t out_stride;
};

constexpr int64_t MOST_QUERIES = 48;  // rows * group of one Attention
constexpr int64_t MOST_HEAD_DIM = 256;

enum Activation : int64_t { SILU = 0, GELU_TANH = 1 };

// What an instruction set implements. Widths of rows are multiples of 16.
struct FloatKernels {
    // Computes outputs of panels `first` to `last`: y [rows][outputs] from x [rows][inputs].
    void (*multiply)(const Dense&, const float* x, float* y, int64_t rows, int64_t first, int64_t last);
    void (*attend)(const Attention&);
    // y = x / sqrt(mean(x^2) + epsilon) * weight, for x and y [width]; they may be the same.
    void (*normalize)(const float* x, const float* weight, float* y, int64_t width, float epsilon);
    // x += y, [width].
    void (*add)(float* x, const float* y, int64_t width);
    // y = activation(gate) * up, [width].
    void (*gate)(const float* gate, const float* up, float* y, int64_t width, Activation);
    // Turns the pairs (i, i + half) of x [2 * half] by angles whose cosines and sines are given, [half] each.
    void (*rotate)(float* x, const float* cosines, const float* sines, int64_t half);
};

extern const FloatKernels portable_floats;
#if defined(__x86_64__)
extern const FloatKernels avx2_floats, avx512_floats;
#endif
