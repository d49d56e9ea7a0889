// A card of one block, for tests on machines without one: the sources of the kernels compiled as C++.
//
// Each thread of a block is a fiber with a stack of its own. It runs until it meets a barrier or an instruction of a
// whole warp, and goes on once all that take part have arrived. The order in which fibers are taken up is an argument
// of the launch, so that a missing barrier shows as a different result: 0 runs each warp as far as it goes, the first one
// first; 1 the last one first, and makes background copies at once instead of at the latest; any other number is the seed
// of a new order each time round. What is reported as an error: threads that wait
// for each other, lanes of one warp at different instructions, writes behind the end of shared memory. Shared memory
// starts as NaN. Fragments, matrix loads and background copies follow the PTX manual (sections on mma.m16n8k16,
// ldmatrix and cp.async), written down apart from the kernels.
#pragma once

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return float_of(uint32_t(x.bits) << 16); }
inline float to_float(f16 x) {
    const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    if (exponent == 31) return float_of(sign | 0x7f800000u | mantissa << 13);
    const float size = exponent ? ldexpf(1024.0f + mantissa, int(exponent) - 25) : ldexpf(mantissa, -24);
    return sign ? -size : size;
}

template <typename T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline bf16 from_float<bf16>(float x) {
    uint32_t bits = bits_of(x);
    if (x != x) return {0x7fff};
    bits += 0x7fff + (bits >> 16 & 1); // to nearest, ties to even
    return {uint16_t(bits >> 16)};
}
template <> inline f16 from_float<f16>(float x) {
    const uint16_t sign = bits_of(x) >> 16 & 0x8000;
    if (x != x) return {0x7fff};
    const float size = fabsf(x);
    if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
    if (size < 6.103515625e-5f) return {uint16_t(sign | uint16_t(nearbyintf(ldexpf(size, 24))))};
    int exponent;
    const float part = frexpf(size, &exponent); // in [0.5, 1)
    const uint32_t steps = uint32_t(nearbyintf(ldexpf(part, 11))); // 1024 to 2048
    return {uint16_t(sign | uint16_t((uint32_t(exponent + 13) << 10) + steps))};
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

constexpr int LANES = 32;
constexpr size_t STACK = 64 << 10, SHARED_LIMIT = 227 << 10, CANARY = 256;

struct Copy {
    void *to;
    const void *from;
    bool zeros;
};

struct Fiber {
    ucontext_t first;
    jmp_buf place;
    std::vector<char> stack;
    bool begun, done; // whether it has ever run, and whether it has come to its block's end
    const unsigned *watched; // goes on when it no longer holds `seen`
    unsigned seen;
    std::vector<std::vector<Copy>> groups; // background copies; the last group is open
};

// What the lanes of a warp lay open to each other, alternately in two places.
struct Warp {
    unsigned generation, arrived;
    int operation[2][LANES];
    uint32_t in[2][LANES][6];
    const void *rows[2][LANES];
    float sums[2][LANES][4];
};

struct Card {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared;
    unsigned threads, current, generation, arrived;
    bool copies_at_once;
    const char *fault;
    std::function<void()> body;
    jmp_buf scheduler;
    ucontext_t back;
};
static thread_local Card card;

inline void pause() {
    Fiber &fiber = card.fibers[card.current];
    if (_setjmp(fiber.place) == 0) _longjmp(card.scheduler, 1);
}

inline void wait_while(const unsigned &generation) {
    Fiber &fiber = card.fibers[card.current];
    fiber.watched = &generation;
    fiber.seen = generation;
    pause();
}

inline void block_barrier() {
    if (++card.arrived == card.threads) {
        card.arrived = 0;
        card.generation++;
    } else {
        wait_while(card.generation);
    }
}

// Brings a warp together after each lane has laid out its share; gives the place that holds all shares.
template <typename F> unsigned meet(int operation, F lay_out) {
    Warp &warp = card.warps[card.current / LANES];
    const unsigned side = warp.generation & 1, lane = card.current % LANES;
    warp.operation[side][lane] = operation;
    lay_out(warp, side, lane);
    if (++warp.arrived == LANES) {
        for (int other = 1; other < LANES; other++)
            if (warp.operation[side][other] != warp.operation[side][0]) card.fault = "lanes of a warp diverge";
        warp.arrived = 0;
        warp.generation++;
    } else {
        wait_while(warp.generation);
    }
    return side;
}

inline Warp &warp() { return card.warps[card.current / LANES]; }
inline unsigned lane() { return card.current % LANES; }

inline void perform(std::vector<Copy> &copies) {
    for (const Copy &copy : copies) copy.zeros ? memset(copy.to, 0, 16) : memmove(copy.to, copy.from, 16);
    copies.clear();
}

// A fiber does one block's thread after the other.
inline void enter() {
    for (;;) {
        card.body();
        Fiber &fiber = card.fibers[card.current];
        for (const auto &group : fiber.groups)
            if (!group.empty()) card.fault = "a background copy is never waited for";
        fiber.done = true;
        pause();
    }
}

// Runs a thread until it waits; false where it still does, or is done.
inline bool resume(unsigned thread) {
    Fiber &fiber = card.fibers[thread];
    if (fiber.done || (fiber.watched && *fiber.watched == fiber.seen)) return false;
    fiber.watched = nullptr;
    card.current = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(card.scheduler) == 0) {
        if (fiber.begun) _longjmp(fiber.place, 1);
        fiber.begun = true;
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack.data();
        fiber.first.uc_stack.ss_size = STACK;
        fiber.first.uc_link = nullptr;
        makecontext(&fiber.first, enter, 0);
        swapcontext(&card.back, &fiber.first);
    }
    return true;
}

