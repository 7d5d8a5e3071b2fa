//! `bench`: how fast a database is on the user's own disk, in figures that can be had again.
//!
//! Everything that is read is verified: a value follows from its key, a version that stands in it,
//! and the seed. The seed determines what each thread does.
//!
//! ```text
//! data       keys and values, and whether a value is right
//! zipf       which entries are popular
//! histogram  latencies and their percentiles
//! file       the database: made, or one that an earlier run has left; never a file of another program
//! workload   what there is to measure, and of which operations it is mixed
//! operate    the operations
//! run        threads, time, and when to stop
//! report     what is printed
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
