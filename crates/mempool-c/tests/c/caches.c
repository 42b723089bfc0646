/* Named caches. */
#include "check.h"

struct request {
    char text[40];
    double number;
};

struct wide {
    _Alignas(128) char line[100];
};

static mp_cache_t cleared;
static mp_cache_t initialised = MP_CACHE_INITIALIZER;

static void fields(void) {
    mp_cache_t odd;
    memset(&odd, 0xEE, sizeof odd);
    mp_cache_init(&cleared, struct request);
    CHECK(strcmp(cleared.c_name, "struct request") == 0);
    CHECK(cleared.c_item_size == sizeof(struct request));
    CHECK(cleared.c_item_align == _Alignof(struct request));
    CHECK(cleared.c_items_per_page > 1);
    mp_cache_init(&initialised, struct wide);
    CHECK(initialised.c_item_size == sizeof(struct wide) && initialised.c_item_align == 128);
    mp_cache_init_impl(&odd, "odd", 13);
    CHECK(odd.c_item_size == 13 && odd.c_item_align == 1 && strcmp(odd.c_name, "odd") == 0);
    mp_cache_destroy(&odd);
    mp_cache_init_aligned(&odd, "again", 20, 64);
    CHECK(odd.c_item_size == 20 && odd.c_item_align == 64 && strcmp(odd.c_name, "again") == 0);
    mp_cache_destroy(&odd);
}

static void items(void) {
    struct request *all[1000];
    struct wide *wide[100];
    unsigned i, intact = 0;
    for (i = 0; i < 1000; i++) {
        all[i] = i % 2 ? mp_cache_alloc(&cleared) : mp_cache_try_alloc(&cleared);
        CHECK(is_aligned(all[i], _Alignof(struct request)));
        all[i]->number = i;
    }
    for (i = 0; i < 1000; i++) {
        intact += all[i]->number == i;
    }
    CHECK(intact == 1000);
    CHECK(mp_cache_live(&cleared) == 1000);
    CHECK(mp_cache_live(&initialised) == 0);
    CHECK(mp_usable_size(all[7]) >= sizeof(struct request));
    for (i = 0; i < 100; i++) {
        wide[i] = mp_cache_alloc(&initialised);
        CHECK(is_aligned(wide[i], 128));
    }
    errno = 4711;
    for (i = 0; i < 1000; i++) {
        mp_cache_free(&cleared, all[i]);
    }
    for (i = 0; i < 100; i++) {
        mp_cache_free(&initialised, wide[i]);
    }
    mp_cache_free(&cleared, NULL);
    mp_cache_free_array(&cleared, NULL, 5);
    CHECK(errno == 4711);
    CHECK(mp_cache_live(&cleared) == 0);
}

static void arrays(void) {
    static const unsigned counts[] = {0, 1, 2, 3, 63, 64, 65, 1000, 30000};
    unsigned i, k;
    for (i = 0; i < sizeof counts / sizeof *counts; i++) {
        unsigned n = counts[i], items = n ? n : 1, intact = 0;
        struct request *array = mp_cache_alloc_array(&cleared, n), *other = mp_cache_try_alloc_array(&cleared, n);
        CHECK(array != NULL && other != NULL);
        memset(array, 1, items * sizeof *array);
        memset(other, 2, items * sizeof *other);
        for (k = 0; k < items; k++) {
            intact += array[k].text[0] == 1 && array[k].text[39] == 1;
        }
        CHECK(intact == items);
        CHECK(mp_cache_live(&cleared) == 2 * items);
        errno = 4711;
        mp_cache_free_array(&cleared, array, n);
        mp_cache_free_array(&cleared, other, n);
        CHECK(errno == 4711);
        CHECK(mp_cache_live(&cleared) == 0);
    }
    GIVES_NULL(mp_cache_alloc_array(&cleared, 1000000), ENOMEM, "exhausted");
    GIVES_NULL(mp_cache_try_alloc_array(&cleared, 0xFFFFFFFF), ENOMEM, "exhausted");
}

