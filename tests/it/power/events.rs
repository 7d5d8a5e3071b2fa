//! Counts of the events in runs.

use mapleaf::testing::LogContent;

use super::image::{Choice, Cut, Fate, Image};

/// What the database did when the power was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It was opened; there was nothing to replay.
    Opening,
    /// It was opened, and replayed a log.
    Replay,
    /// A commit by its record in the log.
    Append,
    /// A commit by checkpoint; there was no log, or the log did not do.
    ByCheckpoint,
    /// The commit by checkpoint that makes the log.
    MakingLog,
    /// A checkpoint beside writers.
    Checkpoint,
    /// Closing, without a log.
    Closing,
    /// Closing, which gives up the log.
    GivingUpLog,
}

pub(super) const STEPS: [Step; 8] = [
    Step::Opening,
    Step::Replay,
    Step::Append,
    Step::ByCheckpoint,
    Step::MakingLog,
    Step::Checkpoint,
    Step::Closing,
    Step::GivingUpLog,
];

/// The flush that a cut precedes: of pages, of a meta page, of the log, or none.
const FLUSHES: usize = 4;

/// Counts of the events in runs.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Events {
    pub(super) commits: u64,
    pub(super) aborts: u64,
    /// Commits that returned before they were durable.
    pub(super) eventual: u64,
    /// Checkpoints that were asked for.
    pub(super) checkpoints: u64,
    /// Commits that ran while another one was flushed.
    pub(super) overlaps: u64,
    pub(super) reopened: u64,
    pub(super) cuts: u64,
    /// Cuts at which the length of the file was in doubt.
    pub(super) cuts_of_length: u64,
    /// Cuts at which some page had more than one content since the flush.
    pub(super) cuts_of_versions: u64,
    /// Runs that continued from an image of a power cut.
    pub(super) crashes: u64,
    /// Such runs from an image of a run that itself followed a crash.
    pub(super) crashes_twice: u64,
    /// Runs that continued from the page cache of a killed process.
    pub(super) kills: u64,
    /// Images of a lying disk that did not open completely.
    pub(super) refused: u64,
    /// Images of a lying disk that were the state of the newest commit, and of older ones.
    pub(super) newest: u64,
    pub(super) older: u64,
    /// Steps of another process than the one before, groups of commits by two processes, and
    /// processes that joined another one.
    pub(super) turns: u64,
    pub(super) groups_of_two: u64,
    pub(super) joined: u64,
    pub(super) log: LogEvents,
}

impl Events {
    pub(super) fn add(&mut self, other: &Events) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.eventual += other.eventual;
        self.checkpoints += other.checkpoints;
        self.overlaps += other.overlaps;
        self.reopened += other.reopened;
        self.cuts += other.cuts;
        self.cuts_of_length += other.cuts_of_length;
        self.cuts_of_versions += other.cuts_of_versions;
        self.crashes += other.crashes;
        self.crashes_twice += other.crashes_twice;
        self.kills += other.kills;
        self.refused += other.refused;
        self.newest += other.newest;
        self.older += other.older;
        self.turns += other.turns;
        self.groups_of_two += other.groups_of_two;
        self.joined += other.joined;
        self.log.add(&other.log);
    }

    /// Names what did not occur of all that runs with two processes are about.
    pub(super) fn missing_of_two(&self) -> Option<String> {
        let kinds = [
            ("turns", self.turns),
            ("groups of commits by two processes", self.groups_of_two),
            ("processes that joined", self.joined),
            ("kills", self.kills),
            ("crashes", self.crashes),
        ];
        absent(&kinds)
    }
}

/// Names the first kind of event that did not occur.
fn absent(kinds: &[(&str, u64)]) -> Option<String> {
    let kind = kinds.iter().find(|(_, count)| *count == 0);
    kind.map(|(kind, _)| format!("no {kind}"))
}

/// Counts of the events that concern the commit log.
#[derive(Clone, Copy, Default)]
pub(super) struct LogEvents {
    /// Distinct images whose newest meta page has a log, or which a cut leaves while a log is made,
    /// replayed or given up.
    pub(super) distinct: u64,
    /// Images of these with a record to replay.
    pub(super) images: u64,
    /// Images of these whose records go past the end of the ring.
    pub(super) wraps: u64,
    /// Images with a torn page of the log, and with one that is older than the newest.
    pub(super) torn: u64,
    pub(super) missing: u64,
    /// Images with a whole record after a gap: after a torn record or a missing one.
    pub(super) after_a_gap: u64,
    /// Images with whole records of an earlier epoch, and of an earlier lap.
    pub(super) earlier_epochs: u64,
    pub(super) earlier_laps: u64,
    /// Appends that failed: the commit goes on by checkpoint with a new epoch.
    pub(super) failed_appends: u64,
    /// Commits for which several threads waited together.
    pub(super) groups: u64,
    /// Commits while a checkpoint ran beside them.
    pub(super) beside_checkpoints: u64,
    /// Calls of `Db::sync`.
    pub(super) syncs: u64,
    /// Checkpoints of which some pages could not be written.
    pub(super) failed_write_backs: u64,
    /// Commits by checkpoint whose meta page could not be flushed.
    pub(super) failed_metas: u64,
    /// Cuts by step and flush.
    cuts: [[u64; FLUSHES]; STEPS.len()],
    /// Opened images by step.
    by_step: [u64; STEPS.len()],
}

