//! Writes and reads TSV rows: `key TAB value LF`, with any bytes.
//!
//! Escapes are `\t \n \r \\ \xNN`. The reader skips empty lines and lines that start with `#`, and
//! drops one CR before the LF. The key ends at the first tab; the value is the rest of the line.
//! The writer escapes every tab, LF, CR and backslash, and a `#` or a byte order mark at the start
//! of a line. So any bytes that are written read back the same.
//!
//! A field that starts with `\!` holds stored bytes, not text of a type. A comment that starts with
//! `# mapleaf-table` declares a table: its name, key codec and value codec follow, each after a
//! tab; of a multimap table also `multimap=` and the bytes of each value, and of a table with keys
//! in descending order also `descending`.
//!
//! The reader holds one line at a time, and undoes its escapes in place: an escape is never shorter
//! than its byte.
//!
//! Failure: a line without a tab, or with an unknown escape, is a [`RowError::Malformed`] with the
//! line's number.
//!
//! Tests below: every byte at every position, every escape, random pairs written and read.

use std::io::BufRead;
use std::ops::Range;

use crate::format::bytes::hex_digit;
use crate::format::columns::Field;
use crate::format::rows::{Lines, Row, RowError, TableDeclaration, BYTE_ORDER_MARK};

/// Begins a field of stored bytes.
const STORED_MARK: &[u8] = b"\\!";

/// Begins the declaration of a table.
const DECLARATION_MARK: &[u8] = b"# mapleaf-table\t";

/// Begins the fourth field of the declaration of a multimap table; the bytes of each value follow,
/// 0 if values have any size.
const MULTIMAP_MARK: &str = "multimap=";

/// The fourth field of the declaration of a table with keys in descending order.
const DESCENDING_MARK: &str = "descending";

/// Appends bytes, with tabs, line ends and backslashes escaped.
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

/// Appends a key at the start of a line. Also escapes a leading `#`, which would make the line a
/// comment, and a leading byte order mark, which the reader would skip.
pub(crate) fn escape_key(key: &[u8], line: &mut Vec<u8>) {
    match key {
        [b'#', rest @ ..] => {
            line.extend_from_slice(b"\\x23");
            escape(rest, line);
        }
        [0xef, rest @ ..] if key.starts_with(BYTE_ORDER_MARK) => {
            line.extend_from_slice(b"\\xef");
            escape(rest, line);
        }
        _ => escape(key, line),
    }
}

/// Appends a key as the first field of a line.
pub(crate) fn write_key(key: Field<'_>, line: &mut Vec<u8>) {
    match key {
        Field::Text(text) => escape_key(text, line),
        Field::Stored(_) => write_field(key, line),
    }
}

/// Appends a field.
pub(crate) fn write_field(field: Field<'_>, line: &mut Vec<u8>) {
    match field {
        Field::Text(text) => escape(text, line),
        Field::Stored(bytes) => {
            line.extend_from_slice(STORED_MARK);
            escape(bytes, line);
        }
    }
}

/// Appends a row.
pub(crate) fn write_row(key: Field<'_>, value: Field<'_>, line: &mut Vec<u8>) {
    write_key(key, line);
    line.push(b'\t');
    write_field(value, line);
    line.push(b'\n');
}

/// Appends the declaration of a table.
pub(crate) fn write_declaration(declared: &TableDeclaration, line: &mut Vec<u8>) {
    line.extend_from_slice(DECLARATION_MARK);
    let TableDeclaration { table, key, value, multimap, is_descending } = declared;
    for (at, field) in [table, key, value].into_iter().enumerate() {
        if at > 0 {
            line.push(b'\t');
        }
        escape(field.as_bytes(), line);
    }
    if let Some(bytes) = multimap {
        line.extend(format!("\t{MULTIMAP_MARK}{bytes}").into_bytes());
    }
    if *is_descending {
        line.extend(format!("\t{DESCENDING_MARK}").into_bytes());
    }
    line.push(b'\n');
}

/// Reads rows from a stream.
pub(crate) struct Reader<R> {
    lines: Lines<R>,
    key: FieldRange,
    value: FieldRange,
    declared: Option<TableDeclaration>,
}

