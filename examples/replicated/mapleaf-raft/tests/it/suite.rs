//! openraft's own suite, on files, without and with the hooks that record them for power cuts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use mapleaf::testing::{set_hooks, FlushEvent, Hooks};
use mapleaf_raft::{LogFile, LogStore, State, StateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{StorageError, StorageIOError};
use tempfile::TempDir;

use crate::support::{Count, Types};

/// Counts flushes.
#[derive(Default)]
struct Watch(AtomicU64);

impl Hooks for Watch {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Files {
    watch: Option<Arc<Watch>>,
}

impl Files {
    fn make(&self, dir: &TempDir) -> mapleaf_raft::Result<(LogStore<Types>, StateMachine<Count>)> {
        let (log, state) = (LogFile::open(dir.path().join("log.mapleaf"))?, State::open(dir.path())?);
        if let Some(watch) = &self.watch {
            set_hooks(log.db(), Arc::clone(watch) as Arc<dyn Hooks>);
            set_hooks(&state.db(), Arc::clone(watch) as Arc<dyn Hooks>);
        }
        Ok((log.group(0)?, StateMachine::new(state, Count)))
    }
}

impl StoreBuilder<Types, LogStore<Types>, StateMachine<Count>, TempDir> for Files {
    async fn build(&self) -> Result<(TempDir, LogStore<Types>, StateMachine<Count>), StorageError<u64>> {
        let dir = tempfile::tempdir().map_err(|e| StorageIOError::write(&e))?;
        let (log, machine) = self.make(&dir).map_err(|e| StorageIOError::write(&e))?;
        Ok((dir, log, machine))
    }
}

#[test]
fn all_cases_of_openraft_pass() {
    Suite::test_all(Files { watch: None }).expect("all cases");
}

#[test]
fn all_cases_of_openraft_pass_with_hooks() {
    let watch = Arc::new(Watch::default());
    Suite::test_all(Files { watch: Some(Arc::clone(&watch)) }).expect("all cases");
    assert!(watch.0.load(Ordering::Relaxed) > 35, "the hooks saw fewer flushes than there are cases");
}
