//! What can be wrong with a configuration. Each error carries copies, since the text it came from may be gone.

use core::fmt;

use super::{Bytes, PREFIX, SETTINGS, Setting};
use crate::bytes::ParseBytesError;
use crate::text::Text;

/// A name or value as it was given: control characters escaped, cut where it is long.
pub type Short = Text<36>;

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is no size.
    Bytes(ParseBytesError),
    /// It is no whole number, or too large a one.
    Number,
    /// It is no length of time.
    Duration,
    /// It is none of the words that the setting knows.
    Choice,
}

/// How a figure is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit(u8);

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No setting has this name.
    Unknown {
        /// The name.
        name: Short,
        /// A setting with a name much like it.
        nearest: Option<&'static Setting>,
    },
    /// The text is no value of this setting.
    Value {
        /// The name, as it was given.
        name: Short,
        /// The text.
        given: Short,
        /// The setting that it names.
        setting: &'static Setting,
        /// What is wrong.
        why: Unreadable,
    },
    /// A value is too small or too large.
    Range {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
        /// What they count.
        unit: Unit,
    },
    /// The pool's name is empty, too long, or has a character that the kernel refuses.
    Name {
        /// The name, or its first bytes.
        given: Short,
    },
    /// Two settings contradict each other.
    Conflict {
        /// The rule that is broken; it names both.
        rule: &'static str,
        /// The value of the first that the rule names, in bytes.
        value: usize,
        /// The value that limits it, in bytes; the same number where the rule is not about sizes.
        limit: usize,
    },
}

impl ConfigError {
    pub(super) const BYTES: Unit = Unit(0);
    pub(super) const COUNT: Unit = Unit(1);
    pub(super) const TIME: Unit = Unit(2);

    #[cold]
    pub(super) fn unknown(name: &[u8]) -> Self {
        Self::Unknown { name: Short::of(name.escape_ascii()), nearest: nearest(name) }
    }

    #[cold]
    pub(super) fn value(name: &[u8], value: &[u8], setting: &'static Setting, why: Unreadable) -> Self {
        Self::Value { name: Short::of(name.escape_ascii()), given: Short::of(value.escape_ascii()), setting, why }
    }

    pub(super) fn check(name: &'static str, value: u64, least: u64, most: u64, unit: Unit) -> Result<(), Self> {
        if (least..=most).contains(&value) { Ok(()) } else { Err(Self::Range { name, value, least, most, unit }) }
    }
}

/// A figure and what it counts.
struct Figure(u64, Unit);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            ConfigError::BYTES => Bytes(usize::try_from(self.0).unwrap_or(usize::MAX)).fmt(f),
            ConfigError::TIME => super::read::Duration(self.0).fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: Some(near) } => {
                write!(f, "unknown setting {name}; did you mean {}?", near.like(name.as_bytes()))
            }
            Self::Unknown { name, nearest: None } => {
                write!(f, "unknown setting {name}; docs/CONFIGURATION.md lists them all")
            }
            Self::Value { name, given, setting, why } => {
                write!(f, "{name}={given}: ")?;
                if let Unreadable::Bytes(error) = why {
                    write!(f, "{error}; ")?;
                }
                write!(f, "accepted: {}", setting.values)
            }
            Self::Range { name, value, least, most, unit } => {
                let (value, least, most) = (Figure(*value, *unit), Figure(*least, *unit), Figure(*most, *unit));
                write!(f, "{name} is {value}, but must be from {least} to {most}{}", Origin(name))
            }
            Self::Name { given } => write!(
                f,
                "name is \"{given}\", but must be 1 to 31 bytes of printable ASCII without \\ ` $ [ ]{}",
                Origin("name")
            ),
            Self::Conflict { rule, value, limit } if value == limit => f.write_str(rule),
            Self::Conflict { rule, value, limit } => write!(f, "{rule}: {} against {}", Bytes(*value), Bytes(*limit)),
        }
    }
}

impl core::error::Error for ConfigError {}

/// Where a setting can be changed, in brackets.
struct Origin(&'static str);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SETTINGS.iter().find(|setting| setting.name == self.0) {
            Some(setting) => write!(f, " (set by {} or {})", setting.env, setting.flag),
            None => Ok(()),
        }
    }
}

/// Names longer than this have no near ones.
const LONGEST: usize = 40;

/// The setting whose name differs least from `name`, if that is little: one edit for every three letters.
fn nearest(name: &[u8]) -> Option<&'static Setting> {
    let name = name.strip_prefix(PREFIX.as_bytes()).or(name.strip_prefix(b"--")).unwrap_or(name);
    let close = |setting: &&'static Setting| Some((edits(name, setting.name.as_bytes())?, *setting));
    let settings = SETTINGS.iter().filter(|setting| !setting.hidden);
    let (edits, setting) = settings.filter_map(|setting| close(&setting)).min_by_key(|(edits, _)| *edits)?;
    (edits <= (setting.name.len() / 3).max(1)).then_some(setting)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` of `b`, where case, `-` and `_`
/// don't count; `None` for long names.
fn edits(a: &[u8], b: &[u8]) -> Option<usize> {
    if a.len() > LONGEST || b.len() > LONGEST {
        return None;
    }
    let at = |text: &[u8], place: usize| match text.get(place.wrapping_sub(1)) {
        Some(b'-') => b'_',
        Some(byte) => byte.to_ascii_lowercase(),
        None => 0,
    };
    let get = |row: &[usize; LONGEST + 1], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
    let mut before = [0usize; LONGEST + 1];
    let mut above: [usize; LONGEST + 1] = core::array::from_fn(|place| place);
    for i in 1..=a.len() {
        let mut row = [i; LONGEST + 1];
        for j in 1..=b.len() {
            let differs = usize::from(at(a, i) != at(b, j));
            let mut least = (get(&above, j - 1) + differs).min(get(&above, j) + 1).min(get(&row, j - 1) + 1);
            if i > 1 && j > 1 && at(a, i) == at(b, j - 1) && at(a, i - 1) == at(b, j) {
                least = least.min(get(&before, j - 2) + 1);
            }
            if let Some(cell) = row.get_mut(j) {
                *cell = least;
            }
        }
        (before, above) = (above, row);
    }
    Some(get(&above, b.len()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn edits_count_what_a_typist_does() {
        for (a, b, count) in [
            ("segment", "segment", 0),
            ("SEGMENT", "segment", 0),
            ("max-segment", "max_segment", 0),
            ("segmnet", "segment", 1),
            ("segmen", "segment", 1),
            ("segmentt", "segment", 1),
            ("sagment", "segment", 1),
            ("", "lock", 4),
            ("lock", "", 4),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), Some(count), "{a} {b}");
        }
        assert_eq!(edits(&[b'x'; 41], b"x"), None);
    }

    #[test]
    fn every_setting_is_its_own_nearest_with_one_letter_lost() {
        for setting in SETTINGS.iter().filter(|setting| setting.name.len() > 3 && !setting.hidden) {
            for lost in 0..setting.name.len() {
                let mut name: std::vec::Vec<u8> = setting.name.bytes().collect();
                name.remove(lost);
                assert_eq!(nearest(&name).map(|near| near.name), Some(setting.name));
            }
        }
    }
}
