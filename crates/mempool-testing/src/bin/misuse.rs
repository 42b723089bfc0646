//! One tiny program per kind of misuse: `misuse KIND`. Each must end in SIGABRT with one line that says what
//! was wrong; tests/misuse.rs has the lines. `misuse list` prints the kinds. A program that comes to its end
//! exits with 3. Their unsafe blocks break the contracts of what they call: that is what is tested.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::alloc::Layout;
use std::ptr::NonNull;

use mempool::config::{Config, Exhausted, Small};
use mempool::{Pool, process};
use mempool_testing::World;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

fn at(address: usize) -> NonNull<u8> {
    NonNull::new(address as *mut u8).expect("an address")
}

fn pool() -> Pool {
    World::of(4 << 20).config.name("test").build().expect("a pool")
}

fn heap() -> Pool {
    World::of(4 << 20).small(Small::Heap).config.build().expect("a pool")
}

/// Large enough that a thread keeps the short runs that it frees.
fn keeping() -> Pool {
    World::of(64 << 20).small(Small::Heap).config.build().expect("a pool")
}

fn whole() {
    process::init(&World::of(4 << 20).config).expect("a process pool");
}

fn new(pool: &Pool, size: usize) -> NonNull<u8> {
    pool.try_alloc(layout(size)).expect("memory")
}

fn free(pool: &Pool, object: NonNull<u8>) {
    // SAFETY: none: that is the point.
    unsafe { pool.free(object) }
}

fn twice(pool: &Pool, size: usize) {
    let object = new(pool, size);
    free(pool, object);
    free(pool, object);
}

