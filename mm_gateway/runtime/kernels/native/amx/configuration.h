// The shapes of a thread's tiles, as ldtilecfg reads them: "Intel Advanced Matrix Extensions" in Intel's Software Developer's Manual, volume 1.
//
// What reaches the processor is Instructions (instructions.h), or another that does the same:
//
//   configure(Configuration), release()                     the thread's shapes of tiles; nothing is left behind
//   zero<T>(), load<T>(from, stride), store<T>(to, stride)
//   multiply<C, A, B>()                                     C += A * B, of signed bytes
//   multiply_pairs<C, A, B>()                               C += A * B of bf16, in fp32: numbers below 2^-126 count as zeros
#pragma once
#include <cstdint>

#include "../block_linear.h"

namespace {

struct Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    // Tiles `first` and the next become of so many rows of so many bytes; without rows they are not there.
    void shape(int first, int64_t its_rows, int64_t next_rows, int bytes) {
        const int64_t of_tile[] = {its_rows, next_rows};
        for (int i = 0; i < 2; i++) {
            rows[first + i] = static_cast<uint8_t>(of_tile[i]);
            row_bytes[first + i] = static_cast<uint16_t>(of_tile[i] > 0 ? bytes : 0);
        }
    }
};
static_assert(sizeof(Configuration) == 64, "as ldtilecfg reads it");

}  // namespace
