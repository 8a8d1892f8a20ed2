// A step of a whole model but for what is drawn from its logits, as one call: the caller holds a lock (Python's) that others want meanwhile.
// Mirrored by model.py; the memory belongs to the caller.
#include <algorithm>
#include <vector>

#include "decoder.h"
#include "kernels.h"

namespace {

// Rows that go through the layers at once: more give nothing, and take memory for what stands between the products.
constexpr int64_t MOST_ROWS = 256;

struct Model {
    const Decoder* decoder;
    const Layer* embeddings;  // whose outputs' weights are the tokens' embeddings; null: x holds them
    double factor;            // of embeddings that are looked up
    const Layer* head;        // the output layer; null: no logits are computed
};

struct ModelStep {
    int64_t rows;
    const int64_t* tokens;               // [rows]
    const int64_t* angles;               // [rows]: where in the tables their cosines and sines are
    const float *cosines[2], *sines[2];  // [...][rotary_dim / 2]
    float* x;                            // [rows][hidden]: becomes the last hidden states, of rows that are wanted
    int64_t segments;
    const Segment* segment;
    int64_t wanted;
    const int64_t* wanted_row;  // [wanted]: rows whose logits are
    int64_t all_hidden;         // whether all rows' last hidden states are wanted, else only those
    float* logits;              // [wanted][outputs of head]
    float* workspace;           // of model_workspace bytes
};

int64_t table_width(const Model& model) { return model.decoder->rotary_dim / 2; }

// Floats at the beginning of the workspace for the tables' rows, then for the wanted rows; the rest is the decoder's.
int64_t gathered_floats(const Model& model, int64_t rows, int64_t wanted) {
    constexpr int64_t ALIGNED = 16;
    const int64_t most = std::max(4 * std::min(rows, MOST_ROWS) * table_width(model), wanted * model.decoder->hidden);
    return (most + ALIGNED - 1) / ALIGNED * ALIGNED;
}

// The parts of segments in rows `first` to `last`, counted from `first`.
std::vector<Segment> within(const ModelStep& step, int64_t first, int64_t last) {
    std::vector<Segment> parts;
    for (int64_t at = 0; at < step.segments; at++) {
        const Segment& segment = step.segment[at];
        const int64_t start = std::max(segment.first_row, first), stop = std::min(segment.first_row + segment.rows, last);
        if (start < stop) parts.push_back({start - first, stop - start, segment.start + start - segment.first_row, segment.cache_row});
    }
    return parts;
}

// Those of rows `first` to `last` whose last hidden states are wanted, counted from `first`, ascending.
std::vector<int64_t> wanted_within(const ModelStep& step, int64_t first, int64_t last) {
    std::vector<int64_t> rows;
    for (int64_t row = first; step.all_hidden != 0 && row < last; row++) rows.push_back(row - first);
    for (int64_t at = 0; step.all_hidden == 0 && at < step.wanted; at++)
        if (step.wanted_row[at] >= first && step.wanted_row[at] < last) rows.push_back(step.wanted_row[at] - first);
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    return rows;
}

// The rows `from` [count] of a table, one after the other.
const float* gather(const float* table, const int64_t* from, int64_t count, int64_t width, float*& to) {
    const float* gathered = to;
    for (int64_t row = 0; row < count; row++) to = std::copy_n(table + from[row] * width, width, to);
    return gathered;
}

}  // namespace

extern "C" {
int64_t decoder_workspace(const Decoder*, int64_t rows);
void decoder_run(const Decoder*, const Step*, int threads);
void block_linear(const Layer*, const float* x, float* y, int64_t rows, int threads);
void block_linear_rows(const Layer*, const int64_t* ids, float* y, int64_t count, int threads);
}

// Bytes of workspace that a step of so many rows needs.
EXPORT int64_t model_workspace(const Model* model, int64_t rows, int64_t wanted) {
    return decoder_workspace(model->decoder, std::min(rows, MOST_ROWS)) + gathered_floats(*model, rows, wanted) * static_cast<int64_t>(sizeof(float));
}

EXPORT void model_run(const Model* model, const ModelStep* given, int threads) {
    const ModelStep& step = *given;
    const int64_t hidden = model->decoder->hidden, width = table_width(*model);
    float* const decoder_space = step.workspace + gathered_floats(*model, step.rows, step.wanted);
    if (model->embeddings != nullptr) {
        block_linear_rows(model->embeddings, step.tokens, step.x, step.rows, threads);
        const float factor = static_cast<float>(model->factor);
        if (factor != 1.0f)
            for (int64_t i = 0; i < step.rows * hidden; i++) step.x[i] *= factor;
    }
    for (int64_t first = 0; first < step.rows; first += MOST_ROWS) {
        const int64_t count = std::min(MOST_ROWS, step.rows - first);
        const std::vector<Segment> parts = within(step, first, first + count);
        const std::vector<int64_t> wanted = wanted_within(step, first, first + count);
        Step part{count, step.x + first * hidden, {}, {}, static_cast<int64_t>(parts.size()), parts.data(), static_cast<int64_t>(wanted.size()),
                  wanted.data(), decoder_space};
        float* to = step.workspace;
        for (int table = 0; table < 2; table++) {
            if (step.cosines[table] == nullptr) continue;
            part.cosines[table] = gather(step.cosines[table], step.angles + first, count, width, to);
            part.sines[table] = gather(step.sines[table], step.angles + first, count, width, to);
        }
        decoder_run(model->decoder, &part, threads);
    }
    if (model->head == nullptr || step.wanted == 0) return;
    float* to = step.workspace;
    const float* x = gather(step.x, step.wanted_row, step.wanted, hidden, to);
    block_linear(model->head, x, step.logits, step.wanted, threads);
}
