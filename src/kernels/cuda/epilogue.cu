// What follows a product, in one pass: y = activation(x + bias) + residual. `x` and `y` may be the same.
//
// Each thread takes 16 bytes where the width is a whole number of them and all is aligned (`vector` 1), else one
// element. Grid: threads over 256.
#include "device.cuh"

struct EpilogueArgs {
    const void *x;        // [count / width, width]
    const void *bias;     // [width], or null
    const void *residual; // as x, or null
    void *y;              // as x
    int64_t count;
    int width, vector;
    int activation; // 0 none, 1 GELU
    int unused;
};

namespace {

template <typename T, int N> __device__ void finish(const EpilogueArgs &args) {
    const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (first >= args.count) return;
    const int column = first % args.width;
    const auto piece_at = [](const void *from, int64_t at) {
        return *reinterpret_cast<const Piece<T, N> *>(static_cast<const T *>(from) + at);
    };
    Piece<T, N> piece = piece_at(args.x, first), bias = piece, residual = piece;
    if (args.bias) bias = piece_at(args.bias, column);
    if (args.residual) residual = piece_at(args.residual, first);
#pragma unroll
    for (int i = 0; i < N; i++) {
        float value = to_float(piece.of[i]);
        if (args.bias) value += to_float(bias.of[i]);
        if (args.activation == 1) value = gelu(value);
        if (args.residual) value += to_float(residual.of[i]);
        piece.of[i] = from_float<T>(value);
    }
    *reinterpret_cast<Piece<T, N> *>(static_cast<T *>(args.y) + first) = piece;
}

template <typename T> __device__ void finish_any(const EpilogueArgs &args) {
    args.vector ? finish<T, 16 / sizeof(T)>(args) : finish<T, 1>(args);
}

} // namespace

KERNEL(epilogue_f32, EpilogueArgs, 256) { finish_any<float>(args); }
KERNEL(epilogue_bf16, EpilogueArgs, 256) { finish_any<bf16>(args); }
KERNEL(epilogue_f16, EpilogueArgs, 256) { finish_any<f16>(args); }
