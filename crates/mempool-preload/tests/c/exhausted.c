/* Fills the pool, then asks each function for more. */
#include "check.h"
#include <malloc.h>

#define FAILS(expression)          \
    do {                           \
        errno = 0;                 \
        void *got_ = (expression); \
        CHECK(got_ == NULL);       \
        CHECK(errno == ENOMEM);    \
    } while (0)

int main(void) {
    enum { N = 1000, SIZE = 1 << 20 };
    static void *live[N];
    int n = 0;
    while (n < N && (live[n] = malloc(SIZE))) {
        memset(live[n], n, SIZE);
        n++;
    }
    CHECK(n >= 5 && n < N);
    CHECK(errno == ENOMEM);
    FAILS(malloc(SIZE));
    FAILS(calloc(SIZE, 1));
    FAILS(realloc(NULL, SIZE));
    FAILS(reallocarray(NULL, 1024, 1024));
    FAILS(aligned_alloc(4096, SIZE));
    FAILS(memalign(4096, SIZE));
    FAILS(valloc(SIZE));
    FAILS(pvalloc(SIZE));
    FAILS(realloc(live[0], 3 * SIZE));
    CHECK(((char *)live[0])[SIZE - 1] == 0);
    void *kept = (void *)1;
    errno = 77;
    CHECK(posix_memalign(&kept, 4096, SIZE) == ENOMEM && kept == (void *)1 && errno == 77);
    CHECK(((char *)live[1])[5] == 1);
    for (int i = 0; i < n; i++) free(live[i]);
    CHECK(errno == 77);
    void *again = malloc(SIZE);
    CHECK(again != NULL);
    free(again);
    return report();
}
