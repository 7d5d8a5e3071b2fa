//! The database compared with maps: random transactions over several tables and multimaps, with
//! savepoints and nested transactions, aborts, reopening, named snapshots, and snapshots that are
//! held over many commits. Each snapshot is compared completely with the maps at the time when it
//! began.
//!
//! ```text
//! pairs    steps of multimaps
//! cursors  cursors of two tables that are alive at once, each with its place in a map
//! nested   nested transactions to any depth
//! ```
//!
//! proptest shrinks a failing case and keeps it in `tests/proptest-regressions`; each later run
//! tries it first. The seed is printed; see `support::seed`.

mod cursors;
mod nested;
mod pairs;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::discriminant;
use std::ops::Bound;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use mapleaf::testing::{with_mutant, Mutant};
use mapleaf::{ErrorKind, Options, ReadTable, ReadTxn, Savepoint, Table, TableMut, WriteTxn};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};

use crate::kinds::{same_owned, same_pairs};
use crate::support::{bytes, long, mix, seed, Rng, TestDb};

use cursors::{any_segments, Segment};
use nested::{any_change, Change};
use pairs::{any_pair_op, Multis, PairOp, MULTIS};

type Key = Vec<u8>;
type Entries = BTreeMap<Key, Arc<Vec<u8>>>;
type Tables = BTreeMap<u8, Entries>;
type Found<'a> = mapleaf::Result<(&'a [u8], &'a [u8])>;
type Bytes = Table<&'static [u8], &'static [u8]>;

fn table(number: u8) -> Bytes {
    Table::named(format!("table {number}"))
}

/// All tables: those of single values have the numbers 0 to 3, multimaps 4 to 6.
#[derive(Clone, Default)]
struct Model {
    tables: Tables,
    multis: Multis,
}

/// The name of a table with a number.
fn name_of(number: u8) -> String {
    if number < 4 {
        table(number).name().to_string()
    } else {
        pairs::name_of(number)
    }
}

/// A key, mostly one that lies in its page, whose limit the case has.
#[derive(Clone, Debug)]
enum KeyOf {
    Number(u16),
    Text(u16),
    /// Repetitions of a byte, then a tail.
    Repeated(u8, u16, u8),
    /// As long as the limit allows, less a little, with differences only at the end.
    Limit(u8, u8, u8),
    Random(u16, u16),
    /// A long key: a byte, a length out of several, the last byte.
    Long(u8, u8, u8),
}

impl KeyOf {
    fn bytes(&self, limit: usize) -> Key {
        let mut key = match *self {
            KeyOf::Number(number) => number.to_be_bytes().to_vec(),
            KeyOf::Text(number) => format!("user:{:08}:name", number % 2000).into_bytes(),
            KeyOf::Repeated(byte, count, tail) => {
                let mut key = vec![byte; usize::from(count)];
                key.extend(&[tail, 0, 0xff][..usize::from(tail) % 4]);
                key
            }
            KeyOf::Limit(byte, less, tail) => {
                let mut key = vec![byte; limit - usize::from(less)];
                if let Some(last) = key.last_mut() {
                    *last = tail;
                }
                key
            }
            KeyOf::Random(seed, len) => bytes(u64::from(seed), usize::from(len)),
            KeyOf::Long(byte, len, tail) => {
                let mut key = vec![byte; [limit + 1, 2 * limit, 60_001, 65_536][usize::from(len) % 4]];
                if let Some(last) = key.last_mut() {
                    *last = tail;
                }
                return key;
            }
        };
        key.truncate(limit);
        key
    }
}

fn any_key() -> impl Strategy<Value = KeyOf> {
    let nasty = prop_oneof![Just(0u8), Just(0xff), Just(0x7f), Just(b'a')];
    prop_oneof![
        4 => (0..3000u16).prop_map(KeyOf::Number),
        3 => any::<u16>().prop_map(KeyOf::Text),
        3 => (nasty.clone(), 0..40u16, any::<u8>()).prop_map(|(byte, count, tail)| KeyOf::Repeated(byte, count, tail)),
        2 => (nasty.clone(), 0..3u8, any::<u8>()).prop_map(|(byte, less, tail)| KeyOf::Limit(byte, less, tail)),
        1 => (nasty, 0..4u8, any::<u8>()).prop_map(|(byte, len, tail)| KeyOf::Long(byte, len, tail)),
        1 => (any::<u16>(), 0..1200u16).prop_map(|(seed, len)| KeyOf::Random(seed, len)),
    ]
}

