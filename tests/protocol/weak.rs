//! Begin read against reclaim under the memory model of Rust, which is that of C++20.
//!
//! A *litmus* is a few threads, each a short list of accesses with the values that it loads on the
//! way to the page that both sides use. The search tries each store that a load may get its value
//! from, and each order of the stores to a word. An execution counts if the axioms of the model
//! (RC11, as C++20 has it) permit it: coherence, atomicity, one order of the SC accesses and fences,
//! no value out of thin air. No execution may have a read of a page that does not happen before the
//! store of the writer that uses the page again.

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// What a thread does. Words are numbers, and each is 0 at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Do {
    /// Loads this value from a word.
    Load(u8, u8, Ordering),
    Store(u8, u8, Ordering),
    /// Exchanges one value for another in one step.
    Change(u8, u8, u8, Ordering),
    Fence(Ordering),
    /// The reader reads its page.
    ReadPage,
    /// The writer stores to a page that it uses again.
    ReusePage,
}
use Do::*;

impl Do {
    fn order(self) -> Ordering {
        match self {
            Load(_, _, order) | Store(_, _, order) | Change(_, _, _, order) | Fence(order) => order,
            ReadPage | ReusePage => Relaxed,
        }
    }

    /// The word and the value that it loads, and those that it stores.
    fn loads(self) -> Option<(u8, u8)> {
        match self {
            Load(word, value, _) | Change(word, value, _, _) => Some((word, value)),
            _ => None,
        }
    }

    fn stores(self) -> Option<(u8, u8)> {
        match self {
            Store(word, value, _) | Change(word, _, value, _) => Some((word, value)),
            _ => None,
        }
    }

    fn word(self) -> Option<u8> {
        self.loads().or(self.stores()).map(|(word, _)| word)
    }

    fn is_fence(self) -> bool {
        matches!(self, Fence(_))
    }

    fn is_sc(self) -> bool {
        self.order() == SeqCst
    }

    fn releases(self) -> bool {
        matches!(self.order(), Release | AcqRel | SeqCst)
    }

    fn acquires(self) -> bool {
        matches!(self.order(), Acquire | AcqRel | SeqCst)
    }
}

/// A relation of events: for each event a bit for each that it leads to.
type Relation = Vec<u32>;

fn relation(count: usize, holds: impl Fn(usize, usize) -> bool) -> Relation {
    (0..count).map(|a| (0..count).filter(|&b| holds(a, b)).fold(0, |row, b| row | 1 << b)).collect()
}

fn has(relation: &Relation, a: usize, b: usize) -> bool {
    relation[a] >> b & 1 == 1
}

fn or(a: &Relation, b: &Relation) -> Relation {
    a.iter().zip(b).map(|(a, b)| a | b).collect()
}

fn then(a: &Relation, b: &Relation) -> Relation {
    a.iter().map(|row| (0..b.len()).filter(|at| row >> at & 1 == 1).fold(0, |all, at| all | b[at])).collect()
}

fn closure(a: &Relation) -> Relation {
    let mut all = a.clone();
    loop {
        let next = or(&all, &then(&all, a));
        if next == all {
            return all;
        }
        all = next;
    }
}

fn is_acyclic(a: &Relation) -> bool {
    let all = closure(a);
    (0..all.len()).all(|at| !has(&all, at, at))
}

/// One execution: its events, in the order of threads, with which store each load reads from and the
/// order of the stores to each word.
struct Execution<'e> {
    events: &'e [Do],
    sequenced: &'e Relation,
    reads_from: Vec<Option<usize>>,
    /// The place of each store in the order of its word.
    place: Vec<usize>,
}

