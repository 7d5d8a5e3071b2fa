//! Corrects the checksums of a changed file, so that they do not hide the change.
//!
//! Floor: testing. Follows the pointers in any bytes as far as they lead to pages. Bytes that do
//! not look like a page stay as they are.

use std::collections::HashMap;

use crate::limits;
use crate::page::layout::{self, meta as at};

/// Corrects the checksums of a file, from the leaves up to the meta pages, as far as its pointers
/// lead to pages.
pub fn seal_file(data: &mut [u8]) {
    let page_size = match layout::get_u32(data, at::PAGE_SIZE) as usize {
        size if limits::page_size_ok(size) => size,
        _ => limits::PAGE_SIZE_MIN,
    };
    let mut sealer = Sealer { data, page_size, sealed: HashMap::new() };
    for copy in [0, page_size / 2, page_size, page_size + page_size / 2] {
        if copy + at::RECORD_BYTES > sealer.data.len() {
            break;
        }
        for root in [at::CATALOG, at::FREE_SPACE, at::SNAPSHOTS] {
            sealer.pointer(copy + root, 0, 0);
        }
        let pages = layout::get_u48(sealer.data, copy + at::FREE_LIST + 10);
        sealer.extent_pointer(copy + at::FREE_LIST, pages);
        let crc = crc32fast::hash(&sealer.data[copy..copy + at::CHECKSUM]);
        layout::put_u32(sealer.data, copy + at::CHECKSUM, crc);
    }
}

struct Sealer<'a> {
    data: &'a mut [u8],
    page_size: usize,
    sealed: HashMap<u64, u32>,
}

impl Sealer<'_> {
    /// Seals the page to which the pointer at an offset leads, and stores its checksum in the
    /// pointer. If there is no such page, stores `old_crc`.
    fn pointer(&mut self, offset: usize, old_crc: u32, depth: usize) {
        if offset + layout::CHILD_BYTES > self.data.len() {
            return;
        }
        let id = layout::get_u48(self.data, offset);
        let crc = self.page(id, depth).unwrap_or(old_crc);
        layout::put_u32(self.data, offset + 6, crc);
    }

    fn extent_pointer(&mut self, offset: usize, pages: u64) {
        if offset + layout::CHILD_BYTES > self.data.len() {
            return;
        }
        let id = layout::get_u48(self.data, offset);
        if let Some(crc) = self.seal(id, pages) {
            layout::put_u32(self.data, offset + 6, crc);
        }
    }

    fn page(&mut self, id: u64, depth: usize) -> Option<u32> {
        let start = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
        if let Some(&crc) = self.sealed.get(&id) {
            return Some(crc);
        }
        if id < 2 || depth > limits::DEPTH_MAX || start.checked_add(self.page_size)? > self.data.len() {
            return None;
        }
        self.sealed.insert(id, 0);
        let count = usize::from(layout::get_u16(self.data, start + layout::COUNT));
        let end = start + self.page_size;
        match self.data[start + layout::KIND] {
            1 => {
                let slots = start + layout::LEAF_HEADS + count * layout::HEAD_BYTES;
                for slot in (slots..end).step_by(layout::SLOT_BYTES).take(count) {
                    let entry = start + usize::from(layout::get_u16(self.data, slot));
                    self.entry(entry.min(end - 1), end, depth);
                }
            }
            2 => {
                let children = start + layout::BRANCH_HEADS + count * (layout::HEAD_BYTES + layout::SLOT_BYTES);
                for child in (children..end).step_by(layout::CHILD_BYTES).take(count) {
                    self.pointer(child, 0, depth + 1);
                }
                let slots = start + layout::BRANCH_HEADS + count * layout::HEAD_BYTES;
                for slot in (slots..end).step_by(layout::SLOT_BYTES).take(count) {
                    self.long_rest(start + usize::from(layout::get_u16(self.data, slot)), end);
                }
            }
            _ => {}
        }
        let crc = self.seal(id, 1)?;
        self.sealed.insert(id, crc);
        Some(crc)
    }

    /// Seals the extent of a long separator, if the rest at an offset has a pointer to one.
    fn long_rest(&mut self, rest: usize, end: usize) {
        let word = layout::get_u16(self.data, rest);
        let pointer = rest + layout::REST_HEADER_BYTES + usize::from(word & !layout::LONG_REST);
        if word & layout::LONG_REST != 0 && pointer + layout::LONG_KEY_PTR_BYTES <= end {
            self.long_key(pointer);
        }
    }

    fn long_key(&mut self, pointer: usize) {
        let bytes = u64::from(layout::get_u32(self.data, pointer + layout::CHILD_BYTES));
        self.extent_pointer(pointer, (bytes + layout::HEADER_BYTES as u64).div_ceil(self.page_size as u64));
    }

    /// Seals the target of an entry of a leaf: overflow extents, the tree of a table, or the
    /// catalog of a named snapshot.
    fn entry(&mut self, entry: usize, end: usize, depth: usize) {
        let word = layout::get_u16(self.data, entry);
        let key_bytes = usize::from(word) & layout::KEY_BYTES_MAX;
        let mut value = entry + layout::ENTRY_HEADER_BYTES + key_bytes;
        if word & layout::LONG_KEY != 0 {
            if value + layout::LONG_KEY_PTR_BYTES > end {
                return;
            }
            self.long_key(value);
            value += layout::LONG_KEY_PTR_BYTES;
        }
        if value + layout::OVERFLOW_PTR_BYTES > end {
            return;
        }
        let tree = layout::get_u32(self.data, (end - self.page_size) + layout::TREE);
        match word >> layout::VALUE_KIND_BIT {
            1 => {
                let bytes = layout::get_u64(self.data, value + layout::CHILD_BYTES);
                let pages = bytes.saturating_add(layout::HEADER_BYTES as u64).div_ceil(self.page_size as u64);
                self.extent_pointer(value, pages);
            }
            0 if tree == 0 => self.pointer(value + 9, 0, depth + 1),
            0 if tree == 2 => self.pointer(value + 24, 0, depth + 1),
            _ => {}
        }
    }

    fn seal(&mut self, id: u64, pages: u64) -> Option<u32> {
        let start = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
        let end = start.checked_add(usize::try_from(pages).ok()?.checked_mul(self.page_size)?)?;
        let page = self.data.get_mut(start..end).filter(|page| id >= 2 && !page.is_empty())?;
        let crc = crc32fast::hash(&page[layout::CHECKED..]);
        layout::put_u32(page, layout::CHECKSUM, crc);
        Some(crc)
    }
}
