//! `torture`: processes that are killed while they write, and the proof that nothing was lost.
//!
//! The parent (`run`) starts children, kills them and counts; it never opens the database itself, so that a death while
//! reading is a finding and not the end of the run. Children are this program under the verb `torture-child`: a writer
//! (`writer`) carries out the transactions of a `plan`, in which number n follows from seed and n alone; a judge
//! (`judge`) computes what the database must hold and compares.
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

/// Random numbers (SplitMix64): small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream that belongs to a seed and a number.
    pub(crate) fn of(seed: u64, number: u64) -> Rng {
        let mut rng = Rng(seed);
        Rng(rng.next() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
