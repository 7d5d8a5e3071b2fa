//! Runs in which two processes have the file open and take turns: each has mappings, descriptors, a
//! writer and a place in the lock file of its own. (They are two environments of this process,
//! which share nothing else.) One disk lies under both.

use std::sync::Arc;

use mapleaf::testing::{log_pages, open_apart, with_mutant, Hooks};
use mapleaf::Db;

use super::events::Step;
use super::run::{Line, Run};

impl Run<'_> {
    /// A second process joins, if the setting wants one.
    pub(super) fn join(&mut self, line: &Line) -> Result<Option<Db>, String> {
        if !self.setting.two {
            return Ok(None);
        }
        let hooks = Arc::clone(&line.recorder) as Arc<dyn Hooks>;
        let joined = with_mutant(self.setting.mutant, || open_apart(&line.path, hooks));
        let joined = joined.map_err(|e| format!("joining: {e}"))?;
        self.events.joined += 1;
        self.step = Step::Opening;
        self.judge_cuts(line.recorder.take_cuts(), line.depth)?;
        Ok(Some(joined))
    }

    /// One of two processes leaves. The other one goes on.
    pub(super) fn leave(&mut self, leaves: Option<Db>, stays: &Db, line: &Line) -> Result<(), String> {
        let Some(leaves) = leaves else { return Ok(()) };
        self.step = if log_pages(stays) > 0 { Step::Checkpoint } else { Step::Closing };
        line.recorder.watch_instead(stays);
        with_mutant(self.setting.mutant, || drop(leaves));
        self.judge_cuts(line.recorder.take_cuts(), line.depth)
    }

    /// Lets the other process go on, or one of both leave and come back.
    pub(super) fn take_turns(&mut self, db: &mut Db, other: &mut Option<Db>, line: &Line) -> Result<(), String> {
        if let Some(second) = other {
            if self.rng.one_in(2) {
                std::mem::swap(db, second);
                self.events.turns += 1;
            }
            if self.rng.one_in(6) {
                self.leave(other.take(), db, line)?;
                *other = self.join(line)?;
            }
        }
        Ok(())
    }
}
