/* Threads: everybody allocates, others free; a thread's errors are its own; fork with threads at work. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 20000

struct node {
    struct node *next;
    size_t size;
};

static mp_cache_t nodes;
static struct node *box[THREADS];
static int stop;

static unsigned next(unsigned *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

/* Hands objects round: each thread fills others' boxes and empties its own. */
static void *pass_on(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument, seed = me + 1, i;
    int intact = 1;
    for (i = 0; i < ROUNDS; i++) {
        size_t size = sizeof(struct node) + next(&seed) % 2000;
        struct node *mine = mp_malloc(size), *taken;
        memset(mine, (int)me, size);
        mine->size = size;
        mine->next = __atomic_exchange_n(&box[next(&seed) % THREADS], NULL, __ATOMIC_ACQUIRE);
        for (taken = mine->next; taken != NULL;) {
            struct node *after = taken->next;
            intact &= mp_usable_size(taken) >= taken->size;
            errno = 4711;
            mp_free(taken);
            intact &= errno == 4711;
            taken = after;
        }
        mine->next = NULL;
        taken = __atomic_exchange_n(&box[next(&seed) % THREADS], mine, __ATOMIC_ACQ_REL);
        mp_free(taken);
    }
    CHECK(intact);
    return NULL;
}

static void *use_cache(void *argument) {
    struct node **other = argument;
    unsigned i;
    for (i = 0; i < ROUNDS; i++) {
        struct node *mine = mp_cache_alloc(&nodes);
        mine->size = i;
        mp_cache_free(&nodes, __atomic_exchange_n(other, mine, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void *own_errors(void *argument) {
    CHECK(strcmp(mempool_last_error(), "") == 0);
    CHECK(mp_aligned_alloc(3, 1) == NULL);
    SAYS("alignment of 3 bytes");
    (void)argument;
    return NULL;
}

static int made, refused;

/* Many make the pool at once: one does, the others are told so, and all may use it. */
static void *make(void *argument) {
    int code = mempool_init();
    __atomic_fetch_add(code == MEMPOOL_OK ? &made : &refused, 1, __ATOMIC_RELAXED);
    CHECK(code == MEMPOOL_OK || code == MEMPOOL_ERROR_ALREADY_INITIALISED || code == MEMPOOL_ERROR_BUSY);
    mp_free(mp_malloc(100));
    CHECK(mempool_is_ready());
    return argument;
}

static void together(void *(*work)(void *), void *(*argument)(unsigned)) {
    pthread_t threads[THREADS];
    unsigned i;
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, argument(i)) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static void *number(unsigned i) {
    return (void *)(uintptr_t)i;
}

static void *shared_place(unsigned i) {
    return &box[i / 2];
}

static void *churn(void *argument) {
    unsigned seed = 7;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        mp_free(mp_realloc(mp_malloc(next(&seed) % 5000), next(&seed) % 20000));
    }
    return argument;
}

static int child(void *inherited) {
    unsigned i;
    mp_cache_t cache;
    pthread_t thread;
    mp_free(inherited);
    mp_cache_init_impl(&cache, "child", 48);
    for (i = 0; i < 1000; i++) {
        mp_cache_free(&cache, mp_cache_alloc(&cache));
        mp_free(mp_malloc(i * 10));
    }
    mp_cache_destroy(&cache);
    if (pthread_create(&thread, NULL, own_errors, NULL) != 0 || pthread_join(thread, NULL) != 0) {
        return 2;
    }
    return failures != 0 || mempool_verify() != MEMPOOL_OK;
}

static void forks(void) {
    pthread_t threads[2];
    unsigned i;
    for (i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0);
    }
    for (i = 0; i < 50; i++) {
        void *inherited = mp_malloc(i * 100);
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60);
            _exit(child(inherited));
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        mp_free(inherited);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

int main(void) {
    unsigned i;
    CHECK(setenv("MEMPOOL_SEGMENT", "8M", 1) == 0);
    together(make, number);
    CHECK(made == 1 && refused == THREADS - 1);
    mempool_fini();
    make_pool(MEMPOOL_EXHAUSTED_ABORT, 64 << 20);
    together(pass_on, number);
    for (i = 0; i < THREADS; i++) {
        mp_free(box[i]);
        box[i] = NULL;
    }
    CHECK(live_objects() == 0);
    mp_cache_init(&nodes, struct node);
    together(use_cache, shared_place);
    for (i = 0; i < THREADS; i++) {
        mp_cache_free(&nodes, box[i]);
        box[i] = NULL;
    }
    CHECK(mp_cache_live(&nodes) == 0);
    mp_cache_destroy(&nodes);
    together(own_errors, number);
    CHECK(strcmp(mempool_last_error(), "") == 0);
    forks();
    CHECK(live_objects() == 0);
    CHECK(mempool_verify() == MEMPOOL_OK);
    mempool_fini();
    return done();
}
