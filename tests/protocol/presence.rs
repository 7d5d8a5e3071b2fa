//! Steps of opening, recovering and closing, inside the gate.

use crate::judge::recovered;
use crate::step::{Cx, Pc, Step};
use crate::world::{Goal, Live, Lock, Meta, Presence, LOG, LOG_BEGIN, NONE, SENTINEL, TREE};
use crate::Rule;

const ALL: std::ops::Range<usize> = 0..LOG_BEGIN + LOG;

impl Cx<'_> {
    /// `presence::enter` in `src/txn/processes/presence.rs`.
    pub(crate) fn open(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::OpenFile => {
                let told = self.world.file.open();
                (self.agent().told, self.agent().has_log) = ([told; 2], false);
                self.go(Pc::TakeGate)
            }
            Pc::TakeGate => self.take(Lock::Gate, Pc::LookForMembers),
            Pc::LookForMembers => {
                if self.lacks(Rule::OpensOutsideGate) {
                    self.release(Lock::Gate);
                }
                let members = self.world.agents.iter().any(|agent| agent.slot != NONE);
                self.go(if members { Pc::CheckBinding } else { Pc::TakePresence })
            }
            Pc::CheckBinding | Pc::SharePresence | Pc::TakeSlot | Pc::MapRecords | Pc::NoteMarks => self.join(pc),
            Pc::OpenGate => {
                self.release(Lock::Gate);
                if self.is_poisoned() {
                    self.world.release_all(self.me);
                }
                self.end()
            }
            _ => self.open_first(pc),
        }
    }

    /// Another process has the file in a way that this one cannot share, or a flush has failed.
    fn refuse(&mut self) -> Step {
        self.world.release_all(self.me);
        self.end()
    }

    /// `Entering::join` in `src/txn/processes/presence.rs`, `join` in `src/txn/open/mod.rs`.
    fn join(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::CheckBinding => {
                let own = self.own().lock_file;
                let members = || self.world.agents.iter().filter(|agent| agent.slot != NONE);
                let is_other = members().any(|agent| agent.lock_file != own) && !self.lacks(Rule::P3);
                let is_own = members().any(|agent| agent.lock_file == own) || self.lacks(Rule::BindingNotHeld);
                if is_other || self.records().session == 0 || !is_own && !self.lacks(Rule::P3) {
                    // Unless they have been killed meanwhile.
                    return if members().next().is_some() { self.refuse() } else { self.go(Pc::LookForMembers) };
                }
                self.go(Pc::SharePresence)
            }
            Pc::SharePresence => {
                if self.world.agents.iter().any(|agent| agent.presence == Presence::Exclusive) {
                    return self.refuse();
                }
                self.agent().presence = Presence::Shared;
                self.go(Pc::TakeSlot)
            }
            Pc::TakeSlot => {
                self.become_member();
                self.go(Pc::MapRecords)
            }
            Pc::MapRecords => {
                self.agent().mapped = self.records().length;
                self.go(Pc::NoteMarks)
            }
            _ => {
                let marks = self.records().marks;
                self.agent().joined = marks.map(|mark| if mark % 2 == 1 { mark } else { 0 });
                self.go(Pc::OpenGate)
            }
        }
    }

    /// Takes the first free process slot, and the next generation.
    fn become_member(&mut self) {
        let slot = (0..).find(|&slot| !self.world.is_alive(slot)).unwrap_or(0);
        let generation = self.records().generations[slot as usize] + 1;
        self.live().generations[slot as usize] = generation;
        let agent = self.agent();
        (agent.slot, agent.generation, agent.reader_page) = (slot, generation, NONE);
    }

    /// `open_first` in `src/txn/open/first.rs`, `replay` in `src/txn/log/replay.rs`.
    fn open_first(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::TakePresence => {
                if self.world.agents.iter().any(|agent| agent.presence != Presence::Out) {
                    return self.refuse();
                }
                self.agent().presence = Presence::Exclusive;
                self.go(Pc::SyncFile)
            }
            Pc::SyncFile => {
                let done = self.flush(ALL, 0);
                let file = &mut self.world.file;
                let is_suspect = file.attribute || !done;
                file.attribute = is_suspect && self.rule != Some(Rule::P20);
                let metas_differ = self.scenario.past_cache && file.cells[..2].iter().any(|cell| cell.lost);
                self.go(if is_suspect || metas_differ { Pc::DropCache } else { Pc::Recover })
            }
            Pc::DropCache => {
                self.world.file.drop_cache();
                self.go(Pc::Recover)
            }
            Pc::Recover => {
                let past_cache = self.scenario.past_cache;
                let (slot, meta, newest) = recovered(self.world, past_cache);
                let agent = self.agent();
                (agent.seen, agent.meta_cid, agent.cid) = (slot, meta, newest);
                self.go(Pc::ResetRecords)
            }
            Pc::ResetRecords => {
                let (slot, meta, generations) = (self.own().seen, self.own().meta_cid, self.records().generations);
                *self.live() = Live { generations, ..Live::begin(meta, slot, self.world.commit(meta)) };
                self.go(Pc::BecomeMember)
            }
            _ => self.begin_session(pc),
        }
    }

    /// Writes what the replay has found, and lets others in.
    fn begin_session(&mut self, pc: Pc) -> Step {
        let cid = self.own().cid;
        match pc {
            Pc::BecomeMember => {
                self.agent().presence = Presence::Shared;
                self.become_member();
                if cid == self.own().meta_cid {
                    return self.go(Pc::Forget);
                }
                self.make_recovered(cid)?;
                self.go(Pc::WritePage)
            }
            Pc::WritePage => {
                let commit = *self.world.commit(cid);
                self.world.file.len = self.world.file.len.max(commit.size);
                self.world.file.store(TREE + commit.page as usize, cid);
                self.go(Pc::FlushRecovered)
            }
            Pc::FlushRecovered => {
                let done = self.flush(TREE..LOG_BEGIN, 0);
                self.go(if done { Pc::StoreRecovered } else { Pc::Remember })
            }
            Pc::StoreRecovered => {
                let slot = self.records().slot as usize ^ 1;
                self.world.file.store(slot, cid);
                self.go(Pc::FlushRecoveredMeta)
            }
            Pc::FlushRecoveredMeta => {
                let slot = self.records().slot ^ 1;
                let done = self.flush(slot as usize..slot as usize + 1, 0);
                let (generations, commit) = (self.records().generations, *self.world.commit(cid));
                *self.live() = Live { generations, ..Live::begin(cid, slot, &commit) };
                self.go(if done { Pc::Forget } else { Pc::Remember })
            }
            Pc::Forget => {
                self.world.file.attribute = false;
                self.go(Pc::Cut)
            }
            Pc::Cut => {
                let size = self.world.commit(cid).size;
                self.world.file.set_len(size);
                self.world.file.set_len(size + 1);
                self.world.file.store(TREE + size as usize, SENTINEL);
                self.agent().mapped = size;
                self.go(Pc::BeginSession)
            }
            _ => {
                self.live().session = 2;
                self.go(Pc::OpenGate)
            }
        }
    }

    /// The state of a replay: that of the newest commit, written beside what the meta page reaches.
    fn make_recovered(&mut self, newest: u8) -> Result<(), String> {
        let meta = *self.world.commit(self.own().meta_cid);
        let is_free = |&page: &u8| page != meta.page;
        let page = (0..meta.size + 1).find(is_free).unwrap_or(meta.size);
        let cid = self.make_commit(newest, page)?;
        let before = *self.world.commit(newest);
        let commit = &mut self.world.commits[cid as usize];
        (commit.immediate, commit.last_immediate) = (true, commit.txn);
        (commit.epoch, commit.head) = (before.epoch + 1, before.head.next_multiple_of(2));
        commit.size = meta.size.max(page + 1);
        commit.extents = meta.extents;
        commit.extents[meta.page as usize].freed = commit.txn;
        commit.extents[page as usize] = crate::world::Extent { born: commit.txn, freed: 0 };
        Ok(())
    }

    /// `Env::close` in `src/txn/env.rs`.
    pub(crate) fn close(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::GiveUpPage => {
                let (page, own) = (self.own().reader_page, (self.own().slot, self.own().generation));
                if page != NONE && self.records().owners[page as usize] == own {
                    self.live().owners[page as usize] = (NONE, 0);
                }
                self.go(if self.lacks(Rule::ClosesOutsideGate) { Pc::TryLast } else { Pc::CloseGate })
            }
            Pc::CloseGate => self.take(Lock::Gate, Pc::TryLast),
            Pc::TryLast => {
                let (me, agents) = (self.me, self.world.agents.iter().enumerate());
                let mut others = agents.filter(|&(at, agent)| at != me && agent.presence != Presence::Out);
                if others.next().is_some() {
                    return self.go(Pc::Leave);
                }
                self.agent().presence = Presence::Exclusive;
                self.go(if self.is_poisoned() { Pc::EndSession } else { Pc::TakeWriter })
            }
            Pc::GiveUpLog => {
                let latest = self.known(self.records().latest)?;
                self.agent().meta_cid = latest;
                if latest == self.records().meta {
                    return self.go(Pc::CutAtEnd);
                }
                // A commit by checkpoint of the same state, with a txn and an epoch of its own.
                let before = *self.world.commit(latest);
                self.make_commit(latest, before.page)?;
                let cid = self.own().cid as usize;
                let commit = &mut self.world.commits[cid];
                (commit.root, commit.extents, commit.size) = (before.root, before.extents, before.size);
                (commit.immediate, commit.last_immediate) = (true, commit.txn);
                self.begin_epoch();
                let agent = self.agent();
                (agent.meta, agent.meta_cid, agent.back[1]) = (Meta::Commit, cid as u8, Pc::CutAtEnd);
                self.go(Pc::MetaOdd)
            }
            Pc::CutAtEnd => {
                let size = self.world.commit(self.own().meta_cid).size;
                self.world.file.set_len(size);
                self.go(Pc::EndSession)
            }
            Pc::EndSession => {
                self.live().session = 0;
                self.go(Pc::Leave)
            }
            Pc::Leave => {
                (self.agent().presence, self.agent().slot, self.agent().goal) = (Presence::Out, NONE, Goal::Write);
                self.go(Pc::OpenGateAtEnd)
            }
            _ => {
                self.world.release_all(self.me);
                self.end()
            }
        }
    }
}
