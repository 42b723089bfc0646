//! The drill: requests refused on purpose, and requests watched, for `mempool run --fail-...`, `mempool drill` and
//! `mempool size`.
//!
//! A pool with a drill gives no thread a local heap, only the entry of the directory that it would have had, so that
//! threads are counted. So every hot path finds nothing and each request comes to `Core::alloc`, where it is numbered
//! and, if it is due, refused; and each free comes to `Core::free`. A pool without a drill pays nothing on the hot paths
//! and a test of a constant on the cold ones. A drilled pool takes its requests one after the other, under the lock of
//! the shared local heap: it is for finding out, not for work.
//!
//! Refusing looks like exhaustion and happens instead of it: nothing is reclaimed, nobody waits, the reserve stays.
//!
//! The *board* is shared memory that another process reads, whatever becomes of this one: an area of words per process,
//! see [`board`].
#![allow(unsafe_code)]

use super::caches::CacheHandle;
use super::core::Core;
use super::exhausted::Fail;
use super::route::{Holder, Request};
use crate::bytes::Bytes;
use crate::config::{Exhausted, Values};
use crate::slab::CLASSES;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::text::Text;
use crate::units::{FRAGMENT, fragments_for};

/// The words of a board: word 0 counts the areas that processes have claimed; area `i` begins at `1 + i * AREA`.
pub mod board {
    /// Areas of a board: processes beyond that are not watched.
    pub const AREAS: usize = 64;
    /// The process's number.
    pub const PROCESS: usize = 0;
    /// Requests so far.
    pub const REQUESTS: usize = 1;
    /// Of these refused.
    pub const REFUSED: usize = 2;
    /// Bytes of the largest request.
    pub const LARGEST: usize = 3;
    /// Fragments of the largest run that a request needed, with what its alignment may cost.
    pub const LARGEST_RUN: usize = 4;
    /// Number and bytes of the first request that was refused, and bytes of [`TEXT`] that say where; 0 for none.
    pub const REFUSAL: usize = 5;
    /// Entries of [`LOG`].
    pub const LOGGED: usize = 8;
    /// The program's name, 24 bytes.
    pub const NAME: usize = 9;
    /// Bytes of the data area up to the end of the object that had the highest address.
    pub const TOP: usize = 12;
    /// Most threads at once that have asked the pool for memory or given it some, and have not ended.
    pub const THREADS: usize = 13;
    /// Children by `fork`, theirs too, that asked for memory before they started another program or ended: they count for nobody.
    pub const FORKED: usize = 14;
    /// A number that all pools of one program have: a process that replaces its program by another one gets another number.
    pub const IMAGE: usize = 15;
    /// Four words for each holder: objects, most objects, bytes, most bytes.
    pub const HOLDERS: usize = 16;
    /// Holders: the size classes, then these. Caches that came when all of [`NAMED`] were taken, together.
    pub const CACHES: usize = crate::slab::CLASSES;
    /// Objects of the best-fit heap.
    pub const HEAP: usize = CACHES + 1;
    /// Objects with a run of their own.
    pub const RUNS: usize = CACHES + 2;
    /// All of them.
    pub const ALL: usize = CACHES + 3;
    /// Named caches that have a holder each, behind all others. An array is one object.
    pub const NAMED: usize = ALL + 1;
    /// Most of them.
    pub const NAMED_MOST: usize = 64;
    /// Five words for each named cache, and for [`CACHES`] behind them: its name, and bytes of its largest object.
    pub const NAMES: usize = HOLDERS + 4 * (NAMED + NAMED_MOST);
    /// Bytes of a name.
    pub const NAME_BYTES: usize = crate::segment::NAME_LEN;
    /// Words of an entry of [`NAMES`].
    pub const NAMES_STRIDE: usize = NAME_BYTES / 8 + 1;
    /// Named caches that have a holder.
    pub const NAMED_COUNT: usize = NAMES + NAMES_STRIDE * (NAMED_MOST + 1);
    /// Text of the frames behind the first refusal: a line for each.
    pub const TEXT: usize = NAMED_COUNT + 1;
    /// Bytes of it.
    pub const TEXT_BYTES: usize = 8192;
    /// Numbers of the requests that came first from their place, in order.
    pub const LOG: usize = TEXT + TEXT_BYTES / 8;
    /// Entries, at most.
    pub const LOG_MOST: usize = 16_384;
    /// Words of an area.
    pub const AREA: usize = LOG + LOG_MOST;
    /// Words of a board.
    pub const WORDS: usize = 1 + AREAS * AREA;
}

