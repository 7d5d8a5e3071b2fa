//! Keeps an image with a violation: shrinks it to few pages and writes it to a file that can be
//! judged again.
//!
//! The file begins with lines of text, `name: value`, up to an empty line. Then follow the bytes of
//! the image that are not zero, as ranges with offset (8 bytes) and length (4 bytes). [`replay`]
//! judges the file: the mutant with which it was found must show the violation again, and the real
//! code must behave as the file says.

use std::path::{Path, PathBuf};

use super::image::{Choice, Cut, Fate, Image, SECTOR};
use super::judge::{Judge, Outcome};
use super::setting::{Mode, Setting};
use crate::workload::{fast_dir, History};

const MAGIC: &str = "mapleaf power image 1";
/// Aligned blocks of this many zero bytes are not stored.
const CHUNK: usize = 32;

/// A violation with as few pages as possible.
pub(super) struct Shrunk {
    pub(super) image: Image,
    /// The judge's text.
    pub(super) said: String,
    /// The pages that differ from the durable or from the newest contents.
    pub(super) pages: Vec<usize>,
    pub(super) from_newest: bool,
}

impl Shrunk {
    /// The file is missing although it should exist.
    pub(super) fn missing(page_size: usize, acknowledged: u64) -> Shrunk {
        let said = format!("txn {acknowledged} was acknowledged and there is no file");
        Shrunk { image: Image::missing(page_size), said, pages: Vec::new(), from_newest: false }
    }
}

/// Removes pages from a violation as long as it stays one: once towards the durable contents, once
/// towards the newest.
pub(super) fn shrink(cut: &Cut, choice: &Choice, violates: impl Fn(&Image) -> Option<String>) -> Shrunk {
    let towards = |from_newest: bool| {
        let plain: Vec<Fate> =
            cut.doubts.iter().map(|doubt| if from_newest { doubt.newest() } else { Fate::Whole(0) }).collect();
        let mut best = choice.clone();
        let mut said = None;
        // Larger chunks first, so that few steps remove most pages.
        let mut chunk = best.fates.len().next_power_of_two();
        while chunk > 0 {
            for start in (0..best.fates.len()).step_by(chunk) {
                let end = (start + chunk).min(best.fates.len());
                let mut less = best.clone();
                less.fates[start..end].copy_from_slice(&plain[start..end]);
                if less != best {
                    if let Some(e) = violates(&cut.image(&less)) {
                        (best, said) = (less, Some(e));
                    }
                }
            }
            chunk /= 2;
        }
        let differs = best.fates.iter().zip(&plain).zip(&cut.doubts).filter(|((fate, plain), _)| fate != plain);
        let pages = differs.map(|(_, doubt)| doubt.page).collect();
        let image = cut.image(&best);
        let said = said.or_else(|| violates(&image)).unwrap_or_else(|| "not found again".into());
        Shrunk { image, said, pages, from_newest }
    };
    let (old, new) = (towards(false), towards(true));
    if new.pages.len() < old.pages.len() {
        new
    } else {
        old
    }
}

/// A kept violation.
pub(super) struct Kept {
    pub(super) showed: String,
    pub(super) setting: Setting,
    /// The kind of the history, and its seed.
    pub(super) history: (&'static str, u64),
    pub(super) acknowledged: u64,
    /// The result of the real code.
    pub(super) outcome: Result<Outcome, String>,
    pub(super) image: Image,
}

impl Kept {
    pub(super) fn of(shrunk: Shrunk, setting: Setting, history: &History, acknowledged: u64) -> Kept {
        let dir = fast_dir();
        let outcome = Judge::new(history, dir.path(), None).lenient(&shrunk.image, u64::MAX - 1);
        let (showed, image) = (shrunk.said, shrunk.image);
        Kept { showed, setting, history: (history.kind_name(), history.seed()), acknowledged, outcome, image }
    }
}

/// Writes a violation to `MAPLEAF_KEEP` or the build's temporary files. Returns its path and the
/// command that judges it again.
pub(super) fn keep(kept: &Kept) -> String {
    let dir =
        std::env::var_os("MAPLEAF_KEEP").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let mutant = kept.setting.mutant.map_or("found".to_string(), |mutant| format!("{mutant:?}"));
    let path = dir.join(format!("{mutant}-{:016x}.image", kept.image.hash()));
    match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, encode(kept))) {
        Ok(()) => format!(
            "kept; again: MAPLEAF_IMAGE={} cargo test -p mapleaf --test it power::corpus::one_image -- --nocapture",
            path.display()
        ),
        Err(e) => format!("{} could not be written: {e}", path.display()),
    }
}

fn outcome_text(outcome: &Result<Outcome, String>) -> String {
    match outcome {
        Ok(Outcome::Refused) => "refused".into(),
        Ok(Outcome::Whole(txn)) => format!("whole, txn {txn}"),
        Err(e) => format!("violation, {}", one_line(e)),
    }
}

/// The text in one line, without the directory of the image.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.starts_with('/'));
    words.collect::<Vec<_>>().join(" ")
}

