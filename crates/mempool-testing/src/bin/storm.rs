//! Storms, each in a process of its own whose global allocator is the pool: `storm KIND COUNT`.
//!
//! Exits with 0 when all held; otherwise says what didn't and exits with 1.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;

use mempool::process;
#[cfg(not(feature = "global"))]
use mempool::{
    Config, Global,
    config::{Commit, Lock},
};
use mempool_testing::{Rng, os};

#[cfg(not(feature = "global"))]
#[global_allocator]
static POOL: Global = Global::new(Config::process().segment(64 << 20).commit(Commit::Lazy).lock(Lock::Off));

/// An object with a pattern in it.
struct Marked(Vec<u8>);

impl Marked {
    fn new(rng: &mut Rng) -> Self {
        let most = if rng.below(20) == 0 { 20_000 } else { 600 };
        let size = 1 + rng.below(most);
        Self(vec![size as u8; size])
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let mark = self.0.len() as u8;
        assert!(self.0.iter().all(|&byte| byte == mark), "an object was overwritten");
    }
}

fn held() -> usize {
    let stats = process::stats().expect("a process pool");
    stats.open - stats.free
}

fn churn(rng: &mut Rng, steps: usize, most: usize) -> Vec<Marked> {
    let mut live: Vec<Marked> = Vec::new();
    for _ in 0..steps {
        if live.len() < most && rng.below(3) != 0 {
            live.push(Marked::new(rng));
        } else if !live.is_empty() {
            let index = rng.below(live.len());
            live.swap_remove(index);
        }
    }
    live
}

/// Threads come, leave objects to others, and go: memory stays flat.
fn reborn(count: usize) {
    let mut warm = 0;
    let (to, from) = mpsc::sync_channel::<Vec<Marked>>(16);
    for number in 0..count {
        let to = to.clone();
        let worker = thread::spawn(move || {
            let mut rng = Rng::new(number as u64);
            let left = churn(&mut rng, 60, 30);
            to.send(left).expect("a receiver");
        });
        drop(from.recv().expect("what a thread left"));
        worker.join().expect("a thread that ends well");
        if number == count / 10 {
            warm = held();
        }
    }
    let end = held();
    println!("held {warm} after a tenth, {end} at the end, {} threads", process::stats().expect("a pool").threads);
    assert!(end < warm + (1 << 20), "{warm} bytes held after a tenth of the threads, {end} at the end");
}

static KEY: AtomicU64 = AtomicU64::new(0);

/// Frees what it was given, allocates, and re-arms itself, three times.
unsafe extern "C" fn on_exit(value: *mut c_void) {
    // SAFETY: the value is what `destructors` or this function put there.
    let (round, mut live) = *unsafe { Box::from_raw(value.cast::<(u32, Vec<Marked>)>()) };
    let mut rng = Rng::new(u64::from(round));
    live.truncate(live.len() / 2);
    live.extend(churn(&mut rng, 20, 20));
    if round < 3 {
        let next = Box::into_raw(Box::new((round + 1, live)));
        // SAFETY: the key lives for ever.
        unsafe { libc::pthread_setspecific(KEY.load(Relaxed) as libc::pthread_key_t, next.cast()) };
    }
}

/// Threads whose destructors allocate and free, again and again.
fn destructors(count: usize) {
    let mut key = 0;
    // SAFETY: writes the key.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(on_exit)) }, 0);
    KEY.store(u64::from(key), Relaxed);
    let mut warm = 0;
    for number in 0..count / 4 {
        let batch: Vec<_> = (0..4)
            .map(|place| {
                thread::spawn(move || {
                    let live = churn(&mut Rng::new((number * 4 + place) as u64), 40, 20);
                    let value = Box::into_raw(Box::new((0u32, live)));
                    // SAFETY: the key lives for ever.
                    unsafe { libc::pthread_setspecific(key, value.cast()) };
                })
            })
            .collect();
        batch.into_iter().for_each(|worker| worker.join().expect("a thread that ends well"));
        if number == count / 40 {
            warm = held();
        }
    }
    let end = held();
    println!("held {warm} after a tenth, {end} at the end, {} threads", process::stats().expect("a pool").threads);
    assert!(end < warm + (1 << 20), "{warm} bytes held after a tenth of the threads, {end} at the end");
}

/// Forks while threads are at work; each child allocates at once, in a thread too.
fn forks(count: usize) {
    let stop = AtomicBool::new(false);
    // Joined one by one: a scope does not wait for what threads do after their closures.
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..3 {
            let stop = &stop;
            threads.push(scope.spawn(move || {
                let mut rng = Rng::new(number);
                while !stop.load(Relaxed) {
                    drop(churn(&mut rng, 300, 100));
                    // stdio in the threads, as real programs have it.
                    // SAFETY: flushes all streams.
                    unsafe { libc::fflush(std::ptr::null_mut()) };
                }
            }));
        }
        let mut rng = Rng::new(99);
        for number in 0..count {
            let mine = churn(&mut rng, 50, 50);
            let pid = os::fork(|| {
                let mut rng = Rng::new(number as u64);
                drop(churn(&mut rng, 500, 100));
                drop(mine);
                if number % 16 == 0 {
                    thread::spawn(|| drop(churn(&mut Rng::new(1), 200, 100))).join().expect("a thread of the child");
                }
                i32::from(process::verify().is_err()) * 9
            });
            assert_eq!(os::wait(pid, 120), Some(0), "child {number}");
        }
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends well"));
    });
}

/// Several threads fork at the same time, children fork again.
fn fork_in_threads(count: usize) {
    thread::scope(|scope| {
        let work = |number: u64| {
            move || {
                let mut rng = Rng::new(number);
                for _ in 0..count / 4 {
                    let left = churn(&mut rng, 100, 50);
                    let pid = os::fork(|| {
                        drop(churn(&mut Rng::new(number), 100, 50));
                        let grandchild = os::fork(|| {
                            drop(left);
                            drop(churn(&mut Rng::new(number), 100, 50));
                            0
                        });
                        os::wait(grandchild, 60).unwrap_or(77)
                    });
                    assert_eq!(os::wait(pid, 120), Some(0));
                }
            }
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(work(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends well"));
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let count = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100);
    match kind.as_str() {
        "reborn" => reborn(count),
        "destructors" => destructors(count),
        "forks" => forks(count),
        "fork-in-threads" => fork_in_threads(count),
        _ => panic!("reborn, destructors, forks or fork-in-threads"),
    }
    process::verify().unwrap_or_else(|broken| panic!("{broken}"));
}
