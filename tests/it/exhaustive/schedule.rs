//! Turns: of all agents of an execution and the search, one thread runs at a time.
//!
//! An agent arrives at a place: a moment between two steps, or the beginning or end of a flush. The
//! plan says which agent goes on. After the plan the search decides.
//!
//! An agent that is told to stop unwinds: its guards release its locks, as the kernel releases
//! those of a process that has died. Nothing else of a step is done.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mapleaf::testing::{take_noted, FlushKind, LockName, Moment};

/// Where an agent stands: what it does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Place {
    /// The next operation of its script, or the first step of it.
    Next(usize),
    Moment(Moment),
    /// It reads in the snapshot of a transaction, for the last time or not.
    Reading(u64, bool),
    FlushBegins(FlushKind, u64, u64),
    FlushEnded(FlushKind, u64, u64),
    FlushFailed(FlushKind, u64, u64),
    StoredMeta(usize),
    Done,
    Stopped,
}

impl Place {
    /// Whether all that an agent has noted before is forgotten here.
    fn forgets(self) -> bool {
        match self {
            Place::Next(_) | Place::Reading(..) | Place::Done | Place::Stopped => true,
            Place::Moment(moment) => matches!(
                moment,
                Moment::Taking(LockName::Writer) | Moment::AwaitingFlush(_) | Moment::WriterReleased | Moment::Pinning
            ),
            _ => false,
        }
    }

    pub(super) fn is_end(self) -> bool {
        matches!(self, Place::Done | Place::Stopped)
    }
}

/// What an agent does when it has the turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Act {
    Go,
    /// It stops for ever.
    Stop,
}

/// A step: the agent that takes it, and where it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) agent: usize,
    pub(super) act: Act,
    /// The hash of the agent after the step; 0: not known yet.
    pub(super) arrived: u64,
}

/// The payload of unwinding.
struct Stopped;

/// This thread stops for ever: it unwinds, and does nothing else of its step.
pub(super) fn stop() -> ! {
    resume_unwind(Box::new(Stopped))
}

/// Whether a thread has unwound because it was told to.
pub(super) fn was_stopped(panic: &(dyn std::any::Any + Send)) -> bool {
    panic.is::<Stopped>()
}

#[derive(Default)]
struct Turns {
    /// The agent that runs; `None`: the search.
    turn: Option<usize>,
    act: Option<Act>,
    /// The execution is over: every agent unwinds.
    ends: bool,
    places: Vec<Place>,
    hashes: Vec<u64>,
    plan: Vec<Step>,
    /// Steps that were begun.
    begun: usize,
    /// Flushes that began or ended in the last step.
    flushes: Vec<Place>,
    diverged: Option<String>,
}

/// The turns of one execution.
pub(super) struct Schedule {
    turns: Mutex<Turns>,
    search: Condvar,
    agents: Vec<Condvar>,
}

/// What the search sees when it has the turn.
pub(super) struct Seen {
    pub(super) places: Vec<Place>,
    pub(super) hashes: Vec<u64>,
    /// Flushes that began or ended in the last step.
    pub(super) flushes: Vec<Place>,
    pub(super) diverged: Option<String>,
}

thread_local! {
    static SELF: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
    static OPERATION: Cell<usize> = const { Cell::new(0) };
    static HASH: Cell<u64> = const { Cell::new(0) };
}

/// Makes this thread an agent.
pub(super) fn become_agent(schedule: &Arc<Schedule>, agent: usize) {
    SELF.set(Some((Arc::clone(schedule), agent)));
}

/// This thread has arrived at a place. Returns when it is to go on. Nothing for a thread that is no
/// agent.
pub(super) fn arrive(place: Place) {
    if matches!(place, Place::Moment(Moment::Lengthening | Moment::SentinelMoving | Moment::Waiting)) {
        // Only writers grow the file, and nobody looks beyond its old end meanwhile. The search has
        // `AwaitingFlush` for the wait for a flush.
        return;
    }
    let own = SELF.with_borrow(Clone::clone);
    if let Some((schedule, agent)) = own.filter(|_| !std::thread::panicking()) {
        schedule.arrive(agent, place);
    }
}

