//! Tree-structured Parzen Estimator (Bergstra et al. 2011), in its multivariate form (Falkner et al. 2018; Watanabe 2023).
//!
//! The finished trials are split into the few best and the others. Each set gives a density over the unit cube, and the
//! next point is the one of many drawn from the good density at which it exceeds the other one most: that maximises the
//! expected improvement. Pending trials count among the others (the "constant liar"), so that parallel trials spread out.

mod parzen;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::parzen::{Observed, Parzen, Width};
use super::history::History;
use super::warm_start::Known;
use super::{Choice, Space, pareto, spread};
use crate::random::{Purpose, Stream};

/// How the estimator works; `bench/search.py` measures the defaults, which are mostly Optuna's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TpeSpec {
    /// So many trials must have a result before the model is used; until then points are spread evenly. Of the first so many,
    /// and of every second further one, more lie in the middle.
    pub startup: u32,
    /// Points drawn for one proposal.
    pub candidates: u32,
    /// Share of the finished trials that counts as good, rounded up.
    pub good_share: f64,
    /// The most trials that count as good.
    pub good_most: u32,
    /// The most other trials that are modelled; of more, so many spread evenly over their ranks.
    pub others_most: u32,
    /// Weight of the uniform prior, as observed points.
    pub prior_weight: f64,
    /// Least width of a kernel, as a share of the side of the cube.
    pub least_width: f64,
}

impl Default for TpeSpec {
    fn default() -> Self {
        Self {
            startup: 10,
            candidates: 24,
            good_share: 0.1,
            good_most: 25,
            others_most: 300,
            prior_weight: 1.0,
            least_width: 0.01,
        }
    }
}

/// So many of the newest trials count fully.
const NEWEST: usize = 25;

/// At most so many times as many points are drawn if none of them is admitted and new.
const MORE: u32 = 8;

/// The standard deviation of the first points, as a share of the side of the cube.
const CENTRAL: f64 = 0.3;

/// The searcher.
#[derive(Clone, Debug)]
pub struct Tpe {
    spec: TpeSpec,
    seed: u64,
    choices: Vec<Choice>,
    history: History,
    /// The cells that were proposed, in a space of nothing but cells: a second trial there would end as the first one.
    tried: BTreeSet<Vec<u64>>,
}

impl Tpe {
    /// A searcher of `space` that has seen nothing.
    pub fn new(spec: TpeSpec, space: &Space, seed: u64) -> Self {
        let choices = space.parameters().iter().map(|p| p.domain.choice()).collect();
        let history = History::new(spec.startup as usize);
        Self { spec, seed, choices, history, tried: BTreeSet::new() }
    }

    /// Takes what is known from earlier sweeps, before the first proposal.
    pub fn import(&mut self, space: &Space, known: &[Known]) {
        self.history.import(space, known);
    }

