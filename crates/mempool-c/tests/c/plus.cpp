// The interface from C++: types, templates, containers.
#include "check.h"
#include <mempool.h>
#include <new>
#include <string>
#include <utility>
#include <vector>

template <typename T> struct Allocator {
    using value_type = T;
    Allocator() = default;
    template <typename U> Allocator(const Allocator<U> &) {}
    T *allocate(std::size_t count) {
        void *memory = mp_try_reallocarray(nullptr, count, sizeof(T));
        if (memory == nullptr) {
            throw std::bad_alloc();
        }
        return static_cast<T *>(memory);
    }
    void deallocate(T *memory, std::size_t) noexcept { mp_free(memory); }
    template <typename U> bool operator==(const Allocator<U> &) const { return true; }
    template <typename U> bool operator!=(const Allocator<U> &) const { return false; }
};

namespace {

struct alignas(64) Line {
    char bytes[64];
};

mp_cache_t lines = MP_CACHE_INITIALIZER;
mp_cache_t pairs;

} // namespace

int main() {
    make_pool(MEMPOOL_EXHAUSTED_NULL, 16 << 20);
    mp_cache_init(&lines, Line);
    CHECK(std::string(lines.c_name) == "Line");
    CHECK(lines.c_item_align == 64);
    mp_cache_init(&pairs, std::pair<int, double>);
    CHECK(std::string(pairs.c_name) == "std::pair<int, double>");
    CHECK(pairs.c_item_size == sizeof(std::pair<int, double>));
    auto *pair = new (mp_cache_alloc(&pairs)) std::pair<int, double>(1, 2.5);
    CHECK(pair->second == 2.5);
    mp_cache_free(&pairs, pair);
    CHECK(is_aligned(mp_cache_alloc(&lines), 64));
    {
        std::vector<std::string, Allocator<std::string>> words;
        for (int i = 0; i < 1000; i++) {
            words.push_back(std::to_string(i));
        }
        CHECK(mempool_contains(words.data()) && words[999] == "999");
        bool refused = false;
        try {
            words.reserve(1 << 30);
        } catch (const std::bad_alloc &) {
            refused = true;
        }
        CHECK(refused && words[999] == "999");
    }
    CHECK(mempool_on_reclaim([](std::size_t, void *) { return false; }, nullptr) == MEMPOOL_OK);
    mp_cache_destroy(&pairs);
    CHECK(mempool_verify() == MEMPOOL_OK);
    std::size_t objects = 0, bytes = 0;
    CHECK(mempool_fini_quiet(&objects, &bytes) == MEMPOOL_OK);
    CHECK(objects == 1 && bytes == 64);
    return done();
}
