//! Meta pages: the root record of the database.
//!
//! Floor: page. Pages 0 and 1 are the two slots. Each holds its record twice, at the start and in
//! the middle of the page, so in different sectors: a flipped bit damages one copy, an interrupted
//! write may damage both, so the two can be told apart. A slot is bad only if both copies are.
//!
//! The page size is a field of the record, so [`probe`] looks for copies at the offsets of every
//! page size.
//!
//! Failure: [`MetaPageError`] says why a copy is not usable. `Version` and `RequiredFeature` mean
//! an intact copy of a newer release, which must not be reported as damage.

use super::layout::{get_u32, get_u48, get_u64, meta as at, put_u32, put_u48, put_u64, TREE_ROOT_BYTES};
use super::order::Order;
use super::value_set::Shape;
use crate::ids::{PageId, PagePtr, TreeId, TxnId, MAX_U48};
use crate::limits::{page_size_ok, DEPTH_MAX, PAGE_SIZE_MAX, PAGE_SIZE_MIN};

/// The format version that this build reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Required features: bits of [`MetaPage::required`]. A state has the bit of a feature once a state
/// before it, or itself, has used the feature.
pub(crate) mod features {
    /// Tables with several values per key.
    pub(crate) const MULTIMAP: u64 = 1;
    /// Long keys: pages with the flag for them.
    pub(crate) const LONG_KEYS: u64 = 1 << 1;
    /// Tables whose keys are not in bytewise order.
    pub(crate) const KEY_ORDERS: u64 = 1 << 2;
    /// Named snapshots. Only states that have some have this bit.
    pub(crate) const SNAPSHOTS: u64 = 1 << 3;
}
/// Required feature bits that this build knows. A file with other bits is refused.
pub(crate) const KNOWN_REQUIRED: u64 =
    features::MULTIMAP | features::KEY_ORDERS | features::LONG_KEYS | features::SNAPSHOTS;

/// The root of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct TreeRoot {
    /// The root page; [`PageId::NONE`] if the tree is empty.
    pub(crate) ptr: PagePtr,
    /// Levels: 0 for an empty tree, 1 for a single leaf.
    pub(crate) height: u8,
    pub(crate) entries: u64,
    pub(crate) tree: TreeId,
    /// How the entries store values. Not in a meta page, which names no multimap.
    pub(crate) shape: Shape,
    /// The order of the keys. Not in a meta page, whose trees are bytewise.
    pub(crate) order: Order,
    /// Values of all keys of a multimap, which has an entry for each key; 0 in other trees.
    pub(crate) pairs: u64,
}

impl TreeRoot {
    /// An empty tree.
    pub(crate) fn empty(tree: TreeId) -> TreeRoot {
        TreeRoot { tree, ..TreeRoot::default() }
    }

    /// Bytes of each value, if the leaves of the tree are packed.
    pub(crate) fn packed_width(&self) -> Option<usize> {
        match self.shape {
            Shape::Packed(width) => Some(usize::from(width)),
            _ => None,
        }
    }

    /// The root as bytes of the file.
    pub(crate) fn encode(&self) -> [u8; TREE_ROOT_BYTES] {
        let mut bytes = [0; TREE_ROOT_BYTES];
        put_ptr(&mut bytes, 0, self.ptr);
        bytes[10] = self.height;
        put_u64(&mut bytes, 12, self.entries);
        put_u32(&mut bytes, 20, self.tree.0);
        bytes
    }

    /// Decodes a root. `None` if it is invalid: wrong length, too many levels, a root page without
    /// levels, or levels without a root page.
    pub(crate) fn decode(bytes: &[u8]) -> Option<TreeRoot> {
        if bytes.len() != TREE_ROOT_BYTES {
            return None;
        }
        let root = TreeRoot {
            ptr: get_ptr(bytes, 0),
            height: bytes[10],
            entries: get_u64(bytes, 12),
            tree: TreeId(get_u32(bytes, 20)),
            ..TreeRoot::default()
        };
        let consistent = match root.height {
            0 => root.ptr.id.is_none() && root.entries == 0,
            height => usize::from(height) <= DEPTH_MAX && root.ptr.id.0 >= 2,
        };
        consistent.then_some(root)
    }
}

fn put_ptr(bytes: &mut [u8], at: usize, ptr: PagePtr) {
    put_u48(bytes, at, ptr.id.0);
    put_u32(bytes, at + 6, ptr.crc);
}

fn get_ptr(bytes: &[u8], at: usize) -> PagePtr {
    PagePtr { id: PageId(get_u48(bytes, at)), crc: get_u32(bytes, at + 6) }
}

/// A pointer to an extent; `pages` is 0 if there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ExtentPtr {
    pub(crate) ptr: PagePtr,
    pub(crate) pages: u64,
}

