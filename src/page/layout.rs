//! Offsets and sizes of all fields of a page, its header included. No other module has literal
//! offsets; `header` decodes the page header.
//!
//! Floor: page. All numbers are little-endian. A page is a power of two from 4 KiB to 32 KiB.
//!
//! Header of every page except the meta pages (overflow extents and free lists have it on their
//! first page only):
//!
//! ```text
//! 0        4    5     6     8      10    12    14    16    22    28   32
//! | crc32  |kind|level|count|prefix|lower|upper|flags| id  | txn |tree|
//!                           |   pages (u48)    |                        overflow extent, free list
//! ```
//!
//! Leaf: the arrays grow up from offset 32, the entries grow down from the end of the page.
//!
//! ```text
//! | header 32 | head u32 [count] | slot u16 [count] | gap | entries |
//!                                                   ^lower ^upper
//! entry: | klen bits 0-12, long key bit 13, value kind bits 14-15 | vlen u16 | key | value part |
//! key: the key, or the first klen bytes of a long key and { first page u48, crc u32, key length u32 }
//! value part: the value, or { first page u48, crc of the extent u32, value length u64 }
//!             a value set (`value_set`), or { root page u48, its crc u32, height u8, zero u8, values u64 }
//! ```
//!
//! Packed leaf: values of one size, one after the other; their size stands in place of the length
//! of the prefix.
//!
//! Branch: the rests (`branch` says what they are) grow down from the end of the page, or from the
//! prefix if that lies there.
//!
//! ```text
//! | header 32 | zero 8 | prefix 24 | hint u32 [16] | head [count] | slot [count] | child [count] | gap | rests |
//! 32          40       64         128                                                         ^lower ^upper
//! child: | page u48 | crc u32 |      rest: | length u16 | bytes of the separator after prefix and head |
//! rest of a long separator: length with bit 15 set, and a pointer as for a long key after the bytes
//! slot of a branch: 0..=4 is the length of a tail that lies in the head; else the offset of the rest
//! ```
//!
//! Failure: `get_*` accept any offset: past the end of the slice they return zeros, which no length
//! check of the page layer accepts, so no offset read from a page can cause a panic here. `put_*`
//! past the end is a bug in the caller: they assert in debug builds, and write nothing in release
//! builds.

/// Bytes of the page header.
pub(crate) const HEADER_BYTES: usize = 32;

pub(crate) const CHECKSUM: usize = 0;
pub(crate) const KIND: usize = 4;
pub(crate) const LEVEL: usize = 5;
pub(crate) const COUNT: usize = 6;
pub(crate) const PREFIX_BYTES: usize = 8;
/// Overflow extents and free lists: number of pages, u48, instead of prefix length, lower and
/// upper.
pub(crate) const EXTENT_PAGES: usize = 8;
pub(crate) const LOWER: usize = 10;
pub(crate) const UPPER: usize = 12;
pub(crate) const FLAGS: usize = 14;
pub(crate) const ID: usize = 16;
pub(crate) const TXN: usize = 22;
pub(crate) const TREE: usize = 28;

/// The first [`PAGE_SIZE_MIN`](crate::limits::PAGE_SIZE_MIN) bytes of a page, which the fast
/// searches use: the whole page at the default page size.
pub(crate) type Front = [u8; crate::limits::PAGE_SIZE_MIN];

/// First byte that the checksum of a page covers.
pub(crate) const CHECKED: usize = 4;

/// Bytes of one head.
pub(crate) const HEAD_BYTES: usize = 4;
/// Bytes of one slot.
pub(crate) const SLOT_BYTES: usize = 2;

