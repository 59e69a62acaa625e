//! What is saved, committed, kept and dropped.

use super::*;

#[test]
fn a_checkpoint_needs_all_parts_and_durable_records() {
    let mut table = two_running(1);
    table.check(part(1, 5, 1, 2, "w"), &[]);
    table.check(part(1, 5, 1, 2, "w"), &[]);
    table.check(part(1, 5, 0, 2, "w"), &[]);
    table.check(advanced(1, 4), &[]);
    table.check(advanced(1, 5), &["commit step 5 generation 1 of 2 parts"]);
    table.check(committed(1, 5), &[]);
    table.check(committed(1, 5), &[]);
    let newest = &table.run().checkpoints[0];
    assert_eq!((newest.step, newest.result), (Step(5), false));
    table.tell(advanced(1, 10));
    table.tell(part(1, 10, 0, 2, "w"));
    table.check(part(1, 10, 1, 2, "w"), &["commit step 10 generation 1 of 2 parts"]);
    table.check(committed(1, 10), &["delete [\"m5g1\"]"]);
    table.check(part(1, 15, 0, 2, "w"), &[]);
    table.check(part(1, 15, 1, 2, "x"), &["release 1 generation 1", "release 2 generation 1"]);
    table.check_run(
        RunState::Failed,
        "replicas diverged at step 15: rank 0 of 2 has weights w, rank 1 of 2 has weights x",
    );
}

#[test]
fn a_run_is_complete_once_its_last_checkpoint_is_committed() {
    let mut table = two_running(1);
    table.tell(advanced(1, 10));
    table.check(completed(1, 10), &[]);
    table.check_run(RunState::Running, "saving step 10, the last one");
    table.tell(part(1, 10, 0, 2, "w"));
    table.check(part(1, 10, 1, 2, "w"), &["commit step 10 generation 1 of 2 parts"]);
    // What is written needs no group any more.
    table.check(lost(2), &[]);
    table.check(committed(1, 10), &["release 1 generation 1"]);
    table.check_run(RunState::Completed, "all 10 steps are done");
    assert!(table.run().checkpoints[0].result);
    table.check(rejoined(2, 1, 10), &["release 2 generation 1"]);

    let mut at_once = two_saved(1, 10);
    at_once.check(completed(1, 10), &["release 1 generation 1", "release 2 generation 1"]);
    at_once.check_run(RunState::Completed, "all 10 steps are done");
}

#[test]
fn a_last_state_that_cannot_be_saved_fails_the_run() {
    let failed = "the state of step 10 could not be saved: no space left on device";
    for events in [[completed(1, 10), part_failed(1, 10)], [part_failed(1, 10), completed(1, 10)]] {
        let mut table = two_saved(1, 5);
        let [first, second] = events;
        let mut effects = table.tell(first);
        effects.extend(table.tell(second));
        assert_eq!(effects, ["drop step 10 generation 1", "release 1 generation 1", "release 2 generation 1"]);
        table.check_run(RunState::Failed, failed);
        let resume = Event::ResumeRequested { run: run() };
        table.check(
            resume,
            &[
                "roll back to 5 for generation 2",
                "assign 1 generation 3 [1, 2] from step 5 Keep",
                "assign 2 generation 3 [1, 2] from step 5 Keep",
            ],
        );
    }
    // In the middle of the run it is a pity, no more.
    let mut table = two_running(1);
    table.check(part_failed(1, 5), &["drop step 5 generation 1"]);
    table.check_run(RunState::Running, "");
}

#[test]
fn a_group_that_formed_below_a_checkpoint_forms_anew_from_it() {
    let mut table = two_running(1);
    table.tell(advanced(1, 5));
    table.tell(part(1, 5, 0, 2, "w"));
    table.tell(part(1, 5, 1, 2, "w"));
    table.tell(lost(1));
    table.tell(lost(2));
    table.tell(joined(3));
    // Nobody who holds step 5 is left, and its manifest is written only now.
    table.now = table.now.after_ms(2 * SECOND);
    let passed = Event::DeadlinePassed { deadline: Deadline::Gather { trial: trial() } };
    table.check(passed, &["assign 3 generation 3 [3] from scratch Keep"]);
    table.check(committed(1, 5), &[]);
    table.check(formed(3, 0), &["assign 3 generation 4 [3] from step 5 Discard"]);
    table.check(formed(4, 5), &["roll back to 5 for generation 4"]);
}

#[test]
fn a_checkpoint_that_the_history_left_behind_is_deleted() {
    let mut table = two_running(1);
    table.tell(advanced(1, 5));
    table.tell(part(1, 5, 0, 2, "w"));
    table.tell(part(1, 5, 1, 2, "w"));
    table.tell(lost(1));
    table.check(formed(2, 4), &["roll back to 4 for generation 2"]);
    table.check(committed(1, 5), &["delete [\"m5g1\"]"]);
    assert!(table.run().checkpoints.is_empty());
}

#[test]
fn a_checkpoint_that_a_forming_group_may_be_reading_stays() {
    let mut table = two_saved(1, 5);
    table.tell(advanced(1, 10));
    table.tell(part(1, 10, 0, 2, "w"));
    table.tell(part(1, 10, 1, 2, "w"));
    table.check(lost(2), &["assign 1 generation 2 [1] from step 5 Keep"]);
    table.check(committed(1, 10), &[]);
    assert_eq!(table.run().checkpoints.len(), 2);
    table.check(formed(2, 10), &["roll back to 10 for generation 2", "delete [\"m5g1\"]"]);
}

