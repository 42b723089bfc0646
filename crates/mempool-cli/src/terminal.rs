//! What a terminal understands besides text.

use std::ffi::OsStr;
use std::io::IsTerminal;

/// Whether `out` is a terminal on which a line can be written again.
pub fn has_control(out: &impl IsTerminal) -> bool {
    out.is_terminal() && understands(std::env::var_os("TERM").as_deref())
}

/// Whether `out` is a terminal that has colours, and may use them.
pub fn has_colours(out: &impl IsTerminal) -> bool {
    has_control(out) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn understands(kind: Option<&OsStr>) -> bool {
    kind.is_some_and(|kind| kind != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dumb_or_unknown_gets_text_alone() {
        assert!(understands(Some("xterm-256color".as_ref())) && understands(Some("linux".as_ref())));
        assert!(!understands(Some("dumb".as_ref())) && !understands(None));
    }
}
