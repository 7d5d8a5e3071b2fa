//! Cursors of two tables that are alive at once. Each has a place in the map of its table, and both
//! are compared with their places after every step of either. Between the segments of a run the
//! tables are changed by their handles, and the cursors change places with others that waited.

use std::ops::Bound;
use std::sync::Arc;

use mapleaf::{CursorMut, Position, WriteTxn};
use proptest::collection::vec;
use proptest::prelude::*;

use super::pairs::{self, any_pair_op, PairOp, MULTIS};
use super::{any_key, any_len, table, Entries, Key, KeyOf, LenOf, Model};
use crate::support::bytes;

type Cursor<'h, 't> = CursorMut<'h, 't, &'static [u8], &'static [u8]>;

#[derive(Clone, Debug)]
pub(super) enum CursorStep {
    Next,
    Prev,
    First,
    Last,
    Seek(KeyOf),
    AtOrAfter(KeyOf),
    AtOrBefore(KeyOf),
    /// Goes to the key with this index.
    SeekAt(u16),
    Insert(KeyOf, LenOf),
    Replace(LenOf),
    Remove,
}

/// Changes by handles, then steps of the cursors: of the second one, if true.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    changes: Vec<(bool, KeyOf, LenOf)>,
    steps: Vec<(bool, CursorStep)>,
    /// Steps of a multimap, between those of the cursors.
    pairs: Vec<PairOp>,
}

fn any_step() -> impl Strategy<Value = CursorStep> {
    prop_oneof![
        5 => Just(CursorStep::Next),
        5 => Just(CursorStep::Prev),
        1 => Just(CursorStep::First),
        1 => Just(CursorStep::Last),
        1 => any_key().prop_map(CursorStep::Seek),
        1 => any_key().prop_map(CursorStep::AtOrAfter),
        1 => any_key().prop_map(CursorStep::AtOrBefore),
        3 => any::<u16>().prop_map(CursorStep::SeekAt),
        3 => (any_key(), any_len()).prop_map(|(key, len)| CursorStep::Insert(key, len)),
        2 => any_len().prop_map(CursorStep::Replace),
        4 => Just(CursorStep::Remove),
    ]
}

pub(super) fn any_segments() -> impl Strategy<Value = Vec<Segment>> {
    let changes = vec((any::<bool>(), any_key(), any_len()), 0..8);
    let steps = vec((any::<bool>(), any_step()), 1..40);
    let segment = (changes, steps, vec(any_pair_op(), 0..4));
    vec(segment.prop_map(|(changes, steps, pairs)| Segment { changes, steps, pairs }), 1..5)
}

/// A place in a map.
#[derive(Clone, Debug)]
enum Place {
    Start,
    At(Key),
    End,
}

type Found<'m> = Option<(&'m [u8], &'m [u8])>;

fn slices<'m>((key, value): (&'m Key, &'m Arc<Vec<u8>>)) -> (&'m [u8], &'m [u8]) {
    (key.as_slice(), value.as_slice())
}

impl Place {
    fn after<'m>(&self, model: &'m Entries) -> Found<'m> {
        let low = match self {
            Place::Start => Bound::Unbounded,
            Place::At(key) => Bound::Excluded(key.as_slice()),
            Place::End => return None,
        };
        model.range::<[u8], _>((low, Bound::Unbounded)).next().map(slices)
    }

    fn before<'m>(&self, model: &'m Entries) -> Found<'m> {
        let high = match self {
            Place::Start => return None,
            Place::At(key) => Bound::Excluded(key.as_slice()),
            Place::End => Bound::Unbounded,
        };
        model.range::<[u8], _>((Bound::Unbounded, high)).next_back().map(slices)
    }

    fn current<'m>(&self, model: &'m Entries) -> Found<'m> {
        match self {
            Place::At(key) => model.get_key_value(key).map(slices),
            _ => None,
        }
    }

    fn of(found: Found<'_>, otherwise: Place) -> Place {
        found.map_or(otherwise, |(key, _)| Place::At(key.to_vec()))
    }
}

/// Compares a cursor with its place: the entry that it stands at, and both neighbours.
fn compare(cursor: &mut Cursor<'_, '_>, place: &Place, model: &Entries) {
    assert!(cursor.current().expect("current") == place.current(model), "the entry at {place:?}");
    assert!(cursor.peek_next().expect("peek") == place.after(model), "the entry after {place:?}");
    assert!(cursor.peek_prev().expect("peek") == place.before(model), "the entry before {place:?}");
}

