/* Passes over a table at the speed of memory: each row is read once for all that a pass needs of it.

   Optional: where this is not compiled, products.py does the same with matrix products, which read the rows twice.
   Tables are row-major with unit column stride, in double or in single precision; sums are in double. Work is
   split over threads by rows (by columns in the sketch), in a fixed way, so that the same call gives the same bits.
   The loops themselves are in _passes.h, compiled for each set of instructions.

   A proof of digits counts the additions that a number goes through here. What it counts by is exported to Python, see
   PyInit__loops: change it there and nowhere else. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched.h: the processors a thread may run on */
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "_work.h"

/* ---- sets of instructions ---- */

/* What compiles a loop for one of them, and the workers that result. */
typedef struct {
    void *(*residual)(void *), *(*loss)(void *), *(*curved)(void *), *(*squares)(void *), *(*gram32)(void *);
    void *(*gram64)(void *), *(*expansion)(void *), *(*sketch)(void *);
    void *(*cholesky32)(void *), *(*cholesky64)(void *);
    void (*forward)(const double *, Py_ssize_t, double *, int), (*backward)(const double *, Py_ssize_t, double *, int);
    void (*product)(const Matrix *, const double *, double *, int);
    void (*triangles)(const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double *, double *);
    int vector, right;
} Loops;

#define NAMED(name) JOIN(name, SUFFIX)

/* Call F with a count that the compiler knows. */
#define BY_THREE(count, F, ...)                                                                                        \
    ((count) == 1 ? F(1, __VA_ARGS__) : (count) == 2 ? F(2, __VA_ARGS__) : F(3, __VA_ARGS__))

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define FOR_X86 1

#define SUFFIX _512
#define AVX512 "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2"
#if defined(__clang__)
#define TARGET __attribute__((target(AVX512)))
#else
#define TARGET __attribute__((target(AVX512 ",prefer-vector-width=512")))
#endif
#define VECTOR 64
#define ROWS 8
#define TILE 8
#define RIGHT 3
#define BY_COUNT BY_THREE
#include "_passes.h"

#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define FOR_BFLOAT16 1
#include "_bfloat16.h"
#if defined(__linux__)
#define FOR_MATRIX_TILES 1
#include "_matrix_tiles.h"
#endif
#endif

#define SUFFIX _256
#define TARGET __attribute__((target("avx2,fma,bmi,bmi2")))
#define VECTOR 32
#define ROWS 4
#define TILE 4
#define RIGHT 1
#define BY_COUNT(count, F, ...) F(1, __VA_ARGS__)
#include "_passes.h"
#endif

#define SUFFIX _128
#define TARGET
#define VECTOR 16
#define ROWS 4
#if defined(__aarch64__)
#define TILE 4 /* thirty-two registers */
#else
#define TILE 2
#endif
#define RIGHT 1
#define BY_COUNT(count, F, ...) F(1, __VA_ARGS__)
#include "_passes.h"

static const Loops *loops = &loops_128;
/* The Gram matrix of rows in bfloat16, where this processor multiplies them; or NULL. */
static void *(*gram16)(void *) = NULL;
/* The same by its matrix unit, or NULL, and what asks whether this process may use it. */
static void *(*gram16_by_tiles)(void *) = NULL;
static int (*tiles_given)(void) = NULL;

#define WIDEST 1024 /* bytes of a tile, the largest register */

/* Choose the widest registers of this processor, but none beyond `bytes`. */
static void choose(int bytes) {
    loops = &loops_128;
    gram16 = gram16_by_tiles = NULL;
#ifdef FOR_X86
    __builtin_cpu_init();
    const int fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (bytes >= 32 && fused) loops = &loops_256;
    if (bytes >= 64 && fused && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        loops = &loops_512;
#endif
#ifdef FOR_BFLOAT16
    if (loops == &loops_512 && __builtin_cpu_supports("avx512bf16")) gram16 = gram16_worker;
#endif
#ifdef FOR_MATRIX_TILES
    if (bytes >= WIDEST && gram16 && has_matrix_tiles()) gram16_by_tiles = matrix_tiles_worker;
    tiles_given = matrix_tiles_given;
#endif
}

#include "_threads.h"

/* ---- what Python calls ---- */

/* How many parts a pass over m rows has: the same for any number of threads, so that the sums are. */
static int parts_of(Py_ssize_t m) {
    const Py_ssize_t parts = (m + GROUP - 1) / GROUP / PART_GROUPS;
    return parts < 1 ? 1 : parts < MAX_PARTS ? (int)parts : MAX_PARTS;
}

static int clamp_threads(int threads, Py_ssize_t parts) {
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > parts) threads = (int)parts;
    return threads < 1 ? 1 : threads;
}

