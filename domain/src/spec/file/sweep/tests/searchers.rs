use super::*;
use crate::search::study::AfterFailure;
use crate::search::warm_start::Prior;
use crate::search::{Next, SearcherSpec as Searcher};
use crate::spec::sweep::{CmaEsOptions, Nsga2Options};

#[test]
fn options_of_searchers_are_read() {
    let searcher = |text: &str| read_ok(&format!("{SHORTEST}searcher: {{{text}}}\n")).searcher;
    assert_eq!(searcher("type: cma_es"), SearcherSpec::CmaEs(CmaEsOptions { population: None, sigma: 1.0 / 6.0 }));
    assert_eq!(
        searcher("type: cma_es, population: 9, sigma: 0.25"),
        SearcherSpec::CmaEs(CmaEsOptions { population: Some(9), sigma: 0.25 })
    );
    assert_eq!(searcher("type: nsga2"), SearcherSpec::Nsga2(Nsga2Options::default()));
    assert_eq!(
        searcher("type: nsga2, population: 6, crossover_probability: 0.5, mutation_probability: 0.1"),
        SearcherSpec::Nsga2(Nsga2Options {
            population: 6,
            crossover_probability: 0.5,
            mutation_probability: Some(0.1)
        })
    );
    let spec = read_ok(&format!("{SHORTEST}searcher: {{type: nsga2, population: 6}}\nwarm_start: earlier\n"));
    assert_eq!(spec.warm_start.len(), 1);
    let (study, _) = spec.study_spec().unwrap();
    let Searcher::Nsga2(options) = study.searcher else { panic!("{study:?}") };
    assert_eq!((options.population, options.crossover_probability), (6, 0.9));
}

#[test]
fn an_earlier_sweep_is_taken_as_far_as_it_fits() {
    let mut spec = read_ok(&format!("{SHORTEST}warm_start: earlier\n"));
    let earlier = read_ok(&SHORTEST.replace("1e-2]", "1]").replace("name: sweep", "name: earlier"));
    let (mut study, _) = earlier.study().unwrap();
    let mut finished = 0;
    while let Next::Start { trial, target, .. } = study.next() {
        if trial == 1 {
            while let AfterFailure::Retry { .. } = study.failed(trial, "why") {}
            continue;
        }
        study.rested(trial, target, &[f64::from(trial)]);
        finished += 1;
    }
    let mut prior = Prior::default();
    prior.add(&spec, &earlier, &study);
    assert_eq!((finished, prior.observations.len() as u32 + prior.left_out), (2, 2), "the failed one does not count");
    assert!(!prior.observations.is_empty() && prior.left_out > 0, "{prior:?}");
    spec.prior = prior.observations.clone();
    assert_eq!(check::check(&spec), Ok(()));
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<SweepSpec>(&json).unwrap(), spec);
    assert_eq!(spec.study_spec().unwrap().0.prior, spec.prior);
    // Of other objectives, or of another unit, nothing fits.
    let steps = |path: &Path| load(path).map(|job| job.replace("epochs: 100", "steps: 100"));
    let others = [
        read_ok(&format!("{SHORTEST}objectives: [eval_accuracy]\n")),
        read(SHORTEST, "s/sweep.yaml", Path::new("/base"), steps).unwrap(),
    ];
    for other in others {
        let mut prior = Prior::default();
        prior.add(&other, &earlier, &study);
        assert_eq!((prior.observations.len(), prior.left_out), (0, 2));
    }
    spec.space = earlier.space;
    spec.prior[0].losses.push(1.0.into());
    assert!(check::check(&spec).unwrap_err().to_string().ends_with("prior: holds a trial that does not fit"));
}

#[test]
fn each_mistake_has_its_place() {
    check_edits(
        SHORTEST,
        &[
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: cma_es, population: 3}",
                "6:38: searcher.population: must be a whole number from 4 to 1000000 (3)",
            ),
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: cma_es, sigma: 0}",
                "6:33: searcher.sigma: must be a number > 0 and <= 1 (0)",
            ),
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: cma_es}\nobjectives: [eval_accuracy, eval_loss]",
                "7:13: objectives: must be one metric for the searcher cma_es: nsga2, tpe and gaussian_process know several (a list of 2)",
            ),
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: nsga2, mutation_probability: 2}",
                "6:47: searcher.mutation_probability: must be a number >= 0 and <= 1 (2)",
            ),
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: nsga2, sigma: 1}",
                "6:25: searcher.sigma: unknown key\n  hint: known keys: crossover_probability, mutation_probability, population, type",
            ),
            (
                "trials: 3",
                "trials: 3\nsearcher: {type: random}\nwarm_start: earlier",
                "7:13: warm_start: has no use for the searcher random, which does not learn from results (\"earlier\")",
            ),
            ("trials: 3", "trials: 3\nwarm_start: [a, a]", "6:17: warm_start[1]: a stands here twice (\"a\")"),
            ("trials: 3", "trials: 3\nwarm_start: [sweep]", "6:14: warm_start[0]: is this sweep itself (\"sweep\")"),
            (
                "trials: 3",
                "trials: 3\nwarm_start: a b",
                "6:13: warm_start: may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit (\"a b\")",
            ),
            (
                "trials: 3",
                "trials: 3\nwarm_start: {a: 1}",
                "6:13: warm_start: must be the name of a sweep, or a list of names (a section of 1 keys)",
            ),
        ],
    );
}
