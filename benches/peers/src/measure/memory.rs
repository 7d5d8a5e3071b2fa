//! Peak of anonymous memory of one large load in one transaction.
//!
//! A process of its own loads keys in the order of their numbers (R: random order; S1: ascending; S2: one of each
//! tenant in turn) without a list in memory, while a thread reads `RssAnon` of `/proc/self/status` every 2 ms, from
//! before the file is opened until it is closed. Pages of a file mapping are not anonymous memory; the kernel can drop
//! them. One load per engine: the peak hardly varies.

use super::{mib, About, Run};
use crate::cli::engine_named;
use crate::data::{Pairs, Shape};
use crate::disk;
use crate::engine::{Engine, Order};
use crate::report::{Better, Figure};
use crate::Res;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the hidden measure that the process of its own runs.
pub(crate) const CHILD: &str = "memory-child";
const SAMPLE_EVERY: Duration = Duration::from_millis(2);

pub(crate) fn load_peak(run: &Run<'_>) -> Res<Figure> {
    let pair_bytes = (run.data.shape.key_bytes() + run.data.shape.value_bytes()) as u64;
    let entries = (run.options.memory_mib << 20) / pair_bytes;
    let (mut samples, mut notes) = (Vec::new(), Vec::new());
    for engine in run.engines() {
        let (peak, before, seconds) = in_child(run, engine, entries)?;
        samples.push(vec![mib(peak)]);
        notes.push(format!("{:.1} MiB before opening; load took {seconds:.1} s", mib(before)));
    }
    let title = "peak of anonymous memory of a load in one transaction";
    let about = About { id: "memory", title, unit: "MiB", better: Better::Lower };
    let mut figure = run.figure(about, samples, &notes);
    let shape = run.data.shape.name();
    figure.title = format!("{title} ({} MiB, keys {shape}, {entries} entries)", run.options.memory_mib);
    Ok(figure)
}

fn in_child(run: &Run<'_>, engine: &Engine, entries: u64) -> Res<(u64, u64, f64)> {
    let path = run.scratch.file("memory", engine.name);
    disk::settle(run.scratch.path())?;
    let output = Command::new(std::env::current_exe()?)
        .args([CHILD, engine.name, run.data.shape.name(), &entries.to_string()])
        .arg(&path)
        .output()?;
    disk::remove(&path)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let text = String::from_utf8(output.stdout)?;
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [peak, before, seconds] => Ok((peak.parse()?, before.parse()?, seconds.parse()?)),
        _ => Err(format!("the loading process said {text:?}").into()),
    }
}

/// Loads and prints: peak, before (bytes), seconds.
pub(crate) fn child(args: &[String]) -> Res<()> {
    let [engine, shape, entries, path] = args else { return Err("four arguments".into()) };
    let engine = engine_named(engine)?;
    let shape = Shape::parse(shape).ok_or("no such keys")?;
    let before = anonymous_bytes()?;
    let sampler = Sampler::start();
    let start = Instant::now();
    let mut store = engine.open(Path::new(path))?;
    store.put_all(&mut Pairs::counted(shape, entries.parse()?, 0), Order::Any)?;
    let seconds = start.elapsed().as_secs_f64();
    store.close()?;
    println!("{} {before} {seconds}", sampler.stop()?);
    Ok(())
}

struct Sampler {
    done: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Sampler {
    fn start() -> Sampler {
        let (done, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_done, highest) = (done.clone(), peak.clone());
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                highest.fetch_max(anonymous_bytes().unwrap_or(u64::MAX), Ordering::Relaxed);
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        Sampler { done, peak, thread }
    }

    fn stop(self) -> Res<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the sampling thread panicked")?;
        Ok(self.peak.load(Ordering::Relaxed).max(anonymous_bytes()?))
    }
}

fn anonymous_bytes() -> Res<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon in status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
