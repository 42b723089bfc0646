//! Who may use the reserve without knowing of it: those who can't go on without memory.
//!
//! The dynamic loader, which allocates for `dlopen`, for a new thread, and for a thread's first touch of a library's
//! thread-local variables, and ends the process where that fails; a C++ exception that is thrown because there was no
//! memory; and a panic of a Rust program (`panic`).
//!
//! *Limits:* the loader and C++ libraries are recognised on x86-64, where it is known who calls; a C++ library that is linked into a program or
//! library which does not export it has its own memory for emergencies alone; with a C library before 2.35 the one of the start is recognised.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use mempool::process;

use crate::objects::{self, Name};
use crate::start;

/// In the C++ ABI: memory for an exception.
const ALLOCATE_EXCEPTION: Name = Name::new(c"__cxa_allocate_exception");

/// First address of the dynamic loader, and bytes from there.
static LOADER: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// Where memory for an exception is made, in the C++ library of the start, likewise: for C libraries that tell nothing of others.
static THROW: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// Whether there is a reserve for whom [`is_entitled`] recognises.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// Runs `f` with the right to use the reserve.
pub fn scope<R>(f: impl FnOnce() -> R) -> R {
    // Who makes the pool has no reserve yet.
    let ready = start::ready();
    if ready {
        process::critical(true);
    }
    let result = f();
    if ready {
        process::critical(false);
    }
    result
}

/// Whether who called from `address` may use the reserve. The C++ library's function is found by the tables of the object that it is part of:
/// a program may have several, and may load and drop them with libraries. Nothing is interposed for it, so that each throws with its own.
#[inline]
pub fn is_entitled(address: usize) -> bool {
    IS_ON.load(Relaxed) && (lies_in(&LOADER, address) || lies_in(&THROW, address) || throws(address))
}

fn lies_in([start, bytes]: &[AtomicUsize; 2], address: usize) -> bool {
    address.wrapping_sub(start.load(Relaxed)) < bytes.load(Relaxed)
}

#[cold]
#[inline(never)]
fn throws(address: usize) -> bool {
    let function = objects::running_at(address).and_then(|object| object.function(&ALLOCATE_EXCEPTION));
    function.is_some_and(|function| function.contains(&address))
}

/// Finds out how to recognise them, if there is a reserve.
pub fn find() {
    if process::values().is_none_or(|values| values.reserve == 0) {
        return;
    }
    find_loader();
    if !objects::find_lookup() {
        find_throw();
    }
    IS_ON.store(true, Relaxed);
}

/// Where the C++ library of the start, if there is one, makes memory for an exception.
fn find_throw() {
    // SAFETY: a plain look-up.
    let start = unsafe { libc::dlsym(libc::RTLD_DEFAULT, ALLOCATE_EXCEPTION.text().as_ptr()) };
    if let Some(function) = objects::holding(start).and_then(|object| object.function(&ALLOCATE_EXCEPTION)) {
        THROW[0].store(function.start, Relaxed);
        THROW[1].store(function.len(), Relaxed);
    }
}

fn find_loader() {
    // SAFETY: reads the auxiliary vector.
    let base = unsafe { libc::getauxval(libc::AT_BASE) } as usize;
    if base == 0 {
        return;
    }
    // SAFETY: the kernel has mapped the loader there, from its ELF header on; it stays as long as the process.
    let header = unsafe { &*(base as *const libc::Elf64_Ehdr) };
    let mut end = 0;
    for k in 0..usize::from(header.e_phnum) {
        // SAFETY: the header says where its program headers are, which lie in what is mapped first.
        let part = unsafe { &*((base + header.e_phoff as usize) as *const libc::Elf64_Phdr).add(k) };
        if part.p_type == libc::PT_LOAD {
            end = end.max((part.p_vaddr + part.p_memsz) as usize);
        }
    }
    LOADER[0].store(base, Relaxed);
    LOADER[1].store(end, Relaxed);
}
