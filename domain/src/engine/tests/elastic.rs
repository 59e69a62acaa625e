//! Workers lent to trials of elastic sweeps. Every job here has four micro-batches.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::engine::sweep::trial_run;

/// An engine, and what its groups would report.
pub(super) struct Cluster {
    pub(super) engine: Engine,
    now: Time,
}

impl Cluster {
    pub(super) fn new(sweep: &str, workers: u64) -> Self {
        let mut cluster = Self { engine: Engine::new(Timing::default()), now: Time(1_000_000) };
        cluster.tell(Event::SweepSubmitted { spec: Box::new(sweeps::spec(sweep)) });
        for id in 1..=workers {
            cluster.tell(joined(id));
        }
        cluster
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.now = self.now.after_ms(1);
        self.engine.apply(self.now, event)
    }

    pub(super) fn view(&self, run: &RunName) -> RunView {
        self.engine.view().runs.into_iter().find(|view| view.name == *run).expect("a known run")
    }

    /// Every group that is forming has formed where its newest checkpoint is, until nothing changes.
    pub(super) fn form(&mut self) {
        let forming = |run: &RunView| run.state == RunState::Forming;
        while let Some(run) = self.engine.view().runs.into_iter().find(forming) {
            let step = run.checkpoints.last().map_or(Step(0), |checkpoint| checkpoint.step);
            let position = Position { step, evaluated: step > Step(0) };
            self.tell(Event::Formed { trial: only_trial(&run.name), generation: run.generation, position });
        }
    }

    /// The group of a run does the rest of its work.
    pub(super) fn complete(&mut self, run: &RunName) {
        let step = Step(27);
        self.finish(run, step, 0.5, AttemptOutcome::Completed { step });
        assert_eq!(self.view(run).state, RunState::Completed);
    }

    /// The group of a trial comes to where it is to rest.
    pub(super) fn rest(&mut self, run: &RunName, step: u64, loss: f64) {
        let step = Step(step);
        self.finish(run, step, loss, AttemptOutcome::Rested { step });
    }

    fn finish(&mut self, run: &RunName, step: Step, loss: f64, outcome: AttemptOutcome) {
        let RunView { generation, members, .. } = self.view(run);
        let trial = only_trial(run);
        let (eval_loss, eval_accuracy) = (loss.into(), 0.5.into());
        self.tell(Event::Measured { trial: trial.clone(), generation, step, eval_loss, eval_accuracy });
        let position = Position { step, evaluated: true };
        self.tell(Event::Advanced { trial: trial.clone(), generation, position });
        for rank in 0..members.len() as u32 {
            let event = part(generation.0, step.0, rank, members.len() as u32, "w");
            let Event::PartSaved { part, .. } = event else { unreachable!() };
            self.tell(Event::PartSaved { trial: trial.clone(), generation, part });
        }
        self.tell(Event::AttemptEnded { trial: trial.clone(), generation, outcome, worker: None });
        let (manifest, blake3, weights_sha256) = (format!("{run}/{step}"), "b".into(), "w".into());
        self.tell(Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 });
    }

    pub(super) fn submit(&mut self, name: &str, workers: u32) -> RunName {
        let mut spec = base_spec(name.parse().unwrap());
        (spec.workers, spec.min_workers, spec.train.length) = (workers, workers, Length::Steps(27));
        let name = spec.name.clone();
        assert_eq!(self.engine.check(&Event::Submitted { spec: Box::new(spec.clone()) }), Ok(()));
        self.tell(Event::Submitted { spec: Box::new(spec) });
        name
    }

    /// How many workers each run has.
    pub(super) fn widths(&self) -> BTreeMap<String, usize> {
        let view = self.engine.view();
        let mut seen = BTreeSet::new();
        assert!(view.runs.iter().flat_map(|run| &run.members).all(|member| seen.insert(*member)), "nobody works twice");
        let busy = view.runs.into_iter().filter(|run| !run.members.is_empty());
        busy.map(|run| (run.name.to_string(), run.members.len())).collect()
    }

    #[track_caller]
    pub(super) fn check(&self, expected: &[(&str, usize)]) {
        let expected: BTreeMap<String, usize> = expected.iter().map(|(run, width)| ((*run).into(), *width)).collect();
        assert_eq!(self.widths(), expected);
    }
}

const TWO: &str = "searcher: {type: random}\ntrials: 2\n";

fn elastic(more: &str) -> String {
    format!("{more}elastic: true\n")
}

pub(super) fn trial_of(number: u32) -> RunName {
    trial_run(&"s".parse().unwrap(), number)
}

#[test]
fn idle_workers_widen_trials_up_to_the_micro_batches() {
    let mut cluster = Cluster::new(&elastic(TWO), 2);
    cluster.form();
    cluster.check(&[("s.0", 1), ("s.1", 1)]);
    cluster.tell(joined(3));
    cluster.form();
    cluster.check(&[("s.0", 2), ("s.1", 1)]);
    cluster.tell(joined(4));
    cluster.form();
    cluster.check(&[("s.0", 2), ("s.1", 2)]);
    // Three members share four micro-batches no faster than two.
    cluster.tell(joined(5));
    cluster.form();
    cluster.check(&[("s.0", 2), ("s.1", 2)]);
    cluster.complete(&trial_of(0));
    cluster.form();
    cluster.check(&[("s.1", 4)]);
    assert_eq!(cluster.view(&trial_of(1)).reason, "4 workers, 3 of them lent");
    cluster.tell(joined(6));
    cluster.check(&[("s.1", 4)]);
    cluster.complete(&trial_of(1));
    assert_eq!(cluster.engine.view().sweeps[0].state, RunState::Completed);
}

