//! [`Pool`]: a segment with its tiers, made, used and given back.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::config::{Commit, Config, Exhausted, Small};
use crate::error::{AllocError, InitError};
use crate::front::{self, Budgets, Core, Events, Fail, Reclaim, Request, SpinLock, Threads};
use crate::os::{Os, OsError, Range};
use crate::segment::{
    Granted, Header, Layout as Areas, MAGIC, NAME_LEN, Needs, SlotGeometry, Slots, VERSION, Wish, make_huge, make_real,
};
use crate::slab::{CLASSES, LocalHeap, MAX_SMALL, SlabTier, class_size, largest};
use crate::sync::AtomicU64;
use crate::units::{FRAGMENT, GRANULE};

// What may be configured and what the tiers can do are the same.
const _: () = assert!(crate::config::HEAP_MAX_ALLOC == crate::heap::LARGEST_LIMIT);

/// Bytes of a lazily committed pool that the page-frag tier is ready for at first.
const CHARTED: usize = 128 << 20;

pub use huge_room::check as room_for_huge_pages;

mod care;
mod door;
mod huge_room;
mod parts;
mod reservation;

use parts::{frag_parts, heap_parts, slab_parts, thread_parts};
use reservation::Reservation;

#[cfg(all(test, not(loom)))]
mod real_tests;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
mod tests_advice;
#[cfg(all(test, not(loom)))]
mod tests_budget;
#[cfg(all(test, not(loom)))]
mod tests_parking;
#[cfg(all(test, not(loom)))]
mod tests_reserve;
#[cfg(all(test, not(loom)))]
mod tests_shorts;
#[cfg(all(test, not(loom)))]
mod tests_stranded;
#[cfg(all(test, not(loom)))]
mod tests_threads;
#[cfg(all(test, not(loom)))]
mod tests_verdict;

/// An autonomous memory pool: one segment, from which every allocation is served.
///
/// Made by [`Config::build`]; dropped, it returns the memory to the OS. A `Pool` may be shared by any number
/// of threads; several pools may live in one process.
///
/// ```
/// use std::alloc::Layout;
/// let pool = mempool::Pool::builder().segment(4 << 20).build()?;
/// let layout = Layout::from_size_align(100, 16).unwrap();
/// let object = pool.alloc(layout)?;
/// // SAFETY: allocated above.
/// assert!(unsafe { pool.usable_size(object) } >= 100);
/// // SAFETY: allocated above, not used afterwards.
/// unsafe { pool.free(object) };
/// assert_eq!(pool.stats().live(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    core: NonNull<Core>,
}

// SAFETY: the core is `Sync`, and dropping a pool on another thread than the one that made it is allowed.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// Writes all fields of a struct, one by one: a value of it would be on the stack first, and a thread's may have 16 KiB.
macro_rules! write_fields {
    ($at:ident, $name:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        $((&raw mut (*$at).$field).write($value);)*
        // Not without one of them.
        let $name { $($field: _),* } = &*$at;
    }};
}

impl Config {
    /// Makes a pool of this configuration, in a segment of the operating system. O(segment) when committed eagerly.
    ///
    /// # Errors
    /// The first setting that is out of range, or what the OS refused; nothing is left behind.
    pub fn build(self) -> Result<Pool, InitError> {
        let pool = Pool::on(crate::os::platform(), &self)?;
        pool.enlist();
        Ok(pool)
    }
}

impl Pool {
    /// The configuration to begin with: 64 MiB, slabs, abort on exhaustion.
    #[must_use]
    pub const fn builder() -> Config {
        Config::new()
    }

