//! Autonomy, proved: `steady [COUNT]`. After a pool is made, a filter of the kernel kills the process at any system
//! call but the few that end it; then three threads do COUNT mixed operations each. Prints the page faults of
//! that time and exits with 0 if there were none.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use mempool::config::{Exhausted, Small};
use mempool::{Config, Pool, RawCache};
use mempool_testing::{Rng, os};

const PLACES: usize = 1500;
const THREADS: usize = 3;

/// Objects that all threads put in and take out: address, 0 for none.
static SHELF: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];
static READY: AtomicU64 = AtomicU64::new(0);
static GO: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

/// Kills the process at any system call from now on but those that it needs to say how it went.
fn shut_the_door() {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let verdict = libc::BPF_RET | libc::BPF_K;
    let allowed = [libc::SYS_write, libc::SYS_exit_group, libc::SYS_getrusage];
    let mut program = vec![statement(load, 0, 0, 0)];
    for (place, call) in allowed.iter().enumerate() {
        program.push(statement(equal, (allowed.len() - place) as u8, 0, *call as u32));
    }
    program.push(statement(verdict, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    program.push(statement(verdict, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program lives until the call returns; TSYNC: for all threads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const filter,
        )
    };
    assert_eq!(result, 0, "the kernel has no filter for system calls");
}

fn pick(rng: &mut Rng) -> Layout {
    let size = match rng.below(20) {
        0 => rng.below(60_000),
        1 => rng.below(9000),
        2..=5 => rng.below(2000),
        _ => rng.below(200),
    };
    let align = if rng.below(30) == 0 { 1 << rng.below(13) } else { 1 };
    Layout::from_size_align(size, align).expect("a layout")
}

fn alloc(pool: &Pool, rng: &mut Rng) -> usize {
    let layout = pick(rng);
    let served = if rng.below(8) == 0 { pool.try_alloc_zeroed(layout) } else { pool.try_alloc(layout) };
    let Ok(object) = served else { fail("the pool is exhausted\n") };
    // SAFETY: as many bytes were handed out.
    unsafe { object.write_bytes(1, layout.size()) };
    object.as_ptr() as usize
}

fn free(pool: &Pool, address: usize) {
    if let Some(object) = NonNull::new(address as *mut u8) {
        // SAFETY: taken off the shelf by us alone.
        unsafe { pool.free(object) };
    }
}

fn step(pool: &Pool, cache: &RawCache<'_>, rng: &mut Rng) {
    let place = &SHELF[rng.below(PLACES)];
    match rng.below(10) {
        0 => {
            let old = place.swap(0, Ordering::AcqRel);
            if let Some(object) = NonNull::new(old as *mut u8) {
                // SAFETY: as above.
                let Ok(moved) = (unsafe { pool.try_realloc(object, pick(rng)) }) else { fail("no realloc\n") };
                free(pool, place.swap(moved.as_ptr() as usize, Ordering::AcqRel));
            }
        }
        1 => {
            let count = rng.below(40);
            let Ok(items) = cache.try_alloc_array(count) else { fail("no array\n") };
            // SAFETY: just handed out.
            unsafe { cache.free_array(items, count) };
        }
        2 => {
            let Ok(item) = cache.try_alloc() else { fail("no item\n") };
            // SAFETY: as above.
            unsafe { cache.free(item) };
        }
        _ => free(pool, place.swap(alloc(pool, rng), Ordering::AcqRel)),
    }
}

fn say(text: &str) {
    // SAFETY: plain bytes.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

fn fail(text: &str) -> ! {
    say(text);
    // SAFETY: ends the process.
    unsafe { libc::_exit(1) }
}

fn work(pool: &Pool, cache: &RawCache<'_>, seed: u64, count: u64) {
    let mut rng = Rng::new(seed);
    for _ in 0..count {
        step(pool, cache, &mut rng);
    }
}

/// Touches all of the program's and its libraries' code and constants, and each page of their variables: which of them is used for the first time
/// behind the door depends on how the threads meet. The pool's own memory is left as it is.
fn touch_program() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|line| line.contains(" /")) {
        let mut words = line.split([' ', '-']);
        let mut address = || words.next().and_then(|word| usize::from_str_radix(word, 16).ok());
        let (Some(from), Some(to), Some(rights)) = (address(), address(), words.next()) else { continue };
        for address in (from..to).step_by(4096).filter(|_| rights.starts_with('r')) {
            // SAFETY: mapped from the program's or a library's file, readable, and, where it is changed by nothing, writable.
            unsafe {
                if rights.starts_with("rw") {
                    (*(address as *const AtomicU8)).fetch_or(0, Ordering::Relaxed);
                } else {
                    (address as *const u8).read_volatile();
                }
            }
        }
    }
}

/// Touches so much of the thread's stack as no operation needs.
#[inline(never)]
fn touch_stack() {
    std::hint::black_box(&mut [1u8; 128 << 10]);
}

fn run(small: Small, count: u64) -> ! {
    let config = Config::new().segment(256 << 20).small(small).exhausted(Exhausted::Null);
    // Lives as long as the process.
    let pool: &'static Pool = Box::leak(Box::new(config.build().expect("a pool")));
    let item = Layout::from_size_align(72, 8).expect("a layout");
    let cache: &'static RawCache<'static> = Box::leak(Box::new(pool.raw_cache("steady", item).expect("a cache")));
    for seed in 1..THREADS as u64 {
        std::thread::spawn(move || {
            // The first steps join the pool.
            touch_stack();
            work(pool, cache, seed, 1000);
            READY.fetch_add(1, Ordering::Release);
            while GO.load(Ordering::Acquire) == 0 {
                std::hint::spin_loop();
            }
            work(pool, cache, seed + 100, count);
            DONE.fetch_add(1, Ordering::Release);
            loop {
                std::hint::spin_loop();
            }
        });
    }
    touch_stack();
    work(pool, cache, 0, 1000);
    touch_program();
    while READY.load(Ordering::Acquire) < THREADS as u64 - 1 {
        std::hint::spin_loop();
    }
    shut_the_door();
    let before = os::page_faults();
    GO.store(1, Ordering::Release);
    work(pool, cache, 100, count);
    while DONE.load(Ordering::Acquire) < THREADS as u64 - 1 {
        std::hint::spin_loop();
    }
    let faults = os::page_faults() - before;
    if faults != 0 {
        say("page faults: ");
        let digits = [b'0' + (faults / 100 % 10) as u8, b'0' + (faults / 10 % 10) as u8, b'0' + (faults % 10) as u8];
        say(std::str::from_utf8(&digits).unwrap_or("?"));
        fail("\n");
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let small = match arguments.next().as_deref() {
        Some("heap") => Small::Heap,
        Some("trespass") => {
            // Shows that the door is shut.
            shut_the_door();
            std::thread::yield_now();
            return;
        }
        _ => Small::Slab,
    };
    run(small, arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000));
}
