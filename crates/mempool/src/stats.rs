//! Statistics, computed from the bitmaps when somebody asks: the hot path counts nothing.
//!
//! Exact when no other thread is at work in the pool; otherwise each figure is right for some moment of the
//! walk. docs/STATS.md explains every line.

use core::fmt;

use crate::bytes::Bytes;
use crate::front::{CacheInfo, Core};
use crate::segment::{NAME_LEN, Report, State};
use crate::slab::{CLASSES, class_size};
use crate::sync::Ordering::Relaxed;
use crate::text::Text;
use crate::units::FRAGMENT;

/// What one size class or cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Slabs.
    pub slabs: usize,
    /// Items that the slabs have room for.
    pub items: usize,
    /// Items in use.
    pub live: usize,
    /// Bytes of the items in use.
    pub bytes: usize,
    /// Bytes of the slabs' runs.
    pub run_bytes: usize,
}

/// The figures of a pool.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of the segment at its largest, metadata included.
    pub segment: usize,
    /// Bytes of metadata and guards.
    pub metadata: usize,
    /// Bytes of the data area that are open to requests, and the reserve.
    pub open: usize,
    /// Bytes of the reserve.
    pub reserve: usize,
    /// Bytes of the reserve that are free.
    pub reserve_free: usize,
    /// Bytes in free fragments, parked ones among them.
    pub free: usize,
    /// Bytes of large objects that were freed and are kept as they are for the next one.
    pub parked: usize,
    /// Bytes of the largest free run.
    pub largest_free: usize,
    /// Size classes, smallest first.
    pub classes: [Held; CLASSES],
    /// All named caches together.
    pub caches: Held,
    /// Heap pages.
    pub heap_pages: usize,
    /// Bytes of heap pages.
    pub heap_page_bytes: usize,
    /// Objects of the best-fit heap in use.
    pub heap_live: usize,
    /// Bytes of them.
    pub heap_bytes: usize,
    /// Runs handed out to single requests.
    pub runs: usize,
    /// Bytes of them.
    pub run_bytes: usize,
    /// Threads with a local heap.
    pub threads: usize,
    /// Most threads at once that have asked for one. No more local heaps have been made.
    pub threads_most: usize,
    /// Bytes of local heaps, vacant ones included.
    pub local_heap_bytes: usize,
    /// Slabs carved since the pool was made.
    pub slabs_carved: u64,
    /// Requests served with a run of their own since the pool was made; those that got a parked one are not counted.
    pub runs_served: u64,
    /// Requests that found the pool exhausted at first.
    pub exhausted: u64,
    /// Requests that were refused in the end.
    pub refused: u64,
    /// Bytes that the pool has grown by.
    pub grown: u64,
    /// Of those, bytes that were to be locked and are not.
    pub grown_unlocked: u64,
    /// Of those, bytes that were to lie in huge OS pages and do not.
    pub grown_small: u64,
}

/// The figures of one named cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheStats {
    /// Its name.
    pub name: Text<NAME_LEN>,
    /// Bytes of an item.
    pub item_size: usize,
    /// What it holds.
    pub held: Held,
}

/// Somebody who holds memory.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// The size of the class, or the cache's name.
    name: Text<48>,
    live: usize,
    bytes: usize,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} objects {}", self.name.as_str(), self.live, Bytes(self.bytes))
    }
}

impl Held {
    fn add(&mut self, other: &Held) {
        self.slabs += other.slabs;
        self.items += other.items;
        self.live += other.live;
        self.bytes += other.bytes;
        self.run_bytes += other.run_bytes;
    }
}

impl Stats {
    /// Objects in use.
    #[must_use]
    pub fn live(&self) -> usize {
        self.classes.iter().map(|held| held.live).sum::<usize>() + self.caches.live + self.heap_live + self.runs
    }

