//! The parts of `bench`, which measures the speed of a database on the user's disk, repeatably.
//!
//! `bench` verifies every value that it reads: the seed, the key and the version in the value
//! determine its bytes. The seed also determines the operations of each thread.
//!
//! ```text
//! data       generates keys and values, verifies values
//! zipf       chooses popular entries
//! histogram  latencies and their percentiles
//! file       the database: a new one, or one of an earlier run
//! workload   the workloads and their mixes of operations
//! kind       the kinds of operations that are counted
//! operate    executes the operations
//! run        threads, time limits, counts
//! report     the table and the JSON object
//! ```

pub(crate) mod data;
pub(crate) mod file;
pub(crate) mod histogram;
pub(crate) mod kind;
pub(crate) mod operate;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod workload;
pub(crate) mod zipf;
