// One wrong use per argument. Each prints what it does wrong to standard output, and must not come back.
#include "check.h"
#include <malloc.h>
#include <new>
#include <pthread.h>
#include <sys/mman.h>

extern "C" void free_sized(void *, size_t) __attribute__((weak));
extern "C" void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

static char still[64];

static void *free_it(void *p) {
    free(p);
    return nullptr;
}

static void free_elsewhere(void *p) {
    pthread_t thread;
    pthread_create(&thread, nullptr, free_it, p);
    pthread_join(thread, nullptr);
}

static void misuse(const char *what) {
    auto is = [&](const char *name) { return strcmp(what, name) == 0; };
    char *small = static_cast<char *>(malloc(100)), *large = static_cast<char *>(malloc(1 << 20));
    char *keep[200];
    for (auto &k : keep) k = static_cast<char *>(malloc(100));
    char on_stack[64];
    if (is("double")) free(small), free(opaque(small));
    if (is("double-later")) {
        free(small);
        for (int i = 0; i < 50; i++) free(keep[i]);
        free(opaque(small));
    }
    if (is("double-elsewhere")) free(small), free_elsewhere(opaque(small));
    if (is("double-large")) free(large), free(opaque(large));
    if (is("realloc-freed")) free(small), opaque(realloc(opaque(small), 5000));
    if (is("usable-freed")) free(small), number(malloc_usable_size(opaque(small)));
    if (is("interior")) free(opaque(small + 16));
    if (is("misaligned")) free(opaque(small + 1));
    if (is("interior-large")) free(opaque(large + 4096));
    if (is("realloc-interior")) opaque(realloc(opaque(small + 32), 10));
    if (is("stack")) free(opaque(on_stack));
    if (is("static")) free(opaque(still));
    if (is("wild")) free(opaque(reinterpret_cast<void *>(0x123456789a0)));
    if (is("code")) free(opaque(reinterpret_cast<void *>(&misuse)));
    if (is("mapped")) free(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (is("usable-stack")) number(malloc_usable_size(opaque(on_stack)));
    if (is("realloc-static")) opaque(realloc(opaque(still), 100));
    if (is("sized-small")) ::operator delete(::operator new(100), number(10));
    if (is("sized-large")) ::operator delete(::operator new(100), number(200));
    if (is("sized-array")) ::operator delete[](::operator new[](5000), number(100));
    if (is("sized-run")) ::operator delete(::operator new(100000), number(80000));
    if (is("sized-aligned")) ::operator delete(::operator new(1000, std::align_val_t{64}), number(5000), std::align_val_t{64});
    if (is("sized-alignment")) {
        while ((reinterpret_cast<uintptr_t>(small) & 4095) == 0) small = static_cast<char *>(malloc(100));
        ::operator delete(opaque(small), 100, std::align_val_t{4096});
    }
    if (is("sized-twice")) {
        void *p = ::operator new(100);
        ::operator delete(p, number(100));
        ::operator delete(opaque(p), number(100));
    }
    if (is("free_sized")) free_sized(small, number(113));
    if (is("free_aligned_sized")) free_aligned_sized(small, 3, 100);
    if (is("new-twice")) {
        int *p = new int[50];
        delete[] p;
        delete[] static_cast<int *>(opaque(p));
    }
}

int main(int, char **argv) {
    misuse(argv[1]);
    printf("%s came back\n", argv[1]);
    return 0;
}
