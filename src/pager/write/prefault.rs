//! Populating fresh pages ahead of a large transaction, on a thread of its own.
//!
//! Floor: pager. The first store to a page that the file has just got costs a fault of some
//! microseconds, most of a bulk load. A helper thread takes these faults ahead of the writer. It
//! only asks the kernel for pages, never reads or writes one, so it needs no claim; where it lags,
//! the writer takes the faults itself.
//!
//! Failure: none. What the thread cannot prefault, the writer's own store finds out.

use std::panic::RefUnwindSafe;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::mapping::Mapping;
use crate::sys::fork;

/// Fresh pages in a transaction before a thread is worth its start.
pub(crate) const THREAD_FROM_PAGES: u64 = 2048;

/// Pages prefaulted ahead at most, and in one request.
const AHEAD_PAGES: u64 = 4096;
const REQUEST_PAGES: u64 = 512;

/// A thread that prefaults pages until it is dropped.
#[derive(Debug)]
pub(crate) struct Populator {
    requests: Option<SyncSender<(u64, u64)>>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread lives in.
    process: u32,
    /// First page that was not asked for.
    next_page: u64,
}

// Nothing is done with the thread through a shared reference.
impl RefUnwindSafe for Populator {}

impl Populator {
    /// Starts the thread; `None` if the kernel has none to give.
    pub(crate) fn start(mapping: Arc<Mapping>, page_shift: u32, from: u64) -> Option<Populator> {
        let (requests, work) = sync_channel::<(u64, u64)>(1);
        let prefault = move || {
            for (page, pages) in work {
                if mapping.prefault(page << page_shift, pages << page_shift).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mapleaf-populate".into()).spawn(prefault).ok()?;
        Some(Populator { requests: Some(requests), thread: Some(thread), process: fork::id(), next_page: from })
    }

    /// Asks for pages ahead of `end`, of which `fresh` are new in this transaction, up to page
    /// `limit`.
    pub(crate) fn keep_ahead(&mut self, end: u64, fresh: u64, limit: u64) {
        let from = self.next_page.max(end);
        let to = (end + (fresh / 4).min(AHEAD_PAGES)).min(limit).min(from + REQUEST_PAGES);
        if to < from + REQUEST_PAGES.min(limit.saturating_sub(from)) || to <= from {
            return;
        }
        if let Some(requests) = &self.requests {
            if requests.try_send((from, to - from)).is_ok() {
                self.next_page = to;
            }
        }
    }
}

impl Drop for Populator {
    fn drop(&mut self) {
        if self.process != fork::id() {
            // A child after `fork`: the thread is its parent's, and waiting for it would not end.
            std::mem::forget((self.requests.take(), self.thread.take()));
            return;
        }
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has at most two requests left. A panic in it would be a bug that costs
            // only speed.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::MapOptions;

    #[test]
    fn pages_are_asked_for_once_and_never_beyond_the_limit() {
        let mapping =
            Mapping::anonymous(MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None })
                .expect("memory");
        let mut write_map = mapping.write_map().expect("the writable mapping");
        mapping.grow(&mut write_map, 4096 * 10_000).expect("room");
        let mut populator = Populator::start(Arc::new(mapping), 12, 100).expect("a thread");
        populator.keep_ahead(100, 400, 10_000);
        assert_eq!(populator.next_page, 100, "a tenth of a request is not worth asking");
        for end in 100..9_000 {
            populator.keep_ahead(end, 8_000, 5_000);
            assert!(populator.next_page <= 5_000);
        }
        assert!(populator.next_page > 100);
    }
}
