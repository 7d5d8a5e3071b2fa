//! Processes that have a file exclusively, by `Options::exclusive`.

use mapleaf::ErrorKind;

use super::member::Member;
use crate::workload::fast_dir;

#[test]
fn a_file_that_is_open_exclusively_is_refused_to_others_and_has_no_lock_file() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut owner = Member::start(&path, 3);
    let mut other = Member::start(&path, 3);
    for round in 0..4 {
        owner.expect("open exclusive", "ok");
        let step = owner.number(["step immediate", "step eventual"][round % 2]);
        for open in ["open", "open read-only", "open exclusive", "open exclusive read-only"] {
            other.refuses(open, ErrorKind::Locked);
        }
        assert_eq!(owner.number("judge"), step);
        assert_eq!(dir.path().join("shared.mapleaf-lock").exists(), round > 0, "made by the other only");
        owner.expect("close", "ok");
        other.expect("open", "ok");
        assert_eq!(other.number("judge"), step);
        other.number("step immediate");
        other.expect("close", "ok");
    }
    // Killed, it holds nothing.
    owner.expect("open exclusive", "ok");
    let step = owner.number("step immediate");
    owner.kill();
    other.expect("open", "ok");
    assert_eq!(other.number("judge"), step);
    other.finish();
}

#[test]
fn a_file_that_others_have_open_is_refused_to_an_exclusive_process() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    Member::open(&path, 0).finish();
    let mut wants = Member::start(&path, 0);
    for open in ["open", "open read-only"] {
        let mut member = Member::start(&path, 0);
        member.expect(open, "ok");
        let mut another = Member::start(&path, 0);
        another.expect("open read-only", "ok");
        wants.refuses("open exclusive", ErrorKind::Locked);
        member.expect("close", "ok");
        wants.refuses("open exclusive", ErrorKind::Locked);
        another.kill();
        wants.expect("open exclusive", "ok");
        member.refuses(open, ErrorKind::Locked);
        wants.number("put immediate t k v");
        wants.expect("close", "ok");
        member.expect(open, "ok");
        member.expect("get t k", "v");
        member.finish();
    }
    wants.finish();
}
