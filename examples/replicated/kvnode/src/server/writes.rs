//! Writes that share an entry of the log.
//!
//! openraft waits for a flush of the log for each entry that it appends. So writes that come in
//! while others are on their way gather, and go into the log as one entry: one flush on each node
//! and one round trip, whatever their number. A few entries may be on their way at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, Semaphore};

use super::refusal::Refusal;
use crate::command::{Batch, Raft, Request, Response};

/// An entry that is not committed after this time may be committed later, or never.
const WRITE: Duration = Duration::from_secs(5);
/// Entries on their way at the same time.
const ENTRIES: usize = 2;
/// Writes in an entry, and bytes at which it is full.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

type Answer = Result<Response, Refusal>;
type Waiting = (Request, oneshot::Sender<Answer>);

/// Hands writes to openraft.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    waiting: mpsc::UnboundedSender<Waiting>,
}

impl Writes {
    /// Starts the task that gathers.
    pub(crate) fn start(raft: Raft) -> Writes {
        let (waiting, mut writes) = mpsc::unbounded_channel();
        let free = Arc::new(Semaphore::new(ENTRIES));
        tokio::spawn(async move {
            while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
                let Some(first) = writes.recv().await else { break };
                let (requests, answers) = gather(first, &mut writes).into_iter().unzip();
                let raft = raft.clone();
                tokio::spawn(async move {
                    write(&raft, requests, answers).await;
                    drop(permit);
                });
            }
        });
        Writes { waiting }
    }

    /// Has the cluster make a change, and returns when it is made.
    pub(crate) async fn write(&self, request: Request) -> Answer {
        let (tell, told) = oneshot::channel();
        let ended = |_| Refusal::unavailable("the node is ending");
        self.waiting.send((request, tell)).map_err(ended)?;
        match tokio::time::timeout(2 * WRITE, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }
}

/// The first write and those that wait already, up to the size of an entry.
fn gather(first: Waiting, writes: &mut mpsc::UnboundedReceiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.0.command.bytes();
    let mut gathered = vec![first];
    while gathered.len() < BATCH && bytes < BATCH_BYTES {
        let Ok(next) = writes.try_recv() else { break };
        bytes += next.0.command.bytes();
        gathered.push(next);
    }
    gathered
}

/// Writes one entry, and answers all of its writes.
async fn write(raft: &Raft, requests: Vec<Request>, answers: Vec<oneshot::Sender<Answer>>) {
    let refusal = match tokio::time::timeout(WRITE, raft.client_write(Batch(requests))).await {
        Ok(Ok(written)) => {
            for (answer, response) in answers.into_iter().zip(written.data) {
                // A client that has gone away waits no more.
                drop(answer.send(Ok(response)));
            }
            return;
        }
        Ok(Err(e)) => Refusal::from(e),
        Err(_) => unknown(),
    };
    for answer in answers {
        drop(answer.send(Err(refusal.clone())));
    }
}

fn unknown() -> Refusal {
    Refusal::unknown("no majority has confirmed the write in time")
}
