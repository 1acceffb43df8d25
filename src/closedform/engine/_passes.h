/* The loops over rows, for one set of instructions: included by _loops.c once for each, with

   SUFFIX        what the names of the set end in
   TARGET        the attribute that compiles a function for the set
   VECTOR        bytes of a register
   ROWS          rows taken at once where each is read for itself
   TILE, RIGHT   a tile of a product is TILE rows of RIGHT panels of sums in registers
   BY_COUNT      calls a function with a count of panels, at most RIGHT, that the compiler knows */

#define LANES (VECTOR / 8)
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Rows of a table start anywhere. */
typedef double NAMED(vector) __attribute__((vector_size(VECTOR), aligned(8), may_alias));
#define LOAD(from) (*(const NAMED(vector) *)(from))

/* ---- residual pass for few vectors: each row is used twice while it is in cache ---- */

/* Products of n numbers of ROWS rows with those of `count` vectors, which are `apart`. */
INLINE void NAMED(dots)(const int count, const double *const *x, const double *v, Py_ssize_t n, Py_ssize_t apart,
                        double products[FEW][ROWS]) {
    NAMED(vector) s[FEW][ROWS] = {{{0}}};
    Py_ssize_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < count; j++) s[j][r] += LOAD(x[r] + c) * LOAD(v + j * apart + c);
    }
    for (int j = 0; j < count; j++) {
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int l = 0; l < LANES; l++) sum += s[j][r][l];
            for (Py_ssize_t rest = c; rest < n; rest++) sum += x[r][rest] * v[j * apart + rest];
            products[j][r] = sum;
        }
    }
}

/* Add ROWS rows times t to `count` sums, `apart`, and fetch what stands `ahead` of them before the next products need
   it. */
INLINE void NAMED(add_rows)(const int count, const double *const *x, double t[FEW][ROWS], Py_ssize_t n,
                            Py_ssize_t apart, Py_ssize_t ahead, double *g) {
    Py_ssize_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        NAMED(vector) sum[FEW];
        for (int j = 0; j < count; j++) sum[j] = LOAD(g + j * apart + c);
        for (int r = 0; r < ROWS; r += 2) {
            const NAMED(vector) a = LOAD(x[r] + c), b = LOAD(x[r + 1] + c);
            __builtin_prefetch(x[r] + ahead + c);
            __builtin_prefetch(x[r + 1] + ahead + c);
            for (int j = 0; j < count; j++) sum[j] += t[j][r] * a + t[j][r + 1] * b;
        }
        for (int j = 0; j < count; j++) *(NAMED(vector) *)(g + j * apart + c) = sum[j];
    }
    for (; c < n; c++)
        for (int j = 0; j < count; j++)
            for (int r = 0; r < ROWS; r++) g[j * apart + c] += t[j][r] * x[r][c];
}

TARGET static void NAMED(residual_group)(const void *part, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Residual *a = part;
    const Py_ssize_t n = a->x.n, q = a->q, k = a->y.n, ahead = a->x.single ? 0 : ROWS * a->x.ld;
    double *sums = g + q * n, *squares = sums + q, *gram = squares + q;
    for (Py_ssize_t i = from; i < to; i += ROWS) {
        const Py_ssize_t left = to - i < ROWS ? to - i : ROWS;
        double t[FEW][ROWS], residuals[FEW][ROWS];
        const double *x[ROWS];
        /* Past the end the last row stands in with a residual of zero. */
        for (Py_ssize_t r = 0; r < ROWS; r++) x[r] = row(&a->x, r < left ? i + r : to - 1, rows + r * n);
        BY_THREE(q, NAMED(dots), x, a->v, n, n, t);
        for (Py_ssize_t j = 0; j < q; j++) {
            for (Py_ssize_t r = 0; r < ROWS; r++) {
                const double weight = r >= left ? 0.0 : a->weight ? a->weight[i + r] : 1.0;
                residuals[j][r] = r < left ? wanted(a, i + r, j) - t[j][r] : 0.0;
                t[j][r] = weight * residuals[j][r];
                squares[j] += residuals[j][r] * t[j][r];
                sums[j] += t[j][r];
            }
        }
        BY_THREE(q, NAMED(add_rows), x, t, n, n, ahead, g);
        if (!a->group) continue;
        for (Py_ssize_t j = 0; j < k; j++)
            for (Py_ssize_t l = 0; l < k; l++)
                for (Py_ssize_t r = 0; r < left; r++) gram[j * k + l] += t[j][r] * residuals[l][r];
    }
}

