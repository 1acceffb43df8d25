/* What a pass works on: how its sums are split, tables, and what each thread takes of them. Included by _loops.c. */

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
#define MOST_AHEAD ((Py_ssize_t)1 << 19) /* bytes that are fetched ahead: a part of the outer cache */
#define IN_CACHE 16 /* panels of packed rows that stay in cache while all columns of a product pass over them */
#define QUAD 4    /* rows that the loops over columns take at once */
#define LOT 16    /* rows whose losses are taken at once: registers full of them, and the inner caches hold the rows */
#define FEW 4     /* from so many vectors on the rows are packed */
#define SHARES 4  /* outputs of a row whose sums are taken at once */
#define SINGLE_GROUP 4096 /* rows that are summed in single precision before the sums join others in double */
#define MOST_SUMS ((Py_ssize_t)1 << 24) /* of all parts of a pass together */
#define GRAM_GROUPS 4 /* groups of rows that a part of a product has at least */
#define TILE_GROUPS 64 /* the same where a unit multiplies matrices: it is fast, adding its sums up is not */
#define MOST_GRAM ((Py_ssize_t)1 << 26) /* bytes of the sums of all parts of a product, but for one part a thread */

_Static_assert(DEPTH % 64 == 0, "an eighth of the packed rows is whole tiles as well");
_Static_assert(LOT % 8 == 0, "a lot is full registers of any width");
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

#define LARGE_PAGE ((size_t)1 << 21) /* bytes of the pages that Linux gives where it is asked for large ones */

