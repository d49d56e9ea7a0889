// cuBLAS, cuBLASLt and cuRAND: matrices in columns, sums rounded once. Numbers of types, attributes and answers are
// those of NVIDIA's manuals.
#include "card.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

using namespace card;

enum Status : int { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type : int { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
constexpr int SUMS_F32 = 68;
constexpr double MOST = 1e11; // multiplications of one product

size_t bytes_of(int type) { return type == F32 ? 4 : type == F64 ? 8 : 2; }

double get(const void *at, int type, size_t index) {
    switch (type) {
    case F32: return static_cast<const float *>(at)[index];
    case F64: return static_cast<const double *>(at)[index];
    case F16: return number(static_cast<const f16 *>(at)[index]);
    default: return number(static_cast<const bf16 *>(at)[index]);
    }
}

void put_number(void *at, int type, size_t index, double x) {
    switch (type) {
    case F32: set(static_cast<float *>(at)[index], x); break;
    case F64: set(static_cast<double *>(at)[index], x); break;
    case F16: set(static_cast<f16 *>(at)[index], x); break;
    default: set(static_cast<bf16 *>(at)[index], x);
    }
}

struct Matrix {
    int type;
    uint64_t rows, columns;
    int64_t lead;

    // Whether all of it lies in memory that is alive.
    bool is_at(const void *address) const {
        const size_t reach = columns ? (columns - 1) * size_t(lead) + rows : 0;
        return reach == 0 ||
               (reinterpret_cast<uintptr_t>(address) % bytes_of(type) == 0 && holds(address, reach * bytes_of(type)));
    }
};

// Many sums side by side, so that a compiler can take several at once.
double dot(const float *a, const float *b, uint64_t count) {
    constexpr uint64_t LANES = 32;
    float sums[LANES] = {};
    uint64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (uint64_t lane = 0; lane < LANES; lane++) sums[lane] += a[k + lane] * b[k + lane];
    double sum = 0;
    for (const float part : sums) sum += part;
    for (; k < count; k++) sum += double(a[k]) * double(b[k]);
    return sum;
}

struct Product {
    Matrix a, b, c;
    bool is_a_turned, is_b_turned;
    double factor, kept;
    const void *bias; // of c's type, or null
};

const char *multiply(const Product &p, const void *a, const void *b, const void *c, void *d) {
    const uint64_t depth = p.is_a_turned ? p.a.rows : p.a.columns;
    if (!p.a.is_at(a) || !p.b.is_at(b) || !p.c.is_at(d) || (p.kept != 0 && !p.c.is_at(c)))
        return "a product's matrix is not alive";
    if (p.bias && !holds(p.bias, p.c.rows * bytes_of(p.c.type))) return "a product's bias is not alive";
    if (double(p.c.rows) * double(p.c.columns) * double(depth) > MOST) {
        if (!getenv("MASAM_CARD_SKIP")) return "a product too large to be done here";
        memset(d, 0xff, p.c.rows * bytes_of(p.c.type)); // nobody may look at it
        return nullptr;
    }
    // Taken out once, so that larger ones come to an end.
    std::vector<float> left(p.c.rows * depth), right(p.c.columns * depth);
    for (uint64_t row = 0; row < p.c.rows; row++)
        for (uint64_t k = 0; k < depth; k++)
            left[row * depth + k] =
                float(get(a, p.a.type, p.is_a_turned ? k + row * size_t(p.a.lead) : row + k * size_t(p.a.lead)));
    for (uint64_t column = 0; column < p.c.columns; column++)
        for (uint64_t k = 0; k < depth; k++)
            right[column * depth + k] = float(
                get(b, p.b.type, p.is_b_turned ? column + k * size_t(p.b.lead) : k + column * size_t(p.b.lead)));
    for (uint64_t column = 0; column < p.c.columns; column++)
        for (uint64_t row = 0; row < p.c.rows; row++) {
            double sum = p.factor * dot(&left[row * depth], &right[column * depth], depth);
            const size_t at = row + column * size_t(p.c.lead);
            if (p.kept != 0) sum += p.kept * get(c, p.c.type, at);
            if (p.bias) sum += get(p.bias, p.c.type, row);
            put_number(d, p.c.type, at, sum);
        }
    return nullptr;
}

struct Handle {
    void *stream = nullptr;
};

struct Description {
    int sums, factors;
    int32_t is_a_turned = 0;
    uint32_t epilogue = 1;
    const void *bias = nullptr;
};

struct Wishes {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256}; // what is assumed where nothing is said
};

struct Algorithm {
    uint64_t data[8];
};

struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// What an algorithm was chosen for.
uint64_t purpose(const Description &what, const Matrix &a, const Matrix &b, const Matrix &d) {
    uint64_t hash = 14695981039346656037u;
    const auto add = [&hash](uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
    for (const Matrix *matrix : {&a, &b, &d}) {
        add(uint64_t(matrix->type));
        add(matrix->rows);
        add(matrix->columns);
        add(uint64_t(matrix->lead));
    }
    add(uint64_t(what.is_a_turned));
    add(what.epilogue);
    return hash;
}

constexpr uint64_t MARK = 0x6d6173616d;
constexpr size_t WORKSPACE = 4096;

int refuse(const char *what) {
    fprintf(stderr, "card: cuBLASLt: %s\n", what);
    return INVALID_VALUE;
}

// The value of an attribute, which has to be as long as what it is for.
template <typename T> int take(T &to, const void *value, size_t bytes) {
    if (bytes != sizeof to) return refuse("an attribute of another size");
    memcpy(&to, value, bytes);
    return SUCCESS;
}

} // namespace

extern "C" {

int cublasCreate_v2(void **handle) {
    if (!has_context()) return NOT_INITIALIZED;
    *handle = new Handle;
    return SUCCESS;
}
int cublasDestroy_v2(void *handle) {
    delete static_cast<Handle *>(handle);
    return SUCCESS;
}
int cublasSetStream_v2(void *handle, void *stream) {
    static_cast<Handle *>(handle)->stream = stream;
    return SUCCESS;
}

int cublasGemmStridedBatchedEx(void *handle, int turn_a, int turn_b, int rows, int columns, int depth,
                               const void *alpha, const void *a, int a_type, int a_lead, long long a_stride,
                               const void *b, int b_type, int b_lead, long long b_stride, const void *beta, void *c,
                               int c_type, int c_lead, long long c_stride, int count, int sums, int) {
    if (!has_context()) return NOT_INITIALIZED;
    if (sums != SUMS_F32) {
        fprintf(stderr, "card: cuBLAS: sums of type %d, not float32\n", sums);
        return NOT_SUPPORTED;
    }
    const int a_rows = turn_a ? depth : rows, b_rows = turn_b ? columns : depth;
    if (a_lead < a_rows || b_lead < b_rows || c_lead < rows) return INVALID_VALUE;
    const Matrix of_a{a_type, uint64_t(a_rows), uint64_t(turn_a ? rows : depth), a_lead};
    const Matrix of_b{b_type, uint64_t(b_rows), uint64_t(turn_b ? depth : columns), b_lead};
    const Matrix of_c{c_type, uint64_t(rows), uint64_t(columns), c_lead};
    const Product product{of_a,
                          of_b,
                          of_c,
                          turn_a != 0,
                          turn_b != 0,
                          *static_cast<const float *>(alpha),
                          *static_cast<const float *>(beta),
                          nullptr};
    const int error = put(static_cast<Handle *>(handle)->stream, [=]() -> const char * {
        for (int i = 0; i < count; i++) {
            const char *const from_a = static_cast<const char *>(a) + a_stride * i * (long long)bytes_of(a_type);
            const char *const from_b = static_cast<const char *>(b) + b_stride * i * (long long)bytes_of(b_type);
            char *const to = static_cast<char *>(c) + c_stride * i * (long long)bytes_of(c_type);
            if (const char *const fault = multiply(product, from_a, from_b, to, to)) return fault;
        }
        return nullptr;
    });
    return error ? EXECUTION_FAILED : SUCCESS;
}

int cublasLtCreate(void **handle) { return cublasCreate_v2(handle); }
int cublasLtDestroy(void *handle) { return cublasDestroy_v2(handle); }

int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t lead) {
    if (uint64_t(lead) < rows) return refuse("columns overlap");
    *layout = new Matrix{type, rows, columns, lead};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *layout) {
    delete static_cast<Matrix *>(layout);
    return SUCCESS;
}

int cublasLtMatmulDescCreate(void **description, int sums, int factors) {
    *description = new Description{sums, factors};
    return sums == SUMS_F32 && factors == F32 ? SUCCESS : refuse("sums or factors that are not float32");
}
int cublasLtMatmulDescDestroy(void *description) {
    delete static_cast<Description *>(description);
    return SUCCESS;
}
int cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
    Description &description = *static_cast<Description *>(handle);
    switch (attribute) {
    case 3: return take(description.is_a_turned, value, bytes);
    case 7: return take(description.epilogue, value, bytes);
    case 8: return take(description.bias, value, bytes);
    default: return refuse("an attribute of a product that is not known here");
    }
}

