//! Attempts of trials after failed ones.

use super::elastic::{Cluster, trial_of};
use super::*;

#[test]
fn an_attempt_after_a_failed_one_does_not_go_on_from_steps_that_no_longer_count() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 1\ntrial_retries: 1\n", 1);
    cluster.form();
    let trial = only_trial(&trial_of(0));
    let generation = Generation(1);
    cluster.tell(Event::Advanced { trial: trial.clone(), generation, position: at(27) });
    let outcome = AttemptOutcome::Completed { step: Step(27) };
    cluster.tell(Event::AttemptEnded { trial: trial.clone(), generation, outcome, worker: None });
    let cause = "the disk is full".to_owned();
    let effects = cluster.tell(Event::PartFailed { trial, generation, step: Step(27), cause });
    let told: Vec<String> = effects.iter().filter_map(told).collect();
    // The worker has all steps in memory, but their records were rolled back.
    let expected = [
        "drop step 27 generation 1",
        "release 1 generation 1",
        "roll back to 0 for generation 2",
        "assign 1 generation 3 [1] from scratch Keep",
    ];
    assert_eq!(told, expected);
}

const THREE: &str = "searcher: {type: random}\ntrials: 3\nmax_failed: 1\n";

fn fails(run: &RunName, generation: u64, worker: u64) -> Event {
    Event::AttemptEnded {
        trial: only_trial(run),
        generation: Generation(generation),
        outcome: AttemptOutcome::Failed { step: Step(0), cause: "train.gz: not found".to_owned() },
        worker: Some(WorkerId(worker)),
    }
}

#[test]
fn a_worker_without_data_does_not_fail_one_trial_after_the_other() {
    let mut cluster = Cluster::new(THREE, 2);
    let (first, second, third) = (trial_of(0), trial_of(1), trial_of(2));
    cluster.tell(fails(&first, 1, 1));
    // The other worker has its own trial to train; the first one gets none, for it is suspected.
    cluster.check(&[("s.1", 1)]);
    cluster.form();
    cluster.complete(&second);
    cluster.check(&[("s.0", 1)]);
    cluster.form();
    cluster.check(&[("s.0", 1)]);
    cluster.complete(&first);
    assert_eq!(cluster.view(&first).state, RunState::Completed);
    cluster.check(&[("s.2", 1)]);
    let members = cluster.view(&third).members;
    assert_eq!(members, [WorkerId(2)]);
    // It is given another chance when it connects anew.
    cluster.tell(joined(1));
    cluster.form();
    cluster.complete(&third);
}

#[test]
fn a_trial_that_fails_on_two_workers_failed() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 1\nmax_failed: 9\n", 3);
    let run = trial_of(0);
    cluster.tell(fails(&run, 1, 1));
    let generation = cluster.view(&run).generation;
    let member = cluster.view(&run).members[0];
    assert_ne!(member, WorkerId(1));
    let effects = cluster.tell(fails(&run, generation.0, member.0));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Note { text, .. } if text.starts_with("trial 0 failed after 1")))
    );
    assert_eq!(cluster.view(&run).state, RunState::Failed);
}

#[test]
fn a_sweep_ends_on_a_cluster_of_which_no_worker_can_do_it() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 5\nmax_failed: 2\n", 1);
    for number in 0..2 {
        cluster.tell(fails(&trial_of(number), 1, 1));
    }
    assert!(cluster.engine.view().sweeps[0].state.is_ended());
}

#[test]
fn a_worker_that_has_trained_trials_is_not_to_blame() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 4\nmax_failed: 9\n", 2);
    cluster.form();
    cluster.complete(&trial_of(0));
    let run = trial_of(2);
    let effects = cluster.tell(fails(&run, 1, 1));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Note { text, .. } if text.starts_with("trial 2 failed after 1")))
    );
    cluster.check(&[("s.1", 1), ("s.3", 1)]);
}

#[test]
fn a_member_that_cannot_work_is_replaced_in_a_group_of_a_sweep() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 1\nworkers_per_trial: 2\n", 3);
    let run = trial_of(0);
    let before = cluster.view(&run).members;
    cluster.tell(fails(&run, 1, before[1].0));
    // The other member of the old group says something of it too late.
    cluster.tell(fails(&run, 1, before[0].0));
    cluster.form();
    let after = cluster.view(&run).members;
    assert_eq!(after.len(), 2);
    assert!(after.contains(&before[0]) && !after.contains(&before[1]), "{before:?} {after:?}");
    cluster.complete(&run);
}

#[test]
fn a_worker_that_does_form_a_group_after_all_is_not_unfit() {
    let mut cluster = Cluster::new("searcher: {type: random}\ntrials: 3\nmax_failed: 9\n", 2);
    let run = trial_of(0);
    cluster.tell(fails(&run, 1, 1));
    cluster.check(&[("s.1", 1)]);
    // The only other worker goes: the suspected one is tried again, and can do it now.
    cluster.tell(Event::Lost { worker: WorkerId(2), cause: LossCause::Left });
    cluster.form();
    assert_eq!(cluster.view(&run).members, [WorkerId(1)]);
    cluster.tell(joined(3));
    cluster.complete(&run);
    let members: Vec<WorkerId> = cluster.engine.view().runs.into_iter().flat_map(|run| run.members).collect();
    assert!(members.contains(&WorkerId(1)), "{members:?}");
}
