//! Where the rows of a load go: the tables that the input declares, the ones that rows name, and
//! the one of `-t`.
//!
//! Declarations before the first row are checked and made in the first transaction, before any row
//! is stored, so that a dump of other types than the database has changes nothing.
//!
//! Failure: a declaration of other types than a table has, or of a second table where `-t` names
//! one, is a usage error.

use mapleaf::WriteTxn;

use crate::exit::Failure;
use crate::format::rows::TableDeclaration;

/// The table of rows that name none, where nothing else says so.
pub(crate) const DEFAULT: &str = "main";

/// Where rows go.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// The table that was asked for. A dump of one table is loaded into it, whatever its name was.
    asked: Option<String>,
    /// The table of the first declaration.
    first: Option<String>,
    /// The table of the last one, where rows go that name none.
    current: Option<String>,
    /// Tables that are not made yet.
    pending: Vec<TableDeclaration>,
}

impl Targets {
    pub(crate) fn new(asked: Option<String>) -> Targets {
        Targets { asked, ..Targets::default() }
    }

    /// Takes a declaration; the rows after it go into its table.
    pub(crate) fn declare(&mut self, declared: &TableDeclaration) -> Result<(), Failure> {
        let first = self.first.get_or_insert_with(|| declared.table.clone());
        if let Some(asked) = self.asked.as_ref().filter(|_| *first != declared.table) {
            return Err(Failure::usage(format!(
                "the input has the tables '{first}' and '{}', and -t {asked} names one; leave -t out",
                declared.table
            )));
        }
        let table = self.asked.as_ref().unwrap_or(&declared.table).clone();
        self.current = Some(table.clone());
        self.pending.push(TableDeclaration { table, ..declared.clone() });
        Ok(())
    }

    /// Whether there are declarations of which nothing was made yet.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Makes the tables that were declared; `Usage` if one has other types.
    pub(crate) fn make(&mut self, txn: &mut WriteTxn) -> mapleaf::Result<()> {
        for declared in self.pending.drain(..) {
            txn.create_table(&declared.table, &declared.key, &declared.value)?;
        }
        Ok(())
    }

    /// The table of a row that names this one, or none.
    pub(crate) fn of_row<'t>(&'t self, named: Option<&'t str>) -> &'t str {
        match (&self.asked, named) {
            (Some(asked), Some(named)) if self.first.as_deref() == Some(named) => asked,
            (_, Some(named)) => named,
            (Some(asked), None) => asked,
            (None, None) => self.current.as_deref().unwrap_or(DEFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(table: &str) -> TableDeclaration {
        TableDeclaration { table: table.into(), key: "str".into(), value: String::new() }
    }

    #[test]
    fn rows_go_where_they_or_the_last_declaration_or_the_user_say() {
        let mut targets = Targets::new(None);
        assert_eq!((targets.of_row(None), targets.of_row(Some("x"))), ("main", "x"));
        targets.declare(&declared("a")).unwrap();
        targets.declare(&declared("b")).unwrap();
        assert_eq!((targets.of_row(None), targets.of_row(Some("a"))), ("b", "a"));
        let mut targets = Targets::new(Some("new".into()));
        assert_eq!((targets.of_row(None), targets.of_row(Some("a"))), ("new", "a"));
        targets.declare(&declared("a")).unwrap();
        targets.declare(&declared("a")).unwrap();
        assert_eq!((targets.of_row(None), targets.of_row(Some("a")), targets.of_row(Some("x"))), ("new", "new", "x"));
        assert_eq!(targets.pending[0].table, "new");
        let text = targets.declare(&declared("b")).unwrap_err().text.unwrap();
        assert!(text.contains("'a' and 'b'") && text.contains("-t new"), "{text}");
    }
}