/// The commit log as a meta page describes it: its extent, and the position where replay starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogDescriptor {
    /// First page of the extent; [`PageId::NONE`] if there is no log.
    pub(crate) first: PageId,
    pub(crate) pages: u64,
    pub(crate) epoch: u64,
    /// Position of the first record that the state does not contain. Positions only grow; the
    /// byte at a position lies at its remainder by the length of the extent.
    pub(crate) start: u64,
    /// Checksum that the record at `start` continues.
    pub(crate) chain: u32,
}

/// The root record of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MetaPage {
    pub(crate) page_size: u32,
    pub(crate) required: u64,
    /// Bits that this build does not know are kept.
    pub(crate) optional: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) txn: TxnId,
    /// Pages of the file that this state uses, meta pages included.
    pub(crate) page_count: u64,
    pub(crate) catalog: TreeRoot,
    pub(crate) free_space: TreeRoot,
    /// The free list.
    pub(crate) free_list: ExtentPtr,
    pub(crate) next_tree: TreeId,
    pub(crate) log: LogDescriptor,
    /// The tree of named snapshots. Empty in a file that has none.
    pub(crate) snapshots: TreeRoot,
}

/// Why a copy of a meta page is not usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MetaPageError {
    /// The magic bytes are missing, or the file ends before the copy.
    NoMagic,
    /// The magic bytes are right, but the checksum does not match.
    Checksum,
    /// An intact copy of a version that this build does not read.
    Version(u32),
    /// An intact copy that needs features unknown to this build: these bits.
    RequiredFeature(u64),
    /// An intact copy with an invalid field.
    Field(&'static str),
}

impl MetaPage {
    /// The required features of the state. A file without named snapshots stays one that programs
    /// read which do not know them.
    fn features(&self) -> u64 {
        let named = if self.snapshots.height > 0 { features::SNAPSHOTS } else { 0 };
        self.required & !features::SNAPSHOTS | named
    }

    fn encode(&self) -> [u8; at::RECORD_BYTES] {
        let mut record = [0; at::RECORD_BYTES];
        record[at::MAGIC..at::VERSION].copy_from_slice(&at::MAGIC_BYTES);
        put_u32(&mut record, at::VERSION, VERSION);
        put_u32(&mut record, at::PAGE_SIZE, self.page_size);
        put_u64(&mut record, at::REQUIRED, self.features());
        put_u64(&mut record, at::OPTIONAL, self.optional);
        record[at::UUID..at::TXN].copy_from_slice(&self.uuid);
        put_u64(&mut record, at::TXN, self.txn.0);
        put_u64(&mut record, at::PAGE_COUNT, self.page_count);
        record[at::CATALOG..at::FREE_SPACE].copy_from_slice(&self.catalog.encode());
        record[at::FREE_SPACE..at::FREE_LIST].copy_from_slice(&self.free_space.encode());
        put_ptr(&mut record, at::FREE_LIST, self.free_list.ptr);
        put_u48(&mut record, at::FREE_LIST + 10, self.free_list.pages);
        put_u32(&mut record, at::NEXT_TREE, self.next_tree.0);
        put_u64(&mut record, at::LOG, self.log.first.0);
        put_u64(&mut record, at::LOG + 8, self.log.pages);
        put_u64(&mut record, at::LOG + 16, self.log.epoch);
        put_u64(&mut record, at::LOG + 24, self.log.start);
        put_u32(&mut record, at::LOG + 32, self.log.chain);
        if self.snapshots.height > 0 {
            record[at::SNAPSHOTS..at::RESERVED].copy_from_slice(&self.snapshots.encode());
        }
        let crc = crc32fast::hash(&record[..at::CHECKSUM]);
        put_u32(&mut record, at::CHECKSUM, crc);
        record
    }

    /// Writes a whole slot: both copies, and zeros elsewhere.
    pub(crate) fn encode_slot(&self, slot_page: &mut [u8]) {
        assert!(slot_page.len() == self.page_size as usize && page_size_ok(slot_page.len()));
        let record = self.encode();
        let middle = slot_page.len() / 2;
        slot_page.fill(0);
        slot_page[..record.len()].copy_from_slice(&record);
        slot_page[middle..middle + record.len()].copy_from_slice(&record);
    }

