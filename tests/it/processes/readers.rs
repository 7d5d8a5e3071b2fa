//! The lists of processes, of their read transactions, and of the pages that these pin.

use super::member::{numbers, Member};
use crate::workload::fast_dir;

/// Listed readers: process, txn, label, and pinned parts of 64 KiB.
fn listed(member: &mut Member) -> Vec<(u32, u64, String, u64)> {
    let answer = member.ask("readers");
    let all = answer.strip_prefix("readers").unwrap_or_else(|| panic!("readers: {answer}"));
    let one = |reader: &str| {
        let words: Vec<&str> = reader.split(':').collect();
        let number = |n: usize| words[n].parse::<u64>().expect("a number");
        (number(0) as u32, number(1), words[2].to_string(), number(3))
    };
    all.split_whitespace().map(one).collect()
}

#[test]
fn read_transactions_of_all_processes_are_listed_until_they_end_or_die() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 1000 400");
    let mut readers = [Member::open(&path, 0), Member::open(&path, 0), Member::start(&path, 0)];
    readers[2].expect("open read-only", "ok");
    assert_eq!(listed(&mut writer), []);
    let mut expected = Vec::new();
    for (n, reader) in readers.iter_mut().enumerate() {
        let txn: u64 = reader.ask("hold").parse().expect("a txn");
        reader.expect(&format!("label reader{n}"), "ok");
        expected.push((reader.process_id(), txn, format!("reader{n}")));
        writer.number("update eventual t 1000 1000 400");
    }
    let shown = |member: &mut Member| -> Vec<(u32, u64, String)> {
        listed(member).into_iter().map(|(process, txn, label, _)| (process, txn, label)).collect()
    };
    // Every process sees the same.
    assert_eq!(shown(&mut writer), expected);
    readers.iter_mut().for_each(|reader| assert_eq!(shown(reader), expected));
    // Each reader pins most pages of the state that it sees.
    let pinned: Vec<u64> = listed(&mut writer).into_iter().map(|reader| reader.3).collect();
    assert!(pinned.iter().all(|&parts| parts >= 4), "{pinned:?}");
    let newest = numbers(&readers[1].ask("refresh"), "refresh")[0];
    assert!(newest > expected[1].1);
    let moved = (expected[1].0, newest, expected[1].2.clone());
    assert_eq!(shown(&mut writer), [expected[0].clone(), expected[2].clone(), moved.clone()]);
    readers[0].kill();
    assert_eq!(shown(&mut writer), [expected[2].clone(), moved.clone()]);
    readers[2].expect("release", "ok");
    assert_eq!(shown(&mut writer), [moved]);
    readers[1].expect("close", "ok");
    assert_eq!(shown(&mut writer), []);
    writer.finish();
}

#[test]
fn every_process_sees_the_members_of_the_session_and_which_may_write() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut writer = Member::open(&path, 0);
    let alone = writer.ask("members");
    assert!(
        alone.starts_with("Member:Some(") && alone.ends_with(&format!(") {}:true", writer.process_id())),
        "{alone}"
    );
    let session = alone.split(' ').next().expect("a session").to_string();
    let mut reader = Member::start(&path, 0);
    reader.expect("open read-only", "ok");
    let [w, r] = [writer.process_id(), reader.process_id()];
    writer.expect("members", &format!("{session} {w}:true {r}:false"));
    reader.expect("members", &format!("{session} {r}:false {w}:true"));
    reader.kill();
    writer.expect("members", &format!("{session} {w}:true"));
    writer.finish();
    let mut next = Member::start(&path, 0);
    next.expect("open exclusive", "ok");
    next.expect("members", &format!("Exclusive:None {}:true", next.process_id()));
    next.expect("close", "ok");
    next.expect("open", "ok");
    assert!(!next.ask("members").starts_with(&session), "the session is another one");
    next.finish();
}

#[test]
fn pins_name_the_process_of_each_reader_until_it_dies() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 1000 400");
    let mut readers = [Member::open(&path, 0), Member::open(&path, 0)];
    let mut expected = Vec::new();
    for reader in &mut readers {
        let txn: u64 = reader.ask("hold").parse().expect("a txn");
        expected.push(format!("{}:{txn}:true", reader.process_id()));
        writer.number("update eventual t 1000 1000 400");
    }
    writer.expect("pins", &format!("pins {} {}", expected[0], expected[1]));
    let [first, second] = &mut readers;
    first.kill();
    second.expect("pins", &format!("pins {}", expected[1]));
    second.expect("release", "ok");
    writer.expect("pins", "pins");
    readers[1].expect("close", "ok");
    writer.finish();
}
