//! A run: two groups change their logs, and the files are recorded at every flush.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mapleaf::testing::{set_hooks, FlushEvent, Hooks};
use mapleaf::Db;
use mapleaf_raft::testing::Mutant;
use mapleaf_raft::{LogFile, LogStore, State, StateMachine};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::RaftSnapshotBuilder;
use tokio::runtime::Runtime;

use super::disk::{Choice, Disk, Rng};
use super::judge::Judge;
use super::model::{last_of, Change, Contents};
use crate::support::{runtime, Count, Types};

/// Changes that each group makes in a run.
const CHANGES: usize = 30;
/// Images of each cut.
const CHOICES: [Choice; 6] = [Choice::Old, Choice::New, Choice::Any, Choice::Any, Choice::Torn, Choice::Torn];

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) mutant: Option<Mutant>,
}

/// What has occurred in all runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Images that were judged, each different from the others of its run.
    pub(crate) images: u64,
    pub(crate) appends: u64,
    pub(crate) truncations: u64,
    pub(crate) purges: u64,
    pub(crate) votes: u64,
    pub(crate) snapshots: u64,
    /// Images in which a change is missing that was not acknowledged.
    pub(crate) changes_lost: u64,
    /// Images whose state lacks entries that were applied, and gets them from the log.
    pub(crate) replays: u64,
}

impl Tally {
    pub(crate) fn has_all(&self) -> bool {
        let counts = [self.appends, self.truncations, self.purges, self.votes, self.snapshots];
        counts.iter().chain(&[self.changes_lost, self.replays]).all(|count| *count > 0)
    }
}

/// A group's log after each change that was asked for, the number of those acknowledged last.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) history: Vec<Contents>,
    pub(crate) acknowledged: usize,
}

/// What both files may hold after a cut, and what was promised by then.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) log: Disk,
    pub(crate) state: Disk,
    pub(crate) groups: [Group; 2],
    /// Entries that were handed to the state machine, in order.
    pub(crate) applied: Vec<String>,
    /// So many of them are in a snapshot.
    pub(crate) durable: u64,
}

struct Recording {
    world: World,
    cuts: Vec<World>,
}

type Shared = Arc<Mutex<Recording>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Recording> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records one of the files.
struct Recorder {
    shared: Shared,
    file: fn(&mut World) -> &mut Disk,
}

impl Recorder {
    fn look(&self) {
        (self.file)(&mut lock(&self.shared).world).look();
    }
}

impl Hooks for Recorder {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        self.look();
        cut(&self.shared);
        Ok(())
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        (self.file)(&mut lock(&self.shared).world).flushed(event.offset, event.len, event.carries_length);
    }

    fn resized(&self, _new_len: u64) {
        self.look();
    }

    fn stored_meta(&self, _slot: usize) {
        self.look();
    }

    fn wrote(&self, _offset: u64, _len: u64) {
        self.look();
    }

    fn wrote_log(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.look();
        Ok(())
    }
}

/// Keeps what a power cut may leave now.
fn cut(shared: &Shared) {
    let mut recording = lock(shared);
    if recording.world.log.is_in_doubt() || recording.world.state.is_in_doubt() {
        let world = recording.world.clone();
        recording.cuts.push(world);
    }
}

/// Makes a run and judges its images.
pub(crate) fn run(setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory");
    let log = Db::open(dir.path().join("log.mapleaf")).expect("a log file");
    let state = State::open(dir.path()).expect("a state");
    let shared = watch(&log, &state);
    let file = LogFile::with_mutant(log, setting.mutant).expect("a log");
    let machine = StateMachine::with_mutant(state, Count, setting.mutant);
    let logs = [0, 1].map(|group| file.group::<Types>(group).expect("a group"));
    let [first, second] = logs;
    let (mut counts, mut others) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        scope.spawn(|| Driver::new(0, &shared, first, setting).drive(Some(machine), &mut counts));
        scope.spawn(|| Driver::new(1, &shared, second, setting).drive(None, &mut others));
    });
    drop(file);
    for one in [counts, others] {
        tally.appends += one.appends;
        tally.truncations += one.truncations;
        tally.purges += one.purges;
        tally.votes += one.votes;
        tally.snapshots += one.snapshots;
    }
    let cuts = std::mem::take(&mut lock(&shared).cuts);
    judge(&cuts, setting.seed, tally)
}

