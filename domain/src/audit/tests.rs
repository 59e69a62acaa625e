use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::batch::Length;
use crate::ids::{Generation, WorkerId};

fn plan(samples: u64, micro_batches: u32, size: u64, length: Length) -> BatchPlan {
    BatchPlan { seed: 5, samples, global_batch: u64::from(micro_batches) * size, micro_batches, length }
}

/// The ledger of a run that did everything right.
fn ledger(plan: &BatchPlan, through: u64) -> Vec<LedgerStep> {
    (1..=through).map(|step| line(plan, step)).collect()
}

fn line(plan: &BatchPlan, step: u64) -> LedgerStep {
    let read = |micro_batch| Read {
        micro_batch,
        worker: WorkerId(u64::from(micro_batch % 2)),
        samples: plan.samples_at(plan.micro_batch_positions(step - 1, micro_batch)),
    };
    let reads = (0..plan.micro_batches).map(read).collect();
    LedgerStep { step: Step(step), generation: Generation(1), rolled_back: false, reads }
}

fn audit(plan: &BatchPlan, lines: &[LedgerStep], through: u64) -> AuditReport {
    let mut auditor = Auditor::new(*plan).unwrap();
    lines.iter().for_each(|line| auditor.observe(line));
    auditor.finish(Step(through))
}

/// (missing, duplicated, foreign, missing steps, repeated steps, unknown steps, reordered micro-batches).
fn wrong(report: &AuditReport) -> [u64; 7] {
    let Tally { missing, duplicated, foreign, .. } = report.total;
    let AuditReport { missing_steps, repeated_steps, unknown_steps, reordered, .. } = *report;
    [missing, duplicated, foreign, missing_steps, repeated_steps, unknown_steps, reordered]
}

/// A member of a population that took over another's checkpoint, twice.
#[test]
fn the_history_of_a_copy_begins_with_its_ancestors() {
    let plan = plan(20, 4, 2, Length::Epochs(2));
    let name = |name: &str| RunName::new(name).unwrap();
    let history = Section::history(name("s.7"), vec![(name("s.4"), Step(3)), (name("s.1"), Step(2))]);
    // The first ancestor went on by itself, and had rolled back a step before; the second stopped.
    let again = LedgerStep { rolled_back: true, ..line(&plan, 2) };
    let ledgers: BTreeMap<RunName, Vec<LedgerStep>> = BTreeMap::from([
        (name("s.1"), [vec![again], ledger(&plan, 5)].concat()),
        (name("s.4"), vec![line(&plan, 3)]),
        (name("s.7"), vec![line(&plan, 4), line(&plan, 5)]),
    ]);
    let lines = |history: &[Section]| -> Vec<LedgerStep> {
        let of = |section: &Section| {
            ledgers[&section.run].iter().filter(|line| section.holds(line)).cloned().collect::<Vec<_>>()
        };
        history.iter().flat_map(of).collect()
    };
    let report = audit(&plan, &lines(&history), 5);
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.steps, report.rolled_back_steps), (5, 0));
    // Its own ledger alone lacks what the ancestors read.
    assert_eq!(audit(&plan, &lines(&history[2..]), 5).missing_steps, 3);
    // A step that nobody made is still found: the second ancestor was copied before it made step 3.
    let gap = Section::history(name("s.7"), vec![(name("s.1"), Step(2))]);
    assert_eq!(audit(&plan, &lines(&gap), 5).missing_steps, 1);
    // And one that both made.
    let twice = Section::history(name("s.7"), vec![(name("s.4"), Step(3)), (name("s.1"), Step(3))]);
    assert_eq!(audit(&plan, &lines(&twice), 5).repeated_steps, 1);
}

