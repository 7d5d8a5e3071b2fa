//! Encoded bytes, and the error for bytes that do not decode.
//!
//! Floor: table.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use crate::error::Error;

/// Encoded bytes: borrowed from the item, stored inline if short, or on the heap.
///
/// Dereferences to `[u8]`. Encoding text, bytes, integers and short tuples of integers does not
/// allocate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Encoded<'a> {
    /// The item's own bytes.
    Borrowed(&'a [u8]),
    /// Up to 16 bytes, and the number of bytes in use.
    Inline([u8; INLINE_BYTES], u8),
    /// All others.
    Heap(Vec<u8>),
}

/// Room for the widest integer, and for `(u64, u64)`.
const INLINE_BYTES: usize = 16;

/// First capacity on the heap, for bytes that outgrow the inline form. Typical tuple keys fit, so
/// they move only once.
const HEAP_START_BYTES: usize = 64;

impl Encoded<'_> {
    /// Empty, to be filled with [`Encoded::push`].
    #[inline]
    pub const fn new() -> Encoded<'static> {
        Encoded::Inline([0; INLINE_BYTES], 0)
    }

    /// A copy of the bytes, inline if they are short.
    #[inline]
    pub fn copied(bytes: &[u8]) -> Encoded<'static> {
        let mut out = Encoded::new();
        out.push(bytes);
        out
    }

    /// Appends bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Encoded::Heap(all) => return all.extend_from_slice(bytes),
            Encoded::Inline(all, len) => {
                let start = usize::from(*len);
                if let Some(room) = all.get_mut(start..start + bytes.len()) {
                    room.copy_from_slice(bytes);
                    *len = (start + bytes.len()) as u8;
                    return;
                }
            }
            Encoded::Borrowed(_) => {}
        }
        self.spill(bytes);
    }

    /// The bytes, to be changed.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        if let Encoded::Borrowed(bytes) = self {
            *self = Encoded::Heap(bytes.to_vec());
        }
        match self {
            Encoded::Inline(bytes, len) => &mut bytes[..usize::from(*len).min(INLINE_BYTES)],
            Encoded::Heap(bytes) => bytes,
            Encoded::Borrowed(_) => &mut [],
        }
    }

    /// Moves to the heap and appends `more`.
    #[cold]
    fn spill(&mut self, more: &[u8]) {
        let mut all = Vec::with_capacity(HEAP_START_BYTES.max(self.len() + more.len()));
        all.extend_from_slice(self);
        all.extend_from_slice(more);
        *self = Encoded::Heap(all);
    }
}

impl Default for Encoded<'_> {
    fn default() -> Self {
        Encoded::new()
    }
}

impl Deref for Encoded<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Encoded::Borrowed(bytes) => bytes,
            // The variant is public, so the length may be invalid: `min` avoids a panic.
            Encoded::Inline(bytes, len) => &bytes[..usize::from(*len).min(INLINE_BYTES)],
            Encoded::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Encoded<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The error for bytes that a codec cannot decode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodecError {
    what: Cow<'static, str>,
}

impl CodecError {
    /// An error with this text, which says what was found and what was expected.
    #[cold]
    pub fn new(what: impl Into<Cow<'static, str>>) -> CodecError {
        CodecError { what: what.into() }
    }

    /// Adds the component of a tuple, counted from 1.
    #[cold]
    pub(super) fn in_component(self, number: usize, tuple: &str) -> CodecError {
        CodecError::new(format!("component {number} of {tuple}: {}", self.what))
    }

    /// Adds the element of a list, counted from 1.
    #[cold]
    pub(super) fn in_element(self, number: usize, list: &str) -> CodecError {
        CodecError::new(format!("element {number} of {list}: {}", self.what))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for CodecError {}

impl From<CodecError> for Error {
    #[cold]
    fn from(e: CodecError) -> Error {
        Error::Decode { path: None, table: None, what: e.what.into_owned() }
    }
}
