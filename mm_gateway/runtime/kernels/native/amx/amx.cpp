// AMX: int8 products by tiles. The instructions are written out, so that a compiler need not know them, its assembler must;
// and since the compiler's own functions (of g++ 12) do not say that a load reads memory, which could then be written after it.
#if defined(__x86_64__) && defined(__linux__)
#include "multiply.h"
#include "trial.h"

namespace {

struct Instructions {
    static void configure(const Configuration& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
    static void release() { asm volatile("tilerelease"); }

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
};

void quantize(const Layer& layer, const float* x, Activations* to, int64_t first, int64_t last) {
    avx512_vnni_kernels.quantize(layer, x, to, first, last);
}

void multiply(const Layer& layer, const Activations* x, float* y, int64_t y_stride, int64_t rows, int64_t first, int64_t last) {
    multiply_or_leave<Instructions>(avx512_vnni_kernels, layer, x, y, y_stride, rows, first, last);
}

}  // namespace

const Kernels amx_kernels = {"amx", quantize, multiply};
#endif
