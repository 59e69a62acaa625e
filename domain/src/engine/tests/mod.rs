mod checkpoints;
mod drains;
mod elastic;
mod gangs;
mod newcomers;
mod priorities;
mod retries;
mod sweeps;

use super::*;
use crate::batch::Length;
use crate::ids::Rank;
use crate::record::{Position, SavedPart};
use crate::sim::base_spec;
use crate::view::{RunState, RunView};

/// An engine with a clock that the test moves. Effects are compared as text, all of them and in order.
struct Table {
    engine: Engine,
    now: Time,
}

const SECOND: u64 = 1_000;

impl Table {
    fn new() -> Self {
        Self { engine: Engine::new(Timing::default()), now: Time(1_000_000) }
    }

    fn tell(&mut self, event: Event) -> Vec<String> {
        self.engine.apply(self.now, event).iter().filter_map(told).collect()
    }

    /// Tells `event` and compares all effects but the notes.
    #[track_caller]
    fn check(&mut self, event: Event, expected: &[&str]) {
        let effects = self.tell(event.clone());
        assert_eq!(effects, expected, "effects of {event:?}");
    }

    /// Moves the clock to the next deadline, which must be `expected`, and lets it pass.
    #[track_caller]
    fn check_deadline(&mut self, expected: Deadline, after_ms: u64, effects: &[&str]) {
        let (at, deadline) = self.engine.next_deadline().expect("something is waited for");
        assert_eq!((at.0 - self.now.0, &deadline), (after_ms, &expected));
        self.now = at;
        self.check(Event::DeadlinePassed { deadline }, effects);
    }

    fn stay_alive(&mut self, workers: &[u64]) {
        for id in workers {
            self.check(Event::Alive { worker: WorkerId(*id) }, &[]);
        }
    }

    fn run(&self) -> RunView {
        self.engine.view().runs.remove(0)
    }

    #[track_caller]
    fn check_run(&self, state: RunState, reason: &str) {
        let run = self.run();
        assert_eq!((run.state, run.reason.as_str()), (state, reason));
    }
}

fn told(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Assign { worker, assignment: a } => {
            let members: Vec<u64> = a.members.iter().map(|m| m.id.0).collect();
            let start = match &a.start {
                StartFrom::Scratch => "scratch".to_owned(),
                StartFrom::Checkpoint { step, .. } => format!("step {step}"),
                StartFrom::Copy { step, .. } => format!("a copy at step {step}"),
            };
            assert_eq!(a.members[a.rank.0 as usize].id, *worker);
            let leaving: Vec<String> = a.leaving.iter().map(|id| id.0.to_string()).collect();
            let leaving = if leaving.is_empty() { String::new() } else { format!(", {} leaving", leaving.join(", ")) };
            format!("assign {worker} generation {} {members:?} from {start} {:?}{leaving}", a.generation, a.state)
        }
        Effect::Stop { worker, generation, .. } => format!("stop {worker} generation {generation}"),
        Effect::Release { worker, generation, .. } => format!("release {worker} generation {generation}"),
        Effect::CommitCheckpoint { generation, step, parts, .. } => {
            format!("commit step {step} generation {generation} of {} parts", parts.len())
        }
        Effect::DeleteCheckpoints { manifests, .. } => format!("delete {manifests:?}"),
        Effect::DropSave { step, generation, .. } => format!("drop step {step} generation {generation}"),
        Effect::RollBack { step, generation, .. } => format!("roll back to {step} for generation {generation}"),
        Effect::Note { .. } => return None,
    })
}

fn run() -> RunName {
    RunName::new("r").unwrap()
}

fn trial() -> TrialId {
    only_trial(&run())
}

fn submitted(workers: u32, min_workers: u32) -> Event {
    let mut spec = base_spec(run());
    (spec.workers, spec.min_workers) = (workers, min_workers);
    spec.checkpoint.keep_best = 0;
    spec.train.length = Length::Steps(20);
    Event::Submitted { spec: Box::new(spec) }
}

