//! A curve of bounded size, and how it looks in a line of text.

/// The most points of a curve: more than a terminal has columns, even with dots of a half.
const POINTS_MAX: usize = 2048;

/// Values over steps. When there are too many points, neighbours become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    points: Vec<(u64, f64)>,
    /// Steps that share a point.
    stride: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1 }
    }
}

impl Curve {
    /// Adds a value at the end. What is not finite is left out.
    pub(crate) fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        match self.points.last_mut() {
            Some(last) if last.0 >= step => return,
            // The newest value of a stride stands for it.
            Some(last) if last.0 / self.stride == step / self.stride => *last = (step, value),
            Some(_) | None => self.points.push((step, value)),
        }
        if self.points.len() > POINTS_MAX {
            self.stride *= 2;
            for (step, value) in std::mem::take(&mut self.points) {
                match self.points.last_mut() {
                    Some(last) if last.0 / self.stride == step / self.stride => *last = (step, value),
                    Some(_) | None => self.points.push((step, value)),
                }
            }
        }
    }

    /// Forgets what lies after `step`: the run went back.
    pub(crate) fn cut(&mut self, step: u64) {
        self.points.retain(|(at, _)| *at <= step);
    }

    /// Puts `whole`, which begins earlier, in its place, and goes on with what came meanwhile.
    pub(crate) fn begin_with(&mut self, whole: Curve) {
        let since = std::mem::replace(self, whole);
        for (step, value) in since.points {
            self.push(step, value);
        }
    }

    /// The points, by step.
    pub(crate) fn points(&self) -> &[(u64, f64)] {
        &self.points
    }

    /// The curve in `width` characters, the lowest value `▁` and the highest `█`.
    pub(crate) fn sparkline(&self, width: usize) -> String {
        let (Some((first, _)), Some((last, _))) = (self.points.first(), self.points.last()) else {
            return String::new();
        };
        let columns = width.min(self.points.len());
        if columns == 0 {
            return String::new();
        }
        let span = (last - first + 1) as f64;
        let mut means = vec![(0.0, 0_u32); columns];
        for (step, value) in &self.points {
            let column = ((step - first) as f64 / span * columns as f64) as usize;
            let (sum, number) = &mut means[column.min(columns - 1)];
            *sum += value;
            *number += 1;
        }
        let mut values: Vec<f64> = Vec::with_capacity(columns);
        for (sum, number) in means {
            // Where nothing was measured, what was last holds.
            let value = if number > 0 { sum / f64::from(number) } else { values.last().copied().unwrap_or_default() };
            values.push(value);
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let level = |value: f64| if high > low { ((value - low) / (high - low) * 7.0).round() as usize } else { 3 };
        values.into_iter().map(|value| BARS[level(value).min(7)]).collect()
    }
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: impl IntoIterator<Item = (u64, f64)>) -> Curve {
        let mut curve = Curve::default();
        points.into_iter().for_each(|(step, value)| curve.push(step, value));
        curve
    }

    #[test]
    fn a_line_shows_the_course() {
        for (points, width, shown) in [
            (vec![], 5, ""),
            (vec![(1, 2.0)], 5, "▄"),
            (vec![(1, 2.0), (2, 2.0)], 5, "▄▄"),
            ((1..=8).map(|s| (s, s as f64)).collect(), 8, "▁▂▃▄▅▆▇█"),
            ((1..=8).map(|s| (s, -(s as f64))).collect(), 4, "█▆▃▁"),
            (vec![(1, 0.0), (2, f64::NAN), (3, 1.0)], 2, "▁█"),
            (vec![(1, 0.0), (2, 1.0), (100, 0.0)], 3, "██▁"),
            (vec![(1, -f64::MAX), (2, f64::MAX)], 2, "▁▁"),
        ] {
            assert_eq!(curve(points.clone()).sparkline(width), shown, "{points:?}");
        }
    }

    #[test]
    fn a_long_curve_stays_small_and_ends_with_the_newest() {
        let long = curve((1..=100_000).map(|s| (s, s as f64)));
        assert!(long.points().len() <= POINTS_MAX && long.points().len() >= POINTS_MAX / 4);
        assert_eq!(long.points().last(), Some(&(100_000, 100_000.0)));
        assert!(long.points().is_sorted_by_key(|(step, _)| *step));
    }

    #[test]
    fn a_curve_goes_back_and_takes_up_what_was_before() {
        let mut short = curve([(5, 5.0), (6, 6.0), (7, 7.0)]);
        short.cut(6);
        short.begin_with(curve((1..=5).map(|s| (s, s as f64))));
        assert_eq!(short, curve((1..=6).map(|s| (s, s as f64))));
        short.push(3, 9.0);
        assert_eq!(short.points().len(), 6, "what is old is no news");
    }
}