inline void run_block(unsigned order) {
    const unsigned threads = card.threads;
    for (Fiber &fiber : card.fibers) {
        fiber.done = false;
        fiber.watched = nullptr;
        fiber.groups.assign(1, {});
    }
    for (Warp &warp : card.warps) warp.generation = warp.arrived = 0;
    card.generation = card.arrived = 0;
    memset(card.shared.data(), 0xff, card.shared.size());
    std::vector<unsigned> queue(threads);
    for (unsigned i = 0; i < threads; i++) queue[i] = order == 1 ? threads - 1 - i : i;
    uint64_t random = order;
    const unsigned together = order > 1 ? threads : LANES; // fibers that take turns
    for (volatile unsigned left = threads; left > 0 && !card.fault;) {
        volatile bool moved = false;
        if (order > 1)
            for (unsigned i = threads - 1; i > 0; i--) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                std::swap(queue[i], queue[(random >> 33) % (i + 1)]);
            }
        for (volatile unsigned first = 0; first < threads; first = first + together) {
            volatile bool again = true;
            while (again && !card.fault) {
                again = false;
                for (volatile unsigned at = first; at < first + together; at = at + 1) {
                    if (!resume(queue[at])) continue;
                    moved = again = true;
                    if (card.fibers[queue[at]].done) left = left - 1;
                }
                again = again && order <= 1;
            }
        }
        if (!moved) card.fault = "threads wait for each other";
    }
}

// launch: grid x, y, z, threads of a block, bytes of shared memory, order of the fibers.
inline const char *run(const uint32_t *launch, std::function<void()> body) {
    card.fault = nullptr;
    card.threads = launch[3];
    if (launch[3] == 0 || launch[3] % LANES || launch[3] > 1024) return "a block has 1 to 32 whole warps";
    if (launch[4] > SHARED_LIMIT) return "too much shared memory";
    card.body = body;
    card.copies_at_once = launch[5] == 1;
    if (card.fibers.size() != launch[3]) {
        card.fibers = std::vector<Fiber>(launch[3]);
        for (Fiber &fiber : card.fibers) fiber.stack.resize(STACK);
        card.warps.resize(launch[3] / LANES);
    }
    card.shared.resize(launch[4] + CANARY);
    gridDim = {launch[0], launch[1], launch[2]};
    blockDim = {launch[3], 1, 1};
    for (unsigned z = 0; z < launch[2]; z++)
        for (unsigned y = 0; y < launch[1]; y++)
            for (unsigned x = 0; x < launch[0]; x++) {
                blockIdx = {x, y, z};
                run_block(launch[5]);
                for (size_t i = launch[4]; i < card.shared.size(); i++)
                    if (card.shared[i] != 0xff) card.fault = "a write behind the end of shared memory";
                if (card.fault) {
                    card.fibers.clear(); // some are in the middle of something
                    return card.fault;
                }
            }
    return nullptr;
}

} // namespace host

