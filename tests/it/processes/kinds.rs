//! Multimaps, long keys and single values that two processes change in turns, beside readers of
//! older states, named snapshots, and kills. Each writer compares what it finds with the model that
//! it reads, and the other process has to see what the writer's model says.

use std::collections::BTreeMap;

use super::member::Member;
use crate::workload::{fast_dir, Rng};

/// The hash of an answer, without the number of the state.
fn contents(answer: &str) -> String {
    answer.split_once(' ').unwrap_or_else(|| panic!("{answer}")).1.to_string()
}

/// How often each kind of event has occurred.
#[derive(Default, Debug)]
struct Events {
    written: u64,
    held: u64,
    created: u64,
    restored: u64,
    dropped: u64,
    killed: u64,
}

impl Events {
    fn are_all(&self) -> bool {
        [self.written, self.held, self.created, self.restored, self.dropped, self.killed].iter().all(|&count| count > 0)
    }
}

fn run(seed: u64, rounds: u64) {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut members = [Member::open(&path, seed), Member::open(&path, seed)];
    let mut rng = Rng(seed);
    let mut now = contents(&members[0].ask(&format!("kinds {seed}")));
    let mut snapshots: BTreeMap<String, String> = BTreeMap::new();
    // What the older reader of each process sees.
    let mut held: [Option<String>; 2] = [None, None];
    let mut events = Events::default();
    for round in 0.. {
        if round >= rounds && events.are_all() {
            break;
        }
        let (one, other) = (round as usize % 2, 1 - round as usize % 2);
        let name = format!("s{}", rng.below(3));
        match (rng.below(14), snapshots.get(&name).cloned()) {
            (0, None) => {
                members[one].expect(&format!("snapshot create {name}"), "ok");
                snapshots.insert(name, now.clone());
                events.created += 1;
            }
            (0, Some(_)) => {
                members[one].expect(&format!("snapshot drop {name}"), "ok");
                snapshots.remove(&name);
                events.dropped += 1;
            }
            (1, Some(kept)) => {
                members[one].expect(&format!("snapshot restore {name}"), "ok");
                now = kept;
                events.restored += 1;
            }
            (2, _) => {
                members[one].kill();
                members[one] = Member::open(&path, seed);
                held[one] = None;
                events.killed += 1;
            }
            (3, _) if held[other].is_none() => {
                let answer = members[other].ask("hold");
                assert!(!answer.starts_with("failed"), "seed {seed}, round {round}: {answer}");
                held[other] = Some(members[other].ask("held"));
                events.held += 1;
            }
            (4, _) if held[other].is_some() => {
                members[other].expect("release", "ok");
                held[other] = None;
            }
            _ => {
                let answer = members[one].ask(&format!("kinds {}", seed ^ round << 20));
                assert!(!answer.starts_with("failed") && answer != "died", "seed {seed}, round {round}: {answer}");
                now = contents(&answer);
                events.written += 1;
            }
        }
        for (member, held) in members.iter_mut().zip(&held) {
            assert_eq!(contents(&member.ask("hash")), now, "seed {seed}, round {round}");
            if let Some(held) = held {
                assert_eq!(member.ask("held"), *held, "seed {seed}, round {round}: an older state");
            }
        }
        if round % 6 == 5 {
            members[other].expect("check", "ok");
            assert_held(&mut members[one], held[one].is_some(), &snapshots);
        }
    }
    for member in &mut members {
        member.expect("check", "ok");
    }
    for member in members {
        member.finish();
    }
}

/// Each snapshot holds what it held, in a process that has no older reader.
fn assert_held(member: &mut Member, has_reader: bool, snapshots: &BTreeMap<String, String>) {
    if has_reader {
        return;
    }
    for (name, expected) in snapshots {
        let held = member.ask(&format!("snapshot hold {name}"));
        assert_eq!(contents(&held), *expected, "snapshot {name}");
        member.expect("release", "ok");
    }
}

#[test]
fn processes_change_tables_of_all_kinds_in_turns() {
    let seed = crate::support::seed("processes_change_tables_of_all_kinds_in_turns");
    for run_number in 0..3 {
        run(seed + run_number, 60);
    }
}
