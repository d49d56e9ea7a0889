// What all kernels share: types, conversions, and the few instructions that have no name in C++.
//
// Every kernel is `KERNEL(name, Args, threads) { .. }` with one plain struct of arguments, pointers first, which
// arguments.rs declares a second time. A C++ compiler without CUDA takes the same sources: host.h then stands for the
// card, one block at a time, so that the kernels themselves are what the tests run.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

#define KERNEL(name, Args, threads) extern "C" __global__ void __launch_bounds__(threads) name(const Args args)
// The block's dynamic shared memory, aligned to 16 bytes.
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }

template <typename T> __device__ T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline f16 from_float<f16>(float x) { return __float2half_rn(x); }

// d += a b, a 16 x 16 in rows, b 16 x 8 in columns, spread over the warp as the instruction wants them.
template <typename T> __device__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
#define MMA(T, NAME)                                                                                              \
    template <> __device__ inline void mma<T>(float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) {       \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 "                               \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                            \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                         \
    }
MMA(bf16, "bf16")
MMA(f16, "f16")
#undef MMA

// Four 8 x 8 matrices of 16-bit elements: lane l names row l % 8 of matrix l / 8.
__device__ inline void load_matrices(uint32_t (&r)[4], const void *row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// The same, each matrix transposed on its way.
__device__ inline void load_matrices_across(uint32_t (&r)[4], const void *row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// 16 bytes from global to shared memory in the background, or 16 zeros; both sides aligned.
__device__ inline void copy_async(void *to, const void *from, bool zeros) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = zeros ? 0 : 16;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `GROUPS` of this thread's latest groups are under way.
template <int GROUPS> __device__ inline void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

#else
#include "host.h"
#endif

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Elements that are read and written at once.
template <typename T, int N> struct alignas(N * sizeof(T)) Piece {
    T of[N];
};

// Two elements as one register, `low` at the lower address.
template <typename T> __device__ inline uint32_t pack(float low, float high) {
    const T pair[2] = {from_float<T>(low), from_float<T>(high)};
    uint32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return bits;
}

template <typename N> __device__ inline N lesser(N a, N b) { return b < a ? b : a; }

__device__ inline float warp_sum(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(ALL_LANES, x, apart);
    return x;
}

__device__ inline float warp_max(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, apart));
    return x;
}

// x/2 (1 + erf(x / sqrt 2)).
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
