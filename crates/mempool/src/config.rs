//! The configuration of a pool: plain values, made at compile time or read from variables and flags.
//!
//! Each setting has a builder method, an environment variable `MEMPOOL_...`, a flag of the command, a default
//! and a meaning. [`SETTINGS`] is the one table of them; docs/CONFIGURATION.md is printed from it, and a
//! test compares the two. Setting a value never fails and never changes it: [`Config::validate`], which each
//! pool calls when it is made, checks ranges and what settings mean to each other, and an error names the
//! setting, its value, the limit and the unit. Nothing is rounded, ignored or guessed.
//!
//! *Limits:* a `Config` says what is wanted. What the machine grants is the pool's to find out and report.

use crate::bytes::{Bytes, Compact};
use crate::text::Text;

mod error;
mod read;
mod settings;
#[cfg(all(test, not(loom)))]
mod tests;

pub use error::{ConfigError, Short, Unreadable};
pub(crate) use read::Nodes;
pub use read::parse_duration;
pub use settings::{INTERNAL, SETTINGS, Setting};

/// The prefix of all environment variables.
pub const PREFIX: &str = "MEMPOOL_";
/// The largest request that the best-fit heap can be told to serve, in bytes.
pub const HEAP_MAX_ALLOC: usize = 3200;
/// Bytes of a pool's name, at most.
pub const NAME_MOST: usize = 31;

/// Which allocator serves small requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Small {
    /// The slab tier: fastest, checks every free.
    #[default]
    Slab,
    /// The best-fit heap tier: packs tightest, for tiny segments.
    Heap,
    /// The C library's allocator serves everything: not autonomous.
    System,
}

/// What an allocation does when the pool is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Exhausted {
    /// Ends the process with a message.
    #[default]
    Abort,
    /// Gives null, or `Err`.
    Null,
    /// Commits more of a larger reservation, up to `max_segment`; then gives null, or `Err`.
    Grow,
    /// Waits for other threads to free, up to `wait_limit`; then gives null, or `Err`.
    Wait,
}

/// When the segment gets its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Commit {
    /// All of it at init.
    #[default]
    Eager,
    /// At the first touch of each OS page.
    Lazy,
}

/// How much something is wanted that the machine may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wish {
    /// Not asked for.
    Off,
    /// Asked for; the report tells whether it was granted.
    #[default]
    Try,
    /// Init fails without it.
    Required,
}

/// Whether the segment is locked in memory.
pub type Lock = Wish;

/// On which memory nodes the segment lies, on a machine that has several (NUMA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Numa {
    /// Where the policy of the process says.
    #[default]
    Off,
    /// On the node of the thread that makes the pool; elsewhere when it is full.
    Local,
    /// OS page by OS page over all nodes that the process may use.
    Interleave,
    /// On these nodes and no others: bit n is node n.
    Bind(u64),
}
/// Names of threads, with commas between.
pub type ThreadNames = Text<64>;

/// A pool's name, as it appears in the list of mappings and in messages: 1 to 31 bytes of printable ASCII
/// without `` \`$[] ``, which the kernel refuses.
///
/// Invariant: `len` is the length that was given, up to 255; the first 31 bytes of it are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_MOST],
    len: u8,
}

impl Name {
    /// The name `text`; [`Config::validate`] refuses it if it is no good.
    #[must_use]
    pub const fn new(text: &[u8]) -> Self {
        let mut name = Self { bytes: [0; NAME_MOST], len: if text.len() > 255 { 255 } else { text.len() as u8 } };
        let mut at = 0;
        let mut rest = text;
        while let [byte, tail @ ..] = rest {
            if at == NAME_MOST {
                break;
            }
            name.bytes[at] = *byte;
            at += 1;
            rest = tail;
        }
        name
    }

    /// The name; empty for one that is no good.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.is_valid() { core::str::from_utf8(self.kept()).unwrap_or("") } else { "" }
    }

    fn kept(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    fn is_valid(&self) -> bool {
        let allowed = |byte: &u8| (0x20..0x7F).contains(byte) && !b"\\`$[]".contains(byte);
        (1..=NAME_MOST).contains(&usize::from(self.len)) && self.kept().iter().all(allowed)
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.kept().escape_ascii())
    }
}

