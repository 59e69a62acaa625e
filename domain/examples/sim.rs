//! Replays seeds of the simulation: `sim SEED` prints every event and effect, `sim --seeds A..B` plays a range. With
//! `--sweep` before it, the seeds are those of sweeps.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to the person who runs it")]

use std::process::ExitCode;

use domain::sim::{Summary, simulate, simulate_sweep};

/// How seeds are played.
type Simulate = fn(u64, Option<&mut dyn FnMut(&str)>) -> Summary;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (simulate, arguments): (Simulate, &[&str]) = match arguments.as_slice() {
        ["--sweep", of_sweep @ ..] => (simulate_sweep, of_sweep),
        of_jobs => (simulate, of_jobs),
    };
    match arguments {
        [seed] if seed.parse::<u64>().is_ok() => {
            let seed = seed.parse().expect("just parsed");
            let summary = simulate(seed, Some(&mut |line: &str| println!("{line}")));
            println!("seed {seed} holds: {summary:?}");
            ExitCode::SUCCESS
        }
        ["--seeds", range] => play_range(simulate, range),
        _ => usage(),
    }
}

fn play_range(simulate: Simulate, range: &str) -> ExitCode {
    let Some((first, end)) = range.split_once("..") else { return usage() };
    let (Ok(first), Ok(end)) = (first.parse::<u64>(), end.parse::<u64>()) else { return usage() };
    let mut failed = 0u64;
    for seed in first..end {
        if std::panic::catch_unwind(|| simulate(seed, None)).is_err() {
            println!("seed {seed} FAILED: play it alone to see what happened");
            failed += 1;
        }
    }
    println!("{} seeds, {failed} failed", end.saturating_sub(first));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: sim [--sweep] SEED | sim [--sweep] --seeds FIRST..END");
    ExitCode::from(2)
}
