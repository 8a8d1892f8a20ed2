// Activations as products take them: quantized for blocks, and for numbers split into parts where the kernels in use split them.
#pragma once
#include "kernels.h"

namespace {

class Operands {
public:
    Operands() : blocks(block_kernels()) {}

    // Whether `prepare` is to be called before `multiply`.
    bool are_prepared(const Layer& layer) const { return !of_numbers(layer) || float_kernels(layer).split != nullptr; }

    // Whether what is prepared for one layer is what another one of as many inputs takes.
    static bool are_alike(const Layer& a, const Layer& b) { return a.kind == b.kind || (of_numbers(a) && of_numbers(b)); }

    // Bytes of a prepared row.
    static int64_t bytes(const Layer& layer) {
        return of_numbers(layer) ? split_bytes(layer.inputs) : blocks_of(layer) * static_cast<int64_t>(sizeof(Activations));
    }

    // The most that any layer of so many inputs takes.
    static int64_t most_bytes(int64_t inputs) { return split_bytes(inputs); }

    // Rows `first` to `last` of x [rows][inputs], to `prepared` [rows][bytes].
    void prepare(const Layer& layer, const float* x, char* prepared, int64_t first, int64_t last) const {
        if (of_numbers(layer)) float_kernels(layer).split(layer, x, prepared, first, last);
        else blocks.quantize(layer, x, reinterpret_cast<Activations*>(prepared), first, last);
    }

    // Panels `first` to `last` of y [rows][outputs], y_stride between rows, for the `rows` rows of x, and of `prepared`, from row `start` on.
    void multiply(const Layer& layer, const float* x, const char* prepared, int64_t start, float* y, int64_t y_stride, int64_t rows, int64_t first,
                  int64_t last) const {
        const char* const from = prepared + start * bytes(layer);
        if (!of_numbers(layer)) return blocks.multiply(layer, reinterpret_cast<const Activations*>(from), y, y_stride, rows, first, last);
        const FloatKernels& floats = float_kernels(layer);
        floats.multiply(layer, floats.split != nullptr ? from : static_cast<const void*>(x + start * layer.inputs), y, y_stride, rows, first, last);
    }

private:
    const Kernels& blocks;
};

}  // namespace
