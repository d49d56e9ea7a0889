// The class of each pixel of the model's input, without writing logits at its resolution.
//
// labels_of_product: the last upscaling step after its product, the class products and the maximum in one pass: bias,
// GELU, a product with each class's kernel, and the first class with the largest. A thread takes a pixel.
// labels_of_planes: logits of lower resolution, enlarged bilinearly with pixel centres at half integers.
// Both write a row of labels for each image and behind it one byte that is 1 where some logit was not finite.
// Grid: pixels of an image over 256, images. Shared memory of labels_of_product: (classes + 1) * channels floats.
#include "device.cuh"

struct LabelArgs {
    const void *x;       // [images, height, width, 2, 2, channels], or logits [images, classes, height, width]
    const void *bias;    // [channels]
    const void *kernels; // [images, classes, channels]
    uint8_t *y;          // [images, side * side + 1]; the caller has set it to zero
    int height, width, channels, classes;
    int tall, wide; // pixels of an image of y
};

namespace {

struct Best {
    float logit;
    int id;
    bool finite;

    __device__ void meet(float other, int other_id) {
        // The first of equals stays, and NaN wins against nothing.
        if (other_id == 0 || other > logit) {
            logit = other;
            id = other_id;
        }
        if (!(fabsf(other) <= 3.402823466e38f)) finite = false;
    }

    __device__ void write(uint8_t *labels, int pixel, int pixels) const {
        labels[pixel] = uint8_t(id);
        if (!finite) labels[pixels] = 1;
    }
};

template <typename T> __device__ void of_product(const LabelArgs &args) {
    SHARED(shared);
    const int channels = args.channels, pixels = args.tall * args.wide, image = blockIdx.y;
    float *const kernels = reinterpret_cast<float *>(shared), *const bias = kernels + args.classes * channels;
    const T *const own = static_cast<const T *>(args.kernels) + int64_t(image) * args.classes * channels;
    for (int i = threadIdx.x; i < args.classes * channels; i += blockDim.x) kernels[i] = to_float(own[i]);
    for (int i = threadIdx.x; i < channels; i += blockDim.x) bias[i] = to_float(static_cast<const T *>(args.bias)[i]);
    __syncthreads();
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    const int y = pixel / args.wide, x = pixel % args.wide;
    const int64_t token = (int64_t(image) * args.height + y / 2) * args.width + x / 2;
    const T *const from = static_cast<const T *>(args.x) + (token * 4 + y % 2 * 2 + x % 2) * channels;
    constexpr int REGISTERS = 64;
    float values[REGISTERS];
#pragma unroll
    for (int i = 0; i < REGISTERS; i++)
        if (i < channels) values[i] = gelu(to_float(from[i]) + bias[i]);
    Best best{0.0f, 0, true};
    for (int id = 0; id < args.classes; id++) {
        float logit = 0.0f;
#pragma unroll
        for (int i = 0; i < REGISTERS; i++)
            if (i < channels) logit = fmaf(kernels[id * channels + i], values[i], logit);
        best.meet(logit, id);
    }
    best.write(args.y + int64_t(image) * (pixels + 1), pixel, pixels);
}

// Where output pixel i of `to` looks in `from`: the lower neighbour, the upper one, and its share.
struct Between {
    int low, high;
    float part;

    __device__ Between(int i, int from, int to) {
        const float centre = fmaxf((i + 0.5f) * from / to - 0.5f, 0.0f);
        low = lesser(int(centre), from - 1);
        high = lesser(low + 1, from - 1);
        part = centre - low;
    }
};

template <typename T> __device__ void of_planes(const LabelArgs &args) {
    const int pixels = args.tall * args.wide, image = blockIdx.y, pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    const Between down(pixel / args.wide, args.height, args.tall), across(pixel % args.wide, args.width, args.wide);
    const T *plane = static_cast<const T *>(args.x) + int64_t(image) * args.classes * args.height * args.width;
    Best best{0.0f, 0, true};
    for (int id = 0; id < args.classes; id++, plane += args.height * args.width) {
        const auto row = [&](int y) {
            const float left = to_float(plane[y * args.width + across.low]);
            return fmaf(across.part, to_float(plane[y * args.width + across.high]) - left, left);
        };
        const float upper = row(down.low);
        best.meet(fmaf(down.part, row(down.high) - upper, upper), id);
    }
    best.write(args.y + int64_t(image) * (pixels + 1), pixel, pixels);
}

} // namespace

KERNEL(labels_of_product_f32, LabelArgs, 256) { of_product<float>(args); }
KERNEL(labels_of_product_bf16, LabelArgs, 256) { of_product<bf16>(args); }
KERNEL(labels_of_product_f16, LabelArgs, 256) { of_product<f16>(args); }
KERNEL(labels_of_planes_f32, LabelArgs, 256) { of_planes<float>(args); }
KERNEL(labels_of_planes_bf16, LabelArgs, 256) { of_planes<bf16>(args); }
KERNEL(labels_of_planes_f16, LabelArgs, 256) { of_planes<f16>(args); }
