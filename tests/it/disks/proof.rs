//! A process dies in a flush that has failed and lost data, and only it has seen the error. A
//! process that joined meanwhile compares the page cache with the disk before it acknowledges
//! (P18).

use mapleaf::{Db, ErrorKind};

use super::fuse::{Faulty, Plan};
use super::skipped;
use crate::processes::member::{is_failure, Member};
use crate::workload::fast_dir;

const NAME: &str = "test.mapleaf";

/// The number of the last put that was acknowledged before.
const ACKNOWLEDGED: u64 = 20;

/// A process that joined while the flush had not ended, after the other one has died in it. One
/// process had the file open before.
struct After {
    faulty: Faulty,
    before: Member,
    joined: Member,
}

/// The flush of this kind, in this call, loses everything.
fn lost(kind: &str, call: &str) -> Result<After, String> {
    let faulty = Faulty::new(1, &[])?;
    let path = faulty.path(NAME);
    let (mut dies, mut before) = (Member::open(&path, 0), Member::open(&path, 0));
    // The log is made meanwhile.
    for n in 1..=ACKNOWLEDGED {
        [&mut dies, &mut before][n as usize % 2].number(&format!("put immediate c k {n}"));
    }
    dies.expect(&format!("lose {kind}"), "ok");
    faulty.plan(Plan { flush_every: Some(1), loses_all: true, ..Plan::default() });
    dies.say(call);
    assert_eq!(dies.answer(), "lost", "{kind}");
    faulty.plan(Plan::default());
    let joined = Member::open(&path, 0);
    dies.kill();
    Ok(After { faulty, before, joined })
}

const FLUSHES: [(&str, &str); 2] = [("log", "put immediate c k 21"), ("tree", "checkpoint")];

#[test]
fn a_process_that_joined_in_a_flush_whose_data_are_lost_acknowledges_nothing() {
    for (kind, call) in FLUSHES {
        let After { faulty, mut before, mut joined } = match lost(kind, call) {
            Ok(after) => after,
            Err(why) => return skipped("a proof that refuses", &why),
        };
        let refused = joined.ask("put immediate c k 22");
        assert!(is_failure(&refused, &[ErrorKind::Corrupt]), "{kind}: {refused}");
        for (member, who) in [(&mut joined, "joined"), (&mut before, "before")] {
            for command in ["put eventual c k 23", "sync", "checkpoint", "begin", "hash"] {
                let answer = member.ask(command);
                let is_right = is_failure(&answer, &[ErrorKind::Poisoned]) && answer.contains("the disk");
                assert!(is_right, "{kind}, {who}, {command}: {answer}");
            }
        }
        before.finish();
        joined.finish();
        let mut again = Member::open(&faulty.path(NAME), 0);
        let found = again.ask("get c k");
        let possible = [ACKNOWLEDGED, ACKNOWLEDGED + 1].map(|number| number.to_string());
        assert!(possible.contains(&found), "{kind}: {found}, acknowledged {ACKNOWLEDGED}");
        again.expect("check", "ok");
        again.number("put immediate c k 24");
        again.finish();
    }
}

/// Without the comparison, a commit is acknowledged that a power cut takes back.
#[test]
fn a_process_that_skips_the_proof_is_caught() {
    let After { faulty, mut joined, .. } = match lost("log", "put immediate c k 21") {
        Ok(after) => after,
        Err(why) => return skipped("a proof that is skipped", &why),
    };
    joined.expect("mutant ProofSkipped", "ok");
    joined.number("put immediate c k 22");
    let dir = fast_dir();
    let path = dir.path().join(NAME);
    std::fs::write(&path, &faulty.power_cuts(NAME)[0]).expect("an image");
    let get = |db: Db| Ok(db.begin_read()?.bytes_table("c")?.get(b"k")?.map(<[u8]>::to_vec));
    let found: mapleaf::Result<Option<Vec<u8>>> = Db::open_existing(&path).and_then(get);
    println!("acknowledged 22, after a power cut: {found:?}");
    assert!(!matches!(found, Ok(Some(number)) if number == b"22"));
}
