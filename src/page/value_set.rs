//! The values of one key of a multimap table, as they lie in the leaf, in ascending order.
//!
//! Floor: page. [`Shape`] says how the values of a table are stored. Values of one fixed size are
//! packed: they lie one after the other, without anything between them. Values of any size have an
//! array of their ends before them:
//!
//! ```text
//! fixed     | value 0 | value 1 | ...
//! variable  | count u16 | end of value 0 u16 | end of value 1 u16 | ... | value 0 | value 1 | ...
//! ```
//!
//! Ends count from the first byte of value 0.
//!
//! Invariants ([`ValueSet::verify`] checks them):
//!   SET-1  a set has at least one value, and values ascend strictly, compared bytewise.
//!   SET-2  ends ascend, and the last one is the end of the set; packed values fill their bytes.
//!
//! Failure: a length that leaves the set reads as no value. A set that breaks SET-1 gives wrong
//! answers but no panic; the checksum of its page protects against that.

use std::cmp::Ordering;

use super::header::PageKind;
use super::layout::{get_u16, put_u16};

/// How the values of a table are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Shape {
    /// One value for each key: a table that is no multimap.
    #[default]
    Single,
    /// Several values for each key, of any size.
    Variable,
    /// Several values for each key, each of this many bytes, at least one.
    Fixed(u16),
    /// A value tree whose leaves are packed, with values of this many bytes.
    Packed(u16),
}

/// Bytes of the count, and of each end.
const NUMBER_BYTES: usize = 2;

impl Shape {
    /// Whether keys have several values.
    #[inline]
    pub(crate) fn is_multi(self) -> bool {
        matches!(self, Shape::Variable | Shape::Fixed(_))
    }

    /// Bytes of each value, if that is fixed.
    #[inline]
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Shape::Fixed(width) | Shape::Packed(width) => Some(usize::from(width)),
            Shape::Single | Shape::Variable => None,
        }
    }

    /// The shape of the value trees of a multimap.
    pub(crate) fn of_value_tree(self) -> Shape {
        match self {
            Shape::Fixed(width) => Shape::Packed(width),
            _ => Shape::Single,
        }
    }

    /// The kind of the leaves of a tree.
    pub(crate) fn leaf_kind(self) -> PageKind {
        match self {
            Shape::Packed(_) => PageKind::Packed,
            _ => PageKind::Leaf,
        }
    }

    /// Bytes of a value in a set.
    pub(crate) fn bytes_in_set(self, value_bytes: usize) -> usize {
        value_bytes + if self.width().is_some() { 0 } else { NUMBER_BYTES }
    }

    /// Bytes of a set beside its values.
    pub(crate) fn set_header_bytes(self) -> usize {
        if self.width().is_some() {
            0
        } else {
            NUMBER_BYTES
        }
    }
}

/// The values of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueSet<'a> {
    bytes: &'a [u8],
    /// Bytes of each value; 0 if each has its own length.
    width: usize,
}

impl<'a> ValueSet<'a> {
    /// The set that these bytes are.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], shape: Shape) -> ValueSet<'a> {
        ValueSet { bytes, width: shape.width().unwrap_or(0) }
    }

    /// The bytes of the set.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of values.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        match self.bytes.len().checked_div(self.width) {
            Some(count) => count,
            None => usize::from(get_u16(self.bytes, 0)),
        }
    }

    /// First byte after the array of ends.
    #[inline]
    fn data(&self) -> usize {
        NUMBER_BYTES * (1 + self.count())
    }

    /// End of value `index`, from the first byte of value 0 on.
    #[inline]
    fn end(&self, index: usize) -> usize {
        usize::from(get_u16(self.bytes, NUMBER_BYTES * (1 + index)))
    }

    /// Value `index`; `None` if there is none, or the set is damaged.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        if self.width > 0 {
            let start = index.checked_mul(self.width)?;
            return self.bytes.get(start..start.checked_add(self.width)?);
        }
        if index >= self.count() {
            return None;
        }
        let start = if index == 0 { 0 } else { self.end(index - 1) };
        self.bytes.get(self.data() + start..self.data() + self.end(index))
    }

    /// The index of the first value that is at least `value`, and whether it is equal.
    #[inline]
    pub(crate) fn search(&self, value: &[u8]) -> (usize, bool) {
        if self.width > 0 {
            return search_packed(self.bytes, self.width, value);
        }
        search_by(self.count(), |index| self.get(index).unwrap_or(&[]).cmp(value))
    }

    /// Offset in the set where value `index` begins, or would begin as a new last one.
    fn offset(&self, index: usize) -> usize {
        match self.width {
            0 => self.data() + if index == 0 { 0 } else { self.end(index - 1) },
            width => width * index,
        }
    }

    /// Checks SET-1 and SET-2. Returns what is wrong.
    pub(crate) fn verify(&self) -> Result<(), &'static str> {
        let count = self.count();
        if count == 0 {
            return Err("a key has no values");
        }
        let end = match self.width {
            0 => self.data() + self.end(count - 1),
            width => width * count,
        };
        if end != self.bytes.len() {
            return Err("the values of a key do not fill their place");
        }
        let mut last: Option<&[u8]> = None;
        for index in 0..count {
            let Some(value) = self.get(index) else { return Err("a value of a key leaves its place") };
            if last.is_some_and(|last| last >= value) {
                return Err("the values of a key are not in ascending order");
            }
            last = Some(value);
        }
        Ok(())
    }
}

