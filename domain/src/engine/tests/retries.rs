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
    cluster.tell(Event::AttemptEnded { trial: trial.clone(), generation, outcome });
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
