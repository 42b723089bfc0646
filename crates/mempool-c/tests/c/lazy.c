/* No mempool_init: the first use makes the pool from the environment. What to use first is the argument. */
#include "check.h"

static mp_cache_t cache;

static bool never(size_t needed, void *argument) {
    return needed == 0 && argument != NULL;
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    mempool_stats_t stats;
    void *object = NULL;
    no_core_file();
    CHECK(!mempool_is_ready());
    if (!strcmp(what, "malloc")) {
        object = mp_malloc(10);
    } else if (!strcmp(what, "calloc")) {
        object = mp_calloc(10, 10);
    } else if (!strcmp(what, "realloc")) {
        object = mp_realloc(NULL, 10);
    } else if (!strcmp(what, "aligned")) {
        object = mp_aligned_alloc(64, 10);
    } else if (!strcmp(what, "strdup")) {
        object = mp_strdup("x");
    } else if (!strcmp(what, "try")) {
        object = mp_try_malloc(10);
    } else if (!strcmp(what, "critical")) {
        mp_critical_enter();
        mp_critical_leave();
    } else if (!strcmp(what, "reclaim")) {
        CHECK(mempool_on_reclaim(never, &stats) == MEMPOOL_OK);
    } else if (!strcmp(what, "cache")) {
        mp_cache_init(&cache, int);
    } else if (!strcmp(what, "init")) {
        int code = mempool_init();
        if (code != MEMPOOL_OK) {
            printf("%d %s: %s\n", code, mempool_strerror(code), mempool_last_error());
            return 3;
        }
    } else if (!strcmp(what, "config")) {
        mempool_config_t config;
        CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
        config.segment = 1 << 20;
        config.use_environment = 1;
        CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    } else if (!strcmp(what, "bad-try")) {
        GIVES_NULL(mp_try_malloc(1), ENOMEM, "MEMPOOL_SEGMENT");
        GIVES_NULL(mp_try_aligned_alloc(64, 1), ENOMEM, "MEMPOOL_SEGMENT");
        FAILS(mp_cache_try_init(&cache, "x", 8, 0), MEMPOOL_ERROR_VALUE, EINVAL, "MEMPOOL_SEGMENT");
        FAILS(mempool_init(), MEMPOOL_ERROR_VALUE, EINVAL, "MEMPOOL_SEGMENT");
        CHECK(!mempool_is_ready());
        return done();
    }
    CHECK(mempool_is_ready());
    CHECK(mempool_stats(&stats) == MEMPOOL_OK && stats.segment == 3 << 20);
    CHECK(mempool_init() == MEMPOOL_ERROR_ALREADY_INITIALISED);
    mp_free(object);
    return done();
}