fn info(id: u64) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId(id),
        host: "h".into(),
        pid: 1,
        device: "cpu".into(),
        peer_address: format!("h:{id}"),
        ring_address: format!("h:{id}"),
    }
}

fn joined(id: u64) -> Event {
    Event::Joined { worker: info(id), running: None }
}

fn rejoined(id: u64, generation: u64, step: u64) -> Event {
    let running = Running { trial: trial(), generation: Generation(generation), position: at(step) };
    Event::Joined { worker: info(id), running: Some(running) }
}

fn lost(id: u64) -> Event {
    Event::Lost { worker: WorkerId(id), cause: LossCause::ConnectionClosed }
}

fn at(step: u64) -> Position {
    Position { step: Step(step), evaluated: false }
}

fn formed(generation: u64, step: u64) -> Event {
    Event::Formed { trial: trial(), generation: Generation(generation), position: at(step) }
}

fn advanced(generation: u64, step: u64) -> Event {
    Event::Advanced { trial: trial(), generation: Generation(generation), position: at(step) }
}

fn broken(generation: u64, worker: u64) -> Event {
    let cause = "reset by peer".into();
    Event::Broken { trial: trial(), generation: Generation(generation), worker: WorkerId(worker), cause }
}

fn part(generation: u64, step: u64, rank: u32, world: u32, weights: &str) -> Event {
    let part = SavedPart {
        step: Step(step),
        rank: Rank(rank).0,
        world,
        path: format!("{step}/{rank}"),
        bytes: 1,
        blake3: "b".into(),
        weights_sha256: weights.into(),
    };
    Event::PartSaved { trial: trial(), generation: Generation(generation), part }
}

fn part_failed(generation: u64, step: u64) -> Event {
    let cause = "no space left on device".into();
    Event::PartFailed { trial: trial(), generation: Generation(generation), step: Step(step), cause }
}

fn committed(generation: u64, step: u64) -> Event {
    Event::Committed {
        trial: trial(),
        generation: Generation(generation),
        step: Step(step),
        manifest: format!("m{step}g{generation}"),
        blake3: "b".into(),
        weights_sha256: "w".into(),
    }
}

fn ended(generation: u64, outcome: AttemptOutcome) -> Event {
    Event::AttemptEnded { trial: trial(), generation: Generation(generation), outcome, worker: None }
}

fn completed(generation: u64, step: u64) -> Event {
    ended(generation, AttemptOutcome::Completed { step: Step(step) })
}

/// Two workers run the job as generation 1.
fn two_running(min_workers: u32) -> Table {
    let mut table = Table::new();
    table.check(submitted(2, min_workers), &[]);
    table.tell(joined(1));
    table.tell(joined(2));
    table.check(formed(1, 0), &["roll back to 0 for generation 1"]);
    table.check_run(RunState::Running, "");
    table
}

/// As [`two_running`], with the state of `step` saved.
fn two_saved(min_workers: u32, step: u64) -> Table {
    let mut table = two_running(min_workers);
    table.tell(advanced(1, step));
    table.tell(part(1, step, 0, 2, "w"));
    let commit = format!("commit step {step} generation 1 of 2 parts");
    table.check(part(1, step, 1, 2, "w"), &[&commit]);
    table.check(committed(1, step), &[]);
    table
}

