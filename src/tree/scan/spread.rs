//! How the entries of a tree are spread over it: estimates of ranges, and keys that divide it.
//!
//! Floor: tree. Reads only branches. A branch does not say how many entries lie below it, so this
//! module counts leaves, and takes all leaves for equally full.
//!
//! Invariants:
//!   SPREAD-1  `least` of a range never exceeds its entries, and `most` is never below them: every
//!       leaf has an entry, and only leaves count that lie below a branch that was read.
//!   SPREAD-2  separators ascend, and every key of the tree lies on one side of each.
//!   SPREAD-3  the branches that are read are bounded: for an estimate a few hundred on each of
//!       both ways down, for `separators` a few dozen for each part.
//!
//! Failure: a damaged branch is `Error::Corrupt`. Damage of leaves is not noticed.

use std::ops::Bound;

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::branch::Branch;
use crate::pager::{Around, PageRead};

use crate::tree::long_key::whole_separator;
use crate::tree::path::{branch_at, height_of};
use crate::tree::Tree;

/// Children of a branch that are read to learn how many leaves lie below each.
const SAMPLED: usize = 64;
/// Grandchildren and later descendants of a branch that are read below each of those children.
const SAMPLED_BELOW: usize = 2;
/// Subtrees that make up each part, if the tree has as many.
const SUBTREES_OF_PART: usize = 16;

/// Entries of a range: an estimate, and what is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) entries: u64,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

/// Leaves below a page.
#[derive(Clone, Copy, Debug, Default)]
struct Leaves {
    estimate: f64,
    /// So many there are at least.
    least: u64,
}

impl std::iter::Sum for Leaves {
    fn sum<I: Iterator<Item = Leaves>>(all: I) -> Leaves {
        all.fold(Leaves::default(), |sum, leaves| sum.plus(leaves))
    }
}

impl Leaves {
    /// A leaf, or a page of which nothing else is known.
    const ONE: Leaves = Leaves { estimate: 1.0, least: 1 };

    fn plus(self, other: Leaves) -> Leaves {
        Leaves { estimate: self.estimate + other.estimate, least: self.least.saturating_add(other.least) }
    }

    fn scaled(self, scale: f64) -> Leaves {
        Leaves { estimate: self.estimate * scale, ..self }
    }
}

