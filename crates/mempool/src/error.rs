//! Errors: what went wrong, with the value, the limit and the unit, and what to do next.
//!
//! Nothing here allocates, since an error is what is left when memory is not. Messages that end the
//! process are composed in a [`Text`](crate::text::Text) on the stack and written with one `write(2)`.
//!
//! [`InitError::code`] numbers are stable: they are part of the C interface, never reused, never renumbered.

use core::fmt;

use crate::bytes::Bytes;
use crate::config::ConfigError;
use crate::os::{Bound, OsError};

/// Why a pool could not be made, used or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// A setting is unknown, unreadable, out of range or in conflict with another.
    Config(ConfigError),
    /// The operating system refused something that the configuration requires.
    Os {
        /// What was attempted, such as "reserve 512 MiB of addresses" without the figure.
        what: &'static str,
        /// How many bytes it was attempted for; 0 where bytes play no part.
        bytes: usize,
        /// The call and its errno.
        error: OsError,
    },
    /// The segment, or the buffer that the caller gave, cannot hold metadata and one page.
    TooSmall {
        /// Bytes given.
        bytes: usize,
        /// Bytes that suffice.
        least: usize,
    },
    /// The process-wide pool exists already.
    AlreadyInitialised,
    /// There is no process-wide pool: never made, or ended.
    NotInitialised,
    /// Locking is `required`, and the lock limit is lower than what must be locked.
    LockLimit {
        /// Bytes to be locked.
        need: usize,
        /// RLIMIT_MEMLOCK now, in bytes; `usize::MAX` means no limit.
        soft: usize,
        /// How far the process may raise it by itself, in bytes; `usize::MAX` means no limit.
        hard: usize,
    },
    /// The buffer that the caller gave does not begin at a multiple of `align`.
    Misaligned {
        /// Its address.
        address: usize,
        /// The multiple asked for, in bytes.
        align: usize,
    },
    /// The process-wide pool is being made or ended by another thread, or by this one further up.
    Busy,
    /// The segment is to be made present, and there is not that much memory.
    Memory {
        /// Bytes to be made present.
        need: usize,
        /// Bytes that could be.
        available: usize,
        /// What bounds them.
        bound: Bound,
    },
    /// Huge OS pages that the administrator sets aside are required, and there are too few.
    HugePages {
        /// Bytes to be backed by them.
        need: usize,
        /// Bytes of each.
        size: usize,
        /// Bytes of those that are free.
        free: usize,
    },
    /// The calling thread is inside one of the pool's reclaim callbacks.
    InCallback,
    /// Huge OS pages are required, and no whole one surely lies in the segment's data.
    NoHugeRoom {
        /// Bytes of the segment.
        bytes: usize,
        /// Bytes of a huge OS page.
        size: usize,
        /// Bytes of a segment that has room for one; 0 where none was found.
        least: usize,
    },
}

// An error travels through `Result`s on init paths; a large one would make each of them large.
const _: () = assert!(size_of::<InitError>() <= 128);

/// Every code with its message in general words, for an interface that has the number alone.
const CODES: [(i32, &str); 15] = [
    (0, "success"),
    (1, "unknown setting"),
    (2, "the value of a setting cannot be read"),
    (3, "the value of a setting is out of range"),
    (4, "two settings contradict each other"),
    (5, "the operating system refused a request"),
    (6, "the segment is too small"),
    (7, "the pool is already initialised"),
    (8, "the pool is not initialised"),
    (9, "the lock limit (RLIMIT_MEMLOCK) is too low"),
    (10, "the buffer is not aligned"),
    (11, "the pool is being initialised or ended"),
    (12, "there is not enough memory to make the segment present"),
    (13, "there are not enough huge OS pages"),
    (14, "a reclaim callback cannot end the pool that called it"),
];

