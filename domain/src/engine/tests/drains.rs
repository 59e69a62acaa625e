//! Workers that users drain.

use super::elastic::{Cluster, trial_of};
use super::*;

fn drain(id: u64) -> Event {
    Event::DrainRequested { worker: WorkerId(id) }
}

fn undrain(id: u64) -> Event {
    Event::UndrainRequested { worker: WorkerId(id) }
}

fn stopped(generation: u64, step: u64) -> Event {
    ended(generation, AttemptOutcome::Stopped { step: Step(step) })
}

/// The whole state of `step` is written by the group of two.
fn save(table: &mut Table, step: u64) -> Vec<String> {
    table.tell(advanced(1, step));
    table.tell(part(1, step, 0, 2, "w"));
    table.tell(part(1, step, 1, 2, "w"));
    table.tell(committed(1, step))
}

#[test]
fn a_group_goes_on_without_a_drained_member_after_its_step() {
    let mut table = two_running(1);
    assert_eq!(table.engine.check(&drain(1)), Ok(()));
    table.check(drain(1), &["assign 2 generation 2 [2] from scratch Keep, 1 leaving"]);
    table.check(drain(1), &[]);
    // It keeps its state until the others have formed: one of them may be behind.
    table.check(formed(2, 7), &["roll back to 7 for generation 2", "release 1 generation 1"]);
    assert_eq!(table.run().failures, 0, "nothing has failed");
    assert!(table.engine.view().workers[0].draining && !table.engine.view().workers[1].draining);
    // Whoever comes now gets work, and it does not.
    table.check(
        joined(3),
        &["assign 2 generation 3 [2, 3] from scratch Keep", "assign 3 generation 3 [2, 3] from scratch Keep"],
    );
    table.check(formed(3, 8), &["roll back to 8 for generation 3"]);
    table.check(lost(2), &["assign 3 generation 4 [3] from scratch Keep"]);
    table.check(formed(4, 9), &["roll back to 9 for generation 4"]);
    // Not even if it connects anew, until that is taken back.
    table.check(lost(1), &[]);
    table.check(joined(1), &[]);
    table.check(
        undrain(1),
        &["assign 3 generation 5 [3, 1] from scratch Keep", "assign 1 generation 5 [3, 1] from scratch Keep"],
    );
}

#[test]
fn a_spare_worker_takes_the_place_at_once() {
    let mut table = two_running(2);
    table.check(joined(3), &[]);
    table.check(
        drain(2),
        &[
            "assign 1 generation 2 [1, 3] from scratch Keep, 2 leaving",
            "assign 3 generation 2 [1, 3] from scratch Keep, 2 leaving",
        ],
    );
    // What is told again says the same.
    let again = table.tell(rejoined(1, 1, 5));
    assert_eq!(again, ["assign 1 generation 2 [1, 3] from scratch Keep, 2 leaving"]);
    table.check(formed(2, 7), &["roll back to 7 for generation 2", "release 2 generation 1"]);
    table.check(undrain(2), &[]);
    table.check_run(RunState::Running, "");
}