int cublasLtMatmulPreferenceCreate(void **wishes) {
    *wishes = new Wishes;
    return SUCCESS;
}
int cublasLtMatmulPreferenceDestroy(void *wishes) {
    delete static_cast<Wishes *>(wishes);
    return SUCCESS;
}
int cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
    Wishes &wishes = *static_cast<Wishes *>(handle);
    uint32_t schemes = 0;
    switch (attribute) {
    case 1: return take(wishes.workspace, value, bytes);
    case 3: return take(schemes, value, bytes);
    case 5:
    case 6:
    case 7:
    case 8: return take(wishes.alignment[attribute - 5], value, bytes);
    default: return refuse("a wish that is not known here");
    }
}

// An algorithm that wants what its wishes promise: the alignment and the workspace are looked at when it is run.
int cublasLtMatmulAlgoGetHeuristic(void *, void *handle, void *a, void *b, void *c, void *d, void *wishes_handle,
                                   int wanted, Found *found, int *count) {
    const Description &description = *static_cast<const Description *>(handle);
    const Wishes &wishes = *static_cast<const Wishes *>(wishes_handle);
    const Matrix &of_a = *static_cast<Matrix *>(a), &of_b = *static_cast<Matrix *>(b),
                 &of_d = *static_cast<Matrix *>(d);
    const uint64_t depth = description.is_a_turned ? of_a.rows : of_a.columns,
                   rows = description.is_a_turned ? of_a.columns : of_a.rows;
    if (c != d || wanted < 1 || depth != of_b.rows || rows != of_d.rows || of_b.columns != of_d.columns)
        return refuse("matrices that do not fit");
    if (of_a.type != of_b.type || of_a.type != of_d.type) {
        refuse("matrices of several types");
        return NOT_SUPPORTED;
    }
    memset(found, 0, sizeof *found);
    found->algorithm.data[0] = MARK;
    for (int i = 0; i < 4; i++) found->algorithm.data[1 + i] = wishes.alignment[i];
    found->workspace = wishes.workspace < WORKSPACE ? 0 : WORKSPACE;
    found->algorithm.data[5] = found->workspace;
    found->algorithm.data[6] = purpose(description, of_a, of_b, of_d);
    *count = 1;
    return SUCCESS;
}