/* Bounds of part i of `length` in `count` parts, on multiples of `unit`. */
static Py_ssize_t bound(Py_ssize_t length, int count, int i, Py_ssize_t unit) {
    if (i >= count) return length;
    const Py_ssize_t units = (length + unit - 1) / unit;
    return units * i / count * unit;
}

#define POINTER(type, value) ((type *)(uintptr_t)(value))

/* Read a description (address, single, rows, columns, numbers from row to row), or None where there is no table. */
static int to_table(PyObject *described, void *where) {
    Table *table = where;
    unsigned long long values;
    *table = (Table){NULL, 0, 0, 0, 0};
    if (described == Py_None) return 1;
    if (!PyTuple_Check(described)) {
        PyErr_SetString(PyExc_TypeError, "a table is (address, single, rows, columns, distance) or None");
        return 0;
    }
    if (!PyArg_ParseTuple(described, "Kinnn", &values, &table->single, &table->m, &table->n, &table->ld)) return 0;
    table->values = POINTER(const void, values);
    return 1;
}

/* Give each of `count` parts, which start with a Share, its rows of m and sums of its own; run them, add the sums up in
   the order of the parts, then to out, and free them. The first 3 * expansions of the sums are expansions. */
static PyObject *add_up(void *(*worker)(void *), void *parts, size_t part_size, int count, int threads, Py_ssize_t m,
                        Py_ssize_t size, Py_ssize_t expansions, double *out) {
    int failed = 0;
    double *sums = calloc((size_t)count * size, sizeof(double));
    if (!sums) {
        free(parts);
        return PyErr_NoMemory();
    }
    for (int i = 0; i < count; i++) {
        Share *share = (Share *)((char *)parts + i * part_size);
        *share = (Share){bound(m, count, i, GROUP), bound(m, count, i + 1, GROUP), sums + i * size, 0};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(worker, parts, part_size, count, clamp_threads(threads, count));
    for (int i = 0; i < count; i++) failed |= ((Share *)((char *)parts + i * part_size))->failed;
    for (int i = 1; i < count; i++) add_expansions(sums, sums + i * size, expansions, size - 3 * expansions);
    if (!failed) add_expansions(out, sums, expansions, size - 3 * expansions);
    Py_END_ALLOW_THREADS;
    free(parts);
    free(sums);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *residual_pass(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long y_scale, beside_scale, weight, v, offset, out;
    Table x, y, beside;
    int threads;
    Py_ssize_t q, group;
    if (!PyArg_ParseTuple(args, "O&(O&K)(O&K)K(KKn)(Kn)i", to_table, &x, to_table, &y, &y_scale, to_table, &beside,
                          &beside_scale, &weight, &v, &offset, &q, &out, &group, &threads))
        return NULL;
    const Py_ssize_t n = x.n, size = q * (n + 2 + beside.n) + gram_numbers(y.n, group);
    const int packed = q >= FEW || beside.n > 0;
    const Py_ssize_t most = size > MOST_SUMS || !size ? 1 : MOST_SUMS / size;
    const int count = parts_of(x.m) < most ? parts_of(x.m) : (int)most;
    Residual *parts = calloc(count, sizeof(Residual));
    double *panels = packed ? aligned(sizeof(double) * panels_of(n) * panels_of(q) * PANEL * PANEL) : NULL;
    if (!parts || (packed && !panels)) {
        free(parts);
        free(panels);
        return PyErr_NoMemory();
    }
    if (panels) lay_out_vectors(POINTER(const double, v), n, q, panels);
    for (int i = 0; i < count; i++) {
        parts[i] = (Residual){.x = x,
                              .y = y,
                              .y_scale = POINTER(const double, y_scale),
                              .beside = beside,
                              .beside_scale = POINTER(const double, beside_scale),
                              .weight = POINTER(const double, weight),
                              .v = POINTER(const double, v),
                              .offset = POINTER(const double, offset),
                              .q = q,
                              .group = group,
                              .panels = panels};
    }
    PyObject *result =
        add_up(loops->residual, parts, sizeof(Residual), count, threads, x.m, size, 0, POINTER(double, out));
    free(panels);
    return result;
}

static PyObject *loss_pass(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long weight, v, squares, out, roots;
    Table x, y;
    int threads;
    Loss like = {.kind = 0};
    double *p = like.numbers;
    if (!PyArg_ParseTuple(args, "O&O&K(Kd)(idddd)(Kddd)(KK)i", to_table, &x, to_table, &y, &weight, &v, &like.offset,
                          &like.kind, p, p + 1, p + 2, p + 3, &squares, &like.own, &like.reach, &like.few, &out, &roots,
                          &threads))
        return NULL;
    const int count = parts_of(x.m);
    Loss *parts = calloc(count, sizeof(Loss));
    if (!parts) return PyErr_NoMemory();
    double peaks[MAX_PARTS] = {0}, peak = 0;
    like.x = x;
    like.y = y;
    like.weight = POINTER(const double, weight);
    like.v = POINTER(const double, v);
    like.squares = POINTER(const double, squares);
    like.roots = POINTER(double, roots);
    for (int i = 0; i < count; i++) {
        parts[i] = like;
        parts[i].peak = peaks + i;
    }
    PyObject *done =
        add_up(loops->loss, parts, sizeof(Loss), count, threads, x.m, x.n + 4, 0, POINTER(double, out));
    if (!done) return NULL;
    Py_DECREF(done);
    for (int i = 0; i < count; i++) peak = peaks[i] > peak ? peaks[i] : peak;
    return PyFloat_FromDouble(peak);
}

static PyObject *curvature_pass(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long starts, outputs, curvatures, v, offset, out;
    Table x;
    int threads;
    Py_ssize_t q;
    if (!PyArg_ParseTuple(args, "O&(KKK)(KKn)Ki", to_table, &x, &starts, &outputs, &curvatures, &v, &offset, &q, &out,
                          &threads))
        return NULL;
    if (!x.single) {
        PyErr_SetString(PyExc_ValueError, "rows have to be in single precision");
        return NULL;
    }
    const Py_ssize_t size = q * (x.n + 1), most = size > MOST_SUMS || !size ? 1 : MOST_SUMS / size;
    /* Threads share a power of two evenly. */
    int count = 1;
    while (2 * count <= parts_of(x.m) && 2 * count <= most) count *= 2;
    Curved *parts = calloc(count, sizeof(Curved));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Curved){.x = x,
                            .q = q,
                            .v = POINTER(const float, v),
                            .offset = POINTER(const float, offset),
                            .starts = POINTER(const int64_t, starts),
                            .outputs = POINTER(const int32_t, outputs),
                            .curvatures = POINTER(const float, curvatures)};
    }
    return add_up(loops->curved, parts, sizeof(Curved), count, threads, x.m, size, 0, POINTER(double, out));
}

