//! A database in a child process, driven by one command at a time. So a crash, and a child that
//! hangs, are answers too.
//!
//! ```text
//! nobody                          becomes the user `nobody`         ok
//! open OPTION..                   opens the file, or the database of a broker   ok
//! close                           drops transactions and handle     ok
//! step LEVEL, judge               one step of the history, all of it compared   ok STEP
//! put LEVEL TABLE KEY VALUE       one transaction                   ok TXN
//! get TABLE KEY                   one entry                         VALUE | none
//! drop TABLE                      one transaction                   ok TXN
//! fill TABLE FIRST COUNT LEN      one transaction                   ok TXN
//! filled TABLE FIRST COUNT LEN    compares the entries of `fill`    ok
//! update LEVEL TABLE COUNT KEYS LEN   transactions of one update each   ok TXN
//! begin, try, wait MILLIS         begins a write transaction        ok TXN | none
//! insert TABLE KEY VALUE, commit, abort   in that transaction       ok
//! hold, held, release             a read transaction, all read of it   TXN | TXN HASH | ok
//! kinds SEED                      changes tables of all kinds       TXN HASH
//! hash                            the published state               TXN HASH
//! label TEXT, refresh             the read transaction              ok | ok TXN
//! readers                         of all processes  readers PROCESS:TXN:LABEL:64_KIB_PINNED..
//! members                         PRESENCE:SESSION PROCESS:WRITES..
//! pins                            of readers        pins PROCESS:TXN:ONLY_PINNED..
//! sync, checkpoint, check         as the functions of `Db`          ok
//! snapshot create|drop|restore NAME   as the functions of `Db`      ok
//! snapshot hold NAME              a read transaction                TXN HASH
//! snapshots                       names                             ok NAME..
//! pages                           page count, free, pending, log    ok A B C D
//! spawn                           starts a program that lives for a minute      ok PROCESS
//! fail KIND, heal                 flushes of a kind fail, or no longer   ok
//! full STEPS                      the disk is full after this growth, until `heal`   ok
//! ```
//!
//! `no-attributes`: files have no extended attributes; `mutant NAME`; `lose KIND`: the next such
//! flush loses its data and the process stops.
//!
//! A LEVEL is `immediate` or `eventual`. A call that fails is answered with `failed KIND (TEXT)`,
//! a comparison that fails with `wrong WHAT`, a child that has ended with `died`.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mapleaf::testing::{
    become_nobody, set_attributes, set_mutant, with_next_hooks, FlushEvent, FlushKind, Hooks, Mutant,
};
use mapleaf::{Db, Durability, Error, ErrorKind, Options, PinnedBy, ReadTxn, WriteTxn};

use super::broker;
use crate::kinds::{self, Contents, State};
use crate::reexec;
use crate::support;
use crate::workload::History;

/// A database in a child process. Killed when dropped.
pub(crate) struct Member {
    child: reexec::Process,
}

impl Member {
    /// The command that starts a child, for tests that start it in another way.
    pub(crate) fn command(path: &Path, seed: u64) -> Command {
        reexec::command("processes::member::member_child", &[&path, &seed.to_string()])
    }

    /// Starts a child by such a command.
    pub(crate) fn start_by(command: Command) -> Member {
        Member { child: reexec::start(command) }
    }

    /// Starts a child, which opens nothing yet. The seed is that of its history.
    pub(crate) fn start(path: &Path, seed: u64) -> Member {
        Member::start_by(Member::command(path, seed))
    }

    /// Starts a child, which opens the file for writing.
    #[track_caller]
    pub(crate) fn open(path: &Path, seed: u64) -> Member {
        let mut member = Member::start(path, seed);
        member.expect("open", "ok");
        member
    }

    /// Sends a command, and does not wait.
    pub(crate) fn say(&mut self, command: &str) {
        self.child.say(command);
    }

    /// The answer to a command that was sent.
    pub(crate) fn answer(&mut self) -> String {
        self.child.line().unwrap_or_else(|| "died".into())
    }

