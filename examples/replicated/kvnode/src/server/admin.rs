//! Membership, and snapshots on request.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::Json;
use hyper::StatusCode;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers};
use serde::Deserialize;
use serde_json::{json, Value};

use super::refusal::Refusal;
use super::{App, Handle};
use crate::command::Types;

/// A change of the membership has so long; a node that joins gets all data in this time.
const CHANGE: Duration = Duration::from_secs(600);

/// A node.
#[derive(Debug, Deserialize)]
pub(crate) struct Joining {
    id: u64,
    addr: String,
}

/// The id of a node.
#[derive(Debug, Deserialize)]
pub(crate) struct Leaving {
    id: u64,
}

/// POST /admin/init: this node and its peers are the cluster.
pub(crate) async fn init(Shared(app): Handle) -> Result<Json<Value>, Refusal> {
    let mut members: BTreeMap<u64, BasicNode> =
        app.network.peers.iter().map(|(id, addr)| (*id, BasicNode::new(addr))).collect();
    members.insert(app.id, BasicNode::new(&app.addr));
    match app.engine()?.raft.initialize(members).await {
        Ok(()) => Ok(Json(json!({}))),
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
            Err(Refusal::new(StatusCode::CONFLICT, "this node is in a cluster already"))
        }
        Err(RaftError::APIError(e)) => Err(Refusal::malformed(e.to_string())),
        Err(RaftError::Fatal(e)) => Err(e.into()),
    }
}

/// POST /admin/join: the node gets all data as a learner, then it votes.
pub(crate) async fn join(Shared(app): Handle, Json(node): Json<Joining>) -> Result<Json<Value>, Refusal> {
    let raft = &app.engine()?.raft;
    if let Some(member) = member(&app, node.id)? {
        if member.voter || member.addr != node.addr {
            let (id, addr) = (node.id, member.addr);
            let what = format!("node {id} at {addr} is a member; if its files are lost, let it leave first");
            return Err(Refusal::new(StatusCode::CONFLICT, what));
        }
    }
    drop(in_time(raft.add_learner(node.id, BasicNode::new(node.addr), true)).await?);
    let voter = ChangeMembers::AddVoterIds(BTreeSet::from([node.id]));
    in_time(raft.change_membership(voter, true)).await
}

/// POST /admin/leave
pub(crate) async fn leave(Shared(app): Handle, Json(node): Json<Leaving>) -> Result<Json<Value>, Refusal> {
    let raft = &app.engine()?.raft;
    let ids = BTreeSet::from([node.id]);
    let change = match member(&app, node.id)? {
        Some(member) if member.voter => ChangeMembers::RemoveVoters(ids),
        Some(_) => ChangeMembers::RemoveNodes(ids),
        None => return Err(Refusal::new(StatusCode::CONFLICT, format!("node {} is no member", node.id))),
    };
    in_time(raft.change_membership(change, false)).await
}

/// POST /admin/snapshot: purges the log as far as a snapshot allows.
pub(crate) async fn snapshot(Shared(app): Handle) -> Result<Json<Value>, Refusal> {
    app.engine()?.raft.trigger().snapshot().await?;
    Ok(Json(json!({})))
}

struct Member {
    addr: String,
    voter: bool,
}

/// A member, as this node knows it; an error if it is not the leader, who knows.
fn member(app: &App, id: u64) -> Result<Option<Member>, Refusal> {
    let metrics = app.engine()?.raft.metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    let voter = membership.voter_ids().any(|voter| voter == id);
    Ok(membership.get_node(&id).map(|node| Member { addr: node.addr.clone(), voter }))
}

type Changed = Result<ClientWriteResponse<Types>, RaftError<u64, ClientWriteError<u64, BasicNode>>>;

async fn in_time(change: impl Future<Output = Changed>) -> Result<Json<Value>, Refusal> {
    let changed = tokio::time::timeout(CHANGE, change).await;
    let changed = changed.map_err(|_| Refusal::unknown("the change is not complete yet; look at /status"))??;
    Ok(Json(json!({ "index": changed.log_id.index })))
}
