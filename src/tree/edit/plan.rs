//! Decides where pages are split and joined, from sizes only.
//!
//! Floor: tree. Pure functions: no page is read or written here, so that every decision can be
//! tested over all small inputs. `split.rs` and `rebalance.rs` carry the decisions out.
//!
//! Invariants of every plan:
//!   PLAN-1  the parts cover the entries in order, none twice, and no part is empty.
//!   PLAN-2  every part fits into its page.
//!   PLAN-3  a branch part has at least two children wherever the whole has four or more.
//!
//! Failure: entries that no plan fits (which only a damaged page can hold) give `None`.

use std::ops::Range;

/// How a put continues the one before it in the same leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pattern {
    /// No relation.
    #[default]
    Random,
    /// Directly after the entry put before.
    Ascending,
    /// Directly before the entry put before.
    Descending,
}

/// Where to cut a page so that sequential puts do not leave half-empty pages. The page to split has
/// `count` entries, including the new one, which has the index `new_index`. Returns the number of
/// entries of the left page; `None` if the puts are not sequential.
pub(crate) fn preferred_cut(pattern: Pattern, new_index: usize, count: usize) -> Option<usize> {
    match pattern {
        Pattern::Random => None,
        Pattern::Ascending => Some(if new_index + 1 == count { new_index } else { new_index + 1 }),
        Pattern::Descending => Some(if new_index == 0 { 1 } else { new_index }),
    }
}

/// Cuts the entries of an overfull leaf in two: at the preferred place if both parts fit, else
/// balanced by bytes.
pub(crate) fn leaf_cut(sizes: &[usize], capacity: usize, preferred: Option<usize>) -> Option<usize> {
    if let Some(cut) = preferred {
        let inside = cut > 0 && cut < sizes.len();
        if inside && fits(&sizes[..cut], capacity) && fits(&sizes[cut..], capacity) {
            return Some(cut);
        }
    }
    balanced_cut(sizes, capacity)
}

fn fits(sizes: &[usize], capacity: usize) -> bool {
    sizes.iter().sum::<usize>() <= capacity
}

/// The cut whose two parts fit and differ least in bytes.
fn balanced_cut(sizes: &[usize], capacity: usize) -> Option<usize> {
    let total: usize = sizes.iter().sum();
    let mut left = 0;
    let mut best = None;
    let mut best_difference = usize::MAX;
    for cut in 1..sizes.len() {
        left += sizes[cut - 1];
        let right = total - left;
        let difference = left.abs_diff(right);
        if left <= capacity && right <= capacity && difference < best_difference {
            (best, best_difference) = (Some(cut), difference);
        }
    }
    best
}

/// Whether a leaf with `used_bytes` in use should take entries of a full neighbour: below four
/// sevenths. With a higher limit leaves get fuller (two thirds: 78 % of a page instead of 73 %),
/// but are rebuilt more often.
pub(crate) fn has_room_to_share(used_bytes: usize, capacity: usize) -> bool {
    used_bytes * 7 < capacity * 4
}

/// How to join a page that has few entries left with its neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Join {
    /// One page takes everything.
    Merge,
    /// Both stay; the first takes this many entries.
    Move(usize),
    /// Nothing would be gained.
    Leave,
}

/// Whether a page with `used_bytes` in use should be joined with a neighbour: below a third.
pub(crate) fn underfull(used_bytes: usize, capacity: usize) -> bool {
    used_bytes * 3 < capacity
}

/// How full a merged page may be, so that the next put does not split it again: three quarters.
fn merge_bytes(capacity: usize) -> usize {
    capacity / 4 * 3
}

/// Plans how to join two neighbouring leaves. `sizes` has the size of each entry of both leaves, in
/// order; `boundary` is the index of the first entry of the second leaf.
pub(crate) fn join_leaves(sizes: &[usize], boundary: usize, capacity: usize) -> Join {
    let total: usize = sizes.iter().sum();
    if total <= merge_bytes(capacity) {
        return Join::Merge;
    }
    let smaller = |cut: usize| {
        let left: usize = sizes[..cut].iter().sum();
        left.min(total - left)
    };
    match balanced_cut(sizes, capacity) {
        Some(cut) if cut != boundary && smaller(cut) > smaller(boundary) => Join::Move(cut),
        _ if total <= capacity => Join::Merge,
        _ => Join::Leave,
    }
}

