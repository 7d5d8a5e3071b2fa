//! Measures the time of opening after a kill of the writer; `docs/performance.md` has the figure.
//!
//! ```sh
//! cargo bench --bench recovery                # a database of 1 GiB, 9 kills; half a minute
//! ```
//!
//! The file is in the folder for temporary files, and in the page cache, as the killed process left
//! it. A child commits small transactions and is killed at a random moment; then the benchmark
//! times opening for writing and a first get. It counts the page faults of opening, which show that
//! recovery does not read the whole file.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mapleaf::{Db, Result, Table};

const TABLE: Table<u64, &[u8]> = Table::new("bench");
const BYTES: u64 = 1 << 30;
const KILLS: u64 = 9;
const CHILD: &str = "MAPLEAF_BENCH_CHILD";

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn value(number: u64) -> [u8; 150] {
    std::array::from_fn(|at| mix(number ^ (at as u64) << 32) as u8)
}

/// Number of entries in a file of a GiB: each takes its key, its value and about ten more bytes.
fn entries() -> u64 {
    BYTES / 170
}

fn load(path: &Path) -> Result<()> {
    let db = Db::open(path)?;
    for from in (0..entries()).step_by(200_000) {
        db.write(|txn| {
            let mut table = txn.table(TABLE)?;
            (from..(from + 200_000).min(entries())).try_for_each(|number| table.append(number, &value(number)))
        })?;
    }
    Ok(())
}

/// Commits until it is killed.
fn write_on(path: &Path) -> Result<()> {
    let db = Db::open(path)?;
    for round in 0u64.. {
        db.write(|txn| {
            let mut table = txn.table(TABLE)?;
            (0..5).try_for_each(|n| {
                let number = mix(round * 5 + n) % entries();
                table.insert(number, &value(number)).map(drop)
            })
        })?;
        println!("{round}");
    }
    Ok(())
}

/// Minor page faults of this process.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
    let fields = stat.rsplit_once(')').expect("a name").1;
    fields.split_whitespace().nth(7).and_then(|field| field.parse().ok()).expect("a number")
}

fn kill_a_writer(path: &Path, round: u64) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program).env(CHILD, path).stdout(Stdio::piped()).spawn().expect("a child");
    // The pipe stays open until the child has died: a closed pipe would end it too early.
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.by_ref().take(200).filter(|line| line.is_ok()).count(), 200, "a child that commits");
    std::thread::sleep(Duration::from_micros(mix(round) % 2000));
    child.kill().expect("killed");
    child.wait().expect("gone");
}

fn main() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_on(Path::new(&path)).expect("commits until it is killed");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bench.mapleaf");
    load(&path).expect("loaded");
    println!("{} MiB", std::fs::metadata(&path).expect("the file").len() >> 20);
    let mut times = Vec::new();
    for round in 0..KILLS {
        kill_a_writer(&path, round);
        let (start, before) = (Instant::now(), faults());
        let db = Db::open(&path).expect("opens");
        let number = mix(round) % entries();
        let table = db.begin_read().and_then(|txn| txn.table(TABLE)).expect("table");
        let right = table.get(number).expect("get") == Some(&value(number)[..]);
        let (millis, faults) = (start.elapsed().as_secs_f64() * 1e3, faults() - before);
        assert!(right, "a wrong value");
        println!("kill {round}: open and first get {millis:.2} ms, {faults} page faults");
        times.push(millis);
    }
    times.sort_by(f64::total_cmp);
    println!("open after SIGKILL: median {:.2} ms, most {:.2} ms", times[times.len() / 2], times[times.len() - 1]);
}
