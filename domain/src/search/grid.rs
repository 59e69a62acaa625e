//! Every combination of a few values of each parameter, in a fixed order: the last parameter changes first.

use super::space::{Choice, Parameter, Space};

/// The most combinations, counted before constraints: walking past them takes a second, and no one can train so many.
pub const GRID_POINTS_MAX: u64 = 1_000_000;

/// Walks through the combinations that the constraints admit. A parameter that does not exist under the others' choice
/// multiplies nothing. Results change nothing.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The coordinates to try of each parameter, each with another value.
    axes: Vec<Vec<f64>>,
    /// The combination to look at next, as places on the axes; [`None`] past the last.
    next: Option<Vec<usize>>,
    /// The trial that tries the next combination that is admitted.
    next_number: u32,
}

impl Grid {
    /// A grid with `points` values, ends included, of every parameter that has no cells, and all values of every other.
    pub fn new(points: u32, space: &Space) -> Self {
        let axes: Vec<_> = space.parameters().iter().map(|parameter| axis(parameter, points)).collect();
        let next = Some(vec![0; axes.len()]);
        Self { axes, next, next_number: 0 }
    }

    /// How many combinations there are at most: conditions and constraints exclude some.
    pub fn size(points: u32, space: &Space) -> u64 {
        let lengths = space.parameters().iter().map(|parameter| match parameter.domain.choice() {
            Choice::Continuous => u64::from(points),
            Choice::Ordered(cells) | Choice::Unordered(cells) => cells,
            Choice::Fixed => 1,
        });
        lengths.fold(1, u64::saturating_mul)
    }

    /// The point that trial `number` tries: the one with so many admitted ones before it; [`None`] if there are no more.
    pub fn propose(&mut self, space: &Space, number: u32) -> Option<Vec<f64>> {
        if number < self.next_number {
            (self.next, self.next_number) = (Some(vec![0; self.axes.len()]), 0);
        }
        loop {
            let places = self.next.take()?;
            let point = self.point(&places);
            self.next = self.after(space, &point, places);
            if space.admits_point(&point) {
                self.next_number += 1;
                if self.next_number > number {
                    return Some(point);
                }
            }
        }
    }

    /// Takes note of nothing.
    pub fn observe(&mut self, _number: u32, _budget: u64, _losses: &[f64]) {}

    /// Takes note of nothing.
    pub fn close(&mut self, _number: u32) {}

    fn point(&self, places: &[usize]) -> Vec<f64> {
        self.axes.iter().zip(places).map(|(axis, place)| axis[*place]).collect()
    }

    /// The combination after `places`, which is at `point`. Whether a parameter exists depends on those before it alone,
    /// which keep their values while it moves.
    fn after(&self, space: &Space, point: &[f64], mut places: Vec<usize>) -> Option<Vec<usize>> {
        let active = space.active(point);
        let moves = |index: &usize| active[*index] && places[*index] + 1 < self.axes[*index].len();
        let index = (0..places.len()).rev().find(moves)?;
        places[index] += 1;
        places[index + 1..].fill(0);
        Some(places)
    }
}

fn axis(parameter: &Parameter, points: u32) -> Vec<f64> {
    let middles = |cells: u64| (0..cells).map(|index| (index as f64 + 0.5) / cells as f64).collect();
    match parameter.domain.choice() {
        Choice::Continuous => {
            let ends = f64::from(points.max(2) - 1);
            let mut coordinates: Vec<f64> = match points {
                0 | 1 => vec![0.5],
                _ => (0..points).map(|index| f64::from(index) / ends).collect(),
            };
            // Whole numbers on a logarithmic scale may be closer than the points.
            coordinates.dedup_by_key(|coordinate| parameter.domain.at(*coordinate));
            coordinates
        }
        Choice::Ordered(cells) | Choice::Unordered(cells) => middles(cells),
        Choice::Fixed => vec![0.5],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Condition, Constraint, Domain, Value};

    fn parameter(path: &str, domain: Domain, when: Option<(&str, &str)>) -> Parameter {
        let condition = |(path, value): (&str, &str)| Condition {
            path: path.to_owned(),
            values: vec![Value::Text(value.to_owned())],
        };
        Parameter { path: path.to_owned(), domain, when: when.map(condition) }
    }

    fn space() -> Space {
        let words = |words: [&str; 2]| words.map(|w| Value::Text(w.to_owned())).to_vec();
        Space::new(vec![
            parameter("rule", Domain::Categorical { values: words(["adamw", "sgd"]) }, None),
            parameter("momentum", Domain::Uniform { low: 0.0, high: 1.0 }, Some(("rule", "sgd"))),
            parameter("decay", Domain::Ordinal { values: words(["all", "some"]) }, Some(("rule", "adamw"))),
            parameter("depth", Domain::Integer { low: 1, high: 5, step: 2 }, None),
            parameter("fixed", Domain::Constant { value: Value::Integer(9) }, None),
        ])
    }

    fn shown(space: &Space, points: u32) -> Vec<String> {
        let mut grid = Grid::new(points, space);
        let shown = |point: Vec<f64>| {
            let values: Vec<String> = space.decode(&point).values().map(Value::to_string).collect();
            values.join(" ")
        };
        (0..).map_while(|number| grid.propose(space, number)).map(shown).collect()
    }

    #[test]
    fn every_combination_comes_once_and_in_order() {
        // The values in the order of their paths: decay, depth, fixed, momentum, rule.
        assert_eq!(
            shown(&space(), 2),
            [
                "all 1 9 adamw",
                "all 3 9 adamw",
                "all 5 9 adamw",
                "some 1 9 adamw",
                "some 3 9 adamw",
                "some 5 9 adamw",
                "1 9 0.0 sgd",
                "3 9 0.0 sgd",
                "5 9 0.0 sgd",
                "1 9 0.9999999999999999 sgd",
                "3 9 0.9999999999999999 sgd",
                "5 9 0.9999999999999999 sgd",
            ]
        );
        assert_eq!(shown(&space(), 1).len(), 9);
        assert_eq!(Grid::size(2, &space()), 24);
    }

    #[test]
    fn constraints_exclude_and_the_rest_moves_up() {
        let constraint = Constraint::parse("depth > least and (rule == 'sgd' or decay == 'some')").unwrap();
        let defaults = [("least".to_owned(), Value::Integer(1))].into();
        let space = space().constrained(vec![constraint], defaults);
        let expected = ["some 3 9 adamw", "some 5 9 adamw", "3 9 0.5 sgd", "5 9 0.5 sgd"];
        assert_eq!(shown(&space, 1), expected);
        let mut grid = Grid::new(1, &space);
        let third = grid.propose(&space, 2);
        assert_eq!(grid.propose(&space, 4), None);
        assert_eq!(grid.propose(&space, 2), third);
        let nothing = space.constrained(vec![Constraint::parse("depth > 5").unwrap()], Default::default());
        assert_eq!(Grid::new(1, &nothing).propose(&nothing, 0), None);
    }

    #[test]
    fn close_points_of_a_logarithmic_scale_come_once() {
        let space = Space::new(vec![parameter("n", Domain::LogInteger { low: 1, high: 4 }, None)]);
        assert_eq!(shown(&space, 9), ["1", "2", "3", "4"]);
    }
}