int cublasLtMatmul(void *handle, void *description_handle, const void *alpha, const void *a, void *a_lies,
                   const void *b, void *b_lies, const void *beta, const void *c, void *c_lies, void *d, void *d_lies,
                   const Algorithm *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
    if (!handle || !has_context()) return NOT_INITIALIZED;
    if (c_lies != d_lies || algorithm->data[0] != MARK) return refuse("an algorithm that was not chosen here");
    const Description &description = *static_cast<const Description *>(description_handle);
    const Matrix &of_a = *static_cast<Matrix *>(a_lies), &of_b = *static_cast<Matrix *>(b_lies);
    const Matrix &of_d = *static_cast<Matrix *>(d_lies);
    if (algorithm->data[6] != purpose(description, of_a, of_b, of_d))
        return refuse("an algorithm that was chosen for another product");
    if (workspace_bytes < algorithm->data[5] || reinterpret_cast<uintptr_t>(workspace) % 256)
        return refuse("a workspace that is too small or not aligned to 256 bytes");
    const void *const operands[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (reinterpret_cast<uintptr_t>(operands[i]) % algorithm->data[1 + i])
            return refuse("an operand that is not aligned as was promised");
    const bool has_bias = description.epilogue == 4;
    if (!has_bias && description.epilogue != 1) return refuse("an epilogue that is not known here");
    if (has_bias != (description.bias != nullptr))
        return refuse("a bias without its epilogue, or the other way round");
    const Product product{of_a,
                          of_b,
                          of_d,
                          description.is_a_turned != 0,
                          false,
                          *static_cast<const float *>(alpha),
                          *static_cast<const float *>(beta),
                          description.bias};
    const int error = put(stream, [=]() -> const char * {
        if (workspace_bytes) {
            if (!holds(workspace, workspace_bytes)) return "a product's workspace is not alive";
            memset(workspace, 0xff, workspace_bytes);
        }
        return multiply(product, a, b, c, d);
    });
    return error ? EXECUTION_FAILED : SUCCESS;
}

int curandCreateGenerator(void **generator, int) {
    *generator = new Handle;
    return SUCCESS;
}
int curandDestroyGenerator(void *generator) {
    delete static_cast<Handle *>(generator);
    return SUCCESS;
}
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return SUCCESS; }
int curandSetGeneratorOffset(void *, unsigned long long) { return SUCCESS; }
int curandSetStream(void *generator, void *stream) { return cublasSetStream_v2(generator, stream); }

// As many sums of four uniform numbers: near enough to normal for whoever wants no more than noise.
int curandGenerateNormal(void *generator, float *out, size_t count, float mean, float deviation) {
    const int error = put(static_cast<Handle *>(generator)->stream, [=]() -> const char * {
        if (!holds(out, count * sizeof(float))) return "random numbers to where nothing is alive";
        uint64_t state = 0x9e3779b97f4a7c15;
        for (size_t i = 0; i < count; i++) {
            float sum = -2;
            for (int k = 0; k < 4; k++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                sum += float(state >> 40) / float(1 << 24);
            }
            out[i] = mean + deviation * sum * 1.7320508f;
        }
        return nullptr;
    });
    return error ? EXECUTION_FAILED : SUCCESS;
}

} // extern "C"
