// Bytes of frames to the model's planes: every byte through its clip's table of 256 values.
//
// prepare_rgb takes RGB; prepare_nv12 takes a plane of luma and one of chroma at half resolution, turned to RGB by the
// fixed-point matrix that the picture's colours were made with, rounded and clipped to bytes first. A thread takes a
// pixel. Grid: pixels over 256, images.
#include "device.cuh"

struct PrepareArgs {
    const uint8_t *x;    // [images, side, side, 3], or [images, 3 * side / 2, side] for NV12, side even
    const float *tables; // [images / frames, 256]
    void *y;             // [images, 3, side, side]
    int side, frames;
    // NV12: (luma_scale * (Y - luma_offset) + terms of U - 128 and V - 128 + 2^15) >> 16
    int luma_offset, luma_scale, red_v, green_u, green_v, blue_u;
};

namespace {

template <typename T> __device__ void write(const PrepareArgs &args, int pixel, const int (&rgb)[3]) {
    const int area = args.side * args.side, image = blockIdx.y;
    const float *const table = args.tables + image / args.frames * 256;
    T *const to = static_cast<T *>(args.y) + int64_t(image) * 3 * area + pixel;
    for (int channel = 0; channel < 3; channel++) to[channel * area] = from_float<T>(table[rgb[channel]]);
}

template <typename T> __device__ void from_rgb(const PrepareArgs &args) {
    const int area = args.side * args.side, pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= area) return;
    const uint8_t *const from = args.x + (int64_t(blockIdx.y) * area + pixel) * 3;
    const int rgb[3] = {from[0], from[1], from[2]};
    write<T>(args, pixel, rgb);
}

__device__ inline int clipped(int sum) {
    const int value = (sum + (1 << 15)) >> 16;
    return value < 0 ? 0 : lesser(value, 255);
}

template <typename T> __device__ void from_nv12(const PrepareArgs &args) {
    const int side = args.side, area = side * side, pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= area) return;
    const uint8_t *const luma = args.x + int64_t(blockIdx.y) * (area + area / 2);
    const uint8_t *const chroma = luma + area + pixel / side / 2 * side + pixel % side / 2 * 2;
    const int y = args.luma_scale * (luma[pixel] - args.luma_offset), u = chroma[0] - 128, v = chroma[1] - 128;
    const int rgb[3] = {clipped(y + args.red_v * v), clipped(y + args.green_u * u + args.green_v * v),
                        clipped(y + args.blue_u * u)};
    write<T>(args, pixel, rgb);
}

} // namespace

KERNEL(prepare_rgb_f32, PrepareArgs, 256) { from_rgb<float>(args); }
KERNEL(prepare_rgb_bf16, PrepareArgs, 256) { from_rgb<bf16>(args); }
KERNEL(prepare_rgb_f16, PrepareArgs, 256) { from_rgb<f16>(args); }
KERNEL(prepare_nv12_f32, PrepareArgs, 256) { from_nv12<float>(args); }
KERNEL(prepare_nv12_bf16, PrepareArgs, 256) { from_nv12<bf16>(args); }
KERNEL(prepare_nv12_f16, PrepareArgs, 256) { from_nv12<f16>(args); }
