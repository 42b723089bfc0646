// A library as jemalloc is: its operator new makes objects without a call of malloc, its operator delete calls free. And a program linked with it.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

#ifdef LIBRARY
alignas(16) static char room[1 << 20];
static size_t used;
int freed;

static void *get(size_t n) {
    size_t at = used;
    used += (n + 15) & ~size_t{15};
    return used <= sizeof room ? room + at : nullptr;
}
extern "C" void *malloc(size_t n) { return get(n); }
extern "C" void free(void *p) { freed += p >= room && p < room + sizeof room ? 1 : p == nullptr ? 0 : 1000; }
void *operator new(size_t n) { return get(n); }
void operator delete(void *p) noexcept { free(p); }
#else
extern int freed;

int main() {
    int *volatile a = new int(7);
    struct Large { char bytes[5000]; };
    Large *volatile b = new Large[3];
    void *volatile c = malloc(100);
    int was = *a;
    delete a;
    delete[] b;
    free(c);
    printf("was %d freed %d\n", was, freed);
}
#endif
