/* What exhaustion means: null, grow, the reserve, reclaim callbacks, waiting, giving back. */
#include "check.h"
#include <pthread.h>
#include <unistd.h>

#define SEGMENT ((size_t)4 << 20)

/* Takes all there is in pieces of a size; a list of them. */
static void **take_all(size_t size) {
    void **list = NULL, **object;
    while ((object = mp_try_malloc(size)) != NULL) {
        *object = list;
        list = object;
    }
    return list;
}

static size_t give_all(void **list) {
    size_t count = 0;
    while (list != NULL) {
        void **after = *list;
        mp_free(list);
        list = after;
        count++;
    }
    return count;
}

static void null(void) {
    mempool_stats_t stats;
    mp_cache_t cache;
    void **list, *item;
    make_pool(MEMPOOL_EXHAUSTED_NULL, SEGMENT);
    mp_cache_init_impl(&cache, "late", 1024);
    list = take_all(1000);
    GIVES_NULL(mp_malloc(100000), ENOMEM, "exhausted");
    GIVES_NULL(mp_calloc(100, 1000), ENOMEM, "exhausted");
    GIVES_NULL(mp_cache_alloc_array(&cache, 100), ENOMEM, "100 KiB");
    GIVES_NULL(mp_cache_try_alloc_array(&cache, 100), ENOMEM, "100 KiB");
    CHECK(mempool_stats(&stats) == MEMPOOL_OK);
    CHECK(stats.exhausted >= 4 && stats.refused >= 4);
    CHECK(stats.live_bytes > SEGMENT / 2);
    CHECK(give_all(list) > 1000);
    item = mp_cache_alloc(&cache);
    CHECK(item != NULL);
    mp_cache_free(&cache, item);
    item = mp_malloc(100000);
    CHECK(item != NULL);
    mp_free(item);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mp_cache_destroy(&cache);
    mempool_fini();
}

static void cache_alone(void) {
    mp_cache_t cache;
    void *item, **list = NULL, **object;
    size_t count = 0;
    make_pool(MEMPOOL_EXHAUSTED_NULL, SEGMENT);
    mp_cache_init_impl(&cache, "all", 4096);
    while ((object = mp_cache_alloc(&cache)) != NULL) {
        *object = list;
        list = object;
        count++;
    }
    CHECK(errno == ENOMEM);
    SAYS("4 KiB");
    CHECK(count > 500);
    CHECK(mp_cache_live(&cache) == count);
    GIVES_NULL(mp_cache_try_alloc(&cache), ENOMEM, "4 KiB");
    item = *list;
    mp_cache_free(&cache, list);
    list = item;
    item = mp_cache_try_alloc(&cache);
    CHECK(item != NULL);
    mp_cache_free(&cache, item);
    while (list != NULL) {
        object = *list;
        mp_cache_free(&cache, list);
        list = object;
    }
    CHECK(mp_cache_live(&cache) == 0);
    mp_cache_destroy(&cache);
    mempool_fini();
}

static void grow(void) {
    mempool_config_t config;
    char *object;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.segment = SEGMENT;
    config.max_segment = 4 * SEGMENT;
    config.exhausted = MEMPOOL_EXHAUSTED_GROW;
    config.max_retries = 0;
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    object = mp_malloc(2 * SEGMENT);
    CHECK(object != NULL);
    memset(object, 1, 2 * SEGMENT);
    GIVES_NULL(mp_malloc(4 * SEGMENT), ENOMEM, "16 MiB");
    mp_free(object);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini();
}

static void reserve(void) {
    mempool_config_t config;
    mempool_stats_t stats;
    void **list, *critical;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.segment = SEGMENT;
    config.exhausted = MEMPOOL_EXHAUSTED_NULL;
    config.max_retries = 0;
    config.reserve = 512 << 10;
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    list = take_all(65536);
    CHECK(mempool_stats(&stats) == MEMPOOL_OK && stats.reserve >= 512 << 10);
    CHECK(stats.reserve_free == stats.reserve);
    GIVES_NULL(mp_malloc(65536), ENOMEM, "64 KiB");
    mp_critical_enter();
    mp_critical_enter();
    mp_critical_leave();
    critical = mp_malloc(65536);
    CHECK(critical != NULL);
    mp_critical_leave();
    GIVES_NULL(mp_malloc(65536), ENOMEM, "64 KiB");
    CHECK(mempool_stats(&stats) == MEMPOOL_OK && stats.reserve_free < stats.reserve);
    mp_free(critical);
    give_all(list);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini();
}