fn encode(kept: &Kept) -> Vec<u8> {
    let Kept { setting, image, .. } = kept;
    let kind = kept.history.0;
    let judges_with = setting.judges_with().map_or("none".to_string(), |mutant| format!("{mutant:?}"));
    let made_by = setting.mutant.map_or("none".to_string(), |mutant| format!("{mutant:?}"));
    let mut bytes = format!(
        "{MAGIC}\nshowed: {}\nmade by: {made_by}\njudged with: {judges_with}\nmode: {:?}\nhistory: {kind} {}\n\
         page size: {}\nlength: {}\nacknowledged: {}\nright: {}\n\n",
        one_line(&kept.showed),
        setting.mode,
        kept.history.1,
        setting.page_size,
        if image.missing { "no file".to_string() } else { image.len.to_string() },
        kept.acknowledged,
        outcome_text(&kept.outcome),
    )
    .into_bytes();
    let content = image.bytes();
    let chunks: Vec<&[u8]> = content.chunks(CHUNK).collect();
    let is_zero = |at: usize| chunks[at].iter().all(|&byte| byte == 0);
    let mut at = 0;
    while at < chunks.len() {
        let end = (at..chunks.len()).find(|&at| is_zero(at)).unwrap_or(chunks.len());
        if end > at {
            let run = &content[at * CHUNK..(end * CHUNK).min(content.len())];
            bytes.extend((at as u64 * CHUNK as u64).to_le_bytes());
            bytes.extend((run.len() as u32).to_le_bytes());
            bytes.extend(run);
        }
        at = end + 1;
    }
    bytes
}

/// A kept image, read back: the texts by name, and the image.
struct Read {
    lines: Vec<(String, String)>,
    image: Image,
}

impl Read {
    fn of(bytes: &[u8]) -> Option<Read> {
        let end = bytes.windows(2).position(|two| two == b"\n\n")?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return None;
        }
        let lines: Vec<(String, String)> =
            lines.map(|line| line.split_once(": ").map(|(a, b)| (a.into(), b.into()))).collect::<Option<_>>()?;
        let number = |name: &str| lines.iter().find(|(n, _)| n == name)?.1.parse::<usize>().ok();
        if lines.contains(&("length".into(), "no file".into())) {
            let image = Image::missing(number("page size")?);
            return Some(Read { lines, image });
        }
        let mut content = vec![0; number("length")?];
        let mut rest = &bytes[end + 2..];
        while let Some((head, behind)) = rest.split_first_chunk::<12>() {
            let offset = u64::from_le_bytes(head[..8].try_into().ok()?) as usize;
            let len = u32::from_le_bytes(head[8..].try_into().ok()?) as usize;
            content.get_mut(offset..offset + len)?.copy_from_slice(behind.get(..len)?);
            rest = &behind[len..];
        }
        let image = Image::of_bytes(&content, number("page size")?);
        Some(Read { lines, image })
    }

    fn text(&self, name: &str) -> &str {
        let found = self.lines.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("the image says nothing of '{name}'")).1
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_else(|_| panic!("'{name}' is no number"))
    }
}

/// The result of judging a kept image again.
pub(super) struct Replayed {
    pub(super) showed: String,
    /// The violation of the mutant.
    pub(super) again: Result<(), String>,
    /// The result of today's code, and the one that the file expects.
    pub(super) right: String,
    pub(super) right_expected: String,
}

/// Judges a kept image again, both ways.
pub(super) fn replay(path: &Path) -> Replayed {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let read = Read::of(&bytes).unwrap_or_else(|| panic!("{} is no kept image", path.display()));
    let dir = fast_dir();
    let (kind, seed) = read.text("history").split_once(' ').expect("kind and seed");
    let seed = seed.parse().expect("a seed");
    let history = History::named(kind, seed);
    let mutant = super::setting::JUDGING.into_iter().find(|mutant| format!("{mutant:?}") == read.text("judged with"));
    let judge = Judge::new(&history, dir.path(), mutant);
    let acknowledged = read.number("acknowledged");
    let again = match read.text("mode") == format!("{:?}", Mode::Power) {
        true => judge.strict(&read.image, acknowledged),
        false => judge.lenient(&read.image, acknowledged).map(drop),
    };
    let right = Judge::new(&history, dir.path(), None).lenient(&read.image, u64::MAX - 1);
    Replayed {
        showed: read.text("showed").to_string(),
        again,
        right: outcome_text(&right),
        right_expected: read.text("right").to_string(),
    }
}

/// A kept image reads back unchanged, whatever its contents.
#[test]
fn a_kept_image_is_read_back_unchanged() {
    let mut bytes = vec![0; 5 * 4096];
    for at in [0, 4095, 4096, 3 * 4096 + 100, 5 * 4096 - 1] {
        bytes[at] = at as u8 | 1;
    }
    bytes[8192..8192 + SECTOR].fill(7);
    let kept = Kept {
        showed: "nothing: a test of the format in /tmp/x/y".into(),
        setting: Setting::power(4096),
        history: ("power", 5),
        acknowledged: 3,
        outcome: Ok(Outcome::Whole(4)),
        image: Image::of_bytes(&bytes, 4096),
    };
    let read = Read::of(&encode(&kept)).expect("to read it");
    assert_eq!(read.image.bytes(), bytes);
    assert_eq!(read.text("showed"), "nothing: a test of the format in");
    assert_eq!(read.number("acknowledged"), 3);
    assert_eq!(read.text("right"), "whole, txn 4");
}