    /// Bytes of the objects in use, as rounded to items, chunks and fragments.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        let classes = self.classes.iter().map(|held| held.bytes).sum::<usize>();
        classes + self.caches.bytes + self.heap_bytes + self.run_bytes
    }

    /// How much of the free memory is not in the largest free run: 0 (one run) to 1.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        if self.free == 0 { 0.0 } else { 1.0 - self.largest_free as f64 / self.free as f64 }
    }

    pub(crate) fn of(core: &Core) -> Self {
        let mut stats = Self::frame(core);
        each_part(core, &mut |part| match part {
            Part::Slab(class, held) => stats.classes.get_mut(class).unwrap_or(&mut stats.caches).add(&held),
            Part::Page { live, bytes } => {
                stats.heap_pages += 1;
                stats.heap_page_bytes += core.slabs.slots.geometry().bytes();
                stats.heap_live += live;
                stats.heap_bytes += bytes;
            }
            Part::Run { bytes } => {
                stats.runs += 1;
                stats.run_bytes += bytes;
            }
        });
        core.internal_runs(&mut |run| stats.local_heap_bytes += run.len * FRAGMENT);
        core.each_short(&mut |run| {
            stats.free += run.len * FRAGMENT;
            stats.parked += run.len * FRAGMENT;
        });
        stats
    }

    fn frame(core: &Core) -> Self {
        let open = core.frag.open_end() * FRAGMENT;
        Self {
            segment: core.segment_bytes(),
            metadata: core.segment_bytes() - core.data_len,
            open,
            reserve: core.frag.reserve() * FRAGMENT,
            reserve_free: core.frag.free_reserve() * FRAGMENT,
            free: core.frag.free_fragments() * FRAGMENT,
            parked: core.frag.parked_fragments() * FRAGMENT,
            largest_free: core.frag.largest_free() * FRAGMENT,
            classes: [Held::default(); CLASSES],
            caches: Held::default(),
            heap_pages: 0,
            heap_page_bytes: 0,
            heap_live: 0,
            heap_bytes: 0,
            runs: 0,
            run_bytes: 0,
            threads: core.threads.count(),
            threads_most: core.threads.most_at_once(),
            local_heap_bytes: 0,
            slabs_carved: core.events.slabs.load(Relaxed),
            runs_served: core.events.runs.load(Relaxed),
            exhausted: core.events.exhausted.load(Relaxed),
            refused: core.events.refused.load(Relaxed),
            grown: core.events.grown.load(Relaxed),
            grown_unlocked: core.events.grown_unlocked.load(Relaxed),
            grown_small: core.events.grown_small.load(Relaxed),
        }
    }

    /// Calls `f` with each named cache's figures. O(caches * slots).
    pub(crate) fn each_cache(core: &Core, f: &mut dyn FnMut(&CacheStats)) {
        for index in 0..core.layout.max_caches as usize {
            if let Some(info) = core.cache_at(index).and_then(|handle| core.cache_info(handle)) {
                f(&Self::of_cache(core, &info));
            }
        }
    }

    /// The figures of one named cache. O(slots).
    pub(crate) fn of_cache(core: &Core, info: &CacheInfo) -> CacheStats {
        let mut held = Held::default();
        core.slabs.for_each(&mut |slab, shape| {
            if shape.class as usize / 2 == info.handle.class() / 2 {
                let live = slab.live();
                let each = shape.count.max(1);
                held.add(&Held {
                    slabs: 1,
                    items: shape.items as usize * each,
                    live: live * each,
                    bytes: live * shape.size,
                    run_bytes: shape.run * FRAGMENT,
                });
            }
        });
        CacheStats { name: info.name, item_size: info.item_size, held }
    }
}

/// What objects lie in.
enum Part {
    /// A slab of a size class, or with a number beyond theirs of a named cache.
    Slab(usize, Held),
    /// A page of the best-fit heap, with so many objects and bytes of them.
    Page { live: usize, bytes: usize },
    /// A run of a single request.
    Run { bytes: usize },
}