static PyObject *column_squares(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long weight, scale, shift, out;
    Table x;
    int threads;
    if (!PyArg_ParseTuple(args, "O&K(KK)Ki", to_table, &x, &weight, &scale, &shift, &out, &threads)) return NULL;
    const int count = parts_of(x.m);
    Squares *parts = calloc(count, sizeof(Squares));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Squares){.x = x,
                             .weight = POINTER(const double, weight),
                             .scale = POINTER(const double, scale),
                             .shift = POINTER(const double, shift)};
    }
    const Py_ssize_t size = shift ? 2 * x.n : x.n;
    return add_up(loops->squares, parts, sizeof(Squares), count, threads, x.m, size, 0, POINTER(double, out));
}

static PyObject *expansion_pass(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long y_scale, weight, v, offset, out;
    Table x, y;
    int threads;
    if (!PyArg_ParseTuple(args, "O&O&KK(KK)Ki", to_table, &x, to_table, &y, &y_scale, &weight, &v, &offset, &out,
                          &threads))
        return NULL;
    const int count = parts_of(x.m);
    Expansion *parts = calloc(count, sizeof(Expansion));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Expansion){.x = x,
                               .y = y,
                               .y_scale = POINTER(const double, y_scale),
                               .weight = POINTER(const double, weight),
                               .v = POINTER(const double, v),
                               .offset = POINTER(const double, offset),
                               .q = y.n};
    }
    const Py_ssize_t expansions = y.n * (x.n + 1);
    return add_up(loops->expansion, parts, sizeof(Expansion), count, threads, x.m, 3 * expansions + y.n, expansions,
                  POINTER(double, out));
}