    /// Decodes the copy at the start of `bytes`.
    pub(crate) fn decode_copy(bytes: &[u8]) -> Result<MetaPage, MetaPageError> {
        let Some(record) = bytes.first_chunk::<{ at::RECORD_BYTES }>() else { return Err(MetaPageError::NoMagic) };
        if record[at::MAGIC..at::VERSION] != at::MAGIC_BYTES {
            return Err(MetaPageError::NoMagic);
        }
        // Before the version: a flipped bit in the version is damage, not a newer release.
        if crc32fast::hash(&record[..at::CHECKSUM]) != get_u32(record, at::CHECKSUM) {
            return Err(MetaPageError::Checksum);
        }
        let version = get_u32(record, at::VERSION);
        if version != VERSION {
            return Err(MetaPageError::Version(version));
        }
        let unknown = get_u64(record, at::REQUIRED) & !KNOWN_REQUIRED;
        if unknown != 0 {
            return Err(MetaPageError::RequiredFeature(unknown));
        }
        MetaPage::decode_fields(record).and_then(MetaPage::checked)
    }

    fn decode_fields(record: &[u8; at::RECORD_BYTES]) -> Result<MetaPage, MetaPageError> {
        let root =
            |at: usize, field| TreeRoot::decode(&record[at..at + TREE_ROOT_BYTES]).ok_or(MetaPageError::Field(field));
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&record[at::UUID..at::TXN]);
        Ok(MetaPage {
            page_size: get_u32(record, at::PAGE_SIZE),
            required: get_u64(record, at::REQUIRED),
            optional: get_u64(record, at::OPTIONAL),
            uuid,
            txn: TxnId(get_u64(record, at::TXN)),
            page_count: get_u64(record, at::PAGE_COUNT),
            catalog: root(at::CATALOG, "catalog root")?,
            free_space: root(at::FREE_SPACE, "free-space root")?,
            free_list: ExtentPtr { ptr: get_ptr(record, at::FREE_LIST), pages: get_u48(record, at::FREE_LIST + 10) },
            next_tree: TreeId(get_u32(record, at::NEXT_TREE)),
            log: LogDescriptor {
                first: PageId(get_u64(record, at::LOG)),
                pages: get_u64(record, at::LOG + 8),
                epoch: get_u64(record, at::LOG + 16),
                start: get_u64(record, at::LOG + 24),
                chain: get_u32(record, at::LOG + 32),
            },
            snapshots: match get_u64(record, at::REQUIRED) & features::SNAPSHOTS {
                0 => TreeRoot::empty(TreeId::SNAPSHOTS),
                _ => root(at::SNAPSHOTS, "root of named snapshots")?,
            },
        })
    }

    /// Refuses fields that no release writes, so that no code computes with them.
    fn checked(self) -> Result<MetaPage, MetaPageError> {
        let extent_ok = |first: PageId, pages: u64| {
            (pages == 0 && first.is_none())
                || (pages > 0 && first.0 >= 2 && first.0.checked_add(pages).is_some_and(|end| end <= self.page_count))
        };
        // No pointer may lead to a meta page, because they are overwritten in place.
        let root_ok = |root: &TreeRoot, tree: TreeId| {
            root.tree == tree && (root.height == 0 || (2..self.page_count).contains(&root.ptr.id.0))
        };
        let checks = [
            (page_size_ok(self.page_size as usize), "page size"),
            (self.txn.0 <= MAX_U48, "transaction id"),
            (self.page_count >= 2 && self.page_count <= MAX_U48, "page count"),
            (root_ok(&self.catalog, TreeId::CATALOG), "catalog root"),
            (root_ok(&self.free_space, TreeId::FREE_SPACE), "free-space root"),
            (root_ok(&self.snapshots, TreeId::SNAPSHOTS), "root of named snapshots"),
            (extent_ok(self.free_list.ptr.id, self.free_list.pages), "free list"),
            (extent_ok(self.log.first, self.log.pages), "commit log run"),
            // The scan reads the whole log into memory. Sixteen times the longest log that this
            // release makes.
            (self.log.pages.saturating_mul(self.page_size.into()) <= 1 << 30, "commit log length"),
            (self.log.epoch < 1 << 56, "commit log epoch"),
            // More bytes than any disk can write in its life, and few enough that sums do not
            // overflow.
            (self.log.start < 1 << 56, "commit log start"),
            // Lower numbers belong to the catalog and the free-space tree.
            ((TreeId::FIRST_TABLE.0..=TreeId::VALUES).contains(&self.next_tree.0), "next tree id"),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, field)) => Err(MetaPageError::Field(field)),
            None => Ok(self),
        }
    }
}

/// Both copies of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) copies: [Result<MetaPage, MetaPageError>; 2],
}

