/* The shared library, loaded by a program that was not linked with it, from threads; closed while one that used it lives. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* By one thread at a time. */
static int opened;

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
    opened++;
    free(before);
    return library;
}

static void *outlive(void *used) {
    work(((void **)used)[0]);
    pthread_barrier_wait(((void **)used)[1]);
    pthread_barrier_wait(((void **)used)[1]);
    return NULL;
}

/* What the library asked to be called at a thread's end is still there. */
static int closed_meanwhile(void *path) {
    pthread_barrier_t barrier;
    void *used[2];
    pthread_t thread;
    void *library;
    used[0] = path, used[1] = &barrier;
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, outlive, used) != 0) {
        return 1;
    }
    pthread_barrier_wait(&barrier);
    while ((library = dlopen(path, RTLD_NOW | RTLD_NOLOAD)) != NULL && opened-- > 0) {
        dlclose(library), dlclose(library);
    }
    pthread_barrier_wait(&barrier);
    return pthread_join(thread, NULL);
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
    if (worked == NULL || work(arguments[count - 1]) == NULL) {
        return 1;
    }
    return closed_meanwhile(arguments[count - 1]);
}
