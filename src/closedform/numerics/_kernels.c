/* Passes over a table at the speed of memory: each row is read once for all that a pass needs of it.

   Optional: where this is not compiled, kernels.py does the same with matrix products, which read the rows twice.
   Tables are row-major with unit column stride, in double or in single precision; sums are in double. Work is
   split over threads by rows (by columns in the sketch), in a fixed way, so that the same call gives the same bits. */

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

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

/* Rows are taken four at a time; sums over this many rows are added up before they join the whole, as in pairwise
   summation, so that rounding grows with the number of groups and not of rows. */
#define QUAD 4
#define GROUP 256
#define MAX_THREADS 256
#define FEW 4   /* from so many vectors on they stand side by side in a register */
#define MANY 16 /* beyond so many the rows are packed first */
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
FOR_EACH_CPU
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
    int with_gram;         /* whether (k, k) products T'T of the targets' columns follow */
    const double *panels;  /* for many vectors: v in panels of its columns; else NULL */
} Residual;

/* Target j of row i, less the offset. */
static inline double wanted(const Residual *a, Py_ssize_t i, Py_ssize_t j) {
    const double target = j < a->k ? a->y_scale[j] * number(a->y, a->y_single, i * a->k + j) : 0.0;
    return target - a->offset[j];
}

FOR_EACH_CPU
static void residual_group(const void *part, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Residual *a = part;
    const Py_ssize_t n = a->table.n, q = a->q, k = a->k;
    double *sums = g + q * n, *squares = sums + q, *gram = squares + q;
    double residuals[FEW][QUAD], weights[QUAD];
    for (Py_ssize_t i = from; i < to; i += QUAD) {
        const Py_ssize_t left = to - i < QUAD ? to - i : QUAD;
        const double *x[QUAD];
        for (Py_ssize_t r = 0; r < QUAD; r++) {
            /* Past the end the last row stands in with weight zero. */
            x[r] = row(&a->table, r < left ? i + r : to - 1, rows + r * n);
        }
        for (Py_ssize_t r = 0; r < left; r++) weights[r] = a->weight ? a->weight[i + r] : 1.0;
        const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
        for (Py_ssize_t j = 0; j < q; j += 2) {
            const int two = j + 1 < q;
            const double *v = a->v + j * n, *u = two ? v + n : v;
            double t[2][QUAD] = {{0}};
            double a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
            if (two) {
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
                for (Py_ssize_t c = 0; c < n; c++) {
                    a0 += x0[c] * v[c]; a1 += x1[c] * v[c]; a2 += x2[c] * v[c]; a3 += x3[c] * v[c];
                    b0 += x0[c] * u[c]; b1 += x1[c] * u[c]; b2 += x2[c] * u[c]; b3 += x3[c] * u[c];
                }
            } else {
#pragma omp simd reduction(+ : a0, a1, a2, a3)
                for (Py_ssize_t c = 0; c < n; c++) {
                    a0 += x0[c] * v[c]; a1 += x1[c] * v[c]; a2 += x2[c] * v[c]; a3 += x3[c] * v[c];
                }
            }
            const double products[2][QUAD] = {{a0, a1, a2, a3}, {b0, b1, b2, b3}};
            for (int s = 0; s <= two; s++) {
                for (Py_ssize_t r = 0; r < left; r++) {
                    const double residual = wanted(a, i + r, j + s) - products[s][r];
                    residuals[j + s][r] = residual;
                    t[s][r] = residual * weights[r];
                    squares[j + s] += residual * t[s][r];
                    sums[j + s] += t[s][r];
                }
            }
            const double t00 = t[0][0], t01 = t[0][1], t02 = t[0][2], t03 = t[0][3];
            double *h = g + j * n;
            if (two) {
                const double t10 = t[1][0], t11 = t[1][1], t12 = t[1][2], t13 = t[1][3];
                double *f = h + n;
#pragma omp simd
                for (Py_ssize_t c = 0; c < n; c++) {
                    h[c] += (t00 * x0[c] + t01 * x1[c]) + (t02 * x2[c] + t03 * x3[c]);
                    f[c] += (t10 * x0[c] + t11 * x1[c]) + (t12 * x2[c] + t13 * x3[c]);
                }
            } else {
#pragma omp simd
                for (Py_ssize_t c = 0; c < n; c++) {
                    h[c] += (t00 * x0[c] + t01 * x1[c]) + (t02 * x2[c] + t03 * x3[c]);
                }
            }
        }
        if (!a->with_gram) continue;
        for (Py_ssize_t j = 0; j < k; j++) {
            for (Py_ssize_t r = 0; r < left; r++) {
                const double w = weights[r] * residuals[j][r];
                for (Py_ssize_t l = 0; l < k; l++) gram[j * k + l] += w * residuals[l][r];
            }
        }
    }
}

/* The same for four vectors or more, which then fill the lanes of a register: no sums across lanes, whatever the number
   of columns. v and g are (n, lanes), the vectors side by side and padded with zeros to a multiple of four. */
typedef double lanes_vector __attribute__((vector_size(64), aligned(32))); /* rows of a multiple of four doubles */
typedef double half_vector __attribute__((vector_size(32)));
#define LANES 8
#define HALF 4
#define ROWS 8

/* t[r] = x[r] V in the lanes from l. */
#define PROJECT(VECTOR)                                                                                                \
    do {                                                                                                               \
        VECTOR s[ROWS] = {{0}};                                                                                        \
        for (Py_ssize_t c = 0; c < n; c++) {                                                                           \
            const VECTOR b = *(const VECTOR *)(v + c * lanes + l);                                                     \
            for (int r = 0; r < ROWS; r++) s[r] += x[r][c] * b;                                                        \
        }                                                                                                              \
        for (int r = 0; r < ROWS; r++) *(VECTOR *)(t + r * lanes + l) = s[r];                                          \
    } while (0)

