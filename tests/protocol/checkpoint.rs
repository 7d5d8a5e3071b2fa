//! Steps of a checkpoint beside writers, and of writing a meta page.

use crate::step::{Cx, Pc, Step};
use crate::world::{Lock, Meta, LOG, LOG_BEGIN, NONE, RING};
use crate::Rule;

impl Cx<'_> {
    /// `Core::checkpoint_beside_writers`, `Core::write_meta_page` and `Core::commit_state` in
    /// `src/txn/write/checkpoint.rs`.
    pub(crate) fn checkpoint(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::LockCheckpoint => self.take(Lock::Checkpoint, Pc::LookInDoubt),
            Pc::LookInDoubt => {
                let live = self.records();
                let in_doubt = Some(live.in_doubt).filter(|&in_doubt| in_doubt != NONE && !self.lacks(Rule::P13));
                let is_commit = in_doubt.is_some_and(|in_doubt| self.world.commit(in_doubt).txn > live.latest);
                if self.is_poisoned() {
                    self.fail()
                } else if is_commit {
                    self.release(Lock::Checkpoint);
                    self.go(Pc::TakeWriter)
                } else {
                    self.agent().back[1] = Pc::Pin;
                    self.finish_in_doubt()
                }
            }
            Pc::Pin => {
                self.agent().txn = self.records().published;
                self.go(Pc::StorePinned)
            }
            Pc::StorePinned => {
                let (txn, meta) = (self.own().txn, self.records().meta);
                let is_done = self.world.commit(meta).txn >= txn;
                self.live().pinned = if is_done { 0 } else { txn };
                if is_done {
                    if self.lacks(Rule::EvenWithoutFlush) {
                        self.set_even(1);
                    }
                    self.release(Lock::Checkpoint);
                    return self.end();
                }
                self.go(if self.lacks(Rule::PinNotReread) { Pc::Map } else { Pc::ReadPublishedAgain })
            }
            Pc::ReadPublishedAgain => {
                let moved = self.records().published != self.own().txn;
                self.go(if moved { Pc::Pin } else { Pc::Map })
            }
            Pc::Map => {
                let Some(state) = self.state(self.own().txn) else { return self.go(Pc::Pin) };
                if !self.lacks(Rule::P11) {
                    self.follow();
                }
                let agent = self.agent();
                (agent.meta, agent.meta_cid, agent.back[1]) = (Meta::Beside, state, Pc::Next);
                self.go(Pc::MetaOdd)
            }
            _ => self.write_meta_page(pc),
        }
    }

    /// `Core::finish_in_doubt` in `src/txn/write/take_over.rs`. The process has the checkpoint lock.
    /// Goes on at `back`, with the lock unless the writer lock was taken to finish a commit.
    pub(crate) fn finish_in_doubt(&mut self) -> Step {
        let in_doubt = self.records().in_doubt;
        if in_doubt == NONE || self.lacks(Rule::P13) {
            return self.finished();
        }
        let is_old = self.world.commit(self.records().meta).txn < self.world.commit(in_doubt).txn;
        self.follow();
        let agent = self.agent();
        (agent.meta, agent.meta_cid) = (Meta::Finish, in_doubt);
        self.go(if is_old { Pc::MetaOdd } else { Pc::MetaLatestFirst })
    }

    fn finished(&mut self) -> Step {
        let back = self.own().back[1];
        if back == Pc::Begin {
            self.release(Lock::Checkpoint);
        }
        self.go(back)
    }

    /// Up to the flush of the meta page.
    fn write_meta_page(&mut self, pc: Pc) -> Step {
        let (cid, kind) = (self.own().meta_cid, self.own().meta);
        let (txn, slot) = (self.world.commit(cid).txn, self.records().slot as usize ^ 1);
        match pc {
            Pc::MetaOdd => {
                self.set_odd(1);
                self.go(Pc::FlushTree)
            }
            Pc::FlushTree => {
                // The pages of the log lie among the others.
                let done = self.flush(self.mapped_pages().chain(LOG_BEGIN..LOG_BEGIN + LOG), 0);
                self.go(match kind {
                    _ if !done => Pc::Remember,
                    Meta::Commit => Pc::MetaFillFirst,
                    Meta::Finish => Pc::StoreMeta,
                    Meta::Beside => Pc::InDoubt,
                })
            }
            Pc::MetaFillFirst => {
                self.live().ring[(txn % RING) as usize].0 = cid;
                self.go(Pc::MetaFillSecond)
            }
            Pc::MetaFillSecond => {
                self.live().ring[(txn % RING) as usize].1 = cid;
                self.go(Pc::InDoubt)
            }
            Pc::InDoubt => {
                let unpinned = self.lacks(Rule::P15AndPinned);
                let live = self.live();
                live.in_doubt = cid;
                if unpinned || kind == Meta::Commit {
                    live.pinned = 0;
                }
                self.go(Pc::StoreMeta)
            }
            Pc::StoreMeta => {
                self.world.file.store(slot, cid);
                self.go(Pc::FlushMeta)
            }
            Pc::FlushMeta => {
                let done = self.flush(slot..slot + 1, 0);
                self.go(match kind {
                    _ if !done => Pc::Remember,
                    Meta::Finish => Pc::MetaLatestFirst,
                    _ => Pc::MoveMeta,
                })
            }
            _ => self.move_records(pc),
        }
    }

    /// The meta page is durable: the records follow.
    fn move_records(&mut self, pc: Pc) -> Step {
        let (cid, kind) = (self.own().meta_cid, self.own().meta);
        let (txn, slot) = (self.world.commit(cid).txn, self.records().slot ^ 1);
        let is_commit = kind == Meta::Commit || kind == Meta::Finish && txn >= self.records().latest;
        match pc {
            Pc::MetaLatestFirst => {
                if is_commit {
                    self.live().latest = txn;
                }
                self.go(if self.records().meta == cid { Pc::MetaDurable } else { Pc::MoveMeta })
            }
            Pc::MoveMeta => {
                let live = self.live();
                (live.meta, live.slot) = (cid, slot);
                self.go(if kind == Meta::Commit { Pc::MetaLatest } else { Pc::MetaDurable })
            }
            Pc::MetaLatest => {
                self.live().latest = txn;
                self.go(Pc::MetaDurable)
            }
            Pc::MetaDurable => {
                let live = self.live();
                live.durable = live.durable.max(txn);
                self.go(if is_commit { Pc::MetaPublish } else { Pc::Clear })
            }
            Pc::MetaPublish => {
                let live = self.live();
                live.published = live.published.max(txn);
                self.go(Pc::Clear)
            }
            Pc::Clear => {
                let live = self.live();
                (live.in_doubt, live.pinned) = (NONE, 0);
                self.go(Pc::MetaEven)
            }
            _ => {
                self.set_even(1);
                match kind {
                    Meta::Finish => self.finished(),
                    Meta::Commit => {
                        self.release(Lock::Checkpoint);
                        let back = self.own().back[1];
                        self.go(back)
                    }
                    Meta::Beside => {
                        self.release(Lock::Checkpoint);
                        self.end()
                    }
                }
            }
        }
    }
}
