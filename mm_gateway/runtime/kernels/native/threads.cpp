#include "threads.h"

#include <pthread.h>
#include <sched.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

Parallel parallel = nullptr;

// The threads of a pool do not survive a fork; a child computes alone rather than wait for them.
std::atomic<bool> forked{false};

// Some tens of microseconds: pieces are short. Whoever is waited for longer is held up by another process, which then gets the core.
constexpr int SPINS = 2000;

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void start_threads(Parallel gomp_parallel) {
    parallel = gomp_parallel;
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
}

Parallel parallel_region() { return forked ? nullptr : parallel; }

void Worker::wait(const Phase& phase, int64_t total) {
    for (int spins = 0; phase.done.load(std::memory_order_acquire) < total; spins++) {
        if (spins < SPINS) pause();
        else sched_yield();
    }
}
