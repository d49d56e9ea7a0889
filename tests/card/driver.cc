// The driver: contexts, memory, streams, recorded passes, modules and launches. Numbers of errors, attributes and
// flags are those of the CUDA driver API's manual.
#include "card.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace {

enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
};

constexpr size_t MARGIN = 512;         // before and behind each piece of memory
constexpr unsigned char UNUSED = 0xff; // a NaN in every type of float
constexpr size_t LONGEST_QUEUE = 1024; // of work that waits
constexpr size_t SHARED_LIMIT = 227 << 10, SHARED_USUAL = 48 << 10;

struct Recorded {
    std::vector<card::Work> work;
    std::vector<uintptr_t> memory;
    bool is_spoilt = false;
};

struct Stream {
    std::unique_ptr<Recorded> recorded; // while one is being made
};

struct Piece {
    unsigned char *whole; // with its margins
    size_t bytes;
    bool is_alive;
    const Recorded *owner; // of a recorded pass, or null
};

struct Event {
    uint64_t when = 0;
};

struct Kernel {
    std::string name;
    bool is_loaded = false; // with the first launch
    std::vector<size_t> offsets, sizes;
    const char *(*host)(const void *, const uint32_t *) = nullptr; // one of ours
    size_t shared_limit = SHARED_USUAL;
};

struct Module {
    std::string text; // PTX; empty for an image of ours
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
};

std::recursive_mutex lock;
std::map<uintptr_t, Piece> memory;
std::map<uintptr_t, size_t> pinned;
std::deque<card::Work> queue;
uint64_t enqueued = 0, done = 0;
int stuck = SUCCESS;
size_t held[2], most[2]; // bytes of memory, and of recorded passes
Stream usual;            // the stream that has no handle
int primary;             // what a context points to
thread_local void *current = nullptr;
thread_local Recorded *recording = nullptr; // what this thread records
unsigned played = 0;                        // recorded passes

// What margins are full of, in turn: a NaN as well, and another one.
unsigned char edge(const unsigned char *at) { return reinterpret_cast<uintptr_t>(at) % 2 ? 0xff : 0xfe; }

using Guard = std::lock_guard<std::recursive_mutex>;

bool is_eager() {
    static const char *const how = getenv("MASAM_CARD");
    return how && !strcmp(how, "eager");
}

int wrong(const std::string &what) {
    if (stuck == SUCCESS) fprintf(stderr, "card: %s\n", what.c_str());
    return stuck = LAUNCH_FAILED;
}

Stream &stream_of(void *handle) { return handle ? *static_cast<Stream *>(handle) : usual; }

int perform(const card::Work &work) {
    if (stuck) return stuck;
    const char *const fault = work();
    return fault ? wrong(fault) : int(SUCCESS);
}

// Everything that has been put on streams so far, in that order.
int catch_up() {
    while (!queue.empty()) {
        const card::Work work = std::move(queue.front());
        queue.pop_front();
        done++;
        if (int error = perform(work)) {
            queue.clear();
            done = enqueued;
            return error;
        }
    }
    return stuck;
}

// For what a thread must not do while it records: what it has recorded is spoilt.
int refuse(const char *what) {
    if (!recording) return SUCCESS;
    fprintf(stderr, "card: %s while a pass is recorded\n", what);
    recording->is_spoilt = true;
    return CAPTURE_IMPLICIT;
}

#define USES_CARD(what)                                                                                              \
    Guard guard(lock);                                                                                               \
    if (stuck) return stuck;                                                                                         \
    if (!current) {                                                                                                  \
        fprintf(stderr, "card: %s on a thread without a context\n", what);                                           \
        return INVALID_CONTEXT;                                                                                      \
    }
#define NOT_RECORDED(what)                                                                                           \
    USES_CARD(what)                                                                                                  \
    if (int error = refuse(what)) return error;

std::map<uintptr_t, Piece>::iterator piece_at(uintptr_t address) {
    auto next = memory.upper_bound(address);
    if (next == memory.begin()) return memory.end();
    --next;
    return address <= next->first + next->second.bytes ? next : memory.end();
}

