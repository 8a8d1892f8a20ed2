// What stands between the products of a decoder layer, a row at a time.
#pragma once
#include "float_kernels.h"
#include "vectors.h"

namespace {

// B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467
void normalize(const float* x, const float* weight, float* y, int64_t width, float epsilon) {
    Floats squares{};
    for (int64_t i = 0; i < width; i += WIDTH) squares = multiply_add(load(x + i), load(x + i), squares);
    const float factor = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(width) + epsilon);
    for (int64_t i = 0; i < width; i += WIDTH) store(y + i, load(x + i) * factor * load(weight + i));
}

void add(float* x, const float* y, int64_t width) {
    for (int64_t i = 0; i < width; i += WIDTH) store(x + i, load(x + i) + load(y + i));
}

// x / (1 + e^-x)
inline Floats silu(Floats x) { return x / (all(1.0f) + exponential(-x)); }

// x / 2 * (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) * (x + 0.044715 x^3)
inline Floats gelu_tanh(Floats x) {
    const Floats u = (x + x * x * x * 0.044715f) * 0.7978845608028654f;
    return x / (all(1.0f) + exponential(u * -2.0f));
}

void gate(const float* gate, const float* up, float* y, int64_t width, Activation activation) {
    for (int64_t i = 0; i < width; i += WIDTH) {
        const Floats x = load(gate + i);
        store(y + i, (activation == SILU ? silu(x) : gelu_tanh(x)) * load(up + i));
    }
}

// J. Su et al., RoFormer, https://arxiv.org/abs/2104.09864, in the halves that Hugging Face's checkpoints have.
void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cosines[i] - second * sines[i];
        x[i + half] = second * cosines[i] + first * sines[i];
    }
}

}  // namespace
