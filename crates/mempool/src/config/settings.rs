//! The one table of settings. A setting exists when it has a row here, a field in `Values` and a builder.

use core::fmt;

use super::read::{Duration, Nodes, bytes, choice, names, nodes, number, parse_duration, word};
use super::{Commit, Compact, Config, Exhausted, Name, PREFIX, Small, Unreadable, Wish};

/// Words for the values of a setting; the first for each value is the one that is printed.
type Words<T> = [(&'static str, T)];

const SMALL: &Words<Small> = &[("slab", Small::Slab), ("heap", Small::Heap), ("system", Small::System)];
const EXHAUSTED: &Words<Exhausted> =
    &[("abort", Exhausted::Abort), ("null", Exhausted::Null), ("grow", Exhausted::Grow), ("wait", Exhausted::Wait)];
const COMMIT: &Words<Commit> = &[("eager", Commit::Eager), ("lazy", Commit::Lazy)];
const WISH: &Words<Wish> = &[("off", Wish::Off), ("try", Wish::Try), ("required", Wish::Required)];
const SWITCH: &Words<bool> = &[("on", true), ("off", false), ("1", true), ("0", false)];

const BYTES_VALUES: &str = "bytes: 4096, 64K, 512M, 2G, 64KiB (powers of 1024)";
const TIME_VALUES: &str = "a whole number with ns, us, ms or s; or 0";
const NUMBER_VALUES: &str = "a whole number";
const WISH_VALUES: &str = "off, try, required";
const NUMA_VALUES: &str = "off, local, interleave, or nodes: 0-3,5";
const SWITCH_VALUES: &str = "on, off, 1, 0";

/// One setting.
pub struct Setting {
    /// Its name, and that of its builder method where [`builder`](Self::builder) says nothing else.
    pub name: &'static str,
    /// The builder method of [`Config`].
    pub builder: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The flag of `mempool run`.
    pub flag: &'static str,
    /// Whether the flag stands for `on` when it has no value.
    pub switch: bool,
    /// The default of a pool that a program makes, as text that can be read.
    pub default: &'static str,
    /// The default of the process-wide pool.
    pub process_default: &'static str,
    /// What values look like, with the unit.
    pub values: &'static str,
    /// What it means, with its range.
    pub help: &'static str,
    /// For tests of the pool itself; not in the documentation.
    pub hidden: bool,
    pub(super) set: fn(&mut Config, &[u8]) -> Result<(), Unreadable>,
    pub(super) show: fn(&Config, &mut fmt::Formatter<'_>) -> fmt::Result,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.name)
    }
}

impl PartialEq for Setting {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Setting {}

impl Setting {
    /// The setting that `name` means: the variable, exactly; the flag with `--`; or the plain name, where `-`
    /// and `_` are the same.
    #[must_use]
    pub fn find(name: &[u8]) -> Option<&'static Self> {
        let same = |a: &u8, b: &u8| a == b || (*a == b'-' && *b == b'_');
        let plain = |setting: &Setting| {
            let bare = name.strip_prefix(b"--").unwrap_or(name);
            bare.len() == setting.name.len() && bare.iter().zip(setting.name.as_bytes()).all(|(a, b)| same(a, b))
        };
        SETTINGS.iter().find(|setting| setting.env.as_bytes() == name || plain(setting))
    }

    /// This setting in the style of `name`: variable, flag, or plain.
    #[must_use]
    pub(super) fn like(&self, name: &[u8]) -> &'static str {
        match name {
            _ if name.starts_with(PREFIX.as_bytes()) => self.env,
            [b'-', b'-', ..] => self.flag,
            _ => self.name,
        }
    }

    /// Writes the value that `config` has for this setting, as text that can be read back.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    pub fn show(&self, config: &Config, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.show)(config, f)
    }
}

/// Variables with the prefix that are not settings, with their meaning. `from_env` passes over them.
pub const INTERNAL: &[(&str, &str)] =
    &[("MEMPOOL_LIBRARY", "path of libmempool_preload.so, for a `mempool run` that cannot find it by itself")];

