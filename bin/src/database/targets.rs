//! Chooses the table of each row of a load, from the row, the declarations of the input and `-t`.
//!
//! The first transaction creates the tables that are declared before the first row, and stores rows
//! after that. So a dump whose types differ from those of the database changes nothing.
//!
//! Failure: usage errors, if a declaration has other types than the existing table, or if the input
//! declares a second table and `-t` is given.

use mapleaf::{KeyOrder, WriteTxn};

use crate::exit::Failure;
use crate::format::rows::TableDeclaration;

/// The table of rows if neither the row nor a declaration nor `-t` names one.
pub(crate) const DEFAULT: &str = "main";

/// The tables that rows go into.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// The table of `-t`. A dump of one table is loaded into it, even if the dump declares another
    /// name.
    requested: Option<String>,
    /// The table of the first declaration.
    first: Option<String>,
    /// The table of the last declaration; rows that name no table go into it.
    current: Option<String>,
    /// Declared tables that are not created yet.
    pending: Vec<TableDeclaration>,
}

impl Targets {
    pub(crate) fn new(requested: Option<String>) -> Targets {
        Targets { requested, ..Targets::default() }
    }

    /// Accepts a declaration; later rows that name no table go into its table.
    pub(crate) fn declare(&mut self, declared: &TableDeclaration) -> Result<(), Failure> {
        let first = self.first.get_or_insert_with(|| declared.table.clone());
        if let Some(requested) = self.requested.as_ref().filter(|_| *first != declared.table) {
            return Err(Failure::usage(format!(
                "the input has the tables '{first}' and '{}', and -t {requested} names one; leave -t out",
                declared.table
            )));
        }
        let table = self.requested.as_ref().unwrap_or(&declared.table).clone();
        self.current = Some(table.clone());
        self.pending.push(TableDeclaration { table, ..declared.clone() });
        Ok(())
    }

    /// Whether a declared table is not created yet.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Creates the declared tables. Fails with `Usage` if one of them exists with other types.
    pub(crate) fn create(&mut self, txn: &mut WriteTxn) -> mapleaf::Result<()> {
        for declared in self.pending.drain(..) {
            let TableDeclaration { table, key, value, multimap, is_descending } = declared;
            let order = if is_descending { KeyOrder::Descending } else { KeyOrder::Bytewise };
            match multimap {
                Some(bytes) => {
                    drop(txn.create_multi_table(&table, &key, &value, Some(bytes).filter(|&bytes| bytes > 0))?)
                }
                None => drop(txn.create_table_in_order(&table, &key, &value, &order)?),
            }
        }
        Ok(())
    }

    /// The table that a row goes into. `named` is the table that the row itself names.
    pub(crate) fn of_row<'t>(&'t self, named: Option<&'t str>) -> &'t str {
        match (&self.requested, named) {
            (Some(requested), Some(named)) if self.first.as_deref() == Some(named) => requested,
            (_, Some(named)) => named,
            (Some(requested), None) => requested,
            (None, None) => self.current.as_deref().unwrap_or(DEFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(table: &str) -> TableDeclaration {
        TableDeclaration {
            table: table.into(),
            key: "str".into(),
            value: String::new(),
            multimap: None,
            is_descending: false,
        }
    }

    #[test]
    fn rows_go_into_the_table_of_the_row_the_declaration_or_the_user() {
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
