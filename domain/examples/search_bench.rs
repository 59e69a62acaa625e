//! Searchers on known functions: `search_bench SEARCHER PENDING FIRST..END` plays the seeds of a range with so many trials
//! at a time and prints a line of JSON for each function and seed, with the best loss after 50, 100 and 200 trials.
//! `search_bench --speed` prints how long proposals take. `bench/search.py` runs it beside Optuna.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to the person who runs it")]

use std::collections::VecDeque;
use std::f64::consts::{E, PI, TAU};
use std::process::ExitCode;
use std::time::Instant;

use domain::search::cma_es::CmaEsSpec;
use domain::search::gaussian_process::GaussianProcessSpec;
use domain::search::nsga2::Nsga2Spec;
use domain::search::tpe::TpeSpec;
use domain::search::{Domain, Parameter, Searcher, SearcherSpec, Space};

/// After so many trials the best loss is noted.
const NOTED: [usize; 3] = [50, 100, 200];

/// A function with its bounds.
struct Function {
    name: &'static str,
    bounds: Vec<(f64, f64)>,
    at: fn(&[f64]) -> f64,
}

fn functions() -> Vec<Function> {
    vec![
        Function { name: "branin", bounds: vec![(-5.0, 10.0), (0.0, 15.0)], at: branin },
        Function { name: "hartmann6", bounds: vec![(0.0, 1.0); 6], at: hartmann6 },
        Function { name: "ackley10", bounds: vec![(-32.768, 32.768); 10], at: ackley },
        Function { name: "rosenbrock5", bounds: vec![(-5.0, 10.0); 5], at: rosenbrock },
    ]
}

fn branin(x: &[f64]) -> f64 {
    let bent = x[1] - 5.1 / (4.0 * PI * PI) * x[0] * x[0] + 5.0 / PI * x[0] - 6.0;
    bent * bent + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x[0].cos() + 10.0
}

fn hartmann6(x: &[f64]) -> f64 {
    const HEIGHT: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
    const SLOPE: [[f64; 6]; 4] = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    const CENTRE: [[f64; 6]; 4] = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    let hill = |i: usize| {
        let exponent: f64 = (0..6).map(|j| SLOPE[i][j] * (x[j] - CENTRE[i][j]).powi(2)).sum();
        HEIGHT[i] * (-exponent).exp()
    };
    -(0..4).map(hill).sum::<f64>()
}

fn ackley(x: &[f64]) -> f64 {
    let n = x.len() as f64;
    let squares = x.iter().map(|x| x * x).sum::<f64>() / n;
    let waves = x.iter().map(|x| (TAU * x).cos()).sum::<f64>() / n;
    20.0 + E - 20.0 * (-0.2 * squares.sqrt()).exp() - waves.exp()
}

fn rosenbrock(x: &[f64]) -> f64 {
    x.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum()
}

/// The searcher of this name with its defaults.
fn searcher(name: &str, space: &Space, seed: u64) -> Option<Searcher> {
    let spec = match name {
        "random" => SearcherSpec::Random,
        "tpe" => SearcherSpec::Tpe(TpeSpec::default()),
        "gaussian_process" => SearcherSpec::GaussianProcess(GaussianProcessSpec::default()),
        "cma_es" => SearcherSpec::CmaEs(CmaEsSpec::default()),
        "nsga2" => SearcherSpec::Nsga2(Nsga2Spec::default()),
        _ => return None,
    };
    Some(Searcher::new(&spec, space, seed))
}

fn propose(searcher: &mut Searcher, space: &Space, number: u32) -> Vec<f64> {
    searcher.propose(space, number).expect("these searchers never end")
}

fn finish(searcher: &mut Searcher, number: u32, loss: f64) {
    searcher.observe(number, 1, &[loss]);
    searcher.close(number);
}

fn space(function: &Function) -> Space {
    let parameter = |(index, (low, high)): (usize, &(f64, f64))| Parameter {
        path: format!("x{index}"),
        domain: Domain::Uniform { low: *low, high: *high },
        when: None,
    };
    Space::new(function.bounds.iter().enumerate().map(parameter).collect())
}

/// The best loss after every trial. Trials finish in the order they began, and each is replaced when it finishes.
fn play(searcher: &mut Searcher, function: &Function, trials: usize, pending: usize) -> Vec<f64> {
    let space = space(function);
    let mut running = VecDeque::new();
    let mut best = f64::INFINITY;
    let mut history = Vec::new();
    for number in 0..(trials + pending) as u32 {
        if running.len() == pending {
            let (number, loss): (u32, f64) = running.pop_front().expect("at least one trial is pending");
            finish(searcher, number, loss);
            best = best.min(loss);
            history.push(best);
            if history.len() == trials {
                break;
            }
        }
        let point = propose(searcher, &space, number);
        let scaled = |(u, (low, high)): (&f64, &(f64, f64))| low + u * (high - low);
        let x: Vec<f64> = point.iter().zip(&function.bounds).map(scaled).collect();
        running.push_back((number, (function.at)(&x)));
    }
    history
}

fn compare(name: &str, pending: usize, seeds: std::ops::Range<u64>) -> Option<()> {
    for function in functions() {
        for seed in seeds.clone() {
            let mut searcher = searcher(name, &space(&function), seed)?;
            let best = play(&mut searcher, &function, NOTED[2], pending);
            let noted = NOTED.map(|trials| best[trials - 1]);
            println!(
                r#"{{"searcher":"{name}","function":"{}","pending":{pending},"seed":{seed},"best":{noted:?}}}"#,
                function.name
            );
        }
    }
    Some(())
}

fn speed() {
    let function = &functions()[1];
    let space = space(function);
    let mut tpe = searcher("tpe", &space, 1).expect("the name is known");
    for number in 0..10_000 {
        let point = propose(&mut tpe, &space, number);
        finish(&mut tpe, number, (function.at)(&point));
    }
    let begun = Instant::now();
    let proposals = 200;
    (10_000..10_000 + proposals).for_each(|number| drop(propose(&mut tpe, &space, number)));
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3 / f64::from(proposals);
    println!(r#"{{"searcher":"tpe","finished":10000,"milliseconds_a_proposal":{milliseconds}}}"#);

    for name in ["gaussian_process", "cma_es", "nsga2"] {
        let mut searcher = searcher(name, &space, 1).expect("the name is known");
        let begun = Instant::now();
        play(&mut searcher, function, 500, 1);
        println!(r#"{{"searcher":"{name}","trials":500,"seconds_in_all":{}}}"#, begun.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let played = match arguments.as_slice() {
        ["--speed"] => {
            speed();
            Some(())
        }
        [name, pending, seeds] => range(seeds)
            .zip(pending.parse().ok().filter(|n| *n > 0))
            .and_then(|(seeds, pending)| compare(name, pending, seeds)),
        _ => None,
    };
    if played.is_none() {
        eprintln!(
            "usage: search_bench tpe|gaussian_process|cma_es|nsga2|random PENDING FIRST..END | search_bench --speed"
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn range(text: &str) -> Option<std::ops::Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}
