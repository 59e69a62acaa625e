use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proto::v1::{
    Checkpoint, EvalPoint, LogLine, Run, RunState, Stall, StepPoint, Sweep, SweepTrial, TrialState, Worker,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw;
use super::state::{Action, Curves, News, Over, Panel, Top};

/// A name as it might come from a coordinator that means ill: it clears the screen, reorders, and never ends.
fn hostile() -> String {
    format!("\u{1b}[2J\u{202e}\r\n\u{9b}31m{}", "w\u{301}i\u{200b}de 宽".repeat(40))
}

fn run(name: &str, state: RunState, step: u64) -> Run {
    let evals = (1..=step / 50).map(|i| EvalPoint {
        step: i * 50,
        loss: 2.0 / i as f64,
        accuracy: 1.0 - 0.5 / i as f64,
        ..EvalPoint::default()
    });
    let mut run = Run {
        name: name.to_owned(),
        step,
        total_steps: 564,
        workers_wanted: 2,
        evals: evals.collect(),
        ..Run::default()
    };
    run.set_state(state);
    if state == RunState::Completed {
        run.ended_at_ms = Some(9000);
    }
    run
}

fn worker(id: u64, run: &str, connected: bool) -> Worker {
    Worker {
        id,
        host: "node-1".to_owned(),
        pid: 4000 + id as u32,
        device: "cpu".to_owned(),
        run: run.to_owned(),
        connected,
        ..Worker::default()
    }
}

fn trial(number: u32, state: TrialState, accuracy: f64) -> SweepTrial {
    let run = format!("search.{number}");
    let mut trial = SweepTrial { number, run, step: 90, values: vec![accuracy], ..SweepTrial::default() };
    trial.set_state(state);
    trial
}

/// The specification of a sweep, as a coordinator sends it.
fn sweep_spec() -> String {
    let text = "{version: 1, name: search, job: {data: {format: idx, images: i, labels: l}, model: {type: vit, image: [8, 8], \
                channels: 1, patch: 4, dim: 16, depth: 1, heads: 2, classes: 10}, train: {steps: 90}}, \
                space: {schedule.lr: {log_uniform: [1e-4, 0.1]}}, trials: 12}";
    let load = |_: &std::path::Path| Err("none".to_owned());
    let spec = domain::spec::file::sweep::read(text, "s.yaml", std::path::Path::new("/"), load).unwrap();
    proto::convert::sweep_spec_to_json(&spec)
}

/// A cluster in the middle of its work.
fn busy() -> Top {
    let mut top = Top::new("http://127.0.0.1:7070");
    let mut digits = run("digits-vit", RunState::Running, 310);
    digits.members = vec![1, 2];
    digits.generation = 3;
    digits.failures = 1;
    digits.checkpoints = vec![Checkpoint { step: 300, ..Checkpoint::default() }];
    let mut waiting = run("later", RunState::Waiting, 0);
    waiting.reason = "too few workers: 0 of 2".to_owned();
    waiting.submitted_at_ms = 5;
    let mut sweep = Sweep { name: "search".to_owned(), trials_begun: 4, spec_json: sweep_spec(), ..Sweep::default() };
    sweep.set_state(RunState::Running);
    let ended_trial = Run { sweep: "search".to_owned(), ..run("search.1", RunState::Completed, 90) };
    top.hear(News::Cluster {
        runs: vec![run("before", RunState::Completed, 564), digits.clone(), waiting, ended_trial],
        workers: vec![worker(1, "digits-vit", true), worker(2, "digits-vit", true), worker(3, "", false)],
        sweeps: vec![sweep.clone()],
        stall: None,
    });
    let mut curves = Curves::default();
    (1..=300).for_each(|step| curves.loss.push(step, 2.3 / f64::from(step as u32).sqrt()));
    top.hear(News::Curves { run: "digits-vit".to_owned(), curves });
    let newest = StepPoint { step: 312, loss: 0.1302, lr: 1e-3, ..StepPoint::default() };
    top.hear(News::Run { run: Box::new(digits), newest: Some(newest), samples_per_second: Some(1234.5) });
    sweep.trials = vec![
        trial(0, TrialState::Training, 0.5),
        trial(1, TrialState::Completed, 0.975),
        trial(2, TrialState::Pruned, 0.25),
        trial(3, TrialState::Paused, 0.625),
    ];
    top.hear(News::Sweep(Box::new(sweep)));
    top
}

/// The screen as lines of text.
fn screen(top: &Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, top)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = (0..height).map(|y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Draws at `width` x `height` and looks for `parts`, each of which is on one line.
#[track_caller]
fn check(top: &Top, width: u16, height: u16, parts: &[&str]) {
    let shown = screen(top, width, height);
    for part in parts {
        assert!(shown.contains(part), "there is no {part:?} in\n{shown}");
    }
}

fn press(top: &mut Top, code: KeyCode) -> Action {
    top.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn keys_choose_open_and_stop() {
    let mut top = busy();
    assert_eq!(top.panel, Panel::Runs);
    assert_eq!(press(&mut top, KeyCode::Enter), Action::Open("digits-vit".to_owned()));
    assert_eq!(press(&mut top, KeyCode::Esc), Action::Close);
    press(&mut top, KeyCode::Down);
    assert_eq!(top.chosen(Panel::Runs), 1);
    press(&mut top, KeyCode::Char('s'));
    assert_eq!(top.over, Over::Stop("later".to_owned()));
    assert_eq!(press(&mut top, KeyCode::Char('n')), Action::None);
    assert_eq!(top.over, Over::Nothing);
    press(&mut top, KeyCode::Char('s'));
    assert_eq!(press(&mut top, KeyCode::Char('y')), Action::Stop("later".to_owned()));
    press(&mut top, KeyCode::End);
    assert_eq!(top.chosen(Panel::Runs), 2, "an ended trial has no line");
    press(&mut top, KeyCode::Char('s'));
    assert_eq!((&top.over, top.notice.as_deref()), (&Over::Nothing, Some("before has ended")));
    press(&mut top, KeyCode::Tab);
    assert_eq!(press(&mut top, KeyCode::Enter), Action::Open("search.1".to_owned()), "the best trial");
    assert!(top.opened().is_some(), "an ended trial can be opened");
    press(&mut top, KeyCode::Esc);
    press(&mut top, KeyCode::Char('s'));
    assert_eq!(top.over, Over::Stop("search".to_owned()));
    press(&mut top, KeyCode::Esc);
    press(&mut top, KeyCode::Tab);
    press(&mut top, KeyCode::End);
    assert_eq!(press(&mut top, KeyCode::Enter), Action::None, "a free worker has no run");
    press(&mut top, KeyCode::Home);
    assert_eq!(press(&mut top, KeyCode::Enter), Action::Open("digits-vit".to_owned()), "the worker's run");
    assert_eq!(press(&mut top, KeyCode::Char('q')), Action::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(top.key(control_c), Action::Quit);
}

#[test]
fn what_is_chosen_stays_chosen_when_the_order_changes() {
    let mut top = busy();
    press(&mut top, KeyCode::Down);
    let runs = vec![run("later", RunState::Running, 1), run("digits-vit", RunState::Completed, 564)];
    top.hear(News::Cluster { runs, workers: Vec::new(), sweeps: Vec::new(), stall: None });
    assert_eq!((top.chosen(Panel::Runs), top.listed().count()), (0, 2));
    press(&mut top, KeyCode::Char('s'));
    assert_eq!(top.over, Over::Stop("later".to_owned()));
}

#[test]
fn a_run_that_goes_back_takes_its_curve_along() {
    let mut top = busy();
    let newest = StepPoint { step: 100, loss: 9.0, ..StepPoint::default() };
    let back = Box::new(run("digits-vit", RunState::Running, 100));
    top.hear(News::Run { run: back, newest: Some(newest), samples_per_second: None });
    let curves = &top.run_row("digits-vit").unwrap().curves;
    assert_eq!(curves.loss.points().last().map(|point| point.0), Some(100));
    assert_eq!(curves.accuracy.points().last().map(|point| point.0), Some(100));
}

#[test]
fn nothing_from_outside_drives_the_terminal() {
    let mut top = Top::new(&hostile());
    let mut bad = run(&hostile(), RunState::Running, 50);
    bad.step = u64::MAX;
    bad.reason = hostile();
    bad.ended_at_ms = Some(u64::MAX);
    bad.members = vec![u64::MAX; 3];
    bad.evals = [f64::MAX, -f64::MAX, f64::NAN, f64::INFINITY]
        .iter()
        .zip([1, 2, 3, u64::MAX])
        .map(|(value, step)| EvalPoint { step, loss: *value, accuracy: *value, ..EvalPoint::default() })
        .collect();
    let bad_worker = Worker { host: hostile(), device: hostile(), run: hostile(), ..Worker::default() };
    let mut sweep = Sweep { name: hostile(), spec_json: hostile(), reason: hostile(), ..Sweep::default() };
    sweep.trials = vec![SweepTrial {
        run: hostile(),
        configuration_json: hostile(),
        values: vec![f64::NAN],
        ..SweepTrial::default()
    }];
    top.hear(News::Cluster {
        runs: vec![bad.clone()],
        workers: vec![bad_worker],
        sweeps: vec![sweep.clone()],
        stall: None,
    });
    top.hear(News::Sweep(Box::new(sweep)));
    let newest = StepPoint { step: u64::MAX, loss: f64::NAN, lr: f64::INFINITY, ..StepPoint::default() };
    top.hear(News::Run { run: Box::new(bad), newest: Some(newest), samples_per_second: Some(f64::INFINITY) });
    let mut screens = vec![screen(&top, 80, 24), screen(&top, 120, 40)];
    press(&mut top, KeyCode::Char('s'));
    screens.push(screen(&top, 80, 24));
    press(&mut top, KeyCode::Char('n'));
    assert_eq!(press(&mut top, KeyCode::Enter), Action::Open(hostile()));
    let line = LogLine { at_ms: u64::MAX, source: hostile(), level: hostile(), text: hostile(), ..LogLine::default() };
    top.hear(News::Log { run: hostile(), lines: vec![line; 1000] });
    top.hear(News::Asked(hostile()));
    screens.extend([
        screen(&top, 80, 24),
        screen(&top, 120, 40),
        screen(&top, 60, 16),
        screen(&top, 20, 5),
        screen(&top, 1, 1),
    ]);
    top.hear(News::Away(hostile()));
    screens.push(screen(&top, 80, 24));
    for shown in screens {
        let bad = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{200b}' | '\u{202e}'));
        assert!(!shown.contains(bad), "{shown:?}");
        assert!(shown.lines().all(|line| line.len() < 1000), "{shown:?}");
    }
}

#[test]
fn the_cluster_fits_80x24() {
    check(&busy(), 80, 24, LIST);
}

#[test]
fn the_cluster_fits_120x40() {
    check(&busy(), 120, 40, LIST);
}

fn opened() -> Top {
    let mut top = busy();
    press(&mut top, KeyCode::Enter);
    let line = |n: u64| LogLine {
        sequence: n,
        at_ms: 1_795_519_325_000 + n * 1000,
        source: "coordinator".to_owned(),
        level: "info".to_owned(),
        text: format!("group formed at generation {n}"),
    };
    top.hear(News::Log { run: "digits-vit".to_owned(), lines: (1..=3).map(line).collect() });
    top
}

#[test]
fn a_run_fits_80x24() {
    check(&opened(), 80, 24, OPEN);
}

#[test]
fn a_run_fits_120x40() {
    check(&opened(), 120, 40, OPEN);
}

#[test]
fn the_keys_are_explained_and_stopping_is_asked_about() {
    let mut top = busy();
    press(&mut top, KeyCode::Char('?'));
    check(&top, 80, 24, &["another part of the screen", "quit; nothing that trains is touched"]);
    press(&mut top, KeyCode::Char('x'));
    press(&mut top, KeyCode::Char('s'));
    assert!(screen(&top, 80, 24).contains("Stop digits-vit after the step in progress, its state saved?"));
}

#[test]
fn an_absence_is_told_and_an_empty_cluster_says_what_to_do() {
    let mut top = Top::new("http://127.0.0.1:7070");
    assert!(screen(&top, 80, 24).contains("connecting"));
    top.hear(News::Cluster { runs: Vec::new(), workers: Vec::new(), sweeps: Vec::new(), stall: None });
    let shown = screen(&top, 80, 24);
    assert!(shown.contains("no worker has connected yet") && shown.contains("phalanx launch FILE"), "{shown}");
    top.hear(News::Away("tcp connect error".to_owned()));
    assert!(screen(&top, 80, 24).contains("AWAY, what is shown is old: tcp connect error"));
    top.hear(News::Cluster { runs: Vec::new(), workers: Vec::new(), sweeps: Vec::new(), stall: None });
    assert!(!screen(&top, 80, 24).contains("AWAY"));
    let stall = Some(Stall { cause: "disk \u{1b}[31m full".to_owned(), since_ms: 1 });
    top.hear(News::Cluster { runs: Vec::new(), workers: Vec::new(), sweeps: Vec::new(), stall });
    assert!(screen(&top, 80, 24).contains("NOTHING IS SAVED, the store cannot be written: disk \\u{1b}"));
    assert!(screen(&top, 40, 10).starts_with("60x16 is the least"));
}

const LIST: &[&str] = &[
    "phalanx top  http://127.0.0.1:7070  2 of 3 workers connected",
    "digits-vit, rank 1 of 2",
    "free",
    "away",
    "STEP",
    "312/564 55 %",
    "0.1302",
    "91.67 %",
    "waiting",
    "564/564 100 %",
    "TRAIN PAUSED DONE PRUNED FAILED BEST TRIAL",
    "1: accuracy 97.50 %",
    "q quit",
    "▁",
    "█",
];

const OPEN: &[&str] = &[
    "digits-vit  running",
    "step 312 of 564",
    "loss 0.1302  lr 1.00e-3  accuracy 91.67 %",
    "2 of 2 workers (00000001, 00000002)  generation 3, 1 lost",
    "Accuracy (held out)",
    "Loss (line: training",
    "11:22:08 info  coordinator: group formed at generation 3",
    "Esc back",
];
