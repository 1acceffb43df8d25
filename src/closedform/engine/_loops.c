/* Passes over a table at the speed of memory: each row is read once for all that a pass needs of it.

   Optional: where this is not compiled, passes.py does the same with matrix products, which read the rows twice.
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

/* Sums over this many rows are added up before they join the whole, as in pairwise summation, so that rounding grows
   with the number of groups and not of rows. */
#ifndef GROUP
#define GROUP 256
#endif
/* The same where sums are of three doubles each. */
#ifndef EXPANSION_GROUP
#define EXPANSION_GROUP 64
#endif
/* Rows that are packed at once for a product of matrices, and summed up in registers. */
#ifndef DEPTH
#define DEPTH 256
#endif
/* A pass has at most so many parts, each with sums of its own, and a part so many groups, but for the only one. */
#ifndef MAX_PARTS
#define MAX_PARTS 32
#endif
#ifndef PART_GROUPS
#define PART_GROUPS 8
#endif
#ifndef MAX_THREADS
#define MAX_THREADS 256
#endif

#define APART (DEPTH + 5) /* rows from a panel to the next: not all in the same sets of a cache */
#define PANEL 8   /* doubles in a row of a panel: 64 bytes */
#define AHEAD 512 /* doubles: by when they are needed they have come from memory */
#define QUAD 4    /* rows that the loops over columns take at once */
#define FEW 4     /* from so many vectors on the rows are packed */
#define MOST_SUMS ((Py_ssize_t)1 << 24) /* of all parts of a pass together */

_Static_assert(DEPTH % 64 == 0, "an eighth of the packed rows is whole tiles as well");
_Static_assert(EXPANSION_GROUP % QUAD == 0, "rows that stand in past the end of a group are not counted");
_Static_assert(GROUP > 0 && MAX_PARTS > 0 && PART_GROUPS > 0 && MAX_THREADS > 0, "work is split into something");

#define PASTE(a, b) a##b
#define JOIN(a, b) PASTE(a, b)

/* A table in memory, as compiled.py describes it: rows of numbers that follow one another. */
typedef struct {
    const void *values;  /* the first row; NULL where there is no table */
    int single;          /* whether it holds floats, not doubles */
    Py_ssize_t m, n, ld; /* rows, columns, numbers from one row to the next */
} Table;

/* What one thread takes at a time: rows from .. to, and sums of its own. */
typedef struct {
    Py_ssize_t from, to;
    double *g;
    int failed;
} Share;

static inline double number(const void *values, int single, Py_ssize_t at) {
    return single ? ((const float *)values)[at] : ((const double *)values)[at];
}

/* Return row i as doubles: in place, or converted into the buffer. */
static inline const double *row(const Table *t, Py_ssize_t i, double *buffer) {
    if (!t->single) return (const double *)t->values + i * t->ld;
    const float *x = (const float *)t->values + i * t->ld;
    for (Py_ssize_t c = 0; c < t->n; c++) buffer[c] = x[c];
    return buffer;
}

static void *aligned(size_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, bytes ? bytes : 64) == 0 ? memory : NULL;
}

/* ---- sums over groups of rows ---- */

/* Set sum to sum + term and term to what that rounds; z is scratch (Knuth 1969). */
#define TWO_SUM(sum, term, z)                                                                                          \
    do {                                                                                                               \
        const __typeof__(sum) before = sum, added = term;                                                              \
        sum = before + added;                                                                                          \
        z = sum - before;                                                                                              \
        term = (before - (sum - z)) + (added - z);                                                                     \
    } while (0)

static inline void add_parts(double *s, Py_ssize_t stride, double a, double b, double c) {
    double z;
    TWO_SUM(s[0], a, z);
    TWO_SUM(s[stride], b, z);
    TWO_SUM(s[stride], a, z);
    s[2 * stride] += (a + b) + c;
}