/// The position of a field in its line.
#[derive(Debug, Default)]
struct FieldRange {
    range: Range<usize>,
    is_stored: bool,
}

impl FieldRange {
    fn borrow_from<'a>(&self, line: &'a [u8]) -> Field<'a> {
        match self.is_stored {
            true => Field::Stored(&line[self.range.clone()]),
            false => Field::Text(&line[self.range.clone()]),
        }
    }
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R, line_limit: u64) -> Reader<R> {
        let lines = Lines::new(input, line_limit);
        Reader { lines, key: FieldRange::default(), value: FieldRange::default(), declared: None }
    }

    /// Moves to the next row or declaration; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        loop {
            if !self.lines.advance()? {
                return Ok(false);
            }
            if self.lines.line().starts_with(DECLARATION_MARK) {
                let declared = parse_declaration(&self.lines.line()[DECLARATION_MARK.len()..]);
                self.declared = Some(declared.map_err(|what| self.lines.malformed(what))?);
                return Ok(true);
            }
            if !matches!(self.lines.line(), [] | [b'#', ..]) {
                break;
            }
        }
        self.declared = None;
        self.split().map(|()| true).map_err(|what| self.lines.malformed(what))
    }

    /// The current row, to which [`Reader::advance`] moved.
    pub(crate) fn row(&self) -> Row<'_> {
        let line = self.lines.line();
        Row { table: None, key: self.key.borrow_from(line), value: self.value.borrow_from(line) }
    }

    /// The current declaration, if [`Reader::advance`] moved to one.
    pub(crate) fn declared(&self) -> Option<&TableDeclaration> {
        self.declared.as_ref()
    }

    /// The number of the current line, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.number()
    }

    /// Splits the current line into key and value, and undoes their escapes.
    fn split(&mut self) -> Result<(), String> {
        let line = self.lines.line_mut();
        let Some(tab) = line.iter().position(|&byte| byte == b'\t') else {
            let json = if line.starts_with(b"{") { "; JSON lines need --format jsonl" } else { "" };
            return Err(format!("no tab between key and value{json}"));
        };
        self.key = read_field(line, 0..tab).map_err(|what| format!("{what} in the key"))?;
        let value = tab + 1..line.len();
        self.value = read_field(line, value).map_err(|what| format!("{what} in the value"))?;
        Ok(())
    }
}

/// Splits a line at its tabs, and undoes the escapes of each field.
pub(crate) fn fields(line: &mut [u8]) -> Result<Vec<Field<'_>>, String> {
    let (mut ranges, mut from) = (Vec::new(), 0);
    for part in line.split(|&byte| byte == b'\t') {
        ranges.push(from..from + part.len());
        from += part.len() + 1;
    }
    let read: Result<Vec<FieldRange>, String> = ranges.into_iter().map(|range| read_field(line, range)).collect();
    let line = &*line;
    Ok(read?.into_iter().map(|field| field.borrow_from(line)).collect())
}

/// Unescapes a field in place.
fn read_field(line: &mut [u8], mut range: Range<usize>) -> Result<FieldRange, String> {
    let is_stored = line[range.clone()].starts_with(STORED_MARK);
    if is_stored {
        range.start += STORED_MARK.len();
    }
    range.end = range.start + unescape(&mut line[range.clone()])?;
    Ok(FieldRange { range, is_stored })
}

/// Parses a declaration, from the text after its prefix.
fn parse_declaration(fields: &[u8]) -> Result<TableDeclaration, String> {
    let text = |field: &[u8]| {
        let mut field = field.to_vec();
        let length = unescape(&mut field)?;
        field.truncate(length);
        String::from_utf8(field).map_err(|_| "text that is not UTF-8".to_string())
    };
    let fields: Result<Vec<String>, String> = fields.split(|&byte| byte == b'\t').map(text).collect();
    let mut fields = fields.map_err(|what| format!("{what} in a '# mapleaf-table' line"))?;
    let is_descending = fields.len() == 4 && fields[3] == DESCENDING_MARK;
    fields.truncate(if is_descending { 3 } else { fields.len() });
    let multimap = match fields.get(3).map(|field| field.strip_prefix(MULTIMAP_MARK).map(str::parse)) {
        None => None,
        Some(Some(Ok(bytes))) => Some(bytes),
        Some(_) => {
            let what =
                format!("the fourth field of a '# mapleaf-table' line is '{MULTIMAP_MARK}' and a number of bytes, or '{DESCENDING_MARK}'");
            return Err(what);
        }
    };
    fields.truncate(if multimap.is_some() && fields.len() == 4 { 3 } else { fields.len() });
    match <[String; 3]>::try_from(fields) {
        Ok([table, key, value]) => Ok(TableDeclaration { table, key, value, multimap, is_descending }),
        Err(_) => Err("a '# mapleaf-table' line needs a name and two codecs, each after a tab".to_string()),
    }
}

