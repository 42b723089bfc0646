//! The front: the hot path, what lies right behind it, and what exhaustion means.
//!
//! An allocation pops a bit of the bin that the thread's local heap has for the size class; a free finds the
//! slab's descriptor by a shift and sets a bit. Both are here, on one screen. Everything else is cold:
//! `route` decides by size which tier serves, `exhausted` what to do when none can, `misuse` how to say that
//! a pointer is wrong, `local` how threads come and go, `caches` what named caches add.
#![allow(unsafe_code)]

mod advice;
mod budget;
mod caches;
mod core;
mod drill;
mod exhausted;
mod local;
mod marks;
mod misuse;
mod parking;
mod reclaim;
mod reserve;
mod retired;
mod route;
mod shorts;
mod spares;
mod store;
mod tls;
mod verdict;
mod zero;

pub use self::budget::{BudgetError, BudgetInfo, Budgets};
pub use self::caches::{CacheError, CacheHandle, CacheInfo, ITEM_MAX, NAME_MAX};
pub use self::caches::{pop_cache, pop_cache_array, pop_cache_behind, push_cache, push_cache_array, push_cache_behind};
pub use self::core::{Core, Events};
pub use self::drill::{Drill, Witness, board};
pub use self::exhausted::Fail;
pub use self::local::{
    SpinLock, Threads, delist, enlist, give_way, next_serial, place_for, watch_forks, watch_threads,
};
pub use self::marks::Marks;
pub use self::misuse::{Misuse, Use};
pub use self::parking::{Common, Parking};
pub use self::reclaim::{CALLBACKS, Callback, Reclaim};
pub use self::route::{Request, watch_heap};
pub use self::spares::Spares;
pub use self::tls::{Place, process as process_local};
pub use self::verdict::{Verdict, Why};

use ::core::num::NonZeroUsize;

use crate::segment::{HALF_LINE, LINE_WORDS, Owner, SlotGeometry, State};
use crate::slab::{
    LocalHeap, MAX_SMALL, WIDE, class_of, class_of_aligned, class_size, owner_id, reciprocal_of, room_of_aligned,
};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Serial number of the process pool, 0 for none.
static PROCESS: AtomicU64 = AtomicU64::new(0);

/// Serial number of the process pool, whose local heaps are word 0 of the thread-local slot.
#[inline(always)]
pub fn process_serial() -> u64 {
    PROCESS.load(Relaxed)
}

/// From now on `serial` is the process pool.
pub fn set_process_serial(serial: u64) {
    PROCESS.store(serial, Relaxed);
}

/// **The hot path of allocation.** `size` bytes from the local heap's current word: their address, None if it has none.
#[inline(always)]
pub fn pop(local: &LocalHeap, size: usize) -> Option<NonZeroUsize> {
    if size > MAX_SMALL {
        return None;
    }
    // SAFETY: at most MAX_SMALL.
    unsafe { local.bin_for(size) }.pop(local)
}

/// What comes right behind it: `size` bytes from another word of the current slab, from another slab, or a run that the
/// thread parked.
#[inline]
pub fn pop_behind(local: &LocalHeap, size: usize) -> Option<NonZeroUsize> {
    if size > MAX_SMALL {
        return Core::of(local)?.pop_run(local, size, 1);
    }
    pop_next(local, size).or_else(|| pop_last(local, size))
}

/// What remains of it where [`pop_next`] found nothing, for at most [`MAX_SMALL`] bytes.
pub fn pop_last(local: &LocalHeap, size: usize) -> Option<NonZeroUsize> {
    Core::of(local)?.pop_small(local, size)
}

/// The commonest part of it: from another word of the current slab, or from the slab that follows it in the queue.
#[inline(always)]
pub fn pop_next(local: &LocalHeap, size: usize) -> Option<NonZeroUsize> {
    if size > MAX_SMALL {
        return None;
    }
    // SAFETY: at most MAX_SMALL.
    let bin = unsafe { local.bin_for(size) };
    // A pop has done so before, of this very bin as a rule.
    local.announce_bin(bin);
    let advanced = bin.advance(local);
    if advanced.is_some() || !bin.has_current() {
        return advanced;
    }
    Core::of(local)?.swap_small(local, bin)
}

