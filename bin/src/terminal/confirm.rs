//! Asks before data is discarded. `--yes` answers in advance; without a terminal it is required.
//!
//! Failure: a usage error, if the answer is not yes, or if there is no terminal to ask.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::exit::{best_effort, Failure};

/// Asks a question on standard error. Fails unless the user accepts: `unchanged` says what stays as
/// it is then, and `yes` what `--yes` would do.
pub(crate) fn ask(question: &str, unchanged: &str, yes: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{unchanged}; --yes {yes}")));
    }
    best_effort(io::stderr().write_all(format!("{question} [y/N] ").as_bytes()));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::reading("standard input", &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage(format!("{unchanged}; the answer was not yes"))),
    }
}
