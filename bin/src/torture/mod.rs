//! `torture`: processes that are killed while they write, and the proof that nothing was lost.
//!
//! The parent (`run`) starts children, kills them and counts; it never opens the database itself,
//! so that a death while reading is a finding and not the end of the run. Children are this program
//! under the verb `torture-child`: a writer (`writer`) carries out the transactions of a `plan`, in
//! where seed and n determine transaction n; a judge (`judge`) computes what the database must
//! hold and compares.
//!
//! ```text
//! plan     what transaction n does, and what the tables hold after it
//! writer   child: transactions without end, each announced and confirmed on its standard output
//! judge    child: exactly a state of the plan? of a damaged copy: right or an error?
//! process  children as the parent sees them
//! kill     one cycle's kill
//! copies   copies that are cut short or get flipped bits
//! run      the cycles
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