/// What a pool should be like. Fields are read through the methods of [`Values`].
///
/// ```
/// use mempool::config::{Commit, Config, Exhausted};
/// const CONFIG: Config = Config::new().segment(256 << 20).exhausted(Exhausted::Null).commit(Commit::Lazy);
/// assert!(CONFIG.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    values: Values,
}

/// The values of all settings. Sizes are bytes, times nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Values {
    /// Bytes of the segment, metadata included.
    pub segment: usize,
    /// Bytes that it may grow to; 0 means [`Config::growth_limit`]'s choice.
    pub max_segment: usize,
    /// Who serves small requests.
    pub small: Small,
    /// What exhaustion means.
    pub exhausted: Exhausted,
    /// When memory is taken.
    pub commit: Commit,
    /// Whether memory is locked.
    pub lock: Lock,
    /// Bytes set aside for critical allocations.
    pub reserve: usize,
    /// How often an exhausted pool waits and looks again.
    pub max_retries: u32,
    /// How long each wait lasts, in nanoseconds.
    pub wait_time: u64,
    /// How long a request waits in all with [`Exhausted::Wait`], in nanoseconds.
    pub wait_limit: u64,
    /// Least time between two verdicts of a pool that goes on when it is exhausted, in nanoseconds; 0: none is written.
    pub verdict_interval: u64,
    /// Bytes of free memory below which the process is told; 0: never.
    pub watermark: usize,
    /// The signal that tells it; 0: none.
    pub watermark_signal: u32,
    /// The file descriptor that a line is written to; 0: none.
    pub watermark_fd: u32,
    /// Names of threads that are always in a critical scope, with commas between.
    pub critical: ThreadNames,
    /// The largest request that the best-fit heap serves, in bytes.
    pub heap_max_alloc: usize,
    /// Operations of the heap between the making of a heap page and its going back, at least.
    pub heap_page_lifetime: u64,
    /// Threads that can have a local heap at once; 0 means by segment.
    pub max_threads: u32,
    /// Named caches; 0 means by segment.
    pub max_caches: u32,
    /// Whether guard OS pages surround metadata and data.
    pub guard_pages: bool,
    /// Whether huge OS pages are wanted.
    pub huge_pages: Wish,
    /// Bytes of the huge OS pages that are set aside by the system's administrator; 0 means transparent ones.
    pub huge_page_size: usize,
    /// On which memory nodes the segment lies.
    pub numa: Numa,
    /// Whether core files contain the segment.
    pub dump: bool,
    /// Whether the program itself is locked and protected too.
    pub lock_process: bool,
    /// Whether each shortfall is an error.
    pub strict: bool,
    /// Whether a size that is given with a free must be one that was asked for.
    pub check_sizes: bool,
    /// The pool's name.
    pub name: Name,
    /// Whether the pool's table goes to standard error when the process ends.
    pub stats_at_exit: bool,
    /// The request that is refused, counted from 1; 0 for none.
    pub fail_nth: u32,
    /// Every so many-th request is refused; 0 for none.
    pub fail_every: u32,
    /// Requests of more bytes are refused; 0 for none.
    pub fail_above: usize,
    /// Requests are drawn from this seed to be refused; 0 for none.
    pub fail_seed: u32,
    /// One of so many is drawn.
    pub fail_rate: u32,
    /// The descriptor of the board of `mempool drill` and `mempool size`; 0 for none.
    pub board: u32,
    /// Whether the board says where requests come from.
    pub survey: bool,
    /// log2 of the bytes of a slot; 0 means by segment. For tests.
    pub slot_shift: u32,
}

/// One `const fn` for each line: `field: type, "meaning"`.
macro_rules! builders {
    ($($name:ident: $type:ty, $doc:literal;)*) => {
        impl Config {
            $(#[doc = $doc]
            #[must_use]
            pub const fn $name(mut self, $name: $type) -> Self {
                self.values.$name = $name;
                self
            })*
        }
    };
}

