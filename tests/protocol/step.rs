//! One step of a process: what all steps share, and which file has which step.
//!
//! A step is one access to what processes share; what a process does in private belongs to the step
//! before. Each step names the function that takes it in the crate.

use crate::world::{Agent, Goal, Live, Lock, Presence, World, TREE};
use crate::{Op, Rule, Scenario};

/// `Ok(false)`: the process cannot go on now. An error is a violation.
pub(crate) type Step = Result<bool, String>;

/// Where a process stands: the step that it takes next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[rustfmt::skip]
pub(crate) enum Pc {
    // The next operation of the script; the end; not begun yet (a child).
    Next, Done, Dead, Unborn,
    // A write transaction, and committing by log.
    TakeWriter, Prove, TakeOver, ClearAppending, Doubt, Begin, ReadPublished, ReadSlot, ReadCheckpoint,
    TestOwner, FreeOwner, Lengthen, StoreSentinel, StoreLength, StorePage, StoreLengthLate, KeepRing, SetAppending,
    Record, FillFirst, FillSecond, StoreLatest, AppendingCleared, PublishEventual, ReleaseWriter, SyncLatest, Await,
    TakeCheckpoint, DoubtAgain, Epoch,
    // A leader.
    CopyLatest, SetOdd, Close, LoadAppending, AwaitAppender, FlushAgain, FlushLog, StoreFlushed, StoreDurable,
    Publish, SetEven, Remember, Poison,
    // A checkpoint beside writers, and writing a meta page.
    LockCheckpoint, LookInDoubt, Pin, StorePinned, ReadPublishedAgain, Map, MetaOdd, FlushTree, MetaFillFirst, MetaFillSecond,
    InDoubt, StoreMeta, FlushMeta, MetaLatestFirst, MoveMeta, MetaLatest, MetaDurable, MetaPublish, Clear, MetaEven,
    // The proof of P18.
    ProofAppending, ProofCheckpoint, ProofFlush, FlushAll, Compare, Proved, ProofPoison,
    // A reader.
    LookForPage, ClaimPage, ClearSlots, LoadPublished, Show, Reload, CopyFirst, CopySecond, Fork, MapReader,
    ReadPage, CheckSentinel, LoadLength, Free,
    // A child after `fork`.
    ChildDrops, ChildStays,
    // Opening and closing.
    OpenFile, TakeGate, LookForMembers, CheckBinding, SharePresence, TakeSlot, MapRecords, NoteMarks, OpenGate,
    TakePresence, SyncFile, DropCache, Recover, ResetRecords, BecomeMember, WritePage, FlushRecovered,
    StoreRecovered, FlushRecoveredMeta, Forget, Cut, BeginSession,
    GiveUpPage, CloseGate, TryLast, GiveUpLog, CutAtEnd, EndSession, Leave, OpenGateAtEnd,
}

pub(crate) struct Cx<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) me: usize,
    pub(crate) rule: Option<Rule>,
    pub(crate) scenario: &'a Scenario,
    /// The flush of this step fails.
    pub(crate) fails: bool,
    /// The step has flushed something that could have failed.
    pub(crate) flushed: bool,
}

