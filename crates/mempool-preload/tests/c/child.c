/* Page faults of a child of a fork that allocates once, the most of ten. */
#include "check.h"
#include <sys/resource.h>
#include <sys/wait.h>

int main(void) {
    long most = 0;
    free(malloc(100));
    for (int i = 0; i < 10; i++) {
        struct rusage before, after;
        getrusage(RUSAGE_CHILDREN, &before);
        pid_t child = fork();
        if (!child) {
            free(malloc(200));
            _exit(0);
        }
        waitpid(child, NULL, 0);
        getrusage(RUSAGE_CHILDREN, &after);
        long faults = after.ru_minflt - before.ru_minflt;
        if (faults > most) most = faults;
    }
    printf("%ld\n", most);
    return 0;
}
