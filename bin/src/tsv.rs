//! TSV rows: `key TAB value LF`, any bytes, written and read.
//!
//! Escapes are `\t \n \r \\ \xNN`. A line that starts with `#` and an empty line are skipped; one CR before the LF is
//! dropped. The key ends at the first tab; what follows is the value. The writer escapes every tab, LF, CR and
//! backslash, and a `#` that would start the line, so that whatever was written reads back the same.
//!
//! The reader streams: it holds one line, in which it undoes the escapes in place (an escape is never shorter than
//! what it stands for).
//!
//! Failure: no tab, or an escape that is none of the above, is a [`RowError::Malformed`] with the line's number.
//!
//! Tests: every byte alone and in company, every escape, random pairs both ways, below.

use std::io::BufRead;

use crate::bytes::hex_digit;
use crate::input::{Lines, Row, RowError};

/// Appends bytes with what TSV cannot hold escaped.
pub(crate) fn escape(bytes: &[u8], line: &mut Vec<u8>) {
    let mut plain_from = 0;
    for (i, byte) in bytes.iter().enumerate() {
        let letter = match byte {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\\' => b'\\',
            _ => continue,
        };
        line.extend_from_slice(&bytes[plain_from..i]);
        line.extend([b'\\', letter]);
        plain_from = i + 1;
    }
    line.extend_from_slice(&bytes[plain_from..]);
}

/// Appends a key that starts a line: a `#` in front would make it a comment.
pub(crate) fn escape_key(key: &[u8], line: &mut Vec<u8>) {
    match key {
        [b'#', rest @ ..] => {
            line.extend_from_slice(b"\\x23");
            escape(rest, line);
        }
        _ => escape(key, line),
    }
}

/// Appends a whole row.
pub(crate) fn write_row(key: &[u8], value: &[u8], line: &mut Vec<u8>) {
    escape_key(key, line);
    line.push(b'\t');
    escape(value, line);
    line.push(b'\n');
}

/// Reads rows from a stream.
pub(crate) struct Reader<R> {
    lines: Lines<R>,
    key_bytes: usize,
    value_from: usize,
    value_to: usize,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Reader<R> {
        Reader { lines: Lines::new(input), key_bytes: 0, value_from: 0, value_to: 0 }
    }

    /// Goes to the next row; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        loop {
            if !self.lines.advance()? {
                return Ok(false);
            }
            if !matches!(self.lines.line(), [] | [b'#', ..]) {
                break;
            }
        }
        self.split().map(|()| true).map_err(|what| self.lines.malformed(what))
    }

    /// The row that [`Reader::advance`] went to.
    pub(crate) fn row(&self) -> Row<'_> {
        let line = self.lines.line();
        Row { table: None, key: &line[..self.key_bytes], value: &line[self.value_from..self.value_to] }
    }

    /// The number of the current line, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.number()
    }

    fn split(&mut self) -> Result<(), String> {
        let line = self.lines.line_mut();
        let Some(tab) = line.iter().position(|&byte| byte == b'\t') else {
            return Err("no tab between key and value".to_string());
        };
        let (key, value) = line.split_at_mut(tab);
        self.key_bytes = unescape(key).map_err(|what| format!("{what} in the key"))?;
        self.value_from = tab + 1;
        self.value_to = self.value_from + unescape(&mut value[1..]).map_err(|what| format!("{what} in the value"))?;
        Ok(())
    }
}

/// Undoes the escapes in place and returns the length of what remains.
fn unescape(field: &mut [u8]) -> Result<usize, String> {
    if !field.contains(&b'\\') {
        return Ok(field.len());
    }
    let (mut from, mut to) = (0, 0);
    while from < field.len() {
        let (byte, taken) = match field[from] {
            b'\\' => decode_escape(&field[from..])?,
            byte => (byte, 1),
        };
        field[to] = byte;
        to += 1;
        from += taken;
    }
    Ok(to)
}

