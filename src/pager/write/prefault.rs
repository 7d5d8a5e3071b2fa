//! Prefaulting fresh pages ahead of a large transaction, on a helper thread.
//!
//! Floor: pager. The first store to a new page of the file costs a page fault of some microseconds,
//! which is most of the time of a bulk load. A helper thread takes these faults ahead of the
//! writer. It only makes the kernel populate pages and never reads or writes one, so it needs no
//! claim. If it is too slow, the writer takes the faults itself.
//!
//! Failure: none. If the thread cannot prefault a page, the writer's store gets the fault, and the
//! error.

use std::panic::RefUnwindSafe;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::best_effort;
use crate::mapping::Mapping;
use crate::sys::fork;

/// Fresh pages of a transaction from which on starting a thread pays.
pub(crate) const THREAD_FROM_PAGES: u64 = 2048;

/// Maximum number of pages to prefault ahead of the writer, and pages of one request.
const AHEAD_PAGES: u64 = 4096;
const REQUEST_PAGES: u64 = 512;

/// A thread that prefaults pages until it is dropped.
#[derive(Debug)]
pub(crate) struct Prefaulter {
    requests: Option<SyncSender<(u64, u64)>>,
    thread: Option<JoinHandle<()>>,
    /// The process that has the thread.
    process: u32,
    /// First page that was not requested yet.
    next_page: u64,
}

// A shared reference gives no access to the thread.
impl RefUnwindSafe for Prefaulter {}

impl Prefaulter {
    /// Starts the thread; `None` if the kernel refuses one.
    pub(crate) fn start(mapping: Arc<Mapping>, page_shift: u32, from: u64) -> Option<Prefaulter> {
        let (requests, work) = sync_channel::<(u64, u64)>(1);
        let prefault = move || {
            for (page, pages) in work {
                if mapping.prefault(page << page_shift, pages << page_shift).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mapleaf-populate".into()).spawn(prefault).ok()?;
        Some(Prefaulter { requests: Some(requests), thread: Some(thread), process: fork::id(), next_page: from })
    }

    /// Requests pages from `end` on, at most to page `limit`. `fresh` is the number of new pages in
    /// this transaction, which decides how far ahead to go.
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

impl Drop for Prefaulter {
    fn drop(&mut self) {
        if self.process != fork::id() {
            // In a child after `fork`: the thread is the parent's, and joining it would never
            // return.
            std::mem::forget((self.requests.take(), self.thread.take()));
            return;
        }
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread has at most two requests left. A panic of the thread would be a bug that
            // only costs speed.
            best_effort(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::MapOptions;

    #[test]
    fn pages_are_requested_once_and_never_past_the_limit() {
        let mapping =
            Mapping::anonymous(MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None })
                .expect("memory");
        let mut write_map = mapping.write_map().expect("the writable mapping");
        mapping.grow(&mut write_map, 4096 * 10_000).expect("room");
        let mut prefaulter = Prefaulter::start(Arc::new(mapping), 12, 100).expect("a thread");
        prefaulter.keep_ahead(100, 400, 10_000);
        assert_eq!(prefaulter.next_page, 100, "too few pages for a request");
        for end in 100..9_000 {
            prefaulter.keep_ahead(end, 8_000, 5_000);
            assert!(prefaulter.next_page <= 5_000);
        }
        assert!(prefaulter.next_page > 100);
    }
}