/// Number of this agent.
pub(super) fn agent() -> Option<usize> {
    SELF.with_borrow(|own| own.as_ref().map(|own| own.1))
}

impl Schedule {
    pub(super) fn new(agents: usize, plan: Vec<Step>) -> Arc<Schedule> {
        let turns = Turns { places: vec![Place::Next(0); agents], hashes: vec![0; agents], plan, ..Turns::default() };
        Arc::new(Schedule {
            turns: Mutex::new(turns),
            search: Condvar::new(),
            agents: (0..agents).map(|_| Condvar::new()).collect(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of an agent that arrives at a place.
    fn hash(place: Place) -> u64 {
        let noted = take_noted();
        if let Place::Next(at) = place {
            OPERATION.set(at);
        }
        let before = if place.forgets() { OPERATION.get() as u64 } else { HASH.get() };
        let mut hasher = DefaultHasher::new();
        (before, place, if place.forgets() { 0 } else { noted }).hash(&mut hasher);
        HASH.set(hasher.finish());
        hasher.finish()
    }

    fn arrive(&self, agent: usize, place: Place) {
        let hash = Schedule::hash(place);
        let mut turns = self.lock();
        turns.arrived(agent, place, hash);
        self.pass(turns, Some(agent));
        if !place.is_end() {
            self.await_turn(agent);
        }
    }

    /// Waits until this agent has the turn. The first call of an agent.
    pub(super) fn await_turn(&self, agent: usize) {
        let mut turns = self.lock();
        while turns.turn != Some(agent) && !turns.ends {
            turns = self.agents[agent].wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        let stops = turns.ends || turns.act == Some(Act::Stop);
        drop(turns);
        if stops {
            stop();
        }
    }

    /// Gives the turn to the agent of the plan, or to the search.
    fn pass(&self, mut turns: MutexGuard<'_, Turns>, from: Option<usize>) {
        if turns.ends {
            return;
        }
        let next = turns.plan.get(turns.begun).copied().filter(|_| turns.diverged.is_none());
        turns.turn = next.map(|step| step.agent);
        turns.act = next.map(|step| step.act);
        match next {
            Some(step) => {
                turns.begun += 1;
                turns.flushes.clear();
                drop(turns);
                if from != Some(step.agent) {
                    self.agents[step.agent].notify_one();
                }
            }
            None => {
                drop(turns);
                self.search.notify_one();
            }
        }
    }

    /// Runs the plan. Returns when it has ended, and the search has the turn.
    pub(super) fn run(&self) -> Seen {
        self.pass(self.lock(), None);
        self.seen()
    }

    /// Runs one more step.
    pub(super) fn step(&self, step: Step) -> Seen {
        let mut turns = self.lock();
        turns.plan.push(step);
        self.pass(turns, None);
        self.seen()
    }

    fn seen(&self) -> Seen {
        let mut turns = self.lock();
        while turns.turn.is_some() {
            turns = self.search.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        Seen {
            places: turns.places.clone(),
            hashes: turns.hashes.clone(),
            flushes: std::mem::take(&mut turns.flushes),
            diverged: turns.diverged.take(),
        }
    }

    /// The steps so far, with where each arrived.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.lock().plan.clone()
    }

    /// Ends the execution: agents unwind where they stand.
    pub(super) fn end(&self) {
        self.lock().ends = true;
        self.agents.iter().for_each(Condvar::notify_all);
    }
}

impl Turns {
    fn arrived(&mut self, agent: usize, place: Place, hash: u64) {
        (self.places[agent], self.hashes[agent]) = (place, hash);
        if matches!(place, Place::FlushBegins(..) | Place::FlushEnded(..) | Place::FlushFailed(..)) {
            self.flushes.push(place);
        }
        let Some(step) = self.begun.checked_sub(1).and_then(|last| self.plan.get_mut(last)) else { return };
        if step.arrived != 0 && step.arrived != hash && self.diverged.is_none() {
            self.diverged = Some(format!("step {} of agent {agent} ended at {place:?} this time", self.begun));
        }
        step.arrived = hash;
    }
}
