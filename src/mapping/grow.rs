//! Growth: extends the file and maps the new part, without blocking readers.
//!
//! Floor: mapping. One thread at a time changes the length or the mapping.
//!
//! ```text
//! 1  reserve address space   in the window if it has room, otherwise in a new, larger window
//! 2  map the new part        in both mappings; no thread can use it yet
//! 3  reserve blocks          so that a full disk is an error here and not a signal at a store
//! 4  make the file longer
//! 5  write the sentinel      after the new end
//! 6  check the old sentinel  a program may have cut the file since step 1
//! 7  publish                 the sentinel, then the length, then the window
//! 8  store `length`          for other processes, which then follow (P17)
//! ```
//!
//! Failure: `io::Error`. Then nothing is published, and the file gets its old length back.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::bounds::round_up;
use super::window::Window;
use super::{budget, lock, sentinel, FileEnd, Mapping, WriteMap};
use crate::error::best_effort;
use crate::hooks::{self, Moment};
use crate::sys::file_calls;

impl Mapping {
    /// Makes the file at least `new_len` bytes long (rounded up to whole pages), reserves its
    /// blocks and maps it. Afterwards `write_map` reaches the new pages. So do read-only mappings,
    /// unless the window was full: then they stay in the old window. An error changes nothing.
    pub(crate) fn grow(&self, write_map: &mut WriteMap, new_len: u64) -> io::Result<()> {
        assert!(write_map.belongs_to(self), "`write_map` belongs to another mapping");
        let new_len = round_up(new_len, self.page_size as u64)?;
        let _resizing = lock(&self.shared.resizing);
        let window = self.window();
        if new_len <= window.mapped() {
            write_map.switch(window);
            return Ok(());
        }
        self.hooks.growing(new_len)?;
        let old_len = self.file_len()?;
        if old_len < window.mapped() {
            self.shared.record.set(old_len);
        }
        if self.shared.record.is_set() {
            return Err(io::Error::other("an access to the mapping failed"));
        }
        match self.extend_file(&window, old_len, new_len) {
            Ok(next) => {
                self.publish(Arc::clone(&next), new_len, FileEnd::Sentinel);
                self.shared.length.store(new_len, FileEnd::Sentinel);
                write_map.switch(next);
                self.hooks.resized(new_len);
                Ok(())
            }
            Err(error) => {
                // Also frees the reserved blocks. If this fails, the file only stays too long. A
                // file that is shorter now was cut by another program, and extending it would hide
                // that.
                if self.file_len().is_ok_and(|len| len >= old_len) {
                    best_effort(file_calls::set_len(&self.file, old_len));
                }
                Err(error)
            }
        }
    }

    /// Maps and extends the file without publishing anything. Returns the window to publish.
    fn extend_file(&self, window: &Arc<Window>, old_len: u64, new_len: u64) -> io::Result<Arc<Window>> {
        let file_len = sentinel::file_len_for(new_len)?;
        // Address space first: if the kernel refuses it, nothing has changed yet, and the caller
        // may try a smaller step.
        let next = self.map_up_to(window, new_len)?;
        self.lengthen(old_len.min(window.mapped()), old_len, file_len)?;
        sentinel::write(&self.file, new_len)?;
        // If another program cut the file after `old_len` was read, the file was just extended
        // again, with a hole in it.
        if !window.all_served() {
            return Err(io::Error::other("the file was cut while it grew"));
        }
        if !self.anonymous && self.prefault_first.load(Ordering::Relaxed) {
            let (from, len) = (window.mapped(), new_len - window.mapped());
            if !next.prefault(from, len)? {
                // The new part holds no data yet, only the sentinel of the part in use.
                self.write_zeros(from, len, Some(sentinel::offset_after(from)))?;
            }
        }
        Ok(next)
    }

    /// Reserves blocks for the file from `used` on, then makes it longer. Does nothing if the file
    /// is long enough.
    fn lengthen(&self, used: u64, old_len: u64, new_len: u64) -> io::Result<()> {
        if new_len <= old_len {
            return Ok(());
        }
        hooks::reach(Moment::Lengthening);
        if !self.anonymous && !file_calls::reserve_blocks(&self.file, used, new_len - used)? {
            self.prefault_first.store(true, Ordering::Relaxed);
        }
        file_calls::set_len(&self.file, new_len)
    }

    /// Maps the file up to `new_len`: in the window if it has room, else in a new and larger one.
    fn map_up_to(&self, window: &Arc<Window>, new_len: u64) -> io::Result<Arc<Window>> {
        let mapped_to = sentinel::file_len_for(new_len)?;
        if new_len <= window.capacity() {
            match window.extend(&self.file, mapped_to) {
                // A move into the reservation failed and cost the reservation its tail (RESERVE-2):
                // use a new window.
                Err(_) if window.capacity() < new_len => {}
                result => {
                    let more = mapped_to - window.mapped();
                    return result.map(|()| Arc::clone(window)).map_err(|e| budget::explain(e, more));
                }
            }
        }
        let sizes = (budget::larger_window(window.capacity(), new_len, self.writable), new_len);
        let map = |next: &Window| next.extend(&self.file, mapped_to);
        let next = Arc::new(Window::reserve(sizes, self.page_size, self.writable, &self.shared, map)?);
        next.register_fault_flag();
        Ok(next)
    }

    /// Maps what other processes have added to the file, if they have.
    pub(crate) fn follow(&self) -> io::Result<()> {
        if !self.shared.follows {
            return Ok(());
        }
        let (len, end) = self.shared.length.load().ok_or_else(super::damaged_length)?;
        if !self.window().is_behind(len, end) {
            return Ok(());
        }
        let _resizing = lock(&self.shared.resizing);
        let window = self.window();
        if window.is_behind(len, end) {
            let next = self.map_up_to(&window, len)?;
            self.publish(next, len, end);
        }
        Ok(())
    }

    /// Gives the current window to the writer, after [`Mapping::follow`].
    pub(crate) fn follow_writing(&self, write_map: &mut WriteMap) {
        write_map.switch(self.window());
    }

    /// Bytes of the file that can be used.
    pub(crate) fn mapped(&self) -> u64 {
        self.window().mapped()
    }

    /// Publishes `len` bytes of a window, and makes the window the current one.
    fn publish(&self, window: Arc<Window>, len: u64, end: FileEnd) {
        window.watch_end(len, end);
        window.publish(len);
        let id = window.id();
        let current = self.window();
        if current.id() != id {
            current.sentinel.retire();
        }
        let old = std::mem::replace(&mut *lock(&self.current), window);
        self.window_id.store(id, Ordering::Release);
        // Unmaps the old window if no reader pins it. Outside the lock, because that takes time.
        drop(old);
    }

    /// Cuts the file to `new_len` bytes. If the file is not longer than that, gives back the blocks
    /// after its end. Only for closing: from now on no process reads past `new_len` through any
    /// mapping.
    pub(crate) fn shrink(&self, new_len: u64) -> io::Result<()> {
        let _resizing = lock(&self.shared.resizing);
        let new_len = new_len.min(self.file_len()?);
        let usable = new_len & !(self.page_size as u64 - 1);
        self.window().unpublish(usable);
        self.shared.length.store(usable, FileEnd::Untouched);
        file_calls::set_len(&self.file, new_len)?;
        self.hooks.resized(new_len);
        Ok(())
    }
}
