/* How long a refusal takes in a program with one thread, and with two: milliseconds of each. */
#include "check.h"
#include <pthread.h>
#include <time.h>

static long refusal(void) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (malloc(40 << 20)) return -1;
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
}

static void *sleeper(void *unused) {
    (void)unused;
    for (;;) sleep(1000);
}

int main(void) {
    pthread_t thread;
    void *most = malloc(48 << 20);
    long one = most ? refusal() : -1;
    /* The least of three: who does not wait may still have to wait for a processor. */
    for (int i = 0; i < 2; i++) {
        long again = refusal();
        if (again < one) one = again;
    }
    pthread_create(&thread, NULL, sleeper, NULL);
    printf("%ld %ld\n", one, refusal());
    return 0;
}