#[test]
fn each_planted_fault_is_found_and_named() {
    // Two epochs of 20 samples, 8 a step: step 3 straddles them, step 5 ends the run.
    let plan = plan(20, 4, 2, Length::Epochs(2));
    let good = ledger(&plan, 5);
    type Plant = fn(&mut Vec<LedgerStep>);
    let cases: [(&str, Plant, [u64; 7], &str); 13] = [
        ("nothing", |_| {}, [0; 7], ""),
        (
            "a lost micro-batch",
            |l| drop(l[1].reads.remove(2)),
            [2, 0, 0, 0, 0, 0, 0],
            "step 2: nobody read micro-batch 2",
        ),
        (
            "a micro-batch read by two workers",
            |l| {
                let again = Read { worker: WorkerId(9), ..l[1].reads[2].clone() };
                l[1].reads.push(again);
            },
            [0, 2, 0, 0, 0, 0, 0],
            "step 2: micro-batch 2 was read more than once",
        ),
        (
            "a lost sample",
            |l| l[0].reads[1].samples.truncate(1),
            [1, 0, 0, 0, 0, 0, 0],
            "step 1, micro-batch 1: 1 planned sample(s) left out, 0 foreign sample(s) read",
        ),
        (
            "a sample instead of another",
            |l| l[0].reads[0].samples[0] = l[0].reads[1].samples[0],
            [1, 1, 1, 0, 0, 0, 0],
            "step 1, micro-batch 0: 1 planned sample(s) left out, 1 foreign sample(s) read",
        ),
        (
            "a sample that does not exist",
            |l| l[0].reads[0].samples.push(20),
            [0, 0, 1, 0, 0, 0, 0],
            "step 1, micro-batch 0: 0 planned sample(s) left out, 1 foreign sample(s) read",
        ),
        (
            "two samples swapped between steps of an epoch",
            |l| {
                let kept = l[0].reads[0].samples[0];
                l[0].reads[0].samples[0] = l[1].reads[3].samples[1];
                l[1].reads[3].samples[1] = kept;
            },
            [0, 0, 2, 0, 0, 0, 0],
            "step 1, micro-batch 0: 1 planned sample(s) left out, 1 foreign sample(s) read",
        ),
        (
            "another order",
            |l| l[0].reads[0].samples.swap(0, 1),
            [0, 0, 0, 0, 0, 0, 1],
            "step 1, micro-batch 0: the samples are in another order than planned",
        ),
        ("a lost step", |l| drop(l.remove(1)), [8, 0, 0, 1, 0, 0, 0], "step 2 is not in the ledger"),
        ("the last steps lost", |l| l.truncate(3), [16, 0, 0, 2, 0, 0, 0], "steps 4 to 5 are not in the ledger"),
        (
            "a step twice",
            |l| l.insert(2, l[1].clone()),
            [0, 8, 0, 0, 1, 0, 0],
            "step 2 is in the ledger again or out of order",
        ),
        (
            "a step beyond the end",
            |l| l.push(LedgerStep { step: Step(6), ..l[0].clone() }),
            [0, 8, 8, 0, 0, 1, 0],
            "step 6 does not belong to the run",
        ),
        (
            "a micro-batch beyond the last",
            |l| l[4].reads[0].micro_batch = 4,
            [0, 0, 2, 0, 0, 0, 0],
            "step 5: nobody read micro-batch 0",
        ),
    ];
    for (name, plant, expected, finding) in cases {
        let mut lines = good.clone();
        plant(&mut lines);
        let report = audit(&plan, &lines, 5);
        assert_eq!(wrong(&report), expected, "{name}: {report:#?}");
        assert_eq!(report.is_clean(), expected == [0; 7], "{name}");
        assert_eq!(report.findings.first().map(Finding::to_string).unwrap_or_default(), finding, "{name}");
        assert_eq!(report.total.expected, 40, "{name}");
        assert_eq!(report.epochs.iter().map(|e| e.epoch).collect::<Vec<_>>(), [0, 1], "{name}");
    }
}

