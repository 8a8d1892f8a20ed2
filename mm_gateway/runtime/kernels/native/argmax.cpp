// The most probable token of each row of logits: what a greedy draw takes.
#include <cmath>
#include <limits>

#include "kernels.h"
#include "threads.h"

namespace {

constexpr int LANES = 32;  // that a compiler makes vectors of, whatever the instruction set
constexpr float INFINITE = std::numeric_limits<float>::infinity();

// The first of the largest; -1 where that is no finite number, or something is NaN.
int64_t most_probable(const float* x, int64_t width) {
    float most[LANES];
    int32_t broken[LANES];
    for (int lane = 0; lane < LANES; lane++) most[lane] = -INFINITE, broken[lane] = 0;
    const auto look = [&](int lane, float value) {
        most[lane] = value > most[lane] ? value : most[lane];
        broken[lane] |= value != value;
    };
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES)
        for (int lane = 0; lane < LANES; lane++) look(lane, x[at + lane]);
    for (; at < width; at++) look(0, x[at]);
    float largest = -INFINITE;
    for (int lane = 0; lane < LANES; lane++) {
        if (broken[lane]) return -1;
        if (most[lane] > largest) largest = most[lane];
    }
    if (!std::isfinite(largest)) return -1;
    // By blocks, which are compared as vectors; the one that holds it is looked through.
    for (at = 0; at + LANES <= width; at += LANES) {
        int32_t found = 0;
        for (int lane = 0; lane < LANES; lane++) found |= x[at + lane] == largest;
        if (found) break;
    }
    while (x[at] != largest) at++;
    return at;
}

}  // namespace

// found [rows], of x [rows][width].
EXPORT void argmax_rows(const float* x, int64_t rows, int64_t width, int64_t* found, int threads) {
    constexpr int64_t WORTHWHILE = 1 << 17;  // numbers
    share(rows, std::max<int64_t>(1, WORTHWHILE / std::max<int64_t>(1, width)), threads, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; row++) found[row] = most_probable(x + row * width, width);
    });
}
