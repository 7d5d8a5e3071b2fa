//! The search: all schedules of the agents of a scenario, depth first, each from the beginning, cut
//! where a state is known.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use mapleaf::testing::{
    abandon, open_as_another_process, open_with_hooks, records, seal_file, set_mutant, Hooks, LockName, Moment, Mutant,
    Records,
};
use mapleaf::{Db, Options};
use tempfile::TempDir;

use super::agents::{self, can_stop, lock, visible, Operation, Prepared, Seam, Shared, DATA};
use super::book::Book;
use super::disk::{Disk, PAGE};
use super::judge::Judge;
use super::schedule::{Act, Place, Schedule, Seen, Step};
use crate::workload::fast_dir;

/// The agents of a search, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What was committed before, by log.
    pub(super) before: &'static [Operation],
    pub(super) agents: &'static [&'static [Operation]],
    /// Bytes of the log; a commit whose record has more than a quarter goes by checkpoint.
    pub(super) log_bytes: u64,
    /// Whether agents make sole commits when they can.
    pub(super) sole: bool,
    /// Whether each agent is a process of its own; otherwise they are threads of one.
    pub(super) processes: bool,
    /// How many agents may stop for ever.
    pub(super) stops: u8,
    /// How often an agent that can go on may have to wait for another one; `u8::MAX`: any number.
    pub(super) preemptions: u8,
}

/// What a search has visited.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) states: usize,
    pub(super) executions: usize,
    pub(super) steps: usize,
    pub(super) images: usize,
}

/// A state on the way to the current one.
struct Node {
    disk: Arc<Disk>,
    choices: Vec<Choice>,
    /// The choice that was taken last.
    taken: usize,
}

/// A step that is possible, and what is left of the bounds after it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    step: Step,
    stops: u8,
    preemptions: u8,
}

/// A search.
pub(super) struct Search {
    scenario: Scenario,
    mutant: Option<Mutant>,
    path: PathBuf,
    /// The file that every execution begins with.
    file: Vec<u8>,
    judge: Judge,
    seam: Arc<Seam>,
    known: HashMap<u64, (u8, u8)>,
    path_taken: Vec<Node>,
    pub(super) counts: Counts,
    _dir: TempDir,
    _prepared: Prepared,
}

/// One execution.
struct Execution {
    /// One for each process.
    dbs: Vec<Db>,
    schedule: Arc<Schedule>,
    book: Shared,
    threads: Vec<JoinHandle<()>>,
}

impl Execution {
    /// The live records; a lock is held if it is in any process.
    fn records(&self) -> Records {
        let mut all = records(&self.dbs[0]);
        for db in &self.dbs[1..] {
            let others = records(db);
            all.held.iter_mut().zip(others.held).for_each(|(held, other)| *held |= other);
            all.poisoned |= others.poisoned;
        }
        all
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.dbs.iter().for_each(abandon);
        self.schedule.end();
        for thread in self.threads.drain(..) {
            thread.join().expect("an agent that has ended");
        }
    }
}

impl Search {
    pub(super) fn new(scenario: Scenario, mutant: Option<Mutant>) -> Search {
        let dir = fast_dir();
        let path = dir.path().join("run.mapleaf");
        let prepared = Prepared::new(None, scenario.log_bytes, false);
        Search {
            _prepared: prepared,
            scenario,
            mutant,
            file: new_file(&path, scenario.agents.len() as u64),
            judge: Judge::new(dir.path().join("image.mapleaf")),
            seam: Arc::default(),
            path,
            known: HashMap::new(),
            path_taken: Vec::new(),
            counts: Counts::default(),
            _dir: dir,
        }
    }