/// **The hot path of an aligned allocation**: as [`pop`], at a multiple of `align`, a power of two.
#[inline(always)]
pub fn pop_aligned(local: &LocalHeap, size: usize, align: usize) -> Option<NonZeroUsize> {
    // SAFETY: at most MAX_SMALL.
    unsafe { local.bin_for(room_of_aligned(size, align)?) }.pop(local)
}

/// What comes right behind it, as [`pop_behind`].
#[inline]
pub fn pop_aligned_behind(local: &LocalHeap, size: usize, align: usize) -> Option<NonZeroUsize> {
    let core = Core::of(local)?;
    match room_for(size, align) {
        // The best-fit heap, which serves where size classes don't, knows of no alignment.
        Some(room) if room <= core.max_small => pop_behind(local, room),
        Some(_) => None,
        None => core.pop_run(local, size, align),
    }
}

/// The size of the smallest size class whose items have `size` bytes at a multiple of `align`, a power of two.
fn room_for(size: usize, align: usize) -> Option<usize> {
    class_of_aligned(size, align).map(class_size)
}

/// The room of the object at `address`, if it is a live item of a size class, in whosever slab; None also when something else is the case.
#[inline]
pub fn room_of(local: &LocalHeap, address: usize) -> Option<usize> {
    let offset = address.wrapping_sub(local.data);
    if offset >= local.len.get() {
        return None;
    }
    let slab = local.slab_at(offset >> local.shift);
    let item = slab.plain_item(offset & local.mask).filter(|_| slab.peek().is_slab())?;
    slab.is_allocated(item).then(|| slab.plain_size())
}

/// What comes right behind `push`: an item of another thread's slab or of nobody's, or a run that can be parked. False when
/// something else is the case, and nothing has changed. `call` is the name to blame for a damaged heap page.
#[inline]
pub fn push_behind(local: &LocalHeap, address: usize, call: &'static str) -> bool {
    push_remote(local, address) || push_run(local, address) || push_elsewhere(local, address, call)
}

/// The first of these, in a pool with slots of 64 KiB.
#[inline(always)]
pub fn push_remote(local: &LocalHeap, address: usize) -> bool {
    push_into_other::<Wide>(local, address, 0)
}

/// Frees an item of another thread's slab that has `tag`, as in [`push_tagged`], in a pool with such slots. False when something else is
/// the case, and nothing has changed.
#[inline(always)]
fn push_into_other<S: Slotted>(local: &LocalHeap, address: usize, tag: u64) -> bool {
    let slot = S::slot(local, address);
    if slot >= S::slots(local) {
        return false;
    }
    // SAFETY: as in `push_tagged`.
    let hot = unsafe { S::descriptor(local, slot) };
    // SAFETY: as in `push_tagged`.
    let (seen, recip) = unsafe { (Owner((*hot).load(Relaxed)), (*hot.add(1)).load(Relaxed)) };
    if !seen.is(State::Held) && !seen.is(State::Queued) {
        return false;
    }
    if seen.thread() == owner_id(local.id, tag as usize) || recip >> 32 != tag {
        return false;
    }
    let recip = recip & u64::from(u32::MAX);
    let product = S::inside(local, address) as u64 * recip;
    if product as u32 >= recip as u32 {
        return false;
    }
    // With a wrong pointer the slot may have become something else between the two looks, and its reciprocal, too.
    if S::place(local, product).1 >= HALF_LINE {
        return false;
    }
    // SAFETY: such an item has its bits.
    let (free, remote) = unsafe { S::words(local, hot, product) };
    let bit = 1u64 << (product >> 32 & 63);
    // Orderings as in `Slab::remote_free`. The first look is for a free item that its owner has taken over.
    let twice = remote.load(Acquire) | free.load(Relaxed);
    if twice & bit != 0 || remote.fetch_or(bit, AcqRel) & bit != 0 {
        return false;
    }
    // SAFETY: as in `push_tagged`.
    if Owner(unsafe { (*hot).load(Relaxed) }).is(State::Nobody) {
        let_go_meanwhile(local, address, tag as usize);
    }
    true
}

/// A slab that was another thread's when an item of it was freed is nobody's by now, and so ours to adopt.
#[cold]
#[inline(never)]
fn let_go_meanwhile(local: &LocalHeap, address: usize, tag: usize) {
    if let Some(core) = Core::of(local) {
        core.slabs.freed_remotely(core, local, &local.slab_at(Any::slot(local, address)), tag);
    }
}

