//! `torture`: kills writing processes and checks that no acknowledged commit is lost.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cmd::args::{Answer, KeepFile};
use crate::database::new_file;
use crate::exit::{best_effort, Exit, Failure, Outcome};
use crate::numbers;
use crate::terminal::interrupt;
use crate::terminal::output::Output;
use crate::terminal::progress::{self, Progress, Unit};
use crate::torture::judge::{self, Mode};
use crate::torture::plan::Plan;
use crate::torture::report::Report;
use crate::torture::run::{End, Run, Settings};
use crate::torture::writer;

const EXAMPLES: &str = "\
Examples:
  kvctl torture /mnt/disk/torture.mapleaf
  kvctl torture torture.mapleaf --cycles 1000 --truncate --flip
  kvctl torture torture.mapleaf --seed 7 --keep --json

Each cycle starts a process that commits verifiable transactions to FILE, and kills it with SIGKILL; every second kill hits
a commit. Then torture compares all of FILE with the expected contents: FILE must hold exactly the state after one
transaction, which is not older than the last acknowledged one. FILE must not exist, or must come from an earlier run with
--keep, which this run continues. torture removes a new FILE at the end. The first violation ends the run with 3, and FILE
stays. A seed repeats the transactions and the choices, but not the exact moments of the kills.

A kill is not a power loss: the kernel still writes out the pages of a killed process. To test the disk too, run torture
with --keep, cut the power, and run it again on the same FILE.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database to create, on the disk to test
    file: PathBuf,
    /// Number of processes to kill
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = numbers::positive)]
    cycles: u64,
    /// Seed of transactions and choices [default: from the clock]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::whole)]
    seed: Option<u64>,
    /// Also cut a copy of the file short in each cycle: opening it must fail or return correct
    /// data, and recovery must reach an older state if one is undamaged
    #[arg(long)]
    truncate: bool,
    /// Also change random bytes of a copy in each cycle: each read must return correct data or an
    /// error
    #[arg(long)]
    flip: bool,
    /// Approximate size limit of the file, at least 1M; K, M and G are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = numbers::size::<{ 1 << 20 }>)]
    max_size: u64,
    #[command(flatten)]
    at_end: KeepFile,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        interrupt::handle_sigint()?;
        let seed = self.seed.unwrap_or_else(clock_seed);
        let existed = fs::symlink_metadata(&self.file).is_ok();
        let settings = Settings {
            path: self.file.clone(),
            cycles: self.cycles,
            seed,
            max_bytes: self.max_size,
            truncate: self.truncate,
            flip: self.flip,
        };
        let mut run = match Run::start(settings, self.seed.is_some()) {
            Ok(run) => run,
            Err(end) => return Err(self.failure(end, seed, true)),
        };
        let result = run.cycles(&Progress::new(Unit::Items("cycles"), Some(self.cycles)));
        progress::clear();
        let keep = existed || self.at_end.keep || matches!(result, Err(End::Violation(_)));
        if !keep {
            remove(&self.file);
        }
        match result {
            Ok(()) => {
                self.print(&run.report)?;
                Ok(Exit::Done)
            }
            Err(end) => {
                if matches!(end, End::Violation(_)) {
                    self.print(&run.report)?;
                }
                Err(self.failure(end, run.report.seed, keep))
            }
        }
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        let mut output = Output::stdout();
        let text = if self.answer.json { report.json() } else { report.text() };
        output.write(text.as_bytes())?;
        output.finish()
    }

    fn failure(&self, end: End, seed: u64, is_kept: bool) -> Failure {
        match end {
            End::Violation(text) => Failure::new(
                Exit::File,
                format!(
                    "{}: VIOLATION, seed {seed}, {text}; repeat with 'kvctl torture NEW-FILE --seed {seed} --cycles {}{}{}'; \
                     the file stays for examination",
                    self.file.display(),
                    self.cycles,
                    if self.truncate { " --truncate" } else { "" },
                    if self.flip { " --flip" } else { "" },
                ),
            ),
            End::ViolatedBefore(text) => Failure::new(
                Exit::File,
                format!("{}: VIOLATION, before any kill: {text}; the file stays as it was found", self.file.display()),
            ),
            End::Failure(failure) => failure,
            End::Interrupted => {
                let failure = interrupt::failure();
                if is_kept {
                    failure.append(&format!("{} stays", self.file.display()))
                } else {
                    failure
                }
            }
        }
    }
}

/// Removes the database, its lock file, and the temporary files of killed writers that were
/// creating it.
fn remove(file: &std::path::Path) {
    new_file::remove(file);
    let Some(name) = file.file_name().map(|name| name.to_string_lossy().into_owned()) else { return };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let temporary_prefix = format!(".{}.", name.chars().take(40).collect::<String>());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&temporary_prefix) && name.ends_with(".new") {
            best_effort(fs::remove_file(entry.path()));
        }
    }
}

/// A seed from the clock.
fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
}

const CHILD_HELP: &str = "\
Part of 'kvctl torture', which starts it: kvctl torture-child judge FILE --newest 7
";

/// The part that a child of `torture` runs.
#[derive(clap::Args, Debug)]
#[command(after_help = CHILD_HELP)]
pub(crate) struct ChildArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(clap::Subcommand, Debug)]
enum Part {
    /// Commit transactions until a kill
    Write {
        file: PathBuf,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        keys: u64,
    },
    /// Print the verdict on a file
    Judge {
        file: PathBuf,
        #[arg(long)]
        newest: u64,
        #[arg(long)]
        writes: bool,
        #[arg(long)]
        damaged: bool,
    },
}

impl ChildArgs {
    pub(crate) fn run(self) -> Outcome {
        progress::expect_line_of_parent();
        match self.part {
            Part::Write { file, seed, keys } => writer::run(&file, Plan { seed, keys }),
            Part::Judge { file, newest, writes, damaged } => judge::run(&file, Mode { writes, damaged, newest }),
        }
    }
}