impl Execution<'_> {
    fn same_word(&self, a: usize, b: usize) -> bool {
        self.events[a].word().is_some() && self.events[a].word() == self.events[b].word()
    }

    /// Store before store in the order of their word.
    fn is_before(&self, a: usize, b: usize) -> bool {
        let both = self.events[a].stores().is_some() && self.events[b].stores().is_some();
        both && self.same_word(a, b) && self.place[a] < self.place[b]
    }

    /// A load got its value from a store before the other.
    fn reads_before(&self, a: usize, b: usize) -> bool {
        a != b && self.reads_from[a].is_some_and(|from| self.is_before(from, b))
    }

    /// A release that an acquire synchronizes with: through a store and the changes after it.
    fn synchronizes(&self, a: usize, b: usize) -> bool {
        let (events, count) = (self.events, self.events.len());
        let heads = |store: usize| store == a || events[a].is_fence() && has(self.sequenced, a, store);
        let tails = |load: usize| load == b || events[b].is_fence() && has(self.sequenced, load, b);
        let from = |load: usize| {
            let mut at = self.reads_from[load];
            while let Some(store) = at {
                if heads(store) {
                    return true;
                }
                // A release sequence goes on through changes.
                at = self.reads_from[store];
            }
            false
        };
        events[a].releases() && events[b].acquires() && (0..count).any(|load| tails(load) && from(load))
    }

    /// What happens before what, if the axioms permit the execution.
    fn happens_before(&self) -> Option<Relation> {
        let (events, count) = (self.events, self.events.len());
        let same = relation(count, |a, b| a == b);
        let reads_from = relation(count, |a, b| self.reads_from[b] == Some(a));
        let order = relation(count, |a, b| self.is_before(a, b));
        let reads_before = relation(count, |a, b| self.reads_before(a, b));
        let synchronizes = relation(count, |a, b| self.synchronizes(a, b));
        let before = closure(&or(self.sequenced, &synchronizes));
        let communicates = closure(&or(&or(&reads_from, &order), &reads_before));
        let coherent = (0..count).all(|at| {
            let around = then(&before, &or(&same, &communicates));
            !has(&around, at, at)
        });
        // Between the store that a change reads from and its own there is no other.
        let atomic = (0..count).all(|at| {
            events[at].stores().is_none()
                || self.reads_from[at].is_none_or(|from| self.place[from] + 1 == self.place[at])
        });
        let no_thin_air = is_acyclic(&or(self.sequenced, &reads_from));
        if !coherent || !atomic || !no_thin_air {
            return None;
        }
        let elsewhere = relation(count, |a, b| has(self.sequenced, a, b) && !self.same_word(a, b));
        let within = relation(count, |a, b| has(&before, a, b) && self.same_word(a, b));
        let around = then(&then(&elsewhere, &before), &elsewhere);
        let sc = or(&or(self.sequenced, &around), &or(&within, &or(&order, &reads_before)));
        let access = relation(count, |a, b| a == b && events[a].is_sc() && !events[a].is_fence());
        let fence = relation(count, |a, b| a == b && events[a].is_sc() && events[a].is_fence());
        let reach = or(&same, &before);
        let base = then(&then(&or(&access, &then(&fence, &reach)), &sc), &or(&access, &then(&reach, &fence)));
        let across = or(&before, &then(&then(&before, &communicates), &before));
        let fences = then(&then(&fence, &across), &fence);
        is_acyclic(&or(&base, &fences)).then_some(before)
    }
}

/// Executions that the model permits, and those of them in which a page is used again under a reader.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Found {
    permitted: usize,
    wrong: usize,
}

/// All executions of threads.
fn explore(threads: &[&[Do]]) -> Found {
    let words = threads.iter().flat_map(|thread| thread.iter()).filter_map(|event| event.word()).max().unwrap_or(0);
    // The first stores to the words come before all.
    let mut events: Vec<Do> = (0..=words).map(|word| Store(word, 0, Relaxed)).collect();
    let first = events.len();
    let mut owner = vec![usize::MAX; first];
    for (number, thread) in threads.iter().enumerate() {
        events.extend(*thread);
        owner.extend(thread.iter().map(|_| number));
    }
    let sequenced = relation(events.len(), |a, b| a < b && b >= first && (a < first || owner[a] == owner[b]));
    let stores: Vec<usize> = (first..events.len()).filter(|&at| events[at].stores().is_some()).collect();
    let mut found = Found::default();
    orders(&events, &stores, &mut vec![0; events.len()], &mut |place| {
        let mut execution = Execution {
            events: &events,
            sequenced: &sequenced,
            reads_from: vec![None; events.len()],
            place: place.to_vec(),
        };
        choose(&mut execution, first, &mut found);
    });
    found
}

