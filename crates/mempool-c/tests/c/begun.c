/* A fork while another thread makes or ends the pool: the child, which has no such thread, makes one for itself or is told
 * that there is none. Its own threads may lie where the other one lay. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static int stop;

static void *maker(void *unused) {
    (void)unused;
    return mp_malloc(100);
}

static void *user(void *unused) {
    void *object = mp_malloc(200);
    (void)unused;
    mp_free(object);
    return object;
}

/* As user, in new threads: the first one in the way of the maker, the second one not. */
static void *users(void) {
    pthread_attr_t small;
    pthread_t threads[2];
    void *first = NULL, *second = NULL;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 16);
    if (pthread_create(&threads[0], NULL, user, NULL) != 0 || pthread_create(&threads[1], &small, user, NULL) != 0 ||
        pthread_join(threads[0], &first) != 0 || pthread_join(threads[1], &second) != 0) {
        return NULL;
    }
    return first == NULL ? NULL : second;
}

static void *lives(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        mempool_init();
        mempool_fini_quiet(NULL, NULL);
    }
    return NULL;
}

/* What a child found out. */
static int outcome(pid_t pid) {
    int status = -1;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

int main(void) {
    pthread_t thread;
    int i;
    CHECK(pthread_create(&thread, NULL, maker, NULL) == 0);
    for (i = 0; i < 20; i++) {
        pid_t pid;
        usleep(2000);
        pid = fork();
        if (pid == 0) {
            alarm(60);
            _exit((i % 2 == 0 ? user(NULL) : users()) == NULL);
        }
        CHECK(outcome(pid) == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(mempool_fini_quiet(NULL, NULL) == MEMPOOL_OK);
    CHECK(setenv("MEMPOOL_SEGMENT", "4M", 1) == 0 && pthread_create(&thread, NULL, lives, NULL) == 0);
    for (i = 0; i < 200; i++) {
        pid_t pid;
        usleep(i * 37 % 5000);
        pid = fork();
        if (pid == 0) {
            void *object;
            int code;
            alarm(60);
            object = mp_try_malloc(100);
            mp_free(object);
            code = mempool_init();
            _exit(code != MEMPOOL_OK && code != MEMPOOL_ERROR_ALREADY_INITIALISED);
        }
        CHECK(outcome(pid) == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    return done();
}
