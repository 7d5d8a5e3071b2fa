//! The writing child: executes transactions of the plan until it is killed.
//!
//! It prints `begin N` before commit N and `done N` after it returned, each line in one write, so
//! that the parent knows which transactions the file must hold. The writer ends by itself only if
//! the parent has closed the pipe.

use std::io::{self, Write};
use std::path::Path;

use mapleaf::{Db, WriteTxn};

use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::torture::judge;
use crate::torture::plan::{Plan, Step, COUNTERS};

/// Number of commits after which the writer closes and reopens the file, so that some kills hit
/// opening and closing.
const COMMITS_PER_OPENING: u64 = 16;

/// Writes until it is killed.
pub(crate) fn run(path: &Path, plan: Plan) -> Outcome {
    let failed = |error| Failure::of_database(error, path);
    loop {
        let db = open::or_create(path)?;
        let (plan, mut number) = match judge::counters(&db).map_err(failed)? {
            Some((plan, number)) => (plan, number),
            None => {
                commit(&db, 0, |txn| mark(txn, plan)).map_err(failed)?;
                (plan, 0)
            }
        };
        for _ in 0..COMMITS_PER_OPENING {
            number += 1;
            // A reader beside some transactions keeps freed pages pending.
            let _reader = (number % 5 == 0).then(|| db.begin_read()).transpose().map_err(failed)?;
            let continues = commit(&db, number, |txn| execute(txn, plan, number)).map_err(failed)?;
            if !continues {
                return Ok(Exit::Done);
            }
        }
    }
}

/// Executes one transaction, and prints before and after its commit. False if the parent has closed
/// the pipe.
fn commit(db: &Db, number: u64, fill: impl FnOnce(&mut WriteTxn) -> mapleaf::Result<()>) -> mapleaf::Result<bool> {
    let mut txn = db.begin_write()?;
    fill(&mut txn)?;
    let begun = print_line(&format!("begin {number}\n"));
    txn.commit()?;
    Ok(begun && print_line(&format!("done {number}\n")))
}

fn print_line(line: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Stores the entries that mark a database of `torture`.
pub(crate) fn mark(txn: &mut WriteTxn, plan: Plan) -> mapleaf::Result<()> {
    let mut counters = txn.bytes_table(COUNTERS)?;
    counters.insert(b"seed", &plan.seed.to_be_bytes())?;
    counters.insert(b"keys", &plan.keys.to_be_bytes())?;
    counters.insert(b"transaction", &0u64.to_be_bytes())?;
    Ok(())
}

/// Executes the steps of transaction `number`.
pub(crate) fn execute(txn: &mut WriteTxn, plan: Plan, number: u64) -> mapleaf::Result<()> {
    for step in plan.steps(number) {
        match step {
            Step::Put(table, key, value) => drop(txn.bytes_table(table)?.insert(&key, &value.bytes())?),
            Step::Delete(table, key) => drop(txn.bytes_table(table)?.remove(&key)?),
            Step::Drop(table) => drop(txn.drop_table(table)?),
        }
    }
    txn.bytes_table(COUNTERS)?.insert(b"transaction", &number.to_be_bytes())?;
    Ok(())
}
