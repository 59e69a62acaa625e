use domain::batch::Length;

use super::*;
use crate::Dataset;
use crate::fixture::{Folder, number, spec};

/// 30 training samples.
fn split(folder: &Folder) -> Arc<Split> {
    Arc::new(Dataset::open(&spec(folder.numbered(40, 4)), 1).unwrap().train)
}

fn plan(length: Length) -> BatchPlan {
    BatchPlan { seed: 9, samples: 30, global_batch: 8, micro_batches: 4, length }
}

const AUGMENT: AugmentSpec = AugmentSpec { shift: 0, flip: true };

fn all_from(split: &Arc<Split>, plan: BatchPlan, owned: Range<u32>, first: u64, ahead: usize) -> Vec<Step> {
    let mut prefetcher = Prefetcher::new(split.clone(), plan, AUGMENT, owned, first, ahead).unwrap();
    let mut steps = Vec::new();
    loop {
        match prefetcher.next() {
            Ok(step) => steps.push(step),
            Err(DataError::NoMoreSteps { last_step }) => {
                assert_eq!(last_step, plan.total_steps());
                // It stays so.
                assert!(matches!(prefetcher.next(), Err(DataError::NoMoreSteps { .. })));
                return steps;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn steps_come_in_order_with_the_samples_of_the_plan() {
    let folder = Folder::new();
    let split = split(&folder);
    let plan = plan(Length::Epochs(3));
    let steps = all_from(&split, plan, 0..4, 0, 2);
    assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    for (step, micro_batches) in &steps {
        assert_eq!(micro_batches.iter().map(|m| m.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for MicroBatch { index, samples, batch } in micro_batches {
            let positions = plan.micro_batch_positions(*step, *index);
            assert_eq!(*samples, plan.samples_at(positions.clone()));
            // Images may be mirrored; the two bytes of their number may then have changed places.
            let plain = split.batch(samples, None).unwrap();
            for (got, plain) in batch.images.chunks_exact(2).zip(plain.images.chunks_exact(2)) {
                assert!(number(got) == number(plain) || number(&[got[1], got[0]]) == number(plain));
            }
            let epochs: Vec<u64> = positions.map(|p| p / 30).collect();
            let augment = Augmentation { seed: 9, spec: AUGMENT, epochs: &epochs };
            assert_eq!(*batch, split.batch(samples, Some(augment)).unwrap());
        }
    }
}

#[test]
fn a_resumed_or_divided_run_gets_the_same_batches() {
    let folder = Folder::new();
    let split = split(&folder);
    let plan = plan(Length::Steps(9));
    let whole = all_from(&split, plan, 0..4, 0, 1);
    for first in [0, 1, 5, 8, 9, 20] {
        assert_eq!(
            all_from(&split, plan, 0..4, first, 3),
            whole[whole.len().min(first as usize)..],
            "from step {first}"
        );
    }
    let (left, right) = (all_from(&split, plan, 0..3, 0, 1), all_from(&split, plan, 3..4, 0, 0));
    let joined: Vec<Step> = left.into_iter().zip(right).map(|((step, l), (_, r))| (step, [l, r].concat())).collect();
    assert_eq!(joined, whole);
}

#[test]
fn the_last_step_of_a_run_in_epochs_may_be_short() {
    let folder = Folder::new();
    let steps = all_from(&split(&folder), plan(Length::Epochs(1)), 0..4, 0, 1);
    let sizes = |(_, micro_batches): &Step| micro_batches.iter().map(|m| m.samples.len()).collect::<Vec<_>>();
    assert_eq!(steps.iter().map(sizes).collect::<Vec<_>>(), [[2; 4], [2; 4], [2; 4], [2, 2, 2, 0]]);
    let (_, last) = &steps[3];
    assert_eq!((last[3].batch.shape, last[3].batch.images.len()), ([0, 1, 1, 2], 0));
}

#[test]
fn dropping_it_ends_the_thread() {
    let folder = Folder::new();
    let split = split(&folder);
    for taken in [0, 1, 3] {
        let endless = plan(Length::Steps(1 << 30));
        let mut prefetcher = Prefetcher::new(split.clone(), endless, AUGMENT, 0..4, 0, 2).unwrap();
        for step in 0..taken {
            assert_eq!(prefetcher.next().unwrap().0, step);
        }
        drop(prefetcher);
        // The thread held the only other handle.
        assert_eq!(Arc::strong_count(&split), 1);
    }
}
