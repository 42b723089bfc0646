/*
 * mempool.h - an autonomous memory pool for C and C++.
 *
 * The process has one pool: a segment of memory that is reserved and made really there when the pool is
 * made. From then on every allocation below is served from inside it, with no system call and no page fault, so
 * that the program keeps running when the machine has no memory left.
 *
 *     #include <mempool.h>                      cc program.c $(pkg-config --cflags --libs mempool)
 *
 *     static mp_cache_t requests;
 *
 *     if (mempool_init() != 0) {                reads MEMPOOL_SEGMENT and so on from the environment
 *         fprintf(stderr, "%s\n", mempool_last_error());
 *         return 1;
 *     }
 *     mp_cache_init(&requests, struct request);
 *     struct request *r = mp_cache_alloc(&requests);
 *     ...
 *     mp_cache_free(&requests, r);
 *     mp_cache_destroy(&requests);
 *     mempool_fini();                           reports what is still live, returns the segment
 *
 * FOR ALL FUNCTIONS
 *
 * Sizes are bytes. Objects are aligned to 16 bytes unless another alignment is asked for.
 *
 * Threads: every function may be called from any thread at any time, unless it says otherwise. An object may be
 * freed by another thread than the one that allocated it. After fork the child may use the pool at once (after
 * vfork and _Fork it must not). No function may be called from a signal handler.
 *
 * No mempool_init is needed: the first use makes the pool as mempool_init would. If that fails, or if the pool
 * is used after mempool_fini, the process ends (SIGABRT) with one line on standard error; functions with `try` in
 * their name give NULL or an error code instead, but those that are given a cache whose pool has ended, or that was
 * never initialised, end the process like the others. After mempool_fini, mempool_init makes a new pool.
 *
 * Exhaustion: what a request does when the pool has no room is the setting `exhausted`: `abort` (the default)
 * ends the process with a message that says how large a segment would do; `null` gives NULL; `grow` takes more of
 * the machine's memory up to `max_segment` and then gives NULL; `wait` waits for others to free, up to
 * `wait_limit`, and then gives NULL. So under `abort`, mp_malloc and its kin never
 * return NULL. Functions with `try` in their name give NULL whatever the setting. Whenever NULL is returned,
 * errno is ENOMEM (EINVAL for a wrong argument) and mempool_last_error() says why.
 *
 * Misuse: a pointer that is wrong (freed before, not the beginning of an object, not from the pool, of another
 * cache, with a wrong count) ends the process (SIGABRT) with one line on standard error that says what it is.
 *
 * errno: functions that free leave it as it was. Others may change it even when they succeed.
 *
 * Error codes: functions that return int give 0 or one of enum mempool_error; then errno is set too, and
 * mempool_last_error() has a sentence with the figures.
 */
#ifndef MEMPOOL_H
#define MEMPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef LIBEXPORT
#if defined(__GNUC__)
#define LIBEXPORT __attribute__((visibility("default")))
#else
#define LIBEXPORT
#endif
#endif

#if defined(__GNUC__)
/* Internal: what compilers may know. */
#define MP_ATTRIBUTE(attributes) __attribute__(attributes)
#else
#define MP_ATTRIBUTE(attributes)
#endif

/* The version of this header; mempool_version() has the library's. */
#define MEMPOOL_VERSION "0.1.0"
#define MEMPOOL_VERSION_MAJOR 0
#define MEMPOOL_VERSION_MINOR 1
#define MEMPOOL_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- errors */

