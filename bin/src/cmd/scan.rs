//! `scan`: prints the entries within bounds in key order, from either end.

use std::ffi::OsString;
use std::ops::Bound;

use mapleaf::ReadTxn;

use crate::cmd::args::{Encoding, ExistingFile, TableName};
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Column, Columns, RowText};
use crate::format::tsv;
use crate::numbers;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl scan names.mapleaf --prefix U+1F98 --limit 3
  kvctl scan names.mapleaf --from U+1F600 --to U+1F650
  kvctl scan names.mapleaf --reverse --limit 1 --keys
  kvctl scan names.mapleaf --prefix U+1F --count

Prints TSV: the key, a tab, the value, as text of their types; \\t \\n \\r \\\\ stand for tabs, line ends and backslashes.
--prefix, --from and --to are text of keys, and an entry must satisfy all that are given; for tuples, --prefix holds the
first items. Keys and values that have no text are printed as bytes after \\!: those of a codec that is not built in, and
those that their codec cannot decode. If there are any of the latter, scan exits with 3 at the end. A missing table reads
as empty.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    /// Only keys that start with P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    prefix: Option<OsString>,
    /// Only keys from A on
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    from: Option<OsString>,
    /// Only keys before B
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    to: Option<OsString>,
    /// Print from the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Print at most N entries
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::whole)]
    limit: Option<u64>,
    /// Print only the number of entries
    #[arg(long, conflicts_with = "keys")]
    count: bool,
    /// Print only keys
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let txn = db.begin_read().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let columns =
            Columns::of_read(&txn, &self.table.name).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let span = self.span(&columns.key).map_err(|failure| failure.of_file(&self.file.path))?;
        open::note_missing_table(&txn, &self.table.name, &self.file.path)?;
        let mut row_text = RowText::new(&columns);
        let mut output = Output::stdout();
        let count = self.scan(&txn, &span, &mut row_text, &mut output)?;
        if self.count {
            output.write(format!("{count}\n").as_bytes())?;
        }
        output.finish()?;
        match row_text.undecodable() {
            Some(failure) => Err(failure.of_file(&self.file.path)),
            None => Ok(Exit::Done),
        }
    }

    /// The range that --prefix, --from and --to leave.
    fn span(&self, column: &Column) -> Result<Span, Failure> {
        let bound = |argument: &Option<OsString>| {
            argument.as_deref().map(|argument| column.to_compare(self.encoding, argument)).transpose()
        };
        let prefix = self.prefix.as_deref().map(|argument| column.prefix(self.encoding, argument)).transpose()?;
        Ok(Span::new(prefix, bound(&self.from)?, bound(&self.to)?))
    }

    /// Prints the entries, unless `--count` is given, and returns their number.
    fn scan(
        &self,
        txn: &ReadTxn,
        span: &Span,
        row_text: &mut RowText<'_>,
        output: &mut Output,
    ) -> Result<u64, Failure> {
        let failed = |error| Failure::of_database(error, &self.file.path);
        let limit = self.limit.unwrap_or(u64::MAX);
        let table = txn.bytes_table(&self.table.name).map_err(failed)?;
        if self.count && span.is_all() {
            return Ok(table.len().min(limit));
        }
        if span.is_empty() {
            return Ok(0);
        }
        let mut range = table.range(span.bounds()).map_err(failed)?;
        let mut line = Vec::new();
        let mut count = 0;
        while count < limit {
            let next = if self.reverse { range.next_back() } else { range.next() };
            let Some(entry) = next else { break };
            let (key, value) = entry.map_err(failed)?;
            count += 1;
            if !self.count {
                line.clear();
                self.write_line(key, value, row_text, &mut line);
                output.write(&line)?;
            }
        }
        Ok(count)
    }

    fn write_line(&self, key: &[u8], value: &[u8], row_text: &mut RowText<'_>, line: &mut Vec<u8>) {
        if self.encoding.is_digits() {
            self.encoding.write(key, line);
        } else {
            tsv::write_key(row_text.key(key), line);
        }
        if !self.keys {
            line.push(b'\t');
            if self.encoding.is_digits() {
                self.encoding.write(value, line);
            } else {
                tsv::write_field(row_text.value(value), line);
            }
        }
        line.push(b'\n');
    }
}

/// A range of keys: `from` is included, `to` is not.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Span {
    fn new(prefix: Option<Vec<u8>>, from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> Span {
        let prefix = prefix.unwrap_or_default();
        let to = match (to, after_prefix(&prefix)) {
            (Some(to), Some(after)) => Some(to.min(after)),
            (to, after) => to.or(after),
        };
        Span { from: from.unwrap_or_default().max(prefix), to }
    }

    fn is_all(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }

    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.from), to)
    }
}

/// The first key after all keys with this prefix; `None` if no key can follow them.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_after_it() {
        for (prefix, after) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xff\xff", Some(b"b")),
            (b"ab", Some(b"ac")),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), after);
        }
    }

    #[test]
    fn prefix_and_bounds_are_intersected() {
        let span = |prefix: &str, from: &str, to: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
            Span::new(some(prefix), some(from), some(to))
        };
        assert!(span("", "", "").is_all());
        assert_eq!(span("b", "a", "z"), Span { from: b"b".to_vec(), to: Some(b"c".to_vec()) });
        assert_eq!(span("b", "bb", "bd"), Span { from: b"bb".to_vec(), to: Some(b"bd".to_vec()) });
        assert!(span("b", "d", "").is_empty());
        assert!(span("", "b", "a").is_empty());
        assert!(span("", "a", "a").is_empty());
        assert!(!span("a", "", "").is_empty());
    }
}
