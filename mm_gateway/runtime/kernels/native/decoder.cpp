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

// Where queries, keys and values stand in a row of qkv: those of key head 0, and how far it is to the next.
struct Parts {
    int64_t group, key, value, next_query, next_key;

    explicit Parts(const Decoder& d) : group(d.heads / d.kv_heads) {
        key = (d.grouped ? group : d.heads) * d.head_dim;
        value = key + (d.grouped ? 1 : d.kv_heads) * d.head_dim;
        next_query = (d.grouped ? group + 2 : group) * d.head_dim;
        next_key = d.grouped ? next_query : d.head_dim;
    }
};

class Pass {
public:
    static constexpr int64_t PHASES = 40;  // more than one layer has

    Pass(const Decoder& decoder, const Step& step)
        : decoder(decoder), step(step), parts(decoder), floats(float_kernels()), buffers(decoder, step.rows, step.workspace),
          cache_rows(step.rows) {
        const int64_t most = std::max<int64_t>(1, MOST_QUERIES / parts.group);
        for (int64_t s = 0; s < step.segments; s++) {
            const Segment& segment = step.segment[s];
            for (int64_t row = 0; row < segment.rows; row++) cache_rows[segment.first_row + row] = segment.cache_row + segment.start + row;
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
            const Norm* before = index > 0 ? &decoder.layer[index - 1].after_feed_forward_norm : nullptr;
            add_and_normalize(worker, step.rows, before, layer.attention_norm, buffers.normed);
            multiply(worker, step.rows, layer.qkv, buffers.normed, buffers.qkv, (decoder.heads + 2 * decoder.kv_heads) * decoder.head_dim);
            place(worker, layer);
            const bool is_last = index + 1 == decoder.layers;
            if (is_last && step.wanted == 0) return;
            worker.share(static_cast<int64_t>(tasks.size()), 1, [&](int64_t first, int64_t last) {
                for (int64_t at = first; at < last; at++)
                    if (!is_last || is_wanted(tasks[at])) attend(layer, tasks[at]);
            });
            if (is_last) move_wanted(worker, true);
            const int64_t rows = is_last ? step.wanted : step.rows;
            multiply(worker, rows, layer.output, buffers.attended, buffers.delta, decoder.hidden);
            add_and_normalize(worker, rows, &layer.after_attention_norm, layer.feed_forward_norm, buffers.normed, decoder.parallel);
            feed_forward(worker, rows, layer);
        }
        add_and_normalize(worker, step.wanted, &decoder.layer[decoder.layers - 1].after_feed_forward_norm, decoder.last_norm, step.x);
        move_wanted(worker, false);
    }

private:
    static int64_t cost(const Task& task) { return task.rows * (task.segment->start + task.row + task.rows); }

    bool is_wanted(const Task& task) const {
        const int64_t first = task.segment->first_row + task.row, *end = step.wanted_row + step.wanted;
        const int64_t* next = std::lower_bound(step.wanted_row, end, first);
        return next != end && *next < first + task.rows;
    }

    // Brings x and what was attended of the wanted rows to the front, or x back from there.
    void move_wanted(Worker& worker, bool to_front) const {
        if (step.wanted == step.rows) return;
        const int64_t width = decoder.heads * decoder.head_dim;
        worker.share(1, 1, [&](int64_t, int64_t) {
            for (int64_t i = 0; i < step.wanted; i++) {
                const int64_t place = to_front ? i : step.wanted - 1 - i, row = step.wanted_row[place];
                float *front = step.x + place * decoder.hidden, *own = step.x + row * decoder.hidden;
                if (row == place) continue;
                if (to_front) std::copy_n(buffers.attended + row * width, width, buffers.attended + place * width);
                std::copy_n(to_front ? own : front, decoder.hidden, to_front ? front : own);
            }
        });
    }

