//! The measurements, and what they share: one run's files and the order in which engines take turns.

pub(crate) mod beside_fio;
pub(crate) mod cold;
pub(crate) mod commits;
pub(crate) mod compaction;
pub(crate) mod device;
pub(crate) mod features;
pub(crate) mod large;
pub(crate) mod limited;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod opening;
pub(crate) mod processes;
pub(crate) mod reading;
pub(crate) mod ycsb;

use crate::cli::{Measure, Options};
use crate::data::{Data, Pairs, Shape};
use crate::disk::{self, Device, Scratch};
use crate::engine::{self, Engine, Order, Store, Tuning};
use crate::goals;
use crate::report::{Better, Figure, Row};
use crate::Res;
use std::path::PathBuf;

/// Seeds: the order of the load must not be that of the reads.
const LOAD_SEED: u64 = 1;
const READ_SEED: u64 = 2;
const COMMIT_SEED: u64 = 3;
const REMOVE_SEED: u64 = 4;
const SECOND_READ_SEED: u64 = 5;

pub(crate) struct Run<'o> {
    pub(crate) options: &'o Options,
    pub(crate) data: Data,
    pub(crate) scratch: Scratch,
    pub(crate) device: Option<Device>,
    /// Those that take part in the measurement that runs, and those to which it does not apply.
    engines: Vec<Engine>,
    missed: Vec<Engine>,
}

impl<'o> Run<'o> {
    pub(crate) fn new(options: &'o Options, shape: Shape, entries: u32) -> Res<Run<'o>> {
        let scratch = Scratch::new(options.dir.as_deref())?;
        let device = Device::below(scratch.path())?;
        let data = Data { shape, entries };
        Ok(Run { options, data, scratch, device, engines: Vec::new(), missed: Vec::new() })
    }

    /// Chooses the engines of a measurement.
    pub(crate) fn select(&mut self, measure: Measure) {
        let chosen = self.options.engines.iter().copied();
        self.engines = chosen.clone().filter(|engine| engine.takes(measure)).collect();
        self.missed = chosen.filter(|engine| engine.is_missed(measure)).collect();
        // Its ratios are to the better of two LMDBs: both have to be there.
        if measure == Measure::ColdSmall {
            for engine in engine::all().into_iter().filter(|engine| limited::BASELINES.contains(&engine.name)) {
                if self.engines.iter().all(|there| there.name != engine.name) {
                    self.engines.push(engine);
                }
            }
        }
    }

    pub(crate) fn engines(&self) -> &[Engine] {
        &self.engines
    }

    /// The engine's file after the load in random order, closed; loaded here when no measurement has left it.
    fn base(&self, engine: &Engine) -> Res<PathBuf> {
        let path = self.scratch.file("base", engine.name);
        if !path.exists() {
            let loading = self.scratch.file("loading", engine.name);
            let ids = self.data.shuffled(LOAD_SEED);
            let mut store = engine.open(&loading)?;
            store.put_all(&mut Pairs::listed(self.data.shape, &ids, 0), Order::Any)?;
            store.close()?;
            disk::rename(&loading, &path)?;
        }
        Ok(path)
    }

    /// A copy of `base`, open, with the page cache that the options ask for.
    fn open_copy(&self, engine: &Engine, base: &std::path::Path) -> Res<(PathBuf, Box<dyn Store>)> {
        self.open_tuned_copy(engine, base, Tuning::default())
    }

    /// The same with other settings.
    fn open_tuned_copy(
        &self,
        engine: &Engine,
        base: &std::path::Path,
        tuning: Tuning,
    ) -> Res<(PathBuf, Box<dyn Store>)> {
        let path = self.scratch.file("work", engine.name);
        disk::fresh_copy(base, &path, self.options.cache)?;
        let store = engine.open_tuned(&path, tuning)?;
        Ok((path, store))
    }

    /// Calls `take` for each engine in turn, round by round; the first round is not counted.
    fn interleave(&self, mut take: impl FnMut(usize, &Engine) -> Res<f64>) -> Res<Vec<Vec<f64>>> {
        let mut samples = vec![Vec::new(); self.engines().len()];
        for round in 0..=self.options.rounds {
            for (i, engine) in self.engines().iter().enumerate() {
                let value = take(i, engine).map_err(|e| format!("{}: {e}", engine.name))?;
                if round > 0 {
                    samples[i].push(value);
                }
            }
        }
        Ok(samples)
    }

    /// A figure with a row per engine, ratios to LMDB; the title names keys and entries.
    fn figure(&self, about: About<'_>, samples: Vec<Vec<f64>>, notes: &[String]) -> Figure {
        let figure = self.bare_figure(about, samples, notes);
        let title = format!("{} (keys {}, {} entries)", figure.title, self.data.shape.name(), self.data.entries);
        Figure { title, ..figure }
    }

    /// The same with the bare title.
    fn bare_figure(&self, about: About<'_>, samples: Vec<Vec<f64>>, notes: &[String]) -> Figure {
        let rows = self.engines().iter().zip(samples).enumerate().map(|(i, (engine, values))| Row {
            engine: engine.name.into(),
            values,
            ratios: Vec::new(),
            note: notes.get(i).cloned().unwrap_or_default(),
        });
        let note = String::from("does not apply");
        let missed = self.missed.iter().map(|engine| Row {
            engine: engine.name.into(),
            values: Vec::new(),
            ratios: Vec::new(),
            note: note.clone(),
        });
        Figure {
            id: about.id.into(),
            title: about.title.into(),
            keys: self.data.shape.name().into(),
            entries: u64::from(self.data.entries),
            unit: about.unit.into(),
            better: about.better,
            versus: String::new(),
            goal: goals::goal(about.id, self.data.shape),
            rows: rows.chain(missed).collect(),
        }
        .against_baseline()
    }
}

/// What a figure is.
#[derive(Clone, Copy)]
struct About<'a> {
    id: &'static str,
    title: &'a str,
    unit: &'static str,
    better: Better,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
