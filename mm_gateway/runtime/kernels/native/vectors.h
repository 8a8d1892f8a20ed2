// A register of floats, as wide as the file is compiled for, in the vector types of GCC and Clang
// (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html): what is written once with it is compiled for every instruction set.
// Everything here has internal linkage, so that the linker does not take one instruction set's copy for another's.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "fp16.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int WIDTH = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, REGISTERS = 32;
#else
constexpr int WIDTH = 4, REGISTERS = 16;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH)));

inline Floats load(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }

inline Floats all(float value) { return value - Floats{}; }

#if defined(__AVX512F__)
inline Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
inline Floats load(const uint16_t* halves) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves))); }
inline Floats load(const int8_t* bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)))); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline bool any_above(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
#elif defined(__AVX2__)
inline Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
inline Floats load(const uint16_t* halves) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves))); }
inline Floats load(const int8_t* bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)))); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline bool any_above(Floats a, Floats b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
#else
inline Floats multiply_add(Floats a, Floats b, Floats sum) { return a * b + sum; }
inline Floats load(const uint16_t* halves) {
    Floats values;
    for (int i = 0; i < WIDTH; i++) values[i] = from_fp16(halves[i]);
    return values;
}
inline Floats load(const int8_t* bytes) {
    Floats values;
    for (int i = 0; i < WIDTH; i++) values[i] = bytes[i];
    return values;
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline bool any_above(Floats a, Floats b) {
    bool found = false;
    for (int i = 0; i < WIDTH; i++) found |= a[i] > b[i];
    return found;
}
#endif

// Two numbers of bf16, the first in the lower half.
struct Pair {
    uint32_t bits;
};

// How many numbers one of a type holds.
template <class Number>
constexpr int HELD = 1;
template <>
constexpr int HELD<Pair> = 2;

// Number `at` of each.
template <class Number>
inline Floats load(const Number* from, int at) {
    static_assert(HELD<Number> == 1);
    return load(from);
}
inline Floats load(const Pair* from, int at) {
    Integers both;
    std::memcpy(&both, from, sizeof both);
    return reinterpret_cast<Floats>(at == 0 ? both << 16 : both & static_cast<int32_t>(0xFFFF0000));
}

// What two registers exchange where a block of `size` x `size` numbers stands on each side of the diagonal.
template <int size, size_t... i>
inline void exchange(Floats& a, Floats& b, std::index_sequence<i...>) {
    const Floats first = __builtin_shufflevector(a, b, (i & size ? WIDTH + i - size : i)...);
    b = __builtin_shufflevector(a, b, (i & size ? WIDTH + i : i + size)...);
    a = first;
}

// Rows become columns: J. O. Eklundh, A Fast Computer Method for Matrix Transposing, https://doi.org/10.1109/T-C.1972.223584.
template <int size = WIDTH / 2>
inline void transpose(Floats (&rows)[WIDTH]) {
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++)
        if (!(i & size)) exchange<size>(rows[i], rows[i | size], std::make_index_sequence<WIDTH>{});
    if constexpr (size > 1) transpose<size / 2>(rows);
}

inline float sum_of(Floats values) {
    float total[WIDTH];
    store(total, values);
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) total[i] += total[i + half];
    return total[0];
}

inline float largest_of(Floats values) {
    float most = values[0];
    for (int i = 1; i < WIDTH; i++) most = values[i] > most ? values[i] : most;
    return most;
}

// e^x within 2 units of the last place, by the polynomial of Cephes' expf (https://www.netlib.org/cephes/): x = n ln 2 + r, |r| <= ln 2 / 2.
// Below -87 it is e^-87, which is next to nothing; what is no number stays none.
inline Floats exponential(Floats x) {
    x = smaller(all(88.0f), larger(all(-87.0f), x));  // the second operand comes out where either is no number
    // Adding and taking off 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    const Floats magic = all(12582912.0f);
    const Floats shifted = multiply_add(x, all(1.44269504088896341f), magic);
    const Floats n = shifted - magic;
    Floats r = multiply_add(n, all(-0.693359375f), x);
    r = multiply_add(n, all(2.12194440e-4f), r);
    Floats series = all(1.9875691500e-4f);
    for (const float coefficient : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        series = multiply_add(series, r, all(coefficient));
    const Floats fraction = multiply_add(series, r * r, r) + all(1.0f);
    const Integers exponent = (reinterpret_cast<Integers>(shifted) + 127) << 23;
    return fraction * reinterpret_cast<Floats>(exponent);
}

}  // namespace