/* Return the factor of the columns of A laid out in panels, to be freed; NULL where there is no memory. */
static void *lay_out_factor(const double *triangle, Py_ssize_t columns, int double_sums, int right) {
    const Py_ssize_t size = double_sums ? gram64_lay_out(triangle, columns, right, NULL) * (Py_ssize_t)sizeof(double)
                                        : gram32_lay_out(triangle, columns, right, NULL) * (Py_ssize_t)sizeof(float);
    void *panels = aligned(size);
    if (panels && double_sums) gram64_lay_out(triangle, columns, right, panels);
    if (panels && !double_sums) gram32_lay_out(triangle, columns, right, panels);
    return panels;
}

/* How many parts a product over m rows has: the same for few and many threads, as long as no more threads than that are
   there, so that the sums are; and a power of two, which two or four threads share evenly. Where other work holds one
   of them up, the others take its parts. A part has `enough` groups of rows for its sums to be no more than a few of a
   hundred of its work, but for a product of few rows; parts of many columns are only as many as memory is fit for. */
static int gram_parts(Py_ssize_t m, Py_ssize_t enough, size_t bytes, int threads) {
    const Py_ssize_t groups = (m + DEPTH - 1) / DEPTH, least = groups < 4 ? groups : 4;
    const Py_ssize_t worth = groups / enough > least ? groups / enough : least, fit = MOST_GRAM / (Py_ssize_t)bytes;
    int parts = 1;
    while (2 * parts <= worth && 2 * parts <= fit && 2 * parts <= MAX_PARTS) parts *= 2;
    threads = clamp_threads(threads, groups);
    return parts > threads ? parts : threads;
}

/* Some panels of a product, whose parts are added up. */
typedef struct {
    const Gram *parts;
    int count, double_sums;
    Py_ssize_t from, to;
    void *gram, *cross;
} Gather;

static void *gather_worker(void *argument) {
    const Gather *a = argument;
    if (a->double_sums) gram64_gather(a->parts, a->count, a->from, a->to, a->gram, a->cross);
    if (!a->double_sums) gram32_gather(a->parts, a->count, a->from, a->to, a->gram, a->cross);
    return NULL;
}

/* Add the tiles of all parts to gram and cross, a few panels at a time. */
static void gather_tiles(const Gram *parts, int count, int threads, int double_sums, void *gram, void *cross) {
    enum { PANELS = 32, PIECES = 64 };
    const Py_ssize_t width = double_sums ? 8 : 16, panels = (parts->y_from + parts->y.n + width - 1) / width;
    const int wanted = (int)(panels / PANELS), pieces = wanted < 1 ? 1 : wanted < PIECES ? wanted : PIECES;
    Gather all[PIECES];
    for (int i = 0; i < pieces; i++)
        all[i] = (Gather){parts, count, double_sums, bound(panels, pieces, i, 1), bound(panels, pieces, i + 1, 1),
                          gram,  cross};
    run(gather_worker, all, sizeof(Gather), pieces, clamp_threads(threads, pieces));
}

/* Run the worker on `count` parts like the first, each with rows of its own, and add their tiles to gram and cross. */
static int gather_gram(void *(*worker)(void *), const Gram *like, int count, int threads, int double_sums, void *gram,
                       void *cross, double *spread) {
    Gram *parts = calloc(count, sizeof(Gram));
    int failed = !parts;
    const Py_ssize_t columns = 2 * like->x.n, room = (2 + QUAD) * columns;
    double *sums = spread ? malloc(sizeof(double) * count * room) : NULL;
    failed |= spread && !sums;
    for (int i = 0; parts && i < count; i++) {
        parts[i] = *like;
        parts[i].from = bound(like->x.m, count, i, DEPTH);
        parts[i].to = bound(like->x.m, count, i + 1, DEPTH);
        parts[i].sums = aligned(like->bytes);
        parts[i].spread_sums = sums ? sums + i * room : NULL;
        failed |= !parts[i].sums;
    }
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        run(worker, parts, sizeof(Gram), count, clamp_threads(threads, count));
        for (int i = 0; i < count; i++) failed |= parts[i].failed;
        if (!failed) gather_tiles(parts, count, threads, double_sums, gram, cross);
        for (int i = 0; spread && !failed && i < count; i++)
            for (Py_ssize_t c = 0; c < columns; c++) spread[c] += parts[i].spread_sums[c];
        Py_END_ALLOW_THREADS;
    }
    for (int i = 0; parts && i < count; i++) free(parts[i].sums);
    free(parts);
    free(sums);
    return failed;
}

