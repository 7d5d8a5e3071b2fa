//! Steps of a write transaction: taking over, reclaiming pages, growth, and committing by log.

use crate::step::{Cx, Pc, Step};
use crate::world::{
    Commit, Extent, Goal, Lock, Meta, COMMITS, LOG, LOG_BEGIN, NONE, PAGES, READER_PAGES, RING, SENTINEL, TREE,
    UNPUBLISHED_MAX, ZERO,
};
use crate::{Op, Rule};

/// The next position that begins a page.
pub(crate) fn round_up(position: u8) -> u8 {
    position.next_multiple_of(2)
}

impl Cx<'_> {
    pub(crate) fn write(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::TakeWriter => self.take(Lock::Writer, Pc::Prove),
            Pc::Prove | Pc::TakeOver | Pc::ClearAppending | Pc::Doubt | Pc::Begin => self.take_over(pc),
            Pc::ReadPublished | Pc::ReadSlot | Pc::ReadCheckpoint | Pc::TestOwner | Pc::FreeOwner => self.reclaim(pc),
            Pc::Lengthen | Pc::StoreSentinel | Pc::StoreLength | Pc::StorePage | Pc::StoreLengthLate => self.grow(pc),
            Pc::TakeCheckpoint | Pc::DoubtAgain | Pc::Epoch => self.commit_by_checkpoint(pc),
            _ => self.append(pc),
        }
    }

    /// `WriteTxn::begin`; `Core::take_over` in `src/txn/write/take_over.rs`.
    fn take_over(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::Prove if self.must_prove() => {
                self.agent().back[2] = Pc::TakeOver;
                self.go(Pc::ProofAppending)
            }
            Pc::Prove | Pc::TakeOver => {
                if self.is_poisoned() {
                    return self.fail();
                }
                let (appending, latest) = (self.records().appending, self.records().latest);
                if appending == 0 {
                    return self.go(Pc::Doubt);
                }
                if !self.lacks(Rule::P9) {
                    let epoch = self.world.commit(self.known(latest)?).epoch;
                    let live = self.live();
                    live.broken = live.broken.max(epoch);
                }
                self.go(Pc::ClearAppending)
            }
            Pc::ClearAppending => {
                self.live().appending = 0;
                self.go(Pc::Doubt)
            }
            Pc::Doubt => {
                let live = self.records();
                let is_commit = live.in_doubt != NONE && self.world.commit(live.in_doubt).txn > live.latest;
                match is_commit && !self.lacks(Rule::P13) {
                    true => {
                        self.agent().back[1] = Pc::Begin;
                        self.take(Lock::Checkpoint, Pc::DoubtAgain)
                    }
                    false => self.go(Pc::Begin),
                }
            }
            _ => match self.own().goal {
                Goal::Write => {
                    self.follow();
                    self.go(Pc::ReadPublished)
                }
                Goal::Checkpoint => {
                    self.release(Lock::Writer);
                    self.go(Pc::LockCheckpoint)
                }
                Goal::Sync => {
                    self.release(Lock::Writer);
                    self.go(Pc::SyncLatest)
                }
                Goal::Close => self.go(Pc::GiveUpLog),
            },
        }
    }

    /// `Env::live_states` in `src/txn/env.rs`, and `ReaderPages::free_dead` in
    /// `src/txn/read/reader_pages.rs`. `live` has a bit for each txn that counts, and `count` is the
    /// next reader page.
    fn reclaim(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::ReadPublished => {
                let published = if self.lacks(Rule::PublishedReadLast) { 0 } else { self.records().published };
                let agent = self.agent();
                (agent.seen, agent.live, agent.count) = (published, 0, 0);
                self.go(Pc::ReadSlot)
            }
            Pc::ReadSlot => {
                let at = self.own().count as usize;
                let (owner, slot) = (self.records().owners[at], self.records().slots[at]);
                if owner.0 != NONE && slot != 0 && !self.lacks(Rule::SlotIgnored) {
                    self.agent().live |= 1 << slot;
                }
                self.agent().count += 1;
                self.go(if at + 1 == READER_PAGES { Pc::ReadCheckpoint } else { Pc::ReadSlot })
            }
            Pc::ReadCheckpoint => self.find_page(),
            Pc::TestOwner => {
                let at = self.own().count as usize;
                if at == READER_PAGES {
                    return self.go(if self.own().flag { Pc::ReadPublished } else { Pc::Lengthen });
                }
                let owner = self.records().owners[at];
                if owner.0 == NONE || owner == (self.own().slot, self.own().generation) || !self.is_dead(owner) {
                    self.agent().count += 1;
                    return Ok(true);
                }
                self.agent().owner = owner;
                self.go(Pc::FreeOwner)
            }
            _ => {
                let (at, owner) = (self.own().count as usize, self.own().owner);
                let found = self.records().owners[at];
                let is_same = if self.lacks(Rule::Generation) { found.0 == owner.0 } else { found == owner };
                if is_same {
                    self.live().owners[at] = (NONE, 0);
                    self.agent().flag = true;
                }
                self.agent().count += 1;
                self.go(Pc::TestOwner)
            }
        }
    }

    /// Whether the owner of a reader page has died (`ReaderPages::is_dead`).
    pub(crate) fn is_dead(&self, (slot, generation): (u8, u8)) -> bool {
        self.lacks(Rule::OwnerUntested)
            || !self.world.is_alive(slot)
            || self.records().generations[slot as usize] != generation
    }

    /// Copies the record `checkpoint`, and takes a page that no live state reaches (R5).
    fn find_page(&mut self) -> Step {
        let live = self.records();
        let (mut states, from, latest) = (self.own().live, self.own().seen, live.latest);
        let from = if self.lacks(Rule::PublishedReadLast) { live.published } else { from };
        if !self.lacks(Rule::MetaIgnored) {
            states |= 1 << self.world.commit(live.meta).txn;
        }
        if live.pinned != 0 && !self.lacks(Rule::PinnedIgnored) {
            states |= 1 << live.pinned;
        }
        if live.in_doubt != NONE && !self.lacks(Rule::InDoubtIgnored) && !self.lacks(Rule::P15AndPinned) {
            states |= 1 << self.world.commit(live.in_doubt).txn;
        }
        match self.lacks(Rule::P7) {
            true => states |= 1 << latest,
            false => (from..=latest).for_each(|txn| states |= 1 << txn),
        }
        let parent = self.known(latest)?;
        let commit = self.world.commit(parent);
        let reaches = |extent: Extent| (extent.born..extent.freed).any(|txn| states >> txn & 1 != 0);
        let is_free = |extent: Extent| extent.born == 0 || extent.freed != 0 && !reaches(extent);
        let found = (0..commit.size).find(|&page| is_free(commit.extents[page as usize]));
        match found {
            Some(page) => {
                self.make_commit(parent, page)?;
                self.go(Pc::StorePage)
            }
            None => {
                self.agent().count = 0;
                self.go(if self.own().flag { Pc::Lengthen } else { Pc::TestOwner })
            }
        }
    }

    /// Makes a commit on a state, with a new page.
    pub(crate) fn make_commit(&mut self, parent: u8, page: u8) -> Result<u8, String> {
        let before = *self.world.commit(parent);
        let cid = self.world.made;
        if cid as usize == COMMITS {
            return Err("the scenario has too many commits".into());
        }
        let immediate = self.op() != Some(Op::Eventual);
        let txn = before.txn + 1;
        let mut commit = Commit { txn, parent, page, root: cid, immediate, ..before };
        commit.last_immediate = if immediate { txn } else { before.last_immediate };
        commit.size = commit.size.max(page + 1);
        commit.extents[before.page as usize].freed = txn;
        commit.extents[page as usize] = Extent { born: txn, freed: 0 };
        (self.world.commits[cid as usize], self.world.made) = (commit, cid + 1);
        (self.agent().cid, self.agent().txn) = (cid, txn);
        Ok(cid)
    }

    /// `Mapping::grow` in `src/mapping/grow.rs`.
    fn grow(&mut self, pc: Pc) -> Step {
        let (old, cid) = (self.records().length, self.own().cid);
        match pc {
            Pc::Lengthen if old + 1 == PAGES as u8 => self.full(),
            Pc::Lengthen => {
                self.world.file.len = old + 2;
                self.go(Pc::StoreSentinel)
            }
            Pc::StoreSentinel => {
                self.world.file.store(TREE + old as usize + 1, SENTINEL);
                if self.world.file.page(old) != SENTINEL {
                    return Err("growth finds no sentinel, although the file was not cut".into());
                }
                self.go(Pc::StoreLength)
            }
            Pc::StoreLength => {
                if !self.lacks(Rule::P17) {
                    self.live().length = old + 1;
                }
                self.agent().mapped = old + 1;
                let parent = self.known(self.records().latest)?;
                self.make_commit(parent, old)?;
                self.go(Pc::StorePage)
            }
            Pc::StorePage => {
                let page = self.world.commit(cid).page;
                self.world.file.store(TREE + page as usize, cid);
                self.go(if page == old { Pc::StoreLengthLate } else { self.after_store() })
            }
            _ => {
                self.live().length = old + 1;
                self.go(self.after_store())
            }
        }
    }

    /// The file can get no longer: the transaction is aborted. Only living readers may be the cause.
    fn full(&mut self) -> Step {
        let live = self.records();
        let pins = |(at, owner): (usize, &(u8, u8))| owner.0 != NONE && live.slots[at] != 0 && self.is_dead(*owner);
        match live.owners.iter().enumerate().any(pins) {
            true => Err("the file is full of pages that dead readers hold".into()),
            false => self.fail(),
        }
    }

    fn after_store(&self) -> Pc {
        let broken = self.world.commit(self.own().cid).epoch <= self.records().broken;
        if self.op() == Some(Op::Large) || broken {
            Pc::TakeCheckpoint
        } else {
            Pc::KeepRing
        }
    }

    /// `Core::keep_unflushed` in `src/txn/log/lead.rs`; the steps of `src/txn/log/append.rs`.
    fn append(&mut self, pc: Pc) -> Step {
        let (cid, txn) = (self.own().cid, self.own().txn);
        match pc {
            Pc::KeepRing if txn > self.records().published + UNPUBLISHED_MAX && !self.lacks(Rule::RingOverrun) => {
                if self.is_poisoned() {
                    return self.fail();
                }
                self.agent().back[0] = Pc::KeepRing;
                self.take(Lock::Flush, Pc::CopyLatest)
            }
            Pc::KeepRing => self.go(Pc::SetAppending),
            Pc::SetAppending => {
                self.live().appending = txn;
                self.go(Pc::Record)
            }
            Pc::Record => {
                let head = self.world.commit(cid).head.max(self.records().closed);
                if head as usize >= LOG - 1 {
                    return Err("the scenario is too long for the log".into());
                }
                self.open_log();
                self.world.file.store(LOG_BEGIN + head as usize, cid);
                if head.is_multiple_of(2) {
                    self.world.file.store(LOG_BEGIN + head as usize + 1, ZERO);
                }
                self.world.commits[cid as usize].head = head + 1;
                self.go(if self.lacks(Rule::P5) { Pc::StoreLatest } else { Pc::FillFirst })
            }
            _ => self.end_append(pc),
        }
    }

    fn end_append(&mut self, pc: Pc) -> Step {
        let (cid, txn) = (self.own().cid, self.own().txn);
        match pc {
            Pc::FillFirst => {
                self.live().ring[(txn % RING) as usize].0 = cid;
                self.go(Pc::FillSecond)
            }
            Pc::FillSecond => {
                self.live().ring[(txn % RING) as usize].1 = cid;
                self.go(if self.lacks(Rule::P5) { Pc::AppendingCleared } else { Pc::StoreLatest })
            }
            Pc::StoreLatest => {
                self.live().latest = txn;
                self.go(if self.lacks(Rule::P5) { Pc::FillFirst } else { Pc::AppendingCleared })
            }
            Pc::AppendingCleared => {
                self.live().appending = 0;
                let eventual = self.op() == Some(Op::Eventual);
                self.go(if eventual { Pc::PublishEventual } else { Pc::ReleaseWriter })
            }
            Pc::PublishEventual => {
                let last = if self.lacks(Rule::P12) { 0 } else { self.world.commit(cid).last_immediate };
                let live = self.live();
                if live.durable >= last {
                    live.published = live.published.max(txn);
                    self.agent().flag = true;
                } else {
                    self.agent().flag = false;
                }
                self.go(Pc::ReleaseWriter)
            }
            Pc::ReleaseWriter => {
                self.release(Lock::Writer);
                let shown = self.op() == Some(Op::Eventual) && self.own().flag;
                match shown {
                    true => self.acknowledge(),
                    false if self.op() == Some(Op::Unawaited) => self.end(),
                    false => self.go(Pc::Await),
                }
            }
            // `Core::sync`
            Pc::SyncLatest => {
                let latest = self.known(self.records().latest)?;
                (self.agent().cid, self.agent().txn) = (latest, self.world.commit(latest).txn);
                self.go(Pc::Await)
            }
            _ => self.wait_durable(),
        }
    }

    /// `Core::wait_durable` in `src/txn/log/lead.rs`.
    fn wait_durable(&mut self) -> Step {
        let (txn, live) = (self.own().txn, self.records());
        if live.durable >= txn && live.published >= txn {
            return self.acknowledge();
        }
        if self.is_poisoned() {
            return self.fail();
        }
        self.agent().back[0] = Pc::Await;
        self.take(Lock::Flush, Pc::CopyLatest)
    }

    /// `commit` returns.
    pub(crate) fn acknowledge(&mut self) -> Step {
        let cid = self.own().cid;
        match self.op() {
            Some(Op::Eventual) => self.world.returned |= 1 << cid,
            _ => self.world.acknowledged |= 1 << cid,
        }
        self.end()
    }

    /// `Core::commit_by_checkpoint` in `src/txn/write/checkpoint.rs`; with the writer lock.
    fn commit_by_checkpoint(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::TakeCheckpoint => {
                self.agent().back[1] = Pc::Epoch;
                self.take(Lock::Checkpoint, Pc::DoubtAgain)
            }
            Pc::DoubtAgain => self.finish_in_doubt(),
            _ => {
                self.begin_epoch();
                let cid = self.own().cid;
                let agent = self.agent();
                (agent.meta, agent.meta_cid, agent.back[1]) = (Meta::Commit, cid, Pc::ReleaseWriter);
                self.go(Pc::MetaOdd)
            }
        }
    }

    /// A new epoch, on a new page (P14; `Core::begin_epoch`).
    pub(crate) fn begin_epoch(&mut self) {
        let (broken, closed) = (self.records().broken, self.records().closed);
        let cid = self.own().cid as usize;
        let commit = &mut self.world.commits[cid];
        commit.epoch = commit.epoch.max(broken) + 1;
        commit.head = round_up(commit.head.max(closed));
    }
}
