// A program that replaces one unsized form of new and delete: the sized form must end in its own.
#include "check.h"
#include <initializer_list>
#include <new>

static int news, deletes;
enum { HEAD = 64 };

static void *take(size_t n) {
    news++;
    char *p = static_cast<char *>(malloc(n + HEAD));
    return p + HEAD;
}
static void drop(void *p) {
    deletes++;
    free(static_cast<char *>(p) - HEAD);
}

#if defined(PLAIN)
void *operator new(size_t n) { return take(n); }
void operator delete(void *p) noexcept { drop(p); }
#elif defined(ARRAY)
void *operator new[](size_t n) { return take(n); }
void operator delete[](void *p) noexcept { drop(p); }
#elif defined(ALIGNED)
#undef ALIGNED
void *operator new(size_t n, std::align_val_t) { return take(n); }
void operator delete(void *p, std::align_val_t) noexcept { drop(p); }
#define WITH_ALIGNMENT
#endif

int main() {
    for (size_t n : {size_t(8), size_t(100), size_t(100000)}) {
#if defined(PLAIN)
        ::operator delete(::operator new(n), n);
        ::operator delete[](::operator new[](n), n);
#elif defined(WITH_ALIGNMENT)
        std::align_val_t a{64};
        ::operator delete(::operator new(n, a), n, a);
        ::operator delete[](::operator new[](n, a), n, a);
#else
        ::operator delete[](::operator new[](n), n);
        void *p = ::operator new(n);
        CHECK(in_pool(p) == 1);
        ::operator delete(p, n);
        news++, deletes++;
#endif
    }
    CHECK(news == 6);
    CHECK(deletes == 6);
    void *p = malloc(10);
    CHECK(in_pool(p) == 1);
    free(p);
    return report();
}