/* What functions that return int return. Numbers are never reused. */
enum mempool_error {
    MEMPOOL_OK = 0,
    MEMPOOL_ERROR_UNKNOWN_SETTING = 1,     /* EINVAL: no such MEMPOOL_ variable or setting */
    MEMPOOL_ERROR_VALUE = 2,               /* EINVAL: a setting's value cannot be read */
    MEMPOOL_ERROR_RANGE = 3,               /* EINVAL: a setting's value is out of range */
    MEMPOOL_ERROR_CONFLICT = 4,            /* EINVAL: two settings contradict each other */
    MEMPOOL_ERROR_OS = 5,                  /* the system's errno: it refused what is required */
    MEMPOOL_ERROR_TOO_SMALL = 6,           /* EINVAL: the segment cannot hold a pool */
    MEMPOOL_ERROR_ALREADY_INITIALISED = 7, /* EALREADY: there is a pool */
    MEMPOOL_ERROR_NOT_INITIALISED = 8,     /* ENXIO: there is none */
    MEMPOOL_ERROR_LOCK_LIMIT = 9,          /* ENOMEM: lock=required, and RLIMIT_MEMLOCK is too low */
    MEMPOOL_ERROR_MISALIGNED = 10,         /* EINVAL: not given by any function of this header */
    MEMPOOL_ERROR_BUSY = 11,               /* EBUSY: another thread is making or ending the pool */
    MEMPOOL_ERROR_MEMORY = 12,             /* ENOMEM: commit=eager, and there is not that much memory */
    MEMPOOL_ERROR_HUGE_PAGES = 13,         /* ENOMEM: huge_page_size is required, and too few are set aside */
    MEMPOOL_ERROR_IN_CALLBACK = 14,        /* EBUSY: mempool_fini in a reclaim callback */
    MEMPOOL_ERROR_ARGUMENT = 20,           /* EINVAL: a null pointer */
    MEMPOOL_ERROR_STRUCT_SIZE = 21,        /* EINVAL: a struct of a size that the library does not know */
    MEMPOOL_ERROR_CACHE_NAME = 22,         /* EINVAL: longer than 31 bytes, or not UTF-8 */
    MEMPOOL_ERROR_CACHE_ITEM = 23,         /* EINVAL: an item size other than 1 byte to 1 MiB */
    MEMPOOL_ERROR_CACHE_ALIGN = 24,        /* EINVAL: no power of two up to 1 MiB */
    MEMPOOL_ERROR_CACHE_LIMIT = 25,        /* ENOSPC: max_caches caches exist */
    MEMPOOL_ERROR_CACHE_TWICE = 26,        /* EALREADY: this mp_cache_t is initialised */
    MEMPOOL_ERROR_CALLBACK_LIMIT = 27,     /* ENOSPC: 8 reclaim callbacks exist */
    MEMPOOL_ERROR_BROKEN = 28,             /* EIO: mempool_verify found damage */
    MEMPOOL_ERROR_BUDGET = 29              /* ENOSPC: a budget cannot be made or entered */
};

/* The message of a code in general words: a constant string, never NULL. */
LIBEXPORT const char *mempool_strerror(int code);

/* The calling thread's last error in one sentence, with value, limit and unit; "" when there was none. Like errno
 * it is not cleared by success. The string is the thread's own and valid until its next error. Never NULL. */
LIBEXPORT const char *mempool_last_error(void);

/* Makes mempool_last_error() "" and errno 0 for the calling thread. */
LIBEXPORT void mempool_clear_error(void);

/* The library's version, such as "0.1.0". */
LIBEXPORT const char *mempool_version(void);

/* ------------------------------------------------------------------------------------------- the pool's life */

/* Makes the pool, configured by the environment's MEMPOOL_ variables (docs/CONFIGURATION.md; a set-uid program
 * ignores them). With commit=eager, the default, this touches the whole segment (512 MiB by default), which takes a
 * tenth of a second or so.
 * Errors: ALREADY_INITIALISED, also when the first use has made the pool; BUSY; those of settings; TOO_SMALL; OS;
 * LOCK_LIMIT; MEMORY; HUGE_PAGES. After an error there is no pool, and init may be tried again. */
LIBEXPORT int mempool_init(void);

