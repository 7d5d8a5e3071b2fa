//! The tables that a write transaction has opened.
//!
//! Floor: txn. Each open table has a number, which its handles use, and an index finds the number
//! by the table's name. So the time to open a table does not depend on how many are open. The
//! handles of a table are counted (`handles`).
//!
//! Invariants:
//!   TABLES-1  the index has the name and number of each open table, and no other name.
//!   TABLES-2  numbers do not change until a table is removed. Removing one borrows the
//!             transaction exclusively, so no handle is in use then.
//!   TABLES-3  after going back to a savepoint, tables, names, numbers and roots are those of the
//!             savepoint.
//!
//! A savepoint copies nothing: each table is saved before its first change after the savepoint.
//!
//! Failure: using a number that no table has is a bug and panics.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use crate::catalog::TableRecord;
use crate::hooks;
use crate::mapping::Lease;
use crate::page::meta::TreeRoot;
use crate::tree::{AppendHint, PopHint, PutHint, ValueHint};
use crate::txn::write::handles::TableHandles;

/// A table that the write transaction has opened, and the changes that are not in the catalog yet.
#[derive(Debug)]
pub(crate) struct TxnTable {
    pub(crate) handles: Arc<TableHandles>,
    pub(crate) record: TableRecord,
    pub(crate) changed: bool,
    pub(crate) put_hint: PutHint,
    pub(crate) append_hint: AppendHint,
    pub(crate) pop_hint: PopHint,
    pub(crate) value_hint: ValueHint,
    /// Its number in the record of the transaction, once the record names it.
    pub(crate) recorded: Option<u32>,
    /// What was begun with the table and not finished, such as a load.
    unfinished: Option<&'static str>,
    /// The savepoint since which `TableSet::undo` has this table as it was, or since which it is
    /// open.
    saved_for: u64,
}

impl TxnTable {
    pub(crate) fn name(&self) -> &str {
        self.handles.name()
    }

    /// What was begun with the table and not finished.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        self.unfinished
    }

    /// Notes a change of the tree by another operation than a put or an append: the hints do not
    /// hold any more.
    pub(crate) fn note_change(&mut self) {
        self.put_hint = PutHint::default();
        self.append_hint = AppendHint::default();
        self.pop_hint = PopHint::default();
        self.value_hint = ValueHint::default();
        self.changed = true;
    }
}

/// The open tables of a write transaction.
#[derive(Debug, Default)]
pub(crate) struct TableSet {
    tables: Vec<TxnTable>,
    by_name: BTreeMap<String, usize>,
    /// The number of tables with something unfinished.
    unfinished: usize,
    /// Numbers the savepoints; grows.
    savepoints: u64,
    /// The newest savepoint. 0: there is none.
    newest: u64,
    /// The changes since the oldest savepoint, and how to take them back.
    undo: Vec<Undo>,
}

/// The open tables at a savepoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TablesMark {
    savepoint: u64,
    undo: usize,
}

/// How to take back a change of the set. Numbers are those from just after the change.
#[derive(Debug)]
enum Undo {
    /// A table was changed: it was like this.
    Changed { at: usize, before: Box<Unchanged> },
    /// The last table was added.
    Added,
    /// A table was removed.
    Removed { at: usize, table: Box<TxnTable> },
    /// A table was renamed: later handles are others.
    Renamed { at: usize, before: Arc<TableHandles> },
}

/// A table before a change: everything but its name and handles, which `Undo::Renamed` has, and the
/// names of its codecs, which do not change.
#[derive(Clone, Copy, Debug)]
struct Unchanged {
    flags: u32,
    root: TreeRoot,
    changed: bool,
    put_hint: PutHint,
    append_hint: AppendHint,
    pop_hint: PopHint,
    value_hint: ValueHint,
    recorded: Option<u32>,
    unfinished: Option<&'static str>,
    saved_for: u64,
}

impl TableSet {
    /// Sets a savepoint.
    pub(crate) fn mark(&mut self) -> TablesMark {
        self.savepoints += 1;
        self.newest = self.savepoints;
        TablesMark { savepoint: self.newest, undo: self.undo.len() }
    }