    /// Visits all states. The first violation, with the steps to it.
    pub(super) fn run(&mut self, limit: usize) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let execution = self.begin();
            let ran = self.execute(&execution);
            let trace = execution.schedule.steps();
            drop(execution);
            self.counts.executions += 1;
            self.counts.images = self.judge.opened();
            ran.map_err(|e| format!("{}: {e}\n{}", self.scenario.name, told(&trace)))?;
            if !self.next_path() {
                println!("{}: {:?} in {:?}", self.scenario.name, self.counts, began.elapsed());
                return Ok(());
            }
            if self.counts.executions >= limit {
                println!("{}: {:?} in {:?}, not all", self.scenario.name, self.counts, began.elapsed());
                return Ok(());
            }
        }
    }

    /// Goes back to the last state that has a choice left. Whether there is one.
    fn next_path(&mut self) -> bool {
        while let Some(node) = self.path_taken.last_mut() {
            node.taken += 1;
            if node.taken < node.choices.len() {
                return true;
            }
            self.path_taken.pop();
        }
        false
    }

    fn begin(&mut self) -> Execution {
        std::fs::write(&self.path, &self.file).expect("the file");
        set_mutant(None);
        let options = Options::new().exclusive(!self.scenario.processes).sync_interval(None).window_size(16 << 20);
        let before = self.path_taken.is_empty().then(|| Mutex::new((Disk::durable(&self.file), self.path.clone())));
        let file_bytes = ((48 + 8 * self.scenario.before.len()) * PAGE) as u64;
        self.seam = Arc::new(Seam { before, file_bytes });
        let seam: Arc<dyn Hooks> = Arc::clone(&self.seam) as Arc<dyn Hooks>;
        let db = open_with_hooks(options, &self.path, Arc::clone(&seam)).expect("opened");
        let before = self.scenario.before;
        let (txn, entries) = visible(&db).expect("read");
        let mut book = Book::new(txn, entries);
        agents::commit_all(&db, before, &mut book).expect("committed");
        let book: Shared = Arc::new(Mutex::new(book));
        let mut dbs = vec![db];
        if self.scenario.processes {
            for _ in 1..self.scenario.agents.len() {
                dbs.push(open_as_another_process(&dbs[0], Arc::clone(&seam)).expect("joined"));
            }
        }
        let plan = self.path_taken.iter().map(|node| node.choices[node.taken].step).collect();
        let schedule = Schedule::new(self.scenario.agents.len(), plan);
        let scripts = self.scenario.agents.iter().enumerate();
        let start = |(number, script): (usize, &&'static [Operation])| {
            let Scenario { log_bytes, sole, .. } = self.scenario;
            agents::start((&schedule, number), &dbs[number % dbs.len()], &book, script, (self.mutant, log_bytes, sole))
        };
        let threads = scripts.map(start).collect();
        Execution { dbs, schedule, book, threads }
    }

    /// Runs the steps to the current state, and on to a known one.
    fn execute(&mut self, execution: &Execution) -> Result<(), String> {
        let mut seen = execution.schedule.run();
        loop {
            if let Some(diverged) = &seen.diverged {
                return Err(format!("not the same as before: {diverged}"));
            }
            self.learn(execution);
            let Some(step) = self.visit(execution, &seen)? else { return Ok(()) };
            self.counts.steps += 1;
            seen = execution.schedule.step(step);
        }
    }

    /// Notes where the steps have arrived.
    fn learn(&mut self, execution: &Execution) {
        for (node, step) in self.path_taken.iter_mut().zip(execution.schedule.steps()) {
            node.choices[node.taken].step.arrived = step.arrived;
        }
    }

    /// Checks a new state. Gives the first step from it; `None` if it is known or the end.
    fn visit(&mut self, execution: &Execution, seen: &Seen) -> Result<Option<Step>, String> {
        let records = execution.records();
        let book = lock(&execution.book).clone();
        if let Some(wrong) = &book.wrong {
            return Err(wrong.clone());
        }
        let starves = |(agent, &txn): (&usize, &u64)| {
            let place = seen.places[*agent];
            let is_done = records.published >= txn && records.durable >= txn;
            // A waiter that leads may wait for an appender, which waits for nothing.
            let waits = matches!(place, Place::Moment(Moment::Taking(LockName::Flush) | Moment::AwaitingFlush(_)));
            is_done && waits && !is_ready(place, &records)
        };
        if let Some((agent, txn)) = book.waiting.iter().find(|&waiting| starves(waiting)) {
            let place = seen.places[*agent];
            return Err(format!("agent {agent} cannot go on from {place:?} although txn {txn} is durable"));
        }
        let bytes = std::fs::read(&self.path).expect("the file");
        let disk = match self.path_taken.last() {
            Some(node) => {
                let mut disk = Disk::clone(&node.disk);
                disk.observe(&bytes);
                seen.flushes.iter().for_each(|&flush| disk.flush(flush));
                disk
            }
            None => self.first_disk(&records, &bytes),
        };
        let (stops, preemptions) = match self.path_taken.last() {
            Some(node) => (node.choices[node.taken].stops, node.choices[node.taken].preemptions),
            None => (self.scenario.stops, self.scenario.preemptions),
        };
        let hash = hash(&records, seen, &disk, &book);
        let known = self.known.get(&hash).copied();
        if known.is_some_and(|(s, p)| s >= stops && p >= preemptions) {
            return Ok(None);
        }
        self.known.insert(hash, (stops, preemptions));
        if known.is_none() {
            self.counts.states += 1;
            self.check(&records, &disk, &book)?;
        }
        let choices = self.choices(&records, seen, stops, preemptions);
        if choices.is_empty() {
            let waiting: Vec<_> = seen.places.iter().filter(|place| !place.is_end()).collect();
            return if waiting.is_empty() { Ok(None) } else { Err(format!("all wait for ever: {waiting:?}")) };
        }
        let step = choices[0].step;
        self.path_taken.push(Node { disk: Arc::new(disk), choices, taken: 0 });
        Ok(Some(step))
    }

    /// The disk when the agents begin.
    fn first_disk(&self, records: &Records, bytes: &[u8]) -> Disk {
        let before = self.seam.before.as_ref().expect("recorded");
        let mut disk = before.lock().expect("the disk").0.clone();
        disk.set_log(records.log.0 as usize..(records.log.0 + records.log.1) as usize);
        disk.observe(bytes);
        disk
    }

    /// Checks the records, and all images.
    fn check(&mut self, records: &Records, disk: &Disk, book: &Book) -> Result<(), String> {
        if records.last_immediate.is_none() {
            return Err(format!("the ring has lost the published state: {records:?}"));
        }
        if records.published > records.latest || records.durable > records.latest.max(records.in_doubt.unwrap_or(0)) {
            return Err(format!("a record is newer than the latest state: {records:?}"));
        }
        for image in disk.images() {
            let found = self.judge.find(&image).map_err(|e| format!("after a power cut: {e}"))?;
            book.judge(found, records, false).map_err(|e| format!("after a power cut: {e}; {records:?}"))?;
        }
        let found = self.judge.find(&disk.current()).map_err(|e| format!("after the death of all: {e}"))?;
        book.judge(found, records, true).map_err(|e| format!("after the death of all: {e}; {records:?}"))
    }

    /// The steps that are possible, that of the agent that ran last first.
    fn choices(&self, records: &Records, seen: &Seen, stops: u8, preemptions: u8) -> Vec<Choice> {
        let last = self.path_taken.last().map(|node| node.choices[node.taken].step.agent);
        let ready: Vec<usize> = (0..seen.places.len()).filter(|&at| is_ready(seen.places[at], records)).collect();
        let last = last.filter(|last| ready.contains(last));
        let step = |agent, act| Step { agent, act, arrived: 0 };
        let mut choices: Vec<Choice> =
            last.iter().map(|&agent| Choice { step: step(agent, Act::Go), stops, preemptions }).collect();
        for &agent in ready.iter().filter(|&&agent| Some(agent) != last) {
            let left =
                if last.is_some() && preemptions < u8::MAX { preemptions.checked_sub(1) } else { Some(preemptions) };
            choices.extend(left.map(|preemptions| Choice { step: step(agent, Act::Go), stops, preemptions }));
        }
        if let Some(left) = stops.checked_sub(1) {
            // An agent stops where it has arrived, before another one runs.
            let stopping = last.iter().chain(last.is_none().then_some(&ready).into_iter().flatten());
            for &agent in stopping.filter(|&&agent| can_stop(seen.places[agent])) {
                choices.push(Choice { step: step(agent, Act::Stop), stops: left, preemptions });
            }
        }
        choices
    }
}

