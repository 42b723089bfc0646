// A library that throws, for programs that know nothing of C++.
#include <cstring>
#include <stdexcept>

struct Large {
    char bytes[200000];
};

extern "C" int attempt(int large) {
    try {
        if (large) throw Large();
        throw std::runtime_error("boom");
    } catch (const std::exception &error) {
        return strcmp(error.what(), "boom") == 0;
    } catch (const Large &) {
        return 2;
    }
}
