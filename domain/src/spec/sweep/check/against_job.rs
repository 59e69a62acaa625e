use std::collections::BTreeMap;

use super::Fault;
use crate::random::{Purpose, Stream};
use crate::search::space::TRIES_MAX;
use crate::search::{Configuration, Constraint, Domain, Parameter, Space, Value};
use crate::spec::file::nearest;
use crate::spec::sweep::{SearcherSpec, SweepSpec};
use crate::spec::{JobSpec, ModelSpec, OptimizerRule};

/// Keys that the sweep sets itself, with what to use instead.
const TAKEN: [(&str, &str); 5] = [
    ("version", "the version of the file cannot be searched"),
    ("name", "trials are named after the sweep and numbered"),
    ("workers", "workers_per_trial sets it"),
    ("min_workers", "workers_per_trial and elastic set it"),
    ("priority", "the sweep's own priority sets it"),
];

/// Points at which a job is read; what they do not show is rare.
const JOBS_READ: usize = 300;

/// Points that are drawn to find a job that a value is part of.
const COMPANIONS_MAX: usize = 200;

/// What is wrong with a sweep whose parameters and options are right by themselves: values and constraints that do not fit
/// the job.
pub(in crate::spec) fn against_job(spec: &SweepSpec) -> Vec<Fault> {
    let base = match spec.base_job() {
        Ok(base) => base,
        Err(why) => return vec![Fault::new(&["job"], format!("is no job: {why}"))],
    };
    let mut faults = Vec::new();
    let mut seen = Seen { base: base.values(), moved_by: BTreeMap::new() };
    for parameter in spec.space.parameters() {
        if let Some((_, hint)) = TAKEN.iter().find(|(path, _)| *path == parameter.path) {
            let fault = Fault::new(&["space", &parameter.path], "cannot be searched".to_owned());
            faults.push(fault.hinted(Some((*hint).to_owned())));
        } else {
            faults.extend(values(spec, parameter, &base, &mut seen));
        }
    }
    for (index, constraint) in spec.space.constraints().iter().enumerate() {
        faults.extend(constraint_paths(spec, index, constraint, &seen));
    }
    if faults.is_empty() {
        faults.extend(points(spec));
    }
    faults
}

/// What the job says for keys that nobody searches.
struct Seen {
    /// In the job as it is.
    base: Configuration,
    /// Keys whose value followed another one's, by it.
    moved_by: BTreeMap<String, String>,
}

/// Tries the ends or choices of a parameter, each alone.
fn values(spec: &SweepSpec, parameter: &Parameter, base: &JobSpec, seen: &mut Seen) -> Option<Fault> {
    for (place, value) in notable(&parameter.domain) {
        let mut configuration = under_condition(&spec.space, parameter);
        configuration.insert(parameter.path.clone(), value.clone());
        let mut key = vec!["space", &parameter.path, parameter.domain.name()];
        let place = place.map(|index| format!("[{index}]"));
        key.extend(place.as_deref());
        match spec.job(&configuration, 0) {
            Ok(job) => {
                for (path, now) in job.values() {
                    let is_other = seen.base.get(&path) != Some(&now) && !configuration.contains_key(&path);
                    if is_other {
                        seen.moved_by.entry(path).or_insert_with(|| parameter.path.clone());
                    }
                }
                if matches!(spec.searcher, SearcherSpec::Population(_)) && !weights_fit(base, &job) {
                    let message = "cannot change while a trial trains, as the searcher population does".to_owned();
                    let hint = "learning rate, weight decay, momentum, dropout and label smoothing can".to_owned();
                    return Some(Fault::new(&key, message).hinted(Some(hint)));
                }
            }
            Err(_) if has_companions(spec, parameter, &value) => {}
            Err(_) => {
                // Without the number of a trial, of which there is none.
                let why = spec.job.with(&configuration).err().unwrap_or_default();
                return Some(Fault::new(&key, format!("{value} is refused by the job: {why}")));
            }
        }
    }
    None
}

/// Both ends of a domain, or all its choices with their places in the list.
fn notable(domain: &Domain) -> Vec<(Option<usize>, Value)> {
    match domain {
        Domain::Uniform { low, high } | Domain::LogUniform { low, high } => {
            vec![(None, Value::Number(*low)), (None, Value::Number(*high))]
        }
        Domain::Integer { low, high, step } => {
            let last = low + (high - low) / step * step;
            vec![(None, Value::Integer(*low)), (None, Value::Integer(last))]
        }
        Domain::LogInteger { low, high } => vec![(None, Value::Integer(*low)), (None, Value::Integer(*high))],
        Domain::Categorical { values } | Domain::Ordinal { values } => {
            values.iter().enumerate().map(|(index, value)| (Some(index), value.clone())).collect()
        }
        Domain::Constant { value } => vec![(None, value.clone())],
    }
}

