//! What is shown of the inside of the model: the same from any group, and without a trace in the result.

use domain::inspection::Inspection;

use super::*;

/// The digits, looked at after every fourth step.
fn inspected() -> JobSpec {
    let inspect = InspectSpec { every: Every::Steps(4), histograms: true, attention: true };
    JobSpec { inspect: Some(inspect), ..digits() }
}

/// What was sent, in order, and that it came before the records of its steps.
fn seen(cluster: &Cluster) -> Vec<Inspection> {
    let mut newest = Step(0);
    let mut seen = Vec::new();
    for (_, report) in &cluster.seen {
        match report {
            Report::Records { records, .. } => newest = records.last().map_or(newest, |last| last.position().step),
            Report::Inspected { inspection, .. } => {
                assert!(newest < inspection.step, "the record of step {newest} came before what was seen at it");
                seen.push((**inspection).clone());
            }
            _ => {}
        }
    }
    seen
}

fn run(spec: JobSpec, world: usize) -> (Outcome, Vec<Inspection>) {
    let mut cluster = Cluster::new(spec, world);
    cluster.assign(&(0..world).collect::<Vec<_>>(), StateInMemory::Keep);
    let outcome = Outcome::of(&mut cluster);
    let seen = seen(&cluster);
    (outcome, seen)
}

#[test]
fn what_is_seen_does_not_depend_on_the_group_and_changes_nothing() {
    let plain = Outcome::undisturbed(digits(), 1);
    let (alone, seen) = run(inspected(), 1);
    assert_eq!(alone, plain, "the result is that of a run that nobody looks into");
    assert_eq!(seen.iter().map(|inspection| inspection.step.0).collect::<Vec<_>>(), [4, 8, 12]);
    for world in [2, 3] {
        let (outcome, others) = run(inspected(), world);
        assert_eq!((outcome, others), (plain.clone(), seen.clone()), "{world} workers");
    }

    let last = &seen[2];
    assert_eq!(last.check(), Ok(()));
    let layout = models::Layout::new(&inspected().model);
    assert_eq!(last.tensors.len(), layout.parameters().len());
    let gradient = |inspection: &Inspection| inspection.tensors.iter().map(|t| t.gradient.std).sum::<f64>();
    assert!(gradient(last) > 0.0 && seen[0].tensors != last.tensors, "they change from step to step");
    let attention = last.attention.as_ref().unwrap();
    assert_eq!((attention.samples.len(), attention.layers.len()), (4, 1));
    let layer = &attention.layers[0];
    assert_eq!((layer.heads, layer.queries, layer.block, layer.patterns.len()), (2, 4, 1, 8));
    for pattern in &layer.patterns {
        let cells: Vec<f32> = pattern.values().collect();
        assert!(cells.chunks(4).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4), "{cells:?}");
    }
    let sample = &attention.samples[0];
    assert_eq!((sample.width, sample.height, sample.channels, sample.pixels.len()), (8, 8, 1, 64));
    // Digits have 17 levels of grey.
    let levels: Vec<u8> = (0..=16).map(|level| (f32::from(level as u8) / 16.0 * 255.0).round() as u8).collect();
    assert!(attention.samples.iter().flat_map(|sample| &sample.pixels).all(|pixel| levels.contains(pixel)));
}

#[test]
fn the_norm_of_the_gradient_is_that_of_what_is_shown() {
    let mut cluster = Cluster::new(inspected(), 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    cluster.until_ended();
    let (steps, _) = cluster.records();
    for inspection in seen(&cluster) {
        let squares = |t: &domain::inspection::TensorHistograms| {
            t.gradient.finite() as f64 * (t.gradient.std.powi(2) + t.gradient.mean.powi(2))
        };
        let norm = inspection.tensors.iter().map(squares).sum::<f64>().sqrt();
        let record = steps.iter().find(|record| record.step == inspection.step).unwrap();
        assert!((norm / record.grad_norm - 1.0).abs() < 1e-9, "{norm} and {}", record.grad_norm);
    }
}

#[test]
fn only_what_is_asked_for_is_shown() {
    for (histograms, attention) in [(true, false), (false, true)] {
        let inspect = Some(InspectSpec { every: Every::Steps(10), histograms, attention });
        let (_, seen) = run(JobSpec { inspect, ..digits() }, 1);
        let [inspection] = &seen[..] else { panic!("{} times", seen.len()) };
        assert_eq!((inspection.tensors.is_empty(), inspection.attention.is_none()), (!histograms, !attention));
    }
}
