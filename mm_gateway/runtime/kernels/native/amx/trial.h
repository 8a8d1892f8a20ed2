// Whether the kernels of AMX are to be used: where processor and system have it, and a trial found them right, and fast.
#pragma once
#include "../block_linear.h"
#include "../float_kernels.h"

// What a trial of some kernels beside others found.
struct Trial {
    bool finished;    // false: the process that tried them crashed, or took too long
    bool equal;       // of blocks bit for bit; of numbers within a bound of what float64 gives, and a row as it is alone
    double times[2];  // as fast: of Q8 and of Q4; of bf16 with one row and with many
};

// Computes layers by both, in a child process, so that what the first do harms nobody. Takes some tens of milliseconds.
Trial try_kernels(const Kernels& tried, const Kernels& known);
Trial try_floats(const FloatKernels& tried, const FloatKernels& known);

#if defined(__x86_64__) && defined(__linux__)
extern const Kernels amx_kernels __attribute__((weak));  // not there where the assembler does not know the instructions

// All try them on first use. `right`: they give what those of AVX-512 give; the processor has these.
bool amx_is_right();
bool amx_is_faster();
bool amx_floats_are_right();
bool amx_is_faster_with_bf16();

// What the trials found, in words; empty where there was none.
const char* amx_report();
#endif
