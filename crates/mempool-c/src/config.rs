//! `mempool_config_t`: every setting of docs/CONFIGURATION.md as a field, and as text.
//!
//! The struct carries its own size. A smaller one than the first version had, or a larger one than this
//! library knows whose further bytes are not zero, is refused: nothing that somebody set is ignored.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_uint};
use core::mem::{MaybeUninit, offset_of};

use mempool::InitError;
use mempool::config::{Commit, Config, ConfigError, Exhausted, Numa, Setting, Small, Values, Wish};

use crate::error::{ARGUMENT, OK, STRUCT_SIZE, VALUE, fail, fail_init};

/// Bytes of a pool's name in the struct, its final zero included.
pub const POOL_NAME: usize = 32;
/// Bytes of the critical threads' names in the struct, the final zero included.
pub const CRITICAL: usize = 64;

/// `mempool_config_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MempoolConfig {
    /// Bytes of the struct, as its user knows it.
    pub struct_size: usize,
    /// Whether the environment's variables apply on top: 0 or 1.
    pub use_environment: c_int,
    /// See `Values::small`.
    pub small: c_int,
    /// See `Values::exhausted`.
    pub exhausted: c_int,
    /// See `Values::commit`.
    pub commit: c_int,
    /// See `Values::lock`.
    pub lock: c_int,
    /// See `Values::huge_pages`.
    pub huge_pages: c_int,
    /// 0 or 1.
    pub guard_pages: c_int,
    /// 0 or 1.
    pub dump: c_int,
    /// 0 or 1.
    pub stats: c_int,
    /// A number.
    pub max_retries: c_uint,
    /// A number.
    pub max_threads: c_uint,
    /// A number.
    pub max_caches: c_uint,
    /// Bytes.
    pub segment: usize,
    /// Bytes.
    pub max_segment: usize,
    /// Bytes.
    pub reserve: usize,
    /// Bytes.
    pub heap_max_alloc: usize,
    /// Nanoseconds.
    pub wait_time_ns: u64,
    /// In the unit of the setting.
    pub heap_page_lifetime: u64,
    /// For tests of the pool itself; 0.
    pub slot_shift: c_uint,
    /// 0.
    pub reserved: c_uint,
    /// The pool's name, with a final zero.
    pub name: [c_char; POOL_NAME],
    /// Bytes.
    pub huge_page_size: usize,
    /// Bit n is node n.
    pub numa_nodes: u64,
    /// See `Values::numa`.
    pub numa: c_int,
    /// 0 or 1.
    pub process: c_int,
    /// 0 or 1.
    pub strict: c_int,
    /// 0 or 1.
    pub check_sizes: c_int,
    /// Nanoseconds.
    pub wait_limit_ns: u64,
    /// Nanoseconds.
    pub verdict_interval_ns: u64,
    /// Bytes.
    pub watermark: usize,
    /// A number.
    pub watermark_signal: c_uint,
    /// A number.
    pub watermark_fd: c_uint,
    /// Names of threads with commas between, with a final zero.
    pub critical: [c_char; CRITICAL],
    /// Bytes.
    pub fail_above: usize,
    /// A number.
    pub fail_nth: c_uint,
    /// A number.
    pub fail_every: c_uint,
    /// A number.
    pub fail_seed: c_uint,
    /// A number.
    pub fail_rate: c_uint,
    /// A file descriptor.
    pub board: c_uint,
    /// 0 or 1.
    pub survey: c_int,
}

const SIZE: usize = size_of::<MempoolConfig>();

const SMALL: [Small; 3] = [Small::Slab, Small::Heap, Small::System];
const EXHAUSTED: [Exhausted; 4] = [Exhausted::Abort, Exhausted::Null, Exhausted::Grow, Exhausted::Wait];
const COMMIT: [Commit; 2] = [Commit::Eager, Commit::Lazy];
const WISH: [Wish; 3] = [Wish::Off, Wish::Try, Wish::Required];
const SWITCH: [bool; 2] = [false, true];

/// The number of `value` in `all`.
fn number<T: PartialEq>(all: &[T], value: &T) -> c_int {
    all.iter().position(|known| known == value).map_or(0, |at| at as c_int)
}

