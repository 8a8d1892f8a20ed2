#include "trial.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#endif

namespace {

constexpr int64_t INPUTS = 1237, OUTPUTS = 259;  // neither a whole number of blocks nor of panels
constexpr int64_t ROWS[] = {70, 30};             // several tiles, the last of which begins before it would; two such
constexpr int ROUNDS = 20;
constexpr unsigned LIMIT_S = 10;

// A layer of random weights and its activations, with room for the results of two kernels.
struct Sample {
    Sample(Kind kind, const Kernels& kernels) {
        std::mt19937 random(kind);
        const auto fill = [&](auto& numbers, int most, int first) {
            for (auto& number : numbers) number = static_cast<std::decay_t<decltype(number)>>(first + random() % most);
        };
        layer = Layer{kind, OUTPUTS, INPUTS, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
        const int64_t blocks = blocks_of(layer) * panels_of(layer);
        quants.resize(blocks * BLOCK * PANEL), scales.resize(blocks * PANEL), minimums.resize(blocks * PANEL);
        fill(quants, 256, 0), fill(scales, 1 << 12, 0x2000), fill(minimums, 1 << 12, 0xA000);  // fp16 of 0.008 to 0.12
        layer.quants = quants.data(), layer.scales = scales.data(), layer.minimums = minimums.data();
        std::vector<float> x(ROWS[0] * INPUTS);
        for (float& number : x) number = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
        activations.resize(ROWS[0] * blocks_of(layer));
        kernels.quantize(layer, x.data(), activations.data(), 0, ROWS[0]);
        for (auto& results : y) results.resize(ROWS[0] * OUTPUTS);
    }

    void compute(const Kernels& kernels, int64_t rows, int which) {
        kernels.multiply(layer, activations.data(), y[which].data(), OUTPUTS, rows, 0, panels_of(layer));
    }

    bool same(int64_t rows) const { return std::memcmp(y[0].data(), y[1].data(), rows * OUTPUTS * sizeof(float)) == 0; }

    Layer layer;
    std::vector<uint8_t> quants;
    std::vector<uint16_t> scales, minimums;
    std::vector<Activations> activations;
    std::vector<float> y[2];
};

// The shortest of some rounds, in turn: other processes only make one longer.
double times_as_fast(Sample& sample, const Kernels* (&kernels)[2]) {
    using Clock = std::chrono::steady_clock;
    Clock::duration shortest[2] = {Clock::duration::max(), Clock::duration::max()};
    for (int round = 0; round < ROUNDS; round++)
        for (int which = 0; which < 2; which++) {
            const auto start = Clock::now();
            sample.compute(*kernels[which], ROWS[0], which);
            shortest[which] = std::min(shortest[which], Clock::now() - start);
        }
    return std::chrono::duration<double>(shortest[1]) / std::chrono::duration<double>(shortest[0]);
}

void carry_out(Sample (&samples)[2], const Kernels* (&kernels)[2], Trial& found) {
    found.equal = true;
    for (Sample& sample : samples)
        for (const int64_t rows : ROWS) {
            for (int which = 0; which < 2; which++) sample.compute(*kernels[which], rows, which);
            found.equal = found.equal && sample.same(rows);
        }
    for (int i = 0; i < 2; i++) found.times[i] = times_as_fast(samples[i], kernels);
    found.finished = true;
}

// A child dies quietly: of the signal, within the limit, without the parent's handlers and without a core file.
void die_by_default() {
    for (const int number : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT, SIGALRM}) signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(LIMIT_S);
}

}  // namespace

Trial try_kernels(const Kernels& tried, const Kernels& known) {
    // All memory is taken before the fork: another thread may hold the allocator's lock, and its copy would never be let go.
    Sample samples[2] = {{Q8, known}, {Q4, known}};
    const Kernels* kernels[2] = {&tried, &known};
    void* shared = mmap(nullptr, sizeof(Trial), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return {};
    auto* found = static_cast<Trial*>(shared);
    const pid_t child = fork();
    if (child == 0) {
        die_by_default();
        carry_out(samples, kernels, *found);
        _exit(0);
    }
    // Whether it finished is told by the memory: its exit may have been taken by another who waits for children.
    if (child > 0)
        while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {}
    const Trial result = found->finished ? *found : Trial{};
    munmap(shared, sizeof(Trial));
    return result;
}

#if defined(__x86_64__) && defined(__linux__)
namespace {

// The processor has tiles and int8 products of them (CPUID leaf 7), the system keeps both their states (XCR0), and gives them to this
// process and its children (https://docs.kernel.org/arch/x86/xstate.html).
bool is_available() {
    constexpr unsigned OSXSAVE = 1u << 27, TILE_AND_INT8 = 3u << 24, STATES = 3u << 17;
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & TILE_AND_INT8) != TILE_AND_INT8) return false;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & STATES) == STATES && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

char report[120] = "";

const Trial& trial() {
    static const Trial found = [] {
        if (&amx_kernels == nullptr || !is_available()) return Trial{};
        const Trial made = try_kernels(amx_kernels, avx512_vnni_kernels);
        if (!made.finished) std::snprintf(report, sizeof report, "the trial crashed or took too long");
        else if (!made.equal) std::snprintf(report, sizeof report, "not equal to avx512_vnni");
        else std::snprintf(report, sizeof report, "equal to avx512_vnni, %.2f (8 bits) and %.2f (4 bits) times as fast", made.times[0], made.times[1]);
        return made;
    }();
    return found;
}

}  // namespace

bool amx_is_right() { return trial().finished && trial().equal; }
bool amx_is_faster() { return amx_is_right() && trial().times[0] > 1.0 && trial().times[1] > 1.0; }
const char* amx_report() { return report; }
#endif