/* Ends the pool: prints its table if the setting `stats` is on, one line to standard error for each size class and
 * cache that still has live objects, and their sum; returns the segment to the system, but for a few OS pages for
 * each other thread that has used it and still lives, so that its next use finds an end; they go back when the thread
 * ends, or some time after it has used the next pool. Prints nothing when nothing is live. All objects and caches are gone: a use of the pool or one of its caches afterwards ends the process
 * with a message. No other thread may use the pool during the call. Without a pool, and in one of its callbacks
 * (mempool_reclaim_fn), whose caller goes on in the pool, it does nothing, but mempool_last_error() says so. */
LIBEXPORT void mempool_fini(void);

/* As mempool_fini, printing nothing: says how many objects of how many bytes were still live. Either pointer may be
 * NULL. Errors: NOT_INITIALISED; IN_CALLBACK. */
LIBEXPORT int mempool_fini_quiet(size_t *objects, size_t *bytes);

/* Whether there is a pool now. */
LIBEXPORT bool mempool_is_ready(void);

/* --------------------------------------------------------------------------------------------- configuration */

enum { MEMPOOL_SMALL_SLAB = 0, MEMPOOL_SMALL_HEAP = 1, MEMPOOL_SMALL_SYSTEM = 2 };
enum {
    MEMPOOL_EXHAUSTED_ABORT = 0,
    MEMPOOL_EXHAUSTED_NULL = 1,
    MEMPOOL_EXHAUSTED_GROW = 2,
    MEMPOOL_EXHAUSTED_WAIT = 3
};
enum { MEMPOOL_COMMIT_EAGER = 0, MEMPOOL_COMMIT_LAZY = 1 };
enum { MEMPOOL_NUMA_OFF = 0, MEMPOOL_NUMA_LOCAL = 1, MEMPOOL_NUMA_INTERLEAVE = 2, MEMPOOL_NUMA_BIND = 3 };
enum { MEMPOOL_OFF = 0, MEMPOOL_TRY = 1, MEMPOOL_REQUIRED = 2 };

/* Every setting of docs/CONFIGURATION.md, where their meanings, defaults and ranges are. Fill it with
 * mempool_config_defaults first, then change fields, or use mempool_config_set. */
typedef struct mempool_config {
    size_t struct_size;          /* bytes of this struct; written by mempool_config_defaults */
    int use_environment;         /* 0 (default) or 1: MEMPOOL_ variables override the fields */
    int small;                   /* MEMPOOL_SMALL_... */
    int exhausted;               /* MEMPOOL_EXHAUSTED_... */
    int commit;                  /* MEMPOOL_COMMIT_... */
    int lock;                    /* MEMPOOL_OFF, _TRY or _REQUIRED */
    int huge_pages;              /* MEMPOOL_OFF, _TRY or _REQUIRED */
    int guard_pages;             /* 0 or 1 */
    int dump;                    /* 0 or 1 */
    int stats;                   /* 0 or 1: print the table when the pool or the process ends */
    unsigned max_retries;        /* how often an exhausted pool waits */
    unsigned max_threads;        /* threads with a local heap; 0: by segment */
    unsigned max_caches;         /* named caches; 0: by segment */
    size_t segment;              /* bytes */
    size_t max_segment;          /* bytes, with MEMPOOL_EXHAUSTED_GROW */
    size_t reserve;              /* bytes for critical scopes */
    size_t heap_max_alloc;       /* bytes, with MEMPOOL_SMALL_HEAP */
    uint64_t wait_time_ns;       /* nanoseconds */
    uint64_t heap_page_lifetime; /* in the unit of docs/CONFIGURATION.md */
    unsigned slot_shift;         /* for tests of the pool itself: 0 */
    unsigned reserved;           /* 0 */
    char name[32];               /* the pool's name */
    size_t huge_page_size;       /* bytes of huge pages that are set aside; 0: transparent ones */
    uint64_t numa_nodes;         /* with MEMPOOL_NUMA_BIND: bit n is node n */
    int numa;                    /* MEMPOOL_NUMA_... */
    int process;                 /* 0 or 1: lock the program itself, and lower its out-of-memory score */
    int strict;                  /* 0 or 1: whatever is not granted is an error */
    int check_sizes;             /* 0 or 1: frees with a size that was not asked for end the process */
    uint64_t wait_limit_ns;      /* nanoseconds, with MEMPOOL_EXHAUSTED_WAIT */
    uint64_t verdict_interval_ns; /* nanoseconds between verdicts; 0: none is written */
    size_t watermark;            /* bytes; 0: none */
    unsigned watermark_signal;   /* a signal; 0: none */
    unsigned watermark_fd;       /* a file descriptor; 0: none */
    char critical[64];           /* names of threads, with commas between */
    size_t fail_above;           /* bytes above which requests are refused, as a drill; 0: none */
    unsigned fail_nth;           /* which request is refused, as a drill; 0: none */
    unsigned fail_every;         /* every so many-th request is refused, as a drill; 0: none */
    unsigned fail_seed;          /* seed that requests to refuse are drawn from, as a drill; 0: none */
    unsigned fail_rate;          /* with a seed, one of so many requests is refused */
    unsigned board;              /* of `mempool drill` and `mempool size`: 0 */
    int survey;                  /* of `mempool drill`: 0 */
} mempool_config_t;

