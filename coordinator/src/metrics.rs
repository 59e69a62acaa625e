//! Figures of the coordinator for Prometheus. Names, units and what they mean are in [`Metrics::new`]; no run, trial or
//! worker is a label, so their number does not grow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::engine::LossCause;
use domain::picture::Picture;
use domain::record::StepRecord;
use domain::view::{RunState, TrialState};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use telemetry::Lost;
use tokio_util::sync::CancellationToken;

/// A handle; clones share the figures.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    pub(crate) steps: Counter,
    pub(crate) samples: Counter,
    pub(crate) step_duration: Histogram,
    pub(crate) outside_duration: Histogram,
    pub(crate) records_stored: Counter,
    pub(crate) journal_append: Histogram,
    pub(crate) journal_entries: Counter,
    pub(crate) formations: Counter,
    pub(crate) recovery: Histogram,
    workers_lost: [Counter; LOST.len()],
    telemetry_lost: [Counter; 2],
    lost: Option<Lost>,
    workers: Gauge,
    sinks_behind: Gauge,
    stalled: Gauge,
    runs: [Gauge; RUN_STATES.len()],
    trials: [Gauge; TRIAL_STATES.len()],
    process: Process,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// In the order of their declaration.
const RUN_STATES: [RunState; 9] = [
    RunState::Waiting,
    RunState::Forming,
    RunState::Running,
    RunState::Stopping,
    RunState::Stopped,
    RunState::Paused,
    RunState::Pruned,
    RunState::Completed,
    RunState::Failed,
];

/// In the order of their declaration.
const TRIAL_STATES: [TrialState; 5] =
    [TrialState::Training, TrialState::Paused, TrialState::Completed, TrialState::Pruned, TrialState::Failed];

const LOST: [&str; 3] = ["connection_closed", "lease_expired", "left"];