// Fills memory with NaN, of very large pieces only both ends.
void spoil(unsigned char *begin, size_t bytes) {
    constexpr size_t LARGE = 32 << 20, END = 1 << 20;
    if (bytes <= LARGE) {
        memset(begin, UNUSED, bytes);
        return;
    }
    memset(begin, UNUSED, END);
    memset(begin + bytes - END, UNUSED, END);
}

uintptr_t new_piece(size_t bytes, const Recorded *owner) {
    // Aligned to 256 bytes, and to no more.
    unsigned char *const whole =
        static_cast<unsigned char *>(aligned_alloc(512, (bytes + 2 * MARGIN + 256 + 511) / 512 * 512));
    unsigned char *const begin = whole + MARGIN + 256;
    for (unsigned char *at = whole; at < begin; at++) *at = edge(at);
    for (unsigned char *at = begin + bytes; at < begin + bytes + MARGIN; at++) *at = edge(at);
    spoil(begin, bytes);
    const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
    memory[address] = {whole, bytes, owner == nullptr, owner};
    const int whose = owner != nullptr;
    held[whose] += bytes;
    if (held[whose] > most[whose]) most[whose] = held[whose];
    return address;
}

bool has_edges(uintptr_t address, const Piece &piece) {
    const unsigned char *const begin = reinterpret_cast<const unsigned char *>(address);
    for (const unsigned char *at = piece.whole; at < begin; at++)
        if (*at != edge(at)) return false;
    for (const unsigned char *at = begin + piece.bytes; at < begin + piece.bytes + MARGIN; at++)
        if (*at != edge(at)) return false;
    return true;
}

const char *end_life(uintptr_t address) {
    auto found = memory.find(address);
    if (found == memory.end() || !found->second.is_alive) return "memory freed that is not alive";
    Piece &piece = found->second;
    if (!has_edges(address, piece)) return "a write beside a piece of memory";
    spoil(reinterpret_cast<unsigned char *>(address), piece.bytes);
    if (piece.owner) {
        piece.is_alive = false;
        return nullptr;
    }
    held[0] -= piece.bytes;
    free(piece.whole);
    memory.erase(found);
    return nullptr;
}

// Gives the memory of a recorded pass back.
void forget(const Recorded &recorded) {
    for (const uintptr_t address : recorded.memory) {
        const Piece &piece = memory.at(address);
        if (!has_edges(address, piece)) wrong("a write beside memory of a recorded pass");
        held[1] -= piece.bytes;
        free(piece.whole);
        memory.erase(address);
    }
}

// At the program's end: what nobody has freed is looked at too, and who wants to know is told what was played.
void finish() {
    Guard guard(lock);
    catch_up();
    for (const auto &[address, piece] : memory)
        if (!has_edges(address, piece)) wrong("a write beside memory that is never freed");
    if (const char *const file = getenv("MASAM_CARD_PLAYED"))
        if (FILE *const to = fopen(file, "w")) {
            fprintf(to, "%u\n", played);
            fclose(to);
        }
}

// The sizes of a kernel's arguments, from the text of its module.
bool read_parameters(const std::string &text, Kernel &kernel) {
    const size_t entry = text.find(".entry " + kernel.name + "(");
    if (entry == std::string::npos) return false;
    const size_t end = text.find(')', entry);
    static const std::map<std::string, size_t> SIZES{{".u64", 8}, {".b64", 8}, {".s64", 8}, {".f64", 8}, {".u32", 4},
                                                     {".b32", 4}, {".s32", 4}, {".f32", 4}, {".u16", 2}, {".b16", 2},
                                                     {".s16", 2}, {".f16", 2}, {".u8", 1},  {".b8", 1},  {".s8", 1}};
    size_t offset = 0;
    for (size_t at = text.find(".param", entry); at < end; at = text.find(".param", at + 1)) {
        size_t stop = text.find_first_of(",)", at);
        std::string words = text.substr(at + 6, stop - at - 6);
        size_t align = 0, size = 0, count = 1;
        char *rest = nullptr;
        for (char *word = strtok_r(words.data(), " \t\n", &rest); word; word = strtok_r(nullptr, " \t\n", &rest)) {
            if (!strcmp(word, ".align")) align = size_t(atoi(strtok_r(nullptr, " \t\n", &rest)));
            else if (SIZES.count(word)) size = SIZES.at(word);
            else if (const char *bracket = strchr(word, '[')) count = size_t(atoi(bracket + 1));
        }
        if (!size) return false;
        if (!align) align = size;
        offset = (offset + align - 1) / align * align;
        kernel.offsets.push_back(offset);
        kernel.sizes.push_back(size * count);
        offset += size * count;
    }
    return true;
}