/* Add sums of three doubles each, `part` first parts, second parts and third parts; the last `plain` are doubles. */
static void add_expansions(double *out, const double *sums, Py_ssize_t part, Py_ssize_t plain) {
#pragma omp simd
    for (Py_ssize_t c = 0; c < part; c++) add_parts(out + c, part, sums[c], sums[part + c], sums[2 * part + c]);
    for (Py_ssize_t c = 3 * part; c < 3 * part + plain; c++) out[c] += sums[c];
}

typedef void (*GroupSums)(const void *part, Py_ssize_t from, Py_ssize_t to, double *sums, double *rows);

/* Add up the rows of a part, which starts with a Share, `step` at a time, each group in `size` sums of its own; `group`
   gets `scratch` numbers for rows. The first 3 * expansions of the sums are expansions. */
static void sum_groups(void *part, GroupSums group, Py_ssize_t step, Py_ssize_t size, Py_ssize_t expansions,
                       Py_ssize_t scratch) {
    Share *share = part;
    double *sums = malloc(sizeof(double) * (size + scratch));
    if (!sums) {
        share->failed = 1;
        return;
    }
    for (Py_ssize_t i = share->from; i < share->to; i += step) {
        memset(sums, 0, sizeof(double) * size);
        group(part, i, i + step < share->to ? i + step : share->to, sums, sums + size);
        add_expansions(share->g, sums, expansions, size - 3 * expansions);
    }
    free(sums);
}

/* ---- residual pass: T = Y - X V - offset, then squares of T and X'T, with row weights ---- */

typedef struct {
    Share share; /* sums: (q, n), then (q,) sums of T, then (q,) squares, then the products */
    Table x, y;            /* of q vectors those beyond the columns of y have no target */
    const double *y_scale; /* what targets are multiplied by */
    const double *weight;  /* (m,) or NULL */
    const double *v;       /* (q, n): vectors as rows */
    const double *offset;  /* (q,) */
    Py_ssize_t q;
    Py_ssize_t group;      /* products T'T of the targets' columns follow, in groups of so many; 0 for none */
    const double *panels;  /* for more than a few vectors: v in panels of its columns; else NULL */
} Residual;

/* Target j of row i, less the offset. */
static inline double wanted(const Residual *a, Py_ssize_t i, Py_ssize_t j) {
    const double target = j < a->y.n ? a->y_scale[j] * number(a->y.values, a->y.single, i * a->y.ld + j) : 0.0;
    return target - a->offset[j];
}

/* How many numbers the products of k targets in groups are. */
static Py_ssize_t gram_numbers(Py_ssize_t k, Py_ssize_t group) {
    Py_ssize_t numbers = 0;
    for (Py_ssize_t left = group ? k : 0; left > 0; left -= group)
        numbers += left < group ? left * left : group * group;
    return numbers;
}

static inline Py_ssize_t panels_of(Py_ssize_t columns) { return (columns + PANEL - 1) / PANEL; }

/* Lay vectors (q, n) out as the columns of a matrix in panels, each down to its last row. */
static void lay_out_vectors(const double *v, Py_ssize_t n, Py_ssize_t q, double *out) {
    for (Py_ssize_t first = 0; first < q; first += PANEL)
        for (Py_ssize_t c = 0; c < panels_of(n) * PANEL; c++)
            for (Py_ssize_t j = first; j < first + PANEL; j++) *out++ = c < n && j < q ? v[j * n + c] : 0.0;
}

/* Add tiles (left panels, right panels) to out, (columns of the left, columns of the right). */
static void add_tiles(const double *tiles, Py_ssize_t rows, Py_ssize_t columns, double *out) {
    for (Py_ssize_t p = 0; p < panels_of(rows); p++)
        for (Py_ssize_t q = 0; q < panels_of(columns); q++, tiles += PANEL * PANEL)
            for (Py_ssize_t u = p * PANEL; u < rows && u < (p + 1) * PANEL; u++)
                for (Py_ssize_t v = q * PANEL; v < columns && v < (q + 1) * PANEL; v++)
                    out[u * columns + v] += tiles[(u % PANEL) * PANEL + v % PANEL];
}

/* ---- column squares ---- */

typedef struct {
    Share share; /* sums: (n,) squares; of a shifted table (n,) sums as well */
    Table x;
    const double *weight;
    const double *scale, *shift; /* (n,): what is summed is scale x - shift; or NULL */
} Squares;