/* g += x[r]' t[r] in the lanes from l. */
#define ACCUMULATE(VECTOR)                                                                                             \
    do {                                                                                                               \
        VECTOR s[ROWS];                                                                                                \
        for (int r = 0; r < ROWS; r++) s[r] = *(const VECTOR *)(t + r * lanes + l);                                    \
        for (Py_ssize_t c = 0; c < n; c++) {                                                                           \
            VECTOR *out = (VECTOR *)(g + c * lanes + l);                                                               \
            VECTOR b = *out;                                                                                           \
            for (int r = 0; r < ROWS; r++) b += x[r][c] * s[r];                                                        \
            *out = b;                                                                                                  \
        }                                                                                                              \
    } while (0)

/* What a thread needs for it, one after the other and aligned to half a register; the first `cleared` are sums. */
typedef struct {
    double *g, *squares, *sums, *gram; /* (n, lanes), (lanes,), (lanes,), (k, lanes) */
    double *v, *offset, *t, *rows;     /* (n, lanes), (lanes,), (ROWS, lanes), (ROWS, n) */
    Py_ssize_t cleared;
} Lanes;

FOR_EACH_CPU
static void residual_lanes(const Residual *a, Py_ssize_t from, Py_ssize_t to, Py_ssize_t lanes, const Lanes *m) {
    const Py_ssize_t n = a->table.n, k = a->k;
    const double *v = m->v, *offset = m->offset;
    double *g = m->g, *t = m->t, *squares = m->squares, *sums = m->sums;
    for (Py_ssize_t i = from; i < to; i += ROWS) {
        const Py_ssize_t left = to - i < ROWS ? to - i : ROWS;
        const double *x[ROWS];
        for (Py_ssize_t r = 0; r < ROWS; r++) x[r] = row(&a->table, r < left ? i + r : to - 1, m->rows + r * n);
        Py_ssize_t l = 0;
        for (; l + LANES <= lanes; l += LANES) PROJECT(lanes_vector);
        if (l < lanes) PROJECT(half_vector);
        for (Py_ssize_t r = 0; r < left; r++) {
            double *residual = t + r * lanes;
            const double weight = a->weight ? a->weight[i + r] : 1.0;
#pragma omp simd
            for (Py_ssize_t j = 0; j < lanes; j++) residual[j] = -offset[j] - residual[j];
            if (a->y_single) {
                const float *y = (const float *)a->y + (i + r) * k;
                for (Py_ssize_t j = 0; j < k; j++) residual[j] += a->y_scale[j] * y[j];
            } else {
                const double *y = (const double *)a->y + (i + r) * k;
#pragma omp simd
                for (Py_ssize_t j = 0; j < k; j++) residual[j] += a->y_scale[j] * y[j];
            }
            if (a->with_gram) {
                for (Py_ssize_t j = 0; j < k; j++) {
                    const double weighted = weight * residual[j];
                    double *gram = m->gram + j * lanes;
#pragma omp simd
                    for (Py_ssize_t h = 0; h < lanes; h++) gram[h] += weighted * residual[h];
                }
            }
#pragma omp simd
            for (Py_ssize_t j = 0; j < lanes; j++) {
                const double weighted = weight * residual[j];
                squares[j] += weighted * residual[j];
                sums[j] += weighted;
                residual[j] = weighted;
            }
        }
        memset(t + left * lanes, 0, sizeof(double) * (ROWS - left) * lanes);
        for (l = 0; l + LANES <= lanes; l += LANES) ACCUMULATE(lanes_vector);
        if (l < lanes) ACCUMULATE(half_vector);
    }
}

static void residual_worker_lanes(Residual *a) {
    const Py_ssize_t n = a->table.n, q = a->q, k = a->with_gram ? a->k : 0, lanes = (q + HALF - 1) / HALF * HALF;
    Lanes m = {.cleared = (n + 2 + k) * lanes};
    double *memory = aligned(sizeof(double) * (m.cleared + (n + 1 + ROWS) * lanes + ROWS * n));
    if (!memory) {
        a->share.failed = 1;
        return;
    }
    m.g = memory;
    m.squares = m.g + n * lanes;
    m.sums = m.squares + lanes;
    m.gram = m.sums + lanes;
    m.v = memory + m.cleared;
    m.offset = m.v + n * lanes;
    m.t = m.offset + lanes;
    m.rows = m.t + ROWS * lanes;
    memset(m.v, 0, sizeof(double) * (n + 1) * lanes);
    for (Py_ssize_t j = 0; j < q; j++) {
        m.offset[j] = a->offset[j];
        for (Py_ssize_t c = 0; c < n; c++) m.v[c * lanes + j] = a->v[j * n + c];
    }
    for (Py_ssize_t i = a->share.from; i < a->share.to; i += GROUP) {
        memset(memory, 0, sizeof(double) * m.cleared);
        residual_lanes(a, i, i + GROUP < a->share.to ? i + GROUP : a->share.to, lanes, &m);
        double *out = a->share.g;
        for (Py_ssize_t j = 0; j < q; j++)
            for (Py_ssize_t c = 0; c < n; c++) *out++ += m.g[c * lanes + j];
        for (Py_ssize_t j = 0; j < q; j++) *out++ += m.sums[j];
        for (Py_ssize_t j = 0; j < q; j++) *out++ += m.squares[j];
        for (Py_ssize_t j = 0; j < k; j++)
            for (Py_ssize_t l = 0; l < k; l++) *out++ += m.gram[j * lanes + l];
    }
    free(memory);
}

