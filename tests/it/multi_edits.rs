//! Cursors that write, pops and changes of many pairs of multimap tables, compared with a map of
//! sets after every step: of three shapes, with each page size, in memory and in files, over
//! commits, aborts, savepoints, reopening and replays of the log.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::panic::{catch_unwind, AssertUnwindSafe};

use mapleaf::testing::set_log_shape;
use mapleaf::{Db, ErrorKind, MultiCursorMut, MultiPosition, MultiTable, Options, Result, Table};

use crate::multimap::{self, compare, key, make, pairs_of, replayed, value, BytesTable, Model, NAMES};
use crate::support::{assert_clean, long, mix, seed, Rng, TestDb};

type Bytes = Vec<u8>;
type Pair = (Bytes, Bytes);
type Cursor<'h, 't> = MultiCursorMut<'h, 't, &'static [u8], &'static [u8]>;

/// A position in the model.
#[derive(Clone, Debug)]
enum Place {
    Start,
    /// Before all values of a key.
    Key(Bytes),
    At(Bytes, Bytes),
    End,
}

impl Place {
    fn key(&self) -> Option<&Bytes> {
        match self {
            Place::Key(key) | Place::At(key, _) => Some(key),
            Place::Start | Place::End => None,
        }
    }
}

fn pair_of(found: Option<(&Bytes, &Bytes)>) -> Option<Pair> {
    found.map(|(key, value)| (key.clone(), value.clone()))
}

/// The first pair whose key is above a bound.
fn first_from(model: &Model, low: Bound<&Bytes>) -> Option<Pair> {
    let found = model.range((low.cloned(), Bound::Unbounded)).next();
    pair_of(found.and_then(|(key, values)| Some((key, values.first()?))))
}

/// The last pair whose key is below a bound.
fn last_to(model: &Model, high: Bound<&Bytes>) -> Option<Pair> {
    let found = model.range((Bound::Unbounded, high.cloned())).next_back();
    pair_of(found.and_then(|(key, values)| Some((key, values.last()?))))
}

fn after(model: &Model, place: &Place) -> Option<Pair> {
    match place {
        Place::Start => first_from(model, Bound::Unbounded),
        Place::Key(key) => first_from(model, Bound::Included(key)),
        Place::At(key, value) => {
            let values = model.get(key);
            let next = values
                .and_then(|values| values.range::<Bytes, _>((Bound::Excluded(value), Bound::Unbounded)).next())
                .map(|next| (key.clone(), next.clone()));
            next.or_else(|| first_from(model, Bound::Excluded(key)))
        }
        Place::End => None,
    }
}

fn before(model: &Model, place: &Place) -> Option<Pair> {
    match place {
        Place::Start => None,
        Place::Key(key) => last_to(model, Bound::Excluded(key)),
        Place::At(key, value) => {
            let values = model.get(key);
            let prev = values
                .and_then(|values| values.range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(value))).next_back())
                .map(|prev| (key.clone(), prev.clone()));
            prev.or_else(|| last_to(model, Bound::Excluded(key)))
        }
        Place::End => last_to(model, Bound::Unbounded),
    }
}

fn has(model: &Model, key: &Bytes, value: &Bytes) -> bool {
    model.get(key).is_some_and(|values| values.contains(value))
}

fn moved(found: &Option<Pair>, otherwise: Place) -> Place {
    found.clone().map_or(otherwise, |(key, value)| Place::At(key, value))
}