/// Values of other parameters under which this one exists.
fn under_condition(space: &Space, parameter: &Parameter) -> Configuration {
    let mut configuration = Configuration::new();
    let mut at = Some(parameter);
    while let Some(condition) = at.and_then(|parameter| parameter.when.as_ref()) {
        configuration.insert(condition.path.clone(), condition.values[0].clone());
        at = space.parameters().iter().find(|other| other.path == condition.path);
    }
    configuration
}

/// Whether a value that does not fit the job alone does with values of the others that the constraints admit.
fn has_companions(spec: &SweepSpec, parameter: &Parameter, value: &Value) -> bool {
    let mut fixed = under_condition(&spec.space, parameter);
    fixed.insert(parameter.path.clone(), value.clone());
    let coordinates = spec.space.encode(&fixed);
    let mut stream = Stream::new(spec.seed, Purpose::Search, &[]);
    (0..COMPANIONS_MAX).any(|_| {
        let mut point = spec.space.draw(&mut stream);
        for (drawn, fixed) in point.iter_mut().zip(&coordinates) {
            *drawn = fixed.unwrap_or(*drawn);
        }
        spec.space.admits_point(&point) && spec.job(&spec.space.decode(&point), 0).is_ok()
    })
}

/// Whether a trial can go on as `other` with the weights of `base`.
fn weights_fit(base: &JobSpec, other: &JobSpec) -> bool {
    let mut other = other.clone();
    let (ModelSpec::Vit(model), ModelSpec::Vit(base_model)) = (&mut other.model, &base.model);
    model.dropout = base_model.dropout;
    other.train.label_smoothing = base.train.label_smoothing;
    other.train.clip_norm = base.train.clip_norm;
    other.schedule = base.schedule.clone();
    let is_same_rule = matches!(
        (&base.optimizer.rule, &other.optimizer.rule),
        (OptimizerRule::Adamw { .. }, OptimizerRule::Adamw { .. })
            | (OptimizerRule::Sgd { .. }, OptimizerRule::Sgd { .. })
    );
    other.optimizer = base.optimizer.clone();
    is_same_rule && other == *base
}

fn constraint_paths(spec: &SweepSpec, index: usize, constraint: &Constraint, seen: &Seen) -> Vec<Fault> {
    let place = format!("[{index}]");
    let key = ["constraints", &place];
    let searched: Vec<&str> = spec.space.parameters().iter().map(|p| p.path.as_str()).collect();
    let mut faults = Vec::new();
    for path in constraint.paths().into_iter().filter(|path| !searched.contains(path)) {
        if let Some(cause) = seen.moved_by.get(path) {
            let message = format!("names {path}, which changes with {cause}");
            faults.push(Fault::new(&key, message).hinted(Some(format!("name {cause} instead"))));
        } else if !seen.base.contains_key(path) {
            let known: Vec<&str> = seen.base.keys().map(String::as_str).chain(searched.iter().copied()).collect();
            let meant = nearest(path, &known).map(|known| format!("did you mean {known}?"));
            let is_word = !path.contains('.');
            let hint = meant.or(is_word.then(|| "text stands in quotes".to_owned()));
            let message = format!("names {path}, which is neither in the space nor a value of the job");
            faults.push(Fault::new(&key, message).hinted(hint));
        }
    }
    faults
}

/// Draws points: the constraints must be computable everywhere, admit some, and what they admit must be jobs.
fn points(spec: &SweepSpec) -> Option<Fault> {
    let space = &spec.space;
    let mut stream = Stream::new(spec.seed, Purpose::Search, &[0]);
    let mut admitted = 0;
    for _ in 0..TRIES_MAX {
        let configuration = space.decode(&space.draw(&mut stream));
        if let Some((constraint, why)) = space.incomputable(&configuration) {
            let index = space.constraints().iter().position(|other| other == constraint).unwrap_or_default();
            return Some(Fault::new(&["constraints", &format!("[{index}]")], format!("cannot be computed: {why}")));
        }
        if !space.admits(&configuration) {
            continue;
        }
        if let Err(why) = spec.job.with(&configuration) {
            let values: Vec<String> = configuration.iter().map(|(path, value)| format!("{path} {value}")).collect();
            let message = format!("holds what is no job: {why}; with {}", values.join(", "));
            return Some(Fault::new(&["space"], message).hinted(Some("exclude it by a constraint".to_owned())));
        }
        admitted += 1;
        if admitted == JOBS_READ {
            return None;
        }
    }
    let message = format!("admit (almost) nothing: {TRIES_MAX} points were tried in vain");
    (admitted == 0).then(|| Fault::new(&["constraints"], message))
}
