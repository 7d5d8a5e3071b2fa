//! The calls of other nodes: see `network`, which makes them.

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use http_body_util::BodyExt;
use hyper::StatusCode;
use mapleaf_raft::{Incoming, SnapshotData, State};
use openraft::{BasicNode, Snapshot, SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::Serialize;
use tokio::sync::mpsc;

use super::refusal::Refusal;
use super::Handle;
use crate::http::describe;

/// Bytes of the head of a snapshot, at most.
const HEAD_BYTES: u32 = 1 << 20;

type Head = (Vote<u64>, SnapshotMeta<u64, BasicNode>);

/// POST /raft/append
pub(crate) async fn append(Shared(app): Handle, body: Bytes) -> Result<Vec<u8>, Refusal> {
    let answer = app.engine()?.raft.append_entries(decode(&body)?).await;
    encode(&answer.map_err(|e| Refusal::damaged(&describe(&e)))?)
}

/// POST /raft/vote
pub(crate) async fn vote(Shared(app): Handle, body: Bytes) -> Result<Vec<u8>, Refusal> {
    let answer = app.engine()?.raft.vote(decode(&body)?).await;
    encode(&answer.map_err(|e| Refusal::damaged(&describe(&e)))?)
}

/// POST /raft/snapshot
pub(crate) async fn snapshot(Shared(app): Handle, body: Body) -> Result<Vec<u8>, Refusal> {
    let engine = app.engine()?;
    let (chunks, receiver) = mpsc::channel(8);
    let state = engine.state.clone();
    let received = tokio::task::spawn_blocking(move || receive(&state, ChunkReader { receiver, rest: Bytes::new() }));
    forward(body, chunks).await;
    let received = received.await.map_err(|e| Refusal::malformed(e.to_string()))?;
    let ((vote, meta), incoming) = received.map_err(Refusal::malformed)?;
    let snapshot = Snapshot { meta, snapshot: Box::new(SnapshotData::Received(incoming)) };
    encode(&engine.raft.install_full_snapshot(vote, snapshot).await?)
}

/// Hands the parts of a body on until it ends or nobody takes them.
async fn forward(mut body: Body, chunks: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let frame = frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(io::Error::other);
        if chunks.send(frame).await.is_err() {
            break;
        }
    }
}

fn receive(state: &State, mut input: ChunkReader) -> Result<(Head, Incoming), String> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(|e| e.to_string())?;
    let length = u32::from_le_bytes(length);
    if length > HEAD_BYTES {
        return Err(format!("the head of the snapshot has {length} bytes; at most {HEAD_BYTES} are allowed"));
    }
    let mut head = vec![0; length as usize];
    input.read_exact(&mut head).map_err(|e| e.to_string())?;
    let head = postcard::from_bytes(&head).map_err(|e| format!("the head of the snapshot: {e}"))?;
    let incoming = Incoming::receive(state, input).map_err(|e| e.to_string())?;
    Ok((head, incoming))
}

/// Reads the parts of a body in a thread that may wait.
struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let part = self.rest.split_to(into.len().min(self.rest.len()));
        into[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    postcard::from_bytes(body).map_err(|e| Refusal::malformed(format!("the call of a node cannot be decoded: {e}")))
}

fn encode(answer: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    postcard::to_stdvec(answer).map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
