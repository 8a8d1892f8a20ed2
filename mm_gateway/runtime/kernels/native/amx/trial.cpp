#include "trial.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
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

#include "../fp16.h"

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

// A layer of random numbers, rows, and room for the results of two kernels.
struct SampleOfNumbers {
    explicit SampleOfNumbers(Kind kind) : weights(INPUTS * panels_of(Layer{kind, OUTPUTS}) * PANEL), x(ROWS[0] * INPUTS), parts(ROWS[0] * split_bytes(INPUTS) + 64) {
        std::mt19937 random(kind);
        for (float& number : x) number = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
        for (float& number : weights) {
            const auto size = static_cast<uint16_t>(kind == BF16 ? 0x3D00 + random() % (1 << 9) : 0x2800 + random() % (1 << 12));  // 0.03 to 0.5
            const auto half = static_cast<uint16_t>(random() % 2 << 15 | size);
            number = kind == FP32 ? static_cast<float>(random() % 2001) / 1000.0f - 1.0f : kind == FP16 ? from_fp16(half) : from_bf16(half);
            if (kind != FP32) halves.push_back(half);
        }
        if (kind == BF16) put_in_pairs();
        const void* numbers = kind == FP32 ? static_cast<const void*>(weights.data()) : halves.data();
        layer = Layer{kind, OUTPUTS, INPUTS, static_cast<const uint8_t*>(numbers), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
        for (auto& results : y) results.resize(ROWS[0] * OUTPUTS);
    }

    void compute(const FloatKernels& kernels, int64_t rows, int which) {
        char* const aligned = parts.data() + (64 - reinterpret_cast<uintptr_t>(parts.data()) % 64) % 64;
        if (kernels.split != nullptr) kernels.split(layer, x.data(), aligned, 0, rows);
        const void* from = kernels.split != nullptr ? static_cast<const void*>(aligned) : x.data();
        kernels.multiply(layer, from, y[which].data(), OUTPUTS, rows, 0, panels_of(layer));
    }

    // Whether all results of some rows are near those of float64.
    bool is_right() const {
        constexpr double BOUND = 2e-6;  // of the sum of the terms' sizes
        for (const int64_t row : {int64_t{0}, int64_t{17}, ROWS[0] - 1})
            for (int64_t output = 0; output < OUTPUTS; output++) {
                double sum = 0, size = 0;
                for (int64_t i = 0; i < INPUTS; i++) {
                    const double term = double{x[row * INPUTS + i]} * weights[(output / PANEL * INPUTS + i) * PANEL + output % PANEL];
                    sum += term, size += std::fabs(term);
                }
                if (!(std::fabs(y[0][row * OUTPUTS + output] - sum) <= BOUND * size)) return false;
            }
        return true;
    }

    // As weights of bf16 lie: two inputs together, an odd number of them filled up by a zero.
    void put_in_pairs() {
        constexpr int64_t PAIRS = (INPUTS + 1) / 2;
        std::vector<uint16_t> pairs(halves.size() / INPUTS * 2 * PAIRS);
        for (int64_t at = 0; at < static_cast<int64_t>(halves.size()); at++) {
            const int64_t panel = at / PANEL / INPUTS, input = at / PANEL % INPUTS;
            pairs[((panel * PAIRS + input / 2) * PANEL + at % PANEL) * 2 + input % 2] = halves[at];
        }
        halves = std::move(pairs);
    }

    // Weights come from memory, as those of a model do.
    void forget() const {
        const int64_t bytes = INPUTS * panels_of(layer) * PANEL * static_cast<int64_t>(layer.kind == FP32 ? sizeof(float) : sizeof(uint16_t));
#if defined(__x86_64__)
        for (int64_t at = 0; at < bytes; at += 64) __builtin_ia32_clflush(layer.quants + at);
#endif
    }

    Layer layer;
    std::vector<float> weights, x, y[2];
    std::vector<uint16_t> halves;
    std::vector<char> parts;
};

// How many times as fast the first is: the shortest of some rounds, in turn, since other processes only make one longer.
template <class Compute, class Before>
double times_as_fast(Compute compute, Before before) {
    using Clock = std::chrono::steady_clock;
    Clock::duration shortest[2] = {Clock::duration::max(), Clock::duration::max()};
    for (int round = 0; round < ROUNDS; round++)
        for (int which = 0; which < 2; which++) {
            before();
            const auto start = Clock::now();
            compute(which);
            shortest[which] = std::min(shortest[which], Clock::now() - start);
        }
    return std::chrono::duration<double>(shortest[1]) / std::chrono::duration<double>(shortest[0]);
}

void carry_out(SampleOfNumbers (&samples)[3], const FloatKernels* (&kernels)[2], Trial& found) {
    found.equal = true;
    for (SampleOfNumbers& sample : samples) {
        sample.compute(*kernels[0], ROWS[0], 0);
        sample.compute(*kernels[0], 1, 1);
        found.equal = found.equal && sample.is_right() && std::memcmp(sample.y[0].data(), sample.y[1].data(), OUTPUTS * sizeof(float)) == 0;
    }
    SampleOfNumbers& timed = samples[0];
    const int64_t rows[] = {1, ROWS[0]};
    for (int i = 0; i < 2; i++) found.times[i] = times_as_fast([&](int which) { timed.compute(*kernels[which], rows[i], which); }, [&] { timed.forget(); });
    found.finished = true;
}

void carry_out(Sample (&samples)[2], const Kernels* (&kernels)[2], Trial& found) {
    found.equal = true;
    for (Sample& sample : samples)
        for (const int64_t rows : ROWS) {
            for (int which = 0; which < 2; which++) sample.compute(*kernels[which], rows, which);
            found.equal = found.equal && sample.same(rows);
        }
    for (int i = 0; i < 2; i++) found.times[i] = times_as_fast([&](int which) { samples[i].compute(*kernels[which], ROWS[0], which); }, [] {});
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

// All memory is taken before the fork: another thread may hold the allocator's lock, and its copy would never be let go.
template <class Samples, class Kernels>
Trial in_child(Samples& samples, const Kernels& tried, const Kernels& known) {
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

}  // namespace

Trial try_kernels(const Kernels& tried, const Kernels& known) {
    Sample samples[2] = {{Q8, known}, {Q4, known}};
    return in_child(samples, tried, known);
}

Trial try_floats(const FloatKernels& tried, const FloatKernels& known) {
    SampleOfNumbers samples[3] = {SampleOfNumbers(BF16), SampleOfNumbers(FP16), SampleOfNumbers(FP32)};
    return in_child(samples, tried, known);
}

#if defined(__x86_64__) && defined(__linux__)
namespace {

// The processor has tiles and these products of them (CPUID leaf 7), the system keeps both their states (XCR0), and gives them to this
// process and its children (https://docs.kernel.org/arch/x86/xstate.html).
constexpr unsigned TILE = 1u << 24, INT8 = 1u << 25, BF16_PAIRS = 1u << 22;

bool is_available(unsigned products) {
    constexpr unsigned OSXSAVE = 1u << 27, STATES = 3u << 17;
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (TILE | products)) != (TILE | products)) return false;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & STATES) == STATES && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

char report[120] = "", report_of_numbers[120] = "", both_reports[sizeof report + sizeof report_of_numbers];

const Trial& trial() {
    static const Trial found = [] {
        if (&amx_kernels == nullptr || !is_available(INT8)) return Trial{};
        const Trial made = try_kernels(amx_kernels, avx512_vnni_kernels);
        if (!made.finished) std::snprintf(report, sizeof report, "the trial crashed or took too long");
        else if (!made.equal) std::snprintf(report, sizeof report, "not equal to avx512_vnni");
        else std::snprintf(report, sizeof report, "equal to avx512_vnni, %.2f (8 bits) and %.2f (4 bits) times as fast", made.times[0], made.times[1]);
        return made;
    }();
    return found;
}

const Trial& trial_of_numbers() {
    static const Trial found = [] {
        if (&amx_floats == nullptr || !is_available(BF16_PAIRS)) return Trial{};
        const Trial made = try_floats(amx_floats, avx512_floats);
        const auto tell = [](auto... words) { std::snprintf(report_of_numbers, sizeof report_of_numbers, words...); };
        if (!made.finished) tell("; of numbers: the trial crashed or took too long");
        else if (!made.equal) tell("; of numbers: not right");
        else tell("; of numbers: right, with bf16 %.2f (one row) and %.2f (many) times as fast as avx512", made.times[0], made.times[1]);
        return made;
    }();
    return found;
}

}  // namespace

bool amx_is_right() { return trial().finished && trial().equal; }
bool amx_is_faster() { return amx_is_right() && trial().times[0] > 1.0 && trial().times[1] > 1.0; }
bool amx_floats_are_right() { return trial_of_numbers().finished && trial_of_numbers().equal; }
// One row is bound by memory, and may lose a little.
bool amx_is_faster_with_bf16() { return amx_floats_are_right() && trial_of_numbers().times[0] > 0.8 && trial_of_numbers().times[1] > 1.0; }
const char* amx_report() {
    std::snprintf(both_reports, sizeof both_reports, "%s%s", report, report_of_numbers);
    return both_reports;
}
#endif
