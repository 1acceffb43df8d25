/* The Gram matrix of rows rounded to bfloat16: an instruction multiplies twice as many of them as of floats, and adds
   up in single precision. Included by _loops.c, after the loops for registers of 64 bytes. */

#include <immintrin.h>

#define BFLOAT16 __attribute__((target(AVX512 ",avx512bf16")))
#define PAIRS DEPTH /* pairs of rows that are multiplied at once */
#define PAIR_TILE 8 /* a tile of a product is so many rows of PAIR_RIGHT panels of sums in registers */
#define PAIR_RIGHT 3

/* Two rows' numbers in a column. */
typedef uint32_t Pair;

/* Round to nearest, ties to even: the upper half of a float. */
static inline Pair bfloat16_bits(const float *value) {
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Round packed rows and lay each two of them in one row of pairs. */
BFLOAT16 static void pair_rows(const float *packed, Py_ssize_t depth, Py_ssize_t panels, Pair *pairs) {
    const float zeros[16] = {0};
    for (Py_ssize_t p = 0; p < panels; p++) {
        for (Py_ssize_t r = 0; r < depth; r += 2) {
            const float *first = packed + (p * APART + r) * 16, *second = r + 1 < depth ? first + 16 : zeros;
            Pair *out = pairs + (p * APART + r / 2) * 16;
#pragma omp simd
            for (int v = 0; v < 16; v++) out[v] = bfloat16_bits(first + v) | bfloat16_bits(second + v) << 16;
        }
    }
}

static inline __attribute__((always_inline)) BFLOAT16 void pair_block(const int count, const Pair *left,
                                                                      const Pair *right, Py_ssize_t depth,
                                                                      float *const *out, Ahead *ahead) {
    __m512 s[PAIR_RIGHT][PAIR_TILE];
    for (int q = 0; q < count; q++)
        for (int i = 0; i < PAIR_TILE; i++) s[q][i] = _mm512_setzero_ps();
    const char *fetched = ahead->at;
    const Py_ssize_t on = ahead->step;
    for (Py_ssize_t k = 0; k < depth; k++, left += 16, right += 16) {
        __m512bh b[PAIR_RIGHT];
        __builtin_prefetch(fetched, 0, 2);
        fetched += on;
        for (int q = 0; q < count; q++) b[q] = (__m512bh)_mm512_load_si512(right + q * APART * 16);
        for (int i = 0; i < PAIR_TILE; i++) {
            const __m512bh a = (__m512bh)_mm512_set1_epi32((int)left[i]);
            for (int q = 0; q < count; q++) s[q][i] = _mm512_dpbf16_ps(s[q][i], a, b[q]);
        }
    }
    ahead->at = fetched;
    for (int q = 0; q < count; q++)
        for (int i = 0; i < PAIR_TILE; i++)
            _mm512_store_ps(out[q] + i * 16, _mm512_add_ps(_mm512_load_ps(out[q] + i * 16), s[q][i]));
}

BFLOAT16 static void pair_tiles(int count, const void *left, const void *right, Py_ssize_t depth, void *const *out,
                                Ahead *ahead) {
    for (int i = 0; i < 16; i += PAIR_TILE) {
        float *to[PAIR_RIGHT] = {NULL};
        for (int q = 0; q < count; q++) to[q] = (float *)out[q] + i * 16;
        BY_THREE(count, pair_block, (const Pair *)left + i, (const Pair *)right, depth, to, ahead);
    }
}

BFLOAT16 static void *gram16_worker(void *argument) {
    Gram *a = argument;
    const Py_ssize_t panels = (a->y_from + a->y.n + 15) / 16, x_panels = (a->columns + 15) / 16;
    float *packed = aligned(sizeof(float) * panels * APART * 16);
    Pair *pairs = aligned(sizeof(Pair) * panels * APART * 16);
    if (!packed || !pairs) {
        free(packed);
        free(pairs);
        a->failed = 1;
        return NULL;
    }
    memset(a->sums, 0, a->bytes);
    const Py_ssize_t calls = upper_calls(panels, x_panels, PAIR_RIGHT) * (16 / PAIR_TILE);
    for (Py_ssize_t i = a->from; i < a->to; i += 2 * PAIRS) {
        const Py_ssize_t rows = a->to - i < 2 * PAIRS ? a->to - i : 2 * PAIRS;
        for (Py_ssize_t r = 0; r < rows; r += DEPTH) {
            const Py_ssize_t depth = rows - r < DEPTH ? rows - r : DEPTH;
            gram32_pack_512(a, i + r, depth, panels, packed);
            pair_rows(packed, depth, panels, pairs + r / 2 * 16);
        }
        Ahead ahead = rows_ahead(a, i, rows, calls * ((rows + 1) / 2));
        add_upper(pair_tiles, pairs, (rows + 1) / 2, panels, x_panels, PAIR_RIGHT, a->sums, sizeof(float) * 16 * 16,
                  &ahead);
    }
    free(packed);
    free(pairs);
    return NULL;
}
