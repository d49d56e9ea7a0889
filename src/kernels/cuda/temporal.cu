// Frames side by side for the temporal convolution: each token beside itself in the frames its three taps look at,
// zeros outside the clip, so that the convolution is one product with stacked weights.
//
// Output frame f, tap t holds input frame f + t - before. Grid: 16-byte pieces (`vector` 1) or elements over 256.
#include "device.cuh"

struct TemporalArgs {
    const void *x; // [clips, frames_in, tokens, channels]
    void *y;       // [clips, frames_out, tokens, 3, channels]
    int64_t count; // elements of y
    int frames_in, frames_out, tokens, channels, before;
    int vector;
};

namespace {

template <typename T, int N> __device__ void stack(const TemporalArgs &args) {
    const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (first >= args.count) return;
    const int channel = first % args.channels, tap = first / args.channels % 3;
    const int64_t token_of_all = first / args.channels / 3;
    const int token = token_of_all % args.tokens, frame = token_of_all / args.tokens % args.frames_out;
    const int64_t clip = token_of_all / args.tokens / args.frames_out;
    const int from = frame + tap - args.before;
    Piece<T, N> piece;
    if (from >= 0 && from < args.frames_in) {
        const int64_t at = ((clip * args.frames_in + from) * args.tokens + token) * args.channels + channel;
        piece = *reinterpret_cast<const Piece<T, N> *>(static_cast<const T *>(args.x) + at);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) piece.of[i] = from_float<T>(0.0f);
    }
    *reinterpret_cast<Piece<T, N> *>(static_cast<T *>(args.y) + first) = piece;
}

template <typename T> __device__ void stack_any(const TemporalArgs &args) {
    args.vector ? stack<T, 16 / sizeof(T)>(args) : stack<T, 1>(args);
}

} // namespace

KERNEL(temporal_f32, TemporalArgs, 256) { stack_any<float>(args); }
KERNEL(temporal_bf16, TemporalArgs, 256) { stack_any<bf16>(args); }
KERNEL(temporal_f16, TemporalArgs, 256) { stack_any<f16>(args); }
