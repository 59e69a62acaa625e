//! A study in virtual time: what a sweep costs, before it is started.

use std::collections::BTreeSet;

use super::{FinishReason, Next, Study};
use crate::random::{Purpose, Stream};
use crate::search::scheduler::Decision;
use crate::search::space::Space;

/// A portion of a trial: from one rest to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Portion<'a> {
    /// The trial.
    pub trial: u32,
    /// Its point of the unit cube.
    pub point: &'a [f64],
    /// Where it begins.
    pub from: u64,
    /// Where it rests.
    pub to: u64,
}

/// What the simulated workers are like.
pub trait World {
    /// Milliseconds that a portion takes, loading and saving included.
    fn duration_ms(&mut self, portion: &Portion<'_>) -> u64;
    /// The losses at the end of a portion, or why the attempt failed.
    fn outcome(&mut self, portion: &Portion<'_>) -> Result<Vec<f64>, String>;
}

/// What a simulated sweep came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// When the last portion ended, in milliseconds.
    pub makespan_ms: u64,
    /// The sum over all slots of the time in which they trained, in milliseconds.
    pub busy_ms: u64,
    /// How many portions were trained.
    pub portions: u64,
    /// How many trials were started.
    pub trials: u32,
    /// The most trials that trained at a time.
    pub peak: u32,
    /// The budgets that were trained, failed attempts included.
    pub budget: u64,
    /// The least first loss of all rests, with its trial; nothing if none was finite.
    pub best: Option<(u32, f64)>,
    /// Why it is over.
    pub reason: FinishReason,
}

impl Timeline {
    /// The share of the time of all slots in which they trained.
    pub fn utilisation(&self, slots: u32) -> f64 {
        self.busy_ms as f64 / (self.makespan_ms as f64 * f64::from(slots)).max(1.0)
    }
}

/// Plays a study to its end on so many slots.
///
/// Portions that end at the same time are reported in the order in which they began.
///
/// # Panics
/// If `slots` is 0, or if the study waits although nothing trains, which would be an error of the study.
pub fn simulate(study: &mut Study, slots: u32, world: &mut impl World) -> Timeline {
    assert!(slots > 0, "a sweep needs a slot");
    let mut simulation = Simulation { now: 0, idle: slots, sequence: 0, running: BTreeSet::new(), busy: 0, budget: 0 };
    let mut best: Option<(u32, f64)> = None;
    let mut peak = 0;
    loop {
        let finished = simulation.fill(study, world);
        peak = peak.max(simulation.running.len() as u32);
        let Some((at, _, trial)) = simulation.running.pop_first() else {
            return Timeline {
                makespan_ms: simulation.now,
                busy_ms: simulation.busy,
                portions: simulation.sequence,
                trials: study.trials().len() as u32,
                peak,
                budget: simulation.budget,
                best,
                reason: finished.expect("a study does not wait for nothing"),
            };
        };
        simulation.now = at;
        let record = &study.trials()[trial as usize];
        let portion = Portion { trial, point: &record.point, from: record.budget, to: record.target };
        let (to, outcome) = (portion.to, world.outcome(&portion));
        let goes_on = match outcome {
            Ok(losses) => {
                let loss = super::first(&losses);
                if loss.is_finite() && best.is_none_or(|(_, least)| loss < least) {
                    best = Some((trial, loss));
                }
                matches!(study.rested(trial, to, &losses), Decision::Continue { .. })
            }
            Err(cause) => matches!(study.failed(trial, &cause), super::AfterFailure::Retry { .. }),
        };
        if goes_on {
            simulation.begin(study, trial, world);
        } else {
            simulation.idle += 1;
        }
    }
}

struct Simulation {
    now: u64,
    idle: u32,
    sequence: u64,
    /// When a portion ends, how many began before it, its trial.
    running: BTreeSet<(u64, u64, u32)>,
    busy: u64,
    budget: u64,
}

impl Simulation {
    /// Gives work to all idle slots.
    fn fill(&mut self, study: &mut Study, world: &mut impl World) -> Option<FinishReason> {
        while self.idle > 0 {
            match study.next() {
                Next::Start { trial, .. } | Next::Resume { trial, .. } => {
                    self.idle -= 1;
                    self.begin(study, trial, world);
                }
                Next::End { .. } => {}
                Next::Wait(_) => return None,
                Next::Finished(reason) => return Some(reason),
            }
        }
        None
    }

    fn begin(&mut self, study: &Study, trial: u32, world: &mut impl World) {
        let record = &study.trials()[trial as usize];
        let portion = Portion { trial, point: &record.point, from: record.budget, to: record.target };
        let duration = world.duration_ms(&portion);
        self.running.insert((self.now + duration, self.sequence, trial));
        self.sequence += 1;
        self.busy += duration;
        self.budget += portion.to - portion.from;
    }
}

/// Made-up learning curves: the loss falls as a power of the budget towards a floor. Floor and speed depend on the distance
/// of a point from a hidden best one, with noise for each trial and for each evaluation.
#[derive(Clone, Debug)]
pub struct PowerLaw {
    seed: u64,
    best: Vec<f64>,
    /// Milliseconds for a unit of budget.
    pub unit_ms: f64,
    /// Milliseconds for beginning or going on with a trial, and saving it at the end.
    pub overhead_ms: u64,
    /// By how much a trial's time for a unit varies: the standard deviation of its logarithm.
    pub spread: f64,
    /// The standard deviation of an evaluation.
    pub noise: f64,
}

const DURATION: u64 = 0x5349_4d01;
const EVALUATION: u64 = 0x5349_4d02;
const OPTIMUM: u64 = 0x5349_4d03;

impl PowerLaw {
    /// Curves over a space. `seed` determines the best point and all noise.
    pub fn new(space: &Space, seed: u64) -> Self {
        let best = space.sample(&mut Stream::new(seed, Purpose::Simulation, &[OPTIMUM]));
        Self { seed, best, unit_ms: 1000.0, overhead_ms: 0, spread: 0.1, noise: 0.005 }
    }

    /// The loss of a point after a budget, without noise.
    pub fn loss(&self, point: &[f64], budget: u64) -> f64 {
        let squares: f64 = point.iter().zip(&self.best).map(|(u, best)| (u - best) * (u - best)).sum();
        let distance = libm::sqrt(squares / self.best.len().max(1) as f64);
        let floor = 0.1 + distance;
        floor + 2.0 * libm::pow(1.0 + budget as f64, -0.5 / (1.0 + distance))
    }
}

impl World for PowerLaw {
    fn duration_ms(&mut self, portion: &Portion<'_>) -> u64 {
        let mut stream = Stream::new(self.seed, Purpose::Simulation, &[DURATION, u64::from(portion.trial)]);
        let factor = libm::exp(self.spread * stream.normal_f64());
        self.overhead_ms + libm::round((portion.to - portion.from) as f64 * self.unit_ms * factor) as u64
    }

    fn outcome(&mut self, portion: &Portion<'_>) -> Result<Vec<f64>, String> {
        let coordinates = [EVALUATION, u64::from(portion.trial), portion.to];
        let noise = self.noise * Stream::new(self.seed, Purpose::Simulation, &coordinates).normal_f64();
        Ok(vec![self.loss(portion.point, portion.to) + noise])
    }
}