/// A value that is none of those of its field: the field, the value, how many there are.
struct Stray(&'static str, c_int, usize);

/// The value of `field` with number `at`.
fn pick<T: Copy>(all: &[T], field: &'static str, at: c_int) -> Result<T, Stray> {
    usize::try_from(at).ok().and_then(|at| all.get(at)).copied().ok_or(Stray(field, at, all.len()))
}

impl MempoolConfig {
    fn of(values: &Values, use_environment: c_int) -> Self {
        Self {
            struct_size: SIZE,
            use_environment,
            small: number(&SMALL, &values.small),
            exhausted: number(&EXHAUSTED, &values.exhausted),
            commit: number(&COMMIT, &values.commit),
            lock: number(&WISH, &values.lock),
            huge_pages: number(&WISH, &values.huge_pages),
            guard_pages: c_int::from(values.guard_pages),
            dump: c_int::from(values.dump),
            stats: c_int::from(values.stats_at_exit),
            max_retries: values.max_retries,
            max_threads: values.max_threads,
            max_caches: values.max_caches,
            segment: values.segment,
            max_segment: values.max_segment,
            reserve: values.reserve,
            heap_max_alloc: values.heap_max_alloc,
            wait_time_ns: values.wait_time,
            heap_page_lifetime: values.heap_page_lifetime,
            slot_shift: values.slot_shift,
            reserved: 0,
            name: chars(values.name.as_str()),
            wait_limit_ns: values.wait_limit,
            verdict_interval_ns: values.verdict_interval,
            watermark: values.watermark,
            watermark_signal: values.watermark_signal,
            watermark_fd: values.watermark_fd,
            critical: chars(values.critical.as_str()),
            huge_page_size: values.huge_page_size,
            numa_nodes: if let Numa::Bind(nodes) = values.numa { nodes } else { 0 },
            numa: match values.numa {
                Numa::Off => 0,
                Numa::Local => 1,
                Numa::Interleave => 2,
                Numa::Bind(_) => 3,
            },
            process: c_int::from(values.lock_process),
            strict: c_int::from(values.strict),
            check_sizes: c_int::from(values.check_sizes),
            fail_above: values.fail_above,
            fail_nth: values.fail_nth,
            fail_every: values.fail_every,
            fail_seed: values.fail_seed,
            fail_rate: values.fail_rate,
            board: values.board,
            survey: c_int::from(values.survey),
        }
    }

    /// The configuration that the fields say. The name is looked at by [`Config::validate`].
    fn config(&self) -> Result<Config, Stray> {
        let config = Config::process()
            .small(pick(&SMALL, "small", self.small)?)
            .exhausted(pick(&EXHAUSTED, "exhausted", self.exhausted)?)
            .commit(pick(&COMMIT, "commit", self.commit)?)
            .lock(pick(&WISH, "lock", self.lock)?)
            .huge_pages(pick(&WISH, "huge_pages", self.huge_pages)?)
            .guard_pages(pick(&SWITCH, "guard_pages", self.guard_pages)?)
            .dump(pick(&SWITCH, "dump", self.dump)?)
            .stats_at_exit(pick(&SWITCH, "stats", self.stats)?)
            .max_retries(self.max_retries)
            .max_threads(self.max_threads)
            .max_caches(self.max_caches)
            .segment(self.segment)
            .max_segment(self.max_segment)
            .reserve(self.reserve)
            .heap_max_alloc(self.heap_max_alloc)
            .wait_time(self.wait_time_ns)
            .heap_page_lifetime(self.heap_page_lifetime)
            .slot_shift(self.slot_shift)
            .fail_above(self.fail_above)
            .fail_nth(self.fail_nth)
            .fail_every(self.fail_every)
            .fail_seed(self.fail_seed)
            .fail_rate(self.fail_rate)
            .board(self.board)
            .survey(pick(&SWITCH, "survey", self.survey)?)
            .huge_page_size(self.huge_page_size)
            .numa(pick(&self.numas(), "numa", self.numa)?)
            .lock_process(pick(&SWITCH, "process", self.process)?)
            .strict(pick(&SWITCH, "strict", self.strict)?)
            .check_sizes(pick(&SWITCH, "check_sizes", self.check_sizes)?)
            .wait_limit(self.wait_limit_ns)
            .verdict_interval(self.verdict_interval_ns)
            .watermark(self.watermark)
            .watermark_signal(self.watermark_signal)
            .watermark_fd(self.watermark_fd);
        pick(&SWITCH, "use_environment", self.use_environment)?;
        let reserved = c_int::try_from(self.reserved).unwrap_or(c_int::MAX);
        pick(&[()], "reserved", reserved)?;
        Ok(config)
    }

    /// The policies by number.
    fn numas(&self) -> [Numa; 4] {
        [Numa::Off, Numa::Local, Numa::Interleave, Numa::Bind(self.numa_nodes)]
    }
}

/// The bytes of a text in a struct up to its zero, or all.
fn text<const N: usize>(chars: &[c_char; N]) -> &[u8] {
    // SAFETY: chars are bytes.
    let bytes = unsafe { &*core::ptr::from_ref(chars).cast::<[u8; N]>() };
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// A text with its final zero.
fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    for (to, from) in chars.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from as c_char;
    }
    chars
}

