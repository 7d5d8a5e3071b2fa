//! Changing the values of one key in place: a value set in a leaf gets a value more or less.
//!
//! Floor: page. Part of [`LeafMut`]. The entries below the changed place move, once for a packed
//! set and twice for a set with ends; nothing else of the page is written.
//!
//! Failure: `false` means that there is no room and that the page is untouched. A damaged set is a
//! `DecodeError`.

use super::bad;
use super::layout::{put_u16, ENTRY_HEADER_BYTES};
use super::leaf::{EntryAt, LeafValue, SET};
use super::leaf_mut::LeafMut;
use super::value_set::{SetChange, Shape, ValueSet};
use crate::error::DecodeError;

impl LeafMut<'_> {
    /// Changes the value set of entry `index`. The set has at most `limit` bytes afterwards.
    pub(crate) fn change_set(
        &mut self,
        index: usize,
        shape: Shape,
        change: SetChange<'_>,
        limit: usize,
    ) -> Result<bool, DecodeError> {
        let entry = self.locate_entry(index)?;
        let LeafValue::Set(bytes) = self.as_leaf().value(index)? else {
            return Err(bad(self.id, "value kind of an entry with a value set", 0, SET.into()));
        };
        let Some(gaps) = change.gaps(&ValueSet::new(bytes, shape)) else {
            return Err(bad(self.id, "bytes of a value set", bytes.len() as u64, bytes.len() as u64));
        };
        let more = gaps.bytes();
        let grows = matches!(change, SetChange::Insert(..));
        if grows && (more > self.upper - self.lower() || bytes.len() + more > limit) {
            return Ok(false);
        }
        let start = entry.offset + ENTRY_HEADER_BYTES + entry.key_bytes;
        let (value_at, value_bytes) = (start + gaps.value_at, gaps.value_bytes);
        let end_bytes = (more - value_bytes) as isize;
        let end_at = start + gaps.end_at.unwrap_or(0);
        let value_bytes = value_bytes as isize;
        if grows {
            self.move_entries(value_at, entry.offset, -value_bytes);
            if end_bytes > 0 {
                self.move_part(end_at, &entry, -value_bytes, -end_bytes);
            }
        } else {
            self.move_entries(value_at, entry.offset, value_bytes);
            if end_bytes > 0 {
                self.move_part(end_at, &entry, value_bytes, end_bytes);
            }
        }
        let moved = if grows { -(more as isize) } else { more as isize };
        let offset = entry.offset.wrapping_add_signed(moved);
        let length = entry.value_bytes.wrapping_add_signed(-moved);
        put_u16(self.page, offset + 2, length as u16);
        let value_start = offset + ENTRY_HEADER_BYTES + entry.key_bytes;
        change.finish(&mut self.page[value_start..value_start + length], gaps);
        self.write_header();
        Ok(true)
    }

    /// Moves the entries below a place in a set a second time, after they have moved by `before`.
    fn move_part(&mut self, end: usize, entry: &EntryAt, before: isize, distance: isize) {
        let (end, last) = (end.wrapping_add_signed(before), entry.offset.wrapping_add_signed(before));
        self.move_entries(end, last, distance);
    }
}