#[test]
fn a_run_that_cannot_go_on_is_saved_and_waits() {
    let mut table = two_running(2);
    table.check(drain(1), &["stop 1 generation 1", "stop 2 generation 1"]);
    let why = "worker 00000001 is drained: saving, to go on with others";
    table.check_run(RunState::Stopping, why);
    table.check(stopped(1, 7), &[]);
    assert_eq!(save(&mut table, 7), [""; 0]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free, 1 more is drained");
    assert_eq!((table.run().failures, table.run().checkpoints.len()), (0, 1));
    // The end of the attempt is told again by a worker that did not hear that it was taken in.
    table.check(stopped(1, 7), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free, 1 more is drained");
    let mut other = Table { engine: table.engine.clone(), now: table.now };
    other.check(
        joined(3),
        &["assign 2 generation 3 [2, 3] from step 7 Keep", "assign 3 generation 3 [2, 3] from step 7 Keep"],
    );
    other.check(formed(3, 7), &["roll back to 7 for generation 3", "release 1 generation 1"]);
    // The same worker still holds the state.
    table.check(
        undrain(1),
        &["assign 1 generation 3 [1, 2] from step 7 Keep", "assign 2 generation 3 [1, 2] from step 7 Keep"],
    );
}

#[test]
fn a_run_whose_whole_group_is_drained_is_saved_before_others_take_it_over() {
    let mut table = Table::new();
    table.tell(submitted(1, 1));
    table.tell(joined(1));
    table.tell(formed(1, 0));
    table.check(joined(2), &[]);
    // The other one is free, but holds no state: what was made since the newest checkpoint would be lost.
    table.check(drain(1), &["stop 1 generation 1"]);
    table.tell(stopped(1, 7));
    table.tell(advanced(1, 7));
    table.tell(part(1, 7, 0, 1, "w"));
    table.check(committed(1, 7), &["assign 2 generation 3 [2] from step 7 Keep"]);
    table.check(formed(3, 7), &["roll back to 7 for generation 3", "release 1 generation 1"]);
}

#[test]
fn a_user_who_wants_a_stop_gets_it_although_the_run_is_about_to_wait() {
    let stop = Event::StopRequested { run: run() };
    let mut table = two_running(2);
    table.tell(drain(1));
    table.check(stop.clone(), &["stop 1 generation 1", "stop 2 generation 1"]);
    table.check(stop.clone(), &[]);
    table.check_run(RunState::Stopping, "stop requested");
    table.tell(stopped(1, 7));
    save(&mut table, 7);
    table.check_run(RunState::Stopped, "stopped by a user; step 7 is saved");
    // The other way round, nothing is to be done.
    let mut table = two_running(1);
    table.check(stop, &["stop 1 generation 1", "stop 2 generation 1"]);
    table.check(drain(1), &[]);
    table.tell(stopped(1, 7));
    save(&mut table, 7);
    table.check_run(RunState::Stopped, "stopped by a user; step 7 is saved");
}

#[test]
fn a_run_that_was_to_wait_goes_on_if_it_can_after_all() {
    let mut table = two_running(2);
    table.tell(drain(1));
    table.check(joined(3), &[]);
    // Lost before it could save: the next group has no reason to stop.
    table.check(
        lost(1),
        &["assign 2 generation 2 [2, 3] from scratch Keep", "assign 3 generation 2 [2, 3] from scratch Keep"],
    );
    table.check(formed(2, 7), &["roll back to 7 for generation 2"]);
    table.check_run(RunState::Running, "");
    // It completes meanwhile: that counts.
    let mut table = two_running(2);
    table.tell(drain(1));
    table.tell(completed(1, 20));
    save(&mut table, 20);
    table.check_run(RunState::Completed, "all 20 steps are done");
    // It stops before the first step: there is nothing to save.
    let mut table = two_running(2);
    table.tell(drain(1));
    table.check(stopped(1, 0), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free, 1 more is drained");
}

#[test]
fn a_drained_worker_that_is_free_gets_no_work() {
    let mut table = Table::new();
    table.tell(joined(1));
    table.check(drain(1), &[]);
    table.check(submitted(1, 1), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 0 of at least 1 are free, 1 more is drained");
    table.tell(joined(2));
    table.check(lost(2), &[]);
    table.tell(drain(2));
    table.check(joined(2), &["assign 2 generation 2 [2] from scratch Keep"]);
    assert_eq!(table.run().members, [WorkerId(2)], "one that was away could not be drained");
    table.tell(Event::Restarted);
    assert!(table.engine.view().workers.iter().any(|worker| worker.info.id == WorkerId(1) && worker.draining));
}

#[test]
fn a_group_that_forms_or_is_not_complete_after_a_restart_is_left_alone_until_it_is() {
    let mut table = Table::new();
    table.tell(submitted(2, 1));
    table.tell(joined(1));
    table.tell(joined(2));
    table.check(drain(2), &[]);
    table.check(
        formed(1, 0),
        &["roll back to 0 for generation 1", "assign 1 generation 2 [1] from scratch Keep, 2 leaving"],
    );

    let mut table = two_running(1);
    table.tell(Event::Restarted);
    table.tell(rejoined(1, 1, 5));
    table.check(drain(1), &[]);
    let back = table.tell(rejoined(2, 1, 5));
    assert_eq!(back[0], "assign 2 generation 2 [2] from scratch Keep, 1 leaving");
}

#[test]
fn a_drained_member_of_a_broken_group_is_not_in_the_next() {
    let mut table = two_running(1);
    table.tell(broken(1, 2));
    table.check(drain(1), &[]);
    let deadline = Deadline::Form { trial: trial(), generation: Generation(1) };
    table.check_deadline(deadline, 500, &["assign 2 generation 2 [2] from scratch Keep"]);
}

#[test]
fn what_only_drained_members_hold_survives_a_broken_group() {
    let mut table = Table::new();
    table.tell(submitted(1, 1));
    table.tell(joined(1));
    table.tell(formed(1, 0));
    table.tell(joined(2));
    table.tell(broken(1, 1));
    table.check(drain(1), &[]);
    let deadline = Deadline::Form { trial: trial(), generation: Generation(1) };
    table.check_deadline(deadline, 500, &["assign 1 generation 2 [1] from scratch Keep"]);
    table.check(formed(2, 6), &["roll back to 6 for generation 2", "stop 1 generation 2"]);
}

#[test]
fn a_leaver_that_is_taken_back_after_the_others_went_on_drops_what_it_holds() {
    let assigns = ["assign 2 generation 3 [2, 1] from scratch Keep", "assign 1 generation 3 [2, 1] from scratch Keep"];
    let mut table = two_running(1);
    table.tell(drain(1));
    table.check(undrain(1), &[]);
    let mut late = Table { engine: table.engine.clone(), now: table.now };
    // A member may be lost in the very step in which they leave, so that the leaver alone has completed it.
    let expected = [&["roll back to 6 for generation 2", "release 1 generation 1"], &assigns[..]].concat();
    late.check(formed(2, 6), &expected);
    // Before that, its state is as good as anybody's.
    let next = table.tell(lost(2));
    assert_eq!(next, ["assign 1 generation 3 [1] from scratch Keep"]);
}

#[test]
fn a_group_does_not_wait_for_a_leaver_that_is_lost() {
    let mut table = two_running(1);
    table.tell(drain(1));
    table.check(lost(1), &["assign 2 generation 3 [2] from scratch Keep"]);
    table.check(formed(3, 6), &["roll back to 6 for generation 3"]);
    assert_eq!(table.run().failures, 0);
    // One that has said goodbye does not come back, and is forgotten.
    let mut table = two_running(1);
    table.tell(drain(1));
    table.tell(Event::Lost { worker: WorkerId(1), cause: LossCause::Left });
    let gone = "there is no worker 0000000000000001\nhint: `phalanx status` shows all workers";
    assert_eq!(table.engine.check(&undrain(1)).unwrap_err().to_string(), gone);
    assert_eq!(table.engine.check(&drain(1)).unwrap_err().to_string(), gone);
    // In a journal all the same, it does no harm.
    table.check(drain(1), &[]);
    table.check(undrain(1), &[]);
}

#[test]
fn trials_share_the_workers_that_are_left() {
    let elastic = "searcher: {type: random}\ntrials: 2\nelastic: true\n";
    let mut cluster = Cluster::new(elastic, 4);
    cluster.form();
    cluster.check(&[("s.0", 2), ("s.1", 2)]);
    let lent = cluster.view(&trial_of(0)).members[1];
    cluster.tell(Event::DrainRequested { worker: lent });
    cluster.form();
    cluster.check(&[("s.0", 1), ("s.1", 2)]);
    // What is lent and drained is no worker that could go back to anybody.
    let other = cluster.view(&trial_of(1)).members[1];
    cluster.tell(Event::DrainRequested { worker: other });
    let job = cluster.submit("job", 1);
    cluster.form();
    assert_eq!(cluster.view(&job).state, RunState::Waiting);
    cluster.check(&[("s.0", 1), ("s.1", 1)]);
    cluster.tell(Event::UndrainRequested { worker: lent });
    cluster.form();
    cluster.check(&[("job", 1), ("s.0", 1), ("s.1", 1)]);
}
