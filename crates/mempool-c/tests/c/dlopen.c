/* The shared library, loaded by a program that was not linked with it, from a thread. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *work(void *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *(*allocate)(size_t), *before = malloc(10);
    void (*give)(void *);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return NULL;
    }
    if (dlsym(library, "malloc") != dlsym(RTLD_DEFAULT, "malloc")) {
        fprintf(stderr, "the library has a malloc\n");
        return NULL;
    }
    *(void **)&allocate = dlsym(library, "mp_malloc");
    *(void **)&give = dlsym(library, "mp_free");
    give(allocate(100));
    free(before);
    return library;
}

int main(int count, char **arguments) {
    pthread_t thread;
    void *worked = NULL;
    int i;
    for (i = 0; i < 3; i++) {
        if (pthread_create(&thread, NULL, work, arguments[count - 1]) != 0 || pthread_join(thread, &worked) != 0) {
            return 2;
        }
    }
    return worked == NULL || work(arguments[count - 1]) == NULL;
}