/// Records both files from now on.
fn watch(log: &Db, state: &State) -> Shared {
    let path = |db: &Db| db.path().expect("a file").to_path_buf();
    let group = Group { history: vec![Contents::default()], acknowledged: 0 };
    let world = World {
        log: Disk::durable(&path(log)),
        state: Disk::durable(&path(&state.db())),
        groups: [group.clone(), group],
        applied: Vec::new(),
        durable: 0,
    };
    let shared = Arc::new(Mutex::new(Recording { world, cuts: Vec::new() }));
    set_hooks(log, Arc::new(Recorder { shared: Arc::clone(&shared), file: |world| &mut world.log }));
    set_hooks(&state.db(), Arc::new(Recorder { shared: Arc::clone(&shared), file: |world| &mut world.state }));
    shared
}

fn judge(cuts: &[World], seed: u64, tally: &mut Tally) -> Result<(), String> {
    let (mut rng, mut seen) = (Rng(seed), HashSet::new());
    let judge = Judge::new();
    for (number, world) in cuts.iter().enumerate() {
        for choice in CHOICES {
            let log = world.log.image(choice, &mut rng);
            let state = world.state.image(choice, &mut rng);
            if seen.insert((log.hash(), state.hash(), world.groups[0].acknowledged, world.groups[1].acknowledged)) {
                tally.images += 1;
                let judged = judge.judge(world, &log, &state, tally);
                judged.map_err(|e| format!("cut {number} of {}, {choice:?}: {e}", cuts.len()))?;
            }
        }
    }
    Ok(())
}

/// Changes the log of one group, one change after the other.
struct Driver<'a> {
    group: usize,
    shared: &'a Shared,
    runtime: Runtime,
    log: LogStore<Types>,
    rng: Rng,
    term: u64,
    committed: u64,
    applied: u64,
    durable: Option<u64>,
}

impl<'a> Driver<'a> {
    fn new(group: usize, shared: &'a Shared, log: LogStore<Types>, setting: Setting) -> Driver<'a> {
        let rng = Rng(setting.seed * 2 + group as u64);
        Driver { group, shared, runtime: runtime(), log, rng, term: 1, committed: 0, applied: 0, durable: None }
    }

    fn drive(mut self, mut machine: Option<StateMachine<Count>>, tally: &mut Tally) {
        for _ in 0..CHANGES {
            self.change(tally);
            if let Some(machine) = &mut machine {
                self.apply(machine);
                if self.applied > 0 && self.rng.below(6) == 0 {
                    self.snapshot(machine);
                    tally.snapshots += 1;
                }
            }
        }
    }

    fn contents(&self) -> Contents {
        let recording = lock(self.shared);
        let history = &recording.world.groups[self.group].history;
        history[history.len() - 1].clone()
    }

    fn change(&mut self, tally: &mut Tally) {
        let log = self.contents();
        let change = Change::any(&log, &mut self.term, self.committed, self.durable, &mut self.rng);
        match &change {
            Change::Append(_) => tally.appends += 1,
            Change::Truncate(_) => tally.truncations += 1,
            Change::Purge(_) => tally.purges += 1,
            Change::Vote(_) => tally.votes += 1,
        }
        lock(self.shared).world.groups[self.group].history.push(change.after(&log));
        change.make(&self.runtime, &mut self.log);
        {
            let group = &mut lock(self.shared).world.groups[self.group];
            group.acknowledged = group.history.len() - 1;
        }
        cut(self.shared);
    }

    /// Commits some of the entries, and applies some of these.
    fn apply(&mut self, machine: &mut StateMachine<Count>) {
        let log = self.contents();
        self.committed += self.rng.below(log.next() - self.committed + 1);
        let upto = self.applied + self.rng.below(self.committed - self.applied + 1);
        if upto == self.applied {
            return;
        }
        self.runtime.block_on(async {
            let committed = last_of(&log, self.committed.max(log.first() + 1).min(log.next()));
            self.log.save_committed(Some(committed)).await.expect("to save");
            let entries = self.log.try_get_log_entries(self.applied..upto).await.expect("entries");
            let requests = entries.iter().map(|entry| match &entry.payload {
                openraft::EntryPayload::Normal(request) => request.clone(),
                payload => panic!("{payload:?}"),
            });
            lock(self.shared).world.applied.extend(requests);
            RaftStateMachine::<Types>::apply(machine, entries).await.expect("to apply");
        });
        self.applied = upto;
        cut(self.shared);
    }

    /// Builds a snapshot: up to it, the log may be purged.
    fn snapshot(&mut self, machine: &mut StateMachine<Count>) {
        self.runtime.block_on(async {
            let mut builder = RaftStateMachine::<Types>::get_snapshot_builder(machine).await;
            RaftSnapshotBuilder::<Types>::build_snapshot(&mut builder).await.expect("a snapshot");
        });
        self.durable = Some(self.applied - 1);
        lock(self.shared).world.durable = self.applied;
        cut(self.shared);
    }
}
