/* Passes over a table at the speed of memory: each row is read once for all that a pass needs of it.

   Optional: where this is not compiled, passes.py does the same with matrix products, which read the rows twice.
   Tables are row-major with unit column stride, in double or in single precision; sums are in double. Work is
   split over threads by rows (by columns in the sketch), in a fixed way, so that the same call gives the same bits.
   The loops themselves are in _passes.h, compiled for each set of instructions. */

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
#define GROUP 256
#define DEPTH 256 /* rows that are packed at once */
#define APART (DEPTH + 5) /* rows from a panel to the next: not all in the same sets of a cache */
#define PANEL 8   /* doubles in a row of a panel: 64 bytes */
#define AHEAD 512 /* doubles: by when they are needed they have come from memory */
#define QUAD 4
#define MAX_THREADS 256
#define FEW 4     /* from so many vectors on the rows are packed */
#define MOST_SUMS ((Py_ssize_t)1 << 24) /* of all parts of a pass together */

typedef struct {
    const void *x;       /* the table, first row */
    int single;          /* whether it holds floats */
    Py_ssize_t m, n, ld; /* rows, columns, distance between rows */
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
    if (!t->single) return (const double *)t->x + i * t->ld;
    const float *x = (const float *)t->x + i * t->ld;
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
    Table table;
    const void *y;         /* (m, k) contiguous or NULL: the last q - k columns have no target */
    int y_single;          /* whether it holds floats */
    const double *y_scale; /* (k,): what targets are multiplied by */
    const double *weight;  /* (m,) or NULL */
    const double *v;       /* (q, n): vectors as rows */
    const double *offset;  /* (q,) */
    Py_ssize_t k, q;
    Py_ssize_t group;      /* products T'T of the targets' columns follow, in groups of so many; 0 for none */
    const double *panels;  /* for more than a few vectors: v in panels of its columns; else NULL */
} Residual;

/* Target j of row i, less the offset. */
static inline double wanted(const Residual *a, Py_ssize_t i, Py_ssize_t j) {
    const double target = j < a->k ? a->y_scale[j] * number(a->y, a->y_single, i * a->k + j) : 0.0;
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
    Table table;
    const double *weight;
    const double *scale, *shift; /* (n,): what is summed is scale x - shift; or NULL */
} Squares;

/* ---- Gram matrix of [1 | X] and its products with Y, in single or double precision ---- */

/* Rows of [1 | X | Y] are packed in panels of 16 columns (8 in double precision); a tile of the product is kept in
   registers. Only tiles on and above the diagonal are computed: half the operations of a product. */
typedef struct {
    Table table;
    const void *y;           /* (m, k) contiguous */
    int y_single, ones;
    int transposed;          /* the columns of A are the rows of the table */
    Py_ssize_t k;
    const double *y_scale;   /* (k,) */
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
        const char *values = (const char *)a->table.x + x * (a->table.single ? sizeof(float) : sizeof(double));
        return (Entry){values, a->table.single, a->table.ld, a->x_scale ? a->x_scale[x] : 1.0};
    }
    if (y < 0 || y >= a->k) return (Entry){&zero, 0, 0, 1.0};
    const char *values = (const char *)a->y + y * (a->y_single ? sizeof(float) : sizeof(double));
    return (Entry){values, a->y_single, a->k, a->y_scale[y]};
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