/// Told of each request of a drilled pool: its number, its bytes, whether it is refused. Must not allocate from it.
pub type Witness = fn(u64, usize, bool);

/// A pool's drill.
pub struct Drill {
    on: bool,
    nth: u64,
    every: u64,
    above: usize,
    /// One in so many, drawn from `seed`; 0 for none.
    rate: u64,
    seed: u64,
    requests: AtomicU64,
    /// A [`Witness`], 0 for none.
    witness: AtomicU64,
    /// The pool's area of a board, 0 for none.
    area: AtomicU64,
    /// The area of a parent that does not know yet that this child asks for memory; 0 for none.
    parent: AtomicU64,
}

impl Drill {
    /// What `values` say.
    pub fn new(values: &Values) -> Self {
        let seed = u64::from(values.fail_seed);
        let mut drill = Self {
            on: false,
            nth: values.fail_nth.into(),
            every: values.fail_every.into(),
            above: values.fail_above,
            rate: if seed == 0 { 0 } else { values.fail_rate.into() },
            seed,
            requests: AtomicU64::new(0),
            witness: AtomicU64::new(0),
            area: AtomicU64::new(0),
            parent: AtomicU64::new(0),
        };
        drill.on = drill.nth | drill.every | drill.rate != 0 || drill.above != 0 || values.board != 0;
        drill
    }

    /// Whether there is a drill.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// What chance says of request `number`: the same for the same seed.
    fn draw(&self, number: u64) -> u64 {
        mix(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number)
    }

    /// Whether request `number` of `size` bytes is due.
    fn is_due(&self, number: u64, size: usize) -> bool {
        let is_drawn = self.rate != 0 && self.draw(number).is_multiple_of(self.rate);
        number == self.nth
            || self.every != 0 && number.is_multiple_of(self.every)
            || self.above != 0 && size > self.above
            || is_drawn
    }