static PyObject *gram_add(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long row_scale, x_scale, y_scale, order, factor, gram, cross, weight, scale, shift, spread;
    Table x, y;
    int ones, transposed, bits, threads;
    Py_ssize_t counted;
    if (!PyArg_ParseTuple(args, "O&O&(KKK)(Kn)(Kii)(KKi)(KKKK)i", to_table, &x, to_table, &y, &row_scale, &x_scale,
                          &y_scale, &order, &counted, &factor, &ones, &transposed, &gram, &cross, &bits, &weight,
                          &scale, &shift, &spread, &threads))
        return NULL;
    const Loops *chosen = loops;
    const int by_tiles = bits == 16 && gram16_by_tiles && tiles_given();
    void *(*const worker)(void *) = by_tiles     ? gram16_by_tiles
                                    : bits == 16 ? gram16
                                    : bits == 64 ? chosen->gram64
                                                 : chosen->gram32;
    if (!worker || (bits == 16 && (factor || spread))) {
        PyErr_SetString(PyExc_ValueError, "bfloat16 needs a processor that multiplies it, without a factor or sums");
        return NULL;
    }
    if (spread && (order || transposed)) {
        PyErr_SetString(PyExc_ValueError, "columns are summed up over all rows of a table");
        return NULL;
    }
    const Py_ssize_t m = transposed ? x.n : order ? counted : x.m, n = transposed ? x.m : x.n;
    const int double_sums = bits == 64;
    const Py_ssize_t width = double_sums ? 8 : 16, columns = n + (ones ? 1 : 0), panels = (columns + width - 1) / width;
    /* Targets fill the last panel up; but for a factor, which multiplies whole panels. */
    const Py_ssize_t y_from = factor ? panels * width : columns, y_panels = (y_from + y.n + width - 1) / width - panels;
    void *const laid_out = factor ? lay_out_factor(POINTER(const double, factor), columns, double_sums, chosen->right)
                                  : NULL;
    if (factor && !laid_out) return PyErr_NoMemory();
    const Squares summed = {.x = x,
                            .weight = POINTER(const double, weight),
                            .scale = POINTER(const double, scale),
                            .shift = POINTER(const double, shift)};
    x.m = m;
    x.n = n;
    const Gram like = {.x = x,
                       .y = y,
                       .ones = ones,
                       .transposed = transposed,
                       .y_scale = POINTER(const double, y_scale),
                       .row_scale = POINTER(const double, row_scale),
                       .x_scale = POINTER(const double, x_scale),
                       .order = POINTER(const int64_t, order),
                       .spread = spread ? &summed : NULL,
                       .factor = laid_out,
                       .columns = columns,
                       .y_from = y_from,
                       .bytes = (size_t)(panels * (panels + 1) / 2 + panels * y_panels) * 64 * width};
    const int count = gram_parts(m, by_tiles ? TILE_GROUPS : GRAM_GROUPS, like.bytes, threads);
    const int failed = gather_gram(worker, &like, count, threads, double_sums, POINTER(void, gram),
                                   POINTER(void, cross), POINTER(double, spread));
    free(laid_out);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *sketch_add(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long target, factor, sketch;
    Table x;
    int threads;
    Py_ssize_t nonzeros;
    if (!PyArg_ParseTuple(args, "O&(KKn)Ki", to_table, &x, &target, &factor, &nonzeros, &sketch, &threads)) return NULL;
    /* Whole cache lines to each thread. */
    const int count = clamp_threads(threads, (x.n + 15) / 16);
    Sketch *parts = calloc(count, sizeof(Sketch));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Sketch){.x = x,
                            .target = POINTER(const int32_t, target),
                            .factor = POINTER(const double, factor),
                            .nonzeros = nonzeros,
                            .from = bound(x.n, count, i, 16),
                            .to = bound(x.n, count, i + 1, 16),
                            .sketch = POINTER(double, sketch)};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(loops->sketch, parts, sizeof(Sketch), count, count);
    Py_END_ALLOW_THREADS;
    free(parts);
    Py_RETURN_NONE;
}

