/* Opens the library at run time, without preload: it serves who asks it by its handle, and nobody else. */
#include "check.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(handle != NULL);
    void *(*take)(size_t) = (void *(*)(size_t))dlsym(handle, "malloc");
    void (*drop)(void *) = (void (*)(void *))dlsym(handle, "free");
    int (*contains)(const void *) = (int (*)(const void *))dlsym(handle, "mempool_preload_contains");
    CHECK(take && drop && contains);
    char *mine = malloc(100), *pools = take(100);
    CHECK(contains(pools) == 1);
    CHECK(contains(mine) == 0);
    CHECK((void *)take != (void *)malloc);
    free(mine);
    for (int i = 0; i < 200; i++) {
        CHECK(dlclose(handle) == 0);
        strcpy(pools, "still here");
        drop(pools);
        pools = take((size_t)i * 100);
        CHECK(contains(pools) == 1);
        handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        CHECK(handle != NULL);
    }
    drop(pools);
    return report();
}