/// Calls `f` with all parts of the pool. O(segment / 256 bytes / 64).
fn each_part(core: &Core, f: &mut dyn FnMut(Part)) {
    core.slabs.for_each(&mut |slab, shape| {
        let live = slab.live();
        let held = Held {
            slabs: 1,
            items: if shape.count > 0 { shape.count } else { shape.items as usize },
            live: if shape.count > 0 { live * shape.count } else { live },
            bytes: live * shape.size,
            run_bytes: shape.run * FRAGMENT,
        };
        f(Part::Slab(shape.class as usize, held));
    });
    core.heap.for_each_page(&mut |page| f(Part::Page { live: page.objects, bytes: page.object_bytes }));
    core.frag.runs(&mut |run| {
        // Here, where the compiler sees that it isn't 0, and that the division can't panic.
        let slot = core.slot_fragments();
        let tiered = run.start % slot == 0 && core.slabs.slab(run.start / slot).peek().state() != State::Free;
        if !tiered {
            f(Part::Run { bytes: run.len * FRAGMENT });
        }
    });
}

/// Objects, and bytes of them.
#[derive(Clone, Copy, Default)]
struct Tally {
    live: usize,
    bytes: usize,
}

impl Tally {
    fn add(&mut self, live: usize, bytes: usize) {
        self.live += live;
        self.bytes += bytes;
    }
}

/// Up to five of those who hold most, most first. Asked for on the stack of whoever is refused, which may be small: so these figures alone, and
/// not all of [`Stats`].
struct Holders([Option<Holder>; 5]);

impl Holders {
    /// Those of the pool, into `self`.
    fn find(&mut self, core: &Core) {
        let mut classes = [Tally::default(); CLASSES];
        let (mut heap, mut runs) = (Tally::default(), Tally::default());
        each_part(core, &mut |part| match part {
            // Those of named caches are counted by themselves.
            Part::Slab(class, held) => {
                classes.get_mut(class).into_iter().for_each(|tally| tally.add(held.live, held.bytes));
            }
            Part::Page { live, bytes } => heap.add(live, bytes),
            Part::Run { bytes } => runs.add(1, bytes),
        });
        for (class, tally) in classes.iter().enumerate() {
            self.offer(format_args!("size class {}:", Bytes(class_size(class))), *tally);
        }
        Stats::each_cache(core, &mut |cache| {
            let tally = Tally { live: cache.held.live, bytes: cache.held.bytes };
            self.offer(format_args!("cache \"{}\":", cache.name.escaped()), tally);
        });
        self.offer(format_args!("heap:"), heap);
        self.offer(format_args!("runs:"), runs);
    }

    fn offer(&mut self, name: fmt::Arguments<'_>, tally: Tally) {
        let fewer = |place: &Option<Holder>| place.is_none_or(|held| held.bytes < tally.bytes);
        if let Some(at) = self.0.iter().position(fewer).filter(|_| tally.bytes > 0) {
            let mut holder = Some(Holder { name: Text::of(name), live: tally.live, bytes: tally.bytes });
            self.0.iter_mut().skip(at).for_each(|place| core::mem::swap(place, &mut holder));
        }
    }
}

