use super::super::section::{Interval, Section, Value};
use crate::search::{Condition, Domain, Parameter};

/// The kinds of domains.
const KINDS: [&str; 7] = ["uniform", "log_uniform", "integer", "log_integer", "categorical", "ordinal", "constant"];

/// Every parameter, in the order of the file.
pub(super) fn read_space(space: &Section<'_>) -> Option<Vec<Parameter>> {
    space.each(read_parameter)
}

fn read_parameter(path: &str, value: &Value<'_>) -> Option<Parameter> {
    let path = path.to_owned();
    if value.is_list() {
        let hint = "{categorical: [..]} chooses among values, {uniform: [low, high]} between two".to_owned();
        return value.problem("must say what it can be", Some(hint));
    }
    if !value.is_section() {
        let value = value.scalar()?;
        return Some(Parameter { path, domain: Domain::Constant { value }, when: None });
    }
    let section = value.section()?;
    section.know(&KINDS);
    let domain = read_domain(value, &section);
    let when = section.optional("when", read_condition);
    if section.finish() && KINDS.iter().all(|kind| !section.has(kind)) {
        value.report("must say what it can be", Some(format!("one of {}", KINDS.join(", "))));
    }
    Some(Parameter { path, domain: domain?, when: when? })
}

/// [`None`] without a report if there is no key of a domain.
fn read_domain(value: &Value<'_>, section: &Section<'_>) -> Option<Domain> {
    let given: Vec<&'static str> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    let kind = match given[..] {
        [kind] => kind,
        [] => return None,
        [first, second, ..] => return value.problem(format!("must be either {first} or {second}"), None),
    };
    let number = |v: &Value<'_>| v.number(Interval::ANY);
    section.required(kind, |v| match kind {
        "uniform" => read_bounds(v, number).map(|(low, high)| Domain::Uniform { low, high }),
        "log_uniform" => read_bounds(v, number).map(|(low, high)| Domain::LogUniform { low, high }),
        "integer" => read_integer(v),
        "log_integer" => read_bounds(v, Value::signed).map(|(low, high)| Domain::LogInteger { low, high }),
        "categorical" => v.list(Value::scalar).map(|values| Domain::Categorical { values }),
        "ordinal" => v.list(Value::scalar).map(|values| Domain::Ordinal { values }),
        _ => v.scalar().map(|value| Domain::Constant { value }),
    })
}

fn read_integer(value: &Value<'_>) -> Option<Domain> {
    if !value.is_section() {
        return read_bounds(value, Value::signed).map(|(low, high)| Domain::Integer { low, high, step: 1 });
    }
    let section = value.section()?;
    let low = section.required("low", Value::signed);
    let high = section.required("high", Value::signed);
    let step = section.or("step", 1, Value::signed);
    section.finish();
    Some(Domain::Integer { low: low?, high: high?, step: step? })
}

/// `[low, high]` or `{low: .., high: ..}`.
fn read_bounds<'a, T: Copy>(value: &Value<'a>, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<(T, T)> {
    if value.is_section() {
        let section = value.section()?;
        let (low, high) = (section.required("low", &read), section.required("high", &read));
        section.finish();
        return low.zip(high);
    }
    if !value.is_list() {
        return value.problem("must be [low, high]", None);
    }
    match value.list(read)?[..] {
        [low, high] => Some((low, high)),
        _ => value.problem("must be [low, high]", None),
    }
}

fn read_condition(value: &Value<'_>) -> Option<Condition> {
    let section = value.section()?;
    let mut conditions = section.each(|path, v| {
        let values = if v.is_list() { v.list(Value::scalar)? } else { vec![v.scalar()?] };
        Some(Condition { path: path.to_owned(), values })
    })?;
    match (conditions.pop(), conditions.len()) {
        (Some(only), 0) => Some(only),
        (None, _) => value.problem("must name a parameter with its value or values", None),
        (Some(_), _) => {
            let hint = "give one, and let that parameter depend on the next".to_owned();
            value.problem("must name one parameter", Some(hint))
        }
    }
}
