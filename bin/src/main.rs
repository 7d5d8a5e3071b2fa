//! `kvctl`: looks into Mapleaf databases and changes them.
//!
//! A crate of its own that sees only the public API of `mapleaf`. A module uses only modules of
//! lower lines of this table, so that there is no cycle:
//!
//! ```text
//! cli, cmd/                one file for each verb: clap fills its `Args`, then it runs
//! bench/, torture/         what these two verbs are made of
//! input, tsv, jsonl, rows  rows of the two formats, in and out
//! columns, types           texts of keys and values by the table's codecs
//! targets, store, fresh    tables and databases that a verb opens or makes
//! bytes, files, numbers    arguments: bytes, --hex, --base64, @file, sizes
//! interrupt                SIGINT
//! output, progress         standard output, files, standard error
//! terminal                 what a terminal may get
//! exit, refusal, findings  exit codes, failures, bad command lines, reports of damage
//! ```
//!
//! Failure: one line on standard error that starts with `kvctl: `, and the exit code of the table
//! in `exit`. A closed pipe is success.

mod bench;
mod bytes;
mod cli;
mod cmd;
mod columns;
mod exit;
mod files;
mod findings;
mod fresh;
mod input;
mod interrupt;
mod jsonl;
mod numbers;
mod output;
mod progress;
mod random;
mod refusal;
mod rows;
mod store;
mod targets;
mod terminal;
mod torture;
mod tsv;
mod types;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    output::take_size_limit_as_error();
    let exit = match cli::Cli::try_parse() {
        Err(error) => refusal::report(&error),
        Ok(cli) => cli.run().unwrap_or_else(|failure| {
            progress::end();
            if let Some(text) = &failure.text {
                output::complain(text);
            }
            failure.exit
        }),
    };
    ExitCode::from(exit.code())
}
