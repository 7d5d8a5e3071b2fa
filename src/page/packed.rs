//! Packed leaves: the leaves of a value tree whose values all have one size.
//!
//! Floor: page. The values lie one after the other from offset 32 on, in ascending order. There are
//! no heads and no slots: a search compares the values themselves.
//!
//! ```text
//! | header 32 | value 0 | value 1 | ... | gap |
//! ```
//!
//! Invariants ([`Packed::parse`] checks PACKED-1, [`Packed::verify`] the other):
//!   PACKED-1  kind, level 0, flags 0, own id, a size of at least one byte; lower = 32 + size *
//!             count <= upper = page size.
//!   PACKED-2  values ascend strictly, compared bytewise.
//!
//! Failure: as in `leaf`.

use super::bad;
use super::header::{self, PageKind, PageStamp};
use super::layout::{
    get_u16, get_u48, put_u16, COUNT, FLAGS, HEADER_BYTES, ID, KIND, LOWER, PACKED_VALUES, UPPER, VALUE_BYTES,
};
use super::value_set::search_packed;
use crate::error::DecodeError;
use crate::ids::PageId;

/// A parsed packed leaf, read-only.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    page: &'a [u8],
    id: PageId,
    count: usize,
    width: usize,
}

/// Values of `width` bytes that a packed leaf can hold.
pub(crate) fn capacity(page_size: usize, width: usize) -> usize {
    (page_size - PACKED_VALUES) / width.max(1)
}

impl<'a> Packed<'a> {
    /// Reads page `id` as a packed leaf of values of `width` bytes.
    pub(crate) fn parse(page: &'a [u8], id: PageId, width: usize) -> Result<Packed<'a>, DecodeError> {
        const PACKED_LEVEL_0: u16 = PageKind::Packed as u16;
        let reject = || header::reject(page, id, PageKind::Packed, PACKED_VALUES, width);
        let Some(bytes) = page.first_chunk::<HEADER_BYTES>() else { return Err(reject()) };
        let count = usize::from(get_u16(bytes, COUNT));
        let lower = usize::from(get_u16(bytes, LOWER));
        let found = usize::from(get_u16(bytes, VALUE_BYTES));
        let good = (get_u16(bytes, KIND) == PACKED_LEVEL_0)
            & (get_u16(bytes, FLAGS) == 0)
            & (get_u48(bytes, ID) == id.0)
            & (lower == PACKED_VALUES + width * count)
            & (lower <= page.len())
            & (usize::from(get_u16(bytes, UPPER)) == page.len());
        if !good {
            return Err(reject());
        }
        if found != width || width == 0 {
            return Err(bad(id, "bytes of each value", found as u64, width as u64));
        }
        Ok(Packed { page, id, count, width })
    }

    /// Number of values.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The page's id.
    pub(crate) fn id(&self) -> PageId {
        self.id
    }

    /// All values, one after the other.
    #[inline]
    pub(crate) fn values(&self) -> &'a [u8] {
        self.page.get(PACKED_VALUES..PACKED_VALUES + self.width * self.count).unwrap_or(&[])
    }

    /// Value `index`.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Result<&'a [u8], DecodeError> {
        match self.values().get(self.width.wrapping_mul(index)..) {
            Some(rest) if index < self.count && rest.len() >= self.width => Ok(&rest[..self.width]),
            _ => Err(bad(self.id, "value index", index as u64, self.count as u64)),
        }
    }

    /// The index of the first value that is at least `value`, and whether it is equal.
    #[inline]
    pub(crate) fn search(&self, value: &[u8]) -> (usize, bool) {
        search_packed(self.values(), self.width, value)
    }

    /// Bytes in use, without the header.
    pub(crate) fn used_bytes(&self) -> usize {
        self.width * self.count
    }

    /// Checks PACKED-2.
    pub(crate) fn verify(&self) -> Result<(), DecodeError> {
        let mut pairs = self.values().chunks_exact(self.width).zip(self.values().chunks_exact(self.width).skip(1));
        match pairs.position(|(value, next)| value >= next) {
            Some(at) => Err(bad(self.id, "order of values at value", at as u64 + 1, at as u64 + 1)),
            None => Ok(()),
        }
    }
}

/// A packed leaf that can be changed.
pub(crate) struct PackedMut<'a> {
    page: &'a mut [u8],
    id: PageId,
    count: usize,
    width: usize,
}

