//! The trials of a sweep as a table: one row a trial, for CSV and Parquet alike.

use domain::search::{Configuration, Domain, Value as Tried};
use domain::spec::sweep::SweepSpec;
use proto::v1::SweepTrial;

use super::state_name;
use crate::client::SweepResults;
use crate::output::escape;
use crate::output::parquet::{Cells, Kind};

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) cells: Cells,
}

/// What is known of every trial, then its objectives, then its parameters, each under the path of its key.
pub(crate) fn columns(results: &SweepResults, spec: &SweepSpec) -> Vec<Column> {
    let trials = &results.sweep.trials;
    let integers = |of: &dyn Fn(&SweepTrial) -> Option<i64>| Cells::Integers(trials.iter().map(of).collect());
    let texts = |of: &dyn Fn(&SweepTrial) -> String| Cells::Texts(trials.iter().map(|trial| Some(of(trial))).collect());
    let numbers = |of: &dyn Fn(&SweepTrial) -> Option<f64>| Cells::Numbers(trials.iter().map(of).collect());
    let on_front = trials.iter().map(|trial| Some(results.front.contains(&trial.number)));
    let seconds = |trial: &SweepTrial| results.efforts.get(&trial.number).map(|effort| effort.worker_seconds);
    let mut columns: Vec<(&str, Cells)> = vec![
        ("trial", integers(&|trial| Some(trial.number.into()))),
        ("run", texts(&|trial| trial.run.clone())),
        ("state", texts(&|trial| state_name(trial.state()).to_owned())),
        ("reason", texts(&|trial| trial.reason.clone())),
        ("step", integers(&|trial| Some(trial.step as i64))),
        ("budget", integers(&|trial| Some(trial.budget as i64))),
        ("worker_seconds", numbers(&seconds)),
        ("on_front", Cells::Booleans(on_front.collect())),
        ("parent", integers(&|trial| trial.parent.map(i64::from))),
        ("parent_budget", integers(&|trial| trial.parent_budget.map(|budget| budget as i64))),
    ];
    for (at, objective) in spec.objectives.iter().enumerate() {
        columns.push((objective.metric.name(), numbers(&|trial| trial.values.get(at).copied())));
    }
    let configurations: Vec<Configuration> =
        trials.iter().map(|trial| serde_json::from_str(&trial.configuration_json).unwrap_or_default()).collect();
    for parameter in spec.space.parameters() {
        let tried: Vec<Option<&Tried>> = configurations.iter().map(|tried| tried.get(&parameter.path)).collect();
        columns.push((parameter.path.as_str(), cells(kind(&parameter.domain), &tried)));
    }
    columns.into_iter().map(|(name, cells)| Column { name: name.to_owned(), cells }).collect()
}

/// What the values of a domain have in common; text is all.
fn kind(domain: &Domain) -> Kind {
    let values = match domain {
        Domain::Uniform { .. } | Domain::LogUniform { .. } => return Kind::Number,
        Domain::Integer { .. } | Domain::LogInteger { .. } => return Kind::Integer,
        Domain::Categorical { values } | Domain::Ordinal { values } => values.as_slice(),
        Domain::Constant { value } => std::slice::from_ref(value),
    };
    if values.iter().all(|value| matches!(value, Tried::Integer(_))) {
        Kind::Integer
    } else if values.iter().all(|value| value.as_number().is_some()) {
        Kind::Number
    } else if values.iter().all(|value| matches!(value, Tried::Boolean(_))) {
        Kind::Boolean
    } else {
        Kind::Text
    }
}

fn cells(kind: Kind, tried: &[Option<&Tried>]) -> Cells {
    match kind {
        Kind::Integer => Cells::Integers(tried.iter().map(|value| integer((*value)?)).collect()),
        Kind::Number => Cells::Numbers(tried.iter().map(|value| (*value)?.as_number()).collect()),
        Kind::Boolean => Cells::Booleans(tried.iter().map(|value| boolean((*value)?)).collect()),
        Kind::Text => Cells::Texts(tried.iter().map(|value| Some((*value)?.to_string())).collect()),
    }
}

