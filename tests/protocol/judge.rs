//! Judges each state: what is found after a power cut, and after the death of all processes.

use crate::world::{Cell, Cid, Live, Txn, World, LOG, LOG_BEGIN, NONE, RING, TREE};

/// The commit that the ring has for a txn.
pub(crate) fn state(world: &World, live: &Live, txn: Txn) -> Option<Cid> {
    let (first, second) = live.ring[(txn % RING) as usize];
    (first != NONE && first == second && world.commit(first).txn == txn).then_some(first)
}

/// The commit in a place of the log, if it is the next one after `at`.
fn record(world: &World, content: u8, at: Cid, epoch: u8) -> bool {
    let commit = |cid| world.commit(cid);
    (1..world.made).contains(&content)
        && commit(content).parent == at
        && commit(content).epoch == epoch
        && commit(content).txn == commit(at).txn + 1
}

/// What an opener finds: the slot and the state of the newest meta page, and the newest state of the
/// log after it. The file was flushed. `past_cache`: it is read from the disk.
pub(crate) fn recovered(world: &World, past_cache: bool) -> (u8, Cid, Cid) {
    let content = |cell: &Cell| if past_cache { cell.disk.trailing_zeros() as u8 } else { cell.cache };
    let metas = (0..2).map(|slot| (slot as u8, content(&world.file.cells[slot]))).filter(|meta| meta.1 < world.made);
    let (slot, meta) = metas.max_by_key(|meta| world.commit(meta.1).txn).unwrap_or((0, 0));
    let (mut at, epoch) = (meta, world.commit(meta).epoch);
    let mut position = world.commit(meta).head as usize;
    while position < LOG {
        let found = content(&world.file.cells[LOG_BEGIN + position]);
        match record(world, found, at, epoch) {
            true => (at, position) = (found, position + 1),
            // The next record may begin the next page.
            false if position % 2 == 1 => position += 1,
            false => break,
        }
    }
    (slot, meta, at)
}

struct Judge<'w> {
    world: &'w World,
    /// All processes die, and the page cache stays.
    killed: bool,
    promised: u16,
}

impl Judge<'_> {
    fn contents(&self, cell: usize) -> impl Iterator<Item = u8> {
        let cell = &self.world.file.cells[cell];
        let contents = if self.killed && !cell.lost { 1 << cell.cache } else { cell.disk };
        (0..32).filter(move |content| contents >> content & 1 == 1)
    }

    fn all(&self) -> Result<(), String> {
        for first in self.contents(0) {
            for second in self.contents(1) {
                let metas = [first, second].into_iter().filter(|&meta| meta < self.world.made);
                let Some(meta) = metas.max_by_key(|&meta| self.world.commit(meta).txn) else {
                    return Err("no meta page is whole".into());
                };
                let commit = self.world.commit(meta);
                let root = TREE + commit.page as usize;
                if self.contents(root).any(|content| content != commit.root) || commit.size > self.world.file.len {
                    return Err(format!("the page of the state of meta page {} is not on the disk", commit.txn));
                }
                self.replay(meta, commit.epoch, commit.head as usize)?;
            }
        }
        Ok(())
    }

    fn replay(&self, at: Cid, epoch: u8, position: usize) -> Result<(), String> {
        if position >= LOG {
            return self.found(at);
        }
        for content in self.contents(LOG_BEGIN + position) {
            match record(self.world, content, at, epoch) {
                true => self.replay(content, epoch, position + 1)?,
                false if position % 2 == 1 => self.replay(at, epoch, position + 1)?,
                false => self.found(at)?,
            }
        }
        Ok(())
    }

    fn found(&self, at: Cid) -> Result<(), String> {
        match self.promised & !self.world.chain(at) {
            0 => Ok(()),
            lost => {
                let lost = self.world.commit(lost.trailing_zeros() as u8).txn;
                Err(format!(
                    "txn {lost} was acknowledged or shown, and the state found is of txn {}",
                    self.world.commit(at).txn
                ))
            }
        }
    }
}

/// Judges a state.
pub(crate) fn judge(world: &World) -> Result<(), String> {
    let (mut immediate, mut shown) = (world.acknowledged, 0);
    for live in world.lives.iter().filter(|live| live.session != 0 && !live.poison) {
        let used = world
            .agents
            .iter()
            .any(|agent| agent.slot != NONE && std::ptr::eq(live, &world.lives[agent.lock_file as usize]));
        if !used {
            continue;
        }
        let lost = |which| format!("the ring has lost the {which} state");
        let published = state(world, live, live.published).ok_or_else(|| lost("published"))?;
        state(world, live, live.latest).ok_or_else(|| lost("latest"))?;
        if live.published > live.latest {
            return Err("a state is published that is newer than the latest one".into());
        }
        shown |= 1 << published;
        let last = world.commit(published).last_immediate;
        let mut at = published;
        while world.commit(at).txn > last {
            at = world.commit(at).parent;
        }
        immediate |= 1 << at;
    }
    let judge = |killed, promised| Judge { world, killed, promised }.all();
    judge(false, immediate).map_err(|e| format!("after a power cut: {e}"))?;
    let promised = if world.has_failed { immediate } else { immediate | shown | world.returned };
    judge(true, promised).map_err(|e| format!("after the death of all: {e}"))
}
