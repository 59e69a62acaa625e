//! Where the time of a few steps goes: a recorder in the training loop that does nothing unless somebody asked for it.
//!
//! It reads the clock and nothing else, so that a profiled run ends with the same weights.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use models::nn::{Phase, Profile};
use models::{GradientSink, Network};

use crate::step_trace::{StepTracer, WholeStep};
use crate::trace::{Kind, Owner, Span, trace};

/// What a worker is to profile, and where it writes that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiling {
    /// Rank R writes `profile-R.json` here.
    pub folder: PathBuf,
    /// Which steps.
    pub steps: ProfiledSteps,
}

impl Profiling {
    /// The file that a rank writes.
    pub fn file(&self, rank: u32) -> PathBuf {
        self.folder.join(format!("profile-{rank}.json"))
    }
}

/// A range of steps, counted from the first one that a group makes: `3-7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfiledSteps {
    first: u64,
    last: u64,
}

/// More steps show nothing new, and are kept in memory until they are written.
const STEPS_MAX: u64 = 100;

impl Default for ProfiledSteps {
    /// Past the first steps, in which caches and buffers fill.
    fn default() -> Self {
        Self { first: 3, last: 7 }
    }
}

impl fmt::Display for ProfiledSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for ProfiledSteps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("must be FIRST-LAST, such as {}, counted from 1", Self::default());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u64>().map_err(|_| wanted());
        let (first, last) = (number(first)?, number(last)?);
        if first == 0 || last < first {
            return Err(wanted());
        }
        if last - first >= STEPS_MAX {
            return Err(format!("must be at most {STEPS_MAX} steps"));
        }
        Ok(Self { first, last })
    }
}

/// Records the profiled steps of one group. All its methods do nothing outside of such a step.
pub(crate) struct Recorder(Option<Box<Recording>>);

struct Recording {
    profiling: Profiling,
    /// Where the model notes its operators; its clock is the one of all spans.
    operators: Arc<Profile>,
    /// When that clock began, since midnight, UTC.
    origin: Duration,
    /// Who else is told of whole steps.
    tracer: Option<StepTracer>,
    /// Steps that the group has begun.
    begun: u64,
    /// The step in progress, if it is profiled.
    step: Option<InStep>,
    /// Whole steps.
    spans: Vec<Span>,
}

struct InStep {
    number: u64,
    /// When it began, by the clock on the wall.
    wall: SystemTime,
    /// Samples that were read.
    samples: u64,
    begin: Duration,
    /// Where the last phase ended.
    last: Duration,
    spans: Vec<Span>,
}

impl Recorder {
    pub(crate) fn new(profiling: Option<Profiling>, tracer: Option<StepTracer>) -> Self {
        Self(profiling.map(|profiling| {
            let operators = Arc::new(Profile::new());
            let origin = since_midnight();
            Box::new(Recording { profiling, operators, origin, tracer, begun: 0, step: None, spans: Vec::new() })
        }))
    }

    /// The next step, with this number in the run, begins.
    pub(crate) fn begin_step(&mut self, step: u64, network: &mut Network) {
        let Some(recording) = &mut self.0 else { return };
        recording.begun += 1;
        let ProfiledSteps { first, last } = recording.profiling.steps;
        if (first..=last).contains(&recording.begun) {
            network.set_profile(Some(recording.operators.clone()));
            let (wall, begin) = (SystemTime::now(), recording.now());
            recording.step = Some(InStep { number: step, wall, samples: 0, begin, last: begin, spans: Vec::new() });
        }
    }

    /// The time since the last phase went into this one.
    pub(crate) fn phase(&mut self, phase: &'static str) {
        let Some((step, now)) = self.in_step() else { return };
        step.phase(phase, now);
    }

    /// So many samples were read for the step.
    pub(crate) fn read(&mut self, samples: usize) {
        if let Some(step) = self.0.as_mut().and_then(|recording| recording.step.as_mut()) {
            step.samples += samples as u64;
        }
    }

    /// The time since the last phase went into a forward and a backward pass.
    pub(crate) fn passes(&mut self) {
        let Some(recording) = &mut self.0 else { return };
        let (operators, now) = (recording.operators.take(), recording.now());
        let Some(step) = &mut recording.step else { return };
        let forward =
            operators.iter().filter(|span| span.phase == Phase::Forward).map(|span| span.begin + span.duration);
        let turn = forward.max().unwrap_or(step.last);
        step.phase("forward", turn);
        step.phase("backward", now);
        step.add(&operators);
    }

    /// Lets `sink` take a gradient, and notes how long that takes.
    pub(crate) fn watch<'a, S: GradientSink>(&'a mut self, sink: &'a mut S) -> Watched<'a, S> {
        Watched { recorder: self, sink }
    }

