//! Named snapshots that one process creates, drops and restores while another one writes: each
//! writer counts the snapshots that others have made.

use std::collections::BTreeMap;

use super::member::Member;
use crate::workload::{fast_dir, Rng};

/// The hash of a state without its number, which a restored state does not share.
fn contents(answer: &str) -> String {
    answer.split_once(' ').expect("a number and a hash").1.to_string()
}

/// Runs random steps of two processes, one of which is killed from time to time. Returns the first
/// thing that is wrong.
fn run(seed: u64, rounds: u64, mutant: Option<&str>) -> Result<(), String> {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let start = || {
        let mut member = Member::start(&path, seed);
        if let Some(mutant) = mutant {
            member.expect(&format!("mutant {mutant}"), "ok");
        }
        member.expect("open", "ok");
        member
    };
    let mut members = [start(), start()];
    let mut rng = Rng(seed);
    members[0].number("step immediate");
    // What each snapshot has to hold.
    let mut snapshots: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..rounds {
        let (one, other) = (round as usize % 2, 1 - round as usize % 2);
        let name = format!("s{}", rng.below(4));
        let told = |answer: &str| format!("seed {seed}, round {round}, {name}: {answer}");
        match (rng.below(10), snapshots.contains_key(&name)) {
            (0..=2, false) => {
                // The other process has the writer lock when this one asks for it.
                members[other].ask("begin");
                members[one].say(&format!("snapshot create {name}"));
                members[other].ask("insert passing k v");
                members[other].ask("commit");
                members[other].number("drop passing");
                let created = members[one].answer();
                if created != "ok" {
                    return Err(told(&created));
                }
                let held = members[other].ask(&format!("snapshot hold {name}"));
                members[other].expect("release", "ok");
                snapshots.insert(name, contents(&held));
            }
            (0..=1, true) => {
                members[one].expect(&format!("snapshot drop {name}"), "ok");
                snapshots.remove(&name);
            }
            (2, true) => {
                let restored = members[one].ask(&format!("snapshot restore {name}"));
                if restored != "ok" {
                    return Err(told(&restored));
                }
                // What was made beside the history goes, so that its steps go on.
                members[one].number("drop passing");
            }
            (4..=5, is_there) => {
                // Killed while it creates, drops or restores: all of it has happened, or nothing.
                members[other].expect("sync", "ok");
                let before = contents(&members[other].ask("hash"));
                let what = if !is_there { "create" } else { ["drop", "restore"][rng.below(2) as usize] };
                members[one].say(&format!("snapshot {what} {name}"));
                (0..rng.below(4)).for_each(|_| drop(members[other].ask("hash")));
                members[one].kill();
                // Finishes what the dead process has left.
                members[other].number("begin");
                members[other].expect("abort", "ok");
                let after = contents(&members[other].ask("hash"));
                let listed = members[other].ask("snapshots").split(' ').any(|other| other == name);
                let expected = snapshots.get(&name);
                match what {
                    "create" if listed => drop(snapshots.insert(name.clone(), before.clone())),
                    "drop" if !listed => drop(snapshots.remove(&name)),
                    "restore" if listed && expected == Some(&after) => {}
                    _ if listed != is_there => return Err(told("it is listed, or it is not")),
                    _ => {}
                }
                if after != before && (what != "restore" || snapshots.get(&name) != Some(&after)) {
                    return Err(told(&format!("{what}: the state is {after}, and was {before}")));
                }
                members[other].number("drop passing");
                members[one] = start();
            }
            (3, _) => {
                members[one].say("step eventual");
                members[one].kill();
                members[one] = start();
            }
            _ => drop(members[one].ask("step immediate")),
        }
        for (name, expected) in &snapshots {
            let held = members[other].ask(&format!("snapshot hold {name}"));
            members[other].expect("release", "ok");
            if held.starts_with("failed") || contents(&held) != *expected {
                return Err(format!("seed {seed}, round {round}, {name}: {held}, expected {expected}"));
            }
        }
        let listed = format!("ok {}", snapshots.keys().cloned().collect::<Vec<_>>().join(" "));
        assert_eq!(members[other].ask("snapshots").trim_end(), listed.trim_end(), "seed {seed}, round {round}");
        let checked = members[other].ask("check");
        if checked != "ok" {
            return Err(format!("seed {seed}, round {round}: {checked}"));
        }
    }
    for member in members {
        member.finish();
    }
    Ok(())
}

#[test]
fn snapshots_of_one_process_are_kept_by_the_writers_of_others() {
    let seed = crate::support::seed("snapshots_of_processes");
    for run_number in 0..3 {
        run(seed + run_number, 60, None).expect("all snapshots hold what they held");
    }
}

/// The test can fail.
#[test]
fn a_writer_that_ignores_the_snapshots_of_others_is_found() {
    assert!((0..4).any(|seed| run(seed, 60, Some("SnapshotsLeftOut")).is_err()));
}

#[test]
fn a_reader_of_a_snapshot_keeps_its_pages_when_another_process_drops_it() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let (mut writer, mut reader) = (Member::open(&path, 0), Member::open(&path, 0));
    writer.number("fill t 0 3000 40");
    writer.expect("snapshot create s", "ok");
    let held = reader.ask("snapshot hold s");
    assert!(!held.starts_with("failed"), "{held}");
    writer.number("update immediate t 200 3000 60");
    writer.expect("snapshot drop s", "ok");
    for round in 0..6 {
        writer.number(&format!("update immediate t 400 3000 {}", 61 + round));
    }
    reader.expect("held", &held);
    reader.expect("release", "ok");
    reader.expect("check", "ok");
    reader.finish();
    writer.finish();
}
