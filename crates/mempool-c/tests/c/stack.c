/* How much of the caller's stack a first use takes, which makes the pool: a thread's may have 16 KiB in all. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "check.h"

static ucontext_t back, there;
static int use;
static mp_cache_t cache;

static void work(void) {
    switch (use) {
    case 0:
        CHECK(mempool_init() == MEMPOOL_OK);
        break;
    case 1:
        CHECK(mp_malloc(100) != NULL);
        break;
    default:
        mp_cache_init(&cache, int);
    }
    swapcontext(&there, &back);
}

/* Bytes that it takes. */
static size_t taken(void) {
    const size_t bytes = 1 << 18;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t rest = 0;
    CHECK(stack != MAP_FAILED);
    memset(stack, 0xa5, bytes);
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = bytes;
    makecontext(&there, work, 0);
    swapcontext(&back, &there);
    while (stack[rest] == (char)0xa5) {
        rest++;
    }
    return bytes - rest;
}

int main(void) {
    for (use = 0; use < 3; use++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            size_t bytes = taken();
            CHECK(mempool_is_ready());
            CHECK(bytes < 10 << 10);
            if (bytes >= 10 << 10) {
                fprintf(stderr, "first use %d: %zu bytes\n", use, bytes);
            }
            _exit(failures != 0);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return done();
}
