//! What a node says of itself.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::Json;
use openraft::ServerState;
use serde::{Deserialize, Serialize};

use super::{App, Engine, Handle};

/// The answer to GET /status. Positions are indexes of log entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) leader_addr: Option<String>,
    pub(crate) last_log: Option<u64>,
    pub(crate) committed: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
    pub(crate) members: Vec<Member>,
    pub(crate) damaged: Option<String>,
    /// On the leader: how long ago a majority has answered.
    pub(crate) quorum_ack_ms: Option<u64>,
    /// On the leader: the last entry that each other node has.
    pub(crate) replicated: BTreeMap<u64, Option<u64>>,
}

/// A member of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) voter: bool,
}

/// GET /status
pub(crate) async fn status(Shared(app): Handle) -> Json<Status> {
    Json(of(&app).await)
}

/// What this node says of itself.
pub(crate) async fn of(app: &App) -> Status {
    let mut status = match &app.engine {
        Ok(engine) => of_engine(engine).await,
        Err(_) => Status { role: "learner".to_string(), ..Status::default() },
    };
    status.id = app.id;
    status.damaged = app.damage();
    status
}

async fn of_engine(engine: &Engine) -> Status {
    let committed = engine.raft.with_raft_state(|state| state.committed).await.ok().flatten();
    let metrics = engine.raft.metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members = membership.nodes();
    let members = members.map(|(id, node)| Member { id: *id, addr: node.addr.clone(), voter: voters.contains(id) });
    let leader_addr = metrics.current_leader.and_then(|id| membership.get_node(&id)).map(|node| node.addr.clone());
    let replicated = metrics.replication.iter().flatten().map(|(id, last)| (*id, last.map(|last| last.index)));
    Status {
        id: metrics.id,
        role: role(metrics.state).to_string(),
        term: metrics.current_term,
        leader: metrics.current_leader,
        leader_addr,
        last_log: metrics.last_log_index,
        committed: committed.map(|id| id.index),
        applied: metrics.last_applied.map(|id| id.index),
        snapshot: metrics.snapshot.map(|id| id.index),
        purged: metrics.purged.map(|id| id.index),
        members: members.collect(),
        damaged: None,
        quorum_ack_ms: metrics.millis_since_quorum_ack,
        replicated: replicated.collect(),
    }
}

fn role(state: ServerState) -> &'static str {
    match state {
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Candidate => "candidate",
        ServerState::Learner | ServerState::Shutdown => "learner",
    }
}