/// First head of a leaf.
pub(crate) const LEAF_HEADS: usize = HEADER_BYTES;
/// Bytes of an entry in the arrays of a leaf: head and slot.
pub(crate) const LEAF_ARRAY_BYTES: usize = HEAD_BYTES + SLOT_BYTES;
/// Bytes of an entry before its key.
pub(crate) const ENTRY_HEADER_BYTES: usize = 4;
/// Bits of the first word of an entry that hold the number of key bytes in it.
pub(crate) const KEY_BYTES_BITS: u32 = 13;
/// Most key bytes that an entry can hold.
pub(crate) const KEY_BYTES_MAX: usize = (1 << KEY_BYTES_BITS) - 1;
/// Bit of the first word of an entry: the key is long, and its pointer follows its first bytes.
pub(crate) const LONG_KEY: u16 = 1 << KEY_BYTES_BITS;
/// The bits of the first word of an entry from here on are the value kind.
pub(crate) const VALUE_KIND_BIT: u32 = 14;
/// Bytes of the pointer of a long key.
pub(crate) const LONG_KEY_PTR_BYTES: usize = 14;
/// Page flag: the leaf holds long keys, or the branch long separators. Stays set when the last one
/// is removed from the page.
pub(crate) const LONG_KEYS_FLAG: u16 = 1 << 3;
/// Page flags that name the order of the keys: 0 bytewise, 2 descending, 6 an order with a name.
pub(crate) const ORDER_FLAGS: u16 = 0b110;
/// Bytes of the value part that points at an overflow extent.
pub(crate) const OVERFLOW_PTR_BYTES: usize = 18;
/// Bytes of the value part that points at a value tree.
pub(crate) const VALUE_TREE_BYTES: usize = 20;

/// Packed leaves: bytes of each value, u16, in place of the length of the prefix.
pub(crate) const VALUE_BYTES: usize = 8;
/// First value of a packed leaf.
pub(crate) const PACKED_VALUES: usize = HEADER_BYTES;

/// Offset of the prefix of a branch, if it has at most [`BRANCH_PREFIX_MAX`] bytes.
pub(crate) const BRANCH_PREFIX: usize = 40;
/// Longest prefix that lies at [`BRANCH_PREFIX`]; a longer one lies at the end of the page.
pub(crate) const BRANCH_PREFIX_MAX: usize = 24;
/// First hint of a branch: the hints fill one cache line.
pub(crate) const HINTS: usize = 64;
/// Number of hints.
pub(crate) const HINT_COUNT: usize = 16;
/// Bytes of all hints.
pub(crate) const HINTS_BYTES: usize = HINT_COUNT * HEAD_BYTES;
/// First head of a branch.
pub(crate) const BRANCH_HEADS: usize = 128;
/// Bytes of a child pointer.
pub(crate) const CHILD_BYTES: usize = 10;
/// Bytes of a child in the arrays of a branch: head, slot and pointer.
pub(crate) const BRANCH_ARRAY_BYTES: usize = HEAD_BYTES + SLOT_BYTES + CHILD_BYTES;
/// Bytes of the length field of a rest. The rest of a separator is its end, which neither the
/// common prefix nor the head holds; the bytes of the rest follow this field.
pub(crate) const REST_HEADER_BYTES: usize = 2;

/// Bit of the length of a rest: the separator is long, and its pointer follows the rest.
pub(crate) const LONG_REST: u16 = 1 << 15;

/// First value byte of an overflow extent.
pub(crate) const OVERFLOW_VALUE: usize = HEADER_BYTES;

/// Number of items of a free list, u32.
pub(crate) const FREE_LIST_COUNT: usize = 32;
/// First item of a free list.
pub(crate) const FREE_LIST_ITEMS: usize = 40;
/// Bytes of an item: start, pages, born, freed, each u48.
pub(crate) const FREE_ITEM_BYTES: usize = 24;

/// The record of a meta page.
pub(crate) mod meta {
    /// First bytes of the file: a non-ASCII byte, both kinds of line end, and the DOS end-of-file
    /// character, so that a transfer in text mode damages them.
    pub(crate) const MAGIC_BYTES: [u8; 8] = [0x89, b'M', b'L', b'F', 0x0D, 0x0A, 0x1A, 0x0A];
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 8;
    pub(crate) const PAGE_SIZE: usize = 12;
    pub(crate) const REQUIRED: usize = 16;
    pub(crate) const OPTIONAL: usize = 24;
    pub(crate) const UUID: usize = 32;
    pub(crate) const TXN: usize = 48;
    pub(crate) const PAGE_COUNT: usize = 56;
    pub(crate) const CATALOG: usize = 64;
    pub(crate) const FREE_SPACE: usize = 88;
    pub(crate) const FREE_LIST: usize = 112;
    pub(crate) const NEXT_TREE: usize = 128;
    pub(crate) const LOG: usize = 136;
    pub(crate) const SNAPSHOTS: usize = 176;
    pub(crate) const RESERVED: usize = 200;
    pub(crate) const CHECKSUM: usize = 252;
    /// Bytes of one copy. Magic, version, page size and checksum have the same offsets in every
    /// version.
    pub(crate) const RECORD_BYTES: usize = 256;
}

/// Bytes of a tree root: page u48, crc u32, height u8, zero u8, entries u64, tree u32.
pub(crate) const TREE_ROOT_BYTES: usize = 24;

