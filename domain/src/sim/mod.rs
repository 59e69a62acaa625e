//! The engine under fire: scripted workers, users and a coordinator in virtual time, drawn from a seed.
//!
//! [`simulate`] plays one seed: workers connect, form groups, make steps, save, crash, freeze, lose their connection; the
//! coordinator crashes between the journal and the effects; users submit, stop, resume, change priorities, pin
//! checkpoints and drain workers. After every event the
//! `invariant_*` functions are asked. Then the faults cease: every run must end, and once all are resumed, every run must
//! complete with the weights of the undisturbed training. A seed replays alike on every machine.
//!
//! The workers follow `phalanx.v1.WorkerLink`: reports carry sequence numbers and are sent again until acknowledged,
//! messages of one connection arrive in order, what is under way when a connection breaks is lost.

mod coordinator;
mod group;
mod invariants;
mod plan;
mod requests;
mod sabotage;
mod store;
mod sweep;
mod worker;

use std::collections::BTreeMap;

use self::invariants::Seen;
#[cfg(test)]
pub(crate) use self::plan::base_spec;
use self::plan::{Plan, State};
use self::sabotage::Sabotage;
use self::store::Store;
use self::worker::{Command, Link, Reaction, Report, Worker};
use crate::engine::{Deadline, Effect, Engine, Event, Timing};
use crate::ids::{Generation, RunName, Step, Time, TrialId, WorkerId};
use crate::random::{Purpose, Stream};
use crate::record::SavedPart;
use crate::spec::sweep::SweepSpec;
use crate::view::{RunState, View};

/// Faults and users are at work for this long, in virtual milliseconds.
const TROUBLE_MS: u64 = 25_000;

/// Once faults have ceased, all runs must end within this time: some doubled waits for groups that do not form, and the
/// training itself.
const CALM_MS: u64 = 600_000;

/// More events than any seed needs: the simulation does not spin.
const EVENTS_MAX: u64 = 200_000;

/// What a simulation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the engine was told.
    pub events: u64,
    /// Effects that it asked for.
    pub effects: u64,
    /// Jobs that completed.
    pub completed: u64,
    /// Trials of sweeps.
    pub trials: u64,
    /// Groups that were formed.
    pub groups: u64,
    /// Crashes of the coordinator.
    pub restarts: u64,
    /// Recorded steps that a run went back behind.
    pub steps_lost: u64,
}

/// Plays one seed of jobs and gives every event and effect to `trace`, as text.
///
/// # Panics
/// If an invariant does not hold.
pub fn simulate(seed: u64, trace: Option<&mut dyn FnMut(&str)>) -> Summary {
    simulate_with(seed, Sabotage::None, trace)
}

fn simulate_with(seed: u64, sabotage: Sabotage, trace: Option<&mut dyn FnMut(&str)>) -> Summary {
    let mut world = World::new(seed, sabotage, trace);
    world.play();
    world.summary
}

/// Plays one seed of a sweep beside jobs, as [`simulate`] does. What a sweep in lock step decides is compared with what it
/// does on one worker and without faults.
///
/// # Panics
/// If an invariant does not hold.
pub fn simulate_sweep(seed: u64, trace: Option<&mut dyn FnMut(&str)>) -> Summary {
    simulate_sweep_with(seed, Sabotage::None, trace)
}

fn simulate_sweep_with(seed: u64, sabotage: Sabotage, trace: Option<&mut dyn FnMut(&str)>) -> Summary {
    let mut random = Stream::new(seed, Purpose::Simulation, &[SWEEP]);
    let spec = sweep::draw(&mut random);
    let mut world = World::new(seed, sabotage, trace);
    world.sweep = Some(spec.clone());
    world.play();
    if spec.lock_step {
        let alone = undisturbed_sweep(&spec, spec.workers_per_trial.into());
        assert_eq!(sweep::outcome(world.engine()), alone, "decisions of a sweep in lock step depend on the cluster");
    }
    world.summary
}

/// What a sweep comes to on so many workers, without faults.
fn undisturbed_sweep(spec: &SweepSpec, workers: u64) -> Outcome {
    let mut world = World::new(0, Sabotage::None, None);
    world.agenda.clear();
    world.faults = false;
    world.sweep = Some(spec.clone());
    for _ in 0..workers {
        world.born();
    }
    world.at(Time(1), Action::User);
    world.play_while_live(Time(CALM_MS));
    world.check_end();
    sweep::outcome(world.engine())
}

/// What a sweep decided, and what came of its trials.
type Outcome = (Vec<crate::search::study::Fact>, Vec<(crate::view::TrialState, String, Step)>);

