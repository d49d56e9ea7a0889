// Attention with decomposed relative positions on tensor cores, bfloat16 and float16, sums in float32.
//
// A block takes 16 queries a warp of one head of one span, and goes through the span's keys 64 at a time with a running
// maximum and sum, so that the matrix of scores never exists. What a query adds for a key's row and column is a product
// of the query with the tables, done first and kept in shared memory. Tokens that pad a partition have the qkv
// projection's bias as key and value; as queries they are left out.
//
// Grid: tiles of queries, heads, spans. Shared memory: two stages of keys and values, [2][2][64][D + 8] elements, the
// second of which holds the queries at first, then positions, [queries][2 * side + 1] floats, then where the keys of a
// tile lie, [64] integers.
#include "attention.cuh"

namespace {

constexpr int KEYS = 64;          // of a tile
constexpr int CHUNK = 8;          // elements of a 16-byte copy
constexpr int PAD = CHUNK;        // behind each row, so that rows fall on different banks
constexpr float LOG2_E = 1.44269504088896341f;

// Rows `first` to `first + KEYS` of a table, zeros beyond its `count` entries.
template <typename T, int D>
__device__ void copy_table(T *to, const T *table, int first, int count, int head_width) {
    for (int i = threadIdx.x; i < KEYS * (D / CHUNK); i += blockDim.x) {
        const int entry = first + i / (D / CHUNK), channel = i % (D / CHUNK) * CHUNK;
        const bool zeros = entry >= count || channel >= head_width;
        const T *from = table + (zeros ? 0 : int64_t(entry) * head_width + channel);
        copy_async(to + i / (D / CHUNK) * (D + PAD) + channel, from, zeros);
    }
}

// Keys (`which` 1) or values (2) of a tile.
template <typename T, int D>
__device__ void copy_keys(T *to, const AttentionArgs &args, const Span &span, int first, int which) {
    const T *qkv = static_cast<const T *>(args.qkv), *bias = static_cast<const T *>(args.bias);
    const int offset = which * span.channels + span.first_channel;
    for (int i = threadIdx.x; i < KEYS * (D / CHUNK); i += blockDim.x) {
        const int key = first + i / (D / CHUNK), channel = i % (D / CHUNK) * CHUNK;
        const int row = key / args.side, column = key % args.side;
        const bool zeros = row >= args.side || channel >= args.head_width;
        const bool on_grid = row < span.tall && column < span.wide;
        const T *from = bias + offset;
        if (on_grid) from = qkv + token_of(args, span, row, column) * (3 * span.channels) + offset;
        copy_async(to + i / (D / CHUNK) * (D + PAD) + channel, from + (zeros ? 0 : channel), zeros);
    }
}

// The queries from `first` on, zeros beyond those on the grid.
template <typename T, int D>
__device__ void copy_queries(T *to, const AttentionArgs &args, const Span &span, int first, int count) {
    const T *qkv = static_cast<const T *>(args.qkv) + span.first_channel;
    for (int i = threadIdx.x; i < count * (D / CHUNK); i += blockDim.x) {
        const int query = first + i / (D / CHUNK), channel = i % (D / CHUNK) * CHUNK;
        const int row = query / span.wide, column = query % span.wide;
        const bool zeros = row >= span.tall || channel >= args.head_width;
        const T *from = qkv;
        if (!zeros) from += token_of(args, span, row, column) * (3 * span.channels) + channel;
        copy_async(to + i / (D / CHUNK) * (D + PAD) + channel, from, zeros);
    }
}

// sums[n] = queries (16 of this warp) times rows 8 n to 8 n + 8 of a tile, for its first `groups` groups of 16 rows.
template <typename T, int D>
__device__ void scores_of(float (&sums)[KEYS / 8][4], const uint32_t (&queries)[D / 16][4], const T *tile, int groups) {
    const int lane = threadIdx.x % WARP;
    const T *row = tile + (lane / 16 * 8 + lane % 8) * (D + PAD) + lane / 8 % 2 * 8;
#pragma unroll
    for (int group = 0; group < KEYS / 16; group++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[2 * group][i] = sums[2 * group + 1][i] = 0.0f;
        if (group < groups) {
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                uint32_t keys[4];
                load_matrices(keys, row + group * 16 * (D + PAD) + step * 16);
                const uint32_t upper[2] = {keys[0], keys[1]}, lower[2] = {keys[2], keys[3]};
                mma<T>(sums[2 * group], queries[step], upper);
                mma<T>(sums[2 * group + 1], queries[step], lower);
            }
        }
    }
}

