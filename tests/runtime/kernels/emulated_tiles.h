// The tiles of AMX in plain C++, which keep the rules of Intel's Software Developer's Manual (volume 2: LDTILECFG, TILELOADD, TDPBSSD ...);
// what a processor would answer by an exception is told as a fault.
#pragma once
#include <cmath>
#include <cstring>

#include "amx/configuration.h"

inline const char* fault = "";

inline void expect(bool holds, const char* rule) {
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

    template <int T>
    static void zero() { std::memset(tile<T>().bytes, 0, sizeof tiles[T].bytes); }

    // Rows and bytes that are not of the tile's shape become zero.
    template <int T>
    static void load(const void* from, int64_t stride) {
        zero<T>();
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

    // Numbers below 2^-126 count as zeros; the even and the odd inputs are added up on their own.
    template <int C, int A, int B>
    static void multiply_pairs() {
        static_assert(C != A && A != B && B != C, "three tiles");
        Tile &c = tile<C>(), &a = tile<A>(), &b = tile<B>();
        expect(c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows, "shapes that fit each other");
        for (int m = 0; m < c.rows; m++)
            for (int n = 0; n < b.row_bytes / 4; n++) {
                float sum, added[2] = {};
                std::memcpy(&sum, c.bytes[m] + 4 * n, 4);
                for (int k = 0; k < a.row_bytes / 4; k++)
                    for (int i = 0; i < 2; i++) added[i] = std::fma(number(a.bytes[m] + 4 * k + 2 * i), number(b.bytes[k] + 4 * n + 2 * i), added[i]);
                sum += added[0] + added[1];
                std::memcpy(c.bytes[m] + 4 * n, &sum, 4);
            }
    }

    static float number(const uint8_t* bf16) {
        const uint32_t bits = static_cast<uint32_t>(bf16[0] | bf16[1] << 8) << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
    }
};