builders! {
    segment: usize, "Sets the bytes of the segment, metadata included.";
    max_segment: usize, "Sets the bytes that the segment may grow to, with [`Exhausted::Grow`]; 0 means four times the segment.";
    small: Small, "Sets who serves small requests.";
    exhausted: Exhausted, "Sets what an allocation does when the pool is exhausted.";
    commit: Commit, "Sets when the segment gets its memory.";
    lock: Lock, "Sets whether the segment is locked in memory.";
    reserve: usize, "Sets the bytes that only critical allocations may use.";
    max_retries: u32, "Sets how often an exhausted pool waits and looks again.";
    wait_time: u64, "Sets how long each such wait lasts, in nanoseconds.";
    wait_limit: u64, "Sets how long a request waits in all with [`Exhausted::Wait`], in nanoseconds.";
    verdict_interval: u64, "Sets the least time between two verdicts of a pool that goes on when exhausted, in nanoseconds; 0: none.";
    watermark: usize, "Sets the bytes of free memory below which `watermark_signal` and `watermark_fd` tell; 0: never.";
    watermark_signal: u32, "Sets the signal that the process gets when free memory falls below `watermark`; 0: none.";
    watermark_fd: u32, "Sets the file descriptor that gets a line when free memory falls below `watermark`; 0: none.";
    critical: ThreadNames, "Sets the names of threads that are always in a critical scope, with commas between.";
    heap_max_alloc: usize, "Sets the largest request that the best-fit heap serves, in bytes.";
    heap_page_lifetime: u64, "Sets how many operations of the heap a page outlives at least before it goes back when empty.";
    max_threads: u32, "Sets how many threads can have a local heap at once; 0 means by segment.";
    max_caches: u32, "Sets how many named caches there can be; 0 means by segment.";
    guard_pages: bool, "Sets whether guard OS pages surround metadata and data.";
    huge_pages: Wish, "Sets whether huge OS pages are wanted.";
    huge_page_size: usize, "Sets the bytes of the reserved huge OS pages behind the segment; 0 means transparent ones.";
    numa: Numa, "Sets on which memory nodes the segment lies.";
    dump: bool, "Sets whether core files contain the segment.";
    lock_process: bool, "Sets whether the program's text, libraries and stack are locked too, and its out-of-memory score lowered.";
    strict: bool, "Sets whether each thing that was asked for and not granted is an error.";
    check_sizes: bool, "Sets whether a free that is given another size than was asked for ends the process.";
    stats_at_exit: bool, "Sets whether the pool's table goes to standard error when the process ends.";
    fail_nth: u32, "Sets which request is refused, counted from 1, as a drill; 0 for none.";
    fail_every: u32, "Sets that every so many-th request is refused, as a drill; 0 for none.";
    fail_above: usize, "Sets the bytes above which requests are refused, as a drill; 0 for none.";
    fail_seed: u32, "Sets the seed that requests to refuse are drawn from, as a drill; 0 for none.";
    fail_rate: u32, "Sets that one of so many requests is drawn, with a seed.";
    board: u32, "Sets the descriptor of the board of `mempool drill` and `mempool size`; 0 for none.";
    survey: bool, "Sets whether the board says where requests come from.";
    slot_shift: u32, "Sets log2 of the bytes of a slot; 0 means by segment. For tests of the pool itself.";
}

/// The least segment, in bytes.
pub const SEGMENT_LEAST: usize = 256 << 10;
/// The largest segment, in bytes.
pub const SEGMENT_MOST: usize = 16 << 40;
/// The least and the largest size of huge OS pages that a kernel could have, in bytes.
const HUGE_PAGE_LEAST: usize = 64 << 10;
const HUGE_PAGE_MOST: usize = 16 << 30;
/// A growing segment's limit where none is set, in segments.
const GROWTH: usize = 4;
const SECOND: u64 = 1_000_000_000;
/// The last signal that Linux has.
const SIGNAL_MOST: u64 = 64;