impl<'a> PackedMut<'a> {
    /// Makes the page an empty packed leaf, writing all its bytes.
    pub(crate) fn init(page: &'a mut [u8], stamp: PageStamp, width: usize) -> PackedMut<'a> {
        header::init(page, PageKind::Packed, 0, stamp);
        put_u16(page, VALUE_BYTES, width as u16);
        let upper = page.len() as u16;
        put_u16(page, UPPER, upper);
        let mut leaf = PackedMut { page, id: stamp.id, count: 0, width };
        leaf.write_count();
        leaf
    }

    /// Parses page `id` as a packed leaf of values of `width` bytes.
    pub(crate) fn open(page: &'a mut [u8], id: PageId, width: usize) -> Result<PackedMut<'a>, DecodeError> {
        let count = Packed::parse(page, id, width)?.count();
        Ok(PackedMut { page, id, count, width })
    }

    fn lower(&self) -> usize {
        PACKED_VALUES + self.width * self.count
    }

    fn write_count(&mut self) {
        let lower = self.lower();
        put_u16(self.page, COUNT, self.count as u16);
        put_u16(self.page, LOWER, lower as u16);
    }

    /// Inserts values, one after the other in `values`, from index `at` on. `false`: there is no
    /// room, and the page is untouched.
    pub(crate) fn insert(&mut self, at: usize, values: &[u8]) -> Result<bool, DecodeError> {
        if at > self.count {
            return Err(bad(self.id, "value index", at as u64, self.count as u64));
        }
        let lower = self.lower();
        if values.len() > self.page.len() - lower {
            return Ok(false);
        }
        let start = PACKED_VALUES + self.width * at;
        self.page.copy_within(start..lower, start + values.len());
        self.page[start..start + values.len()].copy_from_slice(values);
        self.count += values.len() / self.width;
        self.write_count();
        Ok(true)
    }

    /// Removes `count` values from index `at` on.
    pub(crate) fn remove(&mut self, at: usize, count: usize) -> Result<(), DecodeError> {
        if at + count > self.count {
            return Err(bad(self.id, "value index", (at + count) as u64, self.count as u64));
        }
        let (start, lower) = (PACKED_VALUES + self.width * at, self.lower());
        self.page.copy_within(start + self.width * count..lower, start);
        self.count -= count;
        self.write_count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{TreeId, TxnId};

    const STAMP: PageStamp = PageStamp::new(PageId(7), TreeId(16), TxnId(3));

    #[test]
    fn a_packed_leaf_takes_as_many_values_as_its_bytes_hold() {
        for (page_size, width) in [(4096, 8), (4096, 3), (8192, 1000), (32768, 1)] {
            let mut page = vec![0xee; page_size];
            let mut leaf = PackedMut::init(&mut page, STAMP, width);
            let value = |n: usize| {
                let mut value = vec![0; width];
                let number = (n as u64).to_be_bytes();
                let used = width.min(8);
                value[..used].copy_from_slice(&number[8 - used..]);
                value
            };
            let wanted = capacity(page_size, width).min(if width == 1 { 256 } else { usize::MAX });
            for n in (0..wanted).rev() {
                assert!(leaf.insert(0, &value(n)).unwrap());
            }
            assert!(!leaf.insert(0, &vec![0; page_size - 32]).unwrap());
            let packed = Packed::parse(&page, PageId(7), width).unwrap();
            assert_eq!((packed.count(), packed.verify()), (wanted, Ok(())));
            assert_eq!(packed.search(&value(wanted / 2)), (wanted / 2, true));
            let mut leaf = PackedMut::open(&mut page, PageId(7), width).unwrap();
            leaf.remove(1, wanted - 2).unwrap();
            assert!(leaf.remove(1, 2).is_err() && leaf.insert(3, &value(0)).is_err());
            let packed = Packed::parse(&page, PageId(7), width).unwrap();
            assert_eq!(packed.values(), [value(0), value(wanted - 1)].concat());
        }
    }

    #[test]
    fn another_page_is_no_packed_leaf_and_the_error_names_the_field() {
        let mut page = vec![0; 4096];
        PackedMut::init(&mut page, STAMP, 8).insert(0, &[1; 8]).unwrap();
        let error = |page: &[u8], id, width| Packed::parse(page, PageId(id), width).err().map(|e| e.field);
        assert_eq!(error(&page, 7, 8), None);
        assert_eq!(error(&page, 8, 8), Some("page id"));
        assert_eq!(error(&page, 7, 4), Some("lower bound of free space"));
        for (at, byte, field) in
            [(KIND, 1, "page kind"), (VALUE_BYTES, 4, "bytes of each value"), (UPPER, 1, "upper bound of free space")]
        {
            let mut other = page.clone();
            other[at] = byte;
            assert_eq!(error(&other, 7, 8), Some(field));
        }
        let mut leaf = PackedMut::open(&mut page, PageId(7), 8).unwrap();
        leaf.insert(1, &[1; 8]).unwrap();
        assert_eq!(Packed::parse(&page, PageId(7), 8).unwrap().verify().unwrap_err().field, "order of values at value");
    }
}