fn own(found: Option<(&[u8], &[u8])>) -> Option<Pair> {
    found.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

/// A random value, often one that the key has.
fn some_value(model: &Model, of: &Bytes, rng: &mut Rng, table: usize, page_size: usize) -> Bytes {
    let near = value(table, rng.below(8000), page_size);
    match model.get(of).filter(|_| rng.below(3) > 0) {
        Some(values) => values.range(near.clone()..).next().cloned().unwrap_or(near),
        None => near,
    }
}

/// How often each kind of step of a cursor was made.
#[derive(Default)]
struct Steps([u64; 16]);

/// One step of a cursor and of the place in the model.
fn step(
    cursor: &mut Cursor<'_, '_>,
    place: &mut Place,
    model: &mut Model,
    rng: &mut Rng,
    (table, page_size, steps): (usize, usize, &mut Steps),
) -> Result<()> {
    let probe = key(rng.below(64));
    let other = some_value(model, &probe, rng, table, page_size);
    let kind = rng.below(30) as usize;
    match kind {
        0..=4 => {
            let expected = after(model, place);
            assert_eq!(own(cursor.next()?), expected, "next of {place:?}");
            *place = moved(&expected, Place::End);
        }
        5..=9 => {
            let expected = before(model, place);
            assert_eq!(own(cursor.prev()?), expected, "prev of {place:?}");
            *place = moved(&expected, Place::Start);
        }
        10 => {
            let expected = match place {
                Place::End => None,
                _ => first_from(model, place.key().map_or(Bound::Unbounded, Bound::Excluded)),
            };
            assert_eq!(own(cursor.next_key()?), expected, "next_key of {place:?}");
            *place = moved(&expected, Place::End);
        }
        11 => {
            let expected = match place {
                Place::Start => None,
                _ => last_to(model, place.key().map_or(Bound::Unbounded, Bound::Excluded)),
            };
            assert_eq!(own(cursor.prev_key()?), expected, "prev_key of {place:?}");
            *place = moved(&expected, Place::Start);
        }
        12 => {
            let expected = first_from(model, Bound::Included(&probe)).filter(|(key, _)| *key == probe);
            assert_eq!(own(cursor.seek(&probe)?), expected);
            *place = moved(&expected, Place::Key(probe));
        }
        13 => {
            let expected = first_from(model, Bound::Included(&probe));
            assert_eq!(own(cursor.seek_at_or_after(&probe)?), expected);
            *place = moved(&expected, Place::End);
        }
        14 => {
            let expected = last_to(model, Bound::Included(&probe));
            assert_eq!(own(cursor.seek_at_or_before(&probe)?), expected);
            *place = moved(&expected, Place::Start);
        }
        15..=17 => {
            let at = Place::At(probe.clone(), other.clone());
            let there = has(model, &probe, &other).then(|| (probe.clone(), other.clone()));
            let (found, expected, otherwise) = match kind {
                15 => (cursor.seek_pair(&probe, &other)?, there, at),
                16 => (cursor.seek_pair_at_or_after(&probe, &other)?, there.or_else(|| after(model, &at)), Place::End),
                _ => {
                    (cursor.seek_pair_at_or_before(&probe, &other)?, there.or_else(|| before(model, &at)), Place::Start)
                }
            };
            assert_eq!(own(found), expected);
            *place = moved(&expected, otherwise);
        }
        18 if rng.below(2) == 0 => {
            let expected = after(model, &Place::Start);
            assert_eq!(own(cursor.first()?), expected);
            *place = moved(&expected, Place::End);
        }
        18 => {
            let expected = before(model, &Place::End);
            assert_eq!(own(cursor.last()?), expected);
            *place = moved(&expected, Place::Start);
        }
        19 => {
            assert_eq!(own(cursor.peek_next()?), after(model, place), "peek of {place:?}");
            assert_eq!(own(cursor.peek_prev()?), before(model, place), "peek of {place:?}");
        }
        20..=23 => {
            let is_new = model.entry(probe.clone()).or_default().insert(other.clone());
            assert_eq!(cursor.insert(&probe, &other)?, is_new);
            *place = Place::At(probe, other);
        }
        24..=27 => {
            let had = match place {
                Place::At(key, value) => model.get_mut(key).is_some_and(|values| values.remove(value)),
                _ => false,
            };
            assert_eq!(cursor.remove()?, had, "the pair at {place:?}");
            model.retain(|_, values| !values.is_empty());
        }
        28 if rng.below(3) == 0 => {
            let gone = place.key().and_then(|key| model.remove(key));
            assert_eq!(cursor.remove_all()?, gone.map_or(0, |values| values.len() as u64), "the key at {place:?}");
        }
        _ => {
            let expected = match place {
                Place::At(key, value) if has(model, key, value) => Some((key.clone(), value.clone())),
                _ => None,
            };
            assert_eq!(own(cursor.current()?), expected, "the pair at {place:?}");
            let count = place.key().and_then(|key| model.get(key)).map_or(0, |values| values.len() as u64);
            assert_eq!(cursor.count()?, count);
        }
    }
    steps.0[kind / 2] += 1;
    Ok(())
}

/// One change of many pairs, or a pop of several.
fn change(open: &mut BytesTable<'_>, model: &mut Model, rng: &mut Rng) -> Result<()> {
    let (a, b) = (key(rng.below(64)), key(rng.below(64)));
    let (low, high) = (a.clone().min(b.clone()), a.max(b));
    let range = (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice()));
    let (salt, one_of, invert) = (rng.next(), 1 + rng.below(9), rng.below(2) == 0);
    let hit = |key: &[u8], value: &[u8]| {
        let mixed = mix(salt ^ key.iter().chain(value).fold(1, |hash, &byte| mix(hash ^ u64::from(byte))));
        mixed.is_multiple_of(one_of) != invert
    };
    let inside = |key: &[u8]| low.as_slice() <= key && key < high.as_slice();
    let count = |model: &Model| model.values().map(BTreeSet::len).sum::<usize>() as u64;
    let had = count(model);
    match rng.below(6) {
        0 => {
            model.iter_mut().for_each(|(key, values)| values.retain(|value| hit(key, value)));
            assert_eq!(open.retain(hit)?, had - count(model));
        }
        1 => {
            let stays = |key: &[u8], value: &[u8]| !inside(key) || hit(key, value);
            model.iter_mut().for_each(|(key, values)| values.retain(|value| stays(key, value)));
            assert_eq!(open.retain_in(range, hit)?, had - count(model));
        }
        2 | 3 => {
            let most = rng.below(400) as usize;
            let is_all = rng.below(2) == 0;
            let matches = |pair: &Pair| (is_all || inside(&pair.0)) && hit(&pair.0, &pair.1);
            let expected: Vec<Pair> = pairs_of(model).into_iter().filter(matches).take(most).collect();
            let found: Vec<Pair> = match is_all {
                true => open.extract_if(hit).take(most).collect::<Result<_>>()?,
                false => open.extract_if_in(range, hit)?.take(most).collect::<Result<_>>()?,
            };
            assert_eq!(found, expected, "the extracted pairs");
            for (key, value) in &found {
                model.get_mut(key).expect("the key").remove(value);
            }
        }
        _ => {
            for _ in 0..rng.below(200) {
                let is_first = rng.below(4) > 0;
                let expected = if is_first { after(model, &Place::Start) } else { before(model, &Place::End) };
                let found = if is_first { open.pop_first()? } else { open.pop_last()? };
                assert_eq!(found, expected, "the popped pair");
                let Some((key, value)) = expected else { break };
                model.get_mut(&key).expect("the key").remove(&value);
                model.retain(|_, values| !values.is_empty());
            }
        }
    }
    model.retain(|_, values| !values.is_empty());
    Ok(())
}

