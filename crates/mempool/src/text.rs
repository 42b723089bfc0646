//! Text on the stack: what messages are composed in when nothing may be allocated.

use core::fmt;

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

    /// As a line and a terminal take it: what isn't printable ASCII as `\n`, `\x1b` and so on. For names that a program chose.
    pub(crate) fn escaped(&self) -> core::slice::EscapeAscii<'_> {
        self.as_bytes().escape_ascii()
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
}