// Our own kernels, beside this library.
void *ours(const std::string &symbol) {
    static std::vector<void *> libraries;
    if (libraries.empty()) {
        Dl_info here;
        dladdr(reinterpret_cast<void *>(&ours), &here);
        const std::string file = here.dli_fname, folder = file.substr(0, file.rfind('/') + 1);
        for (const char *stem :
             {"attention", "attention_plain", "epilogue", "labels", "norm", "prepare", "temporal", "upscale"})
            if (void *library = dlopen((folder + stem + ".so").c_str(), RTLD_NOW | RTLD_LOCAL))
                libraries.push_back(library);
    }
    for (void *library : libraries)
        if (void *found = dlsym(library, symbol.c_str())) return found;
    return nullptr;
}

bool is_pinned(const void *address, size_t bytes) {
    const uintptr_t from = reinterpret_cast<uintptr_t>(address);
    auto next = pinned.upper_bound(from);
    if (next == pinned.begin()) return false;
    --next;
    return from + bytes <= next->first + next->second;
}

const char *const OUTSIDE = "a copy from or to memory of the card that is not alive";

} // namespace

int card::put(void *handle, Work work) {
    Guard guard(lock);
    if (stuck) return stuck;
    Stream &stream = stream_of(handle);
    if (stream.recorded) {
        if (stream.recorded->is_spoilt) return CAPTURE_INVALIDATED;
        stream.recorded->work.push_back(std::move(work));
        return SUCCESS;
    }
    enqueued++;
    queue.push_back(std::move(work));
    if (is_eager() || queue.size() > LONGEST_QUEUE) return catch_up();
    return SUCCESS;
}

bool card::holds(const void *address, size_t bytes) {
    Guard guard(lock);
    const uintptr_t from = reinterpret_cast<uintptr_t>(address);
    const auto piece = piece_at(from);
    return piece != memory.end() && piece->second.is_alive && from + bytes <= piece->first + piece->second.bytes;
}

bool card::has_context() { return current != nullptr; }

extern "C" {

int cuInit(unsigned) {
    static const int registered = atexit(finish);
    return registered == 0 ? SUCCESS : NOT_SUPPORTED;
}

int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

int cuGetErrorName(int, const char **name) {
    *name = "CUDA_ERROR";
    return SUCCESS;
}

int cuGetErrorString(int error, const char **text) {
    static thread_local char said[64];
    snprintf(said, sizeof said, "error %d of the card that is not there", error);
    *text = said;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    *count = 1;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int length, int) {
    snprintf(name, size_t(length), "a card that is not there");
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> VALUES{{1, 1024}, {8, 48 << 10}, {10, 32},           {16, 132},
                                           {75, 9},   {76, 0},       {97, SHARED_LIMIT}, {115, 1}};
    const auto found = VALUES.find(attribute);
    if (found == VALUES.end()) {
        fprintf(stderr, "card: attribute %d is not known\n", attribute);
        return INVALID_VALUE;
    }
    *value = found->second;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = size_t(80) << 30;
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t *left, size_t *all) {
    Guard guard(lock);
    *all = *left = size_t(80) << 30;
    for (const auto &[address, piece] : memory) *left -= piece.bytes;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int) {
    *context = &primary;
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void *context) {
    current = context;
    return SUCCESS;
}
int cuCtxGetCurrent(void **context) {
    *context = current;
    return SUCCESS;
}
int cuCtxSynchronize() {
    NOT_RECORDED("waiting for the card")
    return catch_up();
}

int cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &primary;
    return SUCCESS;
}
int cuMemPoolSetAttribute(void *, int attribute, void *) { return attribute == 4 ? SUCCESS : INVALID_VALUE; }
int cuMemPoolGetAttribute(void *, int attribute, void *value) {
    Guard guard(lock);
    memcpy(value, &most[0], sizeof most[0]);
    return attribute == 6 ? SUCCESS : INVALID_VALUE;
}
int cuDeviceGetGraphMemAttribute(int, int attribute, void *value) {
    Guard guard(lock);
    memcpy(value, &most[1], sizeof most[1]);
    return attribute == 3 ? SUCCESS : INVALID_VALUE;
}
int cuMemPoolTrimTo(void *, size_t) {
    NOT_RECORDED("trimming the pool")
    return SUCCESS;
}

