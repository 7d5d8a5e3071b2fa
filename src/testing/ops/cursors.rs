//! Two cursors of two tables that are alive at once. After each step of either, both are compared
//! with their places in the maps. Floor: testing.

use std::ops::Bound;

use super::{key, table, value, Entries, Model};
use crate::error::Result;
use crate::table::CursorMut;
use crate::testing::input::Input;
use crate::txn::write::shared::WriteTxn;

type Cursor<'h, 't> = CursorMut<'h, 't, &'static [u8], &'static [u8]>;

/// A place in a map: before the first entry, at a key, after the last entry.
#[derive(Clone, Debug)]
enum Position {
    Start,
    At(Vec<u8>),
    End,
}

type EntryOf<'m> = Option<(&'m [u8], &'m [u8])>;

fn slices<'m>((key, value): (&'m Vec<u8>, &'m Vec<u8>)) -> (&'m [u8], &'m [u8]) {
    (key, value)
}

impl Position {
    fn after<'m>(&self, entries: &'m Entries) -> EntryOf<'m> {
        let low = match self {
            Position::Start => Bound::Unbounded,
            Position::At(key) => Bound::Excluded(key.as_slice()),
            Position::End => return None,
        };
        entries.range::<[u8], _>((low, Bound::Unbounded)).next().map(slices)
    }

    fn before<'m>(&self, entries: &'m Entries) -> EntryOf<'m> {
        let high = match self {
            Position::Start => return None,
            Position::At(key) => Bound::Excluded(key.as_slice()),
            Position::End => Bound::Unbounded,
        };
        entries.range::<[u8], _>((Bound::Unbounded, high)).next_back().map(slices)
    }

    fn key(&self) -> Option<&Vec<u8>> {
        match self {
            Position::At(key) => Some(key),
            _ => None,
        }
    }

    fn of(found: EntryOf<'_>, otherwise: Position) -> Position {
        found.map_or(otherwise, |(key, _)| Position::At(key.to_vec()))
    }
}

/// Steps of two cursors, each of its own table.
pub(super) fn run(txn: &mut WriteTxn, model: &mut Model, input: &mut Input<'_>, max: usize) -> Result<()> {
    let (name, steps) = (table(input), input.byte() % 32);
    let other = if name == super::TABLES[0] { super::TABLES[1] } else { super::TABLES[0] };
    let mut tables = [txn.bytes_table(name)?, txn.bytes_table(other)?];
    let mut models = [name, other].map(|name| model.tables.remove(name).unwrap_or_default());
    let mut places = [Position::Start, Position::Start];
    let mut cursors = tables.each_mut().map(|table| table.cursor());
    for _ in 0..steps {
        let what = input.byte();
        let which = usize::from(what >> 7);
        step(&mut cursors[which], &mut places[which], &mut models[which], what & 0x7f, input, max)?;
        for ((cursor, place), entries) in cursors.iter_mut().zip(&places).zip(&models) {
            let current = place.key().and_then(|key| entries.get_key_value(key)).map(slices);
            assert_eq!(cursor.current()?, current);
            assert_eq!(cursor.peek_next()?, place.after(entries));
            assert_eq!(cursor.peek_prev()?, place.before(entries));
        }
    }
    for (table, entries) in tables.iter().zip(&models) {
        assert_eq!(table.len(), entries.len() as u64);
    }
    model.tables.extend([name, other].into_iter().zip(models));
    Ok(())
}

fn step(
    cursor: &mut Cursor<'_, '_>,
    place: &mut Position,
    entries: &mut Entries,
    what: u8,
    input: &mut Input<'_>,
    max: usize,
) -> Result<()> {
    match what % 16 {
        0..=2 => {
            let expected = place.after(entries);
            assert_eq!(cursor.next()?, expected);
            *place = Position::of(expected, Position::End);
        }
        3..=5 => {
            let expected = place.before(entries);
            assert_eq!(cursor.prev()?, expected);
            *place = Position::of(expected, Position::Start);
        }
        6..=10 => return seek(cursor, place, entries, what % 16, input, max),
        11 | 12 => {
            let (key, value) = (key(input, max), value(input));
            assert_eq!(cursor.insert(&key, &value)?, entries.insert(key.clone(), value));
            *place = Position::At(key);
        }
        13 => {
            let value = value(input);
            let entry = place.key().and_then(|key| entries.get_mut(key));
            assert_eq!(cursor.replace(&value)?, entry.is_some());
            entry.into_iter().for_each(|old| old.clone_from(&value));
        }
        _ => {
            let expected = place.key().and_then(|key| entries.remove(key));
            assert_eq!(cursor.remove()?, expected);
        }
    }
    Ok(())
}

fn seek(
    cursor: &mut Cursor<'_, '_>,
    place: &mut Position,
    entries: &Entries,
    what: u8,
    input: &mut Input<'_>,
    max: usize,
) -> Result<()> {
    match what {
        6 => {
            let expected = Position::Start.after(entries);
            assert_eq!(cursor.first()?, expected);
            *place = Position::of(expected, Position::End);
        }
        7 => {
            let expected = Position::End.before(entries);
            assert_eq!(cursor.last()?, expected);
            *place = Position::of(expected, Position::Start);
        }
        8 => {
            let key = key(input, max);
            assert_eq!(cursor.seek(&key)?, entries.get_key_value(&key).map(slices));
            *place = Position::At(key);
        }
        9 => {
            let key = key(input, max);
            let expected = entries.range::<[u8], _>((Bound::Included(&key[..]), Bound::Unbounded)).next().map(slices);
            assert_eq!(cursor.seek_at_or_after(&key)?, expected);
            *place = Position::of(expected, Position::End);
        }
        _ => {
            let key = key(input, max);
            let bounds = (Bound::Unbounded, Bound::Included(&key[..]));
            let expected = entries.range::<[u8], _>(bounds).next_back().map(slices);
            assert_eq!(cursor.seek_at_or_before(&key)?, expected);
            *place = Position::of(expected, Position::Start);
        }
    }
    Ok(())
}