    /// Goes back to a savepoint, which stays.
    pub(crate) fn roll_back(&mut self, mark: &TablesMark) {
        for undo in self.undo.split_off(mark.undo).into_iter().rev() {
            self.take_back(undo);
        }
        self.newest = mark.savepoint;
    }

    /// Gives up a savepoint and all after it; `before` is the one before it, if there is one.
    pub(crate) fn release(&mut self, mark: &TablesMark, before: Option<&TablesMark>) {
        self.newest = before.map_or(0, |before| before.savepoint);
        let since = self.undo.split_off(mark.undo);
        if let Some(before) = before {
            // A table that was saved for `before`, or added since, needs not be saved again.
            let is_needed = |undo: &Undo| match undo {
                Undo::Changed { before: saved, .. } => saved.saved_for < before.savepoint,
                _ => true,
            };
            self.undo.extend(since.into_iter().filter(is_needed));
        }
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Changed { at, before } => {
                let table = &mut self.tables[at];
                (table.record.flags, table.record.root, table.changed) = (before.flags, before.root, before.changed);
                (table.put_hint, table.append_hint) = (before.put_hint, before.append_hint);
                (table.pop_hint, table.recorded) = (before.pop_hint, before.recorded);
                table.value_hint = before.value_hint;
                table.saved_for = before.saved_for;
                self.unfinished += usize::from(before.unfinished.is_some());
                self.unfinished -= usize::from(table.unfinished.is_some());
                table.unfinished = before.unfinished;
            }
            Undo::Added => {
                if let Some(added) = self.tables.pop() {
                    self.unfinished -= usize::from(added.unfinished.is_some());
                    self.by_name.remove(added.name());
                }
            }
            Undo::Removed { at, table } => {
                self.by_name.insert(table.name().to_string(), at);
                self.unfinished += usize::from(table.unfinished.is_some());
                let last = self.tables.len();
                self.tables.push(*table);
                if at < last {
                    self.tables.swap(at, last);
                    self.by_name.insert(self.tables[last].name().to_string(), last);
                }
            }
            Undo::Renamed { at, before } => drop(self.set_handles(at, before)),
        }
    }

    /// Saves a table as it is, for the newest savepoint.
    #[cold]
    fn save(&mut self, at: usize) {
        let table = &mut self.tables[at];
        let before = Unchanged {
            flags: table.record.flags,
            root: table.record.root,
            changed: table.changed,
            put_hint: table.put_hint,
            append_hint: table.append_hint,
            pop_hint: table.pop_hint,
            value_hint: table.value_hint,
            recorded: table.recorded,
            unfinished: table.unfinished,
            saved_for: table.saved_for,
        };
        table.saved_for = self.newest;
        self.undo.push(Undo::Changed { at, before: Box::new(before) });
    }

    fn note(&mut self, undo: Undo) {
        if self.newest > 0 {
            self.undo.push(undo);
        }
    }

    /// Returns the number of the open table with this name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        hooks::count_step();
        self.by_name.get(name).copied()
    }

    /// Adds a table whose name no other table has. Its handles lend pages by `lease`. Returns its
    /// number.
    pub(crate) fn add(&mut self, name: &str, record: TableRecord, changed: bool, lease: Lease) -> usize {
        let at = self.tables.len();
        let known = self.by_name.insert(name.to_string(), at);
        debug_assert!(known.is_none(), "two tables of one name");
        let handles = TableHandles::new(name, lease);
        let (put_hint, append_hint, pop_hint) = Default::default();
        let (recorded, unfinished, saved_for) = (None, None, self.newest);
        self.tables.push(TxnTable {
            handles,
            record,
            changed,
            put_hint,
            append_hint,
            pop_hint,
            value_hint: ValueHint::default(),
            recorded,
            unfinished,
            saved_for,
        });
        self.note(Undo::Added);
        at
    }

    /// Notes that something was begun with a table that has nothing unfinished.
    pub(crate) fn begin(&mut self, at: usize, what: &'static str) {
        debug_assert!(self.tables[at].unfinished.is_none(), "a table has one unfinished thing");
        self.set_unfinished(at, Some(what));
    }

    /// Notes that it was finished, or undone.
    pub(crate) fn finish(&mut self, at: usize) {
        self.set_unfinished(at, None);
    }

    fn set_unfinished(&mut self, at: usize, what: Option<&'static str>) {
        self.unfinished += usize::from(what.is_some());
        let before = std::mem::replace(&mut self[at].unfinished, what);
        self.unfinished -= usize::from(before.is_some());
    }

    /// Something that was begun and not finished.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        (self.unfinished > 0).then(|| self.iter().find_map(|table| table.unfinished)).flatten()
    }

    /// Removes a table, and returns its root. The last table of the set gets the removed table's
    /// number.
    pub(crate) fn remove(&mut self, at: usize) -> TreeRoot {
        hooks::count_step();
        let removed = self.tables.swap_remove(at);
        self.by_name.remove(removed.name());
        if let Some(number) = self.tables.get(at).and_then(|moved| self.by_name.get_mut(moved.name())) {
            *number = at;
        }
        self.unfinished -= usize::from(removed.unfinished.is_some());
        let root = removed.record.root;
        if self.newest > 0 {
            self.note(Undo::Removed { at, table: Box::new(removed) });
        }
        root
    }

    /// Renames a table, whose later handles lend by `lease`. No other table has the new name.
    pub(crate) fn rename(&mut self, at: usize, name: &str, lease: Lease) {
        let before = self.set_handles(at, TableHandles::new(name, lease));
        self.note(Undo::Renamed { at, before });
    }

    fn set_handles(&mut self, at: usize, handles: Arc<TableHandles>) -> Arc<TableHandles> {
        self.by_name.insert(handles.name().to_string(), at);
        let before = std::mem::replace(&mut self.tables[at].handles, handles);
        self.by_name.remove(before.name());
        before
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&TxnTable> {
        self.tables.get(at)
    }

    /// All tables, by their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TxnTable> {
        self.tables.iter().inspect(|_| hooks::count_step())
    }
}