impl<'p, P: PageRead> Tree<'p, P> {
    /// Estimates the entries between two bounds.
    pub(crate) fn estimate(self, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Spread> {
        let all = self.root.entries;
        let exactly = |entries| Spread { entries, least: entries, most: entries };
        match (low, high) {
            (Bound::Unbounded, Bound::Unbounded) => return Ok(exactly(all)),
            (Bound::Included(low), Bound::Included(high)) if self.root.order.compare(low, high).is_eq() => {
                return Ok(Spread { entries: all.min(1), least: 0, most: all.min(1) });
            }
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high))
                if self.root.order.compare(low, high).is_ge() =>
            {
                return Ok(exactly(0));
            }
            _ if self.is_empty() => return Ok(exactly(0)),
            _ => {}
        }
        let (low, high) = (self.descent(low)?, self.descent(high)?);
        let (before, after) = (before(&low), after(&high));
        let (inside, edges) = between(&low, &high);
        let most = all.saturating_sub(before.least).saturating_sub(after.least);
        let least = inside.least.min(most);
        // Half of a leaf in which a bound lies, on average.
        let leaves = inside.estimate + 0.5 * edges;
        let total = low.first().or(high.first()).map_or(1.0, |step| step.total().estimate);
        let entries = (all as f64 * leaves / total).round() as u64;
        Ok(Spread { entries: entries.clamp(least, most), least, most })
    }

    /// The way to the leaf of a bound: empty if there is no bound, or no branch.
    fn descent(self, bound: Bound<&[u8]>) -> Result<Vec<Step>> {
        let (Bound::Included(key) | Bound::Excluded(key)) = bound else { return Ok(Vec::new()) };
        let mut ptr = self.root.ptr;
        let mut steps = Vec::new();
        for level in (1..height_of(self.root)?).rev() {
            let branch = branch_at(self.pages, ptr, level)?;
            let at = branch.find_in(self.root.order, self.pages, key)?;
            steps.push(Step { children: children(self.pages, &branch, level)?, at });
            ptr = branch.child(at)?;
        }
        Ok(steps)
    }

    /// Up to `parts - 1` separators that divide the tree into parts of nearly as many subtrees.
    pub(crate) fn separators(self, parts: usize) -> Result<Vec<Vec<u8>>> {
        if self.is_empty() || parts < 2 {
            return Ok(Vec::new());
        }
        let enough = parts.saturating_mul(SUBTREES_OF_PART);
        let mut above = vec![(Vec::new(), self.root.ptr)];
        for level in (1..height_of(self.root)?).rev() {
            let mut count = 0;
            for (_, ptr) in &above {
                count += branch_at(self.pages, *ptr, level)?.count();
            }
            if level == 1 || count >= enough {
                return self.divide(&above, level, count, parts.min(count));
            }
            above = self.level_below(&above, level)?;
        }
        Ok(Vec::new())
    }

    /// The separators before every `count / parts`th child of some branches.
    fn divide(self, above: &[Subtree], level: usize, count: usize, parts: usize) -> Result<Vec<Vec<u8>>> {
        let mut separators = Vec::with_capacity(parts - 1);
        let place = |part: usize| (part as u128 * count as u128 / parts as u128) as usize;
        let (mut start, mut part) = (0, 1);
        for (first, ptr) in above {
            let branch = branch_at(self.pages, *ptr, level)?;
            while part < parts && place(part) < start + branch.count() {
                separators.push(separator_of(self.pages, first, &branch, place(part) - start)?);
                part += 1;
            }
            start += branch.count();
        }
        Ok(separators)
    }

    /// The children of branches, which have branches below them.
    fn level_below(self, above: &[Subtree], level: usize) -> Result<Vec<Subtree>> {
        let mut below = Vec::new();
        for (first, ptr) in above {
            let branch = branch_at(self.pages, *ptr, level)?;
            for at in 0..branch.count() {
                below.push((separator_of(self.pages, first, &branch, at)?, branch.child(at)?));
            }
        }
        request(self.pages, below.iter().map(|(_, ptr)| *ptr));
        Ok(below)
    }
}

/// A page and the separator before it.
type Subtree = (Vec<u8>, PagePtr);

/// The separator before a child of a branch, before which `first` stands.
fn separator_of<P: PageRead>(pages: &P, first: &[u8], branch: &Branch<'_>, at: usize) -> Result<Vec<u8>> {
    match at {
        0 => Ok(first.to_vec()),
        at => whole_separator(pages, branch, at),
    }
}

/// A branch on the way to a leaf.
struct Step {
    /// The leaves below each child.
    children: Vec<Leaves>,
    /// The child of the way.
    at: usize,
}

impl Step {
    fn total(&self) -> Leaves {
        self.children.iter().copied().sum()
    }

    /// The leaves below some of the children.
    fn leaves(&self, children: std::ops::Range<usize>) -> Leaves {
        self.children.get(children).unwrap_or(&[]).iter().copied().sum()
    }
}

/// The leaves before the leaf to which a way leads, or after it. Empty ways lead past all leaves.
fn beside(steps: &[Step], which: impl Fn(&Step) -> std::ops::Range<usize>) -> Leaves {
    let (mut sum, mut scale) = (Leaves::default(), 1.0);
    for (depth, step) in steps.iter().enumerate() {
        sum = sum.plus(step.leaves(which(step)).scaled(scale));
        // The branch itself knows better than its parent how many leaves it has. Below one parent,
        // sums by the parent's estimates are consistent.
        let below = steps.get(depth + 1).map_or(1.0, |next| next.total().estimate);
        scale *= step.children.get(step.at).map_or(1.0, |child| child.estimate) / below;
    }
    sum
}