int cuStreamCreate(void **stream, unsigned) {
    NOT_RECORDED("making a stream")
    *stream = new Stream;
    return SUCCESS;
}

int cuStreamDestroy_v2(void *stream) {
    Guard guard(lock);
    catch_up();
    delete static_cast<Stream *>(stream);
    return SUCCESS;
}

int cuStreamSynchronize(void *handle) {
    USES_CARD("waiting for a stream")
    Stream &stream = stream_of(handle);
    if (stream.recorded) {
        fprintf(stderr, "card: waiting for a stream that is recorded\n");
        stream.recorded->is_spoilt = true;
        return CAPTURE_UNSUPPORTED;
    }
    return catch_up();
}

int cuStreamIsCapturing(void *handle, int *status) {
    USES_CARD("asking a stream")
    const Stream &stream = stream_of(handle);
    *status = !stream.recorded ? 0 : stream.recorded->is_spoilt ? 2 : 1;
    return SUCCESS;
}

int cuStreamBeginCapture_v2(void *handle, int) {
    USES_CARD("recording")
    Stream &stream = stream_of(handle);
    if (!handle || stream.recorded || recording) {
        fprintf(stderr, "card: recording a stream that cannot be, or is already\n");
        return CAPTURE_UNMATCHED;
    }
    stream.recorded = std::make_unique<Recorded>();
    recording = stream.recorded.get();
    return SUCCESS;
}

int cuStreamEndCapture(void *handle, void **graph) {
    USES_CARD("recording")
    Stream &stream = stream_of(handle);
    if (!stream.recorded || stream.recorded.get() != recording) {
        fprintf(stderr, "card: the end of a recording that this thread has not begun\n");
        return CAPTURE_UNMATCHED;
    }
    recording = nullptr;
    if (stream.recorded->is_spoilt) {
        forget(*stream.recorded);
        stream.recorded.reset();
        *graph = nullptr;
        return CAPTURE_INVALIDATED;
    }
    *graph = stream.recorded.release();
    return SUCCESS;
}

// A graph is its own executable here; it lives until both have been given back.
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    NOT_RECORDED("instantiating a graph")
    if (flags != 1) { // memory of an earlier run is freed when the next begins
        fprintf(stderr, "card: a graph with other flags than are known here\n");
        return NOT_SUPPORTED;
    }
    *executable = graph;
    return SUCCESS;
}

int cuGraphLaunch(void *executable, void *stream) {
    NOT_RECORDED("launching a graph")
    const Recorded *const recorded = static_cast<const Recorded *>(executable);
    played++;
    for (const uintptr_t address : recorded->memory) {
        card::put(stream,
                  [=]() -> const char * { return memory.at(address).is_alive ? end_life(address) : nullptr; });
    }
    for (const card::Work &work : recorded->work)
        if (int error = card::put(stream, work)) return error;
    return SUCCESS;
}