template <typename T, int D> __device__ void attend(const AttentionArgs &args) {
    SHARED(shared);
    constexpr int STRIDE = D + PAD, TILE = KEYS * STRIDE;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, block_queries = blockDim.x / WARP * 16;
    const Span span = span_of(args);
    const int queries_on_grid = span.tall * span.wide, first_query = blockIdx.x * block_queries;
    if (first_query >= queries_on_grid) return; // the whole block
    T *const stages = reinterpret_cast<T *>(shared); // stage s: keys at 2 s TILE, values behind them
    float *const positions = reinterpret_cast<float *>(stages + 4 * TILE);
    const int row_of_positions = 2 * args.side + 1;
    int *const places = reinterpret_cast<int *>(positions + block_queries * row_of_positions);

    copy_queries<T, D>(stages + 2 * TILE, args, span, first_query, block_queries);
    commit_copies();
    await_copies<0>();
    __syncthreads();
    uint32_t queries[D / 16][4];
    {
        const T *row = stages + 2 * TILE + (warp * 16 + lane % 16) * STRIDE + lane / 16 * 8;
#pragma unroll
        for (int step = 0; step < D / 16; step++) load_matrices(queries[step], row + step * 16);
    }

    // This lane's two queries, and where they lie in the span.
    int query_row[2], query_column[2];
    bool is_query[2];
    float *own_positions[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int index = warp * 16 + lane / 4 + 8 * half, query = first_query + index;
        query_row[half] = query / span.wide;
        query_column[half] = query % span.wide;
        is_query[half] = query < queries_on_grid;
        own_positions[half] = positions + index * row_of_positions;
    }
    const bool is_warp = first_query + warp * 16 < queries_on_grid;

    float sums[KEYS / 8][4];
    const int entries = 2 * args.side - 1;
    for (int table = 0; table < 2; table++) {
        const T *values = static_cast<const T *>(args.relative) + int64_t(table) * entries * args.head_width;
        for (int first = 0; first < entries; first += KEYS) {
            __syncthreads(); // the tile before has been read
            copy_table<T, D>(stages, values, first, entries, args.head_width);
            commit_copies();
            await_copies<0>();
            __syncthreads();
            if (!is_warp) continue;
            const int left = lesser(entries - first, KEYS);
            scores_of<T, D>(sums, queries, stages, (left + 15) / 16);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    // Entry a - c + side - 1 is that of query a and key c.
                    const int entry = first + n * 8 + lane % 4 * 2 + i % 2, half = i / 2;
                    const int at = table ? query_column[half] : query_row[half], key = at + args.side - 1 - entry;
                    if (entry < entries && is_query[half] && key >= 0 && key < args.side)
                        own_positions[half][table * args.side + key] = sums[n][i] * LOG2_E;
                }
            }
        }
    }
    __syncthreads(); // positions are written, the first stage is free, the queries are in registers

    const int keys = args.side * args.side, tiles = (keys + KEYS - 1) / KEYS;
    copy_keys<T, D>(stages, args, span, 0, 1);
    copy_keys<T, D>(stages + TILE, args, span, 0, 2);
    commit_copies();
    float output[D / 8][4] = {};
    float most[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    const float scale = args.scale * LOG2_E;
    for (int tile = 0; tile < tiles; tile++) {
        const int first = tile * KEYS, groups = (lesser(keys - first, KEYS) + 15) / 16;
        T *const here = stages + tile % 2 * 2 * TILE, *const next = stages + (tile + 1) % 2 * 2 * TILE;
        if (tile + 1 < tiles) {
            copy_keys<T, D>(next, args, span, first + KEYS, 1);
            copy_keys<T, D>(next + TILE, args, span, first + KEYS, 2);
        }
        commit_copies();
        await_copies<1>(); // this tile's; the next one's are under way
        for (int i = threadIdx.x; i < KEYS; i += blockDim.x) {
            const int key = first + i;
            places[i] = key < keys ? key / args.side << 16 | key % args.side : -1;
        }
        __syncthreads();
        if (is_warp) {
            scores_of<T, D>(sums, queries, here, groups);
            float highest[2] = {-INFINITY, -INFINITY};
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int place = places[n * 8 + lane % 4 * 2 + i % 2], half = i / 2;
                    float score = -INFINITY;
                    if (place >= 0 && is_query[half])
                        score = fmaf(sums[n][i], scale,
                                     own_positions[half][place >> 16] + own_positions[half][args.side + (place & 0xffff)]);
                    sums[n][i] = score;
                    highest[half] = fmaxf(highest[half], score);
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                // Four lanes share a query.
                highest[half] = fmaxf(highest[half], __shfl_xor_sync(ALL_LANES, highest[half], 1));
                highest[half] = fmaxf(highest[half], __shfl_xor_sync(ALL_LANES, highest[half], 2));
                const float before = most[half];
                most[half] = fmaxf(before, highest[half]);
                // A query beyond the grid has no score at all.
                const float factor = is_query[half] ? exp2f(before - most[half]) : 0.0f;
                total[half] *= factor;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    output[n][2 * half] *= factor;
                    output[n][2 * half + 1] *= factor;
                }
            }
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float power = is_query[i / 2] ? exp2f(sums[n][i] - most[i / 2]) : 0.0f;
                    sums[n][i] = power;
                    total[i / 2] += power;
                }
            }
            const T *row = here + TILE + lane % 16 * STRIDE + lane / 16 * 8;