/// A row; `$how` reads the field and `$print` prints it.
macro_rules! row {
    ($name:literal, $env:literal, $flag:literal, $default:literal, $values:expr, $help:literal,
     $config:ident, $text:ident, $how:expr, $field:ident, $value:ident => $print:expr $(, $key:ident: $other:expr)*) => {
        Setting {
            set: |$config, $text| {
                $config.values.$field = $how;
                Ok(())
            },
            show: |config, f| {
                let $value = config.values.$field;
                fmt::Display::fmt(&$print, f)
            },
            $($key: $other,)*
            ..Setting {
                name: $name, builder: stringify!($field), env: $env, flag: $flag, switch: false, default: $default,
                process_default: $default, values: $values, help: $help, hidden: false,
                set: |_, _| Ok(()), show: |_, _| Ok(()),
            }
        }
    };
}

/// All settings, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    row!("segment", "MEMPOOL_SEGMENT", "--segment", "64M", BYTES_VALUES,
        "Bytes of the segment, metadata included: 256 KiB to 16 TiB.",
        c, text, bytes(text)?, segment, v => Compact(v), process_default: "512M"),
    row!("max_segment", "MEMPOOL_MAX_SEGMENT", "--max-segment", "0", BYTES_VALUES,
        "Bytes that the segment may grow to, with `exhausted=grow` alone: at least `segment`; 0 means four times `segment`. The metadata for all of it, 2%, are there from the start, beside at least a slot of data.",
        c, text, bytes(text)?, max_segment, v => Compact(v)),
    row!("small", "MEMPOOL_SMALL", "--small", "slab", "slab, heap, system",
        "Who serves small requests: `slab` is fastest and checks every free; `heap` packs tightest, for tiny segments; `system` hands everything to the C library, and the pool is not autonomous.",
        c, text, choice(text, SMALL)?, small, v => word(v, SMALL)),
    row!("exhausted", "MEMPOOL_EXHAUSTED", "--exhausted", "abort", "abort, null, grow, wait",
        "When no run that fits is left: `abort` ends the process with a message; `null` gives null or `Err`; `grow` commits more, up to `max_segment`, then gives null or `Err`; `wait` waits for other threads to free, up to `wait_limit`, then gives null or `Err`.",
        c, text, choice(text, EXHAUSTED)?, exhausted, v => word(v, EXHAUSTED)),
    row!("commit", "MEMPOOL_COMMIT", "--commit", "eager", "eager, lazy",
        "When the segment gets its memory: `eager` at init, so that no later access faults; `lazy` at the first touch of each OS page.",
        c, text, choice(text, COMMIT)?, commit, v => word(v, COMMIT)),
    row!("lock", "MEMPOOL_LOCK", "--lock", "try", WISH_VALUES,
        "Locks the segment in memory, so that it is never swapped out: `try` goes on without where the system refuses, which only the table (`--stats`) and `Pool::granted` say; `required` makes a refusal an error at init.",
        c, text, choice(text, WISH)?, lock, v => word(v, WISH)),
    row!("reserve", "MEMPOOL_RESERVE", "--reserve", "0", BYTES_VALUES,
        "Bytes set aside for critical allocations: less than `segment`.",
        c, text, bytes(text)?, reserve, v => Compact(v)),
    row!("max_retries", "MEMPOOL_MAX_RETRIES", "--max-retries", "8", NUMBER_VALUES,
        "How often an exhausted pool waits for another thread to free before `exhausted` applies: 0 to 1000000.",
        c, text, number(text)?, max_retries, v => v),
    row!("wait_time", "MEMPOOL_WAIT_TIME", "--wait-time", "1ms", TIME_VALUES,
        "How long each such wait lasts: 0 to 60s.",
        c, text, parse_duration(text)?, wait_time, v => Duration(v)),
    row!("wait_limit", "MEMPOOL_WAIT_LIMIT", "--wait-limit", "10s", TIME_VALUES,
        "How long a request waits in all with `exhausted=wait`: 0 to 3600s.",
        c, text, parse_duration(text)?, wait_limit, v => Duration(v)),
    row!("verdict_interval", "MEMPOOL_VERDICT_INTERVAL", "--verdict-interval", "10s", TIME_VALUES,
        "A pool that goes on when it is exhausted (`null`, `grow`, `wait`) writes why to standard error, at most once in so long: up to 3600s; 0 writes nothing.",
        c, text, parse_duration(text)?, verdict_interval, v => Duration(v)),
    row!("watermark", "MEMPOOL_WATERMARK", "--watermark", "0", BYTES_VALUES,
        "The process is told when so many bytes are free no more, by `watermark_signal` and `watermark_fd`: less than `segment`; 0 means never.",
        c, text, bytes(text)?, watermark, v => Compact(v)),
    row!("watermark_signal", "MEMPOOL_WATERMARK_SIGNAL", "--watermark-signal", "0", NUMBER_VALUES,
        "The signal that the process gets when free memory falls below `watermark`, and once more when the pool is exhausted: up to 64; 0 means none.",
        c, text, number(text)?, watermark_signal, v => v),
    row!("watermark_fd", "MEMPOOL_WATERMARK_FD", "--watermark-fd", "0", NUMBER_VALUES,
        "The file descriptor that gets a line at the same moments, if it can be written to at once: up to 1048576; 0 means none.",
        c, text, number(text)?, watermark_fd, v => v),
    row!("critical", "MEMPOOL_CRITICAL", "--critical", "", "names of threads with commas between, up to 63 bytes",
        "Threads of these names (as `ps -L` shows them) may use the reserve always, as if in a critical scope.",
        c, text, names(text)?, critical, v => v.as_str()),
    row!("heap_max_alloc", "MEMPOOL_HEAP_MAX_ALLOC", "--heap-max-alloc", "256", BYTES_VALUES,
        "The largest request that the best-fit heap serves, with `small=heap`: 4 to 3200 bytes.",
        c, text, bytes(text)?, heap_max_alloc, v => Compact(v)),
    row!("heap_page_lifetime", "MEMPOOL_HEAP_PAGE_LIFETIME", "--heap-page-lifetime", "1024", NUMBER_VALUES,
        "An emptied heap page goes back when at least so many operations of the heap came after it was made: 0 to 4294967295.",
        c, text, number(text)?.into(), heap_page_lifetime, v => v),
    row!("max_threads", "MEMPOOL_MAX_THREADS", "--max-threads", "0", NUMBER_VALUES,
        "Threads that can have a local heap at once: up to 65536; 0 means by `segment`.",
        c, text, number(text)?, max_threads, v => v),
    row!("max_caches", "MEMPOOL_MAX_CACHES", "--max-caches", "0", NUMBER_VALUES,
        "Named caches that there can be: up to 1048576; 0 means by `segment`. Programs on the preload library have 1 where nothing is set.",
        c, text, number(text)?, max_caches, v => v),
    row!("guard_pages", "MEMPOOL_GUARD_PAGES", "--guard-pages", "on", SWITCH_VALUES,
        "Inaccessible OS pages before, between and behind metadata and data.",
        c, text, choice(text, SWITCH)?, guard_pages, v => word(v, SWITCH), switch: true),
    row!("huge_pages", "MEMPOOL_HUGE_PAGES", "--huge-pages", "try", WISH_VALUES,
        "Huge OS pages behind the segment. With `commit=lazy` none are asked for, since each touch would bring one; `required` needs `commit=eager`, and makes it an error at init if any whole huge OS page of the segment cannot be had, or none fits into it; what lies before the first and behind the last whole one is in small OS pages.",
        c, text, choice(text, WISH)?, huge_pages, v => word(v, WISH)),
    row!("huge_page_size", "MEMPOOL_HUGE_PAGE_SIZE", "--huge-page-size", "0", BYTES_VALUES,
        "Which huge OS pages: `0` transparent ones, of any size; `2M` or `1G` those that the administrator has set aside. The segment is then a multiple of them, needs `commit=eager`, and cannot grow.",
        c, text, bytes(text)?, huge_page_size, v => Compact(v)),
    row!("numa", "MEMPOOL_NUMA", "--numa", "off", NUMA_VALUES,
        "Memory nodes of the segment, set before its first touch: `off` leaves it to the process's policy, `local` prefers the node of the thread that makes the pool, `interleave` spreads it over all nodes, a list binds it to those of them that are there; where none is, there is no pool.",
        c, text, nodes(text)?, numa, v => Nodes(v)),
    row!("dump", "MEMPOOL_DUMP", "--dump", "on", SWITCH_VALUES,
        "Whether core files contain the segment, for who looks into a pool afterwards.",
        c, text, choice(text, SWITCH)?, dump, v => word(v, SWITCH), switch: true),
    row!("process", "MEMPOOL_PROCESS", "--process", "off", SWITCH_VALUES,
        "Also locks the program's text, libraries and stacks in memory, which is an error at init if it is refused with `lock=required`; makes a MiB of stack present, and asks for an out-of-memory score of -900.",
        c, text, choice(text, SWITCH)?, lock_process, v => word(v, SWITCH), switch: true),
    row!("strict", "MEMPOOL_STRICT", "--strict", "off", SWITCH_VALUES,
        "Makes everything `required`: whatever was asked for and not granted is an error at init.",
        c, text, choice(text, SWITCH)?, strict, v => word(v, SWITCH), switch: true),
    row!("check_sizes", "MEMPOOL_CHECK_SIZES", "--check-sizes", "on", SWITCH_VALUES,
        "Whether a free that is given another size than was asked for (`operator delete` of C++14, `free_sized`) ends the process: an error of the program's that other allocators overlook.",
        c, text, choice(text, SWITCH)?, check_sizes, v => word(v, SWITCH), switch: true),
    row!("name", "MEMPOOL_NAME", "--name", "mempool", "1 to 31 bytes of printable ASCII without \\ ` $ [ ]",
        "The pool's name in the list of mappings and in messages.",
        c, text, Name::new(text), name, v => v.as_str()),
    row!("stats", "MEMPOOL_STATS", "--stats", "off", SWITCH_VALUES,
        "Prints the pool's table to standard error when the process ends.",
        c, text, choice(text, SWITCH)?, stats_at_exit, v => word(v, SWITCH), switch: true),
    row!("fail_nth", "MEMPOOL_FAIL_NTH", "--fail-nth", "0", NUMBER_VALUES,
        "A drill: refuses one request of the process, the so many-th, as if the pool were exhausted, as `exhausted` says. Requests come one at a time and slowly in a drill. 0 means none.",
        c, text, number(text)?, fail_nth, v => v),
    row!("fail_every", "MEMPOOL_FAIL_EVERY", "--fail-every", "0", NUMBER_VALUES,
        "A drill: refuses every so many-th request; 0 means none.",
        c, text, number(text)?, fail_every, v => v),
    row!("fail_above", "MEMPOOL_FAIL_ABOVE", "--fail-above", "0", BYTES_VALUES,
        "A drill: refuses requests of more bytes than this; 0 means none.",
        c, text, bytes(text)?, fail_above, v => Compact(v)),
    row!("fail_seed", "MEMPOOL_FAIL_SEED", "--fail-seed", "0", NUMBER_VALUES,
        "A drill: refuses requests drawn at random, the same ones for the same seed: one in `fail_rate`; 0 means none.",
        c, text, number(text)?, fail_seed, v => v),
    row!("fail_rate", "MEMPOOL_FAIL_RATE", "--fail-rate", "100", NUMBER_VALUES,
        "How many requests there are, on average, to one that `fail_seed` draws: 1 to 4294967295.",
        c, text, number(text)?, fail_rate, v => v),
    row!("board", "MEMPOOL_BOARD", "--board", "0", NUMBER_VALUES,
        "The descriptor that `mempool drill` and `mempool size` read.",
        c, text, number(text)?, board, v => v, hidden: true),
    row!("survey", "MEMPOOL_SURVEY", "--survey", "off", SWITCH_VALUES,
        "Whether places of requests are noted there.",
        c, text, choice(text, SWITCH)?, survey, v => word(v, SWITCH), switch: true, hidden: true),
    row!("slot_shift", "MEMPOOL_SLOT_SHIFT", "--slot-shift", "0", NUMBER_VALUES,
        "log2 of the bytes of a slot: 12 to 16; 0 means by `segment`.",
        c, text, number(text)?, slot_shift, v => v, hidden: true),
];

const _: () = assert!(SETTINGS.len() <= 64, "from_env remembers each in a bit of a word");