#[test]
fn a_run_waits_for_its_gang_and_says_so() {
    let mut table = Table::new();
    table.check(submitted(3, 2), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 0 of at least 2 are free");
    table.check(joined(1), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free");
    table.check(joined(2), &[]);
    table.check_run(RunState::Waiting, "2 of 3 workers are free, holding out for the others");
    let mut full = Table { engine: table.engine.clone(), now: table.now };
    full.check(
        joined(3),
        &[
            "assign 1 generation 1 [1, 2, 3] from scratch Keep",
            "assign 2 generation 1 [1, 2, 3] from scratch Keep",
            "assign 3 generation 1 [1, 2, 3] from scratch Keep",
        ],
    );
    table.check_deadline(
        Deadline::Gather { trial: trial() },
        2 * SECOND,
        &["assign 1 generation 1 [1, 2] from scratch Keep", "assign 2 generation 1 [1, 2] from scratch Keep"],
    );
    table.check_run(RunState::Forming, "2 of 3 workers are connecting");
    // One that joins a forming group's run waits until it has formed.
    table.check(joined(3), &[]);
    table.check(
        formed(1, 0),
        &[
            "roll back to 0 for generation 1",
            "assign 1 generation 2 [1, 2, 3] from scratch Keep",
            "assign 2 generation 2 [1, 2, 3] from scratch Keep",
            "assign 3 generation 2 [1, 2, 3] from scratch Keep",
        ],
    );
}

#[test]
fn runs_are_served_in_turn() {
    let mut table = Table::new();
    let mut second = base_spec(RunName::new("a").unwrap());
    (second.workers, second.min_workers) = (1, 1);
    table.check(submitted(2, 2), &[]);
    table.check(Event::Submitted { spec: Box::new(second) }, &[]);
    table.check(joined(1), &["assign 1 generation 1 [1] from scratch Keep"]);
    assert_eq!(table.run().name.as_str(), "a", "a run that the cluster cannot serve at all blocks nobody");
    table.check(joined(2), &[]);
    let mut third = base_spec(RunName::new("b").unwrap());
    (third.workers, third.min_workers) = (1, 1);
    table.check(Event::Submitted { spec: Box::new(third) }, &[]);
    let waiting = table.engine.view().runs.remove(1);
    assert_eq!((waiting.name.as_str(), waiting.reason.as_str()), ("b", "waiting behind run r"));
}

#[test]
fn names_are_unique_and_only_what_can_be_is_stopped_or_resumed() {
    let stop = Event::StopRequested { run: run() };
    let resume = Event::ResumeRequested { run: run() };
    let mut table = Table::new();
    assert_eq!(table.engine.check(&stop), Err(Refusal::NoSuchRun { run: run() }));
    assert_eq!(table.engine.check(&submitted(1, 1)), Ok(()));
    table.tell(submitted(1, 1));
    let state = RunState::Waiting;
    assert_eq!(table.engine.check(&submitted(1, 1)), Err(Refusal::RunLive { run: run(), state }));
    assert_eq!(table.engine.check(&resume), Err(Refusal::NotResumable { run: run(), state }));
    table.check(stop.clone(), &[]);
    table.check_run(RunState::Stopped, "stopped by a user; step 0 is saved");
    let state = RunState::Stopped;
    assert_eq!(table.engine.check(&submitted(1, 1)), Err(Refusal::RunEnded { run: run(), state }));
    assert_eq!(table.engine.check(&stop), Err(Refusal::NotLive { run: run(), state }));
    assert_eq!(table.engine.check(&resume), Ok(()));
    // Applied all the same, as by a replay, a second submission changes nothing.
    table.check(submitted(1, 1), &[]);
    table.check_run(RunState::Stopped, "stopped by a user; step 0 is saved");
}

#[test]
fn a_lost_member_is_replaced_at_once_or_done_without() {
    let mut table = two_running(1);
    table.check(lost(1), &["assign 2 generation 2 [2] from scratch Keep"]);
    assert_eq!(table.run().failures, 1);
    table.check(lost(1), &[]);
    table.check(broken(1, 2), &[]);
    table.check(formed(1, 0), &[]);
    table.tell(advanced(1, 9));
    assert_eq!(table.run().step, Step(0), "nothing counts that an older generation tells");
    table.check(formed(2, 3), &["roll back to 3 for generation 2"]);
    table.check_run(RunState::Running, "1 of 2 workers; grows when one is free");
    table.check(
        joined(3),
        &["assign 2 generation 3 [2, 3] from scratch Keep", "assign 3 generation 3 [2, 3] from scratch Keep"],
    );
}

#[test]
fn a_run_below_its_least_number_waits_and_its_survivor_keeps_the_state() {
    let mut table = two_running(2);
    table.tell(advanced(1, 7));
    table.check(lost(2), &[]);
    table.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free");
    table.check(
        joined(3),
        &["assign 1 generation 2 [1, 3] from scratch Keep", "assign 3 generation 2 [1, 3] from scratch Keep"],
    );
    table.check(formed(2, 7), &["roll back to 7 for generation 2"]);
}

#[test]
fn a_silent_worker_is_lost_by_its_lease() {
    let mut table = two_running(1);
    table.now = table.now.after_ms(3 * SECOND);
    table.check(Event::Alive { worker: WorkerId(1) }, &[]);
    table.check_deadline(
        Deadline::Lease { worker: WorkerId(2) },
        2 * SECOND,
        &["assign 1 generation 2 [1] from scratch Keep"],
    );
}

#[test]
fn a_break_without_a_loss_is_tried_again_a_few_times() {
    let mut table = two_running(2);
    table.check(broken(1, 2), &[]);
    table.check(broken(1, 1), &[]);
    let mut explained = Table { engine: table.engine.clone(), now: table.now };
    explained.check(lost(1), &[]);
    explained.check_run(RunState::Waiting, "waiting for workers: 1 of at least 2 are free");
    assert_eq!(explained.run().failures, 1, "a break and the loss that explains it are one failure");
    for generation in 1..=5 {
        let deadline = Deadline::Form { trial: trial(), generation: Generation(generation) };
        let next = generation + 1;
        let assigns = [1, 2].map(|w| format!("assign {w} generation {next} [1, 2] from scratch Keep"));
        table.stay_alive(&[1, 2]);
        table.now = table.engine.next_deadline().unwrap().0;
        let passed = Event::DeadlinePassed { deadline };
        table.stay_alive(&[1, 2]);
        while table.tell(passed.clone()) != assigns {
            // The wait has doubled past the lease: the workers stay alive meanwhile.
            table.stay_alive(&[1, 2]);
            table.now = table.now.after_ms(SECOND);
        }
        table.check(broken(next, 1), &[]);
    }
    table.now = table.now.after_ms(60 * SECOND);
    let deadline = Deadline::Form { trial: trial(), generation: Generation(6) };
    table.check(Event::DeadlinePassed { deadline }, &["release 1 generation 6", "release 2 generation 6"]);
    table.check_run(RunState::Failed, "6 groups in a row broke; the last one: worker 00000001 reports: reset by peer");
}

#[test]
fn a_running_run_is_stopped_with_its_state_saved() {
    let mut table = two_saved(1, 5);
    let stop = Event::StopRequested { run: run() };
    table.check(stop.clone(), &["stop 1 generation 1", "stop 2 generation 1"]);
    table.check(stop, &[]);
    table.check_run(RunState::Stopping, "stop requested");
    table.check(joined(3), &[]);
    table.check(
        lost(1),
        &["assign 2 generation 2 [2, 3] from step 5 Keep", "assign 3 generation 2 [2, 3] from step 5 Keep"],
    );
    table.check(formed(2, 6), &["roll back to 6 for generation 2", "stop 2 generation 2", "stop 3 generation 2"]);
    table.tell(advanced(2, 7));
    table.check(ended(2, AttemptOutcome::Stopped { step: Step(7) }), &[]);
    table.tell(part(2, 7, 0, 2, "w"));
    table.check(part(2, 7, 1, 2, "w"), &["commit step 7 generation 2 of 2 parts"]);
    let freed = ["release 2 generation 2", "release 3 generation 2", "delete [\"m5g1\"]"];
    let mut effects = table.tell(committed(2, 7));
    effects.sort_by_key(|effect| !effect.starts_with("release"));
    assert_eq!(effects, freed);
    table.check_run(RunState::Stopped, "stopped by a user; step 7 is saved");
}

#[test]
fn the_time_limit_counts_running_time_only_and_completes_the_run() {
    let mut table = Table::new();
    let Event::Submitted { mut spec } = submitted(1, 1) else { unreachable!() };
    spec.early_stopping.max_seconds = Some(3);
    table.tell(Event::Submitted { spec });
    table.now = table.now.after_ms(60 * SECOND);
    table.tell(joined(1));
    table.now = table.now.after_ms(SECOND);
    table.tell(formed(1, 0));
    table.now = table.now.after_ms(2 * SECOND);
    table.check(lost(1), &[]);
    table.now = table.now.after_ms(60 * SECOND);
    table.tell(joined(2));
    table.tell(formed(2, 4));
    table.check_deadline(Deadline::TimeLimit { trial: trial() }, SECOND, &["stop 2 generation 2"]);
    table.tell(advanced(2, 8));
    table.tell(part(2, 8, 0, 1, "w"));
    table.check(ended(2, AttemptOutcome::Stopped { step: Step(8) }), &[]);
    table.check(committed(2, 8), &["release 2 generation 2"]);
    table.check_run(RunState::Completed, "trained for 3 s, the limit, up to step 8");
}

#[test]
fn a_rollback_discards_what_is_in_memory() {
    let mut table = two_saved(1, 5);
    table.tell(advanced(1, 8));
    let event = |generation, step| Event::RollbackRequested {
        trial: trial(),
        generation: Generation(generation),
        step: Step(step),
        cause: "loss is NaN".into(),
    };
    table.check(
        event(1, 9),
        &[
            "roll back to 5 for generation 2",
            "assign 1 generation 2 [1, 2] from step 5 Discard",
            "assign 2 generation 2 [1, 2] from step 5 Discard",
        ],
    );
    table.check(event(1, 9), &[]);
    // A state from before the rollback is worth nothing.
    table.check(lost(2), &["assign 1 generation 3 [1] from step 5 Discard"]);
    table.check(rejoined(2, 1, 8), &["release 2 generation 1"]);
    table.check(
        formed(3, 5),
        &[
            "roll back to 5 for generation 3",
            "assign 1 generation 4 [1, 2] from step 5 Keep",
            "assign 2 generation 4 [1, 2] from step 5 Keep",
        ],
    );
}

#[test]
fn a_restart_repeats_what_may_be_lost_and_waits_for_the_workers() {
    let mut table = two_saved(1, 5);
    table.tell(advanced(1, 10));
    table.tell(part(1, 10, 0, 2, "w"));
    table.tell(part(1, 10, 1, 2, "w"));
    table.now = table.now.after_ms(600 * SECOND);
    table.check(Event::Restarted, &["roll back to 0 for generation 1"]);
    table.check_run(RunState::Running, "");
    table.check(advanced(1, 11), &["commit step 10 generation 1 of 2 parts"]);
    table.check(rejoined(1, 1, 12), &["assign 1 generation 1 [1, 2] from step 5 Keep"]);
    table.check(committed(1, 10), &["delete [\"m5g1\"]"]);
    table.tell(Event::Alive { worker: WorkerId(1) });
    table.now = table.now.after_ms(30 * SECOND);
    let deadline = Deadline::Lease { worker: WorkerId(2) };
    table.check(Event::DeadlinePassed { deadline }, &["assign 1 generation 2 [1] from step 10 Keep"]);
    table.check(Event::Restarted, &["roll back to 0 for generation 1", "delete [\"m5g1\"]"]);
}

#[test]
fn what_an_older_generation_reports_changes_nothing() {
    let mut table = two_saved(1, 5);
    table.check(lost(2), &["assign 1 generation 2 [1] from step 5 Keep"]);
    table.check(formed(2, 6), &["roll back to 6 for generation 2"]);
    table.tell(joined(2));
    table.check(formed(3, 6), &["roll back to 6 for generation 3"]);
    let measured = |generation, step| Event::Measured {
        trial: trial(),
        generation: Generation(generation),
        step: Step(step),
        eval_loss: 0.5.into(),
        eval_accuracy: 0.5.into(),
    };
    let rollback = Event::RollbackRequested {
        trial: trial(),
        generation: Generation(2),
        step: Step(7),
        cause: "loss is NaN".into(),
    };
    let before = table.run();
    for late in [
        formed(1, 9),
        formed(2, 9),
        broken(2, 1),
        advanced(2, 9),
        part(2, 9, 0, 1, "w"),
        part_failed(2, 9),
        committed(2, 6),
        rollback,
        completed(2, 10),
        ended(2, AttemptOutcome::Stopped { step: Step(5) }),
        ended(2, AttemptOutcome::Failed { step: Step(6), cause: "the disk is gone".into() }),
        // Evaluated after a step that the history left, and before anything did.
        measured(2, 7),
        measured(4, 6),
    ] {
        let effects = table.tell(late.clone());
        let cleans = |effect: &String| ["delete [\"m6g2\"]", "drop step 9 generation 2"].contains(&effect.as_str());
        assert!(effects.iter().all(cleans), "{late:?} leads to {effects:?}");
        assert_eq!(table.run(), before, "{late:?}");
    }
    table.check(measured(1, 5), &[]);
    assert_eq!(table.run().measurements.len(), 1, "an evaluation within the history counts, however late");
    table.tell(advanced(3, 9));
    table.tell(part(3, 9, 0, 2, "w"));
    // What an older group could not save is no loss of this one's.
    table.check(part(3, 9, 1, 2, "w"), &["commit step 9 generation 3 of 2 parts"]);
}

#[test]
fn a_run_told_to_stop_ends_even_if_its_group_is_lost_first() {
    let mut table = two_saved(2, 5);
    table.tell(Event::StopRequested { run: run() });
    table.check(lost(1), &["release 2 generation 1"]);
    table.check_run(RunState::Stopped, "stopped by a user; step 5 is saved");
}

#[test]
fn a_member_that_comes_back_is_told_to_stop_again() {
    let mut table = two_running(1);
    table.tell(Event::StopRequested { run: run() });
    // Its connection was replaced before anybody noticed that the old one had ended.
    table.check(rejoined(1, 1, 3), &["assign 1 generation 1 [1, 2] from scratch Keep", "stop 1 generation 1"]);
    table.check(Event::Restarted, &["roll back to 0 for generation 1"]);
    table.check(rejoined(2, 1, 3), &["assign 2 generation 1 [1, 2] from scratch Keep", "stop 2 generation 1"]);
}

#[test]
fn what_cannot_be_is_not_waited_for() {
    let mut table = two_running(1);
    let before = table.run();
    for impossible in [
        part(1, 5, 2, 2, "w"),
        part(1, 5, 0, 3, "w"),
        part(1, 5, 0, 1, "w"),
        part(1, 21, 0, 2, "w"),
        part(2, 5, 0, 2, "w"),
        part_failed(1, 21),
        part_failed(2, 5),
        completed(1, 21),
        completed(2, 20),
        ended(1, AttemptOutcome::Stopped { step: Step(21) }),
    ] {
        let known = table.engine.clone();
        table.check(impossible.clone(), &[]);
        assert!(table.engine == known && table.run() == before, "{impossible:?}");
    }
    let counts = |generation, step| table.engine.counts(&run(), Generation(generation), Step(step));
    assert!(counts(1, 20) && !counts(2, 1), "a generation that is still to come has made nothing");
}
