//! A seeded workload: the seed and t determine transaction t.
//!
//! So after any crash, any process can compute the contents of a database at transaction t and
//! continue from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mapleaf::{Db, Durability, MultiTableMut, ReadTxn, Result, WriteTxn};

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Whether `MAPLEAF_LONG` asks for long runs.
pub(crate) fn long() -> bool {
    crate::support::long() > 1
}

/// A directory in memory, if there is one: most tests judge files, not disks.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A value, as the seed and length that generate it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Value {
    seed: u64,
    len: usize,
    /// Zeros up to the last byte.
    tail: bool,
}

impl Value {
    pub(crate) fn bytes(self) -> Vec<u8> {
        if self.tail {
            let mut bytes = vec![0; self.len];
            bytes[self.len - 1] = self.seed as u8 | 1;
            return bytes;
        }
        let mut rng = Rng(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend_from_slice(&rng.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}

enum Op {
    Put(&'static str, Vec<u8>, Value),
    Delete(&'static str, Vec<u8>),
    /// Removes the keys from one on and below another.
    Remove(&'static str, Vec<u8>, Vec<u8>),
    Drop(&'static str),
    /// Changes values of a key of a multimap: adds those from a number on, or removes them.
    Insert(&'static str, u8, Numbers),
    RemoveValues(&'static str, u8, Numbers),
    RemoveAll(&'static str, u8),
    /// Removes the keys of a multimap from one on.
    RemoveFrom(&'static str, u8),
    /// Entries of one table, some with the same keys, and the memory that sorting them may take.
    Load(&'static str, Vec<(Vec<u8>, Value)>, usize),
}

impl Op {
    fn perform(self, txn: &mut WriteTxn, watch: &mut dyn FnMut()) -> Result<()> {
        match self {
            Op::Put(table, key, value) => drop(txn.bytes_table(table)?.insert(&key, &value.bytes())?),
            Op::Delete(table, key) => drop(txn.bytes_table(table)?.remove(&key)?),
            Op::Remove(table, low, high) => {
                txn.bytes_table(table)?.remove_range(low.as_slice()..high.as_slice())?;
            }
            Op::Drop(table) => {
                txn.drop_table(table)?;
            }
            Op::Insert(table, key, numbers) => {
                let mut open = open_multi(txn, table)?;
                numbers.values(table).try_for_each(|value| open.insert(&[key], &value).map(drop))?;
            }
            Op::RemoveValues(table, key, numbers) => {
                let mut open = open_multi(txn, table)?;
                numbers.values(table).try_for_each(|value| open.remove(&[key], &value).map(drop))?;
            }
            Op::RemoveAll(table, key) => drop(open_multi(txn, table)?.remove_all(&[key])?),
            Op::RemoveFrom(table, key) => drop(open_multi(txn, table)?.remove_range(&[key][..]..)?),
            Op::Load(table, entries, memory) => {
                let mut table = txn.bytes_table(table)?;
                let mut loader = table.loader()?.memory(memory);
                for (key, value) in entries {
                    loader.push(&key, &value.bytes())?;
                    watch();
                }
                loader.finish()?;
            }
        }
        Ok(())
    }
}

/// Numbers whose values are inserted or removed.
#[derive(Clone, Copy)]
struct Numbers {
    from: u64,
    count: u64,
}

impl Numbers {
    fn values(self, table: &'static str) -> impl Iterator<Item = Vec<u8>> {
        (self.from..self.from + self.count).map(move |number| match table {
            FIXED => number.to_be_bytes().to_vec(),
            _ => [&number.to_be_bytes()[4..], &vec![b'v'; number as usize % 40][..]].concat(),
        })
    }
}

/// Opens a multimap, or makes it.
fn open_multi<'t>(txn: &'t WriteTxn, table: &'static str) -> Result<MultiTableMut<'t, &'static [u8], &'static [u8]>> {
    match table {
        FIXED => txn.create_multi_table(table, "", "", Some(8)),
        _ => txn.multi_bytes_table(table),
    }
}

/// The multimaps: one of values of one size, one of any. In a state they have an entry for each
/// pair, whose key is the key, of one byte, and then the value.
const FIXED: &str = "pines";
const MULTIMAPS: [&str; 2] = [FIXED, "oaks"];

/// Whether a table of the state is a multimap.
pub(crate) fn is_multimap(table: &str) -> bool {
    MULTIMAPS.contains(&table)
}

/// The key of a pair in a state.
pub(crate) fn pair_key((key, value): (&[u8], &[u8])) -> Vec<u8> {
    [key, value].concat()
}

/// What the state has of a pair: its value lies in the key.
const PAIR: Value = Value { seed: 0, len: 0, tail: false };

/// Tables and their entries.
pub(crate) type State = BTreeMap<&'static str, Entries>;

/// The entries of a table. A multimap has one for each pair.
pub(crate) type Entries = BTreeMap<Vec<u8>, Value>;

const TABLES: [&str; 3] = ["apples", "birches", "cedars"];
/// The table in which each step changes an entry, and the key of the entry that tells the step.
const LOG: &str = "log";
const STEP: &[u8] = b"step";

/// The transaction number of a new database: creation writes two meta pages, 1 and 2.
pub(crate) const FIRST_TXN: u64 = 2;

/// The kind of transactions of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Few and many operations, values of all sizes.
    Wide,
    /// Values are short and transactions alike.
    Small,
    /// Few keys and few operations, with all kinds of changes early: many databases can be judged
    /// in a short time.
    Power,
    /// The same, but many operations are loads.
    Loads,
    /// Like `Power`, and half of the operations change multimaps.
    Pairs,
    /// Like `Power`, and half of the keys are long. Values are short, so that all overflow extents
    /// are those of long keys and separators.
    LongKeys,
}

/// All states of a seeded run, computed on demand.
pub(crate) struct History {
    seed: u64,
    kind: Kind,
    /// Each step is recorded in the database. Otherwise the number of a step is that of its
    /// transaction, as in old images.
    records_steps: bool,
    states: Mutex<Vec<Arc<State>>>,
}

impl History {
    pub(crate) fn new(seed: u64) -> History {
        let states = Mutex::new(vec![Arc::default(); FIRST_TXN as usize + 1]);
        History { seed, kind: Kind::Wide, records_steps: true, states }
    }

    /// A history with small databases.
    pub(crate) fn small(seed: u64) -> History {
        History { kind: Kind::Small, ..History::new(seed) }
    }

    /// A history for crash images.
    pub(crate) fn power(seed: u64) -> History {
        History { kind: Kind::Power, ..History::new(seed) }
    }

    /// A history for crash images, with loads.
    pub(crate) fn loads(seed: u64) -> History {
        History { kind: Kind::Loads, ..History::new(seed) }
    }

    /// A history for crash images, with multimaps.
    pub(crate) fn pairs(seed: u64) -> History {
        History { kind: Kind::Pairs, ..History::new(seed) }
    }

    /// A history for crash images, with long keys.
    pub(crate) fn long_keys(seed: u64) -> History {
        History { kind: Kind::LongKeys, ..History::new(seed) }
    }

    /// A history of the kind that [`History::kind_name`] returned.
    pub(crate) fn named(kind: &str, seed: u64) -> History {
        let (kind, records_steps) = match kind.strip_suffix("-steps") {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        let history = match kind {
            "power" => History::power(seed),
            "loads" => History::loads(seed),
            "pairs" => History::pairs(seed),
            "long-keys" => History::long_keys(seed),
            _ => History::new(seed),
        };
        History { records_steps, ..history }
    }

    pub(crate) fn kind_name(&self) -> &'static str {
        match (self.kind, self.records_steps) {
            (Kind::Power, true) => "power-steps",
            (Kind::Loads, true) => "loads-steps",
            (Kind::Pairs, true) => "pairs-steps",
            (Kind::Pairs, false) => "pairs",
            (Kind::LongKeys, true) => "long-keys-steps",
            (Kind::LongKeys, false) => "long-keys",
            (_, true) => "wide-steps",
            (Kind::Power, false) => "power",
            (Kind::Loads, false) => "loads",
            (_, false) => "wide",
        }
    }

    /// The seed of the history.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether its databases are small, for crash images.
    fn is_power(&self) -> bool {
        matches!(self.kind, Kind::Power | Kind::Loads | Kind::Pairs | Kind::LongKeys)
    }

    /// The step of the history that a database has reached.
    pub(crate) fn step(&self, txn: &ReadTxn) -> Result<u64> {
        if !self.records_steps {
            return Ok(txn.txn_id());
        }
        let log = txn.bytes_table(LOG)?;
        Ok(log.get(STEP)?.map_or(txn.txn_id().min(FIRST_TXN), step_of))
    }

    /// The step that a transaction makes.
    pub(crate) fn next_step(&self, txn: &mut WriteTxn) -> Result<u64> {
        if !self.records_steps {
            return Ok(txn.txn_id());
        }
        let first = txn.txn_id().min(FIRST_TXN + 1);
        Ok(txn.bytes_table(LOG)?.get(STEP)?.map_or(first, |value| step_of(value) + 1))
    }

    /// The state that step `txn` leaves.
    pub(crate) fn state(&self, txn: u64) -> Arc<State> {
        let mut states = self.states.lock().expect("states");
        while states.len() as u64 <= txn {
            let mut next = State::clone(states.last().expect("never empty"));
            for op in self.ops(states.len() as u64) {
                apply(&mut next, op);
            }
            states.push(Arc::new(next));
        }
        Arc::clone(&states[txn as usize])
    }

    fn ops(&self, txn: u64) -> Vec<Op> {
        let mut rng = Rng(self.seed ^ txn.wrapping_mul(0x0000_0100_0000_01b3));
        // Every transaction changes an entry, so that each gets its own number.
        let recorded = Value { seed: txn, len: 20, tail: false };
        let mut ops = vec![Op::Put(LOG, (txn % 50).to_be_bytes().to_vec(), recorded)];
        if self.records_steps {
            ops.push(Op::Put(LOG, STEP.to_vec(), recorded));
        }
        let count = match self.kind {
            Kind::Small => 30,
            Kind::Power | Kind::Pairs => 1 + rng.below(6),
            Kind::LongKeys => 1 + rng.below(10),
            Kind::Loads => 1 + rng.below(4),
            Kind::Wide if rng.one_in(12) => 150,
            Kind::Wide => 1 + rng.below(12),
        };
        for _ in 0..count {
            let table = match self.kind {
                // So many keys in one table that its leaves split, and that deletes find them.
                Kind::LongKeys => TABLES[rng.below(6) as usize / 5],
                _ => TABLES[rng.below(3) as usize],
            };
            if self.kind == Kind::Loads && rng.one_in(2) {
                ops.push(self.load(table, &mut rng));
                continue;
            }
            if self.kind == Kind::Pairs && rng.one_in(2) {
                ops.push(pair_op(&mut rng));
                continue;
            }
            ops.push(match rng.below(100) {
                0 if count < 20 => Op::Drop(table),
                1 if self.is_power() => Op::Drop(table),
                25..=28 if self.records_steps && self.is_power() => {
                    let (a, b) = (self.key(&mut rng), self.key(&mut rng));
                    Op::Remove(table, a.clone().min(b.clone()), a.max(b))
                }
                0..=24 => Op::Delete(table, self.key(&mut rng)),
                _ => Op::Put(table, self.key(&mut rng), self.value(&mut rng)),
            });
        }
        ops
    }

    /// A load of some entries: sorted or not, in one run or in several.
    fn load(&self, table: &'static str, rng: &mut Rng) -> Op {
        let count = 1 + rng.below(40);
        let mut entries: Vec<_> = (0..count).map(|_| (self.key(rng), self.value(rng))).collect();
        if rng.one_in(3) {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.dedup_by(|a, b| a.0 == b.0);
        }
        let memory = if rng.one_in(2) { 1 } else { 1 << 20 };
        Op::Load(table, entries, memory)
    }

    fn key(&self, rng: &mut Rng) -> Vec<u8> {
        if self.is_power() {
            let number = rng.below(36);
            if self.kind == Kind::LongKeys && number % 2 == 1 {
                return long_key(number);
            }
            let mut key = format!("key{number:02}").into_bytes();
            key.resize(key.len() + if number % 9 == 4 { number as usize * 5 } else { 0 }, b'x');
            return key;
        }
        key(rng)
    }

    fn value(&self, rng: &mut Rng) -> Value {
        if self.kind == Kind::LongKeys {
            return Value { seed: rng.next(), len: rng.below(200) as usize, tail: false };
        }
        if self.is_power() {
            return power_value(rng);
        }
        value(rng, self.kind == Kind::Small)
    }

    /// Executes the next transaction, without committing it.
    pub(crate) fn perform(&self, txn: &mut WriteTxn) -> Result<()> {
        self.perform_watched(txn, &mut || {})
    }

    /// The same; `watch` is called after every operation.
    pub(crate) fn perform_watched(&self, txn: &mut WriteTxn, watch: &mut dyn FnMut()) -> Result<()> {
        let step = self.next_step(txn)?;
        let mut rng = Rng(self.seed.rotate_left(17) ^ step);
        for op in self.ops(step) {
            match rng.below(12) {
                0 if self.is_power() => {
                    let savepoint = txn.savepoint()?;
                    self.detour(txn, &mut rng, watch)?;
                    txn.rollback_to(&savepoint)?;
                    if rng.one_in(2) {
                        txn.release(savepoint)?;
                    }
                    op.perform(txn, watch)?;
                }
                1 if self.is_power() => {
                    let mut nested = txn.begin_nested()?;
                    let mut inner = nested.begin_nested()?;
                    self.detour(&mut inner, &mut rng, watch)?;
                    inner.abort();
                    op.perform(&mut nested, watch)?;
                    nested.commit()?;
                }
                _ => op.perform(txn, watch)?,
            }
            watch();
        }
        Ok(())
    }

    /// Some operations that the caller takes back.
    fn detour(&self, txn: &mut WriteTxn, rng: &mut Rng, watch: &mut dyn FnMut()) -> Result<()> {
        let some = 1 + rng.below(4) as usize;
        for op in self.ops(1_000_000 + rng.below(1000)).into_iter().take(some) {
            op.perform(txn, watch)?;
        }
        Ok(())
    }

    /// Commits the next transaction and returns its number.
    pub(crate) fn commit_next(&self, db: &Db) -> Result<u64> {
        self.commit_next_at(db, Durability::Immediate)
    }

    /// The same at a level.
    pub(crate) fn commit_next_at(&self, db: &Db, durability: Durability) -> Result<u64> {
        let mut txn = db.begin_write()?;
        txn.set_durability(durability);
        let step = self.next_step(&mut txn)?;
        self.perform(&mut txn)?;
        txn.commit()?;
        Ok(step)
    }

    /// Compares the whole database with the expected state of its transaction, and runs `check`.
    /// Returns the transaction.
    pub(crate) fn judge(&self, db: &Db) -> Result<u64, String> {
        let number = self.compare(db)?;
        let report = db.check().map_err(|e| format!("check: {e}"))?;
        match report.findings.first() {
            None => Ok(number),
            Some(first) => Err(format!("txn {number}: {} findings, the first: {first}", report.findings.len())),
        }
    }

    fn compare(&self, db: &Db) -> Result<u64, String> {
        let txn = db.begin_read().map_err(|e| format!("begin_read: {e}"))?;
        let step = self.step(&txn).map_err(|e| format!("the step: {e}"))?;
        self.holds(db, step)
    }

    /// Compares the whole database with the expected state of transaction `number`, whatever its
    /// own number is now.
    pub(crate) fn holds(&self, db: &Db, number: u64) -> Result<u64, String> {
        let txn = db.begin_read().map_err(|e| format!("begin_read: {e}"))?;
        let state = self.state(number);
        let tables = txn.tables().map_err(|e| format!("tables of txn {number}: {e}"))?;
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        if names != state.keys().copied().collect::<Vec<_>>() {
            return Err(format!("txn {number}: tables {names:?}, expected {:?}", state.keys()));
        }
        for (name, entries) in state.iter() {
            if is_multimap(name) {
                let table = txn.multi_bytes_table(name).map_err(|e| format!("table {name} of txn {number}: {e}"))?;
                let pairs: Result<Vec<Vec<u8>>> = table.iter().map(|pair| pair.map(pair_key)).collect();
                let pairs = pairs.map_err(|e| format!("txn {number}, table {name}: {e}"))?;
                if !pairs.iter().eq(entries.keys()) || table.len() != entries.len() as u64 {
                    return Err(format!(
                        "txn {number}, table {name}: wrong pairs, {} of {}",
                        pairs.len(),
                        entries.len()
                    ));
                }
                continue;
            }
            let table = txn.bytes_table(name).map_err(|e| format!("table {name} of txn {number}: {e}"))?;
            let mut expected = entries.iter();
            for entry in table.iter() {
                let (key, value) = entry.map_err(|e| format!("txn {number}, table {name}: {e}"))?;
                let Some((k, v)) = expected.next() else {
                    return Err(format!("txn {number}, table {name}: surplus key {}", key.escape_ascii()));
                };
                if key != k || value != v.bytes() {
                    return Err(format!("txn {number}, table {name}: wrong entry {}", key.escape_ascii()));
                }
            }
            if expected.next().is_some() || table.len() != entries.len() as u64 {
                return Err(format!("txn {number}, table {name}: of {} entries some are missing", entries.len()));
            }
        }
        Ok(number)
    }
}

/// The step whose value this is.
fn step_of(value: &[u8]) -> u64 {
    let is_of = |&seed: &u64| Value { seed, len: value.len(), tail: false }.bytes() == value;
    (0..1_000_000).find(is_of).unwrap_or(u64::MAX - 1)
}

fn apply(state: &mut State, op: Op) {
    match op {
        Op::Put(table, key, value) => drop(state.entry(table).or_default().insert(key, value)),
        // Opening a table in a write transaction creates it.
        Op::Delete(table, key) => drop(state.entry(table).or_default().remove(&key)),
        Op::Remove(table, low, high) => state.entry(table).or_default().retain(|key, _| *key < low || *key >= high),
        Op::Drop(table) => drop(state.remove(table)),
        Op::Insert(table, key, numbers) => {
            let pairs = numbers.values(table).map(|value| ([&[key], &value[..]].concat(), PAIR));
            state.entry(table).or_default().extend(pairs);
        }
        Op::RemoveValues(table, key, numbers) => {
            let entries = state.entry(table).or_default();
            for value in numbers.values(table) {
                entries.remove(&[&[key], &value[..]].concat());
            }
        }
        Op::RemoveAll(table, key) => state.entry(table).or_default().retain(|pair, _| pair[0] != key),
        Op::RemoveFrom(table, key) => state.entry(table).or_default().retain(|pair, _| pair[0] < key),
        Op::Load(table, entries, _) => state.entry(table).or_default().extend(entries),
    }
}

/// A change of a multimap. Keys are few, so that they get value trees.
fn pair_op(rng: &mut Rng) -> Op {
    let (table, key) = (MULTIMAPS[rng.below(2) as usize], rng.below(4) as u8);
    let numbers = Numbers { from: rng.below(400), count: 1 + rng.below(160) };
    match rng.below(20) {
        0 => Op::Drop(table),
        1 => Op::RemoveAll(table, key),
        2 => Op::RemoveFrom(table, key),
        3..=6 => Op::RemoveValues(table, key, numbers),
        _ => Op::Insert(table, key, numbers),
    }
}

/// A key in an overflow extent, of two pages of 4 KiB or of one. Most keys differ only in their
/// tails, so that separators are long too; with large pages the shorter ones lie in the leaf.
fn long_key(number: u64) -> Vec<u8> {
    let len = if number % 4 == 1 { 4300 } else { 1100 };
    let mut key = vec![b'l'; len];
    let place = if number % 9 == 7 { 10 } else { len - 2 };
    key[place..place + 2].copy_from_slice(&[b'0' + number as u8 / 10, b'0' + number as u8 % 10]);
    key
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(250);
    let mut key = match number {
        0 => Vec::new(),
        1..=120 => format!("key{number:05}").into_bytes(),
        _ => (number * 0x9e37_79b9).to_be_bytes().to_vec(),
    };
    if number % 17 == 3 {
        key.resize(key.len() + number as usize * 3, b'x');
    }
    key
}

fn value(rng: &mut Rng, small: bool) -> Value {
    let len = match rng.below(100) {
        0..=97 if small => rng.below(80),
        _ if small => rng.below(5000),
        0..=59 => rng.below(200),
        60..=84 => rng.below(1100),
        85..=96 => rng.below(12_000),
        _ => rng.below(120_000),
    };
    Value { seed: rng.next(), len: len as usize, tail: false }
}

/// Inline values, overflow extents of one page and of several, and extents whose only nonzero byte
/// is the last.
fn power_value(rng: &mut Rng) -> Value {
    const EXTENT_HEADER: usize = 32;
    let (len, tail) = match rng.below(100) {
        0..=69 => (rng.below(120) as usize, false),
        70..=84 => (rng.below(1100) as usize, false),
        85..=91 => (rng.below(9000) as usize, false),
        92..=96 => (4096 * (1 + rng.below(2) as usize) - EXTENT_HEADER, true),
        97 => (32768 - EXTENT_HEADER, true),
        _ => (rng.below(40_000) as usize, false),
    };
    Value { seed: rng.next(), len, tail }
}
