//! `kvctl` as its users meet it, one binary with a module per subject.
#![cfg(unix)]

mod bench;
mod broken;
mod cli;
mod compact;
mod damaged;
mod support;
mod torture;
mod types;
