//! A process of `processes`: it opens a database and does what the first process tells it.
//!
//! Each line on its standard input is an order, and gets one line of numbers on the standard output when it is done, or one
//! that begins with `error`. Entries are named by their place in one random order: reads are told to take those of
//! the first half, which nobody changes, and writes those of the second half, so that every value read has one right
//! answer.
//!
//! Failure: an order that takes too long ends the process by a signal, as does the end of the first process.

use super::clock;
use super::updates;
use crate::cli::engine_named;
use crate::data::{Data, Pairs, Probes, Shape};
use crate::engine::lmdb_renew::Renewing;
use crate::engine::{Held, Order, Step, Store, Tuning};
use crate::measure::READ_SEED;
use crate::Res;
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::SplitWhitespace;
use std::time::{Duration, Instant};

/// Name of the hidden measure that such a process runs.
pub(crate) const CHILD: &str = "processes-child";
/// An order that takes longer hangs.
const ORDER_SECONDS_MAX: u32 = 900;
/// Lookups between two looks at the clock.
const GETS_BETWEEN: usize = 1000;

/// How a database is opened.
enum Opened {
    Store(Box<dyn Store>),
    Renewing(Renewing),
}

struct Worker {
    engine: String,
    tuning: Tuning,
    renews: bool,
    path: PathBuf,
    data: Data,
    ids: Vec<u32>,
    lists: Vec<Probes>,
    opened: Option<Opened>,
    held: Option<Box<dyn Held>>,
}

