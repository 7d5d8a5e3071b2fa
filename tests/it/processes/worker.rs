//! The children of the stress test: a worker reads and writes, and a judge compares everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mapleaf::testing::set_log_shape;
use mapleaf::{Db, Durability, Error, Options, ReadTxn, Result, WriteTxn};

use super::broker;
use super::stress::WORKERS;
use crate::reexec;
use crate::support::{bytes, mix};
use crate::workload::Rng;

const ACCOUNTS: u64 = 64;
const BALANCE: u64 = 1000;
/// Each worker has so many values that are replaced.
const REPLACED: u64 = 48;

/// Tables: balance of each account, counter of each worker, values that stay, values that are
/// replaced.
const TABLES: [&str; 4] = ["accounts", "counters", "data", "replaced"];

/// Why a worker stops: something is wrong, or a call has failed.
#[derive(Debug)]
enum Stop {
    Wrong(String),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Stop {
    fn text(&self) -> String {
        match self {
            Stop::Wrong(what) => format!("wrong: {what}"),
            Stop::Failed(error) => format!("failed {:?}: {error}", error.kind()).replace('\n', " "),
        }
    }
}

type Checked<T = ()> = std::result::Result<T, Stop>;

fn demand(right: bool, what: impl FnOnce() -> String) -> Checked {
    if right {
        Ok(())
    } else {
        Err(Stop::Wrong(what()))
    }
}

fn key(worker: u64, number: u64) -> [u8; 16] {
    (u128::from(worker) << 64 | u128::from(number)).to_be_bytes()
}

/// The value that a worker stores at a counter: numbers that tell it, then random bytes, and their
/// checksum by construction.
fn value(worker: u64, counter: u64, salt: u64) -> Vec<u8> {
    let random = mix(worker << 56 ^ counter << 3 ^ salt);
    let len = match random % 100 {
        0 => 20_000 + random / 128 % 30_000,
        1..=4 => 1000 + random / 128 % 8000,
        _ => random / 128 % 300,
    };
    let mut value = [worker.to_le_bytes(), counter.to_le_bytes()].concat();
    value.extend(bytes(random, len as usize));
    value
}

/// A table of a snapshot or of a write transaction.
trait Reads {
    fn read(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

impl Reads for &ReadTxn {
    fn read(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.bytes_table(table)?.get(key)?.map(<[u8]>::to_vec))
    }
}

impl Reads for &mut WriteTxn {
    fn read(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.bytes_table(table)?.get(key)?.map(<[u8]>::to_vec))
    }
}

fn number(from: &mut impl Reads, table: &str, key: u64) -> Checked<u64> {
    let found = from.read(table, &key.to_be_bytes())?;
    let number = found.as_deref().and_then(|found| found.try_into().ok()).map(u64::from_le_bytes);
    number.ok_or_else(|| Stop::Wrong(format!("entry {key} of {table} is {found:?}")))
}

fn counters(from: &mut impl Reads) -> Checked<[u64; WORKERS]> {
    let mut counters = [0; WORKERS];
    for (n, counter) in counters.iter_mut().enumerate() {
        *counter = number(from, TABLES[1], n as u64)?;
    }
    Ok(counters)
}

fn check_sum(from: &mut impl Reads) -> Checked {
    let sum =
        (0..ACCOUNTS).try_fold(0, |sum, account| number(from, TABLES[0], account).map(|balance| sum + balance))?;
    demand(sum == ACCOUNTS * BALANCE, || format!("the sum of all accounts is {sum}"))
}

/// Compares some values of a worker whose counter is known.
fn check_values(from: &mut impl Reads, worker: u64, counter: u64, rng: &mut Rng) -> Checked {
    for _ in 0..3 {
        // Often the newest one, and one that must not be there yet.
        let number = match rng.below(4) {
            0 => counter + 1 + rng.below(3),
            1 => counter.saturating_sub(rng.below(3)),
            _ => 1 + rng.below(counter.max(1)),
        };
        let expected = (1..=counter).contains(&number).then(|| value(worker, number, 0));
        let found = from.read(TABLES[2], &key(worker, number))?;
        demand(found == expected, || {
            let lens = (found.as_ref().map(Vec::len), expected.as_ref().map(Vec::len));
            format!("value {number} of worker {worker} at counter {counter}; lengths {lens:?}")
        })?;
        let place = rng.below(REPLACED);
        let newest =
            (counter / REPLACED * REPLACED + place).checked_sub(if place > counter % REPLACED { REPLACED } else { 0 });
        let expected = newest.filter(|&newest| newest > 0).map(|newest| value(worker, newest, 1));
        let found = from.read(TABLES[3], &key(worker, place))?;
        demand(found == expected, || format!("replaced value {place} of worker {worker} at counter {counter}"))?;
    }
    Ok(())
}

/// A worker.
struct Worker {
    number: usize,
    rng: Rng,
    /// Its own counter, and those of others in the newest snapshot: later ones have none that is
    /// smaller.
    seen: [u64; WORKERS],
    /// So many commits may be there of which the parent does not know, until the first one of this
    /// worker: those that its predecessors had begun when they were killed.
    in_doubt: u64,
    read_only: bool,
    held: Vec<(ReadTxn, [u64; WORKERS])>,
    /// Whether the parent wants to hear of the next commit.
    asked: Arc<AtomicBool>,
    made_progress: Arc<AtomicBool>,
}

impl Worker {
    /// Compares counters with those that were seen before.
    fn compare(&self, found: &[u64; WORKERS]) -> Checked {
        let me = self.number;
        let mine = self.seen[me]..=self.seen[me] + self.in_doubt;
        demand(mine.contains(&found[me]), || format!("counter {}, expected {mine:?}", found[me]))?;
        let forward = self.seen.iter().zip(found).all(|(seen, found)| seen <= found);
        demand(forward, || format!("counters {found:?}, seen before {:?}", self.seen))
    }