/* Fills *config with the defaults of the process's pool. Errors: ARGUMENT; STRUCT_SIZE (the program was compiled with
 * an incompatible header). */
#define mempool_config_defaults(config) mempool_config_defaults_impl((config), sizeof(mempool_config_t))
LIBEXPORT int mempool_config_defaults_impl(mempool_config_t *config, size_t size);

/* Sets one setting from text, as variables and flags do: name is "segment", "MEMPOOL_SEGMENT" or "--segment", value is
 * "64M". Errors, which change nothing: UNKNOWN_SETTING, with the nearest name; VALUE, with what is accepted; RANGE of
 * the pool's name; ARGUMENT; STRUCT_SIZE. Other ranges are checked when the pool is made. */
LIBEXPORT int mempool_config_set(mempool_config_t *config, const char *name, const char *value);

/* Whether a pool may be made so: ranges, and what settings mean to each other. Errors: VALUE, RANGE, CONFLICT,
 * ARGUMENT, STRUCT_SIZE; the sentence names setting, value, limit and unit. */
LIBEXPORT int mempool_config_check(const mempool_config_t *config);

/* As mempool_init, with this configuration. The environment counts only with use_environment.
 * Errors: those of mempool_init and mempool_config_check. */
LIBEXPORT int mempool_init_config(const mempool_config_t *config);

/* -------------------------------------------------------------------------------------------------- objects */

/* At least `size` bytes with undefined content. 0 bytes give a unique pointer that must be freed. Under
 * exhausted=abort never NULL, also where the C library serves (small=system). */
LIBEXPORT void *mp_malloc(size_t size) MP_ATTRIBUTE((malloc, alloc_size(1)));
LIBEXPORT void *mp_try_malloc(size_t size) MP_ATTRIBUTE((malloc, alloc_size(1)));

/* As mp_malloc for count * size bytes, all zero. A product that overflows is a request that no pool can serve: the end
 * of the process under exhausted=abort, NULL and ENOMEM otherwise. */
LIBEXPORT void *mp_calloc(size_t count, size_t size) MP_ATTRIBUTE((malloc, alloc_size(1, 2)));
LIBEXPORT void *mp_try_calloc(size_t count, size_t size) MP_ATTRIBUTE((malloc, alloc_size(1, 2)));

/* Makes an object at least `size` bytes large: where it is, if it is that large already or its run can grow; else
 * elsewhere, with its content, and `old` is gone. NULL as `old` means mp_malloc(size). Never shrinks, and so never
 * frees: mp_realloc(p, 0) is p (C23 leaves this open, and POSIX allows it). When NULL is returned, `old` is as before.
 * The new pointer is aligned to 16 bytes, whatever `old` was. */
