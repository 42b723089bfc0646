//! The consistency check: walks everything and holds every invariant against it.
//!
//! For a pool that no other thread is using at the moment; otherwise it may report what is only half done.

use core::fmt;

use crate::front::Core;
use crate::segment::State;

/// The first broken invariant that [`Pool::verify`](crate::Pool::verify) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// Of the page-frag tier.
    Frag(crate::frag::Fault),
    /// Of the best-fit heap.
    Heap(crate::heap::HeapFault),
    /// A slab, by its slot, and what is wrong with it.
    Slab(usize, &'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frag(fault) => write!(f, "page-frag tier: {fault:?}"),
            Self::Heap(fault) => write!(f, "best-fit heap: {fault:?}"),
            Self::Slab(slot, what) => write!(f, "slab {slot}: {what}"),
        }
    }
}

impl core::error::Error for Broken {}

/// See the module. O(segment / 256 bytes).
pub fn verify(core: &Core) -> Result<(), Broken> {
    let mut internal = |keep: &mut dyn FnMut(crate::frag::Run)| {
        core.internal_runs(keep);
        core.each_short(keep);
    };
    core.frag.verify(&mut internal).map_err(Broken::Frag)?;
    core.heap.verify().map_err(Broken::Heap)?;
    for slot in 0..core.slabs.reach() {
        slab(core, slot).map_err(|what| Broken::Slab(slot, what))?;
    }
    Ok(())
}

fn slab(core: &Core, slot: usize) -> Result<(), &'static str> {
    let slab = core.slabs.slab(slot);
    let owner = slab.owner();
    match owner.state() {
        State::Free | State::Heap => return Ok(()),
        State::Giving => return Err("was being given back and never was"),
        State::Tapped => return Err("was tapped and never let go"),
        State::Continued => {
            let head = core.slabs.slots.slot(slot).recip().load(crate::sync::Ordering::Relaxed) as usize;
            return if head < slot { Ok(()) } else { Err("continues a slab that begins behind it") };
        }
        State::Held | State::Queued if owner.thread() == 0 => return Err("owned by nobody, but held or queued"),
        State::Nobody if owner.thread() != 0 => return Err("belongs to nobody and to a thread"),
        State::Reserved if owner.thread() != 0 => {
            return Err("somebody began to take an item of the reserve and never ended");
        }
        State::Reserved if slot * core.slot_fragments() >= core.frag.reserve() => {
            return Err("is for critical requests, but not in the reserve");
        }
        State::Held | State::Queued | State::Nobody | State::Reserved => {}
    }
    let shape = slab.shape();
    if shape.class as usize >= core.slabs.classes {
        return Err("its class does not exist");
    }
    if shape.size == 0 || shape.items == 0 || shape.items as usize * shape.size > shape.run * crate::units::FRAGMENT {
        return Err("its items do not fit in its run");
    }
    match core.frag.run_at(slot * core.slot_fragments()) {
        Some(run) if run.len == shape.run => slab.check_padding(),
        Some(_) => Err("its run has another length"),
        None => Err("no run begins where it does"),
    }
}