    /// Word `at` of the area.
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        Self::word_of(&self.area, at)
    }

    /// Word `at` of the area that `area` names.
    fn word_of(area: &AtomicU64, at: usize) -> Option<&AtomicU64> {
        debug_assert!(at < board::AREA);
        // SAFETY: 0, or an area of AREA words that stays mapped (`Core::watch`).
        unsafe { (area.load(Acquire) as *const AtomicU64).as_ref().map(|area| &*core::ptr::from_ref(area).add(at)) }
    }

    fn add(&self, at: usize, more: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_add(more, Relaxed);
        }
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Release);
        }
    }

    fn raise(&self, at: usize, to: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_max(to, Relaxed);
        }
    }

    /// There have been `most` threads at once.
    pub(super) fn note_threads(&self, most: usize) {
        self.raise(board::THREADS, most as u64);
    }

    /// The holder of the cache called `name`, which has none yet: that of another one by this name before it, or the next.
    pub fn enlist(&self, name: &[u8; board::NAME_BYTES]) -> usize {
        let at = |entry: usize| board::NAMES + board::NAMES_STRIDE * entry;
        let is_its = |entry: usize| {
            let words = name.chunks_exact(8).zip(at(entry)..);
            words
                .into_iter()
                .all(|(part, at)| self.word(at).is_some_and(|word| word.load(Acquire).to_le_bytes() == *part))
        };
        let known = self.word(board::NAMED_COUNT).map_or(0, |count| count.load(Acquire) as usize);
        if let Some(entry) = (0..known.min(board::NAMED_MOST)).find(|&entry| is_its(entry)) {
            return board::NAMED + entry;
        }
        let next = self.word(board::NAMED_COUNT).map(|count| count.fetch_add(1, Relaxed) as usize);
        let Some(entry) = next.filter(|&entry| entry < board::NAMED_MOST) else { return board::CACHES };
        for (part, at) in name.chunks_exact(8).zip(at(entry)..) {
            if let (Some(word), Ok(part)) = (self.word(at), part.try_into()) {
                word.store(u64::from_le_bytes(part), Release);
            }
        }
        board::NAMED + entry
    }

    /// Counts an object of `bytes` bytes in, for one holder.
    fn count_in(&self, holder: usize, bytes: u64) {
        let first = board::HOLDERS + 4 * holder;
        for (at, more) in [(first, 1), (first + 2, bytes)] {
            if let Some(word) = self.word(at) {
                let now = word.fetch_add(more, Relaxed) + more;
                self.raise(at + 1, now);
            }
        }
    }

    fn count_out(&self, holder: usize, objects: u64, bytes: u64) {
        let first = board::HOLDERS + 4 * holder;
        self.add(first, objects.wrapping_neg());
        self.add(first + 2, bytes.wrapping_neg());
    }

    /// A child's first request: its parent's figures are not all.
    fn tell_parent(&self) {
        if self.parent.load(Relaxed) != 0 {
            let area = AtomicU64::new(self.parent.swap(0, Relaxed));
            if let Some(forked) = Self::word_of(&area, board::FORKED) {
                forked.fetch_add(1, Relaxed);
            }
        }
    }

    /// The child of a fork: what it does is not its parent's.
    pub fn detach(&self) {
        let area = self.area.swap(0, Relaxed);
        if area != 0 {
            self.parent.store(area, Relaxed);
        }
        self.witness.store(0, Relaxed);
    }
}

/// Where the board says what the cache of `holder` is called, if it is one.
fn named(holder: usize) -> Option<usize> {
    let entry = if holder == board::CACHES { board::NAMED_MOST } else { holder.checked_sub(board::NAMED)? };
    Some(board::NAMES + board::NAMES_STRIDE * entry)
}

/// A number's bits, well mixed: Steele, Lea and Flood's SplitMix64.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

impl Core {
    /// Claims an area of the board that the settings name, and keeps it up to date from now on. Does nothing where they name none, it is none,
    /// or all areas are claimed.
    pub(crate) fn watch(&self) {
        if self.config.board == 0 {
            return;
        }
        let Some(words) = crate::os::shared_words(self.config.board, board::WORDS) else { return };
        // SAFETY: WORDS words, which stay mapped as long as the process.
        let first = unsafe { &*words };
        let index = first.fetch_add(1, Relaxed) as usize;
        if index < board::AREAS {
            // SAFETY: the board has AREAS areas behind its first word.
            let area = unsafe { words.add(1 + index * board::AREA) };
            self.drill.area.store(area as u64, Release);
            self.note_program();
        }
    }

    /// Notes which program this is.
    fn note_program(&self) {
        for (at, part) in crate::os::program_name().chunks(8).take(3).enumerate() {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.drill.store(board::NAME + at, u64::from_le_bytes(bytes));
        }
        self.drill.store(board::PROCESS, self.os.process().into());
        self.drill.store(board::IMAGE, crate::os::image());
    }

    /// From now on `witness` is told of each request. The pool's area of a board, null for none.
    pub(crate) fn add_witness(&self, witness: Witness) -> *const AtomicU64 {
        // The first request may come before the C library knows the program's name.
        self.note_program();
        self.drill.witness.store(witness as usize as u64, Relaxed);
        self.drill.area.load(Relaxed) as *const AtomicU64
    }