static void residual_worker_few(Residual *a) {
    const Py_ssize_t n = a->table.n, size = a->q * (n + 2) + (a->with_gram ? a->k * a->k : 0);
    sum_groups(a, residual_group, GROUP, size, 0, QUAD * n);
}

/* ---- column squares ---- */

typedef struct {
    Share share; /* sums: (n,) */
    Table table;
    const double *weight;
} Squares;

FOR_EACH_CPU
static void squares_group(const void *part, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Squares *a = part;
    const Py_ssize_t n = a->table.n;
    for (Py_ssize_t i = from; i < to; i += QUAD) {
        const Py_ssize_t left = to - i < QUAD ? to - i : QUAD;
        const double *x[QUAD];
        double w[QUAD] = {0};
        for (Py_ssize_t r = 0; r < QUAD; r++) {
            x[r] = row(&a->table, r < left ? i + r : to - 1, rows + r * n);
            if (r < left) w[r] = a->weight ? a->weight[i + r] : 1.0;
        }
        const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
        const double w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
#pragma omp simd
        for (Py_ssize_t c = 0; c < n; c++) {
            g[c] += (w0 * x0[c] * x0[c] + w1 * x1[c] * x1[c]) + (w2 * x2[c] * x2[c] + w3 * x3[c] * x3[c]);
        }
    }
}

static void *squares_worker(void *argument) {
    const Squares *a = argument;
    sum_groups(argument, squares_group, GROUP, a->table.n, 0, QUAD * a->table.n);
    return NULL;
}

/* ---- Gram matrix of [1 | X] and its products with Y, in single or double precision ---- */

/* Rows are packed in panels of 16 columns (8 in double precision), one vector each; a tile of the product is 8 vectors
   of sums in registers. Only tiles on and above the diagonal are computed: half the operations of a product. */
#define DEPTH 256
#define TILE 8

typedef struct {
    Table table;
    const void *y;           /* (m, k) contiguous */
    int y_single, ones;
    int transposed;          /* the columns of A are the rows of the table */
    Py_ssize_t k;
    const double *y_scale;   /* (k,) */
    const double *row_scale; /* (m,) or NULL */
    const double *x_scale;   /* (n,) or NULL */
    const void *factor;      /* A is multiplied by this upper triangle, in panels of its columns; or NULL */
    Py_ssize_t from, to;
    void *sums;              /* tiles: panels of columns against panels of columns, then against panels of targets */
    int failed;
} Gram;

/* Column c of row i as [1 | X | Y] has it, before the row's scale. */
static inline double entry(const Gram *a, Py_ssize_t i, Py_ssize_t c) {
    if (a->ones) {
        if (c == 0) return 1.0;
        c--;
    }
    const double s = a->x_scale ? a->x_scale[c] : 1.0;
    const Py_ssize_t at = i * a->table.ld + c;
    return s * number(a->table.x, a->table.single, at);
}

static inline double target(const Gram *a, Py_ssize_t i, Py_ssize_t j) {
    const Py_ssize_t at = i * a->k + j;
    return a->y_scale[j] * number(a->y, a->y_single, at);
}

