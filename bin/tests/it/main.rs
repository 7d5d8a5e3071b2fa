//! Tests of the `kvctl` program: one binary, with a module per subject.
#![cfg(unix)]

mod bench;
mod cli;
#[path = "../../../tests/it/commands.rs"]
mod commands;
mod compact;
mod damaged;
mod descriptors;
mod documents;
mod failed_verbs;
mod limited;
mod messages;
mod privacy;
mod refused_writes;
mod support;
mod terminal;
mod torture;
mod types;