/* ---- Gram matrix of [1 | X] and its products with Y, in single or double precision ---- */

/* Rows of [1 | X | Y] are packed in panels of 16 columns (8 in double precision); a tile of the product is kept in
   registers. Only tiles on and above the diagonal are computed: half the operations of a product. */
typedef struct {
    Table x, y;
    int ones;
    int transposed;          /* the columns of A are the rows of the table */
    const double *y_scale;   /* for each column of y */
    const double *row_scale; /* (m,) or NULL */
    const double *x_scale;   /* (n,) or NULL */
    const int64_t *order;    /* rows of the table that count, or NULL for all */
    const void *factor;      /* A is multiplied by this upper triangle, in panels of its columns; or NULL */
    Py_ssize_t columns;      /* of A */
    Py_ssize_t y_from;       /* the place of the first target in a packed row */
    Py_ssize_t from, to;
    void *sums;              /* tiles, see tile_of */
    size_t bytes;            /* how large they are */
    int failed;
} Gram;

/* Where a column of packed rows comes from. */
typedef struct {
    const void *values; /* the first row's, and from row to row `apart` */
    int single;
    Py_ssize_t apart;
    double scale;
} Entry;

static Entry entry(const Gram *a, Py_ssize_t c) {
    static const double zero = 0.0, one = 1.0;
    const Py_ssize_t x = c - a->ones, y = c - a->y_from;
    if (c < a->ones) return (Entry){&one, 0, 0, 1.0};
    if (c < a->columns) {
        const char *values = (const char *)a->x.values + x * (a->x.single ? sizeof(float) : sizeof(double));
        return (Entry){values, a->x.single, a->x.ld, a->x_scale ? a->x_scale[x] : 1.0};
    }
    if (y < 0 || y >= a->y.n) return (Entry){&zero, 0, 0, 1.0};
    const char *values = (const char *)a->y.values + y * (a->y.single ? sizeof(float) : sizeof(double));
    return (Entry){values, a->y.single, a->y.ld, a->y_scale[y]};
}

/* The place of the tile of panels p and q: the upper triangle of the columns of A, then what is left of the targets. */
static inline Py_ssize_t tile_of(Py_ssize_t p, Py_ssize_t q, Py_ssize_t x_panels) {
    return q < x_panels ? q * (q + 1) / 2 + p : x_panels * (x_panels + 1) / 2 + (q - x_panels) * x_panels + p;
}

/* Adds left' right to the tiles out, for `count` packed panels on the right. */
typedef void (*Tiles)(int count, const void *left, const void *right, Py_ssize_t depth, void *const *out);

#define MOST_RIGHT 3

/* Add the products of packed panels, `right` of them at once, to the sums of the upper triangle, `tile` bytes each.
   Panels on the right stay in the inner caches while those on the left pass by. */
static void add_upper(Tiles tiles, const void *packed, Py_ssize_t depth, Py_ssize_t panels, Py_ssize_t x_panels,
                      int right, void *sums, size_t tile) {
    const char *panel = packed;
    for (Py_ssize_t q = 0; q < panels; q += right) {
        for (Py_ssize_t p = 0; p < x_panels && p < q + right && p < panels; p++) {
            const Py_ssize_t from = p > q ? p : q;
            void *out[MOST_RIGHT] = {NULL};
            int count = 0;
            for (Py_ssize_t j = from; j < q + right && j < panels; j++)
                out[count++] = (char *)sums + tile_of(p, j, x_panels) * tile;
            tiles(count, panel + p * APART * 64, panel + from * APART * 64, depth, out);
        }
    }
}

/* How many panels of rows panel q of a matrix is laid out with: panels that are multiplied at once have the same. */
static inline Py_ssize_t laid_out_rows(Py_ssize_t q, Py_ssize_t panels, int triangle, int right) {
    const Py_ssize_t end = (q / right + 1) * right;
    return triangle && end < panels ? end : panels;
}

#define GRAM(name) JOIN(KIND, name)

