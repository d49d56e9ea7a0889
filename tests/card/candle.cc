// Candle's kernels by what they are for: an output element at a time, in double, rounded once to the output's type.
// The meaning of each argument is that of the call in candle-core 0.11; `info` are sizes and strides that lie on the
// card.
#include "card.h"

#include <cmath>
#include <cstring>
#include <vector>

const char *const card::UNKNOWN = "a kernel of Candle's that tests/card/candle.cc does not know";

double card::number(bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void card::set(bf16 &to, double x) {
    const float value = float(x);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    to.bits = value != value ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double card::number(f16 x) {
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    double size = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    if (exponent == 31) size = mantissa ? std::nan("") : INFINITY;
    return x.bits & 0x8000 ? -size : size;
}

void card::set(f16 &to, double x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const double size = std::fabs(x);
    if (x != x) to.bits = 0x7fff;
    else if (size >= 65520) to.bits = uint16_t(sign | 0x7c00);
    else if (size < std::ldexp(1, -14)) to.bits = uint16_t(sign | int(std::nearbyint(std::ldexp(size, 24))));
    else {
        int exponent;
        const double part = std::frexp(size, &exponent);
        to.bits = uint16_t(sign | (((exponent + 13) << 10) + int(std::nearbyint(std::ldexp(part, 11)))));
    }
}

namespace {

using namespace card;

const char *const OUTSIDE = "an argument reaches beyond memory that is alive";
const char *const NARROW = "fewer threads than elements";

struct Fault {
    const char *what;
};

struct Call {
    const Launch &launch;
    const Arguments &arguments;

    template <typename T> T value(size_t index) const {
        if (index >= arguments.count || arguments.sizes[index] != sizeof(T))
            throw Fault{"arguments are not what was expected"};
        T value;
        memcpy(&value, arguments.bytes + arguments.offsets[index], sizeof value);
        return value;
    }
    size_t size(size_t index) const { return value<size_t>(index); }

    // An address with room for `count` elements.
    template <typename T> T *span(size_t index, size_t count) const {
        T *const address = value<T *>(index);
        if (reinterpret_cast<uintptr_t>(address) % sizeof(T)) throw Fault{"an address that is not aligned"};
        if (count && !holds(address, count * sizeof(T))) throw Fault{OUTSIDE};
        return address;
    }

    void one_thread_each(size_t count) const {
        if (size_t(launch.grid[0]) * launch.threads < count) throw Fault{NARROW};
    }
};

// How a tensor lies.
struct Layout {
    std::vector<size_t> dims, strides;

    Layout(const size_t *dims, const size_t *strides, size_t count)
        : dims(dims, dims + count), strides(strides, strides + count) {}
    // One after the other.
    explicit Layout(size_t count) : dims{count}, strides{1} {}

    // `sets` layouts of the same shape behind each other: dims, then the strides of each; at null all are contiguous.
    static std::vector<Layout> all(const Call &call, size_t index, size_t rank, size_t count, size_t sets) {
        if (!call.value<const size_t *>(index)) return std::vector<Layout>(sets, Layout(count));
        const size_t *const info = call.span<const size_t>(index, rank * (sets + 1));
        std::vector<Layout> layouts;
        for (size_t set = 1; set <= sets; set++) layouts.emplace_back(info, info + set * rank, rank);
        return layouts;
    }

    size_t at(size_t element) const {
        size_t offset = 0;
        for (size_t d = dims.size(); d-- > 0; element /= dims[d]) offset += element % dims[d] * strides[d];
        return offset;
    }

    // Elements from the first to the last that is touched.
    size_t reach() const {
        size_t last = 0;
        for (size_t d = 0; d < dims.size(); d++) {
            if (!dims[d]) return 0;
            last += (dims[d] - 1) * strides[d];
        }
        return last + 1;
    }
};

double unary(const std::string &name, double x) {
    if (name == "copy") return x;
    if (name == "neg") return -x;
    if (name == "recip") return 1 / x;
    if (name == "exp") return std::exp(x);
    if (name == "log") return std::log(x);
    if (name == "sin") return std::sin(x);
    if (name == "cos") return std::cos(x);
    if (name == "tanh") return std::tanh(x);
    if (name == "erf") return std::erf(x);
    if (name == "ceil") return std::ceil(x);
    if (name == "floor") return std::floor(x);
    if (name == "round") return std::round(x);
    if (name == "abs") return std::fabs(x);
    if (name == "sqr") return x * x;
    if (name == "sqrt") return std::sqrt(x);
    if (name == "relu") return x > 0 ? x : 0;
    if (name == "sign") return (x > 0) - (x < 0);
    if (name == "sigmoid") return 1 / (1 + std::exp(-x));
    if (name == "silu") return x / (1 + std::exp(-x));
    if (name == "gelu_erf") return x / 2 * (1 + std::erf(x * std::sqrt(0.5)));
    if (name == "gelu") return x / 2 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    throw Fault{UNKNOWN};
}

double binary(const std::string &name, double x, double y) {
    if (name == "badd") return x + y;
    if (name == "bsub") return x - y;
    if (name == "bmul") return x * y;
    if (name == "bdiv") return x / y;
    if (name == "bmaximum") return x != x || x > y ? x : y;
    if (name == "bminimum") return x != x || x < y ? x : y;
    if (name == "eq") return x == y;
    if (name == "ne") return x != y;
    if (name == "lt") return x < y;
    if (name == "le") return x <= y;
    if (name == "gt") return x > y;
    if (name == "ge") return x >= y;
    throw Fault{UNKNOWN};
}

// Elements, rank, info, [parameter], from, to.
template <typename T> void unaries(const std::string &name, const Call &call) {
    const size_t count = call.size(0);
    const bool is_power = name == "powf";
    const double power = is_power ? number(call.value<T>(3)) : 0;
    const Layout from = Layout::all(call, 2, call.size(1), count, 1)[0];
    const T *const x = call.span<const T>(3 + is_power, from.reach());
    T *const y = call.span<T>(4 + is_power, count);
    for (size_t i = 0; i < count; i++) {
        const double value = number(x[from.at(i)]);
        set(y[i], is_power ? std::pow(value, power) : unary(name, value));
    }
}

template <typename T, typename U> void binaries(const std::string &name, const Call &call) {
    const size_t count = call.size(0);
    const auto lies = Layout::all(call, 2, call.size(1), count, 2);
    const T *const a = call.span<const T>(3, lies[0].reach()), *const b = call.span<const T>(4, lies[1].reach());
    U *const y = call.span<U>(5, count);
    for (size_t i = 0; i < count; i++) set(y[i], binary(name, number(a[lies[0].at(i)]), number(b[lies[1].at(i)])));
}

template <typename T> void affine(const Call &call) {
    const size_t count = call.size(0);
    const Layout from = Layout::all(call, 2, call.size(1), count, 1)[0];
    const T *const x = call.span<const T>(3, from.reach());
    T *const y = call.span<T>(4, count);
    const double factor = number(call.value<T>(5)), offset = number(call.value<T>(6));
    for (size_t i = 0; i < count; i++) set(y[i], number(x[from.at(i)]) * factor + offset);
}

template <typename T, typename U> void cast(const Call &call) {
    const size_t count = call.size(0);
    const Layout from = Layout::all(call, 2, call.size(1), count, 1)[0];
    const T *const x = call.span<const T>(3, from.reach());
    U *const y = call.span<U>(4, count);
    for (size_t i = 0; i < count; i++) set(y[i], number(x[from.at(i)]));
}

template <typename T, typename I> void choose(const Call &call) {
    const size_t count = call.size(0);
    const auto lies = Layout::all(call, 2, call.size(1), count, 3);
    const I *const which = call.span<const I>(3, lies[0].reach());
    const T *const a = call.span<const T>(4, lies[1].reach()), *const b = call.span<const T>(5, lies[2].reach());
    T *const y = call.span<T>(6, count);
    for (size_t i = 0; i < count; i++) y[i] = which[lies[0].at(i)] ? a[lies[1].at(i)] : b[lies[2].at(i)];
}

template <typename T> void constant(const Call &call) {
    const size_t count = call.size(0);
    const Layout to = Layout::all(call, 2, call.size(1), count, 1)[0];
    const T value = call.value<T>(3);
    T *const y = call.span<T>(4, to.reach());
    for (size_t i = 0; i < count; i++) y[to.at(i)] = value;
}

// From, to, rows, columns, distance of rows in either.
template <typename T> void copy_rows(const Call &call) {
    const size_t rows = call.value<uint32_t>(2), columns = call.value<uint32_t>(3);
    const size_t from = call.value<uint32_t>(4), to = call.value<uint32_t>(5);
    call.one_thread_each(rows * columns);
    const T *const x = call.span<const T>(0, (rows - 1) * from + columns);
    T *const y = call.span<T>(1, (rows - 1) * to + columns);
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++) y[row * to + column] = x[row * from + column];
}

// Elements (or sums), elements of a sum, rank, info, from, to: what is summed over comes last.
template <typename T> void reduce(const std::string &name, const Call &call) {
    const size_t each = call.size(1), rank = call.size(2);
    const bool is_small = name == "fast_sum_small";
    const size_t sums = is_small ? call.size(0) : each ? call.size(0) / each : 0;
    if (is_small) call.one_thread_each(sums);
    else if (call.launch.grid[0] != sums) throw Fault{"not a block of each sum"};
    const Layout from = Layout::all(call, 3, rank, sums * each, 1)[0];
    const T *const x = call.span<const T>(4, from.reach());
    const bool is_place = name.find("arg") != std::string::npos, is_most = name.find("max") != std::string::npos;
    const bool is_sum = name.find("sum") != std::string::npos;
    void *const y = is_place ? static_cast<void *>(call.span<uint32_t>(5, sums)) : call.span<T>(5, sums);
    for (size_t sum = 0; sum < sums; sum++) {
        double total = 0;
        size_t place = 0;
        for (size_t i = 0; i < each; i++) {
            const double value = number(x[from.at(sum * each + i)]);
            if (is_sum) total += value;
            else if (i == 0 || (is_most ? value > total : value < total)) total = value, place = i;
        }
        if (is_place) static_cast<uint32_t *>(y)[sum] = uint32_t(place);
        else set(static_cast<T *>(y)[sum], total);
    }
}

template <typename I> size_t checked(I id, size_t count) {
    if (size_t(id) >= count) throw Fault{"an index beyond its dimension"};
    return size_t(id);
}

// Elements, rank and info of the indices, indices, from, to, left, size of the dimension, number of indices, right.
template <typename T, typename I> void index_select(const Call &call) {
    const size_t count = call.size(0), left = call.size(6), size = call.size(7), ids = call.size(8),
                 right = call.size(9);
    const I *const id = call.span<const I>(3, ids);
    const T *const x = call.span<const T>(4, left * size * right);
    T *const y = call.span<T>(5, count);
    for (size_t i = 0; i < count; i++)
        y[i] = x[(i / (ids * right) * size + checked(id[i / right % ids], size)) * right + i % right];
}

// Elements, indices, from, to, left, size, number of indices, right.
template <typename T, typename I> void gather(const Call &call) {
    const size_t count = call.size(0), left = call.size(4), size = call.size(5), ids = call.size(6),
                 right = call.size(7);
    const I *const id = call.span<const I>(1, count);
    const T *const x = call.span<const T>(2, left * size * right);
    T *const y = call.span<T>(3, count);
    for (size_t i = 0; i < count; i++)
        y[i] = x[(i / (right * ids) * size + checked(id[i], size)) * right + i % right];
}

// Adds every element of `[left, from, right]` to where its index points in `[left, to, right]`, or puts it there;
// `which(i, j)` is the place of the index of element i, row j.
template <typename T, typename I, typename F>
void scatter(const I *id, const T *x, T *y, const size_t (&sizes)[4], bool is_added, F which) {
    const auto [left, from, to, right] = sizes;
    for (size_t l = 0; l < left; l++)
        for (size_t j = 0; j < from; j++)
            for (size_t r = 0; r < right; r++) {
                const size_t i = (l * from + j) * right + r;
                T &target = y[(l * to + checked(id[which(i, j)], to)) * right + r];
                set(target, number(x[i]) + (is_added ? number(target) : 0));
            }
}

// Indices, their number, from, to, left, size of the source, of the target, right: one index a row.
template <typename T, typename I> void index_add(const Call &call) {
    const size_t ids = call.size(1), left = call.size(4), to = call.size(6), right = call.size(7);
    const T *const x = call.span<const T>(2, left * ids * right);
    scatter(call.span<const I>(0, ids), x, call.span<T>(3, left * to * right), {left, ids, to, right}, true,
            [](size_t, size_t j) { return j; });
}

// Indices, from, to, left, size of the source, of the target, right: an index for each element.
template <typename T, typename I> void scatter_all(const Call &call, bool is_added) {
    const size_t left = call.size(3), from = call.size(4), to = call.size(5), right = call.size(6);
    const size_t count = left * from * right;
    const T *const x = call.span<const T>(1, count);
    scatter(call.span<const I>(0, count), x, call.span<T>(2, left * to * right), {left, from, to, right}, is_added,
            [](size_t i, size_t) { return i; });
}

// Elements, rows and columns out, rows and columns of the kernel, stride, padding, dilation, info, from, to.
template <typename T> void im2col(const Call &call) {
    const size_t count = call.size(0), tall = call.size(1), wide = call.size(2), rows = call.size(3),
                 columns = call.size(4);
    const long stride = long(call.size(5)), padding = long(call.size(6)), dilation = long(call.size(7));
    const Layout lies = Layout::all(call, 8, 4, 0, 1)[0];
    const size_t channels = lies.dims[1];
    call.one_thread_each(count);
    if (count != lies.dims[0] * tall * wide * channels * rows * columns) throw Fault{"another number of elements"};
    const T *const x = call.span<const T>(9, lies.reach());
    T *const y = call.span<T>(10, count);
    for (size_t i = 0; i < count; i++) {
        size_t rest = i;
        const auto next = [&rest](size_t size) {
            const size_t index = rest % size;
            rest /= size;
            return index;
        };
        const size_t column = next(columns), row = next(rows), channel = next(channels), right = next(wide),
                     down = next(tall);
        const long at_y = long(down) * stride + long(row) * dilation - padding;
        const long at_x = long(right) * stride + long(column) * dilation - padding;
        const bool is_inside = at_y >= 0 && at_x >= 0 && at_y < long(lies.dims[2]) && at_x < long(lies.dims[3]);
        const size_t at = rest * lies.strides[0] + channel * lies.strides[1];
        is_inside ? void(y[i] = x[at + size_t(at_y) * lies.strides[2] + size_t(at_x) * lies.strides[3]])
                  : set(y[i], 0);
    }
}

// Elements, columns and rows out, stride, padding, [padding of the output], dilation, info of input and kernel, both,
// to.
template <typename T> void convolution(const Call &call, bool is_turned) {
    const size_t wide = call.size(1), tall = call.size(2);
    const long stride = long(call.size(3)), padding = long(call.size(4)), dilation = long(call.size(5 + is_turned));
    const size_t first = 6 + is_turned;
    const size_t *const info = call.span<const size_t>(first, 16);
    const Layout x_lies(info, info + 4, 4), k_lies(info + 8, info + 12, 4);
    const size_t inputs = x_lies.dims[1], outputs = is_turned ? k_lies.dims[1] : k_lies.dims[0];
    const T *const x = call.span<const T>(first + 1, x_lies.reach()), *const kernel = call.span<const T>(
                                                                          first + 2, k_lies.reach());
    const size_t count = x_lies.dims[0] * outputs * tall * wide;
    call.one_thread_each(count);
    T *const y = call.span<T>(first + 3, count);
    for (size_t i = 0; i < count; i++) {
        const size_t right = i % wide, down = i / wide % tall, output = i / (wide * tall) % outputs,
                     image = i / (wide * tall * outputs);
        double sum = 0;
        for (size_t row = 0; row < k_lies.dims[2]; row++)
            for (size_t column = 0; column < k_lies.dims[3]; column++) {
                long at_y, at_x;
                if (is_turned) {
                    at_y = long(down) + padding - long(row) * dilation,
                    at_x = long(right) + padding - long(column) * dilation;
                    if (at_y % stride || at_x % stride) continue;
                    at_y /= stride, at_x /= stride;
                } else {
                    at_y = long(down) * stride + long(row) * dilation - padding;
                    at_x = long(right) * stride + long(column) * dilation - padding;
                }
                if (at_y < 0 || at_x < 0 || at_y >= long(x_lies.dims[2]) || at_x >= long(x_lies.dims[3])) continue;
                for (size_t input = 0; input < inputs; input++) {
                    const size_t from = image * x_lies.strides[0] + input * x_lies.strides[1] +
                                        size_t(at_y) * x_lies.strides[2] + size_t(at_x) * x_lies.strides[3];
                    const size_t a = is_turned ? input : output, b = is_turned ? output : input;
                    const size_t with = a * k_lies.strides[0] + b * k_lies.strides[1] + row * k_lies.strides[2] +
                                        column * k_lies.strides[3];
                    sum += number(x[from]) * number(kernel[with]);
                }
            }
        set(y[i], sum);
    }
}

// Columns and rows out, factors, info, from, to.
template <typename T> void nearest(const Call &call) {
    const size_t wide = call.size(0), tall = call.size(1);
    const double across = call.value<double>(2), down = call.value<double>(3);
    const Layout lies = Layout::all(call, 4, 4, 0, 1)[0];
    const size_t count = lies.dims[0] * lies.dims[1] * tall * wide;
    call.one_thread_each(count);
    const T *const x = call.span<const T>(5, lies.reach());
    T *const y = call.span<T>(6, count);
    for (size_t i = 0; i < count; i++) {
        const size_t from_y = std::min(size_t(double(i / wide % tall) * down), lies.dims[2] - 1);
        const size_t from_x = std::min(size_t(double(i % wide) * across), lies.dims[3] - 1);
        const size_t plane = i / (wide * tall);
        y[i] = x[plane / lies.dims[1] * lies.strides[0] + plane % lies.dims[1] * lies.strides[1] +
                 from_y * lies.strides[2] + from_x * lies.strides[3]];
    }
}

// Columns and rows out, whether corners meet, factors that are given (none is here), info, from, to.
template <typename T> void bilinear(const Call &call) {
    const size_t wide = call.size(0), tall = call.size(1);
    if (call.value<uint8_t>(2)) throw Fault{UNKNOWN};
    const Layout lies = Layout::all(call, 7, 4, 0, 1)[0];
    const double down = call.value<uint8_t>(3) ? 1 / call.value<double>(4) : double(lies.dims[2]) / double(tall);
    const double across = call.value<uint8_t>(5) ? 1 / call.value<double>(6) : double(lies.dims[3]) / double(wide);
    const size_t count = lies.dims[0] * lies.dims[1] * tall * wide;
    call.one_thread_each(count);
    const T *const x = call.span<const T>(8, lies.reach());
    T *const y = call.span<T>(9, count);
    for (size_t i = 0; i < count; i++) {
        const double at_y = std::max((double(i / wide % tall) + 0.5) * down - 0.5, 0.0);
        const double at_x = std::max((double(i % wide) + 0.5) * across - 0.5, 0.0);
        const size_t y0 = std::min(size_t(at_y), lies.dims[2] - 1), y1 = std::min(y0 + 1, lies.dims[2] - 1);
        const size_t x0 = std::min(size_t(at_x), lies.dims[3] - 1), x1 = std::min(x0 + 1, lies.dims[3] - 1);
        const size_t plane = i / (wide * tall);
        const T *const from = x + plane / lies.dims[1] * lies.strides[0] + plane % lies.dims[1] * lies.strides[1];
        const auto row = [&](size_t at) {
            const double left = number(from[at * lies.strides[2] + x0 * lies.strides[3]]);
            return left + (at_x - double(x0)) * (number(from[at * lies.strides[2] + x1 * lies.strides[3]]) - left);
        };
        set(y[i], row(y0) + (at_y - double(y0)) * (row(y1) - row(y0)));
    }
}

bool starts(const std::string &name, const char *with) { return name.rfind(with, 0) == 0; }

template <typename T, typename I> void with_ids_of(const std::string &name, const Call &call) {
    if (name == "is") return index_select<T, I>(call);
    if (name == "gather") return gather<T, I>(call);
    if (name == "ia") return index_add<T, I>(call);
    if (name == "sa") return scatter_all<T, I>(call, true);
    if (name == "s") return scatter_all<T, I>(call, false);
    if (name == "where") return choose<T, I>(call);
    throw Fault{UNKNOWN};
}

template <typename T> void with_ids(const std::string &name, const std::string &ids, const Call &call) {
    if (ids == "u8") return with_ids_of<T, uint8_t>(name, call);
    if (ids == "u32") return with_ids_of<T, uint32_t>(name, call);
    if (ids == "i64") return with_ids_of<T, int64_t>(name, call);
    throw Fault{UNKNOWN};
}

// `name` without the type behind it.
template <typename T> void of(const std::string &name, const Call &call) {
    const size_t bar = name.find('_');
    const std::string head = name.substr(0, bar), rest = bar == std::string::npos ? "" : name.substr(bar + 1);
    if (rest == "u8" || rest == "u32" || rest == "i64") {
        if (head != "cast") return with_ids<T>(head, rest, call);
    }
    if (head == "cast") {
        if (rest == "f32") return cast<float, T>(call);
        if (rest == "bf16") return cast<bf16, T>(call);
        if (rest == "f16") return cast<f16, T>(call);
        if (rest == "f64") return cast<double, T>(call);
        if (rest == "u8") return cast<uint8_t, T>(call);
        if (rest == "u32") return cast<uint32_t, T>(call);
        if (rest == "i64") return cast<int64_t, T>(call);
    }
    if (name == "affine") return affine<T>(call);
    if (name == "const_set") return constant<T>(call);
    if (name == "copy2d") return copy_rows<T>(call);
    if (name == "im2col") return im2col<T>(call);
    if (name == "conv2d") return convolution<T>(call, false);
    if (name == "conv_transpose2d") return convolution<T>(call, true);
    if (name == "upsample_nearest2d") return nearest<T>(call);
    if (name == "upsample_bilinear2d") return bilinear<T>(call);
    if (starts(name, "fast_")) return reduce<T>(name, call);
    if (name == "eq" || name == "ne" || name == "lt" || name == "le" || name == "gt" || name == "ge")
        return binaries<T, uint8_t>(name, call);
    if (starts(name, "b")) return binaries<T, T>(name, call);
    if (starts(name, "u")) return unaries<T>(name.substr(1), call);
    throw Fault{UNKNOWN};
}

} // namespace

const char *card::candle(const std::string &kernel, const Launch &launch, const Arguments &arguments) {
    const size_t bar = kernel.rfind('_');
    const std::string name = kernel.substr(0, bar), type = bar == std::string::npos ? "" : kernel.substr(bar + 1);
    const Call call{launch, arguments};
    try {
        if (type == "f32") of<float>(name, call);
        else if (type == "bf16") of<bf16>(name, call);
        else if (type == "f16") of<f16>(name, call);
        else if (type == "f64") of<double>(name, call);
        else if (type == "u8") of<uint8_t>(name, call);
        else if (type == "u32") of<uint32_t>(name, call);
        else if (type == "i64") of<int64_t>(name, call);
        else return UNKNOWN;
    } catch (const Fault &fault) {
        return fault.what;
    }
    return nullptr;
}