/// Seconds of steps: from small models on fast machines to large ones.
const STEP_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds of appending to the journal, which ends with a sync of the disk.
const APPEND_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];
/// Seconds from the loss of a group to the next one.
const RECOVERY_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    /// All figures, at zero. `lost` counts what is told a collector in vain.
    ///
    /// # Panics
    /// Never: the buckets are constant.
    pub(crate) fn new(lost: Option<Lost>) -> Self {
        let buckets = [
            ("phalanx_step_duration_seconds", STEP_BUCKETS.as_slice()),
            ("phalanx_step_outside_seconds", &STEP_BUCKETS),
            ("phalanx_journal_append_seconds", &APPEND_BUCKETS),
            ("phalanx_recovery_seconds", &RECOVERY_BUCKETS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (name, bounds) in buckets {
            let matcher = Matcher::Full(name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, bounds).expect("there are buckets");
        }
        let recorder = builder.build_recorder();
        let make = Make { recorder: &recorder };
        make.gauge("phalanx_build_info", "The program that runs.", &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let of_run = |state: RunState| {
            let text = "Runs that are known, trials of sweeps included, by where they stand.";
            make.gauge("phalanx_runs", text, &[("state", &state.to_string())])
        };
        let of_trial = |state: TrialState| {
            let text = "Trials of sweeps, by where they stand.";
            make.gauge("phalanx_sweep_trials", text, &[("state", &state.to_string())])
        };
        let lost_worker = |cause: &str| {
            let text = "Workers that are gone, by how that was noticed.";
            make.counter("phalanx_workers_lost_total", text, &[("cause", cause)])
        };
        let untold = |signal: &str| {
            let text = "Spans and log records of the coordinator that did not get to the collector of --otlp.";
            make.counter("phalanx_telemetry_lost_total", text, &[("signal", signal)])
        };
        Self {
            steps: make.counter("phalanx_steps_total", "Optimizer steps that became durable.", &[]),
            samples: make.counter("phalanx_samples_total", "Samples read by durable steps.", &[]),
            step_duration: make.histogram("phalanx_step_duration_seconds", "Wall time of steps."),
            outside_duration: make.histogram(
                "phalanx_step_outside_seconds",
                "Wall time of steps outside the model: waiting for data, reducing, reporting.",
            ),
            records_stored: make.counter(
                "phalanx_records_stored_total",
                "Records that were written to the store.",
                &[],
            ),
            journal_append: make.histogram("phalanx_journal_append_seconds", "Time to make events durable."),
            journal_entries: make.counter("phalanx_journal_entries_total", "Events that were journalled.", &[]),
            formations: make.counter("phalanx_group_formations_total", "Groups of workers that formed.", &[]),
            recovery: make
                .histogram("phalanx_recovery_seconds", "Time from the loss of a group until steps were made again."),
            workers_lost: LOST.map(lost_worker),
            telemetry_lost: ["spans", "logs"].map(untold),
            lost,
            sinks_behind: make.gauge(
                "phalanx_sinks_behind",
                "Sinks that are not up to date and cannot be reached.",
                &[],
            ),
            stalled: make.gauge("phalanx_store_stalled", "1 while the store cannot be written, otherwise 0.", &[]),
            workers: make.gauge("phalanx_workers_connected", "Workers that are connected.", &[]),
            runs: RUN_STATES.map(of_run),
            trials: TRIAL_STATES.map(of_trial),
            process: Process::new(&make),
            handle: recorder.handle(),
        }
    }

    /// A step became durable.
    pub(crate) fn step(&self, record: &StepRecord, samples: Option<u64>) {
        self.steps.increment(1);
        self.samples.increment(samples.unwrap_or_default());
        self.step_duration.record(record.micros as f64 / 1e6);
        self.outside_duration.record(record.micros_outside_model as f64 / 1e6);
    }

    /// So many events were journalled.
    pub(crate) fn journalled(&self, entries: usize, took: Duration) {
        self.journal_entries.increment(entries as u64);
        self.journal_append.record(took);
    }

    /// A worker is gone.
    pub(crate) fn lost(&self, cause: &LossCause) {
        let [closed, expired, left] = &self.workers_lost;
        match cause {
            LossCause::ConnectionClosed => closed.increment(1),
            LossCause::LeaseExpired { .. } => expired.increment(1),
            LossCause::Left => left.increment(1),
        }
    }

    /// Folds what was recorded into the buckets. To be called now and then, for until then each value takes memory.
    pub(crate) fn tidy(&self) {
        self.handle.run_upkeep();
    }

    /// Everything in the text format of Prometheus, with `picture` as what is there now, and so many sinks in trouble.
    pub(crate) fn render(&self, picture: &Picture, troubled: usize) -> String {
        self.sinks_behind.set(troubled as f64);
        self.stalled.set(f64::from(u8::from(picture.stall().is_some())));
        self.workers.set(picture.workers().iter().filter(|worker| worker.connected).count() as f64);
        let mut runs = [0_u32; RUN_STATES.len()];
        for run in picture.runs() {
            runs[run.view.state as usize] += 1;
        }
        let mut trials = [0_u32; TRIAL_STATES.len()];
        for trial in picture.sweeps().flat_map(|sweep| sweep.trials()) {
            trials[trial.view.state as usize] += 1;
        }
        for (gauge, count) in self.runs.iter().zip(runs).chain(self.trials.iter().zip(trials)) {
            gauge.set(f64::from(count));
        }
        if let Some(lost) = &self.lost {
            let [spans, logs] = &self.telemetry_lost;
            spans.absolute(lost.spans());
            logs.absolute(lost.logs());
        }
        self.process.look();
        self.tidy();
        self.handle.render()
    }
}

/// Makes figures.
struct Make<'a> {
    recorder: &'a PrometheusRecorder,
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Make<'_> {
    fn counter(&self, name: &'static str, text: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.describe_counter(KeyName::from(name), None, text.into());
        let counter = self.recorder.register_counter(&key(name, labels), &METADATA);
        // It is there from the beginning, or the first increase could not be seen.
        counter.increment(0);
        counter
    }

    fn gauge(&self, name: &'static str, text: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.describe_gauge(KeyName::from(name), None, text.into());
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, text: &'static str) -> Histogram {
        self.recorder.describe_histogram(KeyName::from(name), Some(Unit::Seconds), text.into());
        self.recorder.register_histogram(&key(name, &[]), &METADATA)
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

/// What the system knows of this process, under the names that Prometheus' own clients use.
#[derive(Clone)]
struct Process {
    memory: Gauge,
    processor: Counter,
    files: Gauge,
}

/// The unit of processor times in `/proc`: on Linux always a hundredth of a second.
const TICKS_PER_SECOND: u64 = 100;

impl Process {
    fn new(make: &Make<'_>) -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = "When the process started, in seconds since the Unix epoch.";
        make.gauge("process_start_time_seconds", text, &[]).set(start.as_secs_f64());
        Self {
            memory: make.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", &[]),
            processor: make.counter(
                "process_cpu_seconds_total",
                "Processor time of the process, in whole seconds.",
                &[],
            ),
            files: make.gauge("process_open_fds", "File descriptors that are open.", &[]),
        }
    }

    /// Reads `/proc`; what is not there stays as it is.
    fn look(&self) {
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            if let Some(kilobytes) = kilobytes {
                self.memory.set((kilobytes * 1024) as f64);
            }
        }
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The name of the program comes before, in brackets, and may hold anything.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
            let times: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
            self.processor.absolute(times / TICKS_PER_SECOND);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(open.count() as f64);
        }
    }
}

/// Folds figures until the coordinator ends.
pub(crate) async fn keep_tidy(metrics: Metrics, shutdown: CancellationToken) {
    let mut due = tokio::time::interval(TIDY_EVERY);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = due.tick() => metrics.tidy(),
        }
    }
}

/// At a thousand steps a second these are some hundred kilobytes.
const TIDY_EVERY: Duration = Duration::from_secs(5);