    /// The point that trial `number` tries; it is pending from then on.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        let mut stream = Stream::new(self.seed, Purpose::Search, &[u64::from(number), 0]);
        let is_modelled = self.history.finite() >= 1 && self.history.ranked().len() >= self.spec.startup as usize;
        let point = if is_modelled { self.most_promising(space, &mut stream) } else { self.central(space, number) };
        let active = space.active(&point);
        self.tried.extend(self.cells(&point, &active));
        self.history.add(number, point.clone(), active);
        point
    }

    /// A result of a trial at a budget; may come several times with rising budgets.
    pub fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        self.history.observe(number, budget, losses);
    }

    /// The trial will report no more: it is no longer pending.
    pub fn close(&mut self, number: u32) {
        self.history.close(number);
    }

    /// A point that is spread evenly, or the same drawn to the middle where there are neighbours.
    fn central(&self, space: &Space, number: u32) -> Vec<f64> {
        let even = spread::admitted(self.seed, number, &self.choices, space);
        if number >= self.spec.startup && number % 2 == 1 {
            return even;
        }
        let central: Vec<f64> = even.iter().zip(&self.choices).map(|(u, choice)| drawn_in(*u, *choice)).collect();
        if space.admits_point(&central) { central } else { even }
    }

    fn most_promising(&self, space: &Space, stream: &mut Stream) -> Vec<f64> {
        let (good, others) = self.split();
        let width = Width { prior_weight: self.spec.prior_weight, least: self.spec.least_width };
        let density = |numbers: &[u32]| {
            let observed = |(age, number): (usize, &u32)| {
                let trial = self.history.trial(*number);
                Observed {
                    point: &trial.point,
                    active: &trial.active,
                    weight: weight(numbers.len() - age, numbers.len()),
                }
            };
            Parzen::new(&self.choices, &numbers.iter().enumerate().map(observed).collect::<Vec<_>>(), width)
        };
        let (good, others) = (density(&good), density(&others));
        let is_conditional = space.parameters().iter().any(|p| p.when.is_some());
        let mut active = vec![true; self.choices.len()];
        let mut scratch = Vec::new();
        let mut best = (f64::NEG_INFINITY, Vec::new());
        let candidates = self.spec.candidates.max(1);
        for drawn in 0..candidates * MORE {
            if drawn >= candidates && !best.1.is_empty() {
                break;
            }
            let point = good.candidate(stream);
            if is_conditional {
                active = space.active(&point);
            }
            let is_tried = || self.cells(&point, &active).is_some_and(|cells| self.tried.contains(&cells));
            if !space.admits_point(&point) || is_tried() {
                continue;
            }
            let gain =
                good.log_density(&point, &active, &mut scratch) - others.log_density(&point, &active, &mut scratch);
            if best.1.is_empty() || gain > best.0 {
                best = (gain, point);
            }
        }
        // None that the constraints admit, or that is new: the model says nothing about the few points that there are.
        if best.1.is_empty() { space.sample(stream) } else { best.1 }
    }

    /// The cells of a point; none in a space with continuous parameters. What is inactive counts for nothing.
    fn cells(&self, point: &[f64], active: &[bool]) -> Option<Vec<u64>> {
        let cell = |((x, choice), active): ((&f64, &Choice), &bool)| match choice {
            Choice::Continuous => None,
            Choice::Fixed => Some(0),
            Choice::Ordered(count) | Choice::Unordered(count) => {
                Some(if *active { ((x * *count as f64) as u64).min(count - 1) + 1 } else { 0 })
            }
        };
        point.iter().zip(&self.choices).zip(active).map(cell).collect()
    }

    /// The good trials, and those modelled of the others, pending ones included.
    fn split(&self) -> (Vec<u32>, Vec<u32>) {
        let ranked = self.history.ranked();
        let wanted = (self.spec.good_share * ranked.len() as f64).ceil().min(f64::from(self.spec.good_most));
        let count = (wanted as usize).clamp(1, self.history.finite());
        let (mut good, rest): (Vec<u32>, Vec<u32>) = if self.history.objectives() > 1 {
            let losses: Vec<&[f64]> = ranked.iter().map(|(_, number)| self.history.losses(*number)).collect();
            let good = pareto::best(&losses[..self.history.finite()], count);
            let numbers = |indices: &mut dyn Iterator<Item = usize>| indices.map(|index| ranked[index].1).collect();
            let mut rest = (0..ranked.len()).filter(|index| !good.contains(index));
            (numbers(&mut good.iter().copied()), numbers(&mut rest))
        } else {
            let numbers = |part: &[(f64, u32)]| part.iter().map(|(_, number)| *number).collect();
            (numbers(&ranked[..count]), numbers(&ranked[count..]))
        };
        let pending: Vec<u32> = self.history.silent().collect();
        let most = self.spec.others_most as usize;
        let mut others = thinned(&rest, most);
        others.extend(thinned(&pending, most));
        // By number, so that the weights know which are the newest.
        good.sort_unstable();
        others.sort_unstable();
        (good, others)
    }
}

/// The weight of the `age`-th newest (from 1) of `count` trials: the newest count fully, older ones less and less, because
/// they say little about where a search that has moved on should not go (Bergstra et al. 2013).
fn weight(age: usize, count: usize) -> f64 {
    if age <= NEWEST {
        return 1.0;
    }
    let share = (count - age) as f64 / (count - NEWEST).max(2) as f64;
    share + (1.0 - share) / count as f64
}

/// A coordinate with an order, moved so that evenly spread ones come to be distributed as a cut-off normal distribution: who
/// gives a range seldom expects the best at its ends. Others stay.
fn drawn_in(u: f64, choice: Choice) -> f64 {
    if !matches!(choice, Choice::Continuous | Choice::Ordered(_)) {
        return u;
    }
    let below = |x: f64| 0.5 * libm::erfc((0.5 - x) / (CENTRAL * std::f64::consts::SQRT_2));
    let (from, to) = (below(0.0), below(1.0));
    let wanted = from + u * (to - from);
    let (mut low, mut high) = (0.0, 1.0 - f64::EPSILON);
    // 40 halvings come closer than anything that a trial shows.
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if below(middle) < wanted { low = middle } else { high = middle }
    }
    low
}