#[test]
fn a_run_that_was_stopped_is_measured_by_what_it_says_it_did() {
    let plan = plan(20, 4, 2, Length::Epochs(2));
    let report = audit(&plan, &ledger(&plan, 3), 3);
    assert!(report.is_clean(), "{report:#?}");
    let epoch = |epoch, n| EpochTally { epoch, tally: Tally { expected: n, read: n, ..Tally::default() } };
    assert_eq!(report.epochs, [epoch(0, 20), epoch(1, 4)]);
    assert!(audit(&plan, &[], 0).is_clean());
    assert_eq!(wrong(&audit(&plan, &[], 1)), [8, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn what_was_rolled_back_is_counted_apart() {
    let plan = plan(20, 4, 2, Length::Epochs(2));
    let mut lines = ledger(&plan, 5);
    for at in [3, 2] {
        lines.insert(at, LedgerStep { rolled_back: true, ..lines[at].clone() });
    }
    let report = audit(&plan, &lines, 5);
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!((report.rolled_back_steps, report.rolled_back_samples, report.total.read), (2, 16, 40));
}

#[test]
fn a_hostile_ledger_costs_neither_time_nor_memory() {
    let plan = plan(1, 1, 1, Length::Steps(1 << 34));
    let lines = [LedgerStep { step: Step(1 << 34), ..line(&plan, 1) }];
    let report = audit(&plan, &lines, u64::MAX);
    let skipped = (1 << 34) - 1;
    assert_eq!((report.missing_steps, report.total.missing, report.total.read), (skipped, skipped, 1));
    assert_eq!(
        (report.epochs.len(), report.epochs_unlisted),
        (EPOCHS_LISTED_MAX, (1 << 34) - EPOCHS_LISTED_MAX as u64)
    );
    for (samples, global_batch) in [(0, 1), (SAMPLES_MAX + 1, 1), (1, 0)] {
        let impossible = BatchPlan { samples, global_batch, ..plan };
        assert_eq!(Auditor::new(impossible).unwrap_err(), AuditError::Plan { samples, global_batch });
    }
    let zero = [LedgerStep { step: Step(0), ..line(&plan, 1) }, LedgerStep { step: Step(u64::MAX), ..line(&plan, 1) }];
    assert_eq!(audit(&plan, &zero, 0).unknown_steps, 2);
}

/// The same counts over the whole ledger at once, with sets and maps: (missing, duplicated, foreign).
fn by_definition(plan: &BatchPlan, lines: &[LedgerStep], through: u64) -> (u64, u64, u64) {
    let mut read: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut foreign = 0;
    for (line, r) in lines.iter().flat_map(|line| line.reads.iter().map(move |r| (line, r))) {
        let positions = plan.micro_batch_positions(line.step.0 - 1, r.micro_batch);
        // An empty micro-batch of a short last step has no epoch but that of its step.
        let first = if positions.is_empty() { plan.step_positions(line.step.0 - 1).start } else { positions.start };
        let first_epoch = first / plan.samples;
        let mut planned: Vec<(u64, u64)> =
            positions.map(|p| (plan.samples_at(p..p + 1)[0], p / plan.samples)).collect();
        for sample in &r.samples {
            let epoch = match planned.iter().position(|(s, _)| s == sample) {
                Some(at) => planned.remove(at).1,
                None => {
                    foreign += 1;
                    first_epoch
                }
            };
            *read.entry((epoch, *sample)).or_default() += 1;
        }
    }
    let end = plan.step_positions(through).start;
    let planned: BTreeSet<(u64, u64)> = (0..end).map(|p| (p / plan.samples, plan.samples_at(p..p + 1)[0])).collect();
    let missing = planned.iter().filter(|at| !read.contains_key(at)).count() as u64;
    let duplicated = read.iter().filter(|((_, sample), _)| *sample < plan.samples).map(|(_, times)| times - 1).sum();
    (missing, duplicated, foreign)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_run_as_planned_is_clean(samples in 1u64..60, micro in 1u32..6, size in 1u64..6, epochs in 1u64..4, cut in 0u64..9) {
        let plan = plan(samples, micro, size, Length::Epochs(epochs));
        let through = plan.total_steps().saturating_sub(cut);
        let report = audit(&plan, &ledger(&plan, through), through);
        prop_assert!(report.is_clean(), "{:#?}", report);
        let positions = plan.step_positions(through).start;
        prop_assert_eq!((report.total.expected, report.total.read), (positions, positions));
    }

    #[test]
    fn whatever_happens_to_the_samples_the_counts_are_those_of_the_definition(
        samples in 1u64..40, micro in 1u32..5, size in 1u64..5, epochs in 1u64..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..5, 0u64..45), 0..12),
    ) {
        let plan = plan(samples, micro, size, Length::Epochs(epochs));
        let through = plan.total_steps();
        let good = ledger(&plan, through);
        let mut lines = good.clone();
        for (line, read, change, sample) in changes {
            let line = line.index(lines.len());
            if lines[line].reads.is_empty() {
                continue;
            }
            let read = read.index(lines[line].reads.len());
            let samples = &mut lines[line].reads[read].samples;
            match change {
                0 => samples.truncate(samples.len().saturating_sub(1)),
                1 => samples.push(sample),
                2 => samples.reverse(),
                3 => if let Some(first) = samples.first_mut() { *first = sample },
                _ => drop(lines[line].reads.remove(read)),
            }
        }
        let report = audit(&plan, &lines, through);
        let Tally { missing, duplicated, foreign, expected, read } = report.total;
        prop_assert_eq!((missing, duplicated, foreign), by_definition(&plan, &lines, through));
        prop_assert_eq!(expected, plan.total_positions());
        let in_ledger: usize = lines.iter().flat_map(|l| &l.reads).map(|r| r.samples.len()).sum();
        prop_assert_eq!(read, in_ledger as u64);
        let same = lines.iter().zip(&good).all(|(a, b)| {
            let full = |l: &LedgerStep| l.reads.iter().filter(|r| !r.samples.is_empty()).cloned().collect::<Vec<_>>();
            full(a) == full(b)
        });
        prop_assert_eq!(report.is_clean(), same);
        let mut sum = Tally::default();
        report.epochs.iter().for_each(|epoch| sum.add(epoch.tally));
        prop_assert_eq!(sum, report.total);
    }
}
