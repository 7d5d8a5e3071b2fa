//! Entries in any order, collected in memory and then sorted, so that they can be put into a tree
//! leaf by leaf.
//!
//! Floor: tree. Sorting compares numbers: the first eight bytes of each key after the prefix that
//! all keys share. Whole keys are compared only if these numbers are equal. Of entries with the
//! same key the last one stays.
//!
//! Failure: `Error::Io` when there is no memory.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::leaf::{LeafValue, OverflowPtr};
use crate::sys::scratch::Scratch;
use crate::tree::value::several_values;

/// How many records ahead of the current one to prefetch.
const PREFETCH_AHEAD: usize = 8;
/// Bytes to prefetch of a record. Few entries are longer, and the processor itself prefetches the
/// lines that follow.
const PREFETCH_BYTES: usize = 192;

/// Lengths of key, u32, and value, u16, before each record.
const RECORD_HEADER: usize = 6;
const VALUE_WORD: usize = 4;
/// Stands in place of the length of a value: a pointer to an overflow extent follows.
const IS_OVERFLOW: u16 = u16::MAX;
const OVERFLOW_BYTES: usize = 20;

#[derive(Clone, Copy, Debug)]
struct Item {
    head: u64,
    place: u64,
}

/// Entries that are being collected, and then sorted.
#[derive(Default, Debug)]
pub(crate) struct SortedRun {
    scratch: Scratch,
    items: Vec<Item>,
    /// The prefix that all keys share.
    shared: Vec<u8>,
    /// Index of the next item; the items before it were taken.
    next: usize,
}

impl SortedRun {
    /// Adds an entry, within the limits.
    pub(crate) fn push(&mut self, key: &[u8], value: LeafValue<'_>) -> Result<()> {
        match self.items.is_empty() {
            true => self.shared = key.to_vec(),
            false => {
                let same = self.shared.iter().zip(key).take_while(|(a, b)| a == b).count();
                self.shared.truncate(same);
            }
        }
        let (value_word, value_bytes) = match value {
            LeafValue::Inline(bytes) => (bytes.len() as u16, bytes.len()),
            LeafValue::Overflow(_) => (IS_OVERFLOW, OVERFLOW_BYTES),
            LeafValue::Set(_) | LeafValue::Tree(_) => return Err(several_values()),
        };
        let no_memory = |e| Error::io("taking memory for the load", Path::new(""), e);
        let (place, record) = self.scratch.add(RECORD_HEADER + key.len() + value_bytes).map_err(no_memory)?;
        record[..VALUE_WORD].copy_from_slice(&(key.len() as u32).to_le_bytes());
        record[VALUE_WORD..RECORD_HEADER].copy_from_slice(&value_word.to_le_bytes());
        let (key_place, value_place) = record[RECORD_HEADER..].split_at_mut(key.len());
        key_place.copy_from_slice(key);
        match value {
            LeafValue::Inline(bytes) => value_place.copy_from_slice(bytes),
            LeafValue::Overflow(to) => {
                value_place[..8].copy_from_slice(&to.ptr.id.0.to_le_bytes());
                value_place[8..12].copy_from_slice(&to.ptr.crc.to_le_bytes());
                value_place[12..].copy_from_slice(&to.len.to_le_bytes());
            }
            LeafValue::Set(_) | LeafValue::Tree(_) => {}
        }
        self.items.push(Item { head: head_of(key, 0), place });
        Ok(())
    }

