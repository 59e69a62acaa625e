//! Inspections: what is kept, what is dropped, and what is rolled back.

use domain::ids::{Generation, Step, Time};
use domain::inspection::{
    Attention, AttentionLayer, BUCKETS, Histogram, Inspection, Pattern, Sample, TensorHistograms,
};
use store::{INSPECTIONS_MAX, Store, StoreError};

use crate::fixtures::run;

fn inspection(step: u64, generation: u64) -> Inspection {
    let mut counts = vec![0; BUCKETS];
    counts[5] = 5;
    counts[63] = 1;
    let histogram = Histogram {
        low: -0.1 * step as f64,
        high: 0.1 + 0.2,
        counts,
        min: -0.1 * step as f64,
        max: 0.1 + 0.2,
        mean: 1e-300,
        std: 1.0 / 3.0,
        zeros: 2,
        non_finite: 0,
    };
    let tensor = |name: &str| TensorHistograms {
        name: name.to_owned(),
        shape: vec![2, 3],
        weights: histogram.clone(),
        gradient: histogram.clone(),
    };
    let sample = Sample { label: 3, width: 2, height: 1, channels: 3, pixels: (0..6).collect() };
    let layer = AttentionLayer {
        name: "layer".to_owned(),
        heads: 2,
        queries: 2,
        keys: 2,
        block: 1,
        patterns: vec![Pattern { peak: 0.1, cells: vec![0, 65_535, 7, 9] }; 2],
    };
    let inspection = Inspection {
        step: Step(step),
        generation: Generation(generation),
        tensors: vec![tensor("a"), tensor("b")],
        tensors_left_out: 7,
        attention: step.is_multiple_of(2).then(|| Attention { samples: vec![sample], layers: vec![layer] }),
    };
    assert_eq!(inspection.check(), Ok(()));
    inspection
}

/// Step, generation, and whether it was rolled back.
async fn kept(store: &Store, name: &str) -> Vec<(u64, u64, bool)> {
    let entries = store.inspections(&run(name)).await.unwrap();
    entries.iter().map(|entry| (entry.step.0, entry.generation.0, entry.rolled_back)).collect()
}

#[tokio::test]
async fn an_inspection_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let name = run("a");
    for step in [1, 2] {
        store.insert_inspection(&name, Time(7), inspection(step, 1)).await.unwrap();
    }
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    for step in [1, 2] {
        let (entry, found) = store.inspection(&name, Step(step), None).await.unwrap().unwrap();
        assert_eq!((entry.at, entry.rolled_back, found), (Time(7), false, inspection(step, 1)));
    }
    assert!(store.inspection(&name, Step(3), None).await.unwrap().is_none());
    assert!(store.inspection(&run("b"), Step(1), None).await.unwrap().is_none());
    let tensors = store.histograms(&name, "b".to_owned()).await.unwrap();
    let expected: Vec<_> = [1, 2].map(|step| inspection(step, 1).tensors[1].clone()).to_vec();
    assert_eq!(tensors.into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>(), expected);
    assert!(store.histograms(&name, "c".to_owned()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_rolled_back_is_kept_and_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let name = run("a");
    for step in [2, 4, 6] {
        store.insert_inspection(&name, Time(1), inspection(step, 1)).await.unwrap();
    }
    // One of a step that counts changes nothing, whoever made it.
    for generation in [1, 2] {
        store.insert_inspection(&name, Time(2), inspection(6, generation)).await.unwrap();
    }
    assert_eq!(kept(&store, "a").await, [(2, 1, false), (4, 1, false), (6, 1, false)]);
    store.roll_back(&name, Step(3), Generation(2)).await.unwrap();
    store.insert_inspection(&name, Time(3), inspection(4, 2)).await.unwrap();
    // It comes late, from before the roll-back.
    store.insert_inspection(&name, Time(4), inspection(8, 1)).await.unwrap();
    let all = [(2, 1, false), (4, 1, true), (4, 2, false), (6, 1, true), (8, 1, true)];
    assert_eq!(kept(&store, "a").await, all);
    let steps: Vec<u64> =
        store.histograms(&name, "a".to_owned()).await.unwrap().iter().map(|(entry, _)| entry.step.0).collect();
    assert_eq!(steps, [2, 4]);
    let generation = async |generation: Option<u64>| {
        let found = store.inspection(&name, Step(4), generation.map(Generation)).await.unwrap();
        found.map(|(_, inspection)| inspection.generation.0)
    };
    assert_eq!(
        [generation(None).await, generation(Some(1)).await, generation(Some(3)).await],
        [Some(2), Some(1), None]
    );
    assert!(store.inspection(&name, Step(6), None).await.unwrap().is_none());

    // In the order in which they were stored, and only what counts, up to a step.
    let mut next = Vec::new();
    let mut after = 0;
    while let Some((entry, _)) = store.next_inspection(&name, after, Step(5)).await.unwrap() {
        after = entry.sequence;
        next.push((entry.step.0, entry.generation.0));
    }
    assert_eq!(next, [(2, 1), (4, 2)]);
}

#[tokio::test]
async fn only_the_newest_of_each_run_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.insert_inspection(&run("b"), Time(1), inspection(1, 1)).await.unwrap();
    for step in 1..=INSPECTIONS_MAX + 5 {
        store.insert_inspection(&run("a"), Time(1), inspection(step, 1)).await.unwrap();
    }
    let steps: Vec<u64> = kept(&store, "a").await.iter().map(|(step, _, _)| *step).collect();
    assert_eq!(steps, (6..=INSPECTIONS_MAX + 5).collect::<Vec<_>>());
    assert_eq!(kept(&store, "b").await.len(), 1);
}

#[tokio::test]
async fn what_is_damaged_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.insert_inspection(&run("a"), Time(1), inspection(2, 1)).await.unwrap();
    drop(store);
    let file = rusqlite::Connection::open(folder.path().join("phalanx.db")).unwrap();
    file.execute_batch("UPDATE inspections SET histograms = x'1f8b0800000000000003'").unwrap();
    drop(file);
    let (store, _) = Store::open(folder.path()).unwrap();
    let found = store.inspection(&run("a"), Step(2), None).await;
    assert!(matches!(&found, Err(StoreError::DamagedInspection { step: 2, .. })), "{found:?}");
    assert_eq!(kept(&store, "a").await.len(), 1);
}
