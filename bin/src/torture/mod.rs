//! The parts of `torture`, which kills processes while they write, and checks that no acknowledged
//! commit is lost.
//!
//! The parent (`run`) starts children, kills them and counts. It never opens the database itself,
//! so that a crash while reading is a finding and does not end the run. A child is this program
//! with the verb `torture-child`. A writer (`writer`) executes the transactions of a `plan`; seed
//! and n determine transaction n. A judge (`judge`) computes the expected contents of the database
//! and compares them with the file.
//!
//! ```text
//! plan     the steps of transaction n, and the contents of the tables after it
//! writer   child: commits until it is killed, and prints before and after each commit
//! judge    child: compares a database, or a damaged copy, with the plan
//! process  starts a child, reads its output, ends it
//! kill     one kill: its moment, and the reports of the writer before it
//! copies   makes copies that are cut short or have changed bytes
//! run      the cycles: kill, judge, damage copies
//! report   the summary
//! ```

pub(crate) mod copies;
pub(crate) mod judge;
pub(crate) mod kill;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod writer;