/// A transaction of random steps. Several positions in each table live through all of them.
fn transaction(db: &Db, models: &mut [Model; 3], rng: &mut Rng, page_size: usize, steps: &mut Steps) -> Result<bool> {
    let mut txn = db.begin_write()?;
    let before = models.clone();
    let mut kept: Vec<(MultiPosition, Place)> = Vec::new();
    for _ in 0..9 {
        kept.push((txn.multi_bytes_table(NAMES[0])?.cursor().position(), Place::Start));
    }
    for _ in 0..1 + rng.below(8) {
        let table = rng.below(3) as usize;
        let goes_back = rng.below(6) == 0;
        let savepoint = if goes_back { Some((txn.savepoint()?, models[table].clone())) } else { None };
        {
            let mut open = txn.multi_bytes_table(NAMES[table])?;
            let model = &mut models[table];
            match rng.below(3) {
                0 => change(&mut open, model, rng)?,
                1 => multimap::step(rng, table, page_size, &mut open, model),
                _ => {}
            }
            let (position, place) = &mut kept[3 * table + rng.below(3) as usize];
            let mut cursor = open.cursor_at(position.clone());
            for _ in 0..rng.below(60) {
                step(&mut cursor, place, model, rng, (table, page_size, steps))?;
            }
            *position = cursor.position();
            compare(&*open, model, rng);
        }
        if let Some((savepoint, model)) = savepoint {
            txn.rollback_to(&savepoint)?;
            models[table] = model;
        }
    }
    match rng.below(5) {
        0 => {
            *models = before;
            Ok(false)
        }
        _ => txn.commit().map(|()| true),
    }
}

fn compare_all(db: &Db, models: &[Model; 3], rng: &mut Rng) {
    let txn = db.begin_read().expect("a transaction");
    for (name, model) in NAMES.iter().zip(models) {
        compare(&txn.multi_bytes_table(name).expect("a table"), model, rng);
    }
}

#[test]
fn random_cursors_over_multimaps_agree_with_a_map_of_sets() {
    let seed = seed("multi_edits");
    let mut steps = Steps::default();
    for page_size in [4096, 8192, 32768] {
        let mut rng = Rng::new(seed + page_size as u64);
        for mut db in TestDb::both(&Options::new().page_size(page_size as u32)) {
            make(&db);
            let mut models: [Model; 3] = Default::default();
            for _ in 0..12 * long() {
                transaction(&db, &mut models, &mut rng, page_size, &mut steps).expect("steps within limits succeed");
                if rng.below(5) == 0 {
                    db.reopen();
                }
                compare_all(&db, &models, &mut rng);
                db.assert_clean();
            }
        }
    }
    assert!(steps.0[..15].iter().all(|&count| count > 0), "each kind of step was made: {:?}", steps.0);
}

