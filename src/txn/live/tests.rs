//! Tests of the live records.

use super::*;
use crate::ids::TreeId;
use crate::page::meta::TreeRoot;
use std::sync::atomic::AtomicBool;

fn state(txn: u64) -> State {
    let free_space = TreeRoot::empty(TreeId::FREE_SPACE);
    let snapshots = TreeRoot::empty(TreeId::SNAPSHOTS);
    State { txn: TxnId(txn), page_count: txn + 1, superseded: txn + 2, free_space, snapshots, ..State::default() }
}

#[test]
fn readers_never_see_a_torn_state() {
    let live = Live::new(state(1), 0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for txn in 2..300_000 {
                live.add_state(&state(txn));
                live.store_latest(TxnId(txn));
                live.publish(TxnId(txn));
            }
            stop.store(true, Ordering::Release);
        });
        let mut last = TxnId(0);
        while !stop.load(Ordering::Acquire) {
            let found = live.published();
            assert_eq!(found, state(found.txn.0));
            assert!(found.txn >= last);
            last = found.txn;
        }
    });
}

#[test]
fn readers_never_see_a_torn_checkpoint() {
    let checkpoint = |txn: u64| Checkpoint {
        durable_meta: DurableMeta { slot: txn as usize & 1, txn: TxnId(txn), log_start: txn, superseded: txn },
        pinned: Some(TxnId(txn)),
        in_doubt: Some((txn as usize & 1, state(txn))),
    };
    let live = Live::new(state(1), 1);
    live.store_checkpoint(&checkpoint(1));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (2..200_000).for_each(|txn| live.store_checkpoint(&checkpoint(txn)));
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            let found = live.checkpoint();
            assert_eq!(found, checkpoint(found.durable_meta.txn.0));
        }
    });
}

#[test]
fn published_only_moves_forwards() {
    let live = Live::new(state(5), 1);
    live.publish(TxnId(4));
    assert_eq!(live.published_txn(), TxnId(5));
    live.add_state(&state(6));
    live.publish(TxnId(6));
    assert_eq!(live.published(), state(6));
    assert_eq!(live.durable_meta(), DurableMeta { slot: 1, txn: TxnId(5), log_start: 0, superseded: 7 });
}

#[test]
fn the_ring_gives_a_state_until_it_is_overwritten() {
    let live = Live::new(state(5), 1);
    (6..70).for_each(|txn| live.add_state(&state(txn)));
    assert_eq!(live.state(TxnId(5)), None);
    assert_eq!(live.state(TxnId(6)), Some(state(6)));
}

#[test]
fn the_checkpoint_record_reads_back_as_stored() {
    let live = Live::new(state(5), 0);
    for txn in [0, 6, u64::MAX >> 16] {
        let checkpoint = Checkpoint {
            durable_meta: DurableMeta { slot: 1, txn: TxnId(4), log_start: 3, superseded: 2 },
            pinned: Some(TxnId(txn)),
            in_doubt: Some((0, state(txn))),
        };
        live.store_checkpoint(&checkpoint);
        assert_eq!(live.checkpoint(), checkpoint);
    }
    live.store_checkpoint(&Checkpoint::default());
    assert_eq!(live.checkpoint(), Checkpoint::default(), "what was in doubt is gone");
}
