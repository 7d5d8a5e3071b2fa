//! Tests of the log store and of the state machine, on files.

mod install;
mod log;
mod node;
mod stream;
mod suite;
mod support;
