// The instructions of AMX, written out, so that a compiler need not know them, its assembler must; and since the compiler's own functions (of
// g++ 12) do not say that a load reads memory, which could then be written after it.
#pragma once
#include "configuration.h"

namespace {

struct Instructions {
    static void configure(const Configuration& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
    static void release() { asm volatile("tilerelease"); }

    template <int T>
    static void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(T)); }

    template <int T>
    static void load(const void* from, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
    }

    template <int T>
    static void store(void* to, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
    }

    template <int C, int A, int B>
    static void multiply() { asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B)); }

    template <int C, int A, int B>
    static void multiply_pairs() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B)); }
};

}  // namespace