int cuGraphExecDestroy(void *executable) {
    Guard guard(lock);
    catch_up();
    forget(*static_cast<const Recorded *>(executable));
    return SUCCESS;
}
int cuGraphDestroy(void *graph) {
    delete static_cast<Recorded *>(graph);
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned) {
    USES_CARD("making an event")
    *event = new Event;
    return SUCCESS;
}
int cuEventDestroy_v2(void *event) {
    delete static_cast<Event *>(event);
    return SUCCESS;
}
int cuEventRecord(void *event, void *) {
    NOT_RECORDED("recording an event")
    static_cast<Event *>(event)->when = enqueued;
    return SUCCESS;
}
int cuEventQuery(void *event) {
    NOT_RECORDED("asking for an event")
    return done >= static_cast<Event *>(event)->when ? SUCCESS : NOT_READY;
}
int cuEventSynchronize(void *event) {
    NOT_RECORDED("waiting for an event")
    return done >= static_cast<Event *>(event)->when ? int(SUCCESS) : catch_up();
}
int cuEventElapsedTime_v2(float *milliseconds, void *, void *) {
    *milliseconds = 1.0f;
    return SUCCESS;
}
int cuStreamWaitEvent(void *, void *, unsigned) {
    NOT_RECORDED("having a stream wait")
    return SUCCESS; // all streams go in one order
}

int cuMemAllocAsync(uintptr_t *address, size_t bytes, void *handle) {
    USES_CARD("asking for memory")
    if (!bytes) {
        fprintf(stderr, "card: asking for no bytes of memory\n");
        return INVALID_VALUE;
    }
    Stream &stream = stream_of(handle);
    if (!stream.recorded) {
        *address = new_piece(bytes, nullptr);
        return SUCCESS;
    }
    const uintptr_t piece = *address = new_piece(bytes, stream.recorded.get());
    stream.recorded->memory.push_back(piece);
    return card::put(handle, [=]() -> const char * {
        memory.at(piece).is_alive = true;
        return nullptr;
    });
}

int cuMemFreeAsync(uintptr_t address, void *handle) {
    Guard guard(lock);
    Stream &stream = stream_of(handle);
    const auto found = memory.find(address);
    if (found == memory.end()) return wrong("memory freed that is not there");
    if (found->second.owner != stream.recorded.get())
        return wrong(stream.recorded ? "a recorded pass frees what it has not asked for"
                                     : "memory of a recorded pass freed beside it");
    return card::put(handle, [=] { return end_life(address); });
}

int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    NOT_RECORDED("asking for pinned memory")
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*address, UNUSED, bytes);
    pinned[reinterpret_cast<uintptr_t>(*address)] = bytes;
    return SUCCESS;
}

int cuMemFreeHost(void *address) {
    NOT_RECORDED("freeing pinned memory")
    catch_up();
    if (!pinned.erase(reinterpret_cast<uintptr_t>(address))) return INVALID_VALUE;
    free(address);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    NOT_RECORDED("copying from the machine") // it would be read anew with each play
    void *const target = reinterpret_cast<void *>(to);
    if (is_pinned(from, bytes)) {
        return card::put(stream, [=]() -> const char * {
            if (!card::holds(target, bytes)) return OUTSIDE;
            memcpy(target, from, bytes);
            return nullptr;
        });
    }
    const unsigned char *const first = static_cast<const unsigned char *>(from);
    return card::put(stream, [=, held = std::vector<unsigned char>(first, first + bytes)]() -> const char * {
        if (!card::holds(target, bytes)) return OUTSIDE;
        memcpy(target, held.data(), bytes);
        return nullptr;
    });
}

int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    NOT_RECORDED("copying to the machine")
    const void *const source = reinterpret_cast<const void *>(from);
    const int error = card::put(stream, [=]() -> const char * {
        if (!card::holds(source, bytes)) return OUTSIDE;
        memcpy(to, source, bytes);
        return nullptr;
    });
    return error || is_pinned(to, bytes) ? error : catch_up();
}

int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    USES_CARD("copying")
    return card::put(stream, [=]() -> const char * {
        void *const target = reinterpret_cast<void *>(to);
        const void *const source = reinterpret_cast<const void *>(from);
        if (!card::holds(target, bytes) || !card::holds(source, bytes)) return OUTSIDE;
        if (to < from + bytes && from < to + bytes) return "a copy onto itself";
        memcpy(target, source, bytes);
        return nullptr;
    });
}

