//! `phalanx wait`: returns once a run or sweep has come so far, and says nothing meanwhile. For scripts.

use std::time::Duration;

use anyhow::Context;
use domain::ids::RunName;
use proto::v1::{Run, RunState, Sweep, WatchRunResponse, WatchSweepResponse};

use crate::args::{Until, WaitArgs};
use crate::client::Named;
use crate::exit::{Exit, Failure};
use crate::follow::{OneRun, Watched, Watching};
use crate::follow_sweep::OneSweep;
use crate::interrupts::Interrupts;
use crate::output::{escape, note, run_state_name};
use crate::session::Session;

pub(crate) async fn run(args: WaitArgs) -> Result<Exit, Failure> {
    let until = args.until;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut session = Session::to_read(&args.place).await?;
    let waited = tokio::select! {
        waited = wait(&mut session, &args.name, until) => waited,
        () = after(args.timeout) => Ok(Waited::TimeOver),
        () = interrupts.next() => Ok(Waited::Interrupted),
    };
    session.close().await?;
    match waited? {
        Waited::Reached => Ok(Exit::Done),
        Waited::TimeOver => {
            let limit = args.timeout.unwrap_or_default();
            note(&format!("{} is not there after {}", args.name, humantime::format_duration(limit)));
            Ok(Exit::Left)
        }
        Waited::Interrupted => Ok(Exit::Left),
        Waited::Stopped(what) => {
            note(&format!("{what}\n  hint: phalanx resume {} takes it up again", args.name));
            Ok(Exit::Left)
        }
        Waited::Failed(what) => Err(Failure::failed(anyhow::Error::msg(what))),
        Waited::Never(what) => Err(Failure::config(anyhow::Error::msg(what))),
    }
}

/// How waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waited {
    /// It is as was waited for.
    Reached,
    /// It failed.
    Failed(String),
    /// It came to rest before, and may go on.
    Stopped(String),
    /// It is over without having been there.
    Never(String),
    /// It took too long.
    TimeOver,
    /// A user left.
    Interrupted,
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

async fn wait(session: &mut Session, name: &RunName, until: Until) -> Result<Waited, Failure> {
    match session.find_followed(name).await? {
        Named::Run(_) => watch::<OneRun>(session, name, |message| judge_run(message, until)).await,
        Named::Sweep(_) if matches!(until, Until::Step(_)) => {
            let message = format!("sweep {name} has no steps of its own");
            Err(Failure::config(anyhow::Error::msg(message)).hint("--for completed or --for ended"))
        }
        Named::Sweep(_) => watch::<OneSweep>(session, name, |message| judge_sweep(message, until)).await,
    }
}

async fn watch<W: Watched>(
    session: &Session,
    name: &RunName,
    judge: impl Fn(&W::Message) -> Option<Waited>,
) -> Result<Waited, Failure> {
    let mut watching = Watching::<W>::new(&session.client, name);
    loop {
        let message = watching.next(|_| {}).await?;
        if let Some(waited) = judge(&message) {
            return Ok(waited);
        }
    }
}

fn judge_run(message: &WatchRunResponse, until: Until) -> Option<Waited> {
    let run = message.run.as_ref()?;
    let step = message.newest.map_or(run.step, |newest| newest.step.max(run.step));
    if matches!(until, Until::Step(wanted) if step >= wanted) {
        return Some(Waited::Reached);
    }
    let Run { name, reason, .. } = run;
    at_rest("run", name, run.state(), reason, &format!(" at step {step}"), until)
}

fn judge_sweep(message: &WatchSweepResponse, until: Until) -> Option<Waited> {
    let Sweep { name, reason, .. } = message.sweep.as_ref()?;
    at_rest("sweep", name, message.sweep.as_ref()?.state(), reason, "", until)
}

/// What the end of something says about it; nothing while it goes on.
fn at_rest(kind: &str, name: &str, state: RunState, reason: &str, place: &str, until: Until) -> Option<Waited> {
    let what = || {
        let reason = if reason.is_empty() { String::new() } else { format!(": {}", escape(reason)) };
        format!("{kind} {} is {}{place}{reason}", escape(name), run_state_name(state))
    };
    match state {
        RunState::Unspecified | RunState::Waiting | RunState::Forming | RunState::Running | RunState::Stopping => None,
        RunState::Completed if matches!(until, Until::Step(_)) => Some(Waited::Never(what())),
        RunState::Completed => Some(Waited::Reached),
        RunState::Stopped | RunState::Paused | RunState::Pruned | RunState::Failed if until == Until::Ended => {
            Some(Waited::Reached)
        }
        RunState::Failed => Some(Waited::Failed(what())),
        RunState::Stopped | RunState::Paused | RunState::Pruned => Some(Waited::Stopped(what())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_answer() {
        let stopped = || Waited::Stopped("run a is stopped at step 5".to_owned());
        for (state, until, expected) in [
            (RunState::Waiting, Until::Completed, None),
            (RunState::Running, Until::Ended, None),
            (RunState::Running, Until::Step(6), None),
            (RunState::Running, Until::Step(5), Some(Waited::Reached)),
            (RunState::Stopped, Until::Step(5), Some(Waited::Reached)),
            (RunState::Stopped, Until::Step(6), Some(stopped())),
            (RunState::Stopped, Until::Completed, Some(stopped())),
            (RunState::Stopped, Until::Ended, Some(Waited::Reached)),
            (RunState::Completed, Until::Completed, Some(Waited::Reached)),
            (RunState::Completed, Until::Step(6), Some(Waited::Never("run a is completed at step 5".to_owned()))),
            (RunState::Failed, Until::Ended, Some(Waited::Reached)),
            (RunState::Failed, Until::Completed, Some(Waited::Failed("run a is failed at step 5".to_owned()))),
        ] {
            let mut run = Run { name: "a".to_owned(), step: 5, ..Run::default() };
            run.set_state(state);
            let message = WatchRunResponse { run: Some(run), newest: None };
            assert_eq!(judge_run(&message, until), expected, "{state:?}, {until:?}");
        }
    }

    #[test]
    fn a_sweep_is_judged_by_its_own_state() {
        let mut sweep = Sweep { name: "s".to_owned(), reason: "too many failed\u{1b}".to_owned(), ..Sweep::default() };
        sweep.set_state(RunState::Failed);
        let message = WatchSweepResponse { sweep: Some(sweep) };
        let failed = Waited::Failed("sweep s is failed: too many failed\\u{1b}".to_owned());
        assert_eq!(judge_sweep(&message, Until::Completed), Some(failed));
        assert_eq!(judge_sweep(&message, Until::Ended), Some(Waited::Reached));
    }
}
