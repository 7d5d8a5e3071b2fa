//! Linearizable reads.
//!
//! The leader may answer a read when a majority has confirmed, after the read came in, that it
//! still is the leader, and when all entries committed before are applied (the read index of
//! Raft). One such question serves all reads that came in before it was asked; those that come in
//! meanwhile share the next one.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use crate::command::Raft;

/// A question that is not answered after this time is given up; reads that wait are refused.
const ASKED: Duration = Duration::from_secs(3);

type Confirmed = Result<(), Refusal>;

/// Confirms for reads that this node is the leader.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    waiting: mpsc::UnboundedSender<oneshot::Sender<Confirmed>>,
}

impl Reads {
    /// Starts the task that asks.
    pub(crate) fn start(raft: Raft) -> Reads {
        let (waiting, mut reads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut shared: Vec<oneshot::Sender<Confirmed>> = Vec::new();
            while reads.recv_many(&mut shared, usize::MAX).await > 0 {
                let asked = tokio::time::timeout(ASKED, raft.ensure_linearizable()).await;
                let confirmed = match asked {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(e)) => Err(Refusal::from(e)),
                    Err(_) => Err(Refusal::unavailable("no majority has confirmed the leader in time")),
                };
                for read in shared.drain(..) {
                    // A client that has gone away waits no more.
                    drop(read.send(confirmed.clone()));
                }
            }
        });
        Reads { waiting }
    }

    /// Returns when the state machine holds all that was acknowledged before this call.
    pub(crate) async fn confirm(&self) -> Result<(), Refusal> {
        let (tell, told) = oneshot::channel();
        let ended = || Refusal::unavailable("the node is ending");
        self.waiting.send(tell).map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}
