// Linear layers over weights in blocks of 32 inputs, as the formats of llama.cpp have them (https://github.com/ggml-org/llama.cpp,
// ggml/src/ggml-common.h; formats only, no code is taken from there), or in numbers of 16 or 32 bits:
//
//   Q8           w = scale * q,             q in -128..127                                        Q8_0
//   Q4, Q5       w = scale * q + minimum,   q in 0..15 or 0..31                                   Q4_0, Q4_1, Q5_0, Q5_1
//   Q4F, Q5F     the same; of 8 blocks each the scales are integers of 8 bits times one number,   Q4_K, Q5_K
//                and so are the minimums
//   Q6F          w = scale * (q - 32),      q in 0..63, a scale for 16 inputs, likewise fine      Q6_K
//   FP16, BF16, FP32   numbers
//
// times the scale of the output's row, where there is one: for weights whose scales fp16 does not hold.
//
// Activations are quantized for each row and block of 32 to 8 bits, so a block's dot product is one of integers, exact in int32; blocks
// are added in fp32 in their order. Numbers are multiplied and added in fp32, in segments of the inputs: dense.h. A row's result depends on
// nothing but the row: not on the other rows, nor on the number of threads.
//
// Layout. A panel is 16 outputs, since 16 int32 fill a register of AVX-512 (and two of AVX2). Within a panel one block follows the
// other, so that one row of activations reads the weights as one stream:
//
//   Q8:          quants int8 [panel][block][group of 4 inputs: 8][output: 16][input: 4], the operand of vpdpbusd as it stands
//   Q4 to Q6:    quants      [panel][block][4][output: 16][input: 4], the lowest 4 bits of groups 0..3 in the low and of 4..7 in the high
//                            half of each byte
//   Q5:          more        [panel][block][output: 16][input: 4], bit g of each byte the highest bit of group g
//   Q6:          more        [panel][block][2][output: 16][input: 4], bits 2g and 2g + 1 of each byte the highest of group g, then g + 4
//   scales, minimums fp16    [panel][block][output: 16]; of fine kinds a block is 256 inputs here
//   fine_scales              [panel][block][output: 16] unsigned; Q6F: int8 [panel][block][2][output: 16]
//   fine_minimums            [panel][block][output: 16] unsigned
//   FP16, FP32:  quants      [panel][input][output: 16]
//   BF16:        quants      [panel][pair of inputs][output: 16][input: 2], the operand of tdpbf16ps as it stands; an odd number of inputs is filled up
//                            by a zero
#pragma once
#include <cstdint>

constexpr int BLOCK = 32;
constexpr int PANEL = 16;
constexpr int GROUPS = BLOCK / 4;

constexpr int FINE = 8;  // blocks that share a scale of fine kinds

// Numbered as in library.py.
enum Kind : int64_t { Q8, Q4, Q5, Q4F, Q5F, Q6F, FP16, BF16, FP32 };

// Mirrored by library.py. The memory belongs to the caller; outputs beyond the last are zeros up to a whole panel.
struct Layer {
    int64_t kind;
    int64_t outputs, inputs;
    const uint8_t* quants;
    const uint8_t* more;
    const uint16_t* scales;
    const uint16_t* minimums;
    const uint8_t* fine_scales;
    const uint8_t* fine_minimums;
    const float* row_scales;  // [outputs] or null: 1
    const float* bias;        // [panels * 16] or null
};

inline bool of_numbers(const Layer& layer) { return layer.kind >= FP16; }
inline int64_t pairs_of(const Layer& layer) { return (layer.inputs + 1) / 2; }
inline int64_t blocks_of(const Layer& layer) { return (layer.inputs + BLOCK - 1) / BLOCK; }
inline int64_t panels_of(const Layer& layer) { return (layer.outputs + PANEL - 1) / PANEL; }

// 32 activations of a row, quantized: x = scale * quants. One struct, so that a tile finds all of a row at one address.
struct Activations {
    float scale;
    float sum;          // scale * sum of the quants, what a weight's minimum is multiplied by
    int32_t starts[2];  // what sums of products begin with, since unsigned operands are weights + 128, or + 32; of Q6F for each 16
    int8_t quants[BLOCK];
};

// What an instruction set implements for blocks.
struct Kernels {
    const char* name;
    // Quantizes rows `first` to `last` of x [rows][inputs] to [rows][blocks]; a last block that is not full counts as filled with zeros.
    void (*quantize)(const Layer&, const float* x, Activations*, int64_t first, int64_t last);
    // Computes outputs of panels `first` to `last`: y [rows][outputs], y_stride between rows.
    void (*multiply)(const Layer&, const Activations*, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last);
};

// The numbers that an output's weights stand for: y [inputs].
void read_row(const Layer&, int64_t output, float* y);

extern const Kernels portable_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx_vnni_kernels, avx512_vnni_kernels;
#endif
