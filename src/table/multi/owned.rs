//! Iterators over values and pairs that own what they yield.
//!
//! Floor: table. Those of read transactions hold the transaction, and copy pairs in batches; each
//! batch begins after the last pair of the one before. Those of write transactions copy one at a
//! time.
//!
//! Failure: as in `range`; the iterators of read transactions end after an error.

use std::collections::VecDeque;
use std::iter::FusedIterator;

use crate::error::Result;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::decode_entry;
use crate::table::multi::{MultiRange, ReadMultiTable, Values};

/// Pairs that are copied at a time.
const BATCH: usize = 64;

/// A key and a value, encoded.
type Pair = (Vec<u8>, Vec<u8>);

/// Owned pairs of a range, from [`range_owned`](crate::ReadMultiTable::range_owned). Holds the
/// transaction and borrows nothing. Copies pairs in batches.
pub struct PairsOwned<K: KeyCodec, V: KeyCodec> {
    table: ReadMultiTable<K, V>,
    bounds: ByteBounds,
    /// The pairs between these were not copied yet.
    low: Option<Pair>,
    high: Option<Pair>,
    front: VecDeque<Result<(K::Owned, V::Owned)>>,
    back: VecDeque<Result<(K::Owned, V::Owned)>>,
    ended: bool,
}

impl<K: KeyCodec, V: KeyCodec> PairsOwned<K, V> {
    pub(super) fn new(table: ReadMultiTable<K, V>, bounds: ByteBounds) -> PairsOwned<K, V> {
        let (front, back) = Default::default();
        PairsOwned { table, bounds, low: None, high: None, front, back, ended: false }
    }

    /// Copies a batch of pairs from one end.
    fn fill(&mut self, from_back: bool) {
        let mut copied = VecDeque::new();
        let mut last = None;
        let done = self.copy(from_back, &mut |key, value| {
            last = Some((key.to_vec(), value.to_vec()));
            let pair = decode_entry::<K, V>((key, value)).map(|(key, value)| (K::to_owned(key), V::to_owned(value)));
            copied.push_back(pair.map_err(|e| self.table.locate(e)));
        });
        self.ended = copied.len() < BATCH;
        match (last, from_back) {
            (None, _) => {}
            (last, true) => self.high = last,
            (last, false) => self.low = last,
        }
        if let Err(e) = self.table.check_fault(done) {
            (self.ended, copied) = (true, VecDeque::from([Err(e)]));
        }
        match from_back {
            true => self.back = copied.into_iter().rev().collect(),
            false => self.front = copied,
        }
    }

    fn copy(&self, from_back: bool, take: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.table.check_process()?;
        let mut pairs = self.table.pairs_between(&self.bounds, self.low.as_ref(), self.high.as_ref())?;
        for _ in 0..BATCH {
            let pair = if from_back { pairs.next_back() } else { pairs.next() };
            match pair.transpose()? {
                Some((key, value)) => take(key, value),
                None => break,
            }
        }
        Ok(())
    }
}

impl<K: KeyCodec, V: KeyCodec> Iterator for PairsOwned<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.is_empty() && !self.ended {
            self.fill(false);
        }
        // What was copied from the other end comes last.
        self.front.pop_front().or_else(|| self.back.pop_front())
    }
}

impl<K: KeyCodec, V: KeyCodec> DoubleEndedIterator for PairsOwned<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty() && !self.ended {
            self.fill(true);
        }
        self.back.pop_back().or_else(|| self.front.pop_back())
    }
}

impl<K: KeyCodec, V: KeyCodec> FusedIterator for PairsOwned<K, V> {}

impl<K: KeyCodec, V: KeyCodec> std::fmt::Debug for PairsOwned<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairsOwned").finish_non_exhaustive()
    }
}

/// Owned values of a key, from [`values_owned`](crate::ReadMultiTable::values_owned). Holds the
/// transaction and borrows nothing.
pub struct ValuesOwned<K: KeyCodec, V: KeyCodec> {
    pairs: PairsOwned<K, V>,
}

impl<K: KeyCodec, V: KeyCodec> ValuesOwned<K, V> {
    /// The pairs have one key.
    pub(super) fn new(pairs: PairsOwned<K, V>) -> ValuesOwned<K, V> {
        ValuesOwned { pairs }
    }
}

impl<K: KeyCodec, V: KeyCodec> Iterator for ValuesOwned<K, V> {
    type Item = Result<V::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.pairs.next()?.map(|(_, value)| value))
    }
}

impl<K: KeyCodec, V: KeyCodec> DoubleEndedIterator for ValuesOwned<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.pairs.next_back()?.map(|(_, value)| value))
    }
}

impl<K: KeyCodec, V: KeyCodec> FusedIterator for ValuesOwned<K, V> {}

impl<K: KeyCodec, V: KeyCodec> std::fmt::Debug for ValuesOwned<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValuesOwned").finish_non_exhaustive()
    }
}

/// Returns an item that was copied, or the error of a failed access while copying.
fn copied<T>(source: &mut super::range::Source<'_>, item: Option<Result<T>>) -> Option<Result<T>> {
    match item {
        Some(Ok(item)) => source.check(Some(Ok(item))),
        other => other,
    }
}

/// Owned pairs, copied one at a time; from [`ReadableMultiTable`](crate::ReadableMultiTable).
#[derive(Debug)]
pub struct CopiedPairs<'a, K, V>(pub(super) MultiRange<'a, K, V>);

impl<K: Codec, V: Codec> Iterator for CopiedPairs<'_, K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.0.next().map(|pair| pair.map(|(key, value)| (K::to_owned(key), V::to_owned(value))));
        copied(&mut self.0.source, pair)
    }
}

impl<K: Codec, V: Codec> DoubleEndedIterator for CopiedPairs<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let pair = self.0.next_back().map(|pair| pair.map(|(key, value)| (K::to_owned(key), V::to_owned(value))));
        copied(&mut self.0.source, pair)
    }
}

impl<K: Codec, V: Codec> FusedIterator for CopiedPairs<'_, K, V> {}

/// Owned values of a key, copied one at a time; from
/// [`ReadableMultiTable`](crate::ReadableMultiTable).
#[derive(Debug)]
pub struct CopiedValues<'a, V>(pub(super) Values<'a, V>);

impl<V: Codec> Iterator for CopiedValues<'_, V> {
    type Item = Result<V::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.next().map(|value| value.map(V::to_owned));
        copied(&mut self.0.source, value)
    }
}

impl<V: Codec> DoubleEndedIterator for CopiedValues<'_, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let value = self.0.next_back().map(|value| value.map(V::to_owned));
        copied(&mut self.0.source, value)
    }
}

impl<V: Codec> FusedIterator for CopiedValues<'_, V> {}