/// The stream that sweeps are drawn from.
const SWEEP: u64 = 0x5357_4550;

struct World<'a> {
    now: Time,
    random: Stream,
    agenda: BTreeMap<(Time, u64), Action>,
    next_entry: u64,
    next_id: u64,
    faults: bool,
    /// Whether a worker has lacked the data.
    had_bad: bool,
    /// One in so many facts is the last that a coordinator hears.
    crash_one_in: u64,
    timing: Timing,
    /// `None` while the coordinator is down.
    engine: Option<Engine>,
    /// Counts the starts of the coordinator: what an earlier one had under way is void.
    life: u64,
    /// Connections as the coordinator sees them.
    connected: BTreeMap<WorkerId, u64>,
    store: Store,
    plans: BTreeMap<RunName, Plan>,
    undisturbed: BTreeMap<RunName, Vec<State>>,
    /// A sweep that a user hands in first of all.
    sweep: Option<SweepSpec>,
    workers: BTreeMap<WorkerId, Worker>,
    seen: Seen,
    summary: Summary,
    sabotage: Sabotage,
    trace: Option<&'a mut dyn FnMut(&str)>,
}

/// Something that is about to happen.
enum Action {
    Connect(WorkerId),
    HelloArrives {
        worker: WorkerId,
        link: u64,
        event: Box<Event>,
    },
    ReportArrives {
        worker: WorkerId,
        link: u64,
        sequence: u64,
        report: Box<Report>,
    },
    HeartbeatArrives {
        worker: WorkerId,
        link: u64,
    },
    CommandArrives {
        worker: WorkerId,
        link: u64,
        command: Box<Command>,
    },
    LinkEnds {
        worker: WorkerId,
        link: u64,
    },
    Heartbeat(WorkerId),
    Thaw(WorkerId),
    Born,
    TryForm {
        trial: TrialId,
        generation: Generation,
    },
    ConnectTimeout {
        worker: WorkerId,
        trial: TrialId,
        generation: Generation,
    },
    Work {
        trial: TrialId,
        generation: Generation,
        members: Vec<WorkerId>,
    },
    PartDone(Box<PartDone>),
    ManifestDone {
        life: u64,
        event: Box<Event>,
    },
    CoordinatorStarts,
    Poll,
    Fault,
    User,
    /// A user drains a worker, or takes one back.
    Drain,
    /// A user takes all drained workers back.
    Undrain,
}

struct PartDone {
    worker: WorkerId,
    trial: TrialId,
    generation: Generation,
    part: SavedPart,
    state: State,
    finish: Option<crate::engine::AttemptOutcome>,
}

impl<'a> World<'a> {
    fn new(seed: u64, sabotage: Sabotage, trace: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let timing = Timing { lease_ms: 3_000, gather_ms: 500, form_ms: 4_000, rejoin_ms: 6_000 };
        let mut world = Self {
            now: Time(0),
            random: Stream::new(seed, Purpose::Simulation, &[]),
            agenda: BTreeMap::new(),
            next_entry: 0,
            next_id: 1,
            faults: true,
            had_bad: false,
            crash_one_in: 300,
            timing,
            engine: Some(Engine::new(timing)),
            life: 0,
            connected: BTreeMap::new(),
            store: Store::default(),
            plans: BTreeMap::new(),
            undisturbed: BTreeMap::new(),
            sweep: None,
            workers: BTreeMap::new(),
            seen: Seen::default(),
            summary: Summary::default(),
            sabotage,
            trace,
        };
        for _ in 0..1 + world.random.below(4) {
            world.after_up_to(800, Action::Born);
        }
        world.after_up_to(300, Action::User);
        world.after_up_to(3000, Action::Fault);
        world
    }

