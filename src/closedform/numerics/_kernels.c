/* Passes over a table at the speed of memory: each row is read once for all that a pass needs of it.

   Optional: where this is not compiled, kernels.py does the same with matrix products, which read the rows twice.
   Tables are row-major with unit column stride, in double or in single precision; sums are in double. Work is
   split over threads by rows (by columns in the sketch), in a fixed way, so that the same call gives the same bits. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define FOR_EACH_CPU
#endif

/* Rows are taken four at a time; sums over this many rows are added up before they join the whole, as in pairwise
   summation, so that rounding grows with the number of groups and not of rows. */
#define QUAD 4
#define GROUP 256
#define MAX_THREADS 256
#define MAX_VECTORS 64

typedef struct {
    const void *x;       /* the table, first row */
    int single;          /* whether it holds floats */
    Py_ssize_t m, n, ld; /* rows, columns, distance between rows */
} Table;

/* Return row i as doubles: in place, or converted into the buffer. */
static inline const double *row(const Table *t, Py_ssize_t i, double *buffer) {
    if (!t->single) return (const double *)t->x + i * t->ld;
    const float *x = (const float *)t->x + i * t->ld;
    for (Py_ssize_t c = 0; c < t->n; c++) buffer[c] = x[c];
    return buffer;
}

/* ---- residual pass: T = Y - X V - offset, then squares of T and X'T, with row weights ---- */

typedef struct {
    Table table;
    const double *y;      /* (m, k) contiguous or NULL: the last q - k columns have no target */
    const double *weight; /* (m,) or NULL */
    const double *v;      /* (q, n): vectors as rows */
    const double *offset; /* (q,) */
    Py_ssize_t k, q, from, to;
    int with_gram;        /* whether (k, k) products T'T of the targets' columns follow */
    double *g;            /* (q, n) sums, then (q,) sums of T, then (q,) squares, then the products */
    int failed;
} Residual;

