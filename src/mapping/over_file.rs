//! Memory over a file: the file is mapped read-only, and memory that can be stored to after it.
//!
//! Floor: mapping. A replay of a read-only open uses it, and a scratch environment.
//!
//! Invariants:
//!   BASE-1  the file is mapped only for reading, in both ranges of the window: a store to its
//!       pages is a SIGSEGV.
//!
//! Failure: errors of the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::{MapOptions, Mapping};
use crate::sys::{call, descriptor, file_calls, refused};

/// Bytes of each copy from memory to memory.
const COPY_BYTES: usize = 1 << 20;

impl Mapping {
    /// Maps the first `used` bytes of a file read-only, and memory after them, which can be stored
    /// to. The file is not changed.
    pub(crate) fn over_file(base: File, used: u64, options: MapOptions) -> io::Result<Mapping> {
        let memory = descriptor::memory_file()?;
        file_calls::set_len(&memory, used)?;
        // A kernel page that the file and the memory share is copied.
        let whole = used & !(call::page_bytes() - 1);
        let mut rest = vec![0; (used - whole) as usize];
        base.read_exact_at(&mut rest, whole).map_err(refused::by("pread"))?;
        file_calls::write_at(&memory, &rest, whole)?;
        let mapping = Mapping::new(memory, true, (true, Some((Arc::new(base), whole))), None, options)?;
        mapping.ready_to_write()?;
        Ok(mapping)
    }

    /// Maps the first `used` bytes of a mapped file read-only, and memory after them. Of a mapping
    /// that has memory over a file itself, copies that memory.
    pub(crate) fn over_mapping(base: &Mapping, used: u64, options: MapOptions) -> io::Result<Mapping> {
        let (file, from_file) = match &base.shared.base {
            Some((file, len)) => (file, used.min(*len)),
            None => (&base.file, used),
        };
        let mapping = Mapping::over_file(file.try_clone()?, from_file, options)?;
        if from_file < used {
            if let Some(mut write_map) = mapping.write_map() {
                mapping.grow(&mut write_map, used)?;
            }
            let mut chunk = vec![0; COPY_BYTES];
            for offset in (from_file..used).step_by(COPY_BYTES) {
                let bytes = &mut chunk[..COPY_BYTES.min((used - offset) as usize)];
                base.read_at(offset, bytes)?;
                file_calls::write_at(&mapping.file, bytes, offset)?;
            }
        }
        Ok(mapping)
    }

    /// From now on, nothing is stored to memory over a file: the end of the file is watched.
    pub(crate) fn watch_base(&self) -> io::Result<()> {
        match &self.shared.base {
            Some((base, len)) => {
                let window = self.window();
                // The sentinel after the memory, whose value does not count at another place.
                window.sentinel.retire();
                window.watch_last_byte(base, *len)
            }
            None => Ok(()),
        }
    }
}
