//! Escapes bytes that would control the terminal, as `\xNN`.
//!
//! Stored keys and values may hold escape sequences that move the cursor, change colours, set
//! titles, or send input. On a terminal, `kvctl` prints each byte of a control character (C0, DEL,
//! C1) and each byte that is not UTF-8 as `\xNN`. Line feeds and tabs stay. Pipes and files get the
//! unchanged bytes.

use std::borrow::Cow;

use crate::format::bytes::HEX_DIGITS;

/// Replaces control characters and bytes that are not UTF-8 by `\xNN`.
pub(crate) fn visible(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(is_escaped)) {
        return Cow::Borrowed(bytes);
    }
    let mut shown = Vec::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let encoded = c.encode_utf8(&mut buffer).as_bytes();
            match is_escaped(c) {
                true => escape(encoded, &mut shown),
                false => shown.extend_from_slice(encoded),
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    Cow::Owned(shown)
}

fn is_escaped(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// Puts a text on one line: control characters become `\n`, `\r`, `\t` or `\xNN`.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => line.extend(c.escape_default()),
            c if c.is_control() => {
                let (mut buffer, mut shown) = ([0; 4], Vec::new());
                escape(c.encode_utf8(&mut buffer).as_bytes(), &mut shown);
                line.push_str(&String::from_utf8_lossy(&shown));
            }
            c => line.push(c),
        }
    }
    line
}

/// Appends `\xNN` for each byte.
fn escape(bytes: &[u8], shown: &mut Vec<u8>) {
    for byte in bytes {
        shown.extend([b'\\', b'x', HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_escaped_and_text_is_unchanged() {
        for (bytes, shown) in [
            (&b"plain\ttext\n"[..], &b"plain\ttext\n"[..]),
            ("\u{e4}\u{1f980}".as_bytes(), "\u{e4}\u{1f980}".as_bytes()),
            (b"\x1b[31mred\x07\x7f\r", b"\\x1b[31mred\\x07\\x7f\\x0d"),
            (b"\x9b31m \xff", b"\\x9b31m \\xff"),
            ("c1 \u{9b}31m".as_bytes(), b"c1 \\xc2\\x9b31m"),
            (b"\0", b"\\x00"),
        ] {
            assert_eq!(&*visible(bytes), shown, "{bytes:?}");
        }
        for byte in (0..=255u8).filter(|byte| !matches!(byte, b'\n' | b'\t' | 0x20..=0x7e)) {
            assert_eq!(&*visible(&[byte]), format!("\\x{byte:02x}").as_bytes());
        }
    }

    #[test]
    fn control_characters_do_not_break_the_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[c \u{e4}\u{9b}\u{7f}"), "a\\nb\\r\\x1b[c \u{e4}\\xc2\\x9b\\x7f");
    }
}