static void refusals(void) {
    mp_cache_t cache = MP_CACHE_INITIALIZER;
    const char *longest = "0123456789012345678901234567890";
    FAILS(mp_cache_try_init(NULL, "x", 8, 0), MEMPOOL_ERROR_ARGUMENT, EINVAL, "the cache is NULL");
    FAILS(mp_cache_try_init(&cache, NULL, 8, 0), MEMPOOL_ERROR_ARGUMENT, EINVAL, "the name is NULL");
    FAILS(mp_cache_try_init(&cache, "01234567890123456789012345678901", 8, 0), MEMPOOL_ERROR_CACHE_NAME, EINVAL,
          "32 bytes, more than 31");
    FAILS(mp_cache_try_init(&cache, "\xFF", 8, 0), MEMPOOL_ERROR_CACHE_NAME, EINVAL, "not UTF-8");
    FAILS(mp_cache_try_init(&cache, "x", 0, 0), MEMPOOL_ERROR_CACHE_ITEM, EINVAL, "items of 0 bytes");
    FAILS(mp_cache_try_init(&cache, "x", (1 << 20) + 1, 0), MEMPOOL_ERROR_CACHE_ITEM, EINVAL, "1048577 bytes");
    FAILS(mp_cache_try_init(&cache, "x", 8, 3), MEMPOOL_ERROR_CACHE_ALIGN, EINVAL, "power of two");
    FAILS(mp_cache_try_init(&cache, "x", 8, 1 << 21), MEMPOOL_ERROR_CACHE_ALIGN, EINVAL, "2097152");
    FAILS(mp_cache_try_init(&cleared, "x", 8, 0), MEMPOOL_ERROR_CACHE_TWICE, EALREADY, "as \"struct request\"");
    CHECK(cache.c_item_size == 0 && cache.c_name[0] == 0);
    CHECK(mp_cache_try_init(&cache, longest, 1 << 20, 0) == MEMPOOL_OK);
    CHECK(strcmp(cache.c_name, longest) == 0);
    CHECK(cache.c_item_align == 16);
    {
        char *item = mp_cache_alloc(&cache);
        CHECK(item != NULL);
        memset(item, 1, 1 << 20);
        mp_cache_free(&cache, item);
    }
    mp_cache_destroy(&cache);
    CHECK(mp_cache_try_init(&cache, "", 1, 4096) == MEMPOOL_OK);
    {
        void *item = mp_cache_alloc(&cache);
        CHECK(is_aligned(item, 4096));
        mp_cache_free(&cache, item);
    }
    mp_cache_destroy(&cache);
}

static void as_many_as_there_can_be(void) {
    static mp_cache_t many[4096];
    int made = 0, code = MEMPOOL_OK;
    while (made < 4096 && (code = mp_cache_try_init(&many[made], "many", 32, 0)) == MEMPOOL_OK) {
        made++;
    }
    CHECK(made == 14); /* max_caches is 16, and two exist. */
    CHECK(code == MEMPOOL_ERROR_CACHE_LIMIT && errno == ENOSPC);
    SAYS("16 caches");
    SAYS("max_caches");
    while (made > 0) {
        mp_cache_destroy(&many[--made]);
    }
}

int main(void) {
    mempool_config_t config;
    CHECK(mempool_config_defaults(&config) == MEMPOOL_OK);
    config.segment = 32 << 20;
    config.exhausted = MEMPOOL_EXHAUSTED_NULL;
    config.max_retries = 0;
    config.max_caches = 16;
    CHECK(mempool_init_config(&config) == MEMPOOL_OK);
    fields();
    items();
    arrays();
    refusals();
    as_many_as_there_can_be();
    mp_cache_destroy(&cleared);
    mp_cache_destroy(&initialised);
    CHECK(live_objects() == 0);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini();
    return done();
}
