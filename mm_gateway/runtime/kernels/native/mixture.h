// A mixture of experts: a row goes through the feed-forwards of the few experts that the router scores highest, and what they give is added
// up by the router's probabilities: N. Shazeer et al., https://arxiv.org/abs/1701.06538; A. Q. Jiang et al., https://arxiv.org/abs/2401.04088.
// Rows are gathered by expert, so that an expert's weights are read once for all of its rows; what a row gets does not depend on the others.
#pragma once
#include <cmath>
#include <cstring>
#include <numeric>

#include "buffers.h"
#include "kernels.h"
#include "threads.h"

namespace {

// narrow [rows][width] = activation(gate) * up of wide [rows][2][width], or activation(up) of wide [rows][width]; in pieces of 256 columns, since
// one row is to keep all threads busy too.
inline void gate_rows(Worker& worker, const FloatKernels& floats, const Buffers& buffers, int64_t rows, int64_t width, const Decoder& decoder) {
    constexpr int64_t COLUMNS = 256;
    const int64_t pieces = (width + COLUMNS - 1) / COLUMNS;
    worker.share(rows * pieces, worker.piece(rows * pieces), [&](int64_t first, int64_t last) {
        for (int64_t at = first; at < last; at++) {
            const int64_t row = at / pieces, column = at % pieces * COLUMNS;
            const float* wide = buffers.wide + row * (decoder.gated ? 2 : 1) * width + column;
            const float* up = decoder.gated ? wide + width : nullptr;
            floats.gate(wide, up, buffers.narrow + row * width + column, std::min(COLUMNS, width - column), decoder.activation);
        }
    });
}

class MixturePass {
public:
    MixturePass(const Decoder& decoder, const Mixture& mixture, const Operands& operands, const Buffers& buffers, int64_t rows)
        : decoder(decoder), mixture(mixture), operands(operands), buffers(buffers), floats(float_kernels()), rows(rows) {}

    // Adds what the experts give of `normed` to `delta`. The totals of all phases are the same whatever was chosen: a thread that comes late
    // must not take a finished phase for one of another size.
    void operator()(Worker& worker) const {
        const int64_t assigned = rows * mixture.chosen, hidden = decoder.hidden, inner = mixture.inner, panels = panels_of(*mixture.router);
        if (operands.are_prepared(*mixture.router))
            worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) {
                operands.prepare(*mixture.router, buffers.normed, buffers.prepared, first, last);
            });
        worker.share(panels, worker.piece(panels), [&](int64_t first, int64_t last) {
            operands.multiply(*mixture.router, buffers.normed, buffers.prepared, 0, buffers.scores, mixture.experts, rows, first, last);
        });
        worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) choose(row);
        });
        worker.share(1, 1, [&](int64_t, int64_t) { group(); });
        worker.share(assigned, worker.piece(assigned), [&](int64_t first, int64_t last) {
            for (int64_t at = first; at < last; at++) {
                std::memcpy(buffers.gathered + at * hidden, buffers.normed + buffers.row_of[at] * hidden, hidden * sizeof(float));
                prepare(mixture.gate_up, buffers.gathered, at);
            }
        });
        multiply(worker, mixture.gate_up, buffers.gathered, buffers.wide);
        gate_rows(worker, floats, buffers, assigned, inner, decoder);
        worker.share(assigned, worker.piece(assigned), [&](int64_t first, int64_t last) {
            for (int64_t at = first; at < last; at++) prepare(mixture.down, buffers.narrow, at);
        });
        multiply(worker, mixture.down, buffers.narrow, buffers.given);
        worker.share(rows, worker.piece(rows), [&](int64_t first, int64_t last) {
            for (int64_t row = first; row < last; row++) add_up(row);
        });
    }

private:
    // The experts of a row, in the order of their numbers, and their weights.
    void choose(int64_t row) const {
        float *scores = buffers.scores + row * mixture.experts, *weights = buffers.weights + row * mixture.chosen;
        int32_t* chosen = buffers.chosen + row * mixture.chosen;
        const float most = *std::max_element(scores, scores + mixture.experts);
        float total = 0.0f;
        for (int64_t expert = 0; expert < mixture.experts; expert++) total += scores[expert] = std::exp(scores[expert] - most);
        float taken = 0.0f;
        for (int64_t k = 0; k < mixture.chosen; k++) {
            chosen[k] = static_cast<int32_t>(std::max_element(scores, scores + mixture.experts) - scores);
            weights[k] = scores[chosen[k]] / total;
            taken += weights[k];
            scores[chosen[k]] = -1.0f;
        }
        for (int64_t k = 0; k < mixture.chosen; k++) {
            if (mixture.normalized != 0) weights[k] /= taken;
            for (int64_t at = k; at > 0 && chosen[at] < chosen[at - 1]; at--) {
                std::swap(chosen[at], chosen[at - 1]);
                std::swap(weights[at], weights[at - 1]);
            }
        }
    }

    // Gives every chosen expert of every row its place among those of its expert.
    void group() const {
        const int64_t assigned = rows * mixture.chosen;
        int32_t* starts = buffers.starts;
        std::fill(starts, starts + mixture.experts + 1, 0);
        for (int64_t i = 0; i < assigned; i++) starts[buffers.chosen[i] + 1]++;
        std::partial_sum(starts, starts + mixture.experts + 1, starts);
        for (int64_t i = 0; i < assigned; i++) {
            const int32_t expert = buffers.chosen[i], at = starts[expert]++;
            buffers.places[i] = at, buffers.row_of[at] = static_cast<int32_t>(i / mixture.chosen), buffers.expert_of[at] = expert;
        }
        for (int64_t expert = mixture.experts; expert > 0; expert--) starts[expert] = starts[expert - 1];
        starts[0] = 0;
    }

    void prepare(const Layer* const* layers, const float* x, int64_t at) const {
        const Layer& layer = *layers[buffers.expert_of[at]];
        if (operands.are_prepared(layer)) operands.prepare(layer, x, buffers.prepared, at, at + 1);
    }

    // y [assigned][outputs] of x [assigned][inputs]: every expert's layer of its rows.
    void multiply(Worker& worker, const Layer* const* layers, const float* x, float* y) const {
        const int64_t panels = panels_of(*layers[0]), outputs = layers[0]->outputs;
        worker.share(mixture.experts * panels, std::max<int64_t>(1, panels / 4), [&](int64_t first, int64_t last) {
            while (first < last) {
                const int64_t expert = first / panels, from = first % panels, to = std::min(panels, from + last - first);
                const int64_t start = buffers.starts[expert], count = buffers.starts[expert + 1] - start;
                const Layer& layer = *layers[expert];
                if (count > 0) operands.multiply(layer, x, buffers.prepared, start, y + start * outputs, outputs, count, from, to);
                first += to - from;
            }
        });
    }

    void add_up(int64_t row) const {
        float* delta = buffers.delta + row * decoder.hidden;
        for (int64_t k = 0; k < mixture.chosen; k++) {
            const float weight = buffers.weights[row * mixture.chosen + k];
            const float* given = buffers.given + buffers.places[row * mixture.chosen + k] * decoder.hidden;
            for (int64_t i = 0; i < decoder.hidden; i++) delta[i] += weight * given[i];
        }
    }

    const Decoder& decoder;
    const Mixture& mixture;
    const Operands& operands;
    const Buffers& buffers;
    const FloatKernels& floats;
    const int64_t rows;
};

}  // namespace
