/* Threads that live through the end of pools: they go on with the new one, and the old ones go back to the system, with what
 * stayed of them for a thread as soon as it ends or goes on. */
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Mappings of the process. */
static int mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    int count = 0, letter;
    while (maps != NULL && (letter = getc(maps)) != EOF) {
        count += letter == '\n';
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return count;
}

#define MANY 12

static pthread_barrier_t used, ended[MANY];
static int lasts;

/* Uses the pool, and ends when it is told to; some go on with the next pool before. */
static void *end_later(void *number) {
    int n = (int)(intptr_t)number;
    mp_free(mp_malloc(10 + n));
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&ended[n]);
    if (lasts && n % 3 == 0) {
        mp_free(mp_malloc(1000));
    }
    return NULL;
}

/* What is kept for threads lies side by side. They end in several orders, and some before the pool does. */
static void in_any_order(int round) {
    pthread_t threads[MANY];
    int i, n, before = round % 3;
    CHECK(mempool_init() == MEMPOOL_OK);
    CHECK(pthread_barrier_init(&used, NULL, MANY + 1) == 0);
    for (n = 0; n < MANY; n++) {
        CHECK(pthread_barrier_init(&ended[n], NULL, 2) == 0);
        CHECK(pthread_create(&threads[n], NULL, end_later, (void *)(intptr_t)n) == 0);
    }
    pthread_barrier_wait(&used);
    lasts = 0;
    for (i = 0; i < MANY; i++) {
        if (i == before) {
            mempool_fini();
            lasts = round % 2;
            CHECK(!lasts || mempool_init() == MEMPOOL_OK);
        }
        n = (i * 5 + round) % MANY;
        pthread_barrier_wait(&ended[n]);
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
    if (lasts) {
        mempool_fini();
    }
}

static void *fork_and_end(void *unused) {
    int status = -1;
    pid_t child;
    mp_free(mp_malloc(10));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    /* The child's one thread has what stayed of a pool, and the others' is nobody's there. */
    if ((child = fork()) == 0) {
        _exit(mempool_init() != MEMPOOL_OK || mp_malloc(100) == NULL || mempool_verify() != MEMPOOL_OK);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return unused;
}

static void in_a_child(void) {
    pthread_t threads[2];
    int n;
    CHECK(mempool_init() == MEMPOOL_OK);
    CHECK(pthread_barrier_init(&barrier, NULL, 3) == 0);
    for (n = 0; n < 2; n++) {
        CHECK(pthread_create(&threads[n], NULL, fork_and_end, NULL) == 0);
    }
    pthread_barrier_wait(&barrier);
    mempool_fini();
    pthread_barrier_wait(&barrier);
    for (n = 0; n < 2; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
}

/* A thread that is in the scope of a budget, or was, when the pool ends. */
static void *end_in_a_scope(void *again) {
    unsigned budget = 0;
    CHECK(mp_budget_make(&budget, "tenant", 0, 1 << 20) == MEMPOOL_OK);
    CHECK(mp_budget_enter(budget, NULL) == MEMPOOL_OK);
    mp_free(mp_malloc(10));
    if (again != NULL) {
        CHECK(mp_budget_enter(0, NULL) == MEMPOOL_OK);
        mp_free(mp_malloc(10));
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void in_a_scope(void *again) {
    pthread_t thread;
    CHECK(mempool_init() == MEMPOOL_OK);
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, end_in_a_scope, again) == 0);
    pthread_barrier_wait(&barrier);
    mempool_fini();
    pthread_barrier_wait(&barrier);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void nothing_stays(void) {
    int i, before = 0;
    for (i = 0; i < 12; i++) {
        in_any_order(i);
        in_a_child();
        in_a_scope(NULL);
        in_a_scope(&lasts);
        if (i == 2) {
            before = mappings();
        }
    }
    CHECK(before > 0);
    /* The C library keeps stacks of threads. */
    CHECK(mappings() <= before + 4);
}

int main(void) {
    pthread_t thread;
    long size = 0, locked = 0;
    int i, maps = 0;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, outlive, NULL) == 0);
    for (i = 0; i < LIVES; i++) {
        CHECK(mempool_init() == MEMPOOL_OK);
        mp_cache_init_impl(&cache, "shared", 64);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        mempool_fini();
        if (i == 1) {
            size = kib("VmSize: %ld"), locked = kib("VmLck: %ld"), maps = mappings();
        }
    }
    /* What stays is the thread's local heap of the last pool. */
    CHECK(size > 0 && kib("VmSize: %ld") - size < 256);
    CHECK(locked >= 0 && kib("VmLck: %ld") - locked < 256);
    CHECK(mappings() <= maps + 2);
    CHECK(pthread_join(thread, NULL) == 0);
    nothing_stays();
    return done();
}
