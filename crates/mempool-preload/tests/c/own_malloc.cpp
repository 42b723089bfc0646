// A program with a malloc of its own, which never gives memory back: what it frees must end there.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

static char room[1 << 24];
static size_t used;
static int frees;

static bool is_own(void *p) { return p >= room && p < room + sizeof room; }

extern "C" {
void *memalign(size_t align, size_t n) {
    // The C library frees what it has from here, too.
    size_t at = (__atomic_fetch_add(&used, n + 2 * align + 16, __ATOMIC_RELAXED) + 16 + align - 1) & ~(align - 1);
    if (at + n > sizeof room) return nullptr;
    memcpy(room + at - 8, &n, 8);
    return room + at;
}
void *malloc(size_t n) { return memalign(16, n); }
void *calloc(size_t a, size_t b) { return malloc(a * b); }
void *realloc(void *old, size_t n) {
    size_t was = 0;
    void *p = malloc(n);
    if (old != nullptr) memcpy(&was, static_cast<char *>(old) - 8, 8);
    return p == nullptr || old == nullptr ? p : memcpy(p, old, was < n ? was : n);
}
void *aligned_alloc(size_t align, size_t n) { return memalign(align, n); }
int posix_memalign(void **out, size_t align, size_t n) { return *out = memalign(align, n), 0; }
void free(void *p) { frees += p != nullptr; }
}

int main() {
    // What a program calls by its address looks as if it were its own; here it is.
    void (*volatile by_address)(void *) = free;
    by_address(malloc(1));
    frees = 0;
    bool own = true;
    for (size_t n : {size_t(8), size_t(100), size_t(100000)}) {
        void *p = ::operator new(n), *q = ::operator new[](n);
        own &= is_own(p) && is_own(q);
        ::operator delete(p, n);
        ::operator delete[](q, n);
#if __cplusplus >= 201703L
        std::align_val_t a{64};
        p = ::operator new(n, a), q = ::operator new[](n, a);
        own &= is_own(p) && is_own(q);
        ::operator delete(p, n, a);
        ::operator delete[](q, n, a);
#endif
    }
    printf("own %d frees %d\n", own, frees);
    return 0;
}