    /// The group has reduced a bucket of the gradient, in this time.
    pub(crate) fn reduced(&mut self, bucket: usize, took: Range<Instant>) {
        let Some(recording) = &mut self.0 else { return };
        let began = recording.operators.began();
        let [begin, end] = [took.start, took.end].map(|time| time.saturating_duration_since(began));
        let Some(step) = &mut recording.step else { return };
        let name = format!("bucket {bucket}");
        step.spans.push(Span { kind: Kind::Reduction, name, phase: "", begin, end, operations: 0 });
    }

    /// The step is over. Tells whether it was the last one to profile.
    pub(crate) fn end_step(&mut self) -> bool {
        let Some(recording) = &mut self.0 else { return false };
        let Some(step) = recording.step.take() else { return false };
        let InStep { number, wall, samples, begin, last: end, mut spans } = step;
        if let Some(tracer) = &recording.tracer {
            tracer.tell(&WholeStep { number, wall, begin, end, samples, spans: &spans });
        }
        let name = format!("step {number}");
        recording.spans.push(Span { kind: Kind::Step, name, phase: "", begin, end, operations: 0 });
        recording.spans.append(&mut spans);
        recording.begun == recording.profiling.steps.last
    }

    /// Stops recording, and writes the whole steps, if there are any. Tells where they are.
    pub(crate) fn end(&mut self, network: &mut Network, rank: u32, worker: String) -> Option<std::io::Result<PathBuf>> {
        let Recording { profiling, origin, spans, .. } = *self.0.take()?;
        network.set_profile(None);
        if spans.is_empty() {
            return None;
        }
        let owner = Owner { rank, worker, peak_gflops: models::peak_gflops(), origin };
        let path = profiling.file(rank);
        let text = trace(&owner, &spans).to_string();
        Some(write(&profiling.folder, &path, &text).map(|()| path))
    }

    fn in_step(&mut self) -> Option<(&mut InStep, Duration)> {
        let recording = self.0.as_mut()?;
        let now = recording.now();
        Some((recording.step.as_mut()?, now))
    }
}

impl Recording {
    fn now(&self) -> Duration {
        self.operators.began().elapsed()
    }
}

impl InStep {
    fn phase(&mut self, phase: &'static str, end: Duration) {
        let begin = std::mem::replace(&mut self.last, end);
        self.spans.push(Span { kind: Kind::Phase, name: phase.to_owned(), phase, begin, end, operations: 0 });
    }

    /// Adds operators, and around those of a part of the model that follow one another a span of that part.
    fn add(&mut self, operators: &[models::nn::Span]) {
        for layer in operators.chunk_by(|left, right| (left.phase, &left.scope) == (right.phase, &right.scope)) {
            let spans: Vec<Span> = layer.iter().map(operator).collect();
            let name = layer[0].scope.clone();
            let (begin, end) = (spans[0].begin, spans[spans.len() - 1].end);
            let operations = spans.iter().map(|span| span.operations).sum();
            self.spans.push(Span { kind: Kind::Layer, name, phase: spans[0].phase, begin, end, operations });
            self.spans.extend(spans);
        }
    }
}

fn operator(span: &models::nn::Span) -> Span {
    let models::nn::Span { phase, scope: _, name, begin, duration, operations } = span;
    let phase = match phase {
        Phase::Forward => "forward",
        Phase::Backward => "backward",
    };
    let (name, end, operations) = ((*name).to_owned(), *begin + *duration, *operations);
    Span { kind: Kind::Operator, name, phase, begin: *begin, end, operations }
}

/// Passes a gradient on to `sink`.
pub(crate) struct Watched<'a, S> {
    recorder: &'a mut Recorder,
    sink: &'a mut S,
}

impl<S: GradientSink> GradientSink for Watched<'_, S> {
    fn buffer(&mut self, bucket: usize, len: usize) -> Vec<f32> {
        self.sink.buffer(bucket, len)
    }

    fn complete(&mut self, bucket: usize, values: Vec<f32>) {
        let begin = self.recorder.in_step().map(|(_, now)| now);
        self.sink.complete(bucket, values);
        if let (Some((step, end)), Some(begin)) = (self.recorder.in_step(), begin) {
            let name = format!("bucket {bucket}");
            step.spans.push(Span { kind: Kind::Bucket, name, phase: "backward", begin, end, operations: 0 });
        }
    }
}

/// By the clock on the wall; since so short a time ago, it has nanoseconds in the numbers of JSON.
fn since_midnight() -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    // A clock that stands before 1970 tells nothing.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::new(now.as_secs() % DAY, now.subsec_nanos())
}

/// Whoever sees the file sees all of it.
fn write(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}