impl Cx<'_> {
    pub(crate) fn agent(&mut self) -> &mut Agent {
        &mut self.world.agents[self.me]
    }

    /// What the process knows of itself.
    pub(crate) fn own(&self) -> &Agent {
        &self.world.agents[self.me]
    }

    pub(crate) fn live(&mut self) -> &mut Live {
        &mut self.world.lives[self.world.agents[self.me].lock_file as usize]
    }

    pub(crate) fn records(&self) -> &Live {
        &self.world.lives[self.own().lock_file as usize]
    }

    /// Whether a rule is left out.
    pub(crate) fn lacks(&self, rule: Rule) -> bool {
        self.rule == Some(rule)
    }

    /// Whether a flush has failed (P19; `Core::check_poison`).
    pub(crate) fn is_poisoned(&self) -> bool {
        self.records().poison && !self.lacks(Rule::P19)
    }

    /// Goes on at a step.
    pub(crate) fn go(&mut self, pc: Pc) -> Step {
        self.agent().pc = pc;
        Ok(true)
    }

    /// Takes a lock and goes on, if it is free.
    pub(crate) fn take(&mut self, lock: Lock, pc: Pc) -> Step {
        if self.world.is_held(lock) {
            return Ok(false);
        }
        self.world.held[lock as usize] = self.me as u8;
        self.go(pc)
    }

    pub(crate) fn release(&mut self, lock: Lock) {
        let held = &mut self.world.held[lock as usize];
        if *held == self.me as u8 {
            *held = crate::world::NONE;
        }
    }

    /// Ends the operation.
    pub(crate) fn end(&mut self) -> Step {
        let agent = self.agent();
        agent.at += 1;
        (agent.txn, agent.cid, agent.meta_cid, agent.lead, agent.seen, agent.live, agent.count) = (0, 0, 0, 0, 0, 0, 0);
        (agent.flag, agent.again, agent.owner) = (false, false, (crate::world::NONE, 0));
        agent.back = [Pc::Next; 3];
        self.go(Pc::Next)
    }

    /// Ends the operation with an error: locks are released.
    pub(crate) fn fail(&mut self) -> Step {
        [Lock::Writer, Lock::Checkpoint, Lock::Flush].into_iter().for_each(|lock| self.release(lock));
        if matches!(self.op(), Some(Op::Open(_))) {
            self.world.release_all(self.me);
        }
        match self.own().goal {
            Goal::Close => self.go(Pc::EndSession),
            _ => self.end(),
        }
    }

    /// Maps the file up to `length` (P17; `Mapping::follow` in `src/mapping/grow.rs`).
    pub(crate) fn follow(&mut self) {
        let len = match self.lacks(Rule::FileLengthTaken) {
            true => self.world.file.len - 1,
            false => self.records().length,
        };
        let agent = self.agent();
        agent.mapped = agent.mapped.max(len);
    }

    /// Flushes cells by the description of the file (0) or that of the log (1).
    pub(crate) fn flush(&mut self, cells: impl Iterator<Item = usize>, description: usize) -> bool {
        let fails = self.fails;
        self.flushed = true;
        if description == 1 {
            self.open_log();
        }
        let file = &mut self.world.file;
        let told = &mut self.world.agents[self.me].told[description];
        self.world.has_failed |= fails;
        file.flush(cells, told, fails)
    }

    /// The description of the log is opened with the file, not when it is used first
    /// (`Mapping::log_description` in `src/mapping/log_file.rs`).
    pub(crate) fn open_log(&mut self) {
        let is_first = !std::mem::replace(&mut self.agent().has_log, true);
        if is_first && self.lacks(Rule::LogOpenedLate) {
            self.agent().told[1] = self.world.file.open();
        }
    }

    /// Tree pages that this process has mapped.
    pub(crate) fn mapped_pages(&self) -> std::ops::Range<usize> {
        TREE..TREE + self.own().mapped as usize
    }

    /// The commit that the ring has for a txn.
    pub(crate) fn state(&self, txn: u8) -> Option<u8> {
        crate::judge::state(self.world, self.records(), txn)
    }

    /// The state of a txn, which the ring has (P5).
    pub(crate) fn known(&self, txn: u8) -> Result<u8, String> {
        self.state(txn).ok_or_else(|| format!("the ring has lost the state of txn {txn}"))
    }

    /// Takes the next step.
    pub(crate) fn step(&mut self) -> Step {
        let pc = self.own().pc;
        match pc {
            Pc::Next => self.next(),
            Pc::Done | Pc::Dead | Pc::Unborn | Pc::ChildStays => Ok(false),
            _ if pc as u8 <= Pc::Epoch as u8 => self.write(pc),
            _ if pc as u8 <= Pc::Poison as u8 => self.lead(pc),
            _ if pc as u8 <= Pc::MetaEven as u8 => self.checkpoint(pc),
            _ if pc as u8 <= Pc::ProofPoison as u8 => self.prove(pc),
            _ if pc as u8 <= Pc::ChildDrops as u8 => self.read(pc),
            _ if pc as u8 <= Pc::BeginSession as u8 => self.open(pc),
            _ => self.close(pc),
        }
    }

    /// Begins the next operation of the script.
    fn next(&mut self) -> Step {
        let at = self.own().at as usize;
        let Some(&op) = self.scenario.agents[self.me].get(at) else { return self.go(Pc::Done) };
        let is_out = self.own().presence == Presence::Out;
        match op {
            Op::Child => return self.go(Pc::Done),
            Op::Open(lock_file) => {
                self.agent().lock_file = lock_file;
                return self.go(Pc::OpenFile);
            }
            // The process could not open the file.
            _ if is_out => return self.end(),
            Op::Close => {
                self.agent().goal = Goal::Close;
                return self.go(Pc::GiveUpPage);
            }
            Op::Checkpoint => self.agent().goal = Goal::Checkpoint,
            Op::Sync => self.agent().goal = Goal::Sync,
            _ => self.agent().goal = Goal::Write,
        }
        match op {
            _ if self.is_poisoned() && !matches!(op, Op::Read | Op::ReadAndFork) => self.end(),
            Op::Checkpoint => {
                let pc = if self.must_prove() { Pc::TakeWriter } else { Pc::LockCheckpoint };
                self.go(pc)
            }
            Op::Read | Op::ReadAndFork if self.own().reader_page == crate::world::NONE => self.go(Pc::LookForPage),
            Op::Read | Op::ReadAndFork => self.go(Pc::LoadPublished),
            Op::Sync if !self.must_prove() => self.go(Pc::SyncLatest),
            _ => self.go(Pc::TakeWriter),
        }
    }

    /// The operation that runs.
    pub(crate) fn op(&self) -> Option<Op> {
        self.scenario.agents[self.me].get(self.own().at as usize).copied()
    }
}
