//! The sized forms of C++'s `operator delete`: the only ones that say something to check.
//!
//! All others are the C++ library's, which come down to `malloc` and `free`. The standard lets a program replace the
//! unsized forms and go without the sized ones, which then must end in its own; [`find_replacements`] looks once,
//! when the library starts, whose the unsized forms are. A program with a `malloc` and `free` of its own, which come before ours, has objects
//! from there; then all sized forms go on to the unsized ones, which end in its `free`.
//!
//! A library behind this one that has an `operator new` and a `malloc` (a program linked with jemalloc) may make objects by the first without a call of
//! the second, which is ours, and delete them by a `free` that is ours, too. It gets those back: [`free_of_another`].
//!
//! *Limits:* a replacement in a module that `dlopen` loads later is not seen.
//!
//! # Safety
//! All functions: as the C++ standard says.
#![allow(clippy::missing_safety_doc, reason = "one section above says it for all")]

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mempool::process::{self, Claim};

use crate::cold;
use crate::objects::{self, Name};

/// The unsized forms: plain, array, and both with an alignment.
const FORMS: usize = 4;

// The last is `operator new`. Resolved by the dynamic loader before the constructor runs; null without a C++ library.
core::arch::global_asm!(
    ".weak _Znwm",
    ".weak _ZdlPv",
    ".weak _ZdaPv",
    ".weak _ZdlPvSt11align_val_t",
    ".weak _ZdaPvSt11align_val_t",
    ".pushsection .data.rel.ro.mempool_unsized,\"aw\",@progbits",
    ".p2align 3",
    ".hidden mempool_preload_unsized",
    ".globl mempool_preload_unsized",
    ".type mempool_preload_unsized,@object",
    ".size mempool_preload_unsized,40",
    "mempool_preload_unsized:",
    ".quad _ZdlPv",
    ".quad _ZdaPv",
    ".quad _ZdlPvSt11align_val_t",
    ".quad _ZdaPvSt11align_val_t",
    ".quad _Znwm",
    ".popsection",
);

unsafe extern "C" {
    #[link_name = "mempool_preload_unsized"]
    static UNSIZED: [u64; FORMS + 1];
}

/// Address of the `free` that belongs to the `operator new` of a library with a `malloc` of its own, 0 for none.
static ANOTHER: AtomicU64 = AtomicU64::new(0);

/// Addresses of the program's replacements of the unsized forms, 0 where the C++ library's is in force.
static REPLACED: [AtomicU64; FORMS] = [const { AtomicU64::new(0) }; FORMS];

const PLAIN: usize = 0;
const ARRAY: usize = 1;
const ALIGNED: usize = 2;
const ALIGNED_ARRAY: usize = 3;

const FREE: Name = Name::new(c"free");

/// Files of C++ libraries, whose forms do what ours do.
const LIBRARIES: [&[u8]; 2] = [b"libstdc++", b"libc++"];

/// Notes which unsized forms the program has replaced, or all if it has replaced what they end in. An array form that is the C++ library's
/// goes on to the plain one, so a replaced plain form counts for it too.
pub fn find_replacements() {
    // SAFETY: written by the dynamic loader before any constructor runs.
    let unsized_forms = unsafe { UNSIZED };
    let [.., new] = unsized_forms;
    ANOTHER.store(free_beside(new).unwrap_or(0), Relaxed);
    if let Some(free) = foreign_free() {
        for (place, own) in REPLACED.iter().zip(unsized_forms) {
            // A C++ library that comes later ends there, too; one argument more than it takes does no harm.
            place.store(if own == 0 { free } else { own }, Relaxed);
        }
        return;
    }
    for (k, place) in REPLACED.iter().enumerate() {
        let through = [k, k & !1].into_iter().find(|&form| unsized_forms.get(form).is_some_and(|&at| is_foreign(at)));
        let own = unsized_forms.get(k).copied().filter(|_| through.is_some());
        place.store(own.unwrap_or(0), Relaxed);
    }
}

/// The `free` that is found before this library's: of the program, or of a library that is preloaded before. Not asked of the loader, which
/// would take the address that a program calls by for the function.
fn foreign_free() -> Option<u64> {
    /// The C library alone has it. Should it come before, this library was not preloaded, and serves who asks it by its handle.
    const C_LIBRARY: Name = Name::new(c"__libc_start_main");
    let own = objects::holding((&raw const REPLACED).cast())?;
    let mut found = None;
    let mut before = own.previous();
    while let Some(object) = before {
        if object.function(&C_LIBRARY).is_some() {
            return None;
        }
        // The first in the list counts, which is looked at last.
        found = object.function(&FREE).map(|function| function.start as u64).or(found);
        before = object.previous();
    }
    found
}

