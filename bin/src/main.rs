//! `kvctl`: looks into Mapleaf databases and changes them.
//!
//! A crate of its own that sees only the public API of `mapleaf`. One file for each verb stands in
//! `cmd`: an `Args` that clap fills, then runs. What the verbs share: exit codes and failures
//! (`exit`), bytes on the command line (`bytes`), texts of the built-in codecs (`types`, and
//! `columns` of a table), the two row formats (`tsv`, `jsonl`, chosen in `input`), writing
//! (`output`), opening (`store`), SIGINT (`interrupt`), what a terminal shows (`terminal`,
//! `progress`), bad command lines (`refusal`, `numbers`), databases that a failed verb must not
//! leave (`fresh`). What `torture` and `bench` are made of stands in folders of their own.
//!
//! Failure: one line on standard error that starts with `kvctl: `, and the exit code of the table
//! in `exit`. A closed pipe is success.

mod bench;
mod bytes;
mod cli;
mod cmd;
mod columns;
mod exit;
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
