//! Keys and separators as pages store them: whole, or as their first bytes and a pointer.
//!
//! Floor: page. A page that holds a long key (or a long separator) stores its first bytes and a
//! pointer to an overflow extent, which holds the whole key. So the key is one slice of the extent,
//! and a search that its first bytes decide does not read the extent.
//!
//! Invariants ([`LongKey::decode`] checks KEY-1):
//!   KEY-1  the key is longer than the bytes in the page, which are more than a head, and has at
//!       most `MAX_KEY_BYTES`.
//!   KEY-2  the bytes in the page are the first bytes of the key.
//!
//! Failure: a pointer that breaks KEY-1 is a `DecodeError`.

use std::cmp::Ordering;
use std::num::NonZeroU32;

use super::bad;
use super::layout::{get_u32, get_u48, put_u32, put_u48, HEAD_BYTES, LONG_KEY_PTR_BYTES};
use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr};
use crate::limits::MAX_KEY_BYTES;

/// Where a long key lies as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LongKey {
    // The fields of a `PagePtr`, without its padding.
    first: PageId,
    crc: u32,
    /// Length of the key in bytes.
    len: NonZeroU32,
}

// Every entry that moves between pages carries one.
const _: () = assert!(size_of::<Option<LongKey>>() == 16);

impl LongKey {
    /// A key of `len` bytes in an extent. `None` for a length that no key has.
    pub(crate) fn new(ptr: PagePtr, len: usize) -> Option<LongKey> {
        let len = u32::try_from(len).ok().filter(|&len| len as usize <= MAX_KEY_BYTES)?;
        NonZeroU32::new(len).map(|len| LongKey { first: ptr.id, crc: ptr.crc, len })
    }

    /// First page and checksum of the extent.
    #[inline]
    pub(crate) fn ptr(&self) -> PagePtr {
        PagePtr { id: self.first, crc: self.crc }
    }

    /// Length of the whole key in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.get() as usize
    }

    /// Decodes the pointer of a key of which page `id` holds `inline_bytes` bytes.
    #[cold]
    pub(super) fn decode(part: &[u8], id: PageId, inline_bytes: usize) -> Result<LongKey, DecodeError> {
        let (first, len) = (get_u48(part, 0), get_u32(part, 10) as usize);
        if first < 2 {
            return Err(bad(id, "long key page", first, 2));
        }
        if len <= inline_bytes || len > MAX_KEY_BYTES || inline_bytes <= HEAD_BYTES {
            return Err(bad(id, "long key length", len as u64, inline_bytes as u64 + 1));
        }
        let ptr = PagePtr { id: PageId(first), crc: get_u32(part, 6) };
        LongKey::new(ptr, len).ok_or_else(|| bad(id, "long key length", len as u64, MAX_KEY_BYTES as u64))
    }

    /// Writes the pointer; the slice has [`LONG_KEY_PTR_BYTES`].
    pub(super) fn write(&self, part: &mut [u8]) {
        put_u48(part, 0, self.first.0);
        put_u32(part, 6, self.crc);
        put_u32(part, 10, self.len.get());
    }
}

/// A key or separator as a page stores it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageKey<'a> {
    /// The whole key, or the first bytes of a long one.
    pub(crate) bytes: &'a [u8],
    pub(crate) long: Option<LongKey>,
}

