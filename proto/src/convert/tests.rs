use std::path::Path;

use domain::batch::Length;
use domain::engine::{AttemptOutcome, StartFrom, StateInMemory, WorkerInfo};
use domain::ids::{Generation, Rank, Step, TrialId, WorkerId};
use domain::picture::RunPicture;
use domain::view::{MeasurementView, RunState, RunView};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn trial_id() -> impl Strategy<Value = TrialId> {
    ("[a-z0-9][a-zA-Z0-9_.-]{0,20}", any::<u32>())
        .prop_map(|(run, number)| TrialId { run: run.parse().unwrap(), number })
}

fn generation() -> impl Strategy<Value = Generation> {
    storable().prop_map(Generation)
}

fn storable() -> impl Strategy<Value = u64> {
    0..=i64::MAX as u64
}

fn step() -> impl Strategy<Value = Step> {
    (0..=STEPS_MAX).prop_map(Step)
}

fn position() -> impl Strategy<Value = Position> {
    (0..=STEPS_MAX, any::<bool>()).prop_map(|(step, evaluated)| Position { step: Step(step), evaluated })
}

fn worker() -> impl Strategy<Value = WorkerInfo> {
    (any::<u64>(), ".{0,8}", any::<u32>(), ".{0,8}").prop_map(|(id, host, pid, device)| WorkerInfo {
        id: WorkerId(id),
        host,
        pid,
        device,
        peer_address: "127.0.0.1:1".to_owned(),
        ring_address: "[::1]:2".to_owned(),
    })
}

fn step_record() -> impl Strategy<Value = Record> {
    let read = (any::<u32>(), any::<u64>(), vec(any::<u64>(), 0..4)).prop_map(|(micro_batch, worker, samples)| Read {
        micro_batch,
        worker: WorkerId(worker),
        samples,
    });
    let figures = (any::<f64>(), any::<f64>(), any::<f64>());
    (1..=STEPS_MAX, generation(), figures, any::<bool>(), [storable(), storable()], vec(read, 0..4)).prop_map(
        |(step, generation, (loss, grad_norm, lr), skipped, [micros, micros_outside_model], reads)| {
            Record::Step(StepRecord {
                step: Step(step),
                generation,
                loss,
                grad_norm,
                lr,
                skipped,
                micros,
                micros_outside_model,
                reads,
            })
        },
    )
}

