//! What other threads keep, threads that never run again among them: a request gets it, but for a bound that is checked.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::{Arc, Barrier};
use std::thread;
use std::vec::Vec;

use crate::config::{Config, Exhausted};
use crate::pool::Pool;
use crate::slab::class_size;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

fn config() -> Config {
    Config::new().segment(8 << 20).exhausted(Exhausted::Null).max_retries(0).verdict_interval(0)
}

/// Objects on their way to another thread.
struct Sent(Vec<NonNull<u8>>);
// SAFETY: the pool's objects may be freed by any thread.
unsafe impl Send for Sent {}

/// Runs `work` in a thread that then sleeps until `wake` is passed: the objects that it leaves to us.
fn sleeper(
    pool: &Arc<Pool>,
    wake: &Arc<Barrier>,
    work: impl FnOnce(&Pool) -> Vec<NonNull<u8>> + Send + 'static,
) -> Vec<NonNull<u8>> {
    let (pool, wake) = (pool.clone(), wake.clone());
    let (give, take) = std::sync::mpsc::channel();
    thread::spawn(move || {
        give.send(Sent(work(&pool))).expect("somebody listens");
        wake.wait();
    });
    take.recv().expect("the thread did its work").0
}

fn free_all(pool: &Pool, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

/// Takes objects of `size` until there is no more.
fn fill(pool: &Pool, size: usize) -> Vec<NonNull<u8>> {
    std::iter::from_fn(|| pool.try_alloc(layout(size)).ok()).collect()
}

/// Bytes that objects of `size` can have in all, one after the other.
fn capacity(size: usize) -> usize {
    let pool = config().build().expect("a pool");
    fill(&pool, size).len() * size
}

#[test]
fn slabs_that_others_emptied_are_had_while_their_owner_sleeps() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    // A sleeper's slabs: full ones, one in its queue by a free of its own, a current one.
    let objects = sleeper(&pool, &wake, |pool| {
        let mut objects = fill(pool, 512);
        let last = objects.split_off(objects.len() - 300);
        free_all(pool, last.into_iter().step_by(7));
        objects
    });
    assert!(objects.len() * 512 > 7 << 20);
    free_all(&pool, objects);
    // A slot is 4 KiB here. The rest of the 300 objects, one current slab, and the sleeper's local heap are not to be had.
    let page = fill(&pool, 4096);
    let (all, kept) = (capacity(4096), 300usize.div_ceil(8) + 1 + 4);
    assert!((page.len() + kept) * 4096 >= all, "{} of {all}", page.len() * 4096);
    pool.verify().expect("a sound pool");
    wake.wait();
}

#[test]
fn remote_frees_are_had_out_of_a_sleepers_queue() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    // Of each slab the sleeper frees one object itself, so that all are in its queue, and keeps one.
    let objects = sleeper(&pool, &wake, |pool| {
        let objects = fill(pool, 256);
        let (first, rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.addr().get() % 4096 == 0);
        free_all(pool, first);
        rest.into_iter().filter(|object| object.addr().get() % 4096 != 256).collect()
    });
    let count = objects.len();
    assert!(count > 20_000);
    free_all(&pool, objects);
    let again = fill(&pool, 256);
    assert!(again.len() >= count, "{} of {count}", again.len());
    assert!(again.iter().all(|object| pool.usable_size(*object) >= 256));
    pool.verify().expect("a sound pool");
    free_all(&pool, again);
    pool.verify().expect("a sound pool");
    wake.wait();
}