static PyObject *cholesky(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long matrix, factor;
    Py_ssize_t n;
    int single, threads;
    if (!PyArg_ParseTuple(args, "KKnpi", &matrix, &factor, &n, &single, &threads)) return NULL;
    const Py_ssize_t width = 64 / (single ? sizeof(float) : sizeof(double)), panels = (n + width - 1) / width;
    const int blocks = (int)((n + BLOCK - 1) / BLOCK);
    void *tiles = aligned((size_t)(panels * (panels + 1) / 2) * 64 * width);
    atomic_int *done = calloc(blocks, sizeof *done);
    Triangle *shares[MAX_THREADS], whole = {.matrix = POINTER(const void, matrix),
                                            .factor = POINTER(void, factor),
                                            .tiles = tiles,
                                            .n = n,
                                            .panels = panels,
                                            .blocks = blocks,
                                            .count = blocks * (blocks + 1) / 2,
                                            .done = done};
    void *(*worker)(void *) = single ? loops->cholesky32 : loops->cholesky64;
    if (tiles && done) {
        threads = clamp_threads(threads, blocks);
        for (int i = 0; i < threads; i++) shares[i] = &whole;
        Py_BEGIN_ALLOW_THREADS;
        run(worker, shares, sizeof *shares, threads, threads);
        Py_END_ALLOW_THREADS;
    }
    const int failed = !tiles || !done;
    free(tiles);
    free(done);
    return failed ? PyErr_NoMemory() : PyLong_FromLong(atomic_load(&whole.place));
}

static PyObject *triangles(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long rows, out;
    Py_ssize_t count, m, n;
    if (!PyArg_ParseTuple(args, "(Knnn)K", &rows, &count, &m, &n, &out)) return NULL;
    const Py_ssize_t width = (n + LEAST_PADDING - 1) / LEAST_PADDING * LEAST_PADDING;
    const size_t bytes = sizeof(double) * (size_t)((m + 2) * width);
    double *a = aligned(bytes);
    if (!a) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    memset(a, 0, bytes);
    loops->triangles(POINTER(const double, rows), count, m, n, width, a, POINTER(double, out));
    Py_END_ALLOW_THREADS;
    free(a);
    Py_RETURN_NONE;
}

/* Copy n numbers of a row, and return 0 where all are finite, else NaN. */
static inline double copy_numbers(const Table *from, Py_ssize_t i, double *to) {
    double check = 0;
    if (from->single) {
        const float *x = (const float *)from->values + i * from->ld;
        for (Py_ssize_t c = 0; c < from->n; c++) {
            to[c] = x[c];
            check += 0.0 * to[c];
        }
    } else {
        const double *x = (const double *)from->values + i * from->ld;
        for (Py_ssize_t c = 0; c < from->n; c++) {
            to[c] = x[c];
            check += 0.0 * to[c];
        }
    }
    return check;
}

static PyObject *append_rows(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long address;
    Table x, y;
    if (!PyArg_ParseTuple(args, "O&O&K", to_table, &x, to_table, &y, &address)) return NULL;
    double *out = POINTER(double, address), check = 0;
    for (Py_ssize_t i = 0; i < x.m; i++) {
        *out++ = 1.0;
        check += copy_numbers(&x, i, out);
        out += x.n;
        check += copy_numbers(&y, i, out);
        out += y.n;
    }
    return PyBool_FromLong(check == 0);
}

typedef double Two __attribute__((vector_size(16), aligned(8), may_alias));
typedef int64_t Flags __attribute__((vector_size(16)));

/* Whether the tile of rows from p and columns from q differs from the one that faces it across the diagonal. Two rows of
   two numbers are turned over in registers. */
static int differs(const double *matrix, Py_ssize_t n, Py_ssize_t p, Py_ssize_t q) {
    int differ = 0;
    if (q + PANEL <= n) {
        const double *tile = matrix + p * n + q, *facing = matrix + q * n + p;
        Flags flags = {0};
        for (int i = 0; i < PANEL; i += 2) {
            for (int j = 0; j < PANEL; j += 2) {
                const Two *above = (const Two *)(tile + i * n + j), *below = (const Two *)(tile + (i + 1) * n + j);
                const Two left = *(const Two *)(facing + j * n + i), right = *(const Two *)(facing + (j + 1) * n + i);
                flags |= *above != (Two){left[0], right[0]};
                flags |= *below != (Two){left[1], right[1]};
            }
        }
        return (flags[0] | flags[1]) != 0;
    }
    for (Py_ssize_t i = p; i < n && i < p + PANEL; i++)
        for (Py_ssize_t j = q; j < n; j++) differ |= matrix[i * n + j] != matrix[j * n + i];
    return differ;
}

#define SQUARE 64 /* rows and columns that the inner cache holds, and that are compared before the next are fetched */

