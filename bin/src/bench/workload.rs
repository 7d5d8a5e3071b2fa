//! The workloads, and the shares of operations in each mixed workload.

use clap::ValueEnum;

/// A workload, by its name on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Insert all entries into a new file, keys ascending
    FillSeq,
    /// Insert all entries into a new file, keys in random order
    Fill,
    /// Get random entries; each thread in one read transaction
    Read,
    /// Get many random entries in each call; each thread in one read transaction
    Multi,
    /// Read all entries in order
    Scan,
    /// Read all entries from the last to the first
    ScanReverse,
    /// Get and update random entries, each in its own transaction
    Mixed,
    /// YCSB A: 50 % get, 50 % update, Zipfian
    YcsbA,
    /// YCSB B: 95 % get, 5 % update, Zipfian
    YcsbB,
    /// YCSB C: 100 % get, Zipfian
    YcsbC,
    /// YCSB D: 95 % get of the latest, 5 % insert
    YcsbD,
    /// YCSB E: 95 % scan of 1 to 100, 5 % insert, Zipfian
    YcsbE,
    /// YCSB F: 50 % get, 50 % read and update, Zipfian
    YcsbF,
    /// YCSB A, B, C, F, D, E
    Ycsb,
    /// All of the above
    All,
}

use Workload::{
    All, Fill, FillSeq, Mixed, Multi, Read, Scan, ScanReverse, Ycsb, YcsbA, YcsbB, YcsbC, YcsbD, YcsbE, YcsbF,
};

/// The workloads of a new file, if none are requested. An existing file gets all of them except the
/// fills.
const DEFAULT: [Workload; 7] = [FillSeq, Fill, Read, Multi, Scan, ScanReverse, Mixed];
/// The workloads of YCSB, in the order that its authors recommend: workloads that insert are last.
const YCSB: [Workload; 6] = [YcsbA, YcsbB, YcsbC, YcsbF, YcsbD, YcsbE];

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    pub(crate) fn is_fill(self) -> bool {
        matches!(self, FillSeq | Fill)
    }

    /// The mix of a mixed workload, `None` for others. `reads` is the share of gets in `mixed`, in
    /// percent.
    pub(crate) fn mix(self, reads: u64) -> Option<Mix> {
        let none = Mix { gets: 0, updates: 0, inserts: 0, scans: 0, modifies: 0, choice: Choice::Zipf };
        Some(match self {
            Mixed => Mix { gets: reads, updates: 100 - reads, choice: Choice::Uniform, ..none },
            YcsbA => Mix { gets: 50, updates: 50, ..none },
            YcsbB => Mix { gets: 95, updates: 5, ..none },
            YcsbC => Mix { gets: 100, ..none },
            YcsbD => Mix { gets: 95, inserts: 5, choice: Choice::Latest, ..none },
            YcsbE => Mix { scans: 95, inserts: 5, ..none },
            YcsbF => Mix { gets: 50, modifies: 50, ..none },
            _ => return None,
        })
    }
}

/// The requested workloads in their order, with `ycsb` and `all` expanded.
pub(crate) fn expand(requested: &[Workload], on_new_file: bool) -> Vec<Workload> {
    // An existing file is filled already.
    let default = || DEFAULT.into_iter().filter(|workload| on_new_file || !workload.is_fill());
    let expanded = requested.iter().flat_map(|workload| match workload {
        Ycsb => YCSB.to_vec(),
        All => default().chain(YCSB).collect(),
        other => vec![*other],
    });
    if requested.is_empty() {
        return default().collect();
    }
    let mut all: Vec<Workload> = expanded.collect();
    match all.first() {
        Some(first) if on_new_file && !first.is_fill() => all.insert(0, Fill),
        _ => {}
    }
    all
}

/// Shares of operations, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mix {
    pub(crate) gets: u64,
    pub(crate) updates: u64,
    pub(crate) inserts: u64,
    pub(crate) scans: u64,
    pub(crate) modifies: u64,
    pub(crate) choice: Choice,
}

/// The distribution of the entries that operations use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// All entries equally often.
    Uniform,
    /// A few popular entries much more often; they are scattered over all keys.
    Zipf,
    /// The latest entries most often.
    Latest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_each_mix_add_up_to_100() {
        let mixed: Vec<Mix> =
            [&DEFAULT[..], &YCSB].concat().into_iter().filter_map(|workload| workload.mix(70)).collect();
        assert_eq!(mixed.len(), 7);
        for mix in mixed {
            assert_eq!(mix.gets + mix.updates + mix.inserts + mix.scans + mix.modifies, 100, "{mix:?}");
        }
    }

    #[test]
    fn requested_workloads_are_expanded_in_order() {
        assert_eq!(expand(&[], true), DEFAULT);
        assert_eq!(expand(&[Ycsb], true), [Fill, YcsbA, YcsbB, YcsbC, YcsbF, YcsbD, YcsbE]);
        assert_eq!(expand(&[], false), [Read, Multi, Scan, ScanReverse, Mixed]);
        assert_eq!(expand(&[YcsbC, Read], false), [YcsbC, Read]);
        assert_eq!(expand(&[FillSeq, Scan], true), [FillSeq, Scan]);
        assert_eq!(expand(&[All], true).len(), 13);
    }
}
