//! The tables of a write transaction: open, list, drop and rename.
//!
//! Floor: txn. An open table is found in the table set of the transaction, any other in the
//! catalog. The table records of changed tables go into the catalog at the commit; a drop and a
//! rename change the catalog at once.
//!
//! Failure: `Usage` for a name or codec that does not fit; errors of the catalog's tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::{self, flags, TableRecord, TableSpec};
use crate::error::{Error, Result};
use crate::ids::TreeId;
use crate::limits;
use crate::page::meta::TreeRoot;
use crate::tree::{self, Tree, TreeMut};
use crate::txn::read::snapshot;
use crate::txn::write::handles::{HandleGuard, TableHandles};
use crate::txn::write::txn::{writer_of, RunningTxn};

impl RunningTxn {
    /// Opens a table by name, if codecs and flags of the table are those of `spec`. If there is no
    /// such table, makes it as `spec` says.
    pub(crate) fn open_table(&mut self, name: &str, spec: TableSpec<'_>) -> Result<usize> {
        self.check_usable()?;
        if let Some(at) = self.tables.find(name) {
            self.tables[at].record.check_spec(name, spec)?;
            return Ok(at);
        }
        let found = self.find_record(name)?;
        let changed = found.is_none();
        let record = match found {
            Some(record) => {
                record.check_spec(name, spec)?;
                record
            }
            None => {
                self.absent.get(name).map_or(Ok(()), |handles| handles.check_unused())?;
                self.new_record(name, spec)?
            }
        };
        let at = self.tables.add(name, record, changed, self.pages().lease());
        if changed {
            // Record that the table was made, even if nothing is put into it.
            self.recorded(at);
        }
        Ok(at)
    }

    /// Opens a table for reading, if codecs and flags of the table are those of `spec`. Returns
    /// what its handles share, and its root. A table that does not exist is empty, and is not made.
    pub(crate) fn open_to_read(&mut self, name: &str, spec: TableSpec<'_>) -> Result<(HandleGuard, TreeRoot)> {
        if self.tables.find(name).is_none() && self.record_of(name)?.is_none() {
            let handles = match self.absent.get(name) {
                Some(handles) => Arc::clone(handles),
                None => TableHandles::new(name, self.pages().lease()),
            };
            self.absent.insert(name.to_string(), Arc::clone(&handles));
            return Ok((handles.begin_reading()?, TreeRoot::default()));
        }
        let at = self.open_table(name, spec)?;
        let table = &self.tables[at];
        Ok((table.handles.begin_reading()?, table.record.root))
    }

    /// The table record of a table as this transaction sees it.
    pub(crate) fn record_of(&mut self, name: &str) -> Result<Option<TableRecord>> {
        self.check_usable()?;
        match self.tables.find(name) {
            Some(at) => Ok(Some(self.tables[at].record.clone())),
            None => self.find_record(name),
        }
    }

    fn find_record(&mut self, name: &str) -> Result<Option<TableRecord>> {
        catalog::check_name(name)?;
        let found = Tree::new(self.pages(), &self.catalog)
            .get(name.as_bytes())
            .and_then(|bytes| bytes.map(TableRecord::decode).transpose());
        let record = self.note(None, found)?.map(|record| record.with_order(&self.env.opened.key_orders));
        if let Some(record) = &record {
            record.known_flags(name)?;
        }
        Ok(record)
    }

