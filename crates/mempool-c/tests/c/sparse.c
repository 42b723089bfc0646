/* A large pool of which little is used costs what is used of it, whatever one does with it. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Page faults so far. */
static long faults(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt;
}

/* A call takes few page faults. */
#define CHEAP(call)                                                                                \
    do {                                                                                           \
        long before = faults();                                                                    \
        call;                                                                                      \
        before = faults() - before;                                                                \
        CHECK(before < 300);                                                                       \
        if (before >= 300) fprintf(stderr, "%s: %ld page faults\n", #call, before);                \
    } while (0)

static void in_a_child(void) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        CHEAP(CHECK(mp_malloc(10) != NULL));
        _exit(failures != 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void) {
    mempool_config_t config;
    mempool_stats_t stats;
    int small;
    for (small = MEMPOOL_SMALL_SLAB; small <= MEMPOOL_SMALL_HEAP; small++) {
        size_t objects = 0;
        CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
        config.segment = (size_t)1 << 40;
        config.commit = MEMPOOL_COMMIT_LAZY;
        config.lock = MEMPOOL_OFF;
        config.small = small;
        CHEAP(CHECK(mempool_init_config(&config) == MEMPOOL_OK));
        CHECK(mp_malloc(100) != NULL);
        CHEAP(CHECK(mempool_stats(&stats) == MEMPOOL_OK));
        /* What was never looked at is free. */
        CHECK(stats.live_objects == 1 && stats.open - stats.free < 1 << 20);
        CHECK(stats.open > config.segment / 2 && stats.largest_free > config.segment / 2);
        CHEAP(CHECK(mempool_verify() == MEMPOOL_OK));
        CHEAP(CHECK(mp_verdict_print(-1, (size_t)1 << 39) != MEMPOOL_OK));
        CHEAP(mempool_trim());
        in_a_child();
        CHEAP(CHECK(mempool_fini_quiet(&objects, NULL) == MEMPOOL_OK));
        CHECK(objects == 1);
    }
    return done();
}
