//! openraft's calls of other nodes, over HTTP with bodies encoded by postcard.
//!
//! A snapshot is one request whose body is a stream: the length of the head as `u32`, the head
//! (vote and meta data), then the chunks of `mapleaf_raft`. It has no limit of time; it ends when
//! nothing is sent for a while.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::{Method, StatusCode};
use mapleaf_raft::{Pinned, SnapshotData};
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, Snapshot, Vote};
use serde::de::DeserializeOwned;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::command::Types;
use crate::http::{Http, NoAnswer};

/// A snapshot of which nothing was taken for so long is given up.
const STALLED: Duration = Duration::from_secs(10);
/// A node has so long to install a snapshot that it has received.
const INSTALLED: Duration = Duration::from_secs(600);
/// A node that could not be reached is tried again after this time.
const RETRY: Duration = Duration::from_millis(100);
/// Chunks of a snapshot that wait to be sent.
const WAITING_CHUNKS: usize = 8;

type Called<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

/// Makes the connections to other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) http: Http,
    /// Where nodes are reached, if not where the membership says.
    pub(crate) peers: Arc<BTreeMap<u64, String>>,
}

impl Network {
    /// Where a node is reached.
    pub(crate) fn addr(&self, id: u64, node: &BasicNode) -> String {
        self.peers.get(&id).unwrap_or(&node.addr).clone()
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        Connection { http: self.http.clone(), addr: self.addr(target, node) }
    }
}

/// Calls one node.
#[derive(Debug)]
pub(crate) struct Connection {
    http: Http,
    addr: String,
}

impl Connection {
    async fn call<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize, limit: Duration) -> Called<T> {
        let body = postcard::to_stdvec(request).map_err(|e| NetworkError::new(&e))?;
        let answer = self.http.send(Method::POST, &self.addr, path, &[], Body::from(body), limit).await;
        let answer = answer.map_err(|e| Unreachable::new(&e))?;
        if answer.status != StatusCode::OK {
            let why = AnyError::error(String::from_utf8_lossy(&answer.body));
            return Err(Unreachable::from(why).into());
        }
        Ok(postcard::from_bytes(&answer.body).map_err(|e| NetworkError::new(&e))?)
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Called<AppendEntriesResponse<u64>> {
        self.call("/raft/append", &rpc, option.hard_ttl()).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Called<VoteResponse<u64>> {
        self.call("/raft/vote", &rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let unreachable = |e: &(dyn std::error::Error + 'static)| {
            StreamingError::Unreachable(Unreachable::from(AnyError::error(e.to_string())))
        };
        let SnapshotData::Pinned(pinned) = *snapshot.snapshot else {
            return Err(unreachable(&io::Error::other("the snapshot is not of this node")));
        };
        let head = postcard::to_stdvec(&(vote, &snapshot.meta)).map_err(|e| unreachable(&e))?;
        let sent = Arc::new(AtomicU64::new(0));
        let body = stream(head, pinned, Arc::clone(&sent));
        let answer = self.http.send(Method::POST, &self.addr, "/raft/snapshot", &[], body, Duration::MAX);
        let answer = tokio::select! {
            answer = answer => answer.map_err(|e| unreachable(&e))?,
            closed = cancel => return Err(closed.into()),
            () = stalls(&sent) => {
                let why = "it takes no more of the snapshot".to_string();
                return Err(unreachable(&NoAnswer::Unknown { addr: self.addr.clone(), why }));
            }
        };
        if answer.status != StatusCode::OK {
            return Err(unreachable(&io::Error::other(String::from_utf8_lossy(&answer.body))));
        }
        postcard::from_bytes(&answer.body).map_err(|e| unreachable(&e))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

/// The body of a snapshot. A thread reads the state while the body is sent.
fn stream(head: Vec<u8>, pinned: Pinned, sent: Arc<AtomicU64>) -> Body {
    let (chunks, receiver) = mpsc::channel(WAITING_CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut out = ChunkSender { chunks: chunks.clone(), sent: Arc::clone(&sent) };
        let length = (head.len() as u32).to_le_bytes();
        let written = out.write_all(&[&length[..], &head].concat()).map_err(|e| e.to_string());
        if let Err(e) = written.and_then(|()| pinned.write_to(out).map_err(|e| e.to_string())) {
            // Breaks the request off. Nobody listens if that has happened already.
            drop(chunks.blocking_send(Err(io::Error::other(e))));
        }
        sent.store(u64::MAX, Ordering::Relaxed);
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

/// Hands bytes to the body of a request.
struct ChunkSender {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    sent: Arc<AtomicU64>,
}

impl Write for ChunkSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Ok(Bytes::copy_from_slice(bytes));
        self.chunks.blocking_send(chunk).map_err(|_| io::Error::other("the request has ended"))?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns when nothing is sent any more; after the end of the stream, when the receiver has had
/// long enough.
async fn stalls(sent: &AtomicU64) {
    let mut before = None;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if before == Some(now) && now != u64::MAX {
            return;
        }
        if now == u64::MAX {
            return tokio::time::sleep(INSTALLED).await;
        }
        before = Some(now);
        tokio::time::sleep(STALLED).await;
    }
}