fn eval_record() -> impl Strategy<Value = Record> {
    (0..=STEPS_MAX, generation(), any::<f64>(), any::<f64>(), storable()).prop_map(
        |(step, generation, loss, accuracy, samples)| {
            Record::Eval(EvalRecord { step: Step(step), generation, loss, accuracy, samples })
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![step_record(), eval_record()]
}

fn part() -> impl Strategy<Value = SavedPart> {
    (step(), any::<[u32; 2]>(), storable(), "[a-z/]{0,20}").prop_map(|(step, [rank, world], bytes, path)| SavedPart {
        step,
        rank,
        world,
        path,
        bytes,
        blake3: "aa".to_owned(),
        weights_sha256: "bb".to_owned(),
    })
}

fn outcome() -> impl Strategy<Value = AttemptOutcome> {
    (step(), ".{0,9}").prop_flat_map(|(step, cause)| {
        prop_oneof![
            Just(AttemptOutcome::Completed { step }),
            Just(AttemptOutcome::Stopped { step }),
            Just(AttemptOutcome::Rested { step }),
            Just(AttemptOutcome::Failed { step, cause }),
        ]
    })
}

fn report() -> impl Strategy<Value = Report> {
    let group = || (trial_id(), generation());
    let running =
        (group(), position()).prop_map(|((trial, generation), position)| Running { trial, generation, position });
    let line = (any::<u64>(), ".{0,20}").prop_map(|(at_ms, text)| LogLine { at_ms, level: "warn".to_owned(), text });
    prop_oneof![
        (worker(), proptest::option::of(running)).prop_map(|(worker, running)| Report::Hello { worker, running }),
        (proptest::option::of(any::<u64>()), proptest::option::of(any::<[u64; 6]>())).prop_map(
            |(resident_bytes, pace)| {
                let pace = pace.map(|[data, passes, reduce, agree, update, report]| Pace {
                    data,
                    passes,
                    reduce,
                    agree,
                    update,
                    report,
                });
                Report::Heartbeat(Vitals { resident_bytes, pace })
            }
        ),
        (group(), position()).prop_map(|((trial, generation), position)| Report::Formed {
            trial,
            generation,
            position
        }),
        (group(), ".{0,9}").prop_map(|((trial, generation), cause)| Report::Broken { trial, generation, cause }),
        (group(), vec(record(), 0..5)).prop_map(|((trial, generation), records)| Report::Records {
            trial,
            generation,
            records
        }),
        (group(), part()).prop_map(|((trial, generation), part)| Report::PartSaved { trial, generation, part }),
        (group(), step(), ".{0,9}").prop_map(|((trial, generation), step, cause)| Report::PartFailed {
            trial,
            generation,
            step,
            cause
        }),
        (group(), step(), ".{0,9}").prop_map(|((trial, generation), step, cause)| Report::RollbackRequested {
            trial,
            generation,
            step,
            cause
        }),
        (group(), outcome()).prop_map(|((trial, generation), outcome)| Report::AttemptEnded {
            trial,
            generation,
            outcome
        }),
        (trial_id(), vec(line, 0..3)).prop_map(|(trial, lines)| Report::Logs { trial, lines }),
        Just(Report::Goodbye),
        (trial_id(), [storable(), storable()]).prop_map(|(trial, [train_samples, total_steps])| Report::DataOpened {
            trial,
            train_samples,
            total_steps
        }),
    ]
}

fn spec() -> JobSpec {
    let text = "version: 1\nname: a\nworkers: 2\n\
        data: {format: image_folder, path: i, holdout: 0.3}\n\
        model: {type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 1, heads: 4, classes: 10, dropout: 0.1}\n\
        train: {steps: 7, global_batch: 64, clip_norm: 1.0}\n\
        schedule: {lr: 0.0003, warmup_steps: 2}\n\
        early_stopping: {patience: 3, min_delta: 0.1, max_seconds: 9}\n";
    domain::spec::file::read(text, "a.yaml", Path::new("/data")).unwrap()
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let start = prop_oneof![
        Just(StartFrom::Scratch),
        any::<u64>().prop_map(|step| StartFrom::Copy {
            step: Step(step),
            manifest: "b/m.json".to_owned(),
            blake3: "dd".to_owned()
        }),
        any::<u64>().prop_map(|step| StartFrom::Checkpoint {
            step: Step(step),
            manifest: "a/m.json".to_owned(),
            blake3: "cc".to_owned()
        }),
    ];
    let state = prop_oneof![Just(StateInMemory::Keep), Just(StateInMemory::Discard)];
    let until = prop_oneof![
        Just(None),
        any::<u64>().prop_map(|steps| Some(Length::Steps(steps))),
        any::<u64>().prop_map(|epochs| Some(Length::Epochs(epochs))),
    ];
    let state = (state, until, vec(any::<u64>().prop_map(WorkerId), 0..3));
    let members = vec(worker(), 1..4);
    (trial_id(), generation(), members, start, position(), vec(any::<u64>().prop_map(Step), 0..3), state).prop_map(
        |(trial, generation, members, start, recorded, skip_updates, (state, until, leaving))| Assignment {
            trial,
            generation,
            rank: Rank(members.len() as u32 - 1),
            members,
            leaving,
            spec: spec(),
            start,
            recorded,
            skip_updates,
            state,
            until,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any::<u64>(), ".{0,9}").prop_map(|(lease_ms, checkpoint_url)| Command::Welcome { lease_ms, checkpoint_url }),
        assignment().prop_map(|a| Command::Assign(Box::new(a))),
        (trial_id(), generation()).prop_map(|(trial, generation)| Command::Stop { trial, generation }),
        (trial_id(), generation()).prop_map(|(trial, generation)| Command::Release { trial, generation }),
        any::<u64>().prop_map(|sequence| Command::Acknowledge { sequence }),
        Just(Command::Shutdown),
    ]
}

proptest! {
    #[test]
    fn reports_survive_the_wire(report in report(), sequence: u64) {
        let bytes = report_to_wire(sequence, report.clone()).encode_to_vec();
        let wire = v1::Report::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(wire.sequence, sequence);
        prop_assert_eq!(report_from_wire(wire).unwrap(), report);
    }

    #[test]
    fn commands_survive_the_wire(command in command()) {
        let bytes = command_to_wire(command.clone()).encode_to_vec();
        let wire = v1::Command::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(command_from_wire(wire).unwrap(), command);
    }

    #[test]
    fn records_survive_the_wire(record in record()) {
        let bytes = record_to_wire(record.clone()).encode_to_vec();
        // As a field of another message, a record has its tag and length before it.
        prop_assert!(bytes.len() + 11 <= record_bytes_max(&record), "{} bytes", bytes.len());
        prop_assert_eq!(record_from_wire(v1::Record::decode(bytes.as_slice()).unwrap()).unwrap(), record);
    }

    #[test]
    fn no_bytes_make_conversion_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = v1::Report::decode(bytes.as_slice()).map(report_from_wire);
        let _ = v1::Command::decode(bytes.as_slice()).map(command_from_wire);
    }
}

/// All but the sign of a zero: protobuf leaves out what equals 0.
#[test]
fn figures_keep_every_bit() {
    for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324] {
        let record = EvalRecord { step: Step(1), generation: Generation(1), loss: value, accuracy: value, samples: 1 };
        let bytes = record_to_wire(Record::Eval(record)).encode_to_vec();
        let back = record_from_wire(v1::Record::decode(bytes.as_slice()).unwrap()).unwrap();
        let Record::Eval(back) = back else { panic!("a step came back") };
        assert_eq!((back.loss.to_bits(), back.accuracy.to_bits()), (value.to_bits(), value.to_bits()));
    }
}

