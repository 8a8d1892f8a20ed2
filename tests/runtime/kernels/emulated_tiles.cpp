// The tiles of AMX in plain C++, which keep the rules of Intel's Software Developer's Manual (volume 2: LDTILECFG, TILELOADD, TDPBSSD ...);
// what a processor would answer by an exception is told as a fault. The kernels are the real ones of native/amx/multiply.h.
#include <cstdlib>
#include <cstring>

#include "amx/multiply.h"
#include "amx/trial.h"

namespace {

const char* fault = "";

void expect(bool holds, const char* rule) {
    if (!holds && *fault == '\0') fault = rule;
}

struct Emulated {
    struct Tile {
        int rows, row_bytes;
        uint8_t bytes[16][64];
    };
    static inline thread_local Tile tiles[8];
    static inline thread_local bool configured = false;

    static void configure(const Configuration& shapes) {
        expect(!configured, "a configuration was left behind");
        expect(shapes.palette == 1 && shapes.start_row == 0, "palette and first row");
        for (const uint8_t byte : shapes.reserved) expect(byte == 0, "reserved bytes are zero");
        for (int t = 0; t < 16; t++) {
            expect(shapes.rows[t] <= (t < 8 ? 16 : 0) && shapes.row_bytes[t] <= (t < 8 ? 64 : 0), "8 tiles of up to 16 rows of 64 bytes");
            expect((shapes.rows[t] == 0) == (shapes.row_bytes[t] == 0), "rows without bytes, or bytes without rows");
            if (t < 8) tiles[t] = {shapes.rows[t], shapes.row_bytes[t], {}};
        }
        configured = true;
    }

    static void release() {
        expect(configured, "released what was not configured");
        for (Tile& tile : tiles) tile = {};
        configured = false;
    }

    template <int T>
    static Tile& tile() {
        static_assert(T >= 0 && T < 8, "there are 8 tiles");
        expect(configured && tiles[T].rows > 0, "a tile that is not configured");
        return tiles[T];
    }

    // Rows and bytes that are not of the tile's shape become zero.
    template <int T>
    static void load(const void* from, int64_t stride) {
        std::memset(tile<T>().bytes, 0, sizeof tiles[T].bytes);
        for (int r = 0; r < tiles[T].rows; r++) std::memcpy(tiles[T].bytes[r], static_cast<const char*>(from) + r * stride, tiles[T].row_bytes);
    }

    template <int T>
    static void store(void* to, int64_t stride) {
        for (int r = 0; r < tile<T>().rows; r++) std::memcpy(static_cast<char*>(to) + r * stride, tiles[T].bytes[r], tiles[T].row_bytes);
    }

    template <int C, int A, int B>
    static void multiply() {
        static_assert(C != A && A != B && B != C, "three tiles");
        Tile &c = tile<C>(), &a = tile<A>(), &b = tile<B>();
        expect(c.row_bytes % 4 == 0 && a.row_bytes % 4 == 0 && b.row_bytes % 4 == 0, "whole numbers of four bytes");
        expect(c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows, "shapes that fit each other");
        for (int m = 0; m < c.rows; m++)
            for (int k = 0; k < a.row_bytes / 4; k++)
                for (int n = 0; n < b.row_bytes / 4; n++) {
                    int32_t sum;
                    std::memcpy(&sum, c.bytes[m] + 4 * n, 4);
                    for (int i = 0; i < 4; i++) sum += static_cast<int8_t>(a.bytes[m][4 * k + i]) * static_cast<int8_t>(b.bytes[k][4 * n + i]);
                    std::memcpy(c.bytes[m] + 4 * n, &sum, 4);
                }
    }
};

void multiply(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_or_leave<Emulated>(avx512_vnni_kernels, layer, x, y, y_stride, rows, first, last);
    expect(!Emulated::configured, "a configuration was left behind");
}

void quantize(const Layer& layer, const float* x, Activations* to, int64_t first, int64_t last) {
    avx512_vnni_kernels.quantize(layer, x, to, first, last);
}

// What a trial may come upon.
template <int TIMES>
void multiply_known(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    for (int time = 0; time < TIMES; time++) avx512_vnni_kernels.multiply(layer, x, y, y_stride, rows, first, last);
}

void multiply_wrongly(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_known<1>(layer, x, y, y_stride, rows, first, last);
    y[(rows - 1) * y_stride + 1] += 1e-5f;
}

void crash(const Layer&, const Activations*, float*, int64_t, int64_t, int64_t, int64_t) { __builtin_trap(); }

const Kernels emulated_kernels = {"emulated", quantize, multiply}, slow_kernels = {"slow", quantize, multiply_known<3>},
              wrong_kernels = {"wrong", quantize, multiply_wrongly}, crashing_kernels = {"crashing", quantize, crash};

void compute(const Kernels& kernels, const Layer& layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    auto* activations = static_cast<Activations*>(std::malloc(rows * blocks_of(layer) * sizeof(Activations)));
    kernels.quantize(layer, x, activations, 0, rows);
    kernels.multiply(layer, activations, y, y_stride, rows, first, last);
    std::free(activations);
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void emulated(const Layer* layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    compute(emulated_kernels, *layer, x, y, y_stride, rows, first, last);
}

EXPORT void known(const Layer* layer, const float* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    compute(avx512_vnni_kernels, *layer, x, y, y_stride, rows, first, last);
}

EXPORT const char* first_fault() { return fault; }

EXPORT void trial_of(int which, Trial* found) {
    const Kernels* kernels[] = {&slow_kernels, &wrong_kernels, &crashing_kernels};
    *found = try_kernels(*kernels[which], avx512_vnni_kernels);
}
