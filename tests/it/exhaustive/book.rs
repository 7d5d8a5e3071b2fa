//! The book of an execution: which commits were begun, on which each builds, and what their
//! committers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use mapleaf::testing::Records;

/// The entries of the table.
pub(super) type Entries = BTreeMap<u64, Vec<u8>>;

/// A commit, from before its record is written.
#[derive(Clone, Debug)]
struct Commit {
    txn: u64,
    /// The commit that it builds on.
    parent: usize,
    entries: Entries,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct Book {
    commits: Vec<Commit>,
    /// `Immediate` commits that have returned.
    acknowledged: BTreeSet<usize>,
    /// `Eventual` commits that have returned.
    returned: BTreeSet<usize>,
    /// Agents that wait until a commit of theirs is durable, with its txn.
    pub(super) waiting: BTreeMap<usize, u64>,
    /// The first thing that an agent found wrong.
    pub(super) wrong: Option<String>,
}

impl Book {
    /// The state that an execution begins with.
    pub(super) fn new(txn: u64, entries: Entries) -> Book {
        Book { commits: vec![Commit { txn, parent: 0, entries }], ..Book::default() }
    }

    /// The commit whose state a txn names: the last one that was begun with this number.
    fn named(&self, txn: u64) -> usize {
        self.commits.iter().rposition(|commit| commit.txn == txn).unwrap_or(0)
    }

    /// The entries that the state of a txn has.
    pub(super) fn entries(&self, txn: u64) -> &Entries {
        &self.commits[self.named(txn)].entries
    }

    /// A commit is about to be made.
    pub(super) fn begin(&mut self, txn: u64, entries: Entries) -> usize {
        let parent = self.named(txn - 1);
        self.commits.push(Commit { txn, parent, entries });
        self.commits.len() - 1
    }

    pub(super) fn acknowledge(&mut self, commit: usize, immediate: bool) {
        let set = if immediate { &mut self.acknowledged } else { &mut self.returned };
        set.insert(commit);
    }

    /// `Eventual` commits that have returned so far; a sync that begins now makes them durable.
    pub(super) fn returned(&self) -> BTreeSet<usize> {
        self.returned.clone()
    }

    pub(super) fn note(&mut self, wrong: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(wrong());
        }
    }

    /// Judges what was found after a power cut or, if `killed`, after the death of all processes:
    /// exactly a prefix of the commits, with those that were promised.
    pub(super) fn judge(&self, found: &Entries, records: &Records, killed: bool) -> Result<(), String> {
        let Some(newest) = self.commits.iter().rposition(|commit| commit.entries == *found) else {
            return Err(format!("no prefix of the commits: {found:?}"));
        };
        let mut chain = BTreeSet::new();
        let mut at = newest;
        while chain.insert(at) {
            at = self.commits[at].parent;
        }
        let mut promised: Vec<(usize, &str)> = self.acknowledged.iter().map(|&at| (at, "acknowledged")).collect();
        promised.extend(records.last_immediate.map(|txn| (self.named(txn), "immediate and shown")));
        if killed {
            promised.extend(self.returned.iter().map(|&at| (at, "returned")));
            promised.push((self.named(records.published), "shown"));
        }
        match promised.iter().find(|(at, _)| !chain.contains(at)) {
            Some((at, what)) => Err(format!(
                "txn {} was {what}, and the state that is found is that of txn {}",
                self.commits[*at].txn, self.commits[newest].txn
            )),
            None => Ok(()),
        }
    }

    /// A hash of what was promised.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for commit in &self.commits {
            (commit.txn, commit.parent, &commit.entries).hash(&mut hasher);
        }
        (&self.acknowledged, &self.returned).hash(&mut hasher);
        hasher.finish()
    }
}
