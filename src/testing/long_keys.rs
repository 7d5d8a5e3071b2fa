//! Long keys without pages: for tests of single pages, which hold only their first bytes.
//!
//! Floor: testing. [`Known`] keeps the whole keys that a test has made; [`Zeros`] takes every long
//! key for zeros, for pages of any bytes.

use std::collections::BTreeMap;

use crate::error::DecodeError;
use crate::ids::{PageId, PagePtr};
use crate::limits::{long_key_inline_bytes, MAX_KEY_BYTES};
use crate::page::key::{LongKey, NoLongKeys, PageKey, PageKeyBuf, WholeKeys};

/// Most bytes of a long key.
pub(crate) const BYTES_MAX: usize = MAX_KEY_BYTES;

static ZEROS: [u8; MAX_KEY_BYTES] = [0; MAX_KEY_BYTES];

/// Bytes of a long key in its page.
pub(crate) fn inline_bytes(page_size: usize) -> usize {
    long_key_inline_bytes(page_size)
}

/// Long keys by the page that their pointer names.
#[derive(Default)]
pub(crate) struct Known {
    wholes: BTreeMap<PageId, Vec<u8>>,
}

impl Known {
    /// The form that a long key has in its page.
    pub(crate) fn add(&mut self, mut whole: Vec<u8>, page_size: usize) -> PageKeyBuf {
        whole.truncate(MAX_KEY_BYTES);
        let ptr = PagePtr { id: PageId(2 + self.wholes.len() as u64), crc: whole.len() as u32 };
        let key = PageKeyBuf { bytes: whole[..inline_bytes(page_size)].to_vec(), long: LongKey::new(ptr, whole.len()) };
        self.wholes.insert(ptr.id, whole);
        key
    }

    /// The whole key.
    pub(crate) fn whole<'k>(&'k self, key: &PageKey<'k>) -> &'k [u8] {
        match key.long {
            Some(long) => &self.wholes[&long.ptr().id],
            None => key.bytes,
        }
    }
}

impl WholeKeys for Known {
    type Error = DecodeError;

    fn whole_key(&self, long: LongKey) -> Result<&[u8], DecodeError> {
        match self.wholes.get(&long.ptr().id) {
            Some(whole) => Ok(whole),
            None => NoLongKeys.whole_key(long).map(|_| &[][..]),
        }
    }
}

/// Takes every long key for zeros.
pub(crate) struct Zeros;

impl WholeKeys for Zeros {
    type Error = DecodeError;

    fn whole_key(&self, long: LongKey) -> Result<&[u8], DecodeError> {
        Ok(&ZEROS[..long.len()])
    }
}
