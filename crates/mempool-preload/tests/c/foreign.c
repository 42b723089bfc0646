/* Objects that the C library handed out behind the pool's back. */
#include "check.h"
#include <malloc.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_memalign(size_t, size_t);

int main(int argc, char **argv) {
    int system = argc > 1 && strcmp(argv[1], "system") == 0;
    void *first = malloc(1);
    CHECK(in_pool(first) == !system);
    for (size_t n = 1; n < 100000; n *= 7) {
        char *p = __libc_malloc(n);
        CHECK(in_pool(p) == 0);
        CHECK(malloc_usable_size(p) >= n);
        errno = 77;
        free(p);
        CHECK(errno == 77);
        p = __libc_calloc(1, n);
        memset(p, 7, n);
        p = realloc(p, n + 50);
        CHECK(p[0] == 7 && p[n - 1] == 7);
        CHECK(in_pool(p) == !system);
        free(p);
        p = __libc_memalign(64, n);
        p = realloc(p, n / 2 + 1);
        CHECK(p != NULL);
        free(p);
    }
    CHECK(realloc(__libc_malloc(10), 0) == NULL);
    free(first);
    return report();
}