LIBEXPORT void *mp_realloc(void *old, size_t size);
LIBEXPORT void *mp_try_realloc(void *old, size_t size);

/* As mp_realloc to count * size bytes; overflow as in mp_calloc. */
LIBEXPORT void *mp_reallocarray(void *old, size_t count, size_t size);
LIBEXPORT void *mp_try_reallocarray(void *old, size_t count, size_t size);

/* As mp_malloc, at a multiple of `alignment`, a power of two (any size goes with it); alignments below 16 count as
 * 16. Another alignment gives NULL and EINVAL, also under exhausted=abort. */
LIBEXPORT void *mp_aligned_alloc(size_t alignment, size_t size) MP_ATTRIBUTE((malloc, alloc_size(2)));
LIBEXPORT void *mp_try_aligned_alloc(size_t alignment, size_t size) MP_ATTRIBUTE((malloc, alloc_size(2)));

/* Copies of a string, of at most `most` bytes of it; free them with mp_free. NULL gives NULL and EINVAL. */
LIBEXPORT char *mp_strdup(const char *text);
LIBEXPORT char *mp_strndup(const char *text, size_t most);

/* Frees an object of any function of this section. NULL does nothing. errno stays as it was. */
LIBEXPORT void mp_free(void *object);

/* Bytes that may be used at an object of this section or a cache's item: at least those asked for. 0 for NULL. Of an
 * array of a cache's items it says the bytes of one item. */
LIBEXPORT size_t mp_usable_size(const void *object);

/* Whether the address lies in the pool, allocated or not. False when there is no pool. */
LIBEXPORT bool mempool_contains(const void *address);

/* --------------------------------------------------------------------------------------------------- caches */

/* A named supplier of items of one size, which shares its memory with no other. Declare it anywhere, cleared or
 * not, and initialise it before use. The fields with c_ are for reading; do not copy the struct. */
typedef struct mp_cache {
    size_t c_item_size;        /* bytes of an item */
    unsigned c_items_per_page; /* items that the cache takes from the pool at once */
    unsigned c_item_align;     /* bytes: items begin at multiples of it */
    char c_name[32];           /* the name, with its final zero */
    uint32_t c_private[2];     /* the library's */
    uint64_t c_mark;           /* the library's */
} mp_cache_t;

/* For a static mp_cache_t that is used by mistake before it is initialised: a clear error. So is a plain static. */
#ifdef __cplusplus
#define MP_CACHE_INITIALIZER {}
#else
#define MP_CACHE_INITIALIZER {0, 0, 0, {0}, {0, 0}, 0}
#endif

/* Internal: the alignment of a type. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define MP_ALIGNOF(...) alignof(__VA_ARGS__)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MP_ALIGNOF(...) _Alignof(__VA_ARGS__)
#elif defined(__GNUC__)
#define MP_ALIGNOF(...) __alignof__(__VA_ARGS__)
#else
#define MP_ALIGNOF(...) offsetof(struct { char c; __VA_ARGS__ t; }, t)
#endif

/* mp_cache_init(mp_cache_t *cache, type): a cache of items of a type, with its size and alignment (an over-aligned type
 * is served as it must be); its name is the type as written. Failure ends the process with a message. */