fn elsewhere(f: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn inside(pool: &Pool, size: usize, offset: usize) {
    let object = new(pool, size).as_ptr() as usize;
    free(pool, at(object + offset));
}

fn double_remote(pool: &Pool, first_elsewhere: bool) {
    // So that the slab is not let go: it keeps free items.
    let object = new(pool, 100).as_ptr() as usize;
    if first_elsewhere {
        elsewhere(|| free(pool, at(object)));
        free(pool, at(object));
    } else {
        free(pool, at(object));
        elsewhere(|| free(pool, at(object)));
    }
}

fn both_elsewhere(pool: &Pool) {
    let object = new(pool, 100).as_ptr() as usize;
    elsewhere(|| free(pool, at(object)));
    elsewhere(|| free(pool, at(object)));
}

fn delayed(pool: &Pool) {
    let objects: Vec<_> = (0..5000).map(|_| new(pool, 64)).collect();
    objects.iter().for_each(|&object| free(pool, object));
    free(pool, objects[17]);
}

fn cache(f: impl FnOnce(&mempool::RawCache<'_>, &Pool)) {
    let pool = pool();
    let cache = pool.raw_cache("request", layout(64)).expect("a cache");
    f(&cache, &pool);
    std::process::exit(3);
}

fn array(n: usize, f: impl FnOnce(&mempool::RawCache<'_>, NonNull<u8>)) {
    cache(|cache, _| f(cache, cache.try_alloc_array(n).expect("an array")));
}

fn exhaust(config: Config) {
    let pool = config.exhausted(Exhausted::Abort).build().expect("a pool");
    let cache = pool.raw_cache("request", layout(512)).expect("a cache");
    for _ in 0..50 {
        let _ = cache.alloc();
    }
    for _ in 0..100 {
        new(&pool, 1000);
    }
    loop {
        let _ = pool.alloc(layout(9000));
    }
}

fn damaged_heap() {
    let pool = heap();
    let objects: Vec<_> = (0..100).map(|_| new(&pool, 200)).collect();
    for pair in objects.chunks(2) {
        free(&pool, pair[0]);
        // SAFETY: none: that is the point.
        unsafe { pair[0].as_ptr().write_bytes(0x41, 64) };
    }
    for pair in objects.chunks(2) {
        free(&pool, pair[1]);
    }
    for _ in 0..1000 {
        new(&pool, 250);
    }
}

type Kind = (&'static str, fn());

const KINDS: &[Kind] = &[
    ("double-free", || twice(&pool(), 100)),
    ("double-free-tiny", || twice(&pool(), 1)),
    ("double-free-largest-class", || twice(&pool(), 200)),
    ("double-free-run", || twice(&pool(), 10_000)),
    ("double-free-pages", || twice(&pool(), 500_000)),
    ("double-free-heap", || twice(&heap(), 100)),
    ("double-free-kept-run", || twice(&keeping(), 1000)),
    ("double-free-empty", || twice(&pool(), 0)),
    ("double-free-interleaved", || {
        let pool = pool();
        let (a, b) = (new(&pool, 100), new(&pool, 100));
        free(&pool, a);
        free(&pool, b);
        free(&pool, a);
    }),
    ("double-free-delayed", || delayed(&pool())),
    ("double-free-then-elsewhere", || double_remote(&pool(), false)),
    ("double-free-elsewhere-then-here", || double_remote(&pool(), true)),
    ("double-free-both-elsewhere", || both_elsewhere(&pool())),
    ("double-free-run-elsewhere", || {
        let pool = pool();
        let object = new(&pool, 10_000).as_ptr() as usize;
        elsewhere(|| free(&pool, at(object)));
        free(&pool, at(object));
    }),
    ("double-free-kept-run-elsewhere", || {
        let pool = keeping();
        let object = new(&pool, 1000).as_ptr() as usize;
        free(&pool, at(object));
        elsewhere(|| free(&pool, at(object)));
    }),
    ("double-free-heap-elsewhere", || {
        let pool = heap();
        let object = new(&pool, 100).as_ptr() as usize;
        elsewhere(|| free(&pool, at(object)));
        free(&pool, at(object));
    }),
    ("double-free-cache-item", || {
        cache(|cache, _| {
            let item = cache.try_alloc().expect("an item");
            unsafe {
                cache.free(item);
                cache.free(item);
            }
        })
    }),
    ("double-free-cache-item-elsewhere", || {
        cache(|cache, _| {
            let item = cache.try_alloc().expect("an item").as_ptr() as usize;
            elsewhere(|| unsafe { cache.free(at(item)) });
            unsafe { cache.free(at(item)) };
        })
    }),
    ("double-free-array", || {
        array(10, |cache, array| unsafe {
            cache.free_array(array, 10);
            cache.free_array(array, 10);
        })
    }),
    ("double-free-large-array", || {
        array(5000, |cache, array| unsafe {
            cache.free_array(array, 5000);
            cache.free_array(array, 5000);
        })
    }),
    ("interior", || inside(&pool(), 100, 16)),
    ("misaligned", || inside(&pool(), 100, 1)),
    ("interior-run", || inside(&pool(), 10_000, 256)),
    ("misaligned-run", || inside(&pool(), 10_000, 8)),
    ("interior-pages", || inside(&pool(), 500_000, 300_000)),
    ("interior-heap", || inside(&heap(), 100, 16)),
    ("misaligned-heap", || inside(&heap(), 100, 3)),
    ("interior-cache-item", || {
        cache(|cache, _| unsafe { cache.free(at(cache.try_alloc().expect("an item").as_ptr() as usize + 8)) })
    }),
    ("never-allocated-item", || inside(&pool(), 100, 112 * 3)),
    ("never-allocated-run", || inside(&pool(), 10_000, 1 << 20)),
    ("wild", || free(&pool(), at(0xdead_beef_0000))),
    ("wild-small", || free(&pool(), at(0x10))),
    ("stack", || {
        let object = 1u64;
        free(&pool(), NonNull::from(&object).cast());
    }),
    ("static", || free(&pool(), NonNull::from(&KINDS.len()).cast())),
    ("libc", || free(&pool(), NonNull::new(Box::into_raw(Box::new(1u8))).expect("memory"))),
    ("foreign-pool", || {
        let (one, other) = (pool(), pool());
        free(&other, new(&one, 100));
    }),
    ("metadata", || {
        let pool = pool();
        free(&pool, at((new(&pool, 10_000).as_ptr() as usize & !0xFFF) - (64 << 10)));
    }),
    ("wrong-cache", || {
        cache(|cache, pool| {
            let other = pool.raw_cache("reply", layout(64)).expect("a cache");
            unsafe { other.free(cache.try_alloc().expect("an item")) };
        })
    }),
    ("wrong-cache-not-an-item", || cache(|cache, pool| unsafe { cache.free(new(pool, 64)) })),
    ("wrong-cache-a-run", || cache(|cache, pool| unsafe { cache.free(new(pool, 10_000)) })),
    ("wrong-cache-foreign", || cache(|cache, _| unsafe { cache.free(at(0xdead_beef_0000)) })),
    ("wrong-call-item", || cache(|cache, pool| free(pool, cache.try_alloc().expect("an item")))),
    ("wrong-call-array", || cache(|cache, pool| free(pool, cache.try_alloc_array(10).expect("an array")))),
    ("wrong-call-large-array", || cache(|cache, pool| free(pool, cache.try_alloc_array(5000).expect("an array")))),
    ("fewer", || array(10, |cache, array| unsafe { cache.free_array(array, 9) })),
    ("more", || array(10, |cache, array| unsafe { cache.free_array(array, 11) })),
    ("fewer-of-large", || array(5000, |cache, array| unsafe { cache.free_array(array, 4999) })),
    ("array-as-item", || array(10, |cache, array| unsafe { cache.free(array) })),
    ("item-as-array", || {
        cache(|cache, _| unsafe { cache.free_array(cache.try_alloc().expect("an item"), 2) });
    }),
    ("interior-of-array", || {
        array(10, |cache, array| unsafe { cache.free_array(at(array.as_ptr() as usize + 128), 8) })
    }),
    ("interior-of-large-array", || {
        array(5000, |cache, array| unsafe { cache.free_array(at(array.as_ptr() as usize + 128), 4998) })
    }),
    ("realloc-freed", || {
        let pool = pool();
        let object = new(&pool, 100);
        free(&pool, object);
        let _ = unsafe { pool.try_realloc(object, layout(200)) };
    }),
    ("realloc-freed-run", || {
        let pool = pool();
        let object = new(&pool, 10_000);
        free(&pool, object);
        let _ = unsafe { pool.try_realloc(object, layout(200)) };
    }),
    ("realloc-freed-kept-run", || {
        let pool = keeping();
        let object = new(&pool, 1000);
        free(&pool, object);
        let _ = unsafe { pool.try_realloc(object, layout(200)) };
    }),
    ("realloc-freed-heap", || {
        let pool = heap();
        let (object, _keep) = (new(&pool, 100), new(&pool, 100));
        free(&pool, object);
        let _ = unsafe { pool.try_realloc(object, layout(200)) };
    }),
    ("realloc-interior", || {
        let pool = pool();
        let object = at(new(&pool, 100).as_ptr() as usize + 16);
        let _ = unsafe { pool.try_realloc(object, layout(200)) };
    }),
    ("realloc-wild", || {
        let _ = unsafe { pool().try_realloc(at(0xdead_beef_0000), layout(200)) };
    }),
    ("realloc-cache-item", || {
        cache(|cache, pool| {
            let _ = unsafe { pool.try_realloc(cache.try_alloc().expect("an item"), layout(200)) };
        })
    }),
    ("usable-size-freed", || {
        let pool = pool();
        let object = new(&pool, 100);
        free(&pool, object);
        let _ = unsafe { pool.usable_size(object) };
    }),
    ("usable-size-freed-run", || {
        let pool = pool();
        let object = new(&pool, 10_000);
        free(&pool, object);
        let _ = unsafe { pool.usable_size(object) };
    }),
    ("usable-size-wild", || {
        let _ = unsafe { pool().usable_size(at(0xdead_beef_0000)) };
    }),
    ("damaged-heap", damaged_heap),
    ("exhausted", || exhaust(World::of(1 << 20).config)),
    ("exhausted-absurd", || {
        let pool = World::of(1 << 20).config.exhausted(Exhausted::Abort).build().expect("a pool");
        let _ = pool.alloc(layout(isize::MAX as usize));
    }),
    ("exhausted-heap", || exhaust(World::of(1 << 20).small(Small::Heap).config)),
    ("exhausted-system", || {
        let config = World::of(1 << 20).small(Small::System).config;
        let pool = config.exhausted(Exhausted::Abort).build().expect("a pool");
        assert!(pool.try_alloc(layout(isize::MAX as usize)).is_err());
        let _ = pool.alloc(layout(isize::MAX as usize));
    }),
    ("mp-double-free", || {
        whole();
        let object = process::alloc(100);
        unsafe {
            process::free(object, "mp_free");
            process::free(object, "mp_free");
        }
    }),
    ("mp-free-of-cache-item", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        unsafe { process::free(process::cache_alloc(cache), "mp_free") };
    }),
    ("mp-use-of-destroyed-cache", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        unsafe { process::cache_destroy(cache) };
        let _ = process::cache_alloc(cache);
    }),
    ("mp-free-into-destroyed-cache", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        let item = process::cache_alloc(cache);
        unsafe {
            process::cache_destroy(cache);
            process::cache_free(cache, item);
        }
    }),
    ("mp-destroy-twice", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        unsafe {
            process::cache_destroy(cache);
            process::cache_destroy(cache);
        }
    }),
    ("mp-alloc-after-fini", || {
        whole();
        unsafe { process::fini(|_| ()) }.expect("a pool");
        let _ = process::alloc(100);
    }),
    ("mp-free-after-fini", || {
        whole();
        let object = process::alloc(100);
        unsafe { process::fini(|_| ()) }.expect("a pool");
        unsafe { process::free(object, "mp_free") };
    }),
    ("mp-alloc-after-fini-elsewhere", || after_fini_elsewhere(|| _ = process::alloc(100))),
    ("mp-alloc-large-after-fini-elsewhere", || after_fini_elsewhere(|| _ = process::alloc(100_000))),
    ("mp-alloc-item-after-fini-elsewhere", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        after_fini_elsewhere(move || _ = process::cache_alloc(cache));
    }),
    ("mp-alloc-array-after-fini-elsewhere", || {
        whole();
        let cache = process::cache_create("request", 64, 8).expect("a cache");
        after_fini_elsewhere(move || _ = process::cache_alloc_array(cache, 3));
    }),
    ("mp-free-after-fini-elsewhere", || {
        whole();
        let (to, from) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let object = process::alloc(100);
            to.send(object as usize).expect("a listener");
            let _ = wait.recv();
            unsafe { process::free(object, "mp_free") };
        });
        from.recv().expect("an object");
        unsafe { process::fini(|_| ()) }.expect("a pool");
        drop(go);
        let _ = other.join();
    }),
    ("null-is-fine", || {
        whole();
        unsafe { process::free(std::ptr::null_mut(), "mp_free") };
        std::process::exit(0);
    }),
];

/// A thread does something, and once more after the pool has ended.
fn after_fini_elsewhere(act: impl Fn() + Send + 'static) {
    if !process::is_ready() {
        whole();
    }
    let (to, from) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        act();
        to.send(()).expect("a listener");
        let _ = wait.recv();
        act();
    });
    from.recv().expect("a thread that has used the pool");
    unsafe { process::fini(|_| ()) }.expect("a pool");
    drop(go);
    let _ = other.join();
}

fn main() {
    // Nobody needs a core file of what is meant.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "list" {
        KINDS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let (_, program) = KINDS.iter().find(|(name, _)| *name == wanted).expect("a kind of misuse");
    program();
    std::process::exit(3);
}
