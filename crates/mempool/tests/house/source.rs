//! Just enough of Rust's lexical structure: code without its comments and literals, and where functions are.

/// `text` with comments, strings and characters replaced by spaces; line breaks stay.
pub fn code_of(text: &str) -> String {
    let source: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < source.len() {
        let end = at + skipped(&source[at..], code.chars().next_back());
        if end == at {
            code.push(source[at]);
            at += 1;
        } else {
            code.extend(source[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Length of the comment or literal that `rest` begins with, 0 if it begins with neither.
fn skipped(rest: &[char], before: Option<char>) -> usize {
    let word_before = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest {
        ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => string(rest, 1),
        ['b' | 'c', '"', ..] if !word_before => string(rest, 2),
        ['r', ..] if !word_before => raw_string(rest, 1),
        ['b' | 'c', 'r', ..] if !word_before => raw_string(rest, 2),
        ['b', '\'', ..] if !word_before => 1 + character(&rest[1..]),
        ['\'', ..] => character(rest),
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}

fn string(rest: &[char], open: usize) -> usize {
    let mut at = open;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
    if rest.get(prefix + hashes) != Some(&'"') {
        return 0;
    }
    let body = prefix + hashes + 1;
    let closes = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    (body..rest.len()).find(closes).map_or(rest.len(), |at| at + 1 + hashes)
}

/// A character literal; 0 for a lifetime.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', ..] => 4 + rest.iter().skip(3).position(|&c| c == '\'').unwrap_or(0),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

/// The words and marks of `code`, each with its line, counted from 0.
pub fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let wordy = |c: char| c.is_alphanumeric() || c == '_';
            let len = if wordy(first) { rest.find(|c| !wordy(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            if !first.is_whitespace() {
                found.push((number, &rest[..len]));
            }
            rest = &rest[len..];
        }
    }
    found
}

/// Every function of `code` with a body: its name, first and last line, counted from 1.
pub fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (at, window) in tokens.windows(2).enumerate() {
        let name = window[1].1;
        if window[0].1 != "fn" || name == "(" {
            continue;
        }
        if let Some(last) = body_end(&tokens[at..]) {
            found.push((name, window[0].0 + 1, last + 1));
        }
    }
    found
}

/// The line where the body of the function that `tokens` begin with ends; None if it has no body.
fn body_end(tokens: &[(usize, &str)]) -> Option<usize> {
    let (mut brackets, mut braces) = (0i32, 0i32);
    for &(line, token) in tokens {
        match token {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets -= 1,
            ";" if brackets == 0 && braces == 0 => return None,
            "{" => braces += 1,
            "}" => braces -= 1,
            _ => {}
        }
        if token == "}" && braces == 0 && brackets == 0 {
            return Some(line);
        }
    }
    None
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* { /* nested */ } */ b // fn c\n\"{ \\\" {\" r#\"{\"}\"# b'{' '\\'' '{' 'life 'x, br\"\\\" d";
    let code = code_of(text);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "'life", "'x,", "d"]);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code_of("'\\u{1f}' x '\\n'y"), format!("{}x     y", " ".repeat(9)));
}

#[test]
fn functions_are_found_with_their_ends() {
    let code = "fn a();\nfn b(x: [u8; 3]) -> fn(u8) {\n if x { y }\n}\nimpl X { fn c() { fn d() {\n} } }\n";
    assert_eq!(functions(code), [("b", 2, 4), ("c", 5, 6), ("d", 5, 6)]);
}