FOR_EACH_CPU
static void residual_group(const Residual *a, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Py_ssize_t n = a->table.n, q = a->q, k = a->k;
    double *sums = g + q * n, *squares = sums + q, *gram = squares + q;
    double residuals[MAX_VECTORS][QUAD], weights[QUAD];
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
                    const double target = j + s < k ? a->y[(i + r) * k + j + s] : 0.0;
                    const double residual = target - products[s][r] - a->offset[j + s];
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

static void *residual_worker(void *argument) {
    Residual *a = argument;
    const Py_ssize_t n = a->table.n, size = a->q * (n + 2) + (a->with_gram ? a->k * a->k : 0);
    double *group = malloc(sizeof(double) * (size + QUAD * n));
    if (!group) {
        a->failed = 1;
        return NULL;
    }
    for (Py_ssize_t i = a->from; i < a->to; i += GROUP) {
        memset(group, 0, sizeof(double) * size);
        residual_group(a, i, i + GROUP < a->to ? i + GROUP : a->to, group, group + size);
        for (Py_ssize_t c = 0; c < size; c++) a->g[c] += group[c];
    }
    free(group);
    return NULL;
}

/* ---- column squares ---- */

typedef struct {
    Table table;
    const double *weight;
    Py_ssize_t from, to;
    double *g; /* (n,) */
    int failed;
} Squares;

FOR_EACH_CPU
static void squares_group(const Squares *a, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
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
    Squares *a = argument;
    const Py_ssize_t n = a->table.n;
    double *group = malloc(sizeof(double) * (n + QUAD * n));
    if (!group) {
        a->failed = 1;
        return NULL;
    }
    for (Py_ssize_t i = a->from; i < a->to; i += GROUP) {
        memset(group, 0, sizeof(double) * n);
        squares_group(a, i, i + GROUP < a->to ? i + GROUP : a->to, group, group + n);
        for (Py_ssize_t c = 0; c < n; c++) a->g[c] += group[c];
    }
    free(group);
    return NULL;
}

/* ---- rounding to single precision, rows scaled ---- */

typedef struct {
    Table table;
    const double *row_scale; /* (m,) or NULL */
    Py_ssize_t from, to, ld_out;
    float *out;
} Narrow;

FOR_EACH_CPU
static void narrow_rows(const Narrow *a) {
    const Py_ssize_t n = a->table.n;
    for (Py_ssize_t i = a->from; i < a->to; i++) {
        float *out = a->out + i * a->ld_out;
        const double w = a->row_scale ? a->row_scale[i] : 1.0;
        if (a->table.single) {
            const float *x = (const float *)a->table.x + i * a->table.ld;
#pragma omp simd
            for (Py_ssize_t c = 0; c < n; c++) out[c] = (float)(w * x[c]);
        } else {
            const double *x = (const double *)a->table.x + i * a->table.ld;
#pragma omp simd
            for (Py_ssize_t c = 0; c < n; c++) out[c] = (float)(w * x[c]);
        }
    }
}

static void *narrow_worker(void *argument) {
    narrow_rows(argument);
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

/* Run the worker on each of `count` consecutive structures, the first one here. */
static void run(void *(*worker)(void *), void *arguments, size_t size, int count) {
    pthread_t threads[MAX_THREADS];
    int started[MAX_THREADS];
    for (int i = 1; i < count; i++) {
        void *argument = (char *)arguments + i * size;
        started[i] = pthread_create(&threads[i], NULL, worker, argument) == 0;
        if (!started[i]) worker(argument);
    }
    worker(arguments);
    for (int i = 1; i < count; i++) {
        if (started[i]) pthread_join(threads[i], NULL);
    }
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

static PyObject *residual_pass(PyObject *self, PyObject *args) {
    unsigned long long x, y, weight, v, offset, g;
    int single, threads, with_gram, failed = 0;
    Py_ssize_t m, n, ld, k, q;
    if (!PyArg_ParseTuple(args, "KinnnKnKKKniKi", &x, &single, &m, &n, &ld, &y, &k, &weight, &v, &offset, &q,
                          &with_gram, &g, &threads))
        return NULL;
    if (q > MAX_VECTORS || k > q) return PyErr_Format(PyExc_ValueError, "at most %d vectors at once", MAX_VECTORS);
    const int count = clamp_threads(threads, (m + GROUP - 1) / GROUP);
    const Py_ssize_t size = q * (n + 2) + (with_gram ? k * k : 0);
    Residual *parts = calloc(count, sizeof(Residual));
    double *sums = calloc((size_t)count * size, sizeof(double));
    if (!parts || !sums) {
        free(parts);
        free(sums);
        return PyErr_NoMemory();
    }
    for (int i = 0; i < count; i++) {
        parts[i] = (Residual){{POINTER(const void, x), single, m, n, ld}, POINTER(const double, y),
                              POINTER(const double, weight), POINTER(const double, v), POINTER(const double, offset),
                              k, q, bound(m, count, i, GROUP), bound(m, count, i + 1, GROUP), with_gram,
                              sums + i * size, 0};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(residual_worker, parts, sizeof(Residual), count);
    double *out = POINTER(double, g);
    for (int i = 0; i < count; i++) {
        failed |= parts[i].failed;
        for (Py_ssize_t c = 0; c < size; c++) out[c] += sums[i * size + c];
    }
    Py_END_ALLOW_THREADS;
    free(parts);
    free(sums);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *column_squares(PyObject *self, PyObject *args) {
    unsigned long long x, weight, g;
    int single, threads, failed = 0;
    Py_ssize_t m, n, ld;
    if (!PyArg_ParseTuple(args, "KinnnKKi", &x, &single, &m, &n, &ld, &weight, &g, &threads)) return NULL;
    const int count = clamp_threads(threads, (m + GROUP - 1) / GROUP);
    Squares *parts = calloc(count, sizeof(Squares));
    double *sums = calloc((size_t)count * n, sizeof(double));
    if (!parts || !sums) {
        free(parts);
        free(sums);
        return PyErr_NoMemory();
    }
    for (int i = 0; i < count; i++) {
        parts[i] = (Squares){{POINTER(const void, x), single, m, n, ld}, POINTER(const double, weight),
                             bound(m, count, i, GROUP), bound(m, count, i + 1, GROUP), sums + i * n, 0};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(squares_worker, parts, sizeof(Squares), count);
    double *out = POINTER(double, g);
    for (int i = 0; i < count; i++) {
        failed |= parts[i].failed;
        for (Py_ssize_t c = 0; c < n; c++) out[c] += sums[i * n + c];
    }
    Py_END_ALLOW_THREADS;
    free(parts);
    free(sums);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *narrow(PyObject *self, PyObject *args) {
    unsigned long long x, scale, out;
    int single, threads;
    Py_ssize_t m, n, ld, ld_out;
    if (!PyArg_ParseTuple(args, "KinnnKKni", &x, &single, &m, &n, &ld, &scale, &out, &ld_out, &threads)) return NULL;
    const int count = clamp_threads(threads, (m + GROUP - 1) / GROUP);
    Narrow *parts = calloc(count, sizeof(Narrow));
    if (!parts) return PyErr_NoMemory();
    for (int i = 0; i < count; i++) {
        parts[i] = (Narrow){{POINTER(const void, x), single, m, n, ld}, POINTER(const double, scale),
                            bound(m, count, i, GROUP), bound(m, count, i + 1, GROUP), ld_out, POINTER(float, out)};
    }
    Py_BEGIN_ALLOW_THREADS;
    run(narrow_worker, parts, sizeof(Narrow), count);
    Py_END_ALLOW_THREADS;
    free(parts);
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
    run(sketch_worker, parts, sizeof(Sketch), count);
    Py_END_ALLOW_THREADS;
    free(parts);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"residual_pass", residual_pass, METH_VARARGS,
     "residual_pass(x, single, m, n, ld, y, k, weight, v, offset, q, with_gram, out, threads): add X'T, sums and squares "
     "of T, and T'T."},
    {"column_squares", column_squares, METH_VARARGS,
     "column_squares(x, single, m, n, ld, weight, out, threads): add the weighted squares of each column."},
    {"narrow", narrow, METH_VARARGS,
     "narrow(x, single, m, n, ld, row_scale, out, ld_out, threads): round the scaled rows to float32."},
    {"sketch_add", sketch_add, METH_VARARGS,
     "sketch_add(x, single, m, n, ld, target, factor, nonzeros, sketch, threads): add rows to a sparse sign sketch."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels",
                                    "Passes over a table at the speed of memory. Addresses are those of live buffers.",
                                    -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
