/* Random operations in several threads, each object filled with a pattern that is checked before it changes or goes:
 * nothing may be handed out twice, lost or altered. The first argument is the seed. */
#include "check.h"
#include <pthread.h>

#define THREADS 3
#define OBJECTS 400
#define STEPS 60000

struct object {
    unsigned char *bytes;
    size_t size;
    unsigned items; /* of the cache; 0: not of a cache */
    unsigned char pattern;
};

struct worker {
    pthread_t thread;
    struct object objects[OBJECTS];
    uint64_t seed;
    unsigned damaged, refused;
};

static mp_cache_t cache;
static struct worker workers[THREADS];

static unsigned next(struct worker *w, unsigned below) {
    w->seed ^= w->seed << 13, w->seed ^= w->seed >> 7, w->seed ^= w->seed << 17;
    return (unsigned)((w->seed >> 11) % below);
}

static size_t some_size(struct worker *w) {
    switch (next(w, 16)) {
    case 0: return 0;
    case 1: return next(w, 200000);
    case 2: return next(w, 20000);
    default: return next(w, 1 + (8u << next(w, 9)));
    }
}

static void check(struct worker *w, const struct object *o, size_t size) {
    size_t i;
    for (i = 0; i < size; i++) {
        if (o->bytes[i] != o->pattern) {
            w->damaged++;
            return;
        }
    }
}

static void fill(struct worker *w, struct object *o) {
    o->pattern = (unsigned char)next(w, 256);
    memset(o->bytes, o->pattern, o->size);
}

static void allocate(struct worker *w, struct object *o) {
    size_t size = some_size(w), i;
    o->items = 0;
    o->size = size;
    switch (next(w, 6)) {
    case 0:
        o->bytes = mp_calloc(1, size);
        for (i = 0; o->bytes != NULL && i < size; i++) {
            w->damaged += o->bytes[i] != 0;
        }
        break;
    case 1: {
        size_t alignment = (size_t)1 << next(w, 13);
        o->bytes = mp_try_aligned_alloc(alignment, size);
        w->damaged += (uintptr_t)o->bytes % alignment != 0;
        break;
    }
    case 2:
        o->items = next(w, 8) ? 1 : 1 + next(w, 200);
        o->bytes = o->items == 1 ? mp_cache_alloc(&cache) : mp_cache_alloc_array(&cache, o->items);
        o->size = o->items * cache.c_item_size;
        break;
    default:
        o->bytes = mp_malloc(size);
    }
    if (o->bytes == NULL) {
        w->refused++;
        return;
    }
    fill(w, o);
}

static void change(struct worker *w, struct object *o) {
    check(w, o, o->size);
    if (o->items == 0 && next(w, 3) == 0) {
        size_t size = some_size(w), kept = size < o->size ? size : o->size;
        unsigned char *moved = mp_realloc(o->bytes, size);
        if (moved == NULL) {
            w->refused++;
            return;
        }
        o->bytes = moved;
        check(w, o, kept);
        o->size = size;
        fill(w, o);
    } else {
        if (o->items > 0) {
            mp_cache_free_array(&cache, o->bytes, o->items);
        } else {
            mp_free(o->bytes);
        }
        o->bytes = NULL;
    }
}

static void *work(void *argument) {
    struct worker *w = argument;
    unsigned step, i;
    for (step = 0; step < STEPS; step++) {
        struct object *o = &w->objects[next(w, OBJECTS)];
        if (o->bytes == NULL) {
            allocate(w, o);
        } else {
            change(w, o);
        }
    }
    for (i = 0; i < OBJECTS; i++) {
        while (w->objects[i].bytes != NULL) {
            change(w, &w->objects[i]);
        }
    }
    return NULL;
}

int main(int count, char **arguments) {
    unsigned i, small;
    unsigned long seed = count > 1 ? strtoul(arguments[1], NULL, 10) : 1;
    for (small = MEMPOOL_SMALL_SLAB; small <= MEMPOOL_SMALL_HEAP; small++) {
        mempool_config_t config;
        CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
        config.segment = 12 << 20;
        config.small = (int)small;
        config.exhausted = MEMPOOL_EXHAUSTED_NULL;
        config.max_retries = 0;
        CHECK(mempool_init_config(&config) == MEMPOOL_OK);
        mp_cache_init_impl(&cache, "storm", 72);
        for (i = 0; i < THREADS; i++) {
            memset(&workers[i], 0, sizeof workers[i]);
            workers[i].seed = (seed * THREADS + i + 1) * 0x9E3779B97F4A7C15u;
            CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
        }
        for (i = 0; i < THREADS; i++) {
            CHECK(pthread_join(workers[i].thread, NULL) == 0);
            CHECK(workers[i].damaged == 0);
            CHECK(workers[i].refused < STEPS / 2);
        }
        CHECK(mp_cache_live(&cache) == 0);
        CHECK(live_objects() == 0);
        CHECK(mempool_verify() == MEMPOOL_OK);
        mp_cache_destroy(&cache);
        mempool_fini();
    }
    return done();
}
