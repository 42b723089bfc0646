/* Allocates at unusual moments. */
#include "check.h"

static void *kept[8];

/* Written with the plain system call: stdio may not be there yet. */
static void moment(const char *name, int k) {
    char line[80];
    void *p = malloc(100 + (size_t)k);
    int served = p && in_pool(p) == 1 && in_pool(kept[k - 1]) == 1;
    memset(p, k, 100);
    p = realloc(p, 5000);
    served = served && ((char *)p)[99] == k;
    free(kept[k - 1]);
    kept[k] = p;
    int n = snprintf(line, sizeof line, "%s %s\n", name, served ? "served" : "NOT SERVED");
    write(1, line, (size_t)n);
}

__attribute__((constructor(101))) static void first(void) {
    kept[0] = malloc(100);
    moment("early constructor", 1);
}
__attribute__((constructor)) static void second(void) { moment("constructor", 2); }
__attribute__((destructor)) static void one_but_last(void) { moment("destructor", 5); }
__attribute__((destructor(101))) static void last(void) { moment("late destructor", 6); }
static void at_exit(void) { moment("atexit", 4); }

int main(void) {
    moment("main", 3);
    atexit(at_exit);
    return 0;
}