/// All orders of the stores to each word: `visit` gets the place of each store in its word.
fn orders(events: &[Do], stores: &[usize], place: &mut Vec<usize>, visit: &mut dyn FnMut(&[usize])) {
    let Some((&store, rest)) = stores.split_first() else { return visit(place) };
    let others = |place: &[usize], at: usize| place[at] > 0 && events[at].word() == events[store].word();
    let count = (0..events.len()).filter(|&at| others(place, at)).count();
    for new in 1..=count + 1 {
        let before = place.clone();
        (0..events.len()).filter(|&at| others(&before, at) && before[at] >= new).for_each(|at| place[at] += 1);
        place[store] = new;
        orders(events, rest, place, visit);
        *place = before;
    }
}

/// Chooses a store for each load from an event on, and judges.
fn choose(execution: &mut Execution<'_>, at: usize, found: &mut Found) {
    let events = execution.events;
    if at == events.len() {
        if let Some(before) = execution.happens_before() {
            let find = |what| events.iter().position(|&event| event == what);
            let is_wrong = find(ReadPage).zip(find(ReusePage)).is_some_and(|(read, reuse)| !has(&before, read, reuse));
            found.permitted += 1;
            found.wrong += usize::from(is_wrong);
        }
        return;
    }
    match events[at].loads() {
        None => choose(execution, at + 1, found),
        Some(wanted) => {
            for from in (0..events.len()).filter(|&from| from != at && events[from].stores() == Some(wanted)) {
                execution.reads_from[at] = Some(from);
                choose(execution, at + 1, found);
            }
            execution.reads_from[at] = None;
        }
    }
}

/// A fence that is left out.
const NO_FENCE: Do = Fence(Relaxed);
const FENCE: Do = Fence(SeqCst);

const PUBLISHED: u8 = 0;
const SLOT: u8 = 1;
const OWNER: u8 = 2;
/// A slot that no reader uses, and one that shows a state.
const FREE: u8 = 0;
const SHOWS_0: u8 = 5;
const SHOWS_1: u8 = 6;

/// The orders and fences of both sides (`src/txn/read/snapshot.rs`, `src/mapping/owned_cell.rs`,
/// `src/txn/env.rs`, `src/txn/read/readers.rs`).
#[derive(Clone, Copy)]
struct Orders {
    take: Ordering,
    load_again: Ordering,
    reader_fence: Do,
    free: Ordering,
    writer_fence: Do,
    load_slot: Ordering,
}

const BUILT: Orders = Orders {
    take: SeqCst,
    load_again: SeqCst,
    reader_fence: FENCE,
    free: Release,
    writer_fence: FENCE,
    load_slot: Acquire,
};

/// The reader finds in step 3 that the txn has not moved.
fn first_try(with: Orders) -> Found {
    let leader = [Change(PUBLISHED, 0, 1, SeqCst)];
    let writer = [Load(PUBLISHED, 1, SeqCst), with.writer_fence, Load(SLOT, FREE, with.load_slot), ReusePage];
    let reader = [
        Load(PUBLISHED, 0, SeqCst),
        Change(SLOT, FREE, SHOWS_0, with.take),
        Load(PUBLISHED, 0, with.load_again),
        ReadPage,
        Store(SLOT, FREE, with.free),
    ];
    explore(&[&leader, &writer, &reader])
}

