//! Steps of a reader: claiming a reader page, beginning, reading, ending; and of a child after `fork`.

use crate::step::{Cx, Pc, Step};
use crate::world::{NONE, READER_PAGES, RING, SENTINEL, TREE};
use crate::{Op, Rule};

impl Cx<'_> {
    pub(crate) fn read(&mut self, pc: Pc) -> Step {
        match pc {
            Pc::LookForPage | Pc::ClaimPage | Pc::ClearSlots => self.claim(pc),
            Pc::LoadPublished | Pc::Show | Pc::Reload | Pc::CopyFirst | Pc::CopySecond => self.begin_read(pc),
            Pc::ChildDrops => {
                // A child frees nothing (P22; `CellOwner` in `src/mapping/owned_cell.rs`).
                if self.lacks(Rule::ChildFreesSlot) {
                    let page = self.own().reader_page as usize;
                    self.live().slots[page] = 0;
                }
                self.go(Pc::ChildStays)
            }
            _ => self.use_snapshot(pc),
        }
    }

    /// `ReaderPages::claim_more` and `claim` in `src/txn/read/reader_pages.rs`.
    fn claim(&mut self, pc: Pc) -> Step {
        let at = self.own().count as usize;
        match pc {
            Pc::LookForPage if at == READER_PAGES => Err("no reader page is left".into()),
            Pc::LookForPage => {
                let owner = self.records().owners[at];
                if owner.0 == NONE || self.is_dead(owner) {
                    self.agent().owner = owner;
                    return self.go(if self.lacks(Rule::ClearedBeforeClaim) { Pc::ClearSlots } else { Pc::ClaimPage });
                }
                self.agent().count += 1;
                Ok(true)
            }
            Pc::ClaimPage => {
                let own = (self.own().slot, self.own().generation);
                if self.records().owners[at] != self.own().owner {
                    return self.go(Pc::LookForPage);
                }
                self.live().owners[at] = own;
                self.agent().reader_page = at as u8;
                self.go(if self.lacks(Rule::ClearedBeforeClaim) { Pc::LoadPublished } else { Pc::ClearSlots })
            }
            _ => {
                self.live().slots[at] = 0;
                self.go(if self.lacks(Rule::ClearedBeforeClaim) { Pc::ClaimPage } else { Pc::LoadPublished })
            }
        }
    }

    /// `ReadPool::begin` and `Env::show_published` in `src/txn/read/snapshot.rs`; an entry of the
    /// ring is copied in two halves (`Live::published`).
    fn begin_read(&mut self, pc: Pc) -> Step {
        let (page, txn) = (self.own().reader_page as usize, self.own().txn);
        let entry = self.records().ring[(txn % RING) as usize];
        match pc {
            Pc::LoadPublished if self.is_poisoned() => self.end(),
            Pc::LoadPublished => {
                self.agent().txn = self.records().published;
                self.go(Pc::Show)
            }
            Pc::Show => {
                self.live().slots[page] = txn;
                self.go(if self.lacks(Rule::NotReread) { Pc::CopyFirst } else { Pc::Reload })
            }
            Pc::Reload => {
                let published = self.records().published;
                self.agent().txn = published;
                self.go(if published == txn { Pc::CopyFirst } else { Pc::Show })
            }
            Pc::CopyFirst => {
                self.agent().cid = entry.0;
                self.go(Pc::CopySecond)
            }
            _ => {
                let cid = self.own().cid;
                let is_whole = cid != NONE && entry.1 == cid && self.world.commit(cid).txn == txn;
                if !is_whole && !self.lacks(Rule::TornCopy) {
                    return self.go(Pc::Reload);
                }
                if !is_whole {
                    return Err("a reader uses an entry of the ring that is not of its txn, or not whole (P5)".into());
                }
                self.agent().count = 0;
                self.go(if self.op() == Some(Op::ReadAndFork) { Pc::Fork } else { Pc::MapReader })
            }
        }
    }

    /// Reads the page of the state twice, each time with `Window::all_served`
    /// (`src/mapping/sentinel.rs`), and frees the slot.
    fn use_snapshot(&mut self, pc: Pc) -> Step {
        let state = *self.world.commit(self.own().cid);
        match pc {
            Pc::Fork => {
                let parent = *self.own();
                self.agent().is_kept = self.lacks(Rule::ChildKeepsLocks);
                let child = self.me + 1;
                // The locks of OFD belong to the description: a child that has no copy of it has none.
                let agent = &mut self.world.agents[child];
                (agent.reader_page, agent.lock_file, agent.pc) = (parent.reader_page, parent.lock_file, Pc::ChildDrops);
                self.go(Pc::MapReader)
            }
            Pc::MapReader => {
                if state.size > self.own().mapped {
                    self.follow();
                }
                self.go(Pc::ReadPage)
            }
            Pc::ReadPage if state.page >= self.own().mapped || state.page >= self.world.file.len => {
                Err(format!("a reader of txn {} accesses a page that is not mapped, or not in the file", state.txn))
            }
            Pc::ReadPage => {
                self.agent().seen = self.world.file.page(state.page);
                self.go(Pc::CheckSentinel)
            }
            Pc::CheckSentinel => {
                let mapped = self.own().mapped;
                let place = &self.world.file.cells[TREE + mapped as usize];
                if mapped >= self.world.file.len || place.cache != SENTINEL {
                    return self.go(Pc::LoadLength);
                }
                if self.own().seen != state.root {
                    return Err(format!("the page of a snapshot of txn {} has changed (R5)", state.txn));
                }
                self.agent().count += 1;
                self.go(if self.own().count == 2 { Pc::Free } else { Pc::ReadPage })
            }
            Pc::LoadLength => {
                let before = self.own().mapped;
                self.follow();
                match self.own().mapped == before {
                    true => Err("a reader reports a fault, although the file was not cut (P17)".into()),
                    false => self.go(Pc::CheckSentinel),
                }
            }
            _ => {
                let page = self.own().reader_page as usize;
                self.live().slots[page] = 0;
                self.end()
            }
        }
    }
}
