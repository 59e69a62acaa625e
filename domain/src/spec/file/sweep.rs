//! A sweep file: YAML a person writes, read into a [`SweepSpec`]. All mistakes are reported at once, each with its place,
//! also those of the job file that it names.
//!
//! What a single key can be is read here and in [`space`] and [`method`]; how keys must fit each other and the job is what
//! [`check`] says, reported at the places of the keys.

mod method;
mod space;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::node::{self, Entry, Kind, Node};
use super::section::{Collector, NOTHING, Section, Value, report_at};
use super::{Problems, read_job, read_json, read_name, read_priority, read_version};
use crate::ids::RunName;
use crate::search::{Configuration, Constraint, Parameter, Space};
use crate::spec::sweep::{JobTemplate, SchedulerSpec, SweepBudget, SweepSpec, check};
use crate::spec::{EvalMetric, JobSpec};

/// Reads the sweep file `text`. Problems name it `file`; paths in it are relative to `base`, an absolute folder. `load`
/// gives the text of the job file that it names, or why there is none; the data paths of that are relative to its folder.
pub fn read(
    text: &str,
    file: &str,
    base: &Path,
    load: impl FnOnce(&Path) -> Result<String, String>,
) -> Result<SweepSpec, Problems> {
    let problems = Collector::default();
    let mut job_problems = None;
    let spec = match node::parse(text) {
        Ok(root) => {
            let jobs = Jobs { file, base, load, problems: &mut job_problems };
            Section::root(&root, &problems).and_then(|sweep| read_sweep(&sweep, &root, &problems, jobs))
        }
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    match (spec, problems.into_problems(file, text), job_problems) {
        (Some(spec), None, None) => Ok(spec),
        (_, Some(problems), Some(of_job)) => Err(problems.followed_by(of_job)),
        (_, Some(problems), None) | (_, None, Some(problems)) => Err(problems),
        (None, None, None) => unreachable!("a value is missing only after a problem was reported"),
    }
}

/// Lets a collector that describes note what a sweep file may hold.
pub(super) fn describe(problems: &Collector) {
    let (mut job_problems, load) = (None, |_: &Path| Err(String::new()));
    let jobs = Jobs { file: "", base: Path::new("/"), load, problems: &mut job_problems };
    if let Some(file) = Section::described(problems) {
        // What is read there is nothing; what was asked for is noted.
        let _nothing = read_sweep(&file, &NOTHING, problems, jobs);
    }
}

/// Whether `text` is meant as a sweep file and not as a job file: it has a space.
pub fn is_sweep(text: &str) -> bool {
    let root = node::parse(text);
    matches!(root, Ok(Node { kind: Kind::Map(entries), .. }) if entries.iter().any(|entry| entry.key == "space"))
}

/// Where jobs come from.
struct Jobs<'a, L> {
    /// The sweep file, as it was named.
    file: &'a str,
    base: &'a Path,
    load: L,
    /// What is wrong with the job file.
    problems: &'a mut Option<Problems>,
}

fn read_sweep<L: FnOnce(&Path) -> Result<String, String>>(
    sweep: &Section<'_>,
    root: &Node,
    problems: &Collector,
    jobs: Jobs<'_, L>,
) -> Option<SweepSpec> {
    let count = |v: &Value<'_>| v.integer_u32(0..=u64::from(u32::MAX));
    sweep.required("version", read_version);
    let name = sweep.required("name", read_name);
    let seed = sweep.or("seed", 0, |v| v.integer(0..=u64::MAX));
    let job = sweep.required("job", |v| read_template(v, problems, jobs));
    let parameters = sweep.required("space", |v| space::read_space(&v.section()?));
    let constraints = sweep.or("constraints", Vec::new(), |v| v.list(read_constraint));
    let objectives = sweep.optional("objectives", |v| v.list(method::read_objective));
    let searcher = sweep.or("searcher", method::default_searcher(), method::read_searcher);
    let scheduler = sweep.or("scheduler", SchedulerSpec::None, method::read_scheduler);
    let trials = sweep.optional("trials", count);
    let steps = sweep.optional("max_steps", |v| v.integer(0..=u64::MAX));
    let seconds = sweep.optional("max_seconds", |v| v.integer(0..=u64::MAX));
    let workers_per_trial = sweep.or("workers_per_trial", 1, count);
    let max_concurrent = sweep.optional("max_concurrent", count);
    let priority = sweep.or("priority", 0, read_priority);
    let elastic = sweep.or("elastic", false, Value::boolean);
    let lock_step = sweep.or("lock_step", false, Value::boolean);
    let trial_retries = sweep.or("trial_retries", 0, count);
    let max_failed = sweep.or("max_failed", 10, count);
    let warm_start = sweep.or("warm_start", Vec::new(), read_warm_start);
    sweep.finish();

    let report = |fault: check::Fault| report_at(root, problems, &fault.key, fault.message, fault.hint);
    let of_parameters = parameters.as_deref().map(check::parameters);
    let space_is_right = of_parameters.as_ref().is_some_and(Vec::is_empty);
    of_parameters.into_iter().flatten().for_each(report);
    let name = name?;
    let job = job.map(|tree| tree.adapted(&name, workers_per_trial.unwrap_or(1)));
    let metric = job.as_ref().and_then(|job| job.read().ok()).map_or(EvalMetric::EvalAccuracy, metric_of);
    let budget = || Some(SweepBudget { trials: trials?, steps: steps?, seconds: seconds? });
    let spec = || {
        let job = job?;
        Some(SweepSpec {
            name,
            seed: seed?,
            space: constrained(parameters?, constraints?, &job),
            job: job.into_template(),
            objectives: objectives?.unwrap_or_else(|| vec![method::natural(metric)]),
            searcher: searcher?,
            scheduler: scheduler?,
            budget: budget()?,
            workers_per_trial: workers_per_trial?,
            max_concurrent: max_concurrent?,
            priority: priority?,
            elastic: elastic?,
            lock_step: lock_step?,
            trial_retries: trial_retries?,
            max_failed: max_failed?,
            warm_start: warm_start?,
            prior: Vec::new(),
        })
    };
    let spec = spec()?;
    check::options(&spec).into_iter().for_each(report);
    if space_is_right {
        check::against_job(&spec).into_iter().for_each(report);
    }
    Some(spec)
}

