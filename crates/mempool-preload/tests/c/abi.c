/* Every function of the malloc family: results, errno, alignment, content, the edges of sizes.
   Argument: "pool" when all objects must lie in the pool, "system" when the C library serves. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

typedef void sized(void *, size_t);
typedef void aligned_sized(void *, size_t, size_t);
static int pool;

#define OURS(p) CHECK(in_pool(p) == pool)
#define FAILS(expression, error)        \
    do {                                \
        errno = 0;                      \
        void *got_ = (expression);      \
        CHECK(got_ == NULL);            \
        CHECK(errno == (error));        \
    } while (0)

static void *symbol(const char *name) {
    void *at = dlsym(RTLD_DEFAULT, name);
    CHECK(at != NULL);
    return at;
}

static void symbols_are_ours(void) {
    static const char *names[] = {"malloc", "free", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc",
        "memalign", "valloc", "pvalloc", "malloc_usable_size", "cfree", "free_sized", "free_aligned_sized", "mallinfo",
        "mallinfo2", "mallopt", "malloc_trim", "malloc_stats", "malloc_info", "_ZdlPvm", "_ZdaPvm",
        "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Dl_info info = {0};
        void *at = symbol(names[i]);
        CHECK(at && dladdr(at, &info) && strstr(info.dli_fname, "libmempool_preload.so"));
    }
}

static int is_filled(const unsigned char *p, size_t n, int with) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != with) return 0;
    return 1;
}

static void sizes(void) {
    static const size_t list[] = {0, 1, 8, 15, 16, 17, 24, 100, 128, 129, 255, 256, 257, 1000, 4095, 4096, 8191, 8192, 8193,
        16384, 65535, 65536, 100000, 1 << 20, (1 << 20) + 1, 10000000};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        size_t n = list[i];
        unsigned char *p = malloc(n), *q = malloc(n);
        CHECK(p && q && p != q);
        CHECK(ALIGNED(p, 16) && ALIGNED(q, 16));
        OURS(p);
        CHECK(malloc_usable_size(p) >= n);
        size_t room = malloc_usable_size(p);
        memset(p, 0xa5, room);
        memset(q, 0x5a, malloc_usable_size(q));
        CHECK(is_filled(p, room, 0xa5));
        free(p);
        free(q);
    }
}

static void zeroed(void) {
    for (size_t n = 1; n < 3000000; n = n * 3 + 1) {
        unsigned char *dirty = malloc(n);
        memset(dirty, 0xff, malloc_usable_size(dirty));
        free(dirty);
        unsigned char *p = calloc(1, n);
        CHECK(p && is_filled(p, n, 0) && ALIGNED(p, 16));
        OURS(p);
        free(p);
    }
    unsigned char *p = calloc(1000, 37);
    CHECK(p && is_filled(p, 37000, 0));
    free(p);
    p = calloc(0, 10);
    CHECK(p != NULL);
    free(p);
    p = calloc(10, 0);
    CHECK(p != NULL);
    free(p);
}

static void refusals(void) {
    FAILS(malloc(number(SIZE_MAX)), ENOMEM);
    FAILS(malloc(number((size_t)PTRDIFF_MAX + 1)), ENOMEM);
    FAILS(malloc(number((size_t)1 << 45)), ENOMEM);
    FAILS(calloc(number(SIZE_MAX), 2), ENOMEM);
    FAILS(calloc(number(SIZE_MAX / 2), 3), ENOMEM);
    FAILS(calloc(number((size_t)1 << 32), (size_t)1 << 32), ENOMEM);
    FAILS(calloc(1, number(SIZE_MAX)), ENOMEM);
    FAILS(aligned_alloc(16, number(SIZE_MAX)), ENOMEM);
    FAILS(aligned_alloc(4096, number(SIZE_MAX - 100)), ENOMEM);
    FAILS(aligned_alloc(0, 10), EINVAL);
    FAILS(aligned_alloc(3, 10), EINVAL);
    FAILS(aligned_alloc(number(48), 96), EINVAL);
    FAILS(memalign(number(SIZE_MAX), 10), EINVAL);
    FAILS(memalign(64, number(SIZE_MAX)), ENOMEM);
    FAILS(memalign(number((size_t)1 << 63), 1), ENOMEM);
    FAILS(valloc(number(SIZE_MAX)), ENOMEM);
    FAILS(pvalloc(number(SIZE_MAX)), ENOMEM);
    FAILS(pvalloc(number(SIZE_MAX - 4094)), ENOMEM);
    FAILS(pvalloc(number(SIZE_MAX - 4096)), ENOMEM);
    FAILS(realloc(NULL, number(SIZE_MAX)), ENOMEM);
    FAILS(reallocarray(NULL, number(SIZE_MAX), 2), ENOMEM);
    FAILS(reallocarray(NULL, number((size_t)1 << 33), (size_t)1 << 31), ENOMEM);
    char *kept = malloc(100);
    strcpy(kept, "kept");
    FAILS(realloc(kept, number(SIZE_MAX)), ENOMEM);
    CHECK(strcmp(kept, "kept") == 0);
    FAILS(reallocarray(kept, number(SIZE_MAX), 16), ENOMEM);
    CHECK(strcmp(kept, "kept") == 0);
    free(kept);
}

static void alignments(void) {
    for (size_t align = 1; align <= (size_t)1 << 30; align *= 2) {
        for (size_t k = 0; k < 3; k++) {
            size_t n = k == 0 ? 1 : k == 1 ? 100 : 5000;
            char *p = aligned_alloc(align, n);
            CHECK(p && ALIGNED(p, align));
            OURS(p);
            CHECK(malloc_usable_size(p) >= n);
            p[0] = p[n - 1] = 1;
            free(p);
            p = memalign(align, n);
            CHECK(p && ALIGNED(p, align));
            free(p);
            void *q = (void *)1;
            errno = 77;
            int error = posix_memalign(&q, align, n);
            CHECK(errno == 77);
            if (align < sizeof(void *)) {
                CHECK(error == EINVAL && q == (void *)1);
            } else {
                CHECK(error == 0 && ALIGNED(q, align));
                memset(q, 1, n);
                free(q);
            }
        }
    }
    void *q = (void *)1;
    errno = 77;
    CHECK(posix_memalign(&q, 0, 8) == EINVAL && q == (void *)1);
    CHECK(posix_memalign(&q, 24, 8) == EINVAL && q == (void *)1);
    CHECK(posix_memalign(&q, 4, 8) == EINVAL);
    CHECK(posix_memalign(&q, 64, number(SIZE_MAX)) == ENOMEM && q == (void *)1);
    CHECK(posix_memalign(&q, 16, number((size_t)PTRDIFF_MAX + 1)) == ENOMEM);
    CHECK(errno == 77);
    CHECK(posix_memalign(&q, 64, 0) == 0 && q && ALIGNED(q, 64));
    free(q);
    char *p = memalign(48, 100);
    CHECK(p && ALIGNED(p, 64));
    free(p);
    p = memalign(0, 100);
    CHECK(p && ALIGNED(p, 16));
    free(p);
    p = aligned_alloc(64, 65);
    CHECK(p && ALIGNED(p, 64) && malloc_usable_size(p) >= 65);
    free(p);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    p = valloc(1);
    CHECK(p && ALIGNED(p, page));
    free(p);
    p = valloc(0);
    CHECK(p && ALIGNED(p, page));
    free(p);
    p = pvalloc(1);
    CHECK(p && ALIGNED(p, page) && malloc_usable_size(p) >= page);
    memset(p, 1, page);
    free(p);
    p = pvalloc(page + 1);
    CHECK(p && ALIGNED(p, page) && malloc_usable_size(p) >= 2 * page);
    free(p);
    p = pvalloc(0);
    CHECK(p && ALIGNED(p, page));
    free(p);
}

static void moving(void) {
    char *p = realloc(NULL, 10);
    CHECK(p != NULL);
    OURS(p);
    strcpy(p, "123456789");
    for (size_t n = 20; n < 5000000; n = n * 5 / 2) {
        p = realloc(p, n);
        CHECK(p && strcmp(p, "123456789") == 0 && malloc_usable_size(p) >= n);
        CHECK(ALIGNED(p, 16));
        p[n - 1] = 1;
    }
    for (size_t n = 4000000; n > 10; n /= 3) {
        p = realloc(p, n);
        CHECK(p && strcmp(p, "123456789") == 0);
    }
    errno = 77;
    CHECK(realloc(p, 0) == NULL);
    CHECK(errno == 77);
    p = realloc(NULL, 0);
    CHECK(p != NULL);
    free(p);
    int *numbers = reallocarray(NULL, 10, sizeof *numbers);
    CHECK(numbers != NULL);
    for (int i = 0; i < 10; i++) numbers[i] = i;
    numbers = reallocarray(numbers, 100000, sizeof *numbers);
    int same = numbers != NULL;
    for (int i = 0; same && i < 10; i++) same = numbers[i] == i;
    CHECK(same);
    errno = 77;
    CHECK(reallocarray(numbers, 0, 8) == NULL);
    CHECK(errno == 77);
    p = aligned_alloc(4096, 100);
    memset(p, 7, 100);
    p = realloc(p, 100000);
    CHECK(p && is_filled((unsigned char *)p, 100, 7));
    free(p);
}

static void freeing(void) {
    sized *free_sized_ = (sized *)symbol("free_sized");
    aligned_sized *free_aligned_sized_ = (aligned_sized *)symbol("free_aligned_sized");
    sized *delete_ = (sized *)symbol("_ZdlPvm"), *delete_array = (sized *)symbol("_ZdaPvm");
    void (*cfree_)(void *) = (void (*)(void *))symbol("cfree");
    errno = 77;
    free(NULL);
    cfree_(NULL);
    free_sized_(NULL, 10);
    free_aligned_sized_(NULL, 64, 10);
    delete_(NULL, 10);
    delete_array(NULL, 10);
    CHECK(malloc_usable_size(NULL) == 0);
    CHECK(errno == 77);
    static const size_t list[] = {1, 100, 256, 5000, 8192, 100000, 3000000};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        size_t n = list[i];
        errno = 77;
        free(malloc(n));
        cfree_(malloc(n));
        free_sized_(malloc(n), n);
        free_sized_(realloc(malloc(2 * n), n), n);
        free_sized_(calloc(1, n), n);
        free_aligned_sized_(aligned_alloc(64, n), 64, n);
        free_aligned_sized_(aligned_alloc(1 << 20, n), 1 << 20, n);
        if (pool == 1) {
            delete_(malloc(n), n);
            delete_array(malloc(n), n);
        }
        CHECK(errno == 77);
    }
}

static void inquiries(void) {
    if (pool != 1) return;
    struct mallinfo2 (*info2)(void) = (struct mallinfo2(*)(void))symbol("mallinfo2");
    struct mallinfo2 before = info2();
    void *p = malloc(1 << 20);
    struct mallinfo2 after = info2();
    CHECK(before.arena > 0 && after.arena == before.arena);
    /* A freed object that was a little larger may have been used again. */
    size_t got = malloc_usable_size(p);
    CHECK(got >= 1 << 20 && got <= (1 << 20) * 9 / 8);
    CHECK(after.uordblks == before.uordblks + got);
    CHECK(after.hblkhd == before.hblkhd + got);
    CHECK(after.hblks == before.hblks + 1);
    CHECK(after.fordblks == before.fordblks - got);
    CHECK(after.keepcost <= after.fordblks);
    struct mallinfo (*info)(void) = (struct mallinfo(*)(void))symbol("mallinfo");
    struct mallinfo old = info();
    CHECK(old.hblkhd == (int)after.hblkhd);
    CHECK(old.uordblks == (int)after.uordblks);
    free(p);
    CHECK(info2().hblks == before.hblks);
    CHECK(mallopt(M_MMAP_THRESHOLD, 100000) == 1);
    CHECK(mallopt(M_ARENA_MAX, 1) == 1);
    CHECK(mallopt(M_MXFAST, 64) == 1);
    CHECK(mallopt(12345, 1) == 0);
    p = malloc(8 << 20);
    memset(p, 1, 8 << 20);
    free(p);
    CHECK(malloc_trim(0) == 1);
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(malloc_info(0, stream) == 0);
    fclose(stream);
    CHECK(text && strstr(text, "<malloc version=\"mempool-1\">") == text);
    CHECK(text && strstr(text, "</malloc>"));
    free(text);
    errno = 0;
    CHECK(malloc_info(1, stdout) == -1 && errno == EINVAL);
}