fn before(steps: &[Step]) -> Leaves {
    beside(steps, |step| 0..step.at)
}

fn after(steps: &[Step]) -> Leaves {
    beside(steps, |step| step.at + 1..step.children.len())
}

/// The leaves between the ends of two ways, and how many leaves have a bound in them.
fn between(low: &[Step], high: &[Step]) -> (Leaves, f64) {
    let (Some(_), Some(_)) = (low.first(), high.first()) else {
        return (before(high).plus(after(low)), 1.0);
    };
    let Some(apart) = low.iter().zip(high).position(|(low, high)| low.at != high.at) else {
        return (Leaves::default(), 1.0);
    };
    let (from, to) = (&low[apart], &high[apart]);
    let scale =
        |steps: &[Step], child: Leaves| steps.first().map_or(1.0, |step| child.estimate / step.total().estimate);
    let (below_low, below_high) = (&low[apart + 1..], &high[apart + 1..]);
    let inside = from
        .leaves(from.at + 1..to.at)
        .plus(after(below_low).scaled(scale(below_low, from.children[from.at])))
        .plus(before(below_high).scaled(scale(below_high, to.children[to.at])));
    (inside, 2.0)
}

/// The leaves below each child of a branch: read for up to [`SAMPLED`] children that are spread
/// over all, and their mean for the others.
fn children<P: PageRead>(pages: &P, branch: &Branch<'_>, level: usize) -> Result<Vec<Leaves>> {
    let count = branch.count();
    if level == 1 {
        return Ok(vec![Leaves::ONE; count]);
    }
    let ptrs = places(count, SAMPLED).map(|at| Ok(branch.child(at)?)).collect::<Result<Vec<PagePtr>>>()?;
    request(pages, ptrs.iter().copied());
    let found = ptrs.iter().map(|ptr| leaves_below(pages, *ptr, level - 1)).collect::<Result<Vec<Leaves>>>()?;
    let mean = found.iter().map(|leaves| leaves.estimate).sum::<f64>() / found.len() as f64;
    let mut children = vec![Leaves { estimate: mean, least: 1 }; count];
    for (at, leaves) in places(count, SAMPLED).zip(found) {
        children[at] = leaves;
    }
    Ok(children)
}

/// The leaves below a branch: its children times what a few of them have, and so on down.
fn leaves_below<P: PageRead>(pages: &P, ptr: PagePtr, level: usize) -> Result<Leaves> {
    let (mut leaves, mut sample) = (Leaves::ONE, vec![ptr]);
    for level in (1..=level).rev() {
        let (mut count, mut below) = (0, Vec::new());
        for ptr in &sample {
            let branch = branch_at(pages, *ptr, level)?;
            count += branch.count();
            if level > 1 {
                for at in places(branch.count(), SAMPLED_BELOW) {
                    below.push(branch.child(at)?);
                }
            }
        }
        if sample == [ptr] {
            leaves.least = count as u64;
        }
        leaves.estimate *= count as f64 / sample.len() as f64;
        sample = below;
    }
    Ok(leaves)
}

/// Up to `wanted` different numbers below `count`, evenly spread.
fn places(count: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(count);
    (0..wanted).map(move |nth| (2 * nth + 1) * count / (2 * wanted))
}

/// Starts reading the pages that are not in memory.
fn request<P: PageRead>(pages: &P, ptrs: impl Iterator<Item = PagePtr>) {
    if !pages.reads_ahead() {
        return;
    }
    let mut wanted: Vec<_> = ptrs.map(|ptr| ptr.id).filter(|id| !pages.is_known(*id)).collect();
    if !wanted.is_empty() {
        pages.request(&mut wanted, Around::None);
    }
}
