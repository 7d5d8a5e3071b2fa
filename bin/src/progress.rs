//! Progress on standard error, where that is a terminal; elsewhere nothing is shown.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts pages. Its length is set with the first figures.
pub(crate) fn of_pages() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {pos} of {len} pages  {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Tells a bar how many pages are done, and of how many.
pub(crate) fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
