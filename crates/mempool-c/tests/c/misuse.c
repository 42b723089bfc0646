/* One wrong thing each, named by the first argument. Ends with status 99 if it goes unnoticed. */
#include "check.h"
#include <pthread.h>

struct request {
    char bytes[64];
};

static mp_cache_t requests, replies;
static char *object;

static void *free_object(void *argument) {
    mp_free(object);
    return argument;
}

static void with_caches(void) {
    mp_cache_init(&requests, struct request);
    mp_cache_init_impl(&replies, "reply", 64);
}

static void objects(const char *what) {
    char local[64];
    object = mp_malloc(64);
    if (!strcmp(what, "double-free")) {
        mp_free(object), mp_free(object);
    } else if (!strcmp(what, "double-free-late")) {
        void *more = mp_malloc(64);
        mp_free(object), mp_free(more), mp_free(object);
    } else if (!strcmp(what, "double-free-thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, free_object, NULL);
        pthread_join(thread, NULL);
        mp_free(object);
    } else if (!strcmp(what, "double-free-large")) {
        object = mp_malloc(100000);
        mp_free(object), mp_free(object);
    } else if (!strcmp(what, "interior")) {
        mp_free(object + 16);
    } else if (!strcmp(what, "misaligned")) {
        mp_free(object + 1);
    } else if (!strcmp(what, "interior-large")) {
        object = mp_malloc(100000);
        mp_free(object + 4096);
    } else if (!strcmp(what, "stack")) {
        mp_free(local);
    } else if (!strcmp(what, "static")) {
        mp_free(&requests);
    } else if (!strcmp(what, "libc")) {
        mp_free(malloc(64));
    } else if (!strcmp(what, "realloc-freed")) {
        mp_free(object);
        object = mp_realloc(object, 1000);
    } else if (!strcmp(what, "realloc-stack")) {
        object = mp_realloc(local, 1000);
    } else if (!strcmp(what, "usable-freed")) {
        mp_free(object);
        exit(mp_usable_size(object) == 0);
    } else if (!strcmp(what, "cache-item")) {
        with_caches();
        mp_free(mp_cache_alloc(&requests));
    }
}

static void caches(const char *what) {
    struct request *item, *array;
    mp_cache_t copy;
    with_caches();
    item = mp_cache_alloc(&requests);
    array = mp_cache_alloc_array(&requests, 10);
    if (!strcmp(what, "cache-double-free")) {
        mp_cache_free(&requests, item), mp_cache_free(&requests, item);
    } else if (!strcmp(what, "cache-wrong")) {
        mp_cache_free(&replies, item);
    } else if (!strcmp(what, "cache-object")) {
        mp_cache_free(&requests, mp_malloc(64));
    } else if (!strcmp(what, "cache-run")) {
        mp_cache_free(&requests, mp_malloc(100000));
    } else if (!strcmp(what, "cache-foreign")) {
        mp_cache_free(&requests, &copy);
    } else if (!strcmp(what, "cache-interior")) {
        mp_cache_free(&requests, item->bytes + 8);
    } else if (!strcmp(what, "array-less")) {
        mp_cache_free_array(&requests, array, 9);
    } else if (!strcmp(what, "array-more")) {
        mp_cache_free_array(&requests, array, 11);
    } else if (!strcmp(what, "array-single")) {
        mp_cache_free(&requests, array);
    } else if (!strcmp(what, "array-double-free")) {
        mp_cache_free_array(&requests, array, 10), mp_cache_free_array(&requests, array, 10);
    } else if (!strcmp(what, "cache-destroyed")) {
        mp_cache_free(&requests, item), mp_cache_free_array(&requests, array, 10);
        mp_cache_destroy(&requests);
        item = mp_cache_alloc(&requests);
    } else if (!strcmp(what, "cache-destroyed-twice")) {
        mp_cache_destroy(&replies), mp_cache_destroy(&replies);
    } else if (!strcmp(what, "cache-live")) {
        mp_cache_destroy(&requests);
    } else if (!strcmp(what, "cache-twice")) {
        mp_cache_init(&requests, int);
    } else if (!strcmp(what, "cache-name")) {
        mp_cache_init_impl(&copy, "a name that has more than 31 bytes", 8);
    } else if (!strcmp(what, "cache-size-0")) {
        mp_cache_init_impl(&copy, "nothing", 0);
    } else if (!strcmp(what, "cache-size-large")) {
        mp_cache_init_impl(&copy, "huge", (1 << 20) + 1);
    } else if (!strcmp(what, "cache-align")) {
        mp_cache_init_aligned(&copy, "crooked", 8, 24);
    } else if (!strcmp(what, "cache-no-name")) {
        mp_cache_init_impl(&copy, NULL, 8);
    } else if (!strcmp(what, "cache-after-fini")) {
        mempool_fini_quiet(NULL, NULL);
        item = mp_cache_alloc(&requests);
    } else if (!strcmp(what, "cache-of-older-pool")) {
        mempool_fini_quiet(NULL, NULL);
        make_pool(MEMPOOL_EXHAUSTED_ABORT, 4 << 20);
        mp_cache_free(&requests, item);
    }
}

static void pools(const char *what) {
    volatile size_t max = SIZE_MAX;
    static mp_cache_t never = MP_CACHE_INITIALIZER;
    if (!strcmp(what, "after-fini-malloc")) {
        mempool_fini();
        object = mp_malloc(10);
    } else if (!strcmp(what, "after-fini-free")) {
        object = mp_malloc(10);
        mempool_fini_quiet(NULL, NULL);
        mp_free(object);
    } else if (!strcmp(what, "after-fini-init")) {
        mempool_fini();
        mp_cache_init(&never, int);
    } else if (!strcmp(what, "never-initialised")) {
        object = mp_cache_alloc(&never);
    } else if (!strcmp(what, "null-cache")) {
        object = mp_cache_alloc(NULL);
    } else if (!strcmp(what, "garbage-cache")) {
        memset(&never, 0x5A, sizeof never);
        mp_cache_free(&never, NULL);
    } else if (!strcmp(what, "too-much")) {
        object = mp_malloc(8 << 20);
    } else if (!strcmp(what, "overflow")) {
        object = mp_calloc(max, 2);
    } else if (!strcmp(what, "too-many-items")) {
        mp_cache_init(&requests, struct request);
        object = mp_cache_alloc_array(&requests, 1000000);
    } else if (!strcmp(what, "leaks")) {
        with_caches();
        object = mp_malloc(100), object = mp_malloc(100), object = mp_malloc(48), object = mp_malloc(50000);
        object = mp_cache_alloc(&requests), object = mp_cache_alloc_array(&replies, 7);
        mempool_fini();
    } else if (!strcmp(what, "names")) {
        mp_cache_init_impl(&requests, "a\n\x1b[1mb\xc3\xa9", 64);
        object = mp_cache_alloc(&requests);
        mp_stats_print(2);
        mp_verdict_print(2, (size_t)1 << 30);
        mempool_clear_error();
        mp_cache_try_init(&requests, "again", 64, 0);
        fprintf(stderr, "%s\n", mempool_last_error());
        mempool_fini();
        mp_cache_alloc(&requests);
    } else if (!strcmp(what, "names-free")) {
        mp_cache_init_impl(&requests, "a\n\x1b[1mb\xc3\xa9", 64);
        mp_free(mp_cache_alloc(&requests));
    } else if (!strcmp(what, "no-leaks")) {
        mp_free(mp_malloc(100));
        mempool_fini();
    }
}

int main(int count, char **arguments) {
    no_core_file();
    if (count == 2) {
        make_pool(MEMPOOL_EXHAUSTED_ABORT, 4 << 20);
        objects(arguments[1]);
        mp_free(mp_strdup(""));
        if (!strncmp(arguments[1], "cache-", 6) || !strncmp(arguments[1], "array-", 6)) {
            caches(arguments[1]);
        }
        mempool_fini_quiet(NULL, NULL);
        make_pool(MEMPOOL_EXHAUSTED_ABORT, 4 << 20);
        pools(arguments[1]);
    }
    return 99;
}