#define DEFINE_TILES(NAME, T, WIDTH)                                                                                  \
    /* Lay an upper triangle (columns, columns) out in panels of its columns, or count the numbers only. */            \
    static Py_ssize_t NAME##_lay_out(const double *triangle, Py_ssize_t columns, int right, T *out) {                  \
        const Py_ssize_t panels = (columns + WIDTH - 1) / WIDTH;                                                       \
        Py_ssize_t size = 0;                                                                                           \
        for (Py_ssize_t q = 0; q < panels; q++) {                                                                      \
            const Py_ssize_t rows = laid_out_rows(q, panels, 1, right) * WIDTH;                                        \
            for (Py_ssize_t c = 0; out && c < rows; c++)                                                               \
                for (Py_ssize_t v = q * WIDTH; v < (q + 1) * WIDTH; v++)                                               \
                    out[size + c * WIDTH + v % WIDTH] = c <= v && v < columns ? (T)triangle[c * columns + v] : (T)0;   \
            size += rows * WIDTH;                                                                                      \
        }                                                                                                              \
        return size;                                                                                                   \
    }                                                                                                                  \
                                                                                                                       \
    /* Add the tiles of all parts to the upper triangle of gram (columns, columns) and to cross (columns, k). */       \
    static void NAME##_gather(const Gram *parts, int count, T *gram, T *cross) {                                       \
        const Py_ssize_t columns = parts->columns, k = parts->k, first = parts->y_from;                                \
        const Py_ssize_t panels = (first + k + WIDTH - 1) / WIDTH, x_panels = (columns + WIDTH - 1) / WIDTH;           \
        for (Py_ssize_t q = 0; q < panels; q++) {                                                                      \
            for (Py_ssize_t p = 0; p < x_panels && p <= q; p++) {                                                      \
                const Py_ssize_t at = tile_of(p, q, x_panels) * WIDTH * WIDTH;                                         \
                for (Py_ssize_t i = p * WIDTH; i < columns && i < (p + 1) * WIDTH; i++) {                              \
                    const Py_ssize_t from = q * WIDTH > i ? q * WIDTH : i;                                             \
                    T sum[WIDTH] = {0};                                                                                \
                    for (int part = 0; part < count; part++) {                                                         \
                        const T *sums = (const T *)parts[part].sums + at + i % WIDTH * WIDTH;                          \
                        for (int v = 0; v < WIDTH; v++) sum[v] += sums[v];                                             \
                    }                                                                                                  \
                    for (Py_ssize_t j = from; j < columns && j < (q + 1) * WIDTH; j++)                                 \
                        gram[i * columns + j] += sum[j % WIDTH];                                                       \
                    for (Py_ssize_t j = q * WIDTH; j < first + k && j < (q + 1) * WIDTH; j++)                          \
                        if (j >= first) cross[i * k + j - first] += sum[j % WIDTH];                                    \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_TILES(gram32, float, 16)
DEFINE_TILES(gram64, double, 8)

/* ---- residual pass in expansions: T = w (Y - X V - offset) and X'T as sums of three doubles each ---- */

/* Every product is split into itself and its rounding error by one fused multiply-add, every addition to a first part
   leaves its error to the second, and every addition to a second part to the third, which is plain: a dot product with
   errors of the order of the cube of eps (Ogita, Rump and Oishi 2005). The bound is derived in
   docs/how-many-digits.md. */
#define EXPANSION_GROUP 64

typedef struct {
    Share share; /* sums: q * (n + 1) first parts, as many second and third ones, for X'T (q, n) and sums of T (q,);
                    then (q,) squares of T / w, of the largest number that a residual's parts can stand for */
    Table table;
    const void *y; /* (m, q) contiguous */
    int y_single;
    const double *y_scale; /* (q,) */
    const double *weight;  /* (m,) or NULL */
    const double *v;       /* (3, q, n): vectors as rows, in three parts */
    const double *offset;  /* (3, q) */
    Py_ssize_t q;
} Expansion;

/* Order the three parts, exactly. */
static inline void order(double *t) {
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
    Table table;
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

/* Call F with a count that the compiler knows. */
#define BY_THREE(count, F, ...)                                                                                        \
    ((count) == 1 ? F(1, __VA_ARGS__) : (count) == 2 ? F(2, __VA_ARGS__) : F(3, __VA_ARGS__))

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define FOR_X86 1

#define NAMED(name) name##_512
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

#define NAMED(name) name##_256
#define TARGET __attribute__((target("avx2,fma,bmi,bmi2")))
#define VECTOR 32
#define ROWS 4
#define TILE 4
#define RIGHT 1
#define BY_COUNT(count, F, ...) F(1, __VA_ARGS__)
#include "_passes.h"
#endif

#define NAMED(name) name##_128
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
    const Py_ssize_t groups = (m + GROUP - 1) / GROUP;
    return groups < 8 ? 1 : groups < 256 ? (int)(groups / 8) : 32;
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

/* Give each of `count` parts, which start with a Share, its rows of m and sums of its own; run them, add the sums to
   out in the order of the parts, and free them. The first 3 * expansions of the sums are expansions. */
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
    for (int i = 0; i < count; i++) {
        failed |= ((Share *)((char *)parts + i * part_size))->failed;
        add_expansions(out, sums + i * size, expansions, size - 3 * expansions);
    }
    Py_END_ALLOW_THREADS;
    free(parts);
    free(sums);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *residual_pass(PyObject *self, PyObject *args) {
    unsigned long long x, y, y_scale, weight, v, offset, g;
    int single, y_single, threads;
    Py_ssize_t m, n, ld, k, q, group;
    if (!PyArg_ParseTuple(args, "KinnnKinKKKKnnKi", &x, &single, &m, &n, &ld, &y, &y_single, &k, &y_scale, &weight, &v,
                          &offset, &q, &group, &g, &threads))
        return NULL;
    const Py_ssize_t size = q * (n + 2) + gram_numbers(k, group);
    const Py_ssize_t most = MOST_SUMS / size < 1 ? 1 : MOST_SUMS / size;
    const int count = parts_of(m) < most ? parts_of(m) : (int)most;
    Residual *parts = calloc(count, sizeof(Residual));
    double *panels = q >= FEW ? aligned(sizeof(double) * panels_of(n) * panels_of(q) * PANEL * PANEL) : NULL;
    if (!parts || (q >= FEW && !panels)) {
        free(parts);
        free(panels);
        return PyErr_NoMemory();
    }
    if (panels) lay_out_vectors(POINTER(const double, v), n, q, panels);
    for (int i = 0; i < count; i++) {
        parts[i] = (Residual){{0}, {POINTER(const void, x), single, m, n, ld}, POINTER(const void, y), y_single,
                              POINTER(const double, y_scale), POINTER(const double, weight), POINTER(const double, v),
                              POINTER(const double, offset), k, q, group, panels};
    }
    PyObject *result =
        add_up(loops->residual, parts, sizeof(Residual), count, threads, m, size, 0, POINTER(double, g));
    free(panels);
    return result;
}

static PyObject *column_squares(PyObject *self, PyObject *args) {
    unsigned long long x, weight, scale, shift, g;
    int single, threads;
    Py_ssize_t m, n, ld;
    if (!PyArg_ParseTuple(args, "KinnnKKKKi", &x, &single, &m, &n, &ld, &weight, &scale, &shift, &g, &threads))
        return NULL;
    const int count = parts_of(m);
    Squares *parts = calloc(count, sizeof(Squares));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Squares){{0}, {POINTER(const void, x), single, m, n, ld}, POINTER(const double, weight),
                             POINTER(const double, scale), POINTER(const double, shift)};
    }
    return add_up(loops->squares, parts, sizeof(Squares), count, threads, m, shift ? 2 * n : n, 0, POINTER(double, g));
}

static PyObject *expansion_pass(PyObject *self, PyObject *args) {
    unsigned long long x, y, y_scale, weight, v, offset, g;
    int single, y_single, threads;
    Py_ssize_t m, n, ld, q;
    if (!PyArg_ParseTuple(args, "KinnnKiKKKKnKi", &x, &single, &m, &n, &ld, &y, &y_single, &y_scale, &weight, &v,
                          &offset, &q, &g, &threads))
        return NULL;
    const int count = parts_of(m);
    Expansion *parts = calloc(count, sizeof(Expansion));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Expansion){{0}, {POINTER(const void, x), single, m, n, ld}, POINTER(const void, y), y_single,
                               POINTER(const double, y_scale), POINTER(const double, weight), POINTER(const double, v),
                               POINTER(const double, offset), q};
    }
    const Py_ssize_t expansions = q * (n + 1);
    return add_up(loops->expansion, parts, sizeof(Expansion), count, threads, m, 3 * expansions + q, expansions,
                  POINTER(double, g));
}

