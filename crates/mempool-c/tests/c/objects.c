/* The mp_malloc family under exhausted=null: every function, every errno. */
#include "check.h"

static void sizes_and_alignment(void) {
    size_t size;
    for (size = 0; size < 70000; size = size * 2 + 1) {
        unsigned char *object = mp_malloc(size);
        CHECK(is_aligned(object, 16));
        CHECK(mp_usable_size(object) >= size);
        CHECK(mempool_contains(object));
        memset(object, 0xAB, mp_usable_size(object));
        errno = 4711;
        mp_free(object);
        CHECK(errno == 4711);
    }
}

static void no_bytes(void) {
    void *a = mp_malloc(0), *b = mp_malloc(0), *c = mp_calloc(0, 8), *d = mp_realloc(NULL, 0);
    void *e = mp_aligned_alloc(64, 0), *f = mp_try_malloc(0);
    CHECK(a != NULL && b != NULL && a != b);
    CHECK(c != NULL && d != NULL && c != a && d != a && c != d);
    CHECK(is_aligned(e, 64));
    CHECK(f != NULL);
    mp_free(a), mp_free(b), mp_free(c), mp_free(d), mp_free(e), mp_free(f);
    errno = 4711;
    mp_free(NULL);
    CHECK(errno == 4711);
    CHECK(mp_usable_size(NULL) == 0);
}

static int is_zero(const unsigned char *bytes, size_t size) {
    size_t i;
    for (i = 0; i < size && bytes[i] == 0; i++) {
    }
    return i == size;
}

static void zeros(void) {
    size_t size;
    for (size = 1; size < 300000; size = size * 3 + 1) {
        unsigned char *dirty = mp_malloc(size), *clean;
        memset(dirty, 0xFF, size);
        mp_free(dirty);
        clean = mp_calloc(1, size);
        CHECK(clean != NULL && is_zero(clean, size));
        memset(clean, 0xFF, size);
        mp_free(clean);
        clean = mp_try_calloc(size, 1);
        CHECK(clean != NULL && is_zero(clean, size));
        mp_free(clean);
    }
}

static void too_much(void) {
    volatile size_t max = SIZE_MAX, half = SIZE_MAX / 2, root = (size_t)1 << 32;
    char *object = mp_malloc(100);
    strcpy(object, "still here");
    GIVES_NULL(mp_malloc(max), ENOMEM, "larger than the address space");
    GIVES_NULL(mp_malloc(half), ENOMEM, "exhausted");
    GIVES_NULL(mp_malloc(64 << 20), ENOMEM, "64 MiB");
    GIVES_NULL(mp_try_malloc(64 << 20), ENOMEM, "64 MiB");
    GIVES_NULL(mp_calloc(root, root), ENOMEM, "address space");
    GIVES_NULL(mp_calloc(max, 2), ENOMEM, "address space");
    GIVES_NULL(mp_try_calloc(2, max), ENOMEM, "address space");
    GIVES_NULL(mp_realloc(object, max), ENOMEM, "address space");
    GIVES_NULL(mp_try_realloc(object, 64 << 20), ENOMEM, "64 MiB");
    GIVES_NULL(mp_reallocarray(object, root, root), ENOMEM, "address space");
    GIVES_NULL(mp_try_reallocarray(object, half, 3), ENOMEM, "address space");
    GIVES_NULL(mp_reallocarray(NULL, half, 3), ENOMEM, "address space");
    GIVES_NULL(mp_aligned_alloc(4096, 64 << 20), ENOMEM, "aligned to 4096");
    GIVES_NULL(mp_aligned_alloc(4096, max), ENOMEM, "address space");
    GIVES_NULL(mp_try_aligned_alloc((half >> 1) + 1, 1), ENOMEM, "aligned to");
    CHECK(strcmp(object, "still here") == 0);
    mp_free(object);
}

static void resizing(void) {
    char *object = mp_realloc(NULL, 10), *same, *grown;
    size_t usable = mp_usable_size(object);
    strcpy(object, "content");
    CHECK(mp_realloc(object, usable) == object);
    CHECK(mp_realloc(object, 1) == object);
    CHECK(mp_realloc(object, 0) == object);
    CHECK(mp_try_realloc(object, 0) == object);
    CHECK(mp_reallocarray(object, 0, 5) == object);
    CHECK(mp_reallocarray(object, 5, 0) == object);
    CHECK(mp_usable_size(object) == usable);
    CHECK(strcmp(object, "content") == 0);
    grown = mp_reallocarray(object, 1000, 7);
    CHECK(grown != NULL && strcmp(grown, "content") == 0);
    CHECK(mp_usable_size(grown) >= 7000);
    grown = mp_try_reallocarray(grown, 100, 1000);
    CHECK(grown != NULL && strcmp(grown, "content") == 0);
    same = mp_realloc(grown, 100001);
    CHECK(same != NULL && strcmp(same, "content") == 0);
    CHECK(is_aligned(same, 16));
    same = mp_try_realloc(same, 1 << 20);
    CHECK(same != NULL && strcmp(same, "content") == 0);
    mp_free(same);
    same = mp_aligned_alloc(4096, 100);
    strcpy(same, "aligned");
    same = mp_realloc(same, 100000);
    CHECK(is_aligned(same, 16) && strcmp(same, "aligned") == 0);
    mp_free(same);
}

static void alignments(void) {
    size_t alignment, bad[] = {0, 3, 24, 4097, SIZE_MAX};
    unsigned i;
    for (alignment = 1; alignment <= 1 << 20; alignment *= 2) {
        void *object = mp_aligned_alloc(alignment, alignment + 1);
        CHECK(is_aligned(object, alignment < 16 ? 16 : alignment));
        CHECK(mp_usable_size(object) >= alignment + 1);
        mp_free(object);
        object = mp_try_aligned_alloc(alignment, 1);
        CHECK(is_aligned(object, alignment));
        mp_free(object);
    }
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        GIVES_NULL(mp_aligned_alloc(bad[i], 8), EINVAL, "power of two");
        GIVES_NULL(mp_try_aligned_alloc(bad[i], 8), EINVAL, "power of two");
    }
}

static void strings(void) {
    char *whole = mp_strdup("a string"), *part = mp_strndup("a string", 3), *all = mp_strndup("ab", 99);
    char open[3] = {'x', 'y', 'z'}, *closed = mp_strndup(open, 3), *empty = mp_strdup("");
    CHECK(strcmp(whole, "a string") == 0 && mempool_contains(whole));
    CHECK(strcmp(part, "a s") == 0);
    CHECK(strcmp(all, "ab") == 0);
    CHECK(strcmp(closed, "xyz") == 0);
    CHECK(strcmp(empty, "") == 0);
    mp_free(whole), mp_free(part), mp_free(all), mp_free(closed), mp_free(empty);
    GIVES_NULL(mp_strdup(NULL), EINVAL, "mp_strdup: the string is NULL");
    GIVES_NULL(mp_strndup(NULL, 3), EINVAL, "mp_strndup: the string is NULL");
}

static void whose(void) {
    int local;
    CHECK(!mempool_contains(NULL));
    CHECK(!mempool_contains(&local));
    CHECK(!mempool_contains(&checks));
}

int main(void) {
    make_pool(MEMPOOL_EXHAUSTED_NULL, 32 << 20);
    sizes_and_alignment();
    no_bytes();
    zeros();
    too_much();
    resizing();
    alignments();
    strings();
    whose();
    CHECK(live_objects() == 0);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini();
    CHECK(!mempool_is_ready());
    return done();
}
