// The rest of an upscaling step after its product: bias, each token to its square of four pixels, norm, GELU.
//
// `lanes` lanes of a warp (a power of two) share a pixel, each taking pieces of N channels. Grid: pixels over
// 256 / lanes; 256 threads.
#include "device.cuh"

struct UpscaleArgs {
    const void *x;    // [images, height, width, 2, 2, channels]: the product
    const void *bias; // [3, channels]: the convolution's bias, the norm's weight and bias; without a norm [1, channels]
    void *y;          // [images, 2 * height, 2 * width, channels]
    int64_t pixels;   // of y
    int height, width, channels, lanes;
    int norm, vector;
    float eps;
    int unused;
};

namespace {

template <typename T, int N> __device__ void spread(const UpscaleArgs &args) {
    const int lanes = args.lanes, own = threadIdx.x % lanes, channels = args.channels;
    const int64_t pixel = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    const bool is_pixel = pixel < args.pixels; // the others go along, because a warp adds up together
    const int64_t at = is_pixel ? pixel : args.pixels - 1;
    const int wide = 2 * args.width, x = at % wide, y = at / wide % (2 * args.height);
    const int64_t image = at / wide / (2 * args.height);
    const int64_t token = (image * args.height + y / 2) * args.width + x / 2;
    const T *const from = static_cast<const T *>(args.x) + (token * 4 + y % 2 * 2 + x % 2) * channels;
    const T *const bias = static_cast<const T *>(args.bias);
    const auto piece_at = [](const T *p) { return *reinterpret_cast<const Piece<T, N> *>(p); };
    // Calls f(piece, first channel, values) for the pieces of this lane.
    const auto for_own = [&](auto f) {
        for (int first = own * N; first < channels; first += lanes * N) {
            const Piece<T, N> values = piece_at(from + first), shift = piece_at(bias + first);
            float sums[N];
#pragma unroll
            for (int i = 0; i < N; i++) sums[i] = to_float(values.of[i]) + to_float(shift.of[i]);
            f(first, sums);
        }
    };
    const auto sum_of_pixel = [&](float sum) {
        for (int apart = lanes / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, apart);
        return sum;
    };
    float mean = 0.0f, inverse = 1.0f;
    if (args.norm) {
        float sum = 0.0f, squares = 0.0f;
        for_own([&](int, const float(&values)[N]) {
#pragma unroll
            for (int i = 0; i < N; i++) sum += values[i];
        });
        mean = sum_of_pixel(sum) / channels;
        for_own([&](int, const float(&values)[N]) {
#pragma unroll
            for (int i = 0; i < N; i++) squares += (values[i] - mean) * (values[i] - mean);
        });
        inverse = rsqrtf(sum_of_pixel(squares) / channels + args.eps);
    }
    if (!is_pixel) return;
    T *const to = static_cast<T *>(args.y) + at * channels;
    for_own([&](int first, const float(&values)[N]) {
        Piece<T, N> piece;
#pragma unroll
        for (int i = 0; i < N; i++) {
            float value = values[i];
            if (args.norm)
                value = fmaf((value - mean) * inverse, to_float(bias[channels + first + i]),
                             to_float(bias[2 * channels + first + i]));
            piece.of[i] = from_float<T>(gelu(value));
        }
        *reinterpret_cast<Piece<T, N> *>(to + first) = piece;
    });
}

template <typename T> __device__ void spread_any(const UpscaleArgs &args) {
    args.vector ? spread<T, 16 / sizeof(T)>(args) : spread<T, 1>(args);
}

} // namespace

KERNEL(upscale_f32, UpscaleArgs, 256) { spread_any<float>(args); }
KERNEL(upscale_bf16, UpscaleArgs, 256) { spread_any<bf16>(args); }
KERNEL(upscale_f16, UpscaleArgs, 256) { spread_any<f16>(args); }
