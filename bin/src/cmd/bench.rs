//! `bench`: measures the speed of a database on the user's disk.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{json, Value};

use crate::bench::data::Data;
use crate::bench::file::BenchFile;
use crate::bench::operate::Bench;
use crate::bench::report::{self, ResultRow};
use crate::bench::run::{self, Limits, Tally};
use crate::bench::workload::{self, Workload};
use crate::bench::zipf::Zipf;
use crate::cmd::args::{Answer, KeepFile};
use crate::exit::{Exit, Failure, Outcome};
use crate::numbers;
use crate::terminal::interrupt;
use crate::terminal::output::{self, Output};
use crate::terminal::progress::{self, Progress, Unit};

const EXAMPLES: &str = "\
Examples:
  kvctl bench /mnt/disk
  kvctl bench . --entries 100000 --value-bytes 1000 --batch 100 --seconds 2
  kvctl bench bench.mapleaf --keep --workloads fill,ycsb --threads 8
  kvctl bench bench.mapleaf --workloads read,scan --ops 1000000 --json

TARGET is a folder (bench creates a file in it and removes it at the end), a new file (--keep keeps it), or a file of an
earlier run (bench uses its entries). bench touches no other file. Commits are durable, and bench verifies every entry that
it reads: a wrong or missing entry ends the run with 3 and keeps the file.

Latencies come from a closed loop: a thread begins an operation when its previous one has ended. So a stall counts as one
slow operation, although operations that arrive at a steady rate would all have waited for it (coordinated omission). The
percentiles say how long an operation takes once it begins, without the time that it would wait in a queue. 99 of 100
operations took at most p99; percentiles are at most 1.6 % too large and never too small. A latency includes generating
the key and verifying the value.