/// The byte that the escape at the start stands for, and the length of the escape.
fn decode_escape(escape: &[u8]) -> Result<(u8, usize), String> {
    let bad = |bytes: usize| {
        let shown = String::from_utf8_lossy(&escape[..bytes.min(escape.len())]).into_owned();
        format!("bad escape '{shown}' (there are \\t \\n \\r \\\\ and \\xNN)")
    };
    match escape.get(1) {
        Some(b't') => Ok((b'\t', 2)),
        Some(b'n') => Ok((b'\n', 2)),
        Some(b'r') => Ok((b'\r', 2)),
        Some(b'\\') => Ok((b'\\', 2)),
        Some(b'x') => match (escape.get(2).copied().and_then(hex_digit), escape.get(3).copied().and_then(hex_digit)) {
            (Some(high), Some(low)) => Ok((high << 4 | low, 4)),
            _ => Err(bad(4)),
        },
        _ => Err(bad(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pair = (Vec<u8>, Vec<u8>);

    fn read(input: &[u8]) -> Result<Vec<Pair>, RowError> {
        // A small buffer, so that lines cross its end.
        let mut reader = Reader::new(std::io::BufReader::with_capacity(7, input));
        let mut rows = Vec::new();
        while reader.advance()? {
            let row = reader.row();
            rows.push((row.key.to_vec(), row.value.to_vec()));
        }
        Ok(rows)
    }

    fn written(rows: &[Pair]) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, value) in rows {
            write_row(key, value, &mut text);
        }
        text
    }

    fn pair(key: &[u8], value: &[u8]) -> Pair {
        (key.to_vec(), value.to_vec())
    }

    #[test]
    fn every_byte_reads_back_in_every_place() {
        for byte in 0..=255u8 {
            let rows: Vec<Pair> =
                [vec![byte], vec![byte, b'a'], vec![b'a', byte], vec![b'a', byte, b'b'], vec![byte; 3]]
                    .into_iter()
                    .flat_map(|bytes| {
                        [(bytes.clone(), Vec::new()), (Vec::new(), bytes.clone()), (bytes.clone(), bytes)]
                    })
                    .collect();
            assert_eq!(read(&written(&rows)).unwrap(), rows, "byte {byte}");
        }
    }

    #[test]
    fn every_hex_escape_reads_as_its_byte() {
        for byte in 0..=255u8 {
            let text = format!("\\x{byte:02x}\t\\x{byte:02X}a\n");
            assert_eq!(read(text.as_bytes()).unwrap(), [pair(&[byte], &[byte, b'a'])]);
        }
    }

    #[test]
    fn the_writer_escapes_just_what_it_must() {
        assert_eq!(written(&[pair(b"#a#\t", b"#b\n\r\\")]), b"\\x23a#\\t\t#b\\n\\r\\\\\n");
        assert_eq!(written(&[pair(b"", b"")]), b"\t\n");
        assert_eq!(written(&[pair(b"\0\xff", "\u{e4}".as_bytes())]), b"\0\xff\t\xc3\xa4\n");
    }

    #[test]
    fn comments_empty_lines_and_carriage_returns() {
        let text = b"# comment\n\n\r\nk\tv\r\nl\tw\r\r\n#m\tx\n \t#\na\tb\tc\nlast\tline";
        let rows =
            [pair(b"k", b"v"), pair(b"l", b"w\r"), pair(b" ", b"#"), pair(b"a", b"b\tc"), pair(b"last", b"line")];
        assert_eq!(read(text).unwrap(), rows);
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read(b"k\tv\r").unwrap(), [pair(b"k", b"v\r")]);
    }

    #[test]
    fn malformed_lines_name_their_number() {
        for (text, number, what) in [
            (&b"a\tb\nno tab\n"[..], 2, "no tab between key and value"),
            (b"# c\n\nx", 3, "no tab between key and value"),
            (b"a\\\tb", 1, "bad escape '\\' (there are \\t \\n \\r \\\\ and \\xNN) in the key"),
            (b"a\tb\\q", 1, "bad escape '\\q' (there are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\x4", 1, "bad escape '\\x4' (there are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\xg0c", 1, "bad escape '\\xg0' (there are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\X41", 1, "bad escape '\\X' (there are \\t \\n \\r \\\\ and \\xNN) in the value"),
        ] {
            match read(text) {
                Err(RowError::Malformed { line, what: found }) => assert_eq!((line, found.as_str()), (number, what)),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let any_byte =
            prop_oneof![Just(b'\t'), Just(b'\n'), Just(b'\r'), Just(b'\\'), Just(b'#'), Just(b'x'), any::<u8>()];
        prop::collection::vec(any_byte, 0..40)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(rows in prop::collection::vec((bytes(), bytes()), 0..8)) {
            prop_assert_eq!(read(&written(&rows)).unwrap(), rows);
        }

        #[test]
        fn any_input_is_rows_or_a_malformed_line(input in bytes()) {
            if let Err(error) = read(&input) {
                prop_assert!(matches!(error, RowError::Malformed { .. }), "{:?}", error);
            }
        }
    }
}