/// The second: a run that can be parked.
#[inline(always)]
pub fn push_run(local: &LocalHeap, address: usize) -> bool {
    let offset = address.wrapping_sub(local.data);
    // Only where there is neither slab nor heap page can a run be an object.
    offset < local.len.get()
        && local.slab_at(offset >> local.shift).peek().is(State::Free)
        && Core::of(local).is_some_and(|core| core.park(local, offset))
}

/// The rest of these: an item of nobody's slab or of a small pool's, an object of the heap.
#[inline(never)]
pub fn push_elsewhere(local: &LocalHeap, address: usize, call: &'static str) -> bool {
    let offset = address.wrapping_sub(local.data);
    if offset >= local.len.get() {
        return false;
    }
    let Some(core) = Core::of(local) else { return false };
    let slab = local.slab_at(offset >> local.shift);
    match slab.peek().state() {
        State::Held | State::Queued => push_into_other::<Any>(local, address, 0),
        State::Nobody => core.slabs.adopt_into(core, local, &slab, offset & local.mask, 0),
        State::Heap => core.push_in_heap(address, call),
        _ => false,
    }
}

/// **The hot path of free.** True when the item at `address` was this thread's and now is free; false when
/// something else is the case, about anything, and nothing has changed.
#[inline(always)]
pub fn push(local: &LocalHeap, address: usize) -> bool {
    push_tagged::<Wide>(local, address, 0)
}

/// Whether the pool has smaller slots than `push` is compiled for: then [`push_narrow`] does the same.
#[inline(always)]
pub fn is_narrow(local: &LocalHeap) -> bool {
    local.wide.get() == 0
}

/// What comes right behind `push` in a small pool.
#[inline(always)]
pub fn push_narrow(local: &LocalHeap, address: usize) -> bool {
    push_tagged::<Any>(local, address, 0)
}

/// `push` for who claims that the item was asked for with `size` bytes: false also if its class is another one.
#[inline(always)]
pub fn push_sized(local: &LocalHeap, address: usize, size: usize) -> bool {
    let slot = Any::slot(local, address);
    if slot >= Any::slots(local) || size > MAX_SMALL {
        return false;
    }
    // SAFETY: the slot lies in the data area; the word behind the owner word. See `segment::slot`.
    let recip = unsafe { (*Any::descriptor(local, slot).add(1)).load(Relaxed) };
    recip == reciprocal_of(class_of(size)) && push_tagged::<Any>(local, address, 0)
}

/// Whether the object at `address` is a live item of this thread's with room for `size` bytes. False also when something
/// else is the case.
#[inline(always)]
pub fn fits(local: &LocalHeap, address: usize, size: usize) -> bool {
    let slot = Any::slot(local, address);
    if slot >= Any::slots(local) || size > MAX_SMALL {
        return false;
    }
    // SAFETY: as in `push_tagged`.
    let hot = unsafe { Any::descriptor(local, slot) };
    // SAFETY: as in `push_tagged`.
    let (owner, recip) = unsafe { ((*hot).load(Relaxed), (*hot.add(1)).load(Relaxed)) };
    // Larger items have smaller reciprocals. 0, and a named cache's, which has a tag, are none of ours.
    if owner as u32 != local.id || recip.wrapping_sub(1) >= reciprocal_of(class_of(size)) {
        return false;
    }
    let product = Any::inside(local, address) as u64 * recip;
    let item = (product >> 32) as usize;
    // SAFETY: as in `push_tagged`.
    let (free, remote) = unsafe { Any::words(local, hot, product) };
    (product as u32 as u64) < recip && (free.load(Relaxed) | remote.load(Relaxed)) >> (item % 64) & 1 == 0
}

/// What the hot path must know of slots: see `segment::slot`.
trait Slotted {
    /// The whole slots of the data area, which begins at one; 0 for a pool with other slots.
    fn slots(local: &LocalHeap) -> usize;

    /// The number of the slot that an address lies in; that of a foreign address or null is a huge one.
    fn slot(local: &LocalHeap, address: usize) -> usize;

    /// The owner word of a slot.
    ///
    /// # Safety
    /// `slot < slots(local)`.
    unsafe fn descriptor(local: &LocalHeap, slot: usize) -> *const AtomicU64;

    /// The offset in the slot.
    fn inside(local: &LocalHeap, address: usize) -> usize;