/* What the C library allocates inside itself must be ours too, since the program frees it. */
static void through_the_library(void) {
    char *s = strdup("text");
    OURS(s);
    free(s);
    s = NULL;
    CHECK(asprintf(&s, "%d", 42) == 2);
    OURS(s);
    free(s);
    s = realpath("/", NULL);
    OURS(s);
    free(s);
    s = getcwd(NULL, 0);
    OURS(s);
    free(s);
    FILE *f = fopen("/proc/self/status", "r");
    char *line = NULL;
    size_t n = 0;
    CHECK(getline(&line, &n, f) > 0);
    OURS(line);
    free(line);
    fclose(f);
}

static void *worker(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    enum { N = 300 };
    unsigned char *live[N] = {0};
    size_t size[N] = {0};
    int bad = 0;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1103515245 + 12345;
        int k = (seed >> 8) % N;
        if (live[k]) {
            unsigned char mark = (unsigned char)(k + size[k]);
            bad += live[k][0] != mark || live[k][size[k] - 1] != mark;
            free(live[k]);
        }
        size[k] = 1 + (seed >> 16) % (i % 100 ? 700 : 40000);
        live[k] = i % 7 ? malloc(size[k]) : calloc(1, size[k]);
        if (!live[k]) return (void *)1;
        memset(live[k], (int)(k + size[k]), size[k]);
    }
    for (int k = 0; k < N; k++) free(live[k]);
    return (void *)(uintptr_t)bad;
}

