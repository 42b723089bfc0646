/* Loads a library with RTLD_DEEPBIND, by its bare name, so that the program's own search path must count. LIBRARY: the library. */
#include "check.h"
#ifdef LIBRARY
void take(void *p) { free(p); }
void *make(void) { return realloc(strdup("made by the library"), 400); }
#else
int main(int argc, char **argv) {
    void *library = dlopen(argv[argc - 1], RTLD_NOW | RTLD_DEEPBIND);
    if (!library) return puts(dlerror()), 1;
    void (*take)(void *) = (void (*)(void *))dlsym(library, "take");
    void *(*make)(void) = (void *(*)(void))dlsym(library, "make");
    for (size_t size = 1; size < 1 << 20; size *= 2) take(malloc(size));
    char *made = make();
    if (strcmp(made, "made by the library") || in_pool(made) != 1) return puts("not served by the pool"), 1;
    free(made);
    dlclose(library);
    if (dlopen("no such library", RTLD_NOW | RTLD_DEEPBIND) || !dlerror()) return puts("a library that is not there"), 1;
    puts("ok");
    return 0;
}
#endif