#[test]
fn trials_start_as_wide_as_they_can_at_once() {
    let mut cluster = Cluster { engine: Engine::new(Timing::default()), now: Time(1_000_000) };
    for id in 1..=4 {
        cluster.tell(joined(id));
    }
    let spec = Box::new(sweeps::spec(&elastic("searcher: {type: random}\ntrials: 1\n")));
    let effects = cluster.tell(Event::SweepSubmitted { spec });
    let assigned = effects.iter().filter(|effect| matches!(effect, Effect::Assign { .. }));
    assert_eq!(assigned.count(), 4, "one group is formed, not two after each other");
    cluster.check(&[("s.0", 4)]);
}

#[test]
fn without_elastic_nothing_is_lent() {
    let mut cluster = Cluster::new(TWO, 4);
    cluster.form();
    cluster.check(&[("s.0", 1), ("s.1", 1)]);
}

#[test]
fn what_is_lent_goes_back_to_whoever_needs_it() {
    let mut cluster = Cluster::new(&elastic(TWO), 4);
    cluster.form();
    cluster.complete(&trial_of(0));
    cluster.form();
    cluster.check(&[("s.1", 4)]);
    // Too little for this one: it waits, and the trial keeps what is lent.
    let large = cluster.submit("large", 4);
    cluster.check(&[("s.1", 4)]);
    assert_eq!(cluster.view(&large).reason, "waiting for workers: 3 of at least 4 are free");
    cluster.tell(Event::StopRequested { run: large });

    assert_eq!(cluster.view(&trial_of(1)).generation, Generation(3));
    let small = {
        let mut spec = base_spec("small".parse().unwrap());
        (spec.workers, spec.min_workers, spec.train.length) = (2, 2, Length::Steps(27));
        spec
    };
    let name = small.name.clone();
    let effects: Vec<String> =
        cluster.tell(Event::Submitted { spec: Box::new(small) }).iter().filter_map(told).collect();
    assert_eq!(
        effects,
        [
            "assign 2 generation 4 [2, 4] from scratch Keep",
            "assign 4 generation 4 [2, 4] from scratch Keep",
            "release 3 generation 3",
            "release 1 generation 3",
            "assign 1 generation 1 [1, 3] from scratch Keep",
            "assign 3 generation 1 [1, 3] from scratch Keep",
        ]
    );
    // It can be taken back already while the narrower group forms.
    let tiny = cluster.submit("tiny", 1);
    cluster.check(&[("s.1", 1), ("small", 2), ("tiny", 1)]);
    cluster.form();
    cluster.complete(&tiny);
    cluster.form();
    cluster.check(&[("s.1", 2), ("small", 2)]);
    // A group that is not full comes first, too.
    let member = cluster.view(&name).members[0];
    cluster.tell(Event::Lost { worker: member, cause: LossCause::ConnectionClosed });
    cluster.form();
    cluster.check(&[("s.1", 1), ("small", 2)]);
}

#[test]
fn a_new_trial_goes_before_wider_ones() {
    // The second trial may begin only when the first has rested: a population of two, one at a time.
    let one_at_a_time = "searcher: {type: random}\ntrials: 3\nmax_concurrent: 2\n";
    let mut cluster = Cluster::new(&elastic(one_at_a_time), 4);
    cluster.form();
    cluster.check(&[("s.0", 2), ("s.1", 2)]);
    cluster.complete(&trial_of(0));
    cluster.check(&[("s.1", 2), ("s.2", 2)]);
    cluster.form();
    cluster.complete(&trial_of(1));
    cluster.form();
    cluster.check(&[("s.2", 4)]);

    // Of another sweep, too.
    let mut other = sweeps::spec(&format!("{TWO}workers_per_trial: 2\n"));
    other.name = "t".parse().unwrap();
    cluster.tell(Event::SweepSubmitted { spec: Box::new(other) });
    cluster.form();
    cluster.check(&[("s.2", 2), ("t.0", 2)]);
}

#[test]
fn a_wide_group_that_loses_members_goes_on_with_the_others() {
    let mut cluster = Cluster::new(&elastic("searcher: {type: random}\ntrials: 1\n"), 4);
    cluster.form();
    cluster.check(&[("s.0", 4)]);
    cluster.tell(lost(3));
    cluster.check(&[("s.0", 3)]);
    cluster.form();
    cluster.tell(lost(1));
    cluster.check(&[("s.0", 2)]);
    // After a restart groups are left alone until all their members are back.
    cluster.form();
    cluster.tell(Event::Restarted);
    let name = cluster.submit("job", 1);
    cluster.tell(joined(2));
    assert_eq!(cluster.view(&name).state, RunState::Waiting);
    cluster.tell(joined(4));
    cluster.check(&[("job", 1), ("s.0", 1)]);
}
