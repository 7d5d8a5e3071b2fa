//! Answers to requests that cannot be served here or now.
//!
//! ```text
//! 400  the request is malformed              421  another node is the leader
//! 404  there is no such key                  503  no leader, no majority, or damaged files
//! 409  the state of things forbids it        504  not known whether it was done
//! 500  a bug, or files that are damaged
//! ```

use axum::response::{IntoResponse, Response};
use axum::Json;
use hyper::StatusCode;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, RaftError};
use openraft::BasicNode;
use serde_json::json;

use crate::http::describe;

/// Why a request is not served.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
    leader: Option<(u64, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into(), leader: None }
    }

    pub(crate) fn malformed(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn damaged(why: &str) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("this node serves nothing: {why}"))
    }

    pub(crate) fn unavailable(why: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// Nobody knows whether the request was done.
    pub(crate) fn unknown(why: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, why)
    }

    fn forward(to: ForwardToLeader<u64, BasicNode>) -> Refusal {
        match (to.leader_id, to.leader_node) {
            (Some(id), Some(node)) => Refusal {
                status: StatusCode::MISDIRECTED_REQUEST,
                error: format!("node {id} is the leader"),
                leader: Some((id, node.addr)),
            },
            _ => Refusal::unavailable("there is no leader now"),
        }
    }
}

impl From<RaftError<u64, ClientWriteError<u64, BasicNode>>> for Refusal {
    fn from(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Refusal {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => Refusal::forward(to),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
                Refusal::new(StatusCode::CONFLICT, e.to_string())
            }
            // The entry may be in the log of another node.
            RaftError::Fatal(e) => Refusal::unknown(describe(&e)),
        }
    }
}

impl From<RaftError<u64, CheckIsLeaderError<u64, BasicNode>>> for Refusal {
    fn from(error: RaftError<u64, CheckIsLeaderError<u64, BasicNode>>) -> Refusal {
        match error {
            RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)) => Refusal::forward(to),
            RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(e)) => Refusal::unavailable(e.to_string()),
            RaftError::Fatal(e) => Refusal::from(e),
        }
    }
}

impl From<Fatal<u64>> for Refusal {
    fn from(error: Fatal<u64>) -> Refusal {
        Refusal::damaged(&describe(&error))
    }
}

impl From<mapleaf::Error> for Refusal {
    fn from(error: mapleaf::Error) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = match (self.status, self.leader) {
            (StatusCode::MISDIRECTED_REQUEST, Some((id, addr))) => {
                json!({ "error": self.error, "leader": id, "leader_addr": addr })
            }
            _ => json!({ "error": self.error }),
        };
        (self.status, Json(body)).into_response()
    }
}
