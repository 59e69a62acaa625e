//! Whether a [`SweepSpec`] holds together: by itself, and with its job. The reader of sweep files reports at their places
//! what is found here; who accepts a sweep that travelled as JSON asks [`check`].

mod against_job;
mod options;

pub(in crate::spec) use self::against_job::against_job;
pub(in crate::spec) use self::options::options;
use super::SweepSpec;
use crate::search::{Domain, Parameter, Value};
use crate::spec::check::Inconsistent;
use crate::spec::file::nearest;

/// The most parameters of a space; also the most dimensions of a Sobol sequence.
pub const PARAMETERS_MAX: usize = crate::search::sobol::DIMENSIONS_MAX;

/// The largest whole number of a domain either way: the last one that a 64-bit float holds, with all below.
pub const INTEGER_MAX: i64 = 1 << 53;

/// The most choices of a parameter; every one is tried against the job.
pub const CHOICES_MAX: usize = 1000;

/// Finds everything that is wrong with `spec`, without looking at data or machine.
pub fn check(spec: &SweepSpec) -> Result<(), Inconsistent> {
    let mut faults = parameters(spec.space.parameters());
    faults.extend(options(spec));
    // What follows decodes points and reads jobs, so it needs a space in order.
    if faults.is_empty() {
        let is_ordered = ordered(spec.space.parameters().to_vec()) == spec.space.parameters();
        faults = if is_ordered {
            against_job(spec)
        } else {
            vec![Fault::new(&["space"], "a parameter stands before the one that its condition names".to_owned())]
        };
    }
    let shown = |fault: Fault| format!("{}: {}", shown_key(&fault.key), fault.message);
    if faults.is_empty() { Ok(()) } else { Err(Inconsistent(faults.into_iter().map(shown).collect())) }
}

/// Something that does not hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spec) struct Fault {
    /// The keys on the way from the root of the file to where it is; an element of a list is `[0]`.
    pub(in crate::spec) key: Vec<String>,
    pub(in crate::spec) message: String,
    pub(in crate::spec) hint: Option<String>,
}

impl Fault {
    fn new(key: &[&str], message: String) -> Self {
        Self { key: key.iter().map(|&part| part.to_owned()).collect(), message, hint: None }
    }

    fn hinted(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// A path of keys as messages show it.
pub(in crate::spec) fn shown_key(key: &[String]) -> String {
    let mut shown = String::new();
    for part in key {
        if !shown.is_empty() && !part.starts_with('[') {
            shown.push('.');
        }
        shown.push_str(part);
    }
    shown
}

/// What is wrong with parameters by themselves: domains and conditions.
pub(in crate::spec) fn parameters(parameters: &[Parameter]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if parameters.is_empty() {
        faults.push(Fault::new(&["space"], "must have a parameter to search".to_owned()));
    } else if parameters.len() > PARAMETERS_MAX {
        let message = format!("has {} parameters, at most {PARAMETERS_MAX} are allowed", parameters.len());
        faults.push(Fault::new(&["space"], message));
    } else if parameters.iter().all(|parameter| matches!(parameter.domain, Domain::Constant { .. })) {
        faults.push(Fault::new(&["space"], "has constants only, there is nothing to search".to_owned()));
    }
    for (index, parameter) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|earlier| earlier.path == parameter.path) {
            faults.push(Fault::new(&["space", &parameter.path], "stands here a second time".to_owned()));
        }
        if let Some((message, hint)) = domain(&parameter.domain) {
            let key = ["space", &parameter.path, parameter.domain.name()];
            faults.push(Fault::new(&key, message).hinted(hint.map(str::to_owned)));
        }
    }
    let conditions: Vec<Fault> = parameters.iter().flat_map(|p| condition(p, parameters)).collect();
    if conditions.is_empty() {
        faults.extend(circle(parameters));
    }
    faults.extend(conditions);
    faults
}

const CONSTANT_HINT: &str = "a bare value makes a constant";