#define mp_cache_init(cache, ...) \
    mp_cache_init_aligned((cache), #__VA_ARGS__, sizeof(__VA_ARGS__), MP_ALIGNOF(__VA_ARGS__))

/* A cache of items of item_size bytes, 1 to 1,048,576. They are aligned to the largest power of two that divides
 * item_size, at most 16. The name has at most 31 bytes of UTF-8. Failure ends the process (SIGABRT) with a
 * message; see mp_cache_try_init. */
LIBEXPORT void mp_cache_init_impl(mp_cache_t *cache, const char *name, size_t item_size);

/* The same with an alignment, a power of two up to 1,048,576. Items of an array lie item_size bytes apart, rounded up
 * to the alignment. */
LIBEXPORT void mp_cache_init_aligned(mp_cache_t *cache, const char *name, size_t item_size, size_t alignment);

/* The same with an error code; alignment 0 means that of mp_cache_init_impl. Errors, after which *cache is as before:
 * CACHE_NAME, CACHE_ITEM, CACHE_ALIGN, CACHE_LIMIT, CACHE_TWICE, ARGUMENT, and those of mempool_init. */
LIBEXPORT int mp_cache_try_init(mp_cache_t *cache, const char *name, size_t item_size, size_t alignment);

/* The same for a cache that is charged to a budget (see below). Errors: ARGUMENT also for no such budget;
 * NOT_INITIALISED, since without a pool there is none. */
LIBEXPORT int mp_cache_try_init_in(unsigned budget, mp_cache_t *cache, const char *name, size_t item_size,
                                   size_t alignment);

/* Ends a cache and returns all its memory to the pool. Items still live are gone with it, and one line on
 * standard error says how many there were. Nobody may use the cache or its items during the call or afterwards;
 * a use of the struct afterwards ends the process with a message. It may be initialised again. */
LIBEXPORT void mp_cache_destroy(mp_cache_t *cache);

/* An item, with undefined content. Under exhausted=abort never NULL. */
LIBEXPORT void *mp_cache_alloc(mp_cache_t *cache);
LIBEXPORT void *mp_cache_try_alloc(mp_cache_t *cache);

/* Gives an item back to its cache. NULL does nothing. errno stays as it was. */
LIBEXPORT void mp_cache_free(mp_cache_t *cache, void *item);

/* `num` consecutive items, as many as fit in the segment; 0 counts as 1. */
LIBEXPORT void *mp_cache_alloc_array(mp_cache_t *cache, unsigned num);
LIBEXPORT void *mp_cache_try_alloc_array(mp_cache_t *cache, unsigned num);

/* Gives an array back, whole: with the count that it was allocated with. NULL does nothing. errno stays. */
LIBEXPORT void mp_cache_free_array(mp_cache_t *cache, void *array, unsigned num);

/* Items in use, single ones and those of arrays. Walks the pool's slabs: for tests and reports. */
LIBEXPORT size_t mp_cache_live(const mp_cache_t *cache);

/* ---------------------------------------------------------------------------------------------- looking after */

/* Enters and leaves a critical scope of the calling thread: a request inside that finds the pool exhausted may use
 * the reserve (setting `reserve`). Scopes nest. */
LIBEXPORT void mp_critical_enter(void);
LIBEXPORT void mp_critical_leave(void);

/* Gives up what the calling thread keeps for its next requests, as if it ended, so that others have it however long the
 * thread sleeps. It may go on as before. */
LIBEXPORT void mp_thread_idle(void);

/* A budget: what some caches and scoped allocations may have together, at most `most` bytes, so that one tenant fails
 * alone; `least` of them are set aside now, in whole slots (4 to 64 KiB), out of the setting `reserve`, and are the
 * tenant's whatever others do. Charged are whole slabs, and where none serves a scoped allocation its bytes. *budget becomes its
 * number, above 0; it lasts as long as the pool, which has 16 at most. Errors: BUDGET; ARGUMENT; those of mempool_init. */
LIBEXPORT int mp_budget_make(unsigned *budget, const char *name, size_t least, size_t most);

/* What the calling thread allocates from now on, without naming a cache, is charged to the budget; with 0 to none again.
 * Its objects are freed and reallocated like others, by any thread, at any time. *before, unless NULL, becomes the budget
 * that was entered until now: scopes nest by entering that one again. Within a scope every call takes the long way
 * round. Errors: BUDGET (the thread has no local heap of its own); ARGUMENT; NOT_INITIALISED. */
LIBEXPORT int mp_budget_enter(unsigned budget, unsigned *before);

/* Bytes of the slabs and scoped allocations that are charged to the budget; 0 if there is none. */
LIBEXPORT size_t mp_budget_used(unsigned budget);

/* Called on the thread whose request for `needed` bytes found the pool exhausted, with no lock held: frees what it
 * can and says whether it freed anything. It may allocate and free, and must not call mempool_fini, which refuses; it is
 * not called from within itself, and not for requests of functions with `try` in their name. A callback that is left by
 * longjmp counts as going on: its thread is called back no more by this pool, and cannot end it. */
typedef bool (*mempool_reclaim_fn)(size_t needed, void *argument);

/* Adds a callback for exhaustion; makes the pool if there is none. It stays until the pool ends.
 * Errors: ARGUMENT; CALLBACK_LIMIT; those of mempool_init. */
LIBEXPORT int mempool_on_reclaim(mempool_reclaim_fn callback, void *argument);

/* The same for a callback that is also called when fewer than `level` bytes are free: once, with the bytes that are
 * missing, and again after an eighth more than `level` was free meanwhile. Noticed up to a 4096th of the segment, or 64
 * KiB, late. Errors: as mempool_on_reclaim; ARGUMENT also for level 0. */
LIBEXPORT int mempool_on_low(size_t level, mempool_reclaim_fn callback, void *argument);

/* Prints why a request for `size` bytes could or could not be served now, and what would help: a dozen lines, with
 * write(2). With size 0, of the last request that was refused. Allocates nothing. Errors as mp_stats_print. */
LIBEXPORT int mp_verdict_print(int fd, size_t size);

/* Gives whole free pages of the pool back to the system; they cost a page fault when they are used again. Bytes
 * given back; 0 without a pool. For pools with commit=lazy. */
LIBEXPORT size_t mempool_trim(void);

/* Walks everything and checks every invariant, while no other thread uses the pool. Errors: BROKEN, with the first
 * that does not hold; NOT_INITIALISED. */
LIBEXPORT int mempool_verify(void);

/* The pool's figures, computed when asked; exact while no other thread uses the pool. */
typedef struct mempool_stats {
    size_t segment;      /* bytes of the segment at its largest */
    size_t metadata;     /* bytes of metadata and guards */
    size_t open;         /* bytes open to requests */
    size_t free;         /* bytes in free fragments */
    size_t parked;       /* of these, bytes of freed large objects kept for the next one */
    size_t largest_free; /* bytes of the largest free run */
    size_t reserve;      /* bytes of the reserve */
    size_t reserve_free; /* bytes of it that are free */
    size_t live_objects; /* objects in use */
    size_t live_bytes;   /* their bytes, as rounded to items, chunks and fragments */
    size_t threads;      /* threads with a local heap */
    uint64_t exhausted;  /* requests that found the pool exhausted at first */
    uint64_t refused;    /* requests that were refused in the end */
    size_t threads_most; /* most threads with a local heap at once */
} mempool_stats_t;

/* mempool_stats(mempool_stats_t *out). Errors: ARGUMENT, STRUCT_SIZE, NOT_INITIALISED. */
#define mempool_stats(out) mempool_stats_impl((out), sizeof(mempool_stats_t))
LIBEXPORT int mempool_stats_impl(void *out, size_t size);

/* Prints the pool's table (docs/STATS.md) to a file descriptor, with write(2). Errors: NOT_INITIALISED; OS, with
 * write's errno. */
LIBEXPORT int mp_stats_print(int fd);

/* Prints a line for each thing that was asked for and not granted (locking, huge pages, nodes, ...), and how to
 * get it. Nothing when all was granted. Errors as mp_stats_print. */
LIBEXPORT int mempool_shortfalls_print(int fd);

#ifdef __cplusplus
}
#endif

#endif /* MEMPOOL_H */
