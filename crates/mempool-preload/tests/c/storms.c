/* Storms. Argument: fork, exit, dlopen, spawn. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static volatile int stop;

static unsigned next(unsigned *seed) { return *seed = *seed * 1103515245 + 12345, *seed >> 8; }

/* What a child of a fork does at once: all tiers, then a fork of its own now and then. */
static int work(unsigned seed) {
    char *live[64] = {0};
    for (int i = 0; i < 300; i++) {
        unsigned k = next(&seed) % 64;
        size_t n = 1 + next(&seed) % (i % 20 ? 900 : 200000);
        free(live[k]);
        live[k] = malloc(n);
        if (!live[k]) return 1;
        live[k][0] = live[k][n - 1] = (char)k;
    }
    for (int k = 0; k < 64; k++) free(live[k]);
    return 0;
}

/* A child that hangs is killed by its alarm and so is found. */
static int wait_well(pid_t child) {
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void *churn(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    while (!stop) CHECK(work(next(&seed)) == 0);
    return NULL;
}

/* TRUST: threads fork, use stdio and flush all streams at once. */
static void *forker(void *argument) {
    int forks = *(int *)argument;
    for (int i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            int bad = work((unsigned)i);
            FILE *f = fopen("/dev/null", "w");
            fprintf(f, "%d", i);
            fflush(NULL);
            if (i % 50 == 0) {
                pid_t grandchild = fork();
                if (grandchild == 0) _exit(work((unsigned)i + 1));
                bad |= !wait_well(grandchild);
            }
            _exit(bad);
        }
        CHECK(wait_well(child));
    }
    return NULL;
}

static void *flusher(void *argument) {
    (void)argument;
    while (!stop) {
        FILE *f = fopen("/dev/null", "w");
        if (f) {
            fputs("text", f);
            fflush(NULL);
            fclose(f);
        }
    }
    return NULL;
}

static void fork_storm(int forks) {
    pthread_t churner[3], flush[2], fork_[2];
    forks /= 2;
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&churner[i], NULL, churn, (void *)(i + 1));
    for (int i = 0; i < 2; i++) pthread_create(&flush[i], NULL, flusher, NULL);
    for (int i = 0; i < 2; i++) pthread_create(&fork_[i], NULL, forker, &forks);
    for (int i = 0; i < 2; i++) pthread_join(fork_[i], NULL);
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(churner[i], NULL);
    for (int i = 0; i < 2; i++) pthread_join(flush[i], NULL);
}

/* TRUST: destructors of keys free, allocate and re-arm, up to four times. */
static pthread_key_t keys[3];

static void rearm(void *value) {
    int *rounds = value;
    int left = *rounds - 1;
    free(rounds);
    void *other = malloc(3000);
    memset(other, 1, 3000);
    free(other);
    if (left > 0) {
        int *again = malloc(sizeof *again * 100);
        *again = left;
        for (int i = 0; i < 3; i++)
            if (!pthread_getspecific(keys[i])) {
                pthread_setspecific(keys[i], again);
                return;
            }
        free(again);
    }
}

static void *short_life(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    for (int i = 0; i < 3; i++) {
        int *rounds = malloc(sizeof *rounds * 100);
        *rounds = 4;
        pthread_setspecific(keys[i], rounds);
    }
    for (int i = 0; i < 30; i++) free(malloc(1 + next(&seed) % 4000));
    return strdup("freed by another thread");
}

static long resident_kb(void) {
    long kb = 0;
    char line[200];
    FILE *f = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "VmRSS:", 6) == 0) kb = atol(line + 6);
    fclose(f);
    return kb;
}

static void exit_storm(int threads) {
    enum { AT_ONCE = 8 };
    for (int i = 0; i < 3; i++) pthread_key_create(&keys[i], rearm);
    struct mallinfo2 early = {0}, late;
    long early_kb = 0;
    for (int done = 0; done < threads; done += AT_ONCE) {
        pthread_t thread[AT_ONCE];
        for (uintptr_t i = 0; i < AT_ONCE; i++)
            CHECK(pthread_create(&thread[i], NULL, short_life, (void *)(i + (uintptr_t)done)) == 0);
        for (int i = 0; i < AT_ONCE; i++) {
            void *text = NULL;
            pthread_join(thread[i], &text);
            CHECK(text && strcmp(text, "freed by another thread") == 0);
            free(text);
        }
        if (done / AT_ONCE == threads / AT_ONCE / 10) {
            early = mallinfo2();
            early_kb = resident_kb();
        }
    }
    late = mallinfo2();
    long growth_kb = resident_kb() - early_kb;
    fprintf(stderr, "from %d to %d threads: resident %+ld KiB, in use %+ld bytes\n", threads / 10, threads, growth_kb,
        (long)(late.uordblks - early.uordblks));
    CHECK(growth_kb < 1024);
    CHECK((long)(late.uordblks - early.uordblks) < 65536);
}

/* The library opened once more, and others opened and closed, while threads allocate. */
static void dlopen_storm(int rounds, const char *library) {
    pthread_t thread[3];
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&thread[i], NULL, churn, (void *)(i + 1));
    for (int i = 0; i < rounds; i++) {
        void *again = dlopen(library, RTLD_NOW | (i % 2 ? RTLD_LOCAL : RTLD_GLOBAL));
        CHECK(again != NULL);
        void *(*take)(size_t) = (void *(*)(size_t))dlsym(again, "malloc");
        void *p = take ? take(100) : NULL;
        CHECK(p != NULL);
        void *other = dlopen(i % 3 ? "libm.so.6" : "libgcc_s.so.1", RTLD_NOW);
        CHECK(other != NULL);
        dlclose(again);
        dlclose(other);
        free(p);
        CHECK(dlopen("/nowhere/at/all.so", RTLD_NOW) == NULL && dlerror() != NULL);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
}

static void spawn_storm(int rounds) {
    pthread_t thread[3];
    char *arguments[] = {"true", NULL};
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&thread[i], NULL, churn, (void *)(i + 1));
    for (int i = 0; i < rounds; i++) {
        pid_t child = 0;
        CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0);
        CHECK(wait_well(child));
        child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        CHECK(wait_well(child));
        if (i % 10 == 0) CHECK(system("exit 0") == 0);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
}

int main(int argc, char **argv) {
    int n = argc > 2 ? atoi(argv[2]) : 100;
    alarm(500);
    if (strcmp(argv[1], "fork") == 0) fork_storm(n);
    if (strcmp(argv[1], "exit") == 0) exit_storm(n);
    if (strcmp(argv[1], "dlopen") == 0) dlopen_storm(n, argv[3]);
    if (strcmp(argv[1], "spawn") == 0) spawn_storm(n);
    void *p = malloc(1);
    CHECK(in_pool(p) != 0);
    free(p);
    return report();
}
