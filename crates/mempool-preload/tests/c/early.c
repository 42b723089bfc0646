/* Functions of the C library that are replaced by others, which allocate: they are called while the pool is made. */
#include "check.h"
#include <sys/mman.h>
#include <sys/syscall.h>

static void *kept[3];

static void allocate(void) {
    if (kept[0]) return;
    kept[0] = malloc(100);
    memset(kept[0], 1, 100);
    kept[1] = calloc(30, 10);
    kept[2] = aligned_alloc(256, 512);
    free(malloc(50));
    kept[0] = realloc(kept[0], 3000);
    malloc_usable_size(kept[0]);
}

pid_t getpid(void) {
    allocate();
    return (pid_t)syscall(SYS_getpid);
}

int mprotect(void *start, size_t bytes, int rights) {
    allocate();
    return (int)syscall(SYS_mprotect, start, bytes, rights);
}

int main(void) {
    /* The first of all allocations, if there was none before. */
    void *p = malloc(10);
    if (!kept[0]) return puts("nobody called getpid or mprotect"), 1;
    if (in_pool(kept[0]) == 1) return puts("served by a pool that was not there"), 1;
    if (in_pool(p) != 1) return puts("not served by the pool"), 1;
    for (int i = 0; i < 100; i++)
        if (((char *)kept[0])[i] != 1) return puts("content lost"), 1;
    for (int i = 0; i < 300; i++)
        if (((char *)kept[1])[i] != 0) return puts("not zero"), 1;
    if ((uintptr_t)kept[2] % 256) return puts("not aligned"), 1;
    if (malloc_usable_size(kept[0]) < 3000) return puts("size unknown"), 1;
    kept[0] = realloc(kept[0], 9000);
    if (in_pool(kept[0]) != 1 || ((char *)kept[0])[99] != 1) return puts("not moved to the pool"), 1;
    for (int i = 0; i < 3; i++) free(kept[i]);
    puts("ok");
    return 0;
}
