// Whether the kernels of AMX are to be used: where processor and system have it, and a trial found them right, and fast.
#pragma once
#include "../block_linear.h"

// What a trial of some kernels beside others found.
struct Trial {
    bool finished;    // false: the process that tried them crashed, or took too long
    bool equal;       // bit for bit
    double times[2];  // as fast, of Q8 and of Q4
};

// Computes layers by both, in a child process, so that what the first do harms nobody. Takes some tens of milliseconds.
Trial try_kernels(const Kernels& tried, const Kernels& known);

#if defined(__x86_64__) && defined(__linux__)
extern const Kernels amx_kernels __attribute__((weak));  // not there where the assembler does not know the instructions

// Both try them on first use. `right`: they give what avx512_vnni_kernels give; the processor has those.
bool amx_is_right();
bool amx_is_faster();

// What the trial found, in words; empty where there was none.
const char* amx_report();
#endif