The seed determines the entries and the operations. With --ops, a run with one thread repeats exactly. Reads are served
from the page cache if the file fits into it; the first workload also reads and verifies each page for the first time.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder, new file, or file of an earlier run
    target: PathBuf,
    /// Workloads to measure, in this order [default:
    /// fill-seq,fill,read,multi,scan,scan-reverse,mixed]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Number of entries of a new file [default: 1000000]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::bounded::<1, { 1 << 40 }>)]
    entries: Option<u64>,
    /// Length of a key in bytes, 8 to 1000 [default: 24]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::bounded::<8, 1000>)]
    key_bytes: Option<u64>,
    /// Length of a value in bytes, 16 to 2^30 [default: 150]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::bounded::<16, { 1 << 30 }>)]
    value_bytes: Option<u64>,
    /// Number of entries in each commit of a fill
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true, value_parser = numbers::positive)]
    batch: u64,
    /// Number of keys in each call of 'multi'
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = numbers::bounded::<1, { 1 << 20 }>)]
    multi: u64,
    /// Share of gets in 'mixed', in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 95, allow_negative_numbers = true, value_parser = numbers::bounded::<0, 100>)]
    reads: u64,
    /// Number of threads; 'read' and 'multi' run with 1, 2, 4 and so on up to it [default: number
    /// of processors]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::bounded::<1, 1024>)]
    threads: Option<u64>,
    /// Duration of each workload in seconds; a fill runs to its end
    #[arg(long, value_name = "S", default_value_t = 5.0, allow_negative_numbers = true, value_parser = seconds)]
    seconds: f64,
    /// Number of operations of each workload, by all threads together, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds", allow_negative_numbers = true, value_parser = numbers::positive)]
    ops: Option<u64>,
    /// Seed of entries and operations
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = numbers::whole)]
    seed: u64,
    #[command(flatten)]
    at_end: KeepFile,
    #[command(flatten)]
    answer: Answer,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 1e6);
    seconds.ok_or_else(|| "give seconds above 0, as in 0.5".to_string())
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let mut file = BenchFile::examine(&self.target, self.at_end.keep)?;
        let workloads = workload::expand(&self.workloads, file.is_new());
        self.check_options(&file, &workloads)?;
        interrupt::handle_sigint()?;
        let progress = Progress::new(Unit::Items(""), None);
        let mut output = Output::stdout();
        let mut rows = Vec::new();
        let result = self.run_all(&workloads, &mut file, &progress, |new| {
            if !self.answer.json {
                let header = if rows.is_empty() { report::header() } else { String::new() };
                let lines: String = new.iter().map(ResultRow::line).collect();
                progress::clear();
                output.write((header + &lines).as_bytes()).and_then(|()| output.flush())?;
            }
            rows.extend(new);
            Ok(())
        });
        progress::clear();
        let interrupted = interrupt::requested();
        if let Err(failure) = &result {
            if failure.exit == Exit::File {
                file.keep();
            }
        }
        if result.is_ok() {
            let text = if self.answer.json { self.json_of(&file, &rows, interrupted) } else { self.summary(&file) };
            output.write(text.as_bytes())?;
        }
        output.finish()?;
        let remark = if file.stays() { "the file stays" } else { "the file was removed" };
        match result {
            Err(failure) if failure.exit == Exit::File => Err(failure.append(remark)),
            Err(failure) => Err(failure),
            Ok(()) if interrupted => {
                interrupt::set_summary(format!("these are the figures so far, {remark}"));
                Err(interrupt::failure())
            }
            Ok(()) => Ok(Exit::Done),
        }
    }

    /// Refuses options that need a new file if the file exists.
    fn check_options(&self, file: &BenchFile, workloads: &[Workload]) -> Result<(), Failure> {
        if file.is_new() {
            return Ok(());
        }
        let refuse = |text: &str| Err(Failure::usage(format!("{}: {text}", self.target.display())));
        if workloads.iter().any(|workload| workload.is_fill()) {
            return refuse("exists, and a fill needs a new file; leave the fill out, or name another file");
        }
        if self.entries.or(self.key_bytes).or(self.value_bytes).is_some() {
            return refuse("exists and has its entries; leave --entries, --key-bytes and --value-bytes out");
        }
        Ok(())
    }

    /// Runs all workloads and passes the rows of each one to `on_rows`.
    fn run_all(
        &self,
        workloads: &[Workload],
        file: &mut BenchFile,
        progress: &Progress,
        mut on_rows: impl FnMut(Vec<ResultRow>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for &workload in workloads {
            for threads in self.threads_of(workload) {
                progress.set_note(format!("{}, {threads} threads", workload.name()));
                let tally = self.run_one(workload, threads, file)?;
                on_rows(report::rows_of(&workload.name(), threads, &tally))?;
                if interrupt::requested() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The numbers of threads with which a workload runs, one after the other.
    fn threads_of(&self, workload: Workload) -> Vec<u64> {
        let threads_max =
            self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
        match workload {
            Workload::Read | Workload::Multi => {
                let doubling = std::iter::successors(Some(1), |threads| Some(threads * 2));
                doubling.take_while(|threads| *threads < threads_max).chain([threads_max]).collect()
            }
            _ if workload.mix(self.reads).is_some() => vec![threads_max],
            _ => vec![1],
        }
    }

    /// Runs one workload with this many threads.
    fn run_one(&self, workload: Workload, threads: u64, file: &mut BenchFile) -> Result<Tally, Failure> {
        let seed = self.seed ^ (workload as u64) << 32;
        if workload.is_fill() {
            let opened = file.recreate(self.data(workload))?;
            let bench = Bench { opened: &opened, path: &file.path };
            let entries = self.entries.unwrap_or(1_000_000);
            return run::run(1, Limits::default(), seed, |lap| bench.fill(lap, entries, self.batch));
        }
        let opened = file
            .opened()
            .ok_or_else(|| Failure::usage("there is nothing to read yet; name a fill first in --workloads"))?;
        let bench = Bench { opened, path: &file.path };
        let entries = bench.count()?;
        if entries == 0 {
            return Err(Failure::usage(format!(
                "{}: has no entries; remove it, and fill a new one",
                file.path.display()
            )));
        }
        let limits =
            Limits { operations: self.ops, time: self.ops.is_none().then_some(Duration::from_secs_f64(self.seconds)) };
        match workload.mix(self.reads) {
            Some(mix) => {
                let zipf = Zipf::new(entries);
                run::run(threads, limits, seed, |lap| bench.mixed(lap, &mix, &zipf, entries))
            }
            None if workload == Workload::Read => run::run(threads, limits, seed, |lap| bench.read(lap, entries)),
            None if workload == Workload::Multi => {
                run::run(threads, limits, seed, |lap| bench.multi(lap, entries, self.multi))
            }
            None => run::run(threads, limits, seed, |lap| bench.scan(lap, workload == Workload::ScanReverse)),
        }
    }

    fn data(&self, workload: Workload) -> Data {
        Data {
            seed: self.seed,
            key_bytes: self.key_bytes.unwrap_or(24) as usize,
            value_bytes: self.value_bytes.unwrap_or(150) as usize,
            sequential: workload == Workload::FillSeq,
        }
    }

    fn summary(&self, file: &BenchFile) -> String {
        let Some(opened) = file.opened() else { return String::new() };
        let Data { seed, key_bytes, value_bytes, .. } = opened.data;
        format!(
            "keys of {key_bytes} bytes, values of {value_bytes}, seed {seed}; {}: {} bytes, {}\n",
            output::one_line(&file.path.display().to_string()),
            opened.db.stats().map_or(0, |stats| stats.page_count * u64::from(stats.page_size)),
            if file.stays() { "stays" } else { "removed" },
        )
    }

    fn json_of(&self, file: &BenchFile, rows: &[ResultRow], interrupted: bool) -> String {
        let rows: Vec<Value> = rows.iter().map(ResultRow::json).collect();
        let data = file.opened().map(|opened| opened.data);
        let bytes = file.opened().and_then(|opened| opened.db.stats().ok());
        let object = json!({
            "file": file.path.to_string_lossy(),
            "file_bytes": bytes.map(|stats| stats.page_count * u64::from(stats.page_size)),
            "key_bytes": data.map(|data| data.key_bytes),
            "value_bytes": data.map(|data| data.value_bytes),
            "batch": self.batch,
            "multi": self.multi,
            "reads_percent": self.reads,
            "seed": self.seed,
            "interrupted": interrupted,
            "results": rows,
        });
        format!("{object}\n")
    }
}
