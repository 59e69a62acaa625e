use super::*;
use crate::search::{Condition, Configuration, Constraint, Domain, Parameter, Value};

fn parameter(path: &str, domain: Domain) -> Parameter {
    Parameter { path: path.to_owned(), domain, when: None }
}

fn cube(dimension: usize) -> Space {
    let unit = Domain::Uniform { low: 0.0, high: 1.0 };
    Space::new((0..dimension).map(|index| parameter(&format!("x{index}"), unit.clone())).collect())
}

/// Plays so many trials, of which `pending` are always under way, and returns their points and losses.
fn play(
    searcher: &mut Nsga2,
    space: &Space,
    trials: u32,
    pending: u32,
    losses: &dyn Fn(&[f64]) -> Vec<f64>,
) -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut played: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for number in 0..trials + pending {
        let point = searcher.propose(space, number);
        let losses = losses(&point);
        played.push((point, losses));
        if let Some(finished) = number.checked_sub(pending) {
            searcher.observe(finished, 1, &played[finished as usize].1);
            searcher.close(finished);
        }
    }
    played
}

/// ZDT1 (Zitzler, Deb and Thiele 2000).
fn zdt1(x: &[f64]) -> Vec<f64> {
    let g = 1.0 + 9.0 * x[1..].iter().sum::<f64>() / (x.len() - 1) as f64;
    vec![x[0], g * (1.0 - libm::sqrt(x[0] / g))]
}

#[test]
fn it_finds_the_front_of_two_objectives_and_repeats_itself() {
    let space = cube(6);
    let area = |played: &[(Vec<f64>, Vec<f64>)]| {
        pareto::hypervolume(&played.iter().map(|(_, losses)| losses.as_slice()).collect::<Vec<_>>(), [1.1, 1.1])
    };
    let mut random = crate::search::random::Random::new(1);
    let by_chance: Vec<_> =
        (0..400).map(|number| random.propose(&space, number)).map(|x| (zdt1(&x), zdt1(&x))).collect();
    for pending in [0, 8] {
        let run = |seed| play(&mut Nsga2::new(Nsga2Spec::default(), &space, seed), &space, 400, pending, &zdt1);
        let played = run(0);
        assert_eq!(played, run(0));
        assert_ne!(played, run(1));
        assert!(played.iter().flat_map(|(point, _)| point).all(|x| (0.0..1.0).contains(x)));
        // With as many trials pymoo reaches 0.43 on average (0.21 to 0.68), Optuna 0.44; the whole front has 0.88.
        let mean = (0..6).map(|seed| area(&run(seed))).sum::<f64>() / 6.0;
        assert!(mean > 0.3, "{mean} with {pending} pending");
        assert!(area(&by_chance) < 0.1, "{}", area(&by_chance));
    }
}

#[test]
fn with_one_objective_it_finds_the_bottom_of_a_bowl() {
    let space = cube(3);
    let bowl = |x: &[f64]| vec![x.iter().map(|x| (x - 0.3).powi(2)).sum()];
    let played = play(&mut Nsga2::new(Nsga2Spec::default(), &space, 1), &space, 400, 4, &bowl);
    let best = played.iter().map(|(_, losses)| losses[0]).fold(1.0, f64::min);
    assert!(best < 1e-3, "{best}");
}

#[test]
fn children_are_admitted_and_unlike_their_parents() {
    let words = ["a", "b", "c"].map(|word| Value::Text(word.to_owned())).to_vec();
    let when = Some(Condition { path: "kind".to_owned(), values: vec![words[1].clone()] });
    let space = Space::new(vec![
        parameter("n", Domain::Integer { low: 0, high: 9, step: 1 }),
        parameter("kind", Domain::Categorical { values: words.clone() }),
        Parameter { when, ..parameter("detail", Domain::Integer { low: 0, high: 9, step: 1 }) },
        parameter("order", Domain::Ordinal { values: words }),
        parameter("always", Domain::Constant { value: Value::Integer(1) }),
    ])
    .constrained(vec![Constraint::parse("n % 2 == 0").unwrap()], Configuration::new());
    let mut searcher = Nsga2::new(Nsga2Spec { population: 8, ..Nsga2Spec::default() }, &space, 1);
    let losses = |point: &[f64]| {
        let configuration = space.decode(point);
        let detail = configuration.get("detail").and_then(Value::as_number).unwrap_or(9.0);
        vec![detail, (configuration["n"].as_number().unwrap() - 4.0).abs()]
    };
    let mut played: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for number in 0..200u32 {
        let point = searcher.propose(&space, number);
        assert!(space.admits_point(&point));
        if number >= 8 {
            let same = |parent: &Parent| space.decode(&searcher.history.trial(parent.id).point) == space.decode(&point);
            assert!(!searcher.parents.iter().any(same));
        }
        searcher.observe(number, 1, &losses(&point));
        searcher.close(number);
        played.push((point.clone(), losses(&point)));
    }
    assert!(played.iter().any(|(_, losses)| losses.as_slice() == [0.0, 0.0]), "the best of both is found");
}

#[test]
fn the_best_of_a_generation_and_its_parents_are_the_next_parents() {
    let space = cube(2);
    let mut searcher = Nsga2::new(Nsga2Spec { population: 4, ..Nsga2Spec::default() }, &space, 1);
    let ids = |searcher: &Nsga2| searcher.parents.iter().map(|parent| (parent.id, parent.front)).collect::<Vec<_>>();
    (0..12).for_each(|number| drop(searcher.propose(&space, number)));
    let rest = |searcher: &mut Nsga2, number: u32, losses: [f64; 2]| {
        searcher.observe(number, 1, &losses);
        searcher.pause(number);
        searcher.pause(number);
    };
    for (number, losses) in [(6, [1.0, 4.0]), (2, [4.0, 1.0]), (9, [f64::NAN, 0.0])] {
        rest(&mut searcher, number, losses);
    }
    searcher.pause(77);
    assert!(searcher.parents.is_empty());
    rest(&mut searcher, 0, [5.0, 5.0]);
    assert_eq!(ids(&searcher), [(2, 0), (6, 0), (0, 1)]);
    for (number, losses) in [(1, [2.0, 2.0]), (3, [2.1, 2.1]), (4, [0.5, 6.0])] {
        rest(&mut searcher, number, losses);
    }
    searcher.close(5);
    assert_eq!(
        ids(&searcher).iter().map(|(id, _)| *id).collect::<std::collections::BTreeSet<_>>(),
        [1, 2, 4, 6].into()
    );
}

#[test]
fn an_earlier_search_gives_the_first_parents() {
    let space = cube(2);
    let known = |x: f64| Known { point: vec![x, x], budget: 1, losses: vec![(x - 0.5).abs()] };
    let known: Vec<Known> = (0..40).map(|index| known(f64::from(index) / 40.0)).collect();
    let mut searcher = Nsga2::new(Nsga2Spec { population: 10, ..Nsga2Spec::default() }, &space, 1);
    searcher.import(&space, &known);
    assert_eq!(searcher.parents.len(), 10);
    assert!(searcher.parents.iter().all(|parent| (15..=25).contains(&parent.id)));
    let point = searcher.propose(&space, 0);
    assert!(point.iter().any(|x| (0.3..0.7).contains(x)), "{point:?}");
    // Fewer than a generation are not enough.
    let mut searcher = Nsga2::new(Nsga2Spec::default(), &space, 1);
    searcher.import(&space, &known[..5]);
    assert!(searcher.parents.is_empty());
}
