use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use domain::ids::{Generation, RunName, Step};
use domain::series::Sampler;
use tokio::time::Instant;

/// Charts that are kept. One of 5,000 points takes less than a megabyte.
const CHARTS_MAX: usize = 16;

/// What a chart is of: a run from a step on, in at most so many points.
type Key = (RunName, Step, usize);

/// Charts that somebody has looked at, to be gone on with: a run of a million steps is read once, and then only what is
/// new of it. Requests are answered on many threads and share the charts, hence the lock; a chart is taken out to be gone on
/// with and put back, so it is held for a move of memory only.
#[derive(Debug, Default)]
pub(super) struct Samplers(Mutex<BTreeMap<Key, Kept>>);

#[derive(Debug)]
struct Kept {
    /// The generation of the run's group: a newer one may have taken steps back.
    generation: Generation,
    sampler: Sampler,
    used: Instant,
}

impl Samplers {
    /// Takes out a chart that `empty` would become, with what it has up to step `to`; `empty` if there is none.
    pub(super) fn take(&self, key: &Key, generation: Generation, to: Step, empty: Sampler) -> Sampler {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let is_whole = |sampler: &Sampler| {
            let through = sampler.through().unwrap_or_default();
            // A record that arrives late could fill a gap.
            let has_gap = key.1.0 + sampler.steps() != through.0 + 1;
            through <= to && sampler.width() == empty.width() && !has_gap
        };
        let usable = kept.filter(|kept| kept.generation == generation && is_whole(&kept.sampler));
        usable.map_or(empty, |kept| kept.sampler)
    }

    /// Keeps a chart for whoever asks next.
    pub(super) fn keep(&self, key: Key, generation: Generation, sampler: Sampler) {
        let mut charts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if charts.len() >= CHARTS_MAX && !charts.contains_key(&key) {
            let oldest = charts.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| charts.remove(&oldest));
        }
        charts.insert(key, Kept { generation, sampler, used: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use domain::record::StepRecord;

    use super::*;

    fn chart(from: u64, to: u64, points: usize, steps: impl Iterator<Item = u64>) -> Sampler {
        let mut sampler = Sampler::new(Step(from), Step(to), points);
        for step in steps {
            let record = StepRecord {
                step: Step(step),
                generation: Generation(1),
                loss: 0.5,
                grad_norm: 0.5,
                lr: 0.5,
                skipped: false,
                micros: 1,
                micros_outside_model: 1,
                reads: Vec::new(),
            };
            sampler.observe(&record, None);
        }
        sampler
    }

    #[test]
    fn a_chart_is_gone_on_with_while_it_would_come_out_the_same() {
        let samplers = Samplers::default();
        let key = |from: u64| -> Key { ("a".parse().unwrap(), Step(from), 10) };
        let whole = || chart(3, 40, 10, 3..=38);
        for (kept, generation, to, is_used) in [
            (whole(), 1, 40, true),
            (whole(), 2, 40, false),
            (whole(), 1, 37, false),
            (whole(), 1, 200, false),
            (chart(3, 40, 10, (3..=20).chain(22..=38)), 1, 40, false),
        ] {
            samplers.keep(key(3), Generation(1), kept);
            let taken = samplers.take(&key(3), Generation(generation), Step(to), Sampler::new(Step(3), Step(to), 10));
            assert_eq!(taken.steps() == 36, is_used, "generation {generation} to step {to}");
            let again = samplers.take(&key(3), Generation(1), Step(40), Sampler::new(Step(3), Step(40), 10));
            assert_eq!(again.steps(), 0, "it was taken out");
        }
        (0..99).for_each(|from| samplers.keep(key(from), Generation(1), whole()));
        assert_eq!(samplers.0.lock().unwrap().len(), CHARTS_MAX);
    }
}
