/* A fork while another thread makes the pool: the child, which has no such thread, makes one for itself. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void *maker(void *unused) {
    (void)unused;
    return mp_malloc(100);
}

int main(void) {
    pthread_t thread;
    int i, status;
    CHECK(pthread_create(&thread, NULL, maker, NULL) == 0);
    for (i = 0; i < 20; i++) {
        pid_t pid;
        usleep(2000);
        pid = fork();
        if (pid == 0) {
            void *object;
            alarm(60);
            object = mp_malloc(200);
            mp_free(object);
            _exit(object ? 0 : 1);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    return done();
}