/// Opens and obeys until the end of the input.
pub(crate) fn child(args: &[String]) -> Res<()> {
    let [engine, flags, shape, entries, path] = args else { return Err("five arguments".into()) };
    // SAFETY: asks for a signal when the parent ends; nothing else changes.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let has = |flag: &str| flags.split(',').any(|one| one == flag);
    let mut worker = Worker {
        engine: engine.clone(),
        tuning: Tuning { eventual: has("eventual"), exclusive: has("exclusive"), ..Tuning::default() },
        renews: has("renew"),
        path: path.into(),
        data: Data { shape: Shape::parse(shape).ok_or("no such keys")?, entries: entries.parse()? },
        ids: Vec::new(),
        lists: Vec::new(),
        opened: None,
        held: None,
    };
    for line in std::io::stdin().lock().lines() {
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(ORDER_SECONDS_MAX) };
        match worker.obey(&line?) {
            Ok(answer) => println!("{answer}"),
            Err(e) => println!("error {}", e.to_string().replace('\n', " ")),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn number<T: std::str::FromStr>(words: &mut SplitWhitespace<'_>) -> Res<T> {
    let word = words.next().ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word:?} is no number").into())
}

impl Worker {
    fn obey(&mut self, line: &str) -> Res<String> {
        let mut words = line.split_whitespace();
        let order = words.next().unwrap_or_default();
        let w = &mut words;
        match order {
            "open" => self.open(number(w)?),
            "close" => self.close(),
            "probes" => self.probes(number(w)?, number(w)?),
            "warm" => self.warm(),
            "gets" => self.read_for(number(w)?, false),
            "txns" => self.read_for(number(w)?, true),
            "puts" => self.puts(number(w)?, number(w)?, number(w)?),
            "commits" => self.commit_for(number(w)?, number(w)?, number(w)?),
            "verify" => self.verify(number(w)?, number(w)?, number(w)?),
            "begins" => self.begins(number(w)?, number(w)?, number(w)?, number(w)?),
            "turns" => {
                let (first, count, version) = (number(w)?, number(w)?, number(w)?);
                self.turns(first, count, version, w.next().unwrap_or_default(), w.next() == Some("lead"))
            }
            "hold" => self.hold(),
            "release" => self.release(),
            "update" => self.update(number(w)?, number(w)?),
            "forever" => self.forever(number(w)?, number(w)?),
            "scatter" => self.scatter(number(w)?),
            _ => Err(format!("no order {order:?}").into()),
        }
    }

    fn store(&self) -> Res<&dyn Store> {
        match &self.opened {
            Some(Opened::Store(store)) => Ok(store.as_ref()),
            _ => Err("no store is open".into()),
        }
    }

    fn store_mut(&mut self) -> Res<&mut Box<dyn Store>> {
        match &mut self.opened {
            Some(Opened::Store(store)) => Ok(store),
            _ => Err("no store is open".into()),
        }
    }

    /// `count` entries from place `first` on.
    fn ids(&mut self, first: usize, count: usize) -> Res<Vec<u32>> {
        if self.ids.is_empty() {
            self.ids = self.data.shuffled(READ_SEED);
        }
        let ids = self.ids.get(first..first + count);
        ids.map(<[u32]>::to_vec).ok_or_else(|| format!("{count} entries from {first} are too many").into())
    }

    /// Opens and looks the entry at a place up, one that nobody has changed; answers the nanoseconds of both.
    fn open(&mut self, place: usize) -> Res<String> {
        let probe = Probes::new(self.data.shape, &self.ids(place, 1)?, 0);
        let engine = engine_named(&self.engine)?;
        let start = Instant::now();
        let opened = if self.renews {
            let renewing = Renewing::open(&self.path)?;
            renewing.get_each(&probe)?;
            Opened::Renewing(renewing)
        } else {
            let store = engine.open_tuned(&self.path, self.tuning)?;
            store.get_all(&probe)?;
            Opened::Store(store)
        };
        let took = start.elapsed();
        self.opened = Some(opened);
        Ok(took.as_nanos().to_string())
    }

    fn close(&mut self) -> Res<String> {
        if let Some(Opened::Store(store)) = self.opened.take() {
            store.close()?;
        }
        Ok(String::new())
    }

    /// Makes lists of entries to look up.
    fn probes(&mut self, first: usize, count: usize) -> Res<String> {
        let (ids, shape) = (self.ids(first, count)?, self.data.shape);
        self.lists = ids.chunks(GETS_BETWEEN).map(|ids| Probes::new(shape, ids, 0)).collect();
        Ok(String::new())
    }

    /// Looks all entries of the lists up once, each in its own transaction: brings their pages into the mapping and passes
    /// the checks of a first touch.
    fn warm(&mut self) -> Res<String> {
        let opened = self.opened.as_ref().ok_or("nothing is open")?;
        for list in &self.lists {
            match opened {
                Opened::Renewing(renewing) => renewing.get_each(list)?,
                Opened::Store(store) => store.get_each(list)?,
            }
        }
        Ok(String::new())
    }

    /// Looks entries up for a time, in the transactions of the lists or each in its own; answers lookups, nanoseconds,
    /// and those of the processors.
    fn read_for(&mut self, millis: u64, alone: bool) -> Res<String> {
        let opened = self.opened.as_ref().ok_or("nothing is open")?;
        let time = Duration::from_millis(millis);
        let (start, cpu, mut gets) = (Instant::now(), clock::cpu_nanos()?, 0);
        for list in self.lists.iter().cycle() {
            match opened {
                Opened::Renewing(renewing) => renewing.get_each(list)?,
                Opened::Store(store) if alone => store.get_each(list)?,
                Opened::Store(store) => store.get_all(list)?,
            }
            gets += list.len();
            if start.elapsed() >= time {
                break;
            }
        }
        Ok(format!("{gets} {} {}", start.elapsed().as_nanos(), clock::cpu_nanos()? - cpu))
    }

    /// Stores entries, each in a transaction; answers nanoseconds.
    fn puts(&mut self, first: usize, count: usize, version: u64) -> Res<String> {
        let ids = self.ids(first, count)?;
        let store = self.store()?;
        let start = Instant::now();
        store.put_each(&mut Pairs::listed(self.data.shape, &ids, version))?;
        Ok(start.elapsed().as_nanos().to_string())
    }

    /// The same for a time with some entries again and again; answers transactions, nanoseconds, and those of the
    /// processors.
    fn commit_for(&mut self, millis: u64, first: usize, count: usize) -> Res<String> {
        let (ids, shape) = (self.ids(first, count)?, self.data.shape);
        let time = Duration::from_millis(millis);
        let store = self.store()?;
        let (start, cpu, mut done) = (Instant::now(), clock::cpu_nanos()?, 0);
        for id in ids.iter().cycle() {
            store.put_each(&mut Pairs::listed(shape, &[*id], 1))?;
            done += 1;
            if start.elapsed() >= time {
                break;
            }
        }
        let answer = format!("{done} {} {}", start.elapsed().as_nanos(), clock::cpu_nanos()? - cpu);
        store.get_all(&Probes::new(shape, &ids[..done.min(ids.len())], 1))?;
        Ok(answer)
    }

    fn verify(&mut self, first: usize, count: usize, version: u64) -> Res<String> {
        let ids = self.ids(first, count)?;
        self.store()?.get_all(&Probes::new(self.data.shape, &ids, version))?;
        Ok(String::new())
    }

    /// Stores entries, each in a transaction that stays the writer for `hold` microseconds, with a pause after it;
    /// answers three times for each, of a clock that all processes share: called, begun, about to commit.
    fn begins(&mut self, first: usize, count: usize, hold: u64, pause: u64) -> Res<String> {
        let ids = self.ids(first, count)?;
        let mut times = String::new();
        let mut see = |step: Step| -> Res<()> {
            let now = clock::now_nanos();
            if step == Step::Done {
                std::thread::sleep(Duration::from_micros(pause));
                return Ok(());
            }
            write!(times, "{now} ")?;
            if step == Step::Begun {
                clock::spin_until(now + hold * 1000);
            }
            Ok(())
        };
        self.store()?.put_each_seen(&mut Pairs::listed(self.data.shape, &ids, 1), &mut see)?;
        Ok(times)
    }

    /// Stores entries, each in a transaction, in turns with the process at the other end of `socket`, or alone if there
    /// is none; answers nanoseconds.
    fn turns(&mut self, first: usize, count: usize, version: u64, socket: &str, leads: bool) -> Res<String> {
        let ids = self.ids(first, count)?;
        let mut pairs = Pairs::listed(self.data.shape, &ids, version);
        let store = self.store()?;
        if socket == "-" {
            let start = Instant::now();
            store.put_each_seen(&mut pairs, &mut |_| Ok(()))?;
            return Ok(start.elapsed().as_nanos().to_string());
        }
        let mut other = connect(Path::new(socket), leads)?;
        let mut is_first = leads;
        let start = Instant::now();
        store.put_each_seen(&mut pairs, &mut |step| {
            match step {
                Step::Call if !std::mem::take(&mut is_first) => other.read_exact(&mut [0])?,
                Step::Done => other.write_all(&[1])?,
                _ => {}
            }
            Ok(())
        })?;
        // The last turn belongs to the other.
        if leads {
            other.read_exact(&mut [0])?;
        }
        Ok(start.elapsed().as_nanos().to_string())
    }

    /// Begins a read transaction that stays.
    fn hold(&mut self) -> Res<String> {
        self.held = Some(self.store()?.hold()?);
        Ok(String::new())
    }

    /// Verifies all entries in the transaction that stayed, and ends it.
    fn release(&mut self) -> Res<String> {
        let ids = self.ids(0, self.data.entries as usize)?;
        let held = self.held.take().ok_or("nothing is held")?;
        held.get_all(&Probes::new(self.data.shape, &ids, 0))?;
        Ok(String::new())
    }

    /// Commits batches of updates of random entries, in a thread of their own: in some engines a thread has only one
    /// transaction. Answers nanoseconds and the length of the file.
    fn update(&mut self, batches: u64, size: usize) -> Res<String> {
        let Some(Opened::Store(mut store)) = self.opened.take() else { return Err("no store is open".into()) };
        let data = self.data;
        let start = Instant::now();
        let work = move || -> Result<Box<dyn Store>, String> {
            let mut versions = vec![0; data.entries as usize];
            for batch in 1..=batches {
                let ids = updates::batch(data, batch, size);
                store.put_all(&mut Pairs::listed(data.shape, &ids, batch), Order::Any).map_err(|e| e.to_string())?;
                ids.iter().for_each(|&id| versions[id as usize] = batch);
            }
            for (version, ids) in updates::by_version(&versions) {
                store.get_all(&Probes::new(data.shape, &ids, version)).map_err(|e| e.to_string())?;
            }
            Ok(store)
        };
        let store = std::thread::spawn(work).join().map_err(|_| "the writing thread panicked")??;
        self.opened = Some(Opened::Store(store));
        let length = crate::disk::file_bytes(&self.path)?.0;
        Ok(format!("{} {length}", start.elapsed().as_nanos()))
    }

    /// Answers, and then commits batches until the process is killed.
    fn forever(&mut self, first: usize, size: usize) -> Res<String> {
        let (ids, shape) = (self.ids(first, size)?, self.data.shape);
        let store = self.store_mut()?;
        println!();
        std::io::stdout().flush()?;
        loop {
            store.put_all(&mut Pairs::listed(shape, &ids, 1), Order::Any)?;
        }
    }

    fn scatter(&mut self, extents: u64) -> Res<String> {
        self.store_mut()?.scatter_free(extents)?;
        Ok(String::new())
    }
}

/// The leading process listens, the other one calls until it does.
fn connect(path: &Path, leads: bool) -> Res<UnixStream> {
    if leads {
        let listener = UnixListener::bind(path)?;
        let stream = listener.accept()?.0;
        std::fs::remove_file(path)?;
        return Ok(stream);
    }
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(e) if start.elapsed() > Duration::from_secs(10) => return Err(e.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