static void **hoard;
static int calls;
static size_t asked;

static bool reclaim(size_t needed, void *argument) {
    calls++;
    asked = needed;
    CHECK(argument == &calls);
    give_all(hoard);
    mp_free(mp_try_malloc(10));
    hoard = NULL;
    return true;
}

static bool nothing(size_t needed, void *argument) {
    CHECK(needed > 0 && argument == NULL);
    return false;
}

static void callbacks(void) {
    void *object;
    int i;
    make_pool(MEMPOOL_EXHAUSTED_ABORT, SEGMENT);
    hoard = take_all(50000);
    CHECK(mempool_on_reclaim(nothing, NULL) == MEMPOOL_OK);
    CHECK(mempool_on_reclaim(reclaim, &calls) == MEMPOOL_OK);
    object = mp_malloc(500000);
    CHECK(object != NULL && calls == 1 && asked == 500000);
    mp_free(object);
    for (i = 2; i < 8; i++) {
        CHECK(mempool_on_reclaim(nothing, NULL) == MEMPOOL_OK);
    }
    FAILS(mempool_on_reclaim(nothing, NULL), MEMPOOL_ERROR_CALLBACK_LIMIT, ENOSPC, "8 reclaim callbacks");
    mempool_fini();
}

/* The request that called it would go on in a pool that is gone. */
static bool ending(size_t needed, void *argument) {
    size_t objects = 4711;
    (void)needed;
    FAILS(mempool_fini_quiet(&objects, NULL), MEMPOOL_ERROR_IN_CALLBACK, EBUSY, "a reclaim callback cannot end the pool");
    CHECK(objects == 4711);
    mempool_clear_error();
    mempool_fini();
    SAYS("end it when the request");
    CHECK(errno == EBUSY && mempool_is_ready());
    FAILS(mempool_init(), MEMPOOL_ERROR_ALREADY_INITIALISED, EALREADY, "already");
    *(int *)argument += 1;
    return false;
}

static void *exhaust(void *unused) {
    CHECK(mp_malloc(SEGMENT / 2) != NULL && mp_malloc(SEGMENT * 3 / 4) == NULL);
    return unused;
}