#pragma unroll
            for (int group = 0; group < KEYS / 16; group++) {
                if (group < groups) {
                    const float(&upper)[4] = sums[2 * group], (&lower)[4] = sums[2 * group + 1];
                    const uint32_t powers[4] = {pack<T>(upper[0], upper[1]), pack<T>(upper[2], upper[3]),
                                                pack<T>(lower[0], lower[1]), pack<T>(lower[2], lower[3])};
#pragma unroll
                    for (int step = 0; step < D / 16; step++) {
                        uint32_t values[4];
                        load_matrices_across(values, row + group * 16 * STRIDE + step * 16);
                        const uint32_t left[2] = {values[0], values[1]}, right[2] = {values[2], values[3]};
                        mma<T>(output[2 * step], powers, left);
                        mma<T>(output[2 * step + 1], powers, right);
                    }
                }
            }
        }
        __syncthreads(); // this stage may be overwritten
    }

    if (!is_warp) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 1);
        total[half] += __shfl_xor_sync(ALL_LANES, total[half], 2);
        if (!is_query[half]) continue;
        const float factor = 1.0f / total[half];
        const int64_t token = token_of(args, span, query_row[half], query_column[half]);
        T *const to = static_cast<T *>(args.output) + token * span.channels + span.first_channel;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int channel = n * 8 + lane % 4 * 2;
            if (channel < args.head_width) {
                const uint32_t pair = pack<T>(output[n][2 * half] * factor, output[n][2 * half + 1] * factor);
                *reinterpret_cast<uint32_t *>(to + channel) = pair;
            }
        }
    }
}

} // namespace

// Heads of up to D channels, a multiple of 8.
#define ATTENTION(D)                                                                                              \
    KERNEL(attention_bf16_##D, AttentionArgs, 256) { attend<bf16, D>(args); }                                     \
    KERNEL(attention_f16_##D, AttentionArgs, 256) { attend<f16, D>(args); }
ATTENTION(32)
ATTENTION(64)
ATTENTION(80)
ATTENTION(128)
