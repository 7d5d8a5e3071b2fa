//! Random entries of a tree.
//!
//! Floor: tree. A way down that takes a random child at each branch prefers entries of pages that
//! have few. So a way is accepted with a probability that grows with the number of children and
//! entries that it had to choose from, and otherwise tried again. All entries then have the same
//! chance, if the largest number on each level is known; this module uses the largest that it has
//! seen. Of a tree that is not much larger than the sample, it reads all entries instead, which is
//! exact.
//!
//! Invariants:
//!   SAMPLE-1  no entry is returned twice, and the sample has as many entries as asked for, or all.
//!
//! Failure: a damaged page on a way is `Error::Corrupt`.

use std::collections::HashSet;

use crate::error::Result;
use crate::ids::PageId;
use crate::limits::DEPTH_MAX;
use crate::page::leaf::Leaf;
use crate::pager::PageRead;

use crate::tree::lookup::search::entry_at;
use crate::tree::path::{branch_at, height_of, last_index, leaf_at};
use crate::tree::{Cursor, Entry, Tree};

/// Trees of at most so many entries for each wanted one are read as a whole.
const READ_WHOLE: u64 = 8;
/// Ways that only find out the largest numbers.
const PILOT_WAYS: usize = 64;
/// Ways tried for an entry before one is accepted in any case.
const TRIES: usize = 64;

/// Random numbers from a seed (SplitMix64); the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(in crate::tree) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 to below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ways tried for a sample before its tree is read as a whole, for each entry and in addition. Only
/// a damaged tree, which has fewer entries than its root says, takes so many.
const TRIES_IN_ALL: usize = 4 * TRIES;

/// The place of an entry, and the chance with which to accept it.
struct Way<'p> {
    leaf: Leaf<'p>,
    id: PageId,
    index: usize,
    chance: f64,
}

impl<'p, P: PageRead> Tree<'p, P> {
    /// Random entries, `wanted` of them or all, in no particular order.
    pub(crate) fn sample(self, wanted: usize, random: &mut Random) -> Result<Vec<Entry<'p>>> {
        if self.is_empty() || wanted == 0 {
            return Ok(Vec::new());
        }
        if self.root.entries / READ_WHOLE <= wanted as u64 {
            return self.sample_of_all(wanted, random);
        }
        let mut largest = [1; DEPTH_MAX];
        for _ in 0..PILOT_WAYS {
            self.random_way(&mut largest, random)?;
        }
        let (mut taken, mut sample) = (HashSet::new(), Vec::new());
        let (mut tries, mut tries_in_all) = (0, 0);
        while sample.len() < wanted {
            let way = self.random_way(&mut largest, random)?;
            (tries, tries_in_all) = (tries + 1, tries_in_all + 1);
            if (random.fraction() < way.chance || tries >= TRIES) && taken.insert((way.id, way.index)) {
                sample.push(entry_at(self.pages, &way.leaf, way.index)?);
                tries = 0;
            }
            if tries_in_all / TRIES_IN_ALL > wanted {
                return self.sample_of_all(wanted, random);
            }
        }
        Ok(sample)
    }

    /// Goes down by random children, and raises the largest numbers of each level.
    fn random_way(self, largest: &mut [usize; DEPTH_MAX], random: &mut Random) -> Result<Way<'p>> {
        let mut chance = 1.0;
        let mut choose = |count: usize, level: usize, random: &mut Random| {
            largest[level] = largest[level].max(count);
            chance *= count as f64 / largest[level] as f64;
            random.below(count as u64) as usize
        };
        let mut ptr = self.root.ptr;
        for level in (1..height_of(self.root)?).rev() {
            let branch = branch_at(self.pages, ptr, level)?;
            ptr = branch.child(choose(branch.count(), level, random))?;
        }
        let leaf = leaf_at(self.pages, ptr)?;
        let index = choose(last_index(leaf.count(), ptr)? + 1, 0, random);
        Ok(Way { leaf, id: ptr.id, index, chance })
    }

    /// Reads all entries and takes each with the chance that completes the sample.
    fn sample_of_all(self, wanted: usize, random: &mut Random) -> Result<Vec<Entry<'p>>> {
        let (mut wanted, mut left) = (wanted as u64, self.root.entries);
        let (mut sample, mut cursor) = (Vec::new(), Cursor::new(self));
        while wanted > 0 {
            let Some(entry) = cursor.next()? else { break };
            if random.below(left.max(1)) < wanted {
                sample.push(entry);
                wanted -= 1;
            }
            left = left.saturating_sub(1);
        }
        Ok(sample)
    }
}
