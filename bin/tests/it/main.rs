//! `kvctl` as its users meet it, one binary with a module per subject.
#![cfg(unix)]

mod bench;
mod broken;
mod cli;
mod compact;
mod damaged;
mod descriptors;
mod effects;
mod limited;
mod messages;
mod privacy;
mod support;
mod terminal;
mod torture;
mod types;
