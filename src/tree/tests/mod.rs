//! Tests of the tree over a `Vec` of pages that forgives nothing.

mod cursors;
mod damage;
mod model;
pub(crate) mod pages;
mod shapes;
mod spread;

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::*;
use crate::ids::{PageId, TreeId};
use crate::page::header::{Header, PageKind};
use crate::page::leaf::LeafValue;
use crate::pager::PageRead as _;
use crate::tree::verify::check::{TreeStats, Visit};
use pages::VecPages;

/// A tree and the map that it must equal.
#[derive(Clone)]
struct ModelTree {
    pages: VecPages,
    root: TreeRoot,
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    put_hint: PutHint,
    append_hint: AppendHint,
    /// The flat index of the leaves in the state before, renewed since the first one.
    flat_index: Option<Rc<FlatIndex>>,
}

impl ModelTree {
    fn new(page_size: usize) -> ModelTree {
        ModelTree {
            pages: VecPages::new(page_size),
            root: TreeRoot { tree: TreeId(16), ..TreeRoot::default() },
            model: BTreeMap::new(),
            put_hint: PutHint::default(),
            append_hint: AppendHint::default(),
            flat_index: None,
        }
    }

    fn handle(&self) -> Tree<'_, VecPages> {
        Tree::new(&self.pages, &self.root)
    }

    fn handle_mut(&mut self) -> TreeMut<'_, VecPages> {
        TreeMut::new(&mut self.pages, &mut self.root)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.append_hint = AppendHint::default();
        let mut old = vec![1, 2, 3];
        let existed =
            TreeMut::new(&mut self.pages, &mut self.root).put(key, value, &mut self.put_hint, Some(&mut old)).unwrap();
        let expected = self.model.insert(key.to_vec(), value.to_vec());
        assert_eq!(existed, expected.is_some());
        if let Some(expected) = expected {
            assert!(old == expected, "the old value is given");
        }
        assert_eq!(self.root.entries, self.model.len() as u64);
    }

    fn delete(&mut self, key: &[u8]) {
        self.append_hint = AppendHint::default();
        let mut old = vec![1, 2, 3];
        let existed = self.handle_mut().delete(key, Some(&mut old)).unwrap();
        let expected = self.model.remove(key);
        assert_eq!(existed, expected.is_some());
        if let Some(expected) = expected {
            assert!(old == expected, "the old value is given");
        }
        assert_eq!(self.root.entries, self.model.len() as u64);
    }

    fn remove_range(&mut self, low: &[u8], high: Option<&[u8]>) {
        self.append_hint = AppendHint::default();
        let removed = self.handle_mut().remove_range(Some(low), high, &mut |_| Ok(())).unwrap();
        let before = self.model.len();
        self.model.retain(|key, _| key.as_slice() < low || high.is_some_and(|high| key.as_slice() >= high));
        assert_eq!(removed, (before - self.model.len()) as u64);
        assert_eq!(self.root.entries, self.model.len() as u64);
    }

    /// Removes the entries of a range that `keep` rejects. Ends after `most` entries: whole leaves,
    /// or single entries if `one_by_one`.
    fn retain(
        &mut self,
        (low, high): (&[u8], Option<&[u8]>),
        keep: &dyn Fn(&[u8]) -> bool,
        most: usize,
        one_by_one: bool,
    ) {
        self.append_hint = AppendHint::default();
        let (mut sift, mut judged, mut gone) = (Sift::new(Some(low), high), Vec::new(), Vec::new());
        let ModelTree { pages, root, model, .. } = self;
        let mut count = 0;
        while judged.len() < most {
            if one_by_one {
                match sift.peek(Tree::new(pages, root)).unwrap() {
                    Sifted::Entry((key, value)) => {
                        assert!(model[key] == value);
                        judged.push(key.to_vec());
                        let keep = keep(key);
                        sift.judge(keep);
                        continue;
                    }
                    Sifted::LeafDone => {}
                    Sifted::Done => break,
                }
            } else if !sift
                .judge_leaf(Tree::new(pages, root), &mut |key, value| {
                    assert!(model[key] == value);
                    judged.push(key.to_vec());
                    Ok(keep(key))
                })
                .unwrap()
            {
                break;
            }
            count += sift.apply(TreeMut::new(pages, root), &mut |key| gone.push(key.to_vec())).unwrap();
        }
        count += sift.finish(TreeMut::new(pages, root), &mut |key| gone.push(key.to_vec())).unwrap();
        assert!(!sift.is_unfinished());
        let inside = |key: &[u8]| key >= low && high.is_none_or(|high| key < high);
        let expected: Vec<&Vec<u8>> = model.keys().filter(|key| inside(key)).take(judged.len()).collect();
        assert!(judged.iter().eq(expected), "every entry is judged once, in order");
        assert!(judged.len() >= most || judged.len() == model.keys().filter(|key| inside(key)).count());
        let expected: Vec<Vec<u8>> = judged.iter().filter(|key| !keep(key)).cloned().collect();
        assert_eq!(gone, expected);
        assert_eq!(count, gone.len() as u64);
        gone.iter().for_each(|key| drop(model.remove(key)));
        assert_eq!(root.entries, model.len() as u64);
    }

    /// Appends if the key is above all, and makes sure that the call is refused otherwise.
    fn append(&mut self, key: &[u8], value: &[u8]) {
        let before = self.root;
        let result = TreeMut::new(&mut self.pages, &mut self.root).append(key, value, &mut self.append_hint);
        if self.model.last_key_value().is_some_and(|(last, _)| last.as_slice() >= key) {
            assert_eq!(result.unwrap_err().kind(), crate::error::ErrorKind::Usage);
            assert_eq!(self.root, before);
        } else {
            result.unwrap();
            self.model.insert(key.to_vec(), value.to_vec());
        }
    }

    /// Sorts entries and merges them, or builds the tree of them if there is none.
    fn load(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>) {
        self.append_hint = AppendHint::default();
        let mut run = SortedRun::default();
        for (key, value) in &entries {
            run.push(key, store(&mut self.pages, self.root.tree, value).unwrap()).unwrap();
        }
        run.sort().into_iter().for_each(|gone| free_extent(&mut self.pages, gone).unwrap());
        if self.root.height > 0 {
            self.handle_mut().merge(&mut run, &mut |_| Ok(())).unwrap();
            assert!(run.is_empty());
        }
        self.build(&mut run);
        self.model.extend(entries);
        assert_eq!(self.root.entries, self.model.len() as u64);
    }

    /// Builds leaves of entries with inline values that ascend, after all others.
    fn load_after_all(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>) {
        self.append_hint = AppendHint::default();
        let mut run = SortedRun::default();
        entries.iter().for_each(|(key, value)| run.push(key, LeafValue::Inline(value)).unwrap());
        self.build(&mut run);
        self.model.extend(entries);
        assert_eq!(self.root.entries, self.model.len() as u64);
    }

    fn build(&mut self, run: &mut SortedRun) {
        let mut bulk = Bulk::begin(self.handle()).unwrap();
        while let Some((key, value)) = run.peek() {
            assert!(bulk.is_after_all(self.handle(), key).unwrap());
            bulk.push(self.handle_mut(), key, value).unwrap();
            run.step();
        }
        bulk.finish(self.handle_mut()).unwrap();
    }

    fn get(&self, key: &[u8]) {
        let found = self.handle().get(key).unwrap();
        assert!(found == self.model.get(key).map(Vec::as_slice), "get of {key:?}");
    }

    /// Seals and commits.
    fn commit(&mut self) {
        seal_after_puts(&mut self.pages, &mut self.root, &self.put_hint).unwrap();
        self.pages.commit();
        self.put_hint = PutHint::default();
        self.append_hint = AppendHint::default();
    }

    /// Commits, then proves that tree, model and page accounting agree.
    fn verify(&mut self) -> TreeStats {
        self.commit();
        let stats = check_clean(&self.pages, &self.root);
        assert_eq!(stats.entries, self.model.len() as u64);
        let mut cursor = Cursor::new(self.handle());
        for (key, value) in &self.model {
            assert!(cursor.next().unwrap() == Some((key, value)), "forwards at {key:?}");
        }
        assert!(cursor.next().unwrap().is_none());
        for (key, value) in self.model.iter().rev() {
            assert!(cursor.prev().unwrap() == Some((key, value)), "backwards at {key:?}");
        }
        assert!(cursor.prev().unwrap().is_none());
        self.renew_flat_index();
        self.get_many();
        stats
    }

    /// Renews the flat index of the state before. It must have the pages of one that is built.
    fn renew_flat_index(&mut self) {
        let built = FlatIndex::build(self.handle(), PAGES_MAX[1]).unwrap();
        let before = self.flat_index.take();
        let renewed = before.as_ref().and_then(|before| before.renew(self.handle(), PAGES_MAX[1]).unwrap());
        if let Some(renewed) = &renewed {
            let built = built.as_ref().expect("what can be renewed can be built");
            let pages = |flat_index: &FlatIndex| (0..).map_while(|at| flat_index.page(at)).collect::<Vec<_>>();
            assert_eq!((renewed.level(), pages(renewed)), (0, pages(built)));
        }
        self.flat_index = renewed.or(built).map(Rc::new);
    }

    /// All keys at once, and a neighbour of each that is mostly absent.
    fn get_many(&self) {
        let behind: Vec<Vec<u8>> = self.model.keys().rev().map(|key| [key, &[0][..]].concat()).collect();
        let keys: Vec<&[u8]> = self.model.keys().zip(&behind).flat_map(|(key, behind)| [&key[..], behind]).collect();
        let flat_indexes = [2, 9, PAGES_MAX[1]].map(|pages_max| FlatIndex::build(self.handle(), pages_max).unwrap());
        let all = flat_indexes.iter().map(Option::as_ref).chain([self.flat_index.as_deref(), None]);
        for flat_index in all {
            let mut found = Vec::new();
            self.handle()
                .get_many(flat_index, &keys, |value| {
                    found.push(value);
                    Ok(())
                })
                .unwrap();
            assert_eq!(found.len(), keys.len());
            for (key, found) in keys.iter().zip(found) {
                assert!(found == self.model.get(*key).map(Vec::as_slice), "{key:?} among many");
                let at_once = self.handle().get_fast(flat_index, key);
                match at_once {
                    Some(answer) => assert!(answer.value() == found, "{key:?} at once"),
                    // Absent keys with the head of another one, and values in overflow extents,
                    // need not be looked up again.
                    None => {
                        let short = crate::limits::long_key_inline_bytes(4096);
                        let rare = self.pages.page_size() > 4096 || !(4..short).contains(&key.len());
                        assert!(rare, "{key:?} is not found at once");
                    }
                }
                assert!(self.handle().get_checked(key).unwrap() == found);
            }
        }
    }
}