impl Slot {
    /// The meta page of the slot. If both copies are intact and differ, after an interrupted write,
    /// it is the newer one. If one copy is of a newer release, so is the slot.
    pub(crate) fn meta(&self) -> Result<MetaPage, MetaPageError> {
        match self.copies {
            [Err(e @ (MetaPageError::Version(_) | MetaPageError::RequiredFeature(_))), _]
            | [_, Err(e @ (MetaPageError::Version(_) | MetaPageError::RequiredFeature(_)))] => Err(e),
            [Ok(a), Ok(b)] => Ok(if b.txn > a.txn { b } else { a }),
            [Ok(meta), Err(_)] | [Err(_), Ok(meta)] => Ok(meta),
            // Prefer the error of a copy that has the magic bytes.
            [Err(MetaPageError::NoMagic), Err(e)] | [Err(e), Err(_)] => Err(e),
        }
    }

    /// Describes what is wrong with the slot; `None` if both copies are intact and equal.
    pub(crate) fn flaw(&self) -> Option<String> {
        let state = |copy: &Result<MetaPage, MetaPageError>| match copy {
            Ok(_) => "is whole",
            Err(MetaPageError::NoMagic) => "has no magic bytes",
            Err(MetaPageError::Checksum) => "does not match its checksum",
            Err(MetaPageError::Version(_) | MetaPageError::RequiredFeature(_)) => "is of a newer release",
            Err(MetaPageError::Field(_)) => "has an impossible field",
        };
        match &self.copies {
            [Ok(a), Ok(b)] if a == b => None,
            [Ok(a), Ok(b)] => Some(format!("the copies differ: transactions {} and {}", a.txn, b.txn)),
            [a, b] => Some(format!("the first copy {}, the second {}", state(a), state(b))),
        }
    }
}

/// Both slots of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    /// In bytes; `None` if no copy is intact.
    pub(crate) page_size: Option<usize>,
    pub(crate) slots: [Slot; 2],
}

/// Finds the page size and reads both slots. `read` returns the bytes at an offset, or `None` past
/// the end of the file.
///
/// Copies are tried in order of offset, and a copy counts only if its own page size puts a copy at
/// this offset. So the first that counts belongs to a meta page: up to twice the page size the file
/// has nothing but the slots, and a value that looks like a meta page can only come later.
pub(crate) fn probe(mut read: impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Probe {
    let mut offsets: Vec<usize> = page_sizes().flat_map(copy_offsets).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let page_size = offsets.into_iter().find_map(|offset| {
        let claimed = claimed_page_size(&read(offset as u64, at::RECORD_BYTES)?)?;
        copy_offsets(claimed).contains(&offset).then_some(claimed)
    });
    let mut copy = |offset: usize, page_size: usize| {
        let meta = MetaPage::decode_copy(&read(offset as u64, at::RECORD_BYTES).ok_or(MetaPageError::NoMagic)?)?;
        if meta.page_size as usize == page_size {
            Ok(meta)
        } else {
            Err(MetaPageError::Field("page size"))
        }
    };
    let assumed = page_size.unwrap_or(PAGE_SIZE_MIN);
    let [a, b, c, d] = copy_offsets(assumed).map(|offset| copy(offset, assumed));
    Probe { page_size, slots: [Slot { copies: [a, b] }, Slot { copies: [c, d] }] }
}

/// Why Mapleaf cannot have written the two slots of a file, even if both are intact: each record
/// goes to only one slot, with a number above the one in the other slot.
pub(crate) fn contradiction(slots: &[Slot; 2]) -> Option<String> {
    let [first, second] = slots;
    let mut pairs = first.copies.iter().flatten().flat_map(|a| second.copies.iter().flatten().map(move |b| (a, b)));
    let between = pairs.find_map(|(a, b)| match a.txn == b.txn {
        true => Some(format!("both meta pages hold a record of transaction {}: one was written over the other", a.txn)),
        false => of_two_databases(a, b),
    });
    between.or_else(|| {
        slots.iter().find_map(|slot| match &slot.copies {
            [Ok(a), Ok(b)] => of_two_databases(a, b),
            _ => None,
        })
    })
}

fn of_two_databases(a: &MetaPage, b: &MetaPage) -> Option<String> {
    (a.uuid != b.uuid).then(|| "the meta pages hold records of two databases".to_string())
}

fn page_sizes() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(PAGE_SIZE_MIN), |size| Some(size * 2)).take_while(|size| *size <= PAGE_SIZE_MAX)
}

/// Offsets of the copies: two in slot 0, two in slot 1.
fn copy_offsets(page_size: usize) -> [usize; 4] {
    [0, page_size / 2, page_size, page_size + page_size / 2]
}

/// The page size of an intact copy of any version.
fn claimed_page_size(bytes: &[u8]) -> Option<usize> {
    match MetaPage::decode_copy(bytes) {
        Err(MetaPageError::NoMagic | MetaPageError::Checksum) => None,
        _ => Some(get_u32(bytes, at::PAGE_SIZE) as usize).filter(|size| page_size_ok(*size)),
    }
}

#[cfg(test)]
mod tests;
