/* keys THREADS: threads, one at a time, that hand an object on, and free another one when they end, in the destructor of a key, where they
   have no local heap any more. What they leave must serve those that follow: 1 MiB is had at the end. */
#include "check.h"
#include <pthread.h>

static pthread_key_t key;
static void *volatile ring[3000];
static int at;

static void destroy(void *object) { free(object); }

static void *visit(void *unused) {
    void *old = ring[at];
    CHECK(pthread_setspecific(key, malloc(100)) == 0);
    ring[at] = malloc(100);
    at = (at + 1) % 3000;
    free(old);
    return unused;
}

int main(int count, char **words) {
    int threads = count > 1 ? atoi(words[1]) : 0;
    CHECK(pthread_key_create(&key, destroy) == 0);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, visit, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(malloc(1 << 20) != NULL);
    return 0;
}
