//! Lookups without any protection, to measure what the protection costs.
//!
//! Floor: testing. Reads the pages of a snapshot in the mapping without verified bytes, checksums
//! and [`PageRead::all_served`]. All other steps are those of [`ReadTable::get`].

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::mapping::VerifiedPages;
use crate::page::layout::Front;
use crate::page::meta::TreeRoot;
use crate::pager::{PageRead, Residency};
use crate::table::codec::Codec as _;
use crate::table::ReadTable;
use crate::tree::{self, FlatIndex, Tree};

struct BarePages(VerifiedPages);

fn outside(id: PageId) -> Error {
    Error::corrupt(id, "outside of the mapping")
}

impl Residency for BarePages {}

impl PageRead for BarePages {
    #[inline]
    fn page_size(&self) -> usize {
        1 << self.0.page_shift()
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.0.any(ptr.id).ok_or_else(|| outside(ptr.id))
    }

    #[inline(always)]
    fn page_fast(&self, ptr: PagePtr) -> Option<&[u8]> {
        self.0.any(ptr.id)
    }

    #[inline(always)]
    fn front_fast(&self, ptr: PagePtr) -> Option<&Front> {
        self.0.any_front(ptr.id)
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        let shift = self.0.page_shift();
        self.0.read_map().bytes(ptr.id.0 << shift, (pages << shift) as usize).ok_or_else(|| outside(ptr.id))
    }
}

/// A table whose lookups check nothing.
pub struct BareTable {
    pages: BarePages,
    root: TreeRoot,
    flat_index: OnceLock<Option<Box<FlatIndex>>>,
}

impl BareTable {
    /// A table with the entries of `table`, which must live as long, because nothing else keeps its
    /// snapshot.
    pub fn of(table: &ReadTable<&'static [u8], &'static [u8]>) -> BareTable {
        let (env, state) = (table.txn().env(), table.txn().state());
        let pages = VerifiedPages::new(env.mapping.read_map(), env.page_size.trailing_zeros(), state.page_count);
        let pages = BarePages(pages);
        let flat_index =
            FlatIndex::build(Tree::new(&pages, table.root()), tree::PAGES_MAX[1]).unwrap_or(None).map(Box::new);
        BareTable { pages, root: *table.root(), flat_index: OnceLock::from(flat_index) }
    }

    /// The value of a key.
    #[inline(always)]
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        let encoded = <&[u8]>::encode(&key)?;
        let key: &[u8] = &encoded;
        let flat_index = self.flat_index.get().and_then(|made| made.as_deref());
        if let Some(answer) = Tree::new(&self.pages, &self.root).get_fast(flat_index, key) {
            match answer.value().map(<&[u8]>::decode) {
                None => return Ok(None),
                Some(Ok(value)) => return Ok(Some(value)),
                Some(Err(_)) => {}
            }
        }
        self.get_checked(key)
    }

    #[cold]
    #[inline(never)]
    fn get_checked(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        Tree::new(&self.pages, &self.root).get_checked(key)
    }
}