static void *give(void *argument) {
    void **box = argument;
    for (int i = 0; i < 2000; i++) box[i] = malloc((size_t)(i % 300));
    return NULL;
}

static void threads(void) {
    pthread_t thread[8];
    for (uintptr_t i = 0; i < 8; i++) CHECK(pthread_create(&thread[i], NULL, worker, (void *)(i + 1)) == 0);
    for (int i = 0; i < 8; i++) {
        void *bad = NULL;
        CHECK(pthread_join(thread[i], &bad) == 0);
        CHECK(bad == NULL);
    }
    static void *box[2000];
    for (int round = 0; round < 10; round++) {
        pthread_create(&thread[0], NULL, give, box);
        pthread_join(thread[0], NULL);
        for (int i = 0; i < 2000; i++) free(box[i]);
    }
    CHECK(1);
}

/* Among others that lie anywhere, so that no address is a multiple by chance. */
static void aligned_among_others(void) {
    enum { MANY = 200 };
    static char *kept[2 * MANY];
    for (size_t align = 16; align <= 4096; align *= 2) {
        size_t wrong = 0;
        for (size_t k = 0; k < MANY; k++) {
            size_t n = 1 + k * 37 % 250;
            kept[2 * k] = malloc(n % 60 + 1);
            kept[2 * k + 1] = k % 2 ? aligned_alloc(align, n) : memalign(align, n);
            wrong += !kept[2 * k + 1] || !ALIGNED(kept[2 * k + 1], align);
        }
        CHECK(wrong == 0);
        for (size_t k = 0; k < 2 * MANY; k++) free(kept[k]);
    }
}

int main(int argc, char **argv) {
    pool = argc > 1 && strcmp(argv[1], "pool") == 0;
    if (pool) symbols_are_ours();
    sizes();
    zeroed();
    refusals();
    alignments();
    aligned_among_others();
    moving();
    freeing();
    inquiries();
    through_the_library();
    threads();
    return report();
}
