//! Tests of the program `kvctl`: one binary, with a module for each subject.
#![cfg(unix)]

mod all_kinds;
mod bench;
mod changes;
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
mod page;
mod parts;
mod privacy;
mod refused_writes;
mod scratch;
mod shared;
mod snapshots;
mod support;
mod terminal;
mod torture;
mod types;
mod warm;
