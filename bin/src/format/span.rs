//! A range of stored keys, from `--prefix`, `--from` and `--to`.

use std::ops::Bound;

/// A range of keys: `from` is included, `to` is not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Span {
    /// The keys that begin with `prefix` and lie within both bounds.
    pub(crate) fn new(prefix: Option<Vec<u8>>, from: Option<Vec<u8>>, to: Option<Vec<u8>>) -> Span {
        let prefix = prefix.unwrap_or_default();
        let to = match (to, after_prefix(&prefix)) {
            (Some(to), Some(after)) => Some(to.min(after)),
            (to, after) => to.or(after),
        };
        Span { from: from.unwrap_or_default().max(prefix), to }
    }

    /// Whether every key is in the range.
    pub(crate) fn is_all(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }

    /// Whether no key is in the range. (The library refuses some of these.)
    pub(crate) fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// The bounds, for the library.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let to = self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.from), to)
    }
}

/// The first key after all keys with this prefix; `None` if no key can follow them.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_after_it() {
        for (prefix, after) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xff\xff", Some(b"b")),
            (b"ab", Some(b"ac")),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), after);
        }
    }

    #[test]
    fn prefix_and_bounds_are_intersected() {
        let span = |prefix: &str, from: &str, to: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
            Span::new(some(prefix), some(from), some(to))
        };
        assert!(span("", "", "").is_all());
        assert_eq!(span("b", "a", "z"), Span { from: b"b".to_vec(), to: Some(b"c".to_vec()) });
        assert_eq!(span("b", "bb", "bd"), Span { from: b"bb".to_vec(), to: Some(b"bd".to_vec()) });
        assert!(span("b", "d", "").is_empty());
        assert!(span("", "b", "a").is_empty());
        assert!(span("", "a", "a").is_empty());
        assert!(!span("a", "", "").is_empty());
    }
}
