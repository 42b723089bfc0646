/* Init, fini, configuration, errors, figures. */
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static void before(void) {
    size_t objects = 1, bytes = 1;
    mempool_stats_t stats;
    CHECK(strcmp(mempool_last_error(), "") == 0);
    CHECK(!mempool_is_ready());
    CHECK(!mempool_contains(&stats));
    CHECK(mempool_trim() == 0);
    FAILS(mempool_verify(), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mempool_stats(&stats), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mp_stats_print(1), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mempool_shortfalls_print(1), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mempool_fini_quiet(&objects, &bytes), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    CHECK(objects == 1 && bytes == 1);
    mempool_clear_error();
    mempool_fini();
    SAYS("not initialised");
    mp_free(NULL);
    CHECK(!mempool_is_ready());
}

static void versions_and_words(void) {
    int code;
    CHECK(strcmp(mempool_version(), MEMPOOL_VERSION) == 0);
    CHECK(strcmp(mempool_strerror(MEMPOOL_OK), "success") == 0);
    CHECK(strcmp(mempool_strerror(-1), "unknown error code") == 0);
    CHECK(strcmp(mempool_strerror(19), "unknown error code") == 0);
    for (code = 0; code <= MEMPOOL_ERROR_BROKEN; code++) {
        int known = code <= MEMPOOL_ERROR_IN_CALLBACK || code >= MEMPOOL_ERROR_ARGUMENT;
        CHECK((strcmp(mempool_strerror(code), "unknown error code") != 0) == known);
    }
}

static void defaults(void) {
    mempool_config_t config;
    struct {
        mempool_config_t config;
        int later[4];
    } larger;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    CHECK(config.struct_size == sizeof config);
    CHECK(config.segment == (size_t)512 << 20 && config.max_segment == 0);
    CHECK(config.small == MEMPOOL_SMALL_SLAB && config.exhausted == MEMPOOL_EXHAUSTED_ABORT);
    CHECK(config.commit == MEMPOOL_COMMIT_EAGER && config.lock == MEMPOOL_TRY);
    CHECK(config.use_environment == 0 && config.stats == 0 && config.dump == 1);
    CHECK(strcmp(config.name, "mempool") == 0);
    CHECK(mempool_config_check(&config) == MEMPOOL_OK);
    FAILS(mempool_config_defaults(NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    FAILS(mempool_config_defaults_impl(&config, 8), MEMPOOL_ERROR_STRUCT_SIZE, EINVAL, "8 bytes");
    FAILS(mempool_init_config(NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    memset(&larger, 0xFF, sizeof larger);
    CHECK(mempool_config_defaults_impl(&larger.config, sizeof larger) == MEMPOOL_OK);
    CHECK(larger.later[0] == 0 && larger.later[3] == 0);
    CHECK(mempool_config_check(&larger.config) == MEMPOOL_OK);
    CHECK(mempool_config_set(&larger.config, "segment", "1M") == MEMPOOL_OK);
    CHECK(larger.config.struct_size == sizeof larger);
    larger.later[3] = 1;
    FAILS(mempool_config_check(&larger.config), MEMPOOL_ERROR_STRUCT_SIZE, EINVAL, "something is set behind");
    config.struct_size = 0;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_STRUCT_SIZE, EINVAL, "mempool_config_defaults");
}

static void settings(void) {
    mempool_config_t config;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    CHECK(mempool_config_set(&config, "segment", "96M") == MEMPOOL_OK && config.segment == 96 << 20);
    CHECK(mempool_config_set(&config, "MEMPOOL_SMALL", "heap") == MEMPOOL_OK && config.small == MEMPOOL_SMALL_HEAP);
    CHECK(mempool_config_set(&config, "small", "system") == MEMPOOL_OK && config.small == MEMPOOL_SMALL_SYSTEM);
    CHECK(mempool_config_set(&config, "--exhausted", "grow") == MEMPOOL_OK);
    CHECK(config.exhausted == MEMPOOL_EXHAUSTED_GROW);
    CHECK(mempool_config_set(&config, "max_segment", "1G") == MEMPOOL_OK && config.max_segment == 1 << 30);
    CHECK(mempool_config_set(&config, "commit", "lazy") == MEMPOOL_OK && config.commit == MEMPOOL_COMMIT_LAZY);
    CHECK(mempool_config_set(&config, "lock", "required") == MEMPOOL_OK && config.lock == MEMPOOL_REQUIRED);
    CHECK(mempool_config_set(&config, "huge_pages", "off") == MEMPOOL_OK && config.huge_pages == MEMPOOL_OFF);
    CHECK(mempool_config_set(&config, "reserve", "64K") == MEMPOOL_OK && config.reserve == 65536);
    CHECK(mempool_config_set(&config, "max_retries", "3") == MEMPOOL_OK && config.max_retries == 3);
    CHECK(mempool_config_set(&config, "wait_time", "2ms") == MEMPOOL_OK && config.wait_time_ns == 2000000);
    CHECK(mempool_config_set(&config, "heap_max_alloc", "1K") == MEMPOOL_OK && config.heap_max_alloc == 1024);
    CHECK(mempool_config_set(&config, "max_threads", "12") == MEMPOOL_OK && config.max_threads == 12);
    CHECK(mempool_config_set(&config, "max_caches", "13") == MEMPOOL_OK && config.max_caches == 13);
    CHECK(mempool_config_set(&config, "guard_pages", "off") == MEMPOOL_OK && config.guard_pages == 0);
    CHECK(mempool_config_set(&config, "dump", "off") == MEMPOOL_OK && config.dump == 0);
    CHECK(mempool_config_set(&config, "stats", "on") == MEMPOOL_OK && config.stats == 1);
    CHECK(mempool_config_set(&config, "name", "orders") == MEMPOOL_OK && strcmp(config.name, "orders") == 0);
    CHECK(mempool_config_check(&config) == MEMPOOL_OK);
    FAILS(mempool_config_set(&config, "MEMPOOL_SEGMNT", "1"), MEMPOOL_ERROR_UNKNOWN_SETTING, EINVAL,
          "did you mean MEMPOOL_SEGMENT?");
    FAILS(mempool_config_set(&config, "segment", "512MB"), MEMPOOL_ERROR_VALUE, EINVAL, "powers of 1024");
    FAILS(mempool_config_set(&config, "name", "a$b"), MEMPOOL_ERROR_RANGE, EINVAL, "a$b");
    FAILS(mempool_config_set(&config, NULL, "1"), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    FAILS(mempool_config_set(&config, "segment", NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    FAILS(mempool_config_set(NULL, "segment", "1M"), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    CHECK(config.segment == 96 << 20 && strcmp(config.name, "orders") == 0);
}

static void bad_settings(void) {
    mempool_config_t good, config;
    struct rlimit limit, low;
    CHECK(mempool_config_defaults(&good) == MEMPOOL_OK);
    config = good, config.small = 7;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_VALUE, EINVAL, "small is 7, but must be from 0 to 2");
    config = good, config.commit = -1;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_VALUE, EINVAL, "commit is -1, but must be from 0 to 1");
    config = good, config.reserved = 1;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_VALUE, EINVAL, "reserved");
    config = good, config.use_environment = 2;
    FAILS(mempool_config_check(&config), MEMPOOL_ERROR_VALUE, EINVAL, "use_environment is 2");
    config = good, config.segment = 1000;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_RANGE, EINVAL, "from 256 KiB to 16 TiB");
    FAILS(mempool_config_check(&config), MEMPOOL_ERROR_RANGE, EINVAL, "segment is 1000 bytes");
    config = good, config.name[0] = 0;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_RANGE, EINVAL, "31 bytes");
    config = good, memset(config.name, 'x', sizeof config.name);
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_RANGE, EINVAL, "31 bytes");
    config = good, config.max_segment = 1 << 30;
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_CONFLICT, EINVAL, "exhausted=grow");
    config = good, config.segment = (size_t)1 << 40;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    low = limit, low.rlim_cur = 1 << 28;
    CHECK(setrlimit(RLIMIT_AS, &low) == 0);
    FAILS(mempool_init_config(&config), MEMPOOL_ERROR_OS, ENOMEM, "1 TiB");
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(!mempool_is_ready());
}

static int is_mapped(void *address) {
    unsigned char there;
    return mincore((void *)((uintptr_t)address & ~(uintptr_t)4095), 4096, &there) == 0;
}

static void a_life(void) {
    mempool_stats_t stats;
    size_t objects = 0, bytes = 0;
    void *object, *large;
    int null = open("/dev/null", O_WRONLY);
    make_pool(MEMPOOL_EXHAUSTED_ABORT, 8 << 20);
    CHECK(mempool_is_ready());
    FAILS(mempool_init(), MEMPOOL_ERROR_ALREADY_INITIALISED, EALREADY, "already");
    object = mp_malloc(100);
    large = mp_malloc(100000);
    CHECK(mempool_stats(&stats) == MEMPOOL_OK);
    CHECK(stats.segment == 8 << 20 && stats.metadata > 0 && stats.open + stats.metadata <= stats.segment);
    CHECK(stats.live_objects == 2 && stats.live_bytes >= 100100 && stats.live_bytes < 101000);
    CHECK(stats.free < stats.open && stats.largest_free <= stats.free && stats.largest_free > 0);
    CHECK(stats.threads <= 1 && stats.exhausted == 0 && stats.refused == 0 && stats.reserve == 0);
    FAILS(mempool_stats(NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    FAILS(mempool_stats_impl(&stats, 100000), MEMPOOL_ERROR_STRUCT_SIZE, EINVAL, "100000 bytes");
    FAILS(mempool_stats_impl(&stats, 0), MEMPOOL_ERROR_STRUCT_SIZE, EINVAL, "0 bytes");
    stats.metadata = 4711;
    CHECK(mempool_stats_impl(&stats, sizeof stats.segment) == MEMPOOL_OK && stats.metadata == 4711);
    CHECK(mp_stats_print(null) == MEMPOOL_OK && mempool_shortfalls_print(null) == MEMPOOL_OK);
    FAILS(mp_stats_print(-1), MEMPOOL_ERROR_OS, EBADF, "file descriptor -1");
    CHECK(mempool_verify() == MEMPOOL_OK);
    CHECK(is_mapped(large));
    CHECK(mempool_fini_quiet(&objects, &bytes) == MEMPOOL_OK);
    CHECK(objects == 2 && bytes >= 100100);
    CHECK(!mempool_is_ready() && !mempool_contains(object) && !is_mapped(large));
    GIVES_NULL(mp_try_malloc(1), ENOMEM, "not initialised");
    GIVES_NULL(mp_try_calloc(1, 1), ENOMEM, "not initialised");
    FAILS(mempool_on_reclaim(NULL, NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "NULL");
    close(null);
}

static void other_lives(void) {
    mempool_config_t config;
    int small;
    for (small = MEMPOOL_SMALL_SLAB; small <= MEMPOOL_SMALL_SYSTEM; small++) {
        void *object, *zeros;
        mp_cache_t cache;
        CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
        config.segment = 4 << 20;
        config.small = small;
        CHECK(mempool_init_config(&config) == MEMPOOL_OK);
        object = mp_malloc(100);
        CHECK(is_aligned(object, 16));
        CHECK(mempool_contains(object) == (small != MEMPOOL_SMALL_SYSTEM));
        zeros = mp_calloc(10, 10);
        CHECK(zeros != NULL && memcmp(zeros, "\0\0\0\0\0\0\0\0", 8) == 0);
        object = mp_realloc(object, 5000);
        CHECK(mp_usable_size(object) >= 5000);
        mp_free(object), mp_free(zeros);
        mp_cache_init_impl(&cache, "x", 24);
        object = mp_cache_alloc(&cache);
        CHECK(object != NULL);
        mp_cache_free(&cache, object);
        object = mp_cache_alloc_array(&cache, 7);
        CHECK(object != NULL);
        mp_cache_free_array(&cache, object, 7);
        mp_cache_destroy(&cache);
        CHECK(mempool_verify() == MEMPOOL_OK);
        CHECK(live_objects() == 0);
        mempool_fini();
    }
}

int main(void) {
    before();
    versions_and_words();
    defaults();
    settings();
    bad_settings();
    a_life();
    other_lives();
    return done();
}
