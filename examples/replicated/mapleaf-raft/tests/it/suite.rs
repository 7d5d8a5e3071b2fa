//! openraft's own suite, on files.

use mapleaf_raft::{LogFile, LogStore, State, StateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{StorageError, StorageIOError};
use tempfile::TempDir;

use crate::support::{Count, Types};

struct Files;

fn on_files(dir: &TempDir) -> mapleaf_raft::Result<(LogStore<Types>, StateMachine<Count>)> {
    let log = LogFile::open(dir.path().join("log.mapleaf"))?.group(0)?;
    Ok((log, StateMachine::new(State::open(dir.path())?, Count)))
}

impl StoreBuilder<Types, LogStore<Types>, StateMachine<Count>, TempDir> for Files {
    async fn build(&self) -> Result<(TempDir, LogStore<Types>, StateMachine<Count>), StorageError<u64>> {
        let dir = tempfile::tempdir().map_err(|e| StorageIOError::write(&e))?;
        let (log, machine) = on_files(&dir).map_err(|e| StorageIOError::write(&e))?;
        Ok((dir, log, machine))
    }
}

#[test]
fn all_cases_of_openraft_pass() {
    Suite::test_all(Files).expect("all cases");
}