/// All findings of a check, the pages that it reached, and what it counted.
fn check_all(pages: &VecPages, root: &TreeRoot) -> (Vec<Finding>, HashSet<PageId>, TreeStats) {
    let mut reached = HashSet::new();
    let mut findings = Vec::new();
    let mut visit = |id: PageId, pages: u64| match (0..pages.min(1 << 16)).all(|at| reached.insert(PageId(id.0 + at))) {
        true => Visit::First,
        false => Visit::Again,
    };
    let stats = check(pages, root, &mut visit, &mut |finding| findings.push(finding));
    (findings, reached, stats)
}

/// Nothing is found, and the pages reached are exactly those in use.
fn check_clean(pages: &VecPages, root: &TreeRoot) -> TreeStats {
    let (findings, reached, stats) = check_all(pages, root);
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(reached, pages.in_use(), "reachable + free = all");
    let header = |id: &PageId| Header::read(pages.raw(*id), *id);
    let branches = reached.iter().filter_map(|id| header(id).ok()).filter(|header| header.kind == PageKind::Branch);
    assert!(branches.into_iter().all(|header| header.count > 1), "every branch has two children");
    assert_eq!(reached.len() as u64, stats.leaf_pages + stats.branch_pages + stats.overflow_pages);
    let mut measured = HashSet::new();
    let mut visit = |id: PageId, pages: u64| (0..pages).all(|at| measured.insert(PageId(id.0 + at)));
    assert_eq!((measure(pages, root, &mut visit).unwrap(), measured), (stats, reached), "measured like checked");
    stats
}

