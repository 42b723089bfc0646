//! `libmempool_preload.so`: the malloc family, served by the process pool, for programs that know nothing of it.
//!
//! ```text
//! LD_PRELOAD=/path/to/libmempool_preload.so MEMPOOL_SEGMENT=1G program arguments
//! ```
//!
//! The settings are the variables of docs/CONFIGURATION.md. The pool is made when the dynamic loader starts the
//! library, or by the first allocation if that comes earlier; a bad `MEMPOOL_` variable, or a segment that the
//! machine refuses, ends the program there with one line and exit code 125 (as `env` and `timeout` have it).
//! Programs with more rights than their caller (`AT_SECURE`) take the defaults.
//!
//! | function | size 0 | refusal | bad argument |
//! |---|---|---|---|
//! | `malloc`, `calloc` | a unique pointer | null, ENOMEM | overflow: null, ENOMEM |
//! | `realloc`, `reallocarray` | of null: a unique pointer; else frees and gives null, errno as it was | null, ENOMEM, old object kept | overflow: null, ENOMEM |
//! | `posix_memalign` | a unique pointer | gives ENOMEM, errno and the result as they were | not a power of two or no multiple of 8: EINVAL |
//! | `aligned_alloc` | a unique pointer | null, ENOMEM | not a power of two: null, EINVAL; the size need not be a multiple |
//! | `memalign` | a unique pointer | null, ENOMEM | rounded up to a power of two, as glibc does; above half the address space: null, EINVAL |
//! | `valloc`, `pvalloc` | a unique pointer; one OS page | null, ENOMEM | overflow: null, ENOMEM |
//! | `free`, `cfree`, `free_sized`, `free_aligned_sized` | | | errno is kept; a wrong pointer or size ends the process with a message |
//! | `malloc_usable_size` | of null: 0 | | a wrong pointer ends the process with a message |
//! | `mallinfo`, `mallinfo2`, `malloc_stats`, `malloc_info` | | | `malloc_info` with options other than 0: EINVAL |
//! | `malloc_trim` | | 0: nothing given back | a segment that is committed eagerly keeps its memory: 0 |
//! | `mallopt` | | | 1 for glibc's parameters, which mean nothing here; 0 for others |
//!
//! "Refusal" is what happens with `MEMPOOL_EXHAUSTED=null` or `grow`; with `abort`, the default, an exhausted pool
//! ends the program with a message. Requests above 16 TiB are refused in every case: no pool can be set to
//! serve them, and programs ask for them to be told no.
//!
//! **C++.** `operator new` in all its forms stays the C++ library's, which calls `malloc` or `aligned_alloc`, runs
//! the new-handler and throws `std::bad_alloc`; so does `operator delete`, which calls `free`. A program that
//! replaces some of them keeps its own. Only the sized forms of `delete` are ours, since they tell a size that can be
//! checked; where the program has replaced the unsized form, they go on to it, as the standard says, and also where it has a
//! `malloc` of its own, from which its objects then are.
//!
//! **Pointers from elsewhere.** With `MEMPOOL_SMALL=system` all go to the C library. Otherwise an address in the C
//! library's own heap (somebody called `__libc_malloc`) is handed to it; all others outside the pool (stack, static
//! and wild pointers) end the program with a message. Who asks while the pool is being made, in the thread that makes it, gets the C library's
//! memory: a function of the C library that another library replaces (libfaketime's `getpid`) may allocate.
//!
//! **`dlopen`** is the C library's, without `RTLD_DEEPBIND`: a library loaded so would find the C library's `free`.
//!
//! **`MEMPOOL_STATS=on`** prints the pool's table to the standard error of the start when a process ends by `exit` or by
//! returning from `main`: also a child of `fork`, each with its number and name. One that ends by `_exit`, `exec` or a
//! signal prints none.
//!
//! **Never the wrong program.** The library exports `malloc` and so on as plain symbols, in its rlib too. A Rust
//! program that merely depends on this crate does not get them: the compiler links a crate only if the source names
//! it, and no source should. A test looks for `malloc` in such a program.
//!
//! *Limits:* Linux with glibc, dynamically linked programs. On other processors than x86-64 the library holds Rust's standard library, finds its thread's
//! words by a call, and knows neither `dlopen` nor exceptions. The child of `_Fork` or a raw `clone` runs no fork
//! handlers: as with every malloc, it must not allocate if other threads did at that moment. A program that closes
//! standard error and every file descriptor gets no table at its end. A resolver of an indirect function (IFUNC) runs
//! before thread-local storage is there and must not allocate.
#![no_std]
#![allow(unsafe_code)]

// With unwinding (`cargo test`, debug builds) the language wants a personality, which only std has. Release builds are
// free of std, so that nothing in the library can reach another allocator, a lock or a panic message.
#[cfg(any(panic = "unwind", not(all(target_arch = "x86_64", target_os = "linux"))))]
extern crate std;

mod cold;
mod critical;
mod cxx;
#[cfg(target_arch = "x86_64")]
mod deepbind;
mod drill;
mod entry;
mod inquire;
mod objects;
mod panic;
mod start;

/// Nothing here panics; should it, the process ends.
#[cfg(not(any(panic = "unwind", not(all(target_arch = "x86_64", target_os = "linux")))))]
#[panic_handler]
fn end(_: &core::panic::PanicInfo<'_>) -> ! {
    start::stop(format_args!("internal error"))
}

// The unwind tables of `core` name it. Nothing unwinds here, so nobody calls it.
#[cfg(not(any(panic = "unwind", not(all(target_arch = "x86_64", target_os = "linux")))))]
core::arch::global_asm!(
    ".hidden rust_eh_personality",
    ".globl rust_eh_personality",
    ".type rust_eh_personality,@function",
    "rust_eh_personality:",
    "ud2",
    ".size rust_eh_personality, . - rust_eh_personality",
);