/// The index of the first of some packed values that is at least `value`, and whether it is equal.
#[inline]
pub(crate) fn search_packed(bytes: &[u8], width: usize, value: &[u8]) -> (usize, bool) {
    match width {
        8 => search_words::<8>(bytes, value, u64::from_be_bytes),
        4 => search_words::<4>(bytes, value, |word| u64::from(u32::from_be_bytes(word))),
        _ => {
            let at = |index: usize| bytes.get(index * width..(index + 1) * width).unwrap_or(&[]);
            search_by(bytes.len() / width.max(1), |index| at(index).cmp(value))
        }
    }
}

/// Like [`search_packed`], for values that are compared as one number.
#[inline]
fn search_words<const N: usize>(bytes: &[u8], value: &[u8], number: impl Fn([u8; N]) -> u64) -> (usize, bool) {
    let (values, _) = bytes.as_chunks::<N>();
    let Some(&word) = value.first_chunk::<N>().filter(|_| value.len() == N) else {
        return search_by(values.len(), |index| values[index][..].cmp(value));
    };
    let wanted = number(word);
    // Values are often put in ascending order.
    match values.last() {
        Some(&last) if number(last) >= wanted => {}
        _ => return (values.len(), false),
    }
    let at = values.partition_point(|&value| number(value) < wanted);
    (at, values.get(at).is_some_and(|&value| number(value) == wanted))
}

/// Searches `count` things in ascending order; `compare` compares one with the wanted value.
#[inline]
fn search_by(count: usize, compare: impl Fn(usize) -> Ordering) -> (usize, bool) {
    let (mut low, mut high) = (0, count);
    if high > 0 && compare(high - 1) == Ordering::Less {
        return (count, false);
    }
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            Ordering::Equal => return (middle, true),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    (low, false)
}

/// A change of a set: one value more, or one less. The set is in order (SET-2).
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetChange<'v> {
    /// A new value becomes value `0`.
    Insert(usize, &'v [u8]),
    /// Value `0` goes.
    Remove(usize),
}

/// Where a changed set gets longer or shorter: bytes to open or close at an offset. The second
/// place is the one of an end, which only sets of values of any size have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gaps {
    pub(crate) value_at: usize,
    pub(crate) value_bytes: usize,
    /// `None`: the set has no ends.
    pub(crate) end_at: Option<usize>,
}

impl Gaps {
    /// Bytes by which the set gets longer or shorter.
    pub(crate) fn bytes(&self) -> usize {
        self.value_bytes + if self.end_at.is_some() { NUMBER_BYTES } else { 0 }
    }
}

impl<'v> SetChange<'v> {
    /// The places that the change opens or closes in a set. `None` if the set is damaged.
    pub(crate) fn gaps(&self, set: &ValueSet<'_>) -> Option<Gaps> {
        let (index, value_bytes) = match *self {
            SetChange::Insert(index, value) => (index, value.len()),
            SetChange::Remove(index) => (index, set.get(index)?.len()),
        };
        if index > set.count() {
            return None;
        }
        let value_at = set.offset(index);
        let end_at = (set.width == 0).then_some(NUMBER_BYTES * (1 + index));
        let used = value_at + if matches!(self, SetChange::Remove(_)) { value_bytes } else { 0 };
        (used <= set.bytes.len()).then_some(Gaps { value_at, value_bytes, end_at })
    }

    /// Writes the change into a set whose gaps were opened, or were closed.
    pub(crate) fn finish(&self, set: &mut [u8], gaps: Gaps) {
        let Gaps { value_at, value_bytes, end_at } = gaps;
        let shift = if end_at.is_some() { NUMBER_BYTES } else { 0 };
        if let SetChange::Insert(_, value) = self {
            set[value_at + shift..value_at + shift + value_bytes].copy_from_slice(value);
        }
        let Some(end_at) = end_at else { return };
        let count = usize::from(get_u16(set, 0));
        let (index, new_count) = (
            end_at / NUMBER_BYTES - 1,
            match self {
                SetChange::Insert(..) => count + 1,
                SetChange::Remove(_) => count.saturating_sub(1),
            },
        );
        put_u16(set, 0, new_count as u16);
        let first = match self {
            SetChange::Insert(..) => {
                let before = if index == 0 { 0 } else { get_u16(set, end_at - NUMBER_BYTES) };
                put_u16(set, end_at, before.wrapping_add(value_bytes as u16));
                index + 1
            }
            SetChange::Remove(_) => index,
        };
        for later in first..new_count {
            let at = NUMBER_BYTES * (1 + later);
            let end = get_u16(set, at);
            let moved = match self {
                SetChange::Insert(..) => end.wrapping_add(value_bytes as u16),
                SetChange::Remove(_) => end.wrapping_sub(value_bytes as u16),
            };
            put_u16(set, at, moved);
        }
    }

