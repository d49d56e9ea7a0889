// Layer norm and softmax over the last dimension, sums in float32; a warp takes a row.
//
// Rows whose width is a whole number of 16-byte pieces, all aligned, are read and written by the piece (`vector` 1),
// others by the element. Grid: rows over 8; 256 threads; no shared memory.
#include "device.cuh"

struct NormArgs {
    const void *x;      // [rows, width]
    const void *weight; // [width]; softmax has none
    const void *bias;   // [width]; softmax has none
    void *y;            // [rows, width]
    int64_t rows;
    int width, vector;
    float eps;
    int unused;
};

namespace {

constexpr int WARPS = 8;

// Calls f(column, value) for each element of a row that is this lane's.
template <typename T, int N, typename F> __device__ void for_own(const T *row, int width, F f) {
    for (int column = threadIdx.x % WARP * N; column < width; column += WARP * N) {
        const Piece<T, N> piece = *reinterpret_cast<const Piece<T, N> *>(row + column);
#pragma unroll
        for (int i = 0; i < N; i++) f(column + i, to_float(piece.of[i]));
    }
}

// Writes f(column, value) in the place of each element that is this lane's.
template <typename T, int N, typename F> __device__ void map_own(const T *row, T *to, int width, F f) {
    for (int column = threadIdx.x % WARP * N; column < width; column += WARP * N) {
        Piece<T, N> piece = *reinterpret_cast<const Piece<T, N> *>(row + column);
#pragma unroll
        for (int i = 0; i < N; i++) piece.of[i] = from_float<T>(f(column + i, to_float(piece.of[i])));
        *reinterpret_cast<Piece<T, N> *>(to + column) = piece;
    }
}

template <typename T, int N> __device__ void norm_row(const NormArgs &args, int64_t row) {
    const T *const x = static_cast<const T *>(args.x) + row * args.width;
    const T *const weight = static_cast<const T *>(args.weight), *const bias = static_cast<const T *>(args.bias);
    float sum = 0.0f;
    for_own<T, N>(x, args.width, [&](int, float value) { sum += value; });
    const float mean = warp_sum(sum) / args.width;
    // A second pass: the mean of the squares would drown small variances.
    float squares = 0.0f;
    for_own<T, N>(x, args.width, [&](int, float value) { squares += (value - mean) * (value - mean); });
    const float inverse = rsqrtf(warp_sum(squares) / args.width + args.eps);
    map_own<T, N>(x, static_cast<T *>(args.y) + row * args.width, args.width, [&](int column, float value) {
        return fmaf((value - mean) * inverse, to_float(weight[column]), to_float(bias[column]));
    });
}

template <typename T, int N> __device__ void softmax_row(const NormArgs &args, int64_t row) {
    const T *const x = static_cast<const T *>(args.x) + row * args.width;
    float most = -INFINITY, sum = 0.0f;
    for_own<T, N>(x, args.width, [&](int, float value) { most = fmaxf(most, value); });
    most = warp_max(most);
    for_own<T, N>(x, args.width, [&](int, float value) { sum += expf(value - most); });
    const float factor = 1.0f / warp_sum(sum);
    map_own<T, N>(x, static_cast<T *>(args.y) + row * args.width, args.width,
                  [&](int, float value) { return expf(value - most) * factor; });
}

template <typename T> __device__ void normalise(const NormArgs &args) {
    const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= args.rows) return; // a whole warp
    args.vector ? norm_row<T, 16 / sizeof(T)>(args, row) : norm_row<T, 1>(args, row);
}

template <typename T> __device__ void soften(const NormArgs &args) {
    const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (row >= args.rows) return; // a whole warp
    args.vector ? softmax_row<T, 16 / sizeof(T)>(args, row) : softmax_row<T, 1>(args, row);
}

} // namespace

KERNEL(layer_norm_f32, NormArgs, 256) { normalise<float>(args); }
KERNEL(layer_norm_bf16, NormArgs, 256) { normalise<bf16>(args); }
KERNEL(layer_norm_f16, NormArgs, 256) { normalise<f16>(args); }
KERNEL(softmax_f32, NormArgs, 256) { soften<float>(args); }
KERNEL(softmax_bf16, NormArgs, 256) { soften<bf16>(args); }
KERNEL(softmax_f16, NormArgs, 256) { soften<f16>(args); }