/// The caller's struct, however large it is there.
///
/// # Safety
/// `config` is null, or points to as many bytes as its first field says.
pub(crate) unsafe fn read(config: *const MempoolConfig) -> Result<MempoolConfig, c_int> {
    if config.is_null() {
        return Err(fail(ARGUMENT, "the configuration is NULL"));
    }
    // SAFETY: contract.
    let size = unsafe { (*config).struct_size };
    // A size beyond any sense is no size, and nothing behind the first fields is looked at.
    if !(SIZE..=1 << 16).contains(&size) {
        let what = "set by mempool_config_defaults";
        return Err(fail(STRUCT_SIZE, format_args!("struct_size is {size} bytes, not {SIZE}; it is {what}")));
    }
    // SAFETY: contract: there are `size` bytes, at least as many as ours.
    let (known, more) = unsafe { (*config, core::slice::from_raw_parts(config.cast::<u8>().add(SIZE), size - SIZE)) };
    if more.iter().any(|&byte| byte != 0) {
        return Err(fail(
            STRUCT_SIZE,
            format_args!("struct_size is {size} bytes, and something is set behind the {SIZE} that this library knows"),
        ));
    }
    Ok(known)
}

/// The configuration of a struct.
pub(crate) fn config_of(known: &MempoolConfig) -> Result<Config, c_int> {
    let mut config = known.config().map_err(|Stray(field, value, count)| {
        fail(VALUE, format_args!("{field} is {value}, but must be from 0 to {}", count - 1))
    })?;
    let named = config.apply(b"name", text(&known.name));
    let named = named.and_then(|()| config.apply(b"critical", text(&known.critical)));
    named.map_err(|error| fail_init(&InitError::Config(error)))?;
    Ok(config)
}

/// See the header.
///
/// # Safety
/// `config` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_config_defaults_impl(config: *mut MempoolConfig, size: usize) -> c_int {
    if config.is_null() {
        return fail(ARGUMENT, "the configuration is NULL");
    }
    if !(SIZE..=1 << 16).contains(&size) {
        return fail(STRUCT_SIZE, format_args!("a configuration of {size} bytes; this library's has {SIZE}"));
    }
    let ours = MempoolConfig { struct_size: size, ..MempoolConfig::of(Config::process().values(), 0) };
    // SAFETY: contract; what is behind our fields becomes zero, the default of whatever they are.
    unsafe {
        config.cast::<MaybeUninit<u8>>().write_bytes(0, size);
        config.write(ours);
    }
    OK
}

