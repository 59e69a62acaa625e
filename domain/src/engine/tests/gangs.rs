//! Trials and jobs of several workers beside each other: nobody who waits is passed by those behind, or starves.

use std::collections::{BTreeMap, BTreeSet};

use super::elastic::{Cluster, trial_of};
use super::*;
use crate::random::{Purpose, Stream};
use crate::spec::sweep::SweepSpec;

fn sweep(name: &str, more: &str) -> SweepSpec {
    SweepSpec { name: name.parse().unwrap(), ..sweeps::spec(more) }
}

impl Cluster {
    fn submit_with(&mut self, name: &str, workers: u32, priority: i32) -> RunName {
        let mut spec = base_spec(name.parse().unwrap());
        (spec.workers, spec.min_workers, spec.priority) = (workers, workers, priority);
        spec.train.length = Length::Steps(27);
        let name = spec.name.clone();
        self.tell(Event::Submitted { spec: Box::new(spec) });
        name
    }

    fn state(&self, run: &RunName) -> RunState {
        self.view(run).state
    }
}

#[test]
fn a_trial_that_is_taken_up_again_waits_behind_those_that_came_meanwhile() {
    let asha = "scheduler: {type: asha, min: {steps: 3}, eta: 3, mode: pause}\n\
                searcher: {type: random}\ntrials: 9\nmax_concurrent: 1\n";
    let mut cluster = Cluster::new(asha, 2);
    for (number, loss) in [(0, 0.1), (1, 0.2)] {
        cluster.form();
        cluster.rest(&trial_of(number), 3, loss);
    }
    cluster.form();
    let job = cluster.submit_with("job", 2, 0);
    // The first trial is the best of three now and goes on, but not before the job.
    cluster.rest(&trial_of(2), 3, 0.3);
    assert_eq!((cluster.state(&job), cluster.state(&trial_of(0))), (RunState::Forming, RunState::Waiting));
    cluster.form();
    cluster.complete(&job);
    cluster.check(&[("s.0", 1)]);
}

#[test]
fn the_highest_priority_is_served_first() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 20\n", 3);
    cluster.form();
    cluster.check(&[("s.0", 1), ("s.1", 1), ("s.2", 1)]);
    let equal = cluster.submit_with("equal", 1, 0);
    let high = cluster.submit_with("high", 2, 5);
    let low = cluster.submit_with("low", 1, -5);
    assert_eq!(cluster.view(&low).reason, "waiting behind run high");
    cluster.complete(&trial_of(0));
    assert_eq!(cluster.state(&high), RunState::Waiting, "it waits for its second worker, and nobody passes it");
    cluster.check(&[("s.1", 1), ("s.2", 1)]);
    cluster.complete(&trial_of(1));
    cluster.check(&[("high", 2), ("s.2", 1)]);
    cluster.complete(&trial_of(2));
    cluster.check(&[("equal", 1), ("high", 2)]);
    cluster.form();
    // A sweep of a higher priority than anything that waits.
    let mut urgent = sweep("t", "searcher: {type: random}\ntrials: 1\nworkers_per_trial: 2\n");
    urgent.priority = 9;
    cluster.tell(Event::SweepSubmitted { spec: Box::new(urgent) });
    let before_all = cluster.submit_with("before", 2, 8);
    cluster.complete(&high);
    cluster.check(&[("equal", 1), ("t.0", 2)]);
    cluster.form();
    cluster.complete(&"t.0".parse().unwrap());
    assert_eq!(cluster.state(&before_all), RunState::Forming);
    cluster.form();
    cluster.complete(&equal);
    cluster.check(&[("before", 2), ("s.3", 1)]);
    cluster.form();
    cluster.complete(&before_all);
    cluster.check(&[("s.3", 1), ("s.4", 1), ("s.5", 1)]);
    assert_eq!(cluster.state(&low), RunState::Waiting, "the sweep comes first as long as it has trials to begin");
}

#[test]
fn sweeps_of_one_priority_share_the_workers() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 20\n", 1);
    let other = sweep("t", "searcher: {type: random}\ntrials: 20\nworkers_per_trial: 2\n");
    cluster.tell(Event::SweepSubmitted { spec: Box::new(other) });
    cluster.form();
    for id in 2..=8 {
        cluster.tell(joined(id));
        cluster.form();
    }
    cluster.check(&[("s.0", 1), ("s.1", 1), ("s.2", 1), ("s.3", 1), ("t.0", 2), ("t.1", 2)]);
}