impl InitError {
    /// The stable number of this error, above 0. [`InitError::text_of`] turns it back into words.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Config(ConfigError::Unknown { .. }) => 1,
            Self::Config(ConfigError::Value { .. }) => 2,
            Self::Config(ConfigError::Range { .. } | ConfigError::Name { .. }) => 3,
            Self::Config(ConfigError::Conflict { .. }) => 4,
            Self::Os { .. } => 5,
            Self::TooSmall { .. } | Self::NoHugeRoom { .. } => 6,
            Self::AlreadyInitialised => 7,
            Self::NotInitialised => 8,
            Self::LockLimit { .. } => 9,
            Self::Misaligned { .. } => 10,
            Self::Busy => 11,
            Self::Memory { .. } => 12,
            Self::HugePages { .. } => 13,
            Self::InCallback => 14,
        }
    }

    /// The message of a [`code`](Self::code) in general words; 0 is "success". A number that no
    /// error has gives "unknown error code".
    #[must_use]
    pub fn text_of(code: i32) -> &'static str {
        CODES.iter().find(|(known, _)| *known == code).map_or("unknown error code", |(_, text)| text)
    }

    /// What the user can do about it; empty where nothing general can be said.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Os { error, .. } => error.hint(),
            Self::LockLimit { .. } => {
                "raise it (ulimit -l, memlock in /etc/security/limits.conf, LimitMEMLOCK= of systemd, --ulimit memlock of a container), grant CAP_IPC_LOCK (--cap-add IPC_LOCK), or do without (lock=try)"
            }
            Self::Memory { bound, .. } => match bound {
                Bound::Machine => "end other programs, add memory, ask for a smaller segment, or set commit=lazy",
                Bound::Cgroup1 => {
                    "raise memory.limit_in_bytes (MemoryLimit= of systemd, --memory of a container), ask for a smaller segment, or set commit=lazy"
                }
                Bound::Cgroup2 => {
                    "raise memory.max and memory.high (MemoryMax= and MemoryHigh= of systemd, --memory of a container), ask for a smaller segment, or set commit=lazy"
                }
            },
            Self::HugePages { .. } => {
                "set more aside: write their number to /sys/kernel/mm/hugepages/hugepages-*kB/nr_hugepages, or boot with hugepagesz= and hugepages=; or set huge_pages=try"
            }
            Self::TooSmall { .. } => "ask for a larger segment, fewer threads or fewer caches",
            Self::NoHugeRoom { .. } => "ask for a larger segment, or do without (huge_pages=try, or off with strict)",
            Self::InCallback => "end it when the request that the callback was called for has returned",
            _ => "",
        }
    }
}

/// A limit in bytes, where `usize::MAX` means that there is none.
struct Limit(usize);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == usize::MAX { f.write_str("unlimited") } else { Bytes(self.0).fmt(f) }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f)?,
            Self::Os { what, bytes: 0, error } => write!(f, "cannot {what}: {error}")?,
            Self::Os { what, bytes, error } => write!(f, "cannot {what} ({}): {error}", Bytes(*bytes))?,
            Self::TooSmall { bytes, least } => {
                write!(f, "{} are too small for a pool: at least {} are needed", Bytes(*bytes), Bytes(*least))?;
            }
            Self::LockLimit { need, soft, hard } => {
                let (need, soft, hard) = (Bytes(*need), Limit(*soft), Limit(*hard));
                write!(
                    f,
                    "cannot lock {need}: the lock limit, for all that the process locks, is {soft}, and it may raise that to {hard}"
                )?;
            }
            Self::Memory { need, available, bound } => {
                let of = match bound {
                    Bound::Machine => "the machine has",
                    Bound::Cgroup1 | Bound::Cgroup2 => "the limit of its memory cgroup leaves",
                };
                write!(f, "cannot make {} present: {of} {} available", Bytes(*need), Bytes(*available))?;
            }
            Self::HugePages { need, size, free } => {
                let (pages, free) = (need / (*size).max(1), free / (*size).max(1));
                write!(f, "cannot get {pages} huge OS pages of {}: {free} are free", Bytes(*size))?;
            }
            Self::NoHugeRoom { bytes, size, least } => {
                let (bytes, size) = (Bytes(*bytes), Bytes(*size));
                write!(f, "a segment of {bytes} has no room for a whole huge OS page of {size}")?;
                if *least > 0 {
                    write!(f, ": at least {} are needed", Bytes(*least))?;
                }
            }
            Self::Misaligned { address, align } => {
                write!(f, "the buffer at {address:#x} does not begin at a multiple of {}", Bytes(*align))?;
            }
            Self::AlreadyInitialised | Self::NotInitialised | Self::Busy | Self::InCallback => {
                f.write_str(Self::text_of(self.code()))?;
            }
        }
        match self.hint() {
            "" => Ok(()),
            hint => write!(f, "; {hint}"),
        }
    }
}

impl core::error::Error for InitError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Os { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for InitError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Why an allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No run that fits is left, after reclaiming and waiting, or the budget that the request is charged to is used up.
    Exhausted {
        /// Bytes asked for.
        bytes: usize,
        /// Their alignment.
        align: usize,
    },
    /// The request can never be served: more than the segment, or more than `isize::MAX`.
    TooLarge {
        /// Bytes asked for; `usize::MAX` where a product overflowed.
        bytes: usize,
        /// The most that this pool can serve, in bytes.
        most: usize,
    },
    /// The alignment is no power of two, or larger than the segment.
    Alignment {
        /// The alignment asked for.
        align: usize,
    },
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { bytes, align } => {
                write!(f, "the pool, or the budget, is exhausted: no {} aligned to {align} are left", Bytes(*bytes))
            }
            Self::TooLarge { bytes: usize::MAX, most } => {
                write!(f, "the request overflows; this pool serves at most {}", Bytes(*most))
            }
            Self::TooLarge { bytes, most } => {
                write!(f, "{} asked of a pool that serves at most {}", Bytes(*bytes), Bytes(*most))
            }
            Self::Alignment { align } => write!(f, "alignment {align} is no power of two within the segment"),
        }
    }
}