    /// A pool in a segment of `os`.
    ///
    /// # Errors
    /// As [`Config::build`].
    pub(crate) fn on(os: &'static dyn Os, config: &Config) -> Result<Pool, InitError> {
        check(config)?;
        let mut granted = Granted::default();
        if config.values().huge_page_size > 0 {
            match Self::on_huge(os, config, &mut granted) {
                Ok(pool) => return Ok(pool),
                // Only too few huge OS pages lead on to the small ones, with a note.
                Err(error) if is_required(config) || granted.short.huge_pages.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        let values = config.values();
        let page = os.os_page().max(1);
        let bytes = config.growth_limit().next_multiple_of(page);
        let guard = if values.guard_pages { page } else { 0 };
        let areas = plan(config, bytes, guard, page)?;
        let align = alignment(&areas, bytes, page);
        let open = open_bytes(config, &areas, bytes);
        if is_required(config) {
            huge_room::check(config, page, os.huge_page())?;
        }
        let reservation = Reservation::new(os, bytes, align)?;
        let start = reservation.range.start;
        // SAFETY: inside the reservation, of which the areas use fewer bytes (`plan`).
        let (metadata, data) = unsafe { (start.add(guard), start.add(guard + areas.data as usize)) };
        let ranges = [Range::new(metadata, areas.metadata_end as usize), Range::new(data, open.next_multiple_of(page))];
        // SAFETY: both lie in the reservation, nobody uses them yet, and they hold what the areas say.
        unsafe {
            make_real(os, &ranges, values, &mut granted)?;
            reservation.furnish(config, metadata, &areas, open, granted)
        }
    }

    /// A pool in huge OS pages that the administrator has set aside: metadata and data in one range, between addresses
    /// of a huge OS page each as guards.
    fn on_huge(os: &'static dyn Os, config: &Config, granted: &mut Granted) -> Result<Pool, InitError> {
        let size = config.values().huge_page_size.max(1);
        let config = config.segment(config.values().segment.next_multiple_of(size));
        let bytes = config.values().segment;
        let areas = plan(&config, bytes, 0, os.os_page().max(1))?;
        let reservation = Reservation::new(os, bytes.saturating_add(2 * size), size)?;
        // SAFETY: one huge OS page into the reservation, which has two more than the range.
        let range = Range::new(unsafe { reservation.range.start.add(size) }, bytes);
        // SAFETY: a whole number of huge OS pages of the reservation, which nobody uses yet.
        unsafe {
            make_huge(os, range, config.values(), granted)?;
            reservation.furnish(&config, range.start, &areas, areas.data_len(), *granted)
        }
    }

    /// A pool over memory that the caller hands over for good: no operating system needed. What does not fit the
    /// alignment at the buffer's ends is not used.
    ///
    /// The pool takes as much of its configuration as makes sense without an OS: not commit, lock, guards, huge
    /// OS pages or growth; the segment's size is the buffer's.
    ///
    /// ```
    /// use core::mem::MaybeUninit;
    /// static mut BUFFER: [MaybeUninit<u8>; 512 << 10] = [MaybeUninit::uninit(); 512 << 10];
    /// // SAFETY: the only reference ever made to the buffer.
    /// let buffer = unsafe { &mut *(&raw mut BUFFER) };
    /// let pool = mempool::Pool::over(buffer, &mempool::Config::new())?;
    /// # Ok::<(), mempool::InitError>(())
    /// ```
    ///
    /// # Errors
    /// A setting out of range, or a buffer that is too small, with the size that suffices.
    pub fn over(buffer: &'static mut [MaybeUninit<u8>], config: &Config) -> Result<Pool, InitError> {
        // SAFETY: the buffer is the pool's for ever.
        unsafe { Self::over_raw(buffer.as_mut_ptr().cast(), buffer.len(), config) }
    }

    /// As [`Pool::over`], for memory that somebody else answers for.
    ///
    /// # Errors
    /// As [`Pool::over`].
    ///
    /// # Safety
    /// `bytes` bytes at `start` are valid for reads and writes and used by nobody else until the pool is dropped.
    pub unsafe fn over_raw(start: *mut u8, bytes: usize, config: &Config) -> Result<Pool, InitError> {
        let fixed = config.segment(bytes).max_segment(0).exhausted(match config.values().exhausted {
            Exhausted::Grow => Exhausted::Null,
            policy => policy,
        });
        check(&fixed)?;
        let probe = plan(&fixed, bytes, 0, 1)?;
        // The data must begin at a multiple of the slot size, and so the metadata does too.
        let skip = start.align_offset(1 << probe.slot_shift);
        let fixed = fixed.slot_shift(probe.slot_shift as u32);
        let areas = plan(&fixed, bytes.saturating_sub(skip), 0, 1)?;
        // SAFETY: inside the buffer, which `plan` has measured.
        let metadata = unsafe { start.add(skip) };
        // SAFETY: as above; the caller's bytes may be anything, and the tiers begin with zeros.
        unsafe { core::ptr::write_bytes(metadata, 0, areas.metadata_end as usize) };
        let os = crate::os::platform();
        let open = areas.data_len();
        // SAFETY: laid out by `plan`, zeroed above.
        let pool = unsafe {
            Self::construct(os, &fixed, metadata, (core::ptr::null_mut(), 0), &areas, open, Granted::default())
        };
        // Whatever the caller left there.
        pool.core().frag.mark_all_touched();
        pool.enlist();
        Ok(pool)
    }

    /// Builds the pool in metadata that is all zeros.
    ///
    /// # Safety
    /// `metadata` is valid for the metadata of `areas`, and the data behind it for `open` bytes; nobody uses them.
    unsafe fn construct(
        os: &'static dyn Os,
        config: &Config,
        metadata: *mut u8,
        reservation: (*mut u8, usize),
        areas: &Areas,
        open: usize,
        granted: Granted,
    ) -> Pool {
        let values = *config.values();
        let serial = front::next_serial();
        // SAFETY: inside the memory (contract).
        let (data, at) =
            unsafe { (metadata.add(areas.data as usize), metadata.add(areas.core as usize).cast::<Core>()) };
        // SAFETY: every offset lies in the metadata and is a multiple of a cache line.
        let words = |offset: u64| unsafe { metadata.add(offset as usize).cast::<AtomicU64>().cast_const() };
        let geometry = SlotGeometry::new(areas.slot_shift as u32);
        // SAFETY: the area has the words that the layout computed for so many slots.
        let slots = unsafe { Slots::new(words(areas.slots), areas.slot_count as usize, geometry) };
        let heap_count = if values.small == Small::Heap { areas.slot_count as usize } else { 0 };
        // SAFETY: as above, or of no slots.
        let heap_slots = unsafe { Slots::new(words(areas.slots), heap_count, geometry) };
        // SAFETY: as `words`; the layout gave each array its length.
        let frag = unsafe { crate::frag::Frag::new(frag_parts(areas, &words, data as usize)) };
        // SAFETY: as above.
        let heap = unsafe { crate::heap::Heap::new(heap_parts(areas, &words, heap_slots, data, &values)) };
        // SAFETY: the areas for the core and the header are theirs (contract); the core is written before it is used.
        let core = unsafe {
            write_fields!(
                at,
                Core {
                    slabs: slab_parts(areas, &words, slots, data as usize),
                    frag: frag,
                    heap: heap,
                    config: values,
                    os: os,
                    layout: *areas,
                    max_small: if values.small == Small::Slab {
                        largest(areas.slot_shift as u32).min(MAX_SMALL)
                    } else {
                        0
                    },
                    parking: front::Parking::new(areas.data_len(), &values),
                    metadata: metadata,
                    data: data as usize,
                    data_len: areas.data_len(),
                    reservation: reservation,
                    serial: serial,
                    place: front::place_for(serial),
                    threads: thread_parts(areas, &words),
                    next: core::cell::Cell::new(core::ptr::null()),
                    caches: words(areas.caches),
                    reclaim: Reclaim::new(values.watermark),
                    marks: front::Marks::default(),
                    budgets: Budgets::new(),
                    spares: front::Spares::default(),
                    common: front::Common::new(),
                    granted: granted,
                    events: Events::default(),
                    drill: front::Drill::new(&values),
                    write_holders: crate::stats::write_holders,
                }
            );
            metadata.cast::<Header>().write(header(&*at));
            &*at
        };
        prepare(core, open);
        Pool { core: NonNull::from(core) }
    }

    pub(crate) fn core(&self) -> &Core {
        // SAFETY: the core lives in the metadata until `drop`.
        unsafe { self.core.as_ref() }
    }
}

/// Makes the tiers of a new core ready, of whose data area `open` bytes are open.
fn prepare(core: &Core, open: usize) {
    // Metadata that is committed lazily is written when it is needed.
    let charted = if core.config.commit == Commit::Lazy { CHARTED } else { usize::MAX };
    core.frag.init(core.config.reserve.div_ceil(FRAGMENT), open / FRAGMENT, charted / FRAGMENT);
    for class in 0..CLASSES {
        core.slabs.define(class, &core.slabs.shape_for(class, class_size(class)));
    }
    core.write_shared();
}

/// Whether the pool must not be made without huge OS pages.
fn is_required(config: &Config) -> bool {
    config.values().strict || config.values().huge_pages == crate::config::Wish::Required
}

/// Whether the configuration is sound, and possible here.
fn check(config: &Config) -> Result<(), InitError> {
    config.validate()?;
    if config.values().small == Small::System && !crate::os::system::PRESENT {
        let error = OsError { call: "malloc", errno: OsError::ENOSYS };
        return Err(InitError::Os { what: "leave requests to the C library (small=system)", bytes: 0, error });
    }
    Ok(())
}

/// The header of a pool.
fn header(core: &Core) -> Header {
    let mut name = [0; NAME_LEN];
    for (to, from) in name.iter_mut().zip(core.config.name.as_str().bytes().take(NAME_LEN - 1)) {
        *to = from;
    }
    Header {
        magic: MAGIC,
        version: VERSION,
        size: size_of::<Header>() as u32,
        address: core.metadata as u64,
        process: u64::from(core.os.process()),
        serial: core.serial,
        name,
        layout: core.layout,
    }
}

fn plan(config: &Config, bytes: usize, guard: usize, os_page: usize) -> Result<Areas, InitError> {
    let values = config.values();
    let wish = Wish {
        bytes,
        slot_shift: values.slot_shift,
        threads: values.max_threads as usize,
        caches: values.max_caches as usize,
        guard,
        os_page,
    };
    let needs = Needs {
        core: size_of::<Core>(),
        local_base: LocalHeap::bytes(0),
        local_class: size_of::<crate::slab::Bin>(),
        frag_control: crate::frag::CONTROL_WORDS,
        heap_control: crate::heap::control_words(0),
        // Where the best-fit heap serves nothing it needs no words for its pages.
        heap_bitmaps: match values.small {
            Small::Heap => crate::heap::control_words(64) - crate::heap::control_words(0),
            Small::Slab | Small::System => 0,
        },
        classes: CLASSES,
    };
    Areas::new(&wish, &needs).map_err(|small| InitError::TooSmall { bytes, least: small.least })
}

/// The multiple at which a segment's addresses begin: 2 MiB for larger ones, so that huge OS pages can lie under it.
fn alignment(areas: &Areas, bytes: usize, page: usize) -> usize {
    (1usize << areas.slot_shift).max(if bytes >= 4 << 20 { 2 << 20 } else { 0 }).max(page)
}

/// Bytes of the data area that are open at first: all, or under growth whole slots, less what the pool may grow by.
fn open_bytes(config: &Config, areas: &Areas, bytes: usize) -> usize {
    let slot = 1usize << areas.slot_shift;
    match bytes.saturating_sub(config.values().segment) {
        0 => areas.data_len(),
        later => (areas.data_len().saturating_sub(later) / slot * slot).max(slot),
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let core = self.core();
        front::delist(core, || ());
        let (os, (start, bytes)) = (core.os, core.reservation);
        if !start.is_null() {
            // SAFETY: the whole reservation; who borrowed the pool is gone. There is nobody to tell if this fails.
            let _ = unsafe { os.release(Range::new(start, bytes)) };
        }
    }
}

/// Allocating.
impl Pool {
    /// The local heap for the hot path, if the calling thread has one in this pool.
    #[inline(always)]
    pub(crate) fn local(&self) -> &LocalHeap {
        self.core().local()
    }

    /// Memory for `layout`; its content is undefined. A size of 0 gives a unique address. O(1) amortised.
    ///
    /// # Errors
    /// The pool is exhausted, unless its policy is [`Exhausted::Abort`]: then the process ends with a message.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, false, Fail::Policy)
    }

    /// As [`Pool::alloc`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    #[inline]
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, false, Fail::Try)
    }

    /// As [`Pool::alloc`], all bytes zero. Memory that was never handed out is not cleared again.
    ///
    /// # Errors
    /// As [`Pool::alloc`].
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, true, Fail::Policy)
    }

    /// As [`Pool::alloc_zeroed`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    pub fn try_alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, true, Fail::Try)
    }

    #[inline]
    fn serve(&self, layout: Layout, zeroed: bool, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        if !zeroed
            && layout.align() <= GRANULE
            && let Some(object) = front::pop(self.local(), layout.size())
        {
            return Ok(NonNull::with_exposed_provenance(object));
        }
        self.serve_behind(layout, zeroed, fail)
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn serve_behind(&self, layout: Layout, zeroed: bool, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        if !zeroed
            && layout.align() <= GRANULE
            && let Some(object) = front::pop_behind(self.local(), layout.size())
        {
            return Ok(NonNull::with_exposed_provenance(object));
        }
        let request = Request { size: layout.size(), align: layout.align(), zeroed };
        NonNull::new(self.core().alloc(&request, fail))
            .ok_or(AllocError::Exhausted { bytes: request.size, align: request.align })
    }

    /// Gives an object back. O(1) amortised. A wrong pointer ends the process with one line that says what it is.
    ///
    /// # Safety
    /// `object` came from this pool, has not been freed, and is not used any more.
    #[inline(always)]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        let address = object.as_ptr() as usize;
        if !front::push(self.local(), address) {
            self.free_behind(address);
        }
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn free_behind(&self, address: usize) {
        const CALL: &str = "Pool::free";
        let local = self.local();
        let narrow = front::is_narrow(local) && front::push_narrow(local, address);
        if !narrow && !front::push_behind(local, address, CALL) {
            self.core().free(address, CALL);
        }
    }

    /// Changes an object's size: in place where it fits or its run can grow, otherwise elsewhere with the content
    /// copied. Never shrinks. O(1) or O(size).
    ///
    /// # Errors
    /// The pool is exhausted; the object is as before.
    ///
    /// # Safety
    /// `object` is a live object of this pool; unless an error is returned it must not be used any more.
    pub unsafe fn realloc(&self, object: NonNull<u8>, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.move_to(object, layout, Fail::Policy)
    }

    /// As [`Pool::realloc`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted; the object is as before.
    ///
    /// # Safety
    /// As for [`Pool::realloc`].
    pub unsafe fn try_realloc(&self, object: NonNull<u8>, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.move_to(object, layout, Fail::Try)
    }

    fn move_to(&self, object: NonNull<u8>, layout: Layout, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        let request = Request { size: layout.size(), align: layout.align(), zeroed: false };
        NonNull::new(self.core().realloc(object.as_ptr() as usize, &request, fail, "Pool::realloc"))
            .ok_or(AllocError::Exhausted { bytes: layout.size(), align: layout.align() })
    }

    /// Bytes that may be used at `object`, at least those asked for. O(1). A wrong pointer ends the process, but with
    /// [`Small::System`], whose objects are the C library's.
    ///
    /// # Safety
    /// `object` is a live object of this pool.
    #[must_use]
    pub unsafe fn usable_size(&self, object: NonNull<u8>) -> usize {
        self.core().usable_size(object.as_ptr() as usize, "Pool::usable_size")
    }

    /// Whether `address` lies in this pool's data area.
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        self.core().contains(address as usize)
    }
}
