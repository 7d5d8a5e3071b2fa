//! The world of the model: the file with its page cache and disk, the live records in the lock file,
//! locks, and the processes.
//!
//! A state of the database is one page, its root. The file is a row of cells: two meta pages, tree
//! pages, and places for records in the log, two to a page. A cell has the content that the page
//! cache shows and a set of contents that the disk may have.

/// A number of a commit. 0 is the state that a run begins with.
pub(crate) type Cid = u8;
pub(crate) type Txn = u8;

pub(crate) const COMMITS: usize = 9;
pub(crate) const PAGES: usize = 6;
/// Places for records, two to a page.
pub(crate) const LOG: usize = 10;
pub(crate) const RING: u8 = 4;
/// How far a txn may pass `published` (`UNPUBLISHED_MAX` in `src/txn/log/lead.rs`).
pub(crate) const UNPUBLISHED_MAX: u8 = 2;
pub(crate) const READER_PAGES: usize = 3;
pub(crate) const AGENTS: usize = 4;
pub(crate) const NONE: u8 = 255;

/// Contents of a cell that are no commit.
pub(crate) const ZERO: u8 = 30;
pub(crate) const SENTINEL: u8 = 31;

/// Cells of the file.
pub(crate) const TREE: usize = 2;
pub(crate) const LOG_BEGIN: usize = TREE + PAGES;
const CELLS: usize = LOG_BEGIN + LOG;

/// An extent of one page: the txn that wrote it and the one that freed it. 0: none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) born: Txn,
    pub(crate) freed: Txn,
}

/// A commit: its state, and what its record or meta page says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Commit {
    pub(crate) txn: Txn,
    pub(crate) parent: Cid,
    /// The tree page that this state reaches, and the commit that wrote it.
    pub(crate) page: u8,
    pub(crate) root: Cid,
    /// Pages of the file that the state needs.
    pub(crate) size: u8,
    /// The log after this state.
    pub(crate) head: u8,
    pub(crate) epoch: u8,
    pub(crate) last_immediate: Txn,
    pub(crate) immediate: bool,
    pub(crate) extents: [Extent; PAGES],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Cell {
    pub(crate) cache: u8,
    /// The contents that the disk may have, one bit each.
    pub(crate) disk: u32,
    /// Its write failed, and the kernel takes it for clean.
    pub(crate) lost: bool,
}

/// The file, and what the kernel knows of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct File {
    pub(crate) cells: [Cell; CELLS],
    /// Tree pages and the sentinel; always durable.
    pub(crate) len: u8,
    /// The attribute that remembers a failed flush.
    pub(crate) attribute: bool,
    /// Failed writes, and whether some description was told of the last one.
    errors: u8,
    told: bool,
}

impl File {
    /// A description that is opened now: the errors that it will not be told of.
    pub(crate) fn open(&self) -> u8 {
        if self.told {
            self.errors
        } else {
            0
        }
    }

    pub(crate) fn store(&mut self, cell: usize, content: u8) {
        let cell = &mut self.cells[cell];
        cell.cache = content;
        cell.disk |= 1 << content;
        cell.lost = false;
    }

    /// Flushes cells by a description that has been told of `seen` errors. With `fails`, the writes
    /// fail. Whether it went well.
    pub(crate) fn flush(&mut self, cells: impl Iterator<Item = usize>, seen: &mut u8, fails: bool) -> bool {
        for at in cells {
            let cell = &mut self.cells[at];
            if cell.lost || cell.disk == 1 << cell.cache {
                continue;
            }
            let older = cell.disk & !(1 << cell.cache);
            match fails {
                true => (cell.lost, cell.disk) = (true, 1 << older.trailing_zeros()),
                false => cell.disk = 1 << cell.cache,
            }
        }
        if fails {
            (self.errors, self.told) = (self.errors + 1, false);
        }
        let is_told = *seen != self.errors;
        if is_told {
            (*seen, self.told) = (self.errors, true);
        }
        !is_told
    }