    /// Trouble, then calm, until all runs have completed.
    fn play(&mut self) {
        self.play_until(Time(TROUBLE_MS));
        self.calm_down();
        self.play_while_live(self.now.after_ms(CALM_MS));
        self.resume_all();
        self.play_while_live(self.now.after_ms(CALM_MS));
        self.check_end();
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the coordinator is up")
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(&format!("{:>7} {}", self.now.0, text()));
        }
    }

    fn at(&mut self, time: Time, action: Action) {
        self.next_entry += 1;
        self.agenda.insert((time, self.next_entry), action);
    }

    fn after_up_to(&mut self, ms: u64, action: Action) {
        let delay = 1 + self.random.below(ms);
        self.at(self.now.after_ms(delay), action);
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    /// With faults, one in `n`; never once they have ceased.
    fn fault_in(&mut self, n: u64) -> bool {
        self.faults && self.one_in(n)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn play_until(&mut self, until: Time) {
        while let Some(((time, _), _)) = self.agenda.first_key_value()
            && *time <= until
        {
            self.play_one();
        }
        self.now = until;
    }

    fn play_while_live(&mut self, until: Time) {
        while self.has_live_runs() {
            assert!(self.now <= until, "runs are live still: {:#?}", self.engine.as_ref().map(Engine::view));
            assert!(!self.agenda.is_empty(), "nothing is left to happen");
            self.play_one();
        }
    }

    fn play_one(&mut self) {
        let ((time, _), action) = self.agenda.pop_first().expect("the agenda is not empty");
        self.now = time;
        self.act(action);
        self.summary.events += 1;
        assert!(self.summary.events < EVENTS_MAX, "the simulation spins");
    }

    fn has_live_runs(&self) -> bool {
        let Some(engine) = &self.engine else { return true };
        let view = engine.view();
        let is_handed_in = self.sweep.as_ref().is_none_or(|sweep| engine.sweep_spec(&sweep.name).is_some());
        let has_live_sweep = view.sweeps.iter().any(|sweep| !sweep.state.is_ended());
        !is_handed_in || has_live_sweep || view.runs.iter().any(|run| !run.state.is_ended())
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(worker) => self.connect(worker),
            Action::HelloArrives { worker, link, event } => self.hello_arrives(worker, link, *event),
            Action::ReportArrives { worker, link, sequence, report } => {
                self.report_arrives(worker, link, sequence, *report);
            }
            Action::HeartbeatArrives { worker, link } => {
                if self.connected.get(&worker) == Some(&link) {
                    self.tell(Event::Alive { worker });
                }
            }
            Action::CommandArrives { worker, link, command } => self.command_arrives(worker, link, command),
            Action::LinkEnds { worker, link } => self.link_ends(worker, link),
            Action::Heartbeat(worker) => self.heartbeat(worker),
            Action::Thaw(worker) => self.thaw(worker),
            Action::Born => self.born(),
            Action::TryForm { trial, generation } => self.try_form(&trial, generation),
            Action::ConnectTimeout { worker, trial, generation } => self.connect_timeout(worker, &trial, generation),
            Action::Work { trial, generation, members } => self.work(trial, generation, members),
            Action::PartDone(done) => self.part_done(*done),
            Action::ManifestDone { life, event } => {
                if life == self.life && self.engine.is_some() {
                    self.tell(*event);
                }
            }
            Action::CoordinatorStarts => self.coordinator_starts(),
            Action::Poll => self.poll(),
            Action::Fault => self.fault(),
            Action::User => self.user(),
            Action::Drain => self.drain(),
            Action::Undrain => self.undrain(),
        }
    }

    // Workers and their connections.

    fn born(&mut self) {
        let id = WorkerId(self.fresh_id());
        let mut worker = Worker::new(id);
        // A trial that is asked for again and again would get such a worker again and again.
        worker.bad = self.fault_in(10) && self.sweep.is_none();
        self.had_bad |= worker.bad;
        self.workers.insert(id, worker);
        self.say(|| format!("worker {} starts", id.short()));
        self.at(self.now, Action::Connect(id));
        self.at(self.now, Action::Heartbeat(id));
    }

    fn connect(&mut self, id: WorkerId) {
        let link_id = self.fresh_id();
        let is_down = self.engine.is_none();
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.link.is_none()) else { return };
        if is_down || worker.frozen {
            return self.after_up_to(500, Action::Connect(id));
        }
        worker.link = Some(Link { id: link_id, newest_up: self.now.0, newest_down: self.now.0 });
        let event = Box::new(Event::Joined { worker: worker.info.clone(), running: worker.running() });
        let unacknowledged: Vec<(u64, Report)> = worker.unacknowledged.iter().cloned().collect();
        let arrival = self.arrival_up(id);
        self.at(arrival, Action::HelloArrives { worker: id, link: link_id, event });
        for (sequence, report) in unacknowledged {
            self.send_up(id, sequence, report);
        }
    }

    /// When what `id` sends now arrives: after what it sent before.
    fn arrival_up(&mut self, id: WorkerId) -> Time {
        let delay = 1 + self.random.below(15);
        let link = self.workers.get_mut(&id).and_then(|w| w.link.as_mut()).expect("only linked workers send");
        link.newest_up = link.newest_up.max(self.now.0 + delay);
        Time(link.newest_up)
    }

    fn send_up(&mut self, id: WorkerId, sequence: u64, report: Report) {
        let arrival = self.arrival_up(id);
        let link = self.workers[&id].link.expect("only linked workers send").id;
        let report = Box::new(report);
        if self.fault_in(30) {
            let report = report.clone();
            self.at(arrival, Action::ReportArrives { worker: id, link, sequence, report });
        }
        self.at(arrival, Action::ReportArrives { worker: id, link, sequence, report });
    }

    fn report(&mut self, id: WorkerId, report: Report) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (sequence, report) = worker.queue(report);
        if worker.link.is_some() {
            self.send_up(id, sequence, report);
        }
    }

    fn heartbeat(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if let Some(link) = worker.link.filter(|_| !worker.frozen) {
            let arrival = self.arrival_up(id);
            self.at(arrival, Action::HeartbeatArrives { worker: id, link: link.id });
        }
        self.at(self.now.after_ms(1000), Action::Heartbeat(id));
    }

    fn send_down(&mut self, id: WorkerId, command: Command) {
        let delay = 1 + self.random.below(15);
        let is_doubled = self.fault_in(20);
        let Some(link) = self.connected.get(&id).copied() else { return };
        let Some(worker_link) = self.workers.get_mut(&id).and_then(|w| w.link.as_mut()).filter(|l| l.id == link) else {
            return;
        };
        worker_link.newest_down = worker_link.newest_down.max(self.now.0 + delay);
        let arrival = Time(worker_link.newest_down);
        for _ in 0..1 + u8::from(is_doubled) {
            let command = Box::new(command.clone());
            self.at(arrival, Action::CommandArrives { worker: id, link, command });
        }
    }

    fn command_arrives(&mut self, id: WorkerId, link: u64, command: Box<Command>) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id).filter(|w| w.link.is_some_and(|l| l.id == link)) else { return };
        if worker.frozen {
            return self.at(now.after_ms(25), Action::CommandArrives { worker: id, link, command });
        }
        if let Command::Stop { trial, generation } = &*command
            && worker.is_in(trial, *generation).is_some()
        {
            self.seen.stop_delivered(trial, *generation, id);
            if !self.sabotage.heeds_stops() {
                return;
            }
        }
        let worker = self.workers.get_mut(&id).expect("seen above");
        if worker.obey(*command) == Reaction::Connecting {
            self.begin_connecting(id);
        }
    }

    /// The connection is gone; the coordinator notices a little later, if it is there, or by the lease.
    fn break_link(&mut self, id: WorkerId, is_noticed: bool) {
        let Some(link) = self.workers.get_mut(&id).and_then(|w| w.link.take()) else { return };
        if is_noticed {
            self.after_up_to(40, Action::LinkEnds { worker: id, link: link.id });
        }
        self.after_up_to(900, Action::Connect(id));
    }

    fn thaw(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.frozen = false;
        let lost_link = worker.link.is_some_and(|link| self.connected.get(&id) != Some(&link.id));
        if let Some(attempt) = &worker.attempt {
            let (trial, generation) = (attempt.assignment.trial.clone(), attempt.assignment.generation);
            self.after_up_to(20, Action::TryForm { trial, generation });
        }
        if lost_link {
            self.break_link(id, false);
        }
        self.say(|| format!("worker {} thaws", id.short()));
    }

    // Trouble.

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        self.after_up_to(2500, Action::Fault);
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        let victim = (!ids.is_empty()).then(|| ids[self.random.below(ids.len() as u64) as usize]);
        match (self.random.below(12), victim) {
            (0..=3, Some(id)) => {
                self.say(|| format!("worker {} crashes", id.short()));
                let is_noticed = !self.one_in(5);
                self.break_link(id, is_noticed);
                self.workers.remove(&id);
                if !self.one_in(4) {
                    self.after_up_to(2000, Action::Born);
                }
            }
            (4..=6, Some(id)) => {
                self.say(|| format!("worker {} loses its connection", id.short()));
                let is_noticed = !self.one_in(4);
                self.break_link(id, is_noticed);
            }
            (7, Some(id)) => {
                self.say(|| format!("worker {} freezes", id.short()));
                self.workers.get_mut(&id).expect("drawn from the living").frozen = true;
                self.after_up_to(6000, Action::Thaw(id));
            }
            (8, _) if self.workers.len() < 5 => self.at(self.now, Action::Born),
            (9..=10, _) => self.coordinator_crashes(),
            (11, _) => {
                self.say(|| "every connection breaks".to_owned());
                for id in ids {
                    self.break_link(id, true);
                }
            }
            _ => {}
        }
    }

    fn calm_down(&mut self) {
        self.say(|| "the faults cease".to_owned());
        self.faults = false;
        let bad: Vec<WorkerId> = self.workers.values().filter(|w| w.bad).map(|w| w.info.id).collect();
        for id in bad {
            self.break_link(id, true);
            self.workers.remove(&id);
        }
        if self.had_bad {
            // Whoever was left out beside one of them is not until it connects anew.
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                self.break_link(id, true);
            }
        }
        self.at(self.now, Action::Undrain);
        let missing = 3usize.saturating_sub(self.workers.len());
        for _ in 0..missing {
            self.after_up_to(500, Action::Born);
        }
    }

    // Users.

    fn user(&mut self) {
        if let Some(spec) = self.sweep.clone()
            && self.engine.as_ref().is_none_or(|engine| engine.sweep_spec(&spec.name).is_none())
        {
            self.after_up_to(1000, Action::User);
            return self.ask(Event::SweepSubmitted { spec: Box::new(spec) });
        }
        if !self.faults {
            return;
        }
        self.after_up_to(4000, Action::User);
        if self.sweep.is_some() && self.one_in(2) {
            if let Some(request) = sweep::request(&mut self.random) {
                self.ask(request);
            }
            return;
        }
        let is_job = |name: &&RunName| self.sweep.is_none() || name.as_str().starts_with("run");
        let names: Vec<RunName> = self.plans.keys().filter(is_job).cloned().collect();
        if names.is_empty() || (names.len() < 3 && self.one_in(2)) {
            let name = RunName::new(format!("run{}", names.len())).expect("a fine name");
            let plan = Plan::draw(name.clone(), &mut self.random);
            let spec = Box::new(plan.spec.clone());
            self.undisturbed.insert(name.clone(), plan.undisturbed());
            self.plans.insert(name, plan);
            return self.ask(Event::Submitted { spec });
        }
        let run = names[self.random.below(names.len() as u64) as usize].clone();
        match self.random.below(11) {
            0 => self.ask(Event::StopRequested { run }),
            1..=3 => self.ask(Event::ResumeRequested { run }),
            4 => {
                let priority = self.random.below(3) as i32 - 1;
                self.ask(Event::PriorityRequested { run, priority });
            }
            5..=6 => {
                let view = self.engine.as_ref().map(Engine::view).unwrap_or_default();
                let about = view.runs.iter().find(|known| known.name == run);
                if let Some(request) = about.and_then(|run| requests::about_a_checkpoint(run, &mut self.random)) {
                    self.ask(request);
                }
            }
            7..=9 => self.at(self.now, Action::Drain),
            _ => {}
        }
    }

    fn drain(&mut self) {
        let view = self.engine.as_ref().map(Engine::view).unwrap_or_default();
        if let Some(request) = requests::about_a_worker(&view, &mut self.random) {
            self.ask(request);
        }
    }

    fn undrain(&mut self) {
        for worker in self.seen.requested().drained().collect::<Vec<_>>() {
            self.ask(Event::UndrainRequested { worker });
        }
        if self.seen.requested().drained().next().is_some() {
            // Nobody heard it: the user tries again.
            self.after_up_to(500, Action::Undrain);
        }
    }

    fn ask(&mut self, event: Event) {
        let Some(engine) = &self.engine else {
            // Nobody heard it: the user tries again.
            if let Event::Submitted { spec } = &event {
                self.plans.remove(&spec.name);
            }
            return;
        };
        if engine.check(&event).is_ok() {
            self.tell(event);
        }
    }

    fn resume_all(&mut self) {
        let View { runs, sweeps, .. } = self.engine().view();
        for run in runs.into_iter().filter(|run| run.state != RunState::Completed) {
            self.ask(Event::ResumeRequested { run: run.name });
        }
        for sweep in sweeps {
            self.ask(Event::ResumeRequested { run: sweep.name });
        }
    }

    fn check_end(&mut self) {
        let engine = self.engine.as_ref().expect("the coordinator is up");
        let view = engine.view();
        for run in view.runs.iter().filter(|run| run.sweep.is_none()) {
            // A time limit that struck before the first checkpoint strikes again at once.
            let is_out_of_time = run.reason.ends_with("without completing a step");
            assert!(run.state == RunState::Completed || is_out_of_time, "{} {}: {}", run.name, run.state, run.reason);
            self.summary.completed += u64::from(run.state == RunState::Completed);
        }
        if let Some(sweep) = &self.sweep {
            sweep::invariant_a_sweep_ends_as_it_should(engine, sweep, &view);
            self.summary.trials += view.sweeps[0].trials.len() as u64;
        }
        invariants::invariant_replay_gives_the_same_engine(engine, &self.store, self.timing, self.now);
    }
}

#[cfg(test)]
mod tests;
