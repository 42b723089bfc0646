//! What the objects (the program and libraries) that the dynamic loader has loaded define: a look into their tables by the
//! hash of a name, which neither waits for the loader's lock nor allocates.
//!
//! *Limits:* what an object exports; objects without a GNU hash table, which no linker of today makes unless told to, define nothing here.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The beginning of the loader's `struct link_map`, which is all that it publishes of it.
#[repr(C)]
pub struct Object {
    bias: usize,
    _name: *const c_char,
    dynamic: *const Entry,
    _next: *const Object,
    previous: *const Object,
}

/// An entry of the dynamic section.
#[repr(C)]
struct Entry {
    tag: i64,
    address: usize,
}

/// A function's name and its hash.
pub struct Name(&'static CStr, u32);

impl Name {
    /// Of that function.
    pub const fn new(name: &'static CStr) -> Self {
        let (mut rest, mut hash) = (name.to_bytes(), 5381_u32);
        while let [byte, behind @ ..] = rest {
            hash = hash.wrapping_mul(33).wrapping_add(*byte as u32);
            rest = behind;
        }
        Self(name, hash)
    }

    /// As text.
    pub const fn text(&self) -> &'static CStr {
        self.0
    }
}

/// The C library's `_dl_find_object`, which waits for nobody; 0 where it has none, before 2.35.
static FIND: AtomicUsize = AtomicUsize::new(0);

/// Looks for what [`running_at`] needs. Whether it is there.
pub fn find_lookup() -> bool {
    const NAME: &CStr = c"_dl_find_object";
    // SAFETY: a plain look-up.
    let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) } as usize;
    FIND.store(known, Relaxed);
    known != 0
}

/// The object that the code at `address`, which is running, belongs to; None if to none, or before [`find_lookup`].
pub fn running_at(address: usize) -> Option<&'static Object> {
    type Find = unsafe extern "C" fn(*const c_void, *mut [usize; 16]) -> c_int;
    /// Where the `struct dl_find_object`, 12 words of these 16, has the object.
    const OBJECT: usize = 3;
    let known = FIND.load(Relaxed);
    if known == 0 {
        return None;
    }
    // SAFETY: the function of this name has this type.
    let find = unsafe { core::mem::transmute::<usize, Find>(known) };
    let mut result = [0; 16];
    // SAFETY: room for the result. Any address may be asked for.
    let status = unsafe { find(address as *const c_void, &raw mut result) };
    let [.., object] = result.first_chunk::<{ OBJECT + 1 }>().filter(|_| status == 0)?;
    // SAFETY: null, or the loader's, for as long as the object is loaded: while its code runs.
    unsafe { (*object as *const Object).as_ref() }
}

/// The object with the function or variable at `address`; waits for the loader's lock.
pub fn holding(address: *const c_void) -> Option<&'static Object> {
    const OBJECT: c_int = 2;
    // SAFETY: all zeros is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    let mut object = core::ptr::null_mut::<c_void>();
    // SAFETY: asks about an address; fills live places.
    let known = unsafe { libc::dladdr1(address, &raw mut info, &raw mut object, OBJECT) };
    // SAFETY: null, or the loader's. Who asks about an address sees to it that its object stays.
    if known == 0 { None } else { unsafe { object.cast::<Object>().as_ref() } }
}

impl Object {
    /// The object that the loader searches before this one: the program comes first, then what is preloaded.
    pub fn previous(&self) -> Option<&Object> {
        // SAFETY: null, or the loader's list, which grows and shrinks behind what was there at the start.
        unsafe { self.previous.as_ref() }
    }

    /// The addresses of the function `name` if this object defines it and exports the name.
    pub fn function(&self, name: &Name) -> Option<Range<usize>> {
        let table = NonNull::new(self.part(DT_GNU_HASH)? as *mut u32)?;
        let symbols = self.part(DT_SYMTAB)? as *const libc::Elf64_Sym;
        let names = self.part(DT_STRTAB)? as *const c_char;
        let hash = name.1;
        // SAFETY: a loaded object's tables are as the linker made them, or the loader would have gone astray in them: four numbers, filter,
        // buckets, chains; the chain of each bucket ends in an odd number, and each entry has a symbol, with a name.
        unsafe {
            let word = |at: usize| table.add(at).read();
            let (buckets, first, filters, shift) = (word(0), word(1), word(2) as usize, word(3));
            let filter = table.add(4).cast::<u64>().add((hash as usize / 64).checked_rem(filters)?).read();
            let wanted = 1_u64 << (hash % 64) | 1_u64 << (hash.wrapping_shr(shift) % 64);
            if filter & wanted != wanted {
                return None;
            }
            let bucket = 4 + 2 * filters;
            let mut at = word(bucket + hash.checked_rem(buckets)? as usize);
            let chain = bucket + buckets as usize;
            while let Some(place) = at.checked_sub(first) {
                let entry = word(chain + place as usize);
                let symbol = symbols.add(at as usize).read();
                // A program names a function that it takes the address of, too, without that it has it.
                let is_defined = symbol.st_shndx != SHN_UNDEF;
                if is_defined && entry | 1 == hash | 1 && CStr::from_ptr(names.add(symbol.st_name as usize)) == name.0 {
                    let start = self.bias.wrapping_add(symbol.st_value as usize);
                    return Some(start..start.wrapping_add(symbol.st_size as usize));
                }
                if entry & 1 == 1 {
                    break;
                }
                at = at.wrapping_add(1);
            }
        }
        None
    }

    /// The address in the dynamic section's entry `tag`.
    fn part(&self, tag: i64) -> Option<usize> {
        let mut entry = self.dynamic;
        // SAFETY: null, or a loaded object's dynamic section, which ends in an entry of this tag.
        while let Some(known) = unsafe { entry.as_ref() }.filter(|known| known.tag != DT_NULL) {
            if known.tag == tag {
                let at = known.address;
                // The loader has added the bias, but not where the section can't be written to (the kernel's object).
                return Some(if at < self.bias { at.wrapping_add(self.bias) } else { at });
            }
            // SAFETY: it was not the last one.
            entry = unsafe { entry.add(1) };
        }
        None
    }
}

const DT_NULL: i64 = 0;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const SHN_UNDEF: u16 = 0;
