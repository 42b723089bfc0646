/* Checks that count themselves, so that the caller can tell that they ran. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int checks;
static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        __atomic_fetch_add(&checks, 1, __ATOMIC_RELAXED);                                          \
        if (!(condition)) {                                                                        \
            __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);                                    \
            fprintf(stderr, "%s:%d: %s (errno %d, %s)\n", __FILE__, __LINE__, #condition, errno,   \
                    mempool_last_error());                                                         \
        }                                                                                          \
    } while (0)

/* The last error contains a text. */
#define SAYS(text) CHECK(strstr(mempool_last_error(), (text)) != NULL)

/* A call gives an error code, its errno, and a sentence that contains a text. */
#define FAILS(call, code, number, text)                                                            \
    do {                                                                                           \
        mempool_clear_error();                                                                     \
        CHECK((call) == (code));                                                                   \
        CHECK(errno == (number));                                                                  \
        SAYS(text);                                                                                \
    } while (0)

/* A call gives NULL, errno, and a sentence that contains a text. */
#define GIVES_NULL(call, number, text)                                                             \
    do {                                                                                           \
        mempool_clear_error();                                                                     \
        CHECK((call) == NULL);                                                                     \
        CHECK(errno == (number));                                                                  \
        SAYS(text);                                                                                \
    } while (0)

/* Makes a small pool with a policy; the environment has the last word. */
static inline void make_pool(int exhausted, size_t segment) {
    mempool_config_t config;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.exhausted = exhausted;
    config.segment = segment;
    config.max_retries = 1;
    config.use_environment = 1;
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
}

static inline size_t live_objects(void) {
    mempool_stats_t stats;
    CHECK(mempool_stats(&stats) == MEMPOOL_OK);
    return stats.live_objects;
}

static inline int is_aligned(const void *object, size_t alignment) {
    return object != NULL && (uintptr_t)object % alignment == 0;
}

/* For programs that are meant to abort. */
static inline void no_core_file(void) {
    struct rlimit none = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &none) == 0);
}

/* The number of checks to standard output; the exit status. */
static inline int done(void) {
    printf("%d checks\n", checks);
    return failures != 0;
}

#endif
