//! Tests of the log store and of the state machine, on files.

mod files;
mod install;
mod log;
mod power;
mod stream;
mod suite;
mod support;