#[test]
fn the_parts_of_a_lost_save_are_dropped_whenever_one_turns_up() {
    let drop_5 = "drop step 5 generation 1";
    let mut table = two_running(1);
    table.check(part(1, 5, 0, 2, "w"), &[]);
    table.check(part_failed(1, 5), &[drop_5]);
    table.check(part_failed(1, 5), &[drop_5]);
    table.check(part(1, 5, 0, 2, "w"), &[drop_5]);
    // What is a checkpoint, or about to be one, stays.
    table.tell(advanced(1, 10));
    table.tell(part(1, 10, 0, 2, "w"));
    table.check(part(1, 10, 1, 2, "w"), &["commit step 10 generation 1 of 2 parts"]);
    table.check(part(1, 10, 1, 2, "w"), &[]);
    table.check(committed(1, 10), &[]);
    table.check(part(1, 10, 1, 2, "w"), &[]);
    table.check(part_failed(1, 10), &[]);
    // A group that is left behind does not complete what it began; what it has written whole waits for its records.
    table.tell(part(1, 12, 0, 2, "w"));
    table.tell(part(1, 14, 0, 2, "w"));
    table.tell(part(1, 14, 1, 2, "w"));
    table.check(lost(2), &["drop step 12 generation 1", "assign 1 generation 2 [1] from step 10 Keep"]);
    table.check(part(1, 12, 1, 2, "w"), &["drop step 12 generation 1"]);
    table.check(part(1, 14, 1, 2, "w"), &[]);
    table.check(formed(2, 13), &["drop step 14 generation 1", "roll back to 13 for generation 2"]);
    table.check(part(1, 14, 1, 2, "w"), &["drop step 14 generation 1"]);
    // A manifest that could not be written, of an older group.
    table.tell(advanced(2, 14));
    table.tell(part(2, 14, 0, 1, "w"));
    table.tell(joined(3));
    table.check(part_failed(2, 14), &["drop step 14 generation 2"]);
}

/// As what [`two_running`] gives, with the state of `step` saved too.
fn save(table: &mut Table, step: u64) -> Vec<String> {
    table.tell(advanced(1, step));
    table.tell(part(1, step, 0, 2, "w"));
    table.tell(part(1, step, 1, 2, "w"));
    table.tell(committed(1, step))
}

fn pin(step: u64) -> Event {
    Event::PinRequested { run: run(), step: Step(step) }
}

fn unpin(step: u64) -> Event {
    Event::UnpinRequested { run: run(), step: Step(step) }
}

#[test]
fn a_pinned_checkpoint_stays_until_it_is_unpinned() {
    let mut table = two_saved(1, 5);
    table.check(pin(5), &[]);
    table.check(pin(5), &[]);
    assert_eq!(save(&mut table, 10), [""; 0]);
    assert_eq!(save(&mut table, 15), ["delete [\"m10g1\"]"]);
    let shown = |table: &Table| -> Vec<(u64, bool)> {
        table.run().checkpoints.iter().map(|checkpoint| (checkpoint.step.0, checkpoint.pinned)).collect()
    };
    assert_eq!(shown(&table), [(5, true), (15, false)]);
    // Neither a restart nor the end of the run takes it.
    let before = table.engine.clone();
    table.tell(Event::Restarted);
    assert_eq!(shown(&table), [(5, true), (15, false)]);
    table.engine = before;
    table.check(completed(1, 15), &["release 1 generation 1", "release 2 generation 1"]);
    assert_eq!(shown(&table), [(5, true), (15, false)]);
    table.check(unpin(5), &["delete [\"m5g1\"]"]);
    table.check(unpin(5), &[]);
    assert_eq!(shown(&table), [(15, false)]);
    // What would stay anyway stays.
    table.check(pin(15), &[]);
    table.check(unpin(15), &[]);
    assert_eq!(shown(&table), [(15, false)]);
}

#[test]
fn what_is_unpinned_while_a_group_forms_goes_once_it_has() {
    let mut table = two_saved(1, 5);
    table.check(pin(5), &[]);
    assert_eq!(save(&mut table, 10), [""; 0]);
    table.check(lost(2), &["assign 1 generation 2 [1] from step 10 Keep"]);
    table.check(unpin(5), &[]);
    table.check(formed(2, 10), &["roll back to 10 for generation 2", "delete [\"m5g1\"]"]);
}

#[test]
fn only_what_is_there_can_be_pinned() {
    let mut table = two_saved(1, 5);
    let refused = |table: &Table, event: Event| table.engine.check(&event).unwrap_err().to_string();
    let gone = |step: u64| {
        format!(
            "run r has no checkpoint of step {step}: none was saved there, or it is not kept any more\n\
             hint: `phalanx checkpoint list r`"
        )
    };
    assert_eq!(table.engine.check(&pin(5)), Ok(()));
    assert_eq!(refused(&table, pin(6)), gone(6));
    assert_eq!(save(&mut table, 10), ["delete [\"m5g1\"]"]);
    assert_eq!(refused(&table, pin(5)), gone(5));
    assert_eq!(refused(&table, unpin(5)), gone(5));
    let other = Event::PinRequested { run: "a".parse().unwrap(), step: Step(10) };
    assert_eq!(refused(&table, other), "there is no run a\nhint: `phalanx list` shows all runs");
    // In a journal all the same, it does no harm.
    table.check(pin(5), &[]);
    assert_eq!(table.run().checkpoints.len(), 1);
}
