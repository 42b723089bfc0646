//! Errors: what went wrong, with the value, the limit and the unit, and what to do next.
//!
//! Nothing here allocates, since an error is what is left when memory is not. Messages that end the
//! process are composed in a [`Text`] on the stack and written with one `write(2)`.
//!
//! [`InitError::code`] numbers are stable: they are part of the C interface, never reused, never renumbered.

use core::fmt;

use crate::bytes::Bytes;
use crate::config::ConfigError;
use crate::os::OsError;

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
}

// An error travels through `Result`s on init paths; a large one would make each of them large.
const _: () = assert!(size_of::<InitError>() <= 128);

/// Every code with its message in general words, for an interface that has the number alone.
const CODES: [(i32, &str); 12] = [
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
            Self::TooSmall { .. } => 6,
            Self::AlreadyInitialised => 7,
            Self::NotInitialised => 8,
            Self::LockLimit { .. } => 9,
            Self::Misaligned { .. } => 10,
            Self::Busy => 11,
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
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Os { error, .. } => error.hint(),
            Self::LockLimit { .. } => {
                "raise it (ulimit -l, LimitMEMLOCK=, memlock in limits.conf), grant CAP_IPC_LOCK, or set lock=try"
            }
            Self::TooSmall { .. } => "ask for a larger segment, fewer threads or fewer caches",
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
                write!(f, "cannot lock {need}: the lock limit is {soft}, and this process may raise it to {hard}")?;
            }
            Self::Misaligned { address, align } => {
                write!(f, "the buffer at {address:#x} does not begin at a multiple of {}", Bytes(*align))?;
            }
            Self::AlreadyInitialised | Self::NotInitialised | Self::Busy => f.write_str(Self::text_of(self.code()))?,
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
    /// No run that fits is left, after reclaiming and waiting.
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
                write!(f, "the pool is exhausted: no {} aligned to {align} are left", Bytes(*bytes))
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

/// Text of at most `N` bytes on the stack. What does not fit is cut at a character, and the text then ends
/// in `...`, so that nobody mistakes a part for the whole. Writing never fails.
///
/// Invariants: `len <= N <= 65,535`, the first `len` bytes are UTF-8, and after `cut` nothing is added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: u16,
    cut: bool,
}

/// What a cut text ends in.
const CUT: &[u8] = b"...";

impl<const N: usize> Text<N> {
    const FITS: () = assert!(N > CUT.len() && N <= u16::MAX as usize, "a Text holds 4 to 65,535 bytes");

    /// No text yet.
    #[must_use]
    pub const fn new() -> Self {
        let () = Self::FITS;
        Self { bytes: [0; N], len: 0, cut: false }
    }

    /// The text of `value`, cut if need be.
    #[must_use]
    pub fn of(value: impl fmt::Display) -> Self {
        let mut text = Self::new();
        // Cannot fail: `write_str` below never does, and a failing `Display` leaves what it wrote.
        let _ = fmt::write(&mut text, format_args!("{value}"));
        text
    }

    /// The text so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    /// The bytes of the text so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Whether something did not fit.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Ends the text with a line break, at the cost of its last character if there is no room, and gives the
    /// line, ready for `write(2)`.
    pub fn line(&mut self) -> &[u8] {
        let mut at = usize::from(self.len).min(N - 1);
        while at > 0 && !self.as_str().is_char_boundary(at) {
            at -= 1;
        }
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte = b'\n';
            self.len = (at + 1) as u16;
        }
        self.as_bytes()
    }

    /// Copies `part` to offset `at`; the caller has made room.
    fn put(&mut self, at: usize, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(at..at + part.len()) {
            room.copy_from_slice(part);
            self.len = (at + part.len()) as u16;
        }
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let len = usize::from(self.len);
        if part.len() <= N - len {
            self.put(len, part.as_bytes());
            return Ok(());
        }
        self.cut = true;
        let most = N - CUT.len();
        let keep = part.floor_char_boundary(most.saturating_sub(len));
        self.put(len, part.as_bytes().get(..keep).unwrap_or(&[]));
        let end = self.as_str().floor_char_boundary(most);
        self.put(end, CUT);
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn text_holds_what_fits_and_shows_that_it_was_cut() {
        let mut text = Text::<8>::new();
        ["abc", "defgh"].iter().for_each(|part| text.write_str(part).unwrap());
        assert_eq!((text.as_str(), text.is_cut()), ("abcdefgh", false));
        text.write_str("").unwrap();
        assert!(!text.is_cut());
        text.write_str("i").unwrap();
        assert_eq!((text.as_str(), text.is_cut()), ("abcde...", true));
        text.write_str("more").unwrap();
        assert_eq!(text.as_str(), "abcde...");
        assert_eq!(text.line(), b"abcde..\n");
    }

    #[test]
    fn text_never_splits_a_character() {
        for prefix in 0..12 {
            let whole: String = "x".repeat(prefix) + "\u{e9}\u{20ac}\u{1f980}\u{e9}";
            let mut pieces = Text::<12>::new();
            whole.chars().for_each(|c| pieces.write_char(c).unwrap());
            for mut text in [Text::<12>::of(&whole), pieces] {
                let kept = text.as_str().to_string();
                assert!(!kept.is_empty() && kept.len() <= 12);
                if text.is_cut() {
                    assert!(whole.starts_with(kept.strip_suffix("...").unwrap()), "{kept}");
                } else {
                    assert_eq!(kept, whole);
                }
                assert_eq!(text.line().last(), Some(&b'\n'));
                assert!(core::str::from_utf8(text.as_bytes()).is_ok());
            }
        }
        assert_eq!(Text::<5>::new().line(), b"\n");
    }

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
        assert_eq!(codes, (1..=11).collect::<Vec<_>>());
        for (place, (code, text)) in CODES.iter().enumerate() {
            assert_eq!((*code, InitError::text_of(*code)), (place as i32, *text));
        }
        assert_eq!(InitError::text_of(-1), "unknown error code");
        assert_eq!(InitError::text_of(12), "unknown error code");
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
        assert!(all[7].source().is_some());
        assert!(InitError::Busy.source().is_none());
    }

    #[test]
    fn allocation_errors_name_their_figures() {
        let text = |error: AllocError| error.to_string();
        assert_eq!(
            text(AllocError::Exhausted { bytes: 4096, align: 16 }),
            "the pool is exhausted: no 4 KiB aligned to 16 are left"
        );
        assert!(text(AllocError::TooLarge { bytes: usize::MAX, most: 1 << 20 }).contains("overflows"));
        assert!(text(AllocError::TooLarge { bytes: 2 << 20, most: 1 << 20 }).contains("2 MiB"));
        assert!(text(AllocError::Alignment { align: 3 }).contains('3'));
    }
}
