#include "decoder.h"

#include <vector>

#include "buffers.h"
#include "kernels.h"
#include "mixture.h"
#include "threads.h"

namespace {

// Queries of one key head, of neighbouring rows of one sequence.
struct Task {
    const Segment* segment;
    int64_t row, rows, kv_head;
};

class Pass {
public:
    static constexpr int64_t PHASES = 40;  // more than one layer has

    Pass(const Decoder& decoder, const Step& step)
        : decoder(decoder), step(step), floats(float_kernels()), blocks(block_kernels()), buffers(decoder, step.rows, step.workspace) {
        const int64_t most = std::max<int64_t>(1, MOST_QUERIES / (decoder.heads / decoder.kv_heads));
        for (int64_t s = 0; s < step.segments; s++) {
            const Segment& segment = step.segment[s];
            for (int64_t row = 0; row < segment.rows; row += most)
                for (int64_t head = 0; head < decoder.kv_heads; head++)
                    tasks.push_back({&segment, row, std::min(most, segment.rows - row), head});
        }
        // The longest first, so that no thread begins one when the others are done.
        std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return cost(a) > cost(b); });
    }

    // Up to `most`, of which a second must have enough to do between two meetings.
    int threads(int most) const {
        constexpr int64_t WORTHWHILE = 1 << 19;  // multiplications of a layer
        const int64_t projections = 2 * (decoder.heads + decoder.kv_heads) * decoder.head_dim;
        const Widths widest(decoder);
        return step.rows * decoder.hidden * (projections + 3 * (widest.feed_forward + widest.chosen * widest.inner)) < WORTHWHILE ? 1 : most;
    }

    // Called by every thread of the worker.
    void operator()(Worker& worker) const {
        for (int64_t index = 0; index < decoder.layers; index++) {
            const DecoderLayer& layer = decoder.layer[index];
            const float* before = index > 0 ? decoder.layer[index - 1].after_feed_forward_norm : nullptr;
            add_and_normalize(worker, index > 0, before, layer.attention_norm, buffers.normed);
            multiply(worker, layer.qkv, buffers.normed, buffers.qkv, (decoder.heads + 2 * decoder.kv_heads) * decoder.head_dim);
            place(worker, layer);
            worker.share(static_cast<int64_t>(tasks.size()), 1, [&](int64_t first, int64_t last) {
                for (int64_t at = first; at < last; at++) attend(layer, tasks[at]);
            });
            multiply(worker, layer.output, buffers.attended, buffers.delta, decoder.hidden);
            add_and_normalize(worker, true, layer.after_attention_norm, layer.feed_forward_norm, buffers.normed);
            feed_forward(worker, layer);
        }
        add_and_normalize(worker, true, decoder.layer[decoder.layers - 1].after_feed_forward_norm, decoder.last_norm, step.x);
    }

