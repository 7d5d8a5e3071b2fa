//! Steps of a leader, and of the proof of P18.

use crate::step::{Cx, Pc, Step};
use crate::world::{Lock, LOG_BEGIN, TREE};
use crate::write::round_up;
use crate::Rule;

impl Cx<'_> {
    /// `Core::flush_log` in `src/txn/log/lead.rs`. The process has the flush lock.
    pub(crate) fn lead(&mut self, pc: Pc) -> Step {
        let lead = self.own().lead;
        let (txn, closes) = (self.world.commit(lead).txn, round_up(self.world.commit(lead).head));
        match pc {
            Pc::CopyLatest => {
                if self.is_poisoned() {
                    return self.stop_leading();
                }
                let latest = self.known(self.records().latest)?;
                self.agent().lead = latest;
                let is_durable = self.records().durable >= self.world.commit(latest).txn;
                (self.agent().again, self.agent().count) = (false, 0);
                self.go(if is_durable { Pc::Publish } else { Pc::SetOdd })
            }
            Pc::SetOdd => {
                let was_odd = self.set_odd(0);
                let again = was_odd && !self.lacks(Rule::NotFlushedAgain);
                (self.agent().again, self.agent().count) = (again, 1);
                self.go(Pc::Close)
            }
            Pc::Close => {
                let live = self.live();
                live.closed = live.closed.max(closes);
                if self.lacks(Rule::P10) {
                    self.live().published = txn;
                }
                self.go(Pc::LoadAppending)
            }
            Pc::LoadAppending => {
                self.agent().seen = self.records().appending;
                self.go(Pc::AwaitAppender)
            }
            Pc::AwaitAppender => {
                let (appending, seen) = (self.records().appending, self.own().seen);
                if appending != 0 && appending == seen && self.world.is_held(Lock::Writer) {
                    return Ok(false);
                }
                self.follow();
                self.go(if self.own().again { Pc::FlushAgain } else { Pc::FlushLog })
            }
            _ => self.flush_log(pc),
        }
    }

    fn flush_log(&mut self, pc: Pc) -> Step {
        let lead = self.own().lead;
        let (txn, closes) = (self.world.commit(lead).txn, round_up(self.world.commit(lead).head));
        match pc {
            Pc::FlushAgain => {
                let done = self.flush(0..LOG_BEGIN + crate::world::LOG, 0);
                self.go(if done { Pc::FlushLog } else { Pc::Remember })
            }
            Pc::FlushLog => {
                let live = self.records();
                let from = live.flushed.max(self.world.commit(live.meta).head / 2 * 2).min(closes);
                let done = self.flush(LOG_BEGIN + from as usize..LOG_BEGIN + closes as usize, 1);
                self.go(if done { Pc::StoreFlushed } else { Pc::Remember })
            }
            Pc::StoreFlushed => {
                let live = self.live();
                live.flushed = live.flushed.max(closes);
                self.go(Pc::StoreDurable)
            }
            Pc::StoreDurable => {
                let live = self.live();
                live.durable = live.durable.max(txn);
                self.go(Pc::Publish)
            }
            Pc::Publish => {
                let live = self.live();
                live.published = live.published.max(txn);
                self.go(Pc::SetEven)
            }
            Pc::SetEven => {
                // A leader that has flushed nothing leaves the mark as it is.
                if self.own().count == 1 {
                    self.set_even(0);
                }
                self.stop_leading()
            }
            _ => self.poison(pc),
        }
    }

    fn stop_leading(&mut self) -> Step {
        self.release(Lock::Flush);
        let back = self.own().back[0];
        self.go(back)
    }

    /// A flush has failed: the attribute first, then the word that all see (`Core::set_poison`).
    pub(crate) fn poison(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::Remember => {
                self.world.file.attribute = true;
                self.go(Pc::Poison)
            }
            _ => {
                self.live().poison = true;
                self.fail()
            }
        }
    }

    /// Whether the mark was odd already. (`Live::set_odd`)
    pub(crate) fn set_odd(&mut self, mark: usize) -> bool {
        let count = &mut self.live().marks[mark];
        let was_odd = *count % 2 == 1;
        *count += u8::from(!was_odd);
        was_odd
    }

    pub(crate) fn set_even(&mut self, mark: usize) {
        let count = &mut self.live().marks[mark];
        *count += *count % 2;
    }

    /// Whether a mark is odd as it was when the process joined (`JoinedMarks::stand`).
    pub(crate) fn must_prove(&self) -> bool {
        let (joined, marks) = (self.own().joined, self.records().marks);
        !self.lacks(Rule::P18) && (0..2).any(|mark| joined[mark] != 0 && joined[mark] == marks[mark])
    }

    /// `Core::prove_joined` in `src/txn/processes/proof.rs`. The process has the writer lock.
    pub(crate) fn prove(&mut self, pc: Pc) -> Step {
        let live = self.records();
        let latest = self.known(live.latest)?;
        let state = *self.world.commit(latest);
        let closes = round_up(state.head);
        match pc {
            Pc::ProofAppending => {
                if live.appending != 0 {
                    let live = self.live();
                    (live.broken, live.appending) = (live.broken.max(state.epoch), 0);
                }
                self.go(Pc::ProofCheckpoint)
            }
            Pc::ProofCheckpoint => self.take(Lock::Checkpoint, Pc::ProofFlush),
            Pc::ProofFlush => self.take(Lock::Flush, Pc::FlushAll),
            Pc::FlushAll => {
                if !self.must_prove() || self.is_poisoned() {
                    return self.stop_proving();
                }
                let live = self.live();
                live.closed = live.closed.max(closes);
                self.follow();
                let done = self.flush(0..LOG_BEGIN + crate::world::LOG, 0);
                self.go(if done { Pc::Compare } else { Pc::Remember })
            }
            Pc::Compare => {
                let (meta, cells) = (self.world.commit(live.meta), &self.world.file.cells);
                let log = LOG_BEGIN + meta.head as usize..LOG_BEGIN + closes as usize;
                let root = &cells[TREE + state.page as usize];
                let is_newer = self.world.commit(state.root).txn > meta.txn;
                let differs = cells[log].iter().any(|cell| cell.lost) || is_newer && root.lost;
                self.go(if differs && !self.lacks(Rule::NotCompared) { Pc::Remember } else { Pc::Proved })
            }
            _ => {
                let live = self.live();
                live.flushed = live.flushed.max(closes);
                live.durable = live.durable.max(state.txn);
                live.published = live.published.max(state.txn);
                self.set_even(0);
                self.set_even(1);
                self.agent().joined = [0; 2];
                self.stop_proving()
            }
        }
    }

    fn stop_proving(&mut self) -> Step {
        self.release(Lock::Checkpoint);
        self.release(Lock::Flush);
        let back = self.own().back[2];
        self.go(back)
    }
}