    /// Bytes of memory in use, with the memory that sorting takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.scratch.held_bytes() + self.items.capacity() * size_of::<Item>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next >= self.items.len()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.scratch.clear();
        self.items.clear();
        self.next = 0;
    }

    /// Sorts. Returns the overflow extents of values that later entries with the same key have
    /// superseded.
    pub(crate) fn sort(&mut self) -> Vec<OverflowPtr> {
        if !self.shared.is_empty() {
            for at in 0..self.items.len() {
                self.look_ahead(at);
                self.items[at].head = head_of(self.key(at), self.shared.len());
            }
        }
        // Places ascend, so items with equal heads stay in the order of their `push`.
        self.items.sort_unstable_by_key(|item| (item.head, item.place));
        let mut items = std::mem::take(&mut self.items);
        let mut superseded = Vec::new();
        let (mut count, mut from) = (0, 0);
        while from < items.len() {
            let head = items[from].head;
            let equal = items[from..].iter().take_while(|item| item.head == head).count();
            if equal > 1 {
                items[from..from + equal].sort_by(|a, b| self.key_of(a.place).cmp(self.key_of(b.place)));
            }
            for at in from..from + equal {
                let item = items[at];
                let again = at + 1 < from + equal && self.key_of(item.place) == self.key_of(items[at + 1].place);
                if !again {
                    items[count] = item;
                    count += 1;
                } else if let LeafValue::Overflow(to) = self.value_of(item.place) {
                    superseded.push(to);
                }
            }
            from += equal;
        }
        items.truncate(count);
        self.items = items;
        superseded
    }

    /// The next entry of a sorted run.
    #[inline]
    pub(crate) fn peek(&self) -> Option<(&[u8], LeafValue<'_>)> {
        let place = self.items.get(self.next)?.place;
        self.look_ahead(self.next);
        Some((self.key_of(place), self.value_of(place)))
    }

    /// Moves to the next entry.
    #[inline]
    pub(crate) fn step(&mut self) {
        self.next += 1;
    }

    /// Number of remaining entries with keys below a bound; all of them if there is no bound.
    pub(crate) fn count_below(&self, bound: Option<&[u8]>) -> usize {
        let rest = self.items.get(self.next..).unwrap_or(&[]);
        match bound {
            None => rest.len(),
            Some(bound) => {
                // The bound is mostly near: look in growing steps first.
                let mut end = 64;
                while end < rest.len() && self.key_of(rest[end].place) < bound {
                    end *= 2;
                }
                rest[..end.min(rest.len())].partition_point(|item| self.key_of(item.place) < bound)
            }
        }
    }

    #[inline]
    fn look_ahead(&self, at: usize) {
        if let Some(ahead) = self.items.get(at + PREFETCH_AHEAD) {
            self.scratch.prefetch(ahead.place, PREFETCH_BYTES);
        }
    }

    fn key(&self, at: usize) -> &[u8] {
        self.key_of(self.items[at].place)
    }

    #[inline]
    fn key_of(&self, place: u64) -> &[u8] {
        let record = self.scratch.at(place);
        &record[RECORD_HEADER..RECORD_HEADER + key_bytes(record)]
    }

    #[inline]
    fn value_of(&self, place: u64) -> LeafValue<'_> {
        let record = self.scratch.at(place);
        let start = RECORD_HEADER + key_bytes(record);
        let word = u16::from_le_bytes([record[VALUE_WORD], record[VALUE_WORD + 1]]);
        if word != IS_OVERFLOW {
            return LeafValue::Inline(&record[start..start + usize::from(word)]);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&record[start + at..start + at + 8]);
            u64::from_le_bytes(bytes)
        };
        let ptr = PagePtr { id: PageId(number(0)), crc: number(8) as u32 };
        LeafValue::Overflow(OverflowPtr { ptr, len: number(12) })
    }
}

/// Length of the key of a record.
#[inline]
fn key_bytes(record: &[u8]) -> usize {
    u32::from_le_bytes([record[0], record[1], record[2], record[3]]) as usize
}

/// The eight bytes of a key from `skip` on, as a number; zeros where it is shorter.
#[inline]
fn head_of(key: &[u8], skip: usize) -> u64 {
    let mut head = [0; 8];
    let rest = key.get(skip..).unwrap_or(&[]);
    match rest.first_chunk::<8>() {
        Some(first) => head = *first,
        None => head[..rest.len()].copy_from_slice(rest),
    }
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn drain(run: &mut SortedRun) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((key, value)) = run.peek() {
            let LeafValue::Inline(bytes) = value else { panic!("an inline value") };
            all.push((key.to_vec(), bytes.to_vec()));
            run.step();
        }
        all
    }

    #[test]
    fn sorts_like_a_map_and_the_last_of_equal_keys_stays() {
        let mut state = 9_u64;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        for shape in 0..6 {
            let (mut run, mut model) = (SortedRun::default(), BTreeMap::new());
            for number in 0..3000_u32 {
                let key = match shape {
                    0 => next().to_be_bytes().to_vec(),
                    1 => format!("user:{:08}:name", next() % 2000).into_bytes(),
                    2 => vec![0; (next() % 40) as usize],
                    3 => (0..next() % 12).map(|_| (next() % 2) as u8).collect(),
                    4 => [b"the same for all of them".as_slice(), &next().to_le_bytes()].concat(),
                    _ => vec![7],
                };
                run.push(&key, LeafValue::Inline(&number.to_le_bytes())).unwrap();
                model.insert(key, number.to_le_bytes().to_vec());
            }
            assert!(run.sort().is_empty());
            let keys: Vec<&Vec<u8>> = model.keys().collect();
            for bound in keys.iter().step_by(97) {
                assert_eq!(run.count_below(Some(bound)), model.range::<Vec<u8>, _>(..*bound).count());
            }
            assert_eq!(run.count_below(None), model.len());
            assert_eq!(drain(&mut run), model.clone().into_iter().collect::<Vec<_>>(), "shape {shape}");
        }
    }

    #[test]
    fn sort_returns_overflow_extents_of_replaced_entries() {
        let to = |id: u64| OverflowPtr { ptr: PagePtr { id: PageId(id), crc: id as u32 * 3 }, len: id << 30 };
        let mut run = SortedRun::default();
        for id in [5, 6, 7] {
            run.push(b"key", LeafValue::Overflow(to(id))).unwrap();
        }
        let gone = run.sort();
        assert_eq!(gone.iter().map(|to| to.ptr.id.0).collect::<Vec<_>>(), [5, 6]);
        let (_, LeafValue::Overflow(left)) = run.peek().unwrap() else { panic!("a pointer") };
        assert_eq!((left.ptr.id.0, left.ptr.crc, left.len), (7, 21, 7 << 30));
    }
}