/// Length of a value, relative to a threshold that depends on the page size.
#[derive(Clone, Debug)]
enum LenOf {
    Bytes(u32),
    /// The longest inline value (a quarter of a page less 24), plus a little.
    Inline(i8),
    /// This many whole pages, less a header, plus a little.
    Pages(u8, i8),
}

impl LenOf {
    fn bytes(&self, page_size: usize) -> usize {
        match *self {
            LenOf::Bytes(len) => len as usize,
            LenOf::Inline(more) => (page_size / 4 - 24).saturating_add_signed(isize::from(more)),
            LenOf::Pages(pages, more) => (usize::from(pages) * page_size - 32).saturating_add_signed(isize::from(more)),
        }
    }
}

fn any_len() -> impl Strategy<Value = LenOf> {
    prop_oneof![
        8 => (0..300u32).prop_map(LenOf::Bytes),
        3 => (-3..4i8).prop_map(LenOf::Inline),
        3 => (1..6u8, -3..4i8).prop_map(|(pages, more)| LenOf::Pages(pages, more)),
        1 => (0..200_000u32).prop_map(LenOf::Bytes),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, KeyOf, LenOf),
    Delete(u8, KeyOf),
    /// Deletes the entry with this index in the table.
    DeleteAt(u8, u16),
    /// Overwrites the entry with this index in the table.
    Overwrite(u8, u16, LenOf),
    /// Puts many: first number, step, count, length of the values.
    PutMany(u8, u16, u16, u16, LenOf),
    /// Deletes this many entries from this key on.
    DeleteRange(u8, KeyOf, u16),
    /// Appends this many entries after the last key.
    Append(u8, u16, LenOf),
    Large(u8, KeyOf, u32),
    Drop(u8),
    Rename(u8, u8),
    Read(u8),
    /// Changes two tables by turns, by two open handles, and reads a third meanwhile.
    ByTurns(u8, Vec<(bool, KeyOf, LenOf)>),
    /// Steps of a multimap.
    Pairs(u8, Vec<PairOp>),
    /// Looks up an entry, and then decides.
    Entry(u8, KeyOf, LenOf, u8),
    /// Cursors of this table and the next one, and a multimap beside them.
    Cursors(u8, Vec<Segment>),
    Savepoint,
    /// Goes back to one of the savepoints.
    RollBack(u8),
    GiveUp(u8),
    /// Transactions inside the transaction, to this depth; the bits say which commit.
    Nested(u8, u8, Vec<Change>),
    /// A named snapshot: which, and what happens to it.
    Named(u8, Named),
    Commit,
    Abort,
    Reopen,
    Snapshot,
    /// Compares one of the snapshots.
    Compare(u8),
    Release(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Named {
    Create,
    Read,
    Restore,
    Drop,
}

/// Kinds of steps, and kinds of changes of named snapshots.
const KINDS_OF_STEPS: usize = 26;
const KINDS_OF_NAMED: usize = 4;

fn any_op() -> impl Strategy<Value = Op> {
    let t = || 0..4u8;
    prop_oneof![
        14 => (t(), any_key(), any_len()).prop_map(|(t, key, len)| Op::Put(t, key, len)),
        4 => (t(), any_key()).prop_map(|(t, key)| Op::Delete(t, key)),
        6 => (t(), any::<u16>()).prop_map(|(t, at)| Op::DeleteAt(t, at)),
        6 => (t(), any::<u16>(), any_len()).prop_map(|(t, at, len)| Op::Overwrite(t, at, len)),
        6 => (t(), any::<u16>(), 1..40u16, 1..300u16, any_len())
            .prop_map(|(t, first, step, count, len)| Op::PutMany(t, first, step, count, len)),
        4 => (t(), any_key(), 1..400u16).prop_map(|(t, key, count)| Op::DeleteRange(t, key, count)),
        3 => (t(), 1..120u16, any_len()).prop_map(|(t, count, len)| Op::Append(t, count, len)),
        1 => (t(), any_key(), 500_000..4_000_000u32).prop_map(|(t, key, len)| Op::Large(t, key, len)),
        1 => (0..MULTIS.end).prop_map(Op::Drop),
        1 => (t(), t()).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (MULTIS, MULTIS).prop_map(|(from, to)| Op::Rename(from, to)),
        12 => (MULTIS, vec(any_pair_op(), 1..12)).prop_map(|(t, ops)| Op::Pairs(t, ops)),
        4 => (t(), any_key(), any_len(), any::<u8>()).prop_map(|(t, key, len, what)| Op::Entry(t, key, len, what)),
        6 => (t(), any_segments()).prop_map(|(t, segments)| Op::Cursors(t, segments)),
        4 => Just(Op::Savepoint),
        3 => any::<u8>().prop_map(Op::RollBack),
        1 => any::<u8>().prop_map(Op::GiveUp),
        5 => (0..5u8, any::<u8>(), vec(any_change(), 1..40))
            .prop_map(|(depth, commits, changes)| Op::Nested(depth, commits, changes)),
        6 => (0..3u8, prop_oneof![
            2 => Just(Named::Create), 2 => Just(Named::Read), 1 => Just(Named::Restore), 1 => Just(Named::Drop),
        ]).prop_map(|(name, what)| Op::Named(name, what)),
        3 => t().prop_map(Op::Read),
        6 => (t(), vec((any::<bool>(), any_key(), any_len()), 1..120)).prop_map(|(t, changes)| Op::ByTurns(t, changes)),
        9 => Just(Op::Commit),
        2 => Just(Op::Abort),
        1 => Just(Op::Reopen),
        4 => Just(Op::Snapshot),
        2 => any::<u8>().prop_map(Op::Compare),
        2 => any::<u8>().prop_map(Op::Release),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    page_size: u32,
    in_file: bool,
    window: Option<u64>,
    ops: Vec<Op>,
}

fn any_case() -> impl Strategy<Value = Case> {
    let page_size = prop_oneof![3 => Just(4096u32), 1 => Just(8192), 1 => Just(16384), 1 => Just(32768)];
    let window = prop_oneof![Just(None), Just(Some(0)), Just(Some(1 << 20)), Just(Some(5 << 20))];
    (page_size, any::<bool>(), window, vec(any_op(), 1..150)).prop_map(|(page_size, in_file, window, ops)| Case {
        page_size,
        in_file,
        window,
        ops,
    })
}

/// The state of a running case.
struct Run {
    db: TestDb,
    page_size: usize,
    txn: Option<WriteTxn>,
    /// The committed entries, and those of the running transaction.
    committed: Model,
    pending: Model,
    /// Savepoints of the running transaction.
    savepoints: Vec<(Savepoint, Model)>,
    named: BTreeMap<u8, Model>,
    snapshots: Vec<(ReadTxn, Model)>,
    /// Counter that makes every value different.
    version: u64,
}

impl Run {
    fn new(case: &Case) -> Run {
        let mut options = Options::new().page_size(case.page_size);
        if let Some(window) = case.window {
            options = options.window_size(window);
        }
        let db = if case.in_file { TestDb::file(options) } else { TestDb::memory(options) };
        let page_size = case.page_size as usize;
        let (committed, pending) = (Model::default(), Model::default());
        let (savepoints, named, snapshots) = (Vec::new(), BTreeMap::new(), Vec::new());
        Run { db, page_size, txn: None, committed, pending, savepoints, named, snapshots, version: 0 }
    }

    fn key_limit(&self) -> usize {
        self.page_size / 4 - 24
    }

    fn value(&mut self, len: &LenOf) -> Arc<Vec<u8>> {
        self.version += 1;
        Arc::new(bytes(self.version, len.bytes(self.page_size)))
    }

    /// Applies a change to a table of the running transaction and to its model.
    fn change<T>(
        &mut self,
        t: u8,
        change: impl FnOnce(&mut TableMut<'_, &'static [u8], &'static [u8]>, &mut Entries) -> T,
    ) -> T {
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        let mut handle = txn.table(table(t)).expect("table");
        let model = self.pending.tables.entry(t).or_default();
        let done = change(&mut handle, model);
        assert_eq!(handle.len(), model.len() as u64, "entries of table {t}");
        done
    }

    fn put(&mut self, t: u8, key: Key, value: Arc<Vec<u8>>) {
        self.change(t, |handle, model| {
            // Uses both ways to store, depending on the value.
            if value.len().is_multiple_of(2) {
                let existed = handle.put(&key, &value).expect("put");
                assert_eq!(existed, model.insert(key, value).is_some(), "the key was there");
            } else {
                let old = handle.insert(&key, &value).expect("insert");
                assert!(old.as_ref() == model.insert(key, value).as_deref(), "the old value");
            }
        });
    }

    fn delete(&mut self, t: u8, key: &Key) {
        self.change(t, |handle, model| {
            let old = handle.remove(key).expect("remove");
            assert!(old.as_ref() == model.remove(key).as_deref(), "the old value");
        });
    }

    fn key_at(&self, t: u8, at: u16) -> Option<Key> {
        let model = self.pending.tables.get(&t)?;
        model.keys().nth(usize::from(at) % model.len().max(1)).cloned()
    }

    fn append(&mut self, t: u8, count: u16, len: &LenOf) {
        let last = self.pending.tables.get(&t).and_then(|model| model.keys().next_back().cloned());
        let mut key = last.unwrap_or_default();
        let limit = self.key_limit();
        for step in 0..count {
            // The next key: one longer while there is room, else counted up.
            if step % 3 == 0 && key.len() < limit {
                key.push(0);
            } else {
                while key.last() == Some(&0xff) {
                    key.pop();
                }
                match key.last_mut() {
                    Some(last) => *last += 1,
                    None => break,
                }
            }
            let fits =
                self.pending.tables.get(&t).and_then(|model| model.keys().next_back()).is_none_or(|last| *last < key);
            let value = self.value(len);
            self.change(t, |handle, model| match handle.append(&key, &value) {
                Ok(()) => assert!(fits && model.insert(key.clone(), value).is_none()),
                Err(e) => assert!(!fits, "{e}"),
            });
        }
    }

    fn drop_table(&mut self, t: u8) {
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        let there = txn.drop_table(&name_of(t)).expect("drop");
        let Model { tables, multis } = &mut self.pending;
        assert_eq!(there, tables.remove(&t).is_some() | multis.remove(&t).is_some(), "whether there was a table {t}");
    }

    /// Renames a table, or a multimap.
    fn rename(&mut self, from: u8, to: u8) {
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        let Model { tables, multis } = &mut self.pending;
        let is_there = |t: u8| tables.contains_key(&t) || multis.contains_key(&t);
        let fine = is_there(from) && (from == to || !is_there(to));
        assert_eq!(txn.rename_table(&name_of(from), &name_of(to)).is_ok(), fine, "{from} to {to}");
        if fine {
            drop(tables.remove(&from).map(|entries| tables.insert(to, entries)));
            drop(multis.remove(&from).map(|pairs| multis.insert(to, pairs)));
        }
    }

    fn pairs(&mut self, t: u8, ops: &[PairOp]) {
        let limit = self.key_limit();
        let txn = &*self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        pairs::steps(txn, &mut self.pending.multis, t, ops, limit);
    }

    /// An entry that is there or not, and each way to go on.
    fn entry(&mut self, t: u8, key: Key, len: &LenOf, what: u8) {
        let value = self.value(len);
        self.change(t, |handle, model| {
            let entry = handle.entry(&key).expect("an entry");
            assert_eq!(entry.key().expect("its key"), key);
            match (what % 4, entry) {
                (0, entry) => {
                    let stored = entry.or_insert(&value).expect("stored");
                    assert!(stored == model.entry(key).or_insert(value).as_slice(), "the value of the entry");
                }
                (1, entry) => {
                    let found = entry.and_modify(|_| &value).expect("changed");
                    let is_there = matches!(found, mapleaf::Entry::Occupied(_));
                    assert_eq!(is_there, model.contains_key(&key));
                    model.entry(key).and_modify(|old| *old = value);
                }
                (2, mapleaf::Entry::Occupied(entry)) => {
                    assert!(entry.remove().expect("removed").as_ref() == model.remove(&key).as_deref());
                }
                (3, mapleaf::Entry::Occupied(mut entry)) => {
                    assert!(entry.get().expect("its value") == model[&key].as_slice());
                    let old = entry.insert(&value).expect("stored");
                    assert!(old.as_ref() == model.insert(key, value).as_deref(), "the old value");
                }
                (_, mapleaf::Entry::Vacant(entry)) => {
                    assert!(entry.insert(&value).expect("stored") == value.as_slice());
                    assert!(model.insert(key, value).is_none());
                }
                (_, entry) => panic!("{entry:?}"),
            }
        });
    }

    fn cursors(&mut self, t: u8, segments: &[Segment]) {
        let (limit, page_size) = (self.key_limit(), self.page_size);
        let txn = &*self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        cursors::run(txn, &mut self.pending, t, segments, (limit, page_size), &mut self.version);
    }

    fn savepoint(&mut self) {
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        self.savepoints.push((txn.savepoint().expect("a savepoint"), self.pending.clone()));
    }

    fn roll_back(&mut self, at: u8) {
        let (Some(txn), false) = (&mut self.txn, self.savepoints.is_empty()) else { return };
        let at = usize::from(at) % self.savepoints.len();
        txn.rollback_to(&self.savepoints[at].0).expect("went back");
        for (gone, _) in self.savepoints.split_off(at + 1) {
            assert_eq!(txn.rollback_to(&gone).map_err(|e| e.kind()), Err(ErrorKind::Usage), "it was given up");
        }
        self.pending = self.savepoints[at].1.clone();
        nested::assert_sees(txn, &self.pending);
    }

    fn give_up(&mut self, at: u8) {
        let (Some(txn), false) = (&mut self.txn, self.savepoints.is_empty()) else { return };
        let at = usize::from(at) % self.savepoints.len();
        txn.release(self.savepoints[at].0).expect("given up");
        self.savepoints.truncate(at);
    }

    fn nested(&mut self, depth: u8, commits: u8, changes: &[Change]) {
        let (limit, page_size) = (self.key_limit(), self.page_size);
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        nested::run(txn, &mut self.pending, (depth, commits), changes, (limit, page_size));
    }

    /// Each change of the named snapshots is a transaction of its own.
    fn named(&mut self, number: u8, what: Named) {
        self.commit();
        let name = format!("snapshot {number}");
        let there = self.named.get(&number).cloned();
        let expected = if there.is_some() == (what != Named::Create) { Ok(()) } else { Err(ErrorKind::Usage) };
        let done = match what {
            Named::Create => self.db.create_snapshot(&name).map(drop),
            Named::Restore => self.db.restore_snapshot(&name),
            Named::Drop => self.db.drop_snapshot(&name),
            Named::Read => self.db.read_snapshot(&name).map(|txn| {
                let model = there.clone().expect("a snapshot that was created");
                compare(&txn, &model);
                if self.snapshots.len() < 6 {
                    self.snapshots.push((txn, model));
                }
            }),
        };
        assert_eq!(done.map_err(|e| e.kind()), expected, "{what:?} of {name}");
        match (what, there) {
            (Named::Create, None) => drop(self.named.insert(number, self.committed.clone())),
            (Named::Drop, _) => drop(self.named.remove(&number)),
            (Named::Restore, Some(model)) => (self.committed, self.pending) = (model.clone(), model),
            _ => {}
        }
    }

    /// Reads a table inside the transaction.
    fn read(&mut self, t: u8) {
        if self.txn.is_none() || !self.pending.tables.contains_key(&t) {
            return;
        }
        self.change(t, |handle, model| {
            let entries = handle.iter();
            let same = |(found, (key, value)): (Found<'_>, (&Key, &Arc<Vec<u8>>))| {
                assert!(found.expect("entry") == (key.as_slice(), value.as_slice()), "entry {key:?}");
            };
            entries.zip(model.iter()).for_each(same);
            handle.iter().rev().zip(model.iter().rev()).for_each(same);
            assert_eq!(handle.iter().count(), model.len());
        });
    }

    /// Changes table `t` and the one after it by turns, and reads a third one a step at a time.
    /// What was borrowed from a table is compared when the other one has changed.
    fn by_turns(&mut self, t: u8, changes: &[(bool, KeyOf, LenOf)]) {
        let (t, other, third) = (t % 4, (t + 1) % 4, (t + 2) % 4);
        let (limit, page_size) = (self.key_limit(), self.page_size);
        let txn = &*self.txn.get_or_insert_with(|| self.db.begin_write().expect("begins"));
        let mut handles = [t, other].map(|t| txn.table(table(t)).expect("table"));
        let mut models = [t, other].map(|t| self.pending.tables.remove(&t).unwrap_or_default());
        assert!(txn.table(table(t)).is_err() && txn.read_table(table(other)).is_err(), "they are open");
        let reading = txn.read_table(table(third)).expect("no handle writes to it");
        let nothing = Entries::new();
        let mut wanted = self.pending.tables.get(&third).unwrap_or(&nothing).iter();
        let (mut entries, mut borrowed) = (reading.iter(), Vec::new());
        for (second, key, len) in changes {
            let (key, version) = (key.bytes(limit), self.version);
            self.version += 1;
            let value = Arc::new(bytes(version, len.bytes(page_size)));
            let ([a, b], [model_a, model_b]) = (&mut handles, &mut models);
            let (changed, model, still, still_model) = match second {
                false => (a, model_a, b, model_b),
                true => (b, model_b, a, model_a),
            };
            let near = still_model.range::<Key, _>(&key..).next().or(still_model.last_key_value());
            let found = near.map(|(near, _)| still.get(near).expect("get").expect("there"));
            let edges = (still.first().expect("first"), still.last().expect("last"));
            match value.len() % 4 {
                0 => assert_eq!(changed.delete(&key).expect("delete"), model.remove(&key).is_some()),
                1 => assert!(
                    changed.insert(&key, &value).expect("insert").is_some() == model.insert(key, value).is_some()
                ),
                _ if model.last_key_value().is_none_or(|(last, _)| *last < key) => {
                    changed.append(&key, &value).expect("above the last");
                    model.insert(key, value);
                }
                _ => assert_eq!(changed.put(&key, &value).expect("put"), model.insert(key, value).is_some()),
            }
            let borrow =
                |entry: Option<(&'_ Key, &'_ Arc<Vec<u8>>)>| entry.map(|(key, value)| (key.clone(), Arc::clone(value)));
            let same = |found: Option<(&[u8], &[u8])>, model: Option<(Key, Arc<Vec<u8>>)>| match (found, model) {
                (Some((key, value)), Some((in_model, value_in_model))) => {
                    key == in_model && value == value_in_model.as_slice()
                }
                (found, model) => found.is_none() && model.is_none(),
            };
            assert!(found == near.map(|(_, value)| value.as_slice()), "a value while another table changes");
            assert!(
                same(edges.0, borrow(still_model.first_key_value()))
                    && same(edges.1, borrow(still_model.last_key_value()))
            );
            borrowed.extend(entries.next().map(|entry| entry.expect("entry")));
        }
        borrowed.extend(entries.map(|entry| entry.expect("entry")));
        for entry in borrowed {
            assert!(wanted.next().is_some_and(|(key, value)| entry == (key.as_slice(), value.as_slice())));
        }
        assert!(wanted.next().is_none(), "all entries of the table that is read");
        drop(handles);
        self.pending.tables.extend([t, other].into_iter().zip(models));
    }

    fn commit(&mut self) {
        if let Some(txn) = self.txn.take() {
            let listed: Vec<(String, u64)> =
                txn.tables().expect("tables").into_iter().map(|table| (table.name, table.entries)).collect();
            assert_eq!(listed, names(&self.pending));
            txn.commit().expect("commit");
            self.committed = self.pending.clone();
            self.savepoints.clear();
        }
    }

    fn abort(&mut self) {
        self.txn = None;
        self.savepoints.clear();
        self.pending = self.committed.clone();
    }

    fn step(&mut self, op: &Op) {
        let limit = self.key_limit();
        match op {
            Op::Put(t, key, len) => {
                let value = self.value(len);
                self.put(*t, key.bytes(limit), value);
            }
            Op::Delete(t, key) => self.delete(*t, &key.bytes(limit)),
            Op::DeleteAt(t, at) => {
                if let Some(key) = self.key_at(*t, *at) {
                    self.delete(*t, &key);
                }
            }
            Op::Overwrite(t, at, len) => {
                if let Some(key) = self.key_at(*t, *at) {
                    let value = self.value(len);
                    self.put(*t, key, value);
                }
            }
            Op::PutMany(t, first, step, count, len) => {
                // Many large values would take long and try nothing new.
                let len = if len.bytes(self.page_size) > 6 * self.page_size { &LenOf::Bytes(50) } else { len };
                for number in 0..*count {
                    let value = self.value(len);
                    let key = if step % 2 == 0 { KeyOf::Number } else { KeyOf::Text };
                    self.put(*t, key(first.wrapping_add(number.wrapping_mul(*step))).bytes(limit), value);
                }
            }
            Op::DeleteRange(t, from, count) => {
                let from = from.bytes(limit);
                let keys: Vec<Key> = match self.pending.tables.get(t) {
                    Some(model) => model.range(from..).take(usize::from(*count)).map(|(key, _)| key.clone()).collect(),
                    None => Vec::new(),
                };
                keys.iter().for_each(|key| self.delete(*t, key));
            }
            Op::Append(t, count, len) => {
                let len = if len.bytes(self.page_size) > 6 * self.page_size { &LenOf::Bytes(50) } else { len };
                self.append(*t, *count, len);
            }
            Op::Large(t, key, len) => {
                let value = self.value(&LenOf::Bytes(*len));
                self.put(*t, key.bytes(limit), value);
            }
            Op::Drop(t) => self.drop_table(*t),
            Op::Rename(from, to) => self.rename(*from, *to),
            Op::Read(t) => self.read(*t),
            Op::ByTurns(t, changes) => self.by_turns(*t, changes),
            Op::Pairs(t, ops) => self.pairs(*t, ops),
            Op::Entry(t, key, len, what) => self.entry(*t, key.bytes(limit), len, *what),
            Op::Cursors(t, segments) => self.cursors(*t, segments),
            Op::Savepoint => self.savepoint(),
            Op::RollBack(at) => self.roll_back(*at),
            Op::GiveUp(at) => self.give_up(*at),
            Op::Nested(depth, commits, changes) => self.nested(*depth, *commits, changes),
            Op::Named(name, what) => self.named(*name, *what),
            Op::Commit => self.commit(),
            Op::Abort => self.abort(),
            Op::Reopen => {
                self.abort();
                self.snapshots.drain(..).for_each(|(txn, model)| compare(&txn, &model));
                self.db.reopen();
                self.db.assert_clean();
            }
            Op::Snapshot => {
                if self.snapshots.len() < 6 {
                    let txn = self.db.begin_read().expect("begins");
                    self.snapshots.push((txn, self.committed.clone()));
                }
            }
            Op::Compare(at) => {
                if let Some((txn, model)) = self.snapshots.get(usize::from(*at) % self.snapshots.len().max(1)) {
                    compare(txn, model);
                }
            }
            Op::Release(at) => {
                if !self.snapshots.is_empty() {
                    let (txn, model) = self.snapshots.swap_remove(usize::from(*at) % self.snapshots.len());
                    compare(&txn, &model);
                }
            }
        }
    }

    fn end(mut self) {
        if self.version.is_multiple_of(2) {
            self.commit();
        } else {
            self.abort();
        }
        self.db.assert_clean();
        compare(&self.db.begin_read().expect("begins"), &self.committed);
        for (number, model) in &self.named {
            compare(&self.db.read_snapshot(&format!("snapshot {number}")).expect("read"), model);
        }
        self.snapshots.iter().for_each(|(txn, model)| compare(txn, model));
        self.snapshots.clear();
        self.db.reopen();
        compare(&self.db.begin_read().expect("begins"), &self.committed);
    }
}

fn names(model: &Model) -> Vec<(String, u64)> {
    let singles = model.tables.iter().map(|(&t, entries)| (name_of(t), entries.len() as u64));
    let count = |pairs: &crate::kinds::Pairs| pairs.values().map(BTreeSet::len).sum::<usize>() as u64;
    let mut names: Vec<_> = model.multis.iter().map(|(&t, (_, pairs))| (name_of(t), count(pairs))).collect();
    names.extend(singles);
    names.sort();
    names
}

/// Compares a snapshot with its model, whole.
fn compare(txn: &ReadTxn, model: &Model) {
    let listed: Vec<(String, u64)> =
        txn.tables().expect("tables").into_iter().map(|table| (table.name, table.entries)).collect();
    assert_eq!(listed, names(model), "tables of the snapshot at {}", txn.txn_id());
    for (&t, entries) in &model.tables {
        compare_table(&txn.table(table(t)).expect("table"), entries);
    }
    for (&t, (_, pairs)) in &model.multis {
        let found = txn.multi_bytes_table(&name_of(t)).expect("a multimap");
        same_pairs(&found, pairs);
        same_owned(&found, pairs);
    }
}

fn compare_table(found: &ReadTable<&'static [u8], &'static [u8]>, model: &Entries) {
    assert_eq!(found.len(), model.len() as u64);
    let same = |found: mapleaf::Range<'_, &[u8], &[u8]>, model: Vec<(&Key, &Arc<Vec<u8>>)>, back: bool| {
        let mut found: Vec<_> = if back { found.rev().collect() } else { found.collect() };
        if back {
            found.reverse();
        }
        assert_eq!(found.len(), model.len(), "entries, backwards: {back}");
        for (found, (key, value)) in found.into_iter().zip(model) {
            assert!(found.expect("entry") == (key.as_slice(), value.as_slice()), "entry {key:?}, backwards: {back}");
        }
    };
    for back in [false, true] {
        same(found.iter(), model.iter().collect(), back);
    }
    let edge = |entry: Option<(&[u8], &[u8])>| entry.map(|(key, value)| (key.to_vec(), value.to_vec()));
    let wanted = |entry: Option<(&Key, &Arc<Vec<u8>>)>| entry.map(|(key, value)| (key.clone(), value.to_vec()));
    assert!(edge(found.first().expect("first")) == wanted(model.first_key_value()), "the first entry");
    assert!(edge(found.last().expect("last")) == wanted(model.last_key_value()), "the last entry");
    for batch in model.keys().collect::<Vec<_>>().chunks(73) {
        let values = found.multi_get(batch.iter().map(|key| key.as_slice())).expect("multi_get");
        assert!(values.iter().map(|value| value.expect("there")).eq(batch.iter().map(|key| model[*key].as_slice())));
    }
    // Existing keys, and neighbours that mostly do not exist.
    let mut rng = Rng::new(mix(model.len() as u64));
    let keys: Vec<&Key> = model.keys().collect();
    for _ in 0..keys.len().min(60) {
        let mut key = keys[rng.below(keys.len() as u64) as usize].clone();
        assert!(found.get(&key).expect("get") == model.get(&key).map(|value| value.as_slice()), "key {key:?}");
        match rng.below(3) {
            0 => key.push(0),
            1 => drop(key.pop()),
            _ => key.iter_mut().last().into_iter().for_each(|last| *last = last.wrapping_add(1)),
        }
        assert!(found.get(&key).expect("get") == model.get(&key).map(|value| value.as_slice()), "key {key:?}");
        assert_eq!(found.contains_key(&key).expect("contains"), model.contains_key(&key));
        let prefix = &key[..rng.below(key.len().min(12) as u64 + 1) as usize];
        let with = model.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let with: Vec<_> = with.take_while(|(key, _)| key.starts_with(prefix)).collect();
        same(found.prefix(prefix).expect("prefix"), with, rng.below(2) == 0);
        let other = keys[rng.below(keys.len() as u64) as usize].clone();
        let (low, high) = if key < other { (key, other) } else { (other, key) };
        if low < high {
            let bounds = match rng.below(4) {
                0 => (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice())),
                1 => (Bound::Included(low.as_slice()), Bound::Included(high.as_slice())),
                2 => (Bound::Excluded(low.as_slice()), Bound::Excluded(high.as_slice())),
                _ => (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice())),
            };
            same(found.range(bounds).expect("range"), model.range::<[u8], _>(bounds).collect(), rng.below(2) == 0);
        }
    }
}

#[test]
fn any_sequence_of_transactions_behaves_like_a_map() {
    any_sequence(96);
}

/// The same with a writable mapping in which the processor forbids every store but to the
/// transaction's own pages.
#[test]
fn any_sequence_of_transactions_stores_only_to_its_own_pages() {
    mapleaf::testing::strict_claims(true);
    any_sequence(48);
}

/// The test can fail: it finds what is forgotten when pages are freed, when a transaction goes
/// back, and when a writer counts the states that are still read.
#[test]
fn the_sequences_find_what_is_forgotten() {
    for mutant in [
        Mutant::ValueTreeNotFreed,
        Mutant::ValueTreeUnsealed,
        Mutant::TakenNotRolledBack,
        Mutant::FreedNotRolledBack,
        Mutant::SnapshotsLeftOut,
    ] {
        let config = Config { cases: 96, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let run = || with_mutant(Some(mutant), || run_sequences(config));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{mutant:?} was not found");
    }
}

fn any_sequence(cases: u32) {
    run_sequences(Config {
        cases: cases * long(),
        max_shrink_iters: 3000,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("proptest-regressions"))),
        source_file: Some(file!()),
        ..Config::default()
    });
}

fn run_sequences(config: Config) {
    let mut start = [0; 32];
    let mut rng = Rng::new(seed("any_sequence_of_transactions"));
    start.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next().to_le_bytes()));
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &start));
    let (steps, named) = (RefCell::new(HashSet::new()), RefCell::new(HashSet::new()));
    let done = runner.run(&any_case(), |case| {
        for op in &case.ops {
            steps.borrow_mut().insert(discriminant(op));
            if let Op::Named(_, what) = op {
                named.borrow_mut().insert(*what);
            }
        }
        let mut run = Run::new(&case);
        case.ops.iter().for_each(|op| run.step(op));
        run.end();
        Ok(())
    });
    if let Err(e) = done {
        panic!("{e}");
    }
    assert_eq!((steps.borrow().len(), named.borrow().len()), (KINDS_OF_STEPS, KINDS_OF_NAMED), "each kind of step");
}