/// Unescapes a field in place and returns its new length.
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

/// Decodes the escape at the start of `escape`. Returns its byte, and its length.
fn decode_escape(escape: &[u8]) -> Result<(u8, usize), String> {
    let bad = |bytes: usize| {
        let shown = String::from_utf8_lossy(&escape[..bytes.min(escape.len())]).into_owned();
        format!("bad escape '{shown}' (escapes are \\t \\n \\r \\\\ and \\xNN)")
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

    fn read_each(input: &[u8], mut each: impl FnMut(Row<'_>)) -> Result<(), RowError> {
        // A small buffer, so that lines cross its end.
        let mut reader = Reader::new(std::io::BufReader::with_capacity(7, input), 1 << 20);
        while reader.advance()? {
            each(reader.row());
        }
        Ok(())
    }

    fn read(input: &[u8]) -> Result<Vec<Pair>, RowError> {
        let mut rows = Vec::new();
        read_each(input, |row| match (row.key, row.value) {
            (Field::Text(key), Field::Text(value)) => rows.push((key.to_vec(), value.to_vec())),
            marked => panic!("{marked:?}"),
        })?;
        Ok(rows)
    }

    fn written(rows: &[Pair]) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, value) in rows {
            write_row(Field::Text(key), Field::Text(value), &mut text);
        }
        text
    }

    fn pair(key: &[u8], value: &[u8]) -> Pair {
        (key.to_vec(), value.to_vec())
    }

    #[test]
    fn every_byte_reads_back_at_every_position() {
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
    fn the_writer_escapes_only_special_bytes() {
        assert_eq!(written(&[pair(b"#a#\t", b"#b\n\r\\")]), b"\\x23a#\\t\t#b\\n\\r\\\\\n");
        assert_eq!(written(&[pair(b"", b"")]), b"\t\n");
        assert_eq!(written(&[pair(b"\0\xff", "\u{e4}".as_bytes())]), b"\0\xff\t\xc3\xa4\n");
    }

    #[test]
    fn declarations_and_stored_bytes_read_back() {
        let mut text = b"# mapleaf-tables are tables\n".to_vec();
        let declared = TableDeclaration {
            table: "a\tb\n".into(),
            key: String::new(),
            value: "(u8,str)".into(),
            multimap: None,
            is_descending: false,
        };
        write_declaration(&declared, &mut text);
        write_row(Field::Stored(b"#\t!"), Field::Text(b"!"), &mut text);
        assert_eq!(text, b"# mapleaf-tables are tables\n# mapleaf-table\ta\\tb\\n\t\t(u8,str)\n\\!#\\t!\t!\n");
        let mut reader = Reader::new(&text[..], 1 << 20);
        assert!(reader.advance().unwrap());
        assert_eq!(reader.declared(), Some(&declared));
        assert!(reader.advance().unwrap() && reader.declared().is_none());
        assert_eq!(reader.row(), Row { table: None, key: Field::Stored(b"#\t!"), value: Field::Text(b"!") });
        assert!(!reader.advance().unwrap());
    }

    #[test]
    fn declarations_of_descending_tables_read_back() {
        let [table, key, value] = ["t", "str", ""].map(str::to_string);
        let declared = TableDeclaration { table, key, value, multimap: None, is_descending: true };
        let mut text = Vec::new();
        write_declaration(&declared, &mut text);
        assert_eq!(text, b"# mapleaf-table\tt\tstr\t\tdescending\n");
        let mut reader = Reader::new(&text[..], 1 << 20);
        assert!(reader.advance().unwrap());
        assert_eq!(reader.declared(), Some(&declared));
    }

    #[test]
    fn declarations_of_multimaps_read_back_and_others_are_malformed() {
        for bytes in [0, 8, 1000] {
            let [table, key, value] = ["t", "str", "u64"].map(str::to_string);
            let declared = TableDeclaration { table, key, value, multimap: Some(bytes), is_descending: false };
            let mut text = Vec::new();
            write_declaration(&declared, &mut text);
            assert_eq!(text, format!("# mapleaf-table\tt\tstr\tu64\tmultimap={bytes}\n").into_bytes());
            let mut reader = Reader::new(&text[..], 1 << 20);
            assert!(reader.advance().unwrap());
            assert_eq!(reader.declared(), Some(&declared));
        }
        for wrong in ["multimap", "multimap=", "multimap=x", "other", "multimap=8\tmore"] {
            let text = format!("# mapleaf-table\tt\tstr\tu64\t{wrong}\n");
            assert!(Reader::new(text.as_bytes(), 1 << 20).advance().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_key() {
        assert_eq!(read(b"\xef\xbb\xbfk\tv\n").unwrap(), [pair(b"k", b"v")]);
        assert_eq!(read(b"\xef\xbb\xbf# comment\nk\tv\n").unwrap(), [pair(b"k", b"v")]);
        assert_eq!(read(b"\xef\xbb\xbf").unwrap(), []);
        assert_eq!(read(b"k\tv\n\xef\xbb\xbfl\tw\n").unwrap()[1], pair(b"\xef\xbb\xbfl", b"w"));
        let rows = [pair(b"\xef\xbb\xbfk", b"\xef\xbb\xbf"), pair(b"\xef\xbb", b"")];
        assert_eq!(read(&written(&rows)).unwrap(), rows);
    }

    #[test]
    fn a_line_over_the_limit_is_malformed_and_not_read_to_its_end() {
        let endless = b"a\tb\n".iter().copied().chain(std::iter::repeat_n(b'x', 1 << 24)).collect::<Vec<u8>>();
        let mut reader = Reader::new(&endless[..], 1000);
        assert!(reader.advance().unwrap());
        match reader.advance() {
            Err(RowError::Malformed { line: 2, what }) => {
                assert_eq!(what, "the line has more than 1000 bytes; if that is right, raise --max-line")
            }
            other => panic!("{other:?}"),
        }
        assert!(reader.lines.line().len() <= 1001, "{}", reader.lines.line().len());
        let mut reader = Reader::new(&b"aaaa\tbbbb\nc\td\n"[..], 9);
        assert!(reader.advance().unwrap() && reader.advance().unwrap(), "the line feed does not count");
    }

    #[test]
    fn comments_empty_lines_and_carriage_returns_are_skipped() {
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
            (b"a\\\tb", 1, "bad escape '\\' (escapes are \\t \\n \\r \\\\ and \\xNN) in the key"),
            (b"a\tb\\q", 1, "bad escape '\\q' (escapes are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\x4", 1, "bad escape '\\x4' (escapes are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\xg0c", 1, "bad escape '\\xg0' (escapes are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"a\tb\\!", 1, "bad escape '\\!' (escapes are \\t \\n \\r \\\\ and \\xNN) in the value"),
            (b"# mapleaf-table\tt", 1, "a '# mapleaf-table' line needs a name and two codecs, each after a tab"),
            (b"# mapleaf-table\t\xff\t\t", 1, "text that is not UTF-8 in a '# mapleaf-table' line"),
            (b"a\tb\\X41", 1, "bad escape '\\X' (escapes are \\t \\n \\r \\\\ and \\xNN) in the value"),
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
        fn written_rows_read_back(rows in prop::collection::vec((bytes(), bytes()), 0..8)) {
            prop_assert_eq!(read(&written(&rows)).unwrap(), rows);
        }

        #[test]
        fn any_input_is_rows_or_a_malformed_line(input in bytes()) {
            // A field may be marked: `\!` stands before bytes that no text stands for.
            if let Err(error) = read_each(&input, |_| ()) {
                prop_assert!(matches!(error, RowError::Malformed { .. }), "{:?}", error);
            }
        }
    }
}
