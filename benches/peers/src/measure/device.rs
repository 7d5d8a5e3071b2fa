//! Bytes written to the device per page that a commit changed.
//!
//! Pages changed: on a first copy, the whole file is compared with what it was before, page of 4 KiB by page, after
//! each commit of the window and after closing. A page whose contents differ is a changed page, metas and whatever the
//! store keeps of free space among them; a page that two commits change counts twice. Nothing is timed there.
//!
//! Bytes written: on further copies the same commits run again, without anybody reading between them, and the device's
//! counter of sectors is read before the window and after closing and syncing the file system. The window is 50 commits
//! of 20 random puts; 20 such commits before it give every store free pages to use, so that the file need not grow
//! inside it (growth is named if there was any). The journal of the file system is in the figure, for all alike; so is
//! whatever else writes to the device: see the note of the first row.
//!
//! A store that dirties large folios shows here: it writes many pages for each that it changed. `after_reads` does the
//! same on a file that was dropped from the page cache and read before the commits, in whatever folios the reads made.

use super::{About, Run, COMMIT_SEED};
use crate::data::{Pairs, Rng};
use crate::disk::{self, Device, Snapshot, PAGE_BYTES};
use crate::engine::{Engine, Order, Store};
use crate::report::{Better, Figure};
use crate::Res;

const WARM_UP_COMMITS: usize = 20;
const COMMITS: usize = 50;
const PUTS: usize = 20;

pub(crate) fn amplification(run: &Run<'_>) -> Res<Figure> {
    measure(run, "device", String::new(), None)
}

/// What reads a database before the commits.
type Reads<'a> = &'a dyn Fn(&dyn Store) -> Res<()>;

pub(crate) fn after_reads(run: &Run<'_>, id: &'static str, after: &str, reads: Reads<'_>) -> Res<Figure> {
    measure(run, id, format!(", after {after}"), Some(reads))
}

fn measure(run: &Run<'_>, id: &'static str, after: String, reads: Option<Reads<'_>>) -> Res<Figure> {
    let Some(device) = &run.device else {
        return Err("this file system has no device that counts sectors; choose another folder with --dir".into());
    };
    disk::settle(run.scratch.path())?;
    let noise = device.noise()?;
    let ids = chosen(run);
    let (mut changed, mut notes) = (Vec::new(), Vec::new());
    for engine in run.engines() {
        let (pages, growth) = count_changed(run, engine, &ids)?;
        let per_commit = pages as f64 / COMMITS as f64;
        notes.push(format!("{per_commit:.1} pages changed per commit, file grew by {} KiB", growth / 1024));
        changed.push(pages as f64);
    }
    let samples = run.interleave(|i, engine| {
        let bytes = bytes_written(run, device, engine, &ids, reads)?;
        Ok(bytes as f64 / PAGE_BYTES as f64 / changed[i])
    })?;
    if let Some(note) = notes.first_mut() {
        *note += &format!("; others wrote {} KiB/s to {} before", noise / 1024, device.name);
    }
    let title = format!("pages written to the device per page changed, commits of {PUTS} random puts{after}");
    let about = About { id, title: &title, unit: "pages", better: Better::Lower };
    Ok(run.figure(about, samples, &notes))
}

fn chosen(run: &Run<'_>) -> Vec<u32> {
    let mut rng = Rng::new(COMMIT_SEED);
    (0..(WARM_UP_COMMITS + COMMITS) * PUTS).map(|_| rng.below(u64::from(run.data.entries)) as u32).collect()
}

fn commit(run: &Run<'_>, store: &mut dyn Store, ids: &[u32]) -> Res<()> {
    store.put_all(&mut Pairs::listed(run.data.shape, ids, 1), Order::Any)
}

/// Pages changed in the window, closing included, and by how much the file grew.
fn count_changed(run: &Run<'_>, engine: &Engine, ids: &[u32]) -> Res<(u64, u64)> {
    let (path, mut store) = run.open_copy(engine, &run.base(engine)?)?;
    let (warm_up, window) = ids.split_at(WARM_UP_COMMITS * PUTS);
    for ids in warm_up.chunks(PUTS) {
        commit(run, store.as_mut(), ids)?;
    }
    let (length, _) = disk::file_bytes(&path)?;
    let mut snapshot = Snapshot::new(&path)?;
    let mut pages = 0;
    for ids in window.chunks(PUTS) {
        commit(run, store.as_mut(), ids)?;
        pages += snapshot.advance()?;
    }
    store.close()?;
    pages += snapshot.advance()?;
    let (length_after, _) = disk::file_bytes(&path)?;
    disk::remove(&path)?;
    Ok((pages, length_after.saturating_sub(length)))
}

fn bytes_written(run: &Run<'_>, device: &Device, engine: &Engine, ids: &[u32], reads: Option<Reads<'_>>) -> Res<u64> {
    let (path, mut store) = run.open_copy(engine, &run.base(engine)?)?;
    if let Some(reads) = reads {
        store.close()?;
        disk::drop_cache(&path)?;
        store = engine.open(&path)?;
        reads(store.as_ref())?;
    }
    let (warm_up, window) = ids.split_at(WARM_UP_COMMITS * PUTS);
    for ids in warm_up.chunks(PUTS) {
        commit(run, store.as_mut(), ids)?;
    }
    disk::settle(run.scratch.path())?;
    let before = device.counters()?;
    for ids in window.chunks(PUTS) {
        commit(run, store.as_mut(), ids)?;
    }
    store.close()?;
    disk::settle(run.scratch.path())?;
    let written = device.counters()?.since(before).bytes_written;
    disk::remove(&path)?;
    Ok(written)
}
