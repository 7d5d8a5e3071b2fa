//! Threads that commit while the first thread of a run is stopped in a flush.
//!
//! Each thread commits one transaction. The first thread lets them begin one after the other, and
//! waits for each until it has committed or cannot go on before the flush ends. So no clock decides
//! about the order.

use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use mapleaf::testing::{at_moments, set_log_shape, with_mutant, LockName, Moment};
use mapleaf::{Db, Durability};

use super::recorder::Recorder;
use super::setting::Setting;
use crate::workload::History;

/// What a thread reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Report {
    /// Its transaction has ended, or waits until it is durable.
    Committed,
    /// It waits for a lock that the first thread may have.
    Stuck,
}

/// What the threads share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'s> {
    pub(super) db: &'s Db,
    pub(super) history: &'s History,
    pub(super) setting: Setting,
    pub(super) recorder: &'s Recorder,
}

/// The threads.
pub(super) struct Others<'s> {
    begin: Vec<Sender<()>>,
    threads: Vec<ScopedJoinHandle<'s, mapleaf::Result<u64>>>,
    reports: Option<Vec<Receiver<Report>>>,
}

impl<'s> Others<'s> {
    /// One thread for each level. None begins yet.
    pub(super) fn start(scope: &'s Scope<'s, '_>, shared: Shared<'s>, levels: &[Durability]) -> Others<'s> {
        let mut others = Others { begin: Vec::new(), threads: Vec::new(), reports: Some(Vec::new()) };
        for &level in levels {
            let ((begin, begun), (report, reports)) = (channel(), channel());
            others.begin.push(begin);
            others.reports.as_mut().expect("new").push(reports);
            others.threads.push(scope.spawn(move || {
                begun.recv().expect("the first thread lets each begin");
                commit(shared, level, &report)
            }));
        }
        others
    }

    /// What the first thread does in the flush: lets them commit, until one is stuck.
    pub(super) fn act(&mut self) -> impl FnOnce() + Send + 'static {
        let begin = self.begin.clone();
        let reports = self.reports.take().expect("once");
        move || {
            for (begin, reports) in begin.iter().zip(reports) {
                begin.send(()).expect("it waits");
                if reports.recv() != Ok(Report::Committed) {
                    return;
                }
            }
        }
    }

    /// Lets all go on, and waits for them. Gives the newest step.
    pub(super) fn join(self) -> mapleaf::Result<u64> {
        // Those that have begun do not listen any more.
        self.begin.iter().for_each(|begin| begin.send(()).unwrap_or(()));
        let mut newest = Ok(0);
        for thread in self.threads {
            let step = thread.join().expect("no thread panics");
            newest = newest.and_then(|newest| step.map(|step| step.max(newest)));
        }
        newest
    }
}

/// Commits one transaction in a thread of its own.
fn commit(shared: Shared<'_>, level: Durability, report: &Sender<Report>) -> mapleaf::Result<u64> {
    let Shared { db, history, setting, recorder } = shared;
    set_log_shape(setting.log.shape(history.seed(), setting.page_size));
    let reports = report.clone();
    let tell = move |moment| {
        let said = match moment {
            Moment::Waiting => Report::Committed,
            Moment::Taking(LockName::Checkpoint | LockName::Flush) => Report::Stuck,
            _ => return,
        };
        // The first thread listens to the first report only.
        reports.send(said).unwrap_or(());
    };
    let run = || {
        let mut txn = match db.try_begin_write()? {
            Some(txn) => txn,
            None => {
                // The thread that flushes has the writer lock.
                report.send(Report::Stuck).unwrap_or(());
                db.begin_write()?
            }
        };
        txn.set_durability(level);
        let step = history.next_step(&mut txn)?;
        recorder.note(txn.txn_id(), step, level);
        history.perform(&mut txn)?;
        txn.commit()?;
        if level == Durability::Immediate {
            recorder.acknowledge(step);
        }
        Ok(step)
    };
    let done = at_moments(tell, || with_mutant(setting.mutant, run));
    report.send(Report::Committed).unwrap_or(());
    done
}