fn domain(domain: &Domain) -> Option<(String, Option<&'static str>)> {
    let is_one = |is_equal: bool| is_equal.then_some(CONSTANT_HINT);
    match domain {
        Domain::Uniform { low, high } | Domain::LogUniform { low, high } => {
            let is_log = matches!(domain, Domain::LogUniform { .. });
            if !low.is_finite() || !high.is_finite() || !(high - low).is_finite() {
                return Some(("low, high and their distance must be finite numbers".to_owned(), None));
            }
            if is_log && *low <= 0.0 {
                return Some((format!("low ({low:?}) must be > 0 on a logarithmic scale"), None));
            }
            (low >= high).then(|| (format!("low ({low:?}) must be < high ({high:?})"), is_one(low == high)))
        }
        Domain::Integer { low, high, .. } | Domain::LogInteger { low, high } => {
            let is_log = matches!(domain, Domain::LogInteger { .. });
            if low.unsigned_abs().max(high.unsigned_abs()) > INTEGER_MAX.unsigned_abs() {
                return Some((format!("low ({low}) and high ({high}) must be at most {INTEGER_MAX} either way"), None));
            }
            if is_log && *low < 1 {
                return Some((format!("low ({low}) must be >= 1 on a logarithmic scale"), None));
            }
            if low >= high {
                return Some((format!("low ({low}) must be < high ({high})"), is_one(low == high)));
            }
            let Domain::Integer { step, .. } = domain else { return None };
            if *step < 1 {
                return Some((format!("step ({step}) must be >= 1"), None));
            }
            let distance = high - low;
            (*step > distance).then(|| (format!("step ({step}) must be <= high - low ({distance})"), None))
        }
        Domain::Categorical { values } | Domain::Ordinal { values } => {
            if values.is_empty() || values.len() > CHOICES_MAX {
                return Some((format!("must have 1 to {CHOICES_MAX} values, found {}", values.len()), None));
            }
            let is_double = |index: &usize| values[..*index].iter().any(|earlier| same(earlier, &values[*index]));
            let double = (0..values.len()).find(is_double);
            double.map(|index| (format!("has {} twice", values[index]), None)).or_else(|| none_finite(values))
        }
        Domain::Constant { value } => none_finite(std::slice::from_ref(value)),
    }
}

fn none_finite(values: &[Value]) -> Option<(String, Option<&'static str>)> {
    let is_finite = |value: &Value| value.as_number().is_none_or(f64::is_finite);
    (!values.iter().all(is_finite)).then(|| ("must have finite numbers only".to_owned(), None))
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_number().is_some_and(|a| Some(a) == b.as_number())
}

fn condition(parameter: &Parameter, parameters: &[Parameter]) -> Vec<Fault> {
    let Some(condition) = &parameter.when else { return Vec::new() };
    let key = ["space", &parameter.path, "when"];
    let Some(other) = parameters.iter().find(|other| other.path == condition.path) else {
        let paths: Vec<&str> = parameters.iter().map(|p| p.path.as_str()).collect();
        let hint = nearest(&condition.path, &paths).map(|path| format!("did you mean {path}?"));
        return vec![Fault::new(&key, format!("names {}, which is not in the space", condition.path)).hinted(hint)];
    };
    let key = ["space", &parameter.path, "when", &condition.path];
    if matches!(other.domain, Domain::Uniform { .. } | Domain::LogUniform { .. }) {
        let message = format!("{} takes any number: a condition needs choices or whole numbers", other.path);
        return vec![Fault::new(&key, message)];
    }
    if condition.values.is_empty() {
        return vec![Fault::new(&key, "needs a value".to_owned())];
    }
    // A domain that is wrong itself has no coordinates; it is reported where it stands.
    if domain(&other.domain).is_some() {
        return Vec::new();
    }
    let never = condition.values.iter().filter(|value| other.domain.coordinate(value).is_none());
    let hint = match &other.domain {
        Domain::Categorical { values } | Domain::Ordinal { values } => {
            let words: Vec<String> = values.iter().map(Value::to_string).collect();
            Some(format!("its values: {}", words.join(", ")))
        }
        _ => None,
    };
    never.map(|value| Fault::new(&key, format!("{} is never {value}", other.path)).hinted(hint.clone())).collect()
}

/// The parameters in their order, but each after the one that its condition names; those of a circle are left out.
pub(in crate::spec) fn ordered(parameters: Vec<Parameter>) -> Vec<Parameter> {
    let mut waiting = parameters;
    let mut placed: Vec<Parameter> = Vec::with_capacity(waiting.len());
    loop {
        let is_free = |p: &Parameter| match &p.when {
            Some(condition) => placed.iter().any(|earlier| earlier.path == condition.path),
            None => true,
        };
        let Some(index) = waiting.iter().position(is_free) else { return placed };
        placed.push(waiting.remove(index));
    }
}

fn circle(parameters: &[Parameter]) -> Option<Fault> {
    let placed = ordered(parameters.to_vec());
    let is_placed = |path: &str| placed.iter().any(|p| p.path == path);
    let first = parameters.iter().find(|p| !is_placed(&p.path))?;
    // From there every condition leads to another one that is left over, until one comes again.
    let mut way = vec![first.path.as_str()];
    loop {
        let at = parameters.iter().find(|p| p.path == way[way.len() - 1]).expect("conditions name parameters");
        let next = at.when.as_ref().map_or("", |condition| condition.path.as_str());
        let from = way.iter().position(|path| *path == next);
        way.push(next);
        if let Some(from) = from {
            let message = format!("conditions go in a circle: {}", way[from..].join(" needs "));
            return Some(Fault::new(&["space", way[from], "when"], message));
        }
    }
}