impl Config {
    /// The defaults of a pool that a program makes for itself: 64 MiB.
    #[must_use]
    pub const fn new() -> Self {
        let values = Values {
            segment: 64 << 20,
            max_segment: 0,
            small: Small::Slab,
            exhausted: Exhausted::Abort,
            commit: Commit::Eager,
            lock: Lock::Try,
            reserve: 0,
            max_retries: 8,
            wait_time: 1_000_000,
            wait_limit: 10 * SECOND,
            verdict_interval: 10 * SECOND,
            watermark: 0,
            watermark_signal: 0,
            watermark_fd: 0,
            critical: Text::new(),
            heap_max_alloc: 256,
            heap_page_lifetime: 1024,
            max_threads: 0,
            max_caches: 0,
            guard_pages: true,
            huge_pages: Wish::Try,
            huge_page_size: 0,
            numa: Numa::Off,
            dump: true,
            lock_process: false,
            strict: false,
            check_sizes: true,
            name: Name::new(b"mempool"),
            stats_at_exit: false,
            fail_nth: 0,
            fail_every: 0,
            fail_above: 0,
            fail_seed: 0,
            fail_rate: 100,
            board: 0,
            survey: false,
            slot_shift: 0,
        };
        Self { values }
    }

    /// The defaults of the process-wide pool, which serves `mp_malloc` and `mempool run`: 512 MiB.
    #[must_use]
    pub const fn process() -> Self {
        Self::new().segment(512 << 20)
    }

    /// Sets the pool's name: 1 to 31 bytes of printable ASCII without `` \`$[] ``.
    #[must_use]
    pub const fn name(mut self, name: &str) -> Self {
        self.values.name = Name::new(name.as_bytes());
        self
    }

    /// All values.
    #[must_use]
    pub const fn values(&self) -> &Values {
        &self.values
    }

    /// Bytes that must be reserved: `max_segment`, four segments where a growing pool has none set, and the
    /// segment itself where the pool does not grow.
    #[must_use]
    pub const fn growth_limit(&self) -> usize {
        let v = &self.values;
        match (v.exhausted, v.max_segment) {
            (Exhausted::Grow, 0) => {
                let most = if v.segment > SEGMENT_MOST { v.segment } else { SEGMENT_MOST };
                let wanted = v.segment.saturating_mul(GROWTH);
                if wanted < most { wanted } else { most }
            }
            (Exhausted::Grow, most) => most,
            _ => v.segment,
        }
    }

    /// Sets the setting that a variable (`MEMPOOL_MAX_SEGMENT`), a flag (`--max-segment`) or a plain name
    /// (`max_segment`) names, from text.
    ///
    /// # Errors
    ///
    /// There is no such setting, or it has no such value; then nothing is changed.
    pub fn apply(&mut self, name: &[u8], value: &[u8]) -> Result<(), ConfigError> {
        let setting = Setting::find(name).ok_or_else(|| ConfigError::unknown(name))?;
        (setting.set)(self, value).map_err(|why| ConfigError::value(name, value, setting, why))
    }

    /// These settings with all those of `variables` applied whose names begin with `MEMPOOL_`; of several
    /// with one name the first counts, as `getenv` has it. Does not [`validate`](Self::validate), so that
    /// flags can still follow. A process with `AT_SECURE` set must not call this.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply): a `MEMPOOL_` variable that is unknown or has a bad value.
    pub fn from_env<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, ConfigError> {
        let mut seen = 0u64;
        for (name, value) in variables {
            if !name.starts_with(PREFIX.as_bytes()) || INTERNAL.iter().any(|(known, _)| known.as_bytes() == name) {
                continue;
            }
            let bit =
                SETTINGS.iter().position(|setting| setting.env.as_bytes() == name).map_or(0, |at| 1u64 << (at & 63));
            if seen & bit == 0 {
                self.apply(name, value)?;
                seen |= bit;
            }
        }
        Ok(self)
    }