/// Whether an agent that stands at a place can go on.
fn is_ready(place: Place, records: &Records) -> bool {
    match place {
        Place::Done | Place::Stopped => false,
        Place::Moment(Moment::Taking(name)) => !records.held[name as usize],
        Place::Moment(Moment::AwaitingFlush(txn)) => {
            let done = records.published >= txn && records.durable >= txn;
            done || records.poisoned || !records.held[LockName::Flush as usize]
        }
        Place::Moment(Moment::AwaitingAppender(txn)) => {
            records.appending != txn || !records.held[LockName::Writer as usize]
        }
        _ => true,
    }
}

fn hash(records: &Records, seen: &Seen, disk: &Disk, book: &Book) -> u64 {
    let mut hasher = DefaultHasher::new();
    (records.hash, records.held, &records.snapshots, &seen.hashes).hash(&mut hasher);
    (disk.hash(), book.hash()).hash(&mut hasher);
    hasher.finish()
}

/// A new database with an entry for each agent, the same in all searches.
pub(super) fn new_file(path: &Path, agents: u64) -> Vec<u8> {
    let db = Options::new().page_size(4096).open(path).expect("created");
    let uuid = db.stats().expect("stats").uuid;
    mapleaf::testing::without_log(|| {
        db.write(|txn| {
            let mut table = txn.table(DATA)?;
            (0..agents + 1).try_for_each(|key| table.put(key, &[9, 9, 9]).map(drop))
        })
        .expect("filled");
    });
    drop(db);
    let mut bytes = std::fs::read(path).expect("the new file");
    for at in 0..bytes.len() - 16 {
        if bytes[at..at + 16] == uuid {
            bytes[at..at + 16].copy_from_slice(b"all schedules of");
        }
    }
    seal_file(&mut bytes);
    bytes
}

/// The steps to a violation.
fn told(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|step| format!("{}{}", step.agent, if step.act == Act::Stop { "!" } else { "" }))
        .collect::<Vec<_>>()
        .join(" ")
}