impl core::error::Error for AllocError {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn samples() -> Vec<InitError> {
        let os = OsError { call: "mmap", errno: 12 };
        let mut all = Vec::from([
            InitError::Os { what: "reserve the segment", bytes: 512 << 20, error: os },
            InitError::TooSmall { bytes: 4096, least: 256 << 10 },
            InitError::AlreadyInitialised,
            InitError::NotInitialised,
            InitError::LockLimit { need: 64 << 20, soft: 8 << 20, hard: usize::MAX },
            InitError::Misaligned { address: 0x1001, align: 4096 },
            InitError::Busy,
            InitError::Memory { need: 2 << 30, available: 300 << 20, bound: Bound::Cgroup2 },
            InitError::HugePages { need: 64 << 20, size: 2 << 20, free: 6 << 20 },
            InitError::InCallback,
            InitError::NoHugeRoom { bytes: 4 << 20, size: 2 << 20, least: 5 << 20 },
        ]);
        let base = crate::config::Config::new();
        let mut copy = base;
        all.push(copy.apply(b"MEMPOOL_SEGMNT", b"1").unwrap_err().into());
        all.push(copy.apply(b"MEMPOOL_SEGMENT", b"1MB").unwrap_err().into());
        all.push(base.segment(1).validate().unwrap_err().into());
        all.push(base.max_segment(1 << 40).validate().unwrap_err().into());
        all
    }

    #[test]
    fn codes_are_stable_and_have_words() {
        let mut codes: Vec<i32> = samples().iter().map(InitError::code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, (1..=14).collect::<Vec<_>>());
        for (place, (code, text)) in CODES.iter().enumerate() {
            assert_eq!((*code, InitError::text_of(*code)), (place as i32, *text));
        }
        assert_eq!(InitError::text_of(-1), "unknown error code");
        assert_eq!(InitError::text_of(15), "unknown error code");
    }

    #[test]
    fn messages_name_value_limit_unit_and_way_out() {
        let says = |error: InitError, parts: &[&str]| {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        };
        let all = samples();
        says(all[0], &["reserve the segment", "512 MiB", "mmap", "ENOMEM", "12"]);
        says(all[1], &["4 KiB", "256 KiB"]);
        says(all[4], &["64 MiB", "8 MiB", "unlimited", "ulimit -l", "CAP_IPC_LOCK"]);
        says(all[5], &["0x1001", "4 KiB"]);
        says(all[7], &["2 GiB", "300 MiB", "memory cgroup", "memory.max", "MemoryMax=", "commit=lazy"]);
        says(all[8], &["32 huge OS pages of 2 MiB", "3 are free", "nr_hugepages"]);
        says(all[10], &["4 MiB", "2 MiB", "at least 5 MiB", "larger segment", "huge_pages=try"]);
        let words = [Bound::Machine, Bound::Cgroup1, Bound::Cgroup2]
            .map(|bound| InitError::Memory { need: 2, available: 1, bound }.hint());
        assert!(words[0] != words[1] && words[1] != words[2]);
        let fork = InitError::Os {
            what: "register the fork handler",
            bytes: 0,
            error: OsError { call: "pthread_atfork", errno: 12 },
        };
        assert!(!fork.to_string().contains("0 bytes"));
        for error in all {
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn sources_lead_to_the_cause() {
        use core::error::Error;
        let all = samples();
        assert_eq!(all[0].source().map(ToString::to_string), Some(OsError { call: "mmap", errno: 12 }.to_string()));
        assert!(all[11].source().is_some());
        assert!(InitError::Busy.source().is_none());
    }

    #[test]
    fn allocation_errors_name_their_figures() {
        let text = |error: AllocError| error.to_string();
        assert_eq!(
            text(AllocError::Exhausted { bytes: 4096, align: 16 }),
            "the pool, or the budget, is exhausted: no 4 KiB aligned to 16 are left"
        );
        assert!(text(AllocError::TooLarge { bytes: usize::MAX, most: 1 << 20 }).contains("overflows"));
        assert!(text(AllocError::TooLarge { bytes: 2 << 20, most: 1 << 20 }).contains("2 MiB"));
        assert!(text(AllocError::Alignment { align: 3 }).contains('3'));
    }
}