#[test]
fn what_ended_threads_left_is_had_to_the_last_item() {
    let pool = Arc::new(config().build().expect("a pool"));
    let kept: Vec<Vec<NonNull<u8>>> = (0..4)
        .map(|k| {
            let pool = pool.clone();
            let work = move || {
                let objects: Vec<_> = (0..3000).map_while(|_| pool.try_alloc(layout(300)).ok()).collect();
                let (odd, even): (Vec<_>, Vec<_>) =
                    objects.into_iter().enumerate().partition(|(i, _)| (i + k) % 2 == 1);
                free_all(&pool, even.into_iter().map(|(_, object)| object));
                Sent(odd.into_iter().map(|(_, object)| object).collect())
            };
            thread::spawn(work).join().expect("joined").0
        })
        .collect();
    let live: usize = kept.iter().map(Vec::len).sum();
    let again = fill(&pool, 300);
    let size = 320;
    assert!((live + again.len()) * size >= capacity(size) * 999 / 1000, "{live} and {}", again.len());
    kept.into_iter().for_each(|objects| free_all(&pool, objects));
    free_all(&pool, again);
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

#[test]
fn what_threads_without_a_local_heap_left_is_had() {
    // One thread has a local heap; the other allocates from the shared one.
    let pool = Arc::new(config().max_threads(1).build().expect("a pool"));
    let first = pool.try_alloc(layout(100)).expect("memory");
    let other = pool.clone();
    let left = thread::spawn(move || {
        let objects = fill(&other, 100);
        let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free_all(&other, even.into_iter().map(|(_, object)| object));
        Sent(odd.into_iter().map(|(_, object)| object).collect())
    });
    let left = left.join().expect("joined").0;
    let again = fill(&pool, 100);
    assert!(again.len() + 64 >= left.len(), "{} of {}", again.len(), left.len());
    free_all(&pool, again.into_iter().chain(left).chain([first]));
    assert_eq!(pool.stats().live(), 0);
}

/// The bound of docs/SAFETY.md: of slabs that are empty, one of each class and thread; of others, what the thread freed
/// there itself.
#[test]
fn no_more_than_the_bound_is_stranded() {
    const THREADS: usize = 3;
    const CLASSES: [usize; 4] = [2, 5, 12, 20];
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(THREADS + 1)));
    let mut bound = 0;
    for _ in 0..THREADS {
        let rest = sleeper(&pool, &wake, |pool| {
            CLASSES.into_iter().for_each(|class| {
                // Several slabs of each class, freed again in the order in which nothing goes back by itself.
                let objects: Vec<_> =
                    (0..300).map(|_| pool.try_alloc(layout(class_size(class))).expect("memory")).collect();
                free_all(pool, objects);
            });
            Vec::new()
        });
        assert!(rest.is_empty());
        let core = pool.core();
        bound += CLASSES.map(|class| core.slabs.shape(class).expect("a class").run * 256).iter().sum::<usize>();
    }
    let pages = fill(&pool, 4096);
    let rest = fill(&pool, 1);
    let stats = pool.stats();
    // Nothing is free, and no slab is left but what the sleepers keep.
    assert_eq!((stats.free, stats.classes.iter().map(|held| held.live).sum::<usize>()), (0, 0));
    let lost: usize = stats.classes.iter().map(|held| held.run_bytes).sum();
    assert!(lost <= bound && lost > 0, "{lost} bytes are stranded, the bound is {bound}");
    // The verdict says as much.
    let mut told = 0;
    pool.core().slabs.each_stranded(&mut |_, _, _, free| told += free);
    assert!(told <= lost && told * 10 > lost * 9, "{told} of {lost}");
    let text = std::format!("{}", pool.verdict(layout(4096)));
    let line = std::format!("  stranded   {} in {} slabs: ", crate::bytes::Bytes(told), THREADS * CLASSES.len());
    assert!(text.contains(&line) && text.contains(" with thread "), "{text}");
    free_all(&pool, pages.into_iter().chain(rest));
    wake.wait();
}

#[test]
fn a_thread_that_relinquishes_strands_nothing() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    let kept = sleeper(&pool, &wake, |pool| {
        let objects: Vec<_> = (0..500).map(|_| pool.try_alloc(layout(200)).expect("memory")).collect();
        let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free_all(pool, odd.into_iter().map(|(_, object)| object));
        pool.relinquish();
        let again = pool.try_alloc(layout(100)).expect("it may go on");
        free_all(pool, [again]);
        pool.relinquish();
        even.into_iter().map(|(_, object)| object).collect()
    });
    let mut told = 0;
    pool.core().slabs.each_stranded(&mut |_, _, _, free| told += free);
    assert_eq!(told, 0);
    free_all(&pool, kept);
    pool.verify().expect("a sound pool");
    wake.wait();
}

/// A program that never ends a thread, under all of this at once.
#[test]
fn tapping_sleepers_and_workers_that_free_and_fill() {
    let (pool, wake) = (Arc::new(config().segment(2 << 20).build().expect("a pool")), Arc::new(Barrier::new(2)));
    let objects = sleeper(&pool, &wake, |pool| {
        let objects = fill(pool, 128);
        let (own, rest): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 9 == 0);
        free_all(pool, own.into_iter().map(|(_, object)| object));
        rest.into_iter().map(|(_, object)| object).collect()
    });
    let workers: Vec<_> = objects
        .chunks(objects.len().div_ceil(3))
        .map(|part| {
            let (pool, mut mine) = (pool.clone(), Sent(part.to_vec()));
            thread::spawn(move || {
                let sent = &mut mine;
                for round in 0..40usize {
                    let many = sent.0.len() / 2 + round % 3;
                    free_all(&pool, sent.0.drain(..many.min(sent.0.len())));
                    while let Ok(object) = pool.try_alloc(layout(128)) {
                        // SAFETY: 128 bytes, ours.
                        unsafe { object.as_ptr().write_bytes(round as u8, 128) };
                        sent.0.push(object);
                    }
                }
                mine
            })
        })
        .collect();
    let rest: Vec<Sent> = workers.into_iter().map(|worker| worker.join().expect("joined")).collect();
    let mut addresses: Vec<usize> =
        rest.iter().flat_map(|sent| sent.0.iter().map(|object| object.addr().get())).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]), "an object was handed out twice");
    pool.verify().expect("a sound pool");
    rest.into_iter().for_each(|sent| free_all(&pool, sent.0));
    pool.verify().expect("a sound pool");
    wake.wait();
}