    /// One transaction, or another call.
    fn turn(&mut self, db: &Db) -> Checked {
        match self.rng.below(100) {
            _ if self.read_only => self.read(db),
            // What is in doubt may be unpublished before the first commit.
            _ if self.in_doubt > 0 => self.write(db),
            0..=59 => self.write(db),
            60..=96 => self.read(db),
            97 => Ok(db.sync()?),
            98 if self.rng.one_in(4) => Ok(db.checkpoint()?),
            _ => {
                self.held.clear();
                Ok(())
            }
        }
    }

    fn write(&mut self, db: &Db) -> Checked {
        let begun = match self.rng.below(8) {
            0 => db.try_begin_write()?,
            1 => db.begin_write_timeout(std::time::Duration::from_millis(2))?,
            _ => Some(db.begin_write()?),
        };
        let Some(mut txn) = begun else { return Ok(()) };
        // It may be newer than the published state, so the counters of others do not count as seen.
        let found = counters(&mut &mut txn)?;
        self.compare(&found)?;
        check_sum(&mut &mut txn)?;
        let (me, counter) = (self.number as u64, found[self.number] + 1);
        let [from, to] = [(); 2].map(|()| self.rng.below(ACCOUNTS));
        let amount = self.rng.below(1 + number(&mut &mut txn, TABLES[0], from)?);
        for (account, change) in [(from, amount.wrapping_neg()), (to, amount)] {
            let balance = number(&mut &mut txn, TABLES[0], account)?.wrapping_add(change);
            txn.bytes_table(TABLES[0])?.insert(&account.to_be_bytes(), &balance.to_le_bytes())?;
        }
        txn.bytes_table(TABLES[1])?.insert(&me.to_be_bytes(), &counter.to_le_bytes())?;
        txn.bytes_table(TABLES[2])?.insert(&key(me, counter), &value(me, counter, 0))?;
        txn.bytes_table(TABLES[3])?.insert(&key(me, counter % REPLACED), &value(me, counter, 1))?;
        check_values(&mut &mut txn, me, counter, &mut self.rng)?;
        if self.rng.one_in(10) {
            return Ok(());
        }
        txn.set_durability(if self.rng.one_in(2) { Durability::Eventual } else { Durability::Immediate });
        txn.commit()?;
        (self.seen[self.number], self.in_doubt) = (counter, 0);
        reexec::answer(&format!("{me} {counter}"));
        if self.asked.swap(false, Ordering::SeqCst) {
            reexec::answer("progress");
        }
        Ok(())
    }

