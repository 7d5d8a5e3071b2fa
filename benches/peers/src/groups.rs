//! Which figures are shown together, and under what name.

use crate::report::Figure;

pub(crate) struct Group {
    /// Name of the plot's file.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    ids: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group {
        file: "reads",
        title: "Reads, warm",
        ids: &["reads", "reads_two_threads", "reads_second_thread", "txn_reads", "multi", "seek"],
    },
    Group { file: "scans", title: "Full scans, warm", ids: &["scan_forward", "scan_reverse"] },
    Group { file: "loads", title: "Loads", ids: &["load", "append", "memory"] },
    Group { file: "sizes", title: "Size of the file", ids: &["size", "compact", "compact_both"] },
    Group {
        file: "commits",
        title: "Durable commits",
        ids: &[
            "commits",
            "commits_1_thread",
            "commits_2_threads",
            "commits_8_threads",
            "batches",
            "batches_puts",
            "updates",
            "updates_puts",
            "eventual",
            "commits_free_list",
            "device",
            "cold_folios",
            "cold_folios_scan",
        ],
    },
    Group { file: "large", title: "Values of 100 KiB", ids: &["large_writes", "large_overwrites", "large_reads"] },
    Group {
        file: "cold",
        title: "Cold reads and opening",
        ids: &["cold_first", "cold_gets", "cold_multi", "cold_scan", "cold_small", "open"],
    },
    Group {
        file: "device",
        title: "Cold reads beside fio",
        ids: &[
            "fio_first",
            "fio_first_lmdb",
            "fio_multi",
            "fio_multi_lmdb",
            "fio_scan",
            "fio_scan_lmdb",
            "fio_packed",
            "fio_packed_lmdb",
        ],
    },
    Group {
        file: "processes",
        title: "Several processes",
        ids: &[
            "processes_begin",
            "processes_begin_shared",
            "processes_begin_two",
            "processes_open",
            "processes_reopen",
            "processes_puts",
            "processes_eventual",
            "processes_eventual_lmdb",
            "processes_four",
            "processes_handover",
            "processes_turns",
            "processes_turns_eventual",
            "processes_stuck",
            "processes_stuck_other",
            "processes_kill",
            "processes_beside",
        ],
    },
    Group {
        file: "multimaps",
        title: "Multimaps",
        ids: &[
            "pairs_insert",
            "pairs_scan",
            "pairs_scan_bulk",
            "pairs_size",
            "few_insert",
            "few_scan",
            "few_scan_bulk",
            "few_size",
            "many_insert",
            "many_scan",
            "many_scan_bulk",
            "many_size",
        ],
    },
    Group {
        file: "removals",
        title: "Removal of many entries",
        ids: &["remove_range", "remove_range_copy", "remove_range_commit", "retain", "pop", "pop_halves"],
    },
    Group { file: "nesting", title: "Nested transactions and savepoints", ids: &["nested", "savepoint"] },
    Group { file: "long_keys", title: "Long keys", ids: &["long_keys"] },
    Group { file: "ycsb", title: "YCSB", ids: &["ycsb_a", "ycsb_b", "ycsb_c", "ycsb_d", "ycsb_e", "ycsb_f"] },
];

/// The figures of each group and each number of entries, in the order of the groups; figures that no group names go
/// to none.
pub(crate) fn grouped(figures: &[Figure]) -> Vec<(&'static Group, u64, Vec<&Figure>)> {
    let mut counts: Vec<u64> = figures.iter().map(|figure| figure.entries).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut found = Vec::new();
    for entries in counts {
        for group in GROUPS {
            let of = |id: &'static str| figures.iter().filter(move |f| f.id == id && f.entries == entries);
            let members: Vec<&Figure> = group.ids.iter().flat_map(|id| of(id)).collect();
            if !members.is_empty() {
                found.push((group, entries, members));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals;

    #[test]
    fn every_figure_with_a_goal_is_in_one_group() {
        for id in goals::figures() {
            let groups = GROUPS.iter().filter(|group| group.ids.contains(&id)).count();
            assert_eq!(groups, 1, "{id}");
        }
    }
}