/* ---- a criterion of one output ---- */

#include "_losses.inc"
#include "_curvatures.inc"

/* ---- column squares ---- */

TARGET static void NAMED(squares_group)(const void *part, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Squares *a = part;
    const Py_ssize_t n = a->x.n;
    for (Py_ssize_t i = from; i < to; i += QUAD) {
        const double *x[QUAD];
        double w[QUAD];
        for (Py_ssize_t r = 0; r < QUAD; r++) {
            const int inside = i + r < to;
            x[r] = row(&a->x, inside ? i + r : to - 1, rows + r * n);
            w[r] = !inside ? 0.0 : a->weight ? a->weight[i + r] : 1.0;
        }
        const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
        const double w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
        if (a->shift) {
            const double *scale = a->scale, *shift = a->shift;
#pragma omp simd
            for (Py_ssize_t c = 0; c < n; c++) {
                const double t0 = scale[c] * x0[c] - shift[c], t1 = scale[c] * x1[c] - shift[c];
                const double t2 = scale[c] * x2[c] - shift[c], t3 = scale[c] * x3[c] - shift[c];
                g[c] += (w0 * t0 * t0 + w1 * t1 * t1) + (w2 * t2 * t2 + w3 * t3 * t3);
                g[n + c] += (w0 * t0 + w1 * t1) + (w2 * t2 + w3 * t3);
            }
            continue;
        }
#pragma omp simd
        for (Py_ssize_t c = 0; c < n; c++) {
            g[c] += (w0 * x0[c] * x0[c] + w1 * x1[c] * x1[c]) + (w2 * x2[c] * x2[c] + w3 * x3[c] * x3[c]);
        }
    }
}

/* Add those of rows that are about to be packed, and so are in the outer cache, to the sums of a product. */
TARGET static void NAMED(spread_rows)(const Gram *a, Py_ssize_t from, Py_ssize_t to) {
    const Py_ssize_t size = 2 * a->x.n;
    double *sums = a->spread_sums + size;
    memset(sums, 0, sizeof(double) * size);
    NAMED(squares_group)(a->spread, from, to, sums, sums + size);
    for (Py_ssize_t c = 0; c < size; c++) a->spread_sums[c] += sums[c];
}

/* ---- Gram matrix of [1 | X | Y] and products of packed rows ---- */

#define KIND gram32_
#define T float
#define WIDTH 16
#include "_gram.inc"
#include "_cholesky.inc"
#undef KIND
#undef T
#undef WIDTH

#define KIND gram64_
#define T double
#define WIDTH 8
#include "_gram.inc"
#include "_cholesky.inc"
#undef KIND
#undef T
#undef WIDTH

/* ---- residual pass for more vectors: the products are tiles of packed rows, as in the Gram matrix ---- */