private:
    static int64_t cost(const Task& task) { return task.rows * (task.segment->start + task.row + task.rows); }

    // x += delta, or its norm; y = norm(x).
    void add_and_normalize(Worker& worker, bool adds, const float* delta_norm, const float* norm, float* y) const {
        const int64_t width = decoder.hidden;
        const float epsilon = static_cast<float>(decoder.epsilon);
        worker.share(step.rows, worker.piece(step.rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                float *x = step.x + row * width, *delta = buffers.delta + row * width;
                if (adds && delta_norm != nullptr) floats.normalize(delta, delta_norm, delta, width, epsilon);
                if (adds) floats.add(x, delta, width);
                floats.normalize(x, norm, y + row * width, width, epsilon);
            }
        });
    }

    // y [rows][width]
    void multiply(Worker& worker, const Projection& projection, const float* x, float* y, int64_t width) const {
        const Layer* quantized_for = nullptr;
        for (int64_t index = 0; index < projection.count; index++) {
            const Layer& layer = *projection.layers[index];
            const int64_t panels = panels_of(layer);
            if (of_numbers(layer)) {
                worker.share(panels, worker.piece(panels, 4), [&](int64_t first, int64_t last) {
                    floats.multiply(layer, x, y, width, step.rows, first, last);
                });
            } else {
                if (quantized_for == nullptr || quantized_for->kind != layer.kind)
                    worker.share(step.rows, worker.piece(step.rows), [&](int64_t first, int64_t last) {
                        blocks.quantize(layer, x, buffers.activations, first, last);
                    });
                quantized_for = &layer;
                worker.share(panels, worker.piece(panels), [&](int64_t first, int64_t last) {
                    blocks.multiply(layer, buffers.activations, y, width, step.rows, first, last);
                });
            }
            y += layer.outputs;
        }
    }

    // Rotates queries and keys, and writes keys and values into the cache.
    void place(Worker& worker, const DecoderLayer& layer) const {
        const int64_t dim = decoder.head_dim, half = decoder.rotary_dim / 2;
        const float epsilon = static_cast<float>(decoder.epsilon);
        worker.share(step.segments, 1, [&](int64_t from, int64_t to) {
            for (int64_t s = from; s < to; s++) {
                const Segment& segment = step.segment[s];
                for (int64_t i = 0; i < segment.rows; i++) {
                    const int64_t row = segment.first_row + i;
                    float* x = buffers.qkv + row * (decoder.heads + 2 * decoder.kv_heads) * dim;
                    const float *cosines = step.cosines[layer.rotary] + row * half, *sines = step.sines[layer.rotary] + row * half;
                    for (int64_t head = 0; head < decoder.heads + decoder.kv_heads; head++) {
                        const float* norm = head < decoder.heads ? layer.query_norm : layer.key_norm;
                        if (norm != nullptr) floats.normalize(x + head * dim, norm, x + head * dim, dim, epsilon);
                        floats.rotate(x + head * dim, cosines, sines, half);
                    }
                    const float *keys = x + decoder.heads * dim, *values = keys + decoder.kv_heads * dim;
                    for (int64_t head = 0; head < decoder.kv_heads; head++) {
                        const int64_t at = ((segment.cache_row + segment.start + i) * decoder.kv_heads + head) * decoder.head_bytes;
                        floats.narrow(keys + head * dim, dim, decoder.cells, layer.keys + at);
                        floats.narrow(values + head * dim, dim, decoder.cells, layer.values + at);
                    }
                }
            }
        });
    }

    void attend(const DecoderLayer& layer, const Task& task) const {
        const int64_t dim = decoder.head_dim, group = decoder.heads / decoder.kv_heads;
        const int64_t kv_stride = decoder.kv_heads * decoder.head_bytes;
        const int64_t row = task.segment->first_row + task.row, head = task.kv_head * group * dim;
        const int64_t qkv_stride = (decoder.heads + 2 * decoder.kv_heads) * dim, out_stride = decoder.heads * dim;
        const int64_t cache = task.segment->cache_row * kv_stride + task.kv_head * decoder.head_bytes;
        floats.attend({task.rows, group, dim, buffers.qkv + row * qkv_stride + head, qkv_stride, layer.keys + cache, layer.values + cache,
                       kv_stride, decoder.cells, task.segment->start + task.row, layer.window, static_cast<float>(layer.scale),
                       buffers.attended + row * out_stride + head, out_stride});
    }

    void feed_forward(Worker& worker, const DecoderLayer& layer) const {
        if (layer.feed_forward > 0) {
            multiply(worker, layer.gate_up, buffers.normed, buffers.wide, 2 * layer.feed_forward);
            gate_rows(worker, floats, buffers, step.rows, layer.feed_forward, decoder.activation);
            multiply(worker, layer.down, buffers.narrow, buffers.delta, decoder.hidden);
        }
        if (layer.mixture == nullptr) return;
        const Projection* gate = layer.mixture->shared_gate;
        if (gate != nullptr) multiply(worker, *gate, buffers.normed, buffers.narrow, 1);
        worker.share(step.rows, worker.piece(step.rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                const float weight = gate != nullptr ? 1.0f / (1.0f + std::exp(-buffers.narrow[row])) : 0.0f;
                float* delta = buffers.delta + row * decoder.hidden;
                for (int64_t i = 0; i < decoder.hidden; i++) delta[i] = gate != nullptr ? delta[i] * weight : 0.0f;
            }
        });
        MixturePass(decoder, *layer.mixture, buffers, step.rows)(worker);
    }

    const Decoder& decoder;
    const Step& step;
    const FloatKernels& floats;
    const Kernels& blocks;
    const Buffers buffers;
    std::vector<Task> tasks;
};

}  // namespace

// Bytes of workspace that a step of so many rows needs.
EXPORT int64_t decoder_workspace(const Decoder* decoder, int64_t rows) {
    return (Buffers(*decoder, rows, nullptr).end - static_cast<float*>(nullptr)) * static_cast<int64_t>(sizeof(float));
}

EXPORT void decoder_run(const Decoder* decoder, const Step* step, int threads) {
    const Pass pass(*decoder, *step);
    together(pass.threads(threads), Pass::PHASES * (decoder->layers + 1), pass);
}