    /// The words with the bits of an item, whose number is the upper half of `product`, of the descriptor with its owner word at `hot`.
    ///
    /// # Safety
    /// The item has bits there.
    #[inline(always)]
    unsafe fn words(local: &LocalHeap, hot: *const AtomicU64, product: u64) -> (&AtomicU64, &AtomicU64) {
        // The lower bits of the word's number say which line, its two upper ones where in the line.
        let (line, place) = Self::place(local, product);
        // SAFETY: contract; the lines of words follow that of the owner word.
        unsafe {
            let words = hot.byte_add(line).add(LINE_WORDS + place);
            (&*words, &*words.add(HALF_LINE))
        }
    }

    /// In bytes from the first line with words, and in words of the line.
    fn place(local: &LocalHeap, product: u64) -> (usize, usize);
}

/// Slots of 64 KiB, which all pools from 128 MiB on have: constants.
struct Wide;
/// Slots of any size, as the local heap says.
struct Any;

const SLOT: SlotGeometry = SlotGeometry::new(WIDE);

impl Slotted for Wide {
    #[inline(always)]
    fn slots(local: &LocalHeap) -> usize {
        local.wide.get()
    }

    #[inline(always)]
    fn slot(local: &LocalHeap, address: usize) -> usize {
        (address >> WIDE).wrapping_sub(local.first)
    }

    #[inline(always)]
    unsafe fn descriptor(local: &LocalHeap, slot: usize) -> *const AtomicU64 {
        // SAFETY: contract.
        as_it_is(unsafe { local.hot.add(slot * SLOT.stride) })
    }

    #[inline(always)]
    fn inside(_: &LocalHeap, address: usize) -> usize {
        address & (SLOT.bytes() - 1)
    }

    #[inline(always)]
    fn place(_: &LocalHeap, product: u64) -> (usize, usize) {
        ((product >> 32) as usize & SLOT.line_mask(), (product >> (32 + SLOT.place_shift())) as usize)
    }
}

impl Slotted for Any {
    #[inline(always)]
    fn slots(local: &LocalHeap) -> usize {
        local.slots.get()
    }

    #[inline(always)]
    fn slot(local: &LocalHeap, address: usize) -> usize {
        (address >> local.shift).wrapping_sub(local.first)
    }

    #[inline(always)]
    unsafe fn descriptor(local: &LocalHeap, slot: usize) -> *const AtomicU64 {
        // SAFETY: contract.
        unsafe { local.hot.add(slot * local.stride) }
    }

    #[inline(always)]
    fn inside(local: &LocalHeap, address: usize) -> usize {
        address & local.mask
    }

    #[inline(always)]
    fn place(local: &LocalHeap, product: u64) -> (usize, usize) {
        ((product >> 32) as usize & local.lines as usize, (product >> local.place) as usize)
    }
}

/// `push` for slabs whose reciprocal has `tag` (a named cache's class, 0 for size classes) in its upper half, in a pool with such slots.
#[inline(always)]
fn push_tagged<S: Slotted>(local: &LocalHeap, address: usize, tag: u64) -> bool {
    let slot = S::slot(local, address);
    if slot >= S::slots(local) {
        return false;
    }
    // SAFETY: the slot lies in the data area, so it has a descriptor.
    let hot = unsafe { S::descriptor(local, slot) };
    // So that one who wants the slab knows that we may store to it; before the look at the owner word. A plain move.
    local.announce(hot);
    // SAFETY: the owner word and the word behind it, in the descriptor.
    let (owner, recip) = unsafe { ((*hot).load(Relaxed), (*hot.add(1)).load(Relaxed)) };
    if owner as u32 != owner_id(local.id, tag as usize) || tag != 0 && recip >> 32 != tag {
        return false;
    }
    // The product's upper half is the item's number; its lower half is below `recip` exactly at an item's first byte.
    // `recip` is 0, and the test fails, for slabs that need more care (arrays, tiny items, several slots). Without a tag it has
    // 32 bits, since the owner word of a slab with one has another number.
    let recip = if tag == 0 { recip } else { recip & u32::MAX as u64 };
    let product = S::inside(local, address) as u64 * recip;
    if product as u32 >= recip as u32 {
        return false;
    }
    // SAFETY: items are at least a granule large, so that each has its bits.
    let (free, remote) = unsafe { S::words(local, hot, product) };
    let item = product >> 32;
    let own = free.load(Relaxed);
    let all = own | remote.load(Relaxed);
    if all >> (item & 63) & 1 != 0 {
        return false;
    }
    // Release pairs with a thief's Acquire: our last use of the item comes before its reuse. A plain move on x86.
    free.store(with_bit(own, item), Release);
    if with_bit(all, item) == !0 {
        filled(address, local);
    }
    true
}

