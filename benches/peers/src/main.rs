//! Mapleaf beside its peers: the same data, the same durability, turn by turn in one run.
//!
//! Rules: engines take turns within a round (A B C, A B C, ..); a first round is not counted; what counts is the median
//! of the ratios per round, with their spread. Every value that is read is verified, by every engine's loop alike.
//! Writes start from a flushed copy of the same loaded file with the page cache made afresh (`disk.rs`).
//!
//! `README.md` says how to run it; `--help` lists measures and engines.

mod cli;
mod data;
mod disk;
mod engine;
mod goals;
mod measure;
mod report;
mod workload;

use cli::Measure;
use measure::{cold, commits, compaction, device, large, limited, load, memory, opening, reading, ycsb, Run};
use report::Figure;
use std::process::ExitCode;

/// What went wrong, for people; the run ends with it.
pub(crate) type Res<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args.iter().any(|arg| arg == "--help" || arg == "-h" || arg == "help") {
        print!("{}", cli::help());
        return ExitCode::SUCCESS;
    }
    let done = match args.split_first() {
        Some((name, rest)) if name == memory::CHILD => memory::child(rest),
        Some((name, rest)) if name == limited::CHILD => limited::child(rest),
        _ => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mapleaf-peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Res<()> {
    let options = cli::parse(args)?;
    let mut figures = Vec::new();
    let conditions = report::conditions(options.dir.as_deref().unwrap_or(std::env::current_exe()?.as_path()));
    for (name, value) in &conditions {
        println!("{name:>9}: {value}");
    }
    if options.rounds < 5 {
        println!("  caution: fewer than 5 rounds");
    }
    for (&entries, &shape) in options.entries.iter().flat_map(|n| options.shapes.iter().map(move |s| (n, s))) {
        let mut run = Run::new(&options, shape, entries)?;
        for &measure in &options.measures {
            eprintln!("[{entries} entries, keys {}: {measure:?}]", shape.name());
            run.select(measure);
            for figure in take(&run, measure)? {
                println!("\n{}", figure.table().trim_end());
                figures.push(figure);
            }
        }
    }
    match &options.json {
        Some(path) => report::write_json(path, &conditions, &figures),
        None => Ok(()),
    }
}

fn take(run: &Run<'_>, measure: Measure) -> Res<Vec<Figure>> {
    Ok(match measure {
        Measure::Load => vec![load::random(run)?],
        Measure::Append => vec![load::append(run)?],
        Measure::Size => vec![load::size(run)?],
        Measure::Reads => vec![reading::points(run)?],
        Measure::TwoThreads => reading::two_threads(run)?,
        Measure::TxnReads => vec![reading::in_own_txn(run)?],
        Measure::Multi => vec![reading::batches(run)?],
        Measure::Seek => vec![reading::seeks(run)?],
        Measure::Scan => reading::scans(run)?,
        Measure::Commits => commits::plain(run)?,
        Measure::FreeList => commits::with_free_list(run)?,
        Measure::Device => vec![device::amplification(run)?],
        Measure::Large => large::values(run)?,
        Measure::Open => vec![opening::first_get(run)?],
        Measure::ColdGet => cold::gets(run)?,
        Measure::ColdMulti => vec![cold::batches(run)?],
        Measure::ColdScan => vec![cold::scan(run)?],
        Measure::ColdFolios => cold::folios(run)?,
        Measure::ColdSmall => vec![limited::gets(run)?],
        Measure::Compact => compaction::sizes(run)?,
        Measure::Ycsb => ycsb::all(run)?,
        Measure::Memory => vec![memory::load_peak(run)?],
    })
}