impl LogEvents {
    fn add(&mut self, other: &LogEvents) {
        self.distinct += other.distinct;
        self.images += other.images;
        self.wraps += other.wraps;
        self.torn += other.torn;
        self.missing += other.missing;
        self.after_a_gap += other.after_a_gap;
        self.earlier_epochs += other.earlier_epochs;
        self.earlier_laps += other.earlier_laps;
        self.failed_appends += other.failed_appends;
        self.groups += other.groups;
        self.beside_checkpoints += other.beside_checkpoints;
        self.syncs += other.syncs;
        self.failed_write_backs += other.failed_write_backs;
        self.failed_metas += other.failed_metas;
        for step in STEPS {
            let step = step as usize;
            self.by_step[step] += other.by_step[step];
            self.cuts[step].iter_mut().zip(other.cuts[step]).for_each(|(sum, count)| *sum += count);
        }
    }

    /// Counts a cut.
    pub(super) fn count_cut(&mut self, step: Step, cut: &Cut) {
        self.cuts[step as usize][cut.flush()] += 1;
    }

    /// Names what did not occur of all that runs with a log are about; `None`: everything did.
    pub(super) fn missing_of_log(&self) -> Option<String> {
        let kinds = [
            ("images with records", self.images),
            ("logs that wrap around", self.wraps),
            ("torn pages", self.torn),
            ("missing pages", self.missing),
            ("records after a gap", self.after_a_gap),
            ("earlier epochs", self.earlier_epochs),
            ("earlier laps", self.earlier_laps),
            ("failed appends", self.failed_appends),
            ("groups", self.groups),
            ("commits beside checkpoints", self.beside_checkpoints),
            ("syncs", self.syncs),
        ];
        absent(&kinds).or_else(|| self.missing_step())
    }

    /// The same for runs in which flushes fail, each of which ends early.
    pub(super) fn missing_of_failed(&self) -> Option<String> {
        absent(&[("failed write-backs", self.failed_write_backs), ("failed flushes of a meta page", self.failed_metas)])
    }

    /// Names a step without images, or without cuts before its flushes.
    fn missing_step(&self) -> Option<String> {
        STEPS.into_iter().filter(|step| *step != Step::Closing).find_map(|step| {
            let [pages, meta, log, _] = self.cuts_of(step);
            let flushes = if step == Step::Append { log } else { pages.min(meta) };
            let occurred = flushes > 0 && self.images_of(step) > 0;
            (!occurred).then(|| format!("{step:?}: cuts before {pages} {meta} {log}"))
        })
    }

    /// Cuts of a step, before flushes of pages, of meta pages and of the log, and between flushes.
    pub(super) fn cuts_of(&self, step: Step) -> [u64; FLUSHES] {
        self.cuts[step as usize]
    }

    /// Images of a step.
    pub(super) fn images_of(&self, step: Step) -> u64 {
        self.by_step[step as usize]
    }

    /// Counts an image that no other run had. `is_new` says whether it is distinct.
    pub(super) fn count_image(&mut self, step: Step, cut: &Cut, choice: &Choice, image: &Image, is_new: bool) {
        self.by_step[step as usize] += 1;
        let content = image.log_content();
        let about_log = matches!(step, Step::Replay | Step::MakingLog | Step::GivingUpLog);
        self.distinct += u64::from(is_new && (content.is_some() || about_log));
        let Some(log) = content else { return };
        self.images += u64::from(log.records > 0 && is_new);
        self.wraps += u64::from(log.wraps(image.page_size));
        self.after_a_gap += u64::from(log.after_a_gap > 0);
        self.earlier_epochs += u64::from(log.earlier_epochs > 0);
        self.earlier_laps += u64::from(log.earlier_laps > 0);
        let (mut torn, mut missing) = (false, false);
        for (doubt, fate) in cut.doubts.iter().zip(&choice.fates).filter(|(doubt, _)| holds(&log, doubt.page)) {
            match fate {
                Fate::Whole(version) => missing |= *version + 1 < doubt.versions.len(),
                Fate::Torn { .. } | Fate::Garbage(_) => torn = true,
            }
        }
        self.torn += u64::from(torn);
        self.missing += u64::from(missing);
    }

    /// Lines with the counts.
    pub(super) fn told(&self, test: &str) -> String {
        let mut text = format!(
            "{test}, log: {} distinct images with a log, {} with records, {} that wrap around, {} with torn and {} with missing pages, {} with a \
             whole record after a gap, {} with records of earlier epochs and {} of earlier laps; {} failed appends, {} \
             groups, {} commits beside checkpoints, {} syncs, {} failed write-backs, {} failed flushes of a meta page",
            self.distinct,
            self.images,
            self.wraps,
            self.torn,
            self.missing,
            self.after_a_gap,
            self.earlier_epochs,
            self.earlier_laps,
            self.failed_appends,
            self.groups,
            self.beside_checkpoints,
            self.syncs,
            self.failed_write_backs,
            self.failed_metas,
        );
        for step in STEPS {
            let [pages, meta, log, none] = self.cuts_of(step);
            let images = self.images_of(step);
            text += &format!(
                "\n{test}, cuts: {step:?}: {pages} before flushes of pages, {meta} of meta pages, {log} of the log, {none} \
                 between; {images} images"
            );
        }
        text
    }
}

impl std::fmt::Debug for LogEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} distinct images with a log", self.distinct)
    }
}

/// Whether a page belongs to the log.
fn holds(log: &LogContent, page: usize) -> bool {
    (log.first..log.first + log.pages).contains(&(page as u64))
}
