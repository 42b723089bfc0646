// With all memory used up: threads, libraries and exceptions still work where there is a reserve, and what the program
// itself asks for is refused all the same.
#include <dlfcn.h>
#include <pthread.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

static thread_local char variables[20000];

static void *thread(void *argument) {
    // Its thread-local variables and all the rest are there.
    memset(variables, 1, sizeof variables);
    return argument;
}

struct Large {
    char bytes[200000];
};

static const size_t SIZES[] = {1 << 20, 65536, 4096, 256, 16};

int main(int argc, char **argv) {
    static void *live[1 << 20];
    size_t count = 0;
    if (argc < 2) return 2;
    for (size_t size : SIZES) {
        void *object;
        while (count < 1 << 20 && (object = malloc(size)) != NULL) live[count++] = object;
    }
    int threads = 0, libraries = 0, exceptions = 0, refused = 0;
    pthread_t id;
    for (int i = 0; i < 8; i++) {
        if (pthread_create(&id, NULL, thread, NULL) != 0) break;
        if (pthread_join(id, NULL) == 0) threads++;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (library != NULL) {
        libraries++;
        dlclose(library);
    }
    refused += malloc(100000) == NULL && errno == ENOMEM;
    refused += calloc(100, 100000) == NULL;
    refused += malloc(16) == NULL;
    try {
        Large *large = new Large;
        printf("%p\n", (void *)large);
    } catch (const std::bad_alloc &) {
        exceptions++;
    }
    try {
        throw Large();
    } catch (const Large &) {
        exceptions++;
    }
    for (size_t i = 0; i < count; i++) free(live[i]);
    printf("threads %d libraries %d exceptions %d refused %d\n", threads, libraries, exceptions, refused);
    return 0;
}