/* Turn products X V of rows from i into weighted residuals, and leave the plain ones where there are weights. */
TARGET static void NAMED(panel_residuals)(const Residual *a, Py_ssize_t i, Py_ssize_t depth, double *weighted,
                                          double *plain, double *sums) {
    for (Py_ssize_t p = 0; p < panels_of(a->q); p++) {
        const Py_ssize_t first = p * PANEL, width = a->q - first < PANEL ? a->q - first : PANEL;
        const Py_ssize_t targets = a->y.n - first < width ? a->y.n - first : width;
        double scale[PANEL] = {0}, offset[PANEL] = {0}, total[PANEL] = {0}, squares[PANEL] = {0};
        for (Py_ssize_t v = 0; v < width; v++) offset[v] = a->offset[first + v];
        for (Py_ssize_t v = 0; v < targets; v++) scale[v] = a->y_scale[first + v];
        for (Py_ssize_t r = 0; r < depth; r++) {
            double *t = weighted + (p * APART + r) * PANEL, y[PANEL] = {0};
            const Py_ssize_t at = (i + r) * a->y.n + first;
            const double w = a->weight ? a->weight[i + r] : 1.0;
            if (a->y.single) {
                for (Py_ssize_t v = 0; v < targets; v++) y[v] = ((const float *)a->y.values)[at + v];
            } else if (targets == PANEL) {
                memcpy(y, (const double *)a->y.values + at, sizeof y);
            } else {
                for (Py_ssize_t v = 0; v < targets; v++) y[v] = ((const double *)a->y.values)[at + v];
            }
            for (int v = 0; v < PANEL; v++) y[v] = scale[v] * y[v] - offset[v] - t[v];
            if (a->weight) memcpy(plain + (p * APART + r) * PANEL, y, sizeof y);
            for (int v = 0; v < PANEL; v++) {
                t[v] = w * y[v];
                total[v] += t[v];
                squares[v] += y[v] * t[v];
            }
        }
        for (Py_ssize_t v = 0; v < width; v++) {
            sums[first + v] += total[v];
            sums[a->q + first + v] += squares[v];
        }
    }
}

/* Add left' right to tiles, the panels of the right in the outer loop; of a symmetric product the upper ones do. */
TARGET static void NAMED(panel_products)(const double *left, Py_ssize_t left_panels, const double *right,
                                         Py_ssize_t right_panels, Py_ssize_t depth, int symmetric, double *tiles,
                                         Ahead *ahead) {
    for (Py_ssize_t o = 0; o < right_panels; o += RIGHT) {
        const int count = right_panels - o < RIGHT ? (int)(right_panels - o) : RIGHT;
        const Py_ssize_t end = symmetric ? o + count : left_panels;
        for (Py_ssize_t p = 0; p < end; p++) {
            void *out[RIGHT] = {NULL};
            for (int j = 0; j < count; j++) out[j] = tiles + (p * right_panels + o + j) * PANEL * PANEL;
            NAMED(gram64_tiles)(count, left + p * APART * PANEL, right + o * APART * PANEL, depth, out, ahead);
        }
    }
}