int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, void *stream) {
    USES_CARD("setting memory")
    return card::put(stream, [=]() -> const char * {
        void *const target = reinterpret_cast<void *>(to);
        if (!card::holds(target, bytes)) return OUTSIDE;
        memset(target, value, bytes);
        return nullptr;
    });
}

int cuModuleLoadData(void **module, const void *image) {
    NOT_RECORDED("loading a module")
    constexpr uint32_t FATBIN = 0xba55ed50;
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    auto loaded = std::make_unique<Module>();
    if (magic != FATBIN) {
        loaded->text = static_cast<const char *>(image);
        if (loaded->text.find(".version") == std::string::npos) return INVALID_IMAGE;
    }
    *module = loaded.release();
    return SUCCESS;
}
int cuModuleUnload(void *) { return SUCCESS; }

int cuModuleGetFunction(void **function, void *handle, const char *name) {
    USES_CARD("looking for a kernel")
    Module &module = *static_cast<Module *>(handle);
    std::unique_ptr<Kernel> &kernel = module.kernels[name];
    if (!kernel) {
        kernel = std::make_unique<Kernel>();
        kernel->name = name;
        bool is_there = false;
        if (module.text.empty()) {
            const void *const bytes = ours(kernel->name + "_argument_bytes");
            kernel->host =
                reinterpret_cast<const char *(*)(const void *, const uint32_t *)>(ours(kernel->name + "_on_host"));
            is_there = bytes && kernel->host;
            if (is_there) {
                kernel->offsets = {0};
                kernel->sizes = {*static_cast<const uint32_t *>(bytes)};
            }
        } else {
            is_there = read_parameters(module.text, *kernel);
        }
        if (!is_there) {
            kernel.reset();
            fprintf(stderr, "card: no kernel %s in its module\n", name);
            return NOT_FOUND;
        }
    }
    *function = kernel.get();
    return SUCCESS;
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    USES_CARD("telling a kernel")
    if (attribute != 8 || value < 0 || size_t(value) > SHARED_LIMIT) return INVALID_VALUE;
    static_cast<Kernel *>(function)->shared_limit = size_t(value);
    return SUCCESS;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared_bytes, void *stream, void **parameters, void **extra) {
    USES_CARD("launching")
    Kernel &kernel = *static_cast<Kernel *>(function);
    if (!kernel.is_loaded)
        if (int error = refuse("a kernel's first launch")) return error;
    kernel.is_loaded = true;
    const unsigned long long count = threads * 1ull * threads_y * threads_z;
    if (!x || !y || !z || !count || count > 1024 || x > 0x7fffffffu || y > 65535 || z > 65535 || extra ||
        shared_bytes > kernel.shared_limit) {
        fprintf(stderr, "card: %s cannot be launched as %u %u %u, %llu threads, %u bytes\n", kernel.name.c_str(), x,
                y, z, count, shared_bytes);
        return INVALID_VALUE;
    }
    const card::Launch launch{{x, y, z}, unsigned(count), shared_bytes};
    std::vector<unsigned char> bytes(kernel.sizes.empty() ? 0 : kernel.offsets.back() + kernel.sizes.back());
    for (size_t i = 0; i < kernel.sizes.size(); i++)
        memcpy(bytes.data() + kernel.offsets[i], parameters[i], kernel.sizes[i]);
    return card::put(stream, [=, &kernel, bytes = std::move(bytes)]() -> const char * {
        static std::string said;
        const char *fault;
        if (kernel.host) {
            const uint32_t shape[6] = {x, y, z, launch.threads, shared_bytes, 0};
            fault = kernel.host(bytes.data(), shape);
        } else {
            fault = card::candle(kernel.name, launch,
                                 {bytes.data(), kernel.offsets.data(), kernel.sizes.data(), kernel.sizes.size()});
        }
        if (!fault) return nullptr;
        said = kernel.name + ": " + fault;
        return said.c_str();
    });
}

} // extern "C"
