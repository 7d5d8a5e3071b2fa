//! `kvctl`: shows and changes Mapleaf databases.
//!
//! This crate uses only the public API of `mapleaf`. Each line uses only itself and lower lines;
//! `bench` and `torture` share nothing, and no files use each other in a circle:
//!
//! ```text
//! cli, usage             the command line, and the errors in it
//! cmd/                   one file for each verb: clap fills its `Args`, then `Args::run`;
//!                        `cmd/args.rs` has the arguments that verbs share
//! bench/, torture/       the parts of these two verbs
//! database/              opens databases; target tables of a load; findings of damage
//! terminal/              output to files and standard output, messages, progress, SIGINT
//! format/                text and rows to stored bytes, and back (TSV, JSON lines, codecs)
//! exit, numbers, random  exit codes and failures; numbers as arguments; seeded random numbers
//! ```
//!
//! Failure: one line on standard error that starts with `kvctl: `, and an exit code from the table
//! in `exit`. If the reader of a pipe closes it, the verb succeeds.

mod bench;
mod cli;
mod cmd;
mod database;
mod exit;
mod format;
mod numbers;
mod random;
mod terminal;
mod torture;
mod usage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    terminal::output::block_size_limit_signal();
    let exit = match cli::Cli::try_parse() {
        Err(error) => usage::report(&error),
        Ok(cli) => cli.run().unwrap_or_else(|failure| {
            terminal::progress::end();
            if let Some(text) = &failure.text {
                terminal::output::error(text);
            }
            failure.exit
        }),
    };
    ExitCode::from(exit.code())
}
