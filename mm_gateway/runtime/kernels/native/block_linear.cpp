// The entry points: which kernels, and how the work is shared among threads.
#include "block_linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "amx/trial.h"
#include "kernels.h"
#include "threads.h"

namespace {

const Kernels* kernels = &portable_kernels;
const FloatKernels* floats = &portable_floats;

// The calling thread's memory for quantized activations; it grows to the largest chunk and is kept.
Activations* scratch(size_t count) {
    thread_local std::vector<Activations> kept;
    if (kept.size() < count) kept.resize(count);
    return kept.data();
}

// Multiplications that are worth another thread's start.
constexpr int64_t WORTHWHILE = 1 << 18;
// Rows whose activations stay in the second-level cache while the weights pass by.
constexpr int64_t CHUNK_BYTES = 1 << 19;

struct Choice {
    const Kernels* blocks;
    const FloatKernels* floats;
    bool usable;
};

Choice find(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    const Choice choices[] = {
#if defined(__linux__)
        {&amx_kernels, &avx512_floats, avx512 && (std::strcmp(name, "amx") == 0 ? amx_is_right() : *name == '\0' && amx_is_faster())},
#endif
        {&avx512_vnni_kernels, &avx512_floats, avx512},
        {&avx_vnni_kernels, &avx2_floats, avx2 && __builtin_cpu_supports("avxvnni")},
        {&avx2_kernels, &avx2_floats, avx2},
        {&portable_kernels, &portable_floats, true},
    };
#else
    const Choice choices[] = {{&portable_kernels, &portable_floats, true}};
#endif
    for (const Choice& choice : choices)
        if (choice.usable && (*name == '\0' || std::strcmp(name, choice.blocks->name) == 0)) return choice;
    return {nullptr, nullptr, false};
}

}  // namespace

const Kernels& block_kernels() { return *kernels; }
const FloatKernels& float_kernels() { return *floats; }

// Use the kernels of this name, or the best for an empty one; 0 where this processor has not got them.
EXPORT int block_linear_use(const char* name) {
    const Choice found = find(name);
    if (!found.usable) return 0;
    kernels = found.blocks;
    floats = found.floats;
    return 1;
}

// Called once, before anything else. gomp_parallel: libgomp's GOMP_parallel, or null to use one thread only.
EXPORT void block_linear_start(Parallel gomp_parallel) { start_threads(gomp_parallel); }

EXPORT const char* block_linear_name() { return kernels->name; }

// What became of the kernels of AMX; empty where the processor has none, or others were named.
EXPORT const char* block_linear_amx_report() {
#if defined(__x86_64__) && defined(__linux__)
    return amx_report();
#else
    return "";
#endif
}

namespace {

// y [rows][outputs] = x [rows][inputs] * W^T + bias, of numbers.
void multiply_numbers(const Layer& layer, const float* x, float* y, int64_t rows, int threads) {
    const FloatKernels& chosen = *floats;
    share(panels_of(layer), std::max<int64_t>(PANELS_AT_ONCE, WORTHWHILE / (rows * layer.inputs * PANEL)), threads, [&](int64_t first, int64_t last) {
        chosen.multiply(layer, x, y, layer.outputs, rows, first, last);
    });
}

}  // namespace

// y [rows][outputs] = x [rows][inputs] * W^T + bias.
EXPORT void block_linear(const Layer* layer, const float* x, float* y, int64_t rows, int threads) {
    if (rows == 0) return;
    if (of_numbers(*layer)) return multiply_numbers(*layer, x, y, rows, threads);
    const Kernels& chosen = *kernels;
    const int64_t blocks = blocks_of(*layer), panels = panels_of(*layer);
    const int64_t chunk = std::max<int64_t>(16, CHUNK_BYTES / (blocks * BLOCK));
    for (int64_t first = 0; first < rows; first += chunk) {
        const int64_t count = std::min(chunk, rows - first);
        Activations* activations = scratch(count * blocks);
        const float* from = x + first * layer->inputs;
        float* to = y + first * layer->outputs;
        share(count, std::max<int64_t>(1, WORTHWHILE / 4 / (blocks * BLOCK)), threads, [&](int64_t begin, int64_t end) {
            chosen.quantize(*layer, from, activations, begin, end);
        });
        const int64_t cost = count * blocks * BLOCK * PANEL;
        share(panels, std::max<int64_t>(1, WORTHWHILE / cost), threads, [&](int64_t begin, int64_t end) {
            chosen.multiply(*layer, activations, to, layer->outputs, count, begin, end);
        });
    }
}

// What the rows `ids` [count] of a layer's weight stand for: y [count][inputs].
EXPORT void block_linear_rows(const Layer* layer, const int64_t* ids, float* y, int64_t count, int threads) {
    share(count, std::max<int64_t>(1, WORTHWHILE / 32 / layer->inputs), threads, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at++) read_row(*layer, ids[at], y + at * layer->inputs);
    });
}