    /// Drops the page cache: all of it shows the disk again.
    pub(crate) fn drop_cache(&mut self) {
        for cell in self.cells.iter_mut().filter(|cell| cell.lost) {
            (cell.cache, cell.lost) = (cell.disk.trailing_zeros() as u8, false);
        }
    }

    /// Cuts or lengthens the file; what is cut off reads as zeros.
    pub(crate) fn set_len(&mut self, len: u8) {
        for page in len.min(self.len)..PAGES as u8 {
            self.cells[TREE + page as usize] = Cell { cache: ZERO, disk: 1 << ZERO, lost: false };
        }
        self.len = len;
    }

    pub(crate) fn page(&self, page: u8) -> u8 {
        if page < self.len {
            self.cells[TREE + page as usize].cache
        } else {
            ZERO
        }
    }
}

/// The live records in a lock file (`Live` in `src/txn/live/`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Live {
    /// 0: none.
    pub(crate) session: u8,
    /// States by txn; an entry is filled in two steps.
    pub(crate) ring: [(Cid, Cid); RING as usize],
    pub(crate) latest: Txn,
    pub(crate) durable: Txn,
    pub(crate) published: Txn,
    /// The record `checkpoint`: the durable meta page, `pinned` (0: none), `in_doubt` ([`NONE`]).
    pub(crate) meta: Cid,
    pub(crate) slot: u8,
    pub(crate) pinned: Txn,
    pub(crate) in_doubt: Cid,
    pub(crate) closed: u8,
    pub(crate) flushed: u8,
    pub(crate) appending: Txn,
    pub(crate) broken: u8,
    pub(crate) length: u8,
    /// The flush mark and the checkpoint mark.
    pub(crate) marks: [u8; 2],
    pub(crate) poison: bool,
    /// Reader pages of one slot each: slot and generation of the owner, or `(NONE, 0)`.
    pub(crate) owners: [(u8, u8); READER_PAGES],
    pub(crate) slots: [Txn; READER_PAGES],
    pub(crate) generations: [u8; AGENTS],
}

impl Live {
    /// The records of a session that begins with a state in a meta page.
    pub(crate) fn begin(meta: Cid, slot: u8, commit: &Commit) -> Live {
        let mut live = Live {
            session: 0,
            ring: [(NONE, NONE); RING as usize],
            latest: commit.txn,
            durable: commit.txn,
            published: commit.txn,
            meta,
            slot,
            pinned: 0,
            in_doubt: NONE,
            closed: 0,
            flushed: 0,
            appending: 0,
            broken: 0,
            length: commit.size,
            marks: [0; 2],
            poison: false,
            owners: [(NONE, 0); READER_PAGES],
            slots: [0; READER_PAGES],
            generations: [0; AGENTS],
        };
        live.ring[(commit.txn % RING) as usize] = (meta, meta);
        live
    }
}

/// Locks that one process holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lock {
    Gate,
    Writer,
    Checkpoint,
    Flush,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Presence {
    Out,
    Shared,
    Exclusive,
}

/// What a process does after it has the writer lock and has taken over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Goal {
    Write,
    /// It finishes what is in doubt, and makes a checkpoint.
    Checkpoint,
    /// It makes the latest state durable.
    Sync,
    Close,
}

/// Which meta page is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Meta {
    Beside,
    Commit,
    Finish,
}

/// A process with one thread: where it stands, and its private memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Agent {
    /// The operation of its script, and the step in it.
    pub(crate) at: u8,
    pub(crate) pc: super::Pc,
    /// Where a leader, a proof and the writing of a meta page go back to.
    pub(crate) back: [super::Pc; 3],
    pub(crate) goal: Goal,
    pub(crate) meta: Meta,
    pub(crate) presence: Presence,
    /// Its process slot, the lock of which it holds, and the generation.
    pub(crate) slot: u8,
    pub(crate) generation: u8,
    /// The lock file that it uses.
    pub(crate) lock_file: u8,
    pub(crate) mapped: u8,
    /// The errors of writing that its descriptions of file and log were told of.
    pub(crate) told: [u8; 2],
    /// It has used the log.
    pub(crate) has_log: bool,
    /// Marks that were odd when it joined.
    pub(crate) joined: [u8; 2],
    pub(crate) reader_page: u8,
    /// A child of this process has a copy of its lock descriptor.
    pub(crate) is_kept: bool,
    // What a step has loaded for the next one.
    pub(crate) txn: Txn,
    pub(crate) cid: Cid,
    pub(crate) meta_cid: Cid,
    pub(crate) lead: Cid,
    pub(crate) seen: u8,
    pub(crate) owner: (u8, u8),
    pub(crate) live: u16,
    pub(crate) count: u8,
    pub(crate) flag: bool,
    pub(crate) again: bool,
}