#define KERNEL(name, Args, threads_)                                                                              \
    static void name(const Args &args);                                                                           \
    extern "C" const uint32_t name##_argument_bytes = sizeof(Args);                                               \
    extern "C" const char *name##_on_host(const void *args, const uint32_t *launch) {                             \
        if (launch[3] > (threads_)) return "more threads than the kernel is compiled for";                        \
        return host::run(launch, [=] { name(*static_cast<const Args *>(args)); });                                \
    }                                                                                                             \
    static void name(const Args &args)
#define SHARED(name) unsigned char *const name = host::card.shared.data()

inline void __syncthreads() { host::block_barrier(); }
inline void __syncwarp() { host::meet(0, [](host::Warp &, unsigned, unsigned) {}); }

inline float __shfl_sync(unsigned, float x, int from) {
    const unsigned side =
        host::meet(1, [=](host::Warp &warp, unsigned side, unsigned lane) { warp.in[side][lane][0] = bits_of(x); });
    return float_of(host::warp().in[side][from & (host::LANES - 1)][0]);
}
inline float __shfl_xor_sync(unsigned mask, float x, int apart) {
    return __shfl_sync(mask, x, int(host::lane()) ^ apart);
}

template <typename T> T half_of(uint32_t pair, int which) { return {uint16_t(pair >> (16 * which))}; }

template <typename T> void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const unsigned side = host::meet(2, [&](host::Warp &warp, unsigned side, unsigned lane) {
        for (int i = 0; i < 4; i++) warp.in[side][lane][i] = a[i];
        for (int i = 0; i < 2; i++) warp.in[side][lane][4 + i] = b[i];
    });
    const host::Warp &warp = host::warp();
    const int group = host::lane() / 4, in_group = host::lane() % 4;
    // Element (row, k) of a: register (row >= 8) + 2 (k >= 8) of lane 4 (row % 8) + k % 8 / 2, half k % 2.
    // Element (k, column) of b: register k >= 8 of lane 4 column + k % 8 / 2, half k % 2.
    for (int i = 0; i < 4; i++) {
        const int row = group + 8 * (i / 2), column = 2 * in_group + i % 2;
        for (int k = 0; k < 16; k++) {
            const uint32_t left = warp.in[side][4 * (row % 8) + k % 8 / 2][row / 8 + 2 * (k / 8)];
            const uint32_t right = warp.in[side][4 * column + k % 8 / 2][4 + k / 8];
            d[i] += to_float(half_of<T>(left, k % 2)) * to_float(half_of<T>(right, k % 2));
        }
    }
}

inline void load_matrices_of(uint32_t (&r)[4], const void *row, bool across) {
    if (reinterpret_cast<uintptr_t>(row) % 16) host::card.fault = "a matrix row that is not aligned to 16 bytes";
    const unsigned side = host::meet(across ? 4 : 3, [=](host::Warp &warp, unsigned side, unsigned lane) {
        warp.rows[side][lane] = row;
    });
    const host::Warp &warp = host::warp();
    const int group = host::lane() / 4, in_group = host::lane() % 4;
    for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
            const int line = across ? 2 * in_group + i : group, column = across ? group : 2 * in_group + i;
            pair[i] = static_cast<const uint16_t *>(warp.rows[side][8 * matrix + line])[column];
        }
        r[matrix] = pair[0] | uint32_t(pair[1]) << 16;
    }
    // Nobody overwrites what another lane has yet to read.
    __syncwarp();
}
inline void load_matrices(uint32_t (&r)[4], const void *row) { load_matrices_of(r, row, false); }
inline void load_matrices_across(uint32_t (&r)[4], const void *row) { load_matrices_of(r, row, true); }

inline void copy_async(void *to, const void *from, bool zeros) {
    if ((reinterpret_cast<uintptr_t>(to) | (zeros ? 0 : reinterpret_cast<uintptr_t>(from))) % 16)
        host::card.fault = "a background copy that is not aligned to 16 bytes";
    auto &copies = host::card.fibers[host::card.current].groups.back();
    copies.push_back({to, from, zeros});
    if (host::card.copies_at_once) {
        host::perform(copies);
        copies.push_back({to, to, false}); // still to be waited for
    }
}
inline void commit_copies() { host::card.fibers[host::card.current].groups.push_back({}); }
template <int GROUPS> void await_copies() {
    auto &groups = host::card.fibers[host::card.current].groups; // the last one is still open
    for (size_t i = 0; i + 1 + GROUPS < groups.size(); i++) host::perform(groups[i]);
}
