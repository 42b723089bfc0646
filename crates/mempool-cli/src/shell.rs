//! Commands as text that can be pasted into a shell: each word arrives as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use mempool::config::SETTINGS;

use crate::watch::Subject;

/// `word` as a shell reads it back: as it is where nothing in it is special, else in quotes.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:,+@%=".contains(byte);
    match word.to_str() {
        // An `=` in front means a path to some shells.
        Some(text) if !text.is_empty() && !text.starts_with('=') && text.bytes().all(|byte| is_plain(&byte)) => {
            text.into()
        }
        Some(text) if text.chars().all(|c| c == '\n' || !c.is_control()) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        // What a terminal would not show, or text cannot hold: by number.
        _ => format!("$'{}'", word.as_bytes().iter().map(|byte| numbered(*byte)).collect::<String>()),
    }
}

fn numbered(byte: u8) -> String {
    match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).into(),
        _ => format!("\\{byte:03o}"),
    }
}

/// Words with blanks between.
pub fn line<'a>(words: impl IntoIterator<Item = &'a OsString>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The `mempool run` that does what a run of `subject` under `settings` (variables and values) did, output apart.
pub fn run(settings: &[(&str, String)], subject: &Subject) -> String {
    let mut text = String::from("mempool run");
    for (at, (variable, value)) in settings.iter().enumerate() {
        // Of several with the same name the last counts.
        let is_last = !settings.iter().skip(at + 1).any(|(later, _)| later == variable);
        let known = SETTINGS.iter().find(|setting| is_last && setting.env == *variable);
        text.extend(known.map(|setting| {
            let between = if setting.switch { "=" } else { " " };
            format!(" {}{between}{}", setting.flag, quoted(value))
        }));
    }
    text += &format!(" -- {}", line(std::iter::once(&subject.program).chain(&subject.arguments)));
    text.extend(subject.input.iter().map(|path| format!(" < {}", quoted(path))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    fn words() -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["", "a b", "it's", "$HOME `id` \"x\" \\", "*?[a]~#!;&|<>(){}", "two\nlines", "ä"]
                .map(OsString::from)
                .into();
        words.extend(["--flag=value", "=ls", "a\tb\x1b[1m'\\", "-"].map(OsString::from));
        words.push(OsString::from_vec(vec![b'x', 0xff, b'1', b'\'']));
        words
    }

    #[test]
    fn a_shell_reads_each_word_back() {
        let words = words();
        let script = format!("printf '%s\\0' {}", line(&words));
        let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
        let back: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
        let wanted: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).chain([&b""[..]]).collect();
        assert_eq!(back, wanted, "{script}");
        assert!(!script.chars().any(|c| c.is_control() && c != '\n'), "{script:?}");
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        for plain in ["ls", "/usr/bin/python3", "--flag=value", "a,b:c@d%e+f_g-h.1"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!((quoted("a b").as_str(), quoted("it's").as_str()), ("'a b'", r"'it'\''s'"));
    }

    #[test]
    fn a_command_has_settings_arguments_and_input() {
        let subject = Subject {
            program: "sh".into(),
            arguments: vec!["-c".into(), "exit 3".into()],
            input: Some("a file".into()),
            timeout: std::time::Duration::ZERO,
        };
        let settings = [
            ("MEMPOOL_SEGMENT", "1M"),
            ("MEMPOOL_STATS", "on"),
            ("MEMPOOL_NAME", "my pool"),
            ("MEMPOOL_SEGMENT", "12M"),
        ]
        .map(|(variable, value)| (variable, value.to_owned()));
        assert_eq!(
            run(&settings, &subject),
            "mempool run --stats=on --name 'my pool' --segment 12M -- sh -c 'exit 3' < 'a file'"
        );
    }
}