/* Whether a matrix is its transpose, square by square: a column of a large one is in another line of memory each time. */
static int symmetric(const double *matrix, Py_ssize_t n) {
    for (Py_ssize_t first = 0; first < n; first += SQUARE) {
        for (Py_ssize_t from = first; from < n; from += SQUARE) {
            for (Py_ssize_t p = first; p < n && p < first + SQUARE; p += PANEL)
                for (Py_ssize_t q = p > from ? p : from; q < n && q < from + SQUARE; q += PANEL)
                    if (differs(matrix, n, p, q)) return 0;
        }
    }
    return 1;
}

static PyObject *is_symmetric(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long matrix;
    Py_ssize_t n;
    int found;
    if (!PyArg_ParseTuple(args, "Kn", &matrix, &n)) return NULL;
    Py_BEGIN_ALLOW_THREADS;
    found = symmetric(POINTER(const double, matrix), n);
    Py_END_ALLOW_THREADS;
    return PyBool_FromLong(found);
}

static PyObject *triangle_solve(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long triangle, vectors;
    Py_ssize_t n, q;
    int forward, backward;
    if (!PyArg_ParseTuple(args, "(Kn)(pp)Kn", &triangle, &n, &forward, &backward, &vectors, &q)) return NULL;
    const Loops *chosen = loops;
    const double *R = POINTER(const double, triangle);
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t j = 0; j < q; j += FEW - 1) {
        double *v = POINTER(double, vectors) + j * n;
        const int count = q - j < FEW - 1 ? (int)(q - j) : FEW - 1;
        if (forward) chosen->forward(R, n, v, count);
        if (backward) chosen->backward(R, n, v, count);
    }
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *matrix_product(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long values, vectors, out;
    Py_ssize_t q;
    Matrix matrix;
    if (!PyArg_ParseTuple(args, "(Knnp)(pp)KKn", &values, &matrix.m, &matrix.n, &matrix.upper, &matrix.images, &matrix.back,
                          &vectors, &out, &q))
        return NULL;
    matrix.values = POINTER(const double, values);
    const Py_ssize_t from = matrix.images ? matrix.n : matrix.m, to = matrix.back ? matrix.n : matrix.m;
    const Loops *chosen = loops;
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t j = 0; j < q; j += FEW - 1) {
        const int count = q - j < FEW - 1 ? (int)(q - j) : FEW - 1;
        chosen->product(&matrix, POINTER(const double, vectors) + j * from, POINTER(double, out) + j * to, count);
    }
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

#include "_lanczos.inc"

static PyObject *use_vectors(PyObject *Py_UNUSED(self), PyObject *args) {
    int bytes;
    if (!PyArg_ParseTuple(args, "i", &bytes)) return NULL;
    choose(bytes);
    return PyLong_FromLong(loops->vector);
}

static PyObject *lanes(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args)) {
    return PyLong_FromLong(loops->vector / (long)sizeof(double));
}

static PyObject *multiplies_bfloat16(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args)) {
    return PyBool_FromLong(gram16 != NULL);
}

