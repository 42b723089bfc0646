/* Checks that count themselves. */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int checks, failures;

#define CHECK(condition)                                                              \
    do {                                                                              \
        __atomic_add_fetch(&checks, 1, __ATOMIC_RELAXED);                             \
        if (!(condition)) {                                                           \
            __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);           \
        }                                                                             \
    } while (0)

/* The library's own witness: 1 when the address lies in the pool; -1 when the library is not there. */
static int in_pool(const void *address) {
    static int (*contains)(const void *);
    if (!contains) contains = (int (*)(const void *))dlsym(RTLD_DEFAULT, "mempool_preload_contains");
    return contains ? contains(address) : -1;
}

static inline int report(void) {
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#define ALIGNED(pointer, align) (((uintptr_t)(pointer) & ((align) - 1)) == 0)

/* Hides a value from the optimiser. */
static inline void *opaque(void *p) {
    __asm__ volatile("" : "+r"(p));
    return p;
}
static inline size_t number(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n;
}