    fn new_record(&mut self, name: &str, spec: TableSpec<'_>) -> Result<TableRecord> {
        let (key_codec, value_codec) = spec.codecs.codecs_of_new();
        let order = self.env.opened.key_orders.find(spec.flags, spec.key_order);
        let record = TableRecord {
            flags: spec.flags,
            root: TreeRoot { shape: flags::shape(spec.flags), order, ..TreeRoot::empty(self.next_tree) },
            key_codec: key_codec.to_string(),
            value_codec: value_codec.to_string(),
            key_order: spec.key_order.to_string(),
        };
        if record.root.shape.is_multi() && !order.is_bytewise() {
            return Err(Error::usage(format!(
                "table '{name}' was to be made as a multimap table with another key order; multimap tables have keys in \
                 bytewise order"
            )));
        }
        record.check_order(name)?;
        let (width, most) = (record.root.shape.width(), limits::max_inline_key_bytes(self.env.page_size));
        if width.is_some_and(|width| width > most) {
            let (what, len) = ("value of a multimap table", width.unwrap_or(0) as u64);
            return Err(Error::TooLarge { what, len, limit: most as u64, table: None });
        }
        let names = key_codec.len() + value_codec.len() + spec.key_order.len();
        let size = record.encode().len();
        let limit = limits::max_inline_value_bytes(self.env.page_size) - (size - names);
        if names > limit {
            return Err(Error::usage(format!(
                "the names of a table's codecs and key order have {names} bytes together, and the limit is {limit}; give \
                 shorter ones"
            )));
        }
        let next = TreeId(self.next_tree.0.saturating_add(1));
        if next.is_of_values() {
            return Err(Error::usage(
                "2^31 tables were made in this file, which is the limit; compact it to a new file",
            ));
        }
        self.next_tree = next;
        Ok(record)
    }

    /// Names and table records of all tables as this transaction sees them.
    pub(crate) fn table_records(&mut self) -> Result<Vec<(String, TableRecord)>> {
        self.check_usable()?;
        let listed = snapshot::table_records(self.pages(), &self.catalog);
        let mut tables: BTreeMap<String, TableRecord> = self.note(None, listed)?.into_iter().collect();
        for record in tables.values_mut() {
            *record = record.clone().with_order(&self.env.opened.key_orders);
        }
        tables.extend(self.tables.iter().map(|open| (open.name().to_string(), open.record.clone())));
        Ok(tables.into_iter().collect())
    }

    /// Removes a table with all its entries. Returns whether there was such a table.
    pub(crate) fn drop_table(&mut self, name: &str) -> Result<bool> {
        self.check_finished()?;
        let Some(mut root) = self.detach(name)? else { return Ok(false) };
        let pages = &mut writer_of(&mut self.writer).pages;
        let dropped = tree::drop_tree(pages, &mut root);
        self.note(None, dropped)?;
        self.catalog_changed = true;
        writer_of(&mut self.writer).record.drop_table(name);
        Ok(true)
    }

    /// Renames a table. `Usage` if there is no such table, or the new name is taken.
    pub(crate) fn rename_table(&mut self, from: &str, to: &str) -> Result<()> {
        self.check_finished()?;
        catalog::check_name(to)?;
        let taken = self.tables.find(to).is_some() || self.find_record(to)?.is_some();
        if taken && from != to {
            return Err(Error::usage(format!("there is already a table '{to}'; drop it or choose another name")));
        }
        let open = self.tables.find(from).is_some();
        if !open && self.find_record(from)?.is_none() {
            return Err(Error::usage(format!("there is no table '{from}'")));
        }
        if from == to {
            return Ok(());
        }
        let at = self.open_table(from, TableSpec::any())?;
        self.remove_from_catalog(from)?;
        let lease = self.pages().lease();
        self.tables.rename(at, to, lease);
        self.tables[at].changed = true;
        writer_of(&mut self.writer).record.rename_table(from, to);
        Ok(())
    }

    /// Removes a table from the catalog and from the open tables. Returns its root if there was
    /// such a table.
    fn detach(&mut self, name: &str) -> Result<Option<TreeRoot>> {
        let found = self.find_record(name)?;
        let open = self.tables.find(name);
        if found.is_some() {
            self.remove_from_catalog(name)?;
        }
        let root = match open {
            Some(at) => Some(self.tables.remove(at)),
            None => found.map(|record| record.root),
        };
        Ok(root)
    }

    fn remove_from_catalog(&mut self, name: &str) -> Result<()> {
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        let pages = &mut writer_of(&mut self.writer).pages;
        let deleted = TreeMut::new(pages, &mut self.catalog).delete(name.as_bytes(), None);
        self.catalog_changed |= self.note(None, deleted)?;
        Ok(())
    }
}