TARGET static void NAMED(residual_panels)(Residual *a) {
    const Py_ssize_t n = a->x.n, q = a->q, k = a->group ? a->y.n : 0, group = a->group;
    const Py_ssize_t panels = panels_of(n), vectors = panels_of(q), rows = APART * PANEL;
    const Py_ssize_t tiles = panels * vectors * PANEL * PANEL;
    Py_ssize_t gram_tiles = 0;
    for (Py_ssize_t from = 0; from < k; from += group) {
        const Py_ssize_t targets = panels_of(k - from < group ? k - from : group);
        gram_tiles += targets * targets * PANEL * PANEL;
    }
    const Py_ssize_t others = panels_of(a->beside.n), other_tiles = others * vectors * PANEL * PANEL;
    const Py_ssize_t size = tiles + gram_tiles + other_tiles + rows * (panels + 2 * vectors + others);
    /* Packed rows that the outer caches hold. */
    const Py_ssize_t step = n > 4096 ? DEPTH / 8 : DEPTH;
    double *memory = aligned(sizeof(double) * size);
    if (!memory) {
        a->share.failed = 1;
        return;
    }
    double *g = memory, *gram = g + tiles, *h = gram + gram_tiles, *x = h + other_tiles, *weighted = x + rows * panels;
    double *plain = a->weight ? weighted + rows * vectors : weighted, *beside = weighted + 2 * rows * vectors;
    double *sums = a->share.g + q * n;
    memset(g, 0, sizeof(double) * (tiles + gram_tiles + other_tiles));
    const Gram packing = {.x = a->x, .columns = n, .y_from = n, .to = a->share.to};
    const Gram packing_beside = {
        .x = a->beside, .x_scale = a->beside_scale, .columns = a->beside.n, .y_from = a->beside.n, .to = a->share.to};
    /* Steps for a row: of its products with the vectors, and of the residuals with it. */
    const Py_ssize_t turns = (vectors + RIGHT - 1) / RIGHT, steps = turns * panels * PANEL / TILE;
    const Py_ssize_t back = (panels + RIGHT - 1) / RIGHT * vectors * (PANEL / TILE);
    for (Py_ssize_t i = a->share.from; i < a->share.to; i += step) {
        const Py_ssize_t depth = a->share.to - i < step ? a->share.to - i : step;
        Ahead ahead = rows_ahead(&packing, i, depth, (steps + back) * depth);
        NAMED(gram64_pack)(&packing, i, depth, panels, x);
        NAMED(gram64_multiply)(x, a->panels, depth, panels, vectors, 0, weighted, &ahead);
        NAMED(panel_residuals)(a, i, depth, weighted, plain, sums);
        NAMED(panel_products)(weighted, vectors, x, panels, depth, 0, g, &ahead);
        if (others) {
            NAMED(gram64_pack)(&packing_beside, i, depth, others, beside);
            NAMED(panel_products)(weighted, vectors, beside, others, depth, 0, h, &ahead);
        }
        double *tile = gram;
        for (Py_ssize_t from = 0; from < k; from += group) {
            const Py_ssize_t targets = panels_of(k - from < group ? k - from : group), at = from / PANEL * rows;
            NAMED(panel_products)(weighted + at, targets, plain + at, targets, depth, 1, tile, &ahead);
            tile += targets * targets * PANEL * PANEL;
        }
    }
    add_tiles(g, q, n, a->share.g);
    double *tile = gram, *out = sums + 2 * q;
    for (Py_ssize_t from = 0; from < k; from += group) {
        const Py_ssize_t width = k - from < group ? k - from : group;
        add_symmetric_tiles(tile, width, out);
        tile += panels_of(width) * panels_of(width) * PANEL * PANEL;
        out += width * width;
    }
    add_tiles(h, q, a->beside.n, out);
    free(memory);
}

TARGET static void *NAMED(residual_worker)(void *argument) {
    Residual *a = argument;
    if (a->panels) {
        NAMED(residual_panels)(a);
    } else {
        const Py_ssize_t n = a->x.n, size = a->q * (n + 2) + gram_numbers(a->y.n, a->group);
        sum_groups(a, NAMED(residual_group), GROUP, size, 0, ROWS * n);
    }
    return NULL;
}

TARGET static void *NAMED(squares_worker)(void *argument) {
    const Squares *a = argument;
    const Py_ssize_t n = a->x.n;
    sum_groups(argument, NAMED(squares_group), GROUP, a->shift ? 2 * n : n, 0, QUAD * n);
    return NULL;
}

/* ---- residual pass in expansions ---- */

/* Load up to a register full; the rest is zero. */
INLINE void NAMED(load)(NAMED(vector) *values, const double *from, Py_ssize_t count) {
    if (count >= LANES) {
        memcpy(values, from, sizeof *values);
        return;
    }
    memset(values, 0, sizeof *values);
    memcpy(values, from, sizeof(double) * count);
}