impl<'a> From<&'a [u8]> for PageKey<'a> {
    #[inline(always)]
    fn from(bytes: &'a [u8]) -> PageKey<'a> {
        PageKey { bytes, long: None }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for PageKey<'a> {
    fn from(bytes: &'a [u8; N]) -> PageKey<'a> {
        PageKey { bytes, long: None }
    }
}

impl<'a> From<&'a Vec<u8>> for PageKey<'a> {
    fn from(bytes: &'a Vec<u8>) -> PageKey<'a> {
        PageKey { bytes, long: None }
    }
}

impl PageKey<'_> {
    /// Bytes that the key takes in a page.
    #[inline]
    pub(crate) fn stored_bytes(&self) -> usize {
        self.bytes.len() + if self.long.is_some() { LONG_KEY_PTR_BYTES } else { 0 }
    }

    /// Compares with another key, whole or not, as far as their first bytes decide. `None`: the
    /// whole keys have to be compared.
    #[inline]
    pub(crate) fn compare(&self, other: &PageKey<'_>) -> Option<Ordering> {
        let shared = self.bytes.len().min(other.bytes.len());
        let decided = self.bytes[..shared].cmp(&other.bytes[..shared]);
        if decided.is_ne() || (self.long.is_none() && other.long.is_none()) {
            return Some(decided.then(self.bytes.len().cmp(&other.bytes.len())));
        }
        // One is the beginning of the other as far as the page shows them. If a whole one ends
        // there, it is the lower one, because a long key goes on after its first bytes.
        match (self.long.is_none() && self.bytes.len() == shared, other.long.is_none() && other.bytes.len() == shared) {
            (true, _) => Some(Ordering::Less),
            (_, true) => Some(Ordering::Greater),
            _ => None,
        }
    }

    pub(crate) fn to_buf(self) -> PageKeyBuf {
        PageKeyBuf { bytes: self.bytes.to_vec(), long: self.long }
    }
}

/// A copy of a [`PageKey`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageKeyBuf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) long: Option<LongKey>,
}

impl From<Vec<u8>> for PageKeyBuf {
    fn from(bytes: Vec<u8>) -> PageKeyBuf {
        PageKeyBuf { bytes, long: None }
    }
}

impl From<&[u8]> for PageKeyBuf {
    fn from(bytes: &[u8]) -> PageKeyBuf {
        PageKeyBuf { bytes: bytes.to_vec(), long: None }
    }
}

impl<'a> From<&'a PageKeyBuf> for PageKey<'a> {
    #[inline]
    fn from(key: &'a PageKeyBuf) -> PageKey<'a> {
        PageKey { bytes: &key.bytes, long: key.long }
    }
}

impl PageKeyBuf {
    pub(crate) fn as_key(&self) -> PageKey<'_> {
        PageKey { bytes: &self.bytes, long: self.long }
    }

    /// Replaces the contents by a copy of `key`.
    pub(crate) fn set(&mut self, key: PageKey<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(key.bytes);
        self.long = key.long;
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.long = None;
    }
}

/// Finds no long key: for pages that have none.
pub(crate) struct NoLongKeys;

impl WholeKeys for NoLongKeys {
    type Error = DecodeError;

    #[cold]
    fn whole_key(&self, long: LongKey) -> Result<&[u8], DecodeError> {
        Err(bad(long.ptr().id, "a long key in a page without the flag for it", long.len() as u64, 0))
    }
}

/// Finds whole long keys, for searches in pages that hold only their first bytes.
pub(crate) trait WholeKeys {
    type Error: From<DecodeError>;

    /// The bytes of a long key.
    fn whole_key(&self, long: LongKey) -> Result<&[u8], Self::Error>;

    /// Compares a key of a page with a whole key. Reads the long key only if its first bytes do not
    /// decide.
    fn compare(&self, stored: PageKey<'_>, key: &[u8]) -> Result<Ordering, Self::Error> {
        if let Some(decided) = stored.compare(&PageKey::from(key)) {
            return Ok(decided);
        }
        let Some(long) = stored.long else { return Ok(Ordering::Equal) };
        let equal = stored.bytes.len();
        let whole = self.whole_key(long)?;
        Ok(whole.get(equal..).unwrap_or(&[]).cmp(key.get(equal..).unwrap_or(&[])))
    }

    /// Compares two keys of pages. Reads long keys only if their first bytes do not decide.
    fn compare_stored(&self, left: PageKey<'_>, right: PageKey<'_>) -> Result<Ordering, Self::Error> {
        match left.compare(&right) {
            Some(decided) => Ok(decided),
            None => match right.long {
                Some(long) => self.compare(left, self.whole_key(long)?),
                None => self.compare(left, right.bytes),
            },
        }
    }
}
