// A card that is not there: CUDA's driver, cuBLAS, cuBLASLt and cuRAND as one library over ordinary memory, as far as
// this project calls them. The CUDA build is run on it by tests/card/check.sh, so that what stands between the model
// and a card (addresses, sizes, names of kernels, the order of work, recorded passes) is tested on machines without
// one.
//
// Where it can be, it is stricter than a card. A stream's work is done as late as its user allows, or at once with
// MASAM_CARD=eager, so that whoever forgets to wait sees it. Memory comes full of NaN, goes back to NaN when it is
// freed, and has margins of NaN that are looked at. While a thread records a pass it is refused everything that the
// driver's manual does not clearly allow, the first launch of a kernel among it. Faults of the work itself stick: every
// later call fails. Whatever is refused or goes wrong is said on stderr, in a line that begins with "card: ". What it
// cannot show: races between streams (all work has one order), too little memory, and anything about speed.
//
// MASAM_CARD_PLAYED=FILE has the number of recorded passes that were played written there at the end.
// MASAM_CARD_SKIP=1 leaves out products that would take hours, which only measure speed.
//
// Our own kernels are their own sources, compiled with src/kernels/cuda/host.h; those of Candle are written down here
// a second time, by what they are for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace card {

// What a stream does in its turn: null, or what went wrong with it.
using Work = std::function<const char *()>;

// Puts work on a stream, or into what is being recorded there; a CUresult.
int put(void *stream, Work work);

// Whether all of it lies in memory of the card that is alive now.
bool holds(const void *address, size_t bytes);

// Whether the calling thread has a context.
bool has_context();

struct Launch {
    unsigned grid[3], threads, shared_bytes;
};

// Where the value of each of a kernel's arguments lies, and how long it is.
struct Arguments {
    const unsigned char *bytes;
    const size_t *offsets, *sizes;
    size_t count;
};

// One of Candle's kernels: null, or what went wrong.
const char *candle(const std::string &kernel, const Launch &launch, const Arguments &arguments);

// What `candle` answers for names that it does not know.
extern const char *const UNKNOWN;

// 16-bit floats, as bits.
struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

double number(bf16 x);
double number(f16 x);
inline double number(float x) { return x; }
inline double number(double x) { return x; }
inline double number(uint8_t x) { return x; }
inline double number(uint32_t x) { return x; }
inline double number(int64_t x) { return double(x); }

// To nearest, ties to even.
void set(bf16 &to, double x);
void set(f16 &to, double x);
inline void set(float &to, double x) { to = float(x); }
inline void set(double &to, double x) { to = x; }
inline void set(uint8_t &to, double x) { to = uint8_t(int64_t(x)); }
inline void set(uint32_t &to, double x) { to = uint32_t(int64_t(x)); }
inline void set(int64_t &to, double x) { to = int64_t(x); }

} // namespace card
