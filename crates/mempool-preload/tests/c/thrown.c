/* Loads a library that throws (arguments 1: its path, 2: whether for all to see), and has it throw; then, if there are more arguments, once more
 * when all memory is used up. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static const size_t sizes[] = {1 << 20, 65536, 4096, 256, 16};
    if (argc < 3) return 2;
    void *library = dlopen(argv[1], RTLD_NOW | (atoi(argv[2]) ? RTLD_GLOBAL : RTLD_LOCAL));
    if (library == NULL) return printf("%s\n", dlerror()), 3;
    int (*attempt)(int) = (int (*)(int))dlsym(library, "attempt");
    printf("thrown %d\n", attempt(0));
    fflush(stdout);
    if (argc > 3) {
        for (int i = 0; i < 5; i++)
            while (malloc(sizes[i]) != NULL) {}
        printf("refused %d, thrown %d\n", malloc(300000) == NULL, attempt(1));
    }
    return 0;
}