    /// Sends a command and waits for the answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.answer()
    }

    /// Sends a command and compares the answer.
    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str, answer: &str) {
        let found = self.ask(command);
        assert_eq!(found, answer, "{command}");
    }

    /// Sends a command, and returns the number of the answer `ok NUMBER`.
    #[track_caller]
    pub(crate) fn number(&mut self, command: &str) -> u64 {
        let found = self.ask(command);
        numbers(&found, command)[0]
    }

    /// Sends a command that is refused with an error of this kind.
    #[track_caller]
    pub(crate) fn refuses(&mut self, command: &str, kind: ErrorKind) {
        let found = self.ask(command);
        assert!(is_failure(&found, &[kind]), "{command}: {found}, expected {kind:?}");
    }

    /// The process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.number()
    }

    /// Sends SIGKILL and waits until the child has died.
    pub(crate) fn kill(&mut self) {
        self.child.kill();
    }

    /// Closes the database and ends the child, whose test passes.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.expect("close", "ok");
        self.child.finish();
    }
}

/// The numbers of an answer `ok NUMBER..`.
#[track_caller]
pub(crate) fn numbers(answer: &str, of: &str) -> Vec<u64> {
    let parse = || answer.strip_prefix("ok ")?.split(' ').map(|number| number.parse().ok()).collect();
    Option::<Vec<u64>>::unwrap_or_else(parse(), || panic!("{of}: {answer}"))
}

/// Whether an answer is a failure of one of these kinds.
pub(crate) fn is_failure(answer: &str, kinds: &[ErrorKind]) -> bool {
    kinds.iter().any(|kind| answer.starts_with(&format!("failed {kind:?} ")))
}

/// Makes flushes of one kind fail, or growth for want of room.
#[derive(Default)]
struct FailingFlush {
    kind: Mutex<Option<FlushKind>>,
    /// The next flush of this kind loses what it should make durable, another descriptor gets the
    /// error, and the process stops.
    loses: Mutex<Option<(PathBuf, FlushKind)>>,
    /// So many steps of growth still work; `None`: all do.
    steps: Mutex<Option<u64>>,
}