/// A key that starts with this number, as long as asked.
fn long_key(number: u32, len: usize) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.resize(len, b'k');
    key
}

#[test]
fn an_empty_tree_has_no_entries_and_no_levels() {
    let mut tree = ModelTree::new(4096);
    tree.get(b"");
    tree.delete(b"");
    assert!(tree.handle().first().unwrap().is_none() && tree.handle().last().unwrap().is_none());
    let stats = tree.verify();
    assert_eq!((stats.depth, tree.root.height), (0, 0));
}

#[test]
fn a_tree_is_empty_again_after_its_only_entry_was_deleted() {
    let mut tree = ModelTree::new(4096);
    tree.put(b"", b"");
    tree.get(b"");
    tree.get(b"a");
    tree.verify();
    tree.put(b"", b"other");
    tree.get(b"");
    tree.verify();
    tree.delete(b"");
    assert_eq!(tree.root.height, 0);
    tree.verify();
}

#[test]
fn sizes_over_the_limits_are_refused() {
    let mut tree = ModelTree::new(4096);
    let limit = crate::limits::MAX_KEY_BYTES;
    let key = vec![7; limit + 1];
    tree.put(&key[..limit], b"fits");
    let before = tree.root;
    let e = tree.handle_mut().put(&key, b"", &mut PutHint::default(), None).unwrap_err();
    assert!(e.to_string().contains("65537") && e.to_string().contains("65536"), "{e}");
    let e = tree.handle_mut().append(&key, b"", &mut AppendHint::default()).unwrap_err();
    assert_eq!(e.kind(), crate::error::ErrorKind::TooLarge);
    assert_eq!(tree.root, before);
    tree.verify();
}

