//! The columns of a flat index: the bytes of keys in which its separators differ.
//!
//! Floor: tree. Bytes that all separators share are left out. A key that differs in one of them has
//! no word.
//!
//! Failure: none.

use super::Parts;

/// Columns lie in this many first bytes of separators.
pub(super) const COLUMNS_MAX: usize = 24;
/// Bytes of a word.
const WORD: usize = 8;

// The words at `Columns::places` cover every column.
const _: () = assert!(COLUMNS_MAX <= 3 * WORD);

/// Which bytes of a key form its word, and which values the other bytes must have.
#[derive(Clone, Copy, Default)]
pub(super) struct Columns {
    /// Up to two runs of columns.
    runs: [KeyBytes; 2],
    /// The bytes that all separators share in the other columns, in up to three words that lie at
    /// `places`.
    fixed: [u64; 3],
    masks: [u64; 3],
    places: [usize; 3],
    /// The end of the last column.
    pub(super) end: usize,
    /// Bytes that a key must have.
    pub(super) key_bytes: usize,
    /// Whether the words order keys exactly as the whole separators do.
    pub(super) exact: bool,
    has_fixed: bool,
    has_two_runs: bool,
    /// The columns are the first eight.
    pub(super) is_first_word: bool,
}

/// Neighbouring columns: `(word at place >> shift) & mask`.
#[derive(Clone, Copy, Default)]
struct KeyBytes {
    place: usize,
    shift: u32,
    mask: u64,
    bits: u32,
}

impl Columns {
    pub(super) fn of(parts: &Parts) -> Columns {
        let separators = || parts.separators();
        let longest = separators().map(<[u8]>::len).max().unwrap_or(0);
        // The byte at this column of the first separator that is long enough, and whether another
        // separator has a different one.
        let column = |at: usize| {
            let mut bytes = separators().filter_map(|separator| separator.get(at));
            let first = bytes.next().copied().unwrap_or(0);
            (first, bytes.any(|byte| *byte != first))
        };
        let columns: Vec<(u8, bool)> = (0..longest.min(COLUMNS_MAX)).map(column).collect();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        let mut taken = 0;
        let mut exact = true;
        for at in (0..columns.len()).filter(|at| columns[*at].1) {
            let count = spans.len();
            match spans.last_mut() {
                _ if taken == WORD => exact = false,
                Some((_, end)) if *end == at => *end += 1,
                _ if count == 2 => (exact, taken) = (false, WORD),
                _ => spans.push((at, at + 1)),
            }
            taken = (taken + 1).min(WORD);
        }
        if let Some((_, end)) = spans.last_mut() {
            // Bytes after the last column decide where all columns are equal.
            if longest <= COLUMNS_MAX && longest - *end <= WORD - taken {
                *end = longest;
            }
        }
        if let [(0, end)] = &mut spans[..] {
            // Columns that do not differ do no harm, and the first word of a key is already
            // computed.
            *end = WORD;
        }
        let end = spans.last().map_or(0, |(_, end)| *end);
        let (exact, key_bytes) = (exact && longest <= end, end.max(WORD));
        let mut made = Columns { exact, end, key_bytes, ..Columns::default() };
        for (run, (start, end)) in made.runs.iter_mut().zip(&spans) {
            *run = KeyBytes::of(*start, *end);
        }
        made.has_two_runs = spans.len() == 2;
        made.is_first_word = spans == [(0, WORD)];
        let last = end.saturating_sub(WORD);
        made.places = [0, last.min(WORD), last];
        for (at, (byte, _)) in columns.iter().enumerate().take(end) {
            if spans.iter().any(|(start, end)| (*start..*end).contains(&at)) {
                continue;
            }
            made.has_fixed = true;
            let Some(which) = made.places.iter().position(|place| (*place..*place + WORD).contains(&at)) else {
                continue;
            };
            let shift = 8 * (WORD - 1 - (at - made.places[which]));
            made.fixed[which] |= u64::from(*byte) << shift;
            made.masks[which] |= 0xff << shift;
        }
        made
    }

    /// The same columns, which are exact or not.
    pub(super) fn with_exact(self, exact: bool) -> Columns {
        Columns { exact, ..self }
    }

    /// Whether a separator has the bytes that all separators share.
    pub(super) fn admit(&self, separator: &[u8]) -> bool {
        (0..3).all(|which| {
            let (fixed, masks) = (self.fixed[which].to_be_bytes(), self.masks[which].to_be_bytes());
            let own = separator.get(self.places[which]..).unwrap_or(&[]);
            own.iter().zip(fixed).zip(masks).all(|((own, fixed), mask)| mask == 0 || *own == fixed)
        })
    }

    /// The head of a separator; columns that it does not have are zero.
    pub(super) fn head(&self, separator: &[u8]) -> u64 {
        let mut padded = [0; COLUMNS_MAX + WORD];
        padded.iter_mut().zip(separator).for_each(|(to, from)| *to = *from);
        let [first, second] = self.runs.map(|run| run.bytes(&padded).unwrap_or(0));
        first.checked_shl(self.runs[1].bits).unwrap_or(0) | second
    }

    /// The word of a key of at least `key_bytes`. `None` if the key differs in the bytes that all
    /// separators share.
    #[inline(always)]
    pub(super) fn word(&self, key: &[u8]) -> Option<u64> {
        if self.has_fixed {
            let mut other = 0;
            for at in 0..3 {
                other |= (word_at(key, self.places[at])? ^ self.fixed[at]) & self.masks[at];
            }
            if other != 0 {
                return None;
            }
        }
        let word = self.runs[0].bytes(key)?;
        if !self.has_two_runs {
            return Some(word);
        }
        // Neither has all 64 bits.
        Some(word << (self.runs[1].bits & 63) | self.runs[1].bytes(key)?)
    }
}

impl KeyBytes {
    fn of(start: usize, end: usize) -> KeyBytes {
        let bits = 8 * (end - start) as u32;
        KeyBytes {
            place: end.saturating_sub(WORD),
            shift: 8 * WORD.saturating_sub(end) as u32,
            mask: u64::MAX.checked_shr(64 - bits).unwrap_or(0),
            bits,
        }
    }

    #[inline(always)]
    fn bytes(&self, key: &[u8]) -> Option<u64> {
        Some((word_at(key, self.place)? >> (self.shift & 63)) & self.mask)
    }
}

#[inline(always)]
fn word_at(key: &[u8], place: usize) -> Option<u64> {
    key.get(place..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
