//! Reading and printing single values: times, numbers, words.

use core::fmt;

use super::{Numa, Unreadable};
use crate::bytes::{digits_value, parse_bytes_ascii, split_digits};

/// Units of time, largest first: name, nanoseconds.
const UNITS: [(&str, u64); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

/// Reads a length of time in nanoseconds: a whole number with `ns`, `us`, `ms` or `s`, or a plain `0`. A
/// number without a unit is refused, since seconds and milliseconds are both usual.
///
/// # Errors
///
/// The text is something else, or longer than 2^64 nanoseconds.
pub fn parse_duration(text: &[u8]) -> Result<u64, Unreadable> {
    let (digits, unit) = split_digits(text);
    if text == b"0" {
        return Ok(0);
    }
    let scale = UNITS.iter().find(|(name, _)| name.as_bytes() == unit).ok_or(Unreadable::Duration)?.1;
    if digits.is_empty() {
        return Err(Unreadable::Duration);
    }
    digits_value(digits).and_then(|value| value.checked_mul(scale)).ok_or(Unreadable::Duration)
}

/// Nanoseconds, printed in the largest unit that keeps them whole; [`parse_duration`] reads it back.
pub(super) struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale)) {
            Some((name, scale)) => write!(f, "{}{name}", self.0.checked_div(*scale).unwrap_or(0)),
            None => f.write_str("0"),
        }
    }
}

pub(super) fn bytes(text: &[u8]) -> Result<usize, Unreadable> {
    parse_bytes_ascii(text).map_err(Unreadable::Bytes)
}

pub(super) fn number(text: &[u8]) -> Result<u32, Unreadable> {
    match split_digits(text) {
        ([_, ..], []) => digits_value(text).and_then(|value| u32::try_from(value).ok()).ok_or(Unreadable::Number),
        _ => Err(Unreadable::Number),
    }
}

/// Names of threads with commas between: printable ASCII that fits.
pub(super) fn names(text: &[u8]) -> Result<super::ThreadNames, Unreadable> {
    let printable = text.iter().all(|byte| (0x20..0x7F).contains(byte));
    let names = core::str::from_utf8(text).ok().filter(|text| printable && text.len() < 64);
    names.map(super::ThreadNames::of).ok_or(Unreadable::Choice)
}

/// The value that `text` names, in any case, among `words`.
pub(super) fn choice<T: Copy>(text: &[u8], words: &[(&str, T)]) -> Result<T, Unreadable> {
    let found = words.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or(Unreadable::Choice)
}

/// The first word for `value`.
pub(super) fn word<T: Copy + PartialEq>(value: T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("?", |(word, _)| word)
}

/// Reads a NUMA policy: a word, or nodes from 0 to 63 as single numbers and ranges, separated by commas.
pub(super) fn nodes(text: &[u8]) -> Result<Numa, Unreadable> {
    let words = [("off", Numa::Off), ("local", Numa::Local), ("interleave", Numa::Interleave)];
    if let Ok(policy) = choice(text, &words) {
        return Ok(policy);
    }
    let node = |text: &[u8]| number(text).ok().filter(|node| *node < 64).ok_or(Unreadable::Choice);
    let mut all = 0u64;
    for part in text.split(|byte| *byte == b',') {
        let mut ends = part.splitn(2, |byte| *byte == b'-');
        let first = node(ends.next().unwrap_or(&[]))?;
        let last = ends.next().map_or(Ok(first), node)?;
        if first > last {
            return Err(Unreadable::Choice);
        }
        all |= (u64::MAX >> (63 - (last - first))) << first;
    }
    Ok(Numa::Bind(all))
}

/// A NUMA policy, printed so that [`nodes`] reads it back.
pub struct Nodes(pub Numa);

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = match self.0 {
            Numa::Off => return f.write_str("off"),
            Numa::Local => return f.write_str("local"),
            Numa::Interleave => return f.write_str("interleave"),
            Numa::Bind(nodes) => nodes,
        };
        let mut separator = "";
        while left != 0 {
            let first = left.trailing_zeros();
            let length = (left >> first).trailing_ones();
            write!(f, "{separator}{first}")?;
            if length > 1 {
                write!(f, "-{}", first + length - 1)?;
            }
            left &= !((u64::MAX >> (64 - length)) << first);
            separator = ",";
        }
        Ok(())
    }
}