#[test]
fn a_job_that_the_cluster_cannot_serve_holds_up_no_sweep() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 20\n", 0);
    cluster.submit_with("huge", 9, 3);
    for id in 1..=3 {
        cluster.tell(joined(id));
        cluster.form();
    }
    cluster.check(&[("s.0", 1), ("s.1", 1), ("s.2", 1)]);
}

/// What waits, in the order in which it is to be served.
fn queue(engine: &Engine) -> Vec<(RunName, u32)> {
    let waiting = engine.by_turn(|trial| matches!(trial.phase, Phase::Waiting { .. }));
    waiting.into_iter().map(|id| (id.run.clone(), engine.spec(&id.run).unwrap().workers)).collect()
}

/// Sweeps with trials of one, two and three workers beside jobs of all sizes and priorities, by seed. Whoever waits first
/// is passed by nobody, unless there will never be enough workers for it; workers are idle only if it needs more; and all
/// come to an end.
#[test]
fn nobody_is_passed_or_starves() {
    let mut started_behind = 0;
    for seed in 0..20 {
        let mut random = Stream::new(seed, Purpose::Simulation, &[]);
        let workers = 3 + random.below(4) as u32;
        let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 12\n", u64::from(workers));
        for (name, size) in [("t", 2), ("u", 3)] {
            let elastic = if random.below(2) == 0 { "elastic: true\n" } else { "" };
            let mut other = sweep(name, &format!("{TRIALS}workers_per_trial: {size}\n{elastic}"));
            other.priority = random.below(3) as i32 - 1;
            cluster.tell(Event::SweepSubmitted { spec: Box::new(other) });
        }
        let mut jobs = 0;
        loop {
            let before = queue(&cluster.engine);
            if jobs < 20 && random.below(3) == 0 {
                // One of twenty is larger than the cluster.
                let size =
                    1 + random.below(u64::from(workers)) as u32 + if random.below(20) == 0 { workers } else { 0 };
                cluster.submit_with(&format!("job{jobs}"), size, random.below(3) as i32 - 1);
                jobs += 1;
            } else {
                cluster.form();
                let runs = cluster.engine.view().runs;
                let running: Vec<&RunView> = runs.iter().filter(|run| run.state == RunState::Running).collect();
                let Some(run) = running.get(random.below(running.len().max(1) as u64) as usize) else { break };
                cluster.complete(&run.name.clone());
            }
            started_behind += check_order(&cluster, workers, &before);
        }
        let view = cluster.engine.view();
        assert!(view.sweeps.iter().all(|sweep| sweep.state == RunState::Completed), "seed {seed}: {:#?}", view.sweeps);
        let left = view.runs.iter().filter(|run| !run.state.is_ended());
        assert!(left.clone().all(|run| run.workers_wanted > workers), "seed {seed}: {:#?}", left.collect::<Vec<_>>());
    }
    assert!(started_behind > 0, "runs that can never be served were passed by nobody");
}

const TRIALS: &str = "searcher: {type: random}\ntrials: 12\n";

/// Checks what waits now against what waited before; how many started behind somebody who cannot be served.
fn check_order(cluster: &Cluster, workers: u32, before: &[(RunName, u32)]) -> usize {
    let after = queue(&cluster.engine);
    let waits: BTreeSet<&RunName> = after.iter().map(|(run, _)| run).collect();
    let has_started = |run: &RunName| !waits.contains(run) && !cluster.state(run).is_ended();
    let first = before.iter().position(|(run, size)| *size <= workers && waits.contains(run));
    let passed = before.iter().skip(first.map_or(before.len(), |first| first + 1)).find(|(run, _)| has_started(run));
    assert_eq!(passed, None, "passed {:?}", first.map(|first| &before[first]));
    let busy: BTreeMap<String, usize> = cluster.widths();
    let (idle, lent): (usize, u32) = (workers as usize - busy.values().sum::<usize>(), cluster.engine.lent());
    if let Some((run, size)) = after.iter().find(|(_, size)| *size <= workers) {
        assert!((*size as usize) > idle + lent as usize, "{run} could start with {idle} idle workers and {lent} lent");
    }
    let hopeless = before.iter().position(|(_, size)| *size > workers);
    before.iter().skip(hopeless.map_or(before.len(), |first| first + 1)).filter(|(run, _)| has_started(run)).count()
}