#[test]
fn a_replay_repeats_what_cursors_pops_and_passes_have_removed() {
    let mut rng = Rng::new(seed("a_replay_of_multi_edits"));
    set_log_shape(Some((0, 1 << 20)));
    let db = TestDb::file(Options::new());
    make(&db);
    let mut models: [Model; 3] = Default::default();
    let mut replays = 0;
    while replays < 15 {
        if !transaction(&db, &mut models, &mut rng, 4096, &mut Steps::default()).expect("steps within limits succeed") {
            continue;
        }
        let (_dir, copy) = replayed(&db);
        compare_all(&copy, &models, &mut rng);
        assert_clean(&copy);
        replays += 1;
    }
    set_log_shape(None);
}

const NUMBERS: MultiTable<u32, u64> = MultiTable::new("numbers");

/// Value trees of many leaves lose most of their values, or few of them, or all.
#[test]
fn retain_rebuilds_or_thins_value_trees() {
    for (modulus, keep) in [(2u64, 1u64), (10, 1), (10, 9), (1_000, 1), (1, 0)] {
        let db = Db::in_memory().expect("a database");
        let txn = db.begin_write().expect("a transaction");
        let mut numbers = txn.multi_table(NUMBERS).expect("a table");
        numbers.load((0..3).flat_map(|key| (0..20_000).map(move |value| (key, value)))).expect("loaded");
        let removed = numbers.retain_in(1..=1, |_, value| value % modulus < keep).expect("retained");
        let stays = |value: &u64| value % modulus < keep;
        assert_eq!(removed, (0..20_000).filter(|value| !stays(value)).count() as u64);
        let left = numbers.values(1).expect("values").map(|value| value.expect("a value"));
        assert!(left.eq((0..20_000).filter(stays)), "{modulus} {keep}");
        assert_eq!((numbers.count(0).expect("a count"), numbers.count(2).expect("a count")), (20_000, 20_000));
        drop(numbers);
        txn.commit().expect("committed");
        assert_clean(&db);
    }
}

#[test]
fn a_predicate_that_panics_leaves_what_it_has_not_judged() {
    let db = Db::in_memory().expect("a database");
    let txn = db.begin_write().expect("a transaction");
    let mut numbers = txn.multi_table(NUMBERS).expect("a table");
    numbers.insert_all((0..100).map(|value| (7, value))).expect("inserted");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        numbers.retain(|_, value| {
            assert!(value < 50, "enough");
            value % 2 == 0
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(numbers.len(), 75);
    drop(numbers);
    txn.commit().expect("committed");
    assert_clean(&db);
}

#[test]
fn a_pair_that_does_not_decode_stays_and_the_others_go_on() {
    const BOOLS: MultiTable<u8, bool> = MultiTable::new("bools");
    let db = Db::in_memory().expect("a database");
    let txn = db.begin_write().expect("a transaction");
    drop(txn.multi_table(BOOLS).expect("a table"));
    txn.multi_bytes_table("bools").expect("a table").insert_all([(&[1][..], &[9][..]), (&[2], &[1])]).expect("stored");
    let mut bools = txn.multi_table(BOOLS).expect("a table");
    assert_eq!(bools.pop_first().expect_err("not a bool").kind(), ErrorKind::Decode);
    assert_eq!(bools.retain(|_, _| false).expect_err("not a bool").kind(), ErrorKind::Decode);
    let found: Vec<Result<(u8, bool)>> = bools.extract_if(|_, _| true).collect();
    assert!(matches!(&found[..], [Err(e), Ok((2, true))] if e.to_string().contains("'bools'")), "{found:?}");
    let mut cursor = bools.cursor();
    assert_eq!(cursor.next().expect_err("not a bool").kind(), ErrorKind::Decode);
    assert!(cursor.remove().expect("removed"));
    assert!(bools.is_empty());
    drop(bools);
    txn.commit().expect("committed");
    assert_clean(&db);
}

/// A cursor of one table moves while another table of the transaction changes.
#[test]
fn a_cursor_moves_beside_changes_of_other_tables() {
    const NAMED: Table<u64, u32> = Table::new("named");
    let db = Db::in_memory().expect("a database");
    let txn = db.begin_write().expect("a transaction");
    let (mut numbers, mut named) = (txn.multi_table(NUMBERS).expect("a table"), txn.table(NAMED).expect("a table"));
    numbers.load((0..500).map(|value| (value as u32 / 7, value))).expect("loaded");
    let (mut cursor, mut expected) = (numbers.cursor(), 0);
    while let Some((key, value)) = cursor.next().expect("moves") {
        assert_eq!((key, value), (expected as u32 / 7, expected));
        named.insert(value, key).expect("stored");
        if value % 3 == 0 {
            assert!(cursor.remove().expect("removed"));
        }
        expected += 1;
    }
    assert_eq!((named.len(), numbers.len()), (500, 333));
}