impl Index<usize> for TableSet {
    type Output = TxnTable;

    #[inline]
    fn index(&self, at: usize) -> &TxnTable {
        hooks::count_step();
        &self.tables[at]
    }
}

impl IndexMut<usize> for TableSet {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut TxnTable {
        hooks::count_step();
        if self.tables[at].saved_for < self.newest {
            self.save(at);
        }
        &mut self.tables[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TreeId;

    fn record(tree: u32) -> TableRecord {
        TableRecord {
            flags: 0,
            root: TreeRoot::empty(TreeId(tree)),
            key_codec: "bytes".into(),
            value_codec: "bytes".into(),
            key_order: String::new(),
        }
    }

    #[test]
    fn agrees_with_a_map_of_names_while_tables_come_go_and_change_their_names() {
        let (mut set, mut model) = (TableSet::default(), BTreeMap::new());
        let mut state = 7u64;
        for tree in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (name, other) = (format!("t{}", state >> 33 & 63), format!("t{}", state >> 40 & 63));
            match (set.find(&name), state >> 50 & 3) {
                (None, _) => {
                    set.add(&name, record(tree), false, Lease::default());
                    model.insert(name, tree);
                }
                (Some(at), 0) => {
                    assert_eq!(Some(set.remove(at).tree.0), model.remove(&name));
                }
                (Some(at), 1) if set.find(&other).is_none() => {
                    set.rename(at, &other, Lease::default());
                    let tree = model.remove(&name).expect("known");
                    model.insert(other, tree);
                }
                (Some(at), _) => {
                    assert_eq!((set[at].name(), Some(&set[at].record.root.tree.0)), (&*name, model.get(&name)))
                }
            }
            assert_eq!(set.len(), model.len());
        }
        for (name, tree) in &model {
            let at = set.find(name).expect("there");
            assert_eq!((set[at].name(), set[at].record.root.tree.0), (name.as_str(), *tree));
        }
        assert_eq!(set.iter().count(), model.len());
    }
}