#define KIND gram32_
#define T float
#define WIDTH 16
#include "_tiles.inc"
#undef KIND
#undef T
#undef WIDTH

#define KIND gram64_
#define T double
#define WIDTH 8
#include "_tiles.inc"
#undef KIND
#undef T
#undef WIDTH

/* ---- residual pass in expansions: T = w (Y - X V - offset) and X'T as sums of three doubles each ---- */

/* Every product is split into itself and its rounding error by one fused multiply-add, every addition to a first part
   leaves its error to the second, and every addition to a second part to the third, which is plain: a dot product with
   errors of the order of the cube of eps (Ogita, Rump and Oishi 2005). The bound is derived in
   docs/how-many-digits.md. */
typedef struct {
    Share share; /* sums: q * (n + 1) first parts, as many second and third ones, for X'T (q, n) and sums of T (q,);
                    then (q,) squares of T / w, of the largest number that a residual's parts can stand for */
    Table x, y;            /* y has q columns */
    const double *y_scale; /* (q,) */
    const double *weight;  /* (m,) or NULL */
    const double *v;       /* (3, q, n): vectors as rows, in three parts */
    const double *offset;  /* (3, q) */
    Py_ssize_t q;
} Expansion;

/* Order the three parts, exactly. */
static inline void renormalise(double *t) {
    double z;
    for (int sweep = 0; sweep < 2; sweep++) {
        TWO_SUM(t[1], t[2], z);
        TWO_SUM(t[0], t[1], z);
    }
    TWO_SUM(t[1], t[2], z);
}

#define ADD_ROW(x, t)                                                                                                  \
    do {                                                                                                               \
        double p = (x) * (t)[0], q = __builtin_fma(x, (t)[0], -p), b = (x) * (t)[1], z;                                \
        const double last = __builtin_fma(x, (t)[1], -b) + (x) * (t)[2];                                               \
        TWO_SUM(first, p, z);                                                                                          \
        TWO_SUM(second, q, z);                                                                                         \
        TWO_SUM(second, b, z);                                                                                         \
        TWO_SUM(second, p, z);                                                                                         \
        third += ((q + b) + p) + last;                                                                                 \
    } while (0)

/* ---- sparse sign sketch: each row is added, with signs, to a few rows of the sketch ---- */

typedef struct {
    Table x;
    const int32_t *target; /* (m, nonzeros): rows of the sketch */
    const double *factor;  /* (m, nonzeros): sign, weight and scale */
    Py_ssize_t nonzeros, from, to; /* columns */
    double *sketch;        /* (s, n) */
} Sketch;

/* ---- sets of instructions ---- */

/* What compiles a loop for one of them, and the workers that result. */
typedef struct {
    void *(*residual)(void *), *(*squares)(void *), *(*gram32)(void *), *(*gram64)(void *);
    void *(*expansion)(void *), *(*sketch)(void *);
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

/* Choose the widest registers of this processor, but none beyond `bytes`. */
static void choose(int bytes) {
    loops = &loops_128;
    gram16 = NULL;
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
}

/* ---- threads ---- */

#if defined(__linux__) && defined(__GLIBC__)
typedef cpu_set_t Processors;
#else
typedef char Processors; /* threads are not placed */
#endif

/* Parts are taken by whatever thread is free: where another pool's threads still spin on a core, the others go on. Each
   part has its own sums, so who took it changes nothing. */
typedef struct {
    void *(*worker)(void *);
    char *parts;
    size_t size;
    int count;
    Processors allowed; /* of the thread that made it */
    atomic_int next;
} Queue;

static void *take(void *argument) {
    Queue *queue = argument;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) queue->worker(queue->parts + i * queue->size);
    return NULL;
}

#if defined(__linux__) && defined(__GLIBC__)
static void remember(Processors *allowed) {
    if (sched_getaffinity(0, sizeof *allowed, allowed) != 0) CPU_ZERO(allowed);
}

static void *help(void *argument) {
    const Queue *queue = argument;
    sched_setaffinity(0, sizeof queue->allowed, &queue->allowed);
    return take(argument);
}