/// The whole world.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    pub(crate) commits: [Commit; COMMITS],
    pub(crate) made: u8,
    pub(crate) file: File,
    pub(crate) lives: [Live; 2],
    pub(crate) agents: [Agent; AGENTS],
    pub(crate) held: [u8; 4],
    pub(crate) kills: u8,
    pub(crate) fails: u8,
    pub(crate) has_failed: bool,
    /// `Immediate` and `Eventual` commits that were acknowledged.
    pub(crate) acknowledged: u16,
    pub(crate) returned: u16,
}

impl World {
    /// The world that a run begins with: a file of one state, with a free page, and a session.
    pub(crate) fn new(free: u8) -> World {
        let mut first = Commit { txn: 1, size: 1 + free, epoch: 1, last_immediate: 1, ..Commit::default() };
        first.immediate = true;
        first.extents[0].born = 1;
        let mut commits = [Commit::default(); COMMITS];
        commits[0] = first;
        let zero = Cell { cache: ZERO, disk: 1 << ZERO, lost: false };
        let mut file = File { cells: [zero; CELLS], len: first.size + 1, attribute: false, errors: 0, told: true };
        for (cell, content) in [(0, 0), (TREE, 0), (TREE + first.size as usize, SENTINEL)] {
            file.cells[cell] = Cell { cache: content, disk: 1 << content, lost: false };
        }
        let mut live = Live::begin(0, 0, &first);
        live.session = 1;
        let agent = Agent {
            at: 0,
            pc: super::Pc::Next,
            back: [super::Pc::Next; 3],
            goal: Goal::Write,
            meta: Meta::Beside,
            presence: Presence::Out,
            slot: NONE,
            generation: 0,
            lock_file: 0,
            mapped: first.size,
            told: [0; 2],
            has_log: false,
            joined: [0; 2],
            reader_page: NONE,
            is_kept: false,
            txn: 0,
            cid: 0,
            meta_cid: 0,
            lead: 0,
            seen: 0,
            owner: (NONE, 0),
            live: 0,
            count: 0,
            flag: false,
            again: false,
        };
        World {
            commits,
            made: 1,
            file,
            lives: [live.clone(), live],
            agents: [agent; AGENTS],
            held: [NONE; 4],
            kills: 0,
            fails: 0,
            has_failed: false,
            acknowledged: 1,
            returned: 1,
        }
    }

    pub(crate) fn commit(&self, cid: Cid) -> &Commit {
        &self.commits[cid as usize]
    }

    /// This commit and all that it builds on.
    pub(crate) fn chain(&self, mut cid: Cid) -> u16 {
        let mut chain = 1;
        while cid != 0 {
            chain |= 1 << cid;
            cid = self.commit(cid).parent;
        }
        chain
    }

    /// Whether a process holds a lock.
    pub(crate) fn is_held(&self, lock: Lock) -> bool {
        self.held[lock as usize] != NONE
    }

    /// Whether a process slot is locked.
    pub(crate) fn is_alive(&self, slot: u8) -> bool {
        self.agents.iter().any(|agent| agent.slot == slot)
    }

    /// Releases all locks of a process, as the kernel does when it dies.
    pub(crate) fn release_all(&mut self, at: usize) {
        if self.agents[at].is_kept {
            return;
        }
        self.held.iter_mut().filter(|held| **held == at as u8).for_each(|held| *held = NONE);
        (self.agents[at].presence, self.agents[at].slot) = (Presence::Out, NONE);
    }
}