static void *aligned(size_t bytes) {
    void *memory = NULL;
    const size_t least = bytes < LARGE_PAGE ? 64 : LARGE_PAGE;
    if (posix_memalign(&memory, least, bytes ? bytes : 64) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    /* Packed rows and tiles are walked in steps of many small pages, each of which has to be looked up. */
    if (bytes >= LARGE_PAGE) madvise(memory, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#endif
    return memory;
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
    Share share; /* sums: (q, n), then (q,) sums of T, then (q,) squares, then the products, then those with `beside` */
    Table x, y;            /* of q vectors those beyond the columns of y have no target */
    Table beside;          /* columns that T is multiplied with as well: (q, columns); or none */
    const double *beside_scale; /* what they are multiplied by */
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

/* The same for a symmetric product, of whose tiles the upper ones count. */
static void add_symmetric_tiles(const double *tiles, Py_ssize_t columns, double *out) {
    for (Py_ssize_t u = 0; u < columns; u++) {
        for (Py_ssize_t v = u; v < columns; v++) {
            const Py_ssize_t tile = u / PANEL * panels_of(columns) + v / PANEL;
            const double sum = tiles[tile * PANEL * PANEL + (u % PANEL) * PANEL + v % PANEL];
            out[u * columns + v] += sum;
            if (u != v) out[v * columns + u] += sum;
        }
    }
}

/* ---- a criterion of one output: its losses, and X'S of its slopes ---- */

#define SLOPE_ROUNDINGS 16 /* units of 2^-53 by which slopes and curvatures are off, relative to their terms */
enum { LOGISTIC, EXPONENTIAL, ROUNDED };

typedef struct {
    Share share; /* sums: (n,) X'S, then 1'S, the losses, their sizes, and squares of how much slopes may be off */
    Table x, y;            /* y has one column */
    const double *weight;  /* (m,) or NULL */
    const double *v;       /* (n,) */
    double offset;
    int kind;
    double numbers[4];     /* what the losses depend on, see losses/formula.py */
    double *roots;         /* (m,), where the roots of the weighted curvatures go, or NULL */
    const double *squares; /* (n,): how often squares count in the squared length of a row; or NULL for no lengths */
    double own, reach, few; /* what is added to squared lengths; a slope may be off by `few` times itself, and by its
                              curvature times the length, times `reach` */
    double *peak;          /* where the largest squared length goes */
} Loss;

/* ---- curvatures of outputs that are shares of a row, few of which count: see _curvatures.inc ---- */

typedef struct {
    Share share;               /* sums: (q, n) X'S, then (q,) 1'S */
    Table x;                   /* in single precision */
    Py_ssize_t q;
    const float *v, *offset;   /* (q, n) and (q,): what changes outputs */
    const int64_t *starts;     /* (m + 1,): where the curvatures of each row start */
    const int32_t *outputs;    /* whose they are, in a row each at most once */
    const float *curvatures;
} Curved;

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
    const Squares *spread;   /* what the columns of x are summed up by in the same read, (2, n); or NULL */
    double *spread_sums;     /* where, and room for those of a group and QUAD rows */
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

/* Where rows stand that are packed next: while products of those packed before are computed, memory is idle, so each
   step of them fetches what is `step` bytes further on. */
typedef struct {
    const char *at;
    Py_ssize_t step;
} Ahead;

/* Adds left' right to the tiles out, for `count` packed panels on the right. */
typedef void (*Tiles)(int count, const void *left, const void *right, Py_ssize_t depth, void *const *out, Ahead *ahead);

#define MOST_RIGHT 3

/* Add the products of packed panels, `right` of them at once, to the sums of the upper triangle, `tile` bytes each.
   Panels on the right stay in the inner caches while those on the left pass by. */
static void add_upper(Tiles tiles, const void *packed, Py_ssize_t depth, Py_ssize_t panels, Py_ssize_t x_panels,
                      int right, void *sums, size_t tile, Ahead *ahead) {
    const char *panel = packed;
    for (Py_ssize_t q = 0; q < panels; q += right) {
        for (Py_ssize_t p = 0; p < x_panels && p < q + right && p < panels; p++) {
            const Py_ssize_t from = p > q ? p : q;
            void *out[MOST_RIGHT] = {NULL};
            int count = 0;
            for (Py_ssize_t j = from; j < q + right && j < panels; j++)
                out[count++] = (char *)sums + tile_of(p, j, x_panels) * tile;
            tiles(count, panel + p * APART * 64, panel + from * APART * 64, depth, out, ahead);
        }
    }
}

/* How many times that calls for tiles. */
static Py_ssize_t upper_calls(Py_ssize_t panels, Py_ssize_t x_panels, int right) {
    Py_ssize_t calls = 0;
    for (Py_ssize_t q = 0; q < panels; q += right) {
        const Py_ssize_t end = q + right < panels ? q + right : panels;
        calls += end < x_panels ? end : x_panels;
    }
    return calls;
}

/* Spread the rows after row i and `depth` more over the steps of products of these; none where rows are taken in another
   order, or are so long that they would drive the packed ones out. */
static Ahead rows_ahead(const Gram *a, Py_ssize_t i, Py_ssize_t depth, Py_ssize_t steps) {
    const Py_ssize_t size = a->x.single ? sizeof(float) : sizeof(double), next = i + depth;
    const Py_ssize_t rows = a->to - next < depth ? a->to - next : depth, bytes = rows * a->x.ld * size;
    const int fetches = !a->order && !a->transposed && bytes > 0 && bytes <= MOST_AHEAD && steps > 0;
    return (Ahead){(const char *)a->x.values + (fetches ? next * a->x.ld * size : 0),
                   fetches ? (bytes + steps - 1) / steps : 0};
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

/* ---- Cholesky factor of a Gram matrix ---- */

#define BLOCK 96    /* rows and columns of a block: the inner caches hold what is multiplied at a time */
#define SPINS 4096  /* looks at whether another thread is done, before its processor is offered to others */

/* What threads work on together: see _cholesky.inc. */
typedef struct {
    const void *matrix;
    void *factor, *tiles;     /* see tile_of */
    Py_ssize_t n, panels;     /* columns, and panels of them */
    int blocks, count;        /* on the diagonal, and on and above it */
    atomic_int next, place;   /* the next block; the first pivot that is not positive, from 1, or 0 */
    atomic_int *done;         /* for each column of blocks, how many are factored */
} Triangle;

/* Panels whose rows, and whose columns, a block has. */
typedef struct {
    Py_ssize_t first, last, from, to;
} Block;

/* Wait until so many blocks of a column are factored; return 0 where a pivot was not positive. */
static int wait_for(Triangle *a, int column, int blocks) {
    for (int looks = 0; atomic_load_explicit(&a->done[column], memory_order_acquire) < blocks; looks++) {
        if (atomic_load_explicit(&a->place, memory_order_relaxed)) return 0;
        if (looks > SPINS) sched_yield();
    }
    return 1;
}

/* ---- products with a matrix that is held whole ---- */

typedef struct {
    const double *values; /* (m, n) */
    Py_ssize_t m, n;
    int upper;            /* whether it is an upper triangle, with zeros below */
    int images, back;     /* whether vectors are multiplied by it, and then, or alone, by its transpose */
} Matrix;

/* ---- triangles of short parts of a table: see _householder.inc ---- */

#define LEAST_PADDING 8 /* doubles in the widest register: rows are padded to a multiple of them */
/* Between these a sum of squares has lost none of them to the ends of the range. */
#define SMALLEST_SQUARE 0x1p-900
#define LARGEST_SQUARE 0x1p1000

/* ---- residual pass in expansions: T = w (Y - X V - offset) and X'T as sums of three doubles each ---- */

/* Every product is split into itself and its rounding error by one fused multiply-add, every addition to a first part
   leaves its error to the second, and every addition to a second part to the third, which is plain: a dot product with
   errors of the order of the cube of eps (Ogita, Rump and Oishi 2005). The bound is derived in
   docs/digits-proof.md. */
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
