// Linear layers over weights in blocks of 32 inputs, as llama.cpp's Q8_0 and Q4_1 have them (https://github.com/ggml-org/llama.cpp,
// ggml/src/ggml-common.h; formats only, no code is taken from there):
//
//   8 bits: w = scale * q,            q in -128..127
//   4 bits: w = scale * q + minimum,  q in 0..15
//
// times the scale of the output's row, where there is one: for weights whose scales fp16 does not hold.
//
// Activations are quantized for each row and block of 32 to 8 bits, so a block's dot product is one of integers, exact in int32; blocks
// are added in fp32 in their order. A row's result depends on nothing but the row: not on the other rows, nor on the number of threads.
//
// Layout. A panel is 16 outputs, since 16 int32 fill a register of AVX-512 (and two of AVX2). Within a panel one block follows the
// other, so that one row of activations reads the weights as one stream:
//
//   8 bits: quants int8 [panel][block][group of 4 inputs: 8][output: 16][input: 4], the operand of vpdpbusd as it stands
//   4 bits: quants      [panel][block][4][output: 16][input: 4], groups 0..3 in the low and 4..7 in the high half of each byte
//   scales, minimums fp16 [panel][block][output: 16]
#pragma once
#include <cstdint>

constexpr int BLOCK = 32;
constexpr int PANEL = 16;
constexpr int GROUPS = BLOCK / 4;

// Mirrored by library.py. The memory belongs to the caller; outputs beyond the last are zeros up to a whole panel.
struct Layer {
    int64_t outputs, inputs;
    const uint8_t* quants;
    const uint16_t* scales;
    const uint16_t* minimums;  // null: 8 bits
    const float* bias;         // [outputs] or null
    const float* row_scales;   // [outputs] or null: 1
};

inline int64_t blocks_of(const Layer& layer) { return (layer.inputs + BLOCK - 1) / BLOCK; }
inline int64_t panels_of(const Layer& layer) { return (layer.outputs + PANEL - 1) / PANEL; }

// 32 activations of a row, quantized: x = scale * quants. One struct, so that a tile needs one pointer for each of its rows.
struct Activations {
    float scale;
    float sum;       // scale * sum of the quants, what a weight's minimum is multiplied by
    int32_t offset;  // -128 * sum of the quants, what vpdpbusd is off by where its unsigned operand is a weight + 128
    int32_t unused;
    int8_t quants[BLOCK];
};

// What an instruction set implements.
struct Kernels {
    const char* name;
    // Quantizes rows `first` to `last` of x [rows][inputs] to [rows][blocks]; a last block that is not full counts as filled with zeros.
    void (*quantize)(const Layer&, const float* x, Activations*, int64_t first, int64_t last);
    // Computes outputs of panels `first` to `last` for rows `row` to `row_end`: y [rows][outputs].
    void (*multiply)(const Layer&, const Activations*, float* y, int64_t row, int64_t row_end, int64_t first, int64_t last);
};

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx_vnni_kernels, avx512_vnni_kernels;
#endif