#[test]
fn values_move_between_leaf_and_overflow_extent() {
    let limit = crate::limits::max_inline_value_bytes(4096);
    let mut tree = ModelTree::new(4096);
    tree.put(b"beside", b"x");
    let mut overflow_pages = Vec::new();
    for len in [0, limit, limit + 1, 4096 - 32, 4096 - 31, 3 * 4096, 10, 100_000, limit] {
        tree.put(b"key", &vec![len as u8; len]);
        overflow_pages.push(tree.verify().overflow_pages);
        tree.get(b"key");
    }
    assert_eq!(overflow_pages, [0, 0, 1, 1, 2, 4, 0, 25, 0]);
    tree.put(b"key", &[1; 9000]);
    tree.delete(b"key");
    assert_eq!(tree.verify().overflow_pages, 0);
}

#[test]
fn dropping_frees_every_page() {
    let mut tree = ModelTree::new(4096);
    for number in 0..300 {
        tree.put(&long_key(number, 300), &vec![1; if number % 7 == 0 { 5000 } else { 10 }]);
    }
    tree.commit();
    tree.put(&long_key(500, 10), &[2; 20_000]);
    drop_tree(&mut tree.pages, &mut tree.root).unwrap();
    tree.model.clear();
    assert_eq!((tree.root.height, tree.root.tree), (0, TreeId(16)));
    tree.verify();
    assert!(tree.pages.in_use().is_empty());
}

#[test]
fn a_sealed_tree_can_be_changed_and_sealed_again() {
    let mut tree = ModelTree::new(4096);
    for number in 0..500 {
        tree.put(&long_key(number * 2, 100), b"value");
    }
    seal(&mut tree.pages, &mut tree.root).unwrap();
    for number in (0..500).step_by(50) {
        tree.put(&long_key(number * 2 + 1, 100), b"value");
    }
    tree.verify();
}

#[test]
fn an_aborted_transaction_leaves_the_committed_tree() {
    let mut tree = ModelTree::new(4096);
    for number in 0..200 {
        tree.put(&long_key(number, 200), b"value");
    }
    tree.commit();
    let (root, model) = (tree.root, tree.model.clone());
    for number in 0..400 {
        tree.put(&long_key(number, 200), &[9; 3000]);
        tree.delete(&long_key(number / 2, 200));
    }
    tree.pages.abort();
    (tree.root, tree.model) = (root, model);
    tree.verify();
}
