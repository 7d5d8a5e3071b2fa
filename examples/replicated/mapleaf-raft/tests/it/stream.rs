//! The stream of a snapshot: damage of every kind is noticed, and nothing of it is left.

use std::fs;

use mapleaf_raft::{Incoming, Pinned, State};

/// A state with tables of several types and its stream, which has several chunks.
fn sample() -> (tempfile::TempDir, State, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let state = State::open(dir.path()).expect("a state");
    state
        .db()
        .write(|txn| {
            let mut long = txn.table(mapleaf::Table::<u32, &[u8]>::new("long"))?;
            (0..3).try_for_each(|n| long.put(n, &vec![n as u8; 100_000]).map(drop))?;
            txn.create_table("empty", "str", "")?;
            txn.bytes_table("bytes")?.put(b"", b"empty key").map(drop)
        })
        .expect("to write");
    let mut bytes = Vec::new();
    Pinned::new(&state).expect("a snapshot").write_to(&mut bytes).expect("to write");
    (dir, state, bytes)
}

fn refused(state: &State, bytes: &[u8], what: &str) {
    let text = Incoming::receive(state, bytes).expect_err(what).to_string();
    assert!(text.starts_with("the snapshot was not installed: "), "{what}: {text}");
}

/// The frames of a stream.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, _)) = bytes.split_first_chunk() {
        let (frame, rest) = bytes.split_at(8 + u32::from_le_bytes(*length) as usize);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

#[test]
fn the_copy_has_the_same_tables_with_the_same_types() {
    let (_dir, state, bytes) = sample();
    let other = tempfile::tempdir().expect("a directory");
    let target = State::open(other.path()).expect("a state");
    let incoming = Incoming::receive(&target, &bytes[..]).expect("to receive");
    let part = fs::read_dir(other.path())
        .expect("a directory")
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "part"))
        .expect("the new file");
    let (one, two) = (state.db().begin_read().unwrap(), mapleaf::Db::open(&part).unwrap().begin_read().unwrap());
    let names = |txn: &mapleaf::ReadTxn| -> Vec<_> {
        let tables = txn.tables().unwrap().into_iter();
        tables.map(|table| (table.name, table.key_codec, table.value_codec, table.entries)).collect()
    };
    assert_eq!(names(&one), names(&two));
    for (name, ..) in names(&one) {
        let (one, two) = (one.bytes_table(&name).unwrap(), two.bytes_table(&name).unwrap());
        assert!(one.iter().map(Result::unwrap).eq(two.iter().map(Result::unwrap)), "{name}");
    }
    drop(two);
    drop(incoming);
    assert!(!part.exists(), "a state that is not installed leaves no file");
}

#[test]
fn a_changed_bit_is_noticed() {
    let (_dir, state, bytes) = sample();
    // All bytes of the short chunks, and some of the long ones.
    let places = (0..bytes.len()).filter(|at| at % 4_099 == 0 || *at < 200 || *at + 100 > bytes.len());
    for at in places {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&state, &changed, &format!("byte {at}"));
    }
}

#[test]
fn a_stream_that_ends_early_is_noticed() {
    let (_dir, state, bytes) = sample();
    let frames = frames(&bytes);
    assert!(frames.len() > 6, "{} chunks", frames.len());
    for count in 0..frames.len() {
        refused(&state, &frames[..count].concat(), &format!("{count} chunks"));
    }
    refused(&state, &bytes[..bytes.len() - 1], "all but the last byte");
}

#[test]
fn chunks_that_are_lost_doubled_or_moved_are_noticed() {
    let (_dir, state, bytes) = sample();
    let frames = frames(&bytes);
    for at in 0..frames.len() {
        let (before, after) = frames.split_at(at);
        refused(&state, &[before, &after[1..]].concat().concat(), "a lost chunk");
        if at + 1 < frames.len() {
            refused(&state, &[before, &after[..1], after].concat().concat(), "a doubled chunk");
            refused(&state, &[before, &[after[1], after[0]], &after[2..]].concat().concat(), "a moved chunk");
        }
    }
}