/// The `free` of the object that has the function at `new`, if that has one, and is neither this library nor the C library.
fn free_beside(new: u64) -> Option<u64> {
    let object = objects::holding(new as *const c_void).filter(|_| new != 0)?;
    let is_own = objects::holding((&raw const ANOTHER).cast()).is_some_and(|own| core::ptr::eq(own, object));
    object.function(&FREE).filter(|_| !is_own).map(|function| function.start as u64)
}

/// What takes back an object that is neither the pool's nor, as far as can be told, the C library's.
#[inline]
pub fn free_of_another() -> Option<unsafe extern "C" fn(*mut c_void)> {
    let at = ANOTHER.load(Relaxed) as usize;
    // SAFETY: 0, or the address of a function of this name.
    unsafe { core::mem::transmute::<usize, Option<unsafe extern "C" fn(*mut c_void)>>(at) }
}

/// Whether there is a function at `address` that is not a C++ library's.
fn is_foreign(address: u64) -> bool {
    if address == 0 {
        return false;
    }
    // SAFETY: all zeros is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: asks about an address; fills a live struct.
    let known = unsafe { libc::dladdr(address as *const c_void, &raw mut info) } != 0 && !info.dli_fname.is_null();
    if !known {
        return true;
    }
    // SAFETY: a text of the dynamic loader's, which lives while the object is loaded.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    let file = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    !LIBRARIES.iter().any(|library| file.starts_with(library))
}

/// What the sized form number `form` does with an object that the hot path did not take.
///
/// # Safety
/// `object` is null or a live object from the matching `operator new`.
#[cold]
#[inline(never)]
unsafe fn delete(form: usize, object: *mut c_void, size: usize, align: usize, call: &'static str) {
    let replaced = REPLACED.get(form).map_or(0, |place| place.load(Relaxed)) as usize;
    if replaced == 0 {
        // SAFETY: contract. The C++ library asks for one byte where none is wanted.
        unsafe { cold::put_sized(object, size.max(1), align, Claim::Exact, call) }
    } else if form < ALIGNED {
        // SAFETY: the address is that of an unsized form, which takes the object alone.
        let unsized_form: unsafe extern "C" fn(*mut c_void) = unsafe { core::mem::transmute(replaced) };
        // SAFETY: contract.
        unsafe { unsized_form(object) }
    } else {
        // SAFETY: as above, with the alignment.
        let unsized_form: unsafe extern "C" fn(*mut c_void, usize) = unsafe { core::mem::transmute(replaced) };
        // SAFETY: contract.
        unsafe { unsized_form(object, align) }
    }
}

/// The hot path of the sized forms without alignment: not if the program has replaced the unsized form.
///
/// # Safety
/// As for `delete`.
#[inline(always)]
unsafe fn push(form: usize, object: *mut c_void, size: usize) -> bool {
    let is_ours = REPLACED.get(form).is_some_and(|place| place.load(Relaxed) == 0);
    // SAFETY: contract.
    is_ours && unsafe { process::push_sized(object.cast(), size) }
}

/// `operator delete(void*, std::size_t)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ZdlPvm(object: *mut c_void, size: usize) {
    // SAFETY: as the standard says.
    unsafe {
        if !push(PLAIN, object, size) {
            delete(PLAIN, object, size, 1, "operator delete");
        }
    }
}

/// `operator delete[](void*, std::size_t)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ZdaPvm(object: *mut c_void, size: usize) {
    // SAFETY: as the standard says.
    unsafe {
        if !push(ARRAY, object, size) {
            delete(ARRAY, object, size, 1, "operator delete[]");
        }
    }
}

/// `operator delete(void*, std::size_t, std::align_val_t)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ZdlPvmSt11align_val_t(object: *mut c_void, size: usize, align: usize) {
    // SAFETY: as the standard says.
    unsafe { delete(ALIGNED, object, size, align, "operator delete") }
}

/// `operator delete[](void*, std::size_t, std::align_val_t)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _ZdaPvmSt11align_val_t(object: *mut c_void, size: usize, align: usize) {
    // SAFETY: as the standard says.
    unsafe { delete(ALIGNED_ARRAY, object, size, align, "operator delete[]") }
}