static PyObject *gram_add(PyObject *self, PyObject *args) {
    unsigned long long x, y, y_scale, row_scale, x_scale, order, factor, gram, cross;
    int single, y_single, ones, transposed, bits, threads, failed = 0;
    Py_ssize_t m, n, ld, k;
    if (!PyArg_ParseTuple(args, "KinnnKinKKKKKiiiKKi", &x, &single, &m, &n, &ld, &y, &y_single, &k, &y_scale,
                          &row_scale, &x_scale, &order, &factor, &ones, &transposed, &bits, &gram, &cross,
                          &threads))
        return NULL;
    const Loops *chosen = loops;
    void *(*const worker)(void *) = bits == 16 ? gram16 : bits == 64 ? chosen->gram64 : chosen->gram32;
    if (!worker || (bits == 16 && factor)) {
        PyErr_SetString(PyExc_ValueError, "bfloat16 needs a processor that multiplies it, and takes no factor");
        return NULL;
    }
    if (transposed) {
        const Py_ssize_t rows = m;
        m = n;
        n = rows;
    }
    const int double_sums = bits == 64, count = clamp_threads(threads, (m + DEPTH - 1) / DEPTH);
    const Py_ssize_t width = double_sums ? 8 : 16, columns = n + (ones ? 1 : 0), panels = (columns + width - 1) / width;
    /* Targets fill the last panel up; but for a factor, which multiplies whole panels. */
    const Py_ssize_t y_from = factor ? panels * width : columns, y_panels = (y_from + k + width - 1) / width - panels;
    const size_t bytes = (size_t)(panels * (panels + 1) / 2 + panels * y_panels) * 64 * width;
    Gram *parts = calloc(count, sizeof(Gram));
    if (!parts) return PyErr_NoMemory();
    void *panes = NULL;
    if (factor) {
        const double *triangle = POINTER(const double, factor);
        const Py_ssize_t size = double_sums ? gram64_lay_out(triangle, columns, chosen->right, NULL) * 8
                                            : gram32_lay_out(triangle, columns, chosen->right, NULL) * 4;
        panes = aligned(size);
        failed |= !panes;
        if (panes && double_sums) gram64_lay_out(triangle, columns, chosen->right, panes);
        if (panes && !double_sums) gram32_lay_out(triangle, columns, chosen->right, panes);
    }
    for (int i = 0; i < count; i++) {
        parts[i] = (Gram){{POINTER(const void, x), single, m, n, ld}, POINTER(const void, y), y_single, ones,
                          transposed, k, POINTER(const double, y_scale), POINTER(const double, row_scale),
                          POINTER(const double, x_scale), POINTER(const int64_t, order), panes, columns, y_from,
                          bound(m, count, i, DEPTH), bound(m, count, i + 1, DEPTH), aligned(bytes), bytes, 0};
        failed |= !parts[i].sums;
    }
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        run(worker, parts, sizeof(Gram), count, count);
        for (int i = 0; i < count; i++) failed |= parts[i].failed;
        if (!failed && double_sums) gram64_gather(parts, count, POINTER(double, gram), POINTER(double, cross));
        if (!failed && !double_sums) gram32_gather(parts, count, POINTER(float, gram), POINTER(float, cross));
        Py_END_ALLOW_THREADS;
    }
    for (int i = 0; i < count; i++) free(parts[i].sums);
    free(panes);
    free(parts);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *sketch_add(PyObject *self, PyObject *args) {
    unsigned long long x, target, factor, sketch;
    int single, threads;
    Py_ssize_t m, n, ld, nonzeros;
    if (!PyArg_ParseTuple(args, "KinnnKKnKi", &x, &single, &m, &n, &ld, &target, &factor, &nonzeros, &sketch,
                          &threads))
        return NULL;
    /* Whole cache lines to each thread. */
    const int count = clamp_threads(threads, (n + 15) / 16);
    Sketch *parts = calloc(count, sizeof(Sketch));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Sketch){{POINTER(const void, x), single, m, n, ld}, POINTER(const int32_t, target),
                            POINTER(const double, factor), nonzeros, bound(n, count, i, 16), bound(n, count, i + 1, 16),
                            POINTER(double, sketch)};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(loops->sketch, parts, sizeof(Sketch), count, count);
    Py_END_ALLOW_THREADS;
    free(parts);
    Py_RETURN_NONE;
}

