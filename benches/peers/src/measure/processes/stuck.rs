//! A reader that does not end while all entries are updated again and again.
//!
//! The file has a tenth of the entries of the run, and is updated so often as the run has entries, in durable batches of
//! 1,000 random ones. The length counts while the file is open and the reader is there. One pass: a length hardly
//! varies. Afterwards the reader verifies its whole state, and the writer all entries.

use super::figure;
use super::member::{Member, Variant, LMDB, SHARED};
use crate::cli::engine_named;
use crate::data::{Data, Pairs};
use crate::disk;
use crate::engine::Order;
use crate::measure::{mib, About, Run, LOAD_SEED};
use crate::report::{Better, Figure, Row};
use crate::Res;
use std::path::Path;

const BATCH: usize = 1000;
/// Updates per entry.
const UPDATES: u32 = 10;

pub(super) fn growth(run: &Run<'_>) -> Res<Vec<Figure>> {
    let redb = Variant { name: "redb", engine: "redb", flags: "-" };
    let about = About {
        id: "processes_stuck",
        title: "length of the file after updates of all entries beside a reader of the same process that is stuck",
        unit: "MiB",
        better: Better::Lower,
    };
    let inside = [LMDB, SHARED, redb].iter().map(|v| row(run, *v, false)).collect::<Res<_>>()?;
    let outside = [LMDB, SHARED].iter().map(|v| row(run, *v, true)).collect::<Res<_>>()?;
    let title = "the same, the reader in another process";
    let versus = "the file as loaded: its growth";
    let other = About { id: "processes_stuck_other", title, ..about };
    Ok(vec![figure(run, about, versus, inside), figure(run, other, versus, outside)])
}

fn row(run: &Run<'_>, variant: Variant, is_other: bool) -> Res<Row> {
    let data = Data { entries: run.data.entries / UPDATES, ..run.data };
    let path = run.scratch.file("stuck", variant.name);
    let engine = engine_named(variant.engine)?;
    let mut store = engine.open(&path)?;
    store.put_all(&mut Pairs::listed(data.shape, &data.shuffled(LOAD_SEED), 0), Order::Any)?;
    store.close()?;
    let loaded = disk::file_bytes(&path)?.0;
    let batches = run.data.entries as usize / BATCH;
    let (open, seconds) = update(run, variant, &path, data, batches, is_other)?;
    let closed = disk::file_bytes(&path)?.0;
    disk::remove(&path)?;
    let grown = |length: u64| length as f64 / loaded as f64 - 1.0;
    let bytes = u64::from(data.entries) * (data.shape.key_bytes() + data.shape.value_bytes()) as u64;
    Ok(Row {
        engine: variant.name.into(),
        values: vec![mib(open)],
        ratios: vec![grown(open)],
        note: format!(
            "loaded {:.1} MiB ({:.1} MiB of keys and values), closed {:.1} MiB; {batches} batches in {seconds:.1} s",
            mib(loaded),
            mib(bytes),
            mib(closed)
        ),
    })
}

/// Length of the file at the end, and seconds.
fn update(run: &Run<'_>, variant: Variant, path: &Path, data: Data, batches: usize, is_other: bool) -> Res<(u64, f64)> {
    let mut writer = Member::open_of(run, variant, path, 0, data.entries)?;
    let mut reader = match is_other {
        true => Some(Member::open_of(run, variant, path, 0, data.entries)?),
        false => None,
    };
    reader.as_mut().unwrap_or(&mut writer).ask("hold")?;
    let answer = writer.ask(&format!("update {batches} {BATCH}"))?;
    reader.as_mut().unwrap_or(&mut writer).ask("release")?;
    reader.map(Member::close).transpose()?;
    writer.close()?;
    Ok((answer[1] as u64, answer[0] / 1e9))
}
