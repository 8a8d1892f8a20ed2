// Sharing work among the threads that torch computes with.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

// libgomp's, of the copy that torch has loaded: a second pool of threads would fight with torch's for the cores.
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

// Called once, before anything else. Null: one thread only.
void start_threads(Parallel parallel);

// What runs work in more threads than one; null where there is none now.
Parallel parallel_region();

// One piece of work after another, which threads share.
struct alignas(64) Phase {
    std::atomic<int64_t> next{0}, done{0};
};

// What a thread calls to take part in phase after phase. All threads go through the same phases, with the same numbers.
//
// A phase is over when its work is done, whoever did it. A thread that the system holds up delays the others only if it holds a piece of work;
// when it comes back, it finds the phases that it missed done.
class Worker {
public:
    Worker(Phase* phases, int threads) : phase(phases), threads(threads) {}

    // Runs work(first, last) over 0..total in pieces, which threads take as they come, and returns when all of it is done.
    template <class Work>
    void share(int64_t total, int64_t piece, Work work) {
        Phase& here = *phase++;
        for (int64_t first; (first = here.next.fetch_add(piece, std::memory_order_relaxed)) < total;) {
            const int64_t last = std::min(first + piece, total);
            work(first, last);
            here.done.fetch_add(last - first, std::memory_order_release);
        }
        wait(here, total);
    }

    // A piece of `total`, `least` or a multiple of it: of some for each thread, where that can be the same number for all.
    int64_t piece(int64_t total, int64_t least = 1) const {
        for (int64_t each = 4; each > 1; each--)
            if (total % (each * threads * least) == 0) return total / (each * threads);
        return std::max<int64_t>(1, total / (4 * threads) / least) * least;
    }

private:
    static void wait(const Phase& phase, int64_t total);

    Phase* phase;
    int threads;
};

// Runs work(worker) in up to `threads` threads at the same time; work has at most `phases` phases.
template <class Work>
void together(int threads, int64_t phases, const Work& work) {
    struct Call {
        const Work& work;
        Phase* phases;
        int threads;
        static void run(void* self) {
            const auto& call = *static_cast<Call*>(self);
            Worker worker(call.phases, call.threads);
            call.work(worker);
        }
    };
    std::vector<Phase> all(phases);
    const Parallel parallel = threads > 1 ? parallel_region() : nullptr;
    Call call{work, all.data(), parallel != nullptr ? threads : 1};
    if (parallel != nullptr) parallel(Call::run, &call, static_cast<unsigned>(threads), 0);
    else Call::run(&call);
}

// Runs work(first, last) over 0..total, in pieces of at least `smallest`.
template <class Work>
void share(int64_t total, int64_t smallest, int threads, Work work) {
    if (threads <= 1 || total <= smallest) return work(0, total);
    const int64_t pieces = (total + smallest - 1) / smallest;
    together(static_cast<int>(std::min<int64_t>(threads, pieces)), 1, [&](Worker& worker) {
        worker.share(total, worker.piece(total, smallest), work);
    });
}