/// See the header.
///
/// # Safety
/// `config` is null or a struct that says its size; `name` and `value` are null or end in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_config_set(
    config: *mut MempoolConfig,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    if name.is_null() || value.is_null() {
        return fail(ARGUMENT, "the name or the value of a setting is NULL");
    }
    // SAFETY: contract.
    let (name, value) = unsafe { (CStr::from_ptr(name).to_bytes(), CStr::from_ptr(value).to_bytes()) };
    // SAFETY: contract.
    let known = match unsafe { read(config) } {
        Ok(known) => known,
        Err(code) => return code,
    };
    match changed(&known, name, value) {
        Ok(new) => {
            // SAFETY: `read` has found a struct at least as large as ours.
            unsafe { config.write(MempoolConfig { struct_size: known.struct_size, ..new }) };
            OK
        }
        Err(code) => code,
    }
}

/// `known` with one setting changed.
fn changed(known: &MempoolConfig, name: &[u8], value: &[u8]) -> Result<MempoolConfig, c_int> {
    let refused = |error: ConfigError| fail_init(&InitError::Config(error));
    let mut config = config_of(known)?;
    config.apply(name, value).map_err(refused)?;
    // A name that is no good, the new one or that of the struct, would be lost in the struct: say so now.
    let is_name = Setting::find(name).is_some_and(|setting| setting.name == "name");
    let mut alone = Config::process();
    let named = alone.apply(b"name", if is_name { value } else { text(&known.name) });
    named.and_then(|()| alone.validate()).map_err(refused)?;
    Ok(MempoolConfig::of(config.values(), known.use_environment))
}

/// See the header.
///
/// # Safety
/// `config` is null or a struct that says its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_config_check(config: *const MempoolConfig) -> c_int {
    // SAFETY: contract.
    let config = unsafe { read(config) }.and_then(|known| config_of(&known));
    match config.map(|config| config.validate()) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => fail_init(&InitError::Config(error)),
        Err(code) => code,
    }
}

// The size comes first in every version.
const _: () = assert!(offset_of!(MempoolConfig, struct_size) == 0);

#[cfg(test)]
mod tests {
    use super::*;
    use mempool::config::SETTINGS;

    #[test]
    fn every_setting_survives_the_struct() {
        for setting in SETTINGS {
            let base = MempoolConfig::of(Config::process().values(), 0);
            for value in ["1", "off", "null", "lazy", "17", "300M", "5ms", "12", "heap", "required", "local", "0-3,5"] {
                let mut wanted = Config::process();
                let named = setting.env.as_bytes();
                if wanted.apply(named, value.as_bytes()).is_err() {
                    assert!(changed(&base, named, value.as_bytes()).is_err());
                    continue;
                }
                let Ok(new) = changed(&base, named, value.as_bytes()) else { panic!("{named:?}={value}") };
                assert_eq!(config_of(&new), Ok(wanted), "{}={value}", setting.name);
            }
        }
        assert_eq!(config_of(&MempoolConfig::of(Config::process().values(), 0)), Ok(Config::process()));
    }

    #[test]
    fn a_struct_with_a_name_that_is_no_good_is_not_mended() {
        let mut base = MempoolConfig::of(Config::process().values(), 0);
        for letter in [b'x', b'$', 200] {
            base.name = [letter as c_char; POOL_NAME];
            assert_eq!(changed(&base, b"segment", b"1M").err(), Some(3), "{letter}");
        }
        let new = changed(&base, b"name", b"good").ok().unwrap();
        assert_eq!(config_of(&new).unwrap().values().name.as_str(), "good");
        let unterminated = changed(&base, b"name", b"x".repeat(32).as_slice()).err();
        // SAFETY: a string of this thread.
        let said = unsafe { CStr::from_ptr(crate::mempool_last_error()) }.to_str().unwrap();
        assert!(unterminated == Some(3) && said.contains(&std::format!("\"{}...\"", "x".repeat(31))), "{said}");
    }

    #[test]
    fn the_name_is_printable_text() {
        let base = MempoolConfig::of(Config::process().values(), 0);
        for bad in ["", "a$b", "x".repeat(32).as_str()] {
            assert_eq!(changed(&base, b"name", bad.as_bytes()).err(), Some(3), "{bad:?}");
        }
        let full = "x".repeat(31);
        let new = changed(&base, b"MEMPOOL_NAME", full.as_bytes()).ok().unwrap();
        assert_eq!(config_of(&new).unwrap().values().name.as_str(), full);
    }
}
