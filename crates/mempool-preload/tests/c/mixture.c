/* Threads that allocate by every function, in sizes from 8 bytes to 2 MiB, free what others allocated, and look at every object's
 * content before it goes: nothing is handed out twice, moved without its content, not zero, or not aligned. A refusal is no fault.
 *
 *     mixture THREADS OPERATIONS SEED */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>

#include "check.h"

enum { SLOTS = 4096, WHOLE = 4096, STEP = 997, ROUNDS = 3 };

static unsigned char *_Atomic slots[SLOTS];
static long operations;
static uint64_t seed;

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static unsigned char mark(size_t n) { return (unsigned char)(n * 31 + 7); }
static size_t step(size_t n) { return n <= WHOLE ? 1 : STEP; }

/* Its size, then the same byte everywhere, or in large ones here and there. */
static void fill(unsigned char *p, size_t n) {
    memcpy(p, &n, sizeof n);
    for (size_t i = sizeof n; i < n; i += step(n)) p[i] = mark(n);
}

/* Whether the first `upto` bytes are those of an object of `n`. */
static int holds(const unsigned char *p, size_t n, size_t upto) {
    for (size_t i = sizeof n; i < upto; i += step(n)) {
        if (p[i] != mark(n)) return 0;
    }
    return 1;
}

static size_t size_in(const unsigned char *p) {
    size_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static void drop(unsigned char *p) {
    if (!p) return;
    CHECK(holds(p, size_in(p), size_in(p)));
    free(p);
}

static unsigned char *moved(unsigned char *old, size_t n) {
    size_t before = size_in(old);
    unsigned char *p = realloc(old, n);
    if (!p) return old;
    CHECK(size_in(p) == before && holds(p, before, before < n ? before : n));
    fill(p, n);
    return p;
}

static unsigned char *made(uint64_t draw, size_t n) {
    void *p = NULL;
    size_t align = (size_t)16 << (draw >> 40) % 9;
    switch ((draw >> 12) % 8) {
    case 0:
        p = calloc(1, n);
        for (size_t i = 0; p && i < n; i += step(n)) {
            if (((unsigned char *)p)[i]) CHECK(!"zero");
        }
        break;
    case 1:
        if (posix_memalign(&p, align, n)) p = NULL;
        CHECK(ALIGNED(p, align));
        break;
    default: p = malloc(n);
    }
    if (p) {
        CHECK(malloc_usable_size(p) >= n);
        fill(p, n);
    }
    return p;
}

static void *work(void *argument) {
    uint64_t state = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15 + seed;
    for (long i = 0; i < operations; i++) {
        uint64_t draw = next(&state);
        unsigned share = (draw >> 20) % 100;
        size_t most = share < 70 ? 1000 : share < 90 ? 20000 : share < 99 ? 200000 : 2 << 20;
        size_t n = 8 + (draw >> 32) % most;
        unsigned char *p = __atomic_exchange_n(&slots[draw % SLOTS], NULL, __ATOMIC_ACQ_REL);
        if (p && (draw >> 16) % 8 == 0) {
            p = moved(p, n);
        } else {
            drop(p);
            p = made(draw, n);
        }
        drop(__atomic_exchange_n(&slots[(draw >> 5) % SLOTS], p, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    long threads = atol(argv[1]);
    operations = atol(argv[2]) / ROUNDS;
    seed = strtoull(argv[3], NULL, 10) | 1;
    pthread_t ids[64];
    for (long round = 0; round < ROUNDS; round++) {
        for (long i = 0; i < threads && i < 64; i++) {
            CHECK(pthread_create(&ids[i], NULL, work, (void *)(round * 64 + i + 1)) == 0);
        }
        for (long i = 0; i < threads && i < 64; i++) pthread_join(ids[i], NULL);
    }
    for (size_t i = 0; i < SLOTS; i++) drop(slots[i]);
    return report();
}
