//! Byte counts as people write and read them.
//!
//! *Written:* whole numbers with an optional unit. `K`, `M`, `G`, `T` and `KiB`, `MiB`, `GiB`, `TiB`, in
//! either case, are powers of 1024; no unit, or `B`, means bytes. `KB`, `MB`, `GB` and `TB` are refused:
//! half of the world reads them as powers of 1000, and a segment that is 7% smaller than its owner thinks
//! is an error that shows only when memory runs out. Fractions, signs and blanks are refused too.
//!
//! *Read:* [`Bytes`] prints `512 MiB`, `1.5 GiB` or `4097 bytes`, always exactly; with `{:#}` it prints one
//! decimal in the largest unit, behind a `~` when that rounds. [`Compact`] prints `512M`, which
//! [`parse_bytes`] reads back to the same number.

use core::fmt;

/// Units above the byte, largest first: log2 of the bytes, letter.
const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];

/// What [`parse_bytes`] accepts, as part of a sentence.
pub const ACCEPTED: &str = "a whole number of bytes, alone or with K, M, G, T (KiB, MiB, GiB, TiB): powers of 1024";

/// Why a text is no byte count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseBytesError {
    /// Nothing was given.
    Empty,
    /// The text begins with a sign.
    Sign,
    /// The number has a fraction or an exponent.
    Fraction,
    /// The text does not begin with a digit.
    NotANumber,
    /// `KB`, `MB`, `GB` or `TB`: powers of 1000 for some, of 1024 for others.
    Ambiguous,
    /// What follows the digits is no unit.
    Unit,
    /// More bytes than an address can count.
    Overflow,
}

impl fmt::Display for ParseBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the size is empty",
            Self::Sign => "a size has no sign",
            Self::Fraction => "a size has no fraction; use a smaller unit",
            Self::NotANumber => "a size begins with a digit",
            Self::Ambiguous => "KB, MB, GB and TB mean 1000 to some and 1024 to others; write K or KiB, M or MiB, ...",
            Self::Unit => "unknown unit; use K, M, G, T or KiB, MiB, GiB, TiB",
            Self::Overflow => "more bytes than an address can count",
        })
    }
}

impl core::error::Error for ParseBytesError {}

/// Splits `text` behind its leading decimal digits.
pub(crate) const fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let (mut digits, mut rest) = (0, text);
    while let [b'0'..=b'9', tail @ ..] = rest {
        digits += 1;
        rest = tail;
    }
    match text.split_at_checked(digits) {
        Some(parts) => parts,
        None => (text, b""),
    }
}

/// The value of decimal `digits`; `None` if it does not fit.
pub(crate) const fn digits_value(mut digits: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    while let [digit, rest @ ..] = digits {
        value = match value.checked_mul(10) {
            Some(tens) => match tens.checked_add((*digit - b'0') as u64) {
                Some(sum) => sum,
                None => return None,
            },
            None => return None,
        };
        digits = rest;
    }
    Some(value)
}

/// log2 of the bytes in the unit called `unit`.
const fn unit_shift(unit: &[u8]) -> Result<u32, ParseBytesError> {
    let (letter, tail) = match unit {
        [] => return Ok(0),
        [letter, tail @ ..] => (letter.to_ascii_uppercase(), tail),
    };
    let shift = match letter {
        b'B' if tail.is_empty() => return Ok(0),
        b'.' | b',' => return Err(ParseBytesError::Fraction),
        // An exponent; alone it would be the unit beyond those that there are.
        b'e' | b'E' if matches!(tail, [b'0'..=b'9' | b'+' | b'-', ..]) => return Err(ParseBytesError::Fraction),
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => return Err(ParseBytesError::Unit),
    };
    match tail {
        [] | [b'i' | b'I', b'b' | b'B'] => Ok(shift),
        [b'b' | b'B'] => Err(ParseBytesError::Ambiguous),
        _ => Err(ParseBytesError::Unit),
    }
}

/// Reads a byte count: `4096`, `512M`, `2GiB`.
///
/// # Errors
///
/// A [`ParseBytesError`] for everything else; nothing is rounded, trimmed or guessed.
pub const fn parse_bytes(text: &str) -> Result<usize, ParseBytesError> {
    parse_bytes_ascii(text.as_bytes())
}

/// [`parse_bytes`] for text that may not be UTF-8, such as the value of an environment variable.
///
/// # Errors
///
/// As [`parse_bytes`].
pub const fn parse_bytes_ascii(text: &[u8]) -> Result<usize, ParseBytesError> {
    let (digits, unit) = split_digits(text);
    match text {
        [] => return Err(ParseBytesError::Empty),
        [b'+' | b'-', ..] => return Err(ParseBytesError::Sign),
        _ if digits.is_empty() => return Err(ParseBytesError::NotANumber),
        _ => {}
    }
    let shift = match unit_shift(unit) {
        Ok(shift) => shift,
        Err(error) => return Err(error),
    };
    match digits_value(digits) {
        Some(value) if value <= (usize::MAX >> shift) as u64 => Ok((value as usize) << shift),
        _ => Err(ParseBytesError::Overflow),
    }
}

