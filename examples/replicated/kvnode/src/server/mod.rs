//! One node: its files, its openraft, and its HTTP interface.
//!
//! ```text
//! refusal   answers to requests that cannot be served here or now
//! kv        keys and values, and the backup
//! reads     linearizable reads that share a question to the other nodes
//! writes    writes that share an entry of the log
//! admin     membership and snapshots
//! raft      the calls of other nodes
//! status    what the node says of itself
//! metrics   the same for Prometheus
//! page      the same for people
//! ```
//!
//! A node whose files are damaged starts nevertheless, says so, and serves nothing else.

mod admin;
mod kv;
mod metrics;
mod page;
mod raft;
mod reads;
mod refusal;
mod status;
mod writes;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::routing::{get, post};
use axum::Router;
use mapleaf_raft::{LogFile, Node, State, StateMachine};
use openraft::{Config, SnapshotPolicy};
use tokio::net::TcpListener;

use crate::application::KeyValue;
use crate::cli::Serve;
use crate::command::{Raft, Types};
use crate::http::{describe, Http};
use crate::network::Network;
use reads::Reads;
use refusal::Refusal;
use writes::Writes;

/// Bytes of a value, at most.
const VALUE_BYTES: usize = 16 << 20;
/// Bytes of a call of another node, at most: entries of a batch, and one of any size.
const CALL_BYTES: usize = VALUE_BYTES * 3;

/// A node, as its handlers see it.
pub(crate) struct App {
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) election_ms: u64,
    pub(crate) network: Network,
    pub(crate) counts: Counts,
    /// The files and openraft, or why there are none.
    pub(crate) engine: Result<Engine, String>,
}

/// The parts of a node whose files are whole.
pub(crate) struct Engine {
    pub(crate) raft: Raft,
    pub(crate) state: State,
    pub(crate) log: LogFile,
    pub(crate) reads: Reads,
    pub(crate) writes: Writes,
}

/// Requests since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) writes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) stale_reads: AtomicU64,
    pub(crate) failures: AtomicU64,
}

type Handle = Shared<Arc<App>>;

impl App {
    /// The parts of the node, if it can serve.
    pub(crate) fn engine(&self) -> Result<&Engine, Refusal> {
        let engine = self.engine.as_ref().map_err(|why| Refusal::damaged(why))?;
        match self.damage() {
            Some(why) => Err(Refusal::damaged(&why)),
            None => Ok(engine),
        }
    }

    /// Why the node serves nothing; `None` if it does.
    pub(crate) fn damage(&self) -> Option<String> {
        match &self.engine {
            Err(why) => Some(why.clone()),
            Ok(engine) => engine.raft.metrics().borrow().running_state.as_ref().err().map(|e| describe(e)),
        }
    }
}

/// Runs a node until it is asked to end.
pub(crate) async fn serve(args: Serve) -> Result<(), String> {
    let listener = TcpListener::bind(&args.addr).await.map_err(|e| format!("listening at {}: {e}", args.addr))?;
    let network = Network { http: Http::new(), peers: Arc::new(args.peers()) };
    let engine = start(&args, &network).await;
    match &engine {
        Ok(_) => println!("node {} serves at {}", args.id, args.own_addr()),
        Err(why) => println!("node {} at {} serves nothing: {why}", args.id, args.own_addr()),
    }
    let app = Arc::new(App {
        id: args.id,
        addr: args.own_addr().to_string(),
        election_ms: args.election_ms,
        network,
        counts: Counts::default(),
        engine,
    });
    let served = axum::serve(listener, routes(Arc::clone(&app))).with_graceful_shutdown(asked_to_end());
    served.await.map_err(|e| format!("serving: {e}"))?;
    if let Ok(engine) = &app.engine {
        engine.raft.shutdown().await.map_err(|e| format!("stopping: {e}"))?;
        engine.state.db().sync().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Opens the files and starts openraft.
async fn start(args: &Serve, network: &Network) -> Result<Engine, String> {
    let Node { file, log, state } = open(args)?;
    let config = Config {
        cluster_name: "kvnode".to_string(),
        heartbeat_interval: args.election_ms / 4,
        election_timeout_min: args.election_ms,
        election_timeout_max: args.election_ms * 2,
        max_payload_entries: 1024,
        replication_lag_threshold: args.snapshot_every,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(args.snapshot_every),
        max_in_snapshot_log_to_keep: args.snapshot_every / 2,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|e| format!("--election-ms: {e}"))?);
    let machine = StateMachine::new(state.clone(), KeyValue);
    let raft = Raft::new(args.id, config, network.clone(), log, machine).await.map_err(|e| describe(&e))?;
    let reads = Reads::start(raft.clone());
    let writes = Writes::start(raft.clone());
    Ok(Engine { raft, state, log: file, reads, writes })
}

fn open(args: &Serve) -> Result<Node<Types>, String> {
    let dir: &Path = &args.dir;
    let opened = match &args.seed {
        Some(from) => Node::open_seeded(dir, from, args.id, args.own_addr()),
        None => Node::open(dir),
    };
    opened.map_err(|e| e.to_string())
}

fn routes(app: Arc<App>) -> Router {
    let calls = Router::new()
        .route("/raft/append", post(raft::append))
        .route("/raft/vote", post(raft::vote))
        .layer(DefaultBodyLimit::max(CALL_BYTES))
        .route("/raft/snapshot", post(raft::snapshot).layer(DefaultBodyLimit::disable()));
    Router::new()
        .route("/kv/{*key}", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/cas/{*key}", post(kv::cas))
        .route("/scan", get(kv::scan))
        .route("/backup", get(kv::backup))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(page::page))
        .route("/admin/init", post(admin::init))
        .route("/admin/join", post(admin::join))
        .route("/admin/leave", post(admin::leave))
        .route("/admin/snapshot", post(admin::snapshot))
        .layer(DefaultBodyLimit::max(VALUE_BYTES * 2))
        .merge(calls)
        .with_state(app)
}

/// Returns when the process gets SIGTERM or SIGINT.
async fn asked_to_end() {
    use tokio::signal::unix::{signal, SignalKind};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = tokio::signal::ctrl_c() => (),
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