    /// Checks the range of each setting and the rules between them.
    ///
    /// # Errors
    ///
    /// The first breach, with the setting, its value, the limit and the unit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_rules()
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let v = &self.values;
        let bytes = |name, value, least, most| {
            ConfigError::check(name, value as u64, least as u64, most as u64, ConfigError::BYTES)
        };
        let count = |name, value: u32, most| ConfigError::check(name, u64::from(value), 0, most, ConfigError::COUNT);
        let time = |name, value, most| ConfigError::check(name, value, 0, most, ConfigError::TIME);
        bytes("segment", v.segment, SEGMENT_LEAST, SEGMENT_MOST)?;
        if v.max_segment != 0 {
            bytes("max_segment", v.max_segment, SEGMENT_LEAST, SEGMENT_MOST)?;
        }
        count("max_retries", v.max_retries, 1_000_000)?;
        time("wait_time", v.wait_time, 60 * SECOND)?;
        time("wait_limit", v.wait_limit, 3600 * SECOND)?;
        time("verdict_interval", v.verdict_interval, 3600 * SECOND)?;
        count("watermark_signal", v.watermark_signal, SIGNAL_MOST)?;
        count("watermark_fd", v.watermark_fd, 1 << 20)?;
        bytes("heap_max_alloc", v.heap_max_alloc, 4, HEAP_MAX_ALLOC)?;
        ConfigError::check("heap_page_lifetime", v.heap_page_lifetime, 0, u64::from(u32::MAX), ConfigError::COUNT)?;
        count("max_threads", v.max_threads, 65_536)?;
        count("max_caches", v.max_caches, 1 << 20)?;
        if v.huge_page_size != 0 {
            bytes("huge_page_size", v.huge_page_size, HUGE_PAGE_LEAST, HUGE_PAGE_MOST)?;
        }
        ConfigError::check("fail_rate", u64::from(v.fail_rate), 1, u64::from(u32::MAX), ConfigError::COUNT)?;
        if v.slot_shift != 0 {
            ConfigError::check("slot_shift", u64::from(v.slot_shift), 12, 16, ConfigError::COUNT)?;
        }
        if v.name.is_valid() {
            Ok(())
        } else {
            // What is kept of a long one looks as if it were good.
            let more = if usize::from(v.name.len) > NAME_MOST { "..." } else { "" };
            Err(ConfigError::Name { given: Short::of(format_args!("{}{more}", v.name.kept().escape_ascii())) })
        }
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        let v = &self.values;
        let conflict = |rule, value: usize, limit: usize| Err(ConfigError::Conflict { rule, value, limit });
        if v.max_segment != 0 && v.exhausted != Exhausted::Grow {
            return conflict("max_segment has a meaning with exhausted=grow alone", v.max_segment, v.segment);
        }
        if v.max_segment != 0 && v.max_segment < v.segment {
            return conflict("max_segment must not be less than segment", v.max_segment, v.segment);
        }
        if v.reserve >= v.segment {
            return conflict("reserve must be less than segment", v.reserve, v.segment);
        }
        if v.watermark >= v.segment {
            return conflict("watermark must be less than segment", v.watermark, v.segment);
        }
        if v.watermark == 0 && (v.watermark_signal != 0 || v.watermark_fd != 0) {
            return conflict("watermark_signal and watermark_fd have a meaning with a watermark alone", 0, 0);
        }
        if v.huge_pages == Wish::Required && v.commit == Commit::Lazy {
            return conflict(
                "huge_pages=required needs commit=eager, since huge OS pages are made at init",
                v.segment,
                v.segment,
            );
        }
        if v.huge_page_size != 0 {
            self.check_huge_page_size()?;
        }
        if v.numa == Numa::Bind(0) {
            return conflict("numa must name at least one node", 0, 0);
        }
        Ok(())
    }

    fn check_huge_page_size(&self) -> Result<(), ConfigError> {
        let v = &self.values;
        let conflict = |rule| Err(ConfigError::Conflict { rule, value: v.huge_page_size, limit: v.huge_page_size });
        if !v.huge_page_size.is_power_of_two() {
            return conflict("huge_page_size must be a power of two, such as 2M or 1G");
        }
        if v.huge_pages == Wish::Off {
            return conflict("huge_page_size has a meaning with huge_pages=try or required alone");
        }
        if v.commit == Commit::Lazy {
            return conflict("huge_page_size needs commit=eager, since reserved huge OS pages are taken at init");
        }
        if v.exhausted == Exhausted::Grow {
            return conflict("huge_page_size excludes exhausted=grow, since reserved huge OS pages are taken at init");
        }
        if v.segment < v.huge_page_size {
            let (rule, value, limit) = ("segment must not be less than huge_page_size", v.segment, v.huge_page_size);
            return Err(ConfigError::Conflict { rule, value, limit });
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Display for Config {
    /// All settings as `name=value`, in the order of the table, those for tests alone left out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (place, setting) in SETTINGS.iter().filter(|setting| !setting.hidden).enumerate() {
            f.write_str(if place == 0 { "" } else { " " })?;
            write!(f, "{}=", setting.name)?;
            (setting.show)(self, f)?;
        }
        Ok(())
    }
}