/// `pointer`, of which the compiler doesn't know how it came about: it is used four times, and would be made anew as a sum each time.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written")]
#[inline(always)]
fn as_it_is<T>(mut pointer: *const T) -> *const T {
    // SAFETY: does nothing.
    unsafe { ::core::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// As above.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
const fn as_it_is<T>(pointer: *const T) -> *const T {
    pointer
}

/// `word` with bit `n % 64` set. One instruction: the compiler makes a mask by three, of which one is slow.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn with_bit(mut word: u64, n: u64) -> u64 {
    // SAFETY: changes a register and flags.
    unsafe { ::core::arch::asm!("bts {0}, {1}", inout(reg) word, in(reg) n, options(pure, nomem, nostack)) };
    word
}

/// As above.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
const fn with_bit(word: u64, n: u64) -> u64 {
    word | 1 << (n & 63)
}

/// A word of a slab has become all free.
#[cold]
#[inline(never)]
fn filled(address: usize, local: &LocalHeap) {
    let slot = Any::slot(local, address);
    // SAFETY: the slot of an item, as in `push_tagged`.
    let owner = unsafe { (*local.hot.add(slot * local.stride)).load(Relaxed) };
    // Only a queued slab can go back; the current one is often empty in a program with few objects.
    if Owner(owner).state() == State::Queued {
        queued_filled(local, slot);
    }
}

#[cold]
#[inline(never)]
fn queued_filled(local: &LocalHeap, slot: usize) {
    if let Some(core) = Core::of(local) {
        core.slabs.maybe_empty(core, local, &core.slabs.slab(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Commit, Config};
    use std::ptr;

    /// The hot path's arithmetic finds the words that the descriptor has for each item; each has its own, next to its neighbours' lines.
    #[test]
    fn the_hot_path_and_descriptors_agree_on_words() {
        for shift in 12..=16 {
            let config = Config::new().segment(4 << 20).slot_shift(shift).commit(Commit::Lazy);
            let pool = crate::Pool::on(crate::os::fake::Fake::new(), &config).expect("a pool");
            pool.core().with_local(|local| {
                let slab = local.slab_at(3);
                // SAFETY: slot 3 is there.
                let hot = unsafe { Any::descriptor(local, 3) };
                let third = local.data + (3 << shift);
                for (address, slot, inside) in [(third, 3, 0), (third + 7, 3, 7), (third - 1, 2, (1 << shift) - 1)] {
                    assert_eq!((Any::slot(local, address), Any::inside(local, address)), (slot, inside));
                    assert!(
                        shift != WIDE || Wide::slot(local, address) == slot && Wide::inside(local, address) == inside
                    );
                }
                for address in [0, local.data - 1, local.data + local.len.get(), usize::MAX] {
                    assert!(Any::slot(local, address) >= Any::slots(local), "{shift} {address:x}");
                    assert!(Wide::slot(local, address) >= Wide::slots(local), "{shift} {address:x}");
                }
                assert_eq!((is_narrow(local), local.wide.get() == Any::slots(local)), (shift < WIDE, shift == WIDE));
                let mut seen = std::collections::BTreeSet::new();
                for item in 0..1 << (shift - 4) {
                    // SAFETY: a granule each.
                    let (free, remote) = unsafe { Any::words(local, hot, (item as u64) << 32 | 7) };
                    assert!(ptr::eq(free, slab.free_word(item / 64)), "{shift} {item}");
                    if shift == WIDE {
                        // SAFETY: as above.
                        let words = unsafe { Wide::words(local, hot, (item as u64) << 32 | 7) };
                        assert!(ptr::eq(words.0, free) && ptr::eq(words.1, remote), "{item}");
                    }
                    seen.extend([ptr::from_ref(free) as usize, ptr::from_ref(remote) as usize]);
                }
                let geometry = SlotGeometry::new(shift);
                assert_eq!(seen.len(), 2 * geometry.words);
                assert!(seen.iter().all(|at| (LINE_WORDS..geometry.stride).contains(&((at - hot as usize) / 8))));
                let line = |w| ptr::from_ref(slab.free_word(w)) as usize / 64;
                assert!((1..geometry.words).all(|w| geometry.words == 4 || line(w) != line(w - 1)));
            });
        }
    }
}
