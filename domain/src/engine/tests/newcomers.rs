//! Workers that cannot work, and groups that do not form.

use super::*;

fn failed(generation: u64) -> Event {
    ended(generation, AttemptOutcome::Failed { step: Step(0), cause: "the data are missing".into() })
}

#[test]
fn a_newcomer_that_cannot_work_is_left_out() {
    let mut table = two_running(1);
    table.tell(lost(2));
    table.check(formed(2, 3), &["roll back to 3 for generation 2"]);
    table.tell(joined(3));
    let mut short_of_workers = Table { engine: table.engine.clone(), now: table.now };
    let effects = table.engine.apply(table.now, failed(3));
    let text = "worker 00000003 is left out until it connects anew: after step 0: the data are missing";
    assert!(effects.contains(&Effect::Note { run: run(), text: text.into() }), "{effects:?}");
    let told: Vec<String> = effects.iter().filter_map(told).collect();
    assert_eq!(told, ["release 3 generation 3", "assign 1 generation 4 [1] from scratch Keep"]);
    table.check(failed(3), &[]);
    table.check(formed(4, 3), &["roll back to 3 for generation 4"]);
    table.check_run(RunState::Running, "1 of 2 workers; grows when one is free");
    // Others are welcome, and so is the same one with a new connection.
    let assigns = |generation: u64, other: u64| {
        [1, other].map(|w| format!("assign {w} generation {generation} [1, {other}] from scratch Keep"))
    };
    let mut other = Table { engine: table.engine.clone(), now: table.now };
    assert_eq!(other.tell(joined(4)), assigns(5, 4));
    assert_eq!(table.tell(joined(3)), assigns(5, 3));
    // Once it has worked here, its failure is the run's.
    table.check(formed(5, 3), &["roll back to 3 for generation 5"]);
    table.check(failed(5), &["release 1 generation 5", "release 3 generation 5"]);
    table.check_run(RunState::Failed, "after step 0: the data are missing");

    // With nobody left of the group that formed, nothing vouches for the run.
    short_of_workers.check(lost(1), &["assign 3 generation 4 [3] from scratch Keep"]);
    short_of_workers.check(failed(4), &["release 3 generation 4"]);
    short_of_workers.check_run(RunState::Failed, "after step 0: the data are missing");
}

#[test]
fn a_run_waits_rather_than_take_a_worker_that_cannot_work() {
    let mut table = two_running(2);
    table.tell(lost(2));
    table.tell(joined(3));
    table.check(failed(2), &["release 3 generation 2"]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free");
    table.check(failed(2), &[]);
    table.check(
        joined(4),
        &["assign 1 generation 3 [1, 4] from scratch Keep", "assign 4 generation 3 [1, 4] from scratch Keep"],
    );
}

#[test]
fn a_first_group_that_fails_fails_the_run() {
    let mut table = Table::new();
    table.tell(submitted(2, 1));
    table.tell(joined(1));
    table.tell(joined(2));
    table.check(failed(1), &["release 1 generation 1", "release 2 generation 1"]);
    table.check_run(RunState::Failed, "after step 0: the data are missing");
}

impl Table {
    /// The group of `generation` breaks, and nothing explains it; both workers stay alive.
    fn break_unexplained(&mut self, generation: u64, worker: u64) -> Vec<String> {
        self.check(broken(generation, worker), &[]);
        self.now = self.engine.next_deadline().expect("an explanation is waited for").0;
        self.stay_alive(&[1, 3]);
        let deadline = Deadline::Form { trial: trial(), generation: Generation(generation) };
        self.tell(Event::DeadlinePassed { deadline })
    }
}

#[test]
fn newcomers_with_whom_no_group_forms_are_left_out_unless_needed() {
    let grown = |min_workers| {
        let mut table = two_running(min_workers);
        table.tell(lost(2));
        table.tell(joined(3));
        table
    };
    let again =
        |generation: u64| [1, 3].map(|w| format!("assign {w} generation {generation} [1, 3] from scratch Keep"));
    let mut table = grown(1);
    // The replacement came after the group had gone on as generation 2, which had not formed yet.
    table.tell(formed(2, 3));
    assert_eq!(table.break_unexplained(3, 1), again(4), "it may have been chance");
    let left_out = ["release 3 generation 4", "assign 1 generation 5 [1] from scratch Keep"];
    assert_eq!(table.break_unexplained(4, 1), left_out);
    table.check(formed(5, 3), &["roll back to 3 for generation 5"]);

    let mut table = grown(2);
    for generation in 2..6 {
        assert_eq!(table.break_unexplained(generation, 1), again(generation + 1), "without it the run could but wait");
    }
}

#[test]
fn a_run_told_to_stop_does_not_wait_for_a_group_that_does_not_form() {
    let mut table = two_saved(2, 5);
    table.tell(broken(1, 1));
    table.check(Event::StopRequested { run: run() }, &[]);
    table.check_run(RunState::Stopping, "the group broke and forms anew: worker 00000001 reports: reset by peer");
    let deadline = Deadline::Form { trial: trial(), generation: Generation(1) };
    table.check_deadline(deadline, SECOND / 2, &["release 1 generation 1", "release 2 generation 1"]);
    table.check_run(RunState::Stopped, "stopped by a user; step 5 is saved");
}