/// So many of them, spread evenly.
fn thinned(numbers: &[u32], most: usize) -> Vec<u32> {
    let kept = numbers.len().min(most);
    (0..kept).map(|index| numbers[index * numbers.len() / kept]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Condition, Configuration, Domain, Parameter, Value};

    fn space() -> Space {
        let text = |w: &str| Value::Text(w.to_owned());
        let parameter = |path: &str, domain| Parameter { path: path.to_owned(), domain, when: None };
        Space::new(vec![
            parameter("a", Domain::Uniform { low: 0.0, high: 1.0 }),
            parameter("b", Domain::Integer { low: 0, high: 9, step: 1 }),
            parameter("c", Domain::Categorical { values: vec![text("x"), text("y"), text("z")] }),
            Parameter {
                when: Some(Condition { path: "c".to_owned(), values: vec![text("y")] }),
                ..parameter("d", Domain::Uniform { low: 0.0, high: 1.0 })
            },
            parameter("e", Domain::Constant { value: Value::Integer(1) }),
        ])
    }

    fn loss(point: &[f64]) -> f64 {
        let is_y = (1.0 / 3.0..2.0 / 3.0).contains(&point[2]);
        let conditional = if is_y { (point[3] - 0.8).powi(2) } else { 1.0 };
        (point[0] - 0.3).powi(2) + ((point[1] * 10.0).floor() / 10.0 - 0.6).powi(2) + conditional
    }

    fn play(seed: u64, trials: u32, loss: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
        let space = space();
        let mut searcher = Tpe::new(TpeSpec::default(), &space, seed);
        let one = |number| {
            let point = searcher.propose(&space, number);
            searcher.observe(number, 1, &loss(&point));
            searcher.close(number);
            point
        };
        (0..trials).map(one).collect()
    }

    fn best(points: &[Vec<f64>]) -> f64 {
        points.iter().map(|p| loss(p)).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn it_beats_random_points_on_a_mixed_conditional_space() {
        let (mut ours, mut random) = (0.0, 0.0);
        for seed in 0..8 {
            ours += best(&play(seed, 80, |p| vec![loss(p)]));
            let mut stream = Stream::new(seed, Purpose::Search, &[5]);
            random += best(&(0..80).map(|_| space().sample(&mut stream)).collect::<Vec<_>>());
        }
        assert!(ours < 0.5 * random, "{ours} against {random}");
    }

    #[test]
    fn the_same_calls_give_the_same_points_in_the_cube_whatever_the_losses() {
        for loss in [|_: &[f64]| vec![f64::NAN], |_: &[f64]| vec![1.0], |p: &[f64]| vec![p[0], 1.0 - p[0]]] {
            let points = play(4, 40, loss);
            assert_eq!(points, play(4, 40, loss));
            assert!(points.iter().flatten().all(|x| (0.0..1.0).contains(x)));
        }
        assert_ne!(play(4, 40, |p| vec![p[0]]), play(5, 40, |p| vec![p[0]]));
    }

    #[test]
    fn in_a_space_of_cells_none_is_tried_twice_while_there_are_others() {
        let parameter = |path: &str, domain| Parameter { path: path.to_owned(), domain, when: None };
        let ordinal = |count| Domain::Ordinal { values: (0..count).map(Value::Integer).collect() };
        let space =
            Space::new(vec![parameter("a", ordinal(6)), parameter("b", ordinal(7)), parameter("c", ordinal(2))]);
        let mut searcher = Tpe::new(TpeSpec { startup: 4, ..TpeSpec::default() }, &space, 3);
        let mut proposed = Vec::new();
        for number in 0..100 {
            let point = searcher.propose(&space, number);
            searcher.observe(number, 1, &[(point[0] - 0.4).abs() + point[1]]);
            searcher.close(number);
            proposed.push(space.decode(&point));
        }
        let different = |part: &[Configuration]| part.iter().map(|c| format!("{c:?}")).collect::<BTreeSet<_>>().len();
        // The first ones are spread evenly, which may repeat one; the model's do not, until the good corner is used up.
        assert!(different(&proposed[..60]) >= 58, "{}", different(&proposed[..60]));
        assert!(different(&proposed) >= 75, "{}", different(&proposed));
    }

    #[test]
    fn a_thousand_may_be_pending() {
        let space = space();
        let mut searcher = Tpe::new(TpeSpec::default(), &space, 1);
        for number in 0..1000 {
            let point = searcher.propose(&space, number);
            if number < 20 {
                searcher.observe(number, 1, &[loss(&point)]);
            }
        }
        assert_eq!(searcher.history.silent().len(), 980);
    }
}