/// One step of a cursor and of its place.
fn step(
    cursor: &mut Cursor<'_, '_>,
    place: &mut Place,
    model: &mut Entries,
    step: &CursorStep,
    value: Vec<u8>,
    limit: usize,
) {
    match step {
        CursorStep::Next => {
            let expected = place.after(model);
            assert!(cursor.next().expect("next") == expected, "next of {place:?}");
            *place = Place::of(expected, Place::End);
        }
        CursorStep::Prev => {
            let expected = place.before(model);
            assert!(cursor.prev().expect("prev") == expected, "prev of {place:?}");
            *place = Place::of(expected, Place::Start);
        }
        CursorStep::First => {
            let expected = Place::Start.after(model);
            assert!(cursor.first().expect("first") == expected);
            *place = Place::of(expected, Place::End);
        }
        CursorStep::Last => {
            let expected = Place::End.before(model);
            assert!(cursor.last().expect("last") == expected);
            *place = Place::of(expected, Place::Start);
        }
        CursorStep::Seek(key) => seek(cursor, place, model, key.bytes(limit)),
        CursorStep::SeekAt(at) => {
            let key = model.keys().nth(usize::from(*at) % model.len().max(1)).cloned();
            seek(cursor, place, model, key.unwrap_or_default());
        }
        CursorStep::AtOrAfter(key) => {
            let key = key.bytes(limit);
            let expected = model.range::<Key, _>(&key..).next().map(slices);
            assert!(cursor.seek_at_or_after(&key).expect("seek") == expected);
            *place = Place::of(expected, Place::End);
        }
        CursorStep::AtOrBefore(key) => {
            let key = key.bytes(limit);
            let expected = model.range::<Key, _>(..=&key).next_back().map(slices);
            assert!(cursor.seek_at_or_before(&key).expect("seek") == expected);
            *place = Place::of(expected, Place::Start);
        }
        CursorStep::Insert(key, _) => {
            let (key, value) = (key.bytes(limit), Arc::new(value));
            let old = cursor.insert(&key, &value).expect("inserted");
            assert!(old.as_ref() == model.insert(key.clone(), value).as_deref(), "the old value");
            *place = Place::At(key);
        }
        CursorStep::Replace(_) => {
            let entry = match place {
                Place::At(key) => model.get_mut(key),
                _ => None,
            };
            assert_eq!(cursor.replace(&value).expect("replaced"), entry.is_some(), "an entry at {place:?}");
            if let Some(old) = entry {
                *old = Arc::new(value);
            }
        }
        CursorStep::Remove => {
            let expected = match place {
                Place::At(key) => model.remove(key),
                _ => None,
            };
            assert!(cursor.remove().expect("removed").as_ref() == expected.as_deref(), "the entry at {place:?}");
        }
    }
}

fn seek(cursor: &mut Cursor<'_, '_>, place: &mut Place, model: &Entries, key: Key) {
    let expected = model.get_key_value(&key).map(slices);
    assert!(cursor.seek(&key).expect("seek") == expected);
    *place = Place::At(key);
}

/// Two waiting cursors of a table.
struct Waiting {
    places: [Place; 2],
    positions: [Option<Position>; 2],
}

/// Runs the segments on table `t` and the next one, with a multimap open beside them.
pub(super) fn run(
    txn: &WriteTxn,
    all: &mut Model,
    t: u8,
    segments: &[Segment],
    (limit, page_size): (usize, usize),
    version: &mut u64,
) {
    let (t, other) = (t % 4, (t + 1) % 4);
    let mut tables = [t, other].map(|t| txn.table(table(t)).expect("table"));
    let mut models = [t, other].map(|t| all.tables.remove(&t).unwrap_or_default());
    let (mut multi, (size, of_multi)) = pairs::open(txn, &mut all.multis, MULTIS.start + t % 3);
    let mut waiting = [(); 2].map(|()| Waiting { places: [Place::Start, Place::Start], positions: [None, None] });
    let mut value = |len: &LenOf| {
        *version += 1;
        bytes(*version, len.bytes(page_size))
    };
    for (number, segment) in segments.iter().enumerate() {
        let at = number % 2;
        for (second, key, len) in &segment.changes {
            let (key, value) = (key.bytes(limit), value(len));
            let (table, model) = (&mut tables[usize::from(*second)], &mut models[usize::from(*second)]);
            if value.len() % 3 == 0 {
                assert_eq!(table.delete(&key).expect("delete"), model.remove(&key).is_some());
            } else {
                assert_eq!(table.put(&key, &value).expect("put"), model.insert(key, Arc::new(value)).is_some());
            }
        }
        let mut cursors = {
            let mut of_waiting = waiting.iter_mut();
            tables.each_mut().map(|table| match of_waiting.next().and_then(|one| one.positions[at].take()) {
                Some(position) => table.cursor_at(position),
                None => table.cursor(),
            })
        };
        let mut pair_ops = segment.pairs.iter();
        for (second, what) in &segment.steps {
            let which = usize::from(*second);
            let value = match what {
                CursorStep::Insert(_, len) | CursorStep::Replace(len) => value(len),
                _ => Vec::new(),
            };
            step(&mut cursors[which], &mut waiting[which].places[at], &mut models[which], what, value, limit);
            if let Some(op) = pair_ops.next() {
                pairs::step(&mut multi, *size, of_multi, op, limit);
            }
            for which in 0..2 {
                compare(&mut cursors[which], &waiting[which].places[at], &models[which]);
            }
        }
        for (one, cursor) in waiting.iter_mut().zip(&cursors) {
            one.positions[at] = Some(cursor.position());
        }
    }
    for (table, model) in tables.iter().zip(&models) {
        assert_eq!(table.len(), model.len() as u64);
    }
    drop((tables, multi));
    all.tables.extend([t, other].into_iter().zip(models));
}
