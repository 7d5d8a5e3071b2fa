//! kvnode: a replicated key-value server on Mapleaf and openraft.
//!
//! ```text
//! cli          the arguments
//! command      what a client asks the cluster to do, and the answer
//! application  what a request does to the tables
//! http         requests to other nodes
//! network      openraft's calls of other nodes, over HTTP
//! client       the commands that talk to a cluster: they follow the leader
//! server       one node: its HTTP interface
//! ```

mod application;
mod cli;
mod client;
mod command;
mod http;
mod network;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build() {
        Ok(runtime) => runtime,
        Err(e) => return cli::failed(&format!("starting threads: {e}")),
    };
    match runtime.block_on(Cli::parse().run()) {
        Ok(code) => code,
        Err(e) => cli::failed(&e),
    }
}