TARGET static void NAMED(expansion_dot)(const double *const *x, const double *v, Py_ssize_t part, Py_ssize_t n,
                                        double t[QUAD][3]) {
    NAMED(vector) s[QUAD] = {{0}}, e[QUAD] = {{0}}, f[QUAD] = {{0}};
    for (Py_ssize_t c = 0; c < n; c += LANES) {
        NAMED(vector) v0, v1, v2;
        NAMED(load)(&v0, v + c, n - c);
        NAMED(load)(&v1, v + part + c, n - c);
        NAMED(load)(&v2, v + 2 * part + c, n - c);
        for (int r = 0; r < QUAD; r++) {
            NAMED(vector) a, p, q = {0}, b, last = {0}, z;
            NAMED(load)(&a, x[r] + c, n - c);
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

TARGET static void NAMED(expansion_adjoint)(const double *const *x, double t[QUAD][3], Py_ssize_t part, Py_ssize_t n,
                                            double *g) {
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

TARGET static void NAMED(expansion_group)(const void *self, Py_ssize_t from, Py_ssize_t to, double *g, double *rows) {
    const Expansion *a = self;
    const Py_ssize_t n = a->x.n, q = a->q, part = q * (n + 1);
    for (Py_ssize_t i = from; i < to; i += QUAD) {
        const Py_ssize_t left = to - i < QUAD ? to - i : QUAD;
        const double *x[QUAD];
        /* Past the end the last row stands in with a residual of zero. */
        for (Py_ssize_t r = 0; r < QUAD; r++) x[r] = row(&a->x, r < left ? i + r : to - 1, rows + r * n);
        for (Py_ssize_t j = 0; j < q; j++) {
            double t[QUAD][3] = {{0}};
            NAMED(expansion_dot)(x, a->v + j * n, q * n, n, t);
            for (Py_ssize_t r = 0; r < QUAD; r++) {
                if (r >= left) {
                    t[r][0] = t[r][1] = t[r][2] = 0.0;
                    continue;
                }
                const double w = a->weight ? a->weight[i + r] : 1.0;
                add_parts(t[r], 1, a->y_scale[j] * number(a->y.values, a->y.single, (i + r) * q + j), 0.0, 0.0);
                add_parts(t[r], 1, -a->offset[j], -a->offset[q + j], -a->offset[2 * q + j]);
                renormalise(t[r]);
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
                    renormalise(t[r]);
                }
                add_parts(g + q * n + j, part, t[r][0], t[r][1], t[r][2]);
            }
            NAMED(expansion_adjoint)(x, t, part, n, g + j * n);
        }
    }
}

TARGET static void *NAMED(expansion_worker)(void *argument) {
    const Expansion *a = argument;
    const Py_ssize_t n = a->x.n, part = a->q * (n + 1);
    sum_groups(argument, NAMED(expansion_group), EXPANSION_GROUP, 3 * part + a->q, part, QUAD * n);
    return NULL;
}

/* ---- sparse sign sketch ---- */

TARGET static void NAMED(sketch_columns)(const Sketch *a) {
    const Py_ssize_t n = a->x.n, width = a->to - a->from;
    for (Py_ssize_t i = 0; i < a->x.m; i++) {
        for (Py_ssize_t z = 0; z < a->nonzeros; z++) {
            const double f = a->factor[i * a->nonzeros + z];
            double *s = a->sketch + (Py_ssize_t)a->target[i * a->nonzeros + z] * n + a->from;
            if (a->x.single) {
                const float *x = (const float *)a->x.values + i * a->x.ld + a->from;
#pragma omp simd
                for (Py_ssize_t c = 0; c < width; c++) s[c] += f * x[c];
            } else {
                const double *x = (const double *)a->x.values + i * a->x.ld + a->from;
#pragma omp simd
                for (Py_ssize_t c = 0; c < width; c++) s[c] += f * x[c];
            }
        }
    }
}

TARGET static void *NAMED(sketch_worker)(void *argument) {
    NAMED(sketch_columns)(argument);
    return NULL;
}

/* ---- solutions with an upper triangle, each row of which is read once for a few vectors ---- */

/* Replace vectors, rows of v, by the solutions of R'y = v. */
TARGET static void NAMED(solve_forward)(const double *R, Py_ssize_t n, double *v, int count) {
    for (Py_ssize_t i = 0; i < n; i += ROWS) {
        const int rows = n - i < ROWS ? (int)(n - i) : ROWS;
        const Py_ssize_t rest = n - i - rows;
        double t[FEW][ROWS] = {{0}};
        const double *x[ROWS];
        for (int j = 0; j < count; j++) {
            for (int r = 0; r < rows; r++) {
                double sum = v[j * n + i + r];
                for (int s = 0; s < r; s++) sum += t[j][s] * R[(i + s) * n + i + r];
                v[j * n + i + r] = sum / R[(i + r) * n + i + r];
                t[j][r] = -v[j * n + i + r];
            }
        }
        if (!rest) break;
        for (int r = 0; r < ROWS; r++) x[r] = R + (i + r) * n + i + ROWS;
        BY_THREE(count, NAMED(add_rows), x, t, rest, n, ROWS * n, v + i + ROWS);
    }
}

/* Replace vectors, rows of v, by the solutions of R y = v. */
TARGET static void NAMED(solve_backward)(const double *R, Py_ssize_t n, double *v, int count) {
    for (Py_ssize_t i = (n - 1) / ROWS * ROWS; i >= 0; i -= ROWS) {
        const int rows = n - i < ROWS ? (int)(n - i) : ROWS;
        const Py_ssize_t rest = n - i - rows;
        double t[FEW][ROWS] = {{0}};
        const double *x[ROWS];
        if (rest) {
            for (int r = 0; r < ROWS; r++) x[r] = R + (i + r) * n + i + ROWS;
            BY_THREE(count, NAMED(dots), x, v + i + ROWS, rest, n, t);
        }
        for (int j = 0; j < count; j++) {
            for (int r = rows - 1; r >= 0; r--) {
                double sum = v[j * n + i + r] - t[j][r];
                for (int s = r + 1; s < rows; s++) sum -= R[(i + r) * n + i + s] * v[j * n + i + s];
                v[j * n + i + r] = sum / R[(i + r) * n + i + r];
            }
        }
    }
}

/* Set out to M v for vectors v, rows of both, or add M'v or M'M v to it. Of an upper triangle what stands below its
   diagonal is not read. */
TARGET static void NAMED(matrix_product)(const Matrix *a, const double *v, double *out, int count) {
    const Py_ssize_t m = a->m, n = a->n;
    for (Py_ssize_t i = 0; i < m; i += ROWS) {
        const Py_ssize_t rows = m - i < ROWS ? m - i : ROWS, first = a->upper ? i : 0;
        double t[FEW][ROWS] = {{0}};
        const double *x[ROWS];
        /* Past the end the last row stands in, times zero. */
        for (Py_ssize_t r = 0; r < ROWS; r++) x[r] = a->values + (r < rows ? i + r : m - 1) * n + first;
        if (a->images) BY_THREE(count, NAMED(dots), x, v + first, n - first, n, t);
        for (int j = 0; j < count; j++) {
            for (Py_ssize_t r = 0; r < rows; r++) {
                if (!a->images) t[j][r] = v[j * m + i + r];
                if (!a->back) out[j * m + i + r] = t[j][r];
            }
            for (Py_ssize_t r = rows; r < ROWS; r++) t[j][r] = 0.0;
        }
        if (a->back) BY_THREE(count, NAMED(add_rows), x, t, n - first, n, ROWS * n, out + first);
    }
}

#include "_householder.inc"

static const Loops NAMED(loops) = {
    NAMED(residual_worker), NAMED(loss_worker), NAMED(curved_worker), NAMED(squares_worker), NAMED(gram32_worker),
    NAMED(gram64_worker), NAMED(expansion_worker), NAMED(sketch_worker), NAMED(gram32_cholesky_worker), NAMED(gram64_cholesky_worker),
    NAMED(solve_forward), NAMED(solve_backward), NAMED(matrix_product), NAMED(triangles), VECTOR, RIGHT,
};

#undef LANES
#undef INLINE
#undef LOAD
#undef SUFFIX
#undef TARGET
#undef VECTOR
#undef ROWS
#undef TILE
#undef RIGHT
#undef BY_COUNT