    // Of the first `rows` rows: x += norm(delta), where there is one; y = norm(x), of the x before where `of_before`.
    void add_and_normalize(Worker& worker, int64_t rows, const Norm* delta_norm, const Norm& norm, float* y, bool of_before = false) const {
        const int64_t width = decoder.hidden;
        worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                float *x = step.x + row * width, *delta = buffers.delta + row * width;
                if (of_before) floats.normalize(norm, x, y + row * width);
                if (delta_norm != nullptr) {
                    floats.normalize(*delta_norm, delta, delta);
                    floats.add(x, delta, static_cast<float>(decoder.factor), width);
                }
                if (!of_before) floats.normalize(norm, x, y + row * width);
            }
        });
    }

    // y [rows][width]
    void multiply(Worker& worker, int64_t rows, const Projection& projection, const float* x, float* y, int64_t width) const {
        const Layer* prepared_for = nullptr;
        for (int64_t index = 0; index < projection.count; index++) {
            const Layer& layer = *projection.layers[index];
            const int64_t panels = panels_of(layer);
            if (operands.are_prepared(layer) && (prepared_for == nullptr || !Operands::are_alike(*prepared_for, layer))) {
                worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) { operands.prepare(layer, x, buffers.prepared, first, last); });
                prepared_for = &layer;
            }
            worker.share(panels, worker.piece(panels, of_numbers(layer) ? PANELS_AT_ONCE : 1), [&](int64_t first, int64_t last) {
                operands.multiply(layer, x, buffers.prepared, 0, y, width, rows, first, last);
            });
            y += layer.outputs;
        }
    }

    // Rotates queries and keys, and writes keys and values into the cache.
    void place(Worker& worker, const DecoderLayer& layer) const {
        const int64_t dim = decoder.head_dim, width = (decoder.heads + 2 * decoder.kv_heads) * dim;
        worker.share(step.rows, worker.piece(step.rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                float* x = buffers.qkv + row * width;
                normalize_heads(layer.query_norm, x, decoder.heads * dim);
                normalize_heads(layer.key_norm, x + decoder.heads * dim, decoder.kv_heads * dim);
                if (layer.rotary >= 0) rotate(layer, row, x);
                for (int64_t head = 0; head < decoder.kv_heads; head++) {
                    const int64_t at = (cache_rows[row] * decoder.kv_heads + head) * decoder.head_bytes;
                    floats.narrow(x + parts.key + head * parts.next_key, dim, decoder.cells, layer.keys + at);
                    floats.narrow(x + parts.value + head * parts.next_key, dim, decoder.cells, layer.values + at);
                }
            }
        });
    }

    void normalize_heads(const Norm& norm, float* x, int64_t width) const {
        if (norm.kind == NORM_NONE) return;
        for (int64_t at = 0; at < width; at += norm.width) floats.normalize(norm, x + at, x + at);
    }

    void rotate(const DecoderLayer& layer, int64_t row, float* x) const {
        const int64_t half = decoder.rotary_dim / 2;
        const float *cosines = step.cosines[layer.rotary] + row * half, *sines = step.sines[layer.rotary] + row * half;
        for (int64_t head = 0; head < decoder.kv_heads; head++) {
            for (int64_t query = 0; query < parts.group; query++)
                floats.rotate(x + head * parts.next_query + query * decoder.head_dim, cosines, sines, half, decoder.pairs);
            floats.rotate(x + parts.key + head * parts.next_key, cosines, sines, half, decoder.pairs);
        }
    }

    void attend(const DecoderLayer& layer, const Task& task) const {
        const int64_t dim = decoder.head_dim, group = parts.group;
        const int64_t kv_stride = decoder.kv_heads * decoder.head_bytes;
        const int64_t row = task.segment->first_row + task.row;
        const int64_t qkv_stride = (decoder.heads + 2 * decoder.kv_heads) * dim, out_stride = decoder.heads * dim;
        const int64_t cache = task.segment->cache_row * kv_stride + task.kv_head * decoder.head_bytes;
        floats.attend({task.rows, group, dim, buffers.qkv + row * qkv_stride + task.kv_head * parts.next_query, qkv_stride, layer.keys + cache,
                       layer.values + cache, kv_stride, decoder.cells, task.segment->start + task.row, layer.window,
                       static_cast<float>(layer.scale), static_cast<float>(layer.cap), buffers.attended + row * out_stride + task.kv_head * group * dim, out_stride});
    }

    void feed_forward(Worker& worker, int64_t rows, const DecoderLayer& layer) const {
        if (layer.feed_forward > 0) {
            multiply(worker, rows, layer.gate_up, buffers.normed, buffers.wide, (decoder.gated ? 2 : 1) * layer.feed_forward);
            gate_rows(worker, floats, buffers, rows, layer.feed_forward, decoder);
            multiply(worker, rows, layer.down, buffers.narrow, buffers.delta, decoder.hidden);
        }
        if (layer.mixture == nullptr) return;
        const Projection* gate = layer.mixture->shared_gate;
        if (gate != nullptr) multiply(worker, rows, *gate, buffers.normed, buffers.narrow, 1);
        worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) {
                const float weight = gate != nullptr ? 1.0f / (1.0f + std::exp(-buffers.narrow[row])) : 0.0f;
                float* delta = buffers.delta + row * decoder.hidden;
                for (int64_t i = 0; i < decoder.hidden; i++) delta[i] = gate != nullptr ? delta[i] * weight : 0.0f;
            }
        });
        MixturePass(decoder, *layer.mixture, operands, buffers, rows)(worker);
    }

    const Decoder& decoder;
    const Step& step;
    const Parts parts;
    const FloatKernels& floats;
    const Operands operands;
    const Buffers buffers;
    std::vector<int64_t> cache_rows;  // where each row's keys and values go
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
