//! What Mapleaf wants to reach, figure by figure.
//!
//! Bars that the kind of keys decides name the keys; a figure without a row has no goal, and short entries have none.

use crate::data::Shape;
use crate::report::Goal;

/// For (figure, keys; any keys if none): the first row that fits counts.
const GOALS: &[(&str, Option<Shape>, Goal)] = &[
    ("load", None, Goal::RatioAtMost(0.6)),
    ("append", None, Goal::RatioAtMost(0.85)),
    ("size", None, Goal::RatioAtMost(0.95)),
    ("compact", None, Goal::RatioAtMost(0.7)),
    ("reads", Some(Shape::R), Goal::RatioAtLeast(2.5)),
    ("reads", Some(Shape::R16), Goal::RatioAtLeast(2.2)),
    ("reads", None, Goal::RatioAtLeast(1.8)),
    ("reads_second_thread", None, Goal::RatioAtLeast(1.9)),
    ("txn_reads", None, Goal::RatioAtLeast(2.0)),
    ("multi", Some(Shape::R), Goal::RatioAtLeast(6.0)),
    ("multi", Some(Shape::S1), Goal::RatioAtLeast(4.0)),
    ("multi", Some(Shape::S2), Goal::RatioAtLeast(4.0)),
    ("seek", None, Goal::RatioAtLeast(1.8)),
    ("scan_forward", None, Goal::RatioAtLeast(1.5)),
    ("scan_reverse", None, Goal::RatioAtLeast(1.1)),
    ("large_writes", None, Goal::RatioAtLeast(2.0)),
    ("large_overwrites", None, Goal::RatioAtLeast(2.0)),
    ("large_reads", None, Goal::RatioAtLeast(1.0)),
    ("open", None, Goal::RatioAtMost(1.0)),
    ("cold_first", None, Goal::RatioAtLeast(1.0)),
    ("cold_gets", None, Goal::RatioAtLeast(1.0)),
    ("cold_multi", None, Goal::RatioAtLeast(3.0)),
    ("cold_scan", None, Goal::RatioAtLeast(3.0)),
    ("fio_multi", None, Goal::RatioAtLeast(0.7)),
    ("fio_multi_lmdb", None, Goal::RatioAtLeast(3.0)),
    ("fio_scan_lmdb", None, Goal::RatioAtLeast(2.0)),
    ("fio_packed", None, Goal::RatioAtLeast(0.8)),
    ("cold_folios", None, Goal::ValueAtMost(1.5)),
    ("cold_folios_scan", None, Goal::ValueAtMost(1.5)),
    ("cold_small", None, Goal::RatioAtLeast(1.0)),
    ("commits", None, Goal::RatioAtLeast(2.1)),
    ("batches", None, Goal::RatioAtLeast(6.0)),
    ("batches_puts", None, Goal::RatioAtLeast(5.0)),
    ("updates", None, Goal::RatioAtLeast(6.0)),
    ("updates_puts", None, Goal::RatioAtLeast(5.0)),
    ("eventual", None, Goal::RatioAtLeast(1.8)),
    ("commits_free_list", None, Goal::RatioAtLeast(0.9)),
    ("device", None, Goal::ValueAtMost(1.5)),
    ("memory", None, Goal::ValueAtMost(64.0)),
    ("processes_begin", None, Goal::RatioAtLeast(2.0)),
    ("processes_begin_shared", None, Goal::RatioAtLeast(0.95)),
    ("processes_begin_two", None, Goal::RatioAtLeast(1.9)),
    ("processes_open", None, Goal::RatioAtMost(1.0)),
    ("processes_reopen", None, Goal::RatioAtMost(1.0)),
    ("processes_puts", None, Goal::RatioAtLeast(0.95)),
    ("processes_eventual", None, Goal::RatioAtLeast(0.75)),
    ("processes_eventual_lmdb", None, Goal::RatioAtLeast(1.5)),
    ("processes_four", None, Goal::RatioAtLeast(2.5)),
    ("processes_handover", None, Goal::ValueAtMost(20.0)),
    ("processes_turns", None, Goal::RatioAtMost(1.5)),
    ("processes_stuck", None, Goal::RatioAtMost(3.5)),
    ("processes_stuck_other", None, Goal::RatioAtMost(3.5)),
    ("processes_kill", None, Goal::ValueAtMost(10.0)),
    ("processes_beside", None, Goal::RatioAtLeast(0.9)),
    ("pairs_insert", None, Goal::RatioAtLeast(1.0)),
    ("pairs_scan", None, Goal::RatioAtLeast(2.0)),
    ("pairs_size", None, Goal::RatioAtMost(1.0)),
    ("few_insert", None, Goal::RatioAtLeast(1.0)),
    ("few_scan", None, Goal::RatioAtLeast(2.0)),
    ("few_size", None, Goal::RatioAtMost(1.0)),
    ("remove_range", None, Goal::RatioAtLeast(50.0)),
    ("remove_range_commit", None, Goal::ValueAtMost(10.0)),
    ("retain", None, Goal::RatioAtLeast(3.0)),
    ("pop", None, Goal::RatioAtLeast(2.0)),
    ("nested", None, Goal::ValueAtMost(3.0)),
    ("savepoint", None, Goal::ValueAtMost(1.0)),
    ("long_keys", None, Goal::RatioAtLeast(0.5)),
];

/// The goal of a figure of `features`, which brings its own entries.
#[cfg(feature = "mapleaf")]
pub(crate) fn of_feature(figure: &str) -> Option<Goal> {
    GOALS.iter().find(|&&(id, ..)| id == figure).map(|&(_, _, goal)| goal)
}

pub(crate) fn goal(figure: &str, shape: Shape) -> Option<Goal> {
    let fits = |keys: Option<Shape>| keys.map_or(shape != Shape::N, |keys| keys == shape);
    GOALS.iter().find(|&&(id, keys, _)| id == figure && fits(keys)).map(|&(_, _, goal)| goal)
}

/// The figures that have one.
#[cfg(test)]
pub(crate) fn figures() -> impl Iterator<Item = &'static str> {
    GOALS.iter().map(|&(id, ..)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_names_keys_holds_for_those_only() {
        assert!(matches!(goal("reads", Shape::R), Some(Goal::RatioAtLeast(bar)) if bar == 2.5));
        assert!(matches!(goal("reads", Shape::S2), Some(Goal::RatioAtLeast(bar)) if bar == 1.8));
        assert!(goal("multi", Shape::R16).is_none() && goal("scan_forward", Shape::N).is_none());
        assert!(goal("ycsb_a", Shape::R).is_none());
    }
}
