//! How fast a study dispatches and how much memory a trial takes: `study_bench [TRIALS]`, 100000 unless told.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::time::Instant;

use domain::search::scheduler::{AshaSpec, HyperbandSpec, MedianSpec, NoneSpec, SchedulerSpec};
use domain::search::searcher::SearcherSpec;
use domain::search::study::Limits;
use domain::search::study::simulate::{PowerLaw, simulate};
use domain::search::{Domain, Parameter, Space, Study, StudySpec};

fn main() {
    let trials = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let parameter = |index| Parameter {
        path: format!("parameter_{index}"),
        domain: Domain::Uniform { low: 0.0, high: 1.0 },
        when: None,
    };
    let space = Space::new((0..8).map(parameter).collect());
    let schedulers = [
        ("none", SchedulerSpec::None(NoneSpec { max: 1 })),
        ("asha", SchedulerSpec::Asha(AshaSpec::default())),
        ("hyperband", SchedulerSpec::Hyperband(HyperbandSpec::default())),
        ("median", SchedulerSpec::Median(MedianSpec { max: 20, interval: 2, ..MedianSpec::default() })),
    ];
    for (name, scheduler) in schedulers {
        for slots in [16, 1024] {
            let limits = Limits { trials: Some(trials), ..Limits::default() };
            let spec = StudySpec {
                searcher: SearcherSpec::Random,
                scheduler: scheduler.clone(),
                limits,
                lock_step: None,
                prior: Vec::new(),
            };
            let mut study = Study::new(spec, space.clone(), 1);
            let begin = Instant::now();
            let timeline = simulate(&mut study, slots, &mut PowerLaw::new(&space, 1));
            let seconds = begin.elapsed().as_secs_f64();
            println!(
                "{name:<9} {slots:>4} slots: {:>8.0} trials/s, {:>8.0} portions/s, {:>5} bytes a trial, use {:.4}",
                f64::from(timeline.trials) / seconds,
                timeline.portions as f64 / seconds,
                study.bytes() / timeline.trials as usize,
                timeline.utilisation(slots),
            );
        }
    }
}