    fn read(&mut self, db: &Db) -> Checked {
        if self.held.len() < 3 {
            let txn = db.begin_read()?;
            let found = counters(&mut &txn)?;
            self.compare(&found)?;
            self.seen = found;
            self.held.push((txn, found));
        }
        let (txn, found) = &self.held[self.rng.below(self.held.len() as u64) as usize];
        let again = counters(&mut &*txn)?;
        demand(again == *found, || format!("a snapshot had the counters {found:?}, then {again:?}"))?;
        check_sum(&mut &*txn)?;
        for (worker, &counter) in (0..).zip(found) {
            check_values(&mut &*txn, worker, counter, &mut self.rng)?;
        }
        if self.rng.one_in(3) {
            self.held.remove(0);
        }
        Ok(())
    }
}

/// Transactions of a worker, in a handle of its own, until something is wrong. Some handles only
/// read.
fn work(worker: &mut Worker, path: &str) -> Checked {
    loop {
        worker.read_only = worker.in_doubt == 0 && worker.rng.one_in(5);
        let mut options = Options::new().create(false).read_only(worker.read_only);
        if worker.rng.one_in(2) {
            options = options.window_size(1 << 20);
        }
        let db = broker::open(options, path.as_ref())?;
        for _ in 0..1 + worker.rng.below(300) {
            worker.turn(&db)?;
            worker.made_progress.store(true, Ordering::SeqCst);
        }
        worker.held.clear();
    }
}

/// Threads of one process, each of them a worker. The arguments are the path, a seed, and for each
/// thread its number, its acknowledged counter, and how many commits are in doubt.
#[test]
fn worker_child() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let seed = arguments[1].parse::<u64>().expect("a seed");
    let numbers: Vec<u64> = arguments[2].split(' ').map(|n| n.parse().expect("a number")).collect();
    let mut seeds = Rng(seed);
    let workers = numbers.chunks_exact(3).map(|numbers| {
        let mut worker = Worker {
            number: numbers[0] as usize,
            rng: Rng(seeds.next()),
            seen: [0; WORKERS],
            in_doubt: numbers[2],
            read_only: false,
            held: Vec::new(),
            asked: Arc::default(),
            made_progress: Arc::default(),
        };
        worker.seen[worker.number] = numbers[1];
        worker
    });
    let mut flags = Vec::new();
    for mut worker in workers {
        flags.push((Arc::clone(&worker.asked), Arc::clone(&worker.made_progress)));
        let path = arguments[0].clone();
        std::thread::spawn(move || {
            // Half of the logs are so small that they are full all the time.
            set_log_shape(if seed.is_multiple_of(2) { Some((2, 64 * 4096)) } else { None });
            if let Err(stop) = work(&mut worker, &path) {
                reexec::answer(&format!("worker {}: {}", worker.number, stop.text()));
                // Until it is killed, as all are.
                loop {
                    std::thread::park();
                }
            }
        });
    }
    let asked: Vec<_> = flags.iter().map(|(asked, _)| Arc::clone(asked)).collect();
    std::thread::spawn(move || {
        while reexec::listen().is_some() {
            asked.iter().for_each(|asked| asked.store(true, Ordering::SeqCst));
        }
    });
    // Each thread has to come forward.
    loop {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if flags.iter().all(|(_, made)| made.load(Ordering::SeqCst)) {
            flags.iter().for_each(|(_, made)| made.store(false, Ordering::SeqCst));
            reexec::progress();
        }
    }
}

/// Makes the accounts and counters of a new file.
fn prepare(db: &Db) -> Result<()> {
    db.write(|txn| {
        for account in 0..ACCOUNTS {
            txn.bytes_table(TABLES[0])?.insert(&account.to_be_bytes(), &BALANCE.to_le_bytes())?;
        }
        for worker in 0..WORKERS as u64 {
            txn.bytes_table(TABLES[1])?.insert(&worker.to_be_bytes(), &0_u64.to_le_bytes())?;
        }
        Ok(())
    })
}

/// Compares everything. Returns the counters.
fn judge_all(db: &Db, acknowledged: &[(u64, u64)]) -> Checked<[u64; WORKERS]> {
    let txn = db.begin_read()?;
    let found = counters(&mut &txn)?;
    let right = |(&(least, in_doubt), found): (&(u64, u64), u64)| (least..=least + in_doubt).contains(&found);
    demand(acknowledged.iter().zip(found).all(right), || {
        format!("counters {found:?}, acknowledged and in doubt {acknowledged:?}")
    })?;
    check_sum(&mut &txn)?;
    let data = txn.bytes_table(TABLES[2])?;
    let mut entries = data.iter();
    for (worker, counter) in (0..).zip(found) {
        for number in 1..=counter {
            let entry = entries.next().transpose()?;
            let right = entry == Some((&key(worker, number)[..], &value(worker, number, 0)[..]));
            demand(right, || format!("value {number} of {counter} of worker {worker}"))?;
        }
        let mut rng = Rng(counter);
        (0..50).try_for_each(|_| check_values(&mut &txn, worker, counter, &mut rng))?;
    }
    demand(entries.next().is_none(), || "there are more values than counters tell".into())?;
    let findings = db.check()?.findings;
    demand(findings.is_empty(), || format!("check: {}", findings[0]))?;
    Ok(found)
}

#[test]
fn judging_child() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let numbers: Vec<u64> = arguments[1].split(' ').map(|n| n.parse().expect("a number")).collect();
    let acknowledged: Vec<(u64, u64)> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let judge = || -> Checked<[u64; WORKERS]> {
        let options = Options::new().page_size(arguments[2].parse().expect("a size"));
        let db = broker::open(options, arguments[0].as_ref())?;
        if db.begin_read()?.tables()?.is_empty() {
            prepare(&db)?;
        }
        judge_all(&db, &acknowledged)
    };
    reexec::answer(&match judge() {
        Ok(counters) => format!("counters {}", counters.map(|n| n.to_string()).join(" ")),
        Err(stop) => stop.text(),
    });
}
