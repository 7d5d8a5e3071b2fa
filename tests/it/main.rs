//! Integration tests of the public API: one binary, with a module per subject.
//!
//! Every test database is a `support::TestDb`; its drop runs `check`. Random tests take their seed
//! from `support::seed`, which prints it. `MAPLEAF_SEED` repeats a run; `MAPLEAF_LONG=n` makes runs
//! n times as long and seeds them from the clock.

mod all_kinds;
mod api;
mod api_forms;
mod bad_input;
mod cold;
mod commands;
mod commit_log;
mod compact;
mod contradictory_files;
mod costs;
mod crash_kill;
mod creation;
mod damage;
mod damaged_kinds;
mod damaged_snapshots;
mod descriptors;
mod disks;
mod documents;
mod edits;
mod entries;
mod exhaustive;
mod faults;
#[cfg(target_arch = "x86_64")]
mod flat_indexes;
mod folios;
mod forced_orders;
mod fork;
mod fuzzed;
mod golden;
mod golden_kinds;
mod growth;
mod inherited;
mod key_orders;
mod kinds;
mod large_page_ids;
mod limits;
mod load;
mod log_failures;
mod log_kills;
mod long_keys;
mod long_values;
mod mixed;
mod model;
mod multi_edits;
mod multi_salvage;
mod multimap;
mod never_larger;
mod opening;
mod panics;
mod parts;
mod power;
mod privacy;
mod processes;
mod reads;
mod recover;
mod reexec;
mod salvage;
#[cfg(target_arch = "x86_64")]
mod sandbox;
mod savepoints;
mod scratch;
mod several_tables;
mod snapshots;
mod space;
mod space_reuse;
mod stacks;
mod stats;
mod support;
mod types;
mod wakers;
mod warm;
mod workload;