/// Plans how to join two neighbouring branches. `weights` has the bytes of each child of both
/// branches, in order, without regard to prefixes; `boundary` is the index of the first child of
/// the second branch. `built_bytes` returns the size of a branch built from a range of the
/// children.
pub(crate) fn join_branches(
    weights: &[usize],
    boundary: usize,
    capacity: usize,
    built_bytes: impl Fn(Range<usize>) -> usize,
) -> Join {
    let all = built_bytes(0..weights.len());
    if all <= merge_bytes(capacity) {
        return Join::Merge;
    }
    let count = weights.len();
    let both_fit = |cut: usize| built_bytes(0..cut) <= capacity && built_bytes(cut..count) <= capacity;
    // A branch with one child must get another one. Otherwise rewrite a page only if that moves
    // enough children.
    let least = if boundary == 1 || boundary + 1 == count { 1 } else { (count / 8).max(1) };
    let mut cut = middle(weights, 0..count).unwrap_or(boundary);
    while cut.abs_diff(boundary) >= least {
        if both_fit(cut) {
            return Join::Move(cut);
        }
        // Moving up to the middle may need too much room, because a page whose children share a
        // shorter prefix gets larger. So halve the number of children to move until both pages fit;
        // moving a single child always fits.
        cut = if cut > boundary { boundary + (cut - boundary) / 2 } else { boundary - (boundary - cut) / 2 };
    }
    if all <= capacity {
        Join::Merge
    } else {
        Join::Leave
    }
}

/// Divides the children of a branch into groups that fit: one group if all fit, two at the
/// preferred cut if both fit, else halves of halves. More than two groups can be needed, because a
/// separator that does not share the common prefix makes all others longer.
pub(crate) fn group_children(
    weights: &[usize],
    preferred: Option<usize>,
    fits: impl Fn(Range<usize>) -> bool,
) -> Option<Vec<Range<usize>>> {
    let all = 0..weights.len();
    if all.is_empty() {
        return None;
    }
    if fits(all.clone()) {
        return Some(vec![all]);
    }
    if let (Some(cut), true) = (preferred, all.len() >= 4) {
        let cut = cut.clamp(2, all.len() - 2);
        if fits(0..cut) && fits(cut..all.len()) {
            return Some(vec![0..cut, cut..all.len()]);
        }
    }
    halve(weights, all, fits)
}

/// Divides children that were put in ascending order among branches. Each branch takes as many as
/// fit, so that only the last one has room; the last one gets at least two.
pub(crate) fn fill_groups(count: usize, fits: impl Fn(Range<usize>) -> bool) -> Option<Vec<Range<usize>>> {
    let (mut groups, mut start) = (Vec::new(), 0);
    while start < count {
        let mut end = start;
        while end < count && fits(start..end + 1) {
            end += 1;
        }
        if end == start {
            return None;
        }
        if end + 1 == count && end - start > 2 {
            end -= 1;
        }
        groups.push(start..end);
        start = end;
    }
    Some(groups)
}

/// Halves ranges until each fits. The stack holds at most one range per halving, and ranges only
/// get shorter.
fn halve(weights: &[usize], all: Range<usize>, fits: impl Fn(Range<usize>) -> bool) -> Option<Vec<Range<usize>>> {
    let mut groups = Vec::new();
    let mut open = vec![all];
    while let Some(range) = open.pop() {
        if fits(range.clone()) {
            groups.push(range);
            continue;
        }
        let cut = middle(weights, range.clone())?;
        open.push(cut..range.end);
        open.push(range.start..cut);
    }
    Some(groups)
}

/// The cut that halves the weight of a range; each side keeps two children where there are four or
/// more.
fn middle(weights: &[usize], range: Range<usize>) -> Option<usize> {
    if range.len() < 2 {
        return None;
    }
    let least = if range.len() >= 4 { 2 } else { 1 };
    let half = weights[range.clone()].iter().sum::<usize>() / 2;
    let mut left = 0;
    let mut cut = range.start;
    while cut < range.end && left + weights[cut] / 2 < half {
        left += weights[cut];
        cut += 1;
    }
    Some(cut.clamp(range.start + least, range.end - least))
}

