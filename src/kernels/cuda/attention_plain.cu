// Attention with decomposed relative positions in float32 arithmetic, any type and head width: what holds the tensor
// cores' version to account, and the way of float32 itself (no tf32).
//
// A warp takes four queries of one head of one span at a time. Its lanes are keys for the scores and channels for the
// weighted sum. Grid: tiles of queries, heads, spans; 128 threads. Shared memory in floats: keys [32][head_width + 1],
// values [32][head_width], queries [16][head_width], positions [16][2 * side], powers [16][32].
#include "attention.cuh"

namespace {

constexpr int WARPS = 4, QUERIES = 4, BLOCK_QUERIES = WARPS * QUERIES;
constexpr int SLOTS = 8; // channels of a lane: heads of up to 256 channels

template <typename T> __device__ void attend(const AttentionArgs &args) {
    SHARED(shared);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, width = args.head_width, side = args.side;
    const Span span = span_of(args);
    const int first_query = blockIdx.x * BLOCK_QUERIES, queries_on_grid = span.tall * span.wide;
    if (first_query >= queries_on_grid) return; // the whole block
    const int channels = span.channels;
    const T *const qkv = static_cast<const T *>(args.qkv) + span.first_channel;
    const T *const bias = static_cast<const T *>(args.bias) + span.first_channel;
    const T *const relative = static_cast<const T *>(args.relative);
    const auto token = [&](int row, int column) { return token_of(args, span, row, column); };

    float *const keys = reinterpret_cast<float *>(shared);
    float *const values = keys + WARP * (width + 1);
    float *const queries = values + WARP * width + warp * QUERIES * width;
    float *const positions = values + (WARP + BLOCK_QUERIES) * width + warp * QUERIES * 2 * side;
    float *const powers = values + (WARP + BLOCK_QUERIES) * width + BLOCK_QUERIES * 2 * side + warp * QUERIES * WARP;

    int row[QUERIES], column[QUERIES];
    for (int q = 0; q < QUERIES; q++) {
        // Beyond the last query the last one is computed again.
        const int query = lesser(first_query + warp * QUERIES + q, queries_on_grid - 1);
        row[q] = query / span.wide;
        column[q] = query % span.wide;
        for (int channel = lane; channel < width; channel += WARP)
            queries[q * width + channel] = to_float(qkv[token(row[q], column[q]) * 3 * channels + channel]);
    }
    __syncwarp();
    for (int q = 0; q < QUERIES; q++)
        for (int i = lane; i < 2 * side; i += WARP) {
            const int along_columns = i / side, at = along_columns ? column[q] : row[q];
            const int entry = along_columns * (2 * side - 1) + at - i % side + side - 1;
            float sum = 0.0f;
            for (int channel = 0; channel < width; channel++)
                sum = fmaf(queries[q * width + channel], to_float(relative[int64_t(entry) * width + channel]), sum);
            positions[q * 2 * side + i] = sum;
        }

    float most[QUERIES], total[QUERIES], output[QUERIES][SLOTS] = {};
    for (int q = 0; q < QUERIES; q++) {
        most[q] = -INFINITY;
        total[q] = 0.0f;
    }
    for (int first = 0; first < side * side; first += WARP) {
        __syncthreads(); // the keys before have been used; positions are written
        for (int i = threadIdx.x; i < WARP * width; i += blockDim.x) {
            const int key = first + i / width, channel = i % width, r = key / side, c = key % side;
            const bool on_grid = r < span.tall && c < span.wide;
            const T *const from = on_grid ? qkv + token(r, c) * 3 * channels : bias;
            keys[i / width * (width + 1) + channel] = r < side ? to_float(from[channels + channel]) : 0.0f;
            values[i] = r < side ? to_float(from[2 * channels + channel]) : 0.0f;
        }
        __syncthreads();
        const int key = first + lane;
        float scores[QUERIES] = {};
        for (int channel = 0; channel < width; channel++) {
            const float k = keys[lane * (width + 1) + channel];
#pragma unroll
            for (int q = 0; q < QUERIES; q++) scores[q] = fmaf(queries[q * width + channel], k, scores[q]);
        }
#pragma unroll
        for (int q = 0; q < QUERIES; q++) {
            float score = -INFINITY;
            if (key < side * side) {
                const float *const own = positions + q * 2 * side;
                score = scores[q] * args.scale + own[key / side] + own[side + key % side];
            }
            const float before = most[q];
            most[q] = fmaxf(before, warp_max(score));
            const float factor = expf(before - most[q]), power = expf(score - most[q]);
            total[q] = total[q] * factor + warp_sum(power);
            powers[q * WARP + lane] = power;
#pragma unroll
            for (int slot = 0; slot < SLOTS; slot++) output[q][slot] *= factor;
        }
        __syncwarp(); // the other lanes' powers
        for (int other = 0; other < WARP; other++) {
#pragma unroll
            for (int slot = 0; slot < SLOTS; slot++) {
                const int channel = slot * WARP + lane;
                if (channel >= width) break;
                const float value = values[other * width + channel];
#pragma unroll
                for (int q = 0; q < QUERIES; q++) output[q][slot] = fmaf(powers[q * WARP + other], value, output[q][slot]);
            }
        }
    }
    for (int q = 0; q < QUERIES; q++) {
        if (first_query + warp * QUERIES + q >= queries_on_grid) break;
        T *const to = static_cast<T *>(args.output) + token(row[q], column[q]) * channels + span.first_channel;
        for (int slot = 0; slot < SLOTS; slot++) {
            const int channel = slot * WARP + lane;
            if (channel < width) to[channel] = from_float<T>(output[q][slot] / total[q]);
        }
    }
}

} // namespace

KERNEL(attention_plain_f32, AttentionArgs, 128) { attend<float>(args); }
KERNEL(attention_plain_bf16, AttentionArgs, 128) { attend<bf16>(args); }
KERNEL(attention_plain_f16, AttentionArgs, 128) { attend<f16>(args); }