/* A table is (address, single, rows, columns, numbers from row to row), whatever is not there an address of 0. */
static PyMethodDef methods[] = {
    {"residual_pass", residual_pass, METH_VARARGS,
     "residual_pass(x, (y, scale), (beside, scale), weight, (v, offset, vectors), (out, group), threads): add X'T, sums "
     "and squares of T, T'T of each group of so many targets, a multiple of eight or all, and products with beside."},
    {"loss_pass", loss_pass, METH_VARARGS,
     "loss_pass(x, y, weight, (v, offset), (kind, four numbers), (squares, own, reach, few), (out, roots), threads): add "
     "X'S and sums of the slopes S of a criterion, of its losses, of their sizes, and squared bounds on what slopes are "
     "off by; write roots of curvatures; return the largest squared length of a row."},
    {"curvature_pass", curvature_pass, METH_VARARGS,
     "curvature_pass(x, (starts, outputs, curvatures), (v, offset, vectors), out, threads): add X'S and sums of S, what "
     "changes v of weights do to slopes that are shares of a row, few of which count; x, v and offset in single precision."},
    {"column_squares", column_squares, METH_VARARGS,
     "column_squares(x, weight, (scale, shift), out, threads): add the weighted squares of each column; with a shift "
     "those of scale x - shift, and the weighted sums of that."},
    {"gram_add", gram_add, METH_VARARGS,
     "gram_add(x, y, (row_scale, x_scale, y_scale), (order, counted), (factor, ones, transposed), (gram, cross, bits), "
     "(weight, scale, shift, spread), threads): add the upper triangle of A'A and A'B; A = [1 | X] scaled, times the "
     "factor, or A = X' scaled; of the rows that order names; in numbers of so many bits: 64, 32, or 16, bfloat16; and "
     "to spread, where it is not 0, what column_squares does."},
    {"expansion_pass", expansion_pass, METH_VARARGS,
     "expansion_pass(x, y, y_scale, weight, (v, offset), out, threads): add X'T and sums of T as three doubles each, "
     "and squares of T."},
    {"sketch_add", sketch_add, METH_VARARGS,
     "sketch_add(x, (target, factor, nonzeros), sketch, threads): add rows to a sparse sign sketch."},
    {"cholesky", cholesky, METH_VARARGS,
     "cholesky(matrix, factor, n, single, threads): write the upper Cholesky factor of the upper triangle, and return "
     "0; or return the place of the first pivot that is not positive, from 1, where the factor is no use."},
    {"is_symmetric", is_symmetric, METH_VARARGS,
     "is_symmetric(matrix, n): whether a matrix in double precision is its transpose, which one with a NaN is not."},
    {"triangle_solve", triangle_solve, METH_VARARGS,
     "triangle_solve((triangle, n), (forward, backward), vectors, count): replace vectors, as rows, by the solutions of "
     "R'y = v, of R y = v, or of R'R y = v, for an upper triangle in double precision."},
    {"triangles", triangles, METH_VARARGS,
     "triangles((rows, count, m, n), out): write the (n, n) upper triangles of `count` parts of m >= n rows of n numbers "
     "in double precision, without gaps, by Householder's reflections."},
    {"append_rows", append_rows, METH_VARARGS,
     "append_rows(x, y, out): write the rows [1 | x | y] in double precision, and return whether all are finite."},
    {"matrix_product", matrix_product, METH_VARARGS,
     "matrix_product((matrix, m, n, upper), (images, back), vectors, out, count): set out, for vectors as rows, to M v with "
     "images; add M'v to it with back, or M'M v with both. Double precision; an upper triangle has zeros below."},
    {"dominant_pair", dominant_pair, METH_VARARGS,
     "dominant_pair(chain, (start, n), (steps, growth, tolerance), out): write the leading eigenvector of the chain of steps\n"
     "(kind, numbers, rows, upper) and its image, as rows, and return the eigenvalue, or infinity: see numerics/lanczos.py."},
    {"multiplies_bfloat16", multiplies_bfloat16, METH_NOARGS,
     "multiplies_bfloat16(): whether gram_add takes 16 bits, which it does in the widest registers only."},
    {"lanes", lanes, METH_NOARGS, "lanes(): doubles in a register: partial sums that a dot product is spread over."},
    {"use_vectors", use_vectors, METH_VARARGS,
     "use_vectors(bytes): compute in the widest registers of this processor of at most so many bytes, WIDEST for all of\n"
     "them; return the bytes of a vector."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                    "_loops",
                                    "Passes over a table at the speed of memory. Addresses are those of live buffers.",
                                    -1,
                                    methods,
                                    NULL,
                                    NULL,
                                    NULL,
                                    NULL};

/* Which sources and options these loops were built from: setup.py knows. */
#ifndef SOURCES
#define SOURCES 0
#endif

PyMODINIT_FUNC PyInit__loops(void) {
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"GROUP", GROUP},
        {"EXPANSION_GROUP", EXPANSION_GROUP},
        {"DEPTH", DEPTH},
        {"PART_GROUPS", PART_GROUPS},
        {"MAX_PARTS", MAX_PARTS},
        {"MAX_THREADS", MAX_THREADS},
        {"SLOPE_ROUNDINGS", SLOPE_ROUNDINGS},
        {"LOGISTIC", LOGISTIC},
        {"EXPONENTIAL", EXPONENTIAL},
        {"ROUNDED", ROUNDED},
        {"SCALING", SCALING},
        {"DIVISION", DIVISION},
        {"NORMAL_PRODUCT", NORMAL_PRODUCT},
        {"NORMAL_SOLVE", NORMAL_SOLVE},
        {"MOST_LINKS", MOST_LINKS},
        {"WIDEST", WIDEST},
        {"SOURCES", SOURCES},
    };
    choose(WIDEST);
    PyObject *made = PyModule_Create(&module);
    for (size_t i = 0; made && i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(made, constants[i].name, constants[i].value) == 0) continue;
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