    /// The changed set as bytes of its own. `None` if the set is damaged.
    pub(crate) fn apply(&self, set: &ValueSet<'_>) -> Option<Vec<u8>> {
        let gaps = self.gaps(set)?;
        let bytes = set.bytes;
        let mut changed = Vec::with_capacity(bytes.len() + gaps.bytes());
        match self {
            SetChange::Insert(..) => {
                let end_at = gaps.end_at.unwrap_or(0).min(gaps.value_at);
                changed.extend_from_slice(&bytes[..end_at]);
                changed.resize(end_at + gaps.bytes() - gaps.value_bytes, 0);
                changed.extend_from_slice(&bytes[end_at..gaps.value_at]);
                changed.resize(changed.len() + gaps.value_bytes, 0);
                changed.extend_from_slice(&bytes[gaps.value_at..]);
            }
            SetChange::Remove(_) => {
                changed.extend_from_slice(bytes);
                changed.drain(gaps.value_at..gaps.value_at + gaps.value_bytes);
                if let Some(end_at) = gaps.end_at {
                    changed.drain(end_at..end_at + NUMBER_BYTES);
                }
            }
        }
        self.finish(&mut changed, gaps);
        Some(changed)
    }
}

/// The set of one value.
pub(crate) fn set_of_one(shape: Shape, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shape.set_header_bytes() + shape.bytes_in_set(value.len()));
    if shape.width().is_none() {
        bytes.extend_from_slice(&1u16.to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    }
    bytes.extend_from_slice(value);
    bytes
}

/// The set of some values in ascending order, of `count` values together.
pub(crate) fn set_of<'v>(shape: Shape, values: impl Iterator<Item = &'v [u8]> + Clone) -> Vec<u8> {
    let mut bytes = Vec::new();
    if shape.width().is_none() {
        let count = values.clone().count();
        bytes.extend_from_slice(&(count as u16).to_le_bytes());
        let mut end = 0u16;
        for value in values.clone() {
            end = end.wrapping_add(value.len() as u16);
            bytes.extend_from_slice(&end.to_le_bytes());
        }
    }
    values.for_each(|value| bytes.extend_from_slice(value));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Each set of small values, changed in each way, is the set of the model.
    #[test]
    fn sets_of_all_shapes_agree_with_a_model_through_random_changes() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for shape in [Shape::Variable, Shape::Fixed(1), Shape::Fixed(3), Shape::Fixed(4), Shape::Fixed(8)] {
            let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
            let mut bytes = Vec::new();
            for _ in 0..3000 {
                let len = shape.width().unwrap_or_else(|| random(5) as usize);
                let value: Vec<u8> = (0..len).map(|_| random(3) as u8 * 100).collect();
                let set = ValueSet::new(&bytes, shape);
                let (at, found) = set.search(&value);
                assert_eq!(found, model.contains(&value));
                assert_eq!(at, model.range(..value.clone()).count());
                let change = if found { SetChange::Remove(at) } else { SetChange::Insert(at, &value) };
                bytes = match (model.is_empty(), change) {
                    (true, _) => set_of_one(shape, &value),
                    (false, change) => change.apply(&set).expect("sound"),
                };
                if !model.remove(&value) {
                    model.insert(value);
                }
                if model.is_empty() {
                    bytes.clear();
                    continue;
                }
                let set = ValueSet::new(&bytes, shape);
                assert_eq!(set.verify(), Ok(()), "{shape:?} {bytes:?}");
                let values: Vec<&[u8]> = (0..set.count()).filter_map(|index| set.get(index)).collect();
                assert!(values.iter().eq(model.iter()), "{shape:?}");
                assert_eq!(set_of(shape, values.iter().copied()), bytes);
                assert_eq!(set.get(set.count()), None);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_set_panic() {
        let mut state = 7u64;
        for round in 0..20_000usize {
            let bytes: Vec<u8> = (0..round % 23)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ((state >> 40) % 7) as u8
                })
                .collect();
            for shape in [Shape::Variable, Shape::Fixed(3), Shape::Fixed(8)] {
                let set = ValueSet::new(&bytes, shape);
                std::hint::black_box((set.verify().is_ok(), set.search(b"abc"), set.search(&[0; 8])));
                (0..set.count().min(50) + 1)
                    .for_each(|index| assert!(set.get(index).is_none_or(|it| it.len() <= bytes.len())));
                for index in 0..4 {
                    let _ = SetChange::Remove(index).apply(&set);
                    let _ = SetChange::Insert(index, b"abc").apply(&set);
                }
            }
        }
    }
}