/// The table that `--stats` and `mp_stats_print` print.
pub(crate) struct Table<'a>(pub &'a Core);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.0;
        let s = Stats::of(core);
        writeln!(f, "mempool statistics of pool \"{}\"", core.config.name.as_str())?;
        writeln!(f, "  segment          {:>14} bytes, {} of metadata and guards", s.segment, s.metadata)?;
        writeln!(f, "  open             {:>14} bytes, {} of reserve ({} free)", s.open, s.reserve, s.reserve_free)?;
        writeln!(
            f,
            "  free             {:>14} bytes, {} of them parked, largest run {}",
            s.free, s.parked, s.largest_free
        )?;
        writeln!(f, "  live             {:>14} objects, {} bytes", s.live(), s.live_bytes())?;
        let (threads, most) = (s.threads, s.threads_most);
        writeln!(f, "  local heaps      {threads:>14} in use, at most {most} at once, {} bytes", s.local_heap_bytes)?;
        writeln!(f, "  slabs carved     {:>14}", s.slabs_carved)?;
        writeln!(f, "  runs served      {:>14}", s.runs_served)?;
        writeln!(f, "  exhausted        {:>14} times, {} refused", s.exhausted, s.refused)?;
        if s.grown > 0 {
            let (unlocked, small) = (s.grown_unlocked, s.grown_small);
            writeln!(
                f,
                "  grown            {:>14} bytes, {unlocked} not locked, {small} not in huge OS pages",
                s.grown
            )?;
        }
        if !core.reservation.0.is_null() {
            write!(f, "{}", Report(&core.config, &core.granted, core.os))?;
        }
        writeln!(
            f,
            "  {:<24} {:>9} {:>12} {:>12} {:>14} {:>14}",
            "holder", "slabs", "room", "live", "live bytes", "bytes held"
        )?;
        let mut row = |name: &dyn fmt::Display, h: &Held| {
            writeln!(
                f,
                "  {name:<24} {:>9} {:>12} {:>12} {:>14} {:>14}",
                h.slabs, h.items, h.live, h.bytes, h.run_bytes
            )
        };
        for (class, held) in s.classes.iter().enumerate().filter(|(_, held)| held.slabs > 0) {
            row(&Text::<24>::of(format_args!("size class {}", class_size(class))).as_str(), held)?;
        }
        let mut result = Ok(());
        Stats::each_cache(core, &mut |cache| {
            if result.is_ok() {
                result = row(&Text::<40>::of(format_args!("cache {}", cache.name.escaped())).as_str(), &cache.held);
            }
        });
        result?;
        if s.heap_pages > 0 {
            let (live, bytes) = (s.heap_live, s.heap_bytes);
            row(&"heap", &Held { slabs: s.heap_pages, items: live, live, bytes, run_bytes: s.heap_page_bytes })?;
        }
        row(&"runs", &Held { slabs: s.runs, items: s.runs, live: s.runs, bytes: s.run_bytes, run_bytes: s.run_bytes })
    }
}

/// Who holds most, for the message of policy abort: the pool tells its core of this function, since the front
/// knows nothing of statistics.
pub(crate) fn write_holders(core: &Core, to: &mut dyn fmt::Write) -> fmt::Result {
    let mut separator = "";
    let mut holders = Holders([None; 5]);
    holders.find(core);
    for holder in holders.0.iter().flatten() {
        write!(to, "{separator}{holder}")?;
        separator = "\n             ";
    }
    if separator.is_empty() { to.write_str("none") } else { Ok(()) }
}

/// What was still live when a pool ended.
#[derive(Clone, Copy, Debug)]
pub struct Leaks {
    /// Objects.
    pub objects: usize,
    /// Bytes of them.
    pub bytes: usize,
}

/// Reports what is still live when a pool ends, a line per holder, and sums it up.
pub(crate) fn report_leaks(core: &Core, report: &mut dyn FnMut(&dyn fmt::Display)) -> Leaks {
    let stats = Stats::of(core);
    let mut line = |name: &dyn fmt::Display, live: usize, bytes: usize| {
        if live > 0 {
            report(&format_args!("leak: {name}: {live} objects, {bytes} bytes"));
        }
    };
    for (class, held) in stats.classes.iter().enumerate() {
        line(&format_args!("size class {}", class_size(class)), held.live, held.bytes);
    }
    Stats::each_cache(core, &mut |cache| {
        line(&format_args!("cache \"{}\"", cache.name.escaped()), cache.held.live, cache.held.bytes);
    });
    line(&"heap", stats.heap_live, stats.heap_bytes);
    line(&"runs", stats.runs, stats.run_bytes);
    Leaks { objects: stats.live(), bytes: stats.live_bytes() }
}