static void callbacks_that_end_the_pool(void) {
    int count = 0, level;
    for (level = 0; level < 2; level++, count = 0) {
        pthread_t thread;
        make_pool(MEMPOOL_EXHAUSTED_NULL, SEGMENT);
        CHECK((level ? mempool_on_low(SEGMENT * 3 / 4, ending, &count) : mempool_on_reclaim(ending, &count)) == MEMPOOL_OK);
        CHECK(pthread_create(&thread, NULL, exhaust, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(count == 1 + level);
        CHECK(mempool_verify() == MEMPOOL_OK);
        CHECK(mempool_fini_quiet(NULL, NULL) == MEMPOOL_OK && !mempool_is_ready());
    }
}

static int low_calls;
static size_t low_needed;

static bool low(size_t needed, void *argument) {
    low_calls++;
    low_needed = needed;
    CHECK(argument == NULL);
    mp_free(mp_malloc(100));
    return false;
}

/* A callback at a level of free memory, and once more at exhaustion; the verdict on request. */
static void levels(void) {
    void **list = NULL, **object;
    mempool_stats_t stats;
    int file[2];
    char text[4096];
    ssize_t length;
    make_pool(MEMPOOL_EXHAUSTED_NULL, SEGMENT);
    FAILS(mempool_on_low(0, low, NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "level is 0");
    FAILS(mempool_on_low(1, NULL, NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "callback is NULL");
    CHECK(mempool_on_low(1 << 20, low, NULL) == MEMPOOL_OK);
    CHECK(pipe(file) == 0);
    CHECK(mp_verdict_print(file[1], 0) == MEMPOOL_OK);
    CHECK(read(file[0], text, sizeof(text)) == 39 && memcmp(text, "mempool: no request was refused so far\n", 39) == 0);
    while ((object = mp_malloc(50000)) != NULL) {
        *object = list;
        list = object;
        CHECK(mempool_stats(&stats) == MEMPOOL_OK);
        CHECK(low_calls == (stats.free < 1 << 20));
        CHECK(low_calls == 0 || low_needed <= 60000 + 65536);
    }
    CHECK(low_calls == 2 && low_needed == 50000);
    CHECK(mp_try_malloc(50000) == NULL && low_calls == 2);
    CHECK(mp_verdict_print(file[1], 0) == MEMPOOL_OK);
    length = read(file[0], text, sizeof(text) - 1);
    CHECK(length > 200);
    text[length] = 0;
    CHECK(strstr(text, "mempool: exhausted: 50000 bytes asked") == text && strstr(text, "\n  set        MEMPOOL_SEGMENT="));
    give_all(list);
    CHECK(mp_verdict_print(file[1], 50000) == MEMPOOL_OK);
    length = read(file[0], text, sizeof(text) - 1);
    text[length] = 0;
    CHECK(strstr(text, "not exhausted") != NULL);
    CHECK(close(file[0]) == 0 && close(file[1]) == 0);
    mempool_fini();
}

/* What the verdict on the last request that was refused says. */
static void says_on_request(const char *words) {
    char text[4096];
    int file[2];
    ssize_t length;
    CHECK(pipe(file) == 0 && mp_verdict_print(file[1], 0) == MEMPOOL_OK);
    length = read(file[0], text, sizeof(text) - 1);
    CHECK(length > 0);
    text[length < 0 ? 0 : length] = 0;
    CHECK(strstr(text, words) != NULL);
    CHECK(close(file[0]) == 0 && close(file[1]) == 0);
}

/* Two tenants: one fails alone at its cap; what is set aside for the other is there when nothing else is. */
static void budgets(void) {
    mempool_config_t config;
    unsigned small, sure, before = 7;
    mp_cache_t cache;
    void **list = NULL, **object, *mine, **rest;
    size_t count = 0;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.segment = SEGMENT;
    config.exhausted = MEMPOOL_EXHAUSTED_NULL;
    config.max_retries = 0;
    config.reserve = 512 << 10;
    FAILS(mp_budget_enter(0, NULL), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mp_budget_enter(1, NULL), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    FAILS(mp_cache_try_init_in(1, &cache, "a", 10, 0), MEMPOOL_ERROR_NOT_INITIALISED, ENXIO, "not initialised");
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    FAILS(mp_budget_make(NULL, "a", 0, 1), MEMPOOL_ERROR_ARGUMENT, EINVAL, "its place is NULL");
    FAILS(mp_budget_make(&small, NULL, 0, 1), MEMPOOL_ERROR_ARGUMENT, EINVAL, "its name is NULL");
    FAILS(mp_budget_make(&small, "a", 1 << 20, 1 << 20), MEMPOOL_ERROR_BUDGET, ENOSPC, "512 KiB is left");
    FAILS(mp_budget_enter(1, NULL), MEMPOOL_ERROR_ARGUMENT, EINVAL, "no budget 1");
    FAILS(mp_cache_try_init_in(1, &cache, "a", 10, 0), MEMPOOL_ERROR_ARGUMENT, EINVAL, "no budget 1");
    CHECK(mp_budget_make(&small, "small", 0, 512 << 10) == MEMPOOL_OK);
    CHECK(mp_budget_make(&sure, "sure", 256 << 10, 1 << 20) == MEMPOOL_OK && sure != small);
    CHECK(mp_cache_try_init_in(small, &cache, "items", 100, 0) == MEMPOOL_OK);
    CHECK(mp_budget_enter(small, &before) == MEMPOOL_OK && before == 0);
    while ((object = mp_malloc(1000)) != NULL) {
        *object = list;
        list = object;
        count++;
    }
    CHECK(errno == ENOMEM && count > 400 && count <= 524);
    says_on_request("over budget");
    CHECK(mp_budget_used(small) <= 512 << 10);
    GIVES_NULL(mp_cache_alloc(&cache), ENOMEM, "100 bytes");
    CHECK(mp_budget_enter(0, &before) == MEMPOOL_OK && before == small);
    says_on_request("over budget");
    mine = mp_malloc(1000);
    CHECK(mine != NULL && mp_usable_size(mine) >= 1000);
    mine = mp_realloc(mine, 3000);
    CHECK(mine != NULL);
    mp_free(mine);
    CHECK(give_all(list) == count);
    mine = mp_cache_alloc(&cache);
    CHECK(mine != NULL);
    mp_cache_free(&cache, mine);
    rest = take_all(50000);
    list = take_all(16);
    CHECK(mp_try_malloc(16) == NULL);
    CHECK(mp_budget_enter(sure, NULL) == MEMPOOL_OK);
    for (count = 0; (object = mp_malloc(2000)) != NULL; count++) {
        CHECK(mp_usable_size(object) >= 2000);
    }
    CHECK(count >= 100 && mp_budget_used(sure) >= 256 << 10);
    CHECK(mp_budget_enter(0, NULL) == MEMPOOL_OK);
    give_all(list);
    give_all(rest);
    mp_thread_idle();
    mine = mp_malloc(16);
    CHECK(mine != NULL);
    mp_free(mine);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mp_cache_destroy(&cache);
    CHECK(mempool_fini_quiet(NULL, NULL) == MEMPOOL_OK);
}

static int counted;

static bool count(size_t needed, void *argument) {
    counted++;
    return needed == 0 && argument != NULL;
}

static pthread_barrier_t together;

static void *add(void *argument) {
    pthread_barrier_wait(&together);
    CHECK(mempool_on_reclaim(count, NULL) == MEMPOOL_OK);
    return argument;
}

/* Threads that add callbacks at once: none gets lost. */
static void callbacks_at_once(void) {
    int round, i, lost = 0;
    for (round = 0; round < 50; round++) {
        pthread_t threads[8];
        make_pool(MEMPOOL_EXHAUSTED_NULL, 1 << 20);
        CHECK(pthread_barrier_init(&together, NULL, 8) == 0);
        for (i = 0; i < 8; i++) {
            CHECK(pthread_create(&threads[i], NULL, add, NULL) == 0);
        }
        for (i = 0; i < 8; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
        counted = 0;
        {
            void **list = take_all(50000);
            CHECK(counted == 0);
            CHECK(mp_malloc(50000) == NULL);
            give_all(list);
        }
        lost += counted != 8;
        pthread_barrier_destroy(&together);
        mempool_fini();
    }
    CHECK(lost == 0);
}

static bool leave(size_t needed, void *argument) {
    counted++;
    if (needed != 0) {
        pthread_exit(argument);
    }
    return false;
}

static void *ask(void *argument) {
    CHECK(mp_malloc(50000) == NULL);
    return argument;
}

/* A callback that ends its thread, which has no local heap yet, is no reason not to call it for others. */
static void leaving_a_callback(void) {
    int i;
    make_pool(MEMPOOL_EXHAUSTED_NULL, 1 << 20);
    CHECK(mempool_on_reclaim(leave, &counted) == MEMPOOL_OK);
    take_all(50000);
    take_all(256);
    counted = 0;
    for (i = 0; i < 3; i++) {
        pthread_t thread;
        void *result = NULL;
        CHECK(pthread_create(&thread, NULL, ask, NULL) == 0);
        CHECK(pthread_join(thread, &result) == 0 && result == &counted);
    }
    CHECK(counted == 3);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini_quiet(NULL, NULL);
}

static void giving_back(void) {
    mempool_config_t config;
    char *object;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.segment = SEGMENT;
    config.commit = MEMPOOL_COMMIT_LAZY;
    config.lock = MEMPOOL_OFF;
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    object = mp_malloc(1 << 20);
    memset(object, 1, 1 << 20);
    mp_free(object);
    errno = 4711;
    CHECK(mempool_trim() >= 1 << 20);
    CHECK(errno == 4711);
    CHECK(mempool_trim() == 0);
    object = mp_calloc(1, 1 << 20);
    CHECK(object[0] == 0 && object[(1 << 20) - 1] == 0);
    mp_free(object);
    mempool_fini();
}

int main(void) {
    null();
    cache_alone();
    grow();
    reserve();
    callbacks();
    callbacks_that_end_the_pool();
    levels();
    budgets();
    callbacks_at_once();
    leaving_a_callback();
    giving_back();
    return done();
}