#[test]
fn what_does_not_hold_together_is_refused_by_name() {
    use v1::report::Body;
    let step = |step| v1::StepPoint { step, ..Default::default() };
    let records = |point| {
        let body = v1::record::Body::Step(v1::StepRecord { point, reads: Vec::new() });
        let records = vec![v1::Record { body: Some(body) }];
        Some(Body::Records(v1::Records { trial: "a/0".to_owned(), generation: 1, records }))
    };
    let attempt_ended = |step| {
        let outcome = v1::AttemptOutcome::Completed.into();
        Some(Body::AttemptEnded(v1::AttemptEnded { trial: "a/0".to_owned(), step, outcome, ..Default::default() }))
    };
    let part_saved = |step, bytes| {
        let part = Some(v1::Part { step, bytes, ..Default::default() });
        Some(Body::PartSaved(v1::PartSaved { trial: "a/0".to_owned(), generation: 1, part }))
    };
    let cases = [
        (None, "Report.body is missing"),
        (Some(Body::Hello(v1::Hello::default())), "Hello.worker is missing"),
        (Some(Body::Broken(v1::Broken::default())), "Broken.trial is not valid: trial id \"\""),
        (
            Some(Body::Formed(v1::Formed { trial: "../x/0".to_owned(), generation: 1, position: None })),
            "Formed.trial is not valid",
        ),
        (
            Some(Body::Formed(v1::Formed { trial: "a/0".to_owned(), generation: 1, position: None })),
            "Formed.position is missing",
        ),
        (
            Some(Body::AttemptEnded(v1::AttemptEnded { trial: "a/0".to_owned(), outcome: 77, ..Default::default() })),
            "AttemptEnded.outcome is missing",
        ),
        (attempt_ended(STEPS_MAX + 1), "AttemptEnded.step is not valid: 17179869185 must be 0 to 17179869184"),
        (part_saved(u64::MAX, 1), "Part.step is not valid"),
        (part_saved(1, u64::MAX), "Part.bytes is not valid"),
        (
            Some(Body::PartFailed(v1::PartFailed { trial: "a/0".to_owned(), step: u64::MAX, ..Default::default() })),
            "PartFailed.step is not valid",
        ),
        (
            Some(Body::RollbackRequested(v1::RollbackRequested {
                trial: "a/0".to_owned(),
                step: u64::MAX,
                ..Default::default()
            })),
            "RollbackRequested.step is not valid",
        ),
        (records(None), "StepRecord.point is missing"),
        (records(Some(step(0))), "StepPoint.step is not valid: 0 must be 1 to"),
        (records(Some(step(u64::MAX))), "StepPoint.step is not valid"),
    ];
    for (body, expected) in cases {
        let error = report_from_wire(v1::Report { sequence: 1, body }).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

#[test]
fn a_specification_that_is_not_json_is_refused() {
    assert_eq!(spec_from_json(&spec_to_json(&spec())).unwrap(), spec());
    for bad in ["", "{}", "null", &spec_to_json(&spec()).replace("\"a\"", "\"../x\"")] {
        assert!(spec_from_json(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn a_rank_outside_its_group_is_refused() {
    let mut assign = assignment_to_wire(&Assignment {
        trial: "a/0".parse().unwrap(),
        generation: Generation(1),
        rank: Rank(0),
        members: Vec::new(),
        leaving: Vec::new(),
        spec: spec(),
        until: None,
        start: StartFrom::Scratch,
        recorded: Position::default(),
        skip_updates: Vec::new(),
        state: StateInMemory::Keep,
    });
    assign.rank = 3;
    let command = v1::Command { body: Some(v1::command::Body::Assign(assign)) };
    let error = command_from_wire(command).unwrap_err().to_string();
    assert_eq!(error, "Assign.rank is not valid: rank (3) must be < members (0)");
}

#[test]
fn a_run_is_sent_with_its_newest_evaluations() {
    let measurement = |step| MeasurementView { step: Step(step), eval_loss: 0.5.into(), eval_accuracy: 0.25.into() };
    let shown = |count: u64| {
        let view = RunView {
            sweep: None,
            parent: None,
            name: "a".parse().unwrap(),
            state: RunState::Running,
            reason: String::new(),
            generation: Generation(1),
            members: Vec::new(),
            workers_wanted: 1,
            priority: 0,
            step: Step(count),
            measurements: (1..=count).map(measurement).collect(),
            checkpoints: Vec::new(),
            submitted_at: domain::ids::Time(0),
            ended_at: None,
            failures: 0,
            groups: Vec::new(),
        };
        let run = run_to_wire(&RunPicture { view, spec: spec().into(), newest: None, data: None, changed: 0 });
        run.evals.iter().map(|eval| eval.step).collect::<Vec<_>>()
    };
    let most = EVALS_SHOWN_MAX as u64;
    for (count, expected) in [(1, 1..=1), (most, 1..=most), (most + 7, 8..=most + 7)] {
        assert_eq!(shown(count), expected.collect::<Vec<_>>(), "{count} evaluations");
    }
}

/// The largest step there can be: its record must fit a message.
#[test]
fn a_record_of_the_largest_batch_fits_a_message() {
    let samples = vec![u64::MAX; domain::spec::file::GLOBAL_BATCH_MAX as usize / (1 << 16)];
    let read = Read { micro_batch: u32::MAX, worker: WorkerId(u64::MAX), samples };
    let record = Record::Step(StepRecord {
        step: Step(1),
        generation: Generation(1),
        loss: 0.0,
        grad_norm: 0.0,
        lr: 0.0,
        skipped: false,
        micros: 0,
        micros_outside_model: 0,
        reads: vec![read; 1 << 16],
    });
    assert!(record_bytes_max(&record) < crate::MESSAGE_BYTES_MAX, "{} bytes", record_bytes_max(&record));
}
