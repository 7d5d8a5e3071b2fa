//! Opening a file to scratch: the whole database works, and nothing reaches the file.
//!
//! Floor: txn. A scratch environment stands on a read transaction of the file, which it keeps until
//! it is closed. It has live records, locks and a writer of its own, all in private memory.
//!
//! ```text
//! page      0 ................ page count of the snapshot ................
//! mapped    the file, shared and read-only        | memory of this process
//! ```
//!
//! A `MAP_PRIVATE` mapping of the file would show later changes of every page that it has not
//! copied yet, and has a copy for each mapping. So the file is mapped read-only, and new pages lie
//! in memory after it. The writer changes only pages that it has allocated (R1), so it never wants
//! to store to a page of the file; the mapping would refuse it.
//!
//! Invariants:
//!   SCRATCH-1  the pages of the file that the scratch environment reads are those that the
//!       snapshot reaches. No writer of any process changes them while the snapshot lives (R5).
//!   SCRATCH-2  no page of the file is allocated. The durable meta page of the scratch environment
//!       stays that of the snapshot: so pages that the snapshot reaches are never usable. All other
//!       pages of the file are freed by the first transaction as if the snapshot reached them.
//!   SCRATCH-3  no meta page is stored, nothing is flushed, and there is no log (`Core::keep`).
//!
//! Failure: as opening the file read-only; `NotFound` if there is none, `Usage` for options that
//! contradict. An access that the kernel cannot serve is [`Error::Fault`], as for readers.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId, TxnId};
use crate::mapping::{MapOptions, Mapping};
use crate::page::free_list::FreeItem;
use crate::page::meta::{ExtentPtr, LogDescriptor, TreeRoot};
use crate::tree;
use crate::txn::env::{Env, EnvParts};
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::live::Live;
use crate::txn::open::{open, OpenSpec};
use crate::txn::read::snapshot::{ReadPool, ReadTxn};
use crate::txn::state::State;
use crate::txn::write::txn::RunningTxn;

/// The name of the read transaction, for `Db::readers`.
const LABEL: &str = "scratch";

/// Opens the published state of a file to scratch.
pub(super) fn open_scratch(path: &Path, spec: &OpenSpec) -> Result<Arc<Env>> {
    for (given, option) in [
        (spec.read_only, "read_only"),
        (spec.exclusive, "exclusive"),
        (spec.recover, "recover"),
        (spec.init_empty, "init_empty"),
    ] {
        if given {
            return Err(Error::usage(format!(
                "{}: Options::scratch changes nothing in the file, so it contradicts Options::{option}; leave one of \
                 them out",
                path.display()
            )));
        }
    }
    let read_only = OpenSpec { read_only: true, create: false, scratch: false, ..spec.clone() };
    let base = ReadPool::new(open(path, &read_only)?).begin()?;
    base.set_label(LABEL);
    let unused = base.check_fault(unused_extents(&base))?;
    let state = base.state();
    let start = State {
        free_space: TreeRoot::empty(TreeId::FREE_SPACE),
        free_list: ExtentPtr::default(),
        log: LogDescriptor::default(),
        last_immediate: state.txn,
        superseded: 0,
        ..*state
    };
    let page_size = base.env().page_size;
    let options = MapOptions {
        page_size,
        window_bytes: spec.window_bytes,
        fault_guard: base.env().mapping.has_fault_guard(),
        used_bytes: None,
    };
    let mapping = Mapping::over_mapping(&base.env().mapping, state.page_count * page_size as u64, options);
    let mapping = mapping.map_err(|e| Error::io("mapping the file", path, e))?;
    mapping.set_read_ahead(spec.read_ahead.unwrap_or_default());
    let parts = EnvParts {
        path: path.to_path_buf(),
        meta: base.env().meta_page_of(&start),
        live: Live::new(start, 0),
        read_only: false,
        opened: spec.clone(),
        lock: None,
    };
    let env = Arc::new(Env::over(base, parts, mapping));
    keep_file_pages(&env, &unused)?;
    Ok(env)
}

/// The pages of the file that a snapshot reaches only for their free space or log, or not at all.
fn unused_extents(txn: &ReadTxn) -> Result<Vec<(PageId, u64)>> {
    let (pages, state) = (txn.pages(), txn.state());
    let mut unused = Vec::new();
    free_extents::walk(pages, state, &mut |record| {
        unused.push(match record {
            FreeRecord::Usable { start, pages } => (start, pages),
            FreeRecord::Pending(item) => (item.start, item.pages),
        });
        Ok(())
    })?;
    let mut map = crate::pager::read::page_map::PageMap::new(state.page_count);
    let mut reached = Vec::new();
    tree::measure(pages, &state.free_space, &mut |id, pages| {
        reached.push((id, pages));
        map.take(id, pages).is_none()
    })?;
    unused.extend(reached);
    unused.push((state.free_list.ptr.id, state.free_list.pages));
    unused.push((state.log.first, state.log.pages));
    unused.retain(|&(_, pages)| pages > 0);
    unused.sort_unstable();
    Ok(unused)
}

/// Makes the first state of the scratch environment: its free space has the unused pages of the
/// file, as pages that the snapshot reaches (SCRATCH-2).
fn keep_file_pages(env: &Arc<Env>, unused: &[(PageId, u64)]) -> Result<()> {
    env.writer_lock.acquire(None);
    let mut txn = RunningTxn::begin(Arc::clone(env))?;
    txn.add_freed(unused.iter().map(|&(start, pages)| (start, pages)));
    txn.keep_state()
}

impl RunningTxn {
    /// Adds extents to the freed ones, as if every state reached them.
    fn add_freed(&mut self, extents: impl Iterator<Item = (PageId, u64)>) {
        let freed = self.basis.latest.txn.next();
        let Some(writer) = &mut self.writer else { return };
        for (start, pages) in extents {
            writer.pages.free.add_freed(FreeItem { start, pages, born: TxnId(0), freed });
        }
    }
}