/// A byte count for people: `{}` is exact, `{:#}` has one decimal in the largest unit.
///
/// ```
/// use mempool::bytes::Bytes;
/// assert_eq!(std::format!("{}", Bytes(512 << 20)), "512 MiB");
/// assert_eq!(std::format!("{} or {:#}", Bytes((1 << 30) + 1024), Bytes((1 << 30) + 1024)), "1048577 KiB or ~1.0 GiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl Bytes {
    /// Whole tenths of the unit `1 << shift`, rounded, and whether they are exact.
    const fn tenths(self, shift: u32) -> (u128, bool) {
        let scaled = self.0 as u128 * 10;
        let unit = 1u128 << shift;
        ((scaled + unit / 2) >> shift, scaled.is_multiple_of(unit))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, letter) in UNITS {
            let (tenths, exact) = self.tenths(shift);
            if self.0 >> shift == 0 || !(exact || f.alternate()) {
                continue;
            }
            // Below 2^54 + 1, since the smallest unit is 2^10 bytes.
            let (whole, tenth) = ((tenths / 10) as u64, (tenths % 10) as u8);
            return match (exact, tenth) {
                (true, 0) => write!(f, "{whole} {letter}iB"),
                (true, _) => write!(f, "{whole}.{tenth} {letter}iB"),
                (false, _) => write!(f, "~{whole}.{tenth} {letter}iB"),
            };
        }
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// A byte count as settings are written, `512M` or `4097`: exact, and [`parse_bytes`] reads it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact(pub usize);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match UNITS.iter().find(|(shift, _)| bytes >> shift << shift == bytes && bytes != 0) {
            Some((shift, letter)) => write!(f, "{}{letter}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::ParseBytesError as E;
    use super::*;
    use std::format;
    use std::string::ToString;

    #[test]
    fn reads_what_it_promises() {
        for (text, value) in [
            ("0", 0),
            ("1", 1),
            ("007", 7),
            ("4096", 4096),
            ("17B", 17),
            ("1K", 1 << 10),
            ("1k", 1 << 10),
            ("1kib", 1 << 10),
            ("64KiB", 64 << 10),
            ("512M", 512 << 20),
            ("3MIB", 3 << 20),
            ("2G", 2 << 30),
            ("2GiB", 2 << 30),
            ("5t", 5 << 40),
            ("5TiB", 5 << 40),
            ("18446744073709551615", usize::MAX),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn refuses_all_else_and_says_why() {
        for (text, error) in [
            ("", E::Empty),
            ("-1", E::Sign),
            ("+1M", E::Sign),
            (" 1", E::NotANumber),
            ("M", E::NotANumber),
            ("many", E::NotANumber),
            ("1.5G", E::Fraction),
            ("1,5G", E::Fraction),
            ("1e9", E::Fraction),
            ("1E-3", E::Fraction),
            ("16E", E::Unit),
            ("16EiB", E::Unit),
            ("1KB", E::Ambiguous),
            ("512MB", E::Ambiguous),
            ("2gb", E::Ambiguous),
            ("2Tb", E::Ambiguous),
            ("1 M", E::Unit),
            ("1M ", E::Unit),
            ("1P", E::Unit),
            ("1Ki", E::Unit),
            ("1KiBs", E::Unit),
            ("1MM", E::Unit),
            ("1BB", E::Unit),
            ("0x10", E::Unit),
            ("18446744073709551616", E::Overflow),
            ("99999999999999999999999", E::Overflow),
            ("16777216T", E::Overflow),
            ("17179869184G", E::Overflow),
        ] {
            assert_eq!(parse_bytes(text), Err(error), "{text:?}");
        }
        assert!(E::Ambiguous.to_string().contains("KiB"), "the message names the accepted form");
        assert_eq!(parse_bytes_ascii(b"\xff"), Err(E::NotANumber));
        assert_eq!(parse_bytes_ascii(b"1\xff"), Err(E::Unit));
    }

    #[test]
    fn prints_for_people() {
        for (bytes, exact, human) in [
            (0, "0 bytes", "0 bytes"),
            (1, "1 byte", "1 byte"),
            (1023, "1023 bytes", "1023 bytes"),
            (1024, "1 KiB", "1 KiB"),
            (1025, "1025 bytes", "~1.0 KiB"),
            (1536, "1.5 KiB", "1.5 KiB"),
            (512 << 20, "512 MiB", "512 MiB"),
            (513 << 10, "513 KiB", "513 KiB"),
            (5000 << 10, "5000 KiB", "~4.9 MiB"),
            ((1 << 30) + (1 << 29), "1.5 GiB", "1.5 GiB"),
            (usize::MAX, "18446744073709551615 bytes", "~16777216.0 TiB"),
        ] {
            assert_eq!(format!("{}", Bytes(bytes)), exact);
            assert_eq!(format!("{:#}", Bytes(bytes)), human);
        }
    }

    /// Numbers from a splitmix sequence, spread over all magnitudes.
    fn numbers() -> impl Iterator<Item = usize> {
        (1..200_000u64).map(|i| {
            let mut z = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let kept = z >> (i % 64);
            (kept << (z % 41)) as usize
        })
    }

    #[test]
    fn compact_text_reads_back_to_the_same_number() {
        for bytes in numbers().chain([0, 1, 1024, usize::MAX]) {
            let text = Compact(bytes).to_string();
            assert_eq!(parse_bytes(&text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn exact_text_states_the_number_exactly() {
        for bytes in numbers() {
            let text = Bytes(bytes).to_string();
            let (number, unit) = text.split_once(' ').expect("number and unit");
            let shift = UNITS.iter().find(|(_, letter)| unit.starts_with(*letter)).map_or(0, |(shift, _)| *shift);
            let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
            let tenths = whole.parse::<u128>().expect("digits") * 10 + tenth.parse::<u128>().expect("digit");
            assert_eq!(tenths << shift, bytes as u128 * 10, "{text}");
        }
    }
}
