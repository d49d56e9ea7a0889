// What both kernels of attention share: their arguments, and where a block's span lies.
#pragma once

#include "device.cuh"

struct AttentionArgs {
    const void *qkv;      // [images, height, width, 3 * heads * head_width]
    const void *bias;     // [3 * heads * head_width]
    const void *relative; // [2 * (2 * side - 1), head_width]
    void *output;         // [images, height, width, heads * head_width]
    int height, width, side, heads, head_width;
    int rows, columns; // partitions down and across
    float scale;
};

// One span and head.
struct Span {
    int image, top, left;        // of the span's first token
    int tall, wide;              // its tokens that lie on the grid
    int channels, first_channel; // of a token of the output; of the head
};

__device__ inline Span span_of(const AttentionArgs &args) {
    const int partitions = args.rows * args.columns, partition = blockIdx.z % partitions;
    Span span;
    span.image = blockIdx.z / partitions;
    span.top = partition / args.columns * args.side;
    span.left = partition % args.columns * args.side;
    span.tall = lesser(args.side, args.height - span.top);
    span.wide = lesser(args.side, args.width - span.left);
    span.channels = args.heads * args.head_width;
    span.first_channel = blockIdx.y * args.head_width;
    return span;
}

// Index of a token of the grid.
__device__ inline int64_t token_of(const AttentionArgs &args, const Span &span, int row, int column) {
    return (int64_t(span.image) * args.height + span.top + row) * args.width + span.left + column;
}