impl Hooks for FailingFlush {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        let loses = self.loses.lock().expect("no panic").take_if(|(_, kind)| *kind == event.kind);
        if let Some((path, _)) = loses {
            let synced = File::open(path).and_then(|file| file.sync_all());
            reexec::answer(if synced.is_err() { "lost" } else { "flushed" });
            loop {
                std::thread::park();
            }
        }
        match *self.kind.lock().expect("no panic") == Some(event.kind) {
            true => Err(io::Error::other("a flush that fails")),
            false => Ok(()),
        }
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        match &mut *self.steps.lock().expect("no panic") {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What a child holds. Transactions are dropped before the handle.
struct Session {
    write: Option<WriteTxn>,
    read: Vec<ReadTxn>,
    db: Option<Db>,
    path: PathBuf,
    history: History,
    flushes: Arc<FailingFlush>,
}

/// An answer, or why there is none.
type Answer = Result<String, String>;

fn failed(error: Error) -> String {
    format!("failed {:?} ({error})", error.kind())
}

fn level(word: &str) -> Durability {
    match word {
        "immediate" => Durability::Immediate,
        "eventual" => Durability::Eventual,
        _ => panic!("the level {word}"),
    }
}

fn parse(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn flush_kind(word: &str) -> FlushKind {
    match word {
        "log" => FlushKind::Log,
        "tree" => FlushKind::Tree,
        "meta" => FlushKind::MetaPage,
        _ => panic!("the kind {word}"),
    }
}

fn mutant(name: &str) -> Mutant {
    let known = [Mutant::ProofSkipped, Mutant::LockFilePoisonIgnored, Mutant::SnapshotsLeftOut];
    known.into_iter().find(|mutant| format!("{mutant:?}") == name).expect("a mutant")
}

/// The key of a number.
fn key(number: u64) -> Vec<u8> {
    format!("{number:08}").into_bytes()
}

impl Session {
    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn execute(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["nobody"] => become_nobody().map(|()| "ok".into()).map_err(|e| e.to_string()),
            ["open", ref options @ ..] => self.open(options),
            ["close"] => {
                (self.write, self.db) = (None, None);
                self.read.clear();
                Ok("ok".into())
            }
            ["spawn"] => {
                let program = Command::new("sleep").arg("60").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                Ok(ok(program.expect("a program").id().into()))
            }
            ["fail", kind] => self.fail(kind),
            ["lose", kind] => {
                *self.flushes.loses.lock().expect("no panic") = Some((self.path.clone(), flush_kind(kind)));
                Ok("ok".into())
            }
            ["mutant", name] => {
                set_mutant(Some(mutant(name)));
                Ok("ok".into())
            }
            ["no-attributes"] => {
                set_attributes(false);
                Ok("ok".into())
            }
            ["full", after] => {
                *self.flushes.steps.lock().expect("no panic") = Some(parse(after));
                Ok("ok".into())
            }
            ["heal"] => {
                *self.flushes.kind.lock().expect("no panic") = None;
                *self.flushes.steps.lock().expect("no panic") = None;
                Ok("ok".into())
            }
            ["step", of] => self.history.commit_next_at(self.db(), level(of)).map(ok).map_err(failed),
            ["judge"] => self.history.judge(self.db()).map(ok).map_err(|what| format!("wrong {what}")),
            ["begin" | "try" | "wait", ..] | ["insert", ..] | ["commit" | "abort"] => self.write_by(words),
            ["hold"] => {
                self.read.push(self.db().begin_read().map_err(failed)?);
                Ok(format!("{}", self.read[0].txn_id()))
            }
            ["label", text] => {
                self.read.iter().for_each(|txn| txn.set_label(text));
                Ok("ok".into())
            }
            ["refresh"] => {
                let moved = self.read.iter_mut().map(ReadTxn::refresh).collect::<mapleaf::Result<Vec<_>>>();
                moved.map(|_| ok(self.read[0].txn_id())).map_err(failed)
            }
            ["snapshot", "hold", name] => {
                self.read.push(self.db().read_snapshot(name).map_err(failed)?);
                hash(&self.read[self.read.len() - 1])
            }
            ["held"] => hash(&self.read[0]),
            ["release"] => {
                self.read.clear();
                Ok("ok".into())
            }
            _ => self.call(words),
        }
    }

    /// Commands that need only the handle.
    fn call(&self, words: &[&str]) -> Answer {
        let db = self.db();
        match *words {
            ["put", of, table, key, value] => {
                write(db, level(of), |txn| txn.bytes_table(table)?.insert(key.as_bytes(), value.as_bytes()).map(drop))
            }
            ["drop", table] => write(db, Durability::Immediate, |txn| txn.drop_table(table).map(drop)),
            ["fill", table, first, count, len] => write(db, Durability::Immediate, |txn| {
                let mut table = txn.bytes_table(table)?;
                let numbers = parse(first)..parse(first) + parse(count);
                numbers
                    .into_iter()
                    .try_for_each(|n| table.insert(&key(n), &support::bytes(n, parse(len) as usize)).map(drop))
            }),
            ["get", table, key] => get(db, table, key),
            ["filled", table, first, count, len] => filled(db, table, [first, count, len].map(parse)),
            ["update", of, table, count, keys, len] => update(db, level(of), table, [count, keys, len].map(parse)),
            ["kinds", seed] => change_kinds(db, parse(seed)),
            ["hash"] => hash(&db.begin_read().map_err(failed)?),
            ["readers"] => {
                let all = db.readers().map_err(failed)?;
                let one = |r: &mapleaf::ReaderInfo| {
                    format!("{}:{}:{}:{}", r.process, r.txn, r.label, r.pinned_bytes.div_ceil(1 << 16))
                };
                Ok(format!("readers {}", all.iter().map(one).collect::<Vec<_>>().join(" ")))
            }
            ["members"] => {
                let stats = db.stats().map_err(failed)?;
                let one = |member: &mapleaf::MemberInfo| format!(" {}:{}", member.process, member.writes);
                let members: String = stats.members.iter().map(one).collect();
                Ok(format!("{:?}:{:x?}{members}", stats.presence, stats.session))
            }
            ["pins"] => {
                let stats = db.stats().map_err(failed)?;
                let one = |pin: &mapleaf::Pin| match &pin.by {
                    PinnedBy::Reader { process, .. } => Some(format!(" {process}:{}:{}", pin.txn, pin.only_pages > 0)),
                    _ => None,
                };
                Ok(format!("pins{}", stats.pins.iter().filter_map(one).collect::<String>()))
            }
            ["snapshot", what, name] => {
                let done = match what {
                    "create" => db.create_snapshot(name).map(drop),
                    "drop" => db.drop_snapshot(name),
                    _ => db.restore_snapshot(name),
                };
                done.map(|()| "ok".into()).map_err(failed)
            }
            ["snapshots"] => {
                let found = db.snapshots().map_err(failed)?;
                Ok(found.iter().fold("ok".to_string(), |all, one| all + " " + &one.name))
            }
            ["sync"] => db.sync().map(|()| "ok".into()).map_err(failed),
            ["checkpoint"] => db.checkpoint().map(|()| "ok".into()).map_err(failed),
            ["check"] => match db.check().map_err(failed)?.findings.first() {
                None => Ok("ok".into()),
                Some(finding) => Err(format!("wrong {finding}")),
            },
            ["pages"] => {
                let stats = db.stats().map_err(failed)?;
                let [count, free, pending] = [stats.page_count, stats.free_pages, stats.pending_pages];
                Ok(format!("ok {count} {free} {pending} {}", stats.log_pages))
            }
            _ => panic!("the command {words:?} does not fit"),
        }
    }

    fn open(&mut self, words: &[&str]) -> Answer {
        let mut options = Options::new().sync_interval(None);
        for word in words {
            options = match word.split_once('=') {
                None if *word == "read-only" => options.read_only(true),
                None if *word == "exclusive" => options.exclusive(true),
                Some(("window", bytes)) => options.window_size(parse(bytes)),
                _ => panic!("the option {word}"),
            };
        }
        let hooks = Arc::clone(&self.flushes) as Arc<dyn Hooks>;
        self.db = Some(with_next_hooks(hooks, || broker::open(options, &self.path)).map_err(failed)?);
        Ok("ok".into())
    }

    fn fail(&self, kind: &str) -> Answer {
        *self.flushes.kind.lock().expect("no panic") = Some(flush_kind(kind));
        Ok("ok".into())
    }

    /// Commands that begin, use or end a write transaction.
    fn write_by(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["begin"] => self.write = Some(self.db().begin_write().map_err(failed)?),
            ["try"] => self.write = self.db().try_begin_write().map_err(failed)?,
            ["wait", millis] => {
                let limit = Duration::from_millis(parse(millis));
                self.write = self.db().begin_write_timeout(limit).map_err(failed)?;
            }
            ["insert", table, key, value] => {
                let txn = self.write.as_mut().expect("begun");
                let inserted = txn
                    .bytes_table(table)
                    .and_then(|mut table| table.insert(key.as_bytes(), value.as_bytes()).map(drop));
                return inserted.map(|()| "ok".into()).map_err(failed);
            }
            ["commit"] => {
                let txn = self.write.take().expect("begun");
                let id = txn.txn_id();
                return txn.commit().map(|()| ok(id)).map_err(failed);
            }
            _ => {
                self.write = None;
                return Ok("ok".into());
            }
        }
        Ok(self.write.as_ref().map_or("none".into(), |txn| ok(txn.txn_id())))
    }
}

fn ok(number: u64) -> String {
    format!("ok {number}")
}

fn write(db: &Db, of: Durability, change: impl FnOnce(&mut WriteTxn) -> mapleaf::Result<()>) -> Answer {
    let committed = || {
        let mut txn = db.begin_write()?;
        txn.set_durability(of);
        change(&mut txn)?;
        let id = txn.txn_id();
        txn.commit().map(|()| id)
    };
    committed().map(ok).map_err(failed)
}

fn get(db: &Db, table: &str, key: &str) -> Answer {
    let txn = db.begin_read().map_err(failed)?;
    let table = txn.bytes_table(table).map_err(failed)?;
    let value = table.get(key.as_bytes()).map_err(failed)?;
    Ok(value.map_or("none".into(), |value| String::from_utf8_lossy(value).into_owned()))
}

fn filled(db: &Db, table: &str, [first, count, len]: [u64; 3]) -> Answer {
    let txn = db.begin_read().map_err(failed)?;
    let table = txn.bytes_table(table).map_err(failed)?;
    for n in first..first + count {
        let copy = table.get(&key(n)).map_err(failed)?.map(<[u8]>::to_vec);
        // A slice shows zeros after a cut; the next call says so.
        table.get(b"none").map_err(failed)?;
        if copy != Some(support::bytes(n, len as usize)) {
            return Err(format!("wrong value of entry {n}"));
        }
    }
    Ok("ok".into())
}

fn update(db: &Db, of: Durability, table: &str, [count, keys, len]: [u64; 3]) -> Answer {
    let mut answer = Err("wrong count".into());
    for n in 0..count {
        let value = support::bytes(n + 1_000_000, len as usize);
        answer = Ok(write(db, of, |txn| txn.bytes_table(table)?.insert(&key(n % keys), &value).map(drop))?);
    }
    answer
}

/// The number of a state, and a hash of its tables and entries, or pairs.
fn hash(txn: &ReadTxn) -> Answer {
    let all = || {
        let mut hasher = DefaultHasher::new();
        for info in txn.tables()? {
            info.name.hash(&mut hasher);
            if info.is_multimap {
                for pair in txn.multi_bytes_table(&info.name)?.iter() {
                    pair?.hash(&mut hasher);
                }
                continue;
            }
            for entry in txn.bytes_table(&info.name)?.iter() {
                entry?.hash(&mut hasher);
            }
        }
        Ok(format!("{} {:016x}", txn.txn_id(), hasher.finish()))
    };
    all().map_err(failed)
}

/// The hash of a state of this number that holds what the model says.
fn hash_of(txn: u64, state: &State) -> String {
    let mut hasher = DefaultHasher::new();
    for (name, contents) in state {
        name.hash(&mut hasher);
        match contents {
            Contents::Single(rows) => rows.iter().for_each(|(key, value)| (&key[..], &value[..]).hash(&mut hasher)),
            Contents::Multi(_, pairs) => pairs
                .iter()
                .for_each(|(key, values)| values.iter().for_each(|value| (&key[..], &value[..]).hash(&mut hasher))),
        }
    }
    format!("{txn} {:016x}", hasher.finish())
}

/// Makes random changes to tables of all kinds, some of which are taken back. Answers with what a
/// reader has to see then.
fn change_kinds(db: &Db, seed: u64) -> Answer {
    let changed = || {
        let mut txn = db.begin_write()?;
        let mut state = kinds::read(&db.begin_read()?)?;
        let mut rng = support::Rng::new(seed);
        let page_size = db.stats()?.page_size as usize;
        for _ in 0..1 + rng.below(4) {
            kinds::change(&mut txn, &mut state, &mut rng, page_size);
        }
        let (before, savepoint) = (state.clone(), txn.savepoint()?);
        kinds::change(&mut txn, &mut state, &mut rng, page_size);
        if rng.below(2) == 0 {
            txn.rollback_to(&savepoint)?;
            state = before;
        }
        kinds::assert_sees(&txn, &state);
        let id = txn.txn_id();
        txn.commit().map(|()| hash_of(id, &state))
    };
    changed().map_err(failed)
}

#[test]
fn member_child() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let mut session = Session {
        write: None,
        read: Vec::new(),
        db: None,
        path: PathBuf::from(&arguments[0]),
        history: History::power(parse(&arguments[1])),
        flushes: Arc::default(),
    };
    while let Some(command) = reexec::listen() {
        reexec::progress();
        let words: Vec<&str> = command.split(' ').collect();
        let answer = session.execute(&words).unwrap_or_else(|why| why);
        reexec::answer(&answer.replace('\n', " "));
        reexec::rest();
    }
    reexec::progress();
    drop(session);
}
