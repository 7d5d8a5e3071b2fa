//! Rust source as the rules see it: code without comments and literals, words, functions.

/// The code with comments and the contents of literals blanked; every line keeps its number.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_or_comment(bytes, at) {
            Some(end) => end,
            None => {
                out.push(char::from(bytes[at]));
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// The end of the comment or literal that begins at `at`, if one does.
fn literal_or_comment(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    match rest[0] {
        b'"' => Some(at + string(rest)),
        b'r' | b'b' | b'c' if !in_word => raw_string(rest).map(|length| at + length),
        b'\'' => character(rest).map(|length| at + length),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r".."`, `r#".."#`, `br".."`; a raw identifier such as `r#type` is none.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let r = rest.iter().take(2).position(|&byte| byte == b'r')?;
    let hashes = rest[r + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let start = r + 1 + hashes;
    if rest.get(start) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), "#".repeat(hashes).as_bytes()].concat();
    let length = rest[start + 1..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(rest.len(), |length| start + 1 + length + close.len()))
}

/// A character literal; a lifetime is none.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&byte| byte == b'\'')?;
        return Some(3 + close + 1);
    }
    // One character of up to four bytes.
    let close = rest.iter().take(6).skip(2).position(|&byte| byte == b'\'')? + 2;
    (close == 2 || rest[1] >= 0x80).then_some(close + 1)
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Every place where `token` stands in `code` as a whole, not as part of a longer name: line number and byte offset.
pub(crate) fn find_token(code: &str, token: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    code.match_indices(token)
        .filter(|&(at, _)| at == 0 || !is_word(bytes[at - 1]))
        .filter(|&(at, _)| bytes.get(at + token.len()).is_none_or(|&next| !is_word(next)))
        .map(|(at, _)| (line_of(code, at), at))
        .collect()
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The words of a text in lower case, with their lines; `LeafNode` and `leaf_node` are two words each.
pub(crate) fn words(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in line.split(|c: char| !c.is_ascii_alphanumeric()) {
            let mut word = String::new();
            let mut lower = false;
            for c in name.chars() {
                if c.is_ascii_uppercase() && lower {
                    all.push((index + 1, std::mem::take(&mut word)));
                }
                lower = c.is_ascii_lowercase();
                word.push(c.to_ascii_lowercase());
            }
            all.push((index + 1, word));
        }
    }
    all
}

/// The comment of a line, or nothing. A `//` in a literal begins none, as long as the literal is on one line.
pub(crate) fn comment_of(line: &str) -> &str {
    let code = code_only(line);
    let comment =
        line.match_indices("//").find(|&(start, _)| code[start..].trim().is_empty() && !in_literal(line, start));
    comment.map_or("", |(start, _)| &line[start..])
}

/// Whether an odd number of quotes stands before this byte.
fn in_literal(line: &str, start: usize) -> bool {
    line[..start].replace("\\\"", "").replace("'\"'", "").matches('"').count() % 2 == 1
}

/// Where the bracket that opens at `open` closes.
pub(crate) fn matching(code: &str, open: usize) -> Option<usize> {
    let bytes = code.as_bytes();
    let closing = match bytes[open] {
        b'(' => b')',
        b'[' => b']',
        _ => b'}',
    };
    let mut depth = 0;
    for (at, &byte) in bytes.iter().enumerate().skip(open) {
        if byte == bytes[open] {
            depth += 1;
        } else if byte == closing {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

/// The functions that have a body: name, first line, number of lines.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut all = Vec::new();
    for (line, at) in find_token(code, "fn") {
        let name: String = code[at + 2..].trim_start().bytes().take_while(|&b| is_word(b)).map(char::from).collect();
        let Some(length) = code[at..].find(['{', ';']) else { continue };
        if name.is_empty() || code.as_bytes()[at + length] == b';' {
            continue;
        }
        if let Some(end) = matching(code, at + length) {
            all.push((name, line, line_of(code, end) - line + 1));
        }
    }
    all
}

/// The lines before the tests inside a file.
pub(crate) fn lines_without_tests(text: &str) -> usize {
    let start = text.match_indices("#[cfg(test)]\n").find(|&(at, mark)| {
        let after = text[at + mark.len()..].trim_start();
        after.starts_with("mod ") && after.find('{').is_some_and(|brace| !after[..brace].contains(';'))
    });
    text[..start.map_or(text.len(), |(at, _)| at)].lines().count()
}
