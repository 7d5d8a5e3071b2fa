//! The search: all interleavings of the steps of a scenario, breadth first, so the first violation
//! has the shortest schedule.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::judge::judge;
use crate::step::{Cx, Pc};
use crate::world::{Presence, World, AGENTS, NONE};
use crate::{Op, Rule, Scenario};

/// What an agent does: it takes its next step, with a flush that fails, or it is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Go,
    Fail,
    Kill,
}

const ACTS: [Act; 3] = [Act::Go, Act::Fail, Act::Kill];

/// Words are multiplied and rotated. States are told apart by 64 bits of this.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

fn hash(world: &World) -> u64 {
    let mut mixer = Mixer::default();
    world.hash(&mut mixer);
    mixer.finish()
}

/// How a state was reached first: from which one, and by which step.
#[derive(Clone, Copy)]
struct Origin {
    from: u64,
    agent: u8,
    act: u8,
}

/// A violation, with the shortest schedule that leads to it.
pub(crate) struct Violation {
    pub(crate) says: String,
    pub(crate) steps: usize,
    pub(crate) schedule: String,
}

pub(crate) struct Search<'s> {
    scenario: &'s Scenario,
    rule: Option<Rule>,
    known: HashMap<u64, Origin, BuildHasherDefault<Mixer>>,
}

/// The world when a scenario begins.
fn first(scenario: &Scenario) -> World {
    let mut world = World::new(scenario.free);
    (world.kills, world.fails) = (scenario.kills, scenario.fails);
    for at in 0..AGENTS {
        let script = scenario.agents.get(at).copied().unwrap_or(&[]);
        let agent = &mut world.agents[at];
        match script.first() {
            Some(Op::Child) => agent.pc = Pc::Unborn,
            Some(Op::Open(_)) | None => {}
            Some(_) => {
                (agent.presence, agent.slot, agent.generation) = (Presence::Shared, at as u8, 1);
                world.lives[0].generations[at] = 1;
            }
        }
    }
    if world.agents.iter().all(|agent| agent.slot == NONE) {
        world.lives[0].session = 0;
    }
    world
}

impl<'s> Search<'s> {
    pub(crate) fn new(scenario: &'s Scenario, rule: Option<Rule>) -> Search<'s> {
        Search { scenario, rule, known: HashMap::default() }
    }

    pub(crate) fn states(&self) -> usize {
        self.known.len()
    }

    /// Visits all states.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let begin = first(self.scenario);
        let start = hash(&begin);
        self.known.insert(start, Origin { from: start, agent: 0, act: 0 });
        let mut level = vec![(start, begin)];
        while !level.is_empty() {
            let mut next = Vec::new();
            for (from, world) in &level {
                self.expand(*from, world, &mut next)?;
            }
            level = next;
        }
        Ok(())
    }

    fn expand(&mut self, from: u64, world: &World, next: &mut Vec<(u64, World)>) -> Result<(), Violation> {
        let mut moved = false;
        for agent in 0..self.scenario.agents.len() {
            for (act, _) in ACTS.iter().enumerate() {
                let origin = Origin { from, agent: agent as u8, act: act as u8 };
                let mut after = world.clone();
                let went = self.act(&mut after, agent, ACTS[act]).map_err(|says| self.violation(origin, says))?;
                if !went {
                    continue;
                }
                moved |= ACTS[act] == Act::Go;
                let key = hash(&after);
                if let Entry::Vacant(entry) = self.known.entry(key) {
                    entry.insert(origin);
                    judge(&after).map_err(|says| self.violation(origin, says))?;
                    next.push((key, after));
                }
            }
        }
        let ended = |pc| matches!(pc, Pc::Done | Pc::Dead | Pc::Unborn | Pc::ChildStays);
        let waiting = world.agents[..self.scenario.agents.len()].iter().find(|agent| !ended(agent.pc));
        match waiting.filter(|_| !moved) {
            Some(agent) => {
                let says = format!("all wait for ever, one at {:?}", agent.pc);
                Err(self.violation(self.known[&from], says))
            }
            None => Ok(()),
        }
    }

    /// Lets an agent act. Whether it could.
    fn act(&self, world: &mut World, agent: usize, act: Act) -> Result<bool, String> {
        let pc = world.agents[agent].pc;
        if act == Act::Kill {
            let may = world.kills > 0 && self.scenario.killable >> agent & 1 == 1;
            let is_out = world.agents[agent].presence == Presence::Out;
            let idle = matches!(pc, Pc::Next | Pc::Done) && is_out;
            if !may || idle || matches!(pc, Pc::Dead | Pc::Unborn | Pc::ChildStays) {
                return Ok(false);
            }
            world.kills -= 1;
            world.agents[agent].pc = Pc::Dead;
            world.release_all(agent);
            forget(world, agent);
            return Ok(true);
        }
        if act == Act::Fail && world.fails == 0 {
            return Ok(false);
        }
        let fails = act == Act::Fail;
        let (rule, scenario) = (self.rule, self.scenario);
        let mut cx = Cx { world, me: agent, rule, scenario, fails, flushed: false };
        let went = cx.step()?;
        let flushed = cx.flushed;
        if fails {
            world.fails -= 1;
            return Ok(went && flushed);
        }
        Ok(went)
    }

    /// The schedule to a violation.
    fn violation(&self, last: Origin, says: String) -> Violation {
        let mut steps = vec![last];
        while self.known[&steps[steps.len() - 1].from].from != steps[steps.len() - 1].from {
            steps.push(self.known[&steps[steps.len() - 1].from]);
        }
        steps.reverse();
        let mut world = first(self.scenario);
        let mut schedule = String::new();
        for step in &steps {
            let pc = world.agents[step.agent as usize].pc;
            let how = ["", " fails", " killed"][step.act as usize];
            schedule.push_str(&format!("  {}: {pc:?}{how}\n", step.agent));
            if self.act(&mut world, step.agent as usize, ACTS[step.act as usize]).is_err() {
                break;
            }
        }
        Violation { says, steps: steps.len(), schedule }
    }
}

/// What a dead process knew is gone: states that differ only in it are the same.
fn forget(world: &mut World, at: usize) {
    let agent = &mut world.agents[at];
    (agent.at, agent.txn, agent.cid, agent.meta_cid, agent.lead, agent.seen) = (0, 0, 0, 0, 0, 0);
    (agent.live, agent.count, agent.flag, agent.again, agent.owner) = (0, 0, false, false, (NONE, 0));
    agent.back = [Pc::Next; 3];
    (agent.mapped, agent.told, agent.joined, agent.has_log) = (0, [0; 2], [0; 2], false);
}
