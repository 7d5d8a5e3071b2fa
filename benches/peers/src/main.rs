//! Mapleaf beside its peers: the same data, the same durability, turn by turn in one run.
//!
//! Rules: engines take turns within a round (A B C, A B C, ..); a first round is not counted; what counts is the median
//! of the ratios per round, with their spread. Every value that is read is verified, by every engine's loop alike.
//! Writes start from a flushed copy of the same loaded file with the page cache made afresh (`disk.rs`).
//!
//! `README.md` says how to run it; `--help` lists measures and engines.

mod cli;
mod conditions;
mod data;
mod disk;
mod engine;
mod goals;
mod groups;
mod json;
mod markdown;
mod measure;
mod report;
mod svg;
mod workload;

use cli::Measure;
use measure::{
    beside_fio, cold, commits, compaction, device, features, large, limited, load, memory, opening, processes, reading,
    ycsb, Run,
};
use report::Figure;
use std::path::Path;
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
        Some((name, rest)) if name == processes::child::CHILD => processes::child::child(rest),
        Some((name, rest)) if name == "report" => report_again(rest),
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
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    let place = options.dir.clone().map_or_else(std::env::current_exe, Ok)?;
    let conditions = conditions::of_this_run(&place);
    for (name, value) in &conditions {
        println!("{name:>9}: {value}");
    }
    if options.rounds < 5 {
        println!("  caution: fewer than 5 rounds");
    }
    if let Some(folder) = &options.out {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    for &entries in &options.entries {
        for (i, &shape) in options.shapes.iter().enumerate() {
            let mut run = Run::new(&options, shape, entries)?;
            for &measure in options.measures.iter().filter(|measure| i == 0 || options.repeats(**measure)) {
                eprintln!("[{entries} entries, keys {}: {measure:?}]", shape.name());
                run.select(measure);
                let taken = take(&run, measure).unwrap_or_else(|e| {
                    eprintln!("{measure:?}: {e}");
                    failed.push(format!("{entries} entries, keys {}: {measure:?}: {e}", shape.name()));
                    Vec::new()
                });
                for figure in taken {
                    println!("\n{}", figure.table().trim_end());
                    figures.push(figure);
                }
                // After each measure: a long run that is cut off leaves what it has measured.
                if let Some(folder) = &options.out {
                    write_folder(folder, &conditions, &figures)?;
                }
            }
        }
    }
    if let Some(path) = &options.json {
        json::write(path, &conditions, &figures)?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("\n").into())
}

/// The figures of a run in all their forms.
fn write_folder(folder: &Path, conditions: &[(String, String)], figures: &[Figure]) -> Res<()> {
    json::write(&folder.join("figures.json"), conditions, figures)?;
    let path = folder.join("figures.md");
    std::fs::write(&path, markdown::text(conditions, figures)).map_err(|e| format!("{}: {e}", path.display()))?;
    svg::write_all(folder, conditions, figures)
}

/// Shows figures that were kept before.
fn report_again(args: &[String]) -> Res<()> {
    let (from, out) = match args {
        [from] => (Path::new(from), None),
        [from, option, folder] if option == "--out" => (Path::new(from), Some(Path::new(folder))),
        _ => return Err("report FIGURES.json [--out FOLDER]".into()),
    };
    let kept = json::read(from)?;
    for (name, value) in &kept.conditions {
        println!("{name:>9}: {value}");
    }
    for figure in &kept.figures {
        println!("\n{}", figure.table().trim_end());
    }
    let Some(folder) = out else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    write_folder(folder, &kept.conditions, &kept.figures)
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
        Measure::Batches => commits::batches(run)?,
        Measure::Updates => commits::updates(run)?,
        Measure::Eventual => vec![commits::eventual(run)?],
        Measure::Threads => commits::threads(run)?,
        Measure::FreeList => commits::with_free_list(run)?,
        Measure::Device => vec![device::amplification(run)?],
        Measure::Large => large::values(run)?,
        Measure::Open => vec![opening::first_get(run)?],
        Measure::ColdGet => cold::gets(run)?,
        Measure::ColdMulti => vec![cold::batches(run)?],
        Measure::ColdScan => vec![cold::scan(run)?],
        Measure::ColdFolios => cold::folios(run)?,
        Measure::ColdSmall => vec![limited::gets(run)?],
        Measure::FioRandom => beside_fio::random(run)?,
        Measure::FioSequential => beside_fio::sequential(run)?,
        Measure::Compact => compaction::sizes(run)?,
        Measure::Ycsb => ycsb::all(run)?,
        Measure::Processes => processes::figures(run, processes::PARTS)?,
        Measure::Features => processes::figures(run, features::PARTS)?,
        Measure::Memory => vec![memory::load_peak(run)?],
    })
}
