//! SIGKILL of a writer that commits, and the next transaction of another process.
//!
//! The writer commits batches without a pause, every second one of them large, so that it is killed somewhere in a
//! commit. The other process has the file open, and begins as soon as the signal has been sent: its time includes that
//! until the kernel has taken the locks from the dead. It may contain a flush, so the median of durable puts in the same
//! round is taken off.

use super::member::{Member, LMDB, SHARED};
use super::{copy, figure, halves, rounds};
use crate::data::Rng;
use crate::disk;
use crate::measure::{About, Run, REMOVE_SEED};
use crate::report::{median, Better, Figure, Row};
use crate::Res;
use std::time::Duration;

/// Writers killed per round.
const KILLS: usize = 20;
/// Entries of a transaction of the writer, in turns.
const BATCHES: [usize; 2] = [10, 1000];
const DELAY_MICROS: u64 = 30_000;

pub(super) fn next_begin(run: &Run<'_>) -> Res<Vec<Figure>> {
    let variants = [LMDB, SHARED];
    let (reads, writes) = halves(run);
    let mut rng = Rng::new(REMOVE_SEED);
    let (mut begins, mut commits) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    let values = rounds(run, variants.len(), |i, counts| {
        let path = copy(run, variants[i].engine, variants[i].name)?;
        let mut other = Member::open(run, variants[i], &path, 0)?;
        let (mut longest, mut puts) = (0f64, Vec::new());
        for kill in 0..KILLS {
            let mut writer = Member::open(run, variants[i], &path, 0)?;
            let size = BATCHES[kill % BATCHES.len()].min(writes / 2);
            writer.ask(&format!("forever {reads} {size}"))?;
            std::thread::sleep(Duration::from_micros(2_000 + rng.below(DELAY_MICROS)));
            writer.kill()?;
            let last = reads + writes - 1;
            let times = other.ask(&format!("begins {last} 1 0 0"))?;
            let begin = (times[1] - times[0]) / 1e6;
            longest = longest.max(begin);
            drop(writer);
            let commit = other.ask(&format!("puts {last} 1 {}", kill + 2))?[0] / 1e6;
            other.ask(&format!("verify {last} 1 {}", kill + 2))?;
            other.ask("probes 0 1000")?;
            other.ask("warm")?;
            puts.push(commit);
            if counts {
                begins[i].push(begin);
            }
        }
        other.close()?;
        disk::remove(&path)?;
        if counts {
            commits[i].extend(&puts);
        }
        Ok((longest - median(&puts)).max(0.0))
    })?;
    let rows = variants.iter().enumerate().map(|(i, variant)| Row {
        engine: variant.name.into(),
        values: values[i].clone(),
        ratios: Vec::new(),
        note: format!(
            "{} kills: median {:.3} ms, longest {:.3} ms; a durable put {:.3} ms",
            begins[i].len(),
            median(&begins[i]),
            begins[i].iter().copied().fold(0.0, f64::max),
            median(&commits[i])
        ),
    });
    let about = About {
        id: "processes_kill",
        title: "begin_write of another process after SIGKILL of a writer in mid-commit: the longest of 20, less a durable put",
        unit: "ms",
        better: Better::Lower,
    };
    Ok(vec![figure(run, about, "nothing", rows.collect())])
}
