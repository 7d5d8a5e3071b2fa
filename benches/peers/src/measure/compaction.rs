//! Length of the file after compaction of what the load in random order has left.
//!
//! LMDB copies with compaction, redb and SQLite compact a copy in place. Told as a ratio to LMDB's file before and after.
//! Afterwards everything is read back from the compacted file and compared. Not repeated: the same load makes the same
//! file.

use super::{mib, About, Run};
use crate::disk::{self, Cache};
use crate::engine::{Direction, Engine, BASELINE};
use crate::report::{Better, Figure};
use crate::Res;
use std::time::Instant;

pub(crate) fn sizes(run: &Run<'_>) -> Res<Vec<Figure>> {
    let (mut compacted, mut notes) = (Vec::new(), Vec::new());
    let mut loaded = Vec::new();
    for engine in run.engines() {
        let before = mib(disk::file_bytes(&run.base(engine)?)?.0);
        if engine.name == BASELINE {
            loaded.push(before);
        }
        let after = compact(run, engine).map_err(|e| format!("{}: {e}", engine.name))?;
        notes.push(match after {
            Some((_, seconds)) => format!("{before:.1} MiB before; took {seconds:.2} s"),
            None => "no call for it".into(),
        });
        compacted.push(after.map(|(size, _)| size).into_iter().collect::<Vec<f64>>());
    }
    let about = |id, title| About { id, title, unit: "MiB", better: Better::Lower };
    let mut to_loaded = run.figure(about("compact", "file after compaction"), compacted.clone(), &notes);
    to_loaded.versus = format!("{BASELINE}'s file after its load in random order");
    for row in &mut to_loaded.rows {
        row.ratios = row.values.iter().zip(&loaded).map(|(size, loaded)| size / loaded).collect();
    }
    let mut to_compacted = run.figure(about("compact_both", "file after compaction"), compacted, &[]);
    to_compacted.versus = format!("{BASELINE}'s file after its own compaction");
    Ok(vec![to_loaded, to_compacted])
}

/// Size in MiB and seconds, if the engine can.
fn compact(run: &Run<'_>, engine: &Engine) -> Res<Option<(f64, f64)>> {
    let (from, to) = (run.scratch.file("work", engine.name), run.scratch.file("compact", engine.name));
    disk::fresh_copy(&run.base(engine)?, &from, Cache::Small)?;
    disk::remove(&to)?;
    let store = engine.open(&from)?;
    let start = Instant::now();
    let done = store.compact(&from, &to)?;
    let seconds = start.elapsed().as_secs_f64();
    disk::remove(&from)?;
    if !done {
        return Ok(None);
    }
    let size = mib(disk::file_bytes(&to)?.0);
    let store = engine.open(&to)?;
    if store.scan(Direction::Forward)? != run.data.tally() {
        return Err("the compacted file holds something else than was stored".into());
    }
    store.close()?;
    disk::remove(&to)?;
    Ok(Some((size, seconds)))
}
