//! Who may use the reserve without knowing of it: those who can't go on without memory.
//!
//! The dynamic loader, which allocates for `dlopen`, for a new thread, and for a thread's first touch of a library's
//! thread-local variables, and ends the process where that fails; a C++ exception that is thrown because there was no
//! memory; and a panic of a Rust program (`panic`).

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mempool::process;

use crate::start;

/// First address of the dynamic loader, and bytes from there.
static LOADER: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// The C++ library's `__cxa_allocate_exception`, 0 until it was looked for.
static THROW: AtomicUsize = AtomicUsize::new(0);

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

/// Whether `address` lies in the dynamic loader.
#[inline]
pub fn is_loader(address: usize) -> bool {
    address.wrapping_sub(LOADER[0].load(Relaxed)) < LOADER[1].load(Relaxed)
}

/// Finds out where the loader lies, if there is a reserve for it to use.
pub fn find_loader() {
    if process::values().is_none_or(|values| values.reserve == 0) {
        return;
    }
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

type Throw = unsafe extern "C" fn(usize) -> *mut c_void;

/// As in the C++ ABI: memory for an exception, from the reserve if there is no other. The C++ library's own does the rest.
///
/// # Safety
/// As in the C++ ABI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cxa_allocate_exception(size: usize) -> *mut c_void {
    let mut known = THROW.load(Relaxed);
    if known == 0 {
        const NAME: &CStr = c"__cxa_allocate_exception";
        // SAFETY: a plain look-up; whoever calls this has a C++ library.
        known = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr()) } as usize;
        THROW.store(known, Relaxed);
    }
    if known == 0 {
        start::stop(format_args!("__cxa_allocate_exception: there is no C++ library behind this one"));
    }
    // SAFETY: the function of this name has this type.
    let throw = unsafe { core::mem::transmute::<usize, Throw>(known) };
    // SAFETY: contract.
    scope(|| unsafe { throw(size) })
}
