// The entry points: which kernels, and how the work is shared among threads.
#include "block_linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "amx/trial.h"
#include "kernels.h"
#include "operands.h"
#include "threads.h"

namespace {

const Kernels* kernels = &portable_kernels;
const FloatKernels *floats = &portable_floats, *floats_of_bf16 = &portable_floats;

// The calling thread's memory for prepared activations; it grows to the largest chunk and is kept.
char* scratch(size_t bytes) {
    struct alignas(64) Line {
        char bytes[64];
    };
    thread_local std::vector<Line> kept;
    if (kept.size() * sizeof(Line) < bytes) kept.resize((bytes + sizeof(Line) - 1) / sizeof(Line));
    return reinterpret_cast<char*>(kept.data());
}

// Multiplications that are worth another thread's start.
constexpr int64_t WORTHWHILE = 1 << 18;
// Rows whose activations stay in the second-level cache while the weights pass by.
constexpr int64_t CHUNK_BYTES = 1 << 19;
constexpr int64_t CHUNK_OF_NUMBERS = 256;

struct Choice {
    const Kernels* blocks;
    const FloatKernels *floats, *floats_of_bf16;
    bool usable;
};

Choice find(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    const bool any = *name == '\0';
    const FloatKernels *floats512 = &avx512_floats, *bf16_512 = &avx512_floats;
    bool amx = false;
#if defined(__linux__)
    const bool named = std::strcmp(name, "amx") == 0;
    amx = avx512 && (named ? amx_is_right() : any && amx_is_faster());
    // Weights of bf16 are tiles as they lie. Others are split as they are read, which makes the steps of a few sequences slower.
    if (avx512 && named && amx_floats_are_right()) floats512 = bf16_512 = &amx_floats;
    if (avx512 && any && amx_is_faster_with_bf16()) bf16_512 = &amx_floats;
    const Kernels* const of_amx = &amx_kernels;
#else
    const Kernels* const of_amx = nullptr;
#endif
    const Choice choices[] = {
        {of_amx, floats512, bf16_512, amx},
        {&avx512_vnni_kernels, floats512, bf16_512, avx512},
        {&avx_vnni_kernels, &avx2_floats, &avx2_floats, avx2 && __builtin_cpu_supports("avxvnni")},
        {&avx2_kernels, &avx2_floats, &avx2_floats, avx2},
        {&portable_kernels, &portable_floats, &portable_floats, true},
    };
#else
    const Choice choices[] = {{&portable_kernels, &portable_floats, &portable_floats, true}};
#endif
    for (const Choice& choice : choices)
        if (choice.usable && (*name == '\0' || std::strcmp(name, choice.blocks->name) == 0)) return choice;
    return {nullptr, nullptr, nullptr, false};
}

}  // namespace

const Kernels& block_kernels() { return *kernels; }
const FloatKernels& float_kernels() { return *floats; }
const FloatKernels& float_kernels(const Layer& layer) { return layer.kind == BF16 ? *floats_of_bf16 : *floats; }

// Use the kernels of this name, or the best for an empty one; 0 where this processor has not got them.
EXPORT int block_linear_use(const char* name) {
    const Choice found = find(name);
    if (!found.usable) return 0;
    kernels = found.blocks;
    floats = found.floats, floats_of_bf16 = found.floats_of_bf16;
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

// y [rows][outputs] = x [rows][inputs] * W^T + bias.
EXPORT void block_linear(const Layer* layer, const float* x, float* y, int64_t rows, int threads) {
    const Operands operands;
    const bool prepared = operands.are_prepared(*layer), numbers = of_numbers(*layer);
    const int64_t inputs = layer->inputs, panels = panels_of(*layer);
    const int64_t chunk = !prepared ? rows : numbers ? CHUNK_OF_NUMBERS : std::max<int64_t>(16, CHUNK_BYTES / (blocks_of(*layer) * BLOCK));
    for (int64_t first = 0; first < rows; first += chunk) {
        const int64_t count = std::min(chunk, rows - first);
        char* const to = prepared ? scratch(count * Operands::bytes(*layer)) : nullptr;
        const float* from = x + first * inputs;
        if (prepared)
            share(count, std::max<int64_t>(1, WORTHWHILE / 4 / inputs), threads, [&](int64_t begin, int64_t end) {
                operands.prepare(*layer, from, to, begin, end);
            });
        share(panels, std::max<int64_t>(numbers ? PANELS_AT_ONCE : 1, WORTHWHILE / (count * inputs * PANEL)), threads, [&](int64_t begin, int64_t end) {
            operands.multiply(*layer, from, to, 0, y + first * layer->outputs, layer->outputs, count, begin, end);
        });
    }
}

// What the rows `ids` [count] of a layer's weight stand for: y [count][inputs].
EXPORT void block_linear_rows(const Layer* layer, const int64_t* ids, float* y, int64_t count, int threads) {
    share(count, std::max<int64_t>(1, WORTHWHILE / 32 / layer->inputs), threads, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at++) read_row(*layer, ids[at], y + at * layer->inputs);
    });
}
