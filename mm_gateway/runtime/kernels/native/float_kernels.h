// What is computed in fp32, written once in vectors.h and compiled for each instruction set: products with weights of 16 and 32 bits, and what
// stands between the products of a decoder layer.
#pragma once
#include "block_linear.h"

// How the cache holds keys and values: see cells.h.
enum Cells : int64_t { CELLS_FP32 = 0, CELLS_FP16 = 1, CELLS_INT8 = 2 };

// Query heads that share a key head, for `rows` positions after one another.
struct Attention {
    int64_t rows, group, head_dim;
    const float* queries;  // [rows][group][head_dim], query_stride between rows
    int64_t query_stride;
    const char *keys, *values;  // of position 0 of the sequence; kv_stride bytes between positions
    int64_t kv_stride;
    Cells cells;
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
    // Computes outputs of panels `first` to `last` of a layer of numbers: y [rows][outputs], y_stride between rows, from x [rows][inputs].
    void (*multiply)(const Layer&, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last);
    void (*attend)(const Attention&);
    // y = x / sqrt(mean(x^2) + epsilon) * weight, for x and y [width]; they may be the same.
    void (*normalize)(const float* x, const float* weight, float* y, int64_t width, float epsilon);
    // x += y, [width].
    void (*add)(float* x, const float* y, int64_t width);
    // y = activation(gate) * up, [width].
    void (*gate)(const float* gate, const float* up, float* y, int64_t width, Activation);
    // Turns the pairs (i, i + half) of x [2 * half] by angles whose cosines and sines are given, [half] each.
    void (*rotate)(float* x, const float* cosines, const float* sines, int64_t half);
    // Writes a head of keys or values, x [dim], into the cache.
    void (*narrow)(const float* x, int64_t dim, Cells, char* to);
};

extern const FloatKernels portable_floats;
#if defined(__x86_64__)
extern const FloatKernels avx2_floats, avx512_floats;
#endif
