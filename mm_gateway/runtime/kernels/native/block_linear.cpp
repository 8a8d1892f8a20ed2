// The entry points: which kernels, and how the work is shared among threads.
#include "block_linear.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

namespace {

// libgomp's, of the copy that torch has loaded: a second pool of threads would fight with torch's for the cores.
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);
Parallel parallel = nullptr;

// The threads of a pool do not survive a fork; a child computes alone rather than wait for them.
std::atomic<bool> forked{false};

const Kernels* kernels = &portable_kernels;

// Runs work(first, last) over 0..total in pieces, which threads take as they come: one that the system holds up delays nobody else.
template <class Work>
struct Pieces {
    Work work;
    int64_t total, size;
    std::atomic<int64_t> next{0};

    static void run(void* self) {
        auto& pieces = *static_cast<Pieces*>(self);
        for (int64_t first; (first = pieces.next.fetch_add(pieces.size)) < pieces.total;)
            pieces.work(first, std::min(first + pieces.size, pieces.total));
    }
};

template <class Work>
void share(int64_t total, int64_t smallest, int threads, Work work) {
    if (threads <= 1 || total <= smallest || parallel == nullptr || forked) return work(0, total);
    const int64_t size = std::max(smallest, total / (4 * threads));
    Pieces<Work> pieces{work, total, size};
    const int64_t useful = (total + size - 1) / size;
    parallel(Pieces<Work>::run, &pieces, static_cast<unsigned>(std::min<int64_t>(threads, useful)), 0);
}

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

const Kernels* find(const char* name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    const struct {
        const Kernels* kernels;
        bool usable;
    } all[] = {
        {&avx512_vnni_kernels, avx512},
        {&avx_vnni_kernels, avx2 && __builtin_cpu_supports("avxvnni")},
        {&avx2_kernels, avx2},
        {&portable_kernels, true},
    };
    for (const auto& each : all)
        if (each.usable && (*name == '\0' || std::strcmp(name, each.kernels->name) == 0)) return each.kernels;
    return nullptr;
#else
    return *name == '\0' || std::strcmp(name, portable_kernels.name) == 0 ? &portable_kernels : nullptr;
#endif
}

}  // namespace

// Called once, before anything else. gomp_parallel: libgomp's GOMP_parallel, or null to use one thread only.
EXPORT void block_linear_start(void* gomp_parallel) {
    parallel = reinterpret_cast<Parallel>(gomp_parallel);
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    kernels = find("");
}

// Use the kernels of this name, or the best for an empty one; 0 where this processor has not got them.
EXPORT int block_linear_use(const char* name) {
    const Kernels* found = find(name);
    if (found != nullptr) kernels = found;
    return found != nullptr;
}

EXPORT const char* block_linear_name() { return kernels->name; }

namespace {

// y [rows][outputs] = x [rows][inputs] * W^T + bias, of numbers.
void multiply_numbers(const Layer& layer, const float* x, float* y, int64_t rows, int threads) {
    const int64_t chunk = std::max<int64_t>(24, CHUNK_BYTES / (layer.inputs * 4));
    for (int64_t first = 0; first < rows; first += chunk) {
        const int64_t count = std::min(chunk, rows - first);
        share(panels_of(layer), std::max<int64_t>(1, WORTHWHILE / (count * layer.inputs * PANEL)), threads, [&](int64_t begin, int64_t end) {
            kernels->multiply_numbers(layer, x + first * layer.inputs, y + first * layer.outputs, 0, count, begin, end);
        });
    }
}

}  // namespace

// y [rows][outputs] = x [rows][inputs] * W^T + bias.
EXPORT void block_linear(const Layer* layer, const float* x, float* y, int64_t rows, int threads) {
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
            chosen.multiply(*layer, activations, to, 0, count, begin, end);
        });
    }
}

// What the rows `ids` [count] of a layer's weight stand for: y [count][inputs].
EXPORT void block_linear_rows(const Layer* layer, const int64_t* ids, float* y, int64_t count, int threads) {
    share(count, std::max<int64_t>(1, WORTHWHILE / 32 / layer->inputs), threads, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at++) read_row(*layer, ids[at], y + at * layer->inputs);
    });
}