/// The txn has moved once; the reader shows the new one, and reads the page of that state. The
/// writer sees the slot free, or showing the older state.
fn second_try(with: Orders) -> Found {
    let leader = [Change(PUBLISHED, 0, 1, SeqCst), Change(PUBLISHED, 1, 2, SeqCst)];
    let reader = [
        Load(PUBLISHED, 0, SeqCst),
        Change(SLOT, FREE, SHOWS_0, with.take),
        Load(PUBLISHED, 1, with.load_again),
        Store(SLOT, SHOWS_1, Release),
        with.reader_fence,
        Load(PUBLISHED, 1, with.load_again),
        ReadPage,
        Store(SLOT, FREE, with.free),
    ];
    let run = |seen| {
        let writer = [Load(PUBLISHED, 2, SeqCst), with.writer_fence, Load(SLOT, seen, with.load_slot), ReusePage];
        explore(&[&leader, &writer, &reader])
    };
    let (free, older) = (run(FREE), run(SHOWS_0));
    Found { permitted: free.permitted + older.permitted, wrong: free.wrong + older.wrong }
}

/// A process claims a reader page, frees its slot, and takes it. The writer finds no owner, or the
/// owner and a free slot.
fn new_page(with: Orders) -> Found {
    let leader = [Change(PUBLISHED, 0, 1, SeqCst)];
    let reader = [
        Change(OWNER, 0, 1, SeqCst),
        Store(SLOT, FREE, SeqCst),
        Change(SLOT, FREE, SHOWS_0, with.take),
        Load(PUBLISHED, 0, with.load_again),
        ReadPage,
        Store(SLOT, FREE, with.free),
    ];
    let (seen, fence) = (Load(PUBLISHED, 1, SeqCst), with.writer_fence);
    let no_owner = [seen, fence, Load(OWNER, 0, SeqCst), ReusePage];
    let an_owner = [seen, fence, Load(OWNER, 1, SeqCst), Load(SLOT, FREE, with.load_slot), ReusePage];
    let (without, with) = (explore(&[&leader, &no_owner, &reader]), explore(&[&leader, &an_owner, &reader]));
    Found { permitted: without.permitted + with.permitted, wrong: without.wrong + with.wrong }
}

/// A checkpoint stores `pinned`, and loads `published` again (`Core::pin_published`). The word is the
/// counter of `checkpoint`; the checkpoint moves it again at its end.
fn pinning(store: Ordering, load_again: Ordering, writer_fence: Do) -> Found {
    let leader = [Change(PUBLISHED, 0, 1, SeqCst)];
    let checkpoint = [
        Load(PUBLISHED, 0, SeqCst),
        Store(SLOT, SHOWS_0, store),
        Load(PUBLISHED, 0, load_again),
        ReadPage,
        Store(SLOT, FREE, SeqCst),
    ];
    let writer = [Load(PUBLISHED, 1, SeqCst), writer_fence, Load(SLOT, FREE, SeqCst), ReusePage];
    explore(&[&leader, &checkpoint, &writer])
}

/// An entry of the ring is filled for txn 1 while a reader copies it for txn 0, and for txn 1: its
/// word has the other value. No execution is permitted (P5).
fn copying(fill: Do, copy: Do) -> usize {
    let [after, word, before] = [0, 1, 2];
    let filler = [Store(before, 1, Relaxed), fill, Store(word, 1, Relaxed), Store(after, 1, Release)];
    let reader = |txn| [Load(after, txn, Acquire), Load(word, 1 - txn, Relaxed), copy, Load(before, txn, Relaxed)];
    (0..2).map(|txn| explore(&[&filler, &reader(txn)]).permitted).sum()
}

#[test]
fn no_order_of_memory_accesses_lets_the_writer_use_a_page_under_a_reader() {
    for (name, found) in [
        ("first try", first_try(BUILT)),
        ("second try", second_try(BUILT)),
        ("new reader page", new_page(BUILT)),
        ("pinning", pinning(SeqCst, SeqCst, FENCE)),
    ] {
        println!("{name}: {found:?}");
        assert!(found.permitted > 0 && found.wrong == 0, "{name}: {found:?}");
    }
    // All accesses of a pinned state are SC: the fence of the writer is there for the slots.
    assert_eq!(pinning(SeqCst, SeqCst, NO_FENCE).wrong, 0);
    assert_eq!(copying(Fence(Release), Fence(Acquire)), 0);
}

