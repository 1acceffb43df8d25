/* The Gram matrix of rows rounded to bfloat16 where the processor multiplies matrices (AMX): a unit beside the vectors
   holds eight tiles of 1 KiB and takes sixteen cycles for 16 x 16 sums of 32 products each. Included by _loops.c, after
   _bfloat16.h. */

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MATRIX_TILES __attribute__((target(AVX512 ",avx512bf16,amx-tile,amx-bf16")))
#define STEP 32                  /* rows of one product of tiles */
#define STEPS (2 * DEPTH / STEP) /* products for which sums stay in registers; two panels of so many fill the inner cache */
#define LEFT_PANELS 16           /* which the outer cache holds beside those that pass by */
#define TILE_PAIRS 256           /* in a tile of 16 x 16 */

/* Whether the processor has the unit. */
static int has_matrix_tiles(void) {
    enum { BFLOAT16_BIT = 1 << 22, TILE_BIT = 1 << 24 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & BFLOAT16_BIT) && (d & TILE_BIT);
}

/* Ask the kernel for its registers, which it gives to processes that have asked: signals then need larger stacks, so
   none asks before it multiplies. */
static int matrix_tiles_given(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* Transpose 16 x 16 pairs. */
MATRIX_TILES static void transpose_pairs(const Pair *from, Pair *to) {
    __m512i row[16], four[16];
    for (int i = 0; i < 16; i++) row[i] = _mm512_load_si512(from + 16 * i);
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(row[i], row[i + 1]), b = _mm512_unpackhi_epi32(row[i], row[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(row[i + 2], row[i + 3]);
        const __m512i d = _mm512_unpackhi_epi32(row[i + 2], row[i + 3]);
        four[i] = _mm512_unpacklo_epi64(a, c);
        four[i + 1] = _mm512_unpackhi_epi64(a, c);
        four[i + 2] = _mm512_unpacklo_epi64(b, d);
        four[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int v = 0; v < 4; v++) {
        const __m512i a = _mm512_shuffle_i32x4(four[v], four[v + 4], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(four[v], four[v + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(four[v + 8], four[v + 12], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(four[v + 8], four[v + 12], 0xdd);
        _mm512_store_si512(to + 16 * v, _mm512_shuffle_i32x4(a, c, 0x88));
        _mm512_store_si512(to + 16 * (v + 4), _mm512_shuffle_i32x4(b, d, 0x88));
        _mm512_store_si512(to + 16 * (v + 8), _mm512_shuffle_i32x4(a, c, 0xdd));
        _mm512_store_si512(to + 16 * (v + 12), _mm512_shuffle_i32x4(b, d, 0xdd));
    }
}

/* Two panels on the left, transposed, two on the right, and the four tiles of sums of their products. */
typedef struct {
    const Pair *left[2], *right[2];
    float *out[4];
} Quad;

/* Add the products to the sums, while those of the next are fetched. */
MATRIX_TILES static void multiply_tiles(const Quad *this, const Quad *next, int steps) {
    /* The intrinsics do not tell the compiler that they read memory. */
    __asm__ volatile("" ::: "memory");
    _tile_loadd(0, this->out[0], 64);
    _tile_loadd(1, this->out[1], 64);
    _tile_loadd(2, this->out[2], 64);
    _tile_loadd(3, this->out[3], 64);
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < 4; i++) __builtin_prefetch(next->out[i] + s * 16, 1, 3);
        _tile_loadd(4, this->left[0] + s * TILE_PAIRS, 64);
        _tile_loadd(6, this->right[0] + s * TILE_PAIRS, 64);
        _tile_loadd(7, this->right[1] + s * TILE_PAIRS, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, this->left[1] + s * TILE_PAIRS, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, this->out[0], 64);
    _tile_stored(1, this->out[1], 64);
    _tile_stored(2, this->out[2], 64);
    _tile_stored(3, this->out[3], 64);
}

/* Add the products of all panels to the sums of the upper triangle, two by two; what has no place goes to `unused`.
   Some panels on the left stay in the outer cache while those on the right pass by. */
MATRIX_TILES static void add_upper_tiles(const Pair *left, const Pair *right, int steps, Py_ssize_t panels,
                                         Py_ssize_t x_panels, float *sums, float *unused) {
    Quad this, next;
    int begun = 0;
    for (Py_ssize_t from = 0; from < x_panels; from += LEFT_PANELS) {
        const Py_ssize_t to = from + LEFT_PANELS < x_panels ? from + LEFT_PANELS : x_panels;
        for (Py_ssize_t q = from; q < panels; q += 2) {
            for (Py_ssize_t p = from; p < to && p <= q; p += 2) {
                for (int i = 0; i < 2; i++) {
                    next.left[i] = left + (p + i < panels ? p + i : p) * STEPS * TILE_PAIRS;
                    next.right[i] = right + (q + i < panels ? q + i : q) * STEPS * TILE_PAIRS;
                    for (int j = 0; j < 2; j++) {
                        const int counts = p + i < x_panels && q + j < panels && p + i <= q + j;
                        next.out[2 * i + j] = counts ? sums + tile_of(p + i, q + j, x_panels) * 256 : unused;
                    }
                }
                if (begun) multiply_tiles(&this, &next, steps);
                this = next;
                begun = 1;
            }
        }
    }
    if (begun) multiply_tiles(&this, &this, steps);
}

MATRIX_TILES static void *matrix_tiles_worker(void *argument) {
    Gram *a = argument;
    const Py_ssize_t panels = (a->y_from + a->y.n + 15) / 16, x_panels = (a->columns + 15) / 16;
    const size_t side = sizeof(Pair) * panels * STEPS * TILE_PAIRS;
    float *packed = aligned(sizeof(float) * (panels * APART * 16 + TILE_PAIRS));
    Pair *left = aligned(2 * side), *right = left + panels * STEPS * TILE_PAIRS;
    if (!packed || !left) {
        free(packed);
        free(left);
        a->failed = 1;
        return NULL;
    }
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((packed, aligned(64))) shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    _tile_loadconfig(&shapes);
    memset(a->sums, 0, a->bytes);
    float *unused = packed + panels * APART * 16;
    memset(unused, 0, sizeof(float) * TILE_PAIRS);
    for (Py_ssize_t i = a->from; i < a->to; i += STEPS * STEP) {
        const Py_ssize_t rows = a->to - i < STEPS * STEP ? a->to - i : STEPS * STEP;
        const int steps = (int)((rows + STEP - 1) / STEP);
        for (int s = 0; s < steps; s++) {
            const Py_ssize_t depth = rows - s * STEP < STEP ? rows - s * STEP : STEP;
            gram32_pack_512(a, i + s * STEP, depth, panels, packed);
            for (Py_ssize_t p = 0; p < panels; p++) {
                float *panel = packed + p * APART * 16;
                Pair *at = right + (p * STEPS + s) * TILE_PAIRS;
                memset(panel + depth * 16, 0, sizeof(float) * (STEP - depth) * 16);
                pair_rows(panel, STEP, 1, at);
                transpose_pairs(at, left + (p * STEPS + s) * TILE_PAIRS);
            }
        }
        add_upper_tiles(left, right, steps, panels, x_panels, a->sums, unused);
    }
    _tile_release();
    free(packed);
    free(left);
    return NULL;
}
