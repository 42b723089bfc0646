/* A fork handler that the program asked for before there was a pool uses it in the child, while threads of the parent's were
 * in the middle of what only one can do at a time. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void in_child(void) {
    alarm(60);
    mp_free(mp_malloc(100)), mp_free(mp_malloc(100000));
}

static void *work(void *unused) {
    (void)unused;
    for (;;) {
        void *objects[50];
        size_t i;
        for (i = 0; i < 50; i++) {
            objects[i] = mp_malloc(i * 100 + 1);
        }
        for (i = 0; i < 50; i++) {
            mp_free(objects[i]);
        }
    }
    return NULL;
}

static void *brief(void *unused) {
    (void)unused;
    mp_free(mp_malloc(100));
    return NULL;
}

static void *births(void *unused) {
    (void)unused;
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, brief, NULL) == 0) {
            pthread_join(thread, NULL);
        }
    }
    return NULL;
}

int main(void) {
    pthread_t threads[5];
    int i;
    CHECK(pthread_atfork(NULL, NULL, in_child) == 0);
    /* So few that they share a local heap. */
    CHECK(setenv("MEMPOOL_MAX_THREADS", "1", 1) == 0 && setenv("MEMPOOL_SEGMENT", "16M", 1) == 0);
    CHECK(mempool_init() == MEMPOOL_OK);
    for (i = 0; i < 5; i++) {
        CHECK(pthread_create(&threads[i], NULL, i == 0 ? births : work, NULL) == 0);
    }
    for (i = 0; i < 200; i++) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) {
            _exit(mempool_verify());
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    }
    return done();
}