static PyObject *use_vectors(PyObject *self, PyObject *args) {
    int bytes;
    if (!PyArg_ParseTuple(args, "i", &bytes)) return NULL;
    choose(bytes);
    return PyLong_FromLong(loops->vector);
}

static PyObject *multiplies_bfloat16(PyObject *self, PyObject *args) { return PyBool_FromLong(gram16 != NULL); }

static PyMethodDef methods[] = {
    {"residual_pass", residual_pass, METH_VARARGS,
     "residual_pass(x, single, m, n, ld, y, y_single, k, y_scale, weight, v, offset, q, group, out, threads): add X'T, "
     "sums and squares of T, and T'T of each group of so many targets: a multiple of eight, or all."},
    {"column_squares", column_squares, METH_VARARGS,
     "column_squares(x, single, m, n, ld, weight, scale, shift, out, threads): add the weighted squares of each "
     "column; with a shift those of scale x - shift, and the weighted sums of that."},
    {"gram_add", gram_add, METH_VARARGS,
     "gram_add(x, single, m, n, ld, y, y_single, k, y_scale, row_scale, x_scale, order, factor, ones, transposed, "
     "bits, gram, cross, threads): add the upper triangle of A'A and A'B; A = [1 | X] scaled, times the factor, or "
     "A = X' scaled; of the first m rows that order names; in numbers of so many bits: 64, 32, or 16, bfloat16."},
    {"expansion_pass", expansion_pass, METH_VARARGS,
     "expansion_pass(x, single, m, n, ld, y, y_single, y_scale, weight, v, offset, q, out, threads): add X'T and sums "
     "of T as three doubles each, and squares of T."},
    {"sketch_add", sketch_add, METH_VARARGS,
     "sketch_add(x, single, m, n, ld, target, factor, nonzeros, sketch, threads): add rows to a sparse sign sketch."},
    {"multiplies_bfloat16", multiplies_bfloat16, METH_NOARGS,
     "multiplies_bfloat16(): whether gram_add takes 16 bits, which it does in the widest registers only."},
    {"use_vectors", use_vectors, METH_VARARGS,
     "use_vectors(bytes): compute in the widest registers of this processor of at most so many bytes; return which."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels",
                                    "Passes over a table at the speed of memory. Addresses are those of live buffers.",
                                    -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) {
    choose(64);
    return PyModule_Create(&module);
}
