//! The arguments of kvnode.
//!
//! Exit codes: 0 done; 1 the key does not exist, or a compare-and-swap found another value; 2 an
//! error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client;
use crate::server;

/// A replicated key-value server on Mapleaf and openraft.
#[derive(Debug, Parser)]
#[command(name = "kvnode", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Serve(Serve),
    /// Make the nodes that this node knows (--peers and itself) a cluster. Once, on one node.
    Init(To),
    /// Take a node into the cluster: it gets all data, then it votes.
    Join {
        #[command(flatten)]
        to: To,
        /// Its id.
        id: u64,
        /// Where the other nodes reach it, HOST:PORT.
        at: String,
    },
    /// Let a node go: it does not count for majorities any more. Stop it afterwards.
    Leave {
        #[command(flatten)]
        to: To,
        /// Its id.
        id: u64,
    },
    /// What each of the addresses says of itself, as JSON.
    Status(To),
    /// Print the value of a key.
    Get {
        #[command(flatten)]
        to: To,
        /// The key.
        key: String,
        /// Let the first address answer from what it has; that may be old.
        #[arg(long)]
        stale: bool,
    },
    /// Store a value.
    Put {
        #[command(flatten)]
        to: To,
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Delete a key.
    Del {
        #[command(flatten)]
        to: To,
        /// The key.
        key: String,
    },
    /// Replace a value if it is the expected one.
    Cas {
        #[command(flatten)]
        to: To,
        /// The key.
        key: String,
        /// The expected value; without it, the key must not exist.
        #[arg(long)]
        expect: Option<String>,
        /// The new value; without it, the key is deleted.
        #[arg(long)]
        value: Option<String>,
    },
    /// Print keys and values in the order of the keys, with a tab between them.
    Scan {
        #[command(flatten)]
        to: To,
        /// The first key.
        #[arg(long, default_value = "")]
        from: String,
        /// The key before which it ends.
        #[arg(long)]
        until: Option<String>,
        /// Print so many at most.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Write the tables of the cluster to a new Mapleaf file.
    Backup {
        #[command(flatten)]
        to: To,
        /// The file, which must not exist.
        file: PathBuf,
    },
}

/// Which nodes to ask.
#[derive(Debug, Args)]
pub(crate) struct To {
    /// Nodes of the cluster, HOST:PORT, with commas between them.
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) addr: Vec<String>,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 10)]
    pub(crate) timeout: u64,
}

/// How a node is run.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The id of the node, a number that no other node of the cluster has or had.
    #[arg(long)]
    pub(crate) id: u64,
    /// Where it listens, HOST:PORT.
    #[arg(long)]
    pub(crate) addr: String,
    /// Where others reach it, if that is not --addr.
    #[arg(long)]
    pub(crate) advertise: Option<String>,
    /// Where this node reaches others: ID=HOST:PORT, with commas between them. Others are reached
    /// where they said they are when they joined.
    #[arg(long, value_delimiter = ',', value_parser = peer)]
    pub(crate) peers: Vec<(u64, String)>,
    /// The directory of its files; it is created if it does not exist.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Start as the only member of a new cluster, with the tables of this Mapleaf file.
    #[arg(long)]
    pub(crate) seed: Option<PathBuf>,
    /// Purge the log after so many entries.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) snapshot_every: u64,
    /// Milliseconds without a leader after which a node may stand for election; it waits up to
    /// twice as long.
    #[arg(long, default_value_t = 1000)]
    pub(crate) election_ms: u64,
}

impl Serve {
    /// Where others reach this node.
    pub(crate) fn own_addr(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.addr)
    }

    /// Where this node reaches others.
    pub(crate) fn peers(&self) -> BTreeMap<u64, String> {
        self.peers.iter().filter(|(id, _)| *id != self.id).cloned().collect()
    }
}

impl Cli {
    /// Does what the arguments say.
    pub(crate) async fn run(self) -> Result<ExitCode, String> {
        match self.command {
            Command::Serve(serve) => server::serve(serve).await.map(|()| ExitCode::SUCCESS),
            Command::Init(to) => client::init(&to).await,
            Command::Join { to, id, at } => client::join(&to, id, &at).await,
            Command::Leave { to, id } => client::leave(&to, id).await,
            Command::Status(to) => client::status(&to).await,
            Command::Get { to, key, stale } => client::get(&to, &key, stale).await,
            Command::Put { to, key, value } => client::put(&to, &key, value).await,
            Command::Del { to, key } => client::del(&to, &key).await,
            Command::Cas { to, key, expect, value } => client::cas(&to, &key, expect, value).await,
            Command::Scan { to, from, until, limit } => client::scan(&to, &from, until.as_deref(), limit).await,
            Command::Backup { to, file } => client::backup(&to, &file).await,
        }
    }
}

/// Says what failed.
pub(crate) fn failed(what: &str) -> ExitCode {
    eprintln!("kvnode: {what}");
    ExitCode::from(2)
}

fn peer(text: &str) -> Result<(u64, String), String> {
    let (id, addr) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let id = id.parse().map_err(|e| format!("the id {id:?}: {e}"))?;
    Ok((id, addr.to_string()))
}