    /// `serve`s `request`, unless it is due to be refused.
    #[cold]
    #[inline(never)]
    pub(crate) fn drilled(&self, request: &Request, fail: Fail, serve: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
        if self.refuses(request, fail) {
            return core::ptr::null_mut();
        }
        let object = serve();
        if !object.is_null() && self.contains(object as usize) {
            let (holder, bytes) = self.held_at(object as usize);
            self.drill.count_in(holder, bytes);
            self.drill.count_in(board::ALL, bytes);
            self.drill.raise(board::TOP, (object as usize - self.data) as u64 + bytes);
            if holder == board::RUNS {
                let slack = (request.align / FRAGMENT).max(1) - 1;
                self.drill.raise(board::LARGEST_RUN, (fragments_for(request.size) + slack) as u64);
            } else if let Some(entry) = named(holder) {
                self.drill.raise(entry + board::NAME_BYTES / 8, bytes);
            }
        }
        object
    }

    /// An object is being freed.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_drilled(&self, address: usize, call: &'static str) {
        if self.drill.word(0).is_some() {
            // Ends the process if the address is no object.
            self.usable_size(address, call);
            let (holder, bytes) = self.held_at(address);
            self.drill.count_out(holder, 1, bytes);
            self.drill.count_out(board::ALL, 1, bytes);
        }
    }

    /// A cache's holder has nothing any more.
    pub(crate) fn clear_drilled(&self, holder: usize) {
        let first = board::HOLDERS + 4 * holder;
        let now = |at| self.drill.word(at).map_or(0, |word| word.load(Relaxed));
        let (objects, bytes) = (now(first), now(first + 2));
        self.drill.count_out(holder, objects, bytes);
        self.drill.count_out(board::ALL, objects, bytes);
    }

    /// Which holder has the object at `address`, and its bytes.
    fn held_at(&self, address: usize) -> (usize, u64) {
        let bytes = self.usable_size(address, "malloc");
        let (holder, bytes) = match self.holder(address) {
            Holder::Item(located) => match located.shape.class as usize {
                class if class < CLASSES => (class, bytes),
                class if CacheHandle::is_array(class) && located.shape.count == 0 => {
                    (self.cache_holder(class), bytes * located.slab.region_at(located.item).unwrap_or(1))
                }
                class => (self.cache_holder(class), bytes),
            },
            Holder::HeapPage => (board::HEAP, bytes),
            Holder::Run => (board::RUNS, bytes),
        };
        (holder, bytes as u64)
    }

    /// Numbers a request; whether it is refused. Ends the process where that is what exhaustion means.
    pub(crate) fn refuses(&self, request: &Request, fail: Fail) -> bool {
        let drill = &self.drill;
        let number = drill.requests.fetch_add(1, Relaxed) + 1;
        let refused = drill.is_due(number, request.size);
        drill.add(board::REQUESTS, 1);
        drill.tell_parent();
        drill.raise(board::LARGEST, request.size as u64);
        // SAFETY: only `add_witness` writes it, a function of this type.
        let witness = unsafe { core::mem::transmute::<usize, Option<Witness>>(drill.witness.load(Relaxed) as usize) };
        if let Some(tell) = witness {
            tell(number, request.size, refused);
        }
        if refused {
            drill.add(board::REFUSED, 1);
            self.events.refused.fetch_add(1, Relaxed);
            if fail == Fail::Policy && self.config.exhausted == Exhausted::Abort {
                self.end_drill(number, request)
            }
        }
        refused
    }

    fn end_drill(&self, number: u64, request: &Request) -> ! {
        let mut text = Text::<512>::of(format_args!(
            "mempool: drill: request {number} refused as if the pool were exhausted: {} asked (alignment {}). \
             Set MEMPOOL_EXHAUSTED=null to let the program handle it.",
            Bytes(request.size),
            Bytes(request.align)
        ));
        self.os.write_stderr(text.line());
        self.os.abort()
    }
}
