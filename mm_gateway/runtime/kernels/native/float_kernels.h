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
    float cap;  // scores s become cap * tanh(s / cap); 0: they stay
    float* out;  // [rows][group][head_dim], out_stride between rows
    int64_t out_stride;
};

constexpr int64_t PANELS_AT_ONCE = 2;  // that tiles of many rows take: a product is shared in multiples of it
constexpr int64_t MOST_QUERIES = 96;  // rows * group of one Attention
constexpr int64_t MOST_HEAD_DIM = 256;

// Numbered as in decoder_structs.py.
enum Activation : int64_t { SILU = 0, GELU_TANH = 1, GELU = 2, RELU = 3 };
enum NormKind : int64_t { NORM_NONE = 0, NORM_RMS = 1, NORM_LAYER = 2 };

// What `width` numbers after one another are divided by, and multiplied with: see elementwise.h. NORM_NONE leaves them as they are.
struct Norm {
    NormKind kind;
    int64_t width;
    double epsilon;
    const float *weight, *bias;  // [width]; bias: null but for NORM_LAYER
};

// Which numbers of a head are turned together: i and i + half, or 2 i and 2 i + 1.
enum Pairs : int64_t { PAIRS_OF_HALVES = 0, PAIRS_OF_NEIGHBOURS = 1 };

// Bytes of a row of activations in three parts of 16 bits: see amx/parts.h. An odd number of 64, so that the caches' sets are used alike.
inline int64_t split_bytes(int64_t inputs) { return ((inputs + BLOCK - 1) / BLOCK * 3 | 1) * 64; }

// What an instruction set implements. Widths of rows are multiples of 16.
struct FloatKernels {
    // Writes rows `first` to `last` of x [rows][inputs] as parts [rows][split_bytes], which `multiply` then takes instead; null: it takes x.
    void (*split)(const Layer&, const float* x, char* parts, int64_t first, int64_t last);
    // Computes outputs of panels `first` to `last` of a layer of numbers: y [rows][outputs], y_stride between rows, from x [rows][inputs] or its parts.
    void (*multiply)(const Layer&, const void* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last);
    void (*attend)(const Attention&);
    // y = norm(x), for x and y [width of the norm]; they may be the same.
    void (*normalize)(const Norm&, const float* x, float* y);
    // x += factor * y, [width].
    void (*add)(float* x, const float* y, float factor, int64_t width);
    // y = activation(gate) * up, [width]; without `up` where that is null.
    void (*gate)(const float* gate, const float* up, float* y, int64_t width, Activation);
    // Turns the pairs of x [2 * half] by angles whose cosines and sines are given, [half] each.
    void (*rotate)(float* x, const float* cosines, const float* sines, int64_t half, Pairs);
    // Writes a head of keys or values, x [dim], into the cache.
    void (*narrow)(const float* x, int64_t dim, Cells, char* to);
};

extern const FloatKernels portable_floats;
#if defined(__x86_64__)
extern const FloatKernels avx2_floats, avx512_floats;
extern const FloatKernels amx_floats __attribute__((weak));  // not there where the assembler does not know the instructions
#endif