/// The shortest separator between two keys: `left < separator <= right`. A beginning of `right`.
pub(crate) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    let shared = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    &right[..(shared + 1).min(right.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with every sequence of 0 to `length` values from `sizes`.
    fn every_sequence(sizes: &[usize], length: usize, visit: &mut dyn FnMut(&[usize])) {
        let mut digits = vec![0usize; length];
        for len in 0..=length {
            for number in 0..sizes.len().pow(len as u32) {
                let mut rest = number;
                for digit in digits.iter_mut().take(len) {
                    *digit = sizes[rest % sizes.len()];
                    rest /= sizes.len();
                }
                visit(&digits[..len]);
            }
        }
    }

    #[test]
    fn a_leaf_cut_fits_and_is_the_preferred_or_the_most_even_one() {
        every_sequence(&[1, 3, 6, 10], 6, &mut |sizes| {
            let total: usize = sizes.iter().sum();
            let ways: Vec<usize> =
                (1..sizes.len()).filter(|&cut| fits(&sizes[..cut], 20) && fits(&sizes[cut..], 20)).collect();
            for preferred in (0..=sizes.len() + 1).map(Some).chain([None]) {
                let cut = leaf_cut(sizes, 20, preferred);
                assert_eq!(cut.is_some(), !ways.is_empty());
                let Some(cut) = cut else { continue };
                assert!(ways.contains(&cut));
                let difference = |cut: usize| {
                    sizes[..cut].iter().sum::<usize>().abs_diff(total - sizes[..cut].iter().sum::<usize>())
                };
                if preferred.is_some_and(|p| ways.contains(&p)) {
                    assert_eq!(preferred, Some(cut));
                } else {
                    assert!(ways.iter().all(|&way| difference(way) >= difference(cut)));
                }
            }
        });
    }

    #[test]
    fn entries_within_the_limits_always_have_a_cut() {
        // One entry more than fits, none above half a page: there is always a cut in two.
        every_sequence(&[1, 4, 7, 10], 7, &mut |sizes| {
            let total: usize = sizes.iter().sum();
            let overfull_by_one = sizes.iter().any(|size| total - size <= 20);
            if sizes.len() > 1 && total > 20 && overfull_by_one {
                assert!(leaf_cut(sizes, 20, None).is_some(), "{sizes:?}");
            }
        });
    }

    #[test]
    fn joining_leaves_fits_and_makes_the_smaller_one_larger() {
        every_sequence(&[1, 3, 6, 10], 6, &mut |sizes| {
            for boundary in 1..sizes.len() {
                if !fits(&sizes[..boundary], 20) || !fits(&sizes[boundary..], 20) {
                    continue;
                }
                let smaller = |cut: usize| sizes[..cut].iter().sum::<usize>().min(sizes[cut..].iter().sum::<usize>());
                match join_leaves(sizes, boundary, 20) {
                    Join::Merge => assert!(fits(sizes, 20)),
                    Join::Move(cut) => {
                        assert!(cut > 0 && cut < sizes.len() && smaller(cut) > smaller(boundary));
                        assert!(fits(&sizes[..cut], 20) && fits(&sizes[cut..], 20));
                    }
                    Join::Leave => assert!(!fits(sizes, 20)),
                }
            }
        });
    }

    #[test]
    fn filled_groups_have_no_room_for_another_child_except_the_last() {
        every_sequence(&[1, 4, 5], 8, &mut |weights| {
            let fits = |range: Range<usize>| weights[range].iter().sum::<usize>() <= 20;
            let groups = fill_groups(weights.len(), fits).expect("each fits");
            let covered: Vec<usize> = groups.iter().cloned().flatten().collect();
            assert_eq!(covered, (0..weights.len()).collect::<Vec<_>>());
            for (at, group) in groups.iter().enumerate() {
                let for_last = at + 2 == groups.len() && weights.len() - group.end == 2;
                let is_full = group.end == weights.len() || !fits(group.start..group.end + 1) || for_last;
                assert!(fits(group.clone()) && is_full, "{weights:?}: {groups:?}");
                assert!(group.len() >= 2 || weights.len() < 4, "{weights:?}: {groups:?}");
            }
        });
        assert_eq!(fill_groups(2, |range| range.start > 0), None, "a child that never fits");
        assert_eq!(fill_groups(0, |_| false), Some(Vec::new()));
    }

    #[test]
    fn groups_cover_all_children_and_each_fits() {
        every_sequence(&[1, 4, 9], 8, &mut |weights| {
            for preferred in (0..=weights.len()).map(Some).chain([None]) {
                let fits = |range: Range<usize>| weights[range].iter().sum::<usize>() <= 20;
                let Some(groups) = group_children(weights, preferred, fits) else {
                    assert!(weights.is_empty());
                    continue;
                };
                assert_eq!(
                    groups.iter().cloned().flatten().collect::<Vec<_>>(),
                    (0..weights.len()).collect::<Vec<_>>()
                );
                assert!(groups.iter().all(|group| fits(group.clone()) && !group.is_empty()));
            }
        });
    }

    #[test]
    fn groups_have_at_least_two_children_if_any_four_fit() {
        every_sequence(&[1, 4, 5], 9, &mut |weights| {
            let fits = |range: Range<usize>| weights[range].iter().sum::<usize>() <= 20;
            if weights.len() >= 2 {
                let groups = group_children(weights, Some(weights.len()), fits).unwrap();
                assert!(groups.iter().all(|group| group.len() >= 2), "{weights:?} {groups:?}");
            }
        });
    }

    #[test]
    fn children_are_not_grouped_if_one_does_not_fit() {
        assert_eq!(group_children(&[1, 30, 1], None, |range| range.len() == 1 && range.start != 1), None);
        assert_eq!(group_children(&[], None, |_| true), None);
    }

    #[test]
    fn branches_join_when_they_fit() {
        every_sequence(&[1, 4, 9], 7, &mut |weights| {
            let bytes = |range: Range<usize>| weights[range].iter().sum::<usize>();
            for boundary in 1..weights.len() {
                let join = join_branches(weights, boundary, 20, bytes);
                let lone_child = boundary == 1 || boundary + 1 == weights.len();
                if lone_child && weights.len() > 3 && bytes(0..boundary) <= 20 && bytes(boundary..weights.len()) <= 20 {
                    assert!(join != Join::Leave && join != Join::Move(boundary), "{weights:?}");
                }
                match join {
                    Join::Merge => assert!(bytes(0..weights.len()) <= 20),
                    Join::Move(cut) => {
                        assert!(bytes(0..cut) <= 20 && bytes(cut..weights.len()) <= 20 && cut != boundary)
                    }
                    Join::Leave => assert!(bytes(0..weights.len()) > 20),
                }
            }
        });
    }

    #[test]
    fn a_separator_is_the_shortest_one_between_its_keys() {
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        for len in 1..=3u32 {
            for number in 0..3usize.pow(len) {
                keys.push((0..len).map(|i| [0, 1, 255][number / 3usize.pow(i) % 3]).collect());
            }
        }
        for left in &keys {
            for right in keys.iter().filter(|right| *right > left) {
                let found = separator(left, right);
                assert!(left.as_slice() < found && found <= right.as_slice());
                let shorter = keys.iter().filter(|k| k.len() < found.len());
                assert!(shorter.into_iter().all(|k| k <= left || k > right));
            }
        }
    }

    #[test]
    fn sequential_puts_cut_beside_the_new_entry() {
        assert_eq!(preferred_cut(Pattern::Ascending, 4, 5), Some(4));
        assert_eq!(preferred_cut(Pattern::Ascending, 2, 5), Some(3));
        assert_eq!(preferred_cut(Pattern::Descending, 0, 5), Some(1));
        assert_eq!(preferred_cut(Pattern::Descending, 2, 5), Some(2));
        assert_eq!(preferred_cut(Pattern::Random, 2, 5), None);
    }
}
