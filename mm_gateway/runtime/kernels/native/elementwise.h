// What stands between the products of a decoder layer, a row at a time.
#pragma once
#include "float_kernels.h"
#include "vectors.h"

namespace {

// RMS: B. Zhang, R. Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467
// LAYER, of what is left when the mean is taken off: J. L. Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450
void normalize(const Norm& norm, const float* x, float* y) {
    const int64_t width = norm.width;
    if (norm.kind == NORM_NONE) {
        if (y != x) std::memcpy(y, x, width * sizeof(float));
        return;
    }
    float mean = 0.0f;
    if (norm.kind == NORM_LAYER) {
        Floats total{};
        for (int64_t i = 0; i < width; i += WIDTH) total += load(x + i);
        mean = sum_of(total) / static_cast<float>(width);
    }
    Floats squares{};
    for (int64_t i = 0; i < width; i += WIDTH) squares = multiply_add(load(x + i) - mean, load(x + i) - mean, squares);
    const float factor = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(width) + static_cast<float>(norm.epsilon));
    for (int64_t i = 0; i < width; i += WIDTH) store(y + i, (load(x + i) - mean) * factor * load(norm.weight + i));
    if (norm.bias == nullptr) return;
    for (int64_t i = 0; i < width; i += WIDTH) store(y + i, load(y + i) + load(norm.bias + i));
}

void add(float* x, const float* y, float factor, int64_t width) {
    for (int64_t i = 0; i < width; i += WIDTH) store(x + i, multiply_add(load(y + i), all(factor), load(x + i)));
}

// x / (1 + e^-x)
inline Floats silu(Floats x) { return x / (all(1.0f) + exponential(-x)); }

// x / 2 * (1 + tanh(u)) = x / (1 + e^-2u) with u = sqrt(2 / pi) * (x + 0.044715 x^3)
inline Floats gelu_tanh(Floats x) {
    const Floats u = (x + x * x * x * 0.044715f) * 0.7978845608028654f;
    return x / (all(1.0f) + exponential(u * -2.0f));
}

// x / 2 * (1 + erf(x / sqrt(2))), with erf within 1.5e-7: M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, formula 7.1.26.
inline Floats gelu(Floats x) {
    const Floats size = larger(x, -x), z = size * 0.7071067811865476f;
    const Floats t = all(1.0f) / multiply_add(z, all(0.3275911f), all(1.0f));
    Floats series = all(1.061405429f);
    for (const float coefficient : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) series = multiply_add(series, t, all(coefficient));
    return larger(Floats{}, x) - size * (series * t * exponential(-z * z)) * 0.5f;
}

inline Floats activated(Floats x, Activation activation) {
    switch (activation) {
        case SILU: return silu(x);
        case GELU_TANH: return gelu_tanh(x);
        case GELU: return gelu(x);
        case RELU: return larger(Floats{}, x);
    }
    return x;
}

void gate(const float* gate, const float* up, float* y, int64_t width, Activation activation) {
    for (int64_t i = 0; i < width; i += WIDTH) {
        const Floats x = activated(load(gate + i), activation);
        store(y + i, up != nullptr ? x * load(up + i) : x);
    }
}

// J. Su et al., RoFormer, https://arxiv.org/abs/2104.09864, whose pairs are neighbours; most checkpoints of Hugging Face have halves.
void rotate(float* x, const float* cosines, const float* sines, int64_t half, Pairs pairs) {
    const auto turn = [&](float& first, float& second, int64_t i) {
        const float before = first;
        first = before * cosines[i] - second * sines[i];
        second = second * cosines[i] + before * sines[i];
    };
    if (pairs == PAIRS_OF_NEIGHBOURS)
        for (int64_t i = 0; i < half; i++) turn(x[2 * i], x[2 * i + 1], i);
    else
        for (int64_t i = 0; i < half; i++) turn(x[i], x[i + half], i);
}

}  // namespace
