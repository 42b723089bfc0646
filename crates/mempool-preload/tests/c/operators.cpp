// All forms of new and delete.
#include "check.h"
#include <cstddef>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

static int handled;
static void handler() {
    if (++handled == 3) std::set_new_handler(nullptr);
}

template <class F> static bool throws_bad_alloc(F f) {
    try {
        f();
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

struct Polymorphic {
    virtual ~Polymorphic() {}
    long a = 1;
};
struct Derived : Polymorphic {
    char b[300] = {};
};
struct WithDestructor {
    ~WithDestructor() {}
    char bytes[40];
};

int main() {
    for (size_t n : {size_t(0), size_t(1), size_t(100), size_t(5000), size_t(100000)}) {
        void *p = ::operator new(n);
        CHECK(p && in_pool(p) == 1);
        ::operator delete(p);
        p = ::operator new[](n);
        CHECK(in_pool(p) == 1);
        ::operator delete[](p);
        p = ::operator new(n, std::nothrow);
        CHECK(in_pool(p) == 1);
        ::operator delete(p, std::nothrow);
        p = ::operator new[](n, std::nothrow);
        ::operator delete[](p, std::nothrow);
#if __cpp_sized_deallocation
        p = ::operator new(n);
        ::operator delete(p, n);
        p = ::operator new[](n);
        ::operator delete[](p, n);
        CHECK(malloc(1) != nullptr);
#endif
#if __cpp_aligned_new
        for (size_t align : {size_t(16), size_t(64), size_t(4096), size_t(1) << 20}) {
            std::align_val_t a{align};
            p = ::operator new(n, a);
            CHECK(in_pool(p) == 1 && ALIGNED(p, align));
            ::operator delete(p, a);
            p = ::operator new[](n, a);
            CHECK(in_pool(p) == 1 && ALIGNED(p, align));
            ::operator delete[](p, a);
            p = ::operator new(n, a, std::nothrow);
            ::operator delete(p, a, std::nothrow);
#if __cpp_sized_deallocation
            p = ::operator new(n, a);
            ::operator delete(p, n, a);
            p = ::operator new[](n, a);
            ::operator delete[](p, n, a);
#endif
        }
#endif
    }
    Polymorphic *object = new Derived;
    CHECK(in_pool(object) == 1);
    delete object;
    WithDestructor *array = new WithDestructor[17];
    CHECK(in_pool(array) == 1);
    delete[] array;

    volatile size_t most = PTRDIFF_MAX, large = size_t(1) << 40;
    CHECK(throws_bad_alloc([&] { opaque(::operator new(most)); }));
    CHECK(throws_bad_alloc([&] { opaque(::operator new[](large)); }));
    CHECK(::operator new(large, std::nothrow) == nullptr);
    CHECK(::operator new[](most, std::nothrow) == nullptr);
    std::set_new_handler(handler);
    CHECK(throws_bad_alloc([&] { opaque(::operator new(large)); }));
    CHECK(handled == 3);
#if __cpp_aligned_new
    CHECK(throws_bad_alloc([&] { opaque(::operator new(large, std::align_val_t{64})); }));
    CHECK(::operator new(large, std::align_val_t{64}, std::nothrow) == nullptr);
#endif

    std::map<std::string, std::vector<std::string>> map;
    for (int i = 0; i < 20000; i++)
        map["key " + std::to_string(i % 500)].push_back(std::string(size_t(i % 200), 'x'));
    size_t sum = 0;
    for (auto &entry : map)
        for (auto &text : entry.second) sum += text.size();
    CHECK(sum == 20000 / 200 * (199 * 200 / 2));
    CHECK(in_pool(&map.begin()->second) == 1);
    auto shared = std::make_shared<Derived>();
    CHECK(in_pool(shared.get()) == 1);
    return report();
}