fn metric_of(job: JobSpec) -> EvalMetric {
    job.early_stopping.metric
}

/// The space with its parameters in order. Of parameters with conditions that make no sense, which are reported, some are
/// left out.
fn constrained(parameters: Vec<Parameter>, constraints: Vec<Constraint>, job: &JobTree) -> Space {
    let named = |path: &String| constraints.iter().any(|constraint| constraint.paths().contains(path.as_str()));
    let values = job.read().map(|job| job.values()).unwrap_or_default();
    let defaults: Configuration = values.into_iter().filter(|(path, _)| named(path)).collect();
    Space::new(check::ordered(parameters)).constrained(constraints, defaults)
}

/// A job as the sweep file or a job file has it.
struct JobTree {
    tree: Json,
    /// The folder that its data paths are relative to.
    base: PathBuf,
}

impl JobTree {
    /// As the job of a sweep, which alone says how it is called and how many workers there are.
    fn adapted(mut self, name: &RunName, workers: u32) -> Self {
        if let Some(keys) = self.tree.as_object_mut() {
            keys.insert("name".to_owned(), name.as_str().into());
            keys.insert("workers".to_owned(), workers.into());
            keys.insert("min_workers".to_owned(), 1.into());
        }
        self
    }

    fn read(&self) -> Result<JobSpec, String> {
        read_json(&self.tree, &self.base)
    }

    fn into_template(self) -> JobTemplate {
        JobTemplate::new(self.tree, self.base)
    }
}

/// The job, if it is one: from another file, or from here.
fn read_template<L: FnOnce(&Path) -> Result<String, String>>(
    value: &Value<'_>,
    problems: &Collector,
    jobs: Jobs<'_, L>,
) -> Option<JobTree> {
    let Jobs { file, base, load, problems: job_problems } = jobs;
    if value.is_section() {
        return read_inline(value.node(), problems, base);
    }
    if !value.is_text() {
        return value.problem("must be the path of a job file, or the sections of one", None);
    }
    let path = Path::new(value.text()?);
    let at = base.join(path);
    let text = match load(&at) {
        Ok(text) => text,
        Err(why) => return value.problem(format!("is not readable: {why}"), None),
    };
    // Named as the sweep file was, so that it is found from the same place.
    let shown = Path::new(file).parent().map_or(path.to_owned(), |folder| folder.join(path)).display().to_string();
    let folder = at.parent().unwrap_or(Path::new("/"));
    match super::read(&text, &shown, folder) {
        Ok(_) => node::parse(&text).ok().map(|root| JobTree { tree: root.to_json(), base: folder.to_owned() }),
        Err(found) => {
            *job_problems = Some(found);
            None
        }
    }
}

/// The sections of a job inside a sweep file, which need neither version nor name.
fn read_inline(node: &Node, problems: &Collector, base: &Path) -> Option<JobTree> {
    let mut node = node.clone();
    let at = node.at;
    if let Kind::Map(entries) = &mut node.kind {
        let mut add = |key: &str, kind: Kind| {
            if entries.iter().all(|entry| entry.key != key) {
                entries.push(Entry { key: key.to_owned(), key_at: at, value: Node { at, kind } });
            }
        };
        add("version", Kind::Integer(super::VERSION.into()));
        add("name", Kind::Text("job".to_owned()));
    }
    read_job(&Section::inside("job", &node, problems)?, base)?;
    Some(JobTree { tree: node.to_json(), base: base.to_owned() })
}

fn read_constraint(value: &Value<'_>) -> Option<Constraint> {
    match Constraint::parse(value.text()?) {
        Ok(constraint) => Some(constraint),
        Err(error) => value.problem(format!("is no constraint: {error}"), None),
    }
}

/// The name of a sweep, or a list of them.
fn read_warm_start(value: &Value<'_>) -> Option<Vec<RunName>> {
    match (value.is_text(), value.is_list()) {
        (true, _) => read_name(value).map(|name| vec![name]),
        (false, true) => value.list(read_name),
        (false, false) => value.problem("must be the name of a sweep, or a list of names", None),
    }
}