/* A thread that is created after a rest may be put on its creator's processor, where it waits for the scheduler's next
   tick. So it is created for the other processors; once it runs, it may run on any. */
static int create(pthread_t *thread, Queue *queue) {
    pthread_attr_t elsewhere;
    const int here = sched_getcpu();
    Processors others = queue->allowed;
    if (here >= 0) CPU_CLR(here, &others);
    if (CPU_COUNT(&others) > 0 && pthread_attr_init(&elsewhere) == 0) {
        int failed = pthread_attr_setaffinity_np(&elsewhere, sizeof others, &others);
        failed = failed || pthread_create(thread, &elsewhere, help, queue);
        pthread_attr_destroy(&elsewhere);
        if (!failed) return 0;
    }
    return pthread_create(thread, NULL, take, queue);
}
#else
static void remember(Processors *allowed) { *allowed = 0; }

static int create(pthread_t *thread, Queue *queue) { return pthread_create(thread, NULL, take, queue); }
#endif

/* Run the worker on each of `count` consecutive structures. */
static void run(void *(*worker)(void *), void *parts, size_t size, int count, int threads) {
    pthread_t others[MAX_THREADS];
    int started = 0;
    Queue queue = {.worker = worker, .parts = parts, .size = size, .count = count};
    if (threads > 1 && count > 1) remember(&queue.allowed);
    while (started < threads - 1 && started < count - 1) {
        if (create(&others[started], &queue) != 0) break;
        started++;
    }
    take(&queue);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}

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
    unsigned long long y_scale, weight, v, offset, out;
    Table x, y;
    int threads;
    Py_ssize_t q, group;
    if (!PyArg_ParseTuple(args, "O&O&KK(KKn)(Kn)i", to_table, &x, to_table, &y, &y_scale, &weight, &v, &offset, &q,
                          &out, &group, &threads))
        return NULL;
    const Py_ssize_t n = x.n, size = q * (n + 2) + gram_numbers(y.n, group);
    const Py_ssize_t most = size > MOST_SUMS || !size ? 1 : MOST_SUMS / size;
    const int count = parts_of(x.m) < most ? parts_of(x.m) : (int)most;
    Residual *parts = calloc(count, sizeof(Residual));
    double *panels = q >= FEW ? aligned(sizeof(double) * panels_of(n) * panels_of(q) * PANEL * PANEL) : NULL;
    if (!parts || (q >= FEW && !panels)) {
        free(parts);
        free(panels);
        return PyErr_NoMemory();
    }
    if (panels) lay_out_vectors(POINTER(const double, v), n, q, panels);
    for (int i = 0; i < count; i++) {
        parts[i] = (Residual){.x = x,
                              .y = y,
                              .y_scale = POINTER(const double, y_scale),
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

/* Run the worker on `count` parts like the first, each with rows of its own, and add their tiles to gram and cross. */
static int gather_gram(void *(*worker)(void *), const Gram *like, int count, int double_sums, void *gram, void *cross) {
    Gram *parts = calloc(count, sizeof(Gram));
    int failed = !parts;
    for (int i = 0; parts && i < count; i++) {
        parts[i] = *like;
        parts[i].from = bound(like->x.m, count, i, DEPTH);
        parts[i].to = bound(like->x.m, count, i + 1, DEPTH);
        parts[i].sums = aligned(like->bytes);
        failed |= !parts[i].sums;
    }
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        run(worker, parts, sizeof(Gram), count, count);
        for (int i = 0; i < count; i++) failed |= parts[i].failed;
        if (!failed && double_sums) gram64_gather(parts, count, gram, cross);
        if (!failed && !double_sums) gram32_gather(parts, count, gram, cross);
        Py_END_ALLOW_THREADS;
    }
    for (int i = 0; parts && i < count; i++) free(parts[i].sums);
    free(parts);
    return failed;
}

static PyObject *gram_add(PyObject *Py_UNUSED(self), PyObject *args) {
    unsigned long long row_scale, x_scale, y_scale, order, factor, gram, cross;
    Table x, y;
    int ones, transposed, bits, threads;
    Py_ssize_t counted;
    if (!PyArg_ParseTuple(args, "O&O&(KKK)(Kn)(Kii)(KKi)i", to_table, &x, to_table, &y, &row_scale, &x_scale, &y_scale,
                          &order, &counted, &factor, &ones, &transposed, &gram, &cross, &bits, &threads))
        return NULL;
    const Loops *chosen = loops;
    void *(*const worker)(void *) = bits == 16 ? gram16 : bits == 64 ? chosen->gram64 : chosen->gram32;
    if (!worker || (bits == 16 && factor)) {
        PyErr_SetString(PyExc_ValueError, "bfloat16 needs a processor that multiplies it, and takes no factor");
        return NULL;
    }
    const Py_ssize_t m = transposed ? x.n : order ? counted : x.m, n = transposed ? x.m : x.n;
    const int double_sums = bits == 64, count = clamp_threads(threads, (m + DEPTH - 1) / DEPTH);
    const Py_ssize_t width = double_sums ? 8 : 16, columns = n + (ones ? 1 : 0), panels = (columns + width - 1) / width;
    /* Targets fill the last panel up; but for a factor, which multiplies whole panels. */
    const Py_ssize_t y_from = factor ? panels * width : columns, y_panels = (y_from + y.n + width - 1) / width - panels;
    void *const laid_out = factor ? lay_out_factor(POINTER(const double, factor), columns, double_sums, chosen->right)
                                  : NULL;
    if (factor && !laid_out) return PyErr_NoMemory();
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
                       .factor = laid_out,
                       .columns = columns,
                       .y_from = y_from,
                       .bytes = (size_t)(panels * (panels + 1) / 2 + panels * y_panels) * 64 * width};
    const int failed = gather_gram(worker, &like, count, double_sums, POINTER(void, gram), POINTER(void, cross));
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
     "residual_pass(x, y, y_scale, weight, (v, offset, vectors), (out, group), threads): add X'T, sums and squares of "
     "T, and T'T of each group of so many targets: a multiple of eight, or all."},
    {"column_squares", column_squares, METH_VARARGS,
     "column_squares(x, weight, (scale, shift), out, threads): add the weighted squares of each column; with a shift "
     "those of scale x - shift, and the weighted sums of that."},
    {"gram_add", gram_add, METH_VARARGS,
     "gram_add(x, y, (row_scale, x_scale, y_scale), (order, counted), (factor, ones, transposed), (gram, cross, bits), "
     "threads): add the upper triangle of A'A and A'B; A = [1 | X] scaled, times the factor, or A = X' scaled; of the "
     "rows that order names; in numbers of so many bits: 64, 32, or 16, bfloat16."},
    {"expansion_pass", expansion_pass, METH_VARARGS,
     "expansion_pass(x, y, y_scale, weight, (v, offset), out, threads): add X'T and sums of T as three doubles each, "
     "and squares of T."},
    {"sketch_add", sketch_add, METH_VARARGS,
     "sketch_add(x, (target, factor, nonzeros), sketch, threads): add rows to a sparse sign sketch."},
    {"multiplies_bfloat16", multiplies_bfloat16, METH_NOARGS,
     "multiplies_bfloat16(): whether gram_add takes 16 bits, which it does in the widest registers only."},
    {"lanes", lanes, METH_NOARGS, "lanes(): doubles in a register: partial sums that a dot product is spread over."},
    {"use_vectors", use_vectors, METH_VARARGS,
     "use_vectors(bytes): compute in the widest registers of this processor of at most so many bytes; return which."},
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
    } constants[] = {{"GROUP", GROUP},         {"EXPANSION_GROUP", EXPANSION_GROUP},
                     {"DEPTH", DEPTH},         {"MAX_PARTS", MAX_PARTS},
                     {"MAX_THREADS", MAX_THREADS}, {"PART_GROUPS", PART_GROUPS},
                     {"SOURCES", SOURCES}};
    choose(64);
    PyObject *made = PyModule_Create(&module);
    for (size_t i = 0; made && i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(made, constants[i].name, constants[i].value) == 0) continue;
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