#[test]
fn a_page_is_used_under_a_reader_if_a_fence_or_an_order_is_left_out() {
    let no_writer_fence = Orders { writer_fence: NO_FENCE, ..BUILT };
    let no_reader_fence = Orders { reader_fence: NO_FENCE, ..BUILT };
    for (name, found) in [
        ("first try, no fence of the writer", first_try(no_writer_fence)),
        ("second try, no fence of the writer", second_try(no_writer_fence)),
        ("new reader page, no fence of the writer", new_page(no_writer_fence)),
        ("second try, no fence of the reader", second_try(no_reader_fence)),
        ("taking a slot orders less", first_try(Orders { take: AcqRel, ..BUILT })),
        ("loading again orders less", first_try(Orders { load_again: Acquire, ..BUILT })),
        ("freeing a slot orders nothing", first_try(Orders { free: Relaxed, ..BUILT })),
        ("loading a slot orders nothing", first_try(Orders { load_slot: Relaxed, ..BUILT })),
        ("pinning orders less", pinning(Release, SeqCst, FENCE)),
        ("loading again after pinning orders less", pinning(SeqCst, Acquire, FENCE)),
    ] {
        println!("{name}: {found:?}");
        assert!(found.wrong > 0, "{name}: {found:?}");
    }
    assert!(copying(NO_FENCE, Fence(Acquire)) > 0 && copying(Fence(Release), NO_FENCE) > 0);
}

/// Known litmus tests, so that the axioms are those of the language.
#[test]
fn the_model_permits_what_the_language_does() {
    let permitted = |threads: &[&[Do]]| explore(threads).permitted > 0;
    let store_buffering = |order, fence| {
        let (left, right) =
            ([Store(0, 1, order), fence, Load(1, 0, order)], [Store(1, 1, order), fence, Load(0, 0, order)]);
        permitted(&[&left, &right])
    };
    assert!(store_buffering(Relaxed, NO_FENCE) && store_buffering(Relaxed, Fence(AcqRel)));
    assert!(!store_buffering(SeqCst, NO_FENCE) && !store_buffering(Relaxed, FENCE));
    let message = |store, load| {
        permitted(&[&[Store(0, 1, Relaxed), Store(1, 1, store)], &[Load(1, 1, load), Load(0, 0, Relaxed)]])
    };
    assert!(message(Relaxed, Acquire) && message(Release, Relaxed) && !message(Release, Acquire));
    // Two readers of two words see the stores in different orders.
    let independent = |load, fence| {
        let first = [Load(0, 1, load), fence, Load(1, 0, load)];
        let second = [Load(1, 1, load), fence, Load(0, 0, load)];
        permitted(&[&[Store(0, 1, SeqCst)], &[Store(1, 1, SeqCst)], &first, &second])
    };
    assert!(independent(Acquire, NO_FENCE) && !independent(SeqCst, NO_FENCE) && !independent(Relaxed, FENCE));
    // A word is read in the order of its stores, and a change leaves no gap.
    assert!(!permitted(&[&[Store(0, 1, Relaxed), Store(0, 2, Relaxed)], &[Load(0, 2, Relaxed), Load(0, 1, Relaxed)]]));
    assert!(!permitted(&[&[Change(0, 0, 1, Relaxed)], &[Change(0, 0, 2, Relaxed)]]));
    // A release sequence goes on through a change of another thread.
    let chain = [Load(1, 2, Acquire), Load(0, 0, Relaxed)];
    assert!(!permitted(&[&[Store(0, 1, Relaxed), Store(1, 1, Release)], &[Change(1, 1, 2, Relaxed)], &chain]));
}
