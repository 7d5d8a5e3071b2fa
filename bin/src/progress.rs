//! Progress on standard error, where that is a terminal; elsewhere nothing is shown.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mapleaf::Error;

use crate::exit::Failure;
use crate::interrupt;

/// A bar that counts things of this name. Its length is set with the first figures.
pub(crate) fn of(what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = format!("{{bar:30}} {{percent:>3}}%  {{pos}} of {{len}} {what}  {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Tells a bar how many are done, and of how many.
pub(crate) fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

/// Is told how many things are done, and of how many; says whether to go on.
type Tell<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Runs what writes a new file, or nothing at all, and counts things of this name. SIGINT ends it.
pub(crate) fn of_new_file<T>(what: &str, run: impl FnOnce(&mut Tell<'_>) -> mapleaf::Result<T>) -> Result<T, Failure> {
    interrupt::keep("nothing was written".to_string());
    interrupt::watch()?;
    let bar = of(what);
    let done = run(&mut |done, all| {
        show(&bar, done, all);
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    done.map_err(|error| match &error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted => interrupt::failure(),
        // It names the file that it is about: that which is read, or that which is written.
        _ => Failure::from(error),
    })
}
