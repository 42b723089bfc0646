/* How much of the caller's stack a refused request takes: a thread's may have 16 KiB in all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static ucontext_t back, there;

static void work(void) {
    while (malloc(3000) != NULL) {}
    swapcontext(&there, &back);
}

int main(void) {
    const size_t bytes = 1 << 18;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) return 2;
    memset(stack, 0xa5, bytes);
    free(malloc(1));
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = bytes;
    makecontext(&there, work, 0);
    swapcontext(&back, &there);
    size_t rest = 0;
    while (stack[rest] == (char)0xa5) rest++;
    printf("%zu\n", bytes - rest);
    return 0;
}