#define DEFINE_GRAM(NAME, T, WIDTH)                                                                                    \
    typedef T NAME##_vector __attribute__((vector_size(64)));                                                          \
                                                                                                                       \
    FOR_EACH_CPU                                                                                                       \
    static void NAME##_pack_transposed(const Gram *a, Py_ssize_t from, Py_ssize_t depth, Py_ssize_t columns,           \
                                       Py_ssize_t panels, T *packed) {                                                 \
        for (Py_ssize_t c = 0; c < panels * WIDTH; c++) {                                                              \
            T *out = packed + c / WIDTH * DEPTH * WIDTH + c % WIDTH;                                                   \
            const double s = c < columns && a->x_scale ? a->x_scale[c] : 1.0;                                          \
            const Py_ssize_t at = c * a->table.ld + from;                                                              \
            for (Py_ssize_t r = 0; r < depth; r++) {                                                                   \
                const double value = c < columns ? number(a->table.x, a->table.single, at + r) : 0.0;                  \
                out[r * WIDTH] = (T)(s * value);                                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    FOR_EACH_CPU                                                                                                       \
    static void NAME##_pack(const Gram *a, Py_ssize_t from, Py_ssize_t depth, Py_ssize_t columns, Py_ssize_t panels,   \
                            Py_ssize_t y_panels, T *packed) {                                                          \
        const Py_ssize_t first = a->ones ? 1 : 0, n = a->table.n;                                                      \
        if (a->transposed) {                                                                                           \
            NAME##_pack_transposed(a, from, depth, columns, panels, packed);                                           \
            return;                                                                                                    \
        }                                                                                                              \
        for (Py_ssize_t r = 0; r < depth; r++) {                                                                       \
            const Py_ssize_t i = from + r;                                                                             \
            const double w = a->row_scale ? a->row_scale[i] : 1.0;                                                     \
            for (Py_ssize_t p = 0; p < panels; p++) {                                                                  \
                T *out = packed + (p * DEPTH + r) * WIDTH;                                                             \
                const Py_ssize_t c = p * WIDTH - first;                                                                \
                if (c >= 0 && c + WIDTH <= n && !a->x_scale) {                                                         \
                    if (a->table.single) {                                                                             \
                        const float *x = (const float *)a->table.x + i * a->table.ld + c;                              \
                        for (int v = 0; v < WIDTH; v++) out[v] = (T)(w * x[v]);                                        \
                    } else {                                                                                           \
                        const double *x = (const double *)a->table.x + i * a->table.ld + c;                            \
                        for (int v = 0; v < WIDTH; v++) out[v] = (T)(w * x[v]);                                        \
                    }                                                                                                  \
                    continue;                                                                                          \
                }                                                                                                      \
                for (int v = 0; v < WIDTH; v++)                                                                        \
                    out[v] = p * WIDTH + v < columns ? (T)(w * entry(a, i, p * WIDTH + v)) : (T)0;                     \
            }                                                                                                          \
            for (Py_ssize_t p = 0; p < y_panels; p++) {                                                                \
                T *out = packed + ((panels + p) * DEPTH + r) * WIDTH;                                                  \
                for (int v = 0; v < WIDTH; v++)                                                                        \
                    out[v] = p * WIDTH + v < a->k ? (T)(w * target(a, i, p * WIDTH + v)) : (T)0;                       \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* Lay an upper triangle (columns, columns) out in panels of its columns, each down to its last row. */            \
    static void NAME##_lay_out(const double *triangle, Py_ssize_t columns, T *out) {                                   \
        for (Py_ssize_t q = 0; q < columns; q += WIDTH)                                                                \
            for (Py_ssize_t c = 0; c < q + WIDTH; c++)                                                                 \
                for (Py_ssize_t v = q; v < q + WIDTH; v++)                                                             \
                    *out++ = c < columns && v < columns ? (T)triangle[c * columns + v] : (T)0;                         \
    }                                                                                                                  \
                                                                                                                       \
    /* Multiply packed rows in `panels` panels by a matrix that was laid out in `out_panels`. */                       \
    FOR_EACH_CPU                                                                                                       \
    static void NAME##_multiply(const T *packed, const T *matrix, Py_ssize_t depth, Py_ssize_t panels,                 \
                                Py_ssize_t out_panels, int triangle, T *product) {                                     \
        for (Py_ssize_t q = 0; q < out_panels; q++) {                                                                  \
            const Py_ssize_t end = triangle ? q + 1 : panels;                                                          \
            for (Py_ssize_t r = 0; r < depth; r += TILE) {                                                             \
                NAME##_vector s[TILE] = {{0}};                                                                         \
                for (Py_ssize_t p = 0; p < end; p++) {                                                                 \
                    const T *a = packed + (p * DEPTH + r) * WIDTH, *b = matrix + p * WIDTH * WIDTH;                    \
                    for (int v = 0; v < WIDTH; v++) {                                                                  \
                        const NAME##_vector t = *(const NAME##_vector *)(b + v * WIDTH);                               \
                        for (int i = 0; i < TILE; i++) s[i] += a[i * WIDTH + v] * t;                                   \
                    }                                                                                                  \
                }                                                                                                      \
                NAME##_vector *out = (NAME##_vector *)(product + (q * DEPTH + r) * WIDTH);                             \
                for (int i = 0; i < TILE; i++) out[i] = s[i];                                                          \
            }                                                                                                          \
            matrix += end * WIDTH * WIDTH;                                                                             \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    FOR_EACH_CPU                                                                                                       \
    static void NAME##_tile(const T *left, const T *right, Py_ssize_t depth, T *sums) {                                \
        for (int half = 0; half < WIDTH; half += TILE) {                                                               \
            NAME##_vector s[TILE] = {{0}};                                                                             \
            for (Py_ssize_t r = 0; r < depth; r++) {                                                                   \
                const NAME##_vector b = *(const NAME##_vector *)(right + r * WIDTH);                                   \
                const T *l = left + r * WIDTH + half;                                                                  \
                for (int i = 0; i < TILE; i++) s[i] += l[i] * b;                                                       \
            }                                                                                                          \
            NAME##_vector *out = (NAME##_vector *)(sums + half * WIDTH);                                               \
            for (int i = 0; i < TILE; i++) out[i] += s[i];                                                             \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void *NAME##_worker(void *argument) {                                                                       \
        Gram *a = argument;                                                                                            \
        const Py_ssize_t columns = a->table.n + (a->ones ? 1 : 0), panels = (columns + WIDTH - 1) / WIDTH;             \
        const Py_ssize_t y_panels = (a->k + WIDTH - 1) / WIDTH;                                                        \
        const Py_ssize_t first = a->factor ? panels : 0, size = (first + panels + y_panels) * DEPTH * WIDTH;           \
        T *memory = aligned(sizeof(T) * size), *packed = memory + first * DEPTH * WIDTH;                               \
        if (!memory) {                                                                                                 \
            a->failed = 1;                                                                                             \
            return NULL;                                                                                               \
        }                                                                                                              \
        for (Py_ssize_t i = a->from; i < a->to; i += DEPTH) {                                                          \
            const Py_ssize_t depth = a->to - i < DEPTH ? a->to - i : DEPTH;                                            \
            NAME##_pack(a, i, depth, columns, panels, y_panels, packed);                                               \
            if (a->factor) {                                                                                           \
                memcpy(memory, packed, sizeof(T) * panels * DEPTH * WIDTH);                                            \
                NAME##_multiply(memory, a->factor, depth, panels, panels, 1, packed);                                  \
            }                                                                                                          \
            T *sums = a->sums;                                                                                         \
            for (Py_ssize_t q = 0; q < panels + y_panels; q++) {                                                       \
                const Py_ssize_t above = q < panels ? q + 1 : panels;                                                  \
                for (Py_ssize_t p = 0; p < above; p++, sums += WIDTH * WIDTH)                                          \
                    NAME##_tile(packed + p * DEPTH * WIDTH, packed + q * DEPTH * WIDTH, depth, sums);                  \
            }                                                                                                          \
        }                                                                                                              \
        free(memory);                                                                                                  \
        return NULL;                                                                                                   \
    }                                                                                                                  \
                                                                                                                       \
    /* Add the tiles of all parts to the upper triangle of gram (columns, columns) and to cross (columns, k). */      \
    static void NAME##_gather(const Gram *parts, int count, T *gram, T *cross) {                                       \
        const Py_ssize_t columns = parts->table.n + (parts->ones ? 1 : 0), panels = (columns + WIDTH - 1) / WIDTH;     \
        const Py_ssize_t y_panels = (parts->k + WIDTH - 1) / WIDTH;                                                    \
        Py_ssize_t at = 0;                                                                                             \
        for (Py_ssize_t q = 0; q < panels + y_panels; q++) {                                                           \
            const Py_ssize_t above = q < panels ? q + 1 : panels;                                                      \
            for (Py_ssize_t p = 0; p < above; p++, at += WIDTH * WIDTH) {                                              \
                for (int u = 0; u < WIDTH && p * WIDTH + u < columns; u++) {                                           \
                    for (int v = 0; v < WIDTH; v++) {                                                                  \
                        T sum = 0;                                                                                     \
                        for (int i = 0; i < count; i++) sum += ((const T *)parts[i].sums)[at + u * WIDTH + v];         \
                        const Py_ssize_t i = p * WIDTH + u, j = (q < panels ? q : q - panels) * WIDTH + v;             \
                        if (q < panels && j < columns && i <= j) gram[i * columns + j] += sum;                         \
                        if (q >= panels && j < parts->k) cross[i * parts->k + j] += sum;                               \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_GRAM(gram32, float, 16)
DEFINE_GRAM(gram64, double, 8)

/* ---- residual pass for many vectors: the products are tiles of packed rows, as in the Gram matrix ---- */

#define PANEL 8

static inline Py_ssize_t panels_of(Py_ssize_t columns) { return (columns + PANEL - 1) / PANEL; }

/* Lay vectors (q, n) out as the columns of a matrix in panels, each down to its last row. */
static void lay_out_vectors(const double *v, Py_ssize_t n, Py_ssize_t q, double *out) {
    for (Py_ssize_t first = 0; first < q; first += PANEL)
        for (Py_ssize_t c = 0; c < panels_of(n) * PANEL; c++)
            for (Py_ssize_t j = first; j < first + PANEL; j++) *out++ = c < n && j < q ? v[j * n + c] : 0.0;
}

/* Turn products X V of rows from i into weighted residuals, and leave the plain ones where there are weights. */
FOR_EACH_CPU
static void panel_residuals(const Residual *a, Py_ssize_t i, Py_ssize_t depth, double *weighted, double *plain,
                            double *sums) {
    for (Py_ssize_t p = 0; p < panels_of(a->q); p++) {
        const Py_ssize_t first = p * PANEL, width = a->q - first < PANEL ? a->q - first : PANEL;
        for (Py_ssize_t r = 0; r < depth; r++) {
            double *t = weighted + (p * DEPTH + r) * PANEL;
            const double w = a->weight ? a->weight[i + r] : 1.0;
            for (Py_ssize_t v = 0; v < width; v++) t[v] = wanted(a, i + r, first + v) - t[v];
            for (Py_ssize_t v = width; v < PANEL; v++) t[v] = 0.0;
            if (a->weight) memcpy(plain + (p * DEPTH + r) * PANEL, t, sizeof(double) * PANEL);
            for (Py_ssize_t v = 0; v < width; v++) {
                const double residual = t[v];
                t[v] *= w;
                sums[first + v] += t[v];
                sums[a->q + first + v] += residual * t[v];
            }
        }
    }
}

/* Add tiles (left panels, right panels) to out, (columns of the right, columns of the left). */
static void add_tiles(const double *tiles, Py_ssize_t rows, Py_ssize_t columns, double *out) {
    for (Py_ssize_t p = 0; p < panels_of(rows); p++)
        for (Py_ssize_t q = 0; q < panels_of(columns); q++, tiles += PANEL * PANEL)
            for (Py_ssize_t u = p * PANEL; u < rows && u < (p + 1) * PANEL; u++)
                for (Py_ssize_t v = q * PANEL; v < columns && v < (q + 1) * PANEL; v++)
                    out[v * rows + u] += tiles[(u % PANEL) * PANEL + v % PANEL];
}

static void residual_worker_panels(Residual *a) {
    const Py_ssize_t n = a->table.n, q = a->q, k = a->with_gram ? a->k : 0;
    const Py_ssize_t panels = panels_of(n), out_panels = panels_of(q), gram_panels = panels_of(k), rows = DEPTH * PANEL;
    const Py_ssize_t tiles = panels * out_panels * PANEL * PANEL, gram_tiles = gram_panels * gram_panels * PANEL * PANEL;
    const Py_ssize_t size = tiles + gram_tiles + rows * (panels + 2 * out_panels);
    double *memory = aligned(sizeof(double) * size);
    if (!memory) {
        a->share.failed = 1;
        return;
    }
    double *g = memory, *gram = g + tiles, *x = gram + gram_tiles, *weighted = x + rows * panels;
    double *plain = a->weight ? weighted + rows * out_panels : weighted;
    double *sums = a->share.g + q * n;
    memset(memory, 0, sizeof(double) * size);
    const Gram packing = {.table = a->table};
    for (Py_ssize_t i = a->share.from; i < a->share.to; i += DEPTH) {
        const Py_ssize_t depth = a->share.to - i < DEPTH ? a->share.to - i : DEPTH;
        gram64_pack(&packing, i, depth, n, panels, 0, x);
        gram64_multiply(x, a->panels, depth, panels, out_panels, 0, weighted);
        panel_residuals(a, i, depth, weighted, plain, sums);
        double *tile = g;
        for (Py_ssize_t p = 0; p < panels; p++)
            for (Py_ssize_t o = 0; o < out_panels; o++, tile += PANEL * PANEL)
                gram64_tile(x + p * rows, weighted + o * rows, depth, tile);
        tile = gram;
        for (Py_ssize_t p = 0; p < gram_panels; p++)
            for (Py_ssize_t o = 0; o < gram_panels; o++, tile += PANEL * PANEL)
                gram64_tile(plain + p * rows, weighted + o * rows, depth, tile);
    }
    add_tiles(g, n, q, a->share.g);
    add_tiles(gram, k, k, sums + 2 * q);
    free(memory);
}

static void *residual_worker(void *argument) {
    Residual *a = argument;
    if (a->panels) {
        residual_worker_panels(a);
    } else if (a->q >= FEW) {
        residual_worker_lanes(a);
    } else {
        residual_worker_few(a);
    }
    return NULL;
}

/* ---- residual pass in expansions: T = w (Y - X V - offset) and X'T as sums of three doubles each ---- */

/* Every product is split into itself and its rounding error by one fused multiply-add, every addition to a first part
   leaves its error to the second, and every addition to a second part to the third, which is plain: a dot product with
   errors of the order of the cube of eps (Ogita, Rump and Oishi 2005). The bound is derived in
   docs/how-many-digits.md. */
#define EXPANSION_GROUP 64

typedef struct {
    Share share; /* sums: q * (n + 1) first parts, as many second and third ones, for X'T (q, n) and sums of T (q,); then
                    (q,) squares of T / w, of the largest number that a residual's parts can stand for */
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

/* Load up to a register full; the rest is zero. */
static inline void load(lanes_vector *values, const double *from, Py_ssize_t count) {
    if (count >= LANES) {
        memcpy(values, from, sizeof *values);
        return;
    }
    memset(values, 0, sizeof *values);
    memcpy(values, from, sizeof(double) * count);
}

FOR_EACH_CPU
static void expansion_dot(const double *const *x, const double *v, Py_ssize_t part, Py_ssize_t n, double t[QUAD][3]) {
    lanes_vector s[QUAD] = {{0}}, e[QUAD] = {{0}}, f[QUAD] = {{0}};
    for (Py_ssize_t c = 0; c < n; c += LANES) {
        lanes_vector v0, v1, v2;
        load(&v0, v + c, n - c);
        load(&v1, v + part + c, n - c);
        load(&v2, v + 2 * part + c, n - c);
        for (int r = 0; r < QUAD; r++) {
            lanes_vector a, p, q, b, last, z;
            load(&a, x[r] + c, n - c);
            p = a * v0;
            b = a * v1;
            for (int l = 0; l < LANES; l++) q[l] = __builtin_fma(a[l], v0[l], -p[l]);
            for (int l = 0; l < LANES; l++) last[l] = __builtin_fma(a[l], v1[l], -b[l]);
            last += a * v2;
            TWO_SUM(s[r], p, z);
            TWO_SUM(e[r], q, z);
            TWO_SUM(e[r], b, z);
            TWO_SUM(e[r], p, z);
            f[r] += ((q + b) + p) + last;
        }
    }
    for (int r = 0; r < QUAD; r++)
        for (int l = 0; l < LANES; l++) add_parts(t[r], 1, -s[r][l], -e[r][l], -f[r][l]);
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

FOR_EACH_CPU
static void expansion_adjoint(const double *const *x, double t[QUAD][3], Py_ssize_t part, Py_ssize_t n, double *g) {
    const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    double *g0 = g, *g1 = g + part, *g2 = g + 2 * part;
#pragma omp simd
    for (Py_ssize_t c = 0; c < n; c++) {
        double first = g0[c], second = g1[c], third = g2[c];
        ADD_ROW(x0[c], t[0]);
        ADD_ROW(x1[c], t[1]);
        ADD_ROW(x2[c], t[2]);
        ADD_ROW(x3[c], t[3]);
        g0[c] = first;
        g1[c] = second;
        g2[c] = third;
    }
}

static void expansion_group(const void *self, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Expansion *a = self;
    const Py_ssize_t n = a->table.n, q = a->q, part = q * (n + 1);
    for (Py_ssize_t i = from; i < to; i += QUAD) {
        const Py_ssize_t left = to - i < QUAD ? to - i : QUAD;
        const double *x[QUAD];
        /* Past the end the last row stands in with a residual of zero. */
        for (Py_ssize_t r = 0; r < QUAD; r++) x[r] = row(&a->table, r < left ? i + r : to - 1, rows + r * n);
        for (Py_ssize_t j = 0; j < q; j++) {
            double t[QUAD][3] = {{0}};
            expansion_dot(x, a->v + j * n, q * n, n, t);
            for (Py_ssize_t r = 0; r < QUAD; r++) {
                if (r >= left) {
                    t[r][0] = t[r][1] = t[r][2] = 0.0;
                    continue;
                }
                const double w = a->weight ? a->weight[i + r] : 1.0;
                add_parts(t[r], 1, a->y_scale[j] * number(a->y, a->y_single, (i + r) * q + j), 0.0, 0.0);
                add_parts(t[r], 1, -a->offset[j], -a->offset[q + j], -a->offset[2 * q + j]);
                order(t[r]);
                double size = t[r][0] < 0 ? -t[r][0] : t[r][0];
                for (int k = 1; k < 3; k++) {
                    const double other = (t[r][k] < 0 ? -t[r][k] : t[r][k]) * (k == 1 ? 0x1p52 : 0x1p104);
                    size = other > size ? other : size;
                }
                g[3 * part + j] += w * size * size;
                if (a->weight) {
                    double p = w * t[r][0], s = __builtin_fma(w, t[r][0], -p), b = w * t[r][1], z;
                    const double last = __builtin_fma(w, t[r][1], -b) + w * t[r][2];
                    TWO_SUM(s, b, z);
                    t[r][0] = p;
                    t[r][1] = s;
                    t[r][2] = b + last;
                    order(t[r]);
                }
                add_parts(g + q * n + j, part, t[r][0], t[r][1], t[r][2]);
            }
            expansion_adjoint(x, t, part, n, g + j * n);
        }
    }
}

static void *expansion_worker(void *argument) {
    const Expansion *a = argument;
    const Py_ssize_t n = a->table.n, part = a->q * (n + 1);
    sum_groups(argument, expansion_group, EXPANSION_GROUP, 3 * part + a->q, part, QUAD * n);
    return NULL;
}

/* ---- sparse sign sketch: each row is added, with signs, to a few rows of the sketch ---- */

typedef struct {
    Table table;
    const int32_t *target; /* (m, nonzeros): rows of the sketch */
    const double *factor;  /* (m, nonzeros): sign, weight and scale */
    Py_ssize_t nonzeros, from, to; /* columns */
    double *sketch;        /* (s, n) */
} Sketch;

FOR_EACH_CPU
static void sketch_columns(const Sketch *a) {
    const Py_ssize_t n = a->table.n, width = a->to - a->from;
    for (Py_ssize_t i = 0; i < a->table.m; i++) {
        for (Py_ssize_t z = 0; z < a->nonzeros; z++) {
            const double f = a->factor[i * a->nonzeros + z];
            double *s = a->sketch + (Py_ssize_t)a->target[i * a->nonzeros + z] * n + a->from;
            if (a->table.single) {
                const float *x = (const float *)a->table.x + i * a->table.ld + a->from;
#pragma omp simd
                for (Py_ssize_t c = 0; c < width; c++) s[c] += f * x[c];
            } else {
                const double *x = (const double *)a->table.x + i * a->table.ld + a->from;
#pragma omp simd
                for (Py_ssize_t c = 0; c < width; c++) s[c] += f * x[c];
            }
        }
    }
}

static void *sketch_worker(void *argument) {
    sketch_columns(argument);
    return NULL;
}

/* ---- threads ---- */

/* Parts are taken by whatever thread is free: where another pool's threads still spin on a core, the others go on. Each
   part has its own sums, so who took it changes nothing. */
typedef struct {
    void *(*worker)(void *);
    char *parts;
    size_t size;
    int count;
    atomic_int next;
} Queue;

static void *take(void *argument) {
    Queue *queue = argument;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) queue->worker(queue->parts + i * queue->size);
    return NULL;
}

/* A thread that is created after a rest may be put on its creator's processor, where it waits for the scheduler's next
   tick, up to 4 ms. So it is created for the other processors; once it runs, it may run on any. */
#ifdef __linux__
typedef struct {
    Queue *queue;
    cpu_set_t allowed;
} Helper;

static void *help(void *argument) {
    const Helper *helper = argument;
    sched_setaffinity(0, sizeof helper->allowed, &helper->allowed);
    return take(helper->queue);
}

static int create(pthread_t *thread, Helper *helper) {
    pthread_attr_t elsewhere;
    const int here = sched_getcpu();
    cpu_set_t others = helper->allowed;
    if (here >= 0) CPU_CLR(here, &others);
    if (CPU_COUNT(&others) > 0 && pthread_attr_init(&elsewhere) == 0) {
        int failed = pthread_attr_setaffinity_np(&elsewhere, sizeof others, &others);
        failed = failed || pthread_create(thread, &elsewhere, help, helper);
        pthread_attr_destroy(&elsewhere);
        if (!failed) return 0;
    }
    return pthread_create(thread, NULL, take, helper->queue);
}
#endif

/* Run the worker on each of `count` consecutive structures. */
static void run(void *(*worker)(void *), void *parts, size_t size, int count, int threads) {
    pthread_t others[MAX_THREADS];
    int started = 0;
    Queue queue = {worker, parts, size, count, 0};
#ifdef __linux__
    Helper helper = {.queue = &queue};
    if (sched_getaffinity(0, sizeof helper.allowed, &helper.allowed) != 0) CPU_ZERO(&helper.allowed);
#endif
    while (started < threads - 1 && started < count - 1) {
#ifdef __linux__
        if (create(&others[started], &helper) != 0) break;
#else
        if (pthread_create(&others[started], NULL, take, &queue) != 0) break;
#endif
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

/* Give each of `count` parts, which start with a Share, its rows of m and sums of its own; run them, add the sums to out in
   the order of the parts, and free them. The first 3 * expansions of the sums are expansions. */
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
    int single, y_single, threads, with_gram;
    Py_ssize_t m, n, ld, k, q;
    if (!PyArg_ParseTuple(args, "KinnnKinKKKKniKi", &x, &single, &m, &n, &ld, &y, &y_single, &k, &y_scale, &weight, &v,
                          &offset, &q, &with_gram, &g, &threads))
        return NULL;
    const Py_ssize_t size = q * (n + 2) + (with_gram ? k * k : 0);
    const Py_ssize_t most = MOST_SUMS / size < 1 ? 1 : MOST_SUMS / size;
    const int count = parts_of(m) < most ? parts_of(m) : (int)most;
    Residual *parts = calloc(count, sizeof(Residual));
    double *panels = q > MANY ? aligned(sizeof(double) * panels_of(n) * panels_of(q) * PANEL * PANEL) : NULL;
    if (!parts || (q > MANY && !panels)) {
        free(parts);
        free(panels);
        return PyErr_NoMemory();
    }
    if (panels) lay_out_vectors(POINTER(const double, v), n, q, panels);
    for (int i = 0; i < count; i++) {
        parts[i] = (Residual){{0}, {POINTER(const void, x), single, m, n, ld}, POINTER(const void, y), y_single,
                              POINTER(const double, y_scale), POINTER(const double, weight), POINTER(const double, v),
                              POINTER(const double, offset), k, q, with_gram, panels};
    }
    PyObject *result =
        add_up(residual_worker, parts, sizeof(Residual), count, threads, m, size, 0, POINTER(double, g));
    free(panels);
    return result;
}

static PyObject *column_squares(PyObject *self, PyObject *args) {
    unsigned long long x, weight, g;
    int single, threads;
    Py_ssize_t m, n, ld;
    if (!PyArg_ParseTuple(args, "KinnnKKi", &x, &single, &m, &n, &ld, &weight, &g, &threads)) return NULL;
    const int count = parts_of(m);
    Squares *parts = calloc(count, sizeof(Squares));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Squares){{0}, {POINTER(const void, x), single, m, n, ld}, POINTER(const double, weight)};
    }
    return add_up(squares_worker, parts, sizeof(Squares), count, threads, m, n, 0, POINTER(double, g));
}

static PyObject *expansion_pass(PyObject *self, PyObject *args) {
    unsigned long long x, y, y_scale, weight, v, offset, g;
    int single, y_single, threads;
    Py_ssize_t m, n, ld, q;
    if (!PyArg_ParseTuple(args, "KinnnKiKKKKnKi", &x, &single, &m, &n, &ld, &y, &y_single, &y_scale, &weight, &v, &offset,
                          &q, &g, &threads))
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
    return add_up(expansion_worker, parts, sizeof(Expansion), count, threads, m, 3 * expansions + q, expansions,
                  POINTER(double, g));
}

static PyObject *gram_add(PyObject *self, PyObject *args) {
    unsigned long long x, y, y_scale, row_scale, x_scale, factor, gram, cross;
    int single, y_single, ones, transposed, double_sums, threads, failed = 0;
    Py_ssize_t m, n, ld, k;
    if (!PyArg_ParseTuple(args, "KinnnKinKKKKiiiKKi", &x, &single, &m, &n, &ld, &y, &y_single, &k, &y_scale, &row_scale,
                          &x_scale, &factor, &ones, &transposed, &double_sums, &gram, &cross, &threads))
        return NULL;
    if (transposed) {
        const Py_ssize_t rows = m;
        m = n;
        n = rows;
    }
    const int count = clamp_threads(threads, (m + DEPTH - 1) / DEPTH);
    const Py_ssize_t width = double_sums ? 8 : 16, columns = n + (ones ? 1 : 0);
    const Py_ssize_t panels = (columns + width - 1) / width, y_panels = (k + width - 1) / width;
    const size_t bytes = (size_t)(panels * (panels + 1) / 2 + panels * y_panels) * 64 * width;
    Gram *parts = calloc(count, sizeof(Gram));
    if (!parts) return PyErr_NoMemory();
    void *panes = NULL;
    if (factor) {
        panes = aligned((size_t)(panels * (panels + 1) / 2) * 64 * width);
        failed |= !panes;
        if (panes && double_sums) gram64_lay_out(POINTER(const double, factor), columns, panes);
        if (panes && !double_sums) gram32_lay_out(POINTER(const double, factor), columns, panes);
    }
    for (int i = 0; i < count; i++) {
        parts[i] = (Gram){{POINTER(const void, x), single, m, n, ld}, POINTER(const void, y), y_single, ones,
                          transposed, k, POINTER(const double, y_scale), POINTER(const double, row_scale),
                          POINTER(const double, x_scale), panes, bound(m, count, i, DEPTH),
                          bound(m, count, i + 1, DEPTH), aligned(bytes), 0};
        failed |= !parts[i].sums;
        if (parts[i].sums) memset(parts[i].sums, 0, bytes);
    }
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        run(double_sums ? gram64_worker : gram32_worker, parts, sizeof(Gram), count, count);
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
    run(sketch_worker, parts, sizeof(Sketch), count, count);
    Py_END_ALLOW_THREADS;
    free(parts);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"residual_pass", residual_pass, METH_VARARGS,
     "residual_pass(x, single, m, n, ld, y, y_single, k, y_scale, weight, v, offset, q, with_gram, out, threads): add X'T, "
     "sums and squares of T, and T'T."},
    {"column_squares", column_squares, METH_VARARGS,
     "column_squares(x, single, m, n, ld, weight, out, threads): add the weighted squares of each column."},
    {"gram_add", gram_add, METH_VARARGS,
     "gram_add(x, single, m, n, ld, y, y_single, k, y_scale, row_scale, x_scale, factor, ones, transposed, double_sums, "
     "gram, cross, threads): add the upper triangle of A'A and A'B; A = [1 | X] scaled, times the factor, or A = X' scaled."},
    {"expansion_pass", expansion_pass, METH_VARARGS,
     "expansion_pass(x, single, m, n, ld, y, y_single, y_scale, weight, v, offset, q, out, threads): add X'T and sums of T as "
     "three doubles each, and squares of T."},
    {"sketch_add", sketch_add, METH_VARARGS,
     "sketch_add(x, single, m, n, ld, target, factor, nonzeros, sketch, threads): add rows to a sparse sign sketch."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels",
                                    "Passes over a table at the speed of memory. Addresses are those of live buffers.",
                                    -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
