//! The hooks without the feature `testing`: nothing is watched, nothing fails, nothing is counted.
//!
//! Floor: hooks.
#![allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the signatures are those of `active`")]

use std::io;
use std::path::Path;

use super::{Creation, FlushKind, Mapped, Moment, Mutant, Recovery};

/// The hooks of one mapping: none.
#[derive(Default)]
pub(crate) struct MappingHooks;

#[rustfmt::skip]
impl MappingHooks {
    pub(crate) fn take_next() -> MappingHooks { MappingHooks }
    pub(crate) fn none() -> MappingHooks { MappingHooks }
    pub(crate) fn is_set(&self) -> bool { false }
    pub(crate) fn growing(&self, _new_len: u64) -> io::Result<()> { Ok(()) }
    pub(crate) fn resized(&self, _new_len: u64) {}
    pub(crate) fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> { Ok(()) }
    pub(crate) fn log_write_fails_after(&self, _offset: u64, _len: u64) -> Option<u64> { None }
    pub(crate) fn wrote(&self, _offset: u64, _len: u64) {}
    pub(crate) fn wrote_log(&self, _offset: u64, _len: u64) -> io::Result<()> { Ok(()) }
    pub(crate) fn writing_back(&self, _offset: u64, _len: u64) -> io::Result<()> { Ok(()) }
    pub(crate) fn stored_meta(&self, _slot: usize) {}
    pub(crate) fn before_flush(&self, _: &dyn Mapped, _: FlushKind, _offset: u64, _len: u64) -> io::Result<()> { Ok(()) }
    pub(crate) fn after_flush(&self, _: &dyn Mapped, _: FlushKind, _offset: u64, _len: u64) -> io::Result<()> { Ok(()) }
}

pub(crate) fn inheritance() -> Option<Mutant> {
    None
}

pub(crate) fn log_shape() -> Option<(u64, u64)> {
    None
}

pub(crate) fn inherit(_given: Option<Mutant>) {}

pub(crate) fn creating(_step: Creation, _temporary: &Path, _path: &Path) {}

pub(crate) fn recovering(_step: Recovery, _path: &Path) {}

#[inline(always)]
pub(crate) fn reach(_moment: Moment) {}

#[inline(always)]
pub(crate) fn is_scheduled() -> bool {
    false
}

#[inline(always)]
pub(crate) fn waits(_moment: Moment) -> bool {
    false
}

#[inline(always)]
pub(crate) fn note(_value: u64) {}

#[inline(always)]
pub(crate) fn chain() -> Option<u32> {
    None
}

#[inline(always)]
pub(crate) fn sole() -> Option<bool> {
    None
}

#[inline(always)]
pub(crate) fn is(_mutant: Mutant) -> bool {
    false
}

#[inline(always)]
pub(crate) fn count_step() {}

pub(crate) fn is_strict() -> bool {
    false
}

pub(crate) fn file_system() -> Option<i128> {
    None
}

pub(crate) fn has_attributes() -> bool {
    true
}

pub(crate) fn move_fails() -> bool {
    false
}

pub(crate) fn note_others(_start: usize, _len: usize) {}