fn integer(value: &Tried) -> Option<i64> {
    match value {
        Tried::Integer(x) => Some(*x),
        Tried::Number(_) | Tried::Boolean(_) | Tried::Text(_) => None,
    }
}

fn boolean(value: &Tried) -> Option<bool> {
    match value {
        Tried::Boolean(x) => Some(*x),
        Tried::Number(_) | Tried::Integer(_) | Tried::Text(_) => None,
    }
}

/// Columns as comma-separated values, with their names above (RFC 4180). Control characters in texts are escaped, so that
/// every row is a line; where there is nothing, a cell is empty.
pub(crate) fn csv(columns: &[Column]) -> String {
    let mut lines = vec![csv_line(columns.iter().map(|column| column.name.as_str()))];
    lines.extend(csv_rows(columns));
    lines.join("\n")
}

/// The rows alone.
pub(crate) fn csv_rows(columns: &[Column]) -> Vec<String> {
    let texts: Vec<Vec<String>> = columns.iter().map(|column| texts(&column.cells)).collect();
    let rows = texts.first().map_or(0, Vec::len);
    (0..rows).map(|row| csv_line(texts.iter().map(|column| column[row].as_str()))).collect()
}

fn csv_line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = cells.map(|cell| {
        let cell = escape(cell);
        if cell.contains(['"', ',']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    });
    quoted.collect::<Vec<_>>().join(",")
}

fn texts(cells: &Cells) -> Vec<String> {
    fn all<T>(cells: &[Option<T>], text: impl Fn(&T) -> String) -> Vec<String> {
        cells.iter().map(|cell| cell.as_ref().map(&text).unwrap_or_default()).collect()
    }
    match cells {
        Cells::Integers(cells) => all(cells, i64::to_string),
        Cells::Numbers(cells) => all(cells, |x| format!("{x:?}")),
        Cells::Booleans(cells) => all(cells, bool::to_string),
        Cells::Texts(cells) => all(cells, String::clone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_the_type_of_all_its_values() {
        let (yes, three, half, word) =
            (Tried::Boolean(true), Tried::Integer(3), Tried::Number(0.5), Tried::Text("off".to_owned()));
        let categorical = |values: &[&Tried]| Domain::Categorical { values: values.iter().copied().cloned().collect() };
        for (domain, expected) in [
            (Domain::LogUniform { low: 1.0, high: 2.0 }, Kind::Number),
            (Domain::Integer { low: 1, high: 9, step: 2 }, Kind::Integer),
            (categorical(&[&three]), Kind::Integer),
            (categorical(&[&three, &half]), Kind::Number),
            (categorical(&[&yes]), Kind::Boolean),
            (categorical(&[&yes, &three]), Kind::Text),
            (Domain::Constant { value: word.clone() }, Kind::Text),
        ] {
            assert_eq!(kind(&domain), expected, "{domain:?}");
        }
        let mixed = cells(Kind::Text, &[Some(&yes), None, Some(&three)]);
        assert_eq!(mixed, Cells::Texts(vec![Some("true".to_owned()), None, Some("3".to_owned())]));
        assert_eq!(cells(Kind::Number, &[Some(&three)]), Cells::Numbers(vec![Some(3.0)]));
    }

    #[test]
    fn every_row_of_csv_is_a_line() {
        let text = |text: &str| Some(text.to_owned());
        let columns = [
            Column { name: "reason".to_owned(), cells: Cells::Texts(vec![text("a \"b\", c\n\u{1b}[2J"), None]) },
            Column { name: "x,y".to_owned(), cells: Cells::Numbers(vec![Some(1e-5), Some(f64::NAN)]) },
        ];
        assert_eq!(csv(&columns), "reason,\"x,y\"\n\"a \"\"b\"\", c\\n\\u{1b}[2J\",1e-5\n,NaN");
    }
}
