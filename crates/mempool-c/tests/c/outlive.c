/* A thread that lives through the end of several pools: it goes on with the new one, and the old ones go back to the
 * system. */
#include <pthread.h>
#include <stdio.h>

#include "check.h"

#define LIVES 60

static pthread_barrier_t barrier;
static mp_cache_t cache;

static void *outlive(void *unused) {
    int i;
    (void)unused;
    for (i = 0; i < LIVES; i++) {
        void *object, *large, *item, *array;
        pthread_barrier_wait(&barrier);
        object = mp_malloc(100), large = mp_malloc(100000);
        item = mp_cache_alloc(&cache), array = mp_cache_alloc_array(&cache, 5);
        CHECK(mempool_contains(object) && mempool_contains(large) && mempool_contains(item) && mempool_contains(array));
        CHECK(mp_cache_live(&cache) == 6);
        mp_free(object), mp_free(large);
        mp_cache_free(&cache, item), mp_cache_free_array(&cache, array, 5);
        CHECK(live_objects() == 0);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* KiB of the process's addresses, or of what it has locked. */
static long kib(const char *format) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[200];
    long found = -1;
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        sscanf(line, format, &found);
    }
    if (status != NULL) {
        fclose(status);
    }
    return found;
}

int main(void) {
    pthread_t thread;
    long size = 0, locked = 0;
    int i;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, outlive, NULL) == 0);
    for (i = 0; i < LIVES; i++) {
        CHECK(mempool_init() == MEMPOOL_OK);
        mp_cache_init_impl(&cache, "shared", 64);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        mempool_fini();
        if (i == 1) {
            size = kib("VmSize: %ld"), locked = kib("VmLck: %ld");
        }
    }
    /* What stays of each pool is the thread's local heap. */
    CHECK(size > 0 && kib("VmSize: %ld") - size < LIVES * 64);
    CHECK(locked >= 0 && kib("VmLck: %ld") - locked < LIVES * 64);
    CHECK(pthread_join(thread, NULL) == 0);
    return done();
}