const _: () = {
    assert!(CHECKED == CHECKSUM + 4 && KIND == CHECKED && EXTENT_PAGES + 6 == FLAGS);
    assert!(TXN == ID + 6 && TREE == TXN + 6 && HEADER_BYTES == TREE + 4);
    assert!(BRANCH_PREFIX + BRANCH_PREFIX_MAX == HINTS && HINTS + HINTS_BYTES == BRANCH_HEADS);
    assert!(HINTS.is_multiple_of(64) && HINTS_BYTES == 64);
    assert!(LEAF_ARRAY_BYTES == 6 && BRANCH_ARRAY_BYTES == 16);
    // Offsets within a page, its end included, fit 16 bits. A slot of a branch above 4 can only be
    // an offset.
    assert!(crate::limits::PAGE_SIZE_MAX <= u16::MAX as usize && BRANCH_HEADS > HEAD_BYTES);
    assert!(crate::limits::max_inline_key_bytes(crate::limits::PAGE_SIZE_MAX) <= KEY_BYTES_MAX);
    // The word of a long key is larger than any key length, so the fast search never takes it for
    // the word of a short key.
    assert!(LONG_KEY as usize > KEY_BYTES_MAX && KEY_BYTES_BITS + 1 == VALUE_KIND_BIT);
    assert!(crate::limits::max_inline_value_bytes(crate::limits::PAGE_SIZE_MAX) <= u16::MAX as usize);
    assert!(FREE_LIST_ITEMS.is_multiple_of(8) && FREE_LIST_COUNT == HEADER_BYTES);
    assert!(
        meta::FREE_SPACE == meta::CATALOG + TREE_ROOT_BYTES && meta::FREE_LIST == meta::FREE_SPACE + TREE_ROOT_BYTES
    );
    assert!(
        meta::NEXT_TREE == meta::FREE_LIST + 16
            && meta::LOG == meta::NEXT_TREE + 8
            && meta::SNAPSHOTS == meta::LOG + 40
    );
    assert!(meta::RESERVED == meta::SNAPSHOTS + TREE_ROOT_BYTES);
    assert!(meta::RECORD_BYTES == meta::CHECKSUM + 4);
    assert!(meta::RECORD_BYTES <= 512, "a copy fits one sector");
    // Two entries of the largest key and inline value fit a leaf; three children with the longest
    // separators fit a branch. So a split always succeeds.
    assert!(largest_two_fit(crate::limits::PAGE_SIZE_MIN) && largest_two_fit(crate::limits::PAGE_SIZE_MAX));
};

const fn largest_two_fit(page_size: usize) -> bool {
    let key = crate::limits::max_inline_key_bytes(page_size);
    let entry = LEAF_ARRAY_BYTES + ENTRY_HEADER_BYTES + key + crate::limits::max_inline_value_bytes(page_size);
    let child = BRANCH_ARRAY_BYTES + REST_HEADER_BYTES + key;
    let long = crate::limits::long_key_inline_bytes(page_size) + LONG_KEY_PTR_BYTES;
    // A long key takes less than the longest short one, and has a head and a rest after any prefix.
    let is_less = long < key && crate::limits::long_key_inline_bytes(page_size) > BRANCH_PREFIX_MAX + HEAD_BYTES;
    HEADER_BYTES + 2 * entry <= page_size && BRANCH_HEADS + 3 * child <= page_size && is_less
}

/// The head of a key: its first four bytes after the page's prefix, zero padded, as a big-endian
/// number.
///
/// Heads sort like the keys, but keys with equal heads may differ: zero padding gives "a" and "a\0"
/// the same head.
#[inline(always)]
pub(crate) fn head_of(key_rest: &[u8]) -> u32 {
    if let Some(bytes) = key_rest.first_chunk::<4>() {
        return u32::from_be_bytes(*bytes);
    }
    key_rest.iter().zip([24, 16, 8]).fold(0, |head, (&byte, shift)| head | u32::from(byte) << shift)
}

#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

#[inline]
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(chunk(bytes, at))
}

#[inline]
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk(bytes, at))
}

#[inline]
pub(crate) fn get_u48(bytes: &[u8], at: usize) -> u64 {
    let [a, b, c, d, e, f] = chunk(bytes, at);
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline]
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    let place = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>());
    debug_assert!(place.is_some(), "write of {N} bytes at {at} past the end");
    if let Some(place) = place {
        *place = value;
    }
}

#[inline]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, value.to_le_bytes());
}

/// Writes the low 48 bits; a larger page id or transaction id is a bug in the caller.
#[inline]
pub(crate) fn put_u48(bytes: &mut [u8], at: usize, value: u64) {
    debug_assert!(value <= crate::ids::MAX_U48);
    let [a, b, c, d, e, f, _, _] = value.to_le_bytes();
    put(bytes, at, [a, b, c, d, e, f]);
}

#[inline]
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets of `docs/format.md`, as literals: changing one changes the format.
    #[test]
    fn offsets_are_the_documented_ones() {
        let header = [CHECKSUM, KIND, LEVEL, COUNT, PREFIX_BYTES, LOWER, UPPER, FLAGS, ID, TXN, TREE, HEADER_BYTES];
        assert_eq!(header, [0, 4, 5, 6, 8, 10, 12, 14, 16, 22, 28, 32]);
        assert_eq!(
            [EXTENT_PAGES, OVERFLOW_VALUE, FREE_LIST_COUNT, FREE_LIST_ITEMS, FREE_ITEM_BYTES],
            [8, 32, 32, 40, 24]
        );
        assert_eq!([LEAF_HEADS, LEAF_ARRAY_BYTES, ENTRY_HEADER_BYTES, OVERFLOW_PTR_BYTES], [32, 6, 4, 18]);
        assert_eq!([VALUE_TREE_BYTES, VALUE_BYTES, PACKED_VALUES], [20, 8, 32]);
        assert_eq!([BRANCH_PREFIX, BRANCH_PREFIX_MAX, HINTS, HINT_COUNT, BRANCH_HEADS], [40, 24, 64, 16, 128]);
        assert_eq!([BRANCH_ARRAY_BYTES, CHILD_BYTES, REST_HEADER_BYTES], [16, 10, 2]);
        assert_eq!([KEY_BYTES_MAX, LONG_KEY_PTR_BYTES, VALUE_KIND_BIT as usize], [8191, 14, 14]);
        assert_eq!([LONG_KEY, LONG_KEYS_FLAG, LONG_REST], [0x2000, 8, 0x8000]);
        let meta_fields = [
            meta::MAGIC,
            meta::VERSION,
            meta::PAGE_SIZE,
            meta::REQUIRED,
            meta::OPTIONAL,
            meta::UUID,
            meta::TXN,
            meta::PAGE_COUNT,
            meta::CATALOG,
            meta::FREE_SPACE,
            meta::FREE_LIST,
            meta::NEXT_TREE,
            meta::LOG,
            meta::SNAPSHOTS,
            meta::RESERVED,
            meta::CHECKSUM,
            meta::RECORD_BYTES,
        ];
        assert_eq!(meta_fields, [0, 8, 12, 16, 24, 32, 48, 56, 64, 88, 112, 128, 136, 176, 200, 252, 256]);
    }

    #[test]
    fn heads_order_like_bytes() {
        assert_eq!(head_of(b""), 0);
        assert_eq!(head_of(b"a"), 0x6100_0000);
        assert_eq!(head_of(b"ab\0"), 0x6162_0000);
        assert_eq!(head_of(b"abcde"), 0x6162_6364);
        assert_eq!(head_of(&[0xff; 4]), u32::MAX);
        assert_eq!(head_of(b"a"), head_of(b"a\0\0"), "equal heads are not equal keys");
    }

    #[test]
    fn numbers_round_trip_and_read_as_0_past_the_end() {
        let mut bytes = [0u8; 20];
        put_u16(&mut bytes, 0, 0x0102);
        put_u48(&mut bytes, 2, 0x0a0b_0c0d_0e0f);
        put_u32(&mut bytes, 8, 0xdead_beef);
        put_u64(&mut bytes, 12, u64::MAX - 5);
        assert_eq!(bytes[..3], [0x02, 0x01, 0x0f], "little-endian");
        assert_eq!((get_u16(&bytes, 0), get_u48(&bytes, 2)), (0x0102, 0x0a0b_0c0d_0e0f));
        assert_eq!((get_u32(&bytes, 8), get_u64(&bytes, 12)), (0xdead_beef, u64::MAX - 5));
        for at in [19, 20, 21, usize::MAX] {
            assert_eq!((get_u16(&bytes, at), get_u32(&bytes, at)), (0, 0));
            assert_eq!((get_u48(&bytes, at), get_u64(&bytes, at)), (0, 0));
        }
    }
}
